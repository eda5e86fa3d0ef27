from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch

from cmrcls.classifier import Classifier
from cmrcls.mitigation.losses import GroupDRO, Mean, Weighted, robust_mean, sample_losses
from cmrcls.mitigation.sampling import GroupBalanced
from support.biased_cohort import QUIET, arm, small


def test_the_robust_loss_follows_the_worst_group():
    losses, group = torch.tensor([1.0, 3.0, 2.0], requires_grad=True), torch.tensor([0, 2, 2])
    start = torch.tensor([0.2, 0.3, 0.5])
    loss, weight = robust_mean(losses, group, weight=start, eta=0.1)
    expected = np.array([0.2 * np.exp(0.1), 0.3, 0.5 * np.exp(0.25)])
    expected /= expected.sum()
    assert weight.tolist() == pytest.approx(expected) and not weight.requires_grad
    assert loss.item() == pytest.approx(expected[0] * 1 + expected[2] * 2.5)
    loss.backward()
    assert losses.grad.tolist() == pytest.approx([expected[0], expected[2] / 2, expected[2] / 2])
    for _ in range(300):
        weight = robust_mean(losses.detach(), group, weight=weight, eta=0.1)[1]
    assert weight[2] > 0.99


def test_the_robust_loss_is_the_same_in_two_processes():
    losses, group, start = (
        torch.rand(8),
        torch.tensor([0, 1, 1, 3, 0, 3, 3, 3]),
        torch.full((4,), 0.25),
    )
    loss, weight = robust_mean(losses, group, weight=start, eta=0.5)
    halves = [(losses[k::2], group[k::2]) for k in (0, 1)]
    sums = sum(torch.zeros(4).index_add(0, g, x) for x, g in halves)
    counts = sum(torch.bincount(g, minlength=4).float() for _, g in halves)
    parts = []
    for x, g in halves:
        answers = iter([counts, sums, torch.tensor([2.0])])
        parts.append(
            robust_mean(x, g, weight=start, eta=0.5, total=lambda _, sums=answers: next(sums))
        )
    assert (parts[0][0] + parts[1][0]).item() / 2 == pytest.approx(loss.item())
    assert all(torch.allclose(part[1], weight) for part in parts)


def test_what_a_loss_keeps_is_in_the_checkpoint(root, tmp_path):
    arms = arm(root, sampling=GroupBalanced())

    def model() -> Classifier:
        return Classifier(width=8, pixels=16, loss=GroupDRO(arms.groups, eta=0.1))

    first, trainer = model(), L.Trainer(max_steps=2, limit_val_batches=1, **QUIET)
    trainer.fit(first, arms)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    assert first.loss.weight.std() > 1e-4 and first.loss.weight.sum() == pytest.approx(1)
    saved = torch.load(tmp_path / "one.ckpt", weights_only=True)  # plain values alone
    again = model()
    assert not torch.equal(again.loss.weight, first.loss.weight)
    again.load_state_dict(saved["state_dict"])
    assert torch.equal(again.loss.weight, first.loss.weight)
    loaded = Classifier.load_from_checkpoint(
        tmp_path / "one.ckpt", map_location="cpu", loss=model().loss
    )
    assert torch.equal(loaded.loss.weight, first.loss.weight)


def test_a_loss_that_is_not_finite_does_not_spoil_the_weights(root):
    arms = arm(root)
    loss = GroupDRO(arms.groups, eta=0.1)
    before = loss.weight.clone()
    assert not loss(torch.tensor([1.0, torch.inf]), torch.tensor([0, 1])).isfinite()
    assert torch.equal(loss.weight, before)
    assert loss(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).isfinite()
    assert loss.weight[1] > loss.weight[0] > loss.weight[2]


def test_only_the_training_takes_the_mitigation(root):
    """Curves of validation compare between mitigations."""
    torch.manual_seed(0)
    arms = arm(root)
    batch = next(iter(arms.train_dataloader()))
    plain = small(arms)
    batch["image"] = plain.network_input(batch["image"])
    for loss in (Weighted(arms.groups), GroupDRO(arms.groups, eta=1.0)):
        model = small(arms)
        model.network, model.loss = plain.network, loss
        assert model._loss(batch, "validation")[0] == plain._loss(batch, "validation")[0]
        assert abs(model._loss(batch, "training")[0] - plain._loss(batch, "training")[0]) > 1e-3


@pytest.mark.parametrize("loss", [Weighted, GroupDRO])
def test_a_loss_that_needs_groups_asks_for_them(loss):
    with pytest.raises(ValueError, match=f"{loss.__name__}: the groups are missing; .*Arms.groups"):
        loss([])
    assert Mean()(torch.tensor([1.0, 3.0]), torch.tensor([-1, 0])) == 2


def test_several_diseases_are_binary_losses():
    logits, label = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    expected = -(label * logits.sigmoid().log() + (1 - label) * (1 - logits.sigmoid()).log())
    assert torch.allclose(
        sample_losses(logits, label, reduction="none"), expected.mean(1), atol=1e-6
    )
    assert torch.allclose(sample_losses(logits, label), expected.mean(), atol=1e-6)
