"""What the three commands do before Hydra: help, paths, and words for what would otherwise be a
traceback.

Help is made from conf/ itself: the first comment of an experiment, the files of a group, the
comment behind a setting.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from cmrstudy import checks, paths
from cmrstudy.program import as_typed

HELP = ("-h", "--help")
COMPOSED = ("--info", "-i", "--cfg", "-c")  # Hydra's own flags that compose a config first
HIDDEN = ("hydra", "experiment", "model", "local")  # groups that nobody chooses from
# what people change: command -> setting, as conf/<command>.yaml or <group>/<option>:key has it
SETTINGS = {
    "train": (
        "train:seed",
        "train:fold",
        "train:resume",
        "train:overwrite",
        "train:stale",
        "train:refresh",
        "train:data_root",
        "cohort/ukbb:root",
        "cohort/ukbb:table",
        "cohort/ukbb:exclude",
        "cohort/phantom:hf_scale",
        "base/sd21:weights",
        "base/sd21:channels",
        "experiment/classifier:synthetic",
        "experiment/classifier:synthetic_set",
        "experiment/classifier:harmonise",
        "experiment/classifier:labels",
        "experiment/classifier:budget",
        "model/classifier:backbone",
        "model/classifier:lr",
        "trainer/auto:precision",
        "trainer/auto:devices",
        "trainer/auto:max_epochs",
    ),
    "generate": (
        "generate:generator",
        "generate:seed",
        "generate:images",
        "generate:batch_size",
        "generate:shard",
        "generate:precision",
        "generate:compile",
        "generate:resume",
        "generate:overwrite",
        "plan/balanced:count",
        "plan/balanced:missing",
        "plan/balanced:per_person",
        "plan/balanced:per_mask",
        "plan/balanced:thin",
        "sampler/unipc:steps",
        "sampler/unipc:guidance",
        "sampler/unipc:guides",
    ),
    "evaluate": (
        "evaluate:classifiers",
        "evaluate:synthetic_set",
        "evaluate:arms",
        "evaluate:baseline",
        "evaluate:axes",
        "evaluate:resamples",
        "evaluate:audit",
        "evaluate:backbones",
        "evaluate:fold",
        "evaluate:overwrite",
    ),
}
FROM = {
    "generate": "generator=runs/controlnet-{0}/0",
    "evaluate": "synthetic_set=runs/synthetic-{0}/0",
}
# option of hydra/launcher or hydra/sweeper, or a package -> the package it needs, the extra that
# has it
EXTRAS = {
    "slurm": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "slurm_cpu": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "cluster"),
    "processes": ("hydra_plugins.hydra_joblib_launcher", "cluster"),
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "cluster"),
    "tune": ("hydra_plugins.hydra_optuna_sweeper", "cluster"),
    "optuna": ("hydra_plugins.hydra_optuna_sweeper", "cluster"),
    "ray_gpu": ("hydra_plugins.hydra_ray_launcher", "ray"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
}


def start_command(command: str, *, conf: Path, about: str) -> None:
    """What happens before Hydra reads the command line; ends the program where help was asked or
    something lacks.

    Args:
        command: train, generate or evaluate.
        conf: the folder of the config.
        about: the first lines of the command's help.
    """
    given = sys.argv[1:]
    sweeps = bool(set(given) & set(paths.MULTIRUN))
    if set(given) & set(HELP):
        print(as_typed(help_text(command, conf=conf, about=about)))
        sys.exit(0)
    if command == "train" and not given:
        sys.exit(as_typed(f"{about}\n\n{experiments(conf)}\n\npython train.py --help tells more."))
    if sweeps and set(given) & set(COMPOSED):
        sys.exit(
            "error: --cfg and --info show the config of one run; leave -m out, and give each "
            "setting one value"
        )
    for text in given:
        key, _, option = text.partition("=")
        if (
            key in ("hydra/launcher", "hydra/sweeper")
            and option in EXTRAS
            and not _there(EXTRAS[option][0])
        ):
            sys.exit(
                as_typed(
                    f"error: {text} needs the extra {EXTRAS[option][1]}: pip install -e "
                    f"'.[{EXTRAS[option][1]}]'"
                )
            )
        if option == "null" and (conf / key).is_dir() and "/" not in key:
            options = sorted(
                path.stem for path in (conf / key).glob("*.yaml") if not path.stem.startswith("_")
            )
            sys.exit(
                f"error: {text}: {key} takes {', '.join(options)}; for none leave it out, or give "
                f"{key}=[]"
            )
        if command in FROM and key.lstrip("+") == "base":
            sys.exit(
                f"error: {text}: {command}.py takes the base from {FROM[command].format(option)}"
            )
    if (
        command == "train"
        and set(given) & set(COMPOSED)
        and not any(text.startswith("experiment=") for text in given)
    ):
        sys.argv.insert(1, "experiment=controlnet")  # Hydra shows nothing without one
    check_yaml([conf / "local", *paths.config_folders(given)])
    if sweeps and os.environ.pop("WANDB_RUN_ID", ""):
        print("WANDB_RUN_ID is not used: each run of a sweep has an id of its own", flush=True)
    sys.excepthook = partial(_ends, sweeps=sweeps)
    paths.start()


def _ends(
    kind: type[BaseException], error: BaseException, trace: Any, *, sweeps: bool = False
) -> None:
    """Ctrl-C is no fault of the program: a sentence says how it goes on, unless whoever was at work
    has told it."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    elif sweeps:
        from cmrstudy.jobs import GO_ON

        print(f"The sweep ends here. {GO_ON}", file=sys.stderr, flush=True)
    elif not error.args:
        print("\ninterrupted; the same command continues", file=sys.stderr, flush=True)


