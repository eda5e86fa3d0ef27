"""What Stable Diffusion 2.1 takes of a GPU's memory, computed on any machine in a minute: nothing
is calculated, only shapes.

    python benchmarks/memory.py > docs/results/memory.md

Fake tensors have shapes and no values, so the true networks run at their true sizes. A counter adds
up the storage that is alive after every operation; its highest value is the peak. Autocast is that
of GPUs: matrix products and convolutions in bfloat16, norms in float32. It is a lower bound: no
CUDA context, no workspaces of cuDNN, no gaps of the allocator, for which `ROOM` is left. Attention
is counted as fused (flash or memory-efficient), as PyTorch chooses by itself on GPUs.
"""

from __future__ import annotations

import argparse
import gc
import json
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cmrgen.base.frozen import Base
from cmrgen.base.portions import BESIDE_TRAINING, CARD, DECODED, DRAWN, ENCODED, PROMPTS, together
from cmrgen.base.stable_diffusion import clip_tower
from cmrgen.diffusion import denoise
from cmrgen.evaluation.networks import LARGEST, Segmenter
from cmrgen.training.controlnet import Memory

HOUSE = Path(__file__).parents[1]
GIB = 2**30
ROOM = 0.7  # GiB of a card that the count leaves: CUDA's context (0.3 to 0.5), workspaces, gaps
PIXELS, TOKENS, WIDTH = 512, 77, 1024
# bytes a weight; bitsandbytes keeps a float for 256 of them
STATE = {"adamw": 8.0, "adamw8bit": 2 * (1 + 4 / 256)}
CARDS = {"gpu": 16, "gpu12": 12, "gpu8": 8}  # trainer -> GB, as its name or comment promises
# images together, GB of the smallest card that draws so many
DRAWINGS = ((1, 8), (4, 8), (8, 16), (24, 48))
JUDGED = 256  # images, two phases each, through the segmenter


class Peak(NamedTuple):
    """Memory of a stage in GiB: what stays, and the highest of all."""

    standing: float
    peak: float


def limit(gigabytes: int) -> float:
    """GiB that a card of so many GB has for tensors."""
    return gigabytes * 10**9 / GIB - ROOM


