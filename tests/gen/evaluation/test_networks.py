"""The evaluation networks: shapes, losses by hand, and batches in which a mask moves with its image."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import judges, networks
from support.fake_cohort import FakeCohort
from support.judged_images import people


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=72), tmp_path_factory.mktemp("store"))


def test_rows_without_a_value_are_masked() -> None:
    table = people(4)
    table.loc[1, "sex"] = None
    assert networks.head_codes(table, "sex").tolist() == [0, -1, 1, 1] and networks.head_codes(
        table, "diagnosis"
    ).tolist() == [
        0,
        1,
        0,
        1,
    ]
    network = networks.AttributeNet(["sex"], 8)
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 16, 16)).astype(np.uint8)
    table.loc[:, "sex"] = None
    assert networks.attributes_loss(network, images, images, table).item() == 0


@pytest.mark.parametrize(
    ("pixels", "side"), [(8, 16), (16, 16), (31, 16), (32, 32), (128, 128), (129, 128), (224, 128)]
)
def test_networks_work_at_a_multiple_of_sixteen_up_to_the_largest(pixels: int, side: int) -> None:
    x = torch.rand(1, 2, pixels, pixels)
    sized = networks.resized(x)
    assert sized.shape == (1, 2, side, side) and (sized is x) == (pixels == side)
    with torch.no_grad():
        assert networks.Segmenter(4).eval()(x[:, :1]).shape == (1, 4, pixels, pixels)
        assert networks.AttributeNet(["sex"], 4).eval().features(x).shape == (1, networks.FEATURES)


def test_heads_have_an_output_per_band() -> None:
    logits = networks.AttributeNet(["sex", "age_band", "diagnosis"], 4)(torch.zeros(3, 2, 16, 16))
    assert {axis: x.shape for axis, x in logits.items()} == {
        "sex": (3, 2),
        "age_band": (3, 3),
        "diagnosis": (3, 2),
    }


def test_black_is_minus_one_and_white_is_one() -> None:
    images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    x = networks.signed(images, "cpu")
    assert x.dtype == torch.float32 and x.flatten().tolist() == pytest.approx([-1, -0.6, 1])


def test_the_loss_of_attributes_is_a_sum_of_means_over_known_rows() -> None:
    table = people(6)
    table.loc[[1, 4], "sex"] = None
    network = networks.AttributeNet(["sex", "diagnosis"], 4).eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 16, 16)).astype(np.uint8)
    logits = network(networks.signed(images, "cpu"))
    known = [0, 2, 3, 5]
    sex = torch.tensor([0, 1, 1, 0])  # F F M M F F
    expected = F.cross_entropy(logits["sex"][known], sex) + F.cross_entropy(
        logits["diagnosis"], torch.tensor([0, 1] * 3)
    )
    loss = networks.attributes_loss(network, images, images, table)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


class Sure(torch.nn.Module):
    """Says the labels of `wanted` with certainty, whatever it is shown."""

    def __init__(self, wanted: torch.Tensor) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))
        self.wanted = wanted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return self.scale * F.one_hot(self.wanted, 4).movedim(-1, 1).float()


def test_the_segmenters_loss_takes_ed_and_es_in_turn_and_all_three_structures() -> None:
    masks = np.random.default_rng(0).integers(0, 4, (4, 2, 16, 16)).astype(np.uint8)
    images = np.random.default_rng(1).integers(0, 256, (4, 2, 16, 16)).astype(np.uint8)
    in_turn = torch.from_numpy(masks[np.arange(4), [0, 1, 0, 1]].astype(np.int64))
    right = Sure(in_turn)
    assert networks.segmenter_loss(right, images, masks, people(4)).item() == pytest.approx(0)
    wanted = networks.signed(images[np.arange(4), [0, 1, 0, 1]][:, None], "cpu")
    assert torch.equal(right.seen, wanted)
    # the RV called MYO: cross-entropy of 50 there; Dice is 1 for LV, less for MYO, 0 for RV
    wrong = torch.where(in_turn == 3, torch.tensor(2), in_turn)
    rv, myo = float((in_turn == 3).sum()), float((in_turn == 2).sum())
    dice = (1 + 2 * myo / (2 * myo + rv) + 0) / 3
    loss = networks.segmenter_loss(Sure(wrong), images, masks, people(4)).item()
    assert loss == pytest.approx(50 * rv / in_turn.numel() + 1 - dice, rel=1e-4)


def test_an_augmented_mask_moves_with_its_image_and_groups_weigh_equally(store: Store) -> None:
    rows = store.index[store.index.split == "train"]
    batches = [*islice(networks.augmented_batches(store, rows, size=60, seed=0), 6)]
    again = next(networks.augmented_batches(store, rows, size=60, seed=0))
    assert np.array_equal(batches[0][0], again[0]) and not np.array_equal(
        batches[0][0], batches[1][0]
    )
    for images, masks, chosen in batches:
        assert images.shape == masks.shape == (60, 2, 16, 16) and images.dtype == np.uint8
        own = store.masks[chosen.index.to_numpy()]
        moved = (masks != own).any((1, 2, 3))
        assert moved.mean() > 0.5 and set(chosen.split) == {"train"}
        # the fake heart is brighter than 150 in its LV and darker than 60 around it
        assert (images[masks == 1] > 100).mean() > 0.99 and (images[masks == 0] < 100).mean() > 0.99
    groups = np.concatenate([chosen.group for _, _, chosen in batches])
    counts = np.unique(groups, return_counts=True)[1]
    assert len(counts) == rows.group.nunique() and counts.min() > 0.3 * counts.mean()


def test_a_network_is_trained_for_as_many_steps_and_left_training() -> None:
    network, asked = torch.nn.Linear(2, 1).eval(), []
    torch.nn.init.constant_(network.weight, 2)
    start = network(torch.ones(1, 2)).item()

    def loss(_: torch.nn.Module, images: np.ndarray, *__: object) -> torch.Tensor:
        asked.append(float(images))
        return ((network(torch.ones(1, 2)) - 1) ** 2).sum()

    batches = iter([(np.float32(k), None, None) for k in range(200)])
    networks.fit_network(network, loss, batches, steps=150, name="line")  # type: ignore[arg-type]
    assert asked == [*range(150)] and network.training
    # the rates of one cycle sum up to about 0.3
    assert 0.1 < start - network(torch.ones(1, 2)).item() < 1


class Answers(nn.Module):
    """Says the same of whatever it is shown, and remembers that."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(1)), answer
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Any:
        self.shown.append(x)
        return self.answer


