"""Cases that belong to no single reader: duplicated series, BMI that no person has, cohorts without
sex and age."""

import shutil

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.disparities import measure
from cmrcls.fairness.study import table2
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.subjects import bmi_of, with_groups
from cmrgen.prompts import prompts
from support.fake_runs import one_study, runs


def test_case_19_of_several_series_one_complete_is_taken_and_told(tmp_path):
    write_ukbb(
        Phantom(subjects=40, hf_scale=20),
        tmp_path / "tree",
        count=2,
        pixels=64,
        slices=5,
        frames=12,
    )
    first = tmp_path / "tree" / "SYN000000"
    shutil.copytree(first, tmp_path / "tree" / "SYN000000_2_1")
    first.rename(tmp_path / "tree" / "SYN000000_2_0")
    (tmp_path / "tree" / "SYN000000_2_0" / "sa.nii.gz").unlink()  # the first series is incomplete
    for phase in ("ED", "ES"):
        (tmp_path / "tree" / "SYN000000_2_0" / f"sa_{phase}.nii.gz").unlink()
    cohort = UKBB(
        root=tmp_path / "tree",
        table=tmp_path / "tree" / "table.csv",
        salt_root=tmp_path / "salt",
        pixels=32,
    )
    table, rejected = cohort.subjects()
    assert len(table) == 2 and rejected.empty
    assert len(cohort.stacks(table.assign(split="test")).index) == 2
    assert any(
        "several" in note or "series" in note or "more than one" in note for note in cohort.notes()
    ), cohort.notes()


@pytest.mark.parametrize(
    ("weight", "height", "bmi"),
    [(70, 175, 22.86), (70, 1.75, 22.86), (700, 175, None), (7, 175, None)],
)
def test_case_21_a_bmi_no_person_has_is_unknown(weight, height, bmi):
    found = bmi_of(pd.Series([weight]), pd.Series([height])).item()
    assert found == pytest.approx(bmi, abs=0.01) if bmi else np.isnan(found)


def test_case_28_without_sex_and_age_prompts_and_reports_leave_them_out_by_name():
    people = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(40)],
            "source": "acdc",
            "sex": None,
            "age": np.nan,
            "bmi": np.tile([22.0, 33.0], 20),
            "diagnosis": np.repeat(["healthy", "reduced_ef"], 20),
        }
    )
    table = with_groups(people)
    assert set(prompts(table)) == {
        f"{b} BMI, {d}"
        for b in ("normal", "obese")
        for d in ("healthy", "with reduced ejection fraction")
    }
    probability = np.linspace(0, 1, 40)
    rows = table.assign(
        arm="Real",
        seed="0",
        split="test",
        probability=probability,
        predicted=(probability > 0.5).astype(int),
    )
    made = table2(one_study(rows))
    assert set(map(str, made.rows.axis)) == {"overall", "bmi_band"}
    assert {line.split(":")[0] for line in made.refused} == {"sex", "age_band"}


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_combination_that_no_test_subject_has_is_no_number():
    study = one_study(runs(n=12, arms=("Real", "Real + 2000"), seeds=1))
    rows = measure(study, resamples=20, permutations=20).subgroups
    empty = rows[rows.n == 0]
    assert len(empty) and empty["mean"].isna().all() and empty.low.isna().all()
    assert rows[rows.n == 12]["mean"].notna().any()
