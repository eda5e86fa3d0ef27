"""Masks moved as another heart of the same anatomy could lie: a small rotation, scaling and shift,
nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND
from cmrdata.plan_columns import COLUMN

# the columns of a row that leaves its mask as it is
STILL = {"angle": 0.0, "zoom": 1.0, "dy": 0.0, "dx": 0.0}
LIMITS = {name: limits for name in STILL if (limits := COLUMN[name].limits)}
DIGITS = {"angle": 2, "zoom": 4, "dy": 4, "dx": 4}  # what is written is what is done


def random_moves(count: int, *, seed: int) -> pd.DataFrame:
    """`count` moves, uniform within LIMITS, as columns angle, zoom, dy, dx; more moves begin with
    the fewer."""
    share = np.random.default_rng([seed, 3]).random((count, len(LIMITS)))
    low, high = np.array(list(LIMITS.values())).T
    return pd.DataFrame(low + share * (high - low), columns=list(LIMITS)).round(DIGITS)


def moved(masks: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
    """(n, 2, P, P) masks as the n rows of a plan ask for (angle, zoom, dy, dx): labels of the
    nearest pixel.

    Both phases move together, about the centre; background comes in from outside. A row of STILL
    keeps its bytes.
    """
    assert len(masks) == len(rows)
    moves, done = rows[list(STILL)].to_numpy(float), np.array(masks)
    for k in np.flatnonzero((moves != list(STILL.values())).any(axis=1)):
        done[k] = _moved(masks[k], *moves[k])
    return done


def _moved(mask: np.ndarray, angle: float, zoom: float, dy: float, dx: float) -> np.ndarray:
    pixels = mask.shape[-1]
    middle = (pixels - 1) / 2
    y, x = np.mgrid[:pixels, :pixels] - middle
    y, x = y - dy * pixels, x - dx * pixels
    cos, sin = np.cos(np.radians(angle)) / zoom, np.sin(np.radians(angle)) / zoom
    # y points down
    at = np.rint(np.stack([cos * y + sin * x, cos * x - sin * y]) + middle).astype(int)
    outside = ((at < 0) | (at >= pixels)).any(axis=0)
    rows, columns = at.clip(0, pixels - 1)
    return np.where(outside, BACKGROUND, mask[:, rows, columns]).astype(mask.dtype)
