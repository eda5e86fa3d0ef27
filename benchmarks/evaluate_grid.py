"""How long the fairness part of a report takes, and in how much memory, for a large grid of runs of
made-up predictions.

python benchmarks/evaluate_grid.py [--folder /tmp/grid] [--folds 5] [--rivals 3] [--seeds 8]
[--subjects 25480] [--draws 2000]

The runs are written once (4 arms x rivals x seeds x folds, each with its predictions of validation
and test) and kept in the folder; each later call measures reading and the sections again.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from cmrcls.fairness import grid
from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.options import Options
from cmrcls.fairness.predictions import read
from cmrcls.fairness.section import disease_sections
from cmrdata.axes import AXES
from cmrstudy import runs

ARMS = (0, 2000, 4000, "only")
RIVALS = ("none", "groupdro", "oversample", "reweight", "last_layer", "thresholds")


def people(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """Subjects with a label (4 % diseased), the axes, and how ill each looks."""
    label = (rng.random(count) < 0.04).astype(int)
    table = pd.DataFrame(
        {
            "subject": [f"SYN{k:06d}" for k in range(count)],
            "row": range(count),
            "disease": "hf",
            "label": label,
            "source": "phantom",
        }
    )
    for name, axis in AXES.items():
        table[name] = rng.choice(axis.values, count)
    return table.assign(score=1.5 * label + rng.standard_normal(count))


def written(folder: Path, options: argparse.Namespace) -> None:
    """The grid's runs, if they aren't there."""
    rng = np.random.default_rng(0)
    everybody = people(options.subjects, rng)
    part = rng.permutation(np.arange(options.subjects) % options.folds)
    for fold in range(options.folds):
        own = everybody.assign(split=np.where(part == fold, "test", "train"))
        own.loc[
            (part == (fold + 1) % options.folds) & (rng.random(options.subjects) < 0.8), "split"
        ] = "val"
        own = own[own.split != "train"]
        for arm, rival, seed in product(ARMS, RIVALS[: options.rivals], range(options.seeds)):
            run = folder / f"synthetic-{arm}-{rival}-fold-{fold}" / str(seed)
            if (run / "finished.json").exists():
                continue
            settings = {"synthetic": arm, "seed": seed, "fold": fold, "input.name": "stack"}
            runs.begin(
                runs.Request(
                    run, {"task": "classifier"}, settings, {"mitigation": rival}, ["mitigation"], {}
                )
            )
            score = own.score + 0.6 * rng.standard_normal(len(own)) + 0.2 * rng.standard_normal()
            probability = 1 / (1 + np.exp(-1.5 * (score - 0.75)))
            table = own.drop(columns="score").assign(
                probability=probability, predicted=(probability > 0.5).astype(int)
            )
            table.to_csv(run / "predictions.csv", index=False)
            runs.finish(
                run,
                steps=1,
                split_fingerprint=f"fold {fold}",
                training_images=1,
                synthetic_images=0,
            )


def stores(options: argparse.Namespace) -> Any:
    """The cohort whose subjects the runs name by their rows."""
    index = pd.DataFrame({"subject": [f"SYN{k:06d}" for k in range(options.subjects)]})
    return lambda fold: SimpleNamespace(index=index, meta={"names": None})


def peak() -> float:
    """GiB that this process held at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def spent(start: float) -> str:
    """Time and memory so far."""
    return f"{time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of the processor, {peak():.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp/evaluate_grid"))
    for name, usual in (
        ("folds", 5),
        ("rivals", 3),
        ("seeds", 8),
        ("subjects", 25480),
        ("draws", 2000),
    ):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    name = f"{options.subjects}-{options.folds}-{options.rivals}-{options.seeds}"
    written(options.folder / name, options)
    start = time.perf_counter()
    of = grid.arrange(runs_below(options.folder / name))
    told = [f"{len(of.finished())} tables, {len(of.arms)} arms"]
    found = read(of, stores(options))
    told.append(f"read: {spent(start)}")
    out = options.folder / "out"
    disease_sections(
        found,
        folder=out,
        options=Options(resamples=options.draws, permutations=options.draws),
    )
    told.append(f"with the sections: {spent(start)}")
    print("; ".join(told))


if __name__ == "__main__":
    sys.exit(main())
