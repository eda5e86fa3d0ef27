import gzip
import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from cmrdata import origin
from cmrdata.batch import BACKGROUND, LV, MYO, RV
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.ukbb_tree import smallest_frame as truth
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.cohorts.ukbb.scan import choose_files, matching_frame, read_scan
from cmrdata.prepare import prepare
from cmrdata.pseudonyms import hashed, read_salt
from cmrdata.slices import Scan, stacks
from cmrdata.store import Store
from cmrdata.volumes import open_volume, read_volume

COUNT, FRAMES, SLICES, PIXELS, MM = 6, 14, 5, 64, 2.8
ES = truth(FRAMES)
WHO = "SYN000002"  # to whom things happen
MAPPING = {BACKGROUND: BACKGROUND, LV: LV, MYO: MYO, RV: RV}
VISIT = "53-2.0"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Six people of the phantom as UK Biobank's files; not to be changed."""
    root = tmp_path_factory.mktemp("ukbb") / "root"
    write_ukbb(
        Phantom(subjects=COUNT, seed=5, design="uniform", hf_share=0.5),
        root,
        count=COUNT,
        pixels=PIXELS,
        mm=MM,
        slices=SLICES,
        frames=FRAMES,
    )
    (root / "table.csv").rename(root.parent / "table.csv")
    return root


@pytest.fixture
def own(tree, tmp_path) -> Path:
    """A copy of three of them, to damage."""
    for number in range(1, 4):
        shutil.copytree(tree / f"SYN{number:06d}", tmp_path / "root" / f"SYN{number:06d}")
    table = pd.read_csv(tree.parent / "table.csv", dtype=str)
    table[1:4].to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "root"


def cohort(place: Path, **options) -> UKBB:
    given = {
        "root": place,
        "table": place.parent / "table.csv",
        "salt_root": place.parent / "salted",
        "pixels": 32,
    }
    return UKBB(**{**given, **options})


def read(made: UKBB, split: str):
    table, rejected = made.subjects()
    return table, rejected, made.stacks(table.assign(split=split))


def reason(root: Path, split: str = "val", **options) -> str:
    """Why the one subject WHO is rejected."""
    made = cohort(root, **options)
    _, rejected, found = read(made, split)
    refused = pd.concat([rejected, found.rejected])
    assert refused.subject.tolist() == [hashed(WHO, read_salt(root.parent / "salted"))]
    assert "SYN" not in refused.reason.item()
    return refused.reason.item()


def load(path: Path) -> np.ndarray:
    """(..., Z, Y, X)"""
    return np.asarray(nibabel.load(path).dataobj).T


def save(path: Path, array: np.ndarray, affine: np.ndarray | None) -> None:
    """(..., Z, Y, X)"""
    nibabel.save(nibabel.Nifti1Image(array.T, affine), path)


def change(path: Path, how) -> None:
    save(path, how(load(path)), nibabel.load(path).affine)


def without(*frames: int, share: float = 0.0):
    """Labels with the LV cavity of some frames lost, but for a share of its rows."""

    def lose(labels: np.ndarray) -> np.ndarray:
        for t in frames:
            places = np.argwhere(labels[t] == LV)
            labels[t][tuple(places[int(share * len(places)) :].T)] = BACKGROUND
        return labels

    return lose


def everything(store: Store) -> str:
    """All text of a store: names, tables, settings, reasons."""
    tables = [pd.read_parquet(path).to_csv() for path in store.folder.rglob("*.parquet")]
    texts = [path.read_text() for end in ("csv", "json") for path in store.folder.rglob(f"*.{end}")]
    return "".join([*tables, *texts, *map(str, store.folder.rglob("*"))])


def test_pictures_are_those_of_the_phantoms_own_labels(tree):
    table, rejected, found = read(cohort(tree), "train")
    assert (
        rejected.empty
        and found.rejected.empty
        and len(table) == COUNT
        and len(found.index) == 9 * COUNT
    )
    salt = read_salt(tree.parent / "salted")
    for number in range(COUNT):
        folder = tree / f"SYN{number:06d}"
        frames, labels = (
            dict(enumerate(load(folder / f"{stem}.nii.gz"))) for stem in ("sa", "seg_sa")
        )
        labels = {t: volume.astype(np.uint8) for t, volume in labels.items()}
        spacing = open_volume(folder / "sa.nii.gz").spacing
        images, masks, _ = stacks(
            Scan(frames, 0, ES, labels, spacing, FRAMES), pixels=32, fov_mm=165.0, expand=True
        )
        mine = (found.index.subject == hashed(folder.name, salt)).to_numpy()
        np.testing.assert_array_equal(found.images[mine], images)
        np.testing.assert_array_equal(found.masks[mine], masks)
    assert set(found.index["flags"]) == {""}


