"""Halves without a common subject, and equal samples of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmrgen.evaluation.fidelity.equal_samples import half_size, halves


def test_halves_share_no_subject_and_have_the_promised_size() -> None:
    rng = np.random.default_rng(0)
    for repeat in range(20):
        subjects = pd.Series(
            [f"SYN{k:04d}" for k in np.repeat(np.arange(11), rng.integers(1, 10, 11))]
        )
        left, right = halves(np.arange(len(subjects)), subjects, np.random.default_rng(repeat))
        assert not set(subjects[left]) & set(subjects[right])
        assert sorted([*left, *right]) == list(range(len(subjects)))
        assert min(len(left), len(right)) >= half_size(subjects) > 0
