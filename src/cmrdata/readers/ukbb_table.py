"""Tables of UK Biobank participants: who they are at an imaging visit, and whether their heart had failed by then.

Beside the people comes an account of every column in use, of what was wanted and not found, and whether labels made of
it would mean anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrdata.cohort import CONDITIONS
from cmrdata.readers.column_report import missing_row, report
from cmrdata.readers.ids import UnclearId, canonical_id
from cmrdata.readers.table_files import TableFile, decoded, open_table, table_paths
from cmrdata.readers.ukbb_cells import People, collect
from cmrdata.readers.ukbb_codes import EXCLUDING, HF, groups, prefixes
from cmrdata.readers.ukbb_columns import (
    AT_VISIT,
    CODE_DATES,
    CODES,
    EVER,
    FIRST_I50,
    ID,
    ID_NAMES,
    ILLNESS,
    USES,
    VISIT,
    WITHOUT,
    Key,
    field_name,
    parse_column,
    similar,
    title_of,
)
from cmrdata.readers.ukbb_diagnoses import Evidence, at_visit
from cmrdata.readers.ukbb_people import Fields, joined, person
from cmrdata.readers.ukbb_records import LEVELS, read_records
from cmrdata.readers.ukbb_sources import FURTHER, RECORDS, SOURCES, evidence

DIAGNOSIS = {"prevalent": "hf", "none": "healthy"}  # of a state; who got it later or at an unknown time has none
MANY = 100  # participants of whom some have a diagnosis, in any table that holds diagnoses
FULL = 0.05  # share of participants who fill the last column of an array: above, it was cut
PEOPLE_COLUMNS = ("sex", "age", "bmi", "site", "ethnicity", "townsend", "visit", "table_flags", "state", "diagnosis",
                  "first", "case_sources", "conditions")  # fmt: skip
PRIMARY = ("31", "34", "52", VISIT, "54", "21000", "21001", "22189")  # fields that are told where they are not found
STAND_INS = {"34": ("21003",), "52": ("21003",), "22189": ("189",), "21001": ("21002", "12143", "23104")}


class Table(NamedTuple):
    """What the tables say of the participants, and what in them was understood."""

    people: pd.DataFrame  # a row per participant, indexed by canonical id; PEOPLE_COLUMNS
    columns: pd.DataFrame  # as `column_report.report`
    notes: list[str]
    everyone: frozenset[str]  # canonical ids in the tables, wanted or not
    stop: str  # why these people must not be used; empty where they may


def read_table(given: object, **options: Any) -> pd.DataFrame:
    """The people of `read_people`. Raises ValueError also where they must not be used, saying why."""
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
    """The participants of one or several tables, or those in `ids`, at the visit `instance`: a row each.

    Args:
        given: path, list of paths or pattern of the tables, joined by id.
        ids: canonical ids of the participants wanted; None for all.
        instance: the visit whose columns count.
        codes: ICD-10 of heart failure, a preset's name or a list of beginnings of codes.
        without: ICD-10 that make somebody neither case nor control.
        source: one or several of SOURCES; a case has a date on or before the visit in any of them.
        conditions: further diseases to look for, of `ukbb_codes.CONDITION_CODES`.
        diagnoses: record-level files (`ukbb_records`), a further source.
        level: of the records: all, main or secondary.
        tolerated: share of the participants of whom something may be not understood.

    Returns:
        Columns of `people`: sex (F, M or None), age (years), bmi (kg/m2), site, ethnicity (as in the table), townsend,
        visit (date), table_flags (what stands in for age and BMI, and conditions that are unclear, joined by ";"), state
        of heart failure (see `at_visit`), diagnosis ("hf", "healthy"; None for other states and for who ever had a code
        of `without`), first (date of the first diagnosis), case_sources (of a case: the sources that say so, joined by
        ";"), conditions (those present at the visit, joined by ";"). Rows are in the order of the tables.

    Raises:
        FileNotFoundError and ValueError, naming a setting, field or line and no participant.
    """
    wanted = groups(codes, without=without, conditions=conditions)
    asked = _sources(source, codes=codes, records=diagnoses is not None)
    if level not in LEVELS:
        raise ValueError(f"cohort.level is {level!r}; it takes {', '.join(LEVELS)}")
    tables = [
        open_table(path, setting="cohort.table", known=parse_column, identifier=ID, id_names=ID_NAMES)
        for path in table_paths(given, setting="cohort.table")
    ]
    look = _looked_into(asked, tables, records=diagnoses is not None, others=len(wanted) > 1)
    sought = {field for name in look for field in (*SOURCES[name], *FURTHER.get(name, ()))}
    people, cells = collect(tables, lambda key: _is_used(key, sought, instance), identifier=ID, ids=ids)
    fields = Fields(people, cells, instance=instance)
    facts = person(fields)
    said = {}
    for name in look:
        prefixes_of = {**wanted, HF: wanted[HF] if name in asked else ()}
        said[name] = evidence(name, fields, prefixes_of, visit=facts["visit"])
    rows, notes = [*_id_rows(tables, people), *fields.report], _file_notes(tables, people, fields)
    if diagnoses is not None:
        records = read_records(diagnoses, names=people.names, prefixes_of=wanted, level=level)
        said[RECORDS], rows = records.evidence, [*rows, *records.report]
        notes += records.notes
    columns = {**facts, **_illness(list(wanted), said, facts)}
    table = pd.DataFrame(
        {name: pd.Series(columns[name], dtype=object if columns[name].dtype == object else None)
         for name in PEOPLE_COLUMNS}
    ).set_axis(pd.Index(people.names, name="id", dtype=object))  # fmt: skip
    missing = [*_not_found(tables, fields, instance), *_sources_not_found(asked, look), *_array_gaps(fields)]
    notes += [*_nobody(table), *_source_notes(said, table)]
    stop = _stop(table, said, fields, instance=instance, tolerated=tolerated)
    return Table(table, report([*rows, *missing]), notes, frozenset(people.everyone), stop)


def read_exclusions(path: str | Path) -> frozenset[str]:
    """Ids of participants who withdrew: the first cell of every line, or the id column where there is a header.

    Raises FileNotFoundError and ValueError naming the setting.
    """
    (path,) = table_paths(path, setting="cohort.exclude")
    lines = [line for line in decoded(path, setting="cohort.exclude").splitlines() if line.strip()]
    delimiter = next((mark for mark in "\t;," if lines and mark in lines[0]), ",")
    rows = [[cell.strip() for cell in line.split(delimiter)] for line in lines]
    first = [parse_column(cell) for cell in rows[0]] if rows else []
    place = first.index(ID) if ID in first else 0
    if rows and (ID in first or not re.search(r"\d", rows[0][0])):
        rows, lines = rows[1:], lines[1:]
    found = set()
    for line, row in zip(lines, rows, strict=True):
        try:
            if re.fullmatch(r"\d{1,3}(,\d{3})+", line.strip().strip("\"'")):
                raise UnclearId("has thousands separators; write ids as they are in the table")
            found.add(canonical_id(row[place]) if len(row) > place else "")
        except UnclearId as error:
            raise ValueError(f"cohort.exclude={path}: an id {error}") from None
    return frozenset(found) - {""}


# ---- which columns


def _sources(source: str | Sequence[str], *, codes: str | Sequence[str], records: bool) -> list[str]:
    """The sources asked for, each once. Raises ValueError naming the setting."""
    asked = list(dict.fromkeys([source] if isinstance(source, str) else source))
    if not asked or not set(asked) <= set(SOURCES):
        raise ValueError(f"source is {source!r}; give one or several of {', '.join(SOURCES)}")
    hf, narrow = prefixes(codes), prefixes("narrow")
    if asked == ["first_occurrence"] and not records and hf != narrow:
        raise ValueError(
            f"source is first_occurrence, which knows I50 alone, and codes is {codes!r}; give codes=narrow or further "
            "sources, as in source=[hospital,first_occurrence]"
        )
    if "first_occurrence" in asked and not set(narrow) <= set(hf):
        raise ValueError(
            f"source names first_occurrence, which knows I50 alone, and codes is {codes!r} without I50; leave out either"
        )
    return asked


def _looked_into(asked: list[str], tables: Sequence[TableFile], *, records: bool, others: bool) -> list[str]:
    """The sources to read: those asked for that the tables have, and the hospitals' where other diseases are looked for.

    Raises ValueError naming a field when there is none, or codes without their dates.
    """
    there = {key[0] for table in tables for key in table.keys if key}  # type: ignore[index]
    found = [name for name in asked if set(SOURCES[name]) <= there]
    needed: set[str] = set()
    if others and not records:
        needed |= set(SOURCES["hospital"])
    if not found and not records:
        needed |= set(SOURCES[asked[0]])
    if "hospital" in asked and there & set(SOURCES["hospital"]):
        needed |= set(SOURCES["hospital"])
    for field in sorted(needed - there):
        named = similar(field, _unknown_names(tables))
        raise ValueError(
            f"cohort.table={', '.join(str(table.path) for table in tables)}: no column of field {field} "
            f"({title_of(field)}), which diagnoses need. Add it, with every array index it has, as f.{field}.0.0, "
            f"{field}-0.0, X{field}.0.0, p{field}, s_{field}_0_0 or {title_of(field)!r}"
            + (f"; is it the column {named!r}, then rename that" if named else "")
        )
    return [*found, "hospital"] if others and not records and "hospital" not in found else found


def _is_used(key: Key, sought: Collection[str], instance: int) -> bool:
    """Whether a column is read: of people, or of the sources' fields that are `sought`."""
    field, at, array = key
    if field in sought:
        once = field in (CODES, CODE_DATES, FIRST_I50)
        return at < 10 and array < 10_000 and (at == 0 or not once)
    here = (field in EVER and at == 0) or (field in AT_VISIT and at == instance)
    any_visit = field == "21000" or (field == VISIT and ILLNESS in sought)
    return array == 0 and (here or any_visit or (field == "21001" and at == 0))


