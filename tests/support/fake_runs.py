"""Predictions of made-up runs, as tables and as the studies that the report is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.predictions import RunName, RunTable, gathered
from cmrcls.fairness.study import RUN_COLUMNS, Arm, Study, Tuned
from cmrdata.axes import AXES

ARMS = ("Real", "Real + 2000", "Real + 4000", "Synthetic")
AMOUNTS = dict(zip(ARMS, (0, 2000, 4000, "only"), strict=True))


def arm_of(name: str, place: int = 0) -> Arm:
    """An arm of that name; the paper's have their number of synthetic images."""
    values = {"synthetic": AMOUNTS[name]} if name in AMOUNTS else {}
    return Arm(place, name, values)


def arms_of(names: Sequence[str]) -> dict[str, Arm]:
    """Arms in that order, by name."""
    return {name: arm_of(name, k) for k, name in enumerate(dict.fromkeys(names))}


def runs(*, n=120, arms=ARMS, seeds=3, seed=0, prevalence=0.3) -> pd.DataFrame:
    """Predictions of all runs on one test split (and a val split that must not count)."""
    rng = np.random.default_rng(seed)
    facts = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(n)],
            "split": "test",
            "label": (rng.random(n) < prevalence).astype(int),
            **{name: rng.choice(axis.values, n) for name, axis in AXES.items()},
        }
    )
    facts.loc[:1, "label"] = [0, 1]
    val = facts.assign(split="val", subject="V" + facts.subject, label=1 - facts.label)
    both = pd.concat([facts, val], ignore_index=True)
    both["group"] = both.sex + "/" + both.age_band + "/" + both.bmi_band
    parts = [
        both.assign(arm=arm, seed=s, probability=rng.random(2 * n))
        for arm in arms
        for s in range(seeds)
    ]
    return pd.concat(parts, ignore_index=True)


def studies(
    table: pd.DataFrame,
    *,
    splits: dict[tuple[str, str], str] | None = None,
    baseline: str | None = "Real",
    **options: Any,
) -> list[Study]:
    """The table's runs `gathered`: of one disease, one set each and without folds, unless it says
    otherwise."""
    usual = {"disease": "hf", "fold": np.nan, "generator": "", "set": ""}
    usual["row"] = pd.to_numeric(table.subject.str.extract(r"(\d+)$", expand=False))
    table = table.assign(**{name: value for name, value in usual.items() if name not in table})
    if "predicted" not in table:
        table = table.assign(predicted=(table.probability > 0.5).astype(float))
    arms = arms_of([arm for arm in ARMS if arm in set(table.arm)] or table.arm)
    tables = []
    for (arm, generator, made, seed, fold), part in table.groupby(
        [*RUN_COLUMNS, "fold"], sort=False, dropna=False
    ):
        number = None if pd.isna(fold) else int(fold)
        split = (splits or {}).get((arm, str(seed)), "")
        rows = part.drop(columns=["arm", "generator", "set", "seed", "fold"])
        tables.append(
            RunTable(
                RunName(arms[arm], generator, made, str(seed)),
                number,
                split,
                lambda rows=rows: rows,
            )
        )
    return gathered(tables, baseline=arms.get(baseline), **options)


def one_study(table: pd.DataFrame, **options: Any) -> Study:
    """Of one disease."""
    (one,) = studies(table, **options)
    return one


def small(*, arms=("Real", "Real + 2000"), seeds=1, n=400, seed=0, prevalence=0.3) -> Study:
    """A study whose probabilities are noise."""
    return one_study(runs(n=n, arms=arms, seeds=seeds, seed=seed, prevalence=prevalence))


def study_of(
    decision: np.ndarray,
    rows: Sequence[tuple[str, str, str, str]],
    *,
    label: np.ndarray,
    **columns: Any,
) -> Study:
    """A study from decisions (n, T) and its runs (arm, generator, set, seed); `columns` of the
    subjects."""
    table = pd.DataFrame(rows, columns=RUN_COLUMNS)
    table["arm"] = table.arm.map(arms_of(table.arm))
    subjects = pd.DataFrame({"label": label, **columns})
    tuned = [{None: Tuned(label, decision[:, k].astype(float))} for k in range(len(table))]
    return Study(subjects, table, decision.astype(float), decision, table.arm[0], validation=tuned)


def two_sexes() -> Study:
    """Men: 0.9, then 0.8; women: 0.7 and 0.7. The gap falls from 0.2 to 0.1, a half; of 400
    subjects of each kind."""
    label = np.tile(np.repeat([1, 0], 400), 2)
    right = (
        np.concatenate([np.arange(400) < 4 * k for k in (90, 90, 70, 70, 80, 80, 70, 70)])
        .reshape(2, 1600)
        .T
    )
    decision = np.where(right, label[:, None], 1 - label[:, None])
    rows = [("Real", "", "", "0"), ("Real + 2000", "0", "0", "0")]
    return study_of(decision, rows, label=label, sex=np.repeat(["M", "F"], 800))


def edited(column: str, value: Any, **where: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """A table with that value in the rows where columns have these."""

    def apply(table: pd.DataFrame) -> pd.DataFrame:
        rows = pd.Series(True, index=table.index)
        for name, wanted in where.items():
            rows &= table[name] == wanted
        table[column] = table[column].astype(object)
        table.loc[rows, column] = value
        return table

    return apply
