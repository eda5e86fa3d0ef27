"""Who is enlarged, in sentences: exactly at the size nobody is."""

from __future__ import annotations

import pandas as pd
import pytest

from cmrdata import scale


def test_scans_without_a_known_size_say_nothing() -> None:
    for mm in ([], [None, None]):
        assert scale.of_scans(pd.Series(mm, dtype=float), pixels=64, fov_mm=128) is None


def test_a_pixel_within_the_tolerance_is_not_enlarged() -> None:
    own = 128 / 64
    mm = pd.Series([1.0, None, scale.MM_TOLERANCE * own])
    assert scale.of_scans(mm, pixels=64, fov_mm=128.0) == (
        "scans have 1.52 mm a pixel (1.00 to 2.04), pictures 2.00 mm (64 px of 128 mm): none is enlarged"
    )
    mm[2] = 2.05
    assert scale.of_scans(mm, pixels=64, fov_mm=128.0) == (
        "scans have 1.52 mm a pixel (1.00 to 2.05), pictures 2.00 mm (64 px of 128 mm): 1 of 2 subjects "
        "are enlarged, up to 1.0 times; with cohort.pixels=63 nobody is"
    )


@pytest.mark.parametrize("coarsest", [1.3, 2.5, 3.1])
def test_with_the_pixels_that_it_names_nobody_is_enlarged(coarsest: float) -> None:
    mm = pd.Series([0.9, coarsest])
    told = scale.of_scans(mm, pixels=256, fov_mm=230.4)
    assert told is not None
    pixels = int(told.partition("cohort.pixels=")[2].partition(" ")[0])
    for count, enlarged in ((pixels, False), (pixels + 1, True)):
        again = scale.of_scans(mm, pixels=count, fov_mm=230.4)
        assert again is not None and again.endswith("none is enlarged") != enlarged


def test_a_base_of_the_pictures_size_says_nothing() -> None:
    assert scale.for_a_base(128, 128, own=128) is None
    assert scale.for_a_base(127, 128, own=127) == (
        "pictures of 127 px are enlarged 1.01 times to the 128 px of the base"
    )
    assert scale.for_a_base(64, 512, own=128) == (
        "pictures of 64 px are enlarged 8 times to the 512 px of the base; by itself it takes cohort.pixels=128"
    )
    larger = scale.for_a_base(192, 128, own=128)
    assert larger is not None and "synthetic images will be enlarged 1.5 times" in larger
    assert larger.endswith("cohort.pixels=128, or another base")


def test_a_classifier_of_the_pictures_size_or_less_says_nothing() -> None:
    assert scale.for_a_classifier(224, 224) is scale.for_a_classifier(225, 224) is None
    told = scale.for_a_classifier(112, 224)
    assert told is not None and told.startswith(
        "pictures of 112 px are enlarged 2 times to model.pixels=224:"
    )


def test_a_sentence_is_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "_TOLD", set())
    for sentence in ("a", None, "", "b", "a"):
        scale.tell(sentence)
    assert capsys.readouterr().out == "a\nb\n"
