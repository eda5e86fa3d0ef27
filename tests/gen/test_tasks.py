"""What the generator's experiments tell of themselves and hand on, with stand-ins for trainings and
drawings."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from cmrgen import tasks
from cmrgen.plan.rows import Plan
from support.fake_index import balanced, fake_index, fake_people


class Run:
    """An experiment at work, as its function sees it."""

    def __init__(self, folder: Path, cfg: dict[str, Any], parts: dict[str, Any] | None = None):
        self.folder, self.cfg, self.leads = folder, OmegaConf.create(cfg), True
        self.parts, self.used, self.boards = parts or {}, [], []

    def build(self, part: Any, **options: Any) -> Any:
        made = self.parts[part.name]
        return made(**options) if callable(made) else made

    def uses(self, name: str, **what: Any) -> None:
        self.used.append((name, what))

    def board(self, name: str, table: pd.DataFrame) -> None:
        self.boards.append((name, list(table)))


@pytest.fixture(scope="module")
def index() -> pd.DataFrame:
    return fake_index(fake_people())


def store_of(index: pd.DataFrame, **settings: Any) -> Any:
    return SimpleNamespace(
        folder=Path("data/fake-1234"),
        fingerprint="c0ffee",
        meta={"pixels": 32, "settings": settings},
        index=index,
        images=np.zeros((len(index), 2, 1, 1), np.uint8),
    )


def test_what_a_generator_must_know_of_its_cohort(index):
    facts = {"cohort": "fake-1234", "cohort_fingerprint": "c0ffee", "pixels": 32}
    assert tasks.facts_of_cohort(store_of(index, fov_mm=160)) == {**facts, "fov_mm": 160}
    assert tasks.facts_of_cohort(store_of(index)) == {**facts, "fov_mm": None}


def test_draws_are_told_by_the_first_process_of_a_training(tmp_path, index, capsys):
    run = Run(tmp_path, {"data": {"max_repeats": 3.0}})
    tasks.tell_draws(run, index[:0])
    run.leads = False
    tasks.tell_draws(run, index)
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out
    run.leads = True
    tasks.tell_draws(run, index)
    draws = pd.read_csv(tmp_path / "draws.csv")
    assert list(draws) == ["group", "subjects", "images", "uncapped", "draws", "share"]
    assert draws.draws.max() == 3 < draws.uncapped.max() and draws.images.sum() == len(index)
    assert "at most 3 (data.max_repeats" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["ckpt_path", "weights"])
def test_a_base_starts_from_nothing(tmp_path, given):
    run = Run(tmp_path, {"ckpt_path": None, "weights": None, given: "x"})
    with pytest.raises(ValueError, match="it takes no ckpt_path and no weights"):
        tasks.train_base(run)


@pytest.mark.parametrize("recorded", [None, "phantom", "ukbb"])
def test_a_generator_of_another_cohort_is_refused_where_that_is_known(monkeypatch, recorded):
    monkeypatch.setattr(tasks.by_base, "recorded", lambda run: {"cohort": recorded})
    cfg = OmegaConf.create({"generator": "runs/x/0", "cohort": {"name": "phantom"}})
    if recorded == "ukbb":
        with pytest.raises(ValueError, match="trained on cohort ukbb, and this command's is phan"):
            tasks.check_generator(cfg)
    else:
        tasks.check_generator(cfg)


class Attempt:
    def __enter__(self) -> str:
        return "limits"

    def __exit__(self, *_: object) -> None:
        pass


def test_a_trained_base_says_what_it_was_made_of(tmp_path, index, monkeypatch):
    store = store_of(index, fov_mm=160)
    images = {"splits": ["train", "extra"], "batch_size": 4, "autoencoder_batch_size": 8}
    images |= {"fields": ["sex"], "copies": 2, "max_repeats": 5.0, "workers": 0, "val_images": 9}
    cfg = {
        **{"ckpt_path": None, "weights": None, "data_root": "data", "seed": 7, "channels": "even"},
        **{"cohort": {"name": "cohort"}, "data": images},
        "model": {"autoencoder": {"name": "autoencoder"}, "unet": {"name": "unet"}},
    }
    told: dict[str, Any] = {}

    def autoencoder(*, augment: bool) -> Any:
        told["augment"] = augment
        return SimpleNamespace(hparams=SimpleNamespace(steps=20), vae="vae")

    def unet(*, latent: int) -> Any:
        told["latent"] = latent
        return SimpleNamespace(
            hparams=SimpleNamespace(steps=30),
            average="average",
            setup_base=lambda base: told.update(set_up=base),
        )

    cohort = SimpleNamespace(pixels=32, name="phantom")
    run: Any = Run(tmp_path, cfg, {"cohort": cohort, "autoencoder": autoencoder, "unet": unet})
    run.attempt = Attempt

    def fit(module: Any, data: Any, limits: str, *, folder: Path, most: int) -> Any:
        assert limits == "limits"
        told[folder.name] = (most, data)
        return SimpleNamespace(global_step=most - 1), {f"{folder.name} loss": 0.5}

    run.fit = fit

    def assemble(vae: str, unet: str, text: Any, **how: Any) -> str:
        told["assembled"] = (vae, unet, text, how.pop("images").shape, how)
        return "frozen"

    def save_base(base: str, folder: Path, *, text_config: Any) -> None:
        folder.mkdir()
        told["saved"] = (base, text_config)

    monkeypatch.setattr(tasks, "prepare", lambda cohort, root: store)
    monkeypatch.setattr(tasks, "Latents", lambda **how: how)
    monkeypatch.setattr(tasks.small_base, "StoreImages", lambda store, **how: how)
    monkeypatch.setattr(tasks.small_base, "assemble", assemble)
    monkeypatch.setattr(tasks.small_base, "text_tower", lambda seed: f"tower {seed}")
    monkeypatch.setattr(tasks, "save_base", save_base)
    monkeypatch.setattr(tasks, "weights_hash", lambda folder: f"hash of {folder.name}")
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=base"])
    state = torch.get_rng_state()
    facts = tasks.train_base(run)
    assert torch.initial_seed() == 7
    torch.set_rng_state(state)
    trained = int(index.split.isin(["train", "extra"]).sum())
    assert facts == {
        **{"command": "train.py experiment=base", "seed": 7, "cohort": "fake-1234"},
        **{"cohort_fingerprint": "c0ffee", "pixels": 32, "fov_mm": 160},
        **{"training images": trained, "channels": "even", "autoencoder loss": 0.5},
        **{"unet loss": 0.5, "autoencoder_steps": 19, "unet_steps": 29},
        "base_fingerprint": "hash of base",
    }
    card = (tmp_path / "base" / "README.md").read_text()
    assert card.startswith("# Latent diffusion base trained on phantom\n")
    assert f"| training images | {trained} |" in card
    assert told["augment"] is True and told["latent"] == 8 and told["set_up"] == "frozen"
    step = len(index) // 512
    assert told["assembled"] == (
        *("vae", "average", "tower 7", (-(-len(index) // step), 2, 1, 1)),
        {"pixels": 32, "channels": "even"},
    )
    steps, shown = told["autoencoder"]
    assert steps == 20 and shown == {
        **{"splits": ["train", "extra"], "steps": 20, "batch_size": 8, "seed": 7},
        **{"max_repeats": 5.0, "workers": 0},
    }
    steps, latents = told["unet"]
    assert steps == 30 and latents.pop("base") == "frozen" and latents.pop("cohort") is cohort
    assert latents == {
        **{"root": "data", "batch_size": 4, "splits": ["train", "extra"], "fields": ["sex"]},
        **{"copies": 2, "max_repeats": 5.0, "seed": 7, "workers": 0, "val_images": 9},
    }
    assert run.used == [("cohort", {"fingerprint": "c0ffee", "at": Path("data/fake-1234")})]
    # the other processes of a training write nothing
    (tmp_path / "second").mkdir()
    run.leads, run.folder = False, tmp_path / "second"
    images["copies"] = 1
    run.cfg.data.copies = 1
    assert tasks.train_base(run) == {} and not list(run.folder.iterdir())
    assert told["augment"] is False
    # of a small cohort every image, as before
    store.images = store.images[:600]
    tasks.train_base(run)
    assert told["assembled"][3] == (600, 2, 1, 1)


def test_a_shared_set_says_what_was_written(tmp_path, index, monkeypatch):
    given: dict[str, Any] = {}

    def publish(synthetic: Any, folder: Path, *, formats: list[str], audit: str | None) -> Any:
        given.update(formats=formats, audit=audit)
        return [folder / name for name in formats]

    monkeypatch.setattr(tasks.Store, "open", lambda folder: store_of(index[:5]))
    monkeypatch.setattr(tasks, "publish_set", publish)
    learnt: list[Any] = []
    monkeypatch.setattr(tasks, "learn_axes", learnt.append)
    run: Any = Run(tmp_path, {"synthetic_set": "set", "formats": ["png", "nifti"], "audit": "a"})
    assert tasks.share_set(run) == {
        **{"set": "c0ffee", "images": 5},
        "folders": [str(tmp_path / "png"), str(tmp_path / "nifti")],
    }
    assert given == {"formats": ["png", "nifti"], "audit": "a"} and learnt == [run.cfg]
    assert run.used == [("synthetic_set", {"fingerprint": "c0ffee", "at": "set"})]


class Drawing:
    """generate.py's task with stand-ins; what it asks for and leaves."""

    def __init__(self, folder: Path, index: pd.DataFrame, patch: pytest.MonkeyPatch) -> None:
        self.index, self.finished, self.asked, self.recorded = index, [], {}, []
        self.cohort, self.checked = store_of(index), []
        cfg = {
            **{"generator": "runs/x/0", "data_root": "data", "precision": "32-true"},
            **{"compile": False, "images": True, "batch_size": 4, "sampler": {"name": "sampler"}},
            **{"cohort": {"name": "cohort"}, "base": {"weights": "w"}, "plan": {"name": "plan"}},
        }

        def plan(**how: Any) -> Any:
            assert how == {"_partial_": True}
            return lambda index, fields: Plan(balanced(index, count=12), ["gone"], ["thin"])

        self.run: Any = Run(
            folder, cfg, {"sampler": "a sampler", "cohort": "a cohort", "plan": plan}
        )
        self.generator = SimpleNamespace(
            base=SimpleNamespace(pixels=32),
            facts={"fingerprint": "f00d", "fields": ["sex"]},
            compile=lambda: self.asked.update(compiled=True),
        )
        made = SimpleNamespace(index=index[:11], fingerprint="5e7")
        for name, stand_in in {
            "facts_of": lambda run: {"of": run},
            "check_generator": lambda cfg: self.checked.append(cfg),
            "prepare": lambda cohort, root: self.cohort,
            "check_cohort": lambda *given, named: self.checked.append((*given, named)),
            "load_generator": self.load,
            "make_plan": lambda recipe, cohort, fields: recipe(cohort.index, fields),
            "kind_at": lambda run: "controlnet",
            "seed_at": lambda run: 3,
            "render_shards": lambda plan, **how: self.asked.update(how) or made,
            "render_sweep": lambda *_, **how: self.asked.update(sweep=how),
        }.items():
            patch.setattr(tasks, name, stand_in)
        patch.setattr(tasks.runs, "uses", lambda *of, **how: self.recorded.append((of[1:], how)))
        patch.setattr(tasks.runs, "finish", lambda folder, **how: self.finished.append(how))

    def load(self, run: str, *, base_weights: str, precision: str) -> Any:
        assert (run, base_weights, precision) == ("runs/x/0", "w", "32-true")
        return self.generator

    def draw(self, **launched: Any) -> None:
        usual = {"first": True, "processes": 1, "device": "cpu", "shard": "0/1"}
        tasks.draw_set(self.run, SimpleNamespace(**{**usual, **launched}))


