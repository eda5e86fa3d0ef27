import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as peers
from sklearn.metrics import balanced_accuracy_score

from cmrcls.fairness.cells import accuracy_answers, gap_answers
from cmrcls.fairness.disparities import FEWEST, measure
from cmrcls.fairness.metrics import scored
from cmrcls.fairness.section import fairness
from cmrcls.fairness.study import RUN, Study, axes_of, by_seed, calibration, confusion
from cmrcls.fairness.table2 import table2, wide
from cmrdata.axes import AXES
from cmrstudy import paper
from cmrstudy.report import report_html
from support.fake_runs import ARMS, one_study, runs, small, studies, study_of


@pytest.mark.parametrize("seed", range(3))
def test_every_cell_equals_sklearn_and_numpy(seed):
    # small: some groups lack positives
    table = runs(seed=seed, n=40, prevalence=0.1, arms=ARMS[:2])
    test = table[table.split == "test"]
    result = table2(one_study(table))
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


def test_rows_and_columns_are_the_papers():
    shown = wide(table2(one_study(runs())))
    assert shown.subgroup.tolist() == [
        "Overall",
        "Female",
        "Male",
        "Normal BMI",
        "Overweight",
        "Obese",
        "Age < 60",
        "Age 60-70",
        "Age > 70",
    ]
    assert shown.columns.tolist() == ["subgroup", "n", "positives", "prevalence", *ARMS]
    assert shown[list(ARMS)].stack().str.fullmatch(r"0\.\d{3} ± 0\.\d{3}").all()
    assert shown.prevalence.str.endswith("%").all() and shown.attrs["refused"] == []


def test_one_class_and_empty_subgroups_stay_visible():
    table = runs(seeds=2, arms=ARMS[:1])
    table = table[table.bmi_band != "overweight"]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 1
    table = table[~((table.sex == "F") & (table.age_band == "<60"))]
    result = table2(one_study(table))
    cells = wide(result).set_index("subgroup")["Real"]
    assert cells["Female"] == "n/a (no positives)"
    assert cells["Age < 60"] == "n/a (no negatives)"
    assert cells["Overweight"] == "n/a (no subjects)"


def test_one_seed_has_no_spread():
    result = table2(one_study(runs(seeds=1, arms=("Real",))))
    assert result.sd.isna().all() and (result.seeds == 1).all()
    assert wide(result)["Real"].str.endswith("(1 run)").all()


def test_unknown_axes_are_refused_in_a_sentence():
    table = runs().drop(columns="age_band").assign(sex=np.nan, bmi_band="obese")
    result = table2(one_study(table))
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
    n = table2(one_study(table)).drop_duplicates("subgroup").set_index("subgroup").n
    assert n["Overall"] == 120 and n["Female"] + n["Male"] == 119
    assert n[["Normal BMI", "Overweight", "Obese"]].sum() == 120


def test_arms_may_have_different_numbers_of_seeds():
    table = runs()
    table = table[(table.arm != "Synthetic") | (table.seed == 0)]
    assert table2(one_study(table)).groupby("arm").seeds.first().to_dict() == {
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
    expected = table2(one_study(table))
    for again in (pd.read_csv(tmp_path / "p.csv"), pd.read_parquet(tmp_path / "p.parquet")):
        pd.testing.assert_frame_equal(table2(one_study(again)), expected)


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
        (
            _edit("probability", 3.0, subject="SYN0003"),
            r"no run is left.*probability of subject SYN0003 is 3.0 \(1 such rows\); rerun.*\(and 11 more\)",
        ),
        (
            _edit("label", 1, subject="SYN0000", arm="Synthetic", seed=2),
            "subject SYN0000: label is 1 in arm 'Synthetic' seed 2 but 0 in arm 'Real' seed 0",
        ),
        (
            _edit("sex", "X", subject="SYN0000", seed=2),
            "subject SYN0000: sex is X in arm 'Real' seed 2 but",
        ),
        (
            _edit("subject", "SYN9999", subject="SYN0007", seed=2),
            "different test splits: 2 subjects are in one only",
        ),
        (lambda t: pd.concat([t, t.tail(121)]), "is predicted twice; give each run's table once"),
        (
            _edit("label", 0),
            "all 120 test subjects have label 0: balanced accuracy is undefined; choose",
        ),
        (
            _edit("label", np.nan, subject="SYN0004"),
            "subject SYN0004: label is nan; a test subject has 0 or 1",
        ),
    ],
)
def test_incomparable_runs_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        table2(one_study(edit(runs())))


