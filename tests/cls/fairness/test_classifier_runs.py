"""The runs below a folder, and those that may not be compared, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmrcls.fairness.classifier_runs import comparable, runs_below
from support.classifier_folders import write


def kept(folder: Path, **options: Any) -> tuple[list[str], list[str]]:
    found, told = comparable(runs_below(folder), **{"cohort": lambda fold: "c", **options})
    return [f"{run.group}/{run.seed}" for run in found], told


def test_runs_of_another_cohort_are_left_out_by_name(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 0, 1, cohort="other")
    names, told = kept(tmp_path)
    assert names == ["synthetic-0/0"]
    assert told == ["Left out: synthetic-0/1: trained on another cohort or split (other, here c)."]


def test_runs_of_a_set_that_was_made_anew_are_left_out_by_name(tmp_path):
    place = tmp_path / "set"
    for seed in range(2):
        write(tmp_path, 9, seed, made=("old", str(place), "k"))
    write(tmp_path, 9, 2, made=("new", str(place), "k"))
    assert len(kept(tmp_path)[0]) == 3  # the set is gone: nothing to compare with
    place.mkdir()
    (place / "store.json").write_text('{"fingerprint": "new"}')
    names, told = kept(tmp_path)
    assert names == ["synthetic-9/2"]
    assert (
        "synthetic-9/0, synthetic-9/1: trained on an earlier set" in told[0]
        and "overwrite=true" in told[0]
    )


def test_a_seed_that_did_not_get_the_published_weights_is_no_seed_of_its_arm(tmp_path):
    for seed in range(3):
        write(tmp_path, 0, seed, weights="random" if seed == 1 else "imagenet 1")
    write(tmp_path, 9, 0, weights="random")  # a whole arm without: nothing to mix
    names, told = kept(tmp_path)
    assert (
        names == ["synthetic-0/0", "synthetic-0/2", "synthetic-9/0"]
        and "synthetic-0/1: began from random" in told[0]
    )


def test_runs_of_another_input_are_passed_over(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 0, 1, input__name="cine")
    assert len(runs_below(tmp_path)) == 1 and len(runs_below(tmp_path, input_name="cine")) == 1


def test_runs_of_folds_and_of_none_are_not_mixed_and_fold_chooses(tmp_path):
    for fold in (None, 0, 1):
        write(tmp_path, 0, 0, fold=fold)
    found = runs_below(tmp_path)
    kept, left_out = comparable(found, cohort=lambda fold: "c")
    assert [run.fold for run in kept] == [None] and len(left_out) == 1
    assert "fold-0/0" in left_out[0] and "fold=0 evaluates those of folds" in left_out[0]
    kept, left_out = comparable(found, cohort=lambda fold: "c", fold=0)
    assert [run.fold for run in kept] == [0, 1] and "of no fold" in left_out[0]
    only = [run for run in found if run.fold is not None]
    assert comparable(only, cohort=lambda fold: "c") == (only, [])
