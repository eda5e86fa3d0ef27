"""The slice store: what goes in, what an interruption, a full disk, other settings or damage do to
it."""

import errno
import json
import os
import shutil
from collections import namedtuple
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata import disk, store
from cmrdata import prepare as module
from cmrdata.disk import Unwritable
from cmrdata.prepare import prepare
from cmrdata.protocol import Stacks, ordered
from cmrdata.store import STORE_FORMAT, Store, Writer
from support.fake_cohort import FakeCohort

SMALL = 24  # subjects, in chunks of 5
NOBODY = pd.DataFrame({"subject": [], "reason": []}, dtype=object)


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Store:
    """An uninterrupted store of SMALL subjects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 5)
        return prepare(FakeCohort(SMALL), tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """A copy of it, where `prepare` with the root `tmp_path` finds it."""
    return Path(shutil.copytree(whole.folder, tmp_path / whole.folder.name))


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The subjects that were read, in turn."""
    read: list[str] = []
    inner = FakeCohort.stacks

    def watched(self, subjects):
        read.extend(subjects.subject)
        return inner(self, subjects)

    monkeypatch.setattr(FakeCohort, "stacks", watched)
    return read


def contents(store: Store) -> dict[str, bytes]:
    """Every file but the lock."""
    files = [path for path in store.folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(store.folder).as_posix(): path.read_bytes() for path in files}


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


def names(*numbers: int) -> list[str]:
    return [f"SYN{k:04d}" for k in numbers]


def stop_at(monkeypatch, subject: str) -> None:
    """Whoever reads this subject dies."""
    inner = FakeCohort.stacks

    def killed(self, subjects):
        if subject in set(subjects.subject):
            raise Killed
        return inner(self, subjects)

    monkeypatch.setattr(FakeCohort, "stacks", killed)


