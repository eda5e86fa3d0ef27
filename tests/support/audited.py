"""Sets as the audit measures them, harmless ones, and simple features of images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrdata.store import Store
from cmrgen.evaluation.privacy.scores import Side, set_tests, single_copies, with_alarms


def harmless(
    rng: np.random.Generator, levels: np.ndarray, groups: np.ndarray, *, sources: int = 30
) -> Side:
    people = (
        rng.permutation(np.arange(len(groups)) % sources)
        if sources < len(groups)
        else np.arange(len(groups))
    )
    own = rng.normal(size=len(groups))
    value = levels[groups] + own[people] + 0.4 * rng.normal(size=len(groups))
    return Side(
        groups,
        people,
        value,
        value,
        rng.normal(size=len(groups)) + own[people],
        np.ones(len(groups), bool),
    )


def both_measures(made: Side, held: Side) -> pd.DataFrame:
    rows = []
    for measure in ("sight", "features"):
        called = single_copies(made.excess, held.excess)
        rows += [
            {"measure": measure, **row} for row in set_tests(made, held, called=called, seed=0)
        ]
    return with_alarms(pd.DataFrame(rows))


def embed(store: Store, rows: np.ndarray) -> np.ndarray:
    """Mean grey values of 8 x 8 fields."""
    images = store.images[rows]
    side = images.shape[-1] // 8
    return images.reshape(len(images), 2, 8, side, 8, side).mean((3, 5)).reshape(len(images), -1)
