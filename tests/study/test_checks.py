"""Wrong values of settings: told in one paragraph by the setting's name, with what it takes, before
anything begins."""

from __future__ import annotations

import re
import sys
from copy import deepcopy
from fnmatch import fnmatchcase
from unittest.mock import patch

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cmrdata.axes import AXES
from cmrstudy import checks, commands, jobs
from support import ROOT

CONF = ROOT / "conf"
TRAINED = ("classifier", "controlnet", "base")
FREE = (  # settings that are not checked by their value alone, and why
    "task",
    "trains",
    "settle",
    "score",
    "name",
    "unused",
    "run_dir",
    "data_root",
    "synthetic_set",
    "generator",
    "classifier*",
    "weights",
    "ckpt_path",
    # names, paths
    "input.*",
    "mitigation.name",
    "arms",
    "baseline",
    "axes",
    "audit*",
    "backbones.*",
    "base.*",
    "shard",
    "stale",
    "logger.*",
    "logger",
    "callbacks",
    "debug",
    "local",
    "preset.*",
    "cohort.*._target_",
    "*._target_",
    "*._convert_",
    "cohort.name",
    "cohort.root",
    "cohort.table",
    "plan.path",
    "data.cohort",
    "data.root",
    "data.synthetic_set",
    "data.synthetic",
    "data.budget",
    "data.labels",
    "data.sampling",
    "model.base",
    "model.memory",
    "precision",
    # told by who uses them
    "sampler.interval",
    "plan.guidance",
    "plan.negative",
    "model.unet._target_",
    "trainer.accelerator",
    "trainer.strategy",
    "trainer.precision",
    "trainer.max_time",
    "trainer.val_check_interval",
    # told by cmrstudy.training, cmrstudy.attempts or Lightning
    "trainer.profiler",
    "trainer.callbacks",
)


def composed(command: str, *given: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(given))


@pytest.fixture(scope="module")
def usual() -> dict[str, DictConfig]:
    """Command or experiment -> its config: composed once, copied by whoever changes it."""
    configs = {name: composed("train", f"experiment={name}") for name in TRAINED}
    configs |= {name: composed(name) for name in ("generate", "evaluate")}
    for choice in ("mitigation=groupdro", "mitigation=thresholds"):
        configs[choice] = composed("train", "experiment=classifier", choice)
    return configs


