"""A count and its noun."""

from __future__ import annotations

import pytest

from cmrdata.words import number_of


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (2000, "2,000 runs")]
)
def test_one_thing_is_one_and_any_other_number_is_several(count, words):
    assert number_of(count, "run") == words


def test_a_plural_of_its_own():
    assert number_of(3, "study", "studies") == "3 studies"
    assert number_of(1, "study", "studies") == "1 study"
