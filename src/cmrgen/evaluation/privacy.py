"""Is a synthetic set safe to share? The memorisation audit: candidate copies, authenticity and C_T.

The membership attack is in membership.py. Every number stands beside the same number of held-out people, whom the generator has never seen: what they score is
what chance gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrdata.disk import write_atomic
from cmrdata.selection import Selection, slices
from cmrdata.store import Store
from cmrgen.evaluation.fidelity import FEW
from cmrgen.evaluation.likeness import Nearest, Search, by_features, by_sight, c_t, cells
from cmrstudy import figures

EXPECTED = 0.05  # share of unseen people beyond tau, the other 95 % quantile (Dar et al. 2023)
FALSE = 0.01  # share of false ones allowed among the images called copies
TAIL = 100  # held-out images that a tail can be fitted to
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


def audit(cohort: Store, synthetic: Store, embed: Callable[[Store, np.ndarray], np.ndarray], *, seed: int,
          held_out: int = 2000, device: torch.device | str = "cpu", scratch: Path | None = None) -> Audit:  # fmt: skip
    """Does the set hold copies of training images? Measured by what is seen and in the features of `embed`.

    embed: n rows of a store -> (n, d). device, scratch: of `by_sight`. Training images: every row of the splits train and extra (which may have taught
    the base). Held out: one image per subject of val and test, at most `held_out` drawn with `seed`. tau is the 95th
    percentile of a held-out image's similarity to its nearest training image: both sides search the same images, so
    unseen people are beyond it in 5 %. Held-out images are central slices in the cohort's own mix of groups, a set is
    not: `matched` is the share beyond tau of the set's source images themselves, searched among other people.
    Columns of groups: measure, group, n, held_out (images), tau, candidates (beyond tau), share, low, high, expected,
    matched, p (of so many if the set were as near as its sources are to others), copies (called one by one; 1 % of
    them may be false), authentic, low and high (AuthPct, Alaa et al. 2022; the neighbour's nearest is another person,
    since its own slices are alike), held_authentic, ct, low and high (Meehan et al. 2020; negative: nearer than
    held-out people), few. 95 % intervals. Raises ValueError when one side has too few images or another size.
    """
    index, made = cohort.index, synthetic.index
    train = np.flatnonzero(index.split.isin(("train", "extra")))
    held = _held_rows(index, most=held_out, seed=seed)
    _check(cohort, synthetic, train, held)
    people, names = pd.factorize(index.subject.iloc[train])
    source, (used, of) = pd.Index(names).get_indexer(made.subject), _sources_in(made, train)
    rows = (cohort, train), (cohort, held), (synthetic, np.arange(len(made)))
    real, seen, fake = (Selection(store.images, some) for store, some in rows)
    features = [np.asarray(embed(*some), np.float64) for some in rows]
    if not all(np.isfinite(f).all() for f in features):
        raise ValueError("the features of the audit hold NaN or inf; look at the network behind `embed`")
    cell = cells(features, smaller=min(len(seen), len(fake)), seed=seed)
    groups, sources, pairs, notes = [], [], [], []
    search: Search
    queries: Any
    for measure, search, queries in (
        ("sight", by_sight(real, people, device=device, scratch=scratch), (real, seen, fake)),
        ("features", by_features(features[0], people), features),
    ):
        near, unseen = search(queries[2], source), search(queries[1], np.full(len(held), -1))
        alike = search(queries[0][used], people[used])
        alike = alike._replace(own=np.full(len(used), np.nan))  # real images as if they were unseen
        if np.ptp(unseen.similarity) == 0:
            raise ValueError(f"{measure}: all held-out images are equally near ({unseen.similarity[0]:.3g}); "
                             "are the images constant?")  # fmt: skip
        excess = _excess(search, queries[0], people, (near, unseen, alike))
        sides = (Side(made.group.to_numpy(), near.similarity, excess[0], cell[0]),
                 Side(index.group.to_numpy()[held], unseen.similarity, excess[1], cell[1]))  # fmt: skip
        tau = float(np.quantile(unseen.similarity, 1 - EXPECTED, method="higher"))
        called, note = _called(excess[0], np.concatenate(excess[1:]))
        matched = (alike.similarity > tau)[of]
        notes += [f"{NAMES[measure]}: {note}"] if note else []
        for group in ("all", *sorted(made.group.unique())):
            groups.append(
                {"measure": measure, **_group(group, *sides, tau=tau, called=called, matched=matched, of=of, seed=seed)}
            )
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
            synthetic.images[top.row.to_numpy()], cohort.images[top.training_row.to_numpy()], top.similarity.tolist()
        )
        figures.save(drawn, folder / f"pairs_{measure}")


def wilson(found: int, n: int, *, confidence: float = 0.95) -> Rates:
    """Wilson's interval of a share; (NaN, NaN) for n = 0."""
    if not n:
        return (float("nan"),) * 2
    interval = stats.binomtest(int(found), int(n)).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


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


