"""The predictions of a study, read run by run, and which of them may be compared: every run
predicts the same test subjects once, with the same labels and attributes.

A run that is damaged in itself is left out by name; where runs contradict each other no number
would mean anything, and that is refused. Tables are read one at a time and kept as arrays: a study
of hundreds of runs fits in little memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrcls.fairness import grid
from cmrcls.fairness.study import RUN, Study, Tuned
from cmrdata.axes import AXES, axes_in
from cmrdata.progress import each
from cmrdata.store import Store
from cmrdata.subjects import MOST_VALUES, further_columns
from cmrdata.synthetic import named_by_rows

COLUMNS = ("subject", "row", "split", "disease", "label", "probability", "predicted")
REAL = "Real"  # the paper's name of the arm without synthetic images


class Table(NamedTuple):
    """What one run leaves, of one fold or without folds."""

    arm: str
    generator: str  # of the arm's synthetic set, and the set, as grid.replicates names them
    set: str
    seed: str
    fold: int | None
    split: str  # fingerprint
    where: str  # its folder, for errors
    rows: Callable[[], pd.DataFrame]  # reads COLUMNS and the axes

    @property
    def run(self) -> tuple[str, ...]:
        return self.arm, self.generator, self.set, self.seed


def read(
    of: grid.Study,
    stores: Callable[[int | None], Store],
    *,
    baseline_arm: str | None = None,
    axes: Sequence[str] = (),
    subjects: Collection[str] | None = None,
) -> list[Study]:
    """The predictions of a study's finished runs, of each disease, `compared`.

    Args:
        of: the study.
        stores: fold -> the store of the cohort at hand, whose subjects' names the tables get.
        baseline_arm: name or folder of the arm that others are compared with; None for the usual
            one.
        axes: further columns whose values are subgroups.
        subjects: all the cohort's.

    Raises ValueError where there is no finished run, a table lacks what a run leaves, or as
    `compared`.
    """
    tables = list(_tables(of, stores))
    if not tables:
        raise ValueError(
            "no finished classifier runs to read; run `python train.py -m experiment=classifier ...` first"
        )
    arms = [arm for arm in of.arms if any(run.record.state == "finished" for run in arm.runs)]
    baseline = grid.baseline(arms, baseline_arm)
    return compared(
        tables, arms=[arm.name for arm in arms], baseline=baseline, axes=axes, subjects=subjects
    )


def _tables(of: grid.Study, stores: Callable[[int | None], Store]) -> Iterator[Table]:
    made = grid.replicates(of)

    def reader(run: grid.Run) -> Callable[[], pd.DataFrame]:
        def rows() -> pd.DataFrame:
            table = pd.read_csv(run.folder / "predictions.csv", dtype={"subject": str})
            if absent := [column for column in COLUMNS if column not in table]:
                raise ValueError(
                    f"{run.folder}: predictions.csv lacks the columns {absent}; train that run again"
                )
            names = run.record.facts.get("names")
            return named_by_rows(
                table, stores(run.fold), names=names, what=str(run.folder), column="row"
            )

        return rows

    for arm, run in of.finished():
        split = str(run.record.facts.get("split_fingerprint") or "")
        yield Table(
            arm.name,
            *made[run.folder],
            str(run.seed),
            run.fold,
            split,
            str(run.folder),
            reader(run),
        )


class Rows(NamedTuple):
    """The predictions of a table: of the test subjects in the fold's order, and of the validation
    subjects."""

    probability: np.ndarray
    decision: np.ndarray
    tuned: Tuned


class Gathered:
    """The tables of a disease as they come: what the first one says of a fold's subjects the others
    must say, too."""

    def __init__(self, disease: str, axes: Sequence[str], subjects: Collection[str] | None) -> None:
        self.disease, self.axes = disease, list(axes)
        self.known = None if subjects is None else pd.Index(subjects)
        self.facts: dict[int | None, pd.DataFrame] = {}  # by fold: subject, label, axes
        self.first: dict[int | None, Table] = {}
        self.rows: dict[tuple[str, ...], dict[int | None, Rows]] = {}
        self.reasons: dict[tuple[str, ...], str] = {}  # why a run is left out
        self.tables: dict[tuple[str, ...], Table] = {}
        self.predictions = 0

    def add(self, table: Table, rows: pd.DataFrame) -> None:
        """A table's rows of this disease. Raises ValueError where it contradicts another."""
        self.tables.setdefault(table.run, table)
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
                f"{named(table)}: subject {test.subject[0]} is predicted twice; give each run's table once"
            )
        probability, decision = (
            test.probability.to_numpy(float)[order],
            test.predicted.to_numpy(np.int8)[order],
        )
        own[table.fold] = Rows(probability, decision, tuned)

    def _placed(self, test: pd.DataFrame, table: Table) -> np.ndarray:
        """Where the fold's subjects are among the rows; what the rows say of them must agree."""
        columns = list(dict.fromkeys(["label", *axes_in(test), *self.axes]))
        if table.fold not in self.facts:
            self.first[table.fold] = table
            self.facts[table.fold] = test[["subject", *columns]].reset_index(drop=True)
            return np.arange(len(test))
        facts, first = self.facts[table.fold], self.first[table.fold]
        order = pd.Index(test.subject).get_indexer(pd.Index(facts.subject))
        if len(test) != len(facts) or (order < 0).any():
            differing = pd.Index(facts.subject).symmetric_difference(pd.Index(test.subject))
            raise ValueError(
                f"{named(table)} and {named(first)} have different test splits: {len(differing)} subjects are in one "
                f"only, first {differing[0]}; rerun one with the other's cohort settings and seed"
            )
        for column in columns:
            theirs, ours = (_plain(of) for of in (test[column].iloc[order], facts[column]))
            if len(at := np.flatnonzero(theirs != ours)):
                raise ValueError(
                    f"subject {facts.subject[at[0]]}: {column} is {theirs[at[0]]} in {named(table)} but {ours[at[0]]} in "
                    f"{named(first)}; rerun both from the same cohort"
                )
        return order

    def study(self, arms: Sequence[str], baseline: str | None) -> Study:
        """The runs that are whole. Raises ValueError where none is left, or only one class."""
        if not self.facts and not self.reasons:
            raise ValueError(
                f"none of the {self.predictions} predictions is of the test split; run predict on it first"
            )
        folds = sorted(fold for fold in self.facts if fold is not None)
        self._check_folds(folds)
        for run, own in self.rows.items():
            if lacking := [fold for fold in folds if fold not in own]:
                reason = f"it lacks fold {', '.join(map(str, lacking))}, which others have; run it"
                self.reasons.setdefault(run, reason)
        places = {arm: k for k, arm in enumerate(arms)}
        kept = sorted(
            (run for run in self.rows if run not in self.reasons),
            key=lambda run: _place(run, places),
        )
        left_out = [f"{named(self.tables[run])}: {reason}" for run, reason in self.reasons.items()]
        if not kept:
            more = f" (and {len(left_out) - 1} more)" * (len(left_out) > 1)
            raise ValueError(f"no run is left to compare. {left_out[0]}{more}")
        order: list[int | None] = [*folds] or [None]
        subjects = pd.concat(
            [self.facts[fold].assign(fold=fold) for fold in order], ignore_index=True
        )
        if (twice := subjects.subject.duplicated()).any():
            raise ValueError(
                f"subject {subjects.subject[twice].iloc[0]} is predicted twice, in two folds; rerun one with the other's "
                "cohort settings and seed"
            )
        if subjects.label.nunique() < 2:
            raise ValueError(
                f"all {len(subjects)} test subjects have label {int(subjects.label.iloc[0])}: balanced accuracy is "
                "undefined; choose a cohort or a split with cases and controls in the test set"
            )
        whole = [[self.rows[run][fold] for fold in order] for run in kept]
        runs = pd.DataFrame(kept, columns=RUN)
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
        if folds and None in self.facts:
            raise ValueError(
                f"{named(self.first[None])} and {named(self.first[folds[0]])} have different test splits: one is of a "
                "fold and the other of none; give evaluate.py only one kind by arms= or classifiers="
            )


