"""The arms of a study, and what is there or missing of each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.grid import arrange, baseline_arm, expected_runs, missing, progress_sentences
from cmrcls.fairness.predictions import read
from cmrstudy import runs
from cmrstudy.inputs import kind_at, origin_at
from support.classifier_folders import arms, stores, write


def test_arms_have_the_papers_names_and_order(tmp_path):
    for arm in ("only", 4000, 0, 180):
        for mitigation in ("groupdro", "none"):
            write(tmp_path, arm, 0, mitigation=mitigation)
    of = arrange(runs_below(tmp_path))
    assert [arm.name for arm in of.arms] == [
        "Real",
        "Real + 180",
        "Real + 4000",
        "Synthetic",
        "Real, groupdro",
        "Real + 180, groupdro",
        "Real + 4000, groupdro",
        "Synthetic, groupdro",
    ]
    assert of.factors == {
        "synthetic images": ["0", "180", "4000", "only"],
        "mitigation": ["none", "groupdro"],
    }


def test_an_arm_is_chosen_by_its_name_whatever_is_in_it(tmp_path):
    for mean in (0.4, 0.5):
        write(tmp_path, 0, 0, model__normalisation=[mean, 0.2])
    name = "Real, normalisation [0.4, 0.2]"
    assert (
        arms(tmp_path, wanted=[name]) == [name]
        and str(baseline_arm(arrange(runs_below(tmp_path)).arms, name)) == name
    )


def test_runs_that_differ_in_seed_and_fold_alone_are_one_arm(tmp_path):
    for fold in range(2):
        for seed in range(2):
            write(tmp_path, 0, seed, fold=fold)
    of = arrange(runs_below(tmp_path))
    assert of.factors == {} and [(arm.name, len(arm.runs)) for arm in of.arms] == [("Real", 4)]


def test_arms_are_chosen_by_name_or_folder(tmp_path):
    for arm in (0, 9, "only"):
        write(tmp_path, arm, 0)
        write(tmp_path, arm, 0, mitigation="reweight")
    assert arms(tmp_path, wanted=["Real", "synthetic-only*"]) == [
        "Real",
        "Synthetic",
        "Synthetic, reweight",
    ]
    assert arms(tmp_path, wanted="*reweight") == [
        "Real, reweight",
        "Real + 9, reweight",
        "Synthetic, reweight",
    ]
    with pytest.raises(
        ValueError, match="arms=Reel: no such arm. There are 'Real' .synthetic-0.; 'Real \\+ 9'"
    ):
        arms(tmp_path, wanted=["Reel"])


def test_the_baseline_is_real_images_with_the_usual_settings_unless_one_is_named(tmp_path):
    write(tmp_path, 0, 0, budget="steps")
    write(tmp_path, 9, 1)
    assert str(baseline_arm(arrange(runs_below(tmp_path)).arms)) == "Real, budget steps"
    write(tmp_path, 0, 0)
    write(tmp_path, 9, 0)
    of = arrange(runs_below(tmp_path)).arms
    assert str(baseline_arm(of)) == "Real" and str(baseline_arm(of, "synthetic-9")) == "Real + 9"
    with pytest.raises(ValueError, match="baseline=synthetic-\\*: 3 arms of that name"):
        baseline_arm(of, "synthetic-*")
    assert baseline_arm([arm for arm in of if arm.name == "Real + 9"]) is None


def test_sets_of_another_kind_under_the_usual_path_are_arms_though_no_command_named_them(tmp_path):
    write(tmp_path / "a", 9, 0, made=("f1", "/disk1/runs/synthetic/0", "kind1"))
    write(tmp_path / "b", 9, 0, made=("f2", "/disk2/runs/synthetic/0", "kind2"))
    write(tmp_path / "b", 0, 0)
    names = arms(tmp_path)
    assert len(names) == len(set(names)) == 3 and "Real" in names


def test_sets_of_one_kind_are_repeats_and_of_another_kind_are_arms(tmp_path):
    for seed in range(2):
        write(tmp_path, 9, seed, made=("f1", "runs/synthetic/0", "k"))
    write(tmp_path, 9, 0, synthetic_set="b", made=("f2", "runs/synthetic/1", "k"))
    of = arrange(runs_below(tmp_path))
    assert [arm.name for arm in of.arms] == ["Real + 9"]
    (one,) = read(of, stores)
    assert one.runs.astype(str).to_numpy().tolist() == [
        ["Real + 9", "unknown", "0", "0"],
        ["Real + 9", "unknown", "0", "1"],
        ["Real + 9", "unknown", "1", "0"],
    ]
    write(tmp_path, 9, 0, synthetic_set="c", made=("f3", "runs/synthetic-copy/0", "other"))
    assert arms(tmp_path) == ["Real + 9, set synthetic/0", "Real + 9, set synthetic-copy/0"]


def test_generators_and_sets_are_told_by_what_made_them(tmp_path):
    """Two generators of seeds 4 and 7, the first with two sets; nobody knows what made the
    fourth."""
    for name, seed, generator in (("a", 0, 4), ("b", 1, 4), ("c", 5, 7)):
        place = tmp_path / "sets" / name
        runs.begin(runs.Request(place, {}, {"seed": seed}, {}, [], {}))
        runs.uses(place, "generator", fingerprint=f"g{generator}", at="nowhere", seed=generator)
        run = write(
            tmp_path / "runs", 9, 0, synthetic_set=name, made=(f"set {name}", str(place), "k")
        )
        told = {
            "fingerprint": f"set {name}",
            "at": str(place),
            "kind": "k",
            "origin": origin_at(place),
        }
        runs.uses(run, "synthetic_set", **told)
        shutil.rmtree(place)  # the classifier's run remembers
    write(tmp_path / "runs", 9, 0, synthetic_set="d", made=("set d", str(tmp_path / "gone"), "k"))
    (one,) = read(arrange(runs_below(tmp_path / "runs")), stores)
    assert [(row.generator, row.set) for row in one.runs.itertuples()] == [
        ("4", "0"),
        ("4", "1"),
        ("7", "5"),
        ("unknown", "0"),
    ]


def test_folds_of_a_plan_are_one_kind_though_their_cohorts_differ(tmp_path):
    def made(name: str, fold: int) -> str | None:
        asked = runs.Request(
            tmp_path / name,
            {},
            {"plan.count": 9, "seed": 0, "fold": fold, "cohort.fold": fold},
            {},
            [],
            {},
        )
        runs.begin(asked)
        runs.uses(asked.folder, "cohort", fingerprint=f"c{fold}", at=None)
        return kind_at(asked.folder)

    assert made("a", 0) == made("b", 1)


def test_the_kind_of_a_set_is_all_but_its_seeds(tmp_path):
    def made(name: str, seed: int, generator: str, **settings: Any) -> str | None:
        asked = runs.Request(
            tmp_path / name, {}, {"plan.count": 9, "seed": seed, **settings}, {}, [], {}
        )
        runs.begin(asked)
        runs.uses(asked.folder, "generator", fingerprint=generator, at=None, kind="g")
        return kind_at(asked.folder)

    one = made("a", 0, "f1")
    assert (
        one == made("b", 1, "f1") == made("c", 0, "f2") != made("d", 0, "f1", **{"plan.count": 8})
    )
    assert kind_at(tmp_path / "nowhere") is None


def table(folder: Path) -> pd.DataFrame:
    return expected_runs(arrange(runs_below(folder)))


def test_the_cells_of_a_study_are_the_product_of_what_occurs(tmp_path):
    for seed in range(3):
        write(tmp_path, 0, seed)
    write(tmp_path, 2000, 0)
    write(tmp_path, 2000, 1, state="failed", told="loss is nan; lower lr")
    write(tmp_path, "only", 2, state="unfinished")
    write(tmp_path, 0, 0, mitigation="groupdro")
    (tmp_path / "odd" / "0").mkdir(parents=True)
    (tmp_path / "odd" / "0" / "run.json").write_text('{"made_by": "another program"}')
    found = table(tmp_path)
    assert len(found) == 4 * 3 and not found.duplicated(["folder", "fold", "seed"]).any()
    assert found.state.value_counts().to_dict() == {
        "finished": 5,
        "absent": 5,
        "failed": 1,
        "unfinished": 1,
    }
    assert missing(found) == [
        "synthetic-2000 seeds 1 (failed: loss is nan), 2 (never begun)",
        "synthetic-only seeds 0, 1 (never begun), 2 (unfinished)",
        "synthetic-0-groupdro seeds 1, 2 (never begun)",
    ]
    assert progress_sentences(found)[0] == "5 of 12 runs of the study are finished."


def test_folds_are_crossed_with_seeds_apart_from_runs_without_folds(tmp_path):
    for fold in (0, 1):
        write(tmp_path, 0, 0, fold=fold)
    write(tmp_path, 9, 0, fold=1)
    write(tmp_path, 0, 5)
    found = table(tmp_path)
    assert len(found) == 5 and missing(found) == ["synthetic-9-fold-0 seed 0 (never begun)"]


def test_every_set_of_an_arm_has_cells_of_its_own(tmp_path):
    for name in ("a", "b"):
        for seed in range(2):
            write(tmp_path, 9, seed, synthetic_set=name, made=(f"f{name}", f"sets/{name}", "k"))
    write(tmp_path, 9, 2, synthetic_set="a", made=("fa", "sets/a", "k"))
    found = table(tmp_path)
    assert len(found) == 6 and (found.state == "finished").sum() == 5
    assert missing(found) == ["synthetic-9-synthetic_set-b seed 2 (never begun)"]


def test_a_complete_study_is_told_in_a_sentence_and_an_empty_one_in_none(tmp_path):
    assert progress_sentences(table(tmp_path / "nowhere")) == []
    write(tmp_path, 0, 0)
    assert progress_sentences(table(tmp_path)) == ["All 1 run of the study are finished."]


def test_an_arm_is_the_values_of_what_was_swept(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 9, 0, mitigation="groupdro", model__lr=0.5)
    first, second = (arm.arm for arm in arrange(runs_below(tmp_path)).arms)
    assert first.values == {"synthetic": 0, "mitigation": "none", "model.lr": 1e-3}
    assert second.values == {"synthetic": 9, "mitigation": "groupdro", "model.lr": 0.5}
    assert first.usual and not second.usual and first < second
    assert (first.paper_name, second.paper_name) == ("Real", None)


def test_the_number_of_synthetic_images_is_among_an_arms_values_though_all_have_the_same(tmp_path):
    write(tmp_path, "only", 0)
    write(tmp_path, "only", 0, mitigation="reweight")
    of = arrange(runs_below(tmp_path))
    assert "synthetic images" not in of.factors
    assert [arm.arm.values["synthetic"] for arm in of.arms] == ["only"] * 2
    assert baseline_arm(of.arms) is None


def test_what_is_expected_has_the_arm_beside_its_folder(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 9, 1)
    of = arrange(runs_below(tmp_path))
    table_of = expected_runs(of)
    assert [(str(row.arm), row.folder) for row in table_of.itertuples()] == [
        ("Real", "synthetic-0"),
        ("Real", "synthetic-0"),
        ("Real + 9", "synthetic-9"),
        ("Real + 9", "synthetic-9"),
    ]
