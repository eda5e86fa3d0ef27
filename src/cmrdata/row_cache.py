"""Row arrays on disk, made once, batch by batch: an interrupted making is continued and ends in the
same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cmrdata import progress
from cmrdata.disk import alone, append_at, check_room, in_words, size, sync_entries, writing


class RowFile(NamedTuple):
    """An array file: its place, and the type and shape of a row."""

    path: Path
    dtype: type[np.generic]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def begun(self) -> Path:
        """Where the file grows until it is whole."""
        return self.path.with_name(f".{self.path.name}.begun")


def filled(
    files: Sequence[RowFile],
    *,
    count: int,
    batch: int,
    what: str,
    make: Callable[[slice], Sequence[ArrayLike]],
) -> list[np.ndarray]:
    """The arrays of `files`, opened for reading; made on first use.

    Args:
        files: which share a folder; the last one's name says that all are whole.
        count: of rows.
        batch: of rows that are made together.
        what: the rows are, for the message and the bar.
        make: gives the rows of a slice, an array per file. It is asked for the same slices of
            `batch` rows every time, so that a making that was killed loses one batch at most and
            continues to the same bytes.

    Returns:
        An array (count, *shape) per file. Processes take turns at making them.

    Raises:
        Unwritable: when there is too little room for what is missing.
    """
    if not files[-1].path.exists():
        with alone(files[-1].path.parent):
            if not files[-1].path.exists():
                _fill(files, count=count, batch=batch, what=what, make=make)
    return [np.memmap(file.path, file.dtype, "r", shape=(count, *file.shape)) for file in files]


def _fill(
    files: Sequence[RowFile],
    *,
    count: int,
    batch: int,
    what: str,
    make: Callable[[slice], Sequence[ArrayLike]],
) -> None:
    folder, row = files[-1].path.parent, sum(file.row for file in files)
    done = min(size(file.begun) // file.row for file in files)
    done = count if done >= count else done // batch * batch
    needs = f"{what} of {count:,} images: {in_words(count * row)} in {folder}"
    print(f"{needs}{f', {done:,} of them are there' if done else ''}", flush=True)
    missing = (count - done) * row
    check_room(folder, missing, needs=f"{needs}; {in_words(missing)} are still missing")
    with progress.bar(what, total=count, done=done, unit="images") as advance:
        for start in range(done, count, batch):
            rows = slice(start, min(start + batch, count))
            arrays = make(rows)
            with writing(folder, needs=needs):
                for file, array in zip(files, arrays, strict=True):
                    append_at(
                        file.begun, np.ascontiguousarray(array, file.dtype), at=start * file.row
                    )
            advance(rows.stop - rows.start)
    with writing(folder):
        for file in files:  # the last one's name says that all are whole
            os.replace(file.begun, file.path)
            sync_entries(folder)
