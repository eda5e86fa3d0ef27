"""How fast the classifier gets its images: an epoch of loading and augmentation by our arm and
batch-wise augmentation, against loaders that prepare one file at a time (classifier_loaders.py),
and how long a training epoch waits for it.

    OMP_NUM_THREADS=1 python benchmarks/classifier_epoch.py > docs/results/classifier_epoch.md
    python benchmarks/classifier_epoch.py --workers 0 --training demo --peers TorchIO      a quick look

Loading: the same images of the phantom at 120 px, from the page cache, to augmented batches of 64
    at 224 px (random flips,
noise); the loaders take turns, each one epoch a turn; medians over `--repeats` turns, of the ratio
too. Workers live on from turn to turn, as they do between epochs. Ours draws and gathers in the
workers and augments in the main process.

Training: an epoch in Lightning's loop; "waits" is the time until the loader hands a batch over,
    "prepares" what our
module does with it before the step (Lightning's profile).
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from classifier_loaders import PEERS, SIDE, written
from lightning.pytorch.profilers import SimpleProfiler
from machine import hardware
from torch import Tensor

from cmrcls.arms import Arms
from cmrcls.classifier import Classifier, augment
from cmrdata.cohorts.phantom.cohort import Phantom

CROP, BATCH = 120, 64  # pixels of the reference's crop; paper 2.3
SIZES = {  # name -> of the store, of the network's input, its width, images of an epoch
    "demo": {"stored": 64, "pixels": 64, "width": 16, "images": 1024},
    "paper": {"stored": CROP, "pixels": SIDE, "width": 64, "images": 2 * BATCH},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "channels_last": {"channels_last": True},
    "bf16": {"precision": "bf16-mixed"},
    "bf16, channels_last": {"precision": "bf16-mixed", "channels_last": True},
    "compile": {"compile": True},
}
STEP, MOVE = "run_training_batch", "[Strategy]SingleDeviceStrategy.batch_to_device"
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
    draws = torch.Generator().manual_seed(0)
    return lambda: (module.network_input(batch["image"], draws) for batch in loader)


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
    print(
        f"## Loading and augmentation\n\n{len(rows)} images a turn, medians of {repeats} turns.\n"
    )
    print(
        "| workers | loader | ms/image (range) | images/s | ours is faster by |\n|---|---|---|---|---|"
    )
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
            ratios = statistics.median(
                their / own for their, own in zip(each, taken["ours"], strict=True)
            )
            told = "" if name == "ours" else f"{ratios:.1f}"
            middle = statistics.median(each)
            print(
                f"| {count} | {name} | {middle:.2f} ({min(each):.2f} to {max(each):.2f}) | {1e3 / middle:.0f} | {told} |",
                flush=True,
            )
    parts(data, repeats=max(repeats, 5))


def parts(data: Arms, *, repeats: int) -> None:
    """What a batch costs in its parts, and the upsampling alone: nothing that gives 224 px can be
    faster."""
    fetch = data._images("train").__getitems__
    positions = list(range(BATCH))
    raw = fetch(positions)["image"]
    small = raw.float() / 255
    module, draws = Classifier(pixels=SIDE, width=8).train(), torch.Generator().manual_seed(0)
    work: dict[str, Callable[[], Any]] = {
        "fetch from the memory map": lambda: fetch(positions),
        "augment": lambda: augment(small, flips=0.5, noise_std=0.05),
        "upsample to 224 px": lambda: F.interpolate(small, size=(SIDE, SIDE), mode="bilinear"),
        "all after the fetch": lambda: module.network_input(raw, draws),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, does in work.items():
            begun = time.perf_counter()
            does()
            taken[name].append(1e3 * (time.perf_counter() - begun) / BATCH)
    told = ", ".join(f"{name} {statistics.median(each[1:]):.3f}" for name, each in taken.items())
    print(f"\nOurs in parts, ms/image on one thread: {told}.\n", flush=True)


class Waited:
    """A loader that notes how long each of its batches is waited for."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.seconds = loader, list[float]()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            self.seconds.append(time.perf_counter() - begun)
            if batch is None:
                return
            yield batch


