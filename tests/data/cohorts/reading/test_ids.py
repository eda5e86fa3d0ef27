"""Ids: the same person however a file writes the number, nobody else's, and only patterns are ever
told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.reading.ids import UnclearId, canonical_id, id_pattern, id_patterns, spelled_id

NUMBER = "234" + "5678"  # no participant-like number in the sources


@pytest.mark.parametrize(
    "text",
    [
        NUMBER,
        f" {NUMBER} ",
        f"{NUMBER}.0",
        f"{NUMBER}.",
        f"{NUMBER}.00",
        f'"{NUMBER}"',
        f"'{NUMBER}",
        f'="{NUMBER}"',
        f"00{NUMBER}",
        "2.345678e+06",
        "2.345678E+06",
        "2.3456780e+06",
        f"\ufeff{NUMBER}",
        f"{NUMBER}\u00a0",
        f"“{NUMBER}”",
        int(NUMBER),
        float(NUMBER),
        "２３４５６７８",
        f"{NUMBER}\t",
    ],
)
def test_an_id_is_the_same_however_it_is_written(text):
    assert canonical_id(text) == NUMBER


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("17", "17"),
        (17.0, "17"),
        ("SYN0001", "SYN0001"),
        ("SYN0001.0", "SYN0001"),
        ("0017", "17"),
        ("0", "0"),
        ("000", "0"),
        ("1e5", "1e5"),
        ("-3", "-3"),
        ("", ""),
        ("NA", ""),
        ("nan", ""),
        ("  ", ""),
        ("A1.5", "A1.5"),
    ],
)
def test_canonical_ids(text, name):
    assert canonical_id(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "2.35E+06",
        "2.35e+06",
        "2.34568e+06",
        "2E+06",
        "2e+06",
        "2,345,678",
        "2 345 678",
        "2.345.678",
        "2'345'678",
        "2.3456785e+06",
    ],
)
def test_a_number_that_may_be_several_is_refused_by_pattern(text):
    with pytest.raises(UnclearId) as error:
        canonical_id(text)
    assert not any(part in str(error.value) for part in (text, "2345", "345"))


@given(st.integers(1_000, 9_999_999), st.integers(0, 3))
def test_every_form_of_a_number_is_the_number_or_refused(number, zeros):
    name = str(number)
    assert {
        canonical_id(form)
        for form in (name, f"{number}.0", f" {number}", "0" * zeros + name, f'"{number}"')
    } == {name}
    for form in (
        f"{number:e}",
        f"{number:.2e}",
        f"{number:g}",
        f"{number:,}",
        f"{float(number)!r}",
    ):
        try:
            assert canonical_id(form) == name
        except UnclearId:
            assert form not in (f"{number:e}", f"{float(number)!r}")


@given(st.text(max_size=20))
def test_canonical_is_canonical(text):
    try:
        name = canonical_id(text)
        assert canonical_id(name) == name
    except UnclearId:
        pass


def test_leading_zeros_are_kept_to_be_compared():
    assert spelled_id("0017.0") == "0017" and spelled_id(" 17") == "17"


def test_patterns_tell_nobody():
    assert id_pattern(NUMBER) == "7 digits" and id_pattern("SYN0001") == "3 letters 4 digits"
    assert id_pattern("UKB_7") == "3 letters '_' 1 digit"
    assert id_patterns([]) == "none"
    assert id_patterns(["12345", "54321"]) == "5 digits"
    assert id_patterns(["12345", "54321", "a1"]) == "5 digits (2), 1 letter 1 digit (1)"
    assert id_patterns([str(10**k) for k in range(6)]).endswith("and 3 other patterns")
