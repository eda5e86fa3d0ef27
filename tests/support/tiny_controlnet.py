"""A ControlNet on a tiny base, its data of phantom people, and a silent trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrgen.base.frozen import Base
from cmrgen.training.controlnet import ControlNetModule
from cmrgen.training.latents import Latents

COHORT = Phantom(subjects=200, hf_scale=20, pixels=32, controls_per_case=0.5)


def module_on(tiny_base: Path, *, init: int = 0, **options) -> ControlNetModule:
    torch.manual_seed(init)
    return ControlNetModule(base={"weights": str(tiny_base)}, **{"lr": 1e-3, **options})


def trainer(folder: Path, *callbacks, **options) -> L.Trainer:
    """As conf/trainer/auto.yaml, silent."""
    return L.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        **options,
    )


def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def changed(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that differ in any bit."""
    return sorted(
        name
        for name in a.keys() | b.keys()
        if name not in a or name not in b or not torch.equal(a[name], b[name])
    )


def awake(network: torch.nn.Module) -> torch.nn.Module:
    """A ControlNet whose zero convolutions have left zero, as after training."""
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draws))
    return network.eval()


def latents_in(root: Path, base: Base) -> Callable[..., Latents]:
    """A function from options to a DataModule; all share the store in `root`. A trainer does the
    setup itself."""

    def made(*, ready: bool = True, **options) -> Latents:
        data = Latents(
            cohort=COHORT,
            root=str(root),
            **{"base": base, "batch_size": 4, "val_images": 8, **options},
        )
        if ready:
            data.prepare_data()
            data.setup()
        return data

    return made
