"""Gaps and worst subgroups less what picking extremes adds: properties on rates whose truth is
known."""

from __future__ import annotations

import numpy as np
import pytest

from cmrcls.fairness import extremes
from cmrcls.fairness.disparities import measure
from cmrcls.fairness.extremes import Part, Trained, gap, lowest, shuffled
from cmrcls.fairness.levels import arm_levels
from cmrcls.fairness.subgroups import Crossing, Division
from support.fake_runs import study_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def part(
    rates: list[float], *, error: float = 0.02, training: float = 0.0, draws: int = 4000
) -> Part:
    """Subgroups' rates, each with the same standard error."""
    rates_, k = np.array(rates), len(rates)
    noise = error * rng(1).standard_normal((draws, k))
    trained = Trained(training**2, np.full(draws, training**2))
    return Part(rates_, np.full(k, error**2), noise, np.full((draws, k), error**2), trained)


SEX = Crossing(("sex",))


def axis(codes: np.ndarray, count: int) -> Division:
    return Division(SEX, [str(k) for k in range(count)], codes)


# permuted subgroups


def test_the_first_rates_are_the_observed_ones_and_the_others_keep_labels_and_sizes():
    r = rng()
    label, codes = r.integers(0, 2, 300), r.integers(0, 3, 300)
    decided = (r.random((300, 2)) < 0.3 + 0.4 * label[:, None]).astype(float)
    found = shuffled(decided, label, [axis(codes, 3)], fold=None, permutations=200, rng=rng(1))[SEX]
    for k in range(3):
        sick, well = (codes == k) & (label == 1), (codes == k) & (label == 0)
        tpr, fpr = decided[sick].mean(axis=0), decided[well].mean(axis=0)
        assert found["sensitivity"].rate[0, k] == pytest.approx(tpr, abs=1e-6)
        assert found["false_positive_rate"].rate[0, k] == pytest.approx(fpr, abs=1e-6)
        assert found["balanced_accuracy"].rate[0, k] == pytest.approx((tpr + 1 - fpr) / 2, abs=1e-6)
        assert found["selection_rate"].rate[0, k] == pytest.approx(
            decided[codes == k].mean(axis=0), abs=1e-6
        )
    # within a label each subgroup keeps its size, so the sum over subgroups never changes
    sizes = np.array([((codes == k) & (label == 1)).sum() for k in range(3)])
    totals = np.einsum("bka,k->ba", found["sensitivity"].rate, sizes)
    assert totals == pytest.approx(np.tile(decided[label == 1].sum(axis=0), (201, 1)), abs=1e-3)
    assert np.ptp(found["sensitivity"].rate[1:, 0, 0]) > 0


def test_subjects_are_permuted_within_their_fold():
    """One fold decides everything, the other nothing, and each subgroup is in one fold: permuting
    can move nothing."""
    label = np.array([0, 1] * 100)
    fold = np.repeat([0, 1], 100)
    decided = fold[:, None].astype(float)
    options = {"permutations": 50, "rng": rng()}
    within = shuffled(decided, label, [axis(fold, 2)], fold=fold, **options)[SEX][
        "selection_rate"
    ].rate
    freely = shuffled(decided, label, [axis(fold, 2)], fold=None, **options)[SEX][
        "selection_rate"
    ].rate
    assert (within == within[0]).all() and freely[1:].std() > 0


def test_whoever_is_of_unknown_subgroup_stays_out():
    label, codes = np.array([0, 1] * 50), np.r_[np.full(20, -1), np.arange(80) % 2]
    decided = np.r_[np.ones(20), np.zeros(80)][:, None]
    found = shuffled(decided, label, [axis(codes, 2)], fold=None, permutations=20, rng=rng())
    assert (found[SEX]["selection_rate"].rate == 0).all()


def test_permutations_give_the_variance_of_a_rate():
    r = rng()
    label, codes = np.zeros(4000, int), r.integers(0, 4, 4000)
    label[0] = 1
    decided = (r.random((4000, 1)) < 0.3).astype(float)
    found = shuffled(decided, label, [axis(codes, 4)], fold=None, permutations=1000, rng=rng(1))[
        SEX
    ]["false_positive_rate"]
    n = (codes == 0).sum()
    expected = 0.3 * 0.7 / n
    assert found.variance[0, 0, 0] == pytest.approx(expected, rel=0.1)
    # drawn without replacement
    assert found.rate[1:, 0, 0].var() == pytest.approx(expected * (1 - n / 4000), rel=0.15)


# gaps


def test_of_equal_subgroups_the_corrected_gap_is_nothing_on_average():
    observed, corrected, alarms = [], [], []
    for draw in range(200):
        rates = 0.7 + 0.02 * rng(draw).standard_normal(9)
        one = gap([part(list(rates), draws=500)], level=0.95, rng=rng())
        observed.append(one.observed)
        corrected.append(one.corrected)
        alarms.append(one.low > 0)
    assert np.mean(observed) == pytest.approx(
        np.mean([np.ptp(0.02 * rng(k).standard_normal(9)) for k in range(200)]), rel=0.01
    )
    assert (
        np.mean(observed) > 0.05
        and np.median(corrected) < 0.02
        and np.mean(alarms) < 0.05 + 3 * 0.016
    )


