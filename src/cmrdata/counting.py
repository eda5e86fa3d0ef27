"""How many of what, in words: 1 group, 2 groups."""

from __future__ import annotations

SINGULAR = {
    "axes": "axis",
    "batches": "batch",
    "people": "person",
    "have": "has",
    "are": "is",
    "come": "comes",
}


def number_of(count: int, things: str, verb: str = "") -> str:
    """ "1 group has", "1,200 groups have".

    Args:
        count: how many.
        things: the plural, e.g. "training subjects"; its last word is the noun.
        verb: of the plural, after it; "": none.
    """
    if count != 1:
        return f"{count:,} {things} {verb}".rstrip()
    *before, noun = things.split()
    one = SINGULAR.get(noun, noun.removesuffix("s"))
    does = SINGULAR.get(verb, f"{verb}s" if verb else "")
    return " ".join(["1", *before, one, does]).rstrip()
