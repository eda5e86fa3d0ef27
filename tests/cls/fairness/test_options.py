"""Settings that no interval or threshold can be made of are refused before anything is read."""

from __future__ import annotations

import pytest

from cmrcls.fairness.options import Options, check_draws, check_specificity


def test_the_usual_options_pass_and_each_wrong_one_is_refused_by_its_name():
    Options().check()
    Options(resamples=40, permutations=40, specificity=0.99).check()
    for setting, value in {"resamples": 39, "permutations": 0, "specificity": 1}.items():
        with pytest.raises(ValueError, match=f"^{setting}={value}: it takes"):
            Options(**{setting: value}).check()


def test_too_few_draws_are_refused_by_the_setting():
    check_draws(resamples=40, permutations=2000)
    for value in (0, -1, 39, 1.5, None):
        with pytest.raises(
            ValueError, match=f"permutations={value}: it takes a whole number of 40 or more"
        ):
            check_draws(resamples=2000, permutations=value)


def test_a_specificity_that_is_no_share_is_refused():
    for value in (0, 1, 90, None):
        with pytest.raises(
            ValueError, match=f"specificity={value}: it takes a share between 0 and 1"
        ):
            check_specificity(value)
