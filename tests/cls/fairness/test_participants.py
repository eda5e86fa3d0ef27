"""From folders to arms, and the baseline table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrcls.fairness.display.participants import baseline_cells, flow_cells
from cmrcls.fairness.grid import ArmRuns
from cmrcls.fairness.participants import (
    MIN_COUNT,
    baseline_table,
    differences,
    flow_table,
    in_general,
    read_rejected,
)
from cmrcls.fairness.section import participants_section
from cmrstudy.dashboards import names_persons
from support.fake_index import fake_index, fake_people
from support.fake_runs import arm_of


def cohort(tmp_path: Path) -> Any:
    people = fake_people()
    people["diagnosis"] = people.diagnosis.where(people.diagnosis.notna(), None)
    index = fake_index(people)
    case = people.label == 1
    train = people.split == "train"
    people["balanced"] = train & (case | (people.index % 3 == 0) & (people.label == 0))
    return SimpleNamespace(folder=tmp_path, subjects=people, index=index)


def rejected(reasons: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"subject": [f"BAD{k}" for k in range(len(reasons))], "reason": reasons})


def test_the_flow_adds_up(tmp_path):
    store = cohort(tmp_path)
    table = flow_table(store, rejected=rejected(["damaged: 12 frames"] * 3 + ["no table row"] * 2))
    of = table.set_index("step").participants
    assert of["found"] == 305 and of["read"] == 300
    assert of["found"] == of["read"] + table[(table.part == "not usable")].participants.sum()
    unlabelled = table[table.part == "of the classifier"].participants.sum()
    assert table[table.step == "split"].participants.sum() + unlabelled == of["read"]
    training = table[(table.step == "split") & (table.part == "training")].participants.item()
    surplus = table[table.part == "of training"].participants.item()
    used = table[table.step == "used"].iloc[0]
    assert used.participants == training - surplus == store.subjects.balanced.sum()
    assert used.real_images == 9 * used.participants and used.diseased <= used.participants


def test_without_surplus_nobody_is_left_out_of_training(tmp_path):
    store = cohort(tmp_path)
    store.subjects["balanced"] = (store.subjects.split == "train") & store.subjects.label.notna()
    told = flow_table(store, None, rejected=rejected([]))
    assert not told.reason.astype(str).str.contains("surplus").any()
    assert "training, balanced" in set(told.part)


def test_whoever_was_rejected_once_and_read_later_is_counted_once(tmp_path):
    store = cohort(tmp_path)
    twice = pd.DataFrame({"subject": ["SYN0000", "BAD", "BAD"], "reason": ["x", "y", "y"]})
    assert flow_table(store, rejected=twice).participants[0] == 301


def run(images: int, synthetic: int = 0, *, state: str = "finished") -> Any:
    facts = (
        {"training_images": images, "synthetic_images": synthetic} if state == "finished" else {}
    )
    return SimpleNamespace(record=SimpleNamespace(state=state, facts=facts))


def test_arms_say_what_they_are_trained_on(tmp_path):
    store = cohort(tmp_path)
    real = 9 * int(store.subjects.balanced.sum())
    arms = [
        ArmRuns(arm_of("Real"), [run(real)]),
        # of two sets, the one of which fewer images are lacking
        ArmRuns(
            arm_of("Real + 36"), [run(real + 35, 35), run(real + 36, 36), run(0, state="failed")]
        ),
        ArmRuns(arm_of("Synthetic"), [run(500, 500)]),
        ArmRuns(arm_of("Real + 36, oversample_matched"), [run(real + 36)]),
        ArmRuns(arm_of("Real + 99"), [run(0, state="failed")]),
    ]
    table = flow_table(store, SimpleNamespace(arms=arms), rejected=rejected([]))
    own = table[table.step == "arm"].set_index("part")
    assert list(own.index) == ["Real", "Real + 36", "Synthetic", "Real + 36, oversample_matched"]
    assert own.synthetic_images.tolist() == [0, 36, 500, 0] and own.real_images.tolist() == [
        real,
        real,
        0,
        real + 36,
    ]
    assert (
        own.participants["Synthetic"] == own.diseased["Synthetic"] == 0 < own.participants["Real"]
    )


def test_reasons_are_told_without_what_is_one_participants_own():
    assert in_general("frame 12 of 50 is 208 x 187") == in_general("frame 3 of 25 is 180 x 200")
    assert "SYN" not in in_general("file 'SYN0007/sa.nii.gz' is damaged")
    assert (
        in_general("/home/me/SYN0007/sa.nii.gz: damaged")
        == in_general("SYN0009/la.nii.gz: damaged")
        == "... damaged"
    )
    assert in_general("neither ED nor ES") == "neither ED nor ES"


def test_small_counts_of_reasons_are_not_shown(tmp_path):
    shown = flow_cells(
        flow_table(cohort(tmp_path), rejected=rejected(["odd"] * 3 + ["common"] * 40))
    )
    told = shown.set_index("").participants
    assert (
        told["not usable: odd"] == f"fewer than {MIN_COUNT}" and told["not usable: common"] == "40"
    )


def test_the_baseline_table_equals_a_count_and_hides_small_ones():
    people = fake_people()
    table = baseline_table(people)
    of = people[people.label.notna()]
    for row in table[(table.variable == "Sex") & ~table.hidden].itertuples():
        part = of[(of.split == row.split) & (of.label == row.label)]
        assert row.count == (part.sex == {"Female": "F", "Male": "M"}[row.level]).sum() >= MIN_COUNT
        assert row.share == pytest.approx(row.count / part.sex.notna().sum()) and row.n == len(part)
    for row in table[(table.variable == "Age (years)") & ~table.hidden].itertuples():
        part = of[(of.split == row.split) & (of.label == row.label)].age
        assert (row.mean, row.sd) == (pytest.approx(part.mean()), pytest.approx(part.std()))
    told = table["count"].dropna()
    assert ((told == 0) | (told >= MIN_COUNT)).all() and table.hidden.any()


def test_a_hidden_count_cannot_be_told_from_the_others():
    """Where one level of a variable is hidden another one is, too, unless nobody else is there."""
    people = fake_people()
    table = baseline_table(people)
    for _, part in table[table.variable.isin(["Sex", "Age band", "BMI band"])].groupby(
        ["variable", "split", "label"]
    ):
        shown = part[part["count"].fillna(1) > 0]
        assert part.hidden.sum() != 1 or len(shown) == 1


def test_differences_are_standardised():
    people = fake_people()
    apart = differences(baseline_table(people)).set_index(["variable", "compared"]).smd
    train = people[(people.split == "train") & people.label.notna()]
    ill, well = (train[train.label == kind].age for kind in (1, 0))
    expected = (ill.mean() - well.mean()) / np.sqrt((ill.var() + well.var()) / 2)
    assert apart["Age (years)", "diseased - healthy, training"] == pytest.approx(expected)


def test_a_cohort_without_attributes_has_a_table_too(tmp_path):
    store = cohort(tmp_path)
    for column in ("sex", "age", "age_band", "bmi", "bmi_band"):
        store.subjects[column] = None
    shown = baseline_cells(baseline_table(store.subjects))
    assert shown[""].tolist()[0] == "n" and not any("Age" in name for name in shown[""])


def test_the_section_writes_its_tables(tmp_path):
    store = cohort(tmp_path)
    rejected(["damaged"] * 12).to_csv(tmp_path / "rejected.csv", index=False)
    shown = participants_section(
        store, None, folder=tmp_path / "out", figure=tmp_path / "fig.png", fold=2
    )
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        f"{n}.{k}" for n in ("flow", "baseline") for k in ("csv", "md", "tex")
    }
    assert (
        "not usable: damaged" in shown.tables[0].frame[""].tolist()
        and "fold 2" in shown.tables[1].caption
    )
    page = (tmp_path / "out" / "flow.md").read_text() + (
        tmp_path / "out" / "baseline.md"
    ).read_text()
    assert "SYN0" not in page and "BAD" not in page
    for name in ("flow", "baseline"):
        # so dashboards get it
        assert names_persons(pd.read_csv(tmp_path / "out" / f"{name}.csv")) == ""


def test_nobody_rejected_is_an_empty_table(tmp_path):
    assert read_rejected(tmp_path).empty
    (tmp_path / "rejected.csv").write_text("\n")
    assert read_rejected(tmp_path).columns.tolist() == ["subject", "reason"]
