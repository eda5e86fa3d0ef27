"""How far synthetic images are from real ones, group by group (Table 1 and beyond): features and
index tables in, tables out."""

from __future__ import annotations

from typing import Any, NamedTuple

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
from cmrdata.counting import number_of
from cmrgen.evaluation.fidelity.distances import METRICS, check_finite
from cmrgen.evaluation.fidelity.equal_samples import (
    Cells,
    ComparedImages,
    Group,
    half_size,
    measured_cells,
    rows_drawn,
)
from cmrstudy.intervals import MIN_COUNT

HELD_OUT, ALL = "held-out", "train + held-out"
POOLS = {HELD_OUT: ("val", "test"), ALL: ("train", "val", "test")}
ENOUGH = 50  # images: a smaller held-out half widens an axis's pool, and below it a table warns

Rows = tuple[np.ndarray, np.ndarray]  # of the real and of the synthetic index, ascending


class Distances(NamedTuple):
    """Measured cells, and what a reader must know of them."""

    table: pd.DataFrame
    n: int  # images a side in every cell that was computed; 0 where none was
    refused: list[str]  # a sentence per axis that could not be compared
    warnings: list[str]  # sentences

    @property
    def notes(self) -> list[str]:
        """The sentences below a table for readers."""
        return [*self.warnings, *(f"Left out: {reason}" for reason in self.refused)]


def used_rows(
    real_index: pd.DataFrame,
    synthetic_index: pd.DataFrame,
    *,
    n: int = 500,
    draws: int = 4,
    seed: int,
) -> Rows:
    """The images that `table1` and `fidelity_table` draw: no other needs features.

    Args:
        real_index: rows of the cohort.
        synthetic_index: rows of the set.
        n: images a side, at most.
        draws: of each sample.
        seed: of the draws.

    Returns:
        Positions in both tables, ascending.
    """
    groups, _ = _compared_groups(
        *(table.reset_index(drop=True) for table in (real_index, synthetic_index))
    )
    subjects = real_index.subject.to_numpy(object)
    rows = [
        rows_drawn(
            {axis: groups[axis] for axis in groups if axis in axes},
            subjects,
            n=n,
            draws=draws,
            seed=seed,
        )
        for axes in ({*with_diagnosis()}, {*with_diagnosis(), "all"}, {"group"})
    ]
    real, synthetic = (np.unique(np.concatenate(side)) for side in zip(*rows, strict=True))
    return real, synthetic


def compared_subgroups(real_index: pd.DataFrame, synthetic_index: pd.DataFrame) -> pd.DataFrame:
    """Who is compared: a row per subgroup of Table 1's axes, and "all".

    Columns: axis, subgroup, pool (a key of POOLS), images and subjects (real ones of that pool),
    half (images that either half of them surely has), held_out_half (the same of held-out images,
    which decides the pool), synthetic (images).
    """
    groups, _ = _compared_groups(
        *(table.reset_index(drop=True) for table in (real_index, synthetic_index))
    )
    held_out = real_index.split.isin(POOLS[HELD_OUT]).to_numpy()
    subjects = real_index.subject.reset_index(drop=True)
    rows = [
        {
            "axis": axis,
            "subgroup": group.name,
            "pool": group.pool,
            "images": len(group.real),
            "subjects": subjects[group.real].nunique(),
            "half": group.half,
            "held_out_half": half_size(subjects[group.real[held_out[group.real]]]),
            "synthetic": len(group.synthetic),
        }
        for axis, axis_groups in groups.items()
        if axis != "group"
        for group in axis_groups
    ]
    return pd.DataFrame(rows)


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
) -> Distances:
    """Fréchet distances between subgroups, real-real and real-synthetic (paper Table 1), in long
    form.

    Real - Real within a group compares two halves with no subject in common, divided anew in each
    draw. "A - B" of Real - Synthetic is real A against synthetic B. A Fréchet distance depends on
    n, so n is the same in every cell: at most `n`, else what the smallest side has. A side of fewer
    than MIN_COUNT images would pull all others down with it: its cells are NaN, with the n it has.
    Each axis has its own pool: the held-out images where either half of both its groups has ENOUGH,
    else those of train, val and test; "extra" rows never count.

    Args:
        real_features: (N, d) of the rows of `real_index` in order, or of `rows` alone.
        real_index: columns subject, split and the axes.
        synthetic_features: (M, d).
        synthetic_index: columns subject and the axes.
        n: images a side, at most.
        draws: of each sample.
        seed: of the draws.
        rows: of `used_rows` for the same n, draws and seed.

    Returns:
        Columns axis, cell, kind, fid (mean over draws), sd, n (images on each side), subjects
        (distinct real subjects a cell draws from), pool (which real images).

    Raises:
        ValueError: an empty set, features that are not finite, or that do not fit their index.
    """
    images, groups, refused = _prepared(
        real_features, real_index, synthetic_features, synthetic_index, rows
    )
    groups = {axis: pair for axis, pair in groups.items() if axis in with_diagnosis()}
    cells = measured_cells(images, groups, {"fid": METRICS["fid"]}, n=n, draws=draws, seed=seed)
    table = cells.table.rename(columns={"value": "fid"})[
        ["axis", "cell", "kind", "fid", "sd", "n", "subjects", "pool"]
    ]
    return Distances(table, cells.n, refused, _warnings(cells))


