"""How far apart subgroups are: gaps in metrics and the worst subgroup, every number with n and an
interval.

Intervals rest on a bootstrap of subjects and on the spread over an arm's replicates; see
cmrcls.fairness.resampling. Gaps and worst subgroups are freed of what picking extremes adds; see
cmrcls.fairness.extremes. Where too few subjects decide, words stand in the interval's place.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from cmrcls.fairness import extremes
from cmrcls.fairness.extremes import RATES, Gap, Lowest, Part, Rates
from cmrcls.fairness.levels import MIN_FOLDS
from cmrcls.fairness.metrics import METRICS, reported
from cmrcls.fairness.resampling import (
    MIN_SUBJECTS_FOR_INTERVAL,
    Bootstrap,
    Score,
    bootstrap,
    deviations,
    interval_cells,
    no_interval,
)
from cmrcls.fairness.statistics import CONFIDENCE, corrected_for_many
from cmrcls.fairness.study import Study
from cmrcls.fairness.subgroup_metrics import SUBGROUP_COLUMNS, metric_rows, scores_along
from cmrcls.fairness.subgroups import Division, divisions
from cmrdata.progress import each

Array = npt.NDArray[Any]


class Measure(NamedTuple):
    """A way in which subgroups can differ: the largest difference between them in any of its
    rates."""

    title: str  # for readers
    rates: tuple[str, ...]  # of extremes.RATES


# fairlearn's definitions. Rows may be added from outside: tables and the report read them here.
MEASURES: dict[str, Measure] = {
    "balanced_accuracy": Measure("balanced accuracy", ("balanced_accuracy",)),
    "demographic_parity": Measure("demographic parity", ("selection_rate",)),
    "equal_opportunity": Measure("equal opportunity", ("sensitivity",)),
    "equalised_odds": Measure("equalised odds", ("sensitivity", "false_positive_rate")),
}
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

    Raises:
        ValueError: for a measure of a rate that can't be permuted.
    """
    for name, kind in MEASURES.items():
        if unknown := sorted(set(kind.rates) - set(RATES)):
            raise ValueError(
                f"MEASURES[{name!r}]: {unknown[0]} is no rate that gaps are made of; these are "
                f"{', '.join(RATES)}"
            )
    rng = np.random.default_rng(seed)
    boot = bootstrap(study, resamples=resamples, seed=seed, rng=rng)
    divided = divisions(study.subjects, axes)
    rates = extremes.shuffled(
        study.decision @ boot.weights,
        study.subjects.label.to_numpy(int),
        [division for division in divided if division.axis.columns],
        fold=boot.folds,
        permutations=permutations,
        rng=rng,
    )
    parts = [
        _along(boot, division, rates.get(division.axis, {}))
        for division in each(divided, "subgroups and gaps", total=len(divided), unit="axes")
    ]
    tests = [part.tests for part in parts if not part.tests.empty]
    return Tables(
        pd.DataFrame([row for part in parts for row in part.subgroups], columns=SUBGROUP_COLUMNS),
        pd.DataFrame([row for part in parts for row in part.gaps], columns=DISPARITY_COLUMNS),
        pd.DataFrame([row for part in parts for row in part.worst], columns=WORST_COLUMNS),
        pd.concat(tests, ignore_index=True) if tests else pd.DataFrame(),
    )


class _Rows(NamedTuple):
    """What an axis adds to Tables."""

    subgroups: list[dict[str, Any]]
    gaps: list[dict[str, Any]]
    worst: list[dict[str, Any]]
    tests: pd.DataFrame


