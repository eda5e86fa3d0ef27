"""Tables, figures and one report of finished runs and a synthetic set: `python evaluate.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrstudy import dashboards, runs

HOW = ("resume", "logger", "task")  # settings that decide no number


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from cmrcls import grid
    from cmrdata.disk import fingerprint

    folder, synthetic = Path(cfg.run_dir), Path(cfg.synthetic_set)
    study = grid.cells(Path(cfg.classifiers), shown=cfg.input)
    found = [Path(run) for run in study.run[study.state == "finished"]]
    if not found and not (synthetic / "finished.json").exists():
        raise FileNotFoundError(
            f"nothing to evaluate: no finished classifier below {cfg.classifiers} and no synthetic set in {synthetic}. "
            "Run `python train.py -m experiment=classifier ...` or `python generate.py generator=...` first"
        )
    finished = [run / "finished.json" for run in (*found, synthetic)]
    settings = {k: v for k, v in OmegaConf.to_container(cfg, resolve=True).items() if k not in HOW}  # type: ignore[union-attr]
    inputs = [path.read_text() for path in finished if path.exists()]
    key = fingerprint({"settings": settings, "inputs": inputs, "study": study.to_csv()})
    if not (cfg.resume and (folder / "finished.json").exists() and runs.facts(folder)["key"] == key):
        evaluate(cfg, folder, found, grid.sentences(study))
        runs.finish(folder, key=key, command=" ".join(sys.argv))
    board(cfg, folder)
    show(folder, grid.sentences(study))


def evaluate(cfg: DictConfig, folder: Path, found: list[Path], study: list[str]) -> None:
    """Measure, draw and write everything below `folder`."""
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare
    from cmrstudy import figures
    from cmrstudy.report import Section, report_html, sourced

    source = instantiate(cfg.cohort)
    cohort = prepare(source, cfg.data_root)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(sys.argv),
        "cohort": f"{cohort.folder.name} ({len(cohort.subjects):,} subjects)",
        "cohort fingerprint": cohort.fingerprint,
    }
    drawn = figures.save(figures.demographics(cohort.subjects), folder / "figures" / "fig1_demographics")
    sections = [
        Section(
            "Who is in the cohort",
            [split_sentence(cohort)],
            figures=[("Fig. 1: diseased subjects and the cohort", drawn[0])],
        )
    ]
    if found:
        sections += fairness_sections(cfg, folder, cohort, source.name, found, study, facts)
    else:
        sections.append(Section("Fairness", warnings=[f"No finished classifier below {cfg.classifiers}: no Table 2."]))
    if cfg.input == "stack" and (Path(cfg.synthetic_set) / "finished.json").exists():
        sections += synthetic_sections(cfg, folder, cohort, facts)
    else:
        nothing = f"No synthetic set in {cfg.synthetic_set}: no Table 1, no adherence."
        sections.append(Section("Synthetic images", warnings=[nothing]))
    origin = [f"{key}: {facts[key]}" for key in ("command", "date")]
    sections = [part._replace(sources=[*origin, *sourced(part.sources)]) for part in sections]
    page = report_html(sections, title=f"Debiasing cardiac MRI: {cfg.name}", facts=facts, summary=study)
    runs.write_atomic(folder / "report.html", page)


def fairness_sections(
    cfg: DictConfig, folder: Path, cohort: Any, name: str, found: list[Path], study: list[str], facts: dict[str, Any]
) -> list[Any]:
    """Table 2 and the statistics, from the runs' predictions."""
    from cmrcls.comparable import read_runs
    from cmrcls.sections import fairness
    from cmrstudy.report import sourced

    done = {run: runs.facts(run) for run in found}
    check_cohort(cfg, cohort, done)
    predictions, fingerprints = read_runs(found)
    steps = sorted({fact["steps"] for fact in done.values()})
    count = f"{len(found)}, {'/'.join(map(str, steps))} optimiser steps"
    marks = [
        *(f"split fingerprint {mark}" for mark in sorted(set(fingerprints.values()))),
        *(f"synthetic set {mark}" for mark in sorted({f["synthetic_fingerprint"] for f in done.values()} - {None})),
    ]
    facts["classifier runs"] = [count, *marks]
    sections = fairness(
        predictions,
        {"cohort_name": name},
        folder=folder,
        pictures=folder / "figures",
        axes=list(cfg.axes),
        resamples=cfg.resamples,
        seed=cfg.seed,
        fingerprints=fingerprints,
        subjects=set(cohort.subjects.subject),
    )
    missing = [] if study[0].startswith("All") else [" ".join(study)]
    sections[0] = sections[0]._replace(warnings=[*missing, *sections[0].warnings])
    return [part._replace(sources=[f"classifier runs: {count}", *marks, *sourced(part.sources)]) for part in sections]


def check_cohort(cfg: DictConfig, cohort: Any, done: dict[Path, dict[str, Any]]) -> None:
    """Raise ValueError unless every run was trained on this cohort, or on its fold of it."""
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare

    of = {cfg.fold: cohort.fingerprint}
    for run, fact in done.items():
        fold = fact.get("fold")
        if fold not in of:
            of[fold] = prepare(instantiate(cfg.cohort, fold=fold), cfg.data_root).fingerprint
        if fact["cohort_fingerprint"] != of[fold]:
            foreign = sum(f["cohort_fingerprint"] != of.get(f.get("fold")) for f in done.values())
            raise ValueError(
                f"{run} ({foreign} of {len(done)} runs) was trained on another cohort than {cohort.folder.name}; give "
                "evaluate.py that cohort's settings, or other classifiers="
            )


def synthetic_sections(cfg: DictConfig, folder: Path, cohort: Any, facts: dict[str, Any]) -> list[Any]:
    """Adherence, Table 1, the generator's pictures, and the audit if asked for."""
    from cmrdata.synthetic import open_synthetic
    from cmrgen.evaluation import measured, sections
    from cmrgen.evaluation.judges import judges
    from cmrstudy.report import Section

    made = open_synthetic(cfg.synthetic_set, cohort)
    if not len(made.index):
        return [Section("Synthetic images", warnings=[f"{cfg.synthetic_set} holds no image: nothing to measure."])]
    networks = judges(cohort, cohort.folder / "judges", steps=tuple(cfg.judge_steps), seed=cfg.seed)
    found = measured.measure(cohort, made, networks, folder)
    facts |= measured.facts(found)
    missing = runs.facts(Path(cfg.synthetic_set)).get("missing_groups", [])
    return [
        *sections.shown_sections(found, missing=missing, seed=cfg.seed),
        sections.fidelity_section(found, backbones=cfg.backbones, n=cfg.fid_images, seed=cfg.seed),
        *([sections.audit_section(found, generator=cfg.audit_generator, seed=cfg.seed)] if cfg.audit else []),
    ]


def board(cfg: DictConfig, folder: Path) -> None:
    """The tables and figures on the dashboards asked for."""
    from hydra.utils import instantiate

    if asked := dashboards.asked(cfg.get("logger")):
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
    main()
