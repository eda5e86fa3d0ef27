"""The classifier's networks: any size of image, published weights from a file, the input that these
expect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import nn

from cmrcls.choices import own_width
from cmrcls.classifier import Classifier, normalised_by, start_from
from cmrcls.network import Origin, build_network, check_network
from cmrstudy.checkpoints import fingerprint_of
from cmrstudy.identity import is_input, settings
from cmrstudy.inputs import file_hash

BACKBONES = (
    "resnet18",
    "densenet121",
    "resnet50",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenetv3_large_100",
)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def random(backbone: str, *, classes: int = 2, pixels: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    return build_network(backbone, weights=None, classes=classes, pixels=pixels)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_network_sees_images_of_another_size_than_its_own(backbone: str) -> None:
    check_network(backbone, weights=None, pixels=64)
    with torch.device("meta"):  # shapes only
        network = build_network(backbone, weights=None, classes=3, pixels=96)
        assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 3)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "mobilenetv3_small_050"])
def test_a_step_on_real_tensors(backbone: str) -> None:
    model = Classifier(backbone=backbone, pixels=32)
    model.network(
        model.network_input(torch.zeros(2, 2, 48, 48, dtype=torch.uint8))
    ).sum().backward()


def test_what_a_network_cannot_see_is_refused_with_a_size_that_it_can() -> None:
    for backbone, pixels, told in (
        (
            "vit_tiny_patch16_224",
            100,
            "model.pixels=100: .* patches of 16 pixels; give a multiple of it, such as 96 or 112",
        ),
        (
            "inception_v3",
            64,
            r"model.pixels=64: inception_v3 can't see .*model.pixels=299, or choose",
        ),
        ("crossvit_tiny_240", 64, r"model.pixels=64: .*model.pixels=240"),
        ("densenet121", 16, r"model.pixels=16: .*model.pixels=224"),
        ("r3d_18", 4, None),
    ):
        if told is None:
            check_network(backbone, weights=None, pixels=pixels)
            continue
        with pytest.raises(ValueError, match=told) as caught:
            check_network(backbone, weights=None, pixels=pixels)
        assert "\n" not in str(caught.value)


def test_checking_draws_no_random_number() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_network("resnet18", weights=None, pixels=32)
    assert torch.equal(torch.rand(2), expected)


def test_a_presets_width_gives_way_and_says_why() -> None:
    assert (
        own_width("resnet18", None, width=16) is None
        and own_width("densenet121", "imagenet", width=64) is None
    )
    assert "densenet121 has its own width" in str(own_width("densenet121", None, width=16))
    assert "imagenet's weights have width 64" in str(own_width("resnet18", "imagenet", width=16))
    assert "from a file" in str(own_width("resnet18", "a/b.pth", width=16))
    with pytest.raises(
        ValueError, match="model.width=16 goes with model.backbone=resnet18 .* leave it out"
    ):
        build_network("densenet121", weights=None, classes=2, width=16)


# weights from a file


@pytest.mark.parametrize(
    ("backbone", "wrap"),
    [
        ("resnet18", "plain"),
        ("resnet18", "sequence"),
        ("resnet10t", "module"),
        ("test_vit", "model"),
        ("densenet121", "old"),
    ],
)
def test_published_weights_as_a_file(backbone: str, wrap: str, tmp_path: Path) -> None:
    """All but the last layer comes from the file, however it is wrapped; the same file, the same
    origin."""
    published = random(backbone, classes=7)
    state = {
        name: value for name, value in published.state_dict().items() if "num_batches" not in name
    }
    content: object = state
    if wrap == "module":
        content = {
            "state_dict": {f"module.{name}": value for name, value in state.items()},
            "epoch": 3,
        }
    elif wrap == "model":
        content = {"model": state}
    elif wrap == "old":
        content = {
            re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): v
            for name, v in state.items()
        }
    elif wrap == "sequence":
        places = [name for name, _ in published.named_children()]
        parts = {name: name.partition(".") for name in state if not name.startswith("fc")}
        content = {
            f"backbone.{places.index(p[0])}.{p[2]}": state[name] for name, p in parts.items()
        }
    file = tmp_path / "weights.pth"
    torch.save(content, file)
    torch.manual_seed(1)
    network = build_network(backbone, weights=str(file), classes=2)
    head = next(name for name in reversed(state) if name.endswith("weight")).removesuffix("weight")
    own = network.state_dict()
    assert {name for name in state if own[name].shape != state[name].shape} == {
        f"{head}weight",
        f"{head}bias",
    }
    assert all(torch.equal(own[name], state[name]) for name in state if not name.startswith(head))
    assert network.origin.fresh == (f"{head}bias", f"{head}weight")
    assert network.origin.started_from == f"file {file_hash(file)}"
    mean, std = network.origin.mean, network.origin.std
    assert (mean, std) == (IMAGENET if backbone != "test_vit" else ((0.5,) * 3, (0.5,) * 3))


def test_a_file_of_as_many_classes_keeps_its_last_layer(tmp_path: Path) -> None:
    state = random("resnet10t").state_dict()
    save_file(state, tmp_path / "two.safetensors")
    network = build_network("resnet10t", weights=str(tmp_path / "two.safetensors"), classes=2)
    assert (
        fingerprint_of(network.state_dict()) == fingerprint_of(state) and network.origin.fresh == ()
    )


def test_positions_of_a_vision_transformer_are_resampled(tmp_path: Path) -> None:
    published = random("test_vit", classes=5)
    torch.save(published.state_dict(), tmp_path / "vit.pth")
    check_network("test_vit", weights=str(tmp_path / "vit.pth"), pixels=64)
    network = build_network("test_vit", weights=str(tmp_path / "vit.pth"), classes=2, pixels=64)
    assert network.pos_embed.shape[1] == 1 + 4 * 4 < published.pos_embed.shape[1]
    expected = timm.models.vision_transformer.checkpoint_filter_fn(published.state_dict(), network)[
        "pos_embed"
    ]
    assert torch.equal(network.pos_embed, expected)


class Opens:
    """What would run code when it is unpickled."""

    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_file_of_this_network_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = random("resnet10t").state_dict()
    less = {name: value for name, value in state.items() if name != "layer1.0.conv1.weight"}
    for name, content in (
        ("missing", less),
        ("unexpected", {**state, "extra.weight": torch.zeros(1)}),
        ("shape", {**state, "layer1.0.conv1.weight": torch.zeros(1, 2, 3, 3)}),
        ("other", random("test_vit").state_dict()),
        ("empty", {"epoch": 3}),
        ("list", [1]),
        ("code", {"a": Opens()}),
    ):
        torch.save(content, tmp_path / f"{name}.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"half")
    for file, told in (
        (
            "missing.pth",
            "not those of resnet10t: missing layer1.0.conv1.weight. Give the model.backbone",
        ),
        ("unexpected.pth", "unexpected extra.weight"),
        ("shape.pth", r"layer1.0.conv1.weight is 1x2x3x3 instead of 64x64x3x3"),
        ("other.pth", r"missing .* and \d+ more; unexpected .* and \d+ more"),
        ("empty.pth", "holds no tensors by name"),
        ("list.pth", "holds no weights by name"),
        ("code.pth", "could run any code"),
        ("torn.safetensors", "damaged"),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            check_network("resnet10t", weights=str(tmp_path / file), pixels=64)
        assert str(caught.value).startswith("model.weights=") and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="model.weights=.*absent.pth"):
        check_network("resnet10t", weights=str(tmp_path / "absent.pth"), pixels=64)
    assert "run" not in capsys.readouterr().out


def test_a_file_is_an_input_and_a_name_a_setting() -> None:
    assert is_input("model.weights", "a/b.pth") and is_input("model.weights", "b.safetensors")
    assert not is_input("model.weights", "imagenet") and not is_input("model.weights", None)
    told = [
        settings(OmegaConf.create({"model": {"weights": value}}))
        for value in ("a/x.pth", "b/y.pth", "imagenet")
    ]
    assert told[0] == told[1] != told[2]  # which file it is, its content's hash tells


# normalisation


def test_the_input_is_normalised_as_the_weights_expect(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (2, 2, 32, 32), dtype=torch.uint8)
    unit = images[:, [0, 1, 0]].float() / 255
    scratch = Classifier(backbone="resnet10t", pixels=32)
    assert torch.equal(scratch.network_input(images), (unit - 0.5) / 0.25)
    torch.save(random("resnet10t").state_dict(), tmp_path / "weights.pth")
    fine = Classifier(backbone="resnet10t", weights=str(tmp_path / "weights.pth"), pixels=32)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in IMAGENET)
    assert torch.allclose(fine.network_input(images), (unit - mean) / std)
    own = Classifier(
        backbone="resnet10t",
        weights=str(tmp_path / "weights.pth"),
        pixels=32,
        normalisation=[0.5, 0.5],
    )
    assert torch.allclose(own.network_input(images), (unit - 0.5) / 0.5)


def test_the_normalisation_goes_with_the_weights(tmp_path: Path) -> None:
    """Into a checkpoint that is loaded without the published weights, and into a run that starts
    from it."""
    trained = Classifier(
        backbone="resnet10t", pixels=32, normalisation=[list(IMAGENET[0]), list(IMAGENET[1])]
    )
    loaded = Classifier(backbone="resnet10t", pixels=32)
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "best.ckpt")
    start_from(loaded, tmp_path / "best.ckpt")
    assert torch.equal(loaded.mean, torch.tensor(IMAGENET[0])) and torch.equal(
        loaded.std, torch.tensor(IMAGENET[1])
    )
    asked = Classifier(backbone="resnet10t", pixels=32, normalisation=[0.5, 0.5])
    start_from(asked, tmp_path / "best.ckpt")
    assert torch.equal(asked.mean, torch.full((3,), 0.5))  # what is asked for counts
    loaded = Classifier(backbone="resnet10t", pixels=32)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.mean, torch.tensor(IMAGENET[0]))


@pytest.mark.parametrize(
    "given", ["imagenet", [0.5], [0.5, 0], [0.5, -1], ["a", 1], [[1, 2], 1], [0.5, None], 3]
)
def test_a_wrong_normalisation_is_told(given: object) -> None:
    network = nn.Identity()
    network.origin = Origin("random", (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match=r"model.normalisation=.*give auto, or \[mean, sd\]"):
        normalised_by(given, network)  # type: ignore[arg-type]
