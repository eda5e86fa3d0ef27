"""Overrides as Hydra's grammar reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

UNREADABLE, SWEPT = object(), object()


class Override(NamedTuple):
    """One override of the command line."""

    key: str  # dotted; a group's name for a choice
    value: Any  # plain; None for a deletion
    deleted: bool


def parsed(overrides: Iterable[str]) -> list[Override]:
    """Overrides as Hydra reads them, so that quotes and shells make no difference."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return [
        Override(of.key_or_group, None if of.is_delete() else _plain(of.value()), of.is_delete())
        for of in OverridesParser.create().parse_overrides(list(overrides))
    ]


def value_of(override: str) -> Any:
    """What Hydra makes of `key=value`; UNREADABLE where it refuses it, SWEPT where it would sweep
    over it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        (of,) = OverridesParser.create().parse_overrides([override])
    except HydraException:
        return UNREADABLE
    return SWEPT if of.is_sweep_override() else _plain(of.value())


def _plain(value: Any) -> Any:
    """Hydra's quoted strings and lists as Python's."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return getattr(value, "text", value)
