"""Adherence per group, contraction, diversity over seeds: by hand, in simulation, and with what bad
images leave behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from scipy import stats

from cmrdata.batch import LABELS, LV, MYO, RV
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrdata.subjects import with_groups
from cmrgen.evaluation import judges, measured
from cmrgen.evaluation.adherence import contraction, diversity, scores
from cmrgen.evaluation.adherence import display as pictures
from cmrgen.evaluation.adherence.areas import areas
from cmrgen.evaluation.adherence.scores import Seen
from cmrgen.evaluation.privacy import section as sections
from cmrstudy import intervals
from cmrstudy.report import report_html
from support.fake_cohort import FakeCohort, fake_set


def people(n: int, *, unknown: tuple[str, ...] = ()) -> pd.DataFrame:
    return with_groups(FakeCohort(count=n, unknown=unknown).subjects()[0])


def seen(table: pd.DataFrame, *, wrong: float = 0.0, seed: int = 0) -> Seen:
    """Judges who err in a share of the images, in every attribute and by half of the LV."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(table), 2, 8, 8), np.uint8)
    masks[:, :, 2:6, 2:6], masks[:, :, 1, 2:6], masks[:, :, 2:6, 0] = LV, MYO, RV
    segmented, errs = masks.copy(), rng.random(len(table)) < wrong
    segmented[errs, :, 4:6, 2:6] = 0
    columns = {
        "sex": table.sex,
        "age_band": table.age_band,
        "bmi_band": table.bmi_band,
        "diagnosis": table.label,
    }
    predicted = {axis: np.array(column, object) for axis, column in columns.items()}
    for values in predicted.values():
        values[errs] = np.array(
            ["M" if v == "F" else "F" if v == "M" else "none" for v in values[errs]], object
        )
    others = scores.derangement(len(table), seed=0)
    flat = np.zeros((len(table), 2), bool)
    return Seen(
        table, areas(segmented, masks), predicted, flat, others, areas(segmented, masks[others])
    )


# --- estimates


def test_mean_of_independent_images_is_students() -> None:
    values = np.random.default_rng(0).normal(size=30)
    found = intervals.mean(np.append(values, np.nan), np.append(np.arange(30), 0))
    assert found[:3] == pytest.approx(
        (values.mean(), *stats.t.interval(0.95, 29, values.mean(), stats.sem(values)))
    )
    assert found.n == 30 and found.subjects == 30
    one = intervals.mean(values, np.zeros(30))
    assert (
        one.value == pytest.approx(values.mean())
        and np.isnan([one.low, one.high]).all()
        and one.subjects == 1
    )
    assert np.isnan(intervals.mean(np.array([np.nan]), np.zeros(1)).value)


def test_copies_of_an_image_are_no_further_evidence() -> None:
    values = np.random.default_rng(0).random(20)
    once, thrice = (
        intervals.mean(values, np.arange(20)),
        intervals.mean(np.repeat(values, 3), np.repeat(np.arange(20), 3)),
    )
    assert thrice[:3] == pytest.approx(once[:3]) and thrice.n == 60
    right = values > 0.3
    narrow, wide = (
        intervals.share(np.repeat(right, 3), np.arange(60)),
        intervals.share(np.repeat(right, 3), np.repeat(np.arange(20), 3)),
    )
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("right", [0, 3, 17, 20])
def test_share_of_independent_images_is_wilsons(right: int) -> None:
    found = intervals.share(np.arange(20) < right, np.arange(20))
    wanted = stats.binomtest(right, 20).proportion_ci(0.95, "wilson")
    assert found[:3] == pytest.approx(
        (right / 20, *wanted), abs=0.012
    )  # the design effect is at least 1, and n / (n - 1)
    assert np.isnan(intervals.share(np.zeros(0, bool), np.zeros(0)).value)
    alone = intervals.share(np.ones(5, bool), np.zeros(5))
    assert alone.value == 1 and np.isnan(alone.low) and alone.subjects == 1


def test_intervals_hold_what_they_promise() -> None:
    rng, hits = np.random.default_rng(0), np.zeros(3)
    for _ in range(600):
        who = np.repeat(np.arange(40), rng.integers(1, 5, 40))
        chance = rng.beta(0.8 * 2.3, 0.2 * 2.3, 40)  # correlation 0.3 within a subject
        share = intervals.share(rng.random(len(who)) < chance[who], who)
        values = 0.6 * rng.normal(size=40)[who] + 0.8 * rng.normal(size=len(who))
        mean, sd = intervals.mean(values, who), values.std(ddof=1)
        residual = values - values.mean()
        half = intervals.influence(residual + 1.96 * (residual**2 - sd**2) / (2 * sd), who)
        limit = values.mean() + 1.96 * sd
        hits += [
            share.low <= 0.8 <= share.high,
            mean.low <= 0 <= mean.high,
            limit - half <= 1.96 <= limit + half,
        ]
    assert ((hits / 600 > 0.92) & (hits / 600 < 0.985)).all(), hits / 600


