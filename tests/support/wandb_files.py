"""What an offline run of W&B holds: the records that `wandb sync` would send."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from support import ROOT


def script(name: str) -> ModuleType:
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


records = script("wandb_pictures").records
