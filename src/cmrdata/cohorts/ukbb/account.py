"""What is told of UK Biobank tables: what was wanted and not found, who is unclear and why, and
when a study must stop."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from cmrdata.cohorts.reading.column_report import missing_row, shown_name
from cmrdata.cohorts.reading.table_files import TableFile
from cmrdata.cohorts.ukbb.cells import People
from cmrdata.cohorts.ukbb.columns import (
    AT_VISIT,
    CODE_DATES,
    CODES,
    EVER,
    ID,
    USES,
    VISIT,
    WITHOUT,
    field_name,
    field_title,
    names_field,
    similar,
)
from cmrdata.cohorts.ukbb.diagnoses import Evidence
from cmrdata.cohorts.ukbb.people import Fields
from cmrdata.cohorts.ukbb.sources import SOURCES
from cmrdata.counting import number_of

# participants of whom some have a diagnosis, in any table that holds diagnoses
MANY_PARTICIPANTS = 100
# share of participants who fill the last column of an array: above, it was cut
LAST_COLUMN_FULL = 0.05
# fields that are told where they are not found
PRIMARY = ("31", "34", "52", VISIT, "54", "21000", "21001", "22189")
STAND_INS = {
    "34": ("21003",),
    "52": ("21003",),
    "22189": ("189",),
    "21001": ("21002", "12143", "23104"),
}


def unknown_names(tables: Sequence[TableFile]) -> list[str]:
    return [
        name
        for table in tables
        for name, key in zip(table.names, table.keys, strict=True)
        if key is None
    ]


def id_rows(tables: Sequence[TableFile], people: People) -> list[dict[str, object]]:
    return [
        {
            "file": table.path.name,
            "column": shown_name(table.names[table.keys.index(ID)]),
            "field": "eid",
            "used_for": USES["eid"],
            "rows": rows,
            "understood": rows,
            "missing": 0,
            "not_understood": 0,
            "example": "",
            "note": "; ".join(table.notes),
        }
        for table, rows in zip(tables, people.rows, strict=True)
    ]


def file_notes(tables: Sequence[TableFile], people: People, fields: Fields) -> list[str]:
    notes = [f"{table.path.name} {note}" for table in tables for note in table.notes]
    if people.repeated:
        notes.append(
            f"{number_of(people.repeated, 'rows', 'repeat')} a participant of the same table; "
            "what they say alike is used"
        )
    for field, count in fields.differing.items():
        if count:
            notes.append(
                f"field {field} ({field_title(field)}): "
                f"{number_of(count, 'participants', 'have')} cells that disagree; left out"
            )
    return notes


def not_found(
    tables: Sequence[TableFile], fields: Fields, instance: int
) -> list[dict[str, object]]:
    """A row for each field of people that was wanted and is in no file: what follows, and what may
    be it."""
    keys = [key for table in tables for key in table.keys if key]
    unknown = unknown_names(tables)
    rows = []
    for field in PRIMARY:
        at = 0 if field in (*EVER, "21000") else instance
        if field in fields.cells and (field == "21000" or at in fields.instances(field)):
            continue
        use = USES[field]
        others = [other for other, of in USES.items() if of == use and other != field]
        replaced = [other for other in STAND_INS.get(field, ()) if other in fields.cells]
        words = [
            f"field {field} ({field_title(field)})"
            + (f" of visit {at}" if field in AT_VISIT else "")
            + " not found"
        ]
        if replaced:
            words.append(
                f"{', '.join(replaced)} stand in"
                if len(replaced) > 1
                else f"{replaced[0]} stands in"
            )
        elif not any(other in fields.cells for other in others) or use not in ("age", "BMI"):
            words.append(WITHOUT[use])
        elsewhere = sorted({key[1] for key in keys if key[0] == field} - {at})  # type: ignore[index]
        if elsewhere and field != "21000":
            words.append(f"only of visit {', '.join(map(str, elsewhere))} (cohort.instance)")
        elif name := similar(field, unknown):
            words.append(
                f"did you mean the column {shown_name(name)!r}? Then name it "
                f"{field_name((field, at, 0))}"
            )
        rows.append(missing_row(field_name((field, at, 0)), use, "; ".join(words)))
    return rows


def not_used(tables: Sequence[TableFile], sought: Collection[str]) -> list[dict[str, object]]:
    """A row for each field of the sources `sought` of which columns are there in a spelling that
    isn't known."""
    unknown = unknown_names(tables)
    rows = []
    for field in sorted(sought):
        if alike := [name for name in unknown if names_field(name, field)]:
            note = (
                f"{number_of(len(alike), 'columns')} spelled like field {field}, not used, e.g. "
                f"{shown_name(alike[0])!r}"
            )
            rows.append(missing_row(f"{field}-0.0", USES[field], note))
    return rows


