"""Synthetic images differ from real ones by what is new in them alone: no shortcut by grey levels,
blur or phase."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from cmrcls.arms import Arms
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.grey import stretched
from cmrdata.harmonise import match
from cmrdata.mix import equal_mix
from cmrdata.prepare import prepare
from cmrdata.slices import _grey
from cmrgen.base.frozen import as_rgb
from cmrgen.base.phases import CHANNELS, check_channels, three_channels, two_phases
from cmrgen.base.resampling import resampled
from cmrgen.evaluation.fidelity.section import two_sample_section
from cmrgen.evaluation.fidelity.two_sample import (
    MIN_SUBJECTS,
    NETWORK,
    REPLICATES,
    TRIVIAL,
    ImagesOfPeople,
    auc,
    matched_images,
    subject_halves,
    two_sample_tests,
)
from cmrgen.evaluation.judges import Evaluation
from cmrgen.render.drawing import as_stored
from support.fake_cohort import FakeCohort, fake_set


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """(images, subjects) of phantom people, 64 px."""
    cohort = Phantom(subjects=120, hf_scale=20, pixels=64, controls_per_case=None)
    people = cohort.subjects()[0]
    stacks = cohort.stacks(people.assign(split="test"))
    return stacks.images, stacks.index.subject.to_numpy()


def smoothed(images: np.ndarray) -> np.ndarray:
    """What enlarging eightfold and shrinking by unrelated filters did: [1/6, 2/3, 1/6] along each
    axis."""
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), size=(512, 512), mode="bilinear"
    )
    small = torch.nn.functional.interpolate(
        large, size=images.shape[-2:], mode="bilinear", antialias=True
    )
    return small.round().clamp(0, 255).to(torch.uint8).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


# a perfect generator's round trip


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pixels", [64, 65, 72, 100, 128, 512])
def test_a_real_image_comes_back_from_the_bases_size_as_it_was(real, pixels, channels):
    images = real[0][:12]
    drawn = (
        two_phases(as_rgb(torch.from_numpy(images), pixels, channels=channels), channels) + 1
    ) * 127.5
    assert drawn.shape[-1] == pixels
    assert psnr(as_stored(drawn, 64), images) > 60
    assert psnr(as_stored(drawn.round(), 64), images) > 40  # a decoder's 8 bits in between


def test_the_trip_that_was_made_before_is_seen_as_a_blur(real):
    assert psnr(smoothed(real[0][:12]), real[0][:12]) < 32


@pytest.mark.parametrize(("small", "large"), [(32, 33), (32, 48), (24, 100), (32, 256)])
def test_shrinking_undoes_enlarging_and_takes_the_nearest_of_anything_else(small, large):
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, small, small, generator=draws)
    torch.testing.assert_close(resampled(resampled(image, large), small), image, atol=2e-4, rtol=0)
    other = torch.rand(1, 1, large, large, generator=draws)
    nearest = resampled(resampled(other, small), large)
    rest = other - nearest  # orthogonal to whatever can be enlarged
    assert abs(float((rest * resampled(image[:1, :1], large)).sum())) < 1e-3 * large**2
    assert torch.equal(resampled(image, small), image)


def test_a_black_or_white_picture_stays_one():
    flat = torch.stack([torch.zeros(2, 64, 64), torch.full((2, 64, 64), 255.0)])
    assert np.array_equal(np.unique(as_stored(resampled(flat, 100), 64)), [0, 255])


# grey levels


def test_real_images_keep_their_bytes_and_drawn_ones_get_real_ones_ends(real):
    assert np.array_equal(stretched(real[0]), real[0])
    drawn = (
        40 + 0.6 * real[0].astype(np.float32) + np.random.default_rng(0).normal(0, 2, real[0].shape)
    )
    found = stretched(drawn)
    clipped = lambda images: ((images == 0) | (images == 255)).mean((1, 2, 3))  # noqa: E731
    assert (
        np.abs(clipped(found) - clipped(real[0])).max() < 0.02
        and (clipped(np.rint(drawn)) == 0).all()
    )
    assert np.array_equal(stretched(found), found)


def test_drawn_grey_levels_are_stretched_as_read_ones(real):
    """The readers' own function, whose percentiles lie between two pixels' values, gives the same
    but for a last digit."""
    scan = (
        300
        + 3.7 * real[0].astype(np.float32)
        + np.random.default_rng(1).normal(0, 3, real[0].shape)
    )
    read = _grey(scan.astype(np.float32), pair=[0, 1])[0]
    assert np.abs(stretched(scan).astype(int) - read).max() <= 2


def test_a_picture_of_nothing_is_not_blown_up():
    faint = 100 + np.random.default_rng(0).normal(0, 0.3, (1, 2, 32, 32))
    half = np.concatenate(
        [faint[:, :1], 60 + 50 * np.random.default_rng(1).random((1, 1, 32, 32))], 1
    )
    for images in (faint, half):
        assert np.array_equal(stretched(images), np.rint(images).astype(np.uint8))


# phases


def test_two_phases_are_what_three_channels_were_made_of():
    pair = torch.rand(3, 2, 8, 8)
    for channels in CHANNELS:
        torch.testing.assert_close(two_phases(three_channels(pair, channels), channels), pair)
    with pytest.raises(ValueError, match=r"base.channels='rgb': it takes even or paper"):
        check_channels("rgb", setting="base.channels")


def test_even_channels_treat_both_phases_alike_and_the_papers_do_not():
    noise = torch.randn(20_000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    spread = {channels: two_phases(noise, channels).std((0, 2, 3)) for channels in CHANNELS}
    assert spread["even"][0] / spread["even"][1] == pytest.approx(1, abs=0.03)
    assert spread["paper"][0] / spread["paper"][1] == pytest.approx(2**-0.5, abs=0.03)
    pair = torch.rand(2, 2, 4, 4)
    swapped = three_channels(pair.flip(1), "even")
    torch.testing.assert_close(swapped, three_channels(pair, "even")[:, [1, 0, 2]])


def test_a_base_remembers_its_channels(tmp_path):
    from cmrgen.base.load import load_base
    from cmrgen.base.small import save_base
    from cmrgen.training import small_base

    networks = (
        small_base.AutoencoderModule(channels=(8, 8)).vae,
        small_base.UnetModule(channels=(16, 16), latent=8).unet,
    )
    images = torch.randint(0, 256, (4, 2, 16, 16), dtype=torch.uint8)
    marks = set()
    for channels in CHANNELS:
        made = small_base.assemble(
            *networks, small_base.text_tower(0), pixels=16, images=images, channels=channels
        )
        save_base(made, tmp_path / channels, text_config=small_base.TEXT)
        found = load_base(weights=str(tmp_path / channels))
        assert found.channels == channels
        marks.add(found.fingerprint)
    assert len(marks) == 2


# the tests themselves


@pytest.mark.slow  # seconds
def test_images_of_one_kind_are_not_told_apart_and_blurred_ones_are(real):
    images, subjects = real
    left = np.isin(subjects, np.unique(subjects)[::2])
    n = min(left.sum(), (~left).sum())
    a, b = (
        ImagesOfPeople(images[left][:n], subjects[left][:n]),
        ImagesOfPeople(images[~left][:n], subjects[~left][:n]),
    )
    same = two_sample_tests(a, b, seed=0, steps=20).set_index("test")
    assert list(same.index) == [NETWORK, *TRIVIAL] and list(same.columns) == [
        "auc",
        "low",
        "high",
        "n",
    ]
    # seven intervals of 95 %
    assert ((same.low <= 0.5) & (same.high >= 0.5)).sum() >= len(same) - 1
    blurred = two_sample_tests(
        a, b._replace(images=smoothed(b.images)), seed=0, steps=20
    ).set_index("test")
    assert (blurred.high[["gradient", "fine detail"]] < 0.4).all() and blurred.low[NETWORK] > 0.6
    assert blurred.low["detail ratio ED/ES"] < 0.5 < blurred.high["detail ratio ED/ES"]
    uneven = b.images.copy()
    uneven[:, 0] = smoothed(b.images)[:, 0]
    ratio = (
        two_sample_tests(a, b._replace(images=uneven), seed=0, steps=2)
        .set_index("test")
        .loc["detail ratio ED/ES"]
    )
    assert ratio.high < 0.1


def test_few_subjects_give_no_number_but_their_n(real):
    few = ImagesOfPeople(real[0][: MIN_SUBJECTS - 1], real[1][: MIN_SUBJECTS - 1])
    table = two_sample_tests(few, few, seed=0, steps=1)
    assert table[["auc", "low", "high"]].isna().all().all() and (table.n == MIN_SUBJECTS - 1).all()


def test_a_subjects_images_are_on_one_side():
    subjects = np.repeat([f"SYN{k:04d}" for k in range(21)], 3)
    synthetic = np.arange(63) % 3 == 0  # a real and a synthetic image of everybody
    half = subject_halves(subjects, synthetic, seed=0)
    assert pd.Series(half).groupby(subjects).nunique().max() == 1 and abs(half.mean() - 0.5) < 0.05


def test_an_intervals_width_follows_the_subjects_not_the_images():
    rng = np.random.default_rng(0)
    scores, kind = rng.normal(size=40), np.arange(40) % 2 == 0
    subjects, parts = np.arange(40).astype(str), np.zeros(40, int)
    once = auc(scores, kind, subjects, parts=parts, seed=0)
    many = auc(
        *(np.repeat(x, 9) for x in (scores, kind, subjects)), parts=np.zeros(360, int), seed=0
    )
    assert many.value == pytest.approx(once.value) and many.high - many.low > 0.9 * (
        once.high - once.low
    )
    from sklearn.metrics import roc_auc_score

    assert once.value == pytest.approx(roc_auc_score(kind, scores))
    right = auc(kind.astype(float), kind, subjects, parts=parts, seed=0)
    assert right.value == 1 and right.low == pytest.approx(0.025 ** (1 / 20)) and REPLICATES >= 1000


def test_intervals_of_a_trivial_test_hold_one_half_as_often_as_they_say():
    out = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        subjects = np.repeat(np.arange(40), 4).astype(str)
        scores = np.repeat(rng.normal(size=40), 4) + 0.5 * rng.normal(size=160)
        found = auc(scores, np.arange(160) >= 80, subjects, parts=np.zeros(160, int), seed=seed)
        out += found.low > 0.5 or found.high < 0.5
    assert out <= 8  # 3 expected, 8 or fewer with 99 %


def test_a_mix_has_equally_many_of_each_group():
    left, right = ["a"] * 5 + ["b"] * 2 + [None], ["b"] * 4 + ["a"] * 3 + ["c"]
    rows = equal_mix(
        pd.Series(left, dtype=object), pd.Series(right, dtype=object), np.random.default_rng(0)
    )
    for side, at in zip((left, right), rows, strict=True):
        assert sorted(side[k] for k in at) == ["a", "a", "a", "b", "b"] and len(set(at)) == 5
    assert [
        len(x) for x in equal_mix(np.array(["a"]), np.array(["b"]), np.random.default_rng(0))
    ] == [0, 0]


# harmonised arms


def test_harmonising_brings_grey_levels_and_most_of_the_sharpness_back(real):
    images, subjects = real
    left = np.isin(subjects, np.unique(subjects)[::2])
    drawn = np.rint(30 + 0.7 * smoothed(images[~left])).astype(np.uint8)
    matched = match(drawn, images[left])(drawn)
    n = min(len(drawn), left.sum())
    sides = (
        ImagesOfPeople(images[left][:n], subjects[left][:n]),
        ImagesOfPeople(drawn[:n], subjects[~left][:n]),
    )
    before, after = (
        two_sample_tests(sides[0], sides[1]._replace(images=x[:n]), seed=0, steps=1)
        .set_index("test")
        .auc
        for x in (drawn, matched)
    )
    assert (before[["gradient", "fine detail", "sd of grey values"]] < 0.1).all()
    assert (after[["mean grey value", "sd of grey values"]] - 0.5).abs().max() < 0.15 and after[
        "gradient"
    ] > 0.2
    detail = [
        TRIVIAL["fine detail"](x).mean() / TRIVIAL["fine detail"](images[left]).mean()
        for x in (drawn, matched)
    ]
    assert detail[0] < 0.6 and 0.8 < detail[1] < 1.05  # clipping keeps it from being restored whole
    same = match(images, images)(images)
    assert np.abs(same.astype(int) - images).mean() < 1


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    cohort = prepare(FakeCohort(count=288), folder, workers=1)
    return folder, cohort, fake_set(folder / "set", cohort, count=72)


def test_an_arm_is_harmonised_in_its_synthetic_training_images_alone(study, capsys):
    folder, cohort, made = study
    how = {"cohort": FakeCohort(count=288), "root": folder, "synthetic_set": made.folder}

    def arm(**settings) -> tuple[np.ndarray, np.ndarray]:
        data = Arms(**how, **settings)
        data.setup()
        rows = np.arange(len(data.index))
        return data._images_of(rows).__getitems__(rows.tolist())[
            "image"
        ].numpy(), data.index.real.to_numpy(bool)

    (plain, real), (matched, _) = arm(synthetic=36), arm(synthetic=36, harmonise=True)
    assert np.array_equal(matched[real], plain[real]) and (~real).sum() == 36
    assert (matched[~real] != plain[~real]).mean() > 0.01 and np.array_equal(
        arm(synthetic=36, harmonise=True)[0], matched
    )
    assert not capsys.readouterr().out
    assert np.array_equal(arm(harmonise=True)[0], arm()[0])
    assert "harmonise=true changes nothing" in capsys.readouterr().out
    with pytest.raises(ValueError, match="harmonise='yes': it takes true or false"):
        Arms(**how, harmonise="yes")


def test_the_report_tests_the_set_and_the_real_images_of_its_masks(study, tmp_path):
    _, cohort, made = study
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    networks = SimpleNamespace(device=torch.device("cpu"))
    evaluation = Evaluation(cohort, made, networks, held, None, None, tmp_path)  # type: ignore[arg-type]
    compared = matched_images(evaluation, seed=0)
    mix = [
        store.index.group.iloc[rows].value_counts()
        for store, rows in ((cohort, compared.real), (made, compared.synthetic))
    ]
    assert mix[0].sort_index().equals(mix[1].sort_index()) and set(compared.real) <= set(held)
    section = two_sample_section(evaluation, seed=0, steps=2)
    table, floor = (
        pd.read_csv(tmp_path / f"{name}.csv") for name in ("two_sample", "two_sample_real")
    )
    assert list(table.columns) == ["test", "auc", "low", "high", "n"] and list(table.test) == [
        NETWORK,
        *TRIVIAL,
    ]
    assert (
        (table.n == len(compared.real)).all()
        and floor.test.equals(table.test)
        and floor.auc.notna().all()
    )
    assert (tmp_path / "figures" / "fig_two_sample.png").exists() and "Floor" in " ".join(
        section.paragraphs
    )
    assert len(section.answers) == 1 and "AUC" in section.answers[0]
