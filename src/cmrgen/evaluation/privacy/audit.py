"""Is a synthetic set safe to share? The memorisation audit: candidate copies, authenticity and C_T.

Every number stands beside the same number of held-out people, whom the generator has never seen:
what they score is what chance gives. The tests are in alarms.py, their words in verdicts.py, the
membership attack in membership.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrdata.disk import write_atomic
from cmrdata.selection import Selection, row_slices
from cmrdata.store import Store
from cmrgen.evaluation.fidelity.subgroups import FEW
from cmrgen.evaluation.privacy.alarms import Counts, Sample, holm, nearest, ranks, shared
from cmrgen.evaluation.privacy.nearest import Nearest, Search, by_features, by_sight
from cmrgen.evaluation.privacy.verdicts import NAMES, verdicts
from cmrstudy import figures, intervals

EXPECTED = 0.05  # share of unseen people beyond tau, the other 95 % quantile (Dar et al. 2023)
FALSE = 0.01  # share of false ones allowed among the images called copies
# chance of a false alarm of nearest and C_T by both measures; with FALSE by both, 5 % for a whole
# audit
NEARER = 0.03
TAIL = 100  # held-out images that a tail can be fitted to


class Audit(NamedTuple):
    """What `audit` found. Real subjects and rows occur in `pairs` alone, which stays in a private
    folder."""

    tests: pd.DataFrame  # a row per measure and test of the whole set
    groups: pd.DataFrame  # a row per measure and group, "all" first
    # a row per measure: likeness to the subject whose mask and prompt were used, and to others
    sources: pd.DataFrame
    pairs: pd.DataFrame  # a row per measure and synthetic image, the most suspicious first
    verdicts: list[str]
    notes: list[str]


class Side(NamedTuple):
    """Images of one kind against the training images."""

    group: np.ndarray
    person: np.ndarray  # whose image, or whose mask it was drawn from
    similarity: np.ndarray  # to the nearest training image
    other: np.ndarray  # the same without those of the own person
    # by how much that is nearer than this one's own nearest other person: negative is authentic
    excess: np.ndarray
    # whether of a central slice (a synthetic image: its mask), as every held-out image is
    middle: np.ndarray

    def sample(self, value: np.ndarray, rows: np.ndarray | None = None) -> Sample:
        """Central slices, of `rows` alone if given: how near an image lies depends on its slice."""
        return Sample(value, self.group, self.person).part(
            self.middle if rows is None else self.middle & rows
        )


def audit(
    cohort: Store,
    synthetic: Store,
    embed: Callable[[Store, np.ndarray], np.ndarray],
    *,
    seed: int,
    held_out: int = 2000,
    device: torch.device | str = "cpu",
    scratch: Path | None = None,
) -> Audit:
    """Does the set hold copies of training images? Measured by what is seen and in the features of
    `embed`.

    embed: (n, 2, P, P) uint8 -> (n, d). Training images: every row of the splits train and extra
        (which may have taught
    the base). Held out: one image per subject of val and test, at most `held_out`, as evenly from
    the set's groups as these allow, drawn with `seed`. Every test but that of single copies
    compares set and held-out people within groups, in images of the central slice (held-out people
    have no other), one of each source subject; false alarms and powers are in
    docs/results/audit.md. Columns of tests: measure, test (nearest; nearest without the source
    subject's own images; C_T; copies), value, by_chance and alarm_from (of nearest: images of the
    set among the nearest 5 % of both), p, p_holm (over nearest and C_T of both measures), alarm,
    images, sources, held_out (people), left_out (images of the central slice whose group nobody
    held out has). Columns of groups: measure, group, n, sources, held_out (images), tau (the 95th
    percentile of held-out people's similarity at the set's mix of groups), candidates (images
    beyond tau), share, low, high, expected (share of held-out people beyond tau at that mix),
    matched (the same of the set's source images, searched among other people), p and p_holm (of
    nearest, over groups), copies (called one by one; 1 % of them may be false), authentic, low and
    high (AuthPct, Alaa et al. 2022; the neighbour's nearest is another person, since its own slices
    are alike), held_authentic, ct and ct_p (Meehan et al. 2020; negative: nearer than held-out
    people), few. 95 % intervals take the images of a source together. Raises ValueError when one
    side has too few images or another size.
    """
    index, made = cohort.index, synthetic.index
    train = np.flatnonzero(index.split.isin(("train", "extra")))
    held = _held_rows(index, set(made.group), most=held_out, seed=seed)
    _check(cohort, synthetic, train, held)
    people, names = pd.factorize(index.subject.iloc[train])
    source, (used, of) = pd.Index(names).get_indexer(made.subject), _sources_in(made, train)
    sides_of = (cohort, train), (cohort, held), (synthetic, np.arange(len(made)))
    real, seen, fake = (Selection(store.images, some) for store, some in sides_of)
    central = index["slice"].to_numpy()[made.source_row] == 0
    unseen_people = index.group.to_numpy()[held], index.subject.to_numpy()[held]
    features = [np.asarray(embed(*some), np.float64) for some in sides_of]
    if not all(np.isfinite(f).all() for f in features):
        raise ValueError(
            "the features of the audit hold NaN or inf; look at the network behind `embed`"
        )
    tests, groups, sources, pairs, notes = [], [], [], [], []
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
            raise ValueError(
                f"{measure}: all held-out images are equally near ({unseen.similarity[0]:.3g}); "
                "are the images constant?"
            )
        excess = excesses(search, queries[0], people, (near, unseen, alike))
        sides = (
            Side(
                made.group.to_numpy(),
                made.subject.to_numpy(),
                near.similarity,
                near.other,
                excess[0],
                central,
            ),
            Side(
                *unseen_people, unseen.similarity, unseen.other, excess[1], np.ones(len(held), bool)
            ),
        )
        called = single_copies(excess[0], np.concatenate(excess[1:]))
        notes += [f"{NAMES[measure]}: {called.note}"] if called.note else []
        tests += [
            {"measure": measure, **row} for row in set_tests(*sides, called=called, seed=seed)
        ]
        tau, rows = _group_rows(*sides, called=called, reference=alike.similarity[of], seed=seed)
        groups += [{"measure": measure, **row} for row in rows]
        sources.append({"measure": measure, **_sources(near, made.subject.to_numpy(), tau)})
        at = train[near.row]
        pairs.append(
            pd.DataFrame(
                {
                    "measure": measure,
                    "row": np.arange(len(made)),
                    "group": made.group,
                    "similarity": near.similarity,
                    "excess": excess[0],
                    "candidate": near.similarity > tau,
                    "copy": called.copies if called.copies is not None else None,
                    "training_row": at,
                    "training_subject": index.subject.to_numpy()[at],
                    "source_subject": made.subject,
                    "source_row": made.source_row,
                    "source_similarity": near.own,
                }
            ).sort_values("excess", ascending=False)
        )
    whole = with_alarms(pd.DataFrame(tests))
    tables = whole, pd.DataFrame(groups), pd.DataFrame(sources)
    notes += _notes(tables[1], whole, fake)
    return Audit(*tables, pd.concat(pairs, ignore_index=True), verdicts(*tables), notes)


def write_private(
    found: Audit, cohort: Store, synthetic: Store, folder: Path, *, worst: int = 12
) -> None:
    """Every image's nearest training image as CSV, and the `worst` pairs drawn, in a folder that
    git ignores.

    The only place of the audit with real images and subjects (hashed): it stays where the cohort's
    data may be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ".gitignore", "*\n")
    write_atomic(folder / "nearest.csv", found.pairs.to_csv(index=False))
    for measure, pairs in found.pairs.groupby("measure", sort=False):
        top = pairs.head(worst)
        drawn = figures.copy_pairs(
            synthetic.images[top.row.to_numpy()],
            cohort.images[top.training_row.to_numpy()],
            top.similarity.tolist(),
        )
        figures.save(drawn, folder / f"pairs_{measure}")


