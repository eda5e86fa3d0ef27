"""Segmentations as sources write them, to canonical labels: every value known, and the whole a
heart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.volumes import Volume

UNKNOWN = 255  # stands for a label that no mapping has
LABEL_TOLERANCE = 1e-3  # by which a label may miss a whole number
# least share of the LV cavity's rim on myocardium; 0.98..1.00 in 140 real volumes, RV 0.17..0.43
ENCLOSED = 0.6
MARGIN = 0.2  # by how much that share must exceed the RV's


def check_labels(labels: np.ndarray, *, mapping: Mapping[int, int]) -> np.ndarray:
    """Source labels of any dtype to canonical uint8; `mapping` is source label -> canonical label.

    Floats count as integers within LABEL_TOLERANCE. Raises ValueError naming non-integers and
    values that `mapping` lacks.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    for source, label in mapping.items():
        if 0 <= source < UNKNOWN:
            table[source] = label
    with np.errstate(invalid="ignore"):
        byte = labels.astype(np.uint8)
    canonical = table.take(byte)
    # the usual case, and the fast one
    if (byte == labels).all() and canonical.max(initial=0) < UNKNOWN:
        return canonical
    whole = labels
    if labels.dtype.kind == "f":
        whole = np.rint(labels)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            close = np.abs(labels - whole) <= LABEL_TOLERANCE
        if not close.all():
            raise ValueError(f"labels are not integers: {_list(np.unique(labels[~close]))}")
    if (unknown := np.setdiff1d(whole, list(mapping))).size:
        raise ValueError(f"unknown labels {_list(unknown)}, expected {_list(sorted(mapping))}")
    for source, label in mapping.items():
        canonical[whole == source] = label
    return canonical


def label_frames(volume: Volume, mapping: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(canonical labels (T, Z, Y, X) uint8, LV voxels of each frame (T,) int) of a label file,
    streamed once.

    `mapping` is source label -> canonical label and has 0, the background; only the other voxels
    cost anything. Raises as `check_labels`, and as `Volume.stream` for a broken file.
    """
    assert mapping.get(0) == BACKGROUND
    labels, cavity = (
        np.zeros((volume.frames, *volume.shape), np.uint8),
        np.zeros(volume.frames, int),
    )
    inside = np.empty(volume.shape, bool)
    run = math.gcd(inside.size, 8)  # neighbours that are looked for together
    somewhere = inside.reshape(-1).view(f"u{run}")
    for t, frame in enumerate(volume.stream()):
        np.not_equal(frame, 0, out=inside)
        here = np.flatnonzero(somewhere != 0)
        canonical = check_labels(frame.reshape(-1, run).take(here, axis=0), mapping=mapping)
        labels[t].reshape(-1, run)[here] = canonical
        cavity[t] = np.count_nonzero(canonical == LV)
    return labels, cavity


def check_topology(labels: np.ndarray) -> None:
    """Raise ValueError unless myocardium encloses the LV cavity of `labels` (Z, Y, X) and the RV
    far less."""
    if absent := [
        name
        for name, label in (("LV cavity", LV), ("myocardium", MYO))
        if not (labels == label).any()
    ]:
        raise ValueError(f"no {' and no '.join(absent)} labelled")
    y, x = (np.flatnonzero(labels.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    heart = labels[:, max(0, y[0] - 1) : y[-1] + 2, max(0, x[0] - 1) : x[-1] + 2]
    lv, rv = _rim_on_myocardium(heart, LV), _rim_on_myocardium(heart, RV)
    borders = f"myocardium borders {lv:.0%} of the LV and {rv:.0%} of the RV"
    if rv > lv:
        raise ValueError(f"LV and RV look swapped: {borders}; check the label map")
    if lv < max(ENCLOSED, rv + MARGIN):
        raise ValueError(f"labels do not look like a heart: {borders}; check the label map")


def _rim_on_myocardium(labels: np.ndarray, label: int) -> float:
    """Share of the pixels just outside `label`, slice by slice, that are myocardium; 0 where there
    is no such label."""
    here = labels == label
    cross = ndimage.generate_binary_structure(2, 1)[None]
    rim = ndimage.binary_dilation(here, cross) & ~here
    return float((labels[rim] == MYO).mean()) if rim.any() else 0.0


def _list(values: Any, most: int = 5) -> str:
    listed = ", ".join(f"{value:g}" for value in values[:most])
    return f"{listed}, ..." if len(values) > most else listed
