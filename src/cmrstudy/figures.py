"""The paper's figures from tables and arrays: pure functions that return a Figure and touch no
global pyplot state.

Colours are Okabe and Ito's, which colour-blind readers tell apart; text stays readable at a phone's
width.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmrdata.axes import AXES, known_axes
from cmrdata.batch import LV, MYO, RV
from cmrdata.disk import write_atomic

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY, INK = "#C4C4C4", "#333333"
STRUCTURES = {LV: (213, 94, 0), MYO: (0, 158, 115), RV: (86, 180, 233)}  # RGB of each label
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "svg.hashsalt": "cmr",
    "axes.spines.top": False,
    "text.color": INK,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
WIDTH = 6.4  # inches


def demographics(subjects: pd.DataFrame) -> Figure:
    """Fig. 1: diseased subjects by sex, age and BMI band, beside the whole cohort's shares; known
    axes only."""
    axes = [AXES[column] for column in known_axes(subjects)]
    labelled = subjects[subjects.label.notna()]
    with matplotlib.rc_context(STYLE):
        counts = [len(axis.bands) for axis in axes] or [1]
        figure = Figure(figsize=(WIDTH, 1.1 + 0.75 * sum(counts)), layout="constrained")
        panels = figure.subplots(len(counts), 1, sharex=True, squeeze=False, height_ratios=counts)[
            :, 0
        ]
        diseased = labelled[labelled.label == 1]
        if not axes:
            no_panel(panels[0], "sex, age and BMI are unknown in this cohort")
        for panel, axis in zip(panels, axes, strict=False):
            for table, shift, colour, name in (
                (diseased, -0.2, COLOURS[0], f"diseased (n = {len(diseased):,})"),
                (labelled, 0.2, GREY, f"whole cohort (n = {len(labelled):,})"),
            ):
                number = np.array([int((table[axis.column] == band).sum()) for band in axis.bands])
                share = number / max(number.sum(), 1)
                places = np.arange(len(number)) + shift
                panel.barh(places, 100 * share, 0.38, color=colour, label=name)
                for y, width, n in zip(places, 100 * share, number, strict=True):
                    panel.text(width + 1, y, f"{n:,}  ({width:.0f} %)", va="center", fontsize=10)
            panel.set_yticks(
                np.arange(len(axis.bands)), [band.short for band in axis.bands.values()]
            )
            panel.set_ylim(len(axis.bands) - 0.5, -0.5)
            panel.set_title(axis.heading, loc="left", fontsize=11, fontweight="bold")
            panel.set_xlim(0, 119)
            panel.set_xticks(range(0, 101, 20))
            panel.tick_params(left=False)
        panels[-1].set_xlabel("share of subjects (%)")
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False
        )
    return figure


def matrix(
    panel: Axes,
    counts: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    form: str = ",.0f",
) -> None:
    """A confusion matrix on `panel`: (R, C) counts and their share of the row, which is the shade;
    empty rows say none."""
    whole = counts.sum(1, keepdims=True)
    share = counts / np.maximum(whole, 1)
    panel.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (y, x), count in np.ndenumerate(counts):
        told = f"{100 * share[y, x]:.0f} %\n{count:{form}}" if whole[y, 0] else "none"
        colour = "white" if share[y, x] > 0.6 else INK
        panel.text(x, y, told, ha="center", va="center", fontsize=9, color=colour)
    panel.set_xticks(range(len(columns)), columns, fontsize=9)
    panel.set_yticks(range(len(rows)), rows, fontsize=9)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def coloured(mask: np.ndarray) -> np.ndarray:
    """(P, P) labels -> (P, P, 3) uint8: LV, MYO, RV in colour on black."""
    return overlay(np.zeros(mask.shape, np.uint8), mask, opacity=1.0)


def overlay(image: np.ndarray, mask: np.ndarray, *, opacity: float = 0.45) -> np.ndarray:
    """(P, P) uint8 image with its (P, P) labels painted over it -> (P, P, 3) uint8."""
    rgb = np.repeat(image[..., None], 3, -1).astype(float)
    for label, colour in STRUCTURES.items():
        rgb[mask == label] = (1 - opacity) * rgb[mask == label] + opacity * np.array(colour)
    return rgb.round().astype(np.uint8)


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    row_titles: Sequence[str] = (),
    column_titles: Sequence[str] = (),
) -> Figure:
    """A grid of (P, P) uint8 grey or (P, P, 3) uint8 colour images; None leaves a cell empty.

    Used for mask | real | synthetic, the prompt sweep (Fig. 3) and the seeds (Fig. 4); see
    `coloured` and `overlay`.
    """
    columns = max(len(row) for row in rows)
    with matplotlib.rc_context(STYLE):
        cell = min(1.6, (WIDTH - 0.4) / columns)
        figure = Figure(figsize=(cell * columns + 0.4, (cell + 0.05) * len(rows) + 0.4))
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        panels = figure.subplots(len(rows), columns, squeeze=False)
        for y, row in enumerate(rows):
            for x, panel in enumerate(panels[y]):
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
                if x < len(row) and (image := row[x]) is not None:
                    panel.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                if y == 0 and x < len(column_titles):
                    panel.set_title(column_titles[x], fontsize=10)
                if x == 0 and y < len(row_titles):
                    panel.set_ylabel(row_titles[y], fontsize=10)
    return figure


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Write <path>.png and <path>.svg, the same bytes for the same figure; returns both paths."""
    stem = Path(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    _settle(figure)
    written = []
    for suffix, facts in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer, target = io.BytesIO(), stem.with_name(f"{stem.name}.{suffix}")
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=suffix, dpi=160, facecolor="white", metadata=facts)
        write_atomic(target, buffer.getvalue())
        written.append(target)
    return written


def _settle(figure: Figure) -> None:
    """Lay out once and for all, in round numbers: the solver's last digits vary and would decide an
    SVG's identifiers."""
    if figure.get_layout_engine() is None:
        return
    with matplotlib.rc_context(STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for panel in figure.axes:
        left, bottom, width, height = (
            round(float(edge), 6) for edge in panel.get_position(original=True).bounds
        )
        panel.set_position((left, bottom, width, height))


def no_panel(panel: Axes, reason: str) -> None:
    """Leave a panel empty but for the reason."""
    panel.text(0.5, 0.5, reason, ha="center", va="center", transform=panel.transAxes)
    panel.set_axis_off()
