"""Columns of UK Biobank tables: what they are called in every export, and how their cells are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date
from typing import Any

Key = tuple[str, int, int]  # field ("eid" or its number), instance, array

ID: Key = ("eid", 0, 0)
ID_NAMES = "eid, f.eid, participant.eid, n_eid or Participant ID"
TITLES = {  # before " | Instance i | Array k", as the RAP's Table Exporter writes them; two are the seed paper's
    "Participant ID": "eid",
    "Encoded anonymised participant ID": "eid",
    "Sex": "31",
    "Year of birth": "34",
    "Month of birth": "52",
    "Standing height": "50",
    "Date of attending assessment centre": "53",
    "Date of attendance": "53",
    "UK Biobank assessment centre": "54",
    "Weight (pre-imaging)": "12143",
    "Height": "12144",
    "Ethnic background": "21000",
    "Body mass index (BMI)": "21001",
    "BMI": "21001",
    "Weight": "21002",
    "Age when attended assessment centre": "21003",
    "Age at recruitment": "21022",
    "Townsend deprivation index at recruitment": "22189",
    "Diagnoses - ICD10": "41270",
    "Date of first in-patient diagnosis - ICD10": "41280",
    "Date I50 first reported (heart failure)": "131354",
}
NAMINGS = [re.compile(pattern, re.IGNORECASE | re.ASCII) for pattern in (
    r"(?:f\.|[nstx]+_|x)?(?P<field>eid)",
    r"(?:f\.|x)?(?P<field>\d{1,7})\.(?P<instance>\d{1,5})\.(?P<array>\d{1,5})",  # .tab; CSV re-read in R
    r"(?P<field>\d{1,7})-(?P<instance>\d{1,5})\.(?P<array>\d{1,5})",  # CSV
    r"[nstx]+_(?P<field>\d{1,7})_(?P<instance>\d{1,5})_(?P<array>\d{1,5})",  # Stata, SAS
    r"p(?P<field>\d{1,7})(?:_i(?P<instance>\d{1,5}))?(?:_a(?P<array>\d{1,5}))?",  # RAP
    r"(?P<title>.+?)\.(?P<instance>\d{1,5})\.(?P<array>\d{1,5})",  # seed paper
    r"(?P<title>.+?)(?:\|\s*instance\s*(?P<instance>\d{1,5})\s*)?(?:\|\s*array\s*(?P<array>\d{1,5}))?",  # RAP, titles
)]  # fmt: skip
NO_ANSWER = ("do not know", "prefer not to answer")
SEXES = {"0": "F", "female": "F", "f": "F", "1": "M", "male": "M", "m": "M"}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# days of coding 819 that stand for unknown ones
PLACEHOLDERS = ("1900-01-01", "1901-01-01", "1902-02-02", "1903-03-03", "1909-09-09", "2037-07-07")
DATES = [re.compile(pattern + r"(?:[T ]+\d{1,2}:\d{2}.*)?", re.ASCII | re.IGNORECASE) for pattern in (
    r"(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})",
    r"(?P<d>\d{1,2})[-/](?P<m>\d{1,2})[-/](?P<y>\d{4})",
    r"(?P<d>\d{1,2})[- ]?(?P<m>[a-z]{3,9})[- ]?(?P<y>\d{4})",  # Stata
)]  # fmt: skip


def parse_column(name: str) -> Key | None:
    """(field, instance, array) of a column in any export's naming; None if it is no field. Absent numbers are 0.

    Participant ids are ("eid", 0, 0); titles are those of TITLES, in any case and spacing.
    """
    name = re.sub(r"^participant\.", "", name.strip(), flags=re.IGNORECASE)
    for naming in NAMINGS:
        if not (found := naming.fullmatch(name)):
            continue
        parts = {"field": None, "title": None, "instance": None, "array": None, **found.groupdict()}
        field = _FIELDS.get(_letters(parts["title"])) if parts["title"] else parts["field"]
        if field:
            return field.lower().lstrip("0") or "0", int(parts["instance"] or 0), int(parts["array"] or 0)
    return None


def canonical_id(text: object) -> str:
    """A participant's id as a string: no spaces around it, no ".0" of a number that went through a float."""
    return str(text).strip().removesuffix(".0")


def read_number(text: str, *, signed: bool = False) -> float | None:
    """A quantity; None for non-answers, which are negative unless the quantity is `signed`."""
    if text.lower() in NO_ANSWER:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError("holds text where a number belongs; write numbers like 26.4") from None
    return number if math.isfinite(number) and (signed or number >= 0) else None


def read_category(text: str) -> str | None:
    """A code, or what it stands for, as written; None for non-answers."""
    return None if text.startswith("-") or text.lower() in NO_ANSWER else canonical_id(text)


def read_sex(text: str) -> str | None:
    """F or M."""
    code = read_category(text)
    if code and code.lower() not in SEXES:
        raise ValueError("holds something else than 0 (female), 1 (male), Female or Male")
    return SEXES[code.lower()] if code else None


def read_month(text: str) -> float | None:
    """1..12, from a number or an English name."""
    return MONTHS.index(text[:3].lower()) + 1 if text[:3].lower() in MONTHS else read_number(text)


def read_date(text: str) -> date | None:
    """A day, from 2015-01-31, 31/01/2015 or 31jan2015, with or without a time; None for one of PLACEHOLDERS."""
    for written in DATES:
        if found := written.fullmatch(text):
            try:
                when = date(int(found["y"]), int(read_month(found["m"]) or 0), int(found["d"]))
            except ValueError:
                break
            return None if when.isoformat() in PLACEHOLDERS else when
    if text.lower() in NO_ANSWER:
        return None
    raise ValueError("holds text where a date belongs; write dates like 2015-01-31 or 31/01/2015")


def read_signed(text: str) -> float | None:
    """A quantity that may be negative."""
    return read_number(text, signed=True)


READERS: dict[str, tuple[Callable[[str], Any], Any]] = {  # field: how its cells are read, and the dtype
    "31": (read_sex, object),
    "34": (read_number, float),
    "52": (read_month, float),
    "53": (read_date, "datetime64[D]"),
    "54": (read_category, object),
    "21000": (read_category, object),
    **dict.fromkeys(("21003", "21001", "21002", "50", "12143", "12144", "23104"), (read_number, float)),
    **dict.fromkeys(("189", "22189"), (read_signed, float)),
}


def _letters(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


_FIELDS = {_letters(title): field for title, field in TITLES.items()}
