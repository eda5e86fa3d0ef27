"""What evaluate.py measures, in which order and of what, with stand-ins for the measuring."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from cmrstudy.report import Section
from support import ROOT
from support.asked import Asked


@pytest.fixture(scope="module")
def script() -> Any:
    """The command's functions, which share one namespace."""
    return runpy.run_path(str(ROOT / "evaluate.py"), run_name="evaluate")


def config(folder: Path, **cfg: Any) -> DictConfig:
    usual: dict[str, Any] = {
        **{"classifiers": "runs/classifier", "input": {"name": "stack"}, "name": "smoke"},
        **{"synthetic_set": "set/0", "data_root": "data", "refresh": False, "fold": None},
        **{"cohort": {"name": "cohort"}, "arms": ["a"], "baseline": "b", "axes": ["site"]},
        **{"resamples": 40, "permutations": 50, "specificity": 0.9, "seed": 3},
        **{"judge_steps": [10, 20], "fid_images": 500, "backbones": {"dinov2": None}},
        **{"audit": True, "audit_generator": "g/0", "base": {"weights": "w"}, "device": "cpu"},
    }
    return OmegaConf.create(usual | cfg)


class Run(NamedTuple):
    """A classifier's run."""

    folder: Path
    state: str

    @property
    def record(self) -> Any:
        return SimpleNamespace(state=self.state, name=self.folder.name)


