"""A UK Biobank table says the same in every export's spelling, and what cannot be read is an error of ours."""

import csv
import gzip
import io
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, HealthCheck, given, settings
from hypothesis import strategies as st

from cmrdata.cohort import with_groups
from cmrdata.readers import ukbb_csv
from cmrdata.readers.ukbb_columns import PLACEHOLDERS, TITLES
from cmrdata.readers.ukbb_diagnoses import CONDITION_CODES, PRESETS
from cmrdata.readers.ukbb_table import canonical_id, parse_column, read_exclusions, read_table

VISIT = "2016-05-20"
BEFORE, LATER = "2012-03-04", "2019-01-02"
DATED = ("53", "41280", "131354")
INSTANCED = ("53", "54", "21003", "21001", "21002", "50", "12143", "12144", "23104", "21000")
COLUMNS = ["sex", "age", "bmi", "site", "ethnicity", "townsend", "visit", "table_flags", "state", "first", "diagnosis",
           "conditions"]  # fmt: skip
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


# --- the exports of data-formats 1.6: a column's name, and how a cell is written -------------------------------------


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
    months = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
              "November", "December"]  # fmt: skip
    return months[int(text) - 1] if field == "52" and text.isdecimal() and 1 <= int(text) <= 12 else text


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
    "read_again.csv": (lambda f, i, a: "eid" if f == "eid" else f"X{f}.{i}.{a}", ",", "NA", with_time, None),
    "stata.csv": (stata, ",", "", stata_date, None),
    "seed.tsv": (seed_paper, "\t", "", day_first, None),
    "rap.csv": (lambda *key: "participant." + rap(*key), ",", "", same, as_json),
    "rap_short.tsv": (rap, "\t", "", with_time, as_python),
    "rap_pipes.txt": (lambda *key: rap(*key).upper(), "\t", "NA", same, as_pipes),
    "titles.csv": (titled, ",", "", decoded, as_titled_pipes),
    "titles_shouted.csv": (lambda *key: f"  {titled(*key).upper().replace(' ', '  ')} ", ",", "", decoded, as_json),
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
        rows.insert(0, ["Encoded anonymised participant ID", *(TITLE.get(key[0], "Body mass index (BMI)") for key in keys)])
    for who, row in people.items():
        cells = [cell(key[0], row.get(key, "")) for key in keys]
        if in_one:
            codes = [row.get(key, "") for key in arrays]
            while codes and not codes[-1]:
                codes.pop()
            cells[-1] = in_one(codes) if codes else ""
        rows.append([f" {who} " if name == "table.csv" else who, *(text or na for text in cells)])
    file = io.StringIO()
    end = "\r\n" if name in ("bom.csv", "stata.csv") else "\n"
    quoting = csv.QUOTE_ALL if name == "table.csv" else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)
    data = (b"\xef\xbb\xbf" if name == "bom.csv" else b"") + file.getvalue().encode()
    return gzip.compress(data) if name.endswith("gz") else data


def read(people: dict[str, Person], folder: Path, *, export: str = "table.csv", **options) -> pd.DataFrame:
    (folder / export).write_bytes(written(people, export))
    return read_table(folder / export, **options)


def one(folder: Path, row: Person, **options) -> pd.Series:
    """The row of a single participant."""
    table = read({"SYN0001": row}, folder, **options)
    assert table.index.tolist() == ["SYN0001"]
    return table.iloc[0]


