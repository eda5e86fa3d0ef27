"""The paper's Table 2: balanced accuracy per subgroup and arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.metrics import scored
from cmrcls.fairness.study import Study, axes_of, replicates
from cmrdata.axes import as_in_table2

FACTS = ["subgroup", "n", "positives", "prevalence"]


def table2(study: Study, *, axes: Sequence[str] = ()) -> pd.DataFrame:
    """The paper's Table 2, one row per subgroup and arm: mean and sd (ddof 1) of balanced accuracy
    over an arm's runs.

    `axes` names further columns whose values are subgroups; folds are pooled.
    Columns out: subgroup, axis, n, positives, prevalence, arm, balanced_accuracy, sd, sets, seeds.
    A subgroup without positives or negatives is NaN. `.attrs["refused"]` says in a sentence each
    which axes can't be compared, `.attrs["warnings"]` which runs are left out or missing.
    """
    given, weights, rows = study.predicted, study.weights, []
    known = [axis for axis in axes_of(study.subjects, axes) if len(axis.columns) < 2]
    counted = {arm: replicates(study, arm) for arm in study.arms}
    for axis in known:
        for code, name in enumerate(axis.names):
            who = np.flatnonzero(axis.codes == code)
            n, positives = len(who), int(given.label[who].sum())
            score = scored("balanced_accuracy", given.of(who)).value
            for k, arm in enumerate(study.arms):
                own = score[study.positions(arm)]
                rows.append(
                    {
                        "subgroup": name,
                        "axis": axis.title,
                        "n": n,
                        "positives": positives,
                        "prevalence": positives / n if n else np.nan,
                        "arm": arm,
                        "balanced_accuracy": float(own @ weights[study.positions(arm), k]),
                        "sd": own.std(ddof=1) if len(own) > 1 else np.nan,
                        "sets": counted[arm]["sets"],
                        "seeds": counted[arm]["seeds"],
                    }
                )
    table = pd.DataFrame(rows)
    asked = dict.fromkeys([*(axis.column for axis in as_in_table2()), *axes])
    absent = [axis for axis in asked if axis not in {axis.title for axis in known}]
    table.attrs["refused"] = [_refusal(study.subjects, axis) for axis in absent]
    table.attrs["warnings"] = list(study.warnings)
    return table


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`table2` for reading: a row per subgroup, a column "0.740 ± 0.025" per arm; keeps
    `.attrs["refused"]` and `["warnings"]`."""
    shown = table.assign(cell=[_cell(row) for row in table.itertuples()])
    shown["prevalence"] = ["n/a" if pd.isna(p) else f"{p:.2%}" for p in shown.prevalence]
    facts = shown.drop_duplicates("subgroup")[FACTS]
    cells = shown.pivot(index="subgroup", columns="arm", values="cell")[
        list(dict.fromkeys(shown.arm))
    ]
    result = facts.join(cells, on="subgroup").reset_index(drop=True)
    result.attrs |= {key: table.attrs.get(key, []) for key in ("refused", "warnings")}
    return result


def _refusal(subjects: pd.DataFrame, axis: str) -> str:
    if axis in subjects and len(values := subjects[axis].dropna()):
        return f"{axis}: all test subjects whose {axis} is known are {values.iloc[0]!r}: nothing to compare."
    return f"{axis}: unknown for all {len(subjects)} test subjects, so it has no rows."


def _cell(row: Any) -> str:
    if not pd.isna(row.balanced_accuracy):
        spread = f" ± {row.sd:.3f}" if not pd.isna(row.sd) else " (1 run)"
        return f"{row.balanced_accuracy:.3f}{spread}"
    return f"n/a (no {'subjects' if row.n == 0 else 'positives' if row.positives == 0 else 'negatives'})"