def test_evaluation_gets_the_central_stack_alone(tree):
    nine, one = (read(cohort(tree), split)[2] for split in ("extra", "test"))
    assert one.index.central.all() and len(one.index) == COUNT
    for part in ("images", "masks"):
        np.testing.assert_array_equal(getattr(nine, part)[nine.index.central], getattr(one, part))


def test_ed_is_the_first_frame_and_es_the_smallest_cavity(tree):
    index = read(cohort(tree), "val")[2].index
    assert set(index.ed_frame) == {0} and set(index.es_frame) == {ES}


def test_people_are_those_of_the_table(tree):
    table, _ = cohort(tree, name="mine").subjects()
    people = Phantom(subjects=COUNT, seed=5, design="uniform", hf_share=0.5).people
    for column in ("sex", "diagnosis"):
        assert table[column].tolist() == people[column].tolist()
    np.testing.assert_allclose(table.bmi, people.bmi)
    assert set(table.source) == {"mine"} and set(table.label_source) == {"network"}
    assert not set(table.columns) & {"visit", "first", "eid"}


# The frame of end-systole


def test_a_failed_frame_does_not_win(own):
    change(own / WHO / "seg_sa.nii.gz", without(ES + 3))
    change(own / WHO / "seg_sa.nii.gz", without(ES + 5, share=0.1))
    index = read(cohort(own), "val")[2].index.set_index("subject")
    subject = hashed(WHO, read_salt(own.parent / "salted"))
    assert set(index.es_frame) == {ES}
    assert index["flags"].eq("es_guarded").to_dict() == {
        name: name == subject for name in index.index
    }


def test_case_04_es_may_be_the_last_frame(own):
    for stem in ("sa", "seg_sa"):
        change(own / WHO / f"{stem}.nii.gz", lambda a: a[: ES + 1])
    index = read(cohort(own), "train")[2].index
    mine = index[index.subject == hashed(WHO, read_salt(own.parent / "salted"))]
    assert len(mine) == 9 and set(mine.es_frame) == {ES}


# Labels by a network or by hand, in one file or two


def as_pair(folder: Path) -> None:
    labels = load(folder / "seg_sa.nii.gz")
    (folder / "seg_sa.nii.gz").unlink()
    for phase, t in (("ED", 0), ("ES", ES)):
        save(
            folder / f"seg_sa_{phase}.nii.gz", labels[t], nibabel.load(folder / "sa.nii.gz").affine
        )


def only_two_frames(folder: Path) -> None:
    def blank(labels: np.ndarray) -> np.ndarray:
        labels[[t for t in range(FRAMES) if t not in (0, ES)]] = BACKGROUND
        return labels

    change(folder / "seg_sa.nii.gz", blank)


def drawn_in_one(folder: Path) -> None:
    only_two_frames(folder)
    labels = load(folder / "seg_sa.nii.gz").astype(np.int16)
    # without RV or LV: not annotated
    labels[2] = np.where(labels[0] == RV, BACKGROUND, labels[0]) * (labels[0] > 1)
    save(folder / "label_sa.nii.gz", labels, nibabel.load(folder / "sa.nii.gz").affine)
    (folder / "seg_sa.nii.gz").unlink()
    for phase in ("ED", "ES"):
        (folder / f"label_sa_{phase}.nii.gz").unlink()


