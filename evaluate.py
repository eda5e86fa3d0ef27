"""Tables, figures and one report of finished runs and a synthetic set: `python evaluate.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrstudy import commands, dashboards, overrides, paths, runs
from cmrstudy.identity import differing
from cmrstudy.inputs import changed, fingerprint_at

USAGE = """python evaluate.py [key=value ...]

Tables, figures and one report of the finished classifiers and a synthetic set, in results/<name>."""
ADDED = ("audit", "backbones")  # settings that add to a report and change nothing in it


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from cmrcls.fairness import grid
    from cmrcls.fairness.clinical import check_specificity
    from cmrcls.fairness.statistics import check_draws

    commands.prepared(cfg)
    check_specificity(cfg.specificity)
    check_draws(resamples=cfg.resamples, permutations=cfg.permutations)
    found = grid.read(Path(cfg.classifiers), shown=cfg.input.name)
    finished = [run for run in found if run.record.state == "finished"]
    if not finished and not (Path(cfg.synthetic_set) / "finished.json").exists():
        raise FileNotFoundError(
            f"nothing to evaluate: no finished classifier below {cfg.classifiers} and no synthetic set in "
            f"{cfg.synthetic_set}. Run `python train.py -m experiment=classifier ...` or `python generate.py` first"
        )
    asked = overrides.request(cfg)
    with runs.held(asked.folder):
        if claim(asked, rests_on(finished, cfg)):
            with runs.attempt(asked.folder):
                study = evaluate(cfg, asked.folder, found)
                runs.finish(
                    asked.folder,
                    rests_on=rests_on(finished, cfg),
                    study=study,
                    command=paths.shareable(sys.argv),
                )
        board(cfg, asked.folder)
        show(asked.folder, runs.facts(asked.folder)["study"])


def rests_on(finished: list[Any], cfg: DictConfig) -> dict[str, str]:
    """What an evaluation is made from: each finished run and the synthetic set, by fingerprints."""
    from cmrdata.disk import fingerprint

    prints = {run.folder.as_posix(): fingerprint(run.record._asdict()) for run in finished}
    return prints | {"synthetic set": fingerprint_at(cfg.synthetic_set) or "none"}


def claim(asked: runs.Request, now: dict[str, str]) -> bool:
    """Whether there is something to measure. A finished evaluation is replaced by one of the same
    study that has grown."""
    folder, earlier = asked.folder, runs.record(asked.folder)
    if earlier and earlier.state == "finished" and not asked.option("overwrite", False):
        before = earlier.facts["rests_on"]
        other = [line for line in differing(earlier.settings, asked.settings) if not _adds(line)]
        other += [
            f"{name} {'has changed' if name in now else 'is gone'}"
            for name in before
            if now.get(name) != before[name]
        ]
        if other:
            raise FileExistsError(
                f"{folder} holds an evaluation of something else: {runs.few(other)}. overwrite=true replaces it, "
                "another name= keeps both"
            )
        new = [f"{len(now) - len(before)} more runs"] * (len(now) > len(before))
        new += differing(earlier.settings, asked.settings)
        code = earlier.facts["code"], runs.code_version()
        new += [f"code {code[0]} -> {code[1]}"] * (code[0] != code[1])
        if not new:
            print(f"{folder}: nothing has changed since it was evaluated; shown again")
            return False
        print(f"{folder}: evaluated before, measured anew ({', '.join(new)})", flush=True)
    runs.begin(asked._replace(config={**asked.config, "repeatable": True}))
    return True


def _adds(line: str) -> bool:
    """Whether a difference of settings only asks for more: audit false -> true, a backbone's
    weights given."""
    key, _, change = line.partition(" ")
    return key.split(".")[0] in ADDED and change.split(" -> ")[0] in ("False", "None")


def evaluate(cfg: DictConfig, folder: Path, found: list[Any]) -> list[str]:
    """Measure, draw and write everything below `folder`; what a reader must know of the study, in
    sentences."""
    from hydra.utils import instantiate

    from cmrcls.fairness import grid, participants
    from cmrcls.fairness.checklist import checklist
    from cmrdata.prepare import prepare
    from cmrstudy import figures
    from cmrstudy.report import Section, report_html, sourced, write_tables

    source = instantiate(cfg.cohort)
    cohort = prepare(source, cfg.data_root, refresh=cfg.refresh)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": paths.shareable(sys.argv),
        "cohort": f"{cohort.folder.name} ({len(cohort.subjects):,} subjects)",
        "cohort fingerprint": cohort.fingerprint,
    }
    stores = folds(cfg, cohort)
    kept, left_out = grid.sound(found, cohort=lambda fold: stores(fold).fingerprint)
    check_cohort(cfg, cohort, found, kept, left_out)
    study = grid.study(kept, shown=cfg.input.name, wanted=cfg.arms)
    sentences = grid.sentences(grid.cells(study)) + left_out
    drawn = figures.save(
        figures.demographics(cohort.subjects), folder / "figures" / "fig1_demographics"
    )
    done = study.finished()
    fold = done[0][1].fold if done else cfg.fold
    sections = [
        participants.section(
            stores(fold),
            study,
            folder=folder,
            sentence=split_sentence(stores(fold)),
            drawn=drawn[0],
            fold=fold,
        )
    ]
    if done:
        sections += fairness_sections(
            cfg, folder, cohort, stores, source.name, study, sentences, facts
        )
    else:
        sections.append(
            Section(
                "Fairness",
                warnings=[f"No finished classifier below {cfg.classifiers}: no Table 2."],
            )
        )
    if cfg.input.name == "stack" and (Path(cfg.synthetic_set) / "finished.json").exists():
        examples, *further = synthetic_sections(cfg, folder, cohort, study, facts)
        sections = [examples, *sections, *further]
    else:
        sections.append(Section("Synthetic images", warnings=[without_images(cfg)]))
    items = checklist(folder)
    items.attrs["caption"] = (
        "Items of CLAIM 2024, TRIPOD+AI and STARD 2015, and where they are found"
    )
    write_tables(items, folder, "checklist", items.attrs["caption"])
    told = "What only the authors know is theirs to write; numbers are those of the checklists' published items."
    sections.append(Section("Where is what a reviewer looks for?", [told], tables=[items]))
    origin = [f"{key}: {facts[key]}" for key in ("command", "date")]
    sections = [part._replace(sources=[*origin, *sourced(part.sources)]) for part in sections]
    page = report_html(
        sections, title=f"Debiasing cardiac MRI: {cfg.name}", facts=facts, summary=sentences
    )
    runs.write_atomic(folder / "report.html", page)
    return sentences


def fairness_sections(
    cfg: DictConfig,
    folder: Path,
    cohort: Any,
    stores: Callable[[int | None], Any],
    name: str,
    study: Any,
    sentences: list[str],
    facts: dict[str, Any],
) -> list[Any]:
    """Table 2 and the statistics, from the runs' predictions."""
    from cmrcls.fairness.predictions import read
    from cmrcls.fairness.section import fairness
    from cmrstudy.report import sourced

    studies = read(
        study,
        stores,
        baseline_arm=cfg.baseline,
        axes=list(cfg.axes),
        subjects=set(cohort.subjects.subject),
    )
    done = [run for _, run in study.finished()]
    steps = sorted({run.record.facts["steps"] for run in done})
    count = f"{len(done)}, {'/'.join(map(str, steps))} optimiser steps"
    marks = [
        *(
            f"split fingerprint {mark}"
            for mark in sorted({run.record.facts["split_fingerprint"] for run in done})
        ),
        *(
            f"synthetic set {mark}"
            for mark in sorted({run.fingerprint("synthetic_set") for run in done} - {None})
        ),
        *(f"factor {title}: {', '.join(values)}" for title, values in study.factors.items()),
    ]
    facts["classifier runs"] = [count, *marks]
    sections = fairness(
        studies,
        {"cohort_name": name},
        folder=folder,
        pictures=folder / "figures",
        axes=list(cfg.axes),
        resamples=cfg.resamples,
        permutations=cfg.permutations,
        specificity=cfg.specificity,
        seed=cfg.seed,
    )
    missing = (
        [] if sentences[0].startswith("All") and len(sentences) == 1 else [" ".join(sentences)]
    )
    varied = [factors_sentence(study)] if study.factors else []
    sections[0] = sections[0]._replace(
        paragraphs=[*varied, *sections[0].paragraphs], warnings=[*missing, *sections[0].warnings]
    )
    return [
        part._replace(sources=[f"classifier runs: {count}", *marks, *sourced(part.sources)])
        for part in sections
    ]