def test_the_segmenters_loss_is_cross_entropy_and_soft_dice_by_hand():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 4, 8, 8), generator=generator)
    masks = torch.randint(0, 4, (3, 2, 8, 8), generator=generator).byte().numpy()
    images = torch.randint(0, 256, (3, 2, 8, 8), generator=generator).byte().numpy()
    network = Answers(logits)
    loss = networks.segmenter_loss(network, images, masks, pd.DataFrame())
    # ED of the first and third image, ES of the second
    chosen = np.stack([masks[0, 0], masks[1, 1], masks[2, 0]]).astype(int)
    shown = np.stack([images[0, 0], images[1, 1], images[2, 0]])[:, None]
    assert np.allclose(network.shown[0].numpy(), shown / 127.5 - 1, atol=1e-6)
    share = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    picked = np.take_along_axis(share, chosen[:, None], 1)
    dice = [
        2
        * share[:, label][chosen == label].sum()
        / (share[:, label].sum() + (chosen == label).sum())
        for label in (1, 2, 3)
    ]  # Milletari et al. 2016 without squares, over the batch
    assert loss.item() == pytest.approx(-np.log(picked).mean() + 1 - np.mean(dice), rel=1e-4)


def test_a_structure_that_is_nowhere_costs_nothing_undefined():
    logits = torch.full((1, 4, 4, 4), -50.0)
    logits[:, 0] = 50
    empty = np.zeros((1, 2, 4, 4), np.uint8)
    assert networks.segmenter_loss(Answers(logits), empty, empty, pd.DataFrame()).item() == 1


