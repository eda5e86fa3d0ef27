"""Pixels that an image and its mask share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmrgen.evaluation.adherence.areas import Areas, no_areas, structure_areas


def test_areas_and_dice_by_hand() -> None:
    mask, segmented = np.zeros((2, 2, 4, 4), int), np.zeros((2, 2, 4, 4), int)
    mask[0, 0, 0, :], segmented[0, 0, 0, 1:] = 1, 1  # LV at ED: 4, 3 and 3 in common
    mask[0, 1, 1, :2] = 2  # MYO at ES: in the mask alone
    segmented[1, 0, 2, 2] = 3  # RV at ED: in the image alone
    mask[1, 1, :2], segmented[1, 1, 1:3] = 3, 3  # RV at ES: 8, 8 and 4
    areas = structure_areas(segmented, mask)
    assert areas.mask[0, 0].tolist() == [4, 0, 0] and areas.segmented[0, 0].tolist() == [3, 0, 0]
    assert areas.mask[0, 1].tolist() == [0, 2, 0] and areas.segmented[1, 0].tolist() == [0, 0, 1]
    assert areas.common.sum() == 3 + 4 and areas.common[1, 1].tolist() == [0, 0, 4]
    dice = areas.dice
    assert dice[0, 0, 0] == pytest.approx(6 / 7) and dice[1, 1, 2] == pytest.approx(0.5)
    assert dice[0, 1, 1] == dice[1, 0, 2] == 0 and np.isnan(dice).sum() == 12 - 4
    tensors = structure_areas(torch.from_numpy(segmented), torch.from_numpy(mask))
    for ours, theirs in zip(areas, tensors, strict=True):
        assert isinstance(theirs, np.ndarray) and np.array_equal(ours, theirs)


def test_areas_to_be_filled_in_are_empty() -> None:
    empty = no_areas(5)
    assert all(part.shape == (5, 2, 3) and not part.any() for part in empty)
    assert len({id(part) for part in empty}) == 3 and empty.mask.dtype.kind == "i"
    assert np.isnan(Areas(*empty).dice).all()
