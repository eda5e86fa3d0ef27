"""The arms of the study: real rows, synthetic rows or both, in one schema, fetched a batch at a
time."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.data import DataLoader

from cmrcls.draws import Draws, Images
from cmrcls.mitigation.groups import Group, describe_groups
from cmrcls.mitigation.sampling import Uniform
from cmrdata.axes import BUILT_IN, CONDITIONS
from cmrdata.batch import LabelledBatch, as_fetched
from cmrdata.counting import number_of
from cmrdata.disk import fingerprint
from cmrdata.harmonise import SAMPLE, Match, match
from cmrdata.mix import equal_mix
from cmrdata.prepare import prepare
from cmrdata.protocol import Cohort
from cmrdata.store import Store
from cmrdata.subjects import ATTRIBUTES, further_columns
from cmrdata.synthetic import open_synthetic
from cmrstudy.continuing import Place

SCHEMA = ("subject", "source", "split", *ATTRIBUTES)
PREDICTIONS = (
    "subject",
    "row",
    "source",
    "split",
    "disease",
    "label",
    "probability",
    "predicted",
    *BUILT_IN,
    "group",
)
BUDGETS = ("epochs", "steps")
LOST = 0.05  # share of an arm's synthetic images that may be missing since they could not be drawn
DISEASES = ("hf", *CONDITIONS)  # hf is the cohort's own diagnosis
Rows = npt.NDArray[np.int64]


class Arms(L.LightningDataModule):
    """One arm: `synthetic` is 0 (real only), N (and the first N images of `synthetic_set`) or
    "only" (the whole set).

    Real training rows are all stacks of the diagnosis-balanced training subjects (undersampling,
    paper 2.3); validation and test are real, one stack per subject, at natural prevalence. Of a
    cohort with `cine` they are heartbeats.

    `budget` says how many images an epoch draws: "epochs", one pass over the arm (paper), so a
    larger arm takes more optimiser steps; "steps", in every arm as many as the real-only arm holds.
    `images_per_epoch` overrides both. `sampling` says which rows an epoch draws
    (`cmrcls.mitigation.sampling`). `harmonise`: bring synthetic images to the grey levels and
    sharpness of real training ones (`cmrdata.harmonise`), to see whether what tells the two apart
    has mattered; arms without synthetic images stay as they are. `labels`: of DISEASES; one is told
    from its absence, several are learnt side by side.

    After setup `index` holds every row of the arm (`real`, `stored` = row of its own store, then
    SCHEMA and `further` columns of the cohort that may be compared, such as ethnicity or site); a
    batch's `row` points into it. Raises ValueError naming the setting that does not fit and the
    remedy.
    """

    index: pd.DataFrame
    further: list[str]
    begin = Place()  # of the training draws; cmrstudy.training.fit sets it

    def __init__(
        self,
        *,
        cohort: Cohort,
        root: str | Path = "data",
        synthetic: int | str = 0,
        synthetic_set: str | Path | None = None,
        batch_size: int = 64,
        images_per_epoch: int | None = None,
        budget: str = "epochs",
        sampling: Uniform | None = None,
        harmonise: bool = False,
        labels: Sequence[str] = ("hf",),
        seed: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        self.sampling = sampling or Uniform()
        self.synthetic, self.synthetic_set, self.harmonise = synthetic, synthetic_set, harmonise
        self.cohort, self.root, self.budget = cohort, root, budget
        self.batch_size, self.images_per_epoch = batch_size, images_per_epoch
        self.seed, self.workers = seed, workers
        self._check_settings(labels)
        self.labels = tuple(labels)

    def _check_settings(self, labels: Sequence[str]) -> None:
        """Raise ValueError for a setting that can't be, before anything is read."""
        synthetic, images_per_epoch = self.synthetic, self.images_per_epoch
        if synthetic != "only" and (not isinstance(synthetic, int) or synthetic < 0):
            raise ValueError(
                f"synthetic={synthetic!r}: give a number of images (0 for none) or only"
            )
        if synthetic != 0 and self.synthetic_set is None:
            raise ValueError(
                f"synthetic={synthetic}: synthetic_set is missing; give the folder that "
                "generate.py wrote"
            )
        if synthetic != 0 and (cine := self.cohort.cine):
            raise ValueError(
                f"synthetic={synthetic} with cohort.cine={cine}: synthetic images are pairs of ED "
                "and ES; choose synthetic=0, or input=stack"
            )
        if images_per_epoch is not None and images_per_epoch < 1:
            raise ValueError(
                f"images_per_epoch={images_per_epoch}: give at least 1, or null for one pass over "
                "the arm"
            )
        if self.budget not in BUDGETS:
            raise ValueError(
                f"budget={self.budget!r} is unknown; choose one of {', '.join(BUDGETS)}"
            )
        self.sampling.check_arm(synthetic)
        if (
            not labels
            or isinstance(labels, str)
            or set(labels) - set(DISEASES)
            or len(set(labels)) < len(labels)
        ):
            raise ValueError(
                f"labels={labels!r}: give a list of one or more of {', '.join(DISEASES)}, each once"
            )
        if not isinstance(self.harmonise, bool):
            raise ValueError(f"harmonise={self.harmonise!r}: it takes true or false")

    @cached_property
    def store(self) -> Store:
        """The cohort's store, built on first use."""
        return prepare(self.cohort, self.root)

    @property
    def synthetic_fingerprint(self) -> str | None:
        """Of the set this arm was given (with Matched sampling: whose groups it copies); None for
        real images only."""
        return self._synthetic_store.fingerprint if self._synthetic_store else None

    @property
    def split_fingerprint(self) -> str:
        """Of the cohort's subjects and their splits: the same for every arm, so that runs can be
        compared."""
        return fingerprint(
            {"cohort": self.store.fingerprint, "splits": self.store.subjects.split.tolist()}
        )

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of the training rows, sorted by name; a batch's `group` counts in them."""
        return describe_groups(self.index[self.index.split == "train"], chances=self._chances)

    def prepare_data(self) -> None:
        _ = self.store

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "index"):
            return
        rows = self.store.index
        balanced = self.store.subjects.loc[self.store.subjects.balanced, "subject"]
        real = (rows.split == "train") & rows.subject.isin(balanced)
        kept = rows.split.isin(("val", "test")) | (real if self.synthetic != "only" else False)
        self._real_images = int(real.sum())  # of the real-only arm, whichever this is
        self.further = further_columns(self.store.subjects)
        tables = [self._in_schema(rows[kept], real=True)]
        self._stores: dict[bool, Store] = {True: self.store}
        self._synthetic_store: Store | None = None
        if self.synthetic != 0 and self.synthetic_set is not None:
            self._synthetic_store = open_synthetic(self.synthetic_set, self.store)
            synthetic = self._synthetic_rows(self._synthetic_store)
            instead = self.sampling.replacement(
                synthetic, rows[rows.split == "train"], preferred=real, seed=self.seed
            )
            if instead is None:
                self._stores[False] = self._synthetic_store
                tables.append(self._in_schema(synthetic, real=False))
            else:
                tables.append(self._in_schema(rows.loc[instead], real=True))
        self.index = pd.concat(tables, ignore_index=True)
        self._matches = self._harmonised(rows[real])
        self._check()
        self.index["label"] = self.index.label.astype(np.int64)

    def train_dataloader(self) -> DataLoader[LabelledBatch]:
        images = self._images("train")
        count = self.images_per_epoch or (self._real_images if self.budget == "steps" else None)
        sampler = Draws(
            images,
            count=count,
            seed=self.seed,
            chances=self._chances,
            begin=self.begin,
            batch_size=self.batch_size,
        )
        return self._loader(images, sampler=sampler)

    def val_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._images("val"))

    def test_dataloader(self) -> DataLoader[LabelledBatch]:
        return self._loader(self._images("test"))

    def predict_dataloader(self) -> list[DataLoader[LabelledBatch]]:
        return [self.val_dataloader(), self.test_dataloader()]

    def rows_dataloader(self, rows: Rows) -> DataLoader[LabelledBatch]:
        """These rows of the index in this order."""
        return self._loader(self._images_of(rows))

    @property
    def _chances(self) -> npt.NDArray[np.float64] | None:
        return self.sampling.chances(self.index[self.index.split == "train"])

    def _images(self, split: str) -> Images:
        return self._images_of(np.flatnonzero(self.index.split == split))

    def _images_of(self, rows: Rows) -> Images:
        labels = disease_labels(self.index, self.labels)
        return Images(
            self.index,
            rows,
            stores=self._stores,
            matches=self._matches,
            labels=labels[:, 0] if len(self.labels) == 1 else labels,
            groups=pd.Index([group["name"] for group in self.groups]).get_indexer(self.index.group),
        )

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

    def _in_schema(self, rows: pd.DataFrame, *, real: bool) -> pd.DataFrame:
        table = rows.reindex(columns=[*SCHEMA, *self.further])
        table.insert(0, "real", real)
        table.insert(1, "stored", rows.index.to_numpy())
        return table

    def _harmonised(self, real: pd.DataFrame) -> dict[bool, Match]:
        """What brings the arm's synthetic images to the real training rows, fitted on as many of
        each group as both have."""
        if not self.harmonise:
            return {}
        synthetic = self.index[~self.index.real]
        if synthetic.empty:
            print("harmonise=true changes nothing in an arm without synthetic images", flush=True)
            return {}
        rng = np.random.default_rng([self.seed, 5])
        left, right = equal_mix(real.group, synthetic.group, rng)
        if not len(left):  # no group has both: who is shown differs anyway
            left, right = np.arange(len(real)), np.arange(len(synthetic))
        real_rows, synthetic_rows = (
            np.sort(stored[rng.permutation(len(stored))[:SAMPLE]])
            for stored in (real.index.to_numpy()[left], synthetic.stored.to_numpy()[right])
        )
        images = self._stores[False].images[synthetic_rows]
        return {False: match(images, target=self.store.images[real_rows])}

    def _synthetic_rows(self, store: Store) -> pd.DataFrame:
        """The rows of the set this arm uses: a prefix of the plan, so arms are nested and each
        prefix is balanced."""
        if store.meta["pixels"] != self.store.meta["pixels"]:
            raise ValueError(
                f"{store.folder}: its images have {store.meta['pixels']} pixels, those of cohort "
                f"{self.cohort.name} {self.store.meta['pixels']}; generate the set from a model "
                "trained at the cohort's size"
            )
        rows = store.index.sort_values("row", kind="stable").assign(
            split="train", source="synthetic"
        )
        if self.synthetic == "only":
            return rows
        lacking = int(self.synthetic) - len(rows)
        if 0 < lacking <= min(store.meta.get("planned", 0) - len(rows), LOST * int(self.synthetic)):
            print(
                f"synthetic={self.synthetic}: {lacking} images of the set {store.folder} could "
                f"not be drawn (its failed.csv names them), so this arm has {len(rows)}"
            )
        elif lacking > 0:
            raise ValueError(
                f"synthetic={self.synthetic}: the set {store.folder} holds {len(rows)} images; "
                "ask for at most that many, or generate a larger set with "
                f"plan.count={self.synthetic}"
            )
        return rows.head(int(self.synthetic))

    def _check(self) -> None:
        """Every split has rows, every row a label, and training has both labels."""
        where = f"cohort {self.cohort.name}, synthetic={self.synthetic}"
        if not (unlabelled := self.index[self.index.label.isna()]).empty:
            first = unlabelled.iloc[0]
            raise ValueError(
                f"{where}: {number_of(unlabelled.subject.nunique(), 'subjects')} of the "
                f"{first.split} split without a diagnosis, first in row {unlabelled.index[0]}; "
                "give each one, or the split 'extra'"
            )
        for split in ("train", "val", "test"):
            if not (self.index.split == split).any():
                raise ValueError(
                    f"{where}: the {split} split is empty; give the cohort more subjects or other "
                    "splits"
                )
        for disease in self.labels:
            self._check_classes(disease, where)

    def _check_classes(self, disease: str, where: str) -> None:
        """Training needs both classes of a disease; validation should have them."""
        label = disease_labels(self.index, [disease])[:, 0]
        train, val = (label[(self.index.split == split).to_numpy()] for split in ("train", "val"))
        if len(set(train)) == 1 and disease != DISEASES[0]:
            raise ValueError(
                f"{where}: {'every' if train[0] else 'no'}body in the training split has "
                f"{disease}; leave it out of labels=, or choose a cohort that knows it (UK "
                "Biobank: cohort.conditions)"
            )
        if len(set(train)) == 1:
            raise ValueError(
                f"{where}: all {len(train)} training images have label {train[0]}; training needs "
                "cases and controls, so give the cohort more subjects or another cohort.seed"
            )
        if len(set(val)) == 1:
            alone = len(self.labels) == 1
            warnings.warn(
                f"{where}: all {len(val)} validation subjects have label "
                f"{val[0]}{'' if alone else f' for {disease}'}; val_balanced_accuracy "
                f"{'is NaN and cannot choose a checkpoint' if alone else 'leaves it out'}",
                stacklevel=2,
            )


