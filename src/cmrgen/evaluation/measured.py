"""A synthetic set and its cohort as the judges see them: measured once, read by every section of
the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cmrdata.selection import Selection, everything
from cmrdata.store import Store
from cmrgen.evaluation.adherence.scores import derangement
from cmrgen.evaluation.device import named
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
    # of the set: the row whose mask tells what chance reaches; None for one image
    others: np.ndarray | None = None

    @property
    def device(self) -> torch.device:
        """Where all networks of this evaluation run."""
        return self.networks.device

    def places(self, store: Store, name: str) -> list[Path]:
        """Where what is computed from a set is kept, as `cache_folder` takes it."""
        return places(store, name, folder=self.folder)


def measure(cohort: Store, made: Store, networks: Judges, folder: Path, *, seed: int) -> Measured:
    """Judge held-out real images and the set's, with masks of their own and, by `seed`, of
    others."""
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    others = derangement(len(made.index), seed=seed) if len(made.index) > 1 else None
    real = judge(
        networks,
        Selection(cohort.images, held),
        Selection(cohort.masks, held),
        what="held-out images",
    )
    synthetic = judge(
        networks,
        everything(made.images),
        everything(made.masks),
        others=None if others is None else Selection(made.masks, others),
        what="synthetic images",
    )
    return Measured(cohort, made, networks, held, real, synthetic, folder, others)


def places(store: Store, name: str, *, folder: Path) -> list[Path]:
    """The folder `name` of a set, and one beside the report in `folder` for a set that may not be
    written."""
    return [store.folder / name, folder.parent / "private" / name]


def facts(found: Measured) -> dict[str, Any]:
    """Provenance rows of the report."""
    made, settings = found.made, found.made.meta["settings"]
    return {
        "synthetic set": f"{made.folder} ({len(made.index):,} images, {made.index.group.nunique()} groups)",
        "synthetic fingerprint": made.fingerprint,
        "generator": settings["generator"],
        "sampler": f"{settings['sampler']}, {settings['steps']} steps",
        "networks on": named(found.device),
        "judges": ", ".join(
            f"{name}: {card['steps']} steps" for name, card in found.networks.card.items()
        ),
    }
