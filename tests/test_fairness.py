import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as peers
from sklearn.metrics import balanced_accuracy_score

from cmrcls.cells import accuracy_answers
from cmrcls.comparable import Predictions, comparable
from cmrcls.disparities import FEWEST, measure
from cmrcls.fairness import table2, wide
from cmrcls.sections import fairness
from cmrcls.study import Study, calibration, confusion, seed_scores, study, subgroups_of
from cmrdata.cohort import AXES
from cmrstudy import paper
from cmrstudy.report import report_html

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


def given(table: pd.DataFrame, *, splits: dict | None = None, baseline: str | None = "Real") -> Predictions:
    """The table as `comparable.read` gives it: of one disease and without folds, unless it says otherwise."""
    usual = {"disease": "hf", "fold": np.nan, "predicted": (table.probability > 0.5).astype(float)}
    table = table.assign(
        **{name: value for name, value in usual.items() if name not in table}, seed=table.seed.astype(str)
    )
    arms = [arm for arm in ARMS if arm in set(table.arm)] or list(dict.fromkeys(table.arm))
    return Predictions(table, arms, baseline if baseline in arms else None, splits or {})


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_equals_sklearn_and_numpy(seed):
    table = runs(seed=seed, n=40, prevalence=0.1, arms=ARMS[:2])  # small: some groups lack positives
    test = table[table.split == "test"]
    result = table2(given(table))
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
    shown = wide(table2(given(runs())))
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
    result = table2(given(table))
    cells = wide(result).set_index("subgroup")["Real"]
    assert cells["Female"] == "n/a (no positives)"
    assert cells["Age < 60"] == "n/a (no negatives)"
    assert cells["Overweight"] == "n/a (no subjects)"


def test_one_seed_has_no_spread():
    result = table2(given(runs(seeds=1, arms=("Real",))))
    assert result.sd.isna().all() and (result.seeds == 1).all()
    assert wide(result)["Real"].str.endswith("(1 seed)").all()


def test_unknown_axes_are_refused_in_a_sentence():
    table = runs().drop(columns="age_band").assign(sex=np.nan, bmi_band="obese")
    result = table2(given(table))
    assert result.subgroup.unique().tolist() == ["Overall"]
    assert result.attrs["refused"] == [
        "sex: unknown for all 120 test subjects, so it has no rows.",
        "bmi_band: all test subjects whose bmi_band is known are 'obese': nothing to compare.",
        "age_band: unknown for all 120 test subjects, so it has no rows.",
    ]
    assert wide(result).attrs == result.attrs


def test_a_subject_without_an_attribute_counts_overall():
    table = runs(seeds=1, arms=ARMS[:1])
    table.loc[table.subject == "SYN0005", "sex"] = None
    n = table2(given(table)).drop_duplicates("subgroup").set_index("subgroup").n
    assert n["Overall"] == 120 and n["Female"] + n["Male"] == 119
    assert n[["Normal BMI", "Overweight", "Obese"]].sum() == 120


def test_arms_may_have_different_numbers_of_seeds():
    table = runs()
    table = table[(table.arm != "Synthetic") | (table.seed == 0)]
    assert table2(given(table)).groupby("arm").seeds.first().to_dict() == {"Real": 3, "Real + 2000": 3, "Real + 4000": 3,
                                                                    "Synthetic": 1}  # fmt: skip


def test_a_table_read_from_disk_gives_the_same(tmp_path):
    table = runs(n=30, arms=ARMS[:2], seeds=2)
    table.loc[table.subject == "SYN0005", "sex"] = None
    table.to_csv(tmp_path / "p.csv", index=False)
    table.to_parquet(tmp_path / "p.parquet")
    expected = table2(given(table))
    for again in (pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(tmp_path / "p.parquet")):
        pd.testing.assert_frame_equal(table2(given(again)), expected)


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
        (lambda t: t[t.split == "val"], "none of the 1440 predictions is of the test split"),
        (_edit("probability", 3.0, subject="SYN0003"),
         r"no run is left.*probability of subject SYN0003 is 3.0 \(1 such rows\); rerun.*\(and 11 more\)"),
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
        table2(given(edit(runs())))


