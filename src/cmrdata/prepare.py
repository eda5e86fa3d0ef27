"""A cohort's slice store: subjects read once by several threads into an image set that no
interruption can spoil."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata import origin, progress, scale
from cmrdata.counting import number_of
from cmrdata.disk import (
    alone,
    check_room,
    differences,
    fingerprint,
    in_words,
    plain,
    write_atomic,
    writing,
)
from cmrdata.origin import Origin
from cmrdata.protocol import Cohort, Stacks, channels, ordered
from cmrdata.pseudonyms import salt_mark
from cmrdata.store import PAIR, STORE_FORMAT, Store, Writer, read_settings
from cmrdata.subjects import keep_controls, split, with_groups
from cmrdata.tables import text_columns, typed

CHUNK = 16  # subjects per part: a killed preparation loses fewer, and those being read
# subjects in one call, at most: few to hold in memory, enough for a phantom to be drawn at full
# speed
SUBJECTS_TOGETHER = 8
WORKERS = 8  # at most, unless told: a disk feeds no more
# settings that only a hash stands for
HASHES = {
    "table": "another subject table",
    "source": "other participants or files",
}


def prepare(
    cohort: Cohort, root: str | Path, *, workers: int | None = None, refresh: bool = False
) -> Store:
    """The cohort's store below `root`, built on first use and continued if it was interrupted.

    A finished store opens by itself, without its source: see `opened`. Processes that prepare the
    same store take turns.

    Args:
        cohort: whose.
        root: the folder of stores.
        workers: threads that read subjects; by default one per usable core, at most WORKERS.
        refresh: compare with the source, and make a new store where that has changed.

    Raises:
        ValueError: as soon as more than the cohort's `max_rejected` of the subjects cannot be read,
            with the reasons counted; where several stores fit and nothing tells which is meant.
        Unwritable: when `root` has too little space or may not be written.
    """
    channel_count, root = channels(cohort), Path(root)
    if not refresh and (store := opened(cohort, root)) is not None:
        return store
    subjects, rejected = listed(cohort)
    if subjects.empty:
        raise ValueError(nobody(cohort, rejected))
    subjects["stored"] = keep_controls(
        subjects, per_case=cohort.controls_per_case, seed=cohort.seed
    )
    source, looked = cohort.source(), time.time_ns()
    files, _ = origin.look(source.files, _newest_origin(cohort, root))
    # names differ from salt to salt
    table = typed(subjects.drop(columns="subject")).to_csv(index=False)
    settings = {
        "cohort": cohort.name,
        **cohort.settings,
        "table": hashlib.sha256(table.encode()).hexdigest(),
        "source": origin.digest(source, files),
    }
    folder = root / f"{_declared(cohort)}-{fingerprint(settings)[:4]}"
    places = _places(cohort)
    came_from = Origin(places, origin.watched(places, cohort.watched), looked, files)
    if Store(folder).complete:  # which may be on a disk that takes no lock
        return _known_again(folder, came_from, root)
    needs = _needs(*_room(subjects[subjects.stored], cohort))
    with alone(folder, needs=needs):
        if Store(folder).complete:
            return _known_again(folder, came_from, root)
        with writing(folder, needs=needs):
            if not (folder / "settings.json").exists():
                _say_what_changed(folder, {"format": STORE_FORMAT, **settings})
            writer = Writer(folder, pixels=cohort.pixels, settings=settings, channels=channel_count)
            if places:
                origin.write(folder, came_from)
        _build(
            writer,
            cohort,
            subjects,
            rejected,
            workers=workers or min(_cores(), WORKERS),
            needs=needs,
        )
    return _known_again(folder, came_from, root)


def listed(cohort: Cohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the cohort's subjects with groups and split, rejected subjects): the one place where a split
    is made."""
    table, rejected = cohort.subjects()
    if table.empty:
        return table, rejected
    subjects = with_groups(table)
    if "split" not in subjects:
        subjects["split"] = split(subjects, seed=cohort.seed, fold=cohort.fold)
    return subjects, rejected


