"""What the report says of a synthetic set: its sections in reading order.

A section is a function of an `Evaluation` and the `Settings`, and its row in SECTIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cmrdata.store import Store
from cmrdata.synthetic import open_synthetic
from cmrgen.evaluation.adherence.section import adherence_sections
from cmrgen.evaluation.device import evaluation_device
from cmrgen.evaluation.examples import examples_section
from cmrgen.evaluation.fidelity.section import fidelity_section, two_sample_section
from cmrgen.evaluation.judges import (
    Evaluation,
    evaluation_of,
    kept_places,
    provenance,
    trained_judges,
)
from cmrgen.evaluation.privacy.section import audit_section
from cmrstudy import runs
from cmrstudy.inputs import changed
from cmrstudy.report import Section


class Settings(NamedTuple):
    """What a report on a synthetic set depends on."""

    judge_steps: tuple[int, int]  # of segmenter and attribute network
    fid_images: int  # a side of a Fréchet distance, at most
    backbones: Mapping[str, str | None]  # name -> local weights file, None to leave it out
    audit: bool  # whether to look for copies of training images
    audit_generator: str | None  # a run folder, whose losses are also attacked
    base_weights: str | None  # where that generator's base lies now, if it has moved
    # name of a classifier's arm -> fingerprints of the sets it was trained on; None for no set
    trained_on: Mapping[str, set[str | None]]
    device: str
    seed: int


class SetReport(NamedTuple):
    """The report on a synthetic set."""

    sections: list[Section]
    provenance: dict[str, Any]  # where its numbers come from, for the report's last table


Contribution = Callable[[Evaluation, Settings], Sequence[Section]]


def _examples(evaluation: Evaluation, settings: Settings) -> list[Section]:
    return [examples_section(evaluation)]


def _adherence(evaluation: Evaluation, settings: Settings) -> list[Section]:
    synthetic_set = evaluation.synthetic_set
    missing = runs.facts(synthetic_set.folder).get("missing_groups", [])
    first, *others = adherence_sections(evaluation, missing=missing, seed=settings.seed)
    warnings = [*_trained_elsewhere(synthetic_set, settings.trained_on), *_stale(synthetic_set)]
    return [first._replace(warnings=[*warnings, *first.warnings]), *others]


def _fidelity(evaluation: Evaluation, settings: Settings) -> list[Section]:
    return [
        fidelity_section(
            evaluation,
            backbones=settings.backbones,
            n=settings.fid_images,
            seed=settings.seed,
        ),
        two_sample_section(evaluation, seed=settings.seed, steps=settings.judge_steps[1]),
    ]


def _audit(evaluation: Evaluation, settings: Settings) -> list[Section]:
    if not settings.audit:
        return []
    return [
        audit_section(
            evaluation,
            generator=settings.audit_generator,
            base_weights=settings.base_weights,
            seed=settings.seed,
        )
    ]


SECTIONS: list[Contribution] = [_examples, _adherence, _fidelity, _audit]


def synthetic_report(
    cohort: Store, synthetic_set: Path, folder: Path, settings: Settings
) -> SetReport:
    """Measure a synthetic set against its cohort, and write tables and figures.

    Args:
        cohort: the real images.
        synthetic_set: folder of the set.
        folder: of the report.
        settings: of the evaluation.

    Returns:
        The sections, pictures of the set first, and their provenance.

    Raises:
        ValueError: the set was not made from this cohort, or a part can't be measured.
    """
    opened = open_synthetic(synthetic_set, cohort)
    if not len(opened.index):
        warning = f"{synthetic_set} holds no image: nothing to measure."
        return SetReport([Section("Synthetic images", warnings=[warning])], {})
    networks = trained_judges(
        cohort,
        *kept_places(cohort, "judges", report=folder),
        steps=settings.judge_steps,
        seed=settings.seed,
        device=evaluation_device(settings.device),
    )
    evaluation = evaluation_of(cohort, opened, networks, folder, seed=settings.seed)
    sections = [
        section for contribution in SECTIONS for section in contribution(evaluation, settings)
    ]
    return SetReport(sections, provenance(evaluation))


def _stale(synthetic_set: Store) -> list[str]:
    """Whether what drew the set has changed since."""
    record = runs.record(synthetic_set.folder)
    if not record or not (inputs := changed(record.inputs, {})[0]):
        return []
    return [
        f"The set in {synthetic_set.folder} was drawn by what has changed since: "
        f"{runs.few(inputs)}."
    ]


def _trained_elsewhere(
    synthetic_set: Store, trained_on: Mapping[str, set[str | None]]
) -> list[str]:
    """Which arms of Table 2 were not trained on this set."""
    own = {None, synthetic_set.fingerprint}
    if not (others := [arm for arm, sets in trained_on.items() if sets - own]):
        return []
    return [
        f"This and Table 1 are of the set in {synthetic_set.folder}; in Table 2 "
        f"{', '.join(others)} were trained on another one, or on several."
    ]


def no_images_section(synthetic_set: Path, *, input_name: str) -> Section:
    """Why a report says nothing of synthetic images.

    Args:
        synthetic_set: the folder of a set, which may not be there.
        input_name: what the study's classifiers see; only "stack" is what a set holds.
    """
    reason = f"No synthetic set in {synthetic_set}: no Table 1, no adherence."
    if (synthetic_set / "finished.json").exists():
        reason = (
            f"The set in {synthetic_set} holds pairs of ED and ES; runs with input={input_name} "
            "see whole heartbeats and real images alone, so Table 1 and adherence are left out. "
            "evaluate.py without input= has them."
        )
    return Section("Synthetic images", warnings=[reason])
