"""How far apart two sets of features are: Fréchet and kernel distances, and shares of neighbours.

An image metric is a function of a `Pair` and its row in METRICS: the tables and the report measure
and show every row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

# k of the k-th neighbour, as their papers have it
NEAREST = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}


@dataclass(frozen=True)
class FeatureSample:
    """Features (n, d) as distances need them; made once for all the cells they are in."""

    features: np.ndarray  # (n, d) float64
    mean: np.ndarray  # (d,)
    factor: np.ndarray  # (min(n, d), d); factor^T factor is the covariance
    trace: float  # of the covariance
    subjects: np.ndarray  # (n,) whose image each row is

    @cached_property
    def products(self) -> np.ndarray:
        """(n, n) inner products of the rows."""
        products: np.ndarray = self.features @ self.features.T
        return products


@dataclass(frozen=True)
class Pair:
    """Two samples that a metric compares: x real, and y as a copy of it."""

    x: FeatureSample
    y: FeatureSample

    @cached_property
    def products(self) -> np.ndarray:
        """(n, m) inner products of the rows of x and of y."""
        products: np.ndarray = self.x.features @ self.y.features.T
        return products

    @cached_property
    def neighbours(self) -> dict[str, float]:
        """The four shares of `neighbours`."""
        return neighbours(self.x.products, self.products, self.y.products)


class Distance(NamedTuple):
    """A value with its sampling variance, NaN where that is unknown: then it has no interval."""

    value: float
    variance: float = float("nan")


class Metric(NamedTuple):
    """A row of METRICS."""

    title: str  # of its column
    measure: Callable[[Pair], Distance]
    factor: float = 1  # by which readers see it multiplied
    meaning: str = ""  # a sentence of the report


def feature_sample(
    features: np.ndarray, name: str = "x", *, subjects: np.ndarray | None = None
) -> FeatureSample:
    """Mean and covariance factor of features (n, d).

    Args:
        features: (n, d).
        name: of them, for errors.
        subjects: (n,) whose image each row is; by default every row is its own.

    Raises:
        ValueError: fewer than two rows, or features that are not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(
            f"features {name} have shape {features.shape}; a Frechet distance needs at least 2 rows"
        )
    check_finite(features, name)
    wide = features.astype(np.float64)
    mean = wide.mean(0)
    factor = wide - mean
    factor /= np.sqrt(len(wide) - 1)
    trace = float(np.vdot(factor, factor))
    return FeatureSample(
        wide,
        mean,
        np.asarray(np.linalg.qr(factor, mode="r")) if len(wide) > wide.shape[1] else factor,
        trace,
        np.arange(len(wide)) if subjects is None else subjects,
    )


def check_finite(features: np.ndarray, name: str) -> None:
    """Raise ValueError naming the first row of features (n, d) that is not finite."""
    if not (finite := np.isfinite(features).all(1)).all():
        first = int(np.argmin(finite))
        raise ValueError(
            f"features {name}: {(~finite).sum()} rows hold NaN or inf, the first is row {first}"
        )


