"""How cells of a subject table are written: each reader takes a documented grammar whole and leaves
out nothing silently.

A cell is understood, missing (nothing is known) or not understood. Nothing is guessed: a text of
which only a part fits is not understood.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any, NamedTuple

NA = (
    "",
    "NA",
    "N/A",
    "n/a",
    "<NA>",
    "#N/A",
    "NaN",
    "nan",
    "NaT",
    "NULL",
    "null",
    "None",
    "none",
    ".",
)
NO_ANSWER = ("do not know", "prefer not to answer", "not known", "unknown")
UNANSWERED = "no answer"  # why such a cell is missing
# characters without a width
INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
MONTH_NAMES = {name[:3]: k for k, name in enumerate(MONTHS, 1)} | {
    name: k for k, name in enumerate(MONTHS, 1)
}
MONTH_NAMES["sept"] = 9
# days of UK Biobank's coding 819 that stand for unknown ones
PLACEHOLDERS = ("1900-01-01", "1901-01-01", "1902-02-02", "1903-03-03", "1909-09-09", "2037-07-07")
# day 0 of Excel, SAS, Stata, Unix
ZEROS = (
    "1899-12-30",
    "1899-12-31",
    "1904-01-01",
    "1960-01-01",
    "1970-01-01",
)
YEARS = (1920, 2100)  # in which a participant can fall ill or come to a visit
SEXES = {"female": "F", "f": "F", "woman": "F", "male": "M", "m": "M", "man": "M"}
LENGTH_UNITS = {"cm": 1.0, "m": 100.0, "mm": 0.1}  # centimetres
WEIGHT_UNITS = {"kg": 1.0, "kgs": 1.0, "g": 0.001}  # kilograms
BMI_UNITS = dict.fromkeys(("kg/m2", "kg/m^2", "kg/m**2", "kg m-2"), 1.0)
AGE_UNITS = dict.fromkeys(("y", "yr", "yrs", "year", "years", "years old"), 1.0)
EXAMPLE = 32  # characters of an example, at most

_NUMBER = re.compile(
    r"([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:e[+-]?\d+)?)\s*(\D.*)?", re.IGNORECASE | re.ASCII
)
_TIME = r"(?:[T ] ?(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?) ?(?P<half>[AP]M)? ?(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?"
_ISO, _COMPACT, _NUMERIC, _DOTS, _NAMED, _NAMED_FIRST = (
    re.compile(pattern + _TIME, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"(?P<y>\d{4})(?P<mark>[-/.])(?P<m>\d{1,2})(?P=mark)(?P<d>\d{1,2})",
        r"(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
        r"(?P<a>\d{1,2})(?P<mark>[-/])(?P<b>\d{1,2})(?P=mark)(?P<y>\d{4})",
        r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
        r"(?P<d>\d{1,2})(?:st|nd|rd|th)?[- ]?(?P<m>[a-z]{3,9})[- ,]{0,2}(?P<y>\d{4})",
        r"(?P<m>[a-z]{3,9})\.? (?P<d>\d{1,2})(?:st|nd|rd|th)?,? (?P<y>\d{4})",
    )
)


class Reading(NamedTuple):
    """What a cell says. Without a value and `odd` it is missing."""

    value: Any = None
    odd: str = ""  # why it is not understood
    missing: str = ""  # why it counts as missing although something is written


Reader = Callable[[str], Reading]


def clean(text: str) -> str:
    """The text as it is meant: full-width characters, hard spaces and entities made plain, what has
    no width left out."""
    if text.isascii() and "&" not in text:
        return text.strip()
    if re.search(r"&(#\d+|#x[0-9a-f]+|\w+);", text, re.IGNORECASE):
        text = html.unescape(text)
    return unicodedata.normalize("NFKC", text.translate(INVISIBLE)).replace("\u2212", "-").strip()


def is_missing(text: str) -> bool:
    return text in NA


def quantity(
    low: float,
    high: float,
    *,
    units: dict[str, float] | None = None,
    signed: bool = False,
    whole: bool = False,
    metres: bool = False,
) -> Reader:
    """A reader of numbers: 26.4, 26,4, 2.64e1; a comma is a decimal comma, never a thousands
    separator.

    Args:
        low: least possible; what lies outside is missing.
        high: largest possible.
        units: unit -> factor, which may follow the number.
        signed: negative numbers are numbers; otherwise whole negative ones are codes of those who
            did not answer (-1, -3, -818).
        whole: 26.4 is not understood.
        metres: numbers below 3 without a unit are metres, given as centimetres.
    """

    def read(text: str) -> Reading:
        text = clean(text)
        if is_missing(text):
            return Reading()
        if text.lower() in NO_ANSWER:
            return Reading(missing=UNANSWERED)
        if not (match := _NUMBER.fullmatch(text)):
            return Reading(odd="is no number such as 26.4")
        unit = re.sub(r"\s+", " ", match[2] or "").strip().rstrip(".").lower()
        if unit and unit not in (units or {}):
            return Reading(
                odd="has a unit that isn't known here"
                if unit.isalpha()
                else "is no number such as 26.4"
            )
        number = float(match[1].replace(",", "."))
        if not signed and number < 0 and number.is_integer():
            return Reading(missing=UNANSWERED)
        if whole and not number.is_integer():
            return Reading(odd="is no whole number")
        if metres and not unit and 0 < number < 3:
            unit = "m"
        number *= (units or {}).get(unit, 1.0)
        return (
            Reading(number)
            if low <= number <= high
            else Reading(missing=f"outside {low:g} to {high:g}")
        )

    return read


def read_sex(text: str) -> Reading:
    """F or M, of a word or letter in English."""
    word = clean(text).lower()
    if is_missing(clean(text)):
        return Reading()
    if word in NO_ANSWER or re.fullmatch(r"-\d+(\.0+)?", word):
        return Reading(missing=UNANSWERED)
    return (
        Reading(SEXES[word]) if word in SEXES else Reading(odd="is neither male nor female (M, F)")
    )


def read_coded_sex(text: str) -> Reading:
    """F or M, of UK Biobank's codes 0 (female) and 1 (male) or what `read_sex` takes."""
    code = re.sub(r"\.0*$", "", clean(text))
    if code in ("0", "1"):
        return Reading("FM"[int(code)])
    reading = read_sex(text)
    return Reading(odd="is not 0 (female), 1 (male), Female or Male") if reading.odd else reading


