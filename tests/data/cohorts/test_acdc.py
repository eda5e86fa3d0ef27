import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from cmrdata import origin
from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.acdc import ACDC
from cmrdata.prepare import prepare
from cmrdata.pseudonyms import hashed, read_salt
from support.acdc_files import ED, ES, THEIRS, cohort, everything, patient, read, write


def test_flat_and_nested_roots_give_the_same(tmp_path):
    places = {
        "flat": ("", ""),
        "nested": ("training", "testing"),
        "below": ("database/training", "database/testing"),
    }
    for root, (first, second) in places.items():
        for number in range(101, 105):
            patient(tmp_path / root / (first if number < 103 else second), number)
    flat, *others = (cohort(tmp_path / root) for root in places)
    table, rejected, stacks = read(flat, "train")
    assert rejected.empty and stacks.rejected.empty and len(stacks.index) == 4 * 3
    for other in others:
        same, _, pictures = read(other, "train")
        pd.testing.assert_frame_equal(same, table)
        np.testing.assert_array_equal(pictures.images, stacks.images)
        assert held(other) == held(flat)


def test_groups_become_diagnoses_and_the_rest_is_extra(tmp_path):
    for number in range(101, 107):
        patient(tmp_path / "acdc", number)
    store = prepare(cohort(tmp_path / "acdc"), tmp_path / "data")
    people = store.subjects.set_index("pathology")
    assert people.diagnosis.fillna("").to_dict() == {
        "DCM": "reduced_ef",
        "MINF": "reduced_ef",
        "NOR": "healthy",
        "HCM": "",
        "RV": "",
    }
    assert set(people.split[["HCM", "RV"]]) == {"extra"} and "extra" not in set(
        people.split[["DCM", "MINF", "NOR"]]
    )
    assert people.sex.isna().all() and people.age.isna().all()
    index = store.index
    assert (index.ed_frame == ED - 1).all() and (index.es_frame == ES - 1).all()  # counted from 0
    assert people.bmi.to_numpy() == pytest.approx(25.0)
    assert set(people.bmi_band) == {"overweight"}


@pytest.mark.parametrize(
    ("lines", "bmi"),
    [
        ("Height: 180\nWeight: 81", 25),
        ("Height:1.8\nWeight :81", 25),
        ("Height: 180", None),
        ("Weight: 81", None),
        ("Height: 0\nWeight: 81", None),
        ("Height: tall\nWeight: 81", None),
        ("Height: 180\nWeight: 810", None),
        ("Height: nan\nWeight: 81", None),
        ("", None),
    ],
)
def test_bmi_is_derived_where_it_can_be(tmp_path, lines, bmi):
    patient(
        tmp_path / "acdc",
        101,
        info=f"ED:{ED}\nES : {ES}\nGroup: NOR\n# a note: with colons: in it\n\n{lines}\n",
    )
    table, rejected = cohort(tmp_path / "acdc").subjects()
    assert rejected.empty
    assert table.bmi[0] == pytest.approx(bmi) if bmi else np.isnan(table.bmi[0])


def test_a_patient_without_a_group_is_neither_case_nor_control(tmp_path):
    patient(tmp_path / "acdc", 101, info=f"ED: {ED}\nES: {ES}\n")
    table, rejected = cohort(tmp_path / "acdc").subjects()
    assert rejected.empty and table.diagnosis.isna().all() and table.pathology.isna().all()


def test_the_cine_gives_neighbouring_frames_to_training_subjects(tmp_path):
    patient(tmp_path / "with", 101, cine=True)
    patient(tmp_path / "without", 101)
    found = {where: read(cohort(tmp_path / where), "train")[2] for where in ("with", "without")}
    assert found["with"].index.groupby("flags").size().to_dict() == {"": 3, "mask_reused": 6}
    assert found["without"].index["flags"].tolist() == [""] * 3
    same = found["with"].index.frame == 0  # ED and ES are counted from 1: the cine's are the files'
    for part in ("images", "masks"):
        np.testing.assert_array_equal(
            getattr(found["with"], part)[same], getattr(found["without"], part)
        )
    assert read(cohort(tmp_path / "with"), "extra")[2].images.shape[0] == 9


def test_evaluation_gets_the_central_stack_and_needs_no_cine(tmp_path):
    folder = patient(tmp_path / "acdc", 101, cine=True)
    (folder / "patient101_4d.nii.gz").write_bytes(b"")
    for split in ("val", "test"):
        stacks = read(cohort(tmp_path / "acdc"), split)[2]
        assert stacks.index.central.tolist() == [True] and stacks.rejected.empty


def short(folder: Path) -> None:
    write(folder / "patient101_4d.nii.gz", np.ones((3, 5, 88, 108), np.int16))


def other_heart(folder: Path) -> None:
    patient(folder.parent / "other", 104, cine=True)
    shutil.move(
        folder.parent / "other" / "patient104" / "patient104_4d.nii.gz",
        folder / "patient101_4d.nii.gz",
    )
    shutil.rmtree(folder.parent / "other")


