"""One orientation: however a file lies and whatever its header says, the heart is shown the same
way."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cmrdata import orientation
from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import smallest_frame, write_ukbb
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.orientation import CANON, CERTAIN, header_turn, pose
from cmrdata.slices import Grid, Scan, stacks
from support.hearts import heart
from support.hearts import scan as made_scan
from support.real_acdc import REAL

FRAMES = 4
# columns x, y, z of a scanner
OBLIQUE = np.array([[-0.70, 0.16, -0.64], [-0.51, -0.72, 0.55], [0.46, -0.67, -0.58]])
CROP = {"pixels": 64, "fov_mm": 150.0, "expand": True}
ONE = {**CROP, "expand": False}
# swapped in the plane, reversed x, y, z
ORDERS = list(itertools.product((False, True), (1, -1), (1, -1), (1, -1)))


@pytest.fixture(scope="module")
def hearts(tmp_path_factory) -> list[Scan]:
    """Three phantoms as their files hold them, the third ill; the header is a true one's (oblique),
    of RAS mm."""
    root = tmp_path_factory.mktemp("hearts") / "tree"
    write_ukbb(
        Phantom(subjects=12, seed=3, design="uniform", hf_share=0.5),
        root,
        count=3,
        pixels=(96, 88),
        mm=2.0,
        slices=9,
        frames=FRAMES,
    )
    es, found = smallest_frame(FRAMES), []
    for folder in sorted(root.glob("SYN*")):
        frames, labels = (
            dict(enumerate(np.asarray(nibabel.load(folder / f"{stem}.nii.gz").dataobj).T))
            for stem in ("sa", "seg_sa")
        )
        labels = {t: labels[t].astype(np.uint8) for t in labels}
        found.append(
            Scan(frames, 0, es, labels, (2.0, 2.0), FRAMES, placed(OBLIQUE, (2.0, 2.0, 10.0)))
        )
    return found


def placed(axes: np.ndarray, mm: tuple[float, ...]) -> np.ndarray:
    """The affine of directions (columns x, y, z) and sides; the columns are made exactly
    orthogonal."""
    x, y, z = axes.T
    z = z if abs(np.linalg.det(axes)) < 1e-6 else np.cross(x, y) * np.sign(np.linalg.det(axes))
    y = np.cross(z, x) * np.sign(np.cross(z, x) @ y)
    affine = np.eye(4)
    affine[:3, :3] = (
        np.array([x / np.linalg.norm(x), y / np.linalg.norm(y), z / np.linalg.norm(z)]).T * mm
    )
    return affine


def laid(scan: Scan, swap: bool, x: int, y: int, z: int, *, header: str) -> Scan:
    """The same heart in another order of voxels; its header rewritten with it ("kept true"), left
    ("stale") or "lost"."""

    def turned(volume: np.ndarray) -> np.ndarray:
        volume = volume.swapaxes(1, 2) if swap else volume
        return np.ascontiguousarray(volume[::z, ::y, ::x])

    columns = [1, 0, 2, 3] if swap else [0, 1, 2, 3]
    affine = {"lost": None, "stale": scan.affine, "true": scan.affine[:, columns] * [x, y, z, 1]}[
        header
    ]
    return replace(
        scan,
        frames={t: turned(frame) for t, frame in scan.frames.items()},
        labels={t: turned(labels) for t, labels in scan.labels.items()},
        spacing=scan.spacing[::-1] if swap else scan.spacing,
        affine=affine,
    )


def same(one, other, *, different: float = 0.002) -> None:
    """Two results of `stacks` are one picture, to rounding."""
    assert one[0].shape == other[0].shape
    assert (np.abs(one[0].astype(int) - other[0]) > 1).mean() < different
    assert (one[1] != other[1]).mean() < different
    assert [(row["slice"], row["frame"]) for row in one[2]] == [
        (row["slice"], row["frame"]) for row in other[2]
    ]


def direction(mask: np.ndarray) -> float:
    """Degrees from the columns' to the rows' direction of the line from the RV's centre to the
    LV's."""
    lv, rv = (np.argwhere(mask == label).mean(axis=0) for label in (LV, RV))
    return math.degrees(math.atan2(*(lv - rv)))


