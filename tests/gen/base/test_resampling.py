"""A picture comes back from its base's size as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmrgen.base.frozen import as_rgb
from cmrgen.base.phases import CHANNELS, two_phases
from cmrgen.base.resampling import resampled
from cmrgen.render.drawing import as_stored
from support.phantom_images import images_of_people, smoothed


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    return images_of_people()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pixels", [64, 65, 72, 100, 128, 512])
def test_a_real_image_comes_back_from_the_bases_size_as_it_was(real, pixels, channels):
    images = real[0][:12]
    drawn = (
        two_phases(as_rgb(torch.from_numpy(images), pixels, channels=channels), channels) + 1
    ) * 127.5
    assert drawn.shape[-1] == pixels
    assert psnr(as_stored(drawn, 64), images) > 60
    assert psnr(as_stored(drawn.round(), 64), images) > 40  # a decoder's 8 bits in between


def test_the_trip_that_was_made_before_is_seen_as_a_blur(real):
    assert psnr(smoothed(real[0][:12]), real[0][:12]) < 32


@pytest.mark.parametrize(("small", "large"), [(32, 33), (32, 48), (24, 100), (32, 256)])
def test_shrinking_undoes_enlarging_and_takes_the_nearest_of_anything_else(small, large):
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, small, small, generator=draws)
    torch.testing.assert_close(resampled(resampled(image, large), small), image, atol=2e-4, rtol=0)
    other = torch.rand(1, 1, large, large, generator=draws)
    nearest = resampled(resampled(other, small), large)
    rest = other - nearest  # orthogonal to whatever can be enlarged
    assert abs(float((rest * resampled(image[:1, :1], large)).sum())) < 1e-3 * large**2
    assert torch.equal(resampled(image, small), image)


def test_a_black_or_white_picture_stays_one():
    flat = torch.stack([torch.zeros(2, 64, 64), torch.full((2, 64, 64), 255.0)])
    assert np.array_equal(np.unique(as_stored(resampled(flat, 100), 64)), [0, 255])
