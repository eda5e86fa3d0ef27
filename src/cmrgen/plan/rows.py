"""What a row of a plan says, how it follows from a mask and the attributes asked for, and what no
row may say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import chain, combinations
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, CONDITIONS, DIAGNOSES, added, axes_in
from cmrdata.subjects import attribute_columns, cut, group_names, numbers_in, with_bands
from cmrdata.synthetic import PLAN, check_sources
from cmrgen.plan.mask_moves import LIMITS, STILL, drawn
from cmrgen.prompts import FIELDS, prompts

COLUMNS = tuple(dict.fromkeys((*PLAN, "borrowed", "negative", *STILL)))
# the subject's cohort; sampler steps of this row; number in the paper
OPTIONAL = ("source", "steps", "figure")


class Drawing(TypedDict, total=False):
    """How every image of a plan is to be drawn."""

    fields: Sequence[str]  # attributes the prompt names, in this order
    guidance: float
    strength: float  # of the mask
    negative: str  # what the images shall not show


def usable(index: pd.DataFrame) -> pd.DataFrame:
    """The rows of a cohort store's index whose mask may be drawn from: labelled training subjects
    with both phases."""
    half = (
        index["flags"]
        .fillna("")
        .str.split(";")
        .map(lambda flags: "ed_unlabelled" in flags)
        .astype(bool)
    )
    rows = index[(index.split == "train") & index.diagnosis.notna() & ~half]
    if rows.empty:
        raise ValueError(
            "the cohort has no labelled training subject, so there is nothing to plan from; check its split"
        )
    return rows


def planned(
    index: pd.DataFrame,
    sources: Sequence[int],
    *,
    seed: int,
    asked: pd.DataFrame | None = None,
    fields: Sequence[str] = FIELDS,
    guidance: float = 2.0,
    strength: float = 1.0,
    negative: str = "",
    per_mask: int | None = None,
    move: Sequence[bool] | None = None,
) -> pd.DataFrame:
    """A plan of one image per store row in `sources`, with the attributes of its subject or those
    of `asked`.

    `asked` has a row per image and any of the columns sex, age, bmi, diagnosis, conditions; bands,
    group, label and prompt follow. Conditions belong to a diagnosis and go with it. Seeds, moves
    and prefixes depend on `seed` alone. `per_mask` images of a mask (`mask_numbers`) show it as it
    is, further ones move it (0: all, None: none do), and so do the images of `move`.
    """
    if per_mask is not None and (
        isinstance(per_mask, bool) or not isinstance(per_mask, int) or per_mask < 0
    ):
        raise ValueError(
            f"plan.per_mask={per_mask}: give a whole number (0: move every mask), or null to move none"
        )
    own = index.loc[list(sources)].reset_index(names="source_row")
    rows = own[["subject", "source_row", "source", *attribute_columns(own)]].copy()
    if asked is not None:
        rows = _with(rows, asked)
    rows.insert(0, "row", np.arange(len(rows)))
    rows["borrowed"] = lender(own, rows)
    rows["prompt"] = prompts(rows, fields=fields)
    seeds = np.random.default_rng([seed, 2]).integers(0, 2**62, len(rows))
    rows = rows.assign(
        negative=negative, seed=seeds, guidance=float(guidance), strength=float(strength)
    )
    moving = np.zeros(len(rows), bool) if move is None else np.array(move, bool)
    if per_mask is not None:
        mask = mask_numbers(index, sources)
        moving |= (mask.groupby(mask).cumcount() >= per_mask).to_numpy()
    moves = drawn(len(rows), seed=seed)
    moves.loc[~moving, list(STILL)] = list(STILL.values())
    return rows.assign(**moves)


def lender(own: pd.DataFrame, rows: pd.DataFrame) -> pd.Series:
    """The group of each mask's own subject where the image is to show another group, else ""."""
    return own.group.where(own.group.to_numpy() != rows.group.to_numpy(), "")