def test_a_large_gap_is_hardly_corrected_and_its_interval_is_around_it():
    one = gap([part([0.5, 0.9, 0.7])], level=0.95, rng=rng())
    assert (
        one.corrected == pytest.approx(0.4, abs=0.005)
        and one.low < 0.4 < one.high
        and one.p < 0.001
    )
    assert one.high - one.low < 6 * 0.02 * np.sqrt(2)
    assert one.between_sd == pytest.approx(np.std([0.5, 0.9, 0.7], ddof=1), rel=0.02)


def test_expected_is_the_range_of_normals():
    """Nine alike: the mean range of nine normals is 2.970 standard errors (Tippett 1925)."""
    one = gap([part([0.7] * 9, draws=20_000)], level=0.95, rng=rng())
    assert (
        one.expected == pytest.approx(2.970 * 0.02, rel=0.02) and one.observed == 0 and one.p == 1
    )


def test_chance_of_training_widens_what_equal_subgroups_give():
    few, more = (
        gap([part([0.6, 0.7, 0.65], training=sd)], level=0.95, rng=rng()) for sd in (0.0, 0.04)
    )
    assert (
        more.expected > few.expected
        and more.p > few.p
        and more.low < few.low
        and more.corrected < few.corrected
    )


def test_of_two_rates_the_wider_gap_is_told():
    one = gap([part([0.7, 0.72]), part([0.2, 0.4])], level=0.95, rng=rng())
    assert (one.where, one.observed) == (1, pytest.approx(0.2))


def test_the_corrected_gap_never_exceeds_the_observed_and_lies_in_its_interval():
    for draw in range(30):
        r = rng(draw)
        one = gap(
            [part(list(r.uniform(0.5, 0.9, r.integers(2, 10))), error=0.04, draws=400)],
            level=0.95,
            rng=rng(),
        )
        assert (
            0 <= one.low <= one.corrected <= one.high <= 1 and one.corrected <= one.observed + 1e-9
        )


# worst subgroups


def test_the_worst_of_equal_subgroups_is_corrected_upwards():
    one = lowest(part([0.66, 0.7, 0.71, 0.72, 0.73, 0.7]), rng=rng())
    assert one.observed == 0.66 and one.observed < one.corrected < 0.71 and one.p > 0.05
    apart = lowest(part([0.4, 0.7, 0.71]), rng=rng())
    assert apart.corrected == pytest.approx(0.4, abs=0.005) and apart.p < 0.001


def test_what_moves_all_subgroups_moves_the_worst_as_much():
    one = lowest(part([0.68, 0.7, 0.71, 0.72]), rng=rng())
    draws = one.rates + np.linspace(-0.2, 0.2, 9)[:, None]
    assert (
        np.diff(one.freed(draws)) == pytest.approx(0.05)
        and one.freed(one.rates[None])[0] >= one.corrected
    )


def test_replicates_that_shift_all_subgroups_alike_add_no_chance_to_gaps():
    label = np.array([0, 1] * 10)
    one = study_of(np.zeros((20, 5), int), [("x", "0", "0", str(k)) for k in range(5)], label=label)
    common = rng().normal(0.7, 0.1, (5, 1)) + np.array([0.0, 0.1, 0.2])
    assert extremes.trained(
        arm_levels(one.runs), common, draws=50, rng=rng()
    ).variance == pytest.approx(0, abs=1e-12)
    own = 0.7 + 0.1 * rng().standard_normal((5, 3))
    found = extremes.trained(arm_levels(one.runs), own, draws=4000, rng=rng())
    assert found.variance > 0 and found.draws.mean() == pytest.approx(found.variance, rel=0.1)


# through the whole of it


def equal_study(draw: int, *, subjects: int = 600) -> np.ndarray:
    """Gaps' p by axis and arm of two arms of 3 seeds, whose decisions do not depend on the
    subgroup."""
    r = rng(draw)
    label = (r.random(subjects) < 0.3).astype(int)
    score = (
        1.5 * label[:, None]
        + r.standard_normal((subjects, 1))
        + 0.5 * r.standard_normal((subjects, 6))
    )
    rows = [(arm, "", "", str(seed)) for arm in ("Real", "Real + 9") for seed in range(3)]
    columns = {
        "sex": r.choice(["F", "M"], subjects),
        "age_band": r.choice(["<60", "60-70", "70+"], subjects),
    }
    one = study_of((score > 0.75).astype(int), rows, label=label, **columns)
    table = measure(one, resamples=20, permutations=100, seed=draw).disparities
    return (table[table.measure == "balanced_accuracy"].p <= 0.05).to_numpy()


@pytest.mark.slow  # half a minute
def test_equal_subgroups_are_called_unequal_in_no_more_than_5_percent_of_studies():
    alarms = np.mean([equal_study(draw) for draw in range(60)], axis=0)
    assert alarms.max() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_where_chance_has_no_spread_in_some_draws_the_interval_excludes_nothing():
    """Subgroups of one or two: half of the permutations give all of them the same rate."""
    steady = part([0.4, 0.7], error=0.1, draws=400)
    spread = steady.spread.copy()
    spread[::2] = 0
    found = gap(
        [steady._replace(spread=spread), part([0.5, 0.5], draws=400)], level=0.95, rng=rng()
    )
    assert (found.low, found.high) == (0.0, 1.0)