WRONG = [  # experiment or command, setting, value as typed, what the message says that it takes
    *[
        (task, "seed", value, "a whole number from 0 to 4294967295")
        for task in (*TRAINED, "generate", "evaluate")
        for value in ("-1", "abc", "1.5", "4294967296", "null", "true")
    ],
    *[
        (task, "fold", value, "a whole number from 0 to 4, or null")
        for task in ("classifier", "evaluate")
        for value in ("5", "-1", "a")
    ],
    ("classifier", "resume", "maybe", "auto, true or false"),
    ("classifier", "overwrite", "1", "true or false"),
    ("classifier", "stale", "use", "keep, or null"),
    ("classifier", "checkpoint.minutes", "0", "a number above 0, or null"),
    ("classifier", "checkpoint.steps", "-1", "a whole number of at least 1, or null"),
    ("classifier", "synthetic", "-5", "a number of images (0 for none), or only"),
    ("classifier", "synthetic", "all", "or only"),
    ("classifier", "synthetic", "1.5", "a number of images"),
    (
        "classifier",
        "labels",
        "hf",
        "a list of one or more of hf, mi, ihd, af, each once, such as [hf]",
    ),
    ("classifier", "labels", "[hf,hf]", "each once"),
    ("classifier", "labels", "[]", "a list of one or more"),
    ("classifier", "budget", "time", "epochs or steps"),
    *[
        ("classifier", "data.batch_size", value, "a whole number of at least 1")
        for value in ("0", "-1", "many", "null", "6.5")
    ],
    ("classifier", "data.images_per_epoch", "0", "at least 1, or null (one pass over the images)"),
    ("classifier", "data.workers", "-1", "a whole number of at least 0"),
    ("classifier", "data.workers", "auto", "a whole number of at least 0"),
    *[
        ("classifier", "model.lr", value, "a number of at least 0")
        for value in ("-1e-4", "fast", "null", "nan", "inf")
    ],
    ("classifier", "preset.classifier_lr", "-1", "as model.lr it takes a number"),
    (
        "classifier",
        "preset.classifier_epochs",
        "0",
        "as trainer.max_epochs it takes a whole number of at least 1",
    ),
    ("classifier", "model.weight_decay", "-1", "a number of at least 0"),
    ("classifier", "model.width", "0", "a whole number of at least 1"),
    ("classifier", "model.pixels", "-224", "a whole number of at least 1"),
    ("classifier", "model.normalisation", "imagenet", "auto, or [mean, sd]"),
    ("classifier", "model.normalisation", "[0.5,0]", "auto, or [mean, sd]"),
    ("classifier", "model.plateau_patience", "0", "at least 1"),
    ("classifier", "model.flips", "1.5", "a number from 0 to 1"),
    ("classifier", "model.noise_std", "-0.1", "a number of at least 0"),
    ("classifier", "model.backbone", "18", "a network's name"),
    ("classifier", "model.weights", "3", "imagenet (videos: kinetics), a file of weights, or null"),
    ("mitigation=groupdro", "mitigation.loss.eta", "0", "a number above 0"),
    ("mitigation=thresholds", "mitigation.after.attribute", "age", "sex or age_band or bmi_band"),
    ("mitigation=thresholds", "mitigation.after.constraint", "parity", "equalized_odds or"),
    ("classifier", "mitigation.sampling", "balanced", "a class as _target_, with its settings"),
    ("classifier", "mitigation.loss", "groupdro", "choose a whole one by mitigation="),
    ("classifier", "mitigation.after", "null", "a class as _target_"),
    ("classifier", "model.compile", "1", "true or false"),
    ("classifier", "cohort.pixels", "0", "a whole number of at least 8"),
    ("classifier", "cohort.subjects", "-3", "a whole number of at least 1"),
    ("classifier", "cohort.fov_mm", "0", "a number above 0"),
    ("classifier", "cohort.hf_scale", "big", "a number above 0"),
    ("classifier", "cohort.cine", "1", "a whole number of at least 2, or null (ED and ES)"),
    ("classifier", "cohort.seed", "-1", "a whole number from 0"),
    ("classifier", "trainer.max_epochs", "-3", "at least 1, or -1"),
    ("classifier", "trainer.max_epochs", "ten", "at least 1, or -1"),
    ("classifier", "trainer.max_steps", "0", "at least 1, or null"),
    ("classifier", "trainer.accumulate_grad_batches", "0", "at least 1"),
    ("classifier", "trainer.gradient_clip_val", "-1", "a number of at least 0, or null"),
    ("classifier", "trainer.gradient_clip_algorithm", "median", "norm or value, or null"),
    ("classifier", "trainer.limit_train_batches", "-2", "a number of batches, or a share"),
    ("classifier", "trainer.limit_val_batches", "1.5", "a number of batches, or a share"),
    ("classifier", "trainer.devices", "0", "a number of devices, -1 for all"),
    ("classifier", "trainer.num_nodes", "0", "at least 1"),
    ("classifier", "trainer.deterministic", "yes please", "true, false, warn, or null"),
    ("classifier", "trainer.fast_dev_run", "0.5", "true, false, a number of batches, or null"),
    ("controlnet", "model.lr", "-1", "a number of at least 0"),
    ("controlnet", "base.control.lr", "-1", "as model.lr it takes"),
    ("controlnet", "model.ema", "1", "a number from 0 (no average) to below 1"),
    ("controlnet", "model.gamma", "0", "a number above 0, or null"),
    ("controlnet", "model.prompt_dropout", "2", "a number from 0 to 1"),
    ("controlnet", "model.warmup", "-1", "at least 0"),
    ("controlnet", "data.splits", "[test]", "a list of one or more of train, extra"),
    ("controlnet", "data.fields", "[race]", "a list of one or more of sex, age, bmi, diagnosis"),
    ("controlnet", "data.copies", "0", "at least 1"),
    ("evaluate", "preset.results", "/data/results", "a name, of the folder below results/"),
    ("controlnet", "preset.controlnet_batch", "0", "as data.batch_size it takes"),
    ("controlnet", "data.val_images", "0", "at least 1"),
    ("controlnet", "memory.frozen", "float16", "float32 or bfloat16"),
    ("controlnet", "memory.compile", "maybe", "true or false"),
    ("base", "model.autoencoder.steps", "0", "at least 1"),
    ("base", "preset.base_unet_steps", "-1", "as model.unet.steps it takes"),
    ("base", "model.unet.channels", "[]", "whole numbers of at least 1 as a list"),
    ("base", "model.autoencoder.channels", "16", "whole numbers of at least 1 as a list"),
    ("base", "model.unet.ema", "1.5", "below 1"),
    ("base", "data.autoencoder_batch_size", "0", "at least 1"),
    ("base", "data.workers", "-1", "at least 0"),
    ("generate", "batch_size", "0", "at least 1"),
    ("generate", "plan.count", "0", "at least 1"),
    ("generate", "plan.missing", "drop", "skip or error or borrow"),
    ("generate", "sampler.steps", "0", "at least 1"),
    ("generate", "sampler.guidance", "strong", "a number"),
    ("generate", "sampler.guides", "mask", "prompt or both"),
    ("generate", "images", "some", "true or false"),
    ("evaluate", "resamples", "0", "at least 40"),
    ("evaluate", "fid_images", "-1", "at least 2"),
    ("evaluate", "judge_steps", "200", "2 whole numbers of at least 1 as a list"),
    ("evaluate", "judge_steps", "[200]", "2 whole numbers"),
    ("evaluate", "audit", "perhaps", "true or false"),
]