class Counter(TorchDispatchMode):
    """Bytes of all storage made within that is still alive (`now`), and their highest value
    (`peak`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if (
                isinstance(tensor, Tensor)
                and (storage := tensor.untyped_storage()) not in self.known
            ):
                size = storage.nbytes()
                self.known[storage] = size
                weakref.finalize(storage, self._freed, size)
                self.now += size
                self.peak = max(self.peak, self.now)
        return made

    def _freed(self, size: int) -> None:
        self.now -= size

    def measured(self, work: Callable[[], Any]) -> Peak:
        """Of a piece of work, all that was there before included."""
        gc.collect()
        self.peak = standing = self.now
        work()
        gc.collect()
        return Peak(standing / GIB, self.peak / GIB)


@contextmanager
def counting() -> Iterator[Counter]:
    """Fake tensors and their counter; norms under autocast as on a GPU, where they take and give
    float32."""

    def in_float32(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def called(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                x = x.float()
                args = tuple(a.float() if isinstance(a, Tensor) else a for a in args)
                kwargs = {k: v.float() if isinstance(v, Tensor) else v for k, v in kwargs.items()}
            return norm(x, *args, **kwargs)

        return called

    own = F.group_norm, F.layer_norm
    F.group_norm, F.layer_norm = in_float32(F.group_norm), in_float32(F.layer_norm)
    try:
        with FakeTensorMode(), Counter() as counter:
            yield counter
    finally:
        F.group_norm, F.layer_norm = own


def configured(part: str) -> dict[str, Any]:
    return json.loads((HOUSE / "assets" / "sd21" / part / "config.json").read_text())


class Shapes(Base):
    """A base of fake tensors, which module.to refuses to move."""

    def _move(self, name: str) -> None:
        self._places[name] = self.device

    def release(self, *names: str) -> None:
        for name in names:
            self._loaded.pop(name, None)


def base() -> Base:
    """Stable Diffusion 2.1 with weights that have shapes alone."""
    schedule = json.loads(
        (HOUSE / "assets" / "sd21" / "scheduler" / "scheduler_config.json").read_text()
    )
    return Shapes(
        parts={
            "vae": lambda: AutoencoderKL.from_config(configured("vae")),
            "unet": lambda: UNet2DConditionModel.from_config(configured("unet")),
            "text": lambda: clip_tower(configured("text_encoder")),
        },
        schedule=schedule,
        shift=torch.zeros(4, 1, 1),
        scale=torch.full((4, 1, 1), 0.18215),
        pixels=PIXELS,
        factor=8,
        tokens=TOKENS,
        fingerprint="shapes",
    )


def inputs(rows: int) -> dict[str, Any]:
    side = PIXELS // 8
    return {
        "x": torch.randn(rows, 4, side, side),
        "t": torch.zeros(rows, dtype=torch.long),
        "context": torch.randn(rows, TOKENS, WIDTH),
        "control": torch.randn(rows, 3, PIXELS, PIXELS),
    }


def forward(unet: nn.Module, controlnet: nn.Module, rows: int, *, autocast: bool) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        return denoise(unet, controlnet, **inputs(rows)).float()


def drawing(images: int, *, autocast: bool) -> Peak:
    """A portion of a set: U-Net and ControlNet with two rows an image (guidance), then the VAE,
    whose weights stay."""
    with counting() as counter, torch.no_grad():
        frozen = base()
        unet, vae = frozen.unet, frozen.vae
        controlnet = ControlNetModel.from_unet(unet)
        steps = counter.measured(lambda: forward(unet, controlnet, 2 * images, autocast=autocast))
        latents = torch.randn(images, *frozen.latent_shape)
        decoded = counter.measured(lambda: frozen.images(latents))
        del vae
        return max(steps, decoded, key=lambda p: p.peak)


def coding() -> dict[str, Peak]:
    """What fills a cache before a training: the VAE's two halves and the text tower, each alone on
    the card."""
    peaks = {}
    with counting() as counter, torch.no_grad():
        frozen = base()
        n = together(PIXELS, ENCODED)
        images = torch.zeros(n, 2, PIXELS, PIXELS, dtype=torch.uint8)
        frozen.part("vae")
        peaks[f"VAE encodes {n} image"] = counter.measured(lambda: frozen.moments(images))
        n = together(PIXELS, DECODED)
        latents = torch.randn(n, *frozen.latent_shape)
        peaks[f"VAE decodes {n} image"] = counter.measured(lambda: frozen.images(latents))
        frozen.release("vae")
        tower, x = frozen.part("text"), torch.randn(PROMPTS, TOKENS, WIDTH)

        def embedded() -> None:
            y = x
            for block in tower.transformer.resblocks:
                y = block(y, attn_mask=tower.attn_mask)
            tower.ln_final(y)

        peaks[f"text tower, {PROMPTS} prompts"] = counter.measured(embedded)
    return peaks


def judging(images: int = JUDGED) -> Peak:
    """The segmenter on both phases of so many images, at the largest size that it sees."""
    with counting() as counter, torch.no_grad():
        network, x = Segmenter().eval(), torch.randn(2 * images, 1, LARGEST, LARGEST)
        return counter.measured(lambda: network(x).argmax(1))


def attack(images: int) -> Peak:
    """The membership attack's losses: one row an image, VAE and text tower on the card as well."""
    with counting() as counter, torch.no_grad():
        frozen = base()
        unet, controlnet = frozen.unet, ControlNetModel.from_unet(frozen.unet)
        kept = frozen.part("vae"), frozen.part("text")
        peak = counter.measured(lambda: forward(unet, controlnet, images, autocast=False))
        del kept
        return peak


class Training(NamedTuple):
    """A preset of the trainer for base=sd21, as train.py composes it."""

    memory: dict[str, Any]
    batch_size: int
    accumulated: int
    precision: str


def presets() -> dict[str, Training]:
    with initialize_config_dir(str(HOUSE / "conf"), version_base="1.3"):
        found = {}
        for name in CARDS:
            cfg = compose("train", ["experiment=controlnet", "base=sd21", f"trainer={name}"])
            found[name] = Training(
                dict(cfg.memory),
                cfg.data.batch_size,
                cfg.trainer.accumulate_grad_batches,
                cfg.trainer.precision,
            )
    return found


