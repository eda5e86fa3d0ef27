"""The runs of a study: which settings a sweep varied, the arms they make, and what is there,
unsound or missing of each.

A factor is a setting in which the finished runs differ, seed and fold apart: the number of
synthetic images, the mitigation, and whatever else was swept. An arm is a combination of the
factors' values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmrcls.fairness.study import UNKNOWN
from cmrstudy import runs
from cmrstudy.inputs import fingerprint_at

SYNTHETIC = "synthetic"  # the factor of the paper's study
APART = ("seed", "fold", "cohort.fold", "cohort.seed")  # repeats of an arm, not arms
SET = "synthetic_set"
COLUMNS = ("arm", "fold", "seed", "state", "told", "run")
STATES = ("finished", "unfinished", "failed", "absent")


class Run(NamedTuple):
    """A classifier run below a study's folder."""

    record: runs.Record
    seed: int
    fold: int | None

    @property
    def folder(self) -> Path:
        return self.record.folder

    @property
    def group(self) -> str:
        """The name of its folder without the seed, as a command's `name=` would give it."""
        return self.folder.parent.name

    def fingerprint(self, key: str) -> str | None:
        """Of an input; None where the run has none of that name."""
        return self.record.inputs.get(key, {}).get("fingerprint")


class Arm(NamedTuple):
    """A combination of the factors' values, with its runs."""

    name: str  # for readers
    values: dict[str, Any]
    runs: list[Run]
    usual: bool  # none of its values, the synthetic images apart, differs from the experiment's own

    @property
    def groups(self) -> list[str]:
        return sorted({run.group for run in self.runs})


class Study(NamedTuple):
    """The arms in the order of a table, and what they differ in."""

    arms: list[Arm]
    factors: dict[str, list[str]]  # title -> its values in words
    input: str

    @property
    def runs(self) -> list[Run]:
        return [run for arm in self.arms for run in arm.runs]

    def finished(self) -> list[tuple[Arm, Run]]:
        return [
            (arm, run) for arm in self.arms for run in arm.runs if run.record.state == "finished"
        ]


def read(folder: Path, *, shown: str = "stack") -> list[Run]:
    """The classifier runs below `folder`, at any depth, that saw the input `shown`; others are
    passed over."""
    found = []
    for path in sorted(Path(folder).glob("**/run.json")):
        record = runs.record(path.parent)
        if record is None or SYNTHETIC not in record.settings:
            continue
        if record.settings.get("input.name", "stack") == shown:
            found.append(Run(record, record.settings["seed"], record.settings.get("fold")))
    return found


def study(of: Iterable[Run], *, shown: str = "stack", wanted: Sequence[str] | None = None) -> Study:
    """The arms of some runs.

    Args:
        of: the runs.
        shown: what their images were.
        wanted: names or folders of the arms to keep, with * for any characters; None for all.

    Raises ValueError naming a wanted arm that there is not.
    """
    of = list(of)
    keys = factors(of)
    arms: dict[tuple[str, ...], list[Run]] = {}
    for run in of:
        arms.setdefault(tuple(repr(_value(run, key)) for key in keys), []).append(run)
    called = titles(keys)
    made = _told_apart([_arm(some, called) for some in arms.values()], called)
    made.sort(key=lambda arm: _place(arm, keys))
    return Study(
        _chosen(made, wanted), {called[key]: _values_in_words(made, key) for key in keys}, shown
    )


def factors(of: Sequence[Run]) -> list[str]:
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
        SET,
        *sorted(settings),
    ]
    found: list[str] = []
    for key in dict.fromkeys(order):
        brings = [other for other in found if other in chosen]
        if (
            key in APART
            or not _differs(of, key)
            or (key not in named and key != SET and _follows(of, key, brings))
        ):
            continue
        found.append(key)
    return found


def title(key: str) -> str:
    """A factor in words: "synthetic images", "mitigation", "lr"."""
    return {SYNTHETIC: "synthetic images", SET: "synthetic set"}.get(key, key.rpartition(".")[2])


def titles(keys: Sequence[str]) -> dict[str, str]:
    """Each factor in words; its whole key where another one ends alike (model.pixels beside
    cohort.pixels)."""
    short = [title(key) for key in keys]
    return {
        key: name if short.count(name) == 1 else key for key, name in zip(keys, short, strict=True)
    }