def test_a_drawn_set_is_finished_before_its_figures_and_after(tmp_path, index, monkeypatch, capsys):
    drawing = Drawing(tmp_path, index, monkeypatch)
    drawing.draw()
    first, last = drawing.finished
    assert first.pop("left") == tasks.FIGURES and first == last
    groups = last.pop("groups")
    assert sum(group["images"] for group in groups) == 12
    assert last == {
        **{"images": 11, "generator": "runs/x/0", "fingerprint": "5e7"},
        **{"missing_groups": ["gone"], "thin_groups": ["thin"]},
    }
    how = {"batch_size": 4, "device": "cpu", "sampler": "a sampler"}
    assert drawing.asked.pop("sweep") == how
    assert {key: drawing.asked[key] for key in how} == how and "compiled" not in drawing.asked
    assert drawing.asked["shard"] == "0/1" and drawing.run.boards == [
        ("groups", ["group", "images"])
    ]
    assert drawing.recorded == [
        (("cohort",), {"fingerprint": "c0ffee", "at": Path("data/fake-1234")}),
        (
            ("generator",),
            {"fingerprint": "f00d", "at": "runs/x/0", "kind": "controlnet", "seed": 3},
        ),
    ]
    # before gigabytes of weights
    generator = {"of": "runs/x/0"}, drawing.cohort, "generator=runs/x/0"
    assert drawing.checked == [drawing.run.cfg, generator]
    said = capsys.readouterr().out
    assert tasks.COMPILES not in said
    assert said.startswith("plan: 12 images over ") and said.endswith(f"{tmp_path}: 11 images\n")


