"""The phantom's people, hearts and pictures, and their round trip through files in UK Biobank's
layout."""

from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from cmrdata.batch import LABELS, LV, MYO, RV
from cmrdata.cohorts.phantom import painting
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.painting import ES_FRAME, FRAMES, heart_size, paint, volume_curve
from cmrdata.cohorts.phantom.people import PREVALENCE, draw_people
from cmrdata.cohorts.phantom.ukbb_tree import smallest_frame, write_ukbb
from cmrdata.labels import check_labels, check_topology
from cmrdata.slices import Scan, stacks
from cmrdata.subjects import with_groups
from cmrdata.volumes import read_volume

MM = 165.0 / 64  # a pixel of the default picture


def central(phantom: Phantom):
    """The central stack of everyone."""
    return phantom.stacks(phantom.people.assign(split="test"))


def sizes(phantom: Phantom, frame: float) -> tuple[np.ndarray, ...]:
    """LV radius, epicardial radius and RV depth of everyone's central slice, in mm."""
    still = np.zeros(len(phantom.people), np.float32)
    return heart_size(
        {name: phantom.anatomy[name].to_numpy() for name in phantom.anatomy}, still, still + frame
    )


@pytest.fixture(scope="module")
def mixed() -> Phantom:
    """Half of them failing, all attributes equally often: room for every comparison."""
    return Phantom(subjects=240, seed=5, design="uniform", hf_share=0.5)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return Phantom(subjects=240, seed=6, design="uniform", hf_share=0)


# ---- the same numbers again


def test_bytes_depend_on_the_seed_alone(monkeypatch):
    phantom = Phantom(subjects=12, seed=1)
    table = phantom.subjects()[0]
    whole, again = phantom.stacks(table), Phantom(subjects=12, seed=1).stacks(table)
    for one, other in zip(whole[:2], again[:2], strict=True):
        assert np.array_equal(one, other)
    assert whole.index.equals(again.index) and len(whole.index) == len(whole.images) > 12
    other = Phantom(subjects=12, seed=2).stacks(table)
    assert (whole.images != other.images).any(axis=(1, 2, 3)).all()

    some = table.iloc[[7, 3, 11, 4]]  # neither together nor in order
    part = phantom.stacks(some)
    rows = np.concatenate(
        [np.flatnonzero(whole.index.subject == subject) for subject in some.subject]
    )
    assert np.array_equal(part.images, whole.images[rows]) and np.array_equal(
        part.masks, whole.masks[rows]
    )
    assert part.index.equals(whole.index.iloc[rows].reset_index(drop=True))
    monkeypatch.setattr(painting, "BLOCK", 1)  # one image at a time
    alone = phantom.stacks(table)
    assert np.array_equal(alone.images, whole.images) and np.array_equal(alone.masks, whole.masks)


def test_training_subjects_give_nine_stacks_and_others_the_central_one():
    phantom = Phantom(subjects=30, seed=3)
    table = phantom.subjects()[0]
    index = phantom.stacks(table).index
    counts = index.groupby("subject").size().reindex(table.subject)
    assert counts.to_list() == np.where(table.split == "train", 9, 1).tolist()
    assert index.groupby("subject").central.sum().eq(1).all()
    assert index[index.central][["slice", "frame"]].eq(0).all(axis=None)


# ---- the people


@pytest.mark.parametrize("scale", [1.0, 4.5])
def test_disease_is_as_frequent_in_each_subgroup_as_in_the_paper(scale):
    people = draw_people(
        40_000, np.random.default_rng(0), design="natural", hf_scale=scale, hf_share=None
    )
    people = with_groups(
        people.assign(subject=[str(k) for k in range(len(people))], source="phantom")
    )
    for axis, levels in PREVALENCE.items():
        for level, percent in levels.items():
            ill = people.label[people[axis] == level].astype(float)
            wanted = percent * scale / 100
            assert ill.mean() == pytest.approx(wanted, abs=4 * np.sqrt(wanted / len(ill))), (
                axis,
                level,
                len(ill),
            )


