"""A training told in lines, for log files and pipes: one per epoch with its metrics, more where an
epoch is long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.callbacks import ProgressBar

from cmrdata.counting import number_of
from cmrdata.progress import OFTEN, Lines, on_terminal, spell


class EpochLines(ProgressBar):
    """Lightning's progress bar where nothing can be redrawn.

    Args:
        clock: seconds.
        write: takes a line; prints it by default.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__()
        self.clock, self.write, self.shown = (
            clock,
            write or (lambda line: print(line, flush=True)),
            True,
        )
        self.begun, self.step = self.clock(), 0
        self.lines: Lines | None = None

    def disable(self) -> None:
        """Called by Lightning in all processes but the first."""
        self.shown = False

    def enable(self) -> None:
        self.shown = True

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        """Where a training goes on within an epoch, no epoch starts before this one ends."""
        self.begun, self.step = self.clock(), trainer.global_step

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        self.begun, self.step, self.lines = self.clock(), trainer.global_step, None
        total = self.total_train_batches
        if self.shown and isinstance(total, int) and total > 0:
            name = self._epoch(trainer)
            self.lines = Lines(
                name, total=total, unit="batches", write=self.write, soonest=OFTEN, clock=self.clock
            )

    def on_train_batch_end(self, *_: Any) -> None:
        if self.lines:
            self.lines.advance()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not self.shown:
            return
        metrics = {**trainer.callback_metrics}
        told = [
            f"{name} {float(value):.3f}"
            for name, value in metrics.items()
            if not name.endswith(("_step", "_epoch"))
        ]
        steps = trainer.global_step - self.step
        self.write(
            ", ".join(
                [
                    f"{self._epoch(trainer)}: {number_of(steps, 'steps')} in "
                    f"{spell(self.clock() - self.begun)}",
                    *told,
                ]
            )
        )

    def _epoch(self, trainer: Any) -> str:
        last = trainer.max_epochs
        return f"epoch {trainer.current_epoch + 1}" + (f" of {last}" if last and last > 0 else "")


def epoch_lines(callbacks: Sequence[Any], *, bars: bool | None = None) -> list[EpochLines]:
    """What a training needs beside these callbacks to be told in a log file: nothing on a terminal,
    or with a bar of theirs.

    Args:
        callbacks: those that the trainer gets anyway.
        bars: trainer.enable_progress_bar; False wants silence.
    """
    own = any(isinstance(callback, ProgressBar) for callback in callbacks)
    return [] if bars is False or own or on_terminal(sys.stdout) else [EpochLines()]
