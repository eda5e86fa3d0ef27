"""Volumes to ED/ES stacks and masks: turned upright, cropped in millimetres, robust intensity,
neighbouring slices and frames.

One convention for real and synthetic pictures alike: arrays are (..., Y, X), rows are y, columns
are x, as NIfTI's (X, Y, Z, T) read backwards; shown with row 0 on top this is the radiological view
(`cmrdata.orientation`). Slice offsets count from base to apex, whichever end a file begins with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, PHASES, RV
from cmrdata.orientation import pose
from cmrdata.overlay import check_fit
from cmrdata.protocol import Stacks

PERCENTILES = (0.5, 99.5)  # black and white of a stack
# least standard deviation of a picture, of 255 grey levels: below it there is nothing to see
CONTRAST = 1.0
LOST = 0.1  # largest part of a heart whose voxels may be no numbers
# that both ventricles can measure across in a plane: at most 192 in 70 real hearts
WIDEST_MM = 240.0
SATURATED = 0.5  # largest part of a picture, or of the heart in it, that may have its highest value
INDEX_COLUMNS = (
    "subject",
    "slice",
    "frame",
    "central",
    "flags",
    "lo",
    "hi",
    "ed_frame",
    "es_frame",
    "mm",
)


@dataclass(frozen=True)
class Scan:
    """One subject's short-axis stack, as far as it was read. Raises ValueError when the parts do
    not fit together."""

    frames: Mapping[int, np.ndarray]  # frame -> (Z, Y, X) of any real dtype; at least ed and es
    ed: int  # frames count from 0 in the cine they were taken from
    es: int
    # frame -> (Z, Y, X) uint8 canonical labels; at least ed and es
    labels: Mapping[int, np.ndarray]
    spacing: tuple[float, float]  # (dy, dx) mm
    # frames of the heart cycle, whose last neighbours the first; None: no neighbours in time
    cycle: int | None
    # (4, 4) index (x, y, z) to RAS mm, where the image's header declares it
    affine: np.ndarray | None = None
    flags: tuple[str, ...] = ()  # what the reader had to decide, for the index

    def __post_init__(self) -> None:
        for phase, frame in (("ED", self.ed), ("ES", self.es)):
            if (
                frame < 0
                or frame not in self.frames
                or (self.cycle is not None and frame >= self.cycle)
            ):
                raise ValueError(
                    f"{phase} is frame {frame} (counted from 0), but there are "
                    f"{self.cycle or len(self.frames)} frames"
                )
            if frame not in self.labels:
                raise ValueError(f"{phase} has no labels")
        shape = self.frames[self.ed].shape
        if len(shape) != 3:
            raise ValueError(f"the image has {len(shape)} axes without time, expected 3")
        for what, volumes in (("a frame measures", self.frames), ("labels measure", self.labels)):
            for volume in volumes.values():
                if volume.shape != shape:
                    raise ValueError(
                        f"{what} {_times(volume.shape)}, the ED image {_times(shape)} (Z x Y x X)"
                    )


def cine_frames(ed: int, es: int, cycle: int, *, count: int) -> list[int]:
    """`count` frames spread evenly over the heart's cycle in the order of time, ED first; the one
    nearest to ES is ES.

    So a cine holds what the ED/ES stack shows. Frames of the cycle repeat where it has fewer than
    `count`.
    """
    # k * cycle / count, rounded
    steps = np.array([(2 * k * cycle + count) // (2 * count) for k in range(count)])
    systole = (es - ed) % cycle
    steps[1 + np.abs(steps[1:] - systole).argmin()] = systole
    return [int(frame) for frame in (ed + steps) % cycle]


def stacks(
    scan: Scan,
    *,
    pixels: int,
    fov_mm: float,
    expand: bool,
    reach: int = 1,
    cine: int | None = None,
    orient: str = "masks",
) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """(images, masks, index rows) of a scan.

    Args:
        scan: as a reader gives it.
        pixels: P, of a side.
        fov_mm: that P pixels cover.
        expand: the paper's nine-fold training set (2.1): slice offsets -1, 0, 1 (-reach..reach)
            times frame offsets -1, 0, 1, the latter for ED and ES together and modulo the cycle;
            offsets that leave the stack and neighbours without labels at ED or ES are left out. A
            stack of fewer than three slices, like `expand=False`, gives its central slice only.
        reach: slices to each side of the centre.
        cine: images are (n, cine, P, P), the frames `cine_frames`, and one frame offset is given,
            0: crop, intensities, ED and ES are the stack's.
        orient: what turns the stack upright, as a whole; see `cmrdata.orientation`. By the masks of
            ED, or where it has none of ES.

    Returns:
        images (n, 2, P, P) uint8, channels ED, ES; masks (n, 2, P, P) uint8; n rows of
        INDEX_COLUMNS without the subject. `lo` and `hi` are the intensities that became 0 and 255,
        percentiles of ED and ES jointly; `mm` is a pixel of the scan. Flags, joined by ";", are
        explained in `cmrdata.flags`.

    Raises:
        ValueError: where the central slice at ED and ES, which every split needs, is not usable:
            "constant image" or another fault of a picture with its phase, labels that fit it better
            as a mirror image, "no cine: ..." where the scan has no cycle, or that no slice has both
            LV and myocardium at ED and ES. Neighbours that are no pictures are left out, and said.

    The centre is slice Z // 2 as in the reference, counted from the base, unless that lacks LV or
    myocardium at ED or ES: then the slice nearest the LV's centroid that has both. Each slice is
    cropped to `fov_mm` squared around the bounding box of its annotated ED and ES masks together
    (the reference used ED alone) and resampled once, straight to P x P.
    """
    ed, es = scan.labels[scan.ed], scan.labels[scan.es]
    annotated = [ed, es] if ed.any() else [es]
    taken = _taken(scan, annotated, expand=expand, reach=reach)
    turn, turned = pose(
        annotated,
        spacing=scan.spacing,
        affine=scan.affine,
        centre=taken.centre,
        basal_first=taken.basal_first,
        orient=orient,
    )
    frames = _frames(scan, neighbours=taken.expanded, cine=cine)
    parts = {}
    # the centre first: what is wrong with it ends the work
    for offset in sorted(taken.offsets, key=abs):
        z = taken.centre + offset
        grid = Grid.around(
            ed[z] | es[z], spacing=scan.spacing, pixels=pixels, fov_mm=fov_mm, turn=turn
        )
        parts[offset] = _part(scan, z, frames, grid)
        if offset == 0:
            if fault := parts[0].faults[frames.steps.tolist().index(0)]:
                raise ValueError(fault)
            check_fit(scan.frames[scan.ed], scan.frames[scan.es], labels=(ed, es))

    flags = [*scan.flags]
    flags += ["ed_unlabelled"] * (len(annotated) == 1 and "ed_unlabelled" not in scan.flags)
    flags += turned
    flags += ["central_moved"] * taken.moved
    flags += ["short_stack"] * (expand and not taken.expanded)
    flags += [f"slices_dropped:{taken.dropped}"] * bool(taken.dropped)
    flags += ["frames_repeated"] * bool(cine and len(np.unique(frames.shown)) < cine)
    empty = sum(bool(fault) for part in parts.values() for fault in part.faults)
    flags += [f"neighbours_empty:{empty}"] * bool(empty)
    images, masks, rows = [], [], []
    for offset in taken.offsets:
        part = parts[offset]
        good = [k for k, fault in enumerate(part.faults) if not fault]
        images.append(part.images[good])
        masks.append(part.masks[good])
        place = offset if taken.basal_first else -offset
        rows += [_row(scan, part, k, flags, place=place, step=int(frames.steps[k])) for k in good]
    return np.concatenate(images), np.concatenate(masks), rows


class _Taken(NamedTuple):
    """Which slices of a stack are taken."""

    centre: int
    moved: bool  # the centre is another than the middle slice
    basal_first: bool  # slice 0 is the basal end
    expanded: bool  # more than the central slice is wanted
    offsets: list[int]  # from the centre, from base to apex
    dropped: int  # of the wanted


def _taken(scan: Scan, annotated: list[np.ndarray], *, expand: bool, reach: int) -> _Taken:
    """The slices of a stack that are wanted, there, labelled, and of a heart's size.

    `annotated`: labels (Z, Y, X) of ED and ES, or of ES alone where ED has none. Raises ValueError
    where the central slice is no heart's.
    """
    areas = np.array([_areas(labels) for labels in annotated])
    basal_first = _basal_first(areas)
    centre = _central(areas, basal_first=basal_first)
    labelled = np.asarray(areas.any(axis=2).all(axis=0))
    expanded = expand and len(labelled) >= 3
    wanted = range(-reach, reach + 1) if expanded else (0,)
    offsets = [k for k in wanted if 0 <= centre + k < len(labelled) and labelled[centre + k]]
    union = scan.labels[scan.ed] | scan.labels[scan.es]
    across = {k: _across(union[centre + k], spacing=scan.spacing) for k in offsets}
    if across[0] > WIDEST_MM:
        raise ValueError(
            f"labels: they reach over {across[0]:.0f} mm, as no heart does: some lie far from it, "
            "or pixels are smaller than the header says"
        )
    offsets = [k for k in offsets if across[k] <= WIDEST_MM]
    return _Taken(
        centre,
        moved=centre != _middle(len(labelled), basal_first=basal_first),
        basal_first=basal_first,
        expanded=expanded,
        offsets=offsets if basal_first else offsets[::-1],
        dropped=len(wanted) - len(offsets),
    )


def _row(
    scan: Scan, part: _Part, k: int, flags: list[str], *, place: int, step: int
) -> dict[str, Any]:
    """The index row of row k of a slice, which lies `place` slices and `step` frames from the
    centre."""
    own = ["mask_reused"] * bool(part.reused[k]) + ["nonfinite"] * (not part.finite[k])
    return {
        "slice": place,
        "frame": step,
        "central": place == step == 0,
        "flags": ";".join([*flags, *own]),
        "lo": float(part.lo[k]),
        "hi": float(part.hi[k]),
        "ed_frame": scan.ed,
        "es_frame": scan.es,
        "mm": round(math.sqrt(scan.spacing[0] * scan.spacing[1]), 3),
    }


def collect(
    subjects: pd.DataFrame,
    scan: Callable[[str, bool], Scan],
    *,
    pixels: int,
    fov_mm: float,
    reach: int = 1,
    cine: int | None = None,
    orient: str = "masks",
) -> Stacks:
    """Stacks of `subjects` in their order; training and extra subjects are expanded, the others
    give their central stack (paper 2.1).

    Args:
        subjects: rows with subject and split.
        scan: `scan(subject, more)` reads one subject, and need not read frames besides ED and ES
            unless `more`: then their neighbours, or `cine_frames`. A ValueError rejects the subject
            with its words, which name nobody. Neighbours that cannot be read must not raise one:
            who is usable may not depend on the split.
        pixels, fov_mm, reach, cine, orient: as `stacks` takes them.
    """
    images, masks = (
        [np.empty((0, channels, pixels, pixels), np.uint8)] for channels in (cine or 2, 2)
    )
    rows: list[dict[str, Any]] = []
    faults: list[tuple[str, str]] = []
    for subject, where in zip(subjects.subject, subjects.split, strict=True):
        try:
            expand = where in ("train", "extra")
            read = scan(subject, expand or cine is not None)
            of_subject = stacks(
                read,
                pixels=pixels,
                fov_mm=fov_mm,
                expand=expand,
                reach=reach,
                cine=cine,
                orient=orient,
            )
        except ValueError as error:
            faults.append((subject, str(error)))
            continue
        images.append(of_subject[0])
        masks.append(of_subject[1])
        rows += [{"subject": subject, **row} for row in of_subject[2]]
    index, rejected = (
        pd.DataFrame(rows, columns=list(INDEX_COLUMNS)),
        pd.DataFrame(faults, columns=["subject", "reason"]),
    )
    return Stacks(np.concatenate(images), np.concatenate(masks), index, rejected)


@dataclass(frozen=True)
class Grid:
    """A P x P square of `fov_mm` on a plane, turned, in that plane's pixel coordinates (a pixel's
    centre is its index)."""

    y: np.ndarray  # (P, P) row of each output pixel's centre
    x: np.ndarray  # (P, P)
    step: tuple[float, float]  # rows and columns that an output pixel measures

    @classmethod
    def around(
        cls,
        mask: np.ndarray,
        *,
        spacing: tuple[float, float],
        pixels: int,
        fov_mm: float,
        turn: np.ndarray | None = None,
    ) -> Grid:
        """Centred on the bounding box, in the turned square's directions, of the non-zero part of
        `mask` (Y, X).

        turn: (2, 2) mm (y, x) of the square to mm (y, x) of the plane; None leaves it.
        """
        turn = np.eye(2) if turn is None else turn
        rows = np.flatnonzero(mask.any(axis=1))
        # of the square, mm
        inside = (np.argwhere(mask[rows[0] : rows[-1] + 1]) + (rows[0], 0)) * spacing @ turn
        middle = turn @ ((inside.min(axis=0) + inside.max(axis=0)) / 2)
        steps = (np.arange(pixels) - (pixels - 1) / 2) * fov_mm / pixels  # mm from the centre
        y, x = (
            (middle[k] + turn[k, 0] * steps[:, None] + turn[k, 1] * steps[None, :]) / spacing[k]
            for k in (0, 1)
        )
        return cls(y, x, (fov_mm / pixels / spacing[0], fov_mm / pixels / spacing[1]))

    def image(self, planes: np.ndarray) -> np.ndarray:
        """(..., Y, X) -> (..., P, P) by linear interpolation, widened to the output pixel when
        shrinking; 0 outside."""
        height, width = planes.shape[-2:]
        rows, along_y = _triangles(self.y, height, self.step[0])
        columns, along_x = _triangles(self.x, width, self.step[1])
        flat = planes.reshape(-1, height * width)
        total = np.zeros((len(flat), self.y.size), np.float32)
        for row, by_y in zip(rows * width, along_y, strict=True):
            for column, by_x in zip(columns, along_x, strict=True):
                total += flat.take(row + column, axis=1, mode="clip") * (by_y * by_x)
        return total.reshape(*planes.shape[:-2], *self.y.shape)

    def labels(self, planes: np.ndarray) -> np.ndarray:
        """(..., Y, X) -> (..., P, P), the nearest label; background outside."""
        places, outside = [], np.zeros(self.y.shape, bool)
        for at, count in zip((self.y, self.x), planes.shape[-2:], strict=True):
            # ties: to the centre
            near = np.where(at < at.mean(), np.floor(at + 0.5), np.ceil(at - 0.5)).astype(int)
            outside |= (near < 0) | (near >= count)
            places.append(near.clip(0, count - 1))
        flat = planes.reshape(-1, planes.shape[-2] * planes.shape[-1])
        labels: np.ndarray = flat.take(
            places[0].ravel() * planes.shape[-1] + places[1].ravel(), axis=1
        )
        labels[:, outside.ravel()] = BACKGROUND
        return labels.reshape(*planes.shape[:-2], *self.y.shape)


class _Frames(NamedTuple):
    """Which frames the rows of a slice show."""

    steps: np.ndarray  # (steps,) offsets from ED and ES
    times: np.ndarray  # (steps, 2) frames that the masks are of
    shown: np.ndarray  # (steps, C) frames that the images are of
    pair: list[int]  # where ED and ES are among the C


class _Part(NamedTuple):
    """A slice's rows, one for each of the frame offsets."""

    images: np.ndarray  # (steps, C, P, P) uint8
    masks: np.ndarray  # (steps, 2, P, P) uint8
    lo: np.ndarray  # (steps,)
    hi: np.ndarray
    reused: np.ndarray  # (steps,) a neighbouring frame carries the annotated one's mask
    finite: np.ndarray  # (steps,) whether all voxels were numbers
    faults: list[str]  # (steps,) why a row is no picture; empty where it is one


