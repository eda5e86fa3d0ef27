"""An attempt ends, a run finishes: told to end anywhere, a training continues as if nothing had
been."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import lightning as L
import pytest
import torch

from cmrstudy import attempts
from cmrstudy.attempts import Attempt, Ended, seconds
from cmrstudy.runs import AttemptEnded
from support import ROOT
from support.stub_training import ACCUMULATE, HALF, PLAIN, STEPS, Signal, check_equal, run, whole  # noqa: F401


@pytest.fixture(autouse=True)
def in_a_terminal():
    """Signals as there; behind a shell or nohup some are ignored."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGHUP, signal.SIG_DFL),
        )
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# told to end


@pytest.mark.parametrize(
    ("name", "hook", "at", "options", "where"),
    [
        ("SIGTERM", "on_train_batch_end", 8, PLAIN, "at step 9, in epoch 2 of 4"),
        ("SIGTERM", "on_train_batch_start", 0, PLAIN, "at step 0, in epoch 1 of 4"),
        ("SIGHUP", "on_train_batch_end", 8, ACCUMULATE, "at step 5, in epoch 2 of 4"),
        ("SIGUSR1", "on_validation_batch_start", 4, PLAIN, "at step 12, in epoch 2 of 4"),
        ("SIGUSR2", "on_validation_end", 2, HALF, "at step 9, in epoch 2 of 4"),
        ("SIGINT", "on_train_batch_end", 8, STEPS, "at step 9 of 20, in epoch 2"),
    ],
)
def test_a_signal_ends_the_attempt_and_loses_nothing(
    tmp_path, whole, monkeypatch, capsys, name, hook, at, options, where
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(AttemptEnded) as ended:
        run(tmp_path, Signal(number, hook, at), **options)
    assert str(ended.value) == (
        f"{tmp_path}: {name} ended this attempt {where}; the same command continues there"
    )
    # the process, not only the run, was told to end
    assert isinstance(ended.value.__cause__, KeyboardInterrupt)
    assert signal.getsignal(number) is before
    capsys.readouterr()
    trainer, module, metrics = run(tmp_path, **options)
    check_equal(tmp_path, whole, options, metrics)
    step, epoch = re.search(r"at step (\d+).*, in epoch (\d+)", where).groups()
    told = f"{tmp_path}: goes on at step {step}, in epoch {epoch}" in capsys.readouterr().out
    assert told == (step != "0")
    if "accumulate_grad_batches" not in options:
        # nothing is trained twice
        assert f"at step {trainer.global_step - len(module.seen)}" in str(ended.value)


def test_a_second_interrupt_ends_at_once(tmp_path, capfd):
    class Twice(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    with pytest.raises(SystemExit):  # Lightning's way with a KeyboardInterrupt
        run(tmp_path, Twice())
    assert (
        "ends after this step, with a checkpoint; Ctrl-C again ends at once"
        in capfd.readouterr().err
    )


def test_a_signal_before_or_after_the_training_ends_at_once(tmp_path):
    with pytest.raises(
        AttemptEnded, match="SIGTERM ended this attempt before the first step; the same command"
    ):
        run(tmp_path, Signal(signal.SIGTERM, "setup", 0))
    with (
        pytest.raises(AttemptEnded, match="SIGTERM ended this attempt after the training"),
        Attempt(tmp_path) as limits,
    ):
        trainer, module, _ = run(tmp_path, attempt=limits)
        trainer.callbacks.append(Signal(signal.SIGTERM, "on_predict_batch_start", 1))
        trainer.predict(module)


def test_signals_that_are_ignored_stay_so(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        trainer, _, _ = run(tmp_path, Signal(signal.SIGHUP, "on_train_batch_end", 3))
        assert trainer.global_step == 24 and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class UncompletedJobError(RuntimeError):
    """As submitit's is called."""


def leave() -> None:
    sys.exit(-1)


def refuse() -> None:
    raise UncompletedJobError("Job not requeued because: timed-out too many times.")


@pytest.fixture
def submitit(tmp_path):
    """Puts a handler where submitit has its own; what it is called with, and whether a checkpoint
    was there by then."""
    calls: list[tuple[str, bool]] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}

    def handle(number: signal.Signals, then=lambda: None) -> list[tuple[str, bool]]:
        def handler(got: int, frame: object) -> None:
            calls.append(
                (signal.Signals(got).name, (tmp_path / "checkpoints" / "last.ckpt").exists())
            )
            then()

        signal.signal(number, handler)
        return calls

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def test_submitit_has_the_last_word_after_the_checkpoint(tmp_path, whole, submitit):
    calls = submitit(signal.SIGTERM)  # it only takes note of it
    trainer, _, metrics = run(tmp_path / "noted", Signal(signal.SIGTERM, "on_train_batch_end", 2))
    assert trainer.global_step == 24 and [name for name, _ in calls] == ["SIGTERM"]
    check_equal(tmp_path / "noted", whole, PLAIN, metrics)
    calls.clear()
    submitit(signal.SIGUSR2, then=leave)  # it has queued the job again
    with pytest.raises(SystemExit):
        run(tmp_path, Signal(signal.SIGUSR2, "on_train_batch_end", 2))
    assert calls == [("SIGUSR2", True)]
    submitit(signal.SIGUSR2, then=refuse)  # it may not
    with pytest.raises(
        AttemptEnded, match=r"its time on SLURM was over \(hydra.launcher.*It stands at step 6"
    ) as ended:
        run(tmp_path, Signal(signal.SIGUSR2, "on_train_batch_end", 2))
    assert isinstance(ended.value.__cause__, UncompletedJobError)
    _, _, metrics = run(tmp_path)
    check_equal(tmp_path, whole, PLAIN, metrics)


@pytest.mark.parametrize(("job", "array"), [("7", None), ("9", "8")])
def test_slurms_own_warning_queues_the_job_again(tmp_path, monkeypatch, job, array):
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ntest ! -e {tmp_path}/refuse\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    for name in ("SLURM_JOB_NAME", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", array)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(
        AttemptEnded, match="SIGUSR1 ended .*SLURM has queued the job again, which continues there"
    ):
        run(tmp_path / "run", Signal(signal.SIGUSR1, "on_train_batch_end", 2))
    assert (tmp_path / "asked").read_text() == f"requeue {'8_3' if array else '7'}\n"
    (tmp_path / "refuse").touch()
    with pytest.raises(AttemptEnded, match="the same command continues there"):
        run(tmp_path / "run", Signal(signal.SIGUSR1, "on_train_batch_end", 2))
    monkeypatch.setenv("SLURM_PROCID", "1")  # the first process asks
    assert attempts.requeued() and (tmp_path / "asked").read_text().count("requeue") == 2


def test_a_forked_worker_leaves_signals_to_its_parent(tmp_path):
    with Attempt(tmp_path):
        for number, ended in ((signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)):
            if not (child := os.fork()):
                try:
                    os.kill(os.getpid(), number)
                finally:
                    os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ended


# its time is over


def test_max_time_is_an_attempts_and_each_gets_further(tmp_path, whole):
    told = []
    for _ in range(30):
        try:
            _, _, metrics = run(tmp_path, attempt=Attempt(tmp_path, max_time="00:00:00:00"))
            break
        except AttemptEnded as ended:
            told.append(str(ended))
            assert ended.__cause__ is None  # a sweep goes on to its next run
    assert all(
        f"trainer.max_time=00:00:00:00 ended this attempt at step {k + 1}, in" in told[k]
        for k in range(24)
    )
    assert len(told) == 24  # the last one before the last validation
    check_equal(tmp_path, whole, PLAIN, metrics)


def test_max_time_has_lightnings_forms_and_names_itself_otherwise():
    assert (
        seconds(None) is None
        and seconds("01:00:02:03") == 86523
        and seconds({"hours": 1.5}) == 5400
    )
    assert seconds(timedelta(minutes=1)) == 60
    for wrong in ("2h", "00:02:00", {"hour": 1}, 60):
        with pytest.raises(
            ValueError, match=r"trainer.max_time=.*as 00:03:30:00, or as \{hours: 3.5\}"
        ):
            seconds(wrong)


def test_only_ended_becomes_an_ended_attempt(tmp_path):
    with pytest.raises(KeyError), Attempt(tmp_path):
        raise KeyError
    with pytest.raises(AttemptEnded, match="whatever"), Attempt(tmp_path):
        raise Ended("whatever")


# in processes of their own

SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {path}
from support.stub_training import run
import time, lightning as L
class Slow(L.Callback):
    def on_train_batch_end(self, *_):
        time.sleep({seconds})
run(Path({folder!r}), Slow(), steps=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_by_the_system_at_random_moments(tmp_path, whole, seed):
    draws = torch.Generator().manual_seed(seed)
    script = SCRIPT.format(path=[str(ROOT / "tests"), *sys.path], folder=str(tmp_path), seconds=0.1)
    last, kills = tmp_path / "checkpoints" / "last.ckpt", 0
    while kills < 4:
        with subprocess.Popen([sys.executable, "-c", script]) as process:
            written = last.stat().st_mtime_ns if last.exists() else 0
            while process.poll() is None and (
                not last.exists() or last.stat().st_mtime_ns == written
            ):
                time.sleep(0.01)
            time.sleep(float(torch.rand((), generator=draws)))
            if process.poll() is None:
                process.kill()
        kills += 1
    _, _, metrics = run(tmp_path)
    check_equal(tmp_path, whole, PLAIN, metrics)