def flags(result) -> set[str]:
    return set(result[2][0]["flags"].split(";")) - {""}


# the canonical view


def test_the_canonical_view_is_the_radiological_one(hearts):
    middles = []
    for scan in hearts:
        images, masks, rows = stacks(scan, **CROP)
        assert len(images) == 9 and flags((0, 0, rows)) == set()
        assert direction(masks[4, 0]) == pytest.approx(math.degrees(CANON), abs=6)
        (y, x), (v, u) = (np.argwhere(masks[4, 0] == label).mean(axis=0) for label in (LV, RV))
        assert u < x and v < y  # the RV to the left and a little higher
        middles.append(images[4, 0])
    far = np.mean(middles, axis=0)
    # chest wall above left, lung on the right
    assert far[:12, 8:30].mean() > far[10:24, 50:].mean() + 50
    assert far[-8:].mean() > far[10:24, 50:].mean() + 50  # liver below


@pytest.mark.parametrize("order", ORDERS)
def test_a_header_rewritten_with_the_voxels_changes_nothing(hearts, order):
    for scan in (hearts[sum(order) % 3],):
        result = stacks(laid(scan, *order, header="true"), **ONE)
        same(result, stacks(scan, **ONE))
        assert flags(result) == set()


@pytest.mark.parametrize("order", ORDERS)
def test_without_a_header_the_masks_tell(hearts, order):
    mirrored = (-1 if order[0] else 1) * order[1] * order[2] < 0
    for scan in (hearts[sum(order) % 3],):
        result = stacks(laid(scan, *order, header="lost"), **ONE)
        same(result, stacks(scan, **ONE))
        assert flags(result) == ({"mirrored"} if mirrored else set())


@pytest.mark.parametrize("order", ORDERS)
def test_a_header_that_was_left_behind_is_not_believed_against_the_masks(hearts, order):
    """In-plane axes swapped or reversed, or slices reversed, and nobody told the header."""
    mirrored = (-1 if order[0] else 1) * order[1] * order[2] < 0
    for scan in (hearts[sum(order) % 3],):
        result = stacks(laid(scan, *order, header="stale"), **ONE)
        same(result, stacks(scan, **ONE))
        assert ("mirrored" in flags(result)) == mirrored
        if mirrored or order[3] < 0:
            assert "header_contradicted" in flags(result)


@settings(max_examples=10, deadline=None)
@given(degrees=st.floats(-180, 180), number=st.integers(0, 2))
def test_a_heart_turned_in_the_plane_is_turned_back(hearts, degrees, number):
    scan = hearts[number]

    def turned(volume: np.ndarray, order: int) -> np.ndarray:
        return ndimage.rotate(
            volume, degrees, axes=(2, 1), reshape=False, order=order, mode="nearest"
        )

    other = replace(
        scan,
        frames={t: turned(frame, 1) for t, frame in scan.frames.items()},
        labels={t: turned(labels, 0) for t, labels in scan.labels.items()},
        affine=None,
    )
    usual, again = (
        stacks(one, **{**CROP, "expand": False, "fov_mm": 110.0}) for one in (scan, other)
    )
    assert direction(again[1][0, 0]) == pytest.approx(direction(usual[1][0, 0]), abs=4)
    for label in (LV, MYO, RV):
        one, two = (result[1][0] == label for result in (usual, again))
        assert 2 * (one & two).sum() / (one.sum() + two.sum()) > 0.85
    assert np.corrcoef(usual[0].ravel(), again[0].ravel())[0, 1] > 0.93