def test_a_damaged_run_is_left_out_by_name():
    table = _edit("probability", np.nan, subject="SYN0003", arm="Real", seed=1)(runs())
    table["probability"] = table.probability.astype(float)
    result = table2(given(table))
    without = runs()[lambda t: (t.arm != "Real") | (t.seed != 1)]
    pd.testing.assert_frame_equal(result, table2(given(without)))
    assert result.attrs["warnings"] == [
        "Left out: arm 'Real' seed 1: probability of subject SYN0003 is nan (1 such rows); rerun that run, it diverged or "
        "its table is damaged.",
        "Arm 'Real' has no run of seed 1, which other arms have.",
    ]
    assert wide(result).attrs["warnings"] == result.attrs["warnings"]


def test_unknown_subjects_are_counted_and_their_names_kept():
    table, cohort = runs(seeds=2, arms=ARMS[:2]), [f"SYN{k:04d}" for k in range(120)]
    table.loc[(table.arm == "Real") & (table.seed == 1) & (table.subject == "SYN0003"), "subject"] = "a real id"
    note = comparable(given(table), subjects=cohort).attrs["warnings"][0]
    assert note.startswith("Left out: arm 'Real' seed 1: 1 of its 120 test subjects are not in the cohort")
    assert "a real id" not in note
    with pytest.raises(ValueError, match="no run is left to compare. arm 'Real' seed 0: 120 of its 120"):
        comparable(given(table), subjects=["SYN9999"])


def test_different_splits_are_refused_by_name():
    same = {("Real", "", "0"): "aa", ("Synthetic", "", "0"): "aa", ("Real + 2000", "3", "1"): "cc"}
    comparable(given(runs(), splits=same))  # another fold may be another split
    with pytest.raises(ValueError, match=r"2 different splits: arm 'Real, lr 1' seed 4 \(1 such runs\) was split"):
        comparable(given(runs(), splits=same | {("Real, lr 1", "", "4"): "bb"}))


def test_folds_are_pooled_and_a_run_without_one_is_left_out():
    table = runs(seeds=2, arms=ARMS[:2])
    folded = table.assign(fold=table.subject.str[-1].astype(int) % 3)
    pd.testing.assert_frame_equal(table2(given(folded)), table2(given(table)))
    lacking = folded[(folded.seed == 0) | (folded.arm != "Real") | (folded.fold != 2)]
    assert table2(given(lacking)).attrs["warnings"][0] == (
        "Left out: arm 'Real' seed 1: it lacks fold 2, which others have; run it."
    )


def test_one_disease_at_a_time():
    table = pd.concat([runs(seeds=1).assign(disease=d) for d in ("hf", "mi")])
    with pytest.raises(ValueError, match="predictions are of hf, mi; compare one disease at a time"):
        table2(given(table))


def test_a_decision_overrides_the_threshold():
    table = runs(seeds=1, arms=("Real",))
    turned = table.assign(predicted=(table.probability <= 0.5).astype(int))
    assert table2(given(turned)).balanced_accuracy.to_numpy() == pytest.approx(
        1 - table2(given(table)).balanced_accuracy
    )


def test_a_further_axis_has_its_values_as_rows():
    table = runs(seeds=1, arms=("Real",))
    table["source"] = np.where(table.subject.str[-1].astype(int) % 2, "b", "a")
    found = table2(given(table), axes=("source",))
    assert found.subgroup.tolist()[-2:] == ["Source a", "Source b"] and found.n.tolist()[-2:] == [60, 60]
    with pytest.raises(ValueError, match="no column 'townsend'; an axis is one of sex, .*source"):
        table2(given(table), axes=("townsend",))
    with pytest.raises(ValueError, match="axes: code has 240 different values; subgroups are compared up to 20"):
        table2(given(table.assign(code=table.subject)), axes=("code",))


