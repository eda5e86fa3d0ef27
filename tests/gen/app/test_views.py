"""What the page says of an image is what was measured: words, numbers, colours and places on bars."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from cmrdata.batch import LV, MYO, RV
from cmrgen.app import views
from cmrgen.app.masks import Measures
from cmrgen.app.studio import Attribute, Judgement, Nearness

NAN = float("nan")
ATTRIBUTES = [
    Attribute("sex", "F", "F", 0.9, 1200),
    Attribute("age_band", "60-70", "70+", 0.555, 1100),
    Attribute("bmi_band", None, "obese", NAN, 7),
    Attribute("diagnosis", "1", None, 0.7, 0),
]
DICE = np.array([[0.8, 0.6, 0.5949], [1.0, NAN, 0.0]])
REAL = np.array([[0.9, 0.8, NAN], [0.8, 0.7, NAN]])
JUDGEMENT = Judgement(DICE, REAL, 0.55, 0.4, ATTRIBUTES)
NEAR = Nearness(0.95, 0.9, 1234, True)
FAR = Nearness(0.5, 0.9, 1234, False)


def words(html: str) -> str:
    """Its text, a space where tags were."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def cells(html: str, table: str) -> list[list[str]]:
    """The texts of a table's cells, row by row."""
    inside = re.search(rf'<table class="{table}">(.*?)</table>', html, re.DOTALL)
    assert inside
    rows = re.findall(r"<tr>(.*?)</tr>", inside[1], re.DOTALL)
    return [[words(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)] for row in rows]


def decoded(address: str) -> np.ndarray:
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_dice_is_told_by_phase_and_structure_with_its_colour_and_bar():
    html = views.details(JUDGEMENT, FAR)
    assert cells(html, "dice") == [
        ["", "LV", "MYO", "RV"],
        ["ED", "0.80", "0.60", "0.59"],
        ["ES", "1.00", "none asked, none seen", "0.00"],
    ]
    colours = re.findall(r'<td class="(\w+)"><span style="width:(\d+)%">', html)
    assert colours == [
        ("good", "80"),
        ("fair", "60"),
        ("poor", "59"),
        ("good", "100"),
        ("poor", "0"),
    ]
    assert "In the cohort's images of people held out: LV 0.85, MYO 0.75, RV none." in html


def test_the_ejection_of_mask_and_image_is_told_or_that_there_is_none():
    said = words(views.details(JUDGEMENT, None))
    assert "Ejection fraction of the slice: 55 % in the mask, 40 % in the image." in said
    none = words(views.details(JUDGEMENT._replace(ef_seen=NAN), None))
    assert "The segmenter sees no LV at ED, so no ejection." in none and "in the image." not in none


def test_what_was_asked_stands_beside_what_is_seen_where_they_differ():
    html = views.details(JUDGEMENT, None)
    assert cells(html, "attributes") == [
        ["Sex", "✓ female", "(90 %)"],
        ["Age", "✗ 70+ years asked: 60-70 years", "(56 %)"],
        ["BMI", "obese not said", ""],
        ["Diagnosis", "sees nothing asked: diseased", ""],
    ]
    assert re.findall(r'<td><span class="(\w*)">', html) == ["yes", "no", ""]
    assert "in the images of\n1,200 people held out" in html
    nobody = views.details(JUDGEMENT._replace(attributes=[]), None)
    assert "in the images of\n0 people held out" in nobody


@pytest.mark.parametrize(
    ("near", "beyond", "bar", "mark", "own"),
    [
        (NEAR, True, 75.0, 50.0, True),  # from 0.8 to 1
        (FAR, False, 16.7, 83.3, False),  # from 0.4 to 1
        (Nearness(0.9, 0.9, 1234, False), False, 50.0, 50.0, False),  # at tau is not beyond it
    ],
)
def test_the_gauge_begins_a_tenth_below_the_lower_of_similarity_and_tau(
    near, beyond, bar, mark, own
):
    html = views.details(JUDGEMENT, near, waiting="the search is getting ready")
    assert f'<div class="gauge {"beyond" if beyond else ""}">' in html
    assert f'<span style="width:{bar}%"></span>\n<i style="left:{mark}%">τ</i>' in html
    said = words(html)
    assert (
        f"Similarity to the nearest training image {near.similarity:.3f} , τ = {near.tau:.3f}."
        in said
    )
    assert ("nearer to a training image than 95 % of unseen people do" in said) is beyond
    assert ("It lies no nearer to a training image than unseen people do." in said) is not beyond
    assert ("The nearest is one of the person whose mask this is." in said) is own
    assert "95 % of 1,234 people whom the generator has never seen" in said
    assert "getting ready" not in said


def test_before_the_search_is_there_it_is_said_what_is_waited_for():
    assert '<p class="small">1 &lt; 2</p>' in views.details(JUDGEMENT, None, waiting="1 < 2")


def test_a_comparison_has_a_row_for_each_image():
    other = JUDGEMENT._replace(dice=np.full((2, 3), NAN), ef_asked=NAN, ef_seen=0.996)
    pairs = [(JUDGEMENT, NEAR), (other, FAR), (JUDGEMENT, NEAR._replace(similarity=0.9))]
    html = views.comparison(["<a>", "b", "c"], pairs, waiting="not yet")
    seen = ["✓ female", "✗ 70+ years", "obese", "sees nothing"]
    assert cells(html, "many") == [
        [
            *("", "Dice", "ejection: mask", "seen", "Sex", "Age", "BMI", "Diagnosis"),
            "similarity",
        ],
        ["&lt;a&gt;", "0.60", "55 %", "40 %", *seen, "0.950 > τ"],
        ["b", "none", "none", "100 %", *seen, "0.500"],
        ["c", "0.60", "55 %", "40 %", *seen, "0.900"],
    ]
    assert re.findall(r'<span class="(\w+)">0\.\d', html) == ["no", "yes", "yes"]
    assert "95 % of 1,234 people held out lie below τ = 0.900." in html and "not yet" not in html


