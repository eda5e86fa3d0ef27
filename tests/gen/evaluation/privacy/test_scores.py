"""What the audit computes of a set: planted copies are called, harmless sets raise few alarms."""

from __future__ import annotations

import numpy as np
import pytest

from cmrgen.evaluation.privacy.scores import single_copies
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