def _part(scan: Scan, z: int, frames: _Frames, grid: Grid) -> _Part:
    """Slice z on the grid."""
    heart = (scan.labels[scan.ed][z] | scan.labels[scan.es][z]) > 0
    planes, lost = _planes(scan, frames.shown, z, heart)
    labels, reused = _labels(scan, frames.times, z)
    images, lo, hi = _grey(grid.image(planes), pair=frames.pair)
    flat = ~(hi - lo > 1e-5 * np.abs(hi))  # nothing but the rounding of the resampling
    faults = _faults(planes, images, heart, lost=lost, flat=flat, pair=frames.pair)
    return _Part(
        images, grid.labels(labels), lo, hi, reused, np.asarray((lost == 0).all(axis=1)), faults
    )


def _faults(
    planes: np.ndarray,
    images: np.ndarray,
    heart: np.ndarray,
    *,
    lost: np.ndarray,
    flat: np.ndarray,
    pair: list[int],
) -> list[str]:
    """Why rows of frames (n, C, Y, X), on the grid `images`, are no pictures of a `heart` (Y, X);
    empty where they are.

    lost: (n, C) part of the heart whose voxels are no numbers. flat: (n,) whether ED and ES
        together are one value.
    """
    least, most = planes.min(axis=(2, 3)), planes.max(axis=(2, 3))
    top = most[:, :, None, None]
    white = np.maximum(
        (planes == top).mean(axis=(2, 3)), (planes[:, :, heart] == top[..., 0]).mean(axis=2)
    )
    checks = {
        "no numbers in the heart of the image": lost > LOST,
        "constant image": (least == most) | flat[:, None],
        "no contrast beside the other phase in the image": images[:, :, ::2, ::2].std(axis=(2, 3))
        < CONTRAST,
        "saturated image": white > SATURATED,
    }
    names = {channel: phase for phase, channel in zip(PHASES, pair, strict=True)}
    faults = [""] * len(planes)
    for words, wrong in reversed(checks.items()):
        for k in np.flatnonzero(wrong.any(axis=1)).tolist():
            which = [
                names.get(channel, "another frame") for channel in np.flatnonzero(wrong[k]).tolist()
            ]
            faults[k] = f"{words} at {' and '.join(dict.fromkeys(which))}"
    return faults


