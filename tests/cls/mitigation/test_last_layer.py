from __future__ import annotations

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from cmrcls.arms import prediction_table
from cmrcls.mitigation import last_layer
from cmrcls.mitigation.last_layer import refit_last_layer
from support.biased_cohort import ALL, QUIET, Sick, arm, small


def test_the_refitted_layer_is_the_mean_of_regressions(root):
    arms = arm(root)
    model, trainer = small(arms), L.Trainer(**QUIET)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    refit_last_layer(model, trainer, arms, seed=3)
    changed = [
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert changed == ["network.3.weight", "network.3.bias"]
    once = model.network[3].weight.detach().clone()
    assert torch.allclose(once[0], -once[1])
    # from what it left: the features are the same
    refit_last_layer(model, trainer, arms, seed=3)
    assert torch.equal(once, model.network[3].weight)
    test = prediction_table(arms.index, trainer.predict(model, arms)).query("split == 'test'")
    assert test.groupby("sex").predicted.mean().between(0.3, 0.7).all()


def test_all_heads_become_the_refitted_one(root):
    arms = arm(root)
    model = small(arms, ALL["domain_independent"])
    refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    assert torch.equal(*model.network[-1].weight.detach().view(2, 2, -1))


def test_a_network_without_a_last_linear_layer_is_not_refitted(root):
    arms = arm(root)
    model = small(arms)
    model.network = nn.Sequential(model.network, nn.Softplus())
    with pytest.raises(ValueError, match="are not those of one last linear layer"):
        refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    model.network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    with pytest.raises(ValueError, match="no linear layer"):
        refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)


def test_a_disease_that_the_draws_lack_keeps_its_output(root):
    with pytest.warns(UserWarning, match="have label 0 for af"):
        arms = arm(root, cohort=Sick(), labels=["hf", "mi", "af"])
    model = small(arms)
    before = model.network[3].weight.detach().clone()
    with pytest.warns(UserWarning, match="no case of af, or only cases") as told:
        refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    assert [w.filename for w in told if "no case of af" in str(w.message)] == [__file__]
    same = [torch.equal(old, new) for old, new in zip(before, model.network[3].weight, strict=True)]
    assert same == [False, False, True]


def test_a_regression_on_standardised_features_is_given_for_features_as_they_are() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3)) * [1.0, 50.0, 0.0] + [0.0, -7.0, 4.0]
    label = (features[:, 0] + features[:, 1] / 50 + rng.normal(size=200) > 0).astype(int)
    weight, bias = last_layer._regression(features, label)
    plain = features[:, :2]
    standard = (plain - plain.mean(0)) / plain.std(0)
    theirs = LogisticRegression(max_iter=2000).fit(standard, label)
    assert weight[2] == 0  # it never varies
    assert features @ weight + bias == pytest.approx(theirs.decision_function(standard), abs=1e-6)


def test_a_draw_has_as_many_rows_of_each_group_as_the_smallest() -> None:
    train = pd.DataFrame({"group": list("aaaaabbccc")})
    draws = last_layer.balanced_draws(train, count=30, seed=0)
    assert len(draws) == 30
    for rows in draws:
        assert sorted(train.group[rows]) == list("aabbcc") and len(set(rows)) == 6
    assert {*np.concatenate(draws)} == {*range(10)}
    again = last_layer.balanced_draws(train, count=30, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(draws, again, strict=True))
