"""The memorisation audit finds planted copies, spares fresh people, and says what it cannot
know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.prepare import prepare
from cmrdata.store import Store, Writer
from cmrgen.base.load import load_base
from cmrgen.evaluation.judges import Evaluation
from cmrgen.evaluation.privacy import section as sections
from cmrgen.evaluation.privacy.audit import Audit, memorisation_audit, write_private
from cmrgen.evaluation.privacy.display import copy_pairs
from cmrgen.evaluation.privacy.membership import diffusion_losses, generator_attack, loss_attack
from cmrgen.evaluation.privacy.nearest import by_features, by_sight
from cmrgen.render.set_card import _audit
from support.fake_cohort import FakeCohort, fake_set

COUNT, PLANTED = 160, 8  # images of a set, and the copies among them: 5 %
rng = np.random.default_rng(0)


def moved(image: np.ndarray, y: int, x: int) -> np.ndarray:
    """(2, P, P) moved by whole pixels; what comes in repeats the edge."""
    side = np.arange(image.shape[-1])
    return image[:, (side - y).clip(0, side[-1])][:, :, (side - x).clip(0, side[-1])]


def noised(image: np.ndarray, sigma: float) -> np.ndarray:
    return (image + rng.normal(0, sigma, image.shape)).round().clip(0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise of 5": lambda image: noised(image, 5),
    "noise of 10": lambda image: noised(image, 10),
    "shift": lambda image: moved(image, 3, -3),
    "odd shift": lambda image: moved(image, -1, 2),
    "mirrored": lambda image: image[..., ::-1],
    "upside down": lambda image: image[:, ::-1],
    "half turn, noise": lambda image: noised(image[:, ::-1, ::-1], 10),
    "all at once": lambda image: noised(moved(image[..., ::-1], 3, 3), 10),
}


def embed(store: Store, rows: np.ndarray) -> np.ndarray:
    """Mean grey values of 8 x 8 fields."""
    images = store.images[rows]
    side = images.shape[-1] // 8
    return images.reshape(len(images), 2, 8, side, 8, side).mean((3, 5)).reshape(len(images), -1)


def made_from(cohort: Store, folder: Path, images: np.ndarray) -> Store:
    """A synthetic set of these images, sources drawn from the training rows."""
    sources = np.random.default_rng(1).choice(
        np.flatnonzero(cohort.index.split == "train"), len(images)
    )
    index = (
        cohort.index.iloc[sources][["subject", "group"]]
        .reset_index(drop=True)
        .assign(source_row=sources)
    )
    writer = Writer(
        folder, pixels=images.shape[-1], settings={"cohort_fingerprint": cohort.fingerprint}
    )
    writer.append(images, np.zeros_like(images), index)
    return writer.finish()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Store:
    people = Phantom(subjects=110, test_subjects=110, controls_per_case=None, hf_share=0.3, seed=3)
    return prepare(people, tmp_path_factory.mktemp("phantom"))


@pytest.fixture(scope="module")
def fresh() -> np.ndarray:
    """Unseen people at all nine slices and frames, as a plan draws its masks."""
    people = Phantom(subjects=COUNT, hf_share=0.3, seed=4)
    images = people.stacks(people.subjects()[0].assign(split="train")).images
    return images[np.arange(COUNT) * 9 + rng.integers(0, 9, COUNT)]


@pytest.fixture(scope="module")
def clean(cohort: Store, fresh: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return memorisation_audit(
        cohort, made_from(cohort, tmp_path_factory.mktemp("clean"), fresh), embed, seed=0
    )


@pytest.fixture(scope="module")
def planted(
    cohort: Store, fresh: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Audit, Store]:
    images, train = fresh.copy(), np.flatnonzero(cohort.index.split == "train")
    for k, (copy, row) in enumerate(
        zip(COPIES.values(), rng.choice(train, PLANTED, replace=False), strict=True)
    ):
        images[k] = copy(np.array(cohort.images[row]))
    made = made_from(cohort, tmp_path_factory.mktemp("planted"), images)
    return memorisation_audit(cohort, made, embed, seed=0), made


def of(found: Audit, measure: str = "sight", group: str = "all") -> pd.Series:
    return found.groups.set_index(["measure", "group"]).loc[(measure, group)]


@pytest.mark.slow  # two whole audits: 45 s
def test_planted_copies_are_found_and_nobody_else(planted: tuple[Audit, Store]) -> None:
    found, _ = planted
    pairs = found.pairs[found.pairs.measure == "sight"].set_index("row").sort_index()
    missed = [
        name for k, name in enumerate(COPIES) if not (pairs.candidate[k] and pairs["copy"][k])
    ]
    assert not missed
    others = pairs.loc[PLANTED:]
    # 5 % is chance, 0.12 its 99.9 % of 152
    assert others["copy"].sum() <= 1 and others.candidate.mean() < 0.12
    assert pairs.excess[:PLANTED].min() > others.excess.max()
    row = of(found)
    assert row.low < row.share < row.high and row.candidates >= PLANTED
    assert PLANTED <= row.copies <= PLANTED + 1
    assert found.verdicts[1].startswith(
        f"By what is seen: {int(row.copies)} images are called copies of training images ("
    )
    test = found.tests.set_index(["measure", "test"]).loc[("sight", "copies")]
    assert test.alarm and test.value == row.copies and test.images == COUNT
    groups = found.groups[(found.groups.measure == "sight") & (found.groups.group != "all")]
    assert (groups.n.sum(), groups.copies.sum(), groups.candidates.sum()) == (
        COUNT,
        row.copies,
        row.candidates,
    )
    assert groups.few.equals(groups.n < 20) and groups.few.any()


@pytest.mark.slow  # two whole audits: 45 s
def test_a_clean_set_is_not_flagged(clean: Audit, planted: tuple[Audit, Store]) -> None:
    row = of(clean)
    assert row.n == COUNT and row.held_out > 100
    assert row.low < 0.05 and row.p > 0.05 and row.copies == 0
    assert abs(row.authentic - row.held_authentic) < 0.15 and row.ct > -2 and row.ct_p > 0.03
    assert not clean.tests.alarm.any() and clean.tests.test.value_counts().eq(2).all()
    assert clean.verdicts[0].startswith(
        "By what is seen: no evidence that the set lies nearer to the training images"
    )
    assert "held-out people)" in clean.verdicts[0] and clean.verdicts[0].endswith(
        "A few copies in a large set would not show in this."
    )
    assert clean.verdicts[1].startswith(
        "By what is seen: no image is called a copy of a training image (each of 160 against"
    )
    assert row.authentic > of(planted[0]).authentic
    assert of(clean, "features").copies <= 1 and of(clean, "features").low < 0.05


@pytest.mark.slow  # two whole audits: 45 s
def test_names_stay_in_the_private_table(
    planted: tuple[Audit, Store], cohort: Store, tmp_path: Path
) -> None:
    found, made = planted
    shared = (
        found.tests.to_csv()
        + found.groups.to_csv()
        + found.sources.to_csv()
        + " ".join(found.verdicts + found.notes)
    )
    assert not any(name in shared for name in cohort.subjects.subject)
    write_private(found, cohort, made, tmp_path / "private", worst=3)
    written = {path.name for path in (tmp_path / "private").iterdir()}
    assert written == {".gitignore", "nearest.csv"} | {
        f"pairs_{m}.{s}" for m in ("sight", "features") for s in ("png", "svg")
    }
    assert (tmp_path / "private" / ".gitignore").read_text() == "*\n"
    assert len(pd.read_csv(tmp_path / "private" / "nearest.csv")) == 2 * COUNT


@pytest.mark.slow  # an audit of its own: 3 s
def test_copies_of_the_source_subject_are_told_apart(
    cohort: Store, fresh: np.ndarray, tmp_path: Path
) -> None:
    images = fresh[:20].copy()
    made = made_from(cohort, tmp_path / "before", images)
    images[:5] = cohort.images[made.index.source_row.to_numpy()[:5]]
    found = memorisation_audit(
        cohort, made_from(cohort, tmp_path / "after", images), embed, seed=0, held_out=40
    )
    row = found.sources.set_index("measure").loc["sight"]
    assert (
        row.n == 20 and 0.25 <= row.nearest_is_source <= 0.35 and 0.25 <= row.source_beyond <= 0.35
    )
    assert row.nearest_is_source_low < row.nearest_is_source < row.nearest_is_source_high
    assert row.others_beyond < 0.2


@pytest.mark.slow  # an audit of its own: 3 s
def test_the_set_of_training_images_is_all_copies(cohort: Store, tmp_path: Path) -> None:
    own = np.array(cohort.images[np.flatnonzero(cohort.index.split == "train")[:108]])
    own[0] = 7
    row = of(
        found := memorisation_audit(
            cohort, made_from(cohort, tmp_path, own), embed, seed=0, held_out=100
        )
    )
    assert row.candidates == 107 and row.copies == 107 and row.authentic < 0.05 and row.ct < -4
    rows = found.tests.set_index(["measure", "test"]).loc["sight"]
    assert (
        rows.alarm[["nearest", "C_T", "copies"]].all()
        and rows.value["nearest"] >= rows.alarm_from["nearest"]
    )
    assert found.verdicts[0].startswith(
        "By what is seen: the set lies nearer to the training images than unseen people do ("
    )
    assert "Without the source subjects' own images this is also so" in found.verdicts[0]
    assert any("1 synthetic images are constant" in note for note in found.notes)


@pytest.mark.slow  # an audit of its own
def test_few_held_out_people_are_refused_or_noted(
    cohort: Store, fresh: np.ndarray, tmp_path: Path
) -> None:
    made = made_from(cohort, tmp_path / "set", fresh[:10])
    with pytest.raises(ValueError, match="19 held-out subjects .* needs at least 20"):
        memorisation_audit(cohort, made, embed, seed=0, held_out=19)
    found = memorisation_audit(cohort, made, embed, seed=0, held_out=30)
    assert np.isnan(of(found).copies) and of(found).few
    assert "only 40 real images to compare with, single copies are not called" in found.notes[0]
    assert "single copies were not looked for (40 real images to compare with)" in found.verdicts[1]


def test_other_sizes_and_flat_images_are_refused(cohort: Store, tmp_path: Path) -> None:
    small = prepare(FakeCohort(count=180), tmp_path / "small")
    made = made_from(small, tmp_path / "set", np.zeros((5, 2, 16, 16), np.uint8))
    with pytest.raises(
        ValueError, match=r"the cohort are \(2, 64, 64\), of the synthetic set \(2, 16, 16\)"
    ):
        memorisation_audit(cohort, made, embed, seed=0)
    flat = Store(small.folder)
    flat.__dict__["images"] = np.full_like(small.images, 9)
    with pytest.raises(ValueError, match="all held-out images are equally near"):
        memorisation_audit(flat, made, embed, seed=0)
    with pytest.raises(ValueError, match="hold NaN"):
        memorisation_audit(small, made, lambda _, rows: np.full((len(rows), 3), np.nan), seed=0)


def test_search_by_sight_excludes_the_own_person(cohort: Store) -> None:
    train = np.flatnonzero(cohort.index.split == "train")[:90]  # ten people
    images, people = cohort.images[train], np.repeat(np.arange(10), 9)
    near = by_sight(images, people)(images[4::9], np.arange(10))
    assert near.own == pytest.approx(np.ones(10), abs=1e-3) and near.own_row.tolist() == list(
        range(4, 90, 9)
    )
    assert (near.other < 0.995).all() and (people[near.other_row] != np.arange(10)).all()
    alone = by_sight(images, people)(images[:2], np.array([-1, -1]))
    assert (
        np.isnan(alone.own).all() and alone.row.tolist() == [0, 1] and (alone.own_row == -1).all()
    )


def test_search_by_features_is_a_cosine() -> None:
    x = np.random.default_rng(0).normal(size=(50, 6)) * [1, 10, 1, 1, 100, 0]
    near = by_features(x, np.arange(50))(x[:9], np.r_[np.arange(8), -1])
    assert (
        near.own[:8] == pytest.approx(np.ones(8))
        and near.other[8] == pytest.approx(1)
        and near.other_row[8] == 8
    )
    z = (x - x.mean(0))[:, :5] / x[:, :5].std(0)
    z /= np.linalg.norm(z, axis=1, keepdims=True) if z.shape[1] else 1
    assert near.other[0] == pytest.approx(np.sort(z @ z[0])[-2])


def test_membership_of_exchangeable_and_of_remembered_losses() -> None:
    draws, covered, resolved = np.random.default_rng(0), 0, 0
    for seed in range(60):
        x, y = draws.normal(size=120), draws.normal(size=150)
        found = loss_attack(x, y, seed=seed, draws=200)
        covered += found.auc_low <= 0.5 <= found.auc_high
        resolved += found.tpr >= found.resolvable
    # 57 and at most 3 are expected; both bounds lie beyond 99 %
    assert covered >= 52 and resolved <= 9
    found = loss_attack(draws.normal(-3, 1, 200), draws.normal(size=200), seed=0)
    assert found.p < 1e-9 and found.auc > 0.95 and found.auc_low < found.auc < found.auc_high
    assert found.tpr > 0.5 > found.resolvable and found.tpr_low <= found.tpr <= found.tpr_high
    assert (found.members, found.held_out) == (200, 200)


def test_membership_by_hand_and_its_limits() -> None:
    found = loss_attack(np.array([1.0, 2, 3]), np.array([2.0, 4]), seed=0)
    assert found.auc == pytest.approx((1 + 1 + 0.5 + 1 + 0 + 1) / 6)
    # 2 people cannot show 1 % false alarms
    assert np.isnan(found.tpr) and np.isnan(found.resolvable)
    y = np.arange(200.0)
    # 2 false alarms at most: losses below 2
    assert loss_attack(np.array([1.5, 2.5, 0.5, 9]), y, seed=0).tpr == 0.5
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="training losses of shape"):
            loss_attack(np.array(bad), y, seed=0)


def test_diffusion_losses_are_repeatable_and_independent_of_batches(
    tiny_base: Path, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=180), tmp_path)
    base = load_base(weights=str(tiny_base))
    generator = SimpleNamespace(
        base=base, controlnet=_silent, facts={"fields": ["sex", "diagnosis"]}
    )
    rows = np.array([3, 50, 7, 3])
    losses = diffusion_losses(generator, store, rows, seed=0, timesteps=3)
    assert (
        losses.shape == (4,)
        and np.isfinite(losses).all()
        and (losses > 0).all()
        and losses[0] == pytest.approx(losses[3])
    )
    assert losses == pytest.approx(
        diffusion_losses(generator, store, rows, seed=0, timesteps=3, batch=1), rel=1e-4
    )
    assert not np.allclose(losses, diffusion_losses(generator, store, rows, seed=1, timesteps=3))


def _silent(x: torch.Tensor, t: torch.Tensor, **_: object) -> tuple[None, None]:
    return None, None


def test_attack_compares_groups_of_equal_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=432), tmp_path)

    def losses(generator: object, store: Store, rows: np.ndarray, *, seed: int) -> np.ndarray:
        index = store.index.iloc[rows]
        assert index.subject.is_unique and index.central.all()
        return (
            np.random.default_rng(len(rows)).normal(size=len(rows))
            + 5 * index.label.to_numpy(float)
            - (2 * ((index.split == "train") & (index.sex == "F")).to_numpy())
        )

    monkeypatch.setattr("cmrgen.evaluation.privacy.membership.diffusion_losses", losses)
    table = generator_attack(None, store, seed=0).set_index("group")
    assert (table.members == table.held_out).all() and table.members["all"] == table.members[
        1:
    ].sum()
    assert table.few[1:].all() and not table.few["all"]
    female = table.index.str.startswith("F/")
    assert table.auc[female].mean() > 0.8 > 0.65 > table.auc[~female][1:].mean()
    assert generator_attack(None, store, seed=0, images=72).members.iloc[0] <= 72


@pytest.mark.slow  # seconds
def test_the_section_leaves_its_files_and_the_card_quotes_its_verdicts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=180), tmp_path)
    made = fake_set(tmp_path / "set", store, count=36)
    central = store.index.reset_index()[store.index.central.to_numpy()].set_index("subject")[
        "index"
    ]
    # nearness is compared among central slices
    made.index["source_row"] = made.index.subject.map(central)
    looks = SimpleNamespace(features=None)
    monkeypatch.setattr(sections, "domain_backbone", lambda networks: None)
    monkeypatch.setattr(sections, "kept_features", lambda of, rows, by, places: embed(of, rows))
    attacked = pd.DataFrame(
        [{"group": "all", **loss_attack(*rng.normal(size=(2, 50)), seed=0)._asdict()}]
    )
    monkeypatch.setattr(sections, "_attack", lambda *_, **__: attacked)
    networks = SimpleNamespace(device=torch.device("cpu"))
    evaluation = Evaluation(
        store, made, networks, np.zeros(0, int), looks, looks, tmp_path / "results"
    )  # type: ignore[arg-type]
    evaluation.folder.mkdir()
    section = sections.audit_section(evaluation, generator="runs/controlnet/0", seed=0)
    names = {path.name for path in (tmp_path / "results").iterdir()}
    assert {"audit.json", "audit.csv", "audit_tests.csv", "audit_sources.csv", "private"} <= names
    verdicts = json.loads((tmp_path / "results" / "audit.json").read_text())["verdicts"]
    assert verdicts == list(section.answers) == list(section.paragraphs[: len(verdicts)])
    assert verdicts[-1].startswith("By the generator's loss: ")
    assert all(text in _audit(str(tmp_path / "results"), made) for text in verdicts)
    tests = pd.read_csv(tmp_path / "results" / "audit_tests.csv")
    assert tests.test.tolist() == 2 * ["nearest", "nearest without the source", "C_T", "copies"]
    held = store.index.split.isin(("val", "test"))
    assert (tests.held_out[tests.test == "nearest"] == store.index.subject[held].nunique()).all()
    known = tests[tests.test.isin(("nearest", "C_T"))]
    assert (known.p_holm >= known.p).all() and (known.alarm == (known.p_holm <= 0.03)).all()


def test_a_cohort_too_small_for_an_audit_costs_the_report_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = prepare(FakeCohort(count=40), tmp_path)  # a fifth of them is held out
    made = fake_set(tmp_path / "set", store, count=12)
    monkeypatch.setattr(sections, "domain_backbone", lambda networks: None)
    looks, networks = SimpleNamespace(features=None), SimpleNamespace(device=torch.device("cpu"))
    evaluation = Evaluation(
        store, made, networks, np.zeros(0, int), looks, looks, tmp_path / "results"
    )  # type: ignore[arg-type]
    section = sections.audit_section(evaluation, generator="runs/controlnet/0", seed=0)
    assert section.answers == section.warnings and not section.tables
    assert "held-out subjects (val and test)" in section.answers[0]
    assert "needs at least 20" in section.answers[0] and str(tmp_path) not in section.answers[0]
    assert not (tmp_path / "results" / "audit.json").exists()


def test_copy_pairs_are_drawn() -> None:
    images = np.zeros((3, 2, 8, 8), np.uint8)
    drawn = copy_pairs(images, images, [0.9, 0.8, 0.7])
    assert isinstance(drawn, Figure) and len(drawn.axes) == 12
    assert [panel.get_title() for panel in drawn.axes[:4]] == [
        "synthetic ED",
        "training ED",
        "synthetic ES",
        "training ES",
    ]
    assert drawn.axes[4].get_ylabel() == "0.800"
