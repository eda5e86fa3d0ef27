"""Every command in README and docs does what it is written for: it composes, it is run, or it is
listed here with the reason why it can't be run on this machine."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from cmrstudy import commands, paths
from support import ROOT
from support.composing import composed

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
COMMAND = re.compile(r"\b(?:python (train|generate|evaluate)\.py|cmr (train|generate|evaluate))\b")
SHOWN = ("text", "yaml", "python", "bibtex")  # languages of blocks that nobody types
# what an inline span must begin with to be a whole command
TYPED = ("python ", "cmr ", "make ", "sbatch ", "srun ", "wandb ", "tensorboard ", "mlflow ")
ELSEWHERE = {  # beginning -> why it isn't run here
    "pip install": "asks a package index",
    "uv pip compile": "asks a package index",
    "wandb login": "asks W&B's server",
    "wandb sync": "asks W&B's server",
    "wandb sweep": "asks W&B's server; test_wandb_scripts fills in the agent's commands",
    "wandb agent": "asks W&B's server; test_wandb_scripts runs what it types",
    "find runs results": "asks W&B's server",
    "tensorboard": "serves until it is stopped",
    "mlflow": "serves until it is stopped, and needs the package mlflow",
    "python -m cmrgen.app": "serves until it is stopped; tests/gen/app looks at the page",
    "docker": "no container engine here; docs/container.md says what was tried in its place",
    "podman": "no container engine here",
    "apptainer": "no container engine here",
    "sbatch": "no SLURM here; the command within is composed",
    "srun": "no SLURM here; the command within is composed",
    "python benchmarks/": "minutes to hours; docs/results has what came out",
}
FLAGS = ("-m", "--multirun", "--resolve", "--help", "--info", "--cfg", "--shell-completion")


class Documented(NamedTuple):
    page: str
    line: str


def documented() -> Iterator[Documented]:
    """Each line of a block of commands, and each command within a sentence."""
    for page in PAGES:
        text, name = page.read_text(), page.relative_to(ROOT).as_posix()
        for language, block in BLOCK.findall(text):
            if language in SHOWN:
                continue
            assert language in ("", "console"), f"{name}: mark a block of {language} in SHOWN"
            block = _without_files(block.replace("\\\n", " "))
            for line in filter(None, map(str.strip, block.splitlines())):
                if language == "console" and not line.startswith("$ "):
                    continue
                yield Documented(name, re.sub(r"\s+# .*", "", line.removeprefix("$ ")))
        for span in SPAN.findall(BLOCK.sub("", text)):
            whole = span.startswith(TYPED) and " " in span and "..." not in span
            if whole and not span.endswith((".py", "train", "generate", "evaluate")):
                yield Documented(name, span)


def _without_files(block: str) -> str:
    """A block less the files that it writes."""
    return re.sub(r"^cat > .*? <<'END'\n.*?^END\n", "", block, flags=re.M | re.S)


LINES = list(dict.fromkeys(documented()))


def given(line: str) -> tuple[str, list[str]] | None:
    """(command, arguments) of a line with one of ours in it, also within srun, --wrap or eval."""
    line = re.sub(r"(<[\w ]+>)", lambda found: found[1].strip("<>").replace(" ", "_"), line)
    match = COMMAND.search(line)
    if match is None:
        return None
    rest = line[match.end() :].strip()
    if '"$(' in line[: match.start()]:
        rest = rest.split(")")[0]
    if "--wrap '" in line[: match.start()]:
        rest = rest.rstrip("'").replace("$SLURM_ARRAY_TASK_ID", "0")
    return match[1] or match[2], shlex.split(rest)


OURS = {}  # (command, arguments) -> where it stands; the same command needs one look
for of in LINES:
    if (words := given(of.line)) is not None and words != ("train", []):  # that lists experiments
        OURS.setdefault((words[0], tuple(words[1])), of.page)
FIRST = (
    "README.md",
    "docs/tutorial.md",
)  # what a newcomer types is looked at in every run of the tests


def variants(arguments: list[str], *, swept: bool) -> list[list[str]]:
    """The overrides of the first and of the last job of a sweep; of a single run, its own."""
    jobs: list[list[str]] = [[], []]
    for text in arguments:
        (override,) = OverridesParser.create().parse_overrides([text])
        if not override.is_sweep_override():
            for job in jobs:
                job.append(text)
            continue
        assert swept, f"{text} has several values; say -m"
        if "glob(" in text:
            return []  # of files that a reader makes
        values = list(override.sweep_string_iterator())
        for job, value in zip(jobs, (values[0], values[-1]), strict=True):
            job.append(f"{override.get_key_element()}={value}")
    return jobs if jobs[0] != jobs[1] else jobs[:1]


PARAMETERS = [
    pytest.param(
        command,
        arguments,
        id=f"{page}: {command} {' '.join(arguments)}",
        marks=[] if page in FIRST else [pytest.mark.slow],
    )
    for (command, arguments), page in OURS.items()
]


@pytest.mark.parametrize(("command", "arguments"), PARAMETERS)
def test_a_command_composes(command, arguments, tmp_path, monkeypatch):
    """As the command itself composes and checks it, before anything is read or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROJECT", str(tmp_path))
    monkeypatch.setattr(paths, "home", lambda: tmp_path)
    if "--help" in arguments or any("--shell-completion" in text for text in arguments):
        return
    if "--config-dir" in arguments:
        assert "mine" in arguments  # test_files_of_ones_own_are_found types it
        return
    swept = "-m" in arguments
    made = paths.arguments(list(arguments), began=tmp_path)
    plain = [text for text in made if not text.startswith("-") and text not in ("job", "defaults")]
    jobs = variants(plain, swept=swept)
    assert jobs, "nothing to compose"
    for job in jobs:
        overrides = [text for text in job if not text.startswith("hydra")]
        cfg = composed(command, *overrides)
        commands.prepared(cfg)
        assert OmegaConf.to_container(cfg, resolve=True)["run_dir"]
    assert list(tmp_path.iterdir()) == []


