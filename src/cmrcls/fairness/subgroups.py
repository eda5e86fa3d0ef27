"""Axes, and the subgroups into which they divide the subjects: the rows of every table on
fairness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrdata.subjects import AXES

SUBGROUPS = {  # rows in the order of the paper's Table 2
    "overall": {"overall": "Overall"},
    "sex": {"F": "Female", "M": "Male"},
    "bmi_band": {"normal": "Normal BMI", "overweight": "Overweight", "obese": "Obese"},
    "age_band": {"<60": "Age < 60", "60-70": "Age 60-70", "70+": "Age > 70"},
}
AXIS_NAMES = {"sex": "Sex", "age_band": "Age", "bmi_band": "BMI"}
assert all(tuple(SUBGROUPS[axis]) == bands for axis, bands in AXES.items()), "a band has no row"
assert set(AXIS_NAMES) == set(AXES), "an axis has no name"


@dataclass(frozen=True, order=True)
class Crossing:
    """The columns by which subjects are divided: none for everybody, several for crossed
    subgroups."""

    columns: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As CSV files have it: "overall", "sex", "sex x bmi_band"."""
        return " x ".join(self.columns) or "overall"

    @property
    def in_words(self) -> str:
        """As readers see it: "Overall", "Sex", "Sex x BMI"."""
        return (
            " x ".join(AXIS_NAMES.get(name, name.capitalize()) for name in self.columns)
            or "Overall"
        )


class Division(NamedTuple):
    """The subjects divided along an axis."""

    axis: Crossing
    names: list[str]  # of the subgroups
    codes: npt.NDArray[np.int_]  # (n,) place in `names`, -1 where a subject's is unknown


def bands_of(subjects: pd.DataFrame, column: str) -> dict[Any, str]:
    """The subgroups of a column in order.

    Args:
        subjects: a table with that column.
        column: of SUBGROUPS, or another one, whose values in it are the subgroups, sorted.

    Returns:
        Value of the column -> name for readers.
    """
    if column in SUBGROUPS:
        return dict(SUBGROUPS[column])
    return {
        value: f"{column.capitalize()} {value}"
        for value in sorted(subjects[column].dropna().unique())
    }


def divisions(subjects: pd.DataFrame, further: Sequence[str] = ()) -> list[Division]:
    """The subjects overall, along each known axis, and along the intersections of the known AXES.

    Args:
        subjects: a table with the axes as columns; one without two values is left out.
        further: other columns whose values are subgroups.
    """
    wanted = [*(axis for axis in SUBGROUPS if axis != "overall"), *further]
    single = {}
    for column in dict.fromkeys(wanted):
        if column in subjects and subjects[column].nunique() > 1:
            bands = bands_of(subjects, column)
            codes = pd.Categorical(subjects[column], categories=list(bands)).codes.astype(int)
            single[column] = Division(Crossing((column,)), list(bands.values()), codes)
    known = [column for column in AXES if column in single]
    picks = [pick for size in range(2, len(known) + 1) for pick in combinations(known, size)]
    everybody = Division(Crossing(), ["Overall"], np.zeros(len(subjects), int))
    crossed = [_crossed([single[column] for column in pick]) for pick in picks]
    return [everybody, *single.values(), *crossed]


def _crossed(parts: Sequence[Division]) -> Division:
    """The intersections of several divisions."""
    count = len(parts[0].codes)
    names, codes, known = [""], np.zeros(count, int), np.ones(count, bool)
    for part in parts:
        names = [f"{a}, {b}".removeprefix(", ") for a in names for b in part.names]
        codes, known = codes * len(part.names) + part.codes, known & (part.codes >= 0)
    columns = tuple(column for part in parts for column in part.axis.columns)
    return Division(Crossing(columns), names, np.where(known, codes, -1))
