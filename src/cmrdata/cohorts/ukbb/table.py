"""Tables of UK Biobank participants: who they are at an imaging visit, and whether their heart had
failed by then.

Beside the people comes an account of every column in use, of what was wanted and not found, and
whether labels made of it would mean anything.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrdata.axes import CONDITIONS
from cmrdata.cohorts.reading.column_report import columns_table, shown_name
from cmrdata.cohorts.reading.file_kinds import decoded, table_paths
from cmrdata.cohorts.reading.ids import QUOTES, UnclearId, canonical_id, id_pattern
from cmrdata.cohorts.reading.table_files import TableFile, open_table
from cmrdata.cohorts.ukbb.account import (
    array_gaps,
    file_notes,
    id_rows,
    known_of_nobody,
    not_found,
    not_used,
    source_notes,
    sources_not_found,
    stop_reason,
    unknown_names,
)
from cmrdata.cohorts.ukbb.cells import read_cells
from cmrdata.cohorts.ukbb.codes import EXCLUDING, HF, code_groups, prefixes
from cmrdata.cohorts.ukbb.columns import (
    AT_VISIT,
    CODE_DATES,
    CODES,
    EVER,
    FIRST_I50,
    ID,
    ID_NAMES,
    ILLNESS,
    VISIT,
    Key,
    field_title,
    parse_column,
    similar,
)
from cmrdata.cohorts.ukbb.diagnoses import Evidence, at_visit
from cmrdata.cohorts.ukbb.people import Fields, joined_words, person
from cmrdata.cohorts.ukbb.records import DIAGNOSIS_LEVELS, read_records
from cmrdata.cohorts.ukbb.sources import FURTHER_FIELDS, RECORDS, SOURCES, evidence

# state -> diagnosis; who got it later or at an unknown time has none
STATE_DIAGNOSES = {"prevalent": "hf", "none": "healthy"}
BLANK = " \t\r\n\x00\x1a,;|\"'\ufeff\u00a0"  # a line of these alone is empty
PEOPLE_COLUMNS = (
    "sex",
    "age",
    "bmi",
    "site",
    "ethnicity",
    "townsend",
    "visit",
    "table_flags",
    "state",
    "diagnosis",
    "first",
    "case_sources",
    "conditions",
)


class Table(NamedTuple):
    """What the tables say of the participants, and what in them was understood."""

    people: pd.DataFrame  # a row per participant, indexed by canonical id; PEOPLE_COLUMNS
    columns: pd.DataFrame  # as `column_report.columns_table`
    notes: list[str]
    everyone: frozenset[str]  # canonical ids in the tables, wanted or not
    stop: str  # why these people must not be used; empty where they may


def read_table(given: object, **options: Any) -> pd.DataFrame:
    """The people of `read_people`. Raises ValueError also where they must not be used, saying
    why."""
    table = read_people(given, **options)
    if table.stop:
        raise ValueError(table.stop)
    return table.people


def read_people(
    given: object,
    *,
    ids: Collection[str] | None = None,
    instance: int = 2,
    codes: str | Sequence[str] = "standard",
    without: Sequence[str] = (),
    source: str | Sequence[str] = "hospital",
    conditions: Sequence[str] = (),
    diagnoses: object = None,
    level: str = "all",
    tolerated: float = 0.05,
) -> Table:
    """The participants of one or several tables, or those in `ids`, at the visit `instance`: a row
    each.

    Args:
        given: path, list of paths or pattern of the tables, joined by id.
        ids: canonical ids of the participants wanted; None for all.
        instance: the visit whose columns count.
        codes: ICD-10 of heart failure, a preset's name or a list of beginnings of codes.
        without: ICD-10 that make somebody neither case nor control.
        source: one or several of SOURCES; a case has a date on or before the visit in any of them.
        conditions: further diseases to look for, of codes.CONDITION_CODES.
        diagnoses: record-level files, as records.read_records reads them: a further source.
        level: of the records: all, main or secondary.
        tolerated: share of the participants of whom something may be not understood.

    Returns:
        Columns of `people`: sex (F, M or None), age (years), bmi (kg/m2), site, ethnicity (as in
        the table), townsend, visit (date), table_flags (what stands in for age and BMI, and
        conditions that are unclear, joined by ";"), state of heart failure (see `at_visit`),
        diagnosis ("hf", "healthy"; None for other states and for who ever had a code of `without`),
        first (date of the first diagnosis), case_sources (of a case: the sources that say so,
        joined by ";"), conditions (those present at the visit, joined by ";"). Rows are in the
        order of the tables.

    Raises:
        FileNotFoundError and ValueError, naming a setting, field or line and no participant.
    """
    wanted = code_groups(codes, without=without, conditions=conditions)
    chosen = _sources(source, codes=codes, records=diagnoses is not None)
    if level not in DIAGNOSIS_LEVELS:
        raise ValueError(f"cohort.level is {level!r}; it takes {', '.join(DIAGNOSIS_LEVELS)}")
    tables = [
        open_table(
            path, setting="cohort.table", known=parse_column, identifier=ID, id_names=ID_NAMES
        )
        for path in table_paths(given, setting="cohort.table")
    ]
    used_sources = _looked_into(
        chosen, tables, records=diagnoses is not None, others=len(wanted) > 1
    )
    sought = {
        field for name in used_sources for field in (*SOURCES[name], *FURTHER_FIELDS.get(name, ()))
    }
    people, cells = read_cells(
        tables, lambda key: _is_used(key, sought, instance), identifier=ID, ids=ids
    )
    fields = Fields(people, cells, instance=instance)
    facts = person(fields)
    evidence_of = {}
    for name in used_sources:
        prefixes_of = {**wanted, HF: wanted[HF] if name in chosen else ()}
        evidence_of[name] = evidence(name, fields, prefixes_of, visit=facts["visit"])
    rows, notes = [*id_rows(tables, people), *fields.report], file_notes(tables, people, fields)
    if diagnoses is not None:
        records = read_records(diagnoses, names=people.names, prefixes_of=wanted, level=level)
        evidence_of[RECORDS], rows = records.evidence, [*rows, *records.report]
        notes += records.notes
    columns = {**facts, **_illness(list(wanted), evidence_of, facts)}
    table = pd.DataFrame(
        {
            name: pd.Series(columns[name], dtype=object if columns[name].dtype == object else None)
            for name in PEOPLE_COLUMNS
        }
    ).set_axis(pd.Index(people.names, name="id", dtype=object))
    missing = [
        *not_found(tables, fields, instance),
        *sources_not_found(chosen, used_sources),
        *not_used(tables, sought & fields.cells.keys()),
        *array_gaps(fields),
    ]
    notes += [*known_of_nobody(table), *source_notes(evidence_of, table)]
    stop = stop_reason(table, evidence_of, fields, instance=instance, tolerated=tolerated)
    return Table(table, columns_table([*rows, *missing]), notes, frozenset(people.everyone), stop)


def read_exclusions(path: str | Path) -> frozenset[str]:
    """Ids of participants who withdrew: the first cell of every line, or the id column where there
    is a header.

    Whatever is no id alone is refused, for who is overlooked here stays in the study; so is a
    second cell that looks like an id where no header tells what it is. Raises FileNotFoundError and
    ValueError naming the setting, the line and patterns, no id.
    """
    files = table_paths(path, setting="cohort.exclude")
    if len(files) > 1:
        raise ValueError(f"cohort.exclude={path}: names {len(files)} files; join them into one")
    lines = [
        (number, line)
        for number, line in enumerate(decoded(files[0], setting="cohort.exclude").splitlines(), 1)
        if line.strip(BLANK) and not re.match(r"\s*(#.*[^\W\d_]|sep=.\s*$)", line)
    ]
    delimiter = next((mark for mark in "\t;,|" if any(mark in line for _, line in lines)), ",")
    rows = [(number, line, _cells_of(line, delimiter)) for number, line in lines]
    place, width = 0, 0  # of the ids, and how many columns a header names
    while rows and (headers := [k for k, cell in enumerate(rows[0][2]) if _is_id_name(cell)]):
        place, width, rows = headers[0], len(rows[0][2]), rows[1:]
    if rows and not width and not re.search(r"\d", rows[0][2][0]):
        heading, rows = rows[0][2], rows[1:]
        later = [k for k, cell in enumerate(rows[0][2]) if _is_id_name(cell)] if rows else []
        if later:
            place, width, rows = later[0], len(rows[0][2]), rows[1:]
        elif len(heading) > 1 and not heading[0]:
            raise ValueError(
                f"cohort.exclude={path}: its first column has no name, as row numbers have none; "
                "name the ids eid"
            )
    identifiers = set()
    for number, line, row in rows:
        if re.fullmatch(r"\d{1,3}(,\d{3})+", line.strip().strip("\"'")):
            raise ValueError(
                f"cohort.exclude={path}: an id has thousands separators; write ids as they are in "
                "the table"
            )
        cell = row[place] if len(row) > place else ""
        identifiers.add(name := _withdrawn_id(cell, where=f"cohort.exclude={path}", number=number))
        others = row[max(width, place + 1) :]
        if name and any(id_pattern(other) == id_pattern(name) for other in others):
            raise ValueError(
                f"cohort.exclude={path}: line {number} holds several cells of {id_pattern(name)}; "
                "write one id in each line, or a header that names the ids eid"
            )
    return frozenset(identifiers) - {""}


def _cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of a line, quotes kept within it: one that is not closed swallows no further
    lines."""
    try:
        return [
            cell.strip()
            for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
        ]
    except (csv.Error, StopIteration):
        return [cell.strip() for cell in line.split(delimiter)]


