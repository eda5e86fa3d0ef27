from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata import slices
from cmrdata.batch import LV, MYO
from cmrdata.slices import Grid, Scan, collect
from support.hearts import GREY, LV_MM, cine, heart, scan

# as the file lies; turning has tests of its own (test_orientation)
stacks = partial(slices.stacks, orient="none")


def central(made: Scan, *, pixels=64, fov_mm=128.0):
    images, masks, rows = stacks(made, pixels=pixels, fov_mm=fov_mm, expand=False)
    assert (
        images.shape == masks.shape == (1, 2, pixels, pixels)
        and images.dtype == masks.dtype == np.uint8
    )
    return images[0], masks[0], rows[0]


@pytest.mark.parametrize("spacing", [(0.7, 0.7), (1.5, 1.5), (1.9, 1.9), (1.0, 2.0)])
@pytest.mark.parametrize("centre", [(100, 170), (130.4, 120.9)])
def test_a_disc_keeps_its_place_and_area_in_mm(spacing, centre):
    pair = [heart(spacing=spacing, centre=centre, squeeze=squeeze) for squeeze in (1, 0.7)]
    _, masks, row = central(scan(*pair, spacing=spacing))
    assert row == {**row, "slice": 0, "frame": 0, "central": True, "flags": ""}
    for mask, squeeze in zip(masks, (1, 0.7), strict=True):
        # 2 mm pixels
        assert (mask == LV).sum() * 4 == pytest.approx(np.pi * (LV_MM * squeeze) ** 2, rel=0.06)
        y, x = (at.mean() for at in np.nonzero(mask == LV))
        # the box reaches from 52 mm left of the LV's centre (the RV's far side) to 28 mm right of
        # it
        assert y == pytest.approx(31.5, abs=0.6)
        assert x == pytest.approx(31.5 + (52 - 28) / 2 / 2, abs=0.6)


def test_rows_are_y_and_columns_are_x():
    """A spot 30 mm below and 10 mm right of the crop's centre is found there, in the picture as in
    the mask."""
    made = scan(noise=0)
    # the crop's centre is 12 mm left of the LV's
    y, x = round((100 + 30) / 1.5), round((170 - 12 + 10) / 1.5)
    for frame in made.frames.values():
        frame[:, y - 5 : y + 6, x - 5 : x + 6] = 1000
    image = central(made)[0][0]
    assert np.argwhere(image > 200).mean(0) == pytest.approx(
        (31.5 + 30 / 2, 31.5 + 10 / 2), abs=0.8
    )


def test_the_image_lies_under_its_mask():
    images, masks, _ = central(scan(noise=0))
    means = [images[masks == label].mean() for label in range(4)]
    assert np.argsort(means).tolist() == np.argsort(GREY).tolist()


def test_case_09_voxel_size_does_not_change_the_picture():
    fine, coarse = (central(scan(spacing=(mm, mm), noise=0)) for mm in (0.7, 1.9))
    assert np.abs(fine[0].astype(float) - coarse[0]).mean() < 4
    assert (fine[1] == coarse[1]).mean() > 0.97


def test_shrinking_averages_and_does_not_alias():
    stripes = np.indices((400, 400)).sum(0)[None] % 2
    mask = np.zeros((400, 400), bool)
    mask[150:250, 150:250] = True
    shrunk = Grid.around(mask, spacing=(0.5, 0.5), pixels=32, fov_mm=64).image(
        stripes.astype(np.float32)
    )
    np.testing.assert_allclose(shrunk, 0.5, atol=0.01)


def test_enlarging_keeps_a_ramp_a_ramp():
    ramp = np.broadcast_to(np.arange(100, dtype=np.float32), (100, 100))
    mask = np.zeros((100, 100), bool)
    mask[40:61, 30:51] = True  # centre at row 50, column 40
    grown = Grid.around(mask, spacing=(2, 2), pixels=64, fov_mm=32).image(ramp[None])[0]
    np.testing.assert_allclose(
        grown, np.broadcast_to(40 + (np.arange(64) - 31.5) * 0.25, (64, 64)), atol=1e-4
    )


def test_outside_the_image_is_zero_and_background():
    images, masks, _ = central(
        scan(heart(centre=(30, 60)), heart(centre=(30, 60), squeeze=0.7)), fov_mm=400
    )
    assert (images[:, :20] == 0).all() and (masks[:, :20] == 0).all()
    assert (masks == LV).any()


