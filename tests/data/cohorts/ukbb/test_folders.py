"""Which folders below a root are participants' of one visit; what is passed over is counted."""

import os
from pathlib import Path

import pytest

from cmrdata.cohorts.ukbb import folders
from cmrdata.cohorts.ukbb.folders import Folder, holds_participants, list_folders

WHOLE = ("sa.nii.gz", "label_sa.nii.gz", "seg_sa.nii")


def put(root: Path, name: str, *files: str) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    for file in files:
        (root / name / file).write_text("")


def listed(root: Path, *, instance: int = 2, labels: str = "auto", withdrawn=()):
    found, counted = list_folders(root, instance=instance, labels=labels, withdrawn=withdrawn)
    return {key: Path(folder.path).name for key, folder in found.items()}, counted, found


def test_a_name_tells_whose_folder_it_is_and_of_which_visit(tmp_path):
    names = (
        "13",
        "12_2_0",
        "11_20209_2_1",
        "14.0",
        "15_3_0",
        "16_retest",
        "17_20209_3_2",
        "19_2_00",
    )
    for name in (*names, ".18", "18_20208_2_0", "18 (copy)", "logs"):
        put(tmp_path, name, *WHOLE)
    (tmp_path / "18").write_text("a file")
    first, counted, _ = listed(tmp_path)
    assert list(first) == ["11", "12", "13", "14", "19"]  # in their order
    assert first["14"] == "14.0" and first["11"] == "11_20209_2_1"
    assert sorted(counted) == [
        "2 folders not named as a participant's",
        "2 foreign folders passed over (hidden, logs, derivatives ...)",
        "3 image folders of another visit",
    ]
    # where some say that they are the repeat's, plain ones are not
    repeat, counted, _ = listed(tmp_path, instance=3)
    assert list(repeat) == ["15", "16", "17"] and "5 image folders of another visit" in counted
    for name in ("15_3_0", "16_retest", "17_20209_3_2"):
        for file in (tmp_path / name).iterdir():
            file.unlink()
        (tmp_path / name).rmdir()
    assert list(listed(tmp_path, instance=3)[0]) == ["13", "14"]


def test_case_18_19_a_stated_visit_goes_before_a_plain_name_and_the_first_complete_array_counts(
    tmp_path,
):
    put(tmp_path, "11", *WHOLE)
    put(tmp_path, "11_2_0")
    put(tmp_path, "12_2_0", "sa.nii.gz")  # no labels
    put(tmp_path, "12_2_10", *WHOLE)
    put(tmp_path, "12_2_9", *WHOLE)
    put(tmp_path, "13_2_1")
    put(tmp_path, "13_2_0", "sa.nii.gz")
    put(tmp_path, "14", *WHOLE)
    put(tmp_path, "15", *WHOLE)
    put(tmp_path, "15_2_0", *WHOLE)
    names, counted, found = listed(tmp_path, withdrawn={"14", "15", "99"})
    assert names == {"11": "11_2_0", "12": "12_2_9", "13": "13_2_0"}
    assert [bool(folder.fault) for folder in found.values()] == [True, False, True]
    assert counted == [
        "2 participants withdrawn (cohort.exclude)",
        "2 participants with several folders of one visit, the first complete one used",
    ]


def test_ids_that_differ_by_zeros_may_be_two_people(tmp_path):
    put(tmp_path, "0011", *WHOLE)
    put(tmp_path, "11_3_0", *WHOLE)
    with pytest.raises(ValueError, match=r"^cohort.root=.*: 1 participants' ids stand there with"):
        listed(tmp_path)
    with pytest.raises(
        ValueError, match=r"cannot be listed \(FileNotFoundError\); give a readable"
    ):
        listed(tmp_path / "nowhere")


def test_what_a_folder_holds_or_lacks(tmp_path):
    put(tmp_path, "11", *WHOLE, "sa.nii", "other.nii.gz")
    put(tmp_path, "12", "label_up_sa.nii.gz", "seg_sa.nii.gz")
    put(tmp_path, "13", "1.dcm")
    put(tmp_path, "14", "20209.ZIP")
    put(tmp_path, "15", "notes.txt")
    put(tmp_path, "16", "sa.nii.gz", "label_sa.nii.gz")
    (tmp_path / "16" / "seg_sa.nii.gz").mkdir()  # a folder of that name is no file
    (tmp_path / "17").symlink_to(tmp_path / "away")
    _, _, found = listed(tmp_path)
    assert found["11"].files == {"cine": "sa.nii.gz", "labels": "seg_sa.nii"}
    assert found["11"].paths() == {
        "cine": tmp_path / "11" / "sa.nii.gz",
        "labels": tmp_path / "11" / "seg_sa.nii",
    }
    assert not found["11"].manual and found["16"].files["labels"] == "label_sa.nii.gz"
    assert found["16"].manual and found["16"].fault is None
    faults = {key: (folder.fault, folder.bare) for key, folder in found.items() if folder.fault}
    assert faults["12"][0].startswith("image: sa.nii.gz is missing") and not faults["12"][1]
    assert faults["13"][0].startswith("DICOM files; ") and not faults["13"][1]
    assert faults["14"][0].startswith("archives (.zip or the like); unpack") and not faults["14"][1]
    assert faults["15"][0].startswith("image: sa.nii.gz is missing") and faults["15"][1]
    assert faults["17"] == ("folder cannot be read (FileNotFoundError)", False)
    assert set(faults) == {"12", "13", "14", "15", "17"}
    assert Folder("x", {}, None).bare is False and not Folder("x", {}, None).manual
    manual = listed(tmp_path, labels="manual")[2]
    assert manual["11"].files["labels"] == "label_sa.nii.gz" and manual["11"].manual


def test_a_folder_of_participants_is_told_by_its_first_folders(tmp_path):
    put(tmp_path, "a", "x.txt")
    put(tmp_path, "b", "sa.nii.gz")
    assert holds_participants(tmp_path, ["gone", "a", "b"], [])
    assert not holds_participants(tmp_path, ["gone", "a"], [])
    assert not holds_participants(tmp_path, ["a"] * 50 + ["b"], [])
    assert holds_participants(tmp_path, ["a"] * 49 + ["b"], [])


def test_an_entry_that_cannot_be_asked_counts_as_a_folder(tmp_path, monkeypatch):
    class Entry:
        path, name = str(tmp_path / "11"), "11"

        def is_dir(self):
            raise PermissionError

    assert folders._is_folder(Entry())
    put(tmp_path, "12", *WHOLE)
    (tmp_path / "13").symlink_to(tmp_path / "12")
    (tmp_path / "14").symlink_to(tmp_path / "12" / "sa.nii.gz")
    assert list(listed(tmp_path)[0]) == ["12", "13"]
    usual = os.scandir

    def guarded(path):
        if Path(path).name == "12":
            raise PermissionError(13, "Permission denied", path)
        return usual(path)

    monkeypatch.setattr("cmrdata.cohorts.ukbb.folders.os.scandir", guarded)
    assert listed(tmp_path)[2]["12"].fault == "folder cannot be read (PermissionError)"
