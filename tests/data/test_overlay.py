"""Labels and image whose headers disagree: the picture tells who is right, and a mirrored mask
never goes with a picture."""

import itertools
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cmrdata.batch import LV, MYO
from cmrdata.cohorts.acdc import ACDC
from cmrdata.overlay import (
    _far,
    _planes,
    _values,
    blood_over_muscle,
    check_fit,
    order_only,
    overlay,
    reordered,
)
from support.acdc_files import THEIRS, patient
from support.acdc_files import cohort as acdc
from support.acdc_files import read as read_all
from support.hearts import GREY, heart
from support.real_acdc import REAL

# x, y, z to mm
AFFINE = np.array([[-1.2, 0.5, 6, 12], [-0.7, -1.3, 5, -80], [0.6, 0.4, -7, 30], [0, 0, 0, 1.0]])
ORDERS = list(itertools.product(itertools.permutations(range(3)), (1, -1), (1, -1), (1, -1)))


def laid(volume: np.ndarray, affine: np.ndarray, order) -> tuple[np.ndarray, np.ndarray]:
    """(Z, Y, X) with axes (x, y, z) permuted and reversed, and the affine that says so."""
    axes, *steps = order
    moves = np.zeros((4, 4))
    moves[3, 3] = 1
    for new, (old, step) in enumerate(zip(axes, steps, strict=True)):
        moves[old, new] = step
        moves[old, 3] = volume.T.shape[old] - 1 if step < 0 else 0
    turned = volume.T.transpose(axes)[tuple(slice(None, None, step) for step in steps)].T
    return turned, affine @ moves


def beside(*, depth: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its labels, of a heart that lies beside the middle and tapers."""
    labels = np.concatenate(
        [heart(size_mm=(132, 162), centre=(60, 100 + 2 * z), depth=1) for z in range(depth)]
    )
    return GREY[labels] + np.random.default_rng(0).normal(0, 20, labels.shape), labels


def test_blood_over_muscle_is_the_share_of_pairs():
    picture, labels = np.array([[1.0, 2, 3, 2, 9]]), np.array([[MYO, MYO, LV, LV, 0]])
    assert blood_over_muscle([picture], [labels]) == (2 + 1.5) / 4
    assert (
        blood_over_muscle([picture, picture], [labels, np.zeros_like(labels)])
        == (3.5 / 4 + 0.5) / 2
    )


@pytest.mark.parametrize("order", ORDERS)
def test_voxels_in_another_order_of_the_same_grid_are_put_in_ours(order):
    volume = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(">i2")
    other, affine = laid(volume, AFFINE, order)
    np.testing.assert_array_equal(reordered(other, theirs=affine, ours=AFFINE), volume)


@pytest.mark.parametrize(
    "change", [np.eye(4) * (1, 1, 1.1, 1), np.eye(4) + np.array([[0, 0, 0, 3]] + [[0] * 4] * 3)]
)
def test_voxels_of_another_grid_are_left(change):
    volume = np.zeros((4, 5, 6))
    assert reordered(volume, theirs=AFFINE @ change, ours=AFFINE) is volume


@pytest.mark.parametrize(
    "order", [order for order in ORDERS if order[0] == (0, 1, 2) and order[1:] != (1, 1, 1)]
)
def test_labels_that_mirror_the_image_are_placed_by_the_world(order):
    picture, labels = beside()
    other, affine = laid(labels, AFFINE, order)
    move, flags = overlay([picture], [other], image=AFFINE, theirs=affine)
    assert flags == ("labels_moved",)
    np.testing.assert_array_equal(move(other), labels)


@pytest.mark.parametrize(
    "order", [order for order in ORDERS if order[0] == (0, 1, 2) and order[1:3] != (1, 1)]
)
def test_a_header_that_alone_is_mirrored_is_not_followed(order):
    picture, labels = beside()
    affine = laid(labels, AFFINE, order)[1]
    move, flags = overlay([picture], [labels], image=AFFINE, theirs=affine)
    assert flags == ("affine_mismatch",) and move(labels) is labels


def test_labels_on_a_shifted_grid_are_placed_where_the_picture_shows_them():
    picture, labels = beside()
    # 8 and -5 voxels
    shifted = AFFINE @ (np.eye(4) + np.array([[0, 0, 0, 8], [0, 0, 0, -5], [0] * 4, [0] * 4]))
    moved = np.roll(labels, (5, -8), axis=(1, 2))
    move, flags = overlay([picture], [moved], image=AFFINE, theirs=shifted)
    assert flags == ("labels_moved",) and (move(moved) == labels).mean() > 0.99
    assert overlay([picture], [labels], image=AFFINE, theirs=shifted)[1] == ("affine_mismatch",)


def test_headers_that_agree_or_are_silent_cost_nothing():
    picture, labels = beside()
    near = AFFINE.copy()
    near[:3, 3] += 0.3
    for image, theirs, flags in (
        (AFFINE, AFFINE + 0.004, ()),
        (None, AFFINE, ()),
        (AFFINE, None, ()),
        (AFFINE, near, ("affine_mismatch",)),
    ):
        move, told = overlay([picture], [labels], image=image, theirs=theirs)
        assert told == flags and move(labels) is labels


def test_labels_that_fit_nowhere_are_refused():
    picture, labels = beside()
    wrong = np.roll(labels, 30, axis=2)
    with pytest.raises(
        ValueError,
        match="labels: their header places them apart from the image, and they fit it neither",
    ):
        overlay(
            [picture], [wrong], image=AFFINE, theirs=laid(wrong, AFFINE, ((0, 1, 2), 1, -1, 1))[1]
        )


# through a reader


def stored(root: Path):
    _, rejected, stacks = read_all(acdc(root), "val")
    assert rejected.empty and stacks.rejected.empty
    return stacks


def relaid(path: Path, order) -> None:
    """The file in another order of voxels, its header rewritten with them."""
    image = nibabel.load(path)
    voxels, affine = laid(np.asarray(image.dataobj).T, image.affine, order)
    nibabel.save(nibabel.Nifti1Image(voxels.T, affine), path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A patient whose headers are a scanner's."""
    folder = patient(tmp_path / "acdc", 101)
    for path in folder.glob("*.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(
            nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([-1.5, -1.5, -10, 1])), path
        )
    return folder


