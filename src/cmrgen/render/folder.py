"""The folder that a set is rendered into: whose it is, whether it fits, who may write there, and
what is missing from it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from cmrdata import disk
from cmrdata.counting import number_of
from cmrdata.disk import DISK_FULL, Unwritable, alone, differences, plain, write_atomic
from cmrdata.store import Store, Writer, read_settings
from cmrgen.plan.rows import Plan
from cmrgen.render.set_card import card_of_set
from cmrstudy.runs import code_version

REMEDY = "give the set another name=, or overwrite=true to replace this one"


def shard_of(text: str, *, batches: int | None = None) -> tuple[int, int]:
    """ "0/4" to (0, 4), of a plan with so many batches. Raises ValueError when it is none, or would
    be empty."""
    number, _, of = str(text).partition("/")
    if not (number.isdigit() and of.isdigit() and int(number) < int(of)):
        raise ValueError(
            f"shard is {text!r}; give i/n with i from 0 to n-1, e.g. shard=0/4 to shard=3/4"
        )
    if batches is not None and int(of) > batches:
        raise ValueError(
            f"shard={text}, but the plan is {batches} batches; take fewer shards, or a smaller "
            "batch_size"
        )
    return int(number), int(of)


def shard_name(number: int, of: int) -> str:
    return f"shard-{number}-of-{of}"


def finished(folder: Path, settings: dict[str, Any], plan: str) -> Store | None:
    """The set in `folder` if it is finished. Raises ValueError, naming what differs, unless it is
    of these settings."""
    if not (folder / "settings.json").exists():
        return None
    wanted = plain(settings)
    if changed := differences(
        {k: v for k, v in read_settings(folder).items() if k != "format"}, wanted
    ):
        text = (folder / "plan.csv").read_text() if (folder / "plan.csv").exists() else ""
        names = [
            f"plan {changes(text, plan)}" if line.startswith("plan ") else line for line in changed
        ]
        raise ValueError(f"{folder}: begun with other settings ({'; '.join(names)}); {REMEDY}")
    return Store.open(folder) if (folder / "store.json").exists() else None


def changes(old: str, new: str) -> str:
    """In what a plan differs from another, both as CSV."""
    if not old:
        return "differs"
    a, b = (pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False) for text in (old, new))
    if more := sorted({*a.columns} ^ {*b.columns}):
        return f"columns differ: {', '.join(more)}"
    if len(a) != len(b):
        return f"has {len(b)} rows, not {len(a)}"
    differs = a != b[a.columns]
    columns = [str(column) for column in a if differs[column].any()]
    return f"differs in {differs.any(axis=1).sum()} of {len(a)} rows, columns {', '.join(columns)}"


@contextmanager
def written_alone(folder: Path, *, rows: int, pixels: int) -> Iterator[None]:
    """Hold the set's folder against other processes; a disk that refuses becomes Unwritable with
    the remedy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            yield
    except Unwritable:
        raise
    except OSError as error:
        remedy = "Free some space there" if error.errno in DISK_FULL else "Make it writable"
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}; {needed(rows, pixels)}. "
            f"{remedy} and continue with resume=true, or give another place with run_dir=<folder>"
        ) from error


def needed(rows: int, pixels: int) -> str:
    return f"{rows:,} images of {pixels} px: {room(rows, pixels) / 1e6:,.1f} MB"


def room(rows: int, pixels: int) -> int:
    """Bytes of the images and masks of `rows` rows."""
    return rows * 2 * 2 * pixels**2


def check_room(folder: Path, *, rows: int, pixels: int) -> None:
    """Say how much the set takes; raise Unwritable when it surely does not fit."""
    print(f"{needed(rows, pixels)} in {folder}", flush=True)
    needs = f"{folder}: {needed(rows, pixels)} are needed"
    disk.check_room(folder, room(rows, pixels), needs=needs, instead="run_dir=<folder>")


def failures(writer: Writer) -> pd.DataFrame:
    """Rows of the plan (row, reason) that could not be drawn."""
    table = writer.rejected().reindex(columns=["row", "reason"])
    return table.assign(row=table.row.astype(int))


def close(writer: Writer, plan: Plan, **facts: Any) -> Store:
    """Finish a set with its card, with failed.csv beside it where rows are left out. `facts` go
    into store.json."""
    lost = failures(writer)
    if len(lost):
        write_atomic(writer.folder / "failed.csv", lost.to_csv(index=False))
        print(
            f"{writer.folder}: {number_of(len(lost), 'images')} could not be drawn and "
            f"{'is' if len(lost) == 1 else 'are'} left out; failed.csv lists their rows of the "
            "plan",
            flush=True,
        )
    synthetic = writer.finish(
        images=writer.rows,
        planned=len(plan.rows),
        missing_groups=list(plan.missing),
        code=code_version(),
        **facts,
    )
    if len(synthetic.index) and "shard" not in writer.settings:
        write_atomic(synthetic.folder / "README.md", card_of_set(synthetic))
    return synthetic
