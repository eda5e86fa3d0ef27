"""The predictions of a study, read run by run, and which of them may be compared: every run
predicts the same test subjects once, with the same labels and attributes.

A run that is damaged in itself is left out by name; where runs contradict each other no number
would mean anything, and that is refused. Tables are read one at a time and kept as arrays: a study
of hundreds of runs fits in little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrcls.fairness import grid
from cmrcls.fairness.classifier_runs import Run
from cmrcls.fairness.study import RUN_COLUMNS, Arm, Study, Tuned
from cmrdata.axes import AXES, axes_in
from cmrdata.counting import number_of
from cmrdata.progress import each
from cmrdata.store import Store
from cmrdata.subjects import MOST_VALUES, further_columns
from cmrdata.synthetic import named_by_rows

Array = npt.NDArray[Any]
PREDICTION_COLUMNS = (
    "subject",
    "row",
    "split",
    "disease",
    "label",
    "probability",
    "predicted",
)


class RunName(NamedTuple):
    """What identifies a run: RUN_COLUMNS. With folds it is all folds of it."""

    arm: Arm
    generator: str  # of the arm's synthetic set, and the set, as grid.replicate_names has them
    set: str
    seed: str

    def __str__(self) -> str:
        """ "arm 'Synthetic' set 1 seed 0"."""
        used = f" set {self.set}" if self.set not in ("", "0") else ""
        generator = f" generator {self.generator}" if self.generator not in ("", "0") else ""
        return f"arm {self.arm.name!r}{generator}{used} seed {self.seed}"


class RunTable(NamedTuple):
    """What one run leaves, of one fold or without folds."""

    run: RunName
    fold: int | None
    split: str  # fingerprint
    rows: Callable[[], pd.DataFrame]  # reads PREDICTION_COLUMNS and the axes


def read(
    of: grid.Grid,
    stores: Callable[[int | None], Store],
    *,
    baseline: str | None = None,
    axes: Sequence[str] = (),
    subjects: Collection[str] | None = None,
) -> list[Study]:
    """The predictions of a study's finished runs: each table is read, named and checked here, once.

    Args:
        of: the study.
        stores: fold -> the store of the cohort at hand, whose subjects' names the tables get.
        baseline: name or folder of the arm that others are compared with; None for the usual one.
        axes: further columns whose values are subgroups.
        subjects: all the cohort's.

    Returns:
        The runs that can be compared, of each disease.

    Raises:
        ValueError: where there is no finished run, a table lacks what a run leaves, or as
            `gathered`.
    """
    tables = list(_tables(of, stores))
    if not tables:
        raise ValueError(
            "no finished classifier runs to read; run `python train.py -m experiment=classifier "
            "...` first"
        )
    arms = [arm for arm in of.arms if arm.finished]
    return gathered(
        tables, baseline=grid.baseline_arm(arms, baseline), axes=axes, subjects=subjects
    )


def _tables(of: grid.Grid, stores: Callable[[int | None], Store]) -> Iterator[RunTable]:
    """The tables of the finished runs, to be read one at a time."""
    names = grid.replicate_names(of)
    places: dict[tuple[RunName, int | None], Path] = {}
    for arm, run in of.finished():
        name = RunName(arm, *names[run.folder], str(run.seed))
        if (other := places.setdefault((name, run.fold), run.folder)) != run.folder:
            raise ValueError(
                f"{other} and {run.folder} are both {name}{_of_fold(run.fold)}, and nothing that "
                "differs between them makes them two; move one away, or give evaluate.py one of "
                "them by arms= or classifiers="
            )
        yield RunTable(
            name,
            run.fold,
            str(run.record.facts.get("split_fingerprint") or ""),
            partial(_rows_of, run, stores),
        )


def _rows_of(run: Run, stores: Callable[[int | None], Store]) -> pd.DataFrame:
    """A run's predictions, complete, under the cohort's own names of the subjects."""
    table = pd.read_csv(run.folder / "predictions.csv", dtype={"subject": str})
    if absent := [column for column in PREDICTION_COLUMNS if column not in table]:
        raise ValueError(
            f"{run.folder}: predictions.csv lacks the columns {absent}; train that run again"
        )
    names = run.record.facts.get("names")
    return named_by_rows(table, stores(run.fold), names=names, what=str(run.folder), column="row")


def _of_fold(fold: int | None) -> str:
    return "" if fold is None else f" fold {fold}"


class Predictions(NamedTuple):
    """What a run predicts of a fold's subjects."""

    probability: Array  # (n,) of the test subjects, in the order of Gathered.facts
    decision: Array  # (n,) 0 or 1
    tuned: Tuned  # of the validation subjects


