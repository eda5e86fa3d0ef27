"""The file of a UK Biobank table: the same in every export's spelling, and what cannot be read is
an error of ours."""

import bz2
import csv
import gzip
import io
import json
import lzma
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.cohorts.reading import table_files
from cmrdata.cohorts.reading.cells import PLACEHOLDERS, ZEROS
from cmrdata.cohorts.ukbb.codes import CONDITION_CODES, PRESETS
from cmrdata.cohorts.ukbb.table import read_exclusions, read_people, read_table
from support.ukbb_exports import (
    BEFORE,
    EXPORTS,
    LATER,
    NAMES,
    VISIT,
    Person,
    check_valid,
    cohorts,
    options,
    person,
    raw,
    read,
    relaxed,
    written,
)


def state(row: Person, instance: int, codes: list[str] | tuple[str, ...]) -> str:
    """The definition of 1.7, told once more and slowly."""

    def day(key: tuple[str, int, int], since: str = "1920") -> str | None:
        text = row.get(key)
        return text if text and text >= since and text not in (*PLACEHOLDERS, *ZEROS) else None

    visit = day(("53", instance, 0), "2006")
    written_codes = {k: row[key] for key in row if key[0] == "41270" and row[key] for k in [key[2]]}
    matching = [k for k, code in written_codes.items() if any(code.startswith(c) for c in codes)]
    dates = [day(("41280", 0, k)) for k in matching]
    if visit and any(when and when <= visit for when in dates):
        return "prevalent"
    gap = set(range(max(written_codes, default=-1))) - set(written_codes)
    lost = [
        k for field, _, k in row if field == "41280" and row[field, 0, k] and k not in written_codes
    ]
    if gap or lost:  # a code is missing, whichever
        return "unknown"
    if not matching:
        return "none"
    return "incident" if visit and all(dates) else "unknown"


def check_exports_agree(
    folder: Path, people: dict[str, Person], chosen: dict, exports: set[str]
) -> None:
    tables = {
        export: read(people, folder, export=export, **chosen) for export in {"table.csv", *exports}
    }
    for export in exports:
        pd.testing.assert_frame_equal(tables[export], tables["table.csv"], obj=export)
    table = tables["table.csv"]
    check_valid(table)
    assert table.index.tolist() == list(people)
    codes = chosen["codes"]
    codes = PRESETS[codes] if isinstance(codes, str) else ["I42", "I501"]
    assert table.state.tolist() == [
        state(row, chosen["instance"], codes) for row in people.values()
    ]
    for name in chosen["conditions"]:
        had = [
            state(row, chosen["instance"], CONDITION_CODES[name]) == "prevalent"
            for row in people.values()
        ]
        assert [name in text.split(";") for text in table.conditions] == had
    for row, said, text in zip(people.values(), table.diagnosis, table.state, strict=True):
        hcm = any(row[key] in ("I421", "I422") for key in row if key[0] == "41270")
        unclear = state(row, chosen["instance"], ["?"]) == "unknown"
        out = chosen["without"] and (hcm or unclear)
        assert said == (None if out else {"prevalent": "hf", "none": "healthy"}.get(text))


made = {"people": cohorts, "chosen": options}


@settings(relaxed, max_examples=12)
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
        "SYN0003": person(
            ("I10", BEFORE), ("I500", BEFORE), f31_0="0", f34_0="1950", f52_0="5", f21001_2="27.5"
        ),
        "SYN0001": person(
            ("I500", LATER), f31_0="1", f34_0="1956", f52_0="6", f21001_2="31", f54_2="11025"
        ),
    }
    table = read(people, tmp_path, export=export)
    assert table.index.tolist() == ["SYN0003", "SYN0001"]
    assert table.sex.tolist() == ["F", "M"] and table.state.tolist() == ["prevalent", "incident"]
    assert table.diagnosis.tolist() == ["hf", None] and table.site.tolist() == [None, "11025"]
    assert table.bmi.tolist() == [27.5, 31] and table.conditions.tolist() == ["", ""]
    assert table["first"].tolist() == [pd.Timestamp(BEFORE), pd.Timestamp(LATER)]
    assert table.visit.tolist() == [pd.Timestamp(VISIT)] * 2
    assert table.age.tolist() == pytest.approx([66 + 5 / 365, 59 + 340 / 366])


