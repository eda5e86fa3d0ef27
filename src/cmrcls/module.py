"""The heart-failure classifier of paper 2.3: one backbone, plain cross-entropy, augmentation on the batch."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from cmrcls.network import build_network
from cmrdata.batch import LabelledBatch, ed_es_ed

CLASSES = 2  # healthy, diseased
NOISY = 0.5  # share of training images that get noise

# Lightning remarks that the module, not the DataModule, prepares the batch: that is meant, the model owns its input.
warnings.filterwarnings("ignore", message="You have overridden `on_after_batch_transfer` in `LightningModule`")


def augment(images: Tensor, *, flips: float, noise_std: float, generator: torch.Generator | None = None) -> Tensor:
    """Random flips and Gaussian noise (paper 2.3), drawn per image; shape and labels stay.

    `images` (B, 2, P, P) float in [0, 1]. Each axis is flipped with probability `flips`, both phases alike; half of
    the images get noise of standard deviation `noise_std`. Without a generator the global seed decides.
    """
    device = images.device
    draw = torch.rand(3, len(images), 1, 1, 1, device=device, generator=generator)
    images = torch.where(draw[0] < flips, images.flip(-1), images)
    images = torch.where(draw[1] < flips, images.flip(-2), images)
    noise = torch.randn(images.shape, device=device, generator=generator)
    return images + noise_std * noise * (draw[2] < NOISY)


def to_input(images: Tensor, *, pixels: int) -> Tensor:
    """(B, 2, P, P) in [0, 1] -> (B, 3, pixels, pixels): bilinear, channels ED, ES, ED, (x - 0.5) / 0.25."""
    if images.shape[-1] != pixels:
        images = F.interpolate(images, size=(pixels, pixels), mode="bilinear", antialias=images.shape[-1] > pixels)
    return (ed_es_ed(images) - 0.5) / 0.25


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """Mean recall of a (true, predicted) count matrix: (TPR + TNR) / 2, paper eq. 1; NaN when a class is absent."""
    return (confusion.diagonal() / confusion.sum(1)).mean()


class Classifier(L.LightningModule):
    """Healthy or diseased, from the ED/ES stack of one slice.

    `pixels`: side the images are scaled to (224, the backbone's own; paper 2.3). `plateau_patience`: epochs without
    a better validation loss after which the learning rate is halved. `flips`: probability per axis, 0 switches it off.
    `width`: see `build_network`. `noise_std` in units of the full intensity range. Batches are LabelledBatch; logs train_loss, val_loss and
    val_balanced_accuracy (NaN while validation holds one class).
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet18",
        weights: str | None = None,
        width: int = 64,
        pixels: int = 224,
        lr: float = 1e-4,
        plateau_patience: int = 3,
        noise_std: float = 0.05,
        flips: float = 0.5,
    ) -> None:
        super().__init__()
        if plateau_patience < 1:
            raise ValueError(f"plateau_patience is {plateau_patience} epochs; it must be at least 1")
        self.save_hyperparameters()
        self.pixels, self.noise_std, self.flips = pixels, noise_std, flips
        self.lr, self.plateau_patience = lr, plateau_patience
        self.network = build_network(backbone, weights=weights, classes=CLASSES, width=width)
        self.confusion = MulticlassConfusionMatrix(CLASSES, validate_args=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, pixels, pixels) as `to_input` makes them -> (B, 2) logits."""
        return self.network(images)

    def on_after_batch_transfer(self, batch: LabelledBatch, dataloader_idx: int) -> LabelledBatch:
        images = batch["image"].float() / 255
        if self.training:
            images = augment(images, flips=self.flips, noise_std=self.noise_std)
        return {**batch, "image": to_input(images, pixels=self.pixels)}

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        loss, _ = self._loss(batch, "training")
        n = len(batch["label"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=n, sync_dist=True)
        return loss

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        loss, logits = self._loss(batch, "validation")
        self.confusion.update(logits.argmax(1), batch["label"])
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch["label"]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        score = balanced_accuracy(self.confusion.compute())  # pooled over batches and processes
        self.log("val_balanced_accuracy", score, prog_bar=True, sync_dist=True)
        self.confusion.reset()

    def predict_step(self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """row (B,) int64 of the arm's index, probability (B,) float32 of disease."""
        return {"row": batch["row"], "probability": self(batch["image"]).float().softmax(1)[:, 1]}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimiser = torch.optim.Adam(self.parameters(), lr=self.lr)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=0.5,
            patience=self.plateau_patience - 1,  # torch counts the epochs it forgives; the next one halves
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["hyper_parameters"]["weights"] = None  # the state is inside: loading must not download ImageNet's

    def _loss(self, batch: LabelledBatch, stage: str) -> tuple[Tensor, Tensor]:
        logits = self(batch["image"])
        loss = F.cross_entropy(logits, batch["label"])  # takes logits; the reference code had a softmax before it
        if not loss.isfinite():
            raise FloatingPointError(
                f"{stage} loss is {loss.item()} at epoch {self.current_epoch}, step {self.global_step}; "
                f"lower lr (now {self.lr:g}), or train with trainer.precision=32 if it was less"
            )
        return loss, logits
