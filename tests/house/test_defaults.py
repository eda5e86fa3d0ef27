"""A setting has one default: what conf/ says is what a class or function takes by itself, so that the
commands and a script of one's own do the same."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import yaml
from hydra.utils import get_object

from support import ROOT

# (class, argument): a config says more than who calls it by hand
OWN = {
    ("ACDC", "name"),
    ("MnMs", "name"),
    ("MnMs2", "name"),
    ("UKBB", "label_map"),
    ("Classifier", "channels_last"),
    ("one_mask", "attribute"),
}


def settings(config: Any) -> Iterator[tuple[str, str, Any]]:
    """(dotted name, argument, value) of everything of ours that a YAML file builds."""
    if isinstance(config, list):
        for part in config:
            yield from settings(part)
    elif isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and target.startswith("cmr"):
            for name, value in config.items():
                if not (isinstance(value, str) and "${" in value):
                    yield target, name, value
        for part in config.values():
            yield from settings(part)


def test_defaults_of_settings_and_of_arguments_agree():
    others, checked = [], 0
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        for target, name, value in settings(yaml.safe_load(path.read_text())):
            parameters = inspect.signature(get_object(target)).parameters
            default = parameters[name].default if name in parameters else inspect.Parameter.empty
            if default is inspect.Parameter.empty:
                continue
            checked += 1
            same = (tuple(value) if isinstance(value, list) else value) == (
                tuple(default) if isinstance(default, list) else default
            )
            if not same and (target.rpartition(".")[2], name) not in OWN:
                others.append(f"{path.name}: {name}={value}, but {target} takes {default}")
    assert not others and checked > 90
