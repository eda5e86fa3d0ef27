"""Images of an arm a whole batch at a time, and the order they are drawn in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cmrcls.draws import Draws, Images
from cmrstudy.continuing import Place

REAL = np.arange(6 * 8, dtype=np.uint8).reshape(6, 2, 2, 2)
DRAWN = 100 + np.arange(4 * 8, dtype=np.uint8).reshape(4, 2, 2, 2)


@pytest.fixture
def index() -> pd.DataFrame:
    return pd.DataFrame({"real": [True, False, True, False], "stored": [5, 3, 0, 1]})


def images(index: pd.DataFrame, **options) -> Images:
    stores = {True: SimpleNamespace(images=REAL), False: SimpleNamespace(images=DRAWN)}
    return Images(
        index,
        np.array([3, 2, 1, 0]),
        stores=stores,
        labels=np.array([0, 1, 0, 1]),
        groups=np.array([7, 8, -1, 9]),
        **options,
    )


def test_a_batch_has_the_images_labels_and_groups_of_its_rows_in_their_order(index):
    data = images(index)
    assert len(data) == 4
    batch = data.__getitems__([1, 3, 0])
    assert batch["row"].tolist() == [2, 0, 3]
    assert np.array_equal(batch["image"].numpy(), np.stack([REAL[0], REAL[5], DRAWN[1]]))
    assert batch["label"].tolist() == [0, 0, 1] and batch["group"].tolist() == [-1, 7, 9]
    assert data[2]["row"].tolist() == [1] and np.array_equal(data[2]["image"][0], DRAWN[3])


def test_only_the_matched_store_is_harmonised_and_never_asked_of_nothing(index):
    asked = []

    def match(pictures: np.ndarray) -> np.ndarray:
        asked.append(len(pictures))
        return pictures + 1

    data = images(index, matches={False: match})
    batch = data.__getitems__([0, 1])
    assert np.array_equal(batch["image"][0], DRAWN[1] + 1)
    assert np.array_equal(batch["image"][1], REAL[0])
    data.__getitems__([1, 3])  # real ones alone
    assert asked == [1]


def test_an_epoch_is_whole_passes_and_a_rest():
    draws = Draws(range(5), count=13, seed=3)
    order = list(draws)
    assert len(order) == 13
    assert sorted(order[:5]) == sorted(order[5:10]) == [*range(5)] and len({*order[10:]}) == 3
    assert list(draws) == order and list(Draws(range(5), count=13, seed=4)) != order
    draws.set_epoch(1)
    assert list(draws) != order
    assert sorted(Draws(range(5), count=None, seed=0)) == [*range(5)]


def test_an_epochs_order_is_that_of_its_seed_and_its_number():
    draws = Draws(range(50), count=None, seed=3)
    draws.set_epoch(2)
    chance = torch.Generator().manual_seed(3 * 1_000_003 + 2)  # of seed 3 and epoch 2, as they were
    assert list(draws) == torch.randperm(50, generator=chance).tolist()


def test_a_continued_epoch_goes_on_behind_its_last_batch():
    order = list(Draws(range(9), count=None, seed=3))
    for size in (1, 3):
        later = Draws(range(9), count=None, seed=3, begin=Place(0, 2), batch_size=size)
        assert list(later) == order[2 * size :]
    assert list(Draws(range(9), count=None, seed=3, begin=Place(0, 2))) == order[2:]


def test_chances_draw_each_image_independently():
    chances = np.array([0.0, 0.25, 0.75])
    order = np.array(list(Draws(range(3), count=4000, seed=0, chances=chances)))
    assert (order != 0).all() and (order == 2).mean() == pytest.approx(0.75, abs=0.03)