def _excess(search: Search, real: Any, people: np.ndarray, found: tuple[Nearest, Nearest, Nearest]) -> list[np.ndarray]:
    """Fisher z of each image's similarity to its training image, less that of this one to its nearest other person."""
    rows, back = np.unique(np.concatenate([near.row for near in found]), return_inverse=True)
    between = search(real[rows], people[rows]).other[back]
    similarity = np.concatenate([near.similarity for near in found])
    z = [np.arctanh(np.clip(values, -1 + 1e-6, 1 - 1e-6)) for values in (similarity, between)]
    return np.split(z[0] - z[1], np.cumsum([len(near.row) for near in found])[:-1])


def _sources_in(made: pd.DataFrame, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `train` of the images whose masks were used, each once, and of each synthetic image among those."""
    at = pd.Index(train).get_indexer(made.source_row)
    if (at < 0).any():
        raise ValueError(f"{(at < 0).sum()} of {len(at)} source rows are no training images; audit a set against the "
                         "cohort it was made from")  # fmt: skip
    used, of = np.unique(at, return_inverse=True)
    return used, of


def _called(excess: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray | None, str]:
    """Which images are called copies: Benjamini-Hochberg over each one's chance of so large an excess if it were unseen.

    That chance is the rank among real images of unseen or other people (Bates et al. 2023), and beyond their 95th
    percentile an exponential tail (its predictive form, since k excesses tell the mean only so well), so that a lone
    copy can be told from the nearest of thousands.
    """
    if len(unseen) < TAIL:
        return (
            None,
            f"only {len(unseen)} real images to compare with, single copies are not called (that needs {TAIL}).",
        )
    edge = np.quantile(unseen, 1 - EXPECTED)
    beyond = unseen[unseen > edge] - edge
    ranked = (1 + len(unseen) - np.searchsorted(np.sort(unseen), excess)) / (1 + len(unseen))
    tail = EXPECTED * (1 + np.maximum(excess - edge, 0) / max(beyond.sum(), 1e-9)) ** -float(len(beyond))
    chance = np.where(excess > edge, tail, ranked)
    return stats.false_discovery_control(chance) <= FALSE, ""


def _group(group: str, made: Side, held: Side, *, tau: float, called: np.ndarray | None, matched: np.ndarray,
           of: np.ndarray, seed: int) -> dict[str, Any]:  # fmt: skip
    mine, theirs = (np.ones(len(s.group), bool) if group == "all" else s.group == group for s in (made, held))
    n, m = int(mine.sum()), int(theirs.sum())
    beyond, sources = made.similarity[mine] > tau, len(np.unique(of[mine]))
    near, far = made.excess[mine] < 0, held.excess[theirs] < 0
    row: dict[str, Any] = {"group": group, "n": n, "held_out": m, "tau": tau, "candidates": int(beyond.sum())}
    row |= {"share": beyond.mean(), **_interval("", beyond), "expected": EXPECTED,
            "matched": matched[mine].mean()}  # fmt: skip
    reference = round(row["matched"] * sources)  # of the different source images
    row["p"] = stats.hypergeom.sf(beyond.sum() - 1, n + sources, beyond.sum() + reference, n)
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
    cell = [np.zeros(len(q), int), np.zeros(len(p), int)] if one_cell else [made.cell[mine], held.cell[theirs]]
    value = c_t(p, q, cell[1], cell[0])
    if np.isnan(value):
        return dict.fromkeys(("ct", "ct_low", "ct_high"), float("nan"))
    rng, samples = np.random.default_rng(seed), []
    for _ in range(draws):
        i, j = rng.integers(len(q), size=len(q)), rng.integers(len(p), size=len(p))
        samples.append(c_t(p[j], q[i], cell[1][j], cell[0][i]))
    low, high = np.nanquantile(samples, (0.025, 0.975))
    return {"ct": value, "ct_low": float(low), "ct_high": float(high)}


def _sources(near: Nearest, tau: float) -> dict[str, Any]:
    """Likeness to the source subject and to other people, apart."""
    known = ~np.isnan(near.own)
    n = int(known.sum())
    row: dict[str, Any] = {"n": n}
    for name, hits in (
        ("nearest_is_source", near.own[known] > near.other[known]),
        ("source_beyond", near.own[known] > tau),
        ("others_beyond", near.other[known] > tau),
    ):
        row |= {name: hits.mean() if n else np.nan, **_interval(f"{name}_", hits)}
    medians = [float(np.median(s[known])) if n else np.nan for s in (near.own, near.other)]
    return {**row, "source_similarity": medians[0], "other_similarity": medians[1], "expected": EXPECTED, "tau": tau}


def _verdicts(table: pd.DataFrame, sources: list[dict[str, Any]]) -> list[str]:
    """Plain sentences, the ones by what is seen first."""
    said = []
    for row, source in zip(table[table.group == "all"].to_dict("records"), sources, strict=True):
        name, share = NAMES[row["measure"]], _percent(row, "share", "low", "high")
        more = "more candidate copies than" if row["low"] > EXPECTED else "no more candidate copies than expected"
        said.append(f"{name}: {more} by chance ({share}, expected {100 * EXPECTED:.0f} %; {row['n']:,} images).")
        if row["p"] < 0.05:
            said.append(f"{name}: these are more than among the set's own source images, of which "
                        f"{100 * row['matched']:.1f} % come as near to another person (p = {row['p']:.2g}); copies do "
                        "that, and so do images with less noise than real ones.")  # fmt: skip
        if row["copies"] == row["copies"]:
            copies = int(row["copies"])
            words = "images look like copies of training images" if copies > 1 else "image looks like a copy"
            said.append(f"{name}: {copies or 'no'} {words}.")
        if row["ct_high"] < 0:
            said.append(f"{name}: the set lies nearer to the training images than unseen people do (C_T = "
                        f"{row['ct']:.1f}, 95 % interval {row['ct_low']:.1f} to {row['ct_high']:.1f}).")  # fmt: skip
        of = table[(table.measure == row["measure"]) & (table.group != "all")]
        if len(many := of[(of.p < 0.05 / max(len(of), 1)) & ~of.few].group):
            said.append(f"{name}: more than among the source images in {', '.join(many)}.")
        if source["n"]:
            said.append(f"{name}: the nearest training image is one of the subject whose mask and prompt were used in "
                        f"{_percent(source, 'nearest_is_source', 'nearest_is_source_low', 'nearest_is_source_high')}; "
                        f"{_percent(source, 'others_beyond', 'others_beyond_low', 'others_beyond_high')} are beyond tau "
                        "from somebody else.")  # fmt: skip
    return said


def _percent(row: Mapping[Any, Any], share: str, low: str, high: str) -> str:
    return f"{100 * row[share]:.1f} %, 95 % interval {100 * row[low]:.1f}-{100 * row[high]:.1f} %"


def _notes(table: pd.DataFrame, fake: Selection) -> list[str]:
    said, of = [], table[(table.measure == "sight") & (table.group != "all")]
    if few := int(of.few.sum()):
        said.append(f"{few} of {len(of)} groups have fewer than {FEW} images: their rows are only a hint.")
    parts = (fake[some] for some in slices(fake))
    if constant := sum(int((part.max((1, 2, 3)) == part.min((1, 2, 3))).sum()) for part in parts):
        said.append(f"{constant} synthetic images are constant; they resemble nothing and count as no copies.")
    if not table.ct.notna().any():
        said.append(f"C_T needs {FEW} images on each side.")
    return said
