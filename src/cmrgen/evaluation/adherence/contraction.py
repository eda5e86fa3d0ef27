"""Does the heart contract as its masks say? Area change asked for against area change seen, as
Bland and Altman compare.

A slice has no volume, so this is the fractional area change (FAC) of the LV cavity in one
short-axis slice: it follows the ejection fraction but is not one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import LABELS
from cmrgen.evaluation.adherence.scores import Seen
from cmrgen.evaluation.fidelity.subgroups import FEW
from cmrstudy import intervals

WIDE = 1.96  # sd to each side of the bias: limits of agreement
CAVITY = list(LABELS).index("LV")  # among the structures of `Areas`
WHO = {"all": (0, 1), "healthy": (0,), "diseased": (1,)}  # labels


def area_change(cavity: np.ndarray) -> np.ndarray:
    """(n, 2) pixels of the LV cavity, ED then ES -> (n,) per cent of its area at ED that is gone at
    ES.

    NaN where there is no cavity at ED; negative where it grows, which an image can show and a heart
    cannot.
    """
    full, rest = cavity.T.astype(float)
    return 100 * (1 - np.divide(rest, full, out=np.full(full.shape, np.nan), where=full > 0))


def pairs(side: Seen) -> pd.DataFrame:
    """A row per image: subject, label, mask and segmented (FAC in per cent, NaN where
    undefined)."""
    asked, seen = (
        area_change(pixels[..., CAVITY]) for pixels in (side.areas.asked, side.areas.seen)
    )
    who = {"subject": side.table.subject.to_numpy(), "label": side.table.label.to_numpy()}
    return pd.DataFrame({**who, "mask": asked, "segmented": seen})


def agreement(real: pd.DataFrame, synthetic: pd.DataFrame) -> pd.DataFrame:
    """Bland-Altman of `pairs`, per side (images) and diagnosis (hearts): per cent of the area,
    segmented - mask.

    Columns: images, hearts, n, subjects, mask and segmented (means), bias, lower, upper (limits of
        agreement, bias -+
    1.96 sd over images) each with its 95 % interval _low, _high, undefined (images without LV at ED
    in mask or segmentation, left out), growing (segmented cavities larger at ES). Intervals take
    subjects as independent, by the delta method; with normal differences and one image a subject
    they are Bland and Altman's (1999): an error of sd/sqrt(n) for the bias and about sd sqrt(3/n)
    for a limit. NaN below two images, and intervals for fewer than two subjects.
    """
    rows = [
        {"images": name, "hearts": hearts, **_row(table[table.label.isin(labels)])}
        for name, table in (("real", real), ("synthetic", synthetic))
        for hearts, labels in WHO.items()
    ]
    found = pd.DataFrame(rows)
    warnings = []
    for name, part in found[found.hearts == "all"].groupby("images", sort=False):
        if lost := int(part.undefined.iloc[0]):
            of = lost + int(part.n.iloc[0])
            warnings.append(
                f"{lost} of {of} {name} images have no LV cavity at ED in mask or segmentation: no area change."
            )
        if growing := int(part.growing.iloc[0]):
            warnings.append(
                f"In {growing} of {part.n.iloc[0]} {name} images the segmented cavity is larger at ES than at ED."
            )
    small = found[found.subjects < FEW]
    if few := [
        f"{name} {who} ({n})"
        for name, who, n in zip(small.images, small.hearts, small.subjects, strict=True)
    ]:
        warnings.append(
            f"Fewer than {FEW} subjects: {', '.join(few)}; limits of agreement are only a hint there."
        )
    found.attrs["warnings"] = warnings
    return found


def _row(table: pd.DataFrame) -> dict[str, Any]:
    known = table.dropna(subset=["mask", "segmented"])
    apart, subjects = (known.segmented - known["mask"]).to_numpy(float), known.subject.to_numpy()
    row: dict[str, Any] = {
        "n": len(known),
        "subjects": known.subject.nunique(),
        "mask": known["mask"].mean(),
        "segmented": known.segmented.mean(),
    }
    sd = apart.std(ddof=1) if len(apart) > 1 else np.nan
    for name, sign in (("bias", 0), ("lower", -1), ("upper", 1)):
        value = apart.mean() + sign * WIDE * sd if len(apart) > 1 else np.nan
        half = np.nan
        if len(apart) > 1 and sd > 0:
            residual = apart - apart.mean()
            half = intervals.influence(
                residual + sign * WIDE * (residual**2 - sd**2) / (2 * sd), subjects
            )
        row |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    return row | {"undefined": len(table) - len(known), "growing": int((known.segmented < 0).sum())}
