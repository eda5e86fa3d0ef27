"""What a user adds from outside the package: a module of their own and a config folder, and no file
of ours is touched."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from cmrstudy import runs
from support import ROOT

MODULE = '''
"""An experiment of a user's own: how large hearts of the training subjects are."""

from cmrdata.batch import LV
from cmrdata.prepare import prepare


def heart_size(run, *, phase):
    store = prepare(run.build(run.cfg.cohort), run.cfg.data_root)
    run.uses("cohort", fingerprint=store.fingerprint, at=store.folder)
    rows = store.index.index[store.index.split == "train"]
    pixels = [int((store.masks[row, phase] == LV).sum()) for row in rows]
    (run.folder / "sizes.txt").write_text("\\n".join(map(str, pixels)))
    return {"images": len(pixels), "mean_pixels": sum(pixels) / len(pixels)}


def refuse(run):
    raise ValueError("heart_size: nothing to measure; give a cohort")
'''
YAML = """# @package _global_
# How large hearts are.
task: heart_size
work:
  _target_: heart_sizes.heart_size
  phase: ${phase}
name: heart_size${differing:}${scope:}
unused: [base, sampler, memory, trainer]
score: mean_pixels
phase: 1 # ES
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs train.py with a user's config folder in this process; returns the folder of the runs."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "heart_size.yaml").write_text(YAML)
    (tmp_path / "mine" / "experiment" / "refusing.yaml").write_text(
        YAML.replace("heart_sizes.heart_size\n  phase: ${phase}", "heart_sizes.refuse")
    )
    (tmp_path / "mine" / "experiment" / "lost.yaml").write_text(YAML.replace("heart_sizes.", "no."))
    (tmp_path / "heart_sizes.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CMR_HOME", str(tmp_path))

    def run(*overrides: str) -> Path:
        small = ["preset=smoke", "cohort.pixels=32", "cohort.subjects=60"]
        given = ["train.py", "--config-dir", "mine", *small, *overrides]
        monkeypatch.setattr(sys, "argv", given)
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        return tmp_path / "runs" / "smoke"

    return run


def test_an_experiment_of_ones_own_is_a_function_and_a_yaml_file(mine, capsys):
    home = mine("experiment=heart_size")
    (folder,) = home.glob("heart_size*/0")
    sizes = [int(line) for line in (folder / "sizes.txt").read_text().split()]
    facts, record = runs.facts(folder), runs.record(folder)
    assert record.state == "finished" and set(record.inputs) == {"cohort"}
    assert facts["images"] == len(sizes) > 0
    assert facts["mean_pixels"] == pytest.approx(sum(sizes) / len(sizes)) and min(sizes) > 0
    with pytest.raises(SystemExit, match="finished run; resume=true"):
        mine("experiment=heart_size")
    mine("experiment=heart_size", "phase=0")  # another value, another folder
    others = set(home.glob("heart_size*/0")) - {folder}
    assert len(others) == 1 and runs.facts(others.pop())["mean_pixels"] > facts["mean_pixels"]


def test_what_it_raises_and_what_is_not_there_is_told_in_a_sentence(mine):
    with pytest.raises(SystemExit, match="heart_size: nothing to measure; give a cohort"):
        mine("experiment=refusing")
    with pytest.raises(SystemExit) as error:
        mine("experiment=lost")
    assert "_target_ no.heart_size can't be imported" in str(error.value)


def test_help_lists_it(mine, capsys):
    with pytest.raises(SystemExit):
        mine("--help")
    assert "heart_size" in capsys.readouterr().out


def test_a_config_file_that_is_no_yaml_is_named_with_its_line(mine, tmp_path):
    (tmp_path / "mine" / "experiment" / "torn.yaml").write_text(
        YAML.replace("work:", "work: {phase: ${phase}}")
    )
    with pytest.raises(SystemExit, match=r"experiment/torn.yaml, line 4: expected ',' or '}'"):
        mine("experiment=heart_size")