def test_the_attributes_loss_is_the_mean_over_known_rows_summed_over_axes():
    table = people(6)
    table.loc[4, "sex"] = None
    logits = {
        "sex": torch.tensor([[0.0, 1.0]] * 3 + [[2.0, 0.0]] * 3),
        "diagnosis": torch.tensor([[0.0, 3.0]] * 6),
    }
    images = np.zeros((6, 2, 16, 16), np.uint8)
    loss = networks.attributes_loss(Answers(logits), images, images, table)
    known = [0, 1, 2, 3, 5]
    sex = F.cross_entropy(
        logits["sex"][known], torch.tensor([{"F": 0, "M": 1}[table.sex[k]] for k in known])
    )
    ill = F.cross_entropy(logits["diagnosis"], torch.tensor(table.label.astype(int).tolist()))
    assert loss.item() == pytest.approx((sex + ill).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("pixels", "side"), [(8, 16), (16, 16), (31, 16), (32, 32), (100, 96), (128, 128), (224, 128)]
)
def test_images_are_judged_at_a_multiple_of_16_px_and_128_at_most(pixels, side):
    x = torch.rand(1, 2, pixels, pixels)
    assert networks.resized(x).shape[-1] == side
    assert (networks.resized(x) is x) is (pixels == side)
    segmenter = networks.Segmenter(4).eval()
    assert segmenter(x[:, :1]).shape == (1, 4, pixels, pixels)


def test_the_widths_are_what_kept_weights_have():
    segmenter, attributes = networks.Segmenter(16), networks.AttributeNet(["sex", "age_band"], 16)
    assert [level[0][0].out_channels for level in segmenter.down] == [16, 32, 64, 64]
    assert [level[0][0].stride for level in segmenter.down] == [(2, 2)] * 4
    assert [level[1][0].stride for level in segmenter.down] == [(1, 1)] * 4
    assert [(level[0].in_channels, level[0].out_channels) for level in segmenter.up] == [
        (128, 64),
        (96, 32),
        (48, 16),
    ]
    trunk = [layer[0] for layer in list(attributes.trunk)[:4]]
    assert [layer.out_channels for layer in trunk] == [16, 32, 64, 128]
    assert {layer.stride for layer in trunk} == {(2, 2)}
    assert attributes.heads["age_band"].out_features == 3
    assert attributes(torch.zeros(2, 2, 16, 16))["sex"].shape == (2, 2)


def test_grey_values_are_signed():
    x = networks.signed(np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3), "cpu")
    assert x.flatten().tolist() == pytest.approx([-1, 1, -0.6])


def store_of(pixels: int, *, count: int = 8) -> Any:
    y, x = np.mgrid[:pixels, :pixels]
    masks = np.stack([np.stack([(y + k) % 4, (x + k) % 4]) for k in range(count)]).astype(np.uint8)
    return SimpleNamespace(images=(masks * 60 + 20).astype(np.uint8), masks=masks)


def test_batches_move_image_and_mask_together_and_change_grey_levels_a_little():
    store, rows = store_of(32), people(8)
    batches = networks.augmented_batches(store, rows, size=400, seed=3)
    images, masks, chosen = next(batches)
    assert images.shape == masks.shape == (400, 2, 32, 32) and images.dtype == np.uint8
    assert len(chosen) == 400 and set(chosen.index) == set(range(8))
    again = next(networks.augmented_batches(store, rows, size=400, seed=3))
    assert np.array_equal(images, again[0]) and not np.array_equal(images, next(batches)[0])
    shifts = set()
    for k in range(400):
        own = store.masks[chosen.index[k]]
        for dy, dx in ((dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)):
            at = [(np.arange(32) + d).clip(0, 31) for d in (dy, dx)]
            if np.array_equal(own[:, at[0]][:, :, at[1]], masks[k]):
                shifts.add((dy % 4, dx % 4, dy, dx))
    # to every side by at most a sixteenth; the pattern repeats after four pixels
    assert {(dy, dx) for *_, dy, dx in shifts} == {
        (dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)
    }
    grey = np.array(
        [[images[k][masks[k] == label].mean() for label in range(4)] for k in range(400)]
    )
    usual = np.array([20, 80, 140, 200])
    ends = [
        (255 * gain * (usual / 255) ** gamma).clip(0, 255)
        for gain, gamma in ((0.9, np.exp(0.15)), (1.1, np.exp(-0.15)))
    ]
    assert (grey > ends[0] - 1.5).all() and (grey < ends[1] + 1.5).all()
    assert (grey.min(0) < usual * 0.92).all() and (grey.max(0) > usual * 1.08).all()
    noise = np.array([images[k][masks[k] == 2].std() for k in range(400)])
    assert noise.min() < 0.5 and 3.5 < noise.max() < 4.5  # none to four grey levels
    phases = np.array([[images[k][p][masks[k][p] == 2].std() for p in (0, 1)] for k in range(400)])
    assert np.corrcoef(phases.T)[0, 1] > 0.9  # as much in both phases


