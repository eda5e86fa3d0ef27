"""A cohort's slice store: subjects read once by several threads into an image set that no interruption can spoil."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from cmrdata.cohort import keep_controls, split, with_groups
from cmrdata.disk import Unwritable, alone, differences, fingerprint, plain, write_atomic, writing
from cmrdata.protocol import Cohort, Stacks, channels, ordered
from cmrdata.store import FORMAT, PAIR, Store, Writer, read_settings
from cmrdata.tables import text_columns, typed

CHUNK = 16  # subjects per part: a killed preparation loses fewer, and those being read
TOGETHER = 8  # subjects in one call, at most: few to hold in memory, enough for a phantom to be drawn at full speed
WORKERS = 8  # at most, unless told: a disk feeds no more
HASHES = {"table": "another subject table", "files": "other files"}  # settings that only a hash stands for


def prepare(cohort: Cohort, root: str | Path, *, workers: int | None = None) -> Store:
    """The cohort's store below `root`, built on first use and continued if it was interrupted.

    The folder's name carries a hash of settings and subject table, so changed data make a new store. Processes that
    prepare the same store take turns. `workers` threads read subjects: by default one per usable core, at most WORKERS.
    Raises ValueError as soon as more than the cohort's `max_rejected` of the subjects cannot be read, with the
    reasons counted; Unwritable when `root` has too little space or may not be written.
    """
    shown = channels(cohort)
    listed, rejected = cohort.subjects()
    if listed.empty:
        raise ValueError(nobody(cohort, rejected))
    subjects = with_groups(listed)
    if "split" not in subjects:
        subjects["split"] = split(subjects, seed=cohort.seed, fold=getattr(cohort, "fold", None))
    subjects["stored"] = keep_controls(subjects, per_case=cohort.controls_per_case, seed=cohort.seed)
    settings = {"cohort": cohort.name, **cohort.settings, "table": typed(subjects).to_csv(index=False)}
    settings["table"] = hashlib.sha256(settings["table"].encode()).hexdigest()
    folder = Path(root) / f"{cohort.name}-{fingerprint({'format': FORMAT, **settings})[:8]}"
    if Store(folder).complete:  # which may be on a disk that takes no lock
        return Store.open(folder)
    needs = "{} to {} are needed".format(*map(_megabytes, _room(subjects[subjects.stored], cohort)))
    with alone(folder, needs=needs):
        if Store(folder).complete:
            return Store.open(folder)
        with writing(folder, needs=needs):
            if not (folder / "settings.json").exists():
                _say_what_changed(folder, {"format": FORMAT, **settings})
            writer = Writer(folder, pixels=cohort.pixels, settings=settings, channels=shown)
        return _build(writer, cohort, subjects, rejected, workers=workers or min(_cores(), WORKERS), needs=needs)


def _build(
    writer: Writer, cohort: Cohort, subjects: pd.DataFrame, rejected: pd.DataFrame, *, workers: int, needs: str
) -> Store:
    folder, everybody = writer.folder, len(set(subjects.subject) | set(rejected.subject))
    rejected = pd.concat([rejected, writer.rejected()], ignore_index=True)
    _check_rejected(rejected, cohort, everybody, folder)
    wanted, attributes = subjects[subjects.stored], typed(subjects.drop(columns="stored")).set_index("subject")
    todo = wanted[~wanted.subject.isin(writer.done())]
    _check_room(folder, *_room(todo, cohort, spared=int(cohort.max_rejected * everybody) - len(rejected)))
    together = min(TOGETHER, CHUNK, max(1, len(wanted) // 32))  # fewer of a small cohort, so that workers end together
    some = [todo.iloc[k : k + together] for k in range(0, len(todo), together)]
    bar = tqdm(total=len(wanted), initial=len(wanted) - len(todo), desc=f"prepare {cohort.name}", unit="subject")
    with bar, closing(ordered(cohort.stacks, some, workers=workers)) as results:
        for part in _joined(results, CHUNK // together):
            index = part.index.join(attributes, on="subject")
            with writing(folder, needs=needs):
                writer.append(part.images, part.masks, index, rejected=part.rejected)
            rejected = pd.concat([rejected, part.rejected], ignore_index=True)
            _check_rejected(rejected, cohort, everybody, folder)
            bar.update(index.subject.nunique() + len(part.rejected))
    read = subjects[~subjects.subject.isin(rejected.subject)].copy()
    if read.empty:
        raise ValueError(nobody(cohort, rejected))
    balanced = keep_controls(read[read.stored], per_case=1, seed=cohort.seed)
    read = typed(read.assign(balanced=balanced.reindex(read.index, fill_value=False)))
    with writing(folder, needs=needs):
        write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
        write_atomic(folder / "subjects.csv", read.to_csv(index=False))
        return writer.finish(subjects=len(read), rejected=len(rejected), text=text_columns(read))


def _joined(results: Iterable[Stacks], count: int) -> Iterator[Stacks]:
    """`count` results at a time as one; the last may be fewer."""
    rest = iter(results)
    while few := list(islice(rest, count)):
        images, masks, index, rejected = zip(*few, strict=True)
        yield Stacks(np.concatenate(images), np.concatenate(masks), pd.concat(index, ignore_index=True),
                     pd.concat(rejected, ignore_index=True))  # fmt: skip


def _check_rejected(rejected: pd.DataFrame, cohort: Cohort, everybody: int, folder: Path) -> None:
    if len(rejected) / everybody <= cohort.max_rejected:
        return
    with writing(folder):
        write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
    hint = _unmasked(rejected) and f". {expected(cohort, rejected)}"
    raise ValueError(
        f"cohort {cohort.name}: {len(rejected)} subjects rejected, more than {cohort.max_rejected:.0%} of {everybody}; "
        f"see {folder / 'rejected.csv'}. Mend the data and delete that folder, or go on without them with a higher "
        f"cohort.max_rejected={hint}\n{reasons(rejected)}"
    )


def _room(subjects: pd.DataFrame, cohort: Cohort, *, spared: int = 0) -> tuple[int, int]:
    """Bytes that the images and masks of `subjects` take at least and at most.

    All but `spared` subjects give one row or more, training and extra subjects up to three (of cines one) for each slice
    of the reach.
    """
    steps = 1 if getattr(cohort, "cine", None) else 3
    row, nine = (channels(cohort) + PAIR) * cohort.pixels**2, steps * (2 * getattr(cohort, "reach", 1) + 1)
    expanded = int(subjects.split.isin(("train", "extra")).sum())
    return row * max(0, len(subjects) - spared), row * (len(subjects) + (nine - 1) * expanded)


def _check_room(folder: Path, least: int, most: int) -> None:
    """Raise Unwritable when there surely is too little space, warn when there may be."""
    disk = shutil.disk_usage(folder)
    if not disk.total or disk.free >= most:
        return
    told = f"{_megabytes(least)} to {_megabytes(most)} are needed, {_megabytes(disk.free)} are free"
    if disk.free < least:
        raise Unwritable(f"{folder}: {told}; free some space there or give another place with data_root=<folder>")
    print(f"{folder} may not fit on its disk: {told}", flush=True)


def _say_what_changed(folder: Path, settings: dict[str, Any]) -> None:
    """One line when this cohort has been prepared before with other settings, so that nobody wonders why it is again."""
    name = re.escape(folder.name[:-9]) + "-[0-9a-f]{8}"
    others = [path for path in folder.parent.glob("*/settings.json") if re.fullmatch(name, path.parent.name)]
    if others:
        newest = max(others, key=lambda path: path.stat().st_mtime).parent
        try:
            lines = differences(read_settings(newest), plain(settings))
        except ValueError:
            return
        brief = [
            HASHES.get(line.split()[0].rpartition(".")[2], line if len(line) < 80 else line.split()[0])
            for line in lines
        ]
        print(f"{newest} was made with other settings ({', '.join(brief)}); making {folder}", flush=True)


def nobody(cohort: Cohort, rejected: pd.DataFrame) -> str:
    """What to say of a cohort of which nobody can be used: the reasons counted, and what is expected."""
    return f"cohort {cohort.name}: no usable subject\n{reasons(rejected)}\n{expected(cohort, rejected)}".rstrip()


def expected(cohort: Cohort, rejected: pd.DataFrame) -> str:
    """What the `rejected` may lack, and what a cohort's files must be."""
    return f"{_unmasked(rejected)}{getattr(cohort, 'expected', '')}".strip()


def _unmasked(rejected: pd.DataFrame) -> str:
    """A sentence where all lack their masks, else nothing."""
    lacking = rejected.reason.astype(str).str.contains("labels: (?:file is missing|no )|^unlabelled", regex=True)
    if rejected.empty or not lacking.all():
        return ""
    return (
        "Images are there and masks are not: LV, myocardium and RV must be segmented at ED and ES first, by hand or by a "
        "network such as that of github.com/baiwenjia/ukbb_cardiac. "
    )


def reasons(rejected: pd.DataFrame) -> str:
    """Rejected subjects counted by reason, most frequent first."""
    if rejected.empty:
        return "(nothing rejected)"
    return "\n".join(f"{count:6d}  {reason}" for reason, count in rejected.reason.value_counts().items())


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
