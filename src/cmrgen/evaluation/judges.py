"""Networks that judge images: a segmenter and an attribute network, both trained on real training
images only.

They answer whether a synthetic image shows its mask and its prompt. The attribute network's trunk
is also the `domain` backbone of the Frechet distance: features of the cohort's own classifier,
which need no download.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from cmrdata import progress
from cmrdata.axes import learnable_axes, values_in, with_diagnosis
from cmrdata.batch import LABELS
from cmrdata.caches import settled
from cmrdata.disk import fingerprint, write_atomic
from cmrdata.selection import Images, slices
from cmrdata.store import Store
from cmrdata.subjects import balancing_weights
from cmrgen.evaluation.adherence.areas import Areas, areas, nothing

FEATURES = 128  # width of the domain backbone
LARGEST = 128  # px; larger images are judged at this size
VERSION = 1  # raise it when networks or training change: cached judges are then trained anew
Batch = tuple[np.ndarray, np.ndarray, pd.DataFrame]  # images, masks, index rows


class Judges(NamedTuple):
    """Both networks, and how they were made."""

    segmenter: Segmenter
    attributes: AttributeNet
    card: dict[str, Any]  # settings, seconds and steps/s of each

    @property
    def device(self) -> torch.device:
        """Where both run."""
        return next(self.segmenter.parameters()).device


class Judged(NamedTuple):
    """What the judges see in n images: numbers, since segmentations are as large as the images."""

    areas: Areas  # of the segmentations and the images' own masks
    shuffled: Areas | None  # of the segmentations and other images' masks; None where nobody asked
    # axis -> (n,) values of the axis; None where both phases are flat
    predicted: dict[str, np.ndarray]
    features: np.ndarray  # (n, 128) float32
    flat: np.ndarray  # (n, 2) bool: pictures of one grey value, in which nothing is segmented


class Segmenter(nn.Module):
    """U-Net over one phase: (B, 1, P, P) in [-1, 1] -> logits (B, 4, P, P). Its finest level is
    P/2, for speed."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 4 * width]
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(i, o, stride=2), _convolution(o, o))
            for i, o in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _convolution(widths[k] + widths[k + 1], widths[k]) for k in (2, 1, 0)
        )
        self.out = nn.Conv2d(width, 4 * (1 + len(LABELS)), 1)

    def forward(self, x: Tensor) -> Tensor:
        size, x, skips = x.shape[-2:], _sized(x), []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        for level in self.up:
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        x = F.pixel_shuffle(self.out(x), 2)
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear")


