"""From a plan to a set: the same bytes whatever interrupts it, and only from this cohort's training
subjects."""

import contextlib
import copy
import errno
import multiprocessing
import os
import shutil
import time
from collections import namedtuple

import numpy as np
import pandas as pd
import pytest
import torch

from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.disk import Unwritable
from cmrdata.plan_columns import PROVENANCE
from cmrdata.prepare import prepare
from cmrdata.store import Store, Writer
from cmrdata.synthetic import open_synthetic
from cmrgen.plan.checking import make_plan
from cmrgen.plan.mask_moves import moved
from cmrgen.plan.recipes import balanced
from cmrgen.plan.rows import Plan
from cmrgen.render import generator as drawing
from cmrgen.render.drawing import as_stored, draw_plan, render_sweep, steps_of
from cmrgen.render.generator import Generator, load_generator, save_generator
from cmrgen.render.sampler import Sampler
from cmrgen.render.set_card import card_of_set
from cmrgen.render.shards import render_shards
from cmrstudy import runs
from cmrstudy.memory import OutOfMemory

# what torch has loaded is used again; one thread, so it may fork
PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Store:
    small = Phantom(subjects=200, hf_scale=20, pixels=32, controls_per_case=0.3)
    return prepare(small, tmp_path_factory.mktemp("cohort"), workers=1)


@pytest.fixture(scope="module")
def generator(tiny_base) -> Generator:
    from cmrgen.training.controlnet import ControlNetModule

    torch.manual_seed(1)
    module = ControlNetModule(base={"weights": str(tiny_base)})
    zeros = [module.controlnet.controlnet_mid_block, *module.controlnet.controlnet_down_blocks]
    # as training would leave them
    for layer in (*zeros, module.controlnet.controlnet_cond_embedding.conv_out):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return Generator(
        base=module.base, controlnet=module.controlnet.eval(), facts={"fingerprint": "made up"}
    )


QUICK = {"sampler": Sampler(steps=2), "batch_size": 2}
BYTES = ("images.u8", "masks.u8", "index.parquet", "plan.csv", "store.json", "settings.json")


