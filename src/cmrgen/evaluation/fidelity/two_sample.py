"""Can synthetic images be told from real ones, and by what? Classifier two-sample tests, from a
network's to trivial ones.

A Fréchet distance in the features of a network trained for something else is blind to what a
classifier would use first: grey levels, blur, a phase with less detail. Whatever tells the source
of an image is a shortcut in an arm that mixes both. Each test is a score per image; its AUC is the
chance that a synthetic image scores higher than a real one (Lopez-Paz & Oquab 2017, with the AUC in
place of the accuracy): 0.5 if the two cannot be told apart.
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
from cmrdata.counting import number_of
from cmrdata.mix import equal_mix
from cmrgen.evaluation.judges import Evaluation
from cmrgen.evaluation.networks import signed

REPLICATES = 1000  # of the bootstrap
MIN_SUBJECTS = 10  # a side, below which nothing is measured
STEPS = 200  # of the network's training
BATCH = 32  # half of them real
CROP = 64  # px: larger images are shown to the network in parts while it trains, never shrunk
TOGETHER_PIXELS = 2**20  # in one batch of scoring
NETWORK = "network"
ENOUGH = 50  # images a side, for which slices besides the central one are left out
MAX_IMAGES = 1000  # a side


class ImagesOfPeople(NamedTuple):
    """Images of one kind, and whose they are: a synthetic image's subject is the one whose mask it
    was drawn from."""

    images: np.ndarray  # (n, 2, P, P) uint8
    subjects: np.ndarray  # (n,)


class Auc(NamedTuple):
    """An AUC with its 95 % interval; NaN where a side has fewer than MIN_SUBJECTS subjects."""

    value: float
    low: float
    high: float


class MatchedImages(NamedTuple):
    """Which images are compared, and how they were chosen."""

    real: np.ndarray  # (n,) rows of the cohort
    synthetic: np.ndarray  # (n,) rows of the set
    sentence: str


def clipping(images: np.ndarray) -> np.ndarray:
    """(n,) share of the pixels that are black or white."""
    return _mean((images == 0) | (images == 255))


def gradient(images: np.ndarray) -> np.ndarray:
    """(n,) mean absolute difference of neighbouring pixels, grey levels."""
    x = images.astype(np.float32)
    return np.asarray(_mean(np.abs(np.diff(x, axis=2))) + _mean(np.abs(np.diff(x, axis=3))))


def fine_detail(images: np.ndarray) -> np.ndarray:
    """(n,) root mean square of what smoothing by [1, 2, 1] / 4 along both axes takes away, grey
    levels."""
    return np.asarray(np.sqrt(_mean(_detail(images) ** 2)))


def detail_ratio(images: np.ndarray) -> np.ndarray:
    """(n,) logarithm of ED's fine detail over ES's."""
    energy = (_detail(images) ** 2).mean(axis=(2, 3)) + 1e-6  # a flat picture has none
    return np.asarray(np.log(energy[:, 0] / energy[:, 1]) / 2)


def brightness(images: np.ndarray) -> np.ndarray:
    """(n,) mean grey value."""
    return _mean(images)


def contrast(images: np.ndarray) -> np.ndarray:
    """(n,) standard deviation of the grey values."""
    return np.asarray(images.std(axis=(1, 2, 3)))


TRIVIAL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "clipping": clipping,
    "gradient": gradient,
    "fine detail": fine_detail,
    "detail ratio ED/ES": detail_ratio,
    "mean grey value": brightness,
    "sd of grey values": contrast,
}


def matched_images(evaluation: Evaluation, *, seed: int) -> MatchedImages:
    """Held-out real images and synthetic ones of equal group mix, central slices alone where that
    leaves ENOUGH.

    Held-out people are in the store with their central slice alone. Where groups are too few to
    match, diagnoses are.
    """
    cohort, synthetic = evaluation.cohort.index, evaluation.synthetic_set.index
    real = cohort.iloc[evaluation.held_out]
    central = cohort.central.to_numpy(bool)[synthetic.source_row.to_numpy()]
    best = MatchedImages(np.empty(0, int), np.empty(0, int), "")
    for column, words in (("group", "of each group"), ("label", "with and without the disease")):
        for slices, chosen in (
            ("central slices only", np.flatnonzero(central)),
            ("all slices", np.arange(len(synthetic))),
        ):
            rng = np.random.default_rng([seed, 4])
            left, right = equal_mix(real[column], synthetic[column].iloc[chosen], rng)
            if len(left) > MAX_IMAGES:  # of sorted sides: the mix stays nearly equal
                left, right = (
                    side[np.sort(rng.choice(len(side), MAX_IMAGES, replace=False))]
                    for side in (left, right)
                )
            if len(left) > len(best.real):
                sentence = (
                    f"{number_of(len(left), 'images')} a side, equally many {words}; synthetic "
                    f"images of {slices}."
                )
                best = MatchedImages(evaluation.held_out[left], chosen[right], sentence)
            if len(best.real) >= ENOUGH:
                return best
    return best


def set_and_floor_tests(
    evaluation: Evaluation, matched: MatchedImages, *, steps: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tests of the set, and those of the real images that its masks belong to.

    Args:
        evaluation: the set and its cohort.
        matched: the images that are compared.
        steps: of the network's training.
        seed: of everything drawn.
    """
    cohort, synthetic_set = evaluation.cohort, evaluation.synthetic_set
    chosen = synthetic_set.index.iloc[matched.synthetic]
    subjects, sources = chosen.subject.to_numpy(), chosen.source_row.to_numpy()
    real = ImagesOfPeople(
        cohort.images[matched.real], cohort.index.subject.to_numpy()[matched.real]
    )
    synthetic, floor = (
        two_sample_tests(
            real, ImagesOfPeople(images, subjects), steps=steps, seed=seed, device=evaluation.device
        )
        for images in (synthetic_set.images[matched.synthetic], cohort.images[sources])
    )
    return synthetic, floor


