"""Seconds for the whole Table 1 (12 pairs x 2 kinds x 4 draws) against one call of another program
per cell.

python benchmarks/fid_table.py --images 500 --width 2048
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import torch
from machine import hardware

from cmrdata.axes import AGE, BMI, SEX
from cmrgen.evaluation.fidelity.backbones import BACKBONES, BATCH, Extractor, extracted_features
from cmrgen.evaluation.fidelity.distances import feature_sample, frechet
from cmrgen.evaluation.fidelity.inception import published_pools
from cmrgen.evaluation.fidelity.subgroups import fidelity_table, table1

CELLS = 12 * 2 * 4  # of Table 1, times draws
REFERENCE = 68  # runs of pytorch-fid per pair of folders in the reference code
# real and synthetic images that the paper's study draws (subgroups.used_rows, phantom cohort)
POOL = 16_039 + 3_965


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=500, help="a side in every cell")
    parser.add_argument("--width", type=int, default=2048, help="of the features")
    parser.add_argument("--repeats", type=int, default=3, help="of ours, and peers' calls")
    parser.add_argument(
        "--extract", type=int, default=32, help="images through Inception, to know the rate"
    )
    options = parser.parse_args()
    print(f"{hardware(torch.device('cpu'))}; n = {options.images}, d = {options.width}", flush=True)
    real, synthetic = index(7 * options.images), index(4 * options.images)
    x, y = (made(len(t), options.width, seed) for seed, t in enumerate((real, synthetic)))
    given = x, real, y, synthetic
    clock: dict[str, list[float]] = {}
    pairs = [
        (x[rows], y[rows])
        for rows in np.arange(options.repeats * options.images).reshape(options.repeats, -1)
        % len(y)
    ]
    peers = {"pytorch-fid": pytorch_fid, "torchmetrics": torchmetrics}
    apart: dict[str, list[float]] = {name: [] for name in peers}
    for peer in peers.values():  # imported before it is timed
        peer(x[:8, :4], y[:8, :4])
    for pair in pairs:  # in turn, so that another program's load meets all
        ours = timed(clock, "ours: Table 1", lambda: table1(*given, n=options.images, seed=0)).table
        assert (ours.n == options.images).all() and len(ours) * 4 == CELLS
        exact = frechet(*map(feature_sample, pair))
        for name, peer in peers.items():
            found = timed(clock, name, lambda peer=peer, pair=pair: peer(*pair))
            apart[name].append(abs(found / exact - 1))
    timed(clock, "ours: all metrics", lambda: fidelity_table(*given, n=options.images, seed=0))
    table = statistics.median(clock["ours: Table 1"])
    print(f"ours, Table 1 ({CELLS} distances)        {table:9.2f} s")
    print(f"ours, with KID, precision ... coverage {clock['ours: all metrics'][0]:9.2f} s")
    for name in peers:
        call = statistics.median(clock[name])
        print(
            f"{name:12s} one call {call:8.2f} s, x {CELLS} = {call * CELLS:9.0f} s (scaled from {len(pairs)} calls): "
            f"{call * CELLS / table:6.0f} times ours; largest relative difference {max(apart[name]):.1e}",
            flush=True,
        )
    totals(options.extract, options.images, table, statistics.median(clock["pytorch-fid"]))


def totals(count: int, n: int, table: float, call: float) -> None:
    """What the features cost, once per image against anew in each call; extrapolated from a
    rate."""
    images = np.random.default_rng(0).integers(0, 256, (count, 2, 224, 224)).astype(np.uint8)
    by = Extractor(inception_network(), 2048, "", BACKBONES["inception"])
    extracted_features(by, images[:2])
    begun = time.perf_counter()
    extracted_features(by, images)
    each = (time.perf_counter() - begun) / count
    print(f"Inception: {each:.3f} s an image, batches of {min(BATCH, count)}")
    once = POOL * each + table
    print(
        f"extrapolated from that rate: ours, features of {POOL:,} images once and Table 1: {once:,.0f} s"
    )
    for calls, name in (
        (CELLS, "one call per distance"),
        (REFERENCE, "the reference's runs per pair of folders"),
    ):
        anew = calls * (2 * n * each + call)
        print(
            f"  {calls} calls of pytorch-fid, features of {2 * n:,} images anew in each ({name}): {anew:,.0f} s, "
            f"{anew / once:.1f} times"
        )


def timed(clock: dict[str, list[float]], name: str, work: Callable[[], object]) -> object:
    begun = time.perf_counter()
    found = work()
    clock.setdefault(name, []).append(time.perf_counter() - begun)
    return found


def index(people: int) -> pd.DataFrame:
    """`people` subjects with an image each, groups in turn."""
    grid = list(product(SEX.values, AGE.values, BMI.values, (0, 1)))
    table = pd.DataFrame(
        [grid[k % len(grid)] for k in range(people)],
        columns=["sex", "age_band", "bmi_band", "label"],
    )
    table["diagnosis"] = table.label.map({0: "healthy", 1: "hf"})
    return table.assign(subject=[f"SYN{k:05d}" for k in range(people)], split="test", group="")


def made(count: int, width: int, seed: int) -> np.ndarray:
    """(count, width) float32, rectified and with a decaying spectrum, as features of a network
    are."""
    rng = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(width) / (width / 8))
    turned = (
        rng.normal(size=(count, width))
        * spectrum
        @ np.random.default_rng(9).normal(size=(width, width))
    )
    return np.maximum(turned / np.sqrt(width / 16) + 0.1 * seed, 0).astype(np.float32)


def pytorch_fid(x: np.ndarray, y: np.ndarray) -> float:
    """What its command does once it has features."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    given = [
        value
        for f in (x.astype(float), y.astype(float))
        for value in (f.mean(0), np.cov(f, rowvar=False))
    ]
    return float(calculate_frechet_distance(*given))


def torchmetrics(x: np.ndarray, y: np.ndarray) -> float:
    from torchmetrics.image.fid import _compute_fid

    given = [
        v for f in map(torch.from_numpy, (x, y)) for v in (f.double().mean(0), f.double().T.cov())
    ]
    return float(_compute_fid(*given))


def inception_network() -> torch.nn.Module:
    """The published shape with random weights: its speed, not its features."""
    from torchvision.models import Inception3

    network = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    published_pools(network)
    network.fc = torch.nn.Identity()
    return network


if __name__ == "__main__":
    main()