class AttributeNet(nn.Module):
    """(B, 2, P, P) in [-1, 1] -> 128 features -> logits per axis. `axes` are the heads, of
    `with_diagnosis`."""

    def __init__(self, axes: list[str], width: int = 16) -> None:
        super().__init__()
        self.axes, widths = list(axes), [2, width, 2 * width, 4 * width, FEATURES]
        self.trunk = nn.Sequential(
            *(_convolution(i, o, stride=2) for i, o in zip(widths, widths[1:], strict=False)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        outputs = {axis: len(with_diagnosis()[axis].bands) for axis in axes}
        self.heads = nn.ModuleDict({axis: nn.Linear(FEATURES, n) for axis, n in outputs.items()})

    def features(self, x: Tensor) -> Tensor:
        return self.trunk(_sized(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        f = self.features(x)
        return {axis: head(f) for axis, head in self.heads.items()}


def _convolution(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


def _sized(x: Tensor) -> Tensor:
    side = max(16, min(x.shape[-1], LARGEST) // 16 * 16)
    return (
        x
        if x.shape[-1] == side
        else F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    )


def codes(index: pd.DataFrame, axis: str) -> np.ndarray:
    """(n,) position of each row's value among the bands of the axis, -1 where it is missing."""
    column = values_in(index, axis)
    place = {value: k for k, value in enumerate(with_diagnosis()[axis].bands)}
    return np.array([place.get(value, -1) for value in column.where(column.notna(), None)])


def judges(
    store: Store,
    *places: str | Path,
    steps: tuple[int, int] = (250, 400),
    batch: tuple[int, int] = (32, 64),
    width: tuple[int, int] = (16, 16),
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Judges:
    """Segmenter and attribute network of the store's train split; pairs are (segmenter, attribute
    network).

    Kept as safetensors beside a JSON card, and re-used when store and settings are the same.

    Args:
        store: the cohort's.
        places: folders to keep them in, the second where the first may not be written; see
            `settled`.
        steps: of training.
        batch: images of a step.
        width: channels of the networks' first layer.
        seed: of weights and batches.
        device: where they are trained and run.

    Raises ValueError when the store has no training rows, or none of the axes varies; Unwritable.
    """
    train = store.index[store.index.split == "train"]
    if train.empty:
        raise ValueError(
            f"{store.folder}: no row of the train split; judges learn from real training images only"
        )
    if not (axes := learnable_axes(train)):
        raise ValueError(
            f"{store.folder}: none of {', '.join(with_diagnosis())} varies among the training rows; add subjects"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks: dict[str, nn.Module] = {
            "segmenter": Segmenter(width[0]),
            "attributes": AttributeNet(axes, width[1]),
        }
    losses: dict[str, Callable[..., Tensor]] = {
        "segmenter": _segmenter_loss,
        "attributes": _attributes_loss,
    }
    card: dict[str, Any] = {}
    for k, (name, network) in enumerate(networks.items()):
        settings = {
            "network": name,
            "store": store.fingerprint,
            "axes": axes,
            "version": VERSION,
            "steps": steps[k],
            "batch": batch[k],
            "width": width[k],
            "seed": seed,
        }
        file = f"{name}-{fingerprint(settings)[:8]}"
        folder = settled([*map(Path, places)], f"{file}.json", f"{file}.safetensors", what="judges")
        weights, told = folder / f"{file}.safetensors", folder / f"{file}.json"
        network.to(device).to(memory_format=torch.channels_last)
        if told.exists():
            network.load_state_dict(load_file(weights, device=str(device)))
            card[name] = json.loads(told.read_text())
        else:
            began, batches = time.monotonic(), _batches(store, train, size=batch[k], seed=seed + k)
            _fit(network, losses[name], batches, steps=steps[k], name=name)
            took = time.monotonic() - began
            card[name] = {
                **settings,
                "seconds": round(took, 1),
                "steps_per_second": round(steps[k] / took, 2),
            }
            write_atomic(
                weights,
                save({key: v.contiguous().cpu() for key, v in network.state_dict().items()}),
            )
            write_atomic(told, json.dumps(card[name], indent=1))
        network.eval().requires_grad_(False)
    return Judges(networks["segmenter"], networks["attributes"], card)  # type: ignore[arg-type]


def judge(
    networks: Judges, images: Images, masks: Images, *, others: Images | None = None, what: str = ""
) -> Judged:
    """What the judges see in images, read a slice at a time.

    Args:
        networks: the judges.
        images: (n, 2, P, P) uint8.
        masks: (n, 2, P, P) labels, each image's own.
        others: the same of other images, which tell what chance reaches.
        what: the images are, for a bar; "" shows none.
    """
    count, heads, device = len(images), networks.attributes.heads, networks.device
    own, chance = nothing(count), None if others is None else nothing(count)
    features, flat = np.empty((count, FEATURES), np.float32), np.empty((count, 2), bool)
    predicted = {axis: np.empty(count, object) for axis in heads}
    with (
        torch.inference_mode(),
        progress.bar(f"judge {what}", total=count if what else 0, unit="images") as advance,
    ):
        for rows in slices(images):
            pixels = np.array(images[rows])
            flat[rows] = pixels.max((-2, -1)) == pixels.min((-2, -1))
            x = signed(pixels, device)
            labels = networks.segmenter(x.flatten(0, 1)[:, None]).argmax(1).view(x.shape).byte()
            labels[torch.from_numpy(flat[rows]).to(device)] = 0
            for counts, given in ((own, masks), (chance, others)):
                if counts is not None and given is not None:
                    wanted = torch.from_numpy(np.array(given[rows])).to(device)
                    for kept, part in zip(counts, areas(labels, wanted), strict=True):
                        kept[rows] = part
            f = networks.attributes.features(x)
            features[rows] = f.cpu().numpy()
            for axis, head in heads.items():
                predicted[axis][rows] = np.array(with_diagnosis()[axis].values, object)[
                    head(f).argmax(1).cpu().numpy()
                ]
            advance(len(pixels))
    for values in predicted.values():
        values[flat.all(1)] = None
    return Judged(own, chance, predicted, features, flat)


class Domain(NamedTuple):
    """The domain backbone: what `backbones.features` asks of a network."""

    network: AttributeNet
    sha256: str  # of its weights
    title: str = "domain"
    width: int = FEATURES
    batch: int = 1024  # images between two writes

    def extract(self, images: Images) -> np.ndarray:
        """(n, 128) float32 features of (n, 2, P, P) uint8 images."""
        device = next(self.network.parameters()).device
        made = np.empty((len(images), FEATURES), np.float32)
        with torch.inference_mode():
            for rows in slices(images):
                made[rows] = (
                    self.network.features(signed(np.array(images[rows]), device)).cpu().numpy()
                )
        return made


def domain(networks: Judges) -> Domain:
    """The attribute network's trunk as a backbone."""
    state = {
        key: value.contiguous().cpu() for key, value in networks.attributes.state_dict().items()
    }
    return Domain(networks.attributes, hashlib.sha256(save(state)).hexdigest())


def layers(networks: Judges, images: np.ndarray) -> Tensor:
    """(n, 2, P, P) uint8 images -> (n, D) float32 whose squared Euclidean distances are LPIPS
    without learned weights.

    Each layer of the attribute network's trunk, scaled to unit length over channels and divided by
    the root of its positions; the square is the mean over positions, summed over layers (Zhang et
    al. 2018, eq. 1 with w = 1).
    """
    parts, device = [], next(networks.attributes.parameters()).device
    with torch.inference_mode():
        x = _sized(signed(np.array(images), device))
        for layer in list(networks.attributes.trunk)[:-2]:  # without the pool
            x = layer(x)
            parts.append((F.normalize(x, dim=1) / math.sqrt(x.shape[-1] * x.shape[-2])).flatten(1))
    return torch.cat(parts, 1).float()


def _fit(
    network: nn.Module,
    loss: Callable[..., Tensor],
    batches: Iterator[Any],
    *,
    steps: int,
    name: str,
) -> None:
    """AdamW with a one-cycle rate: the plain loop, for networks that train in seconds."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 4e-3, total_steps=steps + 1, pct_start=0.2
    )
    network.train()
    for _ in progress.each(range(steps), f"judge: {name}", total=steps, unit="steps"):
        value = loss(network, *next(batches))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()


def _batches(store: Store, rows: pd.DataFrame, *, size: int, seed: int) -> Iterator[Batch]:
    """Endless augmented (images, masks, index rows), every group with equal mass; a mask moves with
    its image."""
    rng, weights = np.random.default_rng(seed), balancing_weights(rows)
    pixels = store.images.shape[-1]
    while True:
        chosen = rows.iloc[rng.choice(len(rows), size, p=weights)]
        reach = max(1, pixels // 16)
        moved = np.arange(pixels) + rng.integers(-reach, reach + 1, (2, size, 1))
        y, x = moved.clip(0, pixels - 1)
        place = (chosen.index.to_numpy()[:, None, None], slice(None), y[:, :, None], x[:, None, :])
        images, masks = (np.moveaxis(array[place], -1, 1) for array in (store.images, store.masks))
        gain, gamma = rng.uniform(0.9, 1.1, (size, 1)), np.exp(rng.uniform(-0.15, 0.15, (size, 1)))
        # new grey value of each old one
        curves = (255 * gain * (np.arange(256) / 255) ** gamma).astype(np.float32)
        noise = rng.standard_normal(images.shape, np.float32) * rng.uniform(
            0, 4, (size, 1, 1, 1)
        ).astype(np.float32)
        noise += curves[np.arange(size)[:, None, None, None], images]
        yield noise.clip(0, 255).astype(np.uint8), masks, chosen


def signed(images: np.ndarray, device: torch.device) -> Tensor:
    x = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def _segmenter_loss(
    network: nn.Module, images: np.ndarray, masks: np.ndarray, rows: pd.DataFrame
) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of the three structures, on one phase of each
    image in turn."""
    device, n = next(network.parameters()).device, np.arange(len(images))
    truth = torch.from_numpy(masks[n, n % 2].astype(np.int64)).to(device)
    logits = network(signed(images[n, n % 2][:, None], device))
    found, wanted = (
        logits.softmax(1)[:, 1:],
        F.one_hot(truth, 1 + len(LABELS)).movedim(-1, 1)[:, 1:],
    )
    overlap, total = (found * wanted).sum((0, 2, 3)), (found + wanted).sum((0, 2, 3))
    return F.cross_entropy(logits, truth) + 1 - (2 * overlap / total.clamp(min=1)).mean()


def _attributes_loss(
    network: nn.Module, images: np.ndarray, masks: np.ndarray, rows: pd.DataFrame
) -> Tensor:
    """Sum over axes of the mean cross-entropy over the rows whose value is known."""
    device = next(network.parameters()).device
    parts = []
    for axis, logits in network(signed(images, device)).items():
        truth = torch.from_numpy(codes(rows, axis)).to(device)
        parts.append(
            F.cross_entropy(logits, truth, ignore_index=-1, reduction="sum")
            / (truth >= 0).sum().clamp(min=1)
        )
    return torch.stack(parts).sum()
