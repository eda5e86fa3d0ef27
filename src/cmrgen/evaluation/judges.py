"""What the evaluation networks (the judges) see in images: whether a synthetic image shows its mask
and its prompt.

The attribute network's trunk is also the `domain` backbone of the Fréchet distance: features of the
cohort's own classifier, which need no download. `Evaluation` is what every section of the report
reads.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from cmrdata import progress
from cmrdata.axes import learnable_axes, with_diagnosis
from cmrdata.caches import cache_folder
from cmrdata.counting import number_of
from cmrdata.disk import fingerprint, write_atomic
from cmrdata.selection import Images, Selection, everything, row_slices
from cmrdata.store import Store
from cmrgen.evaluation.adherence.areas import Areas, no_areas, structure_areas
from cmrgen.evaluation.adherence.scores import derangement
from cmrgen.evaluation.device import device_name
from cmrgen.evaluation.networks import (
    FEATURES,
    NETWORKS_VERSION,
    AttributeNet,
    Loss,
    Segmenter,
    attributes_loss,
    augmented_batches,
    fit_network,
    resized,
    segmenter_loss,
    signed,
)


class Judges(NamedTuple):
    """Both evaluation networks, and how they were trained."""

    segmenter: Segmenter
    attributes: AttributeNet
    card: dict[str, Any]  # settings, seconds and steps/s of each

    @property
    def device(self) -> torch.device:
        """Where both run."""
        device: torch.device = next(self.segmenter.parameters()).device
        return device


class Judgement(NamedTuple):
    """What the judges see in n images: numbers, since segmentations are as large as the images."""

    areas: Areas  # of the segmentations and the images' own masks
    shuffled: Areas | None  # of the segmentations and other images' masks, where those were given
    # axis -> (n,) values of the axis; None where both phases are flat
    predicted: dict[str, np.ndarray]
    features: np.ndarray  # (n, 128) float32
    flat: np.ndarray  # (n, 2) bool: pictures of one grey value, in which nothing is segmented


class Evaluation(NamedTuple):
    """A synthetic set and its cohort as the judges see them: measured once, read by every section
    of the report."""

    cohort: Store
    synthetic_set: Store
    networks: Judges
    held_out: np.ndarray  # the cohort's rows of val and test
    real: Judgement  # of those rows
    synthetic: Judgement  # of the set's
    folder: Path  # for tables; pictures go into its figures/
    # of the set: the row whose mask tells what chance reaches; None for one image
    other_rows: np.ndarray | None = None

    @property
    def figures(self) -> Path:
        """The folder of the report's pictures."""
        return self.folder / "figures"

    @property
    def device(self) -> torch.device:
        """Where all networks of this evaluation run."""
        return self.networks.device

    def places(self, store: Store, name: str) -> list[Path]:
        """Where what is computed from a set is kept, as `cache_folder` takes it."""
        return kept_places(store, name, report=self.folder)


def evaluation_of(
    cohort: Store, synthetic_set: Store, networks: Judges, folder: Path, *, seed: int
) -> Evaluation:
    """Judge held-out real images and a synthetic set's.

    Args:
        cohort: the real images.
        synthetic_set: the set that was made from them.
        networks: the judges, trained on the cohort's train split.
        folder: of the report.
        seed: of the other images' masks that the set is also compared with, for chance.
    """
    held_out = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    count = len(synthetic_set.index)
    other_rows = derangement(count, seed=seed) if count > 1 else None
    real = judge(
        networks,
        Selection(cohort.images, held_out),
        Selection(cohort.masks, held_out),
        what="held-out images",
    )
    synthetic = judge(
        networks,
        everything(synthetic_set.images),
        everything(synthetic_set.masks),
        others=None if other_rows is None else Selection(synthetic_set.masks, other_rows),
        what="synthetic images",
    )
    return Evaluation(
        cohort, synthetic_set, networks, held_out, real, synthetic, folder, other_rows
    )


