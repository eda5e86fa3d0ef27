"""What the ControlNet trains on: encoded once, drawn evenly, moved together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cmrgen.training.latents as data_module
from cmrgen.base.frozen import Base, as_control, as_rgb
from cmrgen.base.load import load_base
from cmrgen.prompts import prompts
from cmrgen.training import small_base
from cmrgen.training.latents import Encoded, jitter, pictured_rows


def test_moments_control_and_context_are_the_rows_own(tiny_base, latents):
    # one that has not seen the cached embeddings
    data, base = latents(), load_base(weights=str(tiny_base))
    at = [0, 5, int(data.train_rows[-1]), int(data.val_rows[0])]
    batch, rows = data.dataset.__getitems__(at), data.rows[at]
    images = torch.from_numpy(data.store.images[rows])
    wanted = base.vae.encode(as_rgb(images, 32, channels=base.channels)).latent_dist.parameters
    torch.testing.assert_close(batch["moments"], wanted, atol=2e-3, rtol=2e-3)
    assert torch.equal(batch["control"], as_control(torch.from_numpy(data.store.masks[rows]), 32))
    assert (batch["control"] * 3 - (batch["control"] * 3).round()).abs().max() < 1e-6 and batch[
        "control"
    ].max() == 1
    words = prompts(data.store.index.iloc[rows])
    torch.testing.assert_close(batch["context"], base.embed(words.tolist()), atol=1e-5, rtol=1e-5)
    assert set(data.table.split.iloc[data.train_rows]) == {"train"} and set(
        data.table.split.iloc[data.val_rows]
    ) == {"val"}
    assert len(data.val_rows) == 8


def test_images_and_prompts_are_encoded_once(tiny_base, latents, monkeypatch):
    folder = latents().store.folder

    def files() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for kind in ("*moments-*", "*prompts-*")
            for path in folder.glob(kind)
        }

    before = files()
    assert {path.name.split("-")[0] for path in before} == {"moments", "prompts"}
    monkeypatch.setattr(Base, "part", lambda _, name: pytest.fail(f"{name} loaded again"))
    fresh = load_base(weights=str(tiny_base))
    latents(base=fresh)
    assert files() == before
    # known without the tower
    assert fresh.embed(["", "Male, age in 70s, normal BMI, healthy"]).shape == (2, 20, 32)


def test_images_take_their_masks_from_the_store(latents):
    data = latents()
    assert isinstance(data.dataset.masks, np.memmap) and not list(data.store.folder.glob("*.masks"))


def test_every_group_is_drawn_equally_often(latents):
    data = latents(images_per_epoch=6000)
    sampler = data.train_dataloader().sampler
    groups = data.table.group.iloc[data.train_rows].to_numpy()
    names = sorted(set(groups))
    mass = [float(sampler.weights[torch.from_numpy(groups == name)].sum()) for name in names]
    assert np.ptp(mass) < 1e-9 and len(names) > 20
    drawn = groups[list(sampler)]
    counts = np.array([(drawn == name).sum() for name in names])
    expected = 6000 / len(names)
    assert (
        counts.sum() == 6000
        and ((counts - expected) ** 2 / expected).sum() < len(names) + 5 * (2 * len(names)) ** 0.5
    )
    assert np.ptp(np.unique(groups, return_counts=True)[1]) > 18  # the cohort itself is uneven


def test_copies_move_image_and_mask_together_and_keep_the_first(base, latents, monkeypatch):
    moved = []

    def spy(images, masks, rng):
        out = jitter(images, masks, rng)
        moved.append(out)
        return out

    monkeypatch.setattr(data_module, "jitter", spy)
    plain, data = latents(), latents(copies=2)
    n, val = len(plain.train_rows), len(plain.val_rows)
    assert len(data.train_rows) == 2 * n and len(data.dataset) == 2 * n + val
    masks, moments = data.dataset.masks, data.dataset.moments
    own = data.store.masks[plain.rows]
    assert np.array_equal(masks[:n], own[:n]) and np.array_equal(masks[2 * n :], own[n:])
    np.testing.assert_allclose(moments[:n], plain.dataset.moments[:n], atol=5e-3, rtol=5e-3)
    np.testing.assert_allclose(moments[2 * n :], plain.dataset.moments[n:], atol=5e-3, rtol=5e-3)
    images, labels = (torch.cat(part) for part in zip(*moved, strict=True))
    assert len(images) == n and np.array_equal(masks[n : 2 * n], labels.numpy())
    np.testing.assert_allclose(
        moments[n : n + 16], base.moments(images[:16]).numpy(), atol=5e-3, rtol=5e-3
    )
    assert (masks[n : 2 * n] != masks[:n]).any((1, 2, 3)).mean() > 0.9
    assert (data.table.prompt[:n].to_numpy() == data.table.prompt[n : 2 * n].to_numpy()).all()


def test_jitter_moves_an_image_as_its_mask(latents):
    masks = torch.from_numpy(np.array(latents().store.masks[:60]))
    images = (masks > 0).to(torch.uint8) * 255  # gamma leaves black and white alone
    moved, labels = jitter(images, masks, np.random.default_rng(1))
    assert moved.dtype == labels.dtype == torch.uint8 and set(labels.unique().tolist()) <= {
        0,
        1,
        2,
        3,
    }
    together, apart = (((x > 127) != (labels > 0)).float().mean() for x in (moved, images))
    assert together < apart / 3


def test_epochs_differ_in_their_draws_and_seeds_do(latents):
    samplers = [
        latents(seed=seed, images_per_epoch=24).train_dataloader().sampler for seed in (0, 1)
    ]

    def drawn(seed: int, epoch: int) -> list[int]:
        samplers[seed].set_epoch(epoch)
        return list(samplers[seed])

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}) == 6


def test_repeats_are_capped_in_both_trainings(latents):
    data = latents(copies=2, max_repeats=1.5)
    weights = data.train_dataloader().sampler.weights
    # of all versions of an image together
    assert float(weights.max()) * len(data.train_rows) == pytest.approx(1.5)
    assert 2 * len(data.training) == len(data.train_rows)
    assert data.training.index.tolist() == data.rows[data.train_rows[: len(data.training)]].tolist()
    images = small_base.StoreImages(
        data.store, splits=["train"], steps=3, batch_size=4, seed=0, max_repeats=1.5
    )
    images.trainer = SimpleNamespace(accumulate_grad_batches=1, world_size=1)
    weights = images.train_dataloader().sampler.weights
    assert float(weights.max()) * len(weights) == pytest.approx(1.5)


def kinds(*counts: tuple[object, object, int]) -> pd.DataFrame:
    """Rows of (label, sex), so many of each."""
    rows = [(label, sex) for label, sex, count in counts for _ in range(count)]
    return pd.DataFrame(rows, columns=["label", "sex"])


def test_a_preview_pictures_each_kind_in_turn_and_spreads_over_it():
    index = kinds((0, "F", 5), (0, "M", 9), (1, "F", 1), (1, "M", 3))
    chosen = pictured_rows(index, 6)
    assert sorted(chosen.index) == [0, 4, 5, 13, 14, 15]
    assert chosen[["label", "sex"]].drop_duplicates().shape[0] == 4
    assert chosen.label.is_monotonic_increasing
    assert sorted(pictured_rows(index, 4).index) == [0, 5, 14, 15]
    assert len(pictured_rows(index, 18)) == 18 == len(pictured_rows(index, 99))
    # where kinds run out, others fill up
    few = pictured_rows(kinds((0, "F", 1), (1, "F", 6)), 6)
    assert len(few) == 6 and (few.label == 0).sum() == 1
    unknown = pictured_rows(kinds((None, None, 3)), 2)
    assert len(unknown) == 2 and pictured_rows(index[:0], 3).empty


def test_what_is_encoded_is_gathered_by_its_own_mask_and_prompt():
    moments = np.arange(3 * 2, dtype=np.float16).reshape(3, 2, 1, 1)
    masks = np.arange(3, dtype=np.uint8).repeat(2 * 4 * 4).reshape(3, 2, 4, 4)
    context = torch.arange(2.0).reshape(2, 1, 1)
    data = Encoded(moments, masks, np.array([2, 0, 1]), context, np.array([1, 0, 1]), 4)
    batch = data.__getitems__([2, 0])
    assert len(data) == 3 and batch["moments"].dtype == torch.float32
    assert batch["moments"][:, 0, 0, 0].tolist() == [4, 0]
    assert (batch["control"] * 3).amax((1, 2, 3)).tolist() == pytest.approx([1, 2])
    assert batch["context"].flatten().tolist() == [1, 1]


def test_a_mask_of_one_phase_teaches_nobody(latents, monkeypatch):
    data = latents()
    half = data.store.index.assign(flags="")
    row = int(np.flatnonzero(half.split == "train")[0])
    half.loc[row, "flags"] = "nonfinite;ed_unlabelled"
    vars(data.store)["index"] = half
    assert row not in data.training.index
    assert len(data.training) == (half.split == "train").sum() - 1


class Drawn:
    """A generator of numbers that were chosen: angle, log size, shift, log gamma."""

    def __init__(self, *values: float | tuple[float, float]) -> None:
        self.values, self.asked = list(values), []

    def normal(self, mean: float, sd: float, shape: Any) -> np.ndarray:
        self.asked.append((mean, sd))
        return np.broadcast_to(self.values.pop(0), shape).copy()


def jittered(*values: float | tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor, Any]:
    rng: Any = Drawn(*values)
    return *jitter(PICTURES, LABELS, rng), rng


PICTURES = torch.randint(
    0, 256, (2, 2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)
LABELS = PICTURES // 64


def test_a_jitter_by_nothing_keeps_the_bytes():
    images, masks, rng = jittered(0.0, 0.0, 0.0, 0.0)
    assert torch.equal(images, PICTURES) and torch.equal(masks, LABELS)
    assert rng.asked == [(0, np.deg2rad(8)), (0, 0.05), (0, 0.04), (0, 0.12)]


def test_a_jitter_turns_zooms_moves_and_darkens_as_it_says():
    images, masks, _ = jittered(np.pi / 2, 0.0, 0.0, 0.0)
    assert torch.equal(images, PICTURES.rot90(1, (2, 3)))
    assert torch.equal(masks, LABELS.rot90(1, (2, 3)))
    # a quarter turn of twice the field: every other pixel's place, half of it outside
    turned, labels, _ = jittered(np.pi / 2, np.log(2.0), 0.0, 0.0)
    middle = PICTURES.float().rot90(1, (2, 3))
    pooled = torch.nn.functional.avg_pool2d(middle, 2)
    assert (turned[..., 4:12, 4:12].float() - pooled).abs().max() <= 0.51
    assert not labels[..., :4, :].any() and not labels[..., -4:].any()
    # a shift by two pixels of sixteen to the left and one up
    moved, labels, _ = jittered(0.0, 0.0, (0.25, 0.125), 0.0)
    assert torch.equal(moved[..., :15, :14], PICTURES[..., 1:, 2:])
    assert torch.equal(labels[..., :15, :14], LABELS[..., 1:, 2:])
    darker, same, _ = jittered(0.0, 0.0, 0.0, np.log(2.0))
    wanted = (255 * (PICTURES.float() / 255) ** 2).round()
    assert (darker.float() - wanted).abs().max() <= 1 and torch.equal(same, LABELS)


def test_an_epoch_has_whole_batches_alone_and_validation_leaves_nobody_out(latents):
    data = latents(images_per_epoch=11, val_images=6)
    assert [len(batch["context"]) for batch in data.train_dataloader()] == [4, 4]
    assert [len(batch["context"]) for batch in data.val_dataloader()] == [4, 2]
