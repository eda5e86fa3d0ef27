"""Gaps, fairness measures and worst subgroups beside a library and by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as peers

from cmrcls.fairness import disparities
from cmrcls.fairness.disparities import MEASURES, Measure, Spread, Spreads, measure
from cmrcls.fairness.display.tables import parity_cells, plain
from cmrcls.fairness.resampling import MIN_SUBJECTS_FOR_INTERVAL, Score
from cmrcls.fairness.subgroups import Crossing
from cmrdata.axes import AXES
from support.fake_runs import (
    one_study,
    runs,
    small,
    two_sexes,
)
from support.printed import measured


@pytest.mark.parametrize("seed", range(2))
def test_fairness_measures_equal_fairlearn(seed):
    one = small(seed=seed, arms=("Real",), n=150)
    rows = measured(one, resamples=8, permutations=8).disparities.set_index(["axis", "measure"])
    label, decided = one.subjects.label, one.decision[:, 0]
    for axis in AXES:
        pair = {"sensitive_features": one.subjects[axis]}
        for name, peer in (
            ("demographic_parity", "demographic_parity"),
            ("equal_opportunity", "equal_opportunity"),
            ("equalised_odds", "equalized_odds"),
        ):
            row = rows.loc[axis, name]
            assert row.difference == pytest.approx(
                getattr(peers, f"{peer}_difference")(label, decided, **pair)
            ), name
            assert row.ratio == pytest.approx(
                getattr(peers, f"{peer}_ratio")(label, decided, **pair)
            ), name


def test_gap_and_reduction_by_hand():
    found = measured(two_sexes(), resamples=500, permutations=200)
    gap = found.disparities.query("measure == 'balanced_accuracy'").set_index("arm")
    assert (
        gap.difference.tolist() == pytest.approx([0.2, 0.1])
        and gap.lowest.tolist() == ["Female"] * 2
    )
    # so far apart nothing is picked by chance
    assert gap.corrected.tolist() == pytest.approx([0.2, 0.1], abs=0.005)
    more = gap.loc["Real + 2000"]
    assert (more.change, more.reduction) == (
        pytest.approx(-0.1, abs=0.005),
        pytest.approx(0.5, abs=0.02),
    )
    assert (
        more.change_low < -0.1 < more.change_high and more.reduction_low < 0.5 < more.reduction_high
    )
    assert gap.low["Real"] > 0.1 and gap.high["Real"] < 0.3 and (gap.p < 0.01).all()
    worst = found.worst.set_index("arm")
    assert worst.worst.tolist() == ["Female"] * 2 and worst.observed.tolist() == pytest.approx(
        [0.7, 0.7]
    )
    assert worst.corrected.tolist() == pytest.approx([0.7, 0.7], abs=0.005)
    assert (worst.low < 0.7).all() and (worst.high > 0.7).all()


def test_a_reduction_of_a_gap_that_may_be_nothing_is_not_told():
    rows = measured(small(n=600, seeds=1), resamples=200, permutations=200).disparities
    assert rows.reduction_low.isna().all()  # of noise: no gap is surely above 0
    told = measured(two_sexes(), resamples=200, permutations=200).disparities.reduction_low
    assert told.notna().any()


def test_small_groups_have_words_in_place_of_an_interval():
    found = measured(small(n=150, prevalence=0.15), resamples=40, permutations=40)
    rows = found.subgroups[found.subgroups.metric == "sensitivity"]
    few = rows[(rows.positives < MIN_SUBJECTS_FOR_INTERVAL) & (rows.positives > 0)]
    assert len(few) and few.low.isna().all()
    assert few.note.str.fullmatch(
        rf"rests on \d+ subjects?, fewer than {MIN_SUBJECTS_FOR_INTERVAL}"
    ).all()
    gap = found.disparities[
        (found.disparities.axis == "sex x bmi_band")
        & (found.disparities.measure == "balanced_accuracy")
    ]
    assert gap.low.isna().all() and gap.note.str.contains("fewer than").all()


def test_a_one_class_subgroup_is_left_out_of_gaps_by_name():
    table = runs(seeds=1, n=300)
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 0
    gap = measured(one_study(table), resamples=8, permutations=8).disparities.set_index(
        ["axis", "measure", "arm"]
    )
    assert gap.loc[("age_band", "balanced_accuracy", "Real"), "left_out"] == "Age < 60"
    assert gap.loc[("age_band", "demographic_parity", "Real"), "left_out"] == ""


def test_a_measure_from_outside_has_rows_beside_the_others(monkeypatch):
    """Predictive equality: false positive rates alone; the other rows stay as they were."""
    one, draws = small(seeds=2, n=300), {"resamples": 8, "permutations": 8}
    before = measured(one, **draws).disparities
    row = Measure("predictive equality", ("false_positive_rate",))
    monkeypatch.setitem(MEASURES, "predictive_equality", row)
    after = measured(one, **draws).disparities
    kept = after[after.measure != "predictive_equality"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    own = after[(after.measure == "predictive_equality") & (after.axis == "sex")]
    rates = one.decision[one.subjects.label == 0]
    women = (one.subjects.sex == "F")[one.subjects.label == 0].to_numpy()
    for k, gap in enumerate(own.difference):
        runs_of_arm = rates[:, one.positions(one.arms[k])]
        expected = runs_of_arm[women].mean() - runs_of_arm[~women].mean()
        assert gap == pytest.approx(abs(expected))
    assert set(parity_cells(measure(one, **draws).disparities).measure) >= {"predictive equality"}


def test_a_measure_of_a_rate_that_cannot_be_permuted_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(MEASURES, "auroc_gap", Measure("AUROC gap", ("auroc",)))
    with pytest.raises(ValueError, match=r"MEASURES\['auroc_gap'\]: auroc is no rate that gaps"):
        measure(small(), resamples=8, permutations=8)


def test_tables_hold_arms_and_axes_as_they_are():
    found = measure(small(n=120), resamples=8, permutations=8)
    crossed = found.disparities[found.disparities.crossed == 2].iloc[0]
    assert crossed.axis == Crossing(("sex", "age_band")) and crossed.arm.values == {"synthetic": 0}
    assert plain(found.disparities).axis.iloc[-1] == "sex x age_band x bmi_band"
    assert set(found.tests.measure) == {"gap", "worst"}


def score(**changed: Any) -> Score:
    nothing = np.zeros(2)
    usual = Score(nothing, nothing, nothing, np.array([0.04, 0.0]), [0.0, 0.0], None, 30)
    return usual._replace(**changed)


def test_folds_widen_by_what_their_spread_exceeds_that_of_subjects():
    apart = np.array([[0.3, 0.1], [-0.4, 0.2], [0.2, -0.5]])
    ratio = 3 * np.var(apart[:, 0], ddof=1) / 0.04
    assert ratio > 1
    assert disparities._dispersion([score(folds=apart)], 0) == pytest.approx(ratio)
    both = [score(folds=apart), score(folds=apart / 100)]
    assert disparities._dispersion(both, 0) == pytest.approx(ratio * (1 + 1e-4) / 2)
    assert disparities._dispersion([score(folds=apart / 100)], 0) == 1
    # two folds, none, and a subgroup that doesn't vary tell nothing
    for silent in (score(folds=apart[:2]), score()):
        assert disparities._dispersion([silent], 0) == 1
    assert disparities._dispersion([score(folds=apart)], 1) == 1


def test_an_upper_limit_of_the_worst_holds_for_all_subgroups_at_once():
    draws = np.random.default_rng(0).standard_normal((4000, 2)) * [0.02, 0.1]
    limit = disparities._below_all(np.array([0.7, 0.65]), draws)
    # each at 1.96 of its own error and a little more, as there are two
    assert 0.7 + 2.1 * 0.02 < limit < 0.7 + 2.5 * 0.02
    assert disparities._below_all(np.array([0.999, 0.999]), draws) == 1
    assert np.isnan(disparities._below_all(np.array([0.7, 0.6]), draws * [1, 0]))


def test_a_gap_is_divided_by_where_it_is_surely_there():
    def base(low: float, corrected: float, draws: np.ndarray) -> Any:
        gap = SimpleNamespace(low=low, corrected=corrected)
        return Spread(gap, draws, {})  # type: ignore[type-var]

    near = np.linspace(0.15, 0.25, 201)
    assert disparities._is_apart(base(0.1, 0.2, near))
    assert not disparities._is_apart(base(0.0, 0.2, near))
    assert not disparities._is_apart(base(0.1, 0.2, near - 0.15))


def spreads_of(*arms: tuple[float, np.ndarray], fewest: int = 30) -> Any:
    made = [Spread(SimpleNamespace(corrected=value), draws, {}) for value, draws in arms]  # type: ignore[type-var]
    return Spreads(made, fewest, {})  # type: ignore[arg-type]


def test_a_test_between_arms_counts_the_draws_beyond_nothing():
    first = np.zeros(99)
    second = np.r_[np.full(90, 0.1), np.full(9, -0.1)]
    arms = [SimpleNamespace(arm=name) for name in ("a", "b")]
    boot: Any = SimpleNamespace(arms=arms)
    spreads = spreads_of((0.3, first), (0.2, second))
    told = disparities._extreme_tests(boot, spreads, higher_is_better=False).iloc[0]
    assert told.difference == pytest.approx(-0.1) and told.better == "b"
    assert told.p == pytest.approx(2 * (1 + 9) / 100)
    changed = disparities._change(spreads, 1, 0)
    assert changed["change"] == pytest.approx(-0.1)
    assert changed["change_low"] <= -0.1 + 1e-9 and changed["change_high"] >= 0.1 - 1e-9
    far = disparities._change(spreads_of((0.3, first), (0.2, np.linspace(-3, 3, 99))), 1, 0)
    assert (far["change_low"], far["change_high"]) == (-1, 1)  # what a difference can be
    alike = disparities._extreme_tests(
        boot, spreads_of((0.3, first), (0.3, first)), higher_is_better=True
    )
    assert alike.p[0] == 1 and alike.better[0] == ""
    few = spreads_of((0.3, first), (0.2, second), fewest=MIN_SUBJECTS_FOR_INTERVAL - 1)
    told = disparities._extreme_tests(boot, few, higher_is_better=True).iloc[0]
    assert np.isnan(told.p) and told.difference == pytest.approx(-0.1)
    nothing = disparities._extreme_tests(boot, spreads_of(), higher_is_better=True).iloc[0]
    assert np.isnan(nothing.p) and np.isnan(nothing.difference)


def test_ratios_are_of_the_rate_that_is_furthest_apart():
    def part(*rates: float) -> Any:
        noise = np.array([[0.0, 0.1, -0.1], [0.2, 0.0, 0.0]])
        return SimpleNamespace(rate=np.array(rates), noise=noise)

    parts = [part(0.5, 0.6, 0.4), part(0.9, 0.8, 0.9)]
    gap: Any = SimpleNamespace(parts=[np.array([0.5, 0.55, 0.45]), np.array([-0.1, 0.8, 0.9])])
    told = disparities._ratios(parts, gap)
    equal = [min(0.4 / 0.6, (2.6 / 3 - 0.1) / (2.6 / 3 + 0.1)), min(0.5 / 0.7, (2.6 / 3) / 1)]
    assert told["ratio"] == pytest.approx(0.4 / 0.6)
    assert told["ratio_expected"] == pytest.approx(np.mean(equal), abs=0.02)
    assert told["ratio_corrected"] == 0  # no rate is negative
    assert disparities._ratios([part(0.0, 0.0, 0.0)], gap) == {}
