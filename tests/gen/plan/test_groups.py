"""What a group's name says, and which of others is nearest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.axes import AGE, BMI
from cmrdata.subjects import cut
from cmrgen.plan import recipes
from cmrgen.plan.groups import (
    attributes_of,
    attributes_within,
    decades,
    known_levels,
    nearest_group,
    possible_groups,
    typical,
)
from cmrgen.plan.recipes import _too_many


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


@pytest.mark.parametrize(
    ("ages", "wanted"),
    [
        ([45, 95], [50, 60, 70, 80, 90]),
        ([50, 90], [50, 60, 70, 80, 90]),
        ([59, 61], [50, 60]),
        ([62, 69], [60]),
        ([20, 49], [20, 30, 40]),  # none of the usual ones: all there are
        ([100, 105], [100]),
    ],
)
def test_decades_are_the_50s_to_the_90s_as_far_as_ages_go(ages, wanted):
    assert decades(pd.Series(ages, dtype=float)).tolist() == wanted


def test_a_band_that_everybody_has_is_no_level_to_plan_others_for():
    index = pd.DataFrame(
        {"sex": ["F", "F", None], "age_band": ["70+", "<60", None], "diagnosis": ["hf", None, "hf"]}
    )
    assert known_levels(index) == {
        "sex": ("F",),
        "age_band": ("<60", "60-70", "70+"),
        "diagnosis": ("hf",),
    }


def test_among_diseases_the_same_one_is_nearer_than_the_same_person():
    others = ["F/<60/obese/reduced_ef", "M/70+/normal/hf"]
    assert nearest_group("F/<60/obese/hf", others) == others[1]
    assert nearest_group("F/<60/obese/healthy", others) == others[0]


def test_a_band_is_one_number_and_years_stay_where_they_fit():
    assert typical("age_band") == {"<60": 55, "60-70": 65, "70+": 75}
    own = pd.DataFrame(
        {
            **{"sex": ["F", "F"], "age": [61.0, np.nan], "age_band": ["60-70", None]},
            **{"bmi": [31.0, 24.0], "bmi_band": ["obese", "normal"], "diagnosis": ["hf", "hf"]},
        }
    )
    asked = attributes_within(own, ["M/60-70/normal/healthy", "70+/hf"])
    assert asked.to_dict("list") == {
        "sex": ["M", "F"],
        "age": [61.0, 75.0],
        "bmi": [22.0, 24.0],
        "diagnosis": ["healthy", "hf"],
    }


def test_what_people_may_give_is_their_number_times_the_cap():
    pool = pd.DataFrame({"subject": list("aabbc"), "diagnosis": "hf"})
    assert _too_many(900, 4, pool).startswith(
        "plan.count=900: the 3 training subjects of diagnosis hf may give 12 images at "
        "plan.per_person=4; "
    )
    mixed = pool.assign(diagnosis=["hf", "hf", "healthy", "hf", "hf"])
    assert "the 3 training subjects may give 12 images" in _too_many(900, 4, mixed)


@pytest.mark.parametrize("recipe", [recipes.own_distribution, recipes.random_prompt])
def test_everybody_may_give_exactly_what_the_cap_says(index, recipe):
    people = index[(index.split == "train") & index.diagnosis.notna()].subject.nunique()
    if recipe is recipes.own_distribution:
        plan = recipe(index, count=2 * people, per_person=2).rows
        assert (plan.subject.value_counts() == 2).all()
    assert recipe(index, count=1, per_person=1).rows.subject.nunique() == 1


def test_a_balanced_plan_may_take_everything_that_people_may_give(index):
    small = index[(index.split == "train") & (index.subject < "SYN0040")]
    people = small[small.diagnosis.notna()].subject.nunique()
    plan = recipes.balanced(small, count=2 * people, per_person=2).rows
    assert (plan.subject.value_counts() == 2).all()
    with pytest.raises(ValueError, match=f"may give {2 * people} images"):
        recipes.balanced(small, count=2 * people + 1, per_person=2)
