"""The report on a set: a section from outside appears, and what a reader must know of the set stands
above its first table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import report
from cmrgen.evaluation.judges import Evaluation
from cmrstudy.report import Section
from support.fake_cohort import FakeCohort, fake_set

SETTINGS = report.Settings(
    judge_steps=(1, 1),
    fid_images=20,
    backbones={},
    audit=False,
    audit_generator=None,
    base_weights=None,
    trained_on={"Real": {None}, "Real + 20": {"of another set"}},
    device="cpu",
    seed=0,
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=72), tmp_path_factory.mktemp("store"))


def test_a_section_from_outside_is_part_of_the_report(
    cohort: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mine(evaluation: Evaluation, settings: report.Settings) -> list[Section]:
        n = len(evaluation.synthetic_set.index)
        return [Section("Mine", [f"{n} images, seed {settings.seed}"])]

    monkeypatch.setattr(report, "SECTIONS", [mine])
    made = fake_set(tmp_path / "set", cohort, count=8)
    written = report.synthetic_report(cohort, made.folder, tmp_path / "out", SETTINGS)
    assert [(s.heading, s.paragraphs) for s in written.sections] == [("Mine", ["8 images, seed 0"])]
    assert written.provenance["synthetic fingerprint"] == made.fingerprint
    assert written.provenance["networks on"] == "the CPU"


def test_sections_stand_in_reading_order() -> None:
    names = [section.__name__ for section in report.SECTIONS]
    assert names == ["_examples", "_adherence", "_fidelity", "_audit"]
    assert report._audit(None, SETTINGS) == []  # type: ignore[arg-type]


def test_a_set_without_an_image_says_so(
    cohort: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = SimpleNamespace(index=cohort.index[:0])
    monkeypatch.setattr(report, "open_synthetic", lambda folder, cohort: empty)
    written = report.synthetic_report(cohort, Path("set"), tmp_path, SETTINGS)
    [section] = written.sections
    assert section.warnings == ["set holds no image: nothing to measure."]
    assert written.provenance == {} and not list(tmp_path.iterdir())


def test_what_is_stale_or_of_another_set_stands_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = SimpleNamespace(folder=tmp_path, fingerprint="own")
    monkeypatch.setattr(report.runs, "facts", lambda folder: {"missing_groups": ["F/<60/hf"]})
    monkeypatch.setattr(report.runs, "record", lambda folder: SimpleNamespace(inputs={}))
    monkeypatch.setattr(report, "changed", lambda inputs, places: (["generator has changed"], []))
    given = {}

    def sections(evaluation: object, *, missing: list[str], seed: int) -> list[Section]:
        given.update(missing=missing, seed=seed)
        return [Section("First", warnings=["Its own."]), Section("Second")]

    monkeypatch.setattr(report, "adherence_sections", sections)
    evaluation = SimpleNamespace(synthetic_set=made)
    first, second = report._adherence(evaluation, SETTINGS)  # type: ignore[arg-type]
    assert given == {"missing": ["F/<60/hf"], "seed": 0} and not second.warnings
    other, stale, own = first.warnings
    assert "in Table 2 Real + 20 were trained on another one" in other
    assert stale.endswith("was drawn by what has changed since: generator has changed.")
    assert own == "Its own."
    same = SETTINGS._replace(trained_on={"Real + 20": {"own", None}})
    assert len(report._adherence(evaluation, same)[0].warnings) == 2  # type: ignore[arg-type]
