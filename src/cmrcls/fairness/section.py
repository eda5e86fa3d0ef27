"""The fairness wing's sections of the report, in reading order: who is in the study, and five
questions to the classifiers of each disease."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cmrcls.fairness import disparities, grid, predictions, questions
from cmrcls.fairness.display.participants import baseline_cells, flow_cells
from cmrcls.fairness.grid import Grid
from cmrcls.fairness.options import Options
from cmrcls.fairness.participants import (
    MIN_COUNT,
    baseline_table,
    flow_table,
    read_rejected,
    split_sentence,
)
from cmrcls.fairness.questions import Asked, Place
from cmrcls.fairness.sentences import factors_sentence
from cmrcls.fairness.study import Study
from cmrdata.store import Store
from cmrstudy.report import Section, Shown, sourced, write_table

USUAL = Options()


def participants_section(
    cohort: Store,
    study: Grid | None,
    *,
    folder: Path,
    figure: Path,
    fold: int | None = None,
) -> Section:
    """The report's first section: flow.csv and baseline.csv, written below `folder`, with Fig. 1.

    Args:
        cohort: the store that the runs (of that fold) were trained on.
        study: whose finished runs are the arms; None for none.
        folder: of the report's tables.
        figure: Fig. 1.
        fold: of the store.
    """
    of = f", fold {fold}" if fold is not None else ""
    rejected = read_rejected(cohort.folder)
    moving, people = flow_table(cohort, study, rejected=rejected), baseline_table(cohort.subjects)
    shown = {
        "flow": Shown(
            flow_cells(moving),
            f"Participants and images, from what was found to each arm's training{of}",
        ),
        "baseline": Shown(
            baseline_cells(people),
            f"Participants by split and diagnosis{of}: count (share of those of whom it is known) "
            "or mean (sd); SMD: standardised mean difference, diseased - healthy and test - "
            f"training. Counts of fewer than {MIN_COUNT} are hidden",
        ),
    }
    for (name, table), data in zip(shown.items(), (moving, people), strict=True):
        write_table(table, folder, name, data=data)
    paragraphs = [
        split_sentence(cohort.subjects),
        "Diseased: heart failure, as the cohort's labels say. Images of an arm are counted once, "
        "however often an epoch draws them.",
    ]
    return Section(
        "Who is in the study",
        paragraphs,
        tables=list(shown.values()),
        figures=[("Fig. 1: diseased subjects and the cohort", figure)],
    )


def fairness_sections(
    of: grid.Grid,
    stores: Callable[[int | None], Store],
    *,
    folder: Path,
    baseline: str | None = None,
    subjects: Collection[str] | None = None,
    cohort_name: str = "",
    left_out: Sequence[str] = (),
    options: Options = USUAL,
) -> list[Section]:
    """Table 2 and the statistics from the predictions of a study's finished runs, which are read
    here and nowhere else.

    Args:
        of: the study.
        stores: fold -> the store of the cohort at hand.
        folder: where tables go; figures go to figures/ below it.
        baseline: name or folder of the arm that others are compared with; None for the usual one.
        subjects: all the cohort's.
        cohort_name: where it is "ukbb" the paper's numbers stand beside ours.
        left_out: sentences on runs that `comparable` left out.
        options: how to measure.

    Raises:
        ValueError: as `predictions.read`.
    """
    studies = predictions.read(of, stores, baseline=baseline, axes=options.axes, subjects=subjects)
    sections = disease_sections(studies, folder=folder, cohort_name=cohort_name, options=options)
    expected = grid.expected_runs(of)
    lacking = (
        [" ".join([*grid.progress_sentences(expected), *left_out])]
        if grid.missing(expected) or left_out
        else []
    )
    varied = [factors_sentence(of)] if of.factors else []
    first = sections[0]
    sections[0] = first._replace(
        paragraphs=[*varied, *first.paragraphs], warnings=[*lacking, *first.warnings]
    )
    count, *marks = run_marks(of)
    return [
        one._replace(sources=[f"classifier runs: {count}", *marks, *sourced(one.sources)])
        for one in sections
    ]


def run_marks(of: grid.Grid) -> list[str]:
    """Which runs a report rests on: how many, of how many steps, of which splits, sets and
    factors."""
    runs = [run for _, run in of.finished()]
    steps = sorted({run.record.facts["steps"] for run in runs})
    splits = sorted({run.record.facts["split_fingerprint"] for run in runs})
    sets = sorted({mark for run in runs if (mark := run.fingerprint("synthetic_set")) is not None})
    return [
        f"{len(runs)}, {'/'.join(map(str, steps))} optimiser steps",
        *(f"split fingerprint {mark}" for mark in splits),
        *(f"synthetic set {mark}" for mark in sets),
        *(f"factor {title}: {', '.join(values)}" for title, values in of.factors.items()),
    ]


def disease_sections(
    studies: Sequence[Study],
    *,
    folder: Path,
    cohort_name: str = "",
    options: Options = USUAL,
) -> list[Section]:
    """The report's sections on fairness, of each disease.

    Args:
        studies: as `predictions.read` gives them, one per disease.
        folder: where tables go; figures go to figures/ below it.
        cohort_name: where it is "ukbb" the paper's numbers stand beside ours.
        options: how to measure.
    """
    sections: list[Section] = []
    for k, study in enumerate(studies):
        place = Place(
            Path(folder),
            suffix=f"_{study.disease}" if k else "",
            heading=f": {study.disease}" if len(studies) > 1 else "",
        )
        tables = disparities.measure(
            study,
            axes=options.axes,
            resamples=options.resamples,
            permutations=options.permutations,
            seed=options.seed,
        )
        printed = cohort_name == "ukbb" and study.disease == "hf"
        asked = Asked(study, tables, place, options, beside_paper=printed)
        sections += [answer(asked) for answer in questions.QUESTIONS]
    return sections
