import gzip
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.batch import LV, MYO, RV
from cmrdata.slices import Grid, Scan, check_labels, check_topology, collect, stacks
from cmrdata.volumes import read_volume

IDENTITY = {k: k for k in range(4)}
LV_MM, WALL_MM = 20.0, 28.0  # radii of the made heart
GREY = np.array([60.0, 220.0, 100.0, 180.0])  # of background, LV, myocardium, RV


def heart(*, spacing=(1.5, 1.5), size_mm=(240, 300), centre=(100, 170), depth=5, squeeze=1.0) -> np.ndarray:
    """Labels (Z, Y, X): LV disc and wall about `centre` (y, x) in mm, the RV a disc cut off by them on the left."""
    shape = [round(mm / step) for mm, step in zip(size_mm, spacing, strict=True)]
    y, x = np.meshgrid(*(np.arange(n) * step for n, step in zip(shape, spacing, strict=True)), indexing="ij")
    plane = np.zeros(shape, np.uint8)
    plane[np.hypot(y - centre[0], x - centre[1] + 28) <= 24] = RV
    plane[np.hypot(y - centre[0], x - centre[1]) <= WALL_MM] = MYO
    plane[np.hypot(y - centre[0], x - centre[1]) <= LV_MM * squeeze] = LV
    return np.repeat(plane[None], depth, axis=0)


def scan(ed=None, es=None, *, spacing=(1.5, 1.5), noise=2.0, seed=0) -> Scan:
    """ED and ES frames of a made heart, without neighbours in time."""
    ed = heart(spacing=spacing) if ed is None else ed
    es = heart(spacing=spacing, squeeze=0.7, depth=len(ed)) if es is None else es
    frames = GREY[np.stack([ed, es])] + np.random.default_rng(seed).normal(0, noise, (2, *ed.shape))
    return Scan(dict(enumerate(frames.astype(np.float32))), 0, 1, {0: ed, 1: es}, spacing, cycle=None)


def cine(count: int, *, ed: int, es: int) -> Scan:
    """A cycle whose frames all differ."""
    pair = scan()
    frames = pair.frames[0] + np.random.default_rng(count).normal(0, 5, (count, *pair.labels[0].shape))
    labels = {ed: pair.labels[0], es: pair.labels[1]}
    return Scan(dict(enumerate(frames.astype(np.float32))), ed, es, labels, (1.5, 1.5), cycle=count)


def central(made: Scan, *, pixels=64, fov_mm=128.0):
    images, masks, rows = stacks(made, pixels=pixels, fov_mm=fov_mm, expand=False)
    assert images.shape == masks.shape == (1, 2, pixels, pixels) and images.dtype == masks.dtype == np.uint8
    return images[0], masks[0], rows[0]


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (1.5, 1.5), (1.9, 1.9), (1.0, 2.0)])
@pytest.mark.parametrize("centre", [(100, 170), (130.4, 120.9)])
def test_a_disc_keeps_its_place_and_area_in_mm(spacing, centre):
    pair = [heart(spacing=spacing, centre=centre, squeeze=squeeze) for squeeze in (1, 0.7)]
    _, masks, row = central(scan(*pair, spacing=spacing))
    assert row == {**row, "slice": 0, "frame": 0, "central": True, "flags": ""}
    for mask, squeeze in zip(masks, (1, 0.7), strict=True):
        assert (mask == LV).sum() * 4 == pytest.approx(np.pi * (LV_MM * squeeze) ** 2, rel=0.06)  # 2 mm pixels
        y, x = (at.mean() for at in np.nonzero(mask == LV))
        # the box reaches from 52 mm left of the LV's centre (the RV's far side) to 28 mm right of it
        assert y == pytest.approx(31.5, abs=0.6)
        assert x == pytest.approx(31.5 + (52 - 28) / 2 / 2, abs=0.6)


