"""Lightning's fit, resumable and logged: one function for every training, whatever its module and
data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.callbacks import Callback, LambdaCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from cmrdata.disk import write_atomic
from cmrstudy import dashboards, memory
from cmrstudy.announce import COMPILES
from cmrstudy.attempts import Attempt
from cmrstudy.checkpoints import (
    OURS,
    Best,
    Latest,
    WholeFiles,
    fingerprint_of,
    place_of,
    read_checkpoint,
    remove_torn,
    resumable,
)
from cmrstudy.continuing import Place
from cmrstudy.epoch_lines import epoch_lines

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
PRECISIONS = ("32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16", "None")
# where null means nothing to Lightning
DEFAULTED = ("max_steps", "overfit_batches", "fast_dev_run", "detect_anomaly")
OWN = {  # keys of Lightning's Trainer that the run decides
    "logger": "choose with logger=",
    "default_root_dir": "it is run_dir",
}
REFUSED = {  # callbacks by name, and why
    "Timer": (
        "it ends a training as if it were finished; trainer.max_time=00:03:00:00 ends the attempt"
    ),
    "StochasticWeightAveraging": (
        "its weights are put in place after the last checkpoint, so nothing would use them"
    ),
    "BatchSizeFinder": "it changes the settings of a run while it runs; give data.batch_size",
    "LearningRateFinder": (
        "it changes the settings of a run while it runs; give model.lr, or search with "
        "hydra/sweeper=tune"
    ),
}


def fit(
    module: L.LightningModule,
    *,
    folder: Path,
    data: Any,
    trainer: Mapping[str, Any],
    attempt: Attempt,
    seed: int = 0,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    settings: Mapping[str, Any] | None = None,
    minutes: float | None = 10,
    steps: int | None = None,
    monitor: str | None = None,
    divide: bool = False,
    ckpt_path: Path | None = None,
    weights: Callable[[], str] | None = None,
) -> tuple[L.Trainer, dict[str, Any]]:
    """Train a module to its end, continuing what an earlier attempt left in `folder`.

    Args:
        module: what is trained.
        folder: checkpoints/last.ckpt below it is continued from; profiles are written there.
        data: a LightningDataModule that begins its draws at `data.begin`, a Place, which is set
            here.
        trainer: arguments of lightning.Trainer; a dry run with fast_dev_run, which reads and writes
            no checkpoint.
        attempt: its time limit and signals end the training.
        seed: the run's.
        loggers: who gets the metrics.
        callbacks: further ones, beside those of `trainer`.
        settings: the run's config, as the loggers may have it.
        minutes: between checkpoints within an epoch, None: without a limit.
        steps: the same in optimiser steps.
        monitor: metric whose maximum decides on checkpoints/best.ckpt; None: there is none.
        divide: data.batch_size is that of all processes together.
        ckpt_path: of another run, or its folder, to continue from where `folder` holds no
            checkpoint.
        weights: puts other weights into the module before the first step, and gives their
            fingerprint.

    Returns:
        The trainer, and the last metrics as plain numbers; among them `stopped` (a sentence) where
        the training ended before its last epoch, and the fingerprints of what it started from.

    Raises:
        ValueError: for settings that Lightning refuses or that a run can't have, and where nothing
            is trained.
        cmrstudy.memory.OutOfMemory: with what takes less; a module may name more of it as
        `module.lighter`. cmrstudy.attempts.Ended: which the attempt turns into
        plain_errors.AttemptEnded.
    """
    attempt.standing = "before the first step"
    asked = getattr(data, "batch_size", 1)
    options, given = checked(trainer)
    dry = bool(options.get("fast_dev_run"))
    kept = folder / "checkpoints"
    latest = Latest(kept / "last.ckpt", attempt=attempt, seed=seed, minutes=minutes, steps=steps)
    best = (
        [Best(kept, filename="best", monitor=monitor, mode="max", enable_version_counter=False)]
        if monitor
        else []
    )
    check_watched(module, [*callbacks, *given], options)
    start = beginning(module, latest, ckpt_path=ckpt_path, weights=weights, dry=dry)
    tell = LambdaCallback(
        on_fit_start=lambda fitter, _: dashboards.describe(fitter.loggers, dict(settings or {})),
        on_train_start=tell_compiling,
    )
    lines = epoch_lines([*callbacks, *given], bars=options.get("enable_progress_bar"))
    with plainly():
        fitter = L.Trainer(
            **profiled(options, folder),
            logger=[DummyLogger()] if dry else list(loggers),
            callbacks=[*([] if dry else [*best, tell, *lines]), *callbacks, *given, latest],
            default_root_dir=folder,
        )
    # Lightning forgets it where it is a duration; EarlyStopping asks
    if not hasattr(fitter, "val_check_interval"):
        fitter.val_check_interval = None
    if start:
        data.begin = start.place
        if start.path != latest.path:
            check_unfinished(fitter, start)
    if fitter.is_global_zero:
        if start:
            continues(folder, start, loggers)
        remove_torn(kept)
    if divide:
        data.batch_size = batch_share(
            data.batch_size, processes=fitter.num_devices * fitter.num_nodes
        )
    precision = str(options.get("precision") or "32-true")
    too_large = too_little_memory(
        folder, module, data, fitter, batch_size=asked, precision=precision
    )
    with plainly(), memory.explained(too_large):
        fitter.fit(module, datamodule=data, ckpt_path=start and start.path, weights_only=True)
    if not fitter.global_step:
        raise ValueError(
            f"{folder}: nothing was trained, since an epoch holds no whole batch; give a smaller "
            "data.batch_size, more images, or a larger trainer.limit_train_batches"
        )
    return fitter, outcome(fitter, latest, folder) | {
        f"best_{keeper.monitor}": score(keeper) for keeper in best
    }


def too_little_memory(
    folder: Path,
    module: L.LightningModule,
    data: Any,
    fitter: L.Trainer,
    *,
    batch_size: int,
    precision: str,
) -> Callable[..., str]:
    """What to say where a training needs more memory than there is: sizes, and what takes less."""
    return partial(
        memory.of_training,
        f"{folder}",
        setting=getattr(data, "batch_setting", "data.batch_size"),
        batch_size=batch_size,
        accumulated=fitter.accumulate_grad_batches,
        precision=precision,
        lighter=getattr(module, "lighter", ""),
    )


def tell_compiling(fitter: L.Trainer, module: L.LightningModule) -> None:
    """Say why the first step is silent, where a network is compiled in it."""
    if fitter.is_global_zero and any(part._compiled_call_impl for part in module.modules()):
        print(COMPILES, flush=True)


class Start(NamedTuple):
    """A checkpoint to continue from: where it is, which place it holds, optimiser steps and rows of
    metrics.csv so far."""

    path: Path
    place: Place
    step: int
    rows: int | None


def beginning(
    module: L.LightningModule,
    latest: Latest,
    *,
    ckpt_path: Path | None,
    weights: Callable[[], str] | None,
    dry: bool,
) -> Start | None:
    """The checkpoint to continue from; None to begin anew (as a dry run does), with other weights
    where asked for.

    What a run has started from goes on in its checkpoints, so a continued run knows it too.
    """
    if ckpt_path and weights:
        raise ValueError(
            "ckpt_path and weights: give the one to continue a training, or the other to start a "
            "new one"
        )
    if latest.path.exists() and not dry:
        path = latest.path
        checkpoint = read_checkpoint(
            path, source=f"{path} (delete it, and the training begins anew)"
        )
    elif ckpt_path:
        path = ckpt_path / "checkpoints" / "last.ckpt" if ckpt_path.is_dir() else ckpt_path
        checkpoint = resumable(path, module, source=f"ckpt_path={path}")
        latest.kept["origin"] = {"ckpt_fingerprint": fingerprint_of(checkpoint["state_dict"])}
    else:
        if weights:
            latest.kept["origin"] = {"weights_fingerprint": weights()}
        return None
    rows = checkpoint.get(OURS, {}).get("rows")
    return None if dry else Start(path, place_of(checkpoint), checkpoint["global_step"], rows)


def check_unfinished(fitter: L.Trainer, start: Start) -> None:
    """Raise ValueError if the checkpoint of another run is already where this one shall end."""
    if 0 <= (fitter.max_epochs or -1) <= start.place.epoch or 0 <= fitter.max_steps <= start.step:
        raise ValueError(
            f"ckpt_path={start.path}: it stands after {start.place.epoch} epochs, {start.step} "
            "steps, which leaves nothing to train; give more than "
            f"trainer.max_epochs={fitter.max_epochs}, trainer.max_steps={fitter.max_steps}"
        )


def continues(folder: Path, start: Start, loggers: Sequence[Logger]) -> None:
    """Tell where a training goes on, and give this run what went before: rows of metrics.csv,
    another run's best epoch."""
    print(f"{folder}: goes on at step {start.step:,}, in epoch {start.place.epoch + 1}")
    for logger in loggers:
        dashboards.continue_csv(logger, step=start.step, rows=start.rows)
    kept, best = folder / "checkpoints", start.path.with_name("best.ckpt")
    if start.path.parent != kept and best.is_file():
        kept.mkdir(parents=True, exist_ok=True)
        write_atomic(kept / best.name, best.read_bytes())


