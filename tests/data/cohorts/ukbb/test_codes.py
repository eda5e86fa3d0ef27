"""Cells of diagnoses: read whole or not at all. No change of a cell makes it hold fewer codes
without being noticed."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cmrdata.cohorts.ukbb.codes import code_groups, in_cell, prefixes, read_code, read_illness

TITLES = (
    "Essential (primary) hypertension",
    "Paget's disease, other (2)",
    "Heart failure, unspecified",
    "Type 2 diabetes: with x",
    "Vitamin B12 deficiency anaemia",
    'Crohn "b" [x]',
    "COVID-19, virus identified",
    "and/or & other",
)


def read(cell: str) -> list[str | None] | None:
    """The elements; None where the cell is not understood."""
    found = in_cell(cell, read_code)
    assert not (found.odd and found.value is not None)
    return None if found.odd else list(found.value or ())


@pytest.mark.parametrize(
    "text",
    [
        "I500",
        "i500",
        "I50.0",
        " I 50.0 ",
        "I50 0",
        "I50.0 Congestive heart failure",
        "I500X",
        "I50.0: Failure",
        "I50.0 - Failure",
        "I500D",
        "I500*",
        "I50.0\u2020",
        "Ｉ５００",
        "I500\u00a0",
        "\ufeffI500",
        "I50.0&nbsp;Failure",
        "I50.0\tFailure",
        "I50.0+",
        "I50.0 (Failure, x)",
    ],
)
def test_one_code_in_many_spellings(text):
    assert read_code(text).value == "I500"


@pytest.mark.parametrize(
    "text",
    ["I10X", "I10-", "I10.-", "I10.X", "I10 ", "I10A", "I10 Essential (primary) hypertension"],
)
def test_fillers_and_markers_are_no_part_of_a_code(text):
    assert read_code(text).value == "I10"


NO_CODES = [
    "500",
    "4280",
    "428.0",
    "150.0",
    "I",
    "I5",
    "I5.0",
    "IO0",
    "I5O.0",
    "I50.",
    "I50.A",
    "I.500",
    "I50000",
    "I50,0",
    "I50/0",
    "Heart failure",
    "'I500'",
    "I10I500",
    "I10XI500",
    "I10.I500",
    "I10500500",
    "II50",
    "Block I30-I52",
    "Chapter IX",
    "I50 12",
    "?",
    "-",
    "I10\nHeart failure",
    "I10;I500",
    "I10,I500",
    "I10|I500",
    "I10/I500",
    "I10 I500",
    "I10\tI500",
    "I10\nI500",
    "I10, I500",
    "I10 & I500",
    "I10+I500",
    "I10 and I50.0",
    "I10 Essential, I50.0 Heart failure",
    "I10 Essential; I50.0 Heart failure",
    "I10 Essential\nI50.0 Heart failure",
    "I10 (I50.0)",
    "I10 EssentialI50.0 Heart",
    "I10 essential i500",
    "I10 Essential, I 50.0 Heart",
    "I10 Essential, 428.0 Heart",
    "I10 x; heart failure",
    "I10 1 I50",
    "I10_I500",
    "I10\x00I500",
    "I10 A 0",
    "I10 High A 0",
    "I10 x",
    "I10\u200a\u2044I500",
    "{I10,I500}",
    "('I10', 'I500')",
    'c("I10", "I500")',
]


@pytest.mark.parametrize("text", NO_CODES)
def test_what_is_no_single_code_is_not_understood(text):
    assert read_code(text).odd and read_code(text).value is None


@pytest.mark.parametrize("cell", [text for text in NO_CODES if text != "I10|I500"])
def test_a_cell_joined_by_anything_else_is_not_understood(cell):
    assert read(cell) is None


@pytest.mark.parametrize(
    "cell",
    [
        '["I10","I500",null,"I48"]',
        "['I10', 'I500', None, 'I48']",
        "I10|I500||I48",
        "[I10, I500, , I48]",
        "I10 | I50.0 | | I48",
        '["I10 Essential (primary) [x], y","I50.0 Crohn\'s \\"b\\"", null, "I48 Flutter"]',
        '["I10", \'I500\', nan, "I48"]',
        """['I10 High, b', "I50.0 Crohn's", None, 'I48']""",
        "I10 Essential, primary|I50.0 Heart|NA|I48.9 Flutter",
        '["\\u004910","I500",null,"I48"]',
    ],
)
def test_the_known_forms_keep_every_element_at_its_place(cell):
    assert [code and code[:3] for code in read(cell)] == ["I10", "I50", None, "I48"]


@pytest.mark.parametrize(
    "cell",
    [
        '["I10","I500"',
        '"I10","I500"]',
        '["I10" "I500"]',
        '["I10""I500"]',
        '["I10";"I500"]',
        '["I10"|"I500"]',
        "['I10, 'I500']",
        '["I10"]["I500"]',
        '[["I10"],["I500"]]',
        '["I10"]#"I500"]',
        '["I10","I500"]x',
        '["I10,I500"]',
        '["I10|I500"]',
        "[I10 I500]",
        '["I10" , "I500]',
        "[10, 500]",
        '["I10", 500]',
        '{"a": "I10"}',
        "I10|500",
        "I10|I5",
        "I10|I50|0",
        "I10|I50 0 x",
        "[I10 a, b, I50]",
    ],
)
def test_broken_lists_are_not_understood(cell):
    assert read(cell) is None


@pytest.mark.parametrize("length", [244, 255, 32767])
def test_a_text_as_long_as_other_programs_cut_is_not_trusted(length):
    cell = ("I10|" * length)[:length].rstrip("|").ljust(length, "|")
    cell = cell if cell[-1] != "|" else cell[:-1] + "0"
    assert len(cell) == length and read(cell[:length]) is None
    assert read('["I10"' + ', "I10"' * 60 + "]") is not None


codes = st.builds(
    "{}{:02d}{}".format,
    st.sampled_from("ABEIJKNZ"),
    st.integers(0, 99),
    st.sampled_from(["", "0", "9", "42"]),
)
titles = st.sampled_from(("", *TITLES))


def with_title(code: str, title: str) -> str:
    dotted = f"{code[:3]}.{code[3:]}" if len(code) > 3 else code
    return f"{dotted} {title}".strip() if title else code


FORMS = {
    "json": lambda parts: json.dumps(parts),
    "python": lambda parts: repr(parts),
    "pipes": lambda parts: "|".join(part or "" for part in parts),
    "spaced pipes": lambda parts: " | ".join(part or "" for part in parts),
}


@st.composite
def cells(draw, empty: bool = True):
    """(codes, a cell that holds them)."""
    several = draw(st.lists(codes, min_size=1, max_size=6))
    titled = draw(st.booleans())
    elements = [with_title(code, draw(titles)) if titled else code for code in several]
    if empty and draw(st.integers(0, 4)) == 0:
        at = draw(st.integers(0, len(several)))
        several, elements = (
            [*several[:at], None, *several[at:]],
            [*elements[:at], None, *elements[at:]],
        )
    return several, FORMS[draw(st.sampled_from(sorted(FORMS)))](elements)


@given(cells())
def test_a_cell_of_the_grammar_comes_back(given_cell):
    several, cell = given_cell
    assert read(cell) == several


MARKS = [
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "/",
    ";",
    ",",
    ", ",
    "; ",
    "&",
    "+",
    ".",
    "-",
    "_",
    ":",
    "",
    "|",
    "\u00a0",
    "\u200b",
    "\ufeff",
    "&#124;",
    "\\",
    "x",
    "X",
    "D",
    "0",
    "I",
    "\x00",
    "\uff5c",
    "\u2502",
    " and ",
    "^",
    "~",
    "$",
    "#",
    "'",
    '"',
    "[",
    "]",
    "(",
    ")",
    "null",
    "||",
]


def check_noticed(several: list[str], cell: str) -> None:
    """A cell made of `several` codes by a change is understood with as many codes at least, or not
    at all."""
    found = read(cell)
    assert found is None or len(found) >= len(several), (cell, found)


@given(cells(empty=False), st.sampled_from(MARKS))
@example((["I10", "I500"], "I10|I500"), " ")
def test_other_separators_never_lose_a_code(given_cell, mark):
    several, cell = given_cell
    for separator in ("|", " | ", ", ", '", "', "', '"):
        if separator in cell:
            check_noticed(several, cell.replace(separator, mark))
            check_noticed(several, cell.replace(separator, mark, 1))


@settings(max_examples=400)
@given(cells(empty=False), st.integers(0, 400), st.sampled_from(MARKS), st.booleans())
def test_a_changed_place_never_loses_a_code(given_cell, place, mark, insert):
    several, cell = given_cell
    at = place % len(cell)
    check_noticed(several, cell[:at] + mark + cell[at + (not insert) :])


@given(cells(empty=False), st.integers(0, 400))
def test_a_list_that_is_cut_is_not_understood(given_cell, place):
    _, cell = given_cell
    if cell.startswith("["):
        assert (
            read(cell[: 1 + place % (len(cell) - 1)]) is None
            or place % (len(cell) - 1) == len(cell) - 2
        )


@given(
    cells(empty=False),
    st.sampled_from(
        [
            str.lower,
            str.title,
            lambda s: f" {s}\u00a0",
            lambda s: f"\ufeff{s}",
            str.swapcase,
            lambda s: s.translate({ord(d): ord(d) + 0xFEE0 for d in "0123456789I"}),
        ]
    ),
)
def test_case_and_what_cannot_be_seen_change_nothing(given_cell, change):
    several, cell = given_cell
    found = read(change(cell))
    assert found is None or found == several


@given(st.text(max_size=40))
def test_any_text_is_codes_or_not_understood(text):
    for code in read(text) or ():
        assert code is None or (code[0].isalpha() and code[1:].isdecimal() and 3 <= len(code) <= 5)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1076", "1076"),
        ("1076.0", "1076"),
        ("heart failure/pulmonary odema", "1076"),
        ("Cardiomyopathy", "1079"),
        ("hypertrophic cardiomyopathy (hcm / hocm)", "1588"),
        ("hypertension", "hypertension"),
        ("99999", "99999"),
        ("", None),
    ],
)
def test_illnesses_are_numbers_or_titles(text, code):
    found = read_illness(text)
    assert found.value == code and not found.odd


@pytest.mark.parametrize(
    "text",
    [
        "1076 1065",
        "1076;1065",
        "10",
        "107",
        "heart failure",
        "cardiomyopathy, other",
        "1076 heart failure",
        "hypertension|1076",
        "pulmonary oedema",
        "12345678",
        "-1",
        "congestive cardiac failure",
        "HF",
        "ccf",
        "left ventricular dysfunction",
    ],
)
def test_what_may_hide_heart_failure_is_not_understood(text):
    assert read_illness(text).odd


def test_groups_name_their_settings():
    assert code_groups("narrow", without=["I42.1"], conditions=["af"]) == {
        "hf": ("I50",),
        "af": ("I48",),
        "without": ("I421",),
    }
    assert prefixes(["i25.5", "I50*"]) == ("I255", "I50")
