"""Table 2, calibration and confusion beside scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from cmrcls.fairness.display.tables import table2_shown
from cmrcls.fairness.metrics import scored
from cmrcls.fairness.study import (
    by_seed,
    confusion_table,
    reliability_table,
    table2,
)
from cmrstudy import paper
from support.fake_runs import (
    ARMS,
    one_study,
    runs,
    small,
)
from support.printed import rows_of, wide


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_equals_sklearn_and_numpy(seed):
    # small: some groups lack positives
    table = runs(seed=seed, n=40, prevalence=0.1, arms=ARMS[:2])
    test = table[table.split == "test"]
    result = rows_of(one_study(table))
    assert len(result) == 9 * 2
    names = {
        "Female": ("sex", "F"),
        "Male": ("sex", "M"),
        "Normal BMI": ("bmi_band", "normal"),
        "Overweight": ("bmi_band", "overweight"),
        "Obese": ("bmi_band", "obese"),
        "Age < 60": ("age_band", "<60"),
        "Age 60-70": ("age_band", "60-70"),
        "Age > 70": ("age_band", "70+"),
    }
    for row in result.itertuples():
        part = (
            test
            if row.subgroup == "Overall"
            else test[test[names[row.subgroup][0]] == names[row.subgroup][1]]
        )
        part = part[part.arm == row.arm]
        one = part[part.seed == 0]
        assert (row.n, row.positives, row.seeds) == (len(one), one.label.sum(), 3)
        assert row.prevalence == pytest.approx(one.label.mean())
        if one.label.nunique() == 1:
            assert np.isnan(row.balanced_accuracy) and np.isnan(row.sd)
            continue
        scores = [
            balanced_accuracy_score(run.label, run.probability > 0.5)
            for _, run in part.groupby("seed")
        ]
        assert row.balanced_accuracy == pytest.approx(np.mean(scores))
        assert row.sd == pytest.approx(np.std(scores, ddof=1))


def test_one_seed_has_no_spread():
    result = table2(one_study(runs(seeds=1, arms=("Real",))))
    assert result.rows.sd.isna().all() and (result.rows.seeds == 1).all()
    assert wide(result)["Real"].str.endswith("(1 run)").all()


def test_unknown_axes_are_refused_in_a_sentence():
    table = runs().drop(columns="age_band").assign(sex=np.nan, bmi_band="obese")
    result = table2(one_study(table))
    assert result.rows.subgroup.unique().tolist() == ["Overall"]
    assert result.refused == [
        "sex: unknown for all 120 test subjects, so it has no rows.",
        "bmi_band: all test subjects whose bmi_band is known are 'obese': nothing to compare.",
        "age_band: unknown for all 120 test subjects, so it has no rows.",
    ]
    notes = table2_shown(result, "").notes
    assert notes == [f"Left out: {reason}" for reason in result.refused]


def test_a_subject_without_an_attribute_counts_overall():
    table = runs(seeds=1, arms=ARMS[:1])
    table.loc[table.subject == "SYN0005", "sex"] = None
    n = rows_of(one_study(table)).drop_duplicates("subgroup").set_index("subgroup").n
    assert n["Overall"] == 120 and n["Female"] + n["Male"] == 119
    assert n[["Normal BMI", "Overweight", "Obese"]].sum() == 120


def test_arms_may_have_different_numbers_of_seeds():
    table = runs()
    table = table[(table.arm != "Synthetic") | (table.seed == 0)]
    assert rows_of(one_study(table)).groupby("arm").seeds.first().to_dict() == {
        "Real": 3,
        "Real + 2000": 3,
        "Real + 4000": 3,
        "Synthetic": 1,
    }


def test_a_table_read_from_disk_gives_the_same(tmp_path):
    table = runs(n=30, arms=ARMS[:2], seeds=2)
    table.loc[table.subject == "SYN0005", "sex"] = None
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_parquet(tmp_path / "p.parquet")
    expected = rows_of(one_study(table))
    for again in (pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(tmp_path / "p.parquet")):
        pd.testing.assert_frame_equal(rows_of(one_study(again)), expected)


def test_folds_are_pooled_and_a_run_without_one_is_left_out():
    table = runs(seeds=2, arms=ARMS[:2])
    folded = table.assign(fold=table.subject.str[-1].astype(int) % 3)
    pd.testing.assert_frame_equal(rows_of(one_study(folded)), rows_of(one_study(table)))
    lacking = folded[(folded.seed == 0) | (folded.arm != "Real") | (folded.fold != 2)]
    assert table2(one_study(lacking)).warnings[0] == (
        "Left out: arm 'Real' seed 1: it lacks fold 2, which others have; run it."
    )


def test_a_decision_overrides_the_threshold():
    table = runs(seeds=1, arms=("Real",))
    turned = table.assign(predicted=(table.probability <= 0.5).astype(int))
    assert rows_of(one_study(turned)).balanced_accuracy.to_numpy() == pytest.approx(
        1 - rows_of(one_study(table)).balanced_accuracy
    )


def test_a_further_axis_has_its_values_as_rows():
    table = runs(seeds=1, arms=("Real",))
    table["source"] = np.where(table.subject.str[-1].astype(int) % 2, "b", "a")
    found = rows_of(one_study(table, axes=("source",)), axes=("source",))
    assert found.subgroup.tolist()[-2:] == ["Source a", "Source b"] and found.n.tolist()[-2:] == [
        60,
        60,
    ]
    with pytest.raises(ValueError, match="no column 'townsend'; an axis is one of sex, .*source"):
        one_study(table, axes=("townsend",))
    with pytest.raises(
        ValueError, match="axes: code has 240 different values; subgroups are compared up to 20"
    ):
        one_study(table.assign(code=table.subject), axes=("code",))


def test_tests_compare_seed_by_seed():
    one = small(seeds=3, arms=ARMS)
    scores = by_seed(one, scored("balanced_accuracy", one.predicted).value)
    assert scores.shape == (3, 4) and list(map(str, scores.columns)) == list(ARMS)
    expected = balanced_accuracy_score(one.subjects.label, one.decision[:, 1])
    assert scores.loc["1", one.arms[0]] == pytest.approx(expected)


def test_confusion_and_calibration_add_up():
    one = small(seeds=2)
    counts = confusion_table(one)
    assert (counts.tp + counts.fn == counts.positives).all()
    assert (counts[["tp", "fn", "fp", "tn"]].sum(axis=1) == counts.n).all()
    bins = reliability_table(one).groupby("arm").n.sum()
    assert (bins == 2 * 400).all()


def test_the_papers_numbers_are_whole():
    table = paper.table2()
    assert len(table) == 36 and len(paper.table1()) == 24
    score = table.set_index(["subgroup", "arm"]).balanced_accuracy
    gap = {arm: score["Male", arm] - score["Female", arm] for arm in paper.ARMS}
    assert 1 - gap["Real + 4000"] / gap["Real"] == pytest.approx(paper.GAP_REDUCTION, abs=0.005)
