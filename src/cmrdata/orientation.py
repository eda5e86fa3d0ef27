"""Which way a heart lies in its file, told by its own masks and by the header, and the turn that
puts it upright.

A scanner's in-plane rotation, a rewritten header or a lost one would otherwise say where a picture
comes from. In the canonical view the RV lies left of the LV and a little higher (the LV's centre is
seen from the RV's at `CANON`), the chest wall is above left, the liver below: a short axis seen
from the apex, as radiologists see it.

World axes are RAS mm: to the patient's right, front, head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmrdata.batch import LV, RV

ORIENTS = ("masks", "header", "none")
# rad from columns to rows, of the line from the RV to the LV: 20 degrees, as in the phantom
CANON = 0.35
# slices from the centre that count most for the heart's direction: the RV winds around the LV
NEAR = 1.5
LEAST_PIXELS = 10  # pixels of LV and of RV in a slice that counts
# least distance of the ventricles' centres that has a direction; 30..60 mm in 78 real hearts
APART_MM = 5.0
# least share of the slices' distances that must remain in their mean, or they point anywhere
AGREE = 0.5

# Means over 70 ACDC hearts, upright (docs/results/orientation.md). Each changes its sign in a
# mirror image. degrees that the direction turns from the RV-bearing slices' basal end to their
# apical one
WINDING = -28.7
# third moment of the RV across the direction: it is thinner and longer towards the front
SKEW = -0.159
LEAN = -0.239  # correlation of the RV along and across the direction
# least evidence, as a share of the usual one, that decides: 78 real hearts have 0.24..1.5, sd 0.34
CERTAIN = 0.4

# in the world, unit; within 28 degrees of it in eight M&Ms patients
RV_TO_LV = np.array([-0.74, -0.65, 0.15])
BASE_TO_APEX = np.array([-0.65, 0.57, -0.50])  # within 30 degrees
# where the canonical view's columns and rows then run
CANON_COLUMNS = np.array([-0.78, -0.45, 0.43])
CANON_ROWS = np.array([0.0, -0.66, -0.75])
LIKELY = 0.7  # least cosine between a direction of this heart and the usual one: 45 degrees
# the same of the slices' direction, which files without a true one give as straight up or down
POSSIBLE = 0.4
OBLIQUE = 0.02  # least part of an axis off the world's own: a true short axis never lies along them
TILT = 0.2  # largest cosine between the in-plane axes of a usable header


class Pose(NamedTuple):
    """How a stack is turned."""

    # (2, 2): mm (y, x) of the upright picture to mm (y, x) of the file's plane; orthogonal
    turn: np.ndarray
    flags: tuple[str, ...]


class _Level(NamedTuple):
    """What a slice with both ventricles tells."""

    z: int
    weight: float  # mm2 of the smaller ventricle
    apart: np.ndarray  # (y, x) mm from the RV's centre to the LV's
    rv: np.ndarray  # (n, 2) mm of the RV's pixels from the LV's centre


def pose(
    labels: Sequence[np.ndarray],
    *,
    spacing: tuple[float, float],
    affine: np.ndarray | None,
    centre: int,
    basal_first: bool,
    orient: str,
) -> Pose:
    """How a heart must be turned in the plane, once for its whole stack.

    Args:
        labels: canonical labels (Z, Y, X) of the annotated phases, the one that decides the
            direction first.
        spacing: (dy, dx) mm.
        affine: (4, 4) index (x, y, z) of the image to world mm, where its header declares one.
        centre: the central slice.
        basal_first: whether slice 0 is the basal end.
        orient: "masks" turns the heart; "header" swaps and reverses axes as the header says; "none"
            leaves it.

    Returns:
        The turn and its flags: `rv_missing` (no slice tells the direction: as "header"), `mirrored`
        (a mirror image that the header did not tell of, mended), `handedness_assumed` (neither
        masks nor header tell whether this is a mirror image: taken as it is), `header_contradicted`
        (the header and the heart cannot both be right: the heart is followed), `rv_right` (not
        turned by its masks, and the RV lies right of the LV).
    """
    check_orient(orient)
    levels = [_levels(phase, spacing) for phase in labels]
    direction = next(
        (towards_lv for phase in levels if (towards_lv := _direction(phase, centre)) is not None),
        None,
    )
    if orient != "masks" or direction is None:
        turn = np.eye(2) if orient == "none" else header_turn(affine)
        if direction is None:
            return Pose(turn, ("rv_missing",) if orient == "masks" else ())
        return Pose(turn, ("rv_right",) if (direction @ turn)[1] < 0 else ())
    winds = handedness(levels, basal_first=basal_first)
    by_masks = None if abs(winds) < CERTAIN else winds < 0
    by_header, doubtful = _told(affine, direction, basal_first=basal_first)
    mirrored = bool(by_header if by_masks is None else by_masks)
    flags = ["handedness_assumed"] * (by_masks is None and by_header is None) + ["mirrored"] * (
        mirrored and not by_header
    )
    flags += ["header_contradicted"] * (
        doubtful or (None not in (by_masks, by_header) and by_masks != by_header)
    )
    return Pose(_turn(direction, mirrored=mirrored), tuple(flags))


def check_orient(orient: str) -> str:
    """The setting, if it is one of ORIENTS. Raises ValueError."""
    if orient not in ORIENTS:
        raise ValueError(f"cohort.orient is {orient!r}; it takes {', '.join(ORIENTS)}")
    return orient


def handedness(levels: Sequence[Sequence[_Level]], *, basal_first: bool) -> float:
    """Evidence that a heart is no mirror image: 1 in the mean of real hearts, -1 in the mean of
    their mirror images.

    Three signs of the RV's shape that a mirror reverses and a turn does not, each as a share of its
    usual size and at most twice that: how it winds around the LV from base to apex, its skewness
    and its lean. 0 where no phase has three slices with both ventricles.
    """
    signs = [_signs(phase, basal_first=basal_first) for phase in levels if len(phase) > 2]
    return float(np.clip(np.array(signs) / (WINDING, SKEW, LEAN), -2, 2).mean()) if signs else 0.0


def header_turn(affine: np.ndarray | None) -> np.ndarray:
    """The turn, of quarters and mirrors alone, that comes nearest to the canonical view by the
    header's word.

    (2, 2) as in `Pose`; none where the header is unusable or is what programs write that know no
    orientation.
    """
    axes = _axes(affine)
    if axes is None or _placeholder(axes):
        return np.eye(2)
    x, y, _ = axes
    plane = np.array([y, x])  # as mm are ordered
    turns = [np.array(turn, float) for turn in _quarters()]
    return max(
        turns,
        key=lambda turn: round(float((turn.T @ plane * (CANON_ROWS, CANON_COLUMNS)).sum()), 6),
    )


def _quarters() -> list[list[list[int]]]:
    """The eight turns of a square onto itself, leaving it first."""
    return [turn for a in (1, -1) for b in (1, -1) for turn in ([[a, 0], [0, b]], [[0, a], [b, 0]])]


def _turn(direction: np.ndarray, *, mirrored: bool) -> np.ndarray:
    """The turn, or with `mirrored` the reflection, that takes the canonical direction from RV to LV
    to this one."""
    angle = math.atan2(*direction) + (CANON if mirrored else -CANON)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return turn * (-1, 1) if mirrored else turn


def _levels(labels: np.ndarray, spacing: tuple[float, float]) -> list[_Level]:
    """The slices of (Z, Y, X) with both ventricles."""
    levels = []
    for z, plane in enumerate(labels):
        rows = np.flatnonzero(plane.any(axis=1))
        if not len(rows):
            continue
        labelled = plane[rows[0] : rows[-1] + 1]
        rv, lv = (np.argwhere(labelled == label) * np.array(spacing, float) for label in (RV, LV))
        if min(len(rv), len(lv)) >= LEAST_PIXELS:
            middle = lv.mean(axis=0)
            area = float(min(len(rv), len(lv)) * spacing[0] * spacing[1])
            levels.append(_Level(z, area, middle - rv.mean(axis=0), rv - middle))
    return levels


def _direction(levels: Sequence[_Level], centre: int) -> np.ndarray | None:
    """(y, x) of length 1 from the RV to the LV near the central slice; None where the slices do not
    agree on one."""
    if not levels:
        return None
    near = np.array(
        [level.weight * math.exp(-0.5 * ((level.z - centre) / NEAR) ** 2) for level in levels]
    )
    if not near.sum():  # all too far from the centre for a number
        near = np.array([level.weight for level in levels])
    apart = np.array([level.apart for level in levels])
    mean: np.ndarray = near @ apart / near.sum()
    length = float(np.linalg.norm(mean))
    if length < APART_MM or length < AGREE * (near @ np.linalg.norm(apart, axis=1)) / near.sum():
        return None
    return mean / length


def _signs(levels: Sequence[_Level], *, basal_first: bool) -> tuple[float, float, float]:
    """(winding in degrees, skewness, lean) of three or more slices; see `handedness`."""
    weight = np.array([level.weight for level in levels])
    weight /= weight.sum()
    apart = np.array([level.apart for level in levels])
    y, x = weight @ apart
    angle = np.degrees(np.arctan2(x * apart[:, 0] - y * apart[:, 1], apart @ (y, x)))
    place = np.array([level.z for level in levels], float)
    place = (place - place[0]) / (place[-1] - place[0])
    off = (place - weight @ place) * (1 if basal_first else -1)
    winding = float((weight * off) @ angle / (weight @ off**2))
    counts = np.array([len(level.rv) for level in levels])
    slice_of, both = (
        np.repeat(np.arange(len(levels)), counts),
        np.concatenate([level.rv for level in levels]),
    )
    both = both @ np.array([[y, x], [x, -y]])  # along and across the direction

    def means(values: np.ndarray) -> np.ndarray:
        per_slice: np.ndarray = np.bincount(slice_of, values) / counts
        return per_slice

    along, across = (component - means(component)[slice_of] for component in both.T)
    squares = means(across**2).clip(1e-9)
    skew = weight @ (means(across**3) / squares**1.5)
    lean = weight @ (means(along * across) / np.sqrt(means(along**2).clip(1e-9) * squares))
    return winding, float(skew), float(lean)


def _told(
    affine: np.ndarray | None, direction: np.ndarray, *, basal_first: bool
) -> tuple[bool | None, bool]:
    """(whether the header calls this a mirror image, None where it has no say; whether it can't be
    this heart's).

    A header has a say when it puts the LV where it lies from the RV in people and the plane across
    a heart's long axis. One that lies along the world's own axes was written by a program, not by a
    scanner: it must put the apex right too, and is otherwise silently none.
    """
    axes = _axes(affine)
    if axes is None:
        return None, False
    x, y, z = axes
    placed = float((y * direction[0] + x * direction[1]) @ RV_TO_LV) >= LIKELY
    apical = float((z if basal_first else -z) @ BASE_TO_APEX) >= POSSIBLE
    # the picture is seen along this; the canonical one towards the base
    facing = float(np.cross(x, y) @ BASE_TO_APEX)
    scanned = bool((np.sort(np.abs([x, y]), axis=1)[:, :2] > OBLIQUE).any())
    if not placed or abs(facing) < POSSIBLE or not (scanned or apical):
        return None, scanned
    return facing > 0, not apical


def _axes(affine: np.ndarray | None) -> np.ndarray | None:
    """(3, 3) directions of the columns, rows and slices, of length 1; None where they are none or
    not at right angles."""
    if affine is None or not np.isfinite(affine).all():
        return None
    axes = affine[:3, :3].T
    lengths = np.linalg.norm(axes, axis=1)
    if not lengths[:2].all():
        return None
    axes = axes / np.where(lengths > 0, lengths, 1)[:, None]
    return axes if abs(axes[0] @ axes[1]) <= TILT else None


def _placeholder(axes: np.ndarray) -> bool:
    """Whether the axes are the world's own, none reversed: what is written where nobody knew."""
    return bool((axes == np.eye(3)).all())
