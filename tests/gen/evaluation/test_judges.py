"""The judges learn, are kept and are seeded; they judge a slice at a time, on one device, beside
stores that are closed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cmrdata import caches, selection
from cmrdata.prepare import prepare
from cmrdata.selection import Selection
from cmrdata.store import Store
from cmrgen.evaluation import judges
from cmrgen.evaluation import networks as networks_module
from cmrgen.evaluation.adherence.areas import structure_areas
from cmrgen.evaluation.adherence.scores import (
    JudgedImages,
    adherence_detail,
    adherence_table,
    derangement,
)
from cmrgen.evaluation.fidelity.backbones import kept_features
from cmrgen.evaluation.privacy import nearest
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are slower on two threads, much slower when other programs want the
    second core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=180), tmp_path_factory.mktemp("store"))


def test_judges_learn_the_fake_hearts_and_are_kept(store: Store, tmp_path: Path) -> None:
    wanted = {"steps": (80, 40), "width": (8, 8)}
    made = judges.trained_judges(store, tmp_path, **wanted)
    held = np.flatnonzero(store.index.split.isin(["val", "test"]))
    synthetic = fake_set(tmp_path / "set", store, count=72)
    others = derangement(72, seed=0)
    looks = [
        judges.judge(made, store.images[held], store.masks[held]),
        judges.judge(made, synthetic.images, synthetic.masks, others=synthetic.masks[others]),
    ]
    real, fake = (
        JudgedImages(index, look.areas, look.predicted, look.flat, others, look.shuffled)
        for look, index in zip(looks, (store.index.iloc[held], synthetic.index), strict=True)
    )
    rows = adherence_table(real, fake).table.set_index("metric")
    assert rows.real["dice"] > 0.5 and rows.synthetic["diagnosis_accuracy"] > 0.8
    assert (rows.shuffled < rows.synthetic)[["dice", "diagnosis_accuracy"]].all()
    detail = adherence_detail(real, fake).set_index(["structure", "phase"])
    # the only structure of a fake heart that is brighter than its surroundings
    assert detail.real["LV", "ED"] > 0.8
    assert (
        looks[0].features.shape == (len(held), networks_module.FEATURES)
        and np.isfinite(looks[0].features).all()
    )

    assert (
        sorted(p.suffix for p in tmp_path.iterdir() if p.is_file())
        == [".json"] * 2 + [".safetensors"] * 2
    )
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()}
    again = judges.trained_judges(store, tmp_path, **wanted)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.is_file()} == before
    assert again.card == made.card
    assert np.array_equal(
        judges.domain_backbone(again).extract(store.images[held]), looks[0].features
    )


def test_judges_are_seeded_and_leave_the_global_generator_alone(
    store: Store, tmp_path: Path
) -> None:
    looks = []
    for k, seed in enumerate((0, 0, 1)):
        torch.manual_seed(77 + k)  # wherever everybody's draws stand
        state = torch.get_rng_state()
        made = judges.trained_judges(
            store, tmp_path / str(k), steps=(2, 2), width=(8, 8), seed=seed
        )
        assert torch.equal(torch.get_rng_state(), state)
        looks.append(judges.domain_backbone(made).extract(store.images[:4]))
    assert np.allclose(looks[0], looks[1], atol=1e-5) and not np.allclose(
        looks[0], looks[2], atol=1e-5
    )


def test_heads_are_absent_for_unknown_axes(tmp_path: Path) -> None:
    made = judges.trained_judges(
        prepare(FakeCohort(count=72, unknown=("sex",)), tmp_path),
        tmp_path,
        steps=(1, 1),
        width=(8, 8),
    )
    assert list(made.attributes.heads) == ["age_band", "bmi_band", "diagnosis"]


def test_judges_refuse_a_store_without_training_rows(store: Store, tmp_path: Path) -> None:
    bare = Store(store.folder)
    bare.__dict__["index"] = store.index[store.index.split == "test"]
    with pytest.raises(ValueError, match="no row of the train split"):
        judges.trained_judges(bare, tmp_path)


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> judges.Judges:
    return judges.trained_judges(
        store, tmp_path_factory.mktemp("judges"), steps=(30, 20), width=(8, 8)
    )


def test_layers_give_a_distance(store: Store, trained: judges.Judges) -> None:
    vectors = judges.perceptual_layers(
        trained, np.concatenate([store.images[:3], store.images[:1], store.images[:1] // 2])
    )
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(-1).numpy()
    assert (
        apart[0, 3] == pytest.approx(0, abs=1e-6)
        and (apart[0, 1:3] > 0.01).all()
        and np.allclose(apart, apart.T)
    )
    x = networks_module.resized(networks_module.signed(store.images[:1], vectors.device))
    first = trained.attributes.trunk[0](x)[0]
    # a layer by hand: unit over channels
    unit = (first / first.norm(dim=0, keepdim=True).clamp(min=1e-12)).flatten(1)
    assert float((vectors[0, : unit.numel()] ** 2).sum()) == pytest.approx(
        float((unit**2).sum(0).mean()), rel=1e-4
    )


@pytest.fixture(scope="module")
def networks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> judges.Judges:
    return judges.trained_judges(
        store, tmp_path_factory.mktemp("judges"), steps=(2, 2), width=(8, 8)
    )


def test_judging_in_slices_is_judging_at_once(
    store: Store, networks: judges.Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).permutation(len(store.index))[:70]
    others = rows[derangement(70, seed=0)]
    images, masks = np.array(store.images[rows]), np.array(store.masks[rows])
    images[3], images[4, 1] = 9, 200
    vars(given := Store(store.folder))["images"] = np.concatenate([images, store.images])
    place = np.arange(70)
    with torch.inference_mode():  # as a program without any memory to care for
        x = networks_module.signed(images, networks.device)
        labels = networks.segmenter(x.flatten(0, 1)[:, None]).argmax(1).view(x.shape).numpy()
        wanted = networks.attributes.features(x).numpy()
    labels[3], labels[4, 1] = 0, 0
    monkeypatch.setattr(selection, "PIXELS", 16**2 * 13)  # six slices
    look = judges.judge(
        networks,
        Selection(given.images, place),
        Selection(store.masks, rows),
        others=Selection(store.masks, others),
    )
    for counts, right in ((look.areas, masks), (look.shuffled, store.masks[others])):
        for got, expected in zip(counts, structure_areas(labels, right), strict=True):
            assert np.array_equal(got, expected)
    assert (
        np.allclose(look.features, wanted, atol=1e-5)
        and look.flat.sum() == 3
        and look.flat[4].tolist() == [False, True]
    )
    assert look.predicted["sex"][3] is None and look.predicted["sex"][4] is not None
    assert np.allclose(judges.domain_backbone(networks).extract(images), wanted, atol=1e-5)


GROWTH = """
import sys
from pathlib import Path
import numpy as np, torch
from cmrdata import progress
from cmrdata.selection import everything
from cmrgen.evaluation import judges
from cmrgen.evaluation import networks as networks_module
from cmrgen.evaluation.privacy import nearest

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

