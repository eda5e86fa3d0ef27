"""What the audit computes by one measure of similarity: tests of the whole set, images that are
called copies, and the numbers of each group."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from cmrgen.evaluation.privacy.alarms import (
    Counts,
    Sample,
    holm,
    in_common_groups,
    nearest_test,
    rank_test,
)
from cmrgen.evaluation.privacy.nearest import Nearest, Search
from cmrstudy import intervals
from cmrstudy.intervals import MIN_COUNT

EXPECTED = 0.05  # share of unseen people beyond tau, the other 95 % quantile (Dar et al. 2023)
FALSE_COPIES = 0.01  # share of false ones allowed among the images called copies
# chance of a false alarm of nearest and C_T by both measures; with FALSE_COPIES by both, 5 % for a
# whole audit
NEARER_ALARM = 0.03
MIN_TAIL = 100  # held-out images that a tail can be fitted to


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
        return Sample(value, self.group, self.person).subset(
            self.middle if rows is None else self.middle & rows
        )


def excesses(
    search: Search, training: Any, people: np.ndarray, nearest: tuple[Nearest, Nearest, Nearest]
) -> list[np.ndarray]:
    """Fisher z of each image's similarity to its training image, less that of this one to its
    nearest other person.

    Args:
        search: among the training images.
        training: these, as `search` takes them.
        people: (n,) codes of their subjects.
        nearest: what `search` gave for three kinds of images.

    Returns:
        (n,) excesses of each kind.
    """
    rows, back = np.unique(np.concatenate([near.row for near in nearest]), return_inverse=True)
    between = search(training[rows], people[rows]).other[back]
    similarity = np.concatenate([near.similarity for near in nearest])
    z = [np.arctanh(np.clip(values, -1 + 1e-6, 1 - 1e-6)) for values in (similarity, between)]
    return np.split(z[0] - z[1], np.cumsum([len(near.row) for near in nearest])[:-1])


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
    if len(unseen) < MIN_TAIL:
        note = (
            f"only {len(unseen)} real images to compare with, single copies are not called (that "
            f"needs {MIN_TAIL})."
        )
        return Called(None, float("nan"), len(unseen), note)
    edge = np.quantile(unseen, 1 - EXPECTED)
    beyond = unseen[unseen > edge] - edge
    ranked = (1 + len(unseen) - np.searchsorted(np.sort(unseen), excess)) / (1 + len(unseen))
    tail = EXPECTED * (1 + np.maximum(excess - edge, 0) / max(beyond.sum(), 1e-9)) ** -float(
        len(beyond)
    )
    adjusted = stats.false_discovery_control(np.where(excess > edge, tail, ranked))
    return Called(adjusted <= FALSE_COPIES, float(adjusted.min()), len(unseen))


def set_tests(
    synthetic: Side, held_out: Side, *, called: Called, seed: int
) -> list[dict[str, Any]]:
    """The tests of a whole set by one measure.

    Args:
        synthetic: the set's images.
        held_out: images of people whom the generator has never seen.
        called: which images are called copies.
        seed: of the draws of one image per person.

    Returns:
        Rows with the columns that `memorisation_audit` says, without p_holm and alarm.
    """
    unseen, rows = held_out.sample(held_out.similarity), []
    for name, value in (
        ("nearest", synthetic.similarity),
        ("nearest without the source", synthetic.other),
    ):
        *samples, counts = in_common_groups(synthetic.sample(value), unseen)
        near = nearest_test(*samples, seed=seed, level=NEARER_ALARM / 4)
        rows.append(
            {
                "test": name,
                "value": near.observed,
                "by_chance": near.expected,
                "alarm_from": near.alarm_from,
                "p": near.p,
                **_counts(counts),
            }
        )
    *samples, counts = in_common_groups(synthetic.sample(synthetic.similarity), unseen)
    whole = rank_test(*samples, seed=seed)
    rows.append(
        {"test": "C_T", "value": whole.ct, "by_chance": 0.0, "p": whole.p, **_counts(counts)}
    )
    copies = float(called.copies.sum()) if called.copies is not None else float("nan")
    people = len(pd.unique(synthetic.person))
    everybody = Counts(len(synthetic.group), people, called.against, 0)
    rows.append(
        {"test": "copies", "value": copies, "by_chance": 0.0, "p": called.p, **_counts(everybody)}
    )
    return rows


def with_alarms(tests: pd.DataFrame) -> pd.DataFrame:
    """The rows of `set_tests` for all measures, with p_holm over nearest and C_T, and alarm."""
    tests["p_holm"] = np.nan
    family = tests.test.isin(("nearest", "C_T"))
    tests.loc[family, "p_holm"] = holm(tests.p[family].to_numpy())
    tests["alarm"] = (tests.p_holm <= NEARER_ALARM) | (
        (tests.test == "copies") & (tests.p <= FALSE_COPIES)
    )
    order = ["measure", "test", "value", "by_chance", "alarm_from", "p", "p_holm", "alarm"]
    return tests[[*order, "images", "sources", "held_out", "left_out"]]


def _counts(counts: Counts) -> dict[str, int]:
    return dict(zip(("images", "sources", "held_out", "left_out"), counts, strict=True))


def group_rows(
    synthetic: Side, held_out: Side, *, called: Called, reference: np.ndarray, seed: int
) -> tuple[float, list[dict[str, Any]]]:
    """tau, and the rows of `Audit.groups` by one measure.

    Args:
        synthetic: the set's images.
        held_out: images of people whom the generator has never seen.
        called: which images are called copies.
        reference: (n,) similarity of each synthetic image's source image to other people.
        seed: of the draws of one image per person.
    """
    weights = _weights(synthetic.group, held_out.group)
    tau = _quantile(held_out.similarity, weights)
    rows = []
    for group in ("all", *sorted(set(synthetic.group))):
        mine, theirs = (
            np.ones(len(side.group), bool) if group == "all" else side.group == group
            for side in (synthetic, held_out)
        )
        first, second, _ = in_common_groups(
            synthetic.sample(synthetic.similarity, mine),
            held_out.sample(held_out.similarity, theirs),
        )
        beyond, people = synthetic.similarity[mine] > tau, synthetic.person[mine]
        ranks = rank_test(first, second, seed=seed)
        rows.append(
            {
                "group": group,
                "n": int(mine.sum()),
                "sources": len(pd.unique(people)),
                "held_out": int(theirs.sum()),
                "tau": tau,
                "candidates": int(beyond.sum()),
                **_share("", "share", beyond, people),
                "expected": _weighted_mean(held_out.similarity[theirs] > tau, weights[theirs]),
                "matched": float((reference[mine] > tau).mean()),
                "p": nearest_test(first, second, seed=seed).p,
                "p_holm": np.nan,
                "copies": float(called.copies[mine].sum()) if called.copies is not None else np.nan,
                **_share("authentic_", "authentic", synthetic.excess[mine] < 0, people),
                "held_authentic": _weighted_mean(held_out.excess[theirs] < 0, weights[theirs]),
                "ct": ranks.ct,
                "ct_p": ranks.p,
                "few": int(mine.sum()) < MIN_COUNT,
            }
        )
    for row, adjusted in zip(rows[1:], holm(np.array([row["p"] for row in rows[1:]])), strict=True):
        row["p_holm"] = float(adjusted)
    return tau, rows


def _share(prefix: str, name: str, hits: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """A share of images with its interval, images of one person taken together."""
    share = intervals.share(hits, people)
    return {name: share.value, f"{prefix}low": share.low, f"{prefix}high": share.high}


def _weights(synthetic: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """(m,) weights of held-out people at the set's mix of the groups that both have; equal ones
    where they share none."""
    shares, counts = pd.Series(synthetic).value_counts(), pd.Series(held_out).value_counts()
    weight = (shares / counts).reindex(held_out).fillna(0).to_numpy(float)
    return weight / weight.sum() if weight.any() else np.full(len(held_out), 1 / len(held_out))


def _quantile(values: np.ndarray, weights: np.ndarray) -> float:
    """The smallest value beyond which lies at most EXPECTED of the weight."""
    order = np.argsort(values, kind="stable")
    above = 1 - np.cumsum(weights[order])
    return float(values[order][np.argmax(above <= EXPECTED + 1e-9)])


def _weighted_mean(hits: np.ndarray, weights: np.ndarray) -> float:
    return float(np.average(hits, weights=weights)) if weights.sum() > 0 else float("nan")


def source_similarity(near: Nearest, people: np.ndarray, tau: float) -> dict[str, Any]:
    """Similarity to the source subject and to other people, apart.

    Args:
        near: what the search gave for the set's images.
        people: (n,) their source subjects.
        tau: of `group_rows`.
    """
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