def raw(folder: Path, text: str | bytes, name: str = "raw.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- names of columns ------------------------------------------------------------------------------------------------

NAMES = {
    ("eid", 0, 0): ["eid", "f.eid", "n_eid", "participant.eid", "Participant ID", "participant id ", "F.EID"],
    ("31", 0, 0): ["f.31.0.0", "31-0.0", "X31.0.0", "p31", "participant.p31", "n_31_0_0", "Sex", "Sex.0.0", " SEX"],
    ("21003", 2, 0): ["f.21003.2.0", "21003-2.0", "X21003.2.0", "p21003_i2", "participant.p21003_i2", "n_21003_2_0",
                      "Age when attended assessment centre | Instance 2",
                      "age when attended  assessment centre|instance 2"],
    ("21001", 2, 0): ["BMI.2.0", "Body mass index (BMI) | Instance 2", "p21001_i2_a0"],
    ("53", 2, 0): ["Date of attendance.2.0", "ts_53_2_0", "Date of attending assessment centre | Instance 2"],
    ("41270", 0, 7): ["f.41270.0.7", "41270-0.7", "X41270.0.7", "s_41270_0_7", "p41270_a7"],
    ("41270", 0, 0): ["participant.p41270", "Diagnoses - ICD10"],
    ("41280", 0, 258): ["participant.p41280_a258", "Date of first in-patient diagnosis - ICD10 | Array 258"],
    ("21000", 0, 0): ["Ethnic background | Instance 0", "p21000_i0"],
    ("22189", 0, 0): ["Townsend deprivation index at recruitment", "p22189"],
    ("54", 3, 0): ["UK Biobank assessment centre | Instance 3", "54-3.0"],
    ("52", 0, 0): ["Month of birth", "p52"],
    None: ["", "label", "hesin.eid", "p", "f.31", "31", "p31_i", "31-0", "Sex of baby", "participant.", "eid2", "Instance 2"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "key"), [(name, key) for key, names in NAMES.items() for name in names])
def test_every_spelling_of_a_column_is_parsed(name, key):
    assert parse_column(name) == key


@given(st.integers(1, 200_000).map(str), st.integers(0, 3), st.integers(0, 400))
def test_spellings_are_parsed_for_any_field(field, instance, array):
    for spelling in (tab, plain, stata):
        assert parse_column(spelling(field, instance, array)) == (field, instance, array)
    assert parse_column(f"participant.p{field}_i{instance}_a{array}") == (field, instance, array)


@given(st.text(max_size=60))
def test_any_text_is_a_column_or_none(text):
    key = parse_column(text)
    assert key is None or (isinstance(key[0], str) and key[1] >= 0 and key[2] >= 0)


# --- the same people in every export ---------------------------------------------------------------------------------

numbers = st.one_of(st.none(), st.integers(-3, 230).map(str), st.floats(-5, 230).map(lambda v: f"{v:.2f}"))
days = st.dates(date(1995, 1, 1), date(2023, 12, 31)).map(str)
some_dates = st.one_of(st.none(), days, st.sampled_from(PLACEHOLDERS), st.just(VISIT))
some_codes = st.sampled_from(
    [None, "I500", "I501", "I110", "I10", "I132", "I420", "I421", "I252", "I48", "I219", "E119"]
)


@st.composite
def persons(draw) -> Person:
    row = person(*draw(st.lists(st.tuples(some_codes, some_dates), max_size=5)))
    optional = {
        ("31", 0): st.sampled_from(["0", "1", "-3", ""]), ("34", 0): st.integers(1930, 1972).map(str),
        ("52", 0): st.integers(1, 12).map(str), ("53", 2): some_dates, ("54", 2): st.sampled_from(["11025", "11026", "-1"]),
        ("53", 3): some_dates, ("21003", 2): st.integers(40, 82).map(str), ("21003", 3): st.integers(-3, 82).map(str),
        ("21000", 0): st.sampled_from(["1001", "4", "-1", "-3"]), ("21000", 1): st.sampled_from(["1", "5"]),
        ("22189", 0): st.floats(-7, 11).map(lambda v: f"{v:.3f}"), ("131354", 0): some_dates,
        **{(field, 2): numbers for field in ("21001", "21002", "50", "12143", "12144", "23104")}, ("21001", 0): numbers,
    }  # fmt: skip
    return row | {(*key, 0): draw(cell) or "" for key, cell in optional.items() if draw(st.booleans())}


cohorts = st.lists(persons(), min_size=1, max_size=5).map(
    lambda rows: {f"SYN{k:04d}": row for k, row in enumerate(rows)} | {"SYN9999": EVERYTHING}
)
EVERYTHING = person(  # so that each field has a column in every table
    ("I500", BEFORE), ("I10", None), f31_0="1", f34_0="1950", f52_0="6", f53_3="", f54_2="11025", f21003_2="65",
    f21003_3="", f21000_0="1001", f21000_1="", f22189_0="-2.5", f131354_0=BEFORE, f21001_2="27.5", f21001_0="",
    f21002_2="", f50_2="", f12143_2="", f12144_2="", f23104_2="",
)  # fmt: skip
options = st.fixed_dictionaries({
    "instance": st.sampled_from([2, 3]), "codes": st.sampled_from([*PRESETS, ["I42", "i50.1"]]),
    "without": st.sampled_from([(), ["I421", "I42.2"]]), "conditions": st.sampled_from([(), ("af", "mi"), tuple(CONDITION_CODES)]),
})  # fmt: skip


def state(row: Person, instance: int, codes: list[str] | tuple[str, ...]) -> str:
    """The definition of 1.7, told once more and slowly."""

    def day(key: tuple[str, int, int]) -> str | None:
        text = row.get(key)
        return text if text and text not in PLACEHOLDERS else None

    visit = day(("53", instance, 0))
    matching = [k for field, _, k in row if field == "41270" and any(row[field, 0, k].startswith(c) for c in codes)]
    dates = [day(("41280", 0, k)) for k in matching]
    if not matching:
        return "none"
    if visit and any(when and when <= visit for when in dates):
        return "prevalent"
    return "incident" if visit and all(dates) else "unknown"


def check_exports_agree(folder: Path, people: dict[str, Person], chosen: dict) -> None:
    tables = {export: read(people, folder, export=export, **chosen) for export in EXPORTS}
    for export in EXPORTS:
        pd.testing.assert_frame_equal(tables[export], tables["table.csv"], obj=export)
    table = tables["table.csv"]
    check_valid(table)
    assert table.index.tolist() == list(people)
    codes = chosen["codes"]
    codes = PRESETS[codes] if isinstance(codes, str) else ["I42", "I501"]
    assert table.state.tolist() == [state(row, chosen["instance"], codes) for row in people.values()]
    for name in chosen["conditions"]:
        had = [state(row, chosen["instance"], CONDITION_CODES[name]) == "prevalent" for row in people.values()]
        assert [name in text.split(";") for text in table.conditions] == had
    for row, said, text in zip(people.values(), table.diagnosis, table.state, strict=True):
        hcm = any(row[key] in ("I421", "I422") for key in row if key[0] == "41270")
        assert said == (None if chosen["without"] and hcm else {"prevalent": "hf", "none": "healthy"}.get(text))


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
    assert (table["first"] <= table.visit)[dated].tolist() == (table.state == "prevalent")[dated].tolist()
    assert not table["first"].dropna().dt.strftime("%Y-%m-%d").isin(PLACEHOLDERS).any()
    with_groups(table.rename_axis("subject").reset_index().assign(source="ukbb"))


NOSHRINK=(Phase.explicit,Phase.generate)
relaxed = settings(phases=NOSHRINK, deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
thorough = settings(relaxed, max_examples=1000)
made = {"people": cohorts, "chosen": options}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


@relaxed
@given(**made)
def test_every_export_gives_the_same_table(folder, people, chosen):
    check_exports_agree(folder, people, chosen)


@pytest.mark.slow
@thorough
@given(**made)
def test_every_export_gives_the_same_table_often(folder, people, chosen):
    check_exports_agree(folder, people, chosen)


@pytest.mark.parametrize("export", EXPORTS)
def test_a_table_is_read_as_it_says(folder, export):
    people = {
        "SYN0003": person(("I10", BEFORE), ("I500", BEFORE), f31_0="0", f34_0="1950", f52_0="5", f21001_2="27.5"),
        "SYN0001": person(("I500", LATER), f31_0="1", f34_0="1956", f52_0="6", f21001_2="31", f54_2="11025"),
    }
    table = read(people, folder, export=export)
    assert table.index.tolist() == ["SYN0003", "SYN0001"] and table.attrs["rows"] == 2
    assert table.sex.tolist() == ["F", "M"] and table.state.tolist() == ["prevalent", "incident"]
    assert table.diagnosis.tolist() == ["hf", None] and table.site.tolist() == [None, "11025"]
    assert table.bmi.tolist() == [27.5, 31] and table.conditions.tolist() == ["", ""]
    assert table["first"].tolist() == [pd.Timestamp(BEFORE), pd.Timestamp(LATER)]
    assert table.visit.tolist() == [pd.Timestamp(VISIT)] * 2
    assert table.age.tolist() == pytest.approx([66 + 5 / 365, 59 + 340 / 366])


# --- whatever a file holds, a table or an error of ours --------------------------------------------------------------

junk = st.one_of(
    st.sampled_from(["", "NA", "SYN0001", "nan", "-1", "Infinity", "1e999", "[", '["I50', "I10,I500", "I500|I10", "[[[]]]",
                     "2015-02-30", "31/12/2015", "12/31/2015", "0000-00-00", '"', "'", "I50 \u00e9", "\x00", "24,5", "tall",
                     "['I500', None]", "May", "99999999999999999999", "10000-01-01", "2037-07-07", "-", "|", "[]"]),
    st.text(max_size=8),
)  # fmt: skip
headers = st.one_of(
    st.sampled_from([name for names in NAMES.values() for name in names]),
    st.sampled_from(["41270-0.0", "41280-0.0", "p41280_a1", "p41270", "53-2.0", "p131354", "Weight", "21001-2.0", "189-0.0"]),
    st.text(max_size=6),
)  # fmt: skip
spoilers = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([b"\xff", b'"', b"\n", b",", b"\t", b"\x00", b"\r", None])),
                    max_size=2)  # fmt: skip