def test_rows_are_y_and_columns_are_x():
    """A spot 30 mm below and 10 mm right of the crop's centre is found there, in the picture as in the mask."""
    made = scan(noise=0)
    y, x = round((100 + 30) / 1.5), round((170 - 12 + 10) / 1.5)  # the crop's centre is 12 mm left of the LV's
    for frame in made.frames.values():
        frame[:, y - 5 : y + 6, x - 5 : x + 6] = 1000
    image = central(made)[0][0]
    assert np.argwhere(image > 200).mean(0) == pytest.approx((31.5 + 30 / 2, 31.5 + 10 / 2), abs=0.8)


def test_the_image_lies_under_its_mask():
    images, masks, _ = central(scan(noise=0))
    means = [images[masks == label].mean() for label in range(4)]
    assert np.argsort(means).tolist() == np.argsort(GREY).tolist()


def test_voxel_size_does_not_change_the_picture():
    fine, coarse = (central(scan(spacing=(mm, mm), noise=0)) for mm in (0.7, 1.9))
    assert np.abs(fine[0].astype(float) - coarse[0]).mean() < 4
    assert (fine[1] == coarse[1]).mean() > 0.97


def test_shrinking_averages_and_does_not_alias():
    stripes = np.indices((400, 400)).sum(0)[None] % 2
    mask = np.zeros((400, 400), bool)
    mask[150:250, 150:250] = True
    shrunk = Grid.around(mask, spacing=(0.5, 0.5), pixels=32, fov_mm=64).image(stripes.astype(np.float32))
    np.testing.assert_allclose(shrunk, 0.5, atol=0.01)


def test_enlarging_keeps_a_ramp_a_ramp():
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (100, 100))
    mask = np.zeros((100, 100), bool)
    mask[40:61, 30:51] = True  # centre at row 50, column 40
    grown = Grid.around(mask, spacing=(2, 2), pixels=64, fov_mm=32).image(ramp[None])[0]
    np.testing.assert_allclose(grown, np.broadcast_to(40 + (np.arange(64) - 31.5) * 0.25, (64, 64)), atol=1e-4)


def test_outside_the_image_is_zero_and_background():
    images, masks, _ = central(scan(heart(centre=(30, 60)), heart(centre=(30, 60), squeeze=0.7)), fov_mm=400)
    assert (images[:, :20] == 0).all() and (masks[:, :20] == 0).all()
    assert (masks == LV).any()


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 30).flatmap(lambda t: st.tuples(st.just(t), st.integers(0, t - 1), st.integers(0, t - 1))))
def test_neighbouring_frames_are_taken_modulo_the_cycle(numbers):
    count, ed, es = numbers
    if ed == es:
        es = (ed + 1) % count
    made = cine(count, ed=ed, es=es)
    images, _, rows = stacks(made, pixels=32, fov_mm=128, expand=True)
    assert [(row["slice"], row["frame"]) for row in rows] == [(s, f) for s in (-1, 0, 1) for f in (-1, 0, 1)]
    for k, row in enumerate(rows):
        times = [(ed + row["frame"]) % count, (es + row["frame"]) % count]
        plane = slice(2 + row["slice"], 3 + row["slice"])
        labels = {phase: made.labels[at][plane] for phase, at in enumerate((ed, es))}
        frames = {k: made.frames[t][plane] for k, t in enumerate(times)}
        alone = Scan(frames, 0, 1, labels, made.spacing, cycle=None)
        np.testing.assert_array_equal(central(alone, pixels=32)[0], images[k])


def test_es_in_the_last_frame_has_neighbours():
    assert len(stacks(cine(8, ed=0, es=7), pixels=16, fov_mm=128, expand=True)[0]) == 9


def test_neighbouring_frames_carry_the_annotated_mask_and_say_so():
    _, masks, rows = stacks(cine(10, ed=0, es=5), pixels=32, fov_mm=128, expand=True)
    assert [row["flags"] for row in rows] == ["mask_reused", "", "mask_reused"] * 3
    assert (masks == masks[4]).all()


