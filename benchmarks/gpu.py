"""What a GPU does with this program, in under eight minutes: one command for the day a card is
lent.

    python benchmarks/gpu.py --out gpu.md               # on a GPU, Stable Diffusion 2.1's architecture, random weights
    python benchmarks/gpu.py --tiny --out gpu.md        # the rehearsal, on a CPU, with the small base

No network and no weights are needed. Each part runs in a process of its own with its own limit of
seconds, in the order of their worth, and its lines are in the file as soon as it ends; what fails
or takes too long is written down there, too.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from machine import hardware, now, peak_memory
from torch import Tensor
from torch.utils.data import DataLoader

from cmrdata.batch import LatentBatch
from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.render.generator import Generator
from cmrgen.render.sampler import Sampler
from cmrgen.training.controlnet import CONDITIONING_CHANNELS, ControlNetModule

HOUSE = Path(__file__).parents[1]
SMALL = HOUSE / "assets" / "phantom-base"


@dataclass
class Setting:
    """Where the parts run, and how much they do."""

    device: torch.device
    tiny: bool
    steps: int  # of the optimiser, after three that do not count
    draw_steps: int

    def base(self) -> Base:
        if self.tiny:
            return load_base(weights=str(SMALL))
        from controlnet_step import random_sd21

        return random_sd21(self.device)

    def generator(self, base: Base) -> Generator:
        """With a ControlNet that is not zero, and prompts that need no text tower."""
        from diffusers import ControlNetModel

        torch.manual_seed(1)
        base.contexts.setdefault("", torch.randn(base.tokenizer.context_length, _width(base)))
        controlnet = ControlNetModel.from_unet(
            base.unet, conditioning_embedding_out_channels=CONDITIONING_CHANNELS[base.factor]
        )
        for layer in (controlnet.controlnet_mid_block, *controlnet.controlnet_down_blocks):
            torch.nn.init.normal_(layer.weight, std=0.02)
        return Generator(base=base, controlnet=controlnet.eval(), facts={}).to(self.device)


def _width(base: Base) -> int:
    return int(base.unet.config.cross_attention_dim)


def masks(count: int, pixels: int) -> Tensor:
    """A ring in a disc, as a heart is: (count, 2, pixels, pixels) labels."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, pixels)] * 2, indexing="ij")
    radius = (x**2 + y**2).sqrt()
    ring = (radius < 0.5).to(torch.uint8) * 2 + (radius < 0.35).to(torch.uint8)
    return ring.expand(count, 2, pixels, pixels).contiguous()


def images(generator: Generator, count: int, *, steps: int) -> Tensor:
    sampler = Sampler("ddim", steps=steps, guidance=4.0)
    return generator.images(
        masks(count, generator.base.pixels),
        prompts=[""] * count,
        seeds=range(count),
        guidance=[4.0] * count,
        sampler=sampler,
    )


def apart(a: Tensor, b: Tensor) -> str:
    """How far two sets of images are from each other."""
    levels = (a.cpu().int() - b.cpu().int()).abs()
    return f"{100 * (levels <= 1).float().mean():.2f} % of pixels within a grey level, at most {int(levels.max())} apart"


def exactness(at: Setting) -> list[str]:
    """Drawn images on the device in both precisions, against the CPU's, with the small base."""
    base = load_base(weights=str(SMALL))
    here = images(replace(at, device=torch.device("cpu"), tiny=True).generator(base), 4, steps=4)
    generator = replace(at, tiny=True).generator(load_base(weights=str(SMALL)))
    lines = ["| drawn by the small base | against the CPU in float32 |", "|---|---|"]
    for name, precision in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        there = images(replace(generator, precision=precision), 4, steps=4)
        lines.append(f"| {at.device.type}, {name} | {apart(there, here)} |")
    latents = torch.randn(4, *base.latent_shape, generator=torch.Generator().manual_seed(2))
    exact = base.images(latents)
    half = base.to("cpu", vae=torch.bfloat16).images(latents)
    lines.append(f"| CPU, the VAE alone in bfloat16 | {apart(half, exact)} |")
    return lines


class Clock(L.Callback):
    """Time at the end of the warm steps and of the last one."""

    def __init__(self, device: torch.device, *, warm: int, steps: int) -> None:
        self.device, self.ends, self.times = device, (warm, warm + steps), list[float]()
        self.batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1
        if self.batches in self.ends:
            self.times.append(now(self.device))


