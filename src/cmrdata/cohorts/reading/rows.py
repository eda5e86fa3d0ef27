"""Small tables of the public challenges: rows as text under our names, and an account of what was
understood."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cmrdata.cohorts.reading.cells import Reader, clean, is_missing
from cmrdata.cohorts.reading.column_report import cell_counts, missing_row, shown_name
from cmrdata.cohorts.reading.file_kinds import decoded
from cmrdata.cohorts.reading.ids import id_patterns

Row = dict[str, str | None]


class Rows(NamedTuple):
    """The rows of a table, cells by our names, and the titles of its columns."""

    path: Path
    titles: dict[str, str]  # of the columns there are, by our names
    rows: list[Row]


def read_rows(path: Path, *, columns: Mapping[str, Sequence[str]]) -> Rows:
    """A CSV's rows as text under our names: `columns` gives each of them the spellings it may have
    in the file.

    Spellings are compared without case, spaces and signs. Columns and cells that are not there are
    None, empty rows are left out; the delimiter is the comma, semicolon or tab that finds most
    columns. Raises ValueError where the file is something else than text.
    """
    text = decoded(path, setting="table")

    def parsed(delimiter: str) -> tuple[dict[str, int], list[list[str]]]:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
        titles = [
            "".join(filter(str.isalnum, clean(title))).casefold()
            for title in (lines[0] if lines else ())
        ]
        found = {
            name: [titles.index(s) for s in spellings if s in titles]
            for name, spellings in columns.items()
        }
        return {name: places[0] for name, places in found.items() if places}, lines

    places, lines = max(
        (parsed(delimiter) for delimiter in ",;\t"), key=lambda found: len(found[0])
    )
    rows = []
    for cells in lines[1:]:
        words = {
            name: clean(cells[places[name]]) if places.get(name, len(cells)) < len(cells) else ""
            for name in columns
        }
        rows.append({name: None if is_missing(word) else word for name, word in words.items()})
    return Rows(
        path,
        {name: lines[0][place] for name, place in places.items()},
        [row for row in rows if any(row.values())],
    )


def require_match(table: Path, images: Collection[str], rows: Collection[str]) -> None:
    """Raise ValueError, with the patterns of codes, where nobody with images has a row."""
    if images and not set(images) & set(rows):
        raise ValueError(
            f"{table}: none of the {len(images)} patients with images has a row: codes are "
            f"{id_patterns(images)} in the images' names, {id_patterns(rows)} in the table. Give "
            "images and table of one release"
        )


def column_rows(
    file: str,
    titles: Mapping[str, str],
    rows: Iterable[Mapping[str, str | None]],
    *,
    readers: Mapping[str, tuple[str, Reader]],
    hidden: Sequence[str] = (),
) -> list[dict[str, object]]:
    """Rows of columns.csv: of each column in use (our name -> what it is for, how its cells are
    read), and those not found."""
    everybody = list(rows)
    rows_of_report: list[dict[str, object]] = []
    for name, (used_for, read) in readers.items():
        if name not in titles:
            rows_of_report.append(
                missing_row(
                    name, used_for, f"column {name} not found; {used_for} stays empty", file=file
                )
            )
            continue
        texts = Counter(row.get(name) or "" for row in everybody)
        counts = cell_counts(
            texts, read, rows=len(everybody), open_values=True, shown=name not in hidden
        )
        rows_of_report.append(
            {
                "file": file,
                "column": shown_name(titles[name]),
                "field": name,
                "used_for": used_for,
                **counts,
            }
        )
    return rows_of_report
