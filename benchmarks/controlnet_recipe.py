"""The peer of controlnet_step.py: the training loop of diffusers'
examples/controlnet/train_controlnet.py, on a cohort.

As there: VAE, text tower and U-Net frozen in the run's precision and always at hand, each image and
mask prepared when it is drawn, image and prompt encoded in every step, AdamW on the ControlNet's
single-precision weights, norms clipped to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ControlNetModel, DDPMScheduler
from diffusers.optimization import get_scheduler
from machine import now, peak_memory
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from cmrdata.batch import ed_es_ed
from cmrgen.base.frozen import Base
from cmrgen.training.controlnet import CONDITIONING_CHANNELS
from cmrgen.training.latents import EvenDraws, Latents

LR = 1e-5  # paper 2.2


@dataclass
class Setting:
    """What the arms share. dtype: bfloat16 means mixed precision. warm: steps before the clock
    starts."""

    base: Base
    data: Latents
    device: torch.device
    dtype: torch.dtype
    steps: int
    warm: int


class Recipe:
    """Networks, optimiser and one step of the loop."""

    def __init__(self, at: Setting) -> None:
        self.at, base = at, at.base
        base.contexts.clear()
        base.to(at.device, vae=at.dtype, unet=at.dtype, text=at.dtype)
        self.vae, self.unet, _ = base.vae, base.unet, base.text
        torch.manual_seed(0)
        with at.device:
            self.controlnet = ControlNetModel.from_unet(
                self.unet, conditioning_embedding_out_channels=CONDITIONING_CHANNELS[base.factor]
            )
        self.controlnet.to(at.device, torch.float32).train().requires_grad_(True)
        self.schedule = DDPMScheduler.from_config(base.schedule)
        self.optimizer = torch.optim.AdamW(self.controlnet.parameters(), lr=LR, weight_decay=1e-2)
        self.rates = get_scheduler("constant", self.optimizer)

    def batches(self, size: int, steps: int) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """(images in [-1, 1], masks in [0, 1], prompts)."""
        data, side = self.at.data, self.at.base.pixels
        centre, tensor = transforms.CenterCrop(side), transforms.ToTensor()
        image = transforms.Compose(
            [transforms.Resize(side), centre, tensor, transforms.Normalize([0.5], [0.5])]
        )
        nearest = transforms.Resize(side, interpolation=transforms.InterpolationMode.NEAREST)
        mask = transforms.Compose([nearest, centre, tensor])

        def picture(array: Any) -> Image.Image:
            return Image.fromarray(ed_es_ed(array).transpose(1, 2, 0))

        def collate(at: list[int]) -> tuple[Tensor, Tensor, list[str]]:
            rows = data.rows[data.train_rows[at]]
            images = torch.stack([image(picture(data.store.images[row])) for row in rows])
            masks = torch.stack([mask(picture(data.store.masks[row] * 85)) for row in rows])
            return images, masks, data.table.prompt.iloc[data.train_rows[at]].tolist()

        draws = EvenDraws(data.table.iloc[data.train_rows], draws=size * steps, seed=0)
        return iter(
            DataLoader(
                range(len(data.train_rows)), sampler=draws, batch_size=size, collate_fn=collate
            )
        )  # type: ignore[arg-type]

    def loss(self, images: Tensor, masks: Tensor, words: list[str]) -> Tensor:
        base, device, dtype = self.at.base, self.at.device, self.at.dtype
        with torch.no_grad():
            latents = self.vae.encode(images.to(device, dtype)).latent_dist.sample().float()
            latents = (latents - base.shift) * base.scale
            context = base.embed(words)
        noise = torch.randn_like(latents)
        t = torch.randint(
            0, self.schedule.config.num_train_timesteps, (len(latents),), device=device
        )
        noisy = self.schedule.add_noise(latents, noise, t).to(dtype)
        with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
            down, middle = self.controlnet(
                noisy,
                t,
                encoder_hidden_states=context,
                controlnet_cond=masks.to(device, dtype),
                return_dict=False,
            )
        predicted = self.unet(
            noisy,
            t,
            encoder_hidden_states=context,
            down_block_additional_residuals=[residual.to(dtype) for residual in down],
            mid_block_additional_residual=middle.to(dtype),
        ).sample
        epsilon = self.schedule.config.prediction_type == "epsilon"
        target = noise if epsilon else self.schedule.get_velocity(latents, noise, t)
        return torch.nn.functional.mse_loss(predicted.float(), target.float())

    def step(self, *batch: Any) -> float:
        loss = self.loss(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.controlnet.parameters(), 1.0)
        self.optimizer.step()
        self.rates.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach().item()


def recipe(at: Setting, batch: int) -> tuple[float, float, list[float]]:
    """One turn of the recipe: (seconds of the steps, peak GiB, losses)."""
    begun, losses = now(at.device), list[float]()
    with peak_memory(at.device) as peak:
        loop = Recipe(at)
        for some in loop.batches(batch, at.warm + at.steps):
            if len(losses) == at.warm:
                begun = now(at.device)
            losses.append(loop.step(*some))
        ended = now(at.device)
    at.base.release("vae", "unet", "text")
    return ended - begun, peak.gib, losses


def recipe_flops(at: Setting) -> float:
    """Counted operations of a step on one image, the optimiser's left out."""
    loop = Recipe(at)
    some = next(loop.batches(1, 1))
    with FlopCounterMode(display=False) as counter:
        loop.loss(*some).backward()
    at.base.release("vae", "unet", "text")
    return counter.get_total_flops()
