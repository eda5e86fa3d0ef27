"""House rules: import floors, configs that compose and fit what they configure, light starts, no
participant ids."""

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from support import ROOT

CONF, SRC = ROOT / "conf", ROOT / "src"
COMMANDS = ("train", "generate", "evaluate")
PLANS = sorted(path.stem for path in (CONF / "plan").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
INPUTS = sorted(path.stem for path in (CONF / "input").glob("*.yaml"))
MITIGATIONS = sorted(path.stem for path in (CONF / "mitigation").glob("*.yaml"))
GROUPS = (
    "preset",
    "cohort",
    "base",
    "sampler",
    "trainer",
    "memory",
    "logger",
    "callbacks",
    "debug",
)
CHOICES = [
    [f"{group}={path.stem}" for path in sorted((CONF / group).glob("*.yaml"))] for group in GROUPS
]
# each choice is in one of them
VARIANTS = [[of[k % len(of)] for of in CHOICES] for k in range(max(map(len, CHOICES)))]
KNOW_HYDRA = ("cmrstudy/overrides.py", "cmrstudy/grammar.py")  # beside the commands
FORBIDDEN = {
    "cmrdata": {"cmrstudy", "cmrgen", "cmrcls", "hydra"},
    "cmrstudy": {"cmrgen", "cmrcls", "hydra"},
    "cmrgen": {"cmrcls", "hydra"},
    "cmrcls": {"cmrgen", "hydra"},
    "cmr": {"cmrdata", "cmrgen", "cmrcls", "hydra"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "path", sorted(SRC.glob("*/**/*.py")), ids=lambda p: p.relative_to(SRC).as_posix()
)
def test_imports_go_down_and_never_to_hydra(path):
    package = path.relative_to(SRC).parts[0]
    allowed = {"hydra"} if path.relative_to(SRC).as_posix() in KNOW_HYDRA else set()
    assert not imported(path) & FORBIDDEN[package] - allowed


def test_the_floors_are_all_of_src_and_only_commands_import_hydra():
    assert {
        path.name for path in SRC.iterdir() if path.is_dir() and not path.name.endswith(".egg-info")
    } == set(FORBIDDEN)
    users = {path.stem for path in ROOT.glob("*.py") if "hydra" in imported(path)}
    assert users == set(COMMANDS)


def python(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


def test_starting_a_command_imports_nothing_heavy():
    code = "import sys, train, generate, evaluate; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    started = python("-c", code)
    assert started.returncode == 0, started.stderr
    assert not set(started.stdout.split()) & {
        "torch",
        "lightning",
        "pandas",
        "diffusers",
        "numpy",
        "open_clip",
        "matplotlib",
    }


def test_without_arguments_train_lists_every_experiment():
    listed = python("train.py")
    assert listed.returncode == 1 and "python train.py experiment=<name>" in listed.stderr
    lines = {
        name: line
        for line in listed.stderr.splitlines()
        for name in EXPERIMENTS
        if f"experiment={name} " in line
    }
    assert set(lines) == set(EXPERIMENTS)
    # each says what it does
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines.values())


def test_showing_a_config_leaves_no_trace(tmp_path):
    shown = python(
        str(ROOT / "train.py"), "experiment=controlnet", "--cfg", "job", "--resolve", cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    assert yaml.safe_load(shown.stdout)["run_dir"] == "runs/controlnet/0"
    assert list(tmp_path.iterdir()) == []


def composed(command: str, *overrides: str) -> dict[str, Any]:
    """The resolved config as the command sees it, `???` left in."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(command, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # for ${hydra:...}
    with_hydra = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(with_hydra, dict)
    del with_hydra["hydra"]
    return OmegaConf.to_container(DictConfig(with_hydra), resolve=True)


def targets(node: Any, at: str = "") -> Iterator[tuple[str, dict]]:
    """Every node with a _target_, and where it is."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield at, node
        for key, value in node.items():
            yield from targets(value, f"{at}.{key}".lstrip("."))


def fits(config: dict[str, Any]) -> None:
    """Every _target_ exists and takes the keys given, and all it cannot do without unless our code
    supplies it."""
    for at, node in targets(config):
        parameters = inspect.signature(get_object(node["_target_"])).parameters
        keys = set(node) - {"_target_", "_convert_", "_partial_"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            assert keys <= set(parameters), (
                f"{at}: {node['_target_']} takes no {keys - set(parameters)}"
            )
        needed = {
            n
            for n, p in parameters.items()
            if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        assert needed - keys <= {"index", "base", "run", "cfg", "groups"}, (
            f"{at}: {node['_target_']} lacks {needed - keys}"
        )


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == [], "composing a config touched the disk"


# Training with every variant, generator and classifier in turn unless there is time; the others,
# which change fewer of the choices, take turns with them.
COMPOSED = [
    pytest.param(
        experiment,
        variant,
        id=" ".join([experiment, *variant]),
        marks=[pytest.mark.slow] * (experiment == ("classifier", "controlnet")[turn % 2]),
    )
    for at, experiment in enumerate(EXPERIMENTS)
    for turn, variant in enumerate(VARIANTS)
    if experiment in ("controlnet", "classifier") or turn == at % len(VARIANTS)
]


@pytest.mark.parametrize(("experiment", "variant"), COMPOSED)
def test_every_experiment_composes_and_fits(empty, experiment, variant):
    config = composed("train", f"experiment={experiment}", *variant)
    assert config["task"] == experiment
    assert config["run_dir"] == f"results/{config['name']}" or config["run_dir"].endswith(
        f"{config['name']}/0"
    )
    if "model" not in config:  # nothing is trained
        del config["trainer"]["max_epochs"]
    assert "=" not in config["run_dir"] and "???" not in yaml.safe_dump(config)
    fits(config)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("overrides", [("preset=demo",), ("cohort=acdc", "sampler=dpmpp")])
def test_plans_compose_and_fit(empty, plan, overrides):
    given = ["plan.path=plan.csv"] if plan == "custom" else []
    fits(composed("generate", f"plan={plan}", *given, *overrides))


@pytest.mark.parametrize("overrides", [(), ("preset=smoke", "cohort=acdc")])
def test_evaluation_composes_and_fits(empty, overrides):
    config = composed("evaluate", *overrides)
    fits(config)
    assert config["run_dir"] == f"results/{config['name']}"


@pytest.mark.parametrize("mitigation", MITIGATIONS)
def test_a_mitigation_composes_fits_and_has_folders_of_its_own(empty, mitigation):
    config = composed(
        "train", "experiment=classifier", f"mitigation={mitigation}", "synthetic=2000", "fold=3"
    )
    fits(config)
    assert (
        config["name"]
        == "classifier/synthetic-2000" + f"-{mitigation}" * (mitigation != "none") + "-fold-3"
    )
    assert config["cohort"]["fold"] == 3 and config["synthetic_set"] == "runs/synthetic-fold-3/0"


@pytest.mark.parametrize("shown", INPUTS)
def test_an_input_composes_fits_and_has_folders_of_its_own(empty, shown):
    chosen = [f"input={shown}", "cohort=pooled", "mitigation=groupdro", "fold=3"]
    config = composed("train", "experiment=classifier", *chosen)
    fits(config)
    moving = shown == "cine"
    assert config["name"] == "classifier/synthetic-0" + "-cine" * moving + "-groupdro-pooled-fold-3"
    assert config["cohort"]["cine"] == config["data"]["cohort"]["cine"] == (16 if moving else None)
    assert config["model"]["pixels"] == (112 if moving else 224)
    assert config["model"]["weights"] == ("kinetics" if moving else "imagenet")


def test_every_file_in_conf_is_composed_by_a_test_above():
    used = {choice for of in CHOICES for choice in of} | {
        *(f"mitigation={name}" for name in MITIGATIONS),
        *(f"input={name}" for name in INPUTS),
        *(f"experiment={name}" for name in EXPERIMENTS),
        *(f"plan={name}" for name in PLANS),
        "hydra=quiet",
        "local=example",
    }
    used |= {f"model={name}" for name in EXPERIMENTS if (CONF / "model" / f"{name}.yaml").exists()}
    assert {f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml")} == used
    assert {path.stem for path in CONF.glob("*.yaml")} == set(COMMANDS)


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("train", "sead"),
        ("train", "data.bath_size"),
        ("train", "trainer.max_epoch"),
        ("train", "cohort.subject"),
        ("generate", "plan.cuont"),
    ],
)
def test_a_mistyped_key_fails_by_name(empty, command, key):
    given = ["experiment=controlnet"] if command == "train" else []
    with pytest.raises(ConfigCompositionException) as error:
        composed(command, *given, f"{key}=3")
    assert key in str(error.value)


@pytest.mark.parametrize("choice", ["experiment=contolnet", "cohort=ukb", "base=sd12"])
def test_a_mistyped_choice_fails_with_the_ones_there_are(empty, choice):
    group, name = choice.split("=")
    given = [] if group == "experiment" else ["experiment=controlnet"]
    with pytest.raises(
        Exception, match=f"(?s){name}.*Available options.*{'base' if group == 'experiment' else ''}"
    ):
        composed("train", *given, choice)


def test_a_machines_own_settings_hold_and_the_command_line_wins(empty, monkeypatch):
    text = (CONF / "local" / "example.yaml").read_text()
    own = empty.parent / "conf"
    (own / "local").mkdir(parents=True)
    (own / "local" / "default.yaml").write_text(text)
    (own / "local" / "train.yaml").write_text(
        "\n".join(
            line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")
        )
        .replace("slurm", "basic")
        .replace("hydra: {launcher: {partition: gpu, timeout_min: 600}}", "")
    )
    searched = f"hydra.searchpath=[file://{own}]"
    for command, given in (
        ("train", ["experiment=classifier"]),
        ("generate", []),
        ("evaluate", []),
    ):
        config = composed(command, *given, searched)
        assert config["data_root"] == "/scratch/me/cmr-data"
        assert composed(command, *given, searched, "data_root=x")["data_root"] == "x"
    config = composed("train", "experiment=classifier", searched)
    assert config["run_dir"].startswith("/scratch/me/cmr-runs/classifier/synthetic-0/")
    assert config["trainer"]["accelerator"] == "gpu" and "wandb" in config["logger"]
    assert (
        composed("train", "experiment=classifier", searched, "trainer=auto")["trainer"][
            "accelerator"
        ]
        == "auto"
    )


def test_an_experiment_is_required(empty):
    with pytest.raises(ConfigCompositionException, match="experiment"):
        composed("train")


def test_the_page_of_options_is_what_conf_says():
    done = python("scripts/options.py", "--check")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "options.md").read_text()
    for group in GROUPS:
        assert all(f"### {group}={path.stem}\n" in page for path in (CONF / group).glob("*.yaml"))
    assert "| `model.backbone` | `resnet18` |" in page and "| `plan.count` |" in page
