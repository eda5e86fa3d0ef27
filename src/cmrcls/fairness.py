"""Who is the classifier good for: balanced accuracy per subgroup, arm and seed, and the gaps between subgroups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame

from cmrdata.cohort import AXES, known_axes

SUBGROUPS = {  # rows in the order of the paper's Table 2
    "overall": {"overall": "Overall"},
    "sex": {"F": "Female", "M": "Male"},
    "bmi_band": {"normal": "Normal BMI", "overweight": "Overweight", "obese": "Obese"},
    "age_band": {"<60": "Age < 60", "60-70": "Age 60-70", "70+": "Age > 70"},
}
assert all(tuple(SUBGROUPS[axis]) == bands for axis, bands in AXES.items()), "a band has no row"

RUN = ["arm", "seed"]
COLUMNS = (*RUN, "subject", "split", "label", "probability")
THRESHOLD = 0.5  # decision = the likelier class, as in training


def balanced_accuracy(label: np.ndarray, predicted: np.ndarray) -> float:
    """(TPR + TNR) / 2 (paper eq. 1); NaN when `label` lacks a class, where sklearn would quietly average one recall."""
    label, predicted = np.asarray(label), np.asarray(predicted)
    recalls = [np.mean(predicted[label == c] == c) if (label == c).any() else np.nan for c in (0, 1)]
    return float(np.mean(recalls))


def table2(predictions: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 2, one row per subgroup and arm: mean and sd (ddof 1) of balanced accuracy over seeds.

    `predictions`: the runs concatenated; columns arm, seed, subject, split, label, probability, and sex, age_band,
    bmi_band where known. Only the test split is used. Columns out: subgroup, axis, n, positives, prevalence, arm,
    balanced_accuracy, sd, seeds. A subgroup without positives or negatives is NaN. `.attrs["refused"]` says
    in a sentence each which axes can't be compared. Raises ValueError when runs can't be compared.
    """
    test = _comparable(predictions).assign(overall="overall")
    run = test.groupby(RUN, sort=False, observed=True).ngroup()
    arms = test.arm[~run.duplicated()].to_numpy()  # by run
    known = [axis for axis in SUBGROUPS if axis in ("overall", *known_axes(test))]
    rows = []
    for axis in known:
        scores = _scores(test, axis=axis, run=run).reindex(list(SUBGROUPS[axis]))
        facts = test[run == 0].groupby(axis).label.agg(["size", "sum"]).reindex(list(SUBGROUPS[axis]), fill_value=0)
        for band, name in SUBGROUPS[axis].items():
            n, positives = int(facts["size"][band]), int(facts["sum"][band])
            for arm in dict.fromkeys(arms):
                found = scores.loc[band, arms == arm].astype(float)
                rows.append({
                    "subgroup": name, "axis": axis, "n": n, "positives": positives,
                    "prevalence": positives / n if n else np.nan, "arm": arm,
                    "balanced_accuracy": found.mean(), "sd": found.std(ddof=1), "seeds": len(found),
                })  # fmt: skip
    table = pd.DataFrame(rows)
    table.attrs["refused"] = [_refusal(test[run == 0], axis) for axis in SUBGROUPS if axis not in known]
    return table


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """`table2` for reading: a row per subgroup, a column "0.740 ± 0.025" per arm; keeps `.attrs["refused"]`."""
    shown = table.assign(cell=[_cell(row) for row in table.itertuples()])
    shown["prevalence"] = ["n/a" if pd.isna(p) else f"{p:.2%}" for p in shown.prevalence]
    facts = shown.drop_duplicates("subgroup")[["subgroup", "n", "positives", "prevalence"]]
    cells = shown.pivot(index="subgroup", columns="arm", values="cell")[list(dict.fromkeys(shown.arm))]
    result = facts.join(cells, on="subgroup").reset_index(drop=True)
    result.attrs["refused"] = table.attrs.get("refused", [])
    return result


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Per axis and arm of `table2`: largest minus smallest subgroup mean, and the worst subgroup.

    Columns: axis, arm, gap, worst, worst_balanced_accuracy, best, best_balanced_accuracy, and left_out, the subgroups
    whose balanced accuracy is undefined. Fewer than two defined subgroups give a NaN gap.
    """
    rows = []
    for (axis, arm), part in table[table.axis != "overall"].groupby(["axis", "arm"], sort=False):
        scores = part.set_index("subgroup").balanced_accuracy
        defined = scores.dropna()
        worst, best = (defined.idxmin(), defined.idxmax()) if len(defined) else (None, None)
        rows.append({
            "axis": axis, "arm": arm, "gap": defined.max() - defined.min() if len(defined) > 1 else np.nan,
            "worst": worst, "worst_balanced_accuracy": defined.min(),
            "best": best, "best_balanced_accuracy": defined.max(),
            "left_out": ", ".join(scores.index[scores.isna()]),
        })  # fmt: skip
    names = ["axis", "arm", "gap", "worst", "worst_balanced_accuracy", "best", "best_balanced_accuracy", "left_out"]
    return pd.DataFrame(rows, columns=names)


def _scores(test: pd.DataFrame, *, axis: str, run: pd.Series) -> pd.DataFrame:
    """Balanced accuracy, bands x runs; subjects whose band is unknown count only overall."""
    known = test[axis].notna()
    frame = MetricFrame(
        metrics=balanced_accuracy,
        y_true=test.label[known].to_numpy(int),
        y_pred=(test.probability[known] > THRESHOLD).to_numpy(int),
        sensitive_features=test[axis][known].astype(object).rename("band"),
        control_features=run[known].rename("run"),
    )
    return frame.by_group.unstack("run")


def _comparable(predictions: pd.DataFrame) -> pd.DataFrame:
    """The test rows, refused unless every run predicts the same subjects with the same labels and attributes."""
    if absent := [column for column in COLUMNS if column not in predictions]:
        raise ValueError(f"predictions lack the columns {absent}; concatenate the runs' tables and add arm and seed")
    test = predictions[predictions.split == "test"].reset_index(drop=True)
    if test.empty:
        raise ValueError(f"none of the {len(predictions)} predictions is of the test split; run predict on it first")
    if not (odd := test[~test.probability.between(0, 1)]).empty:
        raise ValueError(
            f"{_named(odd.iloc[0])}: probability of subject {odd.subject.iloc[0]} is {odd.probability.iloc[0]} "
            f"({len(odd)} such rows); rerun that run, it diverged or its table is damaged"
        )
    if (twice := test.duplicated([*RUN, "subject"])).any():
        row = test[twice].iloc[0]
        raise ValueError(f"{_named(row)}: subject {row.subject} is predicted twice; give each run's table once")
    if not (odd := test[~test.label.isin((0, 1))]).empty:
        raise ValueError(f"subject {odd.subject.iloc[0]}: label is {odd.label.iloc[0]}; a test subject has 0 or 1")
    facts = ["label", *(axis for axis in AXES if axis in test)]
    runs = [part.set_index("subject") for _, part in test.groupby(RUN, sort=False, observed=True, dropna=False)]
    first = runs[0]
    for other in runs[1:]:
        if len(differing := first.index.symmetric_difference(other.index)):
            raise ValueError(
                f"{_named(other.iloc[0])} and {_named(first.iloc[0])} have different test splits: {len(differing)} "
                f"subjects are in one only, first {differing[0]}; rerun one with the other's cohort settings and seed"
            )
        theirs, ours = (run.loc[first.index, facts].astype(object).fillna("unknown") for run in (other, first))
        where, which = np.nonzero((theirs != ours).to_numpy())
        if len(where):
            subject, column = theirs.index[where[0]], facts[which[0]]
            raise ValueError(
                f"subject {subject}: {column} is {theirs.loc[subject, column]} in {_named(other.iloc[0])} but "
                f"{ours.loc[subject, column]} in {_named(first.iloc[0])}; rerun both from the same cohort"
            )
    if first.label.nunique() < 2:
        raise ValueError(
            f"all {len(first)} test subjects have label {int(first.label.iloc[0])}: balanced accuracy is undefined; "
            "choose a cohort or a split with cases and controls in the test set"
        )
    return test


def _named(row: pd.Series) -> str:
    return f"arm {row.arm!r} seed {row.seed}"


def _refusal(subjects: pd.DataFrame, axis: str) -> str:
    if axis in subjects and len(values := subjects[axis].dropna()):
        return f"{axis}: all test subjects whose {axis} is known are {values.iloc[0]!r}: nothing to compare."
    return f"{axis}: unknown for all {len(subjects)} test subjects, so it has no rows."


def _cell(row: Any) -> str:
    if not pd.isna(row.balanced_accuracy):
        spread = f" ± {row.sd:.3f}" if row.seeds > 1 else " (1 seed)"
        return f"{row.balanced_accuracy:.3f}{spread}"
    return f"n/a (no {'subjects' if row.n == 0 else 'positives' if row.positives == 0 else 'negatives'})"
