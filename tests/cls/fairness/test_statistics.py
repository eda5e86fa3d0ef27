import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmrcls.fairness import statistics
from cmrcls.fairness.statistics import (
    compare_arms,
    corrected_for_many,
    friedman,
    holm,
    interval,
    moves,
    resample,
    signed_rank,
)
from cmrcls.fairness.study import Study
from support.fake_runs import study_of


def rng(seed=0):
    return np.random.default_rng(seed)


def with_runs(rows: list[tuple[str, str, str, str]]) -> Study:
    """A study of these runs (arm, generator, set, seed), whatever they predict."""
    label = np.array([0, 1] * 5)
    return study_of(np.zeros((10, len(rows)), int), rows, label=label)


def between(study: Study, values: np.ndarray) -> statistics.Compared:
    """Its two arms compared."""
    return compare_arms(study, values, *study.arms)


def seeds_of(*arms: str, seeds: int) -> list[tuple[str, str, str, str]]:
    return [(arm, "", "", str(seed)) for arm in arms for seed in range(seeds)]


def test_a_resample_draws_all_subjects_with_replacement():
    counts = resample(30, resamples=2000, rng=rng())
    assert counts.shape == (2000, 30) and (counts.sum(axis=1) == 30).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(30), abs=0.15)
    assert counts.var() == pytest.approx(1 - 1 / 30, abs=0.03)  # multinomial


def test_seeds_move_the_mean_as_students_t():
    scores = np.array([0.70, 0.74, 0.71, 0.78, 0.66])
    drawn = moves(with_runs(seeds_of("x", seeds=5)), resamples=200_000, rng=rng())
    assert drawn.sum(axis=1) == pytest.approx(0, abs=1e-9)
    standard = drawn @ scores / (scores.std(ddof=1) / np.sqrt(5))
    for q in (0.025, 0.5, 0.9, 0.975):
        assert np.quantile(standard, q) == pytest.approx(stats.t.ppf(q, 4), abs=0.05)


def test_seeds_of_one_name_move_together_and_too_few_not_at_all():
    rows = [*seeds_of("x", seeds=3), *seeds_of("y", seeds=3)[::-1], *seeds_of("z", seeds=2)]
    drawn = moves(with_runs(rows), resamples=50, rng=rng())
    assert np.allclose(drawn[:, [0, 1, 2]], drawn[:, [5, 4, 3]]) and drawn[:, :6].any()
    assert (drawn[:, 6:] == 0).all()


def test_the_interval_is_wider_than_percentiles_and_never_false_certainty():
    draws = rng().standard_normal(10_000)
    low, high = interval(draws, rests_on=10**6)
    assert (low, high) == (pytest.approx(-1.96, abs=0.08), pytest.approx(1.96, abs=0.08))
    assert interval(draws, rests_on=10)[1] == pytest.approx(
        np.sqrt(10 / 9) * stats.t.ppf(0.975, 9), abs=0.15
    )
    assert interval(draws, rests_on=10**6, limits=(-1, 1)) == (-1, 1)
    for nothing in (np.ones(100), np.full(100, np.nan), np.r_[draws, np.nan]):
        assert np.isnan(interval(nothing, rests_on=10**6)).all()
    assert np.isnan(interval(draws, rests_on=1)).all()


# levels: what an arm's mean holds


GRID = [("x", str(g), str(s), str(k)) for g in range(4) for s in range(2) for k in range(2)]


def nested(generator: float, made: float, seed: float, *, draw: int) -> np.ndarray:
    """Scores of GRID: normal parts of generators, sets and seeds (runs) with these standard
    deviations."""
    r = rng(draw)
    of_set = np.repeat(generator * r.standard_normal(4), 2) + made * r.standard_normal(8)
    return np.repeat(of_set, 2) + seed * r.standard_normal(16)


def alarms(
    rows: list[tuple[str, str, str, str]], parts: tuple[float, float, float], *, draws: int
) -> float:
    """How often two arms of runs `rows` that are alike differ with p <= 0.05; levels are found
    once."""
    of = with_runs([("x", *row[1:]) for row in rows] + [("y", *row[1:]) for row in rows])
    arms = [statistics._arm_levels(of, one) for one in of.arms]
    tests = []
    for draw in range(draws):
        x, y = nested(*parts, draw=draw), nested(*parts, draw=10_000 + draw)
        tests.append(statistics._t_test(np.r_[x, y], arms, y.mean() - x.mean()).p <= 0.05)
    return float(np.mean(tests))


@pytest.mark.parametrize("parts", [(1.0, 0.3, 0.3), (0.0, 1.0, 0.2), (0.0, 0.0, 1.0)])
def test_with_the_highest_level_as_unit_false_alarms_stay_at_5_percent(parts):
    assert alarms(GRID, parts, draws=1000) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


def test_seeds_as_units_call_two_generators_different():
    """What the level above is for: the same scores, with generator and set forgotten, give false
    alarms."""
    assert alarms([("x", "0", "0", str(k)) for k in range(16)], (1.0, 0.3, 0.3), draws=300) > 0.2


def test_an_arm_of_four_generators_is_tested_over_them():
    rows = [*GRID, *[("y", *row[1:]) for row in GRID]]
    values = np.r_[nested(1, 0, 0, draw=0), nested(1, 0, 0, draw=1)]
    one = between(with_runs(rows), values)
    assert (one.test, one.unit, one.pairs) == ("t", "generator", 4)


