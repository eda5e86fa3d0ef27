"""Axes, and the subgroups into which they divide the subjects: the rows of every table on
fairness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrdata.axes import as_in_table2, axes_in, bands_in, title_of


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
        return " x ".join(map(title_of, self.columns)) or "Overall"


class Division(NamedTuple):
    """The subjects divided along an axis."""

    axis: Crossing
    names: list[str]  # of the subgroups
    codes: npt.NDArray[np.int_]  # (n,) place in `names`, -1 where a subject's is unknown


def divisions(subjects: pd.DataFrame, further: Sequence[str] = ()) -> list[Division]:
    """The subjects overall, along each known axis, and along the intersections of the
    known axes.

    Args:
        subjects: a table with the axes as columns; one without two values is left out.
        further: other columns whose values are subgroups.
    """
    wanted = [*(axis.column for axis in as_in_table2()), *further]
    single = {}
    for column in dict.fromkeys(wanted):
        if column in subjects and subjects[column].nunique() > 1:
            bands = bands_in(subjects, column)
            codes = pd.Categorical(subjects[column], categories=list(bands)).codes.astype(int)
            single[column] = Division(Crossing((column,)), list(bands.values()), codes)
    known = [column for column in axes_in(subjects) if column in single]
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
