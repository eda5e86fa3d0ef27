"""Which code made a result: the package's version and, in a checkout, the commit."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def code_version() -> str:
    """ "0.1.0+2afed89b" in a clean checkout, with ".edited" behind it where tracked files differ, else "0.1.0"."""
    try:
        released = version("cmr-debias")
    except PackageNotFoundError:  # src on the path, not installed
        released = "unreleased"
    commit = _git("rev-parse", "--short=8", "HEAD")
    edited = ".edited" if commit and _git("status", "--porcelain", "--untracked-files=no") else ""
    return f"{released}+{commit}{edited}" if commit else released


def _git(*args: str) -> str:
    here = Path(__file__).parent
    if not (here.parents[1] / ".git").exists():  # installed, perhaps inside another project's checkout
        return ""
    try:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
