"""One image on the page is the one that generate.py draws; what judges and search see is told as they
see it, and the cohort's folder stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmrdata.batch import MYO
from cmrdata.store import Store
from cmrgen.app import studio as module
from cmrgen.app.masks import deformed, usual_heart
from cmrgen.app.studio import Cancelled, Studio, Wish, open_studio, spoken, varied
from cmrgen.plan.recipes import balanced
from cmrgen.render.drawing import draw_plan

STEPS = 3
WISH = Wish(sex="F", age=64.0, bmi=27.0, diagnosis="hf", seed=5, steps=STEPS, guides="both")


@pytest.fixture(scope="module")
def studio(run: Path, cohort: Store) -> Studio:
    return open_studio(run, data_root=cohort.folder.parent, device="cpu")


def first(studio: Studio) -> int:
    return studio.heart(studio.groups()[0], 1).row


def test_the_sampler_is_the_one_the_generator_was_trained_with(studio):
    assert (studio.sampler.steps, studio.sampler.guides) == (STEPS, "both")


def test_an_image_is_the_one_that_a_plans_row_gives(studio, cohort, tmp_path):
    plan = balanced(cohort.index, count=4, fields=studio.fields, guidance=2.5)
    sampler = replace(studio.sampler, steps=STEPS)
    made = draw_plan(
        plan,
        cohort=cohort,
        generator=studio.generator,
        folder=tmp_path,
        sampler=sampler,
        batch_size=1,
        device="cpu",
    )
    for k, row in enumerate(plan.rows.itertuples()):
        wish = Wish(
            row.sex, row.age, row.bmi, row.diagnosis, row.seed, STEPS, row.guidance, sampler.guides
        )
        mask = np.array(cohort.masks[row.source_row])
        assert studio.prompt(wish) == row.prompt
        image = studio.image(mask, wish)
        assert np.array_equal(image, made.images[k])
    assert not np.array_equal(made.images[0], made.images[1])


def test_the_seed_decides_and_so_do_mask_and_guidance(studio):
    mask = studio.mask(first(studio))
    image = studio.image(mask, WISH)
    assert np.array_equal(image, studio.image(mask, WISH))
    for other in (
        studio.image(mask, replace(WISH, seed=6)),
        studio.image(deformed(usual_heart(32, mm=5), ef=0.3), WISH),
        studio.image(mask, replace(WISH, guidance=4.0)),
        studio.image(mask, replace(WISH, guides="prompt")),
    ):
        assert not np.array_equal(image, other)


def test_steps_are_told_one_by_one_and_a_drawing_ends_when_nobody_wants_it(studio):
    mask, told = studio.mask(first(studio)), []
    studio.image(mask, WISH, step=told.append)
    assert told == list(range(1, STEPS + 1))

    def step(number: int) -> None:
        told.append(number)
        if number == 2:
            raise Cancelled

    told.clear()
    with pytest.raises(Cancelled):
        studio.image(mask, WISH, step=step)
    assert told == [1, 2]
    told.clear()
    studio.image(mask, WISH)  # nothing is left hanging on the network
    assert told == []


def test_a_painted_mask_is_checked_and_a_subjects_own_is_taken_as_it_is(studio, monkeypatch):
    row = first(studio)
    mask = studio.mask(row)
    broken = np.where(mask == MYO, 0, mask).astype(np.uint8)
    for source in (None, row):
        with pytest.raises(ValueError, match="ED: no myocardium labelled"):
            studio.image(broken, WISH, source=source)
    monkeypatch.setattr(studio, "mask", lambda number: broken)
    studio.image(broken, WISH, source=row)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"age": 300.0}, "'age' is 300.0"),
        ({"bmi": 4.0}, "'bmi' is 4.0"),
        ({"sex": "X"}, "'sex' is 'X'"),
        ({"diagnosis": "flu"}, "'diagnosis' is 'flu'"),
        ({"steps": 0}, "steps is 0; give 1 to"),
        ({"steps": 10_000}, "steps is 10000"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"guidance": float("inf")}, "'guidance' is inf"),
        ({"guidance": -1.0}, "'guidance' is -1.0"),
        ({"guides": "both ways"}, "guides is 'both ways'"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(studio, change, told):
    mask = studio.mask(first(studio))
    with pytest.raises(ValueError, match=told):
        studio.image(mask, replace(WISH, **change))


def test_a_mask_of_another_size_and_one_that_is_not_offered_are_refused(studio, cohort):
    with pytest.raises(ValueError, match="shape"):
        studio.image(usual_heart(64, mm=2.5), WISH)
    held_out = int(cohort.index.index[cohort.index.split == "test"][0])
    with pytest.raises(ValueError, match="not offered"):
        studio.mask(held_out)


def test_attributes_that_are_not_said_are_not_in_the_prompt(studio):
    wish = Wish(diagnosis="healthy", steps=STEPS)
    assert studio.prompt(wish) == "healthy"
    assert studio.image(studio.mask(first(studio)), wish).std() > 0


def test_hearts_are_of_training_subjects_and_go_round(studio, cohort):
    of = cohort.index.set_index("subject").split
    for group in studio.groups():
        hearts = [studio.heart(group, k) for k in range(1, studio.heart(group, 1).of + 2)]
        assert hearts[-1].row == hearts[0].row
        assert len({heart.row for heart in hearts}) == hearts[0].of
        subjects = cohort.index.subject[[heart.row for heart in hearts]]
        assert (of.loc[subjects] == "train").all()
        assert {cohort.index.group[heart.row] for heart in hearts} == {group}
    with pytest.raises(ValueError, match="no training subject belongs to"):
        studio.heart("nobody", 1)
    assert spoken("F/60-70/obese/hf") == "female · 60-70 · obese · heart failure"


def test_a_comparison_varies_one_thing(studio):
    mask = usual_heart(64, mm=2.5)
    for what, values in module.COMPARISONS.items():
        images = varied(what, WISH, mask, diagnoses=["healthy", "hf"])
        assert len(images) == (2 if what == "diagnosis" else len(values))
        assert len({of.title for of in images}) == len(images)
        masks = {of.mask.tobytes() for of in images}
        wishes = {of.wish for of in images}
        on_mask = what in ("ejection fraction", "wall thickness", "size")
        assert (len(masks), len(wishes)) == ((len(images), 1) if on_mask else (1, len(images)))
        if not on_mask:
            assert {replace(of.wish, **{what: None}) for of in images} == {
                replace(WISH, **{what: None})
            }
    assert [of.wish for of in varied("", WISH, mask, diagnoses=["hf"])] == [WISH]
    with pytest.raises(ValueError, match="nothing is known of 'height'"):
        varied("height", WISH, mask, diagnoses=["hf"])


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def critical(run: Path, cohort: Store, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A studio whose critics have learned for a moment."""
    studio = open_studio(run, data_root=cohort.folder.parent, device="cpu")
    before, scratch = contents(cohort.folder), tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JUDGE_STEPS", (12, 2))
        studio.train_critics(scratch)
    assert contents(cohort.folder) == before  # real people's judges are written nowhere but there
    assert list(scratch.rglob("*.safetensors"))
    return studio