@settings(max_examples=8, deadline=None)
@given(
    st.integers(3, 30).flatmap(
        lambda t: st.tuples(st.just(t), st.integers(0, t - 1), st.integers(0, t - 1))
    )
)
def test_case_04_neighbouring_frames_are_taken_modulo_the_cycle(numbers):
    count, ed, es = numbers
    if ed == es:
        es = (ed + 1) % count
    made = cine(count, ed=ed, es=es)
    images, _, rows = stacks(made, pixels=32, fov_mm=128, expand=True)
    assert [(row["slice"], row["frame"]) for row in rows] == [
        (s, f) for s in (-1, 0, 1) for f in (-1, 0, 1)
    ]
    for k, row in enumerate(rows):
        times = [(ed + row["frame"]) % count, (es + row["frame"]) % count]
        plane = slice(2 + row["slice"], 3 + row["slice"])
        labels = {phase: made.labels[at][plane] for phase, at in enumerate((ed, es))}
        frames = {k: made.frames[t][plane] for k, t in enumerate(times)}
        alone = Scan(frames, 0, 1, labels, made.spacing, cycle=None)
        np.testing.assert_array_equal(central(alone, pixels=32)[0], images[k])


def test_case_04_es_in_the_last_frame_has_neighbours():
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
def test_case_05_a_short_stack_gives_its_central_slice_only(depth):
    rows = stacks(scan(heart(depth=depth)), pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["central"], row["flags"]) for row in rows] == [(True, "short_stack")]


@pytest.mark.parametrize("phase", [0, 1])
def test_case_06_an_empty_central_slice_moves_to_the_lv(phase):
    made = scan(heart(depth=9), noise=0)
    # truncated: LV in slices 0..3 of that phase, so its centroid lies below 4
    made.labels[phase][4:] = 0
    for frame in made.frames.values():
        frame[3] *= 2
    _, mask, row = central(made)
    assert row["flags"] == "central_moved" and (mask == LV).any(axis=(1, 2)).all()
    assert row["hi"] == pytest.approx(2 * GREY.max(), rel=0.02)


def test_case_06_a_central_slice_without_lv_cavity_moves():
    made = scan()
    made.labels[1][2][made.labels[1][2] == LV] = MYO
    assert central(made)[2]["flags"] == "central_moved"


def test_case_06_neighbours_without_labels_are_dropped_and_counted():
    made = scan()
    made.labels[1][3:] = 0
    rows = stacks(made, pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["slice"], row["flags"]) for row in rows] == [
        (-1, "slices_dropped:1"),
        (0, "slices_dropped:1"),
    ]


def test_case_05_06_a_moved_centre_does_not_wrap_around_the_stack():
    made = scan(heart(depth=6))
    for labels in made.labels.values():
        labels[1:] = 0
    rows = stacks(made, pixels=16, fov_mm=128, expand=True)[2]
    assert [(row["slice"], row["flags"]) for row in rows] == [(0, "central_moved;slices_dropped:2")]


@pytest.mark.parametrize(("phase", "absent"), [(0, LV), (0, MYO), (1, LV), (1, slice(None))])
def test_a_heart_without_lv_or_without_labels_at_es_is_refused(phase, absent):
    made = scan()
    made.labels[phase][made.labels[phase] == absent if isinstance(absent, int) else absent] = 0
    with pytest.raises(ValueError, match="no slice has both LV cavity and myocardium"):
        central(made)


def test_case_07_without_labels_at_ed_es_decides_and_the_rows_say_so():
    made = cine(10, ed=0, es=5)
    # so the centre moves, by ES alone
    made.labels[5][2] = np.where(heart(squeeze=0.5)[2] == LV, LV, 0)
    full = replace(made, labels={0: made.labels[5], 5: made.labels[5]})
    empty = replace(
        made, labels={0: np.zeros_like(made.labels[0]), 5: made.labels[5]}, flags=("seen",)
    )
    images, masks, rows = stacks(empty, pixels=32, fov_mm=128, expand=True)
    expected, expected_masks, _ = stacks(full, pixels=32, fov_mm=128, expand=True)
    assert all(row["flags"].startswith("seen;ed_unlabelled;central_moved") for row in rows)
    np.testing.assert_array_equal(images, expected)
    assert not masks[:, 0].any()
    np.testing.assert_array_equal(masks[:, 1], expected_masks[:, 1])


