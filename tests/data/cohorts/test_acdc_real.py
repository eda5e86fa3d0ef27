"""The reader on real patients, wherever their files are: CMR_ACDC_ROOT or ../shared/data/acdc."""

import re

import numpy as np
import pytest

from cmrdata.batch import LV, RV
from cmrdata.cohorts.acdc import ACDC
from cmrdata.prepare import prepare
from cmrdata.store import Store
from support.acdc_files import everything
from support.real_acdc import REAL


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Store:
    if not REAL.is_dir():
        pytest.skip(f"no ACDC data in {REAL}; set CMR_ACDC_ROOT")
    root = tmp_path_factory.mktemp("data")
    return prepare(ACDC(root=REAL, salt_root=root), root)


def test_real_patients_are_all_read(real):
    assert real.meta["subjects"] == len(real.subjects) and real.meta["rejected"] == 0
    assert real.index.groupby("subject").size().isin((1, 3, 9)).all()
    assert (real.index["flags"].isin(("", "mask_reused", "handedness_assumed"))).all()
    # the headers tell nothing, nearly all masks do
    assert (real.index["flags"] == "handedness_assumed").mean() < 0.1
    assert set(np.unique(real.masks)) == {0, 1, 2, 3}
    assert not re.search(r"patient\d", everything(real))


def test_the_shared_70_patients_are_14_healthy_and_28_with_reduced_ef(real):
    if len(real.subjects) != 70:
        pytest.skip(f"{len(real.subjects)} patients in {REAL}, not the shared selection of 70")
    assert real.subjects.diagnosis.value_counts().to_dict() == {"reduced_ef": 28, "healthy": 14}
    assert real.subjects.split.value_counts().to_dict() == {
        "extra": 28,
        "train": 26,
        "test": 9,
        "val": 7,
    }
    assert len(real.index) == (26 + 28) * 3 + 9 + 7


def test_real_crops_are_centred_upright_and_well_exposed(real):
    for mask, image in zip(real.masks, real.images, strict=True):
        for axis in (0, 1):
            box = np.flatnonzero((mask > 0).any(axis=(0, 2 - axis)))
            assert abs((box[0] + box[-1]) / 2 - 31.5) <= 1
        assert 20 < image.mean() < 180 and (image == 255).mean() < 0.03
    for mask in real.masks[np.flatnonzero(real.index.central)]:
        (_, lv), (_, rv) = (np.argwhere(mask[0] == label).mean(0) for label in (LV, RV))
        assert rv < lv  # RV on the left of every picture: nobody is mirrored
    ed, es = ((np.asarray(real.masks[:, phase]) == LV).mean(axis=(1, 2)) for phase in (0, 1))
    assert (ed > es).all()


def test_real_ejection_fractions_agree_with_the_groups(real, tmp_path):
    """The challenge's own bounds: DCM and MINF below 40 %, NOR above 50 %, by the challenge's
    measurement of them."""
    table, rejected = ACDC(root=REAL, salt_root=tmp_path, label="ef").subjects()
    percent = 100 * table.set_index("pathology").ef
    assert (
        rejected.empty
        and percent["DCM"].max() < 40
        and percent["NOR"].min() > 50
        and percent["HCM"].min() > 50
    )
    assert percent["MINF"].max() < 45 and (percent["MINF"] < 40).mean() > 0.8
