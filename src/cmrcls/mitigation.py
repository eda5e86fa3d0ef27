"""The rivals that synthetic images must beat: what is drawn, which loss, which heads, and what
follows the training.

A mitigation is a choice of each (conf/mitigation): `sampling` (cmrcls.arms.Arms), `loss` and
`heads` (cmrcls.classifier.Classifier), `after`. Groups are those of `cmrdata.subjects`, a domain is a
group without its diagnosis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmrdata.axes import AXES, known_axes
from cmrdata.subjects import balancing_weights, group_names, whole

LOSSES, HEADS, AFTER = (
    ("mean", "weighted", "groupdro"),
    ("one", "per_group"),
    ("nothing", "last_layer", "thresholds"),
)
CONSTRAINTS = (  # of fairlearn's ThresholdOptimizer
    "equalized_odds",
    "demographic_parity",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
)


def check_after(after: str, *, attribute: str, constraint: str) -> None:
    """Raise ValueError for an unknown choice of what follows the training: better before than after
    it."""
    for key, value, choices in (
        ("after", after, AFTER),
        ("attribute", attribute, tuple(AXES)),
        ("constraint", constraint, CONSTRAINTS),
    ):
        if value not in choices:
            raise ValueError(
                f"mitigation.{key}={value!r} is unknown; choose one of {', '.join(choices)}"
            )


def check_groups(
    name: str, *, choices: Mapping[str, Any], index: pd.DataFrame, cohort: str
) -> None:
    """Raise ValueError where a mitigation needs groups that an arm doesn't have: it would pass for
    one that does something.

    Args:
        name: the mitigation's.
        choices: its sampling, loss, heads, after and attribute.
        index: the arm's rows.
        cohort: its name.
    """
    train = index[index.split == "train"]
    domains = sorted(set(group_names(train.assign(diagnosis=None))))
    grouped = (
        choices["sampling"] == "balanced"
        or choices["loss"] != LOSSES[0]
        or choices["heads"] != HEADS[0]
    )
    remedy = "choose mitigation=none, or a cohort that knows sex, age or BMI"
    if (grouped or choices["after"] == "last_layer") and len(domains) < 2:
        who = (
            f"all training images are of one group, {domains[0]}"
            if domains[0]
            else "nobody's sex, age or BMI is known"
        )
        raise ValueError(
            f"mitigation={name}: in cohort {cohort} {who}, so there are no groups to treat alike; {remedy}"
        )
    if choices["after"] == "thresholds":
        axis = choices["attribute"]
        val = index[index.split == "val"]
        known = sorted(val[axis].dropna().unique())
        if len(known) < 2:
            who = f"is {known[0]} for everybody" if known else "is known for nobody"
            others = known_axes(val)
            first = f"mitigation.attribute={others[0]}, " if others else ""
            raise ValueError(
                f"mitigation={name}: {axis} {who} in the validation split of cohort {cohort}, so there are no groups with "
                f"thresholds of their own; choose {first}mitigation=none, or a cohort that knows it"
            )


# what is drawn


def group_facts(train: pd.DataFrame, *, chances: np.ndarray | None) -> list[dict[str, Any]]:
    """Per group of the training rows, sorted by name: name, domain, and weight.

    `chances`: per row, of being drawn (None: all alike). Weighting losses by `weight`, whose mean
    over the draws is 1, gives every group the mass it has in `balancing_weights`.
    """
    table = pd.DataFrame(
        {
            "name": train.group,
            "domain": group_names(train.assign(diagnosis=None)),
            "mass": balancing_weights(train),
            "drawn": 1 / len(train) if chances is None else chances,
        }
    )
    found = table.groupby("name").agg(
        domain=("domain", "first"), mass=("mass", "sum"), drawn=("drawn", "sum")
    )
    weight = (found.mass / found.drawn).tolist()
    return [
        {"name": name, "domain": domain, "weight": w}
        for name, domain, w in zip(found.index, found.domain, weight, strict=True)
    ]


def matched_rows(
    wanted: pd.Series, train: pd.DataFrame, *, preferred: pd.Series, seed: int
) -> np.ndarray:
    """Index labels of real rows in `train`, as many of each group as `wanted` (a group per
    synthetic image) has.

    Within a group each row is taken equally often, within one. Rows that are `preferred` (by index
    label) come first; a group without any takes its other rows. A group without rows is named in a
    warning and left out.
    """
    rng, found, missing = np.random.default_rng(seed), [np.empty(0, np.int64)], []
    for group, count in wanted.value_counts().sort_index().items():
        every = train.index[train.group == group]
        own = every[preferred[every].to_numpy()]
        pool = (own if len(own) else every).to_numpy()
        if not len(pool):
            missing.append(f"{group} ({count})")
            continue
        passes = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
        found.append(np.concatenate(passes)[:count])
    if missing:
        warnings.warn(
            f"sampling=matched: no real training image of {', '.join(missing)}; as many are left out",
            stacklevel=3,
        )
    return np.concatenate(found)


# losses


def sample_losses(logits: Tensor, label: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy of (B, 2) logits with (B,) labels, or the mean over diseases of the binary one
    of (B, D) with (B, D).

    `reduction`: "mean", or "none" for a loss per sample (B,).
    """
    if label.ndim == 1:
        return F.cross_entropy(logits, label, reduction=reduction)
    each = F.binary_cross_entropy_with_logits(
        logits, label.to(logits.dtype), reduction="none"
    ).mean(1)
    return each if reduction == "none" else each.mean()


