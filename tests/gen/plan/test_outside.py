"""A plan and a sampler of a user's own: a module and a config folder, and no file of ours is
touched."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra.utils import instantiate

from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrdata.synthetic import open_synthetic
from cmrgen.render.generator import save_generator
from cmrgen.training.controlnet import ControlNetModule
from cmrstudy import runs
from support import ROOT
from support.composing import composed

MODULE = '''
"""Images of one sex, drawn with another solver."""

from dataclasses import dataclass

from diffusers import DEISMultistepScheduler

from cmrgen.plan.rows import Plan, planned, usable
from cmrgen.render.sampler import Sampler


def one_sex(index, *, count, sex, seed=0, **drawing):
    rows = usable(index)
    return Plan(planned(index, rows.index[rows.sex == sex][:count], seed=seed, **drawing))


def table(index, *, count, **drawing):
    return one_sex(index, count=count, sex="M", **drawing).rows


def leaking(index, *, count, missing, **drawing):
    return Plan(planned(index, index.index[index.split == "test"][:count], seed=0, **drawing))


@dataclass(frozen=True)
class Deis(Sampler):
    name: str = "deis"

    def solver(self):
        return DEISMultistepScheduler
'''
FILES = {
    "plan/one_sex.yaml": "_target_: own_drawing.one_sex\ncount: 3\nsex: M\nseed: ${seed}\n"
    "guidance: ${sampler.guidance}\n",
    "plan/table.yaml": "_target_: own_drawing.table\ncount: 2\n",
    "plan/leaking.yaml": "_target_: own_drawing.leaking\ncount: 2\nmissing: whatever\n",
    "sampler/deis.yaml": "defaults: [unipc]\n_target_: own_drawing.Deis\nname: deis\nsteps: 2\n",
}
SMALL = ("preset=smoke", "cohort.pixels=32", "cohort.subjects=120", "generator=trained")


@pytest.fixture
def draw(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs generate.py in this process with a user's config folder; returns the set's folder."""
    for name, text in FILES.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "own_drawing.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMR_HOME", str(tmp_path))
    store = cohort(tmp_path)
    torch.manual_seed(1)
    module = ControlNetModule(base={"weights": str(tiny_base)})
    facts = {
        "base": {"weights": str(tiny_base)},
        "base_fingerprint": module.base.fingerprint,
        "cohort": store.folder.name,
        "cohort_fingerprint": store.fingerprint,
        "fields": ["sex", "age", "bmi", "diagnosis"],
    }
    save_generator(module.controlnet, tmp_path / "trained" / "controlnet", facts)
    runs.finish(tmp_path / "trained")

    def run(*overrides: str) -> Path:
        given = ["generate.py", "--config-dir", "mine", *SMALL, *overrides]
        monkeypatch.setattr(sys, "argv", given)
        runpy.run_path(str(ROOT / "generate.py"), run_name="__main__")
        (folder,) = (tmp_path / "runs" / "smoke").glob("*/0")
        return folder

    return run


def cohort(root: Path) -> Store:
    return prepare(instantiate(composed("generate", *SMALL).cohort), root / "data", workers=1)


def test_a_plan_and_a_sampler_of_ones_own_draw_a_set(draw, tmp_path):
    folder = draw("plan=one_sex", "plan.sex=F", "sampler=deis")
    synthetic = open_synthetic(folder, cohort(tmp_path))  # as the classifier does
    assert len(synthetic.index) == 3 and set(synthetic.index.sex) == {"F"}
    assert set(synthetic.index.sampler) == {"deis"} and set(synthetic.index.steps) == {2}
    settings = synthetic.meta["settings"]
    assert settings["sampler"] == "deis" and settings["scheduler"] == "DEISMultistepScheduler"
    assert synthetic.index.source_row.tolist() == sorted(synthetic.index.source_row)
    assert "deis, 2 steps" in (folder / "README.md").read_text()


def test_a_plan_of_ones_own_may_be_a_table(draw):
    assert len(pd.read_csv(draw("plan=table", "images=false") / "plan.csv")) == 2


def test_a_plan_of_ones_own_that_leaks_is_refused_before_an_image_is_drawn(draw, tmp_path):
    with pytest.raises(SystemExit, match="masks come from the test split"):
        draw("plan=leaking")  # `missing: whatever` is the function's own business
    assert not list((tmp_path / "runs").rglob("images.u8"))
    with pytest.raises(SystemExit, match="sampler.name=deis: it takes ddim"):
        draw("plan=one_sex", "sampler.name=deis")  # of ours there is none of that name
