"""Whether synthetic images can be told from real ones, and by what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from cmrdata.prepare import prepare
from cmrgen.evaluation.fidelity import two_sample
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
from support.fake_cohort import FakeCohort, fake_set
from support.phantom_images import images_of_people, smoothed


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    return images_of_people()


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


def test_intervals_of_a_trivial_test_hold_one_half_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(two_sample, "REPLICATES", 250)
    out = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        subjects = np.repeat(np.arange(40), 4).astype(str)
        scores = np.repeat(rng.normal(size=40), 4) + 0.5 * rng.normal(size=160)
        found = auc(scores, np.arange(160) >= 80, subjects, parts=np.zeros(160, int), seed=seed)
        out += found.low > 0.5 or found.high < 0.5
    assert out <= 8  # 3 expected, 8 or fewer with 99 %


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    cohort = prepare(FakeCohort(count=288), folder, workers=1)
    return folder, cohort, fake_set(folder / "set", cohort, count=72)


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
    assert (tmp_path / "figures" / "fig_two_sample.png").exists() and "floor" in " ".join(
        section.paragraphs
    )
    assert len(section.answers) == 1 and "AUC" in section.answers[0]


def picture(ed: list[list[int]], es: list[list[int]]) -> np.ndarray:
    return np.array([[ed, es]], np.uint8)


def test_single_numbers_of_a_picture_by_hand():
    x = picture([[0, 255], [100, 50]], [[0, 0], [0, 40]])
    scores = {name: float(of(x)[0]) for name, of in two_sample.TRIVIAL.items()}
    values = np.array([0, 255, 100, 50, 0, 0, 0, 40])
    assert scores["clipping"] == 5 / 8
    # down the columns and along the rows, means of both
    down, along = [100, 205, 0, 40], [255, 50, 0, 40]
    assert scores["gradient"] == pytest.approx(np.mean(down) + np.mean(along))
    assert scores["mean grey value"] == pytest.approx(values.mean())
    assert scores["sd of grey values"] == pytest.approx(values.std())


def test_fine_detail_is_what_smoothing_takes_away():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 2, 6, 5)).astype(np.uint8)
    kernel = np.array([1, 2, 1]) / 4
    detail = np.empty(x.shape)
    for n, c in np.ndindex(2, 2):
        wide = np.pad(x[n, c].astype(float), 1, mode="edge")
        rows = np.apply_along_axis(np.convolve, 0, wide, kernel, "valid")
        detail[n, c] = x[n, c] - np.apply_along_axis(np.convolve, 1, rows, kernel, "valid")
    energy = (detail**2).mean((2, 3))
    assert two_sample.fine_detail(x) == pytest.approx(np.sqrt(energy.mean(1)), rel=1e-5)
    ratio = np.log(np.sqrt(energy[:, 0] / energy[:, 1]))
    assert two_sample.detail_ratio(x) == pytest.approx(ratio, rel=1e-4)
    flat = np.zeros((1, 2, 4, 4), np.uint8)
    assert two_sample.detail_ratio(flat) == 0 and two_sample.fine_detail(flat) == 0


def test_an_auc_is_the_librarys_and_images_of_a_subject_stay_together():
    rng = np.random.default_rng(1)
    scores, synthetic = rng.integers(0, 6, 80).astype(float), np.arange(80) >= 50
    subjects = np.array([f"SYN{k // 2:04d}" for k in range(80)])
    one = np.zeros(80, int)
    value = two_sample.auc(scores, synthetic, subjects, parts=one, seed=3)
    assert value.value == pytest.approx(roc_auc_score(synthetic, scores))
    assert value == two_sample.auc(scores, synthetic, subjects, parts=one, seed=3)
    assert value.low < value.value < value.high
    # of two parts the mean of both, however large they are
    parts = (np.arange(80) % 5 == 0).astype(int)
    mean = np.mean([roc_auc_score(synthetic[parts == k], scores[parts == k]) for k in (0, 1)])
    assert two_sample.auc(scores, synthetic, subjects, parts=parts, seed=3).value == (
        pytest.approx(mean)
    )
    alone = two_sample.auc(scores, synthetic, np.arange(80), parts=one, seed=3)
    # DeLong's interval takes images as independent
    pairs = (scores[synthetic][:, None] > scores[~synthetic]) + 0.5 * (
        scores[synthetic][:, None] == scores[~synthetic]
    )
    sd = np.sqrt(pairs.mean(1).var(ddof=1) / 30 + pairs.mean(0).var(ddof=1) / 50)
    assert alone.high - alone.low == pytest.approx(2 * 1.96 * sd, rel=0.1)


@pytest.mark.parametrize("sign", [1, -1])
def test_where_every_pair_is_told_the_interval_is_that_of_a_share_of_all(sign):
    scores = sign * np.r_[np.zeros(12), np.ones(30)]
    synthetic, subjects = np.arange(42) >= 12, np.arange(42) // 2
    value = two_sample.auc(scores, synthetic, subjects, parts=np.zeros(42, int), seed=0)
    exact = stats.beta.ppf(0.025, 6, 1)  # Clopper and Pearson of 6 of 6: the smaller side's people
    if sign == 1:
        assert value == pytest.approx((1, exact, 1))
    else:
        assert value == pytest.approx((0, 0, 1 - exact))


def test_a_side_without_weight_has_no_auc():
    level, synthetic = np.array([0, 1, 2]), np.array([False, True, True])
    assert np.isnan(two_sample._weighted(level, synthetic, np.array([0.0, 1, 1])))
    assert two_sample._weighted(level, synthetic, np.array([2.0, 1, 0])) == 1


def test_either_kinds_subjects_are_halved_and_nobody_is_in_both_halves():
    subjects = np.array(list("abcdefgh" + "aabxyzwv"))
    synthetic = np.arange(16) >= 8
    half = two_sample.subject_halves(subjects, synthetic, seed=0)
    by_subject = pd.Series(half).groupby(subjects)
    assert (by_subject.nunique() == 1).all()
    of = by_subject.first()
    assert of[list("abcdefgh")].sum() == 4 and of[list("xyzwv")].sum() in (2, 3)
    assert not np.array_equal(half, two_sample.subject_halves(subjects, synthetic, seed=1))


def images(level: int, count: int = 20, *, pixels: int = 16) -> ImagesOfPeople:
    rng = np.random.default_rng(level)
    pictures = rng.integers(level, level + 30, (count, 2, pixels, pixels)).astype(np.uint8)
    return ImagesOfPeople(pictures, np.array([f"SYN{level}{k:03d}" for k in range(count)]))


def test_each_half_is_scored_by_the_network_of_the_other_one(monkeypatch):
    real, synthetic = images(10), images(100, 12)
    half = np.r_[np.arange(20) % 2, np.arange(12) % 2]
    trained: list[Any] = []

    def train(one: np.ndarray, other: np.ndarray, *, steps: int, seed: int, device: Any) -> int:
        trained.append((one, other, steps, seed))
        return seed

    def score(network: int, shown: np.ndarray) -> np.ndarray:
        return shown[:, 0, 0, 0] + 1000.0 * network

    monkeypatch.setattr(two_sample, "trained_detector", train)
    monkeypatch.setattr(two_sample, "detector_scores", score)
    scores = two_sample.crossed_scores(real, synthetic, half, steps=7, seed=5, device="cpu")
    every = np.concatenate([real.images, synthetic.images])[:, 0, 0, 0]
    assert scores.tolist() == (every + 1000.0 * (5 + half)).tolist()
    for part, (one, other, steps, seed) in enumerate(trained):
        assert np.array_equal(one, real.images[half[:20] != part])
        assert np.array_equal(other, synthetic.images[half[20:] != part])
        assert (steps, seed) == (7, 5 + part)


def test_the_network_tells_bright_images_from_dark_ones_and_repeats_itself():
    real, synthetic = images(10).images, images(100).images
    networks = []
    for k, seed in enumerate((0, 0, 1)):
        torch.manual_seed(77 + k)  # wherever everybody's draws stand
        state = torch.get_rng_state()
        networks.append(
            two_sample.trained_detector(real, synthetic, steps=12, seed=seed, device="cpu")
        )
        assert torch.equal(torch.get_rng_state(), state)
    scores = [two_sample.detector_scores(of, np.concatenate([real, synthetic])) for of in networks]
    assert scores[0].shape == (40,) and scores[0][:20].max() < scores[0][20:].min()
    assert np.allclose(scores[0], scores[1], atol=1e-5) and not np.allclose(scores[0], scores[2])
    # what the other way round is called synthetic scores higher there, so it is learnt
    turned = two_sample.trained_detector(synthetic, real, steps=12, seed=0, device="cpu")
    scores = two_sample.detector_scores(turned, np.concatenate([real, synthetic]))
    assert scores[:20].min() > scores[20:].max()
    assert not networks[0].training
    assert not any(weight.requires_grad for weight in networks[0].parameters())
    assert two_sample.detector_scores(networks[0], real[:0]).shape == (0,)


def test_a_detector_is_fitted_in_its_steps_by_a_rate_that_rises_and_falls(monkeypatch):
    rates, moved = [], []

    class Watched(torch.optim.AdamW):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            rates.append(self.param_groups[0]["lr"])
            assert self.defaults["weight_decay"] == 1e-2
            weight = self.param_groups[0]["params"][0]
            before = weight.detach().clone()
            out = super().step(*args, **kwargs)
            moved.append(float((weight - before).detach().abs().max()))
            return out

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    monkeypatch.setattr(two_sample, "BATCH", 4)
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 8, 8)).astype(np.uint8)
    network = two_sample.trained_detector(images, images // 2, steps=50, seed=3, device="cpu")
    assert (
        len(rates) == 50 and np.argmax(rates) == 10 and max(rates) == pytest.approx(1e-2, rel=0.01)
    )
    assert rates[0] == pytest.approx(1e-2 / 25) and rates[-1] < 1e-4
    # a step of Adam is no longer than its rate, so what it has learnt of the last one counts
    assert all(0 < step <= 5 * rate for step, rate in zip(moved, rates, strict=True))
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_scores_do_not_depend_on_how_many_go_through_together(monkeypatch):
    torch.manual_seed(0)
    network = two_sample.Detector(4).eval()
    shown = images(50, 5).images
    whole = two_sample.detector_scores(network, shown)
    monkeypatch.setattr(two_sample, "TOGETHER_PIXELS", 2 * 16**2)
    assert np.allclose(two_sample.detector_scores(network, shown), whole, atol=1e-6)
    monkeypatch.setattr(two_sample, "TOGETHER_PIXELS", 1)
    assert np.allclose(two_sample.detector_scores(network, shown), whole, atol=1e-6)


@pytest.mark.parametrize(("pixels", "shown"), [(16, 16), (64, 64), (70, 64)])
def test_half_of_a_batch_is_real_and_large_images_are_shown_in_parts(pixels, shown):
    real, synthetic = images(10, 4, pixels=pixels).images, images(100, 4, pixels=pixels).images
    places = set()
    batches = two_sample._batches(real, synthetic, np.random.default_rng(0))
    for _ in range(60 if pixels > 64 else 2):
        batch, labels = next(batches)
        assert batch.shape == (32, 2, shown, shown)
        assert labels.tolist() == [0.0] * 16 + [1.0] * 16
        assert batch[:16].max() < 100 <= batch[16:].min()
        [found] = [
            (y, x)
            for y in range(pixels - shown + 1)
            for x in range(pixels - shown + 1)
            if any(np.array_equal(batch[0], r[:, y : y + shown, x : x + shown]) for r in real)
        ]
        places.add(found)
    if pixels > 64:
        assert {y for y, _ in places} == {x for _, x in places} == set(range(pixels - 64 + 1))


def test_the_detectors_first_layer_sees_single_pixels():
    layers = [layer[0] for layer in list(two_sample.Detector().layers)[:3]]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [
        (2, 16),
        (16, 32),
        (32, 64),
    ]
    assert [layer.stride for layer in layers] == [(1, 1), (2, 2), (2, 2)]
    assert two_sample.Detector(4)(torch.zeros(3, 2, 16, 16)).shape == (3,)


def test_nine_subjects_a_side_are_too_few_and_ten_are_not(monkeypatch):
    monkeypatch.setattr(two_sample, "REPLICATES", 20)
    monkeypatch.setattr(two_sample, "crossed_scores", lambda *_, **__: np.arange(40.0))
    real, synthetic = images(10), images(100)
    for count in (9, 10):
        names = np.array([f"SYN{k % count:04d}" for k in range(20)])
        few = two_sample.two_sample_tests(real, synthetic._replace(subjects=names), seed=0)
        assert few.auc.isna().all() == (count == 9) and few.n.tolist() == [20] * 7
        assert few.test.tolist() == ["network", *two_sample.TRIVIAL]


def compared(central: list[bool], groups: list[str], held: list[str]) -> Any:
    """An evaluation of which only the index is looked at: a training image for each of the set's,
    then the held-out ones."""
    count = len(central)
    cohort = pd.DataFrame({"central": [*central, *[True] * len(held)], "group": [*groups, *held]})
    cohort["label"] = cohort.group.str.endswith("hf").astype(int)
    synthetic = cohort.iloc[:count].assign(source_row=range(count))
    return SimpleNamespace(
        cohort=SimpleNamespace(index=cohort),
        synthetic_set=SimpleNamespace(index=synthetic),
        held_out=np.arange(count, count + len(held)),
    )


def test_central_slices_and_full_groups_are_compared_where_they_are_enough(monkeypatch):
    monkeypatch.setattr(two_sample, "ENOUGH", 4)
    groups = ["F/hf", "F/healthy"] * 4
    of = compared([True] * 4 + [False] * 4, groups, ["F/hf", "F/healthy"] * 3)
    found = two_sample.matched_images(of, seed=0)
    assert found.sentence == "4 images a side, equally many of each group; synthetic images of " + (
        "central slices only."
    )
    assert sorted(found.synthetic) == [0, 1, 2, 3] and set(found.real) <= set(range(8, 14))
    monkeypatch.setattr(two_sample, "ENOUGH", 5)
    found = two_sample.matched_images(of, seed=0)
    assert "6 images a side" in found.sentence and "all slices" in found.sentence
    # where groups do not match, diagnoses do
    other = compared([True] * 8, groups, ["M/hf", "M/healthy"] * 3)
    found = two_sample.matched_images(other, seed=0)
    assert found.sentence.startswith("6 images a side, equally many with and without the disease")
    monkeypatch.setattr(two_sample, "MAX_IMAGES", 3)
    found = two_sample.matched_images(of, seed=0)
    assert len(found.real) == len(found.synthetic) == 3
    assert (np.diff(found.real) > 0).all()
    nothing = compared([True] * 2, ["F/hf"] * 2, ["F/healthy"])
    assert two_sample.matched_images(nothing, seed=0).sentence == ""