def sources_not_found(asked: Sequence[str], look: Sequence[str]) -> list[dict[str, object]]:
    rows = []
    for name in asked:
        if name not in look:
            field = SOURCES[name][0]
            note = f"field {field} ({field_title(field)}) not found; the source {name} is left out"
            rows.append(missing_row(f"{field}-0.0", f"diagnoses ({name})", note))
    return rows


def array_gaps(fields: Fields) -> list[dict[str, object]]:
    """Rows for columns of the hospitals' arrays that lack their partner, or are missing between
    others."""
    indices = {
        field: {column.key[2] for part in fields.cells.get(field, ()) for column in part.columns}
        for field in (CODES, CODE_DATES)
    }
    if len(indices[CODES]) < 2 and len(indices[CODE_DATES]) < 2:
        return []
    rows = []
    apart = len(indices[CODES]) > 1 and len(indices[CODE_DATES]) > 1
    for field, other, what in (
        (CODES, CODE_DATES, "such a date makes its participant unknown"),
        (CODE_DATES, CODES, "such a diagnosis has no date"),
    ):
        if apart and (lacking := indices[other] - indices[field]):
            note = (
                f"field {field} lacks {len(lacking)} of the {len(indices[other])} columns that "
                f"field {other} has: {what}"
            )
            rows.append(missing_row(f"{field}-0.{min(lacking)}", USES[field], note))
        if inside := set(range(max(indices[field], default=0))) - indices[field]:
            note = (
                f"field {field} lacks {number_of(len(inside), 'columns')} before its last one, "
                f"the first with array index {min(inside)}"
            )
            rows.append(missing_row(f"{field}-0.{min(inside)}", USES[field], note))
    return rows


def known_of_nobody(table: pd.DataFrame) -> list[str]:
    """What is known of nobody."""
    names = {"sex": "a sex", "age": "an age", "bmi": "a BMI"}
    return [
        f"nobody has {words}"
        for name, words in names.items()
        if len(table) and table[name].isna().all()
    ]


def source_notes(evidence_of: Mapping[str, Evidence], table: pd.DataFrame) -> list[str]:
    """Cases by source and by combination of sources; participants whose diagnoses are unclear, by
    reason."""
    notes = []
    if len(evidence_of) > 1:
        alone = {
            name: int(
                table.case_sources.map(
                    lambda text, name=name: name in (text or "").split(";")
                ).sum()
            )
            for name in evidence_of
        }
        notes.append(
            "cases by source: " + ", ".join(f"{name} {count}" for name, count in alone.items())
        )
        together = table.case_sources.dropna().value_counts()
        notes.append(
            "cases by combination: "
            + ", ".join(f"{name.replace(';', ' + ')} {n}" for name, n in together.items())
        )
    for name, of in evidence_of.items():
        for why, who in of.reasons.items():
            if count := int(who.sum()):
                notes.append(f"{name}: {count} participant{'s' * (count > 1)} unclear ({why})")
        ill = of.mark & 1 == 1
        if count := len(np.unique(of.person[ill & np.isnat(of.when)])):
            notes.append(
                f"{name}: {count} participant{'s' * (count > 1)} diagnosed at no known time"
            )
    return notes


