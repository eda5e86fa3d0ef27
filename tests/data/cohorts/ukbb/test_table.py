"""Who the people of a UK Biobank table are at a visit, and whether their heart had failed by
then."""

import csv
import io
import json
import re
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.reading.cells import PLACEHOLDERS
from cmrdata.cohorts.reading.column_report import REPORT_COLUMNS
from cmrdata.cohorts.ukbb.table import Table, read_exclusions, read_people, read_table
from cmrdata.subjects import with_groups
from support.ukbb_exports import (
    BEFORE,
    COLUMNS,
    LATER,
    VISIT,
    day_first,
    one,
    person,
    raw,
    read,
    read_all,
    relaxed,
    same,
    stata_date,
    with_time,
)

UNDATED = ("", *PLACEHOLDERS)


@pytest.mark.parametrize(
    ("dates", "visit", "expected"),
    [
        ([], VISIT, "none"),
        ([], "", "none"),
        ([BEFORE], VISIT, "prevalent"),
        ([VISIT], VISIT, "prevalent"),
        ([LATER], VISIT, "incident"),
        ([LATER, BEFORE], VISIT, "prevalent"),
        ([LATER, LATER], VISIT, "incident"),
        ([BEFORE], "", "unknown"),
        ([LATER], "", "unknown"),
        ([BEFORE], "1900-01-01", "unknown"),
        *(([gap], VISIT, "unknown") for gap in UNDATED),
        *(([gap], "", "unknown") for gap in UNDATED),
        *(([gap, BEFORE], VISIT, "prevalent") for gap in UNDATED),
        *(([gap, LATER], VISIT, "unknown") for gap in UNDATED),
    ],
)
@pytest.mark.parametrize("export", ["table.csv", "rap.csv"])
def test_case_25_26_a_diagnosis_is_before_after_or_at_no_known_time(
    tmp_path, dates, visit, expected, export
):
    row = one(
        tmp_path,
        person(("I10", BEFORE), *(("I500", when) for when in dates), visit=visit),
        export=export,
    )
    assert row.state == expected
    assert row.diagnosis == {"prevalent": "hf", "none": "healthy"}.get(expected)
    known = sorted(when for when in dates if when not in UNDATED)
    assert row["first"] == pd.Timestamp(known[0]) if known else pd.isna(row["first"])


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
@pytest.mark.parametrize("written_as", [same, day_first, with_time, stata_date])
def test_case_25_a_placeholder_makes_nobody_ill_however_it_is_written(
    tmp_path, placeholder, written_as
):
    text = written_as("41280", placeholder)
    row = one(tmp_path, person(("I500", text), ("I219", text)), conditions=["mi"])
    assert (row.state, row.diagnosis, row.conditions) == ("unknown", None, "")
    assert (
        one(tmp_path, person(f131354_0=text), source="first_occurrence", codes="narrow").state
        == "unknown"
    )


def test_case_26_who_falls_ill_after_the_visit_is_no_control(tmp_path):
    people = {"SYN0001": person(("I500", LATER)), "SYN0002": person()}
    table = read(people, tmp_path)
    assert table.state.tolist() == ["incident", "none"] and table.diagnosis.tolist() == [
        None,
        "healthy",
    ]


@pytest.mark.parametrize(
    ("codes", "cases"),
    [
        ("narrow", {"I50", "I509"}),
        ("standard", {"I50", "I509", "I110", "I132"}),
        ("broad", {"I50", "I509", "I110", "I132", "I255", "I420", "I426"}),
        (["I42"], {"I420", "I421", "I426"}),
        (["i25.5", "I50*"], {"I255", "I50", "I509"}),
    ],
)
def test_presets_and_lists_match_by_prefix(tmp_path, codes, cases):
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
    table = read(people, tmp_path, codes=codes)
    assert {
        code for code, said in zip(everything, table.diagnosis, strict=False) if said == "hf"
    } == cases


def cells(folder: Path, names: list[str], *rows: list[str], **options) -> Table:
    """What a CSV of these columns and rows says; of few people much may be not understood."""
    file = io.StringIO()
    csv.writer(file).writerows([names, *rows])
    return read_people(raw(folder, file.getvalue()), **{"tolerated": 1, **options})


