"""What UK Biobank's fields say of people at a visit: sex, age, BMI, site, ethnicity,
deprivation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmrdata.axes import BMI
from cmrdata.cohorts.reading.cells import Reader, Reading, day_first
from cmrdata.cohorts.ukbb.cells import Cells, People, read_texts, report_rows, scalar
from cmrdata.cohorts.ukbb.columns import (
    DATES,
    EVER,
    HIDDEN,
    OPEN,
    USES,
    VISIT,
    cell_readers,
    field_name,
)
from cmrdata.cohorts.ukbb.diagnoses import Array, array_of, undated
from cmrdata.subjects import bmi_of

# weight and height, best first
WEIGHED = (
    ("21002", "50"),
    ("21002", "12144"),
    ("12143", "50"),
    ("12143", "12144"),
)
DAY = 15  # of the month of birth; the table withholds it
AGES = (0, 120)
# field -> type of its values; those of other fields are floats
DTYPES = {
    "31": object,
    "54": object,
    "21000": object,
    VISIT: "datetime64[D]",
    "40000": "datetime64[D]",
}


class Fields:
    """The fields of some people, from every file that has them, and an account of what was
    understood.

    The dates of a file are all read alike: with the day or the month first, as those of them tell
    that can only be one.
    """

    def __init__(self, people: People, cells: dict[str, list[Cells]], *, instance: int) -> None:
        self.people, self.cells, self.instance = people, cells, instance
        self.count = len(people.names)
        self.report: list[dict[str, object]] = []  # rows of columns.csv
        self.unclear: dict[
            str, np.ndarray
        ] = {}  # by field: who has a cell that is not understood, or cells that disagree
        self.differing: Counter[str] = Counter()  # by field: whose cells disagree
        texts: dict[int, list[str]] = {part.table: [] for parts in cells.values() for part in parts}
        for field in DATES:
            for part in cells.get(field, ()):
                texts[part.table] += part.texts
        self.day_first = {table: day_first(of) for table, of in texts.items()}
        self.readers = {
            table: cell_readers(day_first=order) for table, order in self.day_first.items()
        }
        self.read: dict[str, list[tuple[Cells, list[Reading]]]] = {}
        self.known: dict[tuple[str, int], np.ndarray] = {}

    def value(self, field: str, at: int | None = None) -> np.ndarray:
        """What `field` says at a visit, the one asked for unless told; missing where nothing is
        certain."""
        at = 0 if field in EVER else self.instance if at is None else at
        if field not in self.read:
            parts = self.cells.get(field, ())
            self.read[field] = [
                (part, read_texts(part, self.readers[part.table][field])) for part in parts
            ]
            for part, readings in self.read[field]:
                self._account(part, readings, field)
        if (field, at) not in self.known:
            value = scalar(self.read[field], at, people=self.count, dtype=DTYPES.get(field, float))
            before = self.unclear.get(field, np.zeros(self.count, bool))
            self.unclear[field] = before | value.odd | value.differs
            self.differing[field] += int(value.differs.sum())
            self.known[field, at] = value.values
        return self.known[field, at]

    def array(self, field: str, read: Reader | None = None) -> list[Array]:
        """An array field in each file that has it, its cells read by `read` (a reader of codes).

        Without `read` they are dates or years, UNDATED where something is written and can't be
        used.
        """
        arrays = []
        for part in self.cells.get(field, ()):
            reader = read or self.readers[part.table][field]
            array = array_of(part, reader)
            self._account(part, array.readings, field)
            arrays.append(
                array if read else array_of(part, undated(reader, answers=field not in DATES))
            )
        return arrays

    def has_row(self, field: str) -> np.ndarray:
        """Who has a row in a file with the field."""
        present = np.zeros(self.count, bool)
        for table in {part.table for part in self.cells.get(field, ())}:
            present |= self.people.present[table]
        return present

    def instances(self, field: str) -> list[int]:
        return sorted(
            {column.key[1] for part in self.cells.get(field, ()) for column in part.columns}
        )

    def _account(self, part: Cells, readings: Sequence[Reading], field: str) -> None:
        order = "day/month/year" if self.day_first[part.table] else "month/day/year"
        numeric = field in DATES and self.day_first[part.table] is not None
        note = (
            f"as {order}"
            if numeric and any(re.match(r"\s*\d\d?[/-]\d\d?[/-]", text) for text in part.texts)
            else ""
        )
        self.report += report_rows(
            part,
            readings,
            used_for=USES[field],
            field=field_name,
            open_values=field in OPEN,
            shown=field not in HIDDEN,
            note=note,
        )


def person(fields: Fields) -> dict[str, np.ndarray]:
    """What is known of people besides diagnoses; each array is (people,)."""

    def weighed(weight: str, height: str) -> np.ndarray:
        kilograms, metres = (pd.Series(fields.value(name)) for name in (weight, height))
        return np.asarray(bmi_of(kilograms, metres))

    visit = fields.value(VISIT)
    age, age_flags = _age(
        visit, year=fields.value("34"), month=fields.value("52"), whole=fields.value("21003")
    )
    bmi, bmi_flags = _first_plausible(
        [
            ("", fields.value("21001")),
            *(("bmi_from_weight", weighed(weight, height)) for weight, height in WEIGHED),
            ("bmi_impedance", fields.value("23104")),
            ("bmi_instance_0", fields.value("21001", 0)),
        ]
    )
    ethnicity = np.full(fields.count, None, object)
    for at in fields.instances("21000"):
        ethnicity = np.where(pd.isna(ethnicity), fields.value("21000", at), ethnicity)
    townsend = fields.value("22189")
    townsend = np.where(np.isnan(townsend), fields.value("189"), townsend)
    return {
        "sex": fields.value("31"),
        "age": age,
        "bmi": bmi,
        "site": fields.value("54"),
        "ethnicity": ethnicity,
        "townsend": townsend,
        "visit": visit,
        "table_flags": joined_words([age_flags, bmi_flags], fields.count),
    }


def joined_words(words: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The words of each row that are not empty, joined by ";"."""
    rows = zip(*words, strict=True) if words else [()] * count
    return np.array([";".join(filter(None, row)) for row in rows], object)


