"""What is there of a study and what is missing: every arm, mitigation, fold and seed below a folder of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from cmrstudy import runs

CELL = ["arm", "mitigation", "fold", "seed"]
COLUMNS = (*CELL, "state", "told", "run")
STATES = ("finished", "unfinished", "failed", "absent")


def cells(folder: Path, *, shown: str = "stack") -> pd.DataFrame:
    """One row per cell of the study whose runs are <folder>/<arm>/<seed>; columns COLUMNS, `fold` Int64.

    Expected is every arm (with its mitigation) in every fold with every seed that occurs below `folder`, runs over
    folds and runs without apart: what no arm has begun can't be known. `state` is one of STATES; `told` is the error
    of a failed run, else empty; `run` the folder, empty for an absent one. Folders without an arm,
    and runs that saw another input than `shown`, are passed over.
    """
    found = [cell for path in sorted(Path(folder).glob("*/*/config.yaml")) if (cell := _cell(path.parent, shown))]
    known = {tuple(cell[key] for key in CELL) for cell in found}
    for folded in (False, True):
        kind = [cell for cell in found if (cell["fold"] is not None) == folded]
        arms = dict.fromkeys((cell["arm"], cell["mitigation"]) for cell in kind)
        folds, seeds = ({cell[key] for cell in kind} for key in ("fold", "seed"))
        for arm, fold, seed in product(arms, folds, seeds):
            if (*arm, fold, seed) not in known:
                values = (*arm, fold, seed, "absent", "", "")
                found.append(dict(zip(COLUMNS, values, strict=True)))
    table = pd.DataFrame(found, columns=list(COLUMNS)).astype({"fold": "Int64"})
    order = table.arm.map(_rank)
    return table.assign(rank=order).sort_values(["rank", *CELL[1:]], ignore_index=True).drop(columns="rank")


def missing(table: pd.DataFrame) -> list[str]:
    """A phrase per arm of `cells` that is not complete: "synthetic-2000 seeds 3, 7 (never begun), 1 (failed: ...)"."""
    phrases = []
    for (arm, mitigation, fold), part in _arms(table):
        if (part.state == "finished").all():
            continue
        name = "-".join([f"synthetic-{arm}", *([] if mitigation == "none" else [mitigation])])
        name += "" if pd.isna(fold) else f"-fold-{fold}"
        reasons = [_reason(row) for row in part.itertuples()]
        groups = {why: [str(s) for s, r in zip(part.seed, reasons, strict=True) if r == why] for why in reasons if why}
        listed = ", ".join(f"{', '.join(seeds)} ({why})" for why, seeds in groups.items())
        phrases.append(f"{name} {'seeds' if sum(map(len, groups.values())) > 1 else 'seed'} {listed}")
    return phrases


def sentences(table: pd.DataFrame) -> list[str]:
    """What a reader of the study's tables must know: how many cells are finished, which are missing, the remedy."""
    if not (lacking := missing(table)):
        return [f"All {len(table)} runs of the study are finished."] if len(table) else []
    done = int((table.state == "finished").sum())
    return [
        f"{done} of {len(table)} runs of the study are finished.",
        f"missing: {'; '.join(lacking)}",
        "The sweep's command with resume=true runs only these.",
    ]


def _arms(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str, Any], pd.DataFrame]]:
    """(arm, mitigation, fold) and its rows."""
    yield from table.groupby(CELL[:3], sort=False, dropna=False)  # type: ignore[misc]


def _reason(row: Any) -> str:
    """Why a cell isn't finished; empty if it is."""
    fault = row.told.split("; ")[0]  # without the remedy
    return {"finished": "", "absent": "never begun", "failed": f"failed: {fault}"}.get(row.state, row.state)


def _cell(run: Path, shown: str) -> dict[str, Any] | None:
    """The cell that a run folder holds, None where its config names no arm."""
    config = runs.config(run)
    if "synthetic" not in config or (config.get("input") or {}).get("name", "stack") != shown:
        return None
    mitigation, failed, told = config.get("mitigation"), run / "failed.json", ""
    if (run / "finished.json").exists():
        state = "finished"
    elif failed.exists():
        state, told = "failed", json.loads(failed.read_text())["told"]
    else:
        state = "unfinished"
    return {
        "arm": str(config["synthetic"]),
        "mitigation": mitigation.get("name", "none") if isinstance(mitigation, dict) else mitigation or "none",
        "fold": config.get("fold"),
        "seed": config["seed"],
        "state": state,
        "told": told,
        "run": str(run),
    }


def _rank(arm: str) -> float:
    """Arms by their number of synthetic images; only comes last."""
    return float(arm) if arm.isdigit() else float("inf")
