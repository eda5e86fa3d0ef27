from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmrdata.batch import LV, MYO, RV
from cmrdata.labels import check_labels, check_topology, label_frames
from cmrdata.volumes import open_volume
from support.hearts import heart

IDENTITY = {k: k for k in range(4)}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_case_10_labels_of_any_type_are_mapped(dtype):
    grey = np.array([0, 64, 128, 191])[heart()].astype(dtype)
    if dtype == np.float64:
        grey += 0.0009
    canonical = check_labels(grey, mapping={0: 0, 64: LV, 128: MYO, 191: RV})
    assert canonical.dtype == np.uint8
    np.testing.assert_array_equal(canonical, heart())


@pytest.mark.parametrize("odd", [0.5, 64.01, np.nan, np.inf])
def test_case_10_labels_that_are_no_integers_are_named(odd):
    with pytest.raises(ValueError, match=f"not integers: {odd:g}"):
        check_labels(np.array([[0, 1, odd]]), mapping=IDENTITY)


def test_case_10_unknown_labels_are_named():
    with pytest.raises(ValueError, match="unknown labels 4, 7, expected 0, 1, 2, 3"):
        check_labels(np.array([[0, 7, 4, 3]]), mapping=IDENTITY)
    assert check_labels(np.array([[4]]), mapping={**IDENTITY, 4: RV}) == RV


def label_file(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([-1.5, -1.5, -10, 1])), path)
    return path


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<i2", "u1"])
@pytest.mark.parametrize(
    ("height", "width", "off"), [(160, 200, 0), (159, 199, 9e-4), (159, 198, 0)]
)
def test_case_10_labels_of_all_frames_are_those_of_each(tmp_path, dtype, height, width, off):
    truth = np.stack(
        [heart(squeeze=squeeze) for squeeze in (1, 0.8, 0.6)] + [np.zeros_like(heart())]
    )
    truth = truth[..., :height, :width]
    source = np.array([0, 2, 7, 200])[truth].astype(dtype)
    if source.dtype.kind == "f":
        source += np.random.default_rng(0).uniform(-off, off, source.shape).astype(dtype)
    path = label_file(tmp_path / "a.nii", source)
    labels, cavity = label_frames(open_volume(path), {0: 0, 2: LV, 7: MYO, 200: RV})
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, truth)
    assert cavity.tolist() == (truth == LV).sum(axis=(1, 2, 3)).tolist() and cavity[3] == 0


@given(
    values=st.lists(
        st.sampled_from([-256, -255, -1, 0, 1, 2, 254, 255, 256, 257, 300, 65536]), min_size=1
    ),
    known=st.sets(st.sampled_from([-1, 1, 2, 254, 255, 256, 300])),
    dtype=st.sampled_from([np.int32, np.float32, np.float64]),
)
def test_case_10_what_a_byte_cannot_hold_is_no_other_label(values, known, dtype):
    mapping = {0: 0, **{source: 1 + number % 3 for number, source in enumerate(sorted(known))}}
    array = np.array(values, dtype)
    if strange := set(values) - set(mapping):
        with pytest.raises(ValueError, match=f"unknown labels {min(strange)}"):
            check_labels(array, mapping=mapping)
    else:
        assert check_labels(array, mapping=mapping).tolist() == [mapping[value] for value in values]


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (0.4, "not integers: 0.4"),
        (np.nan, "not integers: nan"),
        (4, "unknown labels 4, expected 0, 1, 2, 3"),
        (-1, "unknown labels -1"),
        (257, "unknown labels 257"),
        (np.inf, "not integers: inf"),
    ],
)
def test_case_10_an_odd_label_in_any_frame_is_named(tmp_path, odd, words):
    source = np.stack([heart()] * 3).astype(float)
    source[2, 4, 0, 0] = odd
    with pytest.raises(ValueError, match=words):
        label_frames(open_volume(label_file(tmp_path / "a.nii.gz", source)), IDENTITY)


def test_a_heart_passes_for_a_heart():
    check_topology(heart())
    check_topology(np.where(heart() == RV, 0, heart()))  # no RV in an apical stack


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (
            (0, RV, MYO, LV),
            "LV and RV look swapped: myocardium borders .* of the LV and 100% of the RV",
        ),
        ((0, MYO, LV, RV), "do not look like a heart"),
        ((0, 0, MYO, RV), "no LV cavity"),
        ((0, LV, 0, RV), "no myocardium"),
        ((0, 0, 0, 0), "no LV cavity and no myocardium"),
    ],
)
def test_case_11_other_label_orders_are_noticed(order, words):
    with pytest.raises(ValueError, match=words):
        check_topology(np.array(order, np.uint8)[heart()])


def test_a_heart_at_the_edge_of_the_picture_is_looked_at_whole():
    corner = np.zeros((1, 4, 4), np.uint8)
    corner[0, :2, :2] = [[LV, MYO], [MYO, 0]]
    for turned in (corner, corner[:, ::-1], corner[:, :, ::-1], corner[:, ::-1, ::-1]):
        check_topology(turned)
    corner[0, 0, 1] = 0  # half of its rim is no myocardium
    with pytest.raises(
        ValueError, match="do not look like a heart: myocardium borders 50% of the LV and 0%"
    ):
        check_topology(corner)


def test_myocardium_encloses_the_lv_by_its_share_and_a_margin():
    """The LV's and the RV's rim are a row of pixels each, in slices of their own."""

    def borders(lv: int, rv: int) -> str:
        labels = np.zeros((2, 3, 12), np.uint8)
        labels[0, 1, 1:11], labels[0, 0, 1:11] = LV, 0
        labels[0, 0, 1 : 1 + min(lv, 10)] = MYO
        labels[0, 2, 1 : 1 + max(0, lv - 10)] = MYO
        labels[1, 1, 1:11] = RV
        labels[1, 0, 1 : 1 + min(rv, 10)] = MYO
        labels[1, 2, 1 : 1 + max(0, rv - 10)] = MYO
        try:
            check_topology(labels)
        except ValueError as error:
            return str(error).partition(":")[0]
        return ""

    # of 22 pixels each
    assert borders(14, 0) == borders(16, 10) == borders(20, 15) == ""
    odd = "labels do not look like a heart"
    assert borders(13, 0) == borders(16, 12) == borders(15, 15) == odd
    assert borders(14, 15) == "LV and RV look swapped"