def test_case_07_a_reader_may_have_said_so_before():
    made = scan()
    made.labels[0][:] = 0
    assert central(replace(made, flags=("ed_unlabelled",)))[2]["flags"] == "ed_unlabelled"


def pattern(*, depth: int = 7, spacing=(1.5, 1.5)) -> Scan:
    """A heart that tapers towards the apex, with a picture that has no symmetry."""
    ed = np.concatenate(
        [heart(depth=1, squeeze=1 - 0.1 * z, spacing=spacing) for z in range(depth)]
    )
    es = np.concatenate(
        [heart(depth=1, squeeze=0.7 - 0.1 * z, spacing=spacing) for z in range(depth)]
    )
    for z in range(depth):  # the wall gets thinner too
        ed[z][
            (ed[z] == MYO) & (heart(depth=1, squeeze=1.4 - 0.06 * z, spacing=spacing)[0] != LV)
        ] = 0
    made = scan(ed, es, spacing=spacing)
    slope = (
        np.linspace(0, 200, ed[0].size).reshape(ed[0].shape) + 20 * np.arange(depth)[:, None, None]
    )
    return replace(
        made, frames={t: frame + slope.astype(np.float32) for t, frame in made.frames.items()}
    )


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (2.0, 1.0)])  # in the latter, nearest pixels tie
@pytest.mark.parametrize("flip", [(False, True), (True, False), (True, True)])
def test_case_12_a_mirrored_file_gives_the_same_picture(flip, spacing):
    made = pattern(spacing=spacing)
    axes = tuple(axis for axis, runs in zip((1, 2), flip, strict=True) if runs)
    mirrored = replace(
        made,
        affine=np.diag([*(np.where(flip[::-1], 1.0, -1.0) * spacing[::-1]), -10, 1]),
        frames={t: np.flip(frame, axes) for t, frame in made.frames.items()},
        labels={t: np.flip(labels, axes) for t, labels in made.labels.items()},
    )
    images, masks, rows = stacks(made, pixels=64, fov_mm=128, expand=True)
    again, masks_again, rows_again = stacks(
        mirrored, pixels=64, fov_mm=128, expand=True, orient="header"
    )
    assert np.abs(images.astype(int) - again).max() <= 1  # sums run the other way
    np.testing.assert_array_equal(masks, masks_again)
    assert [{**row, "lo": 0, "hi": 0} for row in rows] == [
        {**row, "lo": 0, "hi": 0} for row in rows_again
    ]


def test_case_13_the_order_of_slices_does_not_matter():
    made = pattern(depth=7)
    turned = replace(
        made,
        frames={t: frame[::-1] for t, frame in made.frames.items()},
        labels={t: labels[::-1] for t, labels in made.labels.items()},
    )
    images, masks, rows = stacks(made, pixels=32, fov_mm=128, expand=True, reach=2)
    again, masks_again, rows_again = stacks(turned, pixels=32, fov_mm=128, expand=True, reach=2)
    assert rows == rows_again and [row["slice"] for row in rows] == [-2, -1, 0, 1, 2]
    areas = (masks[:, 0] > 0).sum(axis=(1, 2))
    assert (np.diff(areas) < 0).all(), "offsets count from base to apex"
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, masks_again)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_case_15_nonfinite_voxels_become_zero_and_are_flagged(odd):
    broken, zero = scan(), scan()
    broken.frames[0][2, 60:66, 100:110] = odd
    zero.frames[0][2, 60:66, 100:110] = 0
    image, _, row = central(broken)
    assert row["flags"] == "nonfinite"
    np.testing.assert_array_equal(image, central(zero)[0])


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("fov_mm", [100, 400])  # the latter reaches over the image's edge
def test_case_15_a_constant_image_is_refused(value, fov_mm):
    made = scan()
    for frame in made.frames.values():
        frame[:] = value
    with pytest.raises(ValueError, match="constant image"):
        central(made, fov_mm=fov_mm)
    made.frames[0][2, 0, 0] = 100  # a single speck far away does not help
    if fov_mm == 100:
        with pytest.raises(ValueError, match="constant image"):
            central(made, fov_mm=fov_mm)


def test_case_16_intensity_limits_are_stored_and_joint():
    made = scan(noise=0)
    made.frames[1] /= 2  # ES darker than ED, and it must stay so
    made.frames[0][2, 0, 0] = 1e6  # outside the crop: no influence
    images, masks, row = central(made)
    assert row["lo"] == pytest.approx(30, abs=1) and row["hi"] == pytest.approx(220, abs=1)
    assert images[0][masks[0] == LV].mean() > 2 * images[1][masks[1] == LV].mean()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), noise=st.floats(0.1, 200))