def factors_sentence(study: Any) -> str:
    """What was varied, and how an arm's name tells it."""
    varied = "; ".join(f"{title} ({', '.join(values)})" for title, values in study.factors.items())
    return f"What the runs differ in: {varied}. An arm is named by what differs from the experiment's own values."


def folds(cfg: DictConfig, cohort: Any) -> Callable[[int | None], Any]:
    """Fold -> the store of that fold of the cohort."""
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare

    known = {cfg.fold: cohort}

    def of(fold: int | None) -> Any:
        if fold not in known:
            known[fold] = prepare(instantiate(cfg.cohort, fold=fold), cfg.data_root)
        return known[fold]

    return of


def check_cohort(
    cfg: DictConfig, cohort: Any, found: list[Any], kept: list[Any], left_out: list[str]
) -> None:
    """Raise ValueError where finished runs are there and none of them may be used."""
    if any(run.record.state == "finished" for run in found) and not any(
        run.record.state == "finished" for run in kept
    ):
        raise ValueError(
            f"none of the finished runs below {cfg.classifiers} can be evaluated with cohort {cohort.folder.name}: "
            f"{' '.join(left_out)} Give evaluate.py their cohort's settings, or other classifiers="
        )


def synthetic_sections(
    cfg: DictConfig, folder: Path, cohort: Any, study: Any, facts: dict[str, Any]
) -> list[Any]:
    """Adherence, Table 1, the generator's pictures, and the audit if asked for."""
    from cmrdata.synthetic import open_synthetic
    from cmrgen.evaluation import measured
    from cmrgen.evaluation.device import device
    from cmrgen.evaluation.examples import examples_section
    from cmrgen.evaluation.fidelity.two_sample_section import two_sample_section
    from cmrgen.evaluation.judges import judges
    from cmrgen.evaluation.privacy import section as sections
    from cmrstudy.report import Section

    made = open_synthetic(cfg.synthetic_set, cohort)
    if not len(made.index):
        return [
            Section(
                "Synthetic images",
                warnings=[f"{cfg.synthetic_set} holds no image: nothing to measure."],
            )
        ]
    places = measured.places(cohort, "judges", folder=folder)
    steps = tuple(cfg.judge_steps)
    networks = judges(cohort, *places, steps=steps, seed=cfg.seed, device=device(cfg.device))
    found = measured.measure(cohort, made, networks, folder, seed=cfg.seed)
    facts |= measured.facts(found)
    missing = runs.facts(Path(cfg.synthetic_set)).get("missing_groups", [])
    shown = sections.shown_sections(found, missing=missing, seed=cfg.seed)
    drawn_by = runs.record(Path(cfg.synthetic_set))
    if drawn_by and (other := changed(drawn_by.inputs, {})[0]):
        stale = f"The set in {cfg.synthetic_set} was drawn by what has changed since: {runs.few(other)}."
        shown[0] = shown[0]._replace(warnings=[stale, *shown[0].warnings])
    others = [
        arm.name
        for arm in study.arms
        if {run.fingerprint("synthetic_set") for run in arm.runs} - {None, made.fingerprint}
    ]
    if others:
        told = (
            f"This and Table 1 are of the set in {cfg.synthetic_set}; in Table 2 {', '.join(others)} were trained on "
            "another one, or on several."
        )
        shown[0] = shown[0]._replace(warnings=[told, *shown[0].warnings])
    return [
        examples_section(found),
        *shown,
        sections.fidelity_section(found, backbones=cfg.backbones, n=cfg.fid_images, seed=cfg.seed),
        two_sample_section(found, seed=cfg.seed, steps=cfg.judge_steps[1]),
        *(
            [
                sections.audit_section(
                    found,
                    generator=cfg.audit_generator,
                    base_weights=cfg.base.weights,
                    seed=cfg.seed,
                )
            ]
            if cfg.audit
            else []
        ),
    ]