def test_the_unit_is_the_highest_level_though_fewer_seeds_vary_beside_it():
    rows = [(arm, str(g), "0", str(s)) for arm in "xy" for g in range(4) for s in range(3)]
    one = between(with_runs(rows), rng().standard_normal(24))
    assert (one.test, one.unit, one.pairs) == ("t", "generator", 4)
    # of two arms of other numbers the smaller one counts
    fewer = [row for row in rows if row[:2] != ("y", "3")]
    one = between(with_runs(fewer), rng().standard_normal(21))
    assert (one.unit, one.pairs) == ("generator", 3)


def test_a_t_test_between_generators_equals_the_paired_t_test_of_their_means():
    rows = [*GRID, *[("y", *row[1:]) for row in GRID]]
    values = np.r_[nested(1.0, 0.0, 0.0, draw=1), nested(1.0, 0.0, 0.0, draw=2)]
    x, y = (values[k : k + 16].reshape(4, 4).mean(axis=1) for k in (0, 16))
    one = between(with_runs(rows), values)
    assert (one.difference, one.p) == (
        pytest.approx((y - x).mean()),
        pytest.approx(stats.ttest_rel(x, y).pvalue),
    )


def test_real_images_have_seeds_and_the_other_arm_generators():
    rows = [*seeds_of("Real", seeds=8), *GRID]
    values = np.r_[rng(1).normal(0.7, 0.01, 8), 0.9 + 0.01 * nested(1, 0.1, 0.1, draw=3)]
    one = between(with_runs(rows), values)
    assert (one.test, one.unit, one.pairs) == ("t", "generator", 4) and one.p < 0.001
    lone = with_runs([*seeds_of("Real", seeds=2), *GRID])
    few = between(lone, np.r_[values[:2], values[8:]])
    assert np.isnan(few.p)  # Real's own chance of training can't be told


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
    assert signed_rank([0, 0]) == (1.0, 0) and signed_rank(np.arange(1, 9))[0] == pytest.approx(
        2 / 2**8
    )


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1.0, 1.0]) and len(holm([])) == 0


def scores(arms=4, seeds=8, seed=0):
    table = rng(seed).normal(0.7, 0.02, (seeds, arms)) + 0.05 * np.arange(arms)
    return pd.DataFrame(table, columns=[f"arm {k}" for k in range(arms)])


def all_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Every two columns of a table of scores (rows: seeds) tested; what is missing has no run."""
    long = table.rename_axis("seed").reset_index().melt("seed", var_name="arm").dropna()
    rows = [(row.arm, "", "", str(row.seed)) for row in long.itertuples()]
    return statistics.compare_all_arms(with_runs(rows), long.value.to_numpy())


def test_eight_seeds_and_four_arms_can_just_be_told_apart():
    table = all_pairs(scores() + [0, 1, 2, 3])
    assert table.p.tolist() == pytest.approx(
        [2 / 2**8] * 6
    ) and table.p_holm.max() == pytest.approx(6 / 2**7)
    assert (
        (table.better == table.second).all()
        and (table.note == "").all()
        and (table.pairs == 8).all()
    )
    turned = corrected_for_many(table, higher_is_better=False)
    assert (turned.better == table["first"]).all()


def test_too_few_seeds_are_told_in_words():
    table = all_pairs(scores(arms=2, seeds=5))
    assert table.note.tolist() == ["underpowered: 5 pairs in 1 comparisons give no p below 0.0625"]
    part = scores(arms=2, seeds=4)
    part.iloc[:2, 0], part.iloc[2:, 1] = np.nan, np.nan
    alone = all_pairs(part).iloc[0]
    assert (
        alone.note == "no seed in common"
        and np.isnan(alone.p)
        and np.isnan(alone.p_holm)
        and alone.pairs == 0
    )


def test_friedman_equals_scipy_and_nemenyi_the_published_table():
    table = scores()
    found = friedman(table)
    assert (found.statistic, found.p) == pytest.approx(
        tuple(stats.friedmanchisquare(*table.to_numpy().T))
    )
    assert (
        found.ranks.sum() == pytest.approx(10)
        and found.ranks.idxmin() == "arm 3"
        and found.blocks == 8
    )
    q = {3: 2.343, 4: 2.569, 5: 2.728, 10: 3.164}  # Demsar 2006, Table 5(a), alpha = 0.05
    for k, value in q.items():
        critical = friedman(scores(arms=k, seeds=9)).critical_difference
        assert critical == pytest.approx(value * np.sqrt(k * (k + 1) / 54), abs=2e-3)


def test_friedman_says_what_it_leaves_out_and_what_it_cannot_tell():
    table = scores()
    table.iloc[0, 0] = np.nan
    assert (
        friedman(table).warnings[0].startswith("1 of 8 seeds are not in every arm")
        and friedman(table).blocks == 7
    )
    assert "needs 3 arms" in friedman(scores(arms=2)).warnings[0]
    assert "Underpowered: with 2 seeds" in friedman(scores(seeds=2)).warnings[0]
    tied = friedman(scores() * 0)
    assert tied.p == 1 and tied.ranks.tolist() == [2.5] * 4
