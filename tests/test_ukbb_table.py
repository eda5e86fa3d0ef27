"""A UK Biobank table says the same in every export's spelling, and what cannot be read is an error of ours."""

import csv
import gzip
import io
import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
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
COLUMNS = ["sex", "age", "bmi", "site", "ethnicity", "townsend", "visit", "table_flags", "state", "diagnosis", "first",
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
        rows.insert(
            0, ["Encoded anonymised participant ID", *(TITLE.get(key[0], "Body mass index (BMI)") for key in keys)]
        )
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


def check_exports_agree(folder: Path, people: dict[str, Person], chosen: dict, exports: set[str]) -> None:
    tables = {export: read(people, folder, export=export, **chosen) for export in {"table.csv", *exports}}
    for export in exports:
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


relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=30)
made = {"people": cohorts, "chosen": options}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


@relaxed
@given(**made, exports=st.sets(st.sampled_from(sorted(EXPORTS)), min_size=3, max_size=3))
def test_every_export_gives_the_same_table(folder, people, chosen, exports):
    check_exports_agree(folder, people, chosen, exports)


@pytest.mark.slow
@settings(relaxed, max_examples=500)
@given(**made)
def test_every_export_gives_the_same_table_often(folder, people, chosen):
    check_exports_agree(folder, people, chosen, set(EXPORTS))


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
@settings(relaxed, max_examples=2000)
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


# --- heart failure ---------------------------------------------------------------------------------------------------

UNDATED = ("", *PLACEHOLDERS)


@pytest.mark.parametrize(
    ("dates", "visit", "expected"),
    [([], VISIT, "none"), ([], "", "none"),
     ([BEFORE], VISIT, "prevalent"), ([VISIT], VISIT, "prevalent"), ([LATER], VISIT, "incident"),
     ([LATER, BEFORE], VISIT, "prevalent"), ([LATER, LATER], VISIT, "incident"),
     ([BEFORE], "", "unknown"), ([LATER], "", "unknown"), ([BEFORE], "1900-01-01", "unknown"),
     *(([gap], VISIT, "unknown") for gap in UNDATED), *(([gap], "", "unknown") for gap in UNDATED),
     *(([gap, BEFORE], VISIT, "prevalent") for gap in UNDATED), *(([gap, LATER], VISIT, "unknown") for gap in UNDATED)],
)  # fmt: skip
@pytest.mark.parametrize("export", ["table.csv", "rap.csv"])
def test_case_25_26_a_diagnosis_is_before_after_or_at_no_known_time(folder, dates, visit, expected, export):
    row = one(folder, person(("I10", BEFORE), *(("I500", when) for when in dates), visit=visit), export=export)
    assert row.state == expected
    assert row.diagnosis == {"prevalent": "hf", "none": "healthy"}.get(expected)
    known = sorted(when for when in dates if when not in UNDATED)
    assert row["first"] == pd.Timestamp(known[0]) if known else pd.isna(row["first"])


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("written_as", [same, day_first, with_time, stata_date])
def test_case_25_a_placeholder_makes_nobody_ill_however_it_is_written(folder, placeholder, written_as):
    text = written_as("41280", placeholder)
    row = one(folder, person(("I500", text), ("I219", text)), conditions=["mi"])
    assert (row.state, row.diagnosis, row.conditions) == ("unknown", None, "")
    assert one(folder, person(f131354_0=text), source="first_occurrence", codes="narrow").state == "unknown"


def test_case_26_who_falls_ill_after_the_visit_is_no_control(folder):
    people = {"SYN0001": person(("I500", LATER)), "SYN0002": person()}
    table = read(people, folder)
    assert table.state.tolist() == ["incident", "none"] and table.diagnosis.tolist() == [None, "healthy"]


