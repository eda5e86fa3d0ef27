"""The fairness part of the report: every table written as CSV, Markdown and LaTeX, every figure
drawn, in the order read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmrcls.fairness import clinical, disparities, grid, predictions, study
from cmrcls.fairness import display as figures_fairness
from cmrcls.fairness.cells import (
    accuracy_answers,
    axis_name,
    beside,
    gap_answers,
    gap_cells,
    measure_name,
    metric_cells,
    operating_cells,
    parity_cells,
    reasons,
    test_cells,
    worst_cells,
)
from cmrcls.fairness.disparities import FEWEST, Tables
from cmrcls.fairness.metrics import BINS, scored
from cmrcls.fairness.options import Options
from cmrcls.fairness.statistics import friedman, tested
from cmrcls.fairness.study import ENOUGH, FEWEST_FOLDS, LEVELS, PLURAL, Study
from cmrcls.fairness.table2 import table2, wide
from cmrdata.store import Store
from cmrstudy import figures, paper
from cmrstudy.report import Section, sourced, write_tables

PAPER_SEEDS = 8
USUAL = Options()


class Place(NamedTuple):
    """Where a disease's tables and figures go."""

    folder: Path
    suffix: str  # of file names: "" for the first disease
    heading: str  # after headings

    def write(
        self, frame: pd.DataFrame, name: str, caption: str, display: pd.DataFrame
    ) -> pd.DataFrame:
        """Writes the three files; returns `display` with its caption."""
        display.attrs["caption"] = caption
        write_tables(frame, self.folder, f"{name}{self.suffix}", caption, display=display)
        return display

    def draw(self, figure: Any, name: str) -> Path:
        """Writes the figure; returns its PNG."""
        return figures.save(figure, self.folder / "figures" / f"{name}{self.suffix}")[0]


