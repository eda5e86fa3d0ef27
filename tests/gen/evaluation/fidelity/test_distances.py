"""Distances between sets of features against their textbook forms and against other programs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
import scipy.linalg
import torch
from torch import nn

from cmrgen.evaluation.fidelity.distances import (
    NEAREST,
    frechet_distance,
    kernel_distance,
    neighbours,
)


def sqrtm_form(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    return float(
        ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    )


def eigenvalue_form(x: np.ndarray, y: np.ndarray) -> float:
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(scipy.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots)


def features(n: int, d: int, seed: int, rank: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank or d)) @ rng.normal(size=(rank or d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(200, 300, 16), (40, 300, 16), (300, 17, 16), (3, 200, 16)]
)
def test_frechet_distance_equals_both_scipy_forms(n: int, m: int, d: int) -> None:
    x, y = features(n, d, 0), features(m, d, 1)
    assert frechet_distance(x, y) == pytest.approx(eigenvalue_form(x, y), rel=1e-6)
    if min(n, m) > d:  # sqrtm itself is inexact on singular products
        assert frechet_distance(x, y) == pytest.approx(sqrtm_form(x, y), rel=1e-6)


@pytest.mark.parametrize(
    ("n", "m", "d", "rank"), [(30, 50, 64, None), (100, 100, 24, 5), (200, 8, 24, 3)]
)
def test_frechet_distance_of_singular_covariances(n: int, m: int, d: int, rank: int | None) -> None:
    x, y = features(n, d, 0, rank), features(m, d, 1, rank)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(
        a
    )  # tr (AB)^(1/2) = tr (A^(1/2) B A^(1/2))^(1/2), symmetric and so well conditioned
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(1e-10)).sum()
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * trace
    assert frechet_distance(x, y) == pytest.approx(wanted, rel=1e-4)
    assert frechet_distance(x, y) == pytest.approx(eigenvalue_form(x, y), rel=1e-6)


def test_frechet_distance_is_symmetric_and_zero_for_the_same_sample() -> None:
    x, y = features(80, 16, 0), features(30, 16, 1)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, x + 2) == pytest.approx(4 * 16)


def test_frechet_distance_names_what_is_wrong() -> None:
    x = features(10, 4, 0)
    with pytest.raises(ValueError, match=r"features y have shape \(1, 4\)"):
        frechet_distance(x, x[:1])
    spoilt = x.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match="features x: 1 rows hold NaN or inf, the first is row 3"):
        frechet_distance(spoilt, x)


class Given(nn.Module):
    """Lets torchmetrics take features for images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.slow  # importing torchmetrics takes longest
@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 16), (40, 50, 96)])
def test_frechet_distance_equals_torchmetrics(n: int, m: int, d: int) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = features(n, d, 0), features(m, d, 1)
    metric = FrechetInceptionDistance(feature=Given(d), normalize=False).set_dtype(torch.float64)
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    assert frechet_distance(x, y) == pytest.approx(float(metric.compute()), rel=1e-6)


@pytest.mark.skipif(
    tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 18),
    reason="pytorch-fid needs scipy < 1.18",
)
def test_frechet_distance_equals_pytorch_fid() -> None:
    peer = pytest.importorskip("pytorch_fid.fid_score").calculate_frechet_distance
    x, y = features(200, 16, 0), features(300, 16, 1)
    given = [value for f in (x, y) for value in (f.mean(0), np.cov(f, rowvar=False))]
    assert frechet_distance(x, y) == pytest.approx(float(peer(*given)), rel=1e-6)


def kid(x: np.ndarray, y: np.ndarray, **subjects: np.ndarray) -> tuple[float, float]:
    return kernel_distance(x @ x.T, x @ y.T, y @ y.T, width=x.shape[1], **subjects)


