"""Data folders as people keep them: links followed once, foreign folders passed over, nobody
counted who is none."""

import os
import shutil
from pathlib import Path

import pytest

from cmrdata.cohorts.reading.folders import Walk
from support.layout_trees import LAYOUTS, cohort, own, patients, trees  # noqa: F401  fixtures


def people(layout: str, data: Path, root: Path | None = None):
    made = cohort(layout, root or data / layout, table=data / "table.csv")
    table, rejected = made.subjects()
    return table, rejected, made.notes()


def test_each_folder_is_entered_once_and_straight_ways_go_first(tmp_path):
    (tmp_path / "b" / "inner").mkdir(parents=True)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "inner" / "up").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "nowhere")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".hidden").mkdir()
    walk = Walk(tmp_path)
    assert [folder.relative_to(tmp_path).as_posix() for folder, _, _ in walk] == [
        ".",
        "b",
        "b/inner",
    ]
    assert walk.passed == {
        "link# leading nowhere": 1,
        "foreign folder# passed over (hidden, logs, derivatives ...)": 2,
    }


@LAYOUTS
def test_links_to_patients_and_their_parents_are_followed(layout, own, tmp_path):  # noqa: F811
    usual = people(layout, own)[0]
    place = patients(own / layout)
    away = tmp_path / "away"
    for number, folder in enumerate(sorted(place.iterdir())):
        if folder.is_dir() and number % 2 == 0:
            shutil.move(folder, away / folder.name)
            folder.symlink_to(away / folder.name)
    (place / "again").symlink_to(place)  # a cycle
    found, rejected, _ = people(layout, own)
    assert rejected.empty and found.subject.tolist() == usual.subject.tolist()
    (tmp_path / "link").symlink_to(own / layout)
    assert len(people(layout, own, tmp_path / "link")[0]) == 3


@LAYOUTS
def test_a_farm_of_links_beside_the_data_is_no_second_copy(layout, own, tmp_path):  # noqa: F811
    usual = people(layout, own)[0]
    farm = own / layout / "all"
    farm.mkdir()
    for folder in [
        path for path in patients(own / layout).iterdir() if path.is_dir() and path != farm
    ]:
        (farm / folder.name).symlink_to(folder)
    # there a folder is a participant
    for path in list((own / layout).rglob("*.nii.gz")) if layout != "ukbb" else ():
        if not (farm / path.name).exists():
            (farm / path.name).symlink_to(path)
    table, rejected, _ = people(layout, own)
    assert rejected.empty and table.subject.tolist() == usual.subject.tolist()


@LAYOUTS
def test_files_may_be_links(layout, own, tmp_path):  # noqa: F811
    usual = people(layout, own)[0]
    (tmp_path / "pool").mkdir()
    for number, path in enumerate(list((own / layout).rglob("*.nii.gz"))):
        shutil.move(path, tmp_path / "pool" / f"{number}.bin")
        path.symlink_to(tmp_path / "pool" / f"{number}.bin")
    made = cohort(layout, own / layout, table=own / "table.csv")
    assert made.subjects()[0].subject.tolist() == usual.subject.tolist()
    assert made.stacks(made.subjects()[0].assign(split="val")).rejected.empty


@LAYOUTS
def test_a_patient_behind_a_broken_link_is_rejected_or_told(layout, own):  # noqa: F811
    place = patients(own / layout)
    folder = sorted(path for path in place.iterdir() if path.is_dir())[0]
    shutil.rmtree(folder)
    folder.symlink_to(own / "nowhere")
    table, rejected, notes = people(layout, own)
    assert len(table) == 2
    if layout in ("ukbb", "acdc"):  # the folder's name says that this is a patient
        assert len(rejected) == 1 and (
            "cannot be read" in rejected.reason[0] or "leads nowhere" in rejected.reason[0]
        )
    else:
        assert "1 link leading nowhere" in notes and "rows of the table without images: 1" in notes


FOREIGN = ("logs", "scripts", "derivatives", "__MACOSX", ".cache")


@LAYOUTS
def test_foreign_folders_are_passed_over_and_counted(layout, own):  # noqa: F811
    usual = people(layout, own)[0]
    shutil.copytree(own / layout, own / "copy")
    for name in FOREIGN:
        (own / layout / name).mkdir()
        shutil.copytree(own / "copy", own / layout / name / "copy")
    (own / layout / "backup2020").mkdir()
    table, rejected, notes = people(layout, own)
    assert rejected.empty and table.subject.tolist() == usual.subject.tolist()
    assert "5 foreign folders passed over (hidden, logs, derivatives ...)" in notes
    if layout == "ukbb":
        assert "1 foreign folder passed over (neither images nor a row in the table)" in notes


def test_a_participant_without_images_is_rejected_where_the_table_knows_it(own):  # noqa: F811
    folder = sorted((own / "ukbb").iterdir())[0]
    shutil.rmtree(folder)
    folder.mkdir()
    table, rejected, _ = people("ukbb", own)
    assert len(table) == 2 and rejected.reason.str.startswith(
        "image: sa.nii.gz is missing"
    ).tolist() == [True]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("layout", ["mnms", "mnms2"])
def test_a_folder_that_may_not_be_read_is_told(layout, own):  # noqa: F811
    closed = patients(own / layout) / "closed"
    closed.mkdir()
    closed.chmod(0)
    assert "1 folder not readable" in people(layout, own)[2]
    closed.chmod(0o700)
