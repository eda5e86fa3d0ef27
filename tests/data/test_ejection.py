"""Ejection fractions from masks: right, read once, and the judge of who is a case where a pathology
is not."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata import ejection
from cmrdata.batch import LV
from cmrdata.cohorts.mnms import MnMs
from cmrdata.ejection import by_fraction, ejection_fraction, fractions
from cmrdata.prepare import prepare
from support.hearts import heart
from support.mnms_files import NAME, ROW, cohort, mnms

# of the cavity's radius: 19, 44 and 64 per cent ejected
SQUEEZES = {"failing": 0.9, "between": 0.75, "strong": 0.6}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """Each pathology in a failing, a middling and a strong heart."""
    root = tmp_path_factory.mktemp("mixed") / "OpenDataset"
    rows = {f"SYN{word}{kind}": {"Pathology": word} for word in MnMs.diagnoses for kind in SQUEEZES}
    for kind, squeeze in SQUEEZES.items():
        mnms(
            root,
            {code: cells for code, cells in rows.items() if code.endswith(kind)},
            squeeze=squeeze,
        )
    pd.DataFrame([{"External code": code, **ROW, **cells} for code, cells in rows.items()]).to_csv(
        root / NAME
    )
    return root


def diagnoses(table: pd.DataFrame) -> dict[str, list]:
    """Of each pathology: failing, middling, strong (the order of the codes is that of the
    names)."""
    order = {name: place for place, name in enumerate(sorted(SQUEEZES))}
    return {
        word: [rows.diagnosis.fillna("-").tolist()[order[name]] for name in SQUEEZES]
        for word, rows in table.groupby("pathology")
    }


def test_the_pathology_decides_and_where_it_does_not_the_ejection_fraction(mixed, tmp_path):
    table, rejected = cohort(mixed, salt_root=tmp_path).subjects()
    assert rejected.empty
    case, spared = ["reduced_ef"] * 3, ["reduced_ef", "-", "-"]
    assert diagnoses(table) == {
        "NOR": ["healthy"] * 3,
        "DCM": case,
        "IHD": spared,
        "HHD": spared,
        "LVNC": spared,
        **dict.fromkeys(("HCM", "ARV", "AHS", "Other"), ["-"] * 3),
    }
    measured = table.ef.notna()
    assert set(table.pathology[measured]) == {"IHD", "HHD", "LVNC"}
    truth = {name: 1 - squeeze**2 for name, squeeze in SQUEEZES.items()}
    assert sorted(table.ef[measured]) == pytest.approx(sorted([*truth.values()] * 3), abs=0.02)
    wider = cohort(mixed, salt_root=tmp_path, ef_below=45).subjects()[0]
    assert diagnoses(wider)["IHD"] == ["reduced_ef", "reduced_ef", "-"]


def test_the_ejection_fraction_decides_alone_where_asked(mixed, tmp_path):
    table, rejected = cohort(mixed, salt_root=tmp_path, label="ef").subjects()
    assert rejected.empty and table.ef.notna().all()
    assert set(map(tuple, diagnoses(table).values())) == {("reduced_ef", "-", "healthy")}
    assert set(table.columns) >= {"pathology", "site", "vendor", "ef"} and "state" not in table


def test_ejection_fractions_are_read_once(mixed, tmp_path, monkeypatch):
    first = cohort(mixed, salt_root=tmp_path, label="ef").subjects()[0]
    kept = (tmp_path / "ef-mnms.json").read_text()
    assert "SYN" not in kept and all(subject in kept for subject in first.subject)
    reading = []
    original = MnMs.annotation
    monkeypatch.setattr(
        MnMs, "annotation", lambda self, patient: reading.append(patient) or original(self, patient)
    )
    again = cohort(mixed, salt_root=tmp_path, label="ef")
    pd.testing.assert_frame_equal(again.subjects()[0], first)
    assert not reading
    changed = next(iter(again.patients.values())).labels
    changed.touch()
    cohort(mixed, salt_root=tmp_path, label="ef").subjects()
    assert not reading  # the same content at another time
    with gzip.open(changed) as packed:
        content = packed.read()
    changed.write_bytes(gzip.compress(content[:-1] + b"\0"))
    cohort(mixed, salt_root=tmp_path, label="ef").subjects()
    assert [patient.labels for patient in reading] == [changed]
    (tmp_path / "ef-mnms.json").write_text('{"S0": 1, "torn": ')
    pd.testing.assert_frame_equal(
        cohort(mixed, salt_root=tmp_path, label="ef").subjects()[0], first
    )
    assert (tmp_path / "ef-mnms.json").read_text() != kept and len(reading) == 1 + len(first)


def test_the_split_does_not_depend_on_the_salt(mixed, tmp_path):
    stores = [prepare(cohort(mixed, salt_root=tmp_path / salt), tmp_path / salt) for salt in "ab"]
    assert not set(stores[0].subjects.subject) & set(stores[1].subjects.subject)
    assert stores[0].subjects.split.tolist() == stores[1].subjects.split.tolist()
    assert (stores[0].folder / "images.u8").read_bytes() == (
        stores[1].folder / "images.u8"
    ).read_bytes()
    people = stores[0].subjects
    assert ((people.split == "extra") == people.diagnosis.isna()).all()


@pytest.mark.parametrize("squeeze", [0.4, 0.8, 1.0])
def test_the_ejected_share_of_a_cylinder(squeeze):
    assert ejection_fraction(heart(), heart(squeeze=squeeze)) == pytest.approx(
        1 - squeeze**2, abs=0.02
    )


@pytest.mark.parametrize(("ed", "es"), [(0.7, 1.0), (0.0, 0.0)])
def test_a_cavity_that_does_not_empty_has_no_fraction(ed, es):
    with pytest.raises(
        ValueError, match=r"no ejection fraction: \d+ voxels of LV cavity at ED and \d+ at ES"
    ):
        ejection_fraction(heart(squeeze=ed), np.where(es, heart(squeeze=es or 1), 0))


def test_what_was_read_before_an_interruption_is_kept(tmp_path):
    (tmp_path / "mask").touch()
    files = {f"S{k:010x}": [tmp_path / "mask"] for k in range(100)}
    seen: list[str] = []

    def masks(subject: str) -> tuple[np.ndarray, np.ndarray]:
        seen.append(subject)
        if len(seen) == 90:
            raise KeyboardInterrupt
        if subject.endswith("5"):
            raise ValueError("no heart")
        return heart(depth=1), heart(depth=1, squeeze=0.5)

    with pytest.raises(KeyboardInterrupt):
        fractions(files, masks, cache=tmp_path / "kept" / "ef.json", workers=1)
    found, faults = fractions(files, masks, cache=tmp_path / "kept" / "ef.json", workers=1)
    assert len(seen) < 90 + 100 - 55 and set(found) | set(faults) == set(files)
    assert set(faults) == {f"S{k:010x}" for k in range(5, 100, 16)} and set(faults.values()) == {
        "no heart"
    }


def test_what_was_read_is_written_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(ejection, "SAVED", 2)
    written = []
    usual = ejection.write_atomic
    monkeypatch.setattr(
        ejection,
        "write_atomic",
        lambda path, text: written.append(len(json.loads(text))) or usual(path, text),
    )
    files = {f"S{k}": [tmp_path / "mask"] for k in range(5)}

    def masks(subject: str) -> tuple[np.ndarray, np.ndarray]:
        if subject == "S0":
            raise ValueError("no heart")
        return np.full((1, 2, 2), LV), np.array([[[LV, 0], [0, 0]]])

    found, faults = fractions(files, masks, cache=tmp_path / "a" / "ef.json", workers=1)
    assert found == dict.fromkeys(("S1", "S2", "S3", "S4"), 0.75) and list(faults) == ["S0"]
    assert written == [1, 3, 4]
    assert fractions(files, masks, cache=tmp_path / "a" / "ef.json")[0] == found
    assert written == [1, 3, 4]  # nothing new
    cache = tmp_path / "a" / "ef.json"
    for odd in ("[1]", "x", '{"S1": 1, "S2": {"ef": 0.5}}', '{"S3": {"files": "x", "ef": 0.5}}'):
        cache.write_text(odd)  # what is none of ours is read anew
        assert fractions(files, masks, cache=cache)[0] == found


def test_fractions_divide_at_their_limits():
    told = by_fraction(
        pd.Series([0.399, 0.4, 0.499, 0.5, np.nan], index=list("abcde")), below=40, above=50
    )
    assert told.to_dict() == {"a": "reduced_ef", "b": None, "c": None, "d": "healthy", "e": None}
    alone = by_fraction(pd.Series([0.399, 0.9]), below=40)
    assert alone.tolist() == ["reduced_ef", None]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"label": "icd"}, "cohort.label is 'icd'; it takes pathology or ef"),
        ({"ef_below": 60}, "ef_below is 60 and ef_above 50; give per cent"),
        ({"ef_below": 0.4, "ef_above": 100}, "ef_above 100"),
    ],
)
def test_impossible_labels_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        MnMs(root=None, **wrong)