def _with(rows: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the attributes of `asked` and what follows from them."""
    asked = asked.set_axis(rows.index)
    if "diagnosis" in asked and "conditions" not in asked:
        asked["conditions"] = rows.conditions.where(asked.diagnosis == rows.diagnosis, "")
    rows = rows.assign(**asked)
    rows = with_bands(rows)
    rows["label"] = rows.diagnosis.map(DIAGNOSES).astype("Int64")
    rows["group"] = group_names(rows)
    return rows


def check(plan: pd.DataFrame, subjects: pd.DataFrame, index: pd.DataFrame) -> None:
    """Raise ValueError unless every row can be drawn and every mask is the named subject's, who
    trains.

    `subjects` is the cohort's table, `index` its store's. Errors name the column, the rows (counted
    from 0), the value found there and the remedy.
    """
    check_columns(plan)
    if absent := [column for column in COLUMNS if column not in plan]:
        raise ValueError(
            f"the plan lacks the columns {absent}; plan=custom plan.path=<the table> adds them"
        )
    if plan.empty:
        raise ValueError("the plan has no rows, so there is nothing to draw")
    check_sources(plan, subjects)
    for column, wrong, remedy in chain(_faults(plan), _mask_faults(plan, index)):
        refuse(plan, column, wrong, remedy)


def check_columns(plan: pd.DataFrame) -> None:
    """Raise ValueError naming columns no plan has, and what each may have been meant to be."""
    known = (*COLUMNS, *OPTIONAL, *added())
    if unknown := [str(column) for column in plan if column not in known]:
        meant = [
            f"{name!r} (for {near[0]!r}?)"
            if (near := get_close_matches(name, known, 1))
            else repr(name)
            for name in unknown
        ]
        raise ValueError(
            f"the plan has unknown columns: {', '.join(meant)}; a plan has {', '.join(known)}"
        )


def refuse(plan: pd.DataFrame, column: str, wrong: Any, remedy: str) -> None:
    """Raise ValueError naming `column`, the rows where `wrong` is true, the first value there, and
    the remedy."""
    if not len(at := np.flatnonzero(np.asarray(wrong, bool))):
        return
    rows = f"row{'s' if len(at) > 1 else ''} {', '.join(map(str, at[:5]))}"
    more = f" and {len(at) - 5} more" if len(at) > 5 else ""
    value = plan[column].iloc[at[0]]
    value = value.item() if isinstance(value, np.generic) else value
    empty = pd.api.types.is_scalar(value) and pd.isna(value)
    found = "" if column == "subject" else " is empty" if empty else f" is {value!r}"
    raise ValueError(f"plan column {column!r}{found} in {rows}{more}: {remedy}")


def _mask_faults(plan: pd.DataFrame, index: pd.DataFrame) -> Iterator[tuple[str, Any, str]]:
    """What is wrong with the masks of a plan."""
    there = plan.source_row.isin(index.index)
    yield (
        "source_row",
        ~there,
        f"the cohort's store has rows {index.index.min()} to {index.index.max()}",
    )
    own = index.loc[plan.source_row]
    others = own.subject.to_numpy() != plan.subject.to_numpy()
    yield (
        "source_row",
        others,
        "that mask is another subject's; correct it, or leave the column out",
    )
    yield (
        "source_row",
        own.split.to_numpy() != "train",
        "that mask is not a training subject's; take another",
    )
    unfit = ~plan.source_row.isin(usable(index).index)
    yield (
        "source_row",
        unfit,
        "no image may come from this mask (ED unlabelled, or no diagnosis); take another",
    )
    follows = {"borrowed": lender(own, plan)} | ({"source": own.source} if "source" in plan else {})
    yield from contradictions(plan, follows)


def _faults(plan: pd.DataFrame) -> Iterator[tuple[str, Any, str]]:
    """What cannot be drawn or is no group of this program: column, which rows, remedy."""
    yield (
        "row",
        plan.row.to_numpy() != np.arange(len(plan)),
        "rows count from 0; leave the column out",
    )
    given = {column: AXES[column].values for column in axes_in(plan) if not AXES[column].measure}
    for column, allowed in {**given, "diagnosis": tuple(DIAGNOSES)}.items():
        yield (
            column,
            plan[column].notna() & ~plan[column].isin(allowed),
            f"it takes {', '.join(allowed)}",
        )
    yield (
        "diagnosis",
        plan.diagnosis.isna(),
        "an image must show a diagnosis; fill it in, or leave the column out",
    )
    lists = {
        ";".join(some) for n in range(len(CONDITIONS) + 1) for some in combinations(CONDITIONS, n)
    }
    yield (
        "conditions",
        ~plan.conditions.fillna("").isin(lists),
        f"it takes {', '.join(CONDITIONS)}, joined by ;",
    )
    for column, (low, high) in numbers_in(plan).items():
        values = pd.to_numeric(plan[column], errors="coerce")
        unfit = plan[column].notna() & ~values.between(low, high)
        yield column, unfit, f"it takes numbers from {low:g} to {high:g}, or nothing"
    yield from contradictions(
        plan,
        {
            **{
                column: cut(AXES[column], plan[AXES[column].measure])
                for column in axes_in(plan)
                if AXES[column].measure in plan
            },
            "label": plan.diagnosis.map(DIAGNOSES),
            "group": group_names(plan),
        },
    )
    for column in ("prompt", "negative"):
        yield (
            column,
            ~plan[column].map(lambda words: isinstance(words, str)).astype(bool),
            "it takes text, or ''",
        )
    numbers: dict[str, tuple[float, float, bool]] = {
        "seed": (0, 2**63 - 1, True),
        "guidance": (0, np.inf, False),
        "strength": (0, np.inf, False),
        **{column: (low, high, False) for column, (low, high) in LIMITS.items()},
        **({"steps": (1, 1000, True)} if "steps" in plan else {}),
    }
    for column, (low, high, whole) in numbers.items():
        values = pd.to_numeric(plan[column], errors="coerce").astype(float)
        unfit = ~values.between(low, high) | ~np.isfinite(values) | (whole & (values % 1 != 0))
        kind = "whole numbers" if whole else "numbers"
        within = f"from {low:g} to {high:g}" if high < 2**62 else f"of at least {low:g}"
        yield (
            column,
            unfit,
            f"it takes {kind} {within}" + " (anatomical limits)" * (column in LIMITS),
        )


def contradictions(
    plan: pd.DataFrame, follows: dict[str, pd.Series]
) -> Iterator[tuple[str, Any, str]]:
    """Columns that say something else than what follows from the row's other columns."""
    for column, should in follows.items():
        given, should = plan[column], should.set_axis(plan.index)
        allowed = f"; it takes {', '.join(AXES[column].values)}" if column in AXES else ""
        differs = (
            given.notna().to_numpy()
            & should.notna().to_numpy()
            & (given.astype(object) != should.astype(object))
        )
        differs |= given.isna() != should.isna()
        for value in should[differs].head(1):
            says = "nothing" if pd.isna(value) else repr(value)
            remedy = (
                f"the row's other columns say {says}; correct it, or leave the column out{allowed}"
            )
            yield column, differs, remedy


def mask_numbers(index: pd.DataFrame, sources: Sequence[int]) -> pd.Series:
    """A number per mask for store rows `sources`: frames that re-use the annotated frame's mask
    have one number."""
    of = index.loc[list(sources), ["subject", "slice", "frame", "flags"]].reset_index(drop=True)
    reused = of["flags"].fillna("").str.contains("mask_reused")
    return of.groupby(["subject", "slice", of.frame.where(~reused, 0)]).ngroup()


def is_moved(plan: pd.DataFrame) -> pd.Series:
    """Which images' masks are moved."""
    return (plan[list(STILL)] != pd.Series(STILL)).any(axis=1)


def summary(plan: pd.DataFrame, index: pd.DataFrame | None = None) -> pd.DataFrame:
    """Per group: images, subjects, distinct masks, images with a mask borrowed from another group,
    with a moved mask, and the most images of one subject in that group.

    With the store's `index`, frames that re-use the annotated frame's mask count as one mask.
    """
    masks = (
        plan.source_row
        if index is None
        else mask_numbers(index, plan.source_row).set_axis(plan.index)
    )
    lent, moved = plan.borrowed.fillna("") != "", is_moved(plan)
    by = plan.assign(mask=masks, lent=lent, moved=moved).groupby("group")
    most = plan.groupby(["group", "subject"]).size().groupby("group").max()
    return pd.DataFrame(
        {
            "images": by.size(),
            "subjects": by.subject.nunique(),
            "masks": by["mask"].nunique(),
            "borrowed": by.lent.sum(),
            "moved": by.moved.sum(),
            "most": most,
        }
    ).reset_index()
