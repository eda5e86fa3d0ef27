"""ACDC, 150 public cine scans: reduced ejection fraction (DCM, MINF) against normal hearts; sex and
age unknown.

O. Bernard et al., IEEE TMI 37(11), 2018, doi 10.1109/TMI.2018.2837502.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohorts.challenge import (
    ANY_SPACING,
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
from cmrdata.cohorts.reading.cells import (
    LENGTH_UNITS,
    WEIGHT_UNITS,
    Reader,
    Reading,
    is_missing,
    quantity,
)
from cmrdata.cohorts.reading.column_report import columns_table
from cmrdata.cohorts.reading.file_kinds import decoded
from cmrdata.cohorts.reading.folders import Walk, counted, nothing_in, somewhere_else, straight_only
from cmrdata.cohorts.reading.rows import column_rows
from cmrdata.overlay import reordered
from cmrdata.slices import Scan
from cmrdata.subjects import bmi_of
from cmrdata.volumes import nifti, open_volume

LABEL_MAP = {0: BACKGROUND, 1: RV, 2: MYO, 3: LV}
INFO = "Info.cfg"
NUMBERS: dict[str, tuple[str, Reader]] = {  # what a key is for, and how it is read
    "Height": ("BMI", quantity(100, 250, units=LENGTH_UNITS, metres=True)),
    "Weight": ("BMI", quantity(20, 400, units=WEIGHT_UNITS)),
}
FOLDER_LEVELS = 2  # folders between the root and a patient's: database/training
# most by which ED may differ from its frame of the cine, as a share of its own spread: 0 in the
# original
SAME = 0.01


class ACDC(Challenge):
    """The cohort in the folder `root`, official layout (training/, testing/) or flat; see
    `Challenge` for the rest.

    DCM and MINF are cases and NOR the controls: all defined by ejection fraction, not by a clinical
    diagnosis of heart failure. HCM and RV are neither, so they land in the split "extra".
    """

    diagnoses = {
        "DCM": "reduced_ef",
        "MINF": "reduced_ef",
        "NOR": "healthy",
        "HCM": None,
        "RV": None,
    }

    expected = (
        "Expected is the challenge's layout, training/patientNNN and testing/patientNNN or "
        "patientNNN directly, each with Info.cfg, patientNNN_frameFF.nii.gz and "
        "patientNNN_frameFF_gt.nii.gz of ED and ES. Download it from "
        "https://www.creatis.insa-lyon.fr/Challenge/acdc and give cohort.root=<folder> or set "
        "CMR_ACDC_ROOT."
    )

    def find(self) -> dict[str, Path]:
        return self._listed[0]

    def notes(self) -> list[str]:
        return self._listed[1]

    @cached_property
    def _listed(self) -> tuple[dict[str, Path], list[str]]:
        """Patients' folders by name, and what was passed over on the way to them."""
        walk = (
            Walk(self.root, depth=FOLDER_LEVELS, within=_is_patient)
            if self.root and self.root.is_dir()
            else ()
        )
        folders = straight_only(
            place / name for place, inside, _ in walk for name in inside if _is_patient(name)
        )
        if not self.root or not folders:
            raise FileNotFoundError(
                f"cohort {self.name}: no patient folders in {nothing_in(self.root)}."
                f"{somewhere_else(self.root, _holds_patients)} {self.expected}"
            )
        patients = one_each(
            ((folder.name, folder) for folder in folders),
            at=self.root,
            what="patients in two places",
        )
        return patients, counted(walk.passed) if isinstance(walk, Walk) else []

    def describe(self, patient: Path) -> dict[str, Any]:
        info = _info(patient)
        ed, es = (_frame(info, phase) for phase in ("ED", "ES"))
        if ed == es:
            raise ValueError("Info.cfg: ED and ES are the same frame")
        for phase, frame in (("ED", ed), ("ES", es)):
            for kind, ending in (("image", ""), ("labels", "_gt")):
                if not _file(patient, frame, ending).exists():
                    raise ValueError(f"{phase} {kind}: file is missing")
        weight, height = (
            pd.Series([NUMBERS[key][1](info.get(key, "")).value]) for key in ("Weight", "Height")
        )
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
            "ED": ("frame of ED", _read_frame),
            "ES": ("frame of ES", _read_frame),
            "NbFrame": ("frames of the cine", _read_frame),
            "Group": ("pathology", self.known_pathology),
            **NUMBERS,
        }
        titles = {key: key for key in readers if any(key in row for row in rows)}
        return columns_table(column_rows(INFO, titles, rows, readers=readers))

    def annotation(self, patient: Path) -> Annotation:
        info, volumes = _info(patient), []
        ed, es = (_frame(info, phase) for phase in ("ED", "ES"))
        raw = []
        for phase, frame in (("ED", ed), ("ES", es)):
            with about(f"{phase} labels"):
                volumes.append(
                    open_volume(_file(patient, frame, "_gt"), default_spacing=ANY_SPACING)
                )
                raw.append(still(volumes[-1]))
        labels = map(Located, canonical(*raw, mapping=LABEL_MAP), volumes)
        return Annotation(ed - 1, es - 1, dict(zip((ed - 1, es - 1), labels, strict=True)))

    def scan(self, patient: Path, *, neighbours: bool) -> Scan:
        """ED and ES of their own files; with the frames `around` them where `neighbours` are wanted
        and in the 4-D cine."""
        annotation, frames = self.annotation(patient), {}
        for phase, frame in (("ES", annotation.es), ("ED", annotation.ed)):
            with about(f"{phase} image"):
                image = open_volume(_file(patient, frame + 1), default_spacing=self.default_spacing)
                frames[frame] = Located(still(image), image)
        cycle, flags = None, annotation.flags
        if neighbours and nifti(patient, f"{patient.name}_4d").exists():
            try:
                others, cycle = self._around(
                    patient, annotation.ed, annotation.es, image=frames[annotation.ed]
                )
                frames = others | frames
            except ValueError:
                if self.cine:
                    raise
                flags += ("neighbours_lost",)
        return assembled(
            frames, annotation.labels, ed=annotation.ed, es=annotation.es, cycle=cycle, flags=flags
        )

    def _around(
        self, patient: Path, ed: int, es: int, *, image: Located
    ) -> tuple[dict[int, Located], int | None]:
        """(frames of the 4-D cine next to ED and ES, or of a heartbeat, with ED and ES; how many a
        cycle has)."""
        with about("4-D cine"):
            declared = _info(patient).get("NbFrame", "")
            count = int(declared) if declared.isdecimal() else None
            cine = open_volume(
                nifti(patient, f"{patient.name}_4d"),
                default_spacing=self.default_spacing,
                frames=count,
            )
            if not cine.timed:
                raise ValueError("3 axes, expected 4")
            if max(ed, es) >= cine.frames:
                raise ValueError(f"{cine.frames} frames, but ED or ES is frame {max(ed, es) + 1}")
            cycle = cine.frames if cine.frames > 2 else None
            taken = cine.take(around(ed, es, cycle, cine=self.cine))
            frames = {t: Located(frame, cine) for t, frame in taken.items()}
            if not _alike(
                reordered(taken[ed], theirs=cine.affine, ours=image.volume.affine), image.voxels
            ):
                raise ValueError("it does not show the ED image where ED is")
        return frames, cycle

    def files(self, patient: Path) -> list[Path]:
        return sorted(patient.glob("*.nii*"))

    def texts(self, patient: Path) -> list[Path]:
        return [patient / "Info.cfg"]


def _file(folder: Path, frame: int, ending: str = "") -> Path:
    """`frame` counts from 1."""
    return nifti(folder, f"{folder.name}_frame{frame:02d}{ending}")


def _is_patient(name: str) -> bool:
    return re.fullmatch(r"patient\d+", name) is not None


def _holds_patients(folder: Path, inside: list[str], files: list[str]) -> bool:
    """Whether a folder could be a root: it holds patients, and is not one half of a root itself."""
    if folder.name in ("training", "testing"):
        return False
    parts = [folder, *(folder / name for name in inside if name in ("training", "testing"))]
    return any(_is_patient(name.name) for part in parts for name in part.iterdir() if name.is_dir())


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two frames are one, but for rounding."""
    if one.shape != other.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        return bool(np.abs(one.astype(np.float64) - other).mean() <= SAME * other.std())


def _info(folder: Path) -> dict[str, str]:
    if not folder.exists():
        raise ValueError("its folder is a link that leads nowhere")
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
    return (
        Reading(int(text))
        if text.isdecimal() and int(text) > 0
        else Reading(odd="is no frame number from 1")
    )
