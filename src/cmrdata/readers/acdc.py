"""ACDC, 150 public cine scans: reduced ejection fraction (DCM, MINF) against normal hearts; sex and age unknown.

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
from cmrdata.cohort import hashed, read_salt
from cmrdata.slices import Scan, check_labels, check_topology, collect
from cmrdata.store import Stacks, fingerprint
from cmrdata.volumes import read_volume

LABEL_MAP = {0: BACKGROUND, 1: RV, 2: MYO, 3: LV}
DIAGNOSIS = {"DCM": "reduced_ef", "MINF": "reduced_ef", "NOR": "healthy", "HCM": None, "RV": None}
PLACES = ("patient*", "*/patient*", "*/*/patient*")  # flat; training/ and testing/; below database/


class ACDC:
    """The cohort in the folder `root`, official layout (training/, testing/) or flat; see `cmrdata.store.Cohort`.

    DCM and MINF are cases and NOR the controls: all defined by ejection fraction, not by a clinical diagnosis of
    heart failure. HCM and RV are neither, so they land in the split "extra". `reach` is how many slices to
    each side of the centre a training patient gives (paper: 1). `salt_root` is the folder that keeps the secret by
    which patients are renamed.
    """

    name = "acdc"

    def __init__(
        self,
        *,
        root: str | Path | None,
        pixels: int = 64,
        fov_mm: float = 165.0,
        seed: int = 0,
        controls_per_case: float | None = None,
        reach: int = 1,
        max_rejected: float = 0.05,
        salt_root: str | Path = "data",
    ) -> None:
        self.root, self.pixels, self.fov_mm, self.seed = root, pixels, fov_mm, seed
        self.controls_per_case, self.reach, self.salt_root = controls_per_case, reach, Path(salt_root)
        self.max_rejected = max_rejected

    @property
    def settings(self) -> dict[str, Any]:
        files = [path for folder in self._patients.values() for path in sorted(folder.glob("*.nii*"))]
        return {"pixels": self.pixels, "fov_mm": self.fov_mm, "seed": self.seed,
                "controls_per_case": self.controls_per_case,
                "reach": self.reach,
                "files": fingerprint({"sizes": [path.stat().st_size for path in files]})}  # fmt: skip

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row per patient in the order of the original ids, so that the split does not depend on the salt.

        Beside the cohort's columns: pathology (ACDC's group).
        """
        rows, faults = [], []
        for subject, folder in self._patients.items():
            try:
                rows.append({"subject": subject, "source": self.name, **_describe(folder)})
            except ValueError as error:
                faults.append((subject, str(error)))
        return pd.DataFrame(rows), pd.DataFrame(faults, columns=["subject", "reason"])

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        def scan(subject: str, expand: bool) -> Scan:
            return _read(self._patients[subject], neighbours=expand)

        return collect(subjects, scan, pixels=self.pixels, fov_mm=self.fov_mm, reach=self.reach)

    @cached_property
    def _patients(self) -> dict[str, Path]:
        """Folder of each hashed patient, in the order of the original ids."""
        root = Path(self.root) if self.root else None
        found = [f for place in PLACES for f in root.glob(place)] if root and root.is_dir() else []
        folders = sorted((f for f in found if re.fullmatch(r"patient\d+", f.name) and f.is_dir()), key=lambda f: f.name)
        if not folders:
            raise FileNotFoundError(
                f"cohort acdc: no patient folders in {root or 'cohort.root, which is not set'}. Expected is the "
                "challenge's layout, training/patientNNN and testing/patientNNN or patientNNN directly, each with Info.cfg, "
                "patientNNN_frameFF.nii.gz and patientNNN_frameFF_gt.nii.gz. Download it from "
                "https://www.creatis.insa-lyon.fr/Challenge/acdc and give cohort.root=<folder> or set CMR_ACDC_ROOT."
            )
        if repeated := len(folders) - len({f.name for f in folders}):
            raise ValueError(
                f"{root}: {repeated} patients have more than one folder; give the root of one copy of the data"
            )
        salt = read_salt(self.salt_root)
        return {hashed(folder.name, salt): folder for folder in folders}


