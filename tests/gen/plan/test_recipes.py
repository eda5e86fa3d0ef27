"""Plans as tables with properties: balanced, repeatable, from training subjects' masks only, and
honest about each row."""

import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra.utils import get_object
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.axes import AGE, AXES
from cmrdata.plan_columns import PLAN
from cmrdata.subjects import ATTRIBUTES, balancing_weights, cut, group_names
from cmrgen.plan import recipes
from cmrgen.plan.groups import attributes_of, nearest_group, possible_groups, typical
from cmrgen.plan.rows import Drawing, summary
from cmrgen.prompts import prompt
from support import ROOT
from support.fake_index import (
    GONE,
    PLANS,
    balanced,
    check,
    copy,
    random_prompt,
    sweep,
)

few = settings(max_examples=6, deadline=None)


def missing_groups(index: pd.DataFrame) -> list[str]:
    labelled = index[(index.split == "train") & index.diagnosis.notna()]
    return sorted(possible_groups(index) - set(labelled.group))


@few
@given(
    count=st.integers(1, 400), seed=st.integers(0, 99), missing=st.sampled_from(["skip", "borrow"])
)
def test_every_prefix_holds_each_group_equally_often(lacking, count, seed, missing):
    made = recipes.balanced(lacking, count=count, seed=seed, missing=missing)
    plan = made.rows
    assert len(plan) == count and plan.row.tolist() == list(range(count))
    absent = missing_groups(lacking) if missing == "skip" else []
    groups = sorted(possible_groups(lacking) - set(absent))
    assert made.missing == absent
    seen = np.cumsum([plan.group == group for group in groups], axis=1)
    assert (seen.max(0) - seen.min(0)).max() <= 1
    assert seen[:, -1].sum() == count


@few
@given(short=st.integers(1, 150), more=st.integers(1, 150), seed=st.integers(0, 99))
@pytest.mark.parametrize("plan_of", [partial(balanced, missing="borrow"), copy, random_prompt])
def test_a_longer_plan_begins_with_the_shorter(lacking, plan_of, short, more, seed):
    longer, shorter = (
        plan_of(lacking, count=count, seed=seed, per_mask=0) for count in (short + more, short)
    )
    assert longer.head(short).to_csv(index=False) == shorter.to_csv(index=False)


@pytest.mark.parametrize("name", PLANS)
def test_the_same_settings_give_the_same_bytes_and_only_training_masks(lacking, subjects, name):
    before = lacking.to_csv()
    plan, again = (PLANS[name](lacking) for _ in range(2))
    assert plan.to_csv(index=False) == again.to_csv(index=False) and lacking.to_csv() == before
    assert set(plan) - {"source", "steps", "figure"} == set(PLAN)
    check(plan, subjects, lacking)
    own = lacking.loc[plan.source_row]
    assert set(own.split) == {"train"} and own.subject.tolist() == plan.subject.tolist()
    told = np.where(own.group.to_numpy() == plan.group.to_numpy(), "", own.group)
    assert plan.borrowed.tolist() == told.tolist()


@pytest.mark.parametrize("plan_of", [balanced, copy, random_prompt])
def test_the_seed_decides_the_plan(index, plan_of):
    one, other = (plan_of(index, count=60, seed=seed) for seed in (1, 2))
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
    check(plan, subjects, index)


def test_the_fixture_has_all_splits_to_leak_from(subjects):
    assert set(subjects.split) == {"train", "val", "test", "extra"}


def test_subjects_take_turns_and_no_mask_repeats_before_all_have_served(index):
    plan = balanced(index, count=3000)
    train = index[(index.split == "train") & index.diagnosis.notna()]
    for group, rows in plan.groupby("group"):
        own = train[train.group == group]
        people, masks = own.subject.nunique(), len(own)
        uses = rows.subject.tolist()
        # all have nine masks: nine whole rounds
        for k in range(0, min(len(uses), masks) - people + 1, people):
            assert len(set(uses[k : k + people])) == people
        assert rows.source_row.head(masks).is_unique
        assert (
            rows.source_row.iloc[masks:].tolist()
            == rows.source_row.head(max(0, len(rows) - masks)).tolist()
        )
    assert (summary(plan).masks > summary(plan).subjects).any()


def test_seeds_are_distinct(index):
    for seed in range(3):
        assert balanced(index, count=2000, seed=seed).seed.is_unique


def test_a_balanced_plan_weighs_groups_equally_and_copy_does_not(index):
    even = balanced(index, count=len(index.group[index.split == "train"].unique()) * 4)
    assert np.ptp(balancing_weights(even)) < 1e-12
    drawn = copy(index, count=400)
    shares = index[(index.split == "train") & index.diagnosis.notna()].group.value_counts(
        normalize=True
    )
    assert (
        np.abs(
            drawn.group.value_counts(normalize=True).reindex(shares.index, fill_value=0) - shares
        ).max()
        < 0.06
    )


