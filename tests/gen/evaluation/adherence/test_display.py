"""Adherence, contraction and diversity as readers see them, cell by cell."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from cmrgen.evaluation.adherence import display
from cmrgen.evaluation.adherence.scores import Scores
from cmrstudy.intervals import MIN_COUNT

NAN = float("nan")


def group_row(axis: str, subgroup: str, metric: str, **cells: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {"axis": axis, "subgroup": subgroup, "metric": metric}
    for side, value in (("synthetic", 0.5), ("real", 0.75)):
        usual |= {side: value, f"{side}_low": value - 0.25, f"{side}_high": value + 0.125}
        usual |= {f"{side}_n": 1200, f"{side}_subjects": MIN_COUNT}
    return usual | cells


def groups() -> pd.DataFrame:
    few = {"synthetic_subjects": MIN_COUNT - 1, "synthetic_n": 7}
    unknown = {"real": NAN, "real_low": NAN, "real_high": NAN}
    return pd.DataFrame(
        [
            group_row("all", "all", "dice"),
            group_row("all", "all", "age_accuracy", **unknown),
            group_row("age_band", "70+", "dice", **few),
            group_row("age_band", "70+", "age_accuracy", **unknown),
            group_row("group", "M/70+/obese/hf", "dice"),
            group_row("group", "M/70+/obese/hf", "age_accuracy"),
            group_row("group", "F/70+/obese/hf", "dice", **few),
            group_row("group", "F/70+/obese/hf", "age_accuracy"),
        ]
    )


def test_the_adherence_table_has_the_intervals_of_all_images() -> None:
    columns = ["metric", "real", "synthetic", "shuffled", "n"]
    rows = [("age_accuracy", NAN, 0.5, 0.25, 40), ("dice", 0.75, 0.5, NAN, 210)]
    rows.append(("sex_accuracy", NAN, NAN, NAN, 0))  # of no group
    shown = display.adherence_cells(
        Scores(pd.DataFrame(rows, columns=columns), ["Only few."]), groups()
    )
    assert shown.frame.to_dict("list") == {
        "what": ["age band", "Dice", "sex"],
        "synthetic": ["0.500 [0.250, 0.625]", "0.500 [0.250, 0.625]", "n/a"],
        "real": ["n/a", "0.750 [0.500, 0.875]", "n/a"],
        "shuffled": ["0.250", "n/a", "n/a"],
        "n": [40, 210, 0],
        "n real": [1200, 1200, 0],
    }
    assert shown.notes == ["Only few."] and shown.caption.endswith("[95 % interval]")


def test_dice_in_detail_has_its_spread_where_there_is_one() -> None:
    columns = {"structure": ["LV"], "phase": ["ED"], "synthetic": [0.5], "real": [0.75]}
    columns |= {"shuffled": [NAN], "synthetic_sd": [0.125], "real_sd": [NAN]}
    detail = pd.DataFrame({**columns, "shuffled_sd": [0.5], "synthetic_n": [210], "real_n": [72]})
    assert display.detail_cells(detail).frame.to_dict("records") == [
        {
            **{"structure": "LV", "phase": "ED", "synthetic": "0.500 ± 0.125", "real": "0.750"},
            **{"shuffled": "n/a", "n": 210, "n real": 72},
        }
    ]


def test_bands_have_a_row_for_each_kind_of_images() -> None:
    shown = display.band_cells(groups())
    assert shown.frame.to_numpy().tolist() == [
        ["All images", "synthetic", "1,200 (20)", "0.50 [0.25, 0.62]", "0.50 [0.25, 0.62]"],
        ["All images", "real", "1,200 (20)", "0.75 [0.50, 0.88]", "n/a"],
        ["Age > 70", "synthetic", "7 (19), few", "0.50 [0.25, 0.62]", "0.50 [0.25, 0.62]"],
        ["Age > 70", "real", "1,200 (20)", "0.75 [0.50, 0.88]", "n/a"],
    ]
    assert list(shown.frame) == ["images of", "kind", "n (subjects)", "Dice", "age band"]
    assert not shown.notes


def test_full_groups_that_rest_on_few_are_counted() -> None:
    shown = display.group_cells(groups())
    assert shown.frame["Group"].tolist() == [*2 * ["M/70+/obese/hf"], *2 * ["F/70+/obese/hf"]]
    assert shown.notes == [
        f"1 of 2 groups rest on fewer than {MIN_COUNT} subjects in real or synthetic images "
        "(marked few): their numbers are only a hint."
    ]
    enough = groups().assign(synthetic_subjects=MIN_COUNT)
    assert display.group_cells(enough).notes == []


def test_all_that_is_seen_stands_in_one_cell() -> None:
    columns = ["axis", "asked", "images", "seen", "share", "n"]
    rows = [
        ("age_band", "70+", "synthetic", "70+", 0.755, 40),
        ("age_band", "70+", "synthetic", "<60", 0.245, 40),
        ("age_band", "70+", "real", "70+", NAN, 0),
        ("sex", "F", "real", "M", 1.0, 1),
    ]
    shown = display.confusion_cells(pd.DataFrame(rows, columns=columns))
    assert shown.frame.to_numpy().tolist() == [
        ["Age: 70+", "synthetic", 40, "70+ 76 %, <60 24 %"],
        ["Age: 70+", "real", 0, "n/a"],
        ["Sex: Female", "real", 1, "Male 100 %"],
    ]
    assert list(shown.frame) == ["asked for", "images", "n", "seen"]
    nothing = display.confusion_cells(pd.DataFrame(columns=columns)).frame
    assert nothing.empty and list(nothing) == list(shown.frame)


def ends(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - 1, f"{name}_high": value + 2}


def test_agreement_and_diversity_are_told_with_their_intervals() -> None:
    row = {"images": "synthetic", "hearts": "diseased", "n": 1200, "subjects": 30, "mask": 55.25}
    row |= {"segmented": NAN, **ends("bias", -3.0), **ends("lower", -9.5), **ends("upper", 4.0)}
    shown = display.agreement_cells(Scores(pd.DataFrame([row | ends("slope", 0.5)]), ["a"]))
    assert shown.frame.to_dict("records") == [
        {
            **{"images": "synthetic", "hearts": "diseased", "n (subjects)": "1,200 (30)"},
            **{"mask": "55.2", "segmented": "n/a", "bias": "-3.0 [-4.0, -1.0]"},
            **{"lower limit": "-9.5 [-10.5, -7.5]", "upper limit": "4.0 [3.0, 6.0]"},
            "slope": "0.50 [-0.50, 2.50]",
        }
    ]
    assert shown.notes == ["a"]
    row = {"images": "real", "kind": "group", "bundles": 4, "pairs": 9}
    row |= ends("distance", 2.0) | ends("pixel_sd", 7.5)
    shown = display.diversity_cells(Scores(pd.DataFrame([row]), ["b"]))
    assert shown.frame.to_dict("records") == [
        {
            **{"images": "real", "share": "group", "bundles": 4, "pairs": 9},
            **{"distance": "2.00 [1.00, 4.00]", "pixel sd": "7.5 [6.5, 9.5]"},
        }
    ]
    assert shown.notes == ["b"]


@pytest.mark.parametrize(
    ("metric", "name"), [("dice", "Dice"), ("age_accuracy", "age band"), ("sex_accuracy", "sex")]
)
def test_a_metric_is_named_by_what_it_is_of(metric: str, name: str) -> None:
    assert display.metric_name(metric) == name
