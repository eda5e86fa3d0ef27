"""What a classifier's decisions and probabilities are worth: each metric once, with what every
subject adds to it.

The influence of a subject is how much a metric moves when that subject is counted once more. It
makes intervals cheap: a resample of the subjects moves the mean of several runs by a sum of
influences, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 10  # of equal width over [0, 1], for ECE and the calibration plot


class Predicted(NamedTuple):
    """What T runs say of n subjects."""

    label: Array  # (n,) 0 or 1
    decision: Array  # (n, T) 0 or 1
    probability: Array  # (n, T) of disease

    def of(self, who: Array) -> Predicted:
        """The same of some subjects (n,) bool or their positions."""
        return Predicted(self.label[who], self.decision[who], self.probability[who])


class Scored(NamedTuple):
    """A metric of T runs."""

    value: Array  # (T,); NaN where a run has none
    influence: Array  # (n, T); sums to 0 over subjects
    rests_on: int  # subjects that decide it: of the rarer kind where it needs two kinds


class Metric(NamedTuple):
    """What a table says of a metric, and how it is measured."""

    title: str  # for readers
    score: Callable[[Predicted], Scored]
    of_probabilities: bool = False  # else of decisions
    remark: str = ""  # behind the title, where the report says what it is of
    # an interval of its logarithmic odds stays between 0 and 1 where the plain one would not
    by_odds: bool = False
    limits: tuple[float, float] = (0, 1)  # what it can be
    reported: bool = True  # in the tables of metrics; others are rates that a gap is made of


def balanced_accuracy(label: Array, predicted: Array) -> float:
    """(TPR + TNR) / 2 (paper eq. 1); NaN when `label` lacks a class, where sklearn would quietly
    average one recall."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    recalls = [
        np.mean(predicted[label == c] == c) if (label == c).any() else np.nan for c in (0, 1)
    ]
    return float(np.mean(recalls))


def reported() -> list[str]:
    """The metrics of METRICS that tables show, in their order."""
    return [name for name, metric in METRICS.items() if metric.reported]


def all_scores(given: Predicted) -> dict[str, Array]:
    """Every reported metric, each (T,)."""
    return {name: scored(name, given).value for name in reported()}


