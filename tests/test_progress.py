"""Bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import pytest

from cmrdata import progress
from cmrdata.progress import Bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """A clock that is set by hand."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_long_loop_writes_little_into_a_pipe(capfd, clock):
    with Bar(total=100_000, desc="encode", unit="image") as bar:
        for _ in range(100_000):
            clock[0] += 0.01
            bar.update()
    lines = capfd.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 27 and all("\r" not in line for line in lines)
    assert lines[-1] == "encode: 100,000 of 100,000 images in 17 min"
    assert any(line.endswith("images, about 8 min left") for line in lines)


def test_slow_work_says_that_it_lives_each_minute(capfd, clock):
    with Bar(total=1000, desc="render", unit="image") as bar:
        for _ in range(9):
            clock[0] += 30
            bar.update()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[0] == "render: 2 of 1,000 images, about 8 h 19 min left"


def test_short_work_writes_one_line_and_none_where_nothing_was_to_be_done(capfd, clock):
    with Bar(total=100, desc="read", unit="subject") as bar:
        bar.update(100)
    with Bar(total=100, desc="read", unit="subject", initial=100):
        pass
    with Bar(total=100, desc="read", unit="subject", disable=True) as bar:
        bar.update(50)
    assert capfd.readouterr().err == "read: 100 of 100 subjects in 0 s\n"


def test_continued_work_counts_what_was_there_but_not_in_its_speed(capfd, clock):
    with Bar(total=100, desc="read", unit="subject", initial=80) as bar:
        clock[0] += 10
        bar.update(10)
    assert capfd.readouterr().err.splitlines()[0] == "read: 90 of 100 subjects, about 10 s left"


def test_a_terminal_gets_a_bar_and_a_second_one_at_once_gives_lines(monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Bar(total=10, desc="outer", unit="thing") as outer:
        outer.update(5)
        assert outer._live is not None and outer._live.tasks[0].completed == 5
    assert "outer" in capsys.readouterr().err
