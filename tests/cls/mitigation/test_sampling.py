from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chisquare

from cmrcls.arms import Arms
from cmrcls.draws import Draws
from cmrcls.mitigation.sampling import GroupBalanced, Matched, Uniform, matched_rows
from support.biased_cohort import arm
from support.fake_cohort import FakeCohort


def drawn(arms: Arms, *, epoch: int = 0) -> pd.DataFrame:
    sampler = arms.train_dataloader().sampler
    sampler.set_epoch(epoch)
    train = arms.index[arms.index.split == "train"]
    return train.iloc[list(sampler)]


def test_balanced_draws_are_balanced_and_as_many(root):
    arms = arm(root, sampling=GroupBalanced(), images_per_epoch=4000)
    rows = drawn(arms)
    assert len(rows) == 4000
    assert chisquare(rows.group.value_counts()).pvalue > 0.001 and rows.group.nunique() == 4
    assert chisquare(rows.label.value_counts()).pvalue > 0.001
    unbalanced = drawn(arm(root, images_per_epoch=4000))
    assert chisquare(unbalanced.group.value_counts()).pvalue < 1e-6
    assert (
        len(arm(root, sampling=GroupBalanced()).train_dataloader().sampler)
        == 440
        == len(arm(root).index.query("split=='train'"))
    )


@pytest.mark.parametrize("sampling", [Uniform(), GroupBalanced()])
def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(root, sampling):
    first = [drawn(arms := arm(root, sampling=sampling), epoch=0).index, drawn(arms, epoch=1).index]
    assert drawn(arm(root, sampling=sampling), epoch=1).index.equals(first[1]) and not first[
        0
    ].equals(first[1])
    assert not drawn(arm(root, sampling=sampling, seed=1)).index.equals(first[0])


@pytest.mark.parametrize("sampling", [Uniform(), GroupBalanced()])
def test_processes_divide_one_order(root, sampling, monkeypatch):
    images = arm(root, sampling=sampling).train_dataloader().dataset
    chances = (
        np.arange(1, len(images) + 1) / len(images) if isinstance(sampling, GroupBalanced) else None
    )
    whole = list(Draws(images, count=101, seed=0, chances=chances))
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("torch.distributed.get_rank", lambda rank=rank: rank)
        parts.append(list(sampler := Draws(images, count=101, seed=0, chances=chances)))
        assert len(sampler) == len(parts[-1]) == 51
    together = [k for pair in zip(*parts, strict=True) for k in pair]
    assert together == [*whole, whole[0]]


def test_matched_arms_draw_real_images_of_the_same_groups(root, made):
    options = {"cohort": FakeCohort(), "synthetic": 50, "synthetic_set": made.folder}
    real, synthetic = arm(root, cohort=FakeCohort()).index, arm(root, **options)
    arms = arm(root, sampling=Matched(), **options)
    assert arms.index.real.all() and len(arms.index) == len(synthetic.index)
    more = arms.index.iloc[len(real) :]
    pd.testing.assert_frame_equal(arms.index.iloc[: len(real)], real)
    assert (more.split == "train").all() and set(more.stored) <= set(
        real.stored[real.split == "train"]
    )
    wanted = synthetic.index[~synthetic.index.real].group.value_counts()
    pd.testing.assert_series_equal(more.group.value_counts().sort_index(), wanted.sort_index())
    assert arms.synthetic_fingerprint == synthetic.synthetic_fingerprint == made.fingerprint
    assert len(arms.train_dataloader().sampler) == len(synthetic.train_dataloader().sampler)
    again = arm(root, sampling=Matched(), **options).index
    pd.testing.assert_frame_equal(arms.index, again)
    assert not arm(root, sampling=Matched(), seed=1, **options).index.equals(again)


def test_matched_arms_need_a_number(root, made):
    for synthetic in (0, "only"):
        with pytest.raises(
            ValueError, match=f"synthetic={synthetic} with mitigation=oversample_matched"
        ):
            Arms(
                cohort=FakeCohort(),
                root=root,
                synthetic=synthetic,
                synthetic_set=made.folder,
                sampling=Matched(),
            )


def test_matched_groups_without_preferred_rows_take_others_and_without_any_are_named():
    train = pd.DataFrame({"group": list("aaabb")}, index=[3, 5, 6, 8, 9])
    preferred = pd.Series(False, index=range(12))
    preferred[[3, 5]] = True
    with pytest.warns(
        UserWarning, match=r"no real training image of c \(2\); as many are left out"
    ):
        rows = matched_rows(pd.Series(list("aaaaabbbcc")), train, preferred=preferred, seed=0)
    assert np.bincount(rows, minlength=10)[[3, 5]].tolist() in ([2, 3], [3, 2])
    assert sorted(np.bincount(rows, minlength=10)[[8, 9]]) == [1, 2] and len(rows) == 8


def test_budget_by_steps_gives_every_arm_the_real_arms_steps(root, made):
    def steps(**options) -> int:
        return len(
            arm(
                root, cohort=FakeCohort(), synthetic_set=made.folder, batch_size=8, **options
            ).train_dataloader()
        )

    arms = (
        {},
        {"synthetic": 36},
        {"synthetic": "only"},
        {"synthetic": 36, "sampling": GroupBalanced()},
        {"synthetic": 36, "sampling": Matched()},
    )
    real = steps()
    assert {steps(budget="steps", **options) for options in arms} == {real}
    by_pass = [steps(**options) for options in arms]
    assert by_pass[1] == by_pass[3] == by_pass[4] > real > by_pass[2] == 9
    assert {steps(budget="steps", images_per_epoch=80, **options) for options in arms} == {10}