@pytest.mark.parametrize(
    ("codes", "cases"),
    [("narrow", {"I50", "I509"}), ("standard", {"I50", "I509", "I110", "I132"}),
     ("broad", {"I50", "I509", "I110", "I132", "I255", "I420", "I426"}), (["I42"], {"I420", "I421", "I426"}),
     (["i25.5", "I50*"], {"I255", "I50", "I509"})],
)  # fmt: skip
def test_presets_and_lists_match_by_prefix(folder, codes, cases):
    everything = [
        "I50",
        "I509",
        "I110",
        "I119",
        "I132",
        "I131",
        "I255",
        "I250",
        "I420",
        "I421",
        "I426",
        "I10",
        "J50",
        "I5",
    ]
    people = {f"SYN{k:04d}": person((code, BEFORE)) for k, code in enumerate(everything[:-1])}
    table = read(people, folder, codes=codes)
    assert {code for code, said in zip(everything, table.diagnosis, strict=False) if said == "hf"} == cases


@pytest.mark.parametrize("text", ["I500", "i500", "I50.0", " I 50.0 ", "I50 0", "I50.0 Congestive heart failure", "I50X",
                                  "I50\tHeart failure", "I50"])  # fmt: skip
def test_codes_are_recognised_with_dots_spaces_and_titles(folder, text):
    assert one(folder, person((text, BEFORE)), codes="narrow").state == "prevalent"


@pytest.mark.parametrize("text", ["I10,I500", "I10;I500", "I10|I500", "Heart failure", "500", "['I500']", "I", "150.0"])
def test_what_is_no_single_code_is_refused_with_its_line(folder, text):
    row = person(("I10", BEFORE), (text, BEFORE))
    with pytest.raises(ValueError, match="line 3: field 41270 holds something that is no ICD-10 code such as I500"):
        read({"SYN0001": person(), "SYN0002": row}, folder)


@pytest.mark.parametrize(
    "cell",
    ['["I10","I500",null,"I48"]', "['I10', 'I500', None, 'I48']", "I10|I500||I48", "[I10, I500, , I48]",
     """["I10 Essential (primary) [x], y","I50.0 Crohn's \\"b\\"", null, "I48 Flutter"]""",
     """['I10 a, b', "I50.0 Crohn's", None, 'I48']""", "I10 Essential, primary|I50.0 Heart|NA|I48.9 Flutter"],
)  # fmt: skip
def test_element_k_belongs_to_date_k(folder, cell):
    header = ["eid", "p53_i2", "p41270", *(f"p41280_a{k}" for k in (3, 1, 0, 2))]  # in any order
    for dates, state, conditions in [((LATER, BEFORE, LATER, LATER), "prevalent", ""), ((BEFORE, LATER, BEFORE, BEFORE), "incident", "af"),
                                     ((BEFORE, "", BEFORE, LATER), "unknown", "")]:  # fmt: skip
        file = io.StringIO()
        csv.writer(file).writerows([header, ["SYN0001", VISIT, cell, *(dates[k] for k in (3, 1, 0, 2))]])
        row = read_table(raw(folder, file.getvalue()), conditions=["af"]).iloc[0]
        assert (row.state, row.conditions) == (state, conditions)


def test_codes_beyond_the_dates_are_undated_and_gaps_keep_their_place(folder):
    path = raw(folder, f"eid,53-2.0,41270-0.0,41270-0.2,41270-0.9,41280-0.2\nSYN0001,{VISIT},,I500,,{BEFORE}\n"
                       f"SYN0002,{VISIT},I500,,,{BEFORE}\nSYN0003,{VISIT},,,I500,{BEFORE}\n")  # fmt: skip
    assert read_table(path).state.tolist() == ["prevalent", "unknown", "unknown"]


def test_arrays_have_any_length(folder):
    for length in (1, 2, 213, 259, 700):
        row = person(*[("I10", LATER)] * (length - 1), ("I500", BEFORE))
        assert {one(folder, row, export=export).state for export in ("r.tab", "rap_short.tsv")} == {"prevalent"}


