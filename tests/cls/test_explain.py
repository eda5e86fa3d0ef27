from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from omegaconf import OmegaConf
from scipy import stats
from torch import nn

from cmrcls import explain as explaining
from cmrcls.arms import Arms
from cmrcls.classifier import Classifier
from cmrcls.explain import (
    PLACES,
    WHERE,
    Explained,
    as_judge,
    at_size,
    by_subgroup,
    chosen,
    explain,
    grad_cam,
    last_map,
    pictured,
    shares,
)
from cmrcls.network import build_network
from cmrdata.batch import LV, MYO, RV
from cmrdata.prepare import prepare
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(FakeCohort(), folder)
    return folder


def arm(root: Path, **options) -> Arms:
    arms = Arms(**{"cohort": FakeCohort(), "root": root, "batch_size": 32, **options})
    arms.setup()
    return arms


def around(network: nn.Module, **options) -> Classifier:
    model = Classifier(pixels=16, **options)
    model.network = network
    return model


def bright_means(label: int) -> Classifier:
    """The more bright pixels, the surer of `label`, whatever the image: its evidence is where the
    square is."""
    convolution, head = nn.Conv2d(3, 1, 1), nn.Linear(1, 2)
    nn.init.zeros_(convolution.weight)
    convolution.weight.data[0, 0] = 1.0  # of channel ED
    # squares reach 0.35 or more, the background stays below -1
    nn.init.constant_(convolution.bias, -0.3)
    head.weight.data = torch.tensor([[0.0], [1.0]] if label else [[1.0], [0.0]])
    nn.init.zeros_(head.bias)
    return around(
        nn.Sequential(convolution, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    )


def a_batch(n: int = 6, pixels: int = 16) -> dict[str, torch.Tensor]:
    images = torch.randint(
        0,
        256,
        (n, 2, pixels, pixels),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    return {"image": images, "label": torch.zeros(n, dtype=torch.long), "row": torch.arange(n)}


# the map


def two_layers(classes: int = 2) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
    )


def test_equals_a_grad_cam_computed_by_hand():
    """Behind a global mean and a linear layer, the gradient of the log-odds is the weights'
    difference / cells."""
    network = two_layers()
    model, batch = around(network).eval(), a_batch()
    logits, maps = grad_cam(model, batch, layer=network[1])
    x = model.on_after_batch_transfer(batch, 0)["image"]
    with torch.no_grad():
        channels = network[1](network[0](x))
        weight = (network[4].weight[1] - network[4].weight[0]) / 64
        expected = (weight[:, None, None] * channels).sum(1)
        out = network(x)
    assert maps.shape == (6, 1, 8, 8)
    assert (
        torch.allclose(maps[:, 0], expected, atol=1e-6)
        and (expected > 0).any()
        and (expected < 0).any()
    )
    assert torch.allclose(logits[:, 0], out[:, 1] - out[:, 0], atol=1e-6)


def test_several_diseases_have_a_map_each():
    network = two_layers()
    model = around(network, labels=["hf", "mi"]).eval()
    _, maps = grad_cam(model, a_batch(), layer=network[1])
    with torch.no_grad():
        channels = network[1](network[0](model.on_after_batch_transfer(a_batch(), 0)["image"]))
    for k in range(2):
        expected = (network[4].weight[k][:, None, None] * channels).sum(1) / 64
        assert torch.allclose(maps[:, k], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "pixels", "layer", "side"),
    [
        ("resnet18", 224, "layer4", 7),
        ("resnet18", 64, "layer2", 8),
        ("densenet121", 224, "features", 7),
        ("convnext_atto", 224, "norm_pre", 7),
    ],
)
def test_the_last_feature_map_is_found(backbone, pixels, layer, side):
    with torch.device("meta"):  # shapes only
        network = build_network(backbone, weights=None, classes=2).eval()
    hooked = {}
    name = last_map(network, pixels=pixels)
    network.get_submodule(name).register_forward_hook(
        lambda *given: hooked.update(shape=given[2].shape)
    )
    network(torch.zeros(1, 3, pixels, pixels, device="meta"))
    assert name == layer and hooked["shape"][2:] == (side, side)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_refused_with_the_remedy(backbone):
    with torch.device("meta"):
        network = build_network(backbone, weights=None, classes=2).eval()
    with pytest.raises(
        ValueError, match=r"Transformer ends in features of shape \(.*explain a run of resnet18"
    ):
        last_map(network, pixels=224)


