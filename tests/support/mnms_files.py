"""Patients as M&Ms' files."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from cmrdata.cohorts.mnms import MnMs
from support.hearts import GREY, heart

UPRIGHT = np.diag([-1.5, -1.5, -10.0, 1.0])

ED, ES, FRAMES = 7, 3, 8  # counted from 0: the frame behind ED is the first


NAME = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"


ROW = {
    "VendorName": "Siemens",
    "Vendor": "A",
    "Centre": "1",
    "ED": str(ED),
    "ES": str(ES),
    "Age": "52",
    "Pathology": "NOR",
    "Sex": "F",
    "Height": "180",
    "Weight": "81",
}


def write(path: Path, array: np.ndarray, affine: np.ndarray = UPRIGHT) -> None:
    """([T,] Z, Y, X) as a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.T, affine), path)


def made(seed: int, squeeze: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    """(cine, labels) int16 and uint8 (T, Z, Y, X), labelled at ED and ES alone; every frame has
    noise of its own."""
    size = {"size_mm": (132, 162), "centre": (66, 96)}
    labels = np.zeros((FRAMES, 5, 88, 108), np.uint8)
    labels[ED], labels[ES] = heart(**size), heart(**size, squeeze=squeeze)
    frames = np.stack([GREY[labels[ES if 1 < t < 6 else ED]] for t in range(FRAMES)])
    noise = np.random.default_rng(seed).normal(0, 4, frames.shape)
    return (frames + noise).clip(0).astype(np.int16), labels


def mnms(
    root: Path,
    rows: dict[str, dict],
    *,
    parts: dict[str, str] | None = None,
    squeeze: float = 0.7,
    flat=False,
):
    """Files of the patients `rows` (code -> cells that differ from ROW) below the folders `parts`,
    and the table."""
    for number, code in enumerate(rows):
        folder = root / (parts or {}).get(code, "Training/Labeled") / ("" if flat else code)
        for ending, array in zip(("sa", "sa_gt"), made(number, squeeze), strict=True):
            write(folder / f"{code}_{ending}.nii.gz", array)
    table = pd.DataFrame([{"External code": code, **ROW, **cells} for code, cells in rows.items()])
    table.to_csv(root / NAME)
    return root


def cohort(root: Path, **options) -> MnMs:
    return MnMs(**{"root": root, "pixels": 32, "salt_root": root.parent / "salted", **options})


def read(made_cohort, split: str = "val"):
    table, rejected = made_cohort.subjects()
    return table, rejected, made_cohort.stacks(table.assign(split=split))


def one(tmp_path: Path, **cells) -> Path:
    return mnms(tmp_path / "OpenDataset", {"SYN001": cells})
