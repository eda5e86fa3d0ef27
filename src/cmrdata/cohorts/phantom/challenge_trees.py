"""Phantom people as files in the layouts of ACDC, M&Ms and M&Ms-2, so that their readers can be
tested without them.

Unlike in UK Biobank's layout (`phantom_tree`) a cine may begin anywhere in the heart's cycle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import Scanned, save, scanned, smallest_frame, unfinished
from cmrdata.disk import write_atomic

ACDC_LABELS = np.zeros(4, np.uint8)
ACDC_LABELS[[RV, MYO, LV]] = 1, 2, 3
VENDORS = ("Siemens", "Philips", "GE", "Canon")
DICOM_VENDORS = ("SIEMENS", "Philips Medical Systems", "GE MEDICAL SYSTEMS")
MNMS_TABLE = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"


def write_acdc(
    phantom: Phantom,
    folder: str | Path,
    *,
    count: int = 8,
    pixels: int | tuple[int, int] = 128,
    mm: float = 1.5,
    slices: int = 9,
    frames: int = 30,
) -> None:
    """Write the first `count` people of `phantom` below `folder`, two thirds in training/, the rest
    in testing/.

    <part>/patientNNN/Info.cfg                  frame numbers from 1 (ED in 1..4), Group DCM for heart failure, else NOR
                      patientNNN_4d.nii.gz      (X, Y, Z, T) int16
                      patientNNN_frameFF        (X, Y, Z) int16 of ED and of ES
                      patientNNN_frameFF_gt     (X, Y, Z) uint8, labels 1 RV, 2 myocardium, 3 LV

    Raises as `write_ukbb`.
    """
    folder = Path(folder)
    people = scanned(
        phantom, folder, count=count, pixels=pixels, mm=mm, slices=slices, frames=frames
    )
    for number, phantom_scan in enumerate(people, start=1):
        name, part = (
            f"patient{number:03d}",
            "training" if 3 * number <= 2 * count + 2 else "testing",
        )
        ed, es, cine, labels = _turned(phantom_scan, int(phantom_scan.rng.integers(min(4, frames))))
        height, weight = _body(phantom_scan)
        facts = {
            "ED": ed + 1,
            "ES": es + 1,
            "Group": _word(phantom_scan, "DCM"),
            "Height": height,
            "NbFrame": frames,
            "Weight": weight,
        }
        with unfinished(folder / part / name) as place:
            save(place / f"{name}_4d.nii.gz", cine, np.int16, phantom_scan.spacing)
            for t in (ed, es):
                save(
                    place / f"{name}_frame{t + 1:02d}.nii.gz",
                    cine[t],
                    np.int16,
                    phantom_scan.spacing,
                )
                save(
                    place / f"{name}_frame{t + 1:02d}_gt.nii.gz",
                    ACDC_LABELS[labels[t]],
                    np.uint8,
                    phantom_scan.spacing,
                )
            (place / "Info.cfg").write_text(
                "".join(f"{key}: {value}\n" for key, value in facts.items())
            )


def write_mnms(
    phantom: Phantom,
    folder: str | Path,
    *,
    count: int = 8,
    pixels: int | tuple[int, int] = 128,
    mm: float = 1.25,
    slices: int = 9,
    frames: int = 25,
) -> None:
    """Write the first `count` people of `phantom` as the folder OpenDataset, then its table; codes
    are SYN001 and on.

    Training/Labeled/<code>/<code>_sa.nii.gz   (X, Y, Z, T) int16
    Validation, Testing     <code>_sa_gt       the same shape, uint8, labels 1 LV, 2 myocardium, 3 RV at ED and ES alone

    In the table ED and ES count from 0, heart failure is DCM, others NOR. Raises as `write_ukbb`.
    """
    folder, rows = Path(folder), []
    people = scanned(
        phantom, folder, count=count, pixels=pixels, mm=mm, slices=slices, frames=frames
    )
    for number, phantom_scan in enumerate(people, start=1):
        code = f"SYN{number:03d}"
        part = (
            "Training/Labeled" if 2 * number <= count + 1 else ("Validation", "Testing")[number % 2]
        )
        ed, es, cine, labels = _turned(phantom_scan, int(phantom_scan.rng.integers(frames)))
        labels[[t for t in range(frames) if t not in (ed, es)]] = 0
        height, weight = _body(phantom_scan)
        centre = int(phantom_scan.rng.integers(6))
        rows.append(
            {
                "External code": code,
                "VendorName": VENDORS[centre % 4],
                "Vendor": "ABCD"[centre % 4],
                "Centre": centre + 1,
                "ED": ed,
                "ES": es,
                "Age": int(phantom_scan.person["age"]),
                "Pathology": _word(phantom_scan, "DCM"),
                "Sex": phantom_scan.person["sex"],
                "Height": height,
                "Weight": weight,
            }
        )
        with unfinished(folder / part / code) as place:
            save(place / f"{code}_sa.nii.gz", cine, np.int16, phantom_scan.spacing)
            save(place / f"{code}_sa_gt.nii.gz", labels, np.uint8, phantom_scan.spacing)
    write_atomic(folder / MNMS_TABLE, pd.DataFrame(rows).to_csv())  # its first column has no name


def write_mnms2(
    phantom: Phantom,
    folder: str | Path,
    *,
    count: int = 8,
    pixels: int | tuple[int, int] = 128,
    mm: float = 1.25,
    slices: int = 9,
    frames: int = 25,
) -> None:
    """Write the first `count` people of `phantom` as the folder MnM2, then its table; codes are 001
    and on.

    dataset/NNN/NNN_SA_CINE.nii.gz        (X, Y, Z, T) int16
                NNN_SA_ED, NNN_SA_ES      (X, Y, Z) int16
                NNN_SA_ED_gt, NNN_SA_ES_gt   (X, Y, Z) uint8, labels 1 LV, 2 myocardium, 3 RV

    Heart failure is LV in the table, others NOR; codes there have no zeros in front and empty rows
    follow, as in the original. Raises as `write_ukbb`.
    """
    folder, rows = Path(folder), []
    people = scanned(
        phantom, folder, count=count, pixels=pixels, mm=mm, slices=slices, frames=frames
    )
    for number, phantom_scan in enumerate(people, start=1):
        code = f"{number:03d}"
        ed, es, cine, labels = _turned(phantom_scan, int(phantom_scan.rng.integers(frames)))
        rows.append(
            {
                "SUBJECT_CODE": str(number),
                "DISEASE": _word(phantom_scan, "LV"),
                "VENDOR": DICOM_VENDORS[phantom_scan.rng.integers(3)],
                "SCANNER": "Phantom",
                "FIELD": "1.5",
            }
        )
        with unfinished(folder / "dataset" / code) as place:
            save(place / f"{code}_SA_CINE.nii.gz", cine, np.int16, phantom_scan.spacing)
            for phase, t in (("ED", ed), ("ES", es)):
                save(place / f"{code}_SA_{phase}.nii.gz", cine[t], np.int16, phantom_scan.spacing)
                save(
                    place / f"{code}_SA_{phase}_gt.nii.gz",
                    labels[t],
                    np.uint8,
                    phantom_scan.spacing,
                )
    table = pd.DataFrame([*rows, {}, {}, {}])
    write_atomic(folder / "dataset_information.csv", table.to_csv(index=False))


def _turned(seen: Scanned, ed: int) -> tuple[int, int, np.ndarray, np.ndarray]:
    """(ED, ES, cine, labels) of a cine that reaches ED at frame `ed`, frames counted from 0."""
    cine, labels = (np.roll(array, ed, axis=0) for array in (seen.cine, seen.labels))
    return ed, (ed + smallest_frame(len(cine))) % len(cine), cine, labels


def _word(seen: Scanned, failing: str) -> str:
    return failing if seen.person["diagnosis"] == "hf" else "NOR"


def _body(seen: Scanned) -> tuple[Any, Any]:
    """Height in cm and weight in kg that give the person's BMI."""
    height = round(float(seen.rng.normal(176 if seen.person["sex"] == "M" else 163, 6)), 1)
    return height, round(seen.person["bmi"] * (height / 100) ** 2, 2)
