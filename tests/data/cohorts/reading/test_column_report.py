"""What columns.csv says of a column tells no participant apart."""

from __future__ import annotations

from cmrdata.cohorts.reading.cells import Reading
from cmrdata.cohorts.reading.column_report import (
    FEW,
    NAME_LENGTH,
    REPORT_COLUMNS,
    cell_counts,
    columns_table,
    example,
    missing_row,
    shown_name,
)


def read(text: str) -> Reading:
    """Numbers are understood, words odd, "-" no answer."""
    if not text or text == "-":
        return Reading(missing="no answer" if text else "")
    return Reading(int(text)) if text.isdigit() else Reading(odd=f"a {len(text)}-letter word")


def test_cells_are_understood_missing_or_not_understood():
    counts = cell_counts({"1": 5, "2": 1, "": 3, "-": 2, "ab": 4, "cd": 1, "x": 2}, read, rows=18)
    assert (counts["understood"], counts["missing"], counts["not_understood"]) == (6, 5, 7)
    assert counts["note"] == "5 a 2-letter word; 2 a 1-letter word; 2 no answer"
    assert counts["example"] == "aa"
    assert cell_counts({"ab": 4}, read, rows=4, shown=False)["example"] == ""
    assert cell_counts({"1": 4}, read, rows=4)["note"] == ""


def test_three_reasons_are_told():
    texts = {"a" * k: 10 - k for k in range(1, 6)}
    note = cell_counts(texts, read, rows=35)["note"]
    assert note == "9 a 1-letter word; 8 a 2-letter word; 7 a 3-letter word"


def test_a_value_is_shown_where_it_is_short_shared_and_no_free_text():
    shared, long = {("odd", " ab "): FEW}, {("odd", "a" * (FEW + 1)): FEW}
    assert example(shared, open_values=True) == "'ab'"
    assert example(shared, open_values=False) == " aa "
    assert example({("odd", "ab"): FEW - 1}, open_values=True) == "aa"
    assert example(long, open_values=True) == "a+"
    assert example({}, open_values=True) == ""
    # the one met most often
    assert example({("odd", "ab"): 2, ("odd", "7"): 3}, open_values=False) == "9"


def test_a_long_name_is_cut_and_all_are_one_line():
    assert shown_name(" Age \n at  visit ") == "Age at visit"
    assert shown_name("a" * NAME_LENGTH) == "a" * NAME_LENGTH
    assert shown_name("a" * (NAME_LENGTH + 1)) == "a" * (NAME_LENGTH // 2) + "..."


def test_a_field_that_was_not_found_is_a_row_of_zeros():
    table = columns_table([missing_row("31", "sex", "not found", file="a.csv")])
    assert list(table) == list(REPORT_COLUMNS)
    assert table.iloc[0].tolist() == ["a.csv", "", "31", "sex", 0, 0, 0, 0, "", "not found"]
    assert list(columns_table([])) == list(REPORT_COLUMNS)
