"""Columns of UK Biobank tables: what they are called in every export and package, what they are
for, how they are read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cmrdata.axes import BMI
from cmrdata.cohorts.reading.cells import (
    AGE_UNITS,
    BMI_UNITS,
    LENGTH_UNITS,
    WEIGHT_UNITS,
    Reader,
    clean,
    date_reader,
    quantity,
    read_category,
    read_coded_sex,
    read_month,
)
from cmrdata.cohorts.reading.ids import QUOTES

Key = tuple[str, int, int]  # field ("eid" or its number), instance, array

ID: Key = ("eid", 0, 0)
ID_NAMES = "eid, f.eid, participant.eid, n_eid or Participant ID"
# before " | Instance i | Array k", as the RAP's Table Exporter writes them; two are the seed
# paper's
TITLES = {
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
    "Non-cancer illness code, self-reported": "20002",
    "Interpolated Year when non-cancer illness first diagnosed": "20008",
    "Interpolated Age of participant when non-cancer illness first diagnosed": "20009",
    "Ethnic background": "21000",
    "Body mass index (BMI)": "21001",
    "BMI": "21001",
    "Weight": "21002",
    "Age when attended assessment centre": "21003",
    "Age at recruitment": "21022",
    "Townsend deprivation index at recruitment": "22189",
    "Date of death": "40000",
    "Underlying (primary) cause of death: ICD10": "40001",
    "Contributory (secondary) causes of death: ICD10": "40002",
    "Diagnoses - ICD10": "41270",
    "Date of first in-patient diagnosis - ICD10": "41280",
    "Date I50 first reported (heart failure)": "131354",
}
# which fields share with others, so that only a number beside them tells which it is
FURTHER_TITLES = {
    "189": "Townsend deprivation index at recruitment",
    "23104": "Body mass index (BMI)",
}
_NUMBERS = r"(?P<field>\d{1,7})\.(?P<instance>\d{1,5})\.(?P<array>\d{1,5})"
_UNDERSCORED = _NUMBERS.replace(r"\.", "_")
NAMINGS = [
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"(?:f[._]|[nstx]+_|x)?(?P<field>eid)",
        r"(?:f\.|x)?" + _NUMBERS,  # .tab; CSV re-read in R
        r"(?P<field>\d{1,7})-(?P<instance>\d{1,5})\.(?P<array>\d{1,5})",  # CSV
        r"(?:[nstx]+_|x)?" + _UNDERSCORED,  # Stata, SAS; names without dots
        # ukbtools: title first
        r"(?:(?P<words>[\w.]+)[._])?f[._]?(?P<field>\d{1,7})[._](?P<instance>\d{1,5})[._](?P<array>\d{1,5})",
        r"p(?P<field>\d{1,7})(?:_i(?P<instance>\d{1,5}))?(?:_a(?P<array>\d{1,5}))?",  # RAP
        r"[fx]_?(?P<field>\d{1,7})(?=_[ia])(?:_i(?P<instance>\d{1,5}))?(?:_a(?P<array>\d{1,5}))?",
        r"(?P<title>.+?)\.(?P<instance>\d{1,5})\.(?P<array>\d{1,5})",  # seed paper
        # RAP's titles, also as R's make.names leaves them; then ukbflow's
        r"(?P<title>.+?)(?:[\W_]+instance[\W_]*(?P<instance>\d{1,5}))?(?:[\W_]+array[\W_]*(?P<array>\d{1,5}))?[\W_]*",
        r"(?P<title>\w+?)(?:_i(?P<instance>\d{1,5}))?(?:_a(?P<array>\d{1,5}))?",
    )
]

# in-patient diagnoses and the date of each one's first, element by element
CODES, CODE_DATES = (
    "41270",
    "41280",
)
FIRST_I50 = "131354"
DEATH_DATE, DEATH_CAUSE, DEATH_FURTHER = "40000", "40001", "40002"
ILLNESS, ILLNESS_YEAR, ILLNESS_AGE = "20002", "20008", "20009"  # self-reported
VISIT = "53"
EVER = ("31", "34", "52", "189", "22189")  # fields that no visit changes
AT_VISIT = (VISIT, "54", "21003", "21001", "21002", "50", "12143", "12144", "23104")
DATES = (VISIT, CODE_DATES, FIRST_I50, DEATH_DATE)
HIDDEN = ("eid", "34", "52")  # of which not even a pattern is shown
OPEN = ("31", "21000", "54")  # of which a value that many share may be shown
USES = {  # field: what it is for
    "eid": "id",
    "31": "sex",
    "34": "age",
    "52": "age",
    "21003": "age",
    VISIT: "date of the visit",
    "54": "site",
    "21000": "ethnicity",
    "189": "deprivation",
    "22189": "deprivation",
    "21001": "BMI",
    "23104": "BMI",
    "21002": "BMI",
    "50": "BMI",
    "12143": "BMI",
    "12144": "BMI",
    CODES: "diagnoses (hospital)",
    CODE_DATES: "dates of diagnoses (hospital)",
    FIRST_I50: "diagnoses (first_occurrence)",
    DEATH_CAUSE: "diagnoses (death)",
    DEATH_FURTHER: "diagnoses (death)",
    DEATH_DATE: "dates of diagnoses (death)",
    ILLNESS: "diagnoses (self_report)",
    ILLNESS_YEAR: "dates of diagnoses (self_report)",
    ILLNESS_AGE: "dates of diagnoses (self_report)",
}
WITHOUT = {  # use: what follows where none of its fields is there
    "sex": "nobody has a sex",
    "age": "nobody has an age",
    "BMI": "nobody has a BMI",
    "site": "nobody has a site",
    "ethnicity": "nobody has an ethnicity",
    "deprivation": "nobody has a deprivation index",
    "date of the visit": (
        "nobody's diagnoses can be placed before or after the visit: whoever has one is unknown"
    ),
}
LONGEST_NAME = 300  # characters; more is no name
VISIT_YEARS = (2006, 2100)  # of which assessment centres know


def parse_column(name: str) -> Key | None:
    """(field, instance, array) of a column in any export's naming; None if it is no field. Absent
    numbers are 0.

    Participant ids are ("eid", 0, 0); titles are those of TITLES, in any case and spacing.
    """
    if len(name) > LONGEST_NAME:
        return None
    name = re.sub(
        r"^participant[._](?!id$)", "", clean(clean(name).strip(QUOTES)), flags=re.IGNORECASE
    )
    for naming in NAMINGS:
        if not (found := naming.fullmatch(name)):
            continue
        parts = dict.fromkeys(("field", "title", "words", "instance", "array")) | found.groupdict()
        field = _FIELDS.get(_letters(parts["title"])) if parts["title"] else parts["field"]
        if field and (not parts["words"] or _letters(parts["words"]) in _titles(field)):
            return (
                field.lower().lstrip("0") or "0",
                int(parts["instance"] or 0),
                int(parts["array"] or 0),
            )
    return None


def field_name(key: Key) -> str:
    """As UK Biobank's CSV spells it: "53-2.0"; "eid"."""
    return key[0] if key == ID else f"{key[0]}-{key[1]}.{key[2]}"


