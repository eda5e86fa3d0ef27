"""Cells of a comparison: equal samples of two groups, drawn several times, measured and summed
up."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrgen.evaluation.fidelity.distances import (
    Sample,
    frechet,
    kernel_distance,
    neighbours,
    sample,
)
from cmrstudy.intervals import Z

FLOOR, ACROSS = "Real - Real", "Real - Synthetic"
FEW = 20  # images: with fewer a side, nothing is computed
METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
REAL, SYNTHETIC, LEFT, RIGHT = "real", "synthetic", "left half", "right half"  # what is drawn from
WHOLES = ("all", "group")  # axes whose groups are not compared with each other
Cell = tuple[int, int, str]  # positions of two groups, FLOOR or ACROSS


class Images(NamedTuple):
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


class Drawn(NamedTuple):
    """A random part of a group."""

    sample: Sample
    subjects: np.ndarray  # (n,) object
    # (n, n) products of the features, where their neighbours are asked for
    inner: np.ndarray | None


def measured(
    images: Images,
    groups: Mapping[str, list[Group]],
    metrics: Sequence[str],
    *,
    n: int,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """All metrics of all cells, in long form; attrs: n (equal in every cell that was computed) and
    small (what was not)."""
    size = common_size(groups, n=n)
    rows = []
    for axis, some in groups.items():
        held = _cells(axis, some)
        computed = [cell for cell in held if held[cell] >= FEW]
        found: dict[Any, list[dict[str, float]]] = {cell: [] for cell in computed}
        for draw in range(draws if size >= FEW else 0):
            for cell, values in _drawn(
                images, some, computed, size=size, seed=[seed, draw], neighbourly=len(metrics) > 1
            ):
                found[cell].append(values)
        for i, j, kind in held:
            behind = np.concatenate([some[k].real for k in ({i} if kind == ACROSS else {i, j})])
            name = some[i].name if axis in WHOLES else f"{some[i].name} - {some[j].name}"
            drawn = found.get((i, j, kind), [])
            counts = (
                size if drawn else held[i, j, kind],
                len(set(images.real_subjects[behind])),
                some[i].pool,
            )
            rows += [
                (axis, name, kind, metric, *_summary(drawn, metric), *counts) for metric in metrics
            ]
    columns = [
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
    table = pd.DataFrame(rows, columns=columns)
    small = {
        f"{g.name} ({kind}: {held})": None
        for some in groups.values()
        for g in some
        for kind, held in (("real", g.half), ("synthetic", len(g.synthetic)))
        if held < FEW
    }
    table.attrs.update(n=size if table.value.notna().any() else 0, small=list(small))
    return table


def used(
    groups: Mapping[str, list[Group]], real_subjects: np.ndarray, *, n: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the real and of the synthetic images that `measured` draws with the same arguments,
    ascending."""
    size = common_size(groups, n=n)
    rows: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for axis, some in groups.items() if size >= FEW else ():
        cells = [cell for cell, held in _cells(axis, some).items() if held >= FEW]
        for k, part in sorted({key for cell in cells for key in _parts(cell)}):
            for draw in range(draws):
                chosen = _chosen(some[k], part, real_subjects, size=size, seed=[seed, draw])
                rows[part == SYNTHETIC].append(chosen)
    real, synthetic = (
        np.unique(np.concatenate([np.zeros(0, int), *rows[side]])) for side in (False, True)
    )
    return real, synthetic


def common_size(groups: Mapping[str, list[Group]], *, n: int) -> int:
    """Images a side in every cell: at most `n`, else what the smallest side of at least FEW holds;
    0 where none is."""
    sides = [held for some in groups.values() for g in some for held in (g.half, len(g.synthetic))]
    return min(n, min((held for held in sides if held >= FEW), default=0))


def _cells(axis: str, groups: Sequence[Group]) -> dict[Cell, int]:
    """The cells of an axis, and how many images a side each could have."""
    cells = [(i, j, kind) for i, j in _pairs(axis, len(groups)) for kind in (FLOOR, ACROSS)]
    return {cell: min(groups[cell[0]].half, _held(groups[cell[1]], cell[2])) for cell in cells}