folder, pixels, peak, inner = Path(sys.argv[1]), 128, [0.0], progress.Lines.advance
def watched(self, count=1):
    peak[0] = max(peak[0], anonymous())
    inner(self, count)
progress.Lines.advance = watched
torch.set_num_threads(1)
networks = judges.Judges(networks_module.Segmenter(4).eval(), networks_module.AttributeNet(["sex"], 4).eval(), {})
for count in (64, 320):
    for name in ("images", "masks"):
        with (folder / f"{count}-{name}").open("wb") as file:
            file.truncate(count * 2 * pixels**2)
    images, masks = (np.memmap(folder / f"{count}-{name}", np.uint8, "r", shape=(count, 2, pixels, pixels))
                     for name in ("images", "masks"))
    before, peak[0] = anonymous(), 0.0
    look = judges.judge(networks, everything(images), everything(masks), others=everything(masks[::-1]), what="all")
    kept = nearest._kept(everything(images), device="cpu", folder=folder)
    assert len(look.features) == len(kept[0]) == count and look.flat.all()
    print("MIB", max(peak[0], anonymous()) - before, images.nbytes / 2**20)
"""


@pytest.mark.slow  # seconds
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells anonymous memory"
)
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Five times the images: 8 MiB more of them, as much of masks and of others' masks, in memory
    of the same size."""
    # what is freed goes back at once
    freed = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_ARENA_MAX": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **freed},
    )
    assert ran.returncode == 0, ran.stderr
    few, many = (
        list(map(float, line.split()[1:]))
        for line in ran.stdout.splitlines()
        if line.startswith("MIB")
    )
    assert many[1] - few[1] == 8
    assert many[0] - few[0] < 6, (few, many)


