"""Tables of cmrcls.fairness.disparities as readers see them: a number and its interval in one cell, names in
words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cmrcls.fairness.disparities import MEASURES
from cmrcls.fairness.metrics import METRICS
from cmrdata.axes import title_of
from cmrstudy import paper
from cmrstudy.report import number

MEASURE_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "demographic_parity": "demographic parity",
    "equal_opportunity": "equal opportunity",
    "equalised_odds": "equalised odds",
}
assert set(MEASURE_NAMES) == set(MEASURES), "a measure has no name"


def beside(ours: pd.DataFrame) -> pd.DataFrame:
    """`wide` cells with the paper's column after each arm it has; n/a for subgroups it lacks."""
    printed = paper.table2()
    cells = {
        (row.subgroup, row.arm): f"{row.balanced_accuracy:.3f} ± {row.sd:.3f}"
        for row in _rows(printed)
    }
    prevalence = {row.subgroup: f"{row.prevalence:.2%}" for row in _rows(printed)}
    result = ours[["subgroup", "n", "positives", "prevalence"]].copy()
    result["prevalence (paper)"] = [prevalence.get(name, "n/a") for name in ours.subgroup]
    for arm in ours.columns.drop(["subgroup", "n", "positives", "prevalence"]):
        result[arm] = ours[arm]
        if arm in paper.ARMS:
            result[f"{arm} (paper)"] = [cells.get((name, arm), "n/a") for name in ours.subgroup]
    result.attrs |= ours.attrs
    return result


def gap_cells(gaps: pd.DataFrame, *, baseline: str | None) -> pd.DataFrame:
    """Gaps in balanced accuracy per axis and arm, with the change from the `baseline` where there
    is one."""
    rows = []
    for row in _rows(gaps):
        cells = {
            "axis": axis_name(row.axis),
            "arm": row.arm,
            "n": row.n,
            "subgroups": row.subgroups,
            "rests on": _count(row.fewest),
            "gap": number(row.corrected, row.low, row.high),
            "observed": number(row.difference),
            "equal subgroups (95th percentile)": _equal(row.expected, row.expected_95),
            "p": _p(row.p),
            "lowest": _rate(row.lowest, row.lowest_rate),
            "highest": _rate(row.highest, row.highest_rate),
        }
        if baseline is not None:
            change = number(row.change, row.change_low, row.change_high, form="+.3f")
            told = row.reduction if pd.notna(row.reduction_low) else float("nan")
            reduction = number(told, row.reduction_low, row.reduction_high, form=".0%")
            cells |= (
                {"change": change, "reduction": reduction}
                if row.arm != baseline
                else {"change": "", "reduction": ""}
            )
        rows.append(cells | {"left out": row.left_out or "-"})
    return pd.DataFrame(rows)


def worst_cells(worst: pd.DataFrame, *, baseline: str | None) -> pd.DataFrame:
    """The worst subgroup per axis and arm."""
    rows = []
    for row in _rows(worst):
        cells = {
            "axis": axis_name(row.axis),
            "arm": row.arm,
            "n": row.n,
            "subgroups": row.subgroups,
            "rests on": _count(row.fewest),
            "worst subgroup": "n/a" if pd.isna(row.worst) else row.worst,
            "its balanced accuracy": number(row.corrected, row.low, row.high),
            "observed": number(row.observed),
            "equal subgroups": number(row.expected),
            "p": _p(row.p),
        }
        if baseline is not None:
            change = number(row.change, row.change_low, row.change_high, form="+.3f")
            cells["change"] = change if row.arm != baseline else ""
        rows.append(cells)
    return pd.DataFrame(rows)


def operating_cells(table: pd.DataFrame) -> pd.DataFrame:
    """A row per subgroup of a single axis and arm at a threshold for a specificity."""
    renamed = table.rename(columns={"mean": "mean_"})
    cells = renamed.assign(cell=[number(row.mean_, row.low, row.high) for row in _rows(renamed)])
    facts = cells.drop_duplicates(["subgroup", "arm"])[["subgroup", "arm", "n", "positives"]]
    apart = cells.pivot(index=["subgroup", "arm"], columns="metric", values="cell")
    names = {
        "sensitivity": "sensitivity",
        "specificity": "specificity reached",
        "ppv": "PPV",
        "npv": "NPV",
    }
    return (
        facts.join(apart[list(names)], on=["subgroup", "arm"])
        .rename(columns=names)
        .reset_index(drop=True)
    )