def _age(
    visit: np.ndarray, *, year: np.ndarray, month: np.ndarray, whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Years at the visit, and flags where no more than the `whole` years are known.

    Whole years change on birthdays; the days since the last one count as their share of the days to
    the next.
    """
    known = ~np.isnat(visit) & ~np.isnan(year) & ~np.isnan(month)
    months = np.where(known, (year - 1970) * 12 + month - 1, 0).astype(int)
    born, day = months.astype("datetime64[M]"), np.where(known, visit, np.datetime64("2000-01-01"))
    birthday = np.timedelta64(DAY - 1, "D")
    this_month = day.astype("datetime64[M]")
    years = ((this_month - born).astype(int) - (day < this_month + birthday)) // 12
    last, coming = (
        (born + 12 * more).astype("datetime64[D]") + birthday for more in (years, years + 1)
    )
    age = np.where(known, years + (day - last) / (coming - last), np.nan)
    exact = (age >= AGES[0]) & (age <= AGES[1])
    flags = np.where(~exact & ~np.isnan(whole), "age_whole_years", "")
    return np.where(exact, age, whole), flags


def _first_plausible(candidates: Sequence[tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The first BMI of each person that a person can have, and the name of the candidate it is
    from."""
    plausible = [(bmi >= BMI.bounds[0]) & (bmi <= BMI.bounds[1]) for _, bmi in candidates]
    bmi = np.select(plausible, [bmi for _, bmi in candidates], np.nan)
    return bmi, np.select(plausible, [name for name, _ in candidates], "")
