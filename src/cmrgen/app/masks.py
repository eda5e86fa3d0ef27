"""Masks that a page's sliders deform and its brush paints: whole hearts in, whole hearts out.

A slice has no volume. What its slider calls ejection fraction is the share of the LV's
end-diastolic area that is gone at end-systole (FAC), the ejection fraction of this slice.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cmrdata.batch import LABELS, LV, MYO, PHASES, RV
from cmrdata.ejection import ejection_fraction
from cmrdata.labels import check_topology

Mask = npt.NDArray[np.uint8]  # (2, P, P) labels 0..3 of ED, ES
Region = npt.NDArray[np.bool_]  # (P, P)

EF_RANGE = (0.05, 0.85)
WALL_RANGE = (0.5, 2.0)  # times the mask's own thickness
SIZE_RANGE = (0.7, 1.4)  # times the mask's own lengths
SMOOTH = 0.7  # px by which the distance from a border is blurred: equal distances get an order
CROSS = ndimage.generate_binary_structure(2, 1)
# a usual heart in mm: radius of the LV at ED and thickness of its wall; at ED and ES the radius of
# the RV, and how far its centre lies left of the LV's and above it
LV_MM, WALL_MM = 24.0, 9.0
RV_MM, LEFT_MM, ABOVE_MM = (28.0, 24.0), (27.0, 23.0), (9.0, 8.0)
USUAL_EF = 0.55


class Measures(NamedTuple):
    """What a cardiologist reads from a mask; lengths in mm and areas in cm2, None without a
    scale."""

    ef: float | None  # 0..1, of the slice; None where there is none
    cavity: list[float] | None  # cm2 of the LV at ED and ES
    wall: list[float] | None  # mm, mean thickness at ED and ES
    rv: list[float] | None  # cm2 at ED and ES


def deformed(mask: Mask, *, ef: float | None = None, wall: float = 1.0, size: float = 1.0) -> Mask:
    """The mask of a heart that ejects more or less, has another wall, or is larger.

    Size comes first; the ejection fraction of the slice stays as it is unless another is given. A
    thicker wall grows outwards at ED. At ES the cavity has the area that `ef` leaves, and the wall
    as much muscle as at ED, in the mask's own proportion: muscle keeps its volume. The RV's free
    wall stays; its septal border follows the septum.

    Args:
        mask: (2, P, P) labels of ED and ES.
        ef: 0..1, of the slice; None keeps the mask's own.
        wall: factor on the mean thickness at ED.
        size: factor on all lengths, about the heart's centre.

    Raises ValueError for values outside EF_RANGE, WALL_RANGE, SIZE_RANGE, for a mask without a
    heart to deform, and where the heart would leave the picture.
    """
    if ef is None and wall == 1 and size == 1:
        return mask.copy()
    for name, value, (low, high) in (
        ("ejection fraction", ef, EF_RANGE),
        ("wall thickness", wall, WALL_RANGE),
        ("size", size, SIZE_RANGE),
    ):
        if value is not None and not low <= value <= high:
            raise ValueError(
                f"{name} is {100 * value:.0f} %; give {100 * low:.0f} to {100 * high:.0f} %"
            )
    check_heart(mask)
    own = ejection_fraction(mask[0], mask[1])
    grown = _scaled(mask, size) if size != 1 else mask
    diastole, muscle = _areas(grown[0])
    _, systolic = _areas(grown[1])
    thickness = wall * (_radius(diastole + muscle) - _radius(diastole))
    thicker = math.pi * (_radius(diastole) + thickness) ** 2 - diastole if wall != 1 else muscle
    systole = max(1, round((1 - (own if ef is None else ef)) * diastole))
    result = np.stack(
        [
            _with_areas(grown[0], diastole, round(thicker)),
            _with_areas(grown[1], systole, round(systolic * thicker / muscle)),
        ]
    )
    if (touches := _at_the_edge(result)) and not _at_the_edge(mask):
        raise ValueError(
            f"the heart would leave the picture at {touches}; give a smaller size or a thinner wall"
        )
    return result


def check_heart(mask: Mask) -> None:
    """Raise ValueError, naming the phase, unless both phases show a heart whose LV doesn't grow."""
    for labels, phase in zip(mask, PHASES, strict=True):
        try:
            check_topology(labels[None])
        except ValueError as error:
            reason = str(error).removesuffix("; check the label map")
            raise ValueError(
                f"{phase}: {reason}. Paint an LV that is closed in by a ring of MYO, or choose "
                "another mask"
            ) from None
    full, rest = ((labels == LV).sum() for labels in mask)
    if rest > full:
        raise ValueError(
            f"the LV is larger at ES ({rest} pixels) than at ED ({full}); paint a smaller one at ES"
        )


