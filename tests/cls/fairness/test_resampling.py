"""Scores of a subgroup and the draws around them, against their formulas in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmrcls.fairness import resampling
from cmrcls.fairness.levels import MIN_FOLDS, Level
from cmrcls.fairness.metrics import METRICS, mean_of, scored
from cmrcls.fairness.resampling import (
    MIN_SUBJECTS_FOR_INTERVAL,
    Bootstrap,
    MeasuredArm,
    Score,
    bootstrap,
    deviations,
    interval_cells,
    subgroup_scores,
)
from cmrcls.fairness.statistics import interval
from cmrcls.fairness.study import Arm, Study
from support.fake_runs import study_of

ROWS = [
    *[("Real", "", "", str(k)) for k in range(3)],
    *[("Synthetic", str(k), "0", str(j)) for k in range(3) for j in range(3)],
    ("Other", "0", "0", "0"),
]


def made_study(*, n: int = 24, folds: int = 0) -> Study:
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    decision = np.where(rng.random((n, len(ROWS))) < 0.7, label[:, None], 1 - label[:, None])
    columns = {"fold": np.arange(n) % folds * 2.0} if folds else {}
    return study_of(decision, ROWS, label=label, **columns)


def test_a_bootstrap_draws_subjects_then_replicates_then_folds() -> None:
    study = made_study(folds=3)
    boot = bootstrap(study, resamples=40, seed=5)
    rng = np.random.default_rng(5)
    assert np.array_equal(boot.counts, resampling.resample(24, resamples=40, rng=rng))
    assert np.array_equal(boot.moves, resampling.moves(study, resamples=40, rng=rng))
    # folds less one
    assert np.array_equal(boot.folded, rng.standard_t(2, 40))
    assert boot.base == 0 and boot.seed == 5
    again = bootstrap(study, resamples=40, seed=9, rng=np.random.default_rng(5))
    assert np.array_equal(again.folded, boot.folded) and again.seed == 9
    real, synthetic, other = boot.arms
    assert real.own.tolist() == [0, 1, 2] and synthetic.own.tolist() == list(range(3, 12))
    assert real.facts == {
        "sets": 0,
        "seeds": 3,
        "holds": "subjects, seeds (3), folds (3)",
        "given": "one division into 3 folds",
    }
    names = [[level.name for level in arm.levels] for arm in boot.arms]
    assert names == [["seed"], ["generator", "seed"], []] and other.own.tolist() == [12]


def test_without_folds_or_a_baseline_there_are_none() -> None:
    boot = bootstrap(made_study()._replace(baseline=None), resamples=4, seed=1)
    rng = np.random.default_rng(1)
    resampling.resample(24, resamples=4, rng=rng)
    resampling.moves(made_study(), resamples=4, rng=rng)
    assert boot.folds is None and boot.base is None
    assert np.array_equal(boot.folded, rng.standard_t(1, 4))


def test_a_subgroups_scores_are_sums_of_its_subjects_influences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resampling, "RESAMPLES_AT_ONCE", 7)  # of 16: parts and a remainder
    study, who = made_study(folds=3), np.arange(4, 20)
    boot = bootstrap(study, resamples=16, seed=0)
    metrics = {name: METRICS[name] for name in ("sensitivity", "selection_rate")}
    scores = subgroup_scores(boot, metrics, who)
    assert list(scores) == list(metrics)
    for name, score in scores.items():
        value, influence, rests_on = scored(name, study.predicted.of(who))
        means = influence @ study.weights  # (n, A)
        assert score.rests_on == rests_on and np.array_equal(score.value, value)
        assert score.mean == pytest.approx(value @ study.weights)
        assert score.resampled == pytest.approx(boot.counts[:, who] @ means, abs=1e-6)
        assert score.varies == pytest.approx((means**2).sum(axis=0), rel=1e-5)
        sums = [means[boot.folds[who] == fold].sum(axis=0) for fold in range(3)]
        assert score.folds == pytest.approx(np.array(sums), abs=1e-6)
        # replicates of the highest level: variance between them on the same subject, summed
        seeds = influence[:, :3]
        generators = influence[:, 3:12].reshape(len(who), 3, 3).mean(axis=2)
        between = [
            ((part - part.mean(axis=1, keepdims=True)) ** 2).sum() / (3 * 2)
            for part in (seeds, generators)
        ]
        assert score.single == [*map(pytest.approx, between), 0]


def made_bootstrap(*, folds: int = 0) -> tuple[Bootstrap, Score]:
    """Three resamples of two arms of two runs, all numbers chosen."""
    parts = np.array([[0.5, -0.5], [-0.5, 0.5]])
    levels = [Level("seed", ["0", "1"], parts, 1, 0.5)]
    unused: Any = None
    arms = [
        MeasuredArm(Arm(0, "a"), np.array([0, 1]), levels, {}),
        MeasuredArm(Arm(1, "b"), np.array([2, 3]), levels, {}),
    ]
    moved = np.array([[1.0, -1, 2, -2], [0, 0, 1, -1], [-1, 1, 0, 0]])
    boot = Bootstrap(
        unused, arms, unused, 0, unused, unused, moved, np.array([1.0, -2.0, 0.5]), seed=0
    )
    score = Score(
        value=np.array([0.7, 0.9, 0.6, 0.8]),
        mean=np.array([0.8, 0.7]),
        resampled=np.array([[0.1, 0.2], [-0.2, 0.1], [0.05, -0.3]]),
        varies=np.array([0.04, 0.05]),
        single=[0.01, 0.02],
        folds=np.array([[0.3, 0.1], [-0.4, 0.2], [0.2, -0.5], [-0.1, 0.2]])[:folds]
        if folds
        else None,
        rests_on=30,
    )
    return boot, score


def test_an_arms_deviation_is_that_of_subjects_narrowed_and_of_replicates() -> None:
    boot, score = made_bootstrap()
    # variance 0.04, of which single predictions make 0.01
    own = np.sqrt(1 - 0.01 / 0.04) * score.resampled[:, 0] + boot.moves[:, :2] @ score.value[:2]
    assert deviations(boot, score, 0) == pytest.approx(own)
    apart = score.resampled[:, 1] - score.resampled[:, 0]
    moved = boot.moves[:, 2:] @ score.value[2:] - boot.moves[:, :2] @ score.value[:2]
    share = (0.01 + 0.02) / np.var(apart)
    assert 0 < share < 1
    difference = np.sqrt(1 - share) * apart + moved
    assert deviations(boot, score, 1, 0) == pytest.approx(difference)
    assert deviations(boot, score, 0, 1) == pytest.approx(-difference)


def test_chance_of_single_predictions_never_takes_more_than_all() -> None:
    boot, score = made_bootstrap()
    replicates = boot.moves[:, :2] @ score.value[:2]
    noisy = score._replace(single=[0.5, 0.5])
    assert deviations(boot, noisy, 0) == pytest.approx(replicates)
    alike = score._replace(varies=np.zeros(2))
    assert deviations(boot, alike, 0) == pytest.approx(score.resampled[:, 0] + replicates)


def test_folds_add_what_their_spread_exceeds_the_rest_by() -> None:
    boot, score = made_bootstrap(folds=4)
    without = deviations(boot, score._replace(folds=None), 0)
    # an arm's mean varies by its subjects' chance 0.04 - 0.01 and by its replicates' 0.01
    training = 0.5 * ((0.5 * (0.7 - 0.9)) ** 2 * 2)
    excess = 4 * np.var([0.3, -0.4, 0.2, -0.1], ddof=1) - (0.03 + training)
    assert excess > 0
    assert deviations(boot, score, 0) == pytest.approx(without + np.sqrt(excess) * boot.folded)
    # of a difference: the difference of the folds, and both arms' replicates
    apart = np.array([0.3, -0.4, 0.2, -0.1]) - [0.1, 0.2, -0.5, 0.2]
    varies = np.var(score.resampled[:, 0] - score.resampled[:, 1])
    both = 4 * np.var(apart, ddof=1) - (varies - 0.03 + 2 * training)
    without = deviations(boot, score._replace(folds=None), 0, 1)
    assert deviations(boot, score, 0, 1) == pytest.approx(without + np.sqrt(both) * boot.folded)
    # nothing where folds are alike
    calm = score._replace(folds=np.zeros((4, 2)))
    assert deviations(boot, calm, 0) == pytest.approx(
        deviations(boot, score._replace(folds=None), 0)
    )


def test_a_spread_is_taken_from_no_fewer_folds_than_can_tell_it() -> None:
    for folds, adds in ((MIN_FOLDS, True), (MIN_FOLDS - 1, False)):
        boot, score = made_bootstrap(folds=folds)
        without = deviations(boot, score._replace(folds=None), 0)
        assert np.allclose(deviations(boot, score, 0), without) != adds


def test_an_interval_or_the_words_in_place_of_it() -> None:
    draws = np.linspace(-1, 1, 200)
    cells = interval_cells(draws, MIN_SUBJECTS_FOR_INTERVAL, limits=(-0.5, 2))
    low, high = interval(draws, rests_on=MIN_SUBJECTS_FOR_INTERVAL)
    assert cells == {"low": -0.5, "high": high, "note": ""} and low < -0.5 and high > 0.9
    alike = interval_cells(np.zeros(200), MIN_SUBJECTS_FOR_INTERVAL)
    assert np.isnan([alike["low"], alike["high"]]).all() and alike["note"] == "all resamples alike"
    few = interval_cells(draws, MIN_SUBJECTS_FOR_INTERVAL - 1)
    assert np.isnan([few["low"], few["high"]]).all()
    assert few["note"] == "rests on 19 subjects, fewer than 20"
    assert resampling.no_interval(1)["note"] == "rests on 1 subject, fewer than 20"


def test_a_metric_that_is_no_row_is_measured_too() -> None:
    study, who = made_study(), np.arange(24)
    boot = bootstrap(study, resamples=4, seed=0)
    right = METRICS["ppv"]._replace(
        score=lambda of: mean_of((of.decision == of.label[:, None]).astype(float))
    )
    score = subgroup_scores(boot, {"accuracy": right}, who)["accuracy"]
    expected = (study.decision == study.subjects.label.to_numpy()[:, None]).mean(axis=0)
    assert score.value == pytest.approx(expected) and score.folds is None and score.rests_on == 24