def test_difference_of_shares_is_newcombes() -> None:
    a, b = (
        intervals.Estimate(k / n, *stats.binomtest(k, n).proportion_ci(0.95, "wilson"), n, n)
        for k, n in ((56, 70), (48, 80))
    )
    assert intervals.difference(a, b) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=1e-4
    )  # Newcombe 1998, table II (a), method 10


# --- per group


def test_by_group_counts_images_subjects_and_marks_few() -> None:
    table = people(144)
    twice = pd.concat([table.iloc[:72]] * 2, ignore_index=True)
    rows = scores.by_group(seen(table), seen(twice, wrong=0.3)).set_index(
        ["axis", "subgroup", "metric"]
    )
    whole = rows.loc[("all", "all", "sex_accuracy")]
    assert (
        whole.real,
        whole.real_n,
        whole.real_subjects,
        whole.synthetic_n,
        whole.synthetic_subjects,
    ) == (
        1,
        144,
        144,
        144,
        72,
    )
    assert (
        whole.synthetic_low
        < whole.synthetic
        < whole.synthetic_high
        < 1
        == whole.real
        > whole.real_low
    )
    assert whole.difference == pytest.approx(whole.synthetic - 1) and whole.difference_high < 0
    assert len(rows.loc["group"]) == 36 * 5 and rows.loc["group"].few.all() and not whole.few
    assert rows.loc[("sex", "F", "dice")].synthetic_n == 72 and (rows.loc["sex"].real_n == 72).all()
    inside = rows.dropna()
    assert (inside.synthetic_low >= 0).all() and (inside.synthetic_high <= 1).all()
    wanted = scores.adherence(seen(table), seen(twice, wrong=0.3)).set_index("metric").synthetic
    assert rows.loc[("all", "all")].synthetic.to_dict() == pytest.approx(wanted.to_dict())


def test_a_group_without_images_and_an_unknown_axis_are_named_not_averaged() -> None:
    real, fake = people(72, unknown=("bmi",)), people(72, unknown=("bmi",))
    fake = fake[fake.group != "F/<60/hf"].reset_index(drop=True)
    rows = scores.by_group(seen(real), seen(fake)).set_index(["axis", "subgroup", "metric"])
    absent = rows.loc[("group", "F/<60/hf", "dice")]
    assert (
        np.isnan(absent.synthetic) and absent.synthetic_n == 0 and absent.real_n > 0 and absent.few
    )
    assert "bmi_accuracy" not in rows.index.get_level_values("metric")
    assert "occur on one side only" in " ".join(
        scores.adherence(seen(real), seen(fake)).attrs["warnings"]
    )


def test_confusion_adds_up() -> None:
    table = people(144)
    found = scores.confusion(seen(table), seen(table, wrong=1.0))
    assert set(found.axis) == {"sex", "age_band", "bmi_band", "diagnosis"} and set(
        found[found.axis == "sex"].n
    ) == {72}
    real, fake = (
        found[(found.axis == "sex") & (found.images == name)] for name in ("real", "synthetic")
    )
    assert (real[real.asked == real.seen].share == 1).all() and (
        fake[fake.asked == fake.seen].share == 0
    ).all()
    assert (found[found.axis == "sex"].groupby(["asked", "images"]).share.sum() == 1).all()


def test_faults_names_flat_images_empty_segmentations_and_absent_structures() -> None:
    real, fake = seen(people(30)), seen(people(30))
    assert scores.faults(real, fake) == []
    fake.areas.seen[:2], fake.areas.common[:2], fake.flat[:2] = 0, 0, True
    for counts in fake.areas:
        counts[5, 1, list(LABELS).index("RV")] = 0
    flat, empty, absent = scores.faults(real, fake)
    assert flat.startswith("2 of 30 synthetic images are flat") and "no heart in 2 of 30" in empty
    assert "RV at ES 1" in absent and "left out (1 times)" in absent


# --- contraction


def test_area_change_by_hand() -> None:
    cavity = np.array([[8, 4], [4, 8], [0, 0]])
    assert contraction.area_change(cavity).tolist() == [
        50,
        -100,
        pytest.approx(np.nan, nan_ok=True),
    ]
    masks = np.zeros((1, 2, 4, 4), np.uint8)
    masks[0, 0, :2], masks[0, 1, 0], masks[0, :, 3] = LV, LV, RV
    side = Seen(people(1), areas(masks, masks), {})
    assert contraction.pairs(side)[["mask", "segmented"]].to_numpy().tolist() == [[50, 50]]


