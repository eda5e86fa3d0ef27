"""M&Ms from made files: tables as they come, frames that must be found, patients that must not be
named."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from cmrdata import origin
from cmrdata.batch import LV, RV
from cmrdata.cohorts.mnms import MnMs
from cmrdata.prepare import prepare
from cmrdata.pseudonyms import hashed, read_salt
from support.acdc_files import everything
from support.mnms_files import ED, ES, FRAMES, NAME, cohort, made, mnms, one, read, write

# ---- where things are


def test_repackaged_folders_give_the_same(tmp_path):
    codes = ["SYN001", "SYN002", "SYN003"]
    parts = dict(zip(codes, ("Training/Labeled", "Validation", "Testing"), strict=True))
    official = mnms(tmp_path / "official", dict.fromkeys(codes, {}), parts=parts)
    loose = mnms(
        tmp_path / "loose",
        dict.fromkeys(codes, {}),
        parts=dict.fromkeys(codes, "images"),
        flat=True,
    )
    (loose / "images" / "._SYN001_sa.nii.gz").write_bytes(b"a Mac's shadow file")
    (loose / "images" / "SYN002_sa.nii").write_bytes(b"left behind by unpacking")
    table, rejected, stacks = read(cohort(official))
    same, _, pictures = read(cohort(loose))
    assert rejected.empty and stacks.rejected.empty and len(stacks.index) == 3
    pd.testing.assert_frame_equal(same, table)
    np.testing.assert_array_equal(pictures.images, stacks.images)
    assert held(cohort(official)) == held(cohort(loose))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "External code;Vendor Name;Vendor;Center;ED;ES;AGE;Pathology;Sex;Height;Weight",
        "\ufeffexternal_code,vendorname,vendor,Centre,Ed,Es,Age,Diagnosis,Gender,Height (cm),Weight (kg)",
    ],
)
def test_columns_are_found_by_name_and_empty_rows_are_none(tmp_path, header):
    root = one(tmp_path, Centre="5", Age="61.0")
    if header:
        comma = ";" if ";" in header else ","
        cells = [
            "syn001 ",
            "Siemens",
            "A",
            "5",
            str(ED),
            str(ES),
            " 61",
            "nor",
            "female",
            "180",
            "81",
        ]
        (root / NAME).write_text(
            "\n".join([header, comma.join(cells), comma * 10, "", ""]), encoding="utf-8"
        )
    table, rejected = cohort(root).subjects()
    assert rejected.empty and len(table) == 1
    row = table.iloc[0]
    assert (row.sex, row.age, row.site, row.vendor, row.pathology) == (
        "F",
        61,
        "5",
        "Siemens",
        "NOR",
    )
    assert (row.diagnosis, row.source, row.label_source) == (
        "healthy",
        "mnms",
        "manual",
    ) and "ef" not in table
    assert row.bmi == pytest.approx(25)


@pytest.mark.parametrize(
    ("cells", "sex", "age", "bmi"),
    [
        ({"Height": "1.8"}, "F", 52, 25),
        ({"Height": ""}, "F", 52, None),
        ({"Weight": "NA"}, "F", 52, None),
        ({"Weight": "810"}, "F", 52, None),
        ({"Sex": "M", "Age": ""}, "M", None, 25),
        ({"Sex": "", "Age": "-1"}, None, None, 25),
        ({"Sex": "unknown", "Age": "adult"}, None, None, 25),
        ({"Height": "inf", "Age": "inf"}, "F", None, None),
    ],
)
def test_case_20_21_24_what_is_not_known_stays_missing(tmp_path, cells, sex, age, bmi):
    table, rejected = cohort(one(tmp_path, **cells)).subjects()
    row = table.iloc[0]
    assert rejected.empty and row.sex == sex
    assert row.age == age if age else np.isnan(row.age)
    assert row.bmi == pytest.approx(bmi) if bmi else np.isnan(row.bmi)


def test_the_newest_table_that_knows_the_pathology_counts(tmp_path):
    root = one(tmp_path, Pathology="DCM")
    table = pd.read_csv(root / NAME, dtype=str)
    old = root / "201014_M&Ms_Dataset_Information_-_opendataset.csv"
    table.drop(columns=["Pathology", "Unnamed: 0"]).assign(Centre="9").to_csv(old, index=False)
    table.drop(columns="Pathology").to_csv(
        root / "991231_M&Ms_Dataset_information.csv", index=False
    )
    assert cohort(root).subjects()[0][["pathology", "site"]].iloc[0].tolist() == ["DCM", "1"]
    (root / NAME).unlink()
    with pytest.raises(
        ValueError, match="no column Pathology; use the table of release 211230, or cohort.label=ef"
    ):
        cohort(root).subjects()
    assert cohort(root, label="ef", ef_above=45).subjects()[0].diagnosis.tolist() == ["healthy"]


def test_case_27_files_and_rows_without_each_other_are_told(tmp_path):
    root = mnms(tmp_path / "OpenDataset", {"SYN001": {}, "SYN002": {}, "SYN003": {}})
    shutil.rmtree(root / "Training" / "Labeled" / "SYN002")
    lines = (root / NAME).read_text().splitlines()
    (root / NAME).write_text("\n".join(line for line in lines if "SYN003" not in line))
    found = cohort(root)
    table, rejected = found.subjects()
    assert len(table) == 1 and rejected.reason.tolist() == ["no row in the table"]
    assert found.notes() == ["rows of the table without images: 1"]


def test_a_patient_in_two_places_or_rows_is_refused(tmp_path):
    root = one(tmp_path)
    shutil.copytree(root / "Training" / "Labeled", root / "Testing")
    with pytest.raises(
        ValueError, match="1 patients in two places; give one copy of the data"
    ) as error:
        cohort(root).subjects()
    assert "SYN" not in str(error.value)
    shutil.rmtree(root / "Testing")
    (root / NAME).write_text(
        (root / NAME).read_text() + (root / NAME).read_text().splitlines()[1] + "\n"
    )
    with pytest.raises(ValueError, match="1 codes with two rows"):
        cohort(root).subjects()


@pytest.mark.parametrize("root", [None, "nowhere", "no table"])
def test_a_missing_root_says_what_is_expected(tmp_path, root):
    if root == "no table":
        (mnms(tmp_path / root, {"SYN001": {}}) / NAME).unlink()
    # making it touches no file
    found = MnMs(root=root and tmp_path / root, salt_root=tmp_path / "salted")
    with pytest.raises(FileNotFoundError) as error:
        found.subjects()
    wanted = ("cohort.root=", "CMR_MNMS_ROOT", ".csv" if root == "no table" else root or "not set")
    assert all(word in str(error.value) for word in wanted) and "\n" not in str(error.value)
    assert not (tmp_path / "salted").exists()


# ---- frames and masks


@pytest.mark.parametrize(
    ("cells", "flags"),
    # counted from 1
    [
        ({}, ""),
        ({"ED": "7.0", "ES": "3.0"}, ""),
        ({"ED": "8", "ES": "4"}, "frames_from_labels"),
        ({"ED": "", "ES": ""}, "frames_from_labels"),
        ({"ED": "7", "ES": "5"}, "frames_from_labels"),
        ({"ED": "30", "ES": "-1"}, "frames_from_labels"),
        ({"ED": "7.5", "ES": "inf"}, "frames_from_labels"),
    ],
)
def test_case_03_frames_count_from_0_and_hold_labels(tmp_path, cells, flags):
    stacks = read(cohort(one(tmp_path, **cells)))[2]
    assert stacks.rejected.empty
    assert stacks.index[["ed_frame", "es_frame", "flags"]].iloc[0].tolist() == [ED, ES, flags]
    assert (stacks.masks[0, 0] == LV).sum() > 1.5 * (stacks.masks[0, 1] == LV).sum()


def test_case_04_neighbours_in_time_wrap_and_reuse_the_masks(tmp_path):
    root = one(tmp_path)
    stacks = read(cohort(root), "train")[2]
    assert (
        stacks.index["flags"].tolist() == ["mask_reused", "", "mask_reused"] * 3
        and len(stacks.index) == 9
    )
    path = root / "Training" / "Labeled" / "SYN001" / "SYN001_sa.nii.gz"
    cine = made(0)[0]
    write(path, np.roll(cine, -1, axis=0))  # every frame one earlier: offset 0 shows what 1 did
    later = read(cohort(root), "train")[2]
    np.testing.assert_array_equal(later.images[1::3], stacks.images[2::3])
    np.testing.assert_array_equal(later.images[0::3], stacks.images[1::3])
    assert read(cohort(root), "val")[2].index.central.tolist() == [True]


def test_case_29_unlabelled_subjects_are_no_empty_hearts(tmp_path):
    codes = ("SYN001", "SYN002", "SYN003")
    root = mnms(
        tmp_path / "OpenDataset", dict.fromkeys(codes, {}), parts={"SYN002": "Training/Unlabeled"}
    )
    empty = root / "Training" / "Labeled" / "SYN003" / "SYN003_sa_gt.nii.gz"
    write(empty, np.zeros((FRAMES, 5, 88, 108), np.uint8))
    table, rejected, stacks = read(found := cohort(root))
    assert (
        len(table) == 2 and rejected.empty and found.notes() == ["unlabelled subjects left out: 1"]
    )
    assert len(stacks.index) == 1 and stacks.rejected.reason.tolist() == [
        "unlabelled (empty label file)"
    ]
    assert cohort(root, label="ef").subjects()[1].reason.tolist() == [
        "unlabelled (empty label file)"
    ]


def paths(root: Path) -> tuple[Path, Path]:
    folder = root / "Training" / "Labeled" / "SYN002"
    return folder / "SYN002_sa.nii.gz", folder / "SYN002_sa_gt.nii.gz"


def relabel(root: Path, change) -> None:
    path = paths(root)[1]
    write(path, change(np.asarray(nibabel.load(path).dataobj).T))


def marked_everywhere(labels: np.ndarray) -> np.ndarray:
    return np.concatenate([labels[ED:], labels[ED:], *[labels[ES : ES + 1]] * 5, labels[ED:] * 0])


FAULTS = {
    "cine: file is truncated": lambda r: paths(r)[0].write_bytes(paths(r)[0].read_bytes()[:9000]),
    "labels: file is empty": lambda r: paths(r)[1].write_bytes(b""),
    "labels: file is missing": lambda r: paths(r)[1].unlink(),
    "labels: 3 axes, expected 4": lambda r: relabel(r, lambda m: m[ED]),
    "cine: 8 frames, but labels for 9": lambda r: relabel(r, lambda m: np.concatenate([m, m[:1]])),
    "labels: 7 frames hold any": lambda r: relabel(r, marked_everywhere),
    "ED labels: unknown labels 7": lambda r: relabel(
        r, lambda m: np.where(m == RV, 7, m).astype(np.uint8)
    ),
    "ED labels: LV and RV look swapped": lambda r: relabel(
        r, lambda m: np.array([0, 3, 2, 1], np.uint8)[m]
    ),
    "ED labels: the LV cavity is smaller than at ES": lambda r: relabel(
        r, lambda m: m[[0, 1, 2, ED, 4, 5, 6, ES]]
    ),
    "labels measure 4 x 88 x 108, the ED image 5": lambda r: relabel(r, lambda m: m[:, 1:]),
    "unknown pathology 'XYZ'": lambda r: (r / NAME).write_text(
        (r / NAME).read_text().replace("HCM", "XYZ")
    ),
    "constant image": lambda r: write(paths(r)[0], np.ones((FRAMES, 5, 88, 108), np.int16)),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_case_14_a_faulty_patient_is_rejected_with_a_reason(tmp_path, reason):
    root = mnms(tmp_path / "OpenDataset", {"SYN001": {}, "SYN002": {"Pathology": "HCM"}})
    FAULTS[reason](root)
    table, listed, stacks = read(cohort(root))
    rejected = pd.concat([listed, stacks.rejected], ignore_index=True)
    assert rejected.subject.tolist() == [hashed("SYN002", read_salt(tmp_path / "salted"))]
    assert rejected.reason[0].startswith(reason) and "SYN" not in rejected.reason[0]
    assert stacks.index.subject.tolist() == table.subject[:1].tolist()


def test_case_31_no_patient_is_named_in_a_store(tmp_path):
    root = mnms(tmp_path / "OpenDataset", dict.fromkeys(("SYN001", "SYN002", "SYN003"), {}))
    paths(root)[1].write_bytes(b"")
    store = prepare(cohort(root, max_rejected=1), tmp_path / "data")
    assert len(store.subjects) == 2 and "SYN" not in everything(store)


def test_case_02_10_float_labels_and_another_affine_are_taken_as_they_are(tmp_path):
    root = mnms(tmp_path / "OpenDataset", {"SYN002": {}})
    plain = read(cohort(root))[2]
    relabel(root, lambda m: m.astype(np.float64) + 2e-4)
    image, labels = paths(root)
    write(labels, np.asarray(nibabel.load(labels).dataobj).T, np.diag([-1.5, -1.5, -8.0, 1]))
    other = read(cohort(root))[2]
    np.testing.assert_array_equal(other.masks, plain.masks)
    assert plain.index["flags"].tolist() == [""] and other.index["flags"].tolist() == [
        "affine_mismatch"
    ]


def test_case_12_mirrored_files_are_set_upright_by_their_headers(tmp_path):
    root = mnms(tmp_path / "OpenDataset", {"SYN002": {}})
    upright = read(cohort(root))[2]
    for path in paths(root):
        image = nibabel.load(path)
        turned = image.slicer[::-1, ::-1]  # with the affine that says so
        nibabel.save(nibabel.Nifti1Image(np.asarray(turned.dataobj), turned.affine), path)
    for ours, theirs in zip(read(cohort(root))[2][:2], upright[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_case_08_a_pixel_size_that_nobody_set_is_asked_for(tmp_path):
    root = mnms(tmp_path / "OpenDataset", {"SYN002": {}})
    given = read(cohort(root))[2]
    for path in paths(root):
        write(path, np.asarray(nibabel.load(path).dataobj).T, np.eye(4))
    assert read(cohort(root))[2].rejected.reason[0].startswith("cine: in-plane spacing 1 x 1 mm")
    found = read(cohort(root, default_spacing=1.5))[2]
    np.testing.assert_array_equal(found.images, given.images)


def held(cohort) -> str:
    """What a cohort's source is: its participants and what their files hold."""
    source = cohort.source()
    return origin.digest(source, origin.look(source.files)[0])


def test_other_frames_in_the_table_are_other_data(tmp_path):
    before = held(cohort(one(tmp_path)))
    assert held(cohort(one(tmp_path, ES="4"))) != before
