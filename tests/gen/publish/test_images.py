"""What leaves with a synthetic set: readable by others, exactly the set, and nobody's name, age or
hash."""

import json
import shutil
from pathlib import Path
from unittest.mock import patch

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cmrdata import axes
from cmrdata.axes import AXES
from cmrdata.plan_columns import PLAN_COLUMNS
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.publish.images import FIRST_COLUMNS, public_table, publish_set
from cmrgen.render.set_card import card_of_set
from cmrstudy.runs import code_version
from support.added_axes import ETHNICITY, WAIST
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("set")
    cohort = prepare(FakeCohort(), root)
    made = fake_set(root / "synthetic", cohort, count=24)
    facts = json.loads((made.folder / "store.json").read_text())
    (made.folder / "store.json").write_text(json.dumps({**facts, "fov_mm": 160.0, "code": "1.2.3"}))
    return Store.open(made.folder)


@pytest.fixture(scope="module")
def shared(made: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        path.name: path
        for path in publish_set(made, tmp_path_factory.mktemp("out"), formats=["png", "nifti"])
    }


def test_png_images_and_masks_are_the_sets_own_pixels(made, shared):
    table = pd.read_csv(shared["png"] / "metadata.csv")
    assert len(table) == len(made.index) == len(list((shared["png"] / "images").iterdir()))
    for k in (0, 7, 23):
        image = np.asarray(Image.open(shared["png"] / table.file_name[k]))
        assert (image[..., 0] == made.images[k, 0]).all() and (
            image[..., 1] == made.images[k, 1]
        ).all()
        for p, phase in enumerate(("ed", "es")):
            mask = Image.open(shared["png"] / table[f"{phase}_mask_file_name"][k])
            assert mask.mode == "P" and (np.asarray(mask) == made.masks[k, p]).all()
            colours = np.asarray(mask.convert("RGB"))
            # eyes see it too
            assert len(np.unique(colours.reshape(-1, 3), axis=0)) == len(
                np.unique(made.masks[k, p])
            )


