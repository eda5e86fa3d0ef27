"""Names of columns: every export's and package's spelling is the same field, and nothing else
is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.ukbb.columns import TITLES, parse_column, similar
from support.ukbb_exports import NAMES, plain, stata, tab


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for key, names in NAMES.items() for name in names]
)
def test_every_spelling_of_a_column_is_parsed(name, key):
    assert parse_column(name) == key


@given(st.integers(1, 200_000).map(str), st.integers(0, 3), st.integers(0, 400))
def test_spellings_are_parsed_for_any_field(field, instance, array):
    for spelling in (tab, plain, stata):
        assert parse_column(spelling(field, instance, array)) == (field, instance, array)
    assert parse_column(f"participant.p{field}_i{instance}_a{array}") == (field, instance, array)


@given(st.text(max_size=60))
def test_any_text_is_a_column_or_none(text):
    key = parse_column(text)
    assert key is None or (isinstance(key[0], str) and key[1] >= 0 and key[2] >= 0)


def test_every_title_is_that_of_its_field():
    for title, field in TITLES.items():
        assert parse_column(title)[0] == field
        for spelling in (
            title.upper(),
            title.replace(" ", "."),
            title.replace(" ", "_").lower(),
            f"  {title}  ",
        ):
            assert parse_column(spelling)[0] == field


@pytest.mark.parametrize(
    ("field", "names", "name"),
    [
        ("53", ["label", "years_since_f53_2_0"], "years_since_f53_2_0"),
        ("53", ["date_attending_centre"], "date_attending_centre"),
        ("31", ["sex_male", "x"], "sex_male"),
        ("31", ["31"], "31"),
        ("21001", ["bmi_at_imaging"], "bmi_at_imaging"),
        ("41270", ["ukb_41270_array_0"], "ukb_41270_array_0"),
        ("31", ["unisex", "label", "131"], None),
        ("53", ["date of birth", "assessment"], None),
    ],
)
def test_what_looks_like_a_field_is_found(field, names, name):
    assert similar(field, names) == name
