"""Names of run folders from what a command overrides, and the jobs of a sweep before the first one
starts.

Beside the three commands only this file and cmrstudy.grammar know Hydra. A name is readable, short
and the same from whatever
shell: `runs/classifier/synthetic-2000-budget-steps-model.lr-0.0003/3`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cmrstudy import by_base, runs
from cmrstudy.grammar import parsed
from cmrstudy.identity import INPUTS, PLACED, in_scope, is_how, is_input, settings

LONGEST = 96  # characters of the parts of a name; the rest becomes a hash
# stand elsewhere in the path, or say how a machine computes
NAMELESS = ("experiment", "preset", "trainer", "seed")


class Job(NamedTuple):
    """One job of a sweep, composed but not begun."""

    overrides: list[str]
    config: DictConfig  # as the job sees it
    choices: dict[str, Any]
    folder: str

    def pattern(self, key: str) -> str:
        """The run's name or folder as the config writes it, before it is filled in."""
        raw: Any = OmegaConf.to_container(self.config, resolve=False)
        return str(raw[key])


def register_name_resolvers() -> None:
    """Tell OmegaConf of `${differing:...}` and `${scope:}`, the parts of a run's name; importing
    this file does."""
    for name, resolver in (("differing", _differing), ("scope", _scope)):
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    by_base.register_base_resolvers()


def _scope(*named: str, _root_: Any) -> str:
    """ "-ukbb-fold-3": what the study's cohort and fold differ in from the experiment's own."""
    return _joined(parts(_root_, lambda key: in_scope(key) and not _among(key, named)))


def _differing(*named: str, _root_: Any) -> str:
    """ "-budget-steps-sd21": all else that is overridden, but for the keys that the name has
    already."""
    return _joined(parts(_root_, lambda key: not in_scope(key) and not _among(key, named)))


def _among(key: str, names: Iterable[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _joined(named: Mapping[str, str]) -> str:
    text = "".join(f"-{part}" for part in named.values())
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 9].rstrip('-._')}-{_digest(text, 8)}"


def parts(root: Any, wanted: Callable[[str], bool] = lambda key: True) -> dict[str, str]:
    """Key -> part of the name, of every wanted override that changes what is run, in the order of
    the keys."""
    hydra = _hydra(root)
    if hydra is None:
        return {}
    given = {_key(text): text for text in _typed(hydra)}
    unused = tuple(OmegaConf.select(root, "unused", default=None) or ())
    groups = set(hydra.runtime.choices)
    chosen = tuple(text for key, text in given.items() if key in groups)
    sources = tuple(
        (of.provider, f"{of.schema}://{of.path}") for of in hydra.runtime.config_sources
    )
    compose = partial(_composed, hydra.job.config_name, sources=sources)
    named = {}
    for key in sorted(given):
        if (
            is_how(key)
            or key in NAMELESS
            or not wanted(key)
            or (_among(key, unused) and not in_scope(key))
        ):
            continue
        (override,) = parsed((given[key],))
        if key in groups:
            own = compose(tuple(given[name] for name in ("experiment", "preset") if name in given))
            if override.value != own.hydra.runtime.choices.get(key):
                named[key] = _shown(override.value) if override.value else f"no-{key}"
            continue
        if "${" in str(override.value):
            override = override._replace(value=_own(root, key))
        usual = _own(compose(chosen), key)
        if is_input(key, override.value):
            part = _place(key, override.value, usual=usual, scope=_scope(_root_=root))
        elif override.deleted:
            part = f"no-{key}"
        else:
            part = "" if _same(override.value, usual) else f"{key}-{_shown(override.value)}"
        if part:
            named[key] = part
    return named


def _hydra(root: Any) -> Any:
    """Hydra's own settings of this job: beside the config while it is composed, else those of the
    running job."""
    if "hydra" in root and OmegaConf.select(root, "hydra.runtime.choices"):
        return root.hydra
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get() if HydraConfig.initialized() else None


def _typed(hydra: Any) -> list[str]:
    """The overrides as typed: what is in them is resolved in their job, not here."""
    return list(OmegaConf.to_container(hydra.overrides.task, resolve=False))  # type: ignore[arg-type]


def _key(override: str) -> str:
    """The key of an override as typed: "+a.b=3" -> "a.b"."""
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]