def test_networks_are_compiled_and_the_first_process_says_so(tmp_path, index, monkeypatch, capsys):
    for first in (True, False):
        drawing = Drawing(tmp_path, index, monkeypatch)
        drawing.run.cfg.compile = True
        drawing.draw(first=first, wait=lambda done: None)
        assert drawing.asked["compiled"]
        assert (tasks.COMPILES in capsys.readouterr().out) is first


def test_a_trained_controlnet_says_what_it_learnt_from(tmp_path, index, monkeypatch, capsys):
    store, told, asked = store_of(index, fov_mm=160), [], {}
    trained = index[index.split == "train"]
    table = pd.concat([trained, index[index.split == "val"]], ignore_index=True)
    table["bmi"] = np.nan
    data = SimpleNamespace(
        training=trained, table=table, train_rows=np.flatnonzero(table.split == "train")
    )
    module = SimpleNamespace(base=SimpleNamespace(pixels=64, fingerprint="ba5e"), best="best")

    def latents(*, _partial_: bool) -> Any:
        return lambda base: asked.update(base=base) or data

    cfg = {
        **{"data_root": "data", "cohort": {"name": "cohort"}, "sampler": {"name": "sampler"}},
        "data": {"name": "data", "fields": ["sex", "bmi"], "max_repeats": 3.0},
        "model": {"name": "model", "base": {"weights": "${base.weights}"}},
        "base": {
            **{"load": {"weights": "w", "kind": "sd21"}, "frame": {"pixels": 512}},
            **{"weights": "w", "drawing": {"steps": 8, "same": "${base.weights}"}},
        },
        "logger": {"allow_real_images": True},
    }
    parts = {"cohort": "a cohort", "sampler": "a sampler", "model": module, "data": latents}
    run: Any = Run(tmp_path, cfg, parts)
    run.attempt = Attempt

    def fit(*given: Any, callbacks: list[Any], start_from: Any) -> Any:
        asked.update(given=given, callbacks=callbacks, start_from=start_from)
        return "trainer", {"val_loss": 0.5}

    run.fit = fit
    monkeypatch.setattr(tasks, "check_base", lambda **load: asked.update(checked=load))
    monkeypatch.setattr(tasks, "prepare", lambda cohort, root: store)
    monkeypatch.setattr(tasks.scale, "for_a_base", lambda *sides, own: (*sides, own))
    monkeypatch.setattr(tasks.scale, "tell", told.append)
    monkeypatch.setattr(tasks, "PreviewGrid", lambda folder, **how: (folder, how))
    saved: list[Any] = []
    monkeypatch.setattr(tasks, "save_generator", lambda *given: saved.append(given) or "f00d")
    monkeypatch.setattr(sys, "argv", ["train.py", "experiment=controlnet"])
    facts = tasks.train_controlnet(run)
    assert facts.pop("fingerprint") == "f00d" and saved == [
        ("best", tmp_path / "controlnet", facts)
    ]
    assert facts == {
        **{"val_loss": 0.5, "cohort": "fake-1234", "cohort_fingerprint": "c0ffee", "pixels": 32},
        **{"fov_mm": 160, "drawing": {"steps": 8, "same": "w"}, "base": {"weights": "w"}},
        **{"base_fingerprint": "ba5e", "command": "train.py experiment=controlnet"},
        "fields": ["sex"],  # nobody's BMI is known
        "groups": trained.groupby("group").subject.nunique().to_dict(),
        **{"training_images": len(trained), "max_repeats": 3.0},
    }
    assert run.used == [
        ("cohort", {"fingerprint": "c0ffee", "at": Path("data/fake-1234")}),
        ("base.weights", {"fingerprint": "ba5e", "at": "w"}),
    ]
    assert asked["checked"] == {"weights": "w", "kind": "sd21"} and asked["base"] is module.base
    assert asked["given"] == (module, data, "limits") and asked["start_from"] is tasks.start_from
    preview = {"sampler": "a sampler", "allow_real_images": True}
    assert asked["callbacks"] == [(tmp_path / "previews", preview)]
    assert told == [(32, 64, 512)] and (tmp_path / "draws.csv").exists()
    run.leads, run.cfg.logger.allow_real_images = False, None
    assert tasks.train_controlnet(run) == {} and len(saved) == len(told) == 1
    assert asked["callbacks"][0][1]["allow_real_images"] is False