def scored(metric: str | Metric, given: Predicted) -> Scored:
    """A metric with the subjects' influence on it.

    AUPRC is the average precision, without interpolation. ECE: |mean probability - share of
    positives| per bin of the probability of disease, BINS bins of equal width [0, 0.1), ...,
    [0.9, 1], weighted by the bin's share of subjects.

    Args:
        metric: a name of METRICS, or one that is no row of it.
        given: decisions and probabilities.

    Returns:
        The scores; NaN without subjects of a kind that the metric needs, or where a run has no
        predictions of that kind.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (METRICS[metric] if isinstance(metric, str) else metric).score(given)


def reliability(label: Array, probability: Array) -> tuple[Array, Array, Array]:
    """Per bin of the probability of disease: its mean, the share of positives, and how many; each
    (BINS,), NaN if empty."""
    where = _bin(probability)
    count, predicted, sick = (
        np.bincount(where, w, BINS) for w in (np.ones(len(where)), probability, label)
    )
    with np.errstate(invalid="ignore"):
        return predicted / count, sick / count, count.astype(int)


def _share(right: Array, among: Array) -> tuple[Array, Array]:
    """Share of `right` (n, T) among the subjects (n,) or (n, T) bool, and its influence."""
    among = np.broadcast_to(among if among.ndim == 2 else among[:, None], right.shape)
    count = among.sum(axis=0).astype(float)
    value = (right & among).sum(axis=0) / count
    return value, np.where(among, right - value, 0) / count


def _sensitivity(given: Predicted) -> Scored:
    sick = given.label.astype(bool)
    return Scored(*_share(given.decision.astype(bool), sick), int(sick.sum()))


def _specificity(given: Predicted) -> Scored:
    well = ~given.label.astype(bool)
    return Scored(*_share(~given.decision.astype(bool), well), int(well.sum()))


def _false_positive_rate(given: Predicted) -> Scored:
    value, influence, rests_on = _specificity(given)
    return Scored(1 - value, -influence, rests_on)


def _balanced_accuracy(given: Predicted) -> Scored:
    sick, well = _sensitivity(given), _specificity(given)
    value, influence = ((a + b) / 2 for a, b in zip(sick[:2], well[:2], strict=True))
    return Scored(value, influence, min(sick.rests_on, well.rests_on))


def _selection_rate(given: Predicted) -> Scored:
    every = np.ones(len(given.label), bool)
    return Scored(*_share(given.decision.astype(bool), every), len(every))


def _ppv(given: Predicted) -> Scored:
    alarmed, sick = given.decision.astype(bool), given.label.astype(bool)
    fewest = int(alarmed.sum(axis=0).min()) if len(sick) else 0
    return Scored(*_share(np.broadcast_to(sick[:, None], alarmed.shape), alarmed), fewest)


def _npv(given: Predicted) -> Scored:
    cleared, well = ~given.decision.astype(bool), ~given.label.astype(bool)
    fewest = int(cleared.sum(axis=0).min()) if len(well) else 0
    return Scored(*_share(np.broadcast_to(well[:, None], cleared.shape), cleared), fewest)


def _brier(given: Predicted) -> Scored:
    squared = (given.probability - given.label[:, None]) ** 2
    return mean_of(squared)


def mean_of(each: Array) -> Scored:
    """The mean over subjects of what each adds (n, T), as a metric."""
    n = len(each)
    value = each.sum(axis=0) / np.float64(n)
    return Scored(value, (each - value) / np.float64(n), n)


def _ece(given: Predicted) -> Scored:
    excess, where = given.probability - given.label[:, None], _bin(given.probability)
    each = np.empty(excess.shape)
    for run in range(excess.shape[1]):
        sign = np.sign(np.bincount(where[:, run], excess[:, run], BINS))
        each[:, run] = sign[where[:, run]] * excess[:, run]
    return mean_of(each)


def _auroc(given: Predicted) -> Scored:
    """A positive adds the share of negatives below it, a negative that of positives above it
    (DeLong 1988)."""
    return _by_rank(given, _auroc_of)


def _auprc(given: Predicted) -> Scored:
    return _by_rank(given, _auprc_of)


class _Steps(NamedTuple):
    """The distinct scores of a run from the highest down."""

    step: Array  # (n,) of each subject
    sick: Array  # (steps,) positives, negatives there
    well: Array


def _by_rank(given: Predicted, of: Callable[[Array, _Steps], tuple[float, Array]]) -> Scored:
    sick = given.label.astype(bool)
    positives = int(sick.sum())
    value, influence = (
        np.full(given.probability.shape[1], np.nan),
        np.full(given.probability.shape, np.nan),
    )
    if positives:
        for run, score in enumerate(given.probability.T):
            value[run], influence[:, run] = of(sick, _steps(sick, score))
    return Scored(value, influence, min(positives, len(sick) - positives))


def _steps(sick: Array, score: Array) -> _Steps:
    order = np.argsort(-score, kind="stable")
    step = np.empty(len(score), int)
    step[order] = np.cumsum(np.r_[0, np.diff(score[order]) != 0])
    every, positive = np.bincount(step), np.bincount(step, sick)
    return _Steps(step, positive, every - positive)


def _auroc_of(sick: Array, steps: _Steps) -> tuple[float, Array]:
    positives, negatives = steps.sick.sum(), steps.well.sum()
    below = (negatives - np.cumsum(steps.well) + steps.well / 2) / negatives
    above = (np.cumsum(steps.sick) - steps.sick / 2) / positives
    value = (steps.sick * below).sum() / positives
    each = np.where(sick, below[steps.step], above[steps.step]) - value
    return float(value), each / np.where(sick, positives, negatives)


def _auprc_of(sick: Array, steps: _Steps) -> tuple[float, Array]:
    positives = steps.sick.sum()
    reached = np.cumsum(steps.sick + steps.well)
    precision = np.cumsum(steps.sick) / reached
    value = (steps.sick * precision).sum() / positives
    # a subject more moves the precision of every step from its own down
    up, down = (
        np.cumsum(moved[::-1])[::-1]
        for moved in (steps.sick / reached, steps.sick * precision / reached)
    )
    each = sick * (precision[steps.step] - value + up[steps.step]) - down[steps.step]
    return float(value), each / positives


def _bin(probability: Array) -> Array:
    """The bin of each probability."""
    bins: Array = np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
    return bins


# A row here is all that a metric needs: tables, dashboards and the report read it. Rows may be
# added from outside: METRICS["f1"] = Metric("F1", function).
METRICS: dict[str, Metric] = {
    "balanced_accuracy": Metric("balanced accuracy", _balanced_accuracy),
    "sensitivity": Metric("sensitivity", _sensitivity),
    "specificity": Metric("specificity", _specificity),
    "ppv": Metric("PPV", _ppv),
    "npv": Metric("NPV", _npv),
    "auroc": Metric("AUROC", _auroc, of_probabilities=True, by_odds=True),
    "auprc": Metric(
        "AUPRC", _auprc, of_probabilities=True, remark="average precision", by_odds=True
    ),
    "brier": Metric("Brier score", _brier, of_probabilities=True),
    "ece": Metric(
        "ECE",
        _ece,
        of_probabilities=True,
        remark=f"{BINS} bins of equal width of the probability of disease",
    ),
    "selection_rate": Metric("selection rate", _selection_rate),
    "false_positive_rate": Metric("false positive rate", _false_positive_rate, reported=False),
}
