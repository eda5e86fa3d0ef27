"""Tables as readers see them: a number and its interval in one cell, names in words.

Measured tables hold arms and axes as they are; here, and where a CSV file is written (`plain`),
they become text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cmrcls.fairness.disparities import MEASURES
from cmrcls.fairness.metrics import METRICS
from cmrcls.fairness.statistics import Ranking
from cmrcls.fairness.study import Arm, Table2
from cmrcls.fairness.subgroups import Crossing
from cmrstudy import paper
from cmrstudy.report import Shown, number

TABLE2_FACTS = ["subgroup", "n", "positives", "prevalence"]
OPERATING_NAMES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity reached",
    "ppv": "PPV",
    "npv": "NPV",
}


def plain(table: pd.DataFrame) -> pd.DataFrame:
    """A table as its CSV file has it: arms and axes by their names, among the columns, too."""
    return pd.DataFrame(
        {
            str(name): [str(v) if isinstance(v, Arm | Crossing) else v for v in column]
            if column.dtype == object
            else column
            for name, column in table.items()
        },
        index=table.index,
    )


def table2_shown(table: Table2, caption: str, *, beside_paper: bool = False) -> Shown:
    """Table 2 for readers: a row per subgroup, a column "0.740 ± 0.025" per arm.

    Args:
        table: the long table.
        caption: of it.
        beside_paper: whether the paper's column stands after each arm that it has too; n/a for
            subgroups it lacks.
    """
    rows = table.rows
    cells = rows.assign(cell=[_spread(row) for row in rows.itertuples()])
    cells["prevalence"] = ["n/a" if pd.isna(p) else f"{p:.2%}" for p in cells.prevalence]
    facts = cells.drop_duplicates("subgroup")[TABLE2_FACTS]
    wide = cells.pivot(index="subgroup", columns="arm", values="cell")
    arms = list(dict.fromkeys(cells.arm))
    frame = facts.join(wide[arms], on="subgroup").reset_index(drop=True)
    if beside_paper:
        frame, caption = _beside_paper(frame, arms), caption + "; beside it the paper's"
    notes = [*table.warnings, *(f"Left out: {reason}" for reason in table.refused)]
    return Shown(frame.rename(columns=str), caption, notes)


def _beside_paper(frame: pd.DataFrame, arms: Sequence[Arm]) -> pd.DataFrame:
    """Table 2 with the paper's columns."""
    printed = paper.table2()
    cells = {
        (row.subgroup, row.arm): f"{row.balanced_accuracy:.3f} ± {row.sd:.3f}"
        for row in _rows(printed)
    }
    prevalence = {row.subgroup: f"{row.prevalence:.2%}" for row in _rows(printed)}
    wide = frame[TABLE2_FACTS].copy()
    wide["prevalence (paper)"] = [prevalence.get(name, "n/a") for name in frame.subgroup]
    for arm in arms:
        wide[arm] = frame[arm]
        if (name := arm.paper_name) in paper.ARMS:
            wide[f"{arm} (paper)"] = [cells.get((row, name), "n/a") for row in frame.subgroup]
    return wide


def _spread(row: Any) -> str:
    """Mean and sd of balanced accuracy, or why there is none."""
    if not pd.isna(row.balanced_accuracy):
        spread = f" ± {row.sd:.3f}" if not pd.isna(row.sd) else " (1 run)"
        return f"{row.balanced_accuracy:.3f}{spread}"
    return (
        "n/a (no "
        f"{'subjects' if row.n == 0 else 'positives' if row.positives == 0 else 'negatives'})"
    )


def gap_cells(gaps: pd.DataFrame, *, baseline: Arm | None) -> pd.DataFrame:
    """Gaps in balanced accuracy per axis and arm, with the change from the `baseline` where there
    is one."""
    rows = []
    for row in _rows(gaps):
        cells = {
            "axis": row.axis.in_words,
            "arm": row.arm.name,
            "n": row.n,
            "subgroups": row.subgroups,
            "rests on": _count(row.fewest),
            "gap": number(row.corrected, row.low, row.high),
            "observed": number(row.difference),
            "equal subgroups (95th percentile)": _equal(row.expected, row.expected_95),
            "p": p_value(row.p),
            "lowest": _rate(row.lowest, row.lowest_rate),
            "highest": _rate(row.highest, row.highest_rate),
        }
        if baseline is not None:
            change = number(row.change, row.change_low, row.change_high, form="+.3f")
            surely = row.reduction if pd.notna(row.reduction_low) else float("nan")
            reduction = number(surely, row.reduction_low, row.reduction_high, form=".0%")
            cells |= (
                {"change": change, "reduction": reduction}
                if row.arm != baseline
                else {"change": "", "reduction": ""}
            )
        rows.append(cells | {"left out": row.left_out or "-"})
    return pd.DataFrame(rows)


