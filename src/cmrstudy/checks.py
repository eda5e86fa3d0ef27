"""What every plain setting takes, so that a wrong value is told by its name before any work, in a
sweep before its first job.

Only what can be told from the value alone stands here; what depends on data or on another setting
is told by whoever uses it. Paths, names and lists of columns are not checked here
(tests/study/test_checks.py lists them).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cmrdata.axes import AXES, BUILT_IN
from cmrstudy.identity import ALIAS

SEEDS = 2**32 - 1  # the largest that numpy takes
# settings that take one of a few words; a test compares them with those of the code that uses them
CHOICES = {
    "budget": ("epochs", "steps"),
    "mitigation.after.constraint": (
        "equalized_odds",
        "demographic_parity",
        "true_positive_rate_parity",
        "false_positive_rate_parity",
    ),
    "memory.frozen": ("float32", "bfloat16"),
    "memory.optimizer": ("adamw", "adamw8bit"),
    "channels": ("even", "paper"),
    "plan.missing": ("skip", "error", "borrow"),
    "plan.thin": ("less", "borrow", "move"),
    "sampler.name": ("ddim", "dpmpp", "unipc"),
    "sampler.guides": ("prompt", "both"),
}


class Takes(NamedTuple):
    """What a setting takes: a test of its value, and the same in words."""

    fits: Callable[[Any], bool]
    words: str


def whole(low: int, high: int | None = None, *, null: str = "") -> Takes:
    """A whole number; `null`: what null means, where it is taken."""
    span = (
        f"a whole number from {low} to {high}"
        if high is not None
        else f"a whole number of at least {low}"
    )
    return _or_null(
        Takes(lambda v: _is_whole(v) and low <= v and (high is None or v <= high), span), null
    )


def a_number(
    low: float = -math.inf, high: float = math.inf, *, above: float | None = None, null: str = ""
) -> Takes:
    """A number in a range, or `above` one."""
    words = "a number" if low == -math.inf else f"a number of at least {low:g}"
    if above is not None:
        low, words = math.nextafter(above, math.inf), f"a number above {above:g}"
    if high != math.inf:
        words = (
            f"{words} and at most {high:g}"
            if above is not None
            else f"a number from {low:g} to {high:g}"
        )
    return _or_null(Takes(lambda v: _is_number(v) and low <= v <= high, words), null)


def choice(*names: str, null: str = "") -> Takes:
    """One of some words."""
    return _or_null(Takes(lambda v: isinstance(v, str) and v in names, " or ".join(names)), null)


def several(*names: str) -> Takes:
    """A list of some words, each once."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list)
            and value != []
            and all(v in names for v in value)
            and len(set(value)) == len(value)
        )

    return Takes(
        fits, f"a list of one or more of {', '.join(names)}, each once, such as [{names[0]}]"
    )


def whole_numbers(*, count: int | None = None, low: int = 1) -> Takes:
    """A list of whole numbers."""
    words = (
        f"{count or 'some'} whole numbers of at least {low} as a list, such as "
        f"[{', '.join(['16', '32', '48'][:count])}]"
    )
    return Takes(
        lambda v: (
            isinstance(v, list)
            and (len(v) == count if count else v != [])
            and all(_is_whole(x) and x >= low for x in v)
        ),
        words,
    )


def limit(null: str) -> Takes:
    """A number of batches, or a share of them, as Lightning takes it."""

    def fits(value: Any) -> bool:
        return (_is_whole(value) and value >= 0) or (isinstance(value, float) and 0 <= value <= 1)

    return _or_null(Takes(fits, "a number of batches, or a share from 0.0 to 1.0"), null)


def _or_null(takes: Takes, null: str) -> Takes:
    if not null:
        return takes
    return Takes(lambda v: v is None or takes.fits(v), f"{takes.words}, or null ({null})")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_normalisation(value: Any) -> bool:
    if value == "auto":
        return True
    if not isinstance(value, list) or len(value) != 2:
        return False
    parts = [part if isinstance(part, list) else [part] for part in value]
    return all(len(part) in (1, 3) and all(map(_is_number, part)) for part in parts) and all(
        v > 0 for v in parts[1]
    )


def _is_devices(value: Any) -> bool:
    if isinstance(value, list):
        return value != [] and all(_is_whole(v) and v >= 0 for v in value)
    return (_is_whole(value) and (value >= 1 or value == -1)) or (
        isinstance(value, str) and value != ""
    )