def test_a_turn_is_no_second_interpolation(hearts):
    """Sampled once: a picture that lies at 20 degrees keeps as much fine detail as one that lies
    straight."""
    scan = hearts[0]
    noise = np.random.default_rng(0).normal(0, 100, (9, 88, 96)).astype(np.float32)
    noisy = replace(scan, frames={t: noise + 50 * (scan.labels[t] == LV) for t in scan.frames})
    turned, straight = (
        stacks(noisy, pixels=75, fov_mm=150.0, expand=False, orient=orient)[0][0, 0].astype(float)
        for orient in ("masks", "none")
    )
    assert np.abs(np.diff(turned, axis=1)).mean() > 0.6 * np.abs(np.diff(straight, axis=1)).mean()


# the grid


def reference(planes: np.ndarray, grid: Grid) -> np.ndarray:
    """Separable triangles, as wide as the coarser of the two grids: what an unturned crop has
    always been."""

    def weights(at: np.ndarray, n: int, step: float) -> np.ndarray:
        full = np.clip(1 - np.abs(at[:, None] - np.arange(-20, n + 20)) / max(1, step), 0, None)
        return (full / np.maximum(full.sum(axis=1, keepdims=True), 1e-9))[:, 20:-20]

    rows, columns = (
        weights(grid.y[:, 0], planes.shape[-2], grid.step[0]),
        weights(grid.x[0], planes.shape[-1], grid.step[1]),
    )
    return rows @ planes @ columns.T


@pytest.mark.parametrize(
    ("spacing", "pixels"), [((1.5, 1.5), 64), ((0.7, 0.9), 24), ((2.4, 1.1), 48), ((1.8, 1.8), 150)]
)
def test_without_a_turn_the_crop_is_the_separable_one(spacing, pixels):
    planes = np.random.default_rng(0).normal(0, 100, (2, 90, 110)).astype(np.float32)
    mask = np.zeros((90, 110), bool)
    mask[30:71, 20:80] = True
    grid = Grid.around(mask, spacing=spacing, pixels=pixels, fov_mm=120)
    np.testing.assert_allclose(grid.image(planes), reference(planes, grid), atol=1e-3)


@pytest.mark.parametrize("quarter", range(4))
def test_a_quarter_turn_of_file_and_grid_cancels(quarter):
    rng = np.random.default_rng(1)
    plane, mask = rng.normal(0, 100, (90, 110)).astype(np.float32), np.zeros((90, 110), np.uint8)
    mask[30:71, 20:80] = rng.integers(0, 4, (41, 60))
    mask[30, 20] = mask[70, 79] = 1
    angle = math.radians(33)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    back = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), quarter)
    spacing = (1.5, 1.2)
    one = Grid.around(mask, spacing=spacing, pixels=48, fov_mm=120, turn=turn)
    two = Grid.around(
        np.rot90(mask, quarter),
        spacing=spacing[:: -1 if quarter % 2 else 1],
        pixels=48,
        fov_mm=120,
        turn=back @ turn,
    )
    np.testing.assert_allclose(
        two.image(np.rot90(plane, quarter)[None]), one.image(plane[None]), atol=1e-2
    )
    np.testing.assert_array_equal(two.labels(np.rot90(mask, quarter)), one.labels(mask))


def test_shrinking_a_turned_plane_averages_and_does_not_alias():
    stripes = (np.indices((400, 400)).sum(0) % 2).astype(np.float32)
    mask = np.zeros((400, 400), bool)
    mask[150:250, 150:250] = True
    turn = np.array([[math.cos(0.4), math.sin(0.4)], [-math.sin(0.4), math.cos(0.4)]])
    shrunk = Grid.around(mask, spacing=(0.5, 0.5), pixels=32, fov_mm=64, turn=turn).image(
        stripes[None]
    )
    np.testing.assert_allclose(shrunk, 0.5, atol=0.02)


# what cannot be told


def test_a_heart_without_rv_is_flagged_and_the_header_decides(hearts):
    scan = hearts[0]
    bare = replace(
        scan, labels={t: np.where(labels == RV, 0, labels) for t, labels in scan.labels.items()}
    )
    for order in ((False, -1, -1, 1), (True, 1, -1, 1), (False, -1, 1, 1)):
        result = stacks(laid(bare, *order, header="true"), **CROP)
        assert flags(result) == {"rv_missing"}
        same(result, stacks(bare, **CROP, orient="header"), different=0.01)


