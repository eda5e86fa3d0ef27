"""M&Ms, 345 public cine scans of six hospitals and four vendors, with sex, age, height and weight.

V. M. Campello et al., IEEE TMI 40(12), 2021, doi 10.1109/TMI.2021.3090082.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohorts.challenge import (
    ANY_SPACING,
    BY_EF,
    Annotation,
    Challenge,
    Located,
    about,
    around,
    assembled,
    canonical,
    one_each,
    take_all_or,
)
from cmrdata.cohorts.reading.cells import (
    AGE_UNITS,
    LENGTH_UNITS,
    WEIGHT_UNITS,
    Reader,
    quantity,
    read_category,
    read_sex,
)
from cmrdata.cohorts.reading.column_report import columns_table
from cmrdata.cohorts.reading.folders import images_and_tables, nothing_in, somewhere_else
from cmrdata.cohorts.reading.rows import Row, Rows, column_rows, read_rows, require_match
from cmrdata.slices import Scan
from cmrdata.subjects import bmi_of
from cmrdata.volumes import Volume, nifti, open_volume

LABEL_MAP = {label: label for label in (BACKGROUND, LV, MYO, RV)}
IMAGE = re.compile(r"(\w+)_sa\.nii(\.gz)?")
# its name changes with the release; that of 211230 has diagnosis and demographics
TABLE = "*M&Ms*nformation*.csv"
MNMS_COLUMNS = {
    "code": ("externalcode", "code", "subjectcode"),
    "ed": ("ed",),
    "es": ("es",),
    "site": ("centre", "center"),
    "vendor": ("vendorname", "vendor"),
    "pathology": ("pathology", "diagnosis", "disease"),
    "sex": ("sex", "gender"),
    "age": ("age",),
    "height": ("height", "heightcm", "heightm"),
    "weight": ("weight", "weightkg"),
}
READERS: dict[str, tuple[str, Reader]] = {  # what a column is for, and how its cells are read
    "code": ("id", read_category),
    "ed": ("frame of ED", quantity(0, 9999, whole=True)),
    "es": ("frame of ES", quantity(0, 9999, whole=True)),
    "site": ("site", read_category),
    "vendor": ("vendor", read_category),
    "pathology": ("pathology", read_category),
    "sex": ("sex", read_sex),
    "age": ("age", quantity(1, 120, units=AGE_UNITS)),
    "height": ("BMI", quantity(100, 250, units=LENGTH_UNITS, metres=True)),
    "weight": ("BMI", quantity(20, 400, units=WEIGHT_UNITS)),
}


@dataclass(frozen=True)
class Patient:
    """A patient's two files, the table and its row: cells by the names of COLUMNS, or None."""

    image: Path
    labels: Path
    table: Path
    row: Row | None


