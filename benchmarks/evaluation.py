"""Time and peak memory of the image part of evaluate.py at any size of a study, on made-up images.

    python benchmarks/evaluation.py --share 0.02          # of the paper's study: 25,480 subjects, 4,000 synthetic images
    python benchmarks/evaluation.py --share 1 --rows 9    # all of it, nine images also of held-out subjects: hours

The index is the phantom's own. Its images are some dozen painted ones, mapped again and again into
as much address space as the study's file would take: read as a real file is, and no disk holds the
31 GB. Memory is told in two
numbers: resident (also pages of mapped files, which the kernel takes back when others need them)
    and anonymous (what
must be there).
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch
from machine import hardware

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.store import Store
from cmrdata.subjects import split, with_groups
from cmrgen.evaluation.adherence.section import adherence_sections
from cmrgen.evaluation.fidelity.section import fidelity_section
from cmrgen.evaluation.judges import evaluation_of, trained_judges
from cmrgen.evaluation.privacy.section import audit_section
from cmrgen.plan.recipes import balanced

PAPER = 25_480, 4_000  # subjects, synthetic images
PAINTED = 6  # subjects of each kind that are painted, nine images each
MAP_FIXED, NO_RESERVE = 0x10, 0x4000  # of Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--share", type=float, default=0.02, help="of the paper's subjects and synthetic images"
    )
    parser.add_argument("--subjects", type=int, help="instead of the share")
    parser.add_argument("--images", type=int, help="synthetic images instead of the share")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument(
        "--rows",
        type=int,
        default=1,
        help="images of a held-out subject, 1 to 9; a training subject has 9",
    )
    parser.add_argument("--steps", type=int, nargs=2, default=(10, 10), help="of both judges")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip", nargs="*", default=(), help="parts: shown, distances, audit")
    asked = parser.parse_args()
    subjects = asked.subjects or round(asked.share * PAPER[0])
    images = asked.images or round(asked.share * PAPER[1])
    print(
        f"{hardware(torch.device(asked.device))}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort, made = study(
            folder, subjects=subjects, images=images, pixels=asked.pixels, rows=asked.rows
        )
        held = int(cohort.index.split.isin(("val", "test")).sum())
        print(
            f"{len(cohort.index):,} images of {subjects:,} subjects ({held:,} held out), {images:,} synthetic, "
            f"{asked.pixels} px: {(len(cohort.index) + images) * 4 * asked.pixels**2 / 1e9:.1f} GB mapped",
            flush=True,
        )
        out = folder / "results" / "benchmark"
        with told("judges trained", count=sum(asked.steps), unit="step"):
            steps = (asked.steps[0], asked.steps[1])
            networks = trained_judges(cohort, folder / "judges", steps=steps, device=asked.device)
        with told("judged", count=held + images):
            evaluation = evaluation_of(cohort, made, networks, out, seed=0)
        if "shown" not in asked.skip:
            with told("adherence, contraction, diversity", count=images):
                adherence_sections(evaluation, missing=[], seed=0)
        if "distances" not in asked.skip:
            with told("Table 1, domain features"):
                fidelity_section(evaluation, backbones={}, n=500, seed=0)
        if "audit" not in asked.skip:
            with told("audit", count=len(cohort.index)):
                audit_section(evaluation, generator=None, seed=0)


@contextmanager
def told(what: str, *, count: int = 0, unit: str = "image") -> Iterator[None]:
    """Says how long the block took, also in seconds of a core (others may keep the machine busy),
    and its peaks of memory."""
    peaks, over, begun = np.zeros(2), threading.Event(), (time.perf_counter(), time.process_time())

    def watch() -> None:
        while not over.wait(0.02):
            np.maximum(peaks, memory(), out=peaks)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    over.set()
    watcher.join()
    np.maximum(peaks, memory(), out=peaks)
    took, busy = time.perf_counter() - begun[0], time.process_time() - begun[1]
    each = f" ({1000 * busy / count:,.1f} s per thousand {unit}s)" if count else ""
    print(
        f"{what}: {took:,.0f} s, {busy:,.1f} s of a core{each}; peak {peaks[0]:.2f} GB anonymous, "
        f"{peaks[1]:.2f} GB resident, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def memory() -> tuple[float, float]:
    """(anonymous, resident) GB of this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, resident = (int(lines[key].split()[0]) * 1024 / 1e9 for key in ("RssAnon", "VmRSS"))
    return anonymous, resident


