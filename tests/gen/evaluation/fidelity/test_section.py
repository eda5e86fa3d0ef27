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


def test_section_of_a_tiny_set_has_no_number(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluation.cohort.meta["settings"], "cohort", "ukbb")
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
    # beside those of the paper's cohort alone
    assert section.tables[-1].caption == fidelity_sections.printed_table1().caption


def test_the_papers_table_has_our_rows_and_its_numbers():
    printed = fidelity_sections.printed_table1().frame
    assert list(printed.columns) == ["FID", "A - A", "A - B", "B - B"] and len(printed) == 12
    assert printed.iloc[1].tolist() == [
        "Real - Real (lower bound)",
        "30.39 (0.34)",
        "44.20 (0.88)",
        "30.37 (0.17)",
    ]


def test_every_backbone_whose_weights_are_given_has_features_of_both_sides(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    by = SimpleNamespace(sha256="0123456789abcdef" * 4, of=SimpleNamespace(title="SwAV"))

    def kept(store: object, rows: np.ndarray, by: object, *, places: object) -> str:
        asked.append((store, rows.tolist(), by))
        return f"{len(rows)} features"

    monkeypatch.setattr(fidelity_sections, "extractor", lambda name, weights, *, device: by)
    monkeypatch.setattr(fidelity_sections, "kept_features", kept)
    held = evaluation.held_out
    rows = (held[[3, 0, 5]], np.array([7, 2]))
    weights = {"inception": None, "swav": "/weights/swav.pth"}
    domain, swav = fidelity_sections._features(evaluation, rows, weights)
    assert np.array_equal(domain.real, evaluation.real.features[[3, 0, 5]])
    assert np.array_equal(domain.synthetic, evaluation.synthetic.features[[7, 2]])
    assert (domain.title, domain.suffix) == ("domain", "")
    source = "swav.pth, sha256 0123456789abcdef"
    assert swav == ("SwAV", "_swav", "3 features", "2 features", source)
    stores = (evaluation.cohort, evaluation.synthetic_set)
    assert asked == [(store, of.tolist(), by) for store, of in zip(stores, rows, strict=True)]
    told = fidelity_sections._sources(evaluation, [domain, swav], rows)
    assert told["SwAV features"] == source and "the 3 images (3 subjects)" in told["real"]
    assert told["synthetic"].endswith("n = 180, 2 of them drawn")


def test_only_rows_that_were_not_judged_go_through_the_network(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = np.flatnonzero(evaluation.cohort.index.split == "train")
    rows = np.array([evaluation.held_out[4], train[0], evaluation.held_out[1], train[5]])
    monkeypatch.setattr(fidelity_sections, "domain_backbone", lambda networks: "by")
    monkeypatch.setattr(
        fidelity_sections,
        "kept_features",
        lambda store, rows, by, places: np.tile(rows[:, None], 6).astype(np.float32),
    )
    features = fidelity_sections._domain_features(evaluation, rows)
    assert np.array_equal(features[[0, 2]], evaluation.real.features[[4, 1]])
    assert features[[1, 3], 0].tolist() == [train[0], train[5]]


def auc_table(**tests: tuple[float, float, float]) -> pd.DataFrame:
    rows = [(name.replace("_", " "), *values) for name, values in tests.items()]
    return pd.DataFrame(rows, columns=["test", "auc", "low", "high"])


def test_a_number_that_tells_more_than_the_floor_is_a_shortcut() -> None:
    synthetic = auc_table(
        network=(0.9, 0.8, 1.0),
        higher=(0.8, 0.7, 0.9),
        lower=(0.2, 0.1, 0.3),
        as_the_floor=(0.8, 0.7, 0.9),
        perhaps=(0.6, 0.45, 0.7),
        perhaps_lower=(0.4, 0.3, 0.55),
    )
    floor = auc_table(
        network=(0.55, 0.5, 0.6),
        higher=(0.5, 0.4, 0.6),
        lower=(0.5, 0.4, 0.6),
        as_the_floor=(0.7, 0.6, 0.8),
        perhaps=(0.3, 0.2, 0.4),
        perhaps_lower=(0.7, 0.6, 0.8),
    )
    assert fidelity_sections._shortcuts(synthetic, floor) == [
        "A single number tells synthetic from real images better than it tells real images from "
        "each other: higher (0.80), lower (0.20)."
    ]
    assert fidelity_sections._shortcuts(floor, floor) == []
    assert fidelity_sections._two_sample_answers(synthetic, floor) == [
        "A small network tells synthetic from held-out real images with an AUC of 0.90 "
        "[0.80, 1.00], real training images from them with 0.55 (0.5: not at all)."
    ]
    nothing = auc_table(network=(np.nan, np.nan, np.nan))
    assert fidelity_sections._two_sample_answers(nothing, nothing) == []


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
    assert "as the paper prints it" not in page
    assert "Mean shift" in page and cell in page and cell in (tmp_path / "fidelity.md").read_text()