def test_who_has_an_excluding_code_is_neither_case_nor_control(folder):
    people = {"SYN0001": person(("I500", BEFORE), ("I421", LATER)), "SYN0002": person(("I422", "")), "SYN0003": person(),
              "SYN0004": person(("I500", BEFORE), ("I420", BEFORE))}  # fmt: skip
    table = read(people, folder, without=["I421", "I42.2"])
    assert table.state.tolist() == ["prevalent", "none", "none", "prevalent"]
    assert table.diagnosis.tolist() == [None, None, "healthy", "hf"]
    assert read(people, folder).diagnosis.tolist() == ["hf", "healthy", "healthy", "hf"]


def test_conditions_are_those_asked_for_and_present_at_the_visit(folder):
    row = person(("I48", BEFORE), ("I252", BEFORE), ("I219", LATER), ("I10", BEFORE))
    for asked, found in [((), ""), (("af", "ihd", "mi"), "mi;ihd;af"), (["ihd"], "ihd"), (["af"], "af")]:
        assert one(folder, row, conditions=asked).conditions == found
    for dates in ((LATER,), ("",), ("1900-01-01", LATER)):
        assert one(folder, person(*(("I219", when) for when in dates)), conditions=["mi"]).conditions == ""


def test_first_occurrence_reads_its_field_alone(folder):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person(f131354_0=BEFORE), "SYN0003": person(f131354_0=LATER),
              "SYN0004": person(f131354_0=BEFORE, visit="")}  # fmt: skip
    for codes in ("narrow", ["I50"], ["I50.*"]):
        table = read(people, folder, source="first_occurrence", codes=codes)
        assert table.state.tolist() == ["none", "prevalent", "incident", "unknown"]
    path = raw(folder, f"eid,53-2.0,131354-0.0\nSYN0001,{VISIT},{BEFORE}\n")
    assert read_table(path, source="first_occurrence", codes="narrow").diagnosis.tolist() == ["hf"]


def test_first_occurrence_goes_with_conditions_of_the_hospitals(folder):
    row = person(("I500", BEFORE), ("I48", BEFORE), f131354_0="")
    told = one(folder, row, source="first_occurrence", codes="narrow", conditions=["af"], without=["I48"])
    assert (told.state, told.diagnosis, told.conditions) == ("none", None, "af")


# --- who somebody is -------------------------------------------------------------------------------------------------


def test_case_18_each_visit_has_its_own_columns(folder):
    row = person(("I500", "2018-01-01"), f53_3="2019-05-20", f34_0="1950", f52_0="5", f21001_2="24", f21001_3="31", f54_2="1",
                 f54_3="2", f21003_2="66", f21003_3="69")  # fmt: skip
    first, repeat = (one(folder, row, instance=instance) for instance in (2, 3))
    assert (first.state, repeat.state) == ("incident", "prevalent")
    assert (first.bmi, repeat.bmi, first.site, repeat.site) == (24, 31, "1", "2")
    assert repeat.age - first.age == pytest.approx(3, abs=1e-3) and first.visit == pd.Timestamp(VISIT)


def test_case_20_what_is_missing_stays_missing(folder):
    row = one(folder, person(visit=""))
    assert [row[name] for name in ("sex", "site", "ethnicity")] == [None] * 3
    assert row[["age", "bmi", "townsend", "visit", "first"]].isna().all() and row.table_flags == ""
    assert (row.state, row.diagnosis, row.conditions) == ("none", "healthy", "")


