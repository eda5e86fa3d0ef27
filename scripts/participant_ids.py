"""Looks for what could be a UK Biobank participant's id in files or in the whole history, as
UKB-Git-Audit-Tool does.

    python scripts/participant_ids.py               every file that git tracks
    python scripts/participant_ids.py FILE ...      these (pre-commit calls it so)
    python scripts/participant_ids.py --history     every version of every file on any branch, and every file name

An id has seven digits. Exit status 1 tells that there are some; each is shown with its place, and
only its first two digits.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ID = re.compile(
    r"(?<![\w.+-])[1-9]\d{6}(?![\w.])|(?<=_)[1-9]\d{6}(?=_)|(?<![\d.])[1-9]\d{6}(?=_2\d{4}_)"
)
HARMLESS = {"requirements.lock"}  # versions and dates of other people's packages


def git(*words: str) -> bytes:
    return subprocess.run(["git", *words], capture_output=True, check=True).stdout


def is_id(number: str) -> bool:
    """Whether it may be somebody's: neither digits in a row nor a power of two, which people make
    up."""
    return number[:6] not in "0123456789" and int(number).bit_count() > 1


def found(name: str, content: bytes) -> Iterator[str]:
    """A sentence per place in a file's name or text."""
    if Path(name).name in HARMLESS:
        return
    for hit in filter(is_id, ID.findall(name)):
        yield f"{name.replace(hit, hit[:2] + '*****')}: the name has an id of seven digits"
    if b"\0" in content[:8192]:  # a picture or weights
        return
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        for hit in filter(is_id, ID.findall(line)):
            yield f"{name}:{number}: {hit[:2]}*****"


def tracked() -> Iterator[tuple[str, bytes]]:
    for name in git("ls-files", "-z").decode().split("\0"):
        if name and Path(name).is_file():
            yield name, Path(name).read_bytes()


def history() -> Iterator[tuple[str, bytes]]:
    """(name, content) of every blob that any commit has."""
    listed = [
        line.split(" ", 1) for line in git("rev-list", "--objects", "--all").decode().splitlines()
    ]
    process = subprocess.Popen(
        ["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    for entry in listed:
        process.stdin.write(f"{entry[0]}\n".encode())
        process.stdin.flush()
        _, kind, size = process.stdout.readline().decode().split()
        content = process.stdout.read(int(size) + 1)[:-1]
        if kind == "blob":
            yield entry[1] if len(entry) > 1 else entry[0], content
    process.stdin.close()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*")
    parser.add_argument("--history", action="store_true")
    asked = parser.parse_args()
    some = (
        history()
        if asked.history
        else ((name, Path(name).read_bytes()) for name in asked.files)
        if asked.files
        else tracked()
    )
    places = list(dict.fromkeys(place for name, content in some for place in found(name, content)))
    if places:
        sys.exit(
            "\n".join(
                [
                    *places,
                    f"{len(places)} places could be participants' ids: take them out before they are pushed",
                ]
            )
        )


if __name__ == "__main__":
    main()
