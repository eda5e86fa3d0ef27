"""Loss and heads from plain settings, as a checkpoint keeps them: it loads without Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from torch import nn

from cmrcls.mitigation.groups import Group


def part_class(setting: Mapping[str, Any]) -> type[nn.Module]:
    """The class that a setting such as {"_target_": "cmrcls.mitigation.losses.GroupDRO", "eta":
    0.01} names.

    Raises ValueError for what can't be imported, and for what is no module of torch: a checkpoint
    can't name just any function.
    """
    target = str(setting.get("_target_"))
    module, _, name = target.rpartition(".")
    try:
        named = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(
            f"_target_ {target} can't be imported; is its name right, and its folder in PYTHONPATH?"
        ) from None
    if not (isinstance(named, type) and issubclass(named, nn.Module)):
        raise ValueError(f"_target_ {target} is no torch.nn.Module; derive its class from it")
    return named


def build_part(setting: Mapping[str, Any], *, groups: Sequence[Group]) -> nn.Module:
    """Make the loss or the heads that a setting names.

    Args:
        setting: the class as `_target_`, and what it takes beside the groups.
        groups: of the training rows.

    Raises:
        ValueError: for a class that `part_class` refuses, or a setting that it doesn't take.
    """
    kind = part_class(setting)
    settings = {key: value for key, value in setting.items() if key != "_target_"}
    try:
        return kind(groups=groups, **settings)
    except TypeError as error:
        raise ValueError(f"_target_ {setting['_target_']}: {error}") from error
