"""The W&B report asks for what runs send, and a sweep by W&B's agent types commands that this
program takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cmrcls.run_summary import SPELLED
from cmrdata.axes import AXES
from support import ROOT
from support.composing import composed
from support.wandb_files import records, script


def panels(spec: dict[str, Any]) -> list[dict[str, Any]]:
    grids = [block for block in spec["blocks"] if block["type"] == "panel-grid"]
    return [p for grid in grids for p in grid["metadata"]["panelBankSectionConfig"]["panels"]]


def test_the_report_shows_what_classifiers_and_evaluations_send(monkeypatch):
    pytest.importorskip("wandb_workspaces", reason="the extra loggers is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = script("wandb_report").report(
        entity="team", project="cmr-debias", group="table2", evaluation="study"
    )
    text = made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)
    spec = json.loads(text)
    drawn = panels(spec)
    bars = [name for panel in drawn for name in panel["config"].get("metrics", ())]
    headlines = {
        f"test_balanced_accuracy_{axis.removesuffix('_band')}_{SPELLED.get(band, band)}"
        for axis, bands in ((name, axis.values) for name, axis in AXES.items())
        for band in bands
    }
    assert {name for name in bars if name.startswith("test_")} == headlines
    assert {"val_balanced_accuracy", "train_loss", "val_loss"} <= set(bars)
    assert '"value":"table2"' in text and '"name":"arm.value"' in text
    for artifact in ("table2-study", "evaluation-study.0"):  # as cmrstudy.lineage names them
        assert artifact in text


SWEEP = ROOT / "scripts" / "wandb_sweep.yaml"


def typed(values: dict[str, Any]) -> list[str]:
    """The command of an agent, made by W&B's own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load(SWEEP.read_text())
    given = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    macros = {"program": [sweep["program"]], "args_no_hyphens": given["args_no_hyphens"]}
    macros |= {"env": [], "interpreter": []}
    words = create_sweep_command(list(sweep["command"]))
    return [
        part for word in words for part in (macros[word[2:-1]] if word.startswith("${") else [word])
    ]


def test_an_agents_command_is_one_that_train_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = yaml.safe_load(SWEEP.read_text())
    for last in (0, -1):
        values = {key: of["values"][last] for key, of in sweep["parameters"].items()}
        program, *words = typed(values)
        config = composed("train", *words)
        assert program == "train.py" and config.logger.wandb.project == "cmr-debias"
        assert config.model.lr == values["model.lr"] and config.seed == values["seed"]
        assert config.run_dir.startswith("runs/tuning/classifier/synthetic-0")
    assert sweep["metric"]["name"] in script("wandb_report").CURVES


@pytest.mark.slow
def test_a_run_of_an_agent_has_the_agents_id_and_goes_on_in_it(tmp_path):
    """Offline, with what an agent puts into the environment."""
    program, *words = typed({"model.lr": 0.001, "seed": 1})
    words = [*words, "preset=smoke", f"preset.runs={tmp_path / 'runs'}"]
    words.remove("preset.runs=runs/tuning")
    given = {
        "WANDB_MODE": "offline",
        "WANDB_SWEEP_ID": "sweep123",
        "WANDB_RUN_ID": "agent123",
        "WANDB_DATA_DIR": str(tmp_path / "staging"),
        "CMR_HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    for longer in ([], ["overwrite=false"]):
        done = subprocess.run(
            [sys.executable, str(ROOT / program), *words, *longer],
            env={**os.environ, **given},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "finished before, reused" in done.stdout
    (file,) = tmp_path.glob("runs/**/offline-run-*-agent123/*.wandb")
    (first, *_) = [record.run for record in records(file) if record.HasField("run")]
    assert (first.run_id, first.sweep_id) == ("agent123", "sweep123")
    (kept,) = Path(tmp_path).glob("runs/classifier/*/1/wandb/id")
    assert kept.read_text() == "agent123"
