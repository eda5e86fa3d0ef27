"""The index of a store without its pixels: 300 made-up people, nine rows of each who trains; and
plans of it as their rows alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps

import numpy as np
import pandas as pd

from cmrdata.subjects import split, with_groups
from cmrgen.plan import checking, from_table, recipes, sweeps
from cmrgen.plan.rows import Plan

Rows = Callable[..., pd.DataFrame]


def rows_of(recipe: Callable[..., Plan]) -> Rows:
    """A recipe whose rows alone are looked at."""

    @wraps(recipe)
    def rows(*args: object, **settings: object) -> pd.DataFrame:
        return recipe(*args, **settings).rows

    return rows


def check(rows: pd.DataFrame, subjects: pd.DataFrame, index: pd.DataFrame) -> None:
    checking.check(Plan(rows), subjects, index)


balanced, copy = rows_of(recipes.balanced), rows_of(recipes.own_distribution)
random_prompt, custom = rows_of(recipes.random_prompt), rows_of(from_table.read_plan)
figures, sweep = rows_of(sweeps.paper_figures), rows_of(sweeps.one_mask)
OFFSETS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]  # slices, frames
GONE = ["F/60-70/obese/hf", "M/70+/normal/healthy"]
PLANS: dict[str, Rows] = {
    "balanced": partial(balanced, count=50),
    "borrow": partial(balanced, count=50, missing="borrow"),
    "copy": partial(copy, count=50),
    "random_prompt": partial(random_prompt, count=50),
    "sweep": partial(sweep, attribute="bmi", seeds=2, guidance=[1, 2.5], steps=[4, 8]),
    "figures": figures,
}


def fake_people() -> pd.DataFrame:
    """A subject table with a split, ill and healthy of every age and BMI; every 15th is neither
    case nor control."""
    rng = np.random.default_rng(5)
    ill = rng.random(300) < 0.3
    people = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(300)],
            "source": "phantom",
            "sex": np.where(rng.random(300) < 0.4 + 0.2 * ill, "M", "F"),
            "age": rng.normal(64 + 3 * ill, 8).clip(45, 82).round(2),
            "bmi": rng.normal(27, 4, 300).clip(18, 45).round(2),
            "diagnosis": np.where(ill, "hf", "healthy").astype(object),
        }
    )
    people.loc[::15, "diagnosis"] = None
    people.loc[people.index % 9 == 0, "conditions"] = "mi;af"
    table = with_groups(people)
    return table.assign(split=split(table, seed=0))


def fake_index(people: pd.DataFrame) -> pd.DataFrame:
    """The index of a store of these people: nine rows of a train or extra subject, one of the
    others."""
    rows = [
        {**person, "slice": j, "frame": i, "central": j == i == 0, "flags": ""}
        for person in people.to_dict("records")
        for j, i in (OFFSETS if person["split"] in ("train", "extra") else [(0, 0)])
    ]
    return pd.DataFrame(rows).astype({"label": "Int64"})


def without(index: pd.DataFrame, groups: list[str]) -> pd.DataFrame:
    """The same without training subjects of these groups."""
    return index[~((index.split == "train") & index.group.isin(groups))]
