"""Where a classifier looks: Grad-CAM (Selvaraju et al. 2017) of every test image, and how much of
it lies on the heart.

A map alone convinces by its looks. Here its share inside the segmentation is compared with the area
of each structure
(a classifier that looks everywhere alike) and with a map that is the structure itself, as coarse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import OmegaConf
from scipy import stats
from torch import Tensor, nn

from cmrcls.arms import Arms, disease_labels
from cmrcls.classifier import Classifier
from cmrcls.fairness.statistics import CONFIDENCE
from cmrcls.network import VIDEO
from cmrdata.axes import DIAGNOSIS, axes_in, bands_in
from cmrdata.batch import LABELS
from cmrdata.disk import write_atomic
from cmrstudy import figures, runs
from cmrstudy.experiment import Experiment
from cmrstudy.figures import STRUCTURES, STYLE, WIDTH

PLACES = (*LABELS, "outside")  # they share an image between them
WHERE = ("heart", *PLACES)  # heart: everything but outside
OUTCOMES = {
    (1, 1): "true positive",
    (0, 1): "false positive",
    (1, 0): "false negative",
    (0, 0): "true negative",
}
# axes of `by_subgroup` beside those of the cohort: value -> name
FURTHER: dict[str, dict[Any, str]] = {
    "diagnosis": {label: band.name for label, band in DIAGNOSIS.bands.items()},
    "outcome": {name: name.capitalize() for name in OUTCOMES.values()},
}
HEAT = "#F000A0"
CELLS = 7  # a side: what a ResNet leaves of 224 pixels


class Explained(NamedTuple):
    """The test images of an arm as a classifier saw them."""

    # per image and disease: row, disease, label, probability, predicted, outcome, the axes, `WHERE`
    images: pd.DataFrame
    # (rows of images, side, side) float32, >= 0; all 0: nothing speaks for the predicted class
    maps: npt.NDArray[np.float32]
    layer: str  # the part of the network whose feature map this is


def explain(module: Classifier, arms: Arms, *, cells: int = CELLS) -> Explained:
    """Grad-CAM of every test image for the class that the network predicts, and the share of the
    map on each structure.

    The score is the log-odds of the predicted class. ED and ES masks count half each.

    Args:
        module: the classifier, with its best weights.
        arms: the arm whose test images it predicts.
        cells: the map is that of the last feature map with at least so many cells a side.

    Returns:
        The maps, and a table with three columns for each place of WHERE: `<place>` is its share of
        the map (bilinear, at the size of the mask; NaN for a map of zeros), `<place>_area` its
        share of the image, which a map that is the same everywhere would have, `<place>_ideal` the
        share of a map that is the place itself in as few cells: the share of another map may be
        higher, but hardly is when it shows more than the place.

    Raises:
        ValueError: for a network without such a feature map, or for videos.
    """
    if module.backbone in VIDEO:
        raise ValueError(
            f"backbone {module.backbone} sees videos, whose maps have a time too; explain a run "
            "of ED and ES"
        )
    arms.setup()
    rows = np.flatnonzero(arms.index.split == "test")
    tables, maps = [], []
    with as_judge(module):
        name = last_map(module.network, pixels=module.pixels, cells=cells)
        for batch in arms.rows_dataloader(rows):
            row = batch["row"].numpy()
            log_odds, signed = grad_cam(module, batch, layer=module.network.get_submodule(name))
            masks = torch.from_numpy(
                np.asarray(arms.store.masks[arms.index.stored.to_numpy()[row]])
            )
            label = disease_labels(arms.index.iloc[row], module.labels)
            for k, disease in enumerate(module.labels):
                sign = torch.where(log_odds[:, k] > 0, 1.0, -1.0)
                heat = (signed[:, k] * sign[:, None, None]).relu()
                columns = {
                    "row": row,
                    "disease": disease,
                    "label": label[:, k],
                    "probability": log_odds[:, k].sigmoid(),
                    "predicted": (sign > 0).int(),
                }
                tables.append(pd.DataFrame({**columns, **shares(heat, masks)}))
                maps.append(heat.numpy())
    images = pd.concat(tables, ignore_index=True)
    images.insert(
        5, "outcome", [OUTCOMES[pair] for pair in zip(images.label, images.predicted, strict=True)]
    )
    axes = axes_in(arms.index)
    people = arms.index.loc[images.row, axes].reset_index(drop=True)
    for place, axis in enumerate(axes):
        images.insert(6 + place, axis, people[axis])
    return Explained(images, np.concatenate(maps), name)


@contextmanager
def as_judge(module: nn.Module) -> Iterator[None]:
    """Within, nothing is augmented or learnt and no graph is kept below the explained layer;
    afterwards the module is as before."""
    training, learning = module.training, [p for p in module.parameters() if p.requires_grad]
    module.eval()
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code takes no new hooks
            yield
    finally:
        module.train(training)
        for parameter in learning:
            parameter.requires_grad_(True)


def last_map(network: nn.Module, *, pixels: int, cells: int = CELLS) -> str:
    """Name of the part of `network` with the last feature map of at least `cells` cells a side, for
    images of `pixels`.

    A network that ends in a list of patches (a vision transformer) has none: ValueError, as when
    all are coarser.
    """
    if cells < 2:
        raise ValueError(
            f"cells={cells}: a map needs at least 2 a side to show a place; {CELLS} is usual"
        )
    outputs: list[tuple[str, torch.Size]] = []

    def note(name: str, layer: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 2 and math.prod(output.shape[2:]) > 1:
            outputs.append((name, output.shape[1:]))

    hooks = [
        layer.register_forward_hook(partial(note, name))
        for name, layer in network.named_modules()
        if name
    ]
    try:
        with torch.no_grad():
            network(torch.zeros(1, 3, pixels, pixels, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    if not outputs or not _is_map(outputs[-1][1]):
        ends = (
            f"ends in features of shape {tuple(outputs[-1][1])}, not in a map"
            if outputs
            else "has no feature map"
        )
        raise ValueError(
            f"{type(network).__name__} {ends} of channels by rows by columns, which Grad-CAM "
            "needs; explain a run of resnet18, densenet121 or another convolutional network"
        )
    names = [name for name, _ in outputs]
    fine = [
        name
        for name, shape in outputs
        if _is_map(shape) and shape[1] >= cells and names.count(name) == 1
    ]
    if not fine:
        most = max(shape[1] for _, shape in outputs if _is_map(shape))
        raise ValueError(
            f"{type(network).__name__}: the feature maps of an image of {pixels} pixels have at "
            f"most {most} x {most} cells; lower cells={cells}, or train at more model.pixels"
        )
    return fine[-1]


def _is_map(shape: torch.Size) -> bool:
    return len(shape) == 3 and shape[1] == shape[2]


def grad_cam(module: Classifier, batch: Any, *, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Log-odds (B, diseases) and signed maps (B, diseases, side, side), both float32 on the CPU.

    A map is sum_k a_k A_k over the channels A of `layer`, a_k the mean gradient of the log-odds
    over the channel (eq. 1); its ReLU is the Grad-CAM of disease (eq. 2), the ReLU of its negative
    that of health. Batch norms stay as trained, so an image's map doesn't depend on the others of
    the batch.
    """
    batch = {name: value.to(module.device) for name, value in batch.items()}
    images = module.on_after_batch_transfer(batch, 0)["image"]
    last: list[Tensor] = []

    def log_odds(images: Tensor) -> Tensor:
        logits = module(images).float()
        last[:] = [logits[:, 1:] - logits[:, :1] if len(module.labels) == 1 else logits]
        return last[0]

    cam = LayerGradCam(log_odds, layer)
    maps = [cam.attribute(images, target=k).detach()[:, 0] for k in range(len(module.labels))]
    return last[0].detach().cpu(), torch.stack(maps, 1).float().cpu()