def two_sample_tests(
    real: ImagesOfPeople,
    synthetic: ImagesOfPeople,
    *,
    seed: int,
    steps: int = STEPS,
    device: str | torch.device = "cpu",
) -> pd.DataFrame:
    """The AUC of the network's test, then of the TRIVIAL ones.

    Intervals are percentiles of a bootstrap over subjects. Where a test is right about every pair,
    the bootstrap has no variance; then the bound is the exact one for as many independent pairs as
    there are subjects on the smaller side. The network is trained on half of the subjects and
    scores the others, and the other way round; its interval is conditional on those two networks.

    Args:
        real: the real images.
        synthetic: the synthetic ones, as many.
        seed: of the network, the halves and the bootstrap.
        steps: of the network's training.
        device: of the network.

    Returns:
        Columns test, auc, low, high, n (images a side).
    """
    subjects = np.concatenate([real.subjects, synthetic.subjects])
    is_synthetic = np.arange(len(subjects)) >= len(real.subjects)
    few = min(len(set(side.subjects)) for side in (real, synthetic)) < MIN_SUBJECTS
    half = subject_halves(subjects, is_synthetic, seed=seed)
    rows = []
    for name in (NETWORK, *TRIVIAL):
        value = Auc(np.nan, np.nan, np.nan)
        if not few:
            if name == NETWORK:
                scores = crossed_scores(
                    real, synthetic, half, steps=steps, seed=seed, device=device
                )
                parts = half
            else:
                scores = np.concatenate([TRIVIAL[name](side.images) for side in (real, synthetic)])
                parts = np.zeros(len(scores), int)
            value = auc(scores, is_synthetic, subjects, parts=parts, seed=seed)
        rows.append((name, *value, len(real.subjects)))
    return pd.DataFrame(rows, columns=["test", "auc", "low", "high", "n"])


