"""Features of images by published networks, from weights files the user gives; computed once and
kept beside the images."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

from cmrdata.batch import ed_es_ed
from cmrdata.caches import cache_folder
from cmrdata.row_cache import RowFile, filled
from cmrdata.store import Store
from cmrgen.evaluation.fidelity.inception import inception_network

BATCH = 32  # images per forward pass; an interrupted making loses one at most
VERSION = 1  # raise it when the networks see other pixels: kept features are then computed anew
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)  # [0, 1] to [-1, 1]
RADIMAGENET = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
State = dict[str, Tensor]


class Backbone(NamedTuple):
    """A published network and the pixels it was trained on."""

    title: str
    file: str  # as published
    # network with these weights; KeyError or RuntimeError when they are others
    build: Callable[[State], nn.Module]
    side: int  # px
    # mean and sd per channel of an image in [0, 1]
    scale: tuple[tuple[float, ...], tuple[float, ...]]
    antialias: bool


class Extractor(NamedTuple):
    """A network with its weights, ready for images."""

    network: nn.Module
    width: int  # of a feature
    sha256: str  # of the weights file
    of: Backbone

    @property
    def title(self) -> str:
        return self.of.title

    @property
    def batch(self) -> int:
        return BATCH

    def extract(self, images: np.ndarray) -> np.ndarray:
        return extracted_features(self, images)


class Featuring(Protocol):
    """A network whose features are kept: an Extractor, or the judges' own trunk."""

    @property
    def title(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def batch(self) -> int:
        """Images between two writes."""
        ...

    def extract(self, images: np.ndarray) -> np.ndarray:
        """(n, width) float32 features of (n, 2, P, P) uint8 images."""
        ...


def dinov2(state: State) -> nn.Module:
    """A ViT with LayerScale, its class token as feature; positions are resampled from 518 to 224
    px.

    Takes the published state dict and timm's; small, base and large differ by the width alone.
    """
    state = {key: value for key, value in state.items() if key != "mask_token"}
    width, patch = (
        state["patch_embed.proj.weight"].shape[0],
        state["patch_embed.proj.weight"].shape[-1],
    )
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    network = VisionTransformer(
        img_size=BACKBONES["dinov2"].side,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=max(1, width // 64),
        num_classes=0,
        init_values=1.0,
    )
    grid = network.patch_embed.grid_size
    state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], list(grid), num_prefix_tokens=1)
    return _loaded(network, state)


def swav(state: State) -> nn.Module:
    """SwAV's ResNet-50 without its projection head and prototypes."""
    state = {key.removeprefix("module."): value for key, value in state.items()}
    return _resnet(
        {k: v for k, v in state.items() if not k.startswith(("projection_head", "prototypes"))}
    )


def radimagenet(state: State) -> nn.Module:
    """RadImageNet's ResNet-50: torchvision's, published as the children of a sequence
    ("backbone.4.0.conv1.weight")."""
    named = {}
    for key, value in state.items():
        place, dot, rest = key.removeprefix("module.").removeprefix("backbone.").partition(".")
        named[RADIMAGENET.get(place, place) + dot + rest] = value
    return _resnet(named)


def _resnet(state: State) -> nn.Module:
    network = resnet50()
    network.fc = nn.Identity()
    return _loaded(
        network, {key: value for key, value in state.items() if not key.startswith("fc.")}
    )


def _loaded(network: nn.Module, state: State) -> nn.Module:
    network.load_state_dict(state)
    return network


BACKBONES = {
    "inception": Backbone(
        "Inception",
        "pt_inception-2015-12-05-6726825d.pth",
        inception_network,
        299,
        HALF,
        antialias=False,
    ),
    "dinov2": Backbone(
        "DINOv2", "dinov2_vits14_pretrain.pth", dinov2, 224, IMAGENET, antialias=True
    ),
    "swav": Backbone("SwAV", "swav_800ep_pretrain.pth.tar", swav, 224, IMAGENET, antialias=True),
    "radimagenet": Backbone("RadImageNet", "ResNet50.pt", radimagenet, 224, HALF, antialias=True),
}


