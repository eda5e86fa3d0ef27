"""Cells of a comparison: equal samples of two groups, drawn several times, measured and summed
up."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrgen.evaluation.fidelity.distances import (
    Distance,
    FeatureSample,
    Metric,
    Pair,
    feature_sample,
)
from cmrstudy.intervals import MIN_COUNT, Z

FLOOR, ACROSS = "Real - Real", "Real - Synthetic"
REAL, SYNTHETIC, LEFT, RIGHT = "real", "synthetic", "left half", "right half"  # what is drawn from
WHOLES = ("all", "group")  # axes whose groups are not compared with each other
Cell = tuple[int, int, str]  # positions of two groups, FLOOR or ACROSS
CELL_COLUMNS = [
    "axis",
    "cell",
    "kind",
    "metric",
    "value",
    "sd",
    "low",
    "high",
    "n",
    "subjects",
    "pool",
]


class ComparedImages(NamedTuple):
    """Both sides of all comparisons. Subjects are of every row of the index tables, features of
    `rows` alone."""

    real: np.ndarray
    real_rows: np.ndarray  # ascending
    real_subjects: np.ndarray
    synthetic: np.ndarray
    synthetic_rows: np.ndarray
    synthetic_subjects: np.ndarray


class Group(NamedTuple):
    """The images that share a value of an axis."""

    axis: str
    name: str
    real: np.ndarray  # rows of the pool
    synthetic: np.ndarray  # rows
    half: int  # images that either half of the real ones surely has
    pool: str  # which real images these are


class Cells(NamedTuple):
    """All metrics of all cells."""

    table: pd.DataFrame  # long, with CELL_COLUMNS
    n: int  # images a side, equal in every cell that was computed; 0 where none was
    small: list[str]  # groups that were too small, with the images they have


def measured_cells(
    images: ComparedImages,
    groups: Mapping[str, list[Group]],
    metrics: Mapping[str, Metric],
    *,
    n: int,
    draws: int,
    seed: int,
) -> Cells:
    """Measure the cells of every axis at one size.

    Args:
        images: features and subjects of both sides.
        groups: axis -> its groups.
        metrics: name -> what to measure.
        n: images a side, at most.
        draws: how often each sample is drawn.
        seed: of the draws.
    """
    size = common_size(groups, n=n)
    rows = []
    for axis, axis_groups in groups.items():
        cells = _cells(axis, axis_groups)
        computed = [cell for cell, count in cells.items() if count >= MIN_COUNT]
        results: dict[Cell, list[dict[str, Distance]]] = {cell: [] for cell in computed}
        for draw in range(draws if size >= MIN_COUNT else 0):
            for cell, pair in _pairs_drawn(
                images, axis_groups, computed, size=size, seed=[seed, draw]
            ):
                results[cell].append({name: m.measure(pair) for name, m in metrics.items()})
        for cell, count in cells.items():
            (i, j, kind), values = cell, results.get(cell, [])
            compared = {i} if kind == ACROSS else {i, j}
            behind = np.concatenate([axis_groups[k].real for k in compared])
            left, right = axis_groups[i], axis_groups[j]
            rows += [
                (
                    axis,
                    left.name if axis in WHOLES else f"{left.name} - {right.name}",
                    kind,
                    metric,
                    *_summary([draw[metric] for draw in values]),
                    size if values else count,
                    len(set(images.real_subjects[behind])),
                    left.pool,
                )
                for metric in metrics
            ]
    table = pd.DataFrame(rows, columns=CELL_COLUMNS)
    return Cells(table, size if table.value.notna().any() else 0, _small(groups))


def _small(groups: Mapping[str, list[Group]]) -> list[str]:
    """ "Female (synthetic: 19)" for every side of a group that is too small."""
    sides = [
        (group.name, kind, count)
        for axis_groups in groups.values()
        for group in axis_groups
        for kind, count in (("real", group.half), ("synthetic", len(group.synthetic)))
    ]
    small = [f"{name} ({kind}: {count})" for name, kind, count in sides if count < MIN_COUNT]
    return list(dict.fromkeys(small))


def rows_drawn(
    groups: Mapping[str, list[Group]], real_subjects: np.ndarray, *, n: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the real and of the synthetic images that `measured_cells` draws with the same
    arguments, ascending."""
    size = common_size(groups, n=n)
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for axis, axis_groups in groups.items() if size >= MIN_COUNT else ():
        cells = [cell for cell, count in _cells(axis, axis_groups).items() if count >= MIN_COUNT]
        for k, side in sorted({key for cell in cells for key in _sides(cell)}):
            for draw in range(draws):
                chosen = _chosen(axis_groups[k], side, real_subjects, size=size, seed=[seed, draw])
                rows[side == SYNTHETIC].append(chosen)
    real, synthetic = (
        np.unique(np.concatenate([np.zeros(0, int), *rows[side]])) for side in (False, True)
    )
    return real, synthetic


