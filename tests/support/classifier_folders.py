"""Folders of finished, failed and unfinished classifier runs, as the commands leave them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.grid import arrange
from cmrdata.axes import AXES
from cmrstudy import runs

USUAL = {
    "model.lr": 1e-3,
    "budget": "epochs",
    "mitigation.loss._target_": "losses.Mean",
    "input.name": "stack",
}


LOSS = {
    "none": {"mitigation.loss._target_": "losses.Mean"},
    "groupdro": {"mitigation.loss._target_": "losses.GroupDRO", "mitigation.loss.eta": 0.01},
    "reweight": {"mitigation.loss._target_": "losses.Weighted"},
}


def write(
    folder: Path,
    arm: int | str,
    seed: int,
    *,
    state: str = "finished",
    told: str = "",
    mitigation: str = "none",
    fold: int | None = None,
    cohort: str = "c",
    made: tuple[str, str, str] | None = None,
    weights: str = "imagenet 1",
    **other: Any,
) -> Path:
    """A run below `folder`, named as the command would. made: fingerprint, place and kind of its
    synthetic set."""
    given = {key.replace("__", "."): value for key, value in other.items()}
    keys = [
        *given,
        *(["mitigation"] if mitigation != "none" else []),
        *(["synthetic"] if arm != 0 else []),
    ]
    parts = [f"{key}-{value}" for key, value in given.items()] + [mitigation] * (
        mitigation != "none"
    )
    name = "-".join(
        ["synthetic", str(arm), *parts, *([f"fold-{fold}"] if fold is not None else [])]
    )
    run = folder / name / str(seed)
    settings = {
        **USUAL,
        **LOSS[mitigation],
        **given,
        "synthetic": arm,
        "seed": seed,
        "fold": fold,
    }
    asked = runs.Request(
        run, {"task": "classifier"}, settings, {"mitigation": mitigation}, keys, {}
    )
    runs.begin(asked)
    runs.uses(run, "cohort", fingerprint=cohort, at=None)
    runs.uses(run, "model.weights", fingerprint=weights, at=None)
    if made:
        runs.uses(run, "synthetic_set", fingerprint=made[0], at=made[1], kind=made[2])
    if state == "finished":
        runs.finish(run, steps=3, split_fingerprint="s")
        subjects = [f"SYN{k:04d}" for k in range(8)]
        table = pd.DataFrame(
            {
                "subject": subjects,
                "row": range(8),
                "split": "test",
                "disease": "hf",
                "label": [0, 1] * 4,
                "probability": 0.4,
                "predicted": 0,
                "source": "a",
            }
        )
        table.assign(**{name: axis.values[0] for name, axis in AXES.items()}).to_csv(
            run / "predictions.csv", index=False
        )
    if state == "failed":
        (run / "failed.json").write_text(json.dumps({"told": told}))
    return run


def stores(fold: int | None) -> Any:
    """The cohort's, whose subjects have other names than in the runs: another salt."""
    index = pd.DataFrame({"subject": [f"HERE{k}" for k in range(8)]})
    return SimpleNamespace(index=index, meta={"names": "another salt"})


def arms(folder: Path, **options: Any) -> list[str]:
    return [arm.name for arm in arrange(runs_below(folder), **options).arms]
