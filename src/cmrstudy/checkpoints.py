"""Checkpoints from which training continues exactly, within an epoch too; and weights to start
from.

Lightning restores its loops as its own hooks left them, and skips or repeats parts of an epoch
after some of them (2.6: the epoch's plateau scheduler, validation after the last batch, epochs
where max_steps is set). So last.ckpt is written between two batches, and `restart` rewrites the
progress of any checkpoint into a form that Lightning restarts rightly.
"""

from __future__ import annotations

import hashlib
import pickle
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from safetensors.torch import load_file
from torch import Tensor, nn

from cmrdata.disk import replacing
from cmrstudy import dashboards
from cmrstudy.attempts import Attempt
from cmrstudy.continuing import Place, batch_seed, seed_globally

OURS = "cmrstudy"  # our part of a checkpoint
NOTHING, SAVE, TIME = 0, 1, 2  # what a process wishes before a batch; TIME + n: signal n


class Latest(Checkpoint):
    """Writes last.ckpt at every epoch's beginning, at the end, and within epochs; ends attempts
    there.

    It seeds the global generators for every batch, so that dropout draws alike after a restart.
    """

    def __init__(
        self, path: Path, *, attempt: Attempt, seed: int, minutes: float | None, steps: int | None
    ) -> None:
        """Say when last.ckpt is written besides the epochs' ends.

        Args:
            path: of last.ckpt.
            attempt: whose time limit and signals are obeyed.
            seed: the run's.
            minutes: between two checkpoints, None for no limit.
            steps: optimiser steps between two, None for no limit.
        """
        for name, value in (("minutes", minutes), ("steps", steps)):
            if value is not None and (not isinstance(value, int | float) or value <= 0):
                raise ValueError(
                    f"checkpoint.{name}={value}: give a number above 0, or null for no such "
                    "checkpoints"
                )
        self.path, self.attempt, self.seed = path, attempt, seed
        self.minutes, self.steps = minutes, steps
        self.kept: dict[str, Any] = {"metrics": {}, "stop": False, "origin": {}}
        self.place: Place | None = None
        self._saved: tuple[Any, ...] = ()
        self._saved_at = self._first = 0.0

    # what is kept and restored

    def on_save_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint[OURS] = {
            "metrics": self.kept["metrics"] | metrics,
            "stop": trainer.should_stop,
            "origin": self.kept["origin"],
            "rows": dashboards.csv_rows(trainer.loggers),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.place = restart(checkpoint["loops"]["fit_loop"])
        origin = self.kept["origin"]  # where another run's checkpoint is continued
        self.kept |= checkpoint.get(OURS, {})
        self.kept["origin"] = {**self.kept["origin"], **origin}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.place is not None:
            loop = trainer.fit_loop
            loop._restarting = False  # else the epoch ends without its plateau scheduler
            if not self.place.batch:
                # else max_steps makes it skip the epoch's first batch
                loop.epoch_loop.restarting = False
            metrics = {name: torch.tensor(value) for name, value in self.kept["metrics"].items()}
            trainer.callback_metrics.update(metrics)
            trainer.should_stop = self.kept["stop"]
        self._first = trainer.global_step
        self._saved = (trainer.global_step, trainer.current_epoch, False)
        self._saved_at = time.monotonic()
        self.attempt.patient = True
        self.attempt.hold()

    # when

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        seed = batch_seed(
            self.seed, step=trainer.global_step, batch=batch_idx, rank=trainer.global_rank
        )
        seed_globally(seed)
        self._between(trainer, batch_idx, begins=batch_idx == 0)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if trainer.state.fn == "fit" and trainer.validating:
            self._between(trainer, trainer.fit_loop.batch_idx + 1, validates=True)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.attempt.standing = "after the training"
        self._save(trainer, (trainer.global_step, trainer.current_epoch, "ended"))
        self.attempt.patient = False
        if (wish := self._wish(trainer)) > TIME:
            self._end(trainer, wish)

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        self.attempt.patient = False

    def _between(
        self, trainer: L.Trainer, done: int, *, begins: bool = False, validates: bool = False
    ) -> None:
        """Before a batch, with `done` of the epoch trained: write, and end the attempt, if it is
        time to."""
        whole = done in (0, trainer.num_training_batches)
        # its draws aren't ours
        steps = done % trainer.accumulate_grad_batches == 0 and not trainer.overfit_batches
        if not (whole or steps):
            return  # gradients are not kept
        if (wish := self._wish(trainer, due=begins or self._due(trainer, validates))) != NOTHING:
            self._save(trainer, (trainer.global_step, trainer.current_epoch, validates))
        if wish >= TIME:
            self._end(trainer, wish)

    def _wish(self, trainer: L.Trainer, *, due: bool = False) -> int:
        """The greatest of all processes' wishes."""
        own = SAVE if due else NOTHING
        if self.attempt.over() and trainer.global_step > self._first:  # every attempt gets further
            own = TIME
        if self.attempt.received:
            own = TIME + self.attempt.received
        if trainer.world_size == 1:
            return own
        return int(
            trainer.strategy.reduce(
                torch.tensor(own, device=trainer.strategy.root_device), reduce_op="max"
            )
        )

    def _due(self, trainer: L.Trainer, validates: bool) -> bool:
        if self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes:
            return True
        steps = trainer.global_step - self._saved[0]
        return self.steps is not None and steps >= self.steps and not validates

    def _save(self, trainer: L.Trainer, state: tuple[Any, ...]) -> None:
        if state != self._saved and not trainer.fast_dev_run:
            trainer.save_checkpoint(self.path)
            self._saved, self._saved_at = state, time.monotonic()

    def _end(self, trainer: L.Trainer, wish: int) -> None:
        """All processes end together; none before the one whose handler may queue the job again."""
        if trainer.training or trainer.validating:
            self.attempt.standing = standing(trainer)
        error: BaseException | None = None
        try:
            if wish == TIME:
                self.attempt.end_in_time()
            self.attempt.obey(signal.Signals(wish - TIME))
        except BaseException as ended:
            error = ended
        if error is None and not trainer.strategy.reduce_boolean_decision(False, all=False):
            return  # whoever had the signal before only took note of it
        if error is not None:
            trainer.strategy.reduce_boolean_decision(True, all=False)
            raise error
        self.attempt.end("another process of the run ended this attempt")


class Best(ModelCheckpoint):
    """Keeps best.ckpt by a metric; its folder may be moved between two attempts."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = str(Path(str(self.dirpath)) / f"{self.filename}{self.FILE_EXTENSION}")
        if state_dict["best_model_score"] is None or not Path(path).exists():
            return
        score = state_dict["best_model_score"]
        here = {"dirpath": self.dirpath, "best_k_models": {path: score}, "last_model_path": ""}
        super().load_state_dict(
            {**state_dict, **here, "best_model_path": path, "kth_best_model_path": path}
        )


class WholeFiles(TorchCheckpointIO):
    """A checkpoint is whole or not there: written beside its place, seen on the disk, then renamed.

    Lightning's own is written below /tmp, and copied where that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            torch.save(checkpoint, file)


def remove_torn(folder: Path) -> None:
    """Delete what a killed attempt was writing into a run's checkpoints."""
    for path in folder.glob(".*.ckpt.*"):
        path.unlink(missing_ok=True)


def standing(trainer: L.Trainer) -> str:
    """Where a training is, for a sentence."""
    steps = f" of {trainer.max_steps:,}" if trainer.max_steps > 0 else ""
    epochs = f" of {trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
    return f"at step {trainer.global_step:,}{steps}, in epoch {trainer.current_epoch + 1}{epochs}"


def place_of(checkpoint: Mapping[str, Any]) -> Place:
    """From where a training goes on with a checkpoint."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs, batches = loops["epoch_progress"]["current"], loops["epoch_loop.batch_progress"]
    current = batches["current"]
    if epochs["started"] == epochs["processed"]:
        return Place(epochs["processed"])
    # within on_train_batch_end
    if batches["is_last_batch"] and current["completed"] < current["processed"]:
        return Place(epochs["processed"] + 1)
    return Place(epochs["processed"], current["processed"])


def restart(loops: dict[str, Any]) -> Place:
    """Rewrite the saved progress of Lightning's fit loop, in place, so that it restarts rightly;
    gives the place.

    Three forms are right: an epoch's beginning; between two batches, as after on_train_batch_end;
    before a validation, as within its first batch.
    """
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    validated = loops["epoch_loop.val_loop.batch_progress"]
    place = place_of({"loops": {"fit_loop": loops}})
    validates = validated["current"]["ready"] > validated["current"]["completed"]
    # on_train_batch_start of the next batch
    ahead = batches["current"]["ready"] > batches["current"]["processed"]
    if not place.batch:
        _set(epochs["total"], place.epoch)
        _set(epochs["current"], place.epoch)
        _set(batches["total"], batches["total"]["processed"])
        _set(batches["current"], 0)
        batches["is_last_batch"] = False
    elif validates:
        for counts in (validated["total"], validated["current"]):
            _set(counts, 0)
            counts["ready"] = counts["started"] = 1
        return place
    elif ahead:
        for counts in (batches["total"], batches["current"]):
            _set(counts, counts["processed"])
            counts["completed"] -= 1
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
        batches["is_last_batch"] = False
    else:
        return place
    _set(validated["total"], 0)
    _set(validated["current"], 0)
    return place


def _set(counts: dict[str, int], value: int) -> None:
    counts.update(dict.fromkeys(counts, value))


# weights and checkpoints of other runs


def read_checkpoint(path: Path, *, source: str) -> dict[str, Any]:
    """A .ckpt or .safetensors file on the CPU, without running what may be in it; ValueError if it
    can't be read.

    `source` names it in messages, with the setting that asked for it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{source}: {path} is not there")
    try:
        if path.suffix == ".safetensors":
            return {"state_dict": load_file(path)}
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{source}: it holds more than tensors and plain values, and reading those could run "
            "any code; give a .safetensors file, or a checkpoint of this program"
        ) from None
    except Exception as error:  # torch and safetensors have many
        raise ValueError(
            f"{source}: damaged, or no file of weights ({type(error).__name__})"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict", {}), dict):
        raise ValueError(f"{source}: it holds no weights by name")
    return content if "state_dict" in content else {"state_dict": content}


def resumable(path: Path, module: nn.Module, *, source: str) -> dict[str, Any]:
    """A checkpoint that continues the training of `module`; ValueError naming what is missing or
    doesn't fit."""
    checkpoint = read_checkpoint(path, source=source)
    if not {"loops", "optimizer_states", "lr_schedulers", "callbacks"} <= checkpoint.keys():
        raise ValueError(
            f"{source}: it holds weights, but no state of a training to continue; weights={path} "
            "starts from them"
        )
    check_fits(module, checkpoint["state_dict"], source=source)
    return checkpoint


def check_fits(network: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Raise ValueError unless `state` has the network's names and shapes, naming the first that
    differ."""
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    if own.keys().isdisjoint(given):
        raise ValueError(
            f"{source}: it holds another kind of network, {_some(given)} instead of {_some(own)}"
        )
    differ = [
        f"{name} {given[name]} instead of {own[name]}"
        for name in own
        if given.get(name, own[name]) != own[name]
    ]
    missing, foreign = own.keys() - given.keys(), given.keys() - own.keys()
    if differ or missing or foreign:
        told = [
            *differ[:3],
            *([f"without {_some(missing)}"] * bool(missing)),
            *([f"with {_some(foreign)}"] * bool(foreign)),
        ]
        raise ValueError(
            f"{source}: its weights don't fit the network of these settings: {'; '.join(told)}"
        )


def _some(names: Any) -> str:
    several = sorted(names)
    return ", ".join(several[:2]) + (f" and {len(several) - 2} more" if len(several) > 2 else "")


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """Hash of weights by name."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