def test_case_16_limits_are_the_percentiles_of_both_phases(seed, noise):
    """On a grid whose pixels are the file's, so that resampling copies."""
    made = scan(heart(spacing=(2, 2)), spacing=(2, 2), noise=noise, seed=seed)
    row = central(made, pixels=15, fov_mm=30)[2]
    y, x = 100 // 2, (170 - 12) // 2  # the box's centre, 12 mm left of the LV's
    crop = [made.frames[t][2][y - 7 : y + 8, x - 7 : x + 8] for t in (0, 1)]
    assert (row["lo"], row["hi"]) == pytest.approx(np.percentile(crop, (0.5, 99.5)), rel=1e-5)


@given(scale=st.floats(1e-3, 1e3), offset=st.floats(0, 100))
@settings(max_examples=10, deadline=None)
def test_case_16_brightness_and_contrast_of_the_file_do_not_matter(scale, offset):
    made = scan()
    frames = {t: frame * scale + offset for t, frame in made.frames.items()}
    other = Scan(frames, 0, 1, made.labels, made.spacing, cycle=None)
    assert (
        np.abs(central(made, fov_mm=100)[0].astype(int) - central(other, fov_mm=100)[0]).max() <= 1
    )


def test_integer_images_need_no_conversion():
    made = scan()
    frames = {t: frame.astype(np.int16) for t, frame in made.frames.items()}
    whole = Scan(frames, 0, 1, made.labels, made.spacing, cycle=None)
    assert np.abs(central(made)[0].astype(int) - central(whole)[0]).mean() < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": {0: np.zeros((9, 9)), 1: np.zeros((9, 9))}}, "axes"),
        ({"es": 2}, "ES is frame 2"),
        ({"es": -1}, "ES is frame -1"),
        ({"labels": {0: heart()}}, "ES has no labels"),
        (
            {"labels": {0: heart(), 1: heart(depth=4)}},
            "labels measure 4 x 160 x 200, the ED image 5 x 160 x 200",
        ),
    ],
)
def test_case_02_parts_that_do_not_fit_are_refused(change, words):
    made = scan()
    with pytest.raises(ValueError, match=words):
        Scan(**{**vars(made), **change})


def test_one_bad_subject_rejects_only_itself():
    def read(subject: str, expand: bool) -> Scan:
        if subject == "SYN0002":
            raise ValueError("ED image: file is missing")
        return cine(4, ed=0, es=2) if expand else scan()

    table = pd.DataFrame(
        {
            "subject": [f"SYN000{k}" for k in range(5)],
            "split": ["train", "val", "test", "test", "extra"],
        }
    )
    found = collect(table, read, pixels=16, fov_mm=128)
    assert (
        found.index.subject.tolist() == ["SYN0000"] * 9 + ["SYN0001", "SYN0003"] + ["SYN0004"] * 9
    )
    assert found.images.shape == found.masks.shape == (20, 2, 16, 16)
    assert found.rejected.to_numpy().tolist() == [["SYN0002", "ED image: file is missing"]]


def test_nobody_readable_is_an_empty_result():
    def read(subject: str, expand: bool) -> Scan:
        raise ValueError("no")

    found = collect(
        pd.DataFrame({"subject": ["SYN0001"], "split": ["val"]}), read, pixels=16, fov_mm=128
    )
    assert (
        found.images.shape == (0, 2, 16, 16) and len(found.index) == 0 and len(found.rejected) == 1
    )


@pytest.mark.parametrize("reversed_columns", [False, True])
def test_case_12_an_rv_on_the_wrong_side_is_flagged(reversed_columns):
    made, mirrored = scan(), scan()
    for side in (mirrored.frames, mirrored.labels):
        for t in (0, 1):
            side[t][:] = side[t][..., ::-1].copy()
    mirrored = replace(mirrored, affine=np.diag([1.5 if reversed_columns else -1.5, -1.5, -10, 1]))
    flags = stacks(mirrored, pixels=64, fov_mm=128, expand=False, orient="header")[2][0]["flags"]
    assert "rv_right" not in central(made)[2]["flags"]
    assert ("rv_right" in flags) == (not reversed_columns)  # a header that says so puts it right


# what is no picture


