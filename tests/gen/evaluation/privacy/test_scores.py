"""What the audit computes of a set: planted copies are called, harmless sets raise few alarms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation.privacy import scores
from cmrgen.evaluation.privacy.nearest import Nearest
from cmrgen.evaluation.privacy.scores import MIN_TAIL, Side, single_copies, with_alarms
from support.audited import both_measures, harmless


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


def test_only_central_slices_are_compared() -> None:
    rng = np.random.default_rng(3)
    held = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    made = harmless(rng, np.zeros(12), np.arange(240) % 12, sources=240)
    middle = np.arange(240) % 3 == 0
    far = made._replace(similarity=np.where(middle, made.similarity, 99.0), middle=middle)
    rows = both_measures(far, held).set_index(["measure", "test"])
    assert rows.images["sight", "nearest"] == 80 and rows.images["sight", "copies"] == 240
    assert rows.p["sight", "C_T"] > 0.001 and rows.value["sight", "nearest"] < 15


def test_too_few_real_images_call_no_copy_and_enough_do() -> None:
    unseen = np.linspace(-1, 1, MIN_TAIL)
    short = single_copies(np.array([99.0]), unseen[:-1])
    assert short.copies is None and np.isnan(short.p) and short.against == MIN_TAIL - 1
    assert short.note.startswith("only 99 real images to compare with")
    found = single_copies(np.array([99.0, 0.0]), unseen)
    assert found.copies is not None and found.copies.tolist() == [True, False] and not found.note
    # below the 95th percentile a chance is a rank: of 101, all but the two lowest lie beyond
    low = single_copies(np.array([-0.985]), unseen)
    assert low.p == pytest.approx((1 + 99) / 101)
    # beyond it, a tail: of the five excesses over the percentile, 0.05 (1 + x / sum)^-5
    edge = np.quantile(unseen, 0.95)
    beyond = unseen[unseen > edge] - edge
    assert len(beyond) == 5 and single_copies(np.array([1.5]), unseen).p == pytest.approx(
        0.05 * (1 + (1.5 - edge) / beyond.sum()) ** -5
    )


def test_held_out_people_weigh_as_the_sets_groups_do() -> None:
    held = np.array(["a", "a", "b", "c"])
    weights = scores._weights(np.array(["a", "b", "b", "b", "d"]), held)
    assert weights == pytest.approx([1 / 8, 1 / 8, 3 / 4, 0])
    assert scores._weights(np.array(["d"]), held) == pytest.approx([1 / 4] * 4)
    values = np.arange(20.0)[::-1]
    even = np.full(20, 1 / 20)
    # exactly 5 % lies beyond the second largest
    assert scores._quantile(values, even) == 18
    assert scores._quantile(np.array([1.0, 2.0]), np.array([0.94, 0.06])) == 2


def test_groups_by_hand() -> None:
    """Of 40 held-out images 2 lie beyond tau, as 5 % do; of the set's 30 of group a ten do."""
    held = Side(
        np.repeat(["a", "b"], 20),
        np.arange(40),
        np.r_[np.arange(20.0), np.arange(20.0)],
        np.zeros(40),
        np.where(np.arange(40) < 10, -1.0, 1.0),
        np.ones(40, bool),
    )
    group = np.repeat(["a", "b"], (30, 10))
    similarity = np.where(np.arange(40) < 10, 18.5, 0.0)
    made = held._replace(
        group=group, similarity=similarity, excess=np.where(np.arange(40) < 5, -1.0, 0.0)
    )
    called = scores.Called(np.arange(40) % 10 == 0, 0.5, 40)
    tau, rows = scores.group_rows(made, held, called=called, reference=np.full(40, 18.0), seed=0)
    assert tau == 18 and [row["group"] for row in rows] == ["all", "a", "b"]
    everybody, first, second = rows
    assert (everybody["n"], first["n"], second["n"]) == (40, 30, 10)
    assert [row["candidates"] for row in rows] == [10, 10, 0]
    assert [row["copies"] for row in rows] == [4, 3, 1]
    assert first["share"] == pytest.approx(1 / 3) and first["authentic"] == pytest.approx(5 / 30)
    # at the set's mix a weighs three times b: half of a's people, none of b's are authentic
    assert everybody["expected"] == pytest.approx(0.05)
    assert everybody["held_authentic"] == pytest.approx(0.75 / 2)
    assert [row["matched"] for row in rows] == [0, 0, 0]  # none of 18 lies beyond 18
    assert [row["few"] for row in rows] == [False, False, True]
    assert np.isnan(everybody["p_holm"]) and first["p_holm"] == min(1, 2 * first["p"])


def test_similarity_to_the_source_by_hand() -> None:
    near = Nearest(
        np.array([0.5, 0.5, 0.9, 0.1]),
        np.zeros(4, int),
        np.array([0.6, 0.5, 0.8, np.nan]),
        np.zeros(4, int),
    )
    row = scores.source_similarity(near, np.array([7, 7, 8, 9]), 0.6)
    assert (row["n"], row["sources"], row["tau"]) == (3, 2, 0.6)
    assert row["nearest_is_source"] == pytest.approx(1 / 3)  # equally near is not nearer
    assert row["source_beyond"] == pytest.approx(1 / 3)  # .6 is not beyond .6
    assert row["others_beyond"] == pytest.approx(1 / 3)
    assert (row["source_similarity"], row["other_similarity"]) == (0.6, 0.5)
    nobody = scores.source_similarity(near._replace(own=np.full(4, np.nan)), np.arange(4), 0.6)
    assert nobody["n"] == 0 and np.isnan(nobody["source_similarity"])


def test_alarms_are_raised_up_to_their_level_and_by_no_other_test() -> None:
    names = ["nearest", "nearest without the source", "C_T", "copies"]
    rows = [
        {"measure": measure, "test": name, "p": p, "value": 0.0, "by_chance": 0.0, "alarm_from": 1}
        | {"images": 1, "sources": 1, "held_out": 1, "left_out": 0}
        for measure, chances in (
            ("sight", (0.03 / 4, 1e-9, 0.5, 0.01)),
            ("features", (0.2, 0.2, 0.4, 0.0101)),
        )
        for name, p in zip(names, chances, strict=True)
    ]
    table = with_alarms(pd.DataFrame(rows)).set_index(["measure", "test"])
    assert table.p_holm["sight", "nearest"] == pytest.approx(0.03)
    assert table.index[table.alarm].tolist() == [("sight", "nearest"), ("sight", "copies")]
    assert table.p_holm.isna().sum() == 4


def test_an_excess_is_over_what_the_training_image_has_itself() -> None:
    def search(training: np.ndarray, own: np.ndarray) -> Nearest:
        """Training row k is nearest to somebody else by k tenths."""
        assert own.tolist() == [training[0] // 2, training[1] // 2]
        other = training / 10
        none = np.full(len(training), np.nan)
        return Nearest(other, np.zeros(len(training), int), none, none)

    def near(values: list[float], rows: list[int]) -> Nearest:
        own = np.full(len(rows), np.nan)
        return Nearest(np.array(values), np.array(rows, int), own, np.full(len(rows), -1))

    kinds = (near([0.5, 1.0], [4, 2]), near([0.2], [2]), near([], []))
    found = scores.excesses(search, np.arange(6), np.arange(6) // 2, kinds)
    assert [len(kind) for kind in found] == [2, 1, 0]
    assert found[0] == pytest.approx(
        [np.arctanh(0.5) - np.arctanh(0.4), np.arctanh(1 - 1e-6) - np.arctanh(0.2)]
    )
    assert found[1] == pytest.approx([0])
