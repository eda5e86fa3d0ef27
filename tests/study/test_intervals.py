"""Means and shares of clustered images: by hand, against textbooks, and in simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cmrstudy import intervals


def test_mean_of_independent_images_is_students() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = intervals.mean(np.append(values, np.nan), np.append(np.arange(30), 0))
    assert found[:3] == pytest.approx(
        (values.mean(), *stats.t.interval(0.95, 29, values.mean(), stats.sem(values)))
    )
    assert found.n == 30 and found.subjects == 30
    one = intervals.mean(values, np.zeros(30))
    assert (
        one.value == pytest.approx(values.mean())
        and np.isnan([one.low, one.high]).all()
        and one.subjects == 1
    )
    assert np.isnan(intervals.mean(np.array([np.nan]), np.zeros(1)).value)


def test_copies_of_an_image_are_no_further_evidence() -> None:
    values = np.random.default_rng(0).random(20)
    once, thrice = (
        intervals.mean(values, np.arange(20)),
        intervals.mean(np.repeat(values, 3), np.repeat(np.arange(20), 3)),
    )
    assert thrice[:3] == pytest.approx(once[:3]) and thrice.n == 60
    right = values > 0.3
    narrow, wide = (
        intervals.share(np.repeat(right, 3), np.arange(60)),
        intervals.share(np.repeat(right, 3), np.repeat(np.arange(20), 3)),
    )
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("right", [0, 3, 17, 20])
def test_share_of_independent_images_is_wilsons(right: int) -> None:
    found = intervals.share(np.arange(20) < right, np.arange(20))
    wanted = stats.binomtest(right, 20).proportion_ci(0.95, "wilson")
    assert found[:3] == pytest.approx(
        (right / 20, *wanted), abs=0.012
    )  # the design effect is at least 1, and n / (n - 1)
    assert np.isnan(intervals.share(np.zeros(0, bool), np.zeros(0)).value)
    alone = intervals.share(np.ones(5, bool), np.zeros(5))
    assert alone.value == 1 and np.isnan(alone.low) and alone.subjects == 1


def test_intervals_hold_what_they_promise() -> None:
    rng, hits = np.random.default_rng(0), np.zeros(3)
    for _ in range(600):
        who = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        chance = rng.beta(0.8 * 2.3, 0.2 * 2.3, 40)  # correlation 0.3 within a subject
        share = intervals.share(rng.random(len(who)) < chance[who], who)
        values = 0.6 * rng.normal(size=40)[who] + 0.8 * rng.normal(size=len(who))
        mean, sd = intervals.mean(values, who), values.std(ddof=1)
        residual = values - values.mean()
        half = intervals.influence(residual + 1.96 * (residual**2 - sd**2) / (2 * sd), who)
        limit = values.mean() + 1.96 * sd
        hits += [
            share.low <= 0.8 <= share.high,
            mean.low <= 0 <= mean.high,
            limit - half <= 1.96 <= limit + half,
        ]
    assert ((hits / 600 > 0.92) & (hits / 600 < 0.985)).all(), hits / 600


def test_difference_of_shares_is_newcombes() -> None:
    a, b = (
        intervals.Estimate(k / n, *stats.binomtest(k, n).proportion_ci(0.95, "wilson"), n, n)
        for k, n in ((56, 70), (48, 80))
    )
    assert intervals.difference(a, b) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=1e-4
    )  # Newcombe 1998, table II (a), method 10


def test_a_weighted_share_of_clusters_is_its_formula() -> None:
    right = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    who = np.array(["c", "c", "a", "a", "b", "d", "d"])
    weights = np.array([1.0, 2, 1, 1, 3, 1, 1])
    share = weights / weights.sum()
    value = share[right].sum()
    residual = [
        sum(s * (r - value) for s, r, w in zip(share, right, who, strict=True) if w == k)
        for k in "abcd"
    ]
    error = np.sqrt(4 / 3 * sum(r * r for r in residual))
    of = [share[who == k].sum() for k in "abcd"]
    people = 1 / sum(o * o for o in of)
    t = stats.t.ppf(0.975, max(1, people - 1))
    images = 1 / (share**2).sum()
    n = min(images, value * (1 - value) / error**2) * (stats.norm.ppf(0.975) / t) ** 2
    z = stats.norm.ppf(0.975)
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(value * (1 - value) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    found = intervals.share(right, who, weights=weights)
    assert found == pytest.approx((value, middle - half, middle + half, 7, 4))
    assert found == pytest.approx(intervals.share(right, who, weights=7 * weights))
    # where all agree, subjects count
    all_right = intervals.share(np.ones(6, bool), np.array([0, 0, 1, 1, 2, 2]))
    n = 3 * (z / stats.t.ppf(0.975, 2)) ** 2
    assert all_right[:3] == pytest.approx((1, 1 / (1 + z * z / n), 1))
    alone = intervals.share(np.ones(3, bool), np.arange(3))  # each its own: nothing is uncertain
    assert alone[:3] == pytest.approx((1, 1 / (1 + z * z / 3), 1))
    none = intervals.share(np.zeros(3, bool), np.arange(3))
    assert none[:3] == pytest.approx((0, 0, 1 - 1 / (1 + z * z / 3)))


def test_a_mean_of_clusters_and_an_influence_are_their_formulas() -> None:
    values, who = np.array([1.0, 2, 4, 8, 6]), np.array([0, 0, 1, 2, 2])
    residual = np.array([(1 + 2) - 2 * 4.2, 4 - 4.2, 14 - 2 * 4.2]) / 5
    error = np.sqrt(3 / 2 * (residual**2).sum())
    people = 1 / (0.4**2 + 0.2**2 + 0.4**2)
    half = stats.t.ppf(0.975, people - 1) * error
    assert intervals.mean(values, who) == pytest.approx((4.2, 4.2 - half, 4.2 + half, 5, 3))
    assert intervals.influence(values, who) == pytest.approx(half)
    # of two subjects t has one degree of freedom at least
    pair = intervals.mean(np.array([1.0, 2, 4]), np.array([0, 0, 1]))
    residual = np.array([3 - 2 * 7 / 3, 4 - 7 / 3]) / 3
    half = stats.t.ppf(0.975, 1) * np.sqrt(2 * (residual**2).sum())
    assert pair == pytest.approx((7 / 3, 7 / 3 - half, 7 / 3 + half, 3, 2))


def test_nothing_is_known_of_no_images() -> None:
    for nothing in (
        intervals.mean(np.array([]), np.array([])),
        intervals.mean(np.array([np.nan]), np.array([1])),
        intervals.share(np.array([], bool), np.array([])),
    ):
        assert np.isnan(nothing[:3]).all() and nothing[3:] == (0, 0)
