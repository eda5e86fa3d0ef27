"""Black and white of a picture that is not read from a scan: set as `cmrdata.slices` sets them for
real ones.

A real pair of ED and ES is stretched so that its own percentiles become 0 and 255. A drawn one that
is stored as it comes from a decoder has another share of pixels at 0 and 255, which alone tells it
from a real one.
"""

from __future__ import annotations

import math

import numpy as np

from cmrdata.slices import CONTRAST, PERCENTILES


def stretched(images: np.ndarray) -> np.ndarray:
    """(n, C, P, P) grey levels of any real dtype -> uint8, each picture between its own PERCENTILES
    over all channels.

    The percentiles are taken outwards, from the values of pixels: so a real image, which has been
    stretched already, keeps its bytes. A picture with a channel in which there is nothing to see (a
    standard deviation below CONTRAST) is rounded and not stretched: what would fill its range is
    noise.
    """
    flat = np.asarray(images, np.float32).reshape(len(images), math.prod(images.shape[1:]))
    least, most = (q / 100 * (flat.shape[1] - 1) for q in PERCENTILES)
    ends = math.floor(least), math.ceil(most)
    lo, hi = np.partition(flat, ends, axis=1)[:, ends].T
    empty = (images.std(axis=(2, 3)) < CONTRAST).any(axis=1) | ~(hi > lo)
    lo, gain = np.where(empty, 0, lo), 255 / np.where(empty, 255, hi - lo)
    scaled = (flat - lo[:, None].astype(np.float32)) * gain[:, None].astype(np.float32)
    return np.rint(scaled).clip(0, 255).astype(np.uint8).reshape(images.shape)
