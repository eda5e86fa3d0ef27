"""Who is in the study, as readers see it: the flow of participants and their baseline table, small
counts hidden."""

from __future__ import annotations

import pandas as pd

from cmrcls.fairness.participants import CLASSES, MIN_COUNT, SPLITS, differences


def flow_cells(flow: pd.DataFrame) -> pd.DataFrame:
    """`flow_table` for readers; reasons that hold for fewer than MIN_COUNT participants say so."""
    rows = []
    for row in flow.itertuples():
        few = row.step == "left out" and row.participants < MIN_COUNT
        rows.append(
            {
                "step": row.step,
                "": row.part if pd.isna(row.reason) else f"{row.part}: {row.reason}",
                "participants": f"fewer than {MIN_COUNT}" if few else f"{row.participants:,}",
                "diseased": _whole(row.diseased),
                "real images": _whole(row.real_images),
                "synthetic images": _whole(row.synthetic_images),
            }
        )
    return pd.DataFrame(rows)


def _whole(value: float) -> str:
    """A count, empty where there is none."""
    return "" if pd.isna(value) else f"{int(value):,}"


def baseline_cells(baseline: pd.DataFrame) -> pd.DataFrame:
    """`baseline_table` for readers: a row per variable and level, a column per split and label, and
    two differences."""
    smd = differences(baseline).pivot(index=["variable", "level"], columns="compared", values="smd")
    columns = [(split, label) for split in SPLITS for label in CLASSES]
    sizes = baseline.drop_duplicates(["split", "label"]).set_index(["split", "label"]).n
    rows = [
        {
            "": "n",
            **{_head(*of): _size(sizes.get(of, 0)) for of in columns},
            "SMD by diagnosis (test)": "",
            "SMD test - training (healthy)": "",
        }
    ]
    for (variable, level), own in baseline.groupby(["variable", "level"], sort=False):
        at = own.set_index(["split", "label"])
        apart = smd.loc[(variable, level)]
        rows.append(
            {
                "": f"{variable}: {level}" if level else f"{variable}, mean (sd)",
                **{_head(*of): _baseline_cell(at.loc[of]) for of in columns},
                "SMD by diagnosis (test)": _signed(apart["diseased - healthy, test"]),
                "SMD test - training (healthy)": _signed(apart["test - training, healthy"]),
            }
        )
    return pd.DataFrame(rows)


def _head(split: str, label: int) -> str:
    return f"{SPLITS[split]}, {CLASSES[label]}"


def _size(n: int) -> str:
    return f"{n:,}" if n == 0 or n >= MIN_COUNT else f"fewer than {MIN_COUNT}"


def _baseline_cell(row: pd.Series) -> str:
    if row.hidden:
        return "hidden"
    if not pd.isna(row["mean"]):
        return f"{row['mean']:.1f} ({row['sd']:.1f})"
    return (
        "n/a"
        if pd.isna(row["count"]) or pd.isna(row["share"])
        else f"{int(row['count']):,} ({row['share']:.1%})"
    )


def _signed(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:+.2f}"
