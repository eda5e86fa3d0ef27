"""A synthetic set opens with the cohort it was made from, and with training subjects alone."""

from __future__ import annotations

import pandas as pd
import pytest

from cmrdata.prepare import prepare
from cmrdata.store import Store, Writer
from cmrdata.synthetic import check_sources, named_by_rows, open_synthetic
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(20), tmp_path_factory.mktemp("mine"))


@pytest.mark.parametrize("place", ["val", "test"])
def test_synthetic_data_from_held_out_subjects_are_refused(mine, place):
    subjects = mine.subjects
    train, held_out = (subjects[subjects.split == name] for name in ("train", place))
    check_sources(train, subjects)
    rows = pd.concat([train, held_out]).reset_index(drop=True)
    with pytest.raises(
        ValueError,
        match=f"masks come from the {place} split .*Rebuild the plan",
    ):
        check_sources(rows, subjects)


def test_synthetic_data_from_strangers_are_refused(mine):
    with pytest.raises(
        ValueError, match="1 of 1 rows name subjects that this cohort does not have"
    ):
        check_sources(pd.DataFrame({"subject": ["SYN9999"]}), mine.subjects)


def test_a_synthetic_set_opens_with_its_own_cohort_only(mine, tmp_path):
    other = prepare(FakeCohort(32), tmp_path)
    folder = fake_set(tmp_path / "set", mine, count=20).folder
    assert len(open_synthetic(folder, mine).index) == 20
    with pytest.raises(
        ValueError, match=f"another cohort .*{mine.fingerprint}.*{other.fingerprint}"
    ):
        open_synthetic(folder, other)
    with pytest.raises(FileNotFoundError, match=r"generate\.py"):
        open_synthetic(tmp_path / "nowhere", mine)


def test_a_set_drawn_from_other_subjects_is_refused_when_it_is_opened(mine, tmp_path):
    """A cohort whose split has moved since: the set's rows are those of test subjects now."""
    folder = fake_set(tmp_path / "set", mine, count=3).folder
    moved = Store(mine.folder)
    vars(moved)["subjects"] = mine.subjects.assign(split="test")
    with pytest.raises(ValueError, match="masks come from the test split .3 of 3 rows"):
        open_synthetic(folder, moved)


def test_the_rows_that_leak_are_counted_and_five_are_named():
    subjects = pd.DataFrame(
        {"subject": ["SYN0001", "SYN0002", "SYN0003"], "split": ["train", "val", "test"]}
    )
    rows = pd.DataFrame({"subject": ["SYN0001", *["SYN0002"] * 5]})
    check_sources(rows[:1], subjects)
    with pytest.raises(ValueError) as refused:
        check_sources(rows, subjects)
    assert str(refused.value) == (
        "masks come from the val split (5 of 6 rows, of 1 subject, first at 1, 2, 3, 4, 5); synthetic data "
        "must derive from train. Rebuild the plan."
    )
    more = pd.concat([rows, pd.DataFrame({"subject": ["SYN0003"]})], ignore_index=True)
    with pytest.raises(
        ValueError, match=r"6 of 7 rows, of 2 subjects, first at 1, 2, 3, 4, 5 \.\.\."
    ):
        check_sources(more, subjects)
    # strangers are told first: nobody knows their split
    strange = pd.concat([more, pd.DataFrame({"subject": ["SYN0009"]})], ignore_index=True)
    with pytest.raises(ValueError, match="^1 of 8 rows name subjects .* first at 7. Rebuild"):
        check_sources(strange, subjects)


def test_rows_take_the_cohorts_own_names(mine):
    cohort = Store(mine.folder)
    last = len(cohort.index) - 1
    own = cohort.index.subject.iloc[[0, last]].tolist()
    table = pd.DataFrame({"subject": ["SYN0777", "SYN0778"], "source_row": [0, last]})
    renamed = named_by_rows(table, cohort, names="another salt", what="the set")
    assert renamed.subject.tolist() == own and table.subject.tolist() == ["SYN0777", "SYN0778"]
    with pytest.raises(ValueError, match="the set: 2 rows name another subject than the cohort's"):
        named_by_rows(table, cohort, names=cohort.meta.get("names"), what="the set")
    right = table.assign(subject=own).rename(columns={"source_row": "at"})
    same = named_by_rows(right, cohort, names=cohort.meta.get("names"), what="", column="at")
    assert same.equals(right)
    for row in (-1, last + 1):
        with pytest.raises(
            ValueError, match=rf"the set: it names rows .* does not have \({last + 1} rows\)"
        ):
            named_by_rows(table.assign(source_row=[0, row]), cohort, names="x", what="the set")
    assert named_by_rows(table[:0], cohort, names="x", what="the set").empty


def test_a_set_without_provenance_is_refused(mine, tmp_path):
    made = fake_set(tmp_path / "whole", mine, count=3)
    writer = Writer(tmp_path / "set", pixels=16, settings={"cohort_fingerprint": mine.fingerprint})
    writer.append(made.images, made.masks, made.index.drop(columns=["seed", "prompt"]))
    writer.finish()
    with pytest.raises(ValueError, match=r"lacks the columns \['prompt', 'seed'\]"):
        open_synthetic(tmp_path / "set", mine)
