"""What a row of a plan says."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrgen.plan.rows import mask_numbers, summary
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