def _is_id_name(cell: str) -> bool:
    return parse_column(cell) == ID or cell.strip(QUOTES).strip().lower() in (
        "id",
        "ids",
        "participant",
        "participants",
    )


def _withdrawn_id(cell: str, *, where: str, number: int) -> str:
    try:
        name = canonical_id(cell)
    except UnclearId as error:
        raise ValueError(f"{where}: an id {error}") from None
    if name and not re.fullmatch(r"-?[^\W_]+", name):
        raise ValueError(
            f"{where}: line {number} is no id alone ({id_pattern(name)[:80]}); write one id in "
            "each line, and what else is known of it behind a comma"
        )
    return name


# ---- which columns


def _sources(
    source: str | Sequence[str], *, codes: str | Sequence[str], records: bool
) -> list[str]:
    """The sources asked for, each once. Raises ValueError naming the setting."""
    chosen = list(dict.fromkeys([source] if isinstance(source, str) else source))
    if not chosen or not set(chosen) <= set(SOURCES):
        raise ValueError(f"source is {source!r}; give one or several of {', '.join(SOURCES)}")
    hf, narrow = prefixes(codes), prefixes("narrow")
    if chosen == ["first_occurrence"] and not records and hf != narrow:
        raise ValueError(
            f"source is first_occurrence, which knows I50 alone, and codes is {codes!r}; give "
            "codes=narrow or further sources, as in source=[hospital,first_occurrence]"
        )
    if "first_occurrence" in chosen and not set(narrow) <= set(hf):
        raise ValueError(
            f"source names first_occurrence, which knows I50 alone, and codes is {codes!r} "
            "without I50; leave out either"
        )
    return chosen


