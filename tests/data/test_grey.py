"""Black and white of drawn pictures are set as those of read ones."""

from __future__ import annotations

import numpy as np
import pytest

from cmrdata.grey import stretched
from cmrdata.slices import _grey
from support.phantom_images import images_of_people


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    return images_of_people()


def test_real_images_keep_their_bytes_and_drawn_ones_get_real_ones_ends(real):
    assert np.array_equal(stretched(real[0]), real[0])
    drawn = (
        40 + 0.6 * real[0].astype(np.float32) + np.random.default_rng(0).normal(0, 2, real[0].shape)
    )
    found = stretched(drawn)
    clipped = lambda images: ((images == 0) | (images == 255)).mean((1, 2, 3))  # noqa: E731
    assert (
        np.abs(clipped(found) - clipped(real[0])).max() < 0.02
        and (clipped(np.rint(drawn)) == 0).all()
    )
    assert np.array_equal(stretched(found), found)


def test_drawn_grey_levels_are_stretched_as_read_ones(real):
    """The readers' own function, whose percentiles lie between two pixels' values, gives the same
    but for a last digit."""
    scan = (
        300
        + 3.7 * real[0].astype(np.float32)
        + np.random.default_rng(1).normal(0, 3, real[0].shape)
    )
    read = _grey(scan.astype(np.float32), pair=[0, 1])[0]
    assert np.abs(stretched(scan).astype(int) - read).max() <= 2


def test_a_picture_of_nothing_is_not_blown_up():
    faint = 100 + np.random.default_rng(0).normal(0, 0.3, (1, 2, 32, 32))
    half = np.concatenate(
        [faint[:, :1], 60 + 50 * np.random.default_rng(1).random((1, 1, 32, 32))], 1
    )
    for images in (faint, half):
        assert np.array_equal(stretched(images), np.rint(images).astype(np.uint8))
