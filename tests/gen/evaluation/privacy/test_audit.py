"""The memorisation audit finds planted copies, spares fresh people, and says what it cannot
know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.prepare import prepare
from cmrdata.store import Store, Writer
from cmrgen.evaluation.privacy.audit import Audit, memorisation_audit, write_private
from support.audited import embed
from support.fake_cohort import FakeCohort

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
        "By what is seen: no image is called a copy of a training image (each of 160 compared with"
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
    assert "This is also so without the source subjects' own images" in found.verdicts[0]
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
