"""Run folders: refused when finished, continued when interrupted, never mixed with other settings,
inputs or people's files.

<folder>/run.json       whose folder this is: the run's settings, choices and inputs; written first
         config.yaml    the whole resolved config
         failed.json    why the last attempt failed
         finished.json  what a later reader needs; a run without it is unfinished and can be continued

Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from filelock import FileLock, Timeout

from cmrdata.disk import Unwritable, taken, write_atomic
from cmrstudy.identity import differing
from cmrstudy.inputs import Inputs, changed
from cmrstudy.plain_errors import AttemptEnded, paragraph

MADE_BY = "cmr-debias"
RECORDED = {"settings", "choices", "keys", "inputs"}  # without which no run is told from another
CONTROL = ("resume", "overwrite", "stale", "refresh", "print_config")  # of a command, not of a run
RESUME, STALE = ("auto", True, False), (None, "keep")
# every file that a command writes into a run folder; nothing else is ever removed from one
LEFT = (
    "run.json",
    "config.yaml",
    "failed.json",
    "finished.json",
    ".*.[0-9]*",
    # trainings
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "autoencoder/checkpoints/last.ckpt",
    "unet/checkpoints/last.ckpt",
    "hparams.yaml",
    "log/*",
    "tensorboard/*",
    "wandb/*",
    "lightning_logs/*",
    "previews/*",
    "controlnet/config.json",
    "controlnet/diffusion_pytorch_model.safetensors",
    "controlnet/generator.json",
    "base/*",
    "draws.csv",
    "predictions.csv",
    # sets
    "plan.csv",
    "settings.json",
    "images.u8",
    "masks.u8",
    "parts/*",
    "index.parquet",
    "store.json",
    "README.md",
    "failed.csv",
    "sweep/*",
    "shard-*-of-*/*",
    ".lock",
    # what is made from them
    "model/*",
    "png/*",
    "nifti/*",
    ".png-*.unfinished/*",
    ".nifti-*.unfinished/*",
    "explain.csv",
    "explain_images.csv",
    "explain_*.png",
    "explain_*.svg",
    "maps.npz",
    # inspections and evaluations
    "subjects.csv",
    "rejected.csv",
    "columns.csv",
    "withdrawn.csv",
    "fig1_demographics.png",
    "fig1_demographics.svg",
    "report.html",
    "audit.json",
    "figures/*",
    "private/*",
    *(
        f"{stem}{of}.{kind}"
        for kind in ("csv", "md", "tex")
        for of in ("", "_*")
        for stem in (
            "table1",
            "table2",
            "gaps",
            "fairness",
            "metrics",
            "calibration",
            "confusion",
            "tests",
            "ranks",
            "adherence",
            "area_change",
            "diversity",
            "fidelity",
            "two_sample",
            "audit",
            "membership",
            "baseline",
            "checklist",
            "decision_curve",
            "flow",
            "operating_point",
            "thresholds",
            "worst",
        )
    ),
)
NAMED = (  # those that are removed even where a folder on the way is a link
    "checkpoints/best.ckpt",
    "checkpoints/last.ckpt",
    "autoencoder/checkpoints/last.ckpt",
    "unet/checkpoints/last.ckpt",
)


class Request(NamedTuple):
    """What a command asks of a run folder: who the run is, and what may be done with what is
    there."""

    folder: Path
    config: dict[str, Any]  # plain, resolved
    settings: dict[str, Any]  # `identity.settings`
    choices: dict[str, Any]  # the options chosen from the config's groups
    keys: list[str]  # settings and groups in which it differs from the experiment's own
    places: dict[str, Any]  # input -> where the command says it lies
    sweep: tuple[Path, int] | None = None  # the sweep's folder and the number of this job in it

    def option(self, name: str, default: Any) -> Any:
        return self.config.get(name, default)


State = Literal["fresh", "continue", "finished"]


def begin(
    asked: Request,
    *,
    resume: bool | str = "auto",
    overwrite: bool = False,
    stale: str | None = None,
) -> State:
    """Claim a run folder and say what is to be done in it.

    Args:
        asked: the run.
        resume: "auto" continues an unfinished run of these settings and refuses a finished one,
            true also reuses a finished one, false refuses both.
        overwrite: remove what this program wrote there, and nothing else, first.
        stale: "keep" uses a run whose inputs have changed since.

    Raises:
        FileExistsError: naming the folder, its state and the remedy; also where it is not a run's.
        ValueError: naming the settings or inputs that differ.
    """
    for name, value, choices in (("resume", resume, RESUME), ("stale", stale, STALE)):
        if value not in choices:
            shown = ", ".join("null" if c is None else str(c).lower() for c in choices)
            raise ValueError(f"{name}={value}: it takes {shown}")
    folder = asked.folder
    record = _record(folder)
    if record is None:
        _refuse_foreign(folder)
    elif overwrite or asked.option("repeatable", False):
        clear(folder)
        record = None
    if record is None or _only_begun(folder):
        _claim(asked, stale=stale)
        return "fresh"
    done = (folder / "finished.json").exists() and not left(folder)
    state, verb = ("finished", "reuse") if done else ("unfinished", "continue")
    if resume is False or (done and resume != True):  # noqa: E712 ("auto" is true, too)
        raise FileExistsError(
            f"{folder} holds a {state} run; resume=true to {verb} it, overwrite=true to replace "
            "it, or another name="
        )
    if lines := differing(record["settings"], asked.settings):
        raise ValueError(
            f"{folder} holds a {state} run with other settings: {few(lines)}. Give it another "
            "name= or overwrite=true"
        )
    _check_inputs(record, asked, state, stale=stale)
    if done:
        return "finished"
    (folder / "failed.json").unlink(missing_ok=True)
    _claim(asked, stale=stale, inputs=record["inputs"], begun=record["begun"])
    return "continue"


def _claim(
    asked: Request, *, stale: str | None, inputs: Inputs | None = None, begun: str | None = None
) -> None:
    folder = asked.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(
            f"{folder}: a file or a broken link is in the way; give another run_dir= or name="
        ) from None
    except OSError as error:
        raise Unwritable(
            f"{folder} can't be made: {error.strerror}; give another run_dir= or preset.runs="
        ) from None
    (folder / "failed.json").unlink(missing_ok=True)
    kept = {key: value for key, value in asked.config.items() if key not in CONTROL}
    record = {
        "made_by": MADE_BY,
        "task": asked.option("task", None),
        "begun": begun or time.strftime("%Y-%m-%d %H:%M:%S"),
        "code": code_version(),
        "stale": stale,
        "keys": asked.keys,
        "choices": asked.choices,
        "inputs": inputs or {},
        "settings": asked.settings,
    }
    write_atomic(folder / "run.json", json.dumps(record, indent=1, default=str))
    write_atomic(folder / "config.yaml", yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def _record(folder: Path) -> dict[str, Any] | None:
    """What run.json says of a folder of ours; None for any other."""
    try:
        record = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and record.get("made_by") == MADE_BY
    return record if ours and record.keys() >= RECORDED else None


def _refuse_foreign(folder: Path) -> None:
    """Raise FileExistsError where a folder holds files but is no run's: nothing there is
    touched."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file; give another run_dir= or name=")
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if seen := [
        name for name in there if not any(fnmatchcase(name, p) for p in (".*.[0-9]*", ".lock"))
    ]:
        shown = ", ".join(seen[:3]) + (f" and {len(seen) - 3} more" if len(seen) > 3 else "")
        raise FileExistsError(
            f"{folder} holds files that are no run's ({shown}); nothing there is touched. Give "
            "another run_dir= or name="
        )


