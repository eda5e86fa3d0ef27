"""A metric that is added from outside is in every table, without a change of any file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cmrcls.fairness.disparities import measure
from cmrcls.fairness.metrics import METRICS, Metric, Predicted, Scored, mean_of, scored
from cmrcls.fairness.options import Options
from cmrcls.fairness.questions import Asked, Place, all_metrics
from cmrcls.fairness.study import Study
from cmrcls.run_summary import scores
from cmrstudy.report import Section, report_html
from support.fake_runs import ARMS, one_study, runs


def metrics_of(study: Study, folder: Path) -> Section:
    """The report's section on all metrics, written below the folder."""
    tables = measure(study, resamples=40, permutations=8)
    return all_metrics(Asked(study, tables, Place(folder, "", ""), Options()))


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
    part = metrics_of(one_study(table), tmp_path)
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
    page = report_html([part], title="t", facts={})
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
    part = metrics_of(one_study(runs(seeds=1, n=60, arms=ARMS[:1])), tmp_path)
    assert "and mean probability (of everybody) are of probabilities" in part.paragraphs[0]