class Gathered:
    """The tables of a disease as they come: what the first one says of a fold's subjects the others
    must say, too."""

    def __init__(self, disease: str, axes: Sequence[str], subjects: Collection[str] | None) -> None:
        self.disease, self.axes = disease, list(axes)
        self.known = None if subjects is None else pd.Index(subjects)
        self.facts: dict[int | None, pd.DataFrame] = {}  # by fold: subject, label, axes
        self.first: dict[int | None, RunTable] = {}
        self.rows: dict[RunName, dict[int | None, Predictions]] = {}
        self.reasons: dict[RunName, str] = {}  # why a run is left out
        self.predictions = 0

    def add(self, table: RunTable, rows: pd.DataFrame) -> None:
        """Take a table's rows of this disease.

        Raises:
            ValueError: where they contradict another table's.
        """
        self.predictions += len(rows)
        test = rows[rows.split == "test"].reset_index(drop=True)
        if test.empty:
            return
        if reason := _damage(test, self.known):
            self.reasons.setdefault(table.run, reason)
            return
        _once(test, table)
        order = self._placed(test, table)
        val = rows[rows.split == "val"]
        tuned = Tuned(val.label.to_numpy(np.int8), val.probability.to_numpy(float))
        own = self.rows.setdefault(table.run, {})
        if table.fold in own:
            raise ValueError(
                f"{table.run}{_of_fold(table.fold)} is there twice; give each run's table once"
            )
        probability, decision = (
            test.probability.to_numpy(float)[order],
            test.predicted.to_numpy(np.int8)[order],
        )
        own[table.fold] = Predictions(probability, decision, tuned)

    def _placed(self, test: pd.DataFrame, table: RunTable) -> Array:
        """Where the fold's subjects are among the rows; what the rows say of them must agree."""
        columns = list(dict.fromkeys(["label", *axes_in(test), *self.axes]))
        if table.fold not in self.facts:
            self.first[table.fold] = table
            self.facts[table.fold] = test[["subject", *columns]].reset_index(drop=True)
            return np.arange(len(test))
        facts, first = self.facts[table.fold], self.first[table.fold]
        order: Array = pd.Index(test.subject).get_indexer(pd.Index(facts.subject))
        if len(test) != len(facts) or (order < 0).any():
            differing = pd.Index(facts.subject).symmetric_difference(pd.Index(test.subject))
            raise ValueError(
                f"{table.run} and {first.run} have different test splits: {len(differing)} "
                "subjects are in one only; rerun one with the other's cohort settings and seed"
            )
        for column in columns:
            theirs, ours = (_plain(of) for of in (test[column].iloc[order], facts[column]))
            if len(at := np.flatnonzero(theirs != ours)):
                raise ValueError(
                    f"{column} of {number_of(len(at), 'test subjects')} differs between runs (the "
                    f"first: {theirs[at[0]]} in {table.run}, {ours[at[0]]} in {first.run}); rerun "
                    "both from the same cohort"
                )
        return order

    def study(self, baseline: Arm | None) -> Study:
        """The runs that are whole, with the arm that others are compared with.

        Raises:
            ValueError: where no run is left, or only one class.
        """
        if not self.facts and not self.reasons:
            raise ValueError(
                f"none of the {self.predictions} predictions is of the test split; run predict on "
                "it first"
            )
        folds = sorted(fold for fold in self.facts if fold is not None)
        self._check_folds(folds)
        for run, own in self.rows.items():
            if lacking := [fold for fold in folds if fold not in own]:
                reason = f"it lacks fold {', '.join(map(str, lacking))}, which others have; run it"
                self.reasons.setdefault(run, reason)
        kept = sorted((run for run in self.rows if run not in self.reasons), key=_place)
        left_out = [f"{run}: {reason}" for run, reason in self.reasons.items()]
        if not kept:
            more = f" (and {len(left_out) - 1} more)" * (len(left_out) > 1)
            raise ValueError(f"no run is left to compare. {left_out[0]}{more}")
        order: list[int | None] = [*folds] or [None]
        subjects = pd.concat(
            [self.facts[fold].assign(fold=fold) for fold in order], ignore_index=True
        )
        if (twice := subjects.subject.duplicated()).any():
            raise ValueError(
                f"{number_of(int(twice.sum()), 'subjects')} predicted twice, in two folds; rerun "
                "one with the other's cohort settings and seed"
            )
        if subjects.label.nunique() < 2:
            raise ValueError(
                f"all {len(subjects)} test subjects have label {int(subjects.label.iloc[0])}: "
                "balanced accuracy is undefined; choose a cohort or a split with cases and "
                "controls in the test set"
            )
        whole = [[self.rows[run][fold] for fold in order] for run in kept]
        runs = pd.DataFrame(kept, columns=RUN_COLUMNS)
        warnings = [f"Left out: {sentence}." for sentence in left_out] + _absent(runs)
        return Study(
            subjects.astype({"label": int, "fold": float}),
            runs,
            np.stack([np.concatenate([rows.probability for rows in own]) for own in whole], axis=1),
            np.stack([np.concatenate([rows.decision for rows in own]) for own in whole], axis=1),
            baseline if baseline in set(runs.arm) else None,
            self.disease,
            [{fold: rows.tuned for fold, rows in zip(order, own, strict=True)} for own in whole],
            list(dict.fromkeys(warnings)),
        )

    def _check_folds(self, folds: Sequence[int]) -> None:
        """Raise ValueError where some runs are of a fold and others of none."""
        if folds and None in self.facts:
            raise ValueError(
                f"{self.first[None].run} and {self.first[folds[0]].run} have different test "
                "splits: one is of a fold and the other of none; give evaluate.py only one kind "
                "by arms= or classifiers="
            )