def test_a_comparison_without_a_search_says_what_is_waited_for():
    html = views.comparison(["a"], [(JUDGEMENT, None)], waiting="the search <comes>")
    assert cells(html, "many")[1][-1] == "…"
    assert "the search &lt;comes&gt;" in html and "τ" not in html


def test_a_masks_numbers_are_one_line_and_what_has_no_scale_is_left_out():
    whole = Measures(0.554, [20.04, 9.0], [9.0, 12.26], [25.0, 16.0])
    assert words(views.numbers(whole)) == (
        "ejection fraction of the slice 55 % · LV 20.0 → 9.0 cm² · wall 9.0 → 12.3 mm · "
        "RV 25.0 → 16.0 cm²"
    )
    assert words(views.numbers(Measures(None, None, None, None))) == (
        "ejection fraction of the slice none"
    )
    assert words(views.numbers(Measures(NAN, None, None, [1.0, 2.0]))) == (
        "ejection fraction of the slice none · RV 1.0 → 2.0 cm²"
    )


def test_a_message_is_escaped_and_no_text_is_nothing():
    assert views.message("a < b") == '<p class="message fault" role="alert">a &lt; b</p>'
    assert views.message("ready", kind="note") == '<p class="message note" role="alert">ready</p>'
    assert views.message("") == ""


def squares(pixels: int) -> np.ndarray:
    """Labels of an LV in a ring of MYO, an RV beside it."""
    labels = np.zeros((pixels, pixels), np.uint8)
    quarter = pixels // 4
    labels[quarter : 3 * quarter, quarter : 3 * quarter] = MYO
    labels[quarter + 4 : 3 * quarter - 4, quarter + 4 : 3 * quarter - 4] = LV
    labels[quarter : 3 * quarter, : quarter - 2] = RV
    return labels


def test_pictures_are_pngs_of_the_same_pixels():
    grey = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    assert np.array_equal(decoded(views.picture(grey)), grey)
    rgba = np.random.default_rng(1).integers(0, 256, (8, 8, 4)).astype(np.uint8)
    assert np.array_equal(decoded(views.picture(rgba)), rgba)


@pytest.mark.parametrize(("pixels", "side"), [(64, 512), (100, 600), (512, 512), (700, 700)])
def test_outlines_are_opaque_borders_of_structures_faintly_filled(pixels, side):
    labels = squares(pixels)
    rgba = views.outlined(labels)
    assert rgba.shape == (side, side, 4) and rgba.dtype == np.uint8
    factor = side // pixels
    middle = rgba[factor // 2 :: factor, factor // 2 :: factor]  # of each pixel of the mask
    for label, colour in views.STRUCTURES.items():
        inside = middle[labels == label]
        assert (inside[:, :3] == colour).mean() > 0.95
    assert (rgba[..., 3][(rgba[..., :3] == 0).all(-1)] == 0).all()
    assert set(np.unique(rgba[..., 3])) == {0, views.FILLED, views.LINED}
    # across the LV: its border is as wide as a picture of 130 px shows one of a pixel
    width = side // 130
    row = rgba[side // 2]
    cavity = (row[:, :3] == views.STRUCTURES[LV]).all(-1)
    assert (cavity & (row[:, 3] == views.LINED)).sum() == 2 * width
    assert (cavity & (row[:, 3] == views.FILLED)).sum() == cavity.sum() - 2 * width > 0


def drawn(title: str, seed: int) -> views.Drawn:
    image = np.random.default_rng(seed).integers(0, 256, (2, 64, 64)).astype(np.uint8)
    mask = np.stack([squares(64), squares(64)])
    mask[1][mask[1] == RV] = 0
    return views.Drawn(title, "female, <60", image, mask)


def test_one_image_is_large_and_has_its_prompt_and_both_frames_with_their_outlines():
    one = drawn("<Synthetic>", 0)
    html = views.result([one])
    assert html.startswith('<div class="result"><div class="bar">')
    assert words(html) == (
        "outlines of the mask LV MYO RV &lt;Synthetic&gt; “female, &lt;60” ED, end-diastole "
        "ES, end-systole beating, two frames"
    )
    legend = re.findall(r'background:rgb(\(.*?\))"></i>(\w+)', html)
    assert legend == [
        (str(views.STRUCTURES[of]), n) for of, n in ((LV, "LV"), (MYO, "MYO"), (RV, "RV"))
    ]
    shown = [decoded(address) for address in re.findall(r'src="(.*?)"', html)]
    outlines = [views.outlined(labels) for labels in one.mask]
    wanted = [one.image[0], outlines[0], one.image[1], outlines[1], one.image[0], one.image[1]]
    assert len(shown) == 6
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))
    alts = re.findall(r'alt="(.*?)"', html)
    assert alts == [
        "ED of &lt;Synthetic&gt;",
        "",
        "ES of &lt;Synthetic&gt;",
        "",
        "beating heart",
        "",
    ]


def test_several_images_stand_side_by_side_under_their_titles():
    html = views.result([drawn("one", 0), drawn("two", 1)])
    assert html.startswith('<div class="result several"><div class="bar">')
    assert words(html) == "outlines of the mask LV MYO RV one ED ES beating two ED ES beating"
