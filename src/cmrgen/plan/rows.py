"""What a row of a plan says, and how it follows from a mask and the attributes asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import pandas as pd

from cmrdata.axes import DIAGNOSES
from cmrdata.subjects import attribute_columns, group_names, with_bands
from cmrgen.plan.mask_moves import STILL, random_moves
from cmrgen.prompts import FIELDS, prompts


class Plan(NamedTuple):
    """What is to be drawn, as a function of conf/plan says it.

    Attributes:
        rows: a row per image with the columns of cmrdata.plan_columns.
        missing: groups that are left out, as no training subject belongs to them.
        thin: groups whose subjects have given as many images as they may.
        source: the setting that named the table it was read from, for errors.
    """

    rows: pd.DataFrame
    missing: Sequence[str] = ()
    thin: Sequence[str] = ()
    source: str = ""


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
            "the cohort has no labelled training subject, so there is nothing to plan from; check "
            "its split"
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
            f"plan.per_mask={per_mask}: give a whole number (0: move every mask), or null to move "
            "none"
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
    moves = random_moves(len(rows), seed=seed)
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
