"""The report's first section: who is in the study."""

from __future__ import annotations

from pathlib import Path

from cmrcls.fairness.display.participants import baseline_cells, flow_cells
from cmrcls.fairness.grid import Grid
from cmrcls.fairness.participants import MIN_COUNT, baseline, flow, read_rejected
from cmrdata.store import Store
from cmrstudy.report import Section, Shown, write_table


def participants_section(
    cohort: Store,
    study: Grid | None,
    *,
    folder: Path,
    sentence: str,
    drawn: Path,
    fold: int | None = None,
) -> Section:
    """The report's first section: flow.csv and baseline.csv, written below `folder`, with Fig. 1.

    Args:
        cohort: the store that the runs (of that fold) were trained on.
        study: whose finished runs are the arms; None for none.
        folder: of the report's tables.
        sentence: on the splits.
        drawn: Fig. 1.
        fold: of the store.
    """
    of = f", fold {fold}" if fold is not None else ""
    rejected = read_rejected(cohort.folder)
    moving, people = flow(cohort, study, rejected=rejected), baseline(cohort.subjects)
    shown = {
        "flow": Shown(
            flow_cells(moving),
            f"Participants and images, from what was found to each arm's training{of}",
        ),
        "baseline": Shown(
            baseline_cells(people),
            f"Participants by split and diagnosis{of}: count (share of those of whom it is known) or mean (sd); SMD: standardised "
            f"mean difference, diseased - healthy and test - training. Counts of fewer than {MIN_COUNT} are hidden",
        ),
    }
    for (name, table), data in zip(shown.items(), (moving, people), strict=True):
        write_table(table, folder, name, data=data)
    paragraphs = [
        sentence,
        "Diseased: heart failure, as the cohort's labels say. Images of an arm are counted once, however often an epoch draws them.",
    ]
    return Section(
        "Who is in the study",
        paragraphs,
        tables=list(shown.values()),
        figures=[("Fig. 1: diseased subjects and the cohort", drawn)],
    )
