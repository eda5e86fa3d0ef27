"""Images of phantom people, and the blur that unrelated filters leave on them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from cmrdata.cohorts.phantom.cohort import Phantom


@cache
def images_of_people() -> tuple[np.ndarray, np.ndarray]:
    """(images, subjects), 64 px."""
    cohort = Phantom(subjects=120, hf_scale=20, pixels=64, controls_per_case=None)
    people = cohort.subjects()[0]
    stacks = cohort.stacks(people.assign(split="test"))
    return stacks.images, stacks.index.subject.to_numpy()


def smoothed(images: np.ndarray) -> np.ndarray:
    """What enlarging eightfold and shrinking by unrelated filters did: [1/6, 2/3, 1/6] along each
    axis."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), size=(512, 512), mode="bilinear"
    )
    small = torch.nn.functional.interpolate(
        large, size=images.shape[-2:], mode="bilinear", antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8).numpy()
