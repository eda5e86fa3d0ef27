"""Phantom people as files in UK Biobank's layout, so that its reader can be run and tested without
participants' data.

Layout of github.com/baiwenjia/ukbb_cardiac (converter and segmentation script) beside a CSV of the
tabular fields.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import pandas as pd

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.painting import FRAMES, SLICE_GAP, paint, rician, volume_curve
from cmrdata.disk import write_atomic

WHITE = 4095  # 12 bits
CINE, FACTS = 9, 10  # streams of a subject's random numbers; 0..8 are the noise of the nine stacks
# degrees that the RV winds around the LV from base to apex; people 29 +- 15 (cmrdata.orientation),
# but an ellipse has no other sign of its handedness
PHANTOM_WINDING = 54
LENGTH = 6  # slices of that way
ARRAY_COLUMNS = 3  # columns of the array fields 41270 and 41280


class Scanned(NamedTuple):
    """A phantom person as a scanner and a clerk see them. Frames divide the cycle evenly, ED is
    frame 0."""

    person: dict[Any, Any]  # subject, sex, age, bmi, diagnosis
    cine: np.ndarray  # (T, Z, Y, X) float32, whole numbers 0..4095
    labels: np.ndarray  # (T, Z, Y, X) uint8, the truth
    spacing: tuple[float, ...]  # (dx, dy, dz) mm and dt s
    rng: np.random.Generator  # for whatever else a layout wants to know of the person


def write_ukbb(
    phantom: Phantom,
    folder: str | Path,
    *,
    count: int = 8,
    pixels: int | tuple[int, int] = 112,
    mm: float = 1.83,
    slices: int = 7,
    frames: int = 50,
) -> None:
    """Write the first `count` people of `phantom` below `folder`, one at a time, then `table.csv`.

    <id>/sa.nii.gz             (X, Y, Z, T) float32, whole numbers 0..4095; X, Y = `pixels` (columns, rows) of `mm`
         seg_sa.nii.gz         the same shape, float64, labels 1 LV, 2 myocardium, 3 RV of all frames
         sa_ED.nii.gz, sa_ES   (X, Y, Z) float32, clipped at the 1st and 99th percentile of the cine, as in the original
         label_sa_ED, _ES      (X, Y, Z) int16

    Slice 0 is the most basal, slice `slices` // 2 the phantom's central one; slices beyond the apex
    have no labels. All labels are the truth: "network" and "manual" ones agree. Frames divide the
    cycle evenly, ED is frame 0. Raises ValueError for a count or shape that cannot be drawn,
    FileExistsError when `folder` is not empty.
    """
    folder, rows = Path(folder), []
    for phantom_scan in scanned(
        phantom, folder, count=count, pixels=pixels, mm=mm, slices=slices, frames=frames
    ):
        rows.append(_record(phantom_scan.person, phantom_scan.rng))
        low, high = np.percentile(phantom_scan.cine, (1, 99)).astype(np.float32)
        with unfinished(folder / phantom_scan.person["subject"]) as place:
            save(place / "sa.nii.gz", phantom_scan.cine, np.float32, phantom_scan.spacing)
            save(place / "seg_sa.nii.gz", phantom_scan.labels, np.float64, phantom_scan.spacing)
            for phase, t in (("ED", 0), ("ES", smallest_frame(frames))):
                save(
                    place / f"sa_{phase}.nii.gz",
                    phantom_scan.cine[t].clip(low, high),
                    np.float32,
                    phantom_scan.spacing,
                )
                save(
                    place / f"label_sa_{phase}.nii.gz",
                    phantom_scan.labels[t],
                    np.int16,
                    phantom_scan.spacing,
                )
    write_atomic(folder / "table.csv", pd.DataFrame(rows).to_csv(index=False))


def smallest_frame(frames: int) -> int:
    """The frame of smallest volume when `frames` divide the cycle."""
    return int(volume_curve(np.arange(frames) * FRAMES / frames, np.ones(1)).argmin())


def scanned(
    phantom: Phantom,
    folder: Path,
    *,
    count: int,
    pixels: int | tuple[int, int],
    mm: float,
    slices: int,
    frames: int,
) -> Iterator[Scanned]:
    """The first people of a phantom as a scanner sees them, in every layout the same.

    Args:
        phantom: whose people.
        folder: new or empty, for their files.
        count: people.
        pixels: of a side, or (columns, rows).
        mm: of a pixel.
        slices: of a stack.
        frames: of the cycle.

    Raises, at the first of them and before `folder` is made, what the functions that write a layout say
    they do.
    """
    columns, rows = (pixels, pixels) if isinstance(pixels, int) else pixels
    if not 1 <= count <= len(phantom.people):
        raise ValueError(
            f"count is {count}; this phantom has 1..{len(phantom.people)} people to write"
        )
    if min(columns, rows) < 8 or slices < 1 or frames < 2 or mm <= 0:
        raise ValueError(
            f"a cine of {columns} x {rows} pixels of {mm} mm, {slices} slices and {frames} frames "
            "cannot be drawn; give at least 8 pixels above 0 mm, 1 slice and 2 frames"
        )
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give a new folder or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    for number, person in enumerate(phantom.people.head(count).to_dict("records")):
        draw, facts = (
            np.random.Generator(np.random.SFC64((phantom.seed, number, k))) for k in (CINE, FACTS)
        )
        cine, labels = _cine(
            phantom.anatomy.iloc[[number]],
            draw,
            columns=columns,
            rows=rows,
            mm=mm,
            slices=slices,
            frames=frames,
        )
        beat = 60 / np.clip(facts.normal(62, 9), 42, 100)  # s
        yield Scanned(person, cine, labels, (mm, mm, SLICE_GAP, beat / frames), facts)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A hidden folder that becomes `folder` when all is written, and is gone when that fails."""
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    try:
        yield hidden
        os.rename(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def save(path: Path, array: np.ndarray, dtype: type, spacing: tuple[float, ...]) -> None:
    """(T, Z, Y, X) or (Z, Y, X) as NIfTI (X, Y, Z, T): world axes run against columns, rows and
    slices."""
    array = np.ascontiguousarray(array.T, dtype=dtype)
    affine = np.diag([-spacing[0], -spacing[1], -spacing[2], 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(array.shape[:3]) - 1) / 2)
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_zooms(spacing[: array.ndim])
    image.set_sform(affine, code=1)
    nibabel.save(image, path)


def _cine(
    anatomy: pd.DataFrame,
    rng: np.random.Generator,
    *,
    columns: int,
    rows: int,
    mm: float,
    slices: int,
    frames: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Intensities (T, Z, Y, X) float32 and labels uint8 of the one person in `anatomy`."""
    offsets = np.arange(slices) - slices // 2
    same = anatomy.iloc[[0] * slices].copy()
    same["septum"] -= np.radians(PHANTOM_WINDING) * offsets.clip(-LENGTH / 2, LENGTH / 2) / LENGTH
    # receiver's gain: raw units of blood, about
    sigma, gain = anatomy.noise.to_numpy()[0], rng.uniform(900, 2600)
    side = max(columns, rows)
    top, left = (side - rows) // 2, (side - columns) // 2
    here = (..., slice(top, top + rows), slice(left, left + columns))
    cine = np.empty((frames, slices, rows, columns), np.float32)
    labels = np.empty(cine.shape, np.uint8)
    for t in range(frames):
        at = np.full(slices, t * FRAMES / frames)
        signal, truth = paint(same, slices=offsets, frames=at, pixels=side, fov_mm=side * mm)
        cine[t], labels[t] = np.rint(rician(signal[here], sigma, rng) * gain), truth[here]
    return cine.clip(0, WHITE, out=cine), labels


def _record(person: dict[Any, Any], rng: np.random.Generator) -> dict[str, object]:
    """A row of UK Biobank's CSV (field-instance.array). Heart failure is I500 before the scan; I10
    is a distractor."""
    visit = pd.Timestamp("2015-01-05") + pd.Timedelta(days=int(rng.integers(0, 1800)))
    born = visit - pd.Timedelta(days=person["age"] * 365.25)
    codes = ["I10"] * int(rng.random() < 0.4) + ["I500"] * (person["diagnosis"] == "hf")
    dates = [
        (visit - pd.Timedelta(days=int(days))).date().isoformat()
        for days in rng.integers(30, 3000, len(codes))
    ]
    pad = [""] * (ARRAY_COLUMNS - len(codes))
    return {
        "eid": person["subject"],
        "31-0.0": int(person["sex"] == "M"),
        "34-0.0": born.year,
        "52-0.0": born.month,
        "53-2.0": visit.date().isoformat(),
        "21003-2.0": int(person["age"]),
        "21001-2.0": person["bmi"],
        **{f"41270-0.{k}": code for k, code in enumerate(codes + pad)},
        **{f"41280-0.{k}": date for k, date in enumerate(dates + pad)},
    }
