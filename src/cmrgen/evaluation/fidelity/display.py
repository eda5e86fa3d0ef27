"""Fidelity as tables: Table 1 as the paper prints it, the other metrics beside it, and the two-sample
tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import title_of, with_diagnosis
from cmrgen.evaluation.fidelity.distances import METRICS
from cmrgen.evaluation.fidelity.equal_samples import ACROSS, FLOOR
from cmrgen.evaluation.fidelity.subgroups import Distances
from cmrgen.evaluation.fidelity.two_sample import MIN_SUBJECTS, NETWORK
from cmrstudy.report import Shown, number

OVERVIEW = (
    "{name} features: synthetic against real images of the same group, in brackets real against "
    "real; n = {n} images a side, mean over draws; precision and recall with k = 3, density and "
    "coverage with k = 5 neighbours"
)
TEST_WORDS = {
    NETWORK: "whatever a small network learns",
    "clipping": "share of black or white pixels",
    "gradient": "mean difference of neighbouring pixels",
    "fine detail": "what smoothing takes away",
    "detail ratio ED/ES": "ED's fine detail over ES's",
    "mean grey value": "brightness",
    "sd of grey values": "contrast",
}


def table1_cells(distances: Distances, *, title: str) -> Shown:
    """Table 1 in the features of the backbone `title`, with its notes."""
    caption = (
        f"Table 1: Fréchet distance between subgroups, {title} features, n = {distances.n} images "
        "a side, mean (sd) over draws"
    )
    return Shown(table1_wide(distances.table), caption, distances.notes)


def table1_wide(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as the paper prints it: per axis a heading row with its cells, then "30.39 (0.34)"
    per kind.

    A table that knows its pools has them in the last column, `pool`.
    """
    rows, has_pool = [], "pool" in table
    for axis, cells in table.groupby("axis", sort=False):
        pool = [cells.pool.iloc[0]] if has_pool else []
        rows.append([title_of(str(axis)), *cells[cells.kind == FLOOR].cell, *[""] * has_pool])
        for kind, title in ((FLOOR, f"{FLOOR} (lower bound)"), (ACROSS, ACROSS)):
            values = (_mean_and_sd(row) for row in cells[cells.kind == kind].itertuples())
            rows.append([title, *values, *pool])
    return pd.DataFrame(rows, columns=["FID", "A - A", "A - B", "B - B", *["pool"] * has_pool])


def overview_cells(distances: Distances, *, title: str) -> Shown:
    """`fidelity_table` in the features of the backbone `title`.

    Its notes on small groups stand below Table 1 already, so only those on full groups are kept.
    """
    caption = OVERVIEW.format(name=title[0].upper() + title[1:], n=distances.n)
    of_groups = (distances.table.axis == "group").any()
    return Shown(overview(distances.table), caption, distances.warnings if of_groups else [])


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """`fidelity_table` for reading: a row per group, synthetic against real images of the same, the
    Real - Real value in brackets.

    Columns: Group, n, then the metrics of METRICS, with an interval where they have one; pool.
    """
    rows = []
    for (axis, cell), values in table.groupby(["axis", "cell"], sort=False):
        left, _, right = str(cell).partition(" - ")
        if axis in with_diagnosis() and left != right:
            continue
        synthetic, real = (
            values[values.kind == kind].set_index("metric") for kind in (ACROSS, FLOOR)
        )
        numbers = synthetic[["value", "low", "high"]].assign(floor=real.value)
        texts = [
            _beside(numbers.loc[name].to_numpy(float), factor=metric.factor)
            for name, metric in METRICS.items()
        ]
        rows.append([left, int(synthetic.n.iloc[0]), *texts, synthetic.pool.iloc[0]])
    titles = [metric.title for metric in METRICS.values()]
    return pd.DataFrame(rows, columns=["Group", "n", *titles, "pool"])


def _beside(numbers: np.ndarray, *, factor: float) -> str:
    """ "4.10 [3.20, 5.00] (0.12)": the value, its interval where there is one, and in brackets that
    of real images."""
    value, low, high, floor = numbers
    interval = "" if np.isnan(low) else f" [{factor * low:.2f}, {factor * high:.2f}]"
    texts = ["n/a" if np.isnan(v) else f"{factor * v:.2f}" for v in (value, floor)]
    return f"{texts[0]}{interval} ({texts[1]})"


def _mean_and_sd(row: Any) -> str:
    return "n/a" if np.isnan(row.fid) else f"{row.fid:.2f} ({row.sd:.2f})"


def two_sample_cells(synthetic: pd.DataFrame, floor: pd.DataFrame) -> Shown:
    """The two-sample tests of synthetic images, beside those of real ones as the floor."""
    frame = pd.DataFrame(
        {
            "test": synthetic.test,
            "what it looks at": synthetic.test.map(TEST_WORDS),
            "AUC, synthetic": [_auc_text(row) for row in synthetic.itertuples()],
            "AUC, real (floor)": [_auc_text(row) for row in floor.itertuples()],
            "n (images a side)": synthetic.n,
        }
    )
    caption = (
        "Two-sample tests: chance that a synthetic image scores higher than a held-out real one "
        "(AUC) [95 % interval]; 0.5: they can't be told apart"
    )
    few = f"Fewer than {MIN_SUBJECTS} subjects on a side: nothing is measured."
    return Shown(frame, caption, [few] if synthetic.auc.isna().all() else [])


def _auc_text(row: Any) -> str:
    return number(row.auc, row.low, row.high)
