"""Is a synthetic set safe to share? The memorisation audit: candidate copies, authenticity, C_T, membership attack.

Every number stands beside the same number of held-out people, whom the generator has never seen: what they score is
what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.cluster import KMeans

from cmrdata import figures
from cmrdata.runs import write_atomic
from cmrdata.store import Store
from cmrgen.base import as_control
from cmrgen.diffusion import denoise, diffusion_loss, row_noise
from cmrgen.fidelity import FEW
from cmrgen.likeness import Nearest, Search, by_features, by_sight
from cmrgen.prompts import prompts

EXPECTED = 0.05  # share of unseen people beyond tau, the other 95 % quantile (Dar et al. 2023)
FALSE = 0.05  # share of false ones allowed among the images called copies
TAIL = 100  # held-out images that a tail can be fitted to
CELL = 50  # images of the smaller side that a cell of C_T holds on average
NAMES = {"sight": "By what is seen", "features": "By features"}
Rates = tuple[float, float]


class Audit(NamedTuple):
    """What `audit` found. Real subjects and rows occur in `pairs` alone, which stays in a private folder."""

    groups: pd.DataFrame  # a row per measure and group, "all" first
    sources: pd.DataFrame  # a row per measure: likeness to the subject whose mask and prompt were used, and to others
    pairs: pd.DataFrame  # a row per measure and synthetic image, the most suspicious first
    verdicts: list[str]
    notes: list[str]


class Side(NamedTuple):
    """Images of one kind against the training images."""

    group: np.ndarray
    similarity: np.ndarray  # to the nearest training image
    excess: np.ndarray  # by how much that is nearer than this one's own nearest other person: negative is authentic
    cell: np.ndarray


def audit(cohort: Store, synthetic: Store, embed: Callable[[np.ndarray], np.ndarray], *, seed: int,
          held_out: int = 2000) -> Audit:  # fmt: skip
    """Does the set hold copies of training images? Measured by what is seen and in the features of `embed`.

    embed: (n, 2, P, P) uint8 -> (n, d). Training images: every row of the splits train and extra (which may have taught
    the base). Held out: one image per subject of val and test, at most `held_out` drawn with `seed`. tau is the 95th
    percentile of a held-out image's similarity to its nearest training image: both sides search the same images, so
    unseen people are beyond it in 5 %. Held-out images are central slices in the cohort's own mix of groups.
    Columns of groups: measure, group, n, held_out (images), tau, candidates (beyond tau), share, low, high, expected,
    held_share, p (of so many by chance), copies (called copies one by one, of which 5 % may be false), authentic, low
    and high (AuthPct, Alaa et al. 2022; the neighbour's nearest is another person, since its own slices are alike),
    held_authentic, ct, low and high (Meehan et al. 2020; negative: nearer than held-out people), few. 95 % intervals.
    Raises ValueError when one side has too few images or another size.
    """
    index, made = cohort.index, synthetic.index
    train = np.flatnonzero(index.split.isin(("train", "extra")))
    held = _held_rows(index, most=held_out, seed=seed)
    _check(cohort, synthetic, train, held)
    people, names = pd.factorize(index.subject.iloc[train])
    source = pd.Index(names).get_indexer(made.subject)
    real, seen, fake = (np.asarray(images) for images in (cohort.images[train], cohort.images[held], synthetic.images))
    features = [np.asarray(embed(images), np.float64) for images in (real, seen, fake)]
    if not all(np.isfinite(f).all() for f in features):
        raise ValueError("the features of the audit hold NaN or inf; look at the network behind `embed`")
    cells = _cells(features, smaller=min(len(seen), len(fake)), seed=seed)
    groups, sources, pairs, notes = [], [], [], []
    for measure, search, queries in (
        ("sight", by_sight(real, people), (real, seen, fake)),
        ("features", by_features(features[0], people), features),
    ):
        near, unseen = search(queries[2], source), search(queries[1], np.full(len(held), -1))
        if np.ptp(unseen.similarity) == 0:
            raise ValueError(f"{measure}: all held-out images are equally near ({unseen.similarity[0]:.3g}); "
                             "are the images constant?")  # fmt: skip
        excess = _excess(search, queries[0], people, near, unseen)
        sides = (Side(made.group.to_numpy(), near.similarity, excess[0], cells[0]),
                 Side(index.group.to_numpy()[held], unseen.similarity, excess[1], cells[1]))  # fmt: skip
        tau = float(np.quantile(unseen.similarity, 1 - EXPECTED, method="higher"))
        called, note = _called(excess[0], excess[1])
        notes += [f"{NAMES[measure]}: {note}"] if note else []
        for group in ("all", *sorted(made.group.unique())):
            groups.append({"measure": measure, **_group(group, *sides, tau=tau, called=called, seed=seed)})
        sources.append({"measure": measure, **_sources(near, tau)})
        at = train[near.row]
        pairs.append(pd.DataFrame({
            "measure": measure, "row": np.arange(len(made)), "group": made.group, "similarity": near.similarity,
            "excess": excess[0], "candidate": near.similarity > tau, "copy": called if called is not None else None,
            "training_row": at, "training_subject": index.subject.to_numpy()[at], "source_subject": made.subject,
            "source_row": made.source_row, "source_similarity": near.own,
        }).sort_values("excess", ascending=False))  # fmt: skip
    table = pd.DataFrame(groups)
    notes += _notes(table, fake)
    return Audit(table, pd.DataFrame(sources), pd.concat(pairs, ignore_index=True), _verdicts(table, sources), notes)


def write_private(found: Audit, cohort: Store, synthetic: Store, folder: Path, *, worst: int = 12) -> None:
    """Every image's nearest training image as CSV, and the `worst` pairs drawn, in a folder that git ignores.

    The only place of the audit with real images and subjects (hashed): it stays where the cohort's data may be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ".gitignore", "*\n")
    write_atomic(folder / "nearest.csv", found.pairs.to_csv(index=False))
    for measure, pairs in found.pairs.groupby("measure", sort=False):
        top = pairs.head(worst)
        drawn = figures.copy_pairs(
            synthetic.images[top.row.to_numpy()], cohort.images[top.training_row.to_numpy()], top.similarity
        )
        figures.save(drawn, folder / f"pairs_{measure}")


class Membership(NamedTuple):
    """A membership attack: how well a low loss tells training images from held-out ones. 95 % intervals."""

    auc: float  # 0.5 is chance
    auc_low: float
    auc_high: float
    tpr: float  # share of the training images found at 1 % false alarms; NaN for fewer than 100 held-out images
    tpr_low: float
    tpr_high: float
    resolvable: float  # the smallest such share that chance reaches in less than 5 %
    members: int
    held_out: int


def membership(losses_train: np.ndarray, losses_held_out: np.ndarray, *, seed: int, draws: int = 1000) -> Membership:
    """The attack that calls a low loss a training image (Matsumoto et al. 2023), on one loss per person.

    Intervals are percentiles of `draws` bootstrap samples, drawn within each side. Raises ValueError for losses that
    are not finite and for a side of fewer than 2.
    """
    x, y = (np.asarray(losses, float) for losses in (losses_train, losses_held_out))
    for name, losses in (("training", x), ("held-out", y)):
        if losses.ndim != 1 or len(losses) < 2 or not np.isfinite(losses).all():
            raise ValueError(f"{name} losses of shape {losses.shape}, {np.isfinite(losses).sum()} of them finite; "
                             "an attack needs at least 2 on each side, one per image, all finite")  # fmt: skip
    rng, samples = np.random.default_rng(seed), []
    for _ in range(draws):
        samples.append(_attacked(rng.choice(x, len(x)), rng.choice(y, len(y))))
    (auc_low, tpr_low), (auc_high, tpr_high) = (np.quantile(samples, q, axis=0) for q in (0.025, 0.975))
    auc, tpr = _attacked(x, y)
    alarms = int(0.01 * len(y))
    least = np.nan
    if alarms:  # members below the alarms-th of the held-out losses are beta-binomial when nothing is remembered
        chance = stats.betabinom(len(x), alarms, len(y) - alarms + 1)
        least = float(chance.ppf(0.95) + 1) / len(x)
        least = least if least <= 1 else np.nan
    return Membership(auc, auc_low, auc_high, tpr, tpr_low, tpr_high, least, len(x), len(y))


def attack(generator: Any, store: Store, *, seed: int, images: int = 1000) -> pd.DataFrame:
    """The membership attack on a generator's own losses: a row of `Membership` per group, "all" first, and few.

    One central image per subject; every group gives equally many training and held-out ones (else a loss that depends
    on the group would pass for memory), `images` of each in all at most.
    """
    index = store.index
    central = index[index.central.astype(bool)].drop_duplicates("subject").sample(frac=1, random_state=seed)
    pools = [central[central.split.isin(splits)] for splits in (("train",), ("val", "test"))]
    counts = pd.concat([pool.group.value_counts() for pool in pools], axis=1).min(axis=1, skipna=False).dropna()
    counts = counts[counts > 0]
    if counts.sum() < 2:
        raise ValueError(f"{store.folder}: no group has training and held-out images both; no membership attack")
    counts = (counts * min(1, images / counts.sum())).clip(lower=1).astype(int)
    chosen = [pool[pool.groupby("group").cumcount() < pool.group.map(counts).fillna(0)] for pool in pools]
    losses = [diffusion_losses(generator, store, part.index.to_numpy(), seed=seed) for part in chosen]
    rows = []
    for group in ("all", *sorted(counts[counts >= 2].index)):
        of = [loss[np.asarray((part.group == group) | (group == "all"))]
              for loss, part in zip(losses, chosen, strict=True)]  # fmt: skip
        found = membership(*of, seed=seed)
        rows.append({"group": group, **found._asdict(), "few": min(found.members, found.held_out) < FEW})
    return pd.DataFrame(rows)


@torch.no_grad()
def diffusion_losses(
    generator: Any, store: Store, rows: np.ndarray, *, seed: int, timesteps: int = 8, batch: int = 32
) -> np.ndarray:
    """(n,) diffusion loss of store rows under their own mask and prompt, mean over fixed timesteps.

    Timesteps lie evenly between little and much noise; each has one noise drawn from `seed`, the same for every image,
    so that images differ by their own loss only. generator: cmrgen.render.Generator.
    """
    base, steps = generator.base, len(generator.base.alphas)
    noises = row_noise([seed * 1009 + k for k in range(timesteps)], base.latent_shape).to(base.device)
    losses = np.zeros(len(rows))
    for k in range(0, len(rows), batch):
        some = rows[k : k + batch]
        moments = base.moments(torch.from_numpy(store.images[some]))
        x0 = base.sample_latent(moments, torch.zeros_like(moments.chunk(2, dim=1)[0]))
        words = prompts(store.index.iloc[some], fields=generator.facts["fields"]).tolist()
        control = as_control(torch.from_numpy(store.masks[some]), base.pixels).to(base.device)
        given = {"context": base.embed(words), "control": control}
        for number, noise in enumerate(noises):
            t = torch.full((len(some),), int((number + 0.5) / timesteps * steps), device=base.device)
            value = diffusion_loss(
                lambda x, t, given=given: denoise(base.unet, generator.controlnet, x, t, **given),  # type: ignore[misc]
                x0, noise.expand_as(x0), t, alphas=base.alphas, prediction=base.prediction, gamma=None,
            )  # fmt: skip
            losses[k : k + batch] += value.double().cpu().numpy() / timesteps
    return losses


def wilson(found: int, n: int, *, confidence: float = 0.95) -> Rates:
    """Wilson's interval of a share; (NaN, NaN) for n = 0."""
    if not n:
        return (float("nan"),) * 2
    interval = stats.binomtest(int(found), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def c_t(held: np.ndarray, made: np.ndarray, held_cell: np.ndarray, made_cell: np.ndarray) -> float:
    """C_T (Meehan et al. 2020, sec. 3) of similarities to the training images: mean over cells of the Mann-Whitney z.

    Cells weigh as many held-out images as they have; those with fewer than FEW on a side do not count (NaN: none does).
    Below 0: synthetic images lie nearer to the training images than unseen people do; about -3 and less is copying.
    """
    total = weight = 0.0
    for cell in np.unique(held_cell):
        p, q = held[held_cell == cell], made[made_cell == cell]
        if min(len(p), len(q)) < FEW:
            continue
        ranks = stats.rankdata(np.concatenate([-p, -q]))  # distances ascend as similarities fall
        u = ranks[len(p) :].sum() - len(q) * (len(q) + 1) / 2
        z = (u - len(p) * len(q) / 2) / np.sqrt(len(p) * len(q) * (len(p) + len(q) + 1) / 12)
        total, weight = total + len(p) * z, weight + len(p)
    return float(total / weight) if weight else float("nan")


def _held_rows(index: pd.DataFrame, *, most: int, seed: int) -> np.ndarray:
    """A row per subject of val and test, the central one where it has that."""
    rows = index.reset_index(drop=True)[index.split.isin(("val", "test")).to_numpy()]
    rows = rows.sort_values("central", ascending=False, kind="stable").drop_duplicates("subject")
    order = np.random.default_rng(seed).permutation(np.sort(rows.index.to_numpy()))
    return np.sort(order[:most])


def _check(cohort: Store, synthetic: Store, train: np.ndarray, held: np.ndarray) -> None:
    if cohort.images.shape[1:] != synthetic.images.shape[1:]:
        raise ValueError(f"images of the cohort are {cohort.images.shape[1:]}, of the synthetic set "
                         f"{synthetic.images.shape[1:]}; audit a set against the cohort it was made from")  # fmt: skip
    if (persons := cohort.index.subject.iloc[train].nunique()) < 2:
        raise ValueError(f"{cohort.folder}: {persons} training subjects; an audit compares with at least 2")
    if len(held) < FEW:
        raise ValueError(f"{cohort.folder}: {len(held)} held-out subjects (val and test); tau, the 95th percentile of "
                         f"their similarities, needs at least {FEW}")  # fmt: skip
    if not len(synthetic.index):
        raise ValueError(f"{synthetic.folder}: the synthetic set is empty; there is nothing to audit")


def _cells(features: list[np.ndarray], *, smaller: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of C_T for synthetic and held-out images: clusters of the training features."""
    count = int(np.clip(smaller // CELL, 1, 10))
    mean, spread = features[0].mean(0), features[0].std(0)
    real, seen, fake = ((f - mean) / np.where(spread > 0, spread, 1) for f in features)
    sample = np.random.default_rng(seed).permutation(len(real))[:5000]
    count = min(count, len(np.unique(real[sample], axis=0)))
    clusters = KMeans(count, n_init=1, random_state=seed).fit(real[sample])
    return clusters.predict(fake), clusters.predict(seen)


def _excess(
    search: Search, real: np.ndarray, people: np.ndarray, near: Nearest, unseen: Nearest
) -> tuple[np.ndarray, np.ndarray]:
    """Fisher z of each image's similarity to its training image, less that of this one to its nearest other person."""
    rows, back = np.unique(np.concatenate([near.row, unseen.row]), return_inverse=True)
    between = search(real[rows], people[rows]).other[back]
    z = [np.arctanh(np.clip(s, -1 + 1e-6, 1 - 1e-6)) for s in (np.r_[near.similarity, unseen.similarity], between)]
    return np.split(z[0] - z[1], [len(near.row)])  # type: ignore[return-value]


def _called(excess: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Which images are called copies: Benjamini-Hochberg over each one's chance of so large an excess if it were unseen.

    That chance is the rank among held-out images (Bates et al. 2023), and beyond tau's quantile an exponential tail, so
    that a lone copy can be told from the nearest of thousands.
    """
    if len(unseen) < TAIL:
        return None, f"only {len(unseen)} held-out images, single copies are not called (that needs {TAIL})."
    edge = np.quantile(unseen, 1 - EXPECTED)
    mean = (unseen[unseen > edge] - edge).mean() if (unseen > edge).any() else 1e-9
    ranked = (1 + len(unseen) - np.searchsorted(np.sort(unseen), excess)) / (1 + len(unseen))
    chance = np.where(excess > edge, EXPECTED * np.exp(-(excess - edge) / mean), ranked)
    return stats.false_discovery_control(chance) <= FALSE, ""


def _group(group: str, made: Side, held: Side, *, tau: float, called: np.ndarray | None, seed: int) -> dict[str, Any]:
    mine, theirs = (np.ones(len(s.group), bool) if group == "all" else s.group == group for s in (made, held))
    n, m = int(mine.sum()), int(theirs.sum())
    beyond, unseen = made.similarity[mine] > tau, held.similarity > tau
    near, far = made.excess[mine] < 0, held.excess[theirs] < 0
    row: dict[str, Any] = {"group": group, "n": n, "held_out": m, "tau": tau, "candidates": int(beyond.sum())}
    row |= {"share": beyond.mean(), **_interval("", beyond), "expected": EXPECTED,
            "held_share": unseen[theirs].mean() if m else np.nan}  # fmt: skip
    reference = unseen[theirs] if m >= FEW and group != "all" else unseen  # its own people, where there are enough
    row["p"] = stats.hypergeom.sf(beyond.sum() - 1, n + len(reference), beyond.sum() + reference.sum(), n)
    row["copies"] = int(called[mine].sum()) if called is not None else np.nan
    row |= {"authentic": near.mean(), **_interval("authentic_", near), "held_authentic": far.mean() if m else np.nan}
    row |= _c_t_row(made, held, mine, theirs, one_cell=group != "all", seed=seed)
    return {**row, "few": n < FEW}


def _interval(name: str, found: np.ndarray) -> dict[str, float]:
    return dict(zip((f"{name}low", f"{name}high"), wilson(found.sum(), len(found)), strict=True))


def _c_t_row(
    made: Side, held: Side, mine: np.ndarray, theirs: np.ndarray, *, one_cell: bool, seed: int, draws: int = 200
) -> dict[str, float]:
    """C_T with percentiles of `draws` bootstrap samples; groups are a cell of their own."""
    q, p = made.similarity[mine], held.similarity[theirs]
    cells = [np.zeros(len(q), int), np.zeros(len(p), int)] if one_cell else [made.cell[mine], held.cell[theirs]]
    value = c_t(p, q, cells[1], cells[0])
    if np.isnan(value):
        return dict.fromkeys(("ct", "ct_low", "ct_high"), float("nan"))
    rng, samples = np.random.default_rng(seed), []
    for _ in range(draws):
        i, j = rng.integers(len(q), size=len(q)), rng.integers(len(p), size=len(p))
        samples.append(c_t(p[j], q[i], cells[1][j], cells[0][i]))
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return {"ct": value, "ct_low": float(low), "ct_high": float(high)}


def _sources(near: Nearest, tau: float) -> dict[str, Any]:
    """Likeness to the source subject and to other people, apart."""
    known = ~np.isnan(near.own)
    n, row = int(known.sum()), {"n": int(known.sum())}
    for name, hits in (
        ("nearest_is_source", near.own[known] > near.other[known]),
        ("source_beyond", near.own[known] > tau),
        ("others_beyond", near.other[known] > tau),
    ):
        row |= {name: hits.mean() if n else np.nan, **_interval(f"{name}_", hits)}
    medians = [float(np.median(s[known])) if n else np.nan for s in (near.own, near.other)]
    return {**row, "source_similarity": medians[0], "other_similarity": medians[1], "expected": EXPECTED, "tau": tau}


def _attacked(x: np.ndarray, y: np.ndarray) -> Rates:
    """AUC, and the share of x below all but 1 % of y; NaN where y has fewer than 100."""
    ranks = stats.rankdata(np.concatenate([-x, -y]))
    auc = (ranks[: len(x)].sum() - len(x) * (len(x) + 1) / 2) / (len(x) * len(y))
    alarms = int(0.01 * len(y))
    return float(auc), float((x < np.partition(y, alarms - 1)[alarms - 1]).mean()) if alarms else float("nan")
