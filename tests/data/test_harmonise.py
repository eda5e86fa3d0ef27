"""Synthetic images brought to the grey levels and the sharpness of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from cmrdata.harmonise import match
from cmrgen.evaluation.fidelity.two_sample import (
    TRIVIAL,
    ImagesOfPeople,
    two_sample_tests,
)
from support.phantom_images import images_of_people, smoothed


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    return images_of_people()


def test_harmonising_brings_grey_levels_and_most_of_the_sharpness_back(real):
    images, subjects = real
    left = np.isin(subjects, np.unique(subjects)[::2])
    drawn = np.rint(30 + 0.7 * smoothed(images[~left])).astype(np.uint8)
    matched = match(drawn, images[left])(drawn)
    n = min(len(drawn), left.sum())
    sides = (
        ImagesOfPeople(images[left][:n], subjects[left][:n]),
        ImagesOfPeople(drawn[:n], subjects[~left][:n]),
    )
    before, after = (
        two_sample_tests(sides[0], sides[1]._replace(images=x[:n]), seed=0, steps=1)
        .set_index("test")
        .auc
        for x in (drawn, matched)
    )
    assert (before[["gradient", "fine detail", "sd of grey values"]] < 0.1).all()
    assert (after[["mean grey value", "sd of grey values"]] - 0.5).abs().max() < 0.15 and after[
        "gradient"
    ] > 0.2
    detail = [
        TRIVIAL["fine detail"](x).mean() / TRIVIAL["fine detail"](images[left]).mean()
        for x in (drawn, matched)
    ]
    assert detail[0] < 0.6 and 0.8 < detail[1] < 1.05  # clipping keeps it from being restored whole
    same = match(images, images)(images)
    assert np.abs(same.astype(int) - images).mean() < 1
