"""Which frame of a scan is end-systole."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.ukbb import scan
from cmrdata.cohorts.ukbb.scan import end_systole


@pytest.mark.parametrize(
    ("counts", "frame"),
    [
        ([90, 50, 40, 60, 80, 85], 2),
        ([90, 0, 40, 60, 80, 85], 2),
        ([90, 15, 40, 60, 80, 85], 2),
        ([90, 18, 40, 60, 80, 85], 1),
        ([90, 40, 40, 40, 80, 40], 2),
        ([90, 40, 60, 70, 80, 40], 1),
        ([90, 80, 80, 80, 80, 30], 5),
        ([30, 80, 70, 80, 80, 80], 2),
        ([90, 60], 1),
    ],
)
def test_es_is_the_smallest_plausible_cavity_behind_ed(counts, frame):
    assert end_systole(np.array(counts)) == frame


@pytest.mark.parametrize("counts", [[90], [90, 0, 0], [90, 17, 17], [0, 0]])
def test_without_a_plausible_cavity_there_is_no_es(counts):
    with pytest.raises(ValueError, match="no frame but ED"):
        end_systole(np.array(counts))


def cine(frames: np.ndarray) -> SimpleNamespace:
    """A film whose stream overwrites its buffer, as a file's does."""

    def stream():
        buffer = np.empty_like(frames[0])
        for frame in frames:
            buffer[...] = frame
            yield buffer

    return SimpleNamespace(stream=stream)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1000, (6, 3, 8, 8)).astype(np.float32)


def test_a_still_is_found_behind_ed_though_it_is_clipped(frames):
    assert scan.matching_frame(cine(frames), frames[4]) == 4
    low, high = np.percentile(frames[3], (1, 99))
    assert scan.matching_frame(cine(frames), frames[3].clip(low, high)) == 3
    assert scan.matching_frame(cine(frames), frames[0]) is None  # that is ED itself
    holes = frames[2].copy()
    holes[0, :2] = np.nan
    assert scan.matching_frame(cine(frames), holes) == 2
    assert scan.matching_frame(cine(frames), np.full((3, 8, 8), np.nan)) is None


def test_another_hearts_still_matches_nothing(frames):
    stranger = np.random.default_rng(1).integers(0, 1000, (3, 8, 8)).astype(np.float32)
    assert scan.matching_frame(cine(frames), stranger) is None
    noisy = frames[5] + np.random.default_rng(2).normal(0, 1, frames[5].shape)
    assert scan.matching_frame(cine(frames), noisy.astype(np.float32)) == 5


def drawn(*frames: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of frames that hold an LV of so many voxels (the digits), myocardium (m), an RV (r)."""
    labels = np.zeros((len(frames), 1, 1, 20), np.uint8)
    for t, what in enumerate(frames):
        count = int("".join(filter(str.isdigit, what)) or 0)
        labels[t, 0, 0, :count] = LV
        labels[t, 0, 0, 18] = MYO * ("m" in what)
        labels[t, 0, 0, 19] = RV * ("r" in what)
    return labels, (labels == LV).sum((1, 2, 3))


def test_es_drawn_by_hand_is_the_smallest_cavity_of_an_annotated_frame():
    assert scan._drawn_end_systole(*drawn("9mr", "", "5mr", "4mr", "6mr")) == 3
    assert scan._drawn_end_systole(*drawn("9mr", "2m", "5mr", "1r", "6mr")) == 2
    assert scan._drawn_end_systole(*drawn("9mr", "5mr", "5mr")) == 1
    assert scan._drawn_end_systole(*drawn("3mr", "9mr")) == 1
    for frames, words in (
        (("9m", "5r", ""), "no frame has LV, myocardium and RV"),
        (("", "9mr", "5mr"), r"the first annotated frame is 1 \(counted from 0\), but ED must"),
        (("9mr", "5m", ""), "ED is the only annotated frame"),
    ):
        with pytest.raises(ValueError, match=words):
            scan._drawn_end_systole(*drawn(*frames))
