"""Hearts of known labels and grey levels, as arrays and as volumes on disk."""

import numpy as np

from cmrdata.batch import LV, MYO, RV
from cmrdata.slices import Scan

LV_MM, WALL_MM = 20.0, 28.0  # radii of the made heart

GREY = np.array([60.0, 220.0, 100.0, 180.0])  # of background, LV, myocardium, RV


def heart(
    *, spacing=(1.5, 1.5), size_mm=(240, 300), centre=(100, 170), depth=5, squeeze=1.0
) -> np.ndarray:
    """Labels (Z, Y, X): LV disc and wall about `centre` (y, x) in mm, the RV a disc cut off by them
    on the left."""
    shape = [round(mm / step) for mm, step in zip(size_mm, spacing, strict=True)]
    y, x = np.meshgrid(
        *(np.arange(n) * step for n, step in zip(shape, spacing, strict=True)), indexing="ij"
    )
    plane = np.zeros(shape, np.uint8)
    plane[np.hypot(y - centre[0], x - centre[1] + 28) <= 24] = RV
    plane[np.hypot(y - centre[0], x - centre[1]) <= WALL_MM] = MYO
    plane[np.hypot(y - centre[0], x - centre[1]) <= LV_MM * squeeze] = LV
    return np.repeat(plane[None], depth, axis=0)


def scan(ed=None, es=None, *, spacing=(1.5, 1.5), noise=2.0, seed=0) -> Scan:
    """ED and ES frames of a made heart, without neighbours in time."""
    ed = heart(spacing=spacing) if ed is None else ed
    es = heart(spacing=spacing, squeeze=0.7, depth=len(ed)) if es is None else es
    frames = GREY[np.stack([ed, es])] + np.random.default_rng(seed).normal(0, noise, (2, *ed.shape))
    return Scan(
        dict(enumerate(frames.astype(np.float32))), 0, 1, {0: ed, 1: es}, spacing, cycle=None
    )


def cine(count: int, *, ed: int, es: int) -> Scan:
    """A cycle whose frames all differ."""
    pair = scan()
    frames = pair.frames[0] + np.random.default_rng(count).normal(
        0, 5, (count, *pair.labels[0].shape)
    )
    labels = {ed: pair.labels[0], es: pair.labels[1]}
    return Scan(dict(enumerate(frames.astype(np.float32))), ed, es, labels, (1.5, 1.5), cycle=count)
