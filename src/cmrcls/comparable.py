"""Which predictions may be compared: every run predicts the same test subjects once, with the same labels and attributes.

A run that is damaged in itself is left out by name; where runs contradict each other no number would mean anything, and
that is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.metrics import THRESHOLD
from cmrdata.cohort import AXES

RUN = ["arm", "seed"]  # with folds, a run is all folds of an arm and seed
COLUMNS = (*RUN, "subject", "split", "label", "probability")
REAL, SYNTHETIC, ADDED = "Real", "Synthetic", "Real + "  # arms as the paper names them
Key = tuple[str, str, str, str]  # arm, mitigation, fold, seed as in the files; fold "" without folds


def read_runs(folders: Iterable[Path]) -> tuple[pd.DataFrame, dict[Key, str]]:
    """The predictions of finished runs (one folder each) as one table, and the split fingerprint of each."""
    parts: list[pd.DataFrame] = []
    prints: dict[Key, str] = {}
    for folder in folders:
        table = filled(
            pd.read_csv(folder / "predictions.csv", dtype=dict.fromkeys(("subject", "arm", "mitigation"), str))
        )
        fact = json.loads((folder / "finished.json").read_text())
        prints |= dict.fromkeys(_keys(table), str(fact.get("split_fingerprint") or ""))
        parts.append(table)
    if not parts:
        raise ValueError(
            "no finished classifier runs to read; run `python train.py -m experiment=classifier ...` first"
        )
    return pd.concat(parts, ignore_index=True), {key: value for key, value in prints.items() if value}


def filled(predictions: pd.DataFrame) -> pd.DataFrame:
    """`completed`, with arm as text. Raises ValueError naming the columns without which runs can't be told apart."""
    if absent := [column for column in COLUMNS if column not in predictions]:
        raise ValueError(f"predictions lack the columns {absent}; concatenate the runs' tables and add arm and seed")
    return completed(predictions.assign(arm=predictions.arm.astype(str)))


def completed(predictions: pd.DataFrame) -> pd.DataFrame:
    """Copy with the columns that older tables lack: disease, mitigation, fold, and predicted, the likelier class."""
    table = predictions.copy()
    likelier = (table.probability > THRESHOLD).astype(float)
    defaults: dict[str, Any] = {"disease": "hf", "mitigation": "none", "fold": np.nan, "predicted": likelier}
    for column, value in defaults.items():
        table[column] = table[column].where(table[column].notna(), value) if column in table else value
    return table


def arm_name(arm: str, mitigation: str = "none") -> str:
    """An arm for readers: "0" is Real, "2000" Real + 2000, "only" Synthetic; a mitigation follows after a comma."""
    name = {"0": REAL, "only": SYNTHETIC}.get(arm, f"{ADDED}{arm}" if arm.isdigit() else arm)
    return name if mitigation == "none" else f"{name}, {mitigation}"


def named(predictions: pd.DataFrame) -> pd.DataFrame:
    """`filled`, with readers' arm names (see `arm_name`) in the paper's order, mitigations last; mitigation is then "none"."""
    table = filled(predictions.reset_index(drop=True))
    pairs = table[["arm", "mitigation"]].drop_duplicates()
    names = {(a, m): arm_name(a, m) for a, m in pairs.itertuples(index=False)}
    table["arm"] = pd.Series(list(zip(table.arm, table.mitigation, strict=True)), index=table.index).map(names)
    place = {arm: k for k, arm in enumerate(sorted(dict.fromkeys(names.values()), key=_place))}
    order = pd.DataFrame({"arm": table.arm.map(place), "seed": table.seed}).sort_values(RUN, kind="stable").index
    return table.assign(mitigation="none").loc[order].reset_index(drop=True)


def comparable(
    predictions: pd.DataFrame,
    *,
    axes: Sequence[str] = (),
    fingerprints: Mapping[Key, str] | None = None,
    subjects: Collection[str] | None = None,
) -> pd.DataFrame:
    """The `named` test rows of the runs that can be compared; `.attrs["warnings"]` names, in sentences, what is left out.

    `axes`: further columns that must agree between runs. `fingerprints`: split fingerprint per run as `read_runs` gives
    them. `subjects`: all the cohort's subjects. Left out by name: runs with a probability that is none, with subjects the
    cohort lacks, or without a fold that others have. Raises ValueError where runs contradict each other (splits, labels,
    attributes), where a subject is predicted twice, where no run is left or only one class.
    """
    _same_split(fingerprints or {})
    table = named(predictions)
    if absent := [axis for axis in axes if axis not in table]:
        raise ValueError(f"predictions have no column {absent[0]!r}; an axis is one of {', '.join(map(str, table))}")
    if len(diseases := table.disease.unique()) > 1:
        raise ValueError(f"predictions are of {', '.join(map(str, diseases))}; compare one disease at a time")
    test = table[table.split == "test"].reset_index(drop=True)
    if test.empty:
        raise ValueError(f"none of the {len(predictions)} predictions is of the test split; run predict on it first")
    test, warnings = _undamaged(test, subjects)
    _once(test)
    _agreeing(test, [*(axis for axis in AXES if axis in test), *axes])
    test.attrs["warnings"] = list(dict.fromkeys([*predictions.attrs.get("warnings", ()), *warnings, *_absent(test)]))
    return test


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
    for (arm, mitigation, fold, seed), value in fingerprints.items():
        run = f"arm {arm_name(arm, mitigation)!r} seed {seed}" + (f" fold {fold}" if fold else "")
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


def _keys(table: pd.DataFrame) -> list[Key]:
    rows = table[["arm", "mitigation", "fold", "seed"]].drop_duplicates()
    return [(str(a), str(m), "" if pd.isna(f) else f"{f:g}", str(s)) for a, m, f, s in rows.itertuples(index=False)]


def _place(name: str) -> tuple[Any, ...]:
    base, _, mitigation = name.partition(", ")
    known = base in (REAL, SYNTHETIC) or base.startswith(ADDED)
    added = base.removeprefix(ADDED)
    return bool(mitigation), mitigation, not known, base == SYNTHETIC, int(added) if added.isdigit() else 0, base


def _run(row: pd.Series) -> str:
    return f"arm {row.arm!r} seed {row.seed}"