def _along(boot: Bootstrap, division: Division, rates: Mapping[str, Rates]) -> _Rows:
    """Everything of an axis; `rates` as `extremes.shuffled` has them, none for everybody."""
    metrics = {name: METRICS[name] for name in reported()}
    bands = scores_along(boot, division, metrics | {name: METRICS[name] for name in rates})
    rows = list(metric_rows(boot, division, bands, metrics))
    axis = division.axis
    if not axis.columns:
        return _Rows(rows, [], [], pd.DataFrame())
    spreads = {name: _spreads(boot, division, bands, rates, name) for name in MEASURES}
    lowest = _lowest(boot, division, bands, rates)
    facts = {"axis": axis, "crossed": len(axis.columns), "n": int((division.codes >= 0).sum())}
    gaps = [facts | row for name in MEASURES for row in _gap_rows(boot, name, spreads[name])]
    worst = [facts | row for row in _worst_rows(boot, lowest)]
    tests = [
        _extreme_tests(boot, lowest, higher_is_better=True).assign(measure="worst"),
        _extreme_tests(boot, spreads["balanced_accuracy"], higher_is_better=False).assign(
            measure="gap"
        ),
    ]
    table = pd.concat(tests, ignore_index=True).assign(axis=axis, crossed=len(axis.columns))
    return _Rows(rows, gaps, worst, table)


Extreme = TypeVar("Extreme", bound=Gap | Lowest)


class Spread(NamedTuple, Generic[Extreme]):
    """An arm's largest difference between subgroups, or its worst one, with draws of it."""

    extreme: Extreme
    draws: Array  # (R,) around the corrected value
    cells: dict[str, Any]  # of its row


class Spreads(NamedTuple, Generic[Extreme]):
    """Of every arm, in the subgroups where it is defined."""

    arms: list[Spread[Extreme]]  # none where fewer than two subgroups have it
    fewest: int  # subjects that the least supported rate rests on
    facts: dict[str, Any]


def _defined(
    division: Division, bands: Sequence[Mapping[str, Score]], rates: Sequence[str]
) -> tuple[Array, int, dict[str, Any]]:
    """The subgroups (places) where all rates are defined in every run, the fewest subjects, and
    facts of their rows."""
    known = [all(not np.isnan(band[rate].value).any() for rate in rates) for band in bands]
    who = np.flatnonzero(known)
    left_out = "; ".join(
        name for name, is_known in zip(division.names, known, strict=True) if not is_known
    )
    fewest = min((bands[code][rate].rests_on for code in who.tolist() for rate in rates), default=0)
    return who, fewest, {"subgroups": len(who), "fewest": fewest, "left_out": left_out}


def _part(
    boot: Bootstrap,
    bands: Sequence[Mapping[str, Score]],
    rates: Rates,
    rate: str,
    who: Array,
    k: int,
    rng: np.random.Generator,
) -> Part:
    """A rate of the k-th arm in the subgroups `who`, with its chance."""
    arm, scores = boot.arms[k], [bands[code][rate] for code in who]
    runs = np.stack([score.value[arm.own] for score in scores], axis=1)
    trained = extremes.trained(arm.levels, runs, draws=len(rates.rate) - 1, rng=rng)
    return extremes.part(rates, k, who, trained=trained, dispersion=_dispersion(scores, k))


def _dispersion(scores: Sequence[Score], k: int) -> float:
    """By which chance between folds exceeds that of subjects, over subgroups; 1 where it doesn't,
    or without folds."""
    ratios = [
        len(score.folds) * np.var(score.folds[:, k], ddof=1) / score.varies[k]
        for score in scores
        if score.folds is not None and len(score.folds) >= MIN_FOLDS and score.varies[k] > 0
    ]
    return max(1.0, float(np.mean(ratios))) if ratios else 1.0


