"""Stable Diffusion 2.1 stays within the cards that the presets are named after, computed from its
true shapes."""

import importlib.util
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import nn

from cmrgen.base.portions import CARD, DECODED, DRAWN, ENCODED, together
from support import ROOT


def _benchmark() -> ModuleType:
    path = ROOT / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


computed = _benchmark()


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return (x + 1) * 2


def test_the_counter_knows_what_is_alive_and_what_was_at_once():
    with computed.counting() as counter, torch.no_grad():
        x = torch.zeros(1024, 256)  # a MiB
        peak = counter.measured(partial(_doubled, x))
        assert peak == pytest.approx((1 / 1024, 3 / 1024))
        assert counter.now == 2**20
        y = x.view(256, 1024)  # no storage of its own
        assert counter.now == 2**20
        del x, y
        assert counter.now == 0
    assert nn.functional.group_norm.__module__ == "torch.nn.functional"


def test_norms_count_as_on_a_gpu_and_products_in_half():
    with computed.counting(), torch.autocast("cpu", torch.bfloat16):
        x = nn.Conv2d(8, 8, 1)(torch.zeros(1, 8, 4, 4))
        assert (x.dtype, nn.GroupNorm(2, 8)(x).dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.slow  # seconds
def test_an_image_through_the_vae_leaves_room_for_training_on_the_smallest_card():
    assert together(computed.PIXELS, ENCODED) == together(computed.PIXELS, DECODED) == 1
    with computed.counting() as counter, torch.no_grad():
        base = computed.base()
        base.part("vae")
        latents, images = (
            torch.randn(3, *base.latent_shape),
            torch.zeros(3, 2, 512, 512, dtype=torch.uint8),
        )
        for work in (lambda: base.images(latents), lambda: base.moments(images)):
            peak = counter.measured(work)
            assert 0.3 < peak.peak - peak.standing < 0.9  # GiB; three together take 2.3


@pytest.mark.slow  # half a minute on a free core
@pytest.mark.parametrize("name", computed.CARDS)
def test_a_preset_keeps_the_promise_of_its_name(name):
    step, preview = computed.training(computed.presets()[name])
    assert step.standing > 4
    assert max(step.peak, preview.peak) < computed.limit(computed.CARDS[name])


@pytest.mark.slow
@pytest.mark.parametrize("gigabytes", [8, 16])
def test_a_portion_that_is_drawn_fits_its_card_in_full_precision(gigabytes):
    images = together(computed.PIXELS, DRAWN * gigabytes * 10**9 // CARD)
    assert computed.drawing(images, autocast=False).peak < computed.limit(gigabytes)
