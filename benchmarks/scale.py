"""Seconds for everything but the images of 25,480 subjects x 9: groups, split, index, sampling weights and plan.

python benchmarks/scale.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pandas as pd

from cmrdata.cohort import balancing_weights, keep_controls, split, with_groups
from cmrdata.readers.phantom import Phantom
from cmrgen.plan import balanced


def main() -> None:
    clock = [time.perf_counter()]

    def tell(what: str) -> None:
        clock.append(time.perf_counter())
        print(f"{clock[-1] - clock[-2]:6.2f} s  {what}", flush=True)

    people = Phantom().people[["subject", "sex", "age", "bmi", "diagnosis"]].assign(source="ukbb")
    clock[0] = time.perf_counter()
    subjects = with_groups(people)
    tell(f"bands and groups of {len(subjects)} subjects")
    subjects["split"] = split(subjects, seed=0)
    keep_controls(subjects, per_case=1, seed=0)
    tell("split and undersampling")
    grid = pd.MultiIndex.from_product([subjects.subject, (-1, 0, 1), (-1, 0, 1)], names=["subject", "slice", "frame"])
    index = grid.to_frame(index=False).assign(flags="", lo=0.0, hi=1.0, ed_frame=0, es_frame=18)
    index["central"] = (index.slice == 0) & (index.frame == 0)
    index = index.join(subjects.set_index("subject"), on="subject")
    with tempfile.TemporaryDirectory() as folder:
        index.to_parquet(Path(folder) / "index.parquet", index=False)
        index = pd.read_parquet(Path(folder) / "index.parquet")
    tell(f"index of {len(index)} rows, written and read")
    balancing_weights(index)
    tell("sampling weights")
    plan = balanced(index, count=len(people))
    tell(f"plan of {len(plan)} images")
    print(f"{clock[-1] - clock[0]:6.2f} s  together")


if __name__ == "__main__":
    main()
