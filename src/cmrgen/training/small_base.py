"""Training of a small base from scratch on one cohort: an autoencoder, then a text-conditioned
U-Net on its latents."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from open_clip.transformer import TextTransformer
from torch import Tensor
from torch.utils.data import DataLoader

from cmrdata.batch import LatentBatch
from cmrdata.disk import write_atomic
from cmrdata.store import Store
from cmrgen.base.frozen import Base, as_rgb
from cmrgen.base.phases import EVEN, check_channels
from cmrgen.diffusion import follow
from cmrgen.training.latents import EvenDraws, jitter
from cmrstudy.continuing import Place, batch_seed

# an open_clip tower of random, frozen weights: dozens of prompts need distinct embeddings, not
# language
TEXT = {
    "context_length": 20,
    "vocab_size": 49408,
    "width": 32,
    "heads": 2,
    "layers": 2,
    "output_dim": None,
}
SCHEDULE = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


class AutoencoderModule(L.LightningModule):
    """AutoencoderKL with a factor of 4: L1 + 2 MSE + kl x KL divergence (sizes found on two cores).

    Args:
        channels: of each level.
        lr: learning rate at the peak of the cycle.
        kl: weight of the divergence.
        steps: of the optimiser.
        augment: whether training images are moved and re-windowed a little.
        order: how ED and ES become three channels, see cmrgen.base.phases.
        seed: of the augmentation and of the posterior's samples.
    """

    logs = ("train_loss", "psnr", "val_psnr")

    def __init__(
        self,
        *,
        channels: Sequence[int] = (16, 32, 48),
        lr: float = 2e-3,
        kl: float = 2e-4,
        steps: int = 1000,
        augment: bool = False,
        order: str = EVEN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_channels(order)
        self.save_hyperparameters(logger=False)
        depth = len(channels)
        self.vae = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            latent_channels=4,
            block_out_channels=tuple(channels),
            down_block_types=("DownEncoderBlock2D",) * depth,
            up_block_types=("UpDecoderBlock2D",) * depth,
            layers_per_block=1,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        seed = batch_seed(
            self.hparams.seed, step=self.global_step, batch=batch_idx, rank=self.global_rank
        )
        if self.hparams.augment:
            batch = jitter(batch, batch, np.random.default_rng(seed))[0]
        rgb = as_rgb(batch, batch.shape[-1], channels=self.hparams.order)
        posterior = self.vae.encode(rgb).latent_dist
        error = self.vae.decode(posterior.sample(torch.Generator().manual_seed(seed))).sample - rgb
        # per latent value, as the errors are per pixel
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error.abs().mean() + 2 * error.square().mean() + self.hparams.kl * divergence
        self.log_dict({"train_loss": loss, "psnr": _psnr(error)}, prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        rgb = as_rgb(batch, batch.shape[-1], channels=self.hparams.order)
        error = self.vae.decode(self.vae.encode(rgb).latent_dist.mode()).sample - rgb
        self.log("val_psnr", _psnr(error), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        return _cosine(self.vae.parameters(), lr=self.hparams.lr, steps=self.hparams.steps)


class UnetModule(L.LightningModule):
    """A small text-conditioned U-Net on standardised latents; v-prediction, zero terminal SNR,
    min-SNR weights, EMA.

    Args:
        channels: of each level.
        latent: side of the latents.
        layers: per level.
        lr: learning rate at the peak of the cycle.
        gamma: of min-SNR.
        ema: decay of the average, at most.
        prompt_dropout: proportion of prompts that are replaced by the empty one in training.
        steps: of the optimiser.
        seed: of noise, timesteps and dropped prompts.
    """

    logs = ("train_loss", "val_loss")

    def __init__(
        self,
        *,
        channels: Sequence[int] = (32, 64, 96),
        latent: int = 16,
        layers: int = 1,
        lr: float = 1e-3,
        gamma: float = 5.0,
        ema: float = 0.998,
        prompt_dropout: float = 0.1,
        steps: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.unet = UNet2DConditionModel(
            sample_size=latent,
            in_channels=4,
            out_channels=4,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (len(channels) - 1)),
            up_block_types=(*("CrossAttnUpBlock2D",) * (len(channels) - 1), "UpBlock2D"),
            cross_attention_dim=TEXT["width"],
            attention_head_dim=[max(1, c // 16) for c in channels],
            norm_num_groups=16,
        )
        self.average = copy.deepcopy(self.unet).requires_grad_(False)

    def setup_base(self, base: Base) -> None:
        """Take the frozen parts; they are no submodule, so they are neither trained nor saved with
        this one."""
        self.base, self.empty = base, base.embed([""]).float()

    def training_step(self, batch: LatentBatch, batch_idx: int) -> Tensor:
        # batches and processes of one step differ
        within = batch_idx % self.trainer.accumulate_grad_batches
        seed = self.hparams.seed * 1_000_003 + self.global_step + within * 32_452_843
        draws = torch.Generator().manual_seed(seed + self.global_rank * 15_485_863)
        loss = self._loss(self.unet, batch, draws, dropout=self.hparams.prompt_dropout)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: LatentBatch, batch_idx: int) -> None:
        loss = self._loss(
            self.average, batch, torch.Generator().manual_seed(batch_idx), dropout=0.0
        )
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch["moments"]), sync_dist=True)

    def _loss(
        self,
        unet: UNet2DConditionModel,
        batch: LatentBatch,
        draws: torch.Generator,
        *,
        dropout: float,
    ) -> Tensor:
        def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
            return unet(x, t, encoder_hidden_states=context).sample

        return self.base.loss(
            predict, batch, draws, empty=self.empty, dropout=dropout, gamma=self.hparams.gamma
        )

    def on_fit_start(self) -> None:
        self.base.to(self.device)
        self.empty = self.empty.to(self.device)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        follow(self.average, self.unet, limit=self.hparams.ema, step=self.global_step + 1)

    def configure_optimizers(self) -> Any:
        return _cosine(self.unet.parameters(), lr=self.hparams.lr, steps=self.hparams.steps)


class StoreImages(L.LightningDataModule):
    """uint8 images (B, 2, P, P) of a store, drawn evenly over groups: one epoch is `steps` steps of
    the optimiser.

    Args:
        store: the cohort's.
        splits: whose images are drawn in training.
        steps: of an epoch.
        batch_size: images that every process takes for each of the batches that a step
            accumulates.
        seed: of the draws.
        max_repeats: most draws of an image in a pass of as many draws as there are images; None
            for no cap.
        workers: processes that read batches ahead.
    """

    begin = Place()  # of the training draws; cmrstudy.training.fit sets it
    batch_setting = "data.autoencoder_batch_size"  # where its batch size is set

    def __init__(
        self,
        store: Store,
        *,
        splits: Sequence[str],
        steps: int,
        batch_size: int,
        seed: int,
        max_repeats: float | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.store, self.splits, self.steps, self.batch_size, self.seed = (
            store,
            splits,
            steps,
            batch_size,
            seed,
        )
        self.max_repeats, self.workers = max_repeats, workers

    def train_dataloader(self) -> DataLoader:
        rows = np.flatnonzero(self.store.index.split.isin(self.splits))
        batches = self.steps * self.trainer.accumulate_grad_batches * self.trainer.world_size
        sampler = EvenDraws(
            self.store.index.iloc[rows],
            draws=batches * self.batch_size,
            seed=self.seed,
            begin=self.begin,
            batch_size=self.batch_size,
            max_repeats=self.max_repeats,
        )
        return self._loader(rows, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(np.flatnonzero(self.store.index.split == "val"))

    def _loader(self, rows: np.ndarray, **options: Any) -> DataLoader:
        def collate(at: list[int]) -> Tensor:
            return torch.from_numpy(self.store.images[np.sort(rows[at])])

        options["num_workers"] = self.workers
        return DataLoader(
            range(len(rows)), batch_size=self.batch_size, collate_fn=collate, **options
        )


def text_tower(seed: int) -> TextTransformer:
    """The text tower of TEXT's sizes, its random weights drawn from `seed`."""
    torch.manual_seed(seed)
    return TextTransformer(**TEXT)


