"""The chance that a study's numbers hold: subjects drawn anew, whose predictions by all runs stay
together, replicates drawn anew, and folds.

Every table with intervals is made of the `Score`s of a subgroup and of draws around them; see
cmrcls.fairness.statistics for what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmrcls.fairness.levels import MIN_FOLDS, Level, chance_given, chance_held, levels_of
from cmrcls.fairness.metrics import Metric, scored
from cmrcls.fairness.statistics import interval, moves, resample
from cmrcls.fairness.study import Arm, Study, replicate_counts
from cmrdata.counting import number_of

Array = npt.NDArray[Any]
# subjects a rate must rest on for an interval; below, benchmarks/coverage.py finds less than 93 %
# coverage
MIN_SUBJECTS_FOR_INTERVAL = 20
RESAMPLES_AT_ONCE = 250


class Score(NamedTuple):
    """A metric in a subgroup."""

    value: Array  # (T,)
    mean: Array  # (A,) of each arm
    resampled: Array  # (R, A) how far resamples of the subjects move it
    varies: Array  # (A,) variance of that
    # of each arm: the variance that single predictions make, which subjects and replicates both
    # hold
    single: list[float]
    folds: Array | None  # (F, A) what the subjects of each fold add
    rests_on: int


class MeasuredArm(NamedTuple):
    """An arm's runs and what its mean holds."""

    arm: Arm
    own: npt.NDArray[np.intp]  # positions of its runs
    levels: list[Level]
    facts: dict[str, Any]  # sets, seeds, holds, given


class Bootstrap(NamedTuple):
    """What all numbers of a study are measured with: A arms, T runs, R resamples."""

    study: Study
    arms: list[MeasuredArm]
    weights: Array  # (T, A)
    base: int | None  # place of the baseline among the arms
    folds: npt.NDArray[np.intp] | None  # (n,)
    counts: Array  # (R, n) how often each subject is drawn
    moves: Array  # (R, T) replicates drawn anew
    folded: Array  # (R,) folds drawn anew: Student's t
    seed: int


def bootstrap(
    study: Study, *, resamples: int, seed: int, rng: np.random.Generator | None = None
) -> Bootstrap:
    """Subjects, replicates and folds of a study, drawn anew.

    Args:
        study: the predictions.
        resamples: how often.
        seed: of the draws.
        rng: the source of chance, begun with `seed`; a new one where none is given.
    """
    rng = rng or np.random.default_rng(seed)
    counts = resample(len(study.subjects), resamples=resamples, rng=rng)
    folds = study.folds
    freedom = 1 if folds is None else max(1, int(folds.max()))
    return Bootstrap(
        study,
        [_measured_arm(study, arm) for arm in study.arms],
        study.weights,
        None if study.baseline is None else study.arms.index(study.baseline),
        folds,
        counts,
        moves(study, resamples=resamples, rng=rng),
        rng.standard_t(freedom, resamples),
        seed,
    )


def _measured_arm(study: Study, arm: Arm) -> MeasuredArm:
    counts = replicate_counts(study, arm)
    facts = {
        "sets": counts["sets"],
        "seeds": counts["seeds"],
        "holds": chance_held(study, arm),
        "given": chance_given(study, arm),
    }
    return MeasuredArm(arm, study.positions(arm), levels_of(study, arm), facts)


def subgroup_scores(
    boot: Bootstrap, metrics: Mapping[str, Metric], who: npt.NDArray[np.intp]
) -> dict[str, Score]:
    """The metrics of some subjects; influences of single runs are not kept.

    Args:
        boot: the study.
        metrics: by name.
        who: positions of the subjects.

    Returns:
        Name -> score.
    """
    within = boot.study.predicted.of(who)
    values: list[tuple[Array, int]] = []
    singles: list[list[float]] = []
    means = np.empty((len(who), len(metrics), len(boot.arms)), np.float32)
    for k, metric in enumerate(metrics.values()):
        one = scored(metric, within)
        values.append((one.value, one.rests_on))
        means[:, k] = one.influence @ boot.weights
        singles.append([_single(one.influence[:, arm.own], arm.levels) for arm in boot.arms])
    resampled = _resampled(
        means.reshape(len(who), math.prod(means.shape[1:])), boot.counts, who
    ).reshape(len(boot.counts), *means.shape[1:])
    varies = (means.astype(float) ** 2).sum(axis=0)
    folds = None
    if boot.folds is not None:
        belongs = np.arange(boot.folds.max() + 1)[:, None] == boot.folds[who]
        folds = np.einsum("fn,nka->fka", belongs.astype(float), means.astype(float))
    return {
        name: Score(
            value,
            value @ boot.weights,
            resampled[:, k],
            varies[k],
            singles[k],
            None if folds is None else folds[:, k],
            rests_on,
        )
        for k, (name, (value, rests_on)) in enumerate(zip(metrics, values, strict=True))
    }