def _frames(scan: Scan, *, neighbours: bool, cine: int | None) -> _Frames:
    if cine and not scan.cycle:
        raise ValueError(
            "no cine: the images are of ED and ES alone, or ES's place in the cine is unknown "
            "(input=stack needs none)"
        )
    steps = np.array((-1, 0, 1) if neighbours and scan.cycle and not cine else (0,))
    cycle = scan.cycle or 1 + max(scan.ed, scan.es)
    times = (np.array((scan.ed, scan.es)) + steps[:, None]) % cycle
    if not cine:
        return _Frames(steps, times, times, [0, 1])
    frames = cine_frames(scan.ed, scan.es, cycle, count=cine)
    return _Frames(steps, times, np.array([frames]), [0, frames.index(scan.es)])


def _areas(labels: np.ndarray) -> np.ndarray:
    """(Z, 3) pixels of LV, myocardium and RV in each slice."""
    return np.array(
        [[np.count_nonzero(plane == label) for label in (LV, MYO, RV)] for plane in labels]
    )


def _across(mask: np.ndarray, *, spacing: tuple[float, float]) -> float:
    """Diagonal (mm) of the box around the non-zero part of a mask (Y, X) that has one."""
    sides = [np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1)]
    return math.hypot(
        *((side[-1] - side[0] + 1) * mm for side, mm in zip(sides, spacing, strict=True))
    )


