"""People of a UK Biobank table, made by hand or by hypothesis, and every export's way of writing
them down."""

import csv
import gzip
import io
import json
from datetime import date
from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cmrdata.cohorts.reading.cells import PLACEHOLDERS
from cmrdata.cohorts.ukbb.codes import CONDITION_CODES, PRESETS
from cmrdata.cohorts.ukbb.columns import TITLES
from cmrdata.cohorts.ukbb.table import PEOPLE_COLUMNS, Table, read_people
from cmrdata.subjects import with_groups

relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=30)
VISIT = "2016-05-20"
BEFORE, LATER = "2012-03-24", "2019-01-22"
DATED = ("53", "41280", "131354")
INSTANCED = ("53", "54", "21003", "21001", "21002", "50", "12143", "12144", "23104", "21000")
COLUMNS = list(PEOPLE_COLUMNS)
TITLE = {field: title for title, field in reversed(TITLES.items())}
Person = dict[tuple[str, int, int], str]


def person(*diagnoses: tuple[str | None, str | None], visit: str = VISIT, **cells: str) -> Person:
    """A row, by (field, instance, array): diagnoses as (code, date), cells like f21001_2="26.4"."""
    row = {("53", 2, 0): visit, ("41270", 0, 0): "", ("41280", 0, 0): ""}
    for k, (code, when) in enumerate(diagnoses):
        row["41270", 0, k], row["41280", 0, k] = code or "", when or ""
    for name, text in cells.items():
        field, instance = name[1:].split("_")
        row[field, int(instance), 0] = text
    return row


# --- the exports of data-formats 1.6: a column's name, and how a cell is written
# -------------------------------------


def tab(field: str, instance: int, array: int) -> str:
    return "f.eid" if field == "eid" else f"f.{field}.{instance}.{array}"


def plain(field: str, instance: int, array: int) -> str:
    return "eid" if field == "eid" else f"{field}-{instance}.{array}"


def stata(field: str, instance: int, array: int) -> str:
    kind = "ts" if field in DATED else "s" if field == "41270" else "n"
    return "n_eid" if field == "eid" else f"{kind}_{field}_{instance}_{array}"


def rap(field: str, instance: int, array: int) -> str:
    at = f"_i{instance}" if field in INSTANCED else ""
    return "eid" if field == "eid" else f"p{field}{at}" + (f"_a{array}" if field == "41280" else "")


def titled(field: str, instance: int, array: int) -> str:
    if field == "23104":  # shares its title with 21001
        return rap(field, instance, array)
    at = f" | Instance {instance}" if field in INSTANCED else ""
    return TITLE[field] + at + (f" | Array {array}" if field == "41280" else "")


def seed_paper(field: str, instance: int, array: int) -> str:
    names = {"31": "Sex", "21001": "BMI", "53": "Date of attendance", "34": "Year of birth"}
    return f"{names[field]}.{instance}.{array}" if field in names else tab(field, instance, array)


def with_title(code: str) -> str:
    return f"{code[:3]}.{code[3:]} Paget's disease, other (2)".replace(". ", " ") if code else ""


def decoded(field: str, text: str) -> str:
    """As the Table Exporter replaces codes."""
    if field == "31":
        return {"0": "Female", "1": "Male", "-3": "Prefer not to answer"}.get(text, text)
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    return (
        months[int(text) - 1]
        if field == "52" and text.isdecimal() and 1 <= int(text) <= 12
        else text
    )


def day_first(field: str, text: str) -> str:
    return "/".join(reversed(text.split("-"))) if field in DATED and text else text


def with_time(field: str, text: str) -> str:
    return f"{text}T00:00:00.000Z" if field in DATED and text else text


def stata_date(field: str, text: str) -> str:
    return date.fromisoformat(text).strftime("%d%b%Y").lower() if field in DATED and text else text


def as_json(codes: list[str]) -> str:
    return json.dumps([code or None for code in codes])


def as_python(codes: list[str]) -> str:
    return repr([with_title(code.lower()) or None for code in codes])


def as_pipes(codes: list[str]) -> str:
    return "|".join(codes)


