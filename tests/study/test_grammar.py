"""Overrides as Hydra's grammar reads them."""

from __future__ import annotations

import pytest

from cmrstudy.grammar import SWEPT, UNREADABLE, Override, parsed, value_of


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("a=1", 1),
        ("a=1.5", 1.5),
        ("a=null", None),
        ("a=true", True),
        ("a=x", "x"),
        ("a='x y'", "x y"),
        ('a="1"', "1"),
        ("a=[1,'b',[c]]", [1, "b", ["c"]]),
        ("a={b:'c',1:[2]}", {"b": "c", "1": [2]}),
        ("a=1,2", SWEPT),
        ("a=range(3)", SWEPT),
        ("a=[1", UNREADABLE),
        ("a", UNREADABLE),
    ],
)
def test_a_value_is_what_hydra_makes_of_it(typed, value):
    found = value_of(typed)
    assert found is value if value in (SWEPT, UNREADABLE) else found == value
    assert type(found) is type(value)


def test_overrides_keep_their_order_and_deletions_have_no_value():
    assert parsed(["model.lr='1'", "~trainer.logger", "+x=[1]", "cohort=acdc"]) == [
        Override("model.lr", "1", False),
        Override("trainer.logger", None, True),
        Override("x", [1], False),
        Override("cohort", "acdc", False),
    ]