def kept_places(store: Store, name: str, *, report: Path) -> list[Path]:
    """The folder `name` of a set, and one beside the folder of the report for a set that may not be
    written."""
    return [store.folder / name, report.parent / "private" / name]


def provenance(evaluation: Evaluation) -> dict[str, Any]:
    """Rows of the report's last table: where the numbers on synthetic images come from."""
    synthetic_set = evaluation.synthetic_set
    index, settings = synthetic_set.index, synthetic_set.meta["settings"]
    return {
        "synthetic set": (
            f"{synthetic_set.folder} ({number_of(len(index), 'images')}, "
            f"{number_of(index.group.nunique(), 'groups')})"
        ),
        "synthetic fingerprint": synthetic_set.fingerprint,
        "generator": settings["generator"],
        "sampler": f"{settings['sampler']}, {settings['steps']} steps",
        "networks on": device_name(evaluation.device),
        "judges": ", ".join(
            f"{name}: {card['steps']} steps" for name, card in evaluation.networks.card.items()
        ),
    }


def trained_judges(
    store: Store,
    *places: str | Path,
    steps: tuple[int, int] = (250, 400),
    batch: tuple[int, int] = (32, 64),
    width: tuple[int, int] = (16, 16),
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Judges:
    """Segmenter and attribute network of the store's train split; pairs are (segmenter, attribute
    network).

    Kept as safetensors beside a JSON card, and re-used when store and settings are the same.

    Args:
        store: the cohort's.
        places: folders to keep them in, the second where the first may not be written; see
            `cache_folder`.
        steps: of training.
        batch: images of a step.
        width: channels of the networks' first layer.
        seed: of weights and batches.
        device: where they are trained and run.

    Raises:
        ValueError: the store has no training rows, or none of the axes varies.
        Unwritable: none of the places may be written.
    """
    train = store.index[store.index.split == "train"]
    if train.empty:
        raise ValueError(
            f"{store.folder}: no row of the train split; judges learn from real training images "
            "only"
        )
    if not (axes := learnable_axes(train)):
        raise ValueError(
            f"{store.folder}: none of {', '.join(with_diagnosis())} varies among the training "
            "rows; add subjects"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter, attributes = Segmenter(width[0]), AttributeNet(axes, width[1])
    networks: list[tuple[str, nn.Module, Loss]] = [
        ("segmenter", segmenter, segmenter_loss),
        ("attributes", attributes, attributes_loss),
    ]
    card: dict[str, Any] = {}
    for k, (name, network, loss) in enumerate(networks):
        settings = {
            "network": name,
            "store": store.fingerprint,
            "axes": axes,
            "version": NETWORKS_VERSION,
            "steps": steps[k],
            "batch": batch[k],
            "width": width[k],
            "seed": seed,
        }
        network.to(device).to(memory_format=torch.channels_last)
        card[name] = _kept_or_trained(
            network, loss, store, settings, [*map(Path, places)], seed=seed + k
        )
        network.eval().requires_grad_(False)
    return Judges(segmenter, attributes, card)


def _kept_or_trained(
    network: nn.Module,
    loss: Loss,
    store: Store,
    settings: dict[str, Any],
    places: list[Path],
    *,
    seed: int,
) -> dict[str, Any]:
    """Fill a network with the weights kept for these settings, or train it and keep them; its
    card."""
    name, steps = settings["network"], settings["steps"]
    file = f"{name}-{fingerprint(settings)[:8]}"
    folder = cache_folder(places, f"{file}.json", f"{file}.safetensors", what="judges")
    weights, card_file = folder / f"{file}.safetensors", folder / f"{file}.json"
    if card_file.exists():
        device = next(network.parameters()).device
        network.load_state_dict(load_file(weights, device=str(device)))
        card: dict[str, Any] = json.loads(card_file.read_text())
        return card
    train = store.index[store.index.split == "train"]
    began, batches = (
        time.monotonic(),
        augmented_batches(store, train, size=settings["batch"], seed=seed),
    )
    fit_network(network, loss, batches, steps=steps, name=name)
    took = time.monotonic() - began
    card = {**settings, "seconds": round(took, 1), "steps_per_second": round(steps / took, 2)}
    state = {key: value.contiguous().cpu() for key, value in network.state_dict().items()}
    write_atomic(weights, save(state))
    write_atomic(card_file, json.dumps(card, indent=1))
    return card


def judge(
    networks: Judges, images: Images, masks: Images, *, others: Images | None = None, what: str = ""
) -> Judgement:
    """What the judges see in images, read a slice at a time.

    Args:
        networks: the judges.
        images: (n, 2, P, P) uint8.
        masks: (n, 2, P, P) labels, each image's own.
        others: the same of other images, which tell what chance reaches.
        what: the images are, for a bar; "" shows none.
    """
    count, heads, device = len(images), networks.attributes.heads, networks.device
    own, chance = no_areas(count), None if others is None else no_areas(count)
    features, flat = np.empty((count, FEATURES), np.float32), np.empty((count, 2), bool)
    predicted = {axis: np.empty(count, object) for axis in heads}
    with (
        torch.inference_mode(),
        progress.bar(f"judge {what}", total=count if what else 0, unit="images") as advance,
    ):
        for rows in row_slices(images):
            pixels = np.array(images[rows])
            flat[rows] = pixels.max((-2, -1)) == pixels.min((-2, -1))
            x = signed(pixels, device)
            labels = networks.segmenter(x.flatten(0, 1)[:, None]).argmax(1).view(x.shape).byte()
            labels[torch.from_numpy(flat[rows]).to(device)] = 0
            for areas, given in ((own, masks), (chance, others)):
                if areas is not None and given is not None:
                    given_masks = torch.from_numpy(np.array(given[rows])).to(device)
                    new = structure_areas(labels, given_masks)
                    for counts, new_counts in zip(areas, new, strict=True):
                        counts[rows] = new_counts
            f = networks.attributes.features(x)
            features[rows] = f.cpu().numpy()
            for axis, head in heads.items():
                best = head(f).argmax(1).cpu().numpy()
                predicted[axis][rows] = np.array(with_diagnosis()[axis].values, object)[best]
            advance(len(pixels))
    for values in predicted.values():
        values[flat.all(1)] = None
    return Judgement(own, chance, predicted, features, flat)


class Domain(NamedTuple):
    """The domain backbone: what `backbones.features` asks of a network."""

    network: AttributeNet
    sha256: str  # of its weights
    title: str = "domain"
    width: int = FEATURES
    batch: int = 1024  # images between two writes

    def extract(self, images: Images) -> np.ndarray:
        """(n, 128) float32 features of (n, 2, P, P) uint8 images."""
        device = next(self.network.parameters()).device
        features = np.empty((len(images), FEATURES), np.float32)
        with torch.inference_mode():
            for rows in row_slices(images):
                x = signed(np.array(images[rows]), device)
                features[rows] = self.network.features(x).cpu().numpy()
        return features


def domain_backbone(networks: Judges) -> Domain:
    """The attribute network's trunk as a backbone."""
    state = {
        key: value.contiguous().cpu() for key, value in networks.attributes.state_dict().items()
    }
    return Domain(networks.attributes, hashlib.sha256(save(state)).hexdigest())


def perceptual_layers(networks: Judges, images: np.ndarray) -> Tensor:
    """(n, 2, P, P) uint8 images -> (n, D) float32 whose squared Euclidean distances are LPIPS
    without learned weights.

    Each layer of the attribute network's trunk, scaled to unit length over channels and divided by
    the root of its positions; the square is the mean over positions, summed over layers (Zhang et
    al. 2018, eq. 1 with w = 1).
    """
    layers, device = [], networks.device
    with torch.inference_mode():
        x = resized(signed(np.array(images), device))
        for layer in list(networks.attributes.trunk)[:-2]:  # without the pool
            x = layer(x)
            layers.append((F.normalize(x, dim=1) / math.sqrt(x.shape[-1] * x.shape[-2])).flatten(1))
    return torch.cat(layers, 1).float()