def outcome(fitter: L.Trainer, latest: Latest, folder: Path) -> dict[str, Any]:
    """The last metrics, why the training stopped early, what it started from; a resumed run that
    was done has them too."""
    last = {**latest.kept["metrics"], **fitter.callback_metrics}
    metrics: dict[str, Any] = {name: round(float(value), 5) for name, value in last.items()}
    if reason := stopped(fitter):
        if fitter.is_global_zero:
            print(f"{folder}: {reason}")
        metrics["stopped"] = reason
    return {**metrics, **latest.kept["origin"]}


def score(best: Best) -> float:
    """The best value of what it monitors; NaN where there was none."""
    value = best.best_model_score
    return round(float(value), 5) if value is not None and value.isfinite() else float("nan")


def checked(trainer: Mapping[str, Any]) -> tuple[dict[str, Any], list[Callback]]:
    """Lightning's arguments as a run takes them, and the callbacks among them; ValueError for what
    it can't have."""
    left_out = {"callbacks", "max_time", *(name for name in DEFAULTED if trainer.get(name) is None)}
    options = {name: value for name, value in trainer.items() if name not in left_out}
    for name, instead in OWN.items():
        if name in options:
            raise ValueError(f"trainer.{name}: a run has its own; {instead}")
    if options.get("enable_checkpointing") is False or options.get("barebones"):
        raise ValueError(
            "trainer.enable_checkpointing=false, trainer.barebones=true: a run can't do without "
            "checkpoints"
        )
    for name in ("max_epochs", "max_steps", "limit_train_batches"):
        if options.get(name) == 0:
            raise ValueError(f"trainer.{name}=0: nothing would be trained; give more, or null")
    dry = options.get("fast_dev_run")
    for unit in ("epochs", "steps"):
        least, most = options.get(f"min_{unit}") or 0, options.get(f"max_{unit}") or -1
        if most > 0 and least > most:
            raise ValueError(
                f"trainer.min_{unit}={least}: more than trainer.max_{unit}={most}; give at most "
                "that"
            )
    if not _all(options.get("limit_predict_batches")) and not dry:
        raise ValueError(
            f"trainer.limit_predict_batches={options['limit_predict_batches']}: predictions of "
            "some subjects would pass for those of all; trainer.fast_dev_run=true predicts a "
            "batch of each split and keeps nothing"
        )
    if str(options.get("precision")) not in PRECISIONS:
        raise ValueError(
            f"trainer.precision={options['precision']}: weights stay in single precision here; "
            "give 32-true, bf16-mixed or 16-mixed"
        )
    if options.get("accumulate_grad_batches", 1) < 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches={options['accumulate_grad_batches']}: give at least 1"
        )
    if not _all(options.get("limit_test_batches")):
        print(
            "trainer.limit_test_batches changes nothing: test subjects are predicted, and a run "
            "predicts all of them"
        )
    plugins = options.get("plugins") or []
    options["plugins"] = [
        *(plugins if isinstance(plugins, list | tuple) else [plugins]),
        WholeFiles(),
    ]
    return options, accepted(trainer.get("callbacks"))


