"""The factors of a study, and how an arm is named by their values.

A factor is a setting in which the finished runs differ, seed and fold apart: the number of
synthetic images, the mitigation, and whatever else was swept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmrcls.fairness.classifier_runs import SYNTHETIC, SYNTHETIC_SET, Run
from cmrcls.fairness.study import amount_in_words

REPEATS = ("seed", "fold", "cohort.fold", "cohort.seed")  # repeats of an arm, not arms


def swept_factors(of: Sequence[Run]) -> list[str]:
    """The settings, or groups of them, in which the runs differ: first what their commands named,
    then what files say.

    What a group's choice brings with it is none of its own, such as the loss of a mitigation; all
    else is, sets of another kind under the same path included, so that arms which differ in more
    than was asked are named.
    """
    named = {key for run in of for key in run.record.keys}
    chosen = {key for run in of for key in run.record.choices}
    settings = {key for run in of for key in run.record.settings}
    order = [
        SYNTHETIC,
        *sorted(named & chosen),
        *sorted(named - chosen),
        *sorted(chosen - named),
        SYNTHETIC_SET,
        *sorted(settings),
    ]
    swept: list[str] = []
    for key in dict.fromkeys(order):
        brings = [other for other in swept if other in chosen]
        if (
            key in REPEATS
            or not _differs(of, key)
            or (key not in named and key != SYNTHETIC_SET and _follows(of, key, brings))
        ):
            continue
        swept.append(key)
    return swept


def _title(key: str) -> str:
    """A factor in words: "synthetic images", "mitigation", "lr"."""
    return {SYNTHETIC: "synthetic images", SYNTHETIC_SET: "synthetic set"}.get(
        key, key.rpartition(".")[2]
    )


def titles(keys: Sequence[str]) -> dict[str, str]:
    """Each factor in words; its whole key where another one ends alike (model.pixels beside
    cohort.pixels)."""
    short = [_title(key) for key in keys]
    return {
        key: name if short.count(name) == 1 else key for key, name in zip(keys, short, strict=True)
    }


def value_of(run: Run, key: str) -> Any:
    """The value of a factor in a run: a group's choice, a setting, or which set it was trained
    on."""
    if key == SYNTHETIC_SET:
        return run.record.inputs.get(SYNTHETIC_SET, {}).get("kind")
    if key in run.record.choices:
        return run.record.choices[key]
    return run.record.settings.get(key)


def _differs(of: Sequence[Run], key: str) -> bool:
    values = {
        repr(value_of(run, key))
        for run in of
        if not (key == SYNTHETIC_SET and value_of(run, key) is None)
    }
    return len(values) > 1


def _follows(of: Sequence[Run], key: str, known: Sequence[str]) -> bool:
    """Whether the known factors decide the value of this one."""
    decided: dict[tuple[str, ...], str] = {}
    for run in of:
        at = tuple(repr(value_of(run, other)) for other in known)
        if decided.setdefault(at, repr(value_of(run, key))) != repr(value_of(run, key)):
            return False
    return True


def arm_names(firsts: Sequence[Run], called: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Names of arms, which differ: the paper's, and behind it each value that is not the
    experiment's own.

    Experiments of one's own set what no command names, and sets share a folder's name: arms of one
    name get what they differ in behind it, in the order of the factors.

    Args:
        firsts: a run of each arm.
        called: factor -> its title.

    Returns:
        Of each arm its name, and whether nothing but the number of synthetic images is in it.
    """
    names, usual = [], []
    for run in firsts:
        keys = [key for key in called if key != SYNTHETIC and is_named(run, key)]
        words = [_in_words(run, key, called[key]) for key in keys]
        names.append(", ".join([amount_in_words(run.record.settings[SYNTHETIC]), *words]))
        usual.append(not keys)
    full = []
    for run, name, is_usual in zip(firsts, names, usual, strict=True):
        alike = [other for other, same in zip(firsts, names, strict=True) if same == name]
        differ = [key for key in called if len({repr(value_of(other, key)) for other in alike}) > 1]
        words = [f"{called[key]} {_short(value_of(run, key))}" for key in differ]
        full.append((", ".join([name, *words]), is_usual and not words))
    return full


def values_in_words(firsts: Sequence[Run], key: str) -> list[str]:
    """The values of a factor among arms, given by a run of each."""
    words = (
        _set_name(run) if key == SYNTHETIC_SET else _short(value_of(run, key)) for run in firsts
    )
    return list(dict.fromkeys(words))


def sort_key(run: Run, keys: Sequence[str]) -> tuple[Any, ...]:
    """Where a run's arm stands in a table: by its other factors, the experiment's own values first;
    then by its amount."""
    others = []
    for key in (key for key in keys if key != SYNTHETIC):
        value = value_of(run, key)
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        others.append((is_named(run, key), number, str(value)))
    amount = str(run.record.settings[SYNTHETIC])
    return *others, amount == "only", int(amount) if amount.isdigit() else 0, amount


def is_named(run: Run, key: str) -> bool:
    """Whether an arm's name tells this factor: unless the value is the experiment's own."""
    if key == SYNTHETIC_SET:
        return value_of(run, key) is not None
    return key in run.record.keys


def _in_words(run: Run, key: str, called: str) -> str:
    value = value_of(run, key)
    if key == SYNTHETIC_SET:
        return f"set {_set_name(run)}"
    if key in run.record.choices:
        return str(value)
    return f"{called} {_short(value)}"


def _set_name(run: Run) -> str:
    parts = Path(run.record.inputs.get(SYNTHETIC_SET, {}).get("at") or "").parts
    return "/".join(parts[-2:]) or "unknown"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
