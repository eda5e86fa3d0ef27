"""A plan is checked here, once, when it is made: nothing is drawn or written before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, CONDITIONS, DIAGNOSES, axes_in
from cmrdata.plan_columns import PLAN, known_columns
from cmrdata.store import Store
from cmrdata.subjects import cut, group_names
from cmrdata.synthetic import check_sources
from cmrgen.plan.mask_moves import LIMITS
from cmrgen.plan.rows import Plan, lender, usable

Fault = tuple[str, Any, str]  # a column, which of its rows are wrong, and what to do


def make_plan(recipe: Callable[..., Plan | pd.DataFrame], cohort: Store, **settings: Any) -> Plan:
    """The checked plan of a recipe for a cohort: the one way from conf/plan to images.

    Args:
        recipe: a function of cmrgen.plan, or anybody's, that takes `index` and returns a Plan, or
            its rows alone.
        cohort: whose masks and attributes are used.
        settings: further arguments of the recipe.

    Raises ValueError as the recipe and `check` do.
    """
    made = recipe(index=cohort.index, **settings)
    plan = Plan(made) if isinstance(made, pd.DataFrame) else made
    check(plan, cohort.subjects, cohort.index)
    return plan


def check(plan: Plan, subjects: pd.DataFrame, index: pd.DataFrame) -> None:
    """Raise ValueError unless every row can be drawn and every mask is the named subject's, who
    trains.

    `subjects` is the cohort's table, `index` its store's. Errors name the column, the rows (counted
    from 0), the value found there and the remedy.
    """
    try:
        check_columns(plan.rows)
        if absent := [column for column in PLAN if column not in plan.rows]:
            raise ValueError(
                f"the plan lacks the columns {absent}; plan=custom plan.path=<the table> adds them"
            )
        if plan.rows.empty:
            raise ValueError("the plan has no rows, so there is nothing to draw")
        check_sources(plan.rows, subjects)
        for column, wrong, remedy in chain(_faults(plan.rows), _mask_faults(plan.rows, index)):
            refuse(plan.rows, column, wrong, remedy)
    except ValueError as error:
        if not plan.source:
            raise
        raise ValueError(f"{plan.source}: {error}") from None


def check_columns(plan: pd.DataFrame) -> None:
    """Raise ValueError naming columns no plan has, and what each may have been meant to be."""
    known = [name for name, column in known_columns().items() if column.where != "set"]
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


def _faults(plan: pd.DataFrame) -> Iterator[Fault]:
    """What cannot be drawn or is no group of this program; what follows from a column is looked at
    after the column itself."""
    rows = plan.row.to_numpy() != np.arange(len(plan))
    yield "row", rows, "rows count from 0; leave the column out"
    yield from _word_faults(plan)
    yield from _number_faults(plan, empty="unknown")
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
        text = plan[column].map(lambda words: isinstance(words, str)).astype(bool)
        yield column, ~text, "it takes text, or ''"
    yield from _number_faults(plan, empty="never")


def _word_faults(plan: pd.DataFrame) -> Iterator[Fault]:
    for column in known_columns().values():
        if not column.values or column.name not in plan:
            continue
        words = plan[column.name]
        wrong = words.notna() & ~words.isin(column.values)
        yield column.name, wrong, f"it takes {', '.join(column.values)}"
    remedy = "an image must show a diagnosis; fill it in, or leave the column out"
    yield "diagnosis", plan.diagnosis.isna(), remedy
    lists = {
        ";".join(codes) for n in range(len(CONDITIONS) + 1) for codes in combinations(CONDITIONS, n)
    }
    wrong = ~plan.conditions.fillna("").isin(lists)
    yield "conditions", wrong, f"it takes {', '.join(CONDITIONS)}, joined by ;"


def _number_faults(plan: pd.DataFrame, *, empty: str) -> Iterator[Fault]:
    """Numbers outside a column's limits, of the columns whose empty cells say `empty`."""
    for column in known_columns().values():
        if column.limits is None or column.empty != empty or column.name not in plan:
            continue
        (low, high), whole = column.limits, column.kind == "whole"
        values = pd.to_numeric(plan[column.name], errors="coerce").astype(float)
        unfit = ~values.between(low, high) | ~np.isfinite(values) | (whole & (values % 1 != 0))
        takes = "it takes whole numbers" if whole else "it takes numbers"
        takes += f" from {low:g} to {high:g}" if high < 2**62 else f" of at least {low:g}"
        if empty == "unknown":
            unfit, takes = unfit & plan[column.name].notna(), f"{takes}, or nothing"
        yield column.name, unfit, takes + " (anatomical limits)" * (column.name in LIMITS)


def _mask_faults(plan: pd.DataFrame, index: pd.DataFrame) -> Iterator[Fault]:
    """What is wrong with the masks of a plan."""
    there = plan.source_row.isin(index.index)
    rows = f"the cohort's store has rows {index.index.min()} to {index.index.max()}"
    yield "source_row", ~there, rows
    own = index.loc[plan.source_row]
    others = own.subject.to_numpy() != plan.subject.to_numpy()
    remedy = "that mask is another subject's; correct it, or leave the column out"
    yield "source_row", others, remedy
    untrained = own.split.to_numpy() != "train"
    yield "source_row", untrained, "that mask is not a training subject's; take another"
    unfit = ~plan.source_row.isin(usable(index).index)
    remedy = "no image may come from this mask (ED unlabelled, or no diagnosis); take another"
    yield "source_row", unfit, remedy
    follows = {"borrowed": lender(own, plan)} | ({"source": own.source} if "source" in plan else {})
    yield from contradictions(plan, follows)


def contradictions(plan: pd.DataFrame, follows: dict[str, pd.Series]) -> Iterator[Fault]:
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