def training(root: str, *, size: str, runs: list[tuple[str, int]]) -> None:
    """A row per option and number of workers."""
    wanted = SIZES[size]
    print(
        f"| {size}: {wanted['pixels']} px, width {wanted['width']}, {wanted['images']} images | workers | images/s | "
        "waits | prepares | steps |\n|---|---|---|---|---|---|"
    )
    for option, count in runs:
        data = arms(
            root,
            pixels=wanted["stored"],
            subjects=60,
            images_per_epoch=wanted["images"],
            workers=count,
        )
        told = shares(data, wanted=wanted, option=option, accelerator="cpu")
        print(f"| {option} | {count} | {told} |", flush=True)
    print()


def shares(data: Arms, *, wanted: dict[str, int], option: str, accelerator: str) -> str:
    """images/s and the shares of waiting, preparing and stepping, in the second of two epochs: in
    the first, caches fill, workers start and code is compiled.

    Args:
        data: with its loaders.
        wanted: pixels, width and images, as SIZES has them.
        option: of OPTIONS.
        accelerator: Lightning's word. Every step waits for its loss, so the clock is right on a GPU
            too.
    """
    given = dict(OPTIONS[option])
    L.seed_everything(0, verbose=False)
    loader, profile = Waited(data.train_dataloader()), SimpleProfiler()
    trainer = L.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=given.pop("precision", "32-true"),
        max_epochs=2,
        limit_val_batches=1,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=profile,
    )
    module = Classifier(pixels=wanted["pixels"], width=wanted["width"], **given)
    trainer.fit(module, loader, data.val_dataloader())
    n, moves = len(loader), profile.recorded_durations[MOVE]
    wait, step = (
        sum(each[len(each) // 2 :]) for each in (loader.seconds, profile.recorded_durations[STEP])
    )
    prepare = sum(moves[len(moves) // 2 :][:n])  # the one behind is of validation
    whole = wait + prepare + step
    wait, prepare, step = (100 * part / whole for part in (wait, prepare, step))
    return f"{wanted['images'] / whole:.1f} | {wait:.2f} % | {prepare:.1f} % | {step:.1f} %"


def product_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a small matrix product, which ends soon on a processor without bf16 too."""
    a, times = torch.randn(512, 512).to(dtype), []
    for _ in range(5):
        begun = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - begun)
    return 2 * 512**3 / min(times) / 1e9


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--subjects", type=int, default=80, help="of the phantom, nine images of a training subject"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--training", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument(
        "--options",
        nargs="*",
        choices=list(OPTIONS)[1:],
        default=[name for name in list(OPTIONS)[1:] if name != "compile"],
        help="beside plain float32; compile takes minutes on a CPU",
    )
    return parser.parse_args()


def main() -> None:
    asked, cpu = arguments(), torch.device("cpu")
    try:
        packages = ", ".join(
            f"{name} {version(name)}" for name in ("torch", "lightning", "torchio", "monai")
        )
    except PackageNotFoundError as error:
        sys.exit(
            f"error: {error.name} is not installed; uv pip install -e '.[bench]' has the peers"
        )
    rates = [product_rate(dtype) for dtype in (torch.float32, torch.bfloat16)]
    print(
        f"# An epoch of the classifier\n\n`{' '.join(['python', *sys.argv])}`, {date.today()}, {hardware(cpu)}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; {packages}. Matrix products reach "
        f"{rates[0]:.0f} GFLOP/s in float32, {rates[1]:.0f} in bf16.\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as root:
        loading(
            arms(root, pixels=CROP, subjects=asked.subjects),
            peers=asked.peers,
            workers=asked.workers,
            repeats=asked.repeats,
        )
        options = asked.options
        if asked.training:
            print("## Training\n")
        if slow := [option for option in options if "bf16" in option and rates[1] < rates[0] / 2]:
            print(
                f"Left out on this processor, whose bf16 is slower than its float32: {'; '.join(slow)}.\n"
            )
        for size in asked.training:
            runs = [("float32", count) for count in asked.workers]
            training(
                root,
                size=size,
                runs=runs + [(option, 0) for option in options if option not in slow],
            )


if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    main()
