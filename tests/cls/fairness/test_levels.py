"""What an arm's intervals hold, and what they are conditional on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.levels import arm_levels, chance_given, chance_held, conditions_in_words
from cmrcls.fairness.study import Study, replicate_counts
from support.fake_runs import runs, studies, study_of


def arm(
    *, generators=1, sets=1, seeds=1, name="x", folds: int | None = None, crossed=True
) -> Study:
    """An arm of so many generators, sets of each and seeds of each; other seeds in every set if not
    `crossed`."""
    rows = [
        (name, str(g), str(s), str(k if crossed else k + seeds * (s + sets * g)))
        for g in range(generators)
        for s in range(sets)
        for k in range(seeds)
    ]
    label = np.array([0, 1] * 10)
    columns = {} if folds is None else {"fold": np.arange(20) % folds}
    return study_of(np.zeros((20, len(rows)), int), rows, label=label, **columns)


@pytest.mark.parametrize(
    ("sizes", "held", "known"),
    [
        ({"seeds": 8}, "subjects, seeds (8)", "one split, one generator, one set"),
        ({"seeds": 2}, "subjects", "one split, one generator, one set, these 2 seeds"),
        ({"seeds": 1}, "subjects", "one split, one generator, one set, one seed"),
        ({"sets": 2, "seeds": 8}, "subjects, seeds (8)", "one split, one generator, these 2 sets"),
        (
            {"sets": 3, "seeds": 2, "crossed": False},
            "subjects, sets (3)",
            "one split, one generator",
        ),
        (
            {"generators": 2, "seeds": 8},
            "subjects, seeds (8)",
            "one split, these 2 generators, these 2 sets",
        ),
        ({"generators": 3, "seeds": 1}, "subjects, generators (3)", "one split"),
        ({"generators": 3, "seeds": 4}, "subjects, generators (3), seeds (4)", "one split"),
        ({"generators": 3, "seeds": 4, "crossed": False}, "subjects, generators (3)", "one split"),
        (
            {"generators": 2, "sets": 2, "seeds": 1},
            "subjects, sets (4)",
            "one split, these 2 generators",
        ),
        (
            {"seeds": 4, "folds": 5},
            "subjects, seeds (4), folds (5)",
            "one division into 5 folds, one generator, one set",
        ),
        (
            {"seeds": 4, "folds": 3},
            "subjects, seeds (4), folds (3)",
            "one division into 3 folds, one generator, one set",
        ),
        ({"seeds": 4, "folds": 2}, "subjects, seeds (4)", "these 2 folds, one generator, one set"),
    ],
)
def test_an_arm_says_what_it_holds_and_what_is_given(sizes, held, known):
    one = arm(**sizes)
    assert (chance_held(one, one.arms[0]), chance_given(one, one.arms[0])) == (held, known)


def test_real_images_have_no_generator():
    label = np.array([0, 1] * 10)
    rows = [("Real", "", "", str(k)) for k in range(4)] + [
        ("Real + 9", "0", "0", str(k)) for k in range(4)
    ]
    one = study_of(np.zeros((20, 8), int), rows, label=label)
    assert chance_given(one, one.arms[0]) == "one split" and replicate_counts(one, one.arms[0]) == {
        "seeds": 4,
        "sets": 0,
        "generators": 0,
    }
    assert conditions_in_words(one) == (
        "intervals hold the chance of subjects, seeds (4), given one split (Real); of subjects, seeds (4), given one split, "
        "one generator, one set (Real + 9)"
    )


def test_generators_that_cannot_be_told_are_named_so():
    label = np.array([0, 1] * 10)
    one = study_of(
        np.zeros((20, 3), int), [("x", "unknown", "0", str(k)) for k in range(3)], label=label
    )
    assert chance_given(one, one.arms[0]) == "one split, generators that are not known, one set"


def test_generators_count_alike_and_so_do_sets_of_one():
    rows = [("x", "0", "0", "0"), ("x", "0", "1", "0"), ("x", "0", "1", "1"), ("x", "1", "0", "0")]
    one = study_of(np.zeros((20, 4), int), rows, label=np.array([0, 1] * 10))
    assert one.weights[:, 0].tolist() == [0.25, 0.125, 0.125, 0.5]


@pytest.mark.parametrize(
    "sizes", [{"generators": 4, "sets": 2, "seeds": 3}, {"sets": 5, "seeds": 2}, {"seeds": 6}]
)
def test_a_levels_variance_is_that_of_the_mean_when_runs_are_independent(sizes):
    """The mean of n independent runs has variance 1 / n; each level estimates it, the lower ones
    less than all."""
    one = arm(**sizes, crossed=False)
    top = arm_levels(one.runs)[0]
    rng, n = np.random.default_rng(0), len(one.runs)
    estimates = [
        top.factor * ((top.parts @ rng.standard_normal(n)) ** 2).sum() for _ in range(4000)
    ]
    assert np.mean(estimates) == pytest.approx(1 / n, rel=0.1)
    assert np.abs(top.parts.sum(axis=1)).max() < 1e-12  # what is common to all runs moves nothing


def test_a_shift_of_one_generator_is_seen_at_its_level_alone():
    one = arm(generators=3, sets=2, seeds=3)
    shift = (one.runs.generator == "1").to_numpy(float)
    by = {level.name: np.abs(level.parts @ shift).max() for level in arm_levels(one.runs)}
    assert by["generator"] > 0.1 and by["seed"] < 1e-12


def test_sets_and_generators_reach_the_study(tmp_path):
    table = pd.concat(
        [runs(n=40, arms=("Real + 2000",), seeds=2).assign(generator=g, set="0") for g in "012"],
        ignore_index=True,
    )
    (one,) = studies(table)
    # two seeds are too few for a level of their own
    assert chance_held(one, one.arms[0]) == "subjects, generators (3)"