junk = st.one_of(
    st.sampled_from(
        [
            "",
            "NA",
            "SYN0001",
            "nan",
            "-1",
            "Infinity",
            "1e999",
            "[",
            '["I50',
            "I10,I500",
            "I500|I10",
            "[[[]]]",
            "2015-02-30",
            "31/12/2015",
            "12/31/2015",
            "0000-00-00",
            '"',
            "'",
            "I50 \u00e9",
            "\x00",
            "24,5",
            "tall",
            "['I500', None]",
            "May",
            "99999999999999999999",
            "10000-01-01",
            "2037-07-07",
            "-",
            "|",
            "[]",
        ]
    ),
    st.text(max_size=8),
)
headers = st.one_of(
    st.sampled_from([name for names in NAMES.values() for name in names]),
    st.sampled_from(
        [
            "41270-0.0",
            "41280-0.0",
            "p41280_a1",
            "p41270",
            "53-2.0",
            "p131354",
            "Weight",
            "21001-2.0",
            "189-0.0",
        ]
    ),
    st.text(max_size=6),
)
BASE = ["eid", "41270-0.0", "41280-0.0"]
spoilers = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from([b"\xff", b'"', b"\n", b",", b"\t", b"\x00", b"\r", None])
    ),
    max_size=2,
)


