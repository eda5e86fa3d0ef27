"""Progress: bars on a terminal, few plain lines in a log file, one look for all, and trainings told
by the epoch."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from cmrdata import progress
from cmrdata.progress import OFTEN, SOONEST, Lines, bar, each, spell
from support import ROOT
from support.clock import Clock

SRC = ROOT / "src"


def told(*, units: int, seconds: float, done: int = 0, **options) -> list[str]:
    """The lines of a loop that takes so many seconds, evenly."""
    clock, lines = Clock(), []
    shown = Lines(
        "prepare acdc",
        total=units,
        unit="subjects",
        done=done,
        write=lines.append,
        clock=clock,
        **options,
    )
    for _ in range(units - done):
        clock.now += seconds / (units - done)
        shown.advance()
    shown.end()
    return lines


def test_a_loop_of_seconds_is_one_line():
    assert told(units=1200, seconds=4) == ["prepare acdc: 1,200 subjects in 0:04"]


def test_a_loop_of_minutes_is_told_each_tenth():
    lines = told(units=1000, seconds=100)
    assert (
        len(lines) == 10
        and lines[0] == "prepare acdc: 100 of 1,000 subjects, 0:10, about 1:30 left"
    )
    assert lines[-1] == "prepare acdc: 1,000 subjects in 1:40"


@pytest.mark.parametrize("hours", [1, 24, 24 * 7])
def test_a_day_in_a_log_file_is_some_kilobytes(hours):
    lines = told(units=40_000, seconds=3600.0 * hours)
    assert 20 < len(lines) < 200 and sum(len(line) + 1 for line in lines) < 15_000
    waits = [spoken(line) for line in lines]
    assert max(b - a for a, b in zip(waits, waits[1:], strict=False)) <= max(
        120, 0.06 * 3600 * hours
    )


def spoken(line: str) -> int:
    parts = [int(part) for part in re.findall(r"(?:, | in )([\d:]+)", line)[0].split(":")]
    return sum(part * 60**k for k, part in enumerate(reversed(parts)))


def test_a_continued_loop_says_what_was_there_and_judges_by_its_own_speed():
    lines = told(units=1000, seconds=100, done=500)
    assert lines[0] == "prepare acdc: 600 of 1,000 subjects, 0:20, about 1:20 left"
    assert lines[-1] == "prepare acdc: 1,000 subjects in 1:40, 500 of them there before"


def test_bytes_are_shown_as_such():
    out = io.StringIO()
    with bar("sha256 of sd21.ckpt", total=5 * 10**9, unit="B", stream=out) as advance:
        advance(5 * 10**9)
    assert out.getvalue() == "sha256 of sd21.ckpt: 5.0 GB in 0:00\n"


def test_nothing_to_do_and_a_loop_that_fails_end_without_a_line():
    out = io.StringIO()
    with bar("render", total=0, unit="images", stream=out) as advance:
        advance(1)
    with pytest.raises(KeyError), bar("render", total=3, unit="images", stream=out):
        raise KeyError
    assert out.getvalue() == ""


def test_each_gives_the_items_and_tells_of_them(capsys):
    assert list(each("abc", "letters", total=3, unit="letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "letters: 3 letters in 0:00\n"


def test_times_are_spelt_as_clocks_do():
    assert [spell(s) for s in (0, 7.4, 61, 3600, 36_723)] == [
        "0:00",
        "0:07",
        "1:01",
        "1:00:00",
        "10:12:03",
    ]


LOOP = """
    import sys, time
    from cmrdata.progress import bar, each
    with bar("prepare acdc", total=40, done=10, unit="subjects") as advance:
        for k in range(30):
            if k == 9:
                print("a line between")
                list(each(range(8), "within", total=8, unit="steps"))
            time.sleep(0.02)
            advance(1)
"""


def test_a_terminal_gets_a_bar_with_a_second_one_below_it_and_lines_above():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONPATH": str(SRC)}
    environment.pop("LOCAL_RANK", None)
    code = [sys.executable, "-c", textwrap.dedent(LOOP)]
    ended = subprocess.run(
        code, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text.decode())
    assert (
        ended.returncode == 0
        and "━" in shown
        and "40/40 subjects" in shown
        and "8/8 steps" in shown
    )
    assert "a line between\r\n" in shown


def test_a_pipe_gets_a_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOOP)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SRC), "FORCE_COLOR": "1"},
        check=True,
    )
    assert ended.stdout == "a line between\n"
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("within: 8 steps in 0:0") and lines[1].startswith(
        "prepare acdc: 40 subjects in 0:0"
    )
    assert len(lines) == 2 and "\r" not in ended.stderr and "\x1b" not in ended.stderr


def test_only_this_module_draws_bars():
    files = [path for path in SRC.rglob("*.py") if path.name != "progress.py"]
    assert not [
        path
        for path in files
        if re.search(r"\btqdm\(|rich\.progress|import tqdm", path.read_text())
    ]


# trainings


def test_a_further_process_draws_no_bar_and_names_itself(monkeypatch):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert progress.on_terminal(terminal)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not progress.on_terminal(terminal)
    assert told(units=3, seconds=1)[-1].startswith("[1] prepare acdc: 3 subjects")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("TERM", "dumb")
    assert not progress.on_terminal(terminal)


def test_lines_by_the_clock():
    """Every tenth, if the last line is some seconds ago, or a minute without one."""
    clock, lines = Clock(), []
    shown = Lines("read", total=100, unit="files", done=20, write=lines.append, clock=clock)

    def after(seconds: float, count: int) -> list[str]:
        clock.now += seconds
        shown.advance(count)
        told = lines.copy()
        lines.clear()
        return told

    assert after(SOONEST - 1, 20) == []  # a tenth, too soon
    assert after(1, 0) == [
        f"read: 40 of 100 files, {spell(SOONEST)}, about {spell(3 * SOONEST)} left"
    ]
    assert after(SOONEST, 5) == []  # no whole tenth
    assert after(0, 5) == [
        f"read: 50 of 100 files, {spell(2 * SOONEST)}, about {spell(2 * SOONEST * 50 / 30)} left"
    ]
    assert after(OFTEN - 0.5, 1) == [] and len(after(0.5, 1)) == 1
    assert after(1000, 48) == []  # the end has a line of its own
    shown.end()
    assert lines == [
        f"read: 100 files in {spell(2 * SOONEST + OFTEN + 1000)}, 20 of them there before"
    ]


def test_times_are_rounded_to_seconds():
    for seconds, text in (
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.4, "59:59"),
        (3600, "1:00:00"),
        (36061, "10:01:01"),
    ):
        assert spell(seconds) == text
