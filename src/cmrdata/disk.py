"""Writing that no interruption can spoil: whole or not at all, told in words when a disk refuses,
one process at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what a disk says that has no locks
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
REFUSALS = (*DISK_FULL, errno.EROFS)  # which only a write can meet


class Unwritable(OSError):
    """A disk is full or may not be written; the message names the folder, what is needed and the
    remedy."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, beside `path`, that takes its place at the end: a reader sees the old
    file or the new one, never half of it, even after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_entries(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """The whole content of a file, as `replacing` writes it."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def sync_entries(folder: Path) -> None:
    """Make the names in `folder` survive a power cut, where the file system can."""
    with suppress(OSError):
        entries = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(entries)
        finally:
            os.close(entries)


@contextmanager
def writing(folder: Path, *, needs: str = "") -> Iterator[None]:
    """What a disk refuses within, as one `Unwritable`: the data folder, the reason, what the work
    `needs`, the remedy."""
    try:
        yield
    except Unwritable:
        raise
    except OSError as error:
        remedy = "Free some space there" if error.errno in DISK_FULL else "Make it writable"
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}{needs and '; '}{needs}. "
            f"{remedy}, or give another place with data_root=<folder>; what is finished there is "
            "kept and continued"
        ) from error


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """ "a.b 1 -> 2" for every leaf that differs between two plain configs."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*map(str, old), *map(str, new)})
        return [
            line
            for k in keys
            for line in differences(old.get(k), new.get(k), f"{key}.{k}".lstrip("."))
        ]
    return [] if old == new else [f"{key} {old} -> {new}"]


@contextmanager
def alone(folder: Path, *, needs: str = "") -> Iterator[None]:
    """Hold the folder, made if need be, against other processes; waits for its turn, saying so
    once. Raises Unwritable."""
    lock = FileLock(folder / ".lock")
    with writing(folder, needs=needs):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            taken(lock, folder)
        except Timeout:
            print(f"waiting for another process that is writing {folder}", flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def taken(lock: FileLock, folder: Path) -> bool:
    """Take a lock at once; False, said aloud, on a disk that has none. Raises Timeout where another
    process holds it."""
    # what fails here, filelock takes for a held lock
    os.close(os.open(lock.lock_file, os.O_RDWR | os.O_CREAT, 0o644))
    try:
        lock.acquire(timeout=0)
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    else:
        return True
    print(
        f"{folder}: this disk has no locks, so nothing keeps two processes apart there; run one "
        "at a time, or have locks mounted (NFS: lockd)",
        flush=True,
    )
    return False


def fingerprint(settings: dict[str, Any]) -> str:
    """Hash of plain settings, independent of key order: equal settings, equal data."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """As JSON would give it back."""
    return json.loads(json.dumps(value, default=str))


def append_at(path: Path, content: Any, *, at: int) -> None:
    """Write bytes (any contiguous buffer) from position `at` on, cutting off what was there, and
    see them on the disk."""
    whole = memoryview(content)
    left = whole.cast("B") if whole.nbytes else b""  # an empty view can't be cast
    with path.open("ab", buffering=0) as file:
        file.truncate(at)
        while left:
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def check_room(
    folder: Path, bytes_needed: int, *, needs: str, instead: str = "data_root=<folder>"
) -> int | None:
    """Whether bytes surely do not fit on a folder's disk.

    Args:
        folder: that is there.
        bytes_needed: at the least.
        needs: what is needed, for the message; it says how much.
        instead: the setting that gives another place.

    Returns:
        Bytes that are free; None of a disk that does not say.

    Raises:
        Unwritable: with what is free and the remedy.
    """
    disk = shutil.disk_usage(folder)
    if not disk.total:
        return None
    if disk.free < bytes_needed:
        raise Unwritable(
            f"{needs}, {in_words(disk.free)} are free; free some space there or give another "
            f"place with {instead}"
        )
    return disk.free


def in_words(count: int) -> str:
    """Bytes as "0.4 MB" or "9.6 GB"."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
