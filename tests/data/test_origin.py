"""Stores that open without their source, are compared when asked, and work with another salt, place
or owner."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata import origin, pseudonyms
from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.phantom.challenge_trees import write_acdc
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.pooled import Pooled
from cmrdata.prepare import opened, prepare
from cmrdata.store import Store
from cmrdata.synthetic import named_by_rows, open_synthetic
from cmrstudy.inputs import fingerprint_at
from cmrstudy.inspection import changes
from support.fake_cohort import fake_set

SMALL = {"pixels": 16, "max_rejected": 1.0}


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen patients in ACDC's layout."""
    root = tmp_path_factory.mktemp("hearts") / "acdc"
    write_acdc(
        Phantom(subjects=15, hf_share=0.5, seed=3),
        root,
        count=15,
        pixels=64,
        mm=3.0,
        slices=5,
        frames=8,
    )
    return root


@pytest.fixture
def source(hearts: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hearts, tmp_path / "source"))


def cohort(root: Path | None, data: Path, **more) -> ACDC:
    return ACDC(root=root, salt_root=data, **{**SMALL, **more})


def store(root: Path | None, data: Path, *, refresh: bool = False, **more) -> Store:
    return prepare(cohort(root, data, **more), data, refresh=refresh)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch):
    """Afterwards nobody may look into a cohort's source or salt."""

    def refuse(*_, **__):
        pytest.fail("the source was touched")

    def arm() -> None:
        for name in ("find", "subjects", "source", "stacks"):
            monkeypatch.setattr(ACDC, name, refuse)
        monkeypatch.setattr(pseudonyms, "read_salt", refuse)

    return arm


def test_a_second_opening_touches_neither_table_nor_folders_nor_salt(
    source, tmp_path, untouched, monkeypatch
):
    first = store(source, tmp_path / "data")
    untouched()
    looked: list[str] = []
    for name in ("stat", "scandir", "open"):
        inner = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda path, *a, inner=inner, **k: looked.append(str(path)) or inner(path, *a, **k),
        )
    assert store(source, tmp_path / "data").folder == first.folder
    assert not [path for path in looked if str(source) in path]


@pytest.mark.parametrize("where", ["gone", "null"])
def test_an_unmounted_or_unnamed_source_is_told_and_the_store_opens(
    source, tmp_path, capsys, where
):
    first = store(source, tmp_path / "data")
    shutil.rmtree(source)
    (tmp_path / "data" / "salt").unlink()
    again = store(source.parent / "elsewhere" if where == "gone" else None, tmp_path / "data")
    assert again.folder == first.folder
    out = capsys.readouterr().out
    assert "opened as made on 20" in out and "its source is not there (cohort.root=" in out
    # where it was
    assert store(source, tmp_path / "data").folder == first.folder and not capsys.readouterr().out


def test_without_a_store_a_missing_source_is_the_readers_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no patient folders"):
        store(tmp_path / "nowhere", tmp_path / "data")


def test_other_settings_are_not_opened_for_these(source, tmp_path):
    first = store(source, tmp_path / "data")
    assert opened(cohort(source, tmp_path / "data"), tmp_path / "data").folder == first.folder
    for changed in (
        {"pixels": 18},
        {"label": "ef"},
        {"fold": 1},
        {"ef_below": 30.0},
        {"seed": 1},
        {"reach": 0},
    ):
        assert opened(cohort(source, tmp_path / "data", **changed), tmp_path / "data") is None, (
            changed
        )
    other = store(source, tmp_path / "data", pixels=18)
    assert other.folder != first.folder and other.fingerprint != first.fingerprint


def test_a_moved_source_is_recognised_and_remembered(source, tmp_path, capsys, untouched):
    first = store(source, tmp_path / "data")
    moved = tmp_path / "moved"
    source.rename(moved)
    assert store(moved, tmp_path / "data").folder == first.folder
    assert f"the same source, moved to root={moved}" in capsys.readouterr().out
    untouched()
    assert store(moved, tmp_path / "data").folder == first.folder


def test_another_source_of_the_same_settings_has_a_store_of_its_own(source, tmp_path):
    first = store(source, tmp_path / "data")
    other_root = Path(shutil.copytree(source, tmp_path / "other"))
    shutil.rmtree(next(other_root.glob("**/patient*")))
    other = store(other_root, tmp_path / "data")
    assert other.fingerprint != first.fingerprint and len(other.subjects) == len(first.subjects) - 1
    assert store(source, tmp_path / "data").folder == first.folder
    assert store(other_root, tmp_path / "data").folder == other.folder
    with pytest.raises(
        ValueError, match="2 stores below .* fit: .*root=.*source.*Name one by its root="
    ):
        store(None, tmp_path / "data")


def labels(root: Path) -> Path:
    return sorted(root.glob("**/*_gt.nii.gz"))[0]


