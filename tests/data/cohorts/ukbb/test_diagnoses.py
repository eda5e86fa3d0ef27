"""Diagnoses element by element: what has lost its partner or is not understood makes nobody healthy."""

from __future__ import annotations

import json
from datetime import date

import numpy as np
import pytest

from cmrdata.cohorts.ukbb.diagnoses import at_visit, day_of_year, marked
from support.ukbb_exports import (
    BEFORE,
    LATER,
    VISIT,
    one,
    person,
    read,
    said_by,
)


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
        row = said_by(
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
    table = said_by(tmp_path, ["eid", "p53_i2", "p41270", "p41280"], *lines).people
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
    assert said_by(tmp_path, names, *in_one).people.state.tolist() == [
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
    table = said_by(tmp_path, names, *rows)
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
    table = said_by(tmp_path, names, *rows, tolerated=0.05)
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
    few = said_by(tmp_path, names, *rows[:3], tolerated=0.05)
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


def test_arrays_have_any_length(tmp_path):
    for length in (1, 2, 213, 259, 700):
        row = person(*[("I10", LATER)] * (length - 1), ("I500", BEFORE))
        assert {
            one(tmp_path, row, export=export).state for export in ("r.tab", "rap_short.tsv")
        } == {"prevalent"}


def days(*texts: str) -> np.ndarray:
    return np.array(texts, "datetime64[D]")


def test_a_state_is_told_by_the_first_date_and_the_visit():
    visit = days("2016-05-20", "2016-05-20", "2016-05-20", "2016-05-20", "NaT", "NaT", "2016-05-20")
    rows = np.array([0, 0, 1, 2, 2, 4])
    dates = days("2017-01-01", "2016-05-20", "2016-05-21", "2017-01-01", "NaT", "2015-01-01")
    unclear = np.array([True, False, False, False, False, False, True])
    state, first = at_visit(rows, dates, visit, unclear)
    assert state.tolist() == [
        "prevalent",  # on the day itself, whatever else is unclear
        "incident",
        "unknown",  # of one diagnosis nobody knows when
        "none",
        "unknown",  # no visit
        "none",
        "unknown",
    ]
    assert first[:3].tolist() == days("2016-05-20", "2016-05-21", "2017-01-01").tolist()
    assert np.isnat(first[3]) and at_visit(rows, dates, visit)[0][6] == "none"


def test_codes_count_by_their_beginning_and_are_cut_where_they_are_shorter():
    mark, cut = marked(["I500", "I50", "I5", "I10", ""], {"hf": ("I50",), "mi": (), "any": ("I",)})
    assert mark.tolist() == [0b101, 0b101, 0b100, 0b100, 0, 0, 0]
    assert cut.tolist() == [0, 0, 0b001, 0, 0, 0, 0]


def test_a_day_of_a_year_by_its_share():
    assert day_of_year(2005.5) == date(2005, 7, 2) and day_of_year(2005.0) == date(2005, 1, 1)
    assert day_of_year(2004.5) == date(2004, 7, 2)  # of 366 days
    assert day_of_year(2005.999) == date(2005, 12, 31)
