"""A synthetic set and its cohort as the judges see them: measured once, read by every section of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmrdata.store import Store
from cmrgen.evaluation.judges import Judged, Judges, judge


class Measured(NamedTuple):
    """A set and its cohort as the judges see them, measured once for all sections."""

    cohort: Store
    made: Store
    networks: Judges
    held: np.ndarray  # the cohort's rows of val and test
    real: Judged  # of those rows
    synthetic: Judged
    folder: Path  # for tables; pictures go into its figures/


def measure(cohort: Store, made: Store, networks: Judges, folder: Path) -> Measured:
    """Judge held-out real images and the set's."""
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    real, synthetic = judge(networks, cohort.images[held]), judge(networks, np.asarray(made.images))
    return Measured(cohort, made, networks, held, real, synthetic, folder)


def facts(found: Measured) -> dict[str, Any]:
    """Provenance rows of the report."""
    made, settings = found.made, found.made.meta["settings"]
    return {
        "synthetic set": f"{made.folder} ({len(made.index):,} images, {made.index.group.nunique()} groups)",
        "synthetic fingerprint": made.fingerprint,
        "generator": settings["generator"],
        "sampler": f"{settings['sampler']}, {settings['steps']} steps",
        "judges": ", ".join(f"{name}: {card['steps']} steps" for name, card in found.networks.card.items()),
    }
