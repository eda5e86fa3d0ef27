"""How fast UK Biobank folders become stacks: against gunzip alone, TorchIO and MONAI, in one run
and in turns.

    python benchmarks/prepare.py --tree data/benchmark [--subjects 40] [--workers 1] [--repeats 3]
    [--peers torchio,monai]
    python benchmarks/prepare.py --memory --tree data/benchmark     peak memory with 40 subjects and with ten times as many
    python benchmarks/prepare.py --scale                            the tables of 25,480 subjects x 9, without images

The tree is drawn once (208 x 187 x 10 x 50: sa float32 with whole numbers up to 4095, seg_sa
float64; about 35 MB and ten seconds a subject) and kept for the next run. Peers: `uv pip install -e
'.[bench]'`.

limit     both files unpacked with isal, piece by piece into nothing
ours      `UKBB.stacks`, from the folder to uint8 stacks and masks of 120 x 120
TorchIO   the reference's chain: load both files, ES by LV volume, central slice, ED and ES, CropOrPad to 120 x 120 around
          the mask, RescaleIntensity
MONAI     loading the same two files and nothing else

A training subject gives nine stacks, one of validation or test its central one. Several workers are
threads for the limit and ours, as in `cmrdata.store.prepare`, and processes for the peers, as in
their loaders.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import argparse
import importlib
import multiprocessing
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import scale
from isal import igzip
from ukbb_tree import copied, make_tree

from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.prepare import prepare

CROP = 120  # pixels of the reference's crop, and of our stacks
TEN = 10  # times as many subjects in the second measurement of memory
PEERS = {"torchio": "TorchIO", "monai": "MONAI"}
Arm = Callable[[list[str]], Iterable[object]]  # does its work with each of some folders


def cohort(tree: Path, secrets: Path) -> UKBB:
    return UKBB(
        root=tree, table=tree / "table.csv", pixels=CROP, controls_per_case=None, salt_root=secrets
    )


def gunzip(folder: str) -> None:
    for name in ("sa.nii.gz", "seg_sa.nii.gz"):
        with igzip.open(Path(folder) / name) as file:
            while file.read(2**20):
                pass


def torchio_chain(folder: str, *, nine: bool) -> int:
    import torchio as tio

    image = tio.ScalarImage(Path(folder) / "sa.nii.gz").data  # (T, X, Y, Z)
    mask = tio.LabelMap(Path(folder) / "seg_sa.nii.gz").data
    es, centre = int((mask == 1).flatten(1).sum(1).argmin()), mask.shape[3] // 2
    chain = tio.Compose(
        [tio.CropOrPad((CROP, CROP, 1), mask_name="mask"), tio.RescaleIntensity((0, 1))]
    )
    steps = (-1, 0, 1) if nine else (0,)
    found = [
        chain(
            tio.Subject(
                image=tio.ScalarImage(
                    tensor=image[[i, (es + i) % len(image)], :, :, centre + j, None]
                ),
                mask=tio.LabelMap(tensor=mask[[0, es], :, :, centre + j, None]),
            )
        )
        for j in steps
        for i in steps
    ]
    return len(found)


def monai_load(folder: str) -> int:
    from monai.transforms import LoadImage

    load = LoadImage(reader="NibabelReader", image_only=True)
    return sum(load(Path(folder) / name).ndim for name in ("sa.nii.gz", "seg_sa.nii.gz"))


def arms(
    source: UKBB,
    folders: list[str],
    peers: Sequence[str],
    *,
    threads: Executor,
    processes: Executor,
) -> dict[str, Arm]:
    # both in the order of the names
    subjects = dict(zip(folders, source.subjects()[0].subject, strict=True))

    def ours(folder: str, *, split: str) -> None:
        stacks = source.stacks(pd.DataFrame({"subject": [subjects[folder]], "split": [split]}))
        assert len(stacks.images) == {"train": 9, "test": 1}[split], stacks.rejected.reason.tolist()

    found: dict[str, Arm] = {
        "limit": partial(threads.map, gunzip),
        "ours, training": partial(threads.map, partial(ours, split="train")),
        "ours, val/test": partial(threads.map, partial(ours, split="test")),
    }
    if "torchio" in peers:
        found["TorchIO, training"] = partial(processes.map, partial(torchio_chain, nine=True))
        found["TorchIO, val/test"] = partial(processes.map, partial(torchio_chain, nine=False))
    if "monai" in peers:
        found["MONAI, loading"] = partial(processes.map, monai_load)
    return found


def timed(
    folders: list[str], work: dict[str, Arm], *, together: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds per subject of each arm in each repeat; arms take turns every few subjects, for a
    shared machine's load drifts."""
    for name, arm in work.items():  # imports are done, and every file is in the page cache
        list(arm(folders if name == "limit" else folders[:together]))
    taken = {name: [0.0] * repeats for name in work}
    shuffled = random.Random(0)
    for repeat in range(repeats):
        for start in range(0, len(folders), together):
            # or one would always follow whoever empties the caches
            for name in shuffled.sample(list(work), len(work)):
                begun = time.perf_counter()
                list(work[name](folders[start : start + together]))
                taken[name][repeat] += (time.perf_counter() - begun) / len(folders)
        print(f"repeat {repeat + 1} of {repeats} done", flush=True)
    return taken


