"""No participant's id is in this repository, and a script would find one in a name, a text or the
history."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT

SCRIPT = ROOT / "scripts" / "participant_ids.py"
ID = "10" + "12345"  # never in one piece in this file


def look(cwd: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture
def fork(tmp_path) -> Path:
    """A repository with one harmless file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("x = 0.1234567  # 12345678 SYN0001 v1.2345678 2345678 1048576\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "one")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True)


def test_this_repository_has_none():
    house = SCRIPT.parents[1]
    if not (house / ".git").exists():
        pytest.skip("no repository")
    done = look(house)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.md", f"participant {ID} was scanned twice"),
        ("table.csv", f"eid,age\n{ID},61\n"),
        (f"{ID}_20209_2_0.txt", "harmless"),
        ("plan.yaml", f"path: /data/{ID}_20209_2_0.zip"),
    ],
)
def test_an_id_is_found_in_text_and_in_names_and_shown_in_part(fork, name, text):
    assert look(fork).returncode == 0
    (fork / name).write_text(text)
    git(fork, "add", "-A")
    done = look(fork)
    assert done.returncode == 1 and "10*****" in done.stderr and ID not in done.stderr
    assert look(fork, name).returncode == 1


def test_a_deleted_file_is_found_in_the_history(fork):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    (fork / "ids.txt").write_text(f"{ID}\n")
    git(fork, "add", "-A")
    git(fork, *identity, "commit", "-qm", "two")
    (fork / "ids.txt").unlink()
    git(fork, *identity, "commit", "-qam", "three")
    assert look(fork).returncode == 0
    done = look(fork, "--history")
    assert done.returncode == 1 and "ids.txt:1" in done.stderr
