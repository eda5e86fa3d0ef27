"""Tables, figures and one report of finished runs and a synthetic set: `python evaluate.py`."""

from __future__ import annotations

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cmrcls.fairness.options import Options
from cmrdata.counting import number_of
from cmrdata.disk import write_atomic
from cmrstudy import commands, evaluations, overrides, paths, runs
from cmrstudy.announce import intention
from cmrstudy.experiment import Experiment

USAGE = """python evaluate.py [key=value ...]

Tables, figures and one report of the finished classifiers and a synthetic set, in results/<name>."""


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Evaluates what is finished, unless that was done; prints the main tables."""
    from hydra.utils import instantiate

    from cmrcls.fairness.classifier_runs import runs_below

    commands.prepared(cfg)
    measuring(cfg).check()
    found = runs_below(Path(cfg.classifiers), input_name=cfg.input.name)
    finished = {run.folder: run.record for run in found if run.record.state == "finished"}
    evaluations.check_something(finished, cfg, typed=overrides.parts(cfg))
    request, inputs = overrides.request(cfg), evaluations.rests_on(finished, cfg.synthetic_set)
    folder = request.folder
    experiment = Experiment(cfg, folder, build=instantiate)
    with runs.held(folder):
        if evaluations.claim_evaluation(request, inputs):
            print(intention(cfg, rests_on=number_of(len(finished), "finished runs")), flush=True)
            with runs.attempt(folder):
                sentences = evaluate(experiment, found)
                made = {"study": sentences, "command": paths.shareable(sys.argv)}
                runs.finish(folder, rests_on=inputs, **made)
        experiment.board_results()
        evaluations.print_evaluation(folder, runs.facts(folder)["study"])


def evaluate(run: Experiment, found: list[Any]) -> list[str]:
    """Measure, draw and write everything below the run's folder.

    Args:
        run: of this evaluation.
        found: runs of classifiers, finished or not.

    Returns:
        What a reader must know of the study, in sentences.
    """
    from cmrcls.fairness.checklist import checklist_section
    from cmrcls.fairness.report import classifier_report
    from cmrdata.prepare import prepare
    from cmrgen.evaluation.report import no_images_section
    from cmrstudy.report import report_html, sourced

    cfg, folder = run.cfg, run.folder
    source = run.build(cfg.cohort)
    cohort = prepare(source, cfg.data_root, refresh=cfg.refresh)

    @cache
    def store_of(fold: int | None) -> Any:
        same = fold == cfg.fold
        return cohort if same else prepare(run.build(cfg.cohort, fold=fold), cfg.data_root)

    classified = classifier_report(
        found,
        store_of,
        classifiers=cfg.classifiers,
        cohort_name=source.name,
        fold=cfg.fold,
        arms=cfg.arms,
        baseline=cfg.baseline,
        folder=folder,
        options=measuring(cfg),
    )
    sections = classified.sections
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": paths.shareable(sys.argv),
        "cohort": f"{cohort.folder.name} ({len(cohort.subjects):,} subjects)",
        "cohort fingerprint": cohort.fingerprint,
    }
    if classified.marks:
        facts["classifier runs"] = classified.marks
    if cfg.input.name == "stack" and evaluations.has_set(cfg):
        images = image_report(run, cohort, classified.study)
        examples, *further = images.sections
        sections, facts = [examples, *sections, *further], facts | images.provenance
    else:
        sections.append(no_images_section(Path(cfg.synthetic_set), input_name=cfg.input.name))
    sections.append(checklist_section(folder))
    origin = [f"{key}: {facts[key]}" for key in ("command", "date")]
    sections = [part._replace(sources=[*origin, *sourced(part.sources)]) for part in sections]
    title = f"Debiasing cardiac MRI: {cfg.name}"
    page = report_html(sections, title=title, facts=facts, summary=classified.sentences)
    write_atomic(folder / "report.html", page)
    return classified.sentences


def measuring(cfg: DictConfig) -> Options:
    """How the fairness part measures."""
    return Options(
        axes=list(cfg.axes),
        resamples=cfg.resamples,
        permutations=cfg.permutations,
        specificity=cfg.specificity,
        seed=cfg.seed,
    )


def image_report(run: Experiment, cohort: Any, study: Any) -> Any:
    """What the report says of the synthetic set, and where its numbers come from."""
    from cmrgen.evaluation.report import Settings, synthetic_report

    cfg = run.cfg
    sets = {arm.name: {run.fingerprint("synthetic_set") for run in arm.runs} for arm in study.arms}
    settings = Settings(
        judge_steps=tuple(cfg.judge_steps),
        fid_images=cfg.fid_images,
        backbones=cfg.backbones,
        audit=cfg.audit,
        audit_generator=cfg.audit_generator,
        base_weights=cfg.base.weights,
        trained_on=sets,
        device=cfg.device,
        seed=cfg.seed,
    )
    return synthetic_report(cohort, Path(cfg.synthetic_set), run.folder, settings)


if __name__ == "__main__":
    commands.start_command("evaluate", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
