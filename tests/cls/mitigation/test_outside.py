"""A mitigation of a user's own: classes in a module of theirs and a YAML file in a config folder,
and no file of ours is touched."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from cmrstudy import runs
from support import ROOT

MODULE = '''
"""Losses and samplings of a user's own."""

import numpy as np
import torch
from torch import nn

from cmrcls.mitigation.after import BestEpoch
from cmrcls.mitigation.sampling import Uniform


class Focal(nn.Module):
    """The mean of losses to a power (Lin et al. 2017), and how often it was asked."""

    def __init__(self, groups, *, power):
        super().__init__()
        self.power = power
        self.register_buffer("images", torch.zeros(len(groups)))

    def forward(self, losses, group):
        self.images += torch.bincount(group, minlength=len(self.images))
        return losses.pow(self.power).mean()


class Women(Uniform):
    """Women are drawn alone."""

    def __init__(self, *, least):
        self.least = least

    def check(self, index, *, cohort):
        if (index.sex == "F").sum() < self.least:
            raise ValueError(f"fewer than {self.least} women in cohort {cohort}")

    def chances(self, train):
        women = (train.sex == "F").to_numpy(float)
        return women / women.sum()


class Everyone(BestEpoch):
    """Finds everyone ill."""

    def predict(self, module, trainer, data, *, seed):
        return super().predict(module, trainer, data, seed=seed).assign(predicted=1)
'''
YAML = """# a user's own
defaults: [none]
name: focal
sampling:
  _target_: own_mitigations.Women
  least: 5
loss:
  _target_: own_mitigations.Focal
  power: 2.0
after: {_target_: own_mitigations.Everyone}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs train.py with a user's config folder in this process; returns the run's folder."""
    (tmp_path / "mine" / "mitigation").mkdir(parents=True)
    (tmp_path / "mine" / "mitigation" / "focal.yaml").write_text(YAML)
    lost = YAML.replace("own_mitigations.Focal", "own_mitigations.Vocal")
    (tmp_path / "mine" / "mitigation" / "lost.yaml").write_text(lost)
    (tmp_path / "own_mitigations.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMR_HOME", str(tmp_path))

    def run(*overrides: str) -> Path:
        small = [
            "preset=smoke",
            "cohort.pixels=32",
            "cohort.subjects=60",
            "trainer.accelerator=cpu",
        ]
        small += ["experiment=classifier", "logger=[]"]
        monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", "mine", *small, *overrides])
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        (folder,) = (tmp_path / "runs" / "smoke" / "classifier").glob("*/0")
        return folder

    return run


def test_a_mitigation_of_ones_own_is_classes_and_a_yaml_file(mine):
    folder = mine("mitigation=focal", "mitigation.loss.power=3")
    assert "focal-mitigation.loss.power-3" in folder.parent.name
    assert runs.record(folder).state == "finished"
    assert (pd.read_csv(folder / "predictions.csv").predicted == 1).all()
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    drawn = state["loss.images"]  # what the loss keeps is in the checkpoint
    assert drawn.sum() == 64  # images of the preset's one epoch
    settings = runs.record(folder).settings
    assert settings["mitigation.loss.power"] == 3
    assert settings["mitigation.sampling._target_"] == "own_mitigations.Women"


def test_one_that_is_not_there_is_told_before_any_data_are_prepared(mine, tmp_path):
    with pytest.raises(SystemExit) as error:
        mine("mitigation=lost")
    assert "_target_ own_mitigations.Vocal can't be imported" in str(error.value)
    assert not list((tmp_path / "data").glob("phantom*"))


def test_what_its_check_says_is_told_with_its_name(mine):
    with pytest.raises(SystemExit, match="mitigation=focal: fewer than 99 women in cohort phantom"):
        mine("mitigation=focal", "mitigation.sampling.least=99")
