"""UK Biobank's cardiac MRI in the layout of github.com/baiwenjia/ukbb_cardiac, beside a table of its participants.

Short-axis cines (field 20209) of the imaging visits; S. Petersen et al. 2016, doi 10.1186/s12968-016-0227-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohort import hashed, read_salt
from cmrdata.disk import fingerprint
from cmrdata.orientation import check_orient
from cmrdata.protocol import Stacks
from cmrdata.readers.folders import counted, nothing_in, somewhere_else
from cmrdata.readers.ukbb_folders import FIRST, REPEAT, Folder, holds_participants, list_folders, sizes
from cmrdata.readers.ukbb_scan import KINDS, read_scan
from cmrdata.readers.ukbb_table import read_exclusions, read_table
from cmrdata.slices import Scan, collect

CANONICAL = {"lv": LV, "myo": MYO, "rv": RV}
COLUMNS = ["sex", "age", "bmi", "diagnosis", "state", "conditions", "site", "ethnicity", "townsend", "table_flags"]
DEPRIVATION = np.array(["low", "middle", "high"], object)
EXPECTED = {
    "root": "a folder per participant as github.com/baiwenjia/ukbb_cardiac writes it, <id>, <id>_2_0, <id>_20209_2_0 or "
    "<id>_retest, each with sa.nii.gz and seg_sa.nii.gz, or label_sa_ED.nii.gz, label_sa_ES.nii.gz and sa_ES.nii.gz",
    "table": "a CSV or TSV of participants with UK Biobank's field numbers as columns, such as eid, 31-0.0, 53-2.0",
    "exclude": "a file with the id of one withdrawn participant in each line",
}


class UKBB:
    """The participants below `root` that `table` describes; see `cmrdata.store.Cohort`. Making one touches no file.

    root: holds a folder per participant (field 20209 converted), named by id, with the visit in it or not.
    table: the fields of participants, CSV or TSV; `codes`, `without`, `source`, `conditions` as in
        `ukbb_table.read_table`. exclude: file of withdrawn ids, left out before anything else.
    instance: imaging visit, 2 or 3 (the repeat). Where the names of `root` tell visits apart, plain names are visit 2.
    labels: "network" (seg_sa), "manual" (label_sa) or "auto", the network's where there are any.
    label_map: value of lv, myo and rv in the files; every other value but 0 is refused.
    frames: number of frames of every cine, where known: tells the time axis, as 50 does by itself.
    default_spacing: mm of a pixel, for headers without a usable one.
    orient: what turns a heart upright, "masks", "header" or "none"; see `cmrdata.orientation`.
    reach: slices to each side of the centre that a training subject gives (paper: 1).
    cine: frames of the heartbeat that an image holds in place of ED and ES; who has no cine is rejected.
    salt_root: the folder that keeps the secret by which participants are renamed.
    """

    expected = f"Expected is {EXPECTED['root']}. Give cohort.root=<path> or set CMR_UKBB_ROOT."

    def __init__(
        self,
        *,
        root: str | Path | None,
        table: str | Path | None,
        exclude: str | Path | None = None,
        instance: int = 2,
        labels: str = "auto",
        label_map: Mapping[str, int] | None = None,
        codes: str | Sequence[str] = "standard",
        without: Sequence[str] = (),
        source: str = "hospital",
        conditions: Sequence[str] = (),
        pixels: int = 64,
        fov_mm: float = 165.0,
        reach: int = 1,
        seed: int = 0,
        controls_per_case: float | None = None,
        max_rejected: float = 0.05,
        default_spacing: float | None = None,
        frames: int | None = None,
        orient: str = "masks",
        fold: int | None = None,
        cine: int | None = None,
        salt_root: str | Path = "data",
        name: str = "ukbb",
    ) -> None:
        if instance not in (FIRST, REPEAT):
            raise ValueError(f"cohort.instance is {instance}; imaging visits are 2 and, repeated, 3")
        if labels not in KINDS:
            raise ValueError(f"cohort.labels is {labels!r}; it takes {', '.join(KINDS)}")
        values = dict(label_map or {"lv": 1, "myo": 2, "rv": 3})
        if set(values) != set(CANONICAL) or len({0, *values.values()}) < 4:
            raise ValueError(f"cohort.label_map is {values}; it takes lv, myo and rv, each its own value above 0")
        self.name, self.root, self.table, self.exclude = name, root, table, exclude
        self.pixels, self.fov_mm, self.reach, self.seed = pixels, fov_mm, reach, seed
        self.controls_per_case, self.max_rejected, self.salt_root = controls_per_case, max_rejected, Path(salt_root)
        self.instance, self.labels, self.label_map, self.orient = instance, labels, values, check_orient(orient)
        self.frames, self.default_spacing, self.fold, self.cine = frames, default_spacing, fold, cine
        self.phenotype: dict[str, Any] = {"codes": codes if isinstance(codes, str) else list(codes), "without": list(without),
                          "source": source, "conditions": list(conditions)}  # fmt: skip

    @cached_property
    def settings(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "fov_mm": self.fov_mm, "seed": self.seed, "reach": self.reach,
                "controls_per_case": self.controls_per_case, "instance": self.instance, "labels": self.labels,
                "label_map": self.label_map, "frames": self.frames, "default_spacing": self.default_spacing,
                "orient": self.orient, **self.phenotype, "files": fingerprint({"sizes": sizes(self._folders.values())}),
                **({"cine": self.cine} if self.cine else {})}  # fmt: skip

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row per participant in the order of the original ids, so that the split does not depend on the salt.

        Beside the cohort's columns: state, conditions, site, ethnicity, townsend, townsend_band (deprivation, thirds of
        this cohort), table_flags and label_source. No original id, no date.
        """
        faults = {key: folder.fault for key, folder in self._folders.items() if folder.fault}
        faults |= dict.fromkeys(self._folders.keys() - set(self._rows.index), "no row in the table")
        faults = {key: fault for key, fault in faults.items() if key not in self._foreign}
        kept = [key for key in self._folders if key not in faults and key not in self._foreign]
        table = self._rows.loc[kept, COLUMNS].reset_index(drop=True)
        table.insert(0, "subject", [self._renamed[key] for key in kept])
        table.insert(1, "source", self.name)
        table["townsend_band"] = _thirds(table.townsend)
        table["label_source"] = ["manual" if self._folders[key].manual else "network" for key in kept]
        rejected = [(self._renamed[key], faults[key]) for key in self._folders if key in faults]
        return table, pd.DataFrame(rejected, columns=["subject", "reason"])

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        mapping = {0: BACKGROUND, **{value: CANONICAL[what] for what, value in self.label_map.items()}}

        def scan(subject: str, expand: bool) -> Scan:
            folder = self._folders[self._original[subject]]
            return read_scan(folder.paths(), mapping=mapping, expand=expand, manual=folder.manual, frames=self.frames,
                             default_spacing=self.default_spacing, cine=self.cine)  # fmt: skip

        return collect(subjects, scan, pixels=self.pixels, fov_mm=self.fov_mm, reach=self.reach, cine=self.cine,
                       orient=self.orient)  # fmt: skip

    def notes(self) -> list[str]:
        """What was left out when folders, table and exclusions were joined, counted."""
        rows = self._rows
        joined = {
            "image folder# without a row in the table": len(self._folders.keys() - set(rows.index) - self._foreign),
            "foreign folder# passed over (neither images nor a row in the table)": len(self._foreign),
            "table row# without an image folder": rows.attrs.get("rows", len(rows)) - len(rows),
        }
        return self._listed[1] + counted(joined)

    @property
    def _folders(self) -> dict[str, Folder]:
        """Image folders by original id, in its order; nobody withdrawn."""
        return self._listed[0]

    @cached_property
    def _listed(self) -> tuple[dict[str, Folder], list[str]]:
        root, withdrawn = self._given("root"), read_exclusions(self._given("exclude")) if self.exclude else frozenset()
        folders, notes = list_folders(root, instance=self.instance, labels=self.labels, withdrawn=withdrawn)
        if all(folder.bare for folder in folders.values()):
            found = f" ({'; '.join(notes)})" if notes else ""
            where = nothing_in(root) if not notes else f"cohort.root={root}"
            raise FileNotFoundError(
                f"cohort {self.name}: no folder of imaging visit {self.instance} in {where}{found}."
                f"{somewhere_else(root, holds_participants)} {self.expected}"
            )
        return folders, notes

    @cached_property
    def _foreign(self) -> set[str]:
        """Folders named like a participant's that hold nothing of one and that the table does not know."""
        return {key for key, folder in self._folders.items() if folder.bare} - set(self._rows.index)

    @cached_property
    def _rows(self) -> pd.DataFrame:
        """The table's rows of those who have a folder, by original id."""
        return read_table(self._given("table"), ids=self._folders.keys(), instance=self.instance, **self.phenotype)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        salt = read_salt(self.salt_root)
        return {key: hashed(key, salt) for key in self._folders}

    @cached_property
    def _original(self) -> dict[str, str]:
        return {subject: key for key, subject in self._renamed.items()}

    def _given(self, setting: str) -> Path:
        """The path of a setting. Raises FileNotFoundError, saying what belongs there, when it is not set or not there."""
        path = getattr(self, setting)
        if path and Path(path).exists():
            return Path(path)
        variable = f" or set CMR_UKBB_{setting.upper()}" if setting != "exclude" else ""
        raise FileNotFoundError(
            f"cohort {self.name}: cohort.{setting} is {f'{path}, which is not there' if path else 'not set'}. "
            f"Expected is {EXPECTED[setting]}. Give cohort.{setting}=<path>{variable}."
        )


def _thirds(townsend: pd.Series) -> pd.Series:
    """low, middle or high deprivation by thirds of the values there are; unknown stays missing."""
    edges = townsend.quantile([1 / 3, 2 / 3])
    bands = DEPRIVATION[np.digitize(townsend.fillna(0), edges.fillna(0), right=True)]
    return pd.Series(bands, index=townsend.index, dtype=object).where(townsend.notna(), None)
