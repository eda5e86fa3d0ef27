"""Preparation in processes of their own: killed at any moment, two at once, and on a disk with a
limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata import prepare as module
from cmrdata.disk import Unwritable
from cmrdata.prepare import prepare
from cmrdata.protocol import Stacks
from cmrdata.pseudonyms import read_salt
from support.fake_cohort import FakeCohort

# a clean parent: threads and forks do not mix
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["cmrdata.synthetic", "pytest", "pyarrow.parquet"])
CHUNK = 4
COUNT = 48
WAITING = "waiting for another process that is writing"


@dataclass
class Slow(FakeCohort):
    """Takes `seconds` a subject, notes in the file `log` whom it was asked for, and cannot read
    every seventh.

    Half-way it waits until the file `gate` is there.
    """

    log: Path = Path(os.devnull)
    seconds: float = 0.0
    gate: Path = Path(os.devnull)
    max_rejected: float = 0.5

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        for subject in subjects.subject:
            time.sleep(self.seconds)
            while int(subject[3:]) >= COUNT // 2 and not self.gate.exists():
                time.sleep(0.01)
            with self.log.open("a") as file:
                file.write(f"{subject}\n")
        images, masks, index, _ = super().stacks(subjects)
        bad = subjects.subject[subjects.subject.str[3:].astype(int) % 7 == 0]
        good = ~index.subject.isin(bad).to_numpy()
        return Stacks(
            images[good],
            masks[good],
            index[good],
            pd.DataFrame({"subject": bad, "reason": "no labels"}),
        )

    def asked(self) -> Counter[str]:
        return Counter(self.log.read_text().split()) if self.log.exists() else Counter()


def work(cohort: Slow, root: Path, said: Path, limit: int | None) -> None:
    """What a process does: prepare, with its words and its error in the file `said`."""
    module.CHUNK = CHUNK
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    with (
        said.open("a", buffering=1) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            prepare(cohort, root, workers=2)
        except Unwritable as error:
            print(f"Unwritable: {error}")


def begin(
    cohort: Slow, root: Path, *, said: Path, limit: int | None = None
) -> multiprocessing.process.BaseProcess:
    process = PROCESSES.Process(target=work, args=(cohort, root, said, limit))
    process.start()
    return process


def until(condition, *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.003)


def contents(root: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def finished(root: Path) -> set[str]:
    """Subjects that nobody should have to read again."""
    read: set[str] = set()
    for part in root.glob("*/parts/*.parquet"):
        read |= set(pd.read_parquet(part).subject)
        if (faults := part.with_suffix(".rejected.csv")).exists():
            read |= set(pd.read_csv(faults).subject)
    return read


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """The files of an uninterrupted store."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", CHUNK)
        prepare(Slow(COUNT), root)
    return contents(root)


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 4), *(pytest.param(k, 60, marks=pytest.mark.slow) for k in (1, 2, 3))]
)
def test_killed_at_any_moment_it_loses_nothing_that_was_finished(tmp_path, whole, seed, kills):
    rng, killed, rounds, safe = np.random.default_rng(seed), 0, 0, set()
    root = tmp_path / "0"
    while killed < kills:
        cohort = Slow(COUNT, log=tmp_path / f"log{killed}", seconds=0.01)
        process = begin(cohort, root, said=tmp_path / "said")
        goal = rng.integers(0, 20)  # how many it may begin to read, however slow this machine is
        until(
            lambda cohort=cohort, goal=goal, p=process: (
                cohort.asked().total() >= goal or not p.is_alive()
            )
        )
        process.join(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        assert not safe & set(cohort.asked())
        killed += process.exitcode == -9
        safe = finished(root)
        if any(root.glob("*/store.json")):  # a last one may have been too fast: begin another
            assert contents(root) == whole
            rounds += 1
            root, safe = tmp_path / str(rounds), set()
    cohort = Slow(COUNT, log=tmp_path / "last")
    last = begin(cohort, root, said=tmp_path / "said")
    last.join()
    assert last.exitcode == 0 and contents(root) == whole
    assert set(cohort.asked()) == {f"SYN{k:04d}" for k in range(COUNT)} - safe
    assert "Traceback" not in (tmp_path / "said").read_text()


def says(said: Path) -> str:
    return said.read_text() if said.exists() else ""


def test_two_at_once_read_every_subject_once(tmp_path, whole):
    gate, said = tmp_path / "gate", [tmp_path / f"said{k}" for k in range(2)]
    cohort = Slow(COUNT, log=tmp_path / "log", gate=gate)
    both = [begin(cohort, tmp_path / "data", said=file) for file in said]
    until(lambda: any(WAITING in says(file) for file in said))
    gate.touch()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert contents(tmp_path / "data") == whole
    assert set(cohort.asked().values()) == {1} and len(cohort.asked()) == COUNT
    assert sum(says(file).count(WAITING) for file in said) == 1


def test_when_the_first_is_killed_the_second_goes_on(tmp_path, whole):
    first = Slow(COUNT, log=tmp_path / "first", gate=tmp_path / "never")
    second = Slow(COUNT, log=tmp_path / "second")
    root, said = tmp_path / "data", tmp_path / "said"
    one = begin(first, root, said=tmp_path / "other")
    until(lambda: finished(root))
    other = begin(second, root, said=said)
    until(lambda: WAITING in says(said))
    assert not second.asked()
    one.kill()
    one.join()
    safe = finished(root)
    other.join()
    assert other.exitcode == 0 and contents(root) == whole
    assert 0 < len(safe) < COUNT and not safe & set(second.asked())
    assert says(said).count(WAITING) == 1


def test_a_file_that_may_not_grow_is_told_plainly_and_continued(tmp_path, whole):
    """The disk's limit as the system itself reports it, in the middle of a write."""
    root, said = tmp_path / "data", tmp_path / "said"
    images = max(len(data) for name, data in whole.items() if name.endswith("images.u8"))
    limited = begin(Slow(COUNT, log=tmp_path / "log"), root, said=said, limit=images // 2 + 777)
    limited.join()
    assert limited.exitcode == 0
    told = said.read_text()
    assert (
        "Unwritable: " in told
        and "File too large" in told
        and "data_root=" in told
        and "MB are needed" in told
    )
    safe = finished(root)
    again = Slow(COUNT, log=tmp_path / "again")
    process = begin(again, root, said=said)
    process.join()
    assert contents(root) == whole
    assert (
        len(safe) > COUNT / 4 and set(again.asked()) == {f"SYN{k:04d}" for k in range(COUNT)} - safe
    )


def salted(folder: Path, start: float, answers: Path) -> None:
    while time.monotonic() < start:
        pass
    (answers / str(os.getpid())).write_text(read_salt(folder))


def test_processes_that_first_need_a_salt_at_once_get_the_same(tmp_path):
    start, answers = time.monotonic() + 1, tmp_path / "answers"
    answers.mkdir()
    several = [
        PROCESSES.Process(target=salted, args=(tmp_path / "data", start, answers)) for _ in range(6)
    ]
    for process in several:
        process.start()
    for process in several:
        process.join()
    salts = [path.read_text() for path in answers.iterdir()]
    assert len(salts) == 6 and len(set(salts)) == 1 and len(salts[0]) == 32
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["salt"]
    assert (tmp_path / "data" / "salt").stat().st_mode & 0o077 == 0


def test_a_salt_is_whole_or_not_there(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def dying(*_):
        raise Killed

    for step in ("fsync", "link"):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            patch.setattr(os, step, dying)
            read_salt(tmp_path)
        assert not (tmp_path / "salt").exists()
    assert len(read_salt(tmp_path)) == 32
    (tmp_path / "salt").write_text("\n")
    with pytest.raises(ValueError, match="salt is empty; restore it, or delete it"):
        read_salt(tmp_path)


def test_without_hard_links_there_is_a_salt_too(tmp_path, monkeypatch):
    def unknown(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unknown)
    assert read_salt(tmp_path) == read_salt(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]


def test_a_salt_that_cannot_be_kept_names_the_place_and_the_remedy(tmp_path):
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(Unwritable, match=r"data cannot be written: .*salt .*data_root="):
        read_salt(tmp_path / "data")


# by the numbers


def test_room_is_that_of_the_least_and_the_most_rows():
    cohort = FakeCohort(pixels=10)
    people = pd.DataFrame({"split": ["train", "extra", "val", "test", "train"]})
    row = 4 * 100  # two images and two masks of ten by ten
    assert module._room(people, cohort) == (5 * row, (3 * 9 + 2) * row)
    assert module._room(people, cohort, spared=2) == (3 * row, 29 * row)
    assert module._room(people, cohort, spared=9)[0] == 0
    cohort.reach = 2
    assert module._room(people, cohort)[1] == (3 * 15 + 2) * row
    cohort.reach, cohort.cine = 1, 6
    assert module._room(people, cohort) == (5 * 800, (3 * 3 + 2) * 800)
    assert module._room(people[:0], cohort) == (0, 0)


def test_too_many_rejected_are_one_more_than_allowed(tmp_path):
    def check(count: int, of: int = 20) -> None:
        gone = [f"SYN{k:04d}" for k in range(count)]
        rejected = pd.DataFrame({"subject": gone, "reason": ["b", "a", "a", "c"][:count]})
        module._check_rejected(rejected, FakeCohort(max_rejected=0.1), of, tmp_path / "store")

    check(0)
    check(2)
    assert not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match="(?s)3 subjects rejected, more than 10% of 20") as error:
        check(3)
    assert str(error.value).endswith("cohort.max_rejected=\n     2  a\n     1  b")
    assert len(pd.read_csv(tmp_path / "store" / "rejected.csv")) == 3
    assert module.reasons(pd.DataFrame({"reason": []})) == "(nothing rejected)"
    several = pd.DataFrame({"reason": ["no labels", "damaged", "damaged"]})
    assert module.reasons(several) == "     2  damaged\n     1  no labels"


def test_who_lacks_masks_is_told_how_to_get_them():
    def said(*reasons: str) -> str:
        return module.expected(FakeCohort(), pd.DataFrame({"reason": list(reasons)}, dtype=object))

    assert said() == "" == said("constant image") == said("ED labels: file is missing", "empty")
    for reason in ("ED labels: file is missing", "labels: no seg_sa.nii.gz", "unlabelled"):
        assert said(reason, "unlabelled").startswith("Images are there and masks are not: ")
    assert module.nobody(FakeCohort(), pd.DataFrame({"reason": ["x"]})) == (
        "cohort fake: no usable subject\n     1  x"
    )


def test_results_are_joined_some_at_a_time():
    def result(number: int) -> Stacks:
        images = np.full((number, 2, 4, 4), number, np.uint8)
        index = pd.DataFrame({"subject": [f"SYN{number}"] * number})
        return Stacks(images, images + 1, index, pd.DataFrame({"subject": [number], "reason": "x"}))

    joined = list(module._joined(map(result, (1, 2, 3, 1)), 3))
    assert [len(part.images) for part in joined] == [6, 1]
    assert joined[0].images[:, 0, 0, 0].tolist() == [1, 2, 2, 3, 3, 3]
    assert joined[0].masks[:, 0, 0, 0].tolist() == [2, 3, 3, 4, 4, 4]
    assert joined[0].index.index.tolist() == list(range(6)) and joined[
        0
    ].rejected.index.tolist() == [0, 1, 2]
    assert list(module._joined([], 3)) == []


def test_space_that_may_not_do_is_told(tmp_path, monkeypatch, capsys):
    free = {"bytes": 7_000_000}
    monkeypatch.setattr(module, "check_room", lambda folder, least, needs: free["bytes"])
    module._check_room(tmp_path, 10**6, 7_000_000)
    assert capsys.readouterr().out == ""
    module._check_room(tmp_path, 10**6, 7_000_001)
    assert capsys.readouterr().out == (
        f"{tmp_path} may not fit on its disk: 1.0 MB to 7.0 MB are needed, 7.0 MB are free\n"
    )
    free["bytes"] = None  # which nobody knows
    module._check_room(tmp_path, 10, 10**9)
    assert capsys.readouterr().out == ""


def test_a_balanced_set_has_as_many_controls_as_cases_and_names_are_those_of_the_salt(tmp_path):
    salted = FakeCohort(count=72)
    salted.salt_root = tmp_path
    read_salt(tmp_path)
    store = prepare(salted, tmp_path / "data")
    people = store.subjects
    train = people[(people.split == "train") & people.balanced]
    assert (
        train.label.value_counts().nunique() == 1 and people.balanced[people.split != "train"].all()
    )
    assert (
        store.meta["names"]
        and prepare(FakeCohort(count=72), tmp_path / "plain").meta["names"] is None
    )
