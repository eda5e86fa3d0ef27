"""The cells of participants in one or several UK Biobank tables, joined by id: what is written,
what it means, who disagrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from cmrdata.cohorts.reading.cells import Reader, Reading
from cmrdata.cohorts.reading.column_report import REASONS, example, shown_name
from cmrdata.cohorts.reading.ids import UnclearId, id_pattern, spelled_id, without_zeros
from cmrdata.cohorts.reading.table_files import TableFile, read_blocks

ROWS_TOGETHER = 8192  # rows looked at in one go
KEYS = 100_000  # slots of a participant, at most: instances and array indices
ODD = -2  # in place of a value's number: not understood, or not the same everywhere


class Column(NamedTuple):
    """A column in use."""

    name: str  # as the header writes it
    key: tuple[str, int, int]  # field, instance, array


class Cells(NamedTuple):
    """Every cell of a field in one file in which something is written."""

    table: int  # place of the file among the tables
    file: str  # its name
    columns: list[Column]
    column: np.ndarray  # (n,) place in `columns`
    person: np.ndarray  # (n,) number of the participant
    text: np.ndarray  # (n,) place in `texts`
    texts: list[str]
    rows: int  # of the file, of participants that are wanted


class People(NamedTuple):
    """Whose rows were found, in the order of their first ones."""

    names: list[str]  # canonical ids
    everyone: set[str]  # canonical ids in the files, wanted or not
    present: list[np.ndarray]  # per file: bool (people,), who has a row there
    rows: list[int]  # per file: rows of wanted participants
    repeated: int  # rows that repeat a participant of the same file


class _Growing:
    """The cells of a field, as they come."""

    def __init__(self, columns: list[Column]) -> None:
        self.columns, self.numbers = columns, dict[str, int]()
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, arrays: list[pa.Array], people: np.ndarray) -> None:
        stacked = pa.concat_arrays(arrays)
        place = np.flatnonzero(stacked.is_valid().to_numpy(zero_copy_only=False))
        encoded = stacked.drop_null().dictionary_encode()
        numbers = [
            self.numbers.setdefault(text, len(self.numbers))
            for text in encoded.dictionary.to_pylist()
        ]
        text = np.array(numbers, np.int32)[encoded.indices.to_numpy()]
        self.parts.append((place // len(people), people[place % len(people)], text))

    def cells(self, table: int, file: str, rows: int) -> Cells:
        empty = np.zeros(0, np.int32)
        column, person, text = (
            np.concatenate(part) for part in zip((empty,) * 3, *self.parts, strict=True)
        )
        return Cells(table, file, self.columns, column, person, text, list(self.numbers), rows)


def read_cells(
    tables: Sequence[TableFile],
    wanted: Callable[[Any], bool],
    *,
    identifier: Hashable,
    ids: Collection[str] | None,
) -> tuple[People, dict[str, list[Cells]]]:
    """The cells of some columns of several tables.

    Args:
        tables: whose rows are read.
        wanted: whether the column of a key is.
        identifier: the key of the column of ids.
        ids: canonical ids of the participants wanted; None for all.

    Returns:
        Whose rows there are, and cells by field and file.

    Raises:
        ValueError: naming the file and line, and no participant, where a row has no id or an
            unclear one, or where ids that differ by leading zeros alone may be two people.
    """
    numbers: dict[str, int] = {}
    wanted_ids = None if ids is None else set(ids)
    everyone: set[str] = set()
    members: list[np.ndarray] = []
    rows_of: list[int] = []
    cells: dict[str, list[Cells]] = {}
    repeated = 0
    for number, table in enumerate(tables):
        own = _Ids(table, wanted_ids=wanted_ids, numbers=numbers)
        groups: dict[str, _Growing] = {}
        places: dict[str, list[int]] = {}
        for place, key in enumerate(table.keys):
            if key is not None and key != identifier and wanted(key):
                field = key[0]  # type: ignore[index]
                places.setdefault(field, []).append(place)
                column = Column(table.names[place], key)  # type: ignore[arg-type]
                groups.setdefault(field, _Growing([])).columns.append(column)
        order = [table.keys.index(identifier), *(place for of in places.values() for place in of)]
        for rows in _rounds(read_blocks(table, order)):
            people = own.numbered(rows.column(0).to_pylist())
            kept = np.flatnonzero(people >= 0)
            if len(kept) < len(people):
                rows = rows.take(pa.array(kept))
            at = 1
            for field, of in places.items():
                if len(kept):
                    groups[field].add([rows.column(at + k) for k in range(len(of))], people[kept])
                at += len(of)
        own.check()
        everyone |= own.everyone
        repeated += own.repeated
        rows_of.append(len(own.wanted))
        members.append(np.unique(np.array(own.wanted, np.int64)))
        for field, growing in groups.items():
            cells.setdefault(field, []).append(
                growing.cells(number, table.path.name, len(own.wanted))
            )
    present = [np.isin(np.arange(len(numbers)), of) for of in members]
    return People(list(numbers), everyone, present, rows_of, repeated), cells


class _Ids:
    """The ids of a file: numbered where wanted, checked for those that may be two people's."""

    def __init__(
        self, table: TableFile, *, wanted_ids: set[str] | None, numbers: dict[str, int]
    ) -> None:
        self.table, self.wanted_ids, self.numbers = table, wanted_ids, numbers
        self.everyone: set[str] = set()
        self.wanted: list[int] = []
        self.repeated = self.rows = 0
        self.spelled: dict[str, str] = {}
        self.ambiguous: set[str] = set()

    def numbered(self, texts: list[str | None]) -> np.ndarray:
        """Number of the participant of each row, -1 where nobody asked for it."""
        numbers = np.full(len(texts), -1, np.int64)
        for row, text in enumerate(texts):
            self.rows += 1
            word = self._spelled(text)
            name = without_zeros(word)
            if name in self.everyone:
                self.repeated += 1
            self.everyone.add(name)
            if self.wanted_ids is None or name in self.wanted_ids:
                numbers[row] = self.numbers.setdefault(name, len(self.numbers))
                if self.spelled.setdefault(name, word) != word:
                    self.ambiguous.add(name)
        self.wanted += numbers[numbers >= 0].tolist()
        return numbers

    def _spelled(self, text: str | None) -> str:
        where = f"{self.table.setting}={self.table.path}: line {self.table.lines + self.rows}"
        try:
            word = spelled_id(text or "")
        except UnclearId as error:
            raise ValueError(f"{where}: the participant's id {error}") from None
        if not word:
            raise ValueError(f"{where} has no participant id; complete or remove it")
        return word

    def check(self) -> None:
        where = f"{self.table.setting}={self.table.path}"
        if not self.rows:
            raise ValueError(f"{where}: has a header and no participants; give the whole table")
        if self.ambiguous:
            raise ValueError(
                f"{where}: {len(self.ambiguous)} participants' ids stand there with leading zeros "
                f"and without ({id_pattern(min(self.ambiguous))}), and may be two people's; write "
                "all ids alike"
            )


