"""How fast the phantom paints: images/s of `Phantom.stacks` at 64 px, against the same images
painted one at a time.

    python benchmarks/phantom.py

An image is an ED/ES stack with its masks. The peer is the same program with blocks of one image;
the bytes are equal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cmrdata.cohorts.phantom import cohort, painting
from cmrdata.protocol import ordered

SUBJECTS, CHUNK, REPEATS = 64, 16, 5


def seconds(source: cohort.Phantom, *, workers: int, block: int) -> float:
    """Wall time of nine stacks of each subject, `block` pixels painted together."""
    table = source.people.assign(split="train")
    chunks = [table.iloc[k : k + CHUNK] for k in range(0, len(table), CHUNK)]
    kept, painting.BLOCK = painting.BLOCK, block
    try:
        begun = time.perf_counter()
        if workers == 1:
            for chunk in chunks:
                source.stacks(chunk)
        else:
            for _ in ordered(source.stacks, chunks, workers=workers):
                pass
        return time.perf_counter() - begun
    finally:
        painting.BLOCK = kept


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    source = cohort.Phantom(subjects=SUBJECTS, pixels=64)
    images = SUBJECTS * len(cohort.OFFSETS)
    arms = {
        "one at a time": (1, 1),
        "one thread": (1, painting.BLOCK),
        "two threads": (2, painting.BLOCK),
    }
    source.stacks(source.people.assign(split="test"))  # warm up
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(REPEATS):  # in turns, so that a busy machine slows all of them
        for name, (workers, block) in arms.items():
            times[name].append(seconds(source, workers=workers, block=block))
    peer = statistics.median(times["one at a time"])
    print(f"Phantom.stacks, {images} images of 2 x 64 x 64 px, median of {REPEATS} (range)")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(
            f"{name:14} {images / middle:6.0f} images/s ({images / max(taken):.0f}..{images / min(taken):.0f})  "
            f"{peer / middle:5.2f} x one at a time"
        )


if __name__ == "__main__":
    main()
