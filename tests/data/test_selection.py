"""Rows of an image array on disk, read a slice at a time."""

from __future__ import annotations

import numpy as np
import pytest

from cmrdata import selection
from cmrdata.selection import Selection, row_slices


def test_a_selection_reads_its_rows_and_nothing_else() -> None:
    array = np.arange(40, dtype=np.uint8).reshape(10, 1, 2, 2)
    chosen = Selection(array, np.array([7, 1, 1, 4]))
    assert chosen.shape == (4, 1, 2, 2) and len(chosen) == 4
    assert np.array_equal(chosen[1:3], array[[1, 1]]) and np.array_equal(
        chosen[np.array([3, 0])][0:9], array[[4, 7]]
    )
    assert isinstance(chosen[np.array([3])], Selection)
    for whole in (lambda: chosen[0], lambda: np.asarray(chosen), lambda: list(chosen)):  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="a slice or an array of places"):
            whole()


@pytest.mark.parametrize(("pixels", "count"), [(64, 600), (224, 50), (2048, 3)])
def test_slices_cover_all_rows_once_and_hold_as_many_pixels(pixels: int, count: int) -> None:
    parts = list(
        row_slices(
            np.lib.stride_tricks.as_strided(
                np.zeros(1, np.uint8), (count, 2, pixels, pixels), (0,) * 4
            )
        )
    )
    assert np.concatenate([np.arange(part.start, part.stop) for part in parts]).tolist() == list(
        range(count)
    )
    assert max(part.stop - part.start for part in parts) * pixels**2 <= max(
        selection.PIXELS, pixels**2
    )
