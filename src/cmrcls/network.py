"""Image backbones with a fresh head, so that the classifier's module never asks which one it
trains."""

from __future__ import annotations

import hashlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from cmrcls.choices import WIDTH
from cmrstudy.checkpoints import read_checkpoint
from cmrstudy.identity import names_file
from cmrstudy.inputs import file_hash

# torchvision's: name of the last, linear layer
LAST_LAYERS = {"resnet18": "fc", "densenet121": "classifier"}
# torchvision's for videos
VIDEO = {"r3d_18": "fc", "r2plus1d_18": "fc", "mc3_18": "fc", "swin3d_t": "head"}
TORCHVISION = LAST_LAYERS | VIDEO
PUBLISHED = {"imagenet": "IMAGENET1K_V1", "kinetics": "KINETICS400_V1"}
# where published files keep their tensors
WRAPPED = ("state_dict", "model", "model_state", "teacher")
# before the names of all tensors of a file
PREFIXES = ("module.", "model.", "backbone.", "encoder.", "network.")
# as torchvision's file still has them
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)$")
PLAIN = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)  # (x - mean) / sd of what starts from random weights


class Origin(NamedTuple):
    """What a network started from, and the input that this expects."""

    started_from: str  # "random", or the weights' name and a hash of what was loaded
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    fresh: tuple[str, ...] = ()  # tensors of the last layer, where a file's were not taken


def build_network(
    backbone: str,
    *,
    weights: str | None,
    classes: int,
    width: int = WIDTH,
    pixels: int | None = None,
) -> nn.Module:
    """(B, 3, P, P) float images, or (B, 3, T, P, P) videos, -> (B, classes) logits; its `origin` is
    an Origin.

    Args:
        backbone: one of LAST_LAYERS or for videos of VIDEO, as torchvision has them, or any other
            model of timm.
        weights: "imagenet", for videos "kinetics" (Kinetics-400), starts from published weights
            (paper 2.3), downloaded on first use; without a network it warns and starts from random
            ones, as None does. A file, .safetensors or one of torch's: its tensors, whose last
            layer is replaced where it has other classes.
        classes: number of logits.
        width: a ResNet-18's first channel count: 64 is the published network, 16 costs a sixteenth.
        pixels: P; None for the network's own.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: naming the unknown or unfitting value, for a file the tensors that are missing
            or too many.
    """
    check_names(backbone, weights=weights, width=width)
    if width != WIDTH:
        channels = tuple(width * 2**k for k in range(4))
        network: nn.Module = ResNet(
            BasicBlock, (2, 2, 2, 2), num_classes=classes, channels=channels, stem_width=width
        )
        return _with(network, Origin("random", *PLAIN))
    file = Path(weights) if weights and names_file(weights) else None
    named = weights is not None and file is None

    def create(pretrained: bool) -> nn.Module:
        if backbone in TORCHVISION:
            network = get_model(backbone, weights=_published(backbone) if pretrained else None)
            head: nn.Linear = getattr(network, TORCHVISION[backbone])
            setattr(network, TORCHVISION[backbone], nn.Linear(head.in_features, classes))
            return network
        options = {"pretrained": pretrained, "num_classes": classes}
        return timm.create_model(backbone, **options, **_sized(backbone, pixels))

    network, loaded = _created(backbone, create, pretrained=named)
    if file is not None:
        fresh = load_published(network, file, backbone=backbone)
        return _with(
            network, Origin(f"file {file_hash(file)}", *expected_input(network, backbone), fresh)
        )
    if loaded:
        origin = Origin(
            f"{weights} {_weights_hash(network, backbone)}", *expected_input(network, backbone)
        )
        return _with(network, origin)
    return _with(network, Origin("random", *PLAIN))


def _with(network: nn.Module, origin: Origin) -> nn.Module:
    network.origin = origin
    return network


def check_network(backbone: str, *, weights: str | None, width: int = WIDTH, pixels: int) -> None:
    """Raise what `build_network` and the network's first batch would raise, before any data are
    prepared.

    The network is built without memory or computation (torch's meta device). Published weights are
    not downloaded.
    """
    check_names(backbone, weights=weights, width=width)
    file = weights if names_file(weights) else None
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            network = build_network(
                backbone, weights=None, classes=2, width=width, pixels=pixels
            ).eval()
            shape = (1, 3, 16, pixels, pixels) if backbone in VIDEO else (1, 3, pixels, pixels)
            _check_patches(network, backbone, pixels)
            try:
                with torch.no_grad():
                    network(torch.zeros(shape))
            except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
                raise _other_size(backbone, pixels, error) from None
    if file is not None:
        load_published(network, Path(file), backbone=backbone)


