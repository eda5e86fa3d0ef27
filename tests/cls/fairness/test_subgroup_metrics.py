"""Every metric of every subgroup has n and an interval."""

from __future__ import annotations

import pytest

from support.fake_runs import (
    ARMS,
    one_study,
    runs,
    small,
)
from support.printed import measured, rows_of


def test_every_number_has_n_and_an_interval_around_it():
    rows = measured(small(seeds=4, n=600), resamples=400, permutations=8).subgroups
    single = rows[~rows.axis.str.contains(" x ")]
    assert single[["n", "positives", "seeds", "mean", "sd"]].notna().all(axis=None)
    told = single[single.note == ""]
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
