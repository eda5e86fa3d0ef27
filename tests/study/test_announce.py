"""What a command says before it begins: the length in steps, whatever is combined, and nothing it
doesn't know."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from cmrstudy.announce import intention
from support import ROOT

CONF = str(ROOT / "conf")


def said(command: str, *overrides: str) -> str:
    with initialize_config_dir(CONF, version_base="1.3"):
        return intention(compose(command, list(overrides)))


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
        ("36", "real and 36 synthetic images of runs/smoke/synthetic/0"),
        ("only", "synthetic images of runs/smoke/synthetic/0 alone"),
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
