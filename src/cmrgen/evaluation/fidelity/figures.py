"""Distances between subgroups and two-sample tests as pictures."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmrdata.axes import title_of
from cmrstudy.figures import COLOURS, GREY, STYLE, WIDTH, no_panel


def fid_heatmap(table: pd.DataFrame) -> Figure:
    """Table 1 (long: axis, cell, kind, fid, sd, n) as one small heat map per axis; darker is
    nearer."""
    axes, kinds = list(dict.fromkeys(table.axis)), list(dict.fromkeys(table.kind))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.5 + 1.45 * max(len(axes), 1)), layout="constrained")
        panels = figure.subplots(max(len(axes), 1), 1, squeeze=False)[:, 0]
        if not axes:
            no_panel(panels[0], "no axis could be compared")
        for panel, axis in zip(panels, axes, strict=False):
            part = table[table.axis == axis]
            cells = list(dict.fromkeys(part.cell))
            value, sd = (
                part.pivot(index="kind", columns="cell", values=c).loc[kinds, cells].to_numpy()
                for c in ("fid", "sd")
            )
            shown = panel.imshow(
                value, cmap="cividis", vmin=table.fid.min(), vmax=table.fid.max(), aspect="auto"
            )
            for y, x in np.ndindex(value.shape):
                text = "n/a" if np.isnan(value[y, x]) else f"{value[y, x]:.2f} ({sd[y, x]:.2f})"
                light = np.isnan(value[y, x]) or shown.norm(value[y, x]) > 0.55
                panel.text(
                    x, y, text, ha="center", va="center", color="black" if light else "white"
                )
            panel.set_xticks(range(len(cells)), cells)
            panel.set_yticks(range(len(kinds)), kinds)
            panel.tick_params(length=0)
            panel.spines[:].set_visible(False)
            panel.set_title(title_of(axis), loc="left", fontsize=11, fontweight="bold")
        if axes:
            size = table.n[table.fid.notna()].max() if table.fid.notna().any() else 0
            panels[-1].set_xlabel(
                f"Fréchet distance, mean (sd) over draws of {size:,} images a side"
            )
    return figure


def two_sample_figure(synthetic: pd.DataFrame, floor: pd.DataFrame) -> Figure:
    """The tests' AUCs with intervals, synthetic images above real ones, around the line of 0.5."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.1 + 0.45 * len(synthetic)), layout="constrained")
        panel = figure.subplots()
        panel.axvline(0.5, color=GREY, zorder=0)
        for table, shift, colour, name in (
            (synthetic, -0.14, COLOURS[1], "synthetic"),
            (floor, 0.14, COLOURS[0], "real (floor)"),
        ):
            places = np.arange(len(table)) + shift
            panel.hlines(places, table.low, table.high, color=colour, linewidth=2)
            panel.plot(table.auc, places, "o", color=colour, label=name)
        panel.set_yticks(np.arange(len(synthetic)), synthetic.test)
        panel.set_ylim(len(synthetic) - 0.5, -0.5)
        panel.set_xlim(-0.02, 1.02)
        panel.set_xlabel(
            f"AUC against held-out real images, n = {synthetic.n.iloc[0]:,} a side; line: 95 % "
            "interval"
        )
        panel.tick_params(left=False)
        figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return figure