def test_a_plan_alone_is_written_and_nothing_drawn(tmp_path, index, monkeypatch, capsys):
    drawing = Drawing(tmp_path, index, monkeypatch)
    drawing.run.cfg.images = False
    drawing.draw()
    assert len(pd.read_csv(tmp_path / "plan.csv")) == 12 and not drawing.finished
    assert "images=true resume=true draws it" in capsys.readouterr().out
    assert not drawing.asked


def test_the_other_processes_of_a_set_say_and_finish_nothing(tmp_path, index, monkeypatch, capsys):
    drawing = Drawing(tmp_path, index, monkeypatch)
    drawing.run.cfg.compile = True
    drawing.draw(first=False, processes=2, shard="1/2")
    assert drawing.asked["compiled"] and drawing.asked["shard"] == "1/2"
    assert not drawing.finished and not drawing.recorded
    assert not capsys.readouterr().out
    drawing.draw()
    assert f"{tasks.COMPILES}\n" in capsys.readouterr().out


def test_the_first_process_waits_for_the_others_and_joins_them(tmp_path, index, monkeypatch):
    drawing, waited = Drawing(tmp_path, index, monkeypatch), []
    merged = SimpleNamespace(index=index[:12], fingerprint="a11")
    monkeypatch.setattr(tasks, "finished_all", lambda folder, n: (folder, n) == (tmp_path, 2))
    monkeypatch.setattr(tasks, "merge", lambda folder, n: merged if n == 2 else None)
    drawing.draw(processes=2, shard="0/2", wait=lambda until: waited.append(until()))
    assert waited == [True] and drawing.finished[-1]["fingerprint"] == "a11"


