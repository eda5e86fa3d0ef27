"""How the audit looks: its tables, and the pairs that came nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmrdata.batch import PHASES
from cmrstudy.figures import image_grid
from cmrstudy.report import Shown


def audit_tests(tests: pd.DataFrame) -> Shown:
    """`Audit.tests`."""
    return Shown(tests, "Audit: tests of the whole set against held-out people")


def audit_groups(groups: pd.DataFrame) -> Shown:
    """`Audit.groups`."""
    return Shown(groups, "Audit: candidate copies, authenticity and C_T per group")


def audit_of_whole_set(groups: pd.DataFrame) -> Shown:
    """The rows of `Audit.groups` on the whole set."""
    whole = groups[groups.group == "all"]
    return Shown(whole, "Audit of the whole set (audit.csv has every group)")


def audit_sources(sources: pd.DataFrame) -> Shown:
    """`Audit.sources`."""
    return Shown(
        sources,
        "Audit: nearest-neighbour similarity to the subject whose mask and prompt were used",
    )


def membership_attack(attack: pd.DataFrame) -> Shown:
    """`generator_attack`."""
    return Shown(attack, "Membership attack by the generator's loss, 95 % intervals")


def copy_pairs(synthetic: np.ndarray, training: np.ndarray, similarity: Sequence[float]) -> Figure:
    """Synthetic images beside their nearest training images, a row each, with their similarity.

    It shows real images: save it nowhere but in a folder that stays with the cohort's data.

    Args:
        synthetic: (k, 2, P, P) uint8.
        training: (k, 2, P, P) uint8.
        similarity: of each pair.
    """
    rows = [[a[0], b[0], a[1], b[1]] for a, b in zip(synthetic, training, strict=True)]
    heads = [f"{kind} {phase}" for phase in PHASES for kind in ("synthetic", "training")]
    return image_grid(rows, [f"{value:.3f}" for value in similarity], heads)
