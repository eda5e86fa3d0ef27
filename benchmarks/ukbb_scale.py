"""UK Biobank's size, simulated: 50,000 folders and a table of 20,000 columns; each command's
seconds and memory.

python benchmarks/ukbb_scale.py --folder /data/scale --subjects 50000 --columns 20000

A few small phantom cines are drawn; every folder holds links to one of them, so what is measured is
everything but the unpacking of pictures, for which benchmarks/prepare.py is there. Of the last two
commands the second is run with folders and table renamed: it would fail if it asked for either.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ukbb_table import write

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb

ROOT = Path(__file__).parents[1]
DRAWN = 8  # subjects; a file has at most 65,000 links on ext4


class Cost(NamedTuple):
    """Of one command."""

    seconds: float
    processor: float
    mib: float


def tree(folder: Path, *, subjects: int, columns: int) -> tuple[Path, Path]:
    """(folders, table), made once and kept."""
    place, table = folder / "ukbb", folder / "table.csv"
    if not table.exists():
        drawn = folder / "drawn"
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(drawn, ignore_errors=True)
        phantom = Phantom(subjects=DRAWN, seed=0, design="uniform")
        write_ukbb(phantom, drawn, count=DRAWN, pixels=64, mm=3.0, slices=5, frames=50)
        people = [path for path in sorted(drawn.iterdir()) if path.is_dir()]
        for number in range(subjects):
            shutil.copytree(
                people[number % DRAWN], place / f"SYN{number:07d}", copy_function=os.link
            )
        unfinished = table.with_suffix(".unfinished")
        write(unfinished, rows=subjects, columns=columns)
        unfinished.rename(table)
    return place, table


def command(folder: Path, *words: str) -> Cost:
    """Run a command of the project."""
    begun = time.perf_counter()
    places = [
        f"data_root={folder / 'data'}",
        f"preset.runs={folder / 'runs'}",
        "preset=smoke",
        "cohort=ukbb",
    ]
    with (folder / "log.txt").open("a") as log:
        log.write(f"\n$ {' '.join(words)}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, *words, *places], cwd=ROOT, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(words)} failed: {folder / 'log.txt'}")
    cost = Cost(
        time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    )
    print(
        f"{cost.seconds:8.1f} s, {cost.processor:8.1f} s of processor, {cost.mib:6.0f} MiB: {' '.join(words[:4])}",
        flush=True,
    )
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=20_000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    place, table = tree(given.folder, subjects=given.subjects, columns=given.columns)
    source = [f"cohort.root={place}", f"cohort.table={table}"]
    results = f"run_dir={given.folder / 'results'}"
    train = ["train.py", "experiment=classifier", "debug=fast"]
    costs = {
        "inspect without volumes": command(
            given.folder, "train.py", "experiment=inspect", "volumes=false", results, *source
        )
    }
    costs["inspect, every volume read"] = command(
        given.folder, "train.py", "experiment=inspect", results, *source
    )
    costs["inspect again"] = command(
        given.folder, "train.py", "experiment=inspect", results, *source
    )
    costs["first command: prepares the store"] = command(given.folder, *train, *source)
    away = [path.rename(path.with_name(f"{path.name}.away")) for path in (place, table)]
    try:
        costs["second command, folders and table away"] = command(given.folder, *train)
    finally:
        for path in away:
            path.rename(path.with_name(path.name.removesuffix(".away")))
    rows = pd.DataFrame(costs.values(), index=pd.Index(costs, name="command")).round(
        {"seconds": 1, "processor": 1, "mib": 0}
    )
    print(
        f"{given.subjects:,} folders, {given.columns:,} columns, table of {table.stat().st_size / 1e9:.2f} GB\n{rows.to_string()}"
    )


if __name__ == "__main__":
    main()
