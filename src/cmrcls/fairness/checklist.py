"""Where a report has what reviewers look for: items of CLAIM 2024, TRIPOD+AI (2024) and STARD 2015,
by number.

An item is only said to be there where its file is; what a program can't know (ethics, recruitment,
who read the images) stays for the authors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cmrstudy.report import Section, Shown, write_table

AUTHORS = "the authors' to write"
CHECKLIST_COLUMNS = ["item", "CLAIM", "TRIPOD+AI", "STARD", "where", "there"]


class Item(NamedTuple):
    """What is asked for, its numbers in the three checklists, and where this report has it."""

    what: str
    claim: str
    tripod: str
    stard: str
    where: str  # section of the report, or AUTHORS
    files: Sequence[str] = ()  # of the results folder: without all of them the item isn't there


ITEMS = (
    Item("Intended use and clinical role", "3", "3a-3c", "3", AUTHORS),
    Item("Objectives and hypotheses", "4", "4", "4", AUTHORS),
    Item("Prospective or retrospective; setting, centres, dates", "5", "5a-6a", "5, 8, 9", AUTHORS),
    Item(
        "Eligibility: who was left out, and why",
        "8",
        "6b",
        "6",
        "Who is in the study",
        ["flow.csv"],
    ),
    Item(
        "Participants from folders to arms", "35", "20a", "19", "Who is in the study", ["flow.csv"]
    ),
    Item(
        "Participants' characteristics by split and diagnosis",
        "36",
        "20b, 20c",
        "20, 21a",
        "Who is in the study",
        ["baseline.csv"],
    ),
    Item("Image acquisition", "13", "-", "10a", AUTHORS),
    Item("De-identification", "11", "-", "-", "docs/rules.md"),
    Item(
        "Preprocessing of images", "9", "7", "10a", "docs/cohorts.md and the settings in run.json"
    ),
    Item(
        "Missing data: unknown attributes",
        "12",
        "11",
        "16",
        "Who is in the study: known of each",
        ["baseline.csv"],
    ),
    Item(
        "Reference standard: definition and source",
        "14-16",
        "8a",
        "10b, 11",
        "docs/cohorts.md names the columns; its quality: the authors",
    ),
    Item("Annotators and their agreement", "17, 18", "8b, 8c", "13b", AUTHORS),
    Item(
        "Partitions, and that they share no participant",
        "19, 20",
        "12a",
        "-",
        "Who is in the study; split fingerprint at the top",
        ["flow.csv"],
    ),
    Item(
        "Sample size",
        "21",
        "10",
        "18",
        "n beside every number; a reason for it: the authors",
        ["table2.csv"],
    ),
    Item(
        "Model, software, initial weights",
        "22-24",
        "12c, 22",
        "10a",
        "run.json of each run: settings, versions, fingerprints",
    ),
    Item(
        "Training, and how the final model is chosen",
        "25, 26",
        "12c",
        "-",
        "conf/experiment/classifier.yaml; best epoch by validation",
    ),
    Item(
        "Class imbalance", "-", "13", "-", "Who is in the study: training, balanced", ["flow.csv"]
    ),
    Item(
        "Threshold for a positive result, chosen before the test",
        "28",
        "15",
        "12a",
        "What would it be worth in use",
        ["thresholds.csv"],
    ),
    Item(
        "Measures of performance",
        "28",
        "12e",
        "14",
        "Is the classifier fairer; Other measures",
        ["metrics.csv"],
    ),
    Item(
        "Uncertainty, and what it is conditional on",
        "29, 37",
        "12e, 23a",
        "24",
        "captions: intervals hold ..., given ...",
        ["table2.csv"],
    ),
    Item(
        "Estimates with intervals",
        "37, 38",
        "23a",
        "24",
        "Is the classifier fairer",
        ["table2.csv"],
    ),
    Item(
        "Cross tabulation of decisions and reference",
        "38",
        "23a",
        "23",
        "Other measures",
        ["confusion.csv"],
    ),
    Item(
        "Sensitivity and predictive values at one threshold",
        "38",
        "23a",
        "24",
        "What would it be worth in use",
        ["operating_point.csv"],
    ),
    Item("Calibration", "28", "12e, 23a", "-", "Other measures", ["calibration.csv"]),
    Item(
        "Clinical usefulness: net benefit",
        "-",
        "12e, 23a",
        "-",
        "What would it be worth in use",
        ["decision_curve.csv"],
    ),
    Item(
        "Fairness: approaches and their reasons",
        "-",
        "14",
        "-",
        "How far apart are subgroups",
        ["gaps.csv", "fairness.csv"],
    ),
    Item(
        "Heterogeneity: performance per subgroup",
        "38",
        "12d, 23a, 23b",
        "17",
        "Is the classifier fairer; How far apart are subgroups",
        ["metrics.csv", "worst.csv"],
    ),
    Item("Comparison of models", "29", "12e", "17", "Do arms differ beyond chance", ["tests.csv"]),
    Item(
        "Robustness: other baselines, seeds, generators",
        "30",
        "12e",
        "-",
        "arms and what intervals hold",
        ["table2.csv"],
    ),
    Item("Explainability", "31", "-", "-", "runs of experiment=explain, not part of this report"),
    Item(
        "Testing on external data",
        "33",
        "12a, 16",
        "-",
        "evaluate.py of another cohort, not part of this report",
    ),
    Item("Failure analysis", "39", "-", "-", AUTHORS),
    Item("Synthetic training images: fidelity", "7", "5a", "-", "Table 1", ["table1.csv"]),
    Item(
        "Synthetic training images: do they show what was asked",
        "7",
        "5a",
        "-",
        "adherence",
        ["adherence.csv"],
    ),
    Item("Ethics, patient and public involvement", "-", "17, 19", "-", AUTHORS),
    Item("Limitations, implications for practice", "40, 41", "26, 27a-27c", "26, 27", AUTHORS),
    Item("Registration, protocol, funding", "34, 42, 44", "18a-18d", "28-30", AUTHORS),
    Item(
        "Availability of code, models and data",
        "43",
        "18e, 18f",
        "-",
        "code version in run.json; whether it is public: the authors",
    ),
)


def checklist_section(folder: Path) -> Section:
    """The report's last section: the checklist, also written to `folder`."""
    table = Shown(
        checklist_table(folder),
        "Items of CLAIM 2024, TRIPOD+AI and STARD 2015, and where they are found",
    )
    write_table(table, folder, "checklist")
    return Section(
        "Where is what a reviewer looks for?",
        [
            "What only the authors know is theirs to write; numbers are those of the checklists' "
            "published items."
        ],
        tables=[table],
    )


def checklist_table(folder: Path) -> pd.DataFrame:
    """CHECKLIST_COLUMNS, a row per item: `there` is yes, no (a file of the report is absent),
    elsewhere or authors.

    Args:
        folder: of the report's tables.
    """
    rows = []
    for item in ITEMS:
        absent = [name for name in item.files if not (folder / name).exists()]
        where = f"not in this report: no {', '.join(absent)}" if absent else item.where
        if item.files and not absent:
            where += f" ({', '.join(item.files)})"
        there = (
            "authors"
            if item.where == AUTHORS
            else "no"
            if absent
            else "yes"
            if item.files
            else "elsewhere"
        )
        rows.append((item.what, item.claim, item.tripod, item.stard, where, there))
    return pd.DataFrame(rows, columns=CHECKLIST_COLUMNS)
