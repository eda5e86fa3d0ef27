"""The evaluation networks: shapes, losses by hand, and batches in which a mask moves with its image."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import networks
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
