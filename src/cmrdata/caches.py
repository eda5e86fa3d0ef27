"""Where what is computed from a set is kept: beside the set, or elsewhere where the set may not be
written."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from cmrdata.disk import Unwritable, write_atomic


def cache_folder(places: Sequence[Path], *names: str, what: str) -> Path:
    """The first folder that holds files of all these names, else the first that can be written,
    made if need be.

    That it is not the first is said once, and git ignores what is kept there.

    Args:
        places: folders, the set's own first.
        names: of the files.
        what: they are, for the message.

    Raises Unwritable where no folder can be written.
    """
    for folder in places:
        if all((folder / name).exists() for name in names):
            return folder
    refused: list[str] = []
    for folder in places:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
            if refused:
                write_atomic(folder / ".gitignore", "*\n")
        except OSError as error:
            refused.append(f"{folder} cannot be written ({error.strerror or error})")
            continue
        if refused:
            _say(f"{refused[0]}: {what} are kept in {folder}")
        return folder
    raise Unwritable(f"{'; '.join(refused)}: {what} have no place. Make one of these writable")


@cache
def _say(sentence: str) -> None:
    print(sentence, flush=True)