BMI = {  # cells: BMI and its flag
    ("21001_2", "26.5"): (26.5, ""),
    ("21001_2", "26.5", "21002_2", "100", "50_2", "180", "23104_2", "30", "21001_0", "31"): (26.5, ""),
    ("21001_2", "", "21002_2", "81", "50_2", "180", "23104_2", "30", "21001_0", "31"): (25, "bmi_from_weight"),
    ("21001_2", "", "12143_2", "81", "12144_2", "180", "23104_2", "30"): (25, "bmi_from_weight"),
    ("21002_2", "100", "12144_2", "180", "23104_2", "30", "21001_0", "31"): (30, "bmi_impedance"),
    ("21002_0", "81", "50_0", "180", "21001_0", "31"): (31, "bmi_instance_0"),
    ("21001_1", "31", "21001_3", "31"): (None, ""),
    ("21001_2", "8.1", "21002_2", "81", "50_2", "180"): (25, "bmi_from_weight"),  # implausible
    ("21001_2", "265", "21002_2", "81", "50_2", "18", "23104_2", "71", "21001_0", "27"): (27, "bmi_instance_0"),
    ("21001_2", "-1", "21002_2", "-3", "50_2", "180"): (None, ""),
    ("21002_2", "81", "50_2", "1.8"): (25, "bmi_from_weight"),  # metres
    ("21001_2", "12"): (12, ""), ("21001_2", "70"): (70, ""), ("21001_2", "70.01"): (None, ""),
}  # fmt: skip


@pytest.mark.parametrize("cells", BMI)
def test_case_20_21_bmi_is_of_the_visit_or_flagged(folder, cells):
    row = one(folder, person(**{f"f{name}": text for name, text in zip(cells[::2], cells[1::2], strict=True)}))
    bmi, flag = BMI[cells]
    assert row.bmi == pytest.approx(bmi) if bmi else pd.isna(row.bmi)
    assert row.table_flags == flag


@pytest.mark.parametrize(
    ("visit", "age"),
    [("2016-05-15", 60), ("2016-05-14", 60 - 1 / 366), ("2016-05-16", 60 + 1 / 365), ("2016-04-30", 60 - 15 / 366),
     ("2016-11-15", 60 + 184 / 365), ("2026-05-15", 70)],
)  # fmt: skip
def test_case_22_age_is_counted_in_birthdays(folder, visit, age):
    row = one(folder, person(f34_0="1956", f52_0="5", f21003_2="44", visit=visit))
    assert row.age == pytest.approx(age, abs=1e-12) and row.table_flags == ""
    assert (row.age >= 60) == (visit >= "2016-05-15")  # no rounding at a band's edge


@given(st.dates(date(1930, 1, 1), date(1972, 12, 31)), st.dates(date(2006, 1, 1), date(2030, 1, 1)))
@relaxed
def test_case_22_whole_years_are_those_of_the_calendar(folder, born, visit):
    row = one(folder, person(f34_0=str(born.year), f52_0=str(born.month), visit=str(visit)))
    assert int(row.age) == visit.year - born.year - ((visit.month, visit.day) < (born.month, 15))


@pytest.mark.parametrize("cells", [{"f34_0": ""}, {"f52_0": ""}, {"f34_0": "-1"}, {"f52_0": "13"}, {"f34_0": "2090"}, {"f34_0": "19"},
                                   {"visit": ""}, {"visit": "2037-07-07"}])  # fmt: skip
def test_case_22_whole_years_stand_in_and_are_flagged(folder, cells):
    row = {"f34_0": "1950", "f52_0": "5", "f21003_2": "66", "f21022_0": "57", "f21003_0": "57", **cells}
    assert one(folder, person(**row))[["age", "table_flags"]].tolist() == [66, "age_whole_years"]
    unknown = one(folder, person(**{**row, "f21003_2": "-1"}))
    assert pd.isna(unknown.age) and unknown.table_flags == ""  # never the age at another time


def test_case_23_25_is_overweight_and_30_obese(folder):
    people = {f"SYN{k}": person(f21001_2=bmi) for k, bmi in enumerate(("24.99", "25", "29.99", "30"))}
    table = read(people, folder).rename_axis("subject").reset_index().assign(source="ukbb")
    assert with_groups(table).bmi_band.tolist() == ["normal", "overweight", "overweight", "obese"]