def test_videos_are_refused(root):
    model = around(two_layers())
    model.backbone = "r3d_18"
    with pytest.raises(ValueError, match="r3d_18 sees videos"):
        explain(model, arm(root))


def test_maps_that_are_too_coarse_are_refused():
    with pytest.raises(ValueError, match="16 pixels have at most 8 x 8 cells; lower cells=9"):
        last_map(two_layers(), pixels=16, cells=9)
    with pytest.raises(ValueError, match="cells=1: a map needs at least 2"):
        last_map(two_layers(), pixels=16, cells=1)


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "resnet10t"])
def test_batch_size_does_not_matter_and_the_module_stays_as_it_was(backbone):
    model = Classifier(pixels=64, backbone=backbone)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batch = a_batch(5)
    with as_judge(model):
        layer = model.network.get_submodule(last_map(model.network, pixels=64, cells=4))
        together = grad_cam(model, batch, layer=layer)[1]
        one = [
            grad_cam(model, {k: v[i : i + 1] for k, v in batch.items()}, layer=layer)[1]
            for i in range(5)
        ]
    assert torch.allclose(together, torch.cat(one), atol=1e-5 * together.abs().max())
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# shares


def test_shares_of_known_maps():
    masks = torch.zeros(4, 2, 8, 8, dtype=torch.uint8)
    masks[:, :, 2:6, 2:6] = MYO
    masks[:, :, 3:5, 3:5] = LV
    masks[:, 0, 0:2, 0:2] = RV  # in ED only
    maps = torch.zeros(4, 8, 8)
    maps[0, 3, 3] = 5.0
    maps[1] = 0.1
    maps[2, 0, 0], maps[2, 7, 7] = 1.0, 1.0
    found = shares(maps, masks)
    assert found["LV"][:2] == pytest.approx([1, 4 / 64]) and found["heart"][0] == pytest.approx(1)
    assert found["RV"][2] == pytest.approx(0.25) and found["outside"][2] == pytest.approx(0.75)
    for place in WHERE:  # a uniform map gives the area; an empty one has no shares
        assert found[place][1] == pytest.approx(found[f"{place}_area"][1]) and np.isnan(
            found[place][3]
        )
    assert sum(found[place][:3] for place in PLACES) == pytest.approx(np.ones(3))
    assert found["LV_ideal"] == pytest.approx(np.ones(4))  # as fine as the mask
    coarse = shares(torch.ones(4, 2, 2), masks)
    assert (coarse["LV_ideal"] < 0.2).all() and (coarse["LV_ideal"] >= coarse["LV_area"]).all()


def test_at_size_keeps_places():
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 3] = 1.0
    large = at_size(maps, 16)[0]
    assert large.argmax() % 16 >= 12 and large.argmax() // 16 < 4 and large[8:].sum() == 0


# the whole arm


@pytest.mark.parametrize("label", [0, 1])
def test_evidence_at_a_known_place_is_found_there(root, label):
    """Bright squares decide: the map lies in the heart of ED, whichever class they speak for."""
    explained = explain(bright_means(label), arm(root))
    images = explained.images
    assert (images.predicted == label).all() and explained.layer == "1"
    assert len(images) == len(explained.maps) == 29
    store = arm(root).store
    ed = store.masks[arm(root).index.stored[images.row]][:, 0] == LV
    mass = explained.maps
    assert (mass * ed).sum((1, 2)) == pytest.approx(mass.sum((1, 2)))
    assert (images.heart > 0.6).all() and (images.heart_area < 0.45).all()