def _spreads(
    boot: Bootstrap,
    division: Division,
    bands: Sequence[Mapping[str, Score]],
    rates: Mapping[str, Rates],
    measure: str,
) -> Spreads[Gap]:
    """A measure of an axis, of every arm."""
    names = MEASURES[measure].rates
    who, fewest, facts = _defined(division, bands, names)
    spreads: Spreads[Gap] = Spreads([], fewest, facts)
    if len(who) < 2:
        return spreads
    for k in range(len(boot.arms)):
        rng = np.random.default_rng(
            [boot.seed, zlib.crc32(f"{division.axis}/{measure}".encode()), k]
        )
        parts = [_part(boot, bands, rates[name], name, who, k, rng) for name in names]
        gap = extremes.gap(parts, level=CONFIDENCE, rng=rng)
        moved = [
            rate + np.stack([deviations(boot, bands[code][name], k) for code in who], axis=1)
            for name, rate in zip(names, gap.parts, strict=True)
        ]
        draws = gap.curve.freed(np.max([np.ptp(one, axis=1) for one in moved], axis=0))
        cells = _extreme_cells(division, who, parts[gap.where]) | _ratios(parts, gap)
        cells |= {"rate": names[gap.where], "permutations": len(parts[0].noise)}
        spreads.arms.append(Spread(gap, draws, cells))
    return spreads