def common_size(groups: Mapping[str, list[Group]], *, n: int) -> int:
    """Images a side in every cell: at most `n`, else what the smallest side of at least MIN_COUNT
    has; 0 where none is."""
    sides = [
        count
        for axis_groups in groups.values()
        for group in axis_groups
        for count in (group.half, len(group.synthetic))
    ]
    return min(n, min((count for count in sides if count >= MIN_COUNT), default=0))


def _cells(axis: str, groups: Sequence[Group]) -> dict[Cell, int]:
    """The cells of an axis, and how many images a side each could have."""
    places = [(k, k) for k in range(len(groups))] if axis in WHOLES else [(0, 0), (0, 1), (1, 1)]
    cells = [(i, j, kind) for i, j in places for kind in (FLOOR, ACROSS)]
    return {
        (i, j, kind): min(
            groups[i].half, len(groups[j].synthetic) if kind == ACROSS else groups[j].half
        )
        for i, j, kind in cells
    }


def _sides(cell: Cell) -> tuple[tuple[int, str], tuple[int, str]]:
    """Position of the groups that a cell compares, and what of them is drawn from."""
    i, j, kind = cell
    left, right = (REAL, SYNTHETIC) if kind == ACROSS else (LEFT, RIGHT) if i == j else (REAL, REAL)
    return (i, left), (j, right)


def _pairs_drawn(
    images: ComparedImages,
    groups: Sequence[Group],
    cells: Sequence[Cell],
    *,
    size: int,
    seed: Sequence[int],
) -> Iterator[tuple[Cell, Pair]]:
    """The samples of each cell in one draw; one that several cells compare is made once."""
    samples: dict[tuple[int, str], FeatureSample] = {}
    for cell in cells:
        samples = {key: kept for key, kept in samples.items() if key[0] >= cell[0]}
        sides = _sides(cell)
        for k, side in sides:
            if (k, side) not in samples:
                samples[k, side] = _sampled(images, groups[k], side, size=size, seed=seed)
        yield cell, Pair(*(samples[key] for key in sides))


def _sampled(
    images: ComparedImages, group: Group, side: str, *, size: int, seed: Sequence[int]
) -> FeatureSample:
    """`size` images of a side of a group."""
    chosen = _chosen(group, side, images.real_subjects, size=size, seed=seed)
    features, rows, subjects = images.real, images.real_rows, images.real_subjects
    if side == SYNTHETIC:
        features, rows, subjects = (
            images.synthetic,
            images.synthetic_rows,
            images.synthetic_subjects,
        )
    values = np.asarray(features[np.searchsorted(rows, chosen)])
    return feature_sample(values, f"of {group.name}, {side}", subjects=subjects[chosen])


def _chosen(
    group: Group, side: str, real_subjects: np.ndarray, *, size: int, seed: Sequence[int]
) -> np.ndarray:
    """`size` rows of a side of a group; the same ones for the same seed, whatever else is drawn."""
    key = [zlib.crc32(f"{group.axis} {group.name}".encode()), *seed]
    rows = group.synthetic if side == SYNTHETIC else group.real
    if side in (LEFT, RIGHT):
        rows = halves(rows, real_subjects, np.random.default_rng(key))[side == RIGHT]
    return np.random.default_rng([*key, zlib.crc32(side.encode())]).choice(
        rows, size, replace=False
    )


def _summary(draws: Sequence[Distance]) -> tuple[float, float, float, float]:
    """Mean and sd over draws, and an interval where the metric has a variance."""
    values = np.array([draw.value for draw in draws])
    if not len(values):
        return (np.nan,) * 4
    reach = Z * np.sqrt(np.mean([draw.variance for draw in draws]))
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return mean, sd, float(mean - reach), float(mean + reach)


def half_size(subjects: pd.Series) -> int:
    """The images that either half of `halves` surely has."""
    most = subjects.value_counts().max() if len(subjects) else 0
    return int(np.ceil((len(subjects) - most) / 2))


def halves(
    rows: np.ndarray, subjects: pd.Series | np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`rows` divided in two with no subject in common: subjects in random order, each to the
    smaller half.

    Args:
        rows: positions in `subjects`.
        subjects: of every image.
        rng: of the order.
    """
    codes = pd.factorize(np.asarray(subjects)[rows])[0]
    images = np.bincount(codes)
    right, sizes = np.zeros(len(images), bool), [0, 0]
    for k in rng.permutation(len(images)):
        right[k] = sizes[1] < sizes[0]
        sizes[int(right[k])] += int(images[k])
    return rows[~right[codes]], rows[right[codes]]
