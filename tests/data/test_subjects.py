from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.axes import AGE, AXES, BMI, DIAGNOSES, SEX, known_axes
from cmrdata.subjects import (
    FOLDS,
    _filled,
    attribute_columns,
    balancing_weights,
    bmi_of,
    cut,
    further_columns,
    keep_controls,
    numbers_in,
    split,
    whole,
    with_groups,
)
from support.fake_cohort import FakeCohort

YEARS, KG_PER_M2 = (
    dict(zip(AGE.values, (50, 65, 75), strict=True)),
    dict(zip(BMI.values, (20, 27, 35), strict=True)),
)
CELLS = list(product(SEX.values, AGE.values, BMI.values, ("healthy", "hf")))


def table(counts: list[int], *, undiagnosed: int = 0) -> pd.DataFrame:
    """counts[k] subjects of the k-th of the 36 groups, then some without a diagnosis."""
    cells = [cell for cell, count in zip(CELLS, counts, strict=False) for _ in range(count)]
    cells += [("F", "<60", "normal", None)] * undiagnosed
    return with_groups(
        pd.DataFrame(
            {
                "subject": [f"SYN{k:04d}" for k in range(len(cells))],
                "source": "made",
                "sex": [sex for sex, *_ in cells],
                "age": [YEARS[age] for _, age, *_ in cells],
                "bmi": [KG_PER_M2[bmi] for _, _, bmi, _ in cells],
                "diagnosis": [diagnosis for *_, diagnosis in cells],
            }
        )
    )


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [
        (AGE, 59.99, "<60"),
        (AGE, 60, "60-70"),
        (AGE, 69.99, "60-70"),
        (AGE, 70, "70+"),
        (BMI, 15, "normal"),
        (BMI, 24.99, "normal"),
        (BMI, 25, "overweight"),
        (BMI, 29.99, "overweight"),
        (BMI, 30, "obese"),
    ],
)
def test_a_band_begins_at_its_lower_edge(axis, value, expected):
    assert cut(axis, pd.Series([value])).tolist() == [expected]


@pytest.mark.parametrize("axis", [AGE, BMI])
@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_what_is_unknown_stays_unknown(axis, missing):
    assert cut(axis, pd.Series([missing, 99], dtype=object)).isna().tolist() == [True, False]


def test_sex_age_bmi_and_diagnosis_make_36_groups():
    groups = table([1] * 36).group
    assert groups.nunique() == 36
    assert "F/60-70/obese/hf" in set(groups)


def test_missing_attributes_leave_the_group_name():
    people = (
        table([1])
        .drop(columns=["age_band", "bmi_band", "label", "group"])
        .assign(sex=None, age=np.nan)
    )
    assert with_groups(people).group.tolist() == ["normal/healthy"]


def test_axes_without_two_values_are_not_known():
    people = table([1] * 36).assign(sex=None, age_band="<60")
    assert known_axes(people) == ["bmi_band"]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("sex", "Female", ("'sex'", "Female", "F, M")),
        ("diagnosis", "asthma", ("'diagnosis'", "asthma", "healthy")),
        ("age", 150, ("SYN0000", "age 150", "missing")),
        ("bmi", 4, ("SYN0000", "bmi 4", "missing")),
        ("subject", "SYN0001", ("SYN0001", "twice", "keep one")),
    ],
)
def test_an_impossible_value_is_named_with_its_remedy(column, value, words):
    people = table([2]).drop(columns=["label"]).astype({column: object})
    people.loc[0, column] = value
    with pytest.raises(ValueError) as error:
        with_groups(people)
    assert all(word in str(error.value) for word in words)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="bmi"):
        with_groups(table([1]).drop(columns="bmi"))


@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=36, max_size=36), seed=st.integers(0, 2**32 - 1)
)
def test_the_split_is_stratified_and_exact(counts, seed):
    people = table(
        [*counts[:35], counts[35] + (-sum(counts)) % 25], undiagnosed=7
    )  # 20 % and 20 % of the rest are whole
    where, diseased = split(people, seed=seed), people.diagnosis.notna()
    total = int(diseased.sum())
    assert (where == "test").sum() == round(0.2 * total)
    assert (where == "val").sum() == round(0.2 * 0.8 * total)
    assert (where[~diseased] == "extra").all() and not (where[diseased] == "extra").any()
    for group, members in where[diseased].groupby(people.group):
        rest = (members != "test").sum()
        assert abs((members == "test").sum() - 0.2 * len(members)) < 1, group
        assert abs((members == "val").sum() - 0.2 * rest) < 1, group


