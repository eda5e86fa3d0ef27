"""Codes of diagnoses as UK Biobank's tables write them: a grammar that takes a cell whole or not at
all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cmrdata.cohorts.reading.cells import Reader, Reading, clean, is_missing

PRESETS = {  # of heart failure; the seed paper gives no list
    "narrow": ("I50",),
    "standard": ("I50", "I110", "I130", "I132"),
    "broad": (
        "I50",
        "I110",
        "I130",
        "I132",
        "I255",
        "I420",
        "I425",
        "I426",
        "I427",
        "I428",
        "I429",
    ),
}
CONDITION_CODES = {
    "mi": ("I21", "I22", "I23", "I252"),
    "ihd": ("I20", "I21", "I22", "I23", "I24", "I25"),
    "af": ("I48",),
}
HF, EXCLUDING = "hf", "without"  # groups of codes, beside conditions
# self-reported, both heart failure by UKBB_filter
ILLNESSES = {"1076": "heart failure", "1079": "cardiomyopathy"}
ILLNESS_WORDS = {
    "heart failure/pulmonary odema": "1076",
    "heart failure/pulmonary oedema": "1076",
    "cardiomyopathy": "1079",
    "hypertrophic cardiomyopathy (hcm / hocm)": "1588",
}
# at which other programs cut a text
CUT_LENGTHS = (
    244,
    254,
    255,
    256,
    1023,
    1024,
    4095,
    4096,
    32767,
)

# A letter, two digits and up to two more behind a dot or not ("I50 0" is an old spelling), a
# filler, a dagger or asterisk
# (NHS: D or A), then maybe its title, which has a word and holds nothing that looks like a code
_CODE = re.compile(
    r"(?P<code>[A-Z] ?\d\d(?:\.?\d{1,2}| \d(?=$))?)(?:\.?[X-])?[DA*+\u2020\u2021]?"
    r"(?:(?:[ \t]+| ?[:\u2013-] )(?P<title>(?![\d_])[\w(\[][^\t\n\r;|]*))?"
)
_HIDDEN_CODE = re.compile(r"[A-Z]\d[0-9A-Z]|(?<![A-Z'\u2019])[A-Z]\s?\d|\d{3}\.\d")
_ELEMENT = re.compile(
    r"""\s*+(?:"((?:[^"\\]|\\.)*+)"|'((?:[^'\\]|\\.)*+)'|([^,"'\[\]]*+))\s*+(,|$)""", re.DOTALL
)
NO_CODE = "is no ICD-10 code such as I500, I50.0 or I50.0 with its title"
SEVERAL = 'holds more than one code, and not as I10|I500 or ["I10", "I500"]'


def prefixes(codes: str | Sequence[str], *, setting: str = "codes") -> tuple[str, ...]:
    """ICD-10 prefixes of a preset's name, or of a list such as ["I50", "I11.0"]. Raises ValueError
    for anything else."""
    plain = (
        PRESETS.get(codes, ())
        if isinstance(codes, str)
        else [re.sub(r"[\s.*]", "", str(c)).upper() for c in codes]
    )
    if not plain or not all(re.fullmatch("[A-Z][0-9][0-9A-Z]*", code) for code in plain):
        given = repr(codes) if isinstance(codes, str) else list(codes)
        raise ValueError(
            f"{setting} is {given}; give {', '.join(PRESETS)} or a list of ICD-10 codes, or "
            "beginnings of them, like [I50, I110]"
        )
    return tuple(plain)


def code_groups(
    codes: str | Sequence[str], *, without: Sequence[str], conditions: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """ICD-10 prefixes of each group to look for; hf first. Raises ValueError naming the setting."""
    if isinstance(conditions, str) or not set(conditions) <= set(CONDITION_CODES):
        raise ValueError(
            f"conditions is {conditions!r}; give a list of {', '.join(CONDITION_CODES)}"
        )
    groups = {HF: prefixes(codes), **{name: CONDITION_CODES[name] for name in conditions}}
    return {**groups, EXCLUDING: prefixes(without, setting="without")} if without else groups


# ---- the grammar of cells


def read_code(text: str) -> Reading:
    """The code of a text such as "I500", "i50.0", "I50.0 Congestive heart failure", "I10X",
    "A18.0\u2020": "I500"."""
    text = re.sub(r"[^\S\t\n\r]+", " ", clean(text))
    if is_missing(text):
        return Reading()
    text = text.upper()
    if not (found := _CODE.fullmatch(text)):
        return Reading(odd=SEVERAL if len(_HIDDEN_CODE.findall(text)) > 1 else NO_CODE)
    title = re.sub(r"\bB12\b", "", found["title"] or "")  # the vitamin
    if _HIDDEN_CODE.search(title):
        return Reading(odd=SEVERAL)
    if title and not re.search(r"[^\W\d_]{3}", title):
        return Reading(odd=NO_CODE)
    return Reading(re.sub(r"[. ]", "", found["code"]))


def read_illness(text: str) -> Reading:
    """A code of UK Biobank's self-reported illnesses, of its number or title; other titles stand
    for themselves."""
    word = re.sub(r"\s+", " ", clean(text))
    if is_missing(word):
        return Reading()
    if code := re.fullmatch(r"(\d{4,5})(?:\.0*)?", word, re.ASCII):
        return Reading(code[1])
    if word.lower() in ILLNESS_WORDS:
        return Reading(ILLNESS_WORDS[word.lower()])
    known = re.fullmatch(r"[^\W\d_][^|;\t\n\r]*", word) and not re.search(
        r"(heart|cardiac|ventric\w*|pump) (fail|insuff|dysf|decomp)|\b(hf|chf|ccf|lvf|hfpef|hfref|hcm|hocm|dcm)\b"
        r"|heart fail|o?edema|cardiomyop|\d{4}",
        word,
        re.IGNORECASE,
    )
    return Reading(word.lower()) if known else Reading(odd="is no illness of coding 6 such as 1076")


def in_cell(text: str, read: Reader) -> Reading:
    """The elements of a cell, each by `read` and None where it is empty: a JSON or Python list, or
    separated by "|"."""
    cell = clean(text)
    if is_missing(cell):
        return Reading()
    elements = _listed(cell) if cell.startswith("[") else [part.strip() for part in cell.split("|")]
    if elements is None:
        return Reading(
            odd='is a list that cannot be read; write it like ["I10", "I500"] or I10|I500'
        )
    if len(text) in CUT_LENGTHS and not cell.startswith("["):
        return Reading(odd=f"has {len(text)} characters, where other programs cut a text")
    readings = [read(part) for part in elements]
    if odd := next((one.odd for one in readings if one.odd), ""):
        return Reading(odd=odd)
    return Reading(tuple(one.value for one in readings))


def _listed(cell: str) -> list[str] | None:
    """The elements of a list, unquoted; None where it is none. Elements without quotes hold no
    comma."""
    if not cell.endswith("]"):
        return None
    inside, elements, at = cell[1:-1], list[str](), 0
    if not inside.strip():
        return []
    while element := _ELEMENT.match(inside, at):
        double, single, bare, more = element.groups()
        quoted = double if double is not None else single
        elements.append(_unescaped(quoted) if quoted is not None else bare.strip())
        at = element.end()
        if not more:
            return elements
    return None


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(
        r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))",
        lambda found: chr(int(found[1] or found[2], 16)) if found[1] or found[2] else found[3],
        text,
        flags=re.DOTALL,
    )
