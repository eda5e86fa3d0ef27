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
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from cmrcls.mitigation import (
    HEADS,
    LOSSES,
    over_processes,
    robust_mean,
    sample_losses,
    weighted_mean,
)
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

    `images` (B, C, P, P) float in [0, 1], phases or frames. Each axis is flipped with probability
    `flips`, in all of them alike; half of the images get noise of standard deviation `noise_std`.
    Without a generator (of the images' device) the global seed decides.
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
    wrong = ValueError(
        f"model.normalisation={normalisation}: give auto, or [mean, sd] of images in [0, 1], such as [0.5, 0.25] or "
        "[[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]"
    )
    if normalisation == "auto":
        return torch.tensor(network.origin.mean), torch.tensor(network.origin.std)
    if (
        isinstance(normalisation, str)
        or not isinstance(normalisation, Sequence)
        or len(normalisation) != 2
    ):
        raise wrong
    try:
        mean, std = (
            torch.tensor(value, dtype=torch.float32).expand(3).clone() for value in normalisation
        )
    except (TypeError, ValueError, RuntimeError):
        raise wrong from None
    if not (mean.isfinite().all() and (std > 0).all()):
        raise wrong
    return mean, std


def check_input(backbone: str, *, frames: int) -> None:
    """Raise ValueError unless the backbone sees what an image's `frames` are: 2 (ED, ES), or more
    of a heartbeat."""
    if backbone in VIDEO and frames == 2:
        raise ValueError(
            f"backbone {backbone} sees videos, but the images are pairs of ED and ES; choose input=cine (cohort.cine=16), or "
            "another backbone such as resnet18"
        )
    if backbone not in VIDEO and frames != 2:
        raise ValueError(
            f"backbone {backbone} sees ED and ES, but the images have {frames} frames (cohort.cine={frames}); choose one of "
            f"{', '.join(VIDEO)}, or input=stack"
        )


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """Mean recall of a (true, predicted) count matrix: (TPR + TNR) / 2, paper eq. 1; NaN when a
    class is absent."""
    return (confusion.diagonal() / confusion.sum(1)).mean()


class Classifier(L.LightningModule):
    """Healthy or diseased, from the ED/ES stack of one slice; several `labels` are told side by
    side, a sigmoid each.

    A video `backbone` (`network.VIDEO`) sees the heartbeat of one slice instead, which a cohort
    with `cine` gives; ValueError where the one meets the other.

    `pixels`: side the images are scaled to (224, the backbone's own; paper 2.3). `normalisation`:
    see `normalised_by`; it is kept with the weights. `plateau_patience`: validated epochs without a
    better validation loss after which the learning rate is halved. `flips`: probability per axis, 0
    switches it off. `width`: see `build_network`. `noise_std` in units of the full intensity range.
    `weight_decay` is AdamW's.

    Mitigations that know the `groups` of the training rows (`Arms.groups`): `loss` "weighted" gives
    every group equal mass, "groupdro" follows the worst one with step `eta` (`robust_mean`).
    `heads` "per_group": each domain trains a linear head of its own (Wang et al. 2020); a
    prediction takes the mean of all heads' logits, their inference without a known domain (argmax_y
    sum_d s(y, d, x)). `channels_last` and `compile` change the speed only.

    `seed` and the place of a batch in the training decide its augmentation, so a resumed run draws
    as an uninterrupted one.

    Batches are LabelledBatch; logs train_loss (with the mitigation), val_loss (without, so that
    curves compare) and val_balanced_accuracy, the mean over the diseases of which validation holds
    both classes (NaN: none).
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
        loss: str = "mean",
        heads: str = "one",
        eta: float = 0.01,
        groups: Sequence[Mapping[str, Any]] = (),
        channels_last: bool = False,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if plateau_patience < 1:
            raise ValueError(
                f"plateau_patience is {plateau_patience} epochs; it must be at least 1"
            )
        if (loss, heads) == (LOSSES[0], HEADS[0]):
            groups = ()  # nothing to know about them
        self.save_hyperparameters(logger=False)
        self.pixels, self.noise_std, self.flips = pixels, noise_std, flips
        self.lr, self.weight_decay, self.plateau_patience = lr, weight_decay, plateau_patience
        self.labels, self.loss, self.eta, self.seed = tuple(labels), loss, eta, seed
        self.backbone = backbone
        self.outputs = 2 if len(labels) == 1 else len(labels)
        self._know(groups, loss=loss, heads=heads)
        classes = self.domains * self.outputs
        self.network = build_network(
            backbone, weights=weights, classes=classes, width=width, pixels=pixels
        )
        mean, std = normalised_by(normalisation, self.network)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        last = torch.channels_last_3d if backbone in VIDEO else torch.channels_last
        self.memory_format = last if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)
        if compile:
            self.network.compile()
        # a 2 x 2 block per disease
        self.confusion = MulticlassConfusionMatrix(2 * len(labels), validate_args=False)
        self.epoch_loss = torch.zeros(2)  # of the epoch's batches so far: sum over images, images

    def _know(self, groups: Sequence[Mapping[str, Any]], *, loss: str, heads: str) -> None:
        """Group weights and domains, where loss or heads need them."""
        for key, value, choices in (("loss", loss, LOSSES), ("heads", heads, HEADS)):
            if value not in choices:
                raise ValueError(f"{key}={value!r} is unknown; choose one of {', '.join(choices)}")
        if not groups and (loss, heads) != (LOSSES[0], HEADS[0]):
            raise ValueError(
                f"loss={loss}, heads={heads}: the groups are missing; give the arm's (Arms.groups)"
            )
        self.domains = 1
        if loss != "mean":
            start = [group["weight"] if loss == "weighted" else 1 / len(groups) for group in groups]
            self.register_buffer("group_weight", torch.tensor(start))
        if heads == "per_group":
            names = sorted({group["domain"] for group in groups})
            if len(names) < 2:
                raise ValueError(
                    f"heads=per_group: all training rows are of one domain, {names[0] or 'nothing known'!r}; "
                    "choose another mitigation, or a cohort that knows sex, age or BMI"
                )
            self.domains = len(names)
            of_group = torch.tensor([names.index(group["domain"]) for group in groups])
            self.register_buffer("domain", of_group, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, [T,] pixels, pixels) as `to_input` makes them -> (B, outputs) logits, the mean
        over the heads."""
        logits = self.network(images)
        return (
            logits
            if self.domains == 1
            else logits.unflatten(1, (self.domains, self.outputs)).mean(1)
        )

    def on_after_batch_transfer(self, batch: LabelledBatch, dataloader_idx: int) -> LabelledBatch:
        return batch if self.training else {**batch, "image": self.seen(batch["image"])}

    def seen(self, images: Tensor, draws: torch.Generator | None = None) -> Tensor:
        """What the network sees of uint8 images (B, C, P, P); augmented by `draws` where there are
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
        loss, _ = self._loss({**batch, "image": self.seen(batch["image"], draws)}, "training")
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
        decided = logits.argmax(1)[:, None] if len(self.labels) == 1 else (logits > 0).long()
        true = batch["label"].view(decided.shape)
        self.confusion.update((block + decided).flatten(), (block + true).flatten())
        self.log("val_loss", loss, prog_bar=True, batch_size=len(true), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        counts = self.confusion.compute()  # pooled over batches and processes
        scores = torch.stack(
            [balanced_accuracy(counts[k : k + 2, k : k + 2]) for k in range(0, len(counts), 2)]
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
        return {"optimizer": optimiser, "lr_scheduler": watch}  # type: ignore[typeddict-item]

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
        training = stage == "training"
        logits = self._own_head(batch) if training and self.domains > 1 else self(batch["image"])
        # each takes logits; the reference code had a softmax before its cross-entropy
        if not training or self.loss == "mean":
            loss = sample_losses(logits, batch["label"])
        elif self.loss == "weighted":
            losses = sample_losses(logits, batch["label"], reduction="none")
            loss = weighted_mean(losses, batch["group"], weight=self.group_weight)
        else:
            losses = sample_losses(logits, batch["label"], reduction="none")
            loss, weight = robust_mean(
                losses, batch["group"], weight=self.group_weight, eta=self.eta
            )
        if not loss.isfinite():
            raise FloatingPointError(
                f"{stage} loss is {loss.item()} at epoch {self.current_epoch}, step {self.global_step}; "
                f"lower lr (now {self.lr:g}), or train with trainer.precision=32 if it was less"
            )
        if training and self.loss == "groupdro":
            self.group_weight.copy_(weight)
        return loss, logits

    def _own_head(self, batch: LabelledBatch) -> Tensor:
        """(B, outputs) logits, each of the head of its row's domain."""
        logits = self.network(batch["image"]).unflatten(1, (self.domains, self.outputs))
        return logits[torch.arange(len(logits), device=logits.device), self.domain[batch["group"]]]


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
