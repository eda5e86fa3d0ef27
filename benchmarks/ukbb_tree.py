"""A tree in UK Biobank's layout and size for the benchmarks, drawn once and kept."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb

PIXELS, SLICES, FRAMES = (208, 187), 10, 50
BYTES = 40e6  # of a subject, about


def make_tree(folder: Path, count: int) -> Path:
    """`count` phantom subjects below `folder`, each half by its own process; an existing tree of
    that size is taken."""
    tree = folder / f"ukbb-{count}"
    if (tree / "table.csv").exists():
        return tree
    begun = time.perf_counter()
    free, needed = (
        shutil.disk_usage(folder.parent if not folder.exists() else folder).free,
        count * BYTES,
    )
    if free < needed:
        sys.exit(
            f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; give --tree or fewer --subjects"
        )
    halves = [tree.with_name(f"{tree.name}-{k}") for k in range(2)]
    for path in (tree, *halves):
        shutil.rmtree(path, ignore_errors=True)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_draw, halves, [(count + 1) // 2, count // 2], range(2)))
    tables = []
    tree.mkdir()
    for k, half in enumerate(halves):
        if not half.exists():
            continue
        table = pd.read_csv(half / "table.csv", dtype=str)
        for subject in table.eid:
            (half / subject).rename(tree / f"{subject}{k}")
        tables.append(table.assign(eid=table.eid + str(k)))
        shutil.rmtree(half)
    pd.concat(tables).to_csv(tree / "table.csv", index=False)
    print(f"drew {count} subjects in {time.perf_counter() - begun:.0f} s: {tree}", flush=True)
    return tree


def _draw(folder: Path, count: int, seed: int) -> None:
    if count:
        write_ukbb(
            Phantom(subjects=count, seed=seed, design="uniform"),
            folder,
            count=count,
            pixels=PIXELS,
            slices=SLICES,
            frames=FRAMES,
        )


def copied(tree: Path, times: int) -> Path:
    """The same people `times` over under other ids; their files are links."""
    larger = tree.with_name(f"{tree.name}-times-{times}")
    if (larger / "table.csv").exists():
        return larger
    shutil.rmtree(larger, ignore_errors=True)
    table = pd.read_csv(tree / "table.csv", dtype=str)
    for k in range(times):
        for subject in table.eid:
            shutil.copytree(tree / subject, larger / f"{subject}{k}", copy_function=os.link)
    pd.concat([table.assign(eid=table.eid + str(k)) for k in range(times)]).to_csv(
        larger / "table.csv", index=False
    )
    return larger