def test_es_decides_where_ed_has_no_rv_and_other_slices_where_the_centre_has_none(hearts):
    def turned(*labels: np.ndarray) -> float:
        found = pose(
            labels, spacing=(2, 2), affine=None, centre=4, basal_first=True, orient="masks"
        )
        assert found.flags == ()
        return math.degrees(math.atan2(found.turn[0, 1], found.turn[0, 0]))

    for scan in hearts:
        ed, es = scan.labels[0], scan.labels[smallest_frame(FRAMES)]
        bare, open_centre = np.where(ed == RV, 0, ed), ed.copy()
        open_centre[4][ed[4] == RV] = 0
        assert turned(bare, es) == turned(es, bare) == pytest.approx(turned(ed, es), abs=4)
        assert turned(open_centre, es) == pytest.approx(turned(ed, es), abs=4)


def test_a_heart_whose_sides_are_alike_is_assumed_upright_and_flagged():
    result = stacks(made_scan(heart(depth=9)), **CROP)
    assert flags(result) == {"handedness_assumed"} and direction(result[1][0, 0]) == pytest.approx(
        20, abs=3
    )
    told = replace(made_scan(heart(depth=9)), affine=np.diag([-1.5, -1.5, -10, 1]))
    assert flags(stacks(told, **CROP)) == set()


def test_an_rv_all_around_has_no_direction():
    ring = heart(depth=5)
    ring[ring == RV] = 0
    y, x = np.indices(ring.shape[1:]) * 1.5
    ring[:, (np.hypot(y - 100, x - 170) > 28) & (np.hypot(y - 100, x - 170) < 34)] = RV
    assert "rv_missing" in flags(stacks(made_scan(ring, ring), **CROP))


def test_none_leaves_the_file_as_it_is(hearts):
    for scan in hearts:
        turned = laid(scan, False, -1, -1, 1, header="true")
        usual, other = (stacks(one, **CROP, orient="none") for one in (scan, turned))
        same((other[0][..., ::-1, ::-1], other[1][..., ::-1, ::-1], other[2]), usual)
        assert flags(other) == {"rv_right"} and flags(usual) == set()
        same(stacks(turned, **CROP, orient="header"), stacks(scan, **CROP, orient="header"))


# the header alone

PLACES = [OBLIQUE, np.diag([-1.0, -1.0, -1.0]), np.diag([-1.0, -1.0, 1.0])]


@pytest.mark.parametrize("axes", PLACES)
@pytest.mark.parametrize(("swap", "x", "y"), itertools.product((False, True), (1, -1), (1, -1)))
def test_case_12_axes_against_the_radiological_view_are_told(axes, swap, x, y):
    affine = placed(axes, (1.8, 1.8, 10))
    other = affine[:, [1, 0, 2, 3] if swap else [0, 1, 2, 3]] * [x, y, 1, 1]
    turn = header_turn(other)
    if (other[:3, :3] == np.diag(np.abs(np.diag(other[:3, :3])))).all():
        assert (turn == np.eye(2)).all()  # what programs write that know no orientation
        return
    shown = np.array([y, x])  # of each axis (y, x), whether it runs backwards
    assert (turn == (np.array([[0, y], [x, 0]]) if swap else np.diag(shown))).all()


@pytest.mark.parametrize("degrees", [-3, 3, -12, 30])
def test_case_12_a_plane_turned_by_little_flips_nothing(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for axes in PLACES:
        assert (
            header_turn(placed(axes @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), (1.4, 1.4, 9)))
            == np.eye(2)
        ).all()


