"""The same phantom people in four layouts: every reader gives the same people and the same
slices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.mnms import MnMs
from cmrdata.cohorts.mnms2 import MnMs2
from cmrdata.cohorts.phantom.challenge_trees import write_acdc, write_mnms, write_mnms2
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import smallest_frame, write_ukbb
from cmrdata.protocol import Stacks

COUNT, FRAMES = 4, 10
SIZE: dict[str, Any] = {
    "count": COUNT,
    "pixels": (88, 80),
    "mm": 1.8,
    "slices": 5,
    "frames": FRAMES,
}
CROP = {"pixels": 64, "fov_mm": 130.0}


def _ukbb(root: Path, **options):
    return pytest.importorskip("cmrdata.cohorts.ukbb.cohort").UKBB(
        root=root, table=root / "table.csv", frames=FRAMES, **options
    )


WRITERS = {"ukbb": write_ukbb, "acdc": write_acdc, "mnms": write_mnms, "mnms2": write_mnms2}
READERS: dict[str, Callable] = {"ukbb": _ukbb, "acdc": ACDC, "mnms": MnMs, "mnms2": MnMs2}


class Read(NamedTuple):
    """A tree as its reader sees it, subjects in the phantom's order."""

    table: pd.DataFrame
    train: Stacks
    test: Stacks
    root: Path


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom(subjects=COUNT, seed=12, hf_share=0.5, design="uniform")


@pytest.fixture(scope="module")
def trees(phantom, tmp_path_factory) -> dict[str, Read]:
    found = {}
    for layout, write in WRITERS.items():
        if layout == "ukbb":
            pytest.importorskip("cmrdata.cohorts.ukbb.cohort")
        root = tmp_path_factory.mktemp("trees") / layout
        write(phantom, root, **SIZE)
        cohort = READERS[layout](root=root, salt_root=root.parent / "salted", seed=0, **CROP)
        table, rejected = cohort.subjects()
        train, test = (cohort.stacks(table.assign(split=split)) for split in ("train", "test"))
        assert rejected.empty and train.rejected.empty and test.rejected.empty
        found[layout] = Read(table, train, test, root)
    return found


def test_every_layout_has_the_same_people(phantom, trees):
    people = phantom.people
    for layout, read in trees.items():
        assert (
            len(read.table) == COUNT
            and set(read.table.source) == {layout}
            and read.table.subject.is_unique
        )
        assert not set(read.table.subject) & set(people.subject)
    for layout in ("ukbb", "acdc", "mnms"):
        assert trees[layout].table.bmi.to_numpy(float) == pytest.approx(
            people.bmi.to_numpy(), abs=0.06
        ), layout
    for layout in ("ukbb", "mnms"):
        assert trees[layout].table.sex.tolist() == people.sex.tolist()
        assert trees[layout].table.age.to_numpy(float) == pytest.approx(
            people.age.to_numpy(), abs=1
        )
    ill = (people.diagnosis == "hf").tolist()
    assert 0 < sum(ill) < COUNT
    for layout in ("ukbb", "acdc", "mnms"):
        assert (trees[layout].table.diagnosis != "healthy").tolist() == ill
    low = trees["mnms2"].table.ef < 0.4  # dilated ventricles are cases where they fail
    assert (trees["mnms2"].table.diagnosis == "reduced_ef").tolist() == low.tolist()
    assert trees["mnms2"].table.ef.notna().tolist() == ill


def test_a_centre_has_one_vendor_by_name_and_letter(trees):
    table = pd.read_csv(next(trees["mnms"].root.rglob("*opendataset.csv")))
    assert table.Centre.between(1, 6).all() and table.Centre.nunique() > 1
    names = ("Siemens", "Philips", "GE", "Canon", "Siemens", "Philips")
    assert table.VendorName.tolist() == [names[centre - 1] for centre in table.Centre]
    assert table.Vendor.tolist() == ["ABCDAB"[centre - 1] for centre in table.Centre]


@pytest.mark.parametrize("layout", ["acdc", "mnms", "mnms2"])
def test_every_layout_has_the_same_slices(trees, layout):
    ours, theirs = trees[layout].train, trees["ukbb"].train
    keys = ["slice", "frame", "central"]
    assert len(ours.index) == 9 * COUNT
    pd.testing.assert_frame_equal(ours.index[keys], theirs.index[keys])
    np.testing.assert_allclose(ours.index[["lo", "hi"]], theirs.index[["lo", "hi"]])
    assert np.abs(ours.images.astype(int) - theirs.images).max() <= 1
    still = (ours.index.frame == 0).to_numpy()
    np.testing.assert_array_equal(ours.masks[still], theirs.masks[still])
    assert (ours.masks[still] > 0).any(axis=(2, 3)).all()