@pytest.mark.parametrize(("task", "key", "value", "takes"), WRONG)
def test_a_wrong_value_is_told_with_what_the_setting_takes(
    task: str, key: str, value: str, takes: str, usual: dict[str, DictConfig]
) -> None:
    cfg = deepcopy(usual[task])
    OmegaConf.update(cfg, key, OmegaConf.create(f"v: {value}").v)
    with pytest.raises(ValueError, match=re.escape(takes)) as caught:
        commands.prepared(cfg)
    told = str(caught.value)
    assert told.startswith(f"{key}=") and "\n" not in told
    assert "it takes " in told


@pytest.mark.parametrize("task", [*TRAINED, "generate", "evaluate"])
def test_the_usual_values_of_every_experiment_and_preset_are_right(
    task: str, usual: dict[str, DictConfig]
) -> None:
    checks.check(deepcopy(usual[task]))
    for preset in ("demo", "smoke", "acdc", "acdc_gpu"):
        given = [f"experiment={task}"] if task in TRAINED else []
        cohort = ["cohort=acdc"] if preset.startswith("acdc") else []
        checks.check(
            composed("train" if task in TRAINED else task, f"preset={preset}", *given, *cohort)
        )


@pytest.mark.parametrize(
    "given",
    [
        ["cohort=ukbb", "base=sd21", "trainer=gpu8"],
        ["input=cine"],
        ["cohort=pooled", "input=cine"],
        ["trainer=ddp", "debug=fast"],
        ["mitigation=groupdro"],
        ["mitigation=thresholds", "debug=overfit"],
        ["synthetic=only", "debug=profile"],
        ["cohort=mnms2"],
    ],
)
def test_the_options_of_the_groups_are_right(given: list[str]) -> None:
    task = "controlnet" if "base=sd21" in given else "classifier"
    checks.check(composed("train", f"experiment={task}", *given))


@pytest.mark.parametrize(
    "task", [*TRAINED, "mitigation=groupdro", "mitigation=thresholds", "generate", "evaluate"]
)
def test_no_setting_is_forgotten(task: str, usual: dict[str, DictConfig]) -> None:
    """Each has a rule here, or stands in FREE: whoever adds one decides."""
    keys = [key for key, *_ in checks.leaves(deepcopy(usual[task]))]
    assert len(keys) > 20
    assert not [
        key
        for key in keys
        if checks.rule(key) is None and not any(fnmatchcase(key, free) for free in FREE)
    ]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("plan.count", "plan.count has no value yet; give plan.count=<value>"),
        ("sampler.mine.deep", "sampler.mine.deep has no value yet"),
        ("plan.path", "plan.path has no value yet.*your own table"),
    ],
)
def test_a_setting_without_a_value_is_asked_for(
    key: str, told: str, usual: dict[str, DictConfig]
) -> None:
    cfg = deepcopy(usual["generate"])
    OmegaConf.update(cfg, key, "???", force_add=True)
    with pytest.raises(ValueError, match=told):
        checks.check(cfg)
    cfg.unused = [key.split(".")[0]]
    checks.check(cfg)