def study(
    folder: Path, *, subjects: int, images: int, pixels: int, rows: int
) -> tuple[Store, Store]:
    """A cohort and a synthetic set of this size, without files of this size."""
    people = with_groups(Phantom(subjects=subjects).people)
    people["split"] = split(people, seed=0)
    index = pd.concat(
        [
            _rows(people[people.split.isin(("train", "extra"))], 9),
            _rows(people[~people.split.isin(("train", "extra"))], rows),
        ],
        ignore_index=True,
    )
    plan = balanced(index, count=images).rows.assign(sampler="unipc", steps=8)
    pools = {
        name: painted(folder / f"painted-{name}", pixels=pixels, seed=seed)
        for seed, name in enumerate(("train", "held", "set"))
    }
    learnt = int(index.split.isin(("train", "extra")).sum())
    parts = {"cohort": [("train", learnt), ("held", len(index) - learnt)], "set": [("set", images)]}
    settings = {"cohort": "phantom", "generator": "none", "sampler": "unipc", "steps": 8}
    found = []
    for name, table in (("cohort", index), ("set", plan)):
        store = Store(folder / name)
        store.folder.mkdir()
        vars(store)["meta"] = {
            "settings": settings,
            "fingerprint": name,
            "pixels": pixels,
            "rows": len(table),
        }
        vars(store)["index"] = table
        for kind, file in enumerate(("images", "masks")):
            vars(store)[file] = tiled(
                [(pools[pool][kind], count) for pool, count in parts[name]], pixels=pixels
            )
        found.append(store)
    return found[0], found[1]


def _rows(people: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows of each subject, one of them central, as a store's index has them."""
    offsets = [(0, 0), *((j, i) for j in (-1, 0, 1) for i in (-1, 0, 1) if j or i)][:count]
    index = people.loc[people.index.repeat(count)].reset_index(drop=True)
    index[["slice", "frame"]] = np.tile(offsets, (len(people), 1))
    return index.assign(central=(index.slice == 0) & (index.frame == 0), flags="")


def painted(folder: Path, *, pixels: int, seed: int) -> tuple[Path, Path]:
    """Files of images and masks of a few phantoms; their number makes whole memory pages."""
    folder.mkdir()
    source = Phantom(subjects=PAINTED, pixels=pixels, seed=seed, hf_share=0.3)
    stacks = source.stacks(source.subjects()[0].assign(split="train"))
    files = folder / "images.u8", folder / "masks.u8"
    for file, array in zip(files, (stacks.images, stacks.masks), strict=True):
        file.write_bytes(np.ascontiguousarray(array).data)
    return files


def tiled(parts: list[tuple[Path, int]], *, pixels: int) -> np.ndarray:
    """(rows, 2, P, P) uint8: so many images of each file, again and again, as if one file held them
    all."""
    row, total = 2 * pixels**2, sum(count for _, count in parts)
    space = mmap.mmap(-1, total * row, flags=mmap.MAP_PRIVATE | NO_RESERVE)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    at, end = ctypes.addressof(ctypes.c_char.from_buffer(space)), 0
    for file, count in parts:
        place, end = _page(end), end + count * row
        size = file.stat().st_size
        with file.open("rb") as opened:
            while place < end:
                length, address = min(size, end - place), at + place
                flags = mmap.MAP_PRIVATE | MAP_FIXED
                if libc.mmap(address, length, mmap.PROT_READ, flags, opened.fileno(), 0) != address:
                    raise OSError(ctypes.get_errno(), "pages cannot be mapped")
                place += size
    return np.frombuffer(space, np.uint8).reshape(-1, 2, pixels, pixels)


def _page(place: int) -> int:
    """The start of the memory page from which a file can be mapped: an image at an edge may be two
    halves."""
    return -(-place // mmap.PAGESIZE) * mmap.PAGESIZE


if __name__ == "__main__":
    main()
