"""Every table and sentence of the fairness wing for a made-up study, number by number, as they were
when they were last looked at.

A change that is meant: `python tests/cls/fairness/test_as_it_was.py` writes the record anew, and its
difference in git shows what the change does to a report.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from cmrcls.fairness.options import Options
from cmrcls.fairness.participants import baseline_table, differences
from cmrcls.fairness.section import disease_sections, participants_section
from support import records
from support.fake_index import fake_index, fake_people
from support.fake_runs import runs, studies

FILE = Path(__file__).with_name("as_it_was.json")
OPTIONS = Options(axes=["site"], resamples=80, permutations=80)


def crossed() -> Any:
    """Two folds, arms of two generators with two sets, a run that diverged, unknown attributes, a
    column as an axis of its own."""
    table = runs(n=80, seeds=2, arms=("Real", "Real + 2000", "Synthetic"), seed=7)
    number = table.subject.str[-4:].astype(int)
    table["site"] = np.where(number % 3 == 0, "A", "B")
    table.loc[number % 11 == 0, "bmi_band"] = None
    # some skill, less of it for women
    skill = np.where(table.sex == "F", 0.2, 0.6) + 0.1 * (table.arm != "Real")
    table["probability"] = (1 - skill) * table.probability + skill * (0.2 + 0.6 * table.label)
    parts = []
    for made, generator, name in (("0", "0", "0"), ("1", "0", "1"), ("2", "1", "0")):
        part = table[table.arm != "Real"].assign(generator=generator, set=name)
        shift = 0.03 * int(made)
        parts.append(part.assign(probability=(part.probability + shift).clip(0, 1)))
    real = table[table.arm == "Real"].assign(generator="", set="")
    whole = [real, *parts]
    folds = []
    for fold in (0, 1):
        for part in whole:
            folds.append(part.assign(fold=fold, subject=f"F{fold}" + part.subject))
    together = pd.concat(folds, ignore_index=True)
    return studies(together.fillna({"bmi_band": np.nan}))


def plain() -> Any:
    """One split, one set, three seeds, one run damaged, with the paper's arms."""
    table = runs(seeds=3, n=90, seed=1)
    table["site"] = np.where(table.subject.str[-1].isin(list("02468")), "A", "B")
    table.loc[
        (table.arm == "Synthetic") & (table.seed == 0) & (table.subject == "SYN0003"), "probability"
    ] = np.nan
    table.loc[table.arm != "Real", ["generator", "set"]] = "0"
    table[["generator", "set"]] = table[["generator", "set"]].fillna("")
    return studies(table)


STUDIES = {"crossed": (crossed, "phantom"), "plain": (plain, "ukbb")}


def record(name: str, folder: Path) -> dict[str, Any]:
    """What the report and its files say."""
    make, cohort = STUDIES[name]
    with patch("cmrstudy.figures.save", lambda *_, **__: [folder / "figure.png"]):
        parts = disease_sections(make(), folder=folder, cohort_name=cohort, options=OPTIONS)
    said = [
        {"heading": part.heading, "paragraphs": [*part.paragraphs], "warnings": [*part.warnings]}
        for part in parts
    ]
    files = {path.name: path.read_text().splitlines() for path in sorted(folder.glob("*.md"))}
    tables = {path.name: columns(pd.read_csv(path)) for path in sorted(folder.glob("*.csv"))}
    return {"report": said, "files": files, "tables": tables}


def columns(table: pd.DataFrame) -> dict[str, Any]:
    """A table by its columns: how many values, their mean and their mean by place; or the words."""
    place = np.arange(1, len(table) + 1) / len(table)
    numbers = table.select_dtypes("number")
    told: dict[str, Any] = {
        str(
            c
        ): f"{numbers[c].notna().sum()} {numbers[c].mean():.5f} {(numbers[c] * place).mean():.5f}"
        for c in numbers
    }
    for column in table.columns.difference(numbers.columns):
        counts = table[column].value_counts().sort_index()
        told[str(column)] = ", ".join(f"{word}: {n}" for word, n in counts.head(12).items())
    return told


def participants(folder: Path) -> dict[str, Any]:
    """Who is in a study: a source, a region, further conditions and three diagnoses."""
    people = fake_people()
    number = people.index
    people["source"] = np.where(number % 4 == 0, "west", "east")
    people["region"] = np.where(number % 7 == 0, "north", "south")
    ill = people.diagnosis == "hf"
    people.loc[ill & (number % 3 == 0), "diagnosis"] = "reduced_ef"
    healthy = people.diagnosis == "healthy"
    people["balanced"] = (people.split == "train") & (ill | healthy & (number % 3 == 0))
    reasons = (
        ["3 frames of 50"] * 12 + ["4 frames of 50"] * 3 + ["odd"] * 2 + ["/a/b: damaged"] * 10
    )
    lost = pd.DataFrame({"subject": [f"BAD{k}" for k in range(27)], "reason": reasons})
    folder.mkdir(exist_ok=True)
    lost.to_csv(folder / "rejected.csv", index=False)
    store: Any = SimpleNamespace(folder=folder, subjects=people, index=fake_index(people))
    section = participants_section(store, None, folder=folder / "out", figure=folder / "fig1.png")
    texts = {p.name: p.read_text().splitlines() for p in sorted((folder / "out").glob("*.csv"))}
    texts |= {p.name: p.read_text().splitlines() for p in sorted((folder / "out").glob("*.md"))}
    apart = differences(baseline_table(people))
    return {
        "report": [*section.paragraphs, *section.warnings],
        "files": texts,
        "differences": columns(apart),
    }


RECORDS = {name: partial(record, name) for name in STUDIES} | {"participants": participants}


@pytest.mark.parametrize("name", list(RECORDS))
def test_tables_and_sentences_are_as_they_were(name, tmp_path):
    records.check(FILE, name, RECORDS[name](tmp_path))


if __name__ == "__main__":
    whole = {}
    for study, write in RECORDS.items():
        with tempfile.TemporaryDirectory() as place:
            whole[study] = write(Path(place))
    records.write(FILE, whole)
