"""A set drawn by several processes or machines, each a share of its batches, and joined to the
bytes that one would write."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet

from cmrdata.disk import differences, write_atomic
from cmrdata.store import Store, Writer
from cmrgen.plan.rows import Plan
from cmrgen.render.drawing import draw_plan
from cmrgen.render.folder import check_room, close, finished, shard_name, shard_of, written_alone


def render_shards(plan: Plan, *, folder: Path, shard: str, **how: Any) -> Store | None:
    """Draw shard "i/n" with `render`; the process that ends last joins all n, and it alone returns
    the set.

    The processes need no connection, only the same `folder` (or copies of its shards brought
    together, after which any shard asked for again joins them); each may be interrupted and started
    again. `how`: other arguments of `render`.
    """
    _, of = shard_of(shard)
    if of == 1:
        return draw_plan(plan, folder=folder, **how)
    draw_plan(plan, folder=folder, shard=shard, **how)
    return merge(folder, of) if finished_all(folder, of) else None


def finished_all(folder: Path, n: int) -> bool:
    """Are all n shards in `folder` finished?"""
    return all(Store(folder / shard_name(k, n)).complete for k in range(n))


def merge(folder: Path, n: int) -> Store:
    """Join the n shards in `folder` into the set that one process would have written, to the byte;
    keeps the shards.

    Raises ValueError naming shards that are missing, unfinished, or of another plan or settings.
    """
    folder = Path(folder)
    shards, settings = _alike(folder, [shard_name(k, n) for k in range(n)])
    written, pixels = (shards[0].folder / "plan.csv").read_text(), shards[0].meta["pixels"]
    plan = Plan(pd.read_csv(io.StringIO(written)), missing=shards[0].meta["missing_groups"])
    parts = [list(_parts(shard)) for shard in shards]
    count = -(-len(plan.rows) // settings["batch_size"])
    if sum(map(len, parts)) != count:
        raise ValueError(
            f"{folder}: the shards hold {sum(map(len, parts))} of {count} batches; delete them and "
            "draw them again"
        )
    if (done := finished(folder, settings, written)) is not None:
        return done
    with written_alone(folder, rows=len(plan.rows), pixels=pixels):
        if (done := finished(folder, settings, written)) is not None:
            return done
        writer = Writer(folder, pixels=pixels, settings=settings)
        check_room(folder, rows=len(plan.rows) - writer.rows, pixels=pixels)
        write_atomic(folder / "plan.csv", written)
        for k in range(len(writer.parts), count):
            rows, index, bad = parts[k % n][k // n]
            shard = shards[k % n]
            writer.append(
                np.array(shard.images[rows]), np.array(shard.masks[rows]), index, rejected=bad
            )
        return close(
            writer, plan, fov_mm=shards[0].meta.get("fov_mm"), names=shards[0].meta.get("names")
        )


def _alike(folder: Path, names: Sequence[str]) -> tuple[list[Store], dict[str, Any]]:
    """The shards of these names and the settings that they share; ValueError where one is not
    finished or has others."""
    if lacking := [name for name in names if not (folder / name / "store.json").exists()]:
        states = [f"{name} ({_state(folder / name)})" for name in lacking]
        shards = "|".join(f"{names.index(name)}/{len(names)}" for name in lacking)
        raise ValueError(
            f"{folder}: {len(lacking)} of {len(names)} shards are missing: {', '.join(states)}; "
            f"draw them with shard={shards}"
        )
    stores = [Store.open(folder / name) for name in names]
    settings = [
        {k: v for k, v in store.meta["settings"].items() if k not in ("shard", "format")}
        for store in stores
    ]
    for name, other in zip(names[1:], settings[1:], strict=True):
        if changed := differences(settings[0], other):
            raise ValueError(
                f"{folder}: {name} differs from {names[0]} in {', '.join(changed)}; delete the "
                "wrong one and draw it again"
            )
    return stores, settings[0]


def _parts(shard: Store) -> Iterator[tuple[slice, pd.DataFrame, pd.DataFrame | None]]:
    """Each batch of a finished shard: its rows of the images, its index rows, what failed."""
    begin = 0
    for path in sorted((shard.folder / "parts").glob("*.parquet")):
        index, faults = pd.read_parquet(path), path.with_suffix(".rejected.csv")
        yield (
            slice(begin, begin + len(index)),
            index,
            pd.read_csv(faults) if faults.exists() else None,
        )
        begin += len(index)


def _state(folder: Path) -> str:
    if not (folder / "settings.json").exists():
        return "not begun"
    rows = sum(
        parquet.read_metadata(part).num_rows for part in (folder / "parts").glob("*.parquet")
    )
    return f"unfinished, {rows} images"
