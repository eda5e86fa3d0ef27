"""A cohort from outside the package needs a name, pixels, its subjects and their stacks: the rest
has defaults, and the commands take it from a folder of the user's."""

import importlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from cmrdata.axes import AXES
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import save, scanned, smallest_frame
from cmrdata.prepare import listed, prepare
from cmrdata.protocol import Cohort, Stacks, channels, ordered
from support import ROOT

DOCS = ROOT / "docs" / "cohorts.md"


class Least(Cohort):
    """Nothing but what a cohort has to have."""

    name, pixels = "least", 16

    def subjects(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        number = np.arange(40)
        return pd.DataFrame(
            {
                "subject": [f"SYN{k:04d}" for k in number],
                "source": self.name,
                "sex": None,
                "age": 50.0 + number,
                "bmi": np.nan,
                "diagnosis": np.where(number % 2, "healthy", "hf"),
            }
        ), pd.DataFrame(columns=["subject", "reason"])

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        images = np.full((len(subjects), 2, 16, 16), 90, np.uint8)
        masks = np.zeros_like(images)
        masks[:, :, 6:10, 6:10] = 1
        images[masks == 1] = 200
        index = pd.DataFrame(
            {
                "subject": subjects.subject.to_numpy(),
                "slice": 0,
                "frame": 0,
                "central": True,
                "flags": "",
            }
        )
        return Stacks(images, masks, index, pd.DataFrame(columns=["subject", "reason"]))


def test_a_cohort_with_the_least_is_prepared_and_opened_again(tmp_path):
    store = prepare(Least(), tmp_path)
    assert len(store.subjects) == len(store.index) == 40
    assert prepare(Least(), tmp_path).folder == store.folder
    assert store.channels == channels(Least()) == 2
    assert store.meta["channels"] == 2


def test_its_defaults_are_those_of_the_protocol():
    least = Least()
    assert (least.seed, least.fold, least.cine, least.reach) == (0, None, None, 1)
    assert (least.fov_mm, least.orient, least.expected) == (None, None, "")
    assert (least.places, least.watched, least.notes()) == ({}, (), [])
    assert least.columns().empty and least.source().ids == []
    with pytest.raises(ValueError, match="cohort least has no list of withdrawn participants"):
        least.withdrawn()


def test_every_default_that_decides_bytes_is_among_the_settings():
    plain = Least().settings
    for name, value in (("seed", 1), ("fold", 2), ("cine", 6), ("controls_per_case", 1.0)):
        other = Least()
        setattr(other, name, value)
        assert other.settings == {**plain, name: value}


@pytest.mark.parametrize("fold", [None, 3])
def test_the_split_of_a_store_is_the_one_that_is_listed(tmp_path, fold):
    cohort = Least()
    cohort.fold = fold
    subjects, _ = listed(cohort)
    store = prepare(cohort, tmp_path)
    assert store.subjects.split.tolist() == subjects.split.tolist()
    assert (subjects.split != listed(Least())[0].split).any() == (fold is not None)


def example() -> dict[str, str]:
    """The files of docs/cohorts.md's cohort of one's own, by name."""
    section = DOCS.read_text().partition("## A cohort of your own")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", section, re.S)
    return dict(blocks)


def written(root: Path, *, count: int = 30) -> None:
    """Phantom people in the layout of the document's example; every third is left-handed."""
    rows = []
    shape = {"pixels": 64, "mm": 2.9, "slices": 3, "frames": 4}
    people = scanned(Phantom(subjects=count, test_subjects=0), root, count=count, **shape)
    for number, of in enumerate(people):
        folder = root / of.person["subject"].removeprefix("SYN")
        folder.mkdir()
        for phase, frame in (("ED", 0), ("ES", smallest_frame(4))):
            save(folder / f"{phase}.nii.gz", of.cine[frame], np.float32, of.spacing)
            save(folder / f"{phase}_mask.nii.gz", of.labels[frame], np.int16, of.spacing)
        facts = {key: of.person[key] for key in ("sex", "age", "bmi")}
        rows.append(
            {
                "id": folder.name,
                **facts,
                "diagnosis": ("hf", "healthy")[number % 2],
                "handedness": ("left", "right", "right")[number % 3],
            }
        )
    pd.DataFrame(rows).to_csv(root / "people.csv", index=False)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """A user's folder: the document's files, and data for them."""
    place = tmp_path_factory.mktemp("own")
    for name, text in example().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    written(place / "ours")
    return place


def inspected(own: Path, *given: str) -> subprocess.CompletedProcess:
    words = ["--config-dir", "mine", "experiment=inspect", "cohort=mycohort", *given]
    paths = f"{ROOT / 'src'}{os.pathsep}{own}"
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, f"data_root={own / 'data'}"],
        cwd=own,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_the_documents_cohort_runs_from_a_folder_of_ones_own(own, monkeypatch):
    assert set(example()) == {"mycohort.py", "mine/cohort/mycohort.yaml"}
    results = own / "results"
    done = inspected(own, f"cohort.root={own / 'ours'}", f"run_dir={results}", "fold=2")
    assert done.returncode == 0, done.stderr
    assert "handedness: left" in done.stdout and "/right" in done.stdout
    assert "Rejected" not in done.stdout
    shown = pd.read_csv(results / "subjects.csv")
    ids = pd.read_csv(own / "ours" / "people.csv", dtype=str).id
    assert not any(name in done.stdout + done.stderr + shown.to_csv() for name in ids)

    monkeypatch.syspath_prepend(own)
    with patch.dict(AXES):
        mycohort = importlib.import_module("mycohort")
        cohorts = {
            fold: mycohort.MyCohort(root=own / "ours", fold=fold, salt_root=own / "data")
            for fold in (2, None)
        }
        used, unused = (listed(cohort)[0] for cohort in cohorts.values())
        assert shown.subject.tolist() == used.subject.tolist()
        assert shown.split.tolist() == used.split.tolist() != unused.split.tolist()
        store = prepare(cohorts[2], own / "data")
        assert store.subjects.split.tolist() == used.split.tolist()
        assert set(store.index.handedness) == {"left", "right"}
        cohorts[2].root = own / "unmounted"
        assert prepare(cohorts[2], own / "data").folder == store.folder
    del sys.modules["mycohort"]


def test_results_come_in_order_and_few_are_held():
    pulled, begun = [], []

    def items():
        for item in range(20):
            pulled.append(item)
            yield item

    def work(item: int) -> int:
        begun.append(item)
        return item * item

    results = ordered(work, items(), workers=2)
    assert next(results) == 0 and len(pulled) == 5  # twice the workers wait behind it
    assert next(results) == 1 and len(pulled) == 6
    assert list(results) == [k * k for k in range(2, 20)] and sorted(begun) == pulled
    assert list(ordered(work, [], workers=1)) == []
    gate, started = threading.Event(), []

    def slow(item: int) -> int:
        started.append(item)
        gate.wait(10)
        return item

    waiting = ordered(slow, range(9), workers=1)
    threading.Timer(0.05, gate.set).start()
    assert next(waiting) == 0
    gate.clear()
    threading.Timer(0.05, gate.set).start()
    waiting.close()  # what has not begun does not begin any more
    assert len(started) <= 3
