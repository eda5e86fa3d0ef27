"""What a classifier's decisions and probabilities are worth: each metric once, for any weighting of the subjects at once.

The weights make a bootstrap cheap: a resample is a row of counts, and most metrics are sums, so all resamples and runs of
a subgroup come from a few matrix products.
"""

from __future__ import annotations

import numpy as np

METRICS = {  # column -> words for readers
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "ece": "ECE",
    "selection_rate": "selection rate",
}
RANKED = ("auroc", "auprc", "ece")  # these need more than sums over subjects
SUMS = tuple(name for name in METRICS if name not in RANKED)
BINS = 10  # of equal width over [0, 1], for ECE and the calibration plot
THRESHOLD = 0.5  # decision = the likelier class, as in training


def balanced_accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """(TPR + TNR) / 2 (paper eq. 1); NaN when `label` lacks a class, where sklearn would quietly average one recall."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    recalls = [np.mean(predicted[label == c] == c) if (label == c).any() else np.nan for c in (0, 1)]
    return float(np.mean(recalls))


def sums(
    label: np.ndarray, decision: np.ndarray, probability: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The metrics of SUMS, each (R, runs): R weightings (R, n) of n subjects with decisions and probabilities (n, runs).

    `label` (n,) and `decision` are 0 or 1. Computed in the dtype of `weights`. A weighting without positives (negatives)
    has NaN for what rests on them.
    """
    sick, kind = label.astype(bool), weights.dtype
    decided = decision.astype(kind)
    caught, alarmed = weights[:, sick] @ decided[sick], weights[:, ~sick] @ decided[~sick]
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights.sum(axis=1, keepdims=True)
        sensitivity = caught / weights[:, sick].sum(axis=1, keepdims=True)
        specificity = 1 - alarmed / weights[:, ~sick].sum(axis=1, keepdims=True)
        squared = ((probability - label[:, None]) ** 2).astype(kind)
        return {
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "brier": weights @ squared / total,
            "selection_rate": (caught + alarmed) / total,
        }


def ranked(label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of RANKED, each (R, runs), as in `sums`.

    AUPRC is the average precision, without interpolation. ECE: |mean probability - share of positives| per bin of the
    probability of disease, BINS bins of equal width [0, 0.1), ..., [0.9, 1], weighted by the bin's share of subjects.
    """
    auroc, auprc = (np.empty((len(weights), probability.shape[1]), weights.dtype) for _ in range(2))
    for run, score in enumerate(probability.T):
        auroc[:, run], auprc[:, run] = _areas(label.astype(bool), score, weights)
    return {"auroc": auroc, "auprc": auprc, "ece": _calibration_error(label, probability, weights)}


def reliability(label: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per bin of the probability of disease: its mean, the share of positives, and how many; each (BINS,), NaN if empty."""
    where = _bin(probability)
    count, predicted, sick = (np.bincount(where, w, BINS) for w in (np.ones(len(where)), probability, label))
    with np.errstate(invalid="ignore"):
        return predicted / count, sick / count, count.astype(int)


def _areas(sick: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the ROC and the precision-recall curve per weighting, each (R,); tied scores are one step of the curves."""
    if not sick.any():
        return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(score[order]) != 0])  # of the runs of equal scores
    caught = np.r_[0, np.cumsum(sick[order])]
    ends = np.r_[starts[1:], len(score)]
    steps = np.flatnonzero(caught[ends] > caught[starts])  # only those with a positive change an area
    first, last = starts[steps], ends[steps]
    above, positive = _running(weights[:, order]), _running(weights[:, order[sick[order]]])
    before, after = positive[:, caught[first]], positive[:, caught[last]]
    higher = above[:, first] - before  # negatives above, and among the tied
    tied = above[:, last] - after - higher
    positives, negatives = positive[:, -1], above[:, -1] - positive[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        won = (after - before) * (negatives[:, None] - higher - tied / 2)
        precision = np.where(after > before, (after - before) * after / above[:, last], 0)
        return won.sum(axis=1) / (positives * negatives), precision.sum(axis=1) / positives


def _running(weights: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... columns: (R, n) -> (R, n + 1)."""
    sums_ = np.zeros((len(weights), weights.shape[1] + 1), weights.dtype)
    np.cumsum(weights, axis=1, out=sums_[:, 1:])
    return sums_


def _calibration_error(label: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n, runs = probability.shape
    excess = np.zeros((n, runs, BINS), weights.dtype)
    np.put_along_axis(excess, _bin(probability)[..., None], (probability - label[:, None])[..., None], axis=2)
    apart = np.abs((weights @ excess.reshape(n, runs * BINS)).reshape(len(weights), runs, BINS)).sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return apart / weights.sum(axis=1, keepdims=True)


def _bin(probability: np.ndarray) -> np.ndarray:
    return np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
