"""The pictures that open a report: people as different as the set has them, and nobody's heart
beside them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from cmrgen.evaluation import examples
from cmrgen.plan.rows import STILL

AXES = ["diagnosis", "sex", "age_band", "bmi_band"]


def index_of(*people: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(people, columns=AXES).assign(
        group="g", prompt="p", source_row=range(len(people)), **STILL
    )


def test_the_people_shown_differ_as_much_as_they_can():
    index = index_of(
        ("healthy", "F", "<60", "normal"),
        ("healthy", "F", "<60", "obese"),
        ("hf", "F", "<60", "normal"),
        ("healthy", "M", "70+", "obese"),
        ("hf", "M", "60-70", "overweight"),
    )
    chosen = examples.most_different(index, 3)
    assert index.diagnosis[chosen[0]] == "hf" and len(set(chosen)) == 3
    a, b = index.loc[chosen[0], AXES], index.loc[chosen[1], AXES]
    assert (a != b).sum() == 4
    assert examples.most_different(index, 3) == chosen
    assert len(examples.most_different(index, 99)) == 5


def test_who_is_alike_is_shown_once_and_unknown_attributes_are_no_difference():
    alike = index_of(*[("healthy", "F", "<60", "normal")] * 4)
    assert examples.most_different(alike, 3) == [0]
    unknown = index_of(("hf", None, None, None), ("healthy", None, None, None))
    assert examples.most_different(unknown, 3) == [0, 1]


def test_an_image_whose_mask_was_not_moved_is_taken_first():
    index = index_of(("hf", "F", "<60", "normal"), ("hf", "F", "<60", "normal")).assign(
        angle=[5.0, 0.0]
    )
    assert examples.most_different(index, 1) == [1]


@pytest.mark.parametrize(("name", "real"), [("phantom", True), ("acdc", False), ("pooled", False)])
def test_real_participants_are_never_shown(tmp_path, monkeypatch, name, real):
    shown = {}
    monkeypatch.setattr(
        examples, "image_grid", lambda rows, named, titles: shown.update(rows=rows, titles=titles)
    )
    monkeypatch.setattr(examples, "save", lambda figure, path: [path.with_suffix(".png")])
    images, masks = np.full((2, 2, 8, 8), 77, np.uint8), np.zeros((2, 2, 8, 8), np.uint8)
    cohort = SimpleNamespace(images=images, masks=masks, meta={"settings": {"cohort": name}})
    people = index_of(("hf", "F", "<60", "normal"), ("healthy", "M", "70+", "obese"))
    synthetic = SimpleNamespace(images=images * 0, masks=masks, index=people)
    evaluation = SimpleNamespace(cohort=cohort, synthetic_set=synthetic, figures=tmp_path)
    section = examples.examples_section(evaluation)
    assert any((cell == 77).any() for row in shown["rows"] for cell in row) == real
    assert len(shown["titles"]) == len(shown["rows"][0]) == (6 if real else 4)
    assert ("not shown" in section.paragraphs[0]) != real
