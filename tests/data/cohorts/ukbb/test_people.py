"""What UK Biobank's fields say of people at a visit."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.ukbb import people
from cmrdata.subjects import with_groups
from support.ukbb_exports import (
    one,
    person,
    read,
    relaxed,
)


def test_case_20_what_is_missing_stays_missing(tmp_path):
    row = one(tmp_path, person(visit=""))
    assert [row[name] for name in ("sex", "site", "ethnicity")] == [None] * 3
    assert row[["age", "bmi", "townsend", "visit", "first"]].isna().all() and row.table_flags == ""
    assert (row.state, row.diagnosis, row.conditions) == ("none", "healthy", "")


BMI = {  # cells: BMI and its flag
    ("21001_2", "26.5"): (26.5, ""),
    ("21001_2", "26.5", "21002_2", "100", "50_2", "180", "23104_2", "30", "21001_0", "31"): (
        26.5,
        "",
    ),
    ("21001_2", "", "21002_2", "81", "50_2", "180", "23104_2", "30", "21001_0", "31"): (
        25,
        "bmi_from_weight",
    ),
    ("21001_2", "", "12143_2", "81", "12144_2", "180", "23104_2", "30"): (25, "bmi_from_weight"),
    ("21002_2", "97.2", "12144_2", "180", "23104_2", "31", "21001_0", "31"): (
        30,
        "bmi_from_weight",
    ),
    ("12143_2", "97.2", "50_2", "180", "23104_2", "31"): (30, "bmi_from_weight"),
    ("21002_2", "97.2", "12143_2", "81", "50_2", "180", "12144_2", "170"): (30, "bmi_from_weight"),
    ("12143_2", "97.2", "50_2", "180", "12144_2", "170"): (30, "bmi_from_weight"),
    ("21002_2", "97.2 kg", "12144_2", "1,80 m"): (30, "bmi_from_weight"),
    ("21002_2", "97,2", "50_2", "180 cm"): (30, "bmi_from_weight"),
    ("21002_2", "97.2", "50_0", "180", "23104_2", "31"): (31, "bmi_impedance"),
    ("21001_2", "26,5 kg/m2"): (26.5, ""),
    ("21001_2", "-818", "23104_2", "30"): (30, "bmi_impedance"),
    ("21002_0", "81", "50_0", "180", "21001_0", "31"): (31, "bmi_instance_0"),
    ("21001_1", "31", "21001_3", "31"): (None, ""),
    ("21001_2", "8.1", "21002_2", "81", "50_2", "180"): (25, "bmi_from_weight"),  # implausible
    ("21001_2", "265", "21002_2", "81", "50_2", "18", "23104_2", "71", "21001_0", "27"): (
        27,
        "bmi_instance_0",
    ),
    ("21001_2", "-1", "21002_2", "-3", "50_2", "180"): (None, ""),
    ("21002_2", "81", "50_2", "1.8"): (25, "bmi_from_weight"),  # metres
    ("21001_2", "12"): (12, ""),
    ("21001_2", "70"): (70, ""),
    ("21001_2", "70.01"): (None, ""),
}


@pytest.mark.parametrize("cells", BMI)
def test_case_20_21_bmi_is_of_the_visit_or_flagged(tmp_path, cells):
    row = one(
        tmp_path,
        person(**{f"f{name}": text for name, text in zip(cells[::2], cells[1::2], strict=True)}),
    )
    bmi, flag = BMI[cells]
    assert row.bmi == pytest.approx(bmi) if bmi else pd.isna(row.bmi)
    assert row.table_flags == flag


@pytest.mark.parametrize(
    ("visit", "age"),
    [
        ("2016-05-15", 60),
        ("2016-05-14", 60 - 1 / 366),
        ("2016-05-16", 60 + 1 / 365),
        ("2016-04-30", 60 - 15 / 366),
        ("2016-11-15", 60 + 184 / 365),
        ("2026-05-15", 70),
    ],
)
def test_case_22_age_is_counted_in_birthdays(tmp_path, visit, age):
    row = one(tmp_path, person(f34_0="1956", f52_0="5", f21003_2="44", visit=visit))
    assert row.age == pytest.approx(age, abs=1e-12) and row.table_flags == ""
    assert (row.age >= 60) == (visit >= "2016-05-15")  # no rounding at a band's edge


@given(st.dates(date(1930, 1, 1), date(1972, 12, 31)), st.dates(date(2006, 1, 1), date(2030, 1, 1)))
@relaxed
def test_case_22_whole_years_are_those_of_the_calendar(tmp_path, born, visit):
    row = one(tmp_path, person(f34_0=str(born.year), f52_0=str(born.month), visit=str(visit)))
    assert int(row.age) == visit.year - born.year - ((visit.month, visit.day) < (born.month, 15))


@pytest.mark.parametrize(
    "cells",
    [
        {"f34_0": ""},
        {"f52_0": ""},
        {"f34_0": "-1"},
        {"f52_0": "13"},
        {"f34_0": "2090"},
        {"f34_0": "19"},
        {"visit": ""},
        {"visit": "2037-07-07"},
    ],
)
def test_case_22_whole_years_stand_in_and_are_flagged(tmp_path, cells):
    row = {
        "f34_0": "1950",
        "f52_0": "5",
        "f21003_2": "66",
        "f21022_0": "57",
        "f21003_0": "57",
        **cells,
    }
    assert one(tmp_path, person(**row))[["age", "table_flags"]].tolist() == [66, "age_whole_years"]
    unknown = one(tmp_path, person(**{**row, "f21003_2": "-1"}))
    assert pd.isna(unknown.age) and unknown.table_flags == ""  # never the age at another time


def test_case_23_25_is_overweight_and_30_obese(tmp_path):
    people = {
        f"SYN{k}": person(f21001_2=bmi) for k, bmi in enumerate(("24.99", "25", "29.99", "30"))
    }
    table = read(people, tmp_path).rename_axis("subject").reset_index().assign(source="ukbb")
    assert with_groups(table).bmi_band.tolist() == ["normal", "overweight", "overweight", "obese"]


def test_case_24_non_answers_are_missing_and_townsend_may_be_negative(tmp_path):
    row = one(
        tmp_path,
        person(
            f31_0="-3", f54_2="-1", f21000_0="-3", f21003_2="-1", f21001_2="-1", f22189_0="-5.25"
        ),
    )
    assert (
        [row.sex, row.site, row.ethnicity] == [None] * 3 and pd.isna(row.age) and pd.isna(row.bmi)
    )
    assert row.townsend == -5.25
    row = one(
        tmp_path,
        person(
            f31_0="Prefer not to answer",
            f21000_0="Do not know",
            f189_0="-1.5",
            f21003_2="Do not know",
        ),
    )
    assert [row.sex, row.ethnicity, row.townsend] == [None, None, -1.5] and pd.isna(row.age)


@pytest.mark.parametrize(
    ("text", "sex"),
    [("0", "F"), ("1", "M"), ("Female", "F"), ("Male", "M"), ("0.0", "F"), ("NA", None)],
)
def test_sex_0_is_female(tmp_path, text, sex):
    assert one(tmp_path, person(f31_0=text)).sex == sex


def test_ethnicity_is_the_first_answer_and_a_site_is_text(tmp_path):
    cells = {"f21000_0": "-1", "f21000_1": "", "f21000_2": "3001.0", "f54_2": "11025.0"}
    assert one(tmp_path, person(**cells))[["ethnicity", "site"]].tolist() == ["3001", "11025"]
    assert one(tmp_path, person(f21000_0="1001", f21000_2="3001")).ethnicity == "1001"
    assert one(tmp_path, person(f54_2="Cheadle (imaging)")).site == "Cheadle (imaging)"


@pytest.mark.parametrize("month", ["9", "09", "9.0", "September", "sept", "SEP"])
def test_months_are_numbers_or_names(tmp_path, month):
    assert one(tmp_path, person(f34_0="1950", f52_0=month, visit="2016-09-15")).age == 66


# by the numbers


def test_an_age_is_whole_years_and_the_share_of_the_days_to_the_next_birthday():
    def years(visit: str, year=1950.0, month=7.0, whole=np.nan) -> tuple[float, str]:
        dates = np.array([visit], "datetime64[D]")
        numbers = (np.array([value]) for value in (year, month, whole))
        age, flag = people._age(
            dates, **dict(zip(("year", "month", "whole"), numbers, strict=True))
        )
        return age.item(), flag.item()

    assert years("2016-07-15") == (66, "") and years("2016-07-14")[0] == 65 + 365 / 366
    assert years("2016-07-16")[0] == 66 + 1 / 365 and years("2016-06-15")[0] == 65 + 336 / 366
    assert years("2016-01-15", month=1.0) == (66, "") and years("1950-07-15") == (0, "")
    assert years("2070-07-15") == (120, "")
    assert years("2070-07-16", whole=70.0) == (70, "age_whole_years")  # nobody is so old
    assert years("1950-07-14", whole=70.0) == (70, "age_whole_years")
    for lacking in ({"year": np.nan}, {"month": np.nan}, {"visit": "NaT"}):
        assert years(**{"visit": "2016-07-15", **lacking, "whole": 70.0}) == (70, "age_whole_years")
        age, flag = years(**{"visit": "2016-07-15", **lacking})
        assert np.isnan(age) and flag == ""
    assert years("2016-07-15", whole=70.0) == (66, "")


def test_the_first_plausible_candidate_wins_by_name():
    nan = np.nan
    bmi, names = people._first_plausible(
        [
            ("", np.array([12.0, 11.9, nan, nan])),
            ("b", np.array([30.0, 70.0, 70.1, nan])),
            ("c", np.array([20.0, 20.0, 25.0, nan])),
        ]
    )
    np.testing.assert_array_equal(bmi, [12, 70, 25, nan])
    assert names.tolist() == ["", "b", "c", ""]
    words = people.joined_words([np.array(["a", "", ""]), np.array(["b", "c", ""])], 3)
    assert words.tolist() == ["a;b", "c", ""] and people.joined_words([], 2).tolist() == ["", ""]