def as_titled_pipes(codes: list[str]) -> str:
    return " | ".join(map(with_title, codes))


def same(_: str, text: str) -> str:
    return text


EXPORTS = {  # name of a column, delimiter, NA, cell, all codes in one cell
    "r.tab": (tab, "\t", "NA", same, None),
    "table.csv": (plain, ",", "", same, None),
    "read_again.csv": (
        lambda f, i, a: "eid" if f == "eid" else f"X{f}.{i}.{a}",
        ",",
        "NA",
        with_time,
        None,
    ),
    "stata.csv": (stata, ",", "", stata_date, None),
    "seed.tsv": (seed_paper, "\t", "", day_first, None),
    "rap.csv": (lambda *key: "participant." + rap(*key), ",", "", same, as_json),
    "rap_short.tsv": (rap, "\t", "", with_time, as_python),
    "rap_pipes.txt": (lambda *key: rap(*key).upper(), "\t", "NA", same, as_pipes),
    "titles.csv": (titled, ",", "", decoded, as_titled_pipes),
    "titles_shouted.csv": (
        lambda *key: f"  {titled(*key).upper().replace(' ', '  ')} ",
        ",",
        "",
        decoded,
        as_json,
    ),
    "two_rows.csv": (plain, ",", "NA", same, None),
    "packed.csv.gz": (plain, ",", "", same, None),
    "bom.csv": (plain, ",", "", same, None),
}


def written(people: dict[str, Person], name: str) -> bytes:
    """The table of `people` as the export `name` spells it."""
    column, delimiter, na, cell, in_one = EXPORTS[name]
    keys = sorted({key for row in people.values() for key in row})
    arrays = [key for key in keys if key[0] == "41270"]
    if in_one:
        keys = [key for key in keys if key[0] != "41270"] + arrays[:1]
    rows = [[column(*key) for key in [("eid", 0, 0), *keys]]]
    if name == "two_rows.csv":
        rows.insert(
            0,
            [
                "Encoded anonymised participant ID",
                *(TITLE.get(key[0], "Body mass index (BMI)") for key in keys),
            ],
        )
    for who, row in people.items():
        cells = [cell(key[0], row.get(key, "")) for key in keys]
        if in_one:
            codes = [row.get(key, "") for key in arrays]
            while codes and not codes[-1] and not row.get(("41280", 0, len(codes) - 1)):
                codes.pop()
            cells[-1] = in_one(codes) if codes else ""
        rows.append([f" {who} " if name == "table.csv" else who, *(text or na for text in cells)])
    file = io.StringIO()
    end = "\r\n" if name in ("bom.csv", "stata.csv") else "\n"
    quoting = csv.QUOTE_ALL if name == "table.csv" else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    data = (b"\xef\xbb\xbf" if name == "bom.csv" else b"") + file.getvalue().encode()
    return gzip.compress(data) if name.endswith("gz") else data


def read_all(
    people: dict[str, Person], folder: Path, *, export: str = "table.csv", **options
) -> Table:
    (folder / export).write_bytes(written(people, export))
    return read_people(folder / export, **options)


def read(people: dict[str, Person], folder: Path, **options) -> pd.DataFrame:
    """Of few people much may be not understood."""
    return read_all(people, folder, **{"tolerated": 1, **options}).people


def one(folder: Path, row: Person, **options) -> pd.Series:
    """The row of a single participant."""
    table = read({"SYN0001": row}, folder, **options)
    assert table.index.tolist() == ["SYN0001"]
    return table.iloc[0]


