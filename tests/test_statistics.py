import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmrcls.statistics import (
    Interval,
    friedman,
    holm,
    interval,
    mean_draws,
    paired_tests,
    resample,
    seed_moves,
    signed_rank,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_resample_keeps_the_size_of_every_stratum():
    strata = np.array(["a"] * 7 + ["b"] * 1 + ["a"] * 3 + ["c"] * 20)
    counts = resample(strata, resamples=500, rng=rng())
    assert counts.shape == (500, 31)
    for name, size in (("a", 10), ("b", 1), ("c", 20)):
        assert (counts[:, strata == name].sum(axis=1) == size).all()
    drawn = counts[:, strata == "c"]
    assert drawn.mean(axis=0) == pytest.approx(np.ones(20), abs=0.2)
    assert drawn.var() == pytest.approx(0.95, abs=0.05)  # multinomial: 1 - 1/20


def test_seeds_move_the_mean_as_students_t():
    scores = np.array([0.70, 0.74, 0.71, 0.78, 0.66])
    moves = seed_moves(["x"] * 5, range(5), resamples=200_000, rng=rng())
    assert moves.sum(axis=1) == pytest.approx(0, abs=1e-9)
    standard = moves @ scores / (scores.std(ddof=1) / np.sqrt(5))
    for q in (0.025, 0.5, 0.9, 0.975):
        assert np.quantile(standard, q) == pytest.approx(stats.t.ppf(q, 4), abs=0.05)


def test_seeds_of_one_name_move_together_and_a_lone_one_not_at_all():
    moves = seed_moves(["x", "x", "y", "y", "z"], [0, 1, 1, 0, 0], resamples=50, rng=rng())
    assert (moves[:, [0, 1]] == moves[:, [3, 2]]).all() and (moves[:, 4] == 0).all() and moves[:, :4].any()


def test_renaming_seeds_changes_nothing():
    names, renamed = [0, 1, 2] * 2, ["a", "b", "c"] * 2
    one, other = (seed_moves(["x"] * 3 + ["y"] * 3, s, resamples=20, rng=rng()) for s in (names, renamed))
    assert (one == other).all()


def test_the_same_predictions_by_more_seeds_do_not_shrink_the_interval():
    data, draws = (rng().random(40) < 0.7).astype(float), {}
    counts = resample(np.zeros(40), resamples=4000, rng=rng(1))
    for seeds in (1, 8):
        drawn = (counts @ np.repeat(data[:, None], seeds, axis=1)) / 40
        moves = seed_moves(["x"] * seeds, range(seeds), resamples=4000, rng=rng(2))
        draws[seeds] = interval(mean_draws(np.full(seeds, data.mean()), drawn, moves), rests_on=40)
    assert draws[1].low == pytest.approx(draws[8].low) and draws[1].high == pytest.approx(draws[8].high)
    expected = stats.t.interval(0.95, 39, scale=data.std(ddof=1) / np.sqrt(40))
    assert draws[1].high - draws[1].low == pytest.approx(expected[1] - expected[0], rel=0.1)  # sums of 40


def test_chance_of_single_predictions_is_counted_once():
    """With nothing but independent predictions the draws spread as the mean over seeds does."""
    data = (rng(3).random((300, 8)) < 0.5).astype(float)
    counts = resample(np.zeros(300), resamples=4000, rng=rng(1))
    moves = seed_moves(["x"] * 8, range(8), resamples=4000, rng=rng(2))
    spread = mean_draws(data.mean(axis=0), counts @ data / 300, moves)
    t = stats.t.std(7) * data.mean(axis=0).std(ddof=1) / np.sqrt(8)
    binomial = 0.5 / np.sqrt(300 * 8)
    assert spread.std() < np.hypot(t, binomial)


def test_the_interval_guards_lost_groups_and_false_certainty():
    draws = rng().standard_normal(10_000)
    found = interval(draws, rests_on=10**6)
    assert (found.low, found.high, found.undefined) == (
        pytest.approx(-1.96, abs=0.08),
        pytest.approx(1.96, abs=0.08),
        0,
    )
    draws[:300] = np.nan
    assert interval(draws, rests_on=10**6).undefined == pytest.approx(0.03) and np.isfinite(
        interval(draws, rests_on=10**6).low
    )
    draws[:600] = np.nan
    assert np.isnan(interval(draws, rests_on=10**6).low) and interval(draws, rests_on=10**6).undefined == pytest.approx(
        0.06
    )
    assert np.isnan(interval(np.ones(100), rests_on=10**6).low)
    assert interval(np.full(100, np.nan), rests_on=10**6) == pytest.approx(Interval(np.nan, np.nan, 1.0), nan_ok=True)


@pytest.mark.parametrize("n", [3, 5, 8, 12, 20])
def test_signed_rank_equals_scipys_exact_test(n):
    for seed in range(10):
        d = rng(seed).standard_normal(n) + 0.3
        assert signed_rank(d) == (pytest.approx(stats.wilcoxon(d, method="exact").pvalue), n)


def test_signed_rank_with_ties_and_zeros_by_counting_all_signs():
    d = np.array([0.0, 0.1, 0.1, -0.1, 0.3, 0.4, -0.2])
    ranks = stats.rankdata(np.abs(d[1:]))
    signs = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1).T
    null, observed = signs @ ranks, ranks[d[1:] > 0].sum()
    expected = min(1, 2 * min((null <= observed).mean(), (null >= observed).mean()))
    assert signed_rank(d) == (pytest.approx(expected), 6)
    assert signed_rank([0, 0]) == (1.0, 0) and signed_rank(np.arange(1, 9))[0] == pytest.approx(2 / 2**8)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0]) and len(holm([])) == 0