OTHERS = [of for of in LINES if given(of.line) is None]


@pytest.mark.parametrize("of", OTHERS, ids=lambda of: f"{of.page}: {of.line}")
def test_other_commands_are_there_or_say_why_they_are_not_run(of):
    words = [word for word in shlex.split(of.line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    line = " ".join(words)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert targets and set(targets) <= set(rules)
        return
    if words[0] in ("python", "python3") and words[1].startswith(("scripts/", "benchmarks/")):
        assert (ROOT / words[1]).is_file()
    if words[0] in ("python", "python3") and words[1].startswith("scripts/"):
        options = [word for word in words[2:] if word.startswith("--")]
        text = (ROOT / words[1]).read_text()
        assert all(f'"{option}"' in text for option in options)
        return
    if words[0] in ("mkdir", "export"):
        return
    assert any(line.startswith(begins) for begins in ELSEWHERE), (
        f"{of.page}: {of.line!r} is neither run nor listed in ELSEWHERE with a reason"
    )


def test_no_reason_is_left_over():
    lines = [of.line for of in OTHERS] + [of.line for of in LINES]
    stale = {begins for begins in ELSEWHERE if not any(begins in line for line in lines)}
    assert not stale, f"no page has {stale}"


def run(words: list[str], cwd: Path) -> str:
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_files_of_ones_own_are_found(tmp_path):
    """The blocks that write files, run as they stand, up to the config of each command."""
    seen = 0
    for page in PAGES:
        for language, block in BLOCK.findall(page.read_text()):
            if language or "<<'END'" not in block:
                continue
            script = (
                re.sub(
                    r"^(\w+=\S+ )?python (\w+)\.py (.*)$",
                    lambda m: f"{m[1] or ''}{sys.executable} {ROOT / m[2]}.py {m[3]} --cfg job",
                    block,
                    flags=re.M,
                )
                .replace(" -m ", " ")
                .replace("glob(study_*)", "study_lr")
                .replace("'seed=range(8)'", "seed=7")
                .replace("PYTHONPATH=mine ", f"PYTHONPATH=mine:{ROOT / 'src'} ")
            )
            done = subprocess.run(
                ["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True
            )
            assert done.returncode == 0, script + done.stdout + done.stderr
            seen += 1
    assert seen


@pytest.mark.slow
def test_help_and_completion_are_printed(tmp_path):
    assert "experiment=controlnet" in run([str(ROOT / "train.py"), "--help"], tmp_path)
    shown = run([str(ROOT / "train.py"), "--shell-completion", "install=bash"], tmp_path)
    assert "complete" in shown
    for script in ("wandb_report", "wandb_pictures"):
        assert "usage" in run([str(ROOT / "scripts" / f"{script}.py"), "--help"], tmp_path)
