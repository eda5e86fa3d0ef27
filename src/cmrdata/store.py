"""Image sets on disk: memory-mapped uint8 images and masks beside an index table; append-only,
atomic, resumable.

<folder>/settings.json     what decides the bytes; written first
         images.u8         (N, C, P, P) raw bytes, channels ED, ES, or the C frames of a heartbeat (store.json: channels)
         masks.u8          (N, 2, P, P) labels 0..3 of ED, ES
         parts/*.parquet   index rows of each finished chunk: what is written here is safe
               *.rejected.csv   subjects of that chunk that could not be read
         index.parquet     all rows; subjects.csv and rejected.csv for a cohort
         store.json        written last; a folder without it is unfinished and can be continued
         origin.json       where a cohort's source lay, for this machine alone (cmrdata.origin)
         .lock             held while a cohort is prepared
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet

from cmrdata.disk import append_at, differences, fingerprint, plain, size, write_atomic
from cmrdata.tables import read_typed, typed

STORE_FORMAT = 4  # raise it when the meaning of the bytes changes: older stores are then made anew
PIXEL_FILES = ("images.u8", "masks.u8")
PAIR = 2  # channels of a mask, and of an image unless its set says otherwise: ED, ES


@dataclass(frozen=True)
class Store:
    """A finished set, opened for reading."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        """The set in `folder`. Raises FileNotFoundError when there is none, ValueError for another
        format or damage."""
        store = cls(Path(folder))
        if not store.complete:
            raise FileNotFoundError(
                f"{folder}: no finished set here (store.json is missing); make it, or resume its "
                "making"
            )
        if fault := store._fault():
            raise ValueError(f"{folder}: {fault}; delete this folder, the next run makes it anew")
        return store

    @property
    def complete(self) -> bool:
        return (self.folder / "store.json").exists()

    @cached_property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.folder / "store.json").read_text())
        return meta

    @property
    def fingerprint(self) -> str:
        return str(self.meta["fingerprint"])

    @property
    def channels(self) -> int:
        """Of an image: 2 (ED, ES), or the frames of a heartbeat."""
        return int(self.meta["channels"])

    @cached_property
    def index(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "index.parquet")

    @cached_property
    def subjects(self) -> pd.DataFrame:
        return read_typed(self.folder / "subjects.csv", text=self.meta["text"])

    @cached_property
    def images(self) -> np.ndarray:
        return self._map("images.u8", self.channels)

    @cached_property
    def masks(self) -> np.ndarray:
        return self._map("masks.u8", PAIR)

    def _map(self, name: str, channels: int) -> np.ndarray:
        shape = (len(self.index), channels, self.meta["pixels"], self.meta["pixels"])
        return np.memmap(self.folder / name, dtype=np.uint8, mode="r", shape=shape)

    def _fault(self) -> str | None:
        """Why this set cannot be trusted, found without reading its rows."""
        try:
            written, rows, pixels = (self.meta[key] for key in ("format", "rows", "pixels"))
        except (ValueError, KeyError, TypeError):
            return "store.json is damaged"
        if written != STORE_FORMAT:
            return f"written in format {written}, this program reads {STORE_FORMAT}"
        try:
            listed = parquet.read_metadata(self.folder / "index.parquet").num_rows
        except (OSError, ValueError):
            return "index.parquet is missing or damaged"
        if listed != rows:
            return f"index.parquet has {listed} rows, store.json says {rows}"
        for name, channels in zip(PIXEL_FILES, (self.channels, PAIR), strict=True):
            if (there := size(self.folder / name)) != (wanted := rows * channels * pixels**2):
                return f"{name} has {there} bytes, {rows} rows take {wanted}"
        if "subjects" in self.meta and not (self.folder / "subjects.csv").exists():
            return "subjects.csv is missing"
        return None


class Writer:
    """Appends chunks to a set; what an interrupted writer had appended is kept and continued."""

    def __init__(
        self, folder: Path, *, pixels: int, settings: dict[str, Any], channels: int = PAIR
    ) -> None:
        """`channels` of an image: 2 (ED, ES), or the frames of a heartbeat; masks always have
        two."""
        self.folder, self.pixels, self.settings = (
            folder,
            pixels,
            {"format": STORE_FORMAT, **settings},
        )
        self.channels = dict(zip(PIXEL_FILES, (channels, PAIR), strict=True))
        self.fingerprint = fingerprint(self.settings)
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        begun = folder / "settings.json"
        if begun.exists():
            if changed := differences(read_settings(folder), plain(self.settings)):
                names = ", ".join(sorted({line.split()[0].partition(".")[0] for line in changed}))
                raise ValueError(
                    f"{folder}: begun with other settings ({names}); choose another folder or "
                    "delete it"
                )
        else:
            write_atomic(begun, json.dumps(plain(self.settings), indent=1))
        self.parts, self.rows = self._finished()
        for name in PIXEL_FILES:  # bytes behind the last finished part are a torn write
            append_at(folder / name, b"", at=self.rows * self._row(name))

    def _finished(self) -> tuple[list[Path], int]:
        """Parts whose bytes are all there, and their rows; what was left of later ones is
        deleted."""
        room = min(size(self.folder / name) // self._row(name) for name in PIXEL_FILES)
        parts: list[Path] = []
        rows = 0
        for part in sorted((self.folder / "parts").glob("*.parquet")):
            try:
                more = parquet.read_metadata(part).num_rows
            except (OSError, ValueError):
                break
            if part != self._part(len(parts)) or rows + more > room:
                break
            parts.append(part)
            rows += more
        unfinished = {*self.folder.glob(".*.[0-9]*"), *(self.folder / "parts").iterdir()} - {
            *parts,
            *map(_faults, parts),
        }
        if lost := sum(path.suffix == ".parquet" for path in unfinished):
            print(
                f"{self.folder}: {lost} parts are damaged or lack their images, and are made again",
                flush=True,
            )
        for path in unfinished:
            path.unlink()
        return parts, rows

    def _row(self, name: str) -> int:
        """Bytes of a row in one of the PIXEL_FILES."""
        return self.channels[name] * self.pixels**2

    def _part(self, number: int) -> Path:
        return self.folder / "parts" / f"{number:06d}.parquet"

    def rejected(self) -> pd.DataFrame:
        """Subjects (subject, reason) of the finished parts that could not be read."""
        tables = [
            pd.read_csv(path, dtype=str, keep_default_na=False)
            for path in map(_faults, self.parts)
            if path.exists()
        ]
        return pd.concat(
            [pd.DataFrame(columns=["subject", "reason"], dtype=str), *tables], ignore_index=True
        )

    def done(self) -> set[str]:
        """Subjects of the finished parts, read or rejected."""
        read = [
            parquet.ParquetFile(part).read(columns=["subject"])["subject"].to_pylist()
            for part in self.parts
        ]
        return set(self.rejected().subject).union(*read)

    def append(
        self,
        images: np.ndarray,
        masks: np.ndarray,
        index: pd.DataFrame,
        *,
        rejected: pd.DataFrame | None = None,
    ) -> None:
        """Write one chunk; it counts once its index part is on disk.

        Args:
            images: (n, C, P, P) uint8.
            masks: (n, 2, P, P) uint8.
            index: n rows.
            rejected: subjects (subject, reason) of the chunk that could not be read.
        """
        for name, array in zip(PIXEL_FILES, (images, masks), strict=True):
            shape = (len(index), self.channels[name], self.pixels, self.pixels)
            assert array.shape == shape and array.dtype == np.uint8, (name, array.shape, shape)
        for name, array in zip(PIXEL_FILES, (images, masks), strict=True):
            append_at(
                self.folder / name, np.ascontiguousarray(array), at=self.rows * self._row(name)
            )
        part = self._part(len(self.parts))
        if rejected is not None and len(rejected):
            write_atomic(_faults(part), rejected.to_csv(index=False))
        write_atomic(part, typed(index.reset_index(drop=True)).to_parquet(index=False))
        self.parts.append(part)
        self.rows += len(index)

    def finish(self, **meta: Any) -> Store:
        """Join the index and mark the set complete."""
        tables = [pd.read_parquet(part) for part in self.parts]
        index = typed(
            pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
        )
        write_atomic(self.folder / "index.parquet", index.to_parquet(index=False))
        facts = {
            **meta,
            "format": STORE_FORMAT,
            "pixels": self.pixels,
            "channels": self.channels["images.u8"],
            "rows": self.rows,
            "fingerprint": self.fingerprint,
        }
        write_atomic(
            self.folder / "store.json",
            json.dumps(plain({"settings": self.settings, **facts}), indent=1),
        )
        return Store.open(self.folder)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings a set was begun with."""
    try:
        settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
        return settings
    except ValueError:
        raise ValueError(
            f"{folder}: settings.json is damaged; delete this folder, the next run makes it anew"
        ) from None


def _faults(part: Path) -> Path:
    return part.with_suffix(".rejected.csv")
