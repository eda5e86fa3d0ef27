"""The predictions of a disease's comparable runs as arrays, their axes, and the levels at which an
arm was repeated.

An arm is repeated by further seeds of the classifier, by further sets of the same plan, and by
further generators. What an interval holds is the chance of those levels that were repeated often
enough; all else it is conditional on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrcls.fairness import metrics
from cmrcls.fairness.metrics import Predicted
from cmrdata.axes import as_in_table2, axes_in, bands_in

# columns that tell a run; with folds it is all folds of them
RUN = ["arm", "generator", "set", "seed"]
LEVELS = ("generator", "set", "seed")  # from the highest
PLURAL = {"generator": "generators", "set": "sets", "seed": "seeds"}
FEWEST_FOLDS = 3  # whose spread can be told
UNKNOWN = "unknown"  # a generator that can't be told any more
ENOUGH = 2  # degrees of freedom: with 3 replicates their spread can be told, with 2 it can't


class Tuned(NamedTuple):
    """What a run predicts of the validation subjects of a fold."""

    label: np.ndarray  # (m,) 0 or 1
    probability: np.ndarray  # (m,)


class Study(NamedTuple):
    """The predictions of a disease by comparable runs: n test subjects, T runs."""

    subjects: pd.DataFrame  # n rows: label (0 or 1), fold (NaN without folds), the axes
    runs: pd.DataFrame  # T rows: RUN, as text; generator and set are "" where an arm has none
    probability: np.ndarray  # (n, T) of disease
    decision: np.ndarray  # (n, T) 0 or 1
    baseline: str | None = None  # the arm that others are compared with
    disease: str = "hf"
    validation: Sequence[Mapping[Any, Tuned]] = ()  # of each run, by fold
    warnings: Sequence[str] = ()  # sentences: which runs are left out or missing

    @property
    def arms(self) -> list[str]:
        """In the order of a table."""
        return list(dict.fromkeys(self.runs.arm))

    def positions(self, arm: str | None) -> np.ndarray:
        """Of the arm's runs."""
        return np.flatnonzero(self.runs.arm == arm)

    @property
    def predicted(self) -> Predicted:
        return Predicted(self.subjects.label.to_numpy(int), self.decision, self.probability)

    @property
    def folds(self) -> np.ndarray | None:
        """(n,) number of the fold in which a subject was tested, from 0; None without folds."""
        if "fold" not in self.subjects or self.subjects.fold.isna().all():
            return None
        return np.unique(self.subjects.fold.to_numpy(float), return_inverse=True)[1]

    @property
    def weights(self) -> np.ndarray:
        """(T, arms): how much of each run is in its arm's mean. Generators count alike, so do sets
        of one, seeds of a set."""
        found = np.zeros((len(self.runs), len(self.arms)))
        for k, arm in enumerate(self.arms):
            own = self.positions(arm)
            found[own, k] = _weights(self.runs.iloc[own])
        return found


class Axis(NamedTuple):
    """A division of the subjects into subgroups, by one column or several crossed."""

    columns: tuple[str, ...]  # none: everybody
    names: list[str]  # of the subgroups
    codes: np.ndarray  # (n,) place in `names`, -1 where a subject's is unknown

    @property
    def title(self) -> str:
        """As tables have it: "overall", "sex", "sex x bmi_band"."""
        return " x ".join(self.columns) or "overall"


class Level(NamedTuple):
    """Replicates of an arm at one level: what varies from one to the other is chance that its mean
    holds."""

    name: str  # of LEVELS
    units: list[str]  # the replicates' names, by which arms are paired
    parts: (
        np.ndarray
        # (units, runs of the arm): each unit's share in the mean, less what is given, as weights of
        # the runs
    )
    freedom: int
    # by which a sum of squares over units becomes the variance of the mean: units / freedom if
    # balanced
    factor: float


def axes_of(subjects: pd.DataFrame, further: Sequence[str] = ()) -> list[Axis]:
    """Overall, the known axes as in Table 2, `further` columns, and the intersections of the known
    axes."""
    wanted = [*(axis.column for axis in as_in_table2()), *further]
    single = {}
    for axis in dict.fromkeys(wanted):
        if axis in subjects and subjects[axis].nunique() > 1:
            bands = bands_in(subjects, axis)
            codes = pd.Categorical(subjects[axis], categories=list(bands)).codes.astype(int)
            single[axis] = Axis((axis,), list(bands.values()), codes)
    crossed = [axis for axis in axes_in(subjects) if axis in single]
    pairs = [pick for size in range(2, len(crossed) + 1) for pick in combinations(crossed, size)]
    whole = Axis((), ["Overall"], np.zeros(len(subjects), int))
    return [whole, *single.values(), *(_crossed([single[axis] for axis in pick]) for pick in pairs)]


def _crossed(axes: Sequence[Axis]) -> Axis:
    names, codes, known = [""], np.zeros(len(axes[0].codes), int), np.ones(len(axes[0].codes), bool)
    for axis in axes:
        names = [f"{a}, {b}".removeprefix(", ") for a in names for b in axis.names]
        codes, known = codes * len(axis.names) + axis.codes, known & (axis.codes >= 0)
    columns = tuple(column for axis in axes for column in axis.columns)
    return Axis(columns, names, np.where(known, codes, -1))


def _weights(runs: pd.DataFrame) -> np.ndarray:
    """(S,) shares of an arm's runs in its mean, summing to 1."""
    share = np.ones(len(runs)) / runs.generator.nunique()
    share /= runs.groupby("generator")["set"].transform("nunique").to_numpy()
    return share / runs.groupby(["generator", "set"]).seed.transform("size").to_numpy()


