"""A wheel installed elsewhere gives the commands, their configs and the phantom base; a checkout's
`cmr` is the same command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cmrstudy import paths, program
from support import ROOT

SOURCES = ("src", "conf", "assets", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
SOURCES = (*SOURCES, "LICENSE", "train.py", "generate.py", "evaluate.py")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout in which somebody has settings of a machine."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skipped = shutil.ignore_patterns("*.egg-info", "__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "conf" / "local" / "default.yaml").write_text("data_root: /home/somebody/data\n")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(copy)], cwd=copy, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (path,) = copy.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def place(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is unpacked, as an installer does it."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def test_a_wheel_has_every_file_of_the_program_and_nothing_of_a_machine(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"cmr/{path.relative_to(ROOT)}"
        for folder in ("conf", "assets")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and (path.parent.name != "local" or path.stem == "example")
    }
    assert {name for name in names if name.startswith(("cmr/conf", "cmr/assets"))} == expected
    assert {"cmr/train.py", "cmr/generate.py", "cmr/evaluate.py", "cmr/__main__.py"} <= names
    assert {
        path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*.py")
    } <= names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {
        path.name for path in (ROOT / "src").iterdir() if (path / "__init__.py").exists()
    }, "no module of ours stands alone in site-packages, where `evaluate` is another package"


def test_the_entry_point_is_there(place):
    (listed,) = place.glob("*.dist-info/entry_points.txt")
    assert "cmr = cmr.__main__:main" in listed.read_text()


def cmr(place: Path, *words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`cmr ...` with our packages from `place` and everybody else's from this environment."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("CMR_", "PYTH"))}
    code = "import sys; sys.argv[0] = 'cmr'; from cmr.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**own, "PYTHONPATH": str(place), "COLUMNS": "200", **env},
    )


def test_help_says_what_to_type_without_a_checkout(place, tmp_path):
    shown = cmr(place, "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "cmr generate" in shown.stdout, shown.stderr
    listed = cmr(place, "train", cwd=tmp_path)
    assert listed.returncode == 1 and "cmr train experiment=<name>" in listed.stderr
    assert "train.py" not in listed.stderr
    wrong = cmr(place, "trian", cwd=tmp_path)
    assert wrong.returncode == 1 and wrong.stderr.startswith("error: cmr has no command 'trian'")
    none = cmr(place, "evaluate", cwd=tmp_path)
    assert none.returncode == 1 and "Run `cmr train -m experiment=classifier ...`" in none.stderr


def test_an_empty_folder_is_the_home_and_its_own_conf_is_found(place, tmp_path):
    (tmp_path / "conf" / "local").mkdir(parents=True)
    (tmp_path / "conf" / "local" / "default.yaml").write_text(
        "# @package _global_\ndata_root: elsewhere\n"
    )
    shown = cmr(place, "train", "experiment=controlnet", "--cfg", "job", "--resolve", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    config = yaml.safe_load(shown.stdout)
    assert config["run_dir"] == "runs/controlnet/0" and config["data_root"] == "elsewhere"
    assert config["cohort"]["pixels"] == 64  # read from the phantom base in the package
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.slow
def test_an_installed_wheel_works_in_an_empty_folder(wheel, tmp_path):
    """In a virtual environment of its own, which borrows the other packages of this one."""
    home, environment = tmp_path / "study", tmp_path / "venv"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    for tool in installers(python):
        if subprocess.run([*tool, str(wheel)], capture_output=True).returncode == 0:
            break
    else:
        pytest.fail("neither uv nor pip installs a wheel here")
    own = {name: text for name, text in os.environ.items() if not name.startswith(("CMR_", "PYTH"))}
    chain = (
        "train experiment=inspect preset=smoke",
        "train experiment=controlnet preset=smoke",
        "generate preset=smoke",
        "train -m experiment=classifier preset=smoke synthetic=0,only",
        "evaluate preset=smoke resamples=100 permutations=100",
    )
    for words in chain:
        done = subprocess.run(
            [environment / "bin" / "cmr", *words.split()],
            cwd=home,
            capture_output=True,
            text=True,
            env=own,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "results" / "inspect_phantom" / "subjects.csv").exists()
    assert len(list(home.glob("results/smoke*/report.html"))) == 1
    assert {path.name for path in home.iterdir()} == {"data", "runs", "results"}


def installers(python: Path) -> Iterator[list[str]]:
    """Command lines that install a wheel for an interpreter, without asking an index."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    if Path(uv).exists():
        yield [uv, "pip", "install", "--no-deps", "--no-index", "--python", str(python)]
    yield [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
    ]


def test_a_checkouts_cmr_is_the_checkouts_command(tmp_path):
    shown = cmr(ROOT / "src", "train", "experiment=controlnet", "--cfg", "job", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert program.IN_CHECKOUT and program.PROGRAM == ROOT == paths.home()
    told = "run `python train.py` and pip install -e '.[cluster]'"
    assert program.as_typed(told) == told


def test_texts_say_what_is_typed_outside_a_checkout(monkeypatch):
    monkeypatch.setattr(program, "IN_CHECKOUT", False)
    told = "run `python train.py -m x`, pip install -e '.[cluster]'"
    assert program.as_typed(told) == "run `cmr train -m x`, pip install 'cmr-debias[cluster]'"
