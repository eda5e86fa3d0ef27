"""Image backbones with a fresh head, so that the classifier's module never asks which one it trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from difflib import get_close_matches

import timm
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torchvision.models import get_model

HEADS = {"resnet18": "fc", "densenet121": "classifier"}  # torchvision's: name of the last, linear layer


def build_network(backbone: str, *, weights: str | None, classes: int, width: int = 64) -> nn.Module:
    """(B, 3, P, P) float images -> (B, classes) logits.

    `backbone`: one of HEADS, as torchvision has them, or any other model of timm. `weights="imagenet"` starts from
    ImageNet weights (paper 2.3), downloaded on first use; without a network it warns and starts from random ones, as
    `weights=None` does. `width` is a ResNet-18's first channel count: 64 is the published network, 16 costs a
    sixteenth. Raises ValueError naming an unknown value.
    """
    if backbone not in HEADS and not timm.is_model(backbone):
        near = get_close_matches(backbone, [*HEADS, *timm.list_models()], n=4)
        raise ValueError(
            f"backbone {backbone!r} is unknown; choose one of {', '.join([*HEADS, *(n for n in near if n not in HEADS)])}"
            " or another model of timm"
        )
    if weights not in (None, "imagenet"):
        raise ValueError(f"weights {weights!r} are unknown; choose 'imagenet', or null to train from scratch")
    if width != 64:
        if backbone != "resnet18" or weights:
            raise ValueError(
                f"width {width} goes with backbone resnet18 and weights null, not {backbone} and {weights}"
            )
        channels = tuple(width * 2**k for k in range(4))
        return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=classes, channels=channels, stem_width=width)
    if backbone not in HEADS:
        return _created(
            backbone,
            lambda pretrained: timm.create_model(backbone, pretrained=pretrained, num_classes=classes),
            pretrained=weights is not None,
        )
    network = _created(
        backbone,
        lambda pretrained: get_model(backbone, weights="IMAGENET1K_V1" if pretrained else None),
        pretrained=weights is not None,
    )
    head: nn.Linear = getattr(network, HEADS[backbone])
    setattr(network, HEADS[backbone], nn.Linear(head.in_features, classes))
    return network


def _created(backbone: str, create: Callable[[bool], nn.Module], *, pretrained: bool) -> nn.Module:
    if not pretrained:
        return create(False)
    try:
        return create(True)
    except RuntimeError as error:  # timm: "No pretrained weights exist for ...", "Invalid pretrained tag ..."
        raise ValueError(f"backbone {backbone}: {error} Set weights=null, or choose another name") from None
    except OSError as error:  # urllib's errors, and those of the hub that timm asks
        warnings.warn(
            f"{backbone}: ImageNet weights can't be downloaded ({' '.join(str(error).split())}); training starts from "
            "random weights. Put the file into the cache of torch or Hugging Face, or set weights=null to silence this",
            stacklevel=3,
        )
        return create(False)
