"""Which subject, mask, prompt and seed each synthetic image gets: a table, written before any image.

Its columns are cmrdata.manifest.PLAN.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmrdata.cohort import ATTRIBUTES, AXES, bmi_band, group_names
from cmrdata.manifest import PLAN, check_sources
from cmrgen.prompts import FIELDS, prompt, prompts


def balanced(
    index: pd.DataFrame,
    *,
    count: int,
    seed: int = 0,
    missing: str = "skip",
    fields: Sequence[str] = FIELDS,
    guidance: float = 2.0,
    strength: float = 1.0,
) -> pd.DataFrame:
    """Every group equally often; mask and prompt of the same training subject (paper 2.2).

    `index` is the cohort store's. Any prefix holds each group equally often within one image, and a longer plan begins
    with the shorter one. Within a group subjects take turns, then their slices and frames. Subjects that lack an
    attribute others have belong to no group and are left out. `missing` says what to do
    with groups no training subject belongs to: "skip" (they are named in `.attrs["missing"]`) or "error".
    """
    if count < 1 or missing not in ("skip", "error"):
        raise ValueError(f"plan.count={count}, plan.missing={missing}: give a count of at least 1, and skip or error")
    train = index[(index.split == "train") & index.diagnosis.notna()]
    possible = possible_groups(index)
    train = train[train.group.isin(possible)]
    if train.empty:
        raise ValueError(
            "the cohort has no labelled training subject, so there is nothing to plan from; check its split"
        )
    absent = sorted(possible - set(train.group))
    if absent and missing == "error":
        raise ValueError(
            f"no training subject belongs to {len(absent)} groups: {', '.join(absent)}. "
            "Set plan.missing=skip to leave them out, or use a cohort that has them"
        )
    rng = np.random.default_rng([seed, 1])
    turns = {str(group): itertools.cycle(_turns(rows, rng)) for group, rows in train.groupby("group")}
    names = sorted(turns)
    order = (names[k] for _ in itertools.count() for k in rng.permutation(len(names)))
    sources = [next(turns[group]) for group in itertools.islice(order, count)]
    plan = _from_sources(index, sources, seed=seed, fields=fields, guidance=guidance, strength=strength)
    plan.attrs["missing"] = absent
    return plan


def copy(
    index: pd.DataFrame,
    *,
    count: int,
    seed: int = 0,
    fields: Sequence[str] = FIELDS,
    guidance: float = 2.0,
    strength: float = 1.0,
) -> pd.DataFrame:
    """The cohort's own distribution: training images drawn at random, each with its own prompt and mask."""
    train = index.index[(index.split == "train") & index.diagnosis.notna()].to_numpy()
    sources = np.random.default_rng([seed, 1]).choice(train, count)
    return _from_sources(index, sources.tolist(), seed=seed, fields=fields, guidance=guidance, strength=strength)


def sweep(
    index: pd.DataFrame, *, fields: Sequence[str] = FIELDS, guidance: float = 2.0, seeds: int = 6
) -> pd.DataFrame:
    """The paper's Fig. 3 and 4: one mask and seed with BMI varied (column figure = 3); one row with `seeds` seeds (4).

    Fig. 3 takes a woman in her sixties and a man in his seventies where known; Fig. 4 a man with disease.
    """
    train = index[(index.split == "train") & index.diagnosis.notna() & index.central]
    wanted = {"sex": ("F", "M"), "age_band": ("60-70", "70+")}
    starts = [_nearest(train, {k: v[n] for k, v in wanted.items()} | {"label": 0}) for n in (0, 1)]
    parts = []
    if train.bmi_band.notna().any():
        for source in starts:
            rows = _from_sources(index, [source] * 3, seed=11, fields=fields, guidance=guidance, strength=1.0)
            rows["bmi"], rows["seed"] = [22.0, 27.5, 34.0], rows.seed.iloc[0]
            rows["bmi_band"] = bmi_band(rows.bmi)
            rows["group"] = group_names(rows)
            rows["prompt"] = [prompt(row, fields=fields) for _, row in rows.iterrows()]
            parts.append(rows.assign(figure=3))
    source = _nearest(train, {"sex": "M", "age_band": "70+", "bmi_band": "normal", "label": 1})
    parts.append(
        _from_sources(index, [source] * seeds, seed=13, fields=fields, guidance=guidance, strength=1.0).assign(figure=4)
    )
    plan = pd.concat(parts, ignore_index=True)
    return plan.assign(row=np.arange(len(plan)))


def possible_groups(index: pd.DataFrame) -> set[str]:
    """All combinations of the bands this cohort knows and the diagnoses that occur: 36 when nothing is unknown."""
    known = {axis: set(index[axis].dropna()) for axis in AXES}
    levels = [AXES[axis] if len(found) > 1 else tuple(found) for axis, found in known.items() if found]
    levels.append(tuple(sorted(index.diagnosis.dropna().unique())))
    return {"/".join(combination) for combination in itertools.product(*levels)}


def summary(plan: pd.DataFrame) -> pd.DataFrame:
    """Images, subjects and distinct masks per group: how often the same mask must serve again."""
    by = plan.groupby("group")
    return pd.DataFrame(
        {"images": by.size(), "subjects": by.subject.nunique(), "masks": by.source_row.nunique()}
    ).reset_index()


def check(plan: pd.DataFrame, subjects: pd.DataFrame) -> None:
    """Raise ValueError unless all sources are training subjects and the columns are complete."""
    if absent := [column for column in PLAN if column not in plan]:
        raise ValueError(f"the plan lacks the columns {absent}; write it with cmrgen.plan or add them")
    if len(strengths := plan.strength.unique()) > 1:
        raise ValueError(f"the plan mixes strengths ({', '.join(map(str, strengths))}); make a set for each")
    check_sources(plan, subjects)


def _from_sources(
    index: pd.DataFrame, sources: Sequence[int], *, seed: int, fields: Sequence[str], guidance: float, strength: float
) -> pd.DataFrame:
    rows = index.loc[list(sources), ["subject", "source", *ATTRIBUTES]].reset_index(names="source_row")
    rows.insert(0, "row", np.arange(len(rows)))
    rows["prompt"] = prompts(rows, fields=fields)
    rows["seed"] = np.random.default_rng([seed, 2]).integers(0, 2**62, len(rows))
    return rows.assign(guidance=guidance, strength=strength)


def _turns(rows: pd.DataFrame, rng: np.random.Generator) -> list[int]:
    """A group's store rows, so ordered that every subject comes once before any comes again."""
    shuffled = rows.iloc[rng.permutation(len(rows))]
    turn = shuffled.groupby("subject", sort=False).cumcount().to_numpy()
    return shuffled.index[np.argsort(turn, kind="stable")].tolist()


def _nearest(train: pd.DataFrame, wanted: dict[str, object]) -> int:
    """The store row that has most of the wanted attributes."""
    hits = sum((train[column] == value).astype(int) for column, value in wanted.items())
    return int(train.index[int(np.argmax(hits))])
