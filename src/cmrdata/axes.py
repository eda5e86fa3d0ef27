"""The axes of comparison: what can make subgroups, its values and their order, the edges of bands,
and the words that readers see.

A sensitive attribute is a row of AXES. Nothing else in the project lists them: groups, balanced
sampling, plans, tables of subgroups, figures and the report ask here. `add` makes a row from
outside the package. Two kinds of words are contracts and stand elsewhere: those of prompts
(cmrgen.prompts) and the keys of dashboards (cmrcls.run_summary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

LAST = 99  # place of an axis that the paper's Table 2 lacks


class Band(NamedTuple):
    """One value of an axis, as readers see it."""

    name: str  # standing alone: "Normal BMI"
    short: str  # where the axis is named beside it: "Normal"
    typical: float | None = None  # the number that stands for it, where the axis is cut from one


@dataclass(frozen=True)
class Axis:
    """A division of people into subgroups.

    Raises ValueError for a row that contradicts itself.
    """

    column: str  # of the subject table; also its name in settings
    title: str  # over a column or a panel: "Age"
    phrase: str  # in a sentence: "age band"
    bands: Mapping[Any, Band]  # value -> words, in order
    measure: str = ""  # column of numbers that is cut into the bands; "": `column` itself is given
    # inner ones; a number on an edge belongs to the band above
    edges: tuple[float, ...] = ()
    bounds: tuple[float, float] = (float("-inf"), float("inf"))  # numbers that a person can have
    unit: str = ""  # of the bands, where their short names are numbers
    extremes: tuple[Any, ...] = ()  # the two bands that Table 1 compares; the first and the last
    row: int = LAST  # place in tables of subgroups, as in the paper's Table 2

    def __post_init__(self) -> None:
        if len(self.bands) < 2:
            raise ValueError(f"axis {self.column!r} has {len(self.bands)} bands; give at least two")
        if self.measure and len(self.edges) != len(self.bands) - 1:
            raise ValueError(
                f"axis {self.column!r}: {len(self.bands)} bands need {len(self.bands) - 1} inner "
                f"edges, not {len(self.edges)}"
            )
        if untypical := [
            value for value, band in self.bands.items() if self.measure and band.typical is None
        ]:
            raise ValueError(
                f"axis {self.column!r}: band {untypical[0]!r} has no typical {self.measure}"
            )
        if not self.extremes:
            object.__setattr__(self, "extremes", (self.values[0], self.values[-1]))

    @property
    def values(self) -> tuple[Any, ...]:
        """In order."""
        return tuple(self.bands)

    @property
    def given(self) -> str:
        """The column that a table has to give: of numbers where the axis is cut from them."""
        return self.measure or self.column

    @property
    def heading(self) -> str:
        """The title with its unit: "Age (years)"."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


SEX = Axis(
    "sex",
    "Sex",
    "sex",
    {"F": Band("Female", "Female"), "M": Band("Male", "Male")},
    extremes=("M", "F"),
    row=0,
)
AGE = Axis(
    "age_band",
    "Age",
    "age band",
    {  # the paper's words: "> 70" has the seventy-year-olds
        "<60": Band("Age < 60", "<60", 55.0),
        "60-70": Band("Age 60-70", "60-70", 65.0),
        "70+": Band("Age > 70", "70+", 75.0),
    },
    measure="age",
    edges=(60, 70),
    bounds=(0, 120),
    unit="years",
    row=2,
)
BMI = Axis(
    "bmi_band",
    "BMI",
    "BMI band",
    {  # underweight is normal, as in the paper (2.1)
        "normal": Band("Normal BMI", "Normal", 22.0),
        "overweight": Band("Overweight", "Overweight", 27.5),
        "obese": Band("Obese", "Obese", 34.0),
    },
    measure="bmi",
    edges=(25, 30),  # kg/m2
    bounds=(12.0, 70.0),
    row=1,
)
AXES = {axis.column: axis for axis in (SEX, AGE, BMI)}  # in the order of a group's name
BUILT_IN = tuple(AXES)  # every cohort's table has their columns
# what a classifier tells, by its label; not a sensitive attribute
DIAGNOSIS = Axis(
    "diagnosis",
    "Diagnosis",
    "diagnosis",
    {0: Band("Healthy", "Healthy"), 1: Band("Diseased", "Diseased")},
)
DIAGNOSES = {"healthy": 0, "hf": 1, "reduced_ef": 1}  # code -> the classifier's label
DIAGNOSIS_NAMES = {"healthy": "Healthy", "hf": "HF", "reduced_ef": "Reduced EF"}
CONDITIONS = {  # further diseases a subject may have, code -> name
    "mi": "myocardial infarction",
    "ihd": "ischaemic heart disease",
    "af": "atrial fibrillation",
}


