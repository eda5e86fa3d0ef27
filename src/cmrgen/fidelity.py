"""Frechet distances between subgroups, real and synthetic (Table 1): features and index tables in, a table out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.cohort import known_axes

# axis -> (what the paper calls it, the two groups it compares), in the order of Table 1
AXES: dict[str, tuple[str, tuple[Any, Any]]] = {
    "sex": ("Sex", ("M", "F")),
    "age_band": ("Age", ("<60", "70+")),
    "bmi_band": ("BMI", ("normal", "obese")),
    "diagnosis": ("Condition", (0, 1)),
}
NAMES = {"M": "Male", "F": "Female", "normal": "Normal", "obese": "Obese", 0: "Healthy", 1: "HF"}
FLOOR, ACROSS = "Real - Real", "Real - Synthetic"
POOLS = {"held-out (val + test)": ("val", "test"), "all splits": ("train", "val", "test")}
ENOUGH, FEW = 50, 20  # images: a held-out half smaller than ENOUGH is widened to all splits; below FEW comes a warning


def axes_of(table: pd.DataFrame) -> list[str]:
    """The axes these rows can teach or test: known_axes, and the diagnosis where both classes occur."""
    return known_axes(table) + (["diagnosis"] if "label" in table and table.label.dropna().nunique() > 1 else [])


def truth(table: pd.DataFrame, axis: str) -> pd.Series:
    """The values that `axis` takes; for the diagnosis the label 0 or 1."""
    return table["label" if axis == "diagnosis" else axis].astype(object)


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """|mean difference|^2 + tr Sx + tr Sy - 2 tr (Sx Sy)^(1/2) of features x (n, d) and y (m, d) (Heusel et al. 2017).

    The last trace is the nuclear norm of Xc Yc^T / sqrt((n-1)(m-1)) on centred features, since both have the same
    singular values; with n > d, Xc is first reduced to the R of its QR decomposition.
    Raises ValueError for fewer than two rows, unequal widths, or features that are not finite.
    """
    centred, means = [], []
    for name, features in (("x", x), ("y", y)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"features {name} have shape {features.shape}; a Frechet distance needs at least 2 rows")
        if not (finite := np.isfinite(features).all(1)).all():
            first = int(np.argmin(finite))
            raise ValueError(f"features {name}: {(~finite).sum()} rows hold NaN or inf, the first is row {first}")
        wide = features.astype(np.float64)
        means.append(wide.mean(0))
        centred.append((wide - means[-1]) / np.sqrt(len(wide) - 1))
    if len(means[0]) != len(means[1]):
        raise ValueError(f"features x have {len(means[0])} columns, y {len(means[1])}; use one backbone for both")
    traces = sum(float((c**2).sum()) for c in centred)
    a, b = (np.asarray(np.linalg.qr(c, mode="r")) if len(c) > c.shape[1] else c for c in centred)
    root = float(np.linalg.norm(a @ b.T, "nuc"))
    return max(float(((means[0] - means[1]) ** 2).sum()) + traces - 2 * root, 0.0)


def table1(real_features: np.ndarray, real_index: pd.DataFrame, synthetic_features: np.ndarray,
           synthetic_index: pd.DataFrame, *, n: int = 500, draws: int = 4, seed: int) -> pd.DataFrame:  # fmt: skip
    """Frechet distances between subgroups, real-real and real-synthetic (paper Table 1), in long form.

    real_index has the columns subject, split and the axes; features are its rows in order. Columns out: axis, cell,
    kind, fid (mean over draws), sd, n (images on each side, equal in all cells: at most `n`, else what the smallest
    side holds), subjects (distinct real subjects a cell draws from). Real - Real within a group compares two halves
    with no subject in common, divided anew in each draw. "A - B" of Real - Synthetic is real A against synthetic B.
    Real images are the held-out ones when every half has 50, else those of all splits; "extra" rows never count.
    attrs: pool, refused (a sentence per axis left out), warnings.
    """
    real_index, synthetic_index = (t.reset_index(drop=True) for t in (real_index, synthetic_index))
    usable = real_index[real_index.split != "extra"]
    known, unknown = _sides(usable, "real", axes_of(usable))
    synthetic, lacking = _sides(synthetic_index, "synthetic", list(known))
    refused, axes = {**lacking, **unknown}, list(synthetic)
    for pool, splits in POOLS.items():  # noqa: B007
        real, _ = _sides(usable[usable.split.isin(splits)], "real", axes)
        smallest = min((half_size(real_index.subject[rows]) for pair in real.values() for rows in pair), default=0)
        if smallest >= ENOUGH and real.keys() == synthetic.keys():
            break
    size = min(n, smallest, *(len(rows) for pair in synthetic.values() for rows in pair)) if axes else 0
    if size < 2:
        refused |= dict.fromkeys(axes, f"the smallest group leaves {size} images a side, a distance needs 2")
        axes = []
    subjects, rows = real_index.subject, []
    for axis in axes:
        for i, j in ((0, 0), (0, 1), (1, 1)):
            pair = [_name(AXES[axis][1][k], real_index) for k in (i, j)]
            for kind in (FLOOR, ACROSS):
                distances = []
                for draw in range(draws):
                    rng = np.random.default_rng([seed, list(AXES).index(axis), i, j, kind == ACROSS, draw])
                    left, right = real[axis][i], (synthetic if kind == ACROSS else real)[axis][j]
                    if kind == FLOOR and i == j:
                        left, right = halves(left, subjects, rng)
                    other = synthetic_features if kind == ACROSS else real_features
                    chosen = [rng.choice(rows_of, size, replace=False) for rows_of in (left, right)]
                    distances.append(frechet_distance(real_features[chosen[0]], other[chosen[1]]))
                behind = subjects[np.concatenate([real[axis][k] for k in ({i} if kind == ACROSS else {i, j})])]
                rows.append((axis, " - ".join(pair), kind, np.mean(distances),
                             np.std(distances, ddof=1) if draws > 1 else np.nan, size, behind.nunique()))  # fmt: skip
    table = pd.DataFrame(rows, columns=["axis", "cell", "kind", "fid", "sd", "n", "subjects"])
    table.attrs.update(pool=pool, refused=[f"{axis}: {reason}." for axis, reason in refused.items()], warnings=[])
    if axes and size < FEW:
        table.attrs["warnings"] += [f"Only {size} images a side, all the smallest group has: unreliable distances."]
    if axes and pool != next(iter(POOLS)):
        table.attrs["warnings"] += ["Held-out groups are too small: real images of all splits are compared, "
                                    "also those that generator and judges were trained on."]  # fmt: skip
    return table


def table1_wide(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as the paper prints it: per axis a heading row with its cells, then "30.39 (0.34)" per kind."""
    rows = []
    for axis, part in table.groupby("axis", sort=False):
        rows.append([AXES[str(axis)][0], *part[part.kind == FLOOR].cell])
        for kind, title in ((FLOOR, f"{FLOOR} (lower bound)"), (ACROSS, ACROSS)):
            rows.append([title, *(f"{r.fid:.2f} ({r.sd:.2f})" for r in part[part.kind == kind].itertuples())])
    wide = pd.DataFrame(rows, columns=["FID", "A - A", "A - B", "B - B"])
    wide.attrs.update(table.attrs)
    return wide