@pytest.mark.parametrize(
    "cell",
    [
        '["I10","I500","E119","I48"]',
        "['I10', 'I500', 'E119', 'I48']",
        "I10|I500|E119|I48",
        "[I10, I500, E119, I48]",
        """["I10 Essential (primary) [x], y","I50.0 Crohn's \\"b\\"", "E11.9 Type 2 diabetes", "I48 Flutter"]""",
        "I10 Essential, primary|I50.0 Heart|E11.9 Diabetes|I48.9 Flutter",
    ],
)
def test_element_k_belongs_to_date_k(tmp_path, cell):
    header = ["eid", "p53_i2", "p41270", *(f"p41280_a{k}" for k in (3, 1, 0, 2))]  # in any order
    for dates, state, conditions in [
        ((LATER, BEFORE, LATER, LATER), "prevalent", ""),
        ((BEFORE, LATER, BEFORE, BEFORE), "incident", "af"),
        ((BEFORE, "", BEFORE, LATER), "unknown", ""),
    ]:
        row = cells(
            tmp_path,
            header,
            ["SYN0001", VISIT, cell, *(dates[k] for k in (3, 1, 0, 2))],
            conditions=["af"],
        ).people.iloc[0]
        assert (row.state, row.conditions) == (state, conditions)


def in_lists(values: list[str]) -> dict[str, str]:
    return {"json": json.dumps(values), "python": repr(values), "pipes": "|".join(values)}


@pytest.mark.parametrize("form", in_lists([]))
def test_dates_may_share_a_cell_too(tmp_path, form):
    rows = {
        "prevalent": (["I10", "I48", "I500"], [LATER, LATER, BEFORE]),
        "incident": (["I500", "I48"], [LATER, BEFORE]),
        "unknown": (["I500", "I48"], [BEFORE]),  # whose date it is nobody knows
        "none": (["I10", "I48"], [BEFORE]),
    }
    lines = [
        [f"SYN{k:04d}", VISIT, *(in_lists(values)[form] for values in row)]
        for k, row in enumerate(rows.values())
    ]
    table = cells(tmp_path, ["eid", "p53_i2", "p41270", "p41280"], *lines).people
    assert table.state.tolist() == list(rows)


PAIRED = {  # codes, dates: state
    "all there": (["I10", "I500"], [BEFORE, BEFORE], "prevalent"),
    "nobody ill": (["I10", "E119"], [BEFORE, BEFORE], "none"),
    "no code": ([], [], "none"),
    "a date fewer": (["I10", "I500"], [BEFORE], "unknown"),
    "a date fewer, nobody ill": (["I10", "E119"], [BEFORE], "none"),
    "a date more": (["I10"], [BEFORE, BEFORE], "unknown"),
    "a placeholder more": (["I10"], [BEFORE, "1900-01-01"], "unknown"),
    "dates and no code": ([], [BEFORE], "unknown"),
    "a date more, ill for certain": (["I500"], [BEFORE, BEFORE], "prevalent"),
    "a gap": (["I10", "", "E119"], [BEFORE, "", BEFORE], "unknown"),
    "a gap with a date": (["I10", "", "E119"], [BEFORE, BEFORE, BEFORE], "unknown"),
    "a gap, ill for certain": (["I10", "", "I500"], [BEFORE, "", BEFORE], "prevalent"),
    "a gap, ill later": (["I10", "", "I500"], [BEFORE, "", LATER], "unknown"),
    "a gap among dates": (["I10", "I500", "I501"], [BEFORE, "", BEFORE], "prevalent"),
}


@pytest.mark.parametrize("case", PAIRED)
def test_what_has_lost_its_partner_makes_nobody_healthy(tmp_path, case):
    codes, dates, state = PAIRED[case]
    whole = person(("I10", BEFORE), ("I10", BEFORE), ("I10", BEFORE))
    row = person()
    row |= {("41270", 0, k): code for k, code in enumerate(codes)} | {
        ("41280", 0, k): when for k, when in enumerate(dates)
    }
    for export in ("table.csv", "stata.csv"):
        assert read({"SYN0001": row, "SYN0002": whole}, tmp_path, export=export).state.tolist() == [
            state,
            "none",
        ], export
    in_one = [["SYN0001", VISIT, "|".join(codes), *([*dates, "", "", ""][:3])]]
    names = ["eid", "p53_i2", "p41270", *(f"p41280_a{k}" for k in range(3))]
    shifted = "a date more" in case and codes == ["I500"]  # a code may be lost before it
    assert cells(tmp_path, names, *in_one).people.state.tolist() == [
        "unknown" if shifted else state
    ]


def test_arrays_of_columns_have_gaps_of_their_own(tmp_path):
    names = ["eid", "53-2.0", "41270-0.9", "41270-0.0", "41270-0.2", "41280-0.2", "41280-0.0"]
    rows = [
        ["SYN0001", VISIT, "", "I10", "I500", BEFORE, BEFORE],
        ["SYN0002", VISIT, "", "I10", "I501", LATER, BEFORE],
        ["SYN0003", VISIT, "", "I10", "", "", BEFORE],
        ["SYN0004", VISIT, "I500", "I10", "", "", BEFORE],
        ["SYN0005", VISIT, "", "", "E119", BEFORE, ""],
    ]
    table = cells(tmp_path, names, *rows)
    assert table.people.state.tolist() == ["prevalent", "unknown", "none", "unknown", "unknown"]
    told = table.columns[table.columns.column == ""].note.tolist()
    assert any(
        "field 41270 lacks 7 columns before its last one, the first with array index 1" in note
        for note in told
    )
    assert any(
        "field 41280 lacks 1 of the 3 columns that field 41270 has: such a diagnosis has no date"
        in note
        for note in told
    )


