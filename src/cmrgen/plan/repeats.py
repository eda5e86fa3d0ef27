"""How often one person is drawn: computed and told before a generator is trained and before a set
is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cmrdata.counting import number_of
from cmrdata.subjects import balancing_weights, whole
from cmrgen.plan.rows import Plan, is_moved

LACKING = "(an attribute unknown)"  # of rows that belong to no full group


def draws_by_group(table: pd.DataFrame, *, max_repeats: float | None) -> pd.DataFrame:
    """What evenly drawn training makes of each group, the group whose images would be drawn most
    often first.

    Args:
        table: training rows of a store's index, each image once.
        max_repeats: of `balancing_weights`.

    Returns:
        group, subjects, images; uncapped, draws: of one of its images in a pass of as many draws as
        there are images, without and with the cap; share: of the draws that an equal share of the
        groups would be.
    """
    full = whole(table)
    rows = pd.DataFrame(
        {
            "group": table.group.where(full, LACKING),
            "subject": table.subject,
            "uncapped": balancing_weights(table) * len(table),
            "draws": balancing_weights(table, max_repeats=max_repeats) * len(table),
        }
    )
    by = rows.groupby("group")
    groups = pd.DataFrame(
        {
            "subjects": by.subject.nunique(),
            "images": by.size(),
            "uncapped": by.uncapped.first(),
            "draws": by.draws.first(),
        }
    )
    equal = full.sum() / max(1, (groups.index != LACKING).sum())
    groups["share"] = (groups.images * groups.draws / equal).where(groups.index != LACKING)
    return groups.sort_values("uncapped", ascending=False, kind="stable").reset_index()


def draws_text(table: pd.DataFrame, *, max_repeats: float | None) -> str:
    """`draws_by_group` for a log: the groups that the cap binds one by one, the others in a line,
    and what the cap does to the share of each diagnosis."""
    groups = draws_by_group(table, max_repeats=max_repeats)
    bound = groups[groups.draws < groups.uncapped * (1 - 1e-9)]
    others = groups[~groups.index.isin(bound.index) & (groups.group != LACKING)]
    first, limit = groups.iloc[0], "null" if max_repeats is None else f"{max_repeats:g}"
    if bound.empty:
        return (
            f"draws: {number_of(len(others), 'groups')} equally often; an image of {first.group} "
            f"({_people(first.subjects)}) {first.draws:.1f} times in a pass of {len(table):,} "
            f"draws, no other more often (data.max_repeats={limit})"
        )
    lines = bound.astype(object).to_dict("records")
    if len(others):
        lines.append(
            {"group": number_of(len(others), "other groups")}
            | {name: _range(others[name]) for name in others.columns[1:]}
        )
    lines += groups[groups.group == LACKING].astype(object).to_dict("records")
    shown = pd.DataFrame(
        {
            "group": [line["group"] for line in lines],
            "people": [_number(line["subjects"]) for line in lines],
            "images": [_number(line["images"]) for line in lines],
            "draws": [_number(line["draws"], 1) for line in lines],
            "uncapped": [_number(line["uncapped"], 1) for line in lines],
            "of an equal share": [_number(line["share"], 2) for line in lines],
        }
    )
    text = shown.to_string(index=False)
    diagnoses = _diagnoses(table, max_repeats)
    return (
        f"draws of one image in a pass of {len(table):,} draws, at most {limit} "
        "(data.max_repeats; null: every group equally often, as in column "
        f"uncapped)\n{text}\n{diagnoses}"
    )


def plan_text(groups: pd.DataFrame, plan: Plan, settings: dict[str, Any]) -> str:
    """What a plan asks of whom, before an image is drawn.

    Args:
        groups: of `cmrgen.plan.rows.summary`.
        plan: with the groups that it left out and those whose people gave all they may.
        settings: of the plan, for its per_person, per_mask and thin.
    """
    shown = groups.assign(
        moved=(100 * groups.moved / groups.images).round().astype(int).astype(str) + " %"
    )
    shown = shown.rename(columns={"subjects": "people", "most": "most of one person"})
    if not groups.borrowed.any():
        shown = shown.drop(columns="borrowed")
    lines = [
        f"plan: {number_of(len(plan.rows), 'images')} over {number_of(len(groups), 'groups')}",
        shown.to_string(index=False),
    ]
    shares = plan.rows.diagnosis.value_counts(normalize=True).sort_index()
    lines.append(
        "of all images: "
        f"{', '.join(f'{name} {100 * share:.0f} %' for name, share in shares.items())}"
    )
    limits = [
        f"plan.{key}={_null(settings[key])}"
        for key in ("per_person", "per_mask")
        if key in settings
    ]
    lines.append(per_person(plan.rows) + (f" ({', '.join(limits)})" if limits else ""))
    if plan.missing:
        lines.append(
            f"left out, no training subject in {number_of(len(plan.missing), 'groups')}: "
            f"{', '.join(plan.missing)}"
        )
    if plan.thin:
        lines.append(_thin(plan.thin, groups, settings))
    if groups.borrowed.any():
        lent = groups[groups.borrowed > 0]
        lines.append(
            f"{number_of(lent.borrowed.sum(), 'images')} in {number_of(len(lent), 'groups')} with "
            "masks of other groups (column borrowed)"
        )
    return "\n".join(lines)


def per_person(plan: pd.DataFrame) -> str:
    """How many images one training subject gave, in words."""
    images, moved = plan.subject.value_counts(), is_moved(plan)
    return (
        f"images of one person: median {images.median():g}, at most {images.max()}; "
        f"{100 * moved.mean():.0f} % of the masks are moved"
    )


def _thin(thin: Sequence[str], groups: pd.DataFrame, settings: dict[str, Any]) -> str:
    images = groups.set_index("group").images
    named = ", ".join(f"{group} ({images.get(group, 0)})" for group in thin)
    does = {
        "less": (
            f"have fewer images than the {images.max()} of the others; plan.thin=borrow fills "
            "them with the nearest groups' masks, plan.thin=move with more moved masks of their "
            "own people"
        ),
        "borrow": (
            "are filled with the nearest groups' masks, while those of the same diagnosis have "
            "people who may give some (plan.thin=borrow)"
        ),
        "move": "are filled with more moved masks of their own people (plan.thin=move)",
    }[settings.get("thin", "less")]
    return (
        f"{number_of(len(thin), 'groups')}, whose people have given as many images as they may, "
        f"{does}: {named}"
    )


def _diagnoses(table: pd.DataFrame, max_repeats: float | None) -> str:
    names = table.diagnosis.fillna("neither")
    with_cap, without = (
        pd.Series(balancing_weights(table, max_repeats=cap), table.index).groupby(names).sum()
        for cap in (max_repeats, None)
    )
    each = [
        f"{name} {100 * with_cap[name]:.0f} % (uncapped {100 * without[name]:.0f} %)"
        for name in with_cap.index
    ]
    return f"of all draws: {', '.join(each)}"


def _people(count: int) -> str:
    return f"{count:,} {'person' if count == 1 else 'people'}"


def _number(value: Any, digits: int = 0) -> str:
    return value if isinstance(value, str) else "" if pd.isna(value) else f"{value:,.{digits}f}"


def _range(values: pd.Series) -> str:
    digits = {"draws": 1, "uncapped": 1, "share": 2}.get(str(values.name), 0)
    low, high = (_number(value, digits) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _null(value: Any) -> Any:
    return "null" if value is None else value