def small(*, arms=("Real", "Real + 2000"), seeds=1, n=400, seed=0, prevalence=0.3) -> Study:
    return study(
        comparable(given(runs(n=n, arms=arms, seeds=seeds, seed=seed, prevalence=prevalence))), baseline="Real"
    )


@pytest.mark.parametrize("seed", range(4))
def test_fairness_measures_equal_fairlearn(seed):
    one = small(seed=seed, arms=("Real",), n=150)
    rows = measure(one, resamples=8).disparities.set_index(["axis", "measure"])
    label, decided = one.subjects.label, one.decision[:, 0]
    for axis in AXES:
        pair = {"sensitive_features": one.subjects[axis]}
        for name, peer in (("demographic_parity", "demographic_parity"), ("equal_opportunity", "equal_opportunity"),
                           ("equalised_odds", "equalized_odds")):  # fmt: skip
            row = rows.loc[axis, name]
            assert row.difference == pytest.approx(getattr(peers, f"{peer}_difference")(label, decided, **pair)), name
            assert row.ratio == pytest.approx(getattr(peers, f"{peer}_ratio")(label, decided, **pair)), name


def test_gap_and_reduction_by_hand():
    """Men: 0.9 and 0.8; women: 0.7 and 0.7. The gap falls from 0.2 to 0.1, a half."""
    label = np.tile(np.repeat([1, 0], 100), 2)
    subjects = pd.DataFrame({"label": label, "sex": np.repeat(["M", "F"], 200)})
    right = np.concatenate([np.arange(100) < k for k in (90, 90, 70, 70, 80, 80, 70, 70)]).reshape(2, 400).T
    decision = np.where(right, label[:, None], 1 - label[:, None]).astype(float)
    made = Study(subjects, np.array(["Real", "Real + 2000"]), np.array([0, 0]), decision, decision, "Real")
    gap = measure(made, resamples=500).disparities.query("measure == 'balanced_accuracy'").set_index("arm")
    assert gap.difference.tolist() == pytest.approx([0.2, 0.1]) and gap.lowest.tolist() == ["Female"] * 2
    more = gap.loc["Real + 2000"]
    assert (more.change, more.reduction) == (pytest.approx(-0.1), pytest.approx(0.5))
    assert more.change_low < -0.1 < more.change_high and more.reduction_low < 0.5 < more.reduction_high
    assert gap.low["Real"] > 0.1 and gap.high["Real"] < 0.3


def test_every_number_has_n_and_an_interval_around_it():
    rows = measure(small(seeds=4, n=600), resamples=400).subgroups
    single = rows[~rows.axis.str.contains(" x ")]
    assert single[["n", "positives", "seeds", "mean", "sd"]].notna().all(axis=None)
    told = single[single.note == ""]
    assert len(told) > 100 and (told.low <= told["mean"]).all() and (told["mean"] <= told.high).all()
    table = rows[(rows.metric == "balanced_accuracy") & (rows.subgroup == "Overall")].set_index("arm")
    assert table["mean"].to_dict() == pytest.approx(
        table2(given(runs(n=600, arms=ARMS[:2], seeds=4)))
        .query("axis == 'overall'")
        .set_index("arm")
        .balanced_accuracy.to_dict()
    )


def test_small_groups_have_words_in_place_of_an_interval():
    found = measure(small(n=150, prevalence=0.15), resamples=40)
    rows = found.subgroups[found.subgroups.metric == "sensitivity"]
    few = rows[rows.positives < FEWEST]
    assert len(few) and few.low.isna().all()
    assert few.note.str.fullmatch(rf"rests on \d+ subjects, fewer than {FEWEST}").all()
    gap = found.disparities[
        (found.disparities.axis == "sex x bmi_band") & (found.disparities.measure == "balanced_accuracy")
    ]
    assert gap.low.isna().all() and gap.note.str.contains("fewer than").all()


