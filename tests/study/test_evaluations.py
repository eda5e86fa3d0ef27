"""An evaluation is shown again, measured anew or refused; never replaced by one of something
else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cmrstudy import evaluations, runs
from cmrstudy.evaluations import check_something, claim_evaluation, print_evaluation

RUNS = {"runs/a/0": "f1", "runs/a/1": "f2", "synthetic set": "s1"}
SETTINGS = {"resamples": 100, "audit": False, "backbones.radimagenet": None}


def request(folder: Path, *, overwrite: bool = False, **settings: Any) -> runs.Request:
    config = {"run_dir": str(folder), "overwrite": overwrite}
    return runs.Request(folder, config, {**SETTINGS, **settings}, {}, [], {})


def evaluated(folder: Path, *, rests_on: dict[str, str] = RUNS, **settings: Any) -> None:
    assert claim_evaluation(request(folder, **settings), rests_on)
    (folder / "table2.csv").write_text("a\n1\n")
    runs.finish(folder, rests_on=rests_on)


def test_nothing_new_is_shown_again_and_keeps_its_files(tmp_path, capsys):
    evaluated(tmp_path)
    assert not claim_evaluation(request(tmp_path), RUNS)
    assert "nothing has changed since it was evaluated; shown again" in capsys.readouterr().out
    assert (tmp_path / "table2.csv").exists()


@pytest.mark.parametrize(
    ("settings", "more", "told"),
    [
        ({}, {"runs/a/2": "f3"}, "measured anew (1 more run)"),
        ({}, {"runs/a/2": "f3", "runs/a/3": "f4"}, "measured anew (2 more runs)"),
        ({"audit": True}, {}, "measured anew (audit False -> True)"),
        ({"backbones.radimagenet": "w.pt"}, {}, "(backbones.radimagenet None -> w.pt)"),
    ],
)
def test_what_only_adds_is_measured_anew(tmp_path, capsys, settings, more, told):
    evaluated(tmp_path)
    assert claim_evaluation(request(tmp_path, **settings), RUNS | more)
    assert told in capsys.readouterr().out
    assert runs.record(tmp_path).state == "unfinished"
    assert not (tmp_path / "table2.csv").exists()  # nothing of the older one lies beside the new


@pytest.mark.parametrize(
    ("before", "settings", "now", "told"),
    [
        ({}, {"resamples": 50}, RUNS, "resamples 100 -> 50"),
        ({"audit": True}, {}, RUNS, "audit True -> False"),
        ({}, {}, RUNS | {"runs/a/1": "other"}, "runs/a/1 has changed"),
        ({}, {}, {k: v for k, v in RUNS.items() if k != "runs/a/1"}, "runs/a/1 is gone"),
        ({}, {}, RUNS | {"synthetic set": "s2"}, "synthetic set has changed"),
    ],
)
def test_an_evaluation_of_something_else_is_kept(tmp_path, before, settings, now, told):
    evaluated(tmp_path, **before)
    with pytest.raises(FileExistsError, match=f"of something else: {told}. overwrite=true"):
        claim_evaluation(request(tmp_path, **settings), now)
    assert (tmp_path / "table2.csv").exists()
    assert claim_evaluation(request(tmp_path, overwrite=True, **settings), now)


def test_other_code_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "code_version", lambda: "1.0")
    evaluated(tmp_path)
    monkeypatch.setattr(runs, "code_version", lambda: "9.9")
    assert claim_evaluation(request(tmp_path), RUNS)
    assert "measured anew (code 1.0 -> 9.9)" in capsys.readouterr().out


def test_an_unfinished_one_is_measured_whatever_it_was_of(tmp_path):
    assert claim_evaluation(request(tmp_path), RUNS)
    assert claim_evaluation(request(tmp_path, resamples=50), {"synthetic set": "none"})


def test_what_an_evaluation_rests_on(tmp_path):
    (tmp_path / "a" / "0").mkdir(parents=True)
    one = request(tmp_path / "a" / "0")
    runs.begin(one)
    runs.finish(one.folder, steps=3)
    record = runs.record(one.folder)
    prints = evaluations.rests_on({one.folder: record}, tmp_path / "no set")
    assert list(prints) == [one.folder.as_posix(), "synthetic set"]
    assert prints["synthetic set"] == "none"
    other = evaluations.rests_on({one.folder: record._replace(facts={"steps": 4})}, tmp_path)
    assert other[one.folder.as_posix()] != prints[one.folder.as_posix()]


def test_nothing_to_evaluate_is_told_before_anything_is_written(tmp_path):
    made = tmp_path / "set"
    cfg = OmegaConf.create({"classifiers": str(tmp_path / "nowhere"), "synthetic_set": str(made)})
    with pytest.raises(
        FileNotFoundError, match="nothing to evaluate: no finished classifier below"
    ):
        check_something([], cfg, typed=[])
    made.mkdir()
    with pytest.raises(FileNotFoundError, match="nothing to evaluate"):
        check_something([], cfg, typed=[])  # a set that isn't finished
    (made / "finished.json").write_text("{}")
    check_something([], cfg, typed=[])
    with pytest.raises(FileNotFoundError, match="classifiers=.*nowhere: there is no such folder"):
        check_something([], cfg, typed=["classifiers"])
    check_something([tmp_path], cfg, typed=[])


def test_the_main_tables_are_printed_and_where_the_report_is(tmp_path, capsys):
    for name, word in (("table2", "Obese"), ("gaps", "widest")):
        (tmp_path / f"{name}.md").write_text(f"| a |\n| --- |\n| {word} |\n")
    print_evaluation(tmp_path, ["All 4 runs of the study are finished."])
    said = capsys.readouterr().out
    assert "Obese" in said and "widest" not in said and "All 4 runs" in said
    assert f"report: {tmp_path / 'report.html'}" in said
