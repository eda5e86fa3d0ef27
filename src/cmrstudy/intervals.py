"""Means and shares with 95 % intervals when several images come from one subject and so are no
independent evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

Z = float(stats.norm.ppf(0.975))
UNKNOWN = float("nan")
MIN_COUNT = 20  # images or subjects: with fewer, a number is only a hint, or is not computed


class Estimate(NamedTuple):
    """A value, its interval (NaN for fewer than two subjects), and what it rests on."""

    value: float
    low: float
    high: float
    n: int  # images
    subjects: int


def mean(values: np.ndarray, subjects: np.ndarray) -> Estimate:
    """Mean of (n,) values and its t interval; NaN values are left out of it and of n."""
    known = ~np.isnan(values)
    values, subjects = values[known], subjects[known]
    if not len(values):
        return Estimate(UNKNOWN, UNKNOWN, UNKNOWN, 0, 0)
    value, error, of_subject = _clustered(values, subjects, np.full(len(values), 1 / len(values)))
    half = _t(of_subject) * error
    return Estimate(value, value - half, value + half, len(values), len(of_subject))


def share(
    right: np.ndarray, subjects: np.ndarray, *, weights: np.ndarray | None = None
) -> Estimate:
    """Weighted share of (n,) bool with Wilson's interval at the effective number of images.

    That number is n / (design effect), the design effect from the subjects' residuals and at least
    1 (Korn & Graubard 1998; Dean & Pagano 2015); where all images agree it is the number of
    subjects, since nothing then tells how alike a subject's images are.
    """
    if not len(right):
        return Estimate(UNKNOWN, UNKNOWN, UNKNOWN, 0, 0)
    weights = np.ones(len(right)) if weights is None else weights
    weights = weights / weights.sum()
    value, error, of_subject = _clustered(right.astype(float), subjects, weights)
    value = min(max(value, 0.0), 1.0)  # rounding
    images, people = 1 / (weights**2).sum(), 1 / (of_subject**2).sum()
    if len(of_subject) < 2:
        return Estimate(value, UNKNOWN, UNKNOWN, len(right), len(of_subject))
    mixed = 1e-9 < value < 1 - 1e-9
    effective = min(images, value * (1 - value) / error**2) if mixed and error > 0 else people
    if people < 0.999 * images:  # what the subjects' residuals tell is itself uncertain
        effective *= (Z / _t(of_subject)) ** 2
    middle, half = (
        value + Z**2 / (2 * effective),
        Z * np.sqrt(value * (1 - value) / effective + (Z / 2 / effective) ** 2),
    )
    low, high = (float((middle + sign * half) / (1 + Z**2 / effective)) for sign in (-1, 1))
    return Estimate(value, max(low, 0.0), min(high, 1.0), len(right), len(of_subject))


def difference(a: Estimate, b: Estimate) -> tuple[float, float, float]:
    """(a - b, low, high) of independent estimates, from the intervals of both (Newcombe 1998,
    method 10)."""
    value = a.value - b.value
    return (
        value,
        value - float(np.hypot(a.value - a.low, b.high - b.value)),
        value + float(np.hypot(a.high - a.value, b.value - b.low)),
    )


def influence(parts: np.ndarray, subjects: np.ndarray) -> float:
    """Half the width of the interval of a statistic whose value is the mean of (n,) influences
    (delta method)."""
    _, error, of_subject = _clustered(parts, subjects, np.full(len(parts), 1 / len(parts)))
    return _t(of_subject) * error


def _clustered(
    values: np.ndarray, subjects: np.ndarray, weights: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Weighted mean (weights sum to 1), its error from the sums of residuals per subject, each
    subject's of_subject."""
    # in the order of rows: names differ from salt to salt
    code = pd.factorize(np.asarray(subjects))[0]
    value, of_subject = float(weights @ values), np.bincount(code, weights)
    if len(of_subject) < 2:
        return value, UNKNOWN, of_subject
    residuals = np.bincount(code, weights * (values - value))
    return (
        value,
        float(np.sqrt(len(of_subject) / (len(of_subject) - 1) * (residuals**2).sum())),
        of_subject,
    )


def _t(of_subject: np.ndarray) -> float:
    """Student's t at 97.5 %, its degrees of freedom the effective number of subjects less one."""
    return float(stats.t.ppf(0.975, max(1.0, 1 / (of_subject**2).sum() - 1)))
