"""The evaluation networks: a segmenter and an attribute network, both trained on real training
images only. judges.py asks them what images show."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmrdata import progress
from cmrdata.axes import values_in, with_diagnosis
from cmrdata.batch import LABELS
from cmrdata.store import Store
from cmrdata.subjects import balancing_weights

FEATURES = 128  # width of the domain backbone
LARGEST = 128  # px; larger images are judged at this size
NETWORKS_VERSION = 1  # raise it when networks or training change: kept ones are then trained anew
Batch = tuple[np.ndarray, np.ndarray, pd.DataFrame]  # images, masks, index rows
Loss = Callable[[nn.Module, np.ndarray, np.ndarray, pd.DataFrame], Tensor]


class Segmenter(nn.Module):  # type: ignore[misc]  # torch has no types here
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
        size, x, skips = x.shape[-2:], resized(x), []
        for level in self.down:
            x = level(x)
            skips.append(x)
        skips.pop()
        for level in self.up:
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], 1))
        x = F.pixel_shuffle(self.out(x), 2)
        return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear")


class AttributeNet(nn.Module):  # type: ignore[misc]  # torch has no types here
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
        return self.trunk(resized(x))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        f = self.features(x)
        return {axis: head(f) for axis, head in self.heads.items()}


def _convolution(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


def resized(x: Tensor) -> Tensor:
    """(B, C, P, P) at the side that the networks work at: at most LARGEST, a multiple of 16."""
    side = max(16, min(x.shape[-1], LARGEST) // 16 * 16)
    return (
        x
        if x.shape[-1] == side
        else F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    )


def signed(images: np.ndarray, device: torch.device | str) -> Tensor:
    """uint8 images -> float32 in [-1, 1] on a device."""
    x = torch.from_numpy(np.require(images, requirements=["C", "W"])).to(device).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def head_codes(index: pd.DataFrame, axis: str) -> np.ndarray:
    """(n,) position of each row's value among the bands of the axis, -1 where it is missing."""
    column = values_in(index, axis)
    place = {value: k for k, value in enumerate(with_diagnosis()[axis].bands)}
    return np.array([place.get(value, -1) for value in column.where(column.notna(), None)])


def fit_network(
    network: nn.Module, loss: Loss, batches: Iterator[Batch], *, steps: int, name: str
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


def augmented_batches(store: Store, rows: pd.DataFrame, *, size: int, seed: int) -> Iterator[Batch]:
    """Endless augmented (images, masks, index rows), every group with equal weight; a mask moves
    with its image."""
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


def segmenter_loss(
    network: nn.Module, images: np.ndarray, masks: np.ndarray, rows: pd.DataFrame
) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of the three structures, on one phase of each
    image in turn."""
    device, n = next(network.parameters()).device, np.arange(len(images))
    labels = torch.from_numpy(masks[n, n % 2].astype(np.int64)).to(device)
    logits = network(signed(images[n, n % 2][:, None], device))
    predicted = logits.softmax(1)[:, 1:]
    true = F.one_hot(labels, 1 + len(LABELS)).movedim(-1, 1)[:, 1:]
    overlap, total = (predicted * true).sum((0, 2, 3)), (predicted + true).sum((0, 2, 3))
    return F.cross_entropy(logits, labels) + 1 - (2 * overlap / total.clamp(min=1)).mean()


def attributes_loss(
    network: nn.Module, images: np.ndarray, masks: np.ndarray, rows: pd.DataFrame
) -> Tensor:
    """Sum over axes of the mean cross-entropy over the rows whose value is known."""
    device = next(network.parameters()).device
    parts = []
    for axis, logits in network(signed(images, device)).items():
        labels = torch.from_numpy(head_codes(rows, axis)).to(device)
        parts.append(
            F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
            / (labels >= 0).sum().clamp(min=1)
        )
    return torch.stack(parts).sum()