ROWS, COLUMNS, SLICES, TURNED = (
    ((0, 1, 2), 1, -1, 1),
    ((0, 1, 2), -1, 1, 1),
    ((0, 1, 2), 1, 1, -1),
    ((1, 0, 2), -1, 1, 1),
)


@pytest.mark.parametrize(
    "what", ["frame02_gt", "frame05_gt", "frame??_gt", "frame02", "frame05", "frame??"]
)
@pytest.mark.parametrize("order", [ROWS, COLUMNS, SLICES])
def test_files_in_another_order_than_their_fellows_give_the_same(folder, order, what):
    usual = stored(folder.parent)
    for path in folder.glob(f"*_{what}.nii.gz"):
        relaid(path, order)
    found = stored(folder.parent)
    np.testing.assert_array_equal(found.masks, usual.masks)
    assert np.abs(found.images.astype(int) - usual.images).max() <= 1
    assert {flag for flags in found.index["flags"] for flag in flags.split(";")} <= {
        "labels_moved",
        "handedness_assumed",
        "",
    }


def test_an_inverted_picture_is_refused(folder):
    for path in folder.glob("*frame0?.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(1000 - np.asarray(image.dataobj), image.affine), path)
    rejected = (
        acdc(folder.parent).stacks(acdc(folder.parent).subjects()[0].assign(split="val")).rejected
    )
    assert rejected.reason.item().startswith(
        "image: blood is darker than muscle in 100% of pixel pairs"
    )


def test_labels_of_another_shape_are_refused_by_name(folder):
    relaid(folder / "patient101_frame02_gt.nii.gz", TURNED)
    rejected = (
        acdc(folder.parent).stacks(acdc(folder.parent).subjects()[0].assign(split="val")).rejected
    )
    assert (
        rejected.reason.item()
        == "labels measure 5 x 108 x 88, the ED image 5 x 88 x 108 (Z x Y x X)"
    )


def test_masks_without_a_header_that_mirror_the_heart_are_refused(folder):
    for path in folder.glob("*_gt.nii.gz"):
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine), path)
    rejected = (
        acdc(folder.parent).stacks(acdc(folder.parent).subjects()[0].assign(split="val")).rejected
    )
    assert rejected.reason.item().startswith(
        "labels: they fit the picture better with their columns reversed"
    )
    assert THEIRS[LV] == 3


def changed(folder: Path, pattern: str, change) -> str:
    """Why the patient is rejected after a change of the voxels (X, Y, Z) of some of its files."""
    for path in folder.glob(pattern):
        image = nibabel.load(path)
        nibabel.save(
            nibabel.Nifti1Image(change(np.asarray(image.dataobj).astype(np.float32)), image.affine),
            path,
        )
    rejected = (
        acdc(folder.parent).stacks(acdc(folder.parent).subjects()[0].assign(split="val")).rejected
    )
    return rejected.reason.item()


