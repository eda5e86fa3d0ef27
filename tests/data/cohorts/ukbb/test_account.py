"""What was wanted of a table and not found, and when a study must stop."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest

from cmrdata.cohorts.reading.column_report import REPORT_COLUMNS
from cmrdata.cohorts.ukbb.table import Table, read_people, read_table
from support.ukbb_exports import (
    BEFORE,
    VISIT,
    person,
    raw,
    read_all,
    said_by,
)

ALL = f"eid,31-0.0,34-0.0,52-0.0,53-2.0,54-2.0,21000-0.0,21001-2.0,22189-0.0,41270-0.0,41280-0.0\nSYN0001,0,1950,5,{VISIT},1,1,27,-1,I10,{BEFORE}\n"


def lacking(folder: Path, *fields: str, more: str = "") -> Table:
    table = pd.read_csv(io.StringIO(ALL), dtype=str).drop(columns=[*fields])
    if more:
        table[more] = "x"
    return read_people(raw(folder, table.to_csv(index=False)))


def test_nothing_is_told_where_nothing_is_lacking(tmp_path):
    table = lacking(tmp_path)
    assert table.notes == [] and table.stop == "" and (table.columns.column != "").all()
    assert table.columns.not_understood.sum() == 0 and table.columns["rows"].eq(1).all()
    assert list(table.columns) == list(REPORT_COLUMNS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["31-0.0"], "field 31 (Sex) not found; nobody has a sex"),
        (
            ["53-2.0"],
            "field 53 (Date of attending assessment centre) of visit 2 not found; nobody's diagnoses can be placed",
        ),
        (
            ["54-2.0"],
            "field 54 (UK Biobank assessment centre) of visit 2 not found; nobody has a site",
        ),
        (
            ["21001-2.0"],
            "field 21001 (Body mass index (BMI)) of visit 2 not found; nobody has a BMI",
        ),
        (["34-0.0", "52-0.0"], "field 34 (Year of birth) not found; nobody has an age"),
        (["21000-0.0"], "field 21000 (Ethnic background) not found; nobody has an ethnicity"),
        (
            ["22189-0.0"],
            "field 22189 (Townsend deprivation index at recruitment) not found; nobody has a deprivation index",
        ),
    ],
)
def test_a_wanted_field_that_is_not_there_is_told_with_what_follows(tmp_path, fields, words):
    absent = lacking(tmp_path, *fields).columns.query("column == ''")
    assert words in absent.note.iloc[0] and absent.field.tolist() == fields


@pytest.mark.parametrize(
    ("field", "name"),
    [("31-0.0", "sex_male"), ("53-2.0", "days_since_53_2"), ("21001-2.0", "bmi at imaging")],
)
def test_a_column_that_looks_like_a_wanted_field_is_named(tmp_path, field, name):
    absent = lacking(tmp_path, field, more=name).columns.query("column == ''")
    assert f"did you mean the column {name!r}? Then name it {field}" in absent.note.iloc[0]


def test_codes_without_a_column_of_dates_name_what_may_be_it(tmp_path):
    with pytest.raises(
        ValueError,
        match="no column of field 41280 .*; is it the column 'dates_41280', then rename that",
    ):
        lacking(tmp_path, "41280-0.0", more="dates_41280")


def test_columns_of_diagnoses_in_an_unknown_spelling_are_told(tmp_path):
    names = ["eid", "53-2.0", "41270-0.0", "41280-0.0", "41270-0.1_x", "41270-0.2_x", "n_codes"]
    told = said_by(tmp_path, names, ["SYN0001", VISIT, "I10", BEFORE, "I500", "", "2"]).columns.note
    assert "2 columns spelled like field 41270, not used, e.g. '41270-0.1_x'" in told.tolist()


def test_without_the_date_of_the_visit_no_study_is_made(tmp_path):
    for instance, header in (
        (2, "eid,53-0.0,41270-0.0,41280-0.0"),
        (3, "eid,53-2.0,41270-0.0,41280-0.0"),
    ):
        path = raw(tmp_path, f"{header}\nSYN0001,{VISIT},I500,{BEFORE}\nSYN0002,{VISIT},,\n")
        with pytest.raises(
            ValueError,
            match=rf"field 53 .* of visit {instance} not found, so that none of 1 participants .* add 53-{instance}\.0",
        ):
            read_table(path, instance=instance)
        told = read_people(path, instance=instance).columns.query("column == ''").note
        assert any("only of visit" in note and "cohort.instance" in note for note in told)


@pytest.mark.parametrize(
    ("field", "text", "example"),
    [
        ("31-0.0", "2", "'2'"),
        ("31-0.0", "homme", "'homme'"),
        ("53-2.0", "42510", "99999"),
        ("53-2.0", "2016", "9999"),
        ("53-2.0", "05/06/2016", "99/99/9999"),
    ],
)
def test_a_column_that_is_written_in_another_way_stops_the_study(tmp_path, field, text, example):
    table = pd.concat([pd.read_csv(io.StringIO(ALL), dtype=str)] * 20).reset_index(drop=True)
    table["eid"] = [f"SYN{k:04d}" for k in range(20)]
    table[field] = text
    found = read_people(raw(tmp_path, table.to_csv(index=False)))
    assert (
        "is not understood, or not the same everywhere, of 20 of 20 participants, e.g. " + example
        in found.stop
    )
    row = found.columns.set_index("field").loc[field]
    assert (row.not_understood, row.example) == (20, example)


def test_what_few_write_otherwise_is_missing_and_counted(tmp_path):
    header = ["eid", "31-0.0", "53-2.0", "21001-2.0", "34-0.0", "41270-0.0", "41280-0.0"]
    rows = [[f"SYN{k:04d}", "1", VISIT, "27", "1950", "", ""] for k in range(60)]
    rows[0][1:5] = "2", "2016-05", "fat", "nineteen"
    rows[1][1:5] = "-3", "1900-01-01", "-1", "1950.5"
    rows[2][1:5] = "", "NA", "270", "NA"
    table = said_by(tmp_path, header, *rows, tolerated=0.05)
    report = table.columns.set_index("field")
    for field, counts, example, note in [
        ("31-0.0", (57, 2, 1), "9", "1 is not 0 (female), 1 (male), Female or Male; 1 no answer"),
        ("53-2.0", (57, 2, 1), "9999-99", "1 is a year or month, not a day; 1 placeholder"),
        (
            "21001-2.0",
            (57, 2, 1),
            "a+",
            "1 is no number such as 26.4; 1 no answer; 1 outside 12 to 70",
        ),
        ("34-0.0", (57, 1, 2), "", "1 is no whole number"),  # dates of birth have no example
    ]:
        row = report.loc[field]
        assert (row.understood, row.missing, row.not_understood) == counts, field
        assert row.example == example and note in row.note
    assert (
        table.people.sex.isna().sum() == 3 and table.people.bmi.isna().sum() == 3 and not table.stop
    )


def test_no_account_names_anybody(tmp_path):
    people = {
        f"SYN{k:04d}": person(
            ("I10", BEFORE),
            f34_0=f"19{50 + k}x",
            f52_0="June 1950",
            f31_0=f"SYN{k}",
            f21001_2=f"SYN{k}",
        )
        for k in range(9)
    }
    table = read_all(people, tmp_path)
    text = (
        table.columns.drop(columns=["file", "column", "field"]).to_csv()
        + "".join(table.notes)
        + table.stop
    )
    assert not re.search(r"SYN|19\d\d|June", text) and table.columns.not_understood.sum() > 20


def test_a_table_without_any_diagnosis_or_cut_at_a_column_is_refused(tmp_path):
    names = ["eid", "53-2.0", *(f"{field}-0.{k}" for field in ("41270", "41280") for k in range(3))]
    empty = [[f"SYN{k:04d}", VISIT, *[""] * 6] for k in range(120)]
    assert (
        "field 41270 (Diagnoses - ICD10) is empty for all 120 participants"
        in said_by(tmp_path, names, *empty).stop
    )
    full = [[f"SYN{k:04d}", VISIT, *["I10"] * 3, *[BEFORE] * 3] for k in range(10)]
    assert (
        "field 41270 seems cut: 10 of 120 participants fill its last column, '41270-0.2'"
        in said_by(tmp_path, names, *full, *empty[10:]).stop
    )
    assert not said_by(tmp_path, names, *full[:3], *empty[3:]).stop