def training(of: Training, *, batch_size: int | None = None) -> tuple[Peak, Peak]:
    """The second of a step's batches, when gradients and AdamW's moments are there; and a preview
    between two steps."""
    autocast, memory = of.precision == "bf16-mixed", of.memory
    with counting() as counter:
        frozen = base()
        controlnet = ControlNetModel.from_unet(frozen.unet)
        unet = frozen.unet
        if memory["frozen"] == "bfloat16":
            _cast(unet, torch.bfloat16)
        arrange = Memory(
            checkpointing=memory["checkpointing"], channels_last=memory["channels_last"]
        )
        for network in (unet, controlnet):
            arrange.arrange(network)
        count = sum(p.numel() for p in controlnet.parameters())
        moments = torch.empty(round(count * STATE[memory["optimizer"]]), dtype=torch.uint8)
        for weight in controlnet.parameters():
            weight.grad = torch.zeros_like(weight)

        def step() -> None:
            rows = batch_size or of.batch_size
            forward(unet, controlnet.train(), rows, autocast=autocast).square().mean().backward()

        def preview() -> None:
            images = together(PIXELS, BESIDE_TRAINING)
            with torch.no_grad():
                forward(unet, controlnet.eval(), 2 * images, autocast=False)
                frozen.images(torch.randn(images, *frozen.latent_shape))

        peaks = counter.measured(step), counter.measured(preview)
        del moments
        return peaks


def _cast(network: nn.Module, dtype: torch.dtype) -> None:
    """As .to(dtype), which fake tensors refuse."""
    for part in network.modules():
        for name, weight in list(part._parameters.items()):
            if weight is not None:
                part._parameters[name] = nn.Parameter(
                    weight.detach().to(dtype), requires_grad=weight.requires_grad
                )


def report() -> Iterator[str]:
    """The page, line by line as its figures are there."""
    yield from [
        "# Memory of a GPU with Stable Diffusion 2.1: computed",
        "",
        f"`python benchmarks/memory.py`, {date.today()}, torch {torch.__version__}. Computed from shapes on a CPU, not measured on a "
        "card: storage alive",
        "after every operation, a lower bound without CUDA's context, cuDNN's workspaces and the allocator's gaps, for which",
        f"{ROOM} GiB of a card are left free. A card of n GB counts as n x 10^9 bytes. tests/commands/test_memory.py fails when a row of a",
        "preset or a portion leaves its card. 512 px, ControlNet training in bfloat16 autocast.",
        "",
        "| training | card | room GiB | weights, gradients, moments | peak of a step | peak of a preview |",
        "|---|---|---|---|---|---|",
    ]
    found = presets()
    for name, of in found.items():
        step, preview = training(of)
        yield (
            f"| `trainer={name}`, batch {of.batch_size} | {CARDS[name]} GB | {limit(CARDS[name]):.1f} | "
            f"{step.standing:.2f} | **{step.peak:.2f}** | {preview.peak:.2f} |"
        )
    for name, batch in (("gpu", 8), ("gpu12", 8)):
        step, preview = training(found[name], batch_size=batch)
        yield (
            f"| `trainer={name} data.batch_size={batch}` | | | {step.standing:.2f} | {step.peak:.2f} | {preview.peak:.2f} |"
        )
    yield from [
        "",
        f"Drawing goes in portions of {together(PIXELS, DRAWN)} images for each {CARD // 10**9} GB of the card (cmrgen.base.portions), "
        "whatever `batch_size` is;",
        "an image is two rows with guidance. The text tower has left the card by then; the VAE decodes one image at a time.",
        "",
        "| drawing together | card | room GiB | weights | peak, `precision=32-true` | peak, `bf16-mixed` |",
        "|---|---|---|---|---|---|",
    ]
    for images, card in DRAWINGS:
        full, half = (drawing(images, autocast=autocast) for autocast in (False, True))
        yield (
            f"| {images} | {card} GB | {limit(card):.1f} | {full.standing:.2f} | **{full.peak:.2f}** | {half.peak:.2f} |"
        )
    yield from ["", "| other work, float32 | weights | peak |", "|---|---|---|"]
    for name, peak in coding().items():
        yield f"| {name} | {peak.standing:.2f} | {peak.peak:.2f} |"
    for name, peak in (
        (f"segmenter, {JUDGED} images of {LARGEST} px", judging()),
        ("membership attack, 8 images", attack(8)),
    ):
        yield f"| {name} | {peak.standing:.2f} | {peak.peak:.2f} |"


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    for line in report():
        print(line, flush=True)
