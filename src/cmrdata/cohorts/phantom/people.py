"""People as UK Biobank's imaging has them, and the body and heart of each.

Volumes, ejection fractions, walls and fat follow published UK Biobank and MESA figures (Petersen
2017, doi 10.1186/s12968-017-0327-9; Kawel 2012); disease prevalences follow Table 2 of the paper.
Classes overlap: a third of the failing hearts keep a normal ejection fraction.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrdata.axes import AGE, BMI
from cmrdata.subjects import cut

# heart failure per 100 scans at imaging, paper Table 2
PREVALENCE = {
    "sex": {"F": 0.56, "M": 1.56},
    "bmi_band": dict(zip(BMI.values, (0.60, 0.96, 2.43), strict=True)),
    "age_band": dict(zip(AGE.values, (0.37, 1.06, 1.93), strict=True)),
}


def draw_people(
    n: int, rng: np.random.Generator, *, design: str, hf_scale: float, hf_share: float | None
) -> pd.DataFrame:
    """People of the study's kind.

    Args:
        n: how many.
        rng: of the draws.
        design: "natural" (as in UK Biobank's imaging) or "uniform" (every cell equally often).
        hf_scale: times the prevalence of heart failure.
        hf_share: fixed share of heart failure; None follows the attributes.

    Returns:
        n rows: sex, age (years), bmi (kg/m2), diagnosis.
    """
    if design == "uniform":
        sex = rng.choice(["F", "M"], n)
        age = np.choose(
            rng.integers(0, 3, n),
            [rng.uniform(45, 60, n), rng.uniform(60, 70, n), rng.uniform(70, 82, n)],
        )
        bmi = np.choose(
            rng.integers(0, 3, n),
            [rng.uniform(19, 25, n), rng.uniform(25, 30, n), rng.uniform(30, 40, n)],
        )
    else:  # shares of sex and bands consistent with Table 2; 51.7 % female and 64 years in UK Biobank imaging
        sex = np.where(rng.random(n) < 0.48, "F", "M")
        age = np.clip(rng.normal(64.3, 8.5, n), 44, 82)
        bmi = np.clip(26.0 * np.exp(rng.normal(0, 0.15, n)), 16, 55)
    people = pd.DataFrame({"sex": sex, "age": age.round(2), "bmi": bmi.round(2)})
    chance = (
        np.full(n, hf_share) if hf_share is not None else hf_probability(people, scale=hf_scale)
    )
    people["diagnosis"] = np.where(rng.random(n) < chance, "hf", "healthy")
    return people


def hf_probability(people: pd.DataFrame, *, scale: float = 1.0) -> np.ndarray:
    """Heart-failure probability by a logistic model with one effect per sex, age band and BMI band.

    The effects are raked until the population's prevalence in each of the eight subgroups equals
    PREVALENCE x scale.
    """
    levels = {"sex": people.sex, "age_band": cut(AGE, people.age), "bmi_band": cut(BMI, people.bmi)}
    logit = np.full(len(people), -4.5)
    for _ in range(30):
        for axis, column in levels.items():
            for level, percent in PREVALENCE[axis].items():
                here = (column == level).to_numpy()
                if here.any():
                    target, mean = min(percent * scale / 100, 0.9), _sigmoid(logit[here]).mean()
                    logit[here] += np.log(target / (1 - target)) - np.log(mean / (1 - mean))
    return _sigmoid(logit)


def anatomy(people: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Body and heart of each person: volumes in mL, lengths in mm, angles in radians, signals in
    0..1.

    One long list, since the order of the draws decides everybody's heart.
    """
    n = len(people)
    male, hf = (people.sex == "M").to_numpy(), (people.diagnosis == "hf").to_numpy()
    age, bmi = people.age.to_numpy(), people.bmi.to_numpy()

    def z(sd: float = 1.0) -> np.ndarray:
        return rng.normal(0, sd, n)

    # dilated, mid-range, preserved EF
    kind = np.where(hf, rng.choice([1, 2, 3], n, p=[0.45, 0.25, 0.30]), 0)
    dilated, middle, preserved = kind == 1, kind == 2, kind == 3

    edv = np.where(male, 166 + z(27), 124 + z(19)) * (1 - 0.003 * (age - 62)) + 0.9 * (bmi - 26)
    edv *= np.where(dilated, 1.42 + z(0.2), np.where(middle, 1.15 + z(0.12), 1.0))
    ef = np.where(male, 0.58, 0.61) + z(0.05)
    ef = np.where(
        dilated,
        0.34 + z(0.07),
        np.where(middle, 0.46 + z(0.05), np.where(preserved, ef - 0.02, ef)),
    )
    wall = np.where(male, 6.6, 5.5) + 0.07 * (bmi - 26) + z(0.7)
    wall += np.where(preserved, 1.7, np.where(dilated, -0.3, 0.3 * middle))
    # epicardial, mm
    fat = 3.6 + 0.42 * (bmi - 26) + 0.8 * male + 0.05 * (age - 62) + 0.9 * hf + z(1.0)
    subcutaneous = 13 + 1.35 * (bmi - 26) + np.where(male, -2.5, 3.0) + z(2.2)
    return pd.DataFrame(
        {
            "edv": np.clip(edv, 60, 380),
            "ef": np.clip(ef, 0.12, 0.75),
            "wall": np.clip(wall, 3.6, 13),
            "length": np.where(male, 92, 84)
            * np.cbrt(np.clip(edv, 60, 380) / np.where(male, 166, 124))
            + z(2),
            "rv": np.clip(
                np.where(male, 182, 130) / np.where(male, 166, 124)
                + z(0.1)
                + 0.12 * (dilated | middle),
                0.8,
                1.6,
            ),
            "rv_ef": np.clip(
                np.where(male, 0.54, 0.58) + z(0.05) - np.where(dilated, 0.16, 0.07 * middle),
                0.15,
                0.75,
            ),
            "septum": np.pi + 0.35 + z(0.16),
            "oval": np.abs(z(0.04)),
            "oval_at": rng.uniform(0, np.pi, n),
            "pear": z(0.025),
            "papillary": rng.uniform(0.15, 0.24, n),
            "fat": np.clip(fat, 0.8, 15),
            "subcutaneous": np.clip(subcutaneous, 3, 42),
            "breast": np.where(male, 0, 11 + 0.5 * (bmi - 26) + z(2)).clip(0),
            # chest wall muscle thins with age
            "muscle": np.clip(np.where(male, 13, 9) - 0.2 * (age - 62) + z(1.4), 3, 22),
            "chest": np.where(male, 66, 61) + 0.3 * (bmi - 26) + z(2.5),  # heart centre to ribs
            "aorta": np.clip(np.where(male, 12.3, 11.0) + 0.13 * (age - 62) + z(0.9), 7, 19),
            "aorta_at": 0.95 + z(0.1),
            "aorta_far": 64 + z(3),
            "liver": rng.uniform(44, 58, n) - 0.25 * (bmi - 26),
            "effusion": np.where(hf & (rng.random(n) < 0.35), np.abs(z(8)) + 4, 0),
            "congestion": np.where(hf, 0.05, 0.0) + z(0.02),
            "blood": np.clip(0.86 - 0.002 * (age - 62) + z(0.03), 0.7, 1),
            "myocardium": 0.33 + 0.002 * (age - 62) + z(0.025),
            "noise": np.clip(
                0.022 + 0.0011 * (bmi - 26) + 0.006 * hf + np.abs(z(0.006)), 0.012, 0.08
            ),
            "bias_x": z(0.14),
            "bias_y": -0.12 + z(0.1),
            "shift_x": z(2.0),
            "shift_y": z(2.0),
        }
    ).astype(np.float32)


def _sigmoid(v: np.ndarray) -> np.ndarray:
    share: np.ndarray = 1 / (1 + np.exp(-v))
    return share
