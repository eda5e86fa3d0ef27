"""Run folders: refused when finished, continued on request, never mixed with other settings. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from cmrdata.disk import REFUSALS, Unwritable, differences, write_atomic

# how to run, not what to run (a preset's values count where they are used): may differ between attempts
CONTROL = ("resume", "overwrite", "preset", "images", "shard", "logger")
TIME_OVER = (
    "its time on SLURM was over (hydra.launcher.timeout_min, less hydra.launcher.signal_delay_s seconds); give it more, "
    "or hydra.launcher.max_num_timeout=<n> to have it queued again, and continued, up to n times"
)


# in names of runs: ${tagged:fold,${fold}} is "-fold-3", or nothing without a fold
OmegaConf.register_new_resolver("tagged", lambda name, value: "" if value is None else f"-{name}-{value}", replace=True)


class AttemptEnded(Exception):
    """This attempt's time is over (max_time, a signal, SLURM's limit) and the run is not: the same command continues it."""


PLAIN = (ValueError, FileNotFoundError, FileExistsError, FloatingPointError, Unwritable)


def begin(
    folder: Path, config: dict[str, Any], *, resume: bool, overwrite: bool
) -> Literal["fresh", "continue", "finished"]:
    """Claim a run folder for `config` (plain, resolved) and say what is to be done in it.

    Raises FileExistsError naming the folder, its state and the remedy; ValueError naming the settings that differ.
    """
    kept = {key: value for key, value in config.items() if key not in CONTROL}
    begun, done, failed = (folder / name for name in ("config.yaml", "finished.json", "failed.json"))
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    files = [path.name for path in folder.glob("**/*") if path.is_file()]
    if all(
        name.startswith(".") or name in (begun.name, failed.name, "hparams.yaml") for name in files
    ):  # a run that failed on its input claims no folder
        folder.mkdir(parents=True, exist_ok=True)
        failed.unlink(missing_ok=True)
        write_atomic(begun, yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
        return "fresh"
    state = "finished" if done.exists() else "unfinished"
    if not resume:
        verb = "reuse" if done.exists() else "continue"
        raise FileExistsError(
            f"{folder} holds a {state} run; resume=true to {verb} it, overwrite=true to replace it, or another name="
        )
    if changed := differences(yaml.safe_load(begun.read_text()), kept):
        raise ValueError(
            f"{folder} holds a {state} run with other settings: {'; '.join(changed[:6])}"
            f"{f'; and {len(changed) - 6} more' if len(changed) > 6 else ''}. Give it another name= or overwrite=true"
        )
    if done.exists():
        return "finished"
    failed.unlink(missing_ok=True)
    return "continue"


def claim(config: dict[str, Any]) -> Path | None:
    """The folder that a command's whole config asks for (run_dir, resume, overwrite); None, said aloud, if it is done."""
    folder = Path(config["run_dir"])
    if begin(folder, config, resume=config["resume"] or restarted(), overwrite=config["overwrite"]) == "finished":
        print(f"{folder}: finished before, reused")
        return None
    return folder


def agreed(fabric: Any, claimed: Callable[[], Path | None]) -> Path | None:
    """What `claimed` gives or raises in the first of a Fabric's processes, in all of them, so that none is left waiting.

    An error that is none of PLAIN the first raises as it is, the others as RuntimeError.
    """
    outcome: Path | Exception | None = None
    own: Exception | None = None
    if fabric.is_global_zero:
        try:
            outcome = claimed()
        except PLAIN as error:
            outcome = error
        except Exception as error:
            own, outcome = error, RuntimeError(f"the first process failed: {type(error).__name__}, told by itself")
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise own or outcome
    return outcome


def restarted() -> bool:
    """Has SLURM started this job before (preempted, time over, node lost)? Then it continues what it began itself."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run against other processes, with a lock beside its folder. Raises FileExistsError if another has it."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"{folder}: another process is at work on this run; wait for it, or end it (on SLURM: squeue, scancel) and "
            "give resume=true, or another name="
        ) from None
    except (OSError, NotImplementedError):
        pass  # no locks on this disk, or nothing can be written: the run's own first write tells
    try:
        yield
    finally:
        lock.release()


def finish(folder: Path, **facts: Any) -> None:
    """Mark a run as complete, with what a later reader needs to trust it."""
    facts = {**facts, "code": code_version(), "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    write_atomic(folder / "finished.json", json.dumps(facts, indent=1, default=str))


def facts(folder: Path) -> dict[str, Any]:
    """What `finish` wrote; FileNotFoundError when the run is missing or unfinished."""
    path = Path(folder) / "finished.json"
    if not path.exists():
        raise FileNotFoundError(f"{folder}: no finished run there; run it, or continue it with resume=true")
    return json.loads(path.read_text())


def config(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((Path(folder) / "config.yaml").read_text())


@contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """An error within ends the run in `folder` and is kept there as failed.json: told, kind, failed (when)."""
    try:
        yield
    except Exception as error:
        kind = type(error).__name__  # what other people's errors say may name a participant
        record = {"told": told(error) or kind, "kind": kind, "failed": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # the disk may be what failed
            write_atomic(folder / "failed.json", json.dumps(record, indent=1))
        raise


def told(error: BaseException) -> str | None:
    """The paragraph a user needs when the input, the settings or the disk are at fault; None for any other error."""
    # what a config's _target_ raised, Hydra wraps
    if type(error).__name__ == "InstantiationException" and error.__cause__:
        error = error.__cause__
    if type(error).__name__ == "UncompletedJobError":  # submitit's, in the job itself
        return TIME_OVER
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return f"{error}; free some space, or write elsewhere with run_dir="
    return str(error) if isinstance(error, PLAIN) else None


@cache
def code_version() -> str:
    """ "0.1.0+2afed89b" in a clean checkout, with ".edited" behind it where tracked files differ, else "0.1.0"."""
    try:
        released = version("cmr-debias")
    except PackageNotFoundError:  # src on the path, not installed
        released = "unreleased"
    commit = _git("rev-parse", "--short=8", "HEAD")
    edited = ".edited" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{released}+{commit}{edited}" if commit else released


def _git(*args: str) -> str:
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():  # installed, perhaps inside another project's checkout
        return ""
    try:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
