"""Volumes to ED/ES stacks and masks: crop in millimetres, robust intensity, neighbouring slices and frames.

One convention for real and synthetic pictures alike: arrays are (..., Y, X), rows are y, columns are x, as NIfTI's
(X, Y, Z, T) read backwards; shown with row 0 on top this is the radiological view. Slice offsets count from
base to apex, whichever end a file begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage, sparse

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.store import Stacks

PERCENTILES = (0.5, 99.5)  # black and white of a stack
ENCLOSED = 0.6  # least share of the LV cavity's rim on myocardium; 0.98..1.00 in 140 real volumes, RV 0.17..0.43
MARGIN = 0.2  # by how much that share must exceed the RV's
INDEX = ("subject", "slice", "frame", "central", "flags", "lo", "hi", "ed_frame", "es_frame")


@dataclass(frozen=True)
class Scan:
    """One subject's short-axis stack, as far as it was read. Raises ValueError when the parts do not fit together."""

    frames: Mapping[int, np.ndarray]  # frame -> (Z, Y, X) of any real dtype; at least ed and es
    ed: int  # frames count from 0 in the cine they were taken from
    es: int
    labels: Mapping[int, np.ndarray]  # frame -> (Z, Y, X) uint8 canonical labels; at least ed and es
    spacing: tuple[float, float]  # (dy, dx) mm
    cycle: int | None  # frames of the heart cycle, whose last neighbours the first; None: no neighbours in time
    flip: tuple[bool, bool] = (False, False)  # (y, x): the header says these axes run against the radiological view
    flags: tuple[str, ...] = ()  # what the reader had to decide, for the index

    def __post_init__(self) -> None:
        for phase, frame in (("ED", self.ed), ("ES", self.es)):
            if frame < 0 or frame not in self.frames or (self.cycle is not None and frame >= self.cycle):
                raise ValueError(
                    f"{phase} is frame {frame} (counted from 0), but there are {self.cycle or len(self.frames)} frames"
                )
            if frame not in self.labels:
                raise ValueError(f"{phase} has no labels")
        shape = self.frames[self.ed].shape
        if len(shape) != 3:
            raise ValueError(f"the image has {len(shape)} axes without time, expected 3")
        for what, volumes in (("a frame measures", self.frames), ("labels measure", self.labels)):
            for volume in volumes.values():
                if volume.shape != shape:
                    raise ValueError(f"{what} {_times(volume.shape)}, the ED image {_times(shape)} (Z x Y x X)")