def _value(run: Run, key: str) -> Any:
    """The value of a factor in a run: a group's choice, a setting, or which set it was trained
    on."""
    if key == SET:
        return run.record.inputs.get(SET, {}).get("kind")
    if key in run.record.choices:
        return run.record.choices[key]
    return run.record.settings.get(key)


def _differs(of: Sequence[Run], key: str) -> bool:
    values = {repr(_value(run, key)) for run in of if not (key == SET and _value(run, key) is None)}
    return len(values) > 1


def _follows(of: Sequence[Run], key: str, known: Sequence[str]) -> bool:
    """Whether the known factors decide the value of this one."""
    decided: dict[tuple[str, ...], str] = {}
    for run in of:
        at = tuple(repr(_value(run, other)) for other in known)
        if decided.setdefault(at, repr(_value(run, key))) != repr(_value(run, key)):
            return False
    return True


def _arm(of: list[Run], called: Mapping[str, str]) -> Arm:
    """An arm of some runs. called: factor -> its title."""
    first = of[0]
    values = {key: _value(first, key) for key in called}
    number = str(first.record.settings[SYNTHETIC])
    words = [_amount(number)]
    shown = [key for key in called if key != SYNTHETIC and _named(first, key)]
    words += [_in_words(first, key, called[key]) for key in shown]
    return Arm(", ".join(words), values, of, not shown)


def _told_apart(arms: list[Arm], called: Mapping[str, str]) -> list[Arm]:
    """The arms under names that differ: experiments of one's own set what no command names, and
    sets share a folder's name.

    Arms of one name get what they differ in behind it, in the order of the factors.
    """
    alike: dict[str, list[Arm]] = {}
    for arm in arms:
        alike.setdefault(arm.name, []).append(arm)
    made = []
    for arm in arms:
        others = alike[arm.name]
        differ = [key for key in called if len({repr(other.values[key]) for other in others}) > 1]
        words = [f"{called[key]} {_short(arm.values[key])}" for key in differ]
        made.append(arm._replace(name=", ".join([arm.name, *words]), usual=arm.usual and not words))
    return made


def _amount(synthetic: str) -> str:
    """ "0" is Real, "2000" Real + 2000, "only" Synthetic, as the paper names its arms."""
    return {"0": "Real", "only": "Synthetic"}.get(synthetic, f"Real + {synthetic}")


def _named(run: Run, key: str) -> bool:
    """Whether an arm's name tells this factor: unless the value is the experiment's own."""
    if key == SET:
        return _value(run, key) is not None
    return key in run.record.keys


def _in_words(run: Run, key: str, called: str) -> str:
    value = _value(run, key)
    if key == SET:
        return f"set {_set_name(run)}"
    if key in run.record.choices:
        return str(value)
    return f"{called} {_short(value)}"


def _set_name(run: Run) -> str:
    parts = Path(run.record.inputs.get(SET, {}).get("at") or "").parts
    return "/".join(parts[-2:]) or "unknown"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _values_in_words(arms: Sequence[Arm], key: str) -> list[str]:
    shown = (_set_name(arm.runs[0]) if key == SET else _short(arm.values[key]) for arm in arms)
    return list(dict.fromkeys(shown))


def _place(arm: Arm, keys: Sequence[str]) -> tuple[Any, ...]:
    """Where an arm stands in a table: by its other factors, the experiment's own values first; then
    by its amount."""
    run = arm.runs[0]
    others = []
    for key in (key for key in keys if key != SYNTHETIC):
        value = arm.values[key]
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0
        others.append((_named(run, key), number, str(value)))
    amount = str(run.record.settings[SYNTHETIC])
    return *others, amount == "only", int(amount) if amount.isdigit() else 0, amount


def _chosen(arms: list[Arm], wanted: Sequence[str] | None) -> list[Arm]:
    if wanted is None:
        return arms
    kept = []
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        hits = [arm for arm in arms if matches(arm, str(pattern))]
        if not hits:
            raise ValueError(f"arms={pattern}: no such arm. There are {_listed(arms)}")
        kept += hits
    return [arm for arm in arms if arm in kept]


