"""The phantom stays as it is: the shipped base was trained on these people and pictures, and every
published number of the demo rests on them.

`python tests/data/cohorts/phantom/test_as_it_was.py` writes the file anew, for a change that is
meant; then the base has to be trained anew, too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.phantom.challenge_trees import write_acdc
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.volumes import read_volume

FILE = Path(__file__).with_name("as_it_was.json")
BLOCKS = 8  # a side
DESIGNS: dict[str, dict[str, Any]] = {
    "natural": {"subjects": 12, "hf_share": 0.5},
    "natural prevalence": {"subjects": 400, "test_subjects": 100, "hf_scale": 4.5},
    "uniform": {"subjects": 12, "design": "uniform", "hf_share": 0.5, "seed": 3},
    "large": {"subjects": 4, "hf_share": 0.5, "pixels": 96, "fov_mm": 200.0, "seed": 1},
    "cine": {"subjects": 3, "hf_share": 0.4, "cine": 6, "seed": 2},
}


def blocks(images: np.ndarray) -> list[list[float]]:
    """Mean grey level of each block of each image."""
    side = images.shape[-1] // BLOCKS
    flat = images.reshape(-1, BLOCKS, side, BLOCKS, side).astype(float).mean((2, 4))
    return flat.reshape(len(flat), -1).round(2).tolist()


def pictures(phantom: Phantom) -> dict[str, Any]:
    """Pictures and masks of the first twelve people, in numbers."""
    stacks = phantom.stacks(phantom.people.head(12).assign(split="test"))
    masks = stacks.masks.reshape(-1, *stacks.masks.shape[-2:])
    return {
        "blocks": blocks(np.asarray(stacks.images)),
        "labels": [np.bincount(mask.ravel(), minlength=4).tolist() for mask in masks],
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
        numbers[path.relative_to(folder).as_posix()] = [
            *array.shape,
            *(round(float(v), 3) for v in (*spacing, array.mean(), array.max())),
        ]
    tables = {
        path.relative_to(folder).as_posix(): path.read_text().splitlines()[:4]
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".csv", ".cfg")
    }
    return {"volumes": numbers, "tables": tables}


def check_close(now: Any, then: Any, at: str = "") -> None:
    """The same words, and numbers within what processors differ by."""
    if isinstance(then, dict):
        assert list(now) == list(then), at
        for key in then:
            check_close(now[key], then[key], f"{at}/{key}")
    elif isinstance(then, list) and then and not isinstance(then[0], str):
        assert len(now) == len(then), at
        for k, (one, other) in enumerate(zip(now, then, strict=True)):
            check_close(one, other, f"{at}/{k}")
    elif isinstance(then, float):
        # a pixel of a block may fall to the next grey level
        assert now == pytest.approx(
            then, rel=1e-4, abs=0.05 if "blocks" in at or "volumes" in at else 1e-5
        ), at
    else:
        assert now == then, at


def now(name: str) -> dict[str, Any]:
    phantom = Phantom(**DESIGNS[name])
    return {"people": people(phantom), **pictures(phantom)}


@pytest.mark.parametrize("name", list(DESIGNS))
def test_people_hearts_and_pictures_are_those_the_base_was_trained_on(name):
    check_close(now(name), json.loads(FILE.read_text())[name], name)


def test_scans_on_disk_are_as_they_were(tmp_path):
    check_close(trees(tmp_path), json.loads(FILE.read_text())["trees"])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        record = {name: now(name) for name in DESIGNS} | {"trees": trees(Path(place))}
    FILE.write_text(json.dumps(record) + "\n")
    sys.stdout.write(f"{FILE}: {FILE.stat().st_size / 1000:.0f} kB\n")