def _only_begun(folder: Path) -> bool:
    """Whether a run has left nothing but its settings: one that failed on its input claims no
    folder."""
    light = ("run.json", "config.yaml", "failed.json", "hparams.yaml")
    return all(path.name in light or path.name.startswith(".") for path in _files(folder)[0])


def _files(folder: Path) -> tuple[list[Path], list[Path]]:
    """(the files below a folder that this program writes, the others); links are not followed but
    for NAMED."""
    ours: list[Path] = [folder / name for name in NAMED if (folder / name).is_file()]
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            name = path.relative_to(folder).as_posix()
            (ours if any(fnmatchcase(name, pattern) for pattern in LEFT) else others).append(path)
    return list(dict.fromkeys(ours)), others


def few(lines: list[str]) -> str:
    """The first six of some phrases, and how many more there are."""
    return "; ".join(lines[:6]) + (f"; and {len(lines) - 6} more" if len(lines) > 6 else "")


def _check_inputs(record: dict[str, Any], asked: Request, state: str, *, stale: str | None) -> None:
    """Refuse a run whose inputs are no longer what it was made from; say which can't be
    compared."""
    other, unknown = changed(record["inputs"], asked.places)
    if other and stale != "keep":
        raise ValueError(
            f"{asked.folder} holds a {state} run made from other inputs than there are now: "
            f"{few(other)}. overwrite=true makes it anew from these, stale=keep uses it as it is"
        )
    if other:
        print(f"{asked.folder}: kept although inputs have changed: {few(other)}", flush=True)
    if unknown:
        print(
            f"{asked.folder}: not compared, since not there any more: {', '.join(unknown)}",
            flush=True,
        )


