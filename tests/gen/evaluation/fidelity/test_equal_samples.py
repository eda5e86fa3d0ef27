"""Halves without a common subject, and equal samples of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation.fidelity import equal_samples
from cmrgen.evaluation.fidelity.distances import Distance, Metric, Pair
from cmrgen.evaluation.fidelity.equal_samples import (
    ACROSS,
    FLOOR,
    ComparedImages,
    Group,
    half_size,
    halves,
)
from cmrstudy.intervals import MIN_COUNT, Z


def test_halves_share_no_subject_and_have_the_promised_size() -> None:
    rng = np.random.default_rng(0)
    for repeat in range(20):
        subjects = pd.Series(
            [f"SYN{k:04d}" for k in np.repeat(np.arange(11), rng.integers(1, 10, 11))]
        )
        left, right = halves(np.arange(len(subjects)), subjects, np.random.default_rng(repeat))
        assert not set(subjects[left]) & set(subjects[right])
        assert sorted([*left, *right]) == list(range(len(subjects)))
        assert min(len(left), len(right)) >= half_size(subjects) > 0


def group(name: str, *, half: int, synthetic: int, first: int = 0, axis: str = "sex") -> Group:
    """Of 2 * half real images, two of each subject."""
    real = np.arange(first, first + 2 * half)
    return Group(axis, name, real, np.arange(first, first + synthetic), half, "held-out")


def subjects_of(count: int) -> np.ndarray:
    return np.repeat([f"SYN{k:04d}" for k in range(count)], 2)


def test_the_size_is_what_the_smallest_side_that_is_large_enough_has() -> None:
    few = MIN_COUNT - 1
    groups = {
        "sex": [group("F", half=50, synthetic=40), group("M", half=few, synthetic=MIN_COUNT)],
        "all": [group("all", half=90, synthetic=90, axis="all")],
    }
    assert equal_samples.common_size(groups, n=500) == MIN_COUNT
    assert equal_samples.common_size(groups, n=10) == 10
    assert equal_samples.common_size({"sex": [group("F", half=few, synthetic=few)]}, n=500) == 0
    assert equal_samples._small(groups) == [f"M (real: {few})"]
    alone = [group("F", half=30, synthetic=few)] * 2
    assert equal_samples._small({"sex": alone}) == [f"F (synthetic: {few})"]


def test_two_groups_have_three_places_and_wholes_one_each() -> None:
    groups = [group("F", half=50, synthetic=40), group("M", half=30, synthetic=60)]
    assert equal_samples._cells("sex", groups) == {
        **{(0, 0, FLOOR): 50, (0, 0, ACROSS): 40, (0, 1, FLOOR): 30, (0, 1, ACROSS): 50},
        **{(1, 1, FLOOR): 30, (1, 1, ACROSS): 30},
    }
    for axis in equal_samples.WHOLES:
        assert list(equal_samples._cells(axis, groups)) == [
            *((0, 0, FLOOR), (0, 0, ACROSS)),
            *((1, 1, FLOOR), (1, 1, ACROSS)),
        ]
    left, right, real, synthetic = "left half", "right half", "real", "synthetic"
    assert equal_samples._sides((0, 0, FLOOR)) == ((0, left), (0, right))
    assert equal_samples._sides((0, 1, FLOOR)) == ((0, real), (1, real))
    assert equal_samples._sides((0, 0, ACROSS)) == ((0, real), (0, synthetic))
    assert equal_samples._sides((0, 1, ACROSS)) == ((0, real), (1, synthetic))


def test_draws_are_summed_up_with_the_spread_over_them() -> None:
    two = [Distance(2.0, variance=0.25), Distance(4.0, variance=0.75)]
    reach = Z * np.sqrt(0.5)
    assert equal_samples._summary(two) == pytest.approx((3, np.sqrt(2), 3 - reach, 3 + reach))
    mean, sd, *_ = equal_samples._summary(two[:1])
    assert mean == 2 and np.isnan(sd)
    assert np.isnan(equal_samples._summary([])).all()
    assert np.isnan(equal_samples._summary([Distance(2.0)])[2:]).all()  # none is known


def test_cells_measure_the_rows_that_are_drawn_and_no_others() -> None:
    """A metric that keeps what it is shown: features are the row's number."""
    shown: list[tuple[np.ndarray, np.ndarray]] = []

    def keep(pair: Pair) -> Distance:
        sides = tuple(side.features[:, 0].astype(int) for side in (pair.x, pair.y))
        shown.append(sides)
        return Distance(float(sides[0].mean() - sides[1].mean()))

    groups = {
        "sex": [
            group("F", half=30, synthetic=25),
            group("M", half=24, synthetic=MIN_COUNT - 1, first=60),
        ]
    }
    subjects, made_of = subjects_of(80), np.array([f"SYN1{k:03d}" for k in range(200)])
    real, synthetic = equal_samples.rows_drawn(groups, subjects, n=22, draws=2, seed=5)
    assert real.tolist() == sorted(set(real)) and set(synthetic) <= set(range(25))
    images = ComparedImages(
        np.tile(real[:, None], 3).astype(float),
        real,
        subjects,
        np.tile(synthetic[:, None] + 1000.0, 3),
        synthetic,
        made_of,
    )
    how = {"n": 22, "draws": 2, "seed": 5}
    cells = equal_samples.measured_cells(images, groups, {"gap": Metric("Gap", keep)}, **how)
    table = cells.table.set_index(["cell", "kind"])
    assert cells.n == 22 and cells.small == [f"M (synthetic: {MIN_COUNT - 1})"]
    assert len(cells.table) == 6 and cells.table.columns.tolist() == equal_samples.CELL_COLUMNS
    measured = table.value.notna()
    assert measured.to_dict() == {
        **{("F - F", FLOOR): True, ("F - F", ACROSS): True, ("F - M", FLOOR): True},
        **{("F - M", ACROSS): False, ("M - M", FLOOR): True, ("M - M", ACROSS): False},
    }
    # what is not measured says how many images there are
    assert table.n.tolist() == [22, 22, 22, MIN_COUNT - 1, 22, MIN_COUNT - 1]
    assert table.subjects.tolist() == [30, 30, 54, 30, 24, 24]
    assert set(table.pool) == {"held-out"} and len(shown) == 4 * 2
    for left, right in shown:
        assert len(left) == len(set(left)) == len(right) == len(set(right)) == 22
    assert {int(k) for sides in shown for side in sides for k in side if k < 1000} == {*real}
    assert {int(k) - 1000 for sides in shown for side in sides for k in side if k >= 1000} == {
        *synthetic
    }
    floors = [(a, b) for a, b in shown if max(a.max(), b.max()) < 60]
    assert len(floors) == 2  # two draws of halves of F, which share nobody
    assert all(not {*subjects[a]} & {*subjects[b]} for a, b in floors)
    # a draw is the same whatever else is compared
    fewer = {"sex": groups["sex"][:1] * 2}
    alone = equal_samples.rows_drawn(fewer, subjects, n=22, draws=2, seed=5)
    assert set(alone[0]) <= set(real) and np.array_equal(alone[1], synthetic)