def stacks(
    scan: Scan, *, pixels: int, fov_mm: float, expand: bool, reach: int = 1
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """(images (n, 2, P, P) uint8, masks (n, 2, P, P) uint8, n index rows) of a scan; channels ED, ES.

    `expand` is the paper's nine-fold training set (2.1): slice offsets -1, 0, 1 (-reach..reach) times frame offsets
    -1, 0, 1, the latter for ED and ES together and modulo the cycle; offsets that leave the stack and neighbours
    without labels at ED or ES are left out. A stack of fewer than three slices, like `expand=False`, gives its central slice only.

    The centre is slice Z // 2 as in the reference, unless that lacks LV or myocardium at ED or ES: then the slice
    nearest the LV's centroid that has both. Each slice is cropped to `fov_mm` squared around the bounding box of
    its annotated ED and ES masks together (the reference used ED alone) and resampled once, straight to P x P.
    `lo` and `hi` are the intensities that became 0 and 255, percentiles of ED and ES jointly.

    Flags, joined by ";": central_moved, short_stack, slices_dropped:<count>, mask_reused (a neighbouring frame
    carries the annotated frame's mask, as all do in the reference), nonfinite (NaN or Inf voxels set to 0).
    Raises ValueError "constant image", or when no slice has both LV and myocardium at ED and ES.
    """
    ed, es = scan.labels[scan.ed], scan.labels[scan.es]
    centre = _central(ed, es)
    labelled = _holds(ed) & _holds(es)
    expand_here = expand and len(labelled) >= 3
    wanted = range(-reach, reach + 1) if expand_here else (0,)
    steps = np.array((-1, 0, 1) if expand_here and scan.cycle else (0,))
    cycle = scan.cycle or 1 + max(scan.ed, scan.es)
    basal_first = _basal_first(ed, es)
    offsets = [k for k in wanted if 0 <= centre + k < len(labelled) and labelled[centre + k]]
    offsets = offsets if basal_first else offsets[::-1]
    notes = list(scan.flags)
    notes += ["central_moved"] if centre != len(labelled) // 2 else []
    notes += ["short_stack"] if expand and not expand_here else []
    notes += [f"slices_dropped:{len(wanted) - len(offsets)}"] if len(offsets) < len(wanted) else []

    images, masks, rows = [], [], []
    for offset in offsets:
        z = centre + offset
        times = (np.array((scan.ed, scan.es)) + steps[:, None]) % cycle  # (steps, 2)
        with np.errstate(over="ignore"):  # what float32 cannot hold counts as infinite
            planes = np.stack([[scan.frames[t][z] for t in pair] for pair in times]).astype(np.float32)
        labels, reused = _labels(scan, times, z)
        finite = np.asarray(np.isfinite(planes).all(axis=(1, 2, 3)))
        grid = Grid.around(ed[z] | es[z], spacing=scan.spacing, pixels=pixels, fov_mm=fov_mm)
        planes = np.nan_to_num(planes, nan=0, posinf=0, neginf=0)
        if (planes.min(axis=(1, 2, 3)) == planes.max(axis=(1, 2, 3))).any():
            raise ValueError("constant image")
        grey, lo, hi = _grey(grid.image(planes))
        upright = tuple(slice(None, None, -1 if against else 1) for against in scan.flip)
        images.append(grey[..., *upright])
        masks.append(grid.labels(labels)[..., *upright])
        for k, step in enumerate(steps.tolist()):
            flags = notes + ["mask_reused"] * bool(reused[k]) + ["nonfinite"] * (not finite[k])
            rows.append({"slice": offset if basal_first else -offset, "frame": step, "central": offset == step == 0,
                         "flags": ";".join(flags), "lo": float(lo[k]), "hi": float(hi[k]),
                         "ed_frame": scan.ed, "es_frame": scan.es})  # fmt: skip
    return np.concatenate(images), np.concatenate(masks), rows


def collect(
    subjects: pd.DataFrame, scan: Callable[[str, bool], Scan], *, pixels: int, fov_mm: float, reach: int = 1
) -> Stacks:
    """Stacks of `subjects` in their order; a ValueError rejects that subject alone.

    Training and extra subjects are expanded, the others give their central stack (paper 2.1). `scan(subject, expand)`
    reads one subject, and need not read neighbouring frames unless `expand`.
    """
    images = [np.empty((0, 2, pixels, pixels), np.uint8)]
    masks = images[:]
    rows: list[dict[str, Any]] = []
    faults: list[tuple[str, str]] = []
    for subject, where in zip(subjects.subject, subjects.split, strict=True):
        try:
            expand = where in ("train", "extra")
            found = stacks(scan(subject, expand), pixels=pixels, fov_mm=fov_mm, expand=expand, reach=reach)
        except ValueError as error:
            faults.append((subject, str(error)))
            continue
        images.append(found[0])
        masks.append(found[1])
        rows += [{"subject": subject, **row} for row in found[2]]
    index, rejected = pd.DataFrame(rows, columns=list(INDEX)), pd.DataFrame(faults, columns=["subject", "reason"])
    return Stacks(np.concatenate(images), np.concatenate(masks), index, rejected)


@dataclass(frozen=True)
class Grid:
    """A P x P square of `fov_mm` on a plane, in that plane's pixel coordinates (a pixel's centre is its index)."""

    y: np.ndarray  # (P,) row of each output row's centre
    x: np.ndarray  # (P,)

    @classmethod
    def around(cls, mask: np.ndarray, *, spacing: tuple[float, float], pixels: int, fov_mm: float) -> Grid:
        """Centred on the bounding box of the non-zero part of `mask` (Y, X)."""
        inside = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
        steps = (np.arange(pixels) - (pixels - 1) / 2) * fov_mm / pixels  # mm from the centre
        return cls(*((at[0] + at[-1]) / 2 + steps / mm for at, mm in zip(inside, spacing, strict=True)))

    def image(self, planes: np.ndarray) -> np.ndarray:
        """(..., Y, X) -> (..., P, P) by linear interpolation, widened to the output pixel when shrinking; 0 outside."""
        rows, columns = _triangles(self.y, planes.shape[-2]), _triangles(self.x, planes.shape[-1])
        flat = [(columns @ (rows @ plane).T).T for plane in planes.reshape(-1, *planes.shape[-2:])]
        return np.reshape(flat, (*planes.shape[:-2], len(self.y), len(self.x)))

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """(..., Y, X) -> (..., P, P), the nearest label; background outside."""
        rows, columns = (np.floor(at + 0.5).astype(int) for at in (self.y, self.x))
        inside = [(at >= 0) & (at < n) for at, n in zip((rows, columns), planes.shape[-2:], strict=True)]
        nearest = planes[..., np.where(inside[0], rows, 0)[:, None], np.where(inside[1], columns, 0)]
        return np.where(inside[0][:, None] & inside[1], nearest, BACKGROUND).astype(np.uint8)


def check_labels(labels: np.ndarray, *, mapping: Mapping[int, int]) -> np.ndarray:
    """Source labels of any dtype to canonical uint8; `mapping` is source label -> canonical label.

    Floats count as integers within 1e-3. Raises ValueError naming non-integers and values that `mapping` lacks.
    """
    whole = labels
    if labels.dtype.kind == "f":
        whole = np.rint(labels)
        if (off := ~np.isclose(labels, whole, rtol=0, atol=1e-3) | np.isinf(labels)).any():
            raise ValueError(f"labels are not integers: {_list(np.unique(labels[off]))}")
    canonical, known = np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, bool)
    for source, label in mapping.items():
        here = whole == source
        canonical[here] = label
        known |= here
    if not known.all():
        raise ValueError(f"unknown labels {_list(np.unique(whole[~known]))}, expected {_list(sorted(mapping))}")
    return canonical


