"""The questions that the report answers for the classifiers of a disease: every table written as
CSV, Markdown and LaTeX, every figure drawn."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from cmrcls.fairness import clinical
from cmrcls.fairness.disparities import Tables
from cmrcls.fairness.display import figures, tables
from cmrcls.fairness.levels import LEVELS, MIN_FREEDOM, PLURAL, conditions_in_words
from cmrcls.fairness.metrics import METRICS, reported, scored
from cmrcls.fairness.options import Options
from cmrcls.fairness.resampling import MIN_SUBJECTS_FOR_INTERVAL
from cmrcls.fairness.sentences import (
    accuracy_answers,
    gap_answers,
    what_varied,
    without_interval,
)
from cmrcls.fairness.statistics import Ranking, compare_all_arms, friedman
from cmrcls.fairness.study import (
    Study,
    by_seed,
    confusion_table,
    reliability_table,
    table2,
)
from cmrcls.fairness.subgroups import Crossing
from cmrstudy import figures as drawing
from cmrstudy import paper
from cmrstudy.report import Section, Shown, write_table


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

    def draw(self, figure: Figure, name: str) -> Path:
        """Write a figure; its PNG."""
        return drawing.save(figure, self.folder / "figures" / f"{name}{self.suffix}")[0]


class Asked(NamedTuple):
    """What every question is put to."""

    study: Study
    tables: Tables
    place: Place
    options: Options
    beside_paper: bool = False  # whether the paper's numbers stand beside ours


def accuracy(of: Asked) -> Section:
    """Is the classifier fairer? Table 2."""
    study, place = of.study, of.place
    table2_of = table2(study, axes=of.options.axes)
    table, known = table2_of.rows, conditions_in_words(study)
    caption = (
        "Table 2: balanced accuracy per subgroup and training set, mean ± sd over runs; test "
        f"subjects at natural prevalence; {known}"
    )
    shown = place.write(
        tables.table2_shown(table2_of, caption, beside_paper=of.beside_paper), "table2", table
    )
    rows = of.tables.subgroups[of.tables.subgroups.metric == "balanced_accuracy"]
    single = rows[rows.crossed < 2]
    facts = table.drop_duplicates("subgroup")
    warnings = what_varied(study)
    if len(few := facts[(facts.positives < MIN_SUBJECTS_FOR_INTERVAL) & (facts.positives > 0)]):
        names = ", ".join(f"{row.subgroup} ({row.positives})" for row in few.itertuples())
        warnings.append(
            f"Fewer than {MIN_SUBJECTS_FOR_INTERVAL} positives in {names}: these rows move by "
            "chance and have no interval."
        )
    if len(none := facts[(facts.positives == 0) | (facts.positives == facts.n)]):
        warnings.append(
            f"Only one class in {', '.join(none.subgroup)}: balanced accuracy is undefined there."
        )
    return Section(
        f"Is the classifier fairer{place.heading}?",
        [
            f"Arms: {', '.join(map(str, study.arms))}. Every run predicts the same "
            f"{int(table.n.iloc[0]):,} test subjects, {int(table.positives.iloc[0]):,} of them "
            "diseased.",
            "Intervals: 95 %, of an arm's mean; ± is the sd of single runs. They rest on a "
            "bootstrap of subjects, all predictions of a subject together, and on Student's t "
            "over the replicates of the highest level that was repeated often enough "
            f"({', '.join(PLURAL[name] for name in LEVELS)}; {MIN_FREEDOM + 1} or more). "
            "Generators of an arm count alike, so do sets of a generator and seeds of a set. "
            f"Whatever was not repeated is given: {known}.",
        ],
        tables=[shown],
        figures=[
            (
                "Table 2 as a forest plot",
                place.draw(figures.forest_figure(tables.plain(single)), "fig_table2_forest"),
            )
        ],
        warnings=warnings,
        answers=accuracy_answers(rows, baseline=study.baseline),
    )


def gaps(of: Asked) -> Section:
    """How far apart are subgroups? Gaps, worst subgroups and fairness measures."""
    place, table, baseline = of.place, of.tables.disparities, of.study.baseline
    heading = f"How far apart are subgroups{place.heading}?"
    if table.empty:
        return Section(heading, warnings=["No axis has two subgroups to compare."])
    single, known = table[table.crossed < 2], conditions_in_words(of.study)
    own, parity = single.measure == "balanced_accuracy", tables.parity_cells
    caption = (
        "Fairness measures: difference and ratio, less the bias of picking extremes [95 % "
        f"interval of the difference]; {known}"
    )
    measures = table[table.measure != "balanced_accuracy"]
    place.write(Shown(parity(measures), caption), "fairness", measures)
    names = [axis.in_words for axis in single[own].axis]
    figure = figures.gaps_figure(tables.plain(single[own]).assign(axis=names))
    return Section(
        heading,
        _on_gaps(of),
        tables=[*_gap_tables(of, known), Shown(parity(single[~own]), caption)],
        figures=[("Gaps between subgroups per arm", place.draw(figure, "fig_gaps"))],
        warnings=[]
        if baseline is not None
        else [
            "There is no arm to compare with (synthetic=0, or the one that baseline= names), so no "
            "change is reported."
        ],
        answers=gap_answers(single[own]),
    )


def _gap_tables(of: Asked, known: str) -> list[Shown]:
    """Gaps and worst subgroups, written. known: what intervals hold."""
    table, baseline = of.tables.disparities, of.study.baseline
    gaps = table[table.measure == "balanced_accuracy"]
    shown = of.place.write(
        Shown(
            tables.gap_cells(gaps, baseline=baseline),
            "Gaps in balanced accuracy between subgroups, less the bias of picking extremes "
            f"[95 % interval]; {known}",
        ),
        "gaps",
        gaps,
    )
    worst = of.place.write(
        Shown(
            tables.worst_cells(of.tables.worst, baseline=baseline),
            "Worst subgroup by balanced accuracy, less the bias of picking extremes "
            f"[95 % interval]; {known}",
        ),
        "worst",
        of.tables.worst,
    )
    return [shown._replace(notes=without_interval(gaps)), worst]


def _on_gaps(of: Asked) -> list[str]:
    """What a reader must know of gaps and fairness measures."""
    baseline = of.study.baseline
    paragraphs = [
        "Gap: the highest subgroup minus the lowest. Even if all subgroups were alike, one would "
        "be the highest by chance. An observed gap is therefore too large, more so with many or "
        "small subgroups, and the worst subgroup looks too bad. Beside each number stands what "
        "equal subgroups of these sizes would give (subgroups permuted among subjects of the same "
        "label: mean and 95th percentile; p: how often they give at least what was observed; one "
        "test, not corrected for the number of axes). The gap itself is given less that bias; its "
        "interval is valid whichever pair of subgroups is extreme.",
        "Fairness measures are fairlearn's, of rates averaged over runs: demographic parity "
        "compares selection rates, equal opportunity sensitivities, equalised odds the worse of "
        "sensitivities and false positive rates. How often these intervals hold the truth, with 2 "
        "to 18 subgroups: docs/results/coverage.md.",
    ]
    if baseline is not None:
        paragraphs.append(
            f"Change and reduction are against {baseline}, both of corrected gaps; a reduction is "
            f"reported only where {baseline}'s gap surely is not 0 (gaps{of.place.suffix}.csv has "
            "every one)."
        )
    if of.beside_paper:
        paragraphs.append(
            f"The paper reports a reduction of {paper.GAP_REDUCTION:.0%} between sexes for Real + "
            "4000, of observed gaps."
        )
    return paragraphs


def usefulness(of: Asked) -> Section:
    """What would it be worth in use? Operating point and decision curve."""
    study, place, options = of.study, of.place, of.options
    heading, known = f"What would it be worth in use{place.heading}?", conditions_in_words(study)
    prevalence = float(study.subjects.label.mean())
    specificity = options.specificity
    curve = clinical.decision_curve(study, resamples=options.resamples, seed=options.seed)
    benefit = place.write(
        Shown(
            tables.plain(clinical.useful_thresholds(curve)),
            "Decision curve: thresholds at which acting on the classifier has a larger net "
            f"benefit than acting on everybody or nobody; {known}",
        ),
        "decision_curve",
        curve,
    )
    reason = clinical.no_threshold(study)
    points = [] if reason else [_operating_point(of, known)]
    return Section(
        heading,
        [
            f"Each run's threshold is the lowest that keeps a specificity of {specificity:g} "
            f"among the validation subjects of its own fold; the test subjects, {prevalence:.1%} "
            "of them diseased, only judge it. PPV and NPV hold for that prevalence and no other.",
            "Net benefit: true positives less false ones weighed by the threshold's odds, per "
            "subject (Vickers & Elkin). Training sees as many diseased as healthy subjects, so "
            "probabilities are recalibrated on validation first; "
            f"decision_curve{place.suffix}.csv also has the curve of raw ones. Thresholds reach "
            "from a quarter of the prevalence to one half.",
        ],
        tables=[*points, benefit],
        figures=[
            (
                "Decision curve: net benefit per threshold",
                place.draw(figures.decision_figure(tables.plain(curve)), "fig_decision_curve"),
            )
        ],
        warnings=[f"No sensitivity at a fixed specificity: {reason}."] if reason else [],
    )


def _operating_point(of: Asked, known: str) -> Shown:
    """Sensitivity at the specificity asked for, written with its thresholds. known: what intervals
    hold."""
    options, specificity = of.options, of.options.specificity
    table, thresholds = clinical.operating_table(
        of.study,
        specificity=specificity,
        axes=options.axes,
        resamples=options.resamples,
        seed=options.seed,
    )
    caption = (
        f"Sensitivity at a specificity of {specificity:g}, thresholds chosen on validation, and "
        f"predictive values at the cohort's prevalence [95 % interval]; {known}"
    )
    of.place.write(
        Shown(
            tables.threshold_cells(thresholds),
            f"Thresholds chosen on validation for a specificity of {specificity:g}",
        ),
        "thresholds",
        thresholds,
    )
    return of.place.write(Shown(tables.operating_cells(table), caption), "operating_point", table)


def all_metrics(of: Asked) -> Section:
    """Every metric, calibration and confusion."""
    study, place = of.study, of.place
    known = conditions_in_words(study)
    shown = place.write(
        Shown(
            tables.metric_cells(of.tables.subgroups),
            f"Metrics per subgroup and arm: mean over runs [95 % interval]; {known}",
        ),
        "metrics",
        of.tables.subgroups,
    )
    *most, last = [
        f"{metric.title} ({metric.remark})" if metric.remark else metric.title
        for metric in (METRICS[name] for name in reported())
        if metric.of_probabilities
    ]
    probabilities = f"{', '.join(most)} and {last}"
    reliability = tables.plain(reliability_table(study))
    counts = tables.plain(confusion_table(study))
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
            f"{probabilities} are of probabilities; the others of decisions. Training sees as "
            "many diseased as healthy subjects, the test set its natural prevalence, so "
            "probabilities are too high by design and ECE shows it; ECE is also biased upwards in "
            "small groups. AUPRC, PPV and NPV depend on prevalence: compare arms, not subgroups. "
            f"metrics{place.suffix}.csv also has the crossed subgroups and the change from the "
            "arm that others are compared with.",
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


def tests_between_arms(of: Asked) -> Section:
    """Do arms differ beyond chance? Tests and ranks."""
    study, place = of.study, of.place
    heading = f"Do arms differ beyond chance{place.heading}?"
    if len(study.arms) < 2:
        return Section(heading, warnings=["There is one arm only: nothing to test."])
    values = scored("balanced_accuracy", study.predicted).value
    overall = compare_all_arms(study, values).assign(measure="overall", axis=Crossing())
    tests = pd.concat(
        [overall, *([] if of.tables.tests.empty else [of.tables.tests])], ignore_index=True
    )
    tests = tests[["measure", *tests.columns.drop("measure")]]
    warnings = []
    if weak := sorted(set(tests.note) - {""}):
        warnings.append(
            f"Tests between two arms: {'; '.join(weak)}. That they find nothing says nothing."
        )
    unit = overall.unit.drop_duplicates()
    caption = (
        "Arms compared, Holm-corrected within each measure; unit of the overall tests: "
        f"{', '.join(unit)}; {conditions_in_words(study)}"
    )
    place.write(
        Shown(tables.comparison_cells(tests), caption), "tests", tables.comparisons_plain(tests)
    )
    ranking = friedman(by_seed(study, values))
    warnings += ranking.warnings
    ranks = place.write(
        Shown(
            tables.rank_cells(ranking),
            "Mean rank per arm (1 = best), Friedman's test over classifier seeds, Nemenyi's "
            "critical difference (5 %); given the generators and sets",
        ),
        "ranks",
    )
    return Section(
        heading,
        [
            "The overall tests ask whether training again would give the same order on these test "
            "subjects: over seeds, Wilcoxon's signed-rank test, exact and two-sided, runs of one "
            "seed being a pair; where generators or sets were repeated often enough, a t test "
            f"over these. Tests of gaps and worst subgroups (tests{place.suffix}.csv) compare "
            "corrected values by the bootstrap; the intervals above also ask about other test "
            "subjects."
        ],
        tables=[Shown(tables.comparison_cells(overall), caption), ranks],
        figures=_ranks_drawn(ranking, place),
        warnings=warnings,
    )


def _ranks_drawn(ranking: Ranking, place: Place) -> list[tuple[str, Path]]:
    """Title and file of the critical differences; none where there are none."""
    if pd.isna(ranking.critical_difference):
        return []
    figure = figures.ranks_figure(ranking.ranks.rename(index=str), ranking.critical_difference)
    title = (
        f"Critical differences: mean rank in overall balanced accuracy, {ranking.blocks} seeds; a "
        "bar joins arms that are not told apart"
    )
    return [(title, place.draw(figure, "fig_critical_difference"))]


QUESTIONS = (accuracy, gaps, usefulness, all_metrics, tests_between_arms)
