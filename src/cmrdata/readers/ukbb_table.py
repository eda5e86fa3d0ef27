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
DAY = 15  # of the month of birth; the table withholds it
BIRTH_YEARS, AGES = (1850, 2100), (0, 120)  # in which, and at which, a participant can be
DIAGNOSIS = {"prevalent": "hf", "none": "healthy"}  # of a state; who got it later or at an unknown time has none
Cells = dict[tuple[str, int], np.ndarray]  # values of each field and instance, (n,)


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
    everyone, names, cells, found = _collect(path, header, keys, ids=ids, mark_of=marks(wanted))
    _check_ids(path, header, everyone)
    person = _person(cells, len(names), instance)
    columns = {**person, **_illness(list(wanted), found, person["visit"])}
    table = pd.DataFrame(
        {name: pd.Series(array, dtype=object if array.dtype == object else None) for name, array in columns.items()}
    ).set_axis(pd.Index(names, name="id", dtype=object))
    table.attrs["rows"] = len(everyone)
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
             mark_of: Callable[[str], int]) -> tuple[list[str], list[str], Cells, tuple[np.ndarray, ...]]:  # fmt: skip
    """All ids, and of the participants wanted: ids, cells, and diagnoses as arrays of row, mark and date.

    Errors count a line per row, so blank lines and line ends within cells do not count.
    """
    wanted = None if ids is None else {canonical_id(name) for name in ids}
    everyone: list[str] = []
    names: list[str] = []
    parts: list[Cells] = []
    found: list[tuple[int, int, date | None]] = []
    for batch in read_blocks(path, header, [ID, *keys]):
        here = [canonical_id(text or "") for text in batch.column(0).to_pylist()]
        rows = np.array([row for row, name in enumerate(here) if wanted is None or name in wanted], int)
        kept = batch if len(rows) == len(here) else batch.take(pa.array(rows))
        block = dict(zip(keys, kept.columns[1:], strict=True))
        try:
            parts.append({key[:2]: _read(block[key], key[0]) for key in keys if key[0] in READERS})
            found += [(len(names) + row, mark, when) for row, mark, when in diagnoses(block, mark_of)]
        except BadCell as error:
            line = header.lines + 1 + len(everyone) + rows[error.row]
            raise ValueError(f"cohort.table={path}: line {line}: {error}") from None
        names += [here[row] for row in rows]
        everyone += here
    row, mark, when = zip(*found, strict=True) if found else ((), (), ())
    cells = {key[:2]: np.concatenate([part[key[:2]] for part in parts]) for key in keys if key[0] in READERS and parts}
    return everyone, names, cells, (np.array(row, int), np.array(mark, int), np.array(when, "datetime64[D]"))


def _read(cells: pa.Array, field: str) -> np.ndarray:
    reader, dtype = READERS[field]
    return values(cells, reader, field=field, dtype=dtype)


def _check_ids(path: Path, header: Header, ids: list[str]) -> None:
    """Raises ValueError, naming lines, when nobody is there, somebody has no id or two have the same."""
    if not ids:
        raise ValueError(f"cohort.table={path}: has a header and no participants; give the whole table")
    lines = pd.Series(ids, index=range(header.lines + 1, header.lines + 1 + len(ids)), dtype=object)
    if len(empty := lines.index[lines.isin(NA)]):
        raise ValueError(f"cohort.table={path}: line {empty[0]} has no participant id; complete or remove it")
    if len(repeated := lines[lines.duplicated()]):
        same = lines.index[lines == repeated.iloc[0]]
        raise ValueError(
            f"cohort.table={path}: lines {', '.join(map(str, same[:5]))} have the same participant id, and "
            f"{len(repeated)} lines repeat an earlier one; keep one line per participant"
        )


