"""People of a fake cohort, and images of them as judges see them who are right or err in a share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrdata.batch import LV, MYO, RV
from cmrdata.subjects import with_groups
from cmrgen.evaluation.adherence.areas import structure_areas
from cmrgen.evaluation.adherence.scores import JudgedImages, derangement
from support.fake_cohort import FakeCohort


def people(n: int, *, unknown: tuple[str, ...] = ()) -> pd.DataFrame:
    return with_groups(FakeCohort(count=n, unknown=unknown).subjects()[0])


def judged(table: pd.DataFrame, *, wrong: float = 0.0, seed: int = 0) -> JudgedImages:
    """Judges who err in a share of the images, in every attribute and by half of the LV."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(table), 2, 8, 8), np.uint8)
    masks[:, :, 2:6, 2:6], masks[:, :, 1, 2:6], masks[:, :, 2:6, 0] = LV, MYO, RV
    segmented, errs = masks.copy(), rng.random(len(table)) < wrong
    segmented[errs, :, 4:6, 2:6] = 0
    columns = {
        "sex": table.sex,
        "age_band": table.age_band,
        "bmi_band": table.bmi_band,
        "diagnosis": table.label,
    }
    predicted = {axis: np.array(column, object) for axis, column in columns.items()}
    for values in predicted.values():
        values[errs] = np.array(
            ["M" if v == "F" else "F" if v == "M" else "none" for v in values[errs]], object
        )
    others = derangement(len(table), seed=0)
    flat = np.zeros((len(table), 2), bool)
    return JudgedImages(
        table,
        structure_areas(segmented, masks),
        predicted,
        flat,
        others,
        structure_areas(segmented, masks[others]),
    )
