import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peers

from cmrcls.fairness.metrics import (
    METRICS,
    Metric,
    Predicted,
    all_scores,
    balanced_accuracy,
    mean_of,
    reliability,
    reported,
    scored,
)


def random_runs(seed, *, n=60, runs=3, ties=False):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    label[:2] = 0, 1
    probability = rng.random((n, runs))
    return label, probability.round(1) if ties else probability, rng


def predicted(label, probability):
    return Predicted(label, (probability > 0.5).astype(int), probability)


def expected(label, p, weights=None):
    d = p > 0.5
    keep = {"sample_weight": weights}
    w = np.ones(len(p)) if weights is None else weights
    where = np.minimum((p * 10).astype(int), 9)
    bins = [(w[where == b].sum(), where == b) for b in range(10)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class may have no weight
        return {
            "balanced_accuracy": peers.balanced_accuracy_score(label, d, **keep),
            "sensitivity": peers.recall_score(label, d, **keep),
            "specificity": peers.recall_score(label, d, pos_label=0, **keep),
            "ppv": peers.precision_score(label, d, zero_division=np.nan, **keep),
            "npv": peers.precision_score(label, d, pos_label=0, zero_division=np.nan, **keep),
            "auroc": peers.roc_auc_score(label, p, **keep),
            "auprc": peers.average_precision_score(label, p, **keep),
            "brier": peers.brier_score_loss(label, p, **keep),
            "ece": sum(
                abs(np.average(p[b], weights=w[b]) - np.average(label[b], weights=w[b]))
                * mass
                / w.sum()
                for mass, b in bins
                if mass
            ),
            "selection_rate": np.average(d, weights=w),
        }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_every_metric_equals_sklearn(seed, ties):
    label, probability, _ = random_runs(seed, ties=ties)
    found = all_scores(predicted(label, probability))
    assert list(found) == reported() and set(METRICS) - set(found) == {"false_positive_rate"}
    for run in range(3):
        for name, value in expected(label, probability[:, run]).items():
            assert found[name][run] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_an_influence_is_how_much_a_subject_more_moves_a_metric(seed, ties):
    """The derivative by a subject's weight, from sklearn's sample weights; influences of all
    subjects add up to nothing."""
    label, probability, rng = random_runs(seed, n=25, runs=1, ties=ties)
    one = rng.integers(25)
    little = 1e-6
    more = expected(label, probability[:, 0], np.ones(25) + little * (np.arange(25) == one))
    for name, value in expected(label, probability[:, 0], np.ones(25)).items():
        influence = scored(name, predicted(label, probability)).influence[:, 0]
        if np.isnan(value):
            assert np.isnan(influence).all()
            continue
        assert influence.sum() == pytest.approx(0, abs=1e-9), name
        if name != "ece":  # a bin without excess has no derivative
            assert influence[one] == pytest.approx((more[name] - value) / little, abs=1e-4), name


def test_influences_give_the_bootstraps_spread():
    label, probability, rng = random_runs(5, n=400, runs=1)
    probability[label == 1] += 0.4
    probability = np.minimum(probability, 1)
    draws = [rng.integers(0, 400, 400) for _ in range(300)]
    for name in reported():
        again = [scored(name, predicted(label[who], probability[who])).value[0] for who in draws]
        expected_sd = np.sqrt((scored(name, predicted(label, probability)).influence ** 2).sum())
        assert np.std(again) == pytest.approx(expected_sd, rel=0.2), name


def test_a_lost_class_is_nan_and_touches_nothing_else():
    label, probability, _ = random_runs(0)
    healthy, ill = (all_scores(predicted(label, probability).of(label == kind)) for kind in (0, 1))
    for name in ("balanced_accuracy", "auroc"):
        assert np.isnan(healthy[name]).all() and np.isnan(ill[name]).all()
    assert np.isnan(healthy["sensitivity"]).all() and np.isfinite(ill["sensitivity"]).all()
    assert np.isnan(ill["specificity"]).all() and np.isnan(healthy["auprc"]).all()
    for name in ("brier", "ece", "selection_rate"):
        assert np.isfinite(healthy[name]).all() and np.isfinite(ill[name]).all()


def test_an_empty_group_is_nan():
    empty = all_scores(predicted(np.zeros(0, int), np.zeros((0, 2))))
    assert all(values.shape == (2,) and np.isnan(values).all() for values in empty.values())


def test_predictive_values_rest_on_the_fewest_that_were_called_so():
    label = np.array([1, 0, 0, 1, 0])
    decision = np.array([[1, 1], [1, 0], [0, 0], [0, 1], [0, 0]])
    given = Predicted(label, decision, decision.astype(float))
    assert scored("ppv", given).rests_on == 2 and scored("npv", given).rests_on == 3
    assert scored("ppv", given).value.tolist() == [0.5, 1.0]
    nobody = Predicted(label, decision * 0, decision * 0.0)
    assert np.isnan(scored("ppv", nobody).value).all() and scored("ppv", nobody).rests_on == 0


def test_a_metric_of_ones_own():
    label, probability, _ = random_runs(3)
    found = scored(
        Metric("mean", lambda given: mean_of(given.probability)), predicted(label, probability)
    )
    assert found.value == pytest.approx(probability.mean(axis=0)) and found.rests_on == 60


def test_calibration_by_hand():
    label, p = np.array([0, 1, 1, 1]), np.array([0.1, 0.1, 0.95, 1.0])
    mean, share, count = reliability(label, p)
    assert count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (mean[1], share[1], share[9]) == (pytest.approx(0.1), 0.5, 1.0) and mean[
        9
    ] == pytest.approx(0.975)
    found = scored("ece", predicted(label, p[:, None])).value.item()
    assert found == pytest.approx(0.5 * 0.4 + 0.5 * 0.025)


@pytest.mark.parametrize("seed", range(20))
def test_balanced_accuracy_equals_sklearn(seed):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(0, 2, (2, rng.integers(1, 12)))
    score = balanced_accuracy(label, predicted)
    if len(set(label)) == 1:
        assert np.isnan(score)
    else:
        assert score == pytest.approx(peers.balanced_accuracy_score(label, predicted))
