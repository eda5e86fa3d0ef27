"""What an attribute is called, and that a prompt never disagrees with its group."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.axes import BMI, DIAGNOSES
from cmrdata.subjects import with_groups
from cmrgen.prompts import EMPTY, prompt, prompts


def people(*rows: tuple) -> pd.DataFrame:
    """A validated table of (sex, age, bmi, diagnosis)."""
    table = pd.DataFrame(rows, columns=["sex", "age", "bmi", "diagnosis"])
    table.insert(0, "subject", [f"SYN{k:04d}" for k in range(len(table))])
    return with_groups(table.assign(source="made"))


def said(*row) -> str:
    return prompt(people(row).iloc[0])


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (("M", 74, 22, "hf"), "Male, age in 70s, normal BMI, with heart failure"),
        (("F", 45.3, 27, "healthy"), "Female, age in 40s, overweight BMI, healthy"),
        (
            ("F", 66, 40, "reduced_ef"),
            "Female, age in 60s, obese BMI, with reduced ejection fraction",
        ),
    ],
)
def test_a_subject_in_words(row, sentence):
    assert said(*row) == sentence


@pytest.mark.parametrize(
    ("diagnosis", "conditions", "words"),
    [
        (
            "hf",
            "mi;ihd;af",
            "with heart failure, myocardial infarction, ischemic heart disease, atrial fibrillation",
        ),
        ("hf", "", "with heart failure"),
        ("healthy", "", "healthy"),
        ("healthy", "af", "with atrial fibrillation"),
        (None, "mi", "with myocardial infarction"),
    ],
)
def test_conditions_follow_the_diagnosis_and_end_health(diagnosis, conditions, words):
    row = people(("M", 74, 22, diagnosis)).assign(conditions=conditions)
    assert prompt(row.iloc[0]) == prompts(row).item() == f"Male, age in 70s, normal BMI, {words}"
    assert prompt(row.iloc[0].drop("conditions"), fields=["sex"]) == "Male"


@pytest.mark.parametrize(
    ("age", "decade", "band"),
    [(59.99, "50s", "<60"), (60, "60s", "60-70"), (69.99, "60s", "60-70"), (70, "70s", "70+")],
)
def test_age_is_worded_as_it_is_banded(age, decade, band):
    assert f"age in {decade}" in said("F", age, 22, "hf")
    assert people(("F", age, 22, "hf")).age_band.item() == band


@pytest.mark.parametrize(
    ("bmi", "word"),
    [(16, "normal"), (24.99, "normal"), (25, "overweight"), (29.99, "overweight"), (30, "obese")],
)
def test_bmi_is_worded_as_it_is_banded(bmi, word):
    assert f", {word} BMI," in said("F", 65, bmi, "hf")
    assert people(("F", 65, bmi, "hf")).bmi_band.item() == word


person = st.tuples(
    st.sampled_from(["F", "M", None]),
    st.one_of(st.none(), st.floats(40, 89.9)),
    st.one_of(st.none(), st.floats(15, 45)),
    st.sampled_from([*DIAGNOSES, None]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(person, min_size=1, max_size=6))
def test_a_prompt_says_what_is_known_and_nothing_else(rows):
    table = people(*rows)
    for (_, row), sentence in zip(table.iterrows(), prompts(table), strict=True):
        assert sentence == prompt(row)
        clauses = sentence.split(", ") if sentence else []
        assert len(clauses) == row[["sex", "age", "bmi", "diagnosis"]].notna().sum()
        assert [c for c in clauses if c.endswith(" BMI")] == (
            [f"{row.bmi_band} BMI"] if pd.notna(row.bmi_band) else []
        )
        decade = [
            int(c.removeprefix("age in ").removesuffix("s"))
            for c in clauses
            if c.startswith("age in")
        ]
        if pd.notna(row.age):
            assert decade == [row.age // 10 * 10]
            assert {"<60": decade[0] < 60, "60-70": decade[0] == 60, "70+": decade[0] >= 70}[
                row.age_band
            ]
        assert ("healthy" in clauses) == (row.diagnosis == "healthy")


def test_an_unknown_attribute_drops_its_clause():
    assert said(None, 65, 22, "hf") == "age in 60s, normal BMI, with heart failure"
    assert said("M", np.nan, 22, "hf") == "Male, normal BMI, with heart failure"
    assert said("M", 65, np.nan, "hf") == "Male, age in 60s, with heart failure"
    assert said("M", 65, 22, None) == "Male, age in 60s, normal BMI"
    assert said(None, None, None, None) == EMPTY == ""


def test_a_cohort_that_knows_no_sex_and_no_age():
    """ACDC: BMI and diagnosis only."""
    table = people((None, None, 24, "healthy"), (None, None, 31, "reduced_ef"))
    assert prompts(table).tolist() == [
        "normal BMI, healthy",
        "obese BMI, with reduced ejection fraction",
    ]


def test_fields_choose_and_order_the_clauses():
    row = people(("M", 74, 22, "hf")).iloc[0]
    assert prompt(row, fields=("sex", "age", "bmi")) == "Male, age in 70s, normal BMI"
    assert prompt(row, fields=("diagnosis", "sex")) == "with heart failure, Male"
    assert prompt(row, fields=()) == EMPTY


def test_every_attribute_has_its_own_words_and_rows_keep_their_index():
    cells = [
        (s, a, b, d)
        for s in "FM"
        for a in (55, 65, 75)
        for b in (22, 27, 33)
        for d in ("healthy", "hf")
    ]
    table = people(*cells).iloc[::-1]
    words = prompts(table)
    assert words.index.equals(table.index) and words.nunique() == table.group.nunique() == 36
    assert all(any(f"{band} BMI" in w for w in words) for band in BMI.values)


def test_no_rows_no_prompts():
    assert prompts(people(("M", 74, 22, "hf")).iloc[:0]).tolist() == []
