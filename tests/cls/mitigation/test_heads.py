from __future__ import annotations

import pytest
import torch

from cmrcls.mitigation.heads import HeadPerDomain, OneHead
from support.biased_cohort import ALL, arm, small


def test_a_head_learns_from_its_own_domain_and_predictions_take_the_mean(root):
    arms = arm(root)
    model = small(arms, ALL["domain_independent"])
    batch = next(iter(arms.train_dataloader()))
    women = torch.tensor([fact["domain"] == "F" for fact in arms.groups])[batch["group"]]
    batch = {key: value[women] for key, value in batch.items()}
    batch["image"] = model.network_input(batch["image"])
    model._loss(batch, "training")[0].backward()
    grad = model.network[-1].weight.grad.view(2, 2, -1)
    assert grad[0].abs().max() > 0 and grad[1].abs().max() == 0
    logits = model.network(batch["image"])
    assert torch.allclose(model(batch["image"]), (logits[:, :2] + logits[:, 2:]) / 2)


def test_a_row_gets_the_logits_of_its_domain():
    groups = [
        {"name": f"{sex}/{diagnosis}", "domain": sex, "weight": 1.0}
        for diagnosis in ("healthy", "hf")
        for sex in "FM"
    ]
    logits, group = torch.rand(4, 2 * 3), torch.tensor([0, 1, 2, 3])  # F, M, F, M
    heads = HeadPerDomain(groups)
    own = torch.stack([logits[k, 3 * (k % 2) : 3 * (k % 2) + 3] for k in range(4)])
    assert heads.domains == 2 and torch.equal(heads(logits, group), own)
    assert torch.allclose(heads(logits), (logits[:, :3] + logits[:, 3:]) / 2)
    assert OneHead.domains == 1 and torch.equal(OneHead()(logits, group), logits)
    with pytest.raises(ValueError, match="HeadPerDomain: the groups are missing"):
        HeadPerDomain([])
