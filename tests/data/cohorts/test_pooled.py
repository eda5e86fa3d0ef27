"""A pool: each subject keeps its source and is read by its own reader, and what could tell the
sources apart by anything else is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.pooled import Pooled
from cmrdata.cohorts.reading.column_report import columns_table, missing_row
from cmrdata.origin import Source
from cmrdata.prepare import prepare
from support.fake_cohort import FakeCohort


class Named(FakeCohort):
    """Its subjects' names begin with the cohort's."""

    def subjects(self):
        table, rejected = super().subjects()
        gone = pd.DataFrame({"subject": [f"{self.name}9"], "reason": ["constant image"]})
        table = table.assign(subject=self.name + table.subject, source="", site=self.name)
        return table.assign(split="test"), gone  # a split of its own does not count

    def stacks(self, subjects):
        made = super().stacks(subjects.assign(subject=subjects.subject.str[len(self.name) :]))
        gone = pd.DataFrame({"subject": [f"{self.name}8"], "reason": ["empty"]})
        index = made.index.assign(subject=self.name + made.index.subject)
        return made._replace(index=index, rejected=gone)


def pool(*members: FakeCohort, **change) -> Pooled:
    return Pooled(
        **{
            "cohorts": {f"c{k}": m for k, m in enumerate(members)},
            "of": [f"c{k}" for k in range(len(members))],
            "pixels": 16,
            **change,
        }
    )


def test_a_pool_reads_each_subject_by_its_own_reader(tmp_path):
    members = Named(24, name="one"), Named(20, unknown=("sex", "age"), name="two")
    store = prepare(pool(*members, max_rejected=1), tmp_path)
    assert store.subjects.source.value_counts().to_dict() == {"one": 24, "two": 20}
    assert (store.index.source == store.index.subject.str[:3]).all()
    assert store.subjects[store.subjects.source == "two"].sex.isna().all()
    for member in members:
        rows = store.index[store.index.source == member.name]
        alone = member.stacks(store.subjects[store.subjects.source == member.name])
        np.testing.assert_array_equal(store.images[rows.index], alone.images)
        assert rows.subject.tolist() == alone.index.subject.tolist()
    assert {"train", "val", "test"} == set(store.subjects.split)


def test_a_mixed_chunk_comes_back_in_the_order_asked_for():
    cohort = pool(Named(8, name="one"), Named(8, name="two"))
    listed, rejected = cohort.subjects()
    assert "split" not in listed and rejected.subject.tolist() == ["one9", "two9"]
    assert listed.index.tolist() == list(range(16)) and rejected.index.tolist() == [0, 1]
    table = listed.sample(frac=1, random_state=2).assign(split="train")
    assert table.source.iloc[0] == "two"
    made = cohort.stacks(table)
    assert list(made.index) == ["subject", "slice", "frame", "central", "flags"]
    assert made.index.subject.drop_duplicates().tolist() == table.subject.tolist()
    assert made.index.index.tolist() == list(range(len(made.images)))
    assert made.rejected.to_dict("list") == {"subject": ["two8", "one8"], "reason": ["empty"] * 2}
    assert made.rejected.index.tolist() == [0, 1]
    again = cohort.stacks(table.iloc[[5]])
    of_it = made.index.subject == table.subject.iloc[5]
    np.testing.assert_array_equal(made.images[of_it], again.images)
    np.testing.assert_array_equal(made.masks[of_it], again.masks)
    assert (again.masks != again.images).any()


def test_a_member_without_subjects_adds_none():
    class Empty(Named):
        def subjects(self):
            return pd.DataFrame(), pd.DataFrame({"subject": ["x"], "reason": ["gone"]})

    table, rejected = pool(Named(8, name="one"), Empty(8, name="two")).subjects()
    assert len(table) == 8 and rejected.reason.tolist() == ["constant image", "gone"]
    table, rejected = pool(Empty(8, name="two")).subjects()
    assert table.empty and len(rejected) == 1


class Placed(FakeCohort):
    """With what a pool passes on."""

    watched = ("table",)
    places = {"root": "/data"}
    expected = "Expected is a folder."

    def source(self):
        return Source(["1"], {f"{self.name}1": [Path(self.name)]})

    def notes(self):
        return ["3 folders passed over"]

    def columns(self):
        return columns_table([missing_row("31", "sex", "not there", file="t.csv")])


def test_what_members_say_is_told_with_their_names(tmp_path):
    first, second = Placed(8, name="one"), Placed(8, name="two", seed=3)
    second.salt_root, second.reach = tmp_path, 2
    made = pool(first, second, seed=5, fold=1, name="both", fov_mm=100.0, controls_per_case=2)
    assert made.settings == {
        "pixels": 16,
        "fov_mm": 100.0,
        "seed": 5,
        "fold": 1,
        "controls_per_case": 2,
        "cine": None,
        "orient": "masks",
        "members": {"one": first.settings, "two": second.settings},
    }
    assert made.places == {"one.root": "/data", "two.root": "/data"}
    assert made.watched == ("one.table", "two.table")
    assert made.expected == "one: Expected is a folder. two: Expected is a folder."
    assert made.notes() == ["one: 3 folders passed over", "two: 3 folders passed over"]
    source = made.source()
    assert source.ids == ["one/1", "two/1"]
    assert source.files == {"one1": [Path("one")], "two1": [Path("two")]}
    assert made.columns().file.to_dict() == {0: "one: t.csv", 1: "two: t.csv"}
    assert (made.name, made.reach, made.salt_root, made.max_rejected) == ("both", 2, tmp_path, 0.05)
    plain = Pooled(cohorts={"a": FakeCohort(pixels=64)}, of=["a"])
    assert plain.settings == {
        "pixels": 64,
        "fov_mm": 165.0,
        "seed": 0,
        "fold": None,
        "controls_per_case": None,
        "cine": None,
        "orient": "masks",
        "members": {"fake": FakeCohort(pixels=64).settings},
    }
    assert (plain.name, plain.reach, plain.salt_root) == (
        "pooled",
        1,
        None,
    ) and plain.columns().empty


class Turned(FakeCohort):
    orient = "none"


class Beats(FakeCohort):
    cine = 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"of": ["c0", "c9"]}, "names c9; it takes c0, c1, c2, c3, c4"),
        ({"of": []}, "name one or more"),
        ({"of": ["c0", "c0"]}, "each once"),
        ({"of": ["c0", "c1"]}, "share a name"),
        ({"of": ["c0"], "pixels": 32}, "cohort fake has 16 pixels, the pool 32"),
        ({"of": ["c0", "c2"]}, "cohort three has orient=none, the pool masks; give all the same"),
        ({"of": ["c3"]}, "cohort four has cine=6, the pool None; give all the same"),
        ({"of": ["c0"], "orient": "up"}, "cohort.orient is 'up'"),
    ],
)
def test_a_pool_that_cannot_be_is_refused(change, words):
    members = (
        *(FakeCohort(), FakeCohort()),
        *(Turned(name="three"), Beats(name="four"), Turned(name="five")),
    )
    with pytest.raises(ValueError, match=words):
        pool(*members, **change)
    # an image that its cohort gives upright may go with any
    assert pool(*members, of=["c0", "c2", "c4"], orient="none").orient == "none"
    assert pool(*members, of=["c3"], cine=6).cine == 6
