"""How far synthetic images are from real ones, group by group (Table 1 and beyond): features and
index tables in, tables out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import (
    DIAGNOSIS_NAMES,
    learnable_axes,
    name_of,
    title_of,
    values_in,
    with_diagnosis,
)
from cmrgen.evaluation.fidelity.distances import check_finite, frechet_distance
from cmrgen.evaluation.fidelity.equal_samples import (
    ACROSS,
    FEW,
    FLOOR,
    METRICS,
    Group,
    Images,
    half_size,
    halves,
    measured,
    used,
)

__all__ = [
    "FEW",
    "POOLS",
    "fidelity",
    "frechet_distance",
    "half_size",
    "halves",
    "overview",
    "subgroups",
    "table1",
    "table1_wide",
    "used_rows",
]

HELD_OUT, ALL = "held-out", "train + held-out"
POOLS = {HELD_OUT: ("val", "test"), ALL: ("train", "val", "test")}
ENOUGH = 50  # images: a smaller held-out half widens an axis's pool, and below it a table warns

Rows = tuple[np.ndarray, np.ndarray]  # of the real and of the synthetic index, ascending


def used_rows(
    real_index: pd.DataFrame,
    synthetic_index: pd.DataFrame,
    *,
    n: int = 500,
    draws: int = 4,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in both tables of the images that `table1` and `fidelity` draw, ascending: no other
    needs features."""
    groups, _ = _compared(
        *(table.reset_index(drop=True) for table in (real_index, synthetic_index))
    )
    asked = [
        {axis: groups[axis] for axis in groups if axis in wanted}
        for wanted in ({*with_diagnosis()}, {*with_diagnosis(), "all"}, {"group"})
    ]
    subjects = real_index.subject.to_numpy(object)
    rows = [used(some, subjects, n=n, draws=draws, seed=seed) for some in asked]
    real, synthetic = (np.unique(np.concatenate(side)) for side in zip(*rows, strict=True))
    return real, synthetic


def subgroups(real_index: pd.DataFrame, synthetic_index: pd.DataFrame) -> pd.DataFrame:
    """Who is compared: a row per subgroup of Table 1's axes, and "all".

    Columns: axis, subgroup, pool (a key of POOLS), images and subjects (real ones of that pool),
        half (images that either
    half of them surely has), held_out_half (the same of held-out images, which decides the pool),
    synthetic (images).
    """
    groups, _ = _compared(
        *(table.reset_index(drop=True) for table in (real_index, synthetic_index))
    )
    held = real_index.split.isin(POOLS[HELD_OUT]).to_numpy()
    subjects = real_index.subject.reset_index(drop=True)
    rows = [
        (
            axis,
            g.name,
            g.pool,
            len(g.real),
            subjects[g.real].nunique(),
            g.half,
            half_size(subjects[g.real[held[g.real]]]),
            len(g.synthetic),
        )
        for axis, some in groups.items()
        if axis != "group"
        for g in some
    ]
    columns = [
        "axis",
        "subgroup",
        "pool",
        "images",
        "subjects",
        "half",
        "held_out_half",
        "synthetic",
    ]
    return pd.DataFrame(rows, columns=columns)


def table1(
    real_features: np.ndarray,
    real_index: pd.DataFrame,
    synthetic_features: np.ndarray,
    synthetic_index: pd.DataFrame,
    *,
    n: int = 500,
    draws: int = 4,
    seed: int,
    rows: Rows | None = None,
) -> pd.DataFrame:
    """Frechet distances between subgroups, real-real and real-synthetic (paper Table 1), in long
    form.

    real_index has the columns subject, split and the axes; features are its rows in order, or with
    `rows` (of `used_rows` for the same n, draws and seed) those rows alone. Columns out: axis,
    cell, kind, fid (mean over draws), sd, n (images on each side), subjects (distinct real subjects
    a cell draws from), pool (which real images). Real - Real within a group compares two halves
    with no subject in common, divided anew in each draw. "A - B" of Real - Synthetic is real A
    against synthetic B. A Frechet distance depends on n, so n is the same in every cell: at most
    `n`, else what the smallest side holds. A side of fewer than FEW images would pull all others
    down with it: its cells are NaN, with the n it has. Each axis has its own pool: the held-out
    images where either half of both its groups has ENOUGH, else those of train, val and test;
    "extra" rows never count.
    attrs: n (0 when nothing could be computed), refused (a sentence per axis left out), warnings.
    Raises ValueError for an empty set, features that are not finite, or that do not fit their
    index.
    """
    images, groups, refused = _prepared(
        real_features, real_index, synthetic_features, synthetic_index, rows
    )
    groups = {axis: pair for axis, pair in groups.items() if axis in with_diagnosis()}
    long = measured(images, groups, ("fid",), n=n, draws=draws, seed=seed)
    table = long.rename(columns={"value": "fid"})[
        ["axis", "cell", "kind", "fid", "sd", "n", "subjects", "pool"]
    ]
    table.attrs.update(_notes(refused, long))
    return table