def test_before_the_critics_are_there_nothing_is_said(studio):
    mask = studio.mask(first(studio))
    image = np.array(studio.cohort.images[first(studio)])
    assert studio.judged(image, mask, WISH) is None and studio.nearness(image, None) is None


def test_judges_say_what_they_see_beside_what_was_asked(critical, cohort):
    row = first(critical)
    image, mask = np.array(cohort.images[row]), critical.mask(row)
    of = critical.judged(image, mask, WISH)
    assert of is not None
    assert of.dice.shape == of.dice_real.shape == (2, 3)
    assert of.ef_asked == pytest.approx(1 - (mask[1] == 1).sum() / (mask[0] == 1).sum())
    asked = {attribute.axis: attribute.asked for attribute in of.attributes}
    assert asked == {"sex": "F", "age_band": "60-70", "bmi_band": "overweight", "diagnosis": "1"}
    held = int(cohort.index[cohort.index.split.isin(("val", "test"))].subject.nunique())
    for attribute in of.attributes:
        assert 0 <= attribute.right <= 1 and attribute.n == min(held, module.COMPARED)
    unknown = critical.judged(image, mask, Wish(diagnosis="healthy"))
    assert unknown is not None and unknown.attributes[0].asked is None


def test_a_copy_of_a_training_image_lies_beyond_tau_and_another_does_not(critical, cohort):
    row = first(critical)
    image = np.array(cohort.images[row])
    near = critical.nearness(image, row)
    assert near is not None
    assert near.similarity > 0.999 > near.tau and near.own
    stranger = critical.nearness(image, None)
    assert stranger is not None and not stranger.own
    noise = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    far = critical.nearness(noise, None)
    assert far is not None and far.similarity < far.tau


def test_tau_is_what_unseen_people_reach(critical, cohort):
    held = critical.critics.table.index
    beyond = [
        critical.nearness(np.array(cohort.images[row]), None).similarity > critical.critics.tau
        for row in held
    ]
    assert np.mean(beyond) <= module.BEYOND
    assert critical.critics.table.split.isin(("val", "test")).all()
    assert critical.critics.table.subject.is_unique


def test_the_judges_of_an_evaluation_are_used(run, cohort, critical, tmp_path, monkeypatch):
    from cmrgen.evaluation import judges

    kept = judges.trained_judges(cohort, tmp_path / "store" / "judges", steps=(3, 6))
    studio = open_studio(run, data_root=cohort.folder.parent, device="cpu")
    for path in cohort.folder.iterdir():
        (tmp_path / "store" / path.name).symlink_to(path)
    studio.cohort = Store.open(tmp_path / "store")
    monkeypatch.setattr(judges, "fit_network", lambda *args, **kwargs: pytest.fail("trained again"))
    used = studio._judges(tmp_path / "scratch")
    for mine, theirs in zip(used.segmenter.parameters(), kept.segmenter.parameters(), strict=True):
        assert mine.equal(theirs)


def test_a_generator_of_another_cohort_and_a_missing_store_are_refused(run, cohort, tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished set"):
        open_studio(run, data_root=tmp_path)
    with pytest.raises(ValueError, match="device=nowhere"):
        open_studio(run, data_root=cohort.folder.parent, device="nowhere")
