"""Whether labels lie where the picture shows a heart: headers that disagree are settled by what is
seen.

In a cine blood is brighter than muscle. So the labels' LV cavity is brighter than their myocardium
where they are in place, and hardly where they are a mirror image or shifted
(docs/results/orientation.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from cmrdata.batch import BACKGROUND, LV, MYO, PHASES

CLOSE_MM = 0.01  # by which the entries of two affines of one place may differ
CLOSE_VOXELS = 0.5  # by which a voxel may be moved and stays the same
# least share of pairs whose blood is brighter: 0.88..0.98 in 70 real hearts, 0.30..0.92 in mirror
# images
FITS = 0.7
# by which a mirror image of the labels must fit better to be believed; in 76 real hearts all fit
# worse
BETTER = 0.05
DARK = 0.3  # of such pairs, below which a picture is inverted
# least share of a phase: 0.79..0.99 in 70 real hearts, of most that are 20 pixels beside it is less
UNLIKE = 0.55
# by which ED is more like a mirror image of ES than like ES, and how like at least: correlations
# of 70 real hearts are 0.84..0.99, and at least 0.4 less with a mirror image
TURNED, LIKE = 0.2, 0.5
THIN = 4  # of so many pixels one tells whether a mirror image needs a closer look
MIRRORS = {  # and the axes of (Z, Y, X) to reverse
    "columns": (2,),
    "rows": (1,),
    "columns and rows": (1, 2),
    "slices": (0,),
    "slices and columns": (0, 2),
    "slices and rows": (0, 1),
    "slices, rows and columns": (0, 1, 2),
}
Move = Callable[[np.ndarray], np.ndarray]


def blood_over_muscle(pictures: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """Share of pairs, one pixel of LV cavity and one of myocardium, in which the cavity is
    brighter; mean of the pictures.

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


def check_fit(ed: np.ndarray, es: np.ndarray, *, labels: Sequence[np.ndarray]) -> None:
    """Raise ValueError where the frames (Z, Y, X) of ED and ES don't show the heart of their
    labels.

    Each phase is asked by itself: it may be inverted, be another place than its labels, or be their
    mirror image. ED and ES must be two pictures of one heart, none the other's mirror image.
    """
    _check_pair(ed, es)
    for phase, frame, mask in zip(PHASES, (ed, es), labels, strict=True):
        planes = _planes(mask)
        if not planes:  # ED without labels
            continue
        here = _fit(frame, planes)
        if here > 1 - BETTER:
            continue
        for what, axes in MIRRORS.items():
            if _fit(frame, planes, axes, thin=THIN) > max(here, FITS) and (
                (there := _fit(frame, planes, axes)) > max(here + BETTER, FITS)
            ):
                raise ValueError(
                    f"labels: they fit the picture better with their {what} reversed at {phase} "
                    f"(blood brighter than muscle in {there:.0%} of pixel pairs instead of "
                    f"{here:.0%})"
                )
        if here < DARK:
            raise ValueError(
                f"image: blood is darker than muscle in {1 - here:.0%} of pixel pairs at {phase}; "
                "it is inverted, or no bright-blood cine"
            )
        if here < UNLIKE:
            raise ValueError(
                f"{phase} image: it shows no heart where its labels are (blood brighter than "
                f"muscle in {here:.0%} of pixel pairs; 50% is chance)"
            )