def test_small_pictures_move_by_a_pixel():
    store = store_of(8)
    _, masks, chosen = next(networks.augmented_batches(store, people(8), size=64, seed=0))
    assert any(
        not np.array_equal(mask, store.masks[k])
        for mask, k in zip(masks, chosen.index, strict=True)
    )


def test_every_group_is_drawn_equally_often():
    rows = people(8).assign(group=["rare"] + ["frequent"] * 7)
    _, _, chosen = next(networks.augmented_batches(store_of(16), rows, size=2000, seed=0))
    assert (chosen.group == "rare").mean() == pytest.approx(0.5, abs=0.05)


def test_a_network_is_fitted_in_its_steps_by_a_rate_that_rises_and_falls():
    network, rates, asked = Answers(None), [], []

    class Watched(torch.optim.AdamW):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            assert self.defaults["weight_decay"] == 1e-2
            weight = self.param_groups[0]["params"][0]
            assert weight.grad.item() == pytest.approx(
                2 * (weight.item() - 1)
            )  # of this step alone
            return super().step(*args, **kwargs)

    def loss(of: nn.Module, *batch: Any) -> Tensor:
        asked.append((of.training, batch))
        return (of.weight - 1).square().sum()

    network.eval()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Watched)
        networks.fit_network(network, loss, iter([(k,) for k in range(100)]), steps=100, name="x")
    assert asked == [(True, (k,)) for k in range(100)]
    assert max(rates) == pytest.approx(4e-3, rel=0.01) and np.argmax(rates) == 20
    assert rates[0] == pytest.approx(4e-3 / 25) and rates[-1] < 2e-5
    assert network.weight.item() > 0.05  # towards the minimum


def judged(tmp_path: Path) -> judges.Judges:
    torch.manual_seed(0)
    segmenter, attributes = networks.Segmenter(4), networks.AttributeNet(["sex", "diagnosis"], 4)
    for network in (segmenter, attributes):
        network.eval().requires_grad_(False)
    return judges.Judges(segmenter, attributes, {})


def test_flat_pictures_show_nothing_and_one_flat_phase_leaves_the_attributes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 2, 16, 16)).astype(np.uint8)
    images[1], images[2, 1] = 7, 9
    masks = rng.integers(0, 4, (4, 2, 16, 16)).astype(np.uint8)
    look = judges.judge(judged(tmp_path), images, masks, others=masks[[1, 2, 3, 0]])
    assert look.flat.tolist() == [[False] * 2, [True] * 2, [False, True], [False] * 2]
    assert not look.areas.segmented[1].any() and not look.areas.segmented[2, 1].any()
    assert look.areas.segmented[[0, 3]].any() and look.predicted["sex"][1] is None
    assert all(look.predicted["sex"][k] in ("F", "M") for k in (0, 2, 3))
    assert all(look.predicted["diagnosis"][k] in (0, 1) for k in (0, 2, 3))
    counts = np.stack([(masks == label).sum((-1, -2)) for label in (1, 2, 3)], -1)
    assert np.array_equal(look.areas.mask, counts)
    assert look.shuffled is not None
    assert np.array_equal(look.shuffled.mask, counts[[1, 2, 3, 0]])
    assert capsys.readouterr().err == ""  # nobody asked for a bar
    alone = judges.judge(judged(tmp_path), images[2:3], masks[2:3], what="real images")
    assert capsys.readouterr().err == "judge real images: 1 image in 0:00\n"
    assert alone.shuffled is None
    assert np.allclose(alone.features[0], look.features[2], atol=1e-5)


def test_the_domain_backbone_is_known_by_its_weights(tmp_path):
    made = judged(tmp_path)
    domain = judges.domain_backbone(made)
    assert domain.sha256 == judges.domain_backbone(judged(tmp_path)).sha256
    made.attributes.heads["sex"].bias.data.add_(1)
    assert domain.sha256 != judges.domain_backbone(made).sha256 and len(domain.sha256) == 64