def levels(runs: pd.DataFrame) -> list[Level]:
    """The levels whose chance the mean over an arm's runs holds, the highest first; none with too
    few replicates.

    That is the highest level with ENOUGH degrees of freedom: generators, else sets within the given
    generators, else seeds within the given sets. Seeds that occur in several sets are a level of
    their own beside it.

    Args:
        runs: rows of `Study.runs`, of one arm.
    """
    weights = _weights(runs)
    sets = runs.generator + "/" + runs["set"]
    found: list[Level] = []
    for name, unit, given in (
        ("generator", runs.generator, pd.Series("", runs.index)),
        ("set", sets, runs.generator),
    ):
        level = _level(name, unit, given, weights)
        if level.freedom >= ENOUGH:
            found.append(level)
            break
    seeds = _level("seed", runs.seed, sets, weights)
    if seeds.freedom >= ENOUGH and (not found or len(seeds.units) < len(runs)):
        found.append(seeds)
    return found


def _level(name: str, unit: pd.Series, given: pd.Series, weights: np.ndarray) -> Level:
    """Units within what is given: each unit's weighted deviation from the mean of its stratum."""
    stratum = given.to_numpy()[:, None] == given.to_numpy()
    # run minus its stratum's mean
    within = np.eye(len(weights)) - stratum * weights / (stratum @ weights)[:, None]
    names = list(dict.fromkeys(unit))
    belongs = np.array(names)[:, None] == unit.to_numpy(str)
    parts = (belongs * weights) @ within
    alone = unit.groupby(given.to_numpy()).nunique()
    crossed = int(alone.sum()) > len(names)  # a unit that occurs in several strata
    freedom = len(names) - (1 if crossed else len(alone))
    # of the sum of squares over units, were runs independent with variance 1
    spread = (parts**2).sum()
    return Level(
        name, names, parts, freedom, (weights**2).sum() / spread if spread > 1e-12 else 0.0
    )


def holds(study: Study, arm: str) -> str:
    """The chance that an arm's intervals hold: "subjects, seeds (8)"."""
    own = levels(study.runs.iloc[study.positions(arm)])
    repeated = [f"{PLURAL[level.name]} ({len(level.units)})" for level in own]
    folds = study.folds
    split = (
        [f"folds ({folds.max() + 1})"]
        if folds is not None and folds.max() + 1 >= FEWEST_FOLDS
        else []
    )
    return ", ".join(["subjects", *repeated, *split])


def given(study: Study, arm: str) -> str:
    """What an arm's intervals are conditional on: "one split, one generator, one set"."""
    runs = study.runs.iloc[study.positions(arm)]
    held = {level.name for level in levels(runs)}
    counted, folds = replicates(study, arm), study.folds
    parts = ["one split"]
    if folds is not None:
        count = int(folds.max()) + 1
        parts = [
            f"one division into {count} folds" if count >= FEWEST_FOLDS else f"these {count} folds"
        ]
    if counted["sets"] and "generator" not in held:
        unknown = (runs.generator == UNKNOWN).any()
        parts.append(
            "generators that can't be told"
            if unknown
            else _these(counted["generators"], "generator")
        )
        if "set" not in held:
            parts.append(_these(counted["sets"], "set"))
    if not held:
        parts.append(_these(counted["seeds"], "seed"))
    return ", ".join(parts)


def _these(count: int, level: str) -> str:
    return f"one {level}" if count == 1 else f"these {count} {PLURAL[level]}"


def conditions(study: Study) -> list[tuple[str, str, list[str]]]:
    """(what intervals hold, what they are given, the arms of which that is so)."""
    found: dict[tuple[str, str], list[str]] = {}
    for arm in study.arms:
        found.setdefault((holds(study, arm), given(study, arm)), []).append(arm)
    return [(*key, arms) for key, arms in found.items()]


def conditional(study: Study) -> str:
    """A phrase for captions: "intervals hold the chance of subjects, seeds (8), given one split,
    one generator, one set"."""
    several = conditions(study)
    parts = [
        f"{held}, given {known}" + (f" ({', '.join(arms)})" if len(several) > 1 else "")
        for held, known, arms in several
    ]
    return f"intervals hold the chance of {'; of '.join(parts)}"


def replicates(study: Study, arm: str) -> dict[str, int]:
    """How many different seeds, sets and generators an arm's runs have; sets and generators 0 for
    real images alone."""
    runs = study.runs.iloc[study.positions(arm)]
    sets = runs[runs["set"] != ""]
    return {
        "seeds": runs.seed.nunique(),
        "sets": len(sets[["generator", "set"]].drop_duplicates()),
        "generators": sets.generator.nunique(),
    }


def by_seed(study: Study, values: np.ndarray) -> pd.DataFrame:
    """Values (T,) of runs as a table: a row per seed, a column per arm; several sets of an arm
    averaged."""
    table = study.runs.assign(value=values)
    return table.pivot_table(index="seed", columns="arm", values="value", sort=False)[study.arms]


def calibration(study: Study) -> pd.DataFrame:
    """Reliability per arm, its runs pooled: arm, bin (its lower edge), n (predictions), predicted,
    share of positives."""
    rows = []
    for arm in study.arms:
        p = study.probability[:, study.positions(arm)]
        label = np.repeat(study.subjects.label.to_numpy(), p.shape[1])
        for k, (predicted, share, n) in enumerate(
            zip(*metrics.reliability(label, p.ravel()), strict=True)
        ):
            rows.append(
                {
                    "arm": arm,
                    "bin": k / metrics.BINS,
                    "n": int(n),
                    "predicted": predicted,
                    "share": share,
                }
            )
    return pd.DataFrame(rows)


def confusion(study: Study) -> pd.DataFrame:
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
