"""Axes, and how they divide the subjects."""

from __future__ import annotations

from cmrcls.fairness.subgroups import Crossing, divisions
from support.fake_runs import (
    ARMS,
    one_study,
    runs,
    small,
)


def test_crossed_subgroups_divide_the_subjects():
    cells = {str(part.axis): part for part in divisions(small(n=60).subjects)}
    assert {name: len(part.names) for name, part in cells.items()} == {
        "overall": 1,
        "sex": 2,
        "bmi_band": 3,
        "age_band": 3,
        "sex x age_band": 6,
        "sex x bmi_band": 6,
        "age_band x bmi_band": 9,
        "sex x age_band x bmi_band": 18,
    }
    assert all((part.codes >= 0).all() for part in cells.values())
    assert "Female, Age < 60, Obese" in cells["sex x age_band x bmi_band"].names


def test_a_subject_of_unknown_age_is_in_no_subgroup_crossed_with_age():
    table = runs(seeds=1, arms=ARMS[:1])
    table.loc[table.subject == "SYN0005", "age_band"] = None
    known = {
        str(part.axis): int((part.codes >= 0).sum())
        for part in divisions(one_study(table).subjects)
    }
    assert (
        known["sex"] == 120 and known["sex x age_band"] == known["sex x age_band x bmi_band"] == 119
    )


def test_an_axis_prints_as_in_csv_files_and_has_words_for_readers():
    for columns, printed, words in (
        ((), "overall", "Overall"),
        (("sex",), "sex", "Sex"),
        (("sex", "bmi_band"), "sex x bmi_band", "Sex x BMI"),
        (("source",), "source", "Source"),
    ):
        assert (str(Crossing(columns)), Crossing(columns).in_words) == (printed, words)
    assert (
        Crossing(("sex", "bmi_band"))
        == Crossing(("sex", "bmi_band"))
        != Crossing(("bmi_band", "sex"))
    )