def _describe(folder: Path) -> dict[str, Any]:
    """What a patient's Info.cfg says. Raises ValueError with a reason that names no patient."""
    info = _info(folder)
    pathology = info.get("Group") or None
    if pathology and pathology not in DIAGNOSIS:
        raise ValueError(f"Info.cfg: unknown Group {pathology!r}, expected one of {', '.join(DIAGNOSIS)}")
    frames = {phase: _frame(info, phase) for phase in ("ED", "ES")}
    if frames["ED"] == frames["ES"]:
        raise ValueError("Info.cfg: ED and ES are the same frame")
    for phase, frame in frames.items():
        for kind, ending in (("image", ""), ("labels", "_gt")):
            if not _nifti(folder, f"frame{frame:02d}{ending}").exists():
                raise ValueError(f"{phase} {kind}: file is missing")
    return {"sex": None, "age": np.nan, "bmi": _bmi(info.get("Height"), info.get("Weight")),
            "diagnosis": DIAGNOSIS[pathology] if pathology else None, "pathology": pathology}  # fmt: skip


def _read(folder: Path, *, neighbours: bool) -> Scan:
    """A patient's scan, with the whole cycle when `neighbours` are wanted and the 4-D cine exists."""
    info = _info(folder)
    ed, es = (_frame(info, phase) - 1 for phase in ("ED", "ES"))
    cine = _nifti(folder, "4d")
    if neighbours and cine.exists():
        array, spacing = _volume(cine, what="4-D cine", axes=4)
        frames, cycle = dict(enumerate(array)), len(array) if len(array) > 2 else None
    else:
        pair = [_volume(_nifti(folder, f"frame{n + 1:02d}"), what=f"{phase} image", axes=3)
                for phase, n in (("ED", ed), ("ES", es))]  # fmt: skip
        frames, spacing, cycle = {n: volume for n, (volume, _) in zip((ed, es), pair, strict=True)}, pair[0][1], None
    labels = {}
    for phase, n in (("ED", ed), ("ES", es)):
        try:
            raw, _ = read_volume(_nifti(folder, f"frame{n + 1:02d}_gt"), default_spacing=spacing)
            labels[n] = check_labels(raw, mapping=LABEL_MAP)
            check_topology(labels[n])
        except ValueError as error:
            raise ValueError(f"{phase} labels: {error}") from None
    return Scan(frames, ed, es, labels, spacing, cycle)


def _volume(path: Path, *, what: str, axes: int) -> tuple[np.ndarray, tuple[float, float]]:
    try:
        array, spacing = read_volume(path)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None
    if array.ndim != axes:
        raise ValueError(f"{what}: {array.ndim} axes, expected {axes}")
    return array, spacing


def _info(folder: Path) -> dict[str, str]:
    try:
        text = (folder / "Info.cfg").read_text(errors="replace")
    except OSError as error:
        raise ValueError(
            "Info.cfg is missing" if isinstance(error, FileNotFoundError) else "Info.cfg is unreadable"
        ) from None
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


def _bmi(height: str | None, weight: str | None) -> float:
    """kg/m2 from Height in cm (or in metres, where it is below 3) and Weight in kg; NaN when missing or implausible."""
    try:
        metres, kilograms = float(height or "nan"), float(weight or "nan")
    except ValueError:
        return np.nan
    metres = metres if metres < 3 else metres / 100
    bmi = kilograms / metres**2 if metres > 0 else np.nan
    return bmi if 12 <= bmi <= 70 else np.nan


def _nifti(folder: Path, part: str) -> Path:
    """`patientNNN_<part>.nii.gz`, or the unpacked file where that exists instead."""
    packed, plain = (folder / f"{folder.name}_{part}{ending}" for ending in (".nii.gz", ".nii"))
    return plain if plain.is_file() and not packed.exists() else packed
