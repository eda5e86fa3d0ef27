"""Image backbones with a fresh head, so that the classifier's module never asks which one it trains."""

from __future__ import annotations

import warnings

from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torchvision.models import get_model

HEADS = {"resnet18": "fc", "densenet121": "classifier"}  # backbone -> name of its last, linear layer


def build_network(backbone: str, *, weights: str | None, classes: int, width: int = 64) -> nn.Module:
    """(B, 3, P, P) float images -> (B, classes) logits.

    `weights="imagenet"` starts from torchvision's ImageNet weights (paper 2.3), downloaded on first use; without a
    network it warns and starts from random ones, as `weights=None` does. `width` is a ResNet-18's first channel count:
    64 is the published network, 16 costs a sixteenth. Raises ValueError naming an unknown value.
    """
    if backbone not in HEADS:
        raise ValueError(f"backbone {backbone!r} is unknown; choose one of {', '.join(HEADS)}")
    if weights not in (None, "imagenet"):
        raise ValueError(f"weights {weights!r} are unknown; choose 'imagenet', or null to train from scratch")
    if width != 64:
        if backbone != "resnet18" or weights:
            raise ValueError(
                f"width {width} goes with backbone resnet18 and weights null, not {backbone} and {weights}"
            )
        channels = tuple(width * 2**k for k in range(4))
        return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=classes, channels=channels, stem_width=width)
    network = _pretrained(backbone) if weights else get_model(backbone)
    head: nn.Linear = getattr(network, HEADS[backbone])
    setattr(network, HEADS[backbone], nn.Linear(head.in_features, classes))
    return network


def _pretrained(backbone: str) -> nn.Module:
    try:
        return get_model(backbone, weights="IMAGENET1K_V1")
    except OSError as error:  # urllib's errors are OSErrors
        warnings.warn(
            f"{backbone}: ImageNet weights can't be downloaded ({error}); training starts from random weights. "
            "Put the file into $TORCH_HOME/hub/checkpoints, or set weights=null to silence this",
            stacklevel=2,
        )
        return get_model(backbone)
