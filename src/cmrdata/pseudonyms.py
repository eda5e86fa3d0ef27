"""Names under which participants appear: salted hashes, so that no table, log or file name holds an
original id."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cmrdata.disk import sync_entries, writing

DIGITS = 16  # hexadecimal, 64 bits: two of a million participants clash with a chance of 3e-8


def hashed(identifier: str, salt: str) -> str:
    """A participant id as it may appear in tables and logs: "S" and DIGITS hexadecimal digits of a
    salted hash."""
    digest = hashlib.blake2b(
        identifier.strip().encode(), key=salt.encode()[:64], digest_size=DIGITS // 2
    )
    return "S" + digest.hexdigest()


def renamed(identifiers: Sequence[str], folder: Path) -> dict[str, str]:
    """Original id -> pseudonym by the salt in `folder`. Raises ValueError where two would get one
    name."""
    salt = read_salt(folder)
    names = {identifier: hashed(identifier, salt) for identifier in identifiers}
    if clash := len(names) - len(set(names.values())):
        raise ValueError(
            f"{clash} participants would share another's name by the salt in {folder / 'salt'}; "
            "move that file away and the stores made with it: a new salt gives new names"
        )
    return names


def salt_mark(folder: Path) -> str | None:
    """A short public mark of the folder's salt: two stores with one mark name their participants
    alike.

    None where there is no salt, or none that may be read.
    """
    try:
        salt = (folder / "salt").read_text().strip()
    except OSError:
        return None
    return (
        hashlib.blake2b(salt.encode(), digest_size=6, person=b"salt mark").hexdigest()
        if salt
        else None
    )


def read_salt(folder: Path) -> str:
    """The folder's secret salt, made on first use, once for all processes; it goes into no output.

    Raises Unwritable; ValueError when it may not be read, or is empty (participants would be
    renamed without a secret).
    """
    path = folder / "salt"
    if not path.exists():
        with writing(folder, needs="the salt by which participants are renamed belongs there"):
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / f".salt.{secrets.token_hex(8)}"
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, path)  # whole or not at all, and never over another process's salt
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                os.replace(fresh, path)
            fresh.unlink(missing_ok=True)
            sync_entries(folder)
    try:
        salt = path.read_text().strip()
    except PermissionError:
        raise ValueError(
            f"{path} may not be read; ask its owner, or give another place with data_root="
        ) from None
    if not salt:
        raise ValueError(
            f"{path} is empty; restore it, or delete it: participants then get new names and new "
            "stores"
        )
    return salt
