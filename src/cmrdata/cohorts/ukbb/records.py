"""Diagnoses as records, a row per event: UK Biobank's tables hesin_diag and hesin, joined or apart,
or eid, code, date."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc

from cmrdata.cohorts.reading.cells import clean, date_reader, day_first, read_category
from cmrdata.cohorts.reading.column_report import cell_counts, shown_name
from cmrdata.cohorts.reading.file_kinds import table_paths
from cmrdata.cohorts.reading.ids import QUOTES, UnclearId, id_patterns, spelled_id, without_zeros
from cmrdata.cohorts.reading.table_files import TableFile, open_table, read_blocks
from cmrdata.cohorts.ukbb.codes import read_code
from cmrdata.cohorts.ukbb.columns import ID, ID_NAMES, parse_column
from cmrdata.cohorts.ukbb.diagnoses import Evidence, marked

DIAGNOSIS_LEVELS = ("all", "main", "secondary")
# how files call a level
MAIN_LEVELS = ("1", "main", "primary")
FURTHER_LEVELS = ("2", "3", "secondary", "external", "external cause")
RECORD_COLUMNS = {  # what a column says: its names, the first one there counts
    "code": ("diag_icd10", "icd10", "icd10_code", "code"),
    "date": ("epistart", "admidate", "date", "event_dt", "event_date", "diagnosis_date"),
    "level": ("level", "diag_level"),
    "spell": ("ins_index",),
    "icd9": ("diag_icd9", "icd9"),
}
SEEN = 20  # ids of which patterns are told, when nobody matches


class Records(NamedTuple):
    """What the records say of the people asked for."""

    evidence: Evidence
    report: list[dict[str, object]]  # rows of columns.csv
    notes: list[str]


def record_column(name: str) -> Any:
    """What a column of records holds: ID, or (key of RECORD_COLUMNS, place of the name among those
    of the key); None for others."""
    if parse_column(name) == ID:
        return ID
    plain = re.sub(r"^(hesin_diag|hesin|record)[._]", "", clean(clean(name).strip(QUOTES)).lower())
    plain = plain.replace(".", "_").replace(" ", "_")
    if plain == "eid":
        return ID
    return next(
        ((what, names.index(plain)) for what, names in RECORD_COLUMNS.items() if plain in names),
        None,
    )


def read_records(
    given: object,
    *,
    names: Sequence[str],
    prefixes_of: Mapping[str, Sequence[str]],
    level: str = "all",
) -> Records:
    """The ICD-10 diagnoses of participants in record-level files.

    Args:
        given: path, list of paths or pattern of the files. Each row is an event: eid, diag_icd10
            (or code), and a date: epistart, where that is empty admidate (or date). The date may be
            in another file that shares eid and ins_index (hesin beside hesin_diag).
        names: canonical ids of the participants.
        prefixes_of: group of codes -> beginnings of the codes in it.
        level: "all"; with "main" or "secondary" only such diagnoses count, and whoever has another
            one that would have counted is unclear.

    Returns:
        What the records say. Rows without any code but an ICD-9 one are another coding's.

    Raises:
        ValueError and FileNotFoundError, naming cohort.diagnoses.
    """
    if level not in DIAGNOSIS_LEVELS:
        raise ValueError(f"cohort.level is {level!r}; it takes {', '.join(DIAGNOSIS_LEVELS)}")
    tables = [
        open_table(
            path, setting="cohort.diagnoses", known=record_column, identifier=ID, id_names=ID_NAMES
        )
        for path in table_paths(given, setting="cohort.diagnoses")
    ]
    _require_columns(tables, level=level)
    people = {name: number for number, name in enumerate(names)}
    events = [_events(table, people) for table in tables]
    _require_match(tables, events, names)
    return _evidence(tables, events, people=len(names), prefixes_of=prefixes_of, level=level)


class _Column(NamedTuple):
    """What is written in a column: each distinct text once, "" for nothing."""

    place: np.ndarray  # (rows,) in `words`
    words: list[str]

    def counts(self) -> dict[str, int]:
        return dict(
            zip(
                self.words, np.bincount(self.place, minlength=len(self.words)).tolist(), strict=True
            )
        )

    def mapped(self, read: Callable[[str], Any], dtype: Any) -> np.ndarray:
        """`read` of the text of each row."""
        values = np.array([read(word) for word in self.words] or [None], dtype)
        return values.take(self.place)


class _Events(NamedTuple):
    """The rows of one file that are about the people."""

    person: np.ndarray
    columns: dict[Any, _Column]
    rows: int  # of everybody
    someone: list[str]  # some ids of the file

    def first(self, what: str) -> _Column:
        """The column of RECORD_COLUMNS that is preferred; an empty one where there is none."""
        key = min((key for key in self.columns if key[0] == what), default=None)
        return self.columns[key] if key else _Column(np.zeros(len(self.person), int), [""])


def _require_columns(tables: Sequence[TableFile], *, level: str) -> None:
    kinds = [{key[0] for key in table.keys if key and key != ID} for table in tables]  # type: ignore[index]
    dated = [kind for kind in kinds if "date" in kind]
    wanted = {
        "code": "diag_icd10",
        "date": "epistart, admidate or date",
        **({"level": "level"} if level != "all" else {}),
    }
    for what, example in wanted.items():
        if not any(what in kind for kind in kinds):
            raise ValueError(
                f"cohort.diagnoses={', '.join(str(table.path) for table in tables)}: no column "
                f"{example}; a row is an event with eid, diag_icd10 and epistart or admidate (or "
                "eid, code, date), the date maybe in a second file with eid and ins_index"
            )
    for table, kind in zip(tables, kinds, strict=True):
        if (
            "code" in kind
            and "date" not in kind
            and not ("spell" in kind and any("spell" in other for other in dated))
        ):
            raise ValueError(
                f"cohort.diagnoses={table.path}: codes without dates; give hesin.csv too, both "
                "with eid and ins_index"
            )
        if "code" in kind and level != "all" and "level" not in kind:
            raise ValueError(
                f"cohort.diagnoses={table.path}: no column level, which cohort.level={level} needs"
            )


def _events(table: TableFile, people: Mapping[str, int]) -> _Events:
    keys = [key for key in table.keys if key and key != ID]
    places = [table.keys.index(ID), *(table.keys.index(key) for key in keys)]
    ids = _Ids(table, people)
    persons = [np.zeros(0, int)]
    words: list[dict[str, int]] = [{} for _ in keys]
    parts: list[list[np.ndarray]] = [[np.zeros(0, int)] for _ in keys]
    rows = 0
    for batch in read_blocks(table, places):
        encoded = batch.column(0).dictionary_encode()
        where = f"{table.setting}={table.path}: a row behind line {table.lines + rows}"
        if encoded.null_count:
            raise ValueError(f"{where} has no participant id; complete or remove it")
        here = np.array([ids.number(text, where) for text in encoded.dictionary.to_pylist()], int)
        person = here[encoded.indices.to_numpy(zero_copy_only=False)]
        mine = np.flatnonzero(person >= 0)
        persons.append(person[mine])
        for at, (known, part) in enumerate(zip(words, parts, strict=True), 1):
            texts = pc.fill_null(batch.column(at).take(mine), "").dictionary_encode()
            number = np.array(
                [known.setdefault(text, len(known)) for text in texts.dictionary.to_pylist()], int
            )
            part.append(number[texts.indices.to_numpy(zero_copy_only=False)])
        rows += len(person)
    ids.check()
    columns = {
        key: _Column(np.concatenate(part), list(known))
        for key, part, known in zip(keys, parts, words, strict=True)
    }
    return _Events(np.concatenate(persons), columns, rows, list(ids.spelled)[:SEEN])


class _Ids:
    """Numbers of people by the ids of a file."""

    def __init__(self, table: TableFile, people: Mapping[str, int]) -> None:
        self.table, self.people = table, people
        self.spelled: dict[str, str] = {}
        self.ambiguous: set[str] = set()

    def number(self, text: str, where: str) -> int:
        try:
            word = spelled_id(text)
        except UnclearId as error:
            raise ValueError(f"{where}: the participant's id {error}") from None
        if not word:
            raise ValueError(f"{where} has no participant id; complete or remove it")
        name = without_zeros(word)
        if self.spelled.setdefault(name, word) != word and name in self.people:
            self.ambiguous.add(name)
        return self.people.get(name, -1)

    def check(self) -> None:
        if self.ambiguous:
            raise ValueError(
                f"{self.table.setting}={self.table.path}: {len(self.ambiguous)} participants' ids "
                "stand there with leading zeros and without, and may be two people's; write all "
                "ids alike"
            )


def _require_match(
    tables: Sequence[TableFile], events: Sequence[_Events], names: Collection[str]
) -> None:
    for table, of in zip(tables, events, strict=True):
        if of.rows and names and not len(of.person):
            raise ValueError(
                f"cohort.diagnoses={table.path}: none of its {of.rows:,} rows is about any of the "
                f"{len(names):,} participants: ids are {id_patterns(of.someone)} there, "
                f"{id_patterns(names)} in the images and the table. Give records of the same "
                "application, with its ids"
            )


def _evidence(
    tables: Sequence[TableFile],
    events: Sequence[_Events],
    *,
    people: int,
    prefixes_of: Mapping[str, Sequence[str]],
    level: str,
) -> Records:
    report: list[dict[str, object]] = []
    days_of: list[np.ndarray] = []
    for table, of in zip(tables, events, strict=True):
        dates = sorted(key for key in of.columns if key[0] == "date")
        read = date_reader(
            day_first=day_first(text for key in dates for text in of.columns[key].words)
        )
        days = np.full(len(of.person), np.datetime64("NaT"), "datetime64[D]")
        for key in dates:
            column = of.columns[key]
            known = np.array([read(word).value for word in column.words] or [None], days.dtype)
            days = np.where(np.isnat(days), known[column.place], days)
        days_of.append(days)
        readers = {"date": read, "code": read_code}
        for key, column in of.columns.items():
            counts = cell_counts(
                column.counts(), readers.get(key[0], read_category), rows=len(of.person)
            )
            report.append(
                {
                    "file": table.path.name,
                    "column": shown_name(table.names[table.keys.index(key)]),
                    "field": RECORD_COLUMNS[key[0]][key[1]],
                    "used_for": f"{key[0]} of diagnoses (records)",
                    **counts,
                }
            )
    dated = list(zip(events, days_of, strict=True))
    parts = [
        _of_file(of, days, dated, people=people, prefixes_of=prefixes_of, level=level)
        for of, days in dated
        if any(key[0] == "code" for key in of.columns)
    ]
    reasons = {
        why: np.logical_or.reduce([part.reasons[why] for part in parts]) for why in parts[0].reasons
    }
    person, mark, when = (np.concatenate([part[k] for part in parts]) for k in range(3))
    unclear = np.bitwise_or.reduce([part.unclear for part in parts])
    among, rows = (
        sum(counts) for counts in ((len(of.person) for of in events), (of.rows for of in events))
    )
    notes = [f"diagnosis records: {among:,} of {rows:,} rows are about these participants"]
    return Records(Evidence(person, mark, when, unclear, reasons), report, notes)


def _of_file(
    of: _Events,
    days: np.ndarray,
    others: Iterable[tuple[_Events, np.ndarray]],
    *,
    people: int,
    prefixes_of: Mapping[str, Sequence[str]],
    level: str,
) -> Evidence:
    codes = of.first("code")
    readings = [read_code(word) for word in codes.words]
    marks, cuts = (
        bits[:-2][codes.place]
        for bits in marked([one.value or "" for one in readings], prefixes_of)
    )
    odd = np.array([bool(one.odd) for one in readings] or [False])[codes.place]
    empty = np.array([not one.odd and one.value is None for one in readings] or [False])[
        codes.place
    ]
    empty &= of.first("icd9").mapped(lambda text: not text.strip(), bool)
    when = _dated(of, days, others, wanted=np.isnat(days) & (marks > 0))
    other = _other_level(of.first("level"), level)
    every = sum(1 << bit for bit, beginnings in enumerate(prefixes_of.values()) if beginnings)
    unclear = np.zeros(people, int)
    np.bitwise_or.at(
        unclear, of.person, np.where(odd | empty, every, cuts | np.where(other, marks, 0))
    )
    reasons = {
        "a code of the records is not understood": odd,
        "a record without a code": empty,
        "a code cut short of one that counts": cuts > 0,
        "a diagnosis of another level": other & (marks > 0),
    }
    certain = (marks > 0) & ~other
    return Evidence(
        of.person[certain],
        marks[certain],
        when[certain],
        unclear,
        {why: np.bincount(of.person[rows], minlength=people) > 0 for why, rows in reasons.items()},
    )


def _dated(
    of: _Events,
    days: np.ndarray,
    others: Iterable[tuple[_Events, np.ndarray]],
    *,
    wanted: np.ndarray,
) -> np.ndarray:
    """The `days`, and of the rows `wanted` the first day of the same spell (eid, ins_index) in the
    `others`."""
    if not wanted.any():
        return days
    when, spell = days.copy(), of.first("spell")
    rows = np.flatnonzero(wanted).tolist()
    wanted_dates = {
        (int(of.person[row]), spell.words[spell.place[row]].strip()): np.datetime64("NaT")
        for row in rows
    }
    for other, theirs in others:
        number = other.first("spell")
        for row in np.flatnonzero(
            np.isin(other.person, of.person[wanted]) & ~np.isnat(theirs)
        ).tolist():
            key = (int(other.person[row]), number.words[number.place[row]].strip())
            if key in wanted_dates and key[1]:
                wanted_dates[key] = np.fmin(wanted_dates[key], theirs[row])
    for row in rows:
        when[row] = wanted_dates[int(of.person[row]), spell.words[spell.place[row]].strip()]
    return when


def _other_level(column: _Column, level: str) -> np.ndarray:
    """Which rows are not of the `level` asked for, or of none that is known."""
    if level == "all":
        return np.zeros(len(column.place), bool)
    words = MAIN_LEVELS if level == "main" else FURTHER_LEVELS
    return column.mapped(lambda text: re.sub(r"\.0+$", "", clean(text)).lower() not in words, bool)