def opened(cohort: Cohort, root: Path) -> Store | None:
    """A finished store below `root` of the cohort's settings, opened without a look at table or
    folders.

    It is the one that was made from the places the cohort names. Where none of these places is
    there (unmounted, not given) the only store of these settings is opened, and that is said. None
    where a source has to be compared: another place that exists, or a changed list of withdrawn
    participants.

    Raises ValueError where several stores fit and no place tells which is meant.
    """
    stores = [
        path.parent for path in sorted(root.glob(f"{glob.escape(_declared(cohort))}-*/store.json"))
    ]
    origins = {folder: origin.read(folder) for folder in stores}
    current = [folder for folder, of in origins.items() if not (of and of.renewed_as)]
    if not current:
        return None
    places = _places(cohort)
    if not places:
        return Store.open(current[-1])
    now = origin.watched(places, cohort.watched)
    for folder in current:
        of = origins[folder]
        if (
            of
            and of.places == places
            and all(of.watched.get(key) == mark for key, mark in now.items())
        ):
            return Store.open(folder)
    if any(place and os.path.exists(place) for place in places.values()):
        return None
    if len(current) > 1:
        choices = "; ".join(f"{folder.name} from {_from(origins[folder])}" for folder in current)
        raise ValueError(
            f"cohort {cohort.name}: {len(current)} stores below {root} fit: {choices}. Name one "
            "by its root="
        )
    of = origins[current[0]]
    missing = ", ".join(f"cohort.{key}={place or 'null'}" for key, place in places.items())
    print(
        f"{current[0]}: opened as made{f' on {of.made}' if of else ''}; its source is not there "
        f"({missing})",
        flush=True,
    )
    return Store.open(current[0])


def keep_place(cohort: Cohort, root: Path) -> None:
    """Remember the cohort's places for its stores below `root`, of whatever settings, that came
    from the same root.

    After participants have been taken out, their list is none that asks for another look.
    """
    places, names = _places(cohort), salt_mark(root)
    for path in root.glob(f"{glob.escape(cohort.name)}-*/store.json"):
        known = origin.read(path.parent)
        if Store(path.parent).meta.get("names") not in (None, names):
            continue  # another salt's: nobody was taken out
        if known and all(
            known.places.get(key) == place
            for key, place in places.items()
            if key not in cohort.watched
        ):
            watched = origin.watched(places, cohort.watched)
            origin.write(path.parent, known._replace(places=places, watched=watched))


def _from(of: Origin | None) -> str:
    return (
        ", ".join(f"{key}={place}" for key, place in of.places.items() if place)
        if of
        else "an unknown place"
    )


def _declared(cohort: Cohort) -> str:
    """The beginning of a store's folder name: the cohort and a hash of its settings."""
    return f"{cohort.name}-{fingerprint({'format': STORE_FORMAT, **cohort.settings})[:8]}"


def _places(cohort: Cohort) -> dict[str, str | None]:
    return {key: os.path.realpath(place) if place else None for key, place in cohort.places.items()}


def _newest_origin(cohort: Cohort, root: Path) -> Origin | None:
    """What is known of the cohort's files from the store made last of them, so that they need not
    be read again."""
    folders = [
        path.parent for path in root.glob(f"{glob.escape(cohort.name)}-*/{origin.ORIGIN_FILE}")
    ]
    kept = [
        of for folder in folders if (of := origin.read(folder)) and of.places == _places(cohort)
    ]
    return max(kept, key=lambda of: of.looked, default=None)