def _held_rows(index: pd.DataFrame, groups: set[str], *, most: int, seed: int) -> np.ndarray:
    """A row per subject of val and test, the central one where it has that; of `groups` first, and
    of these evenly."""
    rows = index.reset_index(drop=True)[index.split.isin(("val", "test")).to_numpy()]
    rows = rows.sort_values("central", ascending=False, kind="stable").drop_duplicates("subject")
    rows = rows.sort_index().sample(frac=1, random_state=seed)
    turn = pd.DataFrame(
        {"other": ~rows.group.isin(groups), "turn": rows.groupby("group").cumcount()}
    )
    return np.sort(turn.sort_values(["other", "turn"], kind="stable").index.to_numpy()[:most])


def _check(cohort: Store, synthetic: Store, train: np.ndarray, held: np.ndarray) -> None:
    if cohort.images.shape[1:] != synthetic.images.shape[1:]:
        raise ValueError(
            f"images of the cohort are {cohort.images.shape[1:]}, of the synthetic set "
            f"{synthetic.images.shape[1:]}; audit a set against the cohort it was made from"
        )
    if (persons := cohort.index.subject.iloc[train].nunique()) < 2:
        raise ValueError(
            f"{cohort.folder}: {persons} training subjects; an audit compares with at least 2"
        )
    if len(held) < FEW:
        raise ValueError(
            f"{cohort.folder}: {len(held)} held-out subjects (val and test); tau, the 95th percentile of "
            f"their similarities, needs at least {FEW}"
        )
    if not len(synthetic.index):
        raise ValueError(
            f"{synthetic.folder}: the synthetic set is empty; there is nothing to audit"
        )


