"""How fast a set is drawn, and how well: images/s of `Generator.images` against the stock pipeline,
one way at a time.

    python benchmarks/render.py --generator runs/controlnet/0 [--images 96] [--repeats 4] [--seeds
    3] [--batch 24]

The peer is the reference's path: diffusers' own StableDiffusionControlNetPipeline on the exported
generator, batch 1, DDIM with 20 steps, guidance 4, the prompt encoded for every image. Every arm
draws the same masks, prompts and seeds of a phantom cohort; arms take turns, each `--images` /
`--repeats` images a turn, and a first batch does not count. On one CPU thread the clock is the
process's own, so that other programs on the machine do not count; else it is the wall's.

Quality stands in the same row. Dice: of the masks asked for and what a segmenter, trained on the
cohort's real images, finds. Frechet distance: to those real images in the features of the cohort's
own attribute network. The peer is drawn with `--seeds` sets of seeds; a way is as good when both
numbers are no worse than its mean by more than twice their standard deviation over these sets.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusionControlNetPipeline
from machine import hardware, now
from torch import Tensor

from cmrdata import progress
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.base.frozen import Base, as_control
from cmrgen.base.phases import two_phases
from cmrgen.evaluation.adherence.scores import mean_dice
from cmrgen.evaluation.fidelity.distances import frechet_distance
from cmrgen.evaluation.judges import judge, trained_judges
from cmrgen.plan.recipes import balanced
from cmrgen.publish.diffusers_folder import export
from cmrgen.render.drawing import as_stored
from cmrgen.render.generator import Generator, load_generator
from cmrgen.render.sampler import Sampler

PIXELS = 64
DDIM = {"name": "ddim", "steps": 20, "guidance": 4.0}
UNIPC = {"name": "unipc", "steps": 8, "guidance": 4.0}
# rows of a plan and their masks -> (n, 2, P, P) grey levels
Draw = Callable[[pd.DataFrame, Tensor], Tensor]


@dataclass
class Arm:
    """One way of drawing, in batches of `batch`; `over` is the arm that it adds something to."""

    name: str
    draw: Draw
    batch: int
    over: str | None = None
    shift: int = 0  # added to the plan's seeds
    judged: bool = True
    most: int | None = None  # images of a turn, where that many tell enough
    seconds: list[float] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)

    def turn(
        self, rows: pd.DataFrame, masks: Tensor, device: torch.device, *, counts: bool = True
    ) -> None:
        rows, made = rows.iloc[: self.most].assign(seed=rows.seed + self.shift), []
        begun = clock(device)
        for k in range(0, len(rows), self.batch):
            made.append(self.draw(rows.iloc[k : k + self.batch], masks[k : k + self.batch]).cpu())
        if counts:
            self.seconds.append(clock(device) - begun)
            self.images.append(as_stored(torch.cat(made), PIXELS))

    @property
    def rate(self) -> float:
        return sum(map(len, self.images)) / sum(self.seconds)


def clock(device: torch.device) -> float:
    return (
        time.process_time()
        if device.type == "cpu" and torch.get_num_threads() == 1
        else now(device)
    )


def stock(generator: Generator, folder: Path, device: torch.device) -> Draw:
    """The reference's path, image by image."""
    export(generator, folder, parts="pipeline", sampler=Sampler(**DDIM))
    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder, local_files_only=True).to(
        device
    )
    return by_pipeline(pipe, generator.base, lambda prompt: {"prompt": prompt})


def by_pipeline(
    pipe: StableDiffusionControlNetPipeline, base: Base, says: Callable[[str], dict[str, Any]]
) -> Draw:
    """Image by image, DDIM with 20 steps and guidance 4; `says` makes the pipeline's arguments of a
    prompt, for every image anew."""
    pipe.set_progress_bar_config(disable=True)

    def draw(rows: pd.DataFrame, masks: Tensor) -> Tensor:
        made = [
            pipe(
                **says(row.prompt),
                image=as_control(mask[None], base.pixels),
                num_inference_steps=DDIM["steps"],
                guidance_scale=DDIM["guidance"],
                generator=torch.Generator().manual_seed(row.seed),
                output_type="pt",
            ).images
            for row, mask in zip(rows.itertuples(), masks, strict=True)
        ]
        rgb = torch.cat(made).float()
        return two_phases(rgb, base.channels) * 255

    return draw


