"""What a run is: the settings that decide its numbers, told apart from how and where it runs.

Two runs are the same if these settings and the fingerprints of their inputs are the same. Run
folders compare them, folder names are made of them, and evaluate.py finds in them what a sweep has
varied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

HOW = (  # how a run is made: decides no number
    "resume",
    "overwrite",
    "stale",
    "refresh",
    "print_config",
    "name",
    "run_dir",
    "task",
    "trains",
    "settle",
    "settle.*",
    "score",
    "repeatable",
    "unused",
    "images",
    "shard",
    "device",
    "hydra.*",
    "base.frame",
    "base.frame.*",
    "base.drawing",
    "base.drawing.*",
    "logger",
    "logger.*",
    "local",
    "local.*",
    "debug",
    "debug.*",
    "checkpoint",
    "checkpoint.*",
    "callbacks.rich_progress",
    "callbacks.rich_progress.*",
    "callbacks.device_stats",
    "callbacks.device_stats.*",
    "callbacks.lr_monitor",
    "callbacks.lr_monitor.*",
    "keep",
    "*.workers",
    "*.channels_last",
    "*.compile",
    "compile",
    "memory.checkpointing",
    "trainer._target_",
    "trainer._convert_",
    "trainer.accelerator",
    "trainer.enable_*",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.max_time",
    "trainer.detect_anomaly",
    "trainer.num_sanity_val_steps",
    "trainer.benchmark",
    "trainer.fast_dev_run",
    "trainer.default_root_dir",
    "trainer.logger",
    "trainer.plugins",
    "trainer.barebones",
    "trainer.reload_dataloaders_every_n_epochs",
)
COHORT_PLACES = tuple(  # of a cohort's files, and of those of a pool
    f"{cohort}.{name}"
    for cohort in ("cohort", "cohort.cohorts.*")
    for name in ("root", "table", "exclude", "diagnoses", "salt_root")
)
WHERE = (  # where things lie on this machine: what lies there is compared by its fingerprint
    "data_root",
    "data.root",
    "preset",
    "preset.runs",
    "preset.results",
    "preset.base",
    *COHORT_PLACES,
)
# folders and files that a run is made from: they name a run's folder, their content is compared
INPUTS = (
    "generator",
    "synthetic_set",
    "classifier",
    "classifiers",
    "weights",
    "ckpt_path",
    "base.weights",
    "plan.path",
    "audit_generator",
)
PLACED = ("model.weights",)  # either a name, or a file: then they are inputs, too
FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # how files of weights end
# what all runs of a study share: parts of every one's name
SCOPE = ("base", "cohort", "cohort.*", "fold")
ALIAS = re.compile(r"\$\{([\w.]+)\}")  # a value that only repeats another setting


def is_how(key: str) -> bool:
    """Whether a setting decides no number: how the run is made, or where things lie."""
    return any(fnmatchcase(key, pattern) for pattern in (*HOW, *WHERE))


def is_input(key: str, value: Any = None) -> bool:
    """Whether a setting is the place of something a run is made from."""
    return key in INPUTS or (key in PLACED and names_file(value))


def names_file(value: Any) -> bool:
    """Whether the value of a setting that takes a name or a file is a file."""
    return isinstance(value, str) and (
        "/" in value or "\\" in value or value.lower().endswith(FILES)
    )


def in_scope(key: str) -> bool:
    """Whether a setting belongs to the study as a whole: its cohort and fold."""
    return any(fnmatchcase(key, pattern) for pattern in SCOPE)


def settings(cfg: DictConfig) -> dict[str, Any]:
    """The settings that decide a run's numbers: dotted key -> plain value, in the order of the
    keys.

    Left out are what `is_how`, what `is_input`, what the experiment calls `unused`, the values of a
    preset (they count where they are used), and values that only repeat another setting.
    """
    unused = OmegaConf.select(cfg, "unused", default=None) or ()
    leaves = {key: value for key, value in _leaves(cfg) if not (is_how(key) or is_input(key))}
    # which one, its fingerprint tells
    leaves |= {key: "a file" for key in PLACED if names_file(leaves.get(key))}
    return {key: leaves[key] for key in sorted(leaves) if key.split(".")[0] not in unused}


def _leaves(node: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, plain resolved value) of what stands below a node of the config."""
    for name in node:
        key = f"{at}.{name}".lstrip(".")
        if at == "" and name in ("preset", "hydra") or OmegaConf.is_missing(node, name):
            continue
        if _repeats(node, name):
            continue
        value = node[name]
        if isinstance(value, DictConfig) and len(value):
            yield from _leaves(value, key)
        else:
            yield key, _plain(value)


def _repeats(node: DictConfig, name: Any) -> bool:
    """Whether a value is nothing but another setting's, so that a change would be told twice."""
    if not OmegaConf.is_interpolation(node, name):
        return False
    raw = OmegaConf.to_container(node, resolve=False)[name]  # type: ignore[index]
    other = ALIAS.fullmatch(raw) if isinstance(raw, str) else None
    return bool(other) and not other[1].startswith("preset.")  # type: ignore[index]


def _plain(value: Any) -> Any:
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    return value


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """ "model.lr 0.001 -> 0.0003" for every setting in which two runs differ."""
    keys = sorted({*old, *new})
    return [
        f"{key} {old.get(key)} -> {new.get(key)}"
        for key in keys
        if not _equal(old.get(key), new.get(key))
    ]


def _equal(a: Any, b: Any) -> bool:
    return a == b and (isinstance(a, bool) == isinstance(b, bool))
