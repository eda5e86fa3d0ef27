"""Can synthetic images be told from real ones, and by what? Classifier two-sample tests, from a
network's to trivial ones.

A Frechet distance in the features of a network trained for something else is blind to what a
classifier would use
first: grey levels, blur, a phase with less detail. Whatever tells the source of an image is a
    shortcut in an arm that
mixes both. Each test is a score per image; its AUC is the chance that a synthetic image scores
higher than a real one (Lopez-Paz & Oquab 2017, with the AUC in place of the accuracy): 0.5 if the
two cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmrdata import progress

DRAWS = 1000  # bootstrap samples of an interval
LEAST = 10  # subjects a side, below which nothing is measured
STEPS = 200  # of the network's training
BATCH = 32  # half of them real
CROP = 64  # px: larger images are shown to the network in parts while it trains, never shrunk
TOGETHER_PIXELS = 2**20  # in one batch of scoring
NETWORK = "network"


class Side(NamedTuple):
    """Images of one kind, and whose they are: a synthetic image's subject is the one whose mask it
    was drawn from."""

    images: np.ndarray  # (n, 2, P, P) uint8
    subjects: np.ndarray  # (n,)


class Auc(NamedTuple):
    """An AUC with its 95 % interval; NaN where a side has fewer than LEAST subjects."""

    value: float
    low: float
    high: float


def clipping(images: np.ndarray) -> np.ndarray:
    """(n,) share of the pixels that are black or white."""
    return ((images == 0) | (images == 255)).mean(axis=(1, 2, 3))


def gradient(images: np.ndarray) -> np.ndarray:
    """(n,) mean absolute difference of neighbouring pixels, grey levels."""
    x = images.astype(np.float32)
    return np.abs(np.diff(x, axis=2)).mean(axis=(1, 2, 3)) + np.abs(np.diff(x, axis=3)).mean(
        axis=(1, 2, 3)
    )


def fine_detail(images: np.ndarray) -> np.ndarray:
    """(n,) root mean square of what smoothing by [1, 2, 1] / 4 along both axes takes away, grey
    levels."""
    return np.sqrt((_detail(images) ** 2).mean(axis=(1, 2, 3)))


def detail_ratio(images: np.ndarray) -> np.ndarray:
    """(n,) logarithm of ED's fine detail over ES's."""
    energy = (_detail(images) ** 2).mean(axis=(2, 3)) + 1e-6  # a flat picture has none
    return np.log(energy[:, 0] / energy[:, 1]) / 2


def brightness(images: np.ndarray) -> np.ndarray:
    """(n,) mean grey value."""
    return images.mean(axis=(1, 2, 3))


def contrast(images: np.ndarray) -> np.ndarray:
    """(n,) standard deviation of the grey values."""
    return images.std(axis=(1, 2, 3))


TRIVIAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clipping": clipping,
    "gradient": gradient,
    "fine detail": fine_detail,
    "detail ratio ED/ES": detail_ratio,
    "mean grey value": brightness,
    "sd of grey values": contrast,
}


def two_sample(
    real: Side,
    synthetic: Side,
    *,
    seed: int,
    steps: int = STEPS,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """Columns test, auc, low, high, n (images a side): the network's first, then the TRIVIAL ones.

    Intervals are percentiles of a bootstrap over subjects. Where a test is right about every pair,
    the bootstrap knows no doubt; then the bound is the exact one for as many independent pairs as
    there are subjects on the smaller side. The network is trained on half of the subjects and
    scores the others, and the other way round; its interval is conditional on those two networks.

    Args:
        real: the real images.
        synthetic: the synthetic ones, as many.
        seed: of the network, the halves and the bootstrap.
        steps: of the network's training.
        device: of the network.
    """
    subjects = np.concatenate([real.subjects, synthetic.subjects])
    is_synthetic = np.arange(len(subjects)) >= len(real.subjects)
    few = min(len(set(side.subjects)) for side in (real, synthetic)) < LEAST
    half = halved(subjects, is_synthetic, seed=seed)
    rows = []
    for name in (NETWORK, *TRIVIAL):
        found = Auc(np.nan, np.nan, np.nan)
        if not few:
            if name == NETWORK:
                scores, parts = (
                    crossed(real, synthetic, half, steps=steps, seed=seed, device=device),
                    half,
                )
            else:
                scores = np.concatenate([TRIVIAL[name](side.images) for side in (real, synthetic)])
                parts = np.zeros(len(scores), int)
            found = auc(scores, is_synthetic, subjects, parts=parts, seed=seed)
        rows.append(
            {
                "test": name,
                "auc": found.value,
                "low": found.low,
                "high": found.high,
                "n": len(real.subjects),
            }
        )
    return pd.DataFrame(rows)


def auc(
    scores: np.ndarray,
    is_synthetic: np.ndarray,
    subjects: np.ndarray,
    *,
    parts: np.ndarray,
    seed: int,
) -> Auc:
    """The chance that a synthetic image's score (n,) is higher than a real one's; pairs are of the
    same of the `parts`.

    Value and interval are the means of the parts' own: two networks that were trained on each
    other's test images err together, so that their mean is no more certain than one of them.
    """
    each = [
        _auc(scores[of], is_synthetic[of], subjects[of], rng=np.random.default_rng([seed, 2, part]))
        for part, of in ((part, parts == part) for part in np.unique(parts))
    ]
    return Auc(*np.mean(each, axis=0).tolist())


def _auc(
    scores: np.ndarray, is_synthetic: np.ndarray, subjects: np.ndarray, *, rng: np.random.Generator
) -> Auc:
    codes, names = pd.factorize(subjects)
    level = np.unique(scores, return_inverse=True)[1].ravel()
    value = _weighted(level, is_synthetic, np.ones(len(level)))
    even = np.full(len(names), 1 / len(names))
    draws = [
        _weighted(level, is_synthetic, rng.multinomial(len(names), even)[codes])
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(draws, (0.025, 0.975)).tolist()
    pairs = min(len(set(subjects[is_synthetic])), len(set(subjects[~is_synthetic])))
    doubt = 0.025 ** (1 / pairs)  # Clopper and Pearson's bound of a share of 1
    return Auc(
        value, min(low, doubt) if value == 1 else low, max(high, 1 - doubt) if value == 0 else high
    )


def _weighted(level: np.ndarray, is_synthetic: np.ndarray, weights: np.ndarray) -> float:
    """The AUC of ranks (n,) from 0, an image counting `weights` times; NaN where a side has no
    weight."""
    real, made = (
        np.bincount(level, weights * side, level.max() + 1)
        for side in (~is_synthetic, is_synthetic)
    )
    pairs = real.sum() * made.sum()
    return float(made @ (np.cumsum(real) - real / 2)) / pairs if pairs else np.nan


def halved(subjects: np.ndarray, is_synthetic: np.ndarray, *, seed: int) -> np.ndarray:
    """(n,) 0 or 1, the same for all images of a subject; of either kind's subjects a half each."""
    rng, half = np.random.default_rng([seed, 1]), dict[str, int]()
    for side in (~is_synthetic, is_synthetic):
        names = [name for name in pd.unique(subjects[side]) if name not in half]
        half |= {names[k]: place % 2 for place, k in enumerate(rng.permutation(len(names)))}
    return np.array([half[name] for name in subjects])


