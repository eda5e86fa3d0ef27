"""What the sections write and say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.grid import arrange
from cmrcls.fairness.options import Options
from cmrcls.fairness.section import disease_sections, fairness_sections, run_marks
from cmrstudy.report import report_html
from support.classifier_folders import stores, write
from support.fake_runs import (
    runs,
    studies,
)

FEW_DRAWS = Options(resamples=40, permutations=40)


TABLES = {
    "table2",
    "gaps",
    "worst",
    "fairness",
    "metrics",
    "operating_point",
    "thresholds",
    "decision_curve",
    "calibration",
    "confusion",
    "tests",
    "ranks",
}


@pytest.mark.slow  # seconds; test_study writes them too
def test_sections_write_what_they_show(tmp_path):
    table = runs(seeds=3, n=120, arms=("Real", "Real + 2000", "Synthetic"))
    table.loc[
        (table.arm == "Synthetic") & (table.seed == 0) & (table.subject == "SYN0003"), "probability"
    ] = np.nan
    table.loc[table.arm != "Real", ["generator", "set"]] = "0"
    table[["generator", "set"]] = table[["generator", "set"]].fillna("")
    options = {"folder": tmp_path, "options": FEW_DRAWS}
    parts = disease_sections(studies(table), cohort_name="ukbb", **options)
    assert {p.name for p in tmp_path.glob("*.*")} == {
        f"{t}.{kind}" for t in TABLES for kind in ("csv", "md", "tex")
    }
    drawn = {
        "table2_forest",
        "gaps",
        "decision_curve",
        "calibration",
        "confusion",
        "critical_difference",
    }
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"fig_{d}.{kind}" for d in drawn for kind in ("png", "svg")
    }
    page = report_html(parts, title="t", facts={})
    for words in (
        "seed 0: probability of subject SYN0003 is nan",
        "Few seeds (the paper has 8): Real 3, Real + 2000 3, Synthetic 2.",
        "underpowered: 3 pairs",
        "Real + 2000 (paper)",
        "37%",
        "One split:",
        "Only classifier seeds vary in Real + 2000: intervals and tests are conditional on one split, one generator, one set",
        "Fewer than 3 seeds in Synthetic",
    ):
        assert words in page, words
    for name in (
        "table2",
        "gaps",
        "worst",
        "fairness",
        "metrics",
        "operating_point",
        "decision_curve",
        "tests",
    ):
        assert "given one split, one generator, one set" in (tmp_path / f"{name}.md").read_text(), (
            name
        )
    assert "Left out: arm" in (tmp_path / "table2.md").read_text()
    before = (tmp_path / "gaps.csv").read_bytes()
    other = disease_sections(studies(table), cohort_name="phantom", **options)
    assert (tmp_path / "gaps.csv").read_bytes() == before
    assert not any(
        "paper)" in str(column) for part in other for shown in part.tables for column in shown
    )


@pytest.mark.slow  # seconds
def test_sections_of_several_diseases_and_of_one_run(tmp_path):
    table = pd.concat([runs(seeds=1, n=80, arms=("Real",)).assign(disease=d) for d in ("hf", "mi")])
    parts = disease_sections(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert [part.heading for part in parts[:6:5]] == [
        "Is the classifier fairer: hf?",
        "Is the classifier fairer: mi?",
    ]
    assert (tmp_path / "table2_mi.csv").exists() and (tmp_path / "table2.csv").exists()
    assert any("Fewer than 3 seeds in Real" in note for note in parts[0].warnings)
    assert "one arm only" in parts[4].warnings[0]


def test_sections_of_a_cohort_that_cannot_be_divided(tmp_path):
    table = runs(seeds=1, n=60, arms=("Synthetic",)).drop(columns=["age_band", "bmi_band"])
    lone = disease_sections(studies(table.assign(sex="F")), folder=tmp_path, options=FEW_DRAWS)
    assert lone[1].warnings == ["No axis has two subgroups to compare."]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    parts = disease_sections(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert "no arm to compare with" in parts[1].warnings[0]
    assert parts[1].tables[0].notes == [
        "No interval: Sex: fewer than two subgroups where it is defined."
    ]
    assert "Only one class in Female" in " ".join(parts[0].warnings)


def test_without_a_healthy_validation_subject_the_report_says_so(tmp_path):
    table = runs(seeds=1, n=60, arms=("Real",))
    table.loc[table.split == "val", "label"] = 1
    parts = disease_sections(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert parts[2].warnings == [
        "No sensitivity at a fixed specificity: a run has no healthy validation subject."
    ]
    assert (
        not (tmp_path / "operating_point.csv").exists()
        and (tmp_path / "decision_curve.csv").exists()
    )


def test_the_sections_of_a_study_say_which_runs_they_rest_on_and_what_is_missing(tmp_path):
    for amount in (0, 9):
        for seed in range(2):
            write(tmp_path / "runs", amount, seed, made=("f", "sets/a", "k") if amount else None)
    write(tmp_path / "runs", 9, 2, state="failed", told="loss is nan; lower lr")
    grid = arrange(runs_below(tmp_path / "runs"))
    assert run_marks(grid) == [
        "4, 3 optimiser steps",
        "split fingerprint s",
        "synthetic set f",
        "factor synthetic images: 0, 9",
    ]
    parts = fairness_sections(
        grid, stores, folder=tmp_path / "out", left_out=["Left out: x."], options=FEW_DRAWS
    )
    assert all(part.sources[0] == "classifier runs: 4, 3 optimiser steps" for part in parts)
    assert parts[0].paragraphs[0].startswith("What the runs differ in: synthetic images (0, 9).")
    assert parts[0].warnings[0].startswith("4 of 6 runs of the study are finished. missing:")
    assert parts[0].warnings[0].endswith("Left out: x.")
