"""Writing that no interruption can spoil, and what a disk's refusals become."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout

from cmrdata import disk
from cmrdata.disk import Unwritable, write_atomic, writing


def test_a_file_is_replaced_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    disk.write_atomic(path, "old é")
    with disk.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old é" and len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    disk.write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    disk.write_atomic(path, "old")
    with pytest.raises(KeyError), disk.replacing(path) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's bytes, then its name, then the folder's list of names."""
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{handle}").resolve() == tmp_path else "bytes")
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    disk.write_atomic(tmp_path.resolve() / "a", "x")
    assert done == ["bytes", "name", "folder"]
    disk.append_at(tmp_path / "b", b"x", at=0)
    assert done[3:] == ["bytes"]
    disk.sync_entries(tmp_path / "not there")  # nothing to sync, nothing to say


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_asks_for_space(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(Unwritable) as refused,
        disk.writing(tmp_path, needs="masks of 3 images: 0.1 MB"),
    ):
        raise OSError(number, "no room")
    assert str(refused.value) == (
        f"{tmp_path} cannot be written: no room; masks of 3 images: 0.1 MB. Free some space there, or "
        "give another place with data_root=<folder>; what is finished there is kept and continued"
    )


def test_other_refusals_ask_for_rights_and_other_errors_pass(tmp_path: Path) -> None:
    for error in (OSError(errno.EROFS, "read-only"), OSError("read-only")):
        with (
            pytest.raises(
                Unwritable, match="cannot be written: read-only. Make it writable, or give"
            ),
            disk.writing(tmp_path),
        ):
            raise error
    own = Unwritable("said already")
    with pytest.raises(Unwritable) as passed, disk.writing(tmp_path, needs="more"):
        raise own
    assert passed.value is own
    with pytest.raises(ValueError, match="not of a disk"), disk.writing(tmp_path):
        raise ValueError("not of a disk")


def test_settings_differ_leaf_by_leaf() -> None:
    old = {"a": {"b": 1, "c": 2}, "d": None, "e": [1]}
    assert disk.differences(old, old) == []
    new = {"a": {"b": 1, "c": 3}, "d": None, "e": [2], "f": 0}
    assert disk.differences(old, new) == ["a.c 2 -> 3", "e [1] -> [2]", "f None -> 0"]
    assert disk.differences({"a": {"b": 1}}, {"a": 5}) == ["a {'b': 1} -> 5"]


def test_two_processes_take_turns_and_the_second_says_that_it_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, order = tmp_path / "deep" / "er", []
    with disk.alone(folder):
        with pytest.raises(Timeout):  # as another process sees it
            FileLock(folder / ".lock").acquire(timeout=0)

        def second() -> None:
            with disk.alone(folder):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        while "waiting" not in (said := capsys.readouterr().out):
            assert thread.is_alive()
        assert said == f"waiting for another process that is writing {folder}\n"
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    with pytest.raises(KeyError), disk.alone(folder):
        raise KeyError
    FileLock(folder / ".lock").acquire(timeout=0).lock.release()  # free again
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_made_is_told_with_what_it_was_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(Unwritable, match="file.inner cannot be written: .*; 3 GB. Make it writable"),
        disk.alone(tmp_path / "file" / "inner", needs="3 GB"),
    ):
        pytest.fail("held what is not there")


def test_a_lock_is_taken_unless_the_disk_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = FileLock(tmp_path / ".lock")
    assert disk.taken(lock, tmp_path) and lock.is_locked
    with pytest.raises(Timeout):
        disk.taken(FileLock(tmp_path / ".lock"), tmp_path)
    lock.release()
    assert capsys.readouterr().out == ""
    for error in (
        NotImplementedError(),
        *(OSError(number, "no locks") for number in disk.NO_LOCKS),
    ):
        monkeypatch.setattr(FileLock, "acquire", lambda *_, error=error, **__: raised(error))
        assert not disk.taken(FileLock(tmp_path / ".lock"), tmp_path)
        assert "this disk has no locks, so nothing keeps two processes apart there" in (
            capsys.readouterr().out
        )
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: raised(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="broken"):
        disk.taken(FileLock(tmp_path / ".lock"), tmp_path)
    # what fails before, filelock would take for a lock that another holds
    with pytest.raises(FileNotFoundError):
        disk.taken(FileLock(tmp_path / "none" / ".lock"), tmp_path)


