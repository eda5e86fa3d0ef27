"""A newcomer's first commands: whatever lies at cohort.root, the answer is a table of reasons and
what is expected."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cmrdata.prepare import expected, prepare
from cmrstudy.inspection import inspect, summary
from support import ROOT
from support.layout_trees import LAYOUTS, cohort, own, patients, trees  # noqa: F401  fixtures


def answer(layout: str, root: Path | None, table: Path, out: Path) -> str:
    """What preparing says; inspecting may say it in another order, and fails no other way."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        prepare(cohort(layout, root, table=table), out)
    try:
        subjects, rejected = inspect(looked := cohort(layout, root, table=table), out)
        assert subjects.empty and len(summary(subjects, rejected)) == 1
        assert expected(looked, rejected) in str(error.value)
    except (ValueError, FileNotFoundError) as other:
        assert str(other) == str(error.value)
    return str(error.value)


@LAYOUTS
def test_what_is_found_is_found_where_it_is(layout, trees, tmp_path):
    table, rejected = cohort(layout, trees / layout, table=trees / "table.csv").subjects()
    assert len(table) == 3 and rejected.empty


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (None, "cohort.root is not set|cohort.root, which is not set"),
        ("nowhere", "nowhere, which is not there"),
        ("file.txt", "file.txt|cannot be listed"),
        ("data.zip", "data.zip|cannot be listed"),
        ("empty", "which is empty"),
        ("dicom", "which holds DICOM files; convert them"),
        ("zips", r"which holds 2 archives .*unpack them"),
    ],
)
@LAYOUTS
def test_what_is_no_data_is_named_and_what_is_expected_too(layout, place, words, trees, tmp_path):
    for name in ("file.txt", "data.zip"):
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("dicom/1/series", "zips"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "dicom" / "1" / "series" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    for number in (1, 2):
        (tmp_path / "zips" / f"{number}_20209_2_0.zip").write_bytes(b"PK")
    said = answer(layout, place and tmp_path / place, trees / "table.csv", tmp_path / "out")
    assert re.search(words, said)
    assert "Expected is" in said or "give a readable folder" in said
    assert "\n" not in said and not (tmp_path / "salted").exists()


@LAYOUTS
def test_a_root_that_is_too_low_or_too_high_is_told_where_the_data_are(layout, own, tmp_path):
    data = own / layout
    low = (
        patients(data) / sorted(p.name for p in patients(data).iterdir())[0]
        if layout != "mnms"
        else data / "Training"
    )
    said = answer(layout, low, own / "table.csv", tmp_path / "out")
    assert f"up: give cohort.root={data}." in said
    high = tmp_path / "a" / "b" / "c" / "d"
    shutil.copytree(data, high / layout)
    if layout in ("mnms", "mnms2"):  # they are looked for at any depth
        assert len(cohort(layout, tmp_path / "a").subjects()[0]) == 3
    else:
        said = answer(layout, tmp_path / "a", own / "table.csv", tmp_path / "out")
        assert f"The data seem to be 4 levels down: give cohort.root={high / layout}." in said


MASKS = {"ukbb": ("seg_sa", "label_sa"), "acdc": ("_gt",), "mnms": ("_gt",), "mnms2": ("_gt",)}


@LAYOUTS
def test_images_without_masks_are_told_as_that(layout, own, tmp_path):
    for path in own.rglob("*.nii.gz"):
        if any(word in path.name for word in MASKS[layout]):
            path.unlink()
    said = answer(layout, own / layout, own / "table.csv", tmp_path / "out")
    assert "Images are there and masks are not" in said and "     3  " in said


def test_unconverted_folders_of_uk_biobank_are_told_as_dicom(own, tmp_path):
    for number, folder in enumerate(sorted((own / "ukbb").iterdir())):
        for path in folder.iterdir():
            path.unlink()
        (folder / ("a.dcm" if number else "20209.zip")).write_bytes(b"x")
    said = answer("ukbb", own / "ukbb", own / "table.csv", tmp_path / "out")
    assert (
        "     2  DICOM files; convert them" in said
        and "     1  archives" in said
        and "ukbb_cardiac" in said
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["experiment=inspect", "experiment=classifier preset=smoke"])
def test_the_command_ends_in_a_paragraph_and_a_status(command, own, tmp_path):
    for path in own.rglob("*_gt.nii.gz"):
        path.unlink()
    ran = subprocess.run(
        [
            sys.executable,
            str(ROOT / "train.py"),
            *command.split(),
            "cohort=acdc",
            f"cohort.root={own / 'acdc'}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode and "Traceback" not in ran.stderr
    assert "masks are not" in ran.stderr and "Expected is" in ran.stderr
    assert "file is missing" in ran.stderr + ran.stdout
