"""train.py itself, killed and told to end: what it leaves in the end is what an uninterrupted run
leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from cmrstudy import runs
from support import ROOT

SMALL = [
    "preset=smoke",
    "preset.runs=runs",
    f"preset.base={ROOT / 'assets' / 'phantom-base'}",
    "cohort.subjects=120",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.steps=2",
]
COMMANDS = {
    "classifier": [
        "data.batch_size=8",
        "trainer.max_epochs=6",
        "trainer.accumulate_grad_batches=2",
    ],
    "controlnet": ["data.batch_size=2", "data.images_per_epoch=16", "trainer.max_epochs=2"],
    "base": [
        "model.autoencoder.steps=12",
        "model.unet.steps=30",
        "data.copies=2",
        "trainer.accumulate_grad_batches=2",
    ],
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def begin(place: Path, experiment: str, *more: str, log: Path | None = None) -> subprocess.Popen:
    """The command, in a group of its own."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"experiment={experiment}",
        *SMALL,
        *COMMANDS[experiment],
        *more,
    ]
    environment = {**os.environ, "HOME": str(place), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with (log or place / "log.txt").open("w") as out:
        return subprocess.Popen(
            command,
            cwd=place,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # ignored where the tests run behind a shell
        )


def made(place: Path, experiment: str, *more: str) -> Path:
    """The folder of an uninterrupted run, or one carried to its end."""
    name = next(
        (word.removeprefix("name=") for word in more if word.startswith("name=")), experiment
    )
    with begin(place, experiment, *more) as process:
        assert process.wait(600) == 0, (place / "log.txt").read_text()
    return place / "runs" / name / "0"


def checkpoints(run: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mtime_ns for path in run.rglob("last.ckpt")}


def until_new(
    run: Path, process: subprocess.Popen, before: dict[str, int], seconds: float = 300
) -> None:
    """Waits for the next checkpoint, or for the end."""
    end = time.monotonic() + seconds
    while process.poll() is None and checkpoints(run) == before:
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def same(a: Path, b: Path) -> None:
    """What other commands read of two runs, but for the time and the folder."""
    facts = [runs.facts(run) for run in (a, b)]
    for of in facts:
        for key in ("finished", "command", "code"):
            of.pop(key, None)
    best = [run / "checkpoints" / "best.ckpt" for run in (a, b)]
    if best[0].exists():  # the file, whose hash is a fact, names its folder; the weights are equal
        one, other = (torch.load(of, weights_only=True)["state_dict"] for of in best)
        assert all(torch.equal(one[key], other[key]) for key in one | other)
        for of in facts:
            of.pop("fingerprint", None)
    assert facts[0] == facts[1]
    for name in (
        "predictions.csv",
        "draws.csv",
        "log/metrics.csv",
        "autoencoder/log/metrics.csv",
        "unet/log/metrics.csv",
        "controlnet/diffusion_pytorch_model.safetensors",
        "base/vae/diffusion_pytorch_model.safetensors",
        "base/unet/diffusion_pytorch_model.safetensors",
    ):
        assert (a / name).exists() == (b / name).exists()
        if (a / name).exists() and (a / name).suffix == ".csv":
            assert (a / name).read_text() == (b / name).read_text(), name
        elif (a / name).exists():
            assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.parametrize("experiment", COMMANDS)
def test_killed_at_random_moments_a_run_is_that_of_an_uninterrupted_command(place, experiment):
    whole = made(place, experiment, f"name={experiment}-whole")
    part, draws, kills = f"{experiment}-parts", torch.Generator().manual_seed(1), 0
    run = place / "runs" / part / "0"
    while kills < 4 and not (run / "finished.json").exists():
        before = checkpoints(run)
        with begin(place, experiment, f"name={part}", "resume=true") as process:
            until_new(run, process, before)
            time.sleep(0.4 * float(torch.rand((), generator=draws)))
            with suppress(ProcessLookupError):  # done before
                os.killpg(process.pid, signal.SIGKILL)
        kills += 1
    same(whole, made(place, experiment, f"name={part}", "resume=true"))


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_two_processes_ends_both_in_the_same_place(place, name):
    """Ctrl-C reaches all processes of a terminal, kill and SLURM's limit the first one."""
    several = ["trainer.devices=2", "trainer.strategy=ddp"]
    whole = made(place, "classifier", "name=two-whole", "resume=true", *several)
    run = place / "runs" / f"two-{name}" / "0"
    with begin(place, "classifier", f"name=two-{name}", *several) as process:
        until_new(run, process, {})
        (os.killpg if name == "SIGINT" else os.kill)(process.pid, getattr(signal, name))
        assert process.wait(120) != 0
    assert f"{name} ended this attempt at step" in (place / "log.txt").read_text()
    assert not (run / "finished.json").exists()
    ended = made(place, "classifier", f"name=two-{name}", "resume=true", *several)
    assert (whole / "predictions.csv").read_text() == (ended / "predictions.csv").read_text()


def test_a_dry_run_leaves_an_unfinished_run_as_it_was(place):
    run = place / "runs" / "dry" / "0"
    with begin(place, "classifier", "name=dry") as process:
        until_new(run, process, {})
        os.killpg(process.pid, signal.SIGKILL)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for more in ([], ["resume=true"], ["overwrite=true"], ["debug=fast"]):
        made(place, "classifier", "name=dry", "trainer.fast_dev_run=true", *more)
        told = (place / "log.txt").read_text()
        assert re.search(
            "dry run .trainer.fast_dev_run.: 1 batch of everything ran; nothing is kept, and "
            "[^ ]*runs/dry/0 is as it was",
            told,
        )
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    finished = made(place, "classifier", "name=dry", "resume=true")
    assert json.loads((finished / "finished.json").read_text())["steps"] == 24
