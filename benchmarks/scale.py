"""Seconds for everything but the images of 25,480 subjects x 9: folders, table, split, index,
sampling weights and plan.

python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.subjects import balancing_weights, keep_controls, split, with_groups
from cmrgen.plan.recipes import balanced


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_names(Phantom().people, Path(folder))
        clock = [time.perf_counter()]

        def tell(what: str) -> None:
            clock.append(time.perf_counter())
            print(f"{clock[-1] - clock[-2]:6.2f} s  {what}", flush=True)

        source = UKBB(root=folder, table=Path(folder) / "table.csv", salt_root=folder)
        people, rejected = source.subjects()
        assert len(source.settings) and rejected.empty
        tell(f"{len(people)} folders joined with their table")
        subjects = with_groups(people)
        subjects["split"] = split(subjects, seed=0)
        keep_controls(subjects, per_case=1, seed=0)
        tell("bands, groups, split and undersampling")
        index = expanded(subjects)
        index.to_parquet(Path(folder) / "index.parquet", index=False)
        index = pd.read_parquet(Path(folder) / "index.parquet")
        tell(f"index of {len(index)} rows, written and read")
        balancing_weights(index)
        tell("sampling weights")
        plan = balanced(index, count=len(people))
        tell(f"plan of {len(plan.rows)} images")
        print(f"{clock[-1] - clock[0]:6.2f} s  together", flush=True)


def write_names(people: pd.DataFrame, folder: Path) -> None:
    """A tree in UK Biobank's layout in which all is as it should be but the images, of which there
    are only names."""
    for subject in people.subject:
        (folder / subject).mkdir()
        for name in ("sa.nii.gz", "seg_sa.nii.gz"):
            (folder / subject / name).touch()
    failing = people.diagnosis == "hf"
    columns = {
        "eid": people.subject,
        "31-0.0": (people.sex == "M").astype(int),
        "34-0.0": 2015 - people.age.astype(int),
        "52-0.0": 6,
        "53-2.0": "2015-06-15",
        "21001-2.0": people.bmi,
        "41270-0.0": np.where(failing, "I500", "I10"),
        "41280-0.0": "2010-01-01",
    }
    pd.DataFrame(columns).to_csv(folder / "table.csv", index=False)


def expanded(subjects: pd.DataFrame) -> pd.DataFrame:
    """The index of a store: nine rows of each subject, with its attributes."""
    grid = pd.MultiIndex.from_product(
        [subjects.subject, (-1, 0, 1), (-1, 0, 1)], names=["subject", "slice", "frame"]
    )
    index = grid.to_frame(index=False).assign(flags="", lo=0.0, hi=1.0, ed_frame=0, es_frame=18)
    index["central"] = (index.slice == 0) & (index.frame == 0)
    return index.join(subjects.set_index("subject"), on="subject")


if __name__ == "__main__":
    main()
