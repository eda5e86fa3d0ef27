"""Two-sample tests of the audit: exact, blind to the mix of groups and to repeated images, and
without false alarms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

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
from cmrgen.evaluation.privacy.membership import loss_attack
from cmrgen.evaluation.privacy.scores import Side, set_tests, single_copies, with_alarms
from cmrgen.evaluation.privacy.verdicts import audit_verdicts, membership_verdict


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


@pytest.mark.slow  # 60 sets each
@pytest.mark.parametrize("size", [36, 216, 720])
def test_harmless_sets_rarely_raise_an_alarm_and_copies_do(size: int) -> None:
    """Images of a source alike, groups of different levels, another mix, few held-out people; and
    planted copies."""
    rng = np.random.default_rng(size)
    levels, alarms, repeats = rng.normal(size=12), 0, 60
    mix = np.repeat(np.arange(12), [120, 60, 40, 30, 20, 10, 5, 5, 4, 3, 2, 1])
    for _ in range(repeats):
        made, held = (
            harmless(rng, levels, np.arange(size) % 12),
            harmless(rng, levels, mix, sources=300),
        )
        alarms += bool(both_measures(made, held).alarm.any())
    assert alarms <= 9  # 5 % are expected; 9 of 60 lie beyond 99.8 %


@pytest.mark.parametrize("size", [36, 216, 2000])
def test_planted_copies_are_all_called(size: int) -> None:
    rng, planted = np.random.default_rng(size), 5
    made, held = (harmless(rng, np.zeros(12), np.arange(n) % 12, sources=300) for n in (size, 300))
    before = both_measures(made, held).set_index(["measure", "test"])
    made.similarity[:planted], made.excess[:planted] = 9.0, 9.0
    called = single_copies(made.excess, held.excess)
    assert (
        called.copies is not None
        and called.copies[:planted].all()
        and called.copies.sum() <= planted + 1
    )
    after = both_measures(made, held).set_index(["measure", "test"])
    assert after.alarm["sight", "copies"] and not before.alarm["sight", "copies"]
    assert after.value["sight", "nearest"] > before.value["sight", "nearest"]


def harmless(
    rng: np.random.Generator, levels: np.ndarray, groups: np.ndarray, *, sources: int = 30
) -> Side:
    people = (
        rng.permutation(np.arange(len(groups)) % sources)
        if sources < len(groups)
        else np.arange(len(groups))
    )
    own = rng.normal(size=len(groups))
    value = levels[groups] + own[people] + 0.4 * rng.normal(size=len(groups))
    return Side(
        groups,
        people,
        value,
        value,
        rng.normal(size=len(groups)) + own[people],
        np.ones(len(groups), bool),
    )


def both_measures(made: Side, held: Side) -> pd.DataFrame:
    rows = []
    for measure in ("sight", "features"):
        called = single_copies(made.excess, held.excess)
        rows += [
            {"measure": measure, **row} for row in set_tests(made, held, called=called, seed=0)
        ]
    return with_alarms(pd.DataFrame(rows))


def test_only_central_slices_are_compared() -> None:
    rng = np.random.default_rng(3)
    held = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    made = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    middle = np.arange(240) % 3 == 0
    far = made._replace(similarity=np.where(middle, made.similarity, 99.0), middle=middle)
    rows = both_measures(far, held).set_index(["measure", "test"])
    assert rows.images["sight", "nearest"] == 80 and rows.images["sight", "copies"] == 240
    assert rows.p["sight", "C_T"] > 0.001 and rows.value["sight", "nearest"] < 15


def test_words_say_what_was_tested_and_what_not() -> None:
    rng = np.random.default_rng(4)
    held = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    groups = pd.DataFrame(
        {
            "measure": "sight",
            "group": ["all", "a", "b"],
            "p_holm": [np.nan, 0.001, 0.5],
            "few": False,
        }
    )
    source = pd.DataFrame({"measure": ["sight"], "n": [0]})
    quiet = both_measures(held._replace(person=np.arange(240)), held)
    loud = both_measures(held._replace(similarity=held.similarity + 3), held)
    for table, start in (
        (quiet, "By what is seen: no evidence that"),
        (loud, "By what is seen: the set lies nearer"),
    ):
        said = audit_verdicts(table[table.measure == "sight"], groups, source)
        assert said[0].startswith(start) and "240 source subjects, 240 held-out people" in said[0]
        row = table.iloc[0]
        assert (
            f"{row.value:.1f} are the set's, {row.by_chance:.1f} by chance at equal mix of groups"
            in said[0]
        )
        assert ("By itself in a." in said[0]) == table.alarm[0]
    few = both_measures(harmless(rng, np.zeros(12), np.arange(36) % 12, sources=3), held)
    assert (
        "one image of each of fewer than 10 source subjects"
        in audit_verdicts(few, groups, source.iloc[[0, 0]].assign(measure=["sight", "features"]))[0]
    )


def test_membership_is_judged_within_groups() -> None:
    rng = np.random.default_rng(5)
    groups = np.arange(240) % 12
    level = 5 * rng.normal(size=12)[groups]
    x, y = level + rng.normal(size=240) - 0.6, level + rng.normal(size=240)
    blind, apart = loss_attack(x, y, seed=0), loss_attack(x, y, seed=0, groups=(groups, groups))
    assert apart.p < 1e-4 < blind.p and apart.auc == blind.auc
    assert membership_verdict(apart._asdict()).startswith(
        "By the generator's loss: training images can be told from"
    )
    quiet = membership_verdict(loss_attack(y, y[::-1], seed=0)._asdict())
    assert (
        quiet.startswith("By the generator's loss: no evidence that") and "chance .5, p = " in quiet
    )
