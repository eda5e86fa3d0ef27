"""What a command is going to do, said before anything long begins: a mistake is seen in seconds,
not in the morning."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmrdata.counting import number_of

COMPILES = "torch.compile: the first batch takes minutes, those after it less than without"


def intention(cfg: Mapping[str, Any], *, rests_on: str = "") -> str:
    """A sentence about a composed config: task, cohort, networks, length, folder and the room on
    its disk.

    Args:
        cfg: of any command; whatever it lacks is left out.
        rests_on: what the command has found to work on, e.g. "8 finished runs".
    """
    said = ", ".join(part for part in (*_who(cfg), rests_on, *_what(cfg), *_length(cfg)) if part)
    return f"{cfg['task']}: {said} -> {cfg['run_dir']}{_room(Path(cfg['run_dir']))}"


def _who(cfg: Mapping[str, Any]) -> Iterator[str]:
    cohort = cfg["cohort"]
    if "cohort" in (cfg.get("unused") or ()):
        return
    size = f" at {cohort['pixels']} px" if cohort.get("pixels") else ""
    width = f" of {cohort['fov_mm']:g} mm" if size and cohort.get("fov_mm") else ""
    yield f"cohort {cohort['name']}{size}{width}"
    yield f"fold {cfg['fold']}" if cfg.get("fold") is not None else ""


def _what(cfg: Mapping[str, Any]) -> Iterator[str]:
    task, model = cfg["task"], cfg.get("model") or {}
    if task == "controlnet":
        yield f"base {cfg['base']['weights']}"
    if task == "classifier":
        synthetic = cfg["synthetic"]
        from_set = f" of {cfg['synthetic_set']}"
        arm = {"0": "real images", "only": f"synthetic images{from_set} alone"}.get(str(synthetic))
        yield f"{model['backbone']} from {model['weights'] or 'random weights'}"
        yield arm or f"real and {synthetic} synthetic images{from_set}"
        yield (
            f"mitigation {cfg['mitigation']['name']}"
            if (cfg.get("mitigation") or {}).get("name", "none") != "none"
            else ""
        )
    if task == "generate":
        yield f"generator {cfg['generator']}"
        yield (
            f"{cfg['sampler']['name']} in {number_of(cfg['sampler']['steps'], 'steps')}, guidance "
            f"{cfg['sampler']['guidance']:g}"
        )
    if task == "inspect":
        yield "tables and every scan" if cfg["volumes"] else "tables and file names"
    if task == "export":
        yield f"generator {cfg['generator']} for diffusers"
    if task == "share":
        yield f"{cfg['synthetic_set']} as {' and '.join(cfg['formats'])}"
    if task == "explain":
        yield f"classifier {cfg['classifier']}"
    if task == "withdraw":
        yield f"out of everything below {cfg['data_root']} and {cfg['preset']['runs']}"
    if task == "evaluate":
        yield f"set {cfg['synthetic_set']}"
        yield f"{cfg['resamples']:,} resamples, {cfg['permutations']:,} permutations"
        yield "with an audit" if cfg["audit"] else ""
        yield f"on {cfg['device']}"


def _length(cfg: Mapping[str, Any]) -> Iterator[str]:
    data, trainer = cfg.get("data") or {}, cfg.get("trainer") or {}
    if cfg["task"] == "base":
        stages = [
            f"{cfg['model'][name]['steps']:,} steps of the {name}"
            for name in ("autoencoder", "unet")
        ]
        yield f"{' and '.join(stages)}, {data['batch_size']} images each"
    elif cfg["task"] in ("controlnet", "classifier"):
        epochs, images = trainer.get("max_epochs"), data.get("images_per_epoch")
        together = data["batch_size"] * (trainer.get("accumulate_grad_batches") or 1)
        if epochs and epochs > 0:
            passes = f"{number_of(epochs, 'epochs')}"
            steps = (
                f": {number_of(epochs * math.ceil(images / together), 'steps')}" if images else ""
            )
            yield (
                f"{passes} of {f'{images:,}' if images else 'all'} images, {together} a step{steps}"
            )
        yield f"at most {trainer['max_time']}" if trainer.get("max_time") else ""
        yield (
            f"{trainer.get('precision')} on {trainer.get('devices')} x {trainer.get('accelerator')}"
        )


def _room(folder: Path) -> str:
    there = next((place for place in (folder, *folder.absolute().parents) if place.exists()), None)
    return f" ({shutil.disk_usage(there).free / 1e9:,.0f} GB free)" if there else ""
