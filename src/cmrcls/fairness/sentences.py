"""What the report says of fairness in sentences: answers, and what readers must know of the
runs."""

from __future__ import annotations

import pandas as pd

from cmrcls.fairness.display.tables import p_value
from cmrcls.fairness.grid import Grid
from cmrcls.fairness.levels import MIN_FOLDS, MIN_FREEDOM, chance_given, levels_of
from cmrcls.fairness.study import Arm, Study, replicate_counts
from cmrstudy.report import number

PAPER_SEEDS = 8


def factors_sentence(of: Grid) -> str:
    """What was varied, and how an arm's name says it."""
    varied = "; ".join(f"{title} ({', '.join(values)})" for title, values in of.factors.items())
    return (
        f"What the runs differ in: {varied}. An arm is named by what differs from the "
        "experiment's own values."
    )


def accuracy_answers(rows: pd.DataFrame, *, baseline: Arm | None) -> list[str]:
    """Sentences on balanced accuracy overall: what each arm reaches, and whether it differs from
    the baseline beyond chance."""
    whole = rows[(rows.metric == "balanced_accuracy") & (rows.crossed == 0)]
    reached = ", ".join(
        f"{row.arm} {number(row.mean, row.low, row.high)}" for row in whole.itertuples()
    )
    first = whole.iloc[0]
    answers = [f"Balanced accuracy: {reached}; n = {first.n:,}, {first.positives:,} diseased."]
    for row in whole[whole.arm != baseline].itertuples():
        if pd.notna(row.change_low):
            surely = "more than" if row.change_low > 0 or row.change_high < 0 else "within"
            change = number(row.change, row.change_low, row.change_high, form="+.3f")
            answers.append(
                f"{row.arm} against {baseline}: {change}, {surely} the chance of {row.holds}, "
                f"given {row.given}."
            )
    return answers


def gap_answers(gaps: pd.DataFrame) -> list[str]:
    """A sentence per axis on its corrected gap in each arm; one on those that rest on too few
    subjects for an interval."""
    answers, few = [], []
    for axis, own in gaps[gaps.crossed < 2].groupby("axis", sort=False):
        if own.low.isna().all():
            few.append(f"{axis.in_words} ({own.fewest.min()})")
            continue
        corrected = ", ".join(
            f"{row.arm} {number(row.corrected, row.low, row.high)} (p {p_value(row.p)})"
            for row in own.itertuples()
        )
        answers.append(f"{axis.in_words}, gap between subgroups: {corrected}.")
    if few:
        answers.append(f"Too few subjects to tell a gap: {', '.join(few)}.")
    return answers


def without_interval(gaps: pd.DataFrame) -> list[str]:
    """A sentence per reason why a gap has no interval, with the axes it concerns."""
    noted = gaps[gaps.note.fillna("") != ""]
    return [
        f"No interval: {', '.join(dict.fromkeys(axis.in_words for axis in own.axis))}: {reason}."
        for reason, own in noted.groupby("note", sort=False)
    ]


def what_varied(study: Study) -> list[str]:
    """What readers must know of the levels at which runs were repeated."""
    warnings = []
    counted = {arm: replicate_counts(study, arm) for arm in study.arms}
    held = {arm: {level.name for level in levels_of(study, arm)} for arm in study.arms}
    if min(counts["seeds"] for counts in counted.values()) < PAPER_SEEDS:
        counts = ", ".join(f"{arm} {counts['seeds']}" for arm, counts in counted.items())
        warnings.append(
            f"Few seeds (the paper has {PAPER_SEEDS}): {counts}. Intervals are wider for it."
        )
    if lone := [arm for arm in study.arms if not held[arm]]:
        warnings.append(
            f"Fewer than {MIN_FREEDOM + 1} seeds in {', '.join(map(str, lone))}: intervals hold "
            "the chance of who is in the test set, not that of training."
        )
    if seeds := [arm for arm in study.arms if held[arm] == {"seed"} and counted[arm]["sets"]]:
        known = "; ".join(dict.fromkeys(chance_given(study, arm) for arm in seeds))
        warnings.append(
            f"Only classifier seeds vary in {', '.join(map(str, seeds))}: intervals and tests are "
            f"conditional on {known}. Another generator may move these arms by more than the "
            "intervals say. With three generators (or three sets of one) that chance is in the "
            "intervals: docs/statistics.md."
        )
    if study.folds is None or study.folds.max() + 1 < MIN_FOLDS:
        warnings.append(
            "One split: what another division into training and test subjects would give is not "
            "in any interval; fold=0,1,2,3,4 with -m has it."
        )
    return warnings