def scores(arms=4, seeds=8, seed=0):
    table = rng(seed).normal(0.7, 0.02, (seeds, arms)) + 0.05 * np.arange(arms)
    return pd.DataFrame(table, columns=[f"arm {k}" for k in range(arms)])


def test_eight_seeds_and_four_arms_can_just_be_told_apart():
    table = paired_tests(scores() + [0, 1, 2, 3])
    assert table.p.tolist() == pytest.approx([2 / 2**8] * 6) and table.p_holm.max() == pytest.approx(6 / 2**7)
    assert (table.better == table.second).all() and (table.note == "").all() and (table.pairs == 8).all()
    assert (paired_tests(scores() + [0, 1, 2, 3], higher_is_better=False).better == table["first"]).all()


def test_too_few_seeds_are_told_in_words():
    table = paired_tests(scores(arms=2, seeds=5))
    assert table.note.tolist() == ["underpowered: 5 pairs in 1 comparisons give no p below 0.0625"]
    part = scores(arms=2, seeds=4)
    part.iloc[:2, 0], part.iloc[2:, 1] = np.nan, np.nan
    alone = paired_tests(part).iloc[0]
    assert alone.note == "no seed in common" and np.isnan(alone.p) and np.isnan(alone.p_holm) and alone.pairs == 0


def test_friedman_equals_scipy_and_nemenyi_the_published_table():
    table = scores()
    found = friedman(table)
    assert (found.statistic, found.p) == pytest.approx(tuple(stats.friedmanchisquare(*table.to_numpy().T)))
    assert found.ranks.sum() == pytest.approx(10) and found.ranks.idxmin() == "arm 3" and found.blocks == 8
    q = {3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}  # Demsar 2006, Table 5(a), alpha = 0.05
    for k, value in q.items():
        critical = friedman(scores(arms=k, seeds=9)).critical_difference
        assert critical == pytest.approx(value * np.sqrt(k * (k + 1) / 54), abs=2e-3)


def test_friedman_says_what_it_leaves_out_and_what_it_cannot_tell():
    table = scores()
    table.iloc[0, 0] = np.nan
    assert friedman(table).warnings[0].startswith("1 of 8 seeds are not in every arm") and friedman(table).blocks == 7
    assert "needs 3 arms" in friedman(scores(arms=2)).warnings[0]
    assert "Underpowered: with 2 seeds" in friedman(scores(seeds=2)).warnings[0]
    tied = friedman(scores() * 0)
    assert tied.p == 1 and tied.ranks.tolist() == [2.5] * 4