def trained(
    at: Setting,
    base: Base,
    memory: dict[str, Any],
    *,
    precision: str,
    batch: int,
    steps: int,
    **more: Any,
) -> ControlNetModule:
    """A ControlNet after some steps of Lightning's trainer, on random latents of the base's
    shape."""
    draw = torch.Generator().manual_seed(0)
    channels, height, width = base.latent_shape
    base.contexts.setdefault(
        "", torch.randn(base.tokenizer.context_length, _width(base), generator=draw)
    )
    rows = [
        LatentBatch(
            moments=torch.randn(batch, 2 * channels, height, width, generator=draw),
            control=torch.rand(batch, 3, base.pixels, base.pixels, generator=draw),
            context=torch.randn(batch, base.tokenizer.context_length, _width(base), generator=draw),
        )
        for _ in range(steps)
    ]
    torch.manual_seed(0)
    with patch("cmrgen.training.controlnet.load_base", lambda **_: base):
        module = ControlNetModule(base={}, lr=1e-5, memory=memory)
    L.Trainer(
        accelerator="gpu" if at.device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **more,
    ).fit(module, DataLoader(rows, batch_size=None))  # type: ignore[arg-type]
    return module


def presets(at: Setting) -> list[str]:
    """Peak memory and seconds of a step for each preset of the trainer; beside them what was
    computed."""
    import memory as computed

    lines = [
        f"| training, {'small base' if at.tiny else 'SD 2.1, 512 px'} | batch | s a batch | peak GiB | computed GiB | card |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in computed.presets().items():
        for batch in (of.batch_size, 8):
            clock = Clock(at.device, warm=3, steps=at.steps)
            precision = of.precision if at.device.type == "cuda" else "bf16-mixed"
            try:
                with peak_memory(at.device) as peak:
                    base = at.base()
                    trained(
                        at,
                        base,
                        of.memory,
                        precision=precision,
                        batch=batch,
                        steps=3 + at.steps,
                        accumulate_grad_batches=of.accumulated,
                        callbacks=[clock],
                    )
                took = f"{(clock.times[1] - clock.times[0]) / at.steps:.3f} | {peak.gib:.2f}"
            except Exception as error:
                took = f"{type(error).__name__}: {' '.join(str(error).split())[:120]} | "
            told = "-" if at.tiny else f"{computed.training(of, batch_size=batch)[0].peak:.2f}"
            lines.append(
                f"| `trainer={name}` | {batch} | {took} | {told} | {computed.CARDS[name]} GB |"
            )
            print("\n".join(lines[-1:]), file=sys.stderr, flush=True)
            base = None  # type: ignore[assignment]
            if at.device.type == "cuda":
                torch.cuda.empty_cache()
    return lines


def drawing(at: Setting) -> list[str]:
    """Images/s and peak memory of drawing by images asked for together, and in both precisions."""
    generator = at.generator(at.base())
    lines = [
        "| drawing, DDIM, guidance 4 | steps | precision | images/s | peak GiB |",
        "|---|---|---|---|---|",
    ]
    for name, precision in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        for count in (1, 8, 24):
            of = replace(generator, precision=precision)
            images(of, count, steps=1)
            with peak_memory(at.device) as peak:
                begun = now(at.device)
                images(of, count, steps=at.draw_steps)
                took = now(at.device) - begun
            lines.append(
                f"| {count} together | {at.draw_steps} | {name} | {count / took:.2f} | {peak.gib:.2f} |"
            )
    return lines


def too_small(at: Setting) -> list[str]:
    """Memory that holds fewer images than are asked for: halved, told, and the same images."""
    generator = at.generator(at.base())
    generator.budget = 8 * generator.base.pixels**2
    whole, said = images(generator, 8, steps=2), StringIO()
    with redirect_stdout(said):
        if at.device.type == "cuda":
            torch.cuda.empty_cache()
            # the weights, and no more than seven rows
            room = torch.cuda.memory_allocated() + 1.2 * 2**30
            torch.cuda.set_per_process_memory_fraction(
                room / torch.cuda.get_device_properties(at.device).total_memory
            )
            again = images(generator, 8, steps=2)
        else:
            with patch.object(
                type(generator.base.unet),
                "forward",
                _scarce(type(generator.base.unet).forward, rows=4),
            ):
                again = images(generator, 8, steps=2)
    lines = ["| memory for less than 8 images together | |", "|---|---|"]
    lines += [f"| said | {line} |" for line in said.getvalue().splitlines()]
    return [*lines, f"| images against those of 8 together | {apart(again, whole)} |"]


def _scarce(forward: Callable[..., Any], *, rows: int) -> Callable[..., Any]:
    def limited(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(x) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory (rehearsed)")
        return forward(self, x, *args, **kwargs)

    return limited


def chain(at: Setting) -> list[str]:
    """The commands themselves on the smoke study: a training ended in its middle and resumed, one
    that was not, a set."""
    where = "gpu" if at.device.type == "cuda" else "auto"
    lines = ["| command | s |", "|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        common = [
            "preset=smoke",
            f"preset.runs={place}/runs",
            f"data_root={place}/data",
            "cohort.subjects=200",
        ]
        train = [
            "train.py",
            "experiment=controlnet",
            f"trainer={where}",
            "trainer.max_epochs=2",
            *common,
        ]
        commands = [
            [*train, "name=whole"],
            [*train, "name=resumed", "trainer.max_time=00:00:00:01", "checkpoint.steps=1"],
            [*train, "name=resumed"],
            [
                "generate.py",
                f"generator={place}/runs/whole/0",
                "name=set",
                "precision=bf16-mixed",
                *common,
            ],
        ]
        for command in commands:
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *command], cwd=HOUSE, capture_output=True, text=True, check=False
            )
            shown = " ".join(part for part in command if place not in part)
            told = (
                ""
                if not done.returncode
                else f", exit status {done.returncode}: {done.stderr.strip()[-160:]}"
            )
            lines.append(
                f"| `{shown}`{' '.join(told.split())} | {time.perf_counter() - begun:.0f} |"
            )
        from safetensors.torch import load_file

        files = [Path(place) / "runs" / n / "0" / "controlnet" for n in ("whole", "resumed")]
        one, other = (load_file(f / "diffusion_pytorch_model.safetensors") for f in files)
        most = max(float((one[key] - other[key]).abs().max()) for key in one)
        lines.append(f"| resumed against uninterrupted: weights at most {most:.2g} apart | |")
    return lines


