"""One W&B run per run folder, and the lineage generator -> set -> classifier -> evaluation, read back
from offline runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import wandb
from omegaconf import OmegaConf

from cmrstudy import dashboards, lineage, runs
from cmrstudy.report import Shown, write_table
from support.wandb_files import records

LOGGER = OmegaConf.create(
    {"allow": False, "wandb": {"_target_": "lightning.pytorch.loggers.WandbLogger", "name": "x"}}
)


def made(
    folder: Path, task: str, mark: str | None, *, inputs: dict[str, Path] | None = None
) -> Path:
    """A finished run's folder of a task; its inputs are folders like it."""
    name = "/".join(folder.parts[-2:-1])
    config = {"task": task, "name": name, "seed": 0, "synthetic_set": "none"}
    runs.begin(runs.Request(folder, config, config, {}, [], {}))
    for key, place in (inputs or {}).items():
        known = lineage.card(place)
        runs.uses(folder, key, fingerprint=known["fingerprint"], at=place)
    runs.finish(folder, **({"fingerprint": mark} if mark else {}))
    return folder


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    generator = made(tmp_path / "controlnet" / "0", "controlnet", "aaa")
    drawn = made(tmp_path / "synthetic" / "0", "generate", "bbb", inputs={"generator": generator})
    trained = made(tmp_path / "arm" / "0", "classifier", "ccc", inputs={"synthetic_set": drawn})
    return {"generator": generator, "set": drawn, "classifier": trained}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DATA_DIR": str(tmp_path / "staging"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    return tmp_path / "boards"


def told(folder: Path, where: Path, **given: Any) -> list[tuple[str, str, bool, str]]:
    """(type, name, used, digest) of the artifacts that W&B would get for a run."""
    where.mkdir(parents=True)
    with wandb.init(dir=where, settings={"x_disable_meta": True, "console": "off"}):
        if "facts" in given:
            lineage.tell(folder, **given)
        else:
            dashboards.evaluation_boards([], folder)
    wandb.teardown()
    (file,) = where.glob("wandb/offline-run-*/*.wandb")
    artifacts = [of.artifact for of in records(file) if of.HasField("artifact")]
    artifacts += [
        of.request.log_artifact.artifact
        for of in records(file)
        if of.HasField("request") and of.request.HasField("log_artifact")
    ]
    return [(of.type, of.name, of.use_after_commit, of.digest) for of in artifacts]


def test_what_one_run_makes_is_the_version_that_the_next_one_uses(chain, offline):
    lines = {
        name: told(folder, offline / name, facts=runs.facts(folder))
        for name, folder in chain.items()
    }
    (generator,) = lines["generator"]
    assert generator[:3] == ("generator", "generator-controlnet.0", False)
    (used, drawn) = lines["set"]
    assert used[:3] == ("generator", "generator-controlnet.0", True) and used[3] == generator[3]
    (used, trained) = lines["classifier"]
    assert used[3] == drawn[3] and used[2] and trained[:2] == ("classifier", "classifier-arm.0")


def test_an_evaluation_rests_on_the_set_and_the_classifiers_and_its_tables_have_versions(
    chain, offline, tmp_path
):
    folder = tmp_path / "results" / "study"
    config = {"task": "evaluate", "name": "study", "seed": 0, "synthetic_set": str(chain["set"])}
    runs.begin(runs.Request(folder, config, config, {}, [], {}))
    runs.finish(folder, rests_on={str(chain["classifier"]): "x", "synthetic set": "y"})
    numbers = pd.DataFrame({"subgroup": ["Overall"], "balanced_accuracy": [0.5]})
    write_table(Shown(numbers, "Table 2"), folder, "table2")
    persons = pd.DataFrame({"subject": ["SYN0001"], "label": [1]})
    write_table(Shown(persons, "Table 1"), folder, "table1")
    with pytest.warns(UserWarning, match="table1.csv has a column 'subject'"):
        first = told(folder, offline / "first")
    assert [(kind, name, used) for kind, name, used, _ in first] == [
        ("synthetic-set", "synthetic-set-synthetic.0", True),
        ("classifier", "classifier-arm.0", True),
        ("evaluation", "evaluation-study.0", False),
        ("table", "table2-study", False),
    ]
    write_table(Shown(numbers.assign(balanced_accuracy=0.6), "Table 2"), folder, "table2")
    with pytest.warns(UserWarning):
        second = told(folder, offline / "second")
    assert second[:3] == first[:3] and second[3][3] != first[3][3]


