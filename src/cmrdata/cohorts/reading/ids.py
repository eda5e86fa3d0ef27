"""Participants' ids: written alike however a file writes them, compared by pattern, never shown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal

from cmrdata.cohorts.reading.cells import NA, clean

QUOTES = "\"'`\u2018\u2019\u201c\u201d"
PATTERNS = 3  # shown of each side, at most
_SCIENTIFIC = re.compile(r"\d(?:\.(\d+)e\+?|e\+)(\d{1,2})", re.IGNORECASE | re.ASCII)
_GROUPED = re.compile(r"\d{1,3}([,.' ])\d{3}(\1\d{3})*", re.ASCII)


class UnclearId(ValueError):
    """An id that may be more than one. Its text tells the pattern, not the id."""


def canonical_id(text: object) -> str:
    """A participant's id as every file would write it: no blanks, quotes, ".0" or leading zeros; ""
    where there is none.

    Whole numbers in scientific notation count where all digits are there (2.345678e+06). Raises
    UnclearId for an abbreviated number (2.35E+06, 2e+06: it may be rounded) and for thousands
    separators.
    """
    return without_zeros(spelled_id(text))


def spelled_id(text: object) -> str:
    """As `canonical_id`, with leading zeros: two spelled ids that share their canonical one may be
    two people."""
    word = str(text)
    if word.isascii() and word.isalnum() and not _SCIENTIFIC.fullmatch(word):
        return "" if word in NA else word
    word = clean(word)
    if word.startswith('="'):  # as spreadsheets keep text
        word = word[1:]
    word = clean(word.strip(QUOTES))
    if word in NA:
        return ""
    if whole := re.fullmatch(r"([^\W_]+)\.0*", word):  # a number that went through a float
        return whole[1]
    if match := _SCIENTIFIC.fullmatch(word):
        decimals, power = len(match[1] or ""), int(match[2])
        if decimals < power:
            digits = f"{decimals + 1} {'is' if decimals == 0 else 'are'} written"
            raise UnclearId(
                f"is a number of {power + 1} digits of which {digits}, maybe rounded; export ids "
                "as text (in R: options(scipen = 99))"
            )
        number = Decimal(word)
        if number != number.to_integral_value():
            raise UnclearId("is no whole number")
        return str(int(number))
    if _GROUPED.fullmatch(word):
        raise UnclearId("has thousands separators; export ids as text")
    return word


def without_zeros(word: str) -> str:
    """The canonical id of a spelled one."""
    return (word.lstrip("0") or "0") if word.isdecimal() else word


def id_pattern(identifier: str) -> str:
    """What an id looks like: "7 digits", "3 letters 4 digits", "2 letters '_' 7 digits"."""
    parts = []
    for match in re.finditer(r"(\d+)|([^\W\d_]+)|(.)", identifier, re.DOTALL):
        digits, letters, mark = match.groups()
        kind, count = ("digit", len(digits)) if digits else ("letter", len(letters or ""))
        parts.append(repr(mark) if mark else f"{count} {kind}{'s' * (count > 1)}")
    return " ".join(parts) or "nothing"


def id_patterns(ids: Iterable[str]) -> str:
    """The patterns of many ids, the most frequent ones, e.g. "7 digits"; "7 digits (40), 5 digits
    (2)"."""
    counts = Counter(map(id_pattern, ids)).most_common()
    if len(counts) == 1:
        return counts[0][0]
    listed = ", ".join(f"{pattern} ({n})" for pattern, n in counts[:PATTERNS])
    return (
        f"{listed} and {len(counts) - PATTERNS} other patterns"
        if len(counts) > PATTERNS
        else listed or "none"
    )