def test_a_change_is_noticed_when_asked_and_the_old_store_is_named(source, tmp_path, capsys):
    first = store(source, tmp_path / "data")
    capsys.readouterr()  # what is said of the pictures' size
    assert (
        store(source, tmp_path / "data", refresh=True).folder == first.folder
        and not capsys.readouterr().out
    )
    file = labels(source)
    size = file.stat().st_size
    volume = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(volume[:-400] + bytes(400), mtime=1)[:size].ljust(size, b"\0"))
    assert file.stat().st_size == size
    assert store(source, tmp_path / "data").folder == first.folder  # nobody asked
    renewed = store(source, tmp_path / "data", refresh=True)
    assert renewed.fingerprint != first.fingerprint
    assert (
        f"{first.folder}: its source has changed, {renewed.folder.name} takes its place"
        in capsys.readouterr().out
    )
    assert store(source, tmp_path / "data").folder == renewed.folder
    # what runs that rest on the old one learn
    assert fingerprint_at(first.folder) == renewed.fingerprint


def test_an_inspection_says_that_a_store_was_made_of_other_files(source, tmp_path):
    first = store(source, tmp_path / "data")
    assert changes(cohort(source, tmp_path / "data"), tmp_path / "data") == []
    labels(source).write_bytes(labels(source).read_bytes()[:-9])
    (told,) = changes(cohort(source, tmp_path / "data"), tmp_path / "data")
    assert told.startswith(
        f"{first.folder} was made of other files (1 subject differs); refresh=true"
    )


def test_files_that_were_only_touched_or_copied_are_the_same(source, tmp_path):
    first = store(source, tmp_path / "data")
    for path in source.rglob("*.nii.gz"):
        os.utime(path, (1, 1))
    assert store(source, tmp_path / "data", refresh=True).folder == first.folder
    assert (
        store(Path(shutil.copytree(source, tmp_path / "copy")), tmp_path / "data").folder
        == first.folder
    )


