"""How good the classifier is for each subgroup, and how far apart subgroups are, every number with
n and an interval.

Intervals rest on a bootstrap of subjects, whose predictions by all runs stay together, and on the
spread over an arm's replicates; see cmrcls.fairness.statistics. Gaps and worst subgroups are freed of what
picking extremes adds; see cmrcls.fairness.extremes. Where too few subjects decide, words stand in the
interval's place.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, logit

from cmrcls.fairness import extremes
from cmrcls.fairness.extremes import Gap, Lowest, Part, Rates
from cmrcls.fairness.metrics import METRICS, Metric, scored
from cmrcls.fairness.statistics import LEVEL, corrected_for_many, interval, moves, resample
from cmrcls.fairness.study import (
    FEWEST_FOLDS,
    Axis,
    Level,
    Study,
    axes_of,
    given,
    holds,
    levels,
    replicates,
)
from cmrdata.progress import each

# subjects a rate must rest on for an interval; below, benchmarks/coverage.py finds less than 93 %
# coverage
FEWEST = 20
CHUNK = 250  # resamples together
# column -> the rates whose largest difference between subgroups it is; fairlearn's definitions
MEASURES = {
    "balanced_accuracy": ("balanced_accuracy",),
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("sensitivity",),
    "equalised_odds": ("sensitivity", "false_positive_rate"),
}
SUBGROUP_COLUMNS = [
    "axis",
    "crossed",
    "subgroup",
    "arm",
    "metric",
    "n",
    "positives",
    "sets",
    "seeds",
    "mean",
    "sd",
    "low",
    "high",
    "change",
    "change_low",
    "change_high",
    "resamples",
    "holds",
    "given",
    "note",
]
DISPARITY_COLUMNS = [
    "axis",
    "crossed",
    "arm",
    "measure",
    "n",
    "subgroups",
    "fewest",
    "sets",
    "seeds",
    "difference",
    "expected",
    "expected_95",
    "p",
    "permutations",
    "corrected",
    "low",
    "high",
    "between_sd",
    "ratio",
    "ratio_expected",
    "ratio_corrected",
    "lowest",
    "lowest_rate",
    "highest",
    "highest_rate",
    "rate",
    "change",
    "change_low",
    "change_high",
    "reduction",
    "reduction_low",
    "reduction_high",
    "holds",
    "given",
    "note",
    "left_out",
]
WORST_COLUMNS = [
    "axis",
    "crossed",
    "arm",
    "n",
    "subgroups",
    "fewest",
    "sets",
    "seeds",
    "worst",
    "observed",
    "expected",
    "p",
    "corrected",
    "low",
    "high",
    "change",
    "change_low",
    "change_high",
    "holds",
    "given",
    "note",
    "left_out",
]


class Score(NamedTuple):
    """A metric in a subgroup."""

    value: np.ndarray  # (T,)
    mean: np.ndarray  # (A,) of each arm
    drawn: np.ndarray  # (R, A) how far resamples of the subjects move it
    varies: np.ndarray  # (A,) variance of that
    single: list[
        float
        # of each arm: the variance that single predictions make, which subjects and replicates both
        # hold
    ]
    folds: np.ndarray | None  # (F, A) what the subjects of each fold add
    rests_on: int


class Arm(NamedTuple):
    """An arm's runs and what its mean holds."""

    name: str
    own: np.ndarray  # positions of its runs
    levels: list[Level]
    facts: dict[str, Any]  # sets, seeds, holds, given


class Around(NamedTuple):
    """What all numbers of a study are measured with."""

    study: Study
    arms: list[Arm]
    weights: np.ndarray  # (T, A)
    base: int | None  # place of the baseline among the arms
    folds: np.ndarray | None  # (n,)
    moves: np.ndarray  # (R, T) replicates drawn anew
    folded: np.ndarray  # (R,) folds drawn anew: Student's t
    seed: int


