"""ICD-10 codes of UK Biobank participants, and what they say at the time of a visit: had, got later, never, unclear."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date

import numpy as np
import pyarrow as pa

from cmrdata.readers.ukbb_columns import Key, read_date
from cmrdata.readers.ukbb_csv import NA, BadCell, values

PRESETS = {  # of heart failure; the seed paper gives no list
    "narrow": ("I50",),
    "standard": ("I50", "I110", "I130", "I132"),
    "broad": ("I50", "I110", "I130", "I132", "I255", "I420", "I425", "I426", "I427", "I428", "I429"),
}
CONDITION_CODES = {
    "mi": ("I21", "I22", "I23", "I252"),
    "ihd": ("I20", "I21", "I22", "I23", "I24", "I25"),
    "af": ("I48",),
}
HF = 1  # the mark of heart failure
CODES, DATES = "41270", "41280"  # fields: in-patient diagnoses and the date of each one's first, element by element
FIRST_I50 = "131354"  # field: date of the first I50 in any linked source
SOURCES = {"hospital": (CODES, DATES), "first_occurrence": (FIRST_I50,)}  # of heart failure: the fields they need
CODE = re.compile(r"([A-Z])\s*([0-9][0-9A-Z])(?:\s*\.\s*|\s+(?=[0-9]{1,2}(?:\s|$)))?([0-9A-Z]*)(?=\s|$)", re.ASCII)
ELEMENT = re.compile(r"""\s*+("(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|[^,"']*+)\s*+(,|$)""", re.DOTALL)


def prefixes(codes: str | Sequence[str], *, setting: str = "codes") -> tuple[str, ...]:
    """ICD-10 prefixes of a preset's name, or of a list such as ["I50", "I11.0"]. Raises ValueError for anything else."""
    plain = PRESETS.get(codes, ()) if isinstance(codes, str) else [re.sub(r"[\s.*]", "", str(c)).upper() for c in codes]
    if not plain or not all(re.fullmatch("[A-Z][0-9][0-9A-Z]*", code) for code in plain):
        given = repr(codes) if isinstance(codes, str) else list(codes)
        raise ValueError(
            f"{setting} is {given}; give {', '.join(PRESETS)} or a list of ICD-10 codes, or beginnings of them, like [I50, I110]"
        )
    return tuple(plain)


def groups(codes: str | Sequence[str], *, without: Sequence[str], source: str,
           conditions: Sequence[str]) -> dict[str, tuple[str, ...]]:  # fmt: skip
    """ICD-10 prefixes to look for in the hospitals' records; hf first. Raises ValueError naming the setting."""
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; give {' or '.join(SOURCES)}")
    if isinstance(conditions, str) or not set(conditions) <= set(CONDITION_CODES):
        raise ValueError(f"conditions is {conditions!r}; give a list of {', '.join(CONDITION_CODES)}")
    hf = prefixes(codes)
    if source == "first_occurrence" and hf != prefixes("narrow"):
        raise ValueError(
            f"source is first_occurrence, which knows I50 alone, and codes is {codes!r}; give codes=narrow or "
            "source=hospital"
        )
    found = {"hf": hf if source == "hospital" else (), **{name: CONDITION_CODES[name] for name in conditions}}
    return {**found, "without": prefixes(without, setting="without")} if without else found


def normal(text: str) -> str:
    """The code of an element such as "I500", "i50.0" or "I50.0 Congestive heart failure": "I500".

    Raises ValueError for text that is no single code.
    """
    found = CODE.match(text.strip().upper())
    if not found or "|" in text:
        raise ValueError("holds something that is no ICD-10 code such as I500, I50.0 or I50.0 with its title")
    return "".join(found.groups())


def elements(cell: str) -> list[str]:
    """The elements of a cell in their order: of a JSON or Python list, or those separated by "|". Raises ValueError."""
    cell = cell.strip()
    if not cell.startswith("["):
        return [part.strip() for part in cell.split("|")]
    found: list[str] = []
    at = 1
    while cell.endswith("]") and (element := ELEMENT.match(cell, at, len(cell) - 1)):
        found.append(element[1].strip().strip("'\"").strip())
        at = element.end()
        if not element[2]:
            return found
    raise ValueError('holds a list that cannot be read; write it like ["I10", "I500"] or I10|I500')


def marks(groups: dict[str, tuple[str, ...]]) -> Callable[[str], int]:
    """A function of an element's text: the groups that its code belongs to, bit n for the n-th; ValueError for no code."""

    @functools.cache
    def mark(text: str) -> int:
        code = normal(text)
        return sum(code.startswith(group) << bit for bit, group in enumerate(groups.values()))

    return mark


def diagnoses(block: dict[Key, pa.Array], mark_of: Callable[[str], int]) -> Iterator[tuple[int, int, date | None]]:
    """(row, mark, date) of each diagnosis in a block that has a mark: heart failure's is HF, a code's what `mark_of` says.

    The date is None where it is unknown. Raises BadCell.
    """
    if (key := (FIRST_I50, 0, 0)) in block:
        for row, text in enumerate(block[key].to_pylist()):
            if text and text.strip() not in NA:
                yield row, HF, _date(text, row, FIRST_I50)
    codes, dates = ({k: cells for (field, _, k), cells in block.items() if field == of} for of in (CODES, DATES))
    if not codes:
        return
    in_one_cell = list(dates) == [0]
    for row, k, mark in _in_cells(codes[0], mark_of) if list(codes) == [0] else _in_columns(codes, mark_of):
        column = dates.get(0 if in_one_cell else k)
        text = None if column is None else column[row].as_py()
        parts = _split(text, row, DATES) if text and in_one_cell else [text] * (k + 1)
        yield row, mark, _date(parts[k] or "", row, DATES) if k < len(parts) else None


def _in_cells(column: pa.Array, mark_of: Callable[[str], int]) -> Iterator[tuple[int, int, int]]:
    """(row, k, mark) where the codes of a participant share a cell."""
    for row, cell in enumerate(column.to_pylist()):
        for k, text in enumerate(_split(cell, row, CODES) if cell else ()):
            try:
                mark = 0 if text in NA else mark_of(text)
            except ValueError as error:
                raise BadCell(f"field {CODES} {error}", row) from None
            if mark:
                yield row, k, mark


def _in_columns(columns: dict[int, pa.Array], mark_of: Callable[[str], int]) -> Iterator[tuple[int, int, int]]:
    """(row, k, mark) where each code has a column of its own."""
    numbers = sorted(columns)
    rows = len(columns[numbers[0]])
    try:
        found = values(pa.concat_arrays([columns[k] for k in numbers]), mark_of, field=CODES, dtype=int, missing=0)
    except BadCell as error:
        raise BadCell(str(error), error.row % rows) from None
    for place in np.flatnonzero(found).tolist():
        yield place % rows, numbers[place // rows], int(found[place])


def _split(cell: str, row: int, field: str) -> list[str]:
    try:
        return elements(cell)
    except ValueError as error:
        raise BadCell(f"field {field} {error}", row) from None


def _date(text: str, row: int, field: str) -> date | None:
    try:
        return None if (text := text.strip()) in NA else read_date(text)
    except ValueError as error:
        raise BadCell(f"field {field} {error}", row) from None


def at_visit(rows: np.ndarray, dates: np.ndarray, visit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(state, date of the first diagnosis) of each person at a `visit`, datetime64[D] (n,); NaT for no visit.

    Diagnoses that count have the row (0..n-1) of their person, and a date or NaT where it is unknown. prevalent: a date
    on or before the visit. incident: all are later. unknown: diagnosed, but no telling when. none: not diagnosed.
    """
    first = np.full(len(visit), np.datetime64("NaT"), "datetime64[D]")
    np.fmin.at(first, rows, dates)
    diagnosed, undated = (np.bincount(of, minlength=len(visit)) > 0 for of in (rows, rows[np.isnat(dates)]))
    told = [~diagnosed, first <= visit, undated | np.isnat(visit)]
    return np.select(told, ["none", "prevalent", "unknown"], "incident").astype(object), first
