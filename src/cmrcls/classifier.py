"""The heart-failure classifier of paper 2.3: one backbone, cross-entropy, augmentation on the
batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from cmrcls.mitigation.groups import Group
from cmrcls.mitigation.heads import ONE_HEAD
from cmrcls.mitigation.losses import MEAN, over_processes, sample_losses
from cmrcls.mitigation.parts import build_part
from cmrcls.network import VIDEO, build_network
from cmrdata.batch import LabelledBatch, ed_es_ed
from cmrstudy import runs
from cmrstudy.checkpoints import check_fits, fingerprint_of, read_checkpoint
from cmrstudy.continuing import batch_seed

NOISY = 0.5  # share of training images that get noise

# Lightning remarks that the module, not the DataModule, prepares the batch: that is meant, the
# model owns its input.
warnings.filterwarnings(
    "ignore", message="You have overridden `on_after_batch_transfer` in `LightningModule`"
)


def augment(
    images: Tensor, *, flips: float, noise_std: float, generator: torch.Generator | None = None
) -> Tensor:
    """Random flips and Gaussian noise (paper 2.3), drawn per image; shape and labels stay.

    Args:
        images: (B, C, P, P) float in [0, 1], phases or frames.
        flips: probability of each axis; all phases of an image are flipped alike.
        noise_std: standard deviation of the noise, which half of the images get.
        generator: of the images' device; without one the global seed decides.
    """
    device = images.device
    draw = torch.rand(3, len(images), 1, 1, 1, device=device, generator=generator)
    images = torch.where(draw[0] < flips, images.flip(-1), images)
    images = torch.where(draw[1] < flips, images.flip(-2), images)
    noise = torch.randn(images.shape, device=device, generator=generator)
    return images + noise_std * noise * (draw[2] < NOISY)


def to_input(
    images: Tensor, *, pixels: int, mean: Tensor | float = 0.5, std: Tensor | float = 0.25
) -> Tensor:
    """(B, 2, P, P) in [0, 1] -> (B, 3, pixels, pixels): bilinear, channels ED, ES, ED, (x - mean) /
    std.

    More than two channels are the frames of a heartbeat: (B, T, P, P) -> (B, 3, T, pixels, pixels),
    grey.

    Args:
        images: phases or frames.
        pixels: side of what the network sees.
        mean: as the network expects it, a number or (3,).
        std: the same.
    """
    if images.shape[-1] != pixels:
        images = F.interpolate(
            images, size=(pixels, pixels), mode="bilinear", antialias=images.shape[-1] > pixels
        )
    images = ed_es_ed(images) if images.shape[1] == 2 else images[:, None].expand(-1, 3, -1, -1, -1)
    each = (-1, *[1] * (images.ndim - 2))
    mean, std = (value.view(each) if isinstance(value, Tensor) else value for value in (mean, std))
    return (images - mean) / std


def normalised_by(normalisation: str | Sequence[Any], network: Any) -> tuple[Tensor, Tensor]:
    """(mean, sd), (3,) each, of `normalisation`: "auto" is what the network's weights expect, or
    [mean, sd] given.

    Raises ValueError for anything else.
    """
    refusal = ValueError(
        f"model.normalisation={normalisation}: give auto, or [mean, sd] of images in [0, 1], such "
        "as [0.5, 0.25] or [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]"
    )
    if normalisation == "auto":
        return torch.tensor(network.origin.mean), torch.tensor(network.origin.std)
    if (
        isinstance(normalisation, str)
        or not isinstance(normalisation, Sequence)
        or len(normalisation) != 2
    ):
        raise refusal
    try:
        mean, std = (
            torch.tensor(value, dtype=torch.float32).expand(3).clone() for value in normalisation
        )
    except (TypeError, ValueError, RuntimeError):
        raise refusal from None
    if not (mean.isfinite().all() and (std > 0).all()):
        raise refusal
    return mean, std


def check_input(backbone: str, *, frames: int) -> None:
    """Raise ValueError unless the backbone sees what an image's `frames` are: 2 (ED, ES), or more
    of a heartbeat."""
    if backbone in VIDEO and frames == 2:
        raise ValueError(
            f"backbone {backbone} sees videos, but the images are pairs of ED and ES; choose "
            "input=cine (cohort.cine=16), or another backbone such as resnet18"
        )
    if backbone not in VIDEO and frames != 2:
        raise ValueError(
            f"backbone {backbone} sees ED and ES, but the images have {frames} frames "
            f"(cohort.cine={frames}); choose one of {', '.join(VIDEO)}, or input=stack"
        )


def mean_recall(confusion: Tensor) -> Tensor:
    """Mean recall of a (true, predicted) count matrix: (TPR + TNR) / 2, paper eq. 1; NaN when a
    class is absent."""
    return (confusion.diagonal() / confusion.sum(1)).mean()


class Classifier(L.LightningModule):
    """Healthy or diseased, from the ED/ES stack of one slice; several diseases are learnt side by
    side, a sigmoid each.

    Batches are LabelledBatch. It logs train_loss (with the mitigation), val_loss (without, so that
    curves compare) and val_balanced_accuracy, the mean over the diseases of which validation holds
    both classes (NaN: none).

    Args:
        backbone: see `build_network`. A video one (`network.VIDEO`) sees the heartbeat of one slice
            instead, which a cohort with `cine` gives.
        weights: published ones to start from; see `build_network`.
        width: see `build_network`.
        pixels: side the images are scaled to (224, the backbone's own; paper 2.3).
        normalisation: see `normalised_by`; it is kept with the weights.
        lr: learning rate.
        weight_decay: AdamW's; 0 is Adam.
        plateau_patience: validated epochs without a better validation loss, after which the
            learning rate is halved.
        noise_std: in units of the full intensity range; see `augment`.
        flips: probability per axis; 0 switches it off.
        labels: names of the diseases.
        loss: makes one loss of those of a training batch's images, as `mitigation.losses` do: its
            class as `_target_` and its settings, which the checkpoint keeps, or a module, which
            load_from_checkpoint is given again.
        heads: makes (B, outputs) of the network's logits, as `mitigation.heads` do; given alike.
        groups: of the training rows (`Arms.groups`), where loss or heads are given as settings.
        channels_last: changes the speed only.
        compile: changes the speed only.
        seed: with a batch's place in the training it decides the augmentation, so that a resumed
            run draws as an uninterrupted one.

    Raises:
        ValueError: for a backbone, weights, width or normalisation that can't be; and for images
            that are not what the backbone sees.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnet18",
        weights: str | None = None,
        width: int = 64,
        pixels: int = 224,
        normalisation: str | Sequence[Any] = "auto",
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        plateau_patience: int = 3,
        noise_std: float = 0.05,
        flips: float = 0.5,
        labels: Sequence[str] = ("hf",),
        loss: Mapping[str, Any] | nn.Module = MEAN,
        heads: Mapping[str, Any] | nn.Module = ONE_HEAD,
        groups: Sequence[Group] = (),
        channels_last: bool = False,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if plateau_patience < 1:
            raise ValueError(
                f"plateau_patience is {plateau_patience} epochs; it must be at least 1"
            )
        parts = {"loss": loss, "heads": heads}
        modules = [name for name, part in parts.items() if isinstance(part, nn.Module)]
        self.save_hyperparameters(ignore=modules, logger=False)
        self.pixels, self.noise_std, self.flips = pixels, noise_std, flips
        self.lr, self.weight_decay, self.plateau_patience = lr, weight_decay, plateau_patience
        self.labels, self.seed, self.backbone = tuple(labels), seed, backbone
        self.outputs = 2 if len(labels) == 1 else len(labels)
        self.loss = loss if isinstance(loss, nn.Module) else build_part(loss, groups=groups)
        self.heads = heads if isinstance(heads, nn.Module) else build_part(heads, groups=groups)
        classes = self.heads.domains * self.outputs
        self.network = build_network(
            backbone, weights=weights, classes=classes, width=width, pixels=pixels
        )
        mean, std = normalised_by(normalisation, self.network)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        layout = torch.channels_last_3d if backbone in VIDEO else torch.channels_last
        self.memory_format = layout if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        if compile:
            self.network.compile()
        # a 2 x 2 block per disease
        self.confusion = MulticlassConfusionMatrix(2 * len(labels), validate_args=False)
        self.epoch_loss = torch.zeros(2)  # of the epoch's batches so far: sum over images, images

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, [T,] pixels, pixels) as `to_input` makes them -> (B, outputs) logits, which take
        nobody's group into account."""
        logits: Tensor = self.heads(self.network(images))
        return logits

    def on_after_batch_transfer(self, batch: LabelledBatch, dataloader_idx: int) -> LabelledBatch:
        return batch if self.training else {**batch, "image": self.network_input(batch["image"])}

    def network_input(self, images: Tensor, draws: torch.Generator | None = None) -> Tensor:
        """uint8 images (B, C, P, P) as the network sees them; augmented by `draws` where there are
        some."""
        check_input(self.backbone, frames=images.shape[1])
        images = images.float() / 255
        if draws is not None:
            images = augment(images, flips=self.flips, noise_std=self.noise_std, generator=draws)
        images = to_input(images, pixels=self.pixels, mean=self.mean, std=self.std)
        return images.contiguous(memory_format=self.memory_format)

    def training_step(self, batch: LabelledBatch, batch_idx: int) -> Tensor:
        seed = batch_seed(self.seed, step=self.global_step, batch=batch_idx, rank=self.global_rank)
        draws = torch.Generator(batch["image"].device).manual_seed(seed)
        images = self.network_input(batch["image"], draws)
        loss, _ = self._loss({**batch, "image": images}, "training")
        n = len(batch["label"])
        self.epoch_loss = self.epoch_loss.to(loss.device) + torch.stack(
            [n * loss.detach(), loss.new_tensor(n)]
        )
        return loss

    def on_train_epoch_end(self) -> None:
        total, images = over_processes(self.epoch_loss)
        self.log("train_loss", total / images, prog_bar=True, sync_dist=True)
        self.epoch_loss = torch.zeros(2)

    def validation_step(self, batch: LabelledBatch, batch_idx: int) -> None:
        loss, logits = self._loss(batch, "validation")
        block = 2 * torch.arange(len(self.labels), device=logits.device)
        predicted = logits.argmax(1)[:, None] if len(self.labels) == 1 else (logits > 0).long()
        true = batch["label"].view(predicted.shape)
        self.confusion.update((block + predicted).flatten(), (block + true).flatten())
        self.log("val_loss", loss, prog_bar=True, batch_size=len(true), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        counts = self.confusion.compute()  # pooled over batches and processes
        scores = torch.stack(
            [mean_recall(counts[k : k + 2, k : k + 2]) for k in range(0, len(counts), 2)]
        )
        if len(scores) > 1:
            self.log_dict(
                {
                    f"val_balanced_accuracy_{name}": score
                    for name, score in zip(self.labels, scores, strict=True)
                },
                sync_dist=True,
            )
        self.log("val_balanced_accuracy", scores.nanmean(), prog_bar=True, sync_dist=True)
        self.confusion.reset()

    def predict_step(
        self, batch: LabelledBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Tensor]:
        """row (B,) int64 of the arm's index, probability of disease (B,) float32, or (B, diseases)
        of several."""
        logits = self(batch["image"]).float()
        probability = logits.softmax(1)[:, 1] if len(self.labels) == 1 else logits.sigmoid()
        return {"row": batch["row"], "probability": probability}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        # 0: Adam
        optimiser = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=0.5,
            # torch counts the epochs it forgives; the next one halves
            patience=self.plateau_patience - 1,
        )
        every, trainer = 1, self._trainer
        if trainer is not None:
            if not trainer.enable_validation:  # nothing to watch
                return optimiser
            every = trainer.check_val_every_n_epoch or 1
        # not strict: with some val_check_interval the first validation comes after the first epoch
        watch = {"scheduler": scheduler, "monitor": "val_loss", "frequency": every, "strict": False}
        return {"optimizer": optimiser, "lr_scheduler": watch}

    @property
    def logs(self) -> tuple[str, ...]:
        """Names of the metrics, for callbacks that watch one."""
        each = (
            [f"val_balanced_accuracy_{name}" for name in self.labels]
            if len(self.labels) > 1
            else []
        )
        return ("train_loss", "val_loss", "val_balanced_accuracy", *each)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # the state is inside: loading must not download ImageNet's
        checkpoint["hyper_parameters"]["weights"] = None
        checkpoint["epoch_loss"] = over_processes(self.epoch_loss).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank == 0:  # it is the sum over all processes
            self.epoch_loss = checkpoint.get("epoch_loss", self.epoch_loss)

    def _loss(self, batch: LabelledBatch, stage: str) -> tuple[Tensor, Tensor]:
        # each loss takes logits; the reference code had a softmax before its cross-entropy
        if stage == "training":
            logits = self.heads(self.network(batch["image"]), batch["group"])
            losses = sample_losses(logits, batch["label"], reduction="none")
            loss = self.loss(losses, batch["group"])
        else:
            logits = self(batch["image"])
            loss = sample_losses(logits, batch["label"])
        if not loss.isfinite():
            raise FloatingPointError(
                f"{stage} loss is {loss.item()} at epoch {self.current_epoch}, step "
                f"{self.global_step}; lower lr (now {self.lr:g}), or train with "
                "trainer.precision=32 if it was less"
            )
        return loss, logits


def start_from(module: Classifier, source: Path) -> str:
    """Put another classifier's network, and the normalisation that it has learnt with, into
    `module` before its first step.

    Args:
        module: an untrained one.
        source: the folder of a finished classifier run, whose best epoch is taken, or a .ckpt file.

    Returns:
        The fingerprint of the weights.

    Raises:
        FileNotFoundError: when there is nothing, or no finished run.
        ValueError: for another kind of network, other shapes, or a damaged file.
    """
    name = f"weights={source}"
    if source.is_dir():
        runs.facts(source)
    file = source / "checkpoints" / "best.ckpt" if source.is_dir() else source
    if source.is_dir() and not file.exists():
        raise FileNotFoundError(
            f"{name}: no classifier's run, {file.relative_to(source)} is not there"
        )
    state = read_checkpoint(file, source=name)["state_dict"]
    inner = {
        key.partition(".")[2]: value for key, value in state.items() if key.startswith("network.")
    }
    check_fits(module.network, inner or state, source=name)
    module.network.load_state_dict(inner or state)
    for name in ("mean", "std"):
        if inner and name in state and module.hparams["normalisation"] == "auto":
            getattr(module, name).copy_(state[name])
    return fingerprint_of(inner or state)
