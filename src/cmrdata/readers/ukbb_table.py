"""People of a UK Biobank table: who they are at an imaging visit, and whether their heart had failed by then."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from cmrdata.cohort import BMI_RANGE, CONDITIONS, bmi_of
from cmrdata.readers.ukbb_columns import ID, READERS, TITLES, Key, canonical_id, parse_column
from cmrdata.readers.ukbb_csv import NA, BadCell, Header, read_blocks, read_header, reading, table_file, values
from cmrdata.readers.ukbb_diagnoses import SOURCES, at_visit, diagnoses, groups, marks

__all__ = ["canonical_id", "parse_column", "read_exclusions", "read_table"]

EVER = ("31", "34", "52", "189", "22189")  # fields that no visit changes
AT_VISIT = ("53", "54", "21003", "21001", "21002", "50", "12143", "12144", "23104")
TEXTS = ("sex", "state", "diagnosis", "conditions", "site", "ethnicity", "table_flags")  # columns of str or None
BIRTHDAY = 15  # day of the month; the table withholds it
BIRTH_YEARS, AGES = (1850, 2100), (0, 120)  # in which, and at which, a participant can be


def read_table(
    path: str | Path,
    *,
    ids: Collection[str] | None = None,
    instance: int = 2,
    codes: str | Sequence[str] = "standard",
    without: Sequence[str] = (),
    source: str = "hospital",
    conditions: Sequence[str] = (),
) -> pd.DataFrame:
    """The participants of a table, or those in `ids`, at the visit `instance`: a row each, in the table's order.

    Indexed by canonical id. Columns: sex (F, M or None), age (years), bmi (kg/m2), state of heart failure (see
    `at_visit`), diagnosis ("hf", "healthy"; None for other states and for who ever had a code of `without`), first
    (date of the first diagnosis), conditions (of those asked for, the ones present at the visit, joined by ";"), site,
    ethnicity (as in the table), townsend, visit (date), table_flags (what stands in for age and BMI, joined by ";").
    attrs["rows"] counts the table's participants, wanted or not.

    Heart failure is any code that begins like one of `codes` (a preset's name or a list of ICD-10 prefixes) in the
    hospitals' records, or with source="first_occurrence" a date in field 131354, which knows I50 and nothing else.
    Raises FileNotFoundError and ValueError, naming a setting, field or line and no participant.
    """
    wanted = groups(codes, without=without, source=source, conditions=conditions)
    path = table_file(path, setting="cohort.table")
    header = read_header(path)
    needed = {*SOURCES[source], *(SOURCES["hospital"] if any(wanted.values()) else ())}
    _require(path, header, needed)
    keys = [key for key in header.columns if key[0] in needed and key[1] == 0 or _is_of_person(key, instance)]
    people, found = _collect(path, header, keys, ids=ids, mark_of=marks(wanted))
    table = _person(people, instance)
    table.attrs["rows"] = people.attrs["rows"]
    states = {}
    for bit, group in enumerate(wanted):
        of_group = found.loc[(found["mark"].to_numpy() & 1 << bit) > 0]
        states[group] = at_visit(of_group, table.visit.to_numpy("datetime64[D]")).set_axis(table.index)
    table["state"], table["first"] = states["hf"].state, states["hf"]["first"]
    table["diagnosis"] = table.state.map({"prevalent": "hf", "none": "healthy"})
    if without:
        table["diagnosis"] = table.diagnosis.where(states["without"].state == "none")
    had = {name: states[name].state.to_numpy() == "prevalent" for name in CONDITIONS if name in wanted}
    table["conditions"] = [";".join(name for name in had if had[name][row]) for row in range(len(table))]
    for column in TEXTS:
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    return table


def read_exclusions(path: str | Path) -> frozenset[str]:
    """Ids of participants who withdrew: the first cell of every line, or the id column where there is a header.

    Raises FileNotFoundError and ValueError naming the setting.
    """
    path = table_file(path, setting="cohort.exclude")
    with reading(path, setting="cohort.exclude"):
        text = path.read_bytes()
    try:
        lines = [line for line in text.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"cohort.exclude={path}: is no text; give a file with one participant id per line") from None
    delimiter = next((mark for mark in "\t;," if lines and mark in lines[0]), ",")
    rows = [[cell.strip().strip("\"'") for cell in line.split(delimiter)] for line in lines]
    first = [parse_column(cell) for cell in rows[0]] if rows else []
    place = first.index(ID) if ID in first else 0
    if rows and (ID in first or not re.search(r"\d", rows[0][0])):
        rows = rows[1:]
    return frozenset(canonical_id(row[place]) for row in rows if len(row) > place) - {""}


def _require(path: Path, header: Header, fields: Collection[str]) -> None:
    there = {field for field, instance, _ in header.columns if instance == 0}
    for field in sorted(set(fields) - there):
        title = next(title for title, of in TITLES.items() if of == field)
        raise ValueError(
            f"cohort.table={path}: no column of field {field} ({title}), which diagnoses need. Add it, with every array "
            f"index it has, as f.{field}.0.0, {field}-0.0, X{field}.0.0, p{field}, s_{field}_0_0 or {title!r}"
        )


def _is_of_person(key: Key, instance: int) -> bool:
    field, at, array = key
    here = (field in EVER and at == 0) or (field in AT_VISIT and at == instance)
    return array == 0 and (here or field == "21000" or (field == "21001" and at == 0))


def _collect(path: Path, header: Header, keys: list[Key], *, ids: Collection[str] | None,
             mark_of: Callable[[str], int]) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Of the participants wanted: columns like "21001.2" by field and instance, and diagnoses (row, mark, date)."""
    wanted = None if ids is None else {canonical_id(name) for name in ids}
    everyone: list[str] = []
    names: list[str] = []
    parts: list[dict[str, np.ndarray]] = []
    found: list[tuple[int, int, date | None]] = []
    for batch in read_blocks(path, header, [ID, *keys]):
        here = [canonical_id(text or "") for text in batch.column(0).to_pylist()]
        rows = np.array([row for row, name in enumerate(here) if wanted is None or name in wanted], int)
        kept = batch if len(rows) == len(here) else batch.take(pa.array(rows))
        block = dict(zip(keys, kept.columns[1:], strict=True))
        try:
            parts.append(
                {f"{field}.{at}": _read(cells, field) for (field, at, _), cells in block.items() if field in READERS}
            )
            found += [(len(names) + row, mark, when) for row, mark, when in diagnoses(block, mark_of)]
        except BadCell as error:
            line = header.lines + 1 + len(everyone) + rows[error.row]
            raise ValueError(f"cohort.table={path}: line {line}: {error}") from None
        names += [here[row] for row in rows]
        everyone += here
    _check_ids(path, pd.Series(everyone, index=range(header.lines + 1, header.lines + 1 + len(everyone)), dtype=object))
    people = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    row, mark, when = zip(*found, strict=True) if found else ((), (), ())
    dates = np.array(when, "datetime64[D]")
    columns = pd.DataFrame(people, index=pd.Index(names, name="id", dtype=object))
    columns.attrs["rows"] = len(everyone)
    return columns, pd.DataFrame({"row": np.array(row, int), "mark": np.array(mark, int), "date": dates})


def _read(cells: pa.Array, field: str) -> np.ndarray:
    read, dtype = READERS[field]
    return values(cells, read, field=field, dtype=dtype)


def _check_ids(path: Path, ids: pd.Series) -> None:
    """Raises ValueError, naming lines, when nobody is there, somebody has no id or two have the same."""
    if ids.empty:
        raise ValueError(f"cohort.table={path}: has a header and no participants; give the whole table")
    if len(empty := ids.index[ids.isin(NA)]):
        raise ValueError(f"cohort.table={path}: line {empty[0]} has no participant id; complete or remove it")
    if len(repeated := ids[ids.duplicated()]):
        lines = ids.index[ids == repeated.iloc[0]]
        raise ValueError(
            f"cohort.table={path}: lines {', '.join(map(str, lines[:5]))} have the same participant id, and "
            f"{len(repeated)} lines repeat an earlier one; keep one line per participant"
        )


def _person(people: pd.DataFrame, instance: int) -> pd.DataFrame:
    """What is known of people besides diagnoses, from columns like "21001.2" (field, instance)."""

    def get(field: str, at: int = 0) -> pd.Series:
        unknown = pd.Series(np.full(len(people), None, READERS[field][1]), index=people.index)
        return people.get(f"{field}.{at}", unknown)

    visit = get("53", instance)
    age, age_flags = _age(visit, year=get("34"), month=get("52"), whole=get("21003", instance))
    bmi, bmi_flags = _first_plausible([
        ("", get("21001", instance)),
        ("bmi_from_weight", bmi_of(get("21002", instance), get("50", instance))),
        ("bmi_from_weight", bmi_of(get("12143", instance), get("12144", instance))),  # weighed for the scanner
        ("bmi_impedance", get("23104", instance)),
        ("bmi_instance_0", get("21001", 0)),
    ])  # fmt: skip
    ethnicity = get("21000")
    for at in sorted(int(name.split(".")[1]) for name in map(str, people) if name.startswith("21000.")):
        ethnicity = ethnicity.where(ethnicity.notna(), get("21000", at))
    flags = [";".join(filter(None, pair)) for pair in zip(age_flags, bmi_flags, strict=True)]
    return pd.DataFrame({
        "sex": get("31"), "age": age, "bmi": bmi, "site": get("54", instance), "ethnicity": ethnicity,
        "townsend": get("22189").fillna(get("189")), "visit": visit, "table_flags": flags,
    })  # fmt: skip


def _age(visit: pd.Series, *, year: pd.Series, month: pd.Series, whole: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Years at the visit, and flags where no more than the `whole` years are known.

    Whole years change on birthdays; the days since the last one are counted as their share of the days to the next.
    """
    known = visit.notna() & year.between(*BIRTH_YEARS) & month.between(1, 12)
    born = ((year.where(known, 1970) - 1970) * 12 + month.where(known, 1) - 1).to_numpy(int).astype("datetime64[M]")
    seen = visit.where(known, pd.Timestamp("2000-01-01")).to_numpy("datetime64[D]")
    until = np.timedelta64(BIRTHDAY - 1, "D")
    this_month = seen.astype("datetime64[M]")
    years = ((this_month - born).astype(int) - (seen < this_month + until)) // 12
    last, coming = (born + 12 * years).astype("datetime64[D]"), (born + 12 * (years + 1)).astype("datetime64[D]")
    age = pd.Series(years + (seen - last - until) / (coming - last), index=visit.index)
    age = age.where(known & age.between(*AGES))
    stand_in = age.isna() & whole.between(*AGES)
    return age.where(~stand_in, whole), stand_in.map({True: "age_whole_years", False: ""})


def _first_plausible(candidates: Sequence[tuple[str, pd.Series]]) -> tuple[pd.Series, pd.Series]:
    """The first BMI of each person that a person can have, and the name of the candidate it is from."""
    bmi = pd.Series(np.nan, index=candidates[0][1].index)
    source = pd.Series("", index=bmi.index, dtype=object)
    for name, values_of in candidates:
        new = bmi.isna() & values_of.between(*BMI_RANGE)
        bmi, source = bmi.where(~new, values_of), source.where(~new, name)
    return bmi, source