def disease_labels(index: pd.DataFrame, labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """(rows, diseases) int64, 1 = has it: `label` of the cohort for hf, the codes in `conditions`
    for the others."""
    codes = index.conditions.fillna("").str.split(";")
    columns = [index.label if name == "hf" else [name in row for row in codes] for name in labels]
    return np.stack([np.asarray(column, np.int64) for column in columns], axis=1)


def prediction_table(
    index: pd.DataFrame, outputs: Sequence[Any], *, labels: Sequence[str] = ("hf",)
) -> pd.DataFrame:
    """The table that a run leaves behind: one row per predicted image and disease.

    Args:
        index: the arm's.
        outputs: `predict_step`'s dicts (row, probability), flat or one list per loader as
            `trainer.predict` returns them.
        labels: the diseases, in the order of the probabilities' columns.

    Returns:
        Columns PREDICTIONS and the cohort's `further` ones. `row` is that of the cohort's store, so
        that a subject can be recognised where another salt has renamed it. `predicted` is 1 where
        the disease is the likelier. What the cohort does not know (ACDC: sex, age, BMI) stays
        missing.
    """
    batches = [
        batch
        for loader in outputs
        for batch in ([loader] if isinstance(loader, Mapping) else loader)
    ]
    if not batches:
        raise ValueError(
            "no predictions were made; run trainer.predict on an arm with validation and test rows"
        )
    rows = torch.cat([batch["row"] for batch in batches]).cpu().numpy()
    probability = torch.cat([batch["probability"] for batch in batches]).float().cpu().numpy()
    probability = probability.reshape(len(rows), -1)
    images = index.iloc[rows]
    label = disease_labels(images, labels)
    tables = [
        images.assign(
            row=images.stored,
            disease=name,
            label=label[:, k],
            probability=probability[:, k],
            predicted=(probability[:, k] > 0.5).astype(int),
        )
        for k, name in enumerate(labels)
    ]
    further = [name for name in index if name not in (*SCHEMA, "real", "stored")]
    return pd.concat(tables).reindex(columns=[*PREDICTIONS, *further]).reset_index(drop=True)
