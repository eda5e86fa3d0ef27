"""Do synthetic images show their mask and their prompt? Dice and accuracies of what the judges see,
against references.

Tables and arrays in, tables out; the networks behind segmentations and predictions are in
judges.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cmrdata.axes import DIAGNOSIS, Axis, as_in_table2, learnable_axes, values_in, with_diagnosis
from cmrdata.batch import LABELS, PHASES
from cmrdata.counting import number_of
from cmrgen.evaluation.adherence.areas import Areas
from cmrstudy import intervals
from cmrstudy.intervals import MIN_COUNT, Estimate


def metric_names() -> dict[str, str]:
    """Axis -> its metric, "age_accuracy" of age_band, in the order of a table."""
    axes = [*as_in_table2(), DIAGNOSIS]
    return {axis.column: f"{axis.column.removesuffix('_band')}_accuracy" for axis in axes}


def asked_by(metric: str) -> Axis | None:
    """The axis of a metric; None of Dice."""
    names = {name: column for column, name in metric_names().items()}
    return with_diagnosis()[names[metric]] if metric in names else None


@dataclass(frozen=True)
class JudgedImages:
    """n images of one source: what they should show, and what the judges see in them."""

    table: pd.DataFrame  # n rows: subject, sex, age_band, bmi_band, label, group
    areas: Areas  # of the segmentations and the images' own masks
    # axis -> (n,) values as in the table; diagnosis as 0, 1; None for a flat image
    predicted: dict[str, np.ndarray]
    # (n, 2) bool, pictures of one grey value; None where nobody looked
    flat: np.ndarray | None = None
    # (n,) the row that each image is compared with for chance: a `derangement`
    other_rows: np.ndarray | None = None
    shuffled: Areas | None = None  # of the segmentations and those rows' masks

    @cached_property
    def structures(self) -> np.ndarray:
        """(n, 2, 3) Dice of LV, MYO and RV in the images against their own masks."""
        return self.areas.dice


class Scores(NamedTuple):
    """A table of numbers, and what its readers must know."""

    table: pd.DataFrame
    warnings: list[str]  # sentences


def mean_dice(areas: Areas) -> np.ndarray:
    """(n, 2) mean Dice per image and phase over structures present in either; NaN for none."""
    return _mean(areas.dice, -1)


def accuracy(predicted: np.ndarray, index: pd.DataFrame, axis: str, groups: set[str]) -> float:
    """Mean over `groups` of the accuracy within each: every group has equal weight whatever its
    size; NaN for none.

    Args:
        predicted: (n,) values of the axis.
        index: n rows with the axis and their group.
        axis: of `metric_names`.
        groups: those that count.
    """
    true = values_in(index, axis)
    rows = pd.DataFrame({"group": index.group.to_numpy(), "right": predicted == true})[
        true.notna().to_numpy()
    ]
    within = rows[rows.group.isin(groups)].groupby("group").right.mean()
    return float(within.mean()) if len(within) else float("nan")


def adherence_table(real: JudgedImages, synthetic: JudgedImages) -> Scores:
    """Rows dice and an accuracy per axis; columns metric, real, synthetic, shuffled, n.

    real: held-out real images against their own masks and attributes, what the judges reach at
    best. shuffled: the synthetic images against another row's masks and attributes
    (`JudgedImages.other_rows`), what chance reaches. Dice is the mean over images and phases.
    Accuracies give every group that both sides hold equal weight, in all three columns, so that a
    real test set of natural prevalence and a balanced synthetic set are comparable. n: synthetic
    images behind the row; NaN and 0 for an axis unknown on either side.
    """
    other_rows, shuffled = _chance(synthetic)
    elsewhere = synthetic.table.iloc[other_rows].reset_index(drop=True)
    columns = {
        "real": mean_dice(real.areas),
        "synthetic": mean_dice(synthetic.areas),
        "shuffled": mean_dice(shuffled),
    }
    rows: list[dict[str, Any]] = [
        {
            "metric": "dice",
            **{k: float(_mean(v, None)) for k, v in columns.items()},
            "n": int((~np.isnan(columns["synthetic"])).any(1).sum()),
        }
    ]
    common = _common_groups(real, synthetic)
    compared = _compared_axes(real, synthetic)
    for axis, metric in metric_names().items():
        row: dict[str, Any] = {
            "metric": metric,
            "real": np.nan,
            "synthetic": np.nan,
            "shuffled": np.nan,
            "n": 0,
        }
        if axis in compared:
            row["real"] = accuracy(real.predicted[axis], real.table, axis, common)
            row["synthetic"] = accuracy(synthetic.predicted[axis], synthetic.table, axis, common)
            row["shuffled"] = accuracy(synthetic.predicted[axis], elsewhere, axis, common)
            known = values_in(synthetic.table, axis).notna()
            row["n"] = int((synthetic.table.group.isin(common) & known).sum())
        rows.append(row)
    return Scores(pd.DataFrame(rows), _adherence_warnings(real, synthetic))


def _adherence_warnings(real: JudgedImages, synthetic: JudgedImages) -> list[str]:
    warnings = []
    if alone := set(real.table.group) ^ set(synthetic.table.group):
        warnings.append(
            f"{number_of(len(alone), 'groups', 'occur')} on one side only; the accuracies leave "
            f"them out: {_listed(alone)}."
        )
    if small := [
        f"{name} ({count})"
        for name, count in (("real", len(real.table)), ("synthetic", len(synthetic.table)))
        if count < MIN_COUNT
    ]:
        warnings.append(
            f"Fewer than {MIN_COUNT} images: {', '.join(small)}; these shares are only a hint."
        )
    return warnings


def adherence_detail(real: JudgedImages, synthetic: JudgedImages) -> pd.DataFrame:
    """Dice per structure and phase: mean, sd over images and n of real, synthetic and shuffled."""
    scores = {
        "real": real.structures,
        "synthetic": synthetic.structures,
        "shuffled": _chance(synthetic)[1].dice,
    }
    rows = []
    for s, structure in enumerate(LABELS):
        for p, phase in enumerate(PHASES):
            row: dict[str, Any] = {"structure": structure, "phase": phase}
            for name, values in scores.items():
                known = values[:, p, s][~np.isnan(values[:, p, s])]
                row[name] = known.mean() if len(known) else np.nan
                row[f"{name}_sd"] = known.std(ddof=1) if len(known) > 1 else np.nan
                row[f"{name}_n"] = len(known)
            rows.append(row)
    return pd.DataFrame(rows)


def by_group(real: JudgedImages, synthetic: JudgedImages) -> pd.DataFrame:
    """Dice and accuracies of all images, per band and per full group, each with n and a 95 %
    interval.

    Columns: axis ("all", an axis, or "group"), subgroup, metric (as in `adherence_table`), then for
    real and synthetic the value, _low, _high, _n (images that count) and _subjects (sources, which
    the intervals take as independent; Dice: t, accuracies: Wilson); difference (synthetic - real),
    _low, _high (Newcombe); few: under 20 subjects on either side. Above full groups accuracies give
    every group that both sides hold equal weight, as in `adherence_table`; Dice counts images.
    """
    sides = {"real": real, "synthetic": synthetic}
    axes = _compared_axes(real, synthetic)
    accuracies = {metric: axis for axis, metric in metric_names().items() if axis in axes}
    common = _common_groups(real, synthetic)
    dices = {name: _mean(_mean(side.structures, -1), -1) for name, side in sides.items()}
    people = {name: pd.factorize(side.table.subject)[0] for name, side in sides.items()}
    rows: list[dict[str, Any]] = []
    for axis, subgroup in _subgroups(real.table, synthetic.table, axes):
        members = {name: _members(side.table, axis, subgroup) for name, side in sides.items()}
        estimates = {
            name: intervals.mean(dices[name][chosen], people[name][chosen])
            for name, chosen in members.items()
        }
        bounded = {
            name: estimate._replace(low=max(estimate.low, 0.0), high=min(estimate.high, 1.0))
            for name, estimate in estimates.items()
        }
        rows.append({"axis": axis, "subgroup": subgroup, "metric": "dice", **_compared(bounded)})
        if axis != "group":
            members = {
                name: chosen & sides[name].table.group.isin(common).to_numpy()
                for name, chosen in members.items()
            }
        for metric, asked in accuracies.items():
            shares = {
                name: _equal_share(sides[name], asked, chosen, people[name])
                for name, chosen in members.items()
            }
            rows.append({"axis": axis, "subgroup": subgroup, "metric": metric, **_compared(shares)})
    return pd.DataFrame(rows)


def _compared(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """The columns of real and synthetic images, their difference, and few."""
    row: dict[str, Any] = {}
    for name, estimate in estimates.items():
        row |= {
            name: estimate.value,
            f"{name}_low": estimate.low,
            f"{name}_high": estimate.high,
            f"{name}_n": estimate.n,
            f"{name}_subjects": estimate.subjects,
        }
    gap = intervals.difference(estimates["synthetic"], estimates["real"])
    row |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
    return row | {"few": min(estimate.subjects for estimate in estimates.values()) < MIN_COUNT}


def confusion_counts(real: JudgedImages, synthetic: JudgedImages) -> pd.DataFrame:
    """How often each attribute is seen: a row per axis, value asked for, side (images) and value
    seen; share, count, n.

    n images ask for the value; share is count / n, NaN for none. `seen` is "nothing" for flat
    images, where there are any.
    """
    rows = []
    for axis in metric_names():
        if axis not in synthetic.predicted or axis not in learnable_axes(real.table):
            continue
        bands = with_diagnosis()[axis].values
        for asked in bands:
            for name, side in (("real", real), ("synthetic", synthetic)):
                chosen = (values_in(side.table, axis) == asked).to_numpy(bool)
                predicted = pd.Series(side.predicted[axis][chosen], dtype=object)
                flat = predicted.isna()
                counts = {value: int((predicted == value).sum()) for value in bands}
                if flat.any():
                    counts["nothing"] = int(flat.sum())
                n = len(predicted)
                rows += [
                    (axis, asked, name, value, count / n if n else np.nan, count, n)
                    for value, count in counts.items()
                ]
    return pd.DataFrame(rows, columns=["axis", "asked", "images", "seen", "share", "count", "n"])


def faults(real: JudgedImages, synthetic: JudgedImages) -> list[str]:
    """A sentence for each thing that a mean of Dice or accuracy would hide."""
    sentences = []
    for name, side in (("real", real), ("synthetic", synthetic)):
        n, empty = len(side.table), ~(side.areas.segmented > 0).any((1, 2))
        if side.flat is not None and side.flat.any():
            sentences.append(
                f"{int(side.flat.any(1).sum())} of {n} {name} images are flat, of one grey value "
                "at ED or ES: such a picture shows no structure, and an image flat at both counts "
                "as wrong in every accuracy."
            )
        if empty.any():
            sentences.append(
                f"The segmenter finds no heart in {int(empty.sum())} of {n} {name} images: their "
                "Dice is 0, which the means include."
            )
        absent = {
            f"{structure} at {phase}": int((side.areas.mask[:, p, s] == 0).sum())
            for s, structure in enumerate(LABELS)
            for p, phase in enumerate(PHASES)
        }
        if absent := {where: count for where, count in absent.items() if count}:
            listed = ", ".join(f"{where} {count}" for where, count in absent.items())
            undefined = int(np.isnan(side.structures).sum())
            sentences.append(
                f"Masks of {name} images without a structure (of {n}): {listed}. Where the "
                f"segmenter sees none either, Dice is undefined and left out ({undefined} times); "
                "where it sees one, Dice is 0."
            )
    return sentences


def derangement(n: int, *, seed: int) -> np.ndarray:
    """A random order of n rows that leaves none in its place: one cycle through all.

    Raises:
        ValueError: n < 2.
    """
    if n < 2:
        raise ValueError(f"a set of {n} images cannot be shuffled; make at least 2")
    cycle = np.random.default_rng(seed).permutation(n)
    order = np.empty(n, int)
    order[cycle] = np.roll(cycle, 1)
    return order


def _common_groups(real: JudgedImages, synthetic: JudgedImages) -> set[str]:
    return set(real.table.group) & set(synthetic.table.group)


def _compared_axes(real: JudgedImages, synthetic: JudgedImages) -> list[str]:
    """The axes known on both sides, of which the judges predict a value."""
    known = learnable_axes(synthetic.table)
    return [
        axis for axis in learnable_axes(real.table) if axis in known and axis in synthetic.predicted
    ]


def _subgroups(
    real: pd.DataFrame, synthetic: pd.DataFrame, axes: list[str]
) -> list[tuple[str, Any]]:
    """("all", "all"), each band that either side holds, each full group that either side holds."""
    both = pd.concat([real, synthetic])
    subgroups: list[tuple[str, Any]] = [("all", "all")]
    for axis in axes:
        values = set(values_in(both, axis).dropna())
        subgroups += [(axis, value) for value in with_diagnosis()[axis].values if value in values]
    return subgroups + [("group", group) for group in sorted(set(both.group))]


def _members(table: pd.DataFrame, axis: str, subgroup: Any) -> np.ndarray:
    if axis == "all":
        return np.ones(len(table), bool)
    column = table.group if axis == "group" else values_in(table, axis)
    members: np.ndarray = (column == subgroup).fillna(False).to_numpy(bool)
    return members


def _equal_share(side: JudgedImages, axis: str, chosen: np.ndarray, people: np.ndarray) -> Estimate:
    """The share of the chosen images whose `axis` is seen as asked; every full group has equal
    weight."""
    true = values_in(side.table, axis)
    rows = np.flatnonzero(chosen & true.notna().to_numpy())
    group = side.table.group.iloc[rows]
    weights = 1 / group.map(group.value_counts()).to_numpy(float)
    right = side.predicted[axis][rows] == true.to_numpy()[rows]
    return intervals.share(right, people[rows], weights=weights)


def _chance(synthetic: JudgedImages) -> tuple[np.ndarray, Areas]:
    """What tells what chance reaches. Raises ValueError where nobody compared with other rows."""
    if synthetic.other_rows is None or synthetic.shuffled is None:
        raise ValueError(
            "the synthetic images were not compared with other rows' masks; judge them with others="
        )
    return synthetic.other_rows, synthetic.shuffled


def _mean(values: np.ndarray, axis: int | None) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(axis)
    mean: np.ndarray = np.divide(
        np.nansum(values, axis), count, out=np.full(np.shape(count), np.nan), where=count > 0
    )
    return mean


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
