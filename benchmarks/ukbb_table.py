"""Seconds and memory to read a simulated UK Biobank table: 20,000 columns, of which some 540 are in
use.

python benchmarks/ukbb_table.py --rows 5000 --columns 20000 --formats csv,csv.gz,parquet
"""

from __future__ import annotations

import argparse
import gzip
import random
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import peak_memory

from cmrdata.cohorts.ukbb.table import read_table

ARRAY = 259  # of fields 41270 and 41280, as in today's releases
FILLERS = ("", "", "", "1", "-1", "26.4173", "2012-03-04", "NA", "1001", "some words")
USED = (
    "31-0.0",
    "34-0.0",
    "52-0.0",
    "53-2.0",
    "54-2.0",
    "21003-2.0",
    "21001-2.0",
    "21002-2.0",
    "50-2.0",
    "21000-0.0",
    "22189-0.0",
)


def header(columns: int) -> list[str]:
    """Names of the columns, those in use spread over the whole width."""
    used = [*USED, *(f"{field}-0.{k}" for field in ("41270", "41280") for k in range(ARRAY))]
    others = [f"{90000 + k // 40}-{k // 10 % 4}.{k % 10}" for k in range(columns - len(used) - 1)]
    step = max(1, len(others) // len(used))
    names = []
    for k, name in enumerate(used):
        names += [*others[k * step : (k + 1) * step], name]
    return ["eid", *names, *others[len(used) * step :]]


def write(path: Path, *, rows: int, columns: int, seed: int = 0) -> None:
    names, rng = header(columns), random.Random(seed)
    place = {name: k for k, name in enumerate(names)}
    fillers = [[rng.choice(FILLERS) for _ in names] for _ in range(40)]
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for number in range(rows):
            cells = fillers[number % len(fillers)].copy()
            for name in place:
                if name.startswith(("41270-", "41280-")):
                    cells[place[name]] = ""
            facts = (
                "0",
                "1950",
                "6",
                "2016-05-20",
                "11025",
                "66",
                "27.41",
                "80",
                "171",
                "1001",
                "-2.5",
            )
            for name, text in zip(USED, facts, strict=True):
                cells[place[name]] = text
            for k in range(rng.randrange(0, 30)):
                cells[place[f"41270-0.{k}"]] = (
                    f"{rng.choice('EIJK')}{rng.randrange(10, 99)}{rng.randrange(9)}"
                )
                cells[place[f"41280-0.{k}"]] = (
                    f"20{rng.randrange(10, 22)}-0{rng.randrange(1, 9)}-1{rng.randrange(9)}"
                )
            cells[0] = f"SYN{number:07d}"
            file.write(",".join(cells) + "\n")


def converted(table: Path, ending: str) -> Path:
    path = table.with_name(f"table.{ending}")
    if ending == "csv.gz":
        path.write_bytes(gzip.compress(table.read_bytes(), 4))
    elif ending == "csv.zst":
        path.write_bytes(pa.Codec("zstd").compress(table.read_bytes(), asbytes=True))
    elif ending == "parquet":
        with table.open() as file:
            names = file.readline().strip().split(",")
            rows = zip(*(line.rstrip("\n").split(",") for line in file), strict=True)
            columns = [pa.array([cell or None for cell in column]) for column in rows]
        pq.write_table(pa.Table.from_arrays(columns, names), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--columns", type=int, default=20000)
    parser.add_argument("--formats", default="csv")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        table = (asked.folder or Path(temporary)) / f"table-{asked.rows}-{asked.columns}.csv"
        if not table.exists():
            write(table, rows=asked.rows, columns=asked.columns)
        size = table.stat().st_size / 1e6
        for ending in asked.formats.split(","):
            path = converted(table, ending) if ending != "csv" else table
            for _ in range(2):
                memory, begun = peak_memory(torch.device("cpu")), time.perf_counter()
                with memory:
                    people = read_table(path)
                seconds = time.perf_counter() - begun
                print(
                    f"{ending:8s} {len(people)} rows, {asked.columns} columns, {size:.0f} MB of text: "
                    f"{seconds:.2f} s, {size / seconds:.0f} MB/s, peak {memory.gib * 1024:.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