def read_month(text: str) -> Reading:
    """1..12, of a number or an English name."""
    word = clean(text).lower().rstrip(".")
    return (
        Reading(float(MONTH_NAMES[word]))
        if word in MONTH_NAMES
        else quantity(1, 12, whole=True)(text)
    )


def read_category(text: str) -> Reading:
    """A code, or what it stands for, as written; missing for those who did not answer."""
    word = clean(text)
    if is_missing(word):
        return Reading()
    if word.lower() in NO_ANSWER or word.startswith("-"):
        return Reading(missing=UNANSWERED)
    return Reading(re.sub(r"^(\d+)\.0+$", r"\1", word))


def day_first(texts: Iterable[str]) -> bool | None:
    """Whether dates like 31/01/2015 among the texts begin with the day; None where nothing tells or
    all tells both."""
    order: set[bool] = set()
    for text in texts:
        if match := _NUMERIC.fullmatch(clean(text)):
            a, b = int(match["a"]), int(match["b"])
            order |= {True} if b <= 12 < a else {False} if a <= 12 < b else set()
    return order.pop() if len(order) == 1 else None


def date_reader(*, day_first: bool | None = None, years: tuple[int, int] = YEARS) -> Reader:
    """A reader of days: 2015-01-31, 2015/01/31, 20150131, 31.01.2015, 31jan2015, 31 January 2015,
    January 31, 2015.

    31/01/2015 and 01/31/2015 are understood where `day_first`
    (`cmrdata.cohorts.reading.cells.day_first` of all texts of the file) tells which it is;
    03/03/2015 is the same either way. A time of day may follow; one that isn't midnight may not be
    in UTC, since the day at the place is then unknown. PLACEHOLDERS, ZEROS and days outside `years`
    are missing.
    """

    def read(text: str) -> Reading:
        text = re.sub(r"\s+", " ", clean(text))
        if is_missing(text):
            return Reading()
        if text.lower() in NO_ANSWER or re.fullmatch(r"-\d+(\.0+)?", text):
            return Reading(missing=UNANSWERED)
        forms = (_ISO, _COMPACT, _NUMERIC, _DOTS, _NAMED, _NAMED_FIRST)
        if not (match := next(filter(None, (form.fullmatch(text) for form in forms)), None)):
            return Reading(odd=_no_date(text))
        if odd := _odd_time(match):
            return Reading(odd=odd)
        parts = match.groupdict()
        if "a" in parts:
            if day_first is None and parts["a"] != parts["b"]:
                return Reading(
                    odd="may begin with the day or the month, and no date of the file tells"
                )
            parts["d"], parts["m"] = (
                (parts["a"], parts["b"]) if day_first else (parts["b"], parts["a"])
            )
        month = MONTH_NAMES.get(parts["m"].lower(), 0) if parts["m"].isalpha() else int(parts["m"])
        try:
            day = date(int(parts["y"]), month, int(parts["d"]))
        except ValueError:
            return Reading(odd="is no day of the calendar")
        if day.isoformat() in PLACEHOLDERS + ZEROS:
            return Reading(missing="placeholder")
        return (
            Reading(day)
            if years[0] <= day.year < years[1]
            else Reading(missing=f"outside {years[0]} to {years[1]}")
        )

    return read


def _no_date(text: str) -> str:
    if re.fullmatch(r"\d{4}([-/]\d{1,2})?", text):
        return "is a year or month, not a day"
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return "is a number, maybe a day count of Excel, SAS or Stata"
    return "is no date such as 2015-01-31"


def _odd_time(found: re.Match[str]) -> str:
    """Why the day of a time cannot be told; empty where it can."""
    if not found["time"]:
        return ""
    hour, minute = (int(part) for part in found["time"].split(":")[:2])
    if hour > 23 or minute > 59:
        return "has no time of day"
    zone = (found["zone"] or "").upper().replace(":", "")
    midnight = not found["half"] and not re.sub(r"[0:.]", "", found["time"])
    if zone in ("Z", "UTC", "GMT", "+0000", "-0000") and not midnight:
        return "has a time in UTC, so that the day at the place is unknown"
    return ""


def shape(text: str) -> str:
    """The pattern of a text, which tells nobody apart: digits as 9, letters as A or a, words as a+,
    the rest as it is.

    What cannot be seen is named, as in A99<U+00A0>A999. Cut at EXAMPLE characters.
    """
    pattern = re.sub(r"\d{9,}", "9+", re.sub(r"[^\W\d_]+", lambda word: _letters(word[0]), text))
    pattern = "".join("9" if mark.isdigit() else _visible(mark) for mark in pattern)
    return pattern if len(pattern) <= EXAMPLE else pattern[: EXAMPLE - 3] + "..."


def _letters(word: str) -> str:
    return "a+" if len(word) > 2 else "".join("A" if letter.isupper() else "a" for letter in word)


def _visible(mark: str) -> str:
    if mark in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[mark]
    return mark if mark.isprintable() else f"<U+{ord(mark):04X}>"
