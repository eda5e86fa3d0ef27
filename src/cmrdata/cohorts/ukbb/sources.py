"""Where a diagnosis of heart failure may come from: hospitals, first occurrences, deaths, what
participants report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cmrdata.cohorts.ukbb.codes import HF, ILLNESSES, read_code, read_illness
from cmrdata.cohorts.ukbb.columns import (
    CODE_DATES,
    CODES,
    DEATH_CAUSE,
    DEATH_DATE,
    DEATH_FURTHER,
    FIRST_I50,
    ILLNESS,
    ILLNESS_AGE,
    ILLNESS_YEAR,
    VISIT,
)
from cmrdata.cohorts.ukbb.diagnoses import (
    GAP,
    SLOTS,
    UNDATED,
    Evidence,
    day_of_year,
    days_of,
    elements,
    of_codes,
    partners,
)
from cmrdata.cohorts.ukbb.people import DAY, Fields

SOURCES = {  # the fields that a source cannot do without
    "hospital": (CODES, CODE_DATES),
    "first_occurrence": (FIRST_I50,),
    "death": (DEATH_CAUSE,),
    "self_report": (ILLNESS,),
}
# that it also reads
FURTHER_FIELDS = {
    "death": (DEATH_FURTHER, DEATH_DATE),
    "self_report": (ILLNESS_YEAR, ILLNESS_AGE),
}
RECORDS = "records"  # the name of cohort.diagnoses as a source
Prefixes = Mapping[str, Sequence[str]]  # of the codes of each group; heart failure's first


def evidence(source: str, fields: Fields, prefixes_of: Prefixes, *, visit: np.ndarray) -> Evidence:
    """What one of SOURCES says of the people. Whoever has no row where the source's codes are is
    unclear."""
    if source == "hospital":
        elements = _hospital(fields, prefixes_of)
    elif source == "first_occurrence":
        elements = _first_occurrence(fields)
    elif source == "death":
        elements = _death(fields, prefixes_of, visit)
    else:
        elements = _self_report(fields, prefixes_of, visit)
    absent = ~fields.has_row(SOURCES[source][0])
    known = prefixes_of if source in ("hospital", "death") else {HF: ("",)}
    unclear = elements.unclear | np.where(absent, every(known), 0)
    return elements._replace(
        unclear=unclear,
        reasons={**elements.reasons, "no row in the file with the diagnoses": absent},
    )


def every(prefixes_of: Prefixes) -> int:
    """The bits of all groups that are looked for."""
    return sum(1 << bit for bit, beginnings in enumerate(prefixes_of.values()) if beginnings)


def _hospital(fields: Fields, prefixes_of: Prefixes) -> Evidence:
    codes = elements(fields.array(CODES, read_code), people=fields.count)
    dates = elements(fields.array(CODE_DATES), people=fields.count)
    return of_codes(codes, dates, prefixes_of=prefixes_of, people=fields.count)


def _first_occurrence(fields: Fields) -> Evidence:
    """Each date is a diagnosis; one that can't be used, or that files disagree about, is one at an
    unknown time."""
    dates = elements(fields.array(FIRST_I50), people=fields.count)
    there = dates.value != GAP
    when = days_of(dates.values)[np.maximum(dates.value, -1)]
    return Evidence(
        dates.person[there],
        np.ones(there.sum(), int),
        when[there],
        dates.odd.astype(int),
        {"a date that is not understood": dates.odd},
    )


def _death(fields: Fields, prefixes_of: Prefixes, visit: np.ndarray) -> Evidence:
    """Causes of death, at the date of death; nobody dies before the visit, so that such a death is
    unclear."""
    died = np.full(fields.count, np.datetime64("NaT"), "datetime64[D]")
    for at in fields.instances(DEATH_DATE):
        died = np.fmin(died, fields.value(DEATH_DATE, at))
    early = died <= visit
    died[early] = np.datetime64("NaT")
    parts = []
    for field in (DEATH_CAUSE, DEATH_FURTHER):
        codes = elements(fields.array(field, read_code), people=fields.count)
        parts.append(
            of_codes(codes, None, prefixes_of=prefixes_of, people=fields.count, gaps=False)
        )
    persons, marks = (np.concatenate([part[k] for part in parts]) for k in range(2))
    reasons = {why: parts[0].reasons[why] | parts[1].reasons[why] for why in parts[0].reasons}
    unclear = parts[0].unclear | parts[1].unclear | np.where(early, every(prefixes_of), 0)
    return Evidence(
        persons, marks, died[persons], unclear, {**reasons, "died before the visit": early}
    )


def _self_report(fields: Fields, prefixes_of: Prefixes, visit: np.ndarray) -> Evidence:
    """ILLNESSES, from the day in the year (20008) or at the age (20009) told, at the latest when it
    was reported.

    Years are interpolated by UK Biobank: who tells the year alone has its middle. What was reported
    at the visit or before is known to be before it, whatever year is told.
    """
    illnesses = {group: tuple(ILLNESSES) if group == HF else () for group in prefixes_of}
    codes = elements(fields.array(ILLNESS, read_illness), people=fields.count)
    illness = of_codes(codes, None, prefixes_of=illnesses, people=fields.count)
    ill = np.isin(codes.value, [k for k, code in enumerate(codes.values) if code in ILLNESSES])
    when = np.full(len(codes.person), np.datetime64("NaT"), "datetime64[D]")
    reasons = dict(illness.reasons)
    for field in (ILLNESS_YEAR, ILLNESS_AGE):
        reported_years = elements(fields.array(field), people=fields.count)
        place, reasons[f"a value of field {field} without an illness"] = partners(
            codes, reported_years, fields.count
        )
        days = (
            _from_years(reported_years.values, place)
            if field == ILLNESS_YEAR
            else _from_ages(reported_years.values, place, codes.person, fields)
        )
        when = np.where(np.isnat(when), days, when)
    for at in fields.instances(ILLNESS):
        reported = fields.value(VISIT, at)
        if at <= fields.instance:
            reported = np.fmin(reported, visit)
        here = codes.slot // SLOTS == at
        when[here] = np.fmin(when[here], reported[codes.person[here]])
    unclear = illness.unclear
    for why in reasons.keys() - illness.reasons.keys():
        unclear = unclear | reasons[why].astype(int)
    return Evidence(codes.person[ill], np.ones(ill.sum(), int), when[ill], unclear, reasons)


def _from_years(years: Sequence[object], place: np.ndarray) -> np.ndarray:
    days = [day_of_year(float(year)) if year != UNDATED else None for year in years]  # type: ignore[arg-type]
    return np.array([*days, None], "datetime64[D]").take(place)


def _from_ages(
    ages: Sequence[object], place: np.ndarray, persons: np.ndarray, fields: Fields
) -> np.ndarray:
    """The day at which each person had the age at `place`, from year and month of birth."""
    known = np.array([*(float(age) if age != UNDATED else np.nan for age in ages), np.nan])[place]  # type: ignore[arg-type]
    born = fields.value("34") + (fields.value("52") - 1 + (DAY - 1) / 30) / 12
    years = born[persons] + known
    return np.array(
        [None if np.isnan(year) or year >= 2100 else day_of_year(year) for year in years],
        "datetime64[D]",
    )
