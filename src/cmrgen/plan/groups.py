"""Groups as attributes: what a group's name says, which groups a cohort can have, and which of them
is nearest."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from cmrdata.subjects import AXES, DIAGNOSES

LEVELS: dict[str, tuple[str, ...]] = {**AXES, "diagnosis": tuple(DIAGNOSES)}
SCHEMA = "one word each, joined by / in this order, of " + ", ".join(
    f"{axis} ({' '.join(levels)})" for axis, levels in LEVELS.items()
)
AGE_OF = {"<60": 55.0, "60-70": 65.0, "70+": 75.0}  # years that stand for a band
BMI_OF = {"normal": 22.0, "overweight": 27.5, "obese": 34.0}  # kg/m2


def attributes_of(group: str) -> dict[str, str]:
    """E.g. {"sex": "F", "age_band": "60-70", "diagnosis": "hf"} of "F/60-70/hf". Raises ValueError
    for other words."""
    words = group.split("/") if group else []
    named = {axis: word for axis, levels in LEVELS.items() for word in words if word in levels}
    if list(named.values()) != words:
        raise ValueError(f"{group!r} is no group; give {SCHEMA}")
    return named


def known_levels(index: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The bands of each axis this cohort knows (all of them where it knows two), and the diagnoses
    that occur."""
    known = {axis: tuple(index[axis].dropna().unique()) for axis in AXES}
    levels = {
        axis: AXES[axis] if len(found) > 1 else found for axis, found in known.items() if found
    }
    return levels | {"diagnosis": tuple(sorted(index.diagnosis.dropna().unique()))}


def possible_groups(index: pd.DataFrame) -> set[str]:
    """All combinations of the bands this cohort knows and the diagnoses that occur: 36 when nothing
    is unknown."""
    return {"/".join(combination) for combination in product(*known_levels(index).values())}


def nearest_group(group: str, others: Iterable[str]) -> str:
    """The one of `others` that differs from `group` in the fewest attributes, the diagnosis last of
    all.

    Among equals the one with the nearer bands (sex counts as one step), of the same sex, of the
    same age band.
    """
    mine = attributes_of(group)

    def distance(other: str) -> tuple[bool, bool, int, int, bool, bool, str]:
        theirs = attributes_of(other)
        differing = {axis for axis in mine if theirs.get(axis) != mine[axis]}
        steps = sum(
            abs(AXES[axis].index(mine[axis]) - AXES[axis].index(theirs[axis]))
            for axis in differing & set(AXES)
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


def attributes_within(own: pd.DataFrame, groups: Iterable[str]) -> pd.DataFrame:
    """sex, age, bmi, diagnosis of images that show `groups`, a name per row of `own`: who the masks
    come from.

    Years and kg/m2 are the subject's own where they lie in the group's band, else the band's of
    AGE_OF and BMI_OF. What a group's name leaves out is as in `own`.
    """
    named = list(groups)
    words = {group: attributes_of(group) for group in dict.fromkeys(named)}
    asked = own[["sex", "age", "bmi", "diagnosis"]].copy()
    for column in ("sex", "diagnosis"):
        asked[column] = [
            words[group].get(column, value) for group, value in zip(named, own[column], strict=True)
        ]
    for column, band, typical in (("age", "age_band", AGE_OF), ("bmi", "bmi_band", BMI_OF)):
        wanted = pd.Series([words[group].get(band) for group in named], own.index, dtype=object)
        fits = wanted.isna() | (wanted == own[band])
        asked[column] = own[column].where(fits, wanted.map(typical).astype(float))
    return asked


def decades(age: pd.Series) -> np.ndarray:
    """The decades from the 50s to the 90s within the range of these ages, or all in it where there
    is none of those."""
    known = np.arange(age.min() // 10, age.max() // 10 + 1) * 10
    usual = known[(known >= 50) & (known <= 90)]
    return usual if len(usual) else known
