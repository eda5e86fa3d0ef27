"""Arms and factors of a study from what its runs recorded, unsound runs by name, and what is
missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from cmrcls.fairness.grid import baseline, cells, factors, missing, sentences, sound, study
from cmrcls.fairness.grid import read as runs_below
from cmrcls.fairness.predictions import read
from cmrdata.subjects import AXES
from cmrstudy import runs
from cmrstudy.inputs import kind_at, origin_at

USUAL = {
    "model.lr": 1e-3,
    "budget": "epochs",
    "mitigation.loss._target_": "losses.Mean",
    "input.name": "stack",
}
LOSS = {
    "none": {"mitigation.loss._target_": "losses.Mean"},
    "groupdro": {"mitigation.loss._target_": "losses.GroupDRO", "mitigation.loss.eta": 0.01},
    "reweight": {"mitigation.loss._target_": "losses.Weighted"},
}


def write(
    folder: Path,
    arm: int | str,
    seed: int,
    *,
    state: str = "finished",
    told: str = "",
    mitigation: str = "none",
    fold: int | None = None,
    cohort: str = "c",
    made: tuple[str, str, str] | None = None,
    weights: str = "imagenet 1",
    **other: Any,
) -> Path:
    """A run below `folder`, named as the command would. made: fingerprint, place and kind of its
    synthetic set."""
    given = {key.replace("__", "."): value for key, value in other.items()}
    keys = [
        *given,
        *(["mitigation"] if mitigation != "none" else []),
        *(["synthetic"] if arm != 0 else []),
    ]
    parts = [f"{key}-{value}" for key, value in given.items()] + [mitigation] * (
        mitigation != "none"
    )
    name = "-".join(
        ["synthetic", str(arm), *parts, *([f"fold-{fold}"] if fold is not None else [])]
    )
    run = folder / name / str(seed)
    settings = {
        **USUAL,
        **LOSS[mitigation],
        **given,
        "synthetic": arm,
        "seed": seed,
        "fold": fold,
    }
    asked = runs.Request(
        run, {"task": "classifier"}, settings, {"mitigation": mitigation}, keys, {}
    )
    runs.begin(asked)
    runs.uses(run, "cohort", fingerprint=cohort, at=None)
    runs.uses(run, "model.weights", fingerprint=weights, at=None)
    if made:
        runs.uses(run, "synthetic_set", fingerprint=made[0], at=made[1], kind=made[2])
    if state == "finished":
        runs.finish(run, steps=3, split_fingerprint="s")
        subjects = [f"SYN{k:04d}" for k in range(8)]
        table = pd.DataFrame(
            {
                "subject": subjects,
                "row": range(8),
                "split": "test",
                "disease": "hf",
                "label": [0, 1] * 4,
                "probability": 0.4,
                "predicted": 0,
                "source": "a",
            }
        )
        table.assign(**{axis: bands[0] for axis, bands in AXES.items()}).to_csv(
            run / "predictions.csv", index=False
        )
    if state == "failed":
        (run / "failed.json").write_text(json.dumps({"told": told}))
    return run


def stores(fold: int | None) -> Any:
    """The cohort's, whose subjects have other names than in the runs: another salt."""
    index = pd.DataFrame({"subject": [f"HERE{k}" for k in range(8)]})
    return SimpleNamespace(index=index, meta={"names": "another salt"})


def arms(folder: Path, **options: Any) -> list[str]:
    return [arm.name for arm in study(runs_below(folder), **options).arms]


def test_arms_have_the_papers_names_and_order(tmp_path):
    for arm in ("only", 4000, 0, 180):
        for mitigation in ("groupdro", "none"):
            write(tmp_path, arm, 0, mitigation=mitigation)
    of = study(runs_below(tmp_path))
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


def test_any_swept_key_is_a_factor_and_what_follows_from_one_is_none(tmp_path):
    for lr in (1e-3, 3e-4):
        for budget in ("epochs", "steps"):
            for seed in range(2):
                changed = ({"model__lr": lr} if lr != 1e-3 else {}) | (
                    {"budget": budget} if budget != "epochs" else {}
                )
                write(tmp_path, 0, seed, **changed)
    write(tmp_path, 0, 0, mitigation="groupdro", mitigation__loss__eta=0.1)
    found = runs_below(tmp_path)
    # not the loss that it brings
    assert factors(found) == ["mitigation", "budget", "mitigation.loss.eta", "model.lr"]
    assert arms(tmp_path) == [
        "Real",
        "Real, lr 0.0003",
        "Real, budget steps",
        "Real, budget steps, lr 0.0003",
        "Real, groupdro, eta 0.1",
    ]
    assert all(len(arm.runs) == 2 for arm in study(found).arms[:4])


def test_a_setting_changed_in_a_file_is_a_factor_too(tmp_path):
    write(tmp_path, 0, 0)
    record = json.loads((run := write(tmp_path, 0, 1) / "run.json").read_text())
    record["settings"]["model.lr"] = 0.5  # an edited experiment file: no command names it
    run.write_text(json.dumps(record))
    assert factors(runs_below(tmp_path)) == ["model.lr"] and len(arms(tmp_path)) == 2


def test_arms_of_experiments_of_ones_own_have_names_of_their_own(tmp_path):
    # experiment=glob(study_*): no command names the key
    for name, lr in (("a", 3e-5), ("b", 3e-3)):
        run = write(tmp_path / name, 0, 0) / "run.json"
        record = json.loads(run.read_text())
        record["settings"]["model.lr"] = lr
        run.write_text(json.dumps(record))
    of = study(runs_below(tmp_path))
    assert [arm.name for arm in of.arms] == ["Real, lr 3e-05", "Real, lr 0.003"] and of.factors == {
        "lr": ["3e-05", "0.003"]
    }
    assert baseline(of.arms) == "Real, lr 3e-05"