@pytest.mark.parametrize("kind", [".nii.gz", ".nii", ".cfg", ".big"])
def test_content_of_one_size_and_time_is_told_apart(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(origin, "WHOLE", 100)
    monkeypatch.setattr(origin, "PIECE", 10)
    path, draws = tmp_path / f"a{kind}", np.random.default_rng(0)
    marks = set()
    for _ in range(2):
        content = draws.integers(0, 256, 400, dtype=np.uint8).tobytes()
        path.write_bytes(gzip.compress(content, mtime=0) if kind.endswith("gz") else content)
        marks.add(origin.check(path, path.stat().st_size))
    assert len(marks) == 2


def test_a_recent_time_proves_nothing(tmp_path):
    path = tmp_path / "Info.cfg"
    path.write_text("ED: 1")
    states, _ = origin.look({"S": [path]})
    stat = path.stat()
    # looked at in the moment it was written
    earlier = origin.Origin({}, {}, stat.st_mtime_ns, states)
    path.write_text("ED: 2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert origin.look({"S": [path]}, earlier)[1] == ["S"]
    later = earlier._replace(looked=stat.st_mtime_ns + 10 * origin.RACY)
    assert origin.look({"S": [path]}, later)[1] == []  # size and an old time are believed


def test_an_edit_that_keeps_size_and_an_old_time_is_noticed(tmp_path):
    path = tmp_path / "labels.nii.gz"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    states, _ = origin.look({"S": [path]})
    earlier = origin.Origin({}, {}, time.time_ns(), states)
    path.write_bytes(b"two")
    os.utime(path, (1, 1))
    assert origin.look({"S": [path]}, earlier)[1] == ["S"]


# two salts


def test_two_salts_give_one_fingerprint_the_same_rows_and_other_names(source, tmp_path):
    a, b = (store(source, tmp_path / name) for name in "ab")
    assert a.fingerprint == b.fingerprint and a.folder.name == b.folder.name
    assert not set(a.subjects.subject) & set(b.subjects.subject)
    for name in ("images.u8", "masks.u8"):
        assert (a.folder / name).read_bytes() == (b.folder / name).read_bytes()
    pd.testing.assert_frame_equal(a.index.drop(columns="subject"), b.index.drop(columns="subject"))


def test_a_set_made_with_one_salt_works_with_the_other(source, tmp_path):
    a, b = (store(source, tmp_path / name) for name in "ab")
    made = fake_set(tmp_path / "set", a, count=12)
    here, there = open_synthetic(made.folder, a), open_synthetic(made.folder, b)
    assert set(there.index.subject) <= set(b.subjects.subject)
    assert (
        b.index.subject[there.index.source_row].to_numpy() == there.index.subject.to_numpy()
    ).all()
    pd.testing.assert_frame_equal(
        here.index.drop(columns="subject"), there.index.drop(columns="subject")
    )


def test_rows_that_disagree_with_their_names_or_are_not_there_are_refused(source, tmp_path):
    a, b = (store(source, tmp_path / name) for name in "ab")
    rows = pd.DataFrame({"subject": a.index.subject[[3, 5]].to_numpy(), "source_row": [3, 5]})
    for names in (a.meta["names"], None):
        assert (
            named_by_rows(rows, b, names=names, what="x").subject.tolist()
            == b.index.subject[[3, 5]].tolist()
        )
    with pytest.raises(ValueError, match="x: 1 rows name another subject"):
        named_by_rows(
            rows.assign(source_row=[3, len(a.index) - 1]), a, names=a.meta["names"], what="x"
        )
    with pytest.raises(ValueError, match="x: it names rows that the cohort's store does not have"):
        named_by_rows(rows.assign(source_row=[3, len(a.index)]), a, names=None, what="x")


def test_a_colleague_without_the_salt_opens_a_copied_store(source, tmp_path):
    first = store(source, tmp_path / "mine")
    theirs = tmp_path / "theirs" / first.folder.name
    shutil.copytree(first.folder, theirs, ignore=shutil.ignore_patterns(origin.ORIGIN_FILE))
    again = store(None, tmp_path / "theirs")
    assert again.folder == theirs and again.fingerprint == first.fingerprint
    assert not (tmp_path / "theirs" / "salt").exists()


def test_a_data_root_that_may_not_be_written_gives_its_stores(source, tmp_path, monkeypatch):
    first = store(source, tmp_path / "data")
    source.rename(tmp_path / "moved")

    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(origin, "write_atomic", refuse)
    assert store(tmp_path / "moved", tmp_path / "data").folder == first.folder


def test_two_participants_of_one_name_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(pseudonyms, "hashed", lambda identifier, salt: "S1")
    with pytest.raises(
        ValueError, match="1 participants would share another's name.*a new salt gives new names"
    ):
        pseudonyms.renamed(["SYN0001", "SYN0002"], tmp_path)


def test_a_pool_knows_the_places_and_files_of_its_members(source, tmp_path):
    def pool(root: Path | None) -> Pooled:
        return Pooled(cohorts={"acdc": cohort(root, tmp_path / "data")}, of=["acdc"], **SMALL)

    first = prepare(pool(source), tmp_path / "data")
    assert prepare(pool(None), tmp_path / "data").folder == first.folder
    labels(source).write_bytes(labels(source).read_bytes()[:-9])
    assert prepare(pool(source), tmp_path / "data", refresh=True).fingerprint != first.fingerprint


def test_a_phantom_is_not_drawn_to_open_its_store(tmp_path, monkeypatch):
    first = prepare(Phantom(subjects=20, pixels=16), tmp_path)
    monkeypatch.setattr(
        "cmrdata.cohorts.phantom.cohort.draw_people", lambda *_, **__: pytest.fail("drawn")
    )
    assert prepare(Phantom(subjects=20, pixels=16), tmp_path).folder == first.folder


# what is looked at, by the bytes


def test_a_small_file_is_read_whole_and_a_large_one_in_spread_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "WHOLE", 100)
    monkeypatch.setattr(origin, "PIECE", 10)
    path = tmp_path / "a"

    def checked(data: bytes) -> str:
        path.write_bytes(data)
        return origin.check(path, len(data))

    small = bytes(range(100))
    assert checked(small) == hashlib.sha256(small).hexdigest()[:16]
    large = bytes(k % 251 for k in range(801))
    places = [791 * k // 7 for k in range(8)]
    assert places[0] == 0 and places[-1] == 791
    pieces = b"".join(large[at : at + 10] for at in places)
    assert checked(large) == hashlib.sha256(pieces).hexdigest()[:16]
    assert origin.check(tmp_path / "gone", 5) == "unreadable (FileNotFoundError)"


def test_a_file_is_read_again_where_size_or_time_or_the_moment_tells(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    os.utime(path, ns=(5, 5))
    read = []
    monkeypatch.setattr(origin, "check", lambda path, size: read.append(path) or "new")
    stat = path.stat()
    later = stat.st_ctime_ns + origin.RACY + 1

    def state(old, *, looked=later):
        read.clear()
        return origin._state(path, old, origin.Origin({}, {}, looked, {}) if looked else None)

    known = [3, 5, "old"]
    assert state(known) == known and not read
    for old, looked in (
        ([4, 5, "old"], later),
        ([3, 6, "old"], later),
        (known, later - 1),
        (known, None),
        (None, later),
    ):
        assert state(old, looked=looked) == [3, 5, "new"] and read == [path]
    assert origin._state(tmp_path / "gone", known, None) is None
    before = origin.Origin({}, {}, later, {"a": [known], "b": [None], "c": [[1, 2, "x"]]})
    states, changed = origin.look({"a": [path], "b": [path], "d": [path, path]}, before)
    assert changed == ["b", "d", "c"] and states["a"] == [known] and len(states["d"]) == 2
    assert origin.look({"a": [path]})[1] == []


def test_places_that_are_watched_are_files_that_are_there(tmp_path):
    (tmp_path / "list.csv").write_text("1")
    places = {"exclude": str(tmp_path / "list.csv"), "table": None, "root": str(tmp_path)}
    hashes = origin.watched(places, ("exclude", "table", "root", "other"))
    assert hashes == {"exclude": hashlib.sha256(b"1").hexdigest()[:16]}