def _all(limit: float | None) -> bool:
    """Does a limit of batches leave all? 1 is one batch, 1.0 all of them."""
    return limit is None or (isinstance(limit, float) and limit == 1)


def accepted(
    callbacks: Callback | Sequence[Callback] | Mapping[str, Callback] | None,
) -> list[Callback]:
    """One callback, several, or several by name, as a list; ValueError for those that don't work
    here."""
    if isinstance(callbacks, Mapping):
        callbacks = list(callbacks.values())
    several = (
        [callbacks]
        if isinstance(callbacks, Callback)
        else [each for each in callbacks or [] if each is not None]
    )
    for callback in several:
        for name, why in REFUSED.items():
            if name in [kind.__name__ for kind in type(callback).__mro__]:
                raise ValueError(f"callbacks: {type(callback).__name__} does not work here: {why}")
    return several


def check_watched(
    module: L.LightningModule, callbacks: Sequence[Callback], options: Mapping[str, Any]
) -> None:
    """Raise ValueError for a callback that watches a metric (of those in `module.logs`) which there
    won't be."""
    logged = getattr(module, "logs", None)
    for callback in callbacks:
        metric, kind = getattr(callback, "monitor", None), type(callback).__name__
        if metric is None or logged is None:
            continue
        if metric not in logged:
            raise ValueError(
                f"callbacks: {kind} watches {metric}, which {type(module).__name__} does not log; "
                f"there are {', '.join(logged)}"
            )
        if metric.startswith("val") and options.get("limit_val_batches") == 0:
            raise ValueError(
                f"callbacks: {kind} watches {metric}, but trainer.limit_val_batches=0 leaves no "
                "validation"
            )