def _rounds(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches, joined to about ROWS_TOGETHER rows."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= ROWS_TOGETHER:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    names = [str(k) for k in range(batches[0].num_columns)]
    columns = [pa.concat_arrays([batch.column(k) for batch in batches]) for k in range(len(names))]
    return pa.RecordBatch.from_arrays(columns, names)


# ---- what the cells mean


def read_texts(cells: Cells, read: Reader) -> list[Reading]:
    """Each distinct text, read once."""
    return [read(text) for text in cells.texts]


def report_rows(
    cells: Cells,
    readings: Sequence[Reading],
    *,
    used_for: str,
    field: Callable[[Any], str],
    open_values: bool,
    shown: bool,
    note: str = "",
) -> list[dict[str, object]]:
    """A row of columns.csv for each of the columns."""
    columns = len(cells.columns)
    understood = np.array([one.value is not None and not one.odd for one in readings], bool)
    count = (
        np.bincount(cells.column[understood[cells.text]], minlength=columns)
        if len(cells.text)
        else np.zeros(columns, int)
    )
    why = [Counter[str]() for _ in range(columns)]
    odd = [Counter[tuple[str, str]]() for _ in range(columns)]
    gone = [Counter[str]() for _ in range(columns)]
    unread = np.array([bool(one.odd or one.missing) for one in readings], bool)
    here = np.flatnonzero(unread[cells.text]) if len(cells.text) else np.zeros(0, int)
    pairs, counts = np.unique(
        cells.column[here] * np.int64(len(readings)) + cells.text[here], return_counts=True
    )
    for pair, number in zip(pairs.tolist(), counts.tolist(), strict=True):
        column, text = divmod(pair, len(readings))
        if reason := readings[text].odd:
            why[column][reason] += number
            odd[column][reason, cells.texts[text]] += number
        else:
            gone[column][readings[text].missing] += number
    rows: list[dict[str, object]] = []
    for place, column in enumerate(cells.columns):
        strange = sum(why[place].values())
        reasons = [
            f"{n} {what}"
            for what, n in (*why[place].most_common(REASONS), *gone[place].most_common(REASONS))
        ]
        rows.append(
            {
                "file": cells.file,
                "column": shown_name(column.name),
                "field": field(column.key),
                "used_for": used_for,
                "rows": cells.rows,
                "understood": int(count[place]),
                "missing": cells.rows - int(count[place]) - strange,
                "not_understood": strange,
                "example": example(odd[place], open_values=open_values) if shown else "",
                "note": "; ".join([note, *reasons] if note and reasons else reasons),
            }
        )
    return rows


def settled(
    people: np.ndarray, slots: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(participant, slot, value) once each and in order, of cells that may say the same twice; ODD
    where they don't."""
    order = np.argsort(people * np.int64(KEYS) + slots, kind="stable")
    people, slots, values = people[order], slots[order], values[order]
    first = np.ones(len(people), bool)
    first[1:] = (people[1:] != people[:-1]) | (slots[1:] != slots[:-1])
    if first.all():
        return people, slots, values
    group = np.cumsum(first) - 1
    kept = values[first].copy()
    kept[group[values != kept[group]]] = ODD
    return people[first], slots[first], kept


class Scalar(NamedTuple):
    """What one field says of each person at one visit."""

    values: np.ndarray  # (people,)
    odd: np.ndarray  # bool (people,): a cell is not understood
    differs: np.ndarray  # bool (people,): cells of the same field and visit disagree


def scalar(
    parts: Sequence[tuple[Cells, Sequence[Reading]]], instance: int, *, people: int, dtype: Any
) -> Scalar:
    """The values of a field at a visit (its array 0) from every file that has it; missing where
    nothing is certain."""
    numbers: dict[Any, int] = {}
    persons, values = [np.zeros(0, int)], [np.zeros(0, int)]
    for cells, readings in parts:
        number = np.array(
            [
                ODD
                if one.odd
                else -1
                if one.value is None
                else numbers.setdefault(one.value, len(numbers))
                for one in readings
            ],
            int,
        )
        mine = np.array([column.key[1:] == (instance, 0) for column in cells.columns], bool)[
            cells.column
        ]
        value = number[cells.text[mine]] if len(readings) else np.zeros(0, int)
        persons.append(cells.person[mine][value != -1])
        values.append(value[value != -1])
    person, value = np.concatenate(persons), np.concatenate(values)
    odd = np.zeros(people, bool)
    odd[person[value == ODD]] = True
    who, _, kept = settled(person, np.zeros(len(person), int), value)
    differs = np.zeros(people, bool)
    differs[who[kept == ODD]] = True
    value_of = np.full(people, None, dtype)
    certain = kept != ODD
    if certain.any():
        known = np.empty(len(numbers), dtype)
        known[:] = list(numbers)
        value_of[who[certain]] = known[kept[certain]]
    return Scalar(value_of, odd, differs & ~odd)
