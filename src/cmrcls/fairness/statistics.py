"""How sure a number is: the bootstrap over subjects and replicates, and tests between arms over
replicates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from cmrcls.fairness.levels import Level, levels_of
from cmrcls.fairness.study import Arm, Study, by_seed

Array = npt.NDArray[Any]
CONFIDENCE = 0.95  # of every interval
ALPHA = 0.05  # of every test


def resample(n: int, *, resamples: int, rng: np.random.Generator) -> Array:
    """Counts (R, n) uint8: how often each of n subjects is drawn, with replacement.

    The subject is what is drawn: its predictions by all runs share the count, so they stay
    together.
    """
    counts = np.zeros((resamples, n), np.uint8)
    for start in range(0, resamples, rows := max(1, 4_000_000 // max(n, 1))):
        stop = min(start + rows, resamples)
        size = stop - start
        places = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts[start:stop] = np.bincount(places.ravel(), minlength=size * n).reshape(-1, n)
    return counts


def moves(study: Study, *, resamples: int, rng: np.random.Generator) -> Array:
    """Weights (R, T), summing to 0 per arm, by which the runs' scores move the arm's mean as other
    replicates would.

    At each level of an arm the mean moves by Student's t with the level's degrees of freedom times
    its standard error; as many replicates drawn with replacement would move it too little.
    Replicates of one name move together in all arms, so differences between arms are paired. An arm
    without a level stays where it is.
    """
    weights = np.zeros((resamples, len(study.runs)))
    normal: dict[tuple[str, str], Array] = {}
    tails: dict[str, Array] = {}
    for arm in study.arms:
        own = study.positions(arm)
        for level in levels_of(study, arm):
            tail = tails.setdefault(level.name, rng.random((resamples, 1)))
            names = [(level.name, unit) for unit in level.units]
            normals = [normal.setdefault(name, rng.standard_normal(resamples)) for name in names]
            wider = level.freedom / stats.chi2.ppf(tail, level.freedom)  # turns the normal into a t
            weights[:, own] += np.sqrt(wider * level.factor) * (
                np.stack(normals, axis=1) @ level.parts
            )
    return weights


def interval(
    draws: Array, *, rests_on: int, limits: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float]:
    """The percentile interval of CONFIDENCE from draws (R,), of a number that rests on so many
    subjects; NaN if there is none.

    A bootstrap of m subjects is too narrow, by sqrt(1 - 1/m) and as a normal beside Student's t;
    the percentiles lie further out to make up for both (Hesterberg 2015, "expanded"). When all
    draws are alike there is no interval: no error among few subjects is not certainty. It is cut at
    the `limits` of what is measured.
    """
    if rests_on < 2 or np.isnan(draws).any() or np.ptp(draws) < 1e-6:
        return np.nan, np.nan
    low, high = np.quantile(draws, _percentiles(rests_on))
    return max(float(low), limits[0]), min(float(high), limits[1])


def signed_rank(differences: Sequence[float] | Array) -> tuple[float, int]:
    """Two-sided p of Wilcoxon's signed-rank test, exact also with ties, and the number of pairs it
    rests on.

    Zero differences are left out (Wilcoxon); without any other the p is 1. The null distribution of
    the rank sum is counted over all 2^n signs, midranks doubled to integers.
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


def holm(p: Sequence[float] | Array) -> Array:
    """Holm's adjusted p-values (1979), in the given order."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


@cache
def _percentiles(rests_on: int) -> tuple[float, float]:
    out = np.sqrt(rests_on / (rests_on - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, rests_on - 1)
    return float(stats.norm.cdf(-out)), float(stats.norm.cdf(out))


class Compared(NamedTuple):
    """Two arms compared over replicates."""

    difference: float  # second minus first, of the arms' means
    p: float
    test: str  # "signed-rank", "t"
    unit: str  # what is counted: of levels.LEVELS
    pairs: int
    smallest_p: float  # that so many pairs could give; NaN where that is any


def compare_arms(study: Study, values: Array, first: Arm, second: Arm) -> Compared:
    """Do two arms differ beyond the chance of training, on these test subjects?

    Where seeds are what varies: Wilcoxon's signed-rank test over the seeds that both have, each
    the mean over an arm's given sets. Where an arm was repeated with enough sets or generators: a
    t test whose variance adds up the levels of both arms, pairing replicates of the same names,
    with Satterthwaite's degrees of freedom.

    Args:
        study: of which.
        values: a score per run (T,).
        first: an arm.
        second: another one, from whose mean the first one's is subtracted.
    """
    of = [_arm_levels(study, arm) for arm in (first, second)]
    means = values @ study.weights
    at = [study.arms.index(arm) for arm in (first, second)]
    difference = float(means[at[1]] - means[at[0]])
    if any(level.name != "seed" for _, own in of for level in own):
        return _t_test(values, of, difference)
    seeds = by_seed(study, values)
    pairs = (seeds[second] - seeds[first]).dropna().to_numpy()
    if not len(pairs):
        return Compared(difference, np.nan, "signed-rank", "seed", 0, 1.0)
    p, used = signed_rank(pairs)
    return Compared(
        difference, p, "signed-rank", "seed", len(pairs), min(1.0, 2 * 0.5 ** max(used, 1))
    )


def _arm_levels(study: Study, arm: Arm) -> tuple[Array, list[Level]]:
    """Positions of an arm's runs, and its levels."""
    return study.positions(arm), levels_of(study, arm)


