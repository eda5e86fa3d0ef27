"""Fairness as pictures: forest plot, gaps, calibration, confusion and critical differences; pure
functions of tables."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cmrstudy.figures import COLOURS, GREY, INK, STYLE, WIDTH, matrix

MARKERS = "osD^vP*X"
LEGEND = "line: 95 % interval; hollow: too few subjects for one"


def forest_figure(table: pd.DataFrame) -> Figure:
    """A subgroup a row, an arm a mark with its interval: columns subgroup, axis, arm, n, positives,
    mean, low, high."""
    groups, arms = list(dict.fromkeys(table.subgroup)), list(dict.fromkeys(table.arm))
    counts = table.drop_duplicates("subgroup").set_index("subgroup")
    names = [f"{group}\n{counts.positives[group]:,} of {counts.n[group]:,}" for group in groups]
    first = ~counts.axis.duplicated().to_numpy()
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, 1.2 + len(groups) * (0.22 + 0.14 * len(arms))), layout="constrained"
        )
        panel = figure.subplots()
        _marks(panel, table.rename(columns={"subgroup": "row"}), groups, arms)
        for y in np.flatnonzero(first)[1:]:
            panel.axhline(float(y) - 0.5, color=GREY, linewidth=0.8)
        panel.axvline(0.5, color=INK, linewidth=1, linestyle=":")
        panel.set_yticks(np.arange(len(groups)), names)
        panel.set_xlabel(f"balanced accuracy, mean over runs\n{LEGEND}; dotted: chance")
        figure.legend(loc="outside upper left", ncols=_columns(arms), frameon=False)
    return figure


def gaps_figure(table: pd.DataFrame) -> Figure:
    """Largest difference between subgroups per axis and arm: columns axis, arm, corrected, low,
    high, difference, expected.

    A mark is the corrected gap with its interval, a cross what was observed, a tick what equal
    subgroups give.
    """
    rows = table.rename(columns={"axis": "row", "corrected": "mean"})
    axes, arms = list(dict.fromkeys(rows.row)), list(dict.fromkeys(rows.arm))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(WIDTH, 1.4 + max(len(axes), 1) * (0.22 + 0.16 * len(arms))),
            layout="constrained",
        )
        panel = figure.subplots()
        _marks(panel, rows, axes, arms)
        height = 0.8 / len(arms)
        for k, arm in enumerate(arms):
            own = rows[rows.arm == arm].set_index("row").reindex(axes)
            places = np.arange(len(axes)) + (k - (len(arms) - 1) / 2) * height
            panel.plot(own.difference, places, "x", color=GREY, markersize=5, zorder=1)
            panel.plot(own.expected, places, "|", color=INK, markersize=8, zorder=1)
        panel.set_xlim(left=0)
        panel.set_yticks(np.arange(len(axes)), axes)
        panel.set_xlabel(
            "gap in balanced accuracy between subgroups, less the bias of picking extremes\n"
            f"{LEGEND}\ncross: as observed; tick: mean of equal subgroups"
        )
        figure.legend(loc="outside upper left", ncols=_columns(arms), frameon=False)
    return figure


def decision_figure(table: pd.DataFrame) -> Figure:
    """Decision curve: columns arm, threshold, net_benefit, low, high, treat_all."""
    arms = list(dict.fromkeys(table.arm))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        panel = figure.subplots()
        for k, arm in enumerate(arms):
            own, colour = table[table.arm == arm], COLOURS[k % len(COLOURS)]
            panel.plot(own.threshold, own.net_benefit, color=colour, linewidth=1.6, label=arm)
            panel.fill_between(
                own.threshold, own.low, own.high, color=colour, alpha=0.12, linewidth=0
            )
        everybody = table[table.arm == arms[0]]
        panel.plot(
            everybody.threshold,
            everybody.treat_all,
            color=INK,
            linewidth=1,
            linestyle="--",
            label="everybody",
        )
        panel.axhline(0, color=INK, linewidth=1, linestyle=":", label="nobody")
        most = float(table.net_benefit.max())
        panel.set(
            xscale="log",
            ylim=(-0.3 * most if most > 0 else -0.01, 1.15 * most if most > 0 else 0.01),
        )
        ticks = [
            tick
            for tick in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
            if tick >= table.threshold.min()
        ]
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.set(xlabel="threshold: risk at which one would act", ylabel="net benefit")
        figure.legend(
            loc="outside upper left", ncols=_columns([*arms, "everybody", "nobody"]), frameon=False
        )
    return figure


def calibration_figure(table: pd.DataFrame) -> Figure:
    """Reliability: a panel per arm; columns arm, n, predicted, share; a dot's area grows with its
    predictions."""
    arms = list(dict.fromkeys(table.arm))
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(arms))
        for k, (panel, arm) in enumerate(zip(panels, arms, strict=False)):
            own = table[(table.arm == arm) & (table.n > 0)]
            panel.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
            panel.plot(own.predicted, own.share, color=COLOURS[k % len(COLOURS)], linewidth=1.2)
            size = 8 + 90 * np.sqrt(own.n / table.n.max())
            panel.scatter(
                own.predicted,
                own.share,
                s=size,
                color=COLOURS[k % len(COLOURS)],
                clip_on=False,
                zorder=3,
            )
            panel.set(
                xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1]
            )
            panel.set_title(_broken(arm), fontsize=10)
        figure.supxlabel("mean predicted probability of disease", fontsize=11)
        figure.supylabel("share that is diseased", fontsize=11)
    return figure


def confusion_figure(table: pd.DataFrame) -> Figure:
    """Confusion matrices, a panel per arm: columns arm, tp, fn, fp, tn (means over runs); shade:
    share of the row."""
    arms = list(table.arm)
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(arms))
        for k, (panel, row) in enumerate(zip(panels, table.itertuples(), strict=False)):
            names = ["diseased", "healthy"]
            left = k % _columns(arms) == 0
            matrix(
                panel,
                np.array([[row.tp, row.fn], [row.fp, row.tn]]),
                names if left else ["", ""],
                names,
                form=",.1f",
            )
            for tick in panel.get_yticklabels():
                tick.set(rotation=90, va="center")
            panel.set_title(_broken(row.arm), fontsize=10)
        figure.supxlabel("predicted", fontsize=11)
        figure.supylabel("true", fontsize=11)
    return figure


def ranks_figure(ranks: pd.Series, critical: float) -> Figure:
    """Mean ranks (1 = best) on a line; a bar joins arms nearer than `critical`, which the test does
    not tell apart."""
    ordered = ranks.sort_values(kind="stable")
    k, half = len(ordered), (len(ordered) + 1) // 2
    bars = _cliques(ordered.to_numpy(), critical)
    with matplotlib.rc_context(STYLE):
        top, step = 0.45 + 0.16 * len(bars), 0.36
        figure = Figure(figsize=(WIDTH, 1.0 + top + step * half), layout="constrained")
        panel = figure.subplots()
        panel.set_axis_off()
        span = max(k - 1, 1)
        panel.set_xlim(1 - 0.62 * span, k + 0.62 * span)
        panel.set_ylim(top + step * half, -0.95)
        panel.plot([1, k], [0, 0], color=INK, linewidth=1)
        for tick in range(1, k + 1):
            panel.plot([tick, tick], [-0.08, 0], color=INK, linewidth=1)
            panel.text(tick, -0.14, str(tick), ha="center", va="bottom", fontsize=10)
        if np.isfinite(critical):
            panel.plot(
                [1, 1 + critical], [-0.62, -0.62], color=INK, linewidth=2, marker="|", markersize=9
            )
            panel.text(
                1 + critical / 2,
                -0.68,
                f"critical difference {critical:.2f}",
                ha="center",
                va="bottom",
                fontsize=10,
            )
        for j, (start, end) in enumerate(bars):
            y = 0.18 + 0.16 * j
            ends = [ordered.iloc[start] - 0.02 * span, ordered.iloc[end] + 0.02 * span]
            panel.plot(ends, [y, y], color=INK, linewidth=4, solid_capstyle="round")
        _names_of_ranks(panel, ordered, list(ranks.index), span=span, top=top, step=step)
    return figure


def _names_of_ranks(
    panel: Axes, ordered: pd.Series, arms: Sequence[str], *, span: int, top: float, step: float
) -> None:
    """Each arm's name at the end of a line to its rank: the better half left, the others right."""
    k, half = len(ordered), (len(ordered) + 1) // 2
    for j, (arm, rank) in enumerate(ordered.items()):
        left = j < half
        y = top + step * (j if left else k - 1 - j)
        edge = 1 - 0.04 * span if left else k + 0.04 * span
        panel.plot(
            [rank, rank, edge],
            [0, y, y],
            color=COLOURS[arms.index(arm) % len(COLOURS)],
        )
        panel.text(
            edge - 0.02 * span if left else edge + 0.02 * span,
            y,
            f"{_broken(arm)} ({rank:.2f})",
            ha="right" if left else "left",
            va="center",
            fontsize=10,
        )


