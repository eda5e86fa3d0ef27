"""The answers at the top of the report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness.sentences import (
    PAPER_SEEDS,
    accuracy_answers,
    factors_sentence,
    gap_answers,
    what_varied,
    without_interval,
)
from cmrcls.fairness.subgroups import Crossing
from support.fake_runs import (
    arm_of,
    study_of,
)


def test_the_answers_call_a_difference_more_than_chance_only_where_its_interval_leaves_zero():
    row = {
        "metric": "balanced_accuracy",
        "axis": Crossing(),
        "crossed": 0,
        "n": 1200,
        "positives": 53,
        "mean": 0.7,
        "low": 0.6,
        "holds": "subjects",
        "given": "one split, these 2 seeds",
    }
    table = pd.DataFrame(
        [
            {
                **row,
                "arm": arm_of("Real"),
                "high": 0.8,
                "change": np.nan,
                "change_low": np.nan,
                "change_high": np.nan,
            },
            {
                **row,
                "arm": arm_of("Real + 9", 1),
                "high": 0.8,
                "change": 0.1,
                "change_low": 0.01,
                "change_high": 0.2,
            },
            {
                **row,
                "arm": arm_of("Synthetic", 2),
                "high": 0.8,
                "change": 0.1,
                "change_low": -0.01,
                "change_high": 0.2,
            },
        ]
    )
    answers = accuracy_answers(table, baseline=arm_of("Real"))
    chance = "the chance of subjects, given one split, these 2 seeds."
    assert answers[0] == (
        "Balanced accuracy: Real 0.700 [0.600, 0.800], Real + 9 0.700 [0.600, 0.800], "
        "Synthetic 0.700 [0.600, 0.800]; n = 1,200, 53 diseased."
    )
    assert answers[1:] == [
        f"Real + 9 against Real: +0.100 [+0.010, +0.200], more than {chance}",
        f"Synthetic against Real: +0.100 [-0.010, +0.200], within {chance}",
    ]


def gap(axis: tuple[str, ...], arm: str, **changed: Any) -> dict[str, Any]:
    usual = {"axis": Crossing(axis), "crossed": len(axis), "arm": arm_of(arm), "corrected": 0.1}
    return usual | {"low": 0.05, "high": 0.2, "p": 0.002, "fewest": 40, "note": "", **changed}


def test_the_answers_tell_corrected_gaps_and_how_likely_equal_subgroups_are():
    few = {"low": np.nan, "high": np.nan, "fewest": 12, "note": "rests on 12"}
    rows = [
        gap(("sex",), "Real"),
        gap(("sex",), "Synthetic", **few),  # of one arm
        gap(("age_band",), "Real", **few),
        gap(("age_band",), "Synthetic", **few | {"fewest": 9}),
        gap(("sex", "age_band"), "Real"),  # crossed ones are in a table
        gap(("bmi_band",), "Real", note=np.nan),
    ]
    gaps = pd.DataFrame(rows)
    assert gap_answers(gaps) == [
        "Sex, gap between subgroups: Real 0.100 [0.050, 0.200] (p 0.002), Synthetic 0.100 "
        "(p 0.002).",
        "BMI, gap between subgroups: Real 0.100 [0.050, 0.200] (p 0.002).",
        "Too few subjects to tell a gap: Age (9).",
    ]
    assert gap_answers(gaps[:1]) == [
        "Sex, gap between subgroups: Real 0.100 [0.050, 0.200] (p 0.002)."
    ]
    assert without_interval(gaps) == ["No interval: Sex, Age: rests on 12."]


def seeds(arm: str, count: int, *, of_set: str = "") -> list[tuple[str, str, str, str]]:
    return [(arm, of_set, of_set, str(k)) for k in range(count)]


def told(*arms: list[tuple[str, str, str, str]], folds: int = 1) -> list[str]:
    rows = [row for arm in arms for row in arm]
    columns = {"fold": np.arange(20) % folds} if folds > 1 else {}
    label = np.array([0, 1] * 10)
    return what_varied(study_of(np.zeros((20, len(rows)), int), rows, label=label, **columns))


def test_what_was_not_repeated_is_said():
    enough = seeds("Real", PAPER_SEEDS)
    [split] = told(enough)
    assert split.startswith("One split:")
    assert told(enough, folds=3) == [] and told(enough, folds=2) == [split]
    fewer = told(seeds("Real", PAPER_SEEDS - 1), folds=3)
    assert fewer == [
        f"Few seeds (the paper has {PAPER_SEEDS}): Real {PAPER_SEEDS - 1}. Intervals are wider "
        "for it."
    ]
    lone = told(enough, seeds("Synthetic", 2, of_set="0"), folds=3)
    assert lone[0].startswith(f"Few seeds (the paper has {PAPER_SEEDS}): Real {PAPER_SEEDS}, Syn")
    assert lone[1] == (
        "Fewer than 3 seeds in Synthetic: intervals hold the chance of who is in the test set, not "
        "that of training."
    )
    [alone] = told(enough, seeds("Synthetic", PAPER_SEEDS, of_set="0"), folds=3)
    assert alone.startswith(
        "Only classifier seeds vary in Synthetic: intervals and tests are conditional on one "
        "division into 3 folds, one generator, one set. Another generator"
    )


def test_what_the_runs_differ_in_is_said_with_its_values():
    of: Any = SimpleNamespace(factors={"lr": ["0.1", "1"], "budget": ["steps"]})
    assert factors_sentence(of).startswith("What the runs differ in: lr (0.1, 1); budget (steps).")
