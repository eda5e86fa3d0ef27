"""Patients as ACDC's files."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from cmrdata.cohorts.acdc import ACDC
from cmrdata.store import Store
from support.hearts import GREY, heart

GROUPS = ("DCM", "MINF", "NOR", "HCM", "RV", "NOR")
ED, ES, FRAMES = 2, 5, 8  # counted from 1

THEIRS = np.array([0, 3, 2, 1], np.uint8)  # canonical label -> ACDC's


def patient(root: Path, number: int, *, cine: bool = False, info: str | None = None) -> Path:
    """A made patient: a heart, contracted at ES, every frame with noise of its own."""
    folder = root / f"patient{number}"
    folder.mkdir(parents=True)
    group = GROUPS[(number - 101) % len(GROUPS)]
    (folder / "Info.cfg").write_text(
        info or f"ED: {ED}\nES: {ES}\nGroup: {group}\nHeight: 180.0\nNbFrame: 8\nWeight: 81.0\n"
    )
    rng, size = np.random.default_rng(number), {"size_mm": (132, 162), "centre": (66, 96)}
    labels = {ED: heart(**size), ES: heart(**size, squeeze=0.7)}
    frames = np.stack([GREY[labels[ES if 3 < t < 7 else ED]] for t in range(1, FRAMES + 1)])
    frames = (frames + rng.normal(0, 4, frames.shape)).clip(0).astype(np.int16)
    for t, mask in labels.items():
        write(folder / f"{folder.name}_frame{t:02d}.nii.gz", frames[t - 1])
        write(folder / f"{folder.name}_frame{t:02d}_gt.nii.gz", THEIRS[mask])
    if cine:
        write(folder / f"{folder.name}_4d.nii.gz", frames)
    return folder


def cohort(root: Path, **options) -> ACDC:
    return ACDC(**{"root": root, "pixels": 32, "salt_root": root.parent / "salted", **options})


def read(made: ACDC, split: str):
    table, rejected = made.subjects()
    return table, rejected, made.stacks(table.assign(split=split))


def everything(store: Store) -> str:
    """All text of a store: tables, settings, reasons."""
    tables = [pd.read_parquet(path).to_csv() for path in store.folder.rglob("*.parquet")]
    return "".join(tables) + "".join(
        path.read_text() for end in ("csv", "json") for path in store.folder.rglob(f"*.{end}")
    )


def write(path: Path, array: np.ndarray) -> None:
    """(..., Z, Y, X) as a NIfTI file of 1.5 mm pixels, columns to the patient's left, rows to the
    back, base first."""
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([-1.5, -1.5, -10, 1])), path)
