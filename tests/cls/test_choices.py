"""A preset's width counts for a ResNet-18 from scratch and for nothing else."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from cmrcls.choices import WIDTH, own_width, settle_width


@pytest.mark.parametrize(
    ("backbone", "weights", "why"),
    [
        ("resnet18", None, None),
        (
            "densenet121",
            None,
            "preset.classifier_width=16 is a ResNet-18's; densenet121 has its own",
        ),
        ("resnet18", "imagenet", "training from scratch; imagenet's weights have width 64"),
        ("resnet18", "a/b.pth", "published weights from a file have width 64"),
    ],
)
def test_why_a_width_does_not_count(backbone, weights, why):
    told = own_width(backbone, weights, width=16)
    assert told is None if why is None else why in told
    assert own_width(backbone, weights, width=WIDTH) is None


def config(width: object, *, devices: int = 1) -> OmegaConf:
    return OmegaConf.create(
        {
            "preset": {"classifier_width": 16},
            "model": {"backbone": "densenet121", "weights": None, "width": width},
            "trainer": {"devices": devices, "num_nodes": 1},
        }
    )


def test_a_presets_width_gives_way_and_one_that_was_asked_for_stays(capsys, monkeypatch):
    cfg = config("${preset.classifier_width}")
    settle_width(cfg)
    assert cfg.model.width == WIDTH and "densenet121 has its own width" in capsys.readouterr().out
    asked = config(16)
    settle_width(asked)
    assert asked.model.width == 16 and not capsys.readouterr().out
    monkeypatch.setenv("LOCAL_RANK", "1")  # a further process says nothing
    cfg = config("${preset.classifier_width}", devices=2)
    settle_width(cfg)
    assert cfg.model.width == WIDTH and not capsys.readouterr().out