def _unknown_names(tables: Sequence[TableFile]) -> list[str]:
    return [name for table in tables for name, key in zip(table.names, table.keys, strict=True) if key is None]


# ---- what was understood, and what was not found


def _id_rows(tables: Sequence[TableFile], people: People) -> list[dict[str, object]]:
    return [
        {"file": table.path.name, "column": table.names[table.keys.index(ID)], "field": "eid", "used_for": USES["eid"],
         "rows": rows, "understood": rows, "missing": 0, "not_understood": 0, "example": "", "note": "; ".join(table.notes)}
        for table, rows in zip(tables, people.rows, strict=True)
    ]  # fmt: skip


def _file_notes(tables: Sequence[TableFile], people: People, fields: Fields) -> list[str]:
    notes = [f"{table.path.name} {note}" for table in tables for note in table.notes]
    if people.repeated:
        notes.append(f"{people.repeated} rows repeat a participant of the same table; what they say alike is used")
    for field, count in fields.differing.items():
        if count:
            notes.append(f"field {field} ({title_of(field)}): {count} participants have cells that disagree; left out")
    return notes


def _not_found(tables: Sequence[TableFile], fields: Fields, instance: int) -> list[dict[str, object]]:
    """A row for each field of people that was wanted and is in no file: what follows, and what may be it."""
    keys = [key for table in tables for key in table.keys if key]
    unknown = _unknown_names(tables)
    rows = []
    for field in PRIMARY:
        at = 0 if field in (*EVER, "21000") else instance
        if field in fields.cells and (field == "21000" or at in fields.instances(field)):
            continue
        use = USES[field]
        others = [other for other, of in USES.items() if of == use and other != field]
        replaced = [other for other in STAND_INS.get(field, ()) if other in fields.cells]
        words = [f"field {field} ({title_of(field)})" + (f" of visit {at}" if field in AT_VISIT else "") + " not found"]
        if replaced:
            words.append(f"{', '.join(replaced)} stand in" if len(replaced) > 1 else f"{replaced[0]} stands in")
        elif not any(other in fields.cells for other in others) or use not in ("age", "BMI"):
            words.append(WITHOUT[use])
        elsewhere = sorted({key[1] for key in keys if key[0] == field} - {at})  # type: ignore[index]
        if elsewhere and field != "21000":
            words.append(f"only of visit {', '.join(map(str, elsewhere))} (cohort.instance)")
        elif name := similar(field, unknown):
            words.append(f"did you mean the column {name!r}? Then name it {field_name((field, at, 0))}")
        rows.append(missing_row(field_name((field, at, 0)), use, "; ".join(words)))
    return rows


