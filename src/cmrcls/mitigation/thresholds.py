"""Thresholds per group, after the training (Hardt et al. 2016), by fairlearn's
ThresholdOptimizer."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from cmrcls.arms import Arms
from cmrcls.mitigation.after import BestEpoch
from cmrdata.axes import AXES, known_axes

CONSTRAINTS = (  # of fairlearn's ThresholdOptimizer
    "equalized_odds",
    "demographic_parity",
    "true_positive_rate_parity",
    "false_positive_rate_parity",
)


class Thresholds(BestEpoch):
    """The best epoch's probabilities, with thresholds of each group's own: see
    `group_thresholds`.

    Args:
        attribute: one of AXES; their intersections are too small.
        constraint: one of CONSTRAINTS.

    Raises:
        ValueError: for another attribute or constraint.
    """

    def __init__(self, *, attribute: str = "sex", constraint: str = "equalized_odds") -> None:
        for key, value, names in (
            ("attribute", attribute, tuple(AXES)),
            ("constraint", constraint, CONSTRAINTS),
        ):
            if value not in names:
                raise ValueError(
                    f"mitigation.after.{key}={value!r} is unknown; choose one of {', '.join(names)}"
                )
        self.attribute, self.constraint = attribute, constraint

    def check(self, index: pd.DataFrame, *, cohort: str) -> None:
        """Raise ValueError unless the attribute has two values at least in validation."""
        axis, val = self.attribute, index[index.split == "val"]
        values = sorted(val[axis].dropna().unique())
        if len(values) < 2:
            who = f"is {values[0]} for everybody" if values else "is known for nobody"
            others = known_axes(val)
            first = f"mitigation.after.attribute={others[0]}, " if others else ""
            raise ValueError(
                f"{axis} {who} in the validation split of cohort {cohort}, so there are no groups "
                f"with thresholds of their own; choose {first}mitigation=none, or a cohort that "
                "knows it"
            )

    def predict(self, module: Any, trainer: Any, data: Arms, *, seed: int) -> pd.DataFrame:
        table = super().predict(module, trainer, data, seed=seed)
        if not trainer.is_global_zero:  # the first process writes the table, and warns once
            return table
        return group_thresholds(
            table, attribute=self.attribute, constraint=self.constraint, seed=seed
        )


def group_thresholds(
    table: pd.DataFrame, *, attribute: str = "sex", constraint: str = "equalized_odds", seed: int
) -> pd.DataFrame:
    """Copy of a prediction table whose `predicted` comes from thresholds per group of `attribute`.

    They are fitted for each disease on the validation rows, for balanced accuracy under
    `constraint`. `probability` stays. A group that lacks a class in validation, and people of whom
    the attribute is unknown, keep the common threshold of 0.5, which a warning says.

    Args:
        table: rows of validation and test, as `cmrcls.arms.prediction_table` gives them.
        attribute: one of AXES.
        constraint: one of CONSTRAINTS.
        seed: of the decisions, which are partly random.
    """
    table = table.copy()
    values = table[attribute].astype(object).where(table[attribute].notna(), "unknown")
    for disease, rows in table.groupby("disease", sort=False):
        band = values[rows.index]
        names = _with_both_classes(rows, band)
        if others := sorted(set(band) - set(names)):
            warnings.warn(
                f"mitigation=thresholds, {disease}: {attribute} {', '.join(others)} "
                f"{'keep' if len(others) > 1 else 'keeps'} the common threshold 0.5: "
                f"{'it needs' if names else 'thresholds need'} cases and controls in "
                f"validation{'' if names else ' of two groups or more'}",
                stacklevel=2,
            )
        if names:
            inside = rows[band.isin(names)]
            table.loc[inside.index, "predicted"] = _decisions(
                inside, band[inside.index], constraint=constraint, seed=seed
            )
    return table


def _with_both_classes(rows: pd.DataFrame, band: pd.Series) -> list[str]:
    """Values of the attribute with cases and controls in validation; none, where fewer than two
    have."""
    val = rows.split == "val"
    classes = rows[val].groupby(band[val]).label.nunique()
    names = [name for name in classes.index[classes == 2] if name != "unknown"]
    return names if len(names) > 1 else []


def _decisions(rows: pd.DataFrame, band: pd.Series, *, constraint: str, seed: int) -> Any:
    """(rows,) 0 or 1 by thresholds for each value of `band`, fitted on the validation rows."""
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.preprocessing import FunctionTransformer

    score, val = rows[["probability"]].astype(float), rows.split == "val"
    optimiser = ThresholdOptimizer(
        estimator=FunctionTransformer(),  # the probabilities as they are
        constraints=constraint,
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="transform",
    )
    optimiser.fit(score[val], rows.label[val], sensitive_features=band[val])
    return optimiser.predict(score, sensitive_features=band, random_state=seed)