class Tables(NamedTuple):
    """Long tables: `subgroups` has a row per axis, subgroup, arm and metric, `disparities` one per
    axis, arm and measure, `worst` one per axis and arm; `tests` compares every two arms by their
    gaps and worst subgroups.

    mean, sd: over runs; low, high: the 95 % interval, or a note why there is none; holds: the
    chance that is in it, given: what it is conditional on; change: minus the baseline's.
    difference: the highest minus the lowest subgroup's mean `rate` as observed; expected,
    expected_95, p: of equal subgroups of these sizes; corrected: without the bias of picking
    extremes, as the interval, change and reduction (1 - corrected over the baseline's) are;
    between_sd: between subgroups, less chance; ratio: lowest over highest; fewest: subjects the
    least supported rate rests on.
    """

    subgroups: pd.DataFrame
    disparities: pd.DataFrame
    worst: pd.DataFrame
    tests: pd.DataFrame


def measure(
    study: Study,
    *,
    axes: Sequence[str] = (),
    resamples: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
) -> Tables:
    """Every metric per subgroup and arm, and the MEASURES and worst subgroups per axis and arm.

    Args:
        study: the predictions.
        axes: further columns whose values are subgroups.
        resamples: of the bootstrap.
        permutations: of subgroups among subjects.
        seed: of both.
    """
    rng = np.random.default_rng(seed)
    counts = resample(len(study.subjects), resamples=resamples, rng=rng)
    around = _around(study, resamples, rng, seed)
    divided = axes_of(study.subjects, axes)
    rates = extremes.shuffled(
        study.decision @ around.weights,
        study.subjects.label.to_numpy(int),
        [axis for axis in divided if axis.columns],
        fold=around.folds,
        permutations=permutations,
        rng=rng,
    )
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    worst: list[dict[str, Any]] = []
    tests: list[pd.DataFrame] = []
    for axis in each(divided, "subgroups and gaps", total=len(divided), unit="axes"):
        bands = _scores(around, axis, counts)
        facts = {"axis": axis.title, "crossed": len(axis.columns)}
        rows += [facts | row for row in _metric_rows(around, axis, bands, METRICS)]
        if not axis.columns:
            continue
        facts["n"] = int((axis.codes >= 0).sum())
        measured = {
            name: _spreads(around, axis, bands, rates[axis.title], name) for name in MEASURES
        }
        lowest = _lowest(around, axis, bands, rates[axis.title])
        gaps += [
            facts | row for name, some in measured.items() for row in _gap_rows(around, name, some)
        ]
        worst += [facts | row for row in _worst_rows(around, lowest)]
        for kind, some in (("worst", lowest), ("gap", measured["balanced_accuracy"])):
            tests.append(_extreme_tests(around, some, higher_is_better=kind == "worst"))
            tests[-1] = tests[-1].assign(measure=kind, axis=axis.title, crossed=len(axis.columns))
    return Tables(
        pd.DataFrame(rows, columns=SUBGROUP_COLUMNS),
        pd.DataFrame(gaps, columns=DISPARITY_COLUMNS),
        pd.DataFrame(worst, columns=WORST_COLUMNS),
        pd.concat(tests, ignore_index=True) if tests else pd.DataFrame(),
    )