def at_size(maps: Tensor, pixels: int) -> Tensor:
    """(B, side, side) -> (B, pixels, pixels), bilinear."""
    return F.interpolate(maps[:, None], size=(pixels, pixels), mode="bilinear")[:, 0]


def shares(maps: Tensor, masks: Tensor) -> dict[str, npt.NDArray[np.float32]]:
    """Columns `<place>`, `<place>_area`, `<place>_ideal` (see `explain`), each (B,), of maps (B,
    side, side) >= 0 and masks (B, 2, P, P), labels 0..3."""
    labels = torch.tensor([*LABELS.values(), 0])
    # (B, 4, P, P), mean of the phases
    inside = (masks[:, :, None] == labels[:, None, None]).float().mean(1)
    inside = torch.cat([1 - inside[:, 3:], inside], dim=1)  # the places of WHERE
    pixels, side, columns = masks.shape[-1], maps.shape[-1], {}
    large = at_size(maps, pixels)
    for k, place in enumerate(WHERE):
        itself = at_size(F.adaptive_avg_pool2d(inside[:, k], side), pixels)
        for name, weight in (
            (place, large),
            (f"{place}_area", torch.ones_like(large)),
            (f"{place}_ideal", itself),
        ):
            # 0 / 0 is NaN
            columns[name] = ((weight * inside[:, k]).sum((1, 2)) / weight.sum((1, 2))).numpy()
    return columns


