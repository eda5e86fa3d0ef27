"""M&Ms-2 from made files: ED and ES without a frame number, found again in the cine or left without
neighbours."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.mnms2 import MnMs2
from cmrdata.pseudonyms import hashed, read_salt
from support.mnms2_files import mnms2
from support.mnms_files import ED, ES, made, one, read, write
from support.mnms_files import cohort as as_mnms


def cohort(root: Path, **options) -> MnMs2:
    return MnMs2(**{"root": root, "pixels": 32, "salt_root": root.parent / "salted", **options})


@pytest.mark.parametrize("root", [None, "nowhere", "no table"])
def test_a_missing_root_says_what_is_expected(tmp_path, root):
    if root == "no table":
        (mnms2(tmp_path / root, {"001": "NOR"}) / "dataset_information.csv").unlink()
    # making it touches no file
    found = MnMs2(root=root and tmp_path / root, salt_root=tmp_path / "salted")
    with pytest.raises(FileNotFoundError) as error:
        found.subjects()
    wanted = ("cohort.root=", "CMR_MNMS2_ROOT", ".csv" if root == "no table" else root or "not set")
    assert all(word in str(error.value) for word in wanted) and not (tmp_path / "salted").exists()


def test_codes_get_their_zeros_and_empty_rows_are_none(tmp_path):
    root = mnms2(tmp_path / "MnM2", {"001": "NOR", "020": "HCM", "300": "TRI"})
    table, rejected, stacks = read(found := cohort(root))
    assert (
        rejected.empty and table.pathology.tolist() == ["NOR", "HCM", "TRI"] and found.notes() == []
    )
    assert table.diagnosis.fillna("-").tolist() == ["healthy", "-", "-"] and set(table.vendor) == {
        "SIEMENS"
    }
    assert table[["sex", "age", "bmi"]].isna().all(axis=None) and stacks.rejected.empty
    text = (
        (root / "dataset_information.csv")
        .read_text()
        .replace("\n20,", "\n20.0,")
        .replace("\n300,", "\n299,")
    )
    (root / "dataset_information.csv").write_text(text)
    table, rejected = (other := cohort(root)).subjects()
    assert table.pathology.tolist() == ["NOR", "HCM"] and rejected.reason.tolist() == [
        "no row in the table"
    ]
    assert other.notes() == ["rows of the table without images: 1"]


def test_neighbours_come_from_the_cine_where_the_frames_are_found_in_it(tmp_path):
    root = mnms2(tmp_path / "MnM2", {"001": "NOR"})
    stacks = read(cohort(root), "train")[2]
    assert stacks.index["flags"].tolist() == ["mask_reused", "", "mask_reused"] * 3
    assert set(stacks.index.ed_frame) == {ED} and set(stacks.index.es_frame) == {ES}
    same = read(as_mnms(one(tmp_path)), "train")[2]  # the same heart in one file
    for part in ("images", "masks"):
        np.testing.assert_array_equal(getattr(stacks, part), getattr(same, part))
    central = read(cohort(root), "val")[2]
    np.testing.assert_array_equal(central.images[0], stacks.images[4])
    assert central.index["flags"].tolist() == ["frames_unknown"]


@pytest.mark.parametrize(
    "cine", ["none", "another heart", "another size", "two frames", "ED twice"]
)
def test_there_are_no_neighbours_in_a_cine_that_lacks_the_frames(tmp_path, cine):
    root = mnms2(tmp_path / "MnM2", {"001": "NOR"}, cine=cine != "none")
    frames = made(0)[0]
    others = {
        "another heart": made(9)[0],
        "another size": frames[:, :, :70],
        "two frames": frames[[ED, ES]],
        "ED twice": frames[[ED, ED, 0]],
    }
    if cine in others:
        write(root / "dataset" / "001" / "001_SA_CINE.nii.gz", others[cine])
    stacks = read(cohort(root), "train")[2]
    assert stacks.rejected.empty and stacks.index["flags"].tolist() == ["frames_unknown"] * 3


def test_a_dilated_ventricle_is_a_case_where_it_fails(tmp_path):
    weak = cohort(mnms2(tmp_path / "weak", {"001": "LV", "002": "NOR"}, squeeze=0.9), name="weak")
    strong = cohort(mnms2(tmp_path / "strong", {"001": "LV", "002": "NOR"}), name="strong")
    assert weak.subjects()[0].diagnosis.tolist() == ["reduced_ef", "healthy"]
    assert strong.subjects()[0].diagnosis.fillna("-").tolist() == ["-", "healthy"]
    assert (
        cohort(tmp_path / "weak", label="ef").subjects()[0].diagnosis.tolist() == ["reduced_ef"] * 2
    )


@pytest.mark.parametrize(
    ("part", "array", "reason"),
    [
        ("ES_gt", np.zeros((5, 88, 108), np.uint8), "ES labels: no LV cavity and no myocardium"),
        ("ED", np.ones((4, 5, 88, 108), np.int16), "ED image: 4 axes, expected 3"),
        ("ES", np.ones((5, 70, 108), np.int16), "a frame measures 5 x 70 x 108"),
        ("ES", None, "ES image: file is missing"),
        ("ED_gt", b"", "ED labels: file is empty"),
    ],
)
def test_a_faulty_patient_of_mnms2_is_rejected(tmp_path, part, array, reason):
    root = mnms2(tmp_path / "MnM2", {"001": "NOR", "002": "LV"})
    path = root / "dataset" / "001" / f"001_SA_{part}.nii.gz"
    if array is None:
        path.unlink()
    elif isinstance(array, bytes):
        path.write_bytes(array)
    else:
        write(path, array)
    _, listed, stacks = read(cohort(root))
    rejected = pd.concat([listed, stacks.rejected])
    assert rejected.subject.tolist() == [hashed("001", read_salt(tmp_path / "salted"))]
    assert rejected.reason.iloc[0].startswith(reason)