@pytest.mark.parametrize("subject", ["SYN0000", "SYN0012", "SYN0023"])
def test_a_killed_preparation_continues_to_the_same_bytes(tmp_path, whole, asked, subject):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, subject)
        prepare(FakeCohort(SMALL), tmp_path / "cut")
    folder = unfinished(tmp_path / "cut")
    with pytest.raises(FileNotFoundError, match="no finished set"):
        Store.open(folder)
    for name in ("images.u8", "masks.u8"):  # a torn write behind the last finished part
        with open(folder / name, "ab") as file:
            file.write(b"\xff" * 777)
    asked.clear()
    assert contents(prepare(FakeCohort(SMALL), tmp_path / "cut")) == contents(whole)
    assert sorted(asked) == names(*range(int(subject[3:]) // 5 * 5, SMALL))


def test_killed_in_any_write_it_continues_to_the_same_bytes(tmp_path, monkeypatch):
    uncut, last = contents(prepare(Faulty(6, max_rejected=1), tmp_path / "whole")), 0
    rename, append = module.write_atomic, store.append_at
    while True:
        step = count()

        def dying(path, content, step=step, last=last):
            if next(step) == last:  # beside the file, before the rename
                path.with_name(f".{path.name}.99").write_bytes(b"torn")
                raise Killed
            rename(path, content)

        def tearing(path, array, *, at, step=step, last=last):
            if next(step) == last:
                append(path, memoryview(array).cast("B")[: memoryview(array).nbytes // 2], at=at)
                raise Killed
            append(path, array, at=at)

        root = tmp_path / f"cut{last}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "write_atomic", dying)
            patch.setattr(store, "write_atomic", dying)
            patch.setattr(store, "append_at", tearing)
            try:
                prepare(Faulty(6, max_rejected=1), root)
            except Killed:
                pass
            else:
                break
        assert contents(prepare(Faulty(6, max_rejected=1), root)) == uncut, last
        last += 1
    # settings; two files made; two files and an index for each of two parts, and rejected of the
    # first; four tables
    assert last == 1 + 2 + 2 * 3 + 1 + 4


def test_another_chunk_size_continues_what_is_there(tmp_path, monkeypatch, asked):
    whole = contents(prepare(Faulty(SMALL, max_rejected=1), tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        stop_at(patch, "SYN0017")
        prepare(Faulty(SMALL, max_rejected=1), tmp_path / "cut")
    monkeypatch.setattr(module, "CHUNK", 4)
    asked.clear()
    resumed = contents(prepare(Faulty(SMALL, max_rejected=1), tmp_path / "cut"))
    assert sorted(asked) == names(*range(15, SMALL))
    assert {name: data for name, data in resumed.items() if not name.startswith("parts")} == {
        name: data for name, data in whole.items() if not name.startswith("parts")
    }


@pytest.mark.parametrize("damage", ["images", "part", "gap"])
def test_a_part_that_lost_its_bytes_is_made_again(tmp_path, capsys, whole, copied, asked, damage):
    (copied / "store.json").unlink()
    part, images = copied / "parts" / "000003.parquet", copied / "images.u8"
    if damage == "images":
        images.write_bytes(images.read_bytes()[: 3 * images.stat().st_size // 4])
    elif damage == "part":
        part.write_bytes(part.read_bytes()[:40])
    else:
        part.unlink()
    assert contents(prepare(FakeCohort(SMALL), tmp_path)) == contents(whole)
    assert 0 < len(asked) < SMALL
    assert "are made again" in capsys.readouterr().out


def test_the_number_of_workers_does_not_change_the_bytes(tmp_path, whole):
    for workers in (1, 4):
        assert contents(
            prepare(FakeCohort(SMALL), tmp_path / str(workers), workers=workers)
        ) == contents(whole)


def test_a_finished_store_is_used_again_unread_and_without_writing(
    tmp_path, monkeypatch, copied, asked
):
    monkeypatch.setattr(
        disk, "FileLock", lambda *_: pytest.fail("a disk that cannot be written takes no lock")
    )
    assert prepare(FakeCohort(SMALL), tmp_path).folder == copied
    assert not asked


@pytest.mark.parametrize("changed", [{"count": SMALL + 12}, {"pixels": 18}, {"unknown": ("bmi",)}])
def test_other_settings_make_another_store(tmp_path, whole, changed):
    first, other = whole, prepare(FakeCohort(**{"count": SMALL, **changed}), tmp_path)
    assert first.folder.name != other.folder.name and first.fingerprint != other.fingerprint


def test_a_set_begun_with_other_settings_is_refused(tmp_path):
    Writer(tmp_path, pixels=16, settings={"seed": 1, "plan": "a"})
    with pytest.raises(ValueError, match=r"other settings \(seed\).*another folder"):
        Writer(tmp_path, pixels=16, settings={"seed": 2, "plan": "a"})


def test_what_differs_from_the_last_store_is_said_once(tmp_path, capfd):
    def said(**settings):
        folder = prepare(FakeCohort(8, **settings), tmp_path).folder
        return capfd.readouterr().out.splitlines(), folder

    nothing, first = said()
    told, second = said(pixels=18)
    assert not nothing
    assert told == [f"{first} was made with other settings (pixels 16 -> 18); making {second}"]
    assert said(pixels=18) == ([], second) and not said(name="fake-other")[0]
    told, _ = said(pixels=18, unknown=("sex",))
    assert "(another subject table, unknown [] -> ['sex'])" in told[0]


def test_a_store_of_another_version_is_named_and_made_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, "STORE_FORMAT", store.STORE_FORMAT - 1)
    monkeypatch.setattr(module, "STORE_FORMAT", store.STORE_FORMAT)
    old = prepare(FakeCohort(8), tmp_path).folder
    monkeypatch.undo()
    assert prepare(FakeCohort(8), tmp_path).folder != old
    assert (
        f"{old} was made with other settings (format {store.STORE_FORMAT - 1} -> {store.STORE_FORMAT})"
        in capsys.readouterr().out
    )
    with pytest.raises(
        ValueError, match=f"written in format {store.STORE_FORMAT - 1}.*delete this folder"
    ):
        Store.open(old)


DAMAGE = {
    "images.u8 has": lambda f: (f / "images.u8").write_bytes((f / "images.u8").read_bytes()[:-1]),
    "masks.u8 has 0 bytes": lambda f: (f / "masks.u8").unlink(),
    "index.parquet is missing": lambda f: (f / "index.parquet").unlink(),
    "index.parquet is missing or damaged": lambda f: (f / "index.parquet").write_bytes(b"PAR1"),
    "index.parquet has 5 rows": lambda f: (
        pd.read_parquet(f / "index.parquet").head(5).to_parquet(f / "index.parquet")
    ),
    "subjects.csv is missing": lambda f: (f / "subjects.csv").unlink(),
    "store.json is damaged": lambda f: (f / "store.json").write_text(""),
    "json is damaged": lambda f: (f / "store.json").write_text("{}"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_store_is_refused_with_the_remedy(tmp_path, copied, fault):
    DAMAGE[fault](copied)
    with pytest.raises(
        ValueError, match=f"{copied}: .*{fault}.*; delete this folder, the next run makes it anew"
    ):
        prepare(FakeCohort(SMALL), tmp_path)


def test_a_begun_store_without_readable_settings_is_refused_with_the_remedy(tmp_path, copied):
    (copied / "store.json").unlink()
    (copied / "settings.json").write_text("")
    with pytest.raises(ValueError, match=r"settings\.json is damaged; delete this folder"):
        prepare(FakeCohort(SMALL), tmp_path)


def test_rejected_subjects_are_listed_and_leave_the_table(tmp_path):
    store = prepare(Faulty(SMALL, max_rejected=0.5), tmp_path)
    rejected = pd.read_csv(store.folder / "rejected.csv")
    assert len(rejected) == store.meta["rejected"] == SMALL / 4
    assert set(rejected.reason) == {"labels: file is missing"}
    assert set(store.subjects.subject) == set(store.index.subject)
    assert not set(rejected.subject) & set(store.subjects.subject)


def test_too_many_rejected_subjects_stop_as_soon_as_that_is_certain(tmp_path, asked):
    with pytest.raises(ValueError, match="2 subjects rejected, more than 5% of 24") as stopped:
        prepare(Faulty(SMALL), tmp_path, workers=1)
    folder = unfinished(tmp_path)
    assert str(folder / "rejected.csv") in str(stopped.value) and "cohort.max_rejected=" in str(
        stopped.value
    )
    assert str(stopped.value).endswith("\n     2  labels: file is missing")
    assert pd.read_csv(folder / "rejected.csv").subject.tolist() == names(0, 4)
    # of five chunks; the first is enough, three are ahead
    assert len(asked) <= 4 * 5 and not Store(folder).complete


def test_after_too_many_rejected_a_higher_limit_goes_on_from_there(tmp_path, asked):
    whole = prepare(Faulty(SMALL, max_rejected=0.5), tmp_path / "whole")
    asked.clear()
    for wanted in (5, 0):  # chunks read until it stops; then it knows
        with pytest.raises(ValueError, match="2 subjects rejected"):
            prepare(Faulty(SMALL), tmp_path / "cut", workers=1)
        assert bool(asked) == bool(wanted)
        asked.clear()
    assert contents(prepare(Faulty(SMALL, max_rejected=0.5), tmp_path / "cut")) == contents(whole)
    assert sorted(asked) == names(*range(5, SMALL))


def test_a_cohort_that_lists_too_many_unreadable_subjects_reads_none(tmp_path, asked):
    class Missing(FakeCohort):
        def subjects(self):
            return super().subjects()[0], pd.DataFrame(
                {"subject": names(90, 91), "reason": "folder is empty"}
            )

    with pytest.raises(
        ValueError, match=r"2 subjects rejected, more than 5% of 26(?s:.)* 2  folder is empty"
    ):
        prepare(Missing(SMALL), tmp_path)
    assert not asked


def test_exactly_as_many_rejected_as_allowed_are_borne(tmp_path):
    assert prepare(Faulty(SMALL, max_rejected=0.25), tmp_path).meta["rejected"] == SMALL * 0.25


def test_a_cohort_of_unreadable_subjects_says_why(tmp_path):
    class Broken(Faulty):
        every = 1

    with pytest.raises(ValueError, match=f"no usable subject\n +{SMALL}  labels: file is missing"):
        prepare(Broken(SMALL, max_rejected=1), tmp_path)


def test_a_chunk_without_a_readable_subject_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 1)
    store = prepare(Faulty(8, max_rejected=0.5), tmp_path)
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


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("append_at", errno.ENOSPC),
        ("append_at", errno.EDQUOT),
        ("append_at", errno.EFBIG),
        ("write_atomic", errno.EROFS),
        ("write_atomic", errno.EACCES),
    ],
)
def test_what_a_disk_refuses_is_told_once_and_continued_later(
    tmp_path, monkeypatch, whole, asked, step, number
):
    inner, calls = getattr(store, step), count()

    def refusing(path, *args, **kwargs):
        if next(calls) == 4:
            raise OSError(number, "the disk says no", str(path))
        inner(path, *args, **kwargs)

    monkeypatch.setattr(store, step, refusing)
    with pytest.raises(
        Unwritable,
        match="cannot be written: the disk says no; 0.0 MB to 0.1 MB are needed.*data_root=",
    ):
        prepare(FakeCohort(SMALL), tmp_path, workers=1)
    asked.clear()
    assert contents(prepare(FakeCohort(SMALL), tmp_path)) == contents(whole)
    # the first part; three
    assert sorted(asked) == names(*range(5 if step == "append_at" else 15, SMALL))


def test_a_place_below_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("in the way")
    for root in (tmp_path / "data", tmp_path / "data" / "deeper"):
        with pytest.raises(
            Unwritable, match=f"{root}.* cannot be written: .*MB are needed.*data_root="
        ):
            prepare(FakeCohort(8), root)


def space(monkeypatch, free: int) -> None:
    monkeypatch.setattr(
        disk.shutil, "disk_usage", lambda _: namedtuple("Usage", "total free")(10**9, free)
    )


def test_too_little_space_is_refused_before_any_subject_is_read(
    tmp_path, monkeypatch, capsys, whole, asked
):
    row = 4 * 16**2
    space(monkeypatch, 23 * row - 1)  # 1 of 24 may be rejected
    with pytest.raises(
        Unwritable,
        match=r"fake-[\w-]+: 0.0 MB to 0.1 MB are needed, 0.0 MB are free; free some space",
    ):
        prepare(FakeCohort(SMALL), tmp_path)
    assert not asked and "may not fit" not in capsys.readouterr().out
    space(monkeypatch, len(whole.index) * row - 1)
    folder = prepare(FakeCohort(SMALL), tmp_path).folder
    assert f"{folder} may not fit on its disk" in capsys.readouterr().out
    (folder / "store.json").unlink()
    space(monkeypatch, 0)  # all is there
    assert contents(prepare(FakeCohort(SMALL), tmp_path)) == contents(whole)
    assert "may not fit" not in capsys.readouterr().out


def test_a_wider_reach_asks_for_more_space(tmp_path, monkeypatch, capsys, whole):
    space(monkeypatch, len(whole.index) * 4 * 16**2)
    for reach in (1, 2):
        cohort = FakeCohort(SMALL)
        cohort.reach = reach
        prepare(cohort, tmp_path / str(reach))
        assert ("may not fit" in capsys.readouterr().out) == (reach == 2)


class Described(FakeCohort):
    """Columns of every kind, some missing for the first subjects or for all."""

    def subjects(self):
        table, rejected = super().subjects()
        k = np.arange(len(table))
        late = k >= 6  # the first chunk knows nothing
        return table.assign(
            site=np.where(late, "11025", None),
            state=None,
            vendor=np.where(late, "NA", None),
            conditions=np.where(k % 3 == 0, "mi;af", ""),
            table_flags=np.where(k == 20, "bmi_instance_0", None),
            ethnicity=np.where(late & (k % 2 == 0), "1001", None),
            pathology=[*[7] * 6, *["DCM"] * (len(k) - 6)],
            townsend=pd.Series(np.where(late, k / 7, np.nan)).astype(object),
            ef=np.where(late, 0.1 + k / 97, np.nan),
            diagnosis=table.diagnosis.where(late, None),
        ), rejected


def test_every_column_keeps_its_type(tmp_path):
    store = prepare(Described(SMALL), tmp_path)
    given = Described(SMALL).subjects()[0].set_index("subject")
    for table in (
        store.subjects.set_index("subject"),
        store.index[store.index.central].set_index("subject"),
    ):
        known = given.loc[table.index]
        for column in ("site", "vendor", "ethnicity", "sex", "diagnosis"):
            assert table[column].dropna().map(type).eq(str).all()
            assert table[column].fillna("?").tolist() == known[column].fillna("?").tolist(), column
        assert table.state.isna().all() and table.state.dtype == table.site.dtype
        assert table.conditions.tolist() == known.conditions.tolist()
        assert table.table_flags.tolist() == known.table_flags.fillna("").tolist()
        assert table.pathology.tolist() == known.pathology.map(str).tolist()
        for column in ("age", "bmi", "ef", "townsend"):
            np.testing.assert_array_equal(
                table[column].to_numpy(float), known[column].to_numpy(float)
            )
            assert table[column].dtype == float
        assert (
            table.label.isna().sum()
            == table.diagnosis.isna().sum()
            == (table.split == "extra").sum()
            == 6
        )
        assert set(table.label.dropna()) == {0, 1}
    assert (
        store.subjects.balanced.dtype
        == store.subjects.stored.dtype
        == store.index.central.dtype
        == bool
    )
    assert store.index["flags"].eq("").all()


def test_workers_are_the_usable_cores_and_no_more_than_eight(tmp_path, monkeypatch):
    seen = []

    def watched(function, items, *, workers):
        seen.append(workers)
        return ordered(function, items, workers=workers)

    monkeypatch.setattr(module, "ordered", watched)
    for cores in (1, 3, 64):
        monkeypatch.setattr(
            module.os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False
        )
        prepare(FakeCohort(8), tmp_path / str(cores))
    prepare(FakeCohort(8), tmp_path / "told", workers=12)
    assert seen == [1, 3, 8, 12]


def test_results_come_in_order_and_few_wait():
    started: list[int] = []

    def work(k):
        started.append(k)
        return k

    results = ordered(work, range(100), workers=2)
    assert next(results) == 0
    assert len(started) <= 6
    assert list(results) == list(range(1, 100))


def test_each_fault_of_a_set_is_told_by_what_is_wrong(tmp_path):
    images = np.zeros((3, 2, 4, 4), np.uint8)
    writer = Writer(tmp_path / "set", pixels=4, settings={"a": 1})
    writer.append(images, images, pd.DataFrame({"subject": list("abc")}))
    folder = tmp_path / "set"
    (folder / "subjects.csv").write_text("subject\n")
    writer.finish(subjects=3)
    meta = json.loads((folder / "store.json").read_text())
    assert {key: meta[key] for key in ("format", "pixels", "channels", "rows")} == {
        "format": STORE_FORMAT,
        "pixels": 4,
        "channels": 2,
        "rows": 3,
    }
    assert meta["settings"] == {"format": STORE_FORMAT, "a": 1}

    def fault(file: str, content: bytes | str | None) -> str:
        path = folder / file
        before = path.read_bytes()
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        try:
            Store.open(folder)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        finally:
            path.write_bytes(before)
        return ""

    ends = "; delete this folder, the next run makes it anew"
    for file, content, words in (
        ("store.json", "{", "store.json is damaged"),
        ("store.json", "[]", "store.json is damaged"),
        (
            "store.json",
            json.dumps({**meta, "format": 3}),
            f"written in format 3, this program reads {STORE_FORMAT}",
        ),
        (
            "store.json",
            json.dumps({**meta, "rows": 2}),
            "index.parquet has 3 rows, store.json says 2",
        ),
        ("index.parquet", None, "index.parquet is missing or damaged"),
        ("index.parquet", "x", "index.parquet is missing or damaged"),
        ("images.u8", bytes(95), "images.u8 has 95 bytes, 3 rows take 96"),
        ("images.u8", bytes(97), "images.u8 has 97 bytes, 3 rows take 96"),
        ("masks.u8", None, "masks.u8 has 0 bytes, 3 rows take 96"),
        ("subjects.csv", None, "subjects.csv is missing"),
    ):
        assert fault(file, content) == f"{folder}: {words}{ends}"
    assert "no finished set here (store.json is missing)" in fault("store.json", None)
    assert fault("subjects.csv", "subject\nx\n") == ""


def test_what_an_interrupted_writer_left_is_kept_as_far_as_it_is_whole(tmp_path, capsys):
    images = np.arange(3 * 2 * 16, dtype=np.uint8).reshape(3, 2, 4, 4)
    lost = pd.DataFrame({"subject": ["x"], "reason": ["NA"]})

    def begun(**change) -> Writer:
        return Writer(
            tmp_path / "set", **{"pixels": 4, "settings": {"a": {"b": 1}, "c": 2}, **change}
        )

    writer = begun()
    for number, letters in enumerate(("abc", "def", "ghi")):
        writer.append(
            images + number,
            images,
            pd.DataFrame({"subject": list(letters)}),
            rejected=lost if number else None,
        )
    again = begun()
    assert again.rows == 9 and again.done() == {*"abcdefghi", "x"} and capsys.readouterr().out == ""
    assert again.rejected().values.tolist() == [["x", "NA"]] * 2
    os.truncate(tmp_path / "set" / "masks.u8", 8 * 32 + 31)  # the ninth row is torn
    (tmp_path / "set" / ".images.u8.123").write_text("left")
    (tmp_path / "set" / "parts" / "odd").write_text("left")
    again = begun()
    assert again.rows == 6 and again.done() == {*"abcdef", "x"}
    assert "1 parts are damaged or lack their images, and are made again" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "set" / "parts").iterdir()) == [
        "000000.parquet",
        "000001.parquet",
        "000001.rejected.csv",
    ]
    assert not (tmp_path / "set" / ".images.u8.123").exists()
    assert [(tmp_path / "set" / name).stat().st_size for name in ("images.u8", "masks.u8")] == [
        192,
        192,
    ]
    (tmp_path / "set" / "parts" / "000000.parquet").rename(
        tmp_path / "set" / "parts" / "000005.parquet"
    )
    assert begun().rows == 0 and "2 parts are damaged" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"begun with other settings \(a, d\); choose another"):
        begun(settings={"a": {"b": 2}, "c": 2, "d": 1})
    (tmp_path / "set" / "settings.json").write_text("{")
    with pytest.raises(ValueError, match="settings.json is damaged; delete this folder"):
        begun()