def measures(mask: Mask, *, mm: float | None) -> Measures:
    """Ejection fraction, areas and wall of a mask, in whatever state it is.

    Args:
        mask: (2, P, P) labels.
        mm: side of a pixel; None where it isn't known.
    """
    try:
        ef: float | None = float(ejection_fraction(mask[0], mask[1]))
    except ValueError:
        ef = None
    if mm is None:
        return Measures(ef, None, None, None)
    areas = [_areas(labels) for labels in mask]
    return Measures(
        ef,
        cavity=[cavity * mm**2 / 100 for cavity, _ in areas],
        wall=[mm * (_radius(cavity + muscle) - _radius(cavity)) for cavity, muscle in areas],
        rv=[float((labels == RV).sum()) * mm**2 / 100 for labels in mask],
    )


def usual_heart(pixels: int, *, mm: float | None) -> Mask:
    """(2, P, P) labels of a plain heart to begin with: circles for the LV and its wall, a crescent
    for the RV.

    Args:
        pixels: side of the picture.
        mm: side of a pixel; None where it isn't known: the picture is then taken to be 165 mm wide.
    """
    side = mm or 165 / pixels
    y, x = (np.mgrid[:pixels, :pixels] - (pixels - 1) / 2) * side
    x = x - LEFT_MM[0] / 3  # the whole heart in the middle
    muscle = (LV_MM + WALL_MM) ** 2 - LV_MM**2
    mask = np.zeros((2, pixels, pixels), np.uint8)
    for phase, cavity in enumerate((LV_MM, LV_MM * math.sqrt(1 - USUAL_EF))):
        labels, distance = mask[phase], np.hypot(y, x)
        labels[np.hypot(y + ABOVE_MM[phase], x + LEFT_MM[phase]) <= RV_MM[phase]] = RV
        labels[distance <= math.sqrt(cavity**2 + muscle)] = MYO
        labels[distance <= cavity] = LV
    return mask


def encoded(mask: Mask) -> str:
    """A mask as the text that a browser's canvas takes and gives: its labels as base64."""
    return base64.b64encode(np.ascontiguousarray(mask).tobytes()).decode()


def decoded(text: Any, *, pixels: int) -> Mask:
    """The mask that a browser has sent. Raises ValueError where it is none of this size."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        data = b""
    if len(data) != 2 * pixels**2:
        raise ValueError(
            f"the painted mask is not 2 x {pixels} x {pixels} labels; load the page again"
        )
    mask = np.frombuffer(data, np.uint8).reshape(2, pixels, pixels)
    if mask.max() > max(LABELS.values()):
        raise ValueError(f"the painted mask has a label {mask.max()}; it takes 0 to 3")
    return mask.copy()


def _areas(labels: Mask) -> tuple[int, int]:
    """Pixels of the LV and of the myocardium of (P, P) labels."""
    return int((labels == LV).sum()), int((labels == MYO).sum())


def _radius(area: float) -> float:
    return math.sqrt(area / math.pi)


def _scaled(mask: Mask, factor: float) -> Mask:
    """All lengths times `factor` about the heart's centre; borders are those of interpolated
    labels."""
    where = np.argwhere(mask.any(0))
    centre = (where.min(0) + where.max(0)) / 2
    shares = [
        ndimage.affine_transform(
            (mask == label).astype(np.float32),
            (1, 1 / factor, 1 / factor),
            offset=(0, *(centre * (1 - 1 / factor))),
            order=1,
            mode="nearest",
        )
        for label in range(1 + max(LABELS.values()))
    ]
    scaled: Mask = np.argmax(shares, 0).astype(np.uint8)
    return scaled


def _with_areas(labels: Mask, cavity: int, muscle: int) -> Mask:
    """(P, P) labels whose LV and myocardium have so many pixels, borders moved evenly."""
    if (cavity, muscle) == _areas(labels):
        return labels
    inside, heart = labels == LV, (labels == LV) | (labels == MYO)
    inner = _of_area(inside, cavity)
    wall = ndimage.binary_dilation(inner, CROSS)
    outer = _of_area(heart, max(cavity + muscle, int(wall.sum())), first=wall)
    # what a shrinking heart leaves belongs to whatever is nearest: the RV at the septum
    nearest = ndimage.distance_transform_edt(heart, return_distances=False, return_indices=True)
    result: Mask = labels[tuple(nearest)]
    result[outer], result[inner] = MYO, LV
    return result


def _of_area(region: Region, count: int, *, first: Region | None = None) -> Region:
    """The region whose border lies evenly further out or in, so that it has `count` pixels; those
    of `first` are in it."""
    outside, inside = (ndimage.distance_transform_edt(part) for part in (~region, region))
    level = ndimage.gaussian_filter(outside - inside, SMOOTH)
    if first is not None:
        level[first] = -np.inf
    elif count == region.sum():
        return region
    chosen = np.zeros(region.size, bool)
    chosen[np.argsort(level, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(region.shape)


def _at_the_edge(mask: Mask) -> str:
    """The phases in which a heart touches the picture's edge."""
    return " and ".join(
        phase
        for labels, phase in zip(mask, PHASES, strict=True)
        if labels[[0, -1]].any() or labels[:, [0, -1]].any()
    )
