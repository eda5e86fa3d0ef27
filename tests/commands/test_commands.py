"""Help, wrong calls and switches of the commands: one paragraph with the remedy, never a
traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from cmrstudy import commands, paths, plain_errors, processes
from support import ROOT

CONF = ROOT / "conf"


def ended(
    command: str, *given: str, home: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    where = {"CMR_HOME": str(home)} if home else {}
    return subprocess.run(
        [sys.executable, str(ROOT / f"{command}.py"), *given],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **where, **environment},
    )


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


@pytest.mark.parametrize("sweeps", [True, False])
def test_the_runs_of_a_sweep_do_not_share_an_id_on_the_dashboard(sweeps, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=classifier", *["-m"] * sweeps])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(commands.paths, "start", lambda: None)
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    commands.start_command("train", conf=ROOT / "conf", about="")
    assert os.environ.get("WANDB_RUN_ID") == (None if sweeps else "mine")
    assert ("WANDB_RUN_ID is not used" in capsys.readouterr().out) is sweeps


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


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_needs_no_experiment_and_leaves_no_trace(flag, tmp_path):
    told = ended("train", flag, home=tmp_path / "home")
    assert told.returncode == 0 and "experiment=classifier" in told.stdout and not told.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    "given", [("--info", "defaults"), ("--info",), ("--hydra-help",), ("--cfg", "job")]
)
def test_hydras_own_flags_need_no_experiment(given, tmp_path):
    told = ended("train", *given, home=tmp_path)
    assert told.returncode == 0 and "Traceback" not in told.stderr


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


# other libraries' complaints


class MisconfigurationException(Exception):
    """Lightning's, by name."""


def of(module: str, name: str, text: str) -> Exception:
    return type(name, (Exception,), {"__module__": module})(text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MisconfigurationException("No supported gpu\n backend found!"),
            "No supported gpu backend found; trainer=auto takes",
        ),
        (
            ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available."),
            "extra loggers: pip install",
        ),
        (ModuleNotFoundError("No module named 'mlflow'"), "extra loggers"),
        (
            of("wandb.errors.errors", "UsageError", "No API key configured."),
            "wandb login.*WANDB_API_KEY.*WANDB_MODE=offline",
        ),
        (
            RuntimeError("... EADDRINUSE, message: ..."),
            "port .* is in use; set another MASTER_PORT",
        ),
        (RuntimeError("Address already in use"), "port .* is in use; set another MASTER_PORT"),
    ],
)
def test_what_other_libraries_say_of_a_choice_is_a_paragraph(error, words):
    import re

    told = plain_errors.paragraph(error)
    assert told and re.search(words, told) and "\n" not in told


def test_a_bug_stays_a_traceback():
    assert plain_errors.paragraph(ModuleNotFoundError("No module named 'cmrgen.gone'")) is None
    assert plain_errors.paragraph(RuntimeError("shapes differ")) is None


def test_an_interactive_allocations_task_count_stops_no_single_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    trainer = SimpleNamespace(devices=1, num_nodes=1)
    assert (
        processes.together(trainer, lambda: Path("x")) == Path("x")
        and "SLURM_NTASKS" not in os.environ
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("trainer=gpu",), "gpu backend"),
        (("run_dir=/proc/x",), "/proc/x"),
        (("trainer.precision=foo",), "Precision 'foo' is invalid"),
        (("cohort=acdc", "cohort.root=/data/M&Ms (1)"), "no patient folders in /data/M&Ms (1)"),
        (("plan.negative=a&b",), "Hydra can't read 'plan.negative=a&b'"),
        (("resume=maybe",), "resume=maybe: it takes auto, true, false"),
        (("model.backbone=resnet19",), "resnet19"),
    ],
)
def test_wrong_calls_end_with_one_paragraph(given, words, tmp_path):
    told = ended("train", "experiment=classifier", "preset=smoke", *given, home=tmp_path)
    assert told.returncode == 1 and words in told.stderr and "Traceback" not in told.stderr, (
        told.stderr[-1500:]
    )


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


def test_multirun_may_stand_anywhere(tmp_path):
    given = ["experiment=classifier", "-m", "seed=0,1"]
    assert paths.arguments(given, began=tmp_path) == ["-m", "experiment=classifier", "seed=0,1"]
