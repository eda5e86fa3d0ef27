"""The fairness part of the report: every table written as CSV, Markdown and LaTeX, every figure drawn, in the order read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmrcls import disparities, figures_fairness, study
from cmrcls.cells import (
    accuracy_answers,
    axis_name,
    beside,
    gap_answers,
    gap_cells,
    measure_name,
    metric_cells,
    parity_cells,
    reasons,
)
from cmrcls.comparable import Predictions, comparable
from cmrcls.disparities import FEWEST, Tables
from cmrcls.fairness import accuracies, wide
from cmrcls.metrics import BINS
from cmrcls.statistics import friedman, paired_tests
from cmrstudy import figures, paper
from cmrstudy.report import Section, write_tables

PAPER_SEEDS = 8


class Place(NamedTuple):
    """Where a disease's tables and figures go."""

    folder: Path
    pictures: Path
    suffix: str  # of file names: "" for the first disease
    heading: str  # after headings

    def write(self, frame: pd.DataFrame, name: str, caption: str, display: pd.DataFrame) -> pd.DataFrame:
        """Writes the three files; returns `display` with its caption."""
        display.attrs["caption"] = caption
        write_tables(frame, self.folder, f"{name}{self.suffix}", caption, display=display)
        return display

    def draw(self, figure: Any, name: str) -> Path:
        """Writes the figure; returns its PNG."""
        return figures.save(figure, self.pictures / f"{name}{self.suffix}")[0]


def fairness(
    predictions: Predictions,
    facts: Mapping[str, Any],
    *,
    folder: Path,
    pictures: Path,
    axes: Sequence[str] = (),
    resamples: int = 2000,
    seed: int = 0,
    subjects: Collection[str] | None = None,
) -> list[Section]:
    """The report's sections on fairness; tables go below `folder`, figures below `pictures`.

    `predictions` as `comparable.read` gives them, `subjects` all the cohort's; `axes` names further columns whose values are
    subgroups. Where facts["cohort_name"] is "ukbb" the paper's numbers stand beside ours.
    Several diseases have their sections and files each. Raises ValueError when the runs can't be compared.
    """
    result = []
    diseases = predictions.table.disease.unique()
    for k, disease in enumerate(diseases):
        several = len(diseases) > 1
        place = Place(Path(folder), Path(pictures), f"_{disease}" if k else "", f": {disease}" if several else "")
        test = comparable(predictions, disease=disease, axes=axes, subjects=subjects)
        runs = study.study(test, baseline=predictions.baseline)
        found = disparities.measure(runs, axes=axes, resamples=resamples, seed=seed)
        printed = facts.get("cohort_name") == "ukbb" and disease == "hf"
        result += [
            _accuracy(accuracies(test, axes=axes), found, place, printed=printed, baseline=runs.baseline),
            _apart(found, place, printed=printed, baseline=runs.baseline),
            _measures(runs, found, place),
            _tests(runs, axes, place),
        ]
    return result


def _accuracy(table: pd.DataFrame, found: Tables, place: Place, *, printed: bool, baseline: str | None) -> Section:
    cells = wide(table)
    caption = (
        "Table 2: balanced accuracy per subgroup and training set, mean ± sd over seeds; "
        "test subjects at natural prevalence"
    )
    shown = place.write(
        table, "table2", caption + ("; beside it the paper's" * printed), beside(cells) if printed else cells
    )
    rows = found.subgroups[found.subgroups.metric == "balanced_accuracy"]
    single = rows[~rows.axis.str.contains(" x ")]
    seeds = table.groupby("arm", sort=False).seeds.first()
    counts = ", ".join(f"{arm} {n}" for arm, n in seeds.items())
    warnings = []
    if seeds.min() < PAPER_SEEDS:
        warnings.append(f"Few seeds (the paper has {PAPER_SEEDS}): {counts}. Intervals are the wider for it.")
    if len(lone := seeds[seeds == 1]):
        warnings.append(f"One seed only in {', '.join(lone.index)}: intervals hold the chance of who is in the test set, "
                        "not that of training.")  # fmt: skip
    facts = table.drop_duplicates("subgroup")
    if len(few := facts[(facts.positives < FEWEST) & (facts.positives > 0)]):
        names = ", ".join(f"{row.subgroup} ({row.positives})" for row in few.itertuples())
        warnings.append(f"Fewer than {FEWEST} positives in {names}: these rows move by chance and have no interval.")
    if len(none := facts[(facts.positives == 0) | (facts.positives == facts.n)]):
        warnings.append(f"Only one class in {', '.join(none.subgroup)}: balanced accuracy is undefined there.")
    return Section(
        f"Is the classifier fairer{place.heading}?",
        [
            f"Arms: {', '.join(seeds.index)}. Every run predicts the same {int(table.n.iloc[0]):,} test subjects, "
            f"{int(table.positives.iloc[0]):,} of them diseased.",
            "Intervals: 95 %, from a bootstrap of subjects within their subgroup, all predictions of a subject together, "
            "and the spread over seeds (Student's t). They are of the mean over seeds; ± is the sd of single runs.",
        ],
        tables=[shown],
        figures=[("Table 2 as a forest plot", place.draw(figures_fairness.forest(single), "fig_table2_forest"))],
        warnings=warnings,
        answers=accuracy_answers(rows, baseline=baseline),
    )


