"""What a reader understood of the tables beside the images: a row per column in use, as columns.csv
and a summary show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import pandas as pd

from cmrdata.cohorts.reading.cells import Reader, shape

REPORT_COLUMNS = (
    "file",
    "column",
    "field",
    "used_for",
    "rows",
    "understood",
    "missing",
    "not_understood",
    "example",
    "note",
)
FEW = 10  # rows that share a value before it may be shown as it is
NAME_LENGTH = 100  # characters of a column's name
REASONS = 3  # told of a column, at most


def columns_table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The table of columns: REPORT_COLUMNS, a row per column in use and per field that was wanted
    and not found."""
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS))


def missing_row(field: str, used_for: str, note: str, *, file: str = "") -> dict[str, object]:
    """A row about a field that was wanted and not found."""
    counts = dict.fromkeys(("rows", "understood", "missing", "not_understood"), 0)
    return {
        "file": file,
        "column": "",
        "field": field,
        "used_for": used_for,
        **counts,
        "example": "",
        "note": note,
    }


def shown_name(name: str) -> str:
    """A column's name as it may be shown: cut, in one line; a quote that isn't closed may have
    drawn data into it."""
    plain = " ".join(name.split())
    return plain if len(plain) <= NAME_LENGTH else f"{plain[: NAME_LENGTH // 2]}..."


def cell_counts(
    texts: Mapping[str, int],
    read: Reader,
    *,
    rows: int,
    open_values: bool = False,
    shown: bool = True,
) -> dict[str, object]:
    """Counts, example and note of a column of `rows` cells that holds `texts` (text -> cells), as
    `read` takes them.

    The example is the pattern of what is most often not understood; the value itself where it is
    one of a few that many share (`open_values`); nothing where not even that may be `shown`.
    """
    understood, odd = 0, Counter[tuple[str, str]]()
    missing: Counter[str] = Counter()
    for text, count in texts.items():
        reading = read(text)
        if reading.odd:
            odd[reading.odd, text] += count
        elif reading.value is not None:
            understood += count
        elif reading.missing:
            missing[reading.missing] += count
    strange = sum(odd.values())
    why: Counter[str] = Counter()
    for (reason, _), count in odd.items():
        why[reason] += count
    note = [
        f"{count} {reason}"
        for reason, count in (*why.most_common(REASONS), *missing.most_common(REASONS))
    ]
    return {
        "rows": rows,
        "understood": understood,
        "missing": rows - understood - strange,
        "not_understood": strange,
        "example": example(odd, open_values=open_values) if shown else "",
        "note": "; ".join(note),
    }


def example(odd: Mapping[tuple[str, str], int], *, open_values: bool) -> str:
    """The pattern of the text met most often; the text itself where it is short, shared by FEW and
    `open_values`."""
    if not odd:
        return ""
    (_, text), count = max(odd.items(), key=lambda item: (item[1], item[0]))
    return repr(text.strip()) if open_values and count >= FEW and len(text) <= FEW else shape(text)
