"""The predictions of a disease's comparable runs as arrays, and the tables of them that need no
intervals: the paper's Table 2, calibration, confusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrcls.fairness import metrics
from cmrcls.fairness.metrics import Predicted, scored
from cmrcls.fairness.subgroups import divisions
from cmrdata.axes import as_in_table2

Array = npt.NDArray[Any]
# columns that identify a run; with folds it is all folds of them
RUN_COLUMNS = ["arm", "generator", "set", "seed"]
PAPER_AMOUNTS = {"0": "Real", "only": "Synthetic"}


@dataclass(frozen=True, order=True)
class Arm:
    """A combination of the values of the factors that a study varied. Tables hold it as it is; its
    name is how it prints, and nobody reads it back."""

    place: int  # where it stands in a table
    name: str
    # factor -> value; the number of synthetic images always
    values: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    # whether no value, the number of synthetic images apart, differs from the experiment's own
    usual: bool = field(default=True, compare=False, repr=False)

    def __str__(self) -> str:
        return self.name

    @property
    def paper_name(self) -> str | None:
        """What the paper calls the arm; None where it has no such arm."""
        amount = self.values.get("synthetic")
        return amount_in_words(amount) if self.usual and amount is not None else None


def amount_in_words(synthetic: Any) -> str:
    """0 is Real, 2000 Real + 2000, only Synthetic, as the paper names its arms."""
    return PAPER_AMOUNTS.get(str(synthetic), f"Real + {synthetic}")


class Tuned(NamedTuple):
    """What a run predicts of the validation subjects of a fold."""

    label: Array  # (m,) 0 or 1
    probability: Array  # (m,)


class Study(NamedTuple):
    """The predictions of a disease by comparable runs: n test subjects, T runs."""

    subjects: pd.DataFrame  # n rows: label (0 or 1), fold (NaN without folds), the axes
    # T rows of RUN_COLUMNS: an Arm, and text; generator and set are "" where an arm has none
    runs: pd.DataFrame
    probability: Array  # (n, T) of disease
    decision: Array  # (n, T) 0 or 1
    baseline: Arm | None = None  # the arm that others are compared with
    disease: str = "hf"
    validation: Sequence[Mapping[Any, Tuned]] = ()  # of each run, by fold
    warnings: Sequence[str] = ()  # sentences: which runs are left out or missing

    @property
    def arms(self) -> list[Arm]:
        """In the order of a table."""
        return list(dict.fromkeys(self.runs.arm))

    def positions(self, arm: Arm) -> npt.NDArray[np.intp]:
        """Of the arm's runs."""
        return np.flatnonzero(self.runs.arm == arm)

    @property
    def predicted(self) -> Predicted:
        """Labels, decisions and probabilities of all runs."""
        return Predicted(self.subjects.label.to_numpy(int), self.decision, self.probability)

    @property
    def folds(self) -> npt.NDArray[np.intp] | None:
        """(n,) number of the fold in which a subject was tested, from 0; None without folds."""
        if "fold" not in self.subjects or self.subjects.fold.isna().all():
            return None
        return np.unique(self.subjects.fold.to_numpy(float), return_inverse=True)[1]

    @property
    def weights(self) -> Array:
        """(T, arms): how much of each run is in its arm's mean. Generators count alike, so do sets
        of one, seeds of a set."""
        weights = np.zeros((len(self.runs), len(self.arms)))
        for k, arm in enumerate(self.arms):
            own = self.positions(arm)
            weights[own, k] = run_weights(self.runs.iloc[own])
        return weights


def run_weights(runs: pd.DataFrame) -> Array:
    """(S,) shares of an arm's runs in its mean, summing to 1."""
    names = list(zip(runs.generator, runs["set"], strict=True))
    seeds = Counter(names)
    sets = Counter(generator for generator, _ in seeds)
    return np.array([1 / len(sets) / sets[name[0]] / seeds[name] for name in names])


def replicate_counts(study: Study, arm: Arm) -> dict[str, int]:
    """How many different seeds, sets and generators an arm's runs have; sets and generators 0 for
    real images alone."""
    runs = study.runs.iloc[study.positions(arm)]
    sets = runs[runs["set"] != ""]
    return {
        "seeds": runs.seed.nunique(),
        "sets": len(sets[["generator", "set"]].drop_duplicates()),
        "generators": sets.generator.nunique(),
    }