def _apart(found: Tables, place: Place, *, printed: bool, baseline: str | None) -> Section:
    table = found.disparities
    if table.empty:
        return Section(
            f"How far apart are subgroups{place.heading}?", warnings=["No axis has two subgroups to compare."]
        )
    gaps = table[table.measure == "balanced_accuracy"]
    notes = reasons(gaps)
    paragraphs = [
        "Gap: the highest minus the lowest subgroup, each the mean over seeds. Its interval is that of the difference "
        "between these two subgroups, cut at 0. Fairness measures are fairlearn's, of rates averaged over seeds: "
        "demographic parity compares selection rates, equal opportunity sensitivities, equalised odds the worse of "
        "sensitivities and false positive rates. With several axes crossed there are many small subgroups, and the gap "
        "grows by chance alone.",
    ]
    if baseline is not None:
        paragraphs.append(
            f"Change and reduction are against {baseline}; a reduction is told only where {baseline}'s gap surely is not 0 "
            f"(gaps{place.suffix}.csv has every one)."
        )
    if printed:
        paragraphs.append(f"The paper reports a reduction of {paper.GAP_REDUCTION:.0%} between sexes for Real + 4000.")
    shown = place.write(
        gaps, "gaps", "Gaps in balanced accuracy between subgroups [95 % interval]", gap_cells(gaps, baseline=baseline)
    )
    shown.attrs["warnings"] = notes
    parity = table[table.measure != "balanced_accuracy"]
    cells = place.write(
        parity, "fairness", "Fairness measures: difference and ratio [95 % interval]", parity_cells(parity)
    )
    single = gaps[~gaps.axis.str.contains(" x ")]
    drawn = figures_fairness.gaps(single, {axis: axis_name(axis) for axis in single.axis})
    return Section(
        f"How far apart are subgroups{place.heading}?",
        paragraphs,
        tables=[shown, cells[~cells["axis"].str.contains(" x ")]],
        figures=[("Gaps between subgroups per arm", place.draw(drawn, "fig_gaps"))],
        warnings=[]
        if baseline is not None
        else ["No arm to compare with (synthetic=0, or baseline=): no change can be told."],
        answers=gap_answers(gaps),
    )


def _measures(runs: study.Study, found: Tables, place: Place) -> Section:
    rows = found.subgroups
    display = metric_cells(rows)
    shown = place.write(rows, "metrics", "Metrics per subgroup and arm: mean over seeds [95 % interval]", display)
    reliability, counts = study.calibration(runs), study.confusion(runs)
    place.write(
        reliability, "calibration", "Predicted probability and share of diseased per bin, runs pooled", reliability
    )
    confusion = place.write(counts, "confusion", "Decisions, mean over seeds", counts.round(1))
    return Section(
        f"Other measures{place.heading}",
        [
            f"AUROC, AUPRC (average precision), Brier score and ECE ({BINS} bins of equal width of the probability of "
            "disease) are of probabilities; the others of decisions. Training sees as many diseased as healthy subjects, the "
            "test set its natural prevalence, so probabilities are too high by design and ECE shows it; ECE is also biased "
            "upwards in small groups. AUPRC depends on prevalence: compare arms, not subgroups. metrics"
            f"{place.suffix}.csv also has the crossed subgroups and the change from the arm that others are compared with.",
        ],
        tables=[shown, confusion],
        figures=[
            ("Calibration per arm, runs pooled; a dot's size grows with its predictions",
             place.draw(figures_fairness.calibration(reliability), "fig_calibration")),
            ("Confusion matrices: mean counts over seeds, shade: share of the row",
             place.draw(figures_fairness.confusion(counts), "fig_confusion")),
        ],
    )  # fmt: skip


def _tests(runs: study.Study, axes: Sequence[str], place: Place) -> Section:
    heading, scores = f"Do arms differ beyond chance{place.heading}?", study.seed_scores(runs, axes=axes)
    if len(set(runs.arms)) < 2:
        return Section(heading, warnings=["There is one arm only: nothing to test."])
    tables, rankings, warnings = [], [], []
    for name, score in scores.items():
        lower = name.startswith("gap")
        tables.append(paired_tests(score, higher_is_better=not lower).assign(measure=measure_name(name)))
        ranking = friedman(score, higher_is_better=not lower)
        rankings.append({"measure": measure_name(name), "seeds": ranking.blocks, "chi2": ranking.statistic, "p": ranking.p,
                         "critical_difference": ranking.critical_difference, **ranking.ranks.round(2)})  # fmt: skip
        warnings += [note for note in ranking.warnings if note not in warnings]
    tests = pd.concat(tables, ignore_index=True)
    tests = tests[["measure", *tests.columns.drop("measure")]]
    if weak := sorted(set(tests.note) - {""}):
        warnings.append(f"Tests between two arms: {'; '.join(weak)}. That they find nothing says nothing.")
    caption = "Arms compared over seeds: Wilcoxon signed-rank, exact and two-sided, Holm-corrected within each measure"
    shown = place.write(tests, "tests", caption, tests.drop(columns=["smallest_p", "note"]))
    ranks = place.write(table := pd.DataFrame(rankings), "ranks", "Mean rank per arm (1 = best), Friedman's test over seeds, "
                        "Nemenyi's critical difference (5 %)", table)  # fmt: skip
    drawn = []
    first = friedman(scores["overall"])
    if first.critical_difference == first.critical_difference:
        figure = figures_fairness.critical_difference(first.ranks, first.critical_difference)
        drawn = [(f"Critical differences: mean rank in overall balanced accuracy, {first.blocks} seeds; a bar joins arms "
                  "that are not told apart", place.draw(figure, "fig_critical_difference"))]  # fmt: skip
    return Section(
        heading,
        [
            "Runs of one seed are a pair. These tests ask whether training again would give the same order on these test "
            "subjects; the intervals above also ask about other test subjects."
        ],
        tables=[shown[shown.measure == shown.measure.iloc[0]].rename_axis(None), ranks],
        figures=drawn,
        warnings=warnings,
    )
