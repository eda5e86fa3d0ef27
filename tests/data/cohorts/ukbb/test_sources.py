"""Several sources of a diagnosis: each by its own rules, the earliest date wins, nobody uncertain
becomes a control."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.reading.cells import PLACEHOLDERS
from cmrdata.cohorts.ukbb.diagnoses import day_of_year
from cmrdata.cohorts.ukbb.records import record_column
from cmrdata.cohorts.ukbb.table import Table, read_people, read_table
from support.ukbb_exports import BEFORE, LATER, VISIT, person, raw, read, read_all, relaxed

EVERY = ["hospital", "first_occurrence", "death", "self_report"]
DEATH = {"f40000_0": "", "f40001_0": "", "f40002_0": ""}


def table_of(folder: Path, names: list[str], *rows: list[str], name: str = "raw.csv") -> Path:
    file = io.StringIO()
    csv.writer(file).writerows([names, *rows])
    return raw(folder, file.getvalue(), name)


def of_sources(folder: Path, names: list[str], *rows: list[str], **options) -> Table:
    return read_people(table_of(folder, names, *rows), **{"tolerated": 1, **options})


def test_the_earliest_date_of_all_sources_wins(tmp_path):
    people = {
        "SYN0001": person(("I500", LATER), f131354_0=BEFORE, **DEATH),
        "SYN0002": person(("I500", BEFORE), f131354_0=LATER, **DEATH),
        "SYN0003": person(("I10", BEFORE), f131354_0="", **DEATH),
        "SYN0004": person(("I500", ""), f131354_0=BEFORE, **DEATH),
        "SYN0005": person(f131354_0="", **{**DEATH, "f40000_0": LATER, "f40001_0": "I500"}),
        "SYN0006": person(f131354_0="1903-03-03", **DEATH),
        "SYN0007": person(("I500", BEFORE), f131354_0=BEFORE, **DEATH),
    }
    table = read_all(
        people, tmp_path, source=["hospital", "first_occurrence", "death"], tolerated=1
    )
    assert table.people.state.tolist() == [
        "prevalent",
        "prevalent",
        "none",
        "prevalent",
        "incident",
        "unknown",
        "prevalent",
    ]
    assert table.people["first"].iloc[[0, 1]].tolist() == [pd.Timestamp(BEFORE)] * 2
    assert table.people.case_sources.tolist() == [
        "first_occurrence",
        "hospital",
        None,
        "first_occurrence",
        None,
        None,
        "hospital;first_occurrence",
    ]
    assert "cases by source: hospital 2, first_occurrence 3, death 0" in table.notes
    assert (
        "cases by combination: first_occurrence 2, hospital 1, hospital + first_occurrence 1"
        in table.notes
    )
    alone = read(people, tmp_path)
    assert alone.state.tolist() == [
        "incident",
        "prevalent",
        "none",
        "unknown",
        "none",
        "none",
        "prevalent",
    ]


@pytest.mark.parametrize("date", [*PLACEHOLDERS, "2012", "soon", "-1"])
def test_a_first_occurrence_at_no_known_time_makes_no_control(tmp_path, date):
    people = {"SYN0001": person(f131354_0=date), "SYN0002": person(f131354_0="")}
    assert read(people, tmp_path, source="first_occurrence", codes="narrow").state.tolist() == [
        "unknown",
        "none",
    ]


DIED = {  # 40000, 40001, 40002 by instance: state
    "of it": (LATER, "I500", "", "incident"),
    "with it": (LATER, "J180", "I50.0 Heart failure", "incident"),
    "of something else": (LATER, "J180", "E119", "none"),
    "alive": ("", "", "", "none"),
    "when?": ("", "I500", "", "unknown"),
    "before the scan?": (BEFORE, "I500", "", "unknown"),
    "before the scan, of something else?": (BEFORE, "J180", "", "unknown"),
    "of what?": (LATER, "heart", "", "unknown"),
    "of something cut short": (LATER, "I11", "", "unknown"),
}


@pytest.mark.parametrize("case", DIED)
def test_a_death_of_heart_failure_is_no_control(tmp_path, case):
    date, cause, further, state = DIED[case]
    names = [
        "eid",
        "53-2.0",
        "41270-0.0",
        "41280-0.0",
        "40000-0.0",
        "40001-0.0",
        "40002-0.0",
        "40002-0.3",
        "40000-1.0",
        "40001-1.0",
    ]
    rows = [
        ["SYN0001", VISIT, "", "", date, cause, "", further, "", ""],
        ["SYN0002", VISIT, "", "", "", "", "", further, date, cause],
    ]
    table = of_sources(tmp_path, names, *rows, source=["hospital", "death"])
    assert table.people.state.tolist() == [state] * 2
    assert of_sources(tmp_path, names, *rows).people.state.tolist() == ["none"] * 2


TOLD = {  # instance, code, year, age: state
    "before": (0, "1076", "2005.5", "", "prevalent"),
    "cardiomyopathy": (0, "1079", "2005.5", "", "prevalent"),
    "something else": (0, "1065", "2005.5", "", "none"),
    "nothing": (0, "", "", "", "none"),
    "no answer": (0, "-1", "-1", "", "unknown"),
    "no year": (0, "1065", "-1", "-3", "none"),
    "at an age": (0, "1076", "", "55.5", "prevalent"),
    "at no known time, before the scan": (0, "1076", "-1", "-3", "prevalent"),
    "at the scan": (2, "1076", "", "", "prevalent"),
    "at the scan, of that year's middle": (2, "1076", "2016.5", "", "prevalent"),
    "after the scan, ill before": (3, "1076", "2010.5", "", "prevalent"),
    "after the scan, ill later": (3, "1076", "2018.5", "", "incident"),
    "after the scan, at no known time": (3, "1076", "", "", "incident"),
    "unreadable": (0, "1076 1065", "", "", "unknown"),
    "as a word": (0, "heart failure/pulmonary odema", "2005.5", "", "prevalent"),
    "another word": (0, "hypertension", "2005.5", "", "none"),
    "an unknown word": (0, "heart trouble: heart failure", "2005.5", "", "unknown"),
    "a year without an illness": (0, "", "2005.5", "", "unknown"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_participants_report_is_dated_by_year_age_or_visit(tmp_path, case):
    at, code, year, age, state = TOLD[case]
    names = ["eid", "34-0.0", "52-0.0", *(f"53-{k}.0" for k in range(4))]
    visits = ["SYN0001", "1950", "6", "2008-03-01", "", VISIT, LATER]
    several = [
        f"{field}-{k}.{a}"
        for field in ("20002", "20008", "20009")
        for k in range(4)
        for a in range(2)
    ]
    cells = {f"20002-{at}.0": code, f"20008-{at}.0": year, f"20009-{at}.0": age}
    table = of_sources(
        tmp_path,
        [*names, *several],
        [*visits, *(cells.get(name, "") for name in several)],
        source="self_report",
    )
    assert table.people.state.tolist() == [state]
    instances = [
        f"p{field}_i{k}{'' if field == '20002' else '_a0'}"
        for field in ("20002", "20008", "20009")
        for k in range(4)
    ]
    rap = {
        f"p20002_i{at}": f'["{code}"]' if code else "",
        f"p20008_i{at}_a0": year,
        f"p20009_i{at}_a0": age,
    }
    table = of_sources(
        tmp_path,
        [*names, *instances],
        [*visits, *(rap.get(name, "") for name in instances)],
        source="self_report",
    )
    assert table.people.state.tolist() == [state]


def test_a_year_is_interpolated():
    assert [str(day_of_year(year)) for year in (2005.0, 2005.5, 2008.5, 2005.999)] == [
        "2005-01-01",
        "2005-07-02",
        "2008-07-02",
        "2005-12-31",
    ]


def test_a_source_that_the_table_lacks_is_told(tmp_path):
    people = {"SYN0001": person(("I500", BEFORE)), "SYN0002": person()}
    table = read_all(people, tmp_path, source=EVERY)
    assert table.people.state.tolist() == ["prevalent", "none"]
    told = table.columns.query("column == ''").note.tolist()
    for name, field in (
        ("first_occurrence", "131354"),
        ("death", "40001"),
        ("self_report", "20002"),
    ):
        assert any(
            f"field {field} (" in note and f"the source {name} is left out" in note for note in told
        )
    with pytest.raises(ValueError, match="no column of field 40001"):
        read(people, tmp_path, source=["death", "self_report"])
    path = raw(tmp_path, f"eid,53-2.0,131354-0.0\nSYN0001,{VISIT},{BEFORE}\n")
    table = read_people(path, source=["hospital", "first_occurrence"])
    assert (
        table.people.diagnosis.tolist() == ["hf"]
        and "the source hospital is left out" in table.columns.note.str.cat()
    )
    path = raw(tmp_path, f"eid,53-2.0,131354-0.0,41270-0.0\nSYN0001,{VISIT},{BEFORE},I10\n")
    # half of a source is a mistake
    with pytest.raises(ValueError, match="no column of field 41280"):
        read_table(path, source=["hospital", "first_occurrence"])


when = st.one_of(st.none(), st.sampled_from([BEFORE, LATER, VISIT, "1900-01-01"]))


@relaxed
@given(st.lists(st.tuples(when, when, when), min_size=1, max_size=4))
def test_a_case_of_any_source_is_a_case_of_all_and_a_control_of_all_one_of_each(tmp_path, dates):
    people = {
        f"SYN{k:04d}": person(
            *([("I500", a)] if a else []),
            f131354_0=b or "",
            **{**DEATH, "f40000_0": c or "", "f40001_0": "I500" if c else ""},
        )
        for k, (a, b, c) in enumerate(dates)
    }
    people["SYN9999"] = person(("I10", BEFORE), f131354_0="", **DEATH)
    alone = {
        name: read(people, tmp_path, source=name, codes="narrow")
        for name in ("hospital", "first_occurrence", "death")
    }
    together = read(people, tmp_path, source=list(alone), codes="narrow")
    for who in people:
        states = {table.state[who] for table in alone.values()}
        expected = (
            "prevalent"
            if "prevalent" in states
            else "none"
            if states == {"none"}
            else "unknown"
            if "unknown" in states
            else "incident"
        )
        assert together.state[who] == expected
        first = [table["first"][who] for table in alone.values() if pd.notna(table["first"][who])]
        assert together["first"][who] == min(first) if first else pd.isna(together["first"][who])


# ---- records

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
