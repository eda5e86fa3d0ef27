"""Nobody is copied thousands of times: caps on training draws and plans, exact, balanced otherwise,
and told beforehand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cmrdata.axes import AXES
from cmrdata.subjects import balancing_weights, whole
from cmrgen.plan import recipes
from cmrgen.plan.groups import possible_groups
from cmrgen.plan.mask_moves import LIMITS, STILL
from cmrgen.plan.recipes import PER_MASK, PER_PERSON
from cmrgen.plan.repeats import LACKING, draws_by_group, draws_text, per_person, plan_text
from cmrgen.plan.rows import Plan, is_moved, mask_numbers, summary
from cmrgen.tasks import tell_draws
from cmrgen.training.latents import EvenDraws, Latents
from cmrstudy.continuing import Place
from cmrstudy.experiment import Experiment
from support import ROOT
from support.fake_index import (
    PLANS,
    balanced,
    check,
    copy,
    random_prompt,
)

few = settings(max_examples=4, deadline=None)


def sized(sizes: list[int], *, lacking: int = 0) -> pd.DataFrame:
    """A group a, b, ... of each size, and rows that know no BMI where the others do."""
    groups = np.repeat(list("abcdefgh")[: len(sizes)], sizes)
    table = pd.DataFrame({"group": groups, **dict.fromkeys(AXES, "known")})
    table = pd.concat(
        [table, table.head(1).loc[[0] * lacking].assign(bmi_band=None, group="z")],
        ignore_index=True,
    )
    return table.assign(subject=[f"SYN{k:04d}" for k in range(len(table))], diagnosis="hf")


# training


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.sampled_from([1, 1.0, 1.3, 2, 3.5, 20, 1000.0]),
    st.integers(0, 5),
)
def test_no_row_weighs_more_than_the_cap_and_groups_stay_as_even_as_it_allows(sizes, cap, unknown):
    table = sized(sizes, lacking=unknown)
    free, capped = balancing_weights(table), balancing_weights(table, max_repeats=cap)
    n, full = len(table), whole(table).to_numpy()
    assert capped.sum() == pytest.approx(1) and (capped > 0).all()
    assert capped.max() * n <= cap * (1 + 1e-9)
    np.testing.assert_allclose(capped[~full] * n, 1)
    if free.max() * n <= cap:
        assert (capped == free).all()
    mass = pd.Series(capped)[full].groupby(table.group[full]).sum()
    limit = table.group[full].value_counts() * cap / n
    at_limit = np.isclose(mass, limit.reindex(mass.index))
    # whoever may weigh more weighs as much as anybody
    assert np.allclose(mass[~at_limit], mass.max())
    assert (mass[at_limit] <= mass.max() * (1 + 1e-9)).all()


def test_a_cap_of_one_draws_everyone_alike_and_one_below_is_refused():
    table = sized([1, 2, 30])
    np.testing.assert_allclose(balancing_weights(table, max_repeats=1), 1 / 33)
    for cap in (0.99, 0, -3, float("nan"), "many", True):
        with pytest.raises(
            ValueError, match=f"max_repeats={cap}: give a number of at least 1.*null"
        ):
            balancing_weights(table, max_repeats=cap)


def test_draws_keep_the_cap_and_go_on_anywhere(train):
    rare = train[
        (train.group != "F/70+/obese/hf")
        | (train.subject == train.subject[train.group == "F/70+/obese/hf"].min())
    ]
    options = {"draws": 40_000, "seed": 3, "max_repeats": 2.0}
    sampler = EvenDraws(rare, **options)
    sampler.set_epoch(2)
    order = list(sampler)
    drawn = np.bincount(order, minlength=len(rare)) * len(rare) / len(order)  # in a pass
    one = np.array(rare.group == "F/70+/obese/hf")
    assert one.sum() == 9 and drawn[one].mean() == pytest.approx(2.0, rel=0.1)
    assert EvenDraws(rare, draws=9, seed=3).weights[one].sum() == pytest.approx(
        1 / rare.group.nunique()
    )
    again = EvenDraws(rare, **options, begin=Place(2, 100), batch_size=16)
    assert list(again) == order[1600:]
    uncapped, former = (
        EvenDraws(rare, draws=50, seed=3, max_repeats=None),
        EvenDraws(rare, draws=50, seed=3),
    )
    assert torch.equal(uncapped.weights, former.weights) and list(uncapped) == list(former)


def test_the_table_of_draws_is_what_is_drawn():
    table = sized([1, 4, 45], lacking=10)
    table["diagnosis"] = np.where(table.group == "c", "healthy", "hf")
    groups = draws_by_group(table, max_repeats=5).set_index("group")
    assert groups.index.tolist() == ["a", "b", LACKING, "c"]
    assert (
        groups.subjects.to_dict()
        == groups.images.to_dict()
        == {"a": 1, "b": 4, "c": 45, LACKING: 10}
    )
    np.testing.assert_allclose(
        groups.uncapped[["a", "b", LACKING, "c"]], [50 / 3, 50 / 12, 1, 50 / 135]
    )
    np.testing.assert_allclose(groups.draws[["a", "b", LACKING, "c"]], [5, 5, 1, 25 / 45])
    np.testing.assert_allclose(groups.share[["a", "b", "c"]], [0.3, 1.2, 1.5])
    assert (groups.images * groups.draws).sum() == pytest.approx(60) and np.isnan(
        groups.share[LACKING]
    )
    text = draws_text(table, max_repeats=5)
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines()[2:4]}
    assert lines["a"] == ["1", "1", "5.0", "16.7", "0.30"]
    assert "at most 5 (data.max_repeats" in text and LACKING in text
    # 10 of 60 draws know no BMI
    assert "healthy 42 % (uncapped 28 %), hf 58 % (uncapped 72 %)" in text


@pytest.mark.parametrize("cap", [20, None])
def test_where_no_cap_binds_one_line_says_so(cap):
    text = draws_text(sized([1, 2, 3]), max_repeats=cap)
    assert text.startswith(
        "draws: 3 groups equally often; an image of a (1 person) 2.0 times in a pass of 6 draws"
    )
    assert f"data.max_repeats={cap or 'null'}" in text and "\n" not in text


def test_draws_are_told_and_kept_before_training_by_the_first_process_alone(
    tmp_path, capsys, monkeypatch
):
    cfg = OmegaConf.create({"data": {"max_repeats": 2}, "trainer": {"devices": 2, "num_nodes": 1}})
    monkeypatch.setenv("LOCAL_RANK", "1")
    run = Experiment(cfg, tmp_path, build=instantiate)
    tell_draws(run, sized([1, 30]))
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out
    monkeypatch.delenv("LOCAL_RANK")
    tell_draws(run, sized([1, 30]))
    kept = pd.read_csv(tmp_path / "draws.csv").set_index("group")
    assert kept.draws["a"] == pytest.approx(2) and kept.uncapped["a"] == pytest.approx(15.5)
    assert "at most 2" in capsys.readouterr().out


def test_settings_say_what_the_classes_default_to():
    for name in ("base", "controlnet"):
        config = yaml.safe_load((ROOT / "conf" / "experiment" / f"{name}.yaml").read_text())
        assert config["data"]["max_repeats"] == 20
    assert Latents.__init__.__kwdefaults__["max_repeats"] == 20


# plans


def evenly(plan: pd.DataFrame, groups: list[str]) -> np.ndarray:
    """For every prefix, the difference between the groups with most and fewest images."""
    seen = np.cumsum([plan.group == group for group in groups], axis=1)
    return seen.max(0) - seen.min(0)


@few
@given(count=st.integers(1, 160), seed=st.integers(0, 99), most=st.integers(1, 12))
@pytest.mark.parametrize(
    "plan_of",
    [
        balanced,
        partial(balanced, missing="borrow"),
        partial(balanced, thin="borrow", missing="borrow"),
        copy,
        random_prompt,
    ],
)
def test_nobody_gives_more_than_the_cap_and_a_longer_plan_begins_with_the_shorter(
    lacking, plan_of, count, seed, most
):
    try:
        plan = plan_of(lacking, count=count, seed=seed, per_person=most)
    except ValueError as error:  # more than everyone together may give
        assert f"plan.per_person={most}" in str(error) and count > most * 20
        return
    assert len(plan) == count and plan.subject.value_counts().max() <= most
    short = plan_of(lacking, count=max(1, count // 2), seed=seed, per_person=most)
    assert short.to_csv(index=False) == plan.head(len(short)).to_csv(index=False)


@pytest.mark.parametrize(("plan_of", "most"), [(copy, 2), (random_prompt, 4)])
def test_who_replaces_whom_depends_on_the_seed_alone(index, plan_of, most):
    plan, free = (plan_of(index, count=300, seed=3, per_person=cap) for cap in (most, None))
    assert (
        plan.source_row != free.source_row
    ).sum() > 10 and plan.subject.value_counts().max() == most
    assert plan.diagnosis.tolist() == free.diagnosis.tolist() or plan_of is copy
    for count in (300, 250):
        again = plan_of(index, count=count, seed=3, per_person=most)
        assert again.to_csv(index=False) == plan.head(count).to_csv(index=False)


@pytest.mark.parametrize("name", ["balanced", "borrow", "copy", "random_prompt"])
def test_without_caps_a_plan_is_as_ever_and_caps_that_bind_nothing_change_nothing(
    index, subjects, name
):
    count = 400
    free = PLANS[name](index, count=count, per_person=None, per_mask=None)
    pd.testing.assert_frame_equal(
        free, PLANS[name](index, count=count, per_person=count, per_mask=count)
    )
    check(free, subjects, index)
    assert not is_moved(free).any()


def test_thin_groups_stay_small_and_all_others_even(index, train):
    plan, _, thin, _ = recipes.balanced(index, count=600, per_person=5)
    people = train.groupby("group").subject.nunique()
    images = plan.group.value_counts()
    assert 0 < len(thin) < len(people) and images[thin].to_dict() == (5 * people[thin]).to_dict()
    rest = sorted(set(people.index) - set(thin))
    assert (evenly(plan, rest) <= 1).all()
    for group in thin:  # as even as the others until its people have given all
        until = np.flatnonzero(plan.group == group)[-1]
        assert (evenly(plan.head(until), [group, *rest]) <= 1).all()


@pytest.mark.parametrize("per_mask", [1, None])
def test_thin_groups_are_filled_with_moved_masks_of_their_own(index, subjects, per_mask):
    made = recipes.balanced(index, count=900, per_person=5, thin="move", per_mask=per_mask)
    plan = made.rows
    check(plan, subjects, index)
    assert (
        (evenly(plan, sorted(set(plan.group))) <= 1).all()
        and (plan.borrowed == "").all()
        and made.thin
    )
    beyond = plan.groupby("subject").cumcount() >= 5
    assert beyond.any() and is_moved(plan)[beyond].all()
    if per_mask is None:
        assert not is_moved(plan)[~beyond].any()


def test_thin_groups_are_filled_with_the_nearest_groups_masks(index, subjects):
    plan, _, thin, _ = recipes.balanced(index, count=500, per_person=6, thin="borrow")
    check(plan, subjects, index)
    assert (
        evenly(plan, sorted(set(plan.group))) <= 1
    ).all() and plan.subject.value_counts().max() == 6
    lent = plan.borrowed != ""
    assert lent.any() and set(plan.group[lent]) <= set(thin)
    assert (plan.borrowed[lent].str.split("/").str[-1] == plan.diagnosis[lent]).all()
    more = balanced(index, count=900, per_person=6, thin="borrow")  # more than the ill may give
    assert (
        more.borrowed[more.borrowed != ""].str.split("/").str[-1]
        == more.diagnosis[more.borrowed != ""]
    ).all()
    ill = index.subject[(index.split == "train") & (index.diagnosis == "hf")].nunique()
    assert (more.diagnosis == "hf").sum() == 6 * ill and more.subject.value_counts().max() == 6


@pytest.mark.parametrize("name", ["balanced", "copy", "random_prompt"])
@pytest.mark.parametrize("per_mask", [0, 1, 3, None])
def test_a_mask_serves_as_it_is_a_few_times_and_is_moved_afterwards(
    index, subjects, name, per_mask
):
    index = index.assign(flags=np.where(index.frame != 0, "mask_reused", ""))
    plan = PLANS[name](index, count=1200, per_person=None, per_mask=per_mask)
    check(plan, subjects, index)
    mask, moved = mask_numbers(index, plan.source_row), is_moved(plan)
    use = mask.groupby(mask).cumcount()
    assert use.max() > 3
    expected = np.zeros(len(plan), bool) if per_mask is None else (use >= per_mask).to_numpy()
    assert (moved.to_numpy() == expected).all()
    assert all(plan[column].between(*LIMITS[column]).all() for column in STILL)
    still = PLANS[name](index, count=1200, per_person=None, per_mask=None)
    same = [column for column in plan if column not in STILL]
    pd.testing.assert_frame_equal(plan[same], still[same])


@pytest.mark.parametrize(
    ("plan_of", "options", "words"),
    [
        (
            balanced,
            {"per_person": 1},
            "plan.count=900: the 1.. training subjects may give 1.. images at plan.per_person=1;",
        ),
        (balanced, {"per_person": 1, "thin": "borrow"}, "may give 1.. images"),
        (
            copy,
            {"per_person": 4},
            "may give [67].. images at plan.per_person=4; .*plan.per_person=null",
        ),
        (random_prompt, {"per_person": 4}, "training subjects of diagnosis hf may give"),
        (
            balanced,
            {"per_person": 0},
            "plan.per_person=0: give a whole number of at least 1, or null",
        ),
        (copy, {"per_person": True}, "plan.per_person=True: give a whole number"),
        (copy, {"per_person": 2.5}, "plan.per_person=2.5: give a whole number"),
        (random_prompt, {"per_mask": -1}, "plan.per_mask=-1: give a whole number .*null"),
        (balanced, {"thin": "fat"}, "plan.thin=fat is unknown; choose one of less, borrow, move"),
    ],
)
def test_what_nobody_can_give_is_refused_before_anything_is_drawn(index, plan_of, options, words):
    with pytest.raises(ValueError, match=words):
        plan_of(index, count=900, **options)


def test_the_plan_is_told_group_by_group(index):
    plan = recipes.balanced(index, count=600, per_person=5)
    counts = summary(plan.rows, index)
    text = plan_text(counts, plan, {"per_person": 5, "per_mask": 1, "thin": "less"})
    lines = [line.split() for line in text.splitlines()]
    assert ["group", "images", "people", "masks", "moved", "most", "of", "one", "person"] in lines
    for row in counts.itertuples():
        share = f"{100 * row.moved / row.images:.0f}"
        told = [
            row.group,
            str(row.images),
            str(row.subjects),
            str(row.masks),
            share,
            "%",
            str(row.most),
        ]
        assert told in lines and row.most <= 5
    assert "at most 5" in text and "(plan.per_person=5, plan.per_mask=1)" in text
    thin = plan.thin
    assert (
        f"{len(thin)} groups, whose people have given as many images as they may, have fewer"
        in text
    )
    assert all(f"{group} ({counts.set_index('group').images[group]})" in text for group in thin)
    assert "plan.thin=borrow" in text and "plan.thin=move" in text
    for thin in ("borrow", "move"):
        plan = recipes.balanced(index, count=900, per_person=6, thin=thin, missing="borrow")
        text = plan_text(
            summary(plan.rows, index), plan, {"per_person": 6, "per_mask": 1, "thin": thin}
        )
        assert f"(plan.thin={thin})" in text
    assert "borrowed" in text and set(plan.rows.group) == possible_groups(index)


def test_a_plan_of_ones_own_is_told_too(index):
    plan = PLANS["sweep"](index)
    three = balanced(index, count=6, per_mask=0).assign(
        subject=["SYN0001", "SYN0002", *["SYN0003"] * 4]
    )
    assert (
        per_person(three)
        == "images of one person: median 1, at most 4; 100 % of the masks are moved"
    )
    told = (
        f"images of one person: median {len(plan)}, at most {len(plan)}; 0 % of the masks are moved"
    )
    assert (
        per_person(plan) == told
        and told in plan_text(summary(plan, index), Plan(plan), {}).splitlines()
    )


def test_default_plans_are_capped():
    for name in ("balanced", "copy", "random_prompt"):
        config = yaml.safe_load((ROOT / "conf" / "plan" / f"{name}.yaml").read_text())
        assert (config["per_person"], config["per_mask"]) == (PER_PERSON, PER_MASK)
