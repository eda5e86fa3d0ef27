"""What a report says of the classifiers: who is in the study, and what the finished runs give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cmrcls.fairness import grid, predictions, section
from cmrcls.fairness.classifier_runs import Run, comparable
from cmrcls.fairness.options import Options
from cmrdata.store import Store
from cmrstudy import figures
from cmrstudy.report import Section


class ClassifierReport(NamedTuple):
    """The sections in reading order, and what the report says of them elsewhere."""

    sections: list[Section]
    study: grid.Grid
    sentences: list[str]  # what a reader must know of the study
    marks: list[str]  # of the runs, as provenance; empty without finished ones


def classifier_report(
    found: Sequence[Run],
    stores: Callable[[int | None], Store],
    *,
    classifiers: str,
    cohort_name: str,
    fold: int | None,
    arms: Sequence[str] | None,
    baseline: str | None,
    folder: Path,
    options: Options,
) -> ClassifierReport:
    """Arrange the runs that can be compared into a study, and evaluate it.

    Args:
        found: runs of classifiers, finished or not.
        stores: a fold's prepared cohort.
        classifiers: where they were looked for, for sentences.
        cohort_name: of the prompts' and labels' cohort.
        fold: the one asked for.
        arms: patterns of arms to keep; None for all.
        baseline: the arm that the others are compared with; None for the usual one.
        folder: tables and figures are written below it.
        options: how it is measured.

    Raises:
        ValueError: where the runs can't be evaluated together.
    """
    cohort = stores(fold)
    kept, left_out = comparable(found, cohort=lambda of: stores(of).fingerprint, fold=fold)
    predictions.check_usable(found, kept, left_out, cohort=cohort.folder.name, folder=classifiers)
    study = grid.arrange(kept, wanted=arms)
    sentences = grid.progress_sentences(grid.expected_runs(study)) + left_out
    picture = figures.demographics(cohort.subjects)
    figure = figures.save(picture, folder / "figures" / "fig1_demographics")[0]
    done = study.finished()
    fold = done[0][1].fold if done else fold
    participants = section.participants_section(
        stores(fold), study, folder=folder, figure=figure, fold=fold
    )
    if not done:
        reason = f"No finished classifier below {classifiers}: no Table 2."
        missing = Section("Fairness", warnings=[reason])
        return ClassifierReport([participants, missing], study, sentences, [])
    fairness = section.fairness_sections(
        study,
        stores,
        baseline=baseline,
        subjects=set(cohort.subjects.subject),
        cohort_name=cohort_name,
        left_out=left_out,
        folder=folder,
        options=options,
    )
    return ClassifierReport([participants, *fairness], study, sentences, section.run_marks(study))
