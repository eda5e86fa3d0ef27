"""How sure a number is: the bootstrap over subjects and seeds, and paired tests between arms over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
MOST_UNDEFINED = 0.05  # share of resamples without a value, above which there is no interval
ALPHA = 0.05


def resample(strata: np.ndarray, *, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Counts (R, n) float32: how often each subject is drawn, with replacement within its stratum (n,), keeping its size.

    The subject is what is drawn: its predictions by all runs share the count, so they stay together.
    """
    counts = np.zeros((resamples, len(strata)), np.float32)
    for stratum in pd.unique(strata):
        (where,) = np.nonzero(strata == stratum)
        m = len(where)
        for start in range(0, resamples, rows := max(1, 4_000_000 // m)):
            part = range(start, min(start + rows, resamples))
            drawn = rng.integers(0, m, (len(part), m)) + m * np.arange(len(part))[:, None]
            counts[start : part.stop, where] = np.bincount(drawn.ravel(), minlength=len(part) * m).reshape(-1, m)
    return counts


def seed_moves(
    arms: Sequence[Any] | np.ndarray, seeds: Sequence[Any] | np.ndarray, *, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """Weights (R, runs), summing to 0 per arm, by which the runs' scores move the arm's mean as other seeds would.

    The mean moves by Student's t with S - 1 degrees of freedom times sd / sqrt(S); S of 8 seeds drawn with replacement
    would move it too little. Seeds of one name move together in all arms, so differences between arms are paired. An arm
    with one seed stays where it is.
    """
    names, column = np.unique(np.asarray(seeds, str), return_inverse=True)
    normal, tail = rng.standard_normal((resamples, len(names))), rng.random((resamples, 1))
    moves = np.zeros((resamples, len(column)))
    for arm in dict.fromkeys(arms):
        where = np.flatnonzero([other == arm for other in arms])
        if (s := len(where)) > 1:
            drawn = normal[:, column[where]]
            wider = (s - 1) / stats.chi2.ppf(tail, s - 1)  # turns the normal into a t
            moves[:, where] = (drawn - drawn.mean(axis=1, keepdims=True)) * np.sqrt(wider / (s * (s - 1)))
    return moves


def mean_draws(point: np.ndarray, drawn: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Draws (R,) of the mean over an arm's runs, from their scores (S,), resampled scores (R, S) and `seed_moves` (R, S).

    Subjects: the mean of the resampled scores. Seeds: the scores moved. What differs between runs on the same resample is
    chance of single predictions, which both hold, so the first is narrowed by its share (variance components).
    """
    mean, s = drawn.mean(axis=1), drawn.shape[1]
    whole = np.nanvar(mean) if np.isfinite(mean).any() else 0
    share = 0.0
    if s > 1 and whole > 0:
        share = np.nanvar(drawn - mean[:, None], axis=0).mean() / (s - 1) / whole
    return point.mean() + np.sqrt(max(0, 1 - share)) * (mean - point.mean()) + moves @ point


class Interval(NamedTuple):
    low: float
    high: float
    undefined: float  # share of draws without a value


def interval(draws: np.ndarray, *, rests_on: int) -> Interval:
    """The percentile interval of LEVEL from draws (R,), of a number that rests on so many subjects; NaN if there is none.

    A bootstrap of m subjects is too narrow, by sqrt(1 - 1/m) and as a normal beside Student's t; the percentiles lie
    further out to make up for both (Hesterberg 2015, "expanded"). Draws without a value, where a group lost all positives,
    are left out and their share is returned; above MOST_UNDEFINED there is no interval, nor when all draws are alike: no
    error among few subjects is not certainty.
    """
    defined = draws[np.isfinite(draws)]
    undefined = 1 - len(defined) / len(draws)
    if undefined > MOST_UNDEFINED or rests_on < 2 or np.ptp(defined) < 1e-6:
        return Interval(np.nan, np.nan, undefined)
    out = np.sqrt(rests_on / (rests_on - 1)) * stats.t.ppf((1 + LEVEL) / 2, rests_on - 1)
    low, high = np.quantile(defined, stats.norm.cdf([-out, out]))
    return Interval(float(low), float(high), undefined)


def signed_rank(differences: Sequence[float] | np.ndarray) -> tuple[float, int]:
    """Two-sided p of Wilcoxon's signed-rank test, exact also with ties, and the number of pairs it rests on.

    Zero differences are left out (Wilcoxon); without any other the p is 1. The null distribution of the rank sum is
    counted over all 2^n signs, midranks doubled to integers.
    """
    d = np.asarray(differences, float)
    d = d[d != 0]
    if not len(d):
        return 1.0, 0
    ranks = np.rint(2 * stats.rankdata(np.abs(d))).astype(int)
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] = ways[rank:] + ways[:-rank]
    observed = ranks[d > 0].sum()
    tail = min(ways[: observed + 1].sum(), ways[observed:].sum()) / 2.0 ** len(d)
    return float(min(1, 2 * tail)), len(d)


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values (1979), in the given order."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def paired_tests(scores: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Every two arms compared over seeds: Wilcoxon signed-rank, exact, Holm-corrected over the pairs of this table.

    `scores`: a row per seed, a column per arm. Columns out: first, second, pairs, median_difference (second minus first),
    better, p, p_holm, smallest_p (the smallest that so many pairs and comparisons could give after Holm), note.
    """
    rows = []
    for first, second in combinations(scores.columns, 2):
        difference = (scores[second] - scores[first]).dropna().to_numpy()
        p, used = signed_rank(difference)
        median = float(np.median(difference)) if len(difference) else np.nan
        better = (second if (median > 0) == higher_is_better else first) if median else ""
        rows.append({"first": first, "second": second, "pairs": len(difference), "median_difference": median,
                     "better": better if len(difference) else "", "p": p if len(difference) else np.nan,
                     "smallest_p": min(1.0, 2 * 0.5 ** max(used, 1))})  # fmt: skip
    columns = ["first", "second", "pairs", "median_difference", "better", "p", "p_holm", "smallest_p", "note"]
    table = pd.DataFrame(rows, columns=[name for name in columns if name not in ("p_holm", "note")])
    table["p_holm"] = holm(table.p.fillna(1).to_numpy()) if len(table) else []
    table.loc[table.p.isna(), "p_holm"] = np.nan
    table["smallest_p"] = (table.smallest_p * len(table)).clip(upper=1)
    table["note"] = [
        _power(pairs, least, len(table)) for pairs, least in zip(table.pairs, table.smallest_p, strict=True)
    ]
    return table[columns]


class Ranking(NamedTuple):
    """Friedman's test and Nemenyi's critical difference (Demsar 2006) of arms over the seeds that all arms have."""

    ranks: pd.Series  # mean rank per arm, 1 = best
    blocks: int
    statistic: float
    p: float
    critical_difference: float  # two arms whose mean ranks differ by less are not told apart
    warnings: list[str]


def friedman(scores: pd.DataFrame, *, higher_is_better: bool = True) -> Ranking:
    """`scores`: a row per seed (block), a column per arm; rows with a missing score are left out, in words."""
    whole = scores.dropna()
    n, k = whole.shape
    ranks = whole.rank(axis=1, ascending=not higher_is_better).mean()
    warnings = []
    if n < len(scores):
        warnings.append(
            f"{len(scores) - n} of {len(scores)} seeds are not in every arm and are left out of the ranking."
        )
    if n < 2 or k < 3:
        warnings.append(f"Friedman's test needs 3 arms and 2 seeds that all have; there are {k} arms and {n} seeds.")
        return Ranking(ranks, n, np.nan, np.nan, np.nan, warnings)
    tied = bool((whole.nunique(axis=1) == 1).all())
    statistic, p = (0.0, 1.0) if tied else stats.friedmanchisquare(*whole.to_numpy().T)
    critical = stats.studentized_range.ppf(1 - ALPHA, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    if critical >= k - 1:
        warnings.append(
            f"Underpowered: with {n} seeds mean ranks must differ by {critical:.2f}, but {k} arms can differ by no more "
            f"than {k - 1}."
        )
    return Ranking(ranks, n, float(statistic), float(p), float(critical), warnings)


def _power(pairs: int, least: float, tests: int) -> str:
    if pairs == 0:
        return "no seed in common"
    if least > ALPHA:
        return f"underpowered: {pairs} pairs in {tests} comparisons give no p below {least:.3g}"
    return ""
