"""Predictions of made-up runs, as tables and as the studies that the report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.predictions import Table, compared
from cmrcls.fairness.study import RUN, Study, Tuned
from cmrdata.axes import AXES

ARMS = ("Real", "Real + 2000", "Real + 4000", "Synthetic")


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
    """The table's runs `compared`: of one disease, one set each and without folds, unless it says
    otherwise."""
    usual = {"disease": "hf", "fold": np.nan, "generator": "", "set": ""}
    table = table.assign(**{name: value for name, value in usual.items() if name not in table})
    if "predicted" not in table:
        table = table.assign(predicted=(table.probability > 0.5).astype(float))
    arms = [arm for arm in ARMS if arm in set(table.arm)] or list(dict.fromkeys(table.arm))
    tables = []
    for (arm, generator, made, seed, fold), part in table.groupby(
        [*RUN, "fold"], sort=False, dropna=False
    ):
        number = None if pd.isna(fold) else int(fold)
        split = (splits or {}).get((arm, str(seed)), "")
        rows = part.drop(columns=["arm", "generator", "set", "seed", "fold"])
        tables.append(
            Table(arm, generator, made, str(seed), number, split, "", lambda rows=rows: rows)
        )
    return compared(tables, arms=arms, baseline=baseline if baseline in arms else None, **options)


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
    table = pd.DataFrame(rows, columns=RUN)
    subjects = pd.DataFrame({"label": label, **columns})
    tuned = [{None: Tuned(label, decision[:, k].astype(float))} for k in range(len(table))]
    return Study(subjects, table, decision.astype(float), decision, table.arm[0], validation=tuned)