def test_crossed_subgroups_divide_the_subjects():
    one = small(n=60)
    cells = subgroups_of(one.subjects)
    assert {axis: len(bands) for axis, bands in cells.items()} == {
        "overall": 1, "sex": 2, "bmi_band": 3, "age_band": 3, "sex x age_band": 6, "sex x bmi_band": 6,
        "age_band x bmi_band": 9, "sex x age_band x bmi_band": 18,
    }  # fmt: skip
    for bands in cells.values():
        assert (np.sum(list(bands.values()), axis=0) == 1).all()
    assert "Female, Age < 60, Obese" in cells["sex x age_band x bmi_band"]


def test_a_one_class_subgroup_is_left_out_of_gaps_by_name():
    table = runs(seeds=1, n=300)
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 0
    gap = measure(study(comparable(given(table))), resamples=8).disparities.set_index(["axis", "measure", "arm"])
    assert gap.loc[("age_band", "balanced_accuracy", "Real"), "left_out"] == "Age < 60"
    assert gap.loc[("age_band", "demographic_parity", "Real"), "left_out"] == ""


@pytest.mark.slow  # seconds
def test_repeating_seeds_does_not_shrink_and_renaming_them_does_not_change_intervals():
    one = small(seeds=3, n=300)
    rows = measure(one, resamples=200).subgroups
    renamed = measure(one._replace(seeds=np.array([f"7{seed}" for seed in one.seeds])), resamples=200).subgroups
    pd.testing.assert_frame_equal(rows, renamed)
    lone = small(seeds=1, n=300, arms=("Real",))
    many = Study(
        lone.subjects, np.repeat(lone.arms, 5), np.arange(5), lone.probability.repeat(5, 1), lone.decision.repeat(5, 1)
    )
    once, more = (measure(s, resamples=200).subgroups for s in (lone, many))
    np.testing.assert_allclose(once.high - once.low, more.high - more.low, atol=1e-5)


def test_tests_compare_seed_by_seed():
    one = small(seeds=3, arms=ARMS)
    scores = seed_scores(one)
    assert set(scores) == {"overall"} | {f"{kind} {axis}" for kind in ("worst", "gap") for axis in AXES}
    assert scores["overall"].shape == (3, 4) and scores["overall"].columns.tolist() == list(ARMS)
    expected = balanced_accuracy_score(one.subjects.label, one.decision[:, 1])
    assert scores["overall"].loc["1", "Real"] == pytest.approx(expected)


def test_confusion_and_calibration_add_up():
    one = small(seeds=2)
    counts = confusion(one)
    assert (counts.tp + counts.fn == counts.positives).all()
    assert (counts[["tp", "fn", "fp", "tn"]].sum(axis=1) == counts.n).all()
    bins = calibration(one).groupby("arm").n.sum()
    assert (bins == 2 * 400).all()


def test_the_papers_numbers_are_whole():
    table = paper.table2()
    assert len(table) == 36 and len(paper.table1()) == 24
    score = table.set_index(["subgroup", "arm"]).balanced_accuracy
    gap = {arm: score["Male", arm] - score["Female", arm] for arm in paper.ARMS}
    assert 1 - gap["Real + 4000"] / gap["Real"] == pytest.approx(paper.GAP_REDUCTION, abs=0.005)