def test_neighbouring_frames_use_labels_of_their_own():
    made = cine(10, ed=0, es=5)
    own = {t: heart(squeeze=0.9 - 0.02 * t) for t in (9, 1, 4, 6)}
    own[6][2] = 0  # not segmented in the middle slice
    made = Scan(made.frames, 0, 5, {**made.labels, **own}, made.spacing, cycle=10)
    _, masks, rows = stacks(made, pixels=32, fov_mm=128, expand=True)
    assert [k for k, row in enumerate(rows) if row["flags"] == "mask_reused"] == [5]
    assert (masks[3] == LV).sum((1, 2)).tolist() != (masks[4] == LV).sum((1, 2)).tolist()
    np.testing.assert_array_equal(masks[5, 1], masks[4, 1])


def test_without_a_cycle_there_are_three_slices_of_one_frame():
    rows = stacks(scan(), pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["slice"], row["frame"], row["central"]) for row in rows] == [
        (-1, 0, False),
        (0, 0, True),
        (1, 0, False),
    ]


@pytest.mark.parametrize("depth", [1, 2])
def test_a_short_stack_gives_its_central_slice_only(depth):
    rows = stacks(scan(heart(depth=depth)), pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["central"], row["flags"]) for row in rows] == [(True, "short_stack")]


@pytest.mark.parametrize("phase", [0, 1])
def test_an_empty_central_slice_moves_to_the_lv(phase):
    made = scan(heart(depth=9), noise=0)
    made.labels[phase][4:] = 0  # truncated: LV in slices 0..3 of that phase, so its centroid lies below 4
    for frame in made.frames.values():
        frame[3] *= 2
    _, mask, row = central(made)
    assert row["flags"] == "central_moved" and (mask == LV).any(axis=(1, 2)).all()
    assert row["hi"] == pytest.approx(2 * GREY.max(), rel=0.02)


def test_a_central_slice_without_lv_cavity_moves():
    made = scan()
    made.labels[1][2][made.labels[1][2] == LV] = MYO
    assert central(made)[2]["flags"] == "central_moved"


def test_neighbours_without_labels_are_dropped_and_counted():
    made = scan()
    made.labels[1][3:] = 0
    rows = stacks(made, pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["slice"], row["flags"]) for row in rows] == [(-1, "slices_dropped:1"), (0, "slices_dropped:1")]


def test_a_moved_centre_does_not_wrap_around_the_stack():
    made = scan(heart(depth=6))
    for labels in made.labels.values():
        labels[1:] = 0
    rows = stacks(made, pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["slice"], row["flags"]) for row in rows] == [(0, "central_moved;slices_dropped:2")]


def test_a_heart_without_lv_is_refused():
    made = scan()
    made.labels[0][:] = 0
    with pytest.raises(ValueError, match="no slice has both LV cavity and myocardium"):
        central(made)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nonfinite_voxels_become_zero_and_are_flagged(odd):
    broken, zero = scan(), scan()
    broken.frames[0][2, 60:70, 100:110] = odd
    zero.frames[0][2, 60:70, 100:110] = 0
    image, _, row = central(broken)
    assert row["flags"] == "nonfinite"
    np.testing.assert_array_equal(image, central(zero)[0])


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("fov_mm", [100, 400])  # the latter reaches over the image's edge
def test_a_constant_image_is_refused(value, fov_mm):
    made = scan()
    for frame in made.frames.values():
        frame[:] = value
    with pytest.raises(ValueError, match="constant image"):
        central(made, fov_mm=fov_mm)
    made.frames[0][2, 0, 0] = 100  # a single speck far away does not help
    if fov_mm == 100:
        with pytest.raises(ValueError, match="constant image"):
            central(made, fov_mm=fov_mm)


def test_intensity_limits_are_stored_and_joint():
    made = scan(noise=0)
    made.frames[1] /= 2  # ES darker than ED, and it must stay so
    made.frames[0][2, 0, 0] = 1e6  # outside the crop: no influence
    images, masks, row = central(made)
    assert row["lo"] == pytest.approx(30, abs=1) and row["hi"] == pytest.approx(220, abs=1)
    assert images[0][masks[0] == LV].mean() > 2 * images[1][masks[1] == LV].mean()