@contextmanager
def embedded_in_every_step(controlnet: Any, control: Tensor) -> Iterator[Tensor]:
    yield control


def ours(generator: Generator, *, cached: bool = True, once: bool = True, **how: Any) -> Draw:
    """`Generator.images`, with or without the prompts kept and the mask embedded once. `how`: of
    the sampler."""
    sampler = Sampler(**how)

    def draw(rows: pd.DataFrame, masks: Tensor) -> Tensor:
        if not cached:
            generator._words.clear()
        kept = (
            nullcontext()
            if once
            else patch("cmrgen.render.generator.embedded_once", embedded_in_every_step)
        )
        with kept:
            return generator.images(
                masks,
                prompts=rows.prompt.tolist(),
                seeds=rows.seed.tolist(),
                guidance=[sampler.guidance] * len(rows),
                sampler=sampler,
            )

    return draw


def arms_of(
    generator: Generator, peer: Draw, *, batch: int, seeds: int, device: torch.device
) -> list[Arm]:
    """The peer with several seeds, then each way on top of another."""
    loop, kept, once, many, few = (
        "our loop, nothing kept",
        "prompts embedded once a set",
        "mask embedded once an image",
        f"batch {batch}",
        "UniPC, 8 steps",
    )
    brief: dict[str, Any] = {"judged": False, "most": 8}  # which draw what `many` draws
    first: dict[str, Any] = {"interval": (0, 0.5)}
    arms = [Arm(f"stock pipeline, seeds {k}", peer, 1, shift=k * 1_000_003) for k in range(seeds)]
    arms += [
        Arm(loop, ours(generator, cached=False, once=False, **DDIM), 1, arms[0].name, **brief),
        Arm(kept, ours(generator, once=False, **DDIM), 1, loop, **brief),
        Arm(once, ours(generator, **DDIM), 1, kept, **brief),
        Arm(many, ours(generator, **DDIM), batch, once),
        Arm(
            "DPM-Solver++, 10 steps",
            ours(generator, **{**UNIPC, "name": "dpmpp", "steps": 10}),
            batch,
            many,
        ),
        Arm(few, ours(generator, **UNIPC), batch, many),
        Arm("guidance 2", ours(generator, **{**UNIPC, "guidance": 2.0}), batch, few),
        Arm(
            "guidance 2 towards mask and prompt",
            ours(generator, **{**UNIPC, "guidance": 2.0}, guides="both"),
            batch,
            few,
        ),
        Arm("guidance 4 in the first half", ours(generator, **UNIPC, **first), batch, few),
        Arm(
            "guidance 4 in the second half", ours(generator, **UNIPC, interval=(0.5, 1)), batch, few
        ),
        Arm("UniPC, 5 steps", ours(generator, **{**UNIPC, "steps": 5}), batch, few),
        Arm("no guidance", ours(generator, **{**UNIPC, "guidance": 1.0}), batch, few),
        Arm("features used twice", ours(generator, **UNIPC, reuse=2), batch, few),
        Arm(
            "guidance in the first half, features used twice",
            ours(generator, **UNIPC, **first, reuse=2),
            batch,
            few,
        ),
        Arm(
            "no ControlNet (strength 0)",
            ours(generator, **UNIPC, strength=0.0),
            batch,
            few,
            judged=False,
        ),
    ]
    if device.type == "cuda":
        half = replace(generator, precision=torch.bfloat16)
        arms.append(Arm("bfloat16", ours(half, **UNIPC), batch, few))
    return arms


def drawn(
    arms: list[Arm], plan: pd.DataFrame, masks: Tensor, *, repeats: int, device: torch.device
) -> None:
    """Every arm in turns, after one that does not count."""
    for arm in arms:
        arm.turn(plan.iloc[: arm.batch], masks[: arm.batch], device, counts=False)
    for part in progress.each(
        np.array_split(np.arange(len(plan)), repeats), "turns", total=repeats, unit="turns"
    ):
        for arm in arms:
            arm.turn(plan.iloc[part], masks[torch.from_numpy(part)], device)


