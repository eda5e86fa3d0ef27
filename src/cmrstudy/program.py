"""Where this program lies: a checkout, or a package that pip has installed.

The three commands, conf/ and assets/ stand at the top of a checkout. A wheel holds the same files
in its package `cmr` (setup.py), and there the commands are typed as `cmr train`.
"""

from __future__ import annotations

import re
from pathlib import Path

_SOURCES = Path(__file__).resolve().parents[1]  # src, or site-packages
IN_CHECKOUT = (_SOURCES.parent / "train.py").is_file()
PROGRAM = _SOURCES.parent if IN_CHECKOUT else _SOURCES / "cmr"  # has train.py, conf/, assets/
_TYPED = re.compile(r"\bpython (train|generate|evaluate)\.py\b")
_EXTRA = re.compile(r"pip install -e '\.\[(\w+)\]'")


def as_typed(text: str) -> str:
    """A text that quotes commands, as they are typed where this program lies: `python train.py` is
    `cmr train` outside a checkout."""
    if IN_CHECKOUT:
        return text
    return _EXTRA.sub(r"pip install 'cmr-debias[\1]'", _TYPED.sub(r"cmr \1", text))
