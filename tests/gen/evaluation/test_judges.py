"""The judges learn, are kept and are seeded; their layers give a distance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation import judges, networks
from cmrgen.evaluation.adherence.scores import (
    JudgedImages,
    adherence_detail,
    adherence_table,
    derangement,
)
from support.fake_cohort import FakeCohort, fake_set
from support.judged_images import people


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, much slower when other programs want the
    second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=180), tmp_path_factory.mktemp("store"))


def test_judges_learn_the_fake_hearts_and_are_kept(store: Store, tmp_path: Path) -> None:
    wanted = {"steps": (80, 40), "width": (8, 8)}
    made = judges.trained_judges(store, tmp_path, **wanted)
    held = np.flatnonzero(store.index.split.isin(["val", "test"]))
    synthetic = fake_set(tmp_path / "set", store, count=72)
    others = derangement(72, seed=0)
    looks = [
        judges.judge(made, store.images[held], store.masks[held]),
        judges.judge(made, synthetic.images, synthetic.masks, others=synthetic.masks[others]),
    ]
    real, fake = (
        JudgedImages(index, look.areas, look.predicted, look.flat, others, look.shuffled)
        for look, index in zip(looks, (store.index.iloc[held], synthetic.index), strict=True)
    )
    rows = adherence_table(real, fake).table.set_index("metric")
    assert rows.real["dice"] > 0.5 and rows.synthetic["diagnosis_accuracy"] > 0.8
    assert (rows.shuffled < rows.synthetic)[["dice", "diagnosis_accuracy"]].all()
    detail = adherence_detail(real, fake).set_index(["structure", "phase"])
    # the only structure of a fake heart that is brighter than its surroundings
    assert detail.real["LV", "ED"] > 0.8
    assert (
        looks[0].features.shape == (len(held), networks.FEATURES)
        and np.isfinite(looks[0].features).all()
    )

    assert (
        sorted(p.suffix for p in tmp_path.iterdir() if p.is_file())
        == [".json"] * 2 + [".safetensors"] * 2
    )
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()}
    again = judges.trained_judges(store, tmp_path, **wanted)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()} == before
    assert again.card == made.card
    assert np.array_equal(
        judges.domain_backbone(again).extract(store.images[held]), looks[0].features
    )


def test_judges_are_seeded_and_leave_the_global_generator_alone(
    store: Store, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    first, second, other = (
        judges.trained_judges(store, tmp_path / str(k), steps=(2, 2), width=(8, 8), seed=seed)
        for k, seed in enumerate((0, 0, 1))
    )
    assert torch.equal(torch.get_rng_state(), state)
    looks = [
        judges.domain_backbone(made).extract(store.images[:4]) for made in (first, second, other)
    ]
    assert np.allclose(looks[0], looks[1], atol=1e-5) and not np.allclose(
        looks[0], looks[2], atol=1e-5
    )


def test_heads_are_absent_for_unknown_axes_and_missing_rows_are_masked(tmp_path: Path) -> None:
    made = judges.trained_judges(
        prepare(FakeCohort(count=72, unknown=("sex",)), tmp_path),
        tmp_path,
        steps=(1, 1),
        width=(8, 8),
    )
    assert list(made.attributes.heads) == ["age_band", "bmi_band", "diagnosis"]
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


def test_judges_refuse_a_store_without_training_rows(store: Store, tmp_path: Path) -> None:
    bare = Store(store.folder)
    bare.__dict__["index"] = store.index[store.index.split == "test"]
    with pytest.raises(ValueError, match="no row of the train split"):
        judges.trained_judges(bare, tmp_path)


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> judges.Judges:
    return judges.trained_judges(
        store, tmp_path_factory.mktemp("judges"), steps=(30, 20), width=(8, 8)
    )


def test_layers_give_a_distance(store: Store, trained: judges.Judges) -> None:
    vectors = judges.perceptual_layers(
        trained, np.concatenate([store.images[:3], store.images[:1], store.images[:1] // 2])
    )
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(-1).numpy()
    assert (
        apart[0, 3] == pytest.approx(0, abs=1e-6)
        and (apart[0, 1:3] > 0.01).all()
        and np.allclose(apart, apart.T)
    )
    x = networks.resized(networks.signed(store.images[:1], vectors.device))
    first = trained.attributes.trunk[0](x)[0]
    # a layer by hand: unit over channels
    unit = (first / first.norm(dim=0, keepdim=True).clamp(min=1e-12)).flatten(1)
    assert float((vectors[0, : unit.numel()] ** 2).sum()) == pytest.approx(
        float((unit**2).sum(0).mean()), rel=1e-4
    )