def shifted(folder: Path) -> None:
    path = folder / "patient101_4d.nii.gz"
    write(path, np.roll(np.asarray(nibabel.load(path).dataobj).T, 3, axis=0))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "patient101_4d.nii.gz").write_bytes(b""),
        short,
        other_heart,
        shifted,
        lambda f: write(f / "patient101_4d.nii.gz", np.ones((5, 88, 108), np.int16)),
        lambda f: (f / "Info.cfg").write_text(
            (f / "Info.cfg").read_text().replace("NbFrame: 8", "NbFrame: 9")
        ),
    ],
)
def test_a_cine_that_cannot_be_used_costs_the_neighbours_and_not_the_patient(tmp_path, spoil):
    """ED and ES come from their own files in every split, so that a split does not decide who is in
    the cohort."""
    alone = read(cohort(patient(tmp_path / "alone", 101).parent), "train")[2]
    folder = patient(tmp_path / "acdc", 101, cine=True)
    spoil(folder)
    stacks = read(cohort(tmp_path / "acdc"), "train")[2]
    assert stacks.rejected.empty and set(stacks.index["flags"]) == {"neighbours_lost"}
    np.testing.assert_array_equal(stacks.images, alone.images)
    reason = read(cohort(tmp_path / "acdc", cine=4), "val")[2].rejected.reason.tolist()
    assert len(reason) == 1 and reason[0].startswith("4-D cine: ")


def test_label_order_is_canonical_and_pictures_stand_upright(tmp_path):
    patient(tmp_path / "acdc", 101)
    masks = read(cohort(tmp_path / "acdc"), "val")[2].masks[0]
    for mask in masks:
        (_, lv), (_, myo), (_, rv) = (np.argwhere(mask == label).mean(0) for label in (LV, MYO, RV))
        assert rv < lv == pytest.approx(myo, abs=1)  # RV on the left
    assert (masks[0] == LV).sum() > 1.5 * (masks[1] == LV).sum()  # channels ED, ES


def test_unpacked_files_are_read_too(tmp_path):
    folder = patient(tmp_path / "acdc", 101)
    for path in folder.glob("*.nii.gz"):
        nibabel.save(nibabel.load(path), path.with_suffix(""))
        path.unlink()
    assert read(cohort(tmp_path / "acdc"), "val")[2].rejected.empty


def truncate(folder: Path) -> None:
    path = folder / f"{folder.name}_frame{ES:02d}.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def relabel(folder: Path, frame: int, change) -> None:
    path = folder / f"{folder.name}_frame{frame:02d}_gt.nii.gz"
    write(path, change(np.asarray(nibabel.load(path).dataobj).T))