def auc(
    scores: np.ndarray,
    is_synthetic: np.ndarray,
    subjects: np.ndarray,
    *,
    parts: np.ndarray,
    seed: int,
) -> Auc:
    """The chance that a synthetic image's score is higher than a real one's of the same part.

    Value and interval are the means of the parts' own: two networks that were trained on each
    other's test images err together, so that their mean is no more certain than one of them.

    Args:
        scores: (n,), higher for what looks synthetic.
        is_synthetic: (n,) bool.
        subjects: (n,) whose image each is.
        parts: (n,) which network scored each.
        seed: of the bootstrap.
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
        for _ in range(REPLICATES)
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
    real, synthetic = (
        np.bincount(level, weights * side, level.max() + 1)
        for side in (~is_synthetic, is_synthetic)
    )
    pairs = real.sum() * synthetic.sum()
    return float(synthetic @ (np.cumsum(real) - real / 2)) / pairs if pairs else np.nan


def subject_halves(subjects: np.ndarray, is_synthetic: np.ndarray, *, seed: int) -> np.ndarray:
    """(n,) 0 or 1, the same for all images of a subject; of either kind's subjects a half each."""
    rng, half = np.random.default_rng([seed, 1]), dict[str, int]()
    for side in (~is_synthetic, is_synthetic):
        names = [name for name in pd.unique(subjects[side]) if name not in half]
        half |= {names[k]: place % 2 for place, k in enumerate(rng.permutation(len(names)))}
    return np.array([half[name] for name in subjects])


class Detector(nn.Module):  # type: ignore[misc]  # torch has no types here
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


def crossed_scores(
    real: ImagesOfPeople,
    synthetic: ImagesOfPeople,
    half: np.ndarray,
    *,
    steps: int,
    seed: int,
    device: str | torch.device,
) -> np.ndarray:
    """Score images by the network that was trained on the other half of the subjects.

    Args:
        real: the real images.
        synthetic: the synthetic ones.
        half: (n,) 0 or 1 for each image of both sides.
        steps: of training.
        seed: of both networks.
        device: where they run.

    Returns:
        (n,) scores, of real images and then of synthetic ones.
    """
    sides = np.split(half, [len(real.subjects)])
    scores = np.empty(len(half))
    for part in (0, 1):
        pairs = [*zip((real, synthetic), sides, strict=True)]
        training = [side.images[of != part] for side, of in pairs]
        network = trained_detector(*training, steps=steps, seed=seed + part, device=device)
        test = [side.images[of == part] for side, of in pairs]
        scores[half == part] = np.concatenate([detector_scores(network, x) for x in test])
    return scores


def trained_detector(
    real: np.ndarray, synthetic: np.ndarray, *, steps: int, seed: int, device: str | torch.device
) -> Detector:
    """A detector of synthetic images, in evaluation mode; half of each batch is real.

    Args:
        real: (n, 2, P, P) uint8.
        synthetic: (m, 2, P, P) uint8.
        steps: of training.
        seed: of weights and batches.
        device: where it runs.
    """
    rng = np.random.default_rng([seed, 3])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Detector()
    network.to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 1e-2, total_steps=steps + 1, pct_start=0.2
    )
    batches = _batches(real, synthetic, rng)
    for _ in progress.each(range(steps), "two-sample test", total=steps, unit="steps"):
        images, labels = next(batches)
        loss = F.binary_cross_entropy_with_logits(
            network(signed(images, device)), labels.to(device)
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    return network


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


def detector_scores(network: Detector, images: np.ndarray) -> np.ndarray:
    """(n,) logits of whole images (n, 2, P, P) uint8."""
    device, size = (
        next(network.parameters()).device,
        max(1, TOGETHER_PIXELS // images.shape[-1] ** 2),
    )
    with torch.inference_mode():
        parts = [
            network(signed(images[k : k + size], device)).cpu().numpy()
            for k in range(0, len(images), size)
        ]
    return np.concatenate(parts or [np.empty(0)])


def _mean(values: np.ndarray) -> np.ndarray:
    """(n,) over all but the first axis."""
    return np.asarray(values.mean(axis=(1, 2, 3)))


def _detail(images: np.ndarray) -> np.ndarray:
    """(n, 2, P, P) images less their smoothed copies; edges are repeated."""
    x = images.astype(np.float32)
    smooth: np.ndarray = x
    for axis in (2, 3):
        ends = [(1, 1) if k == axis else (0, 0) for k in range(4)]
        wide = np.moveaxis(np.pad(smooth, ends, mode="edge"), axis, 0)
        smooth = np.moveaxis((wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4, 0, axis)
    return np.asarray(x - smooth)
