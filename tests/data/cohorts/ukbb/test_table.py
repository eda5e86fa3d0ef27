"""Who the people of a UK Biobank table are at a visit, and whether their heart had failed by
then."""

import csv
import io

import pandas as pd
import pytest

from cmrdata.cohorts.reading.cells import PLACEHOLDERS
from cmrdata.cohorts.ukbb.table import read_exclusions, read_people, read_table
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
    said_by,
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
    whole = said_by(
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
    assert said_by(tmp_path, names, *rows, tolerated=0).people.sex.eq("F").all()
    rows[7][2] = "1"
    table = said_by(tmp_path, names, *rows, tolerated=0.05)
    assert table.people.sex.isna().sum() == 1 and not table.stop
    titles = [
        "eid",
        "Body mass index (BMI) | Instance 2",
        "Body mass index (BMI) | Instance 2",
        "53-2.0",
        "41270-0.0",
        "41280-0.0",
    ]
    table = said_by(
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


def test_dates_of_a_file_are_read_in_the_order_that_they_tell(tmp_path):
    names = ["eid", "53-2.0", "41270-0.0", "41280-0.0"]

    def states(*dates: str) -> list[str]:
        rows = [[f"SYN{k:04d}", "06/05/2016", "I500", when] for k, when in enumerate(dates)]
        return said_by(tmp_path, names, *rows).people.state.tolist()

    # 5 June, behind the visit of 6 May
    assert states("05/06/2016", "20/01/2016") == ["incident", "prevalent"]
    # 6 May, before the visit of 5 June
    assert states("05/06/2016", "01/20/2016") == ["prevalent", "prevalent"]
    assert states("05/06/2016", "01/02/2016") == ["unknown", "unknown"]  # nothing tells
    assert states("05/06/2016", "01/20/2016", "20/01/2016") == ["unknown"] * 3  # all tells both
