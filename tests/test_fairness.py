import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from cmrcls.fairness import balanced_accuracy, gaps, table2, wide
from cmrdata.cohort import AXES

ARMS = ("Real", "Real + 2000", "Real + 4000", "Synthetic")


def runs(*, n=120, arms=ARMS, seeds=3, seed=0, prevalence=0.3) -> pd.DataFrame:
    """Predictions of all runs on one test split (and a val split that must not count)."""
    rng = np.random.default_rng(seed)
    facts = pd.DataFrame({
        "subject": [f"SYN{k:04d}" for k in range(n)],
        "split": "test",
        "label": (rng.random(n) < prevalence).astype(int),
        **{axis: rng.choice(bands, n) for axis, bands in AXES.items()},
    })  # fmt: skip
    facts.loc[:1, "label"] = [0, 1]
    val = facts.assign(split="val", subject="V" + facts.subject, label=1 - facts.label)
    both = pd.concat([facts, val], ignore_index=True)
    both["group"] = both.sex + "/" + both.age_band + "/" + both.bmi_band
    parts = [both.assign(arm=arm, seed=s, probability=rng.random(2 * n)) for arm in arms for s in range(seeds)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("seed", range(20))
def test_balanced_accuracy_equals_sklearn(seed):
    rng = np.random.default_rng(seed)
    label, predicted = rng.integers(0, 2, (2, rng.integers(1, 12)))
    score = balanced_accuracy(label, predicted)
    if len(set(label)) == 1:
        assert np.isnan(score)
    else:
        assert score == pytest.approx(balanced_accuracy_score(label, predicted))


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_equals_sklearn_and_numpy(seed):
    table = runs(seed=seed, n=40, prevalence=0.1, arms=ARMS[:2])  # small: some groups lack positives
    test = table[table.split == "test"]
    result = table2(table)
    assert len(result) == 9 * 2
    names = {"Female": ("sex", "F"), "Male": ("sex", "M"), "Normal BMI": ("bmi_band", "normal"),
             "Overweight": ("bmi_band", "overweight"), "Obese": ("bmi_band", "obese"), "Age < 60": ("age_band", "<60"),
             "Age 60-70": ("age_band", "60-70"), "Age > 70": ("age_band", "70+")}  # fmt: skip
    for row in result.itertuples():
        part = test if row.subgroup == "Overall" else test[test[names[row.subgroup][0]] == names[row.subgroup][1]]
        part = part[part.arm == row.arm]
        one = part[part.seed == 0]
        assert (row.n, row.positives, row.seeds) == (len(one), one.label.sum(), 3)
        assert row.prevalence == pytest.approx(one.label.mean())
        if one.label.nunique() == 1:
            assert np.isnan(row.balanced_accuracy) and np.isnan(row.sd)
            continue
        scores = [balanced_accuracy_score(run.label, run.probability > 0.5) for _, run in part.groupby("seed")]
        assert row.balanced_accuracy == pytest.approx(np.mean(scores))
        assert row.sd == pytest.approx(np.std(scores, ddof=1))


def test_rows_and_columns_are_the_papers():
    shown = wide(table2(runs()))
    assert shown.subgroup.tolist() == ["Overall", "Female", "Male", "Normal BMI", "Overweight", "Obese",
                                       "Age < 60", "Age 60-70", "Age > 70"]  # fmt: skip
    assert shown.columns.tolist() == ["subgroup", "n", "positives", "prevalence", *ARMS]
    assert shown[list(ARMS)].stack().str.fullmatch(r"0\.\d{3} ± 0\.\d{3}").all()
    assert shown.prevalence.str.endswith("%").all() and shown.attrs["refused"] == []


def test_one_class_and_empty_subgroups_stay_visible():
    table = runs(seeds=2, arms=ARMS[:1])
    table = table[table.bmi_band != "overweight"]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 1
    table = table[~((table.sex == "F") & (table.age_band == "<60"))]
    result = table2(table)
    cells = wide(result).set_index("subgroup")["Real"]
    assert cells["Female"] == "n/a (no positives)"
    assert cells["Age < 60"] == "n/a (no negatives)"
    assert cells["Overweight"] == "n/a (no subjects)"
    gap = gaps(result).set_index(["axis", "arm"])
    assert gap.loc[("sex", "Real"), "left_out"] == "Female" and np.isnan(gap.loc[("sex", "Real"), "gap"])
    assert gap.loc[("bmi_band", "Real"), "left_out"] == "Overweight"
    assert gap.loc[("bmi_band", "Real"), "gap"] > 0


def test_one_seed_has_no_spread():
    result = table2(runs(seeds=1, arms=("Real",)))
    assert result.sd.isna().all() and (result.seeds == 1).all()
    assert wide(result)["Real"].str.endswith("(1 seed)").all()


def test_gaps_of_the_papers_sex_rows():
    """Table 2: the gap between men and women falls by 37 % from Real to Real + 4000."""
    table = pd.DataFrame(
        [("Female", "sex", "Real", 0.649), ("Male", "sex", "Real", 0.733), ("Female", "sex", "Real + 4000", 0.664),
         ("Male", "sex", "Real + 4000", 0.717), ("Overall", "overall", "Real", 0.740)],
        columns=["subgroup", "axis", "arm", "balanced_accuracy"],
    )  # fmt: skip
    found = gaps(table).set_index("arm")
    assert found.worst.tolist() == ["Female", "Female"] and found.best.tolist() == ["Male", "Male"]
    assert found.gap.tolist() == pytest.approx([0.084, 0.053])
    assert 1 - found.gap["Real + 4000"] / found.gap["Real"] == pytest.approx(0.37, abs=0.005)


def test_unknown_axes_are_refused_in_a_sentence():
    table = runs().drop(columns="age_band").assign(sex=np.nan, bmi_band="obese")
    result = table2(table)
    assert result.subgroup.unique().tolist() == ["Overall"]
    assert result.attrs["refused"] == [
        "sex: unknown for all 120 test subjects, so it has no rows.",
        "bmi_band: all test subjects whose bmi_band is known are 'obese': nothing to compare.",
        "age_band: unknown for all 120 test subjects, so it has no rows.",
    ]
    assert gaps(result).empty and wide(result).attrs == result.attrs


def test_a_subject_without_an_attribute_counts_overall():
    table = runs(seeds=1, arms=ARMS[:1])
    table.loc[table.subject == "SYN0005", "sex"] = None
    n = table2(table).drop_duplicates("subgroup").set_index("subgroup").n
    assert n["Overall"] == 120 and n["Female"] + n["Male"] == 119
    assert n[["Normal BMI", "Overweight", "Obese"]].sum() == 120


def test_arms_may_have_different_numbers_of_seeds():
    table = runs()
    table = table[(table.arm != "Synthetic") | (table.seed == 0)]
    assert table2(table).groupby("arm").seeds.first().to_dict() == {"Real": 3, "Real + 2000": 3, "Real + 4000": 3,
                                                                    "Synthetic": 1}  # fmt: skip


def test_a_table_read_from_disk_gives_the_same(tmp_path):
    table = runs(n=30, arms=ARMS[:2], seeds=2)
    table.loc[table.subject == "SYN0005", "sex"] = None
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_parquet(tmp_path / "p.parquet")
    expected = table2(table)
    for again in (pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(tmp_path / "p.parquet")):
        pd.testing.assert_frame_equal(table2(again), expected)


def _edit(column, value, **where):
    def apply(table):
        rows = pd.Series(True, index=table.index)
        for name, wanted in where.items():
            rows &= table[name] == wanted
        table[column] = table[column].astype(object)
        table.loc[rows, column] = value
        return table

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.drop(columns=["seed"]), r"lack the columns \['seed'\]; concatenate"),
        (lambda t: t[t.split == "val"], "none of the 1440 predictions is of the test split"),
        (_edit("probability", np.nan, subject="SYN0003", arm="Real", seed=1),
         r"arm 'Real' seed 1: probability of subject SYN0003 is nan \(1 such rows\); rerun"),
        (_edit("probability", 3.0, subject="SYN0003"), r"probability of subject SYN0003 is 3.0 \(12 such rows\)"),
        (_edit("label", 1, subject="SYN0000", arm="Synthetic", seed=2),
         "subject SYN0000: label is 1 in arm 'Synthetic' seed 2 but 0 in arm 'Real' seed 0"),
        (_edit("sex", "X", subject="SYN0000", seed=2), "subject SYN0000: sex is X in arm 'Real' seed 2 but"),
        (_edit("subject", "SYN9999", subject="SYN0007", seed=2), "different test splits: 2 subjects are in one only"),
        (lambda t: pd.concat([t, t.tail(121)]), "is predicted twice; give each run's table once"),
        (_edit("label", 0), "all 120 test subjects have label 0: balanced accuracy is undefined; choose"),
        (_edit("label", np.nan, subject="SYN0004"), "subject SYN0004: label is nan; a test subject has 0 or 1"),
    ],
)  # fmt: skip
def test_incomparable_runs_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        table2(edit(runs()))
