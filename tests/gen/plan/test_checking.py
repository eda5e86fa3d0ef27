"""A plan is refused by column, rows and remedy, before anything is drawn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cmrgen.plan import checking
from cmrgen.plan.checking import make_plan
from cmrgen.plan.rows import Plan
from support.fake_index import (
    balanced,
    check,
)


@pytest.mark.parametrize("where", ["test", "val", "extra"])
def test_a_plan_with_a_subject_of_another_split_is_refused(index, subjects, where):
    plan = balanced(index, count=20)
    stray = index[index.split == where].iloc[0]
    plan.loc[7, ["subject", "source_row"]] = [stray.subject, stray.name]
    with pytest.raises(
        ValueError, match=f"masks come from the {where} split .1 of .*of 1 subject, first at 7"
    ):
        check(plan, subjects, index)


def test_a_plan_without_a_column_or_with_a_stranger_is_refused(index, subjects):
    plan = balanced(index, count=5)
    with pytest.raises(ValueError, match=r"lacks the columns \['prompt', 'seed'\].*plan=custom"):
        check(plan.drop(columns=["prompt", "seed"]), subjects, index)
    with pytest.raises(
        ValueError, match="'gudance' .for 'guidance'.*, 'z'; a plan has row, subject"
    ):
        check(plan.assign(gudance=1, z=2), subjects, index)
    with pytest.raises(ValueError, match="no rows"):
        check(plan.head(0), subjects, index)
    with pytest.raises(ValueError):
        check(plan.assign(subject="SYN999999"), subjects, index)


def test_a_mask_that_is_not_the_named_training_subjects_is_refused(index, subjects):
    plan = balanced(index, count=20)
    others = {
        split: index.index[index.split == split][0] for split in ("train", "val", "test", "extra")
    }
    for stray in others.values():
        plan.loc[[7, 9], "source_row"] = stray
        with pytest.raises(
            ValueError,
            match=f"'source_row' is {stray} in rows 7, 9: that mask is another subject's",
        ):
            check(plan, subjects, index)
    moved_over = index.assign(split=index.split.where(index.index != others["train"], "test"))
    plan.loc[[7, 9], ["subject", "source_row"]] = [index.subject[others["train"]], others["train"]]
    with pytest.raises(ValueError, match="in rows 7, 9: that mask is not a training subject's"):
        check(plan, subjects, moved_over)
    plan.loc[[7, 9], "source_row"] = 10**6
    with pytest.raises(ValueError, match="in rows 7, 9: the cohort's store has rows 0 to 1891"):
        check(plan, subjects, index)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("row", 5, "is 5 in rows 2, 4: rows count from 0"),
        ("sex", "X", "is 'X' in rows 2, 4: it takes F, M"),
        ("diagnosis", "flu", "is 'flu' in rows 2, 4: it takes healthy, hf, reduced_ef"),
        ("diagnosis", None, "is empty in rows 2, 4: an image must show a diagnosis"),
        ("conditions", "af;mi", "is 'af;mi' in rows 2, 4: it takes mi, ihd, af, joined by ;"),
        ("age", 300.0, "is .*300.0.* in rows 2, 4: it takes numbers from 0 to 120, or nothing"),
        ("bmi", 5.0, "in rows 2, 4: it takes numbers from 12 to 70"),
        (
            "age_band",
            "old",
            "is 'old' in rows .*2.*: the row's other columns say .*it takes <60, 60-70, 70.",
        ),
        ("label", 7, "is 7 in rows 2, 4: the row's other columns say [01]"),
        (
            "group",
            "X/60-70/obese/hf",
            "is 'X/60-70/obese/hf' in rows 2, 4: the row's other columns say '[FM]/",
        ),
        ("borrowed", "F/60-70/obese/hf", "in rows 2, 4: the row's other columns say ''"),
        ("prompt", None, "is empty in rows 2, 4: it takes text"),
        ("negative", float("nan"), "is empty in rows 2, 4: it takes text"),
        ("guidance", float("nan"), "is empty in rows 2, 4: it takes numbers of at least 0"),
        ("strength", float("inf"), "is .*inf.* in rows 2, 4: it takes numbers of at least 0"),
        ("seed", -1, "is .*-1.* in rows 2, 4: it takes whole numbers of at least 0"),
        ("steps", 0, "is .*0.* in rows 2, 4: it takes whole numbers from 1 to 1000"),
        ("angle", 11.0, "in rows 2, 4: it takes numbers from -10 to 10 .anatomical limits"),
        ("zoom", 1.2, "in rows 2, 4: it takes numbers from 0.95 to 1.05 .anatomical limits"),
        ("dx", -0.1, "in rows 2, 4: it takes numbers from -0.03 to 0.03 .anatomical limits"),
    ],
)
def test_a_row_that_cannot_be_drawn_is_refused_by_column_and_row(
    index, subjects, column, value, words
):
    plan = balanced(index, count=6).assign(steps=8)
    check(plan, subjects, index)
    plan[column] = plan[column].astype(object)
    plan.loc[[2, 4], column] = value
    with pytest.raises(ValueError, match=f"plan column '{column}' (?=.*{words})"):
        check(plan, subjects, index)


def test_numbers_at_their_limits_are_drawn(index, subjects):
    plan = balanced(index, count=6).assign(steps=[1, 1000, 8, 8, 8, 8])
    plan.loc[[0, 1], "guidance"] = [0, 900.0]
    plan.loc[[0, 1], "angle"] = [-10, 10]
    plan.loc[[0, 1], "zoom"] = [0.95, 1.05]
    plan.loc[[0, 1], ["dy", "dx"]] = [[-0.03, 0.03], [0.03, -0.03]]
    plan.loc[[0, 1], "seed"] = [0, 2**62]
    check(plan, subjects, index)
    for column, values in {"steps": (0, 1001), "angle": (-10.01, 10.01)}.items():
        for row, value in enumerate(values):
            wrong = plan.astype({column: float})
            wrong.loc[row, column] = value
            with pytest.raises(ValueError, match=f"'{column}' is {value:g}[.0]* in row {row}:"):
                check(wrong, subjects, index)


def test_rows_are_counted_and_five_are_named():
    plan = pd.DataFrame({"guidance": range(8), "subject": ["SYN0001"] * 8})
    checking.refuse(plan, "guidance", [False] * 8, "no fault")
    for wrong, words in (
        ([0, 0, 1, 0, 0, 0, 0, 0], "'guidance' is 2 in row 2: mend it"),
        ([1, 1, 1, 1, 1, 0, 0, 0], "'guidance' is 0 in rows 0, 1, 2, 3, 4: mend it"),
        ([0, 1, 1, 1, 1, 1, 1, 1], "'guidance' is 1 in rows 1, 2, 3, 4, 5 and 2 more: mend it"),
    ):
        with pytest.raises(ValueError, match=f"^plan column {words}$"):
            checking.refuse(plan, "guidance", wrong, "mend it")
    with pytest.raises(ValueError, match="^plan column 'subject' in row 0: mend it$"):
        checking.refuse(plan, "subject", [1, *[0] * 7], "mend it")


def test_the_source_of_a_plan_begins_its_error_and_a_recipe_may_give_rows_alone(index, subjects):
    rows = balanced(index, count=3)
    cohort = SimpleNamespace(index=index, subjects=subjects)
    assert make_plan(lambda index: rows, cohort).rows is rows
    plan = Plan(rows.assign(guidance=-1.0), source="plan.path=a.csv")
    with pytest.raises(ValueError, match="^plan.path=a.csv: plan column 'guidance' is -1.0"):
        make_plan(lambda index: plan, cohort)


def test_a_column_that_follows_from_others_may_be_empty_only_where_they_are(index, subjects):
    plan = balanced(index, count=6)
    plan.loc[2, "age_band"] = None
    with pytest.raises(ValueError, match="'age_band' is empty in row 2: .* say '"):
        check(plan, subjects, index)
    plan = balanced(index, count=6)
    plan.loc[2, ["age", "age_band"]] = [np.nan, None]
    with pytest.raises(ValueError, match="'group' is .* in row 2: the row's other columns say"):
        check(plan, subjects, index)
