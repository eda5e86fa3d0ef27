"""Where a store came from and how its source was then, so that a store opens without its source and
a change is noticed.

origin.json lies in the store's folder and nowhere else: it holds paths of this machine. It names
participants as the store does, and is not needed to use the store.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cmrdata.disk import write_atomic

ORIGIN_FILE = "origin.json"
# bytes of a file that is hashed whole; of larger ones pieces are, the last with a gzip's checksum
WHOLE = 2**20
PIECES, PIECE = 8, 2**14
# ns: a file changed so shortly before we looked may change again without a new time
RACY = 2_000_000_000
# [bytes, modification time in ns, content check]; None where no file is
FileState = list[Any] | None


class Source(NamedTuple):
    """The participants and files that a cohort's images come from."""

    ids: list[str]  # the original ids, in the order of the subjects
    # subject -> files that decide its images, whether they exist or not
    files: dict[str, list[Path]]


class Origin(NamedTuple):
    """What is known of a store's source."""

    places: dict[str, str | None]  # setting -> where it lay
    watched: dict[str, str]  # setting -> hash of a small file that is compared at every opening
    looked: int  # when the files were looked at, ns since 1970
    files: dict[str, list[FileState]]
    renewed_as: str | None = None  # the store that took this one's place

    @property
    def made(self) -> str:
        return time.strftime("%Y-%m-%d", time.localtime(self.looked / 1e9))


def read(folder: Path) -> Origin | None:
    """The origin of the store in `folder`; None where nothing is known of it."""
    try:
        return Origin(**json.loads((folder / ORIGIN_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write(folder: Path, origin: Origin) -> None:
    """Keep an origin beside its store."""
    write_atomic(folder / ORIGIN_FILE, json.dumps(origin._asdict()))


def look(
    files: Mapping[str, Sequence[Path]], earlier: Origin | None = None
) -> tuple[dict[str, list[FileState]], list[str]]:
    """(state of every file, the subjects whose files differ from `earlier`).

    A file of the same size and time is taken for the same; where the time differs, or is so recent
    that it proves nothing, or the file was touched since, its content decides.
    """
    known = earlier.files if earlier else {}
    states = {}
    for subject, paths in files.items():
        before = known.get(subject, [])
        before = before if len(before) == len(paths) else [None] * len(paths)
        states[subject] = [
            _state(path, old, earlier) for path, old in zip(paths, before, strict=True)
        ]
    changed = [
        s for s, new in states.items() if earlier and _content(new) != _content(known.get(s, []))
    ]
    return states, changed + [s for s in known if s not in states]


def _state(path: Path, old: FileState, earlier: Origin | None) -> FileState:
    try:
        stat = path.stat()
    except OSError:
        return None
    # the second is new where a program kept the first
    touched = max(stat.st_mtime_ns, stat.st_ctime_ns)
    if (
        old
        and earlier
        and old[:2] == [stat.st_size, stat.st_mtime_ns]
        and touched < earlier.looked - RACY
    ):
        return old
    return [stat.st_size, stat.st_mtime_ns, check(path, stat.st_size)]


def _content(states: Sequence[FileState]) -> list[Any]:
    return [state and [state[0], state[2]] for state in states]


def check(path: Path, size: int) -> str:
    """What a file holds, told in a moment: the hash of all of a small file, of evenly spread pieces
    of a large one."""
    try:
        with path.open("rb") as file:
            if size <= WHOLE:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
            digest = hashlib.sha256()
            for k in range(PIECES):
                file.seek((size - PIECE) * k // (PIECES - 1))
                digest.update(file.read(PIECE))
            return digest.hexdigest()[:16]
    except OSError as error:
        return f"unreadable ({type(error).__name__})"


def digest(source: Source, states: Mapping[str, Sequence[FileState]]) -> str:
    """Hash of the participants and of what their files hold: the same wherever they lie and by
    whatever salt."""
    content = hashlib.sha256("\n".join(source.ids).encode())
    for subject in source.files:
        content.update(json.dumps(_content(states[subject])).encode())
    return content.hexdigest()[:16]


def watched(places: Mapping[str, str | None], keys: Sequence[str]) -> dict[str, str]:
    """Hashes of the small files among the places that are compared at every opening, as far as they
    are there."""
    hashes = {}
    for key in keys:
        place = Path(places.get(key) or "")
        if places.get(key) and place.is_file():
            hashes[key] = check(place, place.stat().st_size)
    return hashes
