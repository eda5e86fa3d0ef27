"""What the commands do before Hydra: help from conf/ itself, and sentences for wrong calls."""

from __future__ import annotations

import os
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


# a config folder of a few lines

STARTS: list[list[str]] = []  # command lines that were handed on


@pytest.fixture
def conf(tmp_path, monkeypatch) -> Path:
    """conf/ of one command, and an empty command line."""
    files = {
        "train.yaml": "defaults:\n  - cohort: phantom\n  - optional debug: null\n  - trainer: auto\n"
        "seed: 0  # of every draw\nname: ${x}\nlimit: ???  # to give\nempty:\n",
        "cohort/phantom.yaml": "root: here  # where it lies\n",
        "cohort/_shared.yaml": "",
        "debug/fast.yaml": "",
        "sampler/ddim.yaml": "",
        "model/small.yaml": "",
        "unnamed/a.yaml": "",
        "experiment/b.yaml": "# @package _global_\n# Trains the second.\n# And more.\ndefaults:\n"
        "  - override /trainer: auto\n  - /sampler: ddim\n  - model: small\nlr: 1  # of steps\n",
        "experiment/a.yaml": "# Trains the first.\n",
        "trainer/auto.yaml": "",
    }
    for name, text in files.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(commands.paths, "start", lambda: STARTS.append(sys.argv[1:]))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return tmp_path / "conf"


def test_help_is_made_of_the_files_of_conf(conf, tmp_path, monkeypatch):
    own = tmp_path / "own"
    (own / "cohort").mkdir(parents=True)
    (own / "cohort" / "mine.yaml").write_text("")
    (own / "experiment").mkdir()
    (own / "experiment" / "c.yaml").write_text("a: 1\n")
    listed = {
        "cohort": ["mine", "phantom"],
        "debug": ["fast"],
        "sampler": ["ddim"],
        "trainer": ["auto"],
    }
    assert dict(commands._groups("train", conf, [own])) == listed
    (conf / "generate.yaml").write_text("defaults:\n  - cohort: phantom\n")
    assert dict(commands._groups("generate", conf, [])) == {"cohort": ["phantom"]}
    assert commands.experiments(conf, own) == (
        "  experiment=a            Trains the first.\n"
        "  experiment=b            Trains the second.\n"
        "  experiment=c            "
    )
    told = list(
        commands._lines(
            [
                "train:seed",
                "train:name",
                "train:limit",
                "train:empty",
                "cohort/phantom:root",
                "experiment/b:lr",
            ],
            conf,
        )
    )
    assert told == [
        "  seed=0                       of every draw",
        "  name=...",
        "  limit=...                    to give",
        "  empty=",
        "  cohort.root=here             where it lies",
        "  lr=1                         of steps",
    ]
    with pytest.raises(AssertionError, match="conf/train.yaml has no other"):
        list(commands._lines(["train:other"], conf))
    monkeypatch.setitem(commands.SETTINGS, "train", ("train:seed",))
    monkeypatch.setitem(commands.SETTINGS, "generate", ())
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(own)])
    text = commands.help_text("train", conf=conf, about="ABOUT")
    assert text.startswith("ABOUT\n\n  experiment=a ") and "experiment=c" in text
    assert "\n  cohort=       mine, phantom\n  debug=        fast\n" in text
    assert "  seed=0                       of every draw\n" in text
    assert "experiment=a" not in commands.help_text("generate", conf=conf, about="ABOUT")


def started(command: str, conf: Path, *given: str) -> list[str] | str:
    """What a command leaves of its command line, or how it ends."""
    sys.argv[:] = [f"{command}.py", *given]
    try:
        commands.start_command(command, conf=conf, about="ABOUT")
    except SystemExit as ended:
        return str(ended)
    return STARTS.pop()