JOINED = [
    "I10 I500",
    "I10\tI500",
    "I10\nI500",
    "I10/I500",
    "I10;I500",
    "I10,I500",
    "I10 Essential, I50.0 Heart failure",
    "I10 High;I50.0 Heart",
    "i10 i500",
    "4280",
    "I5",
    "I10&semi;I500",
    "Heart failure",
    "{I10,I500}",
    "['I10', 'I500'",
    "I10 and I50",
]


@pytest.mark.parametrize("cell", JOINED)
@pytest.mark.parametrize("column", ["p41270", "41270-0.0", "Diagnoses - ICD10"])
def test_a_cell_that_is_not_understood_whole_makes_no_control(tmp_path, cell, column):
    names = ["eid", "p53_i2", column, "p41280_a0", "p41280_a1"]
    rows = [
        ["SYN0001", VISIT, cell, LATER, BEFORE],
        *([f"SYN{k:04d}", VISIT, "I10", BEFORE, ""] for k in range(2, 40)),
    ]
    table = cells(tmp_path, names, *rows, tolerated=0.05)
    assert (
        table.people.state.tolist() == ["unknown", *["none"] * 38]
        and table.people.diagnosis.isna().sum() == 1
    )
    assert not table.stop and any(
        "1 participant unclear (a cell of codes is not understood)" in note for note in table.notes
    )
    row = table.columns.set_index("field").loc["41270-0.0"]
    assert (
        (row.rows, row.understood, row.missing, row.not_understood) == (39, 38, 0, 1)
        and row.example
        and row.note
    )
    few = cells(tmp_path, names, *rows[:3], tolerated=0.05)
    assert few.stop.startswith(
        "cohort.table: the diagnoses of 1 of 3 participants are not understood whole (1 hospital: a cell of codes"
    )
    assert f"in column {column!r}" in few.stop


def test_a_code_cut_short_of_one_that_counts_makes_no_control(tmp_path):
    people = {
        "SYN0001": person(("I11", BEFORE)),
        "SYN0002": person(("I50", BEFORE)),
        "SYN0003": person(("I119", BEFORE)),
        "SYN0004": person(("I11", BEFORE), ("I501", BEFORE)),
        "SYN0005": person(("I42", BEFORE)),
    }
    assert read(people, tmp_path).state.tolist() == [
        "unknown",
        "prevalent",
        "none",
        "prevalent",
        "none",
    ]
    assert read(people, tmp_path, codes="narrow").state.tolist() == [
        "none",
        "prevalent",
        "none",
        "prevalent",
        "none",
    ]
    assert read(people, tmp_path, codes="broad").state.tolist() == [
        "unknown",
        "prevalent",
        "none",
        "prevalent",
        "unknown",
    ]
    left = read(people, tmp_path, codes="narrow", without=["I421"])
    assert left.diagnosis.tolist() == ["healthy", "hf", "healthy", "hf", None]


def test_a_condition_that_is_unclear_is_flagged(tmp_path):
    people = {
        "SYN0001": person(("I25", BEFORE)),
        "SYN0002": person(("I219", "")),
        "SYN0003": person(("I219", BEFORE)),
        "SYN0004": person(),
    }
    table = read(people, tmp_path, conditions=["mi", "ihd"])
    assert table.conditions.tolist() == ["ihd", "", "mi;ihd", ""]
    assert table.table_flags.tolist() == ["mi_unclear", "mi_unclear;ihd_unclear", "", ""]


def test_arrays_have_any_length(tmp_path):
    for length in (1, 2, 213, 259, 700):
        row = person(*[("I10", LATER)] * (length - 1), ("I500", BEFORE))
        assert {
            one(tmp_path, row, export=export).state for export in ("r.tab", "rap_short.tsv")
        } == {"prevalent"}


def test_who_has_an_excluding_code_is_neither_case_nor_control(tmp_path):
    people = {
        "SYN0001": person(("I500", BEFORE), ("I421", LATER)),
        "SYN0002": person(("I422", "")),
        "SYN0003": person(),
        "SYN0004": person(("I500", BEFORE), ("I420", BEFORE)),
    }
    table = read(people, tmp_path, without=["I421", "I42.2"])
    assert table.state.tolist() == ["prevalent", "none", "none", "prevalent"]
    assert table.diagnosis.tolist() == [None, None, "healthy", "hf"]
    assert read(people, tmp_path).diagnosis.tolist() == ["hf", "healthy", "healthy", "hf"]