# in the order of their worth: seconds
PARTS: dict[str, tuple[Callable[[Setting], list[str]], int]] = {
    "exactness": (exactness, 45),
    "presets": (presets, 150),
    "drawing": (drawing, 100),
    "too_small": (too_small, 45),
    "chain": (chain, 120),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="the small base and few steps; on a CPU where there is no GPU",
    )
    parser.add_argument("--part", choices=list(PARTS), help="this one alone, printed")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument(
        "--slack", type=float, default=1.0, help="times the limits of seconds, for a slow machine"
    )
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not asked.tiny:
        sys.exit("no GPU here: --tiny rehearses on the CPU")
    if asked.part:
        at = Setting(
            device, asked.tiny, steps=2 if asked.tiny else 12, draw_steps=2 if asked.tiny else 20
        )
        print("\n".join(PARTS[asked.part][0](at)))
        return
    head = f"# On a GPU\n\n`python benchmarks/gpu.py{' --tiny' * asked.tiny}`, {date.today()}, {hardware(device)}, "
    asked.out.write_text(f"{head}torch {torch.__version__}, Python {sys.version.split()[0]}.\n")
    for name in asked.parts:
        begun, limit = time.perf_counter(), PARTS[name][1] * asked.slack
        command = [sys.executable, __file__, "--part", name, *["--tiny"] * asked.tiny]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=limit, check=False
            )
            text, state = done.stdout.strip(), "" if not done.returncode else "failed"
            notes = done.stderr.strip()[-600:] if done.returncode else ""
        except subprocess.TimeoutExpired as late:
            text, state = "", f"did not end within {limit:.0f} s"
            notes = (late.stderr or b"").decode()[-2000:]
        took = f"{time.perf_counter() - begun:.0f} s{', ' + state if state else ''}"
        with asked.out.open("a") as file:
            file.write(
                f"\n## {name.replace('_', ' ')} ({took})\n\n{text}\n"
                + (f"\n```\n{notes}\n```\n" if notes else "")
            )
        print(f"{name}: {took}", flush=True)


if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    main()
