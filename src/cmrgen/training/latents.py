"""The generator's DataModule: VAE moments encoded once and cached, prompts embedded once, groups
sampled evenly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch.utils.data import DataLoader, Dataset

from cmrdata.batch import LatentBatch, as_fetched
from cmrdata.disk import fingerprint, write_atomic, writing
from cmrdata.prepare import prepare
from cmrdata.protocol import Cohort
from cmrdata.row_cache import RowFile, filled
from cmrdata.store import Store
from cmrdata.subjects import balancing_weights
from cmrgen.base.frozen import Base, as_control
from cmrgen.prompts import EMPTY, FIELDS, prompts
from cmrstudy.continuing import START, EpochDraws, Place

# between two writes of the cache: 4 images of 512 px, through the VAE in portions
ENCODED_PIXELS = 2**20
ENCODED_IMAGES = 64  # and no more than this
PICTURED = 6  # validation images in a preview


class Latents(L.LightningDataModule):
    """Batches of cached moments, control masks and prompt embeddings from a cohort's store.

    Args:
        cohort: whose images are learnt.
        root: of the stores.
        base: encodes images and prompts.
        batch_size: images of a batch.
        images_per_epoch: draws of an epoch, None for as many as there are images.
        splits: rows to train on; "extra" (neither case nor control) may teach a base, never a
            study's generator.
        fields: what prompts mention.
        val_images: that validation sees, at most.
        copies: cached versions of each training image; the first is as stored, others slightly
            moved and re-windowed together with their masks (for cohorts of tens of patients).
        max_repeats: groups are drawn evenly as far as no image is drawn more often than this in a
            pass of as many draws as there are images; None for no cap.
        workers: processes that read batches ahead.
        seed: of the draws.
    """

    begin = Place()  # of the training draws; cmrstudy.training.fit sets it

    def __init__(
        self,
        *,
        cohort: Cohort,
        root: str,
        base: Base,
        batch_size: int = 16,
        images_per_epoch: int | None = None,
        splits: Sequence[str] = ("train",),
        fields: Sequence[str] = FIELDS,
        val_images: int = 128,
        copies: int = 1,
        max_repeats: float | None = 20.0,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.cohort, self.root, self.base, self.seed = cohort, root, base, seed
        self.batch_size, self.images_per_epoch, self.workers, self.copies = (
            batch_size,
            images_per_epoch,
            workers,
            copies,
        )
        self.splits, self.fields, self.val_images = tuple(splits), tuple(fields), val_images
        self.max_repeats = max_repeats

    @cached_property
    def store(self) -> Store:
        """The cohort's store, built on first use."""
        return prepare(self.cohort, self.root)

    def prepare_data(self) -> None:
        """Fills the caches, on the trainer's device; Lightning calls it in one process of a
        machine, the others wait."""
        self._caches()

    def setup(self, stage: str | None = None) -> None:
        self.rows, self.table, self.dataset = self._caches()
        self.pictured = self._pictured()
        self.train_rows = np.flatnonzero(self._trains(self.table))
        self.val_rows = np.flatnonzero(self.table.split == "val")[: self.val_images]

    def train_dataloader(self) -> DataLoader:
        sampler = EvenDraws(
            self.table.iloc[self.train_rows],
            draws=self.images_per_epoch or len(self.train_rows),
            seed=self.seed,
            begin=self.begin,
            batch_size=self.batch_size,
            max_repeats=self.max_repeats,
        )
        subset = torch.utils.data.Subset(self.dataset, self.train_rows.tolist())
        return DataLoader(
            subset,
            sampler=sampler,
            batch_size=self.batch_size,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=as_fetched,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        subset = torch.utils.data.Subset(self.dataset, self.val_rows.tolist())
        return DataLoader(
            subset,
            batch_size=self.batch_size,
            num_workers=self.workers,
            collate_fn=as_fetched,
            pin_memory=torch.cuda.is_available(),
        )

    @property
    def training(self) -> pd.DataFrame:
        """The store's rows to train on, each once; nothing is encoded for it."""
        return self.store.index[self._trains(self.store.index)]

    def _trains(self, table: pd.DataFrame) -> pd.Series:
        # a mask of one phase teaches a wrong heart
        half = table["flags"].fillna("").str.contains("ed_unlabelled")
        return table.split.isin(self.splits) & ~half

    def _caches(self) -> tuple[np.ndarray, pd.DataFrame, Encoded]:
        """(store row of each image, their table with prompts, the images encoded); VAE and text
        tower are then let go."""
        store = self.store
        train = np.flatnonzero(store.index.split.isin(self.splits))
        val = np.flatnonzero(store.index.split == "val")[: self.val_images]
        if not len(train):
            raise ValueError(
                f"cohort {store.folder.name}: no image in the splits {self.splits}; give it more "
                "subjects"
            )
        rows = np.concatenate([np.tile(train, self.copies), val])
        table = store.index.iloc[rows].reset_index(drop=True)
        table["prompt"] = prompts(table, fields=self.fields)
        if self.trainer is not None:
            self.base.to(self.trainer.strategy.root_device)
        first, copies = np.zeros(len(train), bool), np.ones((self.copies - 1) * len(train), bool)
        moments, masks, at = self._encoded(
            rows, moved=np.concatenate([first, copies, np.zeros(len(val), bool)])
        )
        sentences = [EMPTY, *sorted({*table.prompt, *self._pictured().prompt} - {EMPTY})]
        context = contexts(self.base, sentences, store.folder)
        self.base.release("vae", "text")
        number = table.prompt.map({text: k for k, text in enumerate(sentences)}).to_numpy()
        return rows, table, Encoded(moments, masks, at, context, number, self.base.pixels)

    def _pictured(self) -> pd.DataFrame:
        """Rows of the store's index, with prompts, that previews show: validation images of all
        kinds."""
        table = pictured_rows(self.store.index[self.store.index.split == "val"], PICTURED)
        return table.assign(prompt=prompts(table, fields=self.fields))

    def _encoded(
        self, rows: np.ndarray, *, moved: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(moments (n, 2C, h, w) float16, masks (., 2, P, P), row of each one's mask) of store rows
        (n,).

        The masks are the store's own, unless some images are `moved` (n, bool): then all are cached
        beside the moments.
        """
        store, (c, h, w) = self.store, self.base.latent_shape
        batch = max(1, min(ENCODED_IMAGES, ENCODED_PIXELS // self.base.pixels**2))
        facts = {
            "store": store.fingerprint,
            "base": self.base.fingerprint,
            "rows": rows.tolist(),
            "batch": batch,
        }
        path = store.folder / f"moments-{fingerprint({**facts, 'version': 3})}.f16"
        files = [RowFile(path, np.float16, (2 * c, h, w))]
        if moved.any():
            files.insert(0, RowFile(path.with_suffix(".masks"), np.uint8, store.masks.shape[1:]))

        def encode(some: slice) -> list[torch.Tensor]:
            images, masks = (
                torch.from_numpy(store.images[rows[some]]),
                torch.from_numpy(store.masks[rows[some]]),
            )
            # a generator per batch: a continued cache has the same bytes
            if len(again := np.flatnonzero(moved[some])):
                rng = np.random.default_rng([0, some.start])
                images[again], masks[again] = jitter(images[again], masks[again], rng)
            moments = self.base.moments(images).half().cpu()
            return [masks, moments][-len(files) :]

        what = "moments and masks" if moved.any() else "moments"
        *own, moments = filled(files, count=len(rows), batch=batch, what=what, make=encode)
        return (moments, own[0], np.arange(len(rows))) if own else (moments, store.masks, rows)


def pictured_rows(index: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows at most, with both diagnoses and both sexes where there are some: each kind in
    turn, evenly spread."""
    kinds = [part for _, part in index.groupby([index.label.fillna(-1), index.sex.fillna("")])]
    share = -(-count // max(1, len(kinds)))
    spread = [
        part.iloc[np.linspace(0, len(part) - 1, min(share, len(part))).round().astype(int)]
        for part in kinds
    ]
    turns = [part.iloc[[k]] for k in range(share) for part in spread if k < len(part)]
    rest = index.drop([row for turn in turns for row in turn.index]).iloc[
        : max(0, count - len(turns))
    ]
    return pd.concat([index.iloc[:0], *turns[:count], rest]).sort_values(
        ["label", "sex"], kind="stable"
    )


class EvenDraws(EpochDraws):
    """Rows drawn with equal mass per group; by seed and epoch alone, so a resumed run draws as an
    uninterrupted one.

    `max_repeats`: of `balancing_weights`; a row's expected number of draws in a pass, at most.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        draws: int,
        seed: int,
        begin: Place = START,
        batch_size: int = 1,
        max_repeats: float | None = None,
    ) -> None:
        super().__init__(draws, seed=seed, begin=begin, batch_size=batch_size)
        self.weights = torch.as_tensor(
            balancing_weights(table, max_repeats=max_repeats), dtype=torch.double
        )

    def drawn(self) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 100003 + self.epoch)
        return torch.multinomial(self.weights, self.count, replacement=True, generator=generator)


class Encoded(Dataset):
    """Moments, masks and prompt embeddings by position; a batch is gathered at once.

    mask, prompt: row of `masks` and of `context` for each row of `moments`.
    """

    def __init__(
        self,
        moments: np.ndarray,
        masks: np.ndarray,
        mask: np.ndarray,
        context: torch.Tensor,
        prompt: np.ndarray,
        pixels: int,
    ) -> None:
        self.moments, self.masks, self.context, self.pixels = moments, masks, context, pixels
        self.mask, self.prompt = mask, prompt

    def __len__(self) -> int:
        return len(self.moments)

    def __getitems__(self, at: list[int]) -> LatentBatch:
        return LatentBatch(
            moments=torch.from_numpy(self.moments[at]).float(),
            control=as_control(torch.from_numpy(self.masks[self.mask[at]]), self.pixels),
            context=self.context[self.prompt[at]],
        )


def contexts(base: Base, sentences: list[str], folder: Path) -> torch.Tensor:
    """(n, tokens, width) float32 embeddings of prompts, cached in `folder`; the base then knows
    them without its tower."""
    facts = {"base": base.fingerprint, "prompts": sentences, "version": 1}
    path = folder / f"prompts-{fingerprint(facts)}.safetensors"
    if not path.exists():
        context = base.embed(sentences).float().cpu()
        with writing(folder):
            write_atomic(path, save({"context": context}))
    context = load_file(path)["context"]
    base.contexts |= dict(zip(sentences, context, strict=True))
    return context


def jitter(
    images: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and mask together rotated (sd 8 degrees), scaled (sd 5 %), shifted (sd 2 %), and the
    image's gamma."""
    n = len(images)
    angle, size = rng.normal(0, np.deg2rad(8), n), np.exp(rng.normal(0, 0.05, n))
    matrix = np.zeros((n, 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * size
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle) * size, np.sin(angle) * size
    matrix[:, :, 2] = rng.normal(0, 0.04, (n, 2))
    grid = torch.nn.functional.affine_grid(
        torch.from_numpy(matrix).float(), list(images.shape), align_corners=False
    )
    warp = torch.nn.functional.grid_sample
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.12, (n, 1, 1, 1)))).float()
    grid, gamma = grid.to(images.device), gamma.to(images.device)
    moved = (
        warp(images.float() / 255, grid, padding_mode="border", align_corners=False).clamp(0, 1)
        ** gamma
    )
    labels = warp(masks.float(), grid, mode="nearest", align_corners=False)
    return (moved * 255).round().to(torch.uint8), labels.to(torch.uint8)
