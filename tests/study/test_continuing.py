"""Draws are a function of their place: a continued training draws what an uninterrupted one does."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from cmrstudy import continuing
from cmrstudy.continuing import EpochDraws, Place, batch_seed


class Counted(EpochDraws):
    """Epoch 2 of 5 draws is 200, 201, ... 204."""

    def drawn(self) -> torch.Tensor:
        return 100 * self.epoch + torch.arange(self.count)


def test_an_epoch_is_gone_on_with_at_its_batch_and_others_are_whole():
    draws = Counted(7, seed=0, begin=Place(2, 2), batch_size=3)
    assert draws.epoch == 2 and list(draws) == [206] and len(draws) == 7
    draws.set_epoch(3)
    assert list(draws) == [*range(300, 307)]
    assert list(Counted(3, seed=0)) == [0, 1, 2]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_processes_take_turns_in_one_order_and_are_equally_full(monkeypatch, rank):
    monkeypatch.setattr(continuing.dist, "is_available", lambda: True)
    monkeypatch.setattr(continuing.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(continuing.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(continuing.dist, "get_rank", lambda: rank)
    draws = Counted(7, seed=0, begin=Place(0, 1), batch_size=2)
    whole = [[0, 3, 6], [1, 4, 0], [2, 5, 1]][rank]  # the last are filled up from the first
    assert len(draws) == 3 and list(draws) == whole[2:]
    draws.set_epoch(1)
    assert list(draws) == [100 + k for k in whole]


def test_batches_steps_processes_and_seeds_draw_apart():
    places = [
        batch_seed(seed, step=step, batch=batch, rank=rank)
        for seed in range(3)
        for step in range(3)
        for batch in range(4)
        for rank in range(3)
    ]
    assert len(set(places)) == len(places)
    # batches of one step are told apart by their number within the epoch
    assert batch_seed(1, step=2, batch=131) == batch_seed(1, step=2, batch=0)
    assert batch_seed(1, step=2, batch=3, rank=1) == 1_000_003 + 2 * 131 + 3 + 15_485_863


def test_one_seed_for_everything_that_draws_globally():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        drawn = []
        for seed in (2**32 + 5, 2**32 + 5, 5):
            continuing.seed_globally(seed)
            drawn.append((random.random(), np.random.random(), float(torch.rand(1))))
        assert drawn[0] == drawn[1] and drawn[0][0] != drawn[2][0]
        assert drawn[0][1:] == drawn[2][1:]  # NumPy and torch take 32 bits
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