class MnMs(Challenge):
    """The cohort below the folder `root`, searched for its table and for <code>_sa.nii.gz; the rest
    as `Challenge`.

    DCM are cases and NOR the controls; ischaemic (IHD) and hypertensive (HHD) disease and
    non-compaction (LVNC) are cases where less than `ef_below` per cent is ejected. All others,
    athletes' hearts among them, are neither and land in the split "extra". Subjects below a folder
    Unlabeled/ have no masks and are left out.
    """

    diagnoses = {
        "NOR": "healthy",
        "DCM": "reduced_ef",
        "IHD": BY_EF,
        "HHD": BY_EF,
        "LVNC": BY_EF,
        "HCM": None,
        "ARV": None,
        "AHS": None,
        "Other": None,
    }
    expected = (
        "Expected is the folder OpenDataset with Training/Labeled/<code>, Validation/<code> and "
        "Testing/<code>, each with <code>_sa.nii.gz and <code>_sa_gt.nii.gz, and the table beside "
        "them. Download it from https://www.ub.edu/mnms and give cohort.root=<folder> or set "
        "CMR_MNMS_ROOT."
    )

    def find(self) -> dict[str, Patient]:
        return self._listed[0]

    def notes(self) -> list[str]:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[dict[str, Patient], list[str]]:
        """Patients by code, and what of the files and of the table they leave over."""
        images, tables, passed = self._walked
        if not self.root or not images or not tables:
            raise FileNotFoundError(
                f"cohort {self.name}: no "
                f"{'table ' + TABLE if images else 'images <code>_sa.nii.gz'} in "
                f"{nothing_in(self.root) if not images else f'cohort.root={self.root}'}."
                f"{somewhere_else(self.root, _holds_table)} {self.expected}"
            )
        rows = self._rows
        without = {
            code
            for code, (folder, _) in images
            if "unlabeled" in map(str.casefold, folder.relative_to(self.root).parts)
        }
        labelled = one_each(
            ((c, place) for c, place in images if c not in without),
            at=self.root,
            what="patients in two places",
        )
        require_match(self._table.path, labelled, rows)
        patients = {
            code: Patient(
                nifti(folder, stem), nifti(folder, f"{stem}_gt"), self._table.path, rows.get(code)
            )
            for code, (folder, stem) in labelled.items()
        }
        counts = {
            "unlabelled subjects left out": len(without),
            "rows of the table without images": len(set(rows) - set(labelled) - without),
        }
        left = [f"{what}: {count}" for what, count in counts.items() if count]
        return patients, left + passed

    @cached_property
    def _walked(self) -> tuple[list[tuple[str, tuple[Path, str]]], list[Path], list[str]]:
        """(code and place of each patient's images, tables, what was passed over on the way)."""
        paths, tables, passed = images_and_tables(self.root, image=IMAGE, table=TABLE)
        stems = {(path.parent, path.name.partition("_sa.")[0]) for path in paths}
        images = [(code.upper(), (folder, f"{code}_sa")) for folder, code in stems]
        return images, tables, passed

    @cached_property
    def _table(self) -> Rows:
        """The latest table, of those that tell the pathology if any does."""
        read = [read_rows(path, columns=MNMS_COLUMNS) for path in self._walked[1]]
        table = max(
            read, key=lambda one: (any(row["pathology"] for row in one.rows), one.path.name)
        )
        if self.label == "pathology" and not any(row["pathology"] for row in table.rows):
            raise ValueError(
                f"{table.path}: no column Pathology; use the table of release 211230, or "
                "cohort.label=ef for a diagnosis by ejection fraction"
            )
        return table

    @property
    def _rows(self) -> dict[str, Row]:
        coded = ((row["code"].upper(), row) for row in self._table.rows if row["code"])
        return one_each(coded, at=self._table.path, what="codes with two rows")

    def columns(self) -> pd.DataFrame:
        self.find()  # which says what is expected where nothing is
        words = {**READERS, "pathology": ("pathology", self.known_pathology)}
        return columns_table(
            column_rows(
                self._table.path.name,
                self._table.titles,
                self._table.rows,
                readers=words,
                hidden=["code"],
            )
        )

    def describe(self, patient: Patient) -> dict[str, Any]:
        if not (row := patient.row):
            raise ValueError("no row in the table")
        weight, height = (pd.Series([number(row, name)]) for name in ("weight", "height"))
        return {
            "sex": READERS["sex"][1](row["sex"] or "").value,
            "age": number(row, "age"),
            "bmi": bmi_of(weight, height)[0],
            "pathology": row["pathology"],
            "site": row["site"],
            "vendor": row["vendor"],
        }

    def annotation(self, patient: Patient) -> Annotation:
        with about("labels"):
            volume = open_volume(patient.labels, default_spacing=ANY_SPACING)
            if not volume.timed:
                raise ValueError("3 axes, expected 4")
            raw, flags = _marked(
                volume, *(number(patient.row or {}, phase) for phase in ("ed", "es"))
            )
        if not raw:
            raise ValueError("unlabelled (empty label file)")
        ed, es = raw
        labels = zip(raw, canonical(raw[ed], raw[es], mapping=LABEL_MAP), strict=True)
        return Annotation(
            ed, es, {frame: Located(voxels, volume) for frame, voxels in labels}, flags
        )

    def scan(self, patient: Patient, *, neighbours: bool) -> Scan:
        annotation = self.annotation(patient)
        with about("cine"):
            image = open_volume(patient.image, default_spacing=self.default_spacing)
            if image.frames != (
                labelled := open_volume(patient.labels, default_spacing=ANY_SPACING).frames
            ):
                raise ValueError(f"{image.frames} frames, but labels for {labelled}")
            cycle = image.frames if neighbours and image.frames > 2 else None
            wanted, needed = (
                around(annotation.ed, annotation.es, cycle, cine=self.cine),
                {annotation.ed, annotation.es},
            )
            taken, lost = take_all_or(image, wanted, needed=wanted if self.cine else needed)
        frames = {t: Located(frame, image) for t, frame in taken.items()}
        return assembled(
            frames,
            annotation.labels,
            ed=annotation.ed,
            es=annotation.es,
            cycle=None if lost else cycle,
            flags=(*annotation.flags, *["neighbours_lost"] * lost),
        )

    def files(self, patient: Patient) -> list[Path]:
        return [patient.image, patient.labels]

    def texts(self, patient: Patient) -> list[Path]:
        return [patient.table]


def _holds_table(folder: Path, inside: list[str], files: list[str]) -> bool:
    return any(fnmatch(name, TABLE) for name in files)


def _marked(volume: Volume, ed: float, es: float) -> tuple[dict[int, np.ndarray], tuple[str, ...]]:
    """Labels of the frames ED and ES, in this order and as they are in the file, and a flag where
    they had to be found.

    They are the frames that the table names, counted from 0, if these hold labels; else the two
    that do, ED that of the larger cavity. Nothing where no frame is labelled.
    """
    named = [int(frame) for frame in (ed, es) if 0 <= frame < volume.frames and frame == frame // 1]
    raw = volume.take(named) if len(set(named)) == 2 else {}
    if raw and all(labels.any() for labels in raw.values()):
        return {frame: raw[frame] for frame in named}, ()
    raw = {frame: labels.copy() for frame, labels in enumerate(volume.stream()) if labels.any()}
    if len(raw) not in (0, 2):
        raise ValueError(
            f"{len(raw)} frames hold any, expected ED and ES alone where the table does not name "
            "them"
        )
    by_size = sorted(raw, key=lambda frame: -np.count_nonzero(np.rint(raw[frame]) == LV))
    return {frame: raw[frame] for frame in by_size}, ("frames_from_labels",) if raw else ()


def number(row: Row, name: str) -> float:
    """A cell's number, NaN where it has none."""
    value = READERS[name][1](row.get(name) or "").value
    return np.nan if value is None else float(value)