def claim(asked: Request) -> Path | None:
    """The folder that a command asks for; None, said aloud, if its run is done."""
    option = asked.option
    if (other := _other_job(asked)) is not None:
        same = (
            (kept := record(asked.folder))
            and kept.state == "finished"
            and not differing(kept.settings, asked.settings)
        )
        if not same:
            raise FileExistsError(
                f"{asked.folder}: job {other} of this sweep works there; give each job its own "
                "name="
            )
        print(f"{asked.folder}: the same run as job {other} of this sweep, reused")
        return None
    resume = True if restarted() else option("resume", "auto")
    state = begin(
        asked,
        resume=resume,
        overwrite=option("overwrite", False) and not restarted(),
        stale=option("stale", None),
    )
    if state == "finished":
        print(f"{asked.folder}: finished before, reused")
        return None
    if state == "continue":
        print(f"{asked.folder}: continued", flush=True)
    return asked.folder


def _other_job(asked: Request) -> int | None:
    """The job of the same sweep that has this folder; None if none has, and now this one."""
    if asked.sweep is None:
        return None
    folder, number = asked.sweep
    folder.mkdir(parents=True, exist_ok=True)
    place = hashlib.sha256(os.path.realpath(asked.folder).encode()).hexdigest()[:16]
    mark = folder / f".folder-{place}"
    with suppress(FileExistsError), mark.open("x") as file:
        file.write(str(number))
    first = mark.read_text().strip()
    return int(first) if first and int(first) != number else None


