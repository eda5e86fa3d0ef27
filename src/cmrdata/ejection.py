"""Ejection fraction from ED and ES masks: the one label that every annotated cohort can give."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata import progress
from cmrdata.batch import LV
from cmrdata.disk import fingerprint, write_atomic
from cmrdata.origin import look
from cmrdata.protocol import ordered

VERSION = 1  # raise it when the same masks would give another fraction
SAVED = 32  # subjects between two writes of the cache: what a killed reading loses at most


def ejection_fraction(ed: np.ndarray, es: np.ndarray) -> float:
    """Share of the LV's end-diastolic volume that is ejected, 0..1 (about 0.6 is normal, below 0.4
    reduced).

    Both are canonical labels (Z, Y, X) on one grid, so that the size of a voxel cancels. Raises
    ValueError where the cavity is empty at ED or larger at ES.
    """
    full, rest = (np.count_nonzero(labels == LV) for labels in (ed, es))
    if not full or rest > full:
        raise ValueError(f"no ejection fraction: {full} voxels of LV cavity at ED and {rest} at ES")
    return 1 - rest / full


def fractions(
    files: Mapping[str, Sequence[Path]],
    masks: Callable[[str], tuple[np.ndarray, np.ndarray]],
    *,
    cache: Path,
    workers: int | None = None,
) -> tuple[dict[str, float], dict[str, str]]:
    """Ejection fractions from masks, in parallel; what was read before and has not changed is kept.

    Args:
        files: subject -> the files that decide its fraction.
        masks: reads a subject's canonical (ED, ES) labels; may raise ValueError.
        cache: a JSON file of what was read before, with the size and content of the files; nothing
            but hashed subjects says whose it is.
        workers: threads; by default one per core, at most 8.

    Returns:
        Ejection fraction by subject, and the reason by subject whose masks cannot be read.
    """
    known, states = _read(cache), {subject: _state(paths) for subject, paths in files.items()}
    measured = {
        s: known[s]["ef"]
        for s, state in states.items()
        if s in known and known[s]["files"] == state
    }
    faults: dict[str, str] = {}
    todo = [subject for subject in files if subject not in measured]

    def read(subject: str) -> tuple[float | None, str]:
        try:
            return ejection_fraction(*masks(subject)), ""
        except ValueError as error:
            return None, str(error)

    fresh: dict[str, dict[str, object]] = {}
    results = ordered(read, todo, workers=workers or min(8, os.cpu_count() or 1))
    with progress.bar("ejection fractions", total=len(todo), unit="subjects") as advance:
        for number, (subject, (ef, reason)) in enumerate(zip(todo, results, strict=True), start=1):
            if ef is None:
                faults[subject] = reason
            else:
                measured[subject] = ef
                fresh[subject] = {"files": states[subject], "ef": ef}
            if fresh and (number % SAVED == 0 or number == len(todo)):
                cache.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(cache, json.dumps({**_read(cache), **fresh}, indent=0, sort_keys=True))
            advance(1)
    return measured, faults


def by_fraction(ef: pd.Series, *, below: float, above: float | None = None) -> pd.Series:
    """Diagnosis from ejection fractions 0..1: "reduced_ef" below `below` per cent, "healthy" from
    `above`, else None."""
    percent = 100 * ef
    return pd.Series(
        [
            "reduced_ef"
            if value < below
            else "healthy"
            if above is not None and value >= above
            else None
            for value in percent
        ],
        index=ef.index,
        dtype=object,
    )


def _state(paths: Sequence[Path]) -> str:
    states = look({"": paths})[0][""]
    return fingerprint(
        {"version": VERSION, "files": [state and [state[0], state[2]] for state in states]}
    )


def _read(cache: Path) -> dict[str, dict[str, Any]]:
    """What the cache holds; nothing where it is not there or not ours, then it is written anew."""
    try:
        kept = json.loads(cache.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    rows = kept.items() if isinstance(kept, dict) else ()
    return {
        subject: row
        for subject, row in rows
        if isinstance(row, dict) and {"files", "ef"} <= set(row)
    }