# ---- whether labels would mean anything


def stop_reason(
    table: pd.DataFrame,
    evidence_of: Mapping[str, Evidence],
    fields: Fields,
    *,
    instance: int,
    tolerated: float,
) -> str:
    """Why these people must not be used, in a sentence with the remedy; empty where they may."""
    count = len(table)
    if not count:
        return ""
    state = table.state.to_numpy()
    unclear = (np.bitwise_or.reduce([of.unclear for of in evidence_of.values()]) & 1 == 1) & (
        state == "unknown"
    )
    limit = (
        f"more than cohort.max_rejected={tolerated:g}; columns.csv and the notes of "
        "experiment=inspect tell which"
    )
    if unclear.sum() > tolerated * count:
        why = {
            f"{name}: {reason}": int((who & unclear).sum())
            for name, of in evidence_of.items()
            for reason, who in of.reasons.items()
        }
        reasons = "; ".join(
            f"{n} {reason}" for reason, n in sorted(why.items(), key=lambda item: -item[1]) if n
        )
        examples = _examples(fields, ("41270", "20002", "40001", "40002", "131354"))
        return (
            f"cohort.table: the diagnoses of {unclear.sum()} of {count} participants are not "
            f"understood whole ({reasons}){examples}, {limit}"
        )
    for field in ("31", VISIT):
        if (odd := int(fields.unclear.get(field, np.zeros(0, bool)).sum())) > tolerated * count:
            examples = _examples(fields, (field,))
            return (
                f"cohort.table: field {field} ({field_title(field)}) is not understood, or not "
                f"the same everywhere, of {odd} of {count} participants{examples}, {limit}"
            )
    for field, odd in fields.differing.items():
        if odd > tolerated * count:
            return (
                f"cohort.table: cells of field {field} ({field_title(field)}) disagree for {odd} "
                f"of {count} participants, between tables, lines or columns; keep one. Titles "
                "that two fields share are told apart by exporting field codes instead"
            )
    marked = np.concatenate([of.person[of.mark & 1 == 1] for of in evidence_of.values()])
    if len(marked) and instance not in fields.instances(VISIT):
        return (
            f"cohort.table: field {VISIT} ({field_title(VISIT)}) of visit {instance} not found, "
            f"so that none of {len(np.unique(marked))} participants with heart failure is known "
            f"to have had it at the visit; add {VISIT}-{instance}.0 or choose another "
            "cohort.instance"
        )
    return _empty_or_cut(evidence_of, fields, count)


def _examples(fields: Fields, wanted: Collection[str]) -> str:
    """The pattern of a cell that is not understood, and its column."""
    rows = [
        row
        for row in fields.report
        if str(row["field"]).split("-")[0] in wanted and row["not_understood"]
    ]
    if not rows:
        return ""
    worst = max(rows, key=lambda row: int(str(row["not_understood"])))
    return f", e.g. {worst['example']} in column {str(worst['column']).strip()!r} ({worst['note']})"


def _empty_or_cut(evidence_of: Mapping[str, Evidence], fields: Fields, count: int) -> str:
    parts = fields.cells.get(CODES, ())
    if (
        list(evidence_of) == ["hospital"]
        and count >= MANY_PARTICIPANTS
        and not any(len(part.text) for part in parts)
    ):
        return (
            f"cohort.table: field {CODES} ({field_title(CODES)}) is empty for all {count} "
            "participants; export it again"
        )
    for part in parts:
        last = max(range(len(part.columns)), key=lambda place: part.columns[place].key[2])
        filled = int((part.column == last).sum())
        if (
            len(part.columns) > 1
            and count >= MANY_PARTICIPANTS
            and filled > LAST_COLUMN_FULL * count
        ):
            return (
                f"cohort.table: field {CODES} seems cut: {filled} of {count} participants fill "
                f"its last column, {part.columns[last].name.strip()!r}; export every array index"
            )
    return ""
