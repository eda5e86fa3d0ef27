"""The settings that identify a run, and no others."""

from __future__ import annotations

from functools import cache

import pytest
from omegaconf import OmegaConf

from cmrstudy import identity
from cmrstudy.identity import differing, settings
from support.composing import composed


@cache
def told(command: str, *given: str) -> dict:
    return settings(composed(command, *given))


HOW = [
    "data_root=/other",
    "trainer.enable_model_summary=true",
    "trainer.accelerator=cpu",
    "model.compile=true",
    "cohort.root=/moved",
    "logger=tensorboard",
    "overwrite=true",
    "resume=false",
    "stale=keep",
    "trainer.log_every_n_steps=1",
]


def test_how_and_where_a_run_is_made_decides_nothing():
    plain = told("train", "experiment=classifier", "cohort=acdc")
    assert told("train", "experiment=classifier", "cohort=acdc", *HOW) == plain
    assert not any("/" in str(value) for value in plain.values())


@pytest.mark.parametrize(
    "given",
    [
        "model.lr=1",
        "budget=steps",
        "mitigation=groupdro",
        "cohort.pixels=32",
        "trainer.precision=bf16-mixed",
        "seed=1",
        "trainer=gpu",
        "preset=demo",
        "fold=1",
        "input=cine",
        "labels=[mi]",
        "model.flips=0",
    ],
)
def test_what_decides_a_number_is_a_setting_told_once(given):
    plain = told("train", "experiment=classifier")
    lines = differing(plain, told("train", "experiment=classifier", given))
    key = given.lstrip("+").split("=")[0]
    assert lines and (key in ("trainer", "preset", "mitigation", "input") or lines == [lines[0]])
    assert all(line.split()[0].split(".")[0] not in ("preset", "data_root") for line in lines)


def test_settings_of_parts_that_an_experiment_does_not_use_decide_nothing():
    for task, given in (
        ("classifier", "sampler.steps=3"),
        ("controlnet", "sampler.steps=3"),
        ("export", "cohort.seed=3"),
    ):
        assert told("train", f"experiment={task}") == told("train", f"experiment={task}", given)
    assert told("generate") != told("generate", "sampler.steps=3")
    assert told("generate") == told("generate", "trainer.devices=3")


def test_true_is_not_one_in_a_comparison():
    assert differing({"a": True, "b": 1}, {"a": 1, "b": 1.0}) == ["a True -> 1"]


def test_interpolated_copies_of_a_setting_are_left_out():
    cfg = OmegaConf.create(
        {"a": {"x": 1}, "b": {"y": "${a.x}", "z": "${a}", "w": "is ${a.x}"}, "unused": None}
    )
    assert settings(cfg) == {"a.x": 1, "b.w": "is 1"}


@pytest.mark.parametrize(
    ("value", "is_file"),
    [
        ("a/b", True),
        ("C:\\weights", True),
        ("resnet.pth", True),
        ("resnet.PT", True),
        ("x.safetensors", True),
        ("imagenet", False),
        ("resnet18.a1_in1k", False),
        (None, False),
        (3, False),
    ],
)
def test_a_name_is_no_file(value, is_file):
    assert identity.names_file(value) is is_file
    assert identity.is_input("model.weights", value) is is_file
    assert identity.is_input("generator", value) and not identity.is_input("model.lr", value)


def test_a_file_of_weights_is_a_setting_without_its_place():
    for place in ("/home/me/a.pth", "elsewhere/b.safetensors"):
        cfg = OmegaConf.create({"model": {"weights": place, "lr": 1}, "generator": "runs/x"})
        assert settings(cfg) == {"model.lr": 1, "model.weights": "a file"}
    named = OmegaConf.create({"model": {"weights": "imagenet", "empty": {}}})
    assert settings(named) == {"model.empty": {}, "model.weights": "imagenet"}


@pytest.mark.parametrize(
    ("key", "how"),
    [
        ("data.workers", True),
        ("trainer.enable_progress_bar", True),
        ("cohort.cohorts.0.root", True),
        ("cohort.table", True),
        ("cohort.pixels", False),
        ("trainer.precision", False),
        ("hydra.sweep.dir", True),
        ("workers", False),
    ],
)
def test_how_and_where_by_their_patterns(key, how):
    assert identity.is_how(key) is how


def test_a_studys_scope_is_its_base_cohort_and_fold():
    scope = {
        key
        for key in ("base", "base.x", "cohort", "cohort.pixels", "fold", "seed")
        if identity.in_scope(key)
    }
    assert scope == {"base", "cohort", "cohort.pixels", "fold"}


def test_what_is_missing_or_unused_is_no_setting():
    cfg = OmegaConf.create(
        {"z": 1, "a": "???", "sampler": {"steps": 3}, "samplers": 2, "unused": ["sampler"]}
    )
    assert list(settings(cfg).items()) == [("samplers", 2), ("z", 1)]
    assert differing({"a": 1, "b": None}, {"a": 1, "c": [1]}) == ["c None -> [1]"]