def _sources_not_found(asked: Sequence[str], look: Sequence[str]) -> list[dict[str, object]]:
    rows = []
    for name in asked:
        if name not in look:
            field = SOURCES[name][0]
            note = f"field {field} ({title_of(field)}) not found; the source {name} is left out"
            rows.append(missing_row(f"{field}-0.0", f"diagnoses ({name})", note))
    return rows


def _array_gaps(fields: Fields) -> list[dict[str, object]]:
    """Rows for columns of the hospitals' arrays that lack their partner, or are missing between others."""
    there = {field: {column.key[2] for part in fields.cells.get(field, ()) for column in part.columns}
             for field in (CODES, CODE_DATES)}  # fmt: skip
    if len(there[CODES]) < 2 and len(there[CODE_DATES]) < 2:
        return []
    rows = []
    apart = len(there[CODES]) > 1 and len(there[CODE_DATES]) > 1
    for field, other, what in ((CODES, CODE_DATES, "such a date makes its participant unknown"),
                               (CODE_DATES, CODES, "such a diagnosis has no date")):  # fmt: skip
        if apart and (lacking := there[other] - there[field]):
            note = (
                f"field {field} lacks {len(lacking)} of the {len(there[other])} columns that field {other} has: {what}"
            )
            rows.append(missing_row(f"{field}-0.{min(lacking)}", USES[field], note))
        if inside := set(range(max(there[field], default=0))) - there[field]:
            note = f"field {field} lacks {len(inside)} columns before its last one, the first with array index {min(inside)}"
            rows.append(missing_row(f"{field}-0.{min(inside)}", USES[field], note))
    return rows


