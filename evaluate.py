"""Tables, figures and one report of finished runs and a synthetic set: `python evaluate.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrcls.fairness.options import Options
from cmrstudy import commands, dashboards, overrides, paths, runs
from cmrstudy.announce import intention
from cmrstudy.identity import differing
from cmrstudy.inputs import fingerprint_at

USAGE = """python evaluate.py [key=value ...]

Tables, figures and one report of the finished classifiers and a synthetic set, in results/<name>."""
ADDED = ("audit", "backbones")  # settings that add to a report and change nothing in it


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    from cmrcls.fairness.classifier_runs import runs_below

    commands.prepared(cfg)
    measuring(cfg).check()
    found = runs_below(Path(cfg.classifiers), input_name=cfg.input.name)
    finished = [run for run in found if run.record.state == "finished"]
    if not finished and not (Path(cfg.synthetic_set) / "finished.json").exists():
        raise FileNotFoundError(
            f"nothing to evaluate: no finished classifier below {cfg.classifiers} and no synthetic set in "
            f"{cfg.synthetic_set}. Run `python train.py -m experiment=classifier ...` or `python generate.py` first"
        )
    asked = overrides.request(cfg)
    with runs.held(asked.folder):
        if claim(asked, rests_on(finished, cfg)):
            print(intention(cfg, rests_on=counted(len(finished))), flush=True)
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


def counted(runs_finished: int) -> str:
    """ "8 finished runs" """
    return f"{runs_finished} finished run{'s' * (runs_finished != 1)}"


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

    from cmrcls.fairness import grid, predictions, section
    from cmrcls.fairness.checklist import checklist_section
    from cmrcls.fairness.classifier_runs import comparable
    from cmrdata.prepare import prepare
    from cmrstudy import figures
    from cmrstudy.report import Section, report_html, sourced

    source = instantiate(cfg.cohort)
    cohort = prepare(source, cfg.data_root, refresh=cfg.refresh)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": paths.shareable(sys.argv),
        "cohort": f"{cohort.folder.name} ({len(cohort.subjects):,} subjects)",
        "cohort fingerprint": cohort.fingerprint,
    }
    stores = folds(cfg, cohort)
    kept, left_out = comparable(found, cohort=lambda fold: stores(fold).fingerprint)
    predictions.check_usable(
        found, kept, left_out, cohort=cohort.folder.name, folder=cfg.classifiers
    )
    study = grid.arrange(kept, wanted=cfg.arms)
    sentences = grid.progress_sentences(grid.expected_runs(study)) + left_out
    drawn = figures.save(
        figures.demographics(cohort.subjects), folder / "figures" / "fig1_demographics"
    )
    done = study.finished()
    fold = done[0][1].fold if done else cfg.fold
    sections = [
        section.participants_section(
            stores(fold),
            study,
            folder=folder,
            sentence=split_sentence(stores(fold)),
            figure=drawn[0],
            fold=fold,
        )
    ]
    if done:
        facts["classifier runs"] = section.run_marks(study)
        sections += section.fairness_sections(
            study,
            stores,
            baseline=cfg.baseline,
            subjects=set(cohort.subjects.subject),
            cohort_name=source.name,
            left_out=left_out,
            folder=folder,
            options=measuring(cfg),
        )
    else:
        sections.append(
            Section(
                "Fairness",
                warnings=[f"No finished classifier below {cfg.classifiers}: no Table 2."],
            )
        )
    if cfg.input.name == "stack" and (Path(cfg.synthetic_set) / "finished.json").exists():
        report = image_sections(cfg, folder, cohort, study)
        examples, *further = report.sections
        sections, facts = [examples, *sections, *further], facts | report.provenance
    else:
        sections.append(Section("Synthetic images", warnings=[without_images(cfg)]))
    sections.append(checklist_section(folder))
    origin = [f"{key}: {facts[key]}" for key in ("command", "date")]
    sections = [part._replace(sources=[*origin, *sourced(part.sources)]) for part in sections]
    page = report_html(
        sections, title=f"Debiasing cardiac MRI: {cfg.name}", facts=facts, summary=sentences
    )
    runs.write_atomic(folder / "report.html", page)
    return sentences


def measuring(cfg: DictConfig) -> Options:
    """How the fairness part measures."""
    return Options(
        axes=list(cfg.axes),
        resamples=cfg.resamples,
        permutations=cfg.permutations,
        specificity=cfg.specificity,
        seed=cfg.seed,
    )


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


def image_sections(cfg: DictConfig, folder: Path, cohort: Any, study: Any) -> Any:
    """What the report says of the synthetic set, and where its numbers come from."""
    from cmrgen.evaluation.report import Settings, synthetic_report

    settings = Settings(
        judge_steps=tuple(cfg.judge_steps),
        fid_images=cfg.fid_images,
        backbones=cfg.backbones,
        audit=cfg.audit,
        audit_generator=cfg.audit_generator,
        base_weights=cfg.base.weights,
        trained_on={
            arm.name: {run.fingerprint("synthetic_set") for run in arm.runs} for arm in study.arms
        },
        device=cfg.device,
        seed=cfg.seed,
    )
    return synthetic_report(cohort, Path(cfg.synthetic_set), folder, settings)


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

    if asked := dashboards.configured(cfg.get("logger"), run=folder):
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
