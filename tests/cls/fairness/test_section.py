"""What the sections write and say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.grid import arrange
from cmrcls.fairness.metrics import METRICS, Metric, Predicted, Scored, mean_of, scored
from cmrcls.fairness.options import Options
from cmrcls.fairness.section import fairness, fairness_sections, run_marks
from cmrcls.run_summary import scores
from cmrstudy.report import report_html
from support.classifier_folders import stores, write
from support.fake_runs import (
    ARMS,
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
    parts = fairness(studies(table), cohort_name="ukbb", **options)
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
    other = fairness(studies(table), cohort_name="phantom", **options)
    assert (tmp_path / "gaps.csv").read_bytes() == before
    assert not any(
        "paper)" in str(column) for part in other for shown in part.tables for column in shown
    )


@pytest.mark.slow  # seconds
def test_sections_of_several_diseases_and_of_one_run(tmp_path):
    table = pd.concat([runs(seeds=1, n=80, arms=("Real",)).assign(disease=d) for d in ("hf", "mi")])
    parts = fairness(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert [part.heading for part in parts[:6:5]] == [
        "Is the classifier fairer: hf?",
        "Is the classifier fairer: mi?",
    ]
    assert (tmp_path / "table2_mi.csv").exists() and (tmp_path / "table2.csv").exists()
    assert any("Fewer than 3 seeds in Real" in note for note in parts[0].warnings)
    assert "one arm only" in parts[4].warnings[0]


def test_sections_of_a_cohort_that_cannot_be_divided(tmp_path):
    table = runs(seeds=1, n=60, arms=("Synthetic",)).drop(columns=["age_band", "bmi_band"])
    lone = fairness(studies(table.assign(sex="F")), folder=tmp_path, options=FEW_DRAWS)
    assert lone[1].warnings == ["No axis has two subgroups to compare."]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    parts = fairness(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert "No arm to compare with" in parts[1].warnings[0]
    assert parts[1].tables[0].notes == [
        "No interval: Sex: fewer than two subgroups where it is defined."
    ]
    assert "Only one class in Female" in " ".join(parts[0].warnings)


def test_without_a_healthy_validation_subject_the_report_says_so(tmp_path):
    table = runs(seeds=1, n=60, arms=("Real",))
    table.loc[table.split == "val", "label"] = 1
    parts = fairness(studies(table), folder=tmp_path, options=FEW_DRAWS)
    assert parts[2].warnings == [
        "No sensitivity at a fixed specificity: a run has no healthy validation subject."
    ]
    assert (
        not (tmp_path / "operating_point.csv").exists()
        and (tmp_path / "decision_curve.csv").exists()
    )


def youden(given: Predicted) -> Scored:
    """Sensitivity plus specificity less 1, which can be negative."""
    value, influence, rests_on = scored("balanced_accuracy", given)
    return Scored(2 * value - 1, 2 * influence, rests_on)


def test_a_metric_from_outside_is_in_every_table_and_in_what_a_run_shows(tmp_path, monkeypatch):
    """One row of METRICS, no other change: metrics.csv with intervals and changes, the report's
    table, and a run's own scores."""
    metric = Metric("Youden's J", youden, limits=(-1, 1))
    monkeypatch.setitem(METRICS, "youden", metric)
    table = runs(seeds=3, n=120, arms=ARMS[:2])
    parts = fairness(studies(table), folder=tmp_path, options=FEW_DRAWS)
    rows = pd.read_csv(tmp_path / "metrics.csv")
    own, half = (
        rows[rows.metric == name].reset_index(drop=True) for name in ("youden", "balanced_accuracy")
    )
    assert len(own) == len(half) and own.low.notna().any() and own.change_low.notna().any()
    both = own["mean"].notna()
    assert own["mean"][both].to_numpy() == pytest.approx(2 * half["mean"][both].to_numpy() - 1)
    assert (own.high - own.low).dropna().to_numpy() == pytest.approx(
        2 * (half.high - half.low).dropna().to_numpy(), abs=1e-4
    )
    assert own.low.min() < 0  # its own limits, not those of a share
    assert "Youden's J" in (tmp_path / "metrics.md").read_text().splitlines()[2]
    page = report_html(parts, title="t", facts={})
    assert page.count('<th scope="col">Youden&#39;s J</th>') == 1
    one = table[(table.arm == "Real") & (table.seed == 0)].assign(disease="hf")
    one = one.assign(predicted=(one.probability > 0.5).astype(int))
    shown = scores(one).set_index("split")
    assert shown.youden.to_numpy() == pytest.approx(2 * shown.balanced_accuracy.to_numpy() - 1)


def test_a_metric_of_probabilities_from_outside_is_named_among_them(tmp_path, monkeypatch):
    metric = Metric(
        "mean probability",
        lambda given: mean_of(given.probability),
        of_probabilities=True,
        remark="of everybody",
    )
    monkeypatch.setitem(METRICS, "mean_probability", metric)
    (of,) = studies(runs(seeds=1, n=60, arms=ARMS[:1]))
    part = fairness([of], folder=tmp_path, options=FEW_DRAWS)[3]
    assert "and mean probability (of everybody) are of probabilities" in part.paragraphs[0]


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
