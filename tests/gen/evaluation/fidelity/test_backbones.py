"""Published networks from local weights files, and the features kept beside a set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import Inception3, resnet50

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.evaluation.fidelity import backbones
from cmrgen.evaluation.fidelity.backbones import (
    BACKBONES,
    extracted_features,
    extractor,
    kept_features,
    network_input,
)
from support.fake_cohort import FakeCohort

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 2, 16, 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    torch.manual_seed(0)
    return resnet50().eval()


def expected(network: nn.Module, name: str) -> np.ndarray:
    with torch.inference_mode():
        return network(network_input(IMAGES, BACKBONES[name])).numpy()


def pooled(network: Any) -> nn.Module:
    return nn.Sequential(*list(network.children())[:9], nn.Flatten())


@pytest.mark.slow  # large networks
@pytest.mark.parametrize("nested", [False, True])
def test_swav_without_prefix_and_heads(residual: nn.Module, nested: bool, tmp_path: Path) -> None:
    state = {f"module.{k}": v for k, v in residual.state_dict().items() if not k.startswith("fc.")}
    state |= {
        "module.projection_head.0.weight": torch.zeros(4, 2048),
        "module.prototypes.weight": torch.zeros(3, 4),
    }
    torch.save({"state_dict": state, "epoch": 800} if nested else state, tmp_path / "swav.pth.tar")
    by = extractor("swav", tmp_path / "swav.pth.tar", device="cpu")
    assert by.width == 2048 and np.allclose(
        extracted_features(by, IMAGES), expected(pooled(residual), "swav"), atol=1e-5
    )


def test_radimagenet_as_a_sequence(residual: nn.Module, tmp_path: Path) -> None:
    children = list(dict(residual.named_children()))
    state = {}
    for key, value in residual.state_dict().items():
        place, _, rest = key.partition(".")
        if place != "fc":
            state[f"backbone.{children.index(place)}.{rest}"] = value
    torch.save(state, tmp_path / "ResNet50.pt")
    by = extractor("radimagenet", tmp_path / "ResNet50.pt", device="cpu")
    assert np.allclose(
        extracted_features(by, IMAGES), expected(pooled(residual), "radimagenet"), atol=1e-5
    )


def test_dinov2_as_published(tmp_path: Path) -> None:
    """At the published grid of positions, timm's network; at 224 px the same weights with resampled
    positions."""
    torch.manual_seed(0)
    published = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, depth=2
    ).eval()
    state = {**published.state_dict(), "mask_token": torch.zeros(1, 384)}
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    by = extractor("dinov2", tmp_path / "dinov2_vits14_pretrain.pth", device="cpu")
    assert by.width == 384
    small = timm.create_model(
        "vit_small_patch14_dinov2", pretrained=False, num_classes=0, depth=2, img_size=224
    ).eval()
    small.load_state_dict(
        timm.models.vision_transformer.checkpoint_filter_fn(published.state_dict(), small)
    )
    assert np.allclose(extracted_features(by, IMAGES), expected(small, "dinov2"), atol=1e-5)


@pytest.mark.slow  # large networks
@pytest.mark.parametrize(("classes", "suffix"), [(1000, "pt"), (1008, "safetensors")])
def test_inception_from_a_local_file(classes: int, suffix: str, tmp_path: Path) -> None:
    network = Inception3(num_classes=classes, aux_logits=False, init_weights=False)
    state, path = network.state_dict(), tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    found = extracted_features(
        extractor("inception", path, device="cpu"), np.zeros((1, 2, 16, 16), np.uint8)
    )
    assert found.shape == (1, 2048) and np.isfinite(found).all()


def test_wrong_weights_are_named(residual: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="no SwAV weights here; give the published swav_800ep_pretrain"
    ):
        extractor("swav", tmp_path / "absent.pth")
    with pytest.raises(
        ValueError, match="'vgg' is unknown; there is inception, dinov2, swav, radimagenet"
    ):
        extractor("vgg", tmp_path)
    torch.save(
        {k: v for k, v in residual.state_dict().items() if k != "layer1.0.conv1.weight"},
        tmp_path / "part.pt",
    )
    with pytest.raises(
        ValueError, match=r'part.pt holds other weights than SwAV.*Missing.*"layer1.0.conv1.weight"'
    ):
        extractor("swav", tmp_path / "part.pt")
    for name in ("inception", "dinov2"):
        torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match="Missing key"):
            extractor(name, tmp_path / "other.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"half")
    torch.save({"network": residual}, tmp_path / "pickled.pt")
    for file in ("torn.safetensors", "pickled.pt"):
        with pytest.raises(ValueError, match=f"{file} cannot be read as SwAV weights"):
            extractor("swav", tmp_path / file)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a state dict of tensors"):
        extractor("swav", tmp_path / "list.pt")


class Means(nn.Module):
    """Three features an image; counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.one = 0, nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x.mean((2, 3)) * self.one


def by_means(sha256: str = "0") -> backbones.Extractor:
    return backbones.Extractor(Means(), 3, sha256, BACKBONES["swav"]._replace(side=16))


def test_features_are_computed_once_per_rows_and_weights(tmp_path: Path) -> None:
    store = prepare(FakeCohort(count=36), tmp_path)
    by, rows = by_means(), np.arange(0, 100, 2)
    found = np.array(kept_features(store, rows, by))
    assert found.shape == (50, 3) and by.network.calls == 2
    assert np.allclose(found, extracted_features(by_means(), store.images[rows]))
    again = by_means()
    assert np.array_equal(kept_features(store, rows, again), found) and again.network.calls == 0
    for other in (
        kept_features(store, rows[1:], by_means()),
        kept_features(store, rows, by_means("1")),
    ):
        assert len(other) in (49, 50)
    kept = sorted((store.folder / "features").glob("*.f32"))
    assert len(kept) == 3
    for path in kept:
        path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(kept_features(store, rows, again), found) and again.network.calls == 2
    assert kept_features(store, rows[:0], again).shape == (0, 3)
    assert Store.open(store.folder).fingerprint == store.fingerprint


def test_an_interrupted_making_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rows = prepare(FakeCohort(count=36), tmp_path), np.arange(100)
    begun, ended = by_means(), by_means()
    real = backbones.extracted_features

    def dies(by: backbones.Extractor, images: np.ndarray) -> np.ndarray:
        if by.network.calls == 2:
            raise KeyboardInterrupt
        return real(by, images)

    monkeypatch.setattr(backbones, "extracted_features", dies)
    with pytest.raises(KeyboardInterrupt):
        kept_features(store, rows, begun)
    monkeypatch.setattr(backbones, "extracted_features", real)
    found = kept_features(store, rows, ended)
    assert begun.network.calls == 2 and ended.network.calls == 2  # of the four batches
    assert np.allclose(found, real(by_means(), store.images[rows]))
