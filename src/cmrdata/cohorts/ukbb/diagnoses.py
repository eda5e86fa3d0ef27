"""Diagnoses of UK Biobank participants, and what they say at the time of a visit: had, got later,
never, unclear.

Whoever has a cell that is not understood whole is unclear, and whoever is unclear is no control.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np

from cmrdata.cohorts.reading.cells import UNANSWERED, Reader, Reading
from cmrdata.cohorts.ukbb.cells import KEYS, ODD, Cells, settled
from cmrdata.cohorts.ukbb.codes import in_cell

UNDATED = "undated"  # in place of a date that is written and cannot be used
GAP = -1  # in place of a code's number: its element is empty
SLOTS = 10_000  # array indices of an instance

# ---- elements: which code is where


class Array(NamedTuple):
    """An array field in one file: its cells, and what each distinct text says, a tuple of
    elements."""

    cells: Cells
    readings: Sequence[Reading]
    packed: bool  # all elements share a cell


class Elements(NamedTuple):
    """The elements of an array field, from every file that has it, each once."""

    person: np.ndarray  # (n,)
    slot: np.ndarray  # (n,) instance * SLOTS + array index
    value: np.ndarray  # (n,) place in `values`, GAP, or ODD where files or lines disagree
    values: list[Any]
    odd: np.ndarray  # bool (people,): a cell is not understood
    packed: np.ndarray  # bool (people,): the elements share a cell


def array_of(cells: Cells, read: Reader) -> Array:
    """An array field of a file. One cell may hold all elements where they have no column each; else
    it holds one."""
    columns = Counter(column.key[1] for column in cells.columns)
    if max(columns.values()) == 1 and all(column.key[2] == 0 for column in cells.columns):
        return Array(cells, [in_cell(text, read) for text in cells.texts], True)
    single = [read(text) for text in cells.texts]
    return Array(
        cells,
        [one._replace(value=None if one.value is None else (one.value,)) for one in single],
        False,
    )


def undated(read: Reader, *, answers: bool = False) -> Reader:
    """As `read`, but whatever is written and gives no value is UNDATED; not what stands for no
    answer, of `answers`."""

    def read_any(text: str) -> Reading:
        reading = read(text)
        if (
            reading.value is not None
            or not (reading.odd or reading.missing)
            or (answers and reading.missing == UNANSWERED)
        ):
            return Reading(reading.value)
        return Reading(UNDATED)

    return read_any


def elements(arrays: Sequence[Array], *, people: int) -> Elements:
    """The elements that the cells hold. Cells that are missing hold none, empty ones between others
    are gaps."""
    numbers: dict[Any, int] = {}
    odd, packed = np.zeros(people, bool), np.zeros(people, bool)
    persons, slots, values = ([np.zeros(0, int)] for _ in range(3))
    for cells, readings, together in arrays:
        if not len(cells.text):
            continue
        odd[cells.person[np.array([bool(one.odd) for one in readings])[cells.text]]] = True
        tuples = [one.value if one.value is not None and not one.odd else () for one in readings]
        length = np.array([len(of) for of in tuples])
        flat = np.array(
            [
                GAP if value is None else numbers.setdefault(value, len(numbers))
                for of in tuples
                for value in of
            ],
            int,
        )
        start = np.cumsum(length) - length
        count = length[cells.text]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        base = np.array(
            [
                instance * SLOTS + array
                for _, instance, array in (column.key for column in cells.columns)
            ]
        )
        persons.append(np.repeat(cells.person, count))
        slots.append(np.repeat(base[cells.column], count) + within)
        values.append(flat[np.repeat(start[cells.text], count) + within])
        packed[cells.person] = together
    person, slot, value = settled(*map(np.concatenate, (persons, slots, values)))
    return Elements(person, slot, value, list(numbers), odd, packed)


# ---- evidence: what a source says


class Evidence(NamedTuple):
    """What one source says of the people: diagnoses, and who is unclear."""

    person: np.ndarray  # (n,) of each diagnosis
    mark: np.ndarray  # (n,) bits of the groups it belongs to
    when: np.ndarray  # (n,) datetime64[D], NaT where unknown
    # (people,) bits of the groups that the person may belong to and nobody can tell
    unclear: np.ndarray
    reasons: dict[str, np.ndarray]  # why, bool (people,)


def marked(
    values: Sequence[Any], prefixes_of: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, np.ndarray]:
    """(bits of the groups that each code belongs to, bits of those that it may belong to, being cut
    short of one)."""
    mark, cut = (np.zeros(len(values) + 2, int) for _ in range(2))  # the last two: GAP and ODD
    for place, code in enumerate(values):
        if not code:
            continue
        for bit, beginnings in enumerate(prefixes_of.values()):
            if any(code.startswith(prefix) for prefix in beginnings):
                mark[place] |= 1 << bit
            elif any(prefix.startswith(code) for prefix in beginnings):
                cut[place] |= 1 << bit
    return mark, cut


def of_codes(
    codes: Elements,
    dates: Elements | None,
    *,
    prefixes_of: Mapping[str, Sequence[str]],
    people: int,
    gaps: bool = True,
) -> Evidence:
    """What codes say that are dated element by element, or not at all.

    A person is unclear whose codes are not understood, disagree between files or lines, have a gap
    (where `gaps` cannot be), are fewer than their dates, or are cut short of a code that counts.
    The dates of someone who has an array of them in one cell, and another number of codes, belong
    to no code.
    """
    mark, cut = marked(codes.values, prefixes_of)
    reasons = {
        "a cell of codes is not understood": codes.odd,
        "files or lines disagree about a code": who(codes.person[codes.value == ODD], people),
        "an empty element among the codes": _gaps(codes, people) & ~codes.odd & gaps,
    }
    known = codes.value >= 0
    when = np.full(len(codes.person), np.datetime64("NaT"), "datetime64[D]")
    if dates is not None:
        place, more = partners(codes, dates, people)
        when = days_of(dates.values)[place]
        reasons["a date without a code"] = more & ~codes.odd
    every = sum(1 << bit for bit, beginnings in enumerate(prefixes_of.values()) if beginnings)
    unclear = np.where(np.logical_or.reduce(list(reasons.values())), every, 0)
    np.bitwise_or.at(unclear, codes.person, cut[codes.value])
    reasons["a code cut short of one that counts"] = who(codes.person[cut[codes.value] > 0], people)
    certain = known & (mark[codes.value] > 0)
    return Evidence(
        codes.person[certain], mark[codes.value][certain], when[certain], unclear, reasons
    )


def days_of(values: Sequence[Any]) -> np.ndarray:
    """datetime64[D] of each value and of nothing (the last one); NaT for UNDATED."""
    return np.array([*(None if day == UNDATED else day for day in values), None], "datetime64[D]")


def partners(codes: Elements, other: Elements, people: int) -> tuple[np.ndarray, np.ndarray]:
    """(place in `other.values` of what belongs to each code, -1 for nothing; who has more of the
    `other` than codes).

    Element k belongs to element k. Where either came in one cell, and elements are left over,
    nothing belongs to anything: one may have been dropped before the others.
    """
    mine, theirs = _keys(codes), _keys(other)
    place, hit = _places(mine, theirs)
    values = np.where(hit, np.append(other.value, -1)[place], -1)
    surplus = (other.value != GAP) & ~_places(theirs, mine[codes.value != GAP])[1]
    ours, given = (np.bincount(of.person, minlength=people) for of in (codes, other))
    beyond = who(other.person[(other.value != GAP) & ~_places(theirs, mine)[1]], people)
    shifted = (other.packed & (codes.packed | (given > 1)) & (given != ours)) | (
        codes.packed & beyond
    )
    values[(shifted | other.odd)[codes.person]] = -1
    return np.maximum(values, -1), who(other.person[surplus], people)


def _keys(of: Elements) -> np.ndarray:
    """In order, as `settled` leaves them."""
    keys: np.ndarray = of.person.astype(np.int64) * KEYS + of.slot
    return keys


def _places(of: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place of each number among others, which are in order; whether it is there)."""
    place = np.searchsorted(among, of)
    return place, np.append(among, -1)[place] == of