def spoilt(phase: int, how) -> Scan:
    """A cine whose frame of one phase is spoilt in the central slice."""
    made = cine(10, ed=0, es=5)
    how(made.frames[5 * phase][2])
    return made


def fill(value):
    return lambda plane: plane.fill(value)


def saturate(plane):
    plane[plane > 80] = 4095  # blood and muscle alike


FAULTS = {
    "constant image": fill(7),
    "constant image at": fill(0),
    "no numbers in the heart of the image": fill(np.nan),
    "no numbers in the heart": fill(np.inf),
    "no contrast beside the other phase in the image": lambda plane: np.multiply(
        plane, 1e-4, out=plane
    ),
    "saturated image": saturate,
}


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("words", FAULTS)
def test_case_15_a_phase_without_a_picture_rejects_the_scan_in_every_split(words, phase, expand):
    with pytest.raises(ValueError, match=f"^{words}.*{('ED', 'ES')[phase]}"):
        stacks(spoilt(phase, FAULTS[words]), pixels=32, fov_mm=100, expand=expand)


@pytest.mark.parametrize("words", FAULTS)
def test_case_15_a_neighbour_without_a_picture_is_left_out_and_told(words):
    made = cine(10, ed=0, es=5)
    FAULTS[words](made.frames[6][2])  # behind ES
    FAULTS[words](made.frames[0][1])  # ED, one slice nearer the base: at offset 0, and there alone
    _, _, rows = stacks(made, pixels=32, fov_mm=100, expand=True)
    assert [(row["slice"], row["frame"]) for row in rows] == [
        (s, f) for s in (-1, 0, 1) for f in (-1, 0, 1) if (s, f) not in ((0, 1), (-1, 0))
    ]
    assert all("neighbours_empty:2" in row["flags"] for row in rows)
    assert "neighbours" not in stacks(made, pixels=32, fov_mm=100, expand=False)[2][0]["flags"]


def test_a_tenth_of_the_heart_may_be_no_numbers():
    # none of the heart
    made = spoilt(0, lambda plane: plane.__setitem__((slice(None), slice(None, 70)), np.nan))
    assert "nonfinite" in central(made)[2]["flags"]
    for rows, usable in ((3, True), (30, False)):
        made = spoilt(1, lambda plane, rows=rows: plane.__setitem__(slice(50, 50 + rows), np.nan))
        if usable:
            assert "nonfinite" in central(made)[2]["flags"]
        else:
            with pytest.raises(ValueError, match="no numbers in the heart of the image at ES"):
                central(made)


@pytest.mark.parametrize("mirror", [np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]])
def test_labels_that_are_a_mirror_image_of_the_heart_are_refused(mirror):
    made = scan(heart(centre=(100, 140)), heart(centre=(100, 140), squeeze=0.7))
    wrong = replace(made, labels={t: labels[mirror] for t, labels in made.labels.items()})
    with pytest.raises(
        ValueError, match="labels: they fit the picture better with their .* reversed"
    ):
        central(wrong)
    both = replace(wrong, frames={t: frame[mirror] for t, frame in made.frames.items()})
    central(both)


def test_labels_far_from_the_heart_neither_move_the_crop_nor_pass_unseen():
    made = scan(heart(depth=9))
    usual, _, _ = stacks(made, pixels=32, fov_mm=128.0, expand=True)
    made.labels[0][5, -3:, :3] = LV  # beside the centre
    _, _, rows = stacks(made, pixels=32, fov_mm=128.0, expand=True)
    assert len(rows) == len(usual) - 1 and "slices_dropped:1" in rows[0]["flags"]
    made.labels[0][4, -3:, :3] = LV
    with pytest.raises(ValueError, match="labels: they reach over [0-9]+ mm, as no heart does"):
        stacks(made, pixels=32, fov_mm=128.0, expand=True)


def test_a_masks_diagonal_is_that_of_its_box_in_mm():
    mask = np.zeros((9, 9), np.uint8)
    mask[2:5, 3:7] = 1
    assert slices._across(mask, spacing=(2.0, 1.5)) == pytest.approx(np.hypot(3 * 2.0, 4 * 1.5))
    mask[:] = 0
    mask[4, 4] = 2
    assert slices._across(mask, spacing=(2.0, 1.5)) == pytest.approx(2.5)


@pytest.mark.parametrize(("count", "basal", "apical"), [(1, 0, 0), (2, 1, 0), (7, 3, 3), (8, 4, 3)])
def test_the_middle_slice_is_one_slice_whichever_end_is_first(count, basal, apical):
    assert slices._middle(count, basal_first=True) == basal
    assert slices._middle(count, basal_first=False) == apical
    assert count - 1 - apical == basal


