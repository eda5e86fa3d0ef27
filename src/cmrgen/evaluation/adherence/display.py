"""Adherence, contraction and diversity as tables with a value and its interval in a cell. Pure
functions of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cmrdata.axes import name_of, title_of
from cmrgen.evaluation.adherence.scores import Scores, asked_by
from cmrstudy.intervals import MIN_COUNT
from cmrstudy.report import Shown, number

SIDES = ("synthetic", "real")  # in the order of a table
GROUP = "Group"  # the column of full groups


def adherence_cells(scores: Scores, groups: pd.DataFrame) -> Shown:
    """`adherence_table` with the intervals that all images have in `by_group`."""
    table = scores.table
    whole = groups[groups.axis == "all"].set_index("metric").reindex(table.metric)
    frame = pd.DataFrame({"what": [metric_name(metric) for metric in table.metric]})
    for side in SIDES:
        ends = whole[f"{side}_low"], whole[f"{side}_high"]
        frame[side] = [number(*values) for values in zip(table[side], *ends, strict=True)]
    frame["shuffled"] = [number(value) for value in table.shuffled]
    frame["n"], frame["n real"] = table.n.to_numpy(), whole.real_n.fillna(0).astype(int).to_numpy()
    return Shown(
        frame,
        "Adherence: what judges trained on real images see in held-out real and in synthetic "
        "images [95 % interval]",
        scores.warnings,
    )


def detail_cells(detail: pd.DataFrame) -> Shown:
    """`adherence_detail` with mean ± sd in a cell."""
    frame = detail[["structure", "phase"]].copy()
    for side in (*SIDES, "shuffled"):
        frame[side] = [
            "n/a" if mean != mean else f"{mean:.3f}" if sd != sd else f"{mean:.3f} ± {sd:.3f}"
            for mean, sd in zip(detail[side], detail[f"{side}_sd"], strict=True)
        ]
    frame = frame.assign(**{"n": detail.synthetic_n, "n real": detail.real_n})
    return Shown(frame, "Dice per structure and phase, mean ± sd over images")


def band_cells(groups: pd.DataFrame) -> Shown:
    """The bands of `by_group`: a row per band and kind of images, a column per metric."""
    return Shown(
        _subgroup_cells(groups[groups.axis != "group"]),
        "Adherence per band: Dice and share seen as asked [95 % interval]",
    )


def group_cells(groups: pd.DataFrame) -> Shown:
    """The full groups of `by_group`, as `band_cells`."""
    frame = _subgroup_cells(groups[groups.axis == "group"])
    few = frame[frame["n (subjects)"].str.endswith("few")][GROUP].nunique()
    note = (
        f"{few} of {frame[GROUP].nunique()} groups rest on fewer than {MIN_COUNT} subjects "
        "in real or synthetic images (marked few): their numbers are only a hint."
    )
    return Shown(frame, "Adherence per full group [95 % interval]", [note] if few else [])


def _subgroup_cells(groups: pd.DataFrame) -> pd.DataFrame:
    """A row per subgroup and kind of images, a column per metric; counts of the Dice, "few" beside
    too small ones."""
    rows = []
    key: Any
    for key, subgroup_rows in groups.groupby(["axis", "subgroup"], sort=False):
        axis, subgroup = key
        metrics = subgroup_rows.set_index("metric")
        for side in SIDES:
            first = metrics.iloc[0]
            few = ", few" if first[f"{side}_subjects"] < MIN_COUNT else ""
            count = f"{first[f'{side}_n']:,} ({first[f'{side}_subjects']:,}){few}"
            cells = {
                metric_name(metric): _interval(row, side, form=".2f")
                for metric, row in zip(
                    subgroup_rows.metric, metrics.to_dict("records"), strict=True
                )
            }
            name = {GROUP: subgroup} if axis == "group" else {"images of": named(axis, subgroup)}
            rows.append({**name, "kind": side, "n (subjects)": count, **cells})
    return pd.DataFrame(rows)


def confusion_cells(counts: pd.DataFrame) -> Shown:
    """`confusion_counts` with all that is seen where a value was asked for in one cell."""
    rows = []
    key: Any
    for key, values in counts.groupby(["axis", "asked", "images"], sort=False):
        axis, asked, side = key
        known = values[values.n > 0]
        shares = [
            f"{name_of(axis, value, short=True)} {100 * share:.0f} %"
            for value, share in zip(known.seen, known.share, strict=True)
        ]
        rows.append(
            {
                "asked for": f"{title_of(axis)}: {name_of(axis, asked, short=True)}",
                "images": side,
                "n": int(values.n.iloc[0]),
                "seen": ", ".join(shares) or "n/a",
            }
        )
    frame = pd.DataFrame(rows, columns=["asked for", "images", "n", "seen"])
    return Shown(frame, "What is seen where an attribute was asked for: share of images")


def agreement_cells(scores: Scores) -> Shown:
    """`agreement` with each value and its interval in a cell."""
    columns = {"bias": "bias", "lower": "lower limit", "upper": "upper limit"}
    frame = pd.DataFrame(
        [
            {
                "images": row["images"],
                "hearts": row["hearts"],
                "n (subjects)": f"{row['n']:,} ({row['subjects']:,})",
                "mask": number(row["mask"], form=".1f"),
                "segmented": number(row["segmented"], form=".1f"),
                **{title: _interval(row, column, form=".1f") for column, title in columns.items()},
                "slope": _interval(row, "slope", form=".2f"),
            }
            for row in scores.table.to_dict("records")
        ]
    )
    return Shown(
        frame,
        "LV area change in per cent of the ED area: segmented image minus mask (Bland-Altman) [95 "
        "% interval]",
        scores.warnings,
    )


def diversity_cells(scores: Scores) -> Shown:
    """`diversity_table` with each value and its interval in a cell."""
    frame = pd.DataFrame(
        [
            {
                "images": row["images"],
                "share": row["kind"],
                "bundles": row["bundles"],
                "pairs": row["pairs"],
                "distance": _interval(row, "distance", form=".2f"),
                "pixel sd": _interval(row, "pixel_sd", form=".1f"),
            }
            for row in scores.table.to_dict("records")
        ]
    )
    return Shown(
        frame,
        "Differences between images, by what they share: distance in the domain backbone and sd "
        "of a pixel [95 % interval]",
        scores.warnings,
    )


def _interval(row: Mapping[Any, Any], column: str, *, form: str) -> str:
    return number(*(row[f"{column}{end}"] for end in ("", "_low", "_high")), form=form)


def metric_name(metric: str) -> str:
    """ "Dice", or what an accuracy is of: "age band"."""
    axis = asked_by(metric)
    return axis.phrase if axis else metric.capitalize()


def named(axis: str, value: Any) -> str:
    """ "Age > 70", "Obese", "All images"."""
    return "All images" if axis == "all" else name_of(axis, value)
