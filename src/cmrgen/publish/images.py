"""A synthetic set in formats that others read: PNG images with a metadata table, or NIfTI pairs for
training a segmenter.

What leaves names no participant: sources are numbered within the set, ages and BMI appear as the
bands the prompts say.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from PIL import Image

from cmrdata import progress
from cmrdata.batch import LABELS, PHASES, ed_es_ed
from cmrdata.disk import sync_entries, write_atomic
from cmrdata.plan_columns import COLUMN, known_columns
from cmrdata.store import Store
from cmrgen.render.set_card import card_of_set
from cmrstudy.figures import STRUCTURES

# what is told of each image; its participant, exact age and BMI, and source row are not
FIRST_COLUMNS = ("row", "source", "group")
# a palette PNG's
COLOURS = [channel for label in range(256) for channel in STRUCTURES.get(label, (0, 0, 0))]
Files = Iterator[tuple[str, bytes]]


def publish_set(
    synthetic: Store, folder: Path, *, formats: Sequence[str] = ("png",), audit: str | None = None
) -> list[Path]:
    """Write a finished set as `folder`/<format>, with its card.

    Each is written beside and renamed; what an interruption left is continued. Columns that nobody
    knows are named and stay.

    Args:
        synthetic: the set.
        folder: of the exports.
        formats: some of FORMATS.
        audit: see cmrgen.render.set_card.card_of_set.

    Returns:
        A folder for each format.

    Raises ValueError for an unknown format, FileExistsError where one is there already, Unwritable.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(
            f"formats: {', '.join(unknown)} is unknown; choose from {', '.join(FORMATS)}"
        )
    done = [Path(folder) / name for name in formats]
    if there := [path for path in done if path.exists()]:
        raise FileExistsError(f"{there[0]} is there already; remove it or give another run_dir=")
    if strange := [name for name in synthetic.index if name not in known_columns()]:
        print(
            f"{folder}: {', '.join(strange)} stay here, since no axis has these names; with the "
            "cohort= that adds the axis, its bands leave too",
            flush=True,
        )
    texts = [card_of_set(synthetic, kind=name, audit=audit) for name in formats]
    for path, name, text in zip(done, formats, texts, strict=True):
        beside = path.with_name(f".{name}-{synthetic.fingerprint}.unfinished")
        beside.mkdir(parents=True, exist_ok=True)
        rows = public_table(synthetic.index)
        for k in progress.each(range(len(rows)), name, total=len(rows), unit="images"):
            for at, content in FORMATS[name](synthetic, k, int(rows.row.iloc[k])):
                _write(beside / at, content)
        for at, content in FINISH[name](synthetic, rows):
            write_atomic(beside / at, content)
        write_atomic(beside / "README.md", text)
        os.replace(beside, path)
        sync_entries(path.parent)
    return done


def public_columns(index: pd.DataFrame) -> list[str]:
    """The columns that a set's table has for others: those that may leave with every set, and the
    bands of added axes that this one knows."""
    further = [
        column.name
        for column in known_columns().values()
        if column.public and (column.name in COLUMN or column.name in index)
    ]
    return list(dict.fromkeys([*FIRST_COLUMNS, *further]))


def public_table(index: pd.DataFrame) -> pd.DataFrame:
    """The set's index as others may see it: its `public_columns`, its sources renamed source-0001
    ... in order of appearance."""
    number = pd.factorize(index.subject)[0] + 1
    return (
        index.assign(source=[f"source-{k:04d}" for k in number])
        .reindex(columns=public_columns(index))
        .reset_index(drop=True)
    )


def _png(synthetic: Store, k: int, row: int) -> Files:
    """The pair as one RGB PNG (ED, ES, ED), and its masks as palette PNGs whose pixels are the
    labels."""
    yield (
        f"images/{row:06d}.png",
        _encoded(Image.fromarray(np.moveaxis(ed_es_ed(np.asarray(synthetic.images[k])), 0, -1))),
    )
    for phase, mask in zip(PHASES, synthetic.masks[k], strict=True):
        picture = Image.fromarray(np.asarray(mask))
        picture.putpalette(COLOURS)
        yield f"masks/{row:06d}_{phase}.png", _encoded(picture)


def _png_tables(synthetic: Store, rows: pd.DataFrame) -> Files:
    names = {"file_name": [f"images/{row:06d}.png" for row in rows.row]}
    for phase in PHASES:
        names[f"{phase.lower()}_mask_file_name"] = [
            f"masks/{row:06d}_{phase}.png" for row in rows.row
        ]
    yield "metadata.csv", pd.DataFrame(names).join(rows).to_csv(index=False).encode()


def _nifti(synthetic: Store, k: int, row: int) -> Files:
    """nnU-Net's names: a case per phase, channel 0000; axes x (to the patient's left), y (to the
    back), one slice."""
    affine = _affine(synthetic)
    for phase, image, mask in zip(PHASES, synthetic.images[k], synthetic.masks[k], strict=True):
        yield f"imagesTr/{row:06d}_{phase}_0000.nii.gz", _packed(image, affine)
        yield f"labelsTr/{row:06d}_{phase}.nii.gz", _packed(mask, affine)


def _nifti_tables(synthetic: Store, rows: pd.DataFrame) -> Files:
    facts = {
        "name": "synthetic cardiac MRI",
        "channel_names": {"0": "cine MRI"},
        "labels": {"background": 0, **LABELS},
        "numTraining": len(PHASES) * len(rows),
        "file_ending": ".nii.gz",
    }
    yield "dataset.json", json.dumps(facts, indent=1).encode()
    yield "metadata.csv", rows.to_csv(index=False).encode()


FORMATS: dict[str, Callable[[Store, int, int], Files]] = {"png": _png, "nifti": _nifti}
FINISH: dict[str, Callable[[Store, pd.DataFrame], Files]] = {
    "png": _png_tables,
    "nifti": _nifti_tables,
}


def _affine(synthetic: Store) -> np.ndarray:
    """Voxels to mm in NIfTI's axes (right, front, up): columns run to the patient's left, rows to
    the back."""
    if not (fov := synthetic.meta.get("fov_mm")):
        raise ValueError(
            f"{synthetic.folder}: its pixel size is unknown (no fov_mm in store.json), so it has "
            "no NIfTI form"
        )
    pixel = fov / synthetic.meta["pixels"]
    return np.diag([-pixel, -pixel, 1.0, 1.0])


def _packed(array: np.ndarray, affine: np.ndarray) -> bytes:
    """(rows, columns) uint8 as a NIfTI of shape (columns, rows, 1); no date in the gzip header, so
    equal bytes."""
    volume = nib.Nifti1Image(np.ascontiguousarray(np.asarray(array).T[..., None]), affine)
    volume.header.set_xyzt_units("mm")
    return gzip.compress(volume.to_bytes(), mtime=0)


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Once: what an interrupted export has finished stays. No fsync for each of thousands, the
    folder is not yet there."""
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        half = path.with_name(f".{path.name}")
        half.write_bytes(content)
        os.replace(half, path)