class Detector(nn.Module):
    """(B, 2, P, P) in [-1, 1] -> (B,) logit of being synthetic. Its first layers see single pixels,
    for textures."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [2, width, 2 * width, 4 * width]
        layers = [
            nn.Sequential(
                nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
            )
            for i, o, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        ]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x))[:, 0]


def crossed(
    real: Side,
    synthetic: Side,
    half: np.ndarray,
    *,
    steps: int,
    seed: int,
    device: str | torch.device,
) -> np.ndarray:
    """(n,) scores of real and synthetic images, each by the network that was trained on the other
    half."""
    sides = np.split(half, [len(real.subjects)])
    scores = np.empty(len(half))
    for part in (0, 1):
        shown = [side.images[of != part] for side, of in zip((real, synthetic), sides, strict=True)]
        network = trained(*shown, steps=steps, seed=seed + part, device=device)
        asked = [side.images[of == part] for side, of in zip((real, synthetic), sides, strict=True)]
        scores[half == part] = np.concatenate([scored(network, images) for images in asked])
    return scores


def trained(
    real: np.ndarray, synthetic: np.ndarray, *, steps: int, seed: int, device: str | torch.device
) -> Detector:
    """A detector of synthetic images, in evaluation mode; half of each batch is real."""
    rng = np.random.default_rng([seed, 3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detector().to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-2, total_steps=steps + 1, pct_start=0.2
    )
    batches = _batches(real, synthetic, rng)
    for _ in progress.each(range(steps), "two-sample test", total=steps, unit="steps"):
        images, labels = next(batches)
        loss = F.binary_cross_entropy_with_logits(
            network(_signed(images, device)), labels.to(device)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _batches(
    real: np.ndarray, synthetic: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, Tensor]]:
    labels, pixels = torch.arange(BATCH) >= BATCH // 2, real.shape[-1]
    while True:
        y, x = rng.integers(0, max(0, pixels - CROP) + 1, 2)
        part = (..., slice(y, y + CROP), slice(x, x + CROP))
        yield (
            np.concatenate(
                [side[rng.integers(0, len(side), BATCH // 2)][part] for side in (real, synthetic)]
            ),
            labels.float(),
        )


def scored(network: Detector, images: np.ndarray) -> np.ndarray:
    """(n,) logits of whole images (n, 2, P, P) uint8."""
    device, size = (
        next(network.parameters()).device,
        max(1, TOGETHER_PIXELS // images.shape[-1] ** 2),
    )
    with torch.inference_mode():
        parts = [
            network(_signed(images[k : k + size], device)).cpu().numpy()
            for k in range(0, len(images), size)
        ]
    return np.concatenate(parts or [np.empty(0)])


def _signed(images: np.ndarray, device: str | torch.device) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def _detail(images: np.ndarray) -> np.ndarray:
    """(n, 2, P, P) images less their smoothed copies; edges are repeated."""
    x = images.astype(np.float32)
    smooth: np.ndarray = x
    for axis in (2, 3):
        ends = [(1, 1) if k == axis else (0, 0) for k in range(4)]
        wide = np.moveaxis(np.pad(smooth, ends, mode="edge"), axis, 0)
        smooth = np.moveaxis((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4, 0, axis)
    return x - smooth
