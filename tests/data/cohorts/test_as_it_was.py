"""What each layout of files gives, picture by picture in numbers, with patients whose files are
damaged or lacking: as it was when it was last looked at.

A change that is meant: `python tests/data/cohorts/test_as_it_was.py` writes the record anew.
"""

from __future__ import annotations

import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2]))

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.reading.folders import Walk
from cmrstudy import inspection
from support import records
from support.layout_trees import WRITERS, cohort

FILE = Path(__file__).with_name("as_it_was.json")
SIZE: dict[str, Any] = {"count": 6, "pixels": 48, "mm": 3.0, "slices": 5, "frames": 8}


def damaged(folder: Path) -> None:
    """Of the patients' folders the second loses its masks, the third's are another shape, the
    fourth's images are flat, the fifth's are no NIfTI."""
    homes = sorted(
        place for place, _, files in Walk(folder) if any(name.endswith(".nii.gz") for name in files)
    )
    for number, home in enumerate(homes):
        volumes = sorted(home.glob("*.nii.gz"))
        masks = [
            path
            for path in volumes
            if "gt" in path.name or "label" in path.name or "seg" in path.name
        ]
        images = [path for path in volumes if path not in masks]
        for path in masks if number == 1 else []:
            path.unlink()
        for path in masks if number == 2 else []:
            array = np.asarray(nibabel.load(path).dataobj)
            nibabel.save(nibabel.Nifti1Image(array[:-4], np.diag([3, 3, 10, 1])), path)
        for path in images if number == 3 else []:
            array = np.asarray(nibabel.load(path).dataobj)
            nibabel.save(nibabel.Nifti1Image(array * 0 + 7, np.diag([3, 3, 10, 1])), path)
        for path in images if number == 4 else []:
            path.write_bytes(b"not a volume")


def recorded(layout: str, folder: Path) -> dict[str, Any]:
    """Subjects, pictures, the rejected and their reasons, columns and notes."""
    phantom = Phantom(subjects=12, seed=4, design="uniform", hf_share=0.5)
    WRITERS[layout](phantom, folder / layout, **SIZE)
    table = folder / layout / "table.csv"
    if layout == "ukbb":
        table = table.rename(folder / "table.csv")
    damaged(folder / layout)
    made = cohort(layout, folder / layout, table=table if layout == "ukbb" else None)
    salted = (table if layout == "ukbb" else folder / layout).parent / "salted"
    salted.mkdir(exist_ok=True)
    (salted / "salt").write_text("0" * 32)
    subjects, rejected = inspection.inspect(made, folder / "kept", workers=1)
    stacks = made.stacks(subjects)
    columns, notes = made.columns(), made.notes()
    console = Console(file=StringIO(), width=180)
    tables = [inspection.column_table(columns), *inspection.summary(subjects, rejected)]
    inspection.print_tables(console, *tables, notes=inspection.not_found(columns))
    pixels = inspection.pixel_notes(made, subjects)
    images = np.asarray(stacks.images).astype(float)
    said = {
        "subjects": records.table(subjects, digits=3),
        "rejected": records.table(rejected),
        "columns": records.table(columns),
        "notes": [*notes, *pixels],
        "printed": [line.rstrip() for line in console.file.getvalue().splitlines()],
        "index": records.table(stacks.index, digits=3),
        "images": [
            " ".join(f"{v:.1f}" for v in row) for row in images.mean(3).reshape(len(images), -1)
        ],
        "labels": [
            " ".join(map(str, np.bincount(mask.ravel(), minlength=4))) for mask in stacks.masks
        ],
    }
    return records.without_place(said, folder)


@pytest.mark.parametrize("layout", list(WRITERS))
def test_what_files_give_is_as_it_was(layout, tmp_path):
    records.check(FILE, layout, recorded(layout, tmp_path), within=0.15)


if __name__ == "__main__":
    whole = {}
    for layout in WRITERS:
        with tempfile.TemporaryDirectory() as place:
            whole[layout] = recorded(layout, Path(place))
    records.write(FILE, whole)