# the steps by their numbers


def test_percentiles_are_numpys_whatever_the_size_and_ties():
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5, 17, 64, 200, 201, 1000, 4096, 8192, 20001):
        for values in (rng.normal(0, 90, size), rng.integers(0, 4, size), np.arange(size) % 97):
            values = values.astype(np.float32)
            told = slices._percentiles(values.copy())
            np.testing.assert_allclose(
                told, np.percentile(values, (0.5, 99.5)), rtol=1e-5, atol=1e-4
            )
    # the lowest and highest stand where every 16th value does not show them
    values = np.zeros(8192, np.float32)
    values[1:200:16], values[2:300:16] = -5, 5
    assert slices._percentiles(values) == (0, 0)
    values[3::64], values[5::64] = -7, 7
    np.testing.assert_allclose(slices._percentiles(values), np.percentile(values, (0.5, 99.5)))


def triangles(at: float, n: int, step: float) -> np.ndarray:
    """Weights of n pixels at a position, told once more and slowly."""
    width = max(1.0, step)
    every = np.arange(-50, n + 50)
    weights = np.maximum(0, 1 - np.abs(every - at) / width)
    if width > 1:
        weights /= weights.sum()
    return weights[50 : 50 + n]


@pytest.mark.parametrize("step", [0.4, 1.0, 1.3, 2.0, 3.7])
def test_pixels_weigh_by_a_triangle_as_wide_as_the_coarser_grid(step):
    at = np.array([-3.0, -0.6, 0.0, 0.3, 4.5, 7.9, 8.0, 8.7, 12.1])
    pixels, weights = slices._triangles(at, 9, step)
    dense = np.zeros((9, len(at)))
    for taps, row in zip(pixels, weights, strict=True):
        np.add.at(dense, (taps, np.arange(len(at))), row)
    np.testing.assert_allclose(dense.T, [triangles(k, 9, step) for k in at], atol=1e-5)


def test_a_grid_lies_around_the_box_and_takes_the_nearest_label():
    mask = np.zeros((20, 30), bool)
    mask[4:9, 10:13] = True  # rows 4..8, columns 10..12: the centre is (6, 11)
    grid = Grid.around(mask, spacing=(2.0, 1.0), pixels=4, fov_mm=8.0)
    assert grid.step == (1.0, 2.0)
    np.testing.assert_allclose(grid.y, np.array([4.5, 5.5, 6.5, 7.5])[:, None].repeat(4, 1))
    np.testing.assert_allclose(grid.x, np.array([8.0, 10.0, 12.0, 14.0])[None].repeat(4, 0))
    planes = np.arange(600, dtype=np.uint16).reshape(1, 20, 30)
    # a tie goes to the centre: rows 5, 6, 6, 7
    expected = np.array([5, 6, 6, 7])[:, None] * 30 + np.array([8, 10, 12, 14])
    np.testing.assert_array_equal(grid.labels(planes)[0], expected)
    edge = Grid(np.array([[-0.6, -0.4], [2.4, 2.6]]), np.array([[0.0, 1.0], [1.4, 1.0]]), (1, 1))
    labels = edge.labels(np.arange(1, 7, dtype=np.uint8).reshape(3, 2)[None])[0]
    assert labels.tolist() == [[0, 2], [6, 0]]
    wide = Grid(np.zeros((1, 2)), np.array([[1.6, -0.6]]), (1, 1))
    assert wide.labels(np.array([[[1, 2]]])).tolist() == [[[0, 0]]]


def test_the_centre_is_the_middle_or_the_usable_slice_nearest_to_the_lv():
    def areas(*rows: tuple[int, int, int]) -> np.ndarray:
        return np.array([rows, rows])

    whole, rv, none = (5, 5, 5), (0, 5, 5), (0, 0, 0)
    assert slices._central(areas(whole, whole, whole, whole), basal_first=True) == 2
    assert slices._central(areas(whole, whole, whole, whole), basal_first=False) == 1
    assert slices._central(areas(whole, whole, none, (9, 9, 0), whole), basal_first=True) == 3
    assert slices._central(areas(whole, (9, 9, 0), rv, whole, none), basal_first=True) == 1
    one = areas(whole, whole, whole)
    one[1, 1, 1] = 0  # no myocardium at ES
    assert slices._central(one, basal_first=True) == 0
    with pytest.raises(ValueError, match="no slice has both LV cavity and myocardium at ED and"):
        slices._central(np.array([[(5, 5, 5), none], [none, (5, 5, 5)]]), basal_first=True)