@st.composite
def files(draw) -> bytes:
    """A table's bytes: near to a right one, or far from it."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    if draw(st.booleans()):
        data = written(
            draw(cohorts),
            draw(st.sampled_from([name for name in EXPORTS if not name.endswith("gz")])),
        )
    else:
        rows = [draw(st.lists(headers, min_size=1, max_size=6))]
        rows[0] = [*draw(st.sampled_from([BASE, BASE, BASE, []])), *rows[0]]
        for number in range(draw(st.integers(0, 4))):
            width = len(rows[0]) + (draw(st.integers(-1, 1)) if draw(st.integers(0, 5)) == 0 else 0)
            rows.append(
                [
                    f"SYN{number:04d}",
                    *draw(st.lists(junk, min_size=max(0, width - 1), max_size=max(0, width - 1))),
                ]
            )
        file = io.StringIO()
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
        csv.writer(file, delimiter=draw(st.sampled_from(",,,\t\t;")), quoting=quoting).writerows(
            rows
        )
        data = file.getvalue().encode("utf-8", "replace")
    for place, spoiler in draw(spoilers):
        at = int(place * len(data))
        data = (
            data[:at]
            if spoiler is None
            else data[:at] + spoiler + data[at + draw(st.integers(0, 1)) :]
        )
    if draw(st.booleans()):
        return data
    packed = gzip.compress(data)
    return packed[: len(packed) - draw(st.sampled_from([0, 0, 1, 9, 30]))]


def check_table_or_error(
    folder: Path, data: bytes, chosen: dict, source: str, ids: list[str] | None
) -> None:
    if source == "first_occurrence":
        chosen = {**chosen, "codes": "narrow"}
    path = raw(folder, data)
    try:
        found = read_people(path, source=source, ids=ids, **chosen)
        table = found.people
        assert "SYN" not in found.columns.drop(columns=["file"]).to_csv() + "".join(
            [*found.notes, found.stop]
        )
        read_table(path, source=source, ids=ids, **chosen)
    except (ValueError, FileNotFoundError) as error:
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert str(error).startswith("cohort.table") and "SYN" not in str(error)
        return
    check_valid(table)
    assert ids is None or set(table.index) <= set(ids)


anything = {
    "data": files(),
    "chosen": options,
    "source": st.sampled_from(["hospital", "hospital", "first_occurrence"]),
    "ids": st.sampled_from([None, None, ["SYN0001", "SYN0002"]]),
}


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
    rows = [
        f'"SYN{k:04d}","a, ""b""{k * chr(10)}c","{VISIT}","I500","{BEFORE}"\r\n' for k in range(40)
    ]
    path = raw(tmp_path, '"eid","20001-0.0","53-2.0","41270-0.0","41280-0.0"\r\n' + "".join(rows))
    assert read_table(path).state.tolist() == ["prevalent"] * 40
    monkeypatch.setattr(table_files, "ROWS", 0)
    # line ends in cells at the edges of blocks
    monkeypatch.setattr(table_files, "BLOCKS", (100, 1 << 20))
    assert read_table(path).state.tolist() == ["prevalent"] * 40


def test_columns_that_are_not_needed_may_hold_anything(tmp_path):
    header = b"eid,20001-0.0,53-2.0,53-3.0,31-0.1,41270-0.0,41280-0.0,label\n"
    data = header + b"SYN0001,\xff\xfe,2016-05-20,another visit,another sex,,,x\n"
    assert read_table(raw(tmp_path, data)).state.tolist() == ["none"]


def test_rows_may_be_longer_than_a_block(tmp_path, monkeypatch):
    people = {
        f"SYN{k:04d}": person(*[("I10", LATER)] * (40 * (k % 7)), ("I500", BEFORE))
        for k in range(40)
    }
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
    path = raw(tmp_path, written(people, "table.csv").replace(b" SYN0047 ", b"1,000,000"))
    with pytest.raises(ValueError, match="line 49: the participant's id has thousands separators"):
        read_table(path)
    path = raw(tmp_path, written(people, "two_rows.csv").replace(b"SYN0047", b"2.35E+06"))
    with pytest.raises(
        ValueError,
        match="line 50: the participant's id is a number of 7 digits of which 3 are written",
    ):
        read_table(path)


def test_two_header_rows_in_either_order(tmp_path):
    codes, titles = (
        "eid,31-0.0,53-2.0,41270-0.0,41280-0.0",
        "Participant ID,Sex,Date of it,Diagnosis,When",
    )
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
    "none of its 0 columns is": "",
    "columns 1 ('eid') and 2 ('Participant ID') are both the participants' id": "eid,Participant ID\nSYN0001,SYN0001\n",
    "no column of field 41270 (Diagnoses - ICD10), which diagnoses need. Add it, with every array index it has, as f.41270.0.0, "
    "41270-0.0, X41270.0.0, p41270, s_41270_0_0 or 'Diagnoses - ICD10'": "eid,41280-0.0\nSYN0001,\n",
    "no column of field 41280 (Date of first in-patient diagnosis - ICD10)": "eid,41270-0.0\nSYN0001,\n",
    "has a header and no participants": HEADER,
    "line 3 has no participant id": HEADER + "SYN0001,,,,\n  ,0,,,\n",
    "line 2 has no participant id": HEADER + "NA,,,,\n",
    "line 3 has 4 cells, the header 5": HEADER + "SYN0001,,,,\nSYN0002,,,\n",
    "line 2 has 6 cells, the header 5": HEADER + "1,SYN0001,,,,\n",
    "line 2 has 3 cells, the header 5": HEADER.encode() + b"SYN\xff,\xff0,\n",
    "cannot be read to its end (EOFError)": gzip.compress(
        (HEADER + f"SYN0001,0,{VISIT},,\n" * 9).encode(), mtime=0
    )[:-9],
    "a name in the header holds a line end; look for a quote": 'eid,41270-0.0,41280-0.0,"x\nSYN0001,,,\n',
    "line 2 has 2 cells, the header 5": HEADER + 'SYN0001,"0,,,\nSYN0002,,,\n',
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_table_is_refused_with_a_reason_and_no_name(tmp_path, reason):
    path = raw(tmp_path, FAULTS[reason])
    with pytest.raises(ValueError) as error:
        read_table(path)
    assert type(error.value) is ValueError and str(error.value).startswith(
        f"cohort.table={path}: {reason}"
    )
    assert "SYN" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"codes": "wide"}, "codes is 'wide'; give narrow, standard, broad or a list"),
        ({"codes": ["heart"]}, "codes is ['heart']"),
        ({"codes": []}, "codes is []"),
        ({"without": ["HCM"]}, "without is ['HCM']"),
        ({"source": "gp"}, "source is 'gp'; give one or several of hospital"),
        ({"conditions": ["cad"]}, "conditions is ['cad']; give a list of mi, ihd, af"),
        ({"conditions": "mi"}, "conditions is 'mi'"),
        (
            {"source": "first_occurrence"},
            "source is first_occurrence, which knows I50 alone, and codes is 'standard'; give codes=narrow",
        ),
        ({"source": "first_occurrence", "codes": ["I50", "I11"]}, "source is first_occurrence"),
        ({"source": []}, "source is []"),
        (
            {"source": ["hospital", "first_occurrence"], "codes": ["I42"]},
            "source names first_occurrence, which knows I50 alone",
        ),
        ({"level": "first"}, "cohort.level is 'first'; it takes all, main, secondary"),
    ],
)
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
    for path in (tmp_path / "nowhere.csv", tmp_path, tmp_path / "*.csv"):
        with pytest.raises(
            FileNotFoundError, match=re.escape(f"cohort.table={path}: there is no such file")
        ):
            read_table(path)
        with pytest.raises(
            FileNotFoundError, match=re.escape(f"cohort.exclude={path}: there is no such file")
        ):
            read_exclusions(path)
    with pytest.raises(ValueError, match="cohort.exclude=.*is no text"):
        read_exclusions(raw(tmp_path, b"17\x00\x01\x02", "out.csv"))


# ---- kinds of files

PEOPLE = {
    "SYN0003": person(
        ("I10", BEFORE),
        ("I500", BEFORE),
        f31_0="0",
        f34_0="1950",
        f52_0="5",
        f21001_2="27.5",
        f54_2="Caf\u00e9",
    ),
    "SYN0001": person(
        ("I500", LATER), f31_0="1", f34_0="1956", f52_0="6", f21001_2="31", f54_2="11025"
    ),
}


def same_as_usual(folder: Path, path: Path) -> None:
    pd.testing.assert_frame_equal(read_table(path), read(PEOPLE, folder))


PACKED = {
    "gz": gzip.compress,
    "gz in two members": lambda data: gzip.compress(data[:90]) + gzip.compress(data[90:]),
    "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def test_packed_tables_are_read_whatever_their_name(tmp_path):
    data = written(PEOPLE, "table.csv")
    for pack in PACKED.values():
        same_as_usual(tmp_path, raw(tmp_path, pack(data), "packed"))
        torn = raw(tmp_path, pack(data)[:-6], "torn")
        with pytest.raises(ValueError, match="cannot be read to its end"):
            read_table(torn)


def test_encodings_are_recognised(tmp_path):
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252"):
        data = written(PEOPLE, "table.csv").decode().encode(encoding)
        for path in (raw(tmp_path, data), raw(tmp_path, gzip.compress(data), "packed.csv")):
            same_as_usual(tmp_path, path)
        notes = read_people(path).notes
        assert any("read as" in note for note in notes) == (encoding not in ("utf-8", "utf-8-sig"))


def test_a_byte_that_is_no_utf8_far_down_makes_the_file_latin_1(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "ROWS", 0)
    monkeypatch.setattr(table_files, "BLOCKS", (1 << 9, 1 << 20))
    people = {f"SYN{k:04d}": person(f54_2="\u00e9" if k == 90 else "11025") for k in range(99)}
    table = read_people(raw(tmp_path, written(people, "table.csv").decode().encode("latin-1")))
    assert len(table.people) == 99 and table.people.site.iloc[90] == "\u00e9"
    assert table.notes[0] == "raw.csv is not UTF-8; read as latin-1"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_line_ends_are_recognised(tmp_path, delimiter, end):
    rows = list(csv.reader(io.StringIO(written(PEOPLE, "table.csv").decode())))
    if delimiter == ";":
        rows = [[cell.replace("27.5", "27,5") for cell in row] for row in rows]
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    same_as_usual(tmp_path, raw(tmp_path, file.getvalue()))
    same_as_usual(tmp_path, raw(tmp_path, f"sep={delimiter}{end}{file.getvalue()}"))


def test_a_delimiter_within_titles_is_not_taken_for_one(tmp_path):
    text = "Participant ID\tSex\tA, b; c, d\tDiagnoses - ICD10\tDate of first in-patient diagnosis - ICD10 | Array 0\nSYN0001\tMale\tx,y\t\t\n"
    assert read_table(raw(tmp_path, text)).sex.tolist() == ["M"]


def parquet(folder: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return folder / "table.parquet"


def test_parquet_is_read_whatever_its_types(tmp_path):
    visit = pd.Timestamp(VISIT)
    columns = {
        "eid": pa.array([17.0, 18.0]),
        "p31": pa.array([0, 1]),
        "p53_i2": pa.array([visit, visit]),
        "unused": pa.array([b"x", b"y"]),
        "p54_i2": pa.array(["a", None]).dictionary_encode(),
        "p21001_i2": pa.array([27.5, np.nan]),
        "p41270": pa.array([["I10", "I500"], None]),
        "p41280_a0": pa.array([pd.Timestamp(LATER), None]).cast(pa.date32()),
        "p41280_a1": pa.array([pd.Timestamp(BEFORE).date(), None]),
    }
    table = read_people(parquet(tmp_path, **columns))
    assert table.people.index.tolist() == ["17", "18"] and table.people.state.tolist() == [
        "prevalent",
        "none",
    ]
    assert table.people.sex.tolist() == ["F", "M"] and table.people.bmi.fillna(0).tolist() == [
        27.5,
        0,
    ]
    assert table.people.site.tolist() == ["a", None] and table.people.visit.tolist() == [
        visit,
        visit,
    ]
    assert table.columns.not_understood.sum() == 0
    local = pa.array([visit.tz_localize("Europe/London")] * 2)
    assert read_people(parquet(tmp_path, **{**columns, "p53_i2": local})).people.visit.tolist() == [
        visit,
        visit,
    ]
    # 23:00 of the day before
    elsewhere = pa.array([visit.tz_localize("Europe/London").tz_convert("UTC")] * 2)
    assert (
        read_people(parquet(tmp_path, **{**columns, "p53_i2": elsewhere})).people.visit.isna().all()
    )
    with pytest.raises(ValueError, match="column 'p31' is of type bool; write it as text"):
        read_table(parquet(tmp_path, **{**columns, "p31": pa.array([True, False])}))
    with pytest.raises(ValueError, match="none of its 1 columns is the participants' id"):
        read_table(parquet(tmp_path, id=["SYN0001"]))
    raw(tmp_path, (tmp_path / "table.parquet").read_bytes()[:-9], "torn.parquet")
    with pytest.raises(ValueError, match="a Parquet file that cannot be opened"):
        read_table(tmp_path / "torn.parquet")


def test_parquet_gives_what_csv_gives(tmp_path):
    for export in ("r.tab", "rap.csv", "titles.csv"):
        text = written(PEOPLE, export)
        frame = pd.read_csv(
            io.BytesIO(text),
            sep="\t" if export == "r.tab" else ",",
            dtype=str,
            keep_default_na=False,
        )
        frame.to_parquet(tmp_path / "table.parquet")
        same_as_usual(tmp_path, tmp_path / "table.parquet")


def test_lists_in_a_parquet_keep_their_gaps(tmp_path):
    columns = {
        "eid": ["SYN0001"],
        "p53_i2": [VISIT],
        "p41270": [["I10", None, "I500"]],
        "p41280": [[LATER, None, BEFORE]],
    }
    assert read_people(parquet(tmp_path, **columns)).people.state.tolist() == ["prevalent"]
    assert json.loads("[null]") == [None]


def test_a_wide_table_is_read_fast_and_its_other_columns_are_not(tmp_path):
    names = ["eid", *(f"{90000 + k}-0.0" for k in range(5000)), "53-2.0", "41270-0.0", "41280-0.0"]
    filler = ",".join(["\xff junk"] * 5000)
    rows = [f"SYN{k:04d},{filler},{VISIT},I10,{BEFORE}" for k in range(50)]
    path = raw(tmp_path, "\n".join([",".join(names), *rows]).encode("latin-1"))  # not even decoded
    table = read_people(path)
    assert table.people.state.tolist() == ["none"] * 50 and table.notes == [
        "nobody has a sex",
        "nobody has an age",
        "nobody has a BMI",
    ]