def gathered(
    tables: Iterable[RunTable],
    *,
    baseline: Arm | None = None,
    axes: Sequence[str] = (),
    subjects: Collection[str] | None = None,
) -> list[Study]:
    """The predictions of the runs that can be compared, of each disease; `warnings` names what is
    left out.

    Left out by name are runs with a probability that is none, with subjects the cohort lacks, or
    without a fold that others have.

    Args:
        tables: of the runs, each read once.
        baseline: the arm that others are compared with.
        axes: further columns that must agree between runs.
        subjects: all the cohort's.

    Raises:
        ValueError: where runs contradict each other (splits, labels, attributes), where a subject
            is predicted twice, where no run is left or only one class.
    """
    tables = list(tables)
    _same_split(tables)
    diseases: dict[str, Gathered] = {}
    for table in each(tables, "read predictions", total=len(tables), unit="runs"):
        rows = table.rows()
        _check_axes(rows, axes)
        for disease, own in rows.groupby("disease", sort=False):
            name = str(disease)
            diseases.setdefault(name, Gathered(name, axes, subjects)).add(table, own)
    return [one.study(baseline) for one in diseases.values()]


def check_usable(
    classifiers: Sequence[Run],
    kept: Sequence[Run],
    left_out: Sequence[str],
    *,
    cohort: str,
    folder: str,
) -> None:
    """Raise ValueError where finished runs are there and none of them may be used.

    Args:
        classifiers: the runs below a folder.
        kept: those that `comparable` kept.
        left_out: why it left out the others.
        cohort: name of the cohort at hand.
        folder: where they are.
    """
    finished, usable = (
        [run for run in of if run.record.state == "finished"] for of in (classifiers, kept)
    )
    if finished and not usable:
        raise ValueError(
            f"none of the finished runs below {folder} can be evaluated with cohort {cohort}: "
            f"{' '.join(left_out)} Give evaluate.py their cohort's settings, or other classifiers="
        )


