"""Jobs of a sweep: none shares another's folder; one that fails is told at once and counted, and
the others go on.

Hydra calls `Jobs` (conf/hydra/quiet.yaml) before a sweep and around each job, under every launcher.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cmrdata.counting import number_of
from cmrdata.disk import write_atomic
from cmrstudy import checks, overrides, plain_errors
from cmrstudy.identity import settings
from cmrstudy.program import as_typed

# exit statuses of a command whose attempt ended before its run: by time, by a signal
UNFINISHED, INTERRUPTED = 3, 130
GO_ON = "The same command with resume=true runs only what is missing."
TRIAL = "tune/synthetic-${synthetic}/lr-${model.lr}-decay-${model.weight_decay}"


class Jobs:
    """Hydra callback: bad input ends a single run, and a job of a sweep, with our paragraph instead
    of a traceback.

    A sweep's folder gets <number of the job>.json: run, state (finished or failed), told. A job of
    a sweep returns None instead of raising, whatever went wrong in it (Ctrl-C apart), so no
    launcher stops and none has to pickle an error.
    """

    def on_job_start(self, config: Any, task_function: Callable[..., Any], **_: Any) -> None:
        if not _sweeps(config):
            return
        # Lightning starts the other processes of a run by repeating sys.argv: that must be this
        # job, not the sweep
        main = sys.modules["__main__"]
        self.before = dict(os.environ), sys.argv, main.__spec__
        sys.argv = [
            inspect.unwrap(task_function).__code__.co_filename,
            *config.hydra.overrides.task,
        ]
        main.__spec__ = None

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        error = job_return._return_value if job_return.status.name == "FAILED" else None
        message = as_typed(plain_errors.paragraph(error) or "") if error else None
        in_full = os.environ.get("HYDRA_FULL_ERROR") == "1" or not message
        if not _sweeps(config):
            if isinstance(error, plain_errors.AttemptEnded):
                print(message, file=sys.stderr, flush=True)
                sys.exit(_status(error))
            if error and not in_full:
                sys.exit(f"error: {message}")
            return
        self._restore()
        ended = error if isinstance(error, plain_errors.AttemptEnded) else None
        if error:
            if in_full:
                traceback.print_exception(error)
            else:
                print(message if ended else f"error: {message}", file=sys.stderr, flush=True)
            job_return.status, job_return.return_value = type(job_return.status).COMPLETED, None
        outcome = {
            "run": str(config.run_dir),
            "state": "unfinished" if ended else "failed" if error else "finished",
        }
        if error:
            # what other people's errors say may name a participant
            outcome["told"] = message or type(error).__name__
        write_atomic(
            Path(config.hydra.sweep.dir) / f"{config.hydra.job.num}.json",
            json.dumps(outcome, indent=1),
        )
        # whoever ended this job means the sweep
        if ended and isinstance(ended.__cause__, KeyboardInterrupt):
            print(
                f"The sweep ends here. {GO_ON} {config.hydra.sweep.dir}",
                file=sys.stderr,
                flush=True,
            )
            sys.exit(_status(ended))

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        jobs = overrides.composed_jobs(config)
        if message := wrong_setting([job.config for job in jobs] or [config]) or shared_folder(
            jobs
        ):
            sys.exit(f"error: {message}")
        try:
            Path(config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            where = f"{config.hydra.sweep.dir} can't be made: {error.strerror}"
            sys.exit(f"error: {where}; give another preset.runs= or hydra.sweep.dir=")
        if jobs:  # a sweeper that chooses as it goes has none yet
            first, last = jobs[0].folder, jobs[-1].folder
            print(
                f"sweep: {number_of(len(jobs), 'runs')}, {first} to {last}, told in "
                f"{config.hydra.sweep.dir}",
                flush=True,
            )

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        outcomes = read_records(folder := Path(config.hydra.sweep.dir))
        lines = {
            state: [
                f"\n  {outcome['run']}: {outcome['told']}"
                for outcome in outcomes
                if outcome["state"] == state
            ]
            for state in ("failed", "unfinished")
        }
        missing = [
            f"{len(of)} of {number_of(len(outcomes), 'runs')} {state}:{''.join(of)}"
            for state, of in lines.items()
            if of
        ]
        if missing:
            sys.exit("\n".join([*missing, f"{GO_ON} {folder}"]))
        print(f"{len(outcomes)} of {number_of(len(outcomes), 'runs')} finished: {folder}")

    def _restore(self) -> None:
        before, sys.argv, sys.modules["__main__"].__spec__ = self.before
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)

    def _nothing(self, **_: Any) -> None:
        """Hydra calls each of these by name."""

    on_run_start = on_run_end = on_compose_config = _nothing


def read_records(folder: Path) -> list[dict[str, Any]]:
    """What the jobs of the sweep in `folder` left, in their order."""
    return [
        json.loads(path.read_text())
        for path in sorted(folder.glob("[0-9]*.json"), key=lambda path: int(path.stem))
    ]


def wrong_setting(configs: Sequence[Any]) -> str | None:
    """Why a sweep may not begin: a setting of one of its jobs can't be; None if all can."""
    for config in configs:
        try:
            checks.check(config)
        except ValueError as error:
            return f"{error}. No job of the sweep has begun"
    return None


def shared_folder(jobs: Sequence[overrides.Job]) -> str | None:
    """Why a sweep may not begin: two of its jobs would write into one folder; None if none do."""
    first: dict[str, overrides.Job] = {}
    for job in jobs:
        place = os.path.realpath(str(job.folder))
        if other := first.setdefault(place, job) is not job and first[place]:
            return _told(other, job)
    return None


def _told(one: overrides.Job, two: overrides.Job) -> str:
    a, b = (
        dict(text.lstrip("+").split("=", 1) for text in job.overrides if "=" in text)
        for job in (one, two)
    )
    keys = [key for key in b if a.get(key) != b[key]]
    if not keys:
        return f"two jobs of this sweep are the same run, {one.folder}; give each once"
    both = " and ".join(" ".join(f"{key}={of.get(key)}" for key in keys) for of in (a, b))
    why = ""
    if settings(one.config) == settings(two.config):
        why = f"; {', '.join(keys)} decides no number of this run"
    at = "run_dir" if "run_dir" in b else "name"
    parts = "-".join(
        f"${{hydra:runtime.choices.{key}}}" if key in one.choices else f"${{{key}}}" for key in keys
    )
    return (
        f"two jobs of this sweep, {both}, would share {one.folder}{why}. Give each its own, e.g. "
        f"'{at}={one.pattern(at)}-{parts}'"
    )


def apart(config: Any, trial: Any) -> None:
    """Optuna: a trial's run folder is named by what it tries, and is none of the study's; a name=
    of one's own stays."""
    if "name" not in trial.user_attrs:
        trial.suggest_categorical("name", [TRIAL])


def _status(ended: plain_errors.AttemptEnded) -> int:
    """The exit status of a command that has not finished: a shell's own after Ctrl-C or a
    signal."""
    return INTERRUPTED if isinstance(ended.__cause__, KeyboardInterrupt) else UNFINISHED


def _sweeps(config: Any) -> bool:
    return bool(config.hydra.mode.name == "MULTIRUN")