def _planes(mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Places (n, 2) of LV and of myocardium, and the slice, of each slice of labels (Z, Y, X) that
    has both."""
    rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not len(rows):
        return []
    corner = (rows[0], columns[0])
    inside = mask[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    planes = [
        (np.argwhere(plane == LV) + corner, np.argwhere(plane == MYO) + corner) for plane in inside
    ]
    return [
        (blood, muscle, z) for z, (blood, muscle) in enumerate(planes) if len(blood) and len(muscle)
    ]


def _fit(
    frame: np.ndarray,
    planes: Sequence[tuple[np.ndarray, np.ndarray, int]],
    axes: tuple[int, ...] = (),
    *,
    thin: int = 1,
) -> float:
    """`blood_over_muscle` of a frame (Z, Y, X) and its labels, or their mirror image; of every
    `thin`-th pixel."""
    counts = frame.shape
    shares = []
    for blood, muscle, z in planes:
        plane = frame[counts[0] - 1 - z if 0 in axes else z]
        bright, dark = (_values(plane, places[::thin], axes) for places in (blood, muscle))
        dark.sort()
        below = np.searchsorted(dark, bright, "left") + np.searchsorted(dark, bright, "right")
        shares.append(float(below.mean()) / (2 * len(dark)))
    return float(np.mean(shares))


def _values(plane: np.ndarray, places: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Of a picture (Y, X) at places (n, 2) that are reversed along axes of (Z, Y, X)."""
    y, x = (plane.shape[k] - 1 - places[:, k] if k + 1 in axes else places[:, k] for k in (0, 1))
    values: np.ndarray = np.nan_to_num(plane[y, x])
    return values


def _check_pair(ed: np.ndarray, es: np.ndarray) -> None:
    """Raise ValueError where one of two frames (Z, Y, X) is the other's mirror image."""
    thin = (slice(None), slice(None, None, THIN), slice(None, None, THIN))
    one, other = ed[thin], es[thin]
    ours = _normed(one)
    here = float(ours @ _normed(other))
    if here > 1 - TURNED:
        return
    for what, axes in MIRRORS.items():
        if ours @ _normed(np.flip(es, axes)[thin]) > max(here + TURNED, LIKE):
            raise ValueError(f"ES image: it shows the heart of ED with its {what} reversed")


def _normed(picture: np.ndarray) -> np.ndarray:
    """The voxels with a mean of 0 and a norm of 1, so that two pictures' product is their
    correlation; no numbers are 0."""
    with np.errstate(all="ignore"):
        values = np.ravel(picture).astype(np.float64)
        values = (
            np.where(finite, values, 0) if not (finite := np.isfinite(values)).all() else values
        )
        values -= values.mean()
        return np.nan_to_num(values / np.sqrt(values @ values), posinf=0, neginf=0)


def overlay(
    pictures: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    image: np.ndarray | None,
    theirs: np.ndarray | None,
) -> tuple[Move, tuple[str, ...]]:
    """How labels of one file come onto the voxels of an image, and a flag where the headers do not
    agree on it.

    Args:
        pictures: annotated frames (Z, Y, X).
        labels: their labels, of the same shape.
        image, theirs: affines of image and labels, index (x, y, z) to mm; None where a header
        declares none.

    Returns:
        A function of an array of labels. `affine_mismatch`: the headers differ and voxels are
        trusted; `labels_moved`: they differ and the labels are where the world's coordinates place
        them, since that fits the picture better.

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
            "labels: their header places them apart from the image, and they fit it neither so "
            f"(blood brighter than muscle in {fits[1]:.0%} of pixel pairs) nor voxel by voxel "
            f"({fits[0]:.0%})"
        )
    move, flag = places[best]
    return move, (flag,)


def reordered(
    array: np.ndarray, *, theirs: np.ndarray | None, ours: np.ndarray | None
) -> np.ndarray:
    """(Z, Y, X) voxels in the order of another header of the same grid; as they are where it isn't
    the same grid."""
    if (
        theirs is None
        or ours is None
        or np.array_equal(theirs, ours)
        or np.linalg.det(theirs[:3, :3]) == 0
    ):
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
    return bool(
        same and (np.abs(axes).sum(axis=0) == 1).all() and (np.abs(axes).sum(axis=1) == 1).all()
    )


def _far(moves: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether any corner of a grid (Z, Y, X) moves by more than CLOSE_VOXELS."""
    corners = np.stack(
        np.meshgrid(*[(0, n - 1) for n in shape[::-1]], indexing="ij"), axis=-1
    ).reshape(-1, 3)
    return bool(np.abs(corners @ moves[:3, :3].T + moves[:3, 3] - corners).max() > CLOSE_VOXELS)


def _moved(labels: np.ndarray, *, moves: np.ndarray) -> np.ndarray:
    """(Z, Y, X) whose voxel (x, y, z) is the one that lay nearest to `moves` @ (x, y, z);
    background outside."""
    backwards = moves[2::-1, 2::-1]  # index (z, y, x)
    moved: np.ndarray = ndimage.affine_transform(
        labels,
        backwards,
        moves[2::-1, 3],
        order=0,
        mode="grid-constant",
        cval=BACKGROUND,
        prefilter=False,
    )
    return moved


def _as_it_is(labels: np.ndarray) -> np.ndarray:
    return labels
