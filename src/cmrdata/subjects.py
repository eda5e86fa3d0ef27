"""The subject table: bands, groups, validation, split, undersampling and sampling weights.

One row per subject. Every rule about who belongs where is in this file, so that prompts, training
and evaluation can never disagree about a boundary.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, BMI, CONDITIONS, DIAGNOSES, Axis, added, axes_in
from cmrdata.counting import number_of

# every cohort gives these, and whatever further axes need
SUBJECT_COLUMNS = ("subject", "source", "sex", "age", "bmi", "diagnosis")
# after `with_groups`, besides the columns of axes that were added; see `attribute_columns`
ATTRIBUTES = (
    "sex",
    "age",
    "bmi",
    "age_band",
    "bmi_band",
    "diagnosis",
    "conditions",
    "label",
    "group",
)
FOLDS = 5  # of a cross-validation: a test split of 20 %, as without
MOST_VALUES = 20  # of a column whose values are compared as subgroups


def bmi_of(weight: pd.Series, height: pd.Series) -> pd.Series:
    """kg/m2 from kg and cm (or metres, where below 3); missing when either is, or when no person
    has such a BMI."""
    kilograms, metres = (
        pd.to_numeric(weight, errors="coerce"),
        pd.to_numeric(height, errors="coerce"),
    )
    metres = metres.where(metres < 3, metres / 100)
    bmi = kilograms / metres.where(metres > 0) ** 2
    return bmi.where(bmi.between(*BMI.bounds))


def cut(axis: Axis, values: pd.Series) -> pd.Series:
    """Numbers to the bands of an axis; unknown stays missing (never a default category)."""
    numbers, names = pd.to_numeric(values), axis.values
    places = np.digitize(numbers.fillna(0), axis.edges)
    return pd.Series(
        [
            None if missing else names[place]
            for missing, place in zip(numbers.isna(), places, strict=True)
        ],
        index=values.index,
        dtype=object,
    )


def numbers_in(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """The columns of numbers that axes are cut from, as far as the table has them, and what a
    person can have."""
    return {axis.measure: axis.bounds for axis in AXES.values() if axis.measure in table}


def with_bands(table: pd.DataFrame) -> pd.DataFrame:
    """Copy of a table with the bands of every axis whose numbers it has."""
    axes = [axis for axis in AXES.values() if axis.measure in table]
    return table.assign(**{axis.column: cut(axis, table[axis.measure]) for axis in axes})


def attribute_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table of `with_groups` that say what a subject is: ATTRIBUTES, and those of
    added axes."""
    return [*ATTRIBUTES, *(column for column in added() if column in table)]


def with_groups(subjects: pd.DataFrame) -> pd.DataFrame:
    """Validated copy of `subjects` with bands, label and group added.

    Columns in: subject (unique str), source, sex (F, M or missing), age (years), bmi (kg/m2),
    diagnosis (a code of DIAGNOSES, or missing for subjects that are neither case nor control);
    optionally conditions (codes of CONDITIONS in that order, joined by ";"; empty when there are
    none or nothing is known); the columns of added axes. `group` joins what is known, e.g.
    "F/60-70/obese/hf"; with nothing missing there are 36. Raises ValueError naming the column, the
    value and the remedy.
    """
    _require(
        not (absent := [c for c in SUBJECT_COLUMNS if c not in subjects]),
        f"subject table lacks the columns {absent}",
    )
    table = subjects.copy()
    given = [axis for axis in AXES.values() if axis.measure not in table and axis.column in table]
    takes = {axis.column: axis.values for axis in given} | {"diagnosis": tuple(DIAGNOSES)}
    for column in takes:
        table[column] = table[column].astype(object).where(table[column].notna(), None)
    repeated = table.subject[table.subject.duplicated()]
    _require(
        repeated.empty,
        f"{number_of(len(repeated), 'subjects', 'occur')} twice, first "
        f"{repeated.head(1).tolist()}; keep one visit each",
    )
    for column, allowed in takes.items():
        odd = sorted({str(v) for v in table[column].dropna()} - set(allowed))
        _require(
            not odd, f"column {column!r} holds {odd}; it takes {', '.join(allowed)} or nothing"
        )
    table["conditions"] = table.conditions.fillna("") if "conditions" in table else ""
    odd = sorted(
        set(table.conditions) - {";".join(c) for n in range(4) for c in combinations(CONDITIONS, n)}
    )
    _require(
        not odd,
        f"column 'conditions' holds {odd[:5]}; it takes {', '.join(CONDITIONS)} in this order, "
        "joined by ;",
    )
    for column, (low, high) in numbers_in(table).items():
        table[column] = pd.to_numeric(table[column]).astype(float)
        bad = table.loc[
            ~table[column].between(low, high) & table[column].notna(), ["subject", column]
        ]
        _require(
            bad.empty,
            f"subject {bad.subject.iloc[0] if len(bad) else ''}: {column} "
            f"{bad[column].iloc[0] if len(bad) else ''} is outside {low}..{high}; set it to "
            "missing or correct it",
        )
    table = with_bands(table)
    table["label"] = table.diagnosis.map(DIAGNOSES).astype("Int64")
    table["group"] = group_names(table)
    return table


def group_names(table: pd.DataFrame) -> pd.Series:
    """Known attributes of each row joined by "/": the axes in their order, diagnosis."""
    parts = table[[*axes_in(table), "diagnosis"]].astype(object)
    return pd.Series(
        ["/".join(str(v) for v in row if not pd.isna(v)) for row in parts.itertuples(index=False)],
        index=table.index,
        dtype=object,
    )


