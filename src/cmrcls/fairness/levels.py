"""The levels at which an arm was repeated, and so which chance its intervals hold.

An arm is repeated by further seeds of the classifier, by further sets of the same plan, and by
further generators. What an interval holds is the chance of those levels that were repeated often
enough; all else it is conditional on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrcls.fairness.study import Arm, Study, replicate_counts, run_weights

Array = npt.NDArray[Any]
LEVELS = ("generator", "set", "seed")  # from the highest
PLURAL = {"generator": "generators", "set": "sets", "seed": "seeds"}
MIN_FOLDS = 3  # whose spread can be estimated
MIN_FREEDOM = 2  # the spread of 3 replicates can be estimated, that of 2 can't
UNKNOWN_GENERATOR = "unknown"  # one that no record names any more


class Level(NamedTuple):
    """Replicates of an arm at one level: what varies from one to the other is chance that its mean
    holds."""

    name: str  # of LEVELS
    units: list[str]  # the replicates' names, by which arms are paired
    # (units, runs of the arm): each unit's share in the mean, less what is given, as weights of
    # the runs
    parts: Array
    freedom: int
    # a sum of squares over units times this is the variance of the mean: units / freedom if
    # balanced
    factor: float


def arm_levels(runs: pd.DataFrame) -> list[Level]:
    """The levels whose chance the mean over an arm's runs holds, the highest first; none with too
    few replicates.

    That is the highest level with MIN_FREEDOM degrees of freedom: generators, else sets within the
    given generators, else seeds within the given sets. Seeds that occur in several sets are a level
    of their own beside it.

    Args:
        runs: rows of `Study.runs`, of one arm.
    """
    weights = run_weights(runs)
    sets = runs.generator + "/" + runs["set"]
    repeated: list[Level] = []
    for name, unit, given in (
        ("generator", runs.generator, pd.Series("", runs.index)),
        ("set", sets, runs.generator),
    ):
        level = _level(name, unit, given, weights)
        if level.freedom >= MIN_FREEDOM:
            repeated.append(level)
            break
    seeds = _level("seed", runs.seed, sets, weights)
    if seeds.freedom >= MIN_FREEDOM and (not repeated or len(seeds.units) < len(runs)):
        repeated.append(seeds)
    return repeated


def _level(name: str, unit: pd.Series, given: pd.Series, weights: Array) -> Level:
    """Units within what is given: each unit's weighted deviation from the mean of its stratum."""
    stratum = given.to_numpy()[:, None] == given.to_numpy()
    # run minus its stratum's mean
    within = np.eye(len(weights)) - stratum * weights / (stratum @ weights)[:, None]
    names = list(dict.fromkeys(unit))
    belongs = np.array(names)[:, None] == unit.to_numpy(str)
    parts = (belongs * weights) @ within
    pairs = set(zip(given, unit, strict=True))
    crossed = len(pairs) > len(names)  # a unit occurs in several strata
    freedom = len(names) - (1 if crossed else given.nunique())
    # of the sum of squares over units, were runs independent with variance 1
    spread = (parts**2).sum()
    factor = (weights**2).sum() / spread if spread > 1e-12 else 0.0
    return Level(name, names, parts, freedom, factor)


def levels_of(study: Study, arm: Arm) -> list[Level]:
    """`arm_levels` of an arm's runs."""
    return arm_levels(study.runs.iloc[study.positions(arm)])


def chance_held(study: Study, arm: Arm) -> str:
    """The chance that an arm's intervals hold: "subjects, seeds (8)"."""
    own = levels_of(study, arm)
    repeated = [f"{PLURAL[level.name]} ({len(level.units)})" for level in own]
    folds = study.folds
    split = (
        [f"folds ({folds.max() + 1})"] if folds is not None and folds.max() + 1 >= MIN_FOLDS else []
    )
    return ", ".join(["subjects", *repeated, *split])


def chance_given(study: Study, arm: Arm) -> str:
    """What an arm's intervals are conditional on: "one split, one generator, one set"."""
    runs = study.runs.iloc[study.positions(arm)]
    held = {level.name for level in arm_levels(runs)}
    counts, folds = replicate_counts(study, arm), study.folds
    conditions = ["one split"]
    if folds is not None:
        count = int(folds.max()) + 1
        conditions = [
            f"one division into {count} folds" if count >= MIN_FOLDS else f"these {count} folds"
        ]
    if counts["sets"] and "generator" not in held:
        unknown = (runs.generator == UNKNOWN_GENERATOR).any()
        conditions.append(
            "generators that are not known"
            if unknown
            else _these(counts["generators"], "generator")
        )
        if "set" not in held:
            conditions.append(_these(counts["sets"], "set"))
    if not held:
        conditions.append(_these(counts["seeds"], "seed"))
    return ", ".join(conditions)


def _these(count: int, level: str) -> str:
    return f"one {level}" if count == 1 else f"these {count} {PLURAL[level]}"


def conditions_in_words(study: Study) -> str:
    """A phrase for captions: "intervals hold the chance of subjects, seeds (8), given one split,
    one generator, one set"."""
    arms: dict[tuple[str, str], list[Arm]] = {}
    for arm in study.arms:
        arms.setdefault((chance_held(study, arm), chance_given(study, arm)), []).append(arm)
    phrases = [
        f"{held}, given {given}" + (f" ({', '.join(map(str, own))})" if len(arms) > 1 else "")
        for (held, given), own in arms.items()
    ]
    return f"intervals hold the chance of {'; of '.join(phrases)}"