def report(taken: dict[str, list[float]]) -> None:
    middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
    line = "{:18} {:>9}  {:13} {:>10} {:>10} {:>8} {:>11}"
    print(line.format("", "s/subject", "range", "subjects/s", "x TorchIO", "x MONAI", "% of limit"))
    for name, seconds in taken.items():
        mine, kind = middle[name], name.partition(", ")[2]
        peers = [
            middle.get(peer) if name.startswith("ours") else None
            for peer in (f"TorchIO, {kind}", "MONAI, loading")
        ]
        ratios = [f"{peer / mine:.2f}" if peer else "" for peer in peers]
        share = f"{100 * middle['limit'] / mine:.0f}" if name == "ours, training" else ""
        spread = f"{min(seconds):.3f}..{max(seconds):.3f}"
        print(line.format(name, f"{mine:.3f}", spread, f"{1 / mine:.2f}", *ratios, share))


def machine(*packages: str) -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(
        f"{model}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, {versions}"
    )


def installed(wanted: Sequence[str]) -> list[str]:
    """The peers that can be imported; of the others it is said that they are missing."""
    found = []
    for name in wanted:
        try:
            importlib.import_module(name)
            found.append(name)
        except ImportError as error:
            print(
                f"{PEERS[name]} is not measured: {error}. Install it with uv pip install -e '.[bench]'"
            )
    return found


def memory(tree: Path, workers: int) -> None:
    """Peak memory of a process that prepares `tree`, and of one that prepares ten times as many."""
    for place in (tree, copied(tree, TEN)):
        command = [sys.executable, __file__, "--prepare", str(place), "--workers", str(workers)]
        print(
            subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(),
            flush=True,
        )


def prepare_and_tell(tree: Path, workers: int) -> None:
    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, begun = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory(dir=tree.parent) as out:
        store = prepare(cohort(tree, Path(out)), out, workers=workers)
        seconds = time.perf_counter() - begun
        print(
            f"{store.meta['subjects']:4} subjects, {len(store.index):5} stacks, {workers} workers: peak {peak():4.0f} MiB "
            f"({before:.0f} after imports), {seconds:.0f} s in all"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--subjects", type=int, default=40)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--tree", type=Path, default=Path("data/benchmark"), help="folder for the drawn subjects"
    )
    parser.add_argument(
        "--peers", default=",".join(PEERS), help="of torchio, monai; empty for none"
    )
    parser.add_argument("--memory", action="store_true", help="measure memory instead of speed")
    parser.add_argument(
        "--scale", action="store_true", help="simulate the tables of 25,480 subjects instead"
    )
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.prepare:
        return prepare_and_tell(given.prepare, given.workers)
    if given.scale:
        return scale.main()
    given.tree.mkdir(parents=True, exist_ok=True)
    tree = make_tree(given.tree, given.subjects)
    if given.memory:
        machine("isal", "numpy")
        return memory(tree, given.workers)
    peers = installed([name for name in given.peers.split(",") if name])
    folders = sorted(str(path) for path in tree.iterdir() if path.is_dir())
    with (
        tempfile.TemporaryDirectory() as secrets,
        ThreadPoolExecutor(given.workers) as threads,
        ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as processes,
    ):
        work = arms(
            cohort(tree, Path(secrets)), folders, peers, threads=threads, processes=processes
        )
        taken = timed(folders, work, together=2 * given.workers, repeats=given.repeats)
    print(
        f"\n{len(folders)} subjects, {given.workers} workers, median of {given.repeats}, files in the page cache"
    )
    machine("isal", "nibabel", "numpy", *peers)
    report(taken)


if __name__ == "__main__":
    main()