@pytest.fixture
def commanded(script: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `main` asks of others, in order."""
    asked = Asked()
    below = [Run(Path("r/0"), "finished"), Run(Path("r/1"), "failed"), Run(Path("r/2"), "finished")]
    found = SimpleNamespace(runs_below=asked.note("runs", below))
    monkeypatch.setitem(sys.modules, "cmrcls.fairness.classifier_runs", found)
    parts = {
        "commands": SimpleNamespace(prepared=asked.note("prepared")),
        "evaluations": SimpleNamespace(
            check_something=asked.note("checked"),
            rests_on=asked.note("rests on", {"r/0": "f1"}),
            claim_evaluation=lambda request, inputs: "old" not in request.folder.name,
            print_evaluation=asked.note("printed"),
        ),
        "overrides": SimpleNamespace(
            request=lambda cfg: SimpleNamespace(folder=Path(cfg.name)),
            parts=lambda cfg: ["classifiers"],
        ),
        "runs": SimpleNamespace(
            held=lambda folder: asked.within("hold", folder),
            attempt=lambda folder: asked.within("attempt", folder),
            finish=asked.note("finished"),
            facts=lambda folder: {"study": ["said before"]},
        ),
        "Experiment": lambda cfg, folder, build: SimpleNamespace(
            folder=folder, board_results=asked.note("boards")
        ),
        "evaluate": asked.note("evaluated", ["2 of 3 runs."]),
        "intention": lambda cfg, rests_on: f"what is meant, {rests_on}",
        "paths": SimpleNamespace(shareable=lambda words: "evaluate.py"),
    }
    for name, value in parts.items():
        monkeypatch.setitem(script["main"].__wrapped__.__globals__, name, value)
    return asked


def test_an_evaluation_is_measured_finished_shown_and_printed(
    script: Any, commanded: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script["main"].__wrapped__(config(tmp_path))
    assert [call[0] for call in commanded] == [
        *("prepared", "runs", "checked", "rests on", "begin hold", "begin attempt", "evaluated"),
        *("finished", "end attempt", "boards", "printed", "end hold"),
    ]
    asked = {call[0]: call[1:] for call in commanded}
    finished = asked["checked"][0]
    assert [*finished] == [Path("r/0"), Path("r/2")] and asked["checked"][2] == (
        "typed",
        ["classifiers"],
    )
    assert asked["runs"] == (Path("runs/classifier"), ("input_name", "stack"))
    assert asked["rests on"] == (finished, "set/0") and len(asked["evaluated"][1]) == 3
    assert asked["finished"] == (
        *(Path("smoke"), ("rests_on", {"r/0": "f1"}), ("study", ["2 of 3 runs."])),
        ("command", "evaluate.py"),
    )
    assert asked["printed"] == (Path("smoke"), ["said before"])
    assert capsys.readouterr().out == "what is meant, 2 finished runs\n"


def test_an_evaluation_that_was_done_is_shown_again(
    script: Any, commanded: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script["main"].__wrapped__(config(tmp_path, name="old"))
    assert [call[0] for call in commanded[4:]] == ["begin hold", "boards", "printed", "end hold"]
    assert capsys.readouterr().out == ""


def test_settings_that_cannot_be_are_refused_before_anything_is_read(
    script: Any, commanded: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="permutations"):
        script["main"].__wrapped__(config(tmp_path, permutations=0))
    assert [call[0] for call in commanded] == ["prepared"]


def test_how_fairness_is_measured(script: Any, tmp_path: Path) -> None:
    options = script["measuring"](config(tmp_path))
    assert (options.axes, options.resamples, options.permutations) == (["site"], 40, 50)
    assert (options.specificity, options.seed) == (0.9, 3)


class Measured:
    """`evaluate` at work among stand-ins; `asked` is what they were asked."""

    def __init__(self, script: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script, self.folder, self.patch = script, folder, monkeypatch
        self.asked: dict[str, Any] = {}
        self.prepared: list[Any] = []
        self.marks = ["3 runs"]
        self.arms = [SimpleNamespace(name="Real", runs=[self.used(None), self.used("5e7")])]
        self.set_there = True

    @staticmethod
    def used(mark: str | None) -> Any:
        return SimpleNamespace(fingerprint=lambda key: mark if key == "synthetic_set" else "other")

    def prepare(self, source: Any, root: str, **how: Any) -> Any:
        self.prepared.append((source.fold, how))
        people = pd.DataFrame({"subject": ["SYN0001", "SYN0002"]})
        mark = f"store of fold {source.fold}"
        return SimpleNamespace(folder=Path("data/fake-1"), subjects=people, fingerprint=mark)

    def classified(self, found: Any, stores: Any, **how: Any) -> Any:
        marks = [stores(fold).fingerprint for fold in (None, 1, 1, None)]
        self.asked["classifiers"] = (found, marks, how)
        sections = [Section("Participants"), Section("Fairness", sources=["predictions"])]
        study = SimpleNamespace(arms=self.arms)
        sentences = ["of all", "One run is left out."]
        return SimpleNamespace(
            sections=sections, study=study, sentences=sentences, marks=self.marks
        )

    def report(self, cohort: Any, at: Path, folder: Path, settings: Any) -> Any:
        self.asked["images"] = (at, folder, settings)
        sections = [Section("Examples"), Section("Fidelity")]
        return SimpleNamespace(sections=sections, provenance={"set": "5e7"})

    def run(self, **cfg: Any) -> list[str]:
        stand_ins: dict[str, dict[str, Any]] = {
            "cmrcls.fairness.report": {"classifier_report": self.classified},
            "cmrcls.fairness.checklist": {"checklist_section": lambda folder: Section("Checklist")},
            "cmrdata.prepare": {"prepare": self.prepare},
            "cmrgen.evaluation.report": {
                "no_images_section": lambda at, input_name: Section(
                    "No images", [f"{at} {input_name}"]
                ),
                "Settings": lambda **how: how,
                "synthetic_report": self.report,
            },
        }
        for name, parts in stand_ins.items():
            self.patch.setitem(sys.modules, name, SimpleNamespace(**parts))
        space = self.script["main"].__wrapped__.__globals__
        there = SimpleNamespace(has_set=lambda cfg: self.set_there)
        self.patch.setitem(space, "evaluations", there)
        self.patch.setattr("cmrstudy.report.report_html", self.page)
        self.patch.setattr(sys, "argv", ["evaluate.py", "name=smoke"])
        settings = config(self.folder, **cfg)
        run = SimpleNamespace(cfg=settings, folder=self.folder, build=self.build)
        return self.script["evaluate"](run, ["found"])  # type: ignore[no-any-return]

    def build(self, part: Any, *, fold: int | None = None) -> Any:
        return SimpleNamespace(name="fake", fold=fold)

    def page(self, sections: Any, **how: Any) -> str:
        self.asked["page"] = (sections, how)
        return "a page"

    @property
    def headings(self) -> list[str]:
        return [section.heading for section in self.asked["page"][0]]


@pytest.fixture
def measured(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measured:
    return Measured(script, tmp_path, monkeypatch)


def test_a_report_has_its_parts_in_order_and_each_says_where_it_comes_from(
    measured: Measured, tmp_path: Path
) -> None:
    sentences = measured.run()
    assert sentences == ["of all", "One run is left out."]
    assert (tmp_path / "report.html").read_text() == "a page"
    assert measured.headings == [
        *("Examples", "Participants", "Fairness", "Fidelity", "Checklist"),
    ]
    sections, how = measured.asked["page"]
    assert how["title"] == "Debiasing cardiac MRI: smoke" and how["summary"] == sentences
    facts = how["facts"]
    command = facts["command"]
    assert facts["cohort"] == "fake-1 (2 subjects)" and facts["set"] == "5e7"
    assert facts["cohort fingerprint"] == "store of fold None"
    assert facts["classifier runs"] == ["3 runs"] and "evaluate.py" in command
    for section in sections:
        assert section.sources[:2] == [f"command: {command}", f"date: {facts['date']}"]
    assert sections[2].sources[2:] == ["predictions"]
    found, _, asked = measured.asked["classifiers"]
    assert found == ["found"] and asked.pop("options").permutations == 50
    assert asked == {
        **{"classifiers": "runs/classifier", "cohort_name": "fake", "fold": None, "arms": ["a"]},
        **{"baseline": "b", "folder": tmp_path},
    }


def test_each_folds_store_is_prepared_once(measured: Measured) -> None:
    measured.run(refresh=True)
    _, marks, _ = measured.asked["classifiers"]
    assert marks == [f"store of fold {k}" for k in (None, 1, 1, None)]
    # the command's own is made anew where that is asked for, the others are as they are
    assert measured.prepared == [(None, {"refresh": True}), (1, {})]


def test_the_settings_of_the_images_part(measured: Measured, tmp_path: Path) -> None:
    measured.run()
    at, folder, settings = measured.asked["images"]
    assert (at, folder) == (Path("set/0"), tmp_path)
    assert settings == {
        **{"judge_steps": (10, 20), "fid_images": 500, "backbones": {"dinov2": None}},
        **{"audit": True, "audit_generator": "g/0", "base_weights": "w", "device": "cpu"},
        **{"trained_on": {"Real": {None, "5e7"}}, "seed": 3},
    }


def test_without_finished_classifiers_or_a_set_the_report_says_so(measured: Measured) -> None:
    measured.marks, measured.set_there = [], False
    measured.run()
    assert measured.headings == ["Participants", "Fairness", "No images", "Checklist"]
    sections, how = measured.asked["page"]
    assert sections[2].paragraphs == ["set/0 stack"] and "classifier runs" not in how["facts"]
    assert "images" not in measured.asked


def test_heartbeats_have_no_synthetic_images(measured: Measured) -> None:
    measured.run(input={"name": "cine"})
    assert measured.headings == ["Participants", "Fairness", "No images", "Checklist"]
