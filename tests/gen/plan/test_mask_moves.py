"""Masks moved a little, as their rows say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.batch import LV
from cmrgen.plan.mask_moves import LIMITS, STILL, moved
from support.fake_index import (
    PLANS,
    check,
)


@pytest.mark.parametrize("name", ["balanced", "borrow", "copy", "random_prompt"])
def test_augmenting_moves_masks_within_limits_and_nothing_else(index, subjects, name):
    still, plan = PLANS[name](index, per_mask=None), PLANS[name](index, per_mask=0)
    assert (still[list(STILL)] == pd.Series(STILL)).all(axis=None)
    check(plan, subjects, index)
    for column, (low, high) in LIMITS.items():
        assert plan[column].between(low, high).all() and plan[column].nunique() > 20
        assert plan[column].max() - plan[column].min() > 0.7 * (high - low)
    same = [column for column in plan if column not in STILL]
    pd.testing.assert_frame_equal(plan[same], still[same])


def pose(**changed: float) -> pd.DataFrame:
    return pd.DataFrame([{**STILL, **changed}])


@pytest.fixture(scope="module")
def disc() -> np.ndarray:
    """(1, 2, 101, 101): ED a disc of radius 20 with a dot far to its right, ES a smaller disc."""
    y, x = np.mgrid[:101, :101] - 50
    ed, es = (LV * (y**2 + x**2 <= radius**2) for radius in (20, 12))
    ed[48:53, 88:93] = 3
    return np.stack([ed, es])[None].astype(np.uint8)


def centre(mask: np.ndarray, label: int) -> tuple[float, float]:
    y, x = np.nonzero(mask == label)
    return y.mean() - 50, x.mean() - 50


def test_a_mask_that_is_not_moved_keeps_its_bytes(disc):
    for pixels in (100, 101):
        masks = np.random.default_rng(0).integers(0, 4, (3, 2, pixels, pixels), dtype=np.uint8)
        rows = pd.concat([pose(), pose(angle=5), pose()])
        done = moved(masks, rows)
        assert done.dtype == np.uint8 and not np.shares_memory(done, masks)
        assert (done[[0, 2]] == masks[[0, 2]]).all() and (done[1] != masks[1]).any()


def test_a_mask_turns_scales_and_shifts_as_its_row_says(disc):
    turned = moved(disc, pose(angle=10))[0]
    y, x = centre(turned[0], 3)
    # up: y is down
    assert abs(y + 40 * np.sin(np.radians(10))) < 0.5 and abs(x - 40 * np.cos(np.radians(10))) < 0.5
    assert (turned[1] == LV).sum() == pytest.approx((disc[0, 1] == LV).sum(), rel=0.02)
    for zoom in (0.95, 1.05):
        grown = moved(disc, pose(zoom=zoom))[0]
        assert (grown[0] == LV).sum() == pytest.approx(zoom**2 * (disc[0, 0] == LV).sum(), rel=0.02)
        assert np.allclose(centre(grown[1], LV), 0, atol=0.2)
    shifted = moved(disc, pose(dy=0.03, dx=-0.02))[0]
    for phase in (0, 1):
        assert np.allclose(centre(shifted[phase], LV), (3, -2), atol=0.2)
    edge = np.full((1, 2, 64, 64), LV, np.uint8)
    assert (moved(edge, pose(dy=0.03))[0, :, 0] == 0).all() and (
        moved(edge, pose(dy=0.03))[0, :, -1] == LV
    ).all()