def test_case_24_non_answers_are_missing_and_townsend_may_be_negative(folder):
    row = one(folder, person(f31_0="-3", f54_2="-1", f21000_0="-3", f21003_2="-1", f21001_2="-1", f22189_0="-5.25"))
    assert [row.sex, row.site, row.ethnicity] == [None] * 3 and pd.isna(row.age) and pd.isna(row.bmi)
    assert row.townsend == -5.25
    row = one(
        folder, person(f31_0="Prefer not to answer", f21000_0="Do not know", f189_0="-1.5", f21003_2="Do not know")
    )
    assert [row.sex, row.ethnicity, row.townsend] == [None, None, -1.5] and pd.isna(row.age)


@pytest.mark.parametrize(
    ("text", "sex"), [("0", "F"), ("1", "M"), ("Female", "F"), ("Male", "M"), ("0.0", "F"), ("NA", None)]
)
def test_sex_0_is_female(folder, text, sex):
    assert one(folder, person(f31_0=text)).sex == sex


def test_ethnicity_is_the_first_answer_and_a_site_is_text(folder):
    cells = {"f21000_0": "-1", "f21000_1": "", "f21000_2": "3001.0", "f54_2": "11025.0"}
    assert one(folder, person(**cells))[["ethnicity", "site"]].tolist() == ["3001", "11025"]
    assert one(folder, person(f21000_0="1001", f21000_2="3001")).ethnicity == "1001"
    assert one(folder, person(f54_2="Cheadle (imaging)")).site == "Cheadle (imaging)"


@pytest.mark.parametrize("month", ["9", "09", "9.0", "September", "sept", "SEP"])
def test_months_are_numbers_or_names(folder, month):
    assert one(folder, person(f34_0="1950", f52_0=month, visit="2016-09-15")).age == 66


# --- files -----------------------------------------------------------------------------------------------------------


def test_case_27_ids_are_canonical_strings(folder):
    assert [canonical_id(name) for name in ("17.0", " 17", 17, 17.0, "SYN0001", "0017")] == ["17"] * 4 + [
        "SYN0001",
        "0017",
    ]
    path = raw(folder, f"eid,53-2.0,41270-0.0,41280-0.0\n 17.0 ,{VISIT},,\n18,{VISIT},,\n019,{VISIT},,\n")
    assert read_table(path).index.tolist() == ["17", "18", "019"]
    table = read_table(path, ids=["18.0", "17", "20"])
    assert table.index.tolist() == ["17", "18"] and table.attrs["rows"] == 3  # in the table's order


def test_participants_left_out_are_not_looked_at(folder):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person(("???", "???"), f31_0="???")}
    assert read(people, folder, ids={"SYN0001"}).state.tolist() == ["prevalent"]
    nobody = read(people, folder, ids=set())
    assert (
        nobody.empty and list(nobody) == COLUMNS and nobody.dtypes.equals(read(people, folder, ids={"SYN0001"}).dtypes)
    )


WITHDRAWN = {
    "SYN0001\nSYN0002\n": {"SYN0001", "SYN0002"},
    "eid\r\n 17.0 \r\n\r\n18": {"17", "18"},
    "\ufeffParticipant ID\n17\n": {"17"},
    "f.eid,reason\n17,moved\n18,\n": {"17", "18"},
    "reason\tparticipant.eid\nmoved\t17\n": {"17"},
    "withdrawn\n\"17\"\n": {"17"},
    "17,2020-01-01\n18,2020-01-02": {"17", "18"},
    "": set(), "eid\n": set(), "\n \n": set(),
}  # fmt: skip


@pytest.mark.parametrize("text", WITHDRAWN)
def test_case_30_withdrawn_participants_are_read(folder, text):
    assert read_exclusions(raw(folder, text, "out.csv")) == WITHDRAWN[text]


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(folder):
    text = f'"eid","20001-0.0","53-2.0","41270-0.0","41280-0.0"\n"SYN0001","a, ""b""\nc","{VISIT}","I500","{BEFORE}"\n'
    assert read_table(raw(folder, text)).state.tolist() == ["prevalent"]


