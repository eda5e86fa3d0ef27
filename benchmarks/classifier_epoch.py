"""How fast the classifier gets its images: an epoch of loading and augmentation by our arm and batch-wise augmentation,
against loaders that prepare one file at a time (classifier_loaders.py), and how long a training epoch waits for it.

    OMP_NUM_THREADS=1 python benchmarks/classifier_epoch.py > docs/results/classifier_epoch.md
    python benchmarks/classifier_epoch.py --workers 0 --training demo --peers TorchIO      a quick look

Loading: the same images of the phantom at 120 px, from the page cache, to augmented batches of 64 at 224 px (random flips,
noise); the loaders take turns, each one epoch a turn; medians over `--repeats` turns, of the ratio too. Workers live on
from turn to turn, as they do between epochs. Ours draws and gathers in the workers and augments in the main process.

Training: Lightning's own profile of an epoch with the settings of train.py; "waits" is the time in which no batch is
there to go on with, "prepares" what our module does with one on the device before the step.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from classifier_loaders import PEERS, SIDE, written
from lightning.pytorch.profilers import SimpleProfiler
from machine import hardware, matmul_rate
from torch import Tensor

from cmrcls.data import Arms
from cmrcls.module import Classifier, augment
from cmrdata.readers.phantom import Phantom

CROP, BATCH = 120, 64  # pixels of the reference's crop; paper 2.3
SIZES = {  # name -> of the store, of the network's input, its width, images of an epoch
    "demo": {"stored": 64, "pixels": 64, "width": 16, "images": 1024},
    "paper": {"stored": CROP, "pixels": SIDE, "width": 64, "images": 3 * BATCH},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16-mixed"},
    "bf16, channels_last": {"precision": "bf16-mixed", "channels_last": True},
    "compile": {"compile": True},
}
WAIT, STEP = "[_TrainingEpochLoop].train_dataloader_next", "run_training_batch"
MOVE = "[Strategy]SingleDeviceStrategy.batch_to_device"
Epoch = Callable[[], Iterator[Tensor]]


def arms(root: str, *, pixels: int, subjects: int, **options: Any) -> Arms:
    cohort = Phantom(subjects=subjects, hf_scale=20.0, pixels=pixels, controls_per_case=1)
    data = Arms(cohort=cohort, root=root, batch_size=BATCH, **options)
    with redirect_stdout(sys.stderr):
        data.prepare_data()
        data.setup()
    return data


def ours(data: Arms, *, workers: int) -> Epoch:
    data.workers = workers
    loader, module = data.train_dataloader(), Classifier(pixels=SIDE, width=8).train()
    return lambda: (module.on_after_batch_transfer(batch, 0)["image"] for batch in loader)


def timed(epochs: dict[str, Epoch], *, images: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds an image of each loader in each turn."""
    for epoch in epochs.values():  # workers are up, imports are done, files are in the page cache
        assert sum(len(batch) for batch in epoch()) == images
    taken: dict[str, list[float]] = {name: [] for name in epochs}
    shuffled = random.Random(0)
    for _ in range(repeats):
        for name in shuffled.sample(list(epochs), len(epochs)):
            begun = time.perf_counter()
            for batch in epochs[name]():
                assert batch.shape[1:] == (3, SIDE, SIDE)
            taken[name].append(1e3 * (time.perf_counter() - begun) / images)
    return taken


