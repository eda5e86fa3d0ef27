"""Withdrawn participants: out of stores, caches, notes and plans; whatever else rests on them is
named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.prepare import keep_place, prepare
from cmrdata.pseudonyms import salt_mark
from cmrdata.store import Store
from cmrdata.withdraw import Trace, purge
from cmrstudy.inspection import inspect
from support.fake_cohort import fake_set

COUNT = 12


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ukbb") / "root"
    write_ukbb(
        Phantom(subjects=COUNT, seed=5, design="uniform", hf_share=0.5),
        root,
        count=COUNT,
        pixels=64,
        mm=2.8,
        slices=3,
        frames=8,
    )
    (root / "table.csv").rename(root.parent / "table.csv")
    return root


def cohort(tree: Path, data: Path, exclude: Path | None = None, *, pixels: int = 16) -> UKBB:
    return UKBB(
        root=tree,
        table=tree.parent / "table.csv",
        exclude=exclude,
        salt_root=data,
        pixels=pixels,
        max_rejected=1.0,
    )


@pytest.fixture
def study(tree: Path, tmp_path: Path) -> tuple[Store, Path, Path]:
    """A store with caches and notes, its list of two withdrawn people (one who trains), and runs
    that rest on them."""
    data, runs = tmp_path / "data", tmp_path / "runs"
    store = prepare(cohort(tree, data), data)
    inspect(cohort(tree, data), data)
    for name in ("moments-0123.f16", "prompts-1.safetensors"):
        (store.folder / name).write_bytes(b"made of everybody")
    (store.folder / "judges").mkdir()
    splits = store.subjects.split.tolist()
    numbers = [splits.index("train"), splits.index("test")]
    folders = sorted(path.name for path in tree.iterdir())
    (tmp_path / "withdrawn.txt").write_text("\n".join(folders[k] for k in numbers))
    return store, tmp_path / "withdrawn.txt", runs


def names(store: Store, tree: Path, data: Path, exclude: Path) -> set[str]:
    return cohort(tree, data, exclude).withdrawn() & set(store.subjects.subject)


def files_with(names: set[str], *folders: Path) -> list[Path]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(name.encode() in path.read_bytes() for name in names)]


def test_nothing_of_the_withdrawn_stays_in_store_caches_notes_and_plans(study, tree):
    store, exclude, runs = study
    data = store.folder.parent
    gone = names(store, tree, data, exclude)
    assert len(gone) == 2
    others = ~store.index.subject.isin(gone).to_numpy()
    images, masks, rest = (
        store.images[others].copy(),
        store.masks[others].copy(),
        store.index[others],
    )
    (runs / "plan" / "0").mkdir(parents=True)
    plan = pd.DataFrame({"row": range(6), "subject": [*gone, *rest.subject.unique()[:4]]})
    plan.to_csv(runs / "plan" / "0" / "plan.csv", index=False)

    traces = purge(gone, mark=salt_mark(data), data=data, runs=runs)
    assert not files_with(gone, data, runs)
    renewed = Store.open(store.folder)
    assert renewed.fingerprint != store.fingerprint
    np.testing.assert_array_equal(renewed.images, images)
    np.testing.assert_array_equal(renewed.masks, masks)
    pd.testing.assert_frame_equal(renewed.index, rest.reset_index(drop=True))
    assert renewed.subjects.subject.tolist() == [s for s in store.subjects.subject if s not in gone]
    kept = pd.read_csv(runs / "plan" / "0" / "plan.csv")
    assert len(kept) == 4 and kept.row.tolist() == [0, 1, 2, 3]
    assert {(trace.what, trace.many) for trace in traces} >= {
        ("store", 2),
        ("cache", 3),
        ("plan", 2),
    }
    assert not any(name in str(trace) for trace in traces for name in gone)
    # a second time finds nobody
    assert purge(gone, mark=salt_mark(data), data=data, runs=runs) == []


def test_sets_and_classifiers_that_rest_on_them_are_named_and_kept(study, tree):
    store, exclude, runs = study
    data = store.folder.parent
    gone = names(store, tree, data, exclude)
    made = fake_set(runs / "synthetic" / "0", store, count=20)
    made.index.assign(row=range(20)).to_csv(made.folder / "plan.csv", index=False)
    (runs / "classifier" / "a" / "0").mkdir(parents=True)
    pd.DataFrame({"subject": sorted(gone) + ["SYN0001"]}).to_csv(
        runs / "classifier" / "a" / "0" / "predictions.csv"
    )
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    traces = {
        trace.what: trace for trace in purge(gone, mark=salt_mark(data), data=data, runs=runs)
    }
    assert traces["predictions"].many == 2 and "train it again" in traces["predictions"].done
    drawn = int(made.index.subject.isin(gone).sum())
    assert drawn and traces["set"].done.startswith(
        f"{drawn} of 20 images come from their masks; draw a new set"
    )
    assert {path: path.read_bytes() for path in before} == before


def test_the_purged_store_is_the_cohorts_and_the_others_keep_their_split(study, tree):
    store, exclude, runs = study
    data = store.folder.parent
    with_list = cohort(tree, data, exclude)
    purge(with_list.withdrawn(), mark=salt_mark(data), data=data, runs=runs)
    keep_place(with_list, data)
    again = prepare(cohort(tree, data, exclude), data)
    assert again.folder == store.folder and len(again.subjects) == len(store.subjects) - 2
    before = store.subjects.set_index("subject").split
    assert (again.subjects.set_index("subject").split == before[again.subjects.subject]).all()


def test_stores_of_other_sizes_are_opened_as_purged_too(study, tree):
    store, exclude, runs = study
    data = store.folder.parent
    larger = prepare(cohort(tree, data, None, pixels=20), data)
    before = len(larger.subjects)
    with_list = cohort(tree, data, exclude)
    purge(with_list.withdrawn(), mark=salt_mark(data), data=data, runs=runs)
    keep_place(with_list, data)
    again = prepare(cohort(tree, data, exclude, pixels=20), data)
    assert again.folder == larger.folder and len(again.subjects) == before - 2


def test_a_changed_list_makes_another_store_and_the_old_one_is_named(study, tree, capsys):
    store, exclude, _ = study
    data = store.folder.parent
    first = prepare(cohort(tree, data, exclude), data)
    assert len(first.subjects) == len(store.subjects) - 2 and first.folder != store.folder
    exclude.write_text(exclude.read_text().splitlines()[0])
    other = prepare(cohort(tree, data, exclude), data)
    assert len(other.subjects) == len(store.subjects) - 1
    assert f"{first.folder}: its source has changed" in capsys.readouterr().out


def test_a_store_of_another_salt_is_told_and_left(study, tree, tmp_path):
    store, exclude, runs = study
    shutil.copytree(store.folder, tmp_path / "other" / store.folder.name)
    (tmp_path / "other" / "salt").write_text("another salt")
    gone = cohort(tree, tmp_path / "other", exclude).withdrawn()
    traces = purge(gone, mark=salt_mark(tmp_path / "other"), data=tmp_path / "other", runs=runs)
    assert traces == [
        Trace("store", str(tmp_path / "other" / store.folder.name), 0, traces[0].done)
    ]
    assert (
        "another salt" in traces[0].done
        and Store.open(tmp_path / "other" / store.folder.name).fingerprint
    )


def test_an_interrupted_purge_leaves_no_store_that_looks_finished(study, tree, monkeypatch):
    store, exclude, runs = study
    data = store.folder.parent
    gone = names(store, tree, data, exclude)

    def dying(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cmrdata.withdraw.write_atomic", dying)
        purge(gone, mark=salt_mark(data), data=data, runs=runs)
    assert not Store(store.folder).complete


def test_a_cohort_without_a_list_says_so(tree, tmp_path):
    with pytest.raises(ValueError, match="cohort.exclude is not set; give a file"):
        cohort(tree, tmp_path).withdrawn()
    with pytest.raises(ValueError, match="phantom has no list of withdrawn"):
        Phantom(subjects=3).withdrawn()


# each kind of trace, by itself


def test_notes_lose_the_lines_of_who_withdrew_and_a_torn_one(tmp_path):
    (tmp_path / "inspect-1.jsonl").write_text(
        '{"subject": "SYN0001"}\n{"subject": "SYN0002"}\n{"subject": "SYN0003"}\n{"sub'
    )
    (tmp_path / "inspect-2.jsonl").write_text('{"subject": "SYN0003"}\n')
    (tmp_path / "ef-a.json").write_text('{"SYN0001": 1, "SYN0002": 2, "SYN0003": 3}')
    (tmp_path / "ef-b.json").write_text('{"SYN0003": 3}')
    kept = {
        path: path.read_text() for path in (tmp_path / "inspect-2.jsonl", tmp_path / "ef-b.json")
    }
    traces = purge(
        {"SYN0001", "SYN0002", "SYN0009"}, mark=None, data=tmp_path, runs=tmp_path / "runs"
    )
    assert traces == [
        Trace("notes", str(tmp_path / "inspect-1.jsonl"), 3, "removed"),
        Trace("notes", str(tmp_path / "ef-a.json"), 2, "removed"),
    ]
    assert (tmp_path / "inspect-1.jsonl").read_text() == '{"subject": "SYN0003"}\n'
    assert (tmp_path / "ef-a.json").read_text() == '{\n"SYN0003": 3\n}'
    assert kept == {path: path.read_text() for path in kept}


def test_plans_and_predictions_are_counted_by_people(tmp_path):
    for name in ("open", "drawn", "without", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "drawn" / "parts").mkdir()
    plan = pd.DataFrame(
        {
            "subject": ["SYN0001", "SYN0003", "SYN0001", "SYN0002"],
            "row": range(4),
            "code": ["007", "NA", "", "x"],
        }
    )
    for name in ("open", "drawn"):
        plan.to_csv(tmp_path / name / "plan.csv", index=False)
    plan[1:2].to_csv(tmp_path / "other" / "plan.csv", index=False)
    plan.drop(columns="subject").to_csv(tmp_path / "without" / "plan.csv", index=False)
    plan.to_csv(tmp_path / "open" / "predictions.csv", index=False)
    plan[1:2].to_csv(tmp_path / "other" / "predictions.csv", index=False)
    traces = purge({"SYN0001", "SYN0002"}, mark=None, data=tmp_path / "data", runs=tmp_path)
    assert traces == [
        Trace(
            "set",
            str(tmp_path / "drawn"),
            2,
            "3 of 4 images come from their masks; draw a new set, from a generator trained again",
        ),
        Trace("plan", str(tmp_path / "open" / "plan.csv"), 2, "3 rows removed"),
        Trace("predictions", str(tmp_path / "open"), 2, "train it again, from the renewed store"),
    ]
    assert (tmp_path / "open" / "plan.csv").read_text() == "subject,row,code\nSYN0003,0,NA\n"
    assert len(pd.read_csv(tmp_path / "drawn" / "plan.csv")) == 4
