"""Image backbones with a fresh head, so that the classifier's module never asks which one it trains."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from difflib import get_close_matches

import timm
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torchvision.models import get_model

HEADS = {"resnet18": "fc", "densenet121": "classifier"}  # torchvision's: name of the last, linear layer
VIDEO = {"r3d_18": "fc", "r2plus1d_18": "fc", "mc3_18": "fc", "swin3d_t": "head"}  # torchvision's for videos
PUBLISHED = {"imagenet": "IMAGENET1K_V1", "kinetics": "KINETICS400_V1"}


def build_network(backbone: str, *, weights: str | None, classes: int, width: int = 64) -> nn.Module:
    """`_network`, with `started_from`: "random", or the published weights' name and a hash of what was loaded."""
    network, loaded = _network(backbone, weights=weights, classes=classes, width=width)
    network.started_from = f"{weights} {_weights_hash(network)}" if loaded else "random"
    return network


def _weights_hash(network: nn.Module) -> str:
    """Of everything but the last layer, which is new."""
    digest = hashlib.sha256()
    for value in list(network.state_dict().values())[:-2]:
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _network(backbone: str, *, weights: str | None, classes: int, width: int) -> tuple[nn.Module, bool]:
    """(B, 3, P, P) float images, or (B, 3, T, P, P) videos, -> (B, classes) logits.

    `backbone`: one of HEADS or for videos of VIDEO, as torchvision has them, or any other model of timm.
    `weights="imagenet"`, for videos "kinetics" (Kinetics-400), starts from published weights (paper 2.3), downloaded on
    first use; without a network it warns and starts from random ones, as `weights=None` does. `width` is a ResNet-18's
    first channel count: 64 is the published network, 16 costs a sixteenth. Raises ValueError naming an unknown value.
    """
    heads = HEADS | VIDEO
    if backbone not in heads and not timm.is_model(backbone):
        near = get_close_matches(backbone, [*heads, *timm.list_models()], n=4)
        raise ValueError(
            f"backbone {backbone!r} is unknown; choose one of {', '.join([*HEADS, *(n for n in near if n not in HEADS)])}"
            f" or another model of timm, for videos (input=cine) {', '.join(VIDEO)}"
        )
    known = "kinetics" if backbone in VIDEO else "imagenet"
    if weights not in (None, known):
        raise ValueError(
            f"weights {weights!r} are unknown for {backbone}; choose {known!r}, or null to train from scratch"
        )
    if width != 64:
        if backbone != "resnet18" or weights:
            raise ValueError(
                f"width {width} goes with backbone resnet18 and weights null, not {backbone} and {weights}"
            )
        channels = tuple(width * 2**k for k in range(4))
        return ResNet(BasicBlock, (2, 2, 2, 2), num_classes=classes, channels=channels, stem_width=width), False
    if backbone not in heads:
        return _created(
            backbone,
            lambda pretrained: timm.create_model(backbone, pretrained=pretrained, num_classes=classes),
            pretrained=weights is not None,
        )
    network, loaded = _created(
        backbone,
        lambda pretrained: get_model(backbone, weights=PUBLISHED[known] if pretrained else None),
        pretrained=weights is not None,
    )
    head: nn.Linear = getattr(network, heads[backbone])
    setattr(network, heads[backbone], nn.Linear(head.in_features, classes))
    return network, loaded


def _created(backbone: str, create: Callable[[bool], nn.Module], *, pretrained: bool) -> tuple[nn.Module, bool]:
    """The network, and whether it has its published weights."""
    if not pretrained:
        return create(False), False
    try:
        return create(True), True
    except RuntimeError as error:  # timm: "No pretrained weights exist for ...", "Invalid pretrained tag ..."
        raise ValueError(f"backbone {backbone}: {error} Set weights=null, or choose another name") from None
    except OSError as error:  # urllib's errors, and those of the hub that timm asks
        warnings.warn(
            f"{backbone}: published weights can't be downloaded ({' '.join(str(error).split())}); training starts from "
            "random weights. Put the file into the cache of torch or Hugging Face, or set weights=null to silence this",
            stacklevel=4,
        )
        return create(False), False
