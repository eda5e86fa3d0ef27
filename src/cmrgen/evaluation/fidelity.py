"""How far synthetic images are from real ones, group by group (Table 1 and beyond): features and index tables in, tables out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.cohort import known_axes
from cmrgen.evaluation.comparisons import ACROSS, FEW, FLOOR, METRICS, Group, Images, half_size, halves, measured
from cmrgen.evaluation.distances import check_finite, frechet_distance

__all__ = ["AXES", "FEW", "POOLS", "axes_of", "fidelity", "frechet_distance", "half_size", "halves", "overview",
           "pool_of", "table1", "table1_wide", "truth"]  # fmt: skip

# axis -> (what the paper calls it, the two groups it compares), in the order of Table 1
AXES: dict[str, tuple[str, tuple[Any, Any]]] = {
    "sex": ("Sex", ("M", "F")),
    "age_band": ("Age", ("<60", "70+")),
    "bmi_band": ("BMI", ("normal", "obese")),
    "diagnosis": ("Condition", (0, 1)),
}
NAMES = {"M": "Male", "F": "Female", "normal": "Normal", "obese": "Obese", 0: "Healthy", 1: "HF"}
POOLS = {"held-out (val + test)": ("val", "test"), "all splits": ("train", "val", "test")}
ENOUGH = 50  # images: a smaller held-out half widens the pool to all splits, and below it a table warns


def axes_of(table: pd.DataFrame) -> list[str]:
    """The axes these rows can teach or test: known_axes, and the diagnosis where both classes occur."""
    return known_axes(table) + (["diagnosis"] if "label" in table and table.label.dropna().nunique() > 1 else [])


def truth(table: pd.DataFrame, axis: str) -> pd.Series:
    """The values that `axis` takes; for the diagnosis the label 0 or 1."""
    return table["label" if axis == "diagnosis" else axis].astype(object)


def pool_of(real_index: pd.DataFrame, synthetic_index: pd.DataFrame) -> str:
    """The name in POOLS of the real images to compare: the first in which every half of a compared group has ENOUGH.

    Ask it before any feature is computed: only rows whose split is in POOLS[pool] are needed.
    """
    usable = real_index[real_index.split != "extra"]
    axes = _comparable(usable, synthetic_index)[0]
    for pool, splits in POOLS.items():
        part = usable[usable.split.isin(splits)]
        held = [part.subject[truth(part, axis) == value] for axis in axes for value in AXES[axis][1]]
        if all(half_size(subjects) >= ENOUGH for subjects in held or [part.subject]):
            return pool
    return pool


def table1(real_features: np.ndarray, real_index: pd.DataFrame, synthetic_features: np.ndarray,
           synthetic_index: pd.DataFrame, *, n: int = 500, draws: int = 4, seed: int) -> pd.DataFrame:  # fmt: skip
    """Frechet distances between subgroups, real-real and real-synthetic (paper Table 1), in long form.

    real_index has the columns subject, split and the axes; features are its rows in order. Columns out: axis, cell,
    kind, fid (mean over draws), sd, n (images on each side), subjects (distinct real subjects a cell draws from).
    Real - Real within a group compares two halves with no subject in common, divided anew in each draw. "A - B" of
    Real - Synthetic is real A against synthetic B.
    A Frechet distance depends on n, so n is the same in every cell: at most `n`, else what the smallest side holds. A
    side of fewer than FEW images would pull all others down with it: its cells are NaN, with the n it has.
    Real images are the held-out ones when every half has 50, else those of all splits; "extra" rows never count.
    attrs: pool, n (0 when nothing could be computed), refused (a sentence per axis left out), warnings.
    Raises ValueError for an empty set, features that are not finite, or that do not fit their index.
    """
    images, groups, notes = _prepared(real_features, real_index, synthetic_features, synthetic_index)
    groups = {axis: pair for axis, pair in groups.items() if axis in AXES}
    long = measured(images, groups, ("fid",), n=n, draws=draws, seed=seed)
    table = long.rename(columns={"value": "fid"})[["axis", "cell", "kind", "fid", "sd", "n", "subjects"]]
    table.attrs.update(_notes(notes, long))
    return table


def fidelity(real_features: np.ndarray, real_index: pd.DataFrame, synthetic_features: np.ndarray,
             synthetic_index: pd.DataFrame, *, n: int = 500, draws: int = 4, seed: int,
             groups: bool = False) -> pd.DataFrame:  # fmt: skip
    """Every metric of METRICS for the cells of Table 1 and for all images together, in long form.

    Columns out: axis, cell, kind, metric, value (mean over draws), sd (over draws), low and high (kid only: 95 %
    interval of one draw's n images, by a jackknife that leaves out one subject at a time; the mean over draws is at
    least as sure), n, subjects. Draws, cells, n, attrs and errors are those of `table1`. The axis "all" compares images
    of everybody as they come, so a set that is balanced where its cohort is not differs in that too. With `groups`:
    instead one cell per group of sex, age, BMI and diagnosis (axis "group"), equal n among these. In Real - Real,
    precision and its like are one half as a copy of the other: what perfect images would reach.
    """
    images, found, notes = _prepared(real_features, real_index, synthetic_features, synthetic_index)
    wanted = {axis: some for axis, some in found.items() if (axis == "group") == groups}
    table = measured(images, wanted, METRICS, n=n, draws=draws, seed=seed)
    table.attrs.update(_notes(notes, table))
    return table


def table1_wide(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as the paper prints it: per axis a heading row with its cells, then "30.39 (0.34)" per kind."""
    rows = []
    for axis, part in table.groupby("axis", sort=False):
        rows.append([AXES[str(axis)][0], *part[part.kind == FLOOR].cell])
        for kind, title in ((FLOOR, f"{FLOOR} (lower bound)"), (ACROSS, ACROSS)):
            rows.append([title, *(_printed(r) for r in part[part.kind == kind].itertuples())])
    wide = pd.DataFrame(rows, columns=["FID", "A - A", "A - B", "B - B"])
    wide.attrs.update(table.attrs)
    return wide


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """`fidelity` for reading: a row per group, synthetic against real images of the same, the Real - Real value in brackets.

    Columns: Group, n, then the metrics; the kernel distance times 1000 and with its interval.
    """
    rows = []
    for (axis, cell), part in table.groupby(["axis", "cell"], sort=False):
        left, _, right = str(cell).partition(" - ")
        if axis in AXES and left != right:
            continue
        synthetic, real = (part[part.kind == kind].set_index("metric") for kind in (ACROSS, FLOOR))
        number = synthetic[["value", "low", "high"]].assign(floor=real.value)
        texts = [_beside(metric, number.loc[metric].to_numpy(float)) for metric in METRICS]
        rows.append([left, int(synthetic.n.iloc[0]), *texts])
    titles = ["Group", "n", "FID", "1000 KID [95 %]", "Precision", "Recall", "Density", "Coverage"]
    shown = pd.DataFrame(rows, columns=titles)
    shown.attrs.update(table.attrs)
    return shown


