"""Heat maps of Table 1 and forests of two-sample tests show every number and its n."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from cmrgen.evaluation.fidelity import display, figures
from cmrgen.evaluation.fidelity.subgroups import Distances


def table1() -> pd.DataFrame:
    return pd.DataFrame(
        [
            (axis, cell, kind, 10.0 + 7 * k, 0.5, 120, 300)
            for axis in ("sex", "diagnosis")
            for kind in ("Real - Real", "Real - Synthetic")
            for k, cell in enumerate((f"{axis} A - A", f"{axis} A - B", f"{axis} B - B"))
        ],
        columns=["axis", "cell", "kind", "fid", "sd", "n", "subjects"],
    )


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text)]


def test_heat_maps_show_every_cell_and_the_images_behind_it() -> None:
    table = table1()
    table.loc[0, ["fid", "sd"]] = np.nan
    texts = words(figures.fid_heatmap(table))
    assert texts.count("24.00 (0.50)") == 4 and texts.count("n/a") == 1
    assert {"Sex", "Diagnosis", "sex A - B", "Real - Synthetic"} <= set(texts)
    assert any("draws of 120 images a side" in text for text in texts)
    assert "no axis could be compared" in words(figures.fid_heatmap(table[:0]))


def test_a_table_for_readers_says_what_was_left_out() -> None:
    shown = display.table1_cells(
        Distances(table1(), 120, ["bmi_band: unknown."], ["Only few."]), title="domain"
    )
    assert "domain features, n = 120 images a side" in shown.caption
    assert shown.notes == ["Only few.", "Left out: bmi_band: unknown."]


def test_two_sample_tests_without_enough_subjects_say_so() -> None:
    table = pd.DataFrame({"test": ["network"], "auc": 0.7, "low": 0.6, "high": 0.8, "n": 50})
    shown = display.two_sample_cells(table, table.assign(auc=0.5, low=0.4, high=0.6))
    assert shown.frame.iloc[0].tolist() == [
        "network",
        "whatever a small network learns",
        "0.700 [0.600, 0.800]",
        "0.500 [0.400, 0.600]",
        50,
    ]
    assert shown.notes == [] and "n = 50 a side" in " ".join(
        words(figures.two_sample_figure(table, table))
    )
    nothing = table.assign(auc=np.nan, low=np.nan, high=np.nan)
    assert "nothing is measured" in display.two_sample_cells(nothing, nothing).notes[0]
