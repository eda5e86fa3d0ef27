"""M&Ms-2, 360 public scans of three vendors made for the right ventricle; sex, age, height and weight unknown.

C. Martin-Isla et al., IEEE JBHI 27(7), 2023, doi 10.1109/JBHI.2023.3267857.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.readers.challenge import (
    ANY_SPACING,
    BY_EF,
    Annotation,
    Challenge,
    about,
    around,
    canonical,
    one_each,
    placed,
    still,
)
from cmrdata.readers.column_report import report
from cmrdata.readers.mnms import LABEL_MAP, READERS
from cmrdata.readers.rows import Row, Rows, account, read_rows, require_match
from cmrdata.slices import Scan
from cmrdata.volumes import nifti, open_volume

TABLE = "*dataset_information*.csv"
COLUMNS = {"code": ("subjectcode", "code"), "pathology": ("disease", "pathology"), "vendor": ("vendor",)}
SAME = 0.01  # most by which a frame may differ from the cine's, as a share of its own spread: rounding, no other beat


@dataclass(frozen=True)
class Patient:
    """A patient's folder, the three digits that its files begin with, and its row of the table."""

    folder: Path
    code: str
    row: Row | None

    def file(self, part: str) -> Path:
        return nifti(self.folder, f"{self.code}_SA_{part}")


class MnMs2(Challenge):
    """The cohort below the folder `root`, searched for its table and for NNN_SA_ED.nii.gz; the rest as `Challenge`.

    Dilated left ventricles (LV) are cases where less than `ef_below` per cent is ejected, NOR the controls; all
    others are neither and land in the split "extra". ED and ES are files without a frame number: where neighbouring
    frames are wanted both are looked for in the cine, else the index calls them 0 and 1 (flag frames_unknown).
    """

    diagnoses = {"NOR": "healthy", "LV": BY_EF, "HCM": None, "ARR": None, "FALL": None, "CIA": None, "RV": None,
                 "TRI": None}  # fmt: skip

    def find(self) -> dict[str, Patient]:
        return self._listed[0]

    def notes(self) -> list[str]:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[dict[str, Patient], list[str]]:
        """Patients by code, and how many rows of the table they leave over."""
        paths = self.root.rglob("*_SA_ED.nii*") if self.root and self.root.is_dir() else []
        stems = {(path.parent, m[1]) for path in paths if (m := re.fullmatch(r"(\d+)_SA_ED\.nii(\.gz)?", path.name))}
        images = [(_digits(code), (folder, code)) for folder, code in stems]
        tables = self._tables if images else []
        if not self.root or not tables:
            raise FileNotFoundError(
                f"cohort {self.name}: no {'table ' + TABLE if images else 'images NNN_SA_ED.nii.gz'} in "
                f"{self.root or 'cohort.root, which is not set'}. Expected is the folder MnM2 with "
                "dataset_information.csv and dataset/NNN, each with NNN_SA_ED.nii.gz, NNN_SA_ED_gt.nii.gz, the same of "
                "ES, and NNN_SA_CINE.nii.gz. Download it from https://www.ub.edu/mnms-2 and give cohort.root=<folder> "
                "or set CMR_MNMS2_ROOT."
            )
        coded = ((_digits(row["code"]), row) for row in self._table.rows if row["code"])
        rows = one_each(coded, at=self._table.path, what="codes with two rows")
        places = one_each(images, at=self.root, what="patients in two places")
        require_match(self._table.path, places, rows)
        patients = {code: Patient(folder, spelled, rows.get(code)) for code, (folder, spelled) in places.items()}
        over = len(set(rows) - set(patients))
        return patients, [f"rows of the table without images: {over}"] if over else []

    @property
    def _tables(self) -> list[Path]:
        return sorted(self.root.rglob(TABLE)) if self.root else []

    @cached_property
    def _table(self) -> Rows:
        return read_rows(self._tables[-1], columns=COLUMNS)

    def columns(self) -> pd.DataFrame:
        self.find()  # which says what is expected where nothing is
        words = {name: READERS[name] for name in COLUMNS} | {"pathology": ("pathology", self.known_pathology)}
        return report(
            account(self._table.path.name, self._table.titles, self._table.rows, readers=words, hidden=["code"])
        )

    def describe(self, patient: Patient) -> dict[str, Any]:
        if not (row := patient.row):
            raise ValueError("no row in the table")
        for phase in ("ED", "ES"):
            for kind, part in (("image", phase), ("labels", f"{phase}_gt")):
                if not patient.file(part).exists():
                    raise ValueError(f"{phase} {kind}: file is missing")
        return {"sex": None, "age": np.nan, "bmi": np.nan, "pathology": row["pathology"], "vendor": row["vendor"]}

    def annotation(self, patient: Patient) -> Annotation:
        """ED as frame 0, ES as frame 1."""
        raw = []
        for phase in ("ED", "ES"):
            with about(f"{phase} labels"):
                volume = open_volume(patient.file(f"{phase}_gt"), default_spacing=ANY_SPACING)
                raw.append(still(volume))
        if not any(labels.any() for labels in raw):
            raise ValueError("unlabelled (empty label file)")
        labels = dict(enumerate(canonical(*raw, mapping=LABEL_MAP)))
        return Annotation(0, 1, labels, volume.affine, ("frames_unknown",))

    def scan(self, patient: Patient, *, neighbours: bool) -> Scan:
        found, pair = self.annotation(patient), []
        for phase in ("ED", "ES"):
            with about(f"{phase} image"):
                image = open_volume(patient.file(phase), default_spacing=self.default_spacing)
                pair.append(still(image))
        frames, cycle = dict(enumerate(pair)), None
        if neighbours and (path := patient.file("CINE")).exists():
            with about("cine"):
                cine = {
                    t: frame.copy() for t, frame in enumerate(open_volume(path, default_spacing=ANY_SPACING).stream())
                }
            if places := _places(pair, cine):
                (ed, es), cycle = places, len(cine)
                frames = {t: cine[t] for t in around(ed, es, cycle, cine=self.cine)} | {ed: pair[0], es: pair[1]}
                found = Annotation(ed, es, {ed: found.labels[0], es: found.labels[1]}, found.affine)
        return Scan(frames, found.ed, found.es, found.labels, image.spacing, cycle, **placed(image, found))

    def files(self, patient: Patient) -> list[Path]:
        return [patient.file(part) for part in ("ED", "ED_gt", "ES", "ES_gt", "CINE")]

    def texts(self, patient: Patient) -> list[Path]:
        return []


def _places(pair: Sequence[np.ndarray], cine: Mapping[int, np.ndarray]) -> tuple[int, int] | None:
    """Where in the `cine` the frames ED and ES are, or None where one of them is not in it."""
    found = []
    for wanted in pair:
        if len(cine) < 3 or cine[0].shape != wanted.shape:
            return None
        gaps = [np.abs(frame.astype(np.float32) - wanted).mean() for frame in cine.values()]
        if not min(gaps) <= SAME * wanted.std():
            return None
        found.append(int(np.argmin(gaps)))
    return (found[0], found[1]) if found[0] != found[1] else None


def _digits(code: str) -> str:
    """ "7", "7.0" and "007" are "007"."""
    return f"{int(code.removesuffix('.0')):03d}" if code.removesuffix(".0").isdecimal() else code
