"""ACDC, 150 public cine scans: reduced ejection fraction (DCM, MINF) against normal hearts; sex and age unknown.

O. Bernard et al., IEEE TMI 37(11), 2018, doi 10.1109/TMI.2018.2837502.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohort import bmi_of
from cmrdata.readers.cells import LENGTH_UNITS, WEIGHT_UNITS, Reader, Reading, is_missing, quantity
from cmrdata.readers.challenge import (
    ANY_SPACING,
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
from cmrdata.readers.file_kinds import decoded
from cmrdata.readers.rows import account
from cmrdata.slices import Scan
from cmrdata.volumes import nifti, open_volume

LABEL_MAP = {0: BACKGROUND, 1: RV, 2: MYO, 3: LV}
INFO = "Info.cfg"
NUMBERS: dict[str, tuple[str, Reader]] = {  # what a key is for, and how it is read
    "Height": ("BMI", quantity(100, 250, units=LENGTH_UNITS, metres=True)),
    "Weight": ("BMI", quantity(20, 400, units=WEIGHT_UNITS)),
}
PLACES = ("patient*", "*/patient*", "*/*/patient*")  # flat; training/ and testing/; below database/


class ACDC(Challenge):
    """The cohort in the folder `root`, official layout (training/, testing/) or flat; see `Challenge` for the rest.

    DCM and MINF are cases and NOR the controls: all defined by ejection fraction, not by a clinical diagnosis of
    heart failure. HCM and RV are neither, so they land in the split "extra".
    """

    diagnoses = {"DCM": "reduced_ef", "MINF": "reduced_ef", "NOR": "healthy", "HCM": None, "RV": None}

    def find(self) -> dict[str, Path]:
        found = [f for place in PLACES for f in self.root.glob(place)] if self.root and self.root.is_dir() else []
        folders = [f for f in found if re.fullmatch(r"patient\d+", f.name) and f.is_dir()]
        if not self.root or not folders:
            raise FileNotFoundError(
                f"cohort {self.name}: no patient folders in {self.root or 'cohort.root, which is not set'}. Expected is "
                "the challenge's layout, training/patientNNN and testing/patientNNN or patientNNN directly, each with "
                "Info.cfg, patientNNN_frameFF.nii.gz and patientNNN_frameFF_gt.nii.gz. Download it from "
                "https://www.creatis.insa-lyon.fr/Challenge/acdc and give cohort.root=<folder> or set CMR_ACDC_ROOT."
            )
        return one_each(((folder.name, folder) for folder in folders), at=self.root, what="patients in two places")

    def describe(self, patient: Path) -> dict[str, Any]:
        info = _info(patient)
        ed, es = (_frame(info, phase) for phase in ("ED", "ES"))
        if ed == es:
            raise ValueError("Info.cfg: ED and ES are the same frame")
        for phase, frame in (("ED", ed), ("ES", es)):
            for kind, ending in (("image", ""), ("labels", "_gt")):
                if not _file(patient, frame, ending).exists():
                    raise ValueError(f"{phase} {kind}: file is missing")
        weight, height = (pd.Series([NUMBERS[key][1](info.get(key, "")).value]) for key in ("Weight", "Height"))
        bmi = bmi_of(weight, height)[0]
        return {"sex": None, "age": np.nan, "bmi": bmi, "pathology": info.get("Group") or None}

    def columns(self) -> pd.DataFrame:
        """Of all Info.cfg together, a key being a column."""
        rows = []
        for patient in self.patients.values():
            try:
                rows.append(_info(patient))
            except ValueError:
                rows.append({})
        readers: dict[str, tuple[str, Reader]] = {
            "ED": ("frame of ED", _read_frame), "ES": ("frame of ES", _read_frame), "NbFrame": ("frames of the cine", _read_frame),
            "Group": ("pathology", self.known_pathology), **NUMBERS,
        }  # fmt: skip
        titles = {key: key for key in readers if any(key in row for row in rows)}
        return report(account(INFO, titles, rows, readers=readers))

    def annotation(self, patient: Path) -> Annotation:
        info, raw = _info(patient), []
        ed, es = (_frame(info, phase) for phase in ("ED", "ES"))
        for phase, frame in (("ED", ed), ("ES", es)):
            with about(f"{phase} labels"):
                volume = open_volume(_file(patient, frame, "_gt"), default_spacing=ANY_SPACING)
                raw.append(still(volume))
        labels = dict(zip((ed - 1, es - 1), canonical(*raw, mapping=LABEL_MAP), strict=True))
        return Annotation(ed - 1, es - 1, labels, volume.affine)

    def scan(self, patient: Path, *, neighbours: bool) -> Scan:
        """With the frames `around` ED and ES where `neighbours` are wanted and the 4-D cine exists."""
        found, cine = self.annotation(patient), nifti(patient, f"{patient.name}_4d")
        if neighbours and cine.exists():
            with about("4-D cine"):
                declared = _info(patient).get("NbFrame", "")
                count = int(declared) if declared.isdecimal() else None
                image = open_volume(cine, default_spacing=self.default_spacing, frames=count)
                if not image.timed:
                    raise ValueError("3 axes, expected 4")
                cycle = image.frames if image.frames > 2 else None
                wanted = around(found.ed, found.es, cycle, cine=self.cine)
                frames = image.take(t for t in wanted if t < image.frames)
        else:
            frames, cycle = {}, None
            for phase, frame in (("ES", found.es), ("ED", found.ed)):
                with about(f"{phase} image"):
                    image = open_volume(_file(patient, frame + 1), default_spacing=self.default_spacing)
                    frames[frame] = still(image)
        return Scan(frames, found.ed, found.es, found.labels, image.spacing, cycle, **placed(image, found))

    def files(self, patient: Path) -> list[Path]:
        return sorted(patient.glob("*.nii*"))

    def texts(self, patient: Path) -> list[Path]:
        return [patient / "Info.cfg"]


def _file(folder: Path, frame: int, ending: str = "") -> Path:
    """`frame` counts from 1."""
    return nifti(folder, f"{folder.name}_frame{frame:02d}{ending}")


def _info(folder: Path) -> dict[str, str]:
    path = folder / INFO
    if not path.exists():
        raise ValueError(f"{INFO} is missing")
    try:
        text = decoded(path, setting=INFO)
    except (ValueError, OSError):  # whose words name the patient
        raise ValueError(f"{INFO} is unreadable") from None
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _frame(info: dict[str, str], phase: str) -> int:
    """Number of the annotated frame, counted from 1."""
    text = info.get(phase)
    if text is None:
        raise ValueError(f"Info.cfg lacks {phase}")
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"Info.cfg: {phase} is {text!r}, expected a frame number from 1")
    return int(text)


def _read_frame(text: str) -> Reading:
    if is_missing(text):
        return Reading()
    return Reading(int(text)) if text.isdecimal() and int(text) > 0 else Reading(odd="is no frame number from 1")
