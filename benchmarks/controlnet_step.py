"""How fast a ControlNet learns: images/s of our training, on cached moments and prompt embeddings,
against the standard recipe, which encodes images and prompts in every step (controlnet_recipe.py).

    python benchmarks/controlnet_step.py                       # the small base at 64 px
    python benchmarks/controlnet_step.py --base sd21-random --device cuda --precision bf16 --batch 1
    8 --memory half fast
    python benchmarks/controlnet_step.py --full > step.md     # all of it, on a GPU, as Markdown

Same networks, images, prompts, batch and precision; the arms take turns, each for `--steps`
optimiser steps after some that do not count; medians over `--repeats` turns, of the ratio too.
sd21-random is Stable Diffusion 2.1's architecture with random weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from controlnet_recipe import LR, Setting, recipe, recipe_flops
from diffusers import AutoencoderKL, UNet2DConditionModel
from hydra import compose, initialize_config_dir
from machine import hardware, matmul_rate, now, peak_memory
from torch.utils.flop_counter import FlopCounterMode

from cmrdata import progress
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.base.stable_diffusion import clip_tower
from cmrgen.training.controlnet import ControlNetModule
from cmrgen.training.latents import Latents

HOUSE = Path(__file__).parents[1]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass
class Arm:
    """One arm at one batch size, and what its turns took."""

    name: str
    batch: int
    run: Callable[[int], tuple[float, float, list[float]]]
    flops: float  # of an image
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    def turn(self) -> None:
        seconds, peak, _ = self.run(self.batch)
        self.seconds.append(seconds)
        self.peak = max(self.peak, peak)


class Clock(L.Callback):
    """Every step's loss, and the times at the end of the warm steps and of the last one."""

    def __init__(self, at: Setting) -> None:
        self.at, self.losses, self.times = at, list[float](), list[float]()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        # waits for the device, as a progress bar does, and the recipe
        self.losses.append(float(outputs["loss"]))
        if len(self.losses) in (self.at.warm, self.at.warm + self.at.steps):
            self.times.append(now(self.at.device))


def our_module(at: Setting, memory: dict[str, Any]) -> ControlNetModule:
    torch.manual_seed(0)
    with patch("cmrgen.training.controlnet.load_base", lambda **_: at.base), at.device:
        return ControlNetModule(base={}, lr=LR, prompt_dropout=0.0, warmup=0, memory=memory)


def ours(at: Setting, memory: dict[str, Any], batch: int) -> tuple[float, float, list[float]]:
    """One turn of our training, by the trainer that train.py uses: (seconds of the steps, peak GiB,
    losses)."""
    with peak_memory(at.device) as peak:
        module, clock = our_module(at, memory), Clock(at)
        at.data.batch_size, at.data.images_per_epoch = batch, batch * (at.warm + at.steps)
        L.Trainer(
            accelerator=at.device.type,
            devices=1,
            precision="32-true" if at.dtype == torch.float32 else "bf16-mixed",
            max_epochs=1,
            gradient_clip_val=1.0,
            logger=False,
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        ).fit(module, datamodule=at.data)
    at.base.release("unet")
    return clock.times[1] - clock.times[0], peak.gib, clock.losses


def our_flops(at: Setting, memory: dict[str, Any]) -> float:
    """Counted operations of a step on one image, the optimiser's left out; those done twice count
    twice."""
    # the counter does not see into compiled code
    module = our_module(at, {**memory, "compile": False})
    module.to(at.device).on_fit_start()
    batch = {name: value.to(at.device) for name, value in at.data.dataset.__getitems__([0]).items()}
    with FlopCounterMode(display=False) as counter:
        module._loss(batch, torch.Generator().manual_seed(0), dropout=0.0).backward()
    at.base.release("unet")
    return counter.get_total_flops()


def random_sd21(device: torch.device) -> Base:
    """Stable Diffusion 2.1 as load_base would give it, with random weights, the same ones whenever
    they are made."""
    folder = HOUSE / "assets" / "sd21"
    config = {
        p: json.loads((folder / p / "config.json").read_text())
        for p in ("vae", "unet", "text_encoder")
    }

    def made(kind: Callable[[Any], torch.nn.Module], part: str) -> torch.nn.Module:
        torch.manual_seed(0)
        with device:
            return kind(config[part])

    return Base(
        parts={
            "vae": partial(made, AutoencoderKL.from_config, "vae"),
            "unet": partial(made, UNet2DConditionModel.from_config, "unet"),
            "text": partial(made, clip_tower, "text_encoder"),
        },
        schedule=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        shift=torch.zeros(4, 1, 1),
        scale=torch.full((4, 1, 1), 0.18215),
        pixels=512,
        factor=8,
        tokens=77,
        fingerprint="sd21-random",
    )


def memory_presets() -> dict[str, dict[str, Any]]:
    """conf/memory as train.py composes it."""
    names = sorted(path.stem for path in (HOUSE / "conf" / "memory").glob("*.yaml"))
    with initialize_config_dir(str(HOUSE / "conf"), version_base="1.3"):
        return {
            n: dict(compose("train", ["experiment=controlnet", f"memory={n}"]).memory)
            for n in names
        }


