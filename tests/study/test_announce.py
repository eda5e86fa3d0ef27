"""What a command says before it begins: the length in steps, whatever is combined, and nothing it
doesn't know."""

from __future__ import annotations

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
