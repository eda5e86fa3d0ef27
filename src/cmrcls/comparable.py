"""The predictions of a study, read once, and which of them may be compared: every run predicts the same test subjects once, with the same labels and attributes.

A run that is damaged in itself is left out by name; where runs contradict each other no number would mean anything, and
that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrcls.grid import SET, Study, baseline
from cmrdata.cohort import AXES, MOST_VALUES, further_columns
from cmrdata.store import Store
from cmrdata.synthetic import named_by_rows

RUN = ["arm", "seed"]  # with folds, a run is all folds of an arm and seed
COLUMNS = (*RUN, "fold", "subject", "row", "split", "disease", "label", "probability", "predicted")
REAL = "Real"  # the paper's name of the arm without synthetic images
Key = tuple[str, str, str]  # arm, fold, seed; fold "" without folds


class Predictions(NamedTuple):
    """The predictions of a study's runs."""

    table: pd.DataFrame  # a row per run and predicted image and disease; COLUMNS and the axes
    arms: list[str]  # in the order of a table
    baseline: str | None  # the arm that others are compared with
    splits: dict[Key, str]  # fingerprint of each run's split


def read(of: Study, stores: Callable[[int | None], Store], *, baseline_arm: str | None = None) -> Predictions:
    """The predictions of a study's finished runs, read and named once.

    Args:
        of: the study.
        stores: fold -> the store of the cohort at hand, whose subjects' names the tables get.
        baseline_arm: name or folder of the arm that others are compared with; None for the usual one.

    Raises ValueError where there is no finished run, or a table lacks what a run leaves.
    """
    parts: list[pd.DataFrame] = []
    splits: dict[Key, str] = {}
    several = _several_sets(of)
    for arm, run in of.finished():
        table = pd.read_csv(run.folder / "predictions.csv", dtype={"subject": str})
        seed = f"{run.fingerprint(SET)}/{run.seed}" if arm.name in several else str(run.seed)
        table = table.assign(arm=arm.name, seed=seed, fold=np.nan if run.fold is None else run.fold)
        if absent := [column for column in COLUMNS if column not in table]:
            raise ValueError(f"{run.folder}: predictions.csv lacks the columns {absent}; train that run again")
        names = run.record.facts.get("names")
        table = named_by_rows(table, stores(run.fold), names=names, what=str(run.folder), column="row")
        splits[arm.name, "" if run.fold is None else str(run.fold), seed] = str(
            run.record.facts.get("split_fingerprint") or ""
        )
        parts.append(table)
    if not parts:
        raise ValueError(
            "no finished classifier runs to read; run `python train.py -m experiment=classifier ...` first"
        )
    arms = [arm for arm in of.arms if any(run.record.state == "finished" for run in arm.runs)]
    table = pd.concat(parts, ignore_index=True)
    return Predictions(
        table, [arm.name for arm in arms], baseline(arms, baseline_arm), {k: v for k, v in splits.items() if v}
    )


def _several_sets(of: Study) -> set[str]:
    """The arms whose runs were trained on several sets of one kind: their seeds are told apart by the set."""
    sets: dict[str, set[str | None]] = {}
    for arm, run in of.finished():
        sets.setdefault(arm.name, set()).add(run.fingerprint(SET))
    return {name for name, prints in sets.items() if len(prints) > 1}


def comparable(
    given: Predictions, *, disease: str | None = None, axes: Sequence[str] = (), subjects: Collection[str] | None = None
) -> pd.DataFrame:
    """The test rows of the runs that can be compared; `.attrs["warnings"]` names, in sentences, what is left out.

    Left out by name are runs with a probability that is none, with subjects the cohort lacks, or
    without a fold that others have.

    Args:
        given: the predictions.
        disease: the one of which; None where there is one only.
        axes: further columns that must agree between runs.
        subjects: all the cohort's.

    Raises ValueError where runs contradict each other (splits, labels, attributes), where a subject
    is predicted twice, where no run is left or only one class.
    """
    _same_split(given.splits)
    table = given.table if disease is None else given.table[given.table.disease == disease]
    if absent := [axis for axis in axes if axis not in table]:
        raise ValueError(f"axes: predictions have no column {absent[0]!r}; an axis is one of {', '.join(_axes(table))}")
    if many := [axis for axis in axes if table[axis].nunique() > MOST_VALUES]:
        raise ValueError(
            f"axes: {many[0]} has {table[many[0]].nunique()} different values; subgroups are compared up to {MOST_VALUES}"
        )
    if len(diseases := table.disease.unique()) > 1:
        raise ValueError(f"predictions are of {', '.join(map(str, diseases))}; compare one disease at a time")
    test = table[table.split == "test"]
    if test.empty:
        raise ValueError(f"none of the {len(table)} predictions is of the test split; run predict on it first")
    place = {arm: k for k, arm in enumerate(given.arms)}
    order = pd.DataFrame({"arm": test.arm.map(place), "seed": test.seed.map(_seed_place)})
    test = test.loc[order.sort_values(RUN, kind="stable").index].reset_index(drop=True)
    test, warnings = _undamaged(test, subjects)
    _once(test)
    _agreeing(test, [*(axis for axis in AXES if axis in test), *axes])
    test.attrs["warnings"] = list(dict.fromkeys([*warnings, *_absent(test)]))
    return test