def worst_cells(worst: pd.DataFrame, *, baseline: Arm | None) -> pd.DataFrame:
    """The worst subgroup per axis and arm."""
    rows = []
    for row in _rows(worst):
        cells = {
            "axis": row.axis.in_words,
            "arm": row.arm.name,
            "n": row.n,
            "subgroups": row.subgroups,
            "rests on": _count(row.fewest),
            "worst subgroup": "n/a" if pd.isna(row.worst) else row.worst,
            "its balanced accuracy": number(row.corrected, row.low, row.high),
            "observed": number(row.observed),
            "equal subgroups": number(row.expected),
            "p": p_value(row.p),
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
    table = facts.join(apart[list(OPERATING_NAMES)], on=["subgroup", "arm"])
    return plain(table.rename(columns=OPERATING_NAMES).reset_index(drop=True))


def comparison_cells(tests: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of two arms."""
    return pd.DataFrame(
        [
            {
                "measure": compared_in_words(row.measure, row.axis),
                "first": row.first.name,
                "second": row.second.name,
                "difference": number(row.difference, form="+.3f"),
                "better": str(row.better) or "-",
                "test": row.test,
                "unit": row.unit,
                "pairs": row.pairs or "-",
                "p": p_value(row.p),
                "p (Holm)": p_value(row.p_holm),
            }
            for row in _rows(tests)
        ]
    )


def parity_cells(parity: pd.DataFrame) -> pd.DataFrame:
    """Fairness measures per axis, measure and arm."""
    return pd.DataFrame(
        [
            {
                "axis": row.axis.in_words,
                "measure": MEASURES[row.measure].title,
                "arm": row.arm.name,
                "n": row.n,
                "rests on": _count(row.fewest),
                "difference": number(row.corrected, row.low, row.high),
                "observed": number(row.difference),
                "equal subgroups (95th percentile)": _equal(row.expected, row.expected_95),
                "p": p_value(row.p),
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
    wide = cells.pivot(index=["subgroup", "arm"], columns="metric", values="cell")
    titles = {name: METRICS[name].title for name in dict.fromkeys(cells.metric)}
    table = order.join(wide[list(titles)], on=["subgroup", "arm"]).rename(columns=titles)
    return plain(table.reset_index(drop=True))


def threshold_cells(thresholds: pd.DataFrame) -> pd.DataFrame:
    """Per arm the mean threshold and its range over runs and folds."""
    rows = []
    for arm, own in thresholds.groupby("arm", sort=False):
        low, mean, high = own.threshold.min(), own.threshold.mean(), own.threshold.max()
        rows.append(
            {
                "arm": arm.name,
                "chosen": len(own),
                "threshold (range)": f"{mean:.3f} ({low:.3f} to {high:.3f})",
                "healthy validation subjects (fewest)": int(own.negatives.min()),
            }
        )
    return pd.DataFrame(rows)


def rank_cells(ranking: Ranking) -> pd.DataFrame:
    """Mean ranks, a row: the test, then a column per arm."""
    about = {
        "measure": "overall",
        "seeds": ranking.blocks,
        "chi2": ranking.statistic,
        "p": ranking.p,
        "critical_difference": ranking.critical_difference,
    }
    return pd.DataFrame([about | {str(arm): rank for arm, rank in ranking.ranks.round(2).items()}])


def comparisons_plain(tests: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of two arms as their CSV file has them: `measure` and axis in one column of
    words."""
    crossed = [bool(axis.columns) for axis in tests.axis]
    pairs = zip(tests.measure, tests.axis, strict=True)
    table = plain(tests).assign(measure=[compared_in_words(*pair) for pair in pairs])
    if not any(crossed):
        return table.drop(columns="axis")
    return table.assign(axis=table.axis.where(crossed))


def compared_in_words(measure: str, axis: Crossing) -> str:
    """By what two arms are compared: "overall", "gap: Sex", "worst subgroup: Sex x BMI"."""
    if not axis.columns:
        return measure
    return f"{'worst subgroup' if measure == 'worst' else measure}: {axis.in_words}"


def _rows(table: pd.DataFrame) -> list[Any]:
    return list(table.itertuples())


def _rate(name: str | None, rate: float) -> str:
    return "n/a" if pd.isna(rate) else f"{name} {rate:.3f}"


def _name(name: str | None) -> str:
    return "n/a" if pd.isna(name) else str(name)


def _equal(mean: float, most: float) -> str:
    return "n/a" if pd.isna(mean) else f"{mean:.3f} ({most:.3f})"


def p_value(value: float) -> str:
    """A p as text."""
    return "n/a" if pd.isna(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{int(value):,}"
