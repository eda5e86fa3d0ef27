"""What a cohort must provide, so that everything else need not know which one it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd

from cmrdata.store import PAIR

T = TypeVar("T")


class Stacks(NamedTuple):
    """Images of some subjects, and the subjects that could not be read."""

    images: np.ndarray  # (n, 2, P, P) uint8 ED, ES, or (n, T, P, P) of a cohort with `cine`
    masks: np.ndarray  # (n, 2, P, P) uint8, labels 0..3
    index: pd.DataFrame  # type: ignore[assignment]  # n rows: subject, slice, frame (offsets -1, 0, 1), central (bool), flags
    rejected: pd.DataFrame  # subject, reason


class Cohort(Protocol):
    """A source of subjects. `settings` are the plain values that decide the bytes.

    A cohort may have `reach`, the slices to each side of the centre that a training subject gives (1 where it has not),
    `fold`, the part of a cross-validation that is its test split, and `cine`, the frames of a heartbeat that are an
    image's channels in place of ED and ES (`cmrdata.slices.cine_frames`); it is among the settings only where it is set.
    """

    name: str
    pixels: int
    seed: int
    controls_per_case: float | None
    max_rejected: float  # share of the subjects that may be unreadable
    settings: dict[str, Any]

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(subject table as `with_groups` takes it, with or without a split column; rejected subjects)."""

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        """Slices of these subjects in their order: nine stacks (three cines) of a train or extra subject, one of others."""


def channels(cohort: Cohort) -> int:
    """Of the cohort's images: ED and ES, or the frames of its `cine`. Raises ValueError where these are too few."""
    cine = getattr(cohort, "cine", None)
    if cine is not None and cine <= PAIR:
        raise ValueError(f"cohort.cine is {cine}; give at least {PAIR + 1} frames, or null for ED and ES")
    return cine or PAIR


def ordered(function: Callable[..., T], items: Iterable[Any], *, workers: int) -> Generator[T, None, None]:
    """map() over threads, results in order, never more than 2 x workers in memory; numpy and gunzip release the GIL."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
