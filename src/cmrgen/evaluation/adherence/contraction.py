"""Does the heart contract as its masks say? The area change of the mask against that of the
segmented image, as Bland and Altman compare.

A slice has no volume, so this is the fractional area change (FAC) of the LV cavity in one
short-axis slice: it follows the ejection fraction but is not one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import LABELS
from cmrgen.evaluation.adherence.scores import JudgedImages, Scores
from cmrstudy import intervals
from cmrstudy.intervals import MIN_COUNT

LIMIT = 1.96  # sd to each side of the bias: limits of agreement
CAVITY = list(LABELS).index("LV")  # among the structures of `Areas`
HEARTS = {"all": (0, 1), "healthy": (0,), "diseased": (1,)}  # labels


def area_change(cavity: np.ndarray) -> np.ndarray:
    """(n, 2) pixels of the LV cavity, ED then ES -> (n,) per cent of its area at ED that is gone at
    ES.

    NaN where there is no cavity at ED; negative where it grows, which an image can show and a heart
    cannot.
    """
    diastole, systole = cavity.T.astype(float)
    unknown = np.full(diastole.shape, np.nan)
    change: np.ndarray = 100 * (1 - np.divide(systole, diastole, out=unknown, where=diastole > 0))
    return change


def area_changes(images: JudgedImages) -> pd.DataFrame:
    """A row per image: subject, label, mask and segmented (FAC in per cent, NaN where
    undefined)."""
    mask, segmented = (
        area_change(pixels[..., CAVITY]) for pixels in (images.areas.mask, images.areas.segmented)
    )
    who = {"subject": images.table.subject.to_numpy(), "label": images.table.label.to_numpy()}
    return pd.DataFrame({**who, "mask": mask, "segmented": segmented})


def agreement(real: pd.DataFrame, synthetic: pd.DataFrame) -> Scores:
    """Bland-Altman of `area_changes`, per kind of images and diagnosis (hearts): per cent of the
    area, segmented - mask.

    Columns: images, hearts, n, subjects, mask and segmented (means), bias, lower, upper (limits of
    agreement, bias -+ 1.96 sd over images), slope (of segmented on mask by least squares: 1 where
    the heart follows its mask, 0 where it contracts the same whatever the mask says) each with its
    95 % interval _low, _high, undefined (images without LV at ED in mask or segmentation, left
    out), growing (segmented cavities larger at ES). Intervals take subjects as independent, by the
    delta method; with normal differences and one image a subject they are Bland and Altman's
    (1999): an error of sd/sqrt(n) for the bias and about sd sqrt(3/n) for a limit. NaN below two
    images, and intervals for fewer than two subjects.
    """
    rows = [
        {"images": name, "hearts": hearts, **_agreement_row(table[table.label.isin(labels)])}
        for name, table in (("real", real), ("synthetic", synthetic))
        for hearts, labels in HEARTS.items()
    ]
    table = pd.DataFrame(rows)
    return Scores(table, _agreement_warnings(table))


def _agreement_warnings(table: pd.DataFrame) -> list[str]:
    warnings = []
    for name, rows in table[table.hearts == "all"].groupby("images", sort=False):
        n, undefined, growing = (int(rows[c].iloc[0]) for c in ("n", "undefined", "growing"))
        if undefined:
            warnings.append(
                f"{undefined} of {undefined + n} {name} images have no LV cavity at ED in mask or "
                "segmentation: no area change."
            )
        if growing:
            warnings.append(
                f"In {growing} of {n} {name} images the segmented cavity is larger at ES than at "
                "ED."
            )
    small = table[table.subjects < MIN_COUNT]
    if few := [
        f"{name} {hearts} ({n})"
        for name, hearts, n in zip(small.images, small.hearts, small.subjects, strict=True)
    ]:
        warnings.append(
            f"Fewer than {MIN_COUNT} subjects: {', '.join(few)}; limits of agreement are only a "
            "hint there."
        )
    return warnings


def _agreement_row(table: pd.DataFrame) -> dict[str, Any]:
    known = table.dropna(subset=["mask", "segmented"])
    differences, subjects = (
        (known.segmented - known["mask"]).to_numpy(float),
        known.subject.to_numpy(),
    )
    row: dict[str, Any] = {
        "n": len(known),
        "subjects": known.subject.nunique(),
        "mask": known["mask"].mean(),
        "segmented": known.segmented.mean(),
    }
    enough = len(differences) > 1
    sd = differences.std(ddof=1) if enough else np.nan
    for name, sign in (("bias", 0), ("lower", -1), ("upper", 1)):
        value = differences.mean() + sign * LIMIT * sd if enough else np.nan
        half = np.nan
        if enough and sd > 0:
            residual = differences - differences.mean()
            half = intervals.influence(
                residual + sign * LIMIT * (residual**2 - sd**2) / (2 * sd), subjects
            )
        row |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    slope, half = _slope(known["mask"].to_numpy(float), known.segmented.to_numpy(float), subjects)
    row |= {"slope": slope, "slope_low": slope - half, "slope_high": slope + half}
    return row | {"undefined": len(table) - len(known), "growing": int((known.segmented < 0).sum())}


def _slope(mask: np.ndarray, segmented: np.ndarray, subjects: np.ndarray) -> tuple[float, float]:
    """Slope of (n,) segmented on mask, and half its interval; NaN where all masks are alike."""
    if len(mask) < 2 or not (spread := mask.var()):
        return np.nan, np.nan
    asked, seen = mask - mask.mean(), segmented - segmented.mean()
    slope = float((asked * seen).mean() / spread)
    return slope, intervals.influence(asked * (seen - slope * asked) / spread, subjects)
