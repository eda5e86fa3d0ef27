"""The ControlNet LightningModule: only the ControlNet trains; the base stays outside the module and frozen."""

from __future__ import annotations

import copy
from typing import Any

import lightning as L
import torch
from diffusers import ControlNetModel
from torch import Tensor

from cmrdata.batch import LatentBatch
from cmrgen.base import load_base
from cmrgen.diffusion import denoise, follow

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

    @property
    def best(self) -> ControlNetModel:
        """The network to generate with: the average if there is one."""
        return self.average or self.controlnet

    def on_fit_start(self) -> None:
        self.base.to(self.device)
        self.empty = self.base.embed([""]).float()

    def on_validation_start(self) -> None:
        self.on_fit_start()  # a loaded module is validated without having been fitted

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
        def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            control = batch["control"]
            return denoise(self.base.unet, network or self.controlnet, x, t, context=context, control=control)

        return self.base.loss(predict, batch, draws, empty=self.empty, dropout=dropout, gamma=self.hparams.gamma)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average:
            follow(self.average, self.controlnet, limit=self.hparams.ema, step=self.global_step + 1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.controlnet.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay
        )
        warm = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / (self.hparams.warmup + 1))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm, "interval": "step"}}
