"""The predictions of comparable runs as arrays, their subgroups, and the tables that need no interval."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrcls import metrics
from cmrcls.comparable import RUN
from cmrcls.fairness import SUBGROUPS, bands_of
from cmrdata.cohort import AXES


class Study(NamedTuple):
    """The predictions of comparable runs as arrays: n subjects, T runs."""

    subjects: pd.DataFrame  # n rows: label (0 or 1) and the axes
    arms: np.ndarray  # (T,) of str
    seeds: np.ndarray  # (T,)
    probability: np.ndarray  # (n, T) of disease
    decision: np.ndarray  # (n, T) 0 or 1
    baseline: str | None = None  # the arm that others are compared with

    def runs(self, arm: str | None) -> np.ndarray:
        """Positions of the arm's runs."""
        return np.flatnonzero(self.arms == arm)


def study(test: pd.DataFrame, *, baseline: str | None = None) -> Study:
    """`comparable.comparable` predictions as arrays, subjects in the first run's order.

    `baseline`: the arm that others are compared with; one that has no run is none.
    """
    run = test.groupby(RUN, sort=False).ngroup().to_numpy()
    subject, names = pd.factorize(test.subject)
    first = test[run == 0].reset_index(drop=True)
    probability, decision = (np.empty((len(names), run.max() + 1)) for _ in range(2))
    probability[subject, run], decision[subject, run] = test.probability, test.predicted
    heads = test[~pd.Series(run, index=test.index).duplicated()]
    arms = heads.arm.to_numpy(str)
    return Study(first, arms, heads.seed.to_numpy(), probability, decision, baseline if baseline in set(arms) else None)


def subgroups_of(subjects: pd.DataFrame, axes: Sequence[str] = ()) -> dict[str, dict[str, np.ndarray]]:
    """Axis -> subgroup -> (n,) bool: overall, the known axes, further `axes`, and the intersections of the known AXES."""
    single = {axis: {name: (subjects[axis] == value).to_numpy() for value, name in bands_of(subjects, axis).items()}
              for axis in dict.fromkeys([*SUBGROUPS, *axes]) if axis in subjects and subjects[axis].nunique() > 1}  # fmt: skip
    found = {"overall": {"Overall": np.ones(len(subjects), bool)}, **single}
    crossed = [axis for axis in AXES if axis in single]
    for size in range(2, len(crossed) + 1):
        for pick in combinations(crossed, size):
            cells = {"": np.ones(len(subjects), bool)}
            for axis in pick:
                cells = {
                    f"{a}, {b}".removeprefix(", "): x & y for a, x in cells.items() for b, y in single[axis].items()
                }
            found[" x ".join(pick)] = cells
    return found


def seed_scores(study: Study, *, axes: Sequence[str] = ()) -> dict[str, pd.DataFrame]:
    """What the tests between arms compare, each a row per seed and a column per arm: overall balanced accuracy, and the
    worst subgroup's and the gap (lower is better) per axis, of subgroups where it is defined."""
    found = {}
    for axis, members in subgroups_of(study.subjects, axes).items():
        if " x " in axis:
            continue
        runs = [[metrics.balanced_accuracy(study.subjects.label[who].to_numpy(), d[who]) for d in study.decision.T]
                for who in members.values()]  # fmt: skip
        scores = pd.DataFrame(runs).dropna().to_numpy()
        if axis == "overall":
            found["overall"] = _by_seed(study, scores[0])
        elif len(scores) > 1:
            found[f"worst {axis}"] = _by_seed(study, scores.min(axis=0))
            found[f"gap {axis}"] = _by_seed(study, np.ptp(scores, axis=0))
    return found


def calibration(study: Study) -> pd.DataFrame:
    """Reliability per arm, its runs pooled: arm, bin (its lower edge), n (predictions), predicted, share of positives."""
    rows = []
    for arm in dict.fromkeys(study.arms):
        p = study.probability[:, study.runs(arm)]
        label = np.repeat(study.subjects.label.to_numpy(), p.shape[1])
        for k, (predicted, share, n) in enumerate(zip(*metrics.reliability(label, p.ravel()), strict=True)):
            rows.append({"arm": arm, "bin": k / metrics.BINS, "n": int(n), "predicted": predicted, "share": share})
    return pd.DataFrame(rows)


def confusion(study: Study) -> pd.DataFrame:
    """Per arm: seeds, n, positives, and tp, fn, fp, tn as means over its runs."""
    sick = study.subjects.label.to_numpy(bool)
    rows = []
    for arm in dict.fromkeys(study.arms):
        decided = study.decision[:, study.runs(arm)]
        tp, fp = decided[sick].sum(axis=0).mean(), decided[~sick].sum(axis=0).mean()
        rows.append({"arm": arm, "seeds": decided.shape[1], "n": len(sick), "positives": int(sick.sum()),
                     "tp": tp, "fn": sick.sum() - tp, "fp": fp, "tn": (~sick).sum() - fp})  # fmt: skip
    return pd.DataFrame(rows)


def _by_seed(study: Study, values: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"arm": study.arms, "seed": study.seeds, "value": values})
    return table.pivot(index="seed", columns="arm", values="value")[list(dict.fromkeys(study.arms))]
