"""Tables, figures and one report of finished runs and a synthetic set: `python evaluate.py`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrdata import runs


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@runs.plainly
def main(cfg: DictConfig) -> None:
    from cmrdata.store import fingerprint

    folder = Path(cfg.run_dir)
    found = sorted(Path(cfg.classifiers).glob("*/*/finished.json"))
    synthetic = Path(cfg.synthetic_set)
    if not found and not (synthetic / "finished.json").exists():
        raise FileNotFoundError(
            f"nothing to evaluate: no finished classifier below {cfg.classifiers} and no synthetic set in {synthetic}. "
            "Run `python train.py -m experiment=classifier ...` or `python generate.py generator=...` first"
        )
    inputs = [path.read_text() for path in (*found, synthetic / "finished.json") if path.exists()]
    settings = {k: v for k, v in OmegaConf.to_container(cfg, resolve=True).items() if k != "resume"}  # type: ignore[union-attr]
    key = fingerprint({"settings": settings, "inputs": inputs})
    if not (cfg.resume and (folder / "finished.json").exists() and runs.facts(folder)["key"] == key):
        evaluate(cfg, folder, [path.parent for path in found])
        runs.finish(folder, key=key, command=" ".join(sys.argv))
    show(folder)


def evaluate(cfg: DictConfig, folder: Path, found: list[Path]) -> None:
    """Measure, draw and write everything below `folder`."""
    from hydra.utils import instantiate

    from cmrdata import figures
    from cmrdata.report import Section, report_html
    from cmrdata.store import prepare

    cohort = prepare(instantiate(cfg.cohort), cfg.data_root)
    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "cohort": f"{cohort.folder.name} ({len(cohort.subjects):,} subjects)",
        "cohort fingerprint": cohort.fingerprint,
    }
    pictures = folder / "figures"
    figure1 = figures.save(figures.demographics(cohort.subjects), pictures / "fig1_demographics")[0]
    sections = [
        Section(
            "Who is in the cohort",
            [_split_sentence(cohort)],
            figures=[("Fig. 1: diseased subjects and the cohort", figure1)],
        )
    ]
    if found:
        sections.append(fairness_section(folder, pictures, cohort, found, facts))
    else:
        sections.append(Section("Fairness", warnings=[f"No finished classifier below {cfg.classifiers}: no Table 2."]))
    if (Path(cfg.synthetic_set) / "finished.json").exists():
        sections += synthetic_sections(cfg, folder, pictures, cohort, facts)
    else:
        sections.append(
            Section(
                "Synthetic images", warnings=[f"No synthetic set in {cfg.synthetic_set}: no Table 1, no adherence."]
            )
        )
    page = report_html(sections, title=f"Debiasing cardiac MRI: {cfg.name}", facts=facts)
    runs.write_atomic(folder / "report.html", page)


def fairness_section(folder: Path, pictures: Path, cohort: Any, found: list[Path], facts: dict[str, Any]) -> Any:
    """Table 2 from the runs' predictions."""
    import pandas as pd

    from cmrcls import fairness
    from cmrdata import figures
    from cmrdata.report import Section, write_tables

    done = {run: runs.facts(run) for run in found}
    if foreign := [run for run, fact in done.items() if fact["cohort_fingerprint"] != cohort.fingerprint]:
        raise ValueError(
            f"{foreign[0]} ({len(foreign)} of {len(found)} runs) was trained on another cohort than "
            f"{cohort.folder.name}; give evaluate.py that cohort's settings, or other classifiers="
        )
    predictions = pd.concat([pd.read_csv(run / "predictions.csv") for run in found], ignore_index=True)
    order = sorted(
        predictions.arm.astype(str).unique(), key=lambda arm: (arm == "only", int(arm) if arm.isdigit() else 0)
    )
    predictions["arm"] = pd.Categorical(predictions.arm.astype(str), order).rename_categories(_arm_name)
    predictions = predictions.sort_values(["arm", "seed"], kind="stable").astype({"arm": str})
    table = fairness.table2(predictions)
    wide, gaps = fairness.wide(table), fairness.gaps(table)
    caption = (
        "Table 2: balanced accuracy per subgroup and training set, mean ± sd over seeds; "
        "test subjects at natural prevalence"
    )
    wide.attrs["caption"] = caption
    seeds = table.groupby("arm").seeds.first()
    counts = ", ".join(f"{arm} {n}" for arm, n in seeds.items())
    warnings = [f"Few seeds (the paper has 8): {counts}."] if seeds.min() < 8 else []
    if seeds.nunique() > 1:
        warnings.append(f"Arms have different numbers of seeds, so some runs are missing: {counts}.")
    if (few := table.drop_duplicates("subgroup").query("positives < 20")).shape[0]:
        warnings.append(f"Fewer than 20 positives in {', '.join(few.subgroup)}: these rows move by chance.")
    write_tables(table, folder, "table2", caption, display=wide)
    write_tables(gaps, folder, "gaps", "Largest difference in balanced accuracy between subgroups, per axis and arm")
    bars = figures.save(figures.group_bars(table), pictures / "fig_table2_bars")[0]
    steps = sorted({fact["steps"] for fact in done.values()})
    facts["classifier runs"] = f"{len(found)}, {'/'.join(map(str, steps))} optimiser steps each"
    gaps.attrs["caption"] = "Gap: largest minus smallest subgroup mean"
    return Section(
        "Is the classifier fairer?",
        [
            f"Arms: {', '.join(seeds.index)}. Every run predicts the same {int(table.n.iloc[0]):,} test subjects, "
            f"{int(table.positives.iloc[0])} of them diseased; the decision is the likelier class."
        ],
        tables=[wide, gaps],
        figures=[("Table 2 as bars", bars)],
        warnings=warnings,
    )


