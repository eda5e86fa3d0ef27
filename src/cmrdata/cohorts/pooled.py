"""Several cohorts as one: each subject keeps its source, and is read by its own reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.cohorts.reading.column_report import columns_table
from cmrdata.orientation import check_orient
from cmrdata.origin import Source
from cmrdata.protocol import Cohort, Stacks


class Pooled(Cohort):
    """The cohorts named in `of`, split together; see `cmrdata.protocol.Cohort`.

    cohorts: name -> cohort; all give pictures of `pixels`, turned alike (`orient`), or the turn
        would tell the source, and with `cine` heartbeats of so many frames. A cohort's own split,
        seed and undersampling do not count.
    """

    def __init__(
        self,
        *,
        cohorts: Mapping[str, Cohort],
        of: Sequence[str],
        pixels: int = 64,
        fov_mm: float = 165.0,
        seed: int = 0,
        controls_per_case: float | None = None,
        max_rejected: float = 0.05,
        orient: str = "masks",
        fold: int | None = None,
        cine: int | None = None,
        name: str = "pooled",
    ) -> None:
        if unknown := [member for member in of if member not in cohorts]:
            raise ValueError(f"cohort.of names {', '.join(unknown)}; it takes {', '.join(cohorts)}")
        if not of or len(set(of)) < len(of):
            raise ValueError(f"cohort.of is {list(of)}; name one or more cohorts, each once")
        self.members = {cohorts[member].name: cohorts[member] for member in of}
        if len(self.members) < len(of):
            raise ValueError(
                f"the cohorts {', '.join(of)} share a name; give each its own, so that sources "
                "can be told apart"
            )
        if odd := [member for member, cohort in self.members.items() if cohort.pixels != pixels]:
            raise ValueError(
                f"cohort {odd[0]} has {self.members[odd[0]].pixels} pixels, the pool {pixels}; "
                "give all the same"
            )
        for member, cohort in self.members.items():
            turned = orient if cohort.orient is None else cohort.orient
            for setting, own, wanted in (
                ("cine", cohort.cine, cine),
                ("orient", turned, orient),
            ):
                if own != wanted:
                    raise ValueError(
                        f"cohort {member} has {setting}={own}, the pool {wanted}; give all the same"
                    )
        self.name, self.pixels, self.fov_mm, self.seed, self.cine = name, pixels, fov_mm, seed, cine
        self.orient = check_orient(orient)
        self.controls_per_case, self.max_rejected, self.fold = controls_per_case, max_rejected, fold

        self.reach = max(cohort.reach for cohort in self.members.values())
        self.salt_root = next(
            (cohort.salt_root for cohort in self.members.values() if cohort.salt_root), None
        )
        self.watched = tuple(
            f"{name}.{key}" for name, cohort in self.members.items() for key in cohort.watched
        )

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "orient": self.orient,
            "members": {name: cohort.settings for name, cohort in self.members.items()},
        }

    @property
    def places(self) -> dict[str, str | None]:
        return {
            f"{name}.{key}": place
            for name, cohort in self.members.items()
            for key, place in cohort.places.items()
        }

    def source(self) -> Source:
        sources = {name: cohort.source() for name, cohort in self.members.items()}
        ids = [
            f"{name}/{identifier}" for name, source in sources.items() for identifier in source.ids
        ]
        return Source(
            ids,
            {
                subject: files
                for source in sources.values()
                for subject, files in source.files.items()
            },
        )

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        listed = {name: cohort.subjects() for name, cohort in self.members.items()}
        tables = [
            table.drop(columns="split", errors="ignore").assign(source=name).astype(object)
            for name, (table, _) in listed.items()
            if len(table)
        ]
        pooled = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        return pooled, pd.concat([gone for _, gone in listed.values()], ignore_index=True)

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        parts = [
            self.members[str(source)].stacks(rows)
            for source, rows in subjects.groupby("source", sort=False)
        ]
        index = pd.concat([part.index for part in parts])
        place = {subject: k for k, subject in enumerate(subjects.subject)}
        order = np.argsort(index.subject.map(place).to_numpy(), kind="stable")
        images, masks = (np.concatenate([part[k] for part in parts])[order] for k in (0, 1))
        rejected = pd.concat([part.rejected for part in parts], ignore_index=True)
        return Stacks(images, masks, index.iloc[order].reset_index(drop=True), rejected)

    @property
    def expected(self) -> str:  # type: ignore[override]
        """What each member's files must be."""
        return " ".join(f"{name}: {cohort.expected}" for name, cohort in self.members.items())

    def notes(self) -> list[str]:
        return [
            f"{name}: {note}" for name, cohort in self.members.items() for note in cohort.notes()
        ]

    def columns(self) -> pd.DataFrame:
        tables = {name: cohort.columns() for name, cohort in self.members.items()}
        parts = [table.assign(file=name + ": " + table.file) for name, table in tables.items()]
        return pd.concat([columns_table([]), *parts], ignore_index=True)