def check_topology(labels: np.ndarray) -> None:
    """Raise ValueError unless myocardium encloses the LV cavity of `labels` (Z, Y, X) and the RV far less."""
    if absent := [name for name, label in (("LV cavity", LV), ("myocardium", MYO)) if not (labels == label).any()]:
        raise ValueError(f"no {' and no '.join(absent)} labelled")
    lv, rv = _rim_on_myocardium(labels, LV), _rim_on_myocardium(labels, RV)
    found = f"myocardium borders {lv:.0%} of the LV and {rv:.0%} of the RV"
    if rv > lv:
        raise ValueError(f"LV and RV look swapped: {found}; check the label map")
    if lv < max(ENCLOSED, rv + MARGIN):
        raise ValueError(f"labels do not look like a heart: {found}; check the label map")


def _holds(labels: np.ndarray, *wanted: int) -> np.ndarray:
    """(Z,) bool: which slices hold every wanted label, or any label at all when none is named."""
    if not wanted:
        return np.asarray(labels.any(axis=(1, 2)))
    return np.logical_and.reduce([(labels == label).any(axis=(1, 2)) for label in wanted])


def _central(ed: np.ndarray, es: np.ndarray) -> int:
    usable = _holds(ed, LV, MYO) & _holds(es, LV, MYO)
    if not usable.any():
        raise ValueError("no slice has both LV cavity and myocardium at ED and at ES")
    middle = len(usable) // 2
    if usable[middle]:
        return middle
    area = np.sum([ed == LV, es == LV], axis=(0, 2, 3))
    distance = np.abs(np.arange(len(usable)) - np.average(np.arange(len(usable)), weights=area))
    return int(np.argmin(np.where(usable, distance, np.inf)))


def _basal_first(ed: np.ndarray, es: np.ndarray) -> bool:
    """Whether slice 0 is the basal end, where the heart's cross-section is larger; a tie counts as basal first."""
    area = np.sum([np.isin(phase, (LV, MYO)) for phase in (ed, es)], axis=(0, 2, 3))
    here = np.flatnonzero(area)
    third = max(1, len(here) // 3)
    return bool(area[here[:third]].sum() >= area[here[-third:]].sum())


def _labels(scan: Scan, times: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (steps, 2, Y, X) at slice z of the frames `times` (steps, 2), and which steps re-use an annotated mask."""
    planes, reused = [], []
    for pair in times.tolist():
        own = [t in scan.labels and bool(scan.labels[t][z].any()) for t in pair]
        source = [t if has else phase for t, has, phase in zip(pair, own, (scan.ed, scan.es), strict=True)]
        planes.append([scan.labels[t][z] for t in source])
        reused.append(not all(own))
    return np.array(planes), np.array(reused)


def _grey(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, 2, P, P) to uint8 between percentiles of each pair, and those percentiles."""
    lo, hi = np.asarray(np.percentile(images, PERCENTILES, axis=(1, 2, 3)))
    if not (hi - lo > 1e-5 * np.abs(hi)).all():  # nothing but the rounding of the resampling
        raise ValueError("constant image")
    scaled = (images - lo[:, None, None, None]) * (255 / (hi - lo))[:, None, None, None]
    return np.rint(scaled).clip(0, 255).astype(np.uint8), lo, hi


def _triangles(at: np.ndarray, n: int) -> sparse.csr_array:
    """(P, n) sparse weights of n pixels at positions `at`: a triangle as wide as the coarser of the two grids."""
    width = max(1.0, at[1] - at[0])
    first, last = min(0, int(at[0] - width) - 1), max(n, int(at[-1] + width) + 2)
    weights = np.clip(1 - np.abs(at[:, None] - np.arange(first, last)) / width, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    return sparse.csr_array(weights[:, -first : n - first].astype(np.float32))


def _rim_on_myocardium(labels: np.ndarray, label: int) -> float:
    """Share of the pixels just outside `label`, slice by slice, that are myocardium; 0 where there is no such label."""
    boxes = ndimage.find_objects((labels == label).astype(np.uint8))
    if not boxes or boxes[0] is None:
        return 0.0
    z, y, x = boxes[0]
    near = labels[z, max(0, y.start - 1) : y.stop + 1, max(0, x.start - 1) : x.stop + 1]
    cross = ndimage.generate_binary_structure(2, 1)[None]
    rim = ndimage.binary_dilation(near == label, cross) & (near != label)
    return float((near[rim] == MYO).mean()) if rim.any() else 0.0


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _list(values: Any, most: int = 5) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:most])
    return f"{shown}, ..." if len(values) > most else shown
