"""How good the classifier is for each subgroup: every metric with n and an interval, or words in
the interval's place where too few subjects decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cmrcls.fairness.metrics import Metric
from cmrcls.fairness.resampling import (
    Bootstrap,
    Score,
    bootstrap,
    deviations,
    interval_cells,
    subgroup_scores,
)
from cmrcls.fairness.study import Study
from cmrcls.fairness.subgroups import Division, divisions

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


def subgroup_table(
    study: Study,
    metrics: Mapping[str, Metric],
    *,
    axes: Sequence[str] = (),
    everybody: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Metrics with their intervals, per subgroup of a single axis and arm: SUBGROUP_COLUMNS.

    Args:
        study: the predictions.
        metrics: name of the row -> a metric.
        axes: further columns whose values are subgroups.
        everybody: only all subjects together.
        resamples: of the bootstrap.
        seed: of it.
    """
    boot = bootstrap(study, resamples=resamples, seed=seed)
    rows: list[dict[str, Any]] = []
    for division in divisions(study.subjects, axes):
        if len(division.axis.columns) <= (0 if everybody else 1):
            bands = scores_along(boot, division, metrics)
            rows += metric_rows(boot, division, bands, metrics)
    return pd.DataFrame(rows, columns=SUBGROUP_COLUMNS)


def scores_along(
    boot: Bootstrap, division: Division, metrics: Mapping[str, Metric]
) -> list[dict[str, Score]]:
    """The metrics in each subgroup of a division."""
    return [
        subgroup_scores(boot, metrics, np.flatnonzero(division.codes == code))
        for code in range(len(division.names))
    ]


def metric_rows(
    boot: Bootstrap,
    division: Division,
    bands: Sequence[Mapping[str, Score]],
    metrics: Mapping[str, Metric],
) -> Iterator[dict[str, Any]]:
    """A row of SUBGROUP_COLUMNS per subgroup, arm and metric.

    Args:
        boot: the study.
        division: of its subjects.
        bands: the scores of each subgroup.
        metrics: those of them that get a row.
    """
    label = boot.study.subjects.label.to_numpy(int)
    axis = {"axis": division.axis, "crossed": len(division.axis.columns)}
    for code, name in enumerate(division.names):
        who = division.codes == code
        about = {"subgroup": name, "n": int(who.sum()), "positives": int(label[who].sum())}
        for k, arm in enumerate(boot.arms):
            for key, metric in metrics.items():
                row = {**axis, **about, **arm.facts, "arm": arm.arm, "metric": key}
                row["resamples"] = len(boot.moves)
                yield row | _metric_cells(boot, bands[code][key], metric, k)


def _metric_cells(boot: Bootstrap, score: Score, metric: Metric, k: int) -> dict[str, Any]:
    """Mean, interval and change of the k-th arm."""
    mean, value = score.mean[k], score.value[boot.arms[k].own]
    row: dict[str, Any] = {"mean": mean, "sd": value.std(ddof=1) if len(value) > 1 else np.nan}
    moved = deviations(boot, score, k)
    low, high = metric.limits
    if metric.by_odds and 0 < mean < 1:
        row |= interval_cells(logit(mean) + moved / (mean * (1 - mean)), score.rests_on)
        row |= {end: float(expit(row[end])) for end in ("low", "high")}
    else:
        row |= interval_cells(mean + moved, score.rests_on, limits=metric.limits)
    if lacking := int(np.isnan(value).sum()):
        row["note"] = (
            f"undefined in {lacking} of {len(value)} runs" if lacking < len(value) else "undefined"
        )
    if boot.base not in (None, k):
        row["change"] = mean - score.mean[boot.base]
        change = interval_cells(
            row["change"] + deviations(boot, score, k, boot.base),
            score.rests_on,
            limits=(low - high, high - low),
        )
        row |= {f"change_{end}": change[end] for end in ("low", "high")}
    return row