def measured(
    at: Setting, *, batches: list[int], presets: dict[str, dict[str, Any]], repeats: int
) -> list[Arm]:
    """The recipe and our training with each preset, in turns; a preset that this machine cannot run
    is left out."""
    kinds: dict[str, tuple[Callable[[int], Any], float]] = {
        "recipe": (partial(recipe, at), recipe_flops(at))
    }
    for name, memory in presets.items():
        try:
            kinds[f"ours, {name}"] = (partial(ours, at, memory), our_flops(at, memory))
        except ValueError as error:
            print(f"memory={name} left out: {error}\n", flush=True)
    arms = [
        Arm(name, batch, run, flops) for batch in batches for name, (run, flops) in kinds.items()
    ]
    for _ in progress.each(range(repeats), "turns", total=repeats, unit="turns"):
        for arm in arms:
            arm.turn()
    return arms


HEAD = (
    "| batch | arm | images/s (range) | x recipe | GFLOP an image | TFLOP/s | % of matmul | peak GiB |",
    "|---|---|---|---|---|---|---|---|",
)


def row(arm: Arm, peer: Arm | None, *, steps: int, rate: float) -> str:
    """An arm's line of the table: `peer` is the recipe at its batch size, `rate` FLOP/s of matrix
    products."""
    images, middle = arm.batch * steps, statistics.median(arm.seconds)
    ratio = "-"
    if peer is not None:
        pairs = zip(peer.seconds, arm.seconds, strict=True)
        ratio = f"{statistics.median(theirs / own for theirs, own in pairs):.2f}"
    achieved = arm.flops * images / middle
    return (
        f"| {arm.batch} | {arm.name} | {images / middle:.3g} ({images / max(arm.seconds):.3g} to "
        f"{images / min(arm.seconds):.3g}) | {ratio} | "
        f"{arm.flops / 1e9:,.3g} | {achieved / 1e12:.3g} | {100 * achieved / rate:.0f} | {arm.peak:.2f} |"
    )


def table(arms: list[Arm], *, steps: int, rate: float) -> str:
    peers = {arm.batch: arm for arm in arms if arm.name == "recipe"}
    return "\n".join([*HEAD, *(row(arm, peers[arm.batch], steps=steps, rate=rate) for arm in arms)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", choices=["small", "sd21-random"], default="small")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=list(DTYPES), default="fp32")
    parser.add_argument("--batch", type=int, nargs="+", default=[8])
    parser.add_argument(
        "--memory", nargs="+", help="presets of conf/memory; else plain in fp32, half in bf16"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument(
        "--warm", type=int, default=3, help="steps before the clock starts, at least 1"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--subjects", type=int, default=60, help="of the phantom, nine images of a training subject"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="SD 2.1, cuda, bf16, batch 1 and 8, every preset, 200 steps",
    )
    asked = parser.parse_args()
    if asked.full:
        asked.base, asked.device, asked.precision, asked.batch = (
            "sd21-random",
            "cuda",
            "bf16",
            [1, 8],
        )
    return asked


def main() -> None:
    asked, presets = arguments(), memory_presets()
    default = list(presets) if asked.full else ["plain" if asked.precision == "fp32" else "half"]
    device = torch.device(asked.device)
    small = HOUSE / "assets" / "phantom-base"
    base = random_sd21(device) if asked.base == "sd21-random" else load_base(weights=str(small))
    with tempfile.TemporaryDirectory() as root:
        cohort = Phantom(subjects=asked.subjects, hf_scale=20.0, pixels=64, controls_per_case=1)
        data = Latents(cohort=cohort, root=root, base=base.to(device), val_images=1)
        begun = time.perf_counter()
        with redirect_stdout(sys.stderr):
            data.prepare_data()
            data.setup()
        cached = time.perf_counter() - begun
        at = Setting(base, data, device, DTYPES[asked.precision], asked.steps, asked.warm)
        rate = matmul_rate(device, at.dtype)
        print(
            f"# A ControlNet's training step on {hardware(device)}\n\n{date.today()}, torch {torch.__version__}: "
            f"{asked.base} at {base.pixels} px, {asked.precision}, {asked.steps} steps a turn, medians of {asked.repeats} "
            f"turns. Matrix products reach {rate / 1e12:.3g} TFLOP/s. Caching {len(data.rows)} images took {cached:.0f} s.\n",
            flush=True,
        )
        chosen = {name: presets[name] for name in asked.memory or default}
        arms = measured(at, batches=asked.batch, presets=chosen, repeats=asked.repeats)
        print(table(arms, steps=asked.steps, rate=rate), flush=True)
        if asked.full:
            at.steps = 200
            _, peak, losses = ours(at, presets["half"], 8)
            first, last = (sum(part) / len(part) for part in (losses[:20], losses[-20:]))
            print(
                f"\n{len(losses)} steps of batch 8 on cached latents: loss {first:.4f} (first 20) to {last:.4f} (last 20), "
                f"peak {peak:.2f} GiB."
            )


if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    main()
