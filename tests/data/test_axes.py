"""The table of axes, and proof that a sensitive attribute is one row of it, added from outside."""

from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from cmrcls.fairness.study import table2
from cmrcls.fairness.subgroups import Crossing, divisions
from cmrdata import axes
from cmrdata.axes import AGE, AXES, BMI, BUILT_IN, SEX, Axis, Band
from cmrdata.subjects import balancing_weights, split, with_bands, with_groups
from cmrgen.evaluation.fidelity.subgroups import compared_subgroups
from cmrgen.plan.from_table import read_plan
from cmrgen.plan.recipes import balanced, random_prompt
from cmrgen.plan.sweeps import one_mask
from cmrstudy.figures import demographics
from cmrstudy.inspection import groups
from support.added_axes import ETHNICITY, WAIST
from support.fake_index import fake_index, fake_people
from support.fake_runs import one_study, runs


@pytest.fixture(params=[ETHNICITY, WAIST], ids=lambda axis: axis.column)
def axis(request: pytest.FixtureRequest) -> Iterator[Axis]:
    """A row that a user adds, gone after the test."""
    with patch.dict(AXES):
        axes.add(request.param)
        yield request.param


def people(axis: Axis) -> pd.DataFrame:
    """People who know the new attribute, grouped and split; all values within each old group."""
    table = fake_people().drop(columns=["age_band", "bmi_band", "label", "group", "split"])
    places = np.arange(len(table)) % len(axis.bands)
    known = [band.typical for band in axis.bands.values()] if axis.measure else axis.values
    table[axis.given] = np.array(known)[places]
    table = with_groups(table)
    return table.assign(split=split(table, seed=0))


def test_an_added_axis_makes_groups_of_which_each_weighs_alike(axis):
    table = people(axis)
    assert set(table[axis.column]) == set(axis.values)
    labelled = table[table.diagnosis.notna()]
    assert (labelled.group.str.split("/").str[-2] == labelled[axis.column]).all()
    weight = pd.Series(balancing_weights(table)).groupby(table.group).sum()
    assert len(weight) > 36 * 1.5 and np.ptp(weight) == pytest.approx(0)
    shown = groups(table.assign(state=None)).set_index("group")
    for value in axis.values:
        count = int((labelled[axis.column] == value).sum())
        assert shown.subjects[f"{axis.column}: {value}"] == count > 0


def test_a_table_without_its_column_is_as_before(axis):
    table = fake_people().drop(columns=["age_band", "bmi_band", "label", "group", "split"])
    with patch.dict(AXES):
        for column in axes.added():
            AXES.pop(column, None)
        before = with_groups(table)
    pd.testing.assert_frame_equal(with_groups(table), before)


def test_its_odd_values_are_refused_by_name():
    with patch.dict(AXES):
        axes.add(ETHNICITY)
        table = fake_people().drop(columns="split").assign(ethnicity="martian")
        with pytest.raises(
            ValueError, match=r"column 'ethnicity' holds \['martian'\]; it takes as"
        ):
            with_groups(table)
        axes.add(WAIST)
        with pytest.raises(ValueError, match="subject SYN0000: waist 300.0 is outside 40..200"):
            with_groups(table.assign(ethnicity=None, waist=300))


def test_it_is_a_row_of_the_report(axis):
    table = runs(arms=("Real",), seeds=2)
    place = table.subject.str[-4:].astype(int) % len(axis.bands)
    study = one_study(table.assign(**{axis.column: np.array(axis.values)[place]}))
    titles = [str(of.axis) for of in divisions(study.subjects)]
    assert titles[:5] == ["overall", "sex", "bmi_band", "age_band", axis.column]
    assert f"sex x {axis.column}" in titles and len(titles) == 1 + 4 + 6 + 4 + 1
    assert Crossing(("sex", axis.column)).in_words == f"Sex x {axis.title}"
    rows = table2(study).rows
    assert rows.subgroup.tolist()[9:] == [band.name for band in axis.bands.values()]
    words = [text.get_text() for text in demographics(people(axis)).findobj(Text)]
    assert axis.heading in words and {band.short for band in axis.bands.values()} <= set(words)


