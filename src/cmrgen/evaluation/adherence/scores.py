"""Do synthetic images show their mask and their prompt? Dice and accuracies of what the judges see,
against references.

Tables and arrays in, tables out; the networks behind segmentations and predictions are in
judges.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.axes import DIAGNOSIS, Axis, as_in_table2, learnable_axes, values_in, with_diagnosis
from cmrdata.batch import LABELS, PHASES
from cmrgen.evaluation.adherence.areas import Areas
from cmrgen.evaluation.fidelity.subgroups import FEW
from cmrstudy import intervals
from cmrstudy.intervals import Estimate


def metric_names() -> dict[str, str]:
    """Axis -> its metric, "age_accuracy" of age_band, in the order of a table."""
    axes = [*as_in_table2(), DIAGNOSIS]
    return {axis.column: f"{axis.column.removesuffix('_band')}_accuracy" for axis in axes}


def asked_by(metric: str) -> Axis | None:
    """The axis of a metric; None of Dice."""
    names = {name: column for column, name in metric_names().items()}
    return with_diagnosis()[names[metric]] if metric in names else None


@dataclass(frozen=True)
class Seen:
    """n images of one source: what they should show, and what the judges see in them."""

    table: pd.DataFrame  # n rows: subject, sex, age_band, bmi_band, label, group
    areas: Areas  # of the segmentations and the images' own masks
    # axis -> (n,) values as in the table; diagnosis as 0, 1; None for a flat image
    predicted: dict[str, np.ndarray]
    # (n, 2) bool, pictures of one grey value; None where nobody looked
    flat: np.ndarray | None = None
    # (n,) the row that each image is compared with for chance: a `derangement`
    others: np.ndarray | None = None
    shuffled: Areas | None = None  # of the segmentations and those rows' masks

    @cached_property
    def structures(self) -> np.ndarray:
        """(n, 2, 3) Dice of LV, MYO and RV in the images against their own masks."""
        return self.areas.dice


def dice(of: Areas) -> np.ndarray:
    """(n, 2) mean Dice per image and phase over structures present in either; NaN for none."""
    return _mean(of.dice, -1)


def accuracy(predicted: np.ndarray, index: pd.DataFrame, axis: str, groups: set[str]) -> float:
    """Mean over `groups` of the accuracy within each: every group has equal mass whatever its size;
    NaN for none."""
    wanted = values_in(index, axis)
    rows = pd.DataFrame({"group": index.group.to_numpy(), "right": predicted == wanted})[
        wanted.notna().to_numpy()
    ]
    within = rows[rows.group.isin(groups)].groupby("group").right.mean()
    return float(within.mean()) if len(within) else float("nan")


def adherence(real: Seen, synthetic: Seen) -> pd.DataFrame:
    """Rows dice and an accuracy per axis; columns metric, real, synthetic, shuffled, n.

    real: held-out real images against their own masks and attributes, what the judges reach at
        best. shuffled: the
    synthetic images against another row's masks and attributes (`Seen.others`), what chance
    reaches. Dice is the mean over images and phases. Accuracies give every group that both sides
    hold equal mass, in all three columns, so that a real test set of natural prevalence and a
    balanced synthetic set are comparable.
    n: synthetic images behind the row; NaN and 0 for an axis unknown on either side. attrs:
        warnings.
    """
    others, shuffled = _chance(synthetic)
    elsewhere = synthetic.table.iloc[others].reset_index(drop=True)
    columns = {
        "real": dice(real.areas),
        "synthetic": dice(synthetic.areas),
        "shuffled": dice(shuffled),
    }
    rows: list[dict[str, Any]] = [
        {
            "metric": "dice",
            **{k: float(_mean(v, None)) for k, v in columns.items()},
            "n": int((~np.isnan(columns["synthetic"])).any(1).sum()),
        }
    ]
    warnings, common = [], set(real.table.group) & set(synthetic.table.group)
    if alone := (set(real.table.group) | set(synthetic.table.group)) - common:
        warnings.append(
            f"{len(alone)} groups occur on one side only; the accuracies leave them out: {_listed(alone)}."
        )
    for axis, metric in metric_names().items():
        row: dict[str, Any] = {
            "metric": metric,
            "real": np.nan,
            "synthetic": np.nan,
            "shuffled": np.nan,
            "n": 0,
        }
        if (
            axis in synthetic.predicted
            and axis in learnable_axes(real.table)
            and axis in learnable_axes(synthetic.table)
        ):
            row["real"] = accuracy(real.predicted[axis], real.table, axis, common)
            row["synthetic"] = accuracy(synthetic.predicted[axis], synthetic.table, axis, common)
            row["shuffled"] = accuracy(synthetic.predicted[axis], elsewhere, axis, common)
            row["n"] = int(
                (
                    synthetic.table.group.isin(common) & values_in(synthetic.table, axis).notna()
                ).sum()
            )
        rows.append(row)
    table = pd.DataFrame(rows)
    if small := [
        f"{name} ({count})"
        for name, count in (("real", len(real.table)), ("synthetic", len(synthetic.table)))
        if count < FEW
    ]:
        warnings.append(
            f"Fewer than {FEW} images: {', '.join(small)}; these shares are only a hint."
        )
    table.attrs["warnings"] = warnings
    return table


def adherence_detail(real: Seen, synthetic: Seen) -> pd.DataFrame:
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
                here = values[:, p, s][~np.isnan(values[:, p, s])]
                row[name] = here.mean() if len(here) else np.nan
                row[f"{name}_sd"] = here.std(ddof=1) if len(here) > 1 else np.nan
                row[f"{name}_n"] = len(here)
            rows.append(row)
    return pd.DataFrame(rows)


def by_group(real: Seen, synthetic: Seen) -> pd.DataFrame:
    """Dice and accuracies of all images, per band and per full group, each with n and a 95 %
    interval.

    Columns: axis ("all", an axis, or "group"), subgroup, metric (as in `adherence`), then for real
        and synthetic the
    value, _low, _high, _n (images that count) and _subjects (sources, which the intervals take as
    independent; Dice: t,
    accuracies: Wilson); difference (synthetic - real), _low, _high (Newcombe); few: under 20
        subjects on either side.
    Above full groups accuracies give every group that both sides hold equal mass, as in
    `adherence`; Dice counts images.
    """
    sides = {"real": real, "synthetic": synthetic}
    axes = [
        axis
        for axis in learnable_axes(real.table)
        if axis in learnable_axes(synthetic.table) and axis in synthetic.predicted
    ]
    names = {axis: metric for axis, metric in metric_names().items() if axis in axes}
    common = set(real.table.group) & set(synthetic.table.group)
    dices = {name: _mean(_mean(side.structures, -1), -1) for name, side in sides.items()}
    people = {name: pd.factorize(side.table.subject)[0] for name, side in sides.items()}
    rows: list[dict[str, Any]] = []
    for axis, subgroup in _subgroups(real.table, synthetic.table, axes):
        here = {name: _members(side.table, axis, subgroup) for name, side in sides.items()}
        for metric in ("dice", *names.values()):
            row: dict[str, Any] = {"axis": axis, "subgroup": subgroup, "metric": metric}
            found = {}
            for name, side in sides.items():
                chosen = here[name]
                if metric == "dice":
                    part = intervals.mean(dices[name][chosen], people[name][chosen])
                    found[name] = part._replace(low=max(part.low, 0.0), high=min(part.high, 1.0))
                else:
                    asked = next(key for key, value in names.items() if value == metric)
                    if axis != "group":
                        chosen = chosen & side.table.group.isin(common).to_numpy()
                    found[name] = _equal_share(side, asked, chosen, people[name])
                row |= _columns(name, found[name])
            gap = intervals.difference(found["synthetic"], found["real"])
            row |= dict(zip(("difference", "difference_low", "difference_high"), gap, strict=True))
            rows.append(
                row | {"few": min(found["real"].subjects, found["synthetic"].subjects) < FEW}
            )
    return pd.DataFrame(rows)


def confusion(real: Seen, synthetic: Seen) -> pd.DataFrame:
    """How often each attribute is seen: a row per axis, value asked for, side (images) and value
    seen; share, count, n.

    n images ask for the value; share is count / n, NaN for none. `seen` is "nothing" for flat
    images, where there are any.
    """
    rows = []
    for axis in metric_names():
        if axis not in synthetic.predicted or axis not in learnable_axes(real.table):
            continue
        for value in with_diagnosis()[axis].bands:
            for name, side in (("real", real), ("synthetic", synthetic)):
                found = pd.Series(
                    side.predicted[axis][(values_in(side.table, axis) == value).to_numpy(bool)],
                    dtype=object,
                )
                values = [
                    *with_diagnosis()[axis].bands,
                    *([None] if found.isna().any() else []),
                ]
                for seen in values:
                    count = int((found.isna() if seen is None else found == seen).sum())
                    rows.append(
                        {
                            "axis": axis,
                            "asked": value,
                            "images": name,
                            "seen": "nothing" if seen is None else seen,
                            "share": count / len(found) if len(found) else np.nan,
                            "count": count,
                            "n": len(found),
                        }
                    )
    return pd.DataFrame(rows, columns=["axis", "asked", "images", "seen", "share", "count", "n"])


def faults(real: Seen, synthetic: Seen) -> list[str]:
    """A sentence for each thing that a mean of Dice or accuracy would hide."""
    found = []
    for name, side in (("real", real), ("synthetic", synthetic)):
        n, empty = len(side.table), ~(side.areas.seen > 0).any((1, 2))
        if side.flat is not None and side.flat.any():
            found.append(
                f"{int(side.flat.any(1).sum())} of {n} {name} images are flat, of one grey value at ED or ES: such "
                "a picture shows no structure, and an image flat at both counts as wrong in every accuracy."
            )
        if empty.any():
            found.append(
                f"The segmenter finds no heart in {int(empty.sum())} of {n} {name} images: their Dice is 0, which "
                "the means include."
            )
        lacking = {
            f"{structure} at {phase}": int((side.areas.asked[:, p, s] == 0).sum())
            for s, structure in enumerate(LABELS)
            for p, phase in enumerate(PHASES)
        }
        if lacking := {where: count for where, count in lacking.items() if count}:
            listed = ", ".join(f"{where} {count}" for where, count in lacking.items())
            undefined = int(np.isnan(side.structures).sum())
            found.append(
                f"Masks of {name} images without a structure (of {n}): {listed}. Where the segmenter sees none "
                f"either, Dice is undefined and left out ({undefined} times); where it sees one, Dice is 0."
            )
    return found


def _subgroups(
    real: pd.DataFrame, synthetic: pd.DataFrame, axes: list[str]
) -> list[tuple[str, Any]]:
    """("all", "all"), each band that either side holds, each full group that either side holds."""
    both = pd.concat([real, synthetic])
    found: list[tuple[str, Any]] = [("all", "all")]
    for axis in axes:
        held = set(values_in(both, axis).dropna())
        found += [(axis, value) for value in with_diagnosis()[axis].bands if value in held]
    return found + [("group", group) for group in sorted(set(both.group))]


def _members(table: pd.DataFrame, axis: str, subgroup: Any) -> np.ndarray:
    if axis == "all":
        return np.ones(len(table), bool)
    column = table.group if axis == "group" else values_in(table, axis)
    return (column == subgroup).fillna(False).to_numpy(bool)


def _equal_share(side: Seen, axis: str, chosen: np.ndarray, people: np.ndarray) -> Estimate:
    """The share of the chosen images whose `axis` is seen as asked; every full group has equal
    mass."""
    wanted = values_in(side.table, axis)
    rows = np.flatnonzero(chosen & wanted.notna().to_numpy())
    group = side.table.group.iloc[rows]
    weights = 1 / group.map(group.value_counts()).to_numpy(float)
    right = side.predicted[axis][rows] == wanted.to_numpy()[rows]
    return intervals.share(right, people[rows], weights=weights)


def _columns(name: str, found: Estimate) -> dict[str, Any]:
    return {
        name: found.value,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_n": found.n,
        f"{name}_subjects": found.subjects,
    }


def derangement(n: int, *, seed: int) -> np.ndarray:
    """A random order of n rows that leaves none in its place: one cycle through all. Raises
    ValueError for n < 2."""
    if n < 2:
        raise ValueError(f"a set of {n} images cannot be shuffled; make at least 2")
    cycle = np.random.default_rng(seed).permutation(n)
    order = np.empty(n, int)
    order[cycle] = np.roll(cycle, 1)
    return order


def _chance(synthetic: Seen) -> tuple[np.ndarray, Areas]:
    """What tells what chance reaches. Raises ValueError where nobody compared with other rows."""
    if synthetic.others is None or synthetic.shuffled is None:
        raise ValueError(
            "the synthetic images were not compared with other rows' masks; judge them with others="
        )
    return synthetic.others, synthetic.shuffled


def _mean(values: np.ndarray, axis: int | None) -> np.ndarray:
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.divide(
        np.nansum(values, axis), count, out=np.full(np.shape(count), np.nan), where=count > 0
    )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (" ..." if len(names) > 5 else "")