def test_masks_are_those_of_the_images_whatever_else_the_arm_holds(root, tmp_path):
    made = fake_set(tmp_path / "synthetic", arm(root).store, count=36)
    only = arm(root, synthetic="only", synthetic_set=made.folder)
    assert (only.index.stored != only.index.index)[only.index.split == "test"].all()
    torch.manual_seed(0)
    model = around(two_layers())
    alone, beside = explain(model, arm(root)).images, explain(model, only).images
    assert alone.drop(columns="row").equals(beside.drop(columns="row"))


def test_without_evidence_for_the_predicted_class_there_is_no_map(root):
    model = bright_means(1)
    # always health, though all evidence is of disease
    model.network[4].bias.data = torch.tensor([100.0, 0.0])
    explained = explain(model, arm(root))
    table = by_subgroup(explained.images)
    assert not explained.maps.any() and (explained.images.predicted == 0).all()
    overall = table[table.axis == "overall"].set_index("place")
    assert (overall.n == 0).all() and (overall.blank == 29).all() and overall.share.isna().all()
    pictured(explained, arm(root), "hf")


def test_the_table_does_not_depend_on_the_batch_size(root):
    torch.manual_seed(0)
    model = around(two_layers())
    few, many = (by_subgroup(explain(model, arm(root, batch_size=size)).images) for size in (5, 64))
    assert few.equals(many) or np.allclose(
        few.select_dtypes("number"), many.select_dtypes("number"), equal_nan=True
    )


def test_the_table_sums_up_each_subgroup(root):
    torch.manual_seed(0)
    images = explain(around(two_layers()), arm(root)).images
    table = by_subgroup(images).set_index(["axis", "subgroup", "place"])
    women = images.heart[images.sex == "F"].dropna()
    row = table.loc[("sex", "Female", "heart")]
    assert row.n + row.blank == (images.sex == "F").sum() and row.share == pytest.approx(
        women.mean()
    )
    low, high = stats.t.interval(0.95, len(women) - 1, women.mean(), stats.sem(women))
    assert (row.low, row.high) == pytest.approx(
        (max(low, 0), min(high, 1))
    ) and low < row.share < high
    assert row.times_area == pytest.approx(row.share / row.area)
    assert row.sd == pytest.approx(women.std())
    for axis in ("sex", "age_band", "bmi_band", "diagnosis", "outcome"):
        part = table.loc[axis].xs("heart", level="place")
        assert (part.n + part.blank).sum() == len(images)
    assert set(table.loc["outcome"].index.get_level_values(0)) == {
        "True positive",
        "False positive",
        "False negative",
        "True negative",
    }


def test_the_surest_are_shown_and_nobody_is_named(root):
    explained = explain(around(two_layers()), arm(root))
    picks = chosen(explained.images, "hf", count=2)
    for outcome, positions in picks.items():
        of = explained.images[explained.images.outcome == outcome]
        sure = (of.probability - 0.5).abs()
        assert len(positions) == min(2, len(of)) and sorted(sure[positions]) == sorted(
            sure.nlargest(2)
        )
    figure = pictured(explained, arm(root), "hf", count=2)
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any("on the heart" in text for text in texts) and not any(
        "SYN" in text for text in texts
    )
    assert "subject" not in explained.images


def seen(*rows: tuple[int, float, float]) -> Explained:
    """Images of label, probability and share on the heart."""
    table = pd.DataFrame(rows, columns=["label", "probability", "heart"])
    predicted = (table.probability > 0.5).astype(int)
    outcome = [explaining.OUTCOMES[pair] for pair in zip(table.label, predicted, strict=True)]
    images = table.assign(row=range(len(table)), disease="hf", outcome=outcome)
    return Explained(images, np.zeros((len(table), 4, 4), np.float32), "layer4")


