"""From a plan to a set: the same bytes whatever interrupts it, and only from this cohort's training subjects."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from cmrdata.manifest import PROVENANCE, open_synthetic
from cmrdata.readers.phantom import Phantom
from cmrdata.store import Store, prepare
from cmrgen.plan import balanced
from cmrgen.render import Generator, render

few = settings(max_examples=6, deadline=None)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Store:
    small = Phantom(subjects=200, hf_scale=20, pixels=32, controls_per_case=0.3)
    return prepare(small, tmp_path_factory.mktemp("cohort"), workers=1)


@pytest.fixture(scope="module")
def generator(tiny_base) -> Generator:
    from cmrgen.module import ControlNetModule

    torch.manual_seed(1)
    module = ControlNetModule(base={"weights": str(tiny_base)})
    return Generator(base=module.base, controlnet=module.controlnet.eval(), facts={"fingerprint": "made up"})


QUICK = {"sampler": "unipc", "steps": 2, "batch_size": 2}
BYTES = ("images.u8", "masks.u8", "index.parquet", "plan.csv", "store.json", "settings.json")


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    return plan, render(plan, cohort=cohort, generator=generator, folder=folder, **QUICK)


def test_a_set_carries_its_provenance_and_is_accepted(cohort, rendered):
    plan, made = rendered
    assert set(PROVENANCE) <= set(made.index.columns)
    assert (
        (made.index.sampler == "unipc").all()
        and (made.index.steps == 2).all()
        and (made.index.split == "synthetic").all()
    )
    pd.testing.assert_frame_equal(made.index[plan.columns], plan, check_dtype=False)
    assert np.array_equal(made.masks, cohort.masks[plan.source_row.to_numpy()])
    assert made.images.shape == (5, 2, 32, 32) and len({image.tobytes() for image in made.images}) == 5
    assert made.meta["missing_groups"] == plan.attrs["missing"]
    assert open_synthetic(made.folder, cohort).fingerprint == made.fingerprint
    kept = pd.read_csv(made.folder / "plan.csv").fillna({"conditions": ""})
    pd.testing.assert_frame_equal(kept, plan, check_dtype=False)


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_interrupted_set_continues_to_the_same_bytes(
    cohort, generator, rendered, tmp_path, stop_after, monkeypatch, batches
):
    plan, whole = rendered
    stop_after(batches)
    with pytest.raises(Stopped):
        render(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    monkeypatch.undo()
    assert not Store(tmp_path).complete
    with pytest.raises(FileNotFoundError, match="generate.py"):
        open_synthetic(tmp_path, cohort)
    drawn = stop_after(99)
    made = render(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    assert len(drawn) == 3 - batches  # nothing is drawn twice
    for name in BYTES:
        assert (made.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_bytes_torn_by_a_kill_are_dropped(cohort, generator, rendered, tmp_path, stop_after, monkeypatch):
    plan, whole = rendered
    stop_after(1)
    with pytest.raises(Stopped):
        render(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
    monkeypatch.undo()
    for name in ("images.u8", "masks.u8"):
        with open(tmp_path / name, "ab") as file:
            file.write(b"torn" * 100)
    render(plan, cohort=cohort, generator=generator, folder=tmp_path, **QUICK)
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
            render(plan, cohort=cohort, generator=generator, folder=folder, **QUICK)
        monkeypatch.undo()
    before = contents(folder)
    other = {
        "plan": {"plan": balanced(cohort.index, count=6, seed=1)},
        "steps": {"steps": 3},
        "generator": {"generator": Generator(generator.base, generator.controlnet, {"fingerprint": "another"})},
    }[change]
    drawn = stop_after(0)
    with pytest.raises(ValueError, match=f"begun with other settings .*{change}"):
        render(**{"plan": plan, "generator": generator, **QUICK, **other}, cohort=cohort, folder=folder)
    assert contents(folder) == before and not drawn


def test_a_finished_set_is_not_drawn_again(cohort, generator, rendered, stop_after):
    plan, whole = rendered
    drawn, before = stop_after(0), contents(whole.folder)
    assert (
        render(plan, cohort=cohort, generator=generator, folder=whole.folder, **QUICK).fingerprint == whole.fingerprint
    )
    assert not drawn and contents(whole.folder) == before


def test_nothing_is_written_for_a_plan_that_leaks(cohort, generator, tmp_path):
    stray = cohort.index[cohort.index.split == "test"].iloc[0]
    plan = balanced(cohort.index, count=3).assign(subject=stray.subject, source_row=stray.name)
    with pytest.raises(ValueError, match="test split"):
        render(plan, cohort=cohort, generator=generator, folder=tmp_path / "set", **QUICK)
    assert not (tmp_path / "set").exists()


def test_a_set_of_another_cohort_is_refused(cohort, rendered, tmp_path):
    other = prepare(Phantom(subjects=40, hf_scale=20, pixels=32, seed=3, controls_per_case=0.3), tmp_path, workers=1)
    with pytest.raises(ValueError, match="made from another cohort"):
        open_synthetic(rendered[1].folder, other)