def test_a_shard_that_is_not_the_last_says_so(tmp_path, index, monkeypatch, capsys):
    drawing = Drawing(tmp_path, index, monkeypatch)
    monkeypatch.setattr(tasks, "render_shards", lambda plan, **how: None)
    drawing.draw(shard="2/3")
    assert "shard 2/3 is finished; the last one joins them" in capsys.readouterr().out
    assert not drawing.finished


def test_figures_that_fail_leave_the_set_finished_but_for_them(
    tmp_path, index, monkeypatch, capsys
):
    drawing = Drawing(tmp_path, index, monkeypatch)

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(tasks, "render_sweep", fail)
    with pytest.raises(MemoryError):
        drawing.draw()
    assert [how.get("left") for how in drawing.finished] == [tasks.FIGURES]
    assert "11 images, finished, but for the images of Fig. 3 and 4" in capsys.readouterr().out


@pytest.mark.parametrize("pixels", [32, 31])
def test_a_base_smaller_than_the_pictures_is_told(tmp_path, index, monkeypatch, pixels):
    drawing, told = Drawing(tmp_path, index, monkeypatch), []
    drawing.generator.base.pixels = pixels
    monkeypatch.setattr(tasks.scale, "tell", told.append)
    monkeypatch.setattr(tasks.scale, "for_a_base", lambda side, base, *, own: (side, base, own))
    drawing.draw()
    assert told == ([] if pixels == 32 else [(32, 31, 32)])


def test_an_export_says_where_and_of_what(tmp_path, monkeypatch):
    generator = SimpleNamespace(facts={"fingerprint": "f00d", "command": "python train.py"})
    given: dict[str, Any] = {}

    def export(made: Any, folder: Path, **how: Any) -> Path:
        given.update(how)
        return folder

    monkeypatch.setattr(tasks, "load_generator", lambda run, *, base_weights: generator)
    monkeypatch.setattr(tasks, "export", export)
    monkeypatch.setattr(tasks.runs, "facts", lambda folder: {"val_loss": 0.5, "of": str(folder)})
    cfg = {"generator": "runs/x/0", "base": {"weights": None}, "parts": "pipeline"}
    run: Any = Run(tmp_path, {**cfg, "sampler": {"name": "sampler"}}, {"sampler": "a sampler"})
    assert tasks.export_generator(run) == {
        "model": str(tmp_path / "model"),
        "generator": "f00d",
    }
    assert given == {
        **{"command": "python train.py", "parts": "pipeline", "sampler": "a sampler"},
        "metrics": {"val_loss": 0.5, "of": "runs/x/0"},
    }
    assert run.used == [("generator", {"fingerprint": "f00d", "at": "runs/x/0"})]
