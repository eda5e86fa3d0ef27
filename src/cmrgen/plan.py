"""Which subject, mask, prompt and seed each synthetic image gets: a table, written before any image.

Its columns are those of cmrgen.rows. The same index and settings give the same table. cmrgen.sweeps and cmrgen.custom
hold the other plans.
"""

from __future__ import annotations

import itertools
from typing import Unpack

import numpy as np
import pandas as pd

from cmrgen.groups import BMI_OF, attributes_within, decades, known_levels, nearest_group, possible_groups
from cmrgen.rows import Drawing, planned, usable

MISSING = ("error", "skip", "borrow")


def balanced(
    index: pd.DataFrame, *, count: int, seed: int = 0, missing: str = "skip", **drawing: Unpack[Drawing]
) -> pd.DataFrame:
    """Every group equally often; mask and prompt of the same training subject (paper 2.2).

    `index` is the cohort store's. Any prefix holds each group equally often within one image, and a longer plan begins
    with the shorter one. Within a group subjects take turns, then their slices and frames. Subjects that lack an
    attribute others have belong to no group and are left out. `missing` says what to do with groups no training subject
    belongs to: "skip" (they are named in `.attrs["missing"]`), "error", or "borrow": they are drawn from the masks of
    the nearest group that has some, which column `borrowed` names, with the attributes and prompt of their own.
    """
    if count < 1 or missing not in MISSING:
        raise ValueError(
            f"plan.count={count}, plan.missing={missing}: give a count of at least 1, and one of {', '.join(MISSING)}"
        )
    train, possible = usable(index), possible_groups(index)
    train = train[train.group.isin(possible)]
    if train.empty:
        raise ValueError("no training subject has all attributes that others have; there is no group to plan from")
    present = sorted(set(train.group))
    absent = sorted(possible - set(present))
    if absent and missing == "error":
        raise ValueError(
            f"no training subject belongs to {len(absent)} groups: {', '.join(absent)}. Set plan.missing=skip to "
            "leave them out or plan.missing=borrow to use the nearest groups' masks, or use a cohort that has them"
        )
    rng = np.random.default_rng([seed, 1])
    lenders = {group: group for group in present}
    if missing == "borrow":
        lenders |= {group: nearest_group(group, present) for group in absent}
    turns = {group: itertools.cycle(_turns(train.subject[train.group == of], rng)) for group, of in lenders.items()}
    names = sorted(turns)
    order = (names[k] for _ in itertools.count() for k in rng.permutation(len(names)))
    groups = list(itertools.islice(order, count))
    sources = [next(turns[group]) for group in groups]
    plan = planned(index, sources, asked=attributes_within(index.loc[sources], groups), seed=seed, **drawing)
    plan.attrs["missing"] = [group for group in absent if group not in lenders]
    return plan


def copy(index: pd.DataFrame, *, count: int, seed: int = 0, **drawing: Unpack[Drawing]) -> pd.DataFrame:
    """The cohort's own distribution: training images drawn at random, each with its own prompt and mask."""
    _check_count(count)
    sources = np.random.default_rng([seed, 1]).choice(usable(index).index.to_numpy(), count)
    return planned(index, sources.tolist(), seed=seed, **drawing)


def random_prompt(index: pd.DataFrame, *, count: int, seed: int = 0, **drawing: Unpack[Drawing]) -> pd.DataFrame:
    """Attributes drawn independently and uniformly, each with the mask of any training subject of that diagnosis.

    Sex, the decade of age (50s to 90s, as far as the cohort's ages go), BMI band and diagnosis, each where the cohort
    knows it: the paper's alternative to prompts and masks of the same subject, which it found worse.
    """
    _check_count(count)
    train, levels = usable(index), known_levels(index)
    share = np.random.default_rng([seed, 1]).random((count, 5))

    def drawn(column: int, values: np.ndarray) -> np.ndarray:
        return values[(share[:, column] * len(values)).astype(int)]

    ages = drawn(1, decades(train.age) + 5) if train.age.notna().any() else None
    diagnoses = drawn(3, np.array(sorted(train.diagnosis.unique()), dtype=object))
    masks = {diagnosis: rows.index.to_numpy() for diagnosis, rows in train.groupby("diagnosis")}
    sources = [int(masks[name][int(at * len(masks[name]))]) for name, at in zip(diagnoses, share[:, 4], strict=True)]
    asked = index.loc[sources, ["sex", "age", "bmi"]]
    if "sex" in levels:
        asked["sex"] = drawn(0, np.array(levels["sex"], dtype=object))
    if ages is not None:
        asked["age"] = ages
    if "bmi_band" in levels:
        asked["bmi"] = drawn(2, np.array([BMI_OF[band] for band in levels["bmi_band"]]))
    return planned(index, sources, asked=asked, seed=seed, **drawing)


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"plan.count={count}: give a count of at least 1")


def _turns(subjects: pd.Series, rng: np.random.Generator) -> list[int]:
    """A group's store rows, so ordered that every subject comes once before any comes again."""
    shuffled = subjects.iloc[rng.permutation(len(subjects))]
    turn = shuffled.groupby(shuffled, sort=False).cumcount().to_numpy()
    return shuffled.index[np.argsort(turn, kind="stable")].tolist()
