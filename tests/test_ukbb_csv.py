"""The file of a UK Biobank table: the same in every export's spelling, and what cannot be read is an error of ours."""

import csv
import gzip
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ukbb_exports import (
    BEFORE,
    EXPORTS,
    LATER,
    VISIT,
    Person,
    check_valid,
    cohorts,
    options,
    person,
    plain,
    raw,
    read,
    relaxed,
    stata,
    tab,
    written,
)

from cmrdata.readers import table_files
from cmrdata.readers.cells import PLACEHOLDERS
from cmrdata.readers.ukbb_codes import CONDITION_CODES, PRESETS
from cmrdata.readers.ukbb_columns import parse_column
from cmrdata.readers.ukbb_table import read_exclusions, read_table

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


made = {"people": cohorts, "chosen": options}


@relaxed
@given(**made, exports=st.sets(st.sampled_from(sorted(EXPORTS)), min_size=3, max_size=3))
def test_every_export_gives_the_same_table(tmp_path, people, chosen, exports):
    check_exports_agree(tmp_path, people, chosen, exports)


@pytest.mark.slow
@settings(relaxed, max_examples=500)
@given(**made)
def test_every_export_gives_the_same_table_often(tmp_path, people, chosen):
    check_exports_agree(tmp_path, people, chosen, set(EXPORTS))


@pytest.mark.parametrize("export", EXPORTS)
def test_a_table_is_read_as_it_says(tmp_path, export):
    people = {
        "SYN0003": person(("I10", BEFORE), ("I500", BEFORE), f31_0="0", f34_0="1950", f52_0="5", f21001_2="27.5"),
        "SYN0001": person(("I500", LATER), f31_0="1", f34_0="1956", f52_0="6", f21001_2="31", f54_2="11025"),
    }
    table = read(people, tmp_path, export=export)
    assert table.index.tolist() == ["SYN0003", "SYN0001"] and table.attrs["rows"] == 2
    assert table.sex.tolist() == ["F", "M"] and table.state.tolist() == ["prevalent", "incident"]
    assert table.diagnosis.tolist() == ["hf", None] and table.site.tolist() == [None, "11025"]
    assert table.bmi.tolist() == [27.5, 31] and table.conditions.tolist() == ["", ""]
    assert table["first"].tolist() == [pd.Timestamp(BEFORE), pd.Timestamp(LATER)]
    assert table.visit.tolist() == [pd.Timestamp(VISIT)] * 2
    assert table.age.tolist() == pytest.approx([66 + 5 / 365, 59 + 340 / 366])


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
BASE = ["eid", "41270-0.0", "41280-0.0"]
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
        rows[0] = [*draw(st.sampled_from([BASE, BASE, BASE, []])), *rows[0]]
        for number in range(draw(st.integers(0, 4))):
            width = len(rows[0]) + (draw(st.integers(-1, 1)) if draw(st.integers(0, 5)) == 0 else 0)
            rows.append(
                [f"SYN{number:04d}", *draw(st.lists(junk, min_size=max(0, width - 1), max_size=max(0, width - 1)))]
            )
        file = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        csv.writer(file, delimiter=draw(st.sampled_from(",,,\t\t;")), quoting=quoting).writerows(rows)
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
def test_a_file_gives_a_table_or_an_error_of_ours(tmp_path, data, chosen, source, ids):
    check_table_or_error(tmp_path, data, chosen, source, ids)


@pytest.mark.slow
@settings(relaxed, max_examples=2000)
@given(**anything)
def test_a_file_gives_a_table_or_an_error_of_ours_often(tmp_path, data, chosen, source, ids):
    check_table_or_error(tmp_path, data, chosen, source, ids)


@relaxed
@given(st.binary(max_size=60))
def test_exclusions_are_ids_or_an_error_of_ours(tmp_path, data):
    try:
        found = read_exclusions(raw(tmp_path, data, "out.txt"))
        assert all(name and name == name.strip() for name in found)
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith("cohort.exclude=")


def test_quoted_cells_hold_delimiters_quotes_and_line_ends(tmp_path, monkeypatch):
    rows = [f'"SYN{k:04d}","a, ""b""{k * chr(10)}c","{VISIT}","I500","{BEFORE}"\r\n' for k in range(40)]
    path = raw(tmp_path, '"eid","20001-0.0","53-2.0","41270-0.0","41280-0.0"\r\n' + "".join(rows))
    assert read_table(path).state.tolist() == ["prevalent"] * 40
    monkeypatch.setattr(table_files, "ROWS", 0)
    monkeypatch.setattr(table_files, "BLOCKS", (100, 1 << 20))  # line ends in cells at the edges of blocks
    assert read_table(path).state.tolist() == ["prevalent"] * 40


