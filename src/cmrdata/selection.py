"""Some rows of an image array on disk, read a slice at a time: a cohort's images need not fit into
memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import numpy as np

PIXELS = 2**20  # of one phase in memory at once: 256 images of 64 px, 20 of 224 px, 4 of 512 px


class Selection:
    """Rows of an array, in an order of one's own.

    `chosen[a:b]` reads these rows into memory. `chosen[places]`, with an array of places, is
    another selection and reads nothing. There is no other way in, so that nothing copies all of it
    by accident.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray) -> None:
        self.array, self.rows = array, np.asarray(rows, np.int64)
        self.shape = (len(self.rows), *array.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, some: slice) -> np.ndarray: ...
    @overload
    def __getitem__(self, some: np.ndarray) -> Selection: ...
    def __getitem__(self, some: slice | np.ndarray) -> np.ndarray | Selection:
        if isinstance(some, slice):
            return np.asarray(self.array[self.rows[some]])
        if isinstance(some, np.ndarray):
            return Selection(self.array, self.rows[some])
        raise TypeError(
            f"a selection takes a slice or an array of places, not {type(some).__name__}"
        )


Images = np.ndarray | Selection  # (n, C, P, P) uint8


def everything(array: np.ndarray) -> Selection:
    """All rows of an array."""
    return Selection(array, np.arange(len(array)))


def row_slices(images: Images) -> Iterator[slice]:
    """Slices of the rows of (n, C, P, P) images, each of PIXELS of a phase or a single image."""
    together = max(1, PIXELS // (images.shape[-1] * images.shape[-2]))
    for start in range(0, len(images), together):
        yield slice(start, min(start + together, len(images)))
