"""Which runs may be compared, what is refused, and that a table is read once."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.classifier_runs import runs_below
from cmrcls.fairness.display.tables import table2_shown
from cmrcls.fairness.grid import arrange
from cmrcls.fairness.predictions import check_usable, read
from cmrcls.fairness.study import (
    confusion_table,
    table2,
)
from cmrstudy import runs
from support.classifier_folders import stores, write
from support.fake_runs import (
    ARMS,
    edited,
    one_study,
    runs,
    studies,
)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[t.split == "val"], "none of the 1440 predictions is of the test split"),
        (
            edited("probability", 3.0, subject="SYN0003"),
            r"no run is left.*probability of the subject in row 3 is 3.0 \(1 such row\); rerun.*\(and 11 more\)",
        ),
        (
            edited("label", 1, subject="SYN0000", arm="Synthetic", seed=2),
            r"label of 1 test subject differs between runs \(the first: 1 in arm 'Synthetic' seed 2, 0 in arm 'Real' seed 0\)",
        ),
        (
            edited("sex", "X", subject="SYN0000", seed=2),
            "sex of 1 test subject differs between runs .the first: X in arm 'Real' seed 2, ",
        ),
        (
            edited("subject", "SYN9999", subject="SYN0007", seed=2),
            "different test splits: 2 subjects are in one only",
        ),
        (lambda t: pd.concat([t, t.tail(121)]), "predicted twice; give each run's table once"),
        (
            edited("label", 0),
            "all 120 test subjects have label 0: balanced accuracy is undefined; choose",
        ),
        (
            edited("label", np.nan, subject="SYN0004"),
            r"test subjects? with a label that is neither 0 nor 1 \(the first: nan\)",
        ),
    ],
)
def test_incomparable_runs_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        table2(one_study(edit(runs())))


def test_a_damaged_run_is_left_out_by_name():
    table = edited("probability", np.nan, subject="SYN0003", arm="Real", seed=1)(runs())
    table["probability"] = table.probability.astype(float)
    result = table2(one_study(table))
    without = runs()[lambda t: (t.arm != "Real") | (t.seed != 1)]
    pd.testing.assert_frame_equal(result.rows, table2(one_study(without)).rows)
    assert result.warnings == [
        "Left out: arm 'Real' seed 1: probability of the subject in row 3 is nan (1 such row); rerun that run, it diverged or "
        "its table is damaged.",
        "Arm 'Real' has no run of seed 1, which other arms have.",
    ]
    assert table2_shown(result, "").notes == result.warnings


def test_unknown_subjects_are_counted_and_their_names_kept():
    table, cohort = runs(seeds=2, arms=ARMS[:2]), [f"SYN{k:04d}" for k in range(120)]
    table.loc[
        (table.arm == "Real") & (table.seed == 1) & (table.subject == "SYN0003"), "subject"
    ] = "a real id"
    note = one_study(table, subjects=cohort).warnings[0]
    assert note.startswith(
        "Left out: arm 'Real' seed 1: 1 of its 120 test subjects are not in the cohort"
    )
    assert "a real id" not in note
    with pytest.raises(
        ValueError, match="no run is left to compare. arm 'Real' seed 0: 120 of its 120"
    ):
        one_study(table, subjects=["SYN9999"])


def test_different_splits_are_refused_by_name():
    same = {("Real", "0"): "aa", ("Synthetic", "0"): "aa"}
    one_study(runs(), splits=same)
    with pytest.raises(
        ValueError, match=r"2 different splits: arm 'Synthetic' seed 2 \(1 such run\) was split"
    ):
        one_study(runs(), splits=same | {("Synthetic", "2"): "bb"})


def test_every_disease_is_a_study_of_its_own():
    table = pd.concat([runs(seeds=1).assign(disease=d) for d in ("hf", "mi")])
    assert [one.disease for one in studies(table)] == ["hf", "mi"]


# from run folders


def test_predictions_are_read_once_with_arm_seed_fold_and_split(tmp_path):
    for seed in (1, 0):
        write(tmp_path, 0, seed, fold=3)
    (one,) = read(arrange(runs_below(tmp_path)), stores)
    assert (
        one.runs.seed.tolist() == ["0", "1"]
        and list(map(str, one.arms)) == ["Real"]
        and one.baseline == one.arms[0]
    )
    assert one.subjects.subject.tolist() == [f"HERE{k}" for k in range(8)]  # by rows, not by names
    assert set(one.subjects.fold) == {3} and one.probability.shape == (8, 2)
    copy = tmp_path / "a-copy" / "1"
    shutil.copytree(tmp_path / "synthetic-0-fold-3" / "1", copy)
    with pytest.raises(
        ValueError, match=r"(a-copy|synthetic-0)\S*/1 and \S+/1 are both arm 'Real' seed 1 fold 3"
    ):
        read(arrange(runs_below(tmp_path)), stores)
    shutil.rmtree(copy.parent)
    with pytest.raises(ValueError, match="no finished classifier runs"):
        read(arrange(runs_below(tmp_path / "nowhere")), stores)


def test_seeds_are_in_the_order_of_numbers(tmp_path):
    for seed in (10, 2):
        write(tmp_path, 0, seed)
    assert read(arrange(runs_below(tmp_path)), stores)[0].runs.seed.tolist() == ["2", "10"]


def test_predictions_of_runs_in_another_order_are_put_in_one(tmp_path):
    write(tmp_path, 0, 0)
    path = write(tmp_path, 0, 1) / "predictions.csv"
    turned = pd.read_csv(path).iloc[::-1]
    turned.assign(probability=turned.row / 10).to_csv(path, index=False)
    (one,) = read(arrange(runs_below(tmp_path)), stores)
    assert one.probability[:, 1].tolist() == pytest.approx([k / 10 for k in range(8)])


def test_a_table_without_a_column_is_named_by_its_run(tmp_path):
    path = write(tmp_path, 0, 0) / "predictions.csv"
    pd.read_csv(path).drop(columns="predicted").to_csv(path, index=False)
    with pytest.raises(
        ValueError, match=r"synthetic-0/0: predictions.csv lacks the columns \['predicted'\]"
    ):
        read(arrange(runs_below(tmp_path)), stores)


def test_each_table_is_read_once_whatever_is_made_of_it(tmp_path, monkeypatch):
    for seed in range(3):
        write(tmp_path, 0, seed)
    opened = []
    read_csv = pd.read_csv
    monkeypatch.setattr(
        pd, "read_csv", lambda path, **options: opened.append(path) or read_csv(path, **options)
    )
    (one,) = read(arrange(runs_below(tmp_path)), stores)
    table2(one), confusion_table(one), one.weights
    assert sorted(map(str, opened)) == sorted(map(str, tmp_path.glob("*/*/predictions.csv")))
    assert len(opened) == 3


def test_finished_runs_of_which_none_may_be_used_are_refused(tmp_path):
    write(tmp_path, 0, 0)
    write(tmp_path, 9, 0, state="failed")
    found = runs_below(tmp_path)
    names = {"cohort": "phantom", "folder": "runs/classifier"}
    check_usable(found, found, [], **names)
    failed = [run for run in found if run.record.state == "failed"]
    check_usable(failed, [], [], **names)  # nothing is finished: nothing to refuse
    with pytest.raises(
        ValueError, match="none of the finished runs below runs/classifier .* phantom: Left out: a"
    ):
        check_usable(found, failed, ["Left out: a."], **names)
