"""Diagnoses as records, a row per event."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cmrdata.cohorts.ukbb.records import record_column
from cmrdata.cohorts.ukbb.table import Table, read_people
from support.ukbb_exports import (
    BEFORE,
    LATER,
    VISIT,
    table_of,
)

PEOPLE = [["SYN0001", VISIT], ["SYN0002", VISIT], ["SYN0003", VISIT], ["SYN0004", VISIT]]


EVENTS = [
    ["SYN0001", "I500", BEFORE],
    ["SYN0001", "I10", LATER],
    ["SYN0002", "I50.9 Heart failure", LATER],
    ["SYN0003", "I10", BEFORE],
    ["SYN0077", "I500", BEFORE],
]


STATES = ["prevalent", "incident", "none", "none"]


def with_records(
    folder: Path,
    names: list[str],
    *rows: list[str],
    files: dict[str, Path] | None = None,
    **options,
) -> Table:
    people = table_of(folder, ["eid", "53-2.0"], *PEOPLE, name="people.csv")
    records = [table_of(folder, names, *rows, name="records.csv"), *(files or {}).values()]
    return read_people(people, **{"diagnoses": records, "tolerated": 1, **options})


@pytest.mark.parametrize(
    "names",
    [
        ["eid", "code", "date"],
        ["eid", "diag_icd10", "epistart"],
        ["hesin_diag.eid", "hesin_diag.diag_icd10", "hesin.epistart"],
        ["EID", "ICD10", "Event_Date"],
        ["Participant ID", "diag_icd10", "admidate"],
    ],
)
def test_a_row_per_event_is_a_source(tmp_path, names):
    table = with_records(tmp_path, names, *EVENTS)
    assert table.people.state.tolist() == STATES and table.people.case_sources.tolist() == [
        "records",
        None,
        None,
        None,
    ]
    assert "diagnosis records: 4 of 5 rows are about these participants" in table.notes
    assert "the source hospital is left out" in table.columns.note.str.cat()
    report = table.columns.set_index("column")
    assert report.loc[names[1], ["rows", "understood", "not_understood"]].tolist() == [4, 4, 0]
    assert report.loc[names[1], "used_for"] == "code of diagnoses (records)"


@pytest.mark.parametrize("pack", ["csv", "tsv", "parquet"])
def test_hesin_diag_beside_hesin_is_joined_by_spell(tmp_path, pack):
    diag = pd.DataFrame(
        [
            ["SYN0001", "1", "0", "1", "I10", ""],
            ["SYN0001", "2", "0", "2", "I500", ""],
            ["SYN0002", "1", "0", "1", "I500", ""],
            ["SYN0003", "5", "0", "1", "", "4280"],
            ["SYN0004", "9", "0", "1", "I501", ""],
        ],
        columns=["eid", "ins_index", "arr_index", "level", "diag_icd10", "diag_icd9"],
    )
    hesin = pd.DataFrame(
        [
            ["SYN0001", "1", LATER, LATER],
            ["SYN0001", "2", "", BEFORE],
            ["SYN0002", "1", "24/01/2019", BEFORE],
            ["SYN0002", "2", BEFORE, BEFORE],
            ["SYN0003", "5", BEFORE, BEFORE],
            ["SYN0004", "8", BEFORE, BEFORE],
        ],
        columns=["eid", "ins_index", "epistart", "admidate"],
    )
    paths = []
    for name, frame in (("hesin_diag", diag), ("hesin", hesin)):
        path = tmp_path / f"{name}.{pack}"
        frame.to_parquet(path) if pack == "parquet" else frame.to_csv(
            path, index=False, sep="\t" if pack == "tsv" else ","
        )
        paths.append(path)
    people = table_of(tmp_path, ["eid", "53-2.0"], *PEOPLE, name="people.txt")
    for given_paths in (paths, paths[::-1], str(tmp_path / f"hesin*.{pack}")):
        table = read_people(people, diagnoses=given_paths, tolerated=1).people
        # the last: no such spell
        assert table.state.tolist() == ["prevalent", "incident", "none", "unknown"]
    with pytest.raises(
        ValueError,
        match="codes without dates; give hesin.csv too|no column epistart, admidate or date",
    ):
        read_people(people, diagnoses=paths[0])


def test_only_a_level_may_count_and_the_others_make_no_control(tmp_path):
    names = ["eid", "diag_icd10", "epistart", "level"]
    rows = [
        ["SYN0001", "I500", BEFORE, "1"],
        ["SYN0002", "I500", BEFORE, "2"],
        ["SYN0003", "I10", BEFORE, "2"],
        ["SYN0004", "I500", BEFORE, ""],
    ]
    assert with_records(tmp_path, names, *rows).people.state.tolist() == ["prevalent"] * 2 + [
        "none",
        "prevalent",
    ]
    assert with_records(tmp_path, names, *rows, level="main").people.state.tolist() == [
        "prevalent",
        "unknown",
        "none",
        "unknown",
    ]
    assert with_records(tmp_path, names, *rows, level="secondary").people.state.tolist() == [
        "unknown",
        "prevalent",
        "none",
        "unknown",
    ]
    with pytest.raises(ValueError, match="no column level"):
        with_records(tmp_path, names[:3], *[row[:3] for row in rows], level="main")


@pytest.mark.parametrize(
    ("code", "date", "state"),
    [
        ("I10 I500", BEFORE, "unknown"),
        ("4280", BEFORE, "unknown"),
        ("", BEFORE, "unknown"),
        ("I11", BEFORE, "unknown"),
        ("I500", "", "unknown"),
        ("I500", "1900-01-01", "unknown"),
        ("I500", "2012", "unknown"),
        ("I500", "42510", "unknown"),
        ("i50.0", BEFORE, "prevalent"),
        ("I10X", "", "none"),
    ],
)
def test_a_record_that_is_not_understood_makes_no_control(tmp_path, code, date, state):
    table = with_records(tmp_path, ["eid", "code", "date"], *EVENTS[:3], ["SYN0004", code, date])
    assert table.people.state.tolist() == ["prevalent", "incident", "none", state]


def test_records_go_with_the_other_sources_and_with_conditions(tmp_path):
    people = table_of(
        tmp_path,
        ["eid", "53-2.0", "41270-0.0", "41280-0.0", "131354-0.0"],
        ["SYN0001", VISIT, "I500", LATER, ""],
        ["SYN0002", VISIT, "", "", BEFORE],
        ["SYN0003", VISIT, "I48", BEFORE, ""],
        ["SYN0004", VISIT, "", "", ""],
        name="people.csv",
    )
    records = table_of(
        tmp_path,
        ["eid", "code", "date"],
        *EVENTS,
        ["SYN0004", "I219", BEFORE],
        ["SYN0003", "I421", LATER],
    )
    table = read_people(
        people,
        diagnoses=records,
        source=["hospital", "first_occurrence"],
        conditions=["mi", "af"],
        without=["I421"],
    )
    assert table.people.state.tolist() == ["prevalent", "prevalent", "none", "none"]
    assert table.people.case_sources.tolist() == ["records", "first_occurrence", None, None]
    assert table.people.conditions.tolist() == [
        "",
        "",
        "af",
        "mi",
    ] and table.people.diagnosis.tolist() == [
        "hf",
        "hf",
        None,
        "healthy",
    ]


def test_records_of_other_people_are_refused_by_pattern(tmp_path):
    other = [[f"{k}2345", "I500", BEFORE] for k in range(1, 9)]
    with pytest.raises(
        ValueError,
        match="none of its 8 rows is about any of the 4 participants: ids are 5 digits there, 3 letters 4 digits",
    ):
        with_records(tmp_path, ["eid", "code", "date"], *other)
    for name, words in (("1,234,567", "has thousands separators"), ("", "has no participant id")):
        with pytest.raises(ValueError, match=words) as error:
            with_records(tmp_path, ["eid", "code", "date"], *EVENTS, [name, "I500", BEFORE])
        assert "SYN" not in str(error.value) and "234" not in str(error.value)
    rows = [["17", "I10", BEFORE], ["017", "I500", BEFORE]]
    with pytest.raises(
        ValueError, match="1 participants' ids stand there with leading zeros and without"
    ):
        read_people(
            table_of(tmp_path, ["eid", "53-2.0"], ["17", VISIT], name="people.csv"),
            diagnoses=table_of(tmp_path, ["eid", "code", "date"], *rows),
        )


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["eid", "date"], "no column diag_icd10"),
        (["eid", "code"], "no column epistart, admidate or date"),
        (["id", "code", "date"], "none of its 3 columns is the participants' id"),
    ],
)
def test_records_need_a_code_and_a_date(tmp_path, names, words):
    with pytest.raises(ValueError, match=f"cohort.diagnoses=.*{words}"):
        with_records(tmp_path, names, ["SYN0001"] * len(names))


def test_columns_of_records_have_many_names():
    assert record_column("hesin_diag.diag_icd10") == record_column("DIAG_ICD10") == ("code", 0)
    assert record_column("hesin.admidate") == ("date", 1) and record_column("diag_icd9_nb") is None
    assert (
        record_column("hesin.eid") == record_column("f.eid") == ("eid", 0, 0)
        and record_column("codes") is None
    )