@pytest.mark.parametrize(
    "columns",
    [
        [(1.5, 0, 0), (0, 1.5, 0), (0, 0, 10)],  # all positive: nobody knew
        [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
        [(0, 0, 0), (0, 1.5, 0), (0, 0, 10)],
        [(1.5, 0.3, 0), (1.5, 0.2, 0), (0, 0, 10)],  # not at right angles
        [(np.nan, 0, 0), (0, 1.5, 0), (0, 0, 10)],
    ],
)
def test_case_12_an_affine_that_tells_nothing_turns_nothing(columns, hearts):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    assert (header_turn(affine) == np.eye(2)).all() and (header_turn(None) == np.eye(2)).all()
    for scan in hearts:
        # nor is it an accusation
        assert flags(stacks(replace(scan, affine=affine), **CROP)) == set()


def test_a_file_made_ras_canonical_is_turned_back(hearts):
    """All axes positive is also what a placeholder says; the heart shows that this one is true."""
    for scan in hearts:
        plain = replace(scan, affine=np.diag([-2.0, -2.0, -10.0, 1]))
        ras = laid(plain, False, -1, -1, -1, header="true")
        assert (np.diag(ras.affine) > 0).all()
        result = stacks(ras, **CROP)
        same(result, stacks(plain, **CROP))
        assert flags(result) == set()


# settings


def test_orient_is_a_setting_and_one_of_three():
    for cohort in (ACDC(root=None), UKBB(root=None, table=None)):
        assert cohort.orient == "masks"
    with pytest.raises(ValueError, match="cohort.orient is 'head'; it takes masks, header, none"):
        ACDC(root=None, orient="head")
    with pytest.raises(ValueError, match="cohort.orient is 'up'"):
        pose([heart()], spacing=(1, 1), affine=None, centre=0, basal_first=True, orient="up")


# real hearts


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> list[Scan]:
    if not Path(REAL).is_dir():
        pytest.skip(f"no ACDC data in {REAL}; set CMR_ACDC_ROOT")
    cohort = ACDC(root=REAL, salt_root=tmp_path_factory.mktemp("salt"))
    return [cohort.scan(patient, neighbours=False) for patient in cohort.patients.values()]


def test_real_hearts_point_one_way_and_none_is_called_mirrored(real):
    before, after, assumed = [], [], 0
    for scan in real:
        usual, turned = (stacks(scan, **ONE, orient=orient) for orient in ("none", "masks"))
        before.append(direction(usual[1][0, 0]))
        after.append(direction(turned[1][0, 0]))
        assert not flags(turned) & {"mirrored", "rv_missing", "header_contradicted"}
        assumed += "handedness_assumed" in flags(turned)
    assert np.std(before) > 25 and np.std(after) < 5
    assert np.mean(after) == pytest.approx(math.degrees(CANON), abs=5)
    assert assumed < 0.1 * len(real)


def test_real_hearts_laid_otherwise_give_the_same_picture(real):
    """Every real heart in one of the 16 orders, without a header; the few whose masks are not
    certain stay as they are."""
    unsure = 0
    for number, scan in enumerate(real):
        order = ORDERS[number % len(ORDERS)]
        usual, other = (stacks(one, **ONE) for one in (scan, laid(scan, *order, header="lost")))
        if "handedness_assumed" in flags(usual):
            unsure += 1
            continue
        same(other, usual, different=0.005)
    assert unsure < 0.1 * len(real) and 0 < CERTAIN < 1


# the steps by their numbers


def levels_of(*planes: np.ndarray, spacing=(2.0, 1.0)):
    return orientation._levels(np.array(planes), spacing)


def drawn(lv: tuple[slice, slice], rv: tuple[slice, slice]) -> np.ndarray:
    plane = np.zeros((40, 40), np.uint8)
    plane[rv], plane[lv] = RV, LV
    return plane


def test_a_slice_tells_where_its_ventricles_lie_in_mm():
    both = drawn(np.s_[10:14, 20:25], np.s_[11:13, 2:8])
    few = drawn(np.s_[10:13, 20:23], np.s_[11:13, 2:8])  # nine pixels of LV
    least = drawn(np.s_[10:12, 20:25], np.s_[11:13, 2:8])  # ten
    one, other = levels_of(np.zeros((40, 40), np.uint8), both, few, least)
    assert (one.z, other.z) == (1, 3)
    assert (one.weight, other.weight) == (12 * 2.0, 10 * 2.0)  # of the smaller, mm2
    assert one.apart.tolist() == [2 * (11.5 - 11.5), 22 - 4.5] and len(one.rv) == 12
    assert one.rv[0].tolist() == [2 * (11 - 11.5), 2 - 22]


def level(z: int, apart: tuple[float, float], *, weight=1.0, rv=((0.0, 0.0),)):
    return orientation._Level(z, weight, np.array(apart), np.array(rv))


def test_the_direction_is_that_of_the_slices_near_the_centre():
    one, two = level(2, (0, 30)), level(3, (30, 0), weight=2.0)
    near = np.array([1.0, 2 * math.exp(-0.5 * (1 / 1.5) ** 2)])
    mean = near @ [(0, 30), (30, 0)] / near.sum()
    told = orientation._direction([one, two], 2)
    np.testing.assert_allclose(told, mean / np.linalg.norm(mean))
    far = orientation._direction([level(900, (0, 30)), level(901, (30, 0), weight=3.0)], 0)
    np.testing.assert_allclose(far, np.array([90, 30]) / math.hypot(90, 30))
    assert orientation._direction([], 0) is None
    assert orientation._direction([level(0, (0, 4.9))], 0) is None
    assert orientation._direction([level(0, (0, 5.1))], 0).tolist() == [0, 1]
    # at 120 degrees half of the distances remains, beyond it they point anywhere
    for degrees, agree in ((119, True), (121, False)):
        turned = 30 * np.array([math.sin(math.radians(degrees)), math.cos(math.radians(degrees))])
        told = orientation._direction([level(-1, (0, 30)), level(1, tuple(turned))], 0)
        assert (told is not None) == agree


def slow_signs(levels, *, basal_first: bool) -> tuple[float, float, float]:
    """Winding, skewness and lean, told once more and slowly."""
    share = [one.weight / sum(k.weight for k in levels) for one in levels]
    y, x = sum(s * one.apart for s, one in zip(share, levels, strict=True))
    angles = [
        math.degrees(math.atan2(x * a - y * b, a * y + b * x))
        for a, b in (one.apart for one in levels)
    ]
    place = [(one.z - levels[0].z) / (levels[-1].z - levels[0].z) for one in levels]
    middle = sum(s * p for s, p in zip(share, place, strict=True))
    off = [(p - middle) * (1 if basal_first else -1) for p in place]
    winding = sum(s * o * a for s, o, a in zip(share, off, angles, strict=True)) / sum(
        s * o * o for s, o in zip(share, off, strict=True)
    )
    skew = lean = 0.0
    for s, one in zip(share, levels, strict=True):
        along = [a * y + b * x for a, b in one.rv]
        across = [a * x - b * y for a, b in one.rv]
        along = [v - sum(along) / len(along) for v in along]
        across = [v - sum(across) / len(across) for v in across]
        square = [sum(v * v for v in of) / len(of) for of in (along, across)]
        skew += s * sum(v**3 for v in across) / len(across) / square[1] ** 1.5
        lean += (
            s
            * sum(v * w for v, w in zip(along, across, strict=True))
            / len(across)
            / math.sqrt(square[0] * square[1])
        )
    return winding, skew, lean


@pytest.mark.parametrize("basal_first", [True, False])
def test_the_signs_of_a_mirror_image_are_those_of_their_formulas(basal_first):
    rng = np.random.default_rng(3)
    levels = [
        level(
            z, tuple(rng.normal((20, 30), 6)), weight=rng.uniform(1, 5), rv=rng.gamma(2, 5, (n, 2))
        )
        for z, n in ((2, 12), (3, 30), (5, 17), (8, 23))
    ]
    told = orientation._signs(levels, basal_first=basal_first)
    np.testing.assert_allclose(told, slow_signs(levels, basal_first=basal_first))
    evidence = orientation.handedness([levels], basal_first=basal_first)
    shares = np.array(told) / (orientation.WINDING, orientation.SKEW, orientation.LEAN)
    assert evidence == pytest.approx(shares.clip(-2, 2).mean())
    assert orientation.handedness([levels[:2], levels[:2]], basal_first=True) == 0
    assert orientation.handedness([levels[:2], levels], basal_first=basal_first) == evidence
    assert orientation.handedness([levels[:3]], basal_first=basal_first) != 0
    mirrored = [one._replace(apart=one.apart * (1, -1), rv=one.rv * (1, -1)) for one in levels]
    assert orientation.handedness([mirrored], basal_first=basal_first) == pytest.approx(-evidence)


def test_a_turn_takes_the_canonical_direction_to_this_one():
    canonical = np.array([math.sin(CANON), math.cos(CANON)])
    for degrees in (0, 40, 130, -100):
        to = np.array([math.sin(math.radians(degrees)), math.cos(math.radians(degrees))])
        plain, mirrored = (orientation._turn(to, mirrored=of) for of in (False, True))
        assert np.linalg.det(plain) == pytest.approx(1) and np.linalg.det(
            mirrored
        ) == pytest.approx(-1)
        for turn in (plain, mirrored):
            np.testing.assert_allclose(turn @ canonical, to, atol=1e-12)
            np.testing.assert_allclose(turn @ turn.T, np.eye(2), atol=1e-12)


def test_axes_of_a_header_are_unit_and_at_right_angles():
    affine = np.diag([-1.5, 2.0, 10.0, 1.0])
    np.testing.assert_array_equal(orientation._axes(affine), np.diag([-1, 1, 1]))
    affine[:3, 2] = 0  # the slices' direction may be unknown
    assert orientation._axes(affine)[2].tolist() == [0, 0, 0]
    for tilt, usable in ((0.19, True), (0.21, False), (-0.21, False)):
        affine[:3, 0] = [math.sqrt(1 - tilt**2), tilt, 0]
        assert (orientation._axes(affine) is not None) == usable
    for wrong in (np.nan, np.inf):
        odd = np.eye(4)
        odd[0, 3] = wrong
        assert orientation._axes(odd) is None
    for column in (0, 1):
        flat = np.eye(4)
        flat[:3, column] = 0
        assert orientation._axes(flat) is None
    assert orientation._axes(None) is None
    assert orientation._placeholder(np.eye(3)) and not orientation._placeholder(np.diag([-1, 1, 1]))


def test_a_header_has_a_say_where_it_can_be_this_hearts():
    """Columns and rows as in the canonical view, the LV right and below of the RV, base first."""
    columns, rows = orientation.CANON_COLUMNS, orientation.CANON_ROWS
    slices = np.cross(columns, rows)
    slices = slices * np.sign(slices @ orientation.BASE_TO_APEX)
    direction = np.array([math.sin(CANON), math.cos(CANON)])

    def told(x, y, z, *, towards=direction, basal_first=True):
        affine = np.eye(4)
        affine[:3, :3] = np.array([x, y, z]).T
        return orientation._told(affine, towards, basal_first=basal_first)

    assert told(columns, rows, slices) == (False, False)
    assert told(columns, rows, -slices) == (False, True)  # the apex is where the base must be
    assert told(columns, rows, -slices, basal_first=False) == (False, False)
    assert told(columns, rows, slices, basal_first=False) == (False, True)
    # a mirror image: rows run the other way, and the LV is above in the file
    assert told(columns, -rows, slices, towards=direction * (-1, 1)) == (True, False)
    # the LV lies elsewhere from the RV than in people: a scanner's header is doubted
    assert told(columns, rows, slices, towards=-direction) == (None, True)
    assert told(columns, rows, slices, towards=direction[::-1]) == (None, True)
    # along the world's own axes no scanner lies: such a header is silently none
    x, y, z = np.eye(3)
    straight = np.array([-0.74, -0.65])
    assert told(x, y, z, towards=straight[::-1]) == (None, False)
    assert orientation._told(None, direction, basal_first=True) == (None, False)