class Table2(NamedTuple):
    """The paper's Table 2, long, and what a reader must know of it."""

    # subgroup, axis, n, positives, prevalence, arm, balanced_accuracy, sd, sets, seeds
    rows: pd.DataFrame
    refused: list[str]  # a sentence per axis that can't be compared
    warnings: list[str]  # which runs are left out or missing


def table2(study: Study, *, axes: Sequence[str] = ()) -> Table2:
    """One row per subgroup and arm: mean and sd (ddof 1) of balanced accuracy over an arm's runs,
    folds pooled.

    Args:
        study: the predictions.
        axes: further columns whose values are subgroups.

    Returns:
        The table; a subgroup without positives or negatives is NaN.
    """
    given, weights, rows = study.predicted, study.weights, []
    known = [part for part in divisions(study.subjects, axes) if len(part.axis.columns) < 2]
    counts = {arm: replicate_counts(study, arm) for arm in study.arms}
    for division in known:
        for code, name in enumerate(division.names):
            who = np.flatnonzero(division.codes == code)
            n, positives = len(who), int(given.label[who].sum())
            score = scored("balanced_accuracy", given.of(who)).value
            for k, arm in enumerate(study.arms):
                own = score[study.positions(arm)]
                rows.append(
                    {
                        "subgroup": name,
                        "axis": division.axis,
                        "n": n,
                        "positives": positives,
                        "prevalence": positives / n if n else np.nan,
                        "arm": arm,
                        "balanced_accuracy": float(own @ weights[study.positions(arm), k]),
                        "sd": own.std(ddof=1) if len(own) > 1 else np.nan,
                        "sets": counts[arm]["sets"],
                        "seeds": counts[arm]["seeds"],
                    }
                )
    compared = {column for part in known for column in part.axis.columns} | {"overall"}
    wanted = dict.fromkeys([*(axis.column for axis in as_in_table2()), *axes])
    refused = [_refusal(study.subjects, axis) for axis in wanted if axis not in compared]
    return Table2(pd.DataFrame(rows), refused, list(study.warnings))


def _refusal(subjects: pd.DataFrame, axis: str) -> str:
    """Why subgroups of an axis can't be compared."""
    if axis in subjects and len(values := subjects[axis].dropna()):
        return (
            f"{axis}: all test subjects whose {axis} is known are {values.iloc[0]!r}: nothing to "
            "compare."
        )
    return f"{axis}: unknown for all {len(subjects)} test subjects, so it has no rows."


def by_seed(study: Study, values: Array) -> pd.DataFrame:
    """Values (T,) of runs as a table: a row per seed, a column per arm; several sets of an arm
    averaged."""
    table = study.runs.assign(value=values)
    return table.pivot_table(index="seed", columns="arm", values="value", sort=False)[study.arms]


def reliability_table(study: Study) -> pd.DataFrame:
    """Reliability per arm, its runs pooled: arm, bin (its lower edge), n (predictions), predicted,
    share of positives."""
    rows = []
    for arm in study.arms:
        p = study.probability[:, study.positions(arm)]
        label = np.repeat(study.subjects.label.to_numpy(), p.shape[1])
        bins = zip(*metrics.reliability(label, p.ravel()), strict=True)
        rows += [
            {"arm": arm, "bin": k / metrics.BINS, "n": int(n), "predicted": mean, "share": share}
            for k, (mean, share, n) in enumerate(bins)
        ]
    return pd.DataFrame(rows)


def confusion_table(study: Study) -> pd.DataFrame:
    """Per arm: runs, n, positives, and tp, fn, fp, tn as means over its runs."""
    sick = study.subjects.label.to_numpy(bool)
    rows = []
    for k, arm in enumerate(study.arms):
        own = study.weights[:, k]
        tp, fp = (float(study.decision[who].sum(axis=0) @ own) for who in (sick, ~sick))
        rows.append(
            {
                "arm": arm,
                "runs": int((own > 0).sum()),
                "n": len(sick),
                "positives": int(sick.sum()),
                "tp": tp,
                "fn": sick.sum() - tp,
                "fp": fp,
                "tn": (~sick).sum() - fp,
            }
        )
    return pd.DataFrame(rows)
