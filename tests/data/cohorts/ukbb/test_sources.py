"""Several sources of a diagnosis: each by its own rules, the earliest date wins, nobody uncertain
becomes a control."""

from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.reading.cells import PLACEHOLDERS
from cmrdata.cohorts.ukbb import sources
from cmrdata.cohorts.ukbb.diagnoses import day_of_year
from cmrdata.cohorts.ukbb.table import Table, read_people, read_table
from support.ukbb_exports import (
    BEFORE,
    LATER,
    VISIT,
    person,
    raw,
    read,
    read_all,
    table_of,
)

EVERY = ["hospital", "first_occurrence", "death", "self_report"]
DEATH = {"f40000_0": "", "f40001_0": "", "f40002_0": ""}


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


def test_a_case_of_any_source_is_a_case_of_all_and_a_control_of_all_one_of_each(tmp_path):
    dates = product((None, BEFORE, LATER, VISIT, "1900-01-01"), repeat=3)
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


# the days by their numbers


def test_an_age_is_a_day_after_the_middle_of_the_month_of_birth():
    """Month and year of birth alone are known: the 15th stands for the day."""
    born = {"34": np.array([1950.0, 1949.0, np.nan]), "52": np.array([7.0, 12.0, 5.0])}
    fields = SimpleNamespace(value=born.__getitem__)
    ages = ["55.5", sources.UNDATED, "0", "151.2"]
    place, persons = np.array([0, 0, 2, 1, -1, 0, 3]), np.array([0, 1, 0, 0, 0, 2, 1])
    days = sources._from_ages(ages, place, persons, fields)
    middle = (sources.DAY - 1) / 30
    first = 1950 + (6 + middle) / 12
    expected = [
        day_of_year(first + 55.5),
        day_of_year(1949 + (11 + middle) / 12 + 55.5),
        day_of_year(first),
    ]
    assert days[:3].astype(object).tolist() == expected
    assert days[0] == np.datetime64("2006-01-15") and np.isnat(days[3:]).all()
    years = sources._from_years(["2005.5", sources.UNDATED], np.array([0, 1, -1]))
    assert years[0] == np.datetime64("2005-07-02") and np.isnat(years[1:]).all()
