"""The grid of a study: the arms that its runs make, and what is there or missing of each.

An arm is a combination of the factors' values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from cmrcls.fairness.classifier_runs import SYNTHETIC, SYNTHETIC_SET, Run
from cmrcls.fairness.factors import (
    arm_names,
    sort_key,
    swept_factors,
    titles,
    value_of,
    values_in_words,
)
from cmrcls.fairness.levels import UNKNOWN_GENERATOR
from cmrcls.fairness.study import Arm
from cmrdata.counting import number_of

EXPECTED_COLUMNS = ("arm", "folder", "fold", "seed", "state", "error", "run")
RUN_STATES = ("finished", "unfinished", "failed", "absent")


class ArmRuns(NamedTuple):
    """An arm and its runs, whatever became of them."""

    arm: Arm
    runs: list[Run]

    @property
    def name(self) -> str:
        """For readers."""
        return self.arm.name

    @property
    def groups(self) -> list[str]:
        """Names of its folders."""
        return sorted({run.group for run in self.runs})

    @property
    def finished(self) -> list[Run]:
        """The runs that are whole."""
        return [run for run in self.runs if run.record.state == "finished"]


class Grid(NamedTuple):
    """The arms in the order of a table, and what they differ in."""

    arms: list[ArmRuns]
    factors: dict[str, list[str]]  # title -> its values in words

    @property
    def runs(self) -> list[Run]:
        """Of all arms."""
        return [run for arm in self.arms for run in arm.runs]

    def finished(self) -> list[tuple[Arm, Run]]:
        """The runs that are whole, with their arms."""
        return [(arm.arm, run) for arm in self.arms for run in arm.finished]


def arrange(classifiers: Iterable[Run], *, wanted: Sequence[str] | None = None) -> Grid:
    """The arms of some runs.

    Args:
        classifiers: the runs.
        wanted: names or folders of the arms to keep, with * for any characters; None for all.

    Raises:
        ValueError: naming a wanted arm that there is not.
    """
    classifiers = list(classifiers)
    keys = swept_factors(classifiers)
    together: dict[tuple[str, ...], list[Run]] = {}
    for run in classifiers:
        together.setdefault(tuple(repr(value_of(run, key)) for key in keys), []).append(run)
    groups = sorted(together.values(), key=lambda group: sort_key(group[0], keys))
    firsts, called = [group[0] for group in groups], titles(keys)
    arms = []
    for place, (group, (name, usual)) in enumerate(
        zip(groups, arm_names(firsts, called), strict=True)
    ):
        values = {SYNTHETIC: group[0].record.settings[SYNTHETIC]}
        values |= {key: value_of(group[0], key) for key in keys}
        arms.append(ArmRuns(Arm(place, name, values, usual), group))
    words = {called[key]: values_in_words(firsts, key) for key in keys}
    return Grid(_chosen(arms, wanted), words)


def _chosen(arms: list[ArmRuns], wanted: Sequence[str] | None) -> list[ArmRuns]:
    """The arms that are wanted, each pattern being met by at least one."""
    if wanted is None:
        return arms
    kept = []
    for pattern in [wanted] if isinstance(wanted, str) else wanted:
        hits = [arm for arm in arms if matches(arm, str(pattern))]
        if not hits:
            raise ValueError(f"arms={pattern}: no such arm. There are {_listed(arms)}")
        kept += hits
    return [arm for arm in arms if arm in kept]


def matches(arm: ArmRuns, pattern: str) -> bool:
    """Whether an arm is meant by a name or a folder, with * for any characters; a name itself may
    hold brackets."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in (arm.name, *arm.groups))


def _listed(arms: Iterable[ArmRuns]) -> str:
    return "; ".join(f"{arm.name!r} ({', '.join(arm.groups)})" for arm in arms)


def baseline_arm(arms: Sequence[ArmRuns], wanted: str | None = None) -> Arm | None:
    """The arm that others are compared with.

    Args:
        arms: of a study.
        wanted: its name or folder; None for real images with the usual settings.

    Returns:
        The arm; None where there is no arm of real images.

    Raises:
        ValueError: where none, or more than one, is wanted.
    """
    if wanted is not None:
        hits = [arm.arm for arm in arms if matches(arm, str(wanted))]
        if len(hits) != 1:
            raise ValueError(
                f"baseline={wanted}: {len(hits)} arms of that name. There are {_listed(arms)}"
            )
        return hits[0]
    real = [arm.arm for arm in arms if str(arm.arm.values[SYNTHETIC]) == "0"]
    usual = [arm for arm in real if arm.usual] or real
    return usual[0] if usual else None


class _Origin(NamedTuple):
    """Where a synthetic set comes from, as inputs.origin_at has it; None for what can't be told."""

    seed: int | None
    generator: str | None  # by fingerprint
    generator_seed: int | None


