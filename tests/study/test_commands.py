"""What the commands do before Hydra: help from conf/ itself, and sentences for wrong calls."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cmrstudy import commands
from support import ROOT

CONF = ROOT / "conf"


@pytest.mark.parametrize(
    ("told", "sweeps", "words"),
    [
        ("", False, "the same command continues"),
        ("runs/a/0: interrupted; the same command continues it", False, ""),
        ("runs/a/0: interrupted; the same command continues it", True, "with resume=true"),
    ],
)
def test_ctrl_c_is_told_once_and_a_sweep_how_it_goes_on(told, sweeps, words, capsys):
    error = KeyboardInterrupt(told) if told else KeyboardInterrupt()
    commands._ends(KeyboardInterrupt, error, None, sweeps=sweeps)
    out = capsys.readouterr().err
    assert words in out and bool(out) == bool(words) and "Traceback" not in out


def test_max_epochs_has_no_question_marks_in_the_help():
    assert "???" not in commands.help_text("train", conf=CONF, about="")


@pytest.mark.parametrize("command", ["train", "generate", "evaluate"])
def test_help_tells_groups_and_settings_from_the_config_itself(command):
    text = commands.help_text(command, conf=CONF, about="USAGE")
    lines = text.splitlines()
    assert text.startswith("USAGE") and any(
        line.startswith("  cohort=") and "ukbb" in line for line in lines
    )
    settings = [line for line in lines if line.startswith("  ") and "=" in line.split()[0]]
    assert len(settings) > len(commands.SETTINGS[command])
    if command == "train":
        assert all(
            f"experiment={path.stem} " in text for path in (CONF / "experiment").glob("*.yaml")
        )
    assert not [line for line in lines if "_here_" in line or "@package" in line]


def test_every_choice_of_the_help_is_a_choice_of_the_command():
    for command in ("train", "generate", "evaluate"):
        for group, options in commands._groups(command, CONF, []):
            assert options == sorted(path.stem for path in (CONF / group).glob("*.yaml")), (
                command,
                group,
            )


def test_the_help_lists_the_choices_of_a_folder_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mitigation").mkdir()
    (tmp_path / "mitigation" / "mine.yaml").write_text("a: 1\n")
    monkeypatch.setattr("sys.argv", ["train.py", "--help", "--config-dir", str(tmp_path)])
    text = commands.help_text("train", conf=CONF, about="USAGE")
    (line,) = [line for line in text.splitlines() if line.startswith("  mitigation=")]
    assert "mine" in line and "groupdro" in line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seed", "abc", "seed=abc: it takes a whole number from 0"),
        ("seed", -1, "seed=-1"),
        ("seed", 1.5, "seed=1.5"),
        ("seed", True, "seed=true"),
        ("seed", None, "seed=null"),
        ("fold", 5, "fold=5.*0 to 4, or null"),
        ("overwrite", "yes", "overwrite=yes: it takes true or false"),
        ("refresh", 1, "refresh=1: it takes true or false"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named(key, value, words):
    cfg = OmegaConf.create(
        {"seed": 0, "fold": None, "overwrite": False, "refresh": False, key: value}
    )
    with pytest.raises(ValueError, match=words):
        commands.prepared(cfg)


def test_a_config_is_printed_where_asked(capsys):
    cfg = OmegaConf.create(
        {"seed": 0, "data_root": "~/x", "copy": "${data_root}", "print_config": True}
    )
    commands.prepared(cfg)
    out = capsys.readouterr().out
    assert f"copy: {Path.home()}/x" in out and "${" not in out


def test_a_launcher_whose_package_is_missing_names_its_extra(monkeypatch):
    monkeypatch.setattr(commands, "_there", lambda package: False)
    for option, extra in (
        ("hydra/launcher=slurm", "cluster"),
        ("hydra/launcher=ray_gpu", "ray"),
        ("hydra/sweeper=tune", "cluster"),
    ):
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", "experiment=classifier", option])
        with pytest.raises(
            SystemExit, match=f"error: {option} needs the extra {extra}: pip install"
        ):
            commands.start_command("train", conf=CONF, about="")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["experiment=classifier", "logger=null"], "for none leave it out, or give logger=[]"),
        (["experiment=classifier", "debug=null"], "debug takes fast, limit"),
        (["-m", "experiment=classifier", "seed=0,1", "--cfg", "job"], "leave -m out"),
    ],
)
def test_what_hydra_would_answer_with_a_traceback_is_a_sentence(monkeypatch, given, words):
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    with pytest.raises(SystemExit, match=re.escape(words)):
        commands.start_command("train", conf=CONF, about="")
