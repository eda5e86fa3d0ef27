"""What a classifier run shows at its end: everyone is counted, few are hidden."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from cmrcls import run_summary as outcomes
from cmrdata.axes import AXES
from support.one_run import predictions


def test_confusion_and_calibration_count_everyone():
    given = predictions()
    table, curve = outcomes.confusion(given), outcomes.calibration(given)
    for split, part in given.groupby("split"):
        counts = (
            table[table.split == split]
            .pivot(index="label", columns="predicted", values="n")
            .to_numpy()
        )
        assert (counts == confusion_matrix(part.label, part.probability > 0.5)).all()
        assert curve[curve.split == split].n.sum() == len(part)
    few = curve.n < outcomes.FEWEST
    assert few.any() and curve[few][["probability", "positives"]].isna().all(axis=None)
    assert curve[~few].notna().all(axis=None)


def test_decisions_that_a_run_made_itself_are_kept():
    given = predictions().assign(predicted=1)
    assert outcomes.headline(given)["test_balanced_accuracy"] == 0.5


def test_several_diseases_are_told_apart_and_an_absent_class_is_nan():
    both = pd.concat(
        [predictions().assign(disease="hf"), predictions().assign(disease="mi", label=0)]
    )
    found = outcomes.headline(both)
    assert np.isnan(found["mi_test_balanced_accuracy"]) and found["hf_test_balanced_accuracy"] > 0.5
    assert np.isnan(outcomes.scores(both).set_index("disease").auroc["mi"]).all()


def test_a_bin_of_exactly_the_fewest_subjects_is_given() -> None:
    table = pd.concat(
        [
            predictions(outcomes.FEWEST).assign(probability=0.05, label=0),
            predictions(outcomes.FEWEST - 1).assign(probability=0.95, label=1),
        ]
    ).assign(split="test", disease="hf")
    curve = outcomes.calibration(table).set_index("bin")
    assert curve.index.tolist() == pytest.approx([k / 10 for k in range(10)])
    given = curve[curve.probability.notna()]
    assert given.n.tolist() == [outcomes.FEWEST] and given.positives.tolist() == [0]
    assert given.probability.tolist() == pytest.approx([0.05])
    assert curve.n.sum() == 2 * outcomes.FEWEST - 1


def test_the_headline_is_the_score_of_each_subgroup_of_the_test_split() -> None:
    table = predictions()
    found = outcomes.headline(table)
    test = table[table.split == "test"]
    assert found["test_balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(test.label, test.predicted)
    )
    old = test[test.age_band == "70+"]
    assert found["test_balanced_accuracy_age_from_70"] == pytest.approx(
        balanced_accuracy_score(old.label, old.predicted)
    )
    assert len(found) == 1 + sum(len(axis.bands) for axis in AXES.values())
    scores = outcomes.scores(table).set_index("split")
    assert scores.balanced_accuracy["test"] == pytest.approx(found["test_balanced_accuracy"])
    assert scores.n.sum() == len(table) and scores.positives["test"] == test.label.sum()
    assert scores.brier["test"] == pytest.approx(((test.probability - test.label) ** 2).mean())


def test_its_picture_has_a_row_per_split() -> None:
    table = predictions()
    picture = outcomes.figure(
        outcomes.scores(table), outcomes.confusion(table), outcomes.calibration(table)
    )
    assert len(picture.axes) == 4
    left, right = picture.axes[:2]
    assert (left.get_xlabel(), left.get_ylabel()) == ("predicted", "true")
    assert right.get_xlabel() == "mean probability"
    assert {panel.get_title().split(":")[0] for panel in picture.axes[::2]} == {"val", "test"}
