"""The arms of the study: real rows, synthetic rows or both, in one schema, fetched a batch at a time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from cmrdata.batch import LabelledBatch, as_fetched
from cmrdata.cohort import ATTRIBUTES, AXES
from cmrdata.manifest import open_synthetic
from cmrdata.store import Cohort, Store, prepare

SCHEMA = ("subject", "source", "split", *ATTRIBUTES)
PREDICTIONS = ("subject", "source", "split", "label", "probability", *AXES, "group")


class Images(Dataset[LabelledBatch]):
    """Some rows of an arm's index; a whole batch is fetched at once, one gather per store.

    Holds stores, not arrays: a worker process opens its own memory map.
    """

    def __init__(self, index: pd.DataFrame, rows: np.ndarray, stores: Mapping[bool, Store]) -> None:
        self.rows, self.stores = rows, stores
        self.label = index.label.to_numpy(np.int64)
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
        }


class Draws(RandomSampler):
    """`count` images an epoch (None: all) as whole passes in random order, then a rest; the epoch decides the order,
    so a resumed run draws what an uninterrupted one would have drawn."""

    def __init__(self, images: Images, *, count: int | None, seed: int) -> None:
        super().__init__(images, num_samples=count, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.generator.manual_seed(self.seed * 1_000_003 + epoch)


class Arms(L.LightningDataModule):
    """One arm: `synthetic` is 0 (real only), N (and the first N images of `synthetic_set`) or "only" (the whole set).

    Real training rows are all stacks of the diagnosis-balanced training subjects (undersampling, paper 2.3);
    validation and test are real, one stack per subject, at natural prevalence. `images_per_epoch` draws exactly so
    many images per epoch, so that arms of different sizes take equal optimiser steps; None is one pass.

    After setup `index` holds every row of the arm (`real`, `stored` = row of its own store, then SCHEMA);
    a batch's `row` points into it.
    """

    index: pd.DataFrame

    def __init__(
        self,
        *,
        cohort: Cohort,
        root: str | Path = "data",
        synthetic: int | str = 0,
        synthetic_set: str | Path | None = None,
        batch_size: int = 64,
        images_per_epoch: int | None = None,
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if synthetic != "only" and (not isinstance(synthetic, int) or synthetic < 0):
            raise ValueError(f"synthetic={synthetic!r}: give a number of images (0 for none) or only")
        if synthetic != 0 and synthetic_set is None:
            raise ValueError(f"synthetic={synthetic}: synthetic_set is missing; give the folder that generate.py wrote")
        if images_per_epoch is not None and images_per_epoch < 1:
            raise ValueError(f"images_per_epoch={images_per_epoch}: give at least 1, or null for one pass over the arm")
        self.cohort, self.root = cohort, root
        self.synthetic, self.synthetic_set = synthetic, synthetic_set
        self.batch_size, self.images_per_epoch, self.seed, self.workers = batch_size, images_per_epoch, seed, workers

    @cached_property
    def store(self) -> Store:
        """The cohort's store, built on first use."""
        return prepare(self.cohort, self.root)

    @property
    def synthetic_fingerprint(self) -> str | None:
        """Of the set this arm was given; None for real images only."""
        return self._stores[False].fingerprint if False in self._stores else None

    def prepare_data(self) -> None:
        _ = self.store

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "index"):
            return
        rows = self.store.index
        balanced = self.store.subjects.loc[self.store.subjects.balanced, "subject"]
        kept = rows.split.isin(("val", "test"))
        if self.synthetic != "only":
            kept |= (rows.split == "train") & rows.subject.isin(balanced)
        tables, self._stores = [_in_schema(rows[kept], real=True)], {True: self.store}
        if self.synthetic != 0 and self.synthetic_set is not None:
            self._stores[False] = open_synthetic(self.synthetic_set, self.store)
            tables.append(_in_schema(self._drawn(self._stores[False]), real=False))
        self.index = pd.concat(tables, ignore_index=True)
        self._check()
        self.index["label"] = self.index.label.astype(np.int64)

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        images = self._images("train")
        return self._loader(images, sampler=Draws(images, count=self.images_per_epoch, seed=self.seed))

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._images("val"))

    def test_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._images("test"))

    def predict_dataloader(self) -> list[DataLoader[LabelledBatch]]:
        return [self.val_dataloader(), self.test_dataloader()]

    def _images(self, split: str) -> Images:
        return Images(self.index, np.flatnonzero(self.index.split == split), self._stores)

    def _loader(self, images: Images, **options: Any) -> DataLoader[LabelledBatch]:
        return DataLoader(
            images,
            batch_size=self.batch_size,
            collate_fn=as_fetched,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def _drawn(self, made: Store) -> pd.DataFrame:
        """The rows of the set this arm uses: a prefix of the plan, so arms are nested and each prefix is balanced."""
        if made.meta["pixels"] != self.store.meta["pixels"]:
            raise ValueError(
                f"{made.folder}: its images have {made.meta['pixels']} pixels, those of cohort {self.cohort.name} "
                f"{self.store.meta['pixels']}; generate the set from a model trained at the cohort's size"
            )
        rows = made.index.sort_values("row", kind="stable").assign(split="train", source="synthetic")
        if self.synthetic == "only":
            return rows
        if len(rows) < int(self.synthetic):
            raise ValueError(
                f"synthetic={self.synthetic}: the set {made.folder} holds {len(rows)} images; "
                f"ask for at most that many, or generate a larger set with plan.count={self.synthetic}"
            )
        return rows.head(int(self.synthetic))

    def _check(self) -> None:
        """Every split has rows, every row a label, and training has both labels."""
        where = f"cohort {self.cohort.name}, synthetic={self.synthetic}"
        if not (unlabelled := self.index[self.index.label.isna()]).empty:
            first = unlabelled.iloc[0]
            raise ValueError(
                f"{where}: subject {first.subject} of the {first.split} split has no diagnosis "
                f"({len(unlabelled)} such rows); give it one, or the split 'extra'"
            )
        for split in ("train", "val", "test"):
            counts = self.index.label[self.index.split == split].value_counts().to_dict()
            if not counts:
                raise ValueError(f"{where}: the {split} split is empty; give the cohort more subjects or other splits")
            if len(counts) == 1 and split == "train":
                raise ValueError(
                    f"{where}: all {sum(counts.values())} training images have label {next(iter(counts))}; "
                    "training needs cases and controls, so give the cohort more subjects or another cohort.seed"
                )
            if len(counts) == 1 and split == "val":
                warnings.warn(
                    f"{where}: all {sum(counts.values())} validation subjects have label {next(iter(counts))}; "
                    "val_balanced_accuracy is NaN and can't choose a checkpoint",
                    stacklevel=2,
                )


def predictions(index: pd.DataFrame, outputs: Sequence[Any]) -> pd.DataFrame:
    """What a run leaves behind: one row per predicted image, columns PREDICTIONS.

    `index`: the arm's. `outputs`: `predict_step`'s dicts (row, probability), flat or one list per loader as
    `trainer.predict` returns them. What the cohort does not know (ACDC: sex, age, BMI) stays missing.
    """
    batches = [batch for part in outputs for batch in ([part] if isinstance(part, Mapping) else part)]
    if not batches:
        raise ValueError("no predictions were made; run trainer.predict on an arm with validation and test rows")
    rows = torch.cat([batch["row"] for batch in batches]).cpu().numpy()
    probability = torch.cat([batch["probability"] for batch in batches]).float().cpu().numpy()
    table = index.iloc[rows].assign(probability=probability)
    return table.reindex(columns=list(PREDICTIONS)).reset_index(drop=True)


def _in_schema(rows: pd.DataFrame, *, real: bool) -> pd.DataFrame:
    table = rows.reindex(columns=list(SCHEMA))
    table.insert(0, "real", real)
    table.insert(1, "stored", rows.index.to_numpy())
    return table