def _person(cells: Cells, count: int, instance: int) -> dict[str, np.ndarray]:
    """What is known of people besides diagnoses; each array is (count,)."""

    def get(field: str, at: int = 0) -> np.ndarray:
        return cells.get((field, at), np.full(count, None, READERS[field][1]))

    def weighed(weight: str, height: str) -> np.ndarray:
        return bmi_of(pd.Series(get(weight, instance)), pd.Series(get(height, instance))).to_numpy()

    visit = get("53", instance)
    age, age_flags = _age(visit, year=get("34"), month=get("52"), whole=get("21003", instance))
    bmi, bmi_flags = _first_plausible([
        ("", get("21001", instance)),
        ("bmi_from_weight", weighed("21002", "50")),
        ("bmi_from_weight", weighed("12143", "12144")),  # before the scan
        ("bmi_impedance", get("23104", instance)),
        ("bmi_instance_0", get("21001", 0)),
    ])  # fmt: skip
    ethnicity = np.full(count, None, object)
    for at in sorted(at for field, at in cells if field == "21000"):
        ethnicity = np.where(pd.isna(ethnicity), get("21000", at), ethnicity)
    townsend = np.where(np.isnan(get("22189")), get("189"), get("22189"))
    return {"sex": get("31"), "age": age, "bmi": bmi, "site": get("54", instance), "ethnicity": ethnicity,
            "townsend": townsend, "visit": visit, "table_flags": _joined([age_flags, bmi_flags], count)}  # fmt: skip


def _illness(groups: list[str], found: tuple[np.ndarray, ...], visit: np.ndarray) -> dict[str, np.ndarray]:
    """What the diagnoses `found` (row, mark, date) say of people at their visit."""
    row, mark, when = found
    of = {group: mark >> bit & 1 == 1 for bit, group in enumerate(groups)}
    states = {group: at_visit(row[of[group]], when[of[group]], visit) for group in groups}
    state, first = states["hf"]
    diagnosis = np.array([DIAGNOSIS.get(one) for one in state], object)
    if "without" in groups:
        diagnosis[row[of["without"]]] = None
    had = [np.where(states[name][0] == "prevalent", name, "") for name in CONDITIONS if name in groups]
    return {"state": state, "diagnosis": diagnosis, "first": first, "conditions": _joined(had, len(visit))}


def _age(visit: np.ndarray, *, year: np.ndarray, month: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Years at the visit, and flags where no more than the `whole` years are known.

    Whole years change on birthdays; the days since the last one count as their share of the days to the next.
    """
    known = ~np.isnat(visit) & _within(year, BIRTH_YEARS) & _within(month, (1, 12))
    months = np.where(known, (year - 1970) * 12 + month - 1, 0).astype(int)
    born, day = months.astype("datetime64[M]"), np.where(known, visit, np.datetime64("2000-01-01"))
    birthday = np.timedelta64(DAY - 1, "D")
    this_month = day.astype("datetime64[M]")
    years = ((this_month - born).astype(int) - (day < this_month + birthday)) // 12
    last, coming = ((born + 12 * more).astype("datetime64[D]") + birthday for more in (years, years + 1))
    age = np.where(known, years + (day - last) / (coming - last), np.nan)
    exact, stand_in = _within(age, AGES), _within(whole, AGES)
    flags = np.where(~exact & stand_in, "age_whole_years", "")
    return np.where(exact, age, np.where(stand_in, whole, np.nan)), flags


def _first_plausible(candidates: Sequence[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The first BMI of each person that a person can have, and the name of the candidate it is from."""
    plausible = [_within(bmi, BMI_RANGE) for _, bmi in candidates]
    bmi = np.select(plausible, [bmi for _, bmi in candidates], np.nan)
    return bmi, np.select(plausible, [name for name, _ in candidates], "")


def _within(numbers: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (numbers >= limits[0]) & (numbers <= limits[1])


def _joined(words: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The words of each row that are not empty, joined by ";"."""
    rows = zip(*words, strict=True) if words else [()] * count
    return np.array([";".join(filter(None, row)) for row in rows], object)
