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