def test_nifti_pairs_lie_on_one_another_with_the_pixel_size_of_the_cohort(made, shared):
    facts = json.loads((shared["nifti"] / "dataset.json").read_text())
    images = sorted((shared["nifti"] / "imagesTr").iterdir())
    assert facts["numTraining"] == len(images) == 2 * len(made.index)
    assert facts["labels"] == {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
    for path in images[:4]:
        image = nib.load(path)
        labels = nib.load(shared["nifti"] / "labelsTr" / path.name.replace("_0000", ""))
        assert np.array_equal(image.affine, labels.affine) and image.shape == labels.shape
        assert np.allclose(image.header.get_zooms()[:2], 160.0 / made.meta["pixels"])
        row, phase = path.name.split("_")[:2]
        assert (
            made.images[int(row), ["ED", "ES"].index(phase)] == np.asarray(image.dataobj)[..., 0].T
        ).all()
        assert nib.aff2axcodes(image.affine)[:2] == (
            "L",
            "P",
        )  # the view of the slice: left of the patient to the right


def test_nothing_that_leaves_tells_a_participant(made, shared):
    known = set(made.index.subject) | {f"{age}" for age in made.index.age}
    for path in shared.values():
        assert not any(
            name in str(file) for file in path.rglob("*") for name in set(made.index.subject)
        )
        for text in ("metadata.csv", "README.md"):
            assert not [name for name in known if name in (path / text).read_text()]
    table = public_table(made.index)
    assert {"subject", "age", "bmi", "source_row"}.isdisjoint(table)
    public = [column.name for column in PLAN_COLUMNS if column.public]
    assert list(table)[:3] == list(FIRST_COLUMNS) and set(table) == {*FIRST_COLUMNS, *public}
    both = pd.DataFrame({"a": made.index.subject.to_numpy(), "b": table.source})
    assert (both.groupby("a").b.nunique() == 1).all() and (
        both.groupby("b").a.nunique() == 1
    ).all()  # still who with whom


@pytest.mark.parametrize("axis", [ETHNICITY, WAIST], ids=lambda axis: axis.column)
def test_the_bands_of_an_added_axis_leave_with_a_set_and_its_numbers_do_not(made, axis):
    index = made.index.assign(**{axis.column: axis.values[0]}, waist=80.0)
    plain = public_table(index)
    assert list(plain) == list(public_table(made.index))  # nobody knows the axis
    with patch.dict(AXES):
        axes.add(axis)
        table = public_table(index)
        assert list(table) == [*plain, axis.column] and set(table[axis.column]) == {axis.values[0]}
        assert list(public_table(made.index)) == list(plain)  # a set that has no such column


def test_columns_of_an_axis_that_nobody_knows_stay_and_are_named(made, tmp_path, capsys):
    publish_set(made, tmp_path / "plain")
    assert capsys.readouterr().out == ""
    more = Store(made.folder)
    vars(more)["index"] = made.index.assign(waist=80.0, waist_band="slim")
    (path,) = publish_set(more, tmp_path / "more")
    assert "more: waist, waist_band stay here, since no axis has these names" in (
        capsys.readouterr().out
    )
    assert "waist" not in (path / "metadata.csv").read_text()


def test_an_interrupted_export_is_continued_and_a_finished_one_left_alone(
    made, shared, tmp_path, monkeypatch
):
    from cmrgen.publish import images as module

    real, calls = module._write, []

    def breaking(path, content):
        calls.append(path)
        if len(calls) == 10:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(module, "_write", breaking)
    with pytest.raises(KeyboardInterrupt):
        publish_set(made, tmp_path)
    assert not (tmp_path / "png").exists()
    monkeypatch.setattr(module, "_write", real)
    publish_set(made, tmp_path)
    whole = {
        p.relative_to(shared["png"]): p.read_bytes()
        for p in shared["png"].rglob("*")
        if p.is_file()
    }
    assert {
        p.relative_to(tmp_path / "png"): p.read_bytes()
        for p in (tmp_path / "png").rglob("*")
        if p.is_file()
    } == whole
    with pytest.raises(FileExistsError, match="is there already"):
        publish_set(made, tmp_path)
    with pytest.raises(ValueError, match="jpeg is unknown; choose from png, nifti"):
        publish_set(made, tmp_path, formats=["jpeg"])


def test_the_card_hides_small_counts_and_quotes_only_an_audit_of_this_set(made, tmp_path):
    text = card_of_set(made)
    most = made.index.subject.value_counts()
    assert (
        f"images of one participant: median {most.median():g}, at most {most.max()}; 0 % of the masks are moved"
        in text
    )
    assert "< 10" in text and "not examined" in text and made.meta["settings"]["generator"] in text
    with pytest.raises(FileNotFoundError, match="no audit there"):
        card_of_set(made, audit=str(tmp_path))
    found = {"set": made.fingerprint, "date": "2026-11-22", "verdicts": ["No copies were found."]}
    (tmp_path / "audit.json").write_text(json.dumps(found))
    assert "Audit of 2026-11-22: No copies were found." in card_of_set(made, audit=str(tmp_path))
    (tmp_path / "audit.json").write_text(json.dumps({**found, "set": "other"}))
    with pytest.raises(ValueError, match="audit of set other"):
        card_of_set(made, audit=str(tmp_path))


def test_without_a_pixel_size_there_is_no_nifti(made, tmp_path):
    shutil.copytree(made.folder, tmp_path / "set")
    facts = json.loads((tmp_path / "set/store.json").read_text())
    del facts["fov_mm"]
    (tmp_path / "set/store.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="no NIfTI form"):
        publish_set(Store.open(tmp_path / "set"), tmp_path / "out", formats=["nifti"])


def test_the_code_version_is_the_released_one_and_a_commit():
    released, _, commit = code_version().partition("+")
    assert released and (not commit or len(commit.split(".")[0]) == 8)
