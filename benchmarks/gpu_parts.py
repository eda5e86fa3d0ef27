"""The parts of benchmarks/gpu.py: each prints its lines of Markdown as it has them.

    python benchmarks/gpu_parts.py training [--tiny]

Stable Diffusion 2.1's architecture with random weights: what is measured is time and memory, never
quality, but for the part on real hearts. `--tiny` takes the small base and few steps, to rehearse
on any machine.
"""

from __future__ import annotations

import argparse
import gc
import logging
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partialmethod
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import lightning as L
import torch
from gpu import environment
from machine import hardware, matmul_rate, now, peak_memory
from torch import Tensor

HOUSE = Path(__file__).parents[1]
SMALL = HOUSE / "assets" / "phantom-base"
BF16 = torch.bfloat16
Lines = Iterator[str]


@dataclass
class Setting:
    """Where the parts run, and how much they do.

    acdc: the folder of ACDC, or a data_root that holds its store. work: where the runs on real
    hearts stay; None: nowhere.
    """

    device: torch.device
    tiny: bool
    acdc: Path | None = None
    work: Path | None = None

    @property
    def gpu(self) -> bool:
        return self.device.type == "cuda"

    def base(self) -> Any:
        """The base on the device, nothing of it loaded."""
        from cmrgen.base.load import load_base

        if self.tiny:
            return load_base(weights=str(SMALL)).to(self.device)
        from controlnet_step import random_sd21

        return random_sd21(self.device).to(self.device)

    def generator(self, base: Any) -> Any:
        """With a ControlNet that is not zero, and a kept embedding of the empty prompt."""
        from diffusers import ControlNetModel

        from cmrgen.render.generator import Generator
        from cmrgen.training.controlnet import CONDITIONING_CHANNELS

        torch.manual_seed(1)
        base.contexts.setdefault("", torch.randn(base.tokenizer.context_length, _width(base)))
        # the small one on the CPU, for the same draws everywhere; the large one where that is quick
        with torch.device("cpu") if self.tiny else self.device:
            controlnet = ControlNetModel.from_unet(
                base.unet, conditioning_embedding_out_channels=CONDITIONING_CHANNELS[base.factor]
            )
        for layer in (controlnet.controlnet_mid_block, *controlnet.controlnet_down_blocks):
            torch.nn.init.normal_(layer.weight, std=0.02)
        return Generator(base=base, controlnet=controlnet.eval(), facts={}).to(self.device)


def _width(base: Any) -> int:
    return int(base.unet.config.cross_attention_dim)


def table(*titles: str) -> Lines:
    """The head of a table."""
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"


def row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def short(error: BaseException) -> str:
    """An error in a cell of a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}".replace("|", "/")


def emptied(at: Setting) -> None:
    if at.gpu:
        torch.cuda.empty_cache()


def machine(at: Setting) -> Lines:
    """The card and the versions, for the record's head."""
    import diffusers

    where = hardware(at.device) if at.gpu else f"no GPU, {hardware(at.device)}"
    versions = {
        "torch": torch.__version__,
        "Python": sys.version.split()[0],
        "lightning": L.__version__,
        "diffusers": diffusers.__version__,
    }
    yield f"{where}, {', '.join(f'{name} {version}' for name, version in versions.items())}"


# --------------------------------------------------------------------------------- it runs


