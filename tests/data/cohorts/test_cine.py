"""Heartbeats in place of ED/ES stacks: from every reader through the store to a network that sees
them move."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from cmrcls import network
from cmrcls.arms import Arms, prediction_table
from cmrcls.classifier import Classifier, augment, to_input
from cmrcls.mitigation.heads import HeadPerDomain
from cmrcls.mitigation.last_layer import last_linear, refit_last_layer
from cmrcls.mitigation.losses import GroupDRO, Weighted
from cmrcls.mitigation.sampling import GroupBalanced
from cmrdata.batch import LV, ed_es_ed
from cmrdata.cohorts.acdc import ACDC
from cmrdata.cohorts.mnms import MnMs
from cmrdata.cohorts.mnms2 import MnMs2
from cmrdata.cohorts.phantom.challenge_trees import write_acdc, write_mnms, write_mnms2
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.cohorts.phantom.painting import ES_FRAME, FRAMES
from cmrdata.cohorts.phantom.ukbb_tree import write_ukbb
from cmrdata.cohorts.pooled import Pooled
from cmrdata.cohorts.ukbb.cohort import UKBB
from cmrdata.prepare import prepare
from cmrdata.protocol import Stacks
from cmrdata.slices import cine_frames, stacks
from cmrdata.store import Store, Writer
from support import ROOT
from support.fake_cohort import FakeCohort
from support.hearts import cine, scan

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}
REAL = Path(os.environ.get("CMR_ACDC_ROOT") or ROOT.parent / "shared" / "data" / "acdc")
SIZE = {"count": 5, "pixels": 80, "mm": 2.2, "slices": 3, "frames": 12}


# which frames


@given(st.data())
def test_frames_are_in_order_even_and_hold_ed_and_es(data):
    cycle, count = data.draw(st.integers(3, 60)), data.draw(st.integers(3, 40))
    ed = data.draw(st.integers(0, cycle - 1))
    es = (ed + data.draw(st.integers(1, cycle - 1))) % cycle
    frames = cine_frames(ed, es, cycle, count=count)
    assert (
        len(frames) == count
        and frames[0] == ed
        and es in frames
        and set(frames) <= set(range(cycle))
    )
    since = [(t - ed) % cycle for t in frames]
    # a short cycle's cine ends where the next beat begins
    last = max(k for k, s in enumerate(since) if s)
    assert since[: last + 1] == sorted(since[: last + 1])
    off = [
        min((s - k * cycle / count) % cycle, (k * cycle / count - s) % cycle)
        for k, s in enumerate(since)
    ]
    # all but ES are the nearest there are
    assert sorted(off)[-2] <= 0.5 and max(off) <= cycle / count + 0.5


# volumes


@pytest.mark.parametrize(("ed", "es"), [(0, 8), (17, 3)])
def test_ed_and_es_within_a_cine_are_the_stacks_bytes(ed, es):
    made, how = cine(20, ed=ed, es=es), {"pixels": 48, "fov_mm": 128.0, "expand": True}
    pairs, masks, rows = stacks(made, **how)
    images, same, beats = stacks(made, cine=8, **how)
    still = [k for k, row in enumerate(rows) if row["frame"] == 0]
    assert (
        images.shape == (3, 8, 48, 48) and same.shape == (3, 2, 48, 48) and images.dtype == np.uint8
    )
    place = cine_frames(ed, es, 20, count=8).index(es)
    assert np.array_equal(images[:, [0, place]], pairs[still]) and np.array_equal(
        same, masks[still]
    )
    assert beats == [rows[k] for k in still]
    # the frames have noise of their own
    assert all((images[:, 0] != images[:, k]).mean() > 0.5 for k in range(1, 8))
    assert stacks(made, cine=8, **{**how, "expand": False})[0].shape == (1, 8, 48, 48)


def test_a_scan_of_two_frames_has_no_cine_and_a_short_one_repeats():
    how = {"pixels": 32, "fov_mm": 128.0, "expand": False}
    with pytest.raises(ValueError, match="^no cine: .*ED and ES alone"):
        stacks(scan(), cine=8, **how)
    images, _, (row,) = stacks(cine(5, ed=0, es=2), cine=8, **how)
    assert (
        row["flags"] == "handedness_assumed;frames_repeated"
        and len(np.unique(images[0], axis=0)) == 5
    )


# readers


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same five people in four layouts."""
    root, people = (
        tmp_path_factory.mktemp("trees"),
        Phantom(subjects=5, seed=4, design="uniform", hf_share=0.4),
    )
    for name, write in (
        ("acdc", write_acdc),
        ("mnms", write_mnms),
        ("mnms2", write_mnms2),
        ("ukbb", write_ukbb),
    ):
        write(people, root / name, **SIZE)
    return root


