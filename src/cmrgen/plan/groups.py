"""Groups as attributes: what a group's name says, which groups a cohort can have, and which of them
is nearest."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, DIAGNOSES, added, axes_in


def levels() -> dict[str, tuple[str, ...]]:
    """The words that a group's name is made of, by axis, the diagnosis last."""
    return {name: axis.values for name, axis in AXES.items()} | {"diagnosis": tuple(DIAGNOSES)}


def schema() -> str:
    """How a group is named, in a sentence."""
    words = ", ".join(f"{axis} ({' '.join(values)})" for axis, values in levels().items())
    return f"one word each, joined by / in this order, of {words}"


def typical(column: str) -> dict[str, float]:
    """The number that stands for each band of an axis that is cut from numbers."""
    return {value: float(band.typical or 0) for value, band in AXES[column].bands.items()}


def attributes_of(group: str) -> dict[str, str]:
    """E.g. {"sex": "F", "age_band": "60-70", "diagnosis": "hf"} of "F/60-70/hf". Raises ValueError
    for other words."""
    words = group.split("/") if group else []
    named = {axis: word for axis, values in levels().items() for word in words if word in values}
    if list(named.values()) != words:
        raise ValueError(f"{group!r} is no group; give {schema()}")
    return named


def known_levels(index: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The bands of each axis this cohort knows (all of them where it knows two), and the diagnoses
    that occur."""
    known = {axis: tuple(index[axis].dropna().unique()) for axis in axes_in(index)}
    bands = {
        axis: AXES[axis].values if len(values) > 1 else values
        for axis, values in known.items()
        if values
    }
    return bands | {"diagnosis": tuple(sorted(index.diagnosis.dropna().unique()))}


def possible_groups(index: pd.DataFrame) -> set[str]:
    """All combinations of the bands this cohort knows and the diagnoses that occur: 36 when nothing
    is unknown."""
    return {"/".join(combination) for combination in product(*known_levels(index).values())}


def nearest_group(group: str, others: Iterable[str]) -> str:
    """The one of `others` that differs from `group` in the fewest attributes, the diagnosis last of
    all.

    Among equals the one with the nearer bands (sex, or another axis that is not cut from numbers,
    counts as one step), of the same sex, of the same age band.
    """
    mine = attributes_of(group)

    def distance(other: str) -> tuple[bool, bool, int, int, bool, bool, str]:
        theirs = attributes_of(other)
        differing = {axis for axis in mine if theirs.get(axis) != mine[axis]}
        steps = sum(
            _steps(axis, mine[axis], theirs.get(axis)) for axis in differing if axis in AXES
        )
        disease = DIAGNOSES[mine["diagnosis"]] != DIAGNOSES[theirs["diagnosis"]]
        return (
            disease,
            "diagnosis" in differing,
            len(differing),
            steps,
            "sex" in differing,
            "age_band" in differing,
            other,
        )

    return min(others, key=distance)


def _steps(axis: str, one: str, other: str | None) -> int:
    """Bands between two of an axis that is cut from numbers; else 1."""
    bands = AXES[axis].values
    if not AXES[axis].measure or other is None:
        return 1
    return abs(bands.index(one) - bands.index(other))


def attributes_within(own: pd.DataFrame, groups: Iterable[str]) -> pd.DataFrame:
    """sex, age, bmi, diagnosis (and added attributes) of images that show `groups`, a name per row
    of `own`: who the masks come from.

    Years and kg/m2 are the subject's own where they lie in the group's band, else what is `typical`
    of the band. What a group's name leaves out is as in `own`.
    """
    named = list(groups)
    words = {group: attributes_of(group) for group in dict.fromkeys(named)}
    further = [column for column in added() if column in own and column not in levels()]
    given = [column for column in axes_in(own) if not AXES[column].measure]
    asked = own[list(dict.fromkeys(["sex", "age", "bmi", "diagnosis", *given, *further]))].copy()
    for column in (*given, "diagnosis"):
        asked[column] = [
            words[group].get(column, value) for group, value in zip(named, own[column], strict=True)
        ]
    for band in (column for column in axes_in(own) if AXES[column].measure):
        column = AXES[band].measure
        wanted = pd.Series([words[group].get(band) for group in named], own.index, dtype=object)
        fits = wanted.isna() | (wanted == own[band])
        asked[column] = own[column].where(fits, wanted.map(typical(band)).astype(float))
    return asked


def decades(age: pd.Series) -> np.ndarray:
    """The decades from the 50s to the 90s within the range of these ages, or all in it where there
    is none of those."""
    known = np.arange(age.min() // 10, age.max() // 10 + 1) * 10
    usual = known[(known >= 50) & (known <= 90)]
    return usual if len(usual) else known
