"""NIfTI files frame by frame: gunzipping is nearly all the cost of reading a cine, so nothing is
read that is not needed.

In a NIfTI file the first axis runs fastest and time slowest, so a frame is a run of bytes: a cine
is streamed through one buffer and the stream stops behind the last wanted frame.
"""

from __future__ import annotations

import logging
import math
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import nibabel
import numpy as np
from isal import igzip
from isal.isal_zlib import IsalError
from nibabel.spatialimages import HeaderDataError

# what an in-plane pixel of a heart can measure; outside it the header is wrong
SPACING_MM = (0.5, 3.0)
GAP_MM = (3.0, 25.0)  # between slices: M&Ms-2 has up to 20
DISPUTE = 0.02  # by which the two spacings of a header may differ
FRAMES = 50  # of a cine in UK Biobank: the one length that marks a time axis by itself
SLICES = 30  # more than any short-axis stack has (UK Biobank 8..13, ACDC 6..21)
MANY_SLICES = 20  # slices, above which an axis that is longer than the time's is rather that
# NIfTI's codes of metre, millimetre and micrometre; others say nothing
MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}
# intent codes of files whose last axis is no time: matrices, vectors, colours
VECTORS = (1005, 1006, 1007, 2003, 2004)
OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x89HDF": "HDF5",
}
NIFTI2 = (b"\x1c\x02\0\0", b"\0\0\x02\x1c")  # 540, a version 2 header's size, in either byte order
DEFLATE = 1032  # bytes at most that one byte of a gzip file unpacks to
PIECE = 2**20  # bytes unpacked at once: few enough to stay in the processor's cache
# nibabel would log every oddity of every header
SILENT = logging.Logger("silent", logging.CRITICAL + 1)


