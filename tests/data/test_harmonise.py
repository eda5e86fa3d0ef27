"""Synthetic images brought to the grey levels and the sharpness of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from cmrdata import harmonise
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


# the steps by their numbers


def test_a_curve_goes_through_the_means_of_what_values_become():
    values, become = harmonise._increasing(np.array([0.0, 1, 1, 3]), np.array([5.0, 6, 8, 9]))
    assert values.tolist() == [0, 1, 3] and become.tolist() == [5, 7, 9]
    curve = np.stack([np.arange(256) * 2.0, 255.0 - np.arange(256)])
    images = np.array([[[[0, 1.5]], [[255, 10]]]])
    np.testing.assert_allclose(harmonise._mapped(images, curve), [[[[0, 3]], [[0, 245]]]])
    pooled = np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3).astype(np.float32)
    quantiles = harmonise._quantiles(pooled)
    assert quantiles.shape == (2, 1024)
    for phase in (0, 1):
        expected = np.quantile(pooled[:, phase], np.linspace(0, 1, 1024))
        np.testing.assert_allclose(quantiles[phase], expected)


def test_a_spectrum_is_the_mean_power_by_distance_and_a_gain_multiplies_it():
    rng = np.random.default_rng(0)
    images = rng.normal(100, 20, (3, 2, 8, 8)).astype(np.float32)
    rings = harmonise._rings(8)
    assert rings.shape == (8, 5)
    assert rings[0].tolist() == [0, 1, 2, 3, 4] and rings[:, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert rings[4, 4] == 6 and rings[7, 1] == 1
    spectrum = harmonise._spectrum(images)
    for phase in (0, 1):
        for ring in range(7):
            power = [np.abs(np.fft.rfft2(image[phase])) ** 2 for image in images]
            expected = np.mean([of[rings == ring].mean() for of in power])
            assert spectrum[phase, ring] == pytest.approx(expected, rel=1e-5)
    gain = np.stack([np.linspace(1, 2, 7), np.ones(7)])
    filtered = harmonise._filtered(images, gain)
    np.testing.assert_allclose(harmonise._spectrum(filtered) / spectrum, gain**2, rtol=1e-3)
    np.testing.assert_allclose(filtered[:, 1], images[:, 1], atol=1e-3)


def test_a_match_keeps_means_and_raises_no_frequency_more_than_allowed():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 256, (4, 2, 8, 8)).astype(np.uint8)
    smooth = np.repeat(np.repeat(target[..., ::4, ::4], 4, 2), 4, 3)
    found = match(smooth, target)
    assert len(found.curves) == len(found.gains) == harmonise.ROUNDS
    for gain in found.gains:
        assert (gain[:, 0] == 1).all() and gain.max() <= 4 and gain.min() >= 0.25
        assert gain.dtype == np.float32
    assert max(gain.max() for gain in found.gains) == 4  # what lacks altogether is not given back
    x = np.asarray(smooth, np.float32)
    for curve, gain in zip(found.curves, found.gains, strict=True):
        x = harmonise._filtered(harmonise._mapped(x, curve), gain)
    np.testing.assert_array_equal(found(smooth), np.rint(x).clip(0, 255).astype(np.uint8))
