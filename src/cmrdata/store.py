"""Image sets on disk: memory-mapped uint8 images and masks beside an index table; append-only, atomic, resumable.

<folder>/images.u8     (N, 2, P, P) raw bytes, channels ED, ES
         masks.u8      the same shape, labels 0..3
         parts/*.parquet   index rows of each finished chunk: what is written here is safe
         index.parquet     all rows; subjects.csv and rejected.csv for a cohort
         store.json        written last; a folder without it is unfinished and can be continued
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock
from tqdm import tqdm

from cmrdata.cohort import keep_controls, split, with_groups
from cmrdata.runs import write_atomic

FORMAT = 1  # raise it when the meaning of the bytes changes: older stores are then rebuilt
CHUNK = 64  # subjects per part: what a killed preparation loses at most
T = TypeVar("T")


class Stacks(NamedTuple):
    """Images of some subjects, and the subjects that could not be read."""

    images: np.ndarray  # (n, 2, P, P) uint8
    masks: np.ndarray  # (n, 2, P, P) uint8, labels 0..3
    index: pd.DataFrame  # type: ignore[assignment]  # n rows: subject, slice, frame (offsets -1, 0, 1), central (bool), flags
    rejected: pd.DataFrame  # subject, reason


class Cohort(Protocol):
    """A source of subjects. `settings` are the plain values that decide the bytes."""

    name: str
    pixels: int
    seed: int
    controls_per_case: float | None
    max_rejected: float  # share of the subjects that may be unreadable
    settings: dict[str, Any]

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(subject table as `with_groups` takes it, with or without a split column; rejected subjects)."""

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        """Slices of these subjects in their order: nine stacks of a train or extra subject, one of the others."""