def test_a_picture_shows_map_outlines_and_numbers_of_each_image() -> None:
    explained = seen((1, 0.9, 0.75), (1, 0.8, np.nan), (0, 0.7, 0.5), (1, 0.99, 0.25))
    explained.maps[3, 0, 0] = 2.0
    rng = np.random.default_rng(0)
    # the row's own image lies elsewhere in the store
    images = rng.integers(0, 256, (8, 2, 16, 16)).astype(np.uint8)
    masks = np.zeros((8, 2, 16, 16), np.uint8)
    masks[:, 0, 4:12, 4:12], masks[:, 0, 6:10, 6:10] = MYO, LV
    store = SimpleNamespace(images=images, masks=masks)
    arms: Any = SimpleNamespace(index=pd.DataFrame({"stored": [*range(7, -1, -1)]}), store=store)
    figure = pictured(explained, arms, "hf", count=2)
    # rows: true positive, false positive, false negative, true negative; two columns
    assert len(figure.axes) == 8
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[:3] == [
        *("p = 0.99, 25% on the heart", "p = 0.90, 75% on the heart"),
        "p = 0.70, 50% on the heart",
    ]
    assert titles[3:] == [""] * 5
    labels = [panel.get_ylabel() for panel in figure.axes[::2]]
    assert labels == [
        *("true positives\n(n = 3)", "false positives\n(n = 1)"),
        *("false negatives\n(n = 0)", "true negatives\n(n = 0)"),
    ]
    surest, other = figure.axes[:2]
    assert np.array_equal(surest.images[0].get_array(), images[4, 0])
    assert surest.images[0].get_clim() == (0, 255)
    alpha = surest.images[1].get_alpha()
    assert alpha.max() == pytest.approx(0.7) and alpha[:2, :2].min() > alpha[8:].max() == 0
    assert len(other.images) == 1  # nothing spoke for it
    assert len(surest.collections) == 2  # LV and MYO; there is no RV
    assert not figure.axes[3].images and not figure.axes[3].spines["left"].get_visible()
    width, height = figure.get_size_inches()
    assert (width, height) == pytest.approx((2 * 2.0 + 0.3, 4 * 2.25 + 0.3))
    many = pictured(seen(*[(1, 0.9, 0.5)] * 6), arms, "hf", count=6)
    assert many.get_figwidth() == pytest.approx(explaining.WIDTH)  # of a page, at most
    alone = pictured(seen((0, 0.2, 0.5)), arms, "hf", count=3)
    assert len(alone.axes) == 4 and alone.axes[3].get_title() == "p = 0.20, 50% on the heart"


def test_the_surest_come_first_and_of_one_disease() -> None:
    images = seen((1, 0.6, 0), (1, 0.9, 0), (0, 0.1, 0), (0, 0.4, 0), (1, 0.7, 0)).images
    assert chosen(images, "hf", count=2) == {
        **{"true positive": [1, 4], "false positive": [], "false negative": []},
        "true negative": [2, 3],
    }
    images.loc[1, "disease"] = "mi"
    assert chosen(images, "hf", count=2)["true positive"] == [4, 0]


def test_an_interval_needs_two_images() -> None:
    columns = {"heart": [0.5, np.nan], "heart_area": [0.25, 0.5], "heart_ideal": [0.75, 0.5]}
    told = explaining._summary(pd.DataFrame(columns), "heart")
    assert told["n"] == told["blank"] == 1 and told["share"] == 0.5 and told["times_area"] == 2
    assert np.isnan([told["sd"], told["low"], told["high"]]).all() and told["ideal"] == 0.75
    two = explaining._summary(pd.DataFrame(columns).fillna(1.0), "heart")
    assert two["low"] == 0 and two["high"] == 1  # cut at what a share can be
    none = {"RV": [0.0], "RV_area": [0.0], "RV_ideal": [np.nan]}
    assert np.isnan(explaining._summary(pd.DataFrame(none), "RV")["times_area"])


