"""Paths as people have them: `~`, variables, `M&Ms (1)`, another working directory; made plain
before Hydra reads them.

The commands of a checkout work in it (or in CMR_HOME), whatever directory they are started from:
this home has data/, runs/ and results/. Installed from a wheel they work in the folder where they
are started. A relative path typed on the command line is the working directory's where something is
there, or where it says where to write; else it is the home's.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cmrstudy.grammar import SWEPT, UNREADABLE, value_of
from cmrstudy.identity import COHORT_PLACES, INPUTS
from cmrstudy.program import IN_CHECKOUT, PROGRAM

# where a command writes
WRITTEN = ("run_dir", "data_root", "preset.runs", "hydra.sweep.dir")
PLACES = (  # settings that are paths
    *WRITTEN,
    *INPUTS,
    "preset.base",
    "audit",
    "backbones.*",
    "model.weights",
    "ckpt_path",
    *COHORT_PLACES,
)
ABSOLUTE = re.compile(  # quoted, or up to the next character that ends a value
    r"""(?:(?<=[=\[,{:])|^)(?:(['"])(?:[/\\]|~|[A-Za-z]:[/\\])(?:\\.|(?!\1).)*\1|(?:/|\\\\|[A-Za-z]:[/\\]|~/)[^,\]}]*)"""
)
MULTIRUN = ("-m", "--multirun")
FLAGS = ("--config-dir", "-cd", "--config-path", "-cp")  # of Hydra, followed by a folder
OmegaConf.register_new_resolver("place", lambda value: plain(str(value)), replace=True)


def home() -> Path:
    """The folder of data/, runs/ and results/: CMR_HOME, else the checkout, else the working
    directory."""
    if given := os.environ.get("CMR_HOME"):
        return Path(plain(given)).absolute()
    return PROGRAM if IN_CHECKOUT else Path.cwd()


def plain(path: str) -> str:
    """A path with `~` and environment variables filled in."""
    return os.path.expandvars(os.path.expanduser(path))


def shipped(path: str | Path) -> Path:
    """A file that comes with the program, such as assets/phantom-base: below the working directory,
    else where the program lies."""
    path = Path(path)
    return (
        path
        if path.is_absolute() or path.exists() or not (PROGRAM / path).exists()
        else PROGRAM / path
    )


def shareable(arguments: Sequence[str]) -> str:
    """A command line as others may see it: every place on this machine is <path>."""
    return " ".join([Path(arguments[0]).name, *map(_without_places, arguments[1:])])


def _without_places(text: str) -> str:
    key, _, value = text.partition("=")
    if any(fnmatchcase(key.lstrip("+~"), pattern) for pattern in PLACES):
        public = value in ("", "null") or (
            not key.startswith("cohort.") and not re.search(r"[/\\]|^~", value)
        )
        return text if public or _on_a_hub(key, value) else f"{key}=<path>"
    return ABSOLUTE.sub("<path>", text)


def _on_a_hub(key: str, value: str) -> bool:
    return (
        key == "base.weights"
        and bool(re.fullmatch(r"[\w.-]*\w/[\w.-]+", value))
        and not Path(value).exists()
    )


def start() -> None:
    """Prepare a command: its arguments as Hydra can read them, its working directory the home. Call
    it before Hydra."""
    began = Path.cwd()
    sys.argv = [os.path.abspath(sys.argv[0]), *arguments(sys.argv[1:], began=began)]
    sys.path[:] = [os.path.abspath(entry) if entry else str(began) for entry in sys.path]
    folder = home()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
    except OSError as error:
        sys.exit(
            f"error: CMR_HOME={folder} can't be used: {error.strerror}; give a folder that may be "
            "written"
        )
    sys.argv[1:] = _with_own_conf(sys.argv[1:], folder)


def _with_own_conf(given: list[str], folder: Path) -> list[str]:
    """The arguments by which Hydra also looks into the home's own conf/, where it has one."""
    own = folder / "conf"
    searched = any(text.lstrip("+").startswith("hydra.searchpath=") for text in given)
    if searched or not own.is_dir() or own.samefile(PROGRAM / "conf"):
        return given
    # beside the overrides, since Hydra's parser takes no flag between them
    are_overrides = (text[:1] in ("+", "~") or ("=" in text and text[0] != "-") for text in given)
    at = next((k for k, is_override in enumerate(are_overrides) if is_override), len(given))
    return [*given[:at], f"hydra.searchpath=[{_quoted(f'file://{own}')}]", *given[at:]]


def config_folders(given: Sequence[str]) -> list[Path]:
    """Folders of a user's own configs among the arguments of a command."""
    values = []
    for flag, following in zip(given, [*given[1:], ""], strict=False):  # one more if there is none
        name, has_value, value = flag.partition("=")
        if name in FLAGS[:2]:
            values.append(value if has_value else following)
    return [Path(plain(value)) for value in values if value]


def arguments(given: list[str], *, began: Path) -> list[str]:
    """Arguments of a command as Hydra can read them, paths in them plain.

    Exits with what to type where Hydra's grammar refuses an argument that is no path.
    """
    several = any(flag in given for flag in MULTIRUN)
    made, expects = [], False
    for text in given:
        if expects or text.split("=")[0] in FLAGS[:1] + FLAGS[2:3] and "=" in text:
            flag, value = ("", text) if expects else text.split("=", 1)
            place = str((began / plain(value)).absolute())
            made.append(place if expects else f"{flag}={place}")
            expects = False
            continue
        expects = text in FLAGS
        made.append(
            text
            if text.startswith("-") or "=" not in text
            else _override(text, several=several, began=began)
        )
    # Hydra's parser takes no flag between overrides
    return sorted(made, key=lambda text: text not in MULTIRUN)


def _override(text: str, *, several: bool, began: Path) -> str:
    key, value = text.split("=", 1)
    bare = key.lstrip("+~")
    if any(fnmatchcase(bare, pattern) for pattern in PLACES) and value:
        return f"{key}={_places(bare, value, several=several, began=began)}"
    if value_of(text) is UNREADABLE:
        quoted = f"{key}={_quoted(value)}"
        sys.exit(
            f"error: Hydra can't read {text!r}, because a character in it means something in its "
            f"grammar. Type\n  {_for_the_shell(quoted)}\n(the outer quotes are the shell's, the "
            "inner ones Hydra's)"
        )
    return text


def _for_the_shell(text: str) -> str:
    """In double quotes where these mean nothing to a shell that stands in them: easier to read than
    shlex's."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'


def _places(key: str, value: str, *, several: bool, began: Path) -> str:
    """A path, or with -m several separated by commas, as Hydra reads it."""
    if value[0] in "[{" or "${" in plain(value) or value in ("null", "true", "false"):
        return value
    made = []
    for part in map(str.strip, _split(value)) if several else [value]:
        place = _placed(key, part, began)
        made.append(_quoted(place) if _needs_quotes(place) else place)
    return ",".join(made)


def _split(value: str) -> list[str]:
    """At the commas outside quotes."""
    return re.findall(r"""(?:'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|[^,])+""", value)


def _placed(key: str, part: str, began: Path) -> str:
    path = plain(_unquoted(part))
    if not path or os.path.isabs(path) or began == home():
        return path
    here = began / path
    return str(here) if key in WRITTEN or here.exists() or glob(str(here)) else path


def _unquoted(part: str) -> str:
    """The text within Hydra's quotes, where it has any."""
    bare = part.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "'\"":
        value = value_of(f"key={bare}")
        return value if isinstance(value, str) else bare[1:-1]
    return part


def _needs_quotes(part: str) -> bool:
    """Whether Hydra would refuse a path, or read something else than what stands there."""
    value = value_of(f"key={part}")
    return value in (UNREADABLE, SWEPT) or str(value) != part


def _quoted(text: str) -> str:
    """A text in Hydra's quotes, in which a backslash means something before a quote alone."""
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", text)
    return "'" + re.sub(r"(\\+)$", lambda found: found[1] * 2, escaped) + "'"


def expand(cfg: DictConfig) -> None:
    """Fill in `~` and variables in every path of a composed config, wherever it comes from (a file,
    the environment)."""
    for key in _keys(cfg):
        if any(fnmatchcase(key, pattern) for pattern in PLACES):
            value = OmegaConf.select(cfg, key)
            if isinstance(value, str) and plain(value) != value:
                OmegaConf.update(cfg, key, plain(value))


def _keys(node: Any, at: str = "") -> list[str]:
    found = []
    for name in node:
        key = f"{at}.{name}".lstrip(".")
        if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            found.append(key)
        elif OmegaConf.is_dict(node[name]):
            found += _keys(node[name], key)
        else:
            found.append(key)
    return found