def add(axis: Axis) -> None:
    """Make an axis one of AXES, behind those that are there; adding the same one again does
    nothing.

    Call it where the cohort that knows the attribute is defined, so that every process that has the
    cohort has the axis. A table that has its column (or the numbers it is cut from) is then grouped
    by it; others are as before.

    Raises ValueError where another axis has its column, or one of its values or names: a group's
    name is made of values and a table of subgroups of names, so each may mean one thing.
    """
    known = AXES.get(axis.column)
    if known == axis:
        return
    if known or axis.column == DIAGNOSIS.column:
        raise ValueError(f"axis {axis.column!r} is there already, with other bands or words")
    taken = {value for other in AXES.values() for value in other.values} | set(DIAGNOSES)
    names = {band.name for other in AXES.values() for band in other.bands.values()}
    if clash := names & {band.name for band in axis.bands.values()}:
        raise ValueError(f"axis {axis.column!r}: another axis has a band named {min(clash)!r}")
    for value in axis.values:
        if not isinstance(value, str) or not value or "/" in value:
            raise ValueError(f"axis {axis.column!r}: {value!r} can't be part of a group's name")
        if value in taken:
            raise ValueError(f"axis {axis.column!r}: {value!r} is a value of another axis")
    AXES[axis.column] = axis


def added() -> list[str]:
    """The columns of the axes that were added to the built-in ones, and of the numbers they are cut
    from."""
    axes = [axis for axis in AXES.values() if axis.column not in BUILT_IN]
    return list(dict.fromkeys(column for axis in axes for column in (axis.given, axis.column)))


def with_diagnosis() -> dict[str, Axis]:
    """AXES and behind them the diagnosis."""
    return {**AXES, DIAGNOSIS.column: DIAGNOSIS}


def axes_in(table: pd.DataFrame) -> list[str]:
    """The axes whose column the table has, in the order of a group's name."""
    return [column for column in AXES if column in table]


def known_axes(table: pd.DataFrame) -> list[str]:
    """The axes for which this table can compare subgroups: at least two values occur."""
    return [column for column in axes_in(table) if table[column].dropna().nunique() > 1]


def learnable_axes(table: pd.DataFrame) -> list[str]:
    """The axes these rows can teach or test: `known_axes`, and the diagnosis where both labels
    occur."""
    both = "label" in table and table.label.dropna().nunique() > 1
    return known_axes(table) + [DIAGNOSIS.column] * both


def as_in_table2() -> list[Axis]:
    """The axes in the order of the paper's Table 2, further ones behind."""
    return sorted(AXES.values(), key=lambda axis: axis.row)


def values_in(table: pd.DataFrame, column: str) -> pd.Series:
    """What an axis is for each row; for the diagnosis the label 0 or 1."""
    return table["label" if column == DIAGNOSIS.column else column].astype(object)


def bands_in(table: pd.DataFrame, column: str) -> dict[Any, str]:
    """The subgroups by a column in order, value -> name for readers; a column that is no axis has
    its values, sorted."""
    if column == "overall":
        return {"overall": "Overall"}
    if column in AXES:
        return {value: band.name for value, band in AXES[column].bands.items()}
    return {
        value: f"{column.capitalize()} {value}" for value in sorted(table[column].dropna().unique())
    }


def title_of(column: str) -> str:
    """What readers call a column: "Age" for age_band, "Source" for a column that is no axis."""
    axis = with_diagnosis().get(column)
    return axis.title if axis else column.capitalize()


def name_of(column: str, value: Any, *, short: bool = False) -> str:
    """What readers call a value of an axis, standing alone or `short` beside its title; what is no
    band is itself."""
    band = with_diagnosis()[column].bands.get(value)
    return str(value) if band is None else band.short if short else band.name