def test_a_command_line_is_taken_or_answered_with_a_sentence(conf, capsys, monkeypatch):
    monkeypatch.setitem(commands.SETTINGS, "train", ("train:seed",))
    fine = ["experiment=a", "seed=0"]
    assert started("train", conf, *fine) == fine
    assert started("train", conf).startswith("ABOUT\n\n  experiment=a ")
    (conf / "generate.yaml").write_text("defaults:\n  - cohort: phantom\n")
    assert started("generate", conf) == []
    assert started("train", conf, "--help", "seed=1") == "0" and "ABOUT" in capsys.readouterr().out
    for flag in ("--cfg", "-c", "--info", "-i"):
        assert started("train", conf, flag) == ["experiment=controlnet", flag]
        assert started("train", conf, "experiment=a", flag) == ["experiment=a", flag]
        assert started("generate", conf, flag) == [flag]
        assert "leave -m out" in started("train", conf, flag, "-m")
    assert started("train", conf, "-m", *fine) == ["-m", *fine]
    said = "cohort takes phantom; for none leave it out, or give cohort=[]"
    assert started("train", conf, "cohort=null") == f"error: cohort=null: {said}"
    for other in ("seed=null", "cohort=phantom", "nothing=null", "hydra/launcher=null"):
        assert started("train", conf, other) == [other]
    assert started("train", conf, "base=sd21") == ["base=sd21"]
    for given in ("base=sd21", "+base=sd21"):
        assert started("generate", conf, given) == (
            f"error: {given}: generate.py takes the base from generator=runs/controlnet-sd21/0"
        )
    assert "takes the base from synthetic_set=runs/synthetic-b/0" in started(
        "evaluate", conf, "base=b"
    )


def test_a_choice_whose_package_is_there_is_taken(conf, monkeypatch):
    monkeypatch.setattr(commands, "_there", lambda package: "submitit" in package)
    assert started("train", conf, "hydra/launcher=slurm") == ["hydra/launcher=slurm"]
    for given, extra in (("hydra/launcher=ray", "ray"), ("hydra/sweeper=optuna", "cluster")):
        assert started("train", conf, given) == (
            f"error: {given} needs the extra {extra}: pip install -e '.[{extra}]'"
        )
    for other in ("hydra/launcher=basic", "launcher=ray"):
        assert started("train", conf, other) == [other]


def test_a_package_is_there_or_not():
    assert commands._there("json.decoder") and commands._there("json")
    assert not commands._there("nowhere.at.all") and not commands._there("nowhere")


def test_a_config_file_that_is_no_yaml_is_named_with_its_line(conf, tmp_path):
    commands.check_yaml([conf, tmp_path / "nowhere"])
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "x.yaml").write_text("a: 1\nb: {c\nd: 2\n")
    ended = started("train", conf, "experiment=a", "--config-dir", str(tmp_path / "own"))
    assert ended.startswith(f"error: {tmp_path}/own/x.yaml, line 3: ") and ended.endswith(
        "; quote what holds {, } or :"
    )
    (conf / "local").mkdir()
    (conf / "local" / "y.yaml").write_text("a: b: c\n")
    assert "local/y.yaml, line 1: " in started("train", conf, "experiment=a")


def test_other_errors_keep_their_traceback_and_a_sweep_is_told_from_a_run(
    conf, capsys, monkeypatch
):
    seen = []
    monkeypatch.setattr(sys, "__excepthook__", lambda *error: seen.append(error))
    error = ValueError("a bug")
    commands._ends(ValueError, error, None)
    assert seen == [(ValueError, error, None)] and capsys.readouterr().err == ""
    commands._ends(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err == "\ninterrupted; the same command continues\n"
    for given, words in (
        (["experiment=a"], "interrupted; the same"),
        (["-m", "experiment=a"], "The sweep ends"),
    ):
        started("train", conf, *given)
        sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert words in capsys.readouterr().err
    assert len(seen) == 1


def test_a_config_is_checked_before_it_is_used(capsys):
    for audit, task in ((True, None), (False, None), ("x", "share")):
        cfg = {"seed": 0, "audit": audit, **({"task": task} if task else {})}
        commands.prepared(OmegaConf.create(cfg))
    for wrong in ("x", 1, None):
        with pytest.raises(ValueError, match=f"audit={wrong}: it takes true or false"):
            commands.prepared(OmegaConf.create({"seed": 0, "audit": wrong}))
    assert capsys.readouterr().out == ""
