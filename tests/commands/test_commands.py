"""Help, wrong calls and switches of the commands: one paragraph with the remedy, never a
traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("trainer=gpu",), "gpu backend"),
        (("run_dir=/proc/x",), "/proc/x"),
        (("trainer.precision=foo",), "trainer.precision=foo: weights stay in single"),
        (
            ("cohort=acdc", "cohort.root=/data/M&Ms (1)"),
            "no patient folders in cohort.root=/data/M&Ms (1)",
        ),
        (("plan.negative=a&b",), "Hydra can't read 'plan.negative=a&b'"),
        (("resume=maybe",), "resume=maybe: it takes auto, true or false"),
        (("model.backbone=resnet19",), "resnet19"),
    ],
)
def test_wrong_calls_end_with_one_paragraph(given, words, tmp_path):
    told = ended("train", "experiment=classifier", "preset=smoke", *given, home=tmp_path)
    assert told.returncode == 1 and words in told.stderr and "Traceback" not in told.stderr, (
        told.stderr[-1500:]
    )