def test_a_damaged_run_is_left_out_by_name():
    table = _edit("probability", np.nan, subject="SYN0003", arm="Real", seed=1)(runs())
    table["probability"] = table.probability.astype(float)
    result = table2(one_study(table))
    without = runs()[lambda t: (t.arm != "Real") | (t.seed != 1)]
    pd.testing.assert_frame_equal(result, table2(one_study(without)))
    assert result.attrs["warnings"] == [
        "Left out: arm 'Real' seed 1: probability of subject SYN0003 is nan (1 such rows); rerun that run, it diverged or "
        "its table is damaged.",
        "Arm 'Real' has no run of seed 1, which other arms have.",
    ]
    assert wide(result).attrs["warnings"] == result.attrs["warnings"]


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
        ValueError, match=r"2 different splits: arm 'Synthetic' seed 2 \(1 such runs\) was split"
    ):
        one_study(runs(), splits=same | {("Synthetic", "2"): "bb"})


def test_folds_are_pooled_and_a_run_without_one_is_left_out():
    table = runs(seeds=2, arms=ARMS[:2])
    folded = table.assign(fold=table.subject.str[-1].astype(int) % 3)
    pd.testing.assert_frame_equal(table2(one_study(folded)), table2(one_study(table)))
    lacking = folded[(folded.seed == 0) | (folded.arm != "Real") | (folded.fold != 2)]
    assert table2(one_study(lacking)).attrs["warnings"][0] == (
        "Left out: arm 'Real' seed 1: it lacks fold 2, which others have; run it."
    )


def test_every_disease_is_a_study_of_its_own():
    table = pd.concat([runs(seeds=1).assign(disease=d) for d in ("hf", "mi")])
    assert [one.disease for one in studies(table)] == ["hf", "mi"]


def test_a_decision_overrides_the_threshold():
    table = runs(seeds=1, arms=("Real",))
    turned = table.assign(predicted=(table.probability <= 0.5).astype(int))
    assert table2(one_study(turned)).balanced_accuracy.to_numpy() == pytest.approx(
        1 - table2(one_study(table)).balanced_accuracy
    )


def test_a_further_axis_has_its_values_as_rows():
    table = runs(seeds=1, arms=("Real",))
    table["source"] = np.where(table.subject.str[-1].astype(int) % 2, "b", "a")
    found = table2(one_study(table, axes=("source",)), axes=("source",))
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


@pytest.mark.parametrize("seed", range(4))
def test_fairness_measures_equal_fairlearn(seed):
    one = small(seed=seed, arms=("Real",), n=150)
    rows = measure(one, resamples=8, permutations=8).disparities.set_index(["axis", "measure"])
    label, decided = one.subjects.label, one.decision[:, 0]
    for axis in AXES:
        pair = {"sensitive_features": one.subjects[axis]}
        for name, peer in (
            ("demographic_parity", "demographic_parity"),
            ("equal_opportunity", "equal_opportunity"),
            ("equalised_odds", "equalized_odds"),
        ):
            row = rows.loc[axis, name]
            assert row.difference == pytest.approx(
                getattr(peers, f"{peer}_difference")(label, decided, **pair)
            ), name
            assert row.ratio == pytest.approx(
                getattr(peers, f"{peer}_ratio")(label, decided, **pair)
            ), name


def two_sexes() -> Study:
    """Men: 0.9, then 0.8; women: 0.7 and 0.7. The gap falls from 0.2 to 0.1, a half; of 400
    subjects of each kind."""
    label = np.tile(np.repeat([1, 0], 400), 2)
    right = (
        np.concatenate([np.arange(400) < 4 * k for k in (90, 90, 70, 70, 80, 80, 70, 70)])
        .reshape(2, 1600)
        .T
    )
    decision = np.where(right, label[:, None], 1 - label[:, None])
    rows = [("Real", "", "", "0"), ("Real + 2000", "0", "0", "0")]
    return study_of(decision, rows, label=label, sex=np.repeat(["M", "F"], 800))


