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
from scipy import sparse

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.labels import check_labels, check_topology, label_frames  # noqa: F401  readers import them from here
from cmrdata.protocol import Stacks

PERCENTILES = (0.5, 99.5)  # black and white of a stack
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


def cine_frames(ed: int, es: int, cycle: int, *, count: int) -> list[int]:
    """`count` frames spread evenly over the heart's cycle in the order of time, ED first; the one nearest to ES is ES.

    So a cine holds what the ED/ES stack shows. Frames of the cycle repeat where it has fewer than `count`.
    """
    steps = np.array([(2 * k * cycle + count) // (2 * count) for k in range(count)])  # k * cycle / count, rounded
    systole = (es - ed) % cycle
    steps[1 + np.abs(steps[1:] - systole).argmin()] = systole
    return ((ed + steps) % cycle).tolist()


def stacks(
    scan: Scan, *, pixels: int, fov_mm: float, expand: bool, reach: int = 1, cine: int | None = None
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """(images (n, 2, P, P) uint8, masks (n, 2, P, P) uint8, n index rows) of a scan; channels ED, ES.

    `expand` is the paper's nine-fold training set (2.1): slice offsets -1, 0, 1 (-reach..reach) times frame offsets
    -1, 0, 1, the latter for ED and ES together and modulo the cycle; offsets that leave the stack and neighbours
    without labels at ED or ES are left out. A stack of fewer than three slices, like `expand=False`, gives its central slice only.

    The centre is slice Z // 2 as in the reference, unless that lacks LV or myocardium at ED or ES: then the slice
    nearest the LV's centroid that has both. Each slice is cropped to `fov_mm` squared around the bounding box of
    its annotated ED and ES masks together (the reference used ED alone) and resampled once, straight to P x P.
    `lo` and `hi` are the intensities that became 0 and 255, percentiles of ED and ES jointly.

    With `cine` images are (n, cine, P, P), the frames `cine_frames`, and one frame offset is given, 0: crop, intensities,
    ED and ES are the stack's.

    Flags, joined by ";": central_moved, short_stack, slices_dropped:<count>, mask_reused (a neighbouring frame
    carries the annotated frame's mask, as all do in the reference), nonfinite (NaN or Inf voxels set to 0),
    rv_right (the RV's centre lies right of the LV's: a mirrored image?),
    ed_unlabelled (ED has no label at all: ES alone decides, and these rows have half a mask),
    frames_repeated (the cycle has fewer frames than the cine). Raises ValueError "constant image", "no cine: ..." where
    the scan has no cycle, or when no slice has both LV and myocardium at ED and ES.
    """
    ed, es = scan.labels[scan.ed], scan.labels[scan.es]
    areas = np.array([_areas(ed), _areas(es)] if ed.any() else [_areas(es)])
    centre = _central(areas)
    labelled = np.asarray(areas.any(axis=2).all(axis=0))
    expand_here = expand and len(labelled) >= 3
    wanted = range(-reach, reach + 1) if expand_here else (0,)
    steps, times, shown, pair = _frames(scan, neighbours=expand_here, cine=cine)
    basal_first = _basal_first(areas)
    offsets = [k for k in wanted if 0 <= centre + k < len(labelled) and labelled[centre + k]]
    offsets = offsets if basal_first else offsets[::-1]
    against = tuple(axis for axis, runs in zip((-2, -1), scan.flip, strict=True) if runs)
    notes = [*scan.flags] + ["ed_unlabelled"] * (len(areas) == 1 and "ed_unlabelled" not in scan.flags)
    notes += ["rv_right"] * _rv_right(np.stack([ed[centre], es[centre]]), flipped=scan.flip[1])
    notes += ["central_moved"] if centre != len(labelled) // 2 else []
    notes += ["short_stack"] if expand and not expand_here else []
    notes += [f"slices_dropped:{len(wanted) - len(offsets)}"] if len(offsets) < len(wanted) else []
    notes += ["frames_repeated"] if cine and len(np.unique(shown)) < cine else []

    images, masks, rows = [], [], []
    for offset in offsets:
        z = centre + offset
        planes, finite = _planes(scan, shown, z)
        labels, reused = _labels(scan, times, z)
        grid = Grid.around(ed[z] | es[z], spacing=scan.spacing, pixels=pixels, fov_mm=fov_mm)
        grey, lo, hi = _grey(grid.image(planes), pair=pair)
        images.append(np.flip(grey, against))
        masks.append(np.flip(grid.labels(labels), against))
        for k, step in enumerate(steps.tolist()):
            flags = notes + ["mask_reused"] * bool(reused[k]) + ["nonfinite"] * (not finite[k])
            rows.append({"slice": offset if basal_first else -offset, "frame": step, "central": offset == step == 0,
                         "flags": ";".join(flags), "lo": float(lo[k]), "hi": float(hi[k]),
                         "ed_frame": scan.ed, "es_frame": scan.es})  # fmt: skip
    return np.concatenate(images), np.concatenate(masks), rows


def collect(
    subjects: pd.DataFrame,
    scan: Callable[[str, bool], Scan],
    *,
    pixels: int,
    fov_mm: float,
    reach: int = 1,
    cine: int | None = None,
) -> Stacks:
    """Stacks of `subjects` in their order, or with `cine` so many frames of each slice; a ValueError rejects one subject.

    Training and extra subjects are expanded, the others give their central stack (paper 2.1). `scan(subject, more)`
    reads one subject, and need not read frames besides ED and ES unless `more`: then their neighbours, or `cine_frames`.
    """
    images, masks = ([np.empty((0, channels, pixels, pixels), np.uint8)] for channels in (cine or 2, 2))
    rows: list[dict[str, Any]] = []
    faults: list[tuple[str, str]] = []
    for subject, where in zip(subjects.subject, subjects.split, strict=True):
        try:
            expand = where in ("train", "extra")
            seen = scan(subject, expand or cine is not None)
            found = stacks(seen, pixels=pixels, fov_mm=fov_mm, expand=expand, reach=reach, cine=cine)
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
        for axis, at in ((-2, self.y), (-1, self.x)):
            nearest = np.where(at < at.mean(), np.floor(at + 0.5), np.ceil(at - 0.5)).astype(int)  # ties: to the centre
            outside = (nearest < 0) | (nearest >= planes.shape[axis])
            planes = np.take(planes, np.where(outside, 0, nearest), axis)
            np.moveaxis(planes, axis, 0)[outside] = BACKGROUND
        return planes


def _frames(scan: Scan, *, neighbours: bool, cine: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[int]]:
    """Frame offsets (steps,), annotated frames (steps, 2), frames shown (steps, C), and where ED and ES are among the C."""
    if cine and not scan.cycle:
        raise ValueError(
            "no cine: the images are of ED and ES alone, or ES's place in the cine is unknown (input=stack needs none)"
        )
    steps = np.array((-1, 0, 1) if neighbours and scan.cycle and not cine else (0,))
    cycle = scan.cycle or 1 + max(scan.ed, scan.es)
    times = (np.array((scan.ed, scan.es)) + steps[:, None]) % cycle
    if not cine:
        return steps, times, times, [0, 1]
    shown = cine_frames(scan.ed, scan.es, cycle, count=cine)
    return steps, times, np.array([shown]), [0, shown.index(scan.es)]


def _areas(labels: np.ndarray) -> np.ndarray:
    """(Z, 3) pixels of LV, myocardium and RV in each slice."""
    return np.array([[np.count_nonzero(plane == label) for label in (LV, MYO, RV)] for plane in labels])


def _central(areas: np.ndarray) -> int:
    """The slice to begin with, of the labels' areas (phases, Z, 3)."""
    usable = np.asarray(areas[:, :, :2].all(axis=(0, 2)))
    if not usable.any():
        raise ValueError("no slice has both LV cavity and myocardium at ED and at ES")
    middle = len(usable) // 2
    if usable[middle]:
        return middle
    z = np.arange(len(usable))
    distance = np.abs(z - np.average(z, weights=areas[:, :, 0].sum(axis=0)))
    return int(np.argmin(np.where(usable, distance, np.inf)))


def _basal_first(areas: np.ndarray) -> bool:
    """Whether slice 0 is the basal end, where the heart's cross-section is larger; a tie counts as basal first."""
    area = areas.sum(axis=(0, 2))  # the RV tapers more than the LV, which in one of 70 real hearts does not
    here = np.flatnonzero(area)
    third = max(1, len(here) // 3)
    return bool(area[here[:third]].sum() >= area[here[-third:]].sum())


def _rv_right(labels: np.ndarray, *, flipped: bool) -> bool:
    """Whether the RV's mean column lies beyond the LV's in (phases, Y, X), where columns may run the other way."""
    columns = [np.nonzero(labels == label)[-1] for label in (LV, RV)]
    if not all(map(len, columns)):
        return False
    lv, rv = (at.mean() for at in columns)
    return bool(rv < lv) if flipped else bool(rv > lv)


def _planes(scan: Scan, times: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Slice z of the frames `times` (steps, C): (steps, C, Y, X) float32, and which steps were finite throughout."""
    with np.errstate(over="ignore"):  # what float32 cannot hold counts as infinite
        planes = np.array([[scan.frames[t][z].astype(np.float32, copy=False) for t in step] for step in times])
    finite = np.isfinite(planes).all(axis=(1, 2, 3))
    if not finite.all():
        np.nan_to_num(planes, copy=False, nan=0, posinf=0, neginf=0)
    if (planes.min(axis=(1, 2, 3)) == planes.max(axis=(1, 2, 3))).any():
        raise ValueError("constant image")
    return planes, finite


def _labels(scan: Scan, times: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (steps, 2, Y, X) at slice z of the frames `times` (steps, 2), and which steps re-use an annotated mask."""
    planes, reused = [], []
    for pair in times.tolist():
        own = [t in scan.labels and bool(scan.labels[t][z].any()) for t in pair]
        source = [t if has else phase for t, has, phase in zip(pair, own, (scan.ed, scan.es), strict=True)]
        planes.append([scan.labels[t][z] for t in source])
        reused.append(source != pair)
    return np.array(planes), np.array(reused)


def _grey(images: np.ndarray, *, pair: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, C, P, P) float32 to uint8 between percentiles of each row's channels `pair`, and those percentiles."""
    ranked = np.sort(images[:, pair].reshape(len(images), -1), axis=1)  # several times as fast as a partition
    lo, hi = (_percentile(ranked, q).astype(np.float32) for q in PERCENTILES)
    if not (hi - lo > 1e-5 * np.abs(hi)).all():  # nothing but the rounding of the resampling
        raise ValueError("constant image")
    scaled = images - lo[:, None, None, None]
    scaled *= (255 / (hi - lo))[:, None, None, None]
    return np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8), lo, hi


def _percentile(ranked: np.ndarray, q: float) -> np.ndarray:
    """Of each row of `ranked` (n, values), by linear interpolation."""
    at, between = divmod(q / 100 * (ranked.shape[1] - 1), 1)
    low, high = ranked[:, int(at)], ranked[:, min(int(at) + 1, ranked.shape[1] - 1)]
    return low + between * (high - low)


def _triangles(at: np.ndarray, n: int) -> sparse.csr_array:
    """(P, n) sparse weights of n pixels at positions `at`: a triangle as wide as the coarser of the two grids."""
    width = max(1.0, at[1] - at[0])
    reach = np.arange(1 - int(np.ceil(width)), 1 + int(np.ceil(width)))  # of the nearest pixels, around floor(at)
    pixel = np.floor(at).astype(int)[:, None] + reach
    weights = np.clip(1 - np.abs(at[:, None] - pixel) / width, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    weights[(pixel < 0) | (pixel >= n)] = 0
    ends = np.arange(len(at) + 1) * len(reach)
    return sparse.csr_array(
        (weights.astype(np.float32).ravel(), pixel.clip(0, n - 1).ravel(), ends), shape=(len(at), n)
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
