"""The folder in which what is computed from a set is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from cmrdata.caches import cache_folder
from cmrdata.disk import Unwritable


def test_what_a_closed_store_holds_already_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    (own / "a").write_text("")
    monkeypatch.setattr(
        tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(PermissionError(13, "denied"))
    )
    assert cache_folder([own, other], "a", what="things") == own
    with pytest.raises(
        Unwritable, match=rf"{own} cannot be written \(denied\); {other} .*: things have no place"
    ):
        cache_folder([own, other], "a", "b", what="things")


def test_the_first_writable_folder_is_taken_and_hidden_from_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other, inner = tmp_path / "own", tmp_path / "other", tempfile.TemporaryFile
    assert cache_folder([own, other], "a", what="things") == own and not list(own.iterdir())

    def refused(**options: object) -> object:
        if options["dir"] == own:
            raise PermissionError(13, "denied")
        return inner(**options)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    for _ in range(2):
        assert cache_folder([own, other], "a", what="things") == other
    assert (other / ".gitignore").read_text() == "*\n"
    assert capsys.readouterr().out == (
        f"{own} cannot be written (denied): things are kept in {other}\n"
    )
