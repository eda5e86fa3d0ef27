"""The fairness part of the report: every table written as CSV, Markdown and LaTeX, every figure
drawn, in the order read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmrcls.fairness import clinical, disparities, grid, predictions
from cmrcls.fairness.disparities import Tables
from cmrcls.fairness.display import figures, tables
from cmrcls.fairness.levels import (
    LEVELS,
    MIN_FREEDOM,
    PLURAL,
    conditions_in_words,
)
from cmrcls.fairness.metrics import BINS, scored
from cmrcls.fairness.options import Options
from cmrcls.fairness.resampling import MIN_SUBJECTS_FOR_INTERVAL
from cmrcls.fairness.sentences import (
    accuracy_answers,
    factors_sentence,
    gap_answers,
    what_varied,
    without_interval,
)
from cmrcls.fairness.statistics import compare_all_arms, friedman
from cmrcls.fairness.study import (
    Study,
    by_seed,
    confusion_table,
    reliability_table,
    table2,
)
from cmrcls.fairness.subgroups import Axis
from cmrdata.store import Store
from cmrstudy import figures as drawing
from cmrstudy import paper
from cmrstudy.report import Section, Shown, sourced, write_table

USUAL = Options()


class Place(NamedTuple):
    """Where a disease's tables and figures go."""

    folder: Path
    suffix: str  # of file names: "" for the first disease
    heading: str  # after headings

    def write(self, shown: Shown, name: str, data: pd.DataFrame | None = None) -> Shown:
        """Write a table's three files.

        Args:
            shown: what readers see.
            name: of the files.
            data: the measured table, for the CSV file; None: what readers see.

        Returns:
            `shown`.
        """
        table = None if data is None else tables.plain(data)
        write_table(shown, self.folder, f"{name}{self.suffix}", data=table)
        return shown

    def draw(self, figure: Any, name: str) -> Path:
        """Writes the figure; returns its PNG."""
        return drawing.save(figure, self.folder / "figures" / f"{name}{self.suffix}")[0]


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
    sections = fairness(studies, folder=folder, cohort_name=cohort_name, options=options)
    expected = grid.expected_runs(of)
    lacking = (
        [" ".join([*grid.sentences(expected), *left_out])]
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


def fairness(
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
    result = []
    for k, runs in enumerate(studies):
        several = len(studies) > 1
        suffix, heading = f"_{runs.disease}" if k else "", f": {runs.disease}" if several else ""
        place = Place(Path(folder), suffix, heading)
        found = disparities.measure(
            runs,
            axes=options.axes,
            resamples=options.resamples,
            permutations=options.permutations,
            seed=options.seed,
        )
        printed = cohort_name == "ukbb" and runs.disease == "hf"
        result += [
            _accuracy(runs, found, place, axes=options.axes, printed=printed),
            _apart(runs, found, place, printed=printed),
            _in_use(runs, place, options),
            _measures(runs, found, place),
            _tests(runs, found, place),
        ]
    return result


def _accuracy(
    runs: Study, found: Tables, place: Place, *, axes: Sequence[str], printed: bool
) -> Section:
    table2_of = table2(runs, axes=axes)
    table, known = table2_of.rows, conditions_in_words(runs)
    caption = (
        "Table 2: balanced accuracy per subgroup and training set, mean ± sd over runs; test subjects at natural "
        f"prevalence; {known}"
    )
    shown = place.write(
        tables.table2_shown(table2_of, caption, beside_paper=printed), "table2", table
    )
    rows = found.subgroups[found.subgroups.metric == "balanced_accuracy"]
    single = rows[rows.crossed < 2]
    facts = table.drop_duplicates("subgroup")
    warnings = what_varied(runs)
    if len(few := facts[(facts.positives < MIN_SUBJECTS_FOR_INTERVAL) & (facts.positives > 0)]):
        names = ", ".join(f"{row.subgroup} ({row.positives})" for row in few.itertuples())
        warnings.append(
            f"Fewer than {MIN_SUBJECTS_FOR_INTERVAL} positives in {names}: these rows move by chance and have no interval."
        )
    if len(none := facts[(facts.positives == 0) | (facts.positives == facts.n)]):
        warnings.append(
            f"Only one class in {', '.join(none.subgroup)}: balanced accuracy is undefined there."
        )
    return Section(
        f"Is the classifier fairer{place.heading}?",
        [
            f"Arms: {', '.join(map(str, runs.arms))}. Every run predicts the same {int(table.n.iloc[0]):,} test subjects, "
            f"{int(table.positives.iloc[0]):,} of them diseased.",
            "Intervals: 95 %, of an arm's mean; ± is the sd of single runs. They rest on a bootstrap of subjects, all "
            "predictions of a subject together, and on Student's t over the replicates of the highest level that was "
            f"repeated often enough ({', '.join(PLURAL[name] for name in LEVELS)}; {MIN_FREEDOM + 1} or more). Generators of "
            "an arm count alike, so do sets of a generator and seeds of a set. Whatever was not repeated is given: "
            f"{known}.",
        ],
        tables=[shown],
        figures=[
            (
                "Table 2 as a forest plot",
                place.draw(figures.forest_figure(tables.plain(single)), "fig_table2_forest"),
            )
        ],
        warnings=warnings,
        answers=accuracy_answers(rows, baseline=runs.baseline),
    )


def _apart(runs: Study, found: Tables, place: Place, *, printed: bool) -> Section:
    table, baseline = found.disparities, runs.baseline
    heading = f"How far apart are subgroups{place.heading}?"
    if table.empty:
        return Section(heading, warnings=["No axis has two subgroups to compare."])
    gaps = table[table.measure == "balanced_accuracy"]
    known = conditions_in_words(runs)
    paragraphs = [
        "Gap: the highest minus the lowest subgroup. Of subgroups that are all alike one is highest by chance, so an observed "
        "gap is too large, the more so the more and the smaller the subgroups, and the worst subgroup looks too bad. Beside "
        "each stands what equal subgroups of these sizes would give (subgroups permuted among subjects of the same label: "
        "mean and 95th percentile; p: how often they give at least what was observed; one test, not corrected for the "
        "number of axes). The gap itself is told less that bias; its interval holds whichever pair is extreme.",
        "Fairness measures are fairlearn's, of rates averaged over runs: demographic parity compares selection rates, equal "
        "opportunity sensitivities, equalised odds the worse of sensitivities and false positive rates. How often these "
        "intervals hold the truth, with 2 to 18 subgroups: docs/results/coverage.md.",
    ]
    if baseline is not None:
        paragraphs.append(
            f"Change and reduction are against {baseline}, both of corrected gaps; a reduction is told only where "
            f"{baseline}'s gap surely is not 0 (gaps{place.suffix}.csv has every one)."
        )
    if printed:
        paragraphs.append(
            f"The paper reports a reduction of {paper.GAP_REDUCTION:.0%} between sexes for Real + 4000, of observed gaps."
        )
    shown = place.write(
        Shown(
            tables.gap_cells(gaps, baseline=baseline),
            "Gaps in balanced accuracy between subgroups, less the bias of picking extremes "
            f"[95 % interval]; {known}",
        ),
        "gaps",
        gaps,
    )
    worst = place.write(
        Shown(
            tables.worst_cells(found.worst, baseline=baseline),
            "Worst subgroup by balanced accuracy, less the bias of picking extremes "
            f"[95 % interval]; {known}",
        ),
        "worst",
        found.worst,
    )
    parity = table[table.measure != "balanced_accuracy"]
    caption = (
        "Fairness measures: difference and ratio, less the bias of picking extremes [95 % interval of the difference]; "
        f"{known}"
    )
    place.write(Shown(tables.parity_cells(parity), caption), "fairness", parity)
    single = gaps[gaps.crossed < 2]
    single_parity = Shown(tables.parity_cells(parity[parity.crossed < 2]), caption)
    names = [axis.in_words for axis in single.axis]
    drawn = figures.gaps_figure(tables.plain(single).assign(axis=names))
    return Section(
        heading,
        paragraphs,
        tables=[shown._replace(notes=without_interval(gaps)), worst, single_parity],
        figures=[("Gaps between subgroups per arm", place.draw(drawn, "fig_gaps"))],
        warnings=[]
        if baseline is not None
        else ["No arm to compare with (synthetic=0, or baseline=): no change can be told."],
        answers=gap_answers(gaps),
    )


def _in_use(runs: Study, place: Place, options: Options) -> Section:
    heading, known = f"What would it be worth in use{place.heading}?", conditions_in_words(runs)
    prevalence = float(runs.subjects.label.mean())
    specificity, draws = options.specificity, {"resamples": options.resamples, "seed": options.seed}
    curve = clinical.decision_curve(runs, **draws)
    benefit = place.write(
        Shown(
            tables.plain(clinical.useful(curve)),
            "Decision curve: thresholds at which acting on the classifier has a larger net benefit than acting on everybody or "
            f"nobody; {known}",
        ),
        "decision_curve",
        curve,
    )
    shown, warnings = [benefit], []
    if reason := clinical.no_threshold(runs):
        warnings.append(f"No sensitivity at a fixed specificity: {reason}.")
    else:
        table, thresholds = clinical.operating_table(
            runs, specificity=specificity, axes=options.axes, **draws
        )
        caption = (
            f"Sensitivity at a specificity of {specificity:g}, thresholds chosen on validation, and predictive values at "
            f"the cohort's prevalence [95 % interval]; {known}"
        )
        cells = Shown(tables.operating_cells(table), caption)
        shown.insert(0, place.write(cells, "operating_point", table))
        place.write(
            Shown(
                tables.threshold_cells(thresholds),
                f"Thresholds chosen on validation for a specificity of {specificity:g}",
            ),
            "thresholds",
            thresholds,
        )
    return Section(
        heading,
        [
            f"Each run's threshold is the lowest that keeps a specificity of {specificity:g} among the validation subjects of "
            f"its own fold; the test subjects, {prevalence:.1%} of them diseased, only judge it. PPV and NPV hold for that "
            "prevalence and no other.",
            "Net benefit: true positives less false ones weighed by the threshold's odds, per subject (Vickers & Elkin). "
            "Training sees as many diseased as healthy subjects, so probabilities are recalibrated on validation first; "
            f"decision_curve{place.suffix}.csv also has the curve of raw ones. Thresholds reach from a quarter of the "
            "prevalence to one half.",
        ],
        tables=shown,
        figures=[
            (
                "Decision curve: net benefit per threshold",
                place.draw(figures.decision_figure(tables.plain(curve)), "fig_decision_curve"),
            )
        ],
        warnings=warnings,
    )


def _measures(runs: Study, found: Tables, place: Place) -> Section:
    known = conditions_in_words(runs)
    shown = place.write(
        Shown(
            tables.metric_cells(found.subgroups),
            f"Metrics per subgroup and arm: mean over runs [95 % interval]; {known}",
        ),
        "metrics",
        found.subgroups,
    )
    reliability = tables.plain(reliability_table(runs))
    counts = tables.plain(confusion_table(runs))
    place.write(
        Shown(reliability, "Predicted probability and share of diseased per bin, runs pooled"),
        "calibration",
    )
    confusion = place.write(
        Shown(counts.round(1), "Decisions, mean over runs"), "confusion", counts
    )
    return Section(
        f"Other measures{place.heading}",
        [
            f"AUROC, AUPRC (average precision), Brier score and ECE ({BINS} bins of equal width of the probability of "
            "disease) are of probabilities; the others of decisions. Training sees as many diseased as healthy subjects, the "
            "test set its natural prevalence, so probabilities are too high by design and ECE shows it; ECE is also biased "
            "upwards in small groups. AUPRC, PPV and NPV depend on prevalence: compare arms, not subgroups. metrics"
            f"{place.suffix}.csv also has the crossed subgroups and the change from the arm that others are compared with.",
        ],
        tables=[shown, confusion],
        figures=[
            (
                "Calibration per arm, runs pooled; a dot's size grows with its predictions",
                place.draw(figures.calibration_figure(reliability), "fig_calibration"),
            ),
            (
                "Confusion matrices: mean counts over runs, shade: share of the row",
                place.draw(figures.confusion_figure(counts), "fig_confusion"),
            ),
        ],
    )


def _tests(runs: Study, found: Tables, place: Place) -> Section:
    heading = f"Do arms differ beyond chance{place.heading}?"
    if len(runs.arms) < 2:
        return Section(heading, warnings=["There is one arm only: nothing to test."])
    values = scored("balanced_accuracy", runs.predicted).value
    overall = compare_all_arms(runs, values).assign(measure="overall", axis=Axis())
    tests = pd.concat([overall, *([] if found.tests.empty else [found.tests])], ignore_index=True)
    tests = tests[["measure", *tests.columns.drop("measure")]]
    warnings = []
    if weak := sorted(set(tests.note) - {""}):
        warnings.append(
            f"Tests between two arms: {'; '.join(weak)}. That they find nothing says nothing."
        )
    unit = overall.unit.drop_duplicates()
    caption = (
        f"Arms compared, Holm-corrected within each measure; unit of the overall tests: {', '.join(unit)}; "
        f"{conditions_in_words(runs)}"
    )
    place.write(Shown(tables.test_cells(tests), caption), "tests", tables.tests_plain(tests))
    ranking = friedman(by_seed(runs, values))
    warnings += ranking.warnings
    ranks = place.write(
        Shown(
            tables.rank_cells(ranking),
            "Mean rank per arm (1 = best), Friedman's test over classifier seeds, Nemenyi's critical difference (5 %); given "
            "the generators and sets",
        ),
        "ranks",
    )
    drawn = []
    if pd.notna(ranking.critical_difference):
        figure = figures.ranks_figure(ranking.ranks.rename(index=str), ranking.critical_difference)
        drawn = [
            (
                f"Critical differences: mean rank in overall balanced accuracy, {ranking.blocks} seeds; a bar joins arms "
                "that are not told apart",
                place.draw(figure, "fig_critical_difference"),
            )
        ]
    return Section(
        heading,
        [
            "The overall tests ask whether training again would give the same order on these test subjects: over seeds, "
            "Wilcoxon's signed-rank test, exact and two-sided, runs of one seed being a pair; where generators or sets were "
            "repeated often enough, a t test over these. Tests of gaps and worst subgroups (tests"
            f"{place.suffix}.csv) compare corrected values by the bootstrap; the intervals above also ask about other test "
            "subjects."
        ],
        tables=[Shown(tables.test_cells(overall), caption), ranks],
        figures=drawn,
        warnings=warnings,
    )