def compared(
    tables: Iterable[Table],
    *,
    arms: Sequence[str],
    baseline: str | None = None,
    axes: Sequence[str] = (),
    subjects: Collection[str] | None = None,
) -> list[Study]:
    """The predictions of the runs that can be compared, of each disease; `warnings` names what is
    left out.

    Left out by name are runs with a probability that is none, with subjects the cohort lacks, or
    without a fold that others have.

    Args:
        tables: of the runs, each read once.
        arms: in the order of a table.
        baseline: the arm that others are compared with.
        axes: further columns that must agree between runs.
        subjects: all the cohort's.

    Raises ValueError where runs contradict each other (splits, labels, attributes), where a subject
    is predicted twice, where no run is left or only one class.
    """
    tables = list(tables)
    _same_split(tables)
    gathered: dict[str, Gathered] = {}
    for table in each(tables, "read predictions", total=len(tables), unit="runs"):
        rows = table.rows()
        _check_axes(rows, axes)
        for disease, part in rows.groupby("disease", sort=False):
            gathered.setdefault(str(disease), Gathered(str(disease), axes, subjects)).add(
                table, part
            )
    return [one.study(arms, baseline) for one in gathered.values()]


def named(table: Table) -> str:
    """ "arm 'Synthetic' set 1 seed 0"."""
    made = f" set {table.set}" if table.set not in ("", "0") else ""
    generator = f" generator {table.generator}" if table.generator not in ("", "0") else ""
    return f"arm {table.arm!r}{generator}{made} seed {table.seed}"