def _beside(metric: str, numbers: np.ndarray) -> str:
    """ "4.10 [3.20, 5.00] (0.12)": the value, its interval where there is one, and in brackets that of real images."""
    value, low, high, floor = numbers
    factor = 1000 if metric == "kid" else 1
    interval = "" if np.isnan(low) else f" [{factor * low:.2f}, {factor * high:.2f}]"
    texts = ["n/a" if np.isnan(v) else f"{factor * v:.2f}" for v in (value, floor)]
    return f"{texts[0]}{interval} ({texts[1]})"


def _prepared(real_features: np.ndarray, real_index: pd.DataFrame, synthetic_features: np.ndarray,
              synthetic_index: pd.DataFrame) -> tuple[Images, dict[str, list[Group]], dict[str, Any]]:  # fmt: skip
    """Checked input, the groups of each axis (AXES, "all" and "group"), and what is known before measuring."""
    real_index, synthetic_index = (t.reset_index(drop=True) for t in (real_index, synthetic_index))
    for name, features, index in (
        ("real", real_features, real_index),
        ("synthetic", synthetic_features, synthetic_index),
    ):
        if not len(index):
            raise ValueError(
                f"the {name} set holds no image, so there is nothing to compare; render or prepare it first"
            )
        if len(features) != len(index):
            raise ValueError(f"{name}: {len(features)} rows of features for {len(index)} images; compute them again")
        check_finite(features, f"of the {name} images")
    pool = pool_of(real_index, synthetic_index)
    axes, refused = _comparable(real_index[real_index.split != "extra"], synthetic_index)
    real = real_index[real_index.split.isin(POOLS[pool])]
    groups: dict[str, list[Group]] = {}
    for axis in axes:
        values = {_name(value, real_index): value for value in AXES[axis][1]}
        groups[axis] = [
            _group(axis, name, *(t[(truth(t, axis) == v).to_numpy(bool)] for t in (real, synthetic_index)))
            for name, v in values.items()
        ]
    groups["all"] = [_group("all", "All", real, synthetic_index)]
    names = sorted({*real.group.dropna(), *synthetic_index.group.dropna()}) if "group" in real else []
    groups["group"] = [
        _group("group", name, *(t[(t.group == name).to_numpy(bool)] for t in (real, synthetic_index))) for name in names
    ]
    subjects = (t.subject.to_numpy(object) for t in (real_index, synthetic_index))
    images = Images(real_features, next(subjects), synthetic_features, next(subjects))
    return images, groups, {"pool": pool, "refused": [f"{axis}: {reason}." for axis, reason in refused.items()]}