NOISE = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("pattern", "change", "reason"),
    [
        ("*frame05_gt.nii.gz", lambda a: a[::-1], "labels: .* their columns reversed at ES"),
        (
            "*frame02.nii.gz",
            lambda a: 1000 - a,
            "image: blood is darker than muscle in 100% of pixel pairs at ED",
        ),
        (
            "*frame02.nii.gz",
            lambda a: NOISE.normal(0, 9, a.shape),
            "ED image: it shows no heart where its labels are",
        ),
        (
            "*frame0?.nii.gz",
            lambda a: np.roll(a, 40, 0),
            "ED image: it shows no heart where its labels are",
        ),
        (
            "*frame05*.nii.gz",
            lambda a: a[:, :, ::-1],
            "ES image: it shows the heart of ED with its slices reversed",
        ),
    ],
)
def test_each_phase_shows_the_heart_of_its_labels(folder, pattern, change, reason):
    if "slices" in reason:  # of a heart that is not the same in every slice
        for path in folder.glob("*.nii.gz"):
            image = nibabel.load(path)
            voxels = np.asarray(image.dataobj)
            moved = np.stack(
                [np.roll(voxels[:, :, z], 6 * z, 0) for z in range(voxels.shape[2])], axis=2
            )
            nibabel.save(nibabel.Nifti1Image(moved, image.affine), path)
    assert re.match(reason, changed(folder, pattern, change))


def test_a_phase_that_is_the_other_once_more_is_refused(folder):
    (folder / "patient101_frame05.nii.gz").write_bytes(
        (folder / "patient101_frame02.nii.gz").read_bytes()
    )
    assert changed(folder, "nothing", None) == "ES image: it is the ED image once more"


def fits(cohort: ACDC, table, change) -> float:
    """Share of patients who are taken after a change of their labels or pictures."""
    usual = cohort.scan

    def scan(patient, *, neighbours):
        scan = usual(patient, neighbours=neighbours)
        change(scan)
        return scan

    cohort.scan = scan
    rejected = cohort.stacks(table).rejected
    del cohort.scan
    return 1 - len(rejected) / len(table)


@pytest.mark.skipif(not Path(REAL).is_dir(), reason=f"no ACDC data in {REAL}; set CMR_ACDC_ROOT")
def test_real_hearts_of_which_a_part_was_reversed_or_moved_are_noticed(tmp_path):
    cohort = ACDC(root=REAL, salt_root=tmp_path)
    table = cohort.subjects()[0].assign(split="val")[1::6]

    def both(scan, axis):
        for t in (scan.ed, scan.es):
            scan.labels[t] = np.flip(scan.labels[t], axis)

    def slices(scan):
        both(scan, 0)

    def one(scan):
        scan.labels[scan.es] = np.flip(scan.labels[scan.es], 2)

    def systole(scan):
        one(scan)
        scan.frames[scan.es] = np.flip(scan.frames[scan.es], 2)

    def away(scan):
        scan.frames[scan.ed] = np.roll(scan.frames[scan.ed], 30, 1)

    assert fits(cohort, table, lambda scan: None) == 1
    for change in (slices, one, systole, away):
        assert fits(cohort, table, change) <= 0.1, change.__name__


@pytest.mark.skipif(not Path(REAL).is_dir(), reason=f"no ACDC data in {REAL}; set CMR_ACDC_ROOT")
def test_real_masks_fit_their_pictures_and_mirrored_ones_are_noticed(tmp_path):
    cohort = ACDC(root=REAL, salt_root=tmp_path)
    table = cohort.subjects()[0].assign(split="val")[::3]
    assert cohort.stacks(table).rejected.empty
    usual = cohort.scan

    def mirrored(patient, *, neighbours):
        scan = usual(patient, neighbours=neighbours)
        for t in (scan.ed, scan.es):
            scan.labels[t] = np.ascontiguousarray(scan.labels[t][:, :, ::-1])
        return scan

    cohort.scan = mirrored
    assert len(cohort.stacks(table).rejected) > 0.9 * len(table)


# by the numbers


