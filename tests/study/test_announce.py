"""What a command says before it begins: the length in steps, whatever is combined, and nothing it
doesn't know."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cmrstudy.announce import intention
from support import ROOT
from support.composing import composed

EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


def said(command: str, *overrides: str) -> str:
    return intention(composed(command, *overrides))


def test_a_generators_training_is_told_in_steps_of_the_optimiser():
    options = [
        "experiment=controlnet",
        "preset=demo",
        "data.images_per_epoch=100",
        "data.batch_size=8",
    ]
    told = said("train", *options, "trainer.accumulate_grad_batches=2", "trainer.max_epochs=3")
    assert told.startswith(
        "controlnet: cohort phantom at 64 px of 165 mm, base assets/phantom-base, "
    )
    assert (
        "3 epochs of 100 images, 16 a step: 21 steps" in told
        and "-> runs/demo/controlnet" in told
        and "GB free" in told
    )


@pytest.mark.parametrize(
    ("synthetic", "words"),
    [
        ("0", "real images,"),
        ("36", "real and 36 synthetic images of runs/smoke/synthetic-fold-2/0"),
        ("only", "synthetic images of runs/smoke/synthetic-fold-2/0 alone"),
    ],
)
def test_a_classifier_says_its_arm(synthetic, words):
    told = said(
        "train",
        "experiment=classifier",
        "preset=smoke",
        f"synthetic={synthetic}",
        "fold=2",
        "mitigation=groupdro",
    )
    assert words in told and "resnet18 from random weights" in told
    assert "fold 2" in told and "mitigation groupdro" in told


def test_a_base_and_a_set_are_told_too():
    assert "3 steps of the autoencoder and 3 steps of the unet" in said(
        "train", "experiment=base", "preset=smoke"
    )
    told = said("generate", "preset=smoke", "generator=runs/x/0", "sampler.steps=5")
    assert "generator runs/x/0, unipc in 5 steps, guidance 2" in told


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_says_what_it_is_going_to_do_and_where(experiment):
    needed = {"explain": ["classifier=runs/x/0"], "export": ["generator=runs/x/0"]}
    told = said("train", f"experiment={experiment}", *needed.get(experiment, []))
    task, rest = told.split(": ", 1)
    what, where = rest.split(" -> ")
    assert task == experiment and what and "GB free" in where
    assert where.startswith(("runs/", "results/"))
    unused = experiment in ("export", "share", "explain")
    assert unused == ("cohort phantom" not in what)


def test_an_evaluation_says_what_it_rests_on():
    cfg = composed("evaluate", "preset=smoke", "audit=true", "resamples=500")
    told = intention(cfg, rests_on="8 finished runs")
    assert told.startswith("evaluate: cohort phantom at 64 px of 165 mm, 8 finished runs, set ")
    assert "500 resamples, 2,000 permutations, with an audit, on auto" in told
    assert "-> results/smoke" in told


def test_whole_sentences_of_plain_settings(monkeypatch, tmp_path):
    monkeypatch.setattr("cmrstudy.announce._room", lambda folder: "")

    def said(task: str, **cfg) -> str:
        usual = {"task": task, "run_dir": "runs/a", "cohort": {"name": "c", "pixels": 64}}
        return intention({**usual, **cfg})

    assert said("x") == "x: cohort c at 64 px -> runs/a"
    assert said("x", unused=["cohort"], fold=1) == "x:  -> runs/a"
    wide = {"name": "c", "pixels": 64, "fov_mm": 165.0}
    assert said("x", cohort=wide, fold=0) == "x: cohort c at 64 px of 165 mm, fold 0 -> runs/a"
    assert said("x", cohort={"name": "c", "fov_mm": 165.0}) == "x: cohort c -> runs/a"
    classifier = {"model": {"backbone": "r", "weights": None}, "synthetic_set": "runs/s"}
    length = {"data": {"batch_size": 8, "images_per_epoch": 100}, "trainer": {"max_epochs": 3}}
    plain = {"precision": "32-true", "devices": 2, "accelerator": "gpu"}
    for synthetic, arm in (
        (0, "real images"),
        (9, "real and 9 synthetic images of runs/s"),
        ("only", "synthetic images of runs/s alone"),
    ):
        told = said("classifier", **classifier, **length, synthetic=synthetic)
        assert told == (
            f"classifier: cohort c at 64 px, r from random weights, {arm}, 3 epochs of 100 images, "
            "8 a step: 39 steps, None on None x None -> runs/a"
        )
    for name, words in (("none", ""), ("groupdro", ", mitigation groupdro")):
        told = said(
            "classifier",
            **classifier,
            synthetic=0,
            mitigation={"name": name},
            data={"batch_size": 8},
            trainer=plain,
        )
        assert f"real images{words}, 32-true on 2 x gpu -> runs/a" in told
    every = {**plain, "max_epochs": 1, "accumulate_grad_batches": 3, "max_time": "00:01:00:00"}
    told = said("controlnet", base={"weights": "w"}, data={"batch_size": 8}, trainer=every)
    assert "base w, 1 epoch of all images, 24 a step, at most 00:01:00:00, 32-true" in told
    endless = said(
        "controlnet",
        base={"weights": "w"},
        data={"batch_size": 8},
        trainer={**plain, "max_epochs": -1},
    )
    assert "base w, 32-true on 2 x gpu -> runs/a" in endless
    model = {"autoencoder": {"steps": 1000}, "unet": {"steps": 2}}
    assert "1,000 steps of the autoencoder and 2 steps of the unet, 8 images each" in said(
        "base", model=model, data={"batch_size": 8}
    )
    assert "tables and every scan" in said("inspect", volumes=True)
    assert "tables and file names" in said("inspect", volumes=False)
    assert "s as nifti and png" in said("share", synthetic_set="s", formats=["nifti", "png"])
    measured = {"synthetic_set": "s", "resamples": 1000, "permutations": 40, "device": "cpu"}
    assert "set s, 1,000 resamples, 40 permutations, on cpu" in said(
        "evaluate", audit=False, **measured
    )
    monkeypatch.undo()
    monkeypatch.setattr(
        "cmrstudy.announce.shutil.disk_usage",
        lambda place: SimpleNamespace(free=7.4e9 if place == tmp_path else 0),
    )
    assert intention({"task": "x", "cohort": wide, "run_dir": str(tmp_path / "a" / "b")}).endswith(
        " (7 GB free)"
    )