def loading(data: Arms, *, peers: list[str], workers: list[int], repeats: int) -> None:
    """The table of loading and augmentation, and what ours spends its time on."""
    rows = data.index[data.index.split == "train"]
    print(f"## Loading and augmentation\n\n{len(rows)} images a turn, medians of {repeats} turns.\n")
    print("| workers | loader | ms/image (range) | images/s | ours is faster by |\n|---|---|---|---|---|")
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            stored = rows.stored.to_numpy()
            files = written(data.store.images[stored], data.store.masks[stored], place)
            epochs = {"ours": ours(data, workers=count)}
            for name in peers:
                cache = {"cache": place / "cache"} if "Persistent" in name else {}
                epochs[name] = PEERS[name](files, workers=count, batch=BATCH, **cache)
            taken = timed(epochs, images=len(files), repeats=repeats)
        for name, each in taken.items():
            ratios = statistics.median(their / own for their, own in zip(each, taken["ours"], strict=True))
            told = "" if name == "ours" else f"{ratios:.1f}"
            middle = statistics.median(each)
            print(f"| {count} | {name} | {middle:.2f} ({min(each):.2f} to {max(each):.2f}) | {1e3 / middle:.0f} | {told} |", flush=True)  # fmt: skip
    parts(data, repeats=max(repeats, 5))


def parts(data: Arms, *, repeats: int) -> None:
    """What a batch costs in its parts, and the upsampling alone: nothing that gives 224 px can be faster."""
    fetch = data._images("train").__getitems__
    positions = list(range(BATCH))
    raw = fetch(positions)["image"]
    small = raw.float() / 255
    module = Classifier(pixels=SIDE, width=8).train()
    work: dict[str, Callable[[], Any]] = {
        "fetch from the memory map": lambda: fetch(positions),
        "augment": lambda: augment(small, flips=0.5, noise_std=0.05),
        "upsample to 224 px": lambda: F.interpolate(small, size=(SIDE, SIDE), mode="bilinear"),
        "all after the fetch": lambda: module.on_after_batch_transfer({"image": raw}, 0),  # type: ignore[typeddict-item]
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, does in work.items():
            begun = time.perf_counter()
            does()
            taken[name].append(1e3 * (time.perf_counter() - begun) / BATCH)
    told = ", ".join(f"{name} {statistics.median(each[1:]):.3f}" for name, each in taken.items())
    print(f"\nOurs in parts, ms/image on one thread: {told}.\n", flush=True)


def training(root: str, *, size: str, workers: list[int], options: list[str]) -> None:
    """An epoch of training in Lightning's profile; the network's work is the same in every row."""
    wanted = SIZES[size]
    print(f"| {size}: {wanted['pixels']} px, width {wanted['width']} | workers | images/s | waits for data | moves and "
          "prepares | step | val loss |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for option in options:
        for count in workers:
            data = arms(root, pixels=wanted["stored"], subjects=60, images_per_epoch=wanted["images"], workers=count)
            try:
                print(row(data, size=size, option=option, workers=count), flush=True)
            except Exception as error:  # an option that this machine lacks
                print(f"| {option} | {count} | {type(error).__name__}: not on this machine | | | | |", flush=True)
    print()


def row(data: Arms, *, size: str, option: str, workers: int) -> str:
    """One epoch; the first batch or two, in which caches fill and code is compiled, in an epoch before that doesn't count."""
    given, wanted = dict(OPTIONS[option]), SIZES[size]
    precision = given.pop("precision", "32-true")
    L.seed_everything(0, verbose=False)
    module = Classifier(pixels=wanted["pixels"], width=wanted["width"], **given)
    profiles = []
    for batches in (2, wanted["images"] // BATCH):
        profiles.append(SimpleProfiler())
        trainer = L.Trainer(
            accelerator="cpu", precision=precision, max_epochs=1, limit_train_batches=batches, limit_val_batches=1,
            gradient_clip_val=1.0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, profiler=profiles[-1],
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
    durations = profiles[-1].recorded_durations
    first, *rest = durations[WAIT]  # starting workers and the first batch, once an epoch at most
    wait, step = first + sum(rest), sum(durations[STEP])
    prepare = sum(durations[MOVE])
    whole = wait + step + prepare
    n = len(durations[STEP]) * BATCH
    return (f"| {option} | {workers} | {n / whole:.1f} | {100 * wait / whole:.2f} % | {100 * prepare / whole:.1f} % | "
            f"{100 * step / whole:.1f} % | |")  # fmt: skip