def test_conditions_are_those_asked_for_and_present_at_the_visit(tmp_path):
    row = person(("I48", BEFORE), ("I252", BEFORE), ("I219", LATER), ("I10", BEFORE))
    for asked, found in [
        ((), ""),
        (("af", "ihd", "mi"), "mi;ihd;af"),
        (["ihd"], "ihd"),
        (["af"], "af"),
    ]:
        assert one(tmp_path, row, conditions=asked).conditions == found
    for dates in ((LATER,), ("",), ("1900-01-01", LATER)):
        row = one(tmp_path, person(*(("I219", when) for when in dates)), conditions=["mi"])
        assert row.conditions == "" and row.table_flags == (
            "" if dates == (LATER,) else "mi_unclear"
        )


def test_first_occurrence_reads_its_field_alone(tmp_path):
    people = {
        "SYN0001": person(("I500", BEFORE)),
        "SYN0002": person(f131354_0=BEFORE),
        "SYN0003": person(f131354_0=LATER),
        "SYN0004": person(f131354_0=BEFORE, visit=""),
    }
    for codes in ("narrow", ["I50"], ["I50.*"]):
        table = read(people, tmp_path, source="first_occurrence", codes=codes)
        assert table.state.tolist() == ["none", "prevalent", "incident", "unknown"]
    path = raw(tmp_path, f"eid,53-2.0,131354-0.0\nSYN0001,{VISIT},{BEFORE}\n")
    assert read_table(path, source="first_occurrence", codes="narrow").diagnosis.tolist() == ["hf"]


def test_first_occurrence_goes_with_conditions_of_the_hospitals(tmp_path):
    row = person(("I500", BEFORE), ("I48", BEFORE), f131354_0="")
    told = one(
        tmp_path, row, source="first_occurrence", codes="narrow", conditions=["af"], without=["I48"]
    )
    assert (told.state, told.diagnosis, told.conditions) == ("none", None, "af")


def test_case_18_each_visit_has_its_own_columns(tmp_path):
    row = person(
        ("I500", "2018-01-01"),
        f53_3="2019-05-20",
        f34_0="1950",
        f52_0="5",
        f21001_2="24",
        f21001_3="31",
        f54_2="1",
        f54_3="2",
        f21003_2="66",
        f21003_3="69",
    )
    first, repeat = (one(tmp_path, row, instance=instance) for instance in (2, 3))
    assert (first.state, repeat.state) == ("incident", "prevalent")
    assert (first.bmi, repeat.bmi, first.site, repeat.site) == (24, 31, "1", "2")
    assert repeat.age - first.age == pytest.approx(3, abs=1e-3) and first.visit == pd.Timestamp(
        VISIT
    )


def test_case_20_what_is_missing_stays_missing(tmp_path):
    row = one(tmp_path, person(visit=""))
    assert [row[name] for name in ("sex", "site", "ethnicity")] == [None] * 3
    assert row[["age", "bmi", "townsend", "visit", "first"]].isna().all() and row.table_flags == ""
    assert (row.state, row.diagnosis, row.conditions) == ("none", "healthy", "")


BMI = {  # cells: BMI and its flag
    ("21001_2", "26.5"): (26.5, ""),
    ("21001_2", "26.5", "21002_2", "100", "50_2", "180", "23104_2", "30", "21001_0", "31"): (
        26.5,
        "",
    ),
    ("21001_2", "", "21002_2", "81", "50_2", "180", "23104_2", "30", "21001_0", "31"): (
        25,
        "bmi_from_weight",
    ),
    ("21001_2", "", "12143_2", "81", "12144_2", "180", "23104_2", "30"): (25, "bmi_from_weight"),
    ("21002_2", "97.2", "12144_2", "180", "23104_2", "31", "21001_0", "31"): (
        30,
        "bmi_from_weight",
    ),
    ("12143_2", "97.2", "50_2", "180", "23104_2", "31"): (30, "bmi_from_weight"),
    ("21002_2", "97.2", "12143_2", "81", "50_2", "180", "12144_2", "170"): (30, "bmi_from_weight"),
    ("12143_2", "97.2", "50_2", "180", "12144_2", "170"): (30, "bmi_from_weight"),
    ("21002_2", "97.2 kg", "12144_2", "1,80 m"): (30, "bmi_from_weight"),
    ("21002_2", "97,2", "50_2", "180 cm"): (30, "bmi_from_weight"),
    ("21002_2", "97.2", "50_0", "180", "23104_2", "31"): (31, "bmi_impedance"),
    ("21001_2", "26,5 kg/m2"): (26.5, ""),
    ("21001_2", "-818", "23104_2", "30"): (30, "bmi_impedance"),
    ("21002_0", "81", "50_0", "180", "21001_0", "31"): (31, "bmi_instance_0"),
    ("21001_1", "31", "21001_3", "31"): (None, ""),
    ("21001_2", "8.1", "21002_2", "81", "50_2", "180"): (25, "bmi_from_weight"),  # implausible
    ("21001_2", "265", "21002_2", "81", "50_2", "18", "23104_2", "71", "21001_0", "27"): (
        27,
        "bmi_instance_0",
    ),
    ("21001_2", "-1", "21002_2", "-3", "50_2", "180"): (None, ""),
    ("21002_2", "81", "50_2", "1.8"): (25, "bmi_from_weight"),  # metres
    ("21001_2", "12"): (12, ""),
    ("21001_2", "70"): (70, ""),
    ("21001_2", "70.01"): (None, ""),
}