def weighted_mean(losses: Tensor, group: Tensor, *, weight: Tensor) -> Tensor:
    """Mean of (B,) losses with `weight` (G,) of each sample's group; its mean over the draws being
    1, so is lr's meaning."""
    return (weight[group] * losses).mean()


def over_processes(x: Tensor) -> Tensor:
    """Sum over the processes that train together; x itself where there is one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    x = x.clone()
    torch.distributed.all_reduce(x)
    return x


def robust_mean(
    losses: Tensor,
    group: Tensor,
    *,
    weight: Tensor,
    eta: float,
    total: Callable[[Tensor], Tensor] = over_processes,
) -> tuple[Tensor, Tensor]:
    """GroupDRO (Sagawa et al. 2020, algorithm 1): sum_g q_g L_g after q_g <- q_g exp(eta L_g) /
    sum; returns it and q.

    `losses` (B,), `group` (B,), `weight` q (G,). L_g is a group's mean loss; of a group that is not
    in the batch nothing is learnt: its q changes by the normalisation only. `total` sums over
    processes, whose gradients are averaged.
    """
    sums = torch.zeros_like(weight).index_add(0, group, losses.to(weight.dtype))
    counts = total(torch.bincount(group, minlength=len(weight)).to(weight.dtype)).clamp(min=1)
    weight = weight * torch.exp(eta * total(sums.detach()) / counts)
    weight = weight / weight.sum()
    share = total(torch.ones_like(counts[:1]))  # processes
    return share.squeeze() * (weight * sums / counts).sum(), weight


# after the training


def last_linear(network: nn.Module) -> nn.Linear:
    """The layer whose outputs are the network's logits."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(
            f"{type(network).__name__} has no linear layer to refit; choose another mitigation or backbone"
        )
    return layers[-1]


def refit_last_layer(
    module: Any, trainer: L.Trainer, data: Any, *, seed: int, subsamples: int = 10
) -> None:
    """Refit the classifier's last linear layer, in place, on group-balanced real training rows; the
    rest stays.

    `module`: a Classifier with its best weights; `data`: its Arms, set up. DFR (Kirichenko et al.
    2023): the mean of logistic regressions on `subsamples` draws of as many rows of each group as
    the smallest has. They are training rows, as in Kang et al. 2020, since the validation split has
    chosen the epoch and holds few of the rare groups. An arm without real images uses its synthetic
    ones; with a head per domain, all become this one.
    """
    train = data.index[data.index.split == "train"]
    train = train[whole(train) & (train.real | ~train.real.any())].drop_duplicates("stored")
    loader = data.rows_dataloader(train.index.to_numpy())
    layer = last_linear(module.network)
    x = _inputs(layer, module, trainer, loader)
    label = loader.dataset.label[train.index.to_numpy()].reshape(len(train), -1)
    rng, groups = np.random.default_rng(seed), train.groupby("group").indices
    size = min(map(len, groups.values()))
    draws = [
        np.concatenate([rng.choice(rows, size, replace=False) for rows in groups.values()])
        for _ in range(subsamples)
    ]
    # (domains, outputs, features)
    heads = layer.weight.detach().view(-1, module.outputs, layer.in_features)
    biases = layer.bias.detach().view(-1, module.outputs)
    for k, disease in enumerate(module.labels):
        fitted = [
            _regression(x[rows], label[rows, k]) for rows in draws if len(set(label[rows, k])) == 2
        ]
        if not fitted:
            warnings.warn(
                f"mitigation=last_layer: group-balanced rows hold no case of {disease}, or only cases; its "
                "output stays as trained",
                stacklevel=2,
            )
            continue
        weight, bias = (
            torch.as_tensor(np.mean(part, axis=0)) for part in zip(*fitted, strict=True)
        )
        # softmax or sigmoid
        for output, sign in ((0, -0.5), (1, 0.5)) if label.shape[1] == 1 else ((k, 1.0),):
            heads[:, output], biases[:, output] = sign * weight, sign * bias


