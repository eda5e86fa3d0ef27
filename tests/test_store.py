import json
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_cohort import FakeCohort, fake_set

from cmrdata import store as module
from cmrdata.manifest import check_sources, open_synthetic
from cmrdata.store import Stacks, Store, Writer, ordered, prepare

FILES = ("images.u8", "masks.u8", "index.parquet", "subjects.csv", "rejected.csv", "store.json")
SMALL = 24  # subjects, in chunks of 5


class Killed(BaseException):
    """Stands for kill -9: nothing may catch it."""


class Faulty(FakeCohort):
    """Every `every`-th subject cannot be read."""

    every = 4

    def stacks(self, subjects):
        images, masks, index, _ = super().stacks(subjects)
        bad = subjects.subject[subjects.subject.str[3:].astype(int) % self.every == 0]
        good = ~index.subject.isin(bad).to_numpy()
        faults = pd.DataFrame({"subject": bad, "reason": "labels: file is missing"})
        return Stacks(images[good], masks[good], index[good], faults)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 5)


def contents(store: Store) -> dict[str, bytes]:
    return {name: (store.folder / name).read_bytes() for name in FILES}


def unfinished(root: Path) -> Path:
    return next(path.parent for path in root.glob("*/settings.json"))


def test_nine_stacks_for_training_and_one_for_evaluation(tmp_path):
    store = prepare(FakeCohort(72), tmp_path)
    assert store.images.shape == store.masks.shape == (len(store.index), 2, 16, 16)
    sizes = store.index.groupby("subject").agg(
        n=("split", "size"), split=("split", "first"), splits=("split", "nunique")
    )
    assert (sizes.splits == 1).all()
    assert (sizes.n == np.where(sizes.split == "train", 9, 1)).all()
    assert store.index.central.sum() == len(store.subjects) == 72
    assert store.index.groupby("subject").group.first().nunique() == 36


@pytest.mark.parametrize("subject", ["SYN0000", "SYN0012", "SYN0023"])
def test_a_killed_preparation_continues_to_the_same_bytes(tmp_path, monkeypatch, subject):
    whole = prepare(FakeCohort(SMALL), tmp_path / "whole")
    read: list[str] = []
    inner = FakeCohort.stacks

    def killed(self, subjects):
        if subject in set(subjects.subject):
            raise Killed
        return inner(self, subjects)

    def watched(self, subjects):
        read.extend(subjects.subject)
        return inner(self, subjects)

    monkeypatch.setattr(FakeCohort, "stacks", killed)
    with pytest.raises(Killed):
        prepare(FakeCohort(SMALL), tmp_path / "cut")
    folder = unfinished(tmp_path / "cut")
    with pytest.raises(FileNotFoundError, match="no finished set"):
        Store.open(folder)
    for name in ("images.u8", "masks.u8"):  # a torn write behind the last finished part
        with open(folder / name, "ab") as file:
            file.write(b"\xff" * 777)
    monkeypatch.setattr(FakeCohort, "stacks", watched)
    assert contents(prepare(FakeCohort(SMALL), tmp_path / "cut")) == contents(whole)
    assert set(read) == {f"SYN{k:04d}" for k in range(int(subject[3:]) // 5 * 5, SMALL)}


def test_killed_before_any_file_is_renamed_it_continues_to_the_same_bytes(tmp_path, monkeypatch):
    whole, write, step = prepare(Faulty(8), tmp_path / "whole", max_rejected=1), module.write_atomic, 0
    while True:
        renames = count()

        def dying(path, content, renames=renames, last=step):
            if next(renames) == last:
                raise Killed
            write(path, content)

        monkeypatch.setattr(module, "write_atomic", dying)
        root = tmp_path / f"cut{step}"
        try:
            prepare(Faulty(8), root, max_rejected=1)
        except Killed:
            monkeypatch.setattr(module, "write_atomic", write)
            assert contents(prepare(Faulty(8), root, max_rejected=1)) == contents(whole), step
            step += 1
        else:
            break
    assert step == 1 + 2 * 2 + 4  # settings; rejected and index of each part; then four tables


def test_the_number_of_workers_does_not_change_the_bytes(tmp_path):
    stores = [prepare(FakeCohort(SMALL), tmp_path / str(n), workers=n) for n in (1, 4)]
    assert contents(stores[0]) == contents(stores[1])


def test_a_finished_store_is_used_again_unread(tmp_path, monkeypatch):
    first = prepare(FakeCohort(SMALL), tmp_path)
    monkeypatch.setattr(FakeCohort, "stacks", lambda *_: pytest.fail("read again"))
    assert prepare(FakeCohort(SMALL), tmp_path).folder == first.folder


@pytest.mark.parametrize("changed", [{"count": SMALL + 12}, {"pixels": 18}, {"unknown": ("bmi",)}])
def test_other_settings_make_another_store(tmp_path, changed):
    first = prepare(FakeCohort(SMALL), tmp_path)
    other = prepare(FakeCohort(**{"count": SMALL, **changed}), tmp_path)
    assert first.folder != other.folder and first.fingerprint != other.fingerprint


def test_a_set_begun_with_other_settings_is_refused(tmp_path):
    Writer(tmp_path, pixels=16, settings={"seed": 1, "plan": "a"})
    with pytest.raises(ValueError, match=r"other settings \(seed\).*another folder"):
        Writer(tmp_path, pixels=16, settings={"seed": 2, "plan": "a"})


def test_another_format_is_named(tmp_path):
    store = prepare(FakeCohort(SMALL), tmp_path)
    meta = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**meta, "format": 0}))
    with pytest.raises(ValueError, match="format 0"):
        Store.open(store.folder)