def cohort(name: str, trees: Path, **options):
    given = {"root": trees / name, "pixels": 32, "salt_root": trees / "salt", **options}
    if name == "ukbb":
        return UKBB(table=trees / "ukbb" / "table.csv", **given)
    return {"acdc": ACDC, "mnms": MnMs, "mnms2": MnMs2}[name](**given)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["acdc", "mnms", "mnms2", "ukbb"])
def test_every_reader_gives_cines_whose_ed_and_es_are_its_stacks(trees, name, split):
    table = cohort(name, trees).subjects()[0].assign(split=split)
    pairs, beats = (cohort(name, trees, cine=count).stacks(table) for count in (None, 6))
    assert beats.rejected.empty and beats.images.shape[1:] == (6, 32, 32)
    still = np.flatnonzero(pairs.index.frame == 0)
    assert np.array_equal(beats.masks, pairs.masks[still]) and len(still) == (
        15 if split == "train" else 5
    )
    assert np.array_equal(beats.images[:, 0], pairs.images[still, 0])
    assert (beats.images == pairs.images[still, 1][:, None]).all((2, 3)).any(1).all()
    lv, wall = beats.masks[:, 0] == LV, beats.masks[:, 1] != LV
    ring = (lv & wall).astype(float)  # blood at ED, muscle at ES
    grey = np.einsum("nyx,ntyx->nt", ring, beats.images) / ring.sum((1, 2))[:, None]
    assert (grey.argmin(1) == 2).all() and (grey[:, 0] == grey.max(1)).all()  # ES is frame 4 of 12


@pytest.mark.parametrize("name", ["acdc", "mnms", "mnms2", "ukbb"])
def test_settings_change_by_the_cine_alone(trees, name):
    pair, beat = (cohort(name, trees, cine=count).settings for count in (None, 6))
    assert pair["cine"] is None and beat == {**pair, "cine": 6}


def test_patients_without_a_cine_are_rejected_by_reason_and_nobody_is_named(trees, tmp_path):
    shutil.copytree(trees / "acdc", tmp_path / "acdc")
    cines = sorted((tmp_path / "acdc").rglob("*_4d.nii.gz"))
    cines[0].unlink()
    one = ACDC(root=tmp_path / "acdc", pixels=32, salt_root=tmp_path, cine=6)
    stacked = one.stacks(one.subjects()[0].assign(split="test"))
    assert len(stacked.images) == 4 and stacked.rejected.reason.str.startswith("no cine: ").all()
    for path in cines[1:]:
        path.unlink()
    with pytest.raises(
        ValueError, match="5 subjects rejected.*\n *5  no cine: the images are of ED"
    ) as error:
        prepare(
            ACDC(root=tmp_path / "acdc", pixels=32, salt_root=tmp_path, cine=6), tmp_path / "data"
        )
    assert not re.search(r"patient\d", str(error.value))


def test_a_pool_has_cines_of_one_length(trees, tmp_path):
    members = {name: cohort(name, trees, cine=6) for name in ("acdc", "mnms")}
    with pytest.raises(
        ValueError, match="cohort acdc has cine=6, the pool None; give all the same"
    ):
        Pooled(cohorts=members, of=list(members), pixels=32)
    pool = Pooled(cohorts=members, of=list(members), pixels=32, cine=6)
    store = prepare(pool, tmp_path)
    assert store.channels == 6 and set(store.index.source) == {"acdc", "mnms"}