def fidelity_table(
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
) -> Distances:
    """Every metric of METRICS for the cells of Table 1 and for all images together, in long form.

    Draws, cells, pools and errors are those of `table1`. The axis "all" compares images of
    everybody as they come, so a set that is balanced where its cohort is not differs in that too.
    In Real - Real, precision and its like are one half as a copy of the other: what perfect images
    would reach.

    Args:
        real_features: as for `table1`, like all arguments but one.
        real_index: of the cohort.
        synthetic_features: of the set.
        synthetic_index: of the set.
        n: images a side, at most.
        draws: of each sample.
        seed: of the draws.
        groups: instead one cell per group of sex, age, BMI and diagnosis (axis "group"), equal n
            among these; each has its own pool, the held-out images where either half has MIN_COUNT.
        rows: of `used_rows`.

    Returns:
        Columns axis, cell, kind, metric, value (mean over draws), sd (over draws), low and high
        (kid only: 95 % interval of one draw's n images, by a jackknife that leaves out one subject
        at a time; the mean over draws is at least as sure), n, subjects, pool.
    """
    images, all_groups, refused = _prepared(
        real_features, real_index, synthetic_features, synthetic_index, rows
    )
    chosen = {axis: some for axis, some in all_groups.items() if (axis == "group") == groups}
    cells = measured_cells(images, chosen, METRICS, n=n, draws=draws, seed=seed)
    return Distances(cells.table, cells.n, refused, _warnings(cells))


def _prepared(
    real_features: np.ndarray,
    real_index: pd.DataFrame,
    synthetic_features: np.ndarray,
    synthetic_index: pd.DataFrame,
    rows: Rows | None,
) -> tuple[ComparedImages, dict[str, list[Group]], list[str]]:
    """Checked input, the groups of each axis, "all" and "group", and a sentence per axis left
    out."""
    indexes = [table.reset_index(drop=True) for table in (real_index, synthetic_index)]
    rows = rows or (np.arange(len(real_index)), np.arange(len(synthetic_index)))
    features = (real_features, synthetic_features)
    for name, index, index_rows, values in zip(
        ("real", "synthetic"), indexes, rows, features, strict=True
    ):
        if not len(index):
            raise ValueError(
                f"the {name} set holds no image, so there is nothing to compare; render or "
                "prepare it first"
            )
        if len(values) != len(index_rows):
            raise ValueError(
                f"{name}: {len(values)} rows of features for {len(index_rows)} images; compute "
                "them again"
            )
        check_finite(values, f"of the {name} images")
    groups, refused = _compared_groups(*indexes)
    subjects = [table.subject.to_numpy(object) for table in indexes]
    real, synthetic = zip(features, rows, subjects, strict=True)
    return (
        ComparedImages(*real, *synthetic),
        groups,
        [f"{axis}: {reason}." for axis, reason in refused.items()],
    )


def _compared_groups(
    real_index: pd.DataFrame, synthetic_index: pd.DataFrame
) -> tuple[dict[str, list[Group]], dict[str, str]]:
    """The groups of each axis, "all" and "group", with the real images of its pool; axes left out,
    and why."""
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
        groups["group"] += _pooled("group", {name: part}, enough=MIN_COUNT)
    return groups, refused


def _pooled(
    axis: str, parts: dict[str, tuple[pd.DataFrame, pd.DataFrame]], *, enough: int
) -> list[Group]:
    """The groups of an axis, given all their real images and the synthetic ones, in the first pool
    that suffices all.

    Where no group has MIN_COUNT synthetic images nothing is to be compared, and no other pool is
    asked.
    """
    compared = any(len(synthetic) >= MIN_COUNT for _, synthetic in parts.values())
    groups: list[Group] = []
    for pool, splits in POOLS.items():
        pools = {name: real[real.split.isin(splits)] for name, (real, _) in parts.items()}
        groups = [
            Group(
                axis,
                name,
                real.index.to_numpy(),
                parts[name][1].index.to_numpy(),
                half_size(real.subject),
                pool,
            )
            for name, real in pools.items()
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


def _warnings(cells: Cells) -> list[str]:
    """What a reader must know of these cells."""
    warnings = []
    if small := cells.small:
        listed = ", ".join(small[:8]) + (f" and {len(small) - 8} more" if len(small) > 8 else "")
        warnings.append(f"Too few images, n/a: fewer than {MIN_COUNT} on one side in {listed}.")
    if 0 < cells.n < ENOUGH:
        warnings.append(
            f"Distances are unreliable: {number_of(cells.n, 'images')} on either side, which is "
            "all that the smallest group has."
        )
    return [*warnings, *_widened(cells.table)]


def _widened(table: pd.DataFrame) -> list[str]:
    """Which axes, or how many of the groups, had too few held-out images."""
    wide, groups = table[table.pool == ALL], table[table.axis == "group"]
    warnings = []
    if names := [title_of(axis) for axis in wide.axis.unique() if axis != "group"]:
        warnings.append(
            f"{', '.join(names)}: half of the held-out images are fewer than {ENOUGH}, so real "
            "images of training and held-out people are compared, including those that the "
            "generator and the judges were trained on."
        )
    if count := wide[wide.axis == "group"].cell.nunique():
        warnings.append(
            f"{count} of {groups.cell.nunique()} groups: half of the held-out images are fewer "
            f"than {MIN_COUNT}, so real images of training and held-out people are compared "
            "(column pool)."
        )
    return warnings


def _name(axis: str, value: Any, table: pd.DataFrame | None = None) -> str:
    """Of a band, as in the paper's Table 1; the diseased are called by the table's diagnosis."""
    if axis == "diagnosis" and value == 1:
        has_hf = table is None or "hf" in set(table.diagnosis.dropna())
        return DIAGNOSIS_NAMES["hf" if has_hf else "reduced_ef"]
    return name_of(axis, value, short=True)
