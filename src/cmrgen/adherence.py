"""Do synthetic images show their mask and their prompt? Dice and accuracies of what the judges see, against references.

Tables and arrays in, tables out; the networks behind segmentations and predictions are in judges.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrdata.batch import LABELS, PHASES
from cmrgen.fidelity import FEW, axes_of, truth

METRICS = {"sex": "sex_accuracy", "bmi_band": "bmi_accuracy", "age_band": "age_accuracy",
           "diagnosis": "diagnosis_accuracy"}  # fmt: skip


class Seen(NamedTuple):
    """n images of one source: what they should show, and what the judges see in them."""

    table: pd.DataFrame  # n rows: sex, age_band, bmi_band, label, group
    masks: np.ndarray  # (n, 2, P, P) uint8, labels 0..3
    segmented: np.ndarray  # the same shape
    predicted: dict[str, np.ndarray]  # axis -> (n,) values as in the table; diagnosis as 0, 1


def structure_dice(segmented: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(..., P, P) labels -> (..., 3) Dice of LV, MYO, RV; 0 where one side lacks the structure, NaN where both do."""
    overlap, total = [], []
    for label in LABELS.values():
        a, b = segmented == label, mask == label
        overlap.append((a & b).sum((-2, -1)))
        total.append(a.sum((-2, -1)) + b.sum((-2, -1)))
    both = np.stack(total, -1).astype(float)
    return np.divide(2 * np.stack(overlap, -1), both, out=np.full(both.shape, np.nan), where=both > 0)


def dice(segmented: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n, 2, P, P) labels -> (n, 2) mean Dice per image and phase over structures present in either; NaN for none."""
    return _mean(structure_dice(segmented, mask), -1)


def accuracy(predicted: np.ndarray, index: pd.DataFrame, axis: str, groups: set[str]) -> float:
    """Mean over `groups` of the accuracy within each: every group has equal mass whatever its size; NaN for none."""
    wanted = truth(index, axis)
    rows = pd.DataFrame({"group": index.group.to_numpy(), "right": predicted == wanted})[wanted.notna().to_numpy()]
    within = rows[rows.group.isin(groups)].groupby("group").right.mean()
    return float(within.mean()) if len(within) else float("nan")


def adherence(real: Seen, synthetic: Seen, *, seed: int) -> pd.DataFrame:
    """Rows dice and an accuracy per axis; columns metric, real, synthetic, shuffled, n.

    real: held-out real images against their own masks and attributes, what the judges reach at best. shuffled: the
    synthetic images against another row's masks and attributes (a seeded derangement), what chance reaches.
    Dice is the mean over images and phases. Accuracies give every group that both sides hold equal mass, in all three
    columns, so that a real test set of natural prevalence and a balanced synthetic set are comparable.
    n: synthetic images behind the row; NaN and 0 for an axis unknown on either side. attrs: warnings.
    """
    order = derangement(len(synthetic.table), seed=seed)
    elsewhere = synthetic.table.iloc[order].reset_index(drop=True)
    columns = {"real": dice(real.segmented, real.masks), "synthetic": dice(synthetic.segmented, synthetic.masks),
               "shuffled": dice(synthetic.segmented, synthetic.masks[order])}  # fmt: skip
    rows: list[dict[str, Any]] = [{"metric": "dice", **{k: float(_mean(v, None)) for k, v in columns.items()},
                                   "n": int((~np.isnan(columns["synthetic"])).any(1).sum())}]  # fmt: skip
    warnings, common = [], set(real.table.group) & set(synthetic.table.group)
    if alone := (set(real.table.group) | set(synthetic.table.group)) - common:
        warnings.append(f"{len(alone)} groups occur on one side only; the accuracies leave them out: {_listed(alone)}.")
    for axis, metric in METRICS.items():
        row: dict[str, Any] = {"metric": metric, "real": np.nan, "synthetic": np.nan, "shuffled": np.nan, "n": 0}
        if axis in synthetic.predicted and axis in axes_of(real.table) and axis in axes_of(synthetic.table):
            row["real"] = accuracy(real.predicted[axis], real.table, axis, common)
            row["synthetic"] = accuracy(synthetic.predicted[axis], synthetic.table, axis, common)
            row["shuffled"] = accuracy(synthetic.predicted[axis], elsewhere, axis, common)
            row["n"] = int((synthetic.table.group.isin(common) & truth(synthetic.table, axis).notna()).sum())
        rows.append(row)
    table = pd.DataFrame(rows)
    if small := [f"{name} ({count})" for name, count in (("real", len(real.table)), ("synthetic", len(synthetic.table)))
                 if count < FEW]:  # fmt: skip
        warnings.append(f"Fewer than {FEW} images: {', '.join(small)}; these shares are only a hint.")
    table.attrs["warnings"] = warnings
    return table


def adherence_detail(real: Seen, synthetic: Seen, *, seed: int) -> pd.DataFrame:
    """Dice per structure and phase: mean, sd over images and n of real, synthetic and shuffled."""
    order = derangement(len(synthetic.table), seed=seed)
    scores = {"real": structure_dice(real.segmented, real.masks),
              "synthetic": structure_dice(synthetic.segmented, synthetic.masks),
              "shuffled": structure_dice(synthetic.segmented, synthetic.masks[order])}  # fmt: skip
    rows = []
    for s, structure in enumerate(LABELS):
        for p, phase in enumerate(PHASES):
            row: dict[str, Any] = {"structure": structure, "phase": phase}
            for name, values in scores.items():
                here = values[:, p, s][~np.isnan(values[:, p, s])]
                row[name] = here.mean() if len(here) else np.nan
                row[f"{name}_sd"] = here.std(ddof=1) if len(here) > 1 else np.nan
                row[f"{name}_n"] = len(here)
            rows.append(row)
    return pd.DataFrame(rows)


def derangement(n: int, *, seed: int) -> np.ndarray:
    """A random order of n rows that leaves none in its place: one cycle through all. Raises ValueError for n < 2."""
    if n < 2:
        raise ValueError(f"a set of {n} images cannot be shuffled; make at least 2")
    cycle = np.random.default_rng(seed).permutation(n)
    order = np.empty(n, int)
    order[cycle] = np.roll(cycle, 1)
    return order


def _mean(values: np.ndarray, axis: int | None) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.divide(np.nansum(values, axis), count, out=np.full(np.shape(count), np.nan), where=count > 0)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