def test_real_patients_with_a_cine_keep_their_ed_and_es(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no ACDC data in {REAL}; set CMR_ACDC_ROOT")
    if not list(REAL.rglob("patient*_4d.nii*")):
        with pytest.raises(ValueError, match="no cine: "):
            prepare(ACDC(root=REAL, salt_root=tmp_path, cine=16), tmp_path)
        pytest.skip(f"the ACDC data in {REAL} have no 4-D cine, and are refused")
    pairs, beats = (ACDC(root=REAL, salt_root=tmp_path, cine=count) for count in (None, 16))
    some = pairs.subjects()[0].head(4).assign(split="test")
    still, moving = (source.stacks(some) for source in (pairs, beats))
    assert np.array_equal(moving.images[:, 0], still.images[:, 0]) and np.array_equal(
        moving.masks, still.masks
    )


# phantom and store


def test_the_phantoms_heart_beats_between_its_ed_and_es():
    table = Phantom(subjects=12, seed=3).subjects()[0]
    pairs, beats = (Phantom(subjects=12, seed=3, cine=count).stacks(table) for count in (None, 10))
    frames = cine_frames(0, ES_FRAME, FRAMES, count=10)
    still = np.flatnonzero(pairs.index.frame == 0)
    assert np.array_equal(beats.images[:, [0, frames.index(ES_FRAME)]], pairs.images[still])
    assert np.array_equal(beats.masks, pairs.masks[still])
    assert beats.index.equals(pairs.index.loc[still].reset_index(drop=True))
    ring = ((beats.masks[:, 0] == LV) & (beats.masks[:, 1] != LV)).astype(float)
    grey = np.einsum("nyx,ntyx->nt", ring, beats.images) / ring.sum((1, 2))[:, None]
    mean = grey.mean(0)
    # systole and filling; ES is the fifth
    assert (np.diff(mean[:5]) < 0).all() and (np.diff(mean[4:8]) > 0).all()
    assert frames.index(ES_FRAME) == mean.argmin() == 4


def test_a_store_says_how_many_channels_its_images_have(tmp_path):
    pair, beat = (prepare(Phantom(subjects=40, cine=count), tmp_path) for count in (None, 4))
    assert pair.meta["channels"] == pair.channels == 2 and pair.images.shape[1:] == (2, 64, 64)
    assert beat.meta["channels"] == beat.channels == 4 and beat.images.shape[1:] == (4, 64, 64)
    assert beat.masks.shape == (len(beat.index), 2, 64, 64) and pair.folder != beat.folder
    assert pair.subjects.equals(beat.subjects)
    with pytest.raises(ValueError, match="cohort.cine is 2; give at least 3 frames, or null"):
        prepare(Phantom(subjects=40, cine=2), tmp_path)


def test_a_cut_or_interrupted_store_of_cines_is_noticed(tmp_path):
    images, masks = np.ones((3, 5, 4, 4), np.uint8), np.zeros((3, 2, 4, 4), np.uint8)
    index = pd.DataFrame({"subject": ["SYN0001", "SYN0002", "SYN0003"]})

    def begin() -> Writer:
        return Writer(tmp_path / "set", pixels=4, settings={}, channels=5)

    first = begin()
    first.append(images, masks, index)
    first.append(images, masks, index)
    with pytest.raises(AssertionError, match=r"\(3, 5, 4, 4\)"):
        first.append(masks, masks, index)
    # the second part's images were not all written
    os.truncate(tmp_path / "set" / "images.u8", 3 * 5 * 16 + 7)
    again = begin()
    assert again.rows == 3
    again.append(images, masks, index)
    store = again.finish()
    assert store.images.shape == (6, 5, 4, 4) and (store.images == 1).all()
    os.truncate(store.folder / "images.u8", 6 * 2 * 16)  # as long as pairs would be
    with pytest.raises(ValueError, match="images.u8 has 192 bytes, 6 rows take 480"):
        Store.open(store.folder)


# network and module


@pytest.mark.parametrize("backbone", network.VIDEO)
def test_a_video_backbone_gives_one_logit_per_class(backbone):
    with torch.device("meta"):  # shapes only
        net = network.build_network(backbone, weights=None, classes=2)
        logits = net(torch.zeros(2, 3, 8, 64, 64))
    assert logits.shape == (2, 2) and last_linear(net).out_features == 2


def test_published_weights_are_of_the_backbones_kind(monkeypatch):
    for backbone, weights, right in (
        ("r3d_18", "imagenet", "kinetics"),
        ("resnet18", "kinetics", "imagenet"),
    ):
        with pytest.raises(
            ValueError,
            match=f"'{weights}' are unknown for {backbone}; choose '{right}', a file of weights",
        ):
            network.build_network(backbone, weights=weights, classes=2)
    real, asked = network.get_model, []

    def offline(name, weights=None):
        asked.append(weights)
        if weights:
            raise URLError("no route to host")
        return real(name)

    monkeypatch.setattr(network, "get_model", offline)
    with pytest.warns(
        UserWarning, match="mc3_18: published weights.*no route to host.*random weights"
    ):
        network.build_network("mc3_18", weights="kinetics", classes=2)
    assert asked == ["KINETICS400_V1", None]


def test_every_frame_is_scaled_alike_and_moves_with_the_others():
    images = torch.rand(6, 5, 8, 8)
    x = to_input(images, pixels=12)
    assert x.shape == (6, 3, 5, 12, 12) and torch.equal(x[:, 0], x[:, 2])
    stack = to_input(images[:, :2], pixels=12)
    assert stack.shape == (6, 3, 12, 12) and torch.equal(stack[:, :2], x[:, 0, :2])
    flipped = augment(images[:, :1].expand(-1, 5, -1, -1), flips=0.5, noise_std=0)
    assert torch.equal(flipped[:, :1].expand_as(flipped), flipped)
    noise = augment(torch.zeros(200, 5, 4, 4), flips=0, noise_std=1)
    noisy = noise[noise.flatten(1).any(1)]
    assert (
        60 < len(noisy) < 140
        and abs(np.corrcoef(noisy[:, 0].flatten(), noisy[:, 1].flatten())[0, 1]) < 0.1
    )
    with pytest.raises(ValueError, match="5 channels, not ED and ES alone"):
        ed_es_ed(images)


def test_the_order_of_time_changes_what_a_video_network_says():
    torch.manual_seed(0)
    model = Classifier(backbone="r3d_18", weights=None, pixels=32, channels_last=True).eval()
    image = torch.randint(0, 256, (2, 6, 16, 16), dtype=torch.uint8)

    def logits(frames: list[int]) -> torch.Tensor:
        batch = {
            "image": image[:, frames],
            "label": torch.zeros(2, dtype=torch.long),
            "row": torch.arange(2),
        }
        with torch.no_grad():
            return model(model.on_after_batch_transfer(batch, 0)["image"])

    forward = logits([0, 1, 2, 3, 4, 5])
    assert torch.equal(forward, logits([0, 1, 2, 3, 4, 5]))
    assert (forward - logits([0, 4, 1, 3, 5, 2])).abs().max() > 1e-3


# a diagnosis that only motion shows


@dataclass
class Beating(FakeCohort):
    """Hearts that go through the same eight sizes, the sick in the opposite order: ED, ES and all
    frames are alike."""

    cine: int | None = 8
    name: str = "beating"

    @property
    def settings(self):
        return {**super().settings, "cine": self.cine}

    def stacks(self, subjects: pd.DataFrame) -> Stacks:
        rows = [
            (row.subject, part, row.diagnosis == "hf")
            for row in subjects.itertuples()
            for part in ((-1, 0, 1) if row.split == "train" else (0,))
        ]
        images = []
        for subject, part, sick in rows:
            image = np.random.default_rng((int(subject[3:]), part + 1)).integers(0, 60, (8, 16, 16))
            sizes = np.array([7, 4, 4, 4, 3, 6, 6, 6])
            for frame, half in zip(image, np.roll(sizes[::-1], 1) if sick else sizes, strict=True):
                frame[8 - half : 8 + half, 8 - half : 8 + half] += 150
            images.append(image if self.cine else image[[0, 4]])
        index = pd.DataFrame(
            [(subject, part, 0, part == 0, "") for subject, part, _ in rows],
            columns=["subject", "slice", "frame", "central", "flags"],
        )
        pixels = np.stack(images).astype(np.uint8)
        masks = np.zeros((len(pixels), 2, 16, 16), np.uint8)
        return Stacks(
            pixels, masks, index, pd.DataFrame({"subject": [], "reason": []}, dtype=object)
        )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


class Blind(nn.Module):
    """(B, 3, T, S, S) -> its mean over time."""

    def forward(self, videos: torch.Tensor) -> torch.Tensor:
        return videos.mean(2)


def fitted(
    root: Path, net: nn.Module, *, seen: int | None = 8, epochs: int = 6, **options
) -> tuple[Classifier, Arms]:
    L.seed_everything(0, verbose=False)
    arms = Arms(cohort=Beating(cine=seen), root=root, batch_size=32, **options.pop("arms", {}))
    arms.prepare_data()
    arms.setup("fit")
    model = Classifier(
        backbone="mc3_18" if seen else "resnet18",
        weights=None,
        pixels=16,
        lr=3e-3,
        flips=0.0,
        **{key: part(arms.groups) for key, part in options.items()},
    )
    model.network = net
    L.Trainer(max_epochs=epochs, **QUIET).fit(model, arms)
    return model, arms


def score(model: Classifier, arms: Arms) -> float:
    test = prediction_table(arms.index, L.Trainer(**QUIET).predict(model, arms)).query(
        "split == 'test'"
    )
    return float(balanced_accuracy_score(test.label, test.predicted))


def test_a_video_network_learns_what_the_order_of_frames_alone_shows(root):
    moving = nn.Sequential(
        nn.AvgPool3d((1, 4, 4)),
        nn.Conv3d(3, 8, (2, 4, 4)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 7, 2),
    )
    assert score(*fitted(root, moving)) > 0.95
    blind = nn.Sequential(Blind(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16, 2))
    assert score(*fitted(root, blind)) < 0.75
    pair = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(3 * 16, 2))
    assert score(*fitted(root, pair, seen=None)) < 0.75


