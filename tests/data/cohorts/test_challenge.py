"""What ACDC, M&Ms and M&Ms-2 share, on patients of few voxels that lie in no file."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrdata.batch import LV, MYO, RV
from cmrdata.cohorts.challenge import (
    BY_EF,
    Annotation,
    Challenge,
    Located,
    about,
    around,
    assembled,
    canonical,
    one_each,
    still,
    take_all_or,
)
from cmrdata.cohorts.reading.cells import Reading
from support.hearts import GREY, heart

AT = Path("x.nii.gz")
PLACED = np.diag([-1.5, -1.5, -10.0, 1.0])


def volume(**change) -> Any:
    """The header of a file."""
    return SimpleNamespace(
        **{"path": AT, "spacing": (1.5, 1.5), "affine": PLACED, "flags": (), **change}
    )


def small(**change) -> np.ndarray:
    return heart(size_mm=(132, 162), centre=(66, 96), **{"depth": 2, **change})


def ejecting(volumes: tuple[int, int]) -> dict[int, Located]:
    """Masks at frames 0 and 1 whose LV cavities have so many voxels."""
    masks = [np.zeros((1, 10, 10), np.uint8) for _ in volumes]
    for mask, count in zip(masks, volumes, strict=True):
        mask.flat[:count] = LV
    return {t: Located(mask, volume()) for t, mask in enumerate(masks)}


class Five(Challenge):
    """Patients by name, each with its pathology and its LV volumes at ED and ES."""

    fov_mm = 100.0
    diagnoses = {"DCM": "reduced_ef", "NOR": "healthy", "ISCH": BY_EF, "HCM": None}
    people = {
        "a": ("dcm", (100, 90)),
        "b": ("NOR", (100, 30)),
        "c": ("isch", (100, 60)),  # exactly 40 per cent
        "d": ("ISCH", (100, 61)),
        "e": ("HCM", (100, 50)),
    }

    def find(self):
        return dict(self.people)

    def describe(self, patient):
        if patient[0] == "unread":
            raise ValueError("cannot be described")
        return {"sex": "F", "age": 60.0, "bmi": 25.0, "pathology": patient[0]}

    def annotation(self, patient):
        if not patient[1][0]:
            raise ValueError("no labels")
        return Annotation(0, 1, ejecting(patient[1]))

    def scan(self, patient, *, neighbours):
        raise AssertionError("nobody asked for pictures")

    def files(self, patient):
        return [Path("nowhere") / str(patient[1])]

    def texts(self, patient):
        return [Path("nowhere") / "Info.cfg"]

    def columns(self):
        return pd.DataFrame()


def test_the_pathology_decides_and_a_spared_heart_is_told_by_its_ejection(tmp_path):
    made = Five(root=None, salt_root=tmp_path)
    table, rejected = made.subjects()
    assert rejected.empty and table.subject.tolist() == list(made.patients)
    assert table.pathology.tolist() == ["DCM", "NOR", "ISCH", "ISCH", "HCM"]
    assert table.diagnosis.tolist() == ["reduced_ef", "healthy", None, "reduced_ef", None]
    # read where the diagnosis needs it alone
    np.testing.assert_allclose(table.ef, [np.nan, np.nan, 0.4, 0.39, np.nan])
    assert set(table.label_source) == {"manual"} and set(table.source) == {"five"}
    assert (tmp_path / "ef-five.json").is_file()
    plain = Five(root=None, salt_root=tmp_path / "plain")
    plain.people = {"a": ("DCM", (0, 0)), "b": ("NOR", (0, 0))}
    table, rejected = plain.subjects()  # no mask is read, so that none can fail
    assert table.diagnosis.tolist() == ["reduced_ef", "healthy"] and rejected.empty
    assert "ef" not in table and not (tmp_path / "plain" / "ef-five.json").exists()


def test_by_ejection_fraction_everybody_is_measured_and_the_middle_is_neither(tmp_path):
    made = Five(root=None, salt_root=tmp_path, label="ef", ef_below=40, ef_above=50, name="mine")
    made.people = {"0": (None, (0, 0)), **Five.people, "f": ("a new one", (100, 55))}
    table, rejected = made.subjects()
    assert table.diagnosis.tolist() == [
        "reduced_ef",
        "healthy",
        None,
        "reduced_ef",
        "healthy",
        None,
    ]
    assert table.pathology.tolist() == ["DCM", "NOR", "ISCH", "ISCH", "HCM", "a new one"]
    assert table.index.tolist() == list(range(6)) and set(table.source) == {"mine"}
    assert rejected.values.tolist() == [[next(iter(made.patients)), "no labels"]]


def test_who_cannot_be_described_is_rejected_with_the_reason(tmp_path):
    made = Five(root=None, salt_root=tmp_path)
    made.people = {"a": ("unread", (1, 1)), "b": ("XYZ", (1, 1)), "c": (None, (1, 1))}
    table, rejected = made.subjects()
    assert rejected.reason.tolist() == [
        "cannot be described",
        "unknown pathology 'XYZ', expected one of DCM, NOR, ISCH, HCM",
    ]
    assert len(table) == 1 and table.diagnosis.tolist() == table.pathology.tolist() == [None]
    made = Five(root=None, salt_root=tmp_path)
    made.people = {"a": ("unread", (1, 1))}
    table, rejected = made.subjects()
    assert table.empty and len(rejected) == 1


def test_a_word_of_the_source_is_read_in_any_case_and_none_is_guessed():
    made = Five(root=None)
    assert made.known_pathology("isch") == Reading("ISCH") and made.known_pathology("") == Reading()
    assert made.known_pathology("IS") == Reading(odd="is none of DCM, NOR, ISCH, HCM")


def test_settings_places_and_source_are_those_given(tmp_path):
    made = Five(
        root=tmp_path, salt_root=tmp_path, reach=2, default_spacing=1.5, ef_below=35, fold=3
    )
    usual = {
        "pixels": 64,
        "fov_mm": 165.0,
        "seed": 0,
        "fold": None,
        "controls_per_case": None,
        "cine": None,
        "reach": 1,
        "default_spacing": None,
        "label": "pathology",
        "ef_below": 40.0,
        "ef_above": 50.0,
        "orient": "masks",
    }
    assert Five(root=None).settings == usual
    given = {"reach": 2, "default_spacing": (1.5, 1.5), "ef_below": 35, "fold": 3}
    assert made.settings == {**usual, **given}
    assert made.places == {"root": str(tmp_path)} and Five(root=None).places == {"root": None}
    source = made.source()
    assert source.ids == list("abcde") and list(source.files) == list(made.patients)
    first = next(iter(source.files.values()))
    assert first == [Path("nowhere/Info.cfg"), Path("nowhere/(100, 90)")]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"label": "heart"}, "cohort.label is 'heart'; it takes pathology or ef"),
        ({"ef_below": 60}, "ef_below is 60 and ef_above 50"),
        ({"ef_below": 0}, "ef_below is 0 "),
        ({"ef_above": 100}, "ef_above 100"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        Five(root=None, **given)
    Five(root=None, ef_below=50, ef_above=50)  # no middle
    Five(root=None, ef_below=0.5, ef_above=99.5)


def test_frames_to_be_read_are_ed_es_and_their_neighbours_in_the_cycle():
    assert around(0, 5, 12) == {0, 5, 11, 1, 4, 6} and around(3, 11, 12) == {2, 3, 4, 10, 11, 0}
    assert around(0, 5, None) == around(0, 5, None, cine=4) == {0, 5}
    assert around(1, 5, 12, cine=4) == {1, 4 + 1, 7, 10}


class Film(SimpleNamespace):
    def take(self, wanted):
        if set(wanted) & set(self.damaged):
            raise ValueError("file is truncated or corrupt")
        return {t: np.full((1, 2, 2), t) for t in wanted}


def test_damage_beside_what_is_needed_costs_the_neighbours_alone():
    taken, lost = take_all_or(Film(damaged=[]), {0, 1, 5}, needed={0, 5})
    assert set(taken) == {0, 1, 5} and lost is False
    taken, lost = take_all_or(Film(damaged=[1]), {0, 1, 5}, needed={0, 5})
    assert set(taken) == {0, 5} and lost is True
    with pytest.raises(ValueError, match="truncated"):
        take_all_or(Film(damaged=[5]), {0, 1, 5}, needed={0, 5})


def test_a_still_has_no_time_and_is_a_copy():
    buffer = np.ones((1, 2, 2))
    read = still(SimpleNamespace(timed=False, stream=lambda: iter([buffer])))
    buffer[:] = 7
    assert (read == 1).all()
    with pytest.raises(ValueError, match="^4 axes, expected 3$"):
        still(SimpleNamespace(timed=True, stream=lambda: iter([buffer])))


def test_an_error_says_which_file_by_kind_and_names_none():
    with pytest.raises(ValueError, match="^ED image: too short$"), about("ED image"):
        raise ValueError("too short")
    unreadable = r"^ED image: file cannot be read \(PermissionError\)$"
    with pytest.raises(ValueError, match=unreadable), about("ED image"):
        raise PermissionError(13, "denied", "patient101.nii.gz")


def test_labels_of_a_source_become_those_of_a_beating_heart():
    theirs = {0: 0, 3: LV, 2: MYO, 1: RV}
    back = np.array([0, 3, 2, 1], np.int16)
    ed, es = small(), small(squeeze=0.7)
    first, second = canonical(back[ed], back[es], mapping=theirs)
    assert np.array_equal(first, ed) and np.array_equal(second, es) and first.dtype == np.uint8
    canonical(back[ed], back[ed], mapping=theirs)  # equal is not smaller
    with pytest.raises(ValueError, match="^ED labels: the LV cavity is smaller than at ES$"):
        canonical(back[es], back[ed], mapping=theirs)
    with pytest.raises(ValueError, match="^ES labels: no LV cavity and no myocardium labelled$"):
        canonical(back[ed], np.zeros_like(es), mapping=theirs)
    with pytest.raises(ValueError, match="^ED labels: unknown labels 9"):
        canonical(np.where(ed == RV, 9, back[ed]), back[es], mapping=theirs)


def together(*, labels: Any = None, image: Any = None, late: Any = None, **how):
    """`assembled` of two frames with a neighbour each and of their labels."""
    masks = {0: small(), 4: small(squeeze=0.7)}
    rng = np.random.default_rng(0)
    frames = {
        t: Located(
            GREY[masks[4 if t > 2 else 0]] + rng.normal(0, 2, small().shape), image or volume()
        )
        for t in (0, 1, 4, 5)
    }
    if late:
        frames[4] = frames[4]._replace(volume=late)
    theirs = {t: Located(mask, labels or volume()) for t, mask in masks.items()}
    frames |= how.pop("frames", {})
    return assembled(frames, theirs, **{"ed": 0, "es": 4, "cycle": 8, **how})


def test_parts_of_one_place_are_a_scan_as_they_are():
    scan = together(flags=("a",), image=volume(flags=("b", "a")))
    assert (scan.ed, scan.es, scan.cycle, scan.spacing) == (0, 4, 8, (1.5, 1.5))
    assert scan.flags == ("a", "b") and np.array_equal(scan.affine, PLACED)
    assert set(scan.frames) == {0, 1, 4, 5} and np.array_equal(scan.labels[4], small(squeeze=0.7))


def test_labels_that_count_from_the_other_side_are_put_where_they_belong():
    """Labels of a file whose columns run the other way, of headers that say so."""
    turned = PLACED.copy()
    turned[0] = [1.5, 0, 0, -1.5 * (small().shape[2] - 1)]
    masks = {0: small(), 4: small(squeeze=0.7)}
    frames = {t: Located(GREY[mask], volume()) for t, mask in masks.items()}
    theirs = {t: Located(mask[..., ::-1], volume(affine=turned)) for t, mask in masks.items()}
    scan = assembled(frames, theirs, ed=0, es=4, cycle=None)
    assert scan.flags == ("labels_moved",)
    for t, mask in masks.items():
        assert np.array_equal(scan.labels[t], mask) and np.array_equal(scan.frames[t], GREY[mask])
    # and ES's image and labels are in another order than ED's
    frames[4] = Located(GREY[masks[4]][..., ::-1], volume(affine=turned))
    theirs = {
        0: Located(masks[0], volume()),
        4: Located(masks[4][..., ::-1], volume(affine=turned)),
    }
    scan = assembled(frames, theirs, ed=0, es=4, cycle=None)
    assert scan.flags == () and np.array_equal(scan.frames[4], GREY[masks[4]])
    assert np.array_equal(scan.labels[4], masks[4])
    theirs[4] = Located(masks[4], volume())  # its labels are in ED's order: each pair by itself
    scan = assembled(frames, theirs, ed=0, es=4, cycle=None)
    assert scan.flags == ("labels_moved",) and np.array_equal(scan.labels[4], masks[4])


def test_two_phases_are_two_pictures_of_pixels_of_one_size():
    together(late=volume(spacing=(1.5, 1.52)))
    with pytest.raises(
        ValueError, match="^ES image: pixels of 1.5 x 1.6 mm, but the ED image has 1.5 x 1.5$"
    ):
        together(late=volume(spacing=(1.5, 1.6)))
    one = Located(GREY[small()], volume())
    with pytest.raises(ValueError, match="^ES image: it is the ED image once more$"):
        together(frames={0: one, 4: one})
    # another slice differs, and of a constant picture something else is said
    other = one.voxels.copy()
    other[0, 0, 0] += 1
    assert together(frames={0: one, 4: one._replace(voxels=other)}).es == 4
    flat = Located(np.ones_like(one.voxels), volume())
    assert together(frames={0: flat, 4: flat}).es == 4
    assert together(frames={0: one}, labels=volume(affine=None)).flags == ()


def test_a_code_that_occurs_twice_is_counted_and_not_named():
    assert list(one_each([("b", 1), ("a", 2)], at=AT, what="rows")) == ["a", "b"]
    with pytest.raises(
        ValueError, match=r"^x.nii.gz: 2 patients in two places; give one copy"
    ) as error:
        one_each([("b", 1), ("a", 2), ("b", 3), ("b", 4)], at=AT, what="patients in two places")
    assert "b" not in str(error.value).replace("x.nii.gz", "").split()
