"""The columns of a plan, and of the index of the set that is drawn from it, each described once.

Whoever reads a plan from a table, checks it, stores it, publishes it or compares its images asks
here what a column holds.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np

from cmrdata.axes import AGE, AXES, BMI, BUILT_IN, DIAGNOSES, SEX
from cmrdata.subjects import ATTRIBUTES


class Column(NamedTuple):
    """What a column holds.

    Args:
        name: of the column.
        kind: of its values.
        limits: smallest and largest number.
        values: the words it takes, where they are few and follow from no other column.
        empty: what an empty cell says: "never" (none is), "unknown" (it is missing), or "nothing"
            (it is "", there is nothing to be said).
        public: whether it may leave with the set.
        decides: whether the image follows from it.
        where: "plan" (every plan has it), "option" (a plan may), "set" (the set's index alone).
    """

    name: str
    kind: Literal["text", "whole", "number"] = "text"
    limits: tuple[float, float] | None = None
    values: Collection[str] = ()
    empty: Literal["never", "unknown", "nothing"] = "never"
    public: bool = False
    decides: bool = False
    where: Literal["plan", "option", "set"] = "plan"


# of the person an image is asked to show; another attribute of every cohort takes the default below:
# it may be unknown, and it is not published before someone says here that it may be
_ATTRIBUTE_COLUMNS = {
    column.name: column
    for column in (
        Column("sex", values=SEX.values, empty="unknown", public=True),
        Column("age", "number", limits=AGE.bounds, empty="unknown"),  # years
        Column("bmi", "number", limits=BMI.bounds, empty="unknown"),  # kg/m2
        Column("age_band", empty="unknown", public=True),
        Column("bmi_band", empty="unknown", public=True),
        Column("diagnosis", values=tuple(DIAGNOSES), public=True),
        Column("conditions", empty="nothing", public=True),
        Column("label", "whole"),
        Column("group", public=True),
    )
}
PLAN_COLUMNS = (
    Column("row", "whole", public=True),  # position in the plan
    Column("subject"),  # hashed training subject whose mask and attributes were used
    Column("source_row", "whole", decides=True),  # that mask's row in the cohort's store
    *(_ATTRIBUTE_COLUMNS.get(name, Column(name, empty="unknown")) for name in ATTRIBUTES),
    # the group whose mask it is, where that is another one
    Column("borrowed", empty="nothing", public=True),
    Column("prompt", empty="nothing", public=True, decides=True),
    Column("negative", empty="nothing", public=True, decides=True),
    Column("seed", "whole", limits=(0, 2**63 - 1), public=True, decides=True),
    Column("guidance", "number", limits=(0, np.inf), public=True, decides=True),
    Column("strength", "number", limits=(0, np.inf), public=True, decides=True),
    # how the mask was moved: degrees counter-clockwise as seen, factor of lengths (areas within a
    # tenth), shares of the field of view down and right
    Column("angle", "number", limits=(-10, 10), public=True, decides=True),
    Column("zoom", "number", limits=(0.95, 1.05), public=True, decides=True),
    Column("dy", "number", limits=(-0.03, 0.03), public=True, decides=True),
    Column("dx", "number", limits=(-0.03, 0.03), public=True, decides=True),
    Column("source", where="option"),  # the subject's cohort
    Column("sampler", public=True, where="set"),
    Column("steps", "whole", limits=(1, 1000), public=True, decides=True, where="option"),
    Column("figure", "whole", where="option"),  # number in the paper
)
COLUMN = {column.name: column for column in PLAN_COLUMNS}
PLAN = tuple(column.name for column in PLAN_COLUMNS if column.where == "plan")
PLAN_OPTIONS = tuple(column.name for column in PLAN_COLUMNS if column.where == "option")
PROVENANCE = (*PLAN, "sampler", "steps")  # what the index of every set has
EMPTY_TEXT = tuple(column.name for column in PLAN_COLUMNS if column.empty == "nothing")


def known_columns() -> dict[str, Column]:
    """COLUMN, and the columns of axes that were added: what they say of a person may be unknown.

    As of age and BMI, bands may leave with a set, as a group's name has them, and numbers may not.
    """
    columns = dict(COLUMN)
    for axis in (axis for axis in AXES.values() if axis.column not in BUILT_IN):
        if axis.measure:
            columns[axis.measure] = Column(
                axis.measure, "number", limits=axis.bounds, empty="unknown", where="option"
            )
        values = () if axis.measure else axis.values
        columns[axis.column] = Column(
            axis.column, values=values, empty="unknown", public=True, where="option"
        )
    return columns
