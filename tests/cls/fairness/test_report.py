"""What a report says of the classifiers, with stand-ins for the measuring."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cmrcls.fairness import report
from cmrstudy.report import Section


class Study:
    """Runs of a study, of which the first that is finished is of fold 2; `asked` is what the parts
    were asked."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.asked = folder, dict[str, Any]()
        self.done: list[Any] = [("arm", SimpleNamespace(fold=2)), ("arm", SimpleNamespace(fold=1))]
        self.grid = SimpleNamespace(finished=lambda: self.done)
        patch.setattr(report, "comparable", self.comparable)
        stand_ins = {
            "predictions": {"check_usable": self.note("usable")},
            "grid": {
                "arrange": self.note("arrange", self.grid),
                "expected_runs": lambda of: "all",
                "progress_sentences": lambda expected: [f"of {expected}"],
            },
            "section": {
                "participants_section": self.note("participants", Section("Participants")),
                "fairness_sections": self.note("fairness", [Section("Accuracy"), Section("Gaps")]),
                "run_marks": lambda study: ["3 runs"],
            },
            "figures": {"demographics": len, "save": self.note("figure", [folder / "fig1.png"])},
        }
        for module, parts in stand_ins.items():
            for name, part in parts.items():
                patch.setattr(getattr(report, module), name, part)

    def note(self, name: str, answer: Any = None) -> Any:
        return lambda *given, **how: self.asked.update({name: (*given, how)}) or answer

    def comparable(self, found: Any, *, cohort: Any, fold: int | None) -> Any:
        self.asked["comparable"] = (found, cohort(1), fold)
        return ["kept"], ["One run is left out."]

    @staticmethod
    def store(fold: int | None) -> Any:
        people = pd.DataFrame({"subject": ["SYN0001", "SYN0002"]})
        return SimpleNamespace(folder=Path("data/fake-1"), subjects=people, fingerprint=f"f{fold}")

    def reported(self) -> report.ClassifierReport:
        found: Any = ["found"]
        options: Any = "options"
        return report.classifier_report(
            found,
            self.store,
            **{"classifiers": "runs/c", "cohort_name": "ukbb", "fold": 4, "arms": ["a"]},
            **{"baseline": "b", "folder": self.folder, "options": options},  # type: ignore[arg-type]
        )


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def test_the_runs_that_can_be_compared_are_a_study_and_its_sections(
    study: Study, tmp_path: Path
) -> None:
    made = study.reported()
    assert [part.heading for part in made.sections] == ["Participants", "Accuracy", "Gaps"]
    assert made.study is study.grid and made.marks == ["3 runs"]
    assert made.sentences == ["of all", "One run is left out."]
    asked = study.asked
    assert asked["comparable"] == (["found"], "f1", 4)
    assert asked["usable"] == (
        *(["found"], ["kept"], ["One run is left out."]),
        {"cohort": "fake-1", "folder": "runs/c"},
    )
    assert asked["arrange"] == (["kept"], {"wanted": ["a"]})
    assert asked["figure"] == (2, tmp_path / "figures" / "fig1_demographics", {})
    # of the fold of the first finished run
    store, of, how = asked["participants"]
    assert (store.fingerprint, of) == ("f2", study.grid)
    assert how == {"folder": tmp_path, "figure": tmp_path / "fig1.png", "fold": 2}
    of, stores, how = asked["fairness"]
    assert of is study.grid and stores(3).fingerprint == "f3"
    assert how == {
        **{"baseline": "b", "subjects": {"SYN0001", "SYN0002"}, "cohort_name": "ukbb"},
        **{"left_out": ["One run is left out."], "folder": tmp_path, "options": "options"},
    }


def test_without_a_finished_run_it_says_so(study: Study) -> None:
    study.done = []
    made = study.reported()
    assert [part.heading for part in made.sections] == ["Participants", "Fairness"]
    assert made.sections[1].warnings == ["No finished classifier below runs/c: no Table 2."]
    assert made.marks == [] and "fairness" not in study.asked
    store, _, how = study.asked["participants"]
    assert store.fingerprint == "f4" and how["fold"] == 4  # the one that was asked for
