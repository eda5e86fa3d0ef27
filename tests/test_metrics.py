import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as peers

from cmrcls.metrics import METRICS, balanced_accuracy, ranked, reliability, sums


def random_runs(seed, *, n=60, runs=3, ties=False):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    label[:2] = 0, 1
    probability = rng.random((n, runs))
    return label, probability.round(1) if ties else probability, rng


def all_metrics(label, probability, weights):
    return sums(label, probability > 0.5, probability, weights) | ranked(label, probability, weights)


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
            "auroc": peers.roc_auc_score(label, p, **keep),
            "auprc": peers.average_precision_score(label, p, **keep),
            "brier": peers.brier_score_loss(label, p, **keep),
            "ece": sum(
                abs(np.average(p[b], weights=w[b]) - np.average(label[b], weights=w[b])) * mass / w.sum()
                for mass, b in bins
                if mass
            ),
            "selection_rate": np.average(d, weights=w),
        }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_every_metric_equals_sklearn(seed, ties):
    label, probability, _ = random_runs(seed, ties=ties)
    found = all_metrics(label, probability, np.ones((1, len(label))))
    assert set(found) == set(METRICS)
    for run in range(3):
        for name, value in expected(label, probability[:, run]).items():
            assert found[name][0, run] == pytest.approx(value, abs=1e-12), name


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_a_weighting_equals_sklearns_sample_weights_and_repeated_subjects(seed, ties):
    label, probability, rng = random_runs(seed, n=25, runs=2, ties=ties)
    counts = rng.multinomial(25, np.full(25, 1 / 25), size=3)
    counts[:, :2] += 1  # both classes keep weight
    found = all_metrics(label, probability, counts.astype(np.float32))
    for row, count in enumerate(counts):
        again = np.repeat(np.arange(25), count)
        weighted = expected(label, probability[:, 0], count.astype(float))
        repeated = expected(label[again], probability[again, 0])
        for name in METRICS:
            assert found[name][row, 0] == pytest.approx(weighted[name], abs=1e-5), name
            assert found[name][row, 0] == pytest.approx(repeated[name], abs=1e-5), name


def test_a_lost_class_is_nan_and_touches_nothing_else():
    label, probability, _ = random_runs(0)
    weights = np.stack([np.ones(60), label == 0, label == 1]).astype(float)
    found = all_metrics(label, probability, weights)
    for name in ("balanced_accuracy", "auroc"):
        assert np.isfinite(found[name][0]).all() and np.isnan(found[name][1:]).all()
    for name in ("sensitivity", "auprc"):
        assert np.isnan(found[name][1]).all() and np.isfinite(found[name][2]).all()
    assert np.isnan(found["specificity"][2]).all()
    for name in ("brier", "ece", "selection_rate"):
        assert np.isfinite(found[name]).all()


def test_an_empty_group_is_nan():
    empty = all_metrics(np.zeros(0, int), np.zeros((0, 2)), np.ones((1, 0)))
    assert all(values.shape == (1, 2) and np.isnan(values).all() for values in empty.values())


def test_calibration_by_hand():
    label, p = np.array([0, 1, 1, 1]), np.array([0.1, 0.1, 0.95, 1.0])
    predicted, share, count = reliability(label, p)
    assert count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert (predicted[1], share[1], share[9]) == (pytest.approx(0.1), 0.5, 1.0) and predicted[9] == pytest.approx(0.975)
    found = ranked(label, p[:, None], np.ones((1, 4)))["ece"].item()
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
