"""Images of an arm a whole batch at a time, and the order they are drawn in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

from cmrdata.batch import LabelledBatch
from cmrdata.store import Store


class Images(Dataset[LabelledBatch]):
    """Some `rows` of an arm's index; a whole batch is fetched at once, one gather per store.

    `labels` (n,) or (n, diseases) and `groups` (n,) go with the index's n rows. Holds stores, not arrays: a worker
    process opens its own memory map.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        rows: np.ndarray,
        *,
        stores: Mapping[bool, Store],
        labels: np.ndarray,
        groups: np.ndarray,
    ) -> None:
        self.rows, self.stores = rows, stores
        self.label, self.group = labels.astype(np.int64), groups.astype(np.int64)
        self.real = index.real.to_numpy(bool)
        self.stored = index.stored.to_numpy(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> LabelledBatch:
        return self.__getitems__([position])

    def __getitems__(self, positions: Sequence[int]) -> LabelledBatch:
        rows = self.rows[np.asarray(positions)]
        order = np.argsort(self.stored[rows])  # ascending file offsets read fastest
        parts = {real: order[self.real[rows[order]] == real] for real in self.stores}
        images = np.empty((len(rows), *next(iter(self.stores.values())).images.shape[1:]), np.uint8)
        for real, part in parts.items():
            images[part] = self.stores[real].images[self.stored[rows[part]]]
        return {
            "image": torch.from_numpy(images),
            "label": torch.from_numpy(self.label[rows]),
            "row": torch.from_numpy(rows),
            "group": torch.from_numpy(self.group[rows]),
        }


class Draws(DistributedSampler[LabelledBatch]):
    """`count` images an epoch (None: all) as whole passes in random order, then a rest; with `chances` (one per image)
    each draw is independent, an image's mass being its chance.

    The epoch decides the order, so a resumed run draws what an uninterrupted one would have drawn. Processes share one
    order and take turns in it: together their k-th batches are one process's k-th batch of that size.
    """

    def __init__(
        self, images: Dataset[LabelledBatch], *, count: int | None, seed: int, chances: np.ndarray | None = None
    ) -> None:
        several = dist.is_available() and dist.is_initialized()
        replicas, rank = (dist.get_world_size(), dist.get_rank()) if several else (1, 0)
        super().__init__(images, num_replicas=replicas, rank=rank, seed=seed)
        self.images = len(images)  # type: ignore[arg-type]
        self.count = self.images if count is None else count
        self.num_samples = math.ceil(self.count / replicas)
        self.total_size = self.num_samples * replicas
        self.chances = None if chances is None else torch.from_numpy(chances)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.chances is None:
            passes = math.ceil(self.count / self.images)
            order = torch.cat([torch.randperm(self.images, generator=generator) for _ in range(passes)])[: self.count]
        else:
            order = torch.multinomial(self.chances, self.count, replacement=True, generator=generator)
        order = torch.cat([order, order[: self.total_size - self.count]])  # the last batches are equally full
        return iter(order[self.rank :: self.num_replicas].tolist())
