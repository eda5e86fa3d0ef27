"""What the classifier would be worth in use: predictive values, sensitivity at a chosen
specificity, net benefit.

Thresholds and recalibration are chosen on the validation subjects of the run's own fold; the test
subjects, who have the cohort's natural prevalence, only judge them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrcls.fairness.metrics import METRICS, Metric, Predicted, Scored, mean_of
from cmrcls.fairness.options import check_specificity
from cmrcls.fairness.study import Study, Tuned
from cmrcls.fairness.subgroup_metrics import subgroup_table

Array = npt.NDArray[Any]
OPERATING_METRICS = ("sensitivity", "specificity", "ppv", "npv")
BENEFIT_COLUMNS = [
    "arm",
    "threshold",
    "net_benefit",
    "low",
    "high",
    "treat_all",
    "raw_net_benefit",
    "holds",
]
CURVE_POINTS = 40  # of the decision curve
NEAREST_PROBABILITY = 1e-6  # probabilities nearer to 0 or 1 are taken for that


class Chosen(NamedTuple):
    """A study whose decisions come from thresholds chosen on validation, and what they are."""

    study: Study
    thresholds: pd.DataFrame  # run, fold, threshold, negatives (of validation)


def at_specificity(study: Study, specificity: float) -> Chosen:
    """Decides anew: each run by the lowest threshold with at least that specificity on its fold's
    validation subjects.

    Args:
        study: with validation predictions.
        specificity: in (0, 1).

    Raises ValueError where a run has no healthy validation subject.
    """
    check_specificity(specificity)
    decision, rows = np.empty_like(study.decision), []
    for run, fold, who, tuned in _folds(study):
        threshold = _threshold(tuned, specificity)
        if np.isnan(threshold):
            raise ValueError("no healthy validation subject, so no threshold can be chosen")
        decision[who, run] = study.probability[who, run] > threshold
        rows.append(
            {
                "run": run,
                "fold": fold,
                "threshold": threshold,
                "negatives": int((tuned.label == 0).sum()),
            }
        )
    return Chosen(study._replace(decision=decision), pd.DataFrame(rows))


def _folds(study: Study) -> Sequence[tuple[int, Any, Array, Tuned]]:
    """Every run and fold, with the places of its test subjects and its validation."""
    of = (
        study.subjects.fold if "fold" in study.subjects else pd.Series(np.nan, study.subjects.index)
    )
    return [
        (run, fold, np.flatnonzero(of.isna() if fold is None else of == fold), tuned)
        for run, folds in enumerate(study.validation)
        for fold, tuned in folds.items()
    ]


def _threshold(tuned: Tuned, specificity: float) -> float:
    """Above which no more than 1 - specificity of the healthy lie; NaN without any."""
    healthy = np.sort(tuned.probability[tuned.label == 0])
    if not len(healthy):
        return np.nan
    return float(healthy[int(np.ceil(specificity * len(healthy))) - 1])


def operating_table(
    study: Study, *, specificity: float, axes: Sequence[str], resamples: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """OPERATING_METRICS per single subgroup and arm at thresholds for a specificity.

    Args:
        study: the predictions.
        specificity: in (0, 1).
        axes: further columns whose values are subgroups.
        resamples: of the bootstrap.
        seed: of it.

    Returns:
        (SUBGROUP_COLUMNS and asked, the specificity; the thresholds).
    """
    chosen = at_specificity(study, specificity)
    metrics = {name: METRICS[name] for name in OPERATING_METRICS}
    table = subgroup_table(chosen.study, metrics, axes=axes, resamples=resamples, seed=seed)
    runs = chosen.study.runs.iloc[chosen.thresholds.run].reset_index(drop=True)
    return table.assign(asked=specificity), pd.concat(
        [runs, chosen.thresholds.drop(columns="run")], axis=1
    )


def no_threshold(study: Study) -> str:
    """Why thresholds can't be chosen on validation; empty if they can."""
    lacking = sum((tuned.label == 0).sum() == 0 for _, _, _, tuned in _folds(study))
    if not study.validation or lacking:
        return "a run has no healthy validation subject"
    return ""


def recalibrated(study: Study) -> Study:
    """Probabilities by a logistic regression on their logarithmic odds, fitted on each run's and
    fold's validation.

    A run whose validation lacks a class keeps its probabilities.
    """
    from sklearn.linear_model import LogisticRegression

    probability = study.probability.copy()
    for run, _, who, tuned in _folds(study):
        if len(set(tuned.label)) < 2:
            continue
        fit = LogisticRegression(C=np.inf, max_iter=1000).fit(
            _odds(tuned.probability)[:, None], tuned.label
        )
        probability[who, run] = fit.predict_proba(_odds(study.probability[who, run])[:, None])[:, 1]
    return study._replace(probability=probability)


def _odds(probability: Array) -> Array:
    kept = np.clip(probability, NEAREST_PROBABILITY, 1 - NEAREST_PROBABILITY)
    odds: Array = np.log(kept / (1 - kept))
    return odds


def thresholds_of(prevalence: float) -> Array:
    """(CURVE_POINTS,) risks at which somebody might act: from a quarter of the prevalence to one
    half."""
    return np.geomspace(min(prevalence / 4, 0.1), 0.5, CURVE_POINTS)


def net_benefit(threshold: float) -> Metric:
    """True positives less false ones weighed by the threshold's odds, per subject (Vickers & Elkin
    2006), as a metric."""

    def score(given: Predicted) -> Scored:
        sick = given.label.astype(bool)[:, None]
        return mean_of(
            (given.probability >= threshold) * np.where(sick, 1.0, -threshold / (1 - threshold))
        )

    return Metric("net benefit", score, limits=(-np.inf, 1))


def decision_curve(study: Study, *, resamples: int, seed: int) -> pd.DataFrame:
    """Net benefit per arm and threshold, of recalibrated and of raw probabilities:
    BENEFIT_COLUMNS."""
    prevalence = float(study.subjects.label.mean())
    points = thresholds_of(prevalence)
    metrics = {
        f"{point:.6f}": net_benefit(point)._replace(limits=(-np.inf, prevalence))
        for point in points
    }
    options: dict[str, Any] = {"everybody": True, "resamples": resamples, "seed": seed}
    table = subgroup_table(recalibrated(study), metrics, **options)
    raw = subgroup_table(study, metrics, **options).set_index(["arm", "metric"])["mean"]
    threshold = table.metric.astype(float)
    return table.assign(
        threshold=threshold,
        net_benefit=table["mean"],
        treat_all=prevalence - (1 - prevalence) * threshold / (1 - threshold),
        raw_net_benefit=[raw[row.arm, row.metric] for row in table.itertuples()],
    )[BENEFIT_COLUMNS]


def useful_thresholds(curve: pd.DataFrame) -> pd.DataFrame:
    """Per arm, between which thresholds its net benefit is larger than treating all or nobody: arm,
    from, to, best."""
    rows = []
    for arm, part in curve.groupby("arm", sort=False):
        gain = part.net_benefit - np.maximum(part.treat_all, 0)
        where = part.threshold[gain > 0]
        rows.append(
            {
                "arm": arm,
                "from": where.min(),
                "to": where.max(),
                "largest gain": gain.max(),
                "at threshold": part.threshold[gain.idxmax()],
            }
        )
    return pd.DataFrame(rows)
