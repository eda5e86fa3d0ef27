"""Walking through a data folder as people keep them: links, copies of a Mac, logs and scripts
beside the data; and what to say when nothing is found there."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

# folders beside data, never data
FOREIGN_FOLDERS = {"__macosx", "derivatives", "logs", "log", "scripts", "code", "lost+found"}
DEPTH = 8  # levels below a root: ACDC, M&Ms and M&Ms-2 need 4
LOOKS = 2000  # folders looked into to say where else data may be
PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")
CONVERT = (
    "convert them to NIfTI first, those of UK Biobank with github.com/baiwenjia/ukbb_cardiac, "
    "others with dcm2niix"
)


@dataclass
class Walk:
    """The folders below `root`, each once, links followed; hidden and foreign ones are passed over
    and counted.

    Folders come before those inside them, by name, real ones before those that only a link leads
    to, so that of two ways to a folder the straight one counts. `within` says which folders are not
    entered, being a patient's.
    """

    root: Path
    depth: int = DEPTH
    within: Callable[[str], bool] = staticmethod(lambda name: False)
    passed: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[tuple[Path, list[str], list[str]]]:
        """(folder, names of the folders in it, names of its files); a link that leads nowhere is
        among the folders."""
        straight, linked = deque([(self.root, 0)]), deque[tuple[Path, int]]()
        entered: set[tuple[int, int]] = set()
        while straight or linked:
            folder, level = (straight or linked).popleft()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError:
                self.passed["folder# not readable"] += 1
                continue
            folders, files = [], []
            for entry in entries:
                kind = _kind(entry)
                if kind == "file":
                    files.append(entry.name)
                elif is_foreign(entry.name):
                    self.passed["foreign folder# passed over (hidden, logs, derivatives ...)"] += 1
                elif kind == "nowhere" and not self.within(entry.name):
                    self.passed["link# leading nowhere"] += 1
                else:
                    folders.append(entry)
            yield folder, [entry.name for entry in folders], files
            for entry in folders:
                if level < self.depth and not self.within(entry.name):
                    (linked if entry.is_symlink() else straight).append(
                        (folder / entry.name, level + 1)
                    )


def straight_only(paths: Iterable[Path]) -> list[Path]:
    """The paths without those by which a link leads to one of the others; sorted."""
    found: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (path.is_symlink(), path)):
        found.setdefault(os.path.realpath(path), path)
    return sorted(found.values())


def is_foreign(name: str) -> bool:
    """Whether a folder of this name is no part of any data set: hidden, a Mac's copy, logs, scripts
    ..."""
    return name.startswith(".") or name.casefold() in FOREIGN_FOLDERS


def counted(things: Mapping[str, int]) -> list[str]:
    """E.g. "2 folders", of {"folder#": 2}; nothing of what there is none."""
    return [f"{n} {words.replace('#', 's' * (n != 1))}" for words, n in things.items() if n]


def nothing_in(root: str | Path | None, *, setting: str = "root") -> str:
    """What is wrong with a root in which nothing was found: a phrase to follow "in" or "no ... :",
    naming the setting."""
    if not root:
        return f"cohort.{setting}, which is not set"
    path = Path(root)
    if not path.exists():
        return f"cohort.{setting}={path}, which is not there"
    if not path.is_dir():
        packed = "; unpack it and give the folder" if path.name.endswith(PACKED) else ""
        return f"cohort.{setting}={path}, which is a file and no folder{packed}"
    holds = _holding(path)
    return f"cohort.{setting}={path}, which {holds}"


def somewhere_else(
    root: str | Path | None, holds: Callable[[Path, list[str], list[str]], bool]
) -> str:
    """A sentence saying in which folder above or below `root` the data seem to be; empty where
    nothing is seen.

    `holds(folder, folders, files)` tells the folder that should have been given. No more than LOOKS
    folders are looked into.
    """
    if not root or not Path(root).is_dir():
        return ""
    here = Path(root).absolute()
    for up, above in enumerate(list(here.parents)[:3], start=1):
        if above.parent != above and _holds(above, holds):
            return f" The data seem to be {_levels(up)} up: give cohort.root={above}."
    for number, (folder, folders, files) in enumerate(Walk(here, depth=5)):
        if number > LOOKS:
            break
        if holds(folder, folders, files):
            down = len(folder.relative_to(here).parts)
            return (
                f" The data seem to be {_levels(down)} down: give cohort.root={folder}."
                if down
                else ""
            )
    return ""


def is_dicom(folder: Path, names: list[str]) -> bool:
    """Whether files are DICOM, by their ending or by the mark in the first of them that has
    none."""
    if any(name.lower().endswith((".dcm", ".ima")) for name in names):
        return True
    plain = next((name for name in names if "." not in name), None)
    if plain is None:
        return False
    try:
        status = os.stat(folder / plain)
        if not stat.S_ISREG(status.st_mode) or status.st_size < 132:  # a device might never answer
            return False
        with (folder / plain).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _holds(folder: Path, holds: Callable[[Path, list[str], list[str]], bool]) -> bool:
    first = next(iter(Walk(folder, depth=0)), None)
    return bool(first and holds(*first))


def _holding(root: Path) -> str:
    """What a folder holds, in a few words, and what to do about it."""
    folders, dicom, packed = 0, 0, 0
    for number, (folder, inside, files) in enumerate(Walk(root, depth=3)):
        folders += len(inside)
        dicom += is_dicom(folder, files)
        packed += sum(name.lower().endswith(PACKED) for name in files)
        if number == 0 and not inside and not files:
            return "is empty"
        if number > LOOKS:
            break
    if dicom:
        return f"holds DICOM files; {CONVERT}"
    if packed:
        return (
            f"holds {packed} archives (.zip or the like); unpack them and, if they are DICOM, "
            f"{CONVERT}"
        )
    return "holds nothing of the kind" if folders else "holds no folder"


def _levels(count: int) -> str:
    return "one level" if count == 1 else f"{count} levels"


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder", "file" or "nowhere" (a link)."""
    try:
        if entry.is_dir():
            return "folder"
        return (
            "nowhere"
            if entry.is_symlink() and not entry.is_file() and not os.path.exists(entry.path)
            else "file"
        )
    except OSError:
        return "folder"


def images_and_tables(
    root: Path | None, *, image: re.Pattern[str], table: str
) -> tuple[list[Path], list[Path], list[str]]:
    """(images, tables, what was passed over on the way) below a root, each image by its own folder
    and not by a link."""
    walk = Walk(root) if root and root.is_dir() else None
    images: list[Path] = []
    tables: list[Path] = []
    for folder, _, files in walk or ():
        images += [folder / name for name in files if image.fullmatch(name)]
        tables += [folder / name for name in files if fnmatch(name, table)]
    return straight_only(images), sorted(tables), counted(walk.passed) if walk else []
