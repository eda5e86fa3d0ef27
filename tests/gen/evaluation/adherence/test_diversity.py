"""Bundles of images that share something, and how far apart those are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmrgen.evaluation.adherence import diversity
from cmrstudy.intervals import MIN_COUNT
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

    two = diversity.spread(images, [("a", np.array([k, k + 1])) for k in range(0, 60, 2)], flat)
    six = diversity.spread(images, [("a", np.arange(k, k + 6)) for k in range(0, 60, 6)], flat)
    assert two.pairs.sum() == 30 and six.pairs.sum() == 150
    for table in (two, six):
        assert np.sqrt(table.variance.mean()) == pytest.approx(20, rel=0.03)
    same = diversity.spread(np.repeat(images[:1], 4, 0), [("a", np.arange(4))], flat)
    assert same.distance[0] == 0 and same.variance[0] == 0


def flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1) / 255.0


def test_no_more_bundles_and_images_of_one_are_measured_than_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diversity, "MAX_BUNDLES", 5)
    monkeypatch.setattr(diversity, "MAX_IMAGES", 3)
    index = pd.DataFrame(
        {
            "subject": np.repeat([f"SYN{k:04d}" for k in range(9)], 4),
            "source_row": np.repeat(np.arange(18), 2),
            "prompt": np.repeat([f"p{k}" for k in range(9)], 4),
            "seed": range(36),
            "group": "g",
        }
    ).assign(source_row=lambda t: t.index // 4)
    bundles = diversity.seed_bundles(index, seed=0)
    assert [len(rows) for _, rows in bundles] == [3] * 5
    names = [name for name, _ in bundles]
    assert names == sorted(names) and names != [f"SYN{k:04d}" for k in range(5)]
    assert all((np.diff(rows) > 0).all() for _, rows in bundles)
    assert all(set(index.subject.iloc[rows]) == {name} for name, rows in bundles)
    again = diversity.seed_bundles(index, seed=0)
    other = diversity.seed_bundles(index, seed=1)
    assert [rows.tolist() for _, rows in again] == [rows.tolist() for _, rows in bundles]
    assert [rows.tolist() for _, rows in other] != [rows.tolist() for _, rows in bundles]


def test_bundles_go_through_the_network_together_but_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diversity, "TOGETHER", 4)
    images = np.random.default_rng(0).integers(0, 256, (16, 2, 4, 4)).astype(np.uint8)
    sizes = (2, 2, 3, 2, 6)
    ends = np.cumsum(sizes)
    bundles = [
        (f"SYN{k:04d}", np.arange(end - n, end)[::-1])
        for k, (n, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    shown: list[int] = []

    def layers(pixels: np.ndarray) -> np.ndarray:
        shown.append(len(pixels))
        return flat(pixels)

    table = diversity.spread(images, bundles, layers)
    assert shown == [4, 3, 2, 6]  # one that is larger goes alone
    assert table.images.tolist() == [*sizes] and table.pairs.tolist() == [1, 1, 3, 1, 15]
    for row, (name, rows) in zip(table.itertuples(), bundles, strict=True):
        x = flat(images[rows])
        apart = [((a - b) ** 2).sum() for k, a in enumerate(x) for b in x[:k]]
        assert row.subject == name and row.distance == pytest.approx(np.mean(apart))
        variance = images[rows].astype(float).var(0, ddof=1).mean()
        assert row.variance == pytest.approx(variance, rel=1e-5)
    assert diversity.spread(images, [], layers).empty


def test_real_bundles_are_of_the_training_split_and_the_sweeps_seeds_count() -> None:
    rng = np.random.default_rng(1)
    columns = {"subject": list("aabbcd"), "group": ["g"] * 6, "split": ["test"] * 2 + ["train"] * 4}
    index = pd.DataFrame(columns)
    images = rng.integers(0, 256, (6, 2, 4, 4)).astype(np.uint8)
    cohort: Any = SimpleNamespace(index=index, images=images)
    rows = pd.DataFrame(
        {"subject": list("xxy"), "source_row": [0, 1, 2], "seed": [1, 2, 3], "group": list("ggh")}
    )
    made: Any = SimpleNamespace(index=rows, images=images[:3])
    sweep: Any = SimpleNamespace(
        index=rows.assign(source_row=0, group="g", subject="x"), images=images[3:]
    )
    spreads = diversity.spread_by_kind(cohort, made, sweep, flat, seed=0)
    assert {key: len(table) for key, table in spreads.items()} == {
        ("synthetic", diversity.SEEDS): 1,
        ("synthetic", diversity.PERSON): 1,
        ("synthetic", diversity.PERSONS): 0,
        ("real", diversity.PERSON): 1,
        ("real", diversity.PERSONS): 1,
    }
    seeds = spreads["synthetic", diversity.SEEDS]
    assert seeds.images.tolist() == [3] and seeds.subject.tolist() == ["x"]
    person = spreads["real", diversity.PERSON].iloc[0]
    x = flat(images[2:4])
    assert person.subject == "b" and person.distance == pytest.approx(((x[0] - x[1]) ** 2).sum())
    without = diversity.spread_by_kind(cohort, made, None, flat, seed=0)
    assert without["synthetic", diversity.SEEDS].empty
    several = made.index.assign(source_row=0, group="g", subject="x")
    both = diversity.spread_by_kind(
        cohort, SimpleNamespace(index=several, images=images[:3]), sweep, flat, seed=0
    )
    assert both["synthetic", diversity.SEEDS].index.tolist() == [0, 1]


def test_the_table_sums_up_bundles_and_says_where_there_are_few() -> None:
    def bundles(count: int) -> pd.DataFrame:
        k = np.arange(count)
        columns = {
            "subject": "x",
            "images": 2,
            "pairs": 3,
            "distance": 0.1 * k,
            "variance": 4.0 * k,
        }
        return pd.DataFrame(columns, index=k)

    spreads = {
        ("synthetic", "a"): bundles(MIN_COUNT),
        ("synthetic", "b"): bundles(MIN_COUNT - 1),
        ("real", "a"): bundles(1),
        ("real", "b"): bundles(0),
    }
    table, warnings = diversity.diversity_table(spreads)
    assert table.bundles.tolist() == [20, 19, 1, 0] and table.pairs.tolist() == [60, 57, 3, 0]
    assert table.few.tolist() == [False, True, True, True]
    whole = spreads["synthetic", "a"]
    mean = whole.distance.mean()
    reach = stats.t.ppf(0.975, 19) * whole.distance.std(ddof=1) / np.sqrt(20)
    row = table.iloc[0]
    assert row.distance == pytest.approx(mean)
    assert (row.distance_low, row.distance_high) == pytest.approx((mean - reach, mean + reach))
    mean, reach = 40 * mean, 40 * reach
    ends = (row.pixel_sd, row.pixel_sd_low, row.pixel_sd_high)
    assert ends == pytest.approx(np.sqrt([mean, mean - reach, mean + reach]))
    one = table.iloc[2]
    assert one.distance == 0 and np.isnan([one.distance_low, one.pixel_sd_low]).all()
    assert np.isnan(table.distance[3])
    assert warnings == [
        "Nothing to compare: real, b.",
        "Fewer than 20 independent bundles of images, one has no interval: synthetic, b (19); "
        "real, a (1).",
    ]
    two = bundles(2).assign(distance=[0.0, 1.0], variance=[0.0, 1.0])
    wide = diversity.diversity_table({("real", "a"): two}).table.iloc[0]
    assert wide.distance_low == wide.pixel_sd_low == 0 < wide.pixel_sd_high  # no length is negative