def _extreme_cells(division: Division, who: Array, part: Part) -> dict[str, Any]:
    """The lowest and the highest subgroup by name."""
    low, high = int(np.argmin(part.rate)), int(np.argmax(part.rate))
    return {
        "lowest": division.names[who[low]],
        "lowest_rate": part.rate[low],
        "highest": division.names[who[high]],
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


def _gap_rows(boot: Bootstrap, measure: str, spreads: Spreads[Gap]) -> Iterator[dict[str, Any]]:
    """A row per arm: its gap, and the change from the baseline's."""
    for k, arm in enumerate(boot.arms):
        row: dict[str, Any] = {"arm": arm.arm, **arm.facts, **spreads.facts, "measure": measure}
        if not spreads.arms:
            yield row | {"note": "fewer than two subgroups where it is defined"}
            continue
        gap, draws, cells = spreads.arms[k]
        row |= (
            cells
            | {"difference": gap.observed}
            | _named(gap, "expected", "expected_95", "p", "corrected")
        )
        row |= {"between_sd": gap.between_sd, **_interval(gap.low, gap.high, spreads.fewest)}
        if boot.base not in (None, k):
            base = spreads.arms[boot.base]
            row |= _change(spreads, k, boot.base)
            row["reduction"] = (
                1 - gap.corrected / base.extreme.corrected if base.extreme.corrected > 0 else np.nan
            )
            if _is_apart(base) and spreads.fewest >= MIN_SUBJECTS_FOR_INTERVAL:
                share = 1 - np.maximum(draws, 0) / np.maximum(base.draws, 1e-3)
                ends = interval_cells(share, spreads.fewest, limits=(-np.inf, 1))
                row |= {f"reduction_{end}": ends[end] for end in ("low", "high")}
        yield row


def _is_apart(base: Spread[Gap]) -> bool:
    """Whether a gap is surely there and known well enough to be divided by: else a reduction is any
    number."""
    return (
        base.extreme.low > 0 and float(np.quantile(base.draws, 0.025)) > base.extreme.corrected / 4
    )


def _named(of: Gap | Lowest, *fields: str) -> dict[str, float]:
    return {field: getattr(of, field) for field in fields}


def _interval(low: float, high: float, fewest: int) -> dict[str, Any]:
    """An interval, or why there is none."""
    if fewest < MIN_SUBJECTS_FOR_INTERVAL:
        return no_interval(fewest)
    return {"low": low, "high": high, "note": ""}


def _change(spreads: Spreads[Any], k: int, base: int) -> dict[str, float]:
    """The k-th arm's corrected value minus the baseline's."""
    ours, theirs = spreads.arms[k], spreads.arms[base]
    ends = interval_cells(ours.draws - theirs.draws, spreads.fewest, limits=(-1, 1))
    return {
        "change": ours.extreme.corrected - theirs.extreme.corrected,
        "change_low": ends["low"],
        "change_high": ends["high"],
    }


def _lowest(
    boot: Bootstrap,
    division: Division,
    bands: Sequence[Mapping[str, Score]],
    rates: Mapping[str, Rates],
) -> Spreads[Lowest]:
    """The worst subgroup of an axis by balanced accuracy, of every arm."""
    name = "balanced_accuracy"
    who, fewest, facts = _defined(division, bands, [name])
    spreads: Spreads[Lowest] = Spreads([], fewest, facts)
    if len(who) < 2:
        return spreads
    for k in range(len(boot.arms)):
        rng = np.random.default_rng([boot.seed, zlib.crc32(f"{division.axis}/worst".encode()), k])
        part = _part(boot, bands, rates[name], name, who, k, rng)
        worst = extremes.lowest(part, rng=rng)
        noise = np.stack([deviations(boot, bands[code][name], k) for code in who], axis=1)
        draws = worst.freed(worst.rates + noise)
        pointwise = [
            interval_cells(rate + noise[:, j], bands[who[j]][name].rests_on, limits=(0, 1))["low"]
            for j, rate in enumerate(part.rate)
        ]
        cells = {
            "worst": division.names[who[int(np.argmin(part.rate))]],
            "low": min(pointwise),
            "high": _below_all(part.rate, noise),
        }
        spreads.arms.append(Spread(worst, draws, cells))
    return spreads


def _below_all(rate: Array, noise: Array) -> float:
    """An upper limit of the lowest of K rates: the lowest of limits that hold for all at once."""
    tail = (1 + CONFIDENCE) / 2
    reach = np.quantile(noise, [1 - tail, tail], axis=0)
    error = (reach[1] - reach[0]) / (2 * stats.norm.ppf(tail))
    if not (error > 0).all():
        return np.nan
    return min(1.0, float((rate + np.quantile((noise / error).max(axis=1), tail) * error).min()))


def _worst_rows(boot: Bootstrap, spreads: Spreads[Lowest]) -> Iterator[dict[str, Any]]:
    """A row per arm: its worst subgroup, and the change from the baseline's."""
    for k, arm in enumerate(boot.arms):
        row: dict[str, Any] = {"arm": arm.arm, **arm.facts, **spreads.facts}
        if not spreads.arms:
            yield row | {"note": "fewer than two subgroups where it is defined"}
            continue
        worst, _, cells = spreads.arms[k]
        row |= cells | _named(worst, "observed", "expected", "p", "corrected")
        row |= _interval(cells["low"], cells["high"], spreads.fewest)
        if boot.base not in (None, k):
            row |= _change(spreads, k, boot.base)
        yield row


def _extreme_tests(
    boot: Bootstrap, spreads: Spreads[Any], *, higher_is_better: bool
) -> pd.DataFrame:
    """Every two arms compared by corrected gaps or worst subgroups; columns as compare_all_arms has
    them.

    p is twice the share of draws of the difference beyond 0; where too few subjects decide there is
    none.
    """
    rows = []
    for (j, first), (k, second) in combinations(enumerate(boot.arms), 2):
        row: dict[str, Any] = {
            "first": first.arm,
            "second": second.arm,
            "test": "bootstrap",
            "pairs": 0,
            "unit": "subject",
            "smallest_p": np.nan,
            "p": np.nan,
            "difference": np.nan,
        }
        if spreads.arms:
            row["difference"] = (
                spreads.arms[k].extreme.corrected - spreads.arms[j].extreme.corrected
            )
        if spreads.arms and spreads.fewest >= MIN_SUBJECTS_FOR_INTERVAL:
            apart = spreads.arms[k].draws - spreads.arms[j].draws
            beyond = min((apart <= 0).sum(), (apart >= 0).sum())
            row["p"] = min(1.0, 2 * (1 + beyond) / (1 + len(apart)))
        rows.append(row)
    columns = ["first", "second", "difference", "p", "test", "unit", "pairs", "smallest_p"]
    return corrected_for_many(
        pd.DataFrame(rows, columns=columns), higher_is_better=higher_is_better
    )
