"""Cells of tables: each reader takes its grammar whole, what is not understood is said to be, and
no example names anybody."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.cohorts.reading.cells import (
    AGE_UNITS,
    BMI_UNITS,
    LENGTH_UNITS,
    NA,
    PLACEHOLDERS,
    WEIGHT_UNITS,
    ZEROS,
    clean,
    date_reader,
    day_first,
    quantity,
    read_category,
    read_coded_sex,
    read_month,
    read_sex,
    shape,
)

BMI, AGE = quantity(12, 70, units=BMI_UNITS), quantity(0, 120, units=AGE_UNITS)
HEIGHT, WEIGHT = (
    quantity(100, 250, units=LENGTH_UNITS, metres=True),
    quantity(20, 400, units=WEIGHT_UNITS),
)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (BMI, "26.4", 26.4),
        (BMI, "26,4", 26.4),
        (BMI, " 26.40 ", 26.4),
        (BMI, "2.64e1", 26.4),
        (BMI, "+26.4", 26.4),
        (BMI, "26.4 kg/m2", 26.4),
        (BMI, "26.4kg/m²", 26.4),
        (BMI, "26,412", 26.412),
        (BMI, "\ufeff26.4", 26.4),
        (BMI, "２６．４", 26.4),
        (BMI, "26.4\u00a0", 26.4),
        (HEIGHT, "180", 180),
        (HEIGHT, "1.8", 180),
        (HEIGHT, "1,80 m", 180),
        (HEIGHT, "180 cm", 180),
        (HEIGHT, "1800 mm", 180),
        (WEIGHT, "81 kg", 81),
        (WEIGHT, "81000 g", 81),
        (AGE, "66 years", 66),
        (AGE, "66.5", 66.5),
        (AGE, "66 y.", 66),
        (quantity(-15, 20, signed=True), "\u22123,5", -3.5),
        (quantity(-15, 20, signed=True), "-3", -3),
    ],
)
def test_numbers_are_understood_with_units_and_either_comma(read, text, value):
    assert read(text).value == pytest.approx(value) and not read(text).odd


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (BMI, ""),
        (BMI, "NA"),
        (BMI, "."),
        (BMI, "-1"),
        (BMI, "-3.0"),
        (BMI, "-818"),
        (BMI, "Prefer not to answer"),
        (BMI, "265"),
        (BMI, "1e999"),
        (BMI, "-1e999"),
        (BMI, "-26.4"),
        (BMI, "0"),
        (HEIGHT, "18"),
        (HEIGHT, "0"),
        (WEIGHT, "8"),
        (AGE, "130"),
    ],
)
def test_what_nobody_answered_or_can_be_is_missing(read, text):
    found = read(text)
    assert found.value is None and not found.odd and bool(found.missing) == (text not in NA)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (BMI, "x"),
        (BMI, "26.4.1"),
        (BMI, "1,234,567"),
        (BMI, "26 412"),
        (BMI, "26.4 lb"),
        (BMI, "inf"),
        (BMI, "0x1a"),
        (BMI, "1_0"),
        (BMI, "26.4 27.1"),
        (BMI, "26-28"),
        (BMI, "~26"),
        (BMI, "26*"),
        (HEIGHT, "5'11\""),
        (HEIGHT, "5 ft 11"),
        (WEIGHT, "12 st 4"),
        (AGE, "sixty"),
        (quantity(1850, 2100, whole=True), "1950.5"),
    ],
)
def test_what_is_no_number_is_not_understood(read, text):
    assert read(text).odd and read(text).value is None


@given(
    st.floats(12, 70),
    st.sampled_from(["{}", "{} ", "{} kg/m2", "\ufeff{}"]),
    st.sampled_from([",", "."]),
)
def test_a_number_comes_back_however_it_is_written(value, form, point):
    text = form.format(f"{value:.6f}".replace(".", point))
    assert BMI(text).value == pytest.approx(value, abs=1e-6)


@given(st.text(max_size=12))
def test_any_text_is_a_number_in_range_or_none(text):
    for read in (BMI, HEIGHT, WEIGHT, AGE):
        found = read(text)
        assert found.value is None or 0 <= found.value <= 400
        assert not (found.odd and found.value is not None) and not (found.odd and found.missing)


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("0", "F"),
        ("1", "M"),
        ("0.0", "F"),
        ("1.", "M"),
        ("Female", "F"),
        (" MALE ", "M"),
        ("m", "M"),
        ("woman", "F"),
        ("ｆ", "F"),
    ],
)
def test_sex_0_is_female(text, sex):
    assert read_coded_sex(text).value == sex


@pytest.mark.parametrize(
    "text",
    [
        "2",
        "-1.5",
        "0.5",
        "10",
        "00",
        "homme",
        "Mujer",
        "weiblich",
        "W",
        "H",
        "男",
        "True",
        "M/F",
        "female?",
        "malefemale",
    ],
)
def test_no_other_coding_of_sex_is_guessed(text):
    assert read_coded_sex(text).odd and read_sex(text).odd


def test_without_a_coding_numbers_are_no_sex():
    assert read_sex("0").odd and read_sex("1").odd and read_sex("F").value == "F"
    for text in ("", "NA", "-3", "-1", "Prefer not to answer"):
        assert read_sex(text).value is None and not read_sex(text).odd


@pytest.mark.parametrize("month", ["9", "09", "9.0", "September", "sept", "SEP", "Sep."])
def test_months_are_numbers_or_names(month):
    assert read_month(month).value == 9


@pytest.mark.parametrize("month", ["September 9", "Sepp", "septembre", "9/10", "mai"])
def test_other_months_are_not_understood(month):
    assert read_month(month).odd


DAY = date(2016, 5, 20)
WRITTEN = [
    "2016-05-20",
    "2016/05/20",
    "2016.5.20",
    "20160520",
    "20.05.2016",
    "20may2016",
    "20-May-2016",
    "20 May 2016",
    "20th May 2016",
    "May 20, 2016",
    "20/05/2016",
    "20-05-2016",
    "2016-05-20T00:00:00.000Z",
    "2016-05-20 00:00:00",
    "2016-05-20 10:32:11",
    "2016-05-20 00:00:00+00:00",
    "2016-05-20T00:00:00+01:00",
    "2016-05-20 12:00 AM",
    "20may2016 00:00:00",
    "\ufeff2016-05-20",
    "2016\u201005\u201020".replace("\u2010", "-"),
    "２０１６-05-20",
    " 2016-05-20\u00a0",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_dates_are_understood(text):
    assert date_reader(day_first=True)(text).value == DAY


@pytest.mark.parametrize(
    "text",
    [
        "2016",
        "2016-05",
        "05/2016",
        "May 2016",
        "42510",
        "42510.0",
        "1463702400",
        "20/05/16",
        "5/20/2016",
        "2016-02-30",
        "2016-13-01",
        "2016-05-20 10:32:11Z",
        "2016-05-19T23:00:00Z",
        "2016-05-19T23:00:00+00:00",
        "2016-05-20 25:00",
        "2016-05-20x",
        "2016-05-20 2017-01-01",
        "20 mai 2016",
        "20-Okt-2016",
        "20maybe2016",
        "2016--05-20",
        "2016-05/20",
        "20052016",
        "soon",
        "31/04/2016",
        "2016-W20",
        "0",
    ],
)
def test_what_is_no_day_is_not_understood(text):
    assert date_reader(day_first=True)(text).odd


def test_the_order_of_day_and_month_is_what_all_dates_of_a_file_tell():
    assert (
        day_first(["01/02/2016", "20/05/2016"]) is True
        and day_first(["01/02/2016", "05-20-2016"]) is False
    )
    assert day_first(["01/02/2016", "03/04/2015", "2016-05-20"]) is None
    assert day_first(["20/05/2016", "05/20/2016"]) is None  # both: a mixture
    assert date_reader(day_first=True)("01/02/2016").value == date(2016, 2, 1)
    assert date_reader(day_first=False)("01/02/2016").value == date(2016, 1, 2)
    assert (
        date_reader(day_first=None)("01/02/2016").odd
        and date_reader(day_first=None)("20/05/2016").odd
    )
    assert date_reader(day_first=None)("03/03/2016").value == date(2016, 3, 3)


@pytest.mark.parametrize(
    "text",
    [
        *PLACEHOLDERS,
        *ZEROS,
        "01/01/1900",
        "1850-01-01",
        "9999-12-31",
        "0001-01-01",
        "-1",
        "NA",
        "Do not know",
    ],
)
def test_placeholders_are_no_dates(text):
    found = date_reader(day_first=True)(text)
    assert found.value is None and not found.odd


@given(
    st.dates(date(1950, 1, 1), date(2037, 1, 1)),
    st.booleans(),
    st.sampled_from(["", "T00:00:00Z", " 00:00:00"]),
)
def test_a_day_comes_back_however_it_is_written(day, first, time):
    forms = [
        day.isoformat(),
        day.strftime("%Y%m%d"),
        day.strftime("%d%b%Y"),
        day.strftime("%d %B %Y"),
        day.strftime("%d.%m.%Y"),
        day.strftime("%d/%m/%Y" if first else "%m/%d/%Y"),
    ]
    expected = None if day.isoformat() in PLACEHOLDERS + ZEROS else day
    assert {date_reader(day_first=first)(form + time).value for form in forms} == {expected}


@given(
    st.dates(date(1950, 1, 1), date(2037, 1, 1)),
    st.integers(0, 9),
    st.sampled_from(list("0129-/ .T:xO")),
    st.booleans(),
)
def test_a_changed_character_never_makes_another_form_of_the_same_day(day, place, mark, insert):
    """Whatever is understood is a day that the text spells; a digit may be another digit, but no
    part is passed over."""
    text = day.isoformat()
    changed = text[:place] + mark + text[place + (not insert) :]
    found = date_reader()(changed)
    if found.value:
        digits = "".join(filter(str.isdigit, changed))
        parts = (f"{found.value.year}", f"{found.value.month}", f"{found.value.day}")
        assert sum(map(int, parts)) and all(part in digits for part in parts) and len(digits) <= 8


def test_categories_are_as_written():
    assert [
        read_category(text).value
        for text in ("11025", "11025.0", " Cheadle (imaging) ", "-1", "Do not know")
    ] == ["11025", "11025", "Cheadle (imaging)", None, None]


@given(st.text(max_size=60))
def test_an_example_shows_a_pattern_and_nothing_of_the_text(text):
    shown = shape(text)
    assert len(shown) <= 32 and not any(
        mark.isdigit() and mark != "9" for mark in shown.replace("U+", "").split("<")[0]
    )
    assert not set(shown.split("<")[0]) & set(
        "bcdefghijklmnopqrstuvwxyzBCDEFGHIJKLMNOPQRSTUVWXYZ"
    ) - set("nrt")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("I10 I500", "A99 A999"),
        ("I10\u00a0I500", "A99<U+00A0>A999"),
        ("i10\tI50.0", "a99\\tA99.9"),
        ("31/12/2015", "99/99/9999"),
        ("I50.0 Congestive heart failure, I10", "A99.9 a+ a+ a+, A99"),
        ("\ufeffI10", "<U+FEFF>A99"),
        ("SYN0001", "a+9999"),
        ("1234567890123", "9+"),
        ("homme", "a+"),
        ("x" * 40 + "-" * 40, "a+---------------------------..."),
    ],
)
def test_patterns(text, pattern):
    assert shape(text) == pattern


def test_text_is_cleaned_of_what_cannot_be_seen():
    assert clean("\ufeff I10&nbsp;&amp; x\u200b\u00ad ") == "I10 & x" and clean("a&b") == "a&b"