def _parts(cell: Cell) -> tuple[tuple[int, str], tuple[int, str]]:
    """Position and part of the groups that a cell compares."""
    i, j, kind = cell
    left, right = (REAL, SYNTHETIC) if kind == ACROSS else (LEFT, RIGHT) if i == j else (REAL, REAL)
    return (i, left), (j, right)


def _pairs(axis: str, count: int) -> list[tuple[int, int]]:
    return [(k, k) for k in range(count)] if axis in WHOLES else [(0, 0), (0, 1), (1, 1)]


def _held(group: Group, kind: str) -> int:
    return len(group.synthetic) if kind == ACROSS else group.half


def _drawn(
    images: Images,
    groups: Sequence[Group],
    cells: Sequence[Cell],
    *,
    size: int,
    seed: Sequence[int],
    neighbourly: bool,
) -> Iterator[tuple[Cell, dict[str, float]]]:
    """The metrics of each cell in one draw; what several cells need of a sample is computed
    once."""
    kept: dict[tuple[int, str], Drawn] = {}
    for i, j, kind in cells:
        kept = {key: drawn for key, drawn in kept.items() if key[0] >= i}
        keys = _parts((i, j, kind))
        for key in keys:
            if key not in kept:
                kept[key] = _sampled(
                    images, groups[key[0]], key[1], size=size, seed=seed, neighbourly=neighbourly
                )
        x, y = (kept[key] for key in keys)
        values = {"fid": frechet(x.sample, y.sample)}
        if x.inner is not None and y.inner is not None:
            inner, width = x.sample.features @ y.sample.features.T, len(x.sample.mean)
            kid = kernel_distance(
                x.inner, inner, y.inner, width=width, x_of=x.subjects, y_of=y.subjects
            )
            values |= {
                "kid": kid.value,
                "kid variance": kid.variance,
                **neighbours(x.inner, inner, y.inner),
            }
        yield (i, j, kind), values


def _sampled(
    images: Images, group: Group, part: str, *, size: int, seed: Sequence[int], neighbourly: bool
) -> Drawn:
    """`size` images of a part of a group, with what cells ask of them."""
    chosen = _chosen(group, part, images.real_subjects, size=size, seed=seed)
    features, rows, subjects = images.real, images.real_rows, images.real_subjects
    if part == SYNTHETIC:
        features, rows, subjects = (
            images.synthetic,
            images.synthetic_rows,
            images.synthetic_subjects,
        )
    drawn = sample(np.asarray(features[np.searchsorted(rows, chosen)]), f"of {group.name}, {part}")
    return Drawn(
        drawn, subjects[chosen], drawn.features @ drawn.features.T if neighbourly else None
    )


def _chosen(
    group: Group, part: str, real_subjects: np.ndarray, *, size: int, seed: Sequence[int]
) -> np.ndarray:
    """`size` rows of a part of a group; the same ones for the same seed, whatever else is drawn."""
    key = [zlib.crc32(f"{group.axis} {group.name}".encode()), *seed]
    rows = group.synthetic if part == SYNTHETIC else group.real
    if part in (LEFT, RIGHT):
        rows = halves(rows, real_subjects, np.random.default_rng(key))[part == RIGHT]
    return np.random.default_rng([*key, zlib.crc32(part.encode())]).choice(
        rows, size, replace=False
    )


def _summary(
    draws: Sequence[Mapping[str, float]], metric: str
) -> tuple[float, float, float, float]:
    """Mean and sd over draws, and for the kernel distance an interval."""
    values = np.array([draw[metric] for draw in draws])
    if not len(values):
        return (np.nan,) * 4
    reach = Z * np.sqrt(np.mean([draw.get(f"{metric} variance", np.nan) for draw in draws]))
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
    smaller half."""
    codes = pd.factorize(np.asarray(subjects)[rows])[0]
    images = np.bincount(codes)
    right, sizes = np.zeros(len(images), bool), [0, 0]
    for k in rng.permutation(len(images)):
        right[k] = sizes[1] < sizes[0]
        sizes[int(right[k])] += int(images[k])
    return rows[~right[codes]], rows[right[codes]]
