"""Flags of subjects: joined, split and counted."""

from __future__ import annotations

from cmrdata import flags


def test_flags_are_split_at_semicolons_and_lose_their_counts() -> None:
    assert flags.split_flags("slices_dropped:2;nonfinite") == ["slices_dropped", "nonfinite"]
    assert flags.split_flags("") == flags.split_flags(";") == []


def test_flags_of_rows_are_joined_once_each_in_order() -> None:
    assert flags.joined(["b;a:1", "", "a:1;c", "b"]) == "b;a:1;c"
    assert flags.joined([]) == flags.joined(["", ""]) == ""


def test_a_subject_counts_once_for_a_flag_and_the_most_frequent_comes_first() -> None:
    counted = flags.count_flags(["b:1;b:2;a", "c", "c", "a", ""])
    assert list(counted.items()) == [("a", 2), ("c", 2), ("b", 1)]
    assert flags.count_flags([]) == {}


def test_every_flag_has_its_words() -> None:
    for name, words in flags.FLAGS.items():
        assert words and not set(name) & set(":; ") and not words.endswith(".")