def _known_again(folder: Path, came_from: Origin, root: Path) -> Store:
    """The finished store in `folder`, remembered as made from there; stores that it takes the place
    of are named."""
    store = Store.open(folder)
    if not came_from.places:
        return store
    before = origin.read(folder)
    if before and before.places != came_from.places:
        print(f"{folder}: the same source, moved to {_from(came_from)}", flush=True)
    with suppress(OSError):  # a disk that may not be written still gives the store
        origin.write(folder, came_from)
        for path in root.glob(f"{glob.escape(folder.name[:-5])}-*/store.json"):
            other = origin.read(path.parent)
            if (
                path.parent != folder
                and other
                and not other.renewed_as
                and other.places == came_from.places
            ):
                origin.write(path.parent, other._replace(renewed_as=folder.name))
                print(
                    f"{path.parent}: its source has changed, {folder.name} takes its place; it "
                    "can be deleted",
                    flush=True,
                )
    return store


def _build(
    writer: Writer,
    cohort: Cohort,
    subjects: pd.DataFrame,
    rejected: pd.DataFrame,
    *,
    workers: int,
    needs: str,
) -> Store:
    folder, everybody = writer.folder, len(set(subjects.subject) | set(rejected.subject))
    rejected = pd.concat([rejected, writer.rejected()], ignore_index=True)
    _check_rejected(rejected, cohort, everybody, folder)
    wanted, attributes = (
        subjects[subjects.stored],
        typed(subjects.drop(columns="stored")).set_index("subject"),
    )
    todo = wanted[~wanted.subject.isin(writer.done())]
    _check_room(
        folder, *_room(todo, cohort, spared=int(cohort.max_rejected * everybody) - len(rejected))
    )
    # fewer of a small cohort, so that workers end together
    together = min(SUBJECTS_TOGETHER, CHUNK, max(1, len(wanted) // 32))
    portions = [todo.iloc[k : k + together] for k in range(0, len(todo), together)]
    there = len(wanted) - len(todo)
    bar = progress.bar(f"prepare {cohort.name}", total=len(wanted), done=there, unit="subjects")
    with bar as advance, closing(ordered(cohort.stacks, portions, workers=workers)) as results:
        for chunk in _joined(results, CHUNK // together):
            index = chunk.index.join(attributes, on="subject")
            with writing(folder, needs=needs):
                writer.append(chunk.images, chunk.masks, index, rejected=chunk.rejected)
            rejected = pd.concat([rejected, chunk.rejected], ignore_index=True)
            _check_rejected(rejected, cohort, everybody, folder)
            advance(index.subject.nunique() + len(chunk.rejected))
    read = subjects[~subjects.subject.isin(rejected.subject)].copy()
    if read.empty:
        raise ValueError(nobody(cohort, rejected))
    balanced = keep_controls(read[read.stored], per_case=1, seed=cohort.seed)
    read = typed(read.assign(balanced=balanced.reindex(read.index, fill_value=False)))
    names = salt_mark(cohort.salt_root) if cohort.salt_root else None
    with writing(folder, needs=needs):
        write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
        write_atomic(folder / "subjects.csv", read.to_csv(index=False))
        store = writer.finish(
            subjects=len(read), rejected=len(rejected), text=text_columns(read), names=names
        )
    tell_scale(store)
    return store


def tell_scale(store: Store) -> None:
    """How the scans' pixels and the store's compare, where the scans have some."""
    mm, fov_mm = store.index.get("mm"), store.meta["settings"].get("fov_mm")
    if mm is not None and fov_mm:
        scale.tell(
            scale.of_scans(
                mm[~store.index.subject.duplicated()], pixels=store.meta["pixels"], fov_mm=fov_mm
            )
        )


def _joined(results: Iterable[Stacks], count: int) -> Iterator[Stacks]:
    """`count` results at a time as one; the last may be fewer."""
    rest = iter(results)
    while few := list(islice(rest, count)):
        images, masks, index, rejected = zip(*few, strict=True)
        yield Stacks(
            np.concatenate(images),
            np.concatenate(masks),
            pd.concat(index, ignore_index=True),
            pd.concat(rejected, ignore_index=True),
        )


def _check_rejected(rejected: pd.DataFrame, cohort: Cohort, everybody: int, folder: Path) -> None:
    if len(rejected) / everybody <= cohort.max_rejected:
        return
    with writing(folder):
        write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
    hint = _unmasked(rejected) and f". {expected(cohort, rejected)}"
    raise ValueError(
        f"cohort {cohort.name}: {number_of(len(rejected), 'subjects')} rejected, more than "
        f"{cohort.max_rejected:.0%} of {everybody}; see {folder / 'rejected.csv'}. Mend the data "
        "and delete that folder, or go on without them with a higher "
        f"cohort.max_rejected={hint}\n{reasons(rejected)}"
    )


def _room(subjects: pd.DataFrame, cohort: Cohort, *, spared: int = 0) -> tuple[int, int]:
    """Bytes that the images and masks of `subjects` take at least and at most.

    All but `spared` subjects give one row or more, training and extra subjects up to three (of
    cines one) for each slice of the reach.
    """
    steps = 1 if cohort.cine else 3
    row, nine = (channels(cohort) + PAIR) * cohort.pixels**2, steps * (2 * cohort.reach + 1)
    expanded = int(subjects.split.isin(("train", "extra")).sum())
    return row * max(0, len(subjects) - spared), row * (len(subjects) + (nine - 1) * expanded)


def _check_room(folder: Path, least: int, most: int) -> None:
    """Raise Unwritable when there surely is too little space, warn when there may be."""
    needs = _needs(least, most)
    free = check_room(folder, least, needs=f"{folder}: {needs}")
    if free is not None and free < most:
        print(
            f"{folder} may not fit on its disk: {needs}, {in_words(free)} are free",
            flush=True,
        )


def _needs(least: int, most: int) -> str:
    return f"{in_words(least)} to {in_words(most)} are needed"


def _say_what_changed(folder: Path, settings: dict[str, Any]) -> None:
    """One line when this cohort has been prepared before with other settings, so that nobody
    wonders why it is again."""
    name = re.escape(folder.name[:-14]) + "-[0-9a-f]{8}-[0-9a-f]{4}"
    others = [
        path
        for path in folder.parent.glob("*/settings.json")
        if re.fullmatch(name, path.parent.name)
    ]
    if others:
        newest = max(others, key=lambda path: path.stat().st_mtime).parent
        try:
            lines = differences(read_settings(newest), plain(settings))
        except ValueError:
            return
        brief = [
            HASHES.get(
                line.split()[0].rpartition(".")[2], line if len(line) < 80 else line.split()[0]
            )
            for line in lines
        ]
        print(
            f"{newest} was made with other settings ({', '.join(brief)}); making {folder}",
            flush=True,
        )


def nobody(cohort: Cohort, rejected: pd.DataFrame) -> str:
    """What to say of a cohort of which nobody can be used: the reasons counted, and what is
    expected."""
    return (
        f"cohort {cohort.name}: no usable "
        f"subject\n{reasons(rejected)}\n{expected(cohort, rejected)}"
    ).rstrip()


def expected(cohort: Cohort, rejected: pd.DataFrame) -> str:
    """What the `rejected` may lack, and what a cohort's files must be."""
    return f"{_unmasked(rejected)}{cohort.expected}".strip()


def _unmasked(rejected: pd.DataFrame) -> str:
    """A sentence where all lack their masks, else nothing."""
    lacking = rejected.reason.astype(str).str.contains(
        "labels: (?:file is missing|no )|^unlabelled", regex=True
    )
    if rejected.empty or not lacking.all():
        return ""
    return (
        "Images are there and masks are not: LV, myocardium and RV must be segmented at ED and ES "
        "first, by hand or by a network such as that of github.com/baiwenjia/ukbb_cardiac. "
    )


def reasons(rejected: pd.DataFrame) -> str:
    """Rejected subjects counted by reason, most frequent first."""
    if rejected.empty:
        return "(nothing rejected)"
    return "\n".join(
        f"{count:6d}  {reason}" for reason, count in rejected.reason.value_counts().items()
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