def test_columns_that_are_not_needed_may_hold_anything(tmp_path):
    header = b"eid,20001-0.0,53-2.0,53-3.0,31-0.1,41270-0.0,41280-0.0,label\n"
    data = header + b"SYN0001,\xff\xfe,2016-05-20,another visit,another sex,,,x\n"
    assert read_table(raw(tmp_path, data)).state.tolist() == ["none"]


def test_rows_may_be_longer_than_a_block(tmp_path, monkeypatch):
    people = {f"SYN{k:04d}": person(*[("I10", LATER)] * (40 * (k % 7)), ("I500", BEFORE)) for k in range(40)}
    whole = read(people, tmp_path)
    monkeypatch.setattr(table_files, "ROWS", 0)
    for blocks in [(64, 1 << 11, 1 << 20), (1 << 10, 1 << 14, 1 << 20), (300, 1 << 20)]:
        monkeypatch.setattr(table_files, "BLOCKS", blocks)
        for export in ("table.csv", "packed.csv.gz", "rap.csv"):
            pd.testing.assert_frame_equal(read(people, tmp_path, export=export), whole)
    monkeypatch.setattr(table_files, "BLOCKS", (8, 16))
    with pytest.raises(ValueError, match="cannot be parsed as a table"):
        read(people, tmp_path)


def test_lines_are_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "ROWS", 0)
    monkeypatch.setattr(table_files, "BLOCKS", (256, 1 << 20))
    people = {f"SYN{k:04d}": person() for k in range(60)}
    people["SYN0047"] = person(f31_0="2")
    with pytest.raises(ValueError, match="line 49: field 31 "):
        read(people, tmp_path)
    with pytest.raises(ValueError, match="line 50: field 31 "):
        read(people, tmp_path, export="two_rows.csv", ids=["SYN0003", "SYN0047"])


def test_two_header_rows_in_either_order(tmp_path):
    codes, titles = "eid,31-0.0,53-2.0,41270-0.0,41280-0.0", "Participant ID,Sex,Date of it,Diagnosis,When"
    row = f"SYN0001,0,{VISIT},I500,{BEFORE}"
    for lines in (
        [codes, row],
        [titles, codes, row],
        [codes, titles, row],
        ["", "an,export", codes, row][2:],
        ["a,b", codes, row],
    ):
        table = read_table(raw(tmp_path, "\n".join(lines)))
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
    "cannot be read to its end (EOFError)": gzip.compress(HEADER.encode(), mtime=0)[:-9],
    "cannot be read to its end (OSError)": gzip.compress((HEADER + f"SYN0001,0,{VISIT},,\n").encode(), mtime=0)[:-1],
    "line 2 has 2 cells, the header 5": HEADER + 'SYN0001,"0,,,\nSYN0002,,,\n',
}  # fmt: skip


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_table_is_refused_with_a_reason_and_no_name(tmp_path, reason):
    path = raw(tmp_path, FAULTS[reason])
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
def test_settings_that_mean_nothing_are_refused(tmp_path, options, reason):
    with pytest.raises(ValueError) as error:
        read({"SYN0001": person()}, tmp_path, **options)
    assert str(error.value).startswith(reason)


def test_first_occurrence_needs_its_field_and_conditions_the_hospitals(tmp_path):
    path = raw(tmp_path, "eid,41270-0.0,41280-0.0\nSYN0001,,\n")
    with pytest.raises(ValueError, match=r"field 131354 \(Date I50 first reported"):
        read_table(path, source="first_occurrence", codes="narrow")
    path = raw(tmp_path, "eid,131354-0.0\nSYN0001,\n")
    with pytest.raises(ValueError, match="field 41270 "):
        read_table(path, source="first_occurrence", codes="narrow", conditions=["mi"])


def test_missing_files_are_named_by_their_setting(tmp_path):
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"cohort.table={path}: there is no such file"):
            read_table(path)
        with pytest.raises(FileNotFoundError, match=f"cohort.exclude={path}: there is no such file"):
            read_exclusions(path)
    with pytest.raises(ValueError, match="cohort.exclude=.*is no text"):
        read_exclusions(raw(tmp_path, b"\xff\xfe\x00", "out.csv"))