def synthetic_sections(cfg: DictConfig, folder: Path, pictures: Path, cohort: Any, facts: dict[str, Any]) -> list[Any]:
    """Adherence, Table 1, and the generator's pictures."""
    import numpy as np

    from cmrdata import figures
    from cmrdata.manifest import open_synthetic
    from cmrdata.report import Section, write_tables
    from cmrgen import adherence, fidelity
    from cmrgen.judges import judge, judges

    made = open_synthetic(cfg.synthetic_set, cohort)
    networks = judges(cohort, cohort.folder / "judges", steps=tuple(cfg.judge_steps), seed=cfg.seed)
    held = np.flatnonzero(cohort.index.split.isin(("val", "test")))
    real, synthetic = judge(networks, cohort.images[held]), judge(networks, np.asarray(made.images))
    seen = [
        adherence.Seen(index.reset_index(drop=True), masks, look.segmented, look.predicted)
        for index, masks, look in (
            (cohort.index.iloc[held], cohort.masks[held], real),
            (made.index, np.asarray(made.masks), synthetic),
        )
    ]
    shown = adherence.adherence(*seen, seed=cfg.seed)
    detail = adherence.adherence_detail(*seen, seed=cfg.seed)
    shown.attrs["caption"] = (
        "Adherence: what judges trained on real images see in held-out real and in synthetic images"
    )
    write_tables(shown, folder, "adherence", shown.attrs["caption"])
    write_tables(detail, folder, "adherence_detail", "Dice per structure and phase")
    bars = figures.save(figures.adherence_bars(shown), pictures / "fig_adherence")[0]
    drawn = sweep_pictures(Path(cfg.synthetic_set) / "sweep", pictures)

    def distances(rows: np.ndarray, features: np.ndarray) -> Any:
        options = {"n": cfg.fid_images, "seed": cfg.seed}
        return fidelity.table1(features, cohort.index.iloc[rows], synthetic.features, made.index, **options)

    table = distances(held, real.features)
    if table.attrs["pool"] != next(iter(fidelity.POOLS)):
        held = np.flatnonzero(cohort.index.split != "extra")  # too few held-out images: all splits, with a warning
        table = distances(held, judge(networks, cohort.images[held]).features)
    tables = [written_table1(table, folder, "table1", "domain"), *inception_table(cfg, folder, cohort, held, made)]
    heat = []
    if len(table):
        heat = [("Table 1 as heat maps", figures.save(figures.fid_heatmap(table), pictures / "fig_fid")[0])]
    facts |= {
        "synthetic set": f"{cfg.synthetic_set} ({len(made.index):,} images, {made.index.group.nunique()} groups)",
        "synthetic fingerprint": made.fingerprint,
        "generator": made.meta["settings"]["generator"],
        "sampler": f"{made.meta['settings']['sampler']}, {made.meta['settings']['steps']} steps",
        "judges": ", ".join(f"{name}: {card['steps']} steps" for name, card in networks.card.items()),
    }
    left = runs.facts(Path(cfg.synthetic_set)).get("missing_groups", [])
    warnings = (
        [f"{len(left)} groups have no training subject and no synthetic image: {', '.join(left)}."] if left else []
    )
    return [
        Section(
            "Do the images show what they were asked to?",
            [
                "Dice compares the mask an image was drawn from with what a segmenter finds in it; the accuracies "
                "compare its prompt with what an attribute network sees. Every group counts equally, in real images too. "
                "Shuffled: the same images against other images' masks and prompts, so what chance gives."
            ],
            tables=[shown, detail],
            figures=[("Adherence", bars), *drawn],
            warnings=warnings,
        ),
        Section(
            "How far are synthetic from real images?",
            [
                "Distances in the features of the cohort's own attribute network (the domain backbone); they compare cells "
                "of this table, not with distances in Inception features. Real - Real within a group is the floor: two "
                "halves without a common subject."
            ],
            tables=tables,
            figures=heat,
        ),
        *audit_section(cfg, folder, cohort, made, networks),
    ]


