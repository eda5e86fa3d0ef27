"""Two-sample tests of the audit: exact, blind to the mix of groups and to repeated images, and
without false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cmrgen.evaluation.privacy import alarms
from cmrgen.evaluation.privacy.alarms import (
    Sample,
    _hypergeometric,
    _nearest,
    _ranks,
    holm,
    in_common_groups,
    nearest_test,
    rank_test,
)


def sample(
    values: np.ndarray, groups: np.ndarray | str = "a", people: np.ndarray | None = None
) -> Sample:
    groups = np.full(len(values), groups) if isinstance(groups, str) else groups
    return Sample(values, groups, np.arange(len(values)) if people is None else people)


def test_nearest_by_hand() -> None:
    """Of 60 images the nearest 3: in one group they are hypergeometric."""
    values, own = np.arange(60.0), np.isin(np.arange(60), [59, 58, *range(18)])
    found = _nearest(values, np.zeros(60, int), own, level=0.05)
    chance = stats.hypergeom(60, 3, 20)
    assert (
        found.observed == 2
        and found.expected == pytest.approx(1)
        and found.p == pytest.approx(chance.sf(1))
    )
    assert found.alarm_from == 3 and chance.sf(2) <= 0.05 < chance.sf(1)


def test_chances_are_hypergeometric() -> None:
    total, marked, drawn = np.array([30, 7, 5]), np.array([4, 2, 5]), np.array([11, 6, 0])
    found = _hypergeometric(total, marked, drawn)
    wanted = [
        stats.hypergeom.pmf(np.arange(6), *row) for row in zip(total, marked, drawn, strict=True)
    ]
    assert found == pytest.approx(np.array(wanted))


def test_nearest_of_two_groups_adds_their_chances() -> None:
    values, groups = np.r_[10.0, 9, np.zeros(18), 8, np.zeros(19)], np.repeat([0, 1], 20)
    own = np.isin(np.arange(40), [0, 2, 3, 20, 21])
    # the nearest 2 of 40: both of the first group
    found = _nearest(np.r_[values], groups, own, level=0.05)
    assert found.observed == 1 and found.expected == pytest.approx(2 * 3 / 20)
    assert found.p == pytest.approx(stats.hypergeom(20, 2, 3).sf(0))


def test_where_nobody_has_two_images_there_is_nothing_to_draw() -> None:
    once, twice = sample(np.arange(4.0)), sample(np.arange(4.0), people=np.array([0, 1, 1, 2]))
    nobody = sample(np.zeros(0))
    for first, second, draws in ((once, once, 1), (once, nobody, 1), (twice, once, 5)):
        assert len(list(alarms._drawn(first, second, seed=0, draws=5))) == draws
        assert len(list(alarms._drawn(second, first, seed=0, draws=5))) == draws
    for values, groups, own in alarms._drawn(twice, once, seed=0, draws=5):
        assert own.tolist() == [True] * 3 + [False] * 4 and len(values) == len(groups) == 7
        assert {0.0, 3.0} < set(values[own]) < {0.0, 1.0, 2.0, 3.0}


def test_ranks_are_mann_whitneys_with_ties() -> None:
    rng = np.random.default_rng(0)
    values, own = rng.integers(0, 9, 60).astype(float), np.arange(60) < 25
    found = _ranks(values, np.zeros(60, int), own)
    peer = stats.mannwhitneyu(
        values[own], values[~own], alternative="greater", use_continuity=False, method="asymptotic"
    )
    assert found.p == pytest.approx(peer.pvalue) and found.nearer == pytest.approx(
        peer.statistic / 25 / 35
    )
    assert found.ct == pytest.approx(stats.norm.ppf(peer.pvalue))


def test_another_mix_of_groups_is_no_evidence_and_a_nearer_group_is() -> None:
    rng = np.random.default_rng(1)
    first, second = np.repeat(["near", "far"], (300, 20)), np.repeat(["near", "far"], (60, 400))
    level = {"near": 3.0, "far": 0.0}
    kinds = [
        sample(rng.normal(size=len(g)) + [level[name] for name in g], g) for g in (first, second)
    ]
    assert nearest_test(*kinds, seed=0).p > 0.05 and rank_test(*kinds, seed=0).p > 0.05
    mixed = [sample(kind.value) for kind in kinds]
    assert nearest_test(*mixed, seed=0).p < 1e-6 and rank_test(*mixed, seed=0).ct < -10
    moved = kinds[0]._replace(value=kinds[0].value + 2)
    assert (
        nearest_test(moved, kinds[1], seed=0).p < 1e-3
        and rank_test(moved, kinds[1], seed=0).ct < -4
    )
    away = kinds[0]._replace(value=kinds[0].value - 2)
    assert nearest_test(away, kinds[1], seed=0).p > 0.9 and rank_test(away, kinds[1], seed=0).ct > 4


def test_images_of_one_person_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(2)
    people, once = np.arange(40), rng.normal(size=40)
    second = sample(rng.normal(size=200))
    again = sample(np.repeat(once, 25), people=np.repeat(people, 25))
    for test in (nearest_test, rank_test):
        assert test(again, second, seed=0) == pytest.approx(test(sample(once), second, seed=0))
    assert in_common_groups(again, second)[2] == (1000, 40, 200, 0)


def test_groups_that_one_side_lacks_are_left_out_and_counted() -> None:
    first, second = (
        sample(np.arange(6.0), np.array(list("aabbcc"))),
        sample(np.arange(4.0), np.array(list("bbdd"))),
    )
    left, right, counts = in_common_groups(first, second)
    assert (
        left.group.tolist() == ["b", "b"]
        and right.group.tolist() == ["b", "b"]
        and counts == (2, 2, 2, 4)
    )
    nobody = in_common_groups(first.subset(np.arange(2)), second)
    assert (
        np.isnan(nearest_test(*nobody[:2], seed=0)).all()
        and np.isnan(rank_test(*nobody[:2], seed=0)).all()
    )


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx(
        [0.03, np.nan, 0.06, 0.06], nan_ok=True
    )
