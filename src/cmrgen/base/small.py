"""A base folder of our own, written by experiment=base and read again.

It is a diffusers folder (vae/, unet/, scheduler/) plus text/ (an open_clip text tower) and
base.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file
from torch import nn

from cmrdata.disk import write_atomic
from cmrgen.base.frozen import Base
from cmrstudy.inputs import weights_hash
from cmrstudy.paths import shipped


def folder_of(weights: str) -> Path:
    """The base folder behind `weights`. Raises FileNotFoundError, naming the remedy, where there is
    none."""
    folder = shipped(weights)
    if not (folder / "base.json").exists():
        raise FileNotFoundError(
            f"base.weights={weights}: no base.json there; give a folder written by `python "
            "train.py experiment=base` (runs/base/0/base) or leave the default, the phantom base "
            "in assets/"
        )
    return folder


def load_small(weights: str) -> Base:
    """The base in a folder of our own; each network is read when it is first used."""
    folder = folder_of(weights)
    facts = json.loads((folder / "base.json").read_text())

    def text() -> nn.Module:
        tower = TextTransformer(**facts["text"])
        tower.load_state_dict(
            {k: v.float() for k, v in load_file(folder / "text" / "model.safetensors").items()}
        )
        return tower

    def diffusers(kind: Any, name: str) -> Callable[[], nn.Module]:
        return lambda: kind.from_pretrained(
            folder / name, torch_dtype=torch.float32, low_cpu_mem_usage=False
        )

    vae = json.loads((folder / "vae" / "config.json").read_text())
    return Base(
        parts={
            "vae": diffusers(AutoencoderKL, "vae"),
            "unet": diffusers(UNet2DConditionModel, "unet"),
            "text": text,
        },
        schedule=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        shift=torch.tensor(facts["shift"]).view(-1, 1, 1),
        scale=torch.tensor(facts["scale"]).view(-1, 1, 1),
        pixels=facts["pixels"],
        factor=2 ** (len(vae["block_out_channels"]) - 1),
        tokens=facts["text"]["context_length"],
        fingerprint=weights_hash(folder),
        channels=facts["channels"],
    )


def save_base(base: Base, folder: Path, *, text_config: dict[str, Any]) -> None:
    """Write a base folder in half precision (about 9 MB for the small one); JSON configs and
    safetensors only."""
    for name, network in (("vae", base.vae), ("unet", base.unet)):
        network.half().save_pretrained(folder / name, safe_serialization=True)
        network.float()
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    save_file(
        {k: v.half().contiguous() for k, v in base.text.state_dict().items()},
        folder / "text" / "model.safetensors",
    )
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(base.schedule, indent=1))
    facts = {
        "pixels": base.pixels,
        "channels": base.channels,
        "shift": base.shift.flatten().tolist(),
        "scale": base.scale.flatten().tolist(),
        "text": text_config,
    }
    write_atomic(folder / "base.json", json.dumps(facts, indent=1))  # last: without it, no base
