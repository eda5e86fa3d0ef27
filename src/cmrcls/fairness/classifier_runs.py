"""The classifier runs below a study's folder, and which of them may be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cmrstudy import runs
from cmrstudy.inputs import fingerprint_at

SYNTHETIC = "synthetic"  # the setting of every classifier: how many synthetic images
SYNTHETIC_SET = "synthetic_set"  # the input


class Run(NamedTuple):
    """A classifier run below a study's folder."""

    record: runs.Record
    seed: int
    fold: int | None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.record.folder

    @property
    def group(self) -> str:
        """The name of its folder without the seed, as a command's `name=` would give it."""
        return self.folder.parent.name

    def fingerprint(self, key: str) -> str | None:
        """Of an input; None where the run has none of that name."""
        return self.record.inputs.get(key, {}).get("fingerprint")


def runs_below(folder: Path, *, input_name: str = "stack") -> list[Run]:
    """The classifier runs below `folder`, at any depth.

    Args:
        folder: of a study.
        input_name: what their images were; runs of another input are passed over.
    """
    classifiers = []
    for path in sorted(Path(folder).glob("**/run.json")):
        record = runs.record(path.parent)
        if record is None or SYNTHETIC not in record.settings:
            continue
        if record.settings.get("input.name", "stack") == input_name:
            classifiers.append(Run(record, record.settings["seed"], record.settings.get("fold")))
    return classifiers


def comparable(
    classifiers: Iterable[Run],
    *,
    cohort: Callable[[int | None], str | None],
    synthetic: Mapping[str, str] | None = None,
    fold: int | None = None,
) -> tuple[list[Run], list[str]]:
    """The runs that may be compared.

    Left out by name are finished runs of another cohort or split, runs of folds where others are of
    none (or these, if a fold is asked for), runs whose synthetic set has been
    made anew since, and runs that did not get the published weights which others of their arm got.

    Args:
        classifiers: runs of a study.
        cohort: fold -> fingerprint of the cohort at hand, None where it is unknown.
        synthetic: place -> fingerprint of what lies there now; read from the disk where it is not
            given.
        fold: that is asked for.

    Returns:
        The runs, and a sentence per kind of run that is left out.
    """
    now = dict(synthetic or {})
    reasons: dict[Path, str] = {}
    classifiers = list(classifiers)
    for run in classifiers:
        if run.record.state != "finished":
            continue
        here = cohort(run.fold)
        if here is not None and run.fingerprint("cohort") != here:
            reasons[run.folder] = (
                f"trained on another cohort or split ({run.fingerprint('cohort')}, here {here})"
            )
        elif (used := run.record.inputs.get(SYNTHETIC_SET)) is not None:
            place = str(used["at"])
            if place not in now:
                now[place] = fingerprint_at(place) or ""
            if now[place] and now[place] != used["fingerprint"]:
                reasons[run.folder] = (
                    f"trained on an earlier set in {place} ({used['fingerprint']}, there now "
                    f"{now[place]}); train again with overwrite=true"
                )
    usable = [
        run for run in classifiers if run.record.state == "finished" and run.folder not in reasons
    ]
    if len({run.fold is None for run in usable}) > 1:
        other = "of no fold, and fold= asks for those of folds"
        if fold is None:
            other = "of a fold, where others are of none (fold=0 evaluates those of folds)"
        reasons |= {run.folder: other for run in usable if (run.fold is None) != (fold is None)}
    reasons |= _without_weights([run for run in classifiers if run.folder not in reasons])
    kept = [run for run in classifiers if run.folder not in reasons]
    groups: dict[str, list[str]] = {}
    for run in classifiers:
        if run.folder in reasons:
            groups.setdefault(reasons[run.folder], []).append(f"{run.group}/{run.folder.name}")
    return kept, [f"Left out: {_few(names)}: {reason}." for reason, names in groups.items()]


def _without_weights(classifiers: Sequence[Run]) -> dict[Path, str]:
    """Runs that asked for published weights and began from random ones, where others of their arm
    did not."""
    arms: dict[str, list[Run]] = {}
    for run in classifiers:
        if run.record.state == "finished":
            arms.setdefault(run.group, []).append(run)
    reasons: dict[Path, str] = {}
    for repeats in arms.values():
        starts = {run.fingerprint("model.weights") for run in repeats}
        if len(starts) > 1:
            reasons |= {
                run.folder: (
                    "began from random weights, others of its arm from published ones; train it "
                    "again where these can be loaded"
                )
                for run in repeats
                if run.fingerprint("model.weights") == "random"
            }
    return reasons


def _few(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