def test_subjects_who_lack_an_attribute_stand_for_no_group(index):
    lacking = index.subject.unique()[::7]
    index = index.copy()
    index.loc[index.subject.isin(lacking), ["bmi", "bmi_band"]] = None
    index["group"] = group_names(index)
    plan, missing, *_ = recipes.balanced(index, count=80)
    assert not set(plan.subject) & set(lacking)
    assert set(plan.group) | set(missing) == possible_groups(index)
    assert plan.group.value_counts().max() - plan.group.value_counts().min() <= 1


def test_groups_without_a_training_subject_are_named(lacking):
    absent = missing_groups(lacking)
    assert set(GONE) <= set(absent)
    plan, missing, *_ = recipes.balanced(lacking, count=40)
    assert missing == absent and not set(plan.group) & set(absent)
    with pytest.raises(
        ValueError, match=f"belongs to {len(absent)} groups: .*plan.missing=skip.*borrow"
    ) as error:
        balanced(lacking, count=40, missing="error")
    assert ", ".join(absent) in str(error.value)


def test_absent_groups_borrow_the_nearest_groups_masks_and_say_so(lacking):
    absent = missing_groups(lacking)
    present = sorted(possible_groups(lacking) - set(absent))
    plan = balanced(lacking, count=360, missing="borrow")
    own = lacking.loc[plan.source_row].reset_index(drop=True)
    lent = plan.group.isin(absent)
    assert (plan.borrowed[~lent] == "").all() and set(plan.group[lent]) == set(absent)
    for row, of in zip(plan[lent].itertuples(), own[lent].itertuples(), strict=True):
        words = attributes_of(row.group)
        assert row.borrowed == of.group == nearest_group(row.group, present)
        assert (row.sex, row.age_band, row.bmi_band, row.diagnosis) == tuple(words.values())
        assert row.age == (
            of.age if of.age_band == row.age_band else typical("age_band")[row.age_band]
        )
        assert row.bmi == (
            of.bmi if of.bmi_band == row.bmi_band else typical("bmi_band")[row.bmi_band]
        )
    assert plan.prompt.tolist() == [prompt(row) for _, row in plan.iterrows()]
    assert summary(plan).set_index("group").borrowed.to_dict() == {
        group: 10 * (group in absent) for group in possible_groups(lacking)
    }
    for column in ("subject", *ATTRIBUTES):
        assert plan[column][~lent].tolist() == own[column][~lent].tolist()


def test_a_borrower_of_another_diagnosis_has_none_of_the_lenders_conditions(index):
    ill = ~((index.split == "train") & (index.diagnosis == "hf"))
    plan = balanced(index[ill].assign(conditions="mi"), count=72, missing="borrow")
    lent = plan.borrowed != ""
    assert plan.diagnosis[lent].eq("hf").any()
    assert (plan.conditions == np.where(plan.diagnosis == "hf", "", "mi")).all()
    assert not plan.prompt[plan.diagnosis == "hf"].str.contains("infarction").any()


def test_a_cohort_without_sex_and_age_has_the_groups_it_knows(index):
    table = index.assign(sex=None, age=np.nan, age_band=None, conditions="")
    table["group"] = table.bmi_band + "/" + table.diagnosis
    assert possible_groups(table) == {
        f"{b}/{d}" for b in ("normal", "overweight", "obese") for d in ("healthy", "hf")
    }
    plan = balanced(table, count=12)
    assert plan.group.value_counts().tolist() == [2] * 6
    assert set(plan.prompt) == {
        f"{b} BMI, {d}"
        for b in ("normal", "overweight", "obese")
        for d in ("healthy", "with heart failure")
    }


@pytest.mark.parametrize(
    ("plan_of", "options", "words"),
    [
        (balanced, {"count": 0}, "plan.count=0: give a whole number"),
        (balanced, {"count": 5, "missing": "ignore"}, "plan.missing=ignore.*error, skip, borrow"),
        (copy, {"count": 0}, "plan.count=0"),
        (random_prompt, {"count": -1}, "plan.count=-1"),
        (sweep, {"attribute": "height"}, "plan.attribute=height.*sex, age, bmi, diagnosis"),
        (sweep, {"values": [1]}, "plan.values=.*without plan.attribute"),
        (sweep, {"attribute": "sex", "values": ["F", "X"]}, r"sex takes F, M; correct \['X'\]"),
        (
            sweep,
            {"attribute": "age", "values": [60, 300, "old"]},
            r"numbers from 0 to 120; correct \[300, 'old'\]",
        ),
        (sweep, {"attribute": "bmi", "values": []}, "empty list"),
        (sweep, {"seeds": 0}, "plan.seeds=0"),
        (sweep, {"source_row": 99999}, "plan.source_row=99999.*0 to"),
        (sweep, {"like": "F/young"}, "'F/young' is no group"),
    ],
)
def test_bad_settings_are_refused_by_name(index, plan_of, options, words):
    with pytest.raises(ValueError, match=words):
        plan_of(index, **options)