def clear(folder: Path) -> list[str]:
    """Remove what this program wrote into a run folder and say what else is there; links are not
    followed.

    Returns the paths that stay. The folder's record goes last, so that an interruption leaves a run
    of ours.
    """
    ours, others = _files(folder)
    for path in sorted(ours, key=lambda path: (path.name == "run.json", path)):
        path.unlink(missing_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # not empty
                path.rmdir()
    kept = [path.relative_to(folder).as_posix() for path in others]
    if kept:
        more = f" and {len(kept) - 5} more" if len(kept) > 5 else ""
        print(
            f"{folder}: kept, not written by this program: {', '.join(kept[:5])}{more}", flush=True
        )
    return kept


def uses(folder: Path, key: str, *, fingerprint: str, at: str | Path | None, **known: Any) -> None:
    """Record an input of the run in `folder` as it is used.

    Args:
        folder: the run's.
        key: the setting that names the input, e.g. synthetic_set; "cohort" for the store.
        fingerprint: of its content.
        at: where it lies; None for what has no place.
        known: what else a later reader should know of it.

    Raises ValueError where an earlier attempt of this run used another one.
    """
    if (record := _record(folder)) is None:
        return
    earlier = record["inputs"].get(key)
    if earlier and earlier["fingerprint"] != fingerprint and record.get("stale") != "keep":
        raise ValueError(
            f"{folder}: {key} has changed since this run began ({earlier['fingerprint']} -> "
            f"{fingerprint}); overwrite=true begins anew with it, stale=keep goes on"
        )
    record["inputs"][key] = {
        "fingerprint": fingerprint,
        "at": None if at is None else str(at),
        **known,
    }
    write_atomic(folder / "run.json", json.dumps(record, indent=1, default=str))


def restarted() -> bool:
    """Has SLURM started this job before (preempted, time over, node lost)? Then it continues what
    it began itself."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run against other processes, with a lock beside its folder. Raises FileExistsError if
    another has it."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        taken(lock, folder)
    except Timeout:
        raise FileExistsError(
            f"{folder}: another process is at work on this run; wait for it, or end it (on SLURM: "
            "squeue, scancel) and give the same command again, or another name="
        ) from None
    except OSError:
        pass  # nothing can be written: the run's own first write tells
    try:
        yield
    finally:
        lock.release()


def finish(folder: Path, **facts: Any) -> None:
    """Mark a run as complete, with what a later reader needs to trust it.

    A fact `left` says what is still to be done that no later reader needs: the same command then
    goes on with that.
    """
    facts = {**facts, "code": code_version(), "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
    write_atomic(folder / "finished.json", json.dumps(facts, indent=1, default=str))


def facts(folder: Path) -> dict[str, Any]:
    """What `finish` wrote; FileNotFoundError when the run is missing or unfinished."""
    path = Path(folder) / "finished.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder}: no finished run there; run it, or continue it with the same command"
        )
    return dict(json.loads(path.read_text()))


def left(folder: Path) -> str | None:
    """What a run still has to do that nobody who uses it needs, as its `finish` said; None for
    nothing."""
    return facts(folder).get("left")


def config(folder: Path) -> dict[str, Any]:
    """The resolved config that a run was begun with."""
    return dict(yaml.safe_load((Path(folder) / "config.yaml").read_text()))


class Record(NamedTuple):
    """A run as its folder tells it."""

    folder: Path
    state: str  # finished, failed or unfinished
    told: str  # why it failed
    settings: Mapping[str, Any]
    choices: Mapping[str, Any]
    keys: list[str]  # settings and groups in which it differs from the experiment's own
    inputs: Inputs
    facts: dict[str, Any]  # of a finished run


def record(folder: Path) -> Record | None:
    """The run in a folder; None where there is none of ours."""
    if (kept := _record(folder)) is None:
        return None
    state, told, facts_ = "unfinished", "", {}
    if (folder / "finished.json").exists():
        state, facts_ = "finished", facts(folder)
    elif (folder / "failed.json").exists():
        state, told = "failed", json.loads((folder / "failed.json").read_text())["told"]
    return Record(
        folder, state, told, kept["settings"], kept["choices"], kept["keys"], kept["inputs"], facts_
    )


@contextmanager
def attempt(folder: Path) -> Iterator[None]:
    """An error within ends the run in `folder` and is kept there as failed.json: told, kind, failed
    (when)."""
    try:
        yield
    except AttemptEnded:
        raise
    except Exception as error:
        kind = type(error).__name__  # what other people's errors say may name a participant
        record = {
            "told": paragraph(error) or kind,
            "kind": kind,
            "failed": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        with suppress(OSError):  # the disk may be what failed
            write_atomic(folder / "failed.json", json.dumps(record, indent=1))
        raise
    except KeyboardInterrupt as stop:
        stop.args = (f"{folder}: interrupted; the same command continues it",)
        print(f"\n{stop}", flush=True)
        raise


@cache
def code_version() -> str:
    """ "0.1.0+2afed89b" in a clean checkout, with ".edited" behind it where tracked files differ,
    else "0.1.0"."""
    try:
        released = version(MADE_BY)
    except PackageNotFoundError:  # src on the path, not installed
        released = "unreleased"
    commit = _git("rev-parse", "--short=8", "HEAD")
    edited = ".edited" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{released}+{commit}{edited}" if commit else released


def _git(*args: str) -> str:
    here = Path(__file__).parent
    # installed, perhaps inside another project's checkout
    if not (here.parents[1] / ".git").exists():
        return ""
    try:
        return subprocess.run(
            ["git", *args], cwd=here, capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
