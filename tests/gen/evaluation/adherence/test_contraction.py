"""Area changes by hand, and their agreement against Bland and Altman's formulas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.batch import LV, RV
from cmrgen.evaluation.adherence import contraction
from cmrgen.evaluation.adherence.areas import structure_areas
from cmrgen.evaluation.adherence.scores import JudgedImages
from support.judged_images import people


def test_area_change_by_hand() -> None:
    cavity = np.array([[8, 4], [4, 8], [0, 0]])
    assert contraction.area_change(cavity).tolist() == [
        50,
        -100,
        pytest.approx(np.nan, nan_ok=True),
    ]
    masks = np.zeros((1, 2, 4, 4), np.uint8)
    masks[0, 0, :2], masks[0, 1, 0], masks[0, :, 3] = LV, LV, RV
    side = JudgedImages(people(1), structure_areas(masks, masks), {})
    assert contraction.area_changes(side)[["mask", "segmented"]].to_numpy().tolist() == [[50, 50]]


def test_agreement_is_bland_and_altmans_for_independent_images() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"subject": np.arange(4000), "label": np.arange(4000) % 2, "mask": rng.normal(50, 8, 4000)}
    )
    table["segmented"] = table["mask"] + rng.normal(-3, 5, 4000)
    table.loc[0, "segmented"], table.loc[1, "mask"], table.loc[1, "segmented"] = np.nan, 2.0, -1.0
    found, warnings = contraction.agreement(table, table[:30])
    row, apart = found.iloc[0], (table.segmented - table["mask"]).dropna()
    sd = apart.std()
    assert row.bias == pytest.approx(apart.mean()) and row.upper - row.lower == pytest.approx(
        2 * 1.96 * sd
    )
    assert row.bias_high - row.bias == pytest.approx(1.96 * sd / np.sqrt(len(apart)), rel=0.01)
    theirs = 1.96 * sd * np.sqrt((1 + 1.96**2 / 2) / len(apart))  # Bland & Altman 1999, 2.4
    assert row.upper_high - row.upper == pytest.approx(theirs, rel=0.1)
    assert (row.n, row.undefined, row.growing) == (3999, 1, 1) and found.hearts.tolist() == [
        "all",
        "healthy",
        "diseased",
    ] * 2
    told = " ".join(warnings)
    assert (
        "1 of 4000 real images have no LV" in told
        and "larger at ES" in told
        and "synthetic healthy (14)" in told
    )
    assert row.slope_low < 1 < row.slope_high and row.slope_high - row.slope_low < 0.1
    nothing = contraction.agreement(table[:0], table[:1]).table
    assert np.isnan(nothing.bias).all() and (nothing.n == 0).all()


def test_the_slope_says_how_much_of_what_a_mask_asks_for_is_seen() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"subject": np.arange(600), "label": 0, "mask": rng.normal(45, 10, 600)})
    table["segmented"] = 30 + 0.4 * table["mask"] + rng.normal(0, 3, 600)
    row = contraction.agreement(table, table).table.iloc[0]
    assert row.slope == pytest.approx(np.polyfit(table["mask"], table.segmented, 1)[0])
    error = 3 / np.sqrt(600) / table["mask"].std()
    assert row.slope_high - row.slope == pytest.approx(1.96 * error, rel=0.1)
    alike = contraction.agreement(table.assign(mask=40.0), table).table.iloc[0]
    assert np.isnan(alike.slope) and not np.isnan(alike.bias)
