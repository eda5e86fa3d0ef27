"""Adherence tables as readers see them: a value with its interval in a cell, words for columns and
bands."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cmrdata.axes import name_of, title_of
from cmrgen.evaluation.adherence.display import named
from cmrgen.evaluation.adherence.scores import asked_by
from cmrgen.evaluation.fidelity.subgroups import FEW
from cmrstudy.report import number

GROUP = "Group"  # the column of full groups
SIDES = ("synthetic", "real")


def metric_name(metric: str) -> str:
    """ "Dice", or what an accuracy is of: "age band"."""
    axis = asked_by(metric)
    return axis.phrase if axis else metric.capitalize()


def whiskers(shown: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """`adherence` with the intervals of all images as columns."""
    ends = [f"{side}_{end}" for side in ("real", "synthetic") for end in ("low", "high")]
    return shown.join(groups[groups.axis == "all"].set_index("metric")[ends], on="metric")


def detail_cells(detail: pd.DataFrame) -> pd.DataFrame:
    """`adherence_detail` with mean ± sd in a cell."""
    table = detail[["structure", "phase"]].copy()
    for side in (*SIDES, "shuffled"):
        table[side] = [
            "n/a" if mean != mean else f"{mean:.3f}" if sd != sd else f"{mean:.3f} ± {sd:.3f}"
            for mean, sd in zip(detail[side], detail[f"{side}_sd"], strict=True)
        ]
    return table.assign(**{"n": detail.synthetic_n, "n real": detail.real_n})


def with_intervals(shown: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """`adherence` for readers: the intervals of all images beside its values."""
    whole = groups[groups.axis == "all"].set_index("metric").reindex(shown.metric)
    table = pd.DataFrame({"what": [metric_name(metric) for metric in shown.metric]})
    for side in SIDES:
        ends = whole[f"{side}_low"], whole[f"{side}_high"]
        table[side] = [number(*values) for values in zip(shown[side], *ends, strict=True)]
    table["shuffled"] = [number(value) for value in shown.shuffled]
    table["n"], table["n real"] = shown.n.to_numpy(), whole.real_n.fillna(0).astype(int).to_numpy()
    table.attrs = {"warnings": shown.attrs["warnings"]}
    return table


def subgroup_cells(groups: pd.DataFrame) -> pd.DataFrame:
    """A row per subgroup and kind of images, a column per metric; counts of the Dice, "few" beside
    too small ones."""
    rows = []
    key: Any
    for key, part in groups.groupby(["axis", "subgroup"], sort=False):
        axis, subgroup = key
        metrics = part.set_index("metric")
        for side in SIDES:
            first = metrics.iloc[0]
            few = ", few" if first[f"{side}_subjects"] < FEW else ""
            count = f"{first[f'{side}_n']:,} ({first[f'{side}_subjects']:,}){few}"
            cells = {
                metric_name(metric): number(
                    *(row[f"{side}{end}"] for end in ("", "_low", "_high")), form=".2f"
                )
                for metric, row in zip(part.metric, metrics.to_dict("records"), strict=True)
            }
            name = subgroup if axis == "group" else named(axis, subgroup)
            rows.append(
                {
                    GROUP if axis == "group" else "images of": name,
                    "kind": side,
                    "n (subjects)": count,
                    **cells,
                }
            )
    return pd.DataFrame(rows)


def confusion_cells(counts: pd.DataFrame) -> pd.DataFrame:
    """`confusion` with all that is seen where a value was asked for in one cell."""
    rows = []
    key: Any
    for key, part in counts.groupby(["axis", "asked", "images"], sort=False):
        axis, asked, side = key
        known = part[part.n > 0]
        seen = [
            f"{name_of(axis, value, short=True)} {100 * share:.0f} %"
            for value, share in zip(known.seen, known.share, strict=True)
        ]
        rows.append(
            {
                "asked for": f"{title_of(axis)}: {name_of(axis, asked, short=True)}",
                "images": side,
                "n": int(part.n.iloc[0]),
                "seen": ", ".join(seen) or "n/a",
            }
        )
    return pd.DataFrame(rows, columns=["asked for", "images", "n", "seen"])
