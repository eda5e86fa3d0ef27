"""What runs differ in, and the arms' names made of it."""

from __future__ import annotations

import json

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.factors import swept_factors
from cmrcls.fairness.grid import arrange, baseline_arm
from support.classifier_folders import arms, write


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
    assert swept_factors(found) == ["mitigation", "budget", "mitigation.loss.eta", "model.lr"]
    assert arms(tmp_path) == [
        "Real",
        "Real, lr 0.0003",
        "Real, budget steps",
        "Real, budget steps, lr 0.0003",
        "Real, groupdro, eta 0.1",
    ]
    assert all(len(arm.runs) == 2 for arm in arrange(found).arms[:4])


def test_a_setting_changed_in_a_file_is_a_factor_too(tmp_path):
    write(tmp_path, 0, 0)
    record = json.loads((run := write(tmp_path, 0, 1) / "run.json").read_text())
    record["settings"]["model.lr"] = 0.5  # an edited experiment file: no command names it
    run.write_text(json.dumps(record))
    assert swept_factors(runs_below(tmp_path)) == ["model.lr"] and len(arms(tmp_path)) == 2


def test_arms_of_experiments_of_ones_own_have_names_of_their_own(tmp_path):
    # experiment=glob(study_*): no command names the key
    for name, lr in (("a", 3e-5), ("b", 3e-3)):
        run = write(tmp_path / name, 0, 0) / "run.json"
        record = json.loads(run.read_text())
        record["settings"]["model.lr"] = lr
        run.write_text(json.dumps(record))
    of = arrange(runs_below(tmp_path))
    assert [arm.name for arm in of.arms] == ["Real, lr 3e-05", "Real, lr 0.003"] and of.factors == {
        "lr": ["3e-05", "0.003"]
    }
    assert str(baseline_arm(of.arms)) == "Real, lr 3e-05"


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
    assert {"cohort.pixels", "model.pixels", "lr"} <= set(arrange(runs_below(tmp_path)).factors)