def _marks(panel: Axes, table: pd.DataFrame, rows: Sequence[str], arms: Sequence[str]) -> None:
    """Per row and arm a mark at `mean` and a line from `low` to `high`; words where the mean is
    undefined."""
    height = 0.8 / len(arms)
    for k, arm in enumerate(arms):
        own = table[table.arm == arm].set_index("row").reindex(list(rows))
        places = np.arange(len(rows)) + (k - (len(arms) - 1) / 2) * height
        colour = COLOURS[k % len(COLOURS)]
        panel.hlines(places, own.low, own.high, color=colour, linewidth=2)
        sure = own.low.notna().to_numpy()
        for which, fill in ((sure, colour), (~sure, "white")):
            panel.plot(
                own["mean"][which],
                places[which],
                MARKERS[k % len(MARKERS)],
                color=colour,
                markerfacecolor=fill,
                markersize=5.5,
            )
        panel.plot([], [], MARKERS[k % len(MARKERS)], color=colour, markersize=5.5, label=arm)
    undefined = {row: bool(own["mean"].isna().all()) for row, own in table.groupby("row")}
    for y, row in enumerate(rows):
        if undefined[row]:
            panel.text(
                0.02,
                y,
                "undefined: one class only",
                va="center",
                fontsize=9,
                transform=panel.get_yaxis_transform(),
            )
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.tick_params(left=False)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels."""
    columns = min(4, max(count, 1))
    rows = -(-count // columns) or 1
    figure = Figure(
        figsize=(WIDTH, 0.5 + (min(WIDTH / columns, 2.6) + 0.2) * rows), layout="constrained"
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels[count:]:
        panel.set_axis_off()
    return figure, panels


def _cliques(ranks: npt.NDArray[np.float64], critical: float) -> list[tuple[int, int]]:
    """First and last position of the longest stretches of sorted ranks that lie within
    `critical`."""
    stretches: list[tuple[int, int]] = []
    for start in range(len(ranks)):
        end = (
            int(np.flatnonzero(ranks <= ranks[start] + critical)[-1])
            if np.isfinite(critical)
            else start
        )
        if end > start and (not stretches or end > stretches[-1][1]):
            stretches.append((start, end))
    return stretches


def _columns(arms: Sequence[str]) -> int:
    """Of a legend: fewer where names are long."""
    return min(4, len(arms)) if max(map(len, arms), default=0) < 16 else 2


def _broken(arm: str) -> str:
    """A name in lines."""
    return arm.replace(", ", ",\n")
