"""Items of the checklists."""

from __future__ import annotations

from cmrcls.fairness.checklist import AUTHORS, ITEMS, checklist_section, checklist_table


def test_an_item_is_there_only_where_its_files_are(tmp_path):
    nothing = checklist_table(tmp_path).set_index("item").there
    assert set(nothing) == {"no", "elsewhere", "authors"}
    (tmp_path / "gaps.csv").write_text("a\n")
    (tmp_path / "fairness.csv").write_text("a\n")
    some = checklist_table(tmp_path).set_index("item")
    assert some.there["Fairness: approaches and their reasons"] == "yes"
    assert some["where"]["Calibration"] == "not in this report: no calibration.csv"


def test_numbers_of_the_checklists_are_in_their_range():
    for item in ITEMS:
        for numbers, most in ((item.claim, 44), (item.tripod, 27), (item.stard, 30)):
            told = [
                int("".join(c for c in part if c.isdigit()))
                for part in numbers.replace("-", ",").split(",")
                if part.strip()
            ]
            assert all(1 <= number <= most for number in told), item
        assert item.where and (item.where != AUTHORS or not item.files)


def test_the_section_is_written_with_its_caption(tmp_path):
    part = checklist_section(tmp_path)
    assert part.tables[0].caption in (tmp_path / "checklist.md").read_text()
    assert len(part.tables[0].frame) == len(ITEMS)
