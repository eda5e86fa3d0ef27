"""The membership attack: exact by hand, blind to groups, independent of batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.base.load import load_base
from cmrgen.evaluation.privacy import membership
from cmrgen.evaluation.privacy.membership import diffusion_losses, generator_attack, loss_attack
from cmrgen.evaluation.privacy.verdicts import membership_verdict
from support.fake_cohort import FakeCohort


def test_membership_of_exchangeable_and_of_remembered_losses() -> None:
    draws, covered, resolved = np.random.default_rng(0), 0, 0
    for seed in range(60):
        x, y = draws.normal(size=120), draws.normal(size=150)
        found = loss_attack(x, y, seed=seed, draws=200)
        covered += found.auc_low <= 0.5 <= found.auc_high
        resolved += found.tpr >= found.resolvable
    # 57 and at most 3 are expected; both bounds lie beyond 99 %
    assert covered >= 52 and resolved <= 9
    found = loss_attack(draws.normal(-3, 1, 200), draws.normal(size=200), seed=0)
    assert found.p < 1e-9 and found.auc > 0.95 and found.auc_low < found.auc < found.auc_high
    assert found.tpr > 0.5 > found.resolvable and found.tpr_low <= found.tpr <= found.tpr_high
    assert (found.members, found.held_out) == (200, 200)


def test_membership_by_hand_and_its_limits() -> None:
    found = loss_attack(np.array([1.0, 2, 3]), np.array([2.0, 4]), seed=0)
    assert found.auc == pytest.approx((1 + 1 + 0.5 + 1 + 0 + 1) / 6)
    # 2 people cannot show 1 % false alarms
    assert np.isnan(found.tpr) and np.isnan(found.resolvable)
    y = np.arange(200.0)
    # 2 false alarms at most: losses below 2
    assert loss_attack(np.array([1.5, 2.5, 0.5, 9]), y, seed=0).tpr == 0.5
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="training losses of shape"):
            loss_attack(np.array(bad), y, seed=0)


def test_diffusion_losses_are_repeatable_and_independent_of_batches(
    tiny_base: Path, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=180), tmp_path)
    base = load_base(weights=str(tiny_base))
    generator = SimpleNamespace(
        base=base, controlnet=_silent, facts={"fields": ["sex", "diagnosis"]}
    )
    rows = np.array([3, 50, 7, 3])
    losses = diffusion_losses(generator, store, rows, seed=0, timesteps=3)
    assert (
        losses.shape == (4,)
        and np.isfinite(losses).all()
        and (losses > 0).all()
        and losses[0] == pytest.approx(losses[3])
    )
    assert losses == pytest.approx(
        diffusion_losses(generator, store, rows, seed=0, timesteps=3, batch=1), rel=1e-4
    )
    assert not np.allclose(losses, diffusion_losses(generator, store, rows, seed=1, timesteps=3))


def _silent(x: torch.Tensor, t: torch.Tensor, **_: object) -> tuple[None, None]:
    return None, None


def test_attack_compares_groups_of_equal_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=432), tmp_path)

    def losses(generator: object, store: Store, rows: np.ndarray, *, seed: int) -> np.ndarray:
        index = store.index.iloc[rows]
        assert index.subject.is_unique and index.central.all()
        return (
            np.random.default_rng(len(rows)).normal(size=len(rows))
            + 5 * index.label.to_numpy(float)
            - (2 * ((index.split == "train") & (index.sex == "F")).to_numpy())
        )

    monkeypatch.setattr("cmrgen.evaluation.privacy.membership.diffusion_losses", losses)
    table = generator_attack(None, store, seed=0).set_index("group")
    assert (table.members == table.held_out).all() and table.members["all"] == table.members[
        1:
    ].sum()
    assert table.few[1:].all() and not table.few["all"]
    female = table.index.str.startswith("F/")
    assert table.auc[female].mean() > 0.8 > 0.65 > table.auc[~female][1:].mean()
    assert generator_attack(None, store, seed=0, images=72).members.iloc[0] <= 72


def test_membership_is_judged_within_groups() -> None:
    rng = np.random.default_rng(5)
    groups = np.arange(240) % 12
    level = 5 * rng.normal(size=12)[groups]
    x, y = level + rng.normal(size=240) - 0.6, level + rng.normal(size=240)
    blind, apart = loss_attack(x, y, seed=0), loss_attack(x, y, seed=0, groups=(groups, groups))
    assert apart.p < 1e-4 < blind.p and apart.auc == blind.auc
    assert membership_verdict(apart._asdict()).startswith(
        "By the generator's loss: training images can be told from"
    )
    quiet = membership_verdict(loss_attack(y, y[::-1], seed=0)._asdict())
    assert (
        quiet.startswith("By the generator's loss: no evidence that") and "chance .5, p = " in quiet
    )


def test_what_a_number_of_people_can_show_is_negative_hypergeometric() -> None:
    """Of exchangeable losses, the members below the third smallest held-out one."""
    rng = np.random.default_rng(0)
    for n, m, alarms in ((50, 250, 2), (120, 199, 1)):
        found = loss_attack(rng.normal(size=n), rng.normal(size=m), seed=0, draws=2)
        below = stats.nhypergeom(n + m, n, alarms + 1)
        assert found.resolvable == pytest.approx((below.ppf(0.95) + 1) / n)
    few = loss_attack(rng.normal(size=2), rng.normal(size=100), seed=0, draws=2)
    assert np.isnan(few.resolvable) or few.resolvable <= 1


def test_auc_and_rate_of_each_replicate() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 40, (3, 30)).astype(float), rng.integers(5, 45, (3, 220)).astype(float)
    auc, tpr = membership._auc_and_tpr(x, y)
    for k in range(3):
        kind = np.r_[np.ones(30), np.zeros(220)]
        assert auc[k] == pytest.approx(roc_auc_score(kind, -np.r_[x[k], y[k]]))
        assert tpr[k] == (x[k] < np.sort(y[k])[2]).mean()  # 2 of 220 may lie below
    assert np.isnan(membership._auc_and_tpr(x, y[:, :99])[1]).all()


def test_a_loss_is_the_mean_over_even_timesteps_of_what_a_network_misses() -> None:
    rng = np.random.default_rng(2)
    people = pd.DataFrame({"sex": ["F", "M", "F"], "diagnosis": ["hf", "healthy", "healthy"]})
    people = people.assign(age=np.nan, bmi_band=None, conditions="")
    images = rng.integers(0, 256, (3, 2, 4, 4)).astype(np.uint8)
    masks = rng.integers(0, 4, (3, 2, 4, 4)).astype(np.uint8)
    store: Any = SimpleNamespace(images=images, masks=masks, index=people)
    asked: list[Any] = []

    def embed(words: list[str]) -> torch.Tensor:
        asked.append(words)
        return torch.zeros(len(words), 1, 1)

    def moments(pictures: torch.Tensor) -> torch.Tensor:
        return torch.cat([pictures.float()[:, :1] / 255, torch.zeros(len(pictures), 1, 4, 4)], 1)

    def sample_latent(of: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        assert not noise.any()  # the posterior's mean
        return of[:, :1]

    def unet(x: torch.Tensor, t: torch.Tensor, **_: Any) -> Any:
        asked.append(t.tolist())
        return SimpleNamespace(sample=torch.zeros_like(x))

    alphas = torch.linspace(0.99, 0.01, 40)
    base = SimpleNamespace(
        **{"alphas": alphas, "latent_shape": (1, 4, 4), "device": torch.device("cpu")},
        **{"pixels": 4, "prediction": "v_prediction", "unet": unet, "embed": embed},
        **{"moments": moments, "sample_latent": sample_latent},
    )
    generator = SimpleNamespace(base=base, controlnet=_silent, facts={"fields": ["sex"]})
    rows = np.array([2, 0, 1])
    losses = diffusion_losses(generator, store, rows, seed=3, timesteps=4, batch=2)
    times = [5, 15, 25, 35]
    assert asked == [
        *(["Female", "Female"], *([t, t] for t in times)),
        *(["Male"], *([t] for t in times)),
    ]
    for loss, row in zip(losses, rows, strict=True):
        x0, missed = torch.from_numpy(images[row, :1]).float() / 255, []
        for k, t in enumerate(times):
            noise = torch.randn((1, 4, 4), generator=torch.Generator().manual_seed(3 * 1009 + k))
            v = alphas[t].sqrt() * noise - (1 - alphas[t]).sqrt() * x0
            missed.append(v.square().mean().item())
        assert loss == pytest.approx(np.mean(missed), rel=1e-5)


def test_every_group_gives_as_many_of_both_sides_and_its_part_of_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = {"a": (30, 20), "b": (4, 9), "c": (1, 5), "d": (0, 7)}
    parts = [
        pd.DataFrame({"group": group, "split": split, "central": True}, index=range(count))
        for group, counts in sizes.items()
        for split, count in zip(("train", "test"), counts, strict=True)
    ]
    index = pd.concat(parts, ignore_index=True)
    index["subject"] = [f"SYN{k:04d}" for k in range(len(index))]
    twice = pd.concat([index, index[:3], index.assign(central=False)], ignore_index=True)
    store: Any = SimpleNamespace(index=twice, folder=Path("data/x"))
    asked: list[np.ndarray] = []

    def losses(_: object, __: object, rows: np.ndarray, *, seed: int) -> np.ndarray:
        asked.append(rows)
        return np.random.default_rng(seed).normal(size=len(rows))

    monkeypatch.setattr(membership, "diffusion_losses", losses)
    table = generator_attack(None, store, seed=0).set_index("group")
    assert table.members.to_dict() == {"all": 25, "a": 20, "b": 4}
    assert table.held_out.to_dict() == table.members.to_dict()
    assert table.few.to_dict() == {"all": False, "a": False, "b": True}
    train, held = (twice.iloc[rows] for rows in asked)
    assert set(train.split) == {"train"} and set(held.split) == {"test"}
    assert train.central.all() and train.subject.is_unique and held.subject.is_unique
    # half as many: 12 of 25, and one of each group at least
    fewer = generator_attack(None, store, seed=0, images=12).set_index("group")
    assert fewer.members.to_dict() == {"all": 9 + 1 + 1, "a": 9}
    with pytest.raises(ValueError, match="data/x: no group has training and held-out images both"):
        generator_attack(
            None, SimpleNamespace(index=index[index.group == "d"], folder="data/x"), seed=0
        )