def raised(error: Exception) -> None:
    raise error


def test_equal_settings_have_one_fingerprint() -> None:
    marks = [
        disk.fingerprint(settings)
        for settings in (
            {"a": 1, "b": {"c": Path("x"), "d": (1, 2)}},
            {"b": {"d": [1, 2], "c": "x"}, "a": 1},
            {"a": 1, "b": {"c": Path("x"), "d": (2, 1)}},
        )
    ]
    assert marks[0] == marks[1] != marks[2]
    # sha256 of {"a": 1}, first 16 digits: it names folders, so it may not change
    assert disk.fingerprint({"a": 1}) == "f9d86028c6e0d64e"
    assert disk.plain({"a": (1, Path("x"))}) == {"a": [1, "x"]}


def test_bytes_are_written_from_a_position_on_and_cut_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    disk.append_at(path, b"abcdef", at=0)
    disk.append_at(path, np.arange(2, dtype=np.uint8).reshape(2, 1), at=4)
    assert path.read_bytes() == b"abcd\x00\x01"
    disk.append_at(path, np.empty((0, 3), np.float32), at=2)
    assert path.read_bytes() == b"ab"
    disk.append_at(path, np.array([1], np.float32), at=0)
    assert path.read_bytes() == np.array([1], np.float32).tobytes()


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Path.open

    class Slow:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            return self.file.write(content[:3])

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(Path, "open", lambda *args, **how: Slow(inner(*args, **how)))
    disk.append_at(tmp_path / "rows", b"abcdefgh", at=0)
    monkeypatch.undo()
    assert (tmp_path / "rows").read_bytes() == b"abcdefgh"


def test_room_for_exactly_what_is_needed_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=9_000_000, free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert disk.check_room(tmp_path, 1_500_000, needs="1.5 MB") == 1_500_000
    with pytest.raises(Unwritable) as refused:
        disk.check_room(tmp_path, 1_500_001, needs="images: 1.5 MB")
    assert str(refused.value) == (
        "images: 1.5 MB, 1.5 MB are free; free some space there or give another place with data_root=<folder>"
    )
    with pytest.raises(Unwritable, match="another place with run_root=<folder>$"):
        disk.check_room(tmp_path, 2_000_000, needs="2 MB", instead="run_root=<folder>")
    usage.total = 0  # a disk that does not say
    assert disk.check_room(tmp_path, 10**12, needs="1 TB") is None


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0.0 MB"),
        (1_260_000, "1.3 MB"),
        (999_999_999, "1,000.0 MB"),
        (10**9, "1.0 GB"),
        (1_234_560_000_000, "1,234.6 GB"),
    ],
)
def test_bytes_in_words(count: int, words: str) -> None:
    assert disk.in_words(count) == words


def test_a_file_that_is_not_there_has_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    assert disk.size(tmp_path / "a") == 3 and disk.size(tmp_path / "b") == 0


def test_what_a_disk_refuses_names_the_folder_the_need_and_the_remedy_once(tmp_path):
    refused = OSError(errno.ENOSPC, "No space left on device", "images.u8")
    with (
        pytest.raises(Unwritable) as told,
        writing(tmp_path),
        writing(tmp_path / "inner", needs="9 MB are needed"),
    ):
        raise refused
    assert str(told.value).startswith(
        f"{tmp_path / 'inner'} cannot be written: No space left on device; 9 MB are needed."
    )
    assert "Free some space there, or give another place with data_root=" in str(told.value)
    assert told.value.__cause__ is refused
    with (
        pytest.raises(Unwritable, match="Make it writable, or give another place"),
        writing(tmp_path),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(ValueError, match="no fault of the disk"), writing(tmp_path):
        raise ValueError("no fault of the disk")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_synchronised_is_no_fault(tmp_path, monkeypatch):
    inner = os.open

    def unable(path, *args, **kwargs):
        if path == tmp_path:
            raise OSError(errno.EINVAL, "Invalid argument")
        return inner(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", unable)
    write_atomic(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new"
