"""Every metric of every subgroup has n and an interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from cmrcls.fairness import subgroup_metrics
from cmrcls.fairness.display.tables import plain
from cmrcls.fairness.metrics import METRICS, reported
from cmrcls.fairness.resampling import bootstrap, deviations, subgroup_scores
from cmrcls.fairness.statistics import interval
from cmrcls.fairness.study import RUN_COLUMNS, Study
from cmrcls.fairness.subgroups import divisions
from support.fake_runs import (
    ARMS,
    one_study,
    runs,
    small,
)
from support.printed import rows_of


def test_every_number_has_n_and_an_interval_around_it():
    metrics = {name: METRICS[name] for name in reported()}
    study = small(seeds=4, n=600)
    rows = plain(subgroup_metrics.subgroup_table(study, metrics, resamples=400))
    assert rows[["n", "positives", "seeds", "mean", "sd"]].notna().all(axis=None)
    told = rows[rows.note == ""]
    assert (
        len(told) > 100 and (told.low <= told["mean"]).all() and (told["mean"] <= told.high).all()
    )
    table = rows[(rows.metric == "balanced_accuracy") & (rows.subgroup == "Overall")].set_index(
        "arm"
    )
    assert table["mean"].to_dict() == pytest.approx(
        rows_of(one_study(runs(n=600, arms=ARMS[:2], seeds=4)))
        .query("axis == 'overall'")
        .set_index("arm")
        .balanced_accuracy.to_dict()
    )


def cells(metric: str, k: int, **changed: Any) -> tuple[dict[str, Any], Any, Any]:
    """The cells of an arm's metric in a small study, its bootstrap and its score."""
    study = small(seeds=3, n=80, prevalence=0.5)
    boot = bootstrap(study, resamples=60, seed=1)._replace(**changed)
    score = subgroup_scores(boot, {metric: METRICS[metric]}, np.arange(80))[metric]
    return subgroup_metrics._metric_cells(boot, score, METRICS[metric], k), boot, score


def test_a_share_and_its_change_have_intervals_within_their_limits() -> None:
    found, boot, score = cells("selection_rate", 1)
    mean, own = score.mean[1], score.value[boot.arms[1].own]
    assert (found["mean"], found["sd"]) == (mean, pytest.approx(own.std(ddof=1)))
    low, high = interval(mean + deviations(boot, score, 1), rests_on=80, limits=(0, 1))
    assert (found["low"], found["high"], found["note"]) == (low, high, "")
    assert found["change"] == mean - score.mean[0]
    change = interval(found["change"] + deviations(boot, score, 1, 0), rests_on=80, limits=(-1, 1))
    assert (found["change_low"], found["change_high"]) == change
    assert not {"change", "change_low"} & set(cells("selection_rate", 0)[0])  # the baseline's
    assert "change" not in cells("selection_rate", 1, base=None)[0]
    far = METRICS["selection_rate"]._replace(limits=(0.49, 0.5))
    cut = subgroup_metrics._metric_cells(boot, score, far, 1)
    assert cut["low"] >= 0.49 and cut["high"] <= 0.5
    assert cut["change_low"] >= -0.01 - 1e-9 and cut["change_high"] <= 0.01 + 1e-9


def test_an_interval_by_odds_is_that_of_the_logarithm() -> None:
    found, boot, score = cells("auroc", 1)
    mean, moved = score.mean[1], deviations(boot, score, 1)
    odds = interval(logit(mean) + moved / (mean * (1 - mean)), rests_on=score.rests_on)
    assert (found["low"], found["high"]) == pytest.approx(expit(odds))
    assert 0 < found["low"] < mean < found["high"] < 1
    # at an end there are no odds: as other metrics have it
    sure = score._replace(mean=np.array([0.5, 1.0]))
    ended = subgroup_metrics._metric_cells(boot, sure, METRICS["auroc"], 1)
    assert ended["high"] == 1 and ended["low"] == pytest.approx(
        interval(1 + moved, rests_on=score.rests_on)[0]
    )


def test_what_is_undefined_in_some_runs_or_all_says_so() -> None:
    _, boot, score = cells("selection_rate", 1)
    own = boot.arms[1].own
    for lacking, note in ((1, "undefined in 1 of 3 runs"), (3, "undefined")):
        value = score.value.copy()
        value[own[:lacking]] = np.nan
        mean = np.array([0.5, np.nan])
        told = subgroup_metrics._metric_cells(
            boot, score._replace(value=value, mean=mean), METRICS["selection_rate"], 1
        )
        assert told["note"] == note and np.isnan([told["mean"], told["low"], told["change"]]).all()


def test_a_row_says_of_whom_it_is() -> None:
    study = small(seeds=1, n=80)
    boot = bootstrap(study, resamples=40, seed=0)
    metrics = {name: METRICS[name] for name in ("sensitivity", "brier")}
    [division] = [of for of in divisions(study.subjects, ()) if of.axis.columns == ("sex",)]
    bands = subgroup_metrics.scores_along(boot, division, metrics)
    rows = pd.DataFrame(subgroup_metrics.metric_rows(boot, division, bands, metrics))
    assert rows.subgroup.tolist() == ["Female"] * 4 + ["Male"] * 4
    assert rows.metric.tolist() == ["sensitivity", "brier"] * 4
    assert rows.arm.map(str).tolist() == ["Real"] * 2 + ["Real + 2000"] * 2 + (
        ["Real"] * 2 + ["Real + 2000"] * 2
    )
    women = study.subjects.sex == "F"
    assert set(rows.n[:4]) == {women.sum()}
    assert set(rows.positives[:4]) == {study.subjects.label[women].sum()}
    assert set(rows.resamples) == {40} and set(rows.crossed) == {1} and rows.sd.isna().all()


def test_everybody_alone_or_each_subgroup_of_one_attribute() -> None:
    study, some = small(seeds=1, n=60), {"brier": METRICS["brier"]}
    how: dict[str, Any] = {"resamples": 40, "seed": 0}
    whole = subgroup_metrics.subgroup_table(study, some, everybody=True, **how)
    assert set(whole.subgroup) == {"Overall"} and len(whole) == 2
    parts = subgroup_metrics.subgroup_table(study, some, **how)
    pd.testing.assert_frame_equal(parts, subgroup_metrics.subgroup_table(study, some, resamples=40))
    assert set(parts.crossed) == {0, 1} and {"Overall", "Female", "Obese"} <= set(parts.subgroup)


def of_subgroups(study: Study) -> pd.DataFrame:
    metrics = {name: METRICS[name] for name in reported()}
    return plain(subgroup_metrics.subgroup_table(study, metrics, resamples=100))


def test_renaming_seeds_changes_nothing_and_equal_seeds_add_no_certainty():
    one = small(seeds=3, n=300)
    rows = of_subgroups(one)
    renamed = one._replace(runs=one.runs.assign(seed="7" + one.runs.seed))
    pd.testing.assert_frame_equal(rows, of_subgroups(renamed))
    lone = small(seeds=1, n=300, arms=("Real",))
    table = pd.DataFrame(
        [(lone.arms[0], "", "", str(seed)) for seed in range(5)], columns=RUN_COLUMNS
    )
    many = lone._replace(
        runs=table, probability=lone.probability.repeat(5, 1), decision=lone.decision.repeat(5, 1)
    )
    once, more = (of_subgroups(of) for of in (lone, many))
    np.testing.assert_allclose(once.high - once.low, more.high - more.low, atol=1e-5)