def test_arms_of_two_sets_in_folders_of_one_name_have_names_of_their_own(tmp_path):
    write(tmp_path / "a", 9, 0, synthetic_set="x", made=("f1", "/disk1/runs/synthetic/0", "kind1"))
    write(tmp_path / "b", 9, 0, synthetic_set="x", made=("f2", "/disk2/runs/synthetic/0", "kind2"))
    names = arms(tmp_path)
    assert names == [
        "Real + 9, set synthetic/0, synthetic set kind1",
        "Real + 9, set synthetic/0, synthetic set kind2",
    ]


def test_close_values_and_keys_that_end_alike_stay_apart(tmp_path):
    for lr in (0.00012345671, 0.00012345672):
        write(tmp_path, 0, 0, model__lr=lr, model__pixels=32)
        write(tmp_path, 0, 0, model__lr=lr, cohort__pixels=32)
    names = arms(tmp_path)
    assert len(set(names)) == 4 and any("lr 0.00012345671" in name for name in names)
    assert {"cohort.pixels", "model.pixels", "lr"} <= set(study(runs_below(tmp_path)).factors)


def test_an_arm_is_chosen_by_its_name_whatever_is_in_it(tmp_path):
    for mean in (0.4, 0.5):
        write(tmp_path, 0, 0, model__normalisation=[mean, 0.2])
    name = "Real, normalisation [0.4, 0.2]"
    assert (
        arms(tmp_path, wanted=[name]) == [name]
        and baseline(study(runs_below(tmp_path)).arms, name) == name
    )


def test_runs_that_differ_in_seed_and_fold_alone_are_one_arm(tmp_path):
    for fold in range(2):
        for seed in range(2):
            write(tmp_path, 0, seed, fold=fold)
    of = study(runs_below(tmp_path))
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
    assert baseline(study(runs_below(tmp_path)).arms) == "Real, budget steps"
    write(tmp_path, 0, 0)
    write(tmp_path, 9, 0)
    of = study(runs_below(tmp_path)).arms
    assert baseline(of) == "Real" and baseline(of, "synthetic-9") == "Real + 9"
    with pytest.raises(ValueError, match="baseline=synthetic-\\*: 3 arms of that name"):
        baseline(of, "synthetic-*")
    assert baseline([arm for arm in of if arm.name == "Real + 9"]) is None


# unsound runs


def kept(folder: Path, **options: Any) -> tuple[list[str], list[str]]:
    found, told = sound(runs_below(folder), **{"cohort": lambda fold: "c", **options})
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
    of = study(runs_below(tmp_path))
    assert [arm.name for arm in of.arms] == ["Real + 9"]
    (one,) = read(of, stores)
    assert one.runs.to_numpy().tolist() == [
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
    (one,) = read(study(runs_below(tmp_path / "runs")), stores)
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


# predictions


def test_predictions_are_read_once_with_arm_seed_fold_and_split(tmp_path):
    for seed in (1, 0):
        write(tmp_path, 0, seed, fold=3)
    (one,) = read(study(runs_below(tmp_path)), stores)
    assert one.runs.seed.tolist() == ["0", "1"] and one.arms == ["Real"] and one.baseline == "Real"
    assert one.subjects.subject.tolist() == [f"HERE{k}" for k in range(8)]  # by rows, not by names
    assert set(one.subjects.fold) == {3} and one.probability.shape == (8, 2)
    with pytest.raises(ValueError, match="no finished classifier runs"):
        read(study(runs_below(tmp_path / "nowhere")), stores)


def test_seeds_are_in_the_order_of_numbers(tmp_path):
    for seed in (10, 2):
        write(tmp_path, 0, seed)
    assert read(study(runs_below(tmp_path)), stores)[0].runs.seed.tolist() == ["2", "10"]


def test_predictions_of_runs_in_another_order_are_put_in_one(tmp_path):
    write(tmp_path, 0, 0)
    path = write(tmp_path, 0, 1) / "predictions.csv"
    turned = pd.read_csv(path).iloc[::-1]
    turned.assign(probability=turned.row / 10).to_csv(path, index=False)
    (one,) = read(study(runs_below(tmp_path)), stores)
    assert one.probability[:, 1].tolist() == pytest.approx([k / 10 for k in range(8)])


def test_a_table_without_a_column_is_named_by_its_run(tmp_path):
    path = write(tmp_path, 0, 0) / "predictions.csv"
    pd.read_csv(path).drop(columns="predicted").to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"synthetic-0/0: predictions.csv lacks the columns \['predicted'\]"
    ):
        read(study(runs_below(tmp_path)), stores)


# what is missing


def table(folder: Path) -> pd.DataFrame:
    return cells(study(runs_below(folder)))


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
    assert len(found) == 4 * 3 and not found.duplicated(["arm", "fold", "seed"]).any()
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
    assert sentences(found)[0] == "5 of 12 runs of the study are finished."


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
    assert sentences(table(tmp_path / "nowhere")) == []
    write(tmp_path, 0, 0)
    assert sentences(table(tmp_path)) == ["All 1 runs of the study are finished."]


def test_runs_of_another_input_are_passed_over(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 0, 1, input__name="cine")
    assert len(runs_below(tmp_path)) == 1 and len(runs_below(tmp_path, shown="cine")) == 1