def fairness_sections(
    of: grid.Study,
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
        left_out: sentences on runs that `grid.sound` left out.
        options: how to measure.

    Raises:
        ValueError: as `predictions.read`.
    """
    studies = predictions.read(
        of, stores, baseline_arm=baseline, axes=options.axes, subjects=subjects
    )
    sections = fairness(studies, folder=folder, cohort_name=cohort_name, options=options)
    cells = grid.cells(of)
    lacking = (
        [" ".join([*grid.sentences(cells), *left_out])] if grid.missing(cells) or left_out else []
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


def run_marks(of: grid.Study) -> list[str]:
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


def factors_sentence(of: grid.Study) -> str:
    """What was varied, and how an arm's name says it."""
    varied = "; ".join(f"{title} ({', '.join(values)})" for title, values in of.factors.items())
    return f"What the runs differ in: {varied}. An arm is named by what differs from the experiment's own values."


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
    table = table2(runs, axes=axes)
    cells = wide(table)
    caption = (
        "Table 2: balanced accuracy per subgroup and training set, mean ± sd over runs; test subjects at natural "
        f"prevalence; {study.conditional(runs)}"
    )
    shown = place.write(
        table,
        "table2",
        caption + ("; beside it the paper's" * printed),
        beside(cells) if printed else cells,
    )
    rows = found.subgroups[found.subgroups.metric == "balanced_accuracy"]
    single = rows[rows.crossed < 2]
    facts = table.drop_duplicates("subgroup")
    warnings = [*_conditions(runs)]
    if len(few := facts[(facts.positives < FEWEST) & (facts.positives > 0)]):
        names = ", ".join(f"{row.subgroup} ({row.positives})" for row in few.itertuples())
        warnings.append(
            f"Fewer than {FEWEST} positives in {names}: these rows move by chance and have no interval."
        )
    if len(none := facts[(facts.positives == 0) | (facts.positives == facts.n)]):
        warnings.append(
            f"Only one class in {', '.join(none.subgroup)}: balanced accuracy is undefined there."
        )
    return Section(
        f"Is the classifier fairer{place.heading}?",
        [
            f"Arms: {', '.join(runs.arms)}. Every run predicts the same {int(table.n.iloc[0]):,} test subjects, "
            f"{int(table.positives.iloc[0]):,} of them diseased.",
            "Intervals: 95 %, of an arm's mean; ± is the sd of single runs. They rest on a bootstrap of subjects, all "
            "predictions of a subject together, and on Student's t over the replicates of the highest level that was "
            f"repeated often enough ({', '.join(PLURAL[name] for name in LEVELS)}; {ENOUGH + 1} or more). Generators of "
            "an arm count alike, so do sets of a generator and seeds of a set. Whatever was not repeated is given: "
            f"{study.conditional(runs)}.",
        ],
        tables=[shown],
        figures=[
            (
                "Table 2 as a forest plot",
                place.draw(figures_fairness.forest(single), "fig_table2_forest"),
            )
        ],
        warnings=warnings,
        answers=accuracy_answers(rows, baseline=runs.baseline),
    )


def _conditions(runs: Study) -> list[str]:
    """What readers must know of the levels at which runs were repeated."""
    warnings = []
    counted = {arm: study.replicates(runs, arm) for arm in runs.arms}
    held = {
        arm: {level.name for level in study.levels(runs.runs.iloc[runs.positions(arm)])}
        for arm in runs.arms
    }
    if min(counts["seeds"] for counts in counted.values()) < PAPER_SEEDS:
        counts = ", ".join(f"{arm} {counts['seeds']}" for arm, counts in counted.items())
        warnings.append(
            f"Few seeds (the paper has {PAPER_SEEDS}): {counts}. Intervals are the wider for it."
        )
    if lone := [arm for arm in runs.arms if not held[arm]]:
        warnings.append(
            f"Fewer than {ENOUGH + 1} seeds in {', '.join(lone)}: intervals hold the chance of who is in the test set, not "
            "that of training."
        )
    if seeds := [arm for arm in runs.arms if held[arm] == {"seed"} and counted[arm]["sets"]]:
        known = "; ".join(dict.fromkeys(study.given(runs, arm) for arm in seeds))
        warnings.append(
            f"Only classifier seeds vary in {', '.join(seeds)}: intervals and tests are conditional on {known}. Another "
            "generator may move these arms by more than the intervals say. With three generators (or three sets of one) "
            "that chance is in the intervals: docs/statistics.md."
        )
    if runs.folds is None or runs.folds.max() + 1 < FEWEST_FOLDS:
        warnings.append(
            "One split: what another division into training and test subjects would give is not in any "
            "interval; fold=0,1,2,3,4 with -m has it."
        )
    return warnings


def _apart(runs: Study, found: Tables, place: Place, *, printed: bool) -> Section:
    table, baseline = found.disparities, runs.baseline
    heading = f"How far apart are subgroups{place.heading}?"
    if table.empty:
        return Section(heading, warnings=["No axis has two subgroups to compare."])
    gaps = table[table.measure == "balanced_accuracy"]
    known = study.conditional(runs)
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
        gaps,
        "gaps",
        f"Gaps in balanced accuracy between subgroups, less the bias of picking extremes [95 % interval]; {known}",
        gap_cells(gaps, baseline=baseline),
    )
    shown.attrs["warnings"] = reasons(gaps)
    worst = place.write(
        found.worst,
        "worst",
        f"Worst subgroup by balanced accuracy, less the bias of picking extremes [95 % interval]; {known}",
        worst_cells(found.worst, baseline=baseline),
    )
    parity = table[table.measure != "balanced_accuracy"]
    caption = (
        "Fairness measures: difference and ratio, less the bias of picking extremes [95 % interval of the difference]; "
        f"{known}"
    )
    place.write(parity, "fairness", caption, parity_cells(parity))
    single = gaps[gaps.crossed < 2]
    cells = parity_cells(parity[parity.crossed < 2])
    cells.attrs["caption"] = caption
    drawn = figures_fairness.gaps(single, {axis: axis_name(axis) for axis in single.axis})
    return Section(
        heading,
        paragraphs,
        tables=[shown, worst, cells],
        figures=[("Gaps between subgroups per arm", place.draw(drawn, "fig_gaps"))],
        warnings=[]
        if baseline is not None
        else ["No arm to compare with (synthetic=0, or baseline=): no change can be told."],
        answers=gap_answers(gaps),
    )