def test_the_basal_end_has_the_larger_third_of_the_heart():
    def first(*sizes: int) -> bool:
        return slices._basal_first(np.array([[(size, 0, 0) for size in sizes]] * 2))

    assert first(9, 5, 1) and not first(1, 5, 9) and first(5) and first(5, 1, 5)
    assert first(0, 6, 1, 1, 5, 0) and not first(0, 5, 9, 9, 6, 0)
    # thirds of nine: 3 + 3 + 9 and 9 + 2 + 3, or 9 + 4 + 3
    assert first(3, 3, 9, 9, 9, 9, 9, 2, 3) and not first(3, 3, 9, 9, 9, 9, 9, 4, 3)


def test_the_slices_that_are_taken_are_counted():
    def taken(made: Scan, *, expand=True, reach=1):
        labels = [made.labels[0], made.labels[1]]
        return slices._taken(made, labels, expand=expand, reach=reach)

    five = taken(scan(), reach=3)
    assert (five.centre, five.offsets, five.dropped, five.expanded) == (
        2,
        [-2, -1, 0, 1, 2],
        2,
        True,
    )
    assert (five.moved, five.basal_first) == (False, True)
    assert taken(scan(), expand=False).offsets == [0] and not taken(scan(), expand=False).expanded
    three = taken(scan(heart(depth=3)))
    assert (three.offsets, three.dropped, three.expanded) == ([-1, 0, 1], 0, True)
    two = taken(scan(heart(depth=2)))
    assert (two.centre, two.offsets, two.expanded, two.dropped) == (1, [0], False, 0)
    made = scan()
    for labels in made.labels.values():
        labels[3] = 0  # no heart there
        labels[0][labels[0] == 3] = 0  # the basal end is the other one
    turned = taken(made)
    assert (turned.basal_first, turned.offsets, turned.dropped) == (False, [0, -1], 1)


def test_frames_of_rows_are_those_of_a_cycle():
    def shown(made, **how):
        found = slices._frames(made, **{"neighbours": True, "cine": None, **how})
        return found.steps.tolist(), found.times.tolist(), found.shown.tolist(), found.pair

    pair = [[9, 4], [0, 5], [1, 6]]
    assert shown(cine(10, ed=0, es=5)) == ([-1, 0, 1], pair, pair, [0, 1])
    assert shown(cine(10, ed=0, es=5), neighbours=False) == ([0], [[0, 5]], [[0, 5]], [0, 1])
    assert shown(scan()) == ([0], [[0, 1]], [[0, 1]], [0, 1])
    assert shown(replace(scan(), ed=1, es=0)) == ([0], [[1, 0]], [[1, 0]], [0, 1])
    moving = [0, 3, 5, 8]
    assert shown(cine(10, ed=0, es=5), cine=4) == ([0], [[0, 5]], [moving], [0, 2])
    assert slices.cine_frames(3, 1, 10, count=5) == [3, 5, 7, 9, 1]
    assert slices.cine_frames(8, 2, 10, count=3) == [8, 2, 5]


def test_a_fault_names_its_phases_and_the_weightiest_is_told():
    rng = np.random.default_rng(0)
    planes = rng.integers(1, 99, (2, 3, 8, 8)).astype(np.float32)
    heart_of = np.zeros((8, 8), bool)
    heart_of[2:6, 2:6] = True
    images = rng.integers(0, 255, (2, 3, 8, 8)).astype(np.uint8)

    def faults(lost=None, flat=(False, False), planes=planes, images=images):
        lost = np.zeros((2, 3)) if lost is None else np.array(lost)
        flat = np.array(flat)
        return slices._faults(planes, images, heart_of, lost=lost, flat=flat, pair=[0, 2])

    assert faults() == ["", ""]
    assert faults([[0.1, 0, 0], [0, 0, 0.11]]) == ["", "no numbers in the heart of the image at ES"]
    assert faults([[1, 1, 0], [1, 0, 1]]) == [
        "no numbers in the heart of the image at ED and another frame",
        "no numbers in the heart of the image at ED and ES",
    ]
    assert faults(flat=(True, False)) == ["constant image at ED and another frame and ES", ""]
    dull = images.copy()
    dull[1, 2, ::2, ::2] = 7
    assert faults(images=dull) == ["", "no contrast beside the other phase in the image at ES"]
    dull[1, 2, 0, ::2] += np.array([0, 8, 0, 8], np.uint8)  # sd 2.6
    assert faults(images=dull) == ["", ""]
    white = planes.copy()
    white[0, 0].flat[:32] = 200  # half of the picture is not more than half
    white[0, 0, 2:6, 2:6] = 5
    white[0, 0, 4:6, 2:6] = 200
    assert faults(planes=white)[0] == ""
    white[0, 0, 3, 2:6] = 200
    assert faults(planes=white)[0] == "saturated image at ED"
    same = planes.copy()
    same[1, 1] = 4
    assert faults(planes=same) == ["", "constant image at another frame"]
    assert faults([[0, 0, 0], [0, 1, 0]], planes=same)[1].startswith("no numbers")