def without_images(cfg: DictConfig) -> str:
    """Why a report says nothing of synthetic images."""
    if not (Path(cfg.synthetic_set) / "finished.json").exists():
        return f"No synthetic set in {cfg.synthetic_set}: no Table 1, no adherence."
    return (
        f"The set in {cfg.synthetic_set} holds pairs of ED and ES; runs with input={cfg.input.name} see whole heartbeats "
        "and real images alone, so Table 1 and adherence are left out. evaluate.py without input= has them."
    )


def board(cfg: DictConfig, folder: Path) -> None:
    """The tables and figures on the dashboards asked for."""
    from hydra.utils import instantiate

    if asked := dashboards.configured(cfg.get("logger")):
        with dashboards.one_run():
            loggers = [instantiate(of) for of in asked]
            dashboards.describe(loggers, OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
            dashboards.evaluation_boards(loggers, folder)


def show(folder: Path, study: list[str]) -> None:
    """The tables in the terminal, what is missing, and where the report is."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    for name in ("table1", "table2", "adherence"):
        if (folder / f"{name}.md").exists():
            console.print(Markdown((folder / f"{name}.md").read_text()))
    for sentence in study:
        console.print(sentence, highlight=False)
    console.print(f"\nreport: {folder / 'report.html'}", soft_wrap=True)


def split_sentence(cohort: Any) -> str:
    """ "train: 3,840 subjects, 170 diseased, ..." """
    splits = cohort.subjects.groupby("split", sort=False).label.agg(["size", "sum"])
    parts = [f"{name} {int(n):,} ({int(sick):,} diseased)" for name, n, sick in splits.itertuples()]
    return f"Subjects per split: {', '.join(sorted(parts))}."


if __name__ == "__main__":
    commands.start_command("evaluate", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