def profiled(options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments with a profiler that writes into the run's folder; Lightning's own default
    writes to its log."""
    profiler = options.get("profiler")
    if isinstance(profiler, str):
        if profiler not in PROFILERS:
            raise ValueError(
                f"trainer.profiler={profiler}: give one of {', '.join(PROFILERS)}, or a class by "
                "_target_"
            )
        profiler = PROFILERS[profiler]()
    if isinstance(profiler, Profiler):
        profiler.dirpath, profiler.filename = (
            profiler.dirpath or folder,
            profiler.filename or "profile",
        )
    return {**options, "profiler": profiler}


@contextmanager
def plainly() -> Iterator[None]:
    """What Lightning says of settings that can't be, as a ValueError."""
    try:
        yield
    except MisconfigurationException as error:
        text = " ".join(str(error).split()).rstrip("!.")
        cure = (
            "; trainer=auto takes whatever this machine has"
            if "backend" in text or "CUDA" in text
            else ""
        )
        raise ValueError(f"trainer: {text}{cure}") from error
    except ModuleNotFoundError as error:  # a callback's or a profiler's
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error


def batch_share(batch_size: int, *, processes: int) -> int:
    """Images that each process takes of a batch, so that a step is the same whatever the number of
    processes."""
    if batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size} can't be divided among {processes} processes; give a "
            f"multiple of {processes}, or another trainer.devices"
        )
    return batch_size // processes


def stopped(fitter: L.Trainer) -> str | None:
    """Why training ended before its last epoch or step, in a sentence; None if it did not."""
    epochs, steps = fitter.max_epochs or -1, fitter.max_steps
    if 0 < epochs <= fitter.current_epoch or 0 < steps <= fitter.global_step:
        return None
    reasons = [getattr(callback, "stopping_reason_message", None) for callback in fitter.callbacks]
    reason = next(filter(None, reasons), "a callback asked for it")
    if epochs > 0:
        return f"stopped early, after {fitter.current_epoch} of {epochs} epochs: {reason}"
    return (
        f"stopped early, after {fitter.global_step} {f'of {steps} ' if steps > 0 else ''}steps: "
        f"{reason}"
    )