@pytest.mark.parametrize("cells", BMI)
def test_case_20_21_bmi_is_of_the_visit_or_flagged(tmp_path, cells):
    row = one(
        tmp_path,
        person(**{f"f{name}": text for name, text in zip(cells[::2], cells[1::2], strict=True)}),
    )
    bmi, flag = BMI[cells]
    assert row.bmi == pytest.approx(bmi) if bmi else pd.isna(row.bmi)
    assert row.table_flags == flag


@pytest.mark.parametrize(
    ("visit", "age"),
    [
        ("2016-05-15", 60),
        ("2016-05-14", 60 - 1 / 366),
        ("2016-05-16", 60 + 1 / 365),
        ("2016-04-30", 60 - 15 / 366),
        ("2016-11-15", 60 + 184 / 365),
        ("2026-05-15", 70),
    ],
)
def test_case_22_age_is_counted_in_birthdays(tmp_path, visit, age):
    row = one(tmp_path, person(f34_0="1956", f52_0="5", f21003_2="44", visit=visit))
    assert row.age == pytest.approx(age, abs=1e-12) and row.table_flags == ""
    assert (row.age >= 60) == (visit >= "2016-05-15")  # no rounding at a band's edge


@given(st.dates(date(1930, 1, 1), date(1972, 12, 31)), st.dates(date(2006, 1, 1), date(2030, 1, 1)))
@relaxed
def test_case_22_whole_years_are_those_of_the_calendar(tmp_path, born, visit):
    row = one(tmp_path, person(f34_0=str(born.year), f52_0=str(born.month), visit=str(visit)))
    assert int(row.age) == visit.year - born.year - ((visit.month, visit.day) < (born.month, 15))


@pytest.mark.parametrize(
    "cells",
    [
        {"f34_0": ""},
        {"f52_0": ""},
        {"f34_0": "-1"},
        {"f52_0": "13"},
        {"f34_0": "2090"},
        {"f34_0": "19"},
        {"visit": ""},
        {"visit": "2037-07-07"},
    ],
)
def test_case_22_whole_years_stand_in_and_are_flagged(tmp_path, cells):
    row = {
        "f34_0": "1950",
        "f52_0": "5",
        "f21003_2": "66",
        "f21022_0": "57",
        "f21003_0": "57",
        **cells,
    }
    assert one(tmp_path, person(**row))[["age", "table_flags"]].tolist() == [66, "age_whole_years"]
    unknown = one(tmp_path, person(**{**row, "f21003_2": "-1"}))
    assert pd.isna(unknown.age) and unknown.table_flags == ""  # never the age at another time


def test_case_23_25_is_overweight_and_30_obese(tmp_path):
    people = {
        f"SYN{k}": person(f21001_2=bmi) for k, bmi in enumerate(("24.99", "25", "29.99", "30"))
    }
    table = read(people, tmp_path).rename_axis("subject").reset_index().assign(source="ukbb")
    assert with_groups(table).bmi_band.tolist() == ["normal", "overweight", "overweight", "obese"]


def test_case_24_non_answers_are_missing_and_townsend_may_be_negative(tmp_path):
    row = one(
        tmp_path,
        person(
            f31_0="-3", f54_2="-1", f21000_0="-3", f21003_2="-1", f21001_2="-1", f22189_0="-5.25"
        ),
    )
    assert (
        [row.sex, row.site, row.ethnicity] == [None] * 3 and pd.isna(row.age) and pd.isna(row.bmi)
    )
    assert row.townsend == -5.25
    row = one(
        tmp_path,
        person(
            f31_0="Prefer not to answer",
            f21000_0="Do not know",
            f189_0="-1.5",
            f21003_2="Do not know",
        ),
    )
    assert [row.sex, row.ethnicity, row.townsend] == [None, None, -1.5] and pd.isna(row.age)


@pytest.mark.parametrize(
    ("text", "sex"),
    [("0", "F"), ("1", "M"), ("Female", "F"), ("Male", "M"), ("0.0", "F"), ("NA", None)],
)
def test_sex_0_is_female(tmp_path, text, sex):
    assert one(tmp_path, person(f31_0=text)).sex == sex