def a_run(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **cfg: Any) -> Any:
    """An experiment at work on a finished classifier, which is a stand-in."""
    cohort = {"_target_": "fake.Cohort", "name": "fake", "root": "/old"}
    config = {"cohort": cohort, "data": {"name": "data", "cohort": dict(cohort)}}
    data = arm(root)
    facts = SimpleNamespace(
        state="finished",
        facts={"fingerprint": "5e7"},
        inputs={"cohort": {"fingerprint": data.store.fingerprint}},
    )
    monkeypatch.setattr(explaining.runs, "record", lambda _: facts)
    monkeypatch.setattr(explaining.runs, "config", lambda _: config)
    monkeypatch.setattr(explaining, "best_classifier", lambda *_: bright_means(1))
    run: Any = SimpleNamespace(folder=folder, record=facts, used=[], built=[])
    usual = {"classifier": "runs/classifier/a/0", "data_root": str(root), "cells": 7, "count": 1}
    usual |= {"keep": False, "cohort": {**cohort, "root": "/new", "table": None}}
    run.cfg = OmegaConf.create(usual | cfg)
    run.uses = lambda key, **what: run.used.append((key, what))

    def build(part: Any, **options: Any) -> Arms:
        run.built.append((OmegaConf.to_container(part), options))
        return data

    run.build = build
    return run


def test_an_explanation_leaves_tables_a_picture_and_its_facts(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[Path] = []
    monkeypatch.setattr(explaining.figures, "save", lambda figure, path: saved.append(path))
    run = a_run(root, tmp_path, monkeypatch)
    facts = explaining.explain_classifier(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["explain.csv", "explain_images.csv"]
    images = pd.read_csv(tmp_path / "explain_images.csv")
    index = arm(root).index
    assert images.subject.tolist() == index.subject[index.split == "test"].tolist()
    table = pd.read_csv(tmp_path / "explain.csv")
    heart = table[(table.axis == "overall") & (table.place == "heart")]
    assert facts == {
        **{"classifier": "runs/classifier/a/0", "layer": "1", "cells": 16},
        "heart_share": {"hf": round(heart.share.item(), 4)},
        "heart_area": {"hf": round(heart.area.item(), 4)},
    }
    assert facts["heart_share"]["hf"] == pytest.approx(images.heart.mean(), abs=1e-4)
    assert saved == [tmp_path / "explain_hf"]
    assert run.used == [("classifier", {"fingerprint": "5e7", "at": Path("runs/classifier/a/0")})]
    [(asked, options)] = run.built
    # the cohort is read where it lies now
    assert asked["cohort"] == {"_target_": "fake.Cohort", "name": "fake", "root": "/new"}
    assert options == {"root": str(root)}
    assert f"{tmp_path}: the figures show real images" in capsys.readouterr().out
    run = a_run(root, tmp_path, monkeypatch, keep=True, cohort={"_target_": "fake.Other"})
    explaining.explain_classifier(run)
    assert np.load(tmp_path / "maps.npz")["maps"].shape == (len(images), 16, 16)
    assert run.built[0][0]["cohort"]["root"] == "/old"


def test_what_cannot_be_explained_is_told_before_anything_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(root, tmp_path, monkeypatch)
    run.record.inputs = {"cohort": {"fingerprint": "other"}}
    with pytest.raises(ValueError, match="its cohort fake has changed since; train the classifier"):
        explaining.explain_classifier(run)
    for record in (None, SimpleNamespace(state="running")):
        monkeypatch.setattr(explaining.runs, "record", lambda _, record=record: record)
        with pytest.raises(FileNotFoundError, match="no finished classifier there"):
            explaining.explain_classifier(run)
    assert not list(tmp_path.iterdir())


def test_the_best_epochs_weights_are_those_that_are_explained(root: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    kept = bright_means(0)
    torch.save({"state_dict": kept.state_dict()}, tmp_path / "checkpoints" / "best.ckpt")
    asked: dict[str, Any] = {}

    def build(part: str, *, _partial_: bool) -> Any:
        assert _partial_
        made = bright_means(1) if part == "model" else part
        return lambda **given: asked.update({part: given}) or made

    config = OmegaConf.create({"model": "model", "mitigation": {"loss": "loss", "heads": "heads"}})
    data: Any = SimpleNamespace(groups=["g"])
    run: Any = SimpleNamespace(build=build)
    module = explaining.best_classifier(run, tmp_path, config, data)
    assert all(torch.equal(a, kept.state_dict()[k]) for k, a in module.state_dict().items())
    assert asked == {
        **{"loss": {"groups": ["g"]}, "heads": {"groups": ["g"]}},
        "model": {"loss": "loss", "heads": "heads", "weights": None, "compile": False},
    }
