"""Two sets of images with the same mix of groups, so that what differs between them is not who is
shown."""

from __future__ import annotations

import numpy as np
import pandas as pd


def equal_mix(
    left: pd.Series | np.ndarray, right: pd.Series | np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in `left` and in `right` with equally many of each value, as many as both have;
    unknown values are left out.

    Which rows of the side that has more are taken is drawn by `rng`; positions are sorted.
    """
    sides = [pd.Series(np.asarray(values, object)) for values in (left, right)]
    counts = (
        pd.concat([side.value_counts() for side in sides], axis=1)
        .min(axis=1, skipna=False)
        .dropna()
    )
    chosen: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for value in sorted(counts.index, key=str):
        for side, taken in zip(sides, chosen, strict=True):
            taken.append(
                rng.choice(np.flatnonzero(side == value), int(counts[value]), replace=False)
            )
    none = [np.empty(0, np.int64)]
    return np.sort(np.concatenate(chosen[0] or none)), np.sort(np.concatenate(chosen[1] or none))
