"""How far a long loop is: a bar on a terminal, like Lightning's; in a log file or a pipe a plain
line now and then.

A line comes with each tenth of the work, a minute apart at most while the work is young and at
least five seconds, and at the end: a day in a SLURM log is some kilobytes. Nothing else in the
project draws bars.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

from cmrdata.counting import number_of
from cmrdata.disk import in_words

COLOUR = "#6206E0"  # of Lightning's bars
SOONEST = 5.0  # seconds between two lines, at least
# seconds without a tenth done, and the same as a share of the time so far
OFTEN, SHARE = 60.0, 0.05
Item = TypeVar("Item")
_live: list[Any] = []  # the bars' display on a terminal, while there is one


@contextmanager
def bar(
    what: str,
    *,
    total: int,
    unit: str,
    done: int = 0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[int], None]]:
    """Shows how far a loop is; call what is yielded with the number of units that have just been
    done.

    Args:
        what: the work, e.g. "prepare acdc".
        total: units of the whole; nothing is shown of none.
        unit: what they are, in the plural, e.g. "subjects"; "B" is shown as MB and GB.
        done: units that an earlier attempt has done.
        stream: where to; standard error.
        clock: seconds.
    """
    out = stream or sys.stderr
    if total <= 0:
        yield lambda count: None
    elif on_terminal(out):
        with _drawn(what, total=total, unit=unit, done=done, stream=out) as advance:
            yield advance
    else:
        lines = Lines(
            what,
            total=total,
            unit=unit,
            done=done,
            write=lambda line: print(line, file=out, flush=True),
            clock=clock,
        )
        yield lines.advance
        lines.end()


def each(items: Iterable[Item], what: str, *, total: int, unit: str) -> Iterator[Item]:
    """The items one after the other, with a `bar`.

    Args:
        items: anything.
        what: the work, e.g. "read predictions".
        total: number of the items.
        unit: what they are, in the plural.
    """
    with bar(what, total=total, unit=unit) as advance:
        for item in items:
            yield item
            advance(1)


def on_terminal(stream: TextIO) -> bool:
    """Whether bars can be drawn: by the only process of a command, on a terminal that can move its
    cursor."""
    alone = (
        multiprocessing.current_process().name == "MainProcess"
        and os.environ.get("LOCAL_RANK", "0") == "0"
    )
    return alone and stream.isatty() and os.environ.get("TERM") != "dumb"


class Lines:
    """Plain lines about a loop, few enough for a log file."""

    def __init__(
        self,
        what: str,
        *,
        total: int,
        unit: str,
        write: Callable[[str], None],
        done: int = 0,
        soonest: float = SOONEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rank = os.environ.get("LOCAL_RANK", "0")
        self.what, self.total, self.unit = what if rank == "0" else f"[{rank}] {what}", total, unit
        self.first = self.done = done
        self.write, self.soonest, self.clock = write, soonest, clock
        self.begun = self.last = clock()
        self.tenth = 10 * done // total

    def advance(self, count: int = 1) -> None:
        """So many units more are done."""
        self.done += count
        now = self.clock()
        tenth = 10 * self.done // self.total
        waited, usual = now - self.last, max(OFTEN, SHARE * (now - self.begun))
        if self.done < self.total and (
            waited >= usual or tenth > self.tenth and waited >= self.soonest
        ):
            self.last, self.tenth = now, tenth
            left = (now - self.begun) / max(1, self.done - self.first) * (self.total - self.done)
            self.write(
                f"{self.what}: {_count(self.done, self.unit)} of "
                f"{_of_unit(self.total, self.unit)}, {spell(now - self.begun)}, about "
                f"{spell(left)} left"
            )

    def end(self) -> None:
        """The work is over, all of it or as much as there was."""
        there = f", {_count(self.first, self.unit)} of them there before" if self.first else ""
        line = f"{self.what}: {_of_unit(self.done, self.unit)}"
        self.write(f"{line} in {spell(self.clock() - self.begun)}{there}")


def spell(seconds: float) -> str:
    """ "0:07", "12:30", "1:02:03"."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _of_unit(number: int, unit: str) -> str:
    return in_words(number) if unit == "B" else number_of(number, unit)


def _count(number: int, unit: str) -> str:
    if unit != "B":
        return f"{number:,}"
    return in_words(number)


@contextmanager
def _drawn(
    what: str, *, total: int, unit: str, done: int, stream: TextIO
) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; one within another is a line below it."""
    if _live:
        yield _advance(_live[-1], what, total=total, unit=unit, done=done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Done(ProgressColumn):
        def render(self, task: Task) -> Text:
            of = task.fields["unit"]
            return Text(f"{_count(int(task.completed), of)}/{_of_unit(int(task.total or 0), of)}")

    class Times(ProgressColumn):
        def render(self, task: Task) -> Text:
            passed = task.finished_time if task.finished else task.elapsed
            ends = [
                "-:--" if seconds is None else spell(seconds)
                for seconds in (passed, task.time_remaining)
            ]
            return Text(" • ".join(ends), style="dim")

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed, of = task.finished_speed or task.speed or 0.0, task.fields["unit"]
            return Text(
                f"{_count(int(speed), of)}/s" if of == "B" else f"{speed:.2f}/s",
                style="dim underline",
            )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(complete_style=COLOUR, finished_style=COLOUR, pulse_style=COLOUR),
        Done(),
        Times(),
        Speed(),
    ]
    progress = Progress(*columns, console=Console(file=stream), redirect_stdout=sys.stdout.isatty())
    with progress:
        _live.append(progress)
        try:
            yield _advance(progress, what, total=total, unit=unit, done=done)
        finally:
            _live.remove(progress)


def _advance(shown: Any, what: str, *, total: int, unit: str, done: int) -> Callable[[int], None]:
    """A new bar among those shown, and what moves it on."""
    task = shown.add_task(what, total=total, completed=done, unit=unit)

    def advance(count: int = 1) -> None:
        shown.advance(task, count)

    return advance