def audit_section(cfg: DictConfig, folder: Path, cohort: Any, made: Any, networks: Any) -> list[Any]:
    """Is the set safe to share? Real images go to folder/private and nowhere else."""
    if not cfg.audit:
        return []
    from cmrdata.report import Section, write_tables
    from cmrgen import privacy
    from cmrgen.judges import judge

    found = privacy.audit(cohort, made, lambda images: judge(networks, images).features, seed=cfg.seed)
    privacy.write_private(found, cohort, made, folder / "private")
    for table, name, caption in (
        (found.groups, "audit", "Audit: candidate copies, authenticity and C_T per group"),
        (found.sources, "audit_sources", "Audit: likeness to the subject whose mask and prompt were used"),
    ):
        table.attrs["caption"] = caption
        write_tables(table, folder, name, caption)
    overall = found.groups[found.groups.group == "all"].copy()
    overall.attrs["caption"] = "Audit of the whole set (audit.csv has every group)"
    tables = [overall, found.sources]
    if cfg.audit_generator:
        from cmrgen.membership import attack
        from cmrgen.render import load_generator

        generator = load_generator(cfg.audit_generator)
        if generator.facts["cohort_fingerprint"] != cohort.fingerprint:
            raise ValueError(
                f"audit_generator={cfg.audit_generator} was trained on another cohort than {cohort.folder.name}"
            )
        table = attack(generator, cohort, seed=cfg.seed)
        table.attrs["caption"] = "Membership attack by the generator's loss, 95 % intervals"
        write_tables(table, folder, "membership", table.attrs["caption"])
        tables.append(table[table.group == "all"])
    return [
        Section(
            "Is the set safe to share?",
            [
                *found.verdicts,
                "The nearest pairs, which show real images, are in the private folder beside this report.",
            ],
            tables=tables,
            warnings=found.notes,
        )
    ]


def sweep_pictures(sweep: Path, pictures: Path) -> list[tuple[str, Path]]:
    """Fig. 3 (BMI varied in the prompt) and Fig. 4 (seeds varied), from the images generate.py left beside the set."""
    from cmrdata import figures
    from cmrdata.store import Store

    made = Store.open(sweep)
    written = []
    for figure, name, title in (
        (3, "fig3_prompt_sweep", "Fig. 3: BMI changed in the prompt; same mask, same seed (ED)"),
        (4, "fig4_seeds", "Fig. 4: one mask and prompt, different seeds (ED)"),
    ):
        rows = [part for _, part in made.index[made.index.figure == figure].groupby("source_row", sort=False)]
        if rows:
            grid = [[figures.coloured(made.masks[part.index[0], 0]), *made.images[part.index, 0]] for part in rows]
            heads = ["mask", *(rows[0].bmi_band if figure == 3 else [f"seed {k + 1}" for k in range(len(rows[0]))])]
            sides = [f"{part.sex.iloc[0]}, {part.age_band.iloc[0]}" for part in rows] if figure == 3 else []
            title += f". {rows[0].prompt.iloc[0]}" if figure == 4 else ""
            written.append((title, figures.save(figures.image_grid(grid, sides, heads), pictures / name)[0]))
    return written


def inception_table(cfg: DictConfig, folder: Path, cohort: Any, held: Any, made: Any) -> list[Any]:
    """Table 1 in Inception features, where their weights are given: comparable with the paper's."""
    if cfg.inception is None:
        return []
    import numpy as np

    from cmrgen.fidelity import table1
    from cmrgen.inception import inception_features

    features = [inception_features(images, cfg.inception) for images in (cohort.images[held], np.asarray(made.images))]
    table = table1(features[0], cohort.index.iloc[held], features[1], made.index, n=cfg.fid_images, seed=cfg.seed)
    return [written_table1(table, folder, "table1_inception", "Inception")]


def written_table1(table: Any, folder: Path, name: str, backbone: str) -> Any:
    """Table 1 of one backbone written below `folder`; returns it as the paper prints it."""
    from cmrdata.report import write_tables
    from cmrgen.fidelity import table1_wide

    wide = table1_wide(table)
    wide.attrs["caption"] = (
        f"Table 1: Fréchet distance between subgroups, {backbone} features, n = {table.n.min() if len(table) else 0} "
        "images a side, mean (sd) over draws"
    )
    write_tables(table, folder, name, wide.attrs["caption"], display=wide)
    return wide


def show(folder: Path) -> None:
    """The tables in the terminal, and where the report is."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    for name in ("table1", "table2", "adherence"):
        if (folder / f"{name}.md").exists():
            console.print(Markdown((folder / f"{name}.md").read_text()))
    console.print(f"\nreport: {folder / 'report.html'}", soft_wrap=True)


def _arm_name(arm: str) -> str:
    return {"0": "Real", "only": "Synthetic"}.get(arm, f"Real + {arm}")


def _split_sentence(cohort: Any) -> str:
    counts = cohort.subjects.groupby("split").label.agg(["size", "sum"])
    return (
        "; ".join(
            f"{split}: {int(row['size']):,} subjects, {int(row['sum'])} diseased" for split, row in counts.iterrows()
        )
        + "."
    )


if __name__ == "__main__":
    main()
