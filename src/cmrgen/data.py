"""The generator's DataModule: VAE moments encoded once and cached, prompts embedded once, groups sampled evenly."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property

import lightning as L
import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from tqdm import tqdm

from cmrdata.batch import LatentBatch, as_fetched
from cmrdata.cohort import balancing_weights
from cmrdata.store import Cohort, Store, fingerprint, prepare
from cmrgen.base import Base, as_control
from cmrgen.prompts import FIELDS, prompts


class Latents(L.LightningDataModule):
    """Batches of cached moments, control masks and prompt embeddings from a cohort's store.

    splits: rows to train on; "extra" (neither case nor control) may teach a base, never a study's generator.
    fields: what prompts mention. images_per_epoch: draws per epoch, None for as many as there are images.
    copies: cached versions of each training image; the first is as stored, others slightly moved and re-windowed
        together with their masks (for cohorts of tens of patients).
    """

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

    @cached_property
    def store(self) -> Store:
        """The cohort's store, built on first use."""
        return prepare(self.cohort, self.root)

    def prepare_data(self) -> None:
        self._cache(self.store)

    def setup(self, stage: str | None = None) -> None:
        moments, self.rows, masks = self._cache(self.store)
        table = self.store.index.iloc[self.rows].reset_index(drop=True)
        table["prompt"] = prompts(table, fields=self.fields)
        words = sorted(table.prompt.unique())
        context = self.base.embed(words).float().cpu()
        number = table.prompt.map({w: k for k, w in enumerate(words)}).to_numpy()
        self.table, self.dataset = table, Encoded(moments, masks, context, number, self.base.pixels)
        self.train_rows = np.flatnonzero(table.split.isin(self.splits))
        self.val_rows = np.flatnonzero(table.split == "val")[: self.val_images]
        if not len(self.train_rows):
            raise ValueError(
                f"cohort {self.store.folder.name}: no image in the splits {self.splits}; give it more subjects"
            )

    def train_dataloader(self) -> DataLoader:
        sampler = EvenDraws(
            self.table.iloc[self.train_rows],
            draws=self.images_per_epoch or len(self.train_rows),
            seed=self.seed,
        )
        subset = torch.utils.data.Subset(self.dataset, self.train_rows.tolist())
        return DataLoader(
            subset,
            sampler=sampler,
            batch_size=self.batch_size,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=as_fetched,
        )

    def val_dataloader(self) -> DataLoader:
        subset = torch.utils.data.Subset(self.dataset, self.val_rows.tolist())
        return DataLoader(subset, batch_size=self.batch_size, num_workers=self.workers, collate_fn=as_fetched)

    def _cache(self, store: Store) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(moments (n, 2C, h, w) float16, the store row of each, masks (n, 2, P, P)); encoded on first use."""
        train = np.flatnonzero(store.index.split.isin(self.splits))
        val = np.flatnonzero(store.index.split == "val")[: self.val_images]
        rows = np.concatenate([np.tile(train, self.copies), val])
        key = fingerprint(
            {"store": store.fingerprint, "base": self.base.fingerprint, "rows": rows.tolist(), "version": 1}
        )
        c, h, w = self.base.latent_shape
        shape, path = (len(rows), 2 * c, h, w), store.folder / f"moments-{key}.f16"
        moved = path.with_suffix(".masks")
        if not path.exists():
            temporary = path.with_name(f".{path.name}.{os.getpid()}")
            out = np.memmap(temporary, np.float16, "w+", shape=shape)
            masks = np.memmap(
                temporary.with_suffix(".masks"), np.uint8, "w+", shape=(len(rows), *store.masks.shape[1:])
            )
            rng = np.random.default_rng(0)
            for k in tqdm(range(0, len(rows), 64), desc="encode images", unit="batch"):
                some = rows[k : k + 64]
                image, mask = torch.from_numpy(store.images[some]), torch.from_numpy(store.masks[some])
                fresh = np.arange(k, k + len(some))
                if len(again := np.flatnonzero((fresh >= len(train)) & (fresh < len(rows) - len(val)))):
                    image[again], mask[again] = jitter(image[again], mask[again], rng)
                out[k : k + len(some)] = self.base.moments(image).half().cpu().numpy()
                masks[k : k + len(some)] = mask.numpy()
            out.flush()
            masks.flush()
            os.replace(temporary.with_suffix(".masks"), moved)
            os.replace(temporary, path)
        return (
            np.memmap(path, np.float16, "r", shape=shape),
            rows,
            np.memmap(moved, np.uint8, "r", shape=(len(rows), *store.masks.shape[1:])),
        )


class EvenDraws(WeightedRandomSampler):
    """Rows drawn with equal mass per group; by seed and epoch alone, so a resumed run draws as an uninterrupted one."""

    def __init__(self, table: pd.DataFrame, *, draws: int, seed: int) -> None:
        super().__init__(torch.as_tensor(balancing_weights(table)), num_samples=draws, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before every epoch."""
        self.generator.manual_seed(self.seed * 100003 + epoch)


class Encoded(Dataset):
    """Moments, masks and prompt embeddings by position; a batch is gathered at once."""

    def __init__(
        self, moments: np.ndarray, masks: np.ndarray, context: torch.Tensor, prompt: np.ndarray, pixels: int
    ) -> None:
        self.moments, self.masks, self.context, self.prompt, self.pixels = moments, masks, context, prompt, pixels

    def __len__(self) -> int:
        return len(self.moments)

    def __getitems__(self, at: list[int]) -> LatentBatch:
        return LatentBatch(
            moments=torch.from_numpy(self.moments[at]).float(),
            control=as_control(torch.from_numpy(self.masks[at]), self.pixels),
            context=self.context[self.prompt[at]],
        )


def jitter(images: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and mask together rotated (sd 8 degrees), scaled (sd 5 %), shifted (sd 2 %), and the image's gamma."""
    n = len(images)
    angle, size = rng.normal(0, np.deg2rad(8), n), np.exp(rng.normal(0, 0.05, n))
    matrix = np.zeros((n, 2, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle) * size
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angle) * size, np.sin(angle) * size
    matrix[:, :, 2] = rng.normal(0, 0.04, (n, 2))
    grid = torch.nn.functional.affine_grid(torch.from_numpy(matrix).float(), list(images.shape), align_corners=False)
    warp = torch.nn.functional.grid_sample
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.12, (n, 1, 1, 1)))).float()
    moved = warp(images.float() / 255, grid, padding_mode="border", align_corners=False).clamp(0, 1) ** gamma
    labels = warp(masks.float(), grid, mode="nearest", align_corners=False)
    return (moved * 255).round().to(torch.uint8), labels.to(torch.uint8)