def fidelity(
    real_features: np.ndarray,
    real_index: pd.DataFrame,
    synthetic_features: np.ndarray,
    synthetic_index: pd.DataFrame,
    *,
    n: int = 500,
    draws: int = 4,
    seed: int,
    groups: bool = False,
    rows: Rows | None = None,
) -> pd.DataFrame:
    """Every metric of METRICS for the cells of Table 1 and for all images together, in long form.

    Columns out: axis, cell, kind, metric, value (mean over draws), sd (over draws), low and high
    (kid only: 95 % interval of one draw's n images, by a jackknife that leaves out one subject at a
    time; the mean over draws is at least as sure), n, subjects, pool. Draws, cells, n, rows, attrs
    and errors are those of `table1`. The axis "all" compares images of everybody as they come, so a
    set that is balanced where its cohort is not differs in that too. With `groups`: instead one
    cell per group of sex, age, BMI and diagnosis (axis "group"), equal n among these; each has its
    own pool, the held-out images where either half has FEW. In Real - Real, precision and its like
    are one half as a copy of the other: what perfect images would reach.
    """
    images, found, refused = _prepared(
        real_features, real_index, synthetic_features, synthetic_index, rows
    )
    wanted = {axis: some for axis, some in found.items() if (axis == "group") == groups}
    table = measured(images, wanted, METRICS, n=n, draws=draws, seed=seed)
    table.attrs.update(_notes(refused, table))
    return table


def table1_wide(table: pd.DataFrame) -> pd.DataFrame:
    """Table 1 as the paper prints it: per axis a heading row with its cells, then "30.39 (0.34)"
    per kind.

    A table that knows its pools has them in the last column, `pool`.
    """
    rows, told = [], "pool" in table
    for axis, part in table.groupby("axis", sort=False):
        pool = [part.pool.iloc[0]] if told else []
        rows.append([title_of(str(axis)), *part[part.kind == FLOOR].cell, *[""] * told])
        for kind, title in ((FLOOR, f"{FLOOR} (lower bound)"), (ACROSS, ACROSS)):
            rows.append(
                [title, *(_printed(r) for r in part[part.kind == kind].itertuples()), *pool]
            )
    wide = pd.DataFrame(rows, columns=["FID", "A - A", "A - B", "B - B", *["pool"] * told])
    wide.attrs.update(table.attrs)
    return wide


def overview(table: pd.DataFrame) -> pd.DataFrame:
    """`fidelity` for reading: a row per group, synthetic against real images of the same, the Real
    - Real value in brackets.

    Columns: Group, n, then the metrics, the kernel distance times 1000 and with its interval; pool.
    """
    rows = []
    for (axis, cell), part in table.groupby(["axis", "cell"], sort=False):
        left, _, right = str(cell).partition(" - ")
        if axis in with_diagnosis() and left != right:
            continue
        synthetic, real = (part[part.kind == kind].set_index("metric") for kind in (ACROSS, FLOOR))
        number = synthetic[["value", "low", "high"]].assign(floor=real.value)
        texts = [_beside(metric, number.loc[metric].to_numpy(float)) for metric in METRICS]
        rows.append([left, int(synthetic.n.iloc[0]), *texts, synthetic.pool.iloc[0]])
    titles = [
        "Group",
        "n",
        "FID",
        "1000 KID [95 %]",
        "Precision",
        "Recall",
        "Density",
        "Coverage",
        "pool",
    ]
    shown = pd.DataFrame(rows, columns=titles)
    shown.attrs.update(table.attrs)
    return shown


def _beside(metric: str, numbers: np.ndarray) -> str:
    """ "4.10 [3.20, 5.00] (0.12)": the value, its interval where there is one, and in brackets that
    of real images."""
    value, low, high, floor = numbers
    factor = 1000 if metric == "kid" else 1
    interval = "" if np.isnan(low) else f" [{factor * low:.2f}, {factor * high:.2f}]"
    texts = ["n/a" if np.isnan(v) else f"{factor * v:.2f}" for v in (value, floor)]
    return f"{texts[0]}{interval} ({texts[1]})"


def _prepared(
    real_features: np.ndarray,
    real_index: pd.DataFrame,
    synthetic_features: np.ndarray,
    synthetic_index: pd.DataFrame,
    rows: Rows | None,
) -> tuple[Images, dict[str, list[Group]], list[str]]:
    """Checked input, the groups of each axis, "all" and "group", and a sentence per axis
    left out."""
    indexes = [table.reset_index(drop=True) for table in (real_index, synthetic_index)]
    rows = rows or (np.arange(len(real_index)), np.arange(len(synthetic_index)))
    features = (real_features, synthetic_features)
    for name, index, some, values in zip(
        ("real", "synthetic"), indexes, rows, features, strict=True
    ):
        if not len(index):
            raise ValueError(
                f"the {name} set holds no image, so there is nothing to compare; render or prepare it first"
            )
        if len(values) != len(some):
            raise ValueError(
                f"{name}: {len(values)} rows of features for {len(some)} images; compute them again"
            )
        check_finite(values, f"of the {name} images")
    groups, refused = _compared(*indexes)
    subjects = [table.subject.to_numpy(object) for table in indexes]
    real, synthetic = zip(features, rows, subjects, strict=True)
    return (
        Images(*real, *synthetic),
        groups,
        [f"{axis}: {reason}." for axis, reason in refused.items()],
    )


