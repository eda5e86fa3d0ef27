"""What runs differ in, and the arms' names made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from cmrcls.fairness import factors
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


def run(synthetic: Any = 0, *, keys: Sequence[str] = (), **facts: Any) -> Any:
    """A run by its settings, the keys a command named, its choices and its inputs."""
    given = {"choices": {}, "inputs": {}, "settings": {}, **facts}
    settings = {"synthetic": synthetic, **given.pop("settings")}
    return SimpleNamespace(record=SimpleNamespace(keys=set(keys), settings=settings, **given))


def of_set(at: str | None, kind: str, synthetic: Any = 9) -> Any:
    return run(synthetic, inputs={"synthetic_set": {"at": at, "kind": kind}})


def test_the_value_of_a_factor_is_a_choice_a_setting_or_a_set() -> None:
    one = run(9, settings={"lr": 0.5, "mitigation": "kept"}, choices={"mitigation": "groupdro"})
    assert factors.value_of(one, "mitigation") == "groupdro" and factors.value_of(one, "lr") == 0.5
    assert factors.value_of(one, "synthetic_set") is None and factors.value_of(one, "x") is None
    assert factors.value_of(of_set("a/0", "k"), "synthetic_set") == "k"
    real, some, other = run(), of_set("a/0", "k"), of_set("b/0", "l")
    assert not factors._differs([real, some], "synthetic_set")  # real images have none
    assert factors._differs([real, some, other], "synthetic_set")
    assert factors._differs([one, run()], "lr") and not factors._differs([real, run()], "lr")


def test_what_follows_from_known_factors() -> None:
    runs = [run(settings={"a": a, "b": b, "c": a * 2}) for a in (1, 2) for b in (1, 2)]
    assert factors._follows(runs, "c", ["a"]) and factors._follows(runs, "c", ["a", "b"])
    assert not factors._follows(runs, "c", ["b"]) and not factors._follows(runs, "c", [])


def test_titles_are_short_where_that_is_enough() -> None:
    keys = ["synthetic", "synthetic_set", "model.lr", "model.pixels", "cohort.pixels", "budget"]
    assert factors.titles(keys) == {
        **{"synthetic": "synthetic images", "synthetic_set": "synthetic set", "model.lr": "lr"},
        **{"model.pixels": "model.pixels", "cohort.pixels": "cohort.pixels", "budget": "budget"},
    }


def test_an_arms_name_has_the_values_that_are_not_the_experiments_own() -> None:
    called = factors.titles(["synthetic", "synthetic_set", "mitigation", "model.lr"])
    runs = [
        run(0, settings={"model.lr": 1e-3}),
        run("only", keys=["model.lr"], settings={"model.lr": 3e-4}),
        run(0, keys=["mitigation"], choices={"mitigation": "groupdro"}),
        of_set("/runs/synthetic/a/0", "k"),
        of_set(None, "l"),
    ]
    assert factors.arm_names(runs, called) == [
        ("Real", True),
        ("Synthetic, lr 0.0003", False),
        ("Real, groupdro", False),
        ("Real + 9, set a/0", False),
        ("Real + 9, set unknown", False),
    ]
    # of one name: what they differ in stands behind it
    alike = [run(0, settings={"model.lr": value}) for value in (0.5, 1.0)]
    assert factors.arm_names(alike, called) == [("Real, lr 0.5", False), ("Real, lr 1", False)]
    words = factors.values_in_words([*runs[3:], runs[3]], "synthetic_set")
    assert words == ["a/0", "unknown"]
    assert factors.values_in_words(alike, "model.lr") == ["0.5", "1"]
    assert [factors._short(value) for value in (0.1234567, 2.0, True, "x")] == [
        *("0.1234567", "2", "True", "x"),
    ]


def test_arms_stand_by_their_factors_and_then_by_their_amount() -> None:
    named = {"keys": ["lr"]}
    runs = [
        run("only"),
        run(2000),
        run(36),
        run(0),
        run(0, settings={"lr": 10}, **named),
        run("only", settings={"lr": 9}, **named),
        run(0, settings={"lr": 9}, **named),
        run(0, settings={"lr": "high"}, **named),
    ]
    ordered = sorted(runs, key=lambda one: factors.sort_key(one, ["synthetic", "lr"]))
    assert [
        (one.record.settings["synthetic"], one.record.settings.get("lr")) for one in ordered
    ] == [
        *[(0, None), (36, None), (2000, None), ("only", None)],
        *[(0, "high"), (0, 9), ("only", 9), (0, 10)],
    ]
    # true is no number
    flags = [run(settings={"flag": value}, keys=["flag"]) for value in (True, False)]
    ordered = sorted(flags, key=lambda one: factors.sort_key(one, ["flag"]))
    assert [one.record.settings["flag"] for one in ordered] == [False, True]