@pytest.mark.parametrize("name", PLANS)
def test_half_masks_never_serve(index, subjects, name):
    train = index[(index.split == "train") & index.diagnosis.notna()]
    half = index.index.isin(train.index[::2])
    index = index.assign(
        flags=np.where(half, "seen;ed_unlabelled;central_moved", "ed_unlabelled_not")
    )
    plan = PLANS[name](index)
    assert not index.loc[plan.source_row, "flags"].str.contains("seen").any()
    row = train.index[0]
    plan.loc[3, ["subject", "source_row"]] = [index.subject[row], row]
    plan.loc[3, list(ATTRIBUTES)] = index.loc[row, list(ATTRIBUTES)]
    with pytest.raises(
        ValueError, match=f"'source_row' is {row} in row 3: no image may come from this mask"
    ):
        check(plan.assign(borrowed=""), subjects, index)


def test_no_training_subject_no_plan(index):
    with pytest.raises(ValueError, match="no labelled training subject"):
        balanced(index[index.split != "train"], count=5)


@pytest.mark.parametrize("seed", [0, 1])
def test_random_prompts_are_independent_of_the_mask_but_for_the_diagnosis(index, subjects, seed):
    plan = random_prompt(index, count=2000, seed=seed)
    check(plan, subjects, index)
    own = index.loc[plan.source_row].reset_index(drop=True)
    assert (
        plan.diagnosis.tolist() == own.diagnosis.tolist()
        and plan.conditions.tolist() == own.conditions.tolist()
    )
    for axis, levels in {
        **{axis: of.values for axis, of in AXES.items()},
        "diagnosis": ("healthy", "hf"),
    }.items():
        shares = plan[axis].value_counts(normalize=True)
        expected = (
            {"<60": 0.25, "60-70": 0.25, "70+": 0.5}
            if axis == "age_band"
            else dict.fromkeys(levels, 1 / len(levels))
        )
        assert set(shares.index) == set(levels) and all(
            abs(shares[k] - v) < 0.05 for k, v in expected.items()
        )
        if axis != "diagnosis":  # the same whatever the mask's subject, and whatever the diagnosis
            for other in (own[axis], plan.diagnosis):
                within = pd.crosstab(other, plan[axis], normalize="index")
                assert (within - within.mean()).abs().to_numpy().max() < 0.12
    assert set(plan.age) == {55.0, 65.0, 75.0, 85.0}  # the oldest is 82
    assert plan.prompt.tolist()[:99] == [prompt(row) for _, row in plan.head(99).iterrows()]


def test_random_prompts_say_nothing_a_cohort_does_not_know(index):
    table = index.assign(sex=None, age=np.nan, age_band=None)
    table["group"] = group_names(table)
    plan = random_prompt(table, count=60)
    assert (
        plan.sex.isna().all()
        and plan.age.isna().all()
        and set(plan.bmi) == set(typical("bmi_band").values())
    )
    nobody = index.assign(age=index.age.where(index.split != "train"))
    assert random_prompt(nobody, count=9).age.isna().all()
    young = index.assign(age=index.age - 40)
    young["age_band"] = cut(AGE, young.age)
    young["group"] = group_names(young)
    assert set(random_prompt(young, count=60).age) <= {5.0, 15.0, 25.0, 35.0, 45.0}


@pytest.mark.parametrize("name", ["balanced", "copy", "random_prompt", "sweep", "custom"])
def test_config_files_hold_what_their_plan_takes(name):
    config = yaml.safe_load((ROOT / "conf" / "plan" / f"{name}.yaml").read_text())
    target = config.pop("_target_")
    takes = inspect.signature(get_object(target)).parameters
    keys = {key for key in takes if key not in ("index", "drawing")} | (
        set(Drawing.__annotations__) if "drawing" in takes else set()
    )
    assert set(config) == keys - {"fields"}  # which generate.py gives
    for key, parameter in takes.items():
        if (
            key in config
            and not str(config[key]).startswith(("$", "???"))
            and parameter.default is not parameter.empty
        ):
            assert key == "attribute" or config[key] == parameter.default
