"""How good the classifier is for each subgroup, and how far apart subgroups are, every number with n and an interval.

Intervals rest on a bootstrap of subjects within their subgroup, whose predictions by all runs stay together, and on the
spread over seeds; see cmrcls.statistics. Where too few subjects decide, words stand in the interval's place.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrcls import metrics
from cmrcls.metrics import METRICS
from cmrcls.statistics import interval, mean_draws, resample, seed_moves
from cmrcls.study import Study, subgroups_of

FEWEST = 20  # subjects a rate must rest on for an interval; below, benchmarks/coverage.py finds less than 93 % coverage
MEASURES = {  # column -> the metrics whose largest difference between subgroups it is; fairlearn's definitions
    "balanced_accuracy": ("balanced_accuracy",),
    "demographic_parity": ("selection_rate",),
    "equal_opportunity": ("sensitivity",),
    "equalised_odds": ("sensitivity", "false_positive_rate"),
}
SUBGROUP_COLUMNS = [
    "axis", "subgroup", "arm", "metric", "n", "positives", "seeds", "mean", "sd", "low", "high", "change", "change_low",
    "change_high", "resamples", "undefined", "note",
]  # fmt: skip
DISPARITY_COLUMNS = [
    "axis", "arm", "measure", "n", "seeds", "fewest", "difference", "low", "high", "ratio", "ratio_low", "ratio_high",
    "lowest", "lowest_rate", "highest", "highest_rate", "rate", "change", "change_low", "change_high", "reduction",
    "reduction_low", "reduction_high", "undefined", "note", "left_out",
]  # fmt: skip
Band = dict[str, "Score"]


class Score(NamedTuple):
    """A metric in a subgroup: per run, per run and resample, and the subjects it rests on."""

    point: np.ndarray  # (T,)
    drawn: np.ndarray  # (R, T)
    rests_on: int


class Spread(NamedTuple):
    """An arm's lowest and highest subgroup by a metric."""

    low: str
    high: str
    low_rate: float
    high_rate: float
    metric: str


class Tables(NamedTuple):
    """Long tables: `subgroups` has a row per axis, subgroup, arm and metric, `disparities` one per axis, arm and measure.

    mean, sd: over seeds; low, high: the 95 % interval, or a note why there is none; change: minus the baseline's. difference:
    the highest minus the lowest subgroup's mean `rate`, ratio: lowest over highest; reduction: 1 - difference over the baseline's;
    fewest: subjects the least supported rate rests on; undefined: share of resamples without a value.
    """

    subgroups: pd.DataFrame
    disparities: pd.DataFrame


def measure(study: Study, *, axes: Sequence[str] = (), resamples: int = 2000, seed: int = 0) -> Tables:
    """Every metric per subgroup and arm, and the MEASURES per axis and arm; all with intervals and the change from the baseline.

    `resamples` for the metrics that are sums over subjects, a quarter of them for the others (RANKED).
    """
    moves = seed_moves(study.arms, study.seeds, resamples=resamples, rng=np.random.default_rng(seed))
    rows: list[dict[str, Any]] = []
    spreads: list[dict[str, Any]] = []
    for axis, members in subgroups_of(study.subjects, axes).items():
        bands = {name: _scores(study, who, resamples, np.random.default_rng([seed, zlib.crc32(f"{axis}/{name}".encode())]))
                 for name, who in members.items()}  # fmt: skip
        for name, who in members.items():
            label = study.subjects.label[who]
            facts = {"axis": axis, "subgroup": name, "n": len(label), "positives": int(label.sum())}
            rows += [facts | row for row in _metric_rows(study, bands[name], moves)]
        if axis != "overall":
            known = int(sum(who.sum() for who in members.values()))
            spreads += [{"axis": axis, "n": known, **row} for row in _disparity_rows(study, bands, moves)]
    return Tables(pd.DataFrame(rows, columns=SUBGROUP_COLUMNS), pd.DataFrame(spreads, columns=DISPARITY_COLUMNS))


