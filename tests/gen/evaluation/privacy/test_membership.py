"""The membership attack: exact by hand, blind to groups, independent of batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.base.load import load_base
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