@given(scale=st.floats(1e-3, 1e3), offset=st.floats(0, 100))
@settings(max_examples=10, deadline=None)
def test_brightness_and_contrast_of_the_file_do_not_matter(scale, offset):
    made = scan()
    frames = {t: frame * scale + offset for t, frame in made.frames.items()}
    other = Scan(frames, 0, 1, made.labels, made.spacing, cycle=None)
    assert np.abs(central(made, fov_mm=100)[0].astype(int) - central(other, fov_mm=100)[0]).max() <= 1


def test_integer_images_need_no_conversion():
    made = scan()
    frames = {t: frame.astype(np.int16) for t, frame in made.frames.items()}
    whole = Scan(frames, 0, 1, made.labels, made.spacing, cycle=None)
    assert np.abs(central(made)[0].astype(int) - central(whole)[0]).mean() < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"frames": {0: np.zeros((9, 9)), 1: np.zeros((9, 9))}}, "axes"), ({"es": 2}, "ES is frame 2"), ({"es": -1}, "ES is frame -1"),
     ({"labels": {0: heart()}}, "ES has no labels"),
     ({"labels": {0: heart(), 1: heart(depth=4)}}, "labels measure 4 x 160 x 200, the ED image 5 x 160 x 200")],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(change, words):
    made = scan()
    with pytest.raises(ValueError, match=words):
        Scan(**{**vars(made), **change})


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_of_any_type_are_mapped(dtype):
    grey = np.array([0, 64, 128, 191])[heart()].astype(dtype)
    if dtype == np.float64:
        grey += 0.0009
    canonical = check_labels(grey, mapping={0: 0, 64: LV, 128: MYO, 191: RV})
    assert canonical.dtype == np.uint8
    np.testing.assert_array_equal(canonical, heart())


@pytest.mark.parametrize("odd", [0.5, 64.01, np.nan, np.inf])
def test_labels_that_are_no_integers_are_named(odd):
    with pytest.raises(ValueError, match=f"not integers: {odd:g}"):
        check_labels(np.array([[0, 1, odd]]), mapping=IDENTITY)


def test_unknown_labels_are_named():
    with pytest.raises(ValueError, match="unknown labels 4, 7, expected 0, 1, 2, 3"):
        check_labels(np.array([[0, 7, 4, 3]]), mapping=IDENTITY)
    assert check_labels(np.array([[4]]), mapping={**IDENTITY, 4: RV}) == RV


def test_a_heart_passes_for_a_heart():
    check_topology(heart())
    check_topology(np.where(heart() == RV, 0, heart()))  # no RV in an apical stack


@pytest.mark.parametrize(
    ("order", "words"),
    [((0, RV, MYO, LV), "LV and RV look swapped: myocardium borders .* of the LV and 100% of the RV"),
     ((0, MYO, LV, RV), "do not look like a heart"), ((0, 0, MYO, RV), "no LV cavity"), ((0, LV, 0, RV), "no myocardium"),
     ((0, 0, 0, 0), "no LV cavity and no myocardium")],
)  # fmt: skip
def test_other_label_orders_are_noticed(order, words):
    with pytest.raises(ValueError, match=words):
        check_topology(np.array(order, np.uint8)[heart()])


def test_one_bad_subject_rejects_only_itself():
    def read(subject: str, expand: bool) -> Scan:
        if subject == "SYN0002":
            raise ValueError("ED image: file is missing")
        return cine(4, ed=0, es=2) if expand else scan()

    table = pd.DataFrame(
        {"subject": [f"SYN000{k}" for k in range(5)], "split": ["train", "val", "test", "test", "extra"]}
    )
    found = collect(table, read, pixels=16, fov_mm=128)
    assert found.index.subject.tolist() == ["SYN0000"] * 9 + ["SYN0001", "SYN0003"] + ["SYN0004"] * 9
    assert found.images.shape == found.masks.shape == (20, 2, 16, 16)
    assert found.rejected.to_numpy().tolist() == [["SYN0002", "ED image: file is missing"]]