def test_neighbouring_masks_are_the_truth_only_where_a_layout_holds_them(trees):
    for layout, read in trees.items():
        index, masks = read.train.index, read.train.masks
        own = masks.reshape(COUNT, 3, 3, *masks.shape[1:])  # subject, slice, frame
        reused = (index["flags"] == "mask_reused").to_numpy()
        if layout == "ukbb":
            assert not reused.any() and (own[:, :, 0] != own[:, :, 2]).any(axis=(1, 2, 3, 4)).all()
        else:
            assert (reused == (index.frame != 0)).all() and (own == own[:, :, 1:2]).all()


@pytest.mark.parametrize("layout", READERS)
def test_evaluation_reads_the_central_stack_of_the_nine(trees, layout):
    train, test = trees[layout].train, trees[layout].test
    central = train.index.central.to_numpy()
    assert test.index.central.all() and len(test.index) == COUNT == central.sum()
    for part in ("images", "masks"):
        np.testing.assert_array_equal(getattr(test, part), getattr(train, part)[central])


def test_ed_and_es_are_where_each_layout_says(trees):
    for layout, read in trees.items():
        frames = read.train.index.drop_duplicates("subject")
        assert ((frames.es_frame - frames.ed_frame) % FRAMES == smallest_frame(FRAMES)).all(), (
            layout
        )
        assert (frames.ed_frame == 0).all() == (layout == "ukbb")
    assert trees["acdc"].train.index.ed_frame.max() <= 3  # 1..4 in the files
    # over the cycle's end
    assert trees["mnms"].train.index.es_frame.lt(trees["mnms"].train.index.ed_frame).any()


def test_the_files_are_those_of_the_challenges(trees):
    acdc, mnms, mnms2 = (trees[layout].root for layout in ("acdc", "mnms", "mnms2"))
    assert (
        sorted(path.parent.name for path in acdc.glob("*/patient*"))
        == ["testing"] + ["training"] * 3
    )
    folder = next(acdc.glob("training/patient001"))
    info = dict(line.split(": ") for line in (folder / "Info.cfg").read_text().splitlines())
    ed, es = (f"patient001_frame{int(info[phase]):02d}" for phase in ("ED", "ES"))
    names = [
        "Info.cfg",
        *(f"{name}.nii.gz" for name in ("patient001_4d", ed, f"{ed}_gt", es, f"{es}_gt")),
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names) and info[
        "NbFrame"
    ] == str(FRAMES)
    parts = {path.parents[1].relative_to(mnms).as_posix() for path in mnms.rglob("*_sa.nii.gz")}
    assert parts == {"Training/Labeled", "Validation", "Testing"}
    labels = nibabel.load(next(mnms.rglob("SYN002_sa_gt.nii.gz")))
    assert (
        labels.shape == (88, 80, 5, FRAMES)
        and np.asarray(labels.dataobj).any(axis=(0, 1, 2)).sum() == 2
    )
    assert pd.read_csv(next(mnms.glob("211230_M&Ms*.csv"))).columns[0] == "Unnamed: 0"
    table = pd.read_csv(mnms2 / "dataset_information.csv", dtype=str)
    assert (
        table.SUBJECT_CODE.dropna().tolist() == [str(k) for k in range(1, COUNT + 1)]
        and len(table) > COUNT
    )
    assert len(list((mnms2 / "dataset" / "001").iterdir())) == 5


@pytest.mark.parametrize("layout", WRITERS)
def test_a_tree_is_written_once_and_whole(phantom, tmp_path, monkeypatch, layout):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", full)
    small = {"count": 1, "pixels": 16, "mm": 10.0, "slices": 1, "frames": 2}
    with pytest.raises(OSError, match="disk full"):
        WRITERS[layout](phantom, tmp_path / "tree", **small)
    assert not [
        path
        for path in (tmp_path / "tree").rglob("*")
        if path.is_file() or path.name.startswith(".")
    ]
    (tmp_path / "tree" / "mine").touch()
    with pytest.raises(FileExistsError, match="is not empty; give a new folder or delete it"):
        WRITERS[layout](phantom, tmp_path / "tree", **small)