def _group(axis: str, name: str, real: pd.DataFrame, synthetic: pd.DataFrame) -> Group:
    return Group(axis, name, real.index.to_numpy(), synthetic.index.to_numpy(), half_size(real.subject))


def _comparable(real: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """The axes whose two groups both sides have, and why the others are left out."""
    known, refused = axes_of(real), {}
    for axis, (_, pair) in AXES.items():
        absent = {
            name: [str(NAMES.get(v, v)) for v in pair if not (truth(table, axis) == v).any()]
            for name, table in (("real", real), ("synthetic", synthetic))
            if axis in known
        }
        lacking = [f"no {name} image is {' or '.join(values)}" for name, values in absent.items() if values]
        if axis not in known or lacking:
            refused[axis] = " and ".join(lacking) or "unknown, or the same for everyone, in this cohort"
    return [axis for axis in AXES if axis not in refused], refused


def _notes(known: dict[str, Any], table: pd.DataFrame) -> dict[str, Any]:
    """attrs of a table: what a reader must know in words."""
    size, warnings = table.attrs["n"], []
    if small := table.attrs["small"]:
        told = ", ".join(small[:8]) + (f" and {len(small) - 8} more" if len(small) > 8 else "")
        warnings.append(f"n too small, n/a: fewer than {FEW} images a side in {told}.")
    if 0 < size < ENOUGH:
        warnings.append(f"Only {size} images a side, all that the smallest group has: unreliable distances.")
    if known["pool"] != next(iter(POOLS)):
        warnings.append("Held-out groups are too small: real images of all splits are compared, "
                        "also those that generator and judges were trained on.")  # fmt: skip
    return {**known, "n": size, "warnings": warnings}


def _printed(row: Any) -> str:
    return "n/a" if np.isnan(row.fid) else f"{row.fid:.2f} ({row.sd:.2f})"


def _name(value: Any, table: pd.DataFrame) -> str:
    if value == 1 and "hf" not in set(table.diagnosis.dropna()):
        return "Reduced EF"
    return NAMES.get(value, str(value))
