"""Who is the classifier good for: balanced accuracy per subgroup, arm and seed, and the gaps between subgroups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.comparable import RUN, Predictions, comparable
from cmrdata.cohort import AXES

SUBGROUPS = {  # rows in the order of the paper's Table 2
    "overall": {"overall": "Overall"},
    "sex": {"F": "Female", "M": "Male"},
    "bmi_band": {"normal": "Normal BMI", "overweight": "Overweight", "obese": "Obese"},
    "age_band": {"<60": "Age < 60", "60-70": "Age 60-70", "70+": "Age > 70"},
}
assert all(tuple(SUBGROUPS[axis]) == bands for axis, bands in AXES.items()), "a band has no row"


def table2(
    predictions: Predictions, *, axes: Sequence[str] = (), subjects: Collection[str] | None = None
) -> pd.DataFrame:
    """The paper's Table 2, one row per subgroup and arm: mean and sd (ddof 1) of balanced accuracy over seeds.

    `predictions`: of one disease, as `comparable.read` gives them. Only the test split is used; folds are pooled. `axes`
    names further columns whose values are subgroups; `subjects` as in `comparable.comparable`.
    Columns out: subgroup, axis, n, positives, prevalence, arm, balanced_accuracy, sd, seeds. A subgroup without positives
    or negatives is NaN. `.attrs["refused"]` says in a sentence each which axes can't be compared, `.attrs["warnings"]`
    which runs are left out or missing. Raises ValueError when runs can't be compared.
    """
    return accuracies(comparable(predictions, axes=axes, subjects=subjects), axes=axes)


def accuracies(test: pd.DataFrame, *, axes: Sequence[str] = ()) -> pd.DataFrame:
    """`table2` of test rows that `comparable.comparable` has found comparable."""
    test = test.assign(overall="overall")
    run = test.groupby(RUN, sort=False, observed=True).ngroup()
    arms = test.arm[~run.duplicated()].to_numpy()  # by run
    wanted = [*SUBGROUPS, *(axis for axis in axes if axis not in SUBGROUPS)]
    known = [axis for axis in wanted if axis == "overall" or (axis in test and test[axis].dropna().nunique() > 1)]
    rows = []
    for axis in known:
        bands = bands_of(test, axis)
        scores = _scores(test, axis=axis, run=run).reindex(list(bands))
        facts = test[run == 0].groupby(axis).label.agg(["size", "sum"]).reindex(list(bands), fill_value=0)
        for band, name in bands.items():
            n, positives = int(facts["size"][band]), int(facts["sum"][band])
            for arm in dict.fromkeys(arms):
                found = scores.loc[band, arms == arm].astype(float)
                rows.append({
                    "subgroup": name, "axis": axis, "n": n, "positives": positives,
                    "prevalence": positives / n if n else np.nan, "arm": arm,
                    "balanced_accuracy": found.mean(), "sd": found.std(ddof=1), "seeds": len(found),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    table.attrs["refused"] = [_refusal(test[run == 0], axis) for axis in wanted if axis not in known]
    table.attrs["warnings"] = test.attrs["warnings"]
    return table


def bands_of(subjects: pd.DataFrame, axis: str) -> dict[Any, str]:
    """The subgroups of an axis in order: value of the column -> name for readers; a further axis has its values, sorted."""
    if axis in SUBGROUPS:
        return dict(SUBGROUPS[axis])
    return {value: f"{axis.capitalize()} {value}" for value in sorted(subjects[axis].dropna().unique())}


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`table2` for reading: a row per subgroup, a column "0.740 ± 0.025" per arm; keeps `.attrs["refused"]` and `["warnings"]`."""
    shown = table.assign(cell=[_cell(row) for row in table.itertuples()])
    shown["prevalence"] = ["n/a" if pd.isna(p) else f"{p:.2%}" for p in shown.prevalence]
    facts = shown.drop_duplicates("subgroup")[["subgroup", "n", "positives", "prevalence"]]
    cells = shown.pivot(index="subgroup", columns="arm", values="cell")[list(dict.fromkeys(shown.arm))]
    result = facts.join(cells, on="subgroup").reset_index(drop=True)
    result.attrs |= {key: table.attrs.get(key, []) for key in ("refused", "warnings")}
    return result


def _scores(test: pd.DataFrame, *, axis: str, run: pd.Series) -> pd.DataFrame:
    """Balanced accuracy, bands x runs: the mean of both classes' recall, NaN without either; who is in no band counts overall only."""
    right = (test.predicted == test.label).groupby([test[axis], run, test.label], observed=True).mean()
    return right.unstack("label").reindex(columns=[0, 1]).mean(axis=1, skipna=False).unstack()


def _refusal(subjects: pd.DataFrame, axis: str) -> str:
    if axis in subjects and len(values := subjects[axis].dropna()):
        return f"{axis}: all test subjects whose {axis} is known are {values.iloc[0]!r}: nothing to compare."
    return f"{axis}: unknown for all {len(subjects)} test subjects, so it has no rows."


def _cell(row: Any) -> str:
    if not pd.isna(row.balanced_accuracy):
        spread = f" ± {row.sd:.3f}" if row.seeds > 1 else " (1 seed)"
        return f"{row.balanced_accuracy:.3f}{spread}"
    return f"n/a (no {'subjects' if row.n == 0 else 'positives' if row.positives == 0 else 'negatives'})"