@pytest.mark.slow  # seconds; test_study writes them too
def test_sections_write_what_they_show(tmp_path):
    table = runs(seeds=3, n=120, arms=("Real", "Real + 2000", "Synthetic"))
    table.loc[(table.arm == "Synthetic") & (table.seed == 0) & (table.subject == "SYN0003"), "probability"] = np.nan
    options = {"folder": tmp_path, "pictures": tmp_path / "figures", "resamples": 40}
    parts = fairness(given(table), {"cohort_name": "ukbb"}, **options)
    tables = {"table2", "gaps", "fairness", "metrics", "calibration", "confusion", "tests", "ranks"}
    assert {p.name for p in tmp_path.glob("*.*")} == {f"{t}.{kind}" for t in tables for kind in ("csv", "md", "tex")}
    drawn = {"table2_forest", "gaps", "calibration", "confusion", "critical_difference"}
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"fig_{d}.{kind}" for d in drawn for kind in ("png", "svg")
    }
    page = report_html(parts, title="t", facts={})
    for words in ("seed 0: probability of subject SYN0003 is nan", "Few seeds (the paper has 8): Real 3, Real + 2000 3, Synthetic 2.",
                  "underpowered: 3 pairs", "Real + 2000 (paper)", "37%"):  # fmt: skip
        assert words in page, words
    assert "Left out: arm" in (tmp_path / "table2.md").read_text()
    before = (tmp_path / "gaps.csv").read_bytes()
    other = fairness(given(table), {"cohort_name": "phantom"}, **options)
    assert (tmp_path / "gaps.csv").read_bytes() == before
    assert not any("paper)" in str(column) for part in other for shown in part.tables for column in shown)


@pytest.mark.slow  # seconds
def test_sections_of_several_diseases_and_of_one_run(tmp_path):
    table = pd.concat([runs(seeds=1, n=80, arms=("Real",)).assign(disease=d) for d in ("hf", "mi")])
    parts = fairness(given(table), {}, folder=tmp_path, pictures=tmp_path, resamples=8)
    assert [part.heading for part in parts[:5:4]] == ["Is the classifier fairer: hf?", "Is the classifier fairer: mi?"]
    assert (tmp_path / "table2_mi.csv").exists() and (tmp_path / "table2.csv").exists()
    assert any("One seed only in Real" in note for note in parts[0].warnings)
    assert "one arm only" in parts[3].warnings[0]


def test_sections_of_a_cohort_that_cannot_be_divided(tmp_path):
    table = runs(seeds=1, n=60, arms=("Synthetic",)).drop(columns=["age_band", "bmi_band"])
    lone = fairness(given(table.assign(sex="F")), {}, folder=tmp_path, pictures=tmp_path, resamples=8)
    assert lone[1].warnings == ["No axis has two subgroups to compare."]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    parts = fairness(given(table), {}, folder=tmp_path, pictures=tmp_path, resamples=8)
    assert "No arm to compare with" in parts[1].warnings[0]
    assert parts[1].tables[0].attrs["warnings"] == ["No interval: Sex: fewer than two subgroups where it is defined."]
    assert "Only one class in Female" in " ".join(parts[0].warnings)


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say():
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_study", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.coverage(studies=400, positives=40, seed=1).set_index("quantity").coverage
    found = found[["overall", "subgroup F", "subgroup M", "arm difference", "gap"]]
    error = 2 * (0.95 * 0.05 / 400) ** 0.5  # of 400 studies
    assert 0.93 <= found.mean() <= 0.97 and found.between(0.93 - error, 0.97 + error).all()


def test_the_answers_call_a_difference_more_than_chance_only_where_its_interval_leaves_zero():
    row = {"metric": "balanced_accuracy", "axis": "overall", "n": 1200, "positives": 53, "mean": 0.7, "low": 0.6}
    table = pd.DataFrame([
        {**row, "arm": "Real", "high": 0.8, "change": np.nan, "change_low": np.nan, "change_high": np.nan},
        {**row, "arm": "Real + 9", "high": 0.8, "change": 0.1, "change_low": 0.01, "change_high": 0.2},
        {**row, "arm": "Synthetic", "high": 0.8, "change": 0.1, "change_low": -0.01, "change_high": 0.2},
    ])  # fmt: skip
    told = accuracy_answers(table, baseline="Real")
    assert told[0] == ("Balanced accuracy: Real 0.700 [0.600, 0.800], Real + 9 0.700 [0.600, 0.800], "
                       "Synthetic 0.700 [0.600, 0.800]; n = 1,200, 53 diseased.")  # fmt: skip
    assert told[1:] == ["Real + 9 against Real: +0.100 [+0.010, +0.200], more than chance.",
                        "Synthetic against Real: +0.100 [-0.010, +0.200], within chance."]  # fmt: skip
