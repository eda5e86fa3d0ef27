"""Plans as tables with properties, and their rendering into sets that survive interruption."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.cohort import balancing_weights, bmi_band, group_names, split, with_groups
from cmrdata.readers.phantom import OFFSETS, Phantom
from cmrdata.cohort import ATTRIBUTES
from cmrgen.groups import possible_groups
from cmrgen.plan import balanced, check, copy, summary, sweep
from cmrgen.prompts import prompt

few = settings(max_examples=6, deadline=None)


@pytest.fixture(scope="module")
def subjects() -> pd.DataFrame:
    """300 people with a split; every 15th is neither case nor control."""
    table = Phantom(subjects=300, hf_scale=20, pixels=32).people.copy()
    table.loc[::15, "diagnosis"] = None
    table = with_groups(table)
    return table.assign(split=split(table, seed=0))


@pytest.fixture(scope="module")
def index(subjects) -> pd.DataFrame:
    """The index of a store of these people: nine rows of a train or extra subject, one of the others."""
    rows = [
        {**person, "slice": j, "frame": i, "central": j == i == 0, "flags": ""}
        for person in subjects.to_dict("records")
        for j, i in (OFFSETS if person["split"] in ("train", "extra") else [(0, 0)])
    ]
    return pd.DataFrame(rows).astype({"label": "Int64"})


@few
@given(count=st.integers(1, 400), seed=st.integers(0, 99))
def test_every_prefix_holds_each_group_equally_often(index, count, seed):
    plan = balanced(index, count=count, seed=seed)
    assert len(plan) == count and plan.row.tolist() == list(range(count))
    groups = index[(index.split == "train") & index.diagnosis.notna()].group.unique()
    seen = np.cumsum([plan.group == group for group in groups], axis=1)
    assert (seen.max(0) - seen.min(0)).max() <= 1
    assert seen[:, -1].sum() == count


@few
@given(short=st.integers(1, 150), more=st.integers(1, 150), seed=st.integers(0, 99))
def test_a_longer_plan_begins_with_the_shorter(index, short, more, seed):
    longer, shorter = (balanced(index, count=count, seed=seed) for count in (short + more, short))
    pd.testing.assert_frame_equal(longer.head(short), shorter)


def test_the_seed_decides_the_plan(index):
    one, again, other = (balanced(index, count=60, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, again)
    assert (one.source_row != other.source_row).any() and (one.seed != other.seed).all()


@pytest.mark.parametrize("plan_of", [balanced, copy])
def test_prompt_and_mask_are_the_same_training_subjects(index, subjects, plan_of):
    plan = plan_of(index, count=500)
    sources = index.loc[plan.source_row].reset_index(drop=True)
    for column in ("subject", *ATTRIBUTES):
        pd.testing.assert_series_equal(plan[column], sources[column], check_dtype=False)
    assert plan.prompt.tolist() == [prompt(row) for _, row in sources.iterrows()]
    who = subjects.set_index("subject").loc[plan.subject]
    assert set(who.split) == {"train"} and who.diagnosis.notna().all()
    check(plan, subjects)


def test_the_fixture_has_all_splits_to_leak_from(subjects):
    assert set(subjects.split) == {"train", "val", "test", "extra"}


def test_subjects_take_turns_and_no_mask_repeats_before_all_have_served(index):
    plan = balanced(index, count=3000)
    train = index[(index.split == "train") & index.diagnosis.notna()]
    for group, rows in plan.groupby("group"):
        own = train[train.group == group]
        people, masks = own.subject.nunique(), len(own)
        uses = rows.subject.tolist()
        for k in range(0, min(len(uses), masks) - people + 1, people):  # all have nine masks: nine whole rounds
            assert len(set(uses[k : k + people])) == people
        assert rows.source_row.head(masks).is_unique
        assert rows.source_row.iloc[masks:].tolist() == rows.source_row.head(max(0, len(rows) - masks)).tolist()
    assert (summary(plan).masks > summary(plan).subjects).any()


def test_seeds_are_distinct(index):
    for seed in range(3):
        assert balanced(index, count=2000, seed=seed).seed.is_unique


def test_a_balanced_plan_weighs_groups_equally_and_copy_does_not(index):
    even = balanced(index, count=len(index.group[index.split == "train"].unique()) * 4)
    assert np.ptp(balancing_weights(even)) < 1e-12
    drawn = copy(index, count=400)
    shares = index[(index.split == "train") & index.diagnosis.notna()].group.value_counts(normalize=True)
    assert np.abs(drawn.group.value_counts(normalize=True).reindex(shares.index, fill_value=0) - shares).max() < 0.06


def test_subjects_who_lack_an_attribute_stand_for_no_group(index):
    lacking = index.subject.unique()[::7]
    index = index.copy()
    index.loc[index.subject.isin(lacking), ["bmi", "bmi_band"]] = None
    index["group"] = group_names(index)
    plan = balanced(index, count=80)
    assert not set(plan.subject) & set(lacking) and set(plan.group) | set(plan.attrs["missing"]) == possible_groups(
        index
    )
    assert plan.group.value_counts().max() - plan.group.value_counts().min() <= 1


def test_groups_without_a_training_subject_are_named(index):
    gone = ["F/60-70/obese/hf", "M/70+/normal/healthy"]
    index = index[~((index.split == "train") & index.group.isin(gone))]
    absent = sorted(possible_groups(index) - set(index.group[index.split == "train"]))
    assert set(gone) <= set(absent)
    plan = balanced(index, count=40)
    assert plan.attrs["missing"] == absent and not set(plan.group) & set(absent)
    with pytest.raises(ValueError, match=f"belongs to {len(absent)} groups: .*plan.missing=skip") as error:
        balanced(index, count=40, missing="error")
    assert ", ".join(absent) in str(error.value)


def test_a_cohort_without_sex_and_age_has_the_groups_it_knows(index):
    table = index.assign(sex=None, age=np.nan, age_band=None)
    table["group"] = table.bmi_band + "/" + table.diagnosis
    assert possible_groups(table) == {f"{b}/{d}" for b in ("normal", "overweight", "obese") for d in ("healthy", "hf")}
    plan = balanced(table, count=12)
    assert plan.group.value_counts().tolist() == [2] * 6
    assert set(plan.prompt) == {f"{b} BMI, {d}" for b in ("normal", "overweight", "obese")
                                for d in ("healthy", "with heart failure")}  # fmt: skip


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 5, "missing": "ignore"}])
def test_bad_settings_are_refused_by_name(index, options):
    with pytest.raises(ValueError, match="plan.count=.*plan.missing="):
        balanced(index, **options)


def test_no_training_subject_no_plan(index):
    with pytest.raises(ValueError, match="no labelled training subject"):
        balanced(index[index.split != "train"], count=5)


def test_fig_3_varies_bmi_and_fig_4_the_seed_and_nothing_else(index, subjects):
    rows = sweep(index, seeds=5)
    check(rows, subjects)
    assert rows.row.tolist() == list(range(len(rows)))
    three, four = rows[rows.figure == 3], rows[rows.figure == 4]
    assert three.source_row.nunique() == 2 and len(three) == 6 and len(four) == 5
    for _, part in three.groupby("source_row"):
        varied = {column for column in part if part[column].astype(str).nunique() > 1}
        assert varied == {"row", "bmi", "bmi_band", "prompt", "group"}
        assert part.bmi_band.tolist() == bmi_band(part.bmi).tolist() == ["normal", "overweight", "obese"]
        assert part.prompt.tolist() == [prompt(row) for _, row in part.iterrows()]
        assert [g.split("/")[2] for g in part.group] == part.bmi_band.tolist()
    assert {column for column in four if four[column].astype(str).nunique() > 1} == {"row", "seed"}
    assert four.seed.is_unique and set(four.label) == {1} and set(four.sex) == {"M"}
    assert [(p.sex.iloc[0], p.age_band.iloc[0]) for _, p in three.groupby("source_row", sort=False)] == [
        ("F", "60-70"), ("M", "70+")]  # fmt: skip


@pytest.mark.parametrize("where", ["test", "val", "extra"])
def test_a_plan_with_a_subject_of_another_split_is_refused(index, subjects, where):
    plan = balanced(index, count=20)
    stray = index[index.split == where].iloc[0]
    plan.loc[7, ["subject", "source_row"]] = [stray.subject, stray.name]
    with pytest.raises(ValueError, match=f"subject {stray.subject}: masks come from the {where} split.*first at 7"):
        check(plan, subjects)


def test_a_plan_without_a_column_or_with_a_stranger_is_refused(index, subjects):
    plan = balanced(index, count=5)
    with pytest.raises(ValueError, match=r"lacks the columns \['prompt', 'seed'\]"):
        check(plan.drop(columns=["prompt", "seed"]), subjects)
    with pytest.raises(ValueError, match="SYN999999"):
        check(plan.assign(subject="SYN999999"), subjects)