def extractor(name: str, weights: str | Path, *, device: torch.device | str = "cpu") -> Extractor:
    """A published network with the weights of a local file, ready for images.

    Args:
        name: of BACKBONES.
        weights: safetensors, or a torch state dict (also one below "state_dict"), which is read
            without running code.
        device: where the network runs.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for an unknown name, a damaged file, or weights of another network, naming what
            is missing.
    """
    if name not in BACKBONES:
        raise ValueError(
            f"backbone {name!r} is unknown; there is {', '.join(BACKBONES)}, and domain without "
            "weights"
        )
    of, path = BACKBONES[name], Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no {of.title} weights here; give the published {of.file}, or null to leave "
            "it out"
        )
    state = _state(path, of)
    try:
        network = of.build(state).eval().requires_grad_(False).to(device)
    except (KeyError, RuntimeError) as error:
        reason = (
            str(error)
            if isinstance(error, RuntimeError)
            else f"Missing key(s) in state_dict: {error}"
        )
        lines = ", ".join(" ".join(reason.split()).split(", ")[:4])
        raise ValueError(
            f"{path.name} holds other weights than {of.title}'s ({of.file}): {lines[:300]} ... It "
            f"has {len(state)} tensors, the first is {next(iter(state), 'none')!r}"
        ) from error
    with torch.inference_mode():
        width = network(torch.zeros(1, 3, of.side, of.side, device=device)).shape[1]
    with path.open("rb") as file:
        return Extractor(network, width, hashlib.file_digest(file, "sha256").hexdigest(), of)


def _state(path: Path, of: Backbone) -> State:
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, "cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path.name} cannot be read as {of.title} weights: damaged, or more than tensors, "
            "which might run code; download it again, or save its state dict alone"
        ) from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(
            f"{path.name} is not a state dict of tensors; save {of.title}'s state dict alone"
        )
    return dict(content)


def network_input(images: np.ndarray, of: Backbone, *, device: str = "cpu") -> Tensor:
    """(n, 2, P, P) uint8 -> (n, 3, side, side) as the backbone takes it: [ED, ES, ED], bilinear,
    normalised."""
    x = torch.from_numpy(np.ascontiguousarray(ed_es_ed(images))).to(device).float() / 255
    x = F.interpolate(x, size=(of.side, of.side), mode="bilinear", antialias=of.antialias)
    mean, sd = (torch.tensor(values, device=device)[:, None, None] for values in of.scale)
    return (x - mean) / sd


def extracted_features(by: Extractor, images: np.ndarray) -> np.ndarray:
    """(n, width) float32 features of (n, 2, P, P) uint8 images."""
    device = str(next(by.network.parameters()).device)
    features = np.empty((len(images), by.width), np.float32)
    with torch.inference_mode():
        for k in range(0, len(images), BATCH):
            features[k : k + BATCH] = (
                by.network(network_input(np.array(images[k : k + BATCH]), by.of, device=device))
                .cpu()
                .numpy()
            )
    return features


def kept_features(
    store: Store, rows: np.ndarray, by: Featuring, *, places: Sequence[Path] = ()
) -> np.ndarray:
    """(len(rows), width) float32 features of these rows of a set, opened for reading; computed on
    first use.

    One file for the set's fingerprint, the rows, the network and its weights; with a progress bar,
    continued if interrupted, made anew if its length is wrong.

    Args:
        store: the set.
        rows: of it, in any order.
        by: the network.
        places: folders to keep the file in, see `cache_folder`; by default <store>/features.

    Raises Unwritable when there is no room.
    """
    if not len(rows):
        return np.empty((0, by.width), np.float32)
    what = f"{store.fingerprint} {by.sha256} {VERSION} {np.asarray(rows, np.int64).tobytes().hex()}"
    name = f"{by.title.lower()}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.f32"
    folder = cache_folder(places or [store.folder / "features"], name, what=f"{by.title} features")
    file = RowFile(folder / name, np.float32, (by.width,))
    if file.path.exists() and file.path.stat().st_size != len(rows) * file.row:
        file.path.unlink()
    return filled(
        [file],
        count=len(rows),
        batch=by.batch,
        what=f"{by.title} features",
        make=lambda some: [by.extract(store.images[rows[some]])],
    )[0]