def test_grey_levels_are_those_between_the_limits_of_ed_and_es():
    images = np.linspace(0, 1000, 2 * 3 * 64, dtype=np.float32).reshape(2, 3, 8, 8)
    grey, lo, hi = slices._grey(images, pair=[0, 2])
    for k in (0, 1):
        limits = np.percentile(images[k, [0, 2]], (0.5, 99.5))
        assert (lo[k], hi[k]) == pytest.approx(limits, rel=1e-5)
        expected = np.rint((images[k] - limits[0]) / (limits[1] - limits[0]) * 255).clip(0, 255)
        assert np.abs(grey[k].astype(int) - expected).max() <= 1 and grey.dtype == np.uint8
    flat, lo, hi = slices._grey(np.full((1, 2, 8, 8), 5, np.float32), pair=[0, 1])
    assert not flat.any() and lo == hi == 5


def test_voxels_that_are_no_numbers_become_0_and_are_measured():
    made = scan()
    made.frames[0][1, :40, :10] = np.nan
    inside = np.zeros(made.labels[0].shape[1:], bool)
    inside[36:44, :10] = True
    planes, lost = slices._planes(made, np.array([[0, 1]]), 1, inside)
    assert lost.tolist() == [[0.5, 0]] and planes.dtype == np.float32 and planes.shape[:2] == (1, 2)
    assert (planes[0, 0, :40, :10] == 0).all() and np.isfinite(planes).all()
    np.testing.assert_array_equal(planes[0, 0, 40:], made.frames[0][1, 40:])
    assert slices._planes(made, np.array([[0, 1]]), 1, ~inside[::-1])[1][0, 0] > 0
    inside[:40] = False
    assert slices._planes(made, np.array([[0, 1]]), 1, inside)[1].tolist() == [[1e-9, 0]]
    huge = replace(made, frames={t: np.full_like(f, 1e300, float) for t, f in made.frames.items()})
    assert slices._planes(huge, np.array([[0, 1]]), 1, inside)[1].tolist() == [[1, 1]]


def test_a_row_says_where_it_lies_and_what_had_to_be_decided():
    made = replace(cine(10, ed=2, es=6), spacing=(2.0, 1.0), flags=("from_header",))
    images, masks, rows = stacks(made, pixels=32, fov_mm=128, expand=True)
    first = {
        "slice": -1,
        "frame": -1,
        "central": False,
        "flags": "from_header;mask_reused",
        "ed_frame": 2,
        "es_frame": 6,
        "mm": 1.414,
    }
    assert {key: rows[0][key] for key in first} == first
    assert [row["central"] for row in rows] == [k == 4 for k in range(9)]
    assert [row["flags"].count("mask_reused") for row in rows] == [1, 0, 1] * 3
    assert all(row["lo"] < row["hi"] for row in rows)
    two = scan(heart(depth=2))
    (row,) = stacks(two, pixels=32, fov_mm=128, expand=True)[2]
    assert row["flags"] == "short_stack"
    assert stacks(two, pixels=32, fov_mm=128, expand=False)[2][0]["flags"] == ""


def test_the_heart_of_a_slice_is_all_of_its_labels_at_either_phase():
    """Voxels that are no numbers count where any label of ED or ES lies."""
    for label in (LV, MYO, 3):
        made = scan(heart(depth=3), heart(depth=3, squeeze=0.7))
        made.frames[0][1][made.labels[0][1] == label] = np.nan
        with pytest.raises(ValueError, match="no numbers in the heart of the image at ED"):
            central(made)