def request(cfg: DictConfig) -> runs.Request:
    """What a command asks of its run folder, from its config and Hydra's record of what was
    typed."""
    hydra = _hydra(cfg)
    choices = {
        key: value
        for key, value in (hydra.runtime.choices if hydra else {}).items()
        if "/" not in key
    }
    for key in ("hydra", "experiment", "preset", "logger", "local", "trainer"):
        choices.pop(key, None)
    places = {key: _own(cfg, key) for key in INPUTS}
    places |= {key: value for key in PLACED if is_input(key, value := _own(cfg, key))}
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    swept = hydra is not None and hydra.mode is not None and hydra.mode.name == "MULTIRUN"
    sweep = (Path(hydra.sweep.dir), int(hydra.job.num)) if swept else None
    return runs.Request(
        Path(config["run_dir"]), config, settings(cfg), choices, list(parts(cfg)), places, sweep
    )


@lru_cache(maxsize=256)
def _composed(
    config_name: str, overrides: tuple[str, ...], sources: tuple[tuple[str, str], ...]
) -> DictConfig:
    """The config with these overrides alone, to tell what the experiment's own values are."""
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.types import RunMode

    search_path = ConfigSearchPathImpl()
    for provider, path in sources:
        search_path.append(provider, path)
    return ConfigLoaderImpl(search_path).load_configuration(
        config_name=config_name, overrides=list(overrides), run_mode=RunMode.RUN, from_shell=False
    )


def _own(config: DictConfig, key: str) -> Any:
    """The value of a key without the override; None where there is none or it can't be told."""
    try:
        value = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        return None
    if isinstance(value, DictConfig | ListConfig):
        return OmegaConf.to_container(value, resolve=True)
    return value


def _same(a: Any, b: Any) -> bool:
    """Whether an override repeats what is there anyway: 1e-4 is 0.0001, but true is not 1."""
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def _shown(value: Any) -> str:
    """A value in a file name: readable, without `=`, and never alike for two values on any file
    system."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list):
        return "+".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return _digest(repr(sorted(value.items())), 6)
    text = unicodedata.normalize("NFC", str(value))
    safe = re.sub(r"[^a-z0-9._+-]+", "_", text.lower()).strip("._-") or "x"
    return safe if safe == text else f"{safe}-{_digest(text, 4)}"


def _place(key: str, value: Any, *, usual: Any, scope: str) -> str:
    """The part of a name for an input's folder: what its own name adds to the usual one's.

    runs/controlnet-sd21/0 beside the usual runs/controlnet/0 gives "sd21", so that a set is named
    as its generator is.
    """
    if value is None or str(value).rstrip("/") == str(usual).rstrip("/"):
        return ""
    name, seed = _last_two(value)
    usual_name, usual_seed = _last_two(usual) if usual else ("", "")
    stem = usual_name.removesuffix(scope)
    if not stem or not name.startswith(stem):
        return f"{key}-{_shown(name)}" + (f"-{_shown(seed)}" if seed not in ("", "0") else "")
    rest = name.removeprefix(stem).removesuffix(scope).strip("-")
    parts = [_shown(rest)] if rest else []
    if seed != usual_seed:
        parts.append(f"{key}-{_shown(seed)}")
    return "-".join(parts)


def _last_two(path: Any) -> tuple[str, str]:
    """("controlnet", "0") of runs/controlnet/0, ("mine.csv", "") of plans/mine.csv: a run's name
    and its seed."""
    parts = PurePosixPath(str(path).replace("\\", "/")).parts
    if len(parts) > 1 and parts[-1].isdigit():
        return parts[-2], parts[-1]
    return (parts[-1] if parts else ""), ""


def _digest(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def composed_jobs(config: DictConfig) -> list[Job]:
    """The jobs of a sweep, composed as its launcher will; empty where the sweeper decides as it
    goes (a search)."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        return []
    loader = GlobalHydra.instance().config_loader()
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given = OverridesParser.create(config_loader=loader).parse_overrides(
        [*params, *_typed(config.hydra)]
    )
    return [
        _job(loader.load_sweep_config(config, of), of)
        for of in BasicSweeper.split_arguments(given, None)[0]
    ]


def _job(config: DictConfig, overrides: list[str]) -> Job:
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(config)  # for ${hydra:...}
    choices = dict(config.hydra.runtime.choices)
    task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return Job(overrides, task, choices, str(task.run_dir))


register_name_resolvers()
