"""Paths as people have them, from whatever directory a command is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cmrstudy import paths
from support import ROOT

ODD = [
    "/data/M&Ms",
    "/data/study (1)/x",
    "/a#b",
    "/a=b",
    "/a,b",
    "/données/é",
    "/it's",
    '/say "x"',
    "/a b",
    "/a  b",
    "/[old]/{x}",
    "/a:b",
    "/a;b|c",
    "/a\\b",
    "/x\\",
    "/100%",
    "/a$",
    "/a!b",
    "/a*b?",
    "/~",
    "/é\u0301",
    "/001",
    "/1e3",
    "/a'b\"c\\d",
    "/ends ",
]


def read(text: str) -> object:
    """What Hydra makes of an argument, as a command hands it on."""
    (made,) = paths.arguments([text], began=paths.home())
    (override,) = OverridesParser.create().parse_overrides([made])
    return override.value()


@pytest.mark.parametrize("path", ODD)
def test_a_path_arrives_as_it_was_typed(path):
    assert read(f"cohort.root={path}") == path
    assert (
        read(f"+trainer.default_root_dir='{path.strip()}'")
        if "'" not in path and "\\" not in path
        else True
    )


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$~"),
        min_size=1,
        max_size=30,
    )
)
def test_any_absolute_path_arrives_as_it_was_typed(name):
    assert read(f"cohort.root=/{name}") == f"/{name}"


@pytest.mark.parametrize("path", [p for p in ODD if "'" not in p and "\\" not in p])
def test_hydras_own_quotes_are_understood(path):
    assert (
        read(f"cohort.root='{path}'") == read(f'generator="{path}"'.replace('say "x"', "say"))
        or '"' in path
    )
    assert read(f"cohort.root='{path}'") == path


def test_home_and_variables_are_filled_in_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me & you")
    monkeypatch.setenv("DATA", "/big disk")
    assert read("cohort.root=~/x") == read("cohort.root='~/x'") == "/home/me & you/x"
    assert read("data_root=$DATA/M&Ms") == read("data_root=${DATA}/M&Ms") == "/big disk/M&Ms"
    assert read("preset.runs='~/runs'") == "/home/me & you/runs"
    cfg = OmegaConf.create(
        {"cohort": {"root": "${oc.env:ROOT}", "name": "~"}, "data_root": "~/d", "name": "$DATA"}
    )
    monkeypatch.setenv("ROOT", "~/acdc")
    paths.expand(cfg)
    assert (cfg.cohort.root, cfg.data_root) == ("/home/me & you/acdc", "/home/me & you/d")
    assert (cfg.cohort.name, cfg.name) == ("~", "$DATA")  # no paths


def test_lists_interpolations_and_nothing_stay_hydras():
    for value in ("null", "[a.csv,b.csv]", "${oc.env:HOME}/x", "${data_root}/y"):
        assert paths.arguments([f"cohort.table={value}"], began=Path("/tmp")) == [
            f"cohort.table={value}"
        ]
    assert paths.arguments(["cohort.root="], began=Path("/tmp")) == ["cohort.root="]


def test_a_comma_divides_paths_only_in_a_sweep():
    assert read("synthetic_set=/a,b") == "/a,b"
    made = paths.arguments(["-m", "synthetic_set=/a b,'/c,d',/M&Ms"], began=paths.home())
    (override,) = OverridesParser.create().parse_overrides(made[1:])
    assert [getattr(value, "text", value) for value in override.sweep_iterator()] == [
        "/a b",
        "/c,d",
        "/M&Ms",
    ]


def test_what_hydra_refuses_elsewhere_ends_with_what_to_type():
    with pytest.raises(SystemExit) as told:
        paths.arguments(["plan.negative=fat & bright"], began=Path("/tmp"))
    line = told.value.code.splitlines()[1].strip()
    typed = subprocess.run(
        ["bash", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True
    ).stdout
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert override.value() == "fat & bright"
    for odd in ("a'b & c", "$x & y", "back\\slash & `z`"):
        with pytest.raises(SystemExit) as told:
            paths.arguments([f"plan.negative={odd}"], began=Path("/tmp"))
        line = told.value.code.splitlines()[1].strip()
        typed = subprocess.run(
            ["bash", "-c", f"printf %s {line}"], capture_output=True, text=True, check=True
        ).stdout
        assert OverridesParser.create().parse_overrides([typed])[0].value() == odd


# another working directory


def test_relative_paths_are_the_working_directorys_where_something_is_there_or_is_to_be_written(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CMR_HOME", str(tmp_path / "home"))
    (tmp_path / "began" / "mine").mkdir(parents=True)
    (tmp_path / "began" / "a.csv").touch()
    began = tmp_path / "began"
    wanted = {
        "cohort.root=mine": f"{began}/mine",
        "cohort.root=other": "other",
        "cohort.table=*.csv": f"{began}/*.csv",
        "run_dir=out": f"{began}/out",
        "data_root=data": f"{began}/data",
        "generator=runs/controlnet/0": "runs/controlnet/0",
    }
    for text, value in wanted.items():
        key = text.split("=")[0]
        assert paths.arguments([text], began=began) == [f"{key}={value}"]
    for flags in (["--config-dir", "mine"], ["--config-dir=mine"], ["-cd", "mine"]):
        assert f"{began}/mine" in paths.arguments(flags, began=began)[-1]
    monkeypatch.setenv("CMR_HOME", str(began))
    assert paths.arguments(list(wanted), began=began) == list(wanted)


def python(*args: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_what_is_typed_at_home_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("CMR_HOME", str(tmp_path))
    (tmp_path / "there").mkdir()
    given = ["run_dir=there", "generator=there", "cohort.root=there", "synthetic_set=nowhere"]
    assert paths.arguments(given, began=tmp_path) == given
    elsewhere = paths.arguments([f"run_dir={tmp_path}", "cohort.root="], began=tmp_path / "there")
    assert elsewhere == [f"run_dir={tmp_path}", "cohort.root="]


@pytest.mark.parametrize("home", [pytest.param(None, marks=pytest.mark.slow), "elsewhere"])
def test_started_from_elsewhere_a_command_finds_its_base_and_writes_at_home(tmp_path, home):
    given = {"CMR_HOME": str(tmp_path / home)} if home else {}
    (tmp_path / "cwd").mkdir()
    shown = python(
        str(ROOT / "train.py"),
        "experiment=controlnet",
        "cohort.root=x",
        "--cfg",
        "job",
        "--resolve",
        cwd=tmp_path / "cwd",
        **given,
    )
    assert (
        "experiment=controlnet" in shown.stderr
        or shown.returncode == 0
        or "cohort.root" in shown.stderr
    )
    code = (
        "import os, sys; from cmrstudy import paths; paths.start(); from cmrstudy.inputs import fingerprint_at; "
        "print(os.getcwd(), fingerprint_at('assets/phantom-base'))"
    )
    told = python(
        "-c", code, cwd=tmp_path / "cwd", PYTHONPATH=str(ROOT / "src"), **given
    ).stdout.split()
    assert Path(told[0]) == (tmp_path / home if home else ROOT) and len(told[1]) == 16
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_home_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    ended = python(
        str(ROOT / "train.py"), "experiment=inspect", cwd=tmp_path, CMR_HOME=str(tmp_path / "file")
    )
    assert ended.returncode == 1 and ended.stderr.startswith(
        f"error: CMR_HOME={tmp_path / 'file'} can't be used"
    )


@pytest.mark.slow
def test_an_experiment_of_ones_own_folder_is_found_alone_and_in_a_sweep(tmp_path):
    mine = tmp_path / "mine" / "experiment"
    mine.mkdir(parents=True)
    for name, lr in (("study_a", 0.5), ("study_b", 0.25)):
        (mine / f"{name}.yaml").write_text(
            f"# @package _global_\n# Mine.\ndefaults: [classifier]\nmodel: {{lr: {lr}}}\nname: mine/{name}\n"
        )
    common = ["--config-dir", "mine", "preset=smoke", "cohort.subjects=60", "cohort.pixels=16"]
    shown = python(
        str(ROOT / "train.py"),
        *common,
        "experiment=study_a",
        "--cfg",
        "job",
        "--resolve",
        cwd=tmp_path,
    )
    assert yaml.safe_load(shown.stdout)["model"]["lr"] == 0.5, shown.stderr
    swept = python(
        str(ROOT / "train.py"),
        "-m",
        *common,
        "experiment=glob(study_*)",
        cwd=tmp_path,
        CMR_HOME=str(tmp_path),
    )
    assert "2 of 2 runs finished" in swept.stdout, swept.stderr[-2000:]
    assert {path.parent.name for path in (tmp_path / "runs" / "smoke" / "mine").glob("*/0")} == {
        "study_a",
        "study_b",
    }


def test_multirun_may_stand_anywhere(tmp_path):
    given = ["experiment=classifier", "-m", "seed=0,1"]
    assert paths.arguments(given, began=tmp_path) == ["-m", "experiment=classifier", "seed=0,1"]