def _axes(table: pd.DataFrame) -> list[str]:
    """Columns whose values can be subgroups."""
    return [name for name in [*AXES, "source", *further_columns(table)] if name in table and name not in COLUMNS]


def _seed_place(seed: str) -> tuple[str, int, str]:
    *place, number = str(seed).split("/")
    return "/".join(place), int(number) if number.isdigit() else 0, number


def _undamaged(test: pd.DataFrame, subjects: Collection[str] | None) -> tuple[pd.DataFrame, list[str]]:
    """The rows of undamaged runs, and a sentence per run left out."""
    usable = test.probability.between(0, 1) & test.predicted.isin((0, 1))
    folds = set(test.fold.dropna())
    reasons = {}
    for run, part in test.groupby(RUN, sort=False):
        bad = part[~usable[part.index]]
        lacking = folds - set(part.fold.dropna()) if part.fold.notna().any() else set()
        unknown = part.subject[~part.subject.isin(subjects)].nunique() if subjects is not None else 0
        if len(bad):
            odd = bad.iloc[0]
            what, value = (
                ("probability", odd.probability) if not 0 <= odd.probability <= 1 else ("decision", odd.predicted)
            )
            reasons[run] = (f"{what} of subject {odd.subject} is {value} ({len(bad)} such rows); "
                            "rerun that run, it diverged or its table is damaged")  # fmt: skip
        elif unknown:
            reasons[run] = (f"{unknown} of its {part.subject.nunique()} test subjects are not in the cohort; "
                            "rerun it on this cohort")  # fmt: skip
        elif lacking:
            reasons[run] = (
                f"it lacks fold {', '.join(f'{fold:g}' for fold in sorted(lacking))}, which others have; run it"
            )
    named_ = [f"arm {arm!r} seed {seed}: {reason}" for (arm, seed), reason in reasons.items()]
    kept = test[~pd.MultiIndex.from_frame(test[RUN]).isin(list(reasons))].reset_index(drop=True)
    if kept.empty:
        raise ValueError(
            f"no run is left to compare. {named_[0]}" + (f" (and {len(named_) - 1} more)" * (len(named_) > 1))
        )
    return kept, [f"Left out: {sentence}." for sentence in named_]


def _once(test: pd.DataFrame) -> None:
    if (twice := test.duplicated([*RUN, "subject"])).any():
        row = test[twice].iloc[0]
        raise ValueError(f"{_run(row)}: subject {row.subject} is predicted twice; give each run's table once")
    if not (odd := test[~test.label.isin((0, 1))]).empty:
        raise ValueError(f"subject {odd.subject.iloc[0]}: label is {odd.label.iloc[0]}; a test subject has 0 or 1")


def _agreeing(test: pd.DataFrame, facts: list[str]) -> None:
    facts = list(dict.fromkeys(["label", *facts]))
    runs = [part.set_index("subject") for _, part in test.groupby(RUN, sort=False)]
    first = runs[0]
    for other in runs[1:]:
        if len(differing := first.index.symmetric_difference(other.index)):
            raise ValueError(
                f"{_run(other.iloc[0])} and {_run(first.iloc[0])} have different test splits: {len(differing)} "
                f"subjects are in one only, first {differing[0]}; rerun one with the other's cohort settings and seed"
            )
        theirs, ours = (run.loc[first.index, facts].astype(object).where(pd.notna, "unknown") for run in (other, first))
        where, which = np.nonzero((theirs != ours).to_numpy())
        if len(where):
            subject, column = theirs.index[where[0]], facts[which[0]]
            raise ValueError(
                f"subject {subject}: {column} is {theirs.loc[subject, column]} in {_run(other.iloc[0])} but "
                f"{ours.loc[subject, column]} in {_run(first.iloc[0])}; rerun both from the same cohort"
            )
    if first.label.nunique() < 2:
        raise ValueError(
            f"all {len(first)} test subjects have label {int(first.label.iloc[0])}: balanced accuracy is undefined; "
            "choose a cohort or a split with cases and controls in the test set"
        )


def _same_split(fingerprints: Mapping[Key, str]) -> None:
    """Raises ValueError when the runs of a fold were not all trained on one split."""
    folds: dict[str, dict[str, list[str]]] = {}
    for (arm, fold, seed), value in fingerprints.items():
        run = f"arm {arm!r} seed {seed}" + (f" fold {fold}" if fold else "")
        folds.setdefault(fold, {}).setdefault(value, []).append(run)
    for splits in folds.values():
        if len(splits) > 1:
            *_, usual, odd = sorted(splits.values(), key=len, reverse=True)
            raise ValueError(
                f"{len(splits)} different splits: {odd[0]} ({len(odd)} such runs) was split otherwise than {usual[0]} "
                f"({len(usual)} such runs); rerun one with the other's cohort settings and split seed"
            )


def _absent(test: pd.DataFrame) -> list[str]:
    """A sentence per arm that lacks seeds others have."""
    seeds = test.drop_duplicates(RUN).groupby("arm", sort=False).seed.agg(set)
    every = set().union(*seeds)
    return [f"Arm {arm!r} has no run of seed {', '.join(map(str, sorted(every - own)))}, which other arms have."
            for arm, own in seeds.items() if every - own]  # fmt: skip


def _run(row: pd.Series) -> str:
    return f"arm {row.arm!r} seed {row.seed}"
