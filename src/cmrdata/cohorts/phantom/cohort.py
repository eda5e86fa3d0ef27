"""A seeded, vectorised phantom of short-axis cine MRI whose anatomy follows sex, age, BMI and heart
failure.

It lets every command run without patient data, and gives ground truth that no real cohort has.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.cohorts.phantom.painting import ES_FRAME, render
from cmrdata.cohorts.phantom.people import anatomy, draw_people
from cmrdata.protocol import Cohort, Stacks
from cmrdata.subjects import split, with_groups

# a phantom has no unreadable subjects
NOBODY = pd.DataFrame({"subject": [], "reason": []}, dtype=str)
# slice (basal to apical) and frame of the nine stacks
OFFSETS = [(j, i) for j in (-1, 0, 1) for i in (-1, 0, 1)]


class Phantom(Cohort):
    """A cohort of `subjects` drawn people, plus `test_subjects` fresh ones that only enlarge the
    test split.

    design: "natural" draws attributes as in UK Biobank imaging and heart failure by a logistic
        model calibrated to PREVALENCE times `hf_scale`; "uniform" draws the 18 attribute cells
        equally often.
    hf_share: fixed share of heart failure, independent of attributes (0 for a healthy cohort); None
        = the model.
    fov_mm, pixels: side of the square crop, in mm and in pixels.
    cine: frames of the heartbeat that an image holds in place of ED and ES.
    """

    max_rejected = 0.0

    fov_mm: float

    def __init__(
        self,
        *,
        subjects: int = 25480,
        test_subjects: int = 0,
        seed: int = 0,
        design: str = "natural",
        hf_scale: float = 1.0,
        hf_share: float | None = None,
        pixels: int = 64,
        fov_mm: float = 165.0,
        controls_per_case: float | None = 4,
        fold: int | None = None,
        cine: int | None = None,
        name: str = "phantom",
    ) -> None:
        if design not in ("natural", "uniform"):
            raise ValueError(f"cohort.design is {design!r}; it takes natural or uniform")
        if subjects < 1 or test_subjects < 0:
            raise ValueError(
                f"a phantom of {subjects} + {test_subjects} subjects cannot be drawn; give at "
                "least 1 + 0"
            )
        if hf_scale <= 0 or (hf_share is not None and not 0 <= hf_share <= 1):
            raise ValueError(
                f"hf_scale is {hf_scale} and hf_share {hf_share}; give a scale above 0, and a "
                "share in 0..1 or none"
            )
        if fold is not None and test_subjects:
            raise ValueError(
                f"cohort.test_subjects={test_subjects} with fold={fold}: every fold would test "
                "them; give 0"
            )
        self.name, self.pixels, self.fov_mm, self.seed, self.fold = name, pixels, fov_mm, seed, fold
        self.controls_per_case, self.cine = controls_per_case, cine
        self.count, self.test_count = subjects, test_subjects
        self.design: dict[str, Any] = {"design": design, "hf_scale": hf_scale, "hf_share": hf_share}

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "subjects": self.count,
            "test_subjects": self.test_count,
            **self.design,
            "version": 1,
        }

    @cached_property
    def _drawn(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(people, their anatomy), drawn when they are needed."""
        # fresh people have a stream of their own
        rngs = [np.random.default_rng(self.seed), np.random.default_rng((self.seed, 1))]
        parts = [
            draw_people(n, rng, **self.design)
            for n, rng in zip((self.count, self.test_count), rngs, strict=True)
            if n
        ]
        people = pd.concat(parts, ignore_index=True)
        people.insert(0, "subject", [f"SYN{k:06d}" for k in range(len(people))])
        people.insert(1, "source", self.name)
        hearts = [anatomy(part, rng) for part, rng in zip(parts, rngs, strict=False)]
        return people, pd.concat(hearts, ignore_index=True)

    @property
    def people(self) -> pd.DataFrame:
        return self._drawn[0]

    @property
    def anatomy(self) -> pd.DataFrame:
        return self._drawn[1]

    @property
    def fresh(self) -> np.ndarray:
        """(subjects,) bool: who only enlarges the test split."""
        return np.arange(len(self.people)) >= self.count

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table = self.people.assign(
            state=np.where(self.people.diagnosis == "hf", "prevalent", "none"), split="test"
        )
        table.loc[~self.fresh, "split"] = split(
            with_groups(table[~self.fresh]), seed=self.seed, fold=self.fold
        )
        return table, NOBODY

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        """Nine stacks (three cines) of each training subject, the central one of all others, masks
        exact for every frame."""
        numbers = subjects.subject.str[3:].astype(int).to_numpy()
        offsets = [(j, i) for j, i in OFFSETS if i == 0 or not self.cine]
        wanted = [
            (n, j, i)
            for n, s in zip(numbers, subjects.split, strict=True)
            for j, i in (offsets if s in ("train", "extra") else [(0, 0)])
        ]
        number, z, t = (np.array(v) for v in zip(*wanted, strict=True))
        images, masks = render(
            self.anatomy.iloc[number],
            slices=z,
            frames=t,
            pixels=self.pixels,
            fov_mm=self.fov_mm,
            seeds=[
                (self.seed, int(n), int(k))
                for n, k in zip(number, (z + 1) * 3 + t + 1, strict=True)
            ],
            cine=self.cine,
        )
        index = pd.DataFrame(
            {
                "subject": self.people.subject.to_numpy()[number],
                "slice": z,
                "frame": t,
                "central": (z == 0) & (t == 0),
                "flags": "",
                "ed_frame": 0,
                "es_frame": ES_FRAME,
            }
        )
        return Stacks(images, masks, index, NOBODY)
