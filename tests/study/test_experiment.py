"""A run at work: what every experiment's function gets of its config."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

import cmrstudy
from cmrstudy import dashboards, lineage, processes, runs
from cmrstudy.experiment import Experiment

CFG: dict[str, Any] = {
    "trainer": {"fast_dev_run": False, "max_time": None, "max_epochs": 3, "max_steps": -1},
    "seed": 7,
    "weights": None,
    "ckpt_path": None,
    "checkpoint": {"minutes": 10, "steps": None},
}


def at_work(folder: Path, **change: Any) -> Experiment:
    return Experiment(OmegaConf.create({**CFG, **change}), folder, build=instantiate)


def test_loggers_write_into_the_trainings_folder(tmp_path):
    one = {"_target_": "builtins.dict", "name": "csv", "save_dir": "runs"}
    several = {"allow_real_images": False, "csv": one, "b": {"_target_": "builtins.dict"}}
    assert at_work(tmp_path / "run").loggers() == []
    of = at_work(tmp_path / "run", logger=several)
    assert of.loggers(tmp_path) == [{"name": "csv", "save_dir": str(tmp_path)}, {}]
    assert of.loggers()[0]["save_dir"] == str(tmp_path / "run")


def test_the_first_process_alone_records_what_a_run_uses(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        runs, "uses", lambda folder, key, **known: told.append((folder, key, known))
    )
    known = (tmp_path, "generator", {"fingerprint": "f"})
    for follows in (True, False):
        monkeypatch.setattr(processes, "follows", lambda trainer, follows=follows: follows)
        one = at_work(tmp_path)
        one.uses("generator", fingerprint="f")
        assert one.leads is not follows and told == ([] if follows else [known])


def test_a_dry_run_says_that_it_is_one_and_an_attempt_has_its_time(tmp_path):
    trainer = CFG["trainer"]
    for given, dry in ((False, False), (True, True), (3, True), (0, False)):
        assert at_work(tmp_path, trainer={**trainer, "fast_dev_run": given}).rehearses is dry
    limit = at_work(tmp_path, trainer={**trainer, "max_time": {"minutes": 2}}).attempt()
    assert (limit.folder, limit.max_time, limit.limit) == (tmp_path, {"minutes": 2}, 120)
    assert at_work(tmp_path, trainer={**trainer, "max_time": "00:00:01:00"}).attempt().limit == 60
    assert at_work(tmp_path).attempt().limit is None


def test_a_store_is_compared_with_its_source_where_asked(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "cmrdata.prepare.prepare",
        lambda cohort, root, refresh: told.append((cohort, root, refresh)),
    )
    at_work(tmp_path, cohort={"_target_": "builtins.dict", "a": 1}, data_root="data").renew()
    assert told == [({"a": 1}, "data", True)]


def test_boards_have_the_config_and_what_a_run_made(tmp_path, monkeypatch):
    told: list[Any] = []

    @contextmanager
    def one_run():
        told.append("begins")
        yield
        told.append("ends")

    monkeypatch.setattr(dashboards, "one_run", one_run)
    monkeypatch.setattr(
        dashboards, "describe", lambda loggers, cfg: told.append(("cfg", cfg["copy"]))
    )
    monkeypatch.setattr(
        dashboards, "evaluation_boards", lambda loggers, folder: told.append(folder)
    )
    monkeypatch.setattr(
        dashboards, "log_table", lambda loggers, name, table: told.append((name, table))
    )
    monkeypatch.setattr(lineage, "tell", lambda folder, facts: told.append((folder, facts)))
    monkeypatch.setattr(runs, "facts", lambda folder: "facts")
    silent = at_work(tmp_path)
    silent.board_results()
    silent.board("plan", "table")
    assert told == []
    loud = at_work(tmp_path, logger={"b": {"_target_": "builtins.dict"}}, copy="${seed}")
    loud.board_results()
    assert told == ["begins", ("cfg", 7), tmp_path, "ends"]
    told.clear()
    loud.board("plan", "table")
    assert told == ["begins", ("cfg", 7), ("plan", "table"), (tmp_path, "facts"), "ends"]


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """Calls Experiment.fit with a config; what cmrstudy.training.fit is given, and what it says."""
    given: dict[str, Any] = {}

    def fit(module, **how):
        given.update(how, module=module)
        return SimpleNamespace(global_step=given.pop("ends", 5), is_global_zero=True), {"loss": 1}

    fake = SimpleNamespace(fit=fit, accepted=lambda several: list((several or {}).values()))
    monkeypatch.setattr(cmrstudy, "training", fake, raising=False)  # Lightning takes seconds

    def call(change: dict[str, Any], **how: Any) -> dict[str, Any]:
        given.clear()
        given["ends"] = how.pop("ends", 5)
        trainer, metrics = at_work(tmp_path, **change).fit("module", "data", "limits", **how)
        assert metrics == {"loss": 1}
        return given

    return call


def test_a_training_is_what_the_config_says(fitted, tmp_path, capsys):
    given = fitted(
        {"copy": "${seed}"},
        monitor="val_score",
        divide=True,
        callbacks=["own"],
        enable_progress_bar=False,
    )
    assert given.pop("settings")["copy"] == 7
    assert given == {
        "module": "module",
        "folder": tmp_path,
        "data": "data",
        "trainer": {**CFG["trainer"], "enable_progress_bar": False},
        "attempt": "limits",
        "seed": 7,
        "loggers": [],
        "callbacks": ["own"],
        "minutes": 10,
        "steps": None,
        "monitor": "val_score",
        "divide": True,
        "ckpt_path": None,
        "weights": None,
    }
    given = fitted(
        {
            "ckpt_path": "other",
            "checkpoint": {"minutes": None, "steps": 9},
            "callbacks": {"stop": {"_target_": "builtins.dict", "a": 1}},
            "logger": {"b": {"_target_": "builtins.dict", "save_dir": "x"}},
        },
        folder=tmp_path / "vae",
        callbacks=["own"],
    )
    assert given["callbacks"] == ["own", {"a": 1}]
    assert (given["ckpt_path"], given["minutes"], given["steps"]) == (Path("other"), None, 9)
    assert given["loggers"] == [{"save_dir": str(tmp_path / "vae")}]
    assert given["folder"] == tmp_path / "vae" and given["divide"] is False
    dry = {**CFG["trainer"], "fast_dev_run": True}
    assert fitted({"trainer": dry, "logger": {"b": {"_target_": "builtins.dict"}}})["loggers"] == []
    assert capsys.readouterr().out == ""


def test_the_fewest_of_all_limits_of_steps_count(fitted, tmp_path, capsys):
    for most, asked, steps in (
        (8, -1, 8),
        (8, 5, 5),
        (8, 1, 1),
        (8, 9, 8),
        (8, None, 8),
        (-1, 5, 5),
        (1, -1, 1),
    ):
        given = fitted({"trainer": {**CFG["trainer"], "max_steps": asked}}, most=most, ends=9)
        assert given["trainer"]["max_steps"] == steps
    assert capsys.readouterr().out == ""
    fitted({}, most=1234, ends=1000)
    assert f"{tmp_path}: 1,000 of 1,234 steps, as trainer.max_epochs" in capsys.readouterr().out
    fitted({}, most=5, ends=5)
    fitted({"trainer": {**CFG["trainer"], "fast_dev_run": 2}}, most=8, ends=2)
    assert capsys.readouterr().out == ""


def test_other_weights_are_put_in_by_whoever_knows_how(fitted):
    assert fitted({"weights": "w.ckpt"})["weights"] is None
    given = fitted({"weights": "w.ckpt"}, start_from=lambda module, path: f"{module} of {path}")
    assert given["weights"]() == "module of w.ckpt"
    assert fitted({}, start_from=lambda module, path: "")["weights"] is None