def test_the_uniform_design_has_equal_cells():
    people = Phantom(subjects=18_000, design="uniform", hf_share=0).people
    assert (people.diagnosis == "healthy").all()
    cells = with_groups(people).groupby(["sex", "age_band", "bmi_band"]).size()
    assert len(cells) == 18 and cells.between(850, 1150).all()  # 1000 +- 31


def test_hf_share_is_the_share_of_disease_whatever_the_attributes():
    people = Phantom(subjects=20_000, hf_share=0.3).people
    assert (people.diagnosis == "hf").groupby(people.sex).mean().between(0.28, 0.32).all()


def test_fresh_subjects_are_all_in_the_test_split():
    plain, more = (
        Phantom(subjects=200, seed=4).subjects()[0],
        Phantom(subjects=200, test_subjects=50, seed=4).subjects()[0],
    )
    assert (more.split[200:] == "test").all() and more.subject.is_unique
    sizes = [table.split[:200].value_counts().to_dict() for table in (plain, more)]
    assert sizes[1]["test"] == pytest.approx(40, abs=1) and sizes[0] == pytest.approx(
        sizes[1], abs=1
    )


def test_fresh_subjects_leave_the_others_as_they_were():
    plain, more = Phantom(subjects=20, seed=4), Phantom(subjects=20, test_subjects=5, seed=4)
    assert plain.people.equals(more.people[:20]) and plain.anatomy.equals(more.anatomy[:20])
    table = plain.subjects()[0]
    assert np.array_equal(plain.stacks(table).images, more.stacks(table).images)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"design": "even"}, "cohort.design is 'even'; it takes natural or uniform"),
        ({"subjects": 0}, "a phantom of 0 . 0 subjects cannot be drawn; give at least 1 . 0"),
        ({"test_subjects": -1}, "a phantom of 25480 . -1 subjects"),
        ({"hf_share": 1.5}, "hf_share 1.5; give a scale above 0, and a share in 0..1"),
        ({"hf_scale": 0}, "hf_scale is 0 "),
    ],
)
def test_impossible_people_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Phantom(**wrong)


# ---- the heart


def test_healthy_hearts_measure_what_the_literature_says(healthy):
    """Petersen 2017 through the bullet model: 52 and 47 mm, area change 51-54 %; MESA walls 6.3 and
    5.3 mm."""
    male = (healthy.people.sex == "M").to_numpy()
    (ed, outer, _), (es, outer_es, _) = sizes(healthy, 0), sizes(healthy, ES_FRAME)
    change = 1 - (es / ed) ** 2
    for who, diameter, wall in ((male, 52, 6.3), (~male, 47, 5.3)):
        assert 2 * ed[who].mean() == pytest.approx(diameter, abs=2)
        assert (outer - ed)[who].mean() == pytest.approx(wall, abs=0.8)
        assert 0.45 < change[who].mean() < 0.60
    # walls thicken
    assert ed[~male].mean() < ed[male].mean() - 1 and (outer_es - es > 1.2 * (outer - ed)).all()


def test_failing_hearts_contract_less_but_overlap_with_healthy_ones(mixed):
    ill = (mixed.people.diagnosis == "hf").to_numpy()
    change = 1 - (sizes(mixed, ES_FRAME)[0] / sizes(mixed, 0)[0]) ** 2
    assert change[ill].mean() < change[~ill].mean() - 0.1
    # preserved ejection fraction
    assert 0.15 < (change[ill] > np.quantile(change[~ill], 0.25)).mean() < 0.6


def test_the_myocardium_keeps_its_volume(mixed):
    (ed, outer, _), (es, outer_es, _) = sizes(mixed, 0), sizes(mixed, ES_FRAME)
    # of that at ED
    length = 1 - 0.30 * (1 - volume_curve(np.float32(ES_FRAME), mixed.anatomy.ef.to_numpy()))
    assert (outer_es**2 - es**2) * length == pytest.approx(outer**2 - ed**2, rel=1e-4)


