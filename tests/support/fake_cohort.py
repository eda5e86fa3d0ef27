"""A cohort without files: squares for hearts, all 36 groups, a diagnosis that shows in the
pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import LV, MYO, RV
from cmrdata.plan_columns import PROVENANCE
from cmrdata.protocol import Cohort, Stacks
from cmrdata.store import Store, Writer
from cmrdata.subjects import with_groups

AGES, BMIS = (52.0, 65.0, 74.0), (22.0, 27.0, 33.0)
# neighbouring slices and frames
SHIFTS = [(part, frame) for part in (-1, 0, 1) for frame in (-1, 0, 1)]


@dataclass
class FakeCohort(Cohort):
    """`count` subjects cycling through the 36 groups (half are cases); attributes in `unknown` are
    missing for all."""

    count: int = 144
    pixels: int = 16
    seed: int = 0
    controls_per_case: float | None = None
    max_rejected: float = 0.05
    unknown: tuple[str, ...] = ()
    name: str = "fake"

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "count": self.count,
            "pixels": self.pixels,
            "unknown": self.unknown,
        }

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        k = np.arange(self.count)
        table = pd.DataFrame(
            {
                "subject": [f"SYN{i:04d}" for i in k],
                "source": "fake",
                "sex": np.array(["F", "M"], dtype=object)[k // 2 % 2],
                "age": np.array(AGES)[k // 4 % 3],
                "bmi": np.array(BMIS)[k // 12 % 3],
                "diagnosis": np.array(["healthy", "hf"], dtype=object)[k % 2],
            }
        )
        for column in self.unknown:
            table[column] = None if column == "sex" else np.nan
        return table, pd.DataFrame({"subject": [], "reason": []}, dtype=object)

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        rows = [
            {
                "subject": row.subject,
                "slice": part,
                "frame": frame,
                "central": part == 0 and frame == 0,
                "flags": "",
                "sick": row.diagnosis == "hf",
            }
            for row in subjects.itertuples()
            for part, frame in (SHIFTS if row.split in ("train", "extra") else [(0, 0)])
        ]
        index = pd.DataFrame(rows)
        seeds = [(int(row.subject[3:]), row.slice + 1, row.frame + 1) for row in index.itertuples()]
        images, masks = _hearts(index.pop("sick").to_numpy(bool), seeds=seeds, pixels=self.pixels)
        return Stacks(
            images, masks, index, pd.DataFrame({"subject": [], "reason": []}, dtype=object)
        )


def fake_set(folder: Path, cohort: Store, *, count: int, pixels: int = 16, lost: int = 0) -> Store:
    """A synthetic set of `count` images from the cohort's training subjects, groups in turn, after
    `lost` that failed."""
    subjects = with_groups(cohort.subjects.drop(columns=["age_band", "bmi_band", "label", "group"]))
    train = subjects[subjects.split == "train"].copy()
    train["turn"] = train.groupby("group").cumcount()
    order = train.sort_values(["turn", "group"])
    index = order.iloc[np.arange(count) % len(order)].reset_index(drop=True)
    first = cohort.index.reset_index().groupby("subject")["index"].first()
    index = index.assign(
        row=np.arange(count) + lost,
        source_row=index.subject.map(first),
        prompt="a heart",
        seed=np.arange(count),
        sampler="unipc",
        steps=8,
        guidance=2.0,
        strength=1.0,
        borrowed="",
        negative="",
        angle=0.0,
        zoom=1.0,
        dy=0.0,
        dx=0.0,
    )
    seeds = [(10_000, k, 0) for k in range(count)]
    images, masks = _hearts(index.label.to_numpy(int) == 1, seeds=seeds, pixels=pixels)
    settings = {
        "cohort": cohort.folder.name,
        "cohort_fingerprint": cohort.fingerprint,
        "count": count,
        "generator": "made up",
        "sampler": "unipc",
        "steps": 8,
        "guides": "prompt",
        "plan": "made up",
    }
    writer = Writer(folder, pixels=pixels, settings=settings)
    writer.append(images, masks, index[list(PROVENANCE)])
    return writer.finish(planned=count + lost)


def _hearts(
    sick: np.ndarray, *, seeds: list[tuple[int, int, int]], pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2, P, P) images and masks: a bright square that shrinks in systole, less so in the
    sick."""
    images = np.stack(
        [np.random.default_rng(seed).integers(0, 60, (2, pixels, pixels)) for seed in seeds]
    )
    masks = np.zeros_like(images)
    middle = pixels // 2
    for half, phase, who in (
        (pixels // 4, 0, np.ones_like(sick)),
        (pixels // 4 - 1, 1, sick),
        (pixels // 8, 1, ~sick),
    ):
        inside = slice(middle - half, middle + half)
        wall = slice(middle - half - 1, middle + half + 1)
        rows = np.flatnonzero(who)
        masks[rows, phase, wall, wall] = MYO
        masks[rows, phase, inside, inside] = LV
        masks[rows, phase, inside, 1 : middle - half - 1] = RV
        images[rows, phase, inside, inside] += 150
    return images.astype(np.uint8), masks.astype(np.uint8)