def _inputs(layer: nn.Linear, module: Any, trainer: L.Trainer, loader: Any) -> np.ndarray:
    """(rows, features) that `layer` sees when the rows of `loader` are predicted."""
    seen: list[Tensor] = []
    last: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        seen.append(given[0].detach().float().cpu())
        last[:] = [out]

    def compare(network: nn.Module, _: Any, out: Tensor) -> None:
        if not last or last[0].shape != out.shape or not torch.equal(last[0], out):
            raise ValueError(
                f"{type(network).__name__}: its logits are not those of one last linear layer, so it can't "
                "be refitted; choose another mitigation or backbone"
            )

    hooks = [layer.register_forward_hook(keep), module.network.register_forward_hook(compare)]
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code takes no new hooks
            trainer.predict(module, loader)
    finally:
        for hook in hooks:
            hook.remove()
    x = torch.cat(seen).double().numpy()
    if len(x) != len(loader.dataset):
        raise ValueError(
            f"mitigation=last_layer: this process sees {len(x)} of {len(loader.dataset)} rows; predict with "
            "use_distributed_sampler=False or trainer.devices=1"
        )
    return x


def _regression(x: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, float]:
    """Weight (features,) and bias of a logistic regression on standardised features, for features
    as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = x.mean(0), x.std(0)
    # a feature that never varies says nothing
    scale[scale < 1e-8 * max(scale.max(), 1e-8)] = np.inf
    fit = LogisticRegression(max_iter=2000).fit((x - mean) / scale, label)
    weight = fit.coef_[0] / scale
    return weight, float(fit.intercept_[0] - weight @ mean)


def group_thresholds(
    table: pd.DataFrame, *, attribute: str = "sex", constraint: str = "equalized_odds", seed: int
) -> pd.DataFrame:
    """Copy of `predictions`' table whose `predicted` comes from thresholds per group of `attribute`
    (Hardt et al. 2016).

    fairlearn's ThresholdOptimizer, fitted per disease on the validation rows for balanced accuracy
    under `constraint`; its decisions are partly random, by `seed`. `probability` stays. A group
    that lacks a class in validation, and people of whom the attribute is unknown, keep the common
    threshold of 0.5, which a warning says.
    """
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.preprocessing import FunctionTransformer

    check_after("thresholds", attribute=attribute, constraint=constraint)
    table, told = (
        table.copy(),
        table[attribute].astype(object).where(table[attribute].notna(), "unknown"),
    )
    for disease, part in table.groupby("disease", sort=False):
        band = told[part.index]
        classes = part[part.split == "val"].groupby(band[part.split == "val"]).label.nunique()
        fitted = [name for name in classes.index[classes == 2] if name != "unknown"]
        if len(fitted) < 2:
            fitted = []
        if left := sorted(set(band) - set(fitted)):
            warnings.warn(
                f"mitigation=thresholds, {disease}: {attribute} {', '.join(left)} {'keep' if len(left) > 1 else 'keeps'} "
                f"the common threshold 0.5: {'thresholds need' if not fitted else 'it needs'} cases and controls "
                f"in validation{' of two groups or more' if not fitted else ''}",
                stacklevel=2,
            )
        if not fitted:
            continue
        chosen = part[band.isin(fitted)]
        score, of = chosen[["probability"]].astype(float), band[chosen.index]
        val = chosen.split == "val"
        optimiser = ThresholdOptimizer(
            estimator=FunctionTransformer(),  # the probabilities as they are
            constraints=constraint,
            objective="balanced_accuracy_score",
            prefit=True,
            predict_method="transform",
        )
        optimiser.fit(score[val], chosen.label[val], sensitive_features=of[val])
        table.loc[chosen.index, "predicted"] = optimiser.predict(
            score, sensitive_features=of, random_state=seed
        )
    return table