def raw(folder: Path, text: str | bytes, name: str = "raw.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table_of(folder: Path, names: list[str], *rows: list[str], name: str = "raw.csv") -> Path:
    """A CSV of these columns and rows."""
    file = io.StringIO()
    csv.writer(file).writerows([names, *rows])
    return raw(folder, file.getvalue(), name)


def said_by(folder: Path, names: list[str], *rows: list[str], **options) -> Table:
    """What a CSV of these columns and rows says; of few people much may be not understood."""
    return read_people(table_of(folder, names, *rows), **{"tolerated": 1, **options})


def check_valid(table: pd.DataFrame) -> None:
    """What every table that comes out keeps."""
    assert list(table) == COLUMNS and table.index.is_unique and table.index.name == "id"
    assert set(table.sex) <= {"F", "M", None} and set(table.diagnosis) <= {"hf", "healthy", None}
    assert set(table.state) <= {"prevalent", "incident", "none", "unknown"}
    assert table.age.dropna().between(0, 120).all() and table.bmi.dropna().between(12, 70).all()
    assert set(table[table.diagnosis == "hf"].state) <= {"prevalent"}
    assert set(table[table.diagnosis == "healthy"].state) <= {"none"}
    dated = table.state.isin(("prevalent", "incident"))
    assert table["first"][dated].notna().all() and table.visit[dated].notna().all()
    assert (table["first"] <= table.visit)[dated].tolist() == (table.state == "prevalent")[
        dated
    ].tolist()
    assert not table["first"].dropna().dt.strftime("%Y-%m-%d").isin(PLACEHOLDERS).any()
    with_groups(table.rename_axis("subject").reset_index().assign(source="ukbb"))


# --- people drawn by hypothesis
# ----------------------------------------------------------------------------------------

numbers = st.one_of(
    st.none(), st.integers(-3, 230).map(str), st.floats(-5, 230).map(lambda v: f"{v:.2f}")
)
days = st.dates(date(1995, 1, 1), date(2023, 12, 31)).map(str)
some_dates = st.one_of(st.none(), days, st.sampled_from(PLACEHOLDERS), st.just(VISIT))
some_codes = st.sampled_from(
    [None, "I500", "I501", "I110", "I10", "I132", "I420", "I421", "I252", "I48", "I219", "E119"]
)


@st.composite
def persons(draw) -> Person:
    row = person(*draw(st.lists(st.tuples(some_codes, some_dates), max_size=5)))
    optional = {
        ("31", 0): st.sampled_from(["0", "1", "-3", ""]),
        ("34", 0): st.integers(1930, 1972).map(str),
        ("52", 0): st.integers(1, 12).map(str),
        ("53", 2): some_dates,
        ("54", 2): st.sampled_from(["11025", "11026", "-1"]),
        ("53", 3): some_dates,
        ("21003", 2): st.integers(40, 82).map(str),
        ("21003", 3): st.integers(-3, 82).map(str),
        ("21000", 0): st.sampled_from(["1001", "4", "-1", "-3"]),
        ("21000", 1): st.sampled_from(["1", "5"]),
        ("22189", 0): st.floats(-7, 11).map(lambda v: f"{v:.3f}"),
        ("131354", 0): some_dates,
        **{(field, 2): numbers for field in ("21001", "21002", "50", "12143", "12144", "23104")},
        ("21001", 0): numbers,
    }
    return row | {
        (*key, 0): draw(cell) or "" for key, cell in optional.items() if draw(st.booleans())
    }


cohorts = st.lists(persons(), min_size=1, max_size=5).map(
    lambda rows: {f"SYN{k:04d}": row for k, row in enumerate(rows)} | {"SYN9999": EVERYTHING}
)
EVERYTHING = person(  # so that each field has a column in every table
    ("I500", BEFORE),
    ("I10", None),
    f31_0="1",
    f34_0="1950",
    f52_0="6",
    f53_3="",
    f54_2="11025",
    f21003_2="65",
    f21003_3="",
    f21000_0="1001",
    f21000_1="",
    f22189_0="-2.5",
    f131354_0=BEFORE,
    f21001_2="27.5",
    f21001_0="",
    f21002_2="",
    f50_2="",
    f12143_2="",
    f12144_2="",
    f23104_2="",
)
options = st.fixed_dictionaries(
    {
        "instance": st.sampled_from([2, 3]),
        "codes": st.sampled_from([*PRESETS, ["I42", "i50.1"]]),
        "without": st.sampled_from([(), ["I421", "I42.2"]]),
        "conditions": st.sampled_from([(), ("af", "mi"), tuple(CONDITION_CODES)]),
    }
)


NAMES = {
    ("eid", 0, 0): [
        "eid",
        "f.eid",
        "n_eid",
        "participant.eid",
        "Participant ID",
        "participant id ",
        "F.EID",
        "f_eid",
        "participant_id",
        "Participant.ID",
        '"eid"',
        "\ufeffeid",
        "ｅｉｄ",
    ],
    ("31", 0, 0): [
        "f.31.0.0",
        "31-0.0",
        "X31.0.0",
        "p31",
        "participant.p31",
        "n_31_0_0",
        "Sex",
        "Sex.0.0",
        " SEX",
        "f_31_0_0",
        "31_0_0",
        "X31_0_0",
        "f31_0_0",
        "sex_f31_0_0",
        "sex",
        "p31_i0",
    ],
    ("21003", 2, 0): [
        "f.21003.2.0",
        "21003-2.0",
        "X21003.2.0",
        "p21003_i2",
        "participant.p21003_i2",
        "n_21003_2_0",
        "Age when attended assessment centre | Instance 2",
        "age when attended  assessment centre|instance 2",
        "f21003_i2",
        "age_when_attended_assessment_centre_i2",
        "age_when_attended_assessment_centre_f21003_2_0",
        "Age.when.attended.assessment.centre...Instance.2",
    ],
    ("21001", 2, 0): [
        "BMI.2.0",
        "Body mass index (BMI) | Instance 2",
        "p21001_i2_a0",
        "body_mass_index_bmi_i2",
        "body_mass_index_bmi_f21001_2_0",
        "Body.mass.index..BMI....Instance.2",
    ],
    ("53", 2, 0): [
        "Date of attendance.2.0",
        "ts_53_2_0",
        "Date of attending assessment centre | Instance 2",
        "date_of_attending_assessment_centre_f53_2_0",
        "date_of_attending_assessment_centre_i2",
        "f_53_2_0",
        "53_2_0",
        "f53_i2",
        "X53_2_0",
        "DATE OF ATTENDING ASSESSMENT CENTRE - INSTANCE 2",
    ],
    ("23104", 2, 0): ["body_mass_index_bmi_f23104_2_0", "23104-2.0"],
    ("41270", 0, 7): [
        "diagnoses_icd10_f41270_0_7",
        "diagnoses_icd10_a7",
        "f.41270.0.7",
        "41270-0.7",
        "X41270.0.7",
        "s_41270_0_7",
        "p41270_a7",
    ],
    ("41270", 0, 0): [
        "participant.p41270",
        "Diagnoses - ICD10",
        "diagnoses_icd10",
        "Diagnoses...ICD10",
        "diagnoses_icd10_f41270_0_0",
    ],
    ("41280", 0, 258): [
        "participant.p41280_a258",
        "Date of first in-patient diagnosis - ICD10 | Array 258",
        "date_of_first_inpatient_diagnosis_icd10_a258",
        "Date.of.first.in.patient.diagnosis...ICD10...Array.258",
    ],
    ("131354", 0, 0): [
        "date_i50_first_reported_heart_failure",
        "p131354",
        "Date.I50.first.reported..heart.failure.",
    ],
    ("40001", 1, 0): ["Underlying (primary) cause of death: ICD10 | Instance 1", "40001-1.0"],
    ("20002", 2, 3): ["20002-2.3", "noncancer_illness_code_selfreported_f20002_2_3"],
    ("21000", 0, 0): ["Ethnic background | Instance 0", "p21000_i0"],
    ("22189", 0, 0): ["Townsend deprivation index at recruitment", "p22189"],
    ("54", 3, 0): ["UK Biobank assessment centre | Instance 3", "54-3.0"],
    ("52", 0, 0): ["Month of birth", "p52"],
    None: [
        "",
        "label",
        "hesin.eid",
        "p",
        "f.31",
        "31",
        "p31_i",
        "31-0",
        "Sex of baby",
        "participant.",
        "eid2",
        "Instance 2",
        "years_since_f53_2_0",
        "log_bmi_f21001_2_0",
        "f.31.0.0.x",
        "31-0.0_x",
        "rs53_2_0",
        "icd9_f41270_0_0",
        "53_2",
        "id",
        "IID",
    ],
}
