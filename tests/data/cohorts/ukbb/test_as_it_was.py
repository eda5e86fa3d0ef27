"""What is understood of UK Biobank tables full of odd cells, participant by participant and column
by column, as it was when it was last looked at.

A change that is meant: `python tests/data/cohorts/ukbb/test_as_it_was.py` writes the record anew.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from cmrdata.cohorts.ukbb.table import Table, read_people
from support import records
from support.ukbb_exports import BEFORE, LATER, VISIT, person, raw, written

FILE = Path(__file__).with_name("as_it_was.json")
SAME_DAY, BORN = VISIT, "1953"
CASES = {
    "plain": person(f31_0="1", f34_0=BORN, f52_0="3", f21001_2="26.4", f54_2="11025"),
    "case": person(("I500", BEFORE), f31_0="0", f34_0="1950", f52_0="12", f21001_2="31"),
    "later": person(("I501", LATER), f31_0="0", f21003_2="59", f21001_2="24.999"),
    "same day": person(("I509", SAME_DAY), f31_0="1", f21003_2="60", f21001_2="25"),
    "no date": person(("I500", None), f31_0="1", f21003_2="69.99", f21001_2="30"),
    "odd date": person(("I500", "1900-01-01"), f31_0="1", f21003_2="70", f21001_2="29.99"),
    "odd code": person(("?", BEFORE), ("I10", BEFORE), f31_0="1", f21003_2="61", f21001_2="29"),
    "hypertensive": person(("I110", BEFORE), f31_0="Male", f21003_2="61", f21001_2="29"),
    "excluded": person(("I210", BEFORE), ("I48", LATER), f31_0="0", f21003_2="64", f21001_2="27"),
    "both": person(("I500", LATER), ("I420", BEFORE), f31_0="0", f21003_2="55", f21001_2="27"),
    "no visit": person(("I500", BEFORE), visit="", f31_0="0", f21003_2="55", f21001_2="27"),
    "odd visit": person(visit="not a date", f31_0="0", f21003_2="55", f21001_2="27"),
    "odd sex": person(f31_0="2", f21003_2="58", f21001_2="22"),
    "odd age": person(f31_0="1", f34_0="1853", f52_0="13", f21003_2="-3", f21001_2="22"),
    "odd bmi": person(f31_0="1", f21003_2="58", f21001_2="7.4", f21002_2="81", f50_2="180"),
    "weight": person(f31_0="1", f21003_2="58", f12143_2="81.5", f12144_2="180"),
    "fat": person(f31_0="1", f21003_2="58", f23104_0="27.3"),
    "white": person(f31_0="1", f21003_2="58", f21000_0="1001", f22189_0="-2.1"),
    "unknown": person(f31_0="NA", f21003_2="", f21001_2="-1", f21000_0="-3", f22189_0="9.9"),
    "first time": person(f31_0="0", f21003_2="66", f21001_2="27", f131354_0=BEFORE),
    "first later": person(f31_0="0", f21003_2="66", f21001_2="27", f131354_0=LATER),
    "placeholder": person(f31_0="0", f21003_2="66", f21001_2="27", f131354_0="1901-01-01"),
    "died": person(f31_0="0", f21003_2="66", f21001_2="27", f40001_0="I500", f40000_0=LATER),
    "told": person(f31_0="0", f21003_2="66", f21001_2="27", f20002_2="1076"),
    "at an age": person(f34_0=BORN, f52_0="3", f31_0="0", f20002_2="1076", f20009_2="50.5"),
    "in a year": person(f34_0=BORN, f52_0="3", f31_0="0", f20002_2="1076", f20008_2="2001.7"),
    "at no age": person(f34_0=BORN, f52_0="3", f31_0="0", f20002_2="1076", f20009_2="-1"),
    "far off": person(f34_0=BORN, f52_0="3", f31_0="0", f20002_2="1076", f20009_2="160"),
    "second": {**person(f31_0="0", f21003_2="66", f20002_2="1065"), ("20002", 2, 1): "1076"},
}
PEOPLE = {f"SYN{k:04d}": row for k, row in enumerate(CASES.values())}
OPTIONS: dict[str, dict[str, Any]] = {
    "usual": {},
    "broad": {"codes": "broad", "conditions": ["mi", "af"]},
    "own codes": {"codes": ["I42", "I11"], "without": ["I21"]},
    "first occurrence": {"source": "first_occurrence", "codes": "narrow"},
    "every source": {"source": ["hospital", "first_occurrence", "death", "self_report"]},
    "another visit": {"instance": 0},
    "wanted alone": {"ids": ["SYN0001", "SYN0007", "SYN9999"]},
    "strict": {"tolerated": 0.0},
}


def said(table: Table) -> dict[str, Any]:
    people = table.people.astype(object).where(table.people.notna(), "-")
    return {
        "people": [" | ".join(map(str, row)) for row in people.itertuples()],
        "columns": records.table(table.columns),
        "notes": [note.replace("\n", " ") for note in table.notes],
        "everyone": len(table.everyone),
        "stop": table.stop,
    }


def recorded(name: str, folder: Path) -> dict[str, Any]:
    """What is understood of the table with these options; or why it is refused."""
    path = raw(folder, written(PEOPLE, "table.csv").decode(), "table.csv")
    try:
        return said(read_people(path, **{"tolerated": 1, **OPTIONS[name]}))
    except ValueError as error:
        return {"refused": str(error).replace(str(folder), "<folder>")}


@pytest.mark.parametrize("name", list(OPTIONS))
def test_what_is_understood_is_as_it_was(name, tmp_path):
    records.check(FILE, name, records.without_place(recorded(name, tmp_path), tmp_path))


if __name__ == "__main__":
    whole = {}
    for name in OPTIONS:
        with tempfile.TemporaryDirectory() as place:
            whole[name] = records.without_place(recorded(name, Path(place)), Path(place))
    records.write(FILE, whole)
