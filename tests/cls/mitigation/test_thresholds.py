from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrcls.mitigation.groups import check_mitigation
from cmrcls.mitigation.thresholds import CONSTRAINTS, Thresholds, group_thresholds
from support.biased_cohort import gap, people, study


def test_thresholds_close_the_gap_and_leave_the_probabilities(plain, root):
    table = group_thresholds(plain, attribute="sex", seed=0)
    assert gap(table) < 0.5 * gap(plain)
    assert table.probability.equals(plain.probability) and not table.predicted.equals(
        plain.predicted
    )
    # seeded, from training to the last decision
    assert study(root, "thresholds", steps=150).equals(table)


def scores(count: int = 4000) -> pd.DataFrame:
    """Predictions of a classifier that finds men likelier ill; of the fourth band nobody in
    validation is."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(count)],
            "split": rng.choice(["val", "test"], count),
            "disease": "hf",
            "label": rng.integers(0, 2, count),
            "sex": rng.choice(["F", "M"], count),
            "age_band": rng.choice(["<60", "60-70", "70+", None], count),
            "bmi_band": None,
        }
    )
    table.loc[(table.age_band == "70+") & (table.split == "val"), "label"] = 0
    table["probability"] = rng.normal(
        0.35 + 0.15 * table.label + 0.25 * (table.sex == "M"), 0.1
    ).clip(0, 1)
    return table.assign(predicted=(table.probability > 0.5).astype(int))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_every_constraint_is_met(constraint):
    before = scores()
    after = group_thresholds(before, constraint=constraint, seed=0)

    def rates(table: pd.DataFrame) -> pd.Series:
        test = table[table.split == "test"]
        kept = {"true_positive_rate_parity": 1, "false_positive_rate_parity": 0}.get(constraint)
        return (test if kept is None else test[test.label == kept]).groupby("sex").predicted.mean()

    if constraint == "equalized_odds":
        assert gap(after) < 0.06 < 0.3 < gap(before)
    else:
        assert np.ptp(rates(after)) < 0.06 < 0.2 < np.ptp(rates(before))
    assert (after.predicted == after.label).mean() > (before.predicted == before.label).mean()


def test_a_group_without_both_classes_keeps_the_common_threshold_and_is_named():
    before = scores()
    with pytest.warns(UserWarning, match=r"age_band 70\+, unknown keep the common threshold 0.5"):
        after = group_thresholds(before, attribute="age_band", seed=0)
    kept = before.age_band.isna() | (before.age_band == "70+")
    assert (after.predicted == before.predicted)[kept].all() and (
        after.predicted != before.predicted
    )[~kept].any()
    with pytest.warns(UserWarning, match="bmi_band unknown keeps .* two groups or more") as told:
        assert group_thresholds(before, attribute="bmi_band", seed=0).equals(before)
    assert told[0].filename == __file__


@pytest.mark.parametrize(("key", "value"), [("attribute", "height"), ("constraint", "parity")])
def test_unknown_choices_are_refused_when_they_are_made(key, value):
    with pytest.raises(
        ValueError, match=f"mitigation.after.{key}='{value}' is unknown; choose one of"
    ):
        Thresholds(**{key: value})


def test_thresholds_need_an_attribute_that_differs_in_validation():
    def check(**known):
        parts = (Thresholds(),)
        check_mitigation("thresholds", parts, index=people(**known), cohort="acdc")

    with pytest.raises(
        ValueError, match="sex is known for nobody in the validation split.*choose mitigation=none"
    ):
        check()
    with pytest.raises(
        ValueError,
        match="mitigation=thresholds: sex is F for everybody .*"
        "choose mitigation.after.attribute=age_band, mitigation=none",
    ):
        check(sex="F", age_band=["<60", "70+"] * 4)
    check(sex=["F", "M"] * 4)


def test_the_validation_split_alone_decides_whether_there_are_groups():
    index = pd.DataFrame({"split": ["train"] * 2 + ["val"] * 2, "sex": ["F", "M", "F", "F"]})
    with pytest.raises(ValueError, match="sex is F for everybody in the validation split"):
        Thresholds(attribute="sex").check(index, cohort="fake")
    Thresholds(attribute="sex").check(index.assign(sex=["F", "F", "F", "M"]), cohort="fake")