def contents(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


class Stopped(Exception):
    """Stands for a walltime limit."""


@pytest.fixture
def stop_after(monkeypatch):
    def patch(batches: int):
        draw, done = Generator.images, []

        def images(self, *args, **kwargs):
            if len(done) == batches:
                raise Stopped
            done.append(1)
            return draw(self, *args, **kwargs)

        monkeypatch.setattr(Generator, "images", images)
        return done

    yield patch
    monkeypatch.undo()


@pytest.fixture(scope="module")
def rendered(cohort, generator, tmp_path_factory):
    plan = balanced(cohort.index, count=5)
    folder = tmp_path_factory.mktemp("whole") / "0"
    return plan, draw_plan(plan, cohort=cohort, generator=generator, folder=folder, **QUICK)


def test_a_set_carries_its_provenance_and_is_accepted(cohort, rendered):
    (plan, missing, *_), made = rendered
    assert set(PROVENANCE) <= set(made.index.columns)
    assert (
        (made.index.sampler == "unipc").all()
        and (made.index.steps == 2).all()
        and (made.index.split == "synthetic").all()
    )
    pd.testing.assert_frame_equal(made.index[plan.columns], plan, check_dtype=False)
    assert np.array_equal(made.masks, cohort.masks[plan.source_row.to_numpy()])
    assert (
        made.images.shape == (5, 2, 32, 32) and len({image.tobytes() for image in made.images}) == 5
    )
    assert made.meta["missing_groups"] == missing
    assert open_synthetic(made.folder, cohort).fingerprint == made.fingerprint
    assert (made.folder / "README.md").read_text() == card_of_set(made)
    kept = pd.read_csv(made.folder / "plan.csv").fillna(
        {"conditions": "", "borrowed": "", "negative": ""}
    )
    pd.testing.assert_frame_equal(kept, plan, check_dtype=False)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_interrupted_set_continues_to_the_same_bytes(
    cohort, generator, rendered, tmp_path, stop_after, monkeypatch, batches
):
    plan, whole = rendered
    stop_after(batches)
    with pytest.raises(Stopped):
        draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    monkeypatch.undo()
    assert not Store(tmp_path).complete
    with pytest.raises(FileNotFoundError, match="generate.py"):
        open_synthetic(tmp_path, cohort)
    drawn = stop_after(99)
    made = draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    assert len(drawn) == 3 - batches  # nothing is drawn twice
    for name in BYTES:
        assert (made.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_bytes_torn_by_a_kill_are_dropped(
    cohort, generator, rendered, tmp_path, stop_after, monkeypatch
):
    plan, whole = rendered
    stop_after(1)
    with pytest.raises(Stopped):
        draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    monkeypatch.undo()
    for name in ("images.u8", "masks.u8"):
        with open(tmp_path / name, "ab") as file:
            file.write(b"torn" * 100)
    draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    for name in BYTES:
        assert (tmp_path / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.parametrize("state", ["unfinished", "finished"])
@pytest.mark.parametrize("change", ["plan", "steps", "generator"])
def test_another_set_into_the_same_folder_is_refused(
    cohort, generator, rendered, tmp_path, stop_after, monkeypatch, state, change
):
    plan, whole = rendered
    folder = whole.folder
    if state == "unfinished":
        folder = tmp_path
        stop_after(1)
        with pytest.raises(Stopped):
            draw_plan(plan, cohort=cohort, generator=generator, folder=folder, **QUICK)
        monkeypatch.undo()
    before = contents(folder)
    other = {
        "plan": {"plan": balanced(cohort.index, count=6, seed=1)},
        "steps": {"sampler": Sampler(steps=3)},
        "generator": {
            "generator": Generator(generator.base, generator.controlnet, {"fingerprint": "another"})
        },
    }[change]
    drawn = stop_after(0)
    with pytest.raises(ValueError, match=f"begun with other settings .*{change}"):
        draw_plan(
            **{"plan": plan, "generator": generator, **QUICK, **other}, cohort=cohort, folder=folder
        )
    assert contents(folder) == before and not drawn


def test_a_finished_set_is_not_drawn_again(cohort, generator, rendered, stop_after):
    plan, whole = rendered
    drawn, before = stop_after(0), contents(whole.folder)
    assert (
        draw_plan(
            plan, cohort=cohort, generator=generator, folder=whole.folder, **QUICK
        ).fingerprint
        == whole.fingerprint
    )
    assert not drawn and contents(whole.folder) == before


def test_nothing_is_written_for_a_plan_that_leaks(cohort, generator, tmp_path):
    stray = cohort.index[cohort.index.split == "test"].iloc[0]

    def leaking(index: pd.DataFrame, *, count: int) -> Plan:
        rows = balanced(index, count=count).rows
        return Plan(rows.assign(subject=stray.subject, source_row=stray.name))

    with pytest.raises(ValueError, match="test split"):
        plan = make_plan(leaking, cohort, count=3)
        draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path / "set", **QUICK)
    assert not (tmp_path / "set").exists()


def test_a_set_of_another_cohort_is_refused(cohort, rendered, tmp_path):
    other = prepare(
        Phantom(subjects=40, hf_scale=20, pixels=32, seed=3, controls_per_case=0.3),
        tmp_path,
        workers=1,
    )
    with pytest.raises(ValueError, match="made from another cohort"):
        open_synthetic(rendered[1].folder, other)


def close(a: np.ndarray, b: np.ndarray) -> bool:
    """At most one grey level apart on 99.9 % of pixels."""
    return bool((np.abs(a.astype(int) - b.astype(int)) <= 1).mean() >= 0.999)


@pytest.fixture(scope="module")
def mixed(cohort) -> pd.DataFrame:
    """Six rows, each drawn in its own way; the last two differ in nothing but a prompt of what not
    to show."""
    plan = balanced(cohort.index, count=6, per_mask=0).rows
    last = plan.iloc[4:5].assign(row=5, negative="obese BMI")
    plan = pd.concat([plan.iloc[:5], last], ignore_index=True)
    return plan.assign(
        guidance=[1.0, 2.0, 4.0, 1.0, 3.0, 3.0],
        strength=[0.0, 1.0, 0.5, 1.0, 1.0, 1.0],
        steps=[2, 3, 2, 2, 3, 3],
    )


@pytest.fixture(scope="module")
def drawn_mixed(cohort, generator, mixed, tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("mixed") / "0"
    return draw_plan(
        Plan(mixed), cohort=cohort, generator=generator, folder=folder, **{**QUICK, "batch_size": 6}
    )


def test_every_row_is_drawn_as_it_says_whatever_its_batch(
    cohort, generator, mixed, drawn_mixed, tmp_path
):
    assert drawn_mixed.index.steps.tolist() == [2, 3, 2, 2, 3, 3]
    masks = moved(cohort.masks[mixed.source_row.to_numpy()], mixed)
    assert (
        np.array_equal(drawn_mixed.masks, masks)
        and (masks != cohort.masks[mixed.source_row.to_numpy()]).any()
    )
    for size in (1, 4):
        made = draw_plan(
            Plan(mixed),
            cohort=cohort,
            generator=generator,
            folder=tmp_path / str(size),
            **{**QUICK, "batch_size": size},
        )
        assert close(made.images, drawn_mixed.images), size
    for k, row in enumerate(mixed.itertuples()):
        alone = generator.images(
            torch.from_numpy(masks[[k]]),
            prompts=[row.prompt],
            negatives=[row.negative],
            seeds=[row.seed],
            guidance=[row.guidance],
            strength=row.strength,
            sampler=Sampler(steps=int(drawn_mixed.index.steps[k])),
        )
        assert close(as_stored(alone, 32)[0], drawn_mixed.images[k]), k


def test_rows_without_steps_of_their_own_take_the_samplers(mixed):
    assert steps_of(mixed.drop(columns="steps"), 8).tolist() == [8] * 6
    assert steps_of(mixed.assign(steps=[np.nan, 3, 2, np.nan, 3, 3]), 8).tolist() == [
        8,
        3,
        2,
        8,
        3,
        3,
    ]


@pytest.mark.parametrize(
    ("row", "change"),
    [
        (1, {"guidance": 6.0}),
        (2, {"strength": 1.5}),
        (0, {"steps": 4}),
        (4, {"negative": "Male"}),
        (3, {"dx": -0.02}),
    ],
)
def test_a_column_changes_its_own_row_alone(
    cohort, generator, mixed, drawn_mixed, tmp_path, row, change
):
    other = mixed.copy()
    for column, value in change.items():
        other.loc[row, column] = value
    made = draw_plan(
        Plan(other),
        cohort=cohort,
        generator=generator,
        folder=tmp_path,
        **{**QUICK, "batch_size": 6},
    )
    rest = [k for k in range(6) if k != row]
    assert (made.images[row] != drawn_mixed.images[row]).mean() > 0.002
    assert close(made.images[rest], drawn_mixed.images[rest])


def test_without_strength_no_controlnet_runs(cohort, generator, mixed, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(type(generator.controlnet), "forward", lambda *a, **k: calls.append(1))
    plan = Plan(mixed.assign(strength=0.0))
    draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    assert not calls


def test_shards_join_to_the_bytes_of_one_process(cohort, generator, rendered, tmp_path):
    plan, whole = rendered
    how = {"cohort": cohort, "generator": generator, "folder": tmp_path, **QUICK}
    ends = [render_shards(plan, shard=f"{k}/3", **how) for k in (2, 0, 1)]
    assert ends[:2] == [None, None] and ends[2].fingerprint == whole.fingerprint
    joined = contents(tmp_path)
    assert {
        name: data for name, data in joined.items() if not name.startswith("shard-")
    } == contents(whole.folder)
    with pytest.raises(ValueError, match="plan differs in 5 of 5 rows, columns guidance"):
        draw_plan(Plan(plan.rows.assign(guidance=1.0)), shard="1/3", **how)
    for shard, told in (
        ("2/2", "i from 0 to n-1"),
        ("first", "give i/n"),
        ("0/9", "the plan is 3 batches"),
    ):
        with pytest.raises(ValueError, match=told):
            draw_plan(plan, shard=shard, **how)


@pytest.fixture
def spoil(monkeypatch):
    """Some seeds' noise is not finite, the first `times` times it is asked for."""

    def patch(seeds: set[int], times: int):
        draw, asked = drawing.row_noise, []

        def noise(some, shape):
            values = draw(some, shape)
            for k, seed in enumerate(some):
                if seed in seeds and asked.count(seed) < times:
                    asked.append(seed)
                    values[k, 0, 0, 0] = float("nan")
            return values

        monkeypatch.setattr(drawing, "row_noise", noise)
        return asked

    return patch


def test_an_image_that_is_not_finite_is_drawn_once_more(
    cohort, generator, rendered, tmp_path, spoil
):
    plan, whole = rendered
    asked = spoil({plan.rows.seed[3]}, 1)
    made = draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    assert (
        asked == [plan.rows.seed[3]]
        and close(made.images, whole.images)
        and not (tmp_path / "failed.csv").exists()
    )


@pytest.mark.parametrize("bad", [[3], [0, 1]])  # one, a whole batch
def test_what_stays_not_finite_is_left_out_and_listed(
    cohort, generator, rendered, tmp_path, spoil, capsys, bad
):
    plan, whole = rendered
    spoil({plan.rows.seed[k] for k in bad}, 99)
    how = {"cohort": cohort, "generator": generator, **QUICK}
    made = draw_plan(plan, folder=tmp_path / "one", **how)
    good = [k for k in range(5) if k not in bad]
    assert made.index.row.tolist() == good and close(made.images, whole.images[good])
    assert np.array_equal(made.masks, whole.masks[good])
    failed = pd.read_csv(made.folder / "failed.csv")
    assert failed.row.tolist() == bad and set(failed.reason) == {"not finite, twice"}
    said = (
        "1 image could not be drawn and is"
        if len(bad) == 1
        else "2 images could not be drawn and are"
    )
    assert f"{said} left out; failed.csv lists" in capsys.readouterr().out


def test_weights_that_draw_nothing_are_blamed_at_once(cohort, generator, rendered, tmp_path, spoil):
    plan, _ = rendered
    spoil(set(plan.rows.seed), 99)
    with pytest.raises(
        ValueError, match="none of the first 5 images is finite.*weights of generator made up"
    ):
        draw_plan(
            plan, cohort=cohort, generator=generator, folder=tmp_path, **{**QUICK, "batch_size": 5}
        )
    assert not (tmp_path / "store.json").exists()


def test_a_disk_that_is_too_small_is_told_before_any_image(
    cohort, generator, rendered, tmp_path, stop_after, monkeypatch, capsys
):
    drawn = stop_after(0)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 20_000, 20_000))
    with pytest.raises(
        Unwritable, match=r"5 images of 32 px: 0.0 MB are needed, 0.0 MB are free.*run_dir="
    ):
        draw_plan(rendered[0], cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    assert "5 images of 32 px: 0.0 MB in" in capsys.readouterr().out and not drawn


def test_a_disk_that_fills_up_is_told_and_the_set_continued(
    cohort, generator, rendered, tmp_path, monkeypatch
):
    plan, whole = rendered
    how = {"cohort": cohort, "generator": generator, "folder": tmp_path, **QUICK}
    append = Writer.append

    def full(self, *args, **kwargs):
        if self.parts:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, *args, **kwargs)

    monkeypatch.setattr(Writer, "append", full)
    with pytest.raises(
        Unwritable,
        match="No space left on device; 5 images of 32 px: .*Free some space.*resume=true",
    ):
        draw_plan(plan, **how)
    monkeypatch.undo()
    draw_plan(plan, **how)
    assert contents(tmp_path) == contents(whole.folder)


@pytest.fixture
def scarce(generator, monkeypatch):
    """The U-Net fits some rows only; what it was asked for is kept. Whatever is learnt of the
    memory is forgotten."""

    def patch(rows: int) -> list[int]:
        forward, tried = type(generator.base.unet).forward, []

        def limited(self, x, *args, **kwargs):
            tried.append(len(x))
            if len(x) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 18.00 GiB.")
            return forward(self, x, *args, **kwargs)

        monkeypatch.setattr(type(generator.base.unet), "forward", limited)
        return tried

    yield patch
    generator.base.drawing.most = None


def test_memory_that_is_too_small_for_a_batch_leaves_the_set_as_it_is_but_for_rounding(
    cohort, generator, rendered, tmp_path, scarce, capsys
):
    plan, whole = rendered
    tried = scarce(2)  # of an image, with guidance
    made = draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    out, err = capsys.readouterr()
    assert tried[0] == 4 and set(tried[1:]) == {2}
    assert "render: 5 images in " in err
    assert out.count("out of memory") == 1 and "2 images together; from now on 1" in out
    for name in BYTES:
        if name != "images.u8":
            assert (made.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert close(made.images, whole.images)


def test_memory_that_is_too_small_for_an_image_is_a_paragraph_and_loses_nothing(
    cohort, generator, rendered, tmp_path, scarce, monkeypatch
):
    plan, whole = rendered
    scarce(1)
    with pytest.raises(
        OutOfMemory,
        match="drawing images: out of memory with a single image on cpu. precision=bf16",
    ):
        draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path / "0", **QUICK)
    monkeypatch.undo()
    generator.base.drawing.most = None
    made = draw_plan(plan, cohort=cohort, generator=generator, folder=tmp_path / "0", **QUICK)
    for name in BYTES:
        assert (made.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_the_images_of_fig_3_and_4_come_in_the_batches_that_were_chosen(
    cohort, generator, tmp_path, scarce
):
    facts = {**generator.facts, "fields": ["sex", "age", "bmi", "diagnosis"]}
    tried = scarce(10**6)
    named = Generator(generator.base, generator.controlnet, facts)
    render_sweep(cohort, named, tmp_path, sampler=Sampler(steps=1), batch_size=3)
    assert Store.open(tmp_path).meta["settings"]["batch_size"] == 3 and max(tried) == 6
    assert not {"text"} & set(generator.base._loaded), "the text tower stays beside the U-Net"


def test_more_pixels_go_through_in_smaller_portions(cohort, generator, rendered, tmp_path, scarce):
    plan, whole = rendered
    tried = scarce(10**6)
    small = Generator(generator.base, generator.controlnet, generator.facts, budget=32**2)
    made = draw_plan(plan, cohort=cohort, generator=small, folder=tmp_path, **QUICK)
    assert set(tried) == {2} and close(made.images, whole.images)


@pytest.fixture(scope="module")
def trained(generator, tiny_base, tmp_path_factory):
    """The generator as the folder of a finished run."""
    run = tmp_path_factory.mktemp("run")
    facts = {"base": {"weights": str(tiny_base)}, "base_fingerprint": generator.base.fingerprint}
    save_generator(generator.controlnet, run / "controlnet", facts)
    runs.finish(run)
    return run


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "generator.json"])
def test_truncated_weights_name_the_run_and_the_remedy(trained, tmp_path, name):
    run = shutil.copytree(trained, tmp_path / "run")
    data = (run / "controlnet" / name).read_bytes()
    (run / "controlnet" / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(
        ValueError, match="generator=.*run: .*(truncated|damaged).*copy the run again"
    ):
        load_generator(run)


def work(plan, folder, log, how) -> None:
    """What a process does: render, noting each batch it begins."""
    images = Generator.images

    def noting(self, *args, **kwargs):
        with log.open("a") as file:
            file.write("batch\n")
        return images(self, *args, **kwargs)

    Generator.images = noting
    with (
        open(os.devnull, "w") as quiet,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        draw_plan(plan, folder=folder, **how)


def begun(log) -> int:
    return len(log.read_text().split()) if log.exists() else 0


def test_killed_at_any_moment_it_ends_with_the_same_bytes(cohort, generator, tmp_path):
    plan, rng = balanced(cohort.index, count=12), np.random.default_rng(0)
    how = {"cohort": cohort, "generator": generator, **QUICK}
    whole = contents(draw_plan(plan, folder=tmp_path / "whole", **how).folder)
    folder, log = tmp_path / "killed", tmp_path / "log"
    for _ in range(3):
        before, process = begun(log), PROCESSES.Process(target=work, args=(plan, folder, log, how))
        process.start()
        goal, end = before + rng.integers(1, 3), time.monotonic() + 120
        while begun(log) < goal and process.is_alive() and time.monotonic() < end:
            time.sleep(0.003)
        process.join(rng.uniform(0, 0.2))
        process.kill()
        process.join()
        assert process.exitcode in (-9, 0) and begun(log) > before
    drawn_before = begun(log)
    safe = len(list((folder / "parts").glob("*.parquet")))
    assert drawn_before - safe <= 3  # a kill loses one batch at most
    last = PROCESSES.Process(target=work, args=(plan, folder, log, how))
    last.start()
    last.join()
    assert (
        last.exitcode == 0 and contents(folder) == whole and begun(log) - drawn_before == 6 - safe
    )


@pytest.mark.slow  # seconds
def test_guidance_in_an_interval_is_part_of_the_settings(cohort, generator, rendered, tmp_path):
    plan, whole = rendered

    def drawn(name: str, guidance: float, **sampler):
        how = {
            "cohort": cohort,
            "generator": generator,
            **QUICK,
            "sampler": Sampler(steps=4, **sampler),
        }
        return draw_plan(Plan(plan.rows.assign(guidance=guidance)), folder=tmp_path / name, **how)

    some, none = drawn("some", 6.0, interval=(0, 0.5)), drawn("none", 6.0, interval=(0.5, 0.5))
    plain = drawn("plain", 1.0)
    assert np.array_equal(none.images, plain.images) and (some.images != none.images).any()
    assert some.meta["settings"]["interval"] == [0, 0.5]
    assert whole.meta["settings"]["interval"] == [0, 1]
    both = drawn("both", 6.0, guides="both")
    assert both.meta["settings"]["guides"] == "both" and (both.images != whole.images).any()


@pytest.fixture
def calls(generator, monkeypatch):
    """The rows of each forward of the ControlNet, the U-Net's deepest block and the text tower."""
    counts = {"controlnet": [], "deep": [], "text": []}
    networks = {"controlnet": generator.controlnet, "deep": generator.base.unet.mid_block}
    hooks = [
        network.register_forward_hook(
            lambda _, inputs, __, name=name: counts[name].append(len(inputs[0]))
        )
        for name, network in networks.items()
    ]
    embed = generator.base.embed
    monkeypatch.setattr(
        generator.base, "embed", lambda words: (counts["text"].append(words), embed(words))[1]
    )
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.fixture
def request_of(cohort):
    def some(guidance: list[float]) -> dict:
        rows = balanced(cohort.index, count=len(guidance)).rows
        masks = torch.from_numpy(cohort.masks[rows.source_row.to_numpy()])
        return {
            "masks": masks,
            "prompts": rows.prompt.tolist(),
            "seeds": rows.seed.tolist(),
            "guidance": guidance,
        }

    return some


def test_only_the_forwards_that_count_are_made(generator, request_of, calls):
    generator.images(**request_of([1.0, 2.0, 1.0]), sampler=Sampler(steps=2))
    assert calls["controlnet"] == calls["deep"] == [4, 4]  # one row has an unconditional half
    generator.images(**request_of([2.0, 2.0]), sampler=Sampler(steps=4, interval=(0, 0.5)))
    assert calls["deep"][2:] == [4, 4, 2, 2]
    generator.images(**request_of([2.0, 1.0]), sampler=Sampler(steps=1, guides="both"))
    assert calls["controlnet"].pop() == 2 and calls["deep"].pop() == 3
    generator.images(**request_of([2.0, 2.0]), strength=0.0, sampler=Sampler(steps=2))
    assert calls["controlnet"][2:] == calls["deep"][2:6] and calls["deep"][6:] == [4, 4]


def test_a_prompt_is_embedded_once(generator, request_of, calls):
    words = dict.fromkeys([*request_of([2.0] * 3)["prompts"], "something new"])
    generator.base.contexts.clear()
    for _ in range(2):
        generator.images(
            **{**request_of([2.0] * 3)}, negatives=["something new"] * 3, sampler=Sampler(steps=1)
        )
    assert sorted(map(tuple, calls["text"])) == sorted((word,) for word in words)


def test_reused_features_save_forwards_and_leave_the_networks_as_they_were(generator, request_of):
    asked, begun = request_of([2.0, 2.0]), []
    plain = generator.images(**asked, sampler=Sampler(steps=4)).int()
    forward = generator.base.unet.mid_block.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            generator.base.unet.mid_block,
            "forward",
            lambda *a, **k: (begun.append(1), forward(*a, **k))[1],
        )
        again = generator.images(**asked, sampler=Sampler(steps=4, reuse=2)).int()
        assert len(begun) == 2
        generator.images(**asked, sampler=Sampler(steps=4, interval=(0, 0.5), reuse=2))
        assert len(begun) == 4
    assert (again != plain).any() and (again - plain).abs().float().mean() < plain.float().std()
    assert torch.equal(generator.images(**asked, sampler=Sampler(steps=4)).int(), plain)
    assert "forward" not in vars(generator.controlnet) and "forward" not in vars(
        generator.base.unet.up_blocks[0]
    )


@pytest.mark.slow
def test_compiled_networks_draw_the_same_without_compiling_again(generator, request_of):
    from torch._dynamo.utils import counters

    compiled, asked = copy.deepcopy(generator), request_of([2.0, 2.0])
    plain = compiled.images(**asked, sampler=Sampler(steps=2))
    assert compiled.compile(backend="eager").compiled and not generator.compiled
    graphs = []
    for _ in range(2):
        assert torch.equal(compiled.images(**asked, sampler=Sampler(steps=2)), plain)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs == [2, 2] and not counters["graph_break"]
