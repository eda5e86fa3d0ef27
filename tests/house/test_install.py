"""What `make` does before anything is installed: told in words, and half a .venv made anew. With
made-up tools."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

PYTHON = """#!/bin/sh
case "$*" in
*sys.version_info\\[:2\\]\\ \\<=*|*"<= sys.version_info"*) exec {real} - <<END
import sys
version = {version}
good = (3, 11) <= version <= (3, 13)
sys.exit(None if good else "Python 3.11 to 3.13 is needed, fake is %d.%d" % version)
END
;;
*print*) echo {major}.{minor} ;;
"-m venv .venv") {venv} ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def place(tmp_path: Path):
    """A folder with the script and made-up tools on an otherwise nearly empty PATH; `log` has what
    uv was asked."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "venv.sh", tmp_path / "scripts")
    (tmp_path / "requirements.lock").write_text("")
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for tool in ("sh", "uname", "rm", "ls", "cat", "mkdir", "chmod", "env"):
        (bin_ / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return tmp_path


def tool(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def python(place: Path, version: tuple[int, int] = (3, 11), *, venv: str = "exit 1") -> None:
    tool(
        place / "bin" / "python3",
        PYTHON.format(
            real=sys.executable, version=version, major=version[0], minor=version[1], venv=venv
        ),
    )


def uv(place: Path, *, fails: str = "never") -> None:
    """A uv that notes how it is called, makes a .venv, and fails where a call holds `fails`."""
    inner = '#!/bin/sh\\ncase "$*" in *print*) echo 3.11 ;; *) exit 1 ;; esac'
    tool(
        place / "bin" / "uv",
        f"""#!/bin/sh
echo "$*" >> {place}/log
case "$*" in
*{fails}*) exit 2 ;;
venv*) mkdir -p .venv/bin; echo home > .venv/pyvenv.cfg; printf '{inner}' > .venv/bin/python; chmod +x .venv/bin/python ;;
esac
""",
    )


def run(place: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["sh", "scripts/venv.sh"],
        cwd=place,
        capture_output=True,
        text=True,
        env={"PATH": str(place / "bin"), **environment},
    )


def calls(place: Path) -> list[str]:
    return (place / "log").read_text().splitlines() if (place / "log").exists() else []


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_an_unsupported_python_is_told_before_anything_is_made(place, version):
    python(place, version)
    uv(place)
    ended = run(place)
    assert ended.returncode == 1 and "Python 3.11 to 3.13 is needed" in ended.stderr
    assert not (place / ".venv").exists() and not calls(place)


def test_a_half_made_environment_is_made_anew(place):
    python(place)
    uv(place)
    (place / ".venv" / "bin").mkdir(parents=True)
    (place / ".venv" / "pyvenv.cfg").write_text("home")
    (place / ".venv" / "left").write_text("of an interrupted install")
    ended = run(place, TORCH="gpu")
    assert ended.returncode == 0, ended.stderr
    assert "half made" in ended.stdout and not (place / ".venv" / "left").exists()
    assert calls(place)[0].startswith("venv") and "-c requirements.lock" in calls(place)[1]
    (place / ".venv" / "kept").write_text("")
    # a whole one stays
    assert run(place, TORCH="gpu").returncode == 0 and (place / ".venv" / "kept").exists()


def test_what_is_no_environment_is_not_removed(place):
    python(place)
    uv(place)
    (place / ".venv").mkdir()
    (place / ".venv" / "thesis.tex").write_text("x")
    assert run(place).returncode == 1 and (place / ".venv" / "thesis.tex").exists()


def test_a_python_without_venv_is_told_and_leaves_nothing_half_made(place):
    python(place, venv="mkdir -p .venv/bin; exit 1")
    ended = run(place)
    assert (
        ended.returncode == 1
        and "apt install python3-venv" in ended.stderr
        and not (place / ".venv").exists()
    )


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="has an NVIDIA GPU")
@pytest.mark.parametrize(
    ("given", "fails", "backends"),
    [
        ({}, "never", [True]),
        ({}, "torch-backend=cpu", [True, False]),
        ({"TORCH": "gpu"}, "never", [False]),
        ({"TORCH": "cpu"}, "never", [True]),
    ],
)
def test_the_cpu_build_is_taken_where_there_is_surely_no_gpu_or_it_was_asked_for(
    place, given, fails, backends
):
    python(place)
    uv(place, fails=fails)
    ended = run(place, **given)
    installs = [call for call in calls(place) if call.startswith("pip install")]
    assert (
        ended.returncode == 0 and ["--torch-backend=cpu" in call for call in installs] == backends
    ), ended.stderr


def test_a_build_that_was_asked_for_and_cannot_be_had_is_an_error(place):
    python(place)
    uv(place, fails="torch-backend=cpu")
    assert run(place, TORCH="cpu").returncode != 0
    assert "TORCH=tpu: it takes auto, cpu or gpu" in run(place, TORCH="tpu").stderr


def test_no_index_is_named():
    for path in ("Makefile", "scripts/venv.sh", "pyproject.toml", "requirements.lock"):
        assert (
            "index" not in (ROOT / path).read_text().replace("index-url", "").lower()
            or "://" not in (ROOT / path).read_text()
        )
