"""Whether labels lie where the picture shows a heart: headers that disagree are settled by what is seen.

In a cine blood is brighter than muscle. So the labels' LV cavity is brighter than their myocardium where they are in
place, and hardly where they are a mirror image or shifted (docs/results/orientation.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from cmrdata.batch import BACKGROUND, LV, MYO

CLOSE_MM = 0.01  # by which the entries of two affines of one place may differ
CLOSE_VOXELS = 0.5  # by which a voxel may be moved and stays the same
FITS = 0.7  # least share of pairs whose blood is brighter: 0.88..0.98 in 70 real hearts, 0.30..0.92 in mirror images
BETTER = 0.05  # by which a mirror image of the labels must fit better to be believed; in 76 real hearts all fit worse
DARK = 0.3  # of such pairs, below which a picture is inverted
MIRRORS = {"columns": (1,), "rows": (0,), "columns and rows": (0, 1)}  # and the axes to reverse
Move = Callable[[np.ndarray], np.ndarray]


def blood_over_muscle(pictures: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """Share of pairs, one pixel of LV cavity and one of myocardium, in which the cavity is brighter; mean of the pictures.

    0.5 is chance, and what no cavity or no myocardium gives. Equal values count half.
    """
    shares = []
    for picture, mask in zip(pictures, labels, strict=True):
        blood, muscle = (np.nan_to_num(picture[mask == label]) for label in (LV, MYO))
        if not (len(blood) and len(muscle)):
            shares.append(0.5)
            continue
        muscle = np.sort(muscle)
        below = np.searchsorted(muscle, blood, "left") + np.searchsorted(muscle, blood, "right")
        shares.append(float(below.mean()) / (2 * len(muscle)))
    return float(np.mean(shares))


def check_fit(pictures: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, centre: int) -> None:
    """Raise ValueError where frames (Z, Y, X) show that their labels are a mirror image of the heart, or blood is dark.

    All slices with LV and myocardium are asked, unless no mirror image could fit the central one better.
    """
    middle = blood_over_muscle([frame[centre] for frame in pictures], [mask[centre] for mask in labels])
    if middle > 1 - BETTER:
        return
    planes = [
        (frame[z], mask[z])
        for frame, mask in zip(pictures, labels, strict=True)
        for z in np.flatnonzero((mask == LV).any(axis=(1, 2)) & (mask == MYO).any(axis=(1, 2))).tolist()
    ]
    here = blood_over_muscle(*zip(*planes, strict=True))
    for what, axes in MIRRORS.items():
        there = blood_over_muscle(*zip(*((frame, np.flip(mask, axes)) for frame, mask in planes), strict=True))
        if there > max(here + BETTER, FITS):
            raise ValueError(
                f"labels: they fit the picture better with their {what} reversed (blood brighter than muscle in "
                f"{there:.0%} of pixel pairs instead of {here:.0%})"
            )
    if here < DARK:
        raise ValueError(
            f"image: blood is darker than muscle in {1 - here:.0%} of pixel pairs; it is inverted, or no bright-blood cine"
        )


def overlay(
    pictures: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    image: np.ndarray | None,
    theirs: np.ndarray | None,
) -> tuple[Move, tuple[str, ...]]:
    """How labels of one file come onto the voxels of an image, and a flag where the headers do not agree on it.

    Args:
        pictures: annotated frames (Z, Y, X).
        labels: their labels, of the same shape.
        image, theirs: affines of image and labels, index (x, y, z) to mm; None where a header declares none.

    Returns:
        A function of an array of labels. `affine_mismatch`: the headers differ and voxels are trusted; `labels_moved`:
        they differ and the labels are where the world's coordinates place them, since that fits the picture better.

    Raises:
        ValueError: the headers differ and neither fits the picture.
    """
    if image is None or theirs is None or np.allclose(image, theirs, rtol=0, atol=CLOSE_MM):
        return _as_it_is, ()
    moves = np.linalg.inv(theirs) @ image if abs(np.linalg.det(theirs[:3, :3])) > 0 else None
    if moves is None or pictures[0].shape != labels[0].shape or not _far(moves, pictures[0].shape):
        return _as_it_is, ("affine_mismatch",)
    by_world: Move = partial(_moved, moves=moves)
    places: list[tuple[Move, str]] = [(_as_it_is, "affine_mismatch"), (by_world, "labels_moved")]
    fits = [blood_over_muscle(pictures, [move(mask) for mask in labels]) for move, _ in places]
    best = int(fits[1] >= fits[0] if order_only(moves) else fits[1] > fits[0])
    if fits[best] < FITS:
        raise ValueError(
            f"labels: their header places them apart from the image, and they fit it neither so (blood brighter than "
            f"muscle in {fits[1]:.0%} of pixel pairs) nor voxel by voxel ({fits[0]:.0%})"
        )
    move, flag = places[best]
    return move, (flag,)


def reordered(array: np.ndarray, *, theirs: np.ndarray | None, ours: np.ndarray | None) -> np.ndarray:
    """(Z, Y, X) voxels in the order of another header of the same grid; as they are where it isn't the same grid."""
    if theirs is None or ours is None or np.array_equal(theirs, ours) or np.linalg.det(theirs[:3, :3]) == 0:
        return array
    moves = np.linalg.inv(theirs) @ ours
    if not order_only(moves):
        return array
    axes = np.rint(moves[:3, :3]).astype(int)  # (theirs, ours)
    source, sign = np.abs(axes).argmax(axis=0), axes.sum(axis=0)
    counts = np.array(array.shape[::-1])[source]
    begins = np.where(sign < 0, counts - 1, 0)
    if np.abs(moves[source, 3] - begins).max() > CLOSE_VOXELS:
        return array
    return array.T.transpose(source)[tuple(slice(None, None, int(step)) for step in sign)].T


def order_only(moves: np.ndarray) -> bool:
    """Whether an affine from index to index swaps and reverses axes and does nothing else."""
    axes = np.rint(moves[:3, :3])
    same = np.abs(moves[:3, :3] - axes).max() < 0.02
    return bool(same and (np.abs(axes).sum(axis=0) == 1).all() and (np.abs(axes).sum(axis=1) == 1).all())


def _far(moves: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether any corner of a grid (Z, Y, X) moves by more than CLOSE_VOXELS."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape[::-1]], indexing="ij"), axis=-1).reshape(-1, 3)
    return bool(np.abs(corners @ moves[:3, :3].T + moves[:3, 3] - corners).max() > CLOSE_VOXELS)


def _moved(labels: np.ndarray, *, moves: np.ndarray) -> np.ndarray:
    """(Z, Y, X) whose voxel (x, y, z) is the one that lay nearest to `moves` @ (x, y, z); background outside."""
    backwards = moves[2::-1, 2::-1]  # index (z, y, x)
    return ndimage.affine_transform(
        labels, backwards, moves[2::-1, 3], order=0, mode="grid-constant", cval=BACKGROUND, prefilter=False
    )


def _as_it_is(labels: np.ndarray) -> np.ndarray:
    return labels