def _gaps(codes: Elements, people: int) -> np.ndarray:
    """Who has fewer codes than the place of the last one says."""
    array = codes.person.astype(np.int64) * 10 + codes.slot // SLOTS
    arrays, of = np.unique(array, return_inverse=True)
    length = np.zeros(len(arrays), int)
    np.maximum.at(length, of, codes.slot % SLOTS + 1)
    count = np.bincount(of, weights=codes.value != GAP, minlength=len(arrays))
    return who(arrays[count < length] // 10, people)


def who(persons: np.ndarray, people: int) -> np.ndarray:
    marked = np.zeros(people, bool)
    marked[persons.astype(int)] = True
    return marked


def day_of_year(year: float) -> date:
    """The day at a fraction of a year: 2005.5 is the 2nd of July 2005."""
    begin = date(int(year), 1, 1)
    return begin + timedelta(
        days=int((year - int(year)) * (date(int(year) + 1, 1, 1) - begin).days)
    )


# ---- at a visit


def at_visit(
    rows: np.ndarray, dates: np.ndarray, visit: np.ndarray, unclear: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(state, date of the first diagnosis) of each person at a `visit`, datetime64[D] (n,); NaT for
    no visit.

    Diagnoses that count have the row (0..n-1) of their person, and a date or NaT where it is
    unknown. prevalent: a date on or before the visit. unknown: diagnosed, but no telling when; or
    `unclear`, bool (n,), whether diagnosed.
    incident: all are later. none: not diagnosed.
    """
    first = np.full(len(visit), np.datetime64("NaT"), "datetime64[D]")
    np.fmin.at(first, rows, dates)
    diagnosed, undated = (
        np.bincount(of, minlength=len(visit)) > 0 for of in (rows, rows[np.isnat(dates)])
    )
    doubtful = np.zeros(len(visit), bool) if unclear is None else unclear
    conditions = [first <= visit, doubtful, ~diagnosed, undated | np.isnat(visit)]
    return np.select(conditions, ["prevalent", "unknown", "none", "unknown"], "incident").astype(
        object
    ), first
