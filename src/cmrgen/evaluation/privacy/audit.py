"""Is a synthetic set safe to share? The memorisation audit: candidate copies, authenticity and C_T.

Every number stands beside the same number of held-out people, whom the generator has never seen:
what they score is what chance gives. The numbers are in scores.py, the statistics behind them in
alarms.py, their words in verdicts.py, the membership attack in membership.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from cmrdata.counting import number_of
from cmrdata.disk import write_atomic
from cmrdata.selection import Selection, everything, row_slices
from cmrdata.store import Store
from cmrgen.evaluation.privacy.display import copy_pairs
from cmrgen.evaluation.privacy.nearest import Nearest, Search, by_features, by_sight
from cmrgen.evaluation.privacy.scores import (
    Called,
    Side,
    excesses,
    group_rows,
    set_tests,
    single_copies,
    source_similarity,
    with_alarms,
)
from cmrgen.evaluation.privacy.verdicts import MEASURES, audit_verdicts
from cmrstudy import figures
from cmrstudy.intervals import MIN_COUNT

Embed = Callable[[Store, np.ndarray], np.ndarray]  # rows of a store -> (n, d) features


class TooFewPeople(ValueError):
    """A cohort is too small for an audit."""


class Audit(NamedTuple):
    """What `memorisation_audit` measured. Real subjects and rows occur in `pairs` alone, which
    stays in a private folder."""

    tests: pd.DataFrame  # a row per measure and test of the whole set
    groups: pd.DataFrame  # a row per measure and group, "all" first
    # a row per measure: similarity to the subject whose mask and prompt were used, and to others
    sources: pd.DataFrame
    pairs: pd.DataFrame  # a row per measure and synthetic image, the most suspicious first
    verdicts: list[str]
    notes: list[str]


def memorisation_audit(
    cohort: Store,
    synthetic_set: Store,
    embed: Embed,
    *,
    seed: int,
    held_out: int = 2000,
    device: torch.device | str = "cpu",
    scratch: Path | None = None,
) -> Audit:
    """Does the set hold copies of training images? Measured by what is seen and in features.

    Training images: every row of the splits train and extra (which may have taught the base). Held
    out: one image per subject of val and test, as evenly from the set's groups as these allow.
    Every test but that of single copies compares set and held-out people within groups, in images
    of the central slice (held-out people have no other), one of each source subject; false alarms
    and powers are in docs/results/audit.md.

    Columns of tests: measure, test (nearest; nearest without the source subject's own images; C_T;
    copies), value, by_chance and alarm_from (of nearest: images of the set among the nearest 5 % of
    both), p, p_holm (over nearest and C_T of both measures), alarm, images, sources, held_out
    (people), left_out (images of the central slice whose group nobody held out has).

    Columns of groups: measure, group, n, sources, held_out (images), tau (the 95th percentile of
    held-out people's similarity at the set's mix of groups), candidates (images beyond tau), share,
    low, high, expected (share of held-out people beyond tau at that mix), matched (the same of the
    set's source images, searched among other people), p and p_holm (of nearest, over groups),
    copies (called one by one; 1 % of them may be false), authentic, low and high (AuthPct, Alaa et
    al. 2022; the neighbour's nearest is another person, since its own slices are alike),
    held_authentic, ct and ct_p (Meehan et al. 2020; negative: nearer than held-out people), few.
    95 % intervals take the images of a source together.

    Args:
        cohort: the real images.
        synthetic_set: the set.
        embed: rows of a store -> (n, d) features.
        seed: of the held-out images and of the tests' draws.
        held_out: held-out people, at most.
        device: where images are compared.
        scratch: a folder for the search's nameless files; by default the system's.

    Raises:
        ValueError: a side has too few images or another size, or features are not finite.
    """
    compared = _audit_images(cohort, synthetic_set, held_out=held_out, seed=seed)
    embedded = [
        np.asarray(embed(store, rows), np.float64)
        for store, rows in (
            (cohort, compared.training),
            (cohort, compared.held_out),
            (synthetic_set, np.arange(len(synthetic_set.index))),
        )
    ]
    if not all(np.isfinite(features).all() for features in embedded):
        raise ValueError(
            "the features of the audit hold NaN or inf; look at the network behind `embed`"
        )
    training = Selection(cohort.images, compared.training)
    held = Selection(cohort.images, compared.held_out)
    synthetic = everything(synthetic_set.images)
    by_image = by_sight(training, compared.people, device=device, scratch=scratch)
    results = [
        _by_measure("sight", by_image, (training, held, synthetic), compared, seed=seed),
        _by_measure(
            "features",
            by_features(embedded[0], compared.people),
            (embedded[0], embedded[1], embedded[2]),
            compared,
            seed=seed,
        ),
    ]
    tests = with_alarms(pd.concat([result.tests for result in results], ignore_index=True))
    groups, sources, pairs = (
        pd.concat([getattr(result, name) for result in results], ignore_index=True)
        for name in ("groups", "sources", "pairs")
    )
    notes = [note for result in results for note in result.notes]
    notes += _notes(groups, tests, synthetic)
    return Audit(tests, groups, sources, pairs, audit_verdicts(tests, groups, sources), notes)


class AuditImages(NamedTuple):
    """The images of an audit."""

    training: np.ndarray  # rows of the cohort
    people: np.ndarray  # code of the subject of each training image
    held_out: np.ndarray  # rows of the cohort
    held_out_index: pd.DataFrame  # of those
    training_index: pd.DataFrame
    synthetic_index: pd.DataFrame
    source: (
        np.ndarray
    )  # code of the subject whose mask each synthetic image has; -1: no training one
    used: np.ndarray  # places in `training` of the images whose masks were used, each once
    used_of: np.ndarray  # of each synthetic image, its place in `used`
    central: np.ndarray  # bool: whether a synthetic image's mask is of a central slice


def _audit_images(cohort: Store, synthetic_set: Store, *, held_out: int, seed: int) -> AuditImages:
    index, synthetic = cohort.index, synthetic_set.index
    training = np.flatnonzero(index.split.isin(("train", "extra")))
    held = _held_out_rows(index, set(synthetic.group), most=held_out, seed=seed)
    _check(cohort, synthetic_set, training, held)
    people, names = pd.factorize(index.subject.iloc[training])
    used, used_of = _sources_in(synthetic, training)
    return AuditImages(
        training,
        people,
        held,
        index.iloc[held],
        index.iloc[training],
        synthetic,
        pd.Index(names).get_indexer(synthetic.subject),
        used,
        used_of,
        index["slice"].to_numpy()[synthetic.source_row] == 0,
    )


class MeasureResult(NamedTuple):
    """The rows of an `Audit` by one measure."""

    tests: pd.DataFrame
    groups: pd.DataFrame
    sources: pd.DataFrame
    pairs: pd.DataFrame
    notes: list[str]


def _by_measure(
    measure: str,
    search: Search,
    queries: tuple[Any, Any, Any],
    compared: AuditImages,
    *,
    seed: int,
) -> MeasureResult:
    """The audit by one measure; queries: training, held-out and synthetic images, as `search` takes
    them."""
    training, held, synthetic = queries
    index, used = compared.synthetic_index, compared.used
    near = search(synthetic, compared.source)
    unseen = search(held, np.full(len(compared.held_out), -1))
    alike = search(training[used], compared.people[used])
    alike = alike._replace(own=np.full(len(used), np.nan))  # real images as if they were unseen
    if np.ptp(unseen.similarity) == 0:
        raise ValueError(
            f"{measure}: all held-out images are equally near ({unseen.similarity[0]:.3g}); "
            "are the images constant?"
        )
    excess = excesses(search, training, compared.people, (near, unseen, alike))
    set_side = Side(
        index.group.to_numpy(),
        index.subject.to_numpy(),
        near.similarity,
        near.other,
        excess[0],
        compared.central,
    )
    held_side = Side(
        compared.held_out_index.group.to_numpy(),
        compared.held_out_index.subject.to_numpy(),
        unseen.similarity,
        unseen.other,
        excess[1],
        np.ones(len(compared.held_out), bool),
    )
    called = single_copies(excess[0], np.concatenate(excess[1:]))
    tests = set_tests(set_side, held_side, called=called, seed=seed)
    tau, groups = group_rows(
        set_side,
        held_side,
        called=called,
        reference=alike.similarity[compared.used_of],
        seed=seed,
    )
    sources = source_similarity(near, index.subject.to_numpy(), tau)
    return MeasureResult(
        pd.DataFrame([{"measure": measure, **row} for row in tests]),
        pd.DataFrame([{"measure": measure, **row} for row in groups]),
        pd.DataFrame([{"measure": measure, **sources}]),
        _pairs(measure, near, excess[0], called, compared, tau=tau),
        [f"{MEASURES[measure]}: {called.note}"] if called.note else [],
    )


def _pairs(
    measure: str,
    near: Nearest,
    excess: np.ndarray,
    called: Called,
    compared: AuditImages,
    *,
    tau: float,
) -> pd.DataFrame:
    """Each synthetic image with its nearest training image, the most suspicious first."""
    index = compared.synthetic_index
    return pd.DataFrame(
        {
            "measure": measure,
            "row": np.arange(len(index)),
            "group": index.group,
            "similarity": near.similarity,
            "excess": excess,
            "candidate": near.similarity > tau,
            "copy": called.copies if called.copies is not None else None,
            "training_row": compared.training[near.row],
            "training_subject": compared.training_index.subject.to_numpy()[near.row],
            "source_subject": index.subject,
            "source_row": index.source_row,
            "source_similarity": near.own,
        }
    ).sort_values("excess", ascending=False)


def write_private(
    audit: Audit, cohort: Store, synthetic_set: Store, folder: Path, *, worst: int = 12
) -> None:
    """Write every image's nearest training image as CSV, and draw the worst pairs.

    The only place of the audit with real images and subjects (hashed): it stays where the cohort's
    data may be.

    Args:
        audit: what was measured.
        cohort: the real images.
        synthetic_set: the set.
        folder: which git is told to ignore.
        worst: pairs that are drawn.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / ".gitignore", "*\n")
    write_atomic(folder / "nearest.csv", audit.pairs.to_csv(index=False))
    for measure, pairs in audit.pairs.groupby("measure", sort=False):
        top = pairs.head(worst)
        figure = copy_pairs(
            synthetic_set.images[top.row.to_numpy()],
            cohort.images[top.training_row.to_numpy()],
            top.similarity.tolist(),
        )
        figures.save(figure, folder / f"pairs_{measure}")


def _held_out_rows(index: pd.DataFrame, groups: set[str], *, most: int, seed: int) -> np.ndarray:
    """A row per subject of val and test, the central one where it has that; of `groups` first, and
    of these evenly."""
    rows = index.reset_index(drop=True)[index.split.isin(("val", "test")).to_numpy()]
    rows = rows.sort_values("central", ascending=False, kind="stable").drop_duplicates("subject")
    rows = rows.sort_index().sample(frac=1, random_state=seed)
    turn = pd.DataFrame(
        {"other": ~rows.group.isin(groups), "turn": rows.groupby("group").cumcount()}
    )
    return np.sort(turn.sort_values(["other", "turn"], kind="stable").index.to_numpy()[:most])


def _check(cohort: Store, synthetic_set: Store, training: np.ndarray, held_out: np.ndarray) -> None:
    if cohort.images.shape[1:] != synthetic_set.images.shape[1:]:
        raise ValueError(
            f"images of the cohort are {cohort.images.shape[1:]}, of the synthetic set "
            f"{synthetic_set.images.shape[1:]}; audit a set against the cohort it was made from"
        )
    if (people := cohort.index.subject.iloc[training].nunique()) < 2:
        raise TooFewPeople(
            f"{cohort.folder}: {people} training subjects; an audit compares with at least 2"
        )
    if len(held_out) < MIN_COUNT:
        raise TooFewPeople(
            f"{cohort.folder}: {len(held_out)} held-out subjects (val and test); tau, the 95th "
            f"percentile of their similarities, needs at least {MIN_COUNT}"
        )
    if not len(synthetic_set.index):
        raise ValueError(
            f"{synthetic_set.folder}: the synthetic set is empty; there is nothing to audit"
        )


def _sources_in(index: pd.DataFrame, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in `training` of the images whose masks were used, each once, and of each synthetic
    image among those."""
    places = pd.Index(training).get_indexer(index.source_row)
    if (places < 0).any():
        raise ValueError(
            f"{(places < 0).sum()} of {len(places)} source rows are no training images; audit a "
            "set against the cohort it was made from"
        )
    used, used_of = np.unique(places, return_inverse=True)
    return used, used_of


def _notes(groups: pd.DataFrame, tests: pd.DataFrame, synthetic: Selection) -> list[str]:
    notes, of_sight = [], groups[(groups.measure == "sight") & (groups.group != "all")]
    if few := int(of_sight.few.sum()):
        notes.append(
            f"{few} of {len(of_sight)} groups have fewer than {MIN_COUNT} images: their rows are "
            "only a hint."
        )
    if left_out := int(tests.left_out.max()):
        missing = ", ".join(of_sight.group[of_sight.held_out == 0])
        notes.append(
            f"{number_of(left_out, 'images', 'are')} in no test of the whole set, since no "
            f"held-out person has their group: {missing}."
        )
    blocks = (synthetic[rows] for rows in row_slices(synthetic))
    if constant := sum(
        int((pixels.max((1, 2, 3)) == pixels.min((1, 2, 3))).sum()) for pixels in blocks
    ):
        notes.append(
            f"{constant} synthetic images are constant; they resemble nothing and count as no "
            "copies."
        )
    return notes
