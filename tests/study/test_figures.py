"""Figures: colours, grids and files, the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cmrdata.batch import LV, RV
from cmrstudy import figures


def test_labels_are_painted_over_an_image_as_opaquely_as_is_asked() -> None:
    image, mask = np.full((2, 2), 100, np.uint8), np.array([[0, LV], [RV, 0]])
    rgb = figures.overlay(image, mask, opacity=0.5)
    assert rgb.dtype == np.uint8 and rgb[0, 0].tolist() == [100, 100, 100]
    assert rgb[0, 1].tolist() == [round(50 + c / 2) for c in figures.STRUCTURES[LV]]
    coloured = figures.coloured(mask)
    assert coloured[1, 0].tolist() == list(figures.STRUCTURES[RV]) and not coloured[0, 0].any()


def test_a_grid_has_a_cell_per_image_and_empty_ones_where_there_is_none() -> None:
    image = np.zeros((4, 4), np.uint8)
    figure = figures.image_grid([[image, None, image], [image]], ["a", "b"], ["x", "y"])
    drawn = [len(panel.images) for panel in figure.axes]
    assert drawn == [1, 0, 1, 1, 0, 0]
    assert [panel.get_title() for panel in figure.axes] == ["x", "y", "", "", "", ""]
    assert [panel.get_ylabel() for panel in figure.axes] == ["a", "", "", "b", "", ""]
    assert figure.axes[0].images[0].get_clim() == (0, 255)


def test_a_matrix_tells_counts_and_their_share_of_the_row() -> None:
    panel = Figure().subplots()
    figures.matrix(panel, np.array([[3.0, 1.0], [0.0, 0.0]]), ["a", "b"], ["c", "d"])
    assert [text.get_text() for text in panel.texts] == ["75 %\n3", "25 %\n1", "none", "none"]
    assert panel.texts[0].get_color() == "white" and panel.texts[1].get_color() == figures.INK
    assert [text.get_text() for text in panel.get_yticklabels()] == ["a", "b"]


def people(**changes: object) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "sex": ["F", "F", "M", "M"],
            "age_band": ["<60", "70+", "70+", None],
            "bmi_band": [None] * 4,
            "label": [1, 0, 1, None],
        }
    )
    return table.assign(**changes)


def test_fig_1_counts_the_diseased_beside_all_who_have_a_label() -> None:
    figure = figures.demographics(people())
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["Sex", "Age (years)"]
    told = [text.get_text() for text in figure.axes[0].texts]
    assert told == ["1  (50 %)", "1  (50 %)", "2  (67 %)", "1  (33 %)"]
    age = [text.get_text() for text in figure.axes[1].texts]
    assert age[:3] == ["1  (50 %)", "0  (0 %)", "1  (50 %)"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["diseased (n = 2)", "whole cohort (n = 3)"]
    nobody = figures.demographics(people(sex=None, age_band=None))
    assert "unknown in this cohort" in nobody.axes[0].texts[0].get_text()


def test_a_figure_is_saved_twice_to_the_same_bytes(tmp_path: Path) -> None:
    bytes_of = []
    for name in ("a", "b"):
        figure = figures.image_grid([[np.arange(16, dtype=np.uint8).reshape(4, 4)]])
        paths = figures.save(figure, tmp_path / name / "fig_1.5")
        assert [path.name for path in paths] == ["fig_1.5.png", "fig_1.5.svg"]
        bytes_of.append([path.read_bytes() for path in paths])
        assert len(list((tmp_path / name).iterdir())) == 2
    assert bytes_of[0] == bytes_of[1] and bytes_of[0][0].startswith(b"\x89PNG")
    assert b"date" not in bytes_of[0][1].lower()


def test_an_empty_panel_says_why() -> None:
    panel = Figure().subplots()
    figures.no_panel(panel, "nobody")
    assert panel.texts[0].get_text() == "nobody" and not panel.axison


@pytest.mark.parametrize("colour", [*figures.COLOURS, figures.GREY, figures.INK])
def test_colours_are_distinct(colour: str) -> None:
    assert [*figures.COLOURS, figures.GREY, figures.INK].count(colour) == 1
