"""The nearest training image of each of many images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cmrdata import selection
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.selection import Selection, everything
from cmrgen.evaluation.privacy import nearest
from cmrgen.evaluation.privacy.nearest import Nearest, by_features, by_sight

PEOPLE = np.repeat(np.arange(10), 9)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Ten people at all nine slices and frames, 64 px."""
    cohort = Phantom(subjects=10, hf_share=0.3, seed=3, controls_per_case=None)
    return cohort.stacks(cohort.subjects()[0].assign(split="train")).images


def test_search_by_sight_excludes_the_own_person(images: np.ndarray) -> None:
    people = PEOPLE
    near = by_sight(images, people)(images[4::9], np.arange(10))
    assert near.own == pytest.approx(np.ones(10), abs=1e-3) and near.own_row.tolist() == list(
        range(4, 90, 9)
    )
    assert (near.other < 0.995).all() and (people[near.other_row] != np.arange(10)).all()
    alone = by_sight(images, people)(images[:2], np.array([-1, -1]))
    assert (
        np.isnan(alone.own).all() and alone.row.tolist() == [0, 1] and (alone.own_row == -1).all()
    )


def test_search_by_features_is_a_cosine() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * [1, 10, 1, 1, 100, 0]
    near = by_features(x, np.arange(50))(x[:9], np.r_[np.arange(8), -1])
    assert (
        near.own[:8] == pytest.approx(np.ones(8))
        and near.other[8] == pytest.approx(1)
        and near.other_row[8] == 8
    )
    z = (x - x.mean(0))[:, :5] / x[:, :5].std(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True) if z.shape[1] else 1
    assert near.other[0] == pytest.approx(np.sort(z @ z[0])[-2])


def test_the_audit_finds_the_same_whatever_a_slice_holds(
    images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, own = np.array(images[5::25]), np.full(4, -1)
    whole = by_sight(images, PEOPLE)(queries, own)
    monkeypatch.setattr(selection, "PIXELS", 64**2 * 7)
    chosen = Selection(images, np.arange(90))
    some = by_sight(chosen, PEOPLE)(everything(queries), own)
    assert np.array_equal(whole.row, some.row) and np.allclose(
        whole.similarity, some.similarity, atol=1e-4
    )


def test_a_copy_is_found_though_flipped_and_moved_as_far_as_shifts_reach(
    images: np.ndarray,
) -> None:
    original, rest = images[13], np.full(90, 7)
    changed = [original, *(original[:, ::y, ::x] for y in (1, -1) for x in (1, -1))]
    changed += [np.roll(original, (dy, dx), (1, 2)) for dy, dx in ((4, 0), (-4, 4), (3, -2))]
    search = by_sight(images, rest)
    near = search(np.stack(changed), np.full(len(changed), -1))
    assert (near.other_row == 13).all() and near.other == pytest.approx(1, abs=0.01)
    # brighter, and of less contrast: a correlation does not see it
    dull = (40 + 0.5 * original.astype(float)).round().astype(np.uint8)
    assert search(dull[None], np.array([-1])).other == pytest.approx(1, abs=2e-3)
    beyond = np.roll(original, (10, -10), (1, 2))
    assert by_sight(images[[13]], np.array([0]))(beyond[None], np.array([-1])).other < 0.97


def test_the_nearest_is_the_own_image_or_another_persons() -> None:
    near = Nearest(
        np.array([0.5, 0.5, 0.5, 0.5]),
        np.array([1, 1, 1, 1]),
        np.array([0.6, 0.4, np.nan, 0.5]),
        np.array([2, 2, -1, 2]),
    )
    assert near.similarity.tolist() == [0.6, 0.5, 0.5, 0.5] and near.row.tolist() == [2, 1, 1, 1]


def test_a_correlation_is_the_mean_of_both_phases_own(images: np.ndarray) -> None:
    picture, other = nearest._sized(images[[0, 80]], 16)
    template = nearest._templates(other[None], 2)
    grid = nearest._correlations(picture[None], template)[0, ..., 0]
    assert grid.shape == (5, 5)
    for y, x in ((0, 0), (2, 2), (4, 1)):
        window = picture[:, y : y + 12, x : x + 12].numpy()
        middle = other[:, 2:-2, 2:-2].numpy()
        own = [np.corrcoef(window[k].ravel(), middle[k].ravel())[0, 1] for k in (0, 1)]
        assert float(grid[y, x]) == pytest.approx(np.mean(own), abs=1e-4)
    flat = nearest._templates(torch.full((1, 2, 16, 16), 9.0), 2)
    assert not flat.any()  # nothing to see is like nothing


def test_a_peak_lies_between_shifts_and_is_at_most_one() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(5.0), indexing="ij")
    paraboloid = 0.9 - 0.1 * (y - 2.25) ** 2 - 0.05 * (x - 1.6) ** 2
    corner = 0.9 - 0.1 * (y - 4) ** 2 - 0.05 * x**2
    steep = 1.05 - 0.1 * (y - 2) ** 2 - 0.05 * (x - 2) ** 2
    edge = 0.9 - 0.1 * (y - 0.3) ** 2 - 0.05 * (x - 1.6) ** 2  # along y it has no neighbour
    found = nearest._peak(torch.stack([paraboloid, corner, steep, edge]))
    assert found.tolist() == pytest.approx([0.9, 0.9, 1.0, 0.9 - 0.1 * 0.3**2], abs=1e-6)


def test_features_that_do_not_vary_count_for_nothing() -> None:
    features = np.array([[0.0, 5], [1, 5], [3, 5]])
    near = by_features(features, np.array([0, 0, 1]))(np.array([[9.0, 5]]), np.array([0]))
    # standardised they lie at -, - and +: the query is beyond the last, who is another person
    assert near.other.tolist() == pytest.approx([1]) and near.other_row.tolist() == [2]
    assert near.own.tolist() == pytest.approx([-1]) and near.own_row.tolist() == [0]


def test_templates_are_made_of_all_images_and_kept_in_files_without_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 24, 24)).astype(np.uint8)
    fine, coarse = nearest._kept(images, device="cpu", folder=tmp_path)
    assert capsys.readouterr().err == "audit: templates: 5 images in 0:00\n"
    assert not any(tmp_path.iterdir()) and len(fine) == len(coarse) == 5
    side, half = nearest.FINE - 2 * nearest.REACH, nearest.FINE // 2 - 2 * (nearest.REACH // 2)
    assert fine.shape == (5, 2, side, side) and coarse.shape == (5, 2, half, half)
    assert fine.dtype == np.float16 and coarse.dtype == np.float32
    wanted = nearest._templates(nearest._sized(images, nearest.FINE // 2), nearest.REACH // 2)
    assert np.allclose(coarse, wanted.numpy(), atol=1e-6)
