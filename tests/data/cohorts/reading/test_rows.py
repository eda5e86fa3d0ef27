"""Small tables: rows under our names, and an account of what was understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmrdata.cohorts.reading.cells import read_category
from cmrdata.cohorts.reading.rows import column_rows, read_rows, require_match

COLUMNS = {"code": ("externalcode", "code"), "sex": ("sex",), "age": ("age", "ageyears")}


def written(folder: Path, text: str) -> Path:
    path = folder / "info.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_titles_are_found_however_they_are_spelled_and_cells_stripped(tmp_path, mark):
    lines = (["External  code", "SEX ", "Age (years)"], [" A1 ", "F", "61"], ["", "NA", ""])
    table = read_rows(
        written(tmp_path, "\n".join(mark.join(line) for line in lines)), columns=COLUMNS
    )
    assert table.titles == {"code": "External  code", "sex": "SEX ", "age": "Age (years)"}
    assert table.rows == [{"code": "A1", "sex": "F", "age": "61"}]  # an empty row is none
    assert table.path == tmp_path / "info.csv"


def test_cells_and_columns_that_are_not_there_are_none(tmp_path):
    table = read_rows(written(tmp_path, "code,sex\nA1\nA2,null\nA3,M,extra\n"), columns=COLUMNS)
    assert table.rows == [
        {"code": "A1", "sex": None, "age": None},
        {"code": "A2", "sex": None, "age": None},
        {"code": "A3", "sex": "M", "age": None},
    ]
    assert set(table.titles) == {"code", "sex"}
    # of two spellings the one that is named first
    both = read_rows(written(tmp_path, "code,External Code\nno,yes\n"), columns=COLUMNS)
    assert both.rows[0]["code"] == "yes"
    assert read_rows(written(tmp_path, ""), columns=COLUMNS).rows == []


def test_images_and_a_table_without_a_common_patient_are_refused(tmp_path):
    table = tmp_path / "info.csv"
    require_match(table, ["A1", "B2"], ["B2"])
    require_match(table, [], ["B2"])
    with pytest.raises(ValueError) as refused:
        require_match(table, ["A1", "A2"], [])
    assert str(refused.value).startswith(
        f"{table}: none of the 2 patients with images has a row: codes are "
    )
    with pytest.raises(
        ValueError, match="codes are 1 letter 1 digit in the images' names, 1 digit in"
    ):
        require_match(table, ["A1"], ["1"])


def test_the_account_counts_each_column_in_use_and_names_those_not_found():
    rows = [{"sex": "F"}, {"sex": None}, {"sex": "-3"}]
    report = column_rows(
        "info.csv",
        {"sex": "Sex"},
        rows,
        readers={"sex": ("sex", read_category), "age": ("age", read_category)},
    )
    assert [(row["field"], row["column"], row["used_for"]) for row in report] == [
        ("sex", "Sex", "sex"),
        ("age", "", "age"),
    ]
    counts = [report[0][name] for name in ("rows", "understood", "missing", "not_understood")]
    assert counts == [3, 1, 2, 0] and report[0]["note"] == "1 no answer"
    assert report[1]["note"] == "column age not found; age stays empty" and report[1]["rows"] == 0