def replicate_names(of: Grid) -> dict[Path, tuple[str, str]]:
    """What each finished run's synthetic images are from: folder -> (generator, set), two empty
    words where it has none.

    They are named by their seeds, or by their place where seeds don't tell them apart, so that
    folds, whose generators and sets are others, have the same names. A generator that no record
    names is UNKNOWN_GENERATOR.
    """
    origins: dict[int | None, dict[str, _Origin]] = {}
    for _, run in of.finished():
        if used := run.record.inputs.get(SYNTHETIC_SET):
            known = origins.setdefault(run.fold, {})
            origin = used.get("origin") or dict.fromkeys(_Origin._fields)
            known.setdefault(used["fingerprint"], _Origin(**origin))
    names: dict[tuple[int | None, str], tuple[str, str]] = {}
    for fold, sets in origins.items():
        generators = _called({o.generator: o.generator_seed for o in sets.values() if o.generator})
        for generator in {origin.generator for origin in sets.values()}:
            own = {
                mark: origin.seed for mark, origin in sets.items() if origin.generator == generator
            }
            for mark, name in _called(own).items():
                names[fold, mark] = (
                    generators[generator] if generator else UNKNOWN_GENERATOR,
                    name,
                )
    return {
        run.folder: names.get((run.fold, run.fingerprint(SYNTHETIC_SET) or ""), ("", ""))
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


def expected_runs(of: Grid) -> pd.DataFrame:
    """What is there of each run that the study should have: EXPECTED_COLUMNS, a row per run.

    Expected is every arm, and set of it where it has several, in every fold with every seed that
    occurs, runs over folds and runs without apart: what no arm has begun can't be known. `arm` is
    an Arm, `folder` the name of its folder, `fold` Int64, `state` one of RUN_STATES, `error` that
    of a failed run, else empty, `run` the run's folder, empty for an absent one.
    """
    rows: list[tuple[Any, ...]] = []
    for folded in (False, True):
        runs = [run for run in of.runs if (run.fold is not None) == folded]
        folds, seeds = sorted({run.fold or 0 for run in runs}), sorted({run.seed for run in runs})
        for arm, family in ((each.arm, own) for each in of.arms for own in _by_set(each)):
            own = {
                (run.fold or 0, run.seed): run for run in family if (run.fold is not None) == folded
            }
            for fold, seed in product(folds, seeds) if own else ():
                number = fold if folded else None
                if run := own.get((fold, seed)):
                    record = run.record
                    rest = (record.state, record.told, str(run.folder))
                    rows.append((arm, run.group, number, seed, *rest))
                else:
                    one = next(iter(own.values()))
                    folder = one.group.replace(f"-fold-{one.fold}", f"-fold-{fold}")
                    rows.append((arm, folder, number, seed, "absent", "", ""))
    return pd.DataFrame(rows, columns=list(EXPECTED_COLUMNS)).astype({"fold": "Int64"})


def _by_set(arm: ArmRuns) -> list[list[Run]]:
    """An arm's runs, apart by their folders' names without the fold where these are of several
    sets of one kind."""
    places: dict[int | None, set[str]] = {}
    for run in arm.runs:
        if used := run.record.inputs.get(SYNTHETIC_SET):
            places.setdefault(run.fold, set()).add(str(used.get("at")))
    if max(map(len, places.values()), default=0) < 2:
        return [arm.runs]
    families: dict[str, list[Run]] = {}
    for run in arm.runs:
        families.setdefault(run.group.replace(f"-fold-{run.fold}", ""), []).append(run)
    return list(families.values())


def missing(expected: pd.DataFrame) -> list[str]:
    """A phrase per folder of `expected_runs` that is not complete: "synthetic-2000 seeds 3, 7
    (never begun), 1 (failed: ...)"."""
    phrases = []
    for (folder, fold), own in expected.groupby(["folder", "fold"], sort=False, dropna=False):
        reasons: dict[str, list[str]] = {}
        for row in own.itertuples():
            if row.state != "finished":
                reasons.setdefault(_reason(row), []).append(str(row.seed))
        if reasons:
            named = pd.isna(fold) or f"fold-{fold}" in str(folder)
            count = sum(map(len, reasons.values()))
            listed = ", ".join(f"{', '.join(seeds)} ({why})" for why, seeds in reasons.items())
            name = folder if named else f"{folder} fold {fold}"
            phrases.append(f"{name} {'seeds' if count > 1 else 'seed'} {listed}")
    return phrases


def progress_sentences(expected: pd.DataFrame) -> list[str]:
    """What a reader of the study's tables must know: how many of the `expected_runs` are finished,
    which are missing, the remedy."""
    if not (lacking := missing(expected)):
        return (
            [f"All {number_of(len(expected), 'runs')} of the study are finished."]
            if len(expected)
            else []
        )
    done = int((expected.state == "finished").sum())
    return [
        f"{done} of {number_of(len(expected), 'runs')} of the study are finished.",
        f"missing: {'; '.join(lacking)}",
        "The sweep's command with resume=true runs only these.",
    ]


def _reason(row: Any) -> str:
    """Why a run isn't finished."""
    state, fault = str(row.state), str(row.error).split("; ")[0]  # without the remedy
    return {"absent": "never begun", "failed": f"failed: {fault}"}.get(state, state)
