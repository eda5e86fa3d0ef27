"""What can be told of a classifier's settings without importing torch."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from cmrstudy import processes
from cmrstudy.identity import names_file

WIDTH = 64  # channels of the published ResNet-18


def own_width(backbone: str, weights: str | None, *, width: int) -> str | None:
    """Why a preset's `width` doesn't count for a network, as a sentence; None where it does.

    A width is a ResNet-18's that starts from random weights; every other network has its own.
    """
    if width == WIDTH:
        return None
    if backbone != "resnet18":
        return f"preset.classifier_width={width} is a ResNet-18's; {backbone} has its own width"
    if weights:
        start = "published weights from a file" if names_file(weights) else f"{weights}'s weights"
        return (
            f"preset.classifier_width={width} is for training from scratch; {start} have width "
            f"{WIDTH}, which is taken"
        )
    return None


def settle_width(cfg: DictConfig) -> None:
    """Let a preset's width give way to a network that has its own, and print why; one that was
    asked for is refused later."""
    model = cfg.model
    if OmegaConf.is_interpolation(model, "width") and (
        why := own_width(model.backbone, model.weights, width=model.width)
    ):
        model.width = WIDTH
        if not processes.follows(cfg.trainer):
            print(why)
