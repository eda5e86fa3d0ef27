"""One image on the page is the one that generate.py draws; what judges and search see is told as they
see it, and the cohort's folder stays as it is."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

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
    near = [critical.nearness(np.array(cohort.images[row]), None) for row in held]
    assert {of.people for of in near} == {len(held)} and not any(of.own for of in near)
    apart = np.array([of.similarity - critical.critics.tau for of in near])
    assert (apart > 1e-5).mean() <= module.BEYOND < (apart > -1e-5).mean()  # one of them is tau
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


def stand_in(index: pd.DataFrame, *, settings: dict | None = None, fields=("sex", "age")) -> Studio:
    """A studio without networks: what it offers follows from the index alone."""
    cohort = SimpleNamespace(
        index=index,
        meta={"pixels": 32, "settings": settings or {}},
        folder=Path("fake-1"),
        masks=np.zeros((len(index), 2, 32, 32), np.uint8),
    )
    generator = SimpleNamespace(facts={"fields": fields})
    return Studio(generator, cohort, None)  # type: ignore[arg-type]


def index_of(rows: list[tuple]) -> pd.DataFrame:
    """An index of (subject, split, group, diagnosis, central) rows."""
    columns = ["subject", "split", "group", "diagnosis", "central"]
    return pd.DataFrame(rows, columns=columns).assign(
        flags="", source="phantom", sex="F", age=61.0, bmi=np.nan
    )


def test_what_is_offered_follows_from_the_cohort():
    rows = [
        ("a", "train", "F/hf", "hf", False),
        ("a", "train", "F/hf", "hf", True),
        ("b", "train", "F/healthy", "healthy", True),
        ("c", "train", "F/hf", "hf", True),
        ("d", "test", "F/hf", "hf", True),
    ]
    studio = stand_in(index_of(rows))
    assert studio.rows.index.tolist() == [2, 1, 3]  # by group, the central slice of each
    assert studio.groups() == ["F/healthy", "F/hf"]
    assert studio.diagnoses == ["healthy", "hf"] and studio.fields == ["sex", "age"]
    assert studio.heart("F/hf", 2) == (
        (3, 2, 2, "F/hf", {"sex": "F", "age": 61.0, "bmi": None, "diagnosis": "hf"})
    )
    assert studio.heart("F/hf", 0).row == 3 and studio.heart("F/hf", 3).row == 1
    none_central = stand_in(index_of([(*row[:4], False) for row in rows]))
    assert none_central.rows.index.tolist() == [2, 0, 3]
    assert studio.phantom
    studio.cohort.index.loc[0, "source"] = "ukbb"
    assert not studio.phantom


def test_the_side_of_a_pixel_is_known_where_the_cohort_says_it():
    rows = [("a", "train", "F/hf", "hf", True)]
    assert stand_in(index_of(rows), settings={"fov_mm": 160.0}).mm == 5.0
    assert stand_in(index_of(rows)).mm is None and stand_in(index_of(rows)).pixels == 32


def test_held_out_people_have_a_row_each_the_central_one_and_are_not_too_many(monkeypatch):
    rows = [("a", "train", "g", "hf", True)]
    for k in range(6):
        split = "val" if k % 2 else "test"
        rows += [(f"p{k}", split, "g", "hf", False), (f"p{k}", split, "g", "hf", True)]
    studio = stand_in(index_of(rows))
    assert studio._held_out().tolist() == [2, 4, 6, 8, 10, 12]
    monkeypatch.setattr(module, "COMPARED", 4)
    some = studio._held_out()
    assert len(some) == 4 and set(some) < {2, 4, 6, 8, 10, 12} and (np.diff(some) > 0).all()
    assert studio._held_out().tolist() == some.tolist()
    with pytest.raises(ValueError, match="fake-1 has nobody held out"):
        stand_in(index_of(rows[:1]))._held_out()


@pytest.mark.parametrize(("steps", "seed"), [(1, 0), (module.MOST_STEPS, 2**63 - 1)])
def test_the_ends_of_steps_and_seeds_can_be_drawn(studio, steps, seed):
    row = studio.plan_row(replace(WISH, steps=steps, seed=seed), first(studio)).iloc[0]
    assert (row.steps, row.seed, row.guidance) == (steps, seed, 2.0)
    assert row.source_row == first(studio) and (row.sex, row.age, row.bmi) == ("F", 64.0, 27.0)
    assert studio.plan_row(WISH).source_row.tolist() == [int(studio.rows.index[0])]


def test_a_picture_of_one_grey_value_is_no_image(studio, monkeypatch):
    def flat(*_: object, **__: object) -> torch.Tensor:
        return torch.full((1, 2, 32, 32), 7.0)

    monkeypatch.setattr(module, "draw_rows", flat)
    with pytest.raises(FloatingPointError, match="not finite, or of one grey value"):
        studio.image(studio.mask(first(studio)), WISH)


def test_every_image_of_a_comparison_is_named_by_what_differs():
    mask = usual_heart(96, mm=2.2)
    titles = {
        what: [of.title for of in varied(what, WISH, mask, diagnoses=["healthy", "hf"])]
        for what in module.COMPARISONS
    }
    assert titles == {
        "sex": ["female", "male"],
        "age": ["age 55", "age 65", "age 75"],
        "bmi": ["BMI 22", "BMI 27.5", "BMI 34"],
        "diagnosis": ["healthy", "heart failure"],
        "ejection fraction": ["EF 20 %", "EF 35 %", "EF 50 %", "EF 65 %"],
        "wall thickness": ["wall 70 %", "wall 100 %", "wall 130 %", "wall 160 %"],
        "size": ["size 85 %", "size 100 %", "size 115 %"],
        "seed": ["seed 5", "seed 6", "seed 7", "seed 8"],
        "guidance": ["guidance 1", "guidance 2", "guidance 4", "guidance 8"],
    }
    seeds = varied("seed", WISH, mask, diagnoses=[])
    assert [of.wish.seed for of in seeds] == [5, 6, 7, 8]
    [only] = varied(None, WISH, mask, diagnoses=[])
    assert only == ("Synthetic", WISH, mask)


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        ("age_band", "60-70", "60-70 years"),
        ("sex", "M", "male"),
        ("diagnosis", "hf", "heart failure"),
        ("diagnosis", "1", "diseased"),
        ("bmi_band", "obese", "obese"),
    ],
)
def test_values_are_said_as_people_say_them(axis, value, words):
    assert module.words_of(axis, value) == words


def test_a_step_is_counted_when_its_time_is_new():
    network, told = torch.nn.Linear(2, 2), []
    x = torch.zeros(1, 2)
    timed = Timed(network)
    with module.counted(timed, told.append):
        for time in (900.0, 900.0, 500.0, 100.0, 100.0):
            timed(x, torch.tensor([time, time]))
    timed(x, torch.tensor([1.0]))
    assert told == [1, 2, 3]


class Timed(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def test_the_newest_judges_say_how_long_they_were_trained(tmp_path):
    assert module._steps_of(tmp_path) is None
    for k, (name, steps) in enumerate(
        (("segmenter-b", 7), ("segmenter-a", 9), ("attributes-a", 11), ("attributes-b", 13))
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({"steps": steps}))
        os.utime(tmp_path / f"{name}.json", (1000 + k, 1000 + k))
        if k < 2:
            assert module._steps_of(tmp_path) is None
    assert module._steps_of(tmp_path) == (9, 13)


def test_where_nothing_is_asked_the_device_is_a_gpu_if_there_is_one(run, cohort, monkeypatch):
    moved = []

    class There:
        def __init__(self, generator):
            self.facts = generator.facts

        def to(self, device):
            moved.append(device)

    real = module.load_generator
    monkeypatch.setattr(module, "load_generator", lambda *of, **how: There(real(*of, **how)))
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        open_studio(run, data_root=cohort.folder.parent)
    assert moved == ["cpu", "cuda"]


def test_what_the_judges_say_is_beside_what_real_images_give(critical, cohort):
    row = first(critical)
    image, mask = np.array(cohort.images[row]), critical.mask(row)
    of = critical.judged(image, mask, WISH)
    critics = critical.critics
    assert np.allclose(of.dice_real, np.nanmean(critics.real.areas.dice, 0))
    for attribute in of.attributes:
        column = "label" if attribute.axis == "diagnosis" else attribute.axis
        right = critics.real.predicted[attribute.axis] == critics.table[column].to_numpy()
        assert attribute.right == pytest.approx(right.mean())
