"""A plan from anybody's table: columns that are left out follow from the others, what cannot be
drawn is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from cmrdata.axes import AXES
from cmrdata.plan_columns import Column, known_columns
from cmrgen.plan.checking import check_columns, refuse
from cmrgen.plan.groups import attributes_of, attributes_within, levels, schema
from cmrgen.plan.rows import Drawing, Plan, planned, usable


def read_plan(
    index: pd.DataFrame,
    *,
    path: str | Path,
    seed: int = 0,
    per_mask: int | None = None,
    **drawing: Unpack[Drawing],
) -> Plan:
    """The plan in a CSV or Parquet file with columns of a plan; at the least `subject` or
    `source_row`.

    A column is either complete or left out, and then it is filled in: source_row with the subject's
    central slice, attributes with the subject's own as far as a given group or band allows, prompts
    from the attributes, all else with the settings. Attributes, prompts and groups may be others
    than the subject's: what if? Empty are unknown attributes, and conditions, negative and borrowed
    where there are none. A table says itself how often a person or a mask serves; `per_mask` (of
    `planned`) moves masks where the table doesn't say how they lie. A table from which no plan
    follows raises ValueError naming column, rows (counted from 0) and remedy, a missing file
    FileNotFoundError; cmrgen.plan.checking checks the plan.
    """
    table = _read(Path(path))
    try:
        given = _converted(table)
        check_columns(given)
        if given.empty:
            raise ValueError("the plan has no rows, so there is nothing to draw")
        for column in map(str, given):
            if known_columns()[column].empty == "never":
                refuse(
                    given, column, given[column].isna(), "fill it in, or leave the whole column out"
                )
        sources = _sources(given, index)
        plan = planned(
            index,
            sources,
            asked=_asked(given, index.loc[sources]),
            seed=seed,
            per_mask=per_mask,
            **drawing,
        )
        if "prompt" in given:
            lost = (given.prompt == "") & (plan.prompt != "")
            refuse(
                given,
                "prompt",
                lost,
                f"the attributes say {plan.prompt[lost].head(1).tolist()}; write it, or leave "
                "the whole column out",
            )
    except ValueError as error:
        raise ValueError(f"plan.path={path}: {error}") from None
    return Plan(plan.assign(**given), source=f"plan.path={path}")


def _read(path: Path) -> pd.DataFrame:
    """The table as text where it is a CSV; Parquet keeps its types."""
    if not path.is_file():
        raise FileNotFoundError(f"plan.path={path}: no such file; give a CSV or Parquet table")
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(
            f"plan.path={path}: it ends in {path.suffix!r}; give a .csv or .parquet table"
        )
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise ValueError(
            f"plan.path={path}: cannot be read as {path.suffix[1:]} ({error}); write it anew"
        ) from None
    if not isinstance(table.index, pd.RangeIndex):
        raise ValueError(
            f"plan.path={path}: its rows have more fields than its header; name each column"
        )
    return table


def _converted(table: pd.DataFrame) -> pd.DataFrame:
    """Text, whole numbers and numbers as each column is to hold; raises ValueError for others."""
    table = table.reset_index(drop=True).rename(columns=str)
    for column in map(str, table):
        # a column that is not known is refused as soon as all are read
        known = known_columns().get(column, Column(column))
        read = READ[known.kind]
        values = [None if _blank(value) else read(value) for value in table[column]]
        wrong = [
            value is None and not _blank(old)
            for value, old in zip(values, table[column], strict=True)
        ]
        refuse(table, column, wrong, f"it takes {'whole ' if known.kind == 'whole' else ''}numbers")
        if known.empty == "nothing":
            values = ["" if value is None else value for value in values]
        empty = any(value is None for value in values)
        floats = known.kind == "number" or empty
        dtype = object if known.kind == "text" else float if floats else "int64"
        table[column] = pd.Series(values, dtype=dtype)
    return table


def _blank(value: Any) -> bool:
    return (
        not value.strip()
        if isinstance(value, str)
        else bool(pd.api.types.is_scalar(value) and pd.isna(value))
    )


def _text(value: Any) -> str:
    return str(value).strip()


def _number(value: Any) -> float | None:
    try:
        number = float(value)
        return number if np.isfinite(number) else None
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        number = _number(value)
        return int(number) if number is not None and number.is_integer() else None
    return whole if abs(whole) < 2**63 and (isinstance(value, str) or whole == value) else None


READ: dict[str, Callable[[Any], Any]] = {"text": _text, "whole": _whole, "number": _number}


def _sources(given: pd.DataFrame, index: pd.DataFrame) -> list[int]:
    """The store row of each row's mask."""
    if {"subject", "source_row"} <= set(given) and not given.subject.isin(index.subject).any():
        raise ValueError(
            "none of its subjects is in the cohort's store: it was written where they have other "
            "names (another data_root). Leave the column subject out; source_row says whose mask "
            "is meant"
        )
    if "source_row" in given:
        there = given.source_row.isin(index.index)
        refuse(
            given,
            "source_row",
            ~there,
            f"the cohort's store has rows {index.index.min()} to {index.index.max()}",
        )
        return [int(row) for row in given.source_row]
    if "subject" not in given:
        raise ValueError(
            "it has neither a column subject nor source_row, so no mask to draw from; add one of "
            "them"
        )
    refuse(
        given,
        "subject",
        ~given.subject.isin(index.subject),
        "the cohort's store has no such subject; correct it",
    )
    rows = usable(index)
    first = rows.sort_values("central", ascending=False, kind="stable").drop_duplicates("subject")
    row_of = pd.Series(first.index, first.subject)
    remedy = (
        "not a labelled training subject with a whole mask; images derive from train only, take "
        "another"
    )
    refuse(given, "subject", ~given.subject.isin(row_of.index), remedy)
    return [int(row) for row in given.subject.map(row_of)]


def _asked(given: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame | None:
    """The attributes each row asks for: as given, else as its group or band says, else the
    subject's own."""
    own = own.reset_index(drop=True)
    words = _words(given)
    asked = {
        column: given[column]
        for column in (*(axis.given for axis in AXES.values()), "diagnosis", "conditions")
        if column in given
    }
    if words is not None:
        within = attributes_within(own, words)
        asked |= {str(column): values for column, values in within.items() if column not in given}
    return pd.DataFrame(asked) if asked else None


def _words(given: pd.DataFrame) -> list[str] | None:
    """What each row's group and bands say of its attributes, as a group's name; None where no such
    column is given."""
    banded = [axis.column for axis in AXES.values() if axis.measure]
    columns = [column for column in ("group", *banded) if column in given]
    for column in columns:
        known = {word for word in given[column].dropna().unique() if _is_group(word)}
        bands = () if column == "group" else AXES[column].values
        takes = schema() if column == "group" else f"{', '.join(bands)}, or nothing"
        allowed = known if column == "group" else set(bands)
        refuse(
            given, column, given[column].notna() & ~given[column].isin(allowed), f"it takes {takes}"
        )
    if not columns:
        return None
    said = [attributes_of("")] * len(given)
    for column in columns:
        said = [
            words | attributes_of(word or "")
            for words, word in zip(said, given[column], strict=True)
        ]
    return ["/".join(words[axis] for axis in levels() if axis in words) for words in said]


def _is_group(name: str) -> bool:
    try:
        return bool(attributes_of(name))
    except ValueError:
        return False
