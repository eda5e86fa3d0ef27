"""Tables that keep their types on disk: a site code stays text, an unknown stays missing, an empty
list stays empty."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

from cmrdata.plan_columns import EMPTY_TEXT

TEXT = pd.Series([""]).dtype  # "str"; "object" before pandas 3
# text that may be empty: nothing is to be said
NEVER_MISSING = ("flags", "table_flags", "group", *EMPTY_TEXT)


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Copy whose columns are numbers, booleans or text, decided by the whole column, all missing
    being text.

    Objects that are all numbers become numbers. An empty text is missing, except in NEVER_MISSING,
    where missing is empty.
    """
    return pd.DataFrame({name: _typed(column) for name, column in table.items()}, index=table.index)


def _typed(column: pd.Series) -> pd.Series:
    if is_numeric_dtype(column) or is_bool_dtype(column):
        return column
    unclear = column.dtype == object
    if unclear:
        kind = infer_dtype(column, skipna=True)
        if kind in ("integer", "floating", "mixed-integer-float"):
            return pd.to_numeric(column)
        if kind == "boolean" and column.notna().all():
            return column.astype(bool)
    text = column
    if unclear or column.dtype != TEXT:
        text = column.astype(object).map(str, na_action="ignore").astype(TEXT)
    if column.name in NEVER_MISSING:
        return text.fillna("")
    return text.mask(blank) if (blank := text == "").any() else text


def text_columns(table: pd.DataFrame) -> list[str]:
    """Names of the columns of a `typed` table that a CSV reader must not take for numbers."""
    return [str(name) for name in table if not is_numeric_dtype(table[name])]


def read_typed(path: Path, *, text: Collection[str]) -> pd.DataFrame:
    """The `typed` table in a CSV file of `to_csv(index=False)`; integers with missing values come
    back as floats."""
    with path.open(encoding="utf-8", newline="") as file:
        columns = pd.read_csv(file, nrows=0).columns
    missing = {name: [""] for name in columns if name not in NEVER_MISSING}
    return pd.read_csv(
        path,
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values=missing,
        float_precision="round_trip",
        lineterminator="\n",
        low_memory=False,
    )