def test_what_has_changed_since_is_left_out_aloud_and_a_card_tells_no_place(chain, capsys):
    runs.finish(chain["generator"], fingerprint="new")
    kept = lineage.card(chain["set"])
    assert kept["made from"] == {"generator": "aaa"}
    assert str(chain["set"].parent) not in json.dumps(kept)
    assert lineage.card(chain["set"].parents[2]) is None


def test_a_changed_generator_is_left_out_aloud(chain, offline, capsys):
    runs.finish(chain["generator"], fingerprint="new")
    (only,) = told(chain["set"], offline / "set", facts=runs.facts(chain["set"]))
    assert only[0] == "synthetic-set" and "has changed since it was used" in capsys.readouterr().out


def test_a_run_has_one_id_until_it_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    config = {"task": "classifier", "name": "arm", "seed": 0}
    asked = runs.Request(tmp_path / "run", config, config, {}, [], {})
    runs.begin(asked)
    (first,) = dashboards.configured(LOGGER, run=asked.folder)
    (again,) = dashboards.configured(LOGGER, run=asked.folder)
    assert first["id"] == again["id"] and len(first["id"]) == 8
    assert lineage.run_id(tmp_path / "other") != first["id"]
    runs.begin(asked, overwrite=True)
    (anew,) = dashboards.configured(LOGGER, run=asked.folder)
    assert anew["id"] != first["id"]


def test_an_agents_id_and_one_that_was_asked_for_win(tmp_path, monkeypatch):
    before = lineage.run_id(tmp_path)
    monkeypatch.setenv("WANDB_RUN_ID", "agents1")
    assert before != lineage.run_id(tmp_path) == "agents1"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert lineage.run_id(tmp_path) == "agents1"  # when it is continued by hand
    own = OmegaConf.merge(LOGGER, {"wandb": {"id": "mine"}})
    assert dashboards.configured(own, run=tmp_path)[0]["id"] == "mine"
    nothing = OmegaConf.merge(LOGGER, {"wandb": {"mode": "disabled"}})
    assert "id" not in dashboards.configured(nothing, run=tmp_path / "none")[0]
    assert not (tmp_path / "none").exists()


def test_without_a_wandb_run_nothing_is_told(chain):
    assert wandb.run is None
    lineage.tell(chain["set"], runs.facts(chain["set"]))


def test_what_wandb_refuses_is_said_and_fails_no_run(chain, monkeypatch, capsys):
    class Refusing:
        disabled = False

        def _log_artifact(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("artifacts are full")

        log_artifact = _log_artifact

    monkeypatch.setattr(wandb, "run", Refusing())
    lineage.tell(chain["set"], runs.facts(chain["set"]))
    lineage.publish("table2-study", "table", [])
    told = capsys.readouterr().out
    assert told.count("left out of the lineage (RuntimeError: artifacts are full)") == 2


def test_two_processes_agree_on_an_id_also_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    (tmp_path / "mine").write_text("first")
    (tmp_path / "other").write_text("second")
    lineage._first(tmp_path / "mine", tmp_path / "id")
    lineage._first(tmp_path / "other", tmp_path / "id")
    assert [path.name for path in tmp_path.iterdir()] == ["id"]
    assert (tmp_path / "id").read_text() == "first"

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    assert lineage.run_id(tmp_path / "run") == lineage.run_id(tmp_path / "run")
