"""Sliders give what they ask for and leave a heart; a painted mask is a heart or is refused."""

from __future__ import annotations

import base64

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