def _looked_into(
    asked: list[str], tables: Sequence[TableFile], *, records: bool, others: bool
) -> list[str]:
    """The sources to read: those asked for that the tables have, and the hospitals' where other
    diseases are looked for.

    Raises ValueError naming a field when there is none, or codes without their dates.
    """
    every = {field for name in SOURCES for field in (*SOURCES[name], *FURTHER_FIELDS.get(name, ()))}
    keys = [key for table in tables for key in table.keys if key]
    fields_there = {key[0] for key in keys if _is_used(key, every, instance=0)}  # type: ignore[arg-type, index]
    complete = [name for name in asked if set(SOURCES[name]) <= fields_there]
    needed: set[str] = set()
    if others and not records:
        needed |= set(SOURCES["hospital"])
    if not complete and not records:
        needed |= set(SOURCES[asked[0]])
    if "hospital" in asked and fields_there & set(SOURCES["hospital"]):
        needed |= set(SOURCES["hospital"])
    for field in sorted(needed - fields_there):
        named = similar(field, unknown_names(tables))
        raise ValueError(
            f"cohort.table={', '.join(str(table.path) for table in tables)}: no column of field "
            f"{field} ({field_title(field)}), which diagnoses need. Add it, with every array "
            f"index it has, as f.{field}.0.0, {field}-0.0, X{field}.0.0, p{field}, s_{field}_0_0 "
            f"or {field_title(field)!r}"
            + (f"; is it the column {shown_name(named)!r}, then rename that" if named else "")
        )
    return (
        [*complete, "hospital"]
        if others and not records and "hospital" not in complete
        else complete
    )


def _is_used(key: Key, sought: Collection[str], instance: int) -> bool:
    """Whether a column is read: of people, or of the sources' fields that are `sought`."""
    field, at, array = key
    if field in sought:
        once = field in (CODES, CODE_DATES, FIRST_I50)
        return at < 10 and array < 10_000 and (at == 0 or not once)
    here = (field in EVER and at == 0) or (field in AT_VISIT and at == instance)
    any_visit = field == "21000" or (field == VISIT and ILLNESS in sought)
    return array == 0 and (here or any_visit or (field == "21001" and at == 0))


def _illness(
    names: Sequence[str], evidence_of: Mapping[str, Evidence], facts: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the sources say of people at their visit, for each group of codes."""
    visit = facts["visit"]
    row, mark, when = (np.concatenate([of[k] for of in evidence_of.values()]) for k in range(3))
    unclear = np.bitwise_or.reduce([of.unclear for of in evidence_of.values()])

    def of_group(bit: int) -> tuple[np.ndarray, np.ndarray]:
        mine = mark >> bit & 1 == 1
        return at_visit(row[mine], when[mine], visit, unclear >> bit & 1 == 1)

    state, first = of_group(0)
    diagnosis = np.array([STATE_DIAGNOSES.get(one) for one in state], object)
    if EXCLUDING in names:
        bit = names.index(EXCLUDING)
        diagnosis[row[mark >> bit & 1 == 1]] = None
        diagnosis[unclear >> bit & 1 == 1] = None
    present_of, flags = [], [facts["table_flags"]]
    for name in (name for name in CONDITIONS if name in names):
        states, _ = of_group(names.index(name))
        present_of.append(np.where(states == "prevalent", name, ""))
        flags.append(np.where(states == "unknown", f"{name}_unclear", ""))
    by = []
    for name, of in evidence_of.items():
        early = (of.mark & 1 == 1) & (of.when <= visit[of.person])
        by.append(
            np.where(
                (np.bincount(of.person[early], minlength=len(visit)) > 0) & (state == "prevalent"),
                name,
                "",
            )
        )
    sources = joined_words(by, len(visit))
    sources[sources == ""] = None
    return {
        "state": state,
        "diagnosis": diagnosis,
        "first": first,
        "conditions": joined_words(present_of, len(visit)),
        "case_sources": sources,
        "table_flags": joined_words(flags, len(visit)),
    }
