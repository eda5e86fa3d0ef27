"""The report's section on fidelity, without trained networks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cmrdata.prepare import prepare
from cmrgen.evaluation.fidelity import section as fidelity_sections
from cmrgen.evaluation.fidelity.backbones import BACKBONES, Extractor
from cmrgen.evaluation.fidelity.distances import METRICS, Distance, Metric, Pair
from cmrgen.evaluation.judges import Evaluation
from cmrstudy.report import report_html
from support.fake_cohort import FakeCohort, fake_set


class Means(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)[:, :8].flatten(1)

    def parameters(self, recurse: bool = True):
        return iter([nn.Parameter(torch.ones(1))])


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("section")
    cohort = prepare(FakeCohort(count=900), folder)
    made = fake_set(folder / "set", cohort, count=180)
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    rng = np.random.default_rng(0)
    looks = [
        SimpleNamespace(features=rng.normal(size=(n, 6)).astype(np.float32))
        for n in (len(held), 180)
    ]
    return Evaluation(cohort, made, SimpleNamespace(device="cpu"), held, *looks, folder / "results")  # type: ignore[arg-type]


@pytest.mark.slow  # seconds; test_study writes them too
def test_section_has_the_same_tables_for_every_backbone(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    by = Extractor(Means(), 24, "abc", BACKBONES["swav"]._replace(side=16))
    monkeypatch.setattr(fidelity_sections, "extractor", lambda name, weights, **_: by)
    backbones = {"inception": None, "swav": "/weights/swav.pth"}
    section = fidelity_sections.fidelity_section(evaluation, backbones=backbones, n=40, seed=0)
    assert [table.caption.split(":")[0] for table in section.tables] == [
        "Table 1",
        "Who Table 1 compares",
        "Domain features",
        "Table 1",
        "SwAV features",
    ]
    names = [
        f"{name}{of}" for of in ("", "_swav") for name in ("table1", "fidelity", "fidelity_groups")
    ]
    assert sorted(path.stem for path in evaluation.folder.glob("*.csv")) == sorted(
        [*names, "table1_subgroups"]
    )
    assert "Here held-out: Sex, Age, BMI, Diagnosis, all together." in section.paragraphs[-1]
    assert set(pd.read_csv(evaluation.folder / "table1_swav.csv").n) == {40}
    assert section.sources["SwAV features"] == "swav.pth, sha256 abc" and "/weights" not in str(
        section
    )
    assert len(section.answers) == 2 and "40 images a side" in section.answers[0]
    assert section.warnings == [
        "None of 36 full groups has 20 images on both sides, so there is no table of them."
    ]
    assert len(section.figures) == 2 and all(Path(path).exists() for _, path in section.figures)
    page = report_html([section], title="t", facts={})
    assert "SwAV features" in page and "KID" in page


def test_section_of_a_tiny_set_has_no_number(evaluation: Evaluation, tmp_path: Path) -> None:
    few = fake_set(tmp_path / "set", evaluation.cohort, count=8)
    tiny = evaluation._replace(
        synthetic_set=few, synthetic=SimpleNamespace(features=evaluation.synthetic.features[:8])
    )
    section = fidelity_sections.fidelity_section(
        tiny._replace(folder=tmp_path), backbones={}, n=500, seed=0
    )
    assert not section.answers
    table = pd.read_csv(tmp_path / "table1.csv")
    assert table[table.kind == "Real - Synthetic"].fid.isna().all() and len(table)
    assert "synthetic: 4" in " ".join(section.tables[0].notes)


def test_the_papers_table_has_our_rows_and_its_numbers():
    printed = fidelity_sections.printed_table1().frame
    assert list(printed.columns) == ["FID", "A - A", "A - B", "B - B"] and len(printed) == 12
    assert printed.iloc[1].tolist() == [
        "Real - Real (lower bound)",
        "30.39 (0.34)",
        "44.20 (0.88)",
        "30.37 (0.17)",
    ]


def shift(pair: Pair) -> Distance:
    """How far apart the means lie."""
    return Distance(float(np.linalg.norm(pair.x.mean - pair.y.mean)))


def test_a_metric_from_outside_is_measured_and_shown(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = Metric("Mean shift", shift, factor=10, meaning="Mean shift: ten times a length.")
    monkeypatch.setitem(METRICS, "shift", metric)
    mine = evaluation._replace(folder=tmp_path)
    section = fidelity_sections.fidelity_section(mine, backbones={}, n=40, seed=0)
    table = pd.read_csv(tmp_path / "fidelity.csv")
    whole = table[(table.metric == "shift") & (table.axis == "all")].set_index("kind").value
    features = evaluation.real.features, evaluation.synthetic.features
    apart = np.linalg.norm(features[0].mean(0) - features[1].mean(0))
    assert whole.notna().all() and whole["Real - Synthetic"] == pytest.approx(apart, abs=0.5)
    across, floor = whole["Real - Synthetic"], whole["Real - Real"]
    cell = f"{10 * across:.2f} ({10 * floor:.2f})"
    assert section.tables[2].frame.set_index("Group")["Mean shift"]["All"] == cell
    assert "Mean shift: ten times a length." in section.paragraphs[1]
    page = report_html([section], title="t", facts={})
    assert "Mean shift" in page and cell in page and cell in (tmp_path / "fidelity.md").read_text()
