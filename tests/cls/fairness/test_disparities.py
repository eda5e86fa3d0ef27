"""Gaps, fairness measures and worst subgroups beside a library and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as peers

from cmrcls.fairness.disparities import MEASURES, Measure, measure
from cmrcls.fairness.display.tables import parity_cells, plain
from cmrcls.fairness.resampling import MIN_SUBJECTS_FOR_INTERVAL
from cmrcls.fairness.study import (
    RUN_COLUMNS,
)
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


def test_renaming_seeds_changes_nothing_and_equal_seeds_add_no_certainty():
    one = small(seeds=3, n=300)
    options = {"resamples": 100, "permutations": 8}
    rows = measured(one, **options).subgroups
    renamed = one._replace(runs=one.runs.assign(seed="7" + one.runs.seed))
    pd.testing.assert_frame_equal(rows, measured(renamed, **options).subgroups)
    lone = small(seeds=1, n=300, arms=("Real",))
    table = pd.DataFrame(
        [(lone.arms[0], "", "", str(seed)) for seed in range(5)], columns=RUN_COLUMNS
    )
    many = lone._replace(
        runs=table, probability=lone.probability.repeat(5, 1), decision=lone.decision.repeat(5, 1)
    )
    once, more = (measured(of, **options).subgroups for of in (lone, many))
    np.testing.assert_allclose(once.high - once.low, more.high - more.low, atol=1e-5)


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