def _single(influence: Array, levels: Sequence[Level]) -> float:
    """The variance that differences between an arm's replicates on the same subject make; 0 without
    replicates."""
    return sum(
        level.factor * float(((influence @ level.parts.T) ** 2).sum()) for level in levels[:1]
    )


def _resampled(means: Array, counts: Array, who: npt.NDArray[np.intp]) -> Array:
    """(R, columns) sums of influences (n, columns) of the subjects at `who`, as often as `counts`
    (R, all) says."""
    sums = np.empty((len(counts), means.shape[1]), np.float32)
    for start in range(0, len(counts), RESAMPLES_AT_ONCE):
        rows = slice(start, start + RESAMPLES_AT_ONCE)
        sums[rows] = counts[rows, who].astype(np.float32) @ means
    return sums


def deviations(boot: Bootstrap, score: Score, plus: int, minus: int | None = None) -> Array:
    """Draws (R,) of the deviation of an arm's mean, or of its difference from another's.

    Subjects: the resampled influences. Replicates: the scores moved. What differs between
    replicates on the same resample is chance of single predictions, which both hold, so the first
    is narrowed by its share (variance components). Folds: what their spread exceeds the others by.

    Args:
        boot: the study.
        score: of a subgroup.
        plus: place of the arm.
        minus: place of the arm that is subtracted; None for none.
    """
    signs = {plus: 1.0} | ({} if minus is None else {minus: -1.0})
    subjects = sum(
        (sign * score.resampled[:, k].astype(float) for k, sign in signs.items()),
        start=np.zeros(()),
    )
    varies = float(score.varies[plus]) if minus is None else float(np.var(subjects))
    single = sum(score.single[k] for k in signs)
    share = min(1.0, single / varies) if varies > 0 else 0.0
    total = np.sqrt(1 - share) * subjects
    for k, sign in signs.items():
        own = boot.arms[k].own
        total = total + sign * (boot.moves[:, own] @ score.value[own])
    if score.folds is not None and len(score.folds) >= MIN_FOLDS:
        of_folds = np.sum([sign * score.folds[:, k] for k, sign in signs.items()], axis=0)
        known = varies * (1 - share) + sum(_training(score.value, boot.arms[k]) for k in signs)
        excess = len(of_folds) * np.var(of_folds, ddof=1) - known
        total = total + np.sqrt(max(0.0, excess)) * boot.folded
    draws: Array = total
    return draws


def _training(value: Array, arm: MeasuredArm) -> float:
    """The variance of an arm's mean by its replicates."""
    return sum(
        level.factor * float(((level.parts @ value[arm.own]) ** 2).sum()) for level in arm.levels
    )


def interval_cells(
    draws: Array, rests_on: int, *, limits: tuple[float, float] = (-np.inf, np.inf)
) -> dict[str, Any]:
    """An interval, or why there is none: low, high, note.

    Args:
        draws: (R,) of the number.
        rests_on: how many subjects decide it.
        limits: what the number can be.
    """
    if rests_on < MIN_SUBJECTS_FOR_INTERVAL:
        return no_interval(rests_on)
    low, high = interval(draws, rests_on=rests_on, limits=limits)
    return {"low": low, "high": high, "note": "all resamples alike" if np.isnan(low) else ""}


def no_interval(rests_on: int) -> dict[str, Any]:
    """The cells of a number that too few subjects decide."""
    note = f"rests on {number_of(rests_on, 'subjects')}, fewer than {MIN_SUBJECTS_FOR_INTERVAL}"
    return {"low": np.nan, "high": np.nan, "note": note}