def _check_axes(rows: pd.DataFrame, axes: Sequence[str]) -> None:
    if absent := [axis for axis in axes if axis not in rows]:
        there = [
            name
            for name in dict.fromkeys([*AXES, "source", *further_columns(rows)])
            if name in rows and name not in COLUMNS
        ]
        raise ValueError(
            f"axes: predictions have no column {absent[0]!r}; an axis is one of {', '.join(there)}"
        )
    if many := [axis for axis in axes if rows[axis].nunique() > MOST_VALUES]:
        raise ValueError(
            f"axes: {many[0]} has {rows[many[0]].nunique()} different values; subgroups are compared up to {MOST_VALUES}"
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
            f"{what} of subject {odd.subject} is {value} ({int((~usable).sum())} such rows); "
            "rerun that run, it diverged or its table is damaged"
        )
    if known is not None and (strange := ~test.subject.isin(known)).any():
        return (
            f"{test.subject[strange].nunique()} of its {test.subject.nunique()} test subjects are not in the cohort; "
            "rerun it on this cohort"
        )
    return ""


def _once(test: pd.DataFrame, table: Table) -> None:
    if (twice := test.subject.duplicated()).any():
        raise ValueError(
            f"{named(table)}: subject {test.subject[twice].iloc[0]} is predicted twice; give each run's table once"
        )
    if not (odd := test[~test.label.isin((0, 1))]).empty:
        raise ValueError(
            f"subject {odd.subject.iloc[0]}: label is {odd.label.iloc[0]}; a test subject has 0 or 1"
        )


def _plain(values: pd.Series) -> np.ndarray:
    return values.astype(object).where(values.notna(), "unknown").to_numpy(object)


def _same_split(tables: Sequence[Table]) -> None:
    """Raises ValueError when the runs of a fold were not all trained on one split."""
    folds: dict[int | None, dict[str, list[str]]] = {}
    for table in tables:
        run = named(table) + (f" fold {table.fold}" if table.fold is not None else "")
        if table.split:
            folds.setdefault(table.fold, {}).setdefault(table.split, []).append(run)
    for splits in folds.values():
        if len(splits) > 1:
            *_, usual, odd = sorted(splits.values(), key=len, reverse=True)
            raise ValueError(
                f"{len(splits)} different splits: {odd[0]} ({len(odd)} such runs) was split otherwise than {usual[0]} "
                f"({len(usual)} such runs); rerun one with the other's cohort settings and split seed"
            )


def _place(run: tuple[str, ...], arms: dict[str, int]) -> tuple[object, ...]:
    """Where a run stands: by arm, then generator, set and seed, numbers as numbers."""
    return arms[run[0]], *(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in run[1:]
    )


def _absent(runs: pd.DataFrame) -> list[str]:
    """A sentence per arm, and set of it where it has several, that lacks seeds others have."""
    every, sentences = list(dict.fromkeys(runs.seed)), []
    for arm, part in runs.groupby("arm", sort=False):
        sets = part.groupby(["generator", "set"], sort=False).seed.agg(set)
        for (generator, made), own in sets.items():
            if lacking := [seed for seed in every if seed not in own]:
                which = f" with set {made} of generator {generator}" if len(sets) > 1 else ""
                sentences.append(
                    f"Arm {arm!r}{which} has no run of seed {', '.join(sorted(lacking))}, which other arms have."
                )
    return sentences
