"""Cells of a comparison: equal samples of two groups, drawn several times, measured and summed up."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrgen.evaluation.distances import Sample, frechet, kernel_distance, neighbours, sample
from cmrgen.evaluation.estimates import Z

FLOOR, ACROSS = "Real - Real", "Real - Synthetic"
FEW = 20  # images: with fewer a side, nothing is computed
METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
REAL, SYNTHETIC, LEFT, RIGHT = "real", "synthetic", "left half", "right half"  # what is drawn from
WHOLES = ("all", "group")  # axes whose groups are not compared with each other
Cell = tuple[int, int, str]  # positions of two groups, FLOOR or ACROSS


class Images(NamedTuple):
    """Both sides of all comparisons; features are the index tables' rows in order."""

    real: np.ndarray
    real_subjects: np.ndarray
    synthetic: np.ndarray
    synthetic_subjects: np.ndarray


class Group(NamedTuple):
    """The images that share a value of an axis."""

    axis: str
    name: str
    real: np.ndarray  # rows of the pool
    synthetic: np.ndarray  # rows
    half: int  # images that either half of the real ones surely has


class Drawn(NamedTuple):
    """A random part of a group."""

    sample: Sample
    subjects: np.ndarray  # (n,) object
    inner: np.ndarray | None  # (n, n) products of the features, where their neighbours are asked for


def measured(images: Images, groups: Mapping[str, list[Group]], metrics: Sequence[str], *, n: int, draws: int,
             seed: int) -> pd.DataFrame:  # fmt: skip
    """All metrics of all cells, in long form; attrs: n (equal in every cell that was computed) and small (what was not)."""
    sides = [held for some in groups.values() for g in some for held in (g.half, len(g.synthetic))]
    size = min(n, min((held for held in sides if held >= FEW), default=0))
    rows = []
    for axis, some in groups.items():
        cells = [(i, j, kind) for i, j in _pairs(axis, len(some)) for kind in (FLOOR, ACROSS)]
        held = {cell: min(some[cell[0]].half, _held(some[cell[1]], cell[2])) for cell in cells}
        computed = [cell for cell in cells if held[cell] >= FEW]
        found: dict[Any, list[dict[str, float]]] = {cell: [] for cell in computed}
        for draw in range(draws if size >= FEW else 0):
            for cell, values in _drawn(
                images, some, computed, size=size, seed=[seed, draw], neighbourly=len(metrics) > 1
            ):
                found[cell].append(values)
        for i, j, kind in cells:
            behind = np.concatenate([some[k].real for k in ({i} if kind == ACROSS else {i, j})])
            facts = (axis, some[i].name if axis in WHOLES else f"{some[i].name} - {some[j].name}", kind)
            drawn = found.get((i, j, kind), [])
            counts = (size if drawn else held[i, j, kind], len(set(images.real_subjects[behind])))
            rows += [(*facts, name, *_summary(drawn, name), *counts) for name in metrics]
    columns = ["axis", "cell", "kind", "metric", "value", "sd", "low", "high", "n", "subjects"]
    table = pd.DataFrame(rows, columns=columns)
    small = {f"{g.name} ({kind}: {held})": None for some in groups.values() for g in some
             for kind, held in (("real", g.half), ("synthetic", len(g.synthetic))) if held < FEW}  # fmt: skip
    table.attrs.update(n=size if table.value.notna().any() else 0, small=list(small))
    return table


def _pairs(axis: str, count: int) -> list[tuple[int, int]]:
    return [(k, k) for k in range(count)] if axis in WHOLES else [(0, 0), (0, 1), (1, 1)]


def _held(group: Group, kind: str) -> int:
    return len(group.synthetic) if kind == ACROSS else group.half


def _drawn(images: Images, groups: Sequence[Group], cells: Sequence[Cell], *, size: int, seed: Sequence[int],
           neighbourly: bool) -> Iterator[tuple[Cell, dict[str, float]]]:  # fmt: skip
    """The metrics of each cell in one draw; what several cells need of a sample is computed once."""
    kept: dict[tuple[int, str], Drawn] = {}
    for i, j, kind in cells:
        kept = {key: drawn for key, drawn in kept.items() if key[0] >= i}
        parts = (REAL, SYNTHETIC) if kind == ACROSS else (LEFT, RIGHT) if i == j else (REAL, REAL)
        for key in zip((i, j), parts, strict=True):
            if key not in kept:
                kept[key] = _sampled(images, groups[key[0]], key[1], size=size, seed=seed, neighbourly=neighbourly)
        x, y = kept[i, parts[0]], kept[j, parts[1]]
        values = {"fid": frechet(x.sample, y.sample)}
        if x.inner is not None and y.inner is not None:
            inner, width = x.sample.features @ y.sample.features.T, len(x.sample.mean)
            kid = kernel_distance(x.inner, inner, y.inner, width=width, x_of=x.subjects, y_of=y.subjects)
            values |= {"kid": kid.value, "kid variance": kid.variance, **neighbours(x.inner, inner, y.inner)}
        yield (i, j, kind), values


def _sampled(images: Images, group: Group, part: str, *, size: int, seed: Sequence[int], neighbourly: bool) -> Drawn:
    """`size` rows of a part of a group; the same ones for the same seed, whatever else is drawn."""
    key = [zlib.crc32(f"{group.axis} {group.name}".encode()), *seed]
    rows, features, subjects = group.real, images.real, images.real_subjects
    if part == SYNTHETIC:
        rows, features, subjects = group.synthetic, images.synthetic, images.synthetic_subjects
    elif part != REAL:
        rows = halves(rows, subjects, np.random.default_rng(key))[part == RIGHT]
    chosen = np.random.default_rng([*key, zlib.crc32(part.encode())]).choice(rows, size, replace=False)
    drawn = sample(np.asarray(features[chosen]), f"of {group.name}, {part}")
    return Drawn(drawn, subjects[chosen], drawn.features @ drawn.features.T if neighbourly else None)


def _summary(draws: Sequence[Mapping[str, float]], metric: str) -> tuple[float, float, float, float]:
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
    """`rows` divided in two with no subject in common: subjects in random order, each to the smaller half."""
    codes = pd.factorize(np.asarray(subjects)[rows])[0]
    images = np.bincount(codes)
    right, sizes = np.zeros(len(images), bool), [0, 0]
    for k in rng.permutation(len(images)):
        right[k] = sizes[1] < sizes[0]
        sizes[int(right[k])] += int(images[k])
    return rows[~right[codes]], rows[right[codes]]