def test_agreement_is_bland_and_altmans_for_independent_images() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"subject": np.arange(4000), "label": np.arange(4000) % 2, "mask": rng.normal(50, 8, 4000)}
    )
    table["segmented"] = table["mask"] + rng.normal(-3, 5, 4000)
    table.loc[0, "segmented"], table.loc[1, "mask"], table.loc[1, "segmented"] = np.nan, 2.0, -1.0
    found = contraction.agreement(table, table[:30])
    row, apart = found.iloc[0], (table.segmented - table["mask"]).dropna()
    sd = apart.std()
    assert row.bias == pytest.approx(apart.mean()) and row.upper - row.lower == pytest.approx(
        2 * 1.96 * sd
    )
    assert row.bias_high - row.bias == pytest.approx(1.96 * sd / np.sqrt(len(apart)), rel=0.01)
    theirs = 1.96 * sd * np.sqrt((1 + 1.96**2 / 2) / len(apart))  # Bland & Altman 1999, 2.4
    assert row.upper_high - row.upper == pytest.approx(theirs, rel=0.1)
    assert (row.n, row.undefined, row.growing) == (3999, 1, 1) and found.hearts.tolist() == [
        "all",
        "healthy",
        "diseased",
    ] * 2
    told = " ".join(found.attrs["warnings"])
    assert (
        "1 of 4000 real images have no LV" in told
        and "larger at ES" in told
        and "synthetic healthy (14)" in told
    )
    nothing = contraction.agreement(table[:0], table[:1])
    assert np.isnan(nothing.bias).all() and (nothing.n == 0).all()