FLAG = Takes(lambda v: isinstance(v, bool), "true or false")
SPEED = Takes(
    lambda v: v is None or isinstance(v, bool), "true or false, or null (Lightning's own)"
)
PART = Takes(
    lambda v: isinstance(v, dict) and "_target_" in v,
    "a class as _target_, with its settings, as the files of conf/mitigation name it; choose a "
    "whole one by mitigation=",
)
AXIS = Takes(
    lambda v: isinstance(v, str) and v in AXES,
    f"{' or '.join(BUILT_IN)}, or an axis that the cohort's own file adds (docs/cohorts.md)",
)
DIAGNOSES, FIELDS = ("hf", "mi", "ihd", "af"), ("sex", "age", "bmi", "diagnosis")
ORIENT = choice("masks", "header", "none")

TAKES: dict[str, Takes] = {
    # of every command
    "seed": whole(0, SEEDS),
    "fold": whole(0, 4, null="the cohort's own split"),
    "resume": Takes(lambda v: v == "auto" or isinstance(v, bool), "auto, true or false"),
    "overwrite": FLAG,
    "refresh": FLAG,
    "print_config": FLAG,
    "preset.results": Takes(
        lambda v: isinstance(v, str) and bool(v) and not v.startswith(("/", "~", ".")),
        "a name, of the folder below results/; run_dir= takes any folder",
    ),
    "images": FLAG,
    "compile": FLAG,
    "keep": FLAG,
    "volumes": FLAG,
    "stale": choice("keep", null="refuse what has changed"),
    "checkpoint.minutes": a_number(above=0, null="no such checkpoints"),
    "checkpoint.steps": whole(1, null="no such checkpoints"),
    # data
    "synthetic": Takes(
        lambda v: v == "only" or (_is_whole(v) and v >= 0),
        "a number of images (0 for none), or only",
    ),
    "labels": several(*DIAGNOSES),
    "budget": choice(*CHOICES["budget"]),
    "data.seed": whole(0, SEEDS),
    "data.batch_size": whole(1),
    "data.autoencoder_batch_size": whole(1),
    "data.images_per_epoch": whole(1, null="one pass over the images"),
    "data.workers": whole(0),
    "data.val_images": whole(1),
    "data.copies": whole(1),
    "data.max_repeats": a_number(1, null="groups exactly alike"),
    "harmonise": FLAG,
    "data.harmonise": FLAG,
    "data.splits": several("train", "extra"),
    "data.fields": several(*FIELDS),
    # cohorts
    "cohort.seed": whole(0, SEEDS),
    "cohort.subjects": whole(1),
    "cohort.test_subjects": whole(0),
    "cohort.design": choice("natural", "uniform"),
    "cohort.hf_scale": a_number(above=0),
    "cohort.hf_share": a_number(0, 1, null="as in the population"),
    "cohort.controls_per_case": a_number(above=0, null="all"),
    "cohort.pixels": whole(8),
    "cohort.fov_mm": a_number(above=0),
    "cohort.cine": whole(2, null="ED and ES"),
    "cohort.fold": whole(0, 4, null="the cohort's own split"),
    "cohort.reach": whole(0),
    "cohort.max_rejected": a_number(0, 1),
    "cohort.default_spacing": a_number(above=0, null="from the files' headers"),
    "cohort.orient": ORIENT,
    "cohort.ef_below": a_number(0, 100),
    "cohort.ef_above": a_number(0, 100),
    # classifier and mitigations
    "model.seed": whole(0, SEEDS),
    "model.lr": a_number(0),
    "model.weight_decay": a_number(0),
    "model.width": whole(1),
    "model.pixels": whole(1),
    "model.normalisation": Takes(
        _is_normalisation, "auto, or [mean, sd] of images in [0, 1], such as [0.5, 0.25]"
    ),
    "model.plateau_patience": whole(1),
    "model.flips": a_number(0, 1),
    "model.noise_std": a_number(0),
    "model.backbone": Takes(
        lambda v: isinstance(v, str) and v != "", "a network's name, such as resnet18"
    ),
    "model.weights": Takes(
        lambda v: v is None or (isinstance(v, str) and v != ""),
        "imagenet (videos: kinetics), a file of weights, or null (from scratch)",
    ),
    "model.labels": several(*DIAGNOSES),
    "mitigation.sampling": PART,
    "mitigation.loss": PART,
    "mitigation.heads": PART,
    "mitigation.after": PART,
    "mitigation.loss.eta": a_number(above=0),
    "mitigation.after.attribute": AXIS,
    "model.channels_last": FLAG,
    "model.compile": FLAG,
    **{key: choice(*CHOICES[key]) for key in CHOICES if key.startswith("mitigation.")},
    # generator and base
    "model.gamma": a_number(above=0, null="plain squares"),
    "model.unet.gamma": a_number(above=0, null="plain squares"),
    "model.ema": Takes(
        lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 (no average) to below 1"
    ),
    "model.unet.ema": Takes(
        lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 (no average) to below 1"
    ),
    "model.prompt_dropout": a_number(0, 1),
    "model.unet.prompt_dropout": a_number(0, 1),
    "model.warmup": whole(0),
    "channels": choice(*CHOICES["channels"]),
    "model.autoencoder.order": choice(*CHOICES["channels"]),
    "base.channels": choice(*CHOICES["channels"]),
    "model.autoencoder.channels": whole_numbers(),
    "model.unet.channels": whole_numbers(),
    "model.autoencoder.lr": a_number(above=0),
    "model.unet.lr": a_number(above=0),
    "model.autoencoder.kl": a_number(0),
    "model.autoencoder.steps": whole(1),
    "model.unet.steps": whole(1),
    "model.unet.layers": whole(1),
    "model.autoencoder.seed": whole(0, SEEDS),
    "model.unet.seed": whole(0, SEEDS),
    "base.allow_pickle": FLAG,
    "memory.frozen": choice(*CHOICES["memory.frozen"]),
    "memory.optimizer": choice(*CHOICES["memory.optimizer"]),
    "memory.checkpointing": FLAG,
    "memory.compile": FLAG,
    "memory.channels_last": FLAG,
    # drawing
    "batch_size": whole(1),
    "sampler.name": choice(*CHOICES["sampler.name"]),
    "sampler.steps": whole(1),
    "sampler.reuse": whole(1),
    "sampler.guidance": a_number(),
    "sampler.guides": choice(*CHOICES["sampler.guides"]),
    "plan.count": whole(1),
    "plan.seed": whole(0, SEEDS),
    "plan.seeds": whole(1),
    "plan.missing": choice(*CHOICES["plan.missing"]),
    "plan.strength": a_number(0),
    "plan.thin": choice(*CHOICES["plan.thin"]),
    "plan.per_person": whole(1, null="no limit"),
    "plan.per_mask": whole(0, null="masks are never moved"),
    # evaluation
    "judge_steps": whole_numbers(count=2),
    "fid_images": whole(2),
    "resamples": whole(40),
    "permutations": whole(40),
    "specificity": Takes(lambda v: _is_number(v) and 0 < v < 1, "a number between 0 and 1"),
    "device": Takes(
        lambda v: isinstance(v, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", v) is not None,
        "auto, cpu, cuda or cuda:<number>",
    ),
    "count": whole(1),
    "cells": whole(2),
    # Lightning's
    "trainer.devices": Takes(
        _is_devices, "a number of devices, -1 for all, or a list of their numbers"
    ),
    "trainer.num_nodes": whole(1),
    "trainer.max_epochs": Takes(
        lambda v: _is_whole(v) and (v >= 1 or v == -1),
        "a whole number of at least 1, or -1 (no limit)",
    ),
    "trainer.max_steps": Takes(
        lambda v: v is None or (_is_whole(v) and (v >= 1 or v == -1)),
        "a whole number of at least 1, or null (no limit)",
    ),
    "trainer.min_epochs": whole(0, null="none"),
    "trainer.min_steps": whole(0, null="none"),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": a_number(0, null="no clipping"),
    "trainer.gradient_clip_algorithm": choice("norm", "value", null="norm"),
    "trainer.limit_train_batches": limit("all"),
    "trainer.limit_val_batches": limit("all"),
    "trainer.limit_test_batches": limit("all"),
    "trainer.limit_predict_batches": limit("all"),
    "trainer.overfit_batches": limit("none"),
    "trainer.check_val_every_n_epoch": whole(1, null="by batches, see trainer.val_check_interval"),
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.log_every_n_steps": whole(0),
    "trainer.enable_progress_bar": SPEED,
    "trainer.enable_model_summary": SPEED,
    "trainer.benchmark": SPEED,
    "trainer.detect_anomaly": SPEED,
    "trainer.sync_batchnorm": FLAG,
    "trainer.deterministic": Takes(
        lambda v: v in (None, "warn") or isinstance(v, bool), "true, false, warn, or null"
    ),
    "trainer.fast_dev_run": Takes(
        lambda v: v is None or isinstance(v, bool) or (_is_whole(v) and v >= 1),
        "true, false, a number of batches, or null",
    ),
}
# settings without a value that whoever uses them may leave so
FILLED = ("trainer.max_epochs",)
# what a setting without a value needs
NEEDED = {
    "plan.path": ": plan=custom draws your own table, a CSV or Parquet file",
}
POOLED = "cohort.cohorts.*."  # the same settings, of each cohort of a pool
# whose settings are known here; a part of anybody else's checks its own
OURS = ("cmrdata.", "cmrstudy.", "cmrgen.", "cmrcls.", "lightning.")


def check(cfg: DictConfig) -> None:
    """Raise ValueError for the first setting that lacks a value, or whose value can't be, naming
    it, the value and what it takes.

    Settings of parts that the experiment calls `unused` are not looked at, nor values of a
    `_target_` from outside; of an interpolated one the message names the setting that it stands
    for. One that refers to nothing is told as well.
    """
    unused = tuple(OmegaConf.select(cfg, "unused", default=None) or ())
    for key in sorted(without_value(cfg)):
        if key.split(".")[0] not in (*unused, "hydra") and key not in FILLED:
            raise ValueError(f"{key} has no value yet; give {key}=<value>{NEEDED.get(key, '')}")
    if OmegaConf.select(cfg, "mitigation.after.attribute", default=None) not in (None, *AXES):
        learn_axes(cfg)
    for key, node, name in leaves(cfg):
        if key.split(".")[0] in unused:
            continue
        takes = rule(key)
        try:
            value = node[name]
            if isinstance(value, DictConfig | ListConfig):
                value = OmegaConf.to_container(value, resolve=True)
        except OmegaConfBaseException as error:
            words = f"; it takes {takes.words}" if takes else ""
            raise ValueError(f"{key}: {str(error).strip().splitlines()[0]}{words}") from None
        if takes is None or _foreign(node):
            continue
        if not takes.fits(value):
            source = _source(cfg, node, name, key)
            where = f"as {key} it takes" if source != key else "it takes"
            raise ValueError(f"{source}={_shown(value)}: {where} {takes.words}")


def learn_axes(cfg: DictConfig) -> None:
    """Import the cohort's file, and those of a pool, where they are somebody else's: such a file
    may add axes of comparison (cmrdata.axes.add).

    One that can't be imported is told by whoever makes the cohort.
    """
    cohort = OmegaConf.select(cfg, "cohort", default=None) or {}
    for node in (cohort, *(cohort.get("cohorts") or {}).values()):
        if _foreign(node):
            with suppress(ImportError):
                import_module(node["_target_"].rpartition(".")[0])


def _foreign(node: Mapping[str, Any] | DictConfig) -> bool:
    """Whether these are settings of a function or class that is neither ours nor Lightning's."""
    target = node.get("_target_")
    return isinstance(target, str) and not target.startswith(OURS)


def rule(key: str) -> Takes | None:
    """What a setting takes; None for one that is not checked here."""
    if fnmatchcase(key, f"{POOLED}*"):
        key = f"cohort.{key.rpartition('.')[2]}"
    return TAKES.get(key)


def leaves(node: DictConfig, at: str = "") -> Iterator[tuple[str, DictConfig, str]]:
    """(dotted key, the node that holds it, its name there) of every setting; interpolated ones are
    not resolved."""
    for name in map(str, node):
        key = f"{at}.{name}".lstrip(".")
        if OmegaConf.is_missing(node, name) or key == "hydra":
            continue
        if OmegaConf.is_interpolation(node, name) or not OmegaConf.is_dict(node[name]):
            yield key, node, name
        else:
            yield from leaves(node[name], key)


def without_value(node: DictConfig | ListConfig, at: str = "") -> Iterator[str]:
    """Dotted keys of the settings that have no value yet; interpolated ones are not resolved."""
    listed = isinstance(node, ListConfig)
    names: Iterable[Any] = range(len(node)) if listed else node
    for name in names:
        key = f"{at}[{name}]" if listed else f"{at}.{name}".lstrip(".")
        if OmegaConf.is_missing(node, name):
            yield key
        elif not OmegaConf.is_interpolation(node, name) and OmegaConf.is_config(node[name]):
            yield from without_value(node[name], key)


def _source(cfg: DictConfig, node: DictConfig, name: str, key: str) -> str:
    """The setting that a value comes from: at the end of a chain of interpolations."""
    while OmegaConf.is_interpolation(node, name):
        alias = ALIAS.fullmatch(str(OmegaConf.to_container(node, resolve=False)[name]))  # type: ignore[index, call-overload]
        if not alias:
            return key
        key = alias[1]
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
    return key


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)
