"""What a group's name says, and which of others is nearest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.axes import AGE, BMI
from cmrdata.subjects import cut
from cmrgen.plan.groups import (
    attributes_of,
    decades,
    known_levels,
    nearest_group,
    possible_groups,
    typical,
)


@pytest.mark.parametrize(
    ("group", "others", "nearest"),
    [
        # the diagnosis last of all
        ("F/<60/obese/hf", ["F/<60/obese/healthy", "M/70+/normal/hf"], "M/70+/normal/hf"),
        (
            "F/<60/obese/hf",
            ["F/<60/obese/healthy", "M/70+/normal/reduced_ef"],
            "M/70+/normal/reduced_ef",
        ),
        # fewest attributes first
        ("F/<60/obese/hf", ["F/60-70/normal/hf", "F/70+/obese/hf"], "F/70+/obese/hf"),
        # then the nearer band
        ("F/<60/obese/hf", ["F/70+/obese/hf", "F/60-70/obese/hf"], "F/60-70/obese/hf"),
        ("F/60-70/normal/hf", ["M/60-70/normal/hf", "F/70+/normal/hf"], "F/70+/normal/hf"),
        (
            "F/60-70/normal/hf",
            ["F/70+/normal/hf", "F/60-70/overweight/hf"],
            "F/60-70/overweight/hf",
        ),
        ("normal/hf", ["obese/hf", "normal/healthy"], "obese/hf"),
    ],
)
def test_the_nearest_group(group, others, nearest):
    assert nearest_group(group, others) == nearest_group(group, others[::-1]) == nearest


@pytest.mark.parametrize("name", ["F/old/obese/hf", "hf/F", "F/M/hf", "F//hf", "F/<60/obese/HF"])
def test_what_is_no_group_is_refused_with_the_words_there_are(name):
    with pytest.raises(ValueError, match=f"{name}.*sex \\(F M\\), age_band"):
        attributes_of(name)


def test_decades_are_those_from_the_fifties_to_the_nineties_that_occur():
    assert decades(pd.Series([48.0, 61.0, 79.9])).tolist() == [50, 60, 70]
    assert decades(pd.Series([50.0, 99.0])).tolist() == [50, 60, 70, 80, 90]
    assert decades(pd.Series([100.0])).tolist() == [100]
    assert decades(pd.Series([23.0, 49.0])).tolist() == [20, 30, 40]


def test_a_group_says_its_attributes_and_may_leave_some_out():
    assert attributes_of("F/60-70/hf") == {"sex": "F", "age_band": "60-70", "diagnosis": "hf"}
    assert attributes_of("") == {}


def test_a_cohort_can_have_all_bands_of_an_axis_of_which_it_knows_two(index):
    two = index.assign(age_band=np.where(index.age_band == "<60", "<60", "70+"), sex="F")
    known = known_levels(two)
    assert known["age_band"] == ("<60", "60-70", "70+") and known["sex"] == ("F",)
    assert known["diagnosis"] == tuple(sorted(index.diagnosis.dropna().unique()))
    assert len(possible_groups(two)) == 1 * 3 * 3 * len(known["diagnosis"])


def test_each_bands_number_lies_in_it():
    for column, axis in (("age_band", AGE), ("bmi_band", BMI)):
        numbers = typical(column)
        assert list(numbers) == cut(axis, pd.Series(list(numbers.values()))).tolist()