def further_columns(table: pd.DataFrame) -> list[str]:
    """Columns beyond what every cohort has whose values can be subgroups: text with 2 to
    MOST_VALUES different values."""
    own = {
        *SUBJECT_COLUMNS,
        *ATTRIBUTES,
        "split",
        "stored",
        "balanced",
        "state",
        "flags",
        "table_flags",
        "label_source",
    }
    words = [
        name for name in table if name not in own and not pd.api.types.is_numeric_dtype(table[name])
    ]
    return [name for name in words if 2 <= table[name].nunique() <= MOST_VALUES]


def split(
    table: pd.DataFrame,
    *,
    seed: int,
    fold: int | None = None,
    test: float = 0.2,
    validation: float = 0.2,
) -> pd.Series:
    """A split name per subject, stratified by group (paper 2.3).

    Args:
        table: rows with diagnosis and group.
        seed: of the order within a group.
        fold: 0 to FOLDS - 1: the test split is that part of a cross-validation, so that over all
            folds every subject is tested once.
        test: share of all who are tested.
        validation: share of the rest who validate.

    Returns:
        "train", "val", "test", or "extra" for rows without a diagnosis: neither case nor control,
        they may teach the base and nothing else.

    Subjects are lined up group by group in random order and every 1/fraction-th is taken, so each
    group loses its share within one subject and the total is exact.
    """
    _require(
        fold is None or fold in range(FOLDS),
        f"fold is {fold}; it takes 0 to {FOLDS - 1}, or null for one split",
    )
    rng = np.random.default_rng(seed)
    order = (
        table.assign(_key=rng.random(len(table)))[table.diagnosis.notna()]
        .sort_values(["group", "_key"])
        .index
    )
    where = pd.Series("extra", index=table.index, dtype=object)
    where[order] = "train"
    for name, fraction in (("test", test), ("val", validation)):
        rest = order[where[order] == "train"]
        ticks = np.floor(np.arange(len(rest) + 1) * fraction + rng.random())
        taken = np.diff(ticks) > 0
        if name == "test" and fold is not None:
            taken = np.arange(len(rest)) % FOLDS == fold
        where[rest[taken]] = name
    return where


def keep_controls(table: pd.DataFrame, *, per_case: float | None, seed: int) -> pd.Series:
    """True for the training subjects to use: all cases, and `per_case` times as many random
    controls.

    `per_case=1` is the paper's undersampling to balanced diagnosis (2.3); None keeps every control.
    Other splits are never thinned: evaluation stays at natural prevalence.
    """
    controls = table.index[(table.split == "train") & (table.label == 0)]
    wanted = int(round((per_case or 0) * ((table.split == "train") & (table.label == 1)).sum()))
    keep = pd.Series(True, index=table.index)
    if per_case is not None and wanted < len(controls):
        dropped = np.random.default_rng(seed).permutation(len(controls))[wanted:]
        keep[controls[dropped]] = False
    return keep


def whole(table: pd.DataFrame) -> pd.Series:
    """True for the rows that know every axis of AXES which anyone in the table knows: those that
    belong to a full group."""
    known = [axis for axis in axes_in(table) if table[axis].notna().any()]
    return table[known].notna().all(axis=1)


def balancing_weights(table: pd.DataFrame, *, max_repeats: float | None = None) -> np.ndarray:
    """Weight per row, inversely proportional to its group's size: every group has equal mass (paper
    2.2). Sums to 1.

    A row that lacks an attribute others know belongs to no full group; it keeps the mass of an
    average row.

    Args:
        table: rows with AXES and group.
        max_repeats: no row weighs more than this many average rows, so in a pass of as many draws
            as there are rows it is drawn so often at most. Groups that would need more keep what
            their rows may weigh; the rest is shared by the other groups equally, as far as their
            rows may. None: no cap. The released code clips the weights of rare prompts instead, to
            much the same effect (docs/balance.md).

    Raises:
        ValueError: for a cap below 1, which not even equal weights would keep.
    """
    number = isinstance(max_repeats, int | float) and not isinstance(max_repeats, bool)
    if max_repeats is not None and not (number and max_repeats >= 1):
        raise ValueError(
            f"max_repeats={max_repeats}: give a number of at least 1 (1: everyone alike), or null "
            "for no cap"
        )
    groups, full = table.group, whole(table).to_numpy()
    weights: np.ndarray = 1.0 / groups.map(groups[full].value_counts()).to_numpy(float)
    weights[full] *= full.sum() / np.nansum(weights[full]) if full.any() else 1
    weights[~full] = 1.0
    weights /= weights.sum()
    if max_repeats is not None and len(weights) * weights.max(initial=0) > max_repeats:
        sizes = groups[full].value_counts()
        mass = _filled(sizes.to_numpy() * max_repeats / len(table), total=full.mean())
        weights[full] = groups[full].map(pd.Series(mass / sizes, sizes.index)).to_numpy(float)
    return weights


def _filled(limits: np.ndarray, *, total: float) -> np.ndarray:
    """`total` shared equally by parts of which each takes at most its limit; what one can't take
    goes to the others."""
    shares, order = np.empty(len(limits)), np.argsort(limits, kind="stable")
    for place, part in enumerate(order):
        shares[part] = min(limits[part], total / (len(limits) - place))
        total -= shares[part]
    return shares


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
