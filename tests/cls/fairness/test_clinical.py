"""Thresholds chosen on validation, recalibration and net benefit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness import clinical
from cmrcls.fairness.clinical import (
    at_specificity,
    decision_curve,
    net_benefit,
    no_threshold,
    operating_table,
    recalibrated,
    thresholds_of,
    useful_thresholds,
)
from cmrcls.fairness.display.tables import threshold_cells
from cmrcls.fairness.metrics import Predicted, scored
from cmrcls.fairness.study import Study, Tuned
from support.fake_runs import runs, small, studies, study_of


def judged(*, subjects=800, runs=3, seed=0, shift=0.0, folds: int | None = None) -> Study:
    """Runs that tell disease well, with a validation of their own; `shift` of the test's
    logarithmic odds."""
    r = np.random.default_rng(seed)
    label = (r.random(subjects) < 0.2).astype(int)
    odds = 2 * label[:, None] - 1 + r.standard_normal((subjects, runs))
    rows = [("Real", "", "", str(k)) for k in range(runs)]
    fold = {} if folds is None else {"fold": np.arange(subjects) % folds}
    one = study_of(
        (odds > 0).astype(int), rows, label=label, sex=r.choice(["F", "M"], subjects), **fold
    )
    tuned = []
    for _ in range(runs):
        parts = {}
        for number in [None] if folds is None else range(folds):
            val = (r.random(300) < 0.2).astype(int)
            parts[number] = Tuned(val, 1 / (1 + np.exp(-(2 * val - 1 + r.standard_normal(300)))))
        tuned.append(parts)
    return one._replace(probability=1 / (1 + np.exp(-(odds + shift))), validation=tuned)


@pytest.mark.parametrize("folds", [None, 4])
@pytest.mark.parametrize("specificity", [0.8, 0.9, 0.975])
def test_the_threshold_is_the_lowest_that_keeps_the_specificity_on_validation(specificity, folds):
    one = judged(folds=folds)
    chosen = at_specificity(one, specificity)
    assert len(chosen.thresholds) == 3 * (folds or 1)
    for row in chosen.thresholds.itertuples():
        tuned = one.validation[row.run][None if folds is None else row.fold]
        healthy = tuned.probability[tuned.label == 0]
        assert (healthy <= row.threshold).mean() >= specificity > (healthy < row.threshold).mean()
        who = np.ones(800, bool) if folds is None else (one.subjects.fold == row.fold).to_numpy()
        assert (
            chosen.study.decision[who, row.run] == (one.probability[who, row.run] > row.threshold)
        ).all()


def test_the_test_subjects_choose_nothing():
    one, shifted = judged(), judged(shift=3.0)
    assert at_specificity(one, 0.9).thresholds.equals(at_specificity(shifted, 0.9).thresholds)
    reached = scored("specificity", at_specificity(shifted, 0.9).study.predicted).value
    assert (reached < 0.6).all()  # and it shows


def test_a_specificity_that_is_none_is_refused_by_name():
    for value in (0, 1, 90):
        with pytest.raises(
            ValueError, match=f"specificity={value}: it takes a share between 0 and 1"
        ):
            at_specificity(judged(), value)


def test_without_a_healthy_validation_subject_no_threshold_is_chosen():
    table = runs(seeds=1, n=60, arms=("Real",))
    assert no_threshold(studies(table)[0]) == ""
    table.loc[table.split == "val", "label"] = 1
    assert no_threshold(studies(table)[0]) == "a run has no healthy validation subject"
    lone = studies(table[table.split == "test"])[0]
    assert no_threshold(lone) == "a run has no healthy validation subject"


def test_the_operating_table_has_every_subgroup_and_tells_its_interval():
    table, thresholds = operating_table(judged(), specificity=0.9, axes=(), resamples=200, seed=0)
    assert set(table.subgroup) == {"Overall", "Female", "Male"} and set(table.metric) == {
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
    }
    told = table[table.note == ""]
    assert len(told) == 12 and (told.low < told["mean"]).all() and (told["mean"] < told.high).all()
    overall = table[(table.subgroup == "Overall")].set_index("metric")["mean"]
    assert 0.86 < overall.specificity < 0.94
    p, sens, spec = 0.2, overall.sensitivity, overall.specificity
    # Bayes, at 20 %
    assert overall.ppv == pytest.approx(p * sens / (p * sens + (1 - p) * (1 - spec)), abs=0.03)
    assert threshold_cells(thresholds).chosen.tolist() == [3]


def test_recalibration_mends_a_shift_of_training():
    """Trained at another prevalence, odds are shifted in validation and test alike; the fit on
    validation takes it out."""
    one = judged()
    odds = lambda p: np.log(p / (1 - p))  # noqa: E731
    off = lambda p: 1 / (1 + np.exp(-(odds(p) + 2.0)))  # noqa: E731
    moved = one._replace(
        probability=off(one.probability),
        validation=[
            {fold: Tuned(t.label, off(t.probability)) for fold, t in run.items()}
            for run in one.validation
        ],
    )
    mended = recalibrated(moved).probability
    assert (
        abs(moved.probability.mean() - 0.2) > 0.15
        and abs(mended.mean() - one.subjects.label.mean()) < 0.03
    )
    np.testing.assert_allclose(mended, recalibrated(one).probability, atol=1e-3)
    # the order stays
    assert (np.argsort(mended[:, 0]) == np.argsort(moved.probability[:, 0])).all()


def test_net_benefit_by_hand_and_of_treating_everybody():
    label = np.array([1, 1, 0, 0, 0])
    given = Predicted(
        label, np.zeros((5, 2)), np.array([[0.9, 1], [0.1, 1], [0.6, 1], [0.2, 1], [0.1, 1]])
    )
    value = scored(net_benefit(0.5), given).value
    assert value[0] == pytest.approx((1 - 1) / 5)
    assert scored(net_benefit(0.2), given).value.tolist() == pytest.approx(
        [(1 - 2 * 0.25) / 5, (2 - 3 * 0.25) / 5]
    )


def test_the_decision_curve_of_a_good_classifier_beats_everybody_and_nobody():
    curve = decision_curve(judged(), resamples=100, seed=0)
    assert len(curve) == len(thresholds_of(0.2)) and curve.threshold.is_monotonic_increasing
    middle = curve[(curve.threshold > 0.1) & (curve.threshold < 0.3)]
    assert (middle.net_benefit > np.maximum(middle.treat_all, 0)).all()
    assert (middle.low < middle.net_benefit).all() and (middle.net_benefit < middle.high).all()
    told = useful_thresholds(curve).iloc[0]
    assert told["from"] < 0.15 and told["to"] > 0.3 and told["largest gain"] > 0.05


def test_thresholds_run_from_a_quarter_of_the_prevalence_to_one_half():
    assert clinical.thresholds_of(0.2) == pytest.approx(np.geomspace(0.05, 0.5, 40))
    assert clinical.thresholds_of(0.6)[0] == pytest.approx(0.1)  # no higher


def test_a_decision_curve_has_what_treating_everybody_gives_beside_it():
    study = small(seeds=2, n=80, arms=("Real",), prevalence=0.25)
    curve = clinical.decision_curve(study, resamples=40, seed=0)
    prevalence = study.subjects.label.mean()
    odds = curve.threshold / (1 - curve.threshold)
    assert len(curve) == 40 and curve.columns.tolist() == clinical.BENEFIT_COLUMNS
    assert curve.treat_all.to_numpy() == pytest.approx(prevalence - (1 - prevalence) * odds)
    sick = study.subjects.label.to_numpy()[:, None] == 1
    for column, of in (("net_benefit", clinical.recalibrated(study)), ("raw_net_benefit", study)):
        for point, told in zip(curve.threshold[::13], curve[column][::13], strict=True):
            alarmed = (of.probability >= round(point, 6)).astype(float)
            each = np.where(sick, alarmed, -alarmed * point / (1 - point))
            assert told == pytest.approx(each.mean(axis=0).mean())


def test_where_a_model_is_useful_by_hand():
    columns = ["arm", "threshold", "net_benefit", "treat_all"]
    rows = [
        *[
            ("a", 0.1, 0.2, 0.2),
            ("a", 0.2, 0.15, 0.1),
            ("a", 0.3, 0.02, -0.1),
            ("a", 0.4, -0.1, -1),
        ],
        *[("b", 0.1, 0.1, 0.2), ("b", 0.2, -0.1, -0.3)],
    ]
    found = clinical.useful_thresholds(pd.DataFrame(rows, columns=columns)).set_index("arm")
    assert found.loc["a"].tolist() == pytest.approx([0.2, 0.3, 0.05, 0.2])
    assert np.isnan(found.loc["b", "from"]) and found.loc["b", "largest gain"] == pytest.approx(
        -0.1
    )


def test_a_run_whose_validation_lacks_a_class_keeps_its_probabilities():
    study = small(seeds=2, n=60, arms=("Real",))
    one_class = clinical.Tuned(np.zeros(9), np.linspace(0.1, 0.9, 9))
    first, second = study.validation
    mixed = study._replace(validation=[{None: one_class}, second])
    made = clinical.recalibrated(mixed).probability
    assert np.array_equal(made[:, 0], study.probability[:, 0])
    assert np.allclose(made[:, 1], clinical.recalibrated(study).probability[:, 1])
    ends = clinical._odds(np.array([0.0, 0.5, 1.0]))
    assert ends == pytest.approx([np.log(1e-6), 0, -np.log(1e-6)], rel=1e-5)