def _nobody(table: pd.DataFrame) -> list[str]:
    """What is known of nobody."""
    names = {"sex": "a sex", "age": "an age", "bmi": "a BMI"}
    return [f"nobody has {words}" for name, words in names.items() if len(table) and table[name].isna().all()]


def _source_notes(said: Mapping[str, Evidence], table: pd.DataFrame) -> list[str]:
    """Cases by source and by combination of sources; participants whose diagnoses are unclear, by reason."""
    notes = []
    if len(said) > 1:
        alone = {
            name: int(table.case_sources.map(lambda text, name=name: name in (text or "").split(";")).sum())
            for name in said
        }
        notes.append("cases by source: " + ", ".join(f"{name} {count}" for name, count in alone.items()))
        together = table.case_sources.dropna().value_counts()
        notes.append(
            "cases by combination: " + ", ".join(f"{name.replace(';', ' + ')} {n}" for name, n in together.items())
        )
    for name, of in said.items():
        for why, who in of.reasons.items():
            if count := int(who.sum()):
                notes.append(f"{name}: {count} participant{'s' * (count > 1)} unclear ({why})")
        ill = of.mark & 1 == 1
        if count := len(np.unique(of.person[ill & np.isnat(of.when)])):
            notes.append(f"{name}: {count} participant{'s' * (count > 1)} diagnosed at no known time")
    return notes


