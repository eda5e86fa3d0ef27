"""The groups of an arm's training rows, and whether an arm has those that a mitigation needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmrdata.subjects import balancing_weights, group_names


class Group(TypedDict):
    """A group of the training rows."""

    name: str
    domain: str  # the group without its diagnosis
    weight: float  # of its losses, so that every group counts alike; their mean over the draws is 1


def describe_groups(train: pd.DataFrame, *, chances: npt.NDArray[np.float64] | None) -> list[Group]:
    """Describe each group of the training rows.

    Args:
        train: the training rows of an arm.
        chances: (rows,) of being drawn; None where all rows are drawn alike.

    Returns:
        The groups, sorted by name. Losses times `weight` give every group the weight that it has in
        `balancing_weights`.
    """
    table = pd.DataFrame(
        {
            "name": train.group,
            "domain": group_names(train.assign(diagnosis=None)),
            "wanted": balancing_weights(train),
            "drawn": 1 / len(train) if chances is None else chances,
        }
    )
    sums = table.groupby("name").agg(
        domain=("domain", "first"), wanted=("wanted", "sum"), drawn=("drawn", "sum")
    )
    weights = (sums.wanted / sums.drawn).tolist()
    return [
        {"name": str(name), "domain": domain, "weight": weight}
        for name, domain, weight in zip(sums.index, sums.domain, weights, strict=True)
    ]


def required(groups: Sequence[Group], *, by: str) -> Sequence[Group]:
    """The groups as they are; ValueError where there are none."""
    if not groups:
        raise ValueError(f"{by}: the groups are missing; give the arm's (Arms.groups)")
    return groups


def check_domains(index: pd.DataFrame, *, cohort: str) -> None:
    """Raise ValueError unless the training rows of an arm are of two domains at least.

    Args:
        index: the arm's rows.
        cohort: its name.
    """
    domains = sorted(set(group_names(index[index.split == "train"].assign(diagnosis=None))))
    if len(domains) < 2:
        who = (
            f"all training images are of one group, {domains[0]}"
            if domains[0]
            else "nobody's sex, age or BMI is known"
        )
        raise ValueError(
            f"in cohort {cohort} {who}, so there are no groups to treat alike; choose "
            "mitigation=none, or a cohort that knows sex, age or BMI"
        )


def check_mitigation(name: str, parts: Sequence[Any], *, index: pd.DataFrame, cohort: str) -> None:
    """Refuse a mitigation that needs groups where an arm has none: it would pass for one that does
    something.

    Args:
        name: the mitigation's.
        parts: what it is made of; a part that needs something of the arm has a
            `check(index, cohort=)`.
        index: the arm's rows.
        cohort: its name.

    Raises:
        ValueError: for the first part that the arm doesn't fit.
    """
    for part in parts:
        if not hasattr(part, "check"):
            continue
        try:
            part.check(index, cohort=cohort)
        except ValueError as error:
            raise ValueError(f"mitigation={name}: {error}") from None