def masks(count: int, pixels: int) -> Tensor:
    """A ring in a disc, as a heart is: (count, 2, pixels, pixels) labels."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, pixels)] * 2, indexing="ij")
    radius = (x**2 + y**2).sqrt()
    ring = (radius < 0.5).to(torch.uint8) * 2 + (radius < 0.35).to(torch.uint8)
    return ring.expand(count, 2, pixels, pixels).contiguous()


def images(generator: Any, count: int, *, steps: int, guides: str = "prompt") -> Tensor:
    from cmrgen.render.sampler import Sampler

    sampler = Sampler("ddim", steps=steps, guidance=4.0, guides=guides)
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


def exactness(at: Setting) -> Lines:
    """Drawn images on the device in both precisions, against the CPU's, with the small base."""
    from cmrgen.base.load import load_base

    cpu = replace(at, device=torch.device("cpu"), tiny=True)
    there = replace(at, tiny=True)
    exact = images(cpu.generator(cpu.base()), 4, steps=4)
    generator = there.generator(there.base())
    yield from table("drawn by the small base", "against the CPU in float32")
    for name, precision in (("32-true", torch.float32), ("bf16-mixed", BF16)):
        drawn = images(replace(generator, precision=precision), 4, steps=4)
        yield row(f"{at.device.type}, {name}", apart(drawn, exact))
    for network in (generator.base.unet, generator.controlnet):
        network.to(memory_format=torch.channels_last)
    drawn = images(replace(generator, precision=BF16), 4, steps=4)
    yield row(f"{at.device.type}, bf16-mixed, channels_last", apart(drawn, exact))
    base = load_base(weights=str(SMALL))
    latents = torch.randn(4, *base.latent_shape, generator=torch.Generator().manual_seed(2))
    decoded = base.images(latents)
    for name, dtype in (("float32", torch.float32), ("bfloat16", BF16)):
        here = base.to(at.device, vae=dtype).images(latents.to(at.device))
        yield row(f"{at.device.type}, the decoder alone in {name}", apart(here, decoded))


class Ran(NamedTuple):
    """A command that ended: its words, its seconds, its exit status, its last words, its output."""

    words: list[str]
    seconds: float
    status: int
    error: str
    output: str

    def line(self, *hidden: str) -> str:
        """Its row: without the words that hold one of `hidden`, which are places of this machine."""
        shown = " ".join(word for word in self.words if not any(h in word for h in hidden))
        told = ""
        if self.status:
            told = f", exit status {self.status}: {' '.join(self.error.split())[-300:]}"
            for place in hidden:
                told = told.replace(place, "...")
        return row(f"`{shown}`{told}".replace("|", "/"), f"{self.seconds:.0f}")


