"""Refit the last layer on group-balanced rows, after the training: DFR (Kirichenko et al. 2023) on
training rows, as in Kang et al. 2020 (cRT)."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from cmrcls.arms import Arms
from cmrcls.mitigation.after import BestEpoch
from cmrcls.mitigation.groups import check_domains
from cmrdata.subjects import whole

Features = npt.NDArray[np.float64]  # (rows, features)


class LastLayer(BestEpoch):
    """The best epoch predicts with a last layer that is refitted: see `refit_last_layer`."""

    check = staticmethod(check_domains)

    def predict(self, module: Any, trainer: Any, data: Arms, *, seed: int) -> pd.DataFrame:
        refit_last_layer(module, trainer, data, seed=seed)
        return super().predict(module, trainer, data, seed=seed)


def last_linear(network: nn.Module) -> nn.Linear:
    """The layer whose outputs are the network's logits."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has no linear layer to refit; choose another mitigation or "
            "backbone"
        )
    return layers[-1]


def refit_last_layer(
    module: Any, trainer: L.Trainer, data: Arms, *, seed: int, subsamples: int = 10
) -> None:
    """Refit the classifier's last linear layer, in place, on group-balanced real training rows; the
    rest stays.

    The layer becomes the mean of logistic regressions on draws of as many rows of each group as the
    smallest has. They are training rows since the validation split has chosen the epoch and holds
    few of the rare groups. An arm without real images uses its synthetic ones. With a head per
    domain, all become this one.

    Args:
        module: a Classifier with its best weights.
        trainer: predicts the layer's inputs.
        data: the arm, set up.
        seed: of the draws.
        subsamples: their number.

    Raises:
        ValueError: for a network whose logits are not those of one last linear layer.
    """
    train = data.index[data.index.split == "train"]
    train = train[whole(train) & (train.real | ~train.real.any())].drop_duplicates("stored")
    loader = data.rows_dataloader(train.index.to_numpy())
    layer = last_linear(module.network)
    features = layer_inputs(layer, module, trainer, loader)
    label = loader.dataset.label[train.index.to_numpy()].reshape(len(train), -1)
    draws = balanced_draws(train, count=subsamples, seed=seed)
    # (domains, outputs, features)
    heads = layer.weight.detach().view(-1, module.outputs, layer.in_features)
    biases = layer.bias.detach().view(-1, module.outputs)
    for k, disease in enumerate(module.labels):
        fits = [
            _regression(features[rows], label[rows, k])
            for rows in draws
            if len(set(label[rows, k])) == 2
        ]
        if not fits:
            warnings.warn(
                f"mitigation=last_layer: group-balanced rows hold no case of {disease}, or only "
                "cases; its output stays as trained",
                stacklevel=2,
            )
            continue
        weights, intercepts = zip(*fits, strict=True)
        weight, bias = (torch.as_tensor(np.mean(of, axis=0)) for of in (weights, intercepts))
        # softmax of two outputs, or the sigmoid of one
        for output, sign in ((0, -0.5), (1, 0.5)) if label.shape[1] == 1 else ((k, 1.0),):
            heads[:, output], biases[:, output] = sign * weight, sign * bias


def balanced_draws(train: pd.DataFrame, *, count: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """`count` draws of positions in `train`: of each group as many, without replacement, as the
    smallest has."""
    rng, groups = np.random.default_rng(seed), train.groupby("group").indices
    size = min(map(len, groups.values()))
    return [
        np.concatenate([rng.choice(rows, size, replace=False) for rows in groups.values()])
        for _ in range(count)
    ]


def layer_inputs(layer: nn.Linear, module: Any, trainer: L.Trainer, loader: Any) -> Features:
    """(rows, features) that `layer` gets when the rows of `loader` are predicted.

    Raises ValueError where the layer's outputs are not the network's, or rows are missing.
    """
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        inputs.append(given[0].detach().float().cpu())
        outputs[:] = [output]

    def compare(network: nn.Module, _: Any, logits: Tensor) -> None:
        if not outputs or outputs[0].shape != logits.shape or not torch.equal(outputs[0], logits):
            raise ValueError(
                f"{type(network).__name__}: its logits are not those of one last linear layer, so "
                "it can't be refitted; choose another mitigation or backbone"
            )

    hooks = [layer.register_forward_hook(keep), module.network.register_forward_hook(compare)]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code takes no new hooks
            trainer.predict(module, loader)
    finally:
        for hook in hooks:
            hook.remove()
    features: Features = torch.cat(inputs).double().numpy()
    if len(features) != len(loader.dataset):
        raise ValueError(
            f"mitigation=last_layer: this process sees {len(features)} of {len(loader.dataset)} "
            "rows; predict with use_distributed_sampler=False or trainer.devices=1"
        )
    return features


def _regression(
    features: Features, label: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], float]:
    """Weight (features,) and bias of a logistic regression on standardised features, for features
    as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = features.mean(0), features.std(0)
    # a feature that never varies says nothing
    scale[scale < 1e-8 * max(scale.max(), 1e-8)] = np.inf
    fit = LogisticRegression(max_iter=2000).fit((features - mean) / scale, label)
    weight = fit.coef_[0] / scale
    return weight, float(fit.intercept_[0] - weight @ mean)
