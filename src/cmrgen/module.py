"""The ControlNet LightningModule: only the ControlNet trains; the base stays outside the module and frozen."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import lightning as L
import torch
from diffusers import ControlNetModel
from torch import Tensor

from cmrdata.batch import LatentBatch
from cmrgen.base import load_base
from cmrgen.diffusion import denoise, diffusion_loss, ema_update, stratified_timesteps

# stride-2 stages bring the mask down to the latent's grid: two for f = 4, three for f = 8 (diffusers' default)
CONDITIONING_CHANNELS = {4: (16, 32, 64), 8: (16, 32, 96, 256)}


class ControlNetModule(L.LightningModule):
    """Trains a ControlNet on cached latents (paper 2.2).

    base: arguments of `load_base`. lr: AdamW's (paper: 1e-5 for SD 2.1). gamma: min-SNR, None for plain MSE.
    ema: decay of the averaged copy that is used in the end, 0 for none. prompt_dropout: share of empty prompts.
    """

    def __init__(
        self,
        *,
        base: dict[str, Any],
        lr: float = 1e-5,
        weight_decay: float = 0.01,
        gamma: float | None = None,
        ema: float = 0.0,
        prompt_dropout: float = 0.1,
        warmup: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.base = load_base(**base)
        channels = CONDITIONING_CHANNELS[self.base.factor]
        self.controlnet = ControlNetModel.from_unet(self.base.unet, conditioning_embedding_out_channels=channels)
        self.controlnet.requires_grad_(True)
        self.average = copy.deepcopy(self.controlnet).requires_grad_(False) if ema else None
        self._averaged = 0

    @property
    def best(self) -> ControlNetModel:
        """The network to generate with: the average if there is one."""
        return self.average or self.controlnet

    def on_fit_start(self) -> None:
        self.base.to(self.device)
        self.empty = self.base.embed([""]).float()

    def on_validation_start(self) -> None:
        self.on_fit_start()  # a loaded module is validated without having been fitted

    def on_train_start(self) -> None:
        self._averaged = self.global_step  # a resumed run must not average before its first step

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        # a fresh generator per step: a resumed run draws what an uninterrupted one would have drawn
        draws = torch.Generator().manual_seed(self.hparams.seed * 1_000_003 + self.global_step * 131 + batch_idx % 131)
        loss = self._loss(batch, draws, dropout=self.hparams.prompt_dropout)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        draws = torch.Generator().manual_seed(batch_idx)  # fixed noise and timesteps: curves compare across runs
        loss = self._loss(batch, draws, dropout=0.0, network=self.best)
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch["moments"]))

    def _loss(
        self, batch: LatentBatch, draws: torch.Generator, *, dropout: float, network: ControlNetModel | None = None
    ) -> Tensor:
        n, shape = len(batch["moments"]), (2, len(batch["moments"]), *self.base.latent_shape)
        spread, noise = torch.randn(shape, generator=draws).to(self.device)
        t = stratified_timesteps(n, steps=len(self.base.alphas), generator=draws).to(self.device)
        drop = (torch.rand(n, 1, 1, generator=draws) < dropout).to(self.device)
        x0 = self.base.sample_latent(batch["moments"], spread)
        predict = partial(
            denoise,
            self.base.unet,
            network or self.controlnet,
            control=batch["control"],
            context=torch.where(drop, self.empty, batch["context"]),
        )
        return diffusion_loss(
            predict, x0, noise, t, alphas=self.base.alphas, prediction=self.base.prediction, gamma=self.hparams.gamma
        ).mean()

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average and self.global_step > self._averaged:  # once per optimiser step, not per accumulated batch
            self._averaged = self.global_step
            decay = min(self.hparams.ema, (1 + self.global_step) / (10 + self.global_step))
            ema_update(self.average.parameters(), self.controlnet.parameters(), decay)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.controlnet.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay
        )
        warm = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / (self.hparams.warmup + 1))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm, "interval": "step"}}