def test_ethnicity_is_the_first_answer_and_a_site_is_text(tmp_path):
    cells = {"f21000_0": "-1", "f21000_1": "", "f21000_2": "3001.0", "f54_2": "11025.0"}
    assert one(tmp_path, person(**cells))[["ethnicity", "site"]].tolist() == ["3001", "11025"]
    assert one(tmp_path, person(f21000_0="1001", f21000_2="3001")).ethnicity == "1001"
    assert one(tmp_path, person(f54_2="Cheadle (imaging)")).site == "Cheadle (imaging)"


@pytest.mark.parametrize("month", ["9", "09", "9.0", "September", "sept", "SEP"])
def test_months_are_numbers_or_names(tmp_path, month):
    assert one(tmp_path, person(f34_0="1950", f52_0=month, visit="2016-09-15")).age == 66


def test_case_27_ids_are_joined_however_they_are_written(tmp_path):
    path = raw(
        tmp_path,
        f'eid,53-2.0,41270-0.0,41280-0.0\n 17.0 ,{VISIT},,\n18,{VISIT},,\n019,{VISIT},,\n"1.234e+03",{VISIT},,\n',
    )
    assert read_table(path).index.tolist() == ["17", "18", "19", "1234"]
    table = read_people(path, ids=["18", "17", "20"])
    # in the table's order
    assert table.people.index.tolist() == ["17", "18"] and len(table.everyone) == 4


def test_ids_that_may_be_two_people_are_refused_and_counted(tmp_path):
    path = raw(tmp_path, "eid,41270-0.0,41280-0.0\n17,,\n017,,\n18,,\n19,,\n0019,,\n")
    with pytest.raises(
        ValueError,
        match=r"2 participants' ids stand there with leading zeros and without \(2 digits\)",
    ):
        read_table(path)
    assert read_table(path, ids=["18"]).index.tolist() == ["18"]


def test_participants_left_out_are_not_looked_at(tmp_path):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person(("???", "???"), f31_0="???")}
    assert read(people, tmp_path, ids={"SYN0001"}).state.tolist() == ["prevalent"]
    nobody = read(people, tmp_path, ids=set())
    assert (
        nobody.empty
        and list(nobody) == COLUMNS
        and nobody.dtypes.equals(read(people, tmp_path, ids={"SYN0001"}).dtypes)
    )


WITHDRAWN = {
    "SYN0001\nSYN0002\n": {"SYN0001", "SYN0002"},
    "eid\r\n 17.0 \r\n\r\n18": {"17", "18"},
    "\ufeffParticipant ID\n17\n": {"17"},
    "f.eid,reason\n17,moved\n18,\n": {"17", "18"},
    "reason\tparticipant.eid\nmoved\t17\n": {"17"},
    'withdrawn\n"17"\n': {"17"},
    "17,2020-01-01\n18,2020-01-02": {"17", "18"},
    '00017\n1.234e+03\n="18"\n': {"17", "1234", "18"},
    "": set(),
    "eid\n": set(),
    "\n \n": set(),
    "23456|2020\n23459|2021": {"23456", "23459"},
    "# withdrawn in 2023\n23456\n": {"23456"},
    "sep=;\neid;when\n23456;2020": {"23456"},
    "Withdrawn participants\nwhen,eid\n2020,23456": {"23456"},
    "n,ID\n1,23456": {"23456"},
    '"why","eid"\n"moved, away","23456"\n"open,23459\n"x","23450"': {"23456", "23450"},
    "23456,\r23459,0\r\x1a": {"23456", "23459"},
}


@pytest.mark.parametrize("text", WITHDRAWN)
def test_case_30_withdrawn_participants_are_read(tmp_path, text):
    assert read_exclusions(raw(tmp_path, text, "out.csv")) == WITHDRAWN[text]


@pytest.mark.parametrize("text", ["1,234,567\n", "SYN0001\n2.35E+06\n", "eid\n2 345 678\n"])
def test_withdrawn_ids_that_may_be_several_are_refused(tmp_path, text):
    with pytest.raises(ValueError, match="cohort.exclude=.*: an id (has|is)") as error:
        read_exclusions(raw(tmp_path, text, "out.csv"))
    assert "345" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "23456,23459\n",
        "23456 23459\n",
        "23456;23459;\n",
        "eid\n23456,23459\n",
        "[23456, 23459]",
        "23450\n23456 # left\n",
        "23456_2_0\n",
        '"x"\n"1" 23456\n',
        '"","x"\n"1",23456\n',
        "- 23456\n",
    ],
)
def test_a_withdrawn_participant_is_never_overlooked_in_a_line_that_is_no_id_alone(tmp_path, text):
    with pytest.raises(ValueError, match="cohort.exclude=.*(line|column)") as error:
        read_exclusions(raw(tmp_path, text, "out.csv"))
    assert "2345" not in str(error.value).replace(str(tmp_path), "")