def test_over_all_folds_every_subject_is_tested_once_and_groups_evenly():
    people = table([7, 23, 11, 40] * 9, undiagnosed=5)
    splits = pd.DataFrame({fold: split(people, seed=3, fold=fold) for fold in range(FOLDS)})
    known = people.diagnosis.notna()
    assert ((splits == "test").sum(axis=1) == known).all()
    for fold in range(FOLDS):
        tested = people.group[splits[fold] == "test"].value_counts()
        shares = people.group[known].value_counts()
        assert (tested.reindex(shares.index, fill_value=0) - shares / FOLDS).abs().max() < 1
        assert (splits[fold] == "val").sum() == pytest.approx(0.16 * known.sum(), abs=2)
    with pytest.raises(ValueError, match="fold is 5; it takes 0 to 4"):
        split(people, seed=3, fold=5)


def test_a_split_is_repeatable_and_blind_to_names():
    people = table([5] * 36)
    renamed = people.assign(subject=[f"SYN{k:04d}" for k in reversed(range(len(people)))])
    assert split(people, seed=3).equals(split(renamed, seed=3))
    assert not split(people, seed=3).equals(split(people, seed=4))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=60))
def test_every_group_has_the_same_weight(names):
    groups = pd.Series(names)
    mass = (
        pd.Series(balancing_weights(pd.DataFrame({"group": groups, **dict.fromkeys(AXES)})))
        .groupby(groups)
        .sum()
    )
    np.testing.assert_allclose(mass, 1 / groups.nunique())


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("FM"), st.sampled_from([22.0, 33.0, None])),
        min_size=2,
        max_size=60,
    )
)
def test_who_lacks_an_attribute_weighs_as_an_average_subject(rows):
    people = pd.DataFrame(rows, columns=["sex", "bmi"]).assign(
        source="made", age=65, diagnosis="hf"
    )
    people.insert(0, "subject", [f"SYN{k:04d}" for k in range(len(people))])
    people = with_groups(people)
    weights, full = balancing_weights(people), whole(people)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[~full], 1 / len(people))
    mass = pd.Series(weights)[full].groupby(people.group[full]).sum()
    np.testing.assert_allclose(mass, mass.iloc[:1].sum())
    assert full.all() == (people.bmi.notna().all() or people.bmi.isna().all())


@pytest.mark.parametrize(
    ("weight", "height", "bmi"),
    [
        (81, 180, 25),
        (81, 1.8, 25),
        (None, 180, None),
        (81, 0, None),
        (810, 180, None),
        ("tall", 180, None),
        (81, -3, None),
    ],
)
def test_bmi_comes_from_kilograms_and_centimetres_or_metres(weight, height, bmi):
    found = bmi_of(pd.Series([weight]), pd.Series([height])).item()
    assert found == pytest.approx(bmi) if bmi else np.isnan(found)


def test_conditions_are_codes_in_their_order():
    people = table([2] * 36).drop(columns="conditions").assign(conditions="mi;af")
    assert set(with_groups(people).conditions) == {"mi;af"}
    for odd in ("af;mi", "stroke", "mi;mi"):
        with pytest.raises(
            ValueError, match=f"'conditions' holds .*{odd}.*mi, ihd, af in this order"
        ):
            with_groups(people.assign(conditions=odd))


@pytest.mark.parametrize("per_case", [0, 1, 2.5])
def test_undersampling_takes_controls_from_training_only(per_case):
    people = table([20, 3] * 18)
    people["split"] = split(people, seed=0)
    keep = keep_controls(people, per_case=per_case, seed=0)
    train = people.split == "train"
    cases = (train & (people.label == 1)).sum()
    assert keep[~train].all() and keep[people.label == 1].all()
    assert (keep & train & (people.label == 0)).sum() == round(per_case * cases)
    assert keep.equals(keep_controls(people, per_case=per_case, seed=0))


def test_no_undersampling_keeps_everybody():
    people = table([20, 3] * 18).assign(split="train")
    assert keep_controls(people, per_case=None, seed=0).all()
    assert keep_controls(people, per_case=100, seed=0).all()


def test_every_diagnosis_has_a_label():
    people = FakeCohort().subjects()[0]
    people["diagnosis"] = np.resize([*DIAGNOSES, None], len(people))
    labels = with_groups(people).label
    assert labels.isna().sum() == people.diagnosis.isna().sum()
    assert set(labels.dropna()) == {0, 1}


# by the numbers