def assemble(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: TextTransformer,
    *,
    pixels: int,
    images: Tensor,
    channels: str = EVEN,
) -> Base:
    """Put a base together and standardise its latents.

    Args:
        vae: the trained autoencoder.
        unet: the U-Net, trained or not.
        text: the text tower.
        pixels: the side of the base's images.
        images: (B, 2, P, P) uint8, on which each latent channel gets mean 0 and sd 1.
        channels: how ED and ES become three channels, see cmrgen.base.phases.
    """
    networks: dict[str, torch.nn.Module] = {"vae": vae, "unet": unet, "text": text}
    base = Base(
        parts={name: partial(dict.get, networks, name) for name in networks},
        schedule=dict(SCHEDULE),
        shift=torch.zeros(4, 1, 1),
        scale=torch.ones(4, 1, 1),
        pixels=pixels,
        factor=2 ** (len(vae.config.block_out_channels) - 1),
        tokens=text.context_length,
        fingerprint=_digest(vae, text),
        channels=channels,
    )
    means = base.moments(images).chunk(2, 1)[0]
    base.shift, base.scale = (
        means.mean((0, 2, 3)).view(-1, 1, 1),
        1 / means.std((0, 2, 3)).view(-1, 1, 1),
    )
    return base


def _digest(*networks: torch.nn.Module) -> str:
    """Hash of networks' weights: what is encoded with them is cached by it."""
    digest = hashlib.sha256()
    for network in networks:
        for value in network.state_dict().values():
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_card(folder: Path, *, title: str, facts: dict[str, Any]) -> None:
    """README.md of a base folder: where it comes from, in the words of whoever must trust it."""
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    card = f"# {title}\n\n| fact | value |\n|---|---|\n{rows}\n"
    write_atomic(folder / "README.md", card)


def _psnr(error: Tensor) -> Tensor:
    """dB of an error on the [-1, 1] scale."""
    return 10 * torch.log10(4 / error.float().square().mean())


def _cosine(parameters: Any, *, lr: float, steps: int) -> Any:
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps + 1, pct_start=0.05
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
