"""What a cohort must provide, so that everything else need not know which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from cmrdata.cohorts.reading.column_report import columns_table
from cmrdata.origin import Source
from cmrdata.store import PAIR

T = TypeVar("T")


class Stacks(NamedTuple):
    """Images of some subjects, and the subjects that could not be read."""

    images: np.ndarray  # (n, 2, P, P) uint8 ED, ES, or (n, T, P, P) of a cohort with `cine`
    masks: np.ndarray  # (n, 2, P, P) uint8, labels 0..3
    # n rows: subject, slice, frame (offsets -1, 0, 1), central (bool), flags
    index: pd.DataFrame
    rejected: pd.DataFrame  # subject, reason


class Cohort(ABC):
    """A source of subjects: a class that sets `name` and `pixels` and has `subjects` and `stacks`;
    everything else has a default.

    Making one touches no file, so that a finished store opens without its source.
    """

    name: str
    pixels: int  # side of an image
    seed: int = 0  # of the split
    # what an image covers; None: not known, so nothing is said of pixels that are enlarged
    fov_mm: float | None = None
    # what turns a heart upright, of cmrdata.orientation; None: the cohort's images are upright
    orient: str | None = None
    # what its files must be, for whoever gave a wrong place: "Expected is a folder with ..."
    expected: str = ""
    controls_per_case: float | None = None  # healthy training subjects kept per case; None: all
    max_rejected: float = 0.05  # share of the subjects that may be unreadable
    reach: int = 1  # slices to each side of the centre that a training subject gives
    fold: int | None = None  # the part of a cross-validation that is the test split
    # frames of a heartbeat that are an image's channels in place of ED and ES
    cine: int | None = None
    # the folder of the secret by which participants are renamed; None: nobody is
    salt_root: Path | None = None
    # places of small files that are compared at every opening of a store
    watched: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values that decide the bytes, as given: no places, nothing read from a file.

        A cohort with settings of its own adds them: `{**super().settings, "mine": self.mine}`.
        """
        return {
            "pixels": self.pixels,
            "fov_mm": self.fov_mm,
            "seed": self.seed,
            "fold": self.fold,
            "controls_per_case": self.controls_per_case,
            "cine": self.cine,
        }

    @property
    def places(self) -> dict[str, str | None]:
        """Setting -> where the source lies on this machine, None where it is not given; empty where
        there is none."""
        return {}

    @abstractmethod
    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(subject table as `with_groups` takes it, with or without a split column; rejected
        subjects)."""

    @abstractmethod
    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        """Slices of these subjects in their order: nine stacks (three cines) of a train or extra
        subject, one of others."""

    def source(self) -> Source:
        """The participants and the files that decide their images."""
        return Source([], {})

    def withdrawn(self) -> set[str]:
        """Pseudonyms of those on the cohort's list of withdrawn participants."""
        raise ValueError(
            f"cohort {self.name} has no list of withdrawn participants; choose one with "
            "cohort.exclude"
        )

    def notes(self) -> list[str]:
        """What a summary should tell besides the subjects and the rejected."""
        return []

    def columns(self) -> pd.DataFrame:
        """What was understood of each column in use of the tables beside the images; see
        `column_report.columns_table`."""
        return columns_table([])


def channels(cohort: Cohort) -> int:
    """Of the cohort's images: ED and ES, or the frames of its `cine`. Raises ValueError where these
    are too few."""
    cine = cohort.cine
    if cine is not None and cine <= PAIR:
        raise ValueError(
            f"cohort.cine is {cine}; give at least {PAIR + 1} frames, or null for ED and ES"
        )
    return cine or PAIR


def ordered(
    function: Callable[..., T], items: Iterable[Any], *, workers: int
) -> Generator[T, None, None]:
    """map() over threads, results in order, never more than 2 x workers in memory; numpy and gunzip
    release the GIL."""
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