def _in_use(runs: Study, place: Place, options: Options) -> Section:
    heading, known = f"What would it be worth in use{place.heading}?", study.conditional(runs)
    prevalence = float(runs.subjects.label.mean())
    specificity, draws = options.specificity, {"resamples": options.resamples, "seed": options.seed}
    curve = clinical.decision_curve(runs, **draws)
    useful = clinical.useful(curve)
    benefit = place.write(
        curve,
        "decision_curve",
        "Decision curve: thresholds at which acting on the classifier has a larger net benefit than acting on everybody or "
        f"nobody; {known}",
        useful,
    )
    tables, warnings = [benefit], []
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
        tables.insert(0, place.write(table, "operating_point", caption, operating_cells(table)))
        chosen = clinical.threshold_cells(thresholds)
        place.write(
            thresholds,
            "thresholds",
            f"Thresholds chosen on validation for a specificity of {specificity:g}",
            chosen,
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
        tables=tables,
        figures=[
            (
                "Decision curve: net benefit per threshold",
                place.draw(figures_fairness.decision(curve), "fig_decision_curve"),
            )
        ],
        warnings=warnings,
    )


def _measures(runs: Study, found: Tables, place: Place) -> Section:
    rows = found.subgroups
    display = metric_cells(rows)
    caption = (
        f"Metrics per subgroup and arm: mean over runs [95 % interval]; {study.conditional(runs)}"
    )
    shown = place.write(rows, "metrics", caption, display)
    reliability, counts = study.calibration(runs), study.confusion(runs)
    place.write(
        reliability,
        "calibration",
        "Predicted probability and share of diseased per bin, runs pooled",
        reliability,
    )
    confusion = place.write(counts, "confusion", "Decisions, mean over runs", counts.round(1))
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
                place.draw(figures_fairness.calibration(reliability), "fig_calibration"),
            ),
            (
                "Confusion matrices: mean counts over runs, shade: share of the row",
                place.draw(figures_fairness.confusion(counts), "fig_confusion"),
            ),
        ],
    )


def _tests(runs: Study, found: Tables, place: Place) -> Section:
    heading = f"Do arms differ beyond chance{place.heading}?"
    if len(runs.arms) < 2:
        return Section(heading, warnings=["There is one arm only: nothing to test."])
    values = scored("balanced_accuracy", runs.predicted).value
    tables = [tested(runs, values).assign(measure="overall")]
    if not found.tests.empty:
        names = [measure_name(f"{row.measure} {row.axis}") for row in found.tests.itertuples()]
        tables.append(found.tests.assign(measure=names))
    tests = pd.concat(tables, ignore_index=True)
    tests = tests[["measure", *tests.columns.drop("measure")]]
    warnings = []
    if weak := sorted(set(tests.note) - {""}):
        warnings.append(
            f"Tests between two arms: {'; '.join(weak)}. That they find nothing says nothing."
        )
    unit = tests[tests.measure == "overall"].unit.drop_duplicates()
    caption = (
        f"Arms compared, Holm-corrected within each measure; unit of the overall tests: {', '.join(unit)}; "
        f"{study.conditional(runs)}"
    )
    shown = place.write(tests, "tests", caption, test_cells(tests))
    ranking = friedman(study.by_seed(runs, values))
    warnings += ranking.warnings
    ranks = place.write(
        table := pd.DataFrame(
            [
                {
                    "measure": "overall",
                    "seeds": ranking.blocks,
                    "chi2": ranking.statistic,
                    "p": ranking.p,
                    "critical_difference": ranking.critical_difference,
                    **ranking.ranks.round(2),
                }
            ]
        ),
        "ranks",
        "Mean rank per arm (1 = best), Friedman's test over classifier seeds, Nemenyi's critical difference (5 %); given "
        "the generators and sets",
        table,
    )
    drawn = []
    if ranking.critical_difference == ranking.critical_difference:
        figure = figures_fairness.critical_difference(ranking.ranks, ranking.critical_difference)
        drawn = [
            (
                f"Critical differences: mean rank in overall balanced accuracy, {ranking.blocks} seeds; a bar joins arms "
                "that are not told apart",
                place.draw(figure, "fig_critical_difference"),
            )
        ]
    overall = test_cells(tests[tests.measure == "overall"])
    overall.attrs |= shown.attrs
    return Section(
        heading,
        [
            "The overall tests ask whether training again would give the same order on these test subjects: over seeds, "
            "Wilcoxon's signed-rank test, exact and two-sided, runs of one seed being a pair; where generators or sets were "
            "repeated often enough, a t test over these. Tests of gaps and worst subgroups (tests"
            f"{place.suffix}.csv) compare corrected values by the bootstrap; the intervals above also ask about other test "
            "subjects."
        ],
        tables=[overall, ranks],
        figures=drawn,
        warnings=warnings,
    )