def _scores(study: Study, who: np.ndarray, resamples: int, rng: np.random.Generator) -> Band:
    label, p, d = study.subjects.label.to_numpy(int)[who], study.probability[who], study.decision[who]
    once = np.ones((1, len(label)))
    counts = resample(np.zeros(len(label)), resamples=resamples, rng=rng)
    few = counts[: max(1, resamples // 4)]
    point = metrics.sums(label, d, p, once) | metrics.ranked(label, p, once)
    drawn = metrics.sums(label, d, p, counts) | metrics.ranked(label, p, few)
    positives, n = int(label.sum()), len(label)
    rests = {"sensitivity": positives, "specificity": n - positives, "selection_rate": n, "brier": n, "ece": n}
    scores = {name: Score(point[name][0], drawn[name], rests.get(name, min(positives, n - positives)))
              for name in METRICS}  # fmt: skip
    fpr = scores["specificity"]
    return scores | {"false_positive_rate": Score(1 - fpr.point, 1 - fpr.drawn, fpr.rests_on)}


def _metric_rows(study: Study, scores: Band, moves: np.ndarray) -> Iterator[dict[str, Any]]:
    for arm in dict.fromkeys(study.arms):
        where = study.runs(arm)
        for name in METRICS:
            score, drawn = scores[name], scores[name].drawn
            point = score.point[where]
            row = {"arm": arm, "metric": name, "seeds": len(where), "mean": point.mean(),
                   "sd": point.std(ddof=1) if len(where) > 1 else np.nan}  # fmt: skip
            draws = mean_draws(point, drawn[:, where], moves[: len(drawn), where])
            row |= _ends(draws, score.rests_on, limits=(0, 1)) | {"resamples": len(drawn)}
            if study.baseline not in (None, arm):
                row["change"] = point.mean() - score.point[study.runs(study.baseline)].mean()
                row |= _ends(_apart(study, arm, score, score, moves), score.rests_on, prefix="change_")
            yield row


def _disparity_rows(study: Study, bands: dict[str, Band], moves: np.ndarray) -> Iterator[dict[str, Any]]:
    for name, parts in MEASURES.items():
        left_out = [band for band in bands if any(np.isnan(bands[band][part].point).any() for part in parts)]
        shown = {band: scores for band, scores in bands.items() if band not in left_out}
        base: tuple[Spread, float] | None = None
        for arm in dict.fromkeys(study.arms):
            row = {"arm": arm, "measure": name, "seeds": len(study.runs(arm)), "left_out": "; ".join(left_out)}
            if len(shown) < 2:
                yield row | {"difference": np.nan, "note": "fewer than two subgroups where it is defined"}
                continue
            spread = max((_spread(study, shown, part, arm) for part in parts), key=lambda s: s.high_rate - s.low_rate)
            fewest = min(shown[band][part].rests_on for band in shown for part in parts)
            row |= {"lowest": spread.low, "lowest_rate": spread.low_rate, "highest": spread.high,
                    "highest_rate": spread.high_rate, "rate": spread.metric, "fewest": fewest}  # fmt: skip
            row |= _difference(study, shown, arm, spread, fewest, moves) | _ratio(
                study, shown, arm, parts, fewest, moves
            )
            if arm == study.baseline:
                base = spread, row["low"]
            elif base:
                row |= _reduction(study, shown, arm, (spread, *base), fewest, moves)
            yield row


def _spread(study: Study, bands: dict[str, Band], metric: str, arm: str) -> Spread:
    rate = {band: float(scores[metric].point[study.runs(arm)].mean()) for band, scores in bands.items()}
    low, high = min(rate, key=rate.__getitem__), max(rate, key=rate.__getitem__)
    return Spread(low, high, rate[low], rate[high], metric)


def _gap(bands: dict[str, Band], spread: Spread) -> Score:
    """Highest minus lowest subgroup as a score: signed, so that resamples may turn it round."""
    low, high = (bands[band][spread.metric] for band in (spread.low, spread.high))
    return Score(high.point - low.point, high.drawn - low.drawn, min(low.rests_on, high.rests_on))


def _difference(
    study: Study, bands: dict[str, Band], arm: str, spread: Spread, fewest: int, moves: np.ndarray
) -> dict[str, Any]:
    gap, where = _gap(bands, spread), study.runs(arm)
    draws = mean_draws(gap.point[where], gap.drawn[:, where], moves[:, where])
    return {"difference": gap.point[where].mean(), **_ends(draws, fewest, limits=(0, 1))}


def _ratio(
    study: Study, bands: dict[str, Band], arm: str, parts: Sequence[str], fewest: int, moves: np.ndarray
) -> dict[str, Any]:
    """Lowest over highest rate, of several metrics the smaller ratio."""
    where, found = study.runs(arm), []
    for spread in (_spread(study, bands, part, arm) for part in parts):
        low, high = (mean_draws(score.point[where], score.drawn[:, where], moves[:, where])
                     for score in (bands[band][spread.metric] for band in (spread.low, spread.high)))  # fmt: skip
        with np.errstate(invalid="ignore", divide="ignore"):
            draws = np.where(high > 0, low / high, np.nan)
        found.append((spread.low_rate / spread.high_rate if spread.high_rate > 0 else np.nan, draws))
    if any(np.isnan(value) for value, _ in found):
        return {"ratio": np.nan}
    value, draws = min(found, key=lambda pair: pair[0])
    ends = _ends(draws, fewest, limits=(0, 1), prefix="ratio_")
    return {"ratio": value, **ends}


def _reduction(
    study: Study,
    bands: dict[str, Band],
    arm: str,
    gaps: tuple[Spread, Spread, float],
    fewest: int,
    moves: np.ndarray,
) -> dict[str, Any]:
    """How much smaller the arm's difference is than the baseline's: as such, and as a share where the baseline's surely is not 0."""
    spread, real, surely = gaps
    ours, theirs = _gap(bands, spread), _gap(bands, real)
    before, after = theirs.point[study.runs(study.baseline)].mean(), ours.point[study.runs(arm)].mean()
    draws = _apart(study, arm, ours, theirs, moves)
    row = {"change": after - before, **_ends(draws, fewest, prefix="change_")}
    row["reduction"] = 1 - after / before if before > 0 else np.nan
    if surely > 0:
        where = study.runs(study.baseline)
        base = mean_draws(theirs.point[where], theirs.drawn[:, where], moves[:, where])
        share = np.where(base > 0, -draws / np.where(base > 0, base, 1), np.nan)
        row |= _ends(share, fewest, prefix="reduction_")
    return row


def _apart(study: Study, arm: str, ours: Score, theirs: Score, moves: np.ndarray) -> np.ndarray:
    """Draws of the arm's mean minus the baseline's; seed by seed where both have the same."""
    a, b = study.runs(arm), study.runs(study.baseline)
    moves = moves[: len(ours.drawn)]
    if np.array_equal(study.seeds[a], study.seeds[b]):
        return mean_draws(ours.point[a] - theirs.point[b], ours.drawn[:, a] - theirs.drawn[:, b], moves[:, a])
    return (mean_draws(ours.point[a], ours.drawn[:, a], moves[:, a])
            - mean_draws(theirs.point[b], theirs.drawn[:, b], moves[:, b]))  # fmt: skip


def _ends(
    draws: np.ndarray, rests_on: int, *, limits: tuple[float, float] = (-np.inf, np.inf), prefix: str = ""
) -> dict[str, Any]:
    """The interval's ends, cut at `limits`, under `prefix`; without a prefix also why there is none."""
    found = interval(draws, rests_on=rests_on)
    note = ""
    if rests_on < FEWEST:
        note = f"rests on {rests_on} subjects, fewer than {FEWEST}"
    elif np.isnan(found.low):
        note = f"undefined in {found.undefined:.0%} of the resamples" if found.undefined > 0 else "all resamples alike"
    ends = (np.nan, np.nan) if note else (max(found.low, limits[0]), min(found.high, limits[1]))
    row = {f"{prefix}low": ends[0], f"{prefix}high": ends[1]}
    return row if prefix else row | {"undefined": found.undefined, "note": note}
