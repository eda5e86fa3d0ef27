"""Plans that hold everything but one thing fixed: what does a word of the prompt, a seed or the
guidance change?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, DIAGNOSES
from cmrdata.subjects import numbers_in
from cmrgen.plan.groups import attributes_of
from cmrgen.plan.rows import Plan, planned, usable
from cmrgen.prompts import FIELDS


def varied_values() -> dict[str, tuple[Any, ...]]:
    """What a sweep can vary, and the values it takes where none are given: one number per band."""
    axes = {
        axis.given: (
            tuple(band.typical for band in axis.bands.values()) if axis.measure else axis.values
        )
        for axis in AXES.values()
    }
    return {**axes, "diagnosis": tuple(DIAGNOSES)}


def one_mask(
    index: pd.DataFrame,
    *,
    like: str = "M/70+/normal/hf",
    source_row: int | None = None,
    attribute: str | None = None,
    values: Sequence[Any] | None = None,
    seeds: int = 1,
    guidance: float | Sequence[float] = 2.0,
    steps: int | Sequence[int] | None = None,
    seed: int = 0,
    fields: Sequence[str] = FIELDS,
    strength: float = 1.0,
    negative: str = "",
) -> Plan:
    """One mask, in every combination of the `values` of an `attribute`, `seeds` seeds, guidance
    scales and steps.

    The mask is the central one of a training subject as much as possible `like` that group, or that
    of store row `source_row`. `attribute` is sex, age, bmi or diagnosis; without `values` it takes
    one of each band, or every code the cohort has. All values share their seeds. Steps are the
    sampler's unless given. Raises ValueError by name.
    """
    if source_row is None:
        source_row = _most_like(index, like)
    _check_attribute(attribute, values)
    if seeds < 1 or source_row not in index.index:
        raise ValueError(
            f"plan.seeds={seeds}, plan.source_row={source_row}: give at least one seed, and a row "
            f"of the cohort's store ({index.index.min()} to {index.index.max()})"
        )
    shown = _values(index, attribute, values) if attribute else [None]
    numbers = np.random.default_rng([seed, 2]).integers(0, 2**62, seeds)
    rows = pd.DataFrame(
        list(product(shown, numbers.tolist(), _each(guidance), _each(steps))),
        columns=["value", "seed", "guidance", "steps"],
    )
    asked = None if attribute is None else rows[["value"]].set_axis([attribute], axis=1)
    plan = planned(
        index,
        [source_row] * len(rows),
        asked=asked,
        seed=seed,
        fields=fields,
        strength=strength,
        negative=negative,
    )
    plan = plan.assign(seed=rows.seed, guidance=rows.guidance.astype(float))
    return Plan(plan if steps is None else plan.assign(steps=rows.steps))


def _check_attribute(attribute: str | None, values: Sequence[Any] | None) -> None:
    """Raise ValueError unless a sweep can vary this attribute, and has one where it has values."""
    varied = ", ".join(varied_values())
    if attribute is not None and attribute not in varied_values():
        raise ValueError(
            f"plan.attribute={attribute}: a sweep varies one of {varied}, or null for none"
        )
    if values is not None and attribute is None:
        raise ValueError(
            f"plan.values={list(values)} without plan.attribute; name the one of {varied}"
        )


def paper_figures(
    index: pd.DataFrame, *, fields: Sequence[str] = FIELDS, guidance: float = 2.0, seeds: int = 6
) -> Plan:
    """The paper's Fig. 3 and 4: one mask and seed with BMI varied (column figure = 3); one row with
    `seeds` seeds (4).

    Fig. 3 takes a woman in her sixties and a man in his seventies where known; Fig. 4 a man with
    disease.
    """
    parts = []
    if usable(index).bmi_band.notna().any():
        for like in ("F/60-70/healthy", "M/70+/healthy"):
            plan = one_mask(
                index, like=like, attribute="bmi", seed=11, fields=fields, guidance=guidance
            )
            parts.append(plan.rows.assign(figure=3))
    plan = one_mask(
        index, like="M/70+/normal/hf", seeds=seeds, seed=13, fields=fields, guidance=guidance
    )
    rows = pd.concat([*parts, plan.rows.assign(figure=4)], ignore_index=True)
    return Plan(rows.assign(row=np.arange(len(rows))))


def _values(index: pd.DataFrame, attribute: str, values: Sequence[Any] | None) -> list[Any]:
    usual, ranges = varied_values()[attribute], numbers_in(index)
    if values is None:
        return [v for v in usual if attribute != "diagnosis" or v in set(index.diagnosis)]
    if attribute not in ranges:
        unfit, takes = [v for v in values if v not in usual], ", ".join(usual)
    else:
        low, high = ranges[attribute]
        unfit = [v for v in values if not (isinstance(v, int | float) and low <= v <= high)]
        takes = f"numbers from {low:g} to {high:g}"
    if unfit or not len(values):
        raise ValueError(
            f"plan.values={list(values)}: {attribute} takes {takes}; correct "
            f"{unfit or 'the empty list'}"
        )
    return [float(v) if attribute in ranges else v for v in values]


def _each(setting: Any) -> list[Any]:
    return list(setting) if isinstance(setting, Iterable) else [setting]


def _most_like(index: pd.DataFrame, group: str) -> int:
    """The first central row of the training subjects that has most of the group's attributes,
    diagnoses as labels."""
    train, wanted = usable(index), dict(attributes_of(group))
    train = train[train.central] if train.central.any() else train
    label = DIAGNOSES.get(wanted.pop("diagnosis", ""), -1)
    hits = (train.label == label).astype(int) + sum(
        (train[axis] == word).astype(int) for axis, word in wanted.items()
    )
    return int(train.index[int(np.argmax(hits))])
