"""An attempt at a run: a time limit or a signal ends it before the run is finished, and says so.

Signals end it at the next place from which training continues exactly (cmrstudy/checkpoints.py).
Nothing heavy is imported here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from cmrstudy import plain_errors

# Ctrl-C, scancel and `kill`, a closed terminal, SLURM's warning before the limit, submitit's
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
AGAIN = "the same command continues there"


class Ended(BaseException):
    """Ends an attempt from within; no Exception, so that no library takes it for its own error."""


class Attempt:
    """Within it signals end the attempt, as `plain_errors.AttemptEnded`, instead of killing the
    process.

    Before and after training they do so at once. While training is `patient`, a signal is only
    noted as `received`: whoever trains writes a checkpoint and calls `obey`. A second Ctrl-C ends
    at once.

    A handler that somebody else has installed keeps the last word: it is called after the
    checkpoint. submitit's queues the job again (SIGUSR2) or takes note only (SIGTERM), after which
    training goes on.
    """

    def __init__(
        self, folder: Path, *, max_time: str | Mapping[str, float] | timedelta | None = None
    ):
        """Begin to count the time.

        Args:
            folder: the run's, for the sentences.
            max_time: of the attempt from now on: "DD:HH:MM:SS", or the arguments of timedelta.

        Raises:
            ValueError: for another max_time.
        """
        self.folder, self.max_time, self.limit = folder, max_time, seconds(max_time)
        self.begun = time.monotonic()
        self.patient = False
        self.received: signal.Signals | None = None
        self.standing = "before the first step"
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Attempt:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # nohup: whoever ignores a hang-up goes on
                    self._before[number] = before
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
        if isinstance(error, Ended):
            raise plain_errors.AttemptEnded(str(error)) from error.__cause__

    def hold(self) -> None:
        """Install the handlers, also over those that Lightning puts in their place."""
        for number in self._before:
            signal.signal(number, self._receive)

    def over(self) -> bool:
        """Is its time used up?"""
        return self.limit is not None and time.monotonic() - self.begun >= self.limit

    def end(self, reason: str, *, remedy: str = AGAIN, cause: BaseException | None = None) -> None:
        """Raise Ended with the sentence for the user."""
        raise Ended(f"{self.folder}: {reason} {self.standing}; {remedy}") from cause

    def end_in_time(self) -> None:
        """Raise Ended since `over`."""
        told = (
            self.max_time if isinstance(self.max_time, str) else timedelta(seconds=self.limit or 0)
        )
        self.end(f"trainer.max_time={told} ended this attempt")

    def obey(self, number: signal.Signals) -> None:
        """End the attempt as a signal wants it.

        Returns where whoever handled the signal before only takes note of it. Raises Ended, or what
        that handler raises. The cause of Ended is a KeyboardInterrupt where the whole process
        should end.
        """
        self.received = None
        before = self._before.get(number, signal.SIG_DFL)
        if callable(before) and before is not signal.default_int_handler:
            try:
                before(number, None)
            except Exception as error:
                if type(error).__name__ != "UncompletedJobError":  # submitit's: not queued again
                    raise
                self.end(f"{plain_errors.TIME_OVER}. It stands", remedy=AGAIN, cause=error)
            return
        queued = number.name == "SIGUSR1" and requeued()
        self.end(
            f"{number.name} ended this attempt",
            remedy="SLURM has queued the job again, which continues there" if queued else AGAIN,
            cause=KeyboardInterrupt(),
        )

    def _receive(self, number: int, frame: FrameType | None) -> None:
        got = signal.Signals(number)
        if os.getpid() != self._process:  # a forked worker; the parent ends it
            if got.name != "SIGINT":
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
        elif not self.patient:
            self.obey(got)
        elif got.name == "SIGINT" and self.received == got:
            raise KeyboardInterrupt
        else:
            if got.name == "SIGINT":  # not print: the signal may have come in the middle of one
                os.write(
                    2, b"\nends after this step, with a checkpoint; Ctrl-C again ends at once\n"
                )
            self.received = got


def seconds(max_time: str | Mapping[str, float] | timedelta | None) -> float | None:
    """Seconds of Lightning's max_time: "DD:HH:MM:SS", a dict of timedelta's arguments, a timedelta.

    Raises ValueError naming the setting for anything else.
    """
    if max_time is None:
        return None
    if isinstance(max_time, timedelta):
        return max_time.total_seconds()
    try:
        if isinstance(max_time, Mapping):
            return timedelta(**max_time).total_seconds()
        parts = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", max_time.strip())
        days, hours, minutes, rest = map(int, parts.groups())  # type: ignore[union-attr]
    except (TypeError, AttributeError):
        raise ValueError(
            f"trainer.max_time={max_time}: give days, hours, minutes and seconds as 00:03:30:00, "
            f"or as {{hours: 3.5}}"
        ) from None
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=rest).total_seconds()


def requeued() -> bool:
    """Ask SLURM, in the first process of a job, to queue it again, as Lightning does at SIGUSR1."""
    job, array = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_ARRAY_JOB_ID")
    if not job or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return True
    name = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else job
    try:
        return (
            subprocess.run(
                ["scontrol", "requeue", name], capture_output=True, timeout=60
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):
        return False