def test_cells(tests: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of two arms."""
    return pd.DataFrame(
        [
            {
                "measure": row.measure,
                "first": row.first,
                "second": row.second,
                "difference": number(row.difference, form="+.3f"),
                "better": row.better or "-",
                "test": row.test,
                "unit": row.unit,
                "pairs": row.pairs or "-",
                "p": _p(row.p),
                "p (Holm)": _p(row.p_holm),
            }
            for row in _rows(tests)
        ]
    )


def accuracy_answers(rows: pd.DataFrame, *, baseline: str | None) -> list[str]:
    """Sentences on balanced accuracy overall: what each arm reaches, and whether it differs from
    the baseline beyond chance."""
    whole = rows[(rows.metric == "balanced_accuracy") & (rows.axis == "overall")]
    reached = ", ".join(f"{row.arm} {number(row.mean, row.low, row.high)}" for row in _rows(whole))
    first = whole.iloc[0]
    answers = [f"Balanced accuracy: {reached}; n = {first.n:,}, {first.positives:,} diseased."]
    for row in _rows(whole[whole.arm != baseline]):
        if pd.notna(row.change_low):
            surely = "more than" if row.change_low > 0 or row.change_high < 0 else "within"
            change = number(row.change, row.change_low, row.change_high, form="+.3f")
            answers.append(
                f"{row.arm} against {baseline}: {change}, {surely} the chance of {row.holds}, given {row.given}."
            )
    return answers


def gap_answers(gaps: pd.DataFrame) -> list[str]:
    """A sentence per axis on its corrected gap in each arm; one on those that rest on too few
    subjects for an interval."""
    answers, few = [], []
    for axis, part in gaps[gaps.crossed < 2].groupby("axis", sort=False):
        if part.low.isna().all():
            few.append(f"{axis_name(str(axis))} ({part.fewest.min()})")
            continue
        told = ", ".join(
            f"{row.arm} {number(row.corrected, row.low, row.high)} (p {_p(row.p)})"
            for row in _rows(part)
        )
        answers.append(f"{axis_name(str(axis))}, gap between subgroups: {told}.")
    if few:
        answers.append(f"Too few subjects to tell a gap: {', '.join(few)}.")
    return answers


def parity_cells(parity: pd.DataFrame) -> pd.DataFrame:
    """Fairness measures per axis, measure and arm."""
    return pd.DataFrame(
        [
            {
                "axis": axis_name(row.axis),
                "measure": MEASURE_NAMES[row.measure],
                "arm": row.arm,
                "n": row.n,
                "rests on": _count(row.fewest),
                "difference": number(row.corrected, row.low, row.high),
                "observed": number(row.difference),
                "equal subgroups (95th percentile)": _equal(row.expected, row.expected_95),
                "p": _p(row.p),
                "ratio": number(row.ratio_corrected),
                "ratio observed": number(row.ratio),
                "lowest": _name(row.lowest),
                "highest": _name(row.highest),
            }
            for row in _rows(parity)
        ]
    )


def metric_cells(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per subgroup of a single axis and arm, a column per metric."""
    single = rows[rows.crossed < 2]
    cells = single.assign(
        cell=[
            number(row.mean_, row.low, row.high)
            for row in _rows(single.rename(columns={"mean": "mean_"}))
        ]
    )
    facts = ["subgroup", "arm", "n", "positives", "seeds"]
    order = cells.drop_duplicates(["subgroup", "arm"])[facts]
    wide = cells.pivot(index=["subgroup", "arm"], columns="metric", values="cell")[list(METRICS)]
    return order.join(wide, on=["subgroup", "arm"]).rename(columns=METRICS).reset_index(drop=True)


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def reasons(gaps: pd.DataFrame) -> list[str]:
    """A sentence per reason why a gap has no interval, with the axes it concerns."""
    noted = gaps[gaps.note.fillna("") != ""]
    return [
        f"No interval: {', '.join(dict.fromkeys(axis_name(axis) for axis in part.axis))}: {reason}."
        for reason, part in noted.groupby("note", sort=False)
    ]


def axis_name(axis: str) -> str:
    """ "sex x bmi_band" -> "Sex x BMI"."""
    return " x ".join(title_of(part) for part in axis.split(" x "))


def measure_name(name: str) -> str:
    """ "gap sex" -> "gap: Sex"."""
    kind, _, axis = name.partition(" ")
    return (
        f"{kind} subgroup: {axis_name(axis)}"
        if kind == "worst"
        else f"{kind}: {axis_name(axis)}"
        if axis
        else kind
    )


def _rate(name: str | None, rate: float) -> str:
    return "n/a" if pd.isna(rate) else f"{name} {rate:.3f}"


def _name(name: str | None) -> str:
    return "n/a" if pd.isna(name) else str(name)


def _equal(mean: float, most: float) -> str:
    return "n/a" if pd.isna(mean) else f"{mean:.3f} ({most:.3f})"


def _p(value: float) -> str:
    return "n/a" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{int(value):,}"
