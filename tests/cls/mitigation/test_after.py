"""Each mitigation on a small problem that is biased on purpose, where its effect is known."""

from __future__ import annotations

import pytest

from support.biased_cohort import ALL, Sick, study, worst
from support.fake_cohort import FakeCohort


def test_the_problem_is_biased(plain):
    test = plain[plain.split == "test"]
    assert worst(plain) < 0.6 < 0.7 < (test.predicted == test.label).mean()
    found = (test.predicted == test.label).groupby(test.group).mean()
    assert max(found["F/hf"], found["M/healthy"]) + 0.2 < min(found["F/healthy"], found["M/hf"])


@pytest.mark.parametrize(
    ("name", "eta"),
    [
        ("oversample", None),
        ("reweight", None),
        ("groupdro", 0.1),
        ("domain_independent", None),
        ("last_layer", None),
    ],
)
def test_the_worst_group_gains(root, plain, name, eta):
    table = study(root, name, steps=150, eta=eta)
    assert worst(table) > worst(plain) + 0.15
    assert ((table.probability > 0.5) == table.predicted).all()


@pytest.mark.parametrize("synthetic", [0, 36, "only"])
@pytest.mark.parametrize("name", ALL)
def test_every_mitigation_goes_with_every_arm(root, made, name, synthetic):
    if name == "oversample_matched" and synthetic != 36:
        pytest.skip("has no meaning, see above")
    table = study(
        root, name, steps=2, cohort=FakeCohort(), synthetic=synthetic, synthetic_set=made.folder
    )
    assert (
        table.probability.between(0, 1).all()
        and set(table.predicted) <= {0, 1}
        and set(table.disease) == {"hf"}
    )


@pytest.mark.parametrize(
    "name", ["none", "groupdro", "domain_independent", "last_layer", "thresholds"]
)
def test_several_diseases_are_predicted_side_by_side(root, name):
    table = study(root, name, steps=3, cohort=Sick(), labels=["hf", "mi"])
    hf, mi = (table[table.disease == disease].reset_index(drop=True) for disease in ("hf", "mi"))
    assert (
        len(hf) == len(mi) == 80
        and hf.subject.equals(mi.subject)
        and not hf.probability.equals(mi.probability)
    )
    assert (hf.label == hf.group.str.endswith("/hf")).all()
    assert (mi.label == (mi.subject.str[3:].astype(int) % 3 == 0)).all()