@st.composite
def files(draw) -> bytes:
    """A table's bytes: near to a right one, or far from it."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    if draw(st.booleans()):
        data = written(draw(cohorts), draw(st.sampled_from([name for name in EXPORTS if not name.endswith("gz")])))
    else:
        rows = [draw(st.lists(headers, min_size=1, max_size=6))]
        rows[0] = [*draw(st.sampled_from([["eid", "41270-0.0", "41280-0.0"], []])), *rows[0]]
        for number in range(draw(st.integers(0, 4))):
            width = len(rows[0]) + (draw(st.integers(-1, 1)) if draw(st.integers(0, 5)) == 0 else 0)
            rows.append(
                [f"SYN{number:04d}", *draw(st.lists(junk, min_size=max(0, width - 1), max_size=max(0, width - 1)))]
            )
        file = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        csv.writer(file, delimiter=draw(st.sampled_from(",\t;")), quoting=quoting).writerows(rows)
        data = file.getvalue().encode("utf-8", "replace")
    for place, spoiler in draw(spoilers):
        at = int(place * len(data))
        data = data[:at] if spoiler is None else data[:at] + spoiler + data[at + draw(st.integers(0, 1)) :]
    if draw(st.booleans()):
        return data
    packed = gzip.compress(data)
    return packed[: len(packed) - draw(st.sampled_from([0, 0, 1, 9, 30]))]


def check_table_or_error(folder: Path, data: bytes, chosen: dict, source: str, ids: list[str] | None) -> None:
    if source == "first_occurrence":
        chosen = {**chosen, "codes": "narrow"}
    path = raw(folder, data)
    try:
        table = read_table(path, source=source, ids=ids, **chosen)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert str(error).startswith(f"cohort.table={path}: ") and "SYN" not in str(error)
        return
    check_valid(table)
    assert ids is None or set(table.index) <= set(ids)


anything = {"data": files(), "chosen": options, "source": st.sampled_from(["hospital", "hospital", "first_occurrence"]),
            "ids": st.sampled_from([None, None, ["SYN0001", "SYN0002"]])}  # fmt: skip


@relaxed
@given(**anything)
def test_a_file_gives_a_table_or_an_error_of_ours(folder, data, chosen, source, ids):
    check_table_or_error(folder, data, chosen, source, ids)


@pytest.mark.slow
@settings(relaxed, max_examples=4000)
@given(**anything)
def test_a_file_gives_a_table_or_an_error_of_ours_often(folder, data, chosen, source, ids):
    check_table_or_error(folder, data, chosen, source, ids)


@relaxed
@given(st.binary(max_size=60))
def test_exclusions_are_ids_or_an_error_of_ours(folder, data):
    try:
        found = read_exclusions(raw(folder, data, "out.txt"))
        assert all(name and name == name.strip() for name in found)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith("cohort.exclude=")
