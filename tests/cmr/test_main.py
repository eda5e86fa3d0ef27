"""`cmr` hands over to the command's own file."""

from __future__ import annotations

import sys

import pytest

from cmr import __main__ as program
from support import ROOT


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What this process would have become."""
    words: list[list[str]] = []

    def execv(executable: str, argv: list[str]) -> None:
        assert executable == sys.executable == argv[0]
        words.append(argv[1:])
        raise SystemExit

    monkeypatch.setattr(program.os, "execv", execv)
    return words


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> SystemExit | None:
    monkeypatch.setattr(sys, "argv", ["cmr", *words])
    try:
        program.main()
    except SystemExit as end:
        return end
    return None


def test_a_command_becomes_its_own_file(monkeypatch, become):
    for name in program.COMMANDS:
        typed(monkeypatch, name, "a=1", "--help")
    assert become == [[str(ROOT / f"{name}.py"), "a=1", "--help"] for name in program.COMMANDS]


def test_the_page_is_a_module_where_it_is_installed(monkeypatch, become):
    typed(monkeypatch, "app", "generator=x")
    assert become == [["-m", "cmrgen.app", "generator=x"]]
    monkeypatch.setattr(program, "find_spec", lambda _: None)
    ended = typed(monkeypatch, "app")
    assert "cmr has no command 'app'" in str(ended) and "cmr app" not in program.USAGE
    assert len(become) == 1


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_no_error(monkeypatch, become, capsys, word):
    assert typed(monkeypatch, word) is None and not become
    shown = capsys.readouterr().out
    assert "cmr train experiment=<name>" in shown and "cmr app" in shown


def test_nothing_shows_the_usage_and_a_wrong_word_is_named(monkeypatch, become):
    nothing, wrong = typed(monkeypatch), typed(monkeypatch, "trian")
    assert str(nothing).startswith("cmr <command>") and "error" not in str(nothing)
    assert str(wrong).startswith("error: cmr has no command 'trian'\n\ncmr <command>")