def _check_axes(rows: pd.DataFrame, axes: Sequence[str]) -> None:
    """Raise ValueError for an axis that is no column, or has too many values."""
    if absent := [axis for axis in axes if axis not in rows]:
        there = [
            name
            for name in dict.fromkeys([*AXES, "source", *further_columns(rows)])
            if name in rows and name not in PREDICTION_COLUMNS
        ]
        raise ValueError(
            f"axes: predictions have no column {absent[0]!r}; an axis is one of {', '.join(there)}"
        )
    if many := [axis for axis in axes if rows[axis].nunique() > MOST_VALUES]:
        raise ValueError(
            f"axes: {many[0]} has {rows[many[0]].nunique()} different values; subgroups are "
            f"compared up to {MOST_VALUES}"
        )


def _damage(test: pd.DataFrame, known: pd.Index | None) -> str:
    """Why a run can't be used; empty if it can."""
    usable = test.probability.between(0, 1) & test.predicted.isin((0, 1))
    if not usable.all():
        odd = test[~usable].iloc[0]
        what, value = (
            ("probability", odd.probability)
            if not 0 <= odd.probability <= 1
            else ("decision", odd.predicted)
        )
        return (
            f"{what} of the subject in row {odd.row} is {value} "
            f"({number_of(int((~usable).sum()), 'such rows')}); rerun that run, it diverged or "
            "its table is damaged"
        )
    if known is not None and (strange := ~test.subject.isin(known)).any():
        return (
            f"{test.subject[strange].nunique()} of its {test.subject.nunique()} test subjects are "
            "not in the cohort; rerun it on this cohort"
        )
    return ""


def _once(test: pd.DataFrame, table: RunTable) -> None:
    """Raise ValueError where a subject is predicted twice, or has no label."""
    if (twice := test.subject.duplicated()).any():
        raise ValueError(
            f"{table.run}: {number_of(int(twice.sum()), 'subjects')} predicted twice; give each "
            "run's table once"
        )
    if not (odd := test[~test.label.isin((0, 1))]).empty:
        raise ValueError(
            f"{table.run}: {number_of(len(odd), 'test subjects')} with a label that is neither 0 "
            f"nor 1 (the first: {odd.label.iloc[0]}); train that run again"
        )


def _plain(values: pd.Series) -> Array:
    """Values with "unknown" in place of what is missing."""
    plain: Array = values.astype(object).where(values.notna(), "unknown").to_numpy(object)
    return plain


def _same_split(tables: Sequence[RunTable]) -> None:
    """Raise ValueError when the runs of a fold were not all trained on one split."""
    folds: dict[int | None, dict[str, list[str]]] = {}
    for table in tables:
        run = f"{table.run}{_of_fold(table.fold)}"
        if table.split:
            folds.setdefault(table.fold, {}).setdefault(table.split, []).append(run)
    for splits in folds.values():
        if len(splits) > 1:
            *_, usual, odd = sorted(splits.values(), key=len, reverse=True)
            raise ValueError(
                f"{len(splits)} different splits: {odd[0]} ({number_of(len(odd), 'such runs')}) "
                f"was split otherwise than {usual[0]} ({number_of(len(usual), 'such runs')}); "
                "rerun one with the other's cohort settings and split seed"
            )


def _place(run: RunName) -> tuple[object, ...]:
    """Where a run stands: by arm, then generator, set and seed, numbers as numbers."""
    return run.arm, *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in run[1:])


def _absent(runs: pd.DataFrame) -> list[str]:
    """A sentence per arm, and set of it where it has several, that lacks seeds others have."""
    every, sentences = list(dict.fromkeys(runs.seed)), []
    for arm, repeats in runs.groupby("arm", sort=False):
        sets = repeats.groupby(["generator", "set"], sort=False).seed.agg(set)
        for (generator, name), own in sets.items():
            if lacking := [seed for seed in every if seed not in own]:
                which = f" with set {name} of generator {generator}" if len(sets) > 1 else ""
                sentences.append(
                    f"Arm {arm.name!r}{which} has no run of seed {', '.join(sorted(lacking))}, "
                    "which other arms have."
                )
    return sentences
