"""Nothing is left on the CPU when networks run on a GPU: checked without one, on tensors that have a
device and a shape and no values. Two devices in one operation are an error there, as on a card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from open_clip.transformer import TextTransformer
from torch._subclasses.fake_tensor import FakeTensorMode

from cmrgen.base.frozen import Base
from cmrgen.diffusion import denoise
from cmrgen.evaluation.fidelity.two_sample import Detector
from cmrgen.evaluation.networks import AttributeNet, Segmenter, signed
from cmrgen.render.sampler import embedded_once
from cmrgen.training.controlnet import ControlNetModule
from cmrgen.training.small_base import AutoencoderModule, UnetModule
from support import ROOT

GPU = torch.device("cuda:0")
FOLDER = ROOT / "assets" / "phantom-base"


class Placed(Base):
    """A base whose networks are made where they shall be: tensors without values cannot be
    moved."""

    def _move(self, name: str) -> None:
        self._places[name] = self.device


def read(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def on_gpu(make: Callable[[], Any]) -> Any:
    with GPU:
        return make()


@pytest.fixture
def base() -> Iterator[Base]:
    config = {name: read(f"{name}/config.json") for name in ("vae", "unet")}
    makers: dict[str, Callable[[], Any]] = {
        "vae": lambda: AutoencoderKL.from_config(config["vae"]),
        "unet": lambda: UNet2DConditionModel.from_config(config["unet"]),
        "text": lambda: TextTransformer(**read("base.json")["text"]),
    }
    pinned = patch.object(torch.Tensor, "pin_memory", lambda self: self)  # CUDA's own memory
    with FakeTensorMode(), pinned:
        yield Placed(
            parts={name: partial(on_gpu, make) for name, make in makers.items()},
            schedule=read("scheduler/scheduler_config.json"),
            shift=torch.zeros(4, 1, 1),
            scale=torch.ones(4, 1, 1),
            pixels=64,
            factor=4,
            tokens=20,
            fingerprint="shapes",
        ).to(GPU)


def batch(rows: int = 3) -> dict[str, torch.Tensor]:
    shapes = {"moments": (8, 16, 16), "control": (3, 64, 64), "context": (20, 32)}
    return {name: torch.zeros(rows, *shape, device=GPU) for name, shape in shapes.items()}


def test_two_devices_in_one_operation_are_seen():
    with FakeTensorMode(), pytest.raises(RuntimeError, match="devices"):
        torch.zeros(2, device=GPU) + torch.zeros(2)


def test_a_base_encodes_decodes_and_embeds(base):
    assert base.moments(torch.zeros(3, 2, 64, 64, dtype=torch.uint8)).device == GPU
    assert base.images(torch.zeros(3, *base.latent_shape, device=GPU)).device == GPU
    assert base.embed(["a heart", ""]).device == GPU


def test_a_controlnet_learns(base):
    with patch("cmrgen.training.controlnet.load_base", lambda **_: base), GPU:
        module = ControlNetModule(base={}, gamma=5.0)
    module.empty = base.embed([""])
    assert module._loss(batch(), torch.Generator().manual_seed(0), dropout=0.1).device == GPU


def test_rows_with_and_without_a_mask_are_denoised(base):
    given, x = batch(), torch.zeros(3, *base.latent_shape, device=GPU)
    controlnet = on_gpu(
        lambda: ControlNetModel.from_unet(
            base.unet, conditioning_embedding_out_channels=(16, 32, 64)
        )
    )
    steered = torch.arange(1, 3, device=GPU)
    with torch.no_grad(), embedded_once(controlnet, given["control"][:2]) as control:
        output = denoise(
            base.unet,
            controlnet,
            x,
            torch.tensor(500, device=GPU),
            context=given["context"],
            control=control,
            strength=torch.ones(2, device=GPU),
            steered=steered,
        )
    assert output.device == GPU


def test_a_small_base_learns(base):
    autoencoder = on_gpu(lambda: AutoencoderModule(augment=True))
    autoencoder.log_dict = lambda *_, **__: None
    images = torch.zeros(2, 2, 64, 64, dtype=torch.uint8, device=GPU)
    with (
        patch.object(AutoencoderModule, "global_step", 0),
        patch.object(AutoencoderModule, "global_rank", 0),
    ):
        assert autoencoder.training_step(images, 0).device == GPU
    unet = on_gpu(UnetModule)
    unet.base, unet.empty = base, base.embed([""])
    loss = unet._loss(unet.unet, batch(), torch.Generator().manual_seed(0), dropout=0.1)
    assert loss.device == GPU


def test_the_judges_and_the_detector_look():
    with FakeTensorMode(), torch.no_grad():
        x = signed(np.zeros((2, 2, 64, 64), np.uint8), GPU)
        segmenter, attributes, detector = on_gpu(
            lambda: (Segmenter(8), AttributeNet(["sex"], 8), Detector())
        )
        assert segmenter(x.flatten(0, 1)[:, None]).device == GPU
        assert attributes(x)["sex"].device == GPU and detector(x).device == GPU