FORMS = {
    "manual pair": (lambda f: None, {"labels": "manual"}),
    "manual pair, nothing else": (lambda f: (f / "seg_sa.nii.gz").unlink(), {}),
    "network pair": (as_pair, {"labels": "network"}),
    "network, zeros elsewhere": (only_two_frames, {}),
    "manual, 4-D": (drawn_in_one, {}),
    "network pair, other units": (
        lambda f: (as_pair(f), change(f / "sa_ES.nii.gz", lambda a: a * 0.8)),
        {"labels": "auto"},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_case_01_labels_at_two_frames_give_the_same_and_neighbours_their_masks(own, form):
    usual = read(cohort(own), "train")[2]
    make, options = FORMS[form]
    for folder in own.iterdir():
        make(folder)
    table, rejected, found = read(cohort(own, **options), "train")
    assert rejected.empty and found.rejected.empty
    assert set(table.label_source) == {"manual" if "manual" in form else "network"}
    if form.endswith("units"):  # nothing tells where sa_ES comes from
        assert set(found.index["flags"]) == {"es_unplaced;frames_clipped"} and len(found.index) == 9
        return
    np.testing.assert_array_equal(found.images, usual.images)
    here = found.index.frame == 0
    np.testing.assert_array_equal(found.masks[here], usual.masks[here])
    assert found.index["flags"].tolist() == ["" if now else "mask_reused" for now in here]
    assert set(found.index.es_frame) == {ES}


def test_the_place_of_es_can_come_from_network_labels(own):
    for folder in own.iterdir():
        (folder / "sa_ES.nii.gz").unlink()
    assert set(read(cohort(own, labels="manual"), "train")[2].index.es_frame) == {ES}
    for folder in own.iterdir():
        (folder / "seg_sa.nii.gz").unlink()
    _, rejected = cohort(own, labels="manual").subjects()
    assert len(rejected) == 3 and rejected.reason[0].startswith(
        "ES labels: neither sa_ES.nii.gz nor seg_sa.nii.gz"
    )


def test_a_clipped_still_is_found_in_its_cine(tree):
    for folder in tree.iterdir():
        cine = open_volume(folder / "sa.nii.gz")
        still, _ = read_volume(folder / "sa_ES.nii.gz")
        assert matching_frame(cine, still) == ES
        assert matching_frame(cine, cine.take([FRAMES - 1])[FRAMES - 1]) == FRAMES - 1
        noise = np.random.default_rng(0).normal(still.mean(), still.std(), still.shape)
        assert matching_frame(cine, noise) is None
        assert matching_frame(cine, np.full(still.shape, np.nan)) is None


def test_without_a_cine_there_are_clipped_stills_and_no_neighbours(own):
    usual = read(cohort(own), "train")[2]
    for folder in own.iterdir():
        (folder / "sa.nii.gz").unlink()
    for labels, placed in (("network", ""), ("manual", "es_unplaced;")):
        found = read(cohort(own, labels=labels), "train")[2]
        assert set(found.index.frame) == {0} and len(found.index) == 9
        assert set(found.index["flags"]) == {f"{placed}frames_clipped"}
        np.testing.assert_array_equal(found.masks, usual.masks[usual.index.frame == 0])


def test_an_es_still_of_a_failed_frame_is_not_used(own):
    (own / WHO / "sa.nii.gz").unlink()
    change(own / WHO / "seg_sa.nii.gz", without(ES + 3))
    assert reason(own) == "ES image: it was taken at a frame whose labels failed"


def test_case_03_the_first_annotated_frame_must_be_ed(own):
    for folder in own.iterdir():
        drawn_in_one(folder)
    change(own / WHO / "label_sa.nii.gz", without(0))
    assert reason(own).startswith(f"labels: the first annotated frame is {ES} (counted from 0)")
    change(
        own / WHO / "label_sa.nii.gz", lambda a: a[[ES, *range(1, ES), 1, *range(ES + 1, FRAMES)]]
    )
    assert reason(own) == "labels: ED is the only annotated frame"


def test_files_are_chosen_by_preference():
    both = {"sa", "seg_sa", "label_sa", "sa_ED", "sa_ES"}
    assert choose_files(both, labels="auto") == {"cine": "sa", "labels": "seg_sa"}
    assert choose_files(both, labels="manual") == {"cine": "sa", "labels": "label_sa"}
    stills = {
        "ED image": "sa_ED",
        "ES image": "sa_ES",
        "ED labels": "seg_sa_ED",
        "ES labels": "seg_sa_ES",
    }
    assert choose_files({*both, *stills.values()} - {"sa"}, labels="auto") == stills


def test_case_10_upsampled_labels_and_other_views_are_ignored(own):
    usual = cohort(own)
    for stem in ("label_up_sa", "label_up_sa_ED", "la_4ch", "seg4_la_4ch_ED"):
        save(own / WHO / f"{stem}.nii.gz", np.ones((2, 3, 4), np.int16), np.eye(4))
    again = cohort(own)
    assert again.subjects()[1].empty and again.settings == usual.settings


def test_case_10_rv_may_be_4_by_option_alone(own):
    for folder in own.iterdir():
        change(folder / "seg_sa.nii.gz", lambda a: np.where(a == RV, 4, a))
    usual, four = cohort(own), cohort(own, label_map={"lv": 1, "myo": 2, "rv": 4})
    assert set(read(usual, "val")[2].rejected.reason) == {
        "labels: unknown labels 4, expected 0, 1, 2, 3"
    }
    found = read(four, "val")[2]
    assert found.rejected.empty and (found.masks == RV).any() and usual.settings != four.settings


@pytest.mark.parametrize(
    "label_map",
    [
        {"lv": 1, "myo": 2},
        {"lv": 1, "myo": 2, "rv": 2},
        {"lv": 0, "myo": 2, "rv": 3},
        {"lv": 1, "myo": 2, "rv": 3, "la": 4},
    ],
)
def test_a_label_map_that_is_none_is_refused(label_map):
    with pytest.raises(ValueError, match="cohort.label_map is .* lv, myo and rv"):
        UKBB(root=None, table=None, label_map=label_map)


@pytest.mark.parametrize(("setting", "value"), [("instance", 0), ("labels", "both")])
def test_other_choices_are_refused(setting, value):
    with pytest.raises(ValueError, match=f"cohort.{setting} is"):
        UKBB(root=None, table=None, **{setting: value})


# What is read, and what is held


def cut_behind(path: Path, frame: int) -> None:
    """A gzip file that ends, torn, behind a frame."""
    header = open_volume(path)
    content = zlib.decompressobj(wbits=31).decompress(path.read_bytes())
    end = header.offset + (frame + 1) * int(np.prod(header.shape)) * header.dtype.itemsize
    packer = zlib.compressobj(wbits=31)
    path.write_bytes(packer.compress(content[:end]) + packer.flush(zlib.Z_SYNC_FLUSH))


@pytest.mark.parametrize("frame", [ES - 1, ES, FRAMES - 2])
def test_a_cine_that_was_cut_is_refused_in_every_split(own, frame):
    cut_behind(own / WHO / "sa.nii.gz", frame)
    for split in ("train", "val"):
        assert reason(own, split).startswith("cine: file is truncated or corrupt")


def garble(path: Path, frame: int) -> None:
    """Other bits from a frame on, in a gzip file of stored blocks: as long as before, but for its
    checksum."""
    header = open_volume(path)
    content = gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0)
    place = (
        len(content) - (header.frames - frame) * int(np.prod(header.shape)) * header.dtype.itemsize
    )
    path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])


