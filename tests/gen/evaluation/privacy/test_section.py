"""What the section on safety leaves in a report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cmrdata.prepare import prepare
from cmrgen.evaluation.judges import Evaluation
from cmrgen.evaluation.privacy import section as sections
from cmrgen.evaluation.privacy.membership import loss_attack
from cmrgen.render.set_card import _audit
from support.audited import embed
from support.fake_cohort import FakeCohort, fake_set


@pytest.mark.slow  # seconds
def test_the_section_leaves_its_files_and_the_card_quotes_its_verdicts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=180), tmp_path)
    made = fake_set(tmp_path / "set", store, count=36)
    central = store.index.reset_index()[store.index.central.to_numpy()].set_index("subject")[
        "index"
    ]
    # nearness is compared among central slices
    made.index["source_row"] = made.index.subject.map(central)
    looks = SimpleNamespace(features=None)
    monkeypatch.setattr(sections, "domain_backbone", lambda networks: None)
    monkeypatch.setattr(sections, "kept_features", lambda of, rows, by, places: embed(of, rows))
    attacked = pd.DataFrame(
        [
            {
                "group": "all",
                **loss_attack(*np.random.default_rng(0).normal(size=(2, 50)), seed=0)._asdict(),
            }
        ]
    )
    monkeypatch.setattr(sections, "_attack", lambda *_, **__: attacked)
    networks = SimpleNamespace(device=torch.device("cpu"))
    evaluation = Evaluation(
        store, made, networks, np.zeros(0, int), looks, looks, tmp_path / "results"
    )  # type: ignore[arg-type]
    evaluation.folder.mkdir()
    section = sections.audit_section(evaluation, generator="runs/controlnet/0", seed=0)
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"audit.json", "audit.csv", "audit_tests.csv", "audit_sources.csv", "private"} <= names
    verdicts = json.loads((tmp_path / "results" / "audit.json").read_text())["verdicts"]
    assert verdicts == list(section.answers) == list(section.paragraphs[: len(verdicts)])
    assert verdicts[-1].startswith("By the generator's loss: ")
    assert all(text in _audit(str(tmp_path / "results"), made) for text in verdicts)
    tests = pd.read_csv(tmp_path / "results" / "audit_tests.csv")
    assert tests.test.tolist() == 2 * ["nearest", "nearest without the source", "C_T", "copies"]
    held = store.index.split.isin(("val", "test"))
    assert (tests.held_out[tests.test == "nearest"] == store.index.subject[held].nunique()).all()
    known = tests[tests.test.isin(("nearest", "C_T"))]
    assert (known.p_holm >= known.p).all() and (known.alarm == (known.p_holm <= 0.03)).all()


def test_a_cohort_too_small_for_an_audit_costs_the_report_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=40), tmp_path)  # a fifth of them is held out
    made = fake_set(tmp_path / "set", store, count=12)
    monkeypatch.setattr(sections, "domain_backbone", lambda networks: None)
    looks, networks = SimpleNamespace(features=None), SimpleNamespace(device=torch.device("cpu"))
    evaluation = Evaluation(
        store, made, networks, np.zeros(0, int), looks, looks, tmp_path / "results"
    )  # type: ignore[arg-type]
    section = sections.audit_section(evaluation, generator="runs/controlnet/0", seed=0)
    assert section.answers == section.warnings and not section.tables
    assert "held-out subjects (val and test)" in section.answers[0]
    assert "needs at least 20" in section.answers[0] and str(tmp_path) not in section.answers[0]
    assert not (tmp_path / "results" / "audit.json").exists()
