from __future__ import annotations

import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from cmrcls.mitigation.groups import check_domains, check_mitigation, describe_groups
from cmrcls.mitigation.losses import Weighted
from cmrcls.mitigation.sampling import GroupBalanced
from support.biased_cohort import ALL, arm, people


def test_group_weights_give_every_group_equal_mass(root):
    arms = arm(root)
    facts, train = arms.groups, arms.index[arms.index.split == "train"]
    assert [fact["name"] for fact in facts] == ["F/healthy", "F/hf", "M/healthy", "M/hf"]
    assert [fact["domain"] for fact in facts] == ["F", "F", "M", "M"]
    weight = train.group.map({fact["name"]: fact["weight"] for fact in facts})
    assert weight.mean() == pytest.approx(1)
    assert weight.groupby(train.group).sum().to_numpy() == pytest.approx(110)
    balanced = arm(root, sampling=GroupBalanced()).groups
    assert [fact["weight"] for fact in balanced] == pytest.approx([1, 1, 1, 1])  # once is enough
    losses, group = (
        torch.rand(len(train)),
        torch.from_numpy(pd.factorize(train.group, sort=True)[0]),
    )
    ours = Weighted(facts)(losses, group)
    assert ours.item() == pytest.approx(
        pd.Series(losses.numpy()).groupby(group.numpy()).mean().mean(), rel=1e-5
    )


def check(name: str, index: pd.DataFrame) -> None:
    """As train.py does before it trains."""
    choice, groups = ALL[name], describe_groups(index[index.split == "train"], chances=None)
    parts = [instantiate(choice[key]) for key in ("sampling", "after")]
    parts += [instantiate(choice[key], groups=groups) for key in ("loss", "heads")]
    check_mitigation(name, parts, index=index, cohort="acdc")


@pytest.mark.parametrize(
    "name", ["groupdro", "reweight", "oversample", "domain_independent", "last_layer"]
)
def test_without_groups_a_mitigation_is_refused(name):
    for known, why in (
        ({}, "nobody's sex, age or BMI is known"),
        ({"sex": "F"}, "all training images are of one group, F"),
    ):
        with pytest.raises(
            ValueError, match=f"mitigation={name}: in cohort acdc {why}.*choose mitigation=none, or"
        ):
            check(name, people(**known))
    check(name, people(sex=["F", "M"] * 4))


def test_the_training_rows_alone_decide_whether_there_are_groups():
    index = people(sex=["F", "F", "M", "M"] * 2)
    index["split"] = ["train" if sex == "F" else "val" for sex in index.sex]
    with pytest.raises(ValueError, match="in cohort acdc all training images are of one group, F"):
        check_domains(index, cohort="acdc")
    index["split"] = ["train"] * 4 + ["val"] * 4
    check_domains(index, cohort="acdc")
    index["sex"] = ["F", "M"] + ["F"] * 6
    check_domains(index, cohort="acdc")  # whatever validation holds


@pytest.mark.parametrize("name", ["none", "oversample_matched"])
def test_what_needs_no_groups_goes_on_without(name):
    check(name, people())