@pytest.mark.parametrize("where", ["meta"])
def test_everything_is_asked_of_the_networks_device(
    store: Store, networks: judges.Judges, where: str
) -> None:
    """On a device that computes nothing, whatever stays on the CPU by mistake meets what does
    not."""
    moved = judges.Judges(networks.segmenter, networks.attributes, {})
    assert moved.device == torch.device("cpu")
    other = judges.Judges(
        networks_module.Segmenter(8).to(where),
        networks_module.AttributeNet(["sex"], 8).to(where),
        {},
    )
    assert other.device.type == where
    assert judges.perceptual_layers(other, store.images[:3]).device.type == where
    assert nearest._sized(store.images[:3], nearest.FINE, where).device.type == where


@pytest.fixture
def closed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's own folder refuses every new file and folder, as a disk mounted for reading
    does."""
    inner_mkdir, inner_file = Path.mkdir, tempfile.TemporaryFile

    def refuse(path: object) -> None:
        if Path(str(path)).is_relative_to(store.folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        refuse(self)
        inner_mkdir(self, *args, **kwargs)  # type: ignore[arg-type]

    def file(*args: object, dir: object = None, **kwargs: object) -> object:
        refuse(dir)
        return inner_file(*args, dir=dir, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(tempfile, "TemporaryFile", file)
    caches._say.cache_clear()
    return store.folder


def test_a_closed_store_is_evaluated_and_what_is_kept_lies_beside_the_report(
    store: Store, closed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, report = sorted(closed.rglob("*")), tmp_path / "results" / "study"
    networks = judges.trained_judges(
        store, *judges.kept_places(store, "judges", report=report), steps=(1, 1), width=(8, 8)
    )
    by, places = (
        judges.domain_backbone(networks),
        judges.kept_places(store, "features", report=report),
    )
    rows = np.arange(0, 40, 3)
    first = np.array(kept_features(store, rows, by, places=places))
    assert np.allclose(first, by.extract(store.images[rows]), atol=1e-5)
    private = report.parent / "private"
    told = capsys.readouterr().out
    assert (
        told.count(
            f"{closed / 'judges'} cannot be written (Read-only file system): judges are kept in {private}"
        )
        == 1
    )
    assert f"domain features are kept in {private / 'features'}" in told
    assert (
        (private / "judges" / ".gitignore").read_text()
        == (private / "features" / ".gitignore").read_text()
        == "*\n"
    )
    assert (
        len(list((private / "judges").glob("*.safetensors"))) == 2
        and sorted(closed.rglob("*")) == before
    )
    again = judges.trained_judges(
        store, *judges.kept_places(store, "judges", report=report), steps=(1, 1), width=(8, 8)
    )
    assert again.card == networks.card and judges.domain_backbone(again).sha256 == by.sha256
    assert np.array_equal(
        kept_features(store, rows, judges.domain_backbone(again), places=places), first
    )
    assert "trained" not in capsys.readouterr().out


def test_features_of_other_networks_and_rows_are_other_files(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    by, other = (
        judges.domain_backbone(networks),
        judges.domain_backbone(
            networks._replace(attributes=networks_module.AttributeNet(["sex"], 8).eval())
        ),
    )
    asked = [
        (np.arange(9), by),
        (np.arange(8), by),
        (np.arange(9)[::-1], by),
        (np.arange(9), other),
    ]
    for _ in range(2):
        for rows, network in asked:
            kept = kept_features(store, rows, network, places=[tmp_path])
            assert np.allclose(kept, network.extract(store.images[rows]), atol=1e-5)
    assert len(list(tmp_path.glob("*.f32"))) == len(asked)


def test_a_set_is_measured_with_the_masks_of_its_own_and_of_others(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    made = fake_set(tmp_path / "set", store, count=30)
    found = judges.evaluation_of(store, made, networks, tmp_path / "out", seed=4)
    assert np.array_equal(found.other_rows, derangement(30, seed=4)) and found.real.shuffled is None
    assert np.array_equal(
        found.synthetic.shuffled.mask, found.synthetic.areas.mask[found.other_rows]
    )
    assert np.array_equal(found.synthetic.shuffled.segmented, found.synthetic.areas.segmented)