def test_settings_that_an_experiment_does_not_use_are_not_looked_at() -> None:
    cfg = composed("train", "experiment=classifier", "sampler.steps=-1")
    checks.check(cfg)
    with pytest.raises(ValueError, match="sampler.steps=-1"):
        checks.check(composed("generate", "sampler.steps=-1"))


def test_each_cohort_of_a_pool_is_checked() -> None:
    with pytest.raises(
        ValueError, match="cohort.cohorts.acdc.max_rejected=2: it takes a number from 0 to 1"
    ):
        checks.check(
            composed(
                "train",
                "experiment=classifier",
                "cohort=pooled",
                "cohort.cohorts.acdc.max_rejected=2",
            )
        )


def test_the_choices_are_those_of_the_code() -> None:
    from cmrcls import arms
    from cmrcls.mitigation.thresholds import CONSTRAINTS
    from cmrgen import prompts
    from cmrgen.base import phases
    from cmrgen.plan import recipes
    from cmrgen.render import sampler

    theirs = {
        "budget": arms.BUDGETS,
        "mitigation.after.constraint": CONSTRAINTS,
        "plan.missing": recipes.MISSING,
        "plan.thin": recipes.THIN,
        "channels": (phases.EVEN, phases.PAPER),
        "sampler.name": sampler.SAMPLERS,
        "sampler.guides": sampler.GUIDES,
    }
    for key, names in theirs.items():
        assert set(checks.CHOICES[key]) == set(names), key
    assert checks.FIELDS == prompts.FIELDS and checks.DIAGNOSES == arms.DISEASES


