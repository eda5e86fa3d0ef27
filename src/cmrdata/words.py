"""How a count and its noun are written."""

from __future__ import annotations


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """ "1 run", "2,000 runs", "0 studies".

    Args:
        count: how many.
        noun: of one.
        plural: of several; the noun with an s where it isn't given.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