def test_the_volume_is_periodic_and_smallest_at_es():
    frames = np.arange(FRAMES)
    share = volume_curve(frames, np.float64(0.6))
    assert share[0] == 1 and share.argmin() == ES_FRAME and share.min() == pytest.approx(0.4)
    assert volume_curve(frames - FRAMES, np.float64(0.6)) == pytest.approx(share)
    assert np.abs(np.diff(share, append=1)).max() < 0.06  # no jumps, over the end neither


# ---- the pictures


def test_every_central_mask_is_a_heart(mixed):
    masks = central(mixed).masks
    for pair in masks:
        check_topology(pair)
        for mask in pair:
            assert all((mask == label).any() for label in LABELS.values())
            grown = ndimage.binary_dilation(mask == LV)
            assert np.isin(mask[grown], (LV, MYO)).mean() > 0.99  # enclosed
            # RV on the left
            assert np.nonzero(mask == RV)[1].mean() < np.nonzero(mask == LV)[1].mean() - 5
    areas = (masks == LV).sum(axis=(2, 3)) * MM**2
    assert np.sqrt(areas[:, 0] * 4 / np.pi) == pytest.approx(2 * sizes(mixed, 0)[0], rel=0.05)
    assert (areas[:, 1] < areas[:, 0]).all()


def test_frames_differ_and_masks_move_with_them():
    phantom = Phantom(subjects=12, seed=8)
    found = phantom.stacks(phantom.people.assign(split="train"))
    images, masks = (v.reshape(12, 3, 3, 2, 64, 64) for v in found[:2])  # subject, slice, frame
    for other in (0, 2):
        assert (images[:, :, 1] != images[:, :, other]).any(axis=(2, 3, 4)).all()
        assert (masks[:, :, 1] != masks[:, :, other]).any(axis=(1, 2, 3, 4)).all()
    assert (masks[:, 0] != masks[:, 1]).any(axis=(1, 2, 3, 4)).all()
    people = phantom.anatomy.iloc[[0] * 4]
    at = np.array([0, 6, 12, ES_FRAME])
    signal, mask = paint(people, slices=np.zeros(4), frames=at, pixels=96, fov_mm=165.0)
    assert (np.diff((mask == LV).sum(axis=(1, 2))) < 0).all()
    blood = [signal[k][mask[k] == LV].mean() for k in range(4)]
    wall = [signal[k][mask[k] == MYO].mean() for k in range(4)]
    assert min(blood) > max(wall) + 0.1  # the picture contracts where the mask does


def test_fat_shows_bmi_and_muscle_shows_age(healthy):
    """Measured in noise-free pictures; the chest wall lies above the heart."""
    people, anatomy = healthy.people, healthy.anatomy
    still = np.zeros(len(people))
    # to the skin
    signal, mask = paint(anatomy, slices=still, frames=still, pixels=80, fov_mm=80 * MM)
    ring = np.array(
        [
            ndimage.binary_dilation(m, iterations=4) & ~ndimage.binary_dilation(m, iterations=2)
            for m in mask > 0
        ]
    )
    # 5..10 mm off the heart
    rim = np.array([image[where].mean() for image, where in zip(signal, ring, strict=True)])
    column = signal[:, :18, 26:34]  # outside of the lung, where the ribs are level
    muscle = ((column > 0.2) & (column < 0.5)).sum(axis=(1, 2)) / 8 * MM
    for sex in "FM":
        here = (people.sex == sex).to_numpy()
        table = pd.DataFrame({"bmi": people.bmi, "age": people.age, "rim": rim, "muscle": muscle})[
            here
        ]
        table = table.join(anatomy[here], rsuffix="_truth").corr()
        assert table.bmi.fat > 0.7 and table.age.muscle_truth < -0.6
        assert table.bmi.rim > 0.6 and table.age.muscle < -0.6