def painted(blood: float, muscle: float, *, phase: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture whose blood is brighter in a share `blood` of its pixels, beside the middle."""
    mask = heart(size_mm=(132, 162), centre=(60, 90), depth=2, squeeze=1 - 0.3 * phase)
    picture = np.full(mask.shape, 50.0)
    rng = np.random.default_rng(phase)
    picture += rng.normal(0, 1e-3, mask.shape)
    bright = rng.random(mask.shape) < blood
    picture[mask == LV] = np.where(bright, 200, 10)[mask == LV]
    picture[mask == MYO] = muscle
    return picture, mask


def fit_of(share: float) -> str:
    """What is said of two phases of which that share of blood is brighter than muscle."""
    (ed, first), (es, second) = (painted(share, 100.0, phase=phase) for phase in (0, 1))
    try:
        check_fit(ed, es, labels=(first, second))
    except ValueError as error:
        return str(error)
    return ""


def test_a_picture_fits_from_55_of_100_pairs_on_and_is_inverted_below_30():
    assert fit_of(0.99) == fit_of(0.6) == ""
    assert fit_of(0.5).startswith("ED image: it shows no heart where its labels are (blood")
    assert re.search("blood is darker than muscle in 8[01]% of pixel pairs at ED", fit_of(0.2))
    assert "ED image: it shows no heart" in fit_of(0.35)


def test_planes_hold_the_places_of_blood_and_muscle_in_the_whole_slice():
    mask = np.zeros((3, 6, 7), np.uint8)
    mask[1, 2, 3:5], mask[1, 4, 5], mask[2, 5, 6] = LV, MYO, LV
    ((blood, muscle, z),) = _planes(mask)
    assert z == 1 and blood.tolist() == [[2, 3], [2, 4]] and muscle.tolist() == [[4, 5]]
    assert _planes(np.zeros((2, 3, 3), np.uint8)) == []
    plane = np.arange(42.0).reshape(6, 7)
    plane[2, 3] = np.nan
    for axes, turned in (
        ((), plane),
        ((1,), plane[::-1]),
        ((2,), plane[:, ::-1]),
        ((0, 1, 2), plane[::-1, ::-1]),
    ):
        expected = np.nan_to_num(turned[blood[:, 0], blood[:, 1]])
        assert _values(plane, blood, axes).tolist() == expected.tolist()


def test_moves_are_orders_or_far_by_their_numbers():
    swap = np.eye(4)[[1, 0, 2, 3]]
    assert order_only(np.eye(4)) and order_only(swap) and order_only(-np.eye(4))
    near = np.eye(4)
    near[0, 1] = 0.019
    assert order_only(near)
    near[0, 1] = 0.021
    assert not order_only(near) and not order_only(np.diag([1.0, 1, 0, 1]))
    assert not order_only(np.array([[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    for shift, far in ((0.5, False), (0.51, True), (-0.51, True)):
        moves = np.eye(4)
        moves[1, 3] = shift
        assert _far(moves, (3, 4, 5)) == far
    grown = np.diag([1.0, 1.2, 1.0, 1.0])
    assert _far(grown, (3, 4, 5)) and not _far(grown, (3, 3, 5))  # rows 0..3 and 0..2


def test_labels_move_where_only_the_world_fits_and_a_tie_is_an_order():
    picture, mask = beside()
    turned, affine = laid(mask, AFFINE, ((0, 1, 2), -1, 1, 1))
    move, flags = overlay([picture], [turned], image=AFFINE, theirs=affine)
    assert flags == ("labels_moved",)
    np.testing.assert_array_equal(move(turned), mask)
    # an upside-down picture of both cannot tell: orders are believed, shifts are not
    flat = np.full_like(picture, 100.0)
    flat[mask > 0] = 150
    even = np.flip(mask, 2).copy()
    dull = np.where((mask == LV) | (even == LV), 200.0, 100.0)
    _, told = overlay([dull], [even], image=AFFINE, theirs=affine)
    assert told == ("labels_moved",)
    shifted = AFFINE.copy()
    shifted[:3, 3] += 0.009
    assert overlay([picture], [mask], image=AFFINE, theirs=shifted)[1] == ()
    shifted[:3, 3] += 0.1
    assert overlay([picture], [mask], image=AFFINE, theirs=shifted)[1] == ("affine_mismatch",)
    singular = AFFINE.copy()
    singular[:3, 2] = 0
    assert overlay([picture], [mask], image=AFFINE, theirs=singular)[1] == ("affine_mismatch",)
    assert overlay([picture], [mask[:-1]], image=AFFINE, theirs=affine)[1] == ("affine_mismatch",)
    assert overlay([picture], [mask], image=None, theirs=affine)[1] == ()
