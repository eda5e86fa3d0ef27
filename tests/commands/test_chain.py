"""The four commands as processes of their own, three ways to the same tables; and a sweep over keys
of anybody's choice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from support import ROOT

CHAIN = [
    ["train.py", "experiment=controlnet", "resume=true"],
    ["generate.py", "resume=true"],
    ["train.py", "-m", "experiment=classifier", "synthetic=0,36,only", "seed=0,1", "resume=true"],
    ["evaluate.py"],
]
KILLS = 3  # of each command
pytestmark = pytest.mark.slow


def begin(words: list[str], place: Path) -> subprocess.Popen:
    """A command whose data, runs and results lie in `place`, in a process group of its own."""
    folders = [f"data_root={place / 'data'}", f"preset.runs={place / 'runs'}"]
    if words[0] == "evaluate.py":
        folders.append(f"run_dir={place / 'results'}")
    with (place.parent / "log.txt").open("a") as out:
        return subprocess.Popen(
            [sys.executable, str(ROOT / words[0]), *words[1:], "preset=smoke", *folders],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=place.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(words: list[str], place: Path) -> float:
    """The command carried to its end; the seconds it took."""
    start = time.monotonic()
    with begin(words, place) as process:
        assert process.wait(600) == 0, (place.parent / "log.txt").read_text()
    return time.monotonic() - start


def tables(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((place / "results").glob("*.csv"))}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[Path, list[float]]:
    place = tmp_path_factory.mktemp("plain") / "study"
    place.mkdir()
    return place, [finish(words, place) for words in CHAIN]


def test_the_chain_writes_its_tables(plain):
    place, _ = plain
    assert {"table1.csv", "table2.csv", "tests.csv", "adherence.csv"} <= tables(place).keys()
    assert not list(place.rglob("*.unfinished")) and not list(place.rglob("*.tmp"))


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_and_continued_by_the_same_commands_it_gives_the_same_tables(
    plain, tmp_path, seed
):
    rng = np.random.default_rng(seed)
    place, killed = tmp_path / "study", 0
    place.mkdir()
    for words, seconds in zip(CHAIN, plain[1], strict=True):
        for moment in rng.uniform(0.2, 0.95, KILLS) * seconds:
            with begin(words, place) as process:
                try:
                    process.wait(moment)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    killed += 1
                else:
                    assert process.returncode == 0, (tmp_path / "log.txt").read_text()
        finish(words, place)
    assert killed, "every attempt was faster than the plain run, which is only timed"
    assert tables(place) == tables(plain[0])


def test_moved_to_another_folder_between_the_commands_it_gives_the_same_tables(plain, tmp_path):
    place = tmp_path / "first" / "study"
    place.mkdir(parents=True)
    for words, name in zip(CHAIN, ["second", "third", "M&Ms (1) é", "last"], strict=True):
        finish([*words], place)
        if words[0] == "evaluate.py":
            break
        moved = tmp_path / name / "study"
        moved.parent.mkdir()
        shutil.move(place, moved)
        place = moved
    assert tables(place) == tables(plain[0])


def test_a_sweep_over_any_keys_becomes_one_report_that_names_its_factors(plain, tmp_path):
    place = tmp_path / "study"
    shutil.copytree(plain[0], place)
    shutil.rmtree(place / "results")
    shutil.rmtree(place / "runs" / "classifier")
    sweep = [
        "train.py",
        "-m",
        "experiment=classifier",
        "budget=epochs,steps",
        "model.lr=1e-4,3e-4",
        "seed=range(3)",
    ]
    finish([*sweep, "synthetic=36"], place)
    runs = [path.parent for path in (place / "runs" / "classifier").glob("*/*/finished.json")]
    assert len(runs) == 12 and len({run.parent.name for run in runs}) == 4
    finish(["evaluate.py", "baseline=synthetic-36-model.lr-0.0001"], place)
    arms = pd.read_csv(place / "results" / "metrics.csv").arm.unique()
    assert len(arms) == 4
    report = (place / "results" / "report.html").read_text()
    assert "budget" in report and "model.lr" in report
    finish([*sweep, "synthetic=36", "resume=true"], place)  # nothing to do, and nothing is refused
