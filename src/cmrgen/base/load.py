"""The frozen base that a config names: its kind decides which of the other files reads it."""

from __future__ import annotations

from typing import Any

from cmrgen.base.frozen import Base
from cmrgen.base.small import folder_of, load_small
from cmrgen.base.stable_diffusion import load_sd
from cmrgen.base.weights import KINDS, on_disk


def load_base(*, weights: str, kind: str = "folder", **options: Any) -> Base:
    """The frozen base that conf/base names.

    Args:
        weights: where it lies: a folder, and for Stable Diffusion a file or hub id, too.
        kind: "folder" (written by experiment=base), "sd21" or "sd15".
        options: further arguments of cmrgen.base.stable_diffusion.load_sd.

    Raises FileNotFoundError where there is none, ValueError for another model's weights.
    """
    if kind == "folder":
        return load_small(weights)
    return load_sd(weights, kind=kind, **options)


def check_base(*, weights: str, kind: str = "folder", **_: Any) -> None:
    """Raise FileNotFoundError where `load_base` surely would; reads and downloads nothing."""
    if kind == "folder":
        folder_of(weights)
    elif kind in KINDS:
        on_disk(weights, kind)