def check_names(backbone: str, *, weights: str | None, width: int) -> None:
    """Raise ValueError for a backbone, weights or width that don't exist or don't go together."""
    if backbone not in TORCHVISION and not timm.is_model(backbone):
        near = get_close_matches(str(backbone), [*TORCHVISION, *timm.list_models()], n=4)
        raise ValueError(
            f"model.backbone: backbone {backbone!r} is unknown; choose one of "
            f"{', '.join([*LAST_LAYERS, *(n for n in near if n not in LAST_LAYERS)])} or another "
            f"model of timm, for videos (input=cine) {', '.join(VIDEO)}"
        )
    known = _known(backbone)
    if weights not in (None, known) and not names_file(weights):
        raise ValueError(
            f"model.weights: weights {weights!r} are unknown for {backbone}; choose {known!r}, a "
            "file of weights (.safetensors, .pth), or null to train from scratch"
        )
    if width != WIDTH and (backbone != "resnet18" or weights):
        raise ValueError(
            f"model.width={width} goes with model.backbone=resnet18 and model.weights=null, not "
            f"with {backbone} and {weights or 'null'}; leave it out, or give {WIDTH}"
        )


def _known(backbone: str) -> str:
    return "kinetics" if backbone in VIDEO else "imagenet"


def _published(backbone: str) -> str:
    return PUBLISHED[_known(backbone)]


# size of the input


def _sized(backbone: str, pixels: int | None) -> dict[str, Any]:
    """What timm is told of the images' side: only networks of one fixed size ask for it."""
    published = timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    if pixels is None or published is None or not published.fixed_input_size:
        return {}
    return {} if published.input_size[-1] == pixels else {"img_size": pixels}


def _check_patches(network: nn.Module, backbone: str, pixels: int) -> None:
    """Raise ValueError where patches don't tile the image: its last rows and columns would be cut
    off unsaid."""
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple | list) and len(patch) == 2 else patch
    if isinstance(side, int) and pixels % side:
        below = pixels // side * side
        near = [str(size) for size in (below, below + side) if size > 0]
        raise ValueError(
            f"model.pixels={pixels}: {backbone} sees patches of {side} pixels; give a multiple of "
            f"it, such as {' or '.join(near)}"
        )


def _other_size(backbone: str, pixels: int, error: Exception) -> ValueError:
    """What to do where a network can't see images of this side."""
    published = (
        None
        if backbone in TORCHVISION
        else timm.get_pretrained_cfg(backbone, allow_unregistered=True)
    )
    own = published.input_size[-1] if published else 112 if backbone in VIDEO else 224
    why = " ".join(str(error).split())
    return ValueError(
        f"model.pixels={pixels}: {backbone} can't see images of this side ({why[:160]}); give its "
        f"own, model.pixels={own}, or choose another model.backbone"
    )


# published weights


