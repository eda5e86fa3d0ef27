"""The frozen latent diffusion base: VAE, text encoder, U-Net and noise schedule behind one
interface.

`Base` is deliberately no nn.Module: held by a LightningModule it is neither trained, nor
checkpointed, nor copied. Where one comes from: cmrgen.base.load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDPMScheduler
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from cmrdata.batch import LatentBatch, ed_es_ed
from cmrgen.base.phases import EVEN, check_channels, three_channels, two_phases
from cmrgen.base.portions import DECODED, ENCODED, PROMPTS, Portions, together
from cmrgen.base.resampling import resampled
from cmrgen.diffusion import diffusion_loss, latent, stratified_timesteps


class Base:
    """VAE, text tower and U-Net with what is needed to use them together; each is loaded when it is
    first used, and `release` gives its memory back.

    `contexts` holds the embeddings, (tokens, width) each, of prompts that are known without the
    tower: the one place where they are kept.

    Args:
        parts: vae, unet, text -> a function that returns the network, which is frozen here.
        schedule: the noise scheduler's config.
        shift, scale: (C, 1, 1), standardise the VAE's latents of C channels.
        pixels: the side of its images.
        factor: pixels per latent cell and side.
        tokens: length of a prompt, which is filled up with token `pad`.
        fingerprint: of all its weights and settings.
        pad: a token's number.
        channels: how ED and ES become three, see cmrgen.base.phases.
    """

    def __init__(
        self,
        *,
        parts: Mapping[str, Callable[[], nn.Module]],
        schedule: dict[str, Any],
        shift: Tensor,
        scale: Tensor,
        pixels: int,
        factor: int,
        tokens: int,
        fingerprint: str,
        pad: int = 0,
        channels: str = EVEN,
    ) -> None:
        self._parts, self._loaded = dict(parts), dict[str, nn.Module]()
        self._places, self._dtypes = dict[str, torch.device](), dict[str, torch.dtype]()
        smaller = "Take a GPU with more memory, or a base of fewer pixels"
        self.encoding = Portions("encoding images", remedy=smaller)
        self.decoding = Portions("decoding images", remedy=smaller)
        self.drawing = Portions(
            "drawing images", remedy=f"precision=bf16-mixed takes less. {smaller}"
        )
        self.contexts: dict[str, Tensor] = {}
        self.device = torch.device("cpu")
        self.schedule, self.shift, self.scale, self.pad = schedule, shift, scale, pad
        self.pixels, self.factor, self.fingerprint = pixels, factor, fingerprint
        self.channels = check_channels(channels, setting="base.channels")
        self.alphas = DDPMScheduler.from_config(schedule).alphas_cumprod
        self.prediction = schedule["prediction_type"]
        self.tokenizer = _tokenizer(tokens)

    vae = property(lambda self: self.part("vae"))
    unet = property(lambda self: self.part("unet"))
    text = property(lambda self: self.part("text"))

    def part(self, name: str) -> Any:
        """A frozen network on the base's device, loaded and moved there if it is not."""
        if name not in self._loaded:
            self._loaded[name] = self._parts[name]().requires_grad_(False).eval()
            self._places[name] = torch.device("cpu")
            self._move(name)
        if self._places[name] != self.device:
            self._move(name)
        return self._loaded[name]

    def _move(self, name: str) -> None:
        # not diffusers' own .to(), which warns of every change of precision
        nn.Module.to(self._loaded[name], self.device, self._dtypes.get(name))
        self._places[name] = self.device

    def release(self, *names: str) -> None:
        """Free the memory of networks that are not needed for now."""
        for name in names:
            if name in self._loaded:
                self._loaded.pop(name).to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return (len(self.scale), self.pixels // self.factor, self.pixels // self.factor)

    def to(self, device: torch.device | str, **dtypes: torch.dtype) -> Base:
        """Choose the device: a network moves to a GPU when it is next used, so that the others take
        no memory there.

        `unet=torch.bfloat16` sets the precision of one network.
        """
        self.device = torch.device(device)
        self._dtypes |= dtypes
        for name in self._loaded:
            if self.device.type == "cpu" or name in dtypes:
                self._move(name)
        self.shift, self.scale = self.shift.to(device), self.scale.to(device)
        self.alphas = self.alphas.to(device)
        return self

    @torch.no_grad()
    def moments(self, images: Tensor) -> Tensor:
        """(B, 2, P, P) uint8 -> (B, 2C, P/f, P/f) mean and log-variance. Cache these, never a
        sample of them."""

        def encoded(portion: slice) -> Tensor:
            rgb = as_rgb(images[portion], self.pixels, channels=self.channels).to(
                self.device, self.vae.dtype
            )
            return self.vae.encode(rgb).latent_dist.parameters.float()

        most = together(self.pixels, ENCODED)
        return self.encoding.run(encoded, len(images), together=most, device=self.device)

    @torch.no_grad()
    def images(self, latents: Tensor) -> Tensor:
        """Standardised latents -> (B, 2, P, P) float32 grey levels, 0 to 255 but for what the
        decoder overshoots.

        In the VAE's own precision, whatever autocast says: bfloat16 would move an image by more
        than a grey level.
        """

        def decoded(portion: slice) -> Tensor:
            z = (latents[portion] / self.scale + self.shift).to(self.vae.dtype)
            with torch.autocast(self.device.type, enabled=False):
                rgb = self.vae.decode(z).sample.float()
            return (two_phases(rgb, self.channels) + 1) * 127.5

        most = together(self.pixels, DECODED)
        return self.decoding.run(decoded, len(latents), together=most, device=self.device)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (n, tokens, width) embeddings, zero-padded tokens included as in training."""
        if all(prompt in self.contexts for prompt in prompts):
            return torch.stack([self.contexts[prompt] for prompt in prompts]).to(self.device)
        portions = [prompts[k : k + PROMPTS] for k in range(0, len(prompts), PROMPTS)]
        return torch.cat([self._embedded(portion) for portion in portions])

    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        tower, tokens = self.text, self.tokenizer(list(prompts)).to(self.device)
        # open_clip fills up with 0; the end token has the highest number, so it comes last
        if self.pad:
            after = torch.arange(tokens.shape[1], device=self.device) > tokens.argmax(
                1, keepdim=True
            )
            tokens = tokens.masked_fill(after, self.pad)
        x = tower.token_embedding(tokens) + tower.positional_embedding
        for block in tower.transformer.resblocks:
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
        """Mean diffusion loss on a batch.

        Args:
            predict: a function of (x, t, context).
            batch: moments and the prompts' embeddings.
            draws: all randomness comes from it.
            empty: (1, tokens, width), the empty prompt's embedding.
            dropout: the proportion of prompts that it replaces.
            gamma: of min-SNR, None for plain squared errors.
        """
        n, device = len(batch["moments"]), batch["moments"].device
        spread, noise = sent(torch.randn((2, n, *self.latent_shape), generator=draws), device)
        t = sent(stratified_timesteps(n, steps=len(self.alphas), generator=draws), device)
        drop = sent(torch.rand(n, 1, 1, generator=draws) < dropout, device)
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


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on another device; a GPU takes it when it has done what it is at, and the
    program need not wait for that."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def as_rgb(images: Tensor, pixels: int, *, channels: str) -> Tensor:
    """(B, 2, P, P) uint8 -> (B, 3, pixels, pixels) in [-1, 1], channels as cmrgen.base.phases has
    them."""
    return resampled(three_channels(images, channels) / 127.5 - 1, pixels).clamp(-1, 1)


def as_control(masks: Tensor, pixels: int) -> Tensor:
    """(B, 2, P, P) labels -> (B, 3, pixels, pixels) in [0, 1]: label / 3 as ED, ES, ED, the
    ControlNet's input."""
    x = ed_es_ed(masks).float() / 3
    return (
        x
        if x.shape[-1] == pixels
        else nn.functional.interpolate(x, size=(pixels, pixels), mode="nearest")
    )


@lru_cache
def _tokenizer(tokens: int) -> SimpleTokenizer:
    return SimpleTokenizer(context_length=tokens)