def by_subgroup(images: pd.DataFrame) -> pd.DataFrame:
    """`Explained.images` as one row per disease, subgroup and place of WHERE.

    Columns: disease, axis, subgroup, place, n (images with a map), blank (without: nothing spoke
    for the predicted class), share (mean), sd, low and high (its 95 % interval, Student's t over
    subjects), area and ideal (means over the same images), times_area = share / area, 1 where a
    classifier looks everywhere alike. Unknown bands count overall only.
    """
    table = images.assign(overall="overall", diagnosis=images.label)
    axes = ["overall", *(axis for axis in axes_in(table) if table[axis].notna().any()), *FURTHER]
    rows = []
    for disease, of in table.groupby("disease", sort=False):
        for axis in axes:
            for band, name in (FURTHER.get(axis) or bands_in(of, axis)).items():
                subgroup = of[of[axis] == band]
                names = {"disease": disease, "axis": axis, "subgroup": name}
                rows += [{**names, "place": place, **_summary(subgroup, place)} for place in WHERE]
    return pd.DataFrame(rows)


def _summary(images: pd.DataFrame, place: str) -> dict[str, Any]:
    mapped = images[images[place].notna()]
    n, share, sd = len(mapped), mapped[place].mean(), mapped[place].std(ddof=1)
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd / math.sqrt(n) if n > 1 else math.nan
    area, ideal = mapped[f"{place}_area"].mean(), mapped[f"{place}_ideal"].mean()
    return {
        "n": n,
        "blank": len(images) - n,
        "share": share,
        "sd": sd,
        "low": np.clip(share - reach, 0, 1),
        "high": np.clip(share + reach, 0, 1),
        "area": area,
        "ideal": ideal,
        "times_area": share / area if area else math.nan,
    }


def chosen(images: pd.DataFrame, disease: str, *, count: int) -> dict[str, list[int]]:
    """Per outcome the positions in `images` of the `count` that the classifier is surest of, surest
    first."""
    sure = (
        (images.probability - 0.5)
        .abs()[images.disease == disease]
        .sort_values(ascending=False, kind="stable")
    )
    return {
        name: sure.index[images.outcome[sure.index] == name][:count].tolist()
        for name in OUTCOMES.values()
    }


def pictured(explained: Explained, arms: Arms, disease: str, *, count: int = 3) -> Figure:
    """`count` images per outcome: ED, the map over it, the structures' outlines, probability and
    share on the heart.

    It shows real images: save it nowhere but in the run's folder, which git ignores.
    """
    images, picks = explained.images, chosen(explained.images, disease, count=count)
    columns = max(1, *map(len, picks.values()))
    with rc_context(STYLE):
        cell = min(2.0, (WIDTH - 0.3) / columns)
        figure = Figure(
            figsize=(cell * columns + 0.3, (cell + 0.25) * len(picks) + 0.3), layout="constrained"
        )
        panels = figure.subplots(len(picks), columns, squeeze=False)
        for row, (outcome, positions) in zip(panels, picks.items(), strict=True):
            n = int(((images.outcome == outcome) & (images.disease == disease)).sum())
            row[0].set_ylabel(f"{outcome}s\n(n = {n:,})", fontsize=10)
            for panel, position in zip(
                row, [*positions, *[None] * (columns - len(positions))], strict=True
            ):
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
                if position is not None:
                    _draw(panel, explained, arms, position)
        lines = [
            Line2D([], [], color=np.array(STRUCTURES[label]) / 255, label=name)
            for name, label in LABELS.items()
        ]
        lines.append(Line2D([], [], color=HEAT, linewidth=6, label="speaks for the prediction"))
        figure.legend(
            handles=lines, loc="outside upper left", ncols=len(lines), frameon=False, fontsize=9
        )
    return figure