def test_nothing_is_measured_where_all_are_too_few() -> None:
    groups = {"sex": [group("F", half=5, synthetic=5), group("M", half=5, synthetic=5, first=10)]}
    drawn = equal_samples.rows_drawn(groups, subjects_of(20), n=500, draws=2, seed=0)
    assert [rows.tolist() for rows in drawn] == [[], []]
    nothing = np.empty((0, 2))
    images = ComparedImages(nothing, drawn[0], subjects_of(20), nothing, drawn[1], subjects_of(20))
    metric = Metric("Gap", lambda pair: Distance(0.0))
    cells = equal_samples.measured_cells(images, groups, {"gap": metric}, n=9, draws=2, seed=0)
    assert cells.n == 0 and cells.table.value.isna().all() and set(cells.table.n) == {5}


@pytest.mark.parametrize(
    ("subjects", "size"), [("", 0), ("a", 0), ("ab", 1), ("aab", 1), ("aabbc", 2), ("abcdefg", 3)]
)
def test_a_half_surely_has_what_is_left_without_the_largest_subject(
    subjects: str, size: int
) -> None:
    assert half_size(pd.Series(list(subjects), dtype=object)) == size
    for seed in range(6):
        if subjects:
            rows = np.arange(len(subjects))
            parts = halves(rows, pd.Series(list(subjects)), np.random.default_rng(seed))
            assert min(map(len, parts)) >= size
            assert sorted(np.concatenate(parts)) == rows.tolist()