def frechet(a: FeatureSample, b: FeatureSample) -> float:
    """|mean difference|^2 + tr A + tr B - 2 tr (A B)^(1/2) of two samples with covariances A and B
    (Heusel et al. 2017).

    The last trace is the nuclear norm of the factors' product, since both have the same singular
    values.

    Raises:
        ValueError: unequal widths.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(
            f"features x have {len(a.mean)} columns, y {len(b.mean)}; use one backbone for both"
        )
    root = float(np.linalg.norm(a.factor @ b.factor.T, "nuc"))
    return max(float(((a.mean - b.mean) ** 2).sum()) + a.trace + b.trace - 2 * root, 0.0)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """`frechet` of features x (n, d) and y (m, d). Raises ValueError as `feature_sample` and
    `frechet` do."""
    return frechet(feature_sample(x, "x"), feature_sample(y, "y"))


def kernel_distance(
    xx: np.ndarray,
    xy: np.ndarray,
    yy: np.ndarray,
    *,
    width: int,
    x_of: np.ndarray | None = None,
    y_of: np.ndarray | None = None,
) -> Distance:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3, the kernel inception distance
    (Binkowski et al. 2018).

    No subsets are drawn, all rows count. The variance is the two-sample jackknife's that leaves out
    one subject at a time, NaN where a side has only one. Intervals of 1.96 sd from it covered 96 to
    98 % on rectified features of 20 to 250 rows, but 88 to 95 % on heavy-tailed ones.

    Args:
        xx: (n, n) inner products of features.
        xy: (n, m).
        yy: (m, m).
        width: d of the features.
        x_of: (n,) the subject of each row of x; by default every row is its own.
        y_of: (m,) of y.
    """
    kernels = [(product / width + 1) ** 3 for product in (xx, xy, yy)]
    for kernel in (kernels[0], kernels[2]):
        np.fill_diagonal(kernel, 0)
    n, m = xy.shape
    within, across = [kernels[0].sum(), kernels[2].sum()], kernels[1].sum()
    value = within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * across / (n * m)
    variance = 0.0
    for side, subjects in enumerate((x_of, y_of)):
        own, cross = kernels[2 * side], kernels[1].T if side else kernels[1]
        codes = np.arange(len(own)) if subjects is None else pd.factorize(np.asarray(subjects))[0]
        count = int(codes.max()) + 1
        if count < 2:
            return Distance(float(value))
        out = [
            np.bincount(codes, weights=w, minlength=count)
            for w in (
                np.ones(len(own)),
                own.sum(1),
                np.where(codes[:, None] == codes, own, 0).sum(1),
                cross.sum(1),
            )
        ]
        left, others = len(own) - out[0], cross.shape[1]
        kept = (within[side] - 2 * out[1] + out[2]) / np.maximum(left * (left - 1), 1)
        without = (
            kept
            + within[1 - side] / (others * (others - 1))
            - 2 * (across - out[3]) / (left * others)
        )
        variance += (count - 1) / count * ((without - without.mean()) ** 2).sum()
    return Distance(float(value), float(variance))


def neighbours(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> dict[str, float]:
    """Precision, recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020) of y
    as a copy of x.

    A ball reaches from a row to its k-th neighbour on its own side, k as in NEAREST. Precision:
    share of y in some ball of x; recall: of x in some ball of y; density: balls of x that hold a
    row of y, over k; coverage: share of the balls of x that hold some y.

    Args:
        xx: (n, n) inner products of features.
        xy: (n, m).
        yy: (m, m).

    Raises:
        ValueError: a side has no k-th neighbour.
    """
    if min(xy.shape) <= (k := max(NEAREST.values())):
        raise ValueError(
            f"{min(xy.shape)} rows have no {k}-th neighbour; give at least {k + 1} on each side"
        )
    squares = np.diag(xx)[:, None] + np.diag(yy) - 2 * xy
    balls: dict[str, np.ndarray] = {}
    for name, k in NEAREST.items():
        product = yy if name == "recall" else xx
        own = np.diag(product)[:, None] + np.diag(product) - 2 * product
        np.fill_diagonal(own, np.inf)
        balls[name] = np.partition(own, k - 1, axis=1)[:, k - 1]
    inside = squares <= balls["density"][:, None]
    return {
        "precision": float((squares <= balls["precision"][:, None]).any(0).mean()),
        "recall": float((squares <= balls["recall"]).any(1).mean()),
        "density": float(inside.sum() / (NEAREST["density"] * xy.shape[1])),
        "coverage": float((squares <= balls["coverage"][:, None]).any(1).mean()),
    }


def frechet_of(pair: Pair) -> Distance:
    """The Fréchet distance of a pair."""
    return Distance(frechet(pair.x, pair.y))


def kernel_of(pair: Pair) -> Distance:
    """The kernel distance of a pair, its variance by leaving out one subject at a time."""
    x, y = pair.x, pair.y
    return kernel_distance(
        x.products,
        pair.products,
        y.products,
        width=len(x.mean),
        x_of=x.subjects,
        y_of=y.subjects,
    )


def _neighbour_share(name: str) -> Callable[[Pair], Distance]:
    """One of the four shares of `neighbours`."""
    return lambda pair: Distance(pair.neighbours[name])


METRICS = {
    "fid": Metric("FID", frechet_of),
    "kid": Metric("1000 KID [95 %]", kernel_of, factor=1000),
    "precision": Metric(
        "Precision",
        _neighbour_share("precision"),
        meaning="Precision: share of synthetic images among real ones.",
    ),
    "recall": Metric(
        "Recall",
        _neighbour_share("recall"),
        meaning="Recall: share of real images among synthetic ones.",
    ),
    "density": Metric("Density", _neighbour_share("density")),
    "coverage": Metric(
        "Coverage",
        _neighbour_share("coverage"),
        meaning="Density and coverage: the same with less weight on outliers.",
    ),
}