def test_damage_behind_es_costs_the_neighbours_in_time_and_not_the_subject(own):
    usual = {split: read(cohort(own), split)[2] for split in ("train", "val")}
    garble(own / WHO / "sa.nii.gz", ES + 3)
    found = {split: read(cohort(own), split)[2] for split in ("train", "val")}
    np.testing.assert_array_equal(found["val"].images, usual["val"].images)
    mine = found["train"].index.subject == hashed(WHO, read_salt(own.parent / "salted"))
    assert found["train"].rejected.empty and mine.sum() == 3
    assert set(found["train"].index["flags"][mine]) == {"neighbours_lost"}
    assert set(found["train"].index["flags"][~mine]) == {""}
    central = usual["train"].index.subject.isin(found["train"].index.subject[mine]) & (
        usual["train"].index.frame == 0
    )
    np.testing.assert_array_equal(found["train"].images[mine], usual["train"].images[central])
    assert reason(own, cine=FRAMES).startswith("cine: file is truncated or corrupt")


def test_only_needed_frames_are_held(own):
    paths = {"cine": own / WHO / "sa.nii.gz", "labels": own / WHO / "seg_sa.nii.gz"}
    for expand, frames in ((False, {0, ES}), (True, {FRAMES - 1, 0, 1, ES - 1, ES, ES + 1})):
        scan = read_scan(paths, mapping=MAPPING, expand=expand)
        assert set(scan.frames) == set(scan.labels) == frames
        for volume in [*scan.frames.values(), *scan.labels.values()]:
            # and no part of something larger
            assert volume.shape == (SLICES, PIXELS, PIXELS) and volume.base is None
        assert all(volume.dtype == np.uint8 for volume in scan.labels.values())