def expected_input(
    network: nn.Module, backbone: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, sd) per channel by which published weights want their input normalised, as whoever
    published them says."""
    if backbone in TORCHVISION:
        expected = get_model_weights(backbone)[_published(backbone)].transforms()
        return tuple(expected.mean), tuple(expected.std)
    published = network.pretrained_cfg
    return tuple(published["mean"]), tuple(published["std"])


def _heads(network: nn.Module, backbone: str) -> set[str]:
    """Names of the tensors that depend on the number of classes."""
    if backbone in TORCHVISION:
        layers: Any = TORCHVISION[backbone]
    else:
        layers = network.pretrained_cfg["classifier"] or ()
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    return {name for name in network.state_dict() if name.rpartition(".")[0] in layers}


def _weights_hash(network: nn.Module, backbone: str) -> str:
    """Of everything but the last layer, which is new."""
    digest, heads = hashlib.sha256(), _heads(network, backbone)
    for name, value in network.state_dict().items():
        if name not in heads:
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def load_published(network: nn.Module, file: Path, *, backbone: str) -> tuple[str, ...]:
    """Put a file's tensors into a network, but for a last layer of other classes.

    Args:
        network: as `build_network` makes it, random; one on the meta device is only compared with
            the file.
        file: .safetensors, or a torch file of tensors; names as the backbone's library has them,
            also within `state_dict` or `model`, behind `module.` or the like, or as children of a
            sequence (RadImageNet's).
        backbone: its name.

    Returns:
        Names of the last layer's tensors, where they were not taken.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError: for a damaged file, one that could run code, and one of another network.
    """
    source = f"model.weights={file}"
    state = _renamed(_tensors(read_checkpoint(file, source=source), source), network, backbone)
    own, heads = network.state_dict(), _heads(network, backbone)
    fresh = tuple(
        sorted(name for name in heads if name not in state or state[name].shape != own[name].shape)
    )
    if fresh:  # weight and bias belong together
        fresh = tuple(sorted(heads))
        state = {name: value for name, value in state.items() if name not in heads}
    needed = {
        name for name in own if name not in fresh and not name.endswith("num_batches_tracked")
    }
    missing, foreign = sorted(needed - state.keys()), sorted(state.keys() - own.keys())
    differ = [
        f"{name} is {_shape(state[name])} instead of {_shape(own[name])}"
        for name in sorted(own.keys() & state.keys())
        if state[name].shape != own[name].shape
    ]
    if missing or foreign or differ:
        faults = [
            *([f"missing {_some(missing)}"] * bool(missing)),
            *([f"unexpected {_some(foreign)}"] * bool(foreign)),
            *([f"{_some(differ, several=2)}"] * bool(differ)),
        ]
        raise ValueError(
            f"{source}: its tensors are not those of {backbone}: {'; '.join(faults)}. Give the "
            "model.backbone that they belong to, or other weights"
        )
    if not any(value.is_meta for value in own.values()):
        network.load_state_dict(state, strict=False)
    return fresh


def _tensors(content: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """The tensors of a published file by name, without wrappers and common prefixes."""
    while inner := next(
        (content[key] for key in WRAPPED if isinstance(content.get(key), Mapping)), None
    ):
        content = inner
    state = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(
            f"{source}: it holds no tensors by name; give a file of weights, .safetensors or .pth"
        )
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _renamed(state: dict[str, Tensor], network: nn.Module, backbone: str) -> dict[str, Tensor]:
    """Tensors by the names that the network has, positions resampled to its size (timm's own
    conversion)."""
    if all(name.partition(".")[0].isdigit() for name in state):
        children = [name for name, _ in network.named_children()]
        parts = [(name.partition("."), value) for name, value in state.items()]
        state = {
            f"{children[int(k)]}.{rest}": value
            for (k, _, rest), value in parts
            if int(k) < len(children)
        }
    state = {OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    if backbone in TORCHVISION:
        return state
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dict(convert(dict(state), network))
        except (KeyError, RuntimeError, ValueError, AttributeError, TypeError, IndexError):
            return state  # not of this network: the comparison says in what


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _some(names: list[str], *, several: int = 3) -> str:
    return ", ".join(names[:several]) + (
        f" and {len(names) - several} more" if len(names) > several else ""
    )


def _created(
    backbone: str, create: Callable[[bool], nn.Module], *, pretrained: bool
) -> tuple[nn.Module, bool]:
    """The network, and whether it has its published weights."""
    if not pretrained:
        return _sizeable(backbone, create), False
    try:
        return create(True), True
    except (
        RuntimeError
    ) as error:  # timm: "No pretrained weights exist for ...", "Invalid pretrained tag ..."
        raise ValueError(
            f"backbone {backbone}: {error} Set weights=null, or choose another name"
        ) from None
    except OSError as error:  # urllib's errors, and those of the hub that timm asks
        warnings.warn(
            f"{backbone}: published weights can't be downloaded ({' '.join(str(error).split())}); "
            "training starts from random weights. Put the file into the cache of torch or Hugging "
            "Face, give it as model.weights=<file>, or set weights=null to silence this",
            stacklevel=4,
        )
        return create(False), False


def _sizeable(backbone: str, create: Callable[[bool], nn.Module]) -> nn.Module:
    try:
        return create(False)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        own = timm.get_pretrained_cfg(backbone).input_size[-1]
        raise ValueError(
            f"model.pixels: {backbone} sees images of {own} pixels alone; give "
            f"model.pixels={own}, or choose another model.backbone"
        ) from None
