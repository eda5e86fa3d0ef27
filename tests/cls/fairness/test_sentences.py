"""The answers at the top of the report."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrcls.fairness.disparities import measure
from cmrcls.fairness.sentences import accuracy_answers, gap_answers
from cmrcls.fairness.subgroups import Crossing
from support.fake_runs import (
    arm_of,
    two_sexes,
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
    told, chance = (
        accuracy_answers(table, baseline=arm_of("Real")),
        "the chance of subjects, given one split, these 2 seeds.",
    )
    assert told[0] == (
        "Balanced accuracy: Real 0.700 [0.600, 0.800], Real + 9 0.700 [0.600, 0.800], "
        "Synthetic 0.700 [0.600, 0.800]; n = 1,200, 53 diseased."
    )
    assert told[1:] == [
        f"Real + 9 against Real: +0.100 [+0.010, +0.200], more than {chance}",
        f"Synthetic against Real: +0.100 [-0.010, +0.200], within {chance}",
    ]


def test_the_answers_tell_corrected_gaps_and_how_likely_equal_subgroups_are():
    found = measure(two_sexes(), resamples=100, permutations=400)
    gaps = found.disparities[found.disparities.measure == "balanced_accuracy"]
    (told,) = gap_answers(gaps)
    assert told.startswith("Sex, gap between subgroups: Real 0.") and "(p 0.002)" in told
