"""Sliders give what they ask for and leave a heart; a painted mask is a heart or is refused."""

from __future__ import annotations

import base64
from math import pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmrdata.batch import LV, MYO, RV
from cmrdata.ejection import ejection_fraction
from cmrgen.app import masks
from cmrgen.app.masks import check_heart, decoded, deformed, encoded, measures, usual_heart

FEW = settings(max_examples=25, deadline=None)


def heart(seed: int, pixels: int = 64) -> masks.Mask:
    """A heart with wavy borders, off the middle, whose wall is nowhere thinner than two pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:pixels, :pixels] - (pixels - 1) / 2 - rng.uniform(-3, 3, (2, 1, 1))
    angle, distance = np.arctan2(y, x), np.hypot(y, x)
    wave = sum(
        rng.uniform(-0.06, 0.06) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(1, 5)
    )
    full, rest = rng.uniform(0.16, 0.2) * pixels, rng.uniform(0.09, 0.14) * pixels
    mask = np.zeros((2, pixels, pixels), np.uint8)
    for labels, cavity, wall in zip(mask, (full, rest), rng.uniform(3, 5, 2), strict=True):
        labels[np.hypot(y + 3, x + 0.19 * pixels) <= 0.16 * pixels] = RV
        labels[distance <= (cavity + wall) * (1 + wave)] = MYO
        labels[distance <= cavity * (1 + wave)] = LV
    return mask


def areas(mask: masks.Mask, label: int) -> list[int]:
    return [int((labels == label).sum()) for labels in mask]


@pytest.mark.parametrize("pixels", [32, 64, 128])
def test_the_plain_heart_is_a_heart_of_usual_size(pixels):
    mask = usual_heart(pixels, mm=165 / pixels)
    check_heart(mask)
    of = measures(mask, mm=165 / pixels)
    assert of.ef == pytest.approx(masks.USUAL_EF, abs=0.04)
    assert of.wall is not None and of.wall[0] == pytest.approx(masks.WALL_MM, abs=1)
    assert of.rv is not None and of.rv[1] < of.rv[0]  # it contracts, too


@FEW
@given(seed=st.integers(0, 999), ef=st.floats(0.1, 0.8))
def test_the_ejection_fraction_is_the_one_asked_for(seed, ef):
    mask = heart(seed)
    made = deformed(mask, ef=ef)
    assert abs(ejection_fraction(made[0], made[1]) - ef) <= 0.5 / areas(mask, LV)[0] + 1e-9
    assert np.array_equal(made[0], mask[0])  # end-diastole is not its business
    assert areas(made, MYO)[1] == areas(mask, MYO)[1]  # muscle keeps its volume
    assert set(np.flatnonzero(made[1] == RV)) <= set(np.flatnonzero(mask[1]))  # the free wall stays
    check_heart(made)


@FEW
@given(seed=st.integers(0, 999), wall=st.floats(0.7, 1.6))
def test_the_wall_is_as_thick_as_asked_and_the_cavity_stays(seed, wall):
    mask = heart(seed)
    before, made = measures(mask, mm=1.0), deformed(mask, wall=wall)
    after = measures(made, mm=1.0)
    assert before.wall is not None and after.wall is not None
    assert after.wall[0] == pytest.approx(wall * before.wall[0], abs=0.02)
    assert np.array_equal(made[0] == LV, mask[0] == LV)
    assert areas(made, LV) == areas(mask, LV)
    gain = areas(made, MYO)[0] / areas(mask, MYO)[0]
    assert areas(made, MYO)[1] == pytest.approx(gain * areas(mask, MYO)[1], abs=1)
    check_heart(made)


@FEW
@given(seed=st.integers(0, 999), size=st.floats(0.8, 1.2))
def test_a_larger_heart_is_larger_all_over_and_ejects_the_same(seed, size):
    mask = heart(seed)
    made = deformed(mask, size=size)
    for label in (LV, MYO, RV):
        assert areas(made, label)[0] == pytest.approx(size**2 * areas(mask, label)[0], rel=0.12)
    own, now = (ejection_fraction(of[0], of[1]) for of in (mask, made))
    assert abs(now - own) <= 0.5 / areas(made, LV)[0] + 1e-9
    check_heart(made)


def test_a_smaller_cavity_lies_inside_a_larger_one():
    mask = heart(3)
    cavities = [deformed(mask, ef=ef)[1] == LV for ef in (0.2, 0.4, 0.6, 0.75)]
    for outer, inner in zip(cavities, cavities[1:], strict=False):
        assert (inner <= outer).all() and inner.sum() < outer.sum()


def test_sliders_at_rest_keep_the_bytes_and_none_writes_into_its_input():
    mask = heart(1)
    kept = mask.copy()
    made = deformed(mask)
    assert np.array_equal(made, mask) and not np.shares_memory(made, mask)
    deformed(mask, ef=0.3, wall=1.3, size=0.9)
    assert np.array_equal(mask, kept)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"ef": 0.95}, "ejection fraction is 95 %; give 5 to 85 %"),
        ({"wall": 3.0}, "wall thickness is 300 %; give 50 to 200 %"),
        ({"size": float("nan")}, "size is nan %"),
    ],
)
def test_what_no_heart_can_have_is_refused_by_name(asked, told):
    with pytest.raises(ValueError, match=told):
        deformed(heart(0), **asked)


def test_a_heart_does_not_leave_the_picture():
    mask = usual_heart(64, mm=1.5)
    with pytest.raises(ValueError, match="leave the picture at ED"):
        deformed(mask, size=1.3)


def broken(fault: str) -> masks.Mask:
    mask = heart(2)
    if fault == "open":  # the right half of the wall at ES
        mask[1][:, 32:][mask[1][:, 32:] == MYO] = 0
    elif fault == "empty":
        mask[0] = 0
    elif fault == "swapped":
        mask[0] = np.array([0, RV, MYO, LV], np.uint8)[mask[0]]
    elif fault == "growing":
        mask = mask[::-1].copy()
    return mask


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("open", "ES: labels do not look like a heart: myocardium borders"),
        ("empty", "ED: no LV cavity and no myocardium labelled"),
        ("swapped", "ED: LV and RV look swapped"),
        ("growing", "the LV is larger at ES"),
    ],
)
def test_what_is_no_heart_is_refused_with_its_phase_and_a_remedy(fault, told):
    for check in (check_heart, lambda mask: deformed(mask, ef=0.4)):
        with pytest.raises(ValueError, match=told) as error:
            check(broken(fault))
        assert "label map" not in str(error.value)


def test_a_mask_survives_the_way_to_the_browser_and_back():
    mask = heart(5)
    assert np.array_equal(decoded(encoded(mask), pixels=64), mask)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "not base64!",
        3,
        base64.b64encode(b"\0" * 100).decode(),
        base64.b64encode(b"\4" * (2 * 64**2)).decode(),
    ],
)
def test_what_is_no_mask_is_refused(text):
    with pytest.raises(ValueError, match="the painted mask"):
        decoded(text, pixels=64)


def test_measures_of_circles():
    mask = usual_heart(128, mm=1.0)
    of = measures(mask, mm=2.0)
    assert of.cavity is not None and of.cavity[0] == pytest.approx(
        np.pi * 24**2 * 4 / 100, rel=0.02
    )
    assert measures(np.zeros((2, 8, 8), np.uint8), mm=1.0).ef is None
    assert measures(mask, mm=None).cavity is None


@pytest.mark.parametrize(
    ("name", "low", "high"), [("ef", 0.05, 0.85), ("wall", 0.5, 2.0), ("size", 0.7, 1.4)]
)
def test_the_ends_of_a_slider_are_taken_and_what_lies_beyond_is_not(name, low, high):
    mask = usual_heart(96, mm=2.2)
    for value in (low, high):
        check_heart(deformed(mask, **{name: value}))
    for value in (low - 0.01, high + 0.01):
        with pytest.raises(ValueError, match=f"give {100 * low:.0f} to {100 * high:.0f} %"):
            deformed(mask, **{name: value})


def test_the_plain_heart_is_circles_of_usual_size_in_the_middle():
    mask, mm = usual_heart(330, mm=None), 0.5  # 165 mm wide
    assert np.array_equal(mask, usual_heart(330, mm=mm))
    muscle = pi * (33**2 - 24**2)
    cavity = [pi * 24**2, 0.45 * pi * 24**2]
    for labels, area in zip(mask, cavity, strict=True):
        assert (labels == LV).sum() * mm**2 == pytest.approx(area, rel=2e-3)
        assert (labels == MYO).sum() * mm**2 == pytest.approx(muscle, rel=4e-3)
        y, x = np.nonzero(labels == LV)
        # 9 mm to the right, so that LV and RV together lie in the middle
        assert (y.mean() - 164.5) * mm == pytest.approx(0, abs=0.01)
        assert (x.mean() - 164.5) * mm == pytest.approx(9, abs=0.01)
    for labels, radius, left, above in zip(mask, (28, 24), (27, 23), (9, 8), strict=True):
        y, x = np.nonzero(labels == RV)
        assert x.min() == pytest.approx(164.5 + (9 - left - radius) / mm, abs=1)
        assert y.min() == pytest.approx(164.5 + (-above - radius) / mm, abs=1)


def test_measures_are_those_of_the_circles():
    of = measures(usual_heart(330, mm=0.5), mm=0.5)
    assert of.ef == pytest.approx(0.55, abs=1e-3)
    assert of.cavity == pytest.approx([pi * 5.76, 0.45 * pi * 5.76], rel=2e-3)
    outer = sqrt(0.45 * 24**2 + 33**2 - 24**2)
    assert of.wall == pytest.approx([9, outer - sqrt(0.45) * 24], abs=0.02)
    mask = np.zeros((2, 10, 10), np.uint8)
    mask[0, :5], mask[1, 0, :3] = RV, RV
    assert measures(mask, mm=2.0).rv == [2.0, 0.12]  # 50 and 3 pixels of 4 mm2


def test_a_heart_may_touch_the_edge_if_it_did_before():
    mask = usual_heart(64, mm=3.0)
    mask[0, 0, 30] = RV
    assert deformed(mask, wall=1.1)[0, 0, 30] == RV


def test_the_edge_is_named_by_phase_on_all_four_sides():
    mask = np.zeros((2, 8, 8), np.uint8)
    assert masks._at_the_edge(mask) == ""
    for place in ((0, 3), (7, 3), (3, 0), (3, 7)):
        for phase, name in ((0, "ED"), (1, "ES")):
            one = mask.copy()
            one[(phase, *place)] = LV
            assert masks._at_the_edge(one) == name
    mask[:, 0] = LV
    assert masks._at_the_edge(mask) == "ED and ES"


def test_an_lv_that_does_not_shrink_is_a_heart():
    mask = usual_heart(64, mm=3.0)
    check_heart(np.stack([mask[0], mask[0]]))  # as large at ES as at ED


def test_a_resting_cavity_has_a_pixel_at_least():
    mask = np.zeros((2, 20, 20), np.uint8)
    for labels in mask:
        labels[6:13, 6:13] = MYO
        labels[8:11, 8:11] = LV
    made = deformed(mask, ef=0.85)
    assert areas(made, LV) == [9, 1]


@pytest.mark.parametrize("label", [3, 4])
def test_labels_up_to_that_of_the_rv_are_taken(label):
    text = encoded(np.full((2, 8, 8), label, np.uint8))
    if label == 3:
        made = decoded(text, pixels=8)
        assert (made == 3).all() and made.flags.writeable
    else:
        with pytest.raises(ValueError, match="has a label 4; it takes 0 to 3"):
            decoded(text, pixels=8)
