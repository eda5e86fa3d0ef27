"""Looking at a cohort: every subject is either listed with its groups and frames or rejected with a
reason, nothing is kept twice."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cmrdata.axes import AXES
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.painting import ES_FRAME
from cmrdata.prepare import prepare
from cmrdata.protocol import Stacks
from cmrstudy.inspection import FIRST, groups, inspect, summary
from support.fake_cohort import FakeCohort


class Watched(FakeCohort):
    """Remembers whom it was asked to read; every tenth subject is damaged; stops after `patience`
    chunks."""

    patience = 10**9

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        if self.patience == 0:
            raise KeyboardInterrupt
        self.patience -= 1
        self.splits = {
            **getattr(self, "splits", {}),
            **dict(zip(subjects.subject, subjects.split, strict=True)),
        }
        self.asked = [*getattr(self, "asked", []), *subjects.subject]
        damaged = subjects.subject.str[-1] == "7"
        made = super().stacks(subjects[~damaged])
        made.index[["ed_frame", "es_frame"]] = [0, 9]
        return made._replace(
            rejected=pd.DataFrame(
                {"subject": subjects.subject[damaged], "reason": "constant image"}
            )
        )


def test_every_subject_is_listed_or_rejected(tmp_path):
    subjects, rejected = inspect(Watched(100), tmp_path)
    assert len(subjects) == 90 and set(rejected.reason) == {"constant image"}
    assert not set(subjects.subject) & set(rejected.subject)
    assert tuple(subjects.columns[: len(FIRST)]) == FIRST
    assert (subjects.ed_frame == 0).all() and (subjects.es_frame == 9).all()
    assert set(subjects.split) == {"train", "val", "test"}
    assert set(subjects.age_band) <= set(AXES["age_band"].values) and set(subjects.bmi_band) <= set(
        AXES["bmi_band"].values
    )


def test_the_split_is_the_one_preparation_makes(tmp_path):
    looked = Watched(144)
    subjects = inspect(looked, tmp_path / "c")[0]
    assert {
        row.subject: row.split for row in subjects.itertuples()
    }.items() <= looked.splits.items()
    shown = inspect(FakeCohort(144), tmp_path / "a")[0].set_index("subject").split
    made = prepare(FakeCohort(144), tmp_path / "b").subjects.set_index("subject").split
    assert shown.loc[made.index].to_list() == made.to_list()


def test_an_interrupted_look_continues_and_a_repeated_one_reads_nothing(tmp_path):
    first = Watched(60)
    first.patience = 3
    with pytest.raises(KeyboardInterrupt):
        inspect(first, tmp_path, workers=1)
    notes = next(tmp_path.glob("*.jsonl"))
    notes.write_text(notes.read_text()[:-9])  # a line torn by a kill
    kept = len(notes.read_text().splitlines()) - 1
    second, third = Watched(60), Watched(60)
    continued = inspect(second, tmp_path, workers=1)
    assert len(second.asked) == 60 - kept < 60
    whole = inspect(Watched(60), tmp_path / "other")
    for one, other in zip(continued, whole, strict=True):
        pd.testing.assert_frame_equal(one, other)
    inspect(third, tmp_path)
    assert not hasattr(third, "asked")
    changed = Watched(60, pixels=32)  # other settings: read anew
    inspect(changed, tmp_path)
    assert len(changed.asked) == 60


def test_where_nothing_can_be_kept_everybody_is_read_and_it_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    subjects, rejected = inspect(Watched(20), tmp_path / "file" / "data")
    assert (len(subjects), len(rejected)) == (18, 2)
    assert "can't be written" in capsys.readouterr().out


def test_without_volumes_nothing_is_read(tmp_path):
    cohort = Watched(40)
    subjects, rejected = inspect(cohort, tmp_path, volumes=False)
    assert len(subjects) == 40 and subjects.es_frame.isna().all() and rejected.empty
    assert not hasattr(cohort, "asked") and not list(tmp_path.iterdir())


def test_group_counts_add_up_and_give_prevalence(tmp_path):
    subjects, _ = inspect(FakeCohort(144), tmp_path, volumes=False)
    table = groups(subjects).set_index("group")
    assert table.loc["all"].tolist() == [144, 72, 50.0]
    for name, axis in AXES.items():
        assert table.subjects[[f"{name}: {band}" for band in axis.values]].sum() == 144
    assert table.subjects[[name for name in table.index if "/" in name]].sum() == 144
    assert len(summary(subjects, pd.DataFrame({"subject": ["SYN0001"], "reason": ["gone"]}))) == 3


def test_a_cohort_that_knows_nothing_has_one_group(tmp_path):
    subjects, _ = inspect(FakeCohort(36, unknown=("sex", "age", "bmi")), tmp_path, volumes=False)
    assert groups(subjects).group.tolist() == ["all"]


def test_the_phantom_tells_its_frames_and_states(tmp_path):
    subjects, rejected = inspect(Phantom(subjects=60, hf_scale=20, pixels=16), tmp_path)
    assert rejected.empty and set(subjects.es_frame) == {ES_FRAME}
    assert (
        subjects.state.map({"prevalent": "hf", "none": "healthy"}).to_list()
        == subjects.diagnosis.to_list()
    )


def test_notes_hold_plain_values(tmp_path):
    inspect(Watched(20), tmp_path)
    for line in Path(next(tmp_path.glob("*.jsonl"))).read_text().splitlines():
        assert set(json.loads(line)) <= {
            "subject",
            "ed_frame",
            "es_frame",
            "mm",
            "flags",
            "reason",
            "files",
        }