# ---- the tree


@pytest.fixture(scope="module")
def people() -> Phantom:
    return Phantom(subjects=6, seed=9, hf_share=0.5)


@pytest.fixture(scope="module")
def tree(people: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "ukbb"
    write_ukbb(people, folder, count=2, slices=3)
    return folder


def test_the_tree_has_the_files_of_ukbb_cardiac(people, tree):
    assert sorted(path.name for path in tree.iterdir()) == ["SYN000000", "SYN000001", "table.csv"]
    cine, still = (112, 112, 3, 50), (112, 112, 3)
    wanted = {"sa": (np.float32, cine), "seg_sa": (np.float64, cine)}
    wanted |= {
        f"{kind}_{phase}": (dtype, still)
        for kind, dtype in (("sa", np.float32), ("label_sa", np.int16))
        for phase in ("ED", "ES")
    }
    folder = tree / "SYN000001"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.nii.gz" for name in wanted
    )
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        image = nibabel.load(folder / f"{name}.nii.gz")
        zooms = image.header.get_zooms()
        assert (
            image.get_data_dtype() == dtype
            and image.shape == shape
            and int(image.header["sform_code"]) == 1
        )
        assert zooms[:3] == pytest.approx((1.83, 1.83, 10)) and all(
            0.6 / 50 <= zoom <= 1.5 / 50 for zoom in zooms[3:]
        )
        # columns to the left, rows to the back, base first
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "I")
        arrays[name] = np.asarray(image.dataobj)
    sa, seg = arrays["sa"], arrays["seg_sa"]
    assert np.array_equal(sa, np.rint(sa)) and sa.min() >= 0 and 1000 < sa.max() <= 4095
    assert np.unique(seg).tolist() == [0, LV, MYO, RV]
    assert (seg == LV).sum(axis=(0, 1, 2)).argmin() in range(ES_FRAME - 2, ES_FRAME + 3)
    for phase, t in (("ED", 0), ("ES", ES_FRAME)):
        assert np.array_equal(arrays[f"label_sa_{phase}"], seg[..., t])
        clipped = sa[..., t].clip(*np.percentile(sa, (1, 99)).astype(np.float32))
        assert np.array_equal(arrays[f"sa_{phase}"], clipped)
    for t in (0, ES_FRAME):
        x, y = (
            np.nonzero(seg[..., t] == RV)[k].mean() - np.nonzero(seg[..., t] == LV)[k].mean()
            for k in (0, 1)
        )
        assert x < -8 and abs(y) < -x  # the RV on the left: x is the first axis


def test_the_table_says_who_they_are(people, tree):
    table = pd.read_csv(tree / "table.csv", dtype=str, keep_default_na=False)
    fields = ["eid", "31-0.0", "34-0.0", "52-0.0", "53-2.0", "21003-2.0", "21001-2.0"]
    assert table.columns.to_list() == [
        *fields,
        *(f"{f}-0.{k}" for f in (41270, 41280) for k in range(3)),
    ]
    for row, person in zip(
        table.to_dict("records"), people.people.head(2).itertuples(), strict=True
    ):
        assert row["eid"] == person.subject and row["31-0.0"] == {"F": "0", "M": "1"}[person.sex]
        assert float(row["21001-2.0"]) == person.bmi and int(row["21003-2.0"]) == int(person.age)
        visit = pd.Timestamp(row["53-2.0"])
        born = pd.Timestamp(year=int(row["34-0.0"]), month=int(row["52-0.0"]), day=15)
        assert (visit - born).days / 365.25 == pytest.approx(person.age, abs=0.06)
        codes = {row[f"41270-0.{k}"]: row[f"41280-0.{k}"] for k in range(3) if row[f"41270-0.{k}"]}
        assert ("I500" in codes) == (person.diagnosis == "hf")
        assert all(pd.Timestamp(date) < visit for date in codes.values())