# --- diversity


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return prepare(FakeCohort(count=180), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def networks(store: Store, tmp_path_factory: pytest.TempPathFactory) -> judges.Judges:
    return judges.judges(store, tmp_path_factory.mktemp("judges"), steps=(30, 20), width=(8, 8))


def test_layers_give_a_distance(store: Store, networks: judges.Judges) -> None:
    vectors = judges.layers(
        networks, np.concatenate([store.images[:3], store.images[:1], store.images[:1] // 2])
    )
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(-1).numpy()
    assert (
        apart[0, 3] == pytest.approx(0, abs=1e-6)
        and (apart[0, 1:3] > 0.01).all()
        and np.allclose(apart, apart.T)
    )
    x = judges._sized(judges.signed(store.images[:1], vectors.device))
    first = networks.attributes.trunk[0](x)[0]
    # a layer by hand: unit over channels
    unit = (first / first.norm(dim=0, keepdim=True).clamp(min=1e-12)).flatten(1)
    assert float((vectors[0, : unit.numel()] ** 2).sum()) == pytest.approx(
        float((unit**2).sum(0).mean()), rel=1e-4
    )


def test_bundles_share_what_they_say() -> None:
    index = pd.DataFrame(
        {
            "subject": list("aaabbcd"),
            "source_row": [0, 0, 1, 2, 2, 3, 4],
            "prompt": "p",
            "seed": [1, 2, 3, 4, 4, 5, 6],
            "group": ["g"] * 5 + ["h"] * 2,
        },
        index=range(10, 17),
    )
    [(who, rows)] = diversity.seed_bundles(index, seed=0)
    assert who == "a" and rows.tolist() == [0, 1]  # b has one seed twice: the same image
    [(who, rows)] = diversity.subject_bundles(index, seed=0)
    assert who == "a" and set(index.source_row.iloc[rows]) == {0, 1}
    pairs = diversity.group_bundles(index, seed=0)
    assert len(pairs) == 2 and all(
        index.subject.iloc[rows].nunique() == 2 and index.group.iloc[rows].nunique() == 1
        for _, rows in pairs
    )
    drawn = np.concatenate([rows for _, rows in diversity.group_bundles(people(300), seed=1)])
    assert len(set(drawn)) == len(drawn)


def test_spread_of_pairs_and_of_many_compare() -> None:
    rng = np.random.default_rng(0)
    images = (100 + 20 * rng.normal(size=(60, 2, 16, 16))).clip(0, 255).astype(np.uint8)

    def flat(pixels: np.ndarray) -> np.ndarray:
        return pixels.reshape(len(pixels), -1) / 255.0

    two = diversity.spread(images, [("a", np.array([k, k + 1])) for k in range(0, 60, 2)], flat)
    six = diversity.spread(images, [("a", np.arange(k, k + 6)) for k in range(0, 60, 6)], flat)
    assert two.pairs.sum() == 30 and six.pairs.sum() == 150
    for table in (two, six):
        assert np.sqrt(table.variance.mean()) == pytest.approx(20, rel=0.03)
    same = diversity.spread(np.repeat(images[:1], 4, 0), [("a", np.arange(4))], flat)
    assert same.distance[0] == 0 and same.variance[0] == 0


# --- the report's sections


@pytest.mark.slow  # seconds; test_study writes them too
def test_sections_of_a_sound_set(store: Store, networks: judges.Judges, tmp_path: Path) -> None:
    made = fake_set(tmp_path / "set", store, count=150)
    found = measured.measure(store, made, networks, tmp_path / "out", seed=0)
    parts = sections.shown_sections(found, missing=["F/<60/obese/hf"], seed=0)
    assert (
        "1 groups have no training subject" in parts[0].warnings[0]
        and "no sweep folder" in parts[2].warnings[0]
    )
    assert all(
        made.fingerprint in str(part.sources) and store.fingerprint in str(part.sources)
        for part in parts
    )
    assert (
        "Dice of" in parts[0].answers[0]
        and "contract by" in parts[1].answers[0]
        and "as much as real" in parts[2].answers[0]
    )
    names = {path.stem for path in (tmp_path / "out").glob("*.csv")}
    assert names == {
        "adherence",
        "adherence_detail",
        "adherence_groups",
        "confusion_attributes",
        "area_change",
        "diversity",
    }
    table = pd.read_csv(tmp_path / "out" / "diversity.csv")
    assert table.bundles[1] == 0 and np.isnan(table.distance[1])  # one mask per subject in this set
    assert (table.bundles.drop(1) > 20).all() and table.distance.drop(1).between(
        table.distance_low.drop(1), table.distance_high.drop(1)
    ).all()
    page = report_html(parts, title="t", facts={})
    assert page.count("data:image/png") == 5 and "Adherence per full group" in page


@pytest.mark.slow
def test_measuring_again_changes_no_byte(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    made = fake_set(tmp_path / "set", store, count=40)
    written = []
    for name in ("a", "b"):
        sections.shown_sections(
            measured.measure(store, made, networks, tmp_path / name, seed=0), missing=[], seed=0
        )
        files = sorted((tmp_path / name).rglob("*.*"))
        written.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert written[0] == written[1] and len(written[0]) > 20


@pytest.mark.slow  # seconds
def test_sections_of_a_black_set_warn_and_do_not_fail(
    store: Store, networks: judges.Judges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmrstudy.figures.save", lambda figure, path: [path])
    made = fake_set(tmp_path / "set", store, count=40)
    vars(made)["images"] = np.zeros_like(np.asarray(made.images))
    found = measured.measure(store, made, networks, tmp_path / "out", seed=0)
    look = found.synthetic
    assert look.flat.all() and not look.areas.seen.any() and set(look.predicted["sex"]) == {None}
    shown, contracted, _ = sections.shown_sections(found, missing=[], seed=0)
    assert "40 of 40 synthetic images are flat" in " ".join(shown.warnings)
    whole = pd.read_csv(tmp_path / "out" / "adherence.csv").set_index("metric").synthetic
    assert (whole.dropna() == 0).all()
    assert "40 of 40 synthetic images have no LV cavity" in " ".join(
        contracted.tables[0].attrs["warnings"]
    )
    assert contracted.answers == []


def test_a_set_of_one_image_is_told_not_measured(
    store: Store, networks: judges.Judges, tmp_path: Path
) -> None:
    made = fake_set(tmp_path / "set", store, count=1)
    [section] = sections.shown_sections(
        measured.measure(store, made, networks, tmp_path, seed=0), missing=[], seed=0
    )
    assert "holds 1 images" in section.warnings[0] and not section.tables


# --- pictures


def test_pictures_show_every_band_and_limit() -> None:
    table = people(144)
    rows = scores.by_group(seen(table, wrong=0.1), seen(table, wrong=0.3, seed=1))
    counts = scores.confusion(seen(table), seen(table, wrong=0.3))
    spread = {("synthetic", diversity.SEEDS): diversity.spread(np.empty(0), [], len)}
    drawn = [
        pictures.by_band(rows),
        pictures.confusion(counts),
        pictures.diversity(diversity.diversity(spread), spread),
    ]
    words = [" | ".join(text.get_text() for text in figure.findobj(Text)) for figure in drawn]
    assert all(
        name in words[0]
        for name in ("All images", "Age > 70", "Obese", "Diseased", "Diagnosis as asked")
    )
    assert (
        "Diagnosis, synthetic" in words[1]
        and "100 %\n72" in words[1]
        and "nothing to compare" in words[2]
    )
    real, fake = contraction.pairs(seen(table)), contraction.pairs(seen(table, wrong=0.5))
    limits = pictures.bland_altman(
        {"real": real, "synthetic": fake}, contraction.agreement(real, fake), unit="%"
    )
    assert "synthetic images (n = 144)" in " | ".join(
        text.get_text() for text in limits.findobj(Text)
    )
