"""Bundles of images that share something, and how far apart those are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation.adherence import diversity
from support.judged_images import people


def test_bundles_share_what_they_say() -> None:
    index = pd.DataFrame(
        {
            "subject": list("aaabbcd"),
            "source_row": [0, 0, 1, 2, 2, 3, 4],
            "prompt": "p",
            "seed": [1, 2, 3, 4, 4, 5, 6],
            "group": ["g"] * 5 + ["h"] * 2,
        },
        index=range(10, 17),
    )
    [(who, rows)] = diversity.seed_bundles(index, seed=0)
    assert who == "a" and rows.tolist() == [0, 1]  # b has one seed twice: the same image
    [(who, rows)] = diversity.subject_bundles(index, seed=0)
    assert who == "a" and set(index.source_row.iloc[rows]) == {0, 1}
    pairs = diversity.group_bundles(index, seed=0)
    assert len(pairs) == 2 and all(
        index.subject.iloc[rows].nunique() == 2 and index.group.iloc[rows].nunique() == 1
        for _, rows in pairs
    )
    drawn = np.concatenate([rows for _, rows in diversity.group_bundles(people(300), seed=1)])
    assert len(set(drawn)) == len(drawn)


def test_spread_of_pairs_and_of_many_compare() -> None:
    rng = np.random.default_rng(0)
    images = (100 + 20 * rng.normal(size=(60, 2, 16, 16))).clip(0, 255).astype(np.uint8)

    def flat(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1) / 255.0

    two = diversity.spread(images, [("a", np.array([k, k + 1])) for k in range(0, 60, 2)], flat)
    six = diversity.spread(images, [("a", np.arange(k, k + 6)) for k in range(0, 60, 6)], flat)
    assert two.pairs.sum() == 30 and six.pairs.sum() == 150
    for table in (two, six):
        assert np.sqrt(table.variance.mean()) == pytest.approx(20, rel=0.03)
    same = diversity.spread(np.repeat(images[:1], 4, 0), [("a", np.arange(4))], flat)
    assert same.distance[0] == 0 and same.variance[0] == 0
