"""M&Ms-2, 360 public scans of three vendors made for the right ventricle; sex, age, height and
weight unknown.

C. Martin-Isla et al., IEEE JBHI 27(7), 2023, doi 10.1109/JBHI.2023.3267857.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
    still,
)
from cmrdata.cohorts.mnms import LABEL_MAP, READERS
from cmrdata.cohorts.reading.column_report import columns_table
from cmrdata.cohorts.reading.folders import images_and_tables, nothing_in, somewhere_else
from cmrdata.cohorts.reading.rows import Row, Rows, column_rows, read_rows, require_match
from cmrdata.overlay import reordered
from cmrdata.slices import Scan
from cmrdata.volumes import nifti, open_volume

IMAGE = re.compile(r"(\d+)_SA_ED\.nii(\.gz)?")
TABLE = "*dataset_information*.csv"
MNMS2_COLUMNS = {
    "code": ("subjectcode", "code"),
    "pathology": ("disease", "pathology"),
    "vendor": ("vendor",),
}
# most by which a frame may differ from the cine's, as a share of its own spread: rounding, no other
# beat
SAME = 0.01


@dataclass(frozen=True)
class Patient:
    """A patient's folder, the three digits that its files begin with, and its row of the table."""

    folder: Path
    code: str
    row: Row | None

    def file(self, part: str) -> Path:
        return nifti(self.folder, f"{self.code}_SA_{part}")