def test_nobody_readable_is_an_empty_result():
    def read(subject: str, expand: bool) -> Scan:
        raise ValueError("no")

    found = collect(pd.DataFrame({"subject": ["SYN0001"], "split": ["val"]}), read, pixels=16, fov_mm=128)
    assert found.images.shape == (0, 2, 16, 16) and len(found.index) == 0 and len(found.rejected) == 1


def save(path: Path, array: np.ndarray, *, zooms: tuple[float, ...]) -> Path:
    image = nibabel.Nifti1Image(array, np.eye(4))
    image.header.set_zooms(zooms)
    nibabel.save(image, path)
    return path


def test_volumes_are_read_backwards(tmp_path):
    array = np.arange(2 * 3 * 4 * 5, dtype=np.int16).reshape(2, 3, 4, 5)  # X, Y, Z, T
    volume, spacing = read_volume(save(tmp_path / "a.nii.gz", array, zooms=(1.2, 1.4, 10, 0.03)))
    assert volume.shape == (5, 4, 3, 2) and volume[4, 3, 2, 1] == array[1, 2, 3, 4]
    assert spacing == pytest.approx((1.4, 1.2))


@pytest.mark.parametrize(
    ("shape", "expected"), [((6, 5, 4, 1), (4, 5, 6)), ((6, 5, 1), (1, 5, 6)), ((6, 5, 4, 3, 1), (3, 4, 5, 6))]
)
def test_a_trailing_axis_of_one_is_no_axis(tmp_path, shape, expected):
    path = save(tmp_path / "a.nii", np.zeros(shape, np.float32), zooms=(1.5, 1.5, *[1] * (len(shape) - 2)))
    assert read_volume(path)[0].shape == expected


def test_a_spacing_no_heart_has_needs_a_default(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((6, 5, 4), np.float32), zooms=(1.5, 8, 1))
    with pytest.raises(ValueError, match=r"in-plane spacing 8 x 1.5 mm is outside 0.5..3.0 mm"):
        read_volume(path)
    assert read_volume(path, default_spacing=(1.8, 1.8))[1] == (1.8, 1.8)


@pytest.mark.parametrize("keep", [0, 1, 100, 300, 0.5, 0.999])
def test_a_cut_file_is_a_reason_without_its_path(tmp_path, keep):
    noise = np.random.default_rng(0).integers(0, 1000, (20, 20, 5)).astype(np.int16)
    for name in ("SYN0001.nii.gz", "SYN0001.nii"):
        whole = save(tmp_path / name, noise, zooms=(1.5, 1.5, 10)).read_bytes()
        (tmp_path / name).write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
        with pytest.raises(ValueError, match=r"file is (empty|truncated or corrupt)") as error:
            read_volume(tmp_path / name)
        assert "SYN" not in str(error.value)


def test_a_flipped_bit_is_noticed(tmp_path):
    """nibabel alone does not reach the checksum at the end of a gzip stream."""
    path = save(tmp_path / "a.nii.gz", np.zeros((60, 60, 9), np.int16), zooms=(1.5, 1.5, 10))
    raw = bytearray(gzip.decompress(path.read_bytes()))
    stored = bytearray(gzip.compress(bytes(raw), compresslevel=0))
    stored[30_000] ^= 64
    path.write_bytes(stored)
    with pytest.raises(ValueError, match="corrupt"):
        read_volume(path)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_both_versions_are_read(tmp_path, kind, name):
    array = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    nibabel.save(kind(array, np.eye(4)), tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name)[0], array.T)


def test_scaled_integers_are_scaled(tmp_path):
    image = nibabel.Nifti1Image(np.full((6, 5, 4), 2.5), np.eye(4))
    image.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz")[0], 2.5)


@pytest.mark.parametrize("content", [b"no nifti at all", gzip.compress(b"nor here" * 100), b"\x1f\x8b" + b"\0" * 500])
def test_another_file_is_a_reason(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_missing_file_or_a_flat_one_is_a_reason(tmp_path):
    with pytest.raises(ValueError, match="file is missing"):
        read_volume(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="not a volume: shape 6 x 5"):
        read_volume(save(tmp_path / "b.nii", np.zeros((6, 5), np.float32), zooms=(1.5, 1.5)))
