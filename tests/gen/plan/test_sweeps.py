"""Plans that hold everything but one thing fixed."""

from __future__ import annotations

import pytest

from cmrdata.axes import BMI
from cmrdata.subjects import cut
from cmrgen.prompts import prompt
from support.fake_index import (
    check,
    figures,
    sweep,
)


def test_fig_3_varies_bmi_and_fig_4_the_seed_and_nothing_else(index, subjects):
    rows = figures(index, seeds=5)
    check(rows, subjects, index)
    assert rows.row.tolist() == list(range(len(rows)))
    three, four = rows[rows.figure == 3], rows[rows.figure == 4]
    assert three.source_row.nunique() == 2 and len(three) == 6 and len(four) == 5
    for _, part in three.groupby("source_row"):
        varied = {column for column in part if part[column].astype(str).nunique() > 1}
        assert varied == {"row", "bmi", "bmi_band", "prompt", "group", "borrowed"}
        assert (
            part.bmi_band.tolist()
            == cut(BMI, part.bmi).tolist()
            == ["normal", "overweight", "obese"]
        )
        assert part.prompt.tolist() == [prompt(row) for _, row in part.iterrows()]
        assert [g.split("/")[2] for g in part.group] == part.bmi_band.tolist()
    assert {column for column in four if four[column].astype(str).nunique() > 1} == {"row", "seed"}
    assert four.seed.is_unique and set(four.label) == {1} and set(four.sex) == {"M"}
    assert [
        (p.sex.iloc[0], p.age_band.iloc[0]) for _, p in three.groupby("source_row", sort=False)
    ] == [("F", "60-70"), ("M", "70+")]


@pytest.mark.parametrize(
    ("attribute", "values", "shown"),
    [
        ("sex", None, ["F", "M"]),
        ("age", [50, 61.5, 88], [50.0, 61.5, 88.0]),
        ("age", None, [55.0, 65.0, 75.0]),
        ("bmi", None, [22.0, 27.5, 34.0]),
        ("diagnosis", None, ["healthy", "hf"]),
    ],
)
def test_a_sweep_varies_one_attribute_of_one_mask_and_seed(
    index, subjects, attribute, values, shown
):
    plan = sweep(index, like="F/60-70/obese/hf", attribute=attribute, values=values)
    check(plan, subjects, index)
    assert (
        plan[attribute].tolist() == shown and plan.source_row.nunique() == plan.seed.nunique() == 1
    )
    follows = {"age": {"age_band"}, "bmi": {"bmi_band"}, "diagnosis": {"label", "conditions"}}.get(
        attribute, set()
    )
    varied = {column for column in plan if plan[column].astype(str).nunique() > 1}
    assert (
        varied <= {"row", attribute, "group", "prompt", "borrowed"} | follows
        and {"prompt", "group"} <= varied
    )
    own = index.loc[plan.source_row[0]]
    assert own.central and own.group == "F/60-70/obese/hf"


def test_a_sweep_crosses_values_seeds_guidance_and_steps(index, subjects):
    row = int(index.index[index.split == "train"][50])
    plan = sweep(
        index,
        source_row=row,
        attribute="sex",
        seeds=3,
        guidance=[1, 4],
        steps=[4, 8, 20],
        negative="blur",
    )
    check(plan, subjects, index)
    assert (
        len(plan) == 2 * 3 * 2 * 3
        and set(plan.source_row) == {row}
        and set(plan.negative) == {"blur"}
    )
    assert not plan.duplicated(["sex", "seed", "guidance", "steps"]).any()
    assert (
        set(plan.guidance) == {1.0, 4.0}
        and set(plan.steps) == {4, 8, 20}
        and plan.seed.nunique() == 3
    )
    seeds = sweep(index, seeds=4)
    assert "steps" not in seeds and {c for c in seeds if seeds[c].astype(str).nunique() > 1} == {
        "row",
        "seed",
    }
    assert (
        sweep(index, seeds=2, seed=3).seed.tolist()
        == sweep(index, seeds=4, seed=3).seed.tolist()[:2]
    )