def half_size(subjects: pd.Series) -> int:
    """The images that either half of `halves` surely has."""
    most = subjects.value_counts().max() if len(subjects) else 0
    return int(np.ceil((len(subjects) - most) / 2))


def halves(rows: np.ndarray, subjects: pd.Series, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`rows` divided in two with no subject in common: subjects in random order, each to the smaller half."""
    by_subject = list(pd.Series(rows).groupby(subjects.iloc[rows].to_numpy()))
    parts: tuple[list[int], list[int]] = ([], [])
    for k in rng.permutation(len(by_subject)):
        min(parts, key=len).extend(by_subject[k][1])
    return np.array(parts[0], int), np.array(parts[1], int)


def _sides(table: pd.DataFrame, name: str, axes: list[str]) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
    """Row labels of both compared groups per axis, and why the other axes cannot be compared."""
    sides: dict[str, list[np.ndarray]] = {}
    refused = {axis: "unknown, or the same for everyone, in this cohort" for axis in AXES if axis not in axes}
    for axis in axes:
        pair = AXES[axis][1]
        rows = [table.index[truth(table, axis) == value].to_numpy() for value in pair]
        if absent := [str(NAMES.get(v, v)) for v, held in zip(pair, rows, strict=True) if not len(held)]:
            refused[axis] = f"no {name} image is {' or '.join(absent)}"
        else:
            sides[axis] = rows
    return sides, refused


def _name(value: Any, table: pd.DataFrame) -> str:
    if value == 1 and "hf" not in set(table.diagnosis.dropna()):
        return "Reduced EF"
    return NAMES.get(value, str(value))
