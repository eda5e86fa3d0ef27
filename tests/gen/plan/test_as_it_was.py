"""Every plan of a made-up cohort, column by column, and what is told of it, as they were when they
were last looked at: a set that was drawn can be drawn again.

A change that is meant: `python tests/gen/plan/test_as_it_was.py` writes the record anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from cmrgen.plan import recipes, sweeps
from cmrgen.plan.repeats import draws_by_group, draws_text, plan_text
from cmrgen.plan.rows import summary
from support import records
from support.fake_index import GONE, fake_index, fake_people, without

FILE = Path(__file__).with_name("as_it_was.json")
INDEX = without(fake_index(fake_people()), GONE)
TRAIN = INDEX[INDEX.split == "train"]
SMALL = INDEX[(INDEX.subject.str[-1] < "3") | (INDEX.split != "train")]
REUSED = INDEX.assign(flags=np.where(INDEX.frame != 0, "mask_reused", ""))
NO_AGE = INDEX.assign(
    age=np.nan, age_band=None, group=INDEX.sex + "/" + INDEX.bmi_band + "/" + INDEX.diagnosis
)
HOW = {"fields": ("diagnosis", "sex"), "guidance": 3, "strength": 0.5, "negative": "noise"}
PLANS: dict[str, tuple[Any, pd.DataFrame, dict[str, Any]]] = {
    "balanced": (recipes.balanced, INDEX, {"count": 80}),
    "balanced, another seed": (recipes.balanced, INDEX, {"count": 80, "seed": 3, **HOW}),
    "balanced, borrowed": (recipes.balanced, INDEX, {"count": 80, "missing": "borrow"}),
    "balanced, moved": (recipes.balanced, REUSED, {"count": 80, "per_mask": 2}),
    "balanced, no age": (recipes.balanced, NO_AGE, {"count": 40}),
    **{
        f"balanced, few people, {thin}": (
            recipes.balanced,
            SMALL,
            {"count": 100, "per_person": 3, "missing": "borrow", "thin": thin},
        )
        for thin in recipes.THIN
    },
    "own distribution": (recipes.own_distribution, INDEX, {"count": 60}),
    "own distribution, capped": (
        recipes.own_distribution,
        SMALL,
        {"count": 100, "per_person": 3, "seed": 2},
    ),
    "random prompt": (recipes.random_prompt, INDEX, {"count": 60, **HOW}),
    "random prompt, capped": (recipes.random_prompt, SMALL, {"count": 60, "per_person": 4}),
    "random prompt, no age": (recipes.random_prompt, NO_AGE, {"count": 20, "seed": 1}),
    "sweep of sex": (sweeps.one_mask, INDEX, {"attribute": "sex", "seeds": 2, **HOW}),
    "sweep of age": (sweeps.one_mask, INDEX, {"attribute": "age", "like": "F/<60/hf"}),
    "sweep of two values": (
        sweeps.one_mask,
        INDEX,
        {"attribute": "bmi", "values": [20, 40.5], "steps": [4, 8], "guidance": [1, 2], "seed": 1},
    ),
    "sweep of diagnosis": (
        sweeps.one_mask,
        INDEX,
        {"attribute": "diagnosis", "source_row": int(TRAIN.index[30])},
    ),
    "figures": (sweeps.paper_figures, INDEX, {}),
}


def plan_record(name: str) -> dict[str, Any]:
    recipe, index, settings = PLANS[name]
    plan = recipe(index, **settings)
    told = plan_text(summary(plan.rows, index), plan, settings).splitlines()
    return {
        "columns": records.columns(plan.rows),
        "missing": list(plan.missing),
        "thin": list(plan.thin),
        "told": [*told[:2], *told[2:-5:5], *told[-5:]],
    }


def draws_record() -> dict[str, Any]:
    lacking = TRAIN.copy()
    lacking.loc[lacking.subject.isin(lacking.subject.unique()[::9]), ["bmi", "bmi_band"]] = None
    return {
        f"at most {cap}": {
            "told": draws_text(lacking, max_repeats=cap).splitlines(),
            "groups": records.table(draws_by_group(lacking, max_repeats=cap))[::4],
        }
        for cap in (None, 3.0, 1.5)
    }


@pytest.mark.parametrize("name", list(PLANS))
def test_a_plan_is_as_it_was(name):
    records.check(FILE, name, plan_record(name))


def test_what_is_told_of_draws_is_as_it_was():
    records.check(FILE, "draws", draws_record())


if __name__ == "__main__":
    records.write(FILE, {**{name: plan_record(name) for name in PLANS}, "draws": draws_record()})