def ran(words: list[str]) -> Ran:
    """Run one of the commands, in this folder."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=HOUSE,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - begun
    return Ran(words, took, done.returncode, done.stderr.strip(), done.stdout)


def commands(at: Setting) -> Lines:
    """The commands themselves on the smoke study: a training ended in its middle and resumed, and,
    at its side, one that was not, and a set."""
    where = ["trainer=gpu", "memory.channels_last=true"] if at.gpu else ["trainer=auto"]
    if at.gpu and find_spec("bitsandbytes"):
        where.append("memory.optimizer=adamw8bit")
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(1) as beside:
        common = ["preset=smoke", "cohort.subjects=200"]
        common += [f"preset.runs={place}/runs", f"data_root={place}/data"]
        train = ["train.py", "experiment=controlnet", "trainer.max_epochs=2", *where, *common]
        interrupted = [*train, "name=resumed", "checkpoint.steps=1"]
        draw = ["generate.py", f"generator={place}/runs/whole/0", "name=set", *common]

        def uninterrupted() -> list[Ran]:
            return [ran([*train, "name=whole"]), ran([*draw, "precision=bf16-mixed"])]

        others = beside.submit(uninterrupted)
        stopped = ran([*interrupted, "trainer.max_time=00:00:00:01"])
        resumed = ran(interrupted)
        whole, drawn = others.result()
        yield from table("command", "s")
        yield from (of.line(place) for of in (whole, drawn, stopped, resumed))
        if any(of.status for of in (whole, drawn, resumed)) or stopped.status != 3:
            sys.exit("a command did not end as it should, see above (3: ended before its time)")
        files = [Path(place) / "runs" / n / "0" / "controlnet" for n in ("whole", "resumed")]
        yield row(f"resumed against uninterrupted: {weights_apart(*files)}", "")


def weights_apart(a: Path, b: Path) -> str:
    """How far the weights of two ControlNets are from each other."""
    from safetensors.torch import load_file

    one, other = (load_file(f / "diffusion_pytorch_model.safetensors") for f in (a, b))
    most = max(float((one[key].float() - other[key].float()).abs().max()) for key in one)
    return f"weights at most {most:.2g} apart"


# -------------------------------------------------------------------------------- training


def training(at: Setting) -> Lines:
    """The recipe of diffusers' example and our training, at equal batch: benchmarks/controlnet_step.py
    without turns, for nobody else uses the card."""
    yield from _steps(
        at,
        arms={
            "ours, trainer=gpu": {"frozen": "bfloat16"},
            "ours, channels_last": {"frozen": "bfloat16", "channels_last": True},
            "ours, trainer=gpu12": {"frozen": "bfloat16", "checkpointing": True},
        },
        recipe=True,
        batches=(1, 8),
    )


def compiled(at: Setting) -> Lines:
    """The same with torch.compile, which takes a minute or more before its first step: the largest
    batch first, so that something is there when time runs out."""
    arms = {"ours, memory=fast": {"frozen": "bfloat16", "channels_last": True, "compile": True}}
    with compiling(at) as told:
        yield told
        yield from _steps(at, arms=arms, recipe=False, batches=(8, 1))


@contextmanager
def compiling(at: Setting) -> Iterator[str]:
    """torch.compile as it is on a GPU. A rehearsal traces only: it would take a C++ compiler
    minutes, and tell nothing about a card. Yields a paragraph that says so."""
    if at.gpu:
        yield ""
        return
    traced = partialmethod(torch.nn.Module.compile, backend="eager")
    with patch.object(torch.nn.Module, "compile", traced):
        yield "Rehearsed: traced, not compiled.\n"


def _steps(
    at: Setting, *, arms: dict[str, dict[str, Any]], recipe: bool, batches: tuple[int, ...]
) -> Lines:
    """The table of controlnet_step.py, a line as soon as it is measured."""
    import controlnet_recipe
    import controlnet_step as step

    from cmrdata.cohorts.phantom.cohort import Phantom
    from cmrgen.training.latents import Latents

    rate = matmul_rate(at.device, BF16)
    yield f"Matrix products in bfloat16 reach {rate / 1e12:.3g} TFLOP/s.\n"
    with tempfile.TemporaryDirectory() as root:
        cohort = Phantom(subjects=30, hf_scale=20.0, pixels=64, controls_per_case=1)
        data = Latents(cohort=cohort, root=root, base=at.base(), val_images=1)
        begun = now(at.device)
        with redirect_stdout(sys.stderr):
            data.prepare_data()
            data.setup()
        took = now(at.device) - begun
        yield f"Caching {len(data.rows)} images took {took:.0f} s.\n"
        steps, warm = (2, 1) if at.tiny else (20, 4)
        setting = step.Setting(data.base, data, at.device, BF16, steps, warm)
        kinds: dict[str, tuple[Any, Any]] = {}
        if recipe:
            kinds["recipe"] = (
                lambda batch: controlnet_recipe.recipe(setting, batch),
                lambda: controlnet_recipe.recipe_flops(setting),
            )
        for name, memory in arms.items():
            kinds[name] = (
                lambda batch, memory=memory: step.ours(setting, memory, batch),
                lambda memory=memory: step.our_flops(setting, memory),
            )
        yield from step.HEAD
        flops, peers = dict[str, float](), dict[int, Any]()
        alike = {name: _operations(memory) for name, memory in arms.items()}
        for batch in batches:
            for name, (run, count) in kinds.items():
                try:
                    same = alike.get(name, name)
                    if same not in flops:
                        flops[same] = count()
                    emptied(at)
                    begun = now(at.device)
                    arm = step.Arm(name, batch, run, flops[same])
                    arm.turn()
                    whole = now(at.device) - begun
                except Exception as error:
                    yield row(batch, name, short(error), *[""] * 5)
                    data.base.release("vae", "unet", "text")
                    continue
                if name == "recipe":
                    peers[batch] = arm
                yield step.row(arm, peers.get(batch), steps=steps, rate=rate)
                if not recipe:
                    start = whole - arm.seconds[0]
                    yield row(
                        batch, f"{name}: until its clock started", f"{start:.0f} s", *[""] * 5
                    )


def _operations(memory: dict[str, Any]) -> str:
    """The same for settings that need the same operations, whatever they make of them."""
    return f"checkpointing {memory.get('checkpointing', False)}"


class Clock(L.Callback):
    """Time at the end of the warm batches and of the last one."""

    def __init__(self, device: torch.device, *, warm: int, steps: int) -> None:
        self.device, self.ends, self.times = device, (warm, warm + steps), list[float]()
        self.batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1
        if self.batches in self.ends:
            self.times.append(now(self.device))


def trained(
    at: Setting,
    base: Any,
    memory: dict[str, Any],
    *,
    precision: str,
    batch: int,
    steps: int,
    **more: Any,
) -> None:
    """Some steps of Lightning's trainer, on random latents of the base's shape."""
    from torch.utils.data import DataLoader

    from cmrdata.batch import LatentBatch
    from cmrgen.training.controlnet import ControlNetModule

    draw = torch.Generator().manual_seed(0)
    channels, height, width = base.latent_shape
    shape = (base.tokenizer.context_length, _width(base))
    base.contexts.setdefault("", torch.randn(shape, generator=draw))
    rows = [
        LatentBatch(
            moments=torch.randn(batch, 2 * channels, height, width, generator=draw),
            control=torch.rand(batch, 3, base.pixels, base.pixels, generator=draw),
            context=torch.randn(batch, *shape, generator=draw),
        )
        for _ in range(steps)
    ]
    torch.manual_seed(0)
    with patch("cmrgen.training.controlnet.load_base", lambda **_: base), at.device:
        module = ControlNetModule(base={}, lr=1e-5, memory=memory)
    L.Trainer(
        accelerator="gpu" if at.gpu else "cpu",
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


def presets(at: Setting) -> Lines:
    """Peak memory and seconds of a batch for each preset of the trainer; beside them what was
    computed (docs/results/memory.md)."""
    import memory as computed

    yield from table("training", "batch", "s a batch", "peak GiB", "computed GiB", "card")
    for name, of in computed.presets().items():
        warm, steps = 3, 2 if at.tiny else 8
        clock = Clock(at.device, warm=warm, steps=steps)
        told = "-" if at.tiny else _told_peak(name)
        try:
            with peak_memory(at.device) as peak:
                trained(
                    at,
                    at.base(),
                    of.memory,
                    precision=of.precision,
                    batch=of.batch_size,
                    steps=warm + steps,
                    accumulate_grad_batches=of.accumulated,
                    callbacks=[clock],
                )
            took, most = f"{(clock.times[1] - clock.times[0]) / steps:.3f}", f"{peak.gib:.2f}"
        except Exception as error:
            took, most = short(error), ""
        yield row(
            f"`trainer={name}`", of.batch_size, took, most, told, f"{computed.CARDS[name]} GB"
        )
        emptied(at)


def _told_peak(name: str) -> str:
    """The computed peak of a preset's step, from the page: computing takes a minute."""
    page = (HOUSE / "docs" / "results" / "memory.md").read_text()
    found = re.search(rf"^\| `trainer={name}`,.*\*\*([\d.]+)\*\*", page, re.MULTILINE)
    return found[1] if found else "-"


