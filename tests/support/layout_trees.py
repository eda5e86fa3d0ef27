"""Every layout as a tree of its own, to be damaged or misplaced."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.mnms import MnMs
from cmrdata.cohorts.mnms2 import MnMs2
from cmrdata.cohorts.phantom.challenge_trees import write_acdc, write_mnms, write_mnms2
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.cohorts.reading.folders import Walk
from cmrdata.cohorts.ukbb.cohort import UKBB

WRITERS = {"ukbb": write_ukbb, "acdc": write_acdc, "mnms": write_mnms, "mnms2": write_mnms2}

LAYOUTS = pytest.mark.parametrize("layout", WRITERS)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> Path:
    """Three people in every layout; not to be changed."""
    root, phantom = (
        tmp_path_factory.mktemp("trees"),
        Phantom(subjects=12, seed=4, design="uniform", hf_share=0.5),
    )
    for layout, write in WRITERS.items():
        write(phantom, root / layout, **SIZE)
    (root / "ukbb" / "table.csv").rename(root / "table.csv")
    return root


@pytest.fixture
def own(trees, tmp_path) -> Path:
    shutil.copytree(trees, tmp_path / "data")
    return tmp_path / "data"


def cohort(layout: str, root: Path | None, *, table: Path | None = None):
    secrets = {"salt_root": (table or root or Path("nowhere")).parent / "salted", "pixels": 16}
    if layout == "ukbb":
        return UKBB(root=root, table=table, **secrets)
    return {"acdc": ACDC, "mnms": MnMs, "mnms2": MnMs2}[layout](root=root, **secrets)


def patients(root: Path) -> Path:
    """The folder that holds the first patient's folder."""
    return next(
        folder for folder, _, files in Walk(root) if any(name.endswith(".nii.gz") for name in files)
    ).parent


SIZE: dict[str, Any] = {"count": 3, "pixels": 48, "mm": 3.0, "slices": 5, "frames": 8}