@dataclass(frozen=True)
class Volume:
    """A NIfTI image or label file whose header was read and whose voxels were not."""

    path: Path
    frames: int  # T; 1 for a volume without time
    shape: tuple[int, int, int]  # (Z, Y, X) of a frame
    spacing: tuple[float, float]  # (dy, dx) mm
    # (4, 4) index (x, y, z) to RAS mm where the header declares a usable one, else None
    affine: np.ndarray | None
    timed: bool  # the file has a time axis
    axis: int  # which of the file's four it is; a frame is a run of bytes only where it is 3
    dtype: np.dtype
    offset: int  # of the first voxel in the file, bytes
    slope: float
    inter: float
    flags: tuple[str, ...] = ()  # what had to be decided: spacing_disputed

    def stream(self) -> Iterator[np.ndarray]:
        """Every frame (Z, Y, X) in turn, in a buffer that the next one overwrites; real values
        where the file scales.

        A stream read to its end has passed the file's checksum. Raises ValueError, never naming the
        path, when the file is truncated or corrupt.
        """
        return (frame for _, frame in self._numbered(range(self.frames)))

    def take(self, wanted: Iterable[int]) -> dict[int, np.ndarray]:
        """The wanted frames, copied; the file is read up to the last of them. Raises as
        `stream`."""
        return {t: frame.copy() for t, frame in self._numbered(sorted(set(wanted)))}

    def _numbered(self, wanted: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        together = 1 if self.axis == 3 else self.frames  # frames that lie interleaved in the file
        raw = np.empty(together * math.prod(self.shape) * self.dtype.itemsize, np.uint8)
        inside = [self.shape[0], self.shape[1], self.shape[2]]
        inside.insert(3 - self.axis, together)
        block = np.moveaxis(raw.view(self.dtype).reshape(inside), 3 - self.axis, 0)
        in_memory = -1
        with _read(self.path) as file:
            _skip(file, self.offset)
            for t in wanted:
                if (number := t // together) != in_memory:
                    _skip(file, (number - in_memory - 1) * len(raw))
                    _fill(file, raw.data)
                    in_memory = number
                yield t, self._real(block[t % together])
            if (in_memory + 1) * together == self.frames:
                file.read(1)  # the end of a gzip stream holds its checksum

    def _real(self, frame: np.ndarray) -> np.ndarray:
        if (self.slope, self.inter) == (1.0, 0.0):
            return frame
        with np.errstate(over="ignore", invalid="ignore"):
            return frame * self.slope + self.inter


def open_volume(
    path: Path, *, default_spacing: tuple[float, float] | None = None, frames: int | None = None
) -> Volume:
    """A NIfTI file, plain or gzipped, whose header and length were checked and whose voxels were
    not read.

    Args:
        path: of the file.
        default_spacing: (dy, dx) mm of a pixel for a header that gives none of 0.5..3 mm.
        frames: how many frames the file is known to have if it has a time axis; it tells one that
            is not the last (see `_time_axis`).

    Spacing comes from sform or qform, else from pixdim, in the unit that the header names; three
    sides of exactly 1 mm mean that nobody set it. Where the two are far apart the flag is
    `spacing_disputed`.

    A gzipped file ends with the number of bytes in it. Only where that is not what the header
    promises (it was cut short, or holds several streams or something behind them) is it unpacked
    here, once, to see what it holds.

    Raises:
        ValueError: with the reason, never the path: missing, empty, truncated or corrupt file,
            another format, a shape that is no short-axis stack, no telling which axis is time, or
            an in-plane spacing outside 0.5..3 mm without a `default_spacing`.
    """
    with _read(path) as file:
        head = file.read(540)
        packed = isinstance(file, Unpacked)
    header, shape, zooms, dtype, unit, slope, inter, offset = _header(head)
    if offset < 0 or offset + math.prod(shape) * dtype.itemsize > path.stat().st_size * (
        DEFLATE if packed else 1
    ):
        raise ValueError("file is truncated or corrupt (its header promises more than it holds)")
    axis = _time_axis(shape, zooms, frames) if len(shape) == 4 else 3
    count = shape[axis] if len(shape) == 4 else 1
    x, y, z = (n for k, n in enumerate(shape) if k != axis)
    if z > SLICES or z >= min(x, y):
        raise ValueError(
            f"which axis is what? shape {_times(shape)}, expected columns x rows x slices (at "
            f"most {SLICES}){' x frames' if len(shape) == 4 else ''}"
        )
    frame = x * y * z * dtype.itemsize
    _check_length(path, packed=packed, promised=offset + count * frame, frame=frame)
    affine = _affine(header, unit) if axis == 3 else None
    spacing, disputed = _spacing(
        affine, zooms[[k for k in range(len(zooms)) if k != axis]], default_spacing, unit
    )
    return Volume(
        path,
        count,
        (z, y, x),
        spacing,
        affine,
        timed=count > 1,
        axis=axis,
        dtype=dtype,
        offset=offset,
        slope=slope or 1.0,
        inter=inter or 0.0,
        flags=("spacing_disputed",) if disputed else (),
    )


class _Header(NamedTuple):
    """What the first bytes of a NIfTI file say."""

    header: nibabel.Nifti1Header
    shape: tuple[int, ...]  # three or four axes, as the file orders them
    zooms: np.ndarray  # of each axis, mm in the plane and across
    dtype: np.dtype
    unit: float  # mm that the header's unit of length measures
    slope: float | None
    inter: float | None
    offset: int  # of the first voxel, bytes


def _header(head: bytes) -> _Header:
    """The header in a file's first bytes. Raises ValueError where they are none, or no volume's."""
    kind = nibabel.Nifti2Header if head[:4] in NIFTI2 else nibabel.Nifti1Header
    if other := _other_format(head):
        raise ValueError(f"not a NIfTI file but {other}")
    try:
        header = kind(head[: kind.sizeof_hdr], check=False)
        header.check_fix(logger=SILENT, error_level=40)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        unit = MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
        zooms = np.abs(np.array(header.get_zooms(), float))
        zooms[:3] *= unit
        slope, inter = header.get_slope_inter()
        offset = int(header["vox_offset"]) or header.single_vox_offset
        vectors = int(header["intent_code"]) in VECTORS
        apart = header["magic"].item() in (b"ni1", b"ni2")
    except Exception as error:  # noqa: BLE001  a damaged header may raise anything, and the text may name the path
        raise ValueError(f"file is truncated or corrupt ({type(error).__name__})") from None
    if apart:
        raise ValueError(
            "a header without its voxels (they are in an .img file); save both as one .nii.gz"
        )
    while len(shape) > 4 and 1 in shape[3:]:  # as some programs write X x Y x Z x 1 x T
        single = 3 + shape[3:].index(1)
        shape, zooms = shape[:single] + shape[single + 1 :], np.delete(zooms, single)
    if (
        len(shape) not in (3, 4)
        or min(shape) < 1
        or dtype.kind not in "uif"
        or (vectors and len(shape) == 4)
    ):
        raise ValueError(
            f"not a volume: shape {_times(shape)}, {'vectors' if vectors else f'type {dtype}'}"
        )
    return _Header(header, shape, zooms, dtype, unit, slope, inter, offset)


def read_volume(
    path: Path, *, default_spacing: tuple[float, float] | None = None, frames: int | None = None
) -> tuple[np.ndarray, tuple[float, float]]:
    """(array (Z, Y, X), or (T, Z, Y, X) where the file has a time axis; spacing (dy, dx) in mm).
    See `open_volume`."""
    volume = open_volume(path, default_spacing=default_spacing, frames=frames)
    taken = volume.take(range(volume.frames))
    return np.stack(list(taken.values())) if volume.timed else taken[0], volume.spacing


def nifti(folder: Path, stem: str) -> Path:
    """<folder>/<stem>.nii.gz, or the unpacked file where only that exists."""
    packed, plain = folder / f"{stem}.nii.gz", folder / f"{stem}.nii"
    return plain if plain.is_file() and not packed.exists() else packed


def _time_axis(shape: tuple[int, ...], zooms: np.ndarray, frames: int | None) -> int:
    """Which of four axes is time: the last, unless in its stead the first or third has the known
    number of frames.

    Where that number is not known, an axis of 50 has it. The other axes must then look like a
    stack. Refused are two such axes, none of the known length, and a third axis at least as long as
    the last, which may be time as well, unless pixdim gives it the gap of slices and there are not
    many.
    """
    wanted = frames or FRAMES
    if shape[3] == wanted:
        return 3
    others = {
        axis: [n for k, n in enumerate(shape) if k != axis]
        for axis in (0, 2)
        if shape[axis] == wanted
    }
    possible = [axis for axis, (x, y, z) in others.items() if z <= SLICES < min(x, y)]
    if len(possible) == 1:
        return possible[0]
    gap = (
        GAP_MM[0] <= zooms[2] <= GAP_MM[1] and zooms[2] > max(zooms[:2]) and shape[2] <= MANY_SLICES
    )
    if possible or frames or (shape[2] >= shape[3] and not gap):
        raise ValueError(
            f"which axis is time? shape {_times(shape)}, {frames or 'unknown'} frames expected"
        )
    return 3


def _affine(header: nibabel.Nifti1Header, unit: float) -> np.ndarray | None:
    """Sform, else qform, of which the header declares that it places the file and which gives
    in-plane axes a direction."""
    for form in (header.get_sform, header.get_qform):
        try:
            affine, code = form(coded=True)
        except (HeaderDataError, ValueError, ArithmeticError):  # a quaternion that is none
            continue
        if code > 0 and np.isfinite(affine).all() and affine[:3, :2].any(axis=0).all():
            placed: np.ndarray = np.diag([unit, unit, unit, 1]) @ affine
            return placed
    return None


def _spacing(
    affine: np.ndarray | None, zooms: np.ndarray, default: tuple[float, float] | None, unit: float
) -> tuple[tuple[float, float], bool]:
    """((dy, dx) mm of the first source that has a possible one, whether the sources are far
    apart)."""
    sources = [zooms] if affine is None else [np.linalg.norm(affine[:3, :3], axis=0), zooms]
    possible = [mm[1::-1] for mm in sources if _possible(mm)]
    if possible:
        disputed = any(not np.allclose(other, possible[0], rtol=DISPUTE) for other in possible[1:])
        absurd = not _possible(sources[0]) and not (sources[0] == 1).all()
        return (float(possible[0][0]), float(possible[0][1])), disputed or absurd
    if default is None:
        dx, dy, dz = zooms
        wrong = (
            "was never set"
            if dx == dy == dz == 1
            else f"is outside {SPACING_MM[0]}..{SPACING_MM[1]} mm"
        )
        counted = (
            ""
            if unit == 1
            else f" (the header counts in {'metres' if unit > 1 else 'micrometres'})"
        )
        raise ValueError(
            f"in-plane spacing {dy:g} x {dx:g} mm{counted} {wrong}; give a default spacing if it "
            "is known"
        )
    return default, False


def _possible(mm: np.ndarray) -> bool:
    """Whether sides (dx, dy, dz) can be a heart's in the plane, and somebody set them."""
    return bool(
        all(SPACING_MM[0] <= side <= SPACING_MM[1] for side in mm[:2]) and not (mm == 1).all()
    )


def _other_format(head: bytes) -> str | None:
    """What a file is that begins so, where it is known to be no NIfTI."""
    if head[128:132] == b"DICM":
        return "DICOM; convert it, for example with dcm2niix"
    return next((name for start, name in OTHERS.items() if head.startswith(start)), None)


def _check_length(path: Path, *, packed: bool, promised: int, frame: int) -> None:
    """Raise ValueError unless the file holds the bytes that its header has `promised`, and less
    than a `frame` more."""
    if packed:
        with _read(path, packed=False) as file:
            file.seek(-4, 2)
            if int.from_bytes(file.read(4), "little") == promised % 2**32:
                return
        length = _unpacked_length(path, promised + frame)
    else:
        length = path.stat().st_size
    if length < promised:
        raise ValueError("file is truncated or corrupt (its header promises more than it holds)")
    if length >= promised + frame:
        raise ValueError("the file holds more frames than its header says")


def _unpacked_length(path: Path, most: int) -> int:
    """Bytes in a gzipped file, counted no further than `most`."""
    piece, count = bytearray(PIECE), 0
    with _read(path) as file:
        while count < most and (got := file.readinto(piece)):  # type: ignore[attr-defined]
            count += got
    return count


class Unpacked(igzip.IGzipFile):
    """A gzip file that unpacks into the caller's buffer, as Python's own does from 3.14 on; before,
    it copied."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")  # type: ignore[no-untyped-call]

    def readinto(self, buffer: Any) -> int:
        count: int = self._buffer.readinto(buffer)
        return count


@contextmanager
def _read(path: Path, *, packed: bool = True) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked where its first two say gzip; what goes wrong while it is open
    tells no path.

    packed=False: its bytes as they are.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("not a file")
        with path.open("rb") as file:
            start = file.read(2)
        if not start:
            raise ValueError("file is empty (0 bytes)")
        with Unpacked(path) if packed and start == b"\x1f\x8b" else path.open("rb") as file:
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
