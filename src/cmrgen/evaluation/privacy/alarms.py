"""Do the images of one kind lie nearer than those of another? Two-sample tests that raise a false
alarm in at most 5 %.

Both kinds are compared within groups, so that another mix of groups is no evidence; images of one
person count as one, by taking one of them at a time; and nothing is taken as known that was
estimated: a threshold belongs to both samples together. docs/results/audit.md has their rates of
false alarms and of planted copies found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special, stats

# the share of all images compared that `nearest_test` looks at (Dar et al. 2023 take 5 % of unseen
# people)
NEAREST_SHARE = 0.05
ALARM = 0.05  # chance of a false alarm of a test that stands alone
DRAWS = 20  # of one image per person


class Sample(NamedTuple):
    """Images of one kind."""

    value: np.ndarray  # (n,) how near each is: larger is nearer
    group: np.ndarray  # (n,)
    person: np.ndarray  # (n,) whose image, or whose mask it was drawn from

    def subset(self, rows: np.ndarray) -> Sample:
        return Sample(*(column[rows] for column in self))


class Closest(NamedTuple):
    """How many of the nearest images of both kinds together are the first kind's. One image a
    person, mean over draws."""

    observed: float
    expected: float  # by chance, at equal mix of groups
    alarm_from: float  # so many would have been an alarm
    p: float


class Ranks(NamedTuple):
    """Whether the first kind lies nearer on the whole. One image a person, mean over draws."""

    ct: float  # C_T: standard normal by chance, negative if the first kind lies nearer
    # chance that an image of the first kind is nearer than one of the second of the same group
    nearer: float
    p: float


class Counts(NamedTuple):
    """What a test rests on: images of groups that both kinds have."""

    images: int  # of the first kind
    people: int  # behind them
    others: int  # people of the second kind
    left_out: int  # images of the first kind in groups that the second kind lacks


def in_common_groups(first: Sample, second: Sample) -> tuple[Sample, Sample, Counts]:
    """The images of both kinds that can be compared, and how many they are."""
    of_first = pd.Series(first.group).isin(second.group).to_numpy()
    of_second = pd.Series(second.group).isin(first.group).to_numpy()
    left, right = first.subset(of_first), second.subset(of_second)
    people, others = (len(pd.unique(kind.person)) for kind in (left, right))
    return left, right, Counts(len(left.value), people, others, int((~of_first).sum()))


def nearest_test(
    first: Sample, second: Sample, *, seed: int, draws: int = DRAWS, level: float = ALARM
) -> Closest:
    """Are more of the nearest images the first kind's than its share of each group makes likely?

    The nearest are NEAREST_SHARE of all images that are compared. Given how many of them each group
    has, the first kind's are hypergeometric in each group if group members are exchangeable; p is
    the exact upper tail of their sum.

    Args:
        first: images under suspicion, all in groups that `second` has (`in_common_groups`).
        second: images that can't be copies, e.g. of people whom the generator has never seen.
        seed: of the draws.
        draws: how often one image per person is drawn, where somebody has several; p is the mean
            over them.
        level: p of an alarm.

    Returns:
        NaN for two empty samples.
    """
    if not len(first.value):
        return Closest(*[np.nan] * 4)
    results = [
        _nearest(*drawn, level=level) for drawn in _drawn(first, second, seed=seed, draws=draws)
    ]
    return Closest(*np.mean(results, axis=0).tolist())


def rank_test(first: Sample, second: Sample, *, seed: int, draws: int = DRAWS) -> Ranks:
    """C_T of Meehan et al. 2020 (sec. 3) with the groups as its cells: does the first kind lie
    nearer on the whole?

    A Mann-Whitney test in each group, added up with van Elteren's weights and divided by its own
    standard deviation, so that chance is standard normal whatever the number of groups (the paper's
    mean over cells has a smaller one).

    Args:
        first: as in `nearest_test`.
        second: as there.
        seed: of the draws.
        draws: as there.

    Returns:
        NaN for two empty samples.
    """
    if not len(first.value):
        return Ranks(*[np.nan] * 3)
    results = [_ranks(*drawn) for drawn in _drawn(first, second, seed=seed, draws=draws)]
    return Ranks(*np.mean(results, axis=0).tolist())


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p of (k,) p; those that are NaN stay so and do not count."""
    p, adjusted = np.asarray(p, float), np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.isfinite(p).sum())]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def _drawn(
    first: Sample, second: Sample, *, seed: int, draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(values, group codes, whether of the first kind) of one image per person and kind, several
    times."""
    values = np.concatenate([first.value, second.value])
    groups = pd.factorize(np.concatenate([first.group, second.group]))[0]
    people = [pd.factorize(kind.person)[0] for kind in (first, second)]
    repeated = any(len(code) and code.max() + 1 < len(code) for code in people)
    rng = np.random.default_rng(seed)
    for _ in range(draws if repeated else 1):
        rows = [_one_each(code, rng) for code in people]
        own = np.concatenate([np.ones(len(rows[0]), bool), np.zeros(len(rows[1]), bool)])
        both = np.concatenate([rows[0], len(first.value) + rows[1]])
        yield values[both], groups[both], own


def _one_each(code: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random row of each code."""
    order = rng.permutation(len(code))
    return np.asarray(order[np.unique(code[order], return_index=True)[1]])


def _nearest(values: np.ndarray, groups: np.ndarray, own: np.ndarray, *, level: float) -> Closest:
    count = max(1, round(NEAREST_SHARE * len(values)))
    near = values >= np.partition(values, -count)[-count]
    total, mine, beyond = (
        np.bincount(groups[rows], minlength=groups.max() + 1) for rows in (slice(None), own, near)
    )
    observed, chances = int((near & own).sum()), np.ones(1)
    use = (beyond > 0) & (mine > 0)
    for chance in _hypergeometric(total[use], beyond[use], mine[use]):
        chances = np.convolve(chances, np.trim_zeros(chance, "b"))
    upper = np.append(np.cumsum(chances[::-1])[::-1], 0.0)
    alarm_from = int(np.argmax(upper <= level))
    p = float(np.clip(upper[min(observed, len(upper) - 1)], 0, 1))
    return Closest(observed, float((mine * beyond / np.maximum(total, 1)).sum()), alarm_from, p)


def _hypergeometric(total: np.ndarray, marked: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(k, m + 1) chances of 0..m marked ones among `drawn` of `total`, m the largest of `marked`;
    each argument (k,)."""

    def choices(n: np.ndarray, k: np.ndarray) -> np.ndarray:
        valid = (k >= 0) & (k <= n)
        k = np.where(valid, k, 0)
        log = special.gammaln(n + 1.0) - special.gammaln(k + 1.0) - special.gammaln(n - k + 1.0)
        return np.where(valid, log, -np.inf)

    N, K, n = (column[:, None] for column in (total, marked, drawn))
    x = np.arange(marked.max(initial=0) + 1)[None]
    return np.asarray(np.exp(choices(K, x) + choices(N - K, n - x) - choices(N, n)))


def _ranks(values: np.ndarray, groups: np.ndarray, own: np.ndarray) -> Ranks:
    order = np.lexsort((values, groups))
    values, groups, own = values[order], groups[order], own[order]
    tie = (
        np.cumsum(np.r_[True, (np.diff(values) != 0) | (np.diff(groups) != 0)]) - 1
    )  # codes in order of group and value
    equal, starts = np.bincount(tie), np.r_[0, np.cumsum(np.bincount(groups))][groups]
    rank = np.cumsum(equal)[tie] - (equal[tie] - 1) / 2 - starts
    n, m = np.bincount(groups, own), np.bincount(groups, ~own)
    size = n + m
    ties = np.bincount(groups, equal[tie] ** 2.0 - 1)  # sum of t^3 - t over ties of t
    lead = np.bincount(groups, own * rank) - n * (size + 1) / 2
    spread = n * m / 12 * (size + 1 - ties / np.maximum(size * (size - 1), 1))
    weight = 1 / (size + 1)
    pairs, sd = (weight * n * m).sum(), np.sqrt((weight**2 * spread).sum())
    z = -(weight * lead).sum() / sd if sd > 0 else 0.0
    return Ranks(
        float(z),
        float(0.5 + (weight * lead).sum() / pairs) if pairs else np.nan,
        float(stats.norm.cdf(z)),
    )
