"""Tables as readers see them, and as their CSV files have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from cmrcls.fairness.display.tables import comparisons_plain, plain, table2_shown
from cmrcls.fairness.study import (
    table2,
)
from cmrcls.fairness.subgroups import Crossing
from support.fake_runs import (
    ARMS,
    one_study,
    runs,
)
from support.printed import wide


def test_rows_and_columns_are_the_papers():
    table = table2(one_study(runs()))
    shown = wide(table)
    assert shown.subgroup.tolist() == [
        "Overall",
        "Female",
        "Male",
        "Normal BMI",
        "Overweight",
        "Obese",
        "Age < 60",
        "Age 60-70",
        "Age > 70",
    ]
    assert shown.columns.tolist() == ["subgroup", "n", "positives", "prevalence", *ARMS]
    assert shown[list(ARMS)].stack().str.fullmatch(r"0\.\d{3} ± 0\.\d{3}").all()
    assert shown.prevalence.str.endswith("%").all() and table.refused == []


def test_one_class_and_empty_subgroups_stay_visible():
    table = runs(seeds=2, arms=ARMS[:1])
    table = table[table.bmi_band != "overweight"]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 1
    table = table[~((table.sex == "F") & (table.age_band == "<60"))]
    result = table2(one_study(table))
    cells = wide(result).set_index("subgroup")["Real"]
    assert cells["Female"] == "n/a (no positives)"
    assert cells["Age < 60"] == "n/a (no negatives)"
    assert cells["Overweight"] == "n/a (no subjects)"


def test_the_papers_numbers_stand_beside_arms_of_the_papers_values_alone():
    """By what an arm is, not by what it is called."""
    one = one_study(runs(n=60, seeds=2, arms=ARMS[:2]))
    renamed = one.runs.arm.map({one.arms[0]: replace(one.arms[0], name="ours")})
    renamed = renamed.fillna(one.runs.arm.map(lambda arm: replace(arm, usual=False)))
    table = table2(one._replace(runs=one.runs.assign(arm=renamed), baseline=None))
    shown = table2_shown(table, "Table 2", beside_paper=True)
    assert shown.frame.columns.tolist()[4:] == [
        "prevalence (paper)",
        "ours",
        "ours (paper)",
        "Real + 2000",
    ]
    assert shown.frame["ours (paper)"][0] == "0.740 ± 0.025"
    assert shown.caption == "Table 2; beside it the paper's"


def test_a_csv_file_has_names_of_arms_and_axes_and_one_column_of_what_is_compared(tmp_path):
    one = one_study(runs(n=60, seeds=2, arms=ARMS[:2]))
    arm, other = one.arms
    tests = pd.DataFrame(
        {
            "measure": ["overall", "gap", "worst"],
            "first": arm,
            "second": other,
            "axis": [Crossing(), Crossing(("sex",)), Crossing(("sex", "bmi_band"))],
            "crossed": [np.nan, 1, 2],
        }
    )
    assert comparisons_plain(tests).to_csv(index=False).splitlines() == [
        "measure,first,second,axis,crossed",
        "overall,Real,Real + 2000,,",
        "gap: Sex,Real,Real + 2000,sex,1.0",
        "worst subgroup: Sex x BMI,Real,Real + 2000,sex x bmi_band,2.0",
    ]
    assert "axis" not in comparisons_plain(tests[:1].drop(columns="crossed"))
    wide = pd.DataFrame({"p": [0.5], arm: [1.5]})
    assert plain(wide).columns.tolist() == ["p", "Real"] and plain(wide)["Real"][0] == 1.5
