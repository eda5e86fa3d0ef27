"""One thing is told in the singular, with its verb."""

from __future__ import annotations

import pytest

from cmrdata.counting import number_of


@pytest.mark.parametrize(
    ("count", "words", "told"),
    [
        (0, ("groups",), "0 groups"),
        (1, ("groups",), "1 group"),
        (1200, ("training subjects",), "1,200 training subjects"),
        (1, ("training subjects",), "1 training subject"),
        (1, ("axes",), "1 axis"),
        (1, ("batches",), "1 batch"),
        (1, ("groups", "have"), "1 group has"),
        (2, ("groups", "have"), "2 groups have"),
        (1, ("groups", "occur"), "1 group occurs"),
        (1, ("images", "are"), "1 image is"),
    ],
)
def test_a_number_goes_with_its_noun_and_its_verb(count, words, told):
    assert number_of(count, *words) == told