def test_columns_that_are_not_needed_may_hold_anything(folder):
    data = b"eid,20001-0.0,53-2.0,41270-0.0,41280-0.0,label\n" + b"SYN0001,\xff\xfe,2016-05-20,,,x\n"
    assert read_table(raw(folder, data)).state.tolist() == ["none"]


def test_rows_may_be_longer_than_a_block(folder, monkeypatch):
    people = {f"SYN{k:04d}": person(*[("I10", LATER)] * (40 * (k % 7)), ("I500", BEFORE)) for k in range(40)}
    whole = read(people, folder)
    monkeypatch.setattr(ukbb_csv, "ROWS", 0)
    for blocks in [(64, 1 << 11, 1 << 20), (1 << 10, 1 << 14, 1 << 20), (300, 1 << 20)]:
        monkeypatch.setattr(ukbb_csv, "BLOCKS", blocks)
        for export in ("table.csv", "packed.csv.gz", "rap.csv"):
            pd.testing.assert_frame_equal(read(people, folder, export=export), whole)
    monkeypatch.setattr(ukbb_csv, "BLOCKS", (8, 16))
    with pytest.raises(ValueError, match="cannot be parsed as a table"):
        read(people, folder)


def test_lines_are_counted_across_blocks(folder, monkeypatch):
    monkeypatch.setattr(ukbb_csv, "ROWS", 0)
    monkeypatch.setattr(ukbb_csv, "BLOCKS", (256, 1 << 20))
    people = {f"SYN{k:04d}": person() for k in range(60)}
    people["SYN0047"] = person(f31_0="2")
    with pytest.raises(ValueError, match="line 49: field 31 "):
        read(people, folder)
    with pytest.raises(ValueError, match="line 50: field 31 "):
        read(people, folder, export="two_rows.csv", ids=["SYN0003", "SYN0047"])


def test_two_header_rows_in_either_order(folder):
    codes, titles = "eid,31-0.0,53-2.0,41270-0.0,41280-0.0", "Participant ID,Sex,Date of it,Diagnosis,When"
    row = f"SYN0001,0,{VISIT},I500,{BEFORE}"
    for lines in (
        [codes, row],
        [titles, codes, row],
        [codes, titles, row],
        ["", "an,export", codes, row][2:],
        ["a,b", codes, row],
    ):
        table = read_table(raw(folder, "\n".join(lines)))
        assert (
            table.index.tolist() == ["SYN0001"]
            and table.state.tolist() == ["prevalent"]
            and table.sex.tolist() == ["F"]
        )