def test_an_axis_that_the_cohorts_own_file_adds_is_taken(tmp_path, monkeypatch):
    """Its file is imported for it, and only then."""
    name = "a_cohort_with_an_axis"
    (tmp_path / f"{name}.py").write_text(
        "from cmrdata.axes import Axis, Band, add\n"
        "add(Axis('hand', 'Hand', 'hand', {'left': Band('Left', 'L'), 'right': Band('Right', 'R')}))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def config(attribute: str, cohort: dict) -> DictConfig:
        return OmegaConf.create(
            {"cohort": cohort, "mitigation": {"after": {"attribute": attribute}}}
        )

    own = {"_target_": f"{name}.MyCohort"}
    with patch.dict(AXES):
        checks.check(config("age_band", own))
        assert name not in sys.modules
        for wrong in ("hand", "sex_band", 3):
            with pytest.raises(
                ValueError,
                match=f"mitigation.after.attribute={wrong}: it takes sex or age_band or bmi_band, or an",
            ):
                checks.check(config(wrong, {"_target_": "cmrdata.cohorts.acdc.ACDC"}))
        with pytest.raises(ValueError, match="attribute=hand: it takes"):
            checks.check(config("hand", {"_target_": "nowhere_at_all.MyCohort"}))
        checks.check(
            config("hand", {"_target_": "cmrdata.cohorts.pooled.Pooled", "cohorts": {"a": own}})
        )
        assert "hand" in AXES
        checks.check(config("hand", own))
    sys.modules.pop(name, None)


# sweeps


def multirun(*given: str) -> str:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        load = GlobalHydra.instance().config_loader().load_configuration
        config = load("train", list(given), run_mode=RunMode.MULTIRUN)
        HydraConfig.instance().set_config(config)
        with pytest.raises(SystemExit) as caught:
            jobs.Jobs().on_multirun_start(config)
        return str(caught.value.code)


@pytest.mark.parametrize(
    ("swept", "told"),
    [
        ("seed=0,1,-1", "seed=-1: it takes"),
        ("seed=0,abc", "seed=abc: it takes"),
        ("model.lr=1e-3,-1e-3", "model.lr=-0.001: it takes"),
    ],
)
def test_a_sweep_with_a_wrong_value_begins_no_job(swept: str, told: str) -> None:
    message = multirun("experiment=classifier", "preset=smoke", swept)
    assert message.startswith(f"error: {told}") and "No job of the sweep has begun" in message


def test_a_sweep_of_right_values_is_not_held_up() -> None:
    right = composed("train", "experiment=classifier")
    assert jobs.wrong_setting([right]) is None and jobs.shared_folder([]) is None


# the limits by their numbers

SPANS = {  # (least, most, whole numbers alone, null as well): settings
    (1, None, True, False): """data.batch_size data.autoencoder_batch_size data.val_images
        data.copies cohort.subjects model.width model.pixels model.plateau_patience
        model.autoencoder.steps model.unet.steps model.unet.layers batch_size sampler.steps
        sampler.reuse plan.count plan.seeds count trainer.num_nodes
        trainer.accumulate_grad_batches""",
    (0, None, True, False): """synthetic data.workers cohort.test_subjects cohort.reach
        model.warmup trainer.log_every_n_steps""",
    (1, None, True, True): """checkpoint.steps data.images_per_epoch plan.per_person
        trainer.check_val_every_n_epoch""",
    (0, None, True, True): "plan.per_mask trainer.min_epochs trainer.min_steps",
    (2, None, True, False): "fid_images cells",
    (2, None, True, True): "cohort.cine",
    (8, None, True, False): "cohort.pixels",
    (40, None, True, False): "resamples permutations",
    (-1, None, True, False): "trainer.num_sanity_val_steps",
    (0, 4, True, True): "fold cohort.fold",
    (0, 2**32 - 1, True, False): """seed data.seed cohort.seed model.seed model.autoencoder.seed
        model.unet.seed plan.seed""",
    (1e-9, None, False, True): """checkpoint.minutes cohort.controls_per_case model.gamma
        cohort.default_spacing model.unet.gamma""",
    (1e-9, None, False, False): """cohort.hf_scale cohort.fov_mm mitigation.loss.eta
        model.autoencoder.lr model.unet.lr""",
    (0, None, False, False): """model.lr model.weight_decay model.noise_std model.autoencoder.kl
        plan.strength""",
    (0, None, False, True): "trainer.gradient_clip_val",
    (1, None, False, True): "data.max_repeats",
    (0, 1, False, False): """cohort.max_rejected model.flips model.prompt_dropout
        model.unet.prompt_dropout""",
    (0, 1, False, True): "cohort.hf_share",
    (0, 100, False, False): "cohort.ef_below cohort.ef_above",
    (0, 1 - 1e-9, False, False): "model.ema model.unet.ema",
    (1e-9, 1 - 1e-9, False, False): "specificity",
    (float("-inf"), None, False, False): "sampler.guidance",
}
OTHERS = {  # settings: what they take, what they don't
    "trainer.max_epochs": ((1, -1), (0, -2, 1.5, None, True)),
    "trainer.max_steps": ((1, -1, None), (0, -2, 1.5, False)),
    "trainer.fast_dev_run": ((1, True, False, None), (0, -1, 1.5)),
    "trainer.devices": ((1, 8, -1, "auto", [0], [0, 3]), (0, -2, 1.5, True, "", [], [-1], [1.5])),
    "trainer.deterministic": ((True, False, "warn", None), ("on", 2)),
    "trainer.benchmark": ((True, False, None), ("on", 1)),
    "overwrite": ((True, False), (None, 1, 0)),
    "resume": (("auto", True, False), (None, 1, "yes")),
    "stale": (("keep", None), ("use", True)),
    "synthetic": (("only", 0), ("all", -1, 1.5, None, True)),
    "labels": ((["hf"], ["af", "hf"]), ([], "hf", ["hf", "hf"], ["x"], ("hf",))),
    "model.normalisation": (
        ("auto", [0.5, 0.25], [[0.1, 0.2, 0.3], [1, 2, 3]], [0, 1], [[0.5], 1]),
        ("x", [0.5], [0.5, 0], [0.5, -1], [[1, 2], [1, 2]], ["a", 1], [0.5, 1, 1], None),
    ),
    "judge_steps": (([1, 9],), ([0, 9], [9], [1, 2, 3], 9, [1.5, 2], [])),
    "model.unet.channels": (([16], [16, 32, 1]), ([], [0], 16, [True])),
    "model.weights": (("imagenet", None), ("", 3)),
    "model.backbone": (("resnet18",), ("", None, 18)),
    "mitigation.loss": (({"_target_": "x"},), ({}, "x", None)),
    "mitigation.after.attribute": (("sex",), ("age", None, 1)),
    "device": (("auto", "cpu", "cuda", "cuda:11"), ("cuda:", "gpu", "cpu:0", None, 0)),
    "trainer.gradient_clip_algorithm": (("norm", "value", None), ("x", 1)),
    "cohort.orient": (("masks", "header", "none"), (None, "up")),
}
BATCHES = ("train", "val", "test", "predict")


def test_limits_are_those_of_the_documentation() -> None:
    near = (-2, -1, -0.5, 0, 1e-9, 0.5, 1, 1.5, 2, 3, 4, 5, 7, 8, 39, 40, 100, 101)
    for (least, most, whole, null), keys in SPANS.items():
        for key in keys.split():
            takes = checks.TAKES[key]
            for value in (*near, 2**32 - 1, 2**32):
                inside = least <= value and (most is None or value <= most)
                fits = inside and not (whole and isinstance(value, float))
                assert bool(takes.fits(value)) == fits, (key, value)
            assert bool(takes.fits(None)) == null == ("null" in takes.words), key
            for odd in (True, False, "1", [1], float("nan"), float("inf")):
                assert not takes.fits(odd), (key, odd)
    for key, (right, wrong) in OTHERS.items():
        for values, fits in ((right, True), (wrong, False)):
            for value in values:
                assert bool(checks.TAKES[key].fits(value)) == fits, (key, value)
    for key in (*(f"trainer.limit_{part}_batches" for part in BATCHES), "trainer.overfit_batches"):
        for value in (0, 1, 7, 0.0, 0.5, 1.0, None):
            assert checks.TAKES[key].fits(value), (key, value)
        for value in (-1, 1.01, -0.1, 2.0, True, "all"):
            assert not checks.TAKES[key].fits(value), (key, value)
    assert "48" in checks.TAKES["model.unet.channels"].words
    assert checks.TAKES["judge_steps"].words.endswith("such as [16, 32]")


def test_a_value_is_told_by_the_setting_that_it_comes_from() -> None:
    cfg = OmegaConf.create(
        {"preset": {"lr": -1}, "base": {"lr": "${preset.lr}"}, "model": {"lr": "${base.lr}"}}
    )
    with pytest.raises(ValueError, match="^preset.lr=-1: as model.lr it takes a number of at"):
        checks.check(cfg)
    cfg = OmegaConf.create({"a": 2, "fold": "${a}${a}"})
    with pytest.raises(ValueError, match="^fold=22: it takes a whole number from 0 to 4, or null"):
        checks.check(cfg)
    for value, shown in ((None, "null"), (True, "true"), ("None", "None"), ([1], r"\[1\]")):
        with pytest.raises(ValueError, match=f"^seed={shown}: it takes"):
            checks.check(OmegaConf.create({"seed": value}))
    foreign = {"trainer": {"_target_": "mine.Trainer", "num_nodes": 0}, "unused": ["model"]}
    checks.check(OmegaConf.create({**foreign, "model": {"lr": -1}}))
    for target in ("lightning.Trainer", "cmrgen.x"):
        with pytest.raises(ValueError, match="trainer.num_nodes=0"):
            checks.check(OmegaConf.create({"trainer": {"_target_": target, "num_nodes": 0}}))
    with pytest.raises(ValueError, match="^cohort.cohorts.a.pixels=7: it takes"):
        checks.check(OmegaConf.create({"cohort": {"cohorts": {"a": {"pixels": 7}}}}))
    for config, told in (
        ({"seed": "${nowhere}"}, "seed: Interpolation key 'nowhere' not found; it takes a whole"),
        (
            {"data": {"splits": ["${nowhere}"]}},
            "data.splits: Interpolation key 'nowhere' not found",
        ),
        ({"name": "${nowhere}"}, "name: Interpolation key 'nowhere' not found$"),
        (
            {"a": {"_target_": "x", "b": "${nowhere}"}},
            "a.b: Interpolation key 'nowhere' not found$",
        ),
        ({"a": [{"b": "???"}]}, r"a\[0\].b has no value yet; give"),
        ({"a": ["x", "???"]}, r"a\[1\] has no value yet"),
    ):
        with pytest.raises(ValueError, match=f"^{told}") as caught:
            checks.check(OmegaConf.create(config))
        assert "\n" not in str(caught.value)
    checks.check(OmegaConf.create({"a": {"b": "${nowhere}"}, "unused": ["a"]}))
    with pytest.raises(ValueError, match="^plan.path has no value yet; give plan.path=<value>: pl"):
        checks.check(OmegaConf.create({"plan": {"path": "???"}}))
    checks.check(OmegaConf.create({"plan": {"path": "???"}, "unused": ["plan"]}))
    checks.check(OmegaConf.create({"trainer": {"max_epochs": "???"}, "hydra": {"x": "???"}}))