def test_gap_and_reduction_by_hand():
    found = measure(two_sexes(), resamples=500, permutations=200)
    gap = found.disparities.query("measure == 'balanced_accuracy'").set_index("arm")
    assert (
        gap.difference.tolist() == pytest.approx([0.2, 0.1])
        and gap.lowest.tolist() == ["Female"] * 2
    )
    # so far apart nothing is picked by chance
    assert gap.corrected.tolist() == pytest.approx([0.2, 0.1], abs=0.005)
    more = gap.loc["Real + 2000"]
    assert (more.change, more.reduction) == (
        pytest.approx(-0.1, abs=0.005),
        pytest.approx(0.5, abs=0.02),
    )
    assert (
        more.change_low < -0.1 < more.change_high and more.reduction_low < 0.5 < more.reduction_high
    )
    assert gap.low["Real"] > 0.1 and gap.high["Real"] < 0.3 and (gap.p < 0.01).all()
    worst = found.worst.set_index("arm")
    assert worst.worst.tolist() == ["Female"] * 2 and worst.observed.tolist() == pytest.approx(
        [0.7, 0.7]
    )
    assert worst.corrected.tolist() == pytest.approx([0.7, 0.7], abs=0.005)
    assert (worst.low < 0.7).all() and (worst.high > 0.7).all()


def test_a_reduction_of_a_gap_that_may_be_nothing_is_not_told():
    rows = measure(small(n=600, seeds=1), resamples=200, permutations=200).disparities
    assert rows.reduction_low.isna().all()  # of noise: no gap is surely above 0
    told = measure(two_sexes(), resamples=200, permutations=200).disparities.reduction_low
    assert told.notna().any()


def test_every_number_has_n_and_an_interval_around_it():
    rows = measure(small(seeds=4, n=600), resamples=400, permutations=8).subgroups
    single = rows[~rows.axis.str.contains(" x ")]
    assert single[["n", "positives", "seeds", "mean", "sd"]].notna().all(axis=None)
    told = single[single.note == ""]
    assert (
        len(told) > 100 and (told.low <= told["mean"]).all() and (told["mean"] <= told.high).all()
    )
    table = rows[(rows.metric == "balanced_accuracy") & (rows.subgroup == "Overall")].set_index(
        "arm"
    )
    assert table["mean"].to_dict() == pytest.approx(
        table2(one_study(runs(n=600, arms=ARMS[:2], seeds=4)))
        .query("axis == 'overall'")
        .set_index("arm")
        .balanced_accuracy.to_dict()
    )


def test_small_groups_have_words_in_place_of_an_interval():
    found = measure(small(n=150, prevalence=0.15), resamples=40, permutations=40)
    rows = found.subgroups[found.subgroups.metric == "sensitivity"]
    few = rows[(rows.positives < FEWEST) & (rows.positives > 0)]
    assert len(few) and few.low.isna().all()
    assert few.note.str.fullmatch(rf"rests on \d+ subjects, fewer than {FEWEST}").all()
    gap = found.disparities[
        (found.disparities.axis == "sex x bmi_band")
        & (found.disparities.measure == "balanced_accuracy")
    ]
    assert gap.low.isna().all() and gap.note.str.contains("fewer than").all()


def test_crossed_subgroups_divide_the_subjects():
    cells = {axis.title: axis for axis in axes_of(small(n=60).subjects)}
    assert {title: len(axis.names) for title, axis in cells.items()} == {
        "overall": 1,
        "sex": 2,
        "bmi_band": 3,
        "age_band": 3,
        "sex x age_band": 6,
        "sex x bmi_band": 6,
        "age_band x bmi_band": 9,
        "sex x age_band x bmi_band": 18,
    }
    assert all((axis.codes >= 0).all() for axis in cells.values())
    assert "Female, Age < 60, Obese" in cells["sex x age_band x bmi_band"].names


def test_a_subject_of_unknown_age_is_in_no_subgroup_crossed_with_age():
    table = runs(seeds=1, arms=ARMS[:1])
    table.loc[table.subject == "SYN0005", "age_band"] = None
    known = {
        axis.title: int((axis.codes >= 0).sum()) for axis in axes_of(one_study(table).subjects)
    }
    assert (
        known["sex"] == 120 and known["sex x age_band"] == known["sex x age_band x bmi_band"] == 119
    )