def test_pairs_and_cines_are_not_mixed_up(root):
    video, stack = (arms_of(root, seen) for seen in (8, None))
    trainer = L.Trainer(**QUIET)
    with pytest.raises(
        ValueError, match="backbone resnet18 sees ED and ES, but the images have 8 frames"
    ):
        trainer.predict(Classifier(width=8, pixels=16), video)
    with pytest.raises(ValueError, match="backbone mc3_18 sees videos, but .* choose input=cine"):
        trainer.predict(Classifier(backbone="mc3_18", weights=None, pixels=16), stack)
    for synthetic in (72, "only"):
        with pytest.raises(
            ValueError, match=f"synthetic={synthetic} with cohort.cine=8: .* choose synthetic=0"
        ):
            Arms(cohort=Beating(), root=root, synthetic=synthetic, synthetic_set=root / "made")


def arms_of(root: Path, seen: int | None) -> Arms:
    arms = Arms(cohort=Beating(cine=seen), root=root)
    arms.setup("predict")
    return arms


@pytest.mark.parametrize(
    "options",
    [
        {"arms": {"sampling": GroupBalanced()}},
        {"loss": Weighted},
        {"loss": GroupDRO},
        {"heads": HeadPerDomain},
    ],
    ids=["oversample", "reweight", "groupdro", "domain_independent"],
)
def test_mitigations_train_on_cines(root, options):
    heads = 18 if "heads" in options else 1
    net = nn.Sequential(nn.AvgPool3d((1, 8, 8)), nn.Flatten(), nn.Linear(3 * 8 * 4, 2 * heads))
    model, arms = fitted(root, net, epochs=1, **options)
    assert model.heads.domains == heads and 0 <= score(model, arms) <= 1
    refit_last_layer(model, L.Trainer(**QUIET), arms, seed=0)
    assert score(model, arms) > 0.95  # balanced, and the layer sees the frames apart


# the command


@pytest.mark.slow
@pytest.mark.parametrize("backbone", network.VIDEO)
def test_the_command_trains_on_cines_in_a_folder_of_their_own(tmp_path, backbone):
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "experiment=classifier",
        "input=cine",
        "preset=smoke",
        f"model.backbone={backbone}",
        "cohort.cine=4",
        "cohort.subjects=100",
        "data.images_per_epoch=8",
        "data.batch_size=8",
        "fold=1",
    ]
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CMR_HOME": str(tmp_path)},
    )
    assert ran.returncode == 0, ran.stderr
    (run,) = tmp_path.glob("runs/smoke/classifier/synthetic-0-cine-*/0")
    assert backbone in run.parent.name and "fold-1" in run.parent.name
    table = pd.read_csv(run / "predictions.csv")
    assert table.probability.between(0, 1).all() and {"val", "test"} == set(table.split)
