"""Withdrawn participants: removed from stores, caches and plans, and whatever else rests on them
named.

A participant who withdraws must not be used any more. The rows of a store that are theirs are
rewritten without them, so the store is another one afterwards and what was made from it has to be
made again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrdata import origin
from cmrdata.counting import number_of
from cmrdata.disk import alone, fingerprint, plain, write_atomic
from cmrdata.store import PIXEL_FILES, Store
from cmrdata.tables import typed

ROWS_TOGETHER = 1024  # rows copied at a time
# what was computed from a store's rows
CACHES = ("moments-*", ".moments-*", "prompts-*", "judges*", "features*")


class Trace(NamedTuple):
    """A place where withdrawn participants were found."""

    what: str  # store, cache, notes, plan, set, predictions
    place: str
    many: int  # participants, or files of a cache
    done: str  # what was done, or what is to be done


def purge(names: Collection[str], *, mark: str | None, data: Path, runs: Path) -> list[Trace]:
    """Remove participants from everything below two folders, and name what rests on them.

    Args:
        names: pseudonyms of the withdrawn, by the salt in `data`.
        mark: that salt's mark; stores with another one name their participants otherwise and are
            told.
        data: the folder of stores, caches and notes.
        runs: the folder of sets, plans and classifiers.

    Returns a row for each place where any was found; nothing in it names a participant.
    """
    gone, traces = set(names), []
    for path in sorted(data.glob("*/store.json")):
        traces += _purge_store(path.parent, gone, mark)
    traces += _purge_notes(gone, data)
    for path in sorted(runs.rglob("plan.csv")):
        traces += _purge_plan(path, gone)
    for path in sorted(runs.rglob("predictions.csv")):
        if count := len(gone & set(pd.read_csv(path, usecols=["subject"], dtype=str).subject)):
            traces.append(
                Trace(
                    "predictions", str(path.parent), count, "train it again, from the renewed store"
                )
            )
    return traces


def _purge_store(folder: Path, gone: set[str], mark: str | None) -> list[Trace]:
    try:
        store = Store.open(folder)
    except ValueError as error:
        return [Trace("store", str(folder), 0, f"can't be read, so delete it: {error}")]
    if "subject" not in store.index or "source_row" in store.index:
        return []
    if store.meta.get("names") != mark:
        return [
            Trace(
                "store",
                str(folder),
                0,
                "names its participants by another salt; run this where that salt is",
            )
        ]
    keep = ~store.index.subject.isin(gone).to_numpy()
    people = set(store.subjects.subject) & gone
    caches = [path for pattern in CACHES for path in folder.glob(pattern)]
    if not people and keep.all():
        return []
    with alone(folder):
        _rewrite(store, keep, gone)
        for path in caches:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    traces = [
        Trace(
            "store",
            str(folder),
            len(people),
            "removed; what was made from this store is to be made again",
        )
    ]
    return traces + [
        Trace("cache", str(folder), len(caches), "deleted, made anew when needed")
    ] * bool(caches)


def _rewrite(store: Store, keep: np.ndarray, gone: set[str]) -> None:
    """The store without the rows that go, each file beside and then renamed, its record last."""
    folder, rows = store.folder, np.flatnonzero(keep)
    for name, array in zip(PIXEL_FILES, (store.images, store.masks), strict=True):
        beside = folder / f".{name}.{os.getpid()}"
        with beside.open("wb") as file:
            for k in range(0, len(rows), ROWS_TOGETHER):
                file.write(np.ascontiguousarray(array[rows[k : k + ROWS_TOGETHER]]).data)
            file.flush()
            os.fsync(file.fileno())
    subjects = store.subjects[~store.subjects.subject.isin(gone)]
    rejected = pd.read_csv(folder / "rejected.csv", dtype=str, keep_default_na=False)
    left_out = sorted(
        {*store.meta["settings"].get("withdrawn", []), *np.flatnonzero(~keep).tolist()}
    )
    settings = {**store.meta["settings"], "withdrawn": left_out}
    index = typed(store.index[keep].reset_index(drop=True))
    meta = {
        **store.meta,
        "settings": settings,
        "rows": len(rows),
        "subjects": len(subjects),
        "fingerprint": fingerprint(settings),
    }
    (folder / "store.json").unlink()  # from here on it is no finished store until all is in place
    for name in PIXEL_FILES:
        os.replace(folder / f".{name}.{os.getpid()}", folder / name)
    shutil.rmtree(folder / "parts", ignore_errors=True)
    write_atomic(folder / "index.parquet", index.to_parquet(index=False))
    write_atomic(folder / "subjects.csv", subjects.to_csv(index=False))
    write_atomic(
        folder / "rejected.csv", rejected[~rejected.subject.isin(gone)].to_csv(index=False)
    )
    write_atomic(folder / "settings.json", json.dumps(plain(settings), indent=1))
    if known := origin.read(folder):
        files = {subject: of for subject, of in known.files.items() if subject not in gone}
        origin.write(folder, known._replace(files=files))
    write_atomic(folder / "store.json", json.dumps(plain(meta), indent=1))


def _purge_notes(gone: set[str], data: Path) -> list[Trace]:
    """What inspections and ejection fractions have noted of them."""
    traces = []
    for path in sorted(data.glob("inspect-*.jsonl")):
        lines = path.read_text().splitlines(keepends=True)
        kept = [
            line
            for line in lines
            if line.endswith("\n") and json.loads(line).get("subject") not in gone
        ]
        if len(kept) < len(lines):
            write_atomic(path, "".join(kept))
            traces.append(Trace("notes", str(path), len(lines) - len(kept), "removed"))
    for path in sorted(data.glob("ef-*.json")):
        noted = json.loads(path.read_text())
        if known := gone & set(noted):
            write_atomic(
                path,
                json.dumps(
                    {k: v for k, v in noted.items() if k not in gone}, indent=0, sort_keys=True
                ),
            )
            traces.append(Trace("notes", str(path), len(known), "removed"))
    return traces


def _purge_plan(path: Path, gone: set[str]) -> list[Trace]:
    """A plan that is not yet drawn loses their rows; a set that is drawn is named."""
    plan = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "subject" not in plan or not (hit := plan.subject.isin(gone)).any():
        return []
    count, drawn = plan.subject[hit].nunique(), (path.parent / "parts").exists()
    if drawn:
        todo = (
            f"{int(hit.sum())} of {number_of(len(plan), 'images')} come from their masks; draw a "
            "new set, from a generator trained again"
        )
        return [Trace("set", str(path.parent), count, todo)]
    kept = plan[~hit]
    write_atomic(path, kept.assign(row=range(len(kept))).to_csv(index=False))
    return [Trace("plan", str(path), count, f"{number_of(int(hit.sum()), 'rows')} removed")]