def _middle(count: int, *, basal_first: bool) -> int:
    """Slice Z // 2, counted from the base: one slice, whichever end a file begins with."""
    return count // 2 if basal_first else count - 1 - count // 2


def _central(areas: np.ndarray, *, basal_first: bool) -> int:
    """The slice to begin with, of the labels' areas (phases, Z, 3)."""
    usable = np.asarray(areas[:, :, :2].all(axis=(0, 2)))
    if not usable.any():
        raise ValueError("no slice has both LV cavity and myocardium at ED and at ES")
    middle = _middle(len(usable), basal_first=basal_first)
    if usable[middle]:
        return middle
    z = np.arange(len(usable))
    distance = np.abs(z - np.average(z, weights=areas[:, :, 0].sum(axis=0)))
    return int(np.argmin(np.where(usable, distance, np.inf)))


def _basal_first(areas: np.ndarray) -> bool:
    """Whether slice 0 is the basal end, where the heart's cross-section is larger; a tie counts as
    basal first."""
    # the RV tapers more than the LV, which in one of 70 real hearts does not
    area = areas.sum(axis=(0, 2))
    here = np.flatnonzero(area)
    third = max(1, len(here) // 3)
    return bool(area[here[:third]].sum() >= area[here[-third:]].sum())


def _planes(
    scan: Scan, times: np.ndarray, z: int, heart: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slice z of the frames `times` (steps, C): (steps, C, Y, X) float32, and the part of the heart
    that was no number.

    That part is (steps, C), tiny where only voxels outside the heart were none; these and those
    become 0.
    """
    with np.errstate(over="ignore"):  # what float32 cannot hold counts as infinite
        planes = np.array(
            [[scan.frames[t][z].astype(np.float32, copy=False) for t in step] for step in times]
        )
    lost = np.zeros(planes.shape[:2])
    for place in np.argwhere(~np.isfinite(planes).all(axis=(2, 3))).tolist():
        plane = planes[*place]
        none = ~np.isfinite(plane)
        lost[*place] = max(none[heart].mean(), 1e-9)
        plane[none] = 0
    return planes, lost


def _labels(scan: Scan, times: np.ndarray, z: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (steps, 2, Y, X) at slice z of the frames `times` (steps, 2), and which steps re-use
    an annotated mask."""
    planes, reused = [], []
    for pair in times.tolist():
        own = [t in scan.labels and bool(scan.labels[t][z].any()) for t in pair]
        source = [
            t if has else phase for t, has, phase in zip(pair, own, (scan.ed, scan.es), strict=True)
        ]
        planes.append([scan.labels[t][z] for t in source])
        reused.append(source != pair)
    return np.array(planes), np.array(reused)


def _grey(images: np.ndarray, *, pair: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n, C, P, P) float32 to uint8 between percentiles of each row's channels `pair`, and those
    percentiles."""
    limits = [_percentiles(row.ravel()) for row in images[:, pair]]
    lo, hi = np.array(limits, np.float32).T
    scaled = images - lo[:, None, None, None]
    scaled *= (255 / np.where(hi > lo, hi - lo, np.inf))[:, None, None, None]
    return np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8), lo, hi


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    """PERCENTILES of values (n,), by linear interpolation; the few at either end are sorted, not
    all."""
    (low, part), (high, rest) = (divmod(q / 100 * (len(values) - 1), 1) for q in PERCENTILES)
    least, most = int(low) + 2, len(values) - int(high)
    sample = np.sort(values[::16])  # tells about where the ends begin
    reach = max(least, most) // 4 + 8
    if reach < len(sample):
        bottom, top = (
            np.sort(values[values <= sample[reach]]),
            np.sort(values[values >= sample[-1 - reach]]),
        )
    if reach >= len(sample) or len(bottom) < least or len(top) < most:
        bottom = top = np.sort(values)
    after = bottom[min(int(low) + 1, len(bottom) - 1)]
    above = top[len(top) - most + 1] if most > 1 else top[-1]
    return bottom[int(low)] + part * (after - bottom[int(low)]), top[-most] + rest * (
        above - top[-most]
    )


def _triangles(at: np.ndarray, n: int, step: float) -> tuple[np.ndarray, np.ndarray]:
    """(taps, P * P) pixels of n at positions `at` and their weights: a triangle as wide as the
    coarser of the two grids.

    The weights of an output pixel sum to 1, less those of pixels outside, which are 0.
    """
    width = max(1.0, step)
    # around floor(at)
    taps = np.arange(1 - math.ceil(width), 1 + math.ceil(width), dtype=np.int32)[:, None]
    first = np.floor(at.ravel())
    pixel = first.astype(np.int32) + taps
    weights = (at.ravel() - first).astype(np.float32) - taps.astype(np.float32)
    np.abs(weights, out=weights)
    weights *= np.float32(-1 / width)
    weights += 1
    np.maximum(weights, 0, out=weights)
    if width > 1:
        weights /= weights.sum(axis=0)
    weights[(pixel < 0) | (pixel >= n)] = 0
    return pixel.clip(0, n - 1), weights


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
