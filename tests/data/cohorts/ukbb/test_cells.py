"""The cells of some columns of several tables, joined by id: what is written, what was understood
of it, and who disagrees."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cmrdata.cohorts.reading.cells import quantity, read_sex
from cmrdata.cohorts.reading.table_files import open_table
from cmrdata.cohorts.ukbb import cells as module
from cmrdata.cohorts.ukbb.cells import (
    KEYS,
    ODD,
    Cells,
    Column,
    read_cells,
    read_texts,
    report_rows,
    scalar,
    settled,
)

EID = ("eid", 0, 0)


def known(name: str):
    field, _, place = name.partition("-")
    if field == "eid":
        return EID
    return (field, *map(int, place.split("."))) if place else None


def table(folder: Path, name: str, *lines: str):
    (folder / name).write_text("".join(f"{line}\n" for line in lines))
    return open_table(folder / name, setting="it", known=known, identifier=EID, id_names="eid")


def read(*tables, ids=None, wanted=lambda key: key[0] != "9"):
    return read_cells(tables, wanted, identifier=EID, ids=ids)


def told(cells: Cells) -> list[tuple[str, int, str]]:
    """(column, participant, text) of each cell."""
    return [
        (cells.columns[column].name, person, cells.texts[text])
        for column, person, text in zip(
            cells.column.tolist(), cells.person.tolist(), cells.text.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("together", [1, 8192])
def test_every_written_cell_is_kept_with_whose_it_is(tmp_path, monkeypatch, together):
    monkeypatch.setattr(module, "ROWS_TOGETHER", together)
    first = table(
        tmp_path,
        "a.csv",
        "31-2.0,eid,21-2.0,9-0.0,21-2.1,other",
        "F,007,5,x,,z",
        "M,8,,x,6,z",
        "F,9,5,x,5,z",
        "M,8,7,x,,z",
    )
    second = (table(tmp_path, "b.csv", "eid,21-2.0,40-0.0", "9,5,", "4,1,"),)
    people, cells = read(first, *second, ids={"7", "8", "4"})
    assert people.names == ["7", "8", "4"] and people.everyone == {"7", "8", "9", "4"}
    assert [of.tolist() for of in people.present] == [[True, True, False], [False, False, True]]
    assert people.rows == [3, 1] and people.repeated == 1
    assert set(cells) == {"31", "21", "40"}
    (sexes,), (here, there), (empty,) = cells["31"], cells["21"], cells["40"]
    assert sorted(told(sexes)) == [("31-2.0", 0, "F"), ("31-2.0", 1, "M"), ("31-2.0", 1, "M")]
    assert sorted(told(here)) == [("21-2.0", 0, "5"), ("21-2.0", 1, "7"), ("21-2.1", 1, "6")]
    assert told(there) == [("21-2.0", 2, "1")] and there.texts == ["1"]
    assert (here.table, here.file, here.rows) == (0, "a.csv", 3)
    assert (there.table, there.file, there.rows) == (1, "b.csv", 1)
    assert here.columns == [Column("21-2.0", ("21", 2, 0)), Column("21-2.1", ("21", 2, 1))]
    assert told(empty) == [] and empty.texts == [] and empty.rows == 1
    everybody, cells = read(first, *second)
    assert everybody.names == ["7", "8", "9", "4"] and everybody.rows == [4, 2]
    assert everybody.present[1].tolist() == [False, False, True, True] and everybody.repeated == 1
    nobody, cells = read(first, ids=[])
    assert (
        nobody.rows == [0]
        and nobody.names == []
        and len(nobody.everyone) == 3
        and told(cells["21"][0]) == []
    )


def test_an_id_that_is_none_or_unclear_is_named_by_its_line(tmp_path):
    for line, words in (
        (",5", "line 3 has no participant id; complete or remove it"),
        ("1e+06,5", "line 3: the participant's id "),
    ):
        with pytest.raises(ValueError, match=rf"^it=.*t.csv: {words}"):
            read(table(tmp_path, "t.csv", "eid,21-0.0", "11,5", line))
    with pytest.raises(ValueError, match="it=.*: has a header and no participants"):
        read(table(tmp_path, "t.csv", "eid,21-0.0"))
    zeros = table(tmp_path, "t.csv", "eid,21-0.0", "007,5", "7,5", "007,4", "8,1")
    with pytest.raises(
        ValueError, match=r"^it=.*: 1 participants' ids .* \(\d digit\w*\), and may"
    ):
        read(zeros)
    assert read(zeros, ids={"8"})[0].repeated == 2  # who is not wanted need not be clear


def test_blocks_are_joined_until_there_are_enough_rows(monkeypatch):
    monkeypatch.setattr(module, "ROWS_TOGETHER", 4)
    batches = [
        pa.record_batch({"a": pa.array(range(n)), "b": pa.array(["x"] * n)}) for n in (3, 1, 5, 2)
    ]
    assert [one.num_rows for one in module._rounds(iter(batches))] == [4, 5, 2]
    assert next(module._rounds(iter(batches))).column(0).to_pylist() == [0, 1, 2, 0]
    assert [one.num_rows for one in module._rounds(iter(batches[:2]))] == [4]


def cells(texts: list[str], *rows: tuple[int, int, int], columns=None, count: int = 9) -> Cells:
    """Cells of (column, person, text)."""
    column, person, text = np.array(rows, int).reshape(-1, 3).T
    return Cells(
        0,
        "t.csv",
        columns or [Column("x-2.0", ("x", 2, 0)), Column("x-3.0", ("x", 3, 0))],
        column,
        person,
        text,
        texts,
        count,
    )


def report(of: Cells, read, **change):
    how = {"used_for": "sex", "field": str, "open_values": False, "shown": True, **change}
    return report_rows(of, read_texts(of, read), **how)


def test_a_report_counts_each_column_and_adds_up():
    of = cells(
        ["F", "M", "abc", "12", "unknown"],
        *((0, k, k % 2) for k in range(3)),
        *((0, 3, 2), (0, 4, 2), (0, 5, 3), (0, 6, 4), (1, 0, 1), (1, 1, 4)),
    )
    first, second = report(of, read_sex)
    assert first == {
        "file": "t.csv",
        "column": "x-2.0",
        "field": "('x', 2, 0)",
        "used_for": "sex",
        "rows": 9,
        "understood": 3,
        "missing": 3,
        "not_understood": 3,
        "example": "a+",
        "note": "3 is neither male nor female (M, F); 1 no answer",
    }
    assert second["field"] == "('x', 3, 0)" and second["note"] == "1 no answer"
    assert [second[k] for k in ("understood", "missing", "not_understood", "example")] == [
        1,
        8,
        0,
        "",
    ]
    assert [row["example"] for row in report(of, read_sex, shown=False)] == ["", ""]
    noted = report(of, read_sex, note="from weight")
    assert noted[1]["note"] == "from weight; 1 no answer"
    # a note of its own is said with what is wrong alone
    right = report(cells(["F"], (0, 0, 0)), read_sex, note="from weight")
    assert [row["note"] for row in right] == ["", ""] and right[0]["understood"] == 1
    nothing = report(cells([]), read_sex)
    assert [row["missing"] for row in nothing] == [9, 9] and nothing[0]["note"] == ""
    often = cells(["9x"], *((0, k, 0) for k in range(10)), count=10)
    assert report(often, read_sex, open_values=True)[0]["example"] == "'9x'"


def test_a_report_names_the_three_commonest_reasons():
    reader = quantity(0, 10, units={"kg": 1.0}, whole=True)
    texts = ["1.5", "x", "1 m", "11", "-1", "unknown"]
    of = cells(texts, *((0, k, k % 6) for k in range(12)), (0, 12, 0), count=20)
    row, _ = report(of, reader)
    assert row["note"] == (
        "3 is no whole number; 2 is no number such as 26.4; 2 has a unit that isn't known here; "
        "4 no answer; 2 outside 0 to 10"
    )
    assert (row["understood"], row["missing"], row["not_understood"]) == (0, 13, 7)


def test_cells_that_say_the_same_count_once_and_others_are_odd():
    people = np.array([2, 0, 0, 2, 1, 0, 2])
    slots = np.array([1, 5, 5, 1, 3, 4, KEYS - 1])
    values = np.array([7, 3, 3, 8, 1, 2, 7])
    who, where, what = settled(people, slots, values)
    assert who.tolist() == [0, 0, 1, 2, 2] and where.tolist() == [4, 5, 3, 1, KEYS - 1]
    assert what.tolist() == [2, 3, 1, ODD, 7]
    who, where, what = settled(*(np.array(k) for k in ([1, 0], [2, 9], [4, 5])))
    assert (who.tolist(), where.tolist(), what.tolist()) == ([0, 1], [9, 2], [5, 4])


def test_a_value_at_a_visit_is_what_all_files_say():
    columns = [Column(f"x-{i}.{k}", ("x", i, k)) for i, k in ((2, 0), (3, 0), (2, 1))]
    texts = ["F", "M", "abc", "unknown"]
    first = cells(
        texts,
        (0, 0, 0),
        (1, 0, 1),
        (2, 0, 1),
        (0, 1, 2),
        (0, 2, 3),
        (0, 3, 0),
        (0, 5, 2),
        (0, 5, 1),
        columns=columns,
    )
    second = cells(["Male", "F"], (0, 3, 0), (0, 2, 0), (0, 4, 1), (0, 0, 1), columns=columns[:1])
    parts = [(of, read_texts(of, read_sex)) for of in (first, second, cells([]))]
    said = scalar(parts, 2, people=7, dtype=object)
    #                    agreed, odd, other file, disagree, second alone, odd, nothing
    assert said.values.tolist() == ["F", None, "M", None, "F", None, None]
    assert said.odd.tolist() == [False, True, False, False, False, True, False]
    assert said.differs.tolist() == [False, False, False, True, False, False, False]
    again = scalar(parts, 3, people=2, dtype=object)
    assert again.values.tolist() == ["M", None] and not again.odd.any() and not again.differs.any()
    none = scalar([], 2, people=2, dtype=float)
    assert np.isnan(none.values).all() and none.values.dtype == float
    assert not none.odd.any() and not none.differs.any()