def measured(
    study: Study,
    kinds: Mapping[str, str | Metric],
    *,
    axes: Sequence[str] = (),
    everybody: bool = False,
    limits: tuple[float, float] = (0, 1),
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Further metrics with their intervals, per subgroup of a single axis and arm:
    SUBGROUP_COLUMNS.

    Args:
        study: the predictions.
        kinds: name of the row -> a metric.
        axes: further columns whose values are subgroups.
        everybody: only all subjects together.
        limits: of what the metrics can be.
        resamples: of the bootstrap.
        seed: of it.
    """
    rng = np.random.default_rng(seed)
    counts = resample(len(study.subjects), resamples=resamples, rng=rng)
    around = _around(study, resamples, rng, seed)
    rows: list[dict[str, Any]] = []
    for axis in axes_of(study.subjects, axes):
        if len(axis.columns) > (0 if everybody else 1):
            continue
        places = [np.flatnonzero(axis.codes == code) for code in range(len(axis.names))]
        bands = [_band(around, kinds, who, counts) for who in places]
        facts = {"axis": axis.title, "crossed": len(axis.columns)}
        rows += [facts | row for row in _metric_rows(around, axis, bands, kinds, limits=limits)]
    return pd.DataFrame(rows, columns=SUBGROUP_COLUMNS)


def _around(study: Study, resamples: int, rng: np.random.Generator, seed: int) -> Around:
    arms = []
    for name in study.arms:
        own = study.positions(name)
        counted = replicates(study, name)
        facts = {
            "sets": counted["sets"],
            "seeds": counted["seeds"],
            "holds": holds(study, name),
            "given": given(study, name),
        }
        arms.append(Arm(name, own, levels(study.runs.iloc[own]), facts))
    folds = study.folds
    freedom = max(1, 0 if folds is None else int(folds.max()))
    base = None if study.baseline is None else study.arms.index(study.baseline)
    return Around(
        study,
        arms,
        study.weights,
        base,
        folds,
        moves(study, resamples=resamples, rng=rng),
        rng.standard_t(freedom, resamples),
        seed,
    )


def _scores(around: Around, axis: Axis, counts: np.ndarray) -> list[dict[str, Score]]:
    """Of each subgroup of an axis: every metric, and the false positive rate for gaps."""
    kinds = {name: name for name in [*METRICS, *(["false_positive_rate"] if axis.columns else [])]}
    return [
        _band(around, kinds, np.flatnonzero(axis.codes == code), counts)
        for code in range(len(axis.names))
    ]


def _band(
    around: Around, kinds: Mapping[str, str | Metric], who: np.ndarray, counts: np.ndarray
) -> dict[str, Score]:
    """The metrics `kinds` of the subjects at `who`; influences of single runs are not kept."""
    within = around.study.predicted.of(who)
    values: list[tuple[np.ndarray, int]] = []
    singles: list[list[float]] = []
    means = np.empty((len(who), len(kinds), len(around.arms)), np.float32)
    for k, kind in enumerate(kinds.values()):
        one = scored(kind, within)
        values.append((one.value, one.rests_on))
        means[:, k] = one.influence @ around.weights
        singles.append([_single(one.influence[:, arm.own], arm.levels) for arm in around.arms])
    columns = len(kinds) * len(around.arms)  # in words, since `who` may be nobody
    drawn = _resampled(means.reshape(len(who), columns), counts, who).reshape(
        len(counts), *means.shape[1:]
    )
    varies = (means.astype(float) ** 2).sum(axis=0)
    folds = None
    if around.folds is not None:
        belongs = np.arange(around.folds.max() + 1)[:, None] == around.folds[who]
        folds = np.einsum("fn,nka->fka", belongs.astype(float), means.astype(float))
    return {
        name: Score(
            value,
            value @ around.weights,
            drawn[:, k],
            varies[k],
            singles[k],
            None if folds is None else folds[:, k],
            rests_on,
        )
        for k, (name, (value, rests_on)) in enumerate(zip(kinds, values, strict=True))
    }


def _single(influence: np.ndarray, of: Sequence[Level]) -> float:
    """The variance that differences between an arm's replicates on the same subject make; 0 without
    replicates."""
    return sum(level.factor * float(((influence @ level.parts.T) ** 2).sum()) for level in of[:1])


def _resampled(means: np.ndarray, counts: np.ndarray, who: np.ndarray) -> np.ndarray:
    """(R, columns) sums of influences (n, columns) of the subjects at `who`, as often as `counts`
    (R, all) says."""
    found = np.empty((len(counts), means.shape[1]), np.float32)
    for start in range(0, len(counts), CHUNK):
        found[start : start + CHUNK] = counts[start : start + CHUNK, who].astype(np.float32) @ means
    return found


def _draws(around: Around, score: Score, plus: int, minus: int | None = None) -> np.ndarray:
    """Draws (R,) of the deviation of an arm's mean, or of its difference from another's.

    Subjects: the resampled influences. Replicates: the scores moved. What differs between
    replicates on the same resample is chance of single predictions, which both hold, so the first
    is narrowed by its share (variance components). Folds: what their spread exceeds the others by.
    """
    signs = {plus: 1.0} | ({} if minus is None else {minus: -1.0})
    subjects = sum(sign * score.drawn[:, k].astype(float) for k, sign in signs.items())
    varies = score.varies[plus] if minus is None else float(np.var(subjects))
    single = sum(score.single[k] for k in signs)
    share = min(1.0, single / varies) if varies > 0 else 0.0
    total = np.sqrt(1 - share) * subjects
    for k, sign in signs.items():
        own = around.arms[k].own
        total = total + sign * (around.moves[:, own] @ score.value[own])
    if score.folds is not None and len(score.folds) >= FEWEST_FOLDS:
        of_folds = np.sum([sign * score.folds[:, k] for k, sign in signs.items()], axis=0)
        known = varies * (1 - share) + sum(_training(score.value, around.arms[k]) for k in signs)
        excess = len(of_folds) * np.var(of_folds, ddof=1) - known
        total = total + np.sqrt(max(0.0, excess)) * around.folded
    return total


def _training(value: np.ndarray, arm: Arm) -> float:
    """The variance of an arm's mean by its replicates."""
    return sum(
        level.factor * float(((level.parts @ value[arm.own]) ** 2).sum()) for level in arm.levels
    )


def _metric_rows(
    around: Around,
    axis: Axis,
    bands: Sequence[dict[str, Score]],
    names: Iterable[str],
    *,
    limits: tuple[float, float] = (0, 1),
) -> Iterator[dict[str, Any]]:
    label = around.study.subjects.label.to_numpy(int)
    for code, name in enumerate(axis.names):
        who = axis.codes == code
        about = {"subgroup": name, "n": int(who.sum()), "positives": int(label[who].sum())}
        for k, arm in enumerate(around.arms):
            for metric in names:
                row = {
                    **about,
                    **arm.facts,
                    "arm": arm.name,
                    "metric": metric,
                    "resamples": len(around.moves),
                }
                yield row | _metric_cells(around, bands[code][metric], metric, k, limits=limits)


def _metric_cells(
    around: Around, score: Score, metric: str, k: int, *, limits: tuple[float, float]
) -> dict[str, Any]:
    mean, value = score.mean[k], score.value[around.arms[k].own]
    row: dict[str, Any] = {"mean": mean, "sd": value.std(ddof=1) if len(value) > 1 else np.nan}
    moved = _draws(around, score, k)
    # by logarithmic odds, so that it stays below 1
    if metric in ("auroc", "auprc") and 0 < mean < 1:
        row |= _ends(logit(mean) + moved / (mean * (1 - mean)), score.rests_on)
        row |= {end: float(expit(row[end])) for end in ("low", "high")}
    else:
        row |= _ends(mean + moved, score.rests_on, limits=limits)
    if lacking := int(np.isnan(value).sum()):
        row["note"] = (
            f"undefined in {lacking} of {len(value)} runs" if lacking < len(value) else "undefined"
        )
    if around.base not in (None, k):
        row["change"] = mean - score.mean[around.base]
        ends = _ends(
            row["change"] + _draws(around, score, k, around.base), score.rests_on, limits=(-1, 1)
        )
        row |= {f"change_{end}": ends[end] for end in ("low", "high")}
    return row


def _ends(
    draws: np.ndarray, rests_on: int, *, limits: tuple[float, float] = (-np.inf, np.inf)
) -> dict[str, Any]:
    """The interval's ends within what the measure can be, and why there is none."""
    if rests_on < FEWEST:
        return {
            "low": np.nan,
            "high": np.nan,
            "note": f"rests on {rests_on} subjects, fewer than {FEWEST}",
        }
    low, high = interval(draws, rests_on=rests_on, limits=limits)
    return {"low": low, "high": high, "note": "all resamples alike" if np.isnan(low) else ""}


Found = TypeVar("Found", bound=Gap | Lowest)


class Spread(NamedTuple, Generic[Found]):
    """An arm's largest difference between subgroups, or its worst one, with draws of it."""

    found: Found
    draws: np.ndarray  # (R,) around the corrected value
    cells: dict[str, Any]  # of its row


class Spreads(NamedTuple, Generic[Found]):
    """Of every arm, in the subgroups where it is defined."""

    arms: list[Spread[Found]]  # none where fewer than two subgroups have it
    fewest: int  # subjects that the least supported rate rests on
    facts: dict[str, Any]


def _defined(
    axis: Axis, bands: Sequence[dict[str, Score]], rates: Sequence[str]
) -> tuple[np.ndarray, int, dict[str, Any]]:
    """The subgroups (places) where all rates are defined in every run, the fewest subjects, and
    facts of their rows."""
    known = [all(not np.isnan(band[rate].value).any() for rate in rates) for band in bands]
    who = np.flatnonzero(known)
    left_out = "; ".join(
        name for name, is_known in zip(axis.names, known, strict=True) if not is_known
    )
    fewest = min((bands[code][rate].rests_on for code in who.tolist() for rate in rates), default=0)
    return who, fewest, {"subgroups": len(who), "fewest": fewest, "left_out": left_out}


def _part(
    around: Around,
    bands: Sequence[dict[str, Score]],
    rates: Rates,
    rate: str,
    who: np.ndarray,
    k: int,
    rng: np.random.Generator,
) -> Part:
    """A rate of the k-th arm in the subgroups `who`, with its chance."""
    arm, some = around.arms[k], [bands[code][rate] for code in who]
    runs = np.stack([score.value[arm.own] for score in some], axis=1)
    trained = extremes.trained(arm.levels, runs, draws=len(rates.rate) - 1, rng=rng)
    return extremes.part(rates, k, who, trained=trained, dispersion=_dispersion(some, k))


def _dispersion(some: Sequence[Score], k: int) -> float:
    """By which chance between folds exceeds that of subjects, over subgroups; 1 where it doesn't,
    or without folds."""
    ratios = [
        len(score.folds) * np.var(score.folds[:, k], ddof=1) / score.varies[k]
        for score in some
        if score.folds is not None and len(score.folds) >= FEWEST_FOLDS and score.varies[k] > 0
    ]
    return max(1.0, float(np.mean(ratios))) if ratios else 1.0


def _spreads(
    around: Around,
    axis: Axis,
    bands: Sequence[dict[str, Score]],
    rates: dict[str, Rates],
    measure: str,
) -> Spreads[Gap]:
    """A measure of an axis, of every arm."""
    names = MEASURES[measure]
    who, fewest, facts = _defined(axis, bands, names)
    spreads: Spreads[Gap] = Spreads([], fewest, facts)
    if len(who) < 2:
        return spreads
    for k in range(len(around.arms)):
        rng = np.random.default_rng(
            [around.seed, zlib.crc32(f"{axis.title}/{measure}".encode()), k]
        )
        parts = [_part(around, bands, rates[name], name, who, k, rng) for name in names]
        gap = extremes.gap(parts, level=LEVEL, rng=rng)
        moved = [
            rate + np.stack([_draws(around, bands[code][name], k) for code in who], axis=1)
            for name, rate in zip(names, gap.parts, strict=True)
        ]
        draws = gap.curve.freed(np.max([np.ptp(one, axis=1) for one in moved], axis=0))
        cells = _extreme_cells(axis, who, parts[gap.where]) | _ratios(parts, gap)
        cells |= {"rate": names[gap.where], "permutations": len(parts[0].noise)}
        spreads.arms.append(Spread(gap, draws, cells))
    return spreads


def _extreme_cells(axis: Axis, who: np.ndarray, part: Part) -> dict[str, Any]:
    """The lowest and the highest subgroup by name."""
    low, high = int(np.argmin(part.rate)), int(np.argmax(part.rate))
    return {
        "lowest": axis.names[who[low]],
        "lowest_rate": part.rate[low],
        "highest": axis.names[who[high]],
        "highest_rate": part.rate[high],
    }


def _ratios(parts: Sequence[Part], gap: Gap) -> dict[str, float]:
    """Lowest over highest rate, of several rates the smallest: observed, of equal subgroups,
    without that bias."""
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = [part.rate.min() / part.rate.max() for part in parts]
        equal = []
        for part in parts:
            rate = np.clip(part.rate.mean() + part.noise, 0, 1)
            equal.append(rate.min(axis=1) / rate.max(axis=1))
        freed = [max(rate.min(), 0) / rate.max() for rate in gap.parts]
    if np.isnan(observed).any():
        return {}
    return {
        "ratio": min(observed),
        "ratio_expected": float(np.nanmean(np.min(equal, axis=0))),
        "ratio_corrected": min(freed),
    }


def _gap_rows(around: Around, measure: str, spreads: Spreads[Gap]) -> Iterator[dict[str, Any]]:
    for k, arm in enumerate(around.arms):
        row: dict[str, Any] = {"arm": arm.name, **arm.facts, **spreads.facts, "measure": measure}
        if not spreads.arms:
            yield row | {"note": "fewer than two subgroups where it is defined"}
            continue
        gap, draws, cells = spreads.arms[k]
        row |= (
            cells
            | {"difference": gap.observed}
            | _named(gap, "expected", "expected_95", "p", "corrected")
        )
        row |= {"between_sd": gap.between_sd, **_told(gap.low, gap.high, spreads.fewest)}
        if around.base not in (None, k):
            base = spreads.arms[around.base]
            row |= _change(spreads, k, around.base)
            row["reduction"] = (
                1 - gap.corrected / base.found.corrected if base.found.corrected > 0 else np.nan
            )
            if _is_apart(base) and spreads.fewest >= FEWEST:
                share = 1 - np.maximum(draws, 0) / np.maximum(base.draws, 1e-3)
                ends = _ends(share, spreads.fewest, limits=(-np.inf, 1))
                row |= {f"reduction_{end}": ends[end] for end in ("low", "high")}
        yield row


def _is_apart(base: Spread[Gap]) -> bool:
    """Whether a gap is surely there and known well enough to be divided by: else a reduction is any
    number."""
    return base.found.low > 0 and float(np.quantile(base.draws, 0.025)) > base.found.corrected / 4


def _named(of: Gap | Lowest, *fields: str) -> dict[str, float]:
    return {field: getattr(of, field) for field in fields}


def _told(low: float, high: float, fewest: int) -> dict[str, Any]:
    """An interval, or why there is none."""
    if fewest < FEWEST:
        return {
            "low": np.nan,
            "high": np.nan,
            "note": f"rests on {fewest} subjects, fewer than {FEWEST}",
        }
    return {"low": low, "high": high, "note": ""}


def _change(spreads: Spreads[Any], k: int, base: int) -> dict[str, float]:
    """The k-th arm's corrected value minus the baseline's."""
    ours, theirs = spreads.arms[k], spreads.arms[base]
    ends = _ends(ours.draws - theirs.draws, spreads.fewest, limits=(-1, 1))
    return {
        "change": ours.found.corrected - theirs.found.corrected,
        "change_low": ends["low"],
        "change_high": ends["high"],
    }


def _lowest(
    around: Around, axis: Axis, bands: Sequence[dict[str, Score]], rates: dict[str, Rates]
) -> Spreads[Lowest]:
    """The worst subgroup of an axis by balanced accuracy, of every arm."""
    name = "balanced_accuracy"
    who, fewest, facts = _defined(axis, bands, [name])
    spreads: Spreads[Lowest] = Spreads([], fewest, facts)
    if len(who) < 2:
        return spreads
    for k in range(len(around.arms)):
        rng = np.random.default_rng([around.seed, zlib.crc32(f"{axis.title}/worst".encode()), k])
        part = _part(around, bands, rates[name], name, who, k, rng)
        worst = extremes.lowest(part, rng=rng)
        noise = np.stack([_draws(around, bands[code][name], k) for code in who], axis=1)
        draws = worst.freed(worst.rates + noise)
        pointwise = [
            _ends(rate + noise[:, j], bands[who[j]][name].rests_on, limits=(0, 1))["low"]
            for j, rate in enumerate(part.rate)
        ]
        ends = min(pointwise), _below_all(part.rate, noise)
        cells = {
            "worst": axis.names[who[int(np.argmin(part.rate))]],
            "low": ends[0],
            "high": ends[1],
        }
        spreads.arms.append(Spread(worst, draws, cells))
    return spreads


def _below_all(rate: np.ndarray, noise: np.ndarray) -> float:
    """An upper limit of the lowest of K rates: the lowest of limits that hold for all at once."""
    tail = (1 + LEVEL) / 2
    reach = np.quantile(noise, [1 - tail, tail], axis=0)
    error = (reach[1] - reach[0]) / (2 * stats.norm.ppf(tail))
    if not (error > 0).all():
        return np.nan
    return min(1.0, float((rate + np.quantile((noise / error).max(axis=1), tail) * error).min()))


def _worst_rows(around: Around, spreads: Spreads[Lowest]) -> Iterator[dict[str, Any]]:
    for k, arm in enumerate(around.arms):
        row: dict[str, Any] = {"arm": arm.name, **arm.facts, **spreads.facts}
        if not spreads.arms:
            yield row | {"note": "fewer than two subgroups where it is defined"}
            continue
        worst, _, cells = spreads.arms[k]
        row |= cells | _named(worst, "observed", "expected", "p", "corrected")
        row |= _told(cells["low"], cells["high"], spreads.fewest)
        if around.base not in (None, k):
            row |= _change(spreads, k, around.base)
        yield row


def _extreme_tests(
    around: Around, spreads: Spreads[Any], *, higher_is_better: bool
) -> pd.DataFrame:
    """Every two arms compared by corrected gaps or worst subgroups; columns as statistics.tested
    has them.

    p: twice the share of draws of the difference beyond 0. Where too few subjects decide there is
        none.
    """
    rows = []
    for (j, first), (k, second) in combinations(enumerate(around.arms), 2):
        row: dict[str, Any] = {
            "first": first.name,
            "second": second.name,
            "test": "bootstrap",
            "pairs": 0,
            "unit": "subject",
            "smallest_p": np.nan,
            "p": np.nan,
            "difference": np.nan,
        }
        if spreads.arms:
            row["difference"] = spreads.arms[k].found.corrected - spreads.arms[j].found.corrected
        if spreads.arms and spreads.fewest >= FEWEST:
            apart = spreads.arms[k].draws - spreads.arms[j].draws
            beyond = min((apart <= 0).sum(), (apart >= 0).sum())
            row["p"] = min(1.0, 2 * (1 + beyond) / (1 + len(apart)))
        rows.append(row)
    columns = ["first", "second", "difference", "p", "test", "unit", "pairs", "smallest_p"]
    return corrected_for_many(
        pd.DataFrame(rows, columns=columns), higher_is_better=higher_is_better
    )