def test_rejected_subjects_are_listed_and_leave_the_table(tmp_path):
    store = prepare(Faulty(SMALL), tmp_path, max_rejected=0.5)
    rejected = pd.read_csv(store.folder / "rejected.csv")
    assert len(rejected) == store.meta["rejected"] == SMALL / 4
    assert set(rejected.reason) == {"labels: file is missing"}
    assert set(store.subjects.subject) == set(store.index.subject)
    assert not set(rejected.subject) & set(store.subjects.subject)


def test_too_many_rejected_subjects_stop_with_their_reasons(tmp_path):
    with pytest.raises(
        ValueError, match=r"6 subjects rejected, more than 5%.*rejected.csv\n +6  labels: file is missing"
    ):
        prepare(Faulty(SMALL), tmp_path)
    assert not Store(unfinished(tmp_path)).complete


def test_a_chunk_without_a_readable_subject_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    store = prepare(Faulty(8), tmp_path, max_rejected=0.5)
    assert store.meta["subjects"] == 6


def test_a_cohort_without_subjects_says_why(tmp_path):
    class Empty(FakeCohort):
        def subjects(self):
            return super().subjects()[0].iloc[:0], pd.DataFrame(
                {"subject": ["SYN0001"], "reason": "Info.cfg is missing"}
            )

    with pytest.raises(ValueError, match="no usable subject\n +1  Info.cfg is missing"):
        prepare(Empty(), tmp_path)


def test_undersampling_thins_the_store_but_not_the_table(tmp_path):
    store = prepare(FakeCohort(72, controls_per_case=0.5), tmp_path)
    train = store.index[store.index.central & (store.index.split == "train")]
    assert (train.label == 0).sum() == round((train.label == 1).sum() / 2)
    assert len(store.subjects) == 72
    balanced = store.subjects[store.subjects.balanced & (store.subjects.split == "train")]
    assert set(balanced.subject) <= set(store.index.subject)


def test_results_come_in_order_and_few_wait():
    started: list[int] = []

    def work(k):
        started.append(k)
        return k

    results = ordered(work, range(100), workers=2)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(1, 100))


@pytest.mark.parametrize("place", ["val", "test"])
def test_synthetic_data_from_held_out_subjects_are_refused(tmp_path, place):
    subjects = prepare(FakeCohort(SMALL), tmp_path).subjects
    train, held_out = (subjects[subjects.split == name] for name in ("train", place))
    check_sources(train, subjects)
    rows = pd.concat([train, held_out]).reset_index(drop=True)
    with pytest.raises(
        ValueError, match=f"{held_out.subject.iloc[0]}: masks come from the {place} split .*Rebuild the plan"
    ):
        check_sources(rows, subjects)


def test_synthetic_data_from_strangers_are_refused(tmp_path):
    store = prepare(FakeCohort(SMALL), tmp_path)
    with pytest.raises(ValueError, match="SYN9999"):
        check_sources(pd.DataFrame({"subject": ["SYN9999"]}), store.subjects)


def test_a_synthetic_set_opens_with_its_own_cohort_only(tmp_path):
    mine, other = prepare(FakeCohort(SMALL), tmp_path), prepare(FakeCohort(SMALL + 12), tmp_path)
    folder = fake_set(tmp_path / "set", mine, count=20).folder
    assert len(open_synthetic(folder, mine).index) == 20
    with pytest.raises(ValueError, match=f"another cohort .*{mine.fingerprint}.*{other.fingerprint}"):
        open_synthetic(folder, other)
    with pytest.raises(FileNotFoundError, match=r"generate\.py"):
        open_synthetic(tmp_path / "nowhere", mine)