# --------------------------------------------------------------------------------- drawing


def stock_way(generator: Any, *, dtype: torch.dtype) -> Any:
    """diffusers' own pipeline of the generator's networks, which become `dtype` and are then no
    longer the generator's; the prompt goes through the text tower for every image, as there.
    rows, masks -> images."""
    from diffusers import StableDiffusionControlNetPipeline
    from render import DDIM, by_pipeline

    from cmrgen.publish.diffusers_folder import folded
    from cmrgen.render.sampler import Sampler

    base = generator.base
    networks = {
        "vae": folded(base.vae, shift=base.shift, scale=base.scale),
        "unet": base.unet,
        "controlnet": generator.controlnet,
    }
    base.release("vae")
    pipe = StableDiffusionControlNetPipeline(
        **{name: torch.nn.Module.to(network, dtype=dtype) for name, network in networks.items()},
        text_encoder=None,
        tokenizer=None,
        scheduler=Sampler(**DDIM).scheduler(base.schedule),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    base.to(base.device, text=dtype)

    def says(prompt: str) -> dict[str, Any]:
        base.contexts.clear()
        embedded = {"prompt_embeds": prompt, "negative_prompt_embeds": ""}
        return {name: base.embed([text]) for name, text in embedded.items()}

    return by_pipeline(pipe, base, says)


def drawing(at: Setting) -> Lines:
    """images/s and peak memory of the stock pipeline, image by image, and of ours by images asked
    for together, by precision and by what guidance pushes towards; then of the decoder alone."""
    import pandas as pd

    from cmrgen.base.portions import DRAWN

    yield from table(
        "drawing, DDIM 20, guidance 4",
        *("images together", "precision", "images/s", "x stock", "peak GiB"),
    )
    stock, steps = 0.0, 20
    for name, dtype, count in (("float32", torch.float32, 1), ("bfloat16", BF16, 3)):
        base = at.base()
        way = stock_way(at.generator(base), dtype=dtype)
        rows = pd.DataFrame({"prompt": [""] * count, "seed": range(count)})
        way(rows[:1], masks(1, base.pixels))
        with peak_memory(at.device) as peak:
            begun = now(at.device)
            way(rows, masks(count, base.pixels))
            took = now(at.device) - begun
        stock = count / took
        yield row("stock pipeline", 1, name, f"{stock:.3g}", "", f"{peak.gib:.2f}")
        del way, base
        gc.collect()
        emptied(at)
    base = at.base()
    generator = at.generator(base)
    ways: list[tuple[str, str, torch.dtype, int, str, int | None]] = [
        ("ours", "bf16-mixed", BF16, 1, "prompt", None),
        ("ours", "bf16-mixed", BF16, 8, "prompt", None),
        ("ours", "bf16-mixed", BF16, 24, "prompt", None),
        ("ours, in the portions of a 16 GB card", "bf16-mixed", BF16, 24, "prompt", 2 * DRAWN),
        ("ours, guides=both", "bf16-mixed", BF16, 24, "both", None),
        ("ours", "32-true", torch.float32, 8, "prompt", None),
    ]
    for name, told, precision, count, guides, budget in ways:
        of = replace(generator, precision=precision, budget=budget)
        try:
            images(of, count, steps=1, guides=guides)
            with peak_memory(at.device) as peak:
                begun = now(at.device)
                images(of, count, steps=steps, guides=guides)
                took = now(at.device) - begun
        except Exception as error:
            yield row(name, count, told, short(error), "", "")
            continue
        rate = count / took
        yield row(name, count, told, f"{rate:.3g}", f"{rate / stock:.2f}", f"{peak.gib:.2f}")
    yield "\nx stock: against the pipeline in bfloat16.\n"
    base.release("unet")
    generator.controlnet.to("cpu")
    emptied(at)
    latents = torch.randn(24, *base.latent_shape, device=at.device)
    base.images(latents[:1])
    standing = torch.cuda.memory_allocated() / 2**30 if at.gpu else 0.0
    with peak_memory(at.device) as peak:
        begun = now(at.device)
        base.images(latents)
        took = now(at.device) - begun
    yield (
        f"Decoding 24 images alone: {24 / took:.3g} images/s, peak {peak.gib:.2f} GiB, of which "
        f"{standing:.2f} GiB stand before."
    )


def too_small(at: Setting) -> Lines:
    """Memory that holds fewer images than are asked for: halved, told, and the same images."""
    generator = at.generator(at.base())
    generator.budget = 8 * generator.base.pixels**2
    whole, said = images(generator, 8, steps=2), StringIO()
    with redirect_stdout(said), ExitStack() as stack:
        if at.gpu:
            emptied(at)
            # the weights, and what fewer than eight images take (docs/results/memory.md)
            room = torch.cuda.memory_allocated() + 1.6 * 2**30
            card = torch.cuda.get_device_properties(at.device).total_memory
            torch.cuda.set_per_process_memory_fraction(room / card)
        else:
            kind = type(generator.base.unet)
            stack.enter_context(patch.object(kind, "forward", _scarce(kind.forward, rows=4)))
        again = images(generator, 8, steps=2)
    yield from table("memory for less than 8 images together", "")
    yield from (row("said", line) for line in said.getvalue().splitlines())
    yield row("images against those of 8 together", apart(again, whole))


def _scarce(forward: Callable[..., Any], *, rows: int) -> Callable[..., Any]:
    def limited(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(x) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory (rehearsed)")
        return forward(self, x, *args, **kwargs)

    return limited


# --------------------------------------------------------------- classifier and evaluation


def classifier(at: Setting) -> Lines:
    """An epoch at 224 px, batch 64: images/s, and the share of the time in which the training waits
    for its images (benchmarks/classifier_epoch.py)."""
    import classifier_epoch as epoch

    wanted = {"stored": epoch.CROP, "pixels": 224, "width": 64, "images": 40 * epoch.BATCH}
    if at.tiny:
        wanted |= {"stored": 64, "pixels": 64, "width": 8, "images": 2 * epoch.BATCH}
    yield from table(
        f"{wanted['pixels']} px, batch {epoch.BATCH}, {wanted['images']} images an epoch",
        *("workers", "images/s", "waits", "prepares", "steps", "peak GiB"),
    )
    runs = [("float32", 0), ("bf16", 0), ("bf16, channels_last", 0), ("bf16, channels_last", 4)]
    with tempfile.TemporaryDirectory() as root:
        for option, workers in [*runs, ("compiled", 4)]:
            epoch.OPTIONS["compiled"] = {**epoch.OPTIONS["bf16, channels_last"], "compile": True}
            data = epoch.arms(
                root,
                pixels=wanted["stored"],
                subjects=60,
                images_per_epoch=wanted["images"],
                workers=workers,
            )
            name = "bf16, channels_last, compile" if option == "compiled" else option
            try:
                with peak_memory(at.device) as peak, compiling(at):
                    told = epoch.shares(
                        data, wanted=wanted, option=option, accelerator=at.device.type
                    )
            except Exception as error:
                yield row(name, workers, short(error), *[""] * 4)
                continue
            yield row(name, workers, told, f"{peak.gib:.2f}")


def table1(at: Setting) -> Lines:
    """Features of 4,000 images by a network of Inception's shape, and the distances of Table 1 among
    4,000 real and 4,000 synthetic images, 500 a side in every cell."""
    import numpy as np
    from fid_table import CELLS, inception_network, index, made

    from cmrgen.evaluation.device import evaluation_device
    from cmrgen.evaluation.fidelity.backbones import BACKBONES, Extractor, extracted_features
    from cmrgen.evaluation.fidelity.subgroups import fidelity_table
    from cmrgen.evaluation.fidelity.subgroups import table1 as distances

    count, width, n = (16, 64, 20) if at.tiny else (4000, 2048, 500)
    with redirect_stdout(sys.stderr):
        device = evaluation_device("auto")
    by = Extractor(inception_network().to(device), 2048, "", BACKBONES["inception"])
    noise = np.random.default_rng(0).integers(0, 256, (count, 2, 128, 128)).astype(np.uint8)
    extracted_features(by, noise[:32])
    with peak_memory(at.device) as peak:
        begun = now(at.device)
        extracted_features(by, noise)
        took = now(at.device) - begun
    yield from table(f"{count:,} images, features of {width:,}", "s", "")
    rate = f"{count / took:.4g} images/s, peak {peak.gib:.2f} GiB"
    yield row("features by Inception's shape, random weights", f"{took:.1f}", rate)
    people = 7 * n if at.tiny else count
    table_, x, y = index(people), made(people, width, 0), made(people, width, 1)
    for name, work in (("Table 1", distances), ("all metrics", fidelity_table)):
        begun = time.perf_counter()
        work(x, table_, y, table_, n=n, seed=0)
        told = f"{CELLS} distances, n = {n}, made-up features, on the CPU"
        yield row(name, f"{time.perf_counter() - begun:.1f}", told)


# ------------------------------------------------------------------------------ real hearts

HEARTS = ("preset=acdc_gpu", "cohort=acdc")
JUDGED = (
    "adherence",
    "area_change",
    "table1",
    "fidelity",
    "two_sample",
)  # tables that a part on real hearts shows
FEW = [  # overrides of a rehearsal
    "preset.copies=1",
    "preset.controlnet_epochs=1",
    "preset.controlnet_images=8",
    "preset.controlnet_batch=4",
    "preset.synthetic=12",
]
FEW_STEPS = [
    "model.autoencoder.steps=2",
    "model.unet.steps=2",
    "model.unet.channels=[16,32]",
    "model.unet.layers=1",
    "data.batch_size=4",
]


def hearts(at: Setting) -> Lines:
    """A base and a ControlNet on ACDC at 128 px, a set, and what its images are worth: the four
    commands of preset=acdc_gpu. Tables only; images and models stay in `work`, or go."""
    assert at.acdc is not None
    with ExitStack() as stack:
        place = at.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        raw = (at.acdc / "training").is_dir()
        # a prepared store is read where it lies, its source need not be there
        data = place / "data" if raw else at.acdc
        source = f"cohort.root={at.acdc}" if raw else "cohort.root=null"
        common = [*HEARTS, source, f"data_root={data}", f"preset.runs={place}/runs"]
        common.append(f"preset.base={place}/runs/base/0/base")
        few = FEW if at.tiny else []
        judged = ["preset.judge_steps=[2,2]"] if at.tiny else []
        chain = [
            ["train.py", "experiment=base", "name=base", *(FEW_STEPS if at.tiny else [])],
            ["train.py", "experiment=controlnet", "name=controlnet"],
            ["generate.py", f"generator={place}/runs/controlnet/0", "name=synthetic"],
            [
                *("evaluate.py", f"synthetic_set={place}/runs/synthetic/0", *judged),
                *("resamples=200", "permutations=200", f"run_dir={place}/results"),
            ],
        ]
        yield from table("command", "s")
        for words in chain:
            done = ran([*words, *common, *few])
            yield done.line(str(place), str(at.acdc), str(HOUSE))
            if done.status:
                sys.exit("the rest needs what this command did not leave")
        for name in JUDGED:
            page = place / "results" / f"{name}.md"
            yield f"\n{page.read_text().strip()}" if page.exists() else f"\n{name}: no table"


PARTS: dict[str, Callable[[Setting], Lines]] = {
    "machine": machine,
    "exactness": exactness,
    "commands": commands,
    "training": training,
    "presets": presets,
    "compiled": compiled,
    "drawing": drawing,
    "too_small": too_small,
    "classifier": classifier,
    "table1": table1,
    "hearts": hearts,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--acdc", type=Path)
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    if asked.part == "hearts" and asked.acdc is None:
        sys.exit("error: the part hearts needs ACDC: --acdc FOLDER")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for line in PARTS[asked.part](Setting(device, asked.tiny, asked.acdc, asked.work)):
        print(line, flush=True)


if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric", "diffusers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    main()