def test_a_tree_read_again_gives_the_phantoms_stacks(people, tree):
    """All nine stacks; the crop follows the mask's box, so pictures may be shifted by whole
    pixels."""
    for subject in people.people.subject[:2]:
        cine, spacing = read_volume(tree / subject / "sa.nii.gz")
        seg = check_labels(
            read_volume(tree / subject / "seg_sa.nii.gz")[0], mapping={k: k for k in range(4)}
        )
        check_topology(seg[0])
        scan = Scan(
            dict(enumerate(cine)), 0, ES_FRAME, dict(enumerate(seg)), spacing, cycle=len(cine)
        )
        images, masks, rows = stacks(scan, pixels=64, fov_mm=165.0, expand=True, orient="none")
        truth = people.stacks(people.people[people.people.subject == subject].assign(split="train"))
        assert [(row["slice"], row["frame"]) for row in rows] == list(
            zip(truth.index.slice, truth.index.frame, strict=True)
        )
        assert all(row["flags"] == "" for row in rows)
        for image, mask, true_image, true_mask in zip(
            images, masks, truth.images, truth.masks, strict=True
        ):
            shift = best_shift(mask, true_mask)
            assert max(map(abs, shift)) <= 3
            moved, seen = (np.roll(v, shift, axis=(1, 2))[:, 4:-4, 4:-4] for v in (mask, image))
            true_mask, true_image = true_mask[:, 4:-4, 4:-4], true_image[:, 4:-4, 4:-4]
            for label in LABELS.values():
                assert dice(moved == label, true_mask == label) >= 0.85
            assert np.corrcoef(seen.ravel(), true_image.ravel())[0, 1] > 0.9


def best_shift(mask: np.ndarray, wanted: np.ndarray, reach: int = 4) -> tuple[int, int]:
    """(dy, dx) that makes most pixels of `mask` agree."""
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    return max(shifts, key=lambda shift: (np.roll(mask, shift, axis=(1, 2)) == wanted).sum())


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_slices_beyond_the_apex_are_empty(people, tmp_path):
    write_ukbb(people, tmp_path, count=1, slices=11, frames=4, pixels=64, mm=3.0)
    seg = read_volume(tmp_path / "SYN000000" / "seg_sa.nii.gz")[0]
    area = (seg[0] == LV).sum(axis=(1, 2))
    # offsets 4 and 5
    assert seg.shape == (4, 11, 64, 64) and seg[:, 0].any() and not seg[:, 9:].any()
    assert area[5] > area[6] > area[7] > area[8] > 0 and area[4] >= area[5]  # from base to apex
    cine = read_volume(tmp_path / "SYN000000" / "sa.nii.gz")[0]
    assert np.isfinite(cine).all() and cine[:, 9:].std() > 0


def test_end_systole_is_found_at_any_number_of_frames():
    assert smallest_frame(FRAMES) == ES_FRAME and smallest_frame(25) == ES_FRAME // 2
    for frames in (2, 10, 30, 100):
        assert abs(smallest_frame(frames) / frames - ES_FRAME / FRAMES) <= 0.5 / frames + 1e-9


@pytest.mark.parametrize(
    "wrong", [{"count": 7}, {"count": 0}, {"slices": 0}, {"frames": 1}, {"mm": 0}, {"pixels": 4}]
)
def test_impossible_trees_are_refused(people, tmp_path, wrong):
    with pytest.raises(ValueError, match="count is|cannot be drawn"):
        write_ukbb(people, tmp_path / "tree", **wrong)
    assert not (tmp_path / "tree").exists()


def test_a_tree_is_not_written_into_another(people, tree):
    with pytest.raises(FileExistsError, match="is not empty; give a new folder or delete it"):
        write_ukbb(people, tree, count=1)


def test_an_interrupted_subject_leaves_nothing_behind(people, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="disk full"):
        write_ukbb(people, tmp_path, count=1, slices=1, frames=2, pixels=16, mm=10)
    assert not list(tmp_path.iterdir())