def test_kernel_distance_by_hand() -> None:
    x, y = features(4, 3, 0), features(5, 3, 1)

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        terms = [
            (u @ v / 3 + 1) ** 3
            for i, u in enumerate(a)
            for j, v in enumerate(b)
            if not (same and i == j)
        ]
        return float(np.mean(terms))

    assert kid(x, y)[0] == pytest.approx(
        mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    )


@pytest.mark.slow
def test_kernel_distance_equals_torchmetrics() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance

    x, y = features(60, 16, 0), features(60, 16, 1)
    metric = KernelInceptionDistance(feature=Given(16), subsets=1, subset_size=60).set_dtype(
        torch.float64
    )
    metric.update(torch.from_numpy(x), real=True)
    metric.update(torch.from_numpy(y), real=False)
    assert kid(x, y)[0] == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_kernel_distance_leaves_out_one_subject_at_a_time() -> None:
    x, y = features(12, 4, 0), features(9, 4, 1)
    subjects = np.array(list("aaabbccccdee"), object)
    wanted = 0.0
    for side, of in ((0, subjects), (1, np.arange(9))):
        names = np.unique(of)
        kept = [kid(x[of != k], y)[0] if side == 0 else kid(x, y[of != k])[0] for k in names]
        wanted += (len(names) - 1) * np.var(kept)
    assert kid(x, y, x_of=subjects)[1] == pytest.approx(wanted)
    assert np.isnan(kid(x, y, x_of=np.full(12, "a", object))[1])


def test_kernel_distance_interval_covers_the_truth() -> None:
    """Samples of finite populations of rectified features, whose distance is known; nominal 95
    %."""
    rng = np.random.default_rng(1)
    layer = rng.normal(size=(10, 64)) / 3
    a, b = (np.maximum((rng.normal(size=(1000, 10)) + shift) @ layer, 0) for shift in (0, 0.3))
    kernels = [((u @ v.T) / 64 + 1) ** 3 for u, v in ((a, a), (b, b), (a, b))]
    true = kernels[0].mean() + kernels[1].mean() - 2 * kernels[2].mean()
    covered = []
    for _ in range(400):
        value, variance = kid(*(p[rng.integers(0, 1000, 100)] for p in (a, b)))
        covered.append(abs(value - true) < 1.96 * np.sqrt(variance))
    assert 0.93 <= np.mean(covered) <= 0.99


def test_neighbours_equal_their_definitions() -> None:
    x, y = features(40, 5, 0), features(30, 5, 0)[:30] + 0.5
    apart = np.linalg.norm(x[:, None] - y, axis=2)

    def reach(f: np.ndarray, k: int) -> np.ndarray:
        return np.sort(np.linalg.norm(f[:, None] - f, axis=2), axis=1)[:, k]  # the 0th is itself

    found = neighbours(x @ x.T, x @ y.T, y @ y.T)
    assert NEAREST == {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
    assert found["precision"] == np.mean([any(apart[:, j] <= reach(x, 3)) for j in range(30)])
    assert found["recall"] == np.mean([any(apart[i] <= reach(y, 3)) for i in range(40)])
    assert found["density"] == pytest.approx(
        sum((apart[i] <= r).sum() for i, r in enumerate(reach(x, 5))) / (5 * 30)
    )
    assert found["coverage"] == np.mean([any(apart[i] <= r) for i, r in enumerate(reach(x, 5))])


def test_neighbours_tell_a_copy_a_collapse_and_a_stranger() -> None:
    x = features(200, 6, 0)
    copy, one, far = (
        neighbours(x @ x.T, x @ y.T, y @ y.T)
        for y in (x + 1e-3, x[:1] + 1e-3 * features(200, 6, 1), x + 100)
    )
    assert copy["precision"] == copy["recall"] == copy["coverage"] == 1
    assert one["recall"] < 0.05 and one["coverage"] < 0.2
    assert set(far.values()) == {0.0}
    with pytest.raises(ValueError, match="5 rows have no 5-th neighbour"):
        neighbours(x[:5] @ x[:5].T, x[:5] @ x.T, x @ x.T)
