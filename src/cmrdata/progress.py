"""Progress of long work: a bar on a terminal; in a log file or a pipe a plain line each tenth or each minute."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY, SHARE = 60.0, 0.1  # seconds, and part of the whole, between two lines


class Bar:
    """Progress through `total` things; use it as a context and call `update` with how many are done since.

    Args:
        total: how many there are.
        desc: what is done to them, e.g. "encode".
        unit: what they are, e.g. "image".
        initial: how many were done before.
        disable: show nothing.
    """

    def __init__(self, *, total: int, desc: str, unit: str, initial: int = 0, disable: bool = False) -> None:
        self.total, self.desc, self.unit, self.done = total, desc, unit, initial
        self._initial, self._shown, self._began = initial, not disable, time.monotonic()
        self._told, self._line_at = self._began, initial
        self._live: Any = None

    def __enter__(self) -> Bar:
        if self._shown and sys.stderr.isatty():
            self._live = _live(self)
        return self

    def update(self, n: int = 1) -> None:
        """`n` more are done."""
        self.done += n
        if self._live is not None:
            self._live.update(self._live.task_ids[0], completed=self.done)
        elif self._shown:
            now = time.monotonic()
            part = self.done - self._line_at >= SHARE * self.total and now - self._told >= 1
            if self.done < self.total and (part or now - self._told >= EVERY):
                self._told, self._line_at = now, self.done
                self._say(self._rest(now))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._shown and self.total > self._initial:
            self._say(f" in {_words(time.monotonic() - self._began)}")

    def _rest(self, now: float) -> str:
        speed = (self.done - self._initial) / max(now - self._began, 1e-9)
        return f", about {_words((self.total - self.done) / speed)} left" if speed > 0 else ""

    def _say(self, more: str) -> None:
        print(f"{self.desc}: {self.done:,} of {self.total:,} {self.unit}s{more}", file=sys.stderr, flush=True)


def _live(bar: Bar) -> Any:
    """A bar of Rich, as Lightning's are; None where another one is on the terminal already."""
    from rich.console import Console
    from rich.errors import LiveError
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(f"{bar.unit}s"),
               TimeElapsedColumn(), TextColumn("•"), TimeRemainingColumn())  # fmt: skip
    live = Progress(*columns, console=Console(stderr=True))
    live.add_task(bar.desc, total=bar.total, completed=bar.done)
    try:
        live.start()
    except LiveError:
        return None
    return live


def _words(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 5 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