FAULTS = {
    "ES image: file is truncated or corrupt": truncate,
    "ED image: file is empty": lambda f: (f / f"{f.name}_frame{ED:02d}.nii.gz").write_bytes(b""),
    "ED labels: file is missing": lambda f: (f / f"{f.name}_frame{ED:02d}_gt.nii.gz").unlink(),
    "Info.cfg is missing": lambda f: (f / "Info.cfg").unlink(),
    "Info.cfg lacks ES": lambda f: (f / "Info.cfg").write_text(f"ED: {ED}\nGroup: NOR\n"),
    "Info.cfg: ED is '0'": lambda f: (f / "Info.cfg").write_text(f"ED: 0\nES: {ES}\nGroup: NOR\n"),
    "Info.cfg: ED and ES are the same frame": lambda f: (f / "Info.cfg").write_text(
        f"ED: {ES}\nES: {ES}\nGroup: NOR\n"
    ),
    "unknown pathology 'ABC'": lambda f: (f / "Info.cfg").write_text(
        f"ED: {ED}\nES: {ES}\nGroup: ABC\n"
    ),
    "ED labels: unknown labels 7": lambda f: relabel(
        f, ED, lambda m: np.where(m == 3, 7, m).astype(np.uint8)
    ),
    "ES labels: labels are not integers: 0.5": lambda f: relabel(
        f, ES, lambda m: m.astype(np.float32) / 2
    ),
    "labels measure 4 x 88 x 108, the ED image 5": lambda f: relabel(f, ED, lambda m: m[1:]),
    "ED labels: no LV cavity and no myocardium": lambda f: relabel(f, ED, np.zeros_like),
    "ES labels: LV and RV look swapped": lambda f: relabel(f, ES, lambda m: THEIRS[m]),
    "ED image: 4 axes, expected 3": lambda f: write(
        f / f"{f.name}_frame{ED:02d}.nii.gz", np.ones((2, 5, 6, 7), np.int16)
    ),
    "ED labels: the LV cavity is smaller": lambda f: relabel(
        f, ED, lambda m: np.where((m == 3) & (m.cumsum(1) > 40), 2, m)
    ),
    "constant image": lambda f: [
        write(p, np.ones((5, 88, 108), np.int16)) for p in f.glob("*frame0?.nii.gz")
    ],
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_faulty_patient_is_rejected_with_a_reason(tmp_path, reason):
    for number in (101, 102):
        patient(tmp_path / "acdc", number)
    FAULTS[reason](tmp_path / "acdc" / "patient102")
    table, listed, stacks = read(cohort(tmp_path / "acdc"), "val")
    rejected = pd.concat([listed, stacks.rejected], ignore_index=True)
    assert rejected.subject.tolist() == [hashed("patient102", read_salt(tmp_path / "salted"))]
    assert rejected.reason[0].startswith(reason) and "patient" not in rejected.reason[0]
    assert stacks.index.subject.tolist() == table.subject[:1].tolist()


def test_case_14_31_no_patient_is_named_in_a_store(tmp_path):
    for number in (101, 102, 103):
        patient(tmp_path / "acdc", number)
    truncate(tmp_path / "acdc" / "patient102")
    with pytest.raises(
        ValueError, match="(?s)1 subject rejected, more than 5%.*1  ES image: file is truncated"
    ) as error:
        prepare(cohort(tmp_path / "acdc"), tmp_path / "data")
    store = prepare(cohort(tmp_path / "acdc", max_rejected=0.4), tmp_path / "data")
    assert len(store.subjects) == 2 and not re.search(
        r"patient\d", everything(store) + str(error.value)
    )


def test_case_17_a_time_axis_elsewhere_is_told_by_nbframe(tmp_path):
    folder = patient(tmp_path / "acdc", 101, cine=True)
    usual = read(cohort(tmp_path / "acdc"), "train")[2]
    cine = nibabel.load(folder / "patient101_4d.nii.gz")
    turned = nibabel.Nifti1Image(np.moveaxis(np.asarray(cine.dataobj), 3, 2), np.eye(4))
    turned.header.set_zooms((1.5, 1.5, 1, 10))
    nibabel.save(turned, folder / "patient101_4d.nii.gz")
    found = read(cohort(tmp_path / "acdc"), "train")[2]
    assert found.rejected.empty and len(found.index) == 9
    np.testing.assert_array_equal(found.images, usual.images)


def test_the_ejection_fraction_can_decide(tmp_path):
    for number in (101, 103, 104):
        patient(tmp_path / "acdc", number)  # all eject 1 - 0.7 ** 2
    table, rejected = cohort(tmp_path / "acdc", label="ef", ef_above=45).subjects()
    assert rejected.empty and table.ef.to_numpy() == pytest.approx(0.5, abs=0.03)
    assert (
        table.pathology.tolist() == ["DCM", "NOR", "HCM"]
        and table.diagnosis.tolist() == ["healthy"] * 3
    )
    relabel(tmp_path / "acdc" / "patient103", ES, np.zeros_like)
    table, rejected = cohort(tmp_path / "acdc", label="ef").subjects()
    assert rejected.reason.tolist() == ["ES labels: no LV cavity and no myocardium labelled"]
    assert len(table) == 2 and table.diagnosis.isna().all()


def test_the_split_does_not_depend_on_the_salt(tmp_path):
    for number in range(101, 113):
        patient(tmp_path / "acdc", number)
    stores = [
        prepare(cohort(tmp_path / "acdc", salt_root=tmp_path / salt), tmp_path / salt)
        for salt in "ab"
    ]
    assert not set(stores[0].subjects.subject) & set(stores[1].subjects.subject)
    assert stores[0].subjects.split.tolist() == stores[1].subjects.split.tolist()
    assert (
        stores[0].fingerprint == stores[1].fingerprint
        and stores[0].meta["names"] != stores[1].meta["names"]
    )
    assert (stores[0].folder / "images.u8").read_bytes() == (
        stores[1].folder / "images.u8"
    ).read_bytes()


def held(cohort) -> str:
    """What a cohort's source is: its participants and what their files hold."""
    source = cohort.source()
    return origin.digest(source, origin.look(source.files)[0])


def test_changed_files_are_other_data(tmp_path):
    patient(tmp_path / "acdc", 101)
    before = held(cohort(tmp_path / "acdc"))
    truncate(tmp_path / "acdc" / "patient101")
    assert held(cohort(tmp_path / "acdc")) != before


@pytest.mark.parametrize("root", [None, "nowhere", "empty"])
def test_a_missing_root_says_what_is_expected(tmp_path, root):
    (tmp_path / "empty").mkdir()
    # making it touches no file
    made = ACDC(root=root and tmp_path / root, salt_root=tmp_path / "salted")
    with pytest.raises(FileNotFoundError) as error:
        made.subjects()
    assert all(
        word in str(error.value)
        for word in (root or "not set", "Info.cfg", "cohort.root=", "CMR_ACDC_ROOT")
    )
    assert "\n" not in str(error.value) and not (tmp_path / "salted").exists()


def test_a_patient_found_twice_is_refused(tmp_path):
    for place in ("", "training"):
        patient(tmp_path / "acdc" / place, 101)
    with pytest.raises(ValueError, match="1 patients in two places; give one copy") as error:
        cohort(tmp_path / "acdc").subjects()
    assert "patient101" not in str(error.value)