def matches(arm: Arm, pattern: str) -> bool:
    """Whether an arm is meant by a name or a folder, with * for any characters; a name itself may
    hold brackets."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in (arm.name, *arm.groups))


def _listed(arms: Iterable[Arm]) -> str:
    return "; ".join(f"{arm.name!r} ({', '.join(arm.groups)})" for arm in arms)


def baseline(arms: Sequence[Arm], wanted: str | None = None) -> str | None:
    """The name of the arm that others are compared with: the one asked for, else real images with
    the usual settings."""
    if wanted is not None:
        hits = [arm.name for arm in arms if matches(arm, str(wanted))]
        if len(hits) != 1:
            raise ValueError(
                f"baseline={wanted}: {len(hits)} arms of that name. There are {_listed(arms)}"
            )
        return hits[0]
    real = [arm for arm in arms if str(arm.runs[0].record.settings[SYNTHETIC]) == "0"]
    usual = [arm for arm in real if arm.usual] or real
    return usual[0].name if usual else None


def sound(
    of: Iterable[Run],
    *,
    cohort: Callable[[int | None], str | None],
    synthetic: Mapping[str, str] | None = None,
) -> tuple[list[Run], list[str]]:
    """(the runs that may be compared, a sentence per kind of run that may not).

    Left out by name are finished runs of another cohort or split, runs whose synthetic set has been
    made anew since, and runs that did not get the published weights which others of their arm got.

    Args:
        of: runs of a study.
        cohort: fold -> fingerprint of the cohort at hand, None where it can't be told.
        synthetic: place -> fingerprint of what lies there now; read from the disk where it is not
            given.
    """
    now = dict(synthetic or {})
    reasons: dict[Path, str] = {}
    of = list(of)
    for run in of:
        if run.record.state != "finished":
            continue
        here = cohort(run.fold)
        if here is not None and run.fingerprint("cohort") != here:
            reasons[run.folder] = (
                f"trained on another cohort or split ({run.fingerprint('cohort')}, here {here})"
            )
        elif (made := run.record.inputs.get(SET)) is not None:
            place = str(made["at"])
            if place not in now:
                now[place] = fingerprint_at(place) or ""
            if now[place] and now[place] != made["fingerprint"]:
                reasons[run.folder] = (
                    f"trained on an earlier set in {place} ({made['fingerprint']}, there now {now[place]}); train again "
                    "with overwrite=true"
                )
    reasons |= _without_weights([run for run in of if run.folder not in reasons])
    kept = [run for run in of if run.folder not in reasons]
    groups: dict[str, list[str]] = {}
    for run in of:
        if run.folder in reasons:
            groups.setdefault(reasons[run.folder], []).append(f"{run.group}/{run.folder.name}")
    return kept, [f"Left out: {_some(names)}: {reason}." for reason, names in groups.items()]


def _without_weights(of: Sequence[Run]) -> dict[Path, str]:
    """Runs that asked for published weights and began from random ones, where others of their arm
    did not."""
    arms: dict[str, list[Run]] = {}
    for run in of:
        if run.record.state == "finished":
            arms.setdefault(run.group, []).append(run)
    reasons: dict[Path, str] = {}
    for some in arms.values():
        starts = {run.fingerprint("model.weights") for run in some}
        if len(starts) > 1:
            reasons |= {
                run.folder: "began from random weights, others of its arm from published ones; train it again "
                "where these can be loaded"
                for run in some
                if run.fingerprint("model.weights") == "random"
            }
    return reasons


class _Origin(NamedTuple):
    """Where a synthetic set comes from, as inputs.origin_at has it; None for what can't be told."""

    seed: int | None
    generator: str | None  # by fingerprint
    generator_seed: int | None


def replicates(of: Study) -> dict[Path, tuple[str, str]]:
    """Finished run's folder -> (generator, set) that its synthetic images are from; two empty words
    where it has none.

    Named by their seeds, or by their place where seeds don't tell them apart, so that folds, whose
    generators and sets are others, have the same names. A generator that can't be told is
    "unknown".
    """
    origins: dict[int | None, dict[str, _Origin]] = {}
    for _, run in of.finished():
        if made := run.record.inputs.get(SET):
            known = origins.setdefault(run.fold, {})
            origin = made.get("origin") or dict.fromkeys(_Origin._fields)
            known.setdefault(made["fingerprint"], _Origin(**origin))
    names: dict[tuple[int | None, str], tuple[str, str]] = {}
    for fold, sets in origins.items():
        generators = _called({o.generator: o.generator_seed for o in sets.values() if o.generator})
        for generator in {origin.generator for origin in sets.values()}:
            own = {
                made: origin.seed for made, origin in sets.items() if origin.generator == generator
            }
            for mark, name in _called(own).items():
                names[fold, mark] = (generators[generator] if generator else UNKNOWN, name)
    return {
        run.folder: names.get((run.fold, run.fingerprint(SET) or ""), ("", ""))
        for _, run in of.finished()
    }