def test_plans_know_it(axis, tmp_path):
    index = fake_index(people(axis))
    plan = balanced(index, count=400, per_person=None, per_mask=None).rows
    counts = plan[axis.column].value_counts()
    assert set(counts.index) == set(axis.values)
    own = index.loc[plan.source_row]
    assert (plan[axis.column].to_numpy() == own[axis.column].to_numpy()).all()
    drawn = random_prompt(index, count=200, per_person=None).rows
    shares = drawn[axis.column].value_counts(normalize=True)
    assert shares.to_numpy() == pytest.approx(1 / len(axis.bands), abs=0.12)
    assert (drawn.group.str.split("/").str[-2] == drawn[axis.column]).all()
    first, last = axis.values[0], axis.values[-1]
    swept = one_mask(index, attribute=axis.given).rows
    assert swept[axis.column].tolist() == list(axis.values)
    source = index.index[
        (index[axis.column] == first) & (index.split == "train") & index.diagnosis.notna()
    ][0]
    path = tmp_path / "plan.csv"
    pd.DataFrame({"source_row": [source], axis.column: [last]}).to_csv(path, index=False)
    asked = read_plan(index, path=path).rows.iloc[0]
    assert asked[axis.column] == last and asked.borrowed == index.group[source]
    assert asked.group == index.group[source].replace(first, last)


def test_fidelity_compares_its_extremes(axis):
    real = fake_index(people(axis))
    table = compared_subgroups(real, real[real.split == "train"].reset_index(drop=True))
    names = [axis.bands[value].short for value in axis.extremes]
    assert table[table.axis == axis.column].subgroup.tolist() == names
    assert list(dict.fromkeys(table.axis)) == [*BUILT_IN, axis.column, "diagnosis", "all"]


def test_a_classifier_and_the_judges_have_it(axis):
    from cmrcls.arms import prediction_table
    from cmrcls.explain import WHERE, by_subgroup
    from cmrgen.evaluation.networks import AttributeNet, head_codes

    table = people(axis)
    assert AttributeNet([axis.column]).heads[axis.column].out_features == len(axis.bands)
    assert set(head_codes(table, axis.column)) == set(range(len(axis.bands)))
    index = table[table.label.notna()].assign(real=True, stored=range(table.label.notna().sum()))
    import torch

    batch = {"row": torch.arange(6), "probability": torch.linspace(0, 1, 6)}
    told = prediction_table(index.reset_index(drop=True), [batch])
    assert told[axis.column].tolist() == index[axis.column].tolist()[:6]
    assert told.columns.is_unique
    places = {f"{name}{end}": 0.5 for name in WHERE for end in ("", "_area", "_ideal")}
    shown = by_subgroup(told.assign(outcome="true positive", **places))
    assert [band.name for band in axis.bands.values()] == list(
        dict.fromkeys(shown.subgroup[shown.axis == axis.column])
    )


def test_adding_the_same_axis_twice_does_nothing_and_another_is_refused():
    with patch.dict(AXES):
        axes.add(ETHNICITY)
        axes.add(replace(ETHNICITY))
        assert list(AXES) == [*BUILT_IN, "ethnicity"]
        for wrong, words in (
            (replace(ETHNICITY, title="Origin"), "is there already"),
            (replace(SEX, column="gender"), "another axis has a band named 'Female'"),
            (
                replace(SEX, column="gender", bands={"F": Band("f", "f"), "X": Band("x", "x")}),
                "'F' is a value of another axis",
            ),
            (
                Axis("state", "State", "state", {"healthy": Band("a", "a"), "b": Band("b", "b")}),
                "'healthy' is a value of another axis",
            ),
            (
                Axis("site", "Site", "site", {"a/b": Band("a", "a"), "c": Band("c", "c")}),
                "can't be part of a group's name",
            ),
        ):
            with pytest.raises(ValueError, match=words):
                axes.add(wrong)
        assert list(AXES) == [*BUILT_IN, "ethnicity"]
    assert tuple(AXES) == BUILT_IN


def test_a_row_that_contradicts_itself_is_refused():
    with pytest.raises(ValueError, match="'age_band': 3 bands need 2 inner edges, not 1"):
        replace(AGE, edges=(60,))
    with pytest.raises(ValueError, match="'bmi_band': band 'normal' has no typical bmi"):
        replace(BMI, bands={**BMI.bands, "normal": Band("Normal", "Normal")})
    with pytest.raises(ValueError, match="'sex' has 1 bands; give at least two"):
        replace(SEX, bands={"F": Band("Female", "Female")})


def test_typical_numbers_lie_in_their_bands_and_within_bounds():
    for axis in AXES.values():
        if axis.measure:
            numbers = [band.typical for band in axis.bands.values()]
            table = pd.DataFrame({axis.measure: numbers})
            assert with_bands(table)[axis.column].tolist() == list(axis.values)
            assert all(axis.bounds[0] <= number <= axis.bounds[1] for number in numbers)


def test_what_readers_call_things():
    assert axes.title_of("age_band") == "Age" and axes.title_of("source") == "Source"
    assert axes.title_of("diagnosis") == "Diagnosis" and axes.title_of("overall") == "Overall"
    assert axes.name_of("age_band", "70+") == "Age > 70"
    assert axes.name_of("age_band", "70+", short=True) == "70+"
    assert axes.name_of("sex", "nothing") == "nothing"
    assert axes.name_of("diagnosis", np.int64(1)) == "Diseased"
