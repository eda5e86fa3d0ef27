"""Flow and baseline table as readers see them, cell by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrcls.fairness.display.participants import baseline_cells, flow_cells
from cmrcls.fairness.participants import (
    BASELINE_COLUMNS,
    FLOW_COLUMNS,
    MIN_COUNT,
    baseline_table,
    differences,
)
from support.fake_index import fake_people


def test_the_flow_in_words_hides_reasons_of_few() -> None:
    rows = [
        ("found", "participants", None, 12345, None, None, None),
        ("left out", "not usable", "odd", MIN_COUNT - 1, None, None, None),
        ("left out", "not usable", "common", MIN_COUNT, None, None, None),
        ("split", "test", None, MIN_COUNT - 1, 0, 1234, None),
        ("arm", "Real + 2000", None, 20, 5, 0, 2000),
    ]
    shown = flow_cells(pd.DataFrame(rows, columns=FLOW_COLUMNS))
    assert list(shown) == [
        *("step", "", "participants", "diseased", "real images", "synthetic images"),
    ]
    assert shown.to_numpy().tolist() == [
        ["found", "participants", "12,345", "", "", ""],
        ["left out", "not usable: odd", "fewer than 10", "", "", ""],
        ["left out", "not usable: common", "10", "", "", ""],
        # a split is told whatever its size
        ["split", "test", "9", "0", "1,234", ""],
        ["arm", "Real + 2000", "20", "5", "0", "2,000"],
    ]


def row(split: str, label: int, n: int, **cells: object) -> dict[str, object]:
    """Of the baseline table; women, unless it says otherwise."""
    usual = {"variable": "Sex", "level": "Female", "hidden": False, "known": n}
    return {"split": split, "label": label, "n": n, **usual, **cells}


def test_the_baseline_in_words_says_what_is_hidden_and_what_is_not_known() -> None:
    age = {"variable": "Age (years)", "level": ""}
    rows = [
        row("train", 0, 1200, **age, mean=61.25, sd=7.06),
        row("train", 1, MIN_COUNT, **age, mean=65.0, sd=8.0),
        *(row("val", label, 0, **age) for label in (0, 1)),
        row("test", 0, 0, **age),
        row("test", 1, MIN_COUNT - 1, **age, hidden=True),
        row("train", 0, 1200, count=1100, share=1100 / 1200),
        row("train", 1, MIN_COUNT, count=0, share=0.0),
        *(row("val", label, 0) for label in (0, 1)),
        row("test", 0, 0),
        row("test", 1, MIN_COUNT - 1, hidden=True),
    ]
    table = pd.DataFrame(rows).reindex(columns=BASELINE_COLUMNS)
    shown = baseline_cells(table)
    heads = [
        f"{split}, {label}"
        for split in ("training", "validation", "test")
        for label in ("healthy", "diseased")
    ]
    differ = ["SMD by diagnosis (test)", "SMD test - training (healthy)"]
    assert list(shown) == ["", *heads, *differ]
    size, ages, women = shown.to_dict("records")
    assert list(size.values()) == [
        *("n", "1,200", "10", "0", "0", "0", "fewer than 10", "", ""),
    ]
    assert ages[""] == "Age (years), mean (sd)" and women[""] == "Sex: Female"
    assert [ages[head] for head in (heads[0], heads[1], *heads[4:])] == [
        *("61.2 (7.1)", "65.0 (8.0)", "n/a", "hidden"),
    ]
    assert [women[head] for head in (heads[0], heads[1], *heads[4:])] == [
        *("1,100 (91.7%)", "0 (0.0%)", "n/a", "hidden"),
    ]
    assert ages[heads[2]] == women[heads[3]] == "n/a"
    assert [ages[name] for name in differ] == [women[name] for name in differ] == ["n/a", "n/a"]


def test_differences_stand_beside_the_rows_they_are_of() -> None:
    table = baseline_table(fake_people())
    shown = baseline_cells(table).set_index("")
    apart = differences(table).set_index(["variable", "compared"]).smd
    for name, title in (
        ("diseased - healthy, test", "SMD by diagnosis (test)"),
        ("test - training, healthy", "SMD test - training (healthy)"),
    ):
        value = apart["Age (years)", name]
        cell = shown[title]["Age (years), mean (sd)"]
        assert cell == ("n/a" if np.isnan(value) else f"{value:+.2f}")
    assert shown["SMD test - training (healthy)"]["Age (years), mean (sd)"] != "n/a"


def test_a_cohort_without_attributes_has_a_table_too() -> None:
    people = fake_people()
    for column in ("sex", "age", "age_band", "bmi", "bmi_band"):
        people[column] = None
    shown = baseline_cells(baseline_table(people))
    assert shown[""].tolist()[0] == "n" and not any("Age" in name for name in shown[""])