def _called(seeds: Mapping[str, int | None]) -> dict[str, str]:
    """A name per thing: its seed, or its place among them where seeds don't tell them apart."""
    if None not in seeds.values() and len(set(seeds.values())) == len(seeds):
        return {mark: str(seed) for mark, seed in seeds.items()}
    return {
        mark: str(k)
        for k, mark in enumerate(sorted(seeds, key=lambda mark: (str(seeds[mark]), mark)))
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def cells(of: Study) -> pd.DataFrame:
    """One row per cell of the study: columns COLUMNS, `fold` Int64, `arm` the folder's name.

    Expected is every arm, and set of it where it has several, in every fold with every seed that
    occurs, runs over folds and runs without apart: what no arm has begun can't be known. `state` is
    one of STATES; `told` is the error of a failed run, else empty; `run` the folder, empty for an
    absent one.
    """
    rows = []
    for folded in (False, True):
        some = [run for run in of.runs if (run.fold is not None) == folded]
        folds, seeds = sorted({run.fold or 0 for run in some}), sorted({run.seed for run in some})
        for family in (family for arm in of.arms for family in _by_set(arm)):
            own = {
                (run.fold or 0, run.seed): run for run in family if (run.fold is not None) == folded
            }
            if not own:
                continue
            one = next(iter(own.values()))
            for fold, seed in product(folds, seeds):
                if run := own.get((fold, seed)):
                    of_run = (run.group, run.record.state, run.record.told, str(run.folder))
                else:
                    of_run = (
                        one.group.replace(f"-fold-{one.fold}", f"-fold-{fold}"),
                        "absent",
                        "",
                        "",
                    )
                rows.append((of_run[0], fold if folded else None, seed, *of_run[1:]))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"fold": "Int64"})


def _by_set(arm: Arm) -> list[list[Run]]:
    """An arm's runs, apart by their folders' names without the fold where these tell sets of one
    kind."""
    places: dict[int | None, set[str]] = {}
    for run in arm.runs:
        if made := run.record.inputs.get(SET):
            places.setdefault(run.fold, set()).add(str(made.get("at")))
    if max(map(len, places.values()), default=0) < 2:
        return [arm.runs]
    families: dict[str, list[Run]] = {}
    for run in arm.runs:
        families.setdefault(run.group.replace(f"-fold-{run.fold}", ""), []).append(run)
    return list(families.values())


def missing(table: pd.DataFrame) -> list[str]:
    """A phrase per arm of `cells` that is not complete: "synthetic-2000 seeds 3, 7 (never begun), 1
    (failed: ...)"."""
    phrases = []
    for (arm, fold), part in table.groupby(["arm", "fold"], sort=False, dropna=False):
        if (part.state == "finished").all():
            continue
        name = str(arm) if pd.isna(fold) or f"fold-{fold}" in str(arm) else f"{arm} fold {fold}"
        reasons = [_reason(row) for row in part.itertuples()]
        groups = {
            why: [str(s) for s, r in zip(part.seed, reasons, strict=True) if r == why]
            for why in reasons
            if why
        }
        listed = ", ".join(f"{', '.join(seeds)} ({why})" for why, seeds in groups.items())
        phrases.append(
            f"{name} {'seeds' if sum(map(len, groups.values())) > 1 else 'seed'} {listed}"
        )
    return phrases


def sentences(table: pd.DataFrame) -> list[str]:
    """What a reader of the study's tables must know: how many cells are finished, which are
    missing, the remedy."""
    if not (lacking := missing(table)):
        return [f"All {len(table)} runs of the study are finished."] if len(table) else []
    done = int((table.state == "finished").sum())
    return [
        f"{done} of {len(table)} runs of the study are finished.",
        f"missing: {'; '.join(lacking)}",
        "The sweep's command with resume=true runs only these.",
    ]


def _reason(row: Any) -> str:
    """Why a cell isn't finished; empty if it is."""
    fault = row.told.split("; ")[0]  # without the remedy
    return {"finished": "", "absent": "never begun", "failed": f"failed: {fault}"}.get(
        row.state, row.state
    )
