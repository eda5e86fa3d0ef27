"""Does a generator give away who taught it? A membership attack by its own loss, lower on images it
remembers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrdata.store import Store
from cmrgen.base.frozen import as_control
from cmrgen.base.portions import drawing_budget, together
from cmrgen.diffusion import denoise, diffusion_loss, row_noise
from cmrgen.evaluation.privacy.alarms import Sample, in_common_groups, rank_test
from cmrgen.prompts import prompts
from cmrstudy.intervals import MIN_COUNT

BATCH = 32  # images of the attack that go through the networks together, where their pixels allow


class Membership(NamedTuple):
    """A membership attack: how well a low loss tells training images from held-out ones. 95 %
    intervals."""

    auc: float  # 0.5 is chance
    auc_low: float
    auc_high: float
    p: float  # of an AUC so large by chance, people compared within their group
    # share of the training images found at 1 % false alarms; NaN for fewer than 100 held-out images
    tpr: float
    tpr_low: float
    tpr_high: float
    resolvable: float  # the smallest such share that chance reaches in less than 5 %
    members: int
    held_out: int


def loss_attack(
    losses_train: np.ndarray,
    losses_held_out: np.ndarray,
    *,
    seed: int,
    draws: int = 1000,
    groups: tuple[np.ndarray, np.ndarray] | None = None,
) -> Membership:
    """The attack that calls a low loss a training image (Matsumoto et al. 2023), on one loss per
    person.

    p is that of `alarms.rank_test`. Intervals are percentiles of a bootstrap within each side.

    Args:
        losses_train: (n,) of the training people.
        losses_held_out: (m,) of the held-out people.
        seed: of the bootstrap.
        draws: its replicates.
        groups: of the training and of the held-out people; by default one for all.

    Raises:
        ValueError: losses that are not finite, or a side of fewer than 2.
    """
    x, y = (np.asarray(losses, float) for losses in (losses_train, losses_held_out))
    for name, losses in (("training", x), ("held-out", y)):
        if losses.ndim != 1 or len(losses) < 2 or not np.isfinite(losses).all():
            raise ValueError(
                f"{name} losses of shape {losses.shape}, {np.isfinite(losses).sum()} of them "
                "finite; an attack needs at least 2 on each side, one per image, all finite"
            )
    rng = np.random.default_rng(seed)
    samples = _auc_and_tpr(rng.choice(x, (draws, len(x))), rng.choice(y, (draws, len(y))))
    (auc_low, auc_high), (tpr_low, tpr_high) = (
        np.quantile(values, (0.025, 0.975)).tolist() for values in samples
    )
    auc, tpr = (float(values[0]) for values in _auc_and_tpr(x[None], y[None]))
    alarms = int(0.01 * len(y))
    least = np.nan
    # the members below a given one of the held-out losses are beta-binomial when nothing is
    # remembered
    if alarms:
        chance = stats.betabinom(len(x), alarms + 1, len(y) - alarms)
        least = float(chance.ppf(0.95) + 1) / len(x)
        least = least if least <= 1 else np.nan
    labels = groups or (np.zeros(len(x)), np.zeros(len(y)))
    kinds = [
        Sample(-loss, group, np.arange(len(loss)))
        for loss, group in zip((x, y), labels, strict=True)
    ]
    p = rank_test(*in_common_groups(*kinds)[:2], seed=seed).p
    return Membership(auc, auc_low, auc_high, p, tpr, tpr_low, tpr_high, least, len(x), len(y))


def generator_attack(
    generator: Any, store: Store, *, seed: int, images: int = 1000
) -> pd.DataFrame:
    """The membership attack on a generator's own losses.

    One central image per subject; every group gives equally many training and held-out ones (else a
    loss that depends on the group would pass for memory).

    Args:
        generator: cmrgen.render.generator.Generator.
        store: the cohort's.
        seed: of the images, the noises and the bootstrap.
        images: training images, and as many held-out ones, at most.

    Returns:
        A row of `Membership` per group, "all" first, and few.

    Raises:
        ValueError: no group has training and held-out images both.
    """
    index = store.index
    central = (
        index[index.central.astype(bool)]
        .drop_duplicates("subject")
        .sample(frac=1, random_state=seed)
    )
    pools = [central[central.split.isin(splits)] for splits in (("train",), ("val", "test"))]
    counts = (
        pd.concat([pool.group.value_counts() for pool in pools], axis=1)
        .min(axis=1, skipna=False)
        .dropna()
    )
    counts = counts[counts > 0]
    if counts.sum() < 2:
        raise ValueError(
            f"{store.folder}: no group has training and held-out images both; no membership attack"
        )
    counts = (counts * min(1, images / counts.sum())).clip(lower=1).astype(int)
    chosen = [
        pool[pool.groupby("group").cumcount() < pool.group.map(counts).fillna(0)] for pool in pools
    ]
    losses = [
        diffusion_losses(generator, store, side.index.to_numpy(), seed=seed) for side in chosen
    ]
    rows = []
    for group in ("all", *sorted(counts[counts >= 2].index)):
        members = [np.asarray((side.group == group) | (group == "all")) for side in chosen]
        of_group = [loss[own] for loss, own in zip(losses, members, strict=True)]
        labels = [side.group.to_numpy()[own] for side, own in zip(chosen, members, strict=True)]
        result = loss_attack(*of_group, seed=seed, groups=(labels[0], labels[1]))
        few = min(result.members, result.held_out) < MIN_COUNT
        rows.append({"group": group, **result._asdict(), "few": few})
    return pd.DataFrame(rows)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch has no types here
def diffusion_losses(
    generator: Any,
    store: Store,
    rows: np.ndarray,
    *,
    seed: int,
    timesteps: int = 8,
    batch: int | None = None,
) -> np.ndarray:
    """The diffusion loss of store rows under their own mask and prompt, mean over fixed timesteps.

    Timesteps lie evenly between little and much noise; each has one noise drawn from `seed`, the
    same for every image, so that images differ by their own loss only.

    Args:
        generator: cmrgen.render.generator.Generator.
        store: the cohort's.
        rows: (n,) of the store.
        seed: of the noises.
        timesteps: how many.
        batch: images together, by default 32 or what cmrgen.base.portions allows.

    Returns:
        (n,) losses.
    """
    base, steps = generator.base, len(generator.base.alphas)
    noises = row_noise([seed * 1009 + k for k in range(timesteps)], base.latent_shape).to(
        base.device
    )
    losses = np.zeros(len(rows))
    batch = batch or min(BATCH, 2 * together(base.pixels, drawing_budget(base.device)))
    for k in range(0, len(rows), batch):
        batch_rows = rows[k : k + batch]
        moments = base.moments(torch.from_numpy(store.images[batch_rows]))
        x0 = base.sample_latent(moments, torch.zeros_like(moments.chunk(2, dim=1)[0]))
        words = prompts(store.index.iloc[batch_rows], fields=generator.facts["fields"]).tolist()
        control = as_control(torch.from_numpy(store.masks[batch_rows]), base.pixels).to(base.device)
        given = {"context": base.embed(words), "control": control}
        for number, noise in enumerate(noises):
            t = torch.full(
                (len(batch_rows),), int((number + 0.5) / timesteps * steps), device=base.device
            )
            value = diffusion_loss(
                lambda x, t, given=given: denoise(base.unet, generator.controlnet, x, t, **given),  # type: ignore[misc]
                x0,
                noise.expand_as(x0),
                t,
                alphas=base.alphas,
                prediction=base.prediction,
                gamma=None,
            )
            losses[k : k + batch] += value.double().cpu().numpy() / timesteps
    return losses


def _auc_and_tpr(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row of x (k, n) and y (k, m): the AUC, and the share of x below all but 1 % of y; NaN for
    m < 100."""
    (k, n), m = x.shape, y.shape[1]
    ranks = stats.rankdata(np.concatenate([-x, -y], axis=1), axis=1)
    auc, alarms = (ranks[:, :n].sum(1) - n * (n + 1) / 2) / (n * m), int(0.01 * m)
    if not alarms:
        return auc, np.full(k, np.nan)
    return auc, (x < np.partition(y, alarms, axis=1)[:, alarms, None]).mean(1)
