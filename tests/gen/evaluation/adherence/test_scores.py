"""Dice and accuracies against their references and per group: by hand, and with what bad images
leave behind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrdata.batch import LABELS, LV, MYO
from cmrgen.evaluation.adherence import scores
from cmrgen.evaluation.adherence.areas import structure_areas
from cmrgen.evaluation.adherence.scores import (
    JudgedImages,
    accuracy,
    adherence_detail,
    adherence_table,
    derangement,
    mean_dice,
)
from support.judged_images import judged, people


def test_dice_by_hand() -> None:
    mask = np.zeros((1, 2, 4, 4), np.uint8)
    mask[0, :, 0, :] = LV
    found = mask.copy()
    found[0, 0, 0, 2:] = 0  # half of LV: 2*2 / (2 + 4)
    found[0, 0, 3, 0] = MYO  # in no mask: 0; RV in neither: skipped
    assert mean_dice(structure_areas(found, mask)).tolist() == [
        [pytest.approx((2 / 3 + 0) / 2), 1.0]
    ]
    assert np.isnan(mean_dice(structure_areas(np.zeros_like(mask), np.zeros_like(mask)))).all()


def test_derangement_moves_every_row() -> None:
    for n in (2, 3, 50):
        order = derangement(n, seed=n)
        assert sorted(order) == list(range(n)) and (order != np.arange(n)).all()
    with pytest.raises(ValueError, match="a set of 1 images"):
        derangement(1, seed=0)


def test_accuracy_gives_every_group_equal_mass() -> None:
    index = pd.DataFrame({"group": ["a"] * 9 + ["b"], "sex": ["F"] * 9 + ["M"]})
    assert accuracy(np.array(["F"] * 10, object), index, "sex", {"a", "b"}) == 0.5
    assert np.isnan(accuracy(np.array(["F"] * 10, object), index, "sex", set()))


def always_right(table: pd.DataFrame, seed: int) -> JudgedImages:
    """Judges who are always right, on masks that differ from row to row."""
    masks = np.random.default_rng(seed).integers(0, 4, (len(table), 2, 8, 8)).astype(np.uint8)
    axes = {
        "sex": table.sex,
        "age_band": table.age_band,
        "bmi_band": table.bmi_band,
        "diagnosis": table.label,
    }
    predicted, others = (
        {axis: column.to_numpy(object) for axis, column in axes.items()},
        derangement(len(table), seed=0),
    )
    return JudgedImages(
        table,
        structure_areas(masks, masks),
        predicted,
        None,
        others,
        structure_areas(masks, masks[others]),
    )


def test_adherence_rows_and_shuffled_reference() -> None:
    table, warnings = adherence_table(always_right(people(72), 0), always_right(people(144), 1))
    assert table.columns.tolist() == ["metric", "real", "synthetic", "shuffled", "n"]
    assert table.metric.tolist() == [
        "dice",
        "sex_accuracy",
        "bmi_accuracy",
        "age_accuracy",
        "diagnosis_accuracy",
    ]
    assert (table.real == 1).all() and (table.synthetic == 1).all() and (table.n == 144).all()
    assert table.shuffled.between(0.1, 0.7).all() and not warnings
    detail = adherence_detail(always_right(people(72), 0), always_right(people(144), 1))
    assert len(detail) == 6 and (detail.synthetic_n == 144).all() and (detail.shuffled < 0.5).all()


def test_adherence_of_unknown_axes_is_nan_with_n_0() -> None:
    table, warnings = adherence_table(
        always_right(people(10, unknown=("sex", "bmi")), 0),
        always_right(people(12, unknown=("sex", "bmi")), 1),
    )
    rows = table.set_index("metric")
    assert (
        rows.loc[["sex_accuracy", "bmi_accuracy"], ["real", "synthetic", "shuffled"]]
        .isna()
        .to_numpy()
        .all()
    )
    assert rows.n.tolist()[1:3] == [0, 0] and rows.synthetic["age_accuracy"] == 1
    assert "Fewer than 20 images: real (10), synthetic (12)" in warnings[-1]


def test_by_group_counts_images_subjects_and_marks_few() -> None:
    table = people(144)
    twice = pd.concat([table.iloc[:72]] * 2, ignore_index=True)
    rows = scores.by_group(judged(table), judged(twice, wrong=0.3)).set_index(
        ["axis", "subgroup", "metric"]
    )
    whole = rows.loc[("all", "all", "sex_accuracy")]
    assert (
        whole.real,
        whole.real_n,
        whole.real_subjects,
        whole.synthetic_n,
        whole.synthetic_subjects,
    ) == (
        1,
        144,
        144,
        144,
        72,
    )
    assert (
        whole.synthetic_low
        < whole.synthetic
        < whole.synthetic_high
        < 1
        == whole.real
        > whole.real_low
    )
    assert whole.difference == pytest.approx(whole.synthetic - 1) and whole.difference_high < 0
    assert len(rows.loc["group"]) == 36 * 5 and rows.loc["group"].few.all() and not whole.few
    assert rows.loc[("sex", "F", "dice")].synthetic_n == 72 and (rows.loc["sex"].real_n == 72).all()
    inside = rows.dropna()
    assert (inside.synthetic_low >= 0).all() and (inside.synthetic_high <= 1).all()
    wanted = adherence_table(judged(table), judged(twice, wrong=0.3)).table
    wanted = wanted.set_index("metric").synthetic
    assert rows.loc[("all", "all")].synthetic.to_dict() == pytest.approx(wanted.to_dict())


def test_a_group_without_images_and_an_unknown_axis_are_named_not_averaged() -> None:
    real, fake = people(72, unknown=("bmi",)), people(72, unknown=("bmi",))
    fake = fake[fake.group != "F/<60/hf"].reset_index(drop=True)
    rows = scores.by_group(judged(real), judged(fake)).set_index(["axis", "subgroup", "metric"])
    absent = rows.loc[("group", "F/<60/hf", "dice")]
    assert (
        np.isnan(absent.synthetic) and absent.synthetic_n == 0 and absent.real_n > 0 and absent.few
    )
    assert "bmi_accuracy" not in rows.index.get_level_values("metric")
    assert "1 group occurs on one side only" in " ".join(
        adherence_table(judged(real), judged(fake)).warnings
    )


def test_confusion_adds_up() -> None:
    table = people(144)
    found = scores.confusion_counts(judged(table), judged(table, wrong=1.0))
    assert set(found.axis) == {"sex", "age_band", "bmi_band", "diagnosis"} and set(
        found[found.axis == "sex"].n
    ) == {72}
    real, fake = (
        found[(found.axis == "sex") & (found.images == name)] for name in ("real", "synthetic")
    )
    assert (real[real.asked == real.seen].share == 1).all() and (
        fake[fake.asked == fake.seen].share == 0
    ).all()
    assert (found[found.axis == "sex"].groupby(["asked", "images"]).share.sum() == 1).all()


def test_faults_names_flat_images_empty_segmentations_and_absent_structures() -> None:
    real, fake = judged(people(30)), judged(people(30))
    assert scores.faults(real, fake) == []
    fake.areas.segmented[:2], fake.areas.common[:2], fake.flat[:2] = 0, 0, True
    for counts in fake.areas:
        counts[5, 1, list(LABELS).index("RV")] = 0
    flat, empty, absent = scores.faults(real, fake)
    assert flat.startswith("2 of 30 synthetic images are flat") and "no heart in 2 of 30" in empty
    assert "RV at ES 1" in absent and "left out (1 times)" in absent


def test_two_images_have_an_sd_and_one_has_none() -> None:
    two, three = judged(people(2)), judged(people(3))
    for counts in two.areas:
        counts[0, 0, 0] = 0  # one image alone shows an LV at ED
    detail = adherence_detail(two, three)
    assert detail.real_n.tolist() == [1, 2, 2, 2, 2, 2] and detail.real_sd.notna().sum() == 5
    assert np.isnan(detail.real_sd[0]) and detail.real[0] == 1


def test_few_begins_below_twenty_subjects_and_images() -> None:
    for count, few in ((19, True), (20, False)):
        table = people(count)
        rows = scores.by_group(judged(table), judged(people(72))).set_index(["axis", "metric"])
        assert rows.few["all", "dice"] == few
        told = " ".join(adherence_table(judged(table), judged(people(72))).warnings)
        assert ("Fewer than 20 images: real (19)" in told) is few