def _draw(panel: Axes, explained: Explained, arms: Arms, position: int) -> None:
    shown = explained.images.loc[position]
    stored = arms.index.stored[shown.row]
    image, mask = arms.store.images[stored][0], arms.store.masks[stored][0]
    heat = at_size(torch.from_numpy(explained.maps[position][None]), image.shape[-1])[0].numpy()
    panel.imshow(image, cmap="gray", vmin=0, vmax=255)
    if heat.any():
        panel.imshow(np.ones_like(heat), cmap=ListedColormap([HEAT]), alpha=0.7 * heat / heat.max())
    # LV last: its wall's inner edge is its own
    for label, colour in sorted(STRUCTURES.items(), reverse=True):
        if (mask == label).any():
            panel.contour(mask == label, [0.5], colors=[np.array(colour) / 255], linewidths=0.9)
    share = "no map" if np.isnan(shown.heart) else f"{shown.heart:.0%} on the heart"
    panel.set_title(f"p = {shown.probability:.2f}, {share}", fontsize=8.5)


def explain_classifier(run: Experiment) -> dict[str, Any]:
    """Show where a finished classifier looks; the pictures show real images and stay in the run's
    folder."""
    cfg, folder, trained = run.cfg, run.folder, Path(run.cfg.classifier)
    record, config = runs.record(trained), OmegaConf.create(runs.config(trained))
    if record is None or record.state != "finished":
        raise FileNotFoundError(
            f"classifier={trained}: no finished classifier there; train it, or give another folder"
        )
    run.uses("classifier", fingerprint=record.facts["fingerprint"], at=trained)
    if cfg.cohort._target_ == config.cohort._target_:  # where it lies now, if it has moved
        moved = {
            key: cfg.cohort[key] for key in ("root", "table", "exclude") if cfg.cohort.get(key)
        }
        config.data.cohort.update(moved)
    data = run.build(config.data, root=cfg.data_root)
    data.setup()
    if data.store.fingerprint != record.inputs["cohort"]["fingerprint"]:
        raise ValueError(
            f"{trained}: its cohort {config.cohort.name} has changed since; train the classifier "
            "again"
        )
    module = best_classifier(run, trained, config, data)
    explained = explain(module, data, cells=cfg.cells)
    subject = data.index.subject[explained.images.row].to_numpy()
    tables = {
        "explain": by_subgroup(explained.images),
        "explain_images": explained.images.assign(subject=subject),
    }
    for name, table in tables.items():
        write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    for disease in module.labels:
        picture = pictured(explained, data, disease, count=cfg.count)
        figures.save(picture, folder / f"explain_{disease}")
    if cfg.keep:
        np.savez(folder / "maps.npz", maps=explained.maps)
    print(f"{folder}: the figures show real images; they stay there")
    heart = tables["explain"].query("axis == 'overall' and place == 'heart'").set_index("disease")
    return {
        "classifier": str(trained),
        "layer": explained.layer,
        "cells": explained.maps.shape[-1],
        "heart_share": heart.share.round(4).to_dict(),
        "heart_area": heart.area.round(4).to_dict(),
    }


def best_classifier(run: Experiment, trained: Path, config: Any, data: Arms) -> Classifier:
    """The classifier of another run with the weights of its best epoch, on the GPU if there is one.

    Args:
        run: the run at work.
        trained: the folder of the other.
        config: the other's.
        data: the other's arm, set up.
    """
    parts = {
        key: run.build(config.mitigation[key], _partial_=True)(groups=data.groups)
        for key in ("loss", "heads")
    }
    module: Classifier = run.build(config.model, _partial_=True)(
        **parts, weights=None, compile=False
    )
    best = torch.load(trained / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return module
