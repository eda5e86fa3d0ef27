"""Images of an arm a whole batch at a time, and the order they are drawn in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from cmrdata.batch import LabelledBatch
from cmrdata.harmonise import Match
from cmrdata.store import Store
from cmrstudy.continuing import START, EpochDraws, Place


class Images(Dataset[LabelledBatch]):
    """Some `rows` of an arm's index; a whole batch is fetched at once, one gather per store.

    `labels` (n,) or (n, diseases) and `groups` (n,) go with the index's n rows. `matches`: what
    harmonises the images of a store, by the same keys. Holds stores, not arrays: a worker process
    opens its own memory map.
    """

    def __init__(
        self,
        index: pd.DataFrame,
        rows: np.ndarray,
        *,
        stores: Mapping[bool, Store],
        labels: np.ndarray,
        groups: np.ndarray,
        matches: Mapping[bool, Match] | None = None,
    ) -> None:
        self.rows, self.stores, self.matches = rows, stores, matches or {}
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
            fetched = self.stores[real].images[self.stored[rows[part]]]
            images[part] = (
                self.matches[real](fetched) if real in self.matches and len(part) else fetched
            )
        return {
            "image": torch.from_numpy(images),
            "label": torch.from_numpy(self.label[rows]),
            "row": torch.from_numpy(rows),
            "group": torch.from_numpy(self.group[rows]),
        }


class Draws(EpochDraws):
    """`count` images an epoch (None: all) as whole passes in random order, then a rest; with
    `chances` (one per image) each draw is independent, an image's mass being its chance."""

    def __init__(
        self,
        images: Dataset[LabelledBatch],
        *,
        count: int | None,
        seed: int,
        chances: np.ndarray | None = None,
        begin: Place = START,
        batch_size: int = 1,
    ) -> None:
        self.images = len(images)
        super().__init__(
            self.images if count is None else count, seed=seed, begin=begin, batch_size=batch_size
        )
        self.chances = None if chances is None else torch.from_numpy(chances)

    def drawn(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.chances is not None:
            return torch.multinomial(
                self.chances, self.count, replacement=True, generator=generator
            )
        passes = math.ceil(self.count / self.images)
        return torch.cat([torch.randperm(self.images, generator=generator) for _ in range(passes)])[
            : self.count
        ]
