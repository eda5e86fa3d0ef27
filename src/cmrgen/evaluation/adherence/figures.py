"""Adherence, contraction and diversity as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmrdata.axes import name_of, title_of
from cmrgen.evaluation.adherence.display import named
from cmrgen.evaluation.adherence.scores import asked_by
from cmrstudy.figures import COLOURS, GREY, INK, STYLE, coloured, image_grid, matrix
from cmrstudy.figures import WIDTH as FULL_WIDTH

WIDTH = 5.4  # inches: a phone shows these figures at two thirds of their size
# colour and mark of each kind of images
MARKS = {"real": (COLOURS[0], "o"), "synthetic": (COLOURS[5], "D")}
HEARTS = {"healthy": COLOURS[2], "diseased": COLOURS[3]}
BRIGHTER = 3  # times that the map of sd is shown brighter than it is


def adherence_bars(table: pd.DataFrame, groups: pd.DataFrame) -> Figure:
    """`adherence_table` as bars, the synthetic images between their two references; whiskers: the
    intervals that all images have in `by_group`."""
    ends = [f"{side}_{end}" for side in MARKS for end in ("low", "high")]
    table = table.join(groups[groups.axis == "all"].set_index("metric")[ends], on="metric")
    colours = {"real": COLOURS[0], "synthetic": COLOURS[1], "shuffled": GREY}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(FULL_WIDTH, 1.1 + 0.8 * len(table)), layout="constrained")
        panel = figure.subplots()
        for k, (column, colour) in enumerate(colours.items()):
            places = np.arange(len(table)) + (k - 1) * 0.26
            panel.barh(places, table[column], 0.24, color=colour, label=column)
            right = table[column]
            if column in MARKS:
                low, high = table[f"{column}_low"], table[f"{column}_high"]
                panel.hlines(places, low, high, color=INK, linewidth=1.2)
                right = high.fillna(right)
            for y, value, end in zip(places, table[column], right, strict=True):
                if not np.isnan(value):
                    panel.text(end + 0.01, y, f"{value:.2f}", va="center", fontsize=9)
        for y in np.flatnonzero(table.synthetic.isna()):
            panel.text(0.01, float(y), "not known in this cohort", va="center", fontsize=10)
        names = [
            metric.replace("_", " ").replace("bmi", "BMI").replace("dice", "Dice")
            for metric in table.metric
        ]
        panel.set_yticks(
            np.arange(len(table)),
            [f"{name}\nn = {n:,}" for name, n in zip(names, table.n, strict=True)],
        )
        panel.set_ylim(len(table) - 0.5, -0.5)
        panel.set_xlim(0, 1.08)
        panel.set_xticks(np.arange(0, 1.1, 0.2))
        panel.tick_params(left=False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def band_figure(table: pd.DataFrame) -> Figure:
    """Dice and accuracies of all images and of each band: columns axis, subgroup, metric, then
    value, _low and _high of real and synthetic. Rows of full groups are left out."""
    table = table[table.axis != "group"]
    rows, metrics = (
        list(dict.fromkeys(zip(table.axis, table.subgroup, strict=True))),
        list(dict.fromkeys(table.metric)),
    )
    lines = -(-len(metrics) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, 0.5 + lines * (0.6 + 0.27 * len(rows))), layout="constrained"
        )
        panels = figure.subplots(lines, 2, squeeze=False, sharey=True).ravel()
        for panel, metric in zip(panels, metrics, strict=False):
            part = table[table.metric == metric].set_index(["axis", "subgroup"]).reindex(rows)
            for k, (side, (colour, mark)) in enumerate(MARKS.items()):
                places = np.arange(len(rows)) + (k - 0.5) * 0.34
                panel.hlines(
                    places, part[f"{side}_low"], part[f"{side}_high"], color=colour, linewidth=2
                )
                panel.plot(
                    part[side], places, mark, color=colour, markersize=5, label=f"{side} images"
                )
            ends = part[["real_low", "real", "synthetic_low", "synthetic"]].min().min()
            panel.set_xlim(min(0.5, np.floor(10 * ends) / 10) if ends == ends else 0, 1.01)
            panel.set_title(_heading(metric), fontsize=11, loc="left", fontweight="bold")
            panel.set_yticks(np.arange(len(rows)), [named(*row) for row in rows])
            panel.set_ylim(len(rows) - 0.5, -0.5)
            panel.tick_params(left=False)
            panel.grid(axis="x", color=GREY, linewidth=0.5)
            for y in range(1, len(rows)):
                if rows[y][0] != rows[y - 1][0]:
                    panel.axhline(y - 0.5, color=GREY, linewidth=0.8)
        for panel in panels[len(metrics) :]:
            panel.set_axis_off()
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False
        )
    return figure


def confusion_figure(table: pd.DataFrame) -> Figure:
    """What is seen (columns) where what is asked (rows), per axis and kind of images; cells: share
    of the row and count."""
    axes = list(dict.fromkeys(table.axis))
    sizes = [table[table.axis == axis].asked.nunique() for axis in axes]
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, 0.4 + sum(0.75 + 0.5 * size for size in sizes)), layout="constrained"
        )
        panels = figure.subplots(max(len(axes), 1), 2, squeeze=False, height_ratios=sizes or [1])
        if not axes:
            panels[0, 0].text(0, 0.5, "no attribute is known in this cohort")
            panels[0, 0].set_axis_off()
            panels[0, 1].set_axis_off()
        for line, axis in zip(panels, axes, strict=False):
            for panel, side in zip(line, MARKS, strict=True):
                part = table[(table.axis == axis) & (table.images == side)]
                asked, seen = list(dict.fromkeys(part.asked)), list(dict.fromkeys(part.seen))
                counts = (
                    part.pivot(index="asked", columns="seen", values="count")
                    .loc[asked, seen]
                    .fillna(0)  # nothing is seen in flat images alone, where there are any
                    .to_numpy(float)
                )
                matrix(
                    panel,
                    counts,
                    [name_of(axis, value) for value in asked],
                    [_wrapped(name_of(axis, value, short=True)) for value in seen],
                )
                panel.set_title(
                    f"{title_of(axis)}, {side}",
                    fontsize=10,
                    loc="left",
                    fontweight="bold",
                )
        figure.supxlabel("seen", fontsize=11)
        figure.supylabel("asked for", fontsize=11)
    return figure


def bland_altman(pairs: dict[str, pd.DataFrame], table: pd.DataFrame, *, unit: str) -> Figure:
    """Difference against mean of `segmented` and `mask`, a panel per kind of images.

    `pairs`: real and synthetic -> rows with label, mask, segmented; `table` has bias, lower and
    upper with _low and _high of all hearts per kind (images). Lines: bias and limits of agreement,
    shaded: their 95 % intervals.
    """
    apart = [(part.segmented - part["mask"]).dropna() for part in pairs.values()]
    reach = max([12.0, *(values.abs().max() for values in apart if len(values))]) * 1.1
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9 * len(pairs) + 0.6), layout="constrained")
        panels = figure.subplots(len(pairs), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for panel, (side, part) in zip(panels, pairs.items(), strict=True):
            known = part.dropna(subset=["mask", "segmented"])
            for label, (word, colour) in enumerate(HEARTS.items()):
                rows = known[known.label == label]
                panel.scatter(
                    (rows.segmented + rows["mask"]) / 2,
                    rows.segmented - rows["mask"],
                    s=9,
                    alpha=0.5,
                    linewidth=0,
                    color=colour,
                    label=word,
                    rasterized=True,
                )
            panel.axhline(0, color=INK, linewidth=0.8, linestyle=":")
            _limits(
                panel, table[(table.images == side) & (table.hearts == "all")].iloc[0], reach=reach
            )
            panel.set_title(
                f"{side} images (n = {len(known):,})", loc="left", fontsize=11, fontweight="bold"
            )
            panel.set_ylim(-reach, reach)
        panels[-1].set_xlabel(f"mean of mask and segmented image ({unit})")
        figure.supylabel(f"segmented image - mask ({unit})", fontsize=11)
        handles, labels = panels[0].get_legend_handles_labels()
        shown = figure.legend(
            handles, labels, loc="outside upper left", ncols=2, frameon=False, markerscale=2
        )
        for handle in shown.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    return figure


def diversity_figure(table: pd.DataFrame, spreads: dict[tuple[str, str], pd.DataFrame]) -> Figure:
    """Distance and pixel sd between images that share something: means with intervals, a dot per
    bundle of images."""
    titles = {
        "distance": "distance (domain backbone)",
        "pixel_sd": "pixel sd (grey values)",
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.0 + 2 * (0.6 + 0.5 * len(table))), layout="constrained")
        panels = figure.subplots(2, 1)
        for panel, (column, title) in zip(panels, titles.items(), strict=True):
            for y, row in enumerate(table.to_dict("records")):
                bundles = spreads[row["images"], row["kind"]]
                dots = bundles.distance if column == "distance" else np.sqrt(bundles.variance)
                _dots_and_mean(panel, y, row, column, dots)
            names = [
                f"{side}: {kind.replace(', ', chr(10))}\nn = {n:,}"
                for side, kind, n in zip(table.images, table.kind, table.bundles, strict=True)
            ]
            panel.set_yticks(np.arange(len(table)), names, fontsize=9)
            panel.set_ylim(len(table) - 0.5, -0.5)
            panel.set_xlim(left=0)
            panel.set_xlabel(title)
            panel.tick_params(left=False)
    return figure


def _dots_and_mean(
    panel: Axes, y: int, row: Mapping[Any, Any], column: str, dots: pd.Series
) -> None:
    """A line of `diversity_figure`."""
    colour, mark = MARKS[row["images"]]
    panel.plot(
        dots,
        y + np.linspace(-0.22, 0.22, len(dots)),
        ".",
        color=colour,
        alpha=0.25,
        markersize=4,
        rasterized=True,
    )
    low, high = row[f"{column}_low"], row[f"{column}_high"]
    panel.hlines(y, low, high, color=INK, linewidth=2.5, zorder=3)
    panel.plot(row[column], y, mark, color=colour, markeredgecolor=INK, markersize=8, zorder=4)
    if not row["bundles"]:
        axes = panel.get_yaxis_transform()
        panel.text(0.01, y, "nothing to compare", va="center", fontsize=9, transform=axes)


def seed_spread(images: np.ndarray, mask: np.ndarray) -> Figure:
    """Mask, per-pixel mean and sd of images (n, 2, P, P) drawn from it with n seeds, for ED and
    ES."""
    mean, sd = images.mean(0), images.astype(np.float32).std(0, ddof=1)
    rows = [
        [
            coloured(mask[p]),
            mean[p].round().astype(np.uint8),
            (BRIGHTER * sd[p]).clip(0, 255).astype(np.uint8),
        ]
        for p in range(2)
    ]
    white = 255 // BRIGHTER
    return image_grid(
        rows, ["ED", "ES"], ["mask", f"mean of {len(images)}", f"sd (white: {white})"]
    )


def _limits(panel: Axes, row: Any, *, reach: float) -> None:
    above = -np.inf
    for column, name, style in (
        ("lower", "limit", "--"),
        ("bias", "bias", "-"),
        ("upper", "limit", "--"),
    ):
        if row[column] == row[column]:
            panel.axhline(row[column], color=INK, linewidth=1.3, linestyle=style)
            panel.axhspan(
                row[f"{column}_low"], row[f"{column}_high"], color=INK, alpha=0.14, linewidth=0
            )
            # words keep their distance where lines are close
            above = max(row[column], above + 0.11 * reach)
            panel.text(
                1.01,
                above,
                f"{name} {row[column]:+.1f}",
                fontsize=9,
                va="center",
                transform=panel.get_yaxis_transform(),
            )


def _heading(metric: str) -> str:
    """ "Dice", "Age band as asked"."""
    axis = asked_by(metric)
    return f"{axis.phrase[0].upper()}{axis.phrase[1:]} as asked" if axis else metric.capitalize()


def _wrapped(name: str) -> str:
    return name.replace("Overweight", "Over-\nweight")
