"""What a row of a plan says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmrgen.plan.rows import is_moved, mask_numbers, planned, summary, usable
from support.fake_index import (
    balanced,
    copy,
)


def test_negative_guidance_and_strength_are_every_rows(index):
    plan = balanced(index, count=4, negative="noise", guidance=3, strength=0.5)
    assert (
        set(plan.negative) == {"noise"}
        and set(plan.guidance) == {3.0}
        and set(plan.strength) == {0.5}
    )


def test_the_summary_counts_masks_once_however_often_frames_reuse_them(index):
    reused = index.assign(flags=np.where(index.frame != 0, "mask_reused", ""))
    plan = copy(reused, count=3000)
    plain, true = summary(plan).set_index("group"), summary(plan, reused).set_index("group")
    own = reused.loc[plan.source_row]
    expected = own.assign(key=own.subject + own["slice"].astype(str)).groupby("group").key.nunique()
    assert true.masks.to_dict() == expected.to_dict() and (true.masks < plain.masks).any()
    assert true.images.sum() == 3000 and (true.borrowed == 0).all()
    pd.testing.assert_frame_equal(summary(plan), summary(plan, index))


def test_one_mask_in_three_frames_is_one_mask(index):
    reused = index.assign(flags=np.where(index.frame != 0, "mask_reused", ""))
    rows = reused.index[reused.subject == reused.subject[reused.split == "train"].iloc[0]]
    assert mask_numbers(reused, rows).nunique() == 3 and mask_numbers(index, rows).nunique() == 9


def test_only_labelled_training_rows_with_both_phases_are_used(index):
    few = index[index.split == "train"].head(6).copy()
    few["flags"] = ["", None, "far;ed_unlabelled", "ed_unlabelled", "es_far", ""]
    few.loc[few.index[5], "diagnosis"] = None
    few.loc[few.index[4], "split"] = "val"
    assert usable(few).index.tolist() == few.index[:2].tolist()
    with pytest.raises(ValueError, match="no labelled training subject, so there is nothing"):
        usable(few[2:])


def test_a_row_has_its_masks_facts_and_the_attributes_that_are_asked_for(index):
    train = index[(index.split == "train") & index.conditions.ne("") & index.diagnosis.notna()]
    sources = [train.index[9], train.index[0], train.index[9]]
    own = planned(index, sources, seed=4)
    assert own.row.tolist() == [0, 1, 2] and own.source_row.tolist() == sources
    assert own.subject.tolist() == index.subject[sources].tolist()
    assert (own.borrowed == "").all() and (own.negative == "").all()
    assert own.guidance.tolist() == [2.0] * 3 and own.strength.tolist() == [1.0] * 3
    assert own.seed.tolist() == np.random.default_rng([4, 2]).integers(0, 2**62, 3).tolist()
    assert not is_moved(own).any()
    # the seeds of a longer plan begin with these
    assert planned(index, sources + sources, seed=4).seed[:3].tolist() == own.seed.tolist()
    other = {"hf": "healthy", "healthy": "hf"}
    diagnoses = [index.diagnosis[k] for k in sources]
    asked = pd.DataFrame({"sex": ["F", "M", "F"], "age": [50.0, 65.0, 75.0]}, index=[7, 8, 9])
    asked["diagnosis"] = [diagnoses[0], other[diagnoses[1]], diagnoses[2]]
    made = planned(index, sources, seed=4, asked=asked, fields=["age"])
    assert made.sex.tolist() == ["F", "M", "F"] and made.age_band.tolist() == [
        "<60",
        "60-70",
        "70+",
    ]
    assert made.label.tolist() == [int(of == "hf") for of in asked.diagnosis]
    assert made.prompt.tolist() == ["age in 50s", "age in 60s", "age in 70s"]
    assert made.group.str.split("/").str[0].tolist() == ["F", "M", "F"]
    # conditions belong to a diagnosis and go with it
    kept = index.conditions[sources].tolist()
    assert made.conditions.tolist() == [kept[0], "", kept[2]]
    given = planned(index, sources, seed=4, asked=asked.assign(conditions="mi"))
    assert given.conditions.tolist() == ["mi"] * 3
    group = index.group[sources].tolist()
    lent = [a if a != b else "" for a, b in zip(group, made.group, strict=True)]
    assert made.borrowed.tolist() == lent and any(lent)


def test_further_images_of_a_mask_are_moved_and_those_that_are_chosen(index):
    train = index.index[index.split == "train"]
    sources = [train[0], train[9], train[0], train[0]]
    for per_mask, moved in (
        (0, [1, 1, 1, 1]),
        (1, [0, 0, 1, 1]),
        (2, [0, 0, 0, 1]),
        (None, [0] * 4),
    ):
        assert is_moved(planned(index, sources, seed=1, per_mask=per_mask)).tolist() == moved
    chosen = planned(index, sources, seed=1, move=[False, True, False, False])
    assert is_moved(chosen).tolist() == [False, True, False, False]
    both = planned(index, sources, seed=1, move=[False, True, False, False], per_mask=2)
    assert is_moved(both).tolist() == [False, True, False, True]
    every = planned(index, sources, seed=1, per_mask=0)
    assert both.angle[3] == every.angle[3]  # a row's move is its own, whoever else moves
    for wrong in (-1, True, 1.5):
        with pytest.raises(ValueError, match=f"plan.per_mask={wrong}: give a whole number"):
            planned(index, sources, seed=1, per_mask=wrong)


def test_a_summary_by_hand():
    still = {"angle": 0.0, "zoom": 1.0, "dy": 0.0, "dx": 0.0}
    rows = pd.DataFrame(
        {
            "group": list("aaaab"),
            "subject": list("xxyxz"),
            "source_row": [1, 1, 2, 3, 1],
            "borrowed": ["", "g", None, "", "h"],
            **{name: [value] * 5 for name, value in still.items()},
        }
    )
    rows.loc[[0, 4], "zoom"] = 1.1
    assert summary(rows).to_dict("list") == {
        **{"group": ["a", "b"], "images": [4, 1], "subjects": [2, 1], "masks": [3, 1]},
        **{"borrowed": [1, 1], "moved": [1, 1], "most": [3, 1]},
    }