def test_unpacked_files_are_read_too(own):
    usual = read(cohort(own), "train")[2]
    for path in own.rglob("*.nii.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(read(cohort(own), "train")[2].images, usual.images)


def test_case_17_a_time_axis_in_front_is_found_by_its_length(own):
    usual = read(cohort(own), "train")[2]
    for stem in ("sa", "seg_sa"):
        path = own / WHO / f"{stem}.nii.gz"
        save(path, np.moveaxis(load(path), 0, -1), np.diag([1, MM, MM, 1]))
    found = read(cohort(own, frames=FRAMES), "train")[2]
    np.testing.assert_array_equal(found.images, usual.images)


def test_case_02_headers_that_place_image_and_labels_apart_are_flagged(own):
    usual = read(cohort(own), "val")[2]
    path = own / WHO / "seg_sa.nii.gz"
    save(path, load(path), np.diag([-MM, -MM, -10, 1.0]))
    found = read(cohort(own), "val")[2]
    assert sorted(found.index["flags"]) == ["", "", "affine_mismatch"]
    np.testing.assert_array_equal(found.masks, usual.masks)


def test_case_08_a_header_without_spacing_needs_the_default(own):
    usual = read(cohort(own), "val")[2]
    path = own / WHO / "sa.nii.gz"
    save(path, load(path), None)
    assert reason(own).startswith("cine: in-plane spacing")
    np.testing.assert_array_equal(
        read(cohort(own, default_spacing=MM), "val")[2].masks, usual.masks
    )


def test_case_07_ed_without_labels_is_told_and_es_decides(own):
    usual = read(cohort(own), "val")[2]

    def blank(labels: np.ndarray) -> np.ndarray:
        labels[0] = BACKGROUND
        return labels

    change(own / WHO / "seg_sa.nii.gz", blank)
    found = read(cohort(own), "val")[2]
    assert found.rejected.empty and set(found.index.es_frame) == {ES}
    mine = (found.index.subject == hashed(WHO, read_salt(own.parent / "salted"))).to_numpy()
    assert ["ed_unlabelled" in flags for flags in found.index["flags"]] == mine.tolist()
    assert not found.masks[mine, 0].any() and (found.masks[mine, 1] == LV).any()
    np.testing.assert_array_equal(found.images[~mine], usual.images[~mine])


@pytest.mark.parametrize(("axis", "column"), [(-1, 0), (-2, 1), (-3, 2)])
def test_case_12_13_mirrored_files_are_set_upright_by_their_headers(own, axis, column):
    usual = read(cohort(own), "train")[2]
    for stem in ("sa", "seg_sa"):
        path = own / WHO / f"{stem}.nii.gz"
        affine = nibabel.load(path).affine
        affine[:, column] *= -1
        save(path, np.flip(load(path), axis), affine)
    found = read(cohort(own), "train")[2]
    for part, allowed in (("masks", 0), ("images", 2)):
        mine, theirs = getattr(found, part).astype(int), getattr(usual, part).astype(int)
        assert (np.abs(mine - theirs) > allowed).mean() < 0.002
    assert found.index.slice.tolist() == usual.index.slice.tolist()


def small_at_ed(labels: np.ndarray) -> np.ndarray:
    labels[0], labels[0, [0, 1, 3, 4]] = labels[ES], BACKGROUND
    return labels


FAULTS = {
    "image: sa.nii.gz is missing, and sa_ED": lambda f: [
        (f / f"{s}.nii.gz").unlink() for s in ("sa", "sa_ED")
    ],
    "labels: no seg_sa.nii.gz": lambda f: (f / "seg_sa.nii.gz").unlink(),
    "cine: file is empty (0 bytes)": lambda f: (f / "sa.nii.gz").write_bytes(b""),
    "labels: file is truncated": lambda f: (f / "seg_sa.nii.gz").write_bytes(
        (f / "seg_sa.nii.gz").read_bytes()[:-999]
    ),
    "cine: no time axis": lambda f: change(f / "sa.nii.gz", lambda a: a[0]),
    "labels: no time axis": lambda f: change(f / "seg_sa.nii.gz", lambda a: a[:1]),
    "labels: 14 frames of 5 x 64 x 60": lambda f: change(
        f / "seg_sa.nii.gz", lambda a: a[..., :60]
    ),
    "labels: 13 frames of 5 x 64 x 64 (Z x Y x X), but the image has 14": lambda f: change(
        f / "seg_sa.nii.gz", lambda a: a[:13]
    ),
    "labels: unlabelled": lambda f: change(f / "seg_sa.nii.gz", np.zeros_like),
    "labels: labels are not integers: 0.5": lambda f: change(f / "seg_sa.nii.gz", lambda a: a / 2),
    "labels: labels are not integers: nan": lambda f: change(
        f / "seg_sa.nii.gz", lambda a: np.where(a == 3, np.nan, a)
    ),
    "labels: unknown labels 64": lambda f: change(
        f / "seg_sa.nii.gz", lambda a: np.where(a == 1, 64, a)
    ),
    "labels: no frame but ED": lambda f: change(f / "seg_sa.nii.gz", without(*range(1, FRAMES))),
    "ED labels: no LV cavity": lambda f: change(f / "seg_sa.nii.gz", without(0)),
    "ED labels: the LV cavity is smaller than at ES": lambda f: change(
        f / "seg_sa.nii.gz", small_at_ed
    ),
    "ES labels: LV and RV look swapped": lambda f: change(
        f / "seg_sa.nii.gz", lambda a: np.array([0, 3, 2, 1.0])[a.astype(int)]
    ),
    "constant image": lambda f: change(f / "sa.nii.gz", np.ones_like),
}


@pytest.mark.parametrize("why", FAULTS)
def test_case_02_10_11_14_15_29_a_faulty_subject_is_rejected_with_a_reason_and_no_name(own, why):
    FAULTS[why](own / WHO)
    assert reason(own, labels="network").startswith(why)


def test_a_file_that_cannot_be_read_rejects_its_subject(own, monkeypatch):
    usual = Path.open

    def broken(self, *args, **kwargs):
        if self.parent.name == WHO and self.name == "sa.nii.gz":
            raise OSError(5, "Input/output error", str(self))
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", broken)
    assert reason(own) == "cine: file cannot be read (OSError)"


# Who is in the cohort


def test_case_30_31_withdrawn_participants_and_ids_appear_nowhere(own, tmp_path, capsys):
    (own / WHO / "sa.nii.gz").unlink()  # nor are they rejected
    (tmp_path / "gone.csv").write_text(f" {WHO} \nSYN000099\n")
    made = cohort(own, exclude=tmp_path / "gone.csv", max_rejected=0)
    store = prepare(made, tmp_path / "data")
    text = everything(store) + "".join(made.notes()) + "".join(capsys.readouterr())
    names = [path.name for path in own.iterdir()]
    assert WHO in names and not [name for name in (*names, "SYN000099") if name in text]
    assert hashed(WHO, read_salt(tmp_path / "salted")) not in text
    assert made.notes()[0] == "1 participant withdrawn (cohort.exclude)"
    visits = pd.read_csv(own.parent / "table.csv", dtype=str)[VISIT]
    assert not [date for date in visits if date in text]


def test_case_27_folders_and_rows_are_joined_both_ways(own):
    table = pd.read_csv(own.parent / "table.csv", dtype=str)
    table["eid"] = table.eid.replace({"SYN000003": "SYN000098"}).map(" {}.0".format)
    table.to_csv(own.parent / "table.csv", index=False)
    made = cohort(own)
    known, rejected = made.subjects()
    salt = read_salt(own.parent / "salted")
    assert known.subject.tolist() == [hashed(f"SYN{k:06d}", salt) for k in (1, 2)]
    assert rejected.values.tolist() == [[hashed("SYN000003", salt), "no row in the table"]]
    assert {
        "1 image folder without a row in the table",
        "1 table row without an image folder",
    } <= set(made.notes())


def test_the_split_does_not_depend_on_the_salt(tree, tmp_path):
    stores = [prepare(cohort(tree, salt_root=tmp_path / salt), tmp_path / salt) for salt in "ab"]
    assert not set(stores[0].subjects.subject) & set(stores[1].subjects.subject)
    assert stores[0].subjects.split.tolist() == stores[1].subjects.split.tolist()
    assert (stores[0].folder / "images.u8").read_bytes() == (
        stores[1].folder / "images.u8"
    ).read_bytes()


def repeat(own: Path) -> None:
    """A column for the repeat visit, four years on."""
    table = pd.read_csv(own.parent / "table.csv", dtype=str)
    later = (pd.to_datetime(table[VISIT]) + pd.Timedelta(days=1461)).dt.date.astype(str)
    table.assign(**{"53-3.0": later, "21001-3.0": "31.5"}).to_csv(
        own.parent / "table.csv", index=False
    )


@pytest.mark.parametrize("name", ["{}_retest", "{}_3_0", "{}_20209_3_0"])
def test_case_18_the_repeat_visit_is_joined_with_its_own_columns(own, name):
    repeat(own)
    first, _, pictures = read(cohort(own), "val")
    (own / "SYN000003").rename(own / name.format(WHO))  # other pictures, so that a mistake shows
    table, rejected, found = read(cohort(own, instance=3), "val")
    assert (
        table.subject.tolist() == [hashed(WHO, read_salt(own.parent / "salted"))] and rejected.empty
    )
    assert table.bmi.tolist() == [31.5] and first.bmi.max() != 31.5
    assert table.age.item() == pytest.approx(first.age[1] + 4, abs=1)
    np.testing.assert_array_equal(found.images, pictures.images[[2]])
    again, _, same = read(cohort(own), "val")
    assert again.subject.tolist() == first.subject.tolist()[:2]
    np.testing.assert_array_equal(same.images, pictures.images[:2])


def test_deprivation_comes_in_thirds_and_unknown_stays_unknown(tree):
    table = pd.read_csv(tree.parent / "table.csv", dtype=str)
    path = tree.parent / "townsend.csv"
    table.assign(**{"189-0.0": ["-4", "2.5", "", "-1", "6", "-4"]}).to_csv(path, index=False)
    known, _ = cohort(tree, table=path).subjects()
    assert known.townsend_band.fillna("").tolist() == ["low", "high", "", "middle", "high", "low"]
    assert cohort(tree).subjects()[0].townsend_band.isna().all()


def held(cohort) -> str:
    """What a cohort's source is: its participants and what their files hold."""
    source = cohort.source()
    return origin.digest(source, origin.look(source.files)[0])


def test_settings_follow_the_options_and_the_source_the_files(own):
    usual = cohort(own)
    other = cohort(own, salt_root=own.parent / "other", max_rejected=0.5)
    assert other.settings == usual.settings and held(other) == held(usual)
    assert cohort(own, reach=0).settings != usual.settings and held(cohort(own, reach=0)) == held(
        usual
    )
    before = held(usual)
    with (own / WHO / "sa.nii.gz").open("ab") as file:
        file.write(b"0")
    assert held(cohort(own)) != before


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("root", None, "seg_sa.nii.gz"),
        ("root", "nowhere", "seg_sa.nii.gz"),
        ("table", None, "eid"),
        ("table", "nowhere", "eid"),
        ("exclude", "nowhere", "withdrawn"),
    ],
)
def test_what_is_not_given_is_asked_for(own, setting, value, expected):
    made = cohort(own, **{setting: value})  # making it touches no file
    with pytest.raises(FileNotFoundError) as error:
        made.subjects()
    assert all(
        word in str(error.value) for word in (f"cohort.{setting}", value or "not set", expected)
    )
    assert "\n" not in str(error.value) and not (own.parent / "salted").exists()


def test_a_root_without_the_visit_says_what_it_has(own):
    for folder in own.iterdir():
        folder.rename(own / f"{folder.name}_2_0")
    with pytest.raises(
        FileNotFoundError,
        match=r"no folder of imaging visit 3 .*\(3 image folders of another visit\)",
    ):
        cohort(own, instance=3).subjects()
    with pytest.raises(
        ValueError, match=r"cohort.root=.*table.csv: cannot be listed \(NotADirectoryError\)"
    ):
        cohort(own, root=own.parent / "table.csv").subjects()