class MnMs2(Challenge):
    """The cohort below the folder `root`, searched for its table and for NNN_SA_ED.nii.gz; the rest
    as `Challenge`.

    Dilated left ventricles (LV) are cases where less than `ef_below` per cent is ejected, NOR the
    controls; all others are neither and land in the split "extra". ED and ES are files without a
    frame number: where neighbouring frames are wanted both are looked for in the cine, else the
    index calls them 0 and 1 (flag frames_unknown).
    """

    diagnoses = {
        "NOR": "healthy",
        "LV": BY_EF,
        "HCM": None,
        "ARR": None,
        "FALL": None,
        "CIA": None,
        "RV": None,
        "TRI": None,
    }
    expected = (
        "Expected is the folder MnM2 with dataset_information.csv and dataset/NNN, each with "
        "NNN_SA_ED.nii.gz, NNN_SA_ED_gt.nii.gz, the same of ES, and NNN_SA_CINE.nii.gz. Download "
        "it from https://www.ub.edu/mnms-2 and give cohort.root=<folder> or set CMR_MNMS2_ROOT."
    )

    def find(self) -> dict[str, Patient]:
        return self._listed[0]

    def notes(self) -> list[str]:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[dict[str, Patient], list[str]]:
        """Patients by code, and what of the table and of the folders is left over."""
        images, tables, passed = self._walked
        if not self.root or not images or not tables:
            raise FileNotFoundError(
                f"cohort {self.name}: no "
                f"{'table ' + TABLE if images else 'images NNN_SA_ED.nii.gz'} in "
                f"{nothing_in(self.root) if not images else f'cohort.root={self.root}'}."
                f"{somewhere_else(self.root, _holds_table)} {self.expected}"
            )
        coded = ((_digits(row["code"]), row) for row in self._table.rows if row["code"])
        rows = one_each(coded, at=self._table.path, what="codes with two rows")
        places = one_each(images, at=self.root, what="patients in two places")
        require_match(self._table.path, places, rows)
        patients = {
            code: Patient(folder, spelled, rows.get(code))
            for code, (folder, spelled) in places.items()
        }
        over = len(set(rows) - set(patients))
        left = [f"rows of the table without images: {over}"] if over else []
        return patients, left + passed

    @cached_property
    def _walked(self) -> tuple[list[tuple[str, tuple[Path, str]]], list[Path], list[str]]:
        """(code and place of each patient's images, tables, what was passed over on the way)."""
        paths, tables, passed = images_and_tables(self.root, image=IMAGE, table=TABLE)
        stems = {(path.parent, path.name.partition("_SA_")[0]) for path in paths}
        images = [(_digits(code), (folder, code)) for folder, code in stems]
        return images, tables, passed

    @cached_property
    def _table(self) -> Rows:
        return read_rows(self._walked[1][-1], columns=MNMS2_COLUMNS)

    def columns(self) -> pd.DataFrame:
        self.find()  # which says what is expected where nothing is
        words = {name: READERS[name] for name in MNMS2_COLUMNS} | {
            "pathology": ("pathology", self.known_pathology)
        }
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
        for phase in ("ED", "ES"):
            for kind, file in (("image", phase), ("labels", f"{phase}_gt")):
                if not patient.file(file).exists():
                    raise ValueError(f"{phase} {kind}: file is missing")
        return {
            "sex": None,
            "age": np.nan,
            "bmi": np.nan,
            "pathology": row["pathology"],
            "vendor": row["vendor"],
        }

    def annotation(self, patient: Patient) -> Annotation:
        """ED as frame 0, ES as frame 1."""
        raw, volumes = [], []
        for phase in ("ED", "ES"):
            with about(f"{phase} labels"):
                volumes.append(
                    open_volume(patient.file(f"{phase}_gt"), default_spacing=ANY_SPACING)
                )
                raw.append(still(volumes[-1]))
        if not any(labels.any() for labels in raw):
            raise ValueError("unlabelled (empty label file)")
        labels = map(Located, canonical(*raw, mapping=LABEL_MAP), volumes)
        return Annotation(0, 1, dict(enumerate(labels)), ("frames_unknown",))

    def scan(self, patient: Patient, *, neighbours: bool) -> Scan:
        annotation, pair = self.annotation(patient), []
        for phase in ("ED", "ES"):
            with about(f"{phase} image"):
                image = open_volume(patient.file(phase), default_spacing=self.default_spacing)
                pair.append(Located(still(image), image))
        frames, labels, ed, es, cycle, flags = (
            dict(enumerate(pair)),
            annotation.labels,
            0,
            1,
            None,
            annotation.flags,
        )
        if neighbours and patient.file("CINE").exists():
            try:
                if placed := self._around(patient, pair):
                    ed, es, others, cycle = placed
                    frames, labels = (
                        others | {ed: pair[0], es: pair[1]},
                        {ed: labels[0], es: labels[1]},
                    )
                    flags = ()
            except ValueError:
                if self.cine:
                    raise
                flags += ("neighbours_lost",)
        return assembled(frames, labels, ed=ed, es=es, cycle=cycle, flags=flags)

    def _around(
        self, patient: Patient, pair: Sequence[Located]
    ) -> tuple[int, int, dict[int, Located], int] | None:
        """(ED, ES, frames next to them or of a heartbeat, frames of the cycle) of the cine; None
        where they aren't in it."""
        with about("cine"):
            volume = open_volume(patient.file("CINE"), default_spacing=ANY_SPACING)
            cine = {
                t: reordered(frame.copy(), theirs=volume.affine, ours=pair[0].volume.affine)
                for t, frame in enumerate(volume.stream())
            }
        if not (places := _places([phase.voxels for phase in pair], cine)):
            return None
        wanted = around(*places, len(cine), cine=self.cine)
        return *places, {t: Located(cine[t], pair[0].volume) for t in wanted}, len(cine)

    def files(self, patient: Patient) -> list[Path]:
        return [patient.file(file) for file in ("ED", "ED_gt", "ES", "ES_gt", "CINE")]

    def texts(self, patient: Patient) -> list[Path]:
        return []


def _holds_table(folder: Path, inside: list[str], files: list[str]) -> bool:
    return any(fnmatch(name, TABLE) for name in files)


def _places(pair: Sequence[np.ndarray], cine: Mapping[int, np.ndarray]) -> tuple[int, int] | None:
    """Where in the `cine` the frames ED and ES are, or None where one of them is not in it."""
    places = []
    for wanted in pair:
        if len(cine) < 3 or cine[0].shape != wanted.shape:
            return None
        gaps = [np.abs(frame.astype(np.float32) - wanted).mean() for frame in cine.values()]
        if not min(gaps) <= SAME * wanted.std():
            return None
        places.append(int(np.argmin(gaps)))
    return (places[0], places[1]) if places[0] != places[1] else None


def _digits(code: str) -> str:
    """ "7", "7.0" and "007" are "007"."""
    return f"{int(code.removesuffix('.0')):03d}" if code.removesuffix(".0").isdecimal() else code
