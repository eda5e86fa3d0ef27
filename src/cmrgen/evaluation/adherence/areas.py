"""Pixels of each structure in a segmented image and its mask: the numbers that are kept, so that
pictures need not be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cmrdata.batch import LABELS


class Areas(NamedTuple):
    """Pixels of LV, MYO and RV at ED and ES in n images: each (n, 2, 3) integers."""

    segmented: np.ndarray  # in the segmented image
    mask: np.ndarray  # in the mask
    common: np.ndarray  # in both

    @property
    def dice(self) -> np.ndarray:
        """(n, 2, 3) Dice; 0 where one side lacks the structure, NaN where both do."""
        both = (self.segmented + self.mask).astype(float)
        dice: np.ndarray = np.divide(
            2 * self.common, both, out=np.full(both.shape, np.nan), where=both > 0
        )
        return dice


def structure_areas(segmented: Any, masks: Any) -> Areas:
    """What (n, 2, P, P) labels share with (n, 2, P, P) masks, both NumPy arrays or both tensors of
    one device."""
    counts = []
    for label in LABELS.values():
        a, b = segmented == label, masks == label
        counts.append([_counted(pixels) for pixels in (a, b, a & b)])
    return Areas(*(np.stack(parts, -1) for parts in zip(*counts, strict=True)))


def no_areas(count: int) -> Areas:
    """The areas of `count` images, to be filled in."""
    return Areas(*(np.zeros((count, 2, len(LABELS)), np.int32) for _ in Areas._fields))


def _counted(inside: Any) -> np.ndarray:
    total = inside.sum((-2, -1))
    return total if isinstance(total, np.ndarray) else np.asarray(total.cpu().numpy())
