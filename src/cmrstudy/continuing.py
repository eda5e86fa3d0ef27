"""What a training draws, as a function of its place: a continued run draws what an uninterrupted
one would have.

Nothing is saved and restored for it, so any number of workers and processes draws alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler


class Place(NamedTuple):
    """Where training begins: whole epochs behind it, and batches of the epoch it is in."""

    epoch: int = 0
    batch: int = 0


START = Place()


def batch_seed(seed: int, *, step: int, batch: int, rank: int = 0) -> int:
    """Of what is drawn for one batch of training.

    Args:
        seed: the run's.
        step: optimiser steps before it.
        batch: its number within the epoch, which tells the batches of one step apart.
        rank: of the process.
    """
    return seed * 1_000_003 + step * 131 + batch % 131 + rank * 15_485_863


def seed_globally(seed: int) -> None:
    """For what draws without a generator of its own: dropout, stochastic depth, other people's
    callbacks."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class EpochDraws(DistributedSampler[Any]):
    """`count` draws an epoch, an order decided by `drawn`. Processes share the order and take turns
    in it.

    Together the processes' k-th batches are one process's k-th batch of that size. The epoch of
    `begin` starts with its batch; others are whole. Lightning calls `set_epoch` before every epoch.
    """

    def __init__(self, count: int, *, seed: int, begin: Place = START, batch_size: int = 1) -> None:
        several = dist.is_available() and dist.is_initialized()
        replicas, rank = (dist.get_world_size(), dist.get_rank()) if several else (1, 0)
        super().__init__(range(count), num_replicas=replicas, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.count, self.begin, self.batch_size = count, begin, batch_size
        self.num_samples = math.ceil(count / replicas)
        self.total_size = self.num_samples * replicas
        self.epoch = begin.epoch  # workers fetch before Lightning says which epoch it is

    def drawn(self) -> Tensor:
        """(count,) int64, a function of `seed` and `epoch` alone."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        order = self.drawn()
        # the last batches are equally full
        order = torch.cat([order, order[: self.total_size - self.count]])
        first = self.begin.batch * self.batch_size if self.epoch == self.begin.epoch else 0
        return iter(order[self.rank :: self.num_replicas][first:].tolist())