def test_one_file_names_the_withdrawn(tmp_path):
    files = [str(raw(tmp_path, "23456\n", name)) for name in ("a.txt", "b.txt")]
    for several in (files, str(tmp_path / "*.txt")):
        with pytest.raises(
            ValueError, match=r"cohort\.exclude=.*names 2 files; join them into one"
        ):
            read_exclusions(several)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_withdrawn_participants_in_any_encoding(tmp_path, encoding):
    assert read_exclusions(raw(tmp_path, "eid;note\n17;é\n18;x\n".encode(encoding), "out.csv")) == {
        "17",
        "18",
    }


# ---- several tables, lines and columns about the same people

VISITS = f"eid,31-0.0,53-2.0\nSYN0001,0,{VISIT}\nSYN0002,1,{VISIT}\nSYN0003,1,{VISIT}\n"
HOSPITAL = (
    f"eid\t41270-0.0\t41280-0.0\nSYN0003\t\t\nSYN0001\tI500\t{BEFORE}\nSYN0002\tI10\t{BEFORE}\n"
)


def test_tables_are_joined_by_id(tmp_path):
    first, second = raw(tmp_path, VISITS, "a.csv"), raw(tmp_path, HOSPITAL, "b.tsv")
    (tmp_path / "whole").mkdir()
    whole = cells(
        tmp_path / "whole",
        ["eid", "31-0.0", "53-2.0", "41270-0.0", "41280-0.0"],
        ["SYN0001", "0", VISIT, "I500", BEFORE],
        ["SYN0002", "1", VISIT, "I10", BEFORE],
        ["SYN0003", "1", VISIT, "", ""],
    ).people
    for given_paths in (
        [first, second],
        str(tmp_path / "*.?sv"),
        [str(first), str(tmp_path / "b*")],
    ):
        pd.testing.assert_frame_equal(read_table(given_paths), whole)
    other = read_table([second, first])
    pd.testing.assert_frame_equal(other.loc[whole.index], whole)
    codes = (
        raw(tmp_path, "eid,41270-0.0\n1,I500\n", "codes.csv"),
        raw(tmp_path, f"eid,41280-0.0,53-2.0\n01,{BEFORE},{VISIT}\n", "dates.csv"),
    )
    # codes and dates apart, ids written otherwise
    assert read_table(codes).state.tolist() == ["prevalent"]


def test_whoever_has_no_row_where_the_diagnoses_are_is_no_control(tmp_path):
    paths = [
        raw(tmp_path, VISITS, "a.csv"),
        raw(tmp_path, HOSPITAL.replace("SYN0003", "SYN0004"), "b.tsv"),
    ]
    table = read_people(paths, tolerated=1)
    assert table.people.state.to_dict() == {
        "SYN0001": "prevalent",
        "SYN0002": "none",
        "SYN0003": "unknown",
        "SYN0004": "none",
    }
    assert "hospital: 1 participant unclear (no row in the file with the diagnoses)" in table.notes


def test_tables_that_say_the_same_are_joined_and_others_never_silently(tmp_path):
    first = raw(tmp_path, VISITS, "a.csv")
    same = raw(
        tmp_path,
        f"eid,Sex,53-2.0,41270-0.0,41280-0.0\nSYN0001,Female,{VISIT},,\nSYN0002,Male,,,\nSYN0003,,,,\n",
        "b.csv",
    )
    table = read_people([first, same])
    assert (
        table.people.sex.tolist() == ["F", "M", "M"]
        and not table.stop
        and table.people.visit.notna().all()
    )
    other = raw(
        tmp_path, "eid,p31,41270-0.0,41280-0.0\nSYN0001,1,,\nSYN0002,1,,\nSYN0003,1,,\n", "c.csv"
    )
    table = read_people([first, other])
    assert table.people.sex.tolist() == [None, "M", "M"]
    assert "field 31 (Sex): 1 participant has cells that disagree; left out" in table.notes
    assert (
        "field 31 (Sex) is not understood, or not the same everywhere, of 1 of 3 participants"
        in table.stop
    )
    with pytest.raises(ValueError, match="not the same everywhere"):
        read_table([first, other])


@pytest.mark.parametrize(
    ("second", "state"),
    [
        (("I10", "I500"), "prevalent"),
        (("I10",), "prevalent"),
        (("I10", "E119"), "unknown"),
        (("I500", "I10"), "unknown"),
        ((), "prevalent"),
    ],
)
def test_two_tables_of_diagnoses_agree_or_make_no_control(tmp_path, second, state):
    (tmp_path / "a").mkdir()
    paths = []
    for name, codes in (("a/x.csv", ("I10", "I500")), ("x.csv", second)):
        file = io.StringIO()
        columns = [f"{field}-0.{k}" for field in ("41270", "41280") for k in range(2)]
        cells_of = [
            *codes,
            *[""] * (2 - len(codes)),
            *[BEFORE] * len(codes),
            *[""] * (2 - len(codes)),
        ]
        csv.writer(file).writerows([["eid", "53-2.0", *columns], ["SYN0001", VISIT, *cells_of]])
        paths.append(raw(tmp_path, file.getvalue(), name))
    assert read_people(paths, tolerated=1).people.state.tolist() == [state]