def _illness(
    names: Sequence[str], said: Mapping[str, Evidence], facts: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the sources say of people at their visit, for each group of codes."""
    visit = facts["visit"]
    row, mark, when = (np.concatenate([of[k] for of in said.values()]) for k in range(3))
    unclear = np.bitwise_or.reduce([of.unclear for of in said.values()])

    def of_group(bit: int) -> tuple[np.ndarray, np.ndarray]:
        mine = mark >> bit & 1 == 1
        return at_visit(row[mine], when[mine], visit, unclear >> bit & 1 == 1)

    state, first = of_group(0)
    diagnosis = np.array([DIAGNOSIS.get(one) for one in state], object)
    if EXCLUDING in names:
        bit = names.index(EXCLUDING)
        diagnosis[row[mark >> bit & 1 == 1]] = None
        diagnosis[unclear >> bit & 1 == 1] = None
    had, flags = [], [facts["table_flags"]]
    for name in (name for name in CONDITIONS if name in names):
        found, _ = of_group(names.index(name))
        had.append(np.where(found == "prevalent", name, ""))
        flags.append(np.where(found == "unknown", f"{name}_unclear", ""))
    by = []
    for name, of in said.items():
        early = (of.mark & 1 == 1) & (of.when <= visit[of.person])
        by.append(
            np.where((np.bincount(of.person[early], minlength=len(visit)) > 0) & (state == "prevalent"), name, "")
        )
    sources = joined(by, len(visit))
    sources[sources == ""] = None
    return {"state": state, "diagnosis": diagnosis, "first": first, "conditions": joined(had, len(visit)),
            "case_sources": sources, "table_flags": joined(flags, len(visit))}  # fmt: skip


# ---- whether labels would mean anything


def _stop(table: pd.DataFrame, said: Mapping[str, Evidence], fields: Fields, *, instance: int, tolerated: float) -> str:
    """Why these people must not be used, in a sentence with the remedy; empty where they may."""
    count = len(table)
    if not count:
        return ""
    state = table.state.to_numpy()
    unclear = (np.bitwise_or.reduce([of.unclear for of in said.values()]) & 1 == 1) & (state == "unknown")
    limit = f"more than cohort.max_rejected={tolerated:g}; columns.csv and the notes of experiment=inspect tell which"
    if unclear.sum() > tolerated * count:
        why = {
            f"{name}: {reason}": int((who & unclear).sum())
            for name, of in said.items()
            for reason, who in of.reasons.items()
        }
        shown = "; ".join(f"{n} {reason}" for reason, n in sorted(why.items(), key=lambda item: -item[1]) if n)
        seen = _examples(fields, ("41270", "20002", "40001", "40002", "131354"))
        return f"cohort.table: the diagnoses of {unclear.sum()} of {count} participants are not understood whole ({shown}){seen}, {limit}"
    for field in ("31", VISIT):
        if (odd := int(fields.unclear.get(field, np.zeros(0, bool)).sum())) > tolerated * count:
            seen = _examples(fields, (field,))
            return (f"cohort.table: field {field} ({title_of(field)}) is not understood, or not the same everywhere, of "
                    f"{odd} of {count} participants{seen}, {limit}")  # fmt: skip
    for field, odd in fields.differing.items():
        if odd > tolerated * count:
            return (f"cohort.table: cells of field {field} ({title_of(field)}) disagree for {odd} of {count} participants, "
                    f"between tables, lines or columns; keep one. Titles that two fields share are told apart by exporting field codes instead")  # fmt: skip
    marked = np.concatenate([of.person[of.mark & 1 == 1] for of in said.values()])
    if len(marked) and instance not in fields.instances(VISIT):
        return (f"cohort.table: field {VISIT} ({title_of(VISIT)}) of visit {instance} not found, so that none of "
                f"{len(np.unique(marked))} participants with heart failure is known to have had it at the visit; add "
                f"{VISIT}-{instance}.0 or choose another cohort.instance")  # fmt: skip
    return _empty_or_cut(said, fields, count)


def _examples(fields: Fields, wanted: Collection[str]) -> str:
    """The pattern of a cell that is not understood, and its column."""
    rows = [row for row in fields.report if str(row["field"]).split("-")[0] in wanted and row["not_understood"]]
    if not rows:
        return ""
    worst = max(rows, key=lambda row: int(str(row["not_understood"])))
    return f", e.g. {worst['example']} in column {str(worst['column']).strip()!r} ({worst['note']})"


def _empty_or_cut(said: Mapping[str, Evidence], fields: Fields, count: int) -> str:
    parts = fields.cells.get(CODES, ())
    if list(said) == ["hospital"] and count >= MANY and not any(len(part.text) for part in parts):
        return f"cohort.table: field {CODES} ({title_of(CODES)}) is empty for all {count} participants; export it again"
    for part in parts:
        last = max(range(len(part.columns)), key=lambda place: part.columns[place].key[2])
        filled = int((part.column == last).sum())
        if len(part.columns) > 1 and count >= MANY and filled > FULL * count:
            return (f"cohort.table: field {CODES} seems cut: {filled} of {count} participants fill its last column, "
                    f"{part.columns[last].name.strip()!r}; export every array index")  # fmt: skip
    return ""
