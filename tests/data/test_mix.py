"""Two sets of images with one mix of groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.mix import equal_mix


def test_a_mix_has_equally_many_of_each_group():
    left, right = ["a"] * 5 + ["b"] * 2 + [None], ["b"] * 4 + ["a"] * 3 + ["c"]
    rows = equal_mix(
        pd.Series(left, dtype=object), pd.Series(right, dtype=object), np.random.default_rng(0)
    )
    for side, at in zip((left, right), rows, strict=True):
        assert sorted(side[k] for k in at) == ["a", "a", "a", "b", "b"] and len(set(at)) == 5
    assert [
        len(x) for x in equal_mix(np.array(["a"]), np.array(["b"]), np.random.default_rng(0))
    ] == [0, 0]


@pytest.mark.parametrize("seed", range(3))
def test_a_mix_is_sorted_drawn_by_the_generator_and_of_every_row_once(seed: int) -> None:
    left, right = np.array(["a", "b"] * 20), np.array(["b", "a", "a", "a"] * 4)
    rows = equal_mix(left, right, np.random.default_rng(seed))
    again = equal_mix(left, right, np.random.default_rng(seed))
    for side, at, same in zip((left, right), rows, again, strict=True):
        assert np.array_equal(at, same) and np.array_equal(at, np.unique(at))
        values, counts = np.unique(side[at], return_counts=True)
        assert dict(zip(values, counts, strict=True)) == {"a": 12, "b": 4}
    other = equal_mix(left, right, np.random.default_rng(seed + 100))
    assert not np.array_equal(other[0], rows[0])


def test_the_smaller_side_is_taken_whole_and_unknown_values_are_left_out() -> None:
    left, right = pd.Series(["a", None, "a", np.nan]), pd.Series([None, "a", "a", "a", "c"])
    own, others = equal_mix(left, right, np.random.default_rng(0))
    assert own.tolist() == [0, 2] and len(others) == 2 and set(others) <= {1, 2, 3}


def test_sets_without_a_common_value_share_nothing() -> None:
    for left, right in ((["a"], ["b"]), ([], ["b"]), ([], [])):
        rows = equal_mix(np.array(left, object), np.array(right, object), np.random.default_rng(0))
        assert [len(at) for at in rows] == [0, 0] and all(at.dtype == np.int64 for at in rows)