@dataclass(frozen=True)
class Store:
    """A finished set, opened for reading."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> Store:
        store = cls(Path(folder))
        if not store.complete:
            raise FileNotFoundError(
                f"{folder}: no finished set here (store.json is missing); make it, or resume its making"
            )
        if store.meta["format"] != FORMAT:
            raise ValueError(
                f"{folder}: written in format {store.meta['format']}, this program reads {FORMAT}; make it anew"
            )
        return store

    @property
    def complete(self) -> bool:
        return (self.folder / "store.json").exists()

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "store.json").read_text())

    @property
    def fingerprint(self) -> str:
        return self.meta["fingerprint"]

    @cached_property
    def index(self) -> pd.DataFrame:
        return pd.read_parquet(self.folder / "index.parquet")

    @cached_property
    def subjects(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "subjects.csv", dtype={"subject": str, "source": str})

    @cached_property
    def images(self) -> np.ndarray:
        return self._map("images.u8")

    @cached_property
    def masks(self) -> np.ndarray:
        return self._map("masks.u8")

    def _map(self, name: str) -> np.ndarray:
        shape = (len(self.index), 2, self.meta["pixels"], self.meta["pixels"])
        return np.memmap(self.folder / name, dtype=np.uint8, mode="r", shape=shape)


class Writer:
    """Appends chunks to a set; what an interrupted writer had appended is kept and continued."""

    def __init__(self, folder: Path, *, pixels: int, settings: dict[str, Any]) -> None:
        self.folder, self.pixels, self.settings = folder, pixels, {"format": FORMAT, **settings}
        self.fingerprint = fingerprint(self.settings)
        (folder / "parts").mkdir(parents=True, exist_ok=True)
        begun = folder / "settings.json"
        if begun.exists() and (found := json.loads(begun.read_text())) != (wanted := _plain(self.settings)):
            changed = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise ValueError(
                f"{folder}: begun with other settings ({', '.join(changed)}); choose another folder or delete it"
            )
        write_atomic(begun, json.dumps(_plain(self.settings), indent=1))
        self.parts = sorted((folder / "parts").glob("*.parquet"))
        self.rows = sum(len(pd.read_parquet(part, columns=["subject"])) for part in self.parts)
        self._files = {name: open(folder / name, "ab") for name in ("images.u8", "masks.u8")}  # noqa: SIM115
        for file in self._files.values():  # bytes behind the last finished part are a torn write
            file.truncate(self.rows * 2 * pixels * pixels)

    def append(self, images: np.ndarray, masks: np.ndarray, index: pd.DataFrame) -> None:
        """Write one chunk; it counts once its index part is on disk."""
        shape = (len(index), 2, self.pixels, self.pixels)
        assert images.shape == masks.shape == shape and images.dtype == masks.dtype == np.uint8, (images.shape, shape)
        for file, array in zip(self._files.values(), (images, masks), strict=True):
            file.write(np.ascontiguousarray(array).tobytes())
            file.flush()
            os.fsync(file.fileno())
        part = self.folder / "parts" / f"{len(self.parts):06d}.parquet"
        write_atomic(part, index.reset_index(drop=True).to_parquet(index=False))
        self.parts.append(part)
        self.rows += len(index)

    def finish(self, **meta: Any) -> Store:
        """Join the index, close the files and mark the set complete."""
        for file in self._files.values():
            file.close()
        tables = [table for part in self.parts if len(table := pd.read_parquet(part))]
        index = pd.concat(tables, ignore_index=True) if tables else pd.read_parquet(self.parts[0])
        write_atomic(self.folder / "index.parquet", index.to_parquet(index=False))
        facts = {**meta, "format": FORMAT, "pixels": self.pixels, "rows": self.rows, "fingerprint": self.fingerprint}
        write_atomic(self.folder / "store.json", json.dumps(_plain({"settings": self.settings, **facts}), indent=1))
        return Store.open(self.folder)


def prepare(cohort: Cohort, root: str | Path, *, workers: int = 2) -> Store:
    """The cohort's store below `root`, built on first use and continued if it was interrupted.

    The folder's name carries a hash of settings and subject table, so changed data make a new store.
    Raises ValueError when more than the cohort's `max_rejected` of the subjects cannot be read, with the reasons counted.
    """
    listed, rejected = cohort.subjects()
    if listed.empty:
        raise ValueError(f"cohort {cohort.name}: no usable subject\n{reasons(rejected)}")
    subjects = with_groups(listed)
    if "split" not in subjects:
        subjects["split"] = split(subjects, seed=cohort.seed)
    subjects["stored"] = keep_controls(subjects, per_case=cohort.controls_per_case, seed=cohort.seed)
    settings = {"cohort": cohort.name, **cohort.settings, "table": subjects.to_csv(index=False)}
    settings["table"] = hashlib.sha256(settings["table"].encode()).hexdigest()
    folder = Path(root) / f"{cohort.name}-{fingerprint({'format': FORMAT, **settings})[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if Store(folder).complete:
            return Store.open(folder)
        writer = Writer(folder, pixels=cohort.pixels, settings=settings)
        wanted = subjects[subjects.stored]
        chunks = [wanted.iloc[k : k + CHUNK] for k in range(0, len(wanted), CHUNK)]
        todo = chunks[len(writer.parts) :]
        with tqdm(
            total=len(wanted), initial=len(wanted) - sum(map(len, todo)), desc=f"prepare {cohort.name}", unit="subject"
        ) as bar:
            for chunk, stacks in zip(todo, ordered(cohort.stacks, todo, workers=workers), strict=True):
                faults = folder / "parts" / f"{len(writer.parts):06d}.rejected.csv"
                write_atomic(faults, stacks.rejected.to_csv(index=False))
                attributes = chunk.drop(columns="stored").set_index("subject")
                writer.append(stacks.images, stacks.masks, stacks.index.join(attributes, on="subject"))
                bar.update(len(chunk))
        unread = [pd.read_csv(path, dtype=str) for path in sorted((folder / "parts").glob("*.rejected.csv"))]
        rejected = pd.concat([rejected, *unread], ignore_index=True).drop_duplicates()
        write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
        listed_in_all = len(set(subjects.subject) | set(rejected.subject))
        if len(rejected) > cohort.max_rejected * listed_in_all:
            raise ValueError(
                f"cohort {cohort.name}: {len(rejected)} subjects rejected, more than {cohort.max_rejected:.0%}; "
                f"see {folder / 'rejected.csv'}\n{reasons(rejected)}"
            )
        read = subjects[~subjects.subject.isin(rejected.subject)].copy()
        read["balanced"] = keep_controls(read[read.stored], per_case=1, seed=cohort.seed).reindex(
            read.index, fill_value=False
        )
        write_atomic(folder / "subjects.csv", read.to_csv(index=False))
        return writer.finish(subjects=len(read), rejected=len(rejected))


def reasons(rejected: pd.DataFrame) -> str:
    """Rejected subjects counted by reason, most frequent first."""
    if rejected.empty:
        return "(nothing rejected)"
    return "\n".join(f"{count:6d}  {reason}" for reason, count in rejected.reason.value_counts().items())


def ordered(function: Callable[..., T], items: Iterable[Any], *, workers: int) -> Iterator[T]:
    """map() over threads, results in order, never more than 2 x workers in memory; numpy and gunzip release the GIL."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def fingerprint(settings: dict[str, Any]) -> str:
    """Hash of plain settings, independent of key order: equal settings, equal data."""
    return hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
