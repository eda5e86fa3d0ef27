"""UK Biobank's cardiac MRI in the layout of github.com/baiwenjia/ukbb_cardiac, beside a table of
its participants.

Short-axis cines (field 20209) of the imaging visits; S. Petersen et al. 2016, doi
10.1186/s12968-016-0227-4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohorts.reading.file_kinds import table_paths
from cmrdata.cohorts.reading.folders import counted, nothing_in, somewhere_else
from cmrdata.cohorts.reading.ids import id_pattern, id_patterns
from cmrdata.cohorts.ukbb.folders import FIRST, REPEAT, Folder, holds_participants, list_folders
from cmrdata.cohorts.ukbb.scan import SEGMENTATIONS, read_scan
from cmrdata.cohorts.ukbb.table import Table, read_exclusions, read_people
from cmrdata.orientation import check_orient
from cmrdata.origin import Source
from cmrdata.protocol import Cohort, Stacks
from cmrdata.pseudonyms import renamed
from cmrdata.slices import Scan, collect

CANONICAL = {"lv": LV, "myo": MYO, "rv": RV}
PERSON_COLUMNS = [
    "sex",
    "age",
    "bmi",
    "diagnosis",
    "state",
    "case_sources",
    "conditions",
    "site",
    "ethnicity",
    "townsend",
    "table_flags",
]
DEPRIVATION = np.array(["low", "middle", "high"], object)
# share of the image folders that must have a row in the table, unless cohort.max_rejected allows
# fewer
LEAST_MATCHED = 0.5
EXPECTED = {
    "root": (
        "a folder per participant as github.com/baiwenjia/ukbb_cardiac writes it, <id>, <id>_2_0, "
        "<id>_20209_2_0 or <id>_retest, each with sa.nii.gz and seg_sa.nii.gz, or "
        "label_sa_ED.nii.gz, label_sa_ES.nii.gz and sa_ES.nii.gz"
    ),
    "table": (
        "a CSV, TSV or Parquet of participants with UK Biobank's fields as columns, such as eid, "
        "31-0.0, 53-2.0, or several as a list or with *, joined by id"
    ),
    "diagnoses": (
        "a CSV, TSV or Parquet with a row per event, such as eid, diag_icd10, epistart, or "
        "hesin_diag and hesin"
    ),
    "exclude": "a file with the id of one withdrawn participant in each line",
}


class UKBB(Cohort):
    """The participants below `root` that `table` describes; see `cmrdata.protocol.Cohort`. Making
    one touches no file.

    root: holds a folder per participant (field 20209 converted), named by id, with the visit in it
        or not.
    table: the fields of participants, in one or several files (a list or a pattern with *);
        diagnoses: record-level files, a further source; `codes`, `without`, `source`, `level`,
        `conditions` as in `ukbb_table.read_people`.
    exclude: file of withdrawn ids, left out before anything else.
    max_rejected: share of the participants that may be unreadable, and of whom the table may be not
        understood.
    instance: imaging visit, 2 or 3 (the repeat). Where the names of `root` tell visits apart, plain
        names are visit 2.
    labels: "network" (seg_sa), "manual" (label_sa) or "auto", the network's where there are any.
    label_map: value of lv, myo and rv in the files; every other value but 0 is refused.
    frames: number of frames of every cine, where known: tells the time axis, as 50 does by itself.
    default_spacing: mm of a pixel, for headers without a usable one.
    orient: what turns a heart upright, "masks", "header" or "none"; see `cmrdata.orientation`.
    reach: slices to each side of the centre that a training subject gives (paper: 1).
    cine: frames of the heartbeat that an image holds in place of ED and ES; who has no cine is
        rejected.
    salt_root: the folder that keeps the secret by which participants are renamed.
    """

    expected = f"Expected is {EXPECTED['root']}. Give cohort.root=<path> or set CMR_UKBB_ROOT."

    fov_mm: float
    orient: str

    def __init__(
        self,
        *,
        root: str | Path | None,
        table: str | Path | Sequence[str | Path] | None,
        diagnoses: str | Path | Sequence[str | Path] | None = None,
        exclude: str | Path | None = None,
        instance: int = 2,
        labels: str = "auto",
        label_map: Mapping[str, int] | None = None,
        codes: str | Sequence[str] = "standard",
        without: Sequence[str] = (),
        source: str | Sequence[str] = "hospital",
        level: str = "all",
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
            raise ValueError(
                f"cohort.instance is {instance}; imaging visits are 2 and, repeated, 3"
            )
        if labels not in SEGMENTATIONS:
            raise ValueError(f"cohort.labels is {labels!r}; it takes {', '.join(SEGMENTATIONS)}")
        values = dict(label_map or {"lv": 1, "myo": 2, "rv": 3})
        if set(values) != set(CANONICAL) or len({0, *values.values()}) < 4:
            raise ValueError(
                f"cohort.label_map is {values}; it takes lv, myo and rv, each its own value above 0"
            )
        self.name, self.root, self.table, self.exclude = name, root, table, exclude
        self.diagnoses = diagnoses
        self.pixels, self.fov_mm, self.reach, self.seed = pixels, fov_mm, reach, seed
        self.controls_per_case, self.max_rejected = controls_per_case, max_rejected
        self.salt_root: Path = Path(salt_root)
        self.instance, self.labels, self.label_map, self.orient = (
            instance,
            labels,
            values,
            check_orient(orient),
        )
        self.frames, self.default_spacing, self.fold, self.cine = (
            frames,
            default_spacing,
            fold,
            cine,
        )
        self.phenotype: dict[str, Any] = {
            "codes": codes if isinstance(codes, str) else list(codes),
            "without": list(without),
            "source": [source] if isinstance(source, str) else list(source),
            "level": level,
            "conditions": list(conditions),
        }

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings,
            "reach": self.reach,
            "instance": self.instance,
            "labels": self.labels,
            "label_map": self.label_map,
            "frames": self.frames,
            "default_spacing": self.default_spacing,
            "orient": self.orient,
            **self.phenotype,
            "records": bool(self.diagnoses),
        }

    watched = ("exclude",)

    @property
    def places(self) -> dict[str, str | None]:
        told: dict[str, str | None] = {}
        for key in ("root", "table", "diagnoses", "exclude"):
            given = getattr(self, key)
            several = [given] if given is None or isinstance(given, str | Path) else list(given)
            told |= {
                f"{key}.{k}" if k else key: str(place) if place else None
                for k, place in enumerate(several)
            }
        return told

    def source(self) -> Source:
        files = {
            self._renamed[key]: list(folder.paths().values())
            for key, folder in self._folders.items()
        }
        return Source(list(self._folders), files)

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row per participant in the order of the original ids, so that the split does not depend
        on the salt.

        Beside the cohort's columns: state, case_sources, conditions, site, ethnicity, townsend,
        townsend_band (deprivation, thirds of this cohort), table_flags and label_source. No
        original id, no date. Raises ValueError where too few folders have a row in the table, or
        its labels would mean nothing.
        """
        self._require_rows()
        faults = {key: folder.fault for key, folder in self._folders.items() if folder.fault}
        faults |= dict.fromkeys(self._folders.keys() - set(self._rows.index), "no row in the table")
        faults = {key: fault for key, fault in faults.items() if key not in self._foreign}
        kept = [key for key in self._folders if key not in faults and key not in self._foreign]
        table = self._rows.loc[kept, PERSON_COLUMNS].reset_index(drop=True)
        table.insert(0, "subject", [self._renamed[key] for key in kept])
        table.insert(1, "source", self.name)
        table["townsend_band"] = _thirds(table.townsend)
        table["label_source"] = [
            "manual" if self._folders[key].manual else "network" for key in kept
        ]
        rejected = [(self._renamed[key], faults[key]) for key in self._folders if key in faults]
        self._require_labels(table)
        return table, pd.DataFrame(rejected, columns=["subject", "reason"])

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        mapping = {
            0: BACKGROUND,
            **{value: CANONICAL[what] for what, value in self.label_map.items()},
        }

        def scan(subject: str, expand: bool) -> Scan:
            folder = self._folders[self._original[subject]]
            return read_scan(
                folder.paths(),
                mapping=mapping,
                expand=expand,
                manual=folder.manual,
                frames=self.frames,
                default_spacing=self.default_spacing,
                cine=self.cine,
            )

        return collect(
            subjects,
            scan,
            pixels=self.pixels,
            fov_mm=self.fov_mm,
            reach=self.reach,
            cine=self.cine,
            orient=self.orient,
        )

    def withdrawn(self) -> set[str]:
        if not self.exclude:
            raise ValueError(f"cohort.exclude is not set; give {EXPECTED['exclude']}")
        return set(
            renamed(sorted(read_exclusions(self._given("exclude"))), self.salt_root).values()
        )

    def notes(self) -> list[str]:
        """What was left out when folders, table and exclusions were joined, counted, and what of
        the table is uncertain."""
        joined = {
            "image folder# without a row in the table": len(
                self._folders.keys() - set(self._rows.index) - self._foreign
            ),
            "foreign folder# passed over (neither images nor a row in the table)": len(
                self._foreign
            ),
            "table row# without an image folder": len(self._table.everyone) - len(self._rows),
        }
        return [*self._listed[1], *counted(joined), *self._table.notes]

    def columns(self) -> pd.DataFrame:
        """What was understood of each column in use; see `column_report.columns_table`."""
        return self._table.columns

    @property
    def _folders(self) -> dict[str, Folder]:
        """Image folders by original id, in its order; nobody withdrawn."""
        return self._listed[0]

    @cached_property
    def _listed(self) -> tuple[dict[str, Folder], list[str]]:
        root, withdrawn = (
            self._given("root"),
            read_exclusions(self._given("exclude")) if self.exclude else frozenset(),
        )
        folders, notes = list_folders(
            root, instance=self.instance, labels=self.labels, withdrawn=withdrawn
        )
        if self.exclude and not any("withdrawn" in note for note in notes):
            notes.append(self._matching_nobody(withdrawn, folders))
        if all(folder.bare for folder in folders.values()):
            found = f" ({'; '.join(notes)})" if notes else ""
            where = nothing_in(root) if not notes else f"cohort.root={root}"
            raise FileNotFoundError(
                f"cohort {self.name}: no folder of imaging visit {self.instance} in {where}{found}."
                f"{somewhere_else(root, holds_participants)} {self.expected}"
            )
        return folders, notes

    @cached_property
    def _table(self) -> Table:
        """What the tables say of those who have a folder."""
        given = self._given_files("table")
        records = self._given_files("diagnoses") if self.diagnoses else None
        return read_people(
            given,
            ids=self._folders.keys(),
            instance=self.instance,
            diagnoses=records,
            tolerated=self.max_rejected,
            **self.phenotype,
        )

    @cached_property
    def _foreign(self) -> set[str]:
        """Folders named like a participant's that hold nothing of one and that the table does not
        know."""
        return {key for key, folder in self._folders.items() if folder.bare} - set(self._rows.index)

    @cached_property
    def _rows(self) -> pd.DataFrame:
        return self._table.people

    def _require_rows(self) -> None:
        """Raise ValueError, with the patterns of ids, where the folders and the table are not of
        the same people."""
        folders, rows = len(self._folders) - len(self._foreign), len(self._rows)
        if rows and (
            rows >= LEAST_MATCHED * folders or folders - rows <= self.max_rejected * folders
        ):
            return
        raise ValueError(
            f"cohort {self.name}: {rows or 'none'} of the {folders} image folders have a row in "
            f"cohort.table: ids are {id_patterns(self._folders)} in cohort.root, "
            f"{id_patterns(self._table.everyone)} in the table. Give the table and the images of "
            "one application, with the same ids (or a higher cohort.max_rejected, if you know why)"
        )

    def _require_labels(self, subjects: pd.DataFrame) -> None:
        """Raise ValueError where nobody is labelled, or nobody who was diagnosed can be placed
        before or after the visit."""
        if self._table.stop:
            raise ValueError(f"cohort {self.name}: {self._table.stop}")
        if not len(subjects):
            return
        states = subjects.state.value_counts()
        told = ", ".join(f"{state} {count}" for state, count in states.items())
        if subjects.diagnosis.isna().all():
            raise ValueError(
                f"cohort {self.name}: nobody is case or control (heart failure: {told}); look at "
                "columns.csv of experiment=inspect, and at cohort.codes, cohort.source and "
                "cohort.without"
            )
        if (
            states.get("unknown", 0)
            and not states.get("prevalent", 0)
            and not states.get("incident", 0)
        ):
            raise ValueError(
                f"cohort {self.name}: of nobody with heart failure it is known whether before the "
                f"visit ({told}); look at columns.csv of experiment=inspect: fields 53 and 41280"
            )

    def _matching_nobody(self, withdrawn: frozenset[str], folders: Mapping[str, Folder]) -> str:
        """A note about a list of which nobody has a folder. Raises ValueError where its ids can't
        be these people's."""
        if (
            withdrawn
            and folders
            and not {*map(id_pattern, withdrawn)} & {*map(id_pattern, folders)}
        ):
            raise ValueError(
                f"cohort {self.name}: cohort.exclude={self.exclude} can't be these participants': "
                f"ids are {id_patterns(withdrawn)} there, {id_patterns(folders)} in cohort.root. "
                "Give the list of this application"
            )
        return f"none of the {len(withdrawn)} ids in cohort.exclude has an image folder"

    @cached_property
    def _renamed(self) -> dict[str, str]:
        return renamed(list(self._folders), self.salt_root)

    @cached_property
    def _original(self) -> dict[str, str]:
        return {subject: key for key, subject in self._renamed.items()}

    def _given_files(self, setting: str) -> list[Path]:
        """The files of a setting that may name several. Raises FileNotFoundError as `_given`."""
        if not (given := getattr(self, setting)):
            return [self._given(setting)]
        try:
            return table_paths(given, setting=f"cohort.{setting}")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. Expected is {EXPECTED[setting]}.") from None

    def _given(self, setting: str) -> Path:
        """The path of a setting. Raises FileNotFoundError, saying what belongs there, when it is
        not set or not there."""
        path = getattr(self, setting)
        if isinstance(path, str | Path) and str(path) and Path(path).exists():
            return Path(path)
        variable = f" or set CMR_UKBB_{setting.upper()}" if setting in ("root", "table") else ""
        raise FileNotFoundError(
            f"cohort {self.name}: cohort.{setting} is "
            f"{f'{path}, which is not there' if path else 'not set'}. Expected is "
            f"{EXPECTED[setting]}. Give cohort.{setting}=<path>{variable}."
        )


def _thirds(townsend: pd.Series) -> pd.Series:
    """low, middle or high deprivation by thirds of the values there are; unknown stays missing."""
    edges = townsend.quantile([1 / 3, 2 / 3])
    bands = DEPRIVATION[np.digitize(townsend.fillna(0), edges.fillna(0), right=True)]
    return pd.Series(bands, index=townsend.index, dtype=object).where(townsend.notna(), None)
