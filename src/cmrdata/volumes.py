"""NIfTI files frame by frame: gunzipping is nearly all the cost of reading a cine, so nothing is read that is not needed.

In a NIfTI file the first axis runs fastest and time slowest, so a frame is a run of bytes: a cine is streamed through
one buffer and the stream stops behind the last wanted frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from isal import igzip

SPACING_MM = (0.5, 3.0)  # what an in-plane pixel of a heart can measure; outside it the header is wrong
NIFTI2 = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # 540, a version 2 header's size, in either byte order


@dataclass(frozen=True)
class Volume:
    """A NIfTI image or label file whose header was read and whose voxels were not."""

    path: Path
    frames: int  # T; 1 for a volume without time
    shape: tuple[int, int, int]  # (Z, Y, X) of a frame
    spacing: tuple[float, float]  # (dy, dx) mm
    affine: np.ndarray | None  # (4, 4) index to RAS mm where the header declares one, else None
    timed: bool  # the file has a time axis
    dtype: np.dtype
    offset: int  # of the first voxel in the file, bytes
    slope: float
    inter: float

    def stream(self) -> Iterator[np.ndarray]:
        """Every frame (Z, Y, X) in turn, in a buffer that the next one overwrites; real values where the file scales.

        A stream read to its end has passed the file's checksum. Raises ValueError, never naming the path, when the
        file is truncated or corrupt.
        """
        count = int(np.prod(self.shape))
        raw = np.empty(count, self.dtype)
        scaled = (self.slope, self.inter) != (1.0, 0.0)
        try:
            with _open(self.path) as file:
                _fill(file, memoryview(bytearray(self.offset)))
                for _ in range(self.frames):
                    _fill(file, memoryview(raw).cast("B"))
                    frame = raw.reshape(self.shape)
                    yield frame * self.slope + self.inter if scaled else frame
                file.read(1)  # the end of a gzip stream holds its checksum
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"file is truncated or corrupt ({type(error).__name__})") from None

    def take(self, wanted: Iterable[int]) -> dict[int, np.ndarray]:
        """The wanted frames, copied; the file is read up to the last of them."""
        left, found = set(wanted), {}
        for number, frame in enumerate(self.stream()):
            if number in left:
                found[number] = frame.copy()
                left.discard(number)
            if not left:
                break
        return found


def open_volume(path: Path, *, default_spacing: tuple[float, float] | None = None) -> Volume:
    """The header of a NIfTI file, plain or gzipped, checked.

    Raises ValueError with the reason, never the path: missing, empty, truncated or corrupt file, a shape that is no
    volume, or an in-plane spacing outside 0.5..3 mm where no `default_spacing` is given to stand in for it.
    """
    if not path.exists():
        raise ValueError("file is missing")
    if path.stat().st_size == 0:
        raise ValueError("file is empty (0 bytes)")
    try:
        with _open(path) as file:
            head = file.read(540)
        kind = nibabel.Nifti2Header if head[:4] in NIFTI2 else nibabel.Nifti1Header
        header = kind(head[: kind.sizeof_hdr])
        shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
        dx, dy = (float(mm) for mm in header.get_zooms()[:2])
        slope, inter = header.get_slope_inter()
        placed = header["sform_code"] > 0 or header["qform_code"] > 0
        affine = header.get_best_affine() if placed else None
    except Exception as error:  # noqa: BLE001  a damaged header or stream may raise anything, and the text names the path
        raise ValueError(f"file is truncated or corrupt ({type(error).__name__})") from None
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "uif":
        raise ValueError(f"not a volume: shape {' x '.join(map(str, shape))}, type {dtype}")
    spacing = (dy, dx)
    if not all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in spacing):
        if default_spacing is None:
            raise ValueError(f"in-plane spacing {dy:g} x {dx:g} mm is outside {SPACING_MM[0]}..{SPACING_MM[1]} mm")
        spacing = default_spacing
    space: Any = shape[2::-1]
    return Volume(path, shape[3] if len(shape) == 4 else 1, space, spacing, affine, len(shape) == 4, dtype,
                  int(header["vox_offset"]) or header.single_vox_offset, slope or 1.0, inter or 0.0)  # fmt: skip


def read_volume(
    path: Path, *, default_spacing: tuple[float, float] | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """(array (Z, Y, X), or (T, Z, Y, X) where the file has a time axis; spacing (dy, dx) in mm). Raises as `open_volume`."""
    volume = open_volume(path, default_spacing=default_spacing)
    frames = np.stack([frame.copy() for frame in volume.stream()])
    return frames if volume.timed else frames[0], volume.spacing


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its first two say gzip."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return igzip.open(path, "rb") if packed else path.open("rb")


def _fill(file: BinaryIO, view: memoryview) -> None:
    """Read exactly as many bytes as `view` holds."""
    done = 0
    while done < len(view):
        if not (got := file.readinto(view[done:])):  # type: ignore[attr-defined]
            raise EOFError
        done += got


def nifti(folder: Path, stem: str) -> Path:
    """<folder>/<stem>.nii.gz, or the unpacked file where only that exists."""
    packed, plain = folder / f"{stem}.nii.gz", folder / f"{stem}.nii"
    return plain if plain.is_file() and not packed.exists() else packed