def _t_test(values: Array, of: Sequence[tuple[Array, list[Level]]], difference: float) -> Compared:
    """The variance of the difference of two means, from each arm's levels."""
    variances, freedoms, above = [], [], ("", 0)
    first, second = (
        {
            level.name: (
                level.units,
                np.sqrt(level.factor) * (level.parts @ values[own]),
                level.freedom,
            )
            for level in own_levels
        }
        for own, own_levels in of
    )
    for name in dict.fromkeys([*first, *second]):
        there = [own[name] for own in (first, second) if name in own]
        if len(there) == 2 and set(there[0][0]) == set(there[1][0]):
            order = [there[1][0].index(unit) for unit in there[0][0]]
            there = [(there[0][0], there[1][1][order] - there[0][1], min(there[0][2], there[1][2]))]
        for units, moved, freedom in there:
            variances.append(float((moved**2).sum()))
            freedoms.append(freedom)
            if name != "seed" and (not above[0] or len(units) < above[1]):
                above = name, len(units)
    if not first or not second:  # one arm's own chance of training can't be told
        return Compared(difference, np.nan, "t", above[0], 0, np.nan)
    total = sum(variances)
    if total <= 0:
        return Compared(
            difference, 1.0 if difference == 0 else 0.0, "t", above[0], above[1], np.nan
        )
    satterthwaite = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    p = 2 * stats.t.sf(abs(difference) / np.sqrt(total), satterthwaite)
    return Compared(difference, float(p), "t", above[0], above[1], np.nan)


def compare_all_arms(study: Study, values: Array) -> pd.DataFrame:
    """Every two arms compared by a score per run (T,) of which more is better, Holm-corrected
    over these pairs.

    Columns: first, second, difference (second minus first), better, test, unit, pairs, p, p_holm,
    smallest_p (the smallest that so many pairs and comparisons could give after Holm), note.
    """
    rows: list[dict[str, Any]] = []
    for first, second in combinations(study.arms, 2):
        one = compare_arms(study, values, first, second)
        rows.append({"first": first, "second": second, **one._asdict()})
    return corrected_for_many(pd.DataFrame(rows, columns=["first", "second", *Compared._fields]))


def corrected_for_many(rows: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Comparisons of arms with the better one, Holm's p and a note on what so many could have shown
    at all."""
    table = rows.assign(better="", p_holm=np.nan, note="")
    sign = np.sign(table.difference.fillna(0)) * (1 if higher_is_better else -1)
    table["better"] = np.select([sign > 0, sign < 0], [table.second, table["first"]], "")
    known = table.p.notna()
    if known.any():
        table.loc[known, "p_holm"] = holm(table.p[known].to_numpy())
    table["smallest_p"] = (table.smallest_p * max(1, int(known.sum()))).clip(upper=1)
    table["note"] = [_power(row, int(known.sum())) for row in table.to_dict("records")]
    return table[
        [
            "first",
            "second",
            "difference",
            "better",
            "test",
            "unit",
            "pairs",
            "p",
            "p_holm",
            "smallest_p",
            "note",
        ]
    ]


class Ranking(NamedTuple):
    """Friedman's test and Nemenyi's critical difference (Demsar 2006) of arms over the seeds that
    all arms have."""

    ranks: pd.Series  # mean rank per arm, 1 = best
    blocks: int
    statistic: float
    p: float
    critical_difference: float  # two arms whose mean ranks differ by less are not told apart
    warnings: list[str]


def friedman(scores: pd.DataFrame, *, higher_is_better: bool = True) -> Ranking:
    """`scores`: a row per seed (block), a column per arm; rows with a missing score are left out,
    in words."""
    whole = scores.dropna()
    n, k = whole.shape
    ranks = whole.rank(axis=1, ascending=not higher_is_better).mean()
    warnings = []
    if n < len(scores):
        warnings.append(
            f"{len(scores) - n} of {len(scores)} seeds are not in every arm and are left out of "
            "the ranking."
        )
    if n < 2 or k < 3:
        warnings.append(
            f"Friedman's test needs 3 arms and 2 seeds that all have; there are {k} arms and {n} "
            "seeds."
        )
        return Ranking(ranks, n, np.nan, np.nan, np.nan, warnings)
    tied = bool((whole.nunique(axis=1) == 1).all())
    statistic, p = (0.0, 1.0) if tied else stats.friedmanchisquare(*whole.to_numpy().T)
    critical = (
        stats.studentized_range.ppf(1 - ALPHA, k, np.inf)
        / np.sqrt(2)
        * np.sqrt(k * (k + 1) / (6 * n))
    )
    if critical >= k - 1:
        warnings.append(
            f"Underpowered: with {n} seeds mean ranks must differ by {critical:.2f}, but {k} arms "
            f"can differ by no more than {k - 1}."
        )
    return Ranking(ranks, n, float(statistic), float(p), float(critical), warnings)


def _power(row: dict[str, Any], tests: int) -> str:
    """Why a comparison could not show much; empty if it could."""
    if row["test"] == "signed-rank" and row["pairs"] == 0:
        return "no seed in common"
    if np.isnan(row["p"]):
        return "too few replicates in one of the arms" if row["test"] == "t" else "too few subjects"
    if row["smallest_p"] > ALPHA:
        return (
            f"underpowered: {row['pairs']} pairs in {tests} comparisons give no p below "
            f"{row['smallest_p']:.3g}"
        )
    return ""
