"""The phantom stays as it is: the shipped base was trained on these people and pictures, and every
published number of the demo rests on them.

`python tests/data/cohorts/phantom/test_as_it_was.py` writes the file anew, for a change that is
meant; then the base has to be trained anew, too.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[3]))

from cmrdata.cohorts.phantom.challenge_trees import write_acdc
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.volumes import read_volume
from support import records

FILE = Path(__file__).with_name("as_it_was.json")
BLOCKS = 8  # a side
DESIGNS: dict[str, dict[str, Any]] = {
    "natural": {"subjects": 12, "hf_share": 0.5},
    "natural prevalence": {"subjects": 400, "test_subjects": 100, "hf_scale": 4.5},
    "uniform": {"subjects": 12, "design": "uniform", "hf_share": 0.5, "seed": 3},
    "large": {"subjects": 4, "hf_share": 0.5, "pixels": 96, "fov_mm": 200.0, "seed": 1},
    "cine": {"subjects": 3, "hf_share": 0.4, "cine": 6, "seed": 2},
}


def blocks(images: np.ndarray) -> list[str]:
    """Mean grey level of each block of each image."""
    side = images.shape[-1] // BLOCKS
    flat = images.reshape(-1, BLOCKS, side, BLOCKS, side).astype(float).mean((2, 4))
    return [" ".join(f"{v:.2f}" for v in image.ravel()) for image in flat]


def pictures(phantom: Phantom) -> dict[str, Any]:
    """Pictures and masks of the first twelve people, in numbers."""
    stacks = phantom.stacks(phantom.people.head(12).assign(split="test"))
    masks = stacks.masks.reshape(-1, *stacks.masks.shape[-2:])
    return {
        "blocks": blocks(np.asarray(stacks.images)),
        "labels": [" ".join(map(str, np.bincount(mask.ravel(), minlength=4))) for mask in masks],
    }


def people(phantom: Phantom) -> dict[str, Any]:
    """Everybody's attributes and hearts: mean, and mean weighted by place."""
    table = pd.concat([phantom.people, phantom.anatomy], axis=1)
    place = np.linspace(-1, 1, len(table))
    numbers = table.select_dtypes("number")
    return {
        "means": {c: round(float(numbers[c].mean()), 6) for c in numbers},
        "slopes": {c: round(float((numbers[c] * place).mean()), 6) for c in numbers},
        "groups": table.groupby(["sex", "diagnosis"]).size().tolist(),
    }


def trees(folder: Path) -> dict[str, Any]:
    """Every volume of a person as UK Biobank and ACDC lay them out: shape, mean, largest value."""
    phantom = Phantom(subjects=2, hf_share=0.5, seed=4)
    write_ukbb(phantom, folder / "ukbb", count=2, pixels=64, mm=3.0, slices=4)
    write_acdc(phantom, folder / "acdc", count=2, pixels=64, mm=3.0, slices=4)
    numbers = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        array, spacing = read_volume(
            path, frames=50 if path.stem.startswith(("sa.", "seg_sa.")) else None
        )
        measured = " ".join(f"{v:.3f}" for v in (*spacing, array.mean(), array.max()))
        numbers[path.relative_to(folder).as_posix()] = f"{array.shape} {measured}"
    tables = {
        path.relative_to(folder).as_posix(): path.read_text().splitlines()[:4]
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".csv", ".cfg")
    }
    return {"volumes": numbers, "tables": tables}


def recorded(place: Path) -> dict[str, Any]:
    """Everything, by name."""
    whole: dict[str, Any] = {"trees": trees(place)}
    for name, design in DESIGNS.items():
        phantom = Phantom(**design)
        whole |= {f"{name}: people": people(phantom), f"{name}: pictures": pictures(phantom)}
    return whole


def test_people_hearts_and_pictures_are_those_the_base_was_trained_on(tmp_path):
    for name, now in recorded(tmp_path).items():
        # a pixel may fall to the next grey level
        records.check(FILE, name, now, within=1e-5 if name.endswith("people") else 0.05)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        records.write(FILE, recorded(Path(place)))
