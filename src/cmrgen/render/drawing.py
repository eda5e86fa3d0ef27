"""Plan to images: batches follow the plan's positions, so a set is the same whatever interrupted or
divided its making."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmrdata import progress
from cmrdata.disk import write_atomic
from cmrdata.grey import stretched
from cmrdata.store import Store, Writer
from cmrgen.base.resampling import resampled
from cmrgen.plan.checking import make_plan
from cmrgen.plan.mask_moves import moved
from cmrgen.plan.rows import Plan
from cmrgen.plan.sweeps import paper_figures
from cmrgen.render.folder import (
    check_room,
    close,
    failures,
    finished,
    shard_name,
    shard_of,
    written_alone,
)
from cmrgen.render.generator import Generator, blank
from cmrgen.render.sampler import Sampler

STORED = "percentiles, exact inverse"  # how drawn images become the set's bytes, see `as_stored`
HOPELESS = 8  # images: so many without a good one, and the weights are to blame


def draw_plan(
    plan: Plan,
    *,
    cohort: Store,
    generator: Generator,
    folder: Path,
    sampler: Sampler,
    batch_size: int,
    shard: str | None = None,
    device: torch.device | str | None = None,
) -> Store:
    """Render a plan's rows into a synthetic set at the cohort's image size; continues an
    interrupted one.

    Equal arguments give equal bytes on a CPU. A row that is not finite is drawn once more, alone
    and in float32; then it is left out and listed in failed.csv (row, reason).

    Args:
        plan: of `cmrgen.plan.checking.make_plan`, which has checked it.
        cohort: whose masks it names.
        generator: what draws.
        folder: of the set.
        sampler: how; rows without their own `steps` take its number, guidance is each row's.
        batch_size: rows between two writes; fewer go through the networks together where their
            pixels are many, or memory runs out.
        shard: "i/n" draws every n-th batch, from the i-th (0 to n-1), as a set of its own in
            `folder`/shard-i-of-n, for cmrgen.render.shards.merge.
        device: a GPU where there is one, else the CPU.

    Raises:
        ValueError: for a set of another plan or settings, naming them, and when nothing can be
            drawn.
        Unwritable: when the disk is too small or refuses.
    """
    rows = plan.rows
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; give at least 1")
    batches = [rows.iloc[k : k + batch_size] for k in range(0, len(rows), batch_size)]
    settings = {**set_settings(rows, cohort, generator, sampler), "batch_size": batch_size}
    if shard is not None:
        number, of = shard_of(shard, batches=len(batches))
        folder, batches = folder / shard_name(number, of), batches[number::of]
        settings["shard"] = f"{number}/{of}"
    written = rows.to_csv(index=False)
    if (done := finished(folder, settings, written)) is not None:
        return done
    pixels, images = cohort.meta["pixels"], sum(map(len, batches))
    generator.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with written_alone(folder, rows=images, pixels=pixels):
        if (done := finished(folder, settings, written)) is not None:
            return done
        writer = Writer(folder, pixels=pixels, settings=settings)
        check_room(folder, rows=images - writer.rows, pixels=pixels)
        write_atomic(folder / "plan.csv", written)
        generator.learn([*rows.prompt.fillna(""), *rows.negative.fillna("")])
        _write(writer, batches, cohort=cohort, generator=generator, sampler=sampler)
        facts = {"fov_mm": cohort.meta["settings"].get("fov_mm"), "names": cohort.meta.get("names")}
        return close(writer, plan, **facts)


def set_settings(
    rows: pd.DataFrame, cohort: Store, generator: Generator, sampler: Sampler
) -> dict[str, Any]:
    """All that decides the bytes of a set, but the size of its batches."""
    return {
        "cohort": cohort.folder.name,
        "cohort_fingerprint": cohort.fingerprint,
        "generator": generator.facts["fingerprint"],
        "compiled": generator.compiled,
        "precision": str(generator.precision).removeprefix("torch."),
        "plan": plan_hash(rows),
        "grey": STORED,
        **sampler.settings(),
    }


def plan_hash(rows: pd.DataFrame) -> str:
    """Of all that a plan asks for. Subjects' names differ from salt to salt; their rows tell who is
    meant."""
    return hashlib.sha256(rows.drop(columns="subject").to_csv(index=False).encode()).hexdigest()[
        :16
    ]


def _write(
    writer: Writer,
    batches: list[pd.DataFrame],
    *,
    cohort: Store,
    generator: Generator,
    sampler: Sampler,
) -> None:
    """Draw and append what the set lacks of its batches. Raises ValueError when no image at all
    turns out well."""
    total, done = (sum(map(len, of)) for of in (batches, batches[: len(writer.parts)]))
    lost = len(failures(writer))
    with progress.bar("render", total=total, done=done, unit="images") as advance:
        for batch in batches[len(writer.parts) :]:
            rows = batch.assign(
                split="synthetic", sampler=sampler.name, steps=steps_of(batch, sampler.steps)
            )
            masks = moved(cohort.masks[rows.source_row.to_numpy()], rows)
            images = draw_rows(rows, masks, generator=generator, sampler=sampler)
            good = ~blank(images).numpy()
            lost += int((~good).sum())
            if not writer.rows and not good.any() and lost >= min(total, HOPELESS):
                raise ValueError(
                    f"{writer.folder}: none of the first {lost} images is finite, so the weights "
                    f"of generator {writer.settings['generator']} or its base are broken; check "
                    "them, or train it again"
                )
            bad = pd.DataFrame({"row": rows.row[~good], "reason": "not finite, twice"})
            pictures = as_stored(images[torch.from_numpy(good)], writer.pixels)
            writer.append(pictures, masks[good], rows[good], rejected=bad)
            advance(len(rows))


def draw_rows(
    rows: pd.DataFrame, masks: np.ndarray, *, generator: Generator, sampler: Sampler
) -> Tensor:
    """(n, 2, P, P) grey levels of n rows of a plan, those of equal steps together; what is blank is
    drawn once more, alone."""
    images = torch.empty((len(rows), 2, generator.base.pixels, generator.base.pixels))

    def draw(at: np.ndarray, generator: Generator, steps: int) -> None:
        chosen = rows.iloc[at]
        images[torch.from_numpy(at)] = generator.images(
            torch.from_numpy(masks[at]),
            prompts=chosen.prompt.fillna("").tolist(),
            negatives=chosen.negative.fillna("").tolist(),
            seeds=chosen.seed.tolist(),
            guidance=chosen.guidance.tolist(),
            strength=chosen.strength.tolist(),
            sampler=replace(sampler, steps=steps),
        ).cpu()

    for steps in sorted(set(rows.steps)):
        draw(np.flatnonzero(rows.steps == steps), generator, int(steps))
    exact = replace(generator, precision=torch.float32)
    for k in np.flatnonzero(blank(images).numpy()):
        draw(np.array([k]), exact, int(rows.steps.iloc[k]))
    return images


def steps_of(rows: pd.DataFrame, default: int) -> pd.Series:
    """Each row's own number of sampler steps, or the default where it has none."""
    own = rows.steps if "steps" in rows else pd.Series(np.nan, rows.index)
    return pd.to_numeric(own).fillna(default).astype("int64")


def render_sweep(
    cohort: Store, generator: Generator, folder: Path, *, sampler: Sampler, **how: Any
) -> None:
    """The images of Fig. 3 and 4 beside a set, for evaluate.py to draw; `how` are other arguments
    of `render`."""
    plan = make_plan(
        paper_figures, cohort, fields=generator.facts["fields"], guidance=sampler.guidance
    )
    draw_plan(plan, cohort=cohort, generator=generator, folder=folder, sampler=sampler, **how)


def as_stored(images: Tensor, pixels: int) -> np.ndarray:
    """(B, 2, ., .) grey levels as drawn -> (B, 2, pixels, pixels) uint8, treated as a cohort's
    pictures are.

    Resampled by the inverse of what the base's images were enlarged with, stretched between their
    own percentiles as real ones, rounded once. A real image that makes this trip keeps its bytes,
    but for a few last digits.
    """
    return stretched(resampled(images, pixels).cpu().numpy())
