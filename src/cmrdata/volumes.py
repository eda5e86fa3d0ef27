"""NIfTI files frame by frame: gunzipping is nearly all the cost of reading a cine, so nothing is read that is not needed.

In a NIfTI file the first axis runs fastest and time slowest, so a frame is a run of bytes: a cine is streamed through
one buffer and the stream stops behind the last wanted frame.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel
import numpy as np
from isal import igzip
from isal.isal_zlib import IsalError
from nibabel.spatialimages import HeaderDataError

SPACING_MM = (0.5, 3.0)  # what an in-plane pixel of a heart can measure; outside it the header is wrong
FRAMES = 50  # of a cine in UK Biobank: the one length that marks a time axis by itself
SLICES = 24  # more than any short-axis stack has (UK Biobank 8..13, ACDC 6..18)
TILT = 0.2  # least part of an in-plane axis along left-right, or front-back and up-down, that tells its sense
NIFTI2 = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # 540, a version 2 header's size, in either byte order
DEFLATE = 1032  # bytes at most that one byte of a gzip file unpacks to
PIECE = 2**20  # bytes unpacked at once: few enough to stay in the processor's cache
SILENT = logging.Logger("silent", logging.CRITICAL + 1)  # nibabel would log every oddity of every header


@dataclass(frozen=True)
class Volume:
    """A NIfTI image or label file whose header was read and whose voxels were not."""

    path: Path
    frames: int  # T; 1 for a volume without time
    shape: tuple[int, int, int]  # (Z, Y, X) of a frame
    spacing: tuple[float, float]  # (dy, dx) mm
    affine: np.ndarray | None  # (4, 4) index (x, y, z) to RAS mm where the header declares a usable one, else None
    timed: bool  # the file has a time axis
    axis: int  # which of the file's four it is; a frame is a run of bytes only where it is 3
    dtype: np.dtype
    offset: int  # of the first voxel in the file, bytes
    slope: float
    inter: float

    def stream(self) -> Iterator[np.ndarray]:
        """Every frame (Z, Y, X) in turn, in a buffer that the next one overwrites; real values where the file scales.

        A stream read to its end has passed the file's checksum. Raises ValueError, never naming the path, when the
        file is truncated or corrupt.
        """
        return (frame for _, frame in self._numbered(range(self.frames)))

    def take(self, wanted: Iterable[int]) -> dict[int, np.ndarray]:
        """The wanted frames, copied; the file is read up to the last of them. Raises as `stream`."""
        return {t: frame.copy() for t, frame in self._numbered(sorted(set(wanted)))}

    def _numbered(self, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        together = 1 if self.axis == 3 else self.frames  # frames that lie interleaved in the file
        raw = np.empty(together * math.prod(self.shape) * self.dtype.itemsize, np.uint8)
        inside = [self.shape[0], self.shape[1], self.shape[2]]
        inside.insert(3 - self.axis, together)
        block = np.moveaxis(raw.view(self.dtype).reshape(inside), 3 - self.axis, 0)
        held = -1
        with _read(self.path) as file:
            _skip(file, self.offset)
            for t in wanted:
                if (number := t // together) != held:
                    _skip(file, (number - held - 1) * len(raw))
                    _fill(file, raw.data)
                    held = number
                yield t, self._real(block[t % together])
            if (held + 1) * together == self.frames:
                file.read(1)  # the end of a gzip stream holds its checksum

    def _real(self, frame: np.ndarray) -> np.ndarray:
        if (self.slope, self.inter) == (1.0, 0.0):
            return frame
        with np.errstate(over="ignore", invalid="ignore"):
            return frame * self.slope + self.inter


def open_volume(path: Path, *, default_spacing: tuple[float, float] | None = None, frames: int | None = None) -> Volume:
    """The header of a NIfTI file, plain or gzipped, checked.

    Spacing comes from sform or qform, else from pixdim; three sides of exactly 1 mm mean that nobody set it.
    `frames` is how many frames the file is known to have if it has a time axis; it tells one that is not the last (see
    `_time_axis`). Raises ValueError with the reason, never the path: missing, empty, truncated or corrupt file, a
    shape that is no volume, no telling which axis is time, or an in-plane spacing outside 0.5..3 mm where no
    `default_spacing` (dy, dx) is given to stand in for it.
    """
    with _read(path) as file:
        head = file.read(540)
        most = path.stat().st_size * (DEFLATE if isinstance(file, Unpacked) else 1)
    try:
        kind = nibabel.Nifti2Header if head[:4] in NIFTI2 else nibabel.Nifti1Header
        header = kind(head[: kind.sizeof_hdr], check=False)
        header.check_fix(logger=SILENT, error_level=40)
        shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
        zooms = np.abs(np.array(header.get_zooms(), float))
        slope, inter = header.get_slope_inter()
        offset = int(header["vox_offset"]) or header.single_vox_offset
    except Exception as error:  # noqa: BLE001  a damaged header may raise anything, and the text may name the path
        raise ValueError(f"file is truncated or corrupt ({type(error).__name__})") from None
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1 or dtype.kind not in "uif":
        raise ValueError(f"not a volume: shape {_times(shape)}, type {dtype}")
    if not 0 <= offset <= offset + math.prod(shape) * dtype.itemsize <= most:
        raise ValueError("file is truncated or corrupt (its header promises more than it holds)")
    axis = _time_axis(shape, frames) if len(shape) == 4 else 3
    count = shape[axis] if len(shape) == 4 else 1
    x, y, z = (n for k, n in enumerate(shape) if k != axis)
    affine = _affine(header) if axis == 3 else None
    spacing = _spacing(affine, zooms[[k for k in range(4) if k != axis]], default_spacing)
    return Volume(path, count, (z, y, x), spacing, affine, timed=count > 1, axis=axis, dtype=dtype, offset=offset,
                  slope=slope or 1.0, inter=inter or 0.0)  # fmt: skip


def read_volume(
    path: Path, *, default_spacing: tuple[float, float] | None = None, frames: int | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """(array (Z, Y, X), or (T, Z, Y, X) where the file has a time axis; spacing (dy, dx) in mm). See `open_volume`."""
    volume = open_volume(path, default_spacing=default_spacing, frames=frames)
    taken = volume.take(range(volume.frames))
    return np.stack(list(taken.values())) if volume.timed else taken[0], volume.spacing


def flips(affine: np.ndarray | None) -> tuple[bool, bool]:
    """Whether (rows, columns) run against the radiological view: columns to the patient's left, rows backwards or down.

    `affine` is index (x, y, z) to RAS mm. (False, False) unless both are told clearly: there is no affine, its
    diagonal is all positive and it has nothing else (what programs write that know no orientation), its in-plane
    axes are not at right angles, or one lies too close to the plane that separates the senses.
    """
    if affine is None or not np.isfinite(affine).all():
        return False, False
    axes = affine[:3, :3]
    if (axes == np.diag(np.abs(np.diag(axes)))).all():
        return False, False
    lengths = np.linalg.norm(axes, axis=0)
    if not lengths[:2].all():
        return False, False
    x, y = (axes / np.where(lengths > 0, lengths, 1)).T[:2]
    rightward, upward = x[0], (y[1] + y[2]) / math.sqrt(2)
    if abs(x @ y) > TILT or min(abs(rightward), abs(upward)) < TILT:
        return False, False
    return bool(upward > 0), bool(rightward > 0)


def nifti(folder: Path, stem: str) -> Path:
    """<folder>/<stem>.nii.gz, or the unpacked file where only that exists."""
    packed, plain = folder / f"{stem}.nii.gz", folder / f"{stem}.nii"
    return plain if plain.is_file() and not packed.exists() else packed


def _time_axis(shape: tuple[int, ...], frames: int | None) -> int:
    """Which of four axes is time: the last, unless in its stead the first or third has the known number of frames.

    Where that number is not known, an axis of 50 has it. The other axes must then look like a stack. Refused are two
    such axes, none of the known length, and more slices than frames and than any stack has.
    """
    wanted = frames or FRAMES
    if shape[3] == wanted:
        return 3
    others = {axis: [n for k, n in enumerate(shape) if k != axis] for axis in (0, 2) if shape[axis] == wanted}
    found = [axis for axis, (x, y, z) in others.items() if z <= SLICES < min(x, y)]
    if len(found) == 1:
        return found[0]
    if found or (shape[3] > 1 and (frames or shape[2] > max(SLICES, shape[3]))):
        raise ValueError(f"which axis is time? shape {_times(shape)}, {frames or 'unknown'} frames expected")
    return 3


def _affine(header: nibabel.Nifti1Header) -> np.ndarray | None:
    """Sform, else qform, of which the header declares that it places the file and which gives in-plane axes a direction."""
    for form in (header.get_sform, header.get_qform):
        try:
            affine, code = form(coded=True)
        except (HeaderDataError, ValueError, ArithmeticError):  # a quaternion that is none
            continue
        if code > 0 and np.isfinite(affine).all() and affine[:3, :2].any(axis=0).all():
            return affine
    return None


def _spacing(affine: np.ndarray | None, zooms: np.ndarray, default: tuple[float, float] | None) -> tuple[float, float]:
    """(dy, dx) mm of the first source that has a possible one."""
    for dx, dy, dz in [zooms] if affine is None else [np.linalg.norm(affine[:3, :3], axis=0), zooms]:
        if all(SPACING_MM[0] <= mm <= SPACING_MM[1] for mm in (dx, dy)) and not dx == dy == dz == 1:
            return float(dy), float(dx)
    if default is None:
        dx, dy, dz = zooms
        wrong = "was never set" if dx == dy == dz == 1 else f"is outside {SPACING_MM[0]}..{SPACING_MM[1]} mm"
        raise ValueError(f"in-plane spacing {dy:g} x {dx:g} mm {wrong}; give a default spacing if it is known")
    return default


class Unpacked(igzip.IGzipFile):
    """A gzip file that unpacks into the caller's buffer, as Python's own does from 3.14 on; before, it copied."""

    def readinto(self, buffer: Any) -> int:
        return self._buffer.readinto(buffer)


@contextmanager
def _read(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where its first two say gzip; what goes wrong while it is open tells no path."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise ValueError("file is empty (0 bytes)")
        with Unpacked(path, "rb") if start == b"\x1f\x8b" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except FileNotFoundError:
        raise ValueError("file is missing") from None
    except (BadGzipFile, EOFError, IsalError) as error:  # type: ignore[misc]  # isal's stub has no class here
        raise ValueError(f"file is truncated or corrupt ({type(error).__name__})") from None
    except OSError as error:
        raise ValueError(f"file cannot be read ({type(error).__name__})") from None


def _skip(file: BinaryIO, count: int) -> None:
    if not isinstance(file, Unpacked):
        file.seek(count, 1)
        return
    unwanted = memoryview(bytearray(min(count, PIECE)))
    while count:
        _fill(file, piece := unwanted[:count])
        count -= len(piece)


def _fill(file: BinaryIO, view: memoryview) -> None:
    """Read exactly as many bytes as `view` holds."""
    done = 0
    while done < len(view):
        if not (got := file.readinto(view[done : done + PIECE])):  # type: ignore[attr-defined]
            raise EOFError
        done += got


def _times(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
