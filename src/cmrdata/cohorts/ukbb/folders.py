"""Whose image folders of which visit lie below a root of the ukbb_cardiac layout, and which of
their files count."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cmrdata.cohorts.reading.folders import CONVERT, PACKED, counted, is_dicom, is_foreign
from cmrdata.cohorts.reading.ids import canonical_id, spelled_id
from cmrdata.cohorts.ukbb.scan import MANUAL, STEMS, choose_files

FOLDER_NAME = re.compile(
    r"(?P<id>[^\W_]+(\.0)?)(_(20209_)?(?P<instance>\d)_(?P<array>\d+)|(?P<retest>_retest))?"
)
FIRST, REPEAT = 2, 3  # imaging visits
FILES = {f"{stem}{ending}": stem for stem in STEMS for ending in (".nii.gz", ".nii")}


@dataclass(frozen=True)
class Folder:
    """A participant's folder of one visit."""

    path: str
    # role of `choose_files` -> file name; empty where `fault` says what is missing
    files: dict[str, str]
    fault: str | None
    bare: bool = False  # it holds nothing that an imaging folder does: perhaps no participant's

    @property
    def manual(self) -> bool:
        """Whether the labels were drawn by hand."""
        return any(name.startswith(MANUAL) for name in self.files.values())

    def paths(self) -> dict[str, Path]:
        return {role: Path(self.path, name) for role, name in self.files.items()}


def list_folders(
    root: Path, *, instance: int, labels: str, withdrawn: Collection[str]
) -> tuple[dict[str, Folder], list[str]]:
    """The folders of participants at one imaging visit.

    Args:
        root: that holds them.
        instance: the visit, 2 or 3.
        labels: which segmentations are wanted.
        withdrawn: ids that are left out.

    Returns:
        Id -> folder, in the order of ids; and what was left out, counted.

    Raises:
        ValueError: when `root` cannot be listed, or where ids that differ by leading zeros alone
            may be two people.

    A folder is named <id>, <id>_<instance>_<array>, <id>_20209_<instance>_<array> or, for the
    repeat, <id>_retest. A plain name counts as the wanted visit, unless the same id also has a
    folder that says so, or the repeat is wanted and other folders say that they are the repeat:
    then plain names are the first visit. Of several arrays the first complete one counts. Hidden
    and foreign folders (logs, scripts, derivatives) and names of another kind are passed over.
    """
    spelled: dict[str, set[str]] = defaultdict(set)
    stated: dict[str, list[tuple[int, str]]] = defaultdict(list)
    plain: dict[str, list[tuple[int, str]]] = defaultdict(list)
    passed_over: Counter[str] = Counter()
    for path in _subfolders(root):
        if is_foreign(os.path.basename(path)):
            passed_over["foreign folder# passed over (hidden, logs, derivatives ...)"] += 1
            continue
        if not (name := FOLDER_NAME.fullmatch(os.path.basename(path).strip())):
            passed_over["folder# not named as a participant's"] += 1
            continue
        spelled[canonical_id(name["id"])].add(spelled_id(name["id"]))
        if not (name["instance"] or name["retest"]):
            plain[canonical_id(name["id"])].append((0, path))
        elif int(name["instance"] or REPEAT) == instance:
            stated[canonical_id(name["id"])].append((int(name["array"] or 0), path))
        else:
            passed_over["image folder# of another visit"] += 1
    if twice := sum(len(words) > 1 for words in spelled.values()):
        raise ValueError(
            f"cohort.root={root}: {twice} participants' ids stand there with leading zeros and "
            "without, and may be two people's; name all folders alike"
        )
    if instance == REPEAT and stated:
        passed_over["image folder# of another visit"] += len(plain)
        plain.clear()
    candidates = {**plain, **stated}
    gone = candidates.keys() & set(withdrawn)
    passed_over["participant# withdrawn (cohort.exclude)"] = len(gone)
    passed_over["participant# with several folders of one visit, the first complete one used"] = (
        sum(len(candidates[key]) > 1 for key in candidates.keys() - gone)
    )
    folders = {
        key: _first_complete(sorted(candidates[key]), labels=labels)
        for key in sorted(candidates.keys() - gone)
    }
    return folders, counted(passed_over)


def _subfolders(root: Path) -> list[str]:
    """Paths of the folders in `root`."""
    try:
        with os.scandir(root) as entries:
            return [entry.path for entry in entries if _is_folder(entry)]
    except OSError as error:
        raise ValueError(
            f"cohort.root={root}: cannot be listed ({type(error).__name__}); give a readable folder"
        ) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """A link that leads nowhere counts: who looks into it will say so."""
    try:
        return entry.is_dir() or (entry.is_symlink() and not entry.is_file())
    except OSError:
        return True


def _first_complete(places: list[tuple[int, str]], *, labels: str) -> Folder:
    folders = [_look_into(path, labels=labels) for _, path in places]
    return next((folder for folder in folders if not folder.fault), folders[0])


def holds_participants(folder: Path, inside: list[str], files: list[str]) -> bool:
    """Whether one of the first folders in a folder is a participant's."""
    for name in inside[:50]:
        try:
            with os.scandir(folder / name) as entries:
                if any(entry.name in FILES for entry in entries):
                    return True
        except OSError:
            continue
    return False


def _look_into(path: str, *, labels: str) -> Folder:
    listed: list[str] = []
    try:
        with os.scandir(path) as entries:
            inside = list(entries)
        listed = [entry.name for entry in inside]
        there = {entry.name for entry in inside if entry.name in FILES and entry.is_file()}
        # where a file is there packed and plain, packed
        names = {FILES[name]: name for name in sorted(there)}
        return Folder(
            path,
            {role: names[stem] for role, stem in choose_files(names, labels=labels).items()},
            None,
        )
    except OSError as error:
        return Folder(path, {}, f"folder cannot be read ({type(error).__name__})")
    except ValueError as error:
        if there:
            return Folder(path, {}, str(error))
        if is_dicom(Path(path), listed):
            return Folder(path, {}, f"DICOM files; {CONVERT}")
        if any(name.lower().endswith(PACKED) for name in listed):
            return Folder(path, {}, f"archives (.zip or the like); unpack them and {CONVERT}")
        return Folder(path, {}, str(error), bare=True)
