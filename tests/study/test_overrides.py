"""Names of run folders from what a command overrides, and sweeps whose jobs would share one."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from cmrstudy import overrides
from cmrstudy.identity import settings
from support.composing import CONF, composed


def name(command: str, *given: str) -> str:
    return composed(command, *given).name


def classifier(*given: str) -> str:
    return name("train", "experiment=classifier", *given).removeprefix("classifier/")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), "synthetic-0"),
        (("synthetic=2000", "seed=3"), "synthetic-2000"),
        (("synthetic=only", "mitigation=groupdro"), "synthetic-only-groupdro"),
        # the experiment's own
        (("mitigation=none", "budget=epochs", "model.backbone=resnet18"), "synthetic-0"),
        (("budget=steps", "model.lr=3e-4"), "synthetic-0-budget-steps-model.lr-0.0003"),
        # in whatever order
        (("model.lr=3e-4", "budget=steps"), "synthetic-0-budget-steps-model.lr-0.0003"),
        # however it is typed
        (("model.lr=0.0003", "budget='steps'"), "synthetic-0-budget-steps-model.lr-0.0003"),
        (('budget="steps"', "model.lr=.0003"), "synthetic-0-budget-steps-model.lr-0.0003"),
        (("input=cine", "fold=3"), "synthetic-0-cine-fold-3"),
        (
            ("cohort=acdc", "cohort.pixels=128", "fold=1"),
            "synthetic-0-acdc-cohort.pixels-128-fold-1",
        ),
        (
            ("mitigation=groupdro", "mitigation.loss.eta=0.1"),
            "synthetic-0-groupdro-mitigation.loss.eta-0.1",
        ),
        (("labels=[hf,mi]",), "synthetic-0-labels-hf+mi"),
        # how, where
        (
            ("model.compile=true", "data_root=/tmp/x", "resume=true", "logger=tensorboard"),
            "synthetic-0",
        ),
        (("cohort=ukbb", "cohort.root=/data/ukbb", "cohort.table=/data/t.csv"), "synthetic-0-ukbb"),
        (("preset=demo", "preset.runs=/tmp/runs"), "synthetic-0"),
        (
            ("sampler.guidance=4", "base.weights=x/y"),
            "synthetic-0",
        ),  # of the generator: the classifier has no use for them
        (("base=sd21", "cohort=ukbb"), "synthetic-0-sd21-ukbb"),  # decides the size of the pictures
        (
            ("model.noise_std=0", "~model.plateau_patience"),
            "synthetic-0-model.noise_std-0-no-model.plateau_patience",
        ),
        (("model.weights=null",), "synthetic-0-model.weights-null"),
    ],
)
def test_a_name_says_what_differs_from_the_experiments_own(given, wanted):
    assert classifier(*given) == wanted


def test_a_presets_own_values_name_nothing_and_others_do():
    assert classifier("preset=demo", "model.lr=5e-4") == "synthetic-0"  # what the preset has anyway
    assert classifier("preset=study", "model.lr=1e-3") == "synthetic-0-model.lr-0.001"
    assert (
        classifier("preset=demo", "preset.classifier_epochs=9")
        == "synthetic-0-preset.classifier_epochs-9"
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((), "runs/synthetic/0"),
        (("generator=runs/controlnet/0",), "runs/synthetic/0"),
        (("generator=/elsewhere/runs/controlnet/0/",), "runs/synthetic/0"),
        (("generator=runs/controlnet-sd21/0",), "runs/synthetic-sd21/0"),
        (("generator=runs/controlnet/1",), "runs/synthetic-generator-1/0"),
        (("generator=runs/controlnet-sd21-ukbb/0", "cohort=ukbb"), "runs/synthetic-sd21-ukbb/0"),
        (("generator=mine/best/3",), "runs/synthetic-generator-best-3/0"),
        (("plan=copy", "plan.count=99", "fold=2"), "runs/synthetic-copy-plan.count-99-fold-2/0"),
        (("plan.count=4000", "trainer.devices=4", "shard=0/1"), "runs/synthetic/0"),
    ],
)
def test_a_set_is_named_as_its_generator_is(given, wanted):
    assert composed("generate", *given).run_dir == wanted


def test_the_chain_finds_its_folders_by_cohort_and_fold():
    scope = ("cohort=ukbb", "cohort.codes=broad", "fold=1")
    tail = "-ukbb-cohort.codes-broad-fold-1"
    assert name("train", "experiment=controlnet", *scope) == f"controlnet{tail}"
    made = composed("generate", *scope)
    assert (made.generator, made.run_dir) == (f"runs/controlnet{tail}/0", f"runs/synthetic{tail}/0")
    assert composed("train", "experiment=classifier", *scope).synthetic_set == made.run_dir
    assert composed("evaluate", *scope).synthetic_set == made.run_dir


def test_evaluations_of_other_settings_have_folders_of_their_own_and_added_parts_have_not():
    assert (
        name("evaluate", "preset=demo") == name("evaluate", "preset=demo", "audit=true") == "demo"
    )
    assert name("evaluate", "preset=demo", "input=cine") == "demo-cine"
    assert (
        name("evaluate", "preset=demo", "cohort=acdc", "axes=[source]") == "demo-axes-source-acdc"
    )


ODD = [
    "a b",
    "A B",
    "a  b",
    "a_b",
    "ä",
    "ae",
    "a/b",
    "a\\\\b",
    "CON",
    "con",
    "x" * 300,
    "x" * 301,
    "a=b",
    "..",
    "*?",
    "#1",
    "",
]


def test_no_two_values_share_a_name_and_every_name_is_safe_on_every_file_system():
    names = [overrides._joined({"key": f"key-{overrides._shown(value)}"}) for value in ODD]
    assert len({one.lower() for one in names}) == len(ODD)
    for one in names:
        assert (
            len(one) <= overrides.LONGEST
            and re.fullmatch(r"[A-Za-z0-9._+-]+", one)
            and one[-1] not in ".-"
        )


def test_values_that_are_alike_in_hydras_grammar_are_one_and_others_are_not():
    assert (
        overrides._shown(1e-4) == overrides._shown(0.0001) == "0.0001"
        and overrides._shown(1.0) == "1"
    )
    assert (
        len(
            {
                overrides._shown(v)
                for v in (True, None, "x", 0.3, 0.30000000001, [1, 2], {"a": 1}, {"a": 2})
            }
        )
        == 8
    )


# the settings that identify a run


def told(command: str, *given: str) -> dict:
    return settings(composed(command, *given))


def test_what_a_command_asks_of_its_folder_is_read_from_what_was_typed():
    cfg = composed(
        "train",
        "experiment=classifier",
        "model.lr=3e-4",
        "mitigation=groupdro",
        "synthetic=9",
        "seed=2",
    )
    asked = overrides.request(cfg)
    assert asked.folder == Path("runs/classifier/synthetic-9-groupdro-model.lr-0.0003/2")
    assert asked.keys == ["mitigation", "model.lr", "synthetic"]
    assert asked.choices["mitigation"] == "groupdro" and not {"preset", "trainer", "hydra"} & set(
        asked.choices
    )
    assert asked.places["synthetic_set"] == "runs/synthetic/0"
    assert asked.config["model"]["lr"] == 3e-4


# sweeps


def sweep(command: str, *given: str) -> list[overrides.Job]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        from hydra.core.global_hydra import GlobalHydra
        from hydra.types import RunMode

        config = (
            GlobalHydra.instance()
            .config_loader()
            .load_configuration(command, list(given), run_mode=RunMode.MULTIRUN)
        )
        HydraConfig.instance().set_config(config)
        jobs = overrides.composed_jobs(config)
        return jobs, jobs_module().shared_folder(jobs)


def jobs_module():
    from cmrstudy import jobs

    return jobs


def test_any_key_sweeps_into_as_many_folders():
    given = ("experiment=classifier", "budget=epochs,steps", "model.lr=1e-4,3e-4", "seed=range(2)")
    found, message = sweep("train", *given)
    assert message is None and len({job.folder for job in found}) == 8
    names = ["", "-budget-steps", "-model.lr-0.0003", "-budget-steps-model.lr-0.0003"]
    wanted = {f"runs/classifier/synthetic-0{of}/{seed}" for of, seed in product(names, range(2))}
    assert {job.folder for job in found} == wanted


@pytest.mark.parametrize(
    ("command", "swept"),
    [
        ("train", key)
        for key in (
            "model.backbone=resnet18,densenet121",
            "synthetic_set=a/x/0,b/y/0,c/z/1",
            "preset=smoke,demo",
        )
    ]
    + [
        ("generate", key)
        for key in (
            "plan=balanced,copy",
            "generator=runs/controlnet/0,runs/controlnet/1",
            "sampler.guidance=1,2,4",
        )
    ]
    + [("evaluate", key) for key in ("input=stack,cine", "seed=0,1")]
    + [
        pytest.param(*of, marks=pytest.mark.slow)
        for of in (
            ("train", "cohort=acdc,mnms"),
            ("train", "labels=[hf],[mi]"),
            ("train", "trainer.precision=32-true,bf16-mixed"),
            ("train", "cohort.hf_scale=1,2"),
            ("train", "trainer.max_epochs=1,2"),
            ("train", "mitigation=glob(*)"),
            ("train", "model.weights=null,imagenet"),
            ("generate", "sampler=unipc,ddim"),
            ("generate", "plan.count=9,99"),
            ("generate", "batch_size=8,16"),
            ("evaluate", "cohort=acdc,mnms"),
            ("evaluate", "resamples=40,99"),
        )
    ],
)
def test_whatever_decides_a_number_sweeps_into_folders_apart(command, swept):
    found, message = sweep(command, *["experiment=classifier"] * (command == "train"), swept)
    if command == "evaluate" and swept == "seed=0,1":
        assert message and "name=" in message  # an evaluation's folder has no seed
    else:
        assert message is None and len({job.folder for job in found}) == len(found) > 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("name=mine", "model.lr=1,2"),
            "model.lr=1 and model.lr=2, would share runs/mine/0. .*'name=mine-\\${model.lr}'",
        ),
        (("run_dir=/tmp/x", "seed=0,1"), "'run_dir=/tmp/x-\\${seed}'"),
        (("data_root=a,b",), "data_root decides no number of this run.*-\\${data_root}'"),
        (("sampler.guidance=1,2",), "sampler.guidance decides no number of this run"),
        (("trainer=auto,gpu",), "would share .*\\${hydra:runtime.choices.trainer}"),
        (
            ("seed=0,0",),
            "two jobs of this sweep are the same run, runs/classifier/synthetic-0/0; give each once",
        ),
    ],
)
def test_jobs_that_would_share_a_folder_are_refused_with_the_remedy(given, message):
    assert re.search(message, sweep("train", "experiment=classifier", *given)[1])


@pytest.mark.slow  # seconds
def test_the_remedy_works():
    given = ("experiment=classifier", "trainer=auto,gpu")
    remedy = re.search(r"'(name=.*)'", sweep("train", *given)[1])[1]
    found, message = sweep("train", *given, remedy)
    assert message is None and {job.folder.split("-")[-1] for job in found} == {"auto/0", "gpu/0"}


def test_a_search_decides_its_jobs_as_it_goes():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    assert sweep("train", "experiment=classifier", "hydra/sweeper=tune") == ([], None)


def test_no_two_groups_have_an_option_of_one_name():
    groups = [
        path
        for path in CONF.iterdir()
        if path.is_dir()
        and path.name not in ("hydra", "preset", "experiment", "model", "local", "debug")
    ]
    options = [(option.stem, group.name) for group in groups for option in group.glob("*.yaml")]
    alike = {
        stem for stem, _ in options if len({group for other, group in options if other == stem}) > 1
    }
    assert not alike - {"none", "ddp", "gpu"}, (
        "a folder named by a choice would not say of which group"
    )


def test_names_of_values_and_places_are_those_of_the_runs_made_before():
    """Other names would begin every run anew."""
    for value, name in (
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (0.1 + 0.2, "0.3"),
        ([1, "a"], "1+a"),
        ([], "none"),
        ({"b": 1, "a": [2]}, "43e97d"),
        ("resnet18", "resnet18"),
        ("A b", "a_b-a760"),
        ("é", "x-4a99"),
        ("..", "x-5ec1"),
        (7, "7"),
    ):
        assert overrides._shown(value) == name
    for path, told in (
        ("runs/controlnet/0", ("controlnet", "0")),
        ("runs\\controlnet\\12", ("controlnet", "12")),
        ("plans/mine.csv", ("mine.csv", "")),
        ("runs/a/b", ("b", "")),
        ("7", ("7", "")),
        ("", ("", "")),
        ("/a", ("a", "")),
    ):
        assert overrides._last_two(path) == told

    def place(value, usual="runs/controlnet-fold-2/0", scope="-fold-2"):
        return overrides._place("generator", value, usual=usual, scope=scope)

    assert place(None) == place("runs/controlnet-fold-2/0/") == ""
    assert place("runs/controlnet-sd21-fold-2/0") == "sd21"
    assert place("runs/controlnet-sd21-fold-2/3") == "sd21-generator-3"
    assert place("runs/controlnet-fold-2/3") == "generator-3"
    assert place("runs/controlnet/0", scope="") == "generator-controlnet"
    assert place("elsewhere/mine/0") == "generator-mine"
    assert place("elsewhere/mine/2") == "generator-mine-2"
    assert place("a/b", usual=None) == "generator-b"
    assert overrides._joined({}) == "" and overrides._joined({"a": "x", "b": "y"}) == "-x-y"
    long = overrides._joined({"a": "x" * 300})
    assert len(long) == overrides.LONGEST and long[-9] == "-"
    assert overrides._joined({"a": "x" * (overrides.LONGEST - 1)}).endswith("xxx")
    assert not overrides._same(True, 1) and overrides._same(1e-4, 0.0001)
    assert overrides._key("+a.b=3=4") == "a.b" and overrides._key("~logger@x=1") == "logger"