def _compared(
    real_index: pd.DataFrame, synthetic_index: pd.DataFrame
) -> tuple[dict[str, list[Group]], dict[str, str]]:
    """The groups of each axis, "all" and "group", with the real images of its pool; axes left
    out, and why."""
    real = real_index[real_index.split != "extra"]
    axes, refused = _comparable(real, synthetic_index)
    groups: dict[str, list[Group]] = {}
    for axis in axes:
        pair = {
            _name(axis, v, real_index): [values_in(t, axis) == v for t in (real, synthetic_index)]
            for v in with_diagnosis()[axis].extremes
        }
        parts = {name: (real[here], synthetic_index[there]) for name, (here, there) in pair.items()}
        groups[axis] = _pooled(axis, parts, enough=ENOUGH)
    groups["all"] = _pooled("all", {"All": (real, synthetic_index)}, enough=ENOUGH)
    names = (
        sorted({*real.group.dropna(), *synthetic_index.group.dropna()}) if "group" in real else []
    )
    groups["group"] = []
    # each is compared with itself alone, so one that is small widens no other's pool
    for name in names:
        part = (real[real.group == name], synthetic_index[synthetic_index.group == name])
        groups["group"] += _pooled("group", {name: part}, enough=FEW)
    return groups, refused


def _pooled(
    axis: str, parts: dict[str, tuple[pd.DataFrame, pd.DataFrame]], *, enough: int
) -> list[Group]:
    """The groups of an axis, given all their real images and the synthetic ones, in the first pool
    that suffices all.

    Where no group has FEW synthetic images nothing is to be compared, and no other pool is asked.
    """
    compared = any(len(synthetic) >= FEW for _, synthetic in parts.values())
    groups: list[Group] = []
    for pool, splits in POOLS.items():
        held = {name: real[real.split.isin(splits)] for name, (real, _) in parts.items()}
        groups = [
            Group(
                axis,
                name,
                some.index.to_numpy(),
                parts[name][1].index.to_numpy(),
                half_size(some.subject),
                pool,
            )
            for name, some in held.items()
        ]
        if not compared or all(group.half >= enough for group in groups):
            break
    return groups


def _comparable(real: pd.DataFrame, synthetic: pd.DataFrame) -> tuple[list[str], dict[str, str]]:
    """The axes whose two groups both sides have, and why the others are left out."""
    known, refused = learnable_axes(real), {}
    for column, axis in with_diagnosis().items():
        absent = {
            name: [
                _name(column, v) for v in axis.extremes if not (values_in(table, column) == v).any()
            ]
            for name, table in (("real", real), ("synthetic", synthetic))
            if column in known
        }
        lacking = [
            f"no {name} image is {' or '.join(values)}" for name, values in absent.items() if values
        ]
        if column not in known or lacking:
            refused[column] = (
                " and ".join(lacking) or "unknown, or the same for everyone, in this cohort"
            )
    return [column for column in with_diagnosis() if column not in refused], refused


def _notes(refused: list[str], table: pd.DataFrame) -> dict[str, Any]:
    """attrs of a table: what a reader must know in words."""
    size, warnings = table.attrs["n"], []
    if small := table.attrs["small"]:
        told = ", ".join(small[:8]) + (f" and {len(small) - 8} more" if len(small) > 8 else "")
        warnings.append(f"n too small, n/a: fewer than {FEW} images a side in {told}.")
    if 0 < size < ENOUGH:
        warnings.append(
            f"Only {size} images a side, all that the smallest group has: unreliable distances."
        )
    return {"refused": refused, "n": size, "warnings": [*warnings, *_widened(table)]}


def _widened(table: pd.DataFrame) -> list[str]:
    """Which axes, or how many of the groups, had too few held-out images."""
    wide, wholes = table[table.pool == ALL], table[table.axis == "group"]
    said = []
    if names := [title_of(axis) for axis in wide.axis.unique() if axis != "group"]:
        said.append(
            f"{', '.join(names)}: a half of the held-out images is smaller than {ENOUGH}, so real images of train "
            "and held-out people are compared, also those that generator and judges were trained on."
        )
    if count := wide[wide.axis == "group"].cell.nunique():
        said.append(
            f"{count} of {wholes.cell.nunique()} groups: a half of the held-out images is smaller than {FEW}, so "
            "real images of train and held-out people are compared (column pool)."
        )
    return said


def _printed(row: Any) -> str:
    return "n/a" if np.isnan(row.fid) else f"{row.fid:.2f} ({row.sd:.2f})"


def _name(axis: str, value: Any, table: pd.DataFrame | None = None) -> str:
    """Of a band, as in the paper's Table 1; the diseased are called by the table's diagnosis."""
    if axis == "diagnosis" and value == 1:
        has_hf = table is None or "hf" in set(table.diagnosis.dropna())
        return DIAGNOSIS_NAMES["hf" if has_hf else "reduced_ef"]
    return name_of(axis, value, short=True)