HEADER = "eid,31-0.0,53-2.0,41270-0.0,41280-0.0\n"
FAULTS = {
    "none of its 4 columns is the participants' id. Name it eid, f.eid": "id,31-0.0,41270-0.0,41280-0.0\nSYN0001,0,,\n",
    "none of its 1 columns is": "eid;31-0.0;41270-0.0;41280-0.0\nSYN0001;0;;\n",
    "none of its 0 columns is": "",
    "columns 2 ('31-0.0') and 4 ('f.31.0.0') are the same field": "eid,31-0.0,53-2.0,f.31.0.0\nSYN0001,0,,0\n",
    "columns 1 ('eid') and 2 ('Participant ID') are the same": "eid,Participant ID\nSYN0001,SYN0001\n",
    "no column of field 41270 (Diagnoses - ICD10), which diagnoses need. Add it, with every array index it has, as f.41270.0.0, "
    "41270-0.0, X41270.0.0, p41270, s_41270_0_0 or 'Diagnoses - ICD10'": "eid,41280-0.0\nSYN0001,\n",
    "no column of field 41280 (Date of first in-patient diagnosis - ICD10)": "eid,41270-0.0\nSYN0001,\n",
    "has a header and no participants": HEADER,
    "line 3 has no participant id": HEADER + "SYN0001,,,,\n  ,0,,,\n",
    "line 2 has no participant id": HEADER + "NA,,,,\n",
    "lines 2, 4 have the same participant id, and 1 lines": HEADER + "SYN0001,,,,\nSYN0002,,,,\nSYN0001.0,,,,\n",
    "line 3 has 4 cells, the header 5": HEADER + "SYN0001,,,,\nSYN0002,,,\n",
    "line 2 has 6 cells, the header 5": HEADER + "1,SYN0001,,,,\n",
    "line 3: field 31 holds something else than 0 (female), 1 (male)": HEADER + "SYN0001,,,,\nSYN0002,2,,,\n",
    "line 2: field 53 holds text where a date belongs": HEADER + "SYN0001,0,05/20/2016,,\n",
    "line 2: field 41280 holds text where a date belongs": HEADER + f"SYN0001,0,{VISIT},I500,soon\n",
    "line 2: field 41270 holds a list that cannot be read": HEADER + f"SYN0001,0,{VISIT},\"['I50\",\n",
    "line 2: field 41280 holds a list that cannot be read": HEADER + f"SYN0001,0,{VISIT},I50,[2012\n",
    "line 2: field 21001 holds text where a number belongs": HEADER.replace("31-0.0", "21001-2.0") + 'SYN0001,"24,5",,,\n',
    "line 2 has 3 cells, the header 5": HEADER.encode() + b"SYN\xff,\xff0,\n",
    "behind line 1 there is text that is not UTF-8": HEADER.encode() + b"SYN\xff,0,,,\n",
    "cannot be read to its end (EOFError)": gzip.compress(HEADER.encode())[:-9],
    "cannot be read to its end (OSError)": gzip.compress((HEADER + f"SYN0001,0,{VISIT},,\n").encode())[:-1],
    "line 2 has 2 cells, the header 5": HEADER + 'SYN0001,"0,,,\nSYN0002,,,\n',
}  # fmt: skip


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_table_is_refused_with_a_reason_and_no_name(folder, reason):
    path = raw(folder, FAULTS[reason])
    with pytest.raises(ValueError) as error:
        read_table(path)
    assert type(error.value) is ValueError and str(error.value).startswith(f"cohort.table={path}: {reason}")
    assert "SYN" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"codes": "wide"}, "codes is 'wide'; give narrow, standard, broad or a list"), ({"codes": ["heart"]}, "codes is ['heart']"),
     ({"codes": []}, "codes is []"), ({"without": ["HCM"]}, "without is ['HCM']"), ({"source": "gp"}, "source is 'gp'; give hospital"),
     ({"conditions": ["cad"]}, "conditions is ['cad']; give a list of mi, ihd, af"), ({"conditions": "mi"}, "conditions is 'mi'"),
     ({"source": "first_occurrence"}, "source is first_occurrence, which knows I50 alone, and codes is 'standard'; give codes=narrow"),
     ({"source": "first_occurrence", "codes": ["I50", "I11"]}, "source is first_occurrence")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(folder, options, reason):
    with pytest.raises(ValueError) as error:
        read({"SYN0001": person()}, folder, **options)
    assert str(error.value).startswith(reason)


def test_first_occurrence_needs_its_field_and_conditions_the_hospitals(folder):
    path = raw(folder, "eid,41270-0.0,41280-0.0\nSYN0001,,\n")
    with pytest.raises(ValueError, match=r"field 131354 \(Date I50 first reported"):
        read_table(path, source="first_occurrence", codes="narrow")
    path = raw(folder, "eid,131354-0.0\nSYN0001,\n")
    with pytest.raises(ValueError, match="field 41270 "):
        read_table(path, source="first_occurrence", codes="narrow", conditions=["mi"])


def test_missing_files_are_named_by_their_setting(folder):
    for path in (folder / "nowhere.csv", folder):
        with pytest.raises(FileNotFoundError, match=f"cohort.table={path}: there is no such file"):
            read_table(path)
        with pytest.raises(FileNotFoundError, match=f"cohort.exclude={path}: there is no such file"):
            read_exclusions(path)
    with pytest.raises(ValueError, match="cohort.exclude=.*is no text"):
        read_exclusions(raw(folder, b"\xff\xfe\x00", "out.csv"))