def test_lines_that_repeat_a_participant_agree_or_are_told(tmp_path):
    header = "eid,31-0.0,53-2.0,21001-2.0,41270-0.0,41280-0.0\n"
    rows = [f"SYN{k:04d},0,{VISIT},27,I10,{BEFORE}\n" for k in range(30)]
    table = read_people(
        raw(tmp_path, header + "".join(rows) + rows[0] + f"SYN0001.0,,{VISIT},,,\n")
    )
    assert (
        len(table.people) == 30
        and not table.stop
        and table.people.state.eq("none").all()
        and table.people.bmi.eq(27).all()
    )
    assert (
        "2 rows repeat a participant of the same table; what they say alike is used" in table.notes
    )
    odd = read_people(
        raw(tmp_path, header + "".join(rows) + f"SYN0000,1,{VISIT},29,I500,{BEFORE}\n")
    )
    assert odd.people.loc["SYN0000", ["sex", "state", "diagnosis"]].tolist() == [
        None,
        "unknown",
        None,
    ]
    assert pd.isna(odd.people.bmi["SYN0000"]) and (odd.people.state == "none").sum() == 29
    assert {
        "field 31 (Sex): 1 participant has cells that disagree; left out",
        "hospital: 1 participant unclear (files or lines disagree about a code)",
    } <= set(odd.notes)
    long = header + "".join(
        f"SYN{k // 3:04d},0,{VISIT},27,{code},{BEFORE}\n"
        for k, code in enumerate(["I10", "I500", "E119"] * 9)
    )
    with pytest.raises(
        ValueError,
        match="diagnoses of 9 of 9 participants are not understood whole .9 hospital: files or lines disagree",
    ):
        read_table(raw(tmp_path, long))  # a row per diagnosis


def test_columns_that_stand_twice_agree_or_are_told(tmp_path):
    names = ["eid", "31-0.0", "f.31.0.0", "p31", "53-2.0", "41270-0.0", "41280-0.0"]
    rows = [[f"SYN{k:04d}", "0", "0", "Female", VISIT, "", ""] for k in range(30)]
    assert cells(tmp_path, names, *rows, tolerated=0).people.sex.eq("F").all()
    rows[7][2] = "1"
    table = cells(tmp_path, names, *rows, tolerated=0.05)
    assert table.people.sex.isna().sum() == 1 and not table.stop
    titles = [
        "eid",
        "Body mass index (BMI) | Instance 2",
        "Body mass index (BMI) | Instance 2",
        "53-2.0",
        "41270-0.0",
        "41280-0.0",
    ]
    table = cells(
        tmp_path,
        titles,
        *([f"SYN{k:04d}", "27", f"27.{k}", VISIT, "", ""] for k in range(30)),
        tolerated=0.05,
    )
    assert (
        "cells of field 21001 (Body mass index (BMI)) disagree for 29 of 30 participants"
        in table.stop
    )
    assert "exporting field codes" in table.stop


# ---- what is wanted and not found, and what is not understood

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
    told = cells(tmp_path, names, ["SYN0001", VISIT, "I10", BEFORE, "I500", "", "2"]).columns.note
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
    table = cells(tmp_path, header, *rows, tolerated=0.05)
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
        in cells(tmp_path, names, *empty).stop
    )
    full = [[f"SYN{k:04d}", VISIT, *["I10"] * 3, *[BEFORE] * 3] for k in range(10)]
    assert (
        "field 41270 seems cut: 10 of 120 participants fill its last column, '41270-0.2'"
        in cells(tmp_path, names, *full, *empty[10:]).stop
    )
    assert not cells(tmp_path, names, *full[:3], *empty[3:]).stop


def test_dates_of_a_file_are_read_in_the_order_that_they_tell(tmp_path):
    names = ["eid", "53-2.0", "41270-0.0", "41280-0.0"]

    def states(*dates: str) -> list[str]:
        rows = [[f"SYN{k:04d}", "06/05/2016", "I500", when] for k, when in enumerate(dates)]
        return cells(tmp_path, names, *rows).people.state.tolist()

    # 5 June, behind the visit of 6 May
    assert states("05/06/2016", "20/01/2016") == ["incident", "prevalent"]
    # 6 May, before the visit of 5 June
    assert states("05/06/2016", "01/20/2016") == ["prevalent", "prevalent"]
    assert states("05/06/2016", "01/02/2016") == ["unknown", "unknown"]  # nothing tells
    assert states("05/06/2016", "01/20/2016", "20/01/2016") == ["unknown"] * 3  # all tells both