def field_title(field: str) -> str:
    return next(
        (title for title, of in TITLES.items() if of == field), FURTHER_TITLES.get(field, "")
    )


def cell_readers(*, day_first: bool | None) -> dict[str, Reader]:
    """How the cells of each field are read, in a file whose dates begin with the day, the month or
    nobody knows."""
    length = quantity(100, 250, units=LENGTH_UNITS, metres=True)
    weight, bmi = quantity(20, 400, units=WEIGHT_UNITS), quantity(*BMI.bounds, units=BMI_UNITS)
    townsend = quantity(-15, 20, signed=True)
    return {
        "31": read_coded_sex,
        "34": quantity(1850, 2100, whole=True),
        "52": read_month,
        VISIT: date_reader(day_first=day_first, years=VISIT_YEARS),
        "54": read_category,
        "21000": read_category,
        "21003": quantity(0, 120, units=AGE_UNITS),
        **dict.fromkeys(("50", "12144"), length),
        **dict.fromkeys(("21002", "12143"), weight),
        **dict.fromkeys(("21001", "23104"), bmi),
        **dict.fromkeys(("189", "22189"), townsend),
        **dict.fromkeys((CODE_DATES, FIRST_I50, DEATH_DATE), date_reader(day_first=day_first)),
        ILLNESS_YEAR: quantity(1900, 2100),
        ILLNESS_AGE: quantity(0, 120, units=AGE_UNITS),
    }


def similar(field: str, names: Iterable[str]) -> str | None:
    """The first of the columns `names`, which are no known fields, that looks like `field` in
    another spelling."""
    titles = [set(_words(title)) for title, of in TITLES.items() if of == field] or [
        set(_words(field_title(field)))
    ]
    for name in names:
        mine = _words(name)
        if names_field(name, field) or any(_resembles(words, mine) for words in titles if words):
            return name
    return None


def names_field(name: str, field: str) -> bool:
    """Whether a column's name holds the field's number."""
    return field in re.findall(r"\d+", name)


def _resembles(words: set[str], mine: list[str]) -> bool:
    if len(words) == 1:
        return words == set(mine[:1])
    return len(words & set(mine)) >= max(2, 0.7 * len(words))


def _words(name: str) -> list[str]:
    return [
        word
        for word in re.findall(r"\d+|[a-z]+", name.lower())
        if word not in ("of", "the", "at", "when")
    ]


def _titles(field: str) -> set[str]:
    own = [title for title, of in TITLES.items() if of == field]
    return {_letters(title) for title in [*own, FURTHER_TITLES.get(field, "")] if title}


def _letters(title: str) -> str:
    return re.sub(r"[^a-z0-9]", "", title.lower())


_FIELDS = {_letters(title): field for title, field in TITLES.items()}