def test_a_one_class_subgroup_is_left_out_of_gaps_by_name():
    table = runs(seeds=1, n=300)
    table.loc[(table.age_band == "<60") & (table.split == "test"), "label"] = 0
    gap = measure(one_study(table), resamples=8, permutations=8).disparities.set_index(
        ["axis", "measure", "arm"]
    )
    assert gap.loc[("age_band", "balanced_accuracy", "Real"), "left_out"] == "Age < 60"
    assert gap.loc[("age_band", "demographic_parity", "Real"), "left_out"] == ""


def test_renaming_seeds_changes_nothing_and_equal_seeds_add_no_certainty():
    one = small(seeds=3, n=300)
    options = {"resamples": 100, "permutations": 8}
    rows = measure(one, **options).subgroups
    renamed = one._replace(runs=one.runs.assign(seed="7" + one.runs.seed))
    pd.testing.assert_frame_equal(rows, measure(renamed, **options).subgroups)
    lone = small(seeds=1, n=300, arms=("Real",))
    table = pd.DataFrame([("Real", "", "", str(seed)) for seed in range(5)], columns=RUN)
    many = lone._replace(
        runs=table, probability=lone.probability.repeat(5, 1), decision=lone.decision.repeat(5, 1)
    )
    once, more = (measure(of, **options).subgroups for of in (lone, many))
    np.testing.assert_allclose(once.high - once.low, more.high - more.low, atol=1e-5)


def test_tests_compare_seed_by_seed():
    one = small(seeds=3, arms=ARMS)
    scores = by_seed(one, scored("balanced_accuracy", one.predicted).value)
    assert scores.shape == (3, 4) and scores.columns.tolist() == list(ARMS)
    expected = balanced_accuracy_score(one.subjects.label, one.decision[:, 1])
    assert scores.loc["1", "Real"] == pytest.approx(expected)


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


OPTIONS = {"resamples": 40, "permutations": 40}
TABLES = {
    "table2",
    "gaps",
    "worst",
    "fairness",
    "metrics",
    "operating_point",
    "thresholds",
    "decision_curve",
    "calibration",
    "confusion",
    "tests",
    "ranks",
}


@pytest.mark.slow  # seconds; test_study writes them too
def test_sections_write_what_they_show(tmp_path):
    table = runs(seeds=3, n=120, arms=("Real", "Real + 2000", "Synthetic"))
    table.loc[
        (table.arm == "Synthetic") & (table.seed == 0) & (table.subject == "SYN0003"), "probability"
    ] = np.nan
    table.loc[table.arm != "Real", ["generator", "set"]] = "0"
    table[["generator", "set"]] = table[["generator", "set"]].fillna("")
    options = {"folder": tmp_path, "pictures": tmp_path / "figures", **OPTIONS}
    parts = fairness(studies(table), {"cohort_name": "ukbb"}, **options)
    assert {p.name for p in tmp_path.glob("*.*")} == {
        f"{t}.{kind}" for t in TABLES for kind in ("csv", "md", "tex")
    }
    drawn = {
        "table2_forest",
        "gaps",
        "decision_curve",
        "calibration",
        "confusion",
        "critical_difference",
    }
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"fig_{d}.{kind}" for d in drawn for kind in ("png", "svg")
    }
    page = report_html(parts, title="t", facts={})
    for words in (
        "seed 0: probability of subject SYN0003 is nan",
        "Few seeds (the paper has 8): Real 3, Real + 2000 3, Synthetic 2.",
        "underpowered: 3 pairs",
        "Real + 2000 (paper)",
        "37%",
        "One split:",
        "Only classifier seeds vary in Real + 2000: intervals and tests are conditional on one split, one generator, one set",
        "Fewer than 3 seeds in Synthetic",
    ):
        assert words in page, words
    for name in (
        "table2",
        "gaps",
        "worst",
        "fairness",
        "metrics",
        "operating_point",
        "decision_curve",
        "tests",
    ):
        assert "given one split, one generator, one set" in (tmp_path / f"{name}.md").read_text(), (
            name
        )
    assert "Left out: arm" in (tmp_path / "table2.md").read_text()
    before = (tmp_path / "gaps.csv").read_bytes()
    other = fairness(studies(table), {"cohort_name": "phantom"}, **options)
    assert (tmp_path / "gaps.csv").read_bytes() == before
    assert not any(
        "paper)" in str(column) for part in other for shown in part.tables for column in shown
    )