def excesses(
    search: Search, real: Any, people: np.ndarray, found: tuple[Nearest, Nearest, Nearest]
) -> list[np.ndarray]:
    """Fisher z of each image's similarity to its training image, less that of this one to its
    nearest other person."""
    rows, back = np.unique(np.concatenate([near.row for near in found]), return_inverse=True)
    between = search(real[rows], people[rows]).other[back]
    similarity = np.concatenate([near.similarity for near in found])
    z = [np.arctanh(np.clip(values, -1 + 1e-6, 1 - 1e-6)) for values in (similarity, between)]
    return np.split(z[0] - z[1], np.cumsum([len(near.row) for near in found])[:-1])


def _sources_in(made: pd.DataFrame, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `train` of the images whose masks were used, each once, and of each synthetic image
    among those."""
    at = pd.Index(train).get_indexer(made.source_row)
    if (at < 0).any():
        raise ValueError(
            f"{(at < 0).sum()} of {len(at)} source rows are no training images; audit a set against the "
            "cohort it was made from"
        )
    used, of = np.unique(at, return_inverse=True)
    return used, of


class Called(NamedTuple):
    """Which images are called copies, each for itself."""

    copies: np.ndarray | None  # (n,) bool; None for too few real images to compare with
    p: float  # of all together (Simes): the chance that anyone is called at this level
    against: int  # real images compared with
    note: str = ""


def single_copies(excess: np.ndarray, unseen: np.ndarray) -> Called:
    """Which images are called copies: Benjamini-Hochberg over each one's chance of so large an
    excess if it were unseen.

    That chance is the rank among real images of unseen or other people (Bates et al. 2023), and
    beyond their 95th percentile an exponential tail (its predictive form, since k excesses tell the
    mean only so well), so that a lone copy can be told from the nearest of thousands.
    """
    if len(unseen) < TAIL:
        note = f"only {len(unseen)} real images to compare with, single copies are not called (that needs {TAIL})."
        return Called(None, float("nan"), len(unseen), note)
    edge = np.quantile(unseen, 1 - EXPECTED)
    beyond = unseen[unseen > edge] - edge
    ranked = (1 + len(unseen) - np.searchsorted(np.sort(unseen), excess)) / (1 + len(unseen))
    tail = EXPECTED * (1 + np.maximum(excess - edge, 0) / max(beyond.sum(), 1e-9)) ** -float(
        len(beyond)
    )
    adjusted = stats.false_discovery_control(np.where(excess > edge, tail, ranked))
    return Called(adjusted <= FALSE, float(adjusted.min()), len(unseen))


def set_tests(made: Side, held: Side, *, called: Called, seed: int) -> list[dict[str, Any]]:
    """The tests of a whole set by one measure; columns as `audit` says, without p_holm and
    alarm."""
    rows, level = [], NEARER / 4
    for name, value in (("nearest", made.similarity), ("nearest without the source", made.other)):
        first, second, counts = shared(made.sample(value), held.sample(held.similarity))
        result = nearest(first, second, seed=seed, level=level)
        rows.append(
            {
                "test": name,
                "value": result.observed,
                "by_chance": result.expected,
                "alarm_from": result.alarm_from,
                "p": result.p,
                **_counts(counts),
            }
        )
    first, second, counts = shared(made.sample(made.similarity), held.sample(held.similarity))
    result_ct = ranks(first, second, seed=seed)
    rows.append(
        {
            "test": "C_T",
            "value": result_ct.ct,
            "by_chance": 0.0,
            "p": result_ct.p,
            **_counts(counts),
        }
    )
    copies = float(called.copies.sum()) if called.copies is not None else float("nan")
    people = len(pd.unique(made.person))
    everybody = Counts(len(made.group), people, called.against, 0)
    rows.append(
        {"test": "copies", "value": copies, "by_chance": 0.0, "p": called.p, **_counts(everybody)}
    )
    return rows


def with_alarms(tests: pd.DataFrame) -> pd.DataFrame:
    """The rows of `set_tests` for all measures, with p_holm over nearest and C_T, and alarm."""
    tests["p_holm"] = np.nan
    family = tests.test.isin(("nearest", "C_T"))
    tests.loc[family, "p_holm"] = holm(tests.p[family].to_numpy())
    tests["alarm"] = (tests.p_holm <= NEARER) | ((tests.test == "copies") & (tests.p <= FALSE))
    order = ["measure", "test", "value", "by_chance", "alarm_from", "p", "p_holm", "alarm"]
    return tests[[*order, "images", "sources", "held_out", "left_out"]]


def _counts(counts: Counts) -> dict[str, int]:
    return dict(zip(("images", "sources", "held_out", "left_out"), counts, strict=True))


def _group_rows(
    made: Side, held: Side, *, called: Called, reference: np.ndarray, seed: int
) -> tuple[float, list[dict[str, Any]]]:
    """tau, and the rows of `Audit.groups` by one measure; `reference`: (n,) similarity of each
    image's source to others."""
    weight = _weights(made.group, held.group)
    tau = _quantile(held.similarity, weight)
    rows = []
    for group in ("all", *sorted(set(made.group))):
        mine, theirs = (
            np.ones(len(s.group), bool) if group == "all" else s.group == group
            for s in (made, held)
        )
        first, second = (s.sample(s.similarity, part) for s, part in ((made, mine), (held, theirs)))
        first, second, counts = shared(first, second)
        beyond, near, far = (
            made.similarity[mine] > tau,
            made.excess[mine] < 0,
            held.excess[theirs] < 0,
        )
        weights, whole = weight[theirs], ranks(first, second, seed=seed)
        rows.append(
            {
                "group": group,
                "n": int(mine.sum()),
                "sources": len(pd.unique(made.person[mine])),
                "held_out": int(theirs.sum()),
                "tau": tau,
                "candidates": int(beyond.sum()),
                **_share("", "share", beyond, made.person[mine]),
                "expected": _mean(held.similarity[theirs] > tau, weights),
                "matched": float((reference[mine] > tau).mean()),
                "p": nearest(first, second, seed=seed).p,
                "p_holm": np.nan,
                "copies": float(called.copies[mine].sum()) if called.copies is not None else np.nan,
                **_share("authentic_", "authentic", near, made.person[mine]),
                "held_authentic": _mean(far, weights),
                "ct": whole.ct,
                "ct_p": whole.p,
                "few": int(mine.sum()) < FEW,
            }
        )
    for row, adjusted in zip(rows[1:], holm(np.array([row["p"] for row in rows[1:]])), strict=True):
        row["p_holm"] = float(adjusted)
    return tau, rows


def _share(prefix: str, name: str, hits: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """A share of images with its interval, images of one person taken together."""
    found = intervals.share(hits, people)
    return {name: found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}


def _weights(made: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(m,) weights of held-out people at the set's mix of the groups that both have; equal ones
    where they share none."""
    shares, counts = pd.Series(made).value_counts(), pd.Series(held).value_counts()
    weight = (shares / counts).reindex(held).fillna(0).to_numpy(float)
    return weight / weight.sum() if weight.any() else np.full(len(held), 1 / len(held))


def _quantile(values: np.ndarray, weights: np.ndarray) -> float:
    """The smallest value beyond which lies at most EXPECTED of the weight."""
    order = np.argsort(values, kind="stable")
    above = 1 - np.cumsum(weights[order])
    return float(values[order][np.argmax(above <= EXPECTED + 1e-9)])


def _mean(hits: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(hits, weights=weights)) if weights.sum() > 0 else float("nan")


def _sources(near: Nearest, people: np.ndarray, tau: float) -> dict[str, Any]:
    """Likeness to the source subject and to other people, apart."""
    known = ~np.isnan(near.own)
    n = int(known.sum())
    row: dict[str, Any] = {"n": n, "sources": len(pd.unique(people[known]))}
    for name, hits in (
        ("nearest_is_source", near.own[known] > near.other[known]),
        ("source_beyond", near.own[known] > tau),
        ("others_beyond", near.other[known] > tau),
    ):
        row |= _share(f"{name}_", name, hits, people[known])
    medians = [float(np.median(s[known])) if n else np.nan for s in (near.own, near.other)]
    return {**row, "source_similarity": medians[0], "other_similarity": medians[1], "tau": tau}


def _notes(table: pd.DataFrame, tests: pd.DataFrame, fake: Selection) -> list[str]:
    said, of = [], table[(table.measure == "sight") & (table.group != "all")]
    if few := int(of.few.sum()):
        said.append(
            f"{few} of {len(of)} groups have fewer than {FEW} images: their rows are only a hint."
        )
    if left := int(tests.left_out.max()):
        missing = ", ".join(of.group[of.held_out == 0])
        said.append(
            f"{left:,} images are in no test of the whole set, since no held-out person has their group: {missing}."
        )
    parts = (fake[some] for some in row_slices(fake))
    if constant := sum(int((part.max((1, 2, 3)) == part.min((1, 2, 3))).sum()) for part in parts):
        said.append(
            f"{constant} synthetic images are constant; they resemble nothing and count as no copies."
        )
    return said