def check_yaml(folders: Iterable[Path]) -> None:
    """End the program with file and line where a user's config file is no YAML."""
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        try:
            yaml.safe_load(path.read_text())
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else "?"
            sys.exit(f"error: {path}, line {line}: {error.problem}; quote what holds {{, }} or :")


def _there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def help_text(command: str, *, conf: Path, about: str) -> str:
    """What the command does, its experiments, groups and most used settings."""
    parts = [about]
    if command == "train":
        parts.append(experiments(conf, *paths.config_folders(sys.argv[1:])))
    groups = "\n".join(
        f"  {name + '=':13s} {', '.join(options)}"
        for name, options in _groups(command, conf, paths.config_folders(sys.argv[1:]))
    )
    settings = "\n".join(_lines(SETTINGS[command], conf))
    parts += [
        f"Choices (a file each in conf/<group>/, or in the folder of --config-dir):\n{groups}",
        f"Settings people change (all others: --cfg job):\n{settings}",
        "  key=value sets, +key=value adds, -m key=a,b sweeps, --cfg job --resolve shows the "
        "config and does nothing,\n  --info defaults shows where it comes from, "
        "--shell-completion installs completion.\nDocs: README.md, docs/howto.md, "
        "docs/options.md. Paths with odd characters are taken as they are: docs/paths.md.",
    ]
    return "\n\n".join(parts)


def experiments(*folders: Path) -> str:
    """Name and first comment of each file in the experiment/ of config folders."""
    files = [path for folder in folders for path in sorted(folder.glob("experiment/*.yaml"))]
    return "\n".join(
        f"  experiment={f.stem:12s} {_comment(f.read_text().splitlines())}" for f in files
    )


def _comment(lines: Sequence[str]) -> str:
    told = (line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line)
    return next(told, "")


def _groups(command: str, conf: Path, own: Sequence[Path]) -> Iterator[tuple[str, list[str]]]:
    """Groups that the command's defaults list names, with their options, a user's own among
    them."""
    texts = [(conf / f"{command}.yaml").read_text()]
    if command == "train":
        texts += [path.read_text() for path in sorted((conf / "experiment").glob("*.yaml"))]
    named = {
        name
        for text in texts
        for name in re.findall(r"^  - (?:optional |override )?/?(\w+)", text, re.M)
    }
    for folder in sorted(path for path in conf.iterdir() if path.is_dir()):
        if folder.name in named and folder.name not in HIDDEN:
            files = (
                path for place in (conf, *own) for path in (place / folder.name).glob("*.yaml")
            )
            yield folder.name, sorted({f.stem for f in files if not f.stem.startswith("_")})


def _lines(settings: Sequence[str], conf: Path) -> Iterator[str]:
    """ "  seed=0           ..." for each of SETTINGS, with the value and the comment that its file
    has."""
    for name in settings:
        place, _, key = name.partition(":")
        found = re.search(
            rf"^ *{key}: *(.*?)(?:\s+# (.*))?$", (conf / f"{place}.yaml").read_text(), re.M
        )
        assert found, f"conf/{place}.yaml has no {key}"
        group = (
            place.partition("/")[0] if "/" in place and not place.startswith("experiment/") else ""
        )
        value = "..." if found[1].startswith(("$", "{", "???")) else found[1]
        yield f"  {f'{group}.{key}'.lstrip('.') + '=' + value:28s} {found[2] or ''}".rstrip()


def prepared(cfg: DictConfig) -> None:
    """A composed config ready for use: its paths plain, its plain settings of the right kind;
    printed where asked.

    Raises ValueError naming the setting and what it takes.
    """
    paths.expand(cfg)
    checks.check(cfg)
    if "audit" in cfg and not isinstance(cfg.audit, bool) and cfg.get("task") != "share":
        raise ValueError(f"audit={cfg.audit}: it takes true or false")
    if cfg.get("print_config"):
        print_config(cfg)


def print_config(cfg: Any) -> None:
    """The resolved config as YAML, in colours on a terminal."""
    from omegaconf import OmegaConf
    from rich.console import Console
    from rich.syntax import Syntax

    text = OmegaConf.to_yaml(cfg, resolve=True)
    console = Console()
    console.print(
        Syntax(text, "yaml", background_color="default") if console.is_terminal else text.rstrip(),
        highlight=False,
    )