@pytest.mark.slow  # seconds
def test_sections_of_several_diseases_and_of_one_run(tmp_path):
    table = pd.concat([runs(seeds=1, n=80, arms=("Real",)).assign(disease=d) for d in ("hf", "mi")])
    parts = fairness(studies(table), {}, folder=tmp_path, pictures=tmp_path, **OPTIONS)
    assert [part.heading for part in parts[:6:5]] == [
        "Is the classifier fairer: hf?",
        "Is the classifier fairer: mi?",
    ]
    assert (tmp_path / "table2_mi.csv").exists() and (tmp_path / "table2.csv").exists()
    assert any("Fewer than 3 seeds in Real" in note for note in parts[0].warnings)
    assert "one arm only" in parts[4].warnings[0]


def test_sections_of_a_cohort_that_cannot_be_divided(tmp_path):
    table = runs(seeds=1, n=60, arms=("Synthetic",)).drop(columns=["age_band", "bmi_band"])
    lone = fairness(
        studies(table.assign(sex="F")), {}, folder=tmp_path, pictures=tmp_path, **OPTIONS
    )
    assert lone[1].warnings == ["No axis has two subgroups to compare."]
    table.loc[(table.sex == "F") & (table.split == "test"), "label"] = 0
    parts = fairness(studies(table), {}, folder=tmp_path, pictures=tmp_path, **OPTIONS)
    assert "No arm to compare with" in parts[1].warnings[0]
    assert parts[1].tables[0].attrs["warnings"] == [
        "No interval: Sex: fewer than two subgroups where it is defined."
    ]
    assert "Only one class in Female" in " ".join(parts[0].warnings)


def test_without_a_healthy_validation_subject_the_report_says_so(tmp_path):
    table = runs(seeds=1, n=60, arms=("Real",))
    table.loc[table.split == "val", "label"] = 1
    parts = fairness(studies(table), {}, folder=tmp_path, pictures=tmp_path, **OPTIONS)
    assert parts[2].warnings == [
        "No sensitivity at a fixed specificity: a run has no healthy validation subject."
    ]
    assert (
        not (tmp_path / "operating_point.csv").exists()
        and (tmp_path / "decision_curve.csv").exists()
    )


def test_the_answers_call_a_difference_more_than_chance_only_where_its_interval_leaves_zero():
    row = {
        "metric": "balanced_accuracy",
        "axis": "overall",
        "n": 1200,
        "positives": 53,
        "mean": 0.7,
        "low": 0.6,
        "holds": "subjects",
        "given": "one split, these 2 seeds",
    }
    table = pd.DataFrame(
        [
            {
                **row,
                "arm": "Real",
                "high": 0.8,
                "change": np.nan,
                "change_low": np.nan,
                "change_high": np.nan,
            },
            {
                **row,
                "arm": "Real + 9",
                "high": 0.8,
                "change": 0.1,
                "change_low": 0.01,
                "change_high": 0.2,
            },
            {
                **row,
                "arm": "Synthetic",
                "high": 0.8,
                "change": 0.1,
                "change_low": -0.01,
                "change_high": 0.2,
            },
        ]
    )
    told, chance = (
        accuracy_answers(table, baseline="Real"),
        "the chance of subjects, given one split, these 2 seeds.",
    )
    assert told[0] == (
        "Balanced accuracy: Real 0.700 [0.600, 0.800], Real + 9 0.700 [0.600, 0.800], "
        "Synthetic 0.700 [0.600, 0.800]; n = 1,200, 53 diseased."
    )
    assert told[1:] == [
        f"Real + 9 against Real: +0.100 [+0.010, +0.200], more than {chance}",
        f"Synthetic against Real: +0.100 [-0.010, +0.200], within {chance}",
    ]


def test_the_answers_tell_corrected_gaps_and_how_likely_equal_subgroups_are():
    found = measure(two_sexes(), resamples=100, permutations=400)
    gaps = found.disparities[found.disparities.measure == "balanced_accuracy"]
    (told,) = gap_answers(gaps)
    assert told.startswith("Sex, gap between subgroups: Real 0.") and "(p 0.002)" in told