def test_splits_are_those_of_the_studies_made_before():
    """Other draws would make every finished study another one."""
    people = table([3, 4, 5, 6], undiagnosed=1)
    letters = {"train": "t", "val": "v", "test": "T", "extra": "-"}
    for how, told in (
        ({"seed": 3}, "ttttTtvTvtttTttvtt-"),
        ({"seed": 4}, "TtvtttTtttTvtvttTt-"),
        ({"seed": 3, "fold": 1}, "tTtTttvtTtttttTtvt-"),
        ({"seed": 3, "test": 0.5, "validation": 0.5}, "tTvvTtTtTTTvTvtTtT-"),
    ):
        assert "".join(split(people, **how).map(letters)) == told
    people = people.assign(split="train", label=[0] * 12 + [1] * 6 + [None])
    for per_case, told in (
        (0.5, "..x....x...x"),
        (1, "xxx....x..xx"),
        (0, "." * 12),
        (2, "x" * 12),
    ):
        keep = keep_controls(people, per_case=per_case, seed=3)
        assert "".join(keep.map({True: "x", False: "."})) == told + "x" * 7
    for fold in (-1, 5, "a"):
        with pytest.raises(ValueError, match=f"fold is {fold}; it takes 0 to 4"):
            split(people, seed=0, fold=fold)


def test_a_share_that_one_cannot_take_goes_to_the_others():
    np.testing.assert_allclose(_filled(np.array([5.0, 1, 9]), total=9), [4, 1, 4])
    np.testing.assert_allclose(_filled(np.array([2.0, 1, 3]), total=9), [2, 1, 3])
    np.testing.assert_allclose(_filled(np.array([9.0, 9]), total=4), [2, 2])


def test_a_cap_of_repeats_shares_what_is_left_equally():
    groups = pd.DataFrame({"group": list("aaaaaabbc"), **dict.fromkeys(AXES)})
    free = balancing_weights(groups)
    np.testing.assert_allclose(free * 9, [0.5] * 6 + [1.5] * 2 + [3])
    for cap in (3, 4.0):
        np.testing.assert_allclose(balancing_weights(groups, max_repeats=cap), free)
    # two repeats: the one of c has 2 / 9, the groups a and b half of the rest each
    capped = balancing_weights(groups, max_repeats=2)
    np.testing.assert_allclose(capped * 9, [3.5 / 6] * 6 + [1.75] * 2 + [2])
    np.testing.assert_allclose(balancing_weights(groups, max_repeats=1) * 9, 1)
    # who lacks what others know keeps the mass of an average row
    lacking = groups.assign(sex=["F"] * 8 + [None])
    np.testing.assert_allclose(
        balancing_weights(lacking, max_repeats=1.5) * 9, [5 / 6] * 6 + [1.5] * 2 + [1]
    )
    for wrong in (0, 0.99, -1, True, "2"):
        with pytest.raises(ValueError, match=f"max_repeats={wrong}: give a number of at least 1"):
            balancing_weights(groups, max_repeats=wrong)
    assert len(balancing_weights(groups.iloc[:0])) == 0


def test_columns_that_can_be_subgroups_are_words_of_few_values():
    people = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(22)],
            "site": ["a", "b"] * 11,
            "one": "x",
            "most": [f"v{k % 20}" for k in range(22)],
            "many": [f"v{k % 21}" for k in range(22)],
            "number": range(22),
            "split": ["train", "test"] * 11,
            "flags": ["", "moved"] * 11,
        }
    )
    assert further_columns(people) == ["site", "most"]
    assert attribute_columns(people)[:3] == ["sex", "age", "bmi"]
    assert numbers_in(pd.DataFrame(columns=["bmi", "site"])) == {"bmi": BMI.bounds}
    assert numbers_in(people) == {}


def test_edges_of_what_a_person_can_have():
    # below 3 are metres, from 3 on centimetres
    told = bmi_of(pd.Series([180.0, 0.018, 0.018]), pd.Series([2.999, 3.0, 2.999]))
    np.testing.assert_allclose(told, [180 / 2.999**2, 20, np.nan])
    low, high = BMI.bounds
    people = table([2]).drop(columns=["label"])
    for value in (low, high):
        assert with_groups(people.assign(bmi=value)).bmi.tolist() == [value, value]
    for value in (np.nextafter(low, -1), np.nextafter(high, 1000)):
        with pytest.raises(ValueError, match=f"subject SYN0000: bmi .* is outside {low}..{high}"):
            with_groups(people.assign(bmi=value))
    assert whole(people.assign(sex=["F", None])).tolist() == [True, False]
