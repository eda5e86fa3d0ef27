"""What a classifier's decisions and probabilities are worth: each metric once, with what every
subject adds to it.

The influence of a subject is how much a metric moves when that subject is counted once more. It
makes intervals cheap: a resample of the subjects moves the mean of several runs by a sum of
influences, whatever the metric.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

METRICS = {  # column -> words for readers
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "ECE",
    "selection_rate": "selection rate",
}
BINS = 10  # of equal width over [0, 1], for ECE and the calibration plot
THRESHOLD = 0.5  # decision = the likelier class, as in training


class Predicted(NamedTuple):
    """What T runs say of n subjects."""

    label: np.ndarray  # (n,) 0 or 1
    decision: np.ndarray  # (n, T) 0 or 1
    probability: np.ndarray  # (n, T) of disease

    def of(self, who: np.ndarray) -> Predicted:
        """The same of some subjects (n,) bool or their positions."""
        return Predicted(self.label[who], self.decision[who], self.probability[who])


class Scored(NamedTuple):
    """A metric of T runs."""

    value: np.ndarray  # (T,); NaN where a run has none
    influence: np.ndarray  # (n, T); sums to 0 over subjects
    rests_on: int  # subjects that decide it: of the rarer kind where it needs two kinds


Metric = Callable[[Predicted], Scored]


def balanced_accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """(TPR + TNR) / 2 (paper eq. 1); NaN when `label` lacks a class, where sklearn would quietly
    average one recall."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    recalls = [
        np.mean(predicted[label == c] == c) if (label == c).any() else np.nan for c in (0, 1)
    ]
    return float(np.mean(recalls))


def scores(given: Predicted) -> dict[str, np.ndarray]:
    """Every metric of METRICS, each (T,)."""
    return {name: scored(name, given).value for name in METRICS}


def scored(kind: str | Metric, given: Predicted) -> Scored:
    """A metric with the subjects' influence on it.

    AUPRC is the average precision, without interpolation. ECE: |mean probability - share of
    positives| per bin of the probability of disease, BINS bins of equal width [0, 0.1), ...,
    [0.9, 1], weighted by the bin's share of subjects.

    Args:
        kind: name of METRICS, false_positive_rate, or a metric of one's own.
        given: decisions and probabilities; without subjects of a kind that the metric needs, or a
            run without predictions of that kind, its value and influence are NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (_KINDS[kind] if isinstance(kind, str) else kind)(given)


def reliability(
    label: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per bin of the probability of disease: its mean, the share of positives, and how many; each
    (BINS,), NaN if empty."""
    where = _bin(probability)
    count, predicted, sick = (
        np.bincount(where, w, BINS) for w in (np.ones(len(where)), probability, label)
    )
    with np.errstate(invalid="ignore"):
        return predicted / count, sick / count, count.astype(int)


def _share(right: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def mean_of(each: np.ndarray) -> Scored:
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

    step: np.ndarray  # (n,) of each subject
    sick: np.ndarray  # (steps,) positives, negatives there
    well: np.ndarray


def _by_rank(
    given: Predicted, of: Callable[[np.ndarray, _Steps], tuple[float, np.ndarray]]
) -> Scored:
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


def _steps(sick: np.ndarray, score: np.ndarray) -> _Steps:
    order = np.argsort(-score, kind="stable")
    step = np.empty(len(score), int)
    step[order] = np.cumsum(np.r_[0, np.diff(score[order]) != 0])
    every, positive = np.bincount(step), np.bincount(step, sick)
    return _Steps(step, positive, every - positive)


def _auroc_of(sick: np.ndarray, steps: _Steps) -> tuple[float, np.ndarray]:
    positives, negatives = steps.sick.sum(), steps.well.sum()
    below = (negatives - np.cumsum(steps.well) + steps.well / 2) / negatives
    above = (np.cumsum(steps.sick) - steps.sick / 2) / positives
    value = (steps.sick * below).sum() / positives
    each = np.where(sick, below[steps.step], above[steps.step]) - value
    return float(value), each / np.where(sick, positives, negatives)


def _auprc_of(sick: np.ndarray, steps: _Steps) -> tuple[float, np.ndarray]:
    positives = steps.sick.sum()
    reached = np.cumsum(steps.sick + steps.well)
    precision = np.cumsum(steps.sick) / reached
    value = (steps.sick * precision).sum() / positives
    # a subject more moves the precision of every step from its own down
    up, down = (
        np.cumsum(part[::-1])[::-1]
        for part in (steps.sick / reached, steps.sick * precision / reached)
    )
    each = sick * (precision[steps.step] - value + up[steps.step]) - down[steps.step]
    return float(value), each / positives


def _bin(probability: np.ndarray) -> np.ndarray:
    return np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)


_KINDS: dict[str, Metric] = {
    "balanced_accuracy": _balanced_accuracy,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "false_positive_rate": _false_positive_rate,
    "ppv": _ppv,
    "npv": _npv,
    "auroc": _auroc,
    "auprc": _auprc,
    "brier": _brier,
    "ece": _ece,
    "selection_rate": _selection_rate,
}