def quality(
    arms: list[Arm], cohort: Store, masks: Tensor, *, folder: Path, steps: tuple[int, int]
) -> pd.DataFrame:
    """Dice and Frechet distance of each arm that is judged; attrs: the real images' own."""
    networks = trained_judges(cohort, folder, steps=steps)
    real = np.flatnonzero((cohort.index.split == "train") & cohort.index.central)
    seen = judge(networks, cohort.images[real], cohort.masks[real])
    rows = {}
    for arm in (arm for arm in arms if arm.judged):
        found = judge(networks, np.concatenate(arm.images), masks.numpy())
        rows[arm.name] = {
            "dice": np.nanmean(mean_dice(found.areas)),
            "frechet": frechet_distance(seen.features, found.features),
        }
    table = pd.DataFrame(rows).T
    table.attrs["real"] = float(np.nanmean(mean_dice(seen.areas)))
    return table


def report(arms: list[Arm], scores: pd.DataFrame, *, images: int) -> str:
    """The table, in Markdown."""
    peers = [arm.name for arm in arms if arm.name.startswith("stock")]
    mean, spread = scores.loc[peers].mean(), 2 * scores.loc[peers].std(ddof=1)
    rates = {arm.name: arm.rate for arm in arms}
    slow = float(np.mean([rates[name] for name in peers]))
    lines = [
        f"The stock pipeline: Dice {mean.dice:.3f} +- {spread.dice:.3f}, Frechet distance {mean.frechet:.2f} +- "
        f"{spread.frechet:.2f} (2 sd over {len(peers)} sets of seeds, {images} images each); real images: Dice "
        f"{scores.attrs['real']:.3f}.\n",
        "| way | on top of | images/s (range of turns) | x that | x stock | Dice | Frechet | as good |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        turns = [len(made) / s for made, s in zip(arm.images, arm.seconds, strict=True)]
        gain = f"{arm.rate / rates[arm.over]:.2f}" if arm.over else ""
        told = "- | - | -"
        if arm.judged:
            found = scores.loc[arm.name]
            good = found.dice >= (mean - spread).dice and found.frechet <= (mean + spread).frechet
            told = f"{found.dice:.3f} | {found.frechet:.2f} | {'yes' if good else 'no'}"
        lines.append(
            f"| {arm.name} | {arm.over or ''} | {arm.rate:.2f} ({min(turns):.2f} to {max(turns):.2f}) | {gain} | "
            f"{arm.rate / slow:.2f} | {told} |"
        )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--generator", default="runs/controlnet/0", help="a finished ControlNet run"
    )
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument(
        "--seeds", type=int, default=3, help="sets of seeds of the peer, at least 2"
    )
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--subjects", type=int, default=300, help="of the phantom cohort")
    parser.add_argument(
        "--judge-steps",
        type=int,
        nargs=2,
        default=(250, 400),
        help="of segmenter and attribute network",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    device = torch.device(asked.device)
    generator = load_generator(asked.generator)
    with tempfile.TemporaryDirectory() as root:
        peer = stock(generator, Path(root) / "stock", device)
        generator.to(device)
        cohort = prepare(
            Phantom(subjects=asked.subjects, hf_scale=20.0, pixels=PIXELS, controls_per_case=1),
            root,
        )
        plan = balanced(cohort.index, count=asked.images, fields=generator.facts["fields"]).rows
        masks = torch.from_numpy(cohort.masks[plan.source_row.to_numpy()])
        print(
            f"# Drawing a synthetic set on {hardware(device)}\n\n{date.today()}, torch {torch.__version__}: "
            f"{asked.generator} at {generator.base.pixels} px, {asked.images} images in {asked.repeats} turns.\n",
            flush=True,
        )
        arms = arms_of(generator, peer, batch=asked.batch, seeds=asked.seeds, device=device)
        drawn(arms, plan, masks, repeats=asked.repeats, device=device)
        # last, for it changes the networks; each batch size compiles once, uncounted
        if device.type == "cuda":
            few = next(arm for arm in arms if arm.name == "UniPC, 8 steps")
            arms.append(
                Arm("torch.compile", ours(generator.compile(), **UNIPC), asked.batch, few.name)
            )
            drawn(arms[-1:], plan, masks, repeats=asked.repeats, device=device)
        scores = quality(
            arms, cohort, masks, folder=Path(root) / "judges", steps=tuple(asked.judge_steps)
        )
        print(report(arms, scores, images=asked.images), flush=True)


if __name__ == "__main__":
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    main()
