"""The report on what images show: their masks and prompts, how the heart contracts, and how
different images are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.store import Store
from cmrgen.evaluation.adherence import contraction, display, diversity, scores
from cmrgen.evaluation.adherence.cells import (
    GROUP,
    confusion_cells,
    detail_cells,
    metric_name,
    subgroup_cells,
    whiskers,
    with_intervals,
)
from cmrgen.evaluation.judges import layers
from cmrgen.evaluation.measured import Measured
from cmrgen.plan.repeats import per_person
from cmrstudy import figures
from cmrstudy.report import Section, number, write_tables

ACROSS = 3  # images in a line of Fig. 4
Sides = tuple[scores.Seen, scores.Seen]  # held-out real images, and the set's


def adherence_section(found: Measured, seen: Sides, *, missing: Sequence[str]) -> Section:
    """Do the images show their masks and prompts? `missing`: groups the plan had to leave out."""
    shown, detail = scores.adherence(*seen), scores.adherence_detail(*seen)
    groups, counts = scores.by_group(*seen), scores.confusion(*seen)
    wide, bands = with_intervals(shown, groups), subgroup_cells(groups[groups.axis != "group"])
    full, cells = subgroup_cells(groups[groups.axis == "group"]), confusion_cells(counts)
    tables = []
    for frame, table, name, caption in (
        (
            wide,
            shown,
            "adherence",
            "Adherence: what judges trained on real images see in held-out real and in synthetic images [95 % interval]",
        ),
        (
            detail_cells(detail),
            detail,
            "adherence_detail",
            "Dice per structure and phase, mean ± sd over images",
        ),
        (
            bands,
            groups,
            "adherence_groups",
            "Adherence per band: Dice and share seen as asked [95 % interval]",
        ),
        (
            cells,
            counts,
            "confusion_attributes",
            "What is seen where an attribute was asked for: share of images",
        ),
    ):
        frame.attrs["caption"] = caption
        write_tables(table, found.folder, name, caption, display=frame)
        tables.append(frame)
    full.attrs["caption"] = "Adherence per full group [95 % interval]"
    few = full[full["n (subjects)"].str.endswith("few")][GROUP].nunique()
    if few:
        full.attrs["warnings"] = [
            f"{few} of {full[GROUP].nunique()} groups rest on fewer than {scores.FEW} subjects "
            "in real or synthetic images (marked few): their numbers are only a hint."
        ]
    pictures = found.folder / "figures"
    drawn = [
        (
            "Adherence beside its references",
            "fig_adherence",
            figures.adherence_bars(whiskers(shown, groups)),
        ),
        (
            "Adherence per band; line: 95 % interval",
            "fig_adherence_bands",
            display.by_band(groups),
        ),
        (
            "Attributes seen where they were asked for: share of the row (images)",
            "fig_attributes",
            display.confusion(counts),
        ),
    ]
    left = f"{len(missing)} groups have no training subject and no synthetic image: {', '.join(missing)}."
    return Section(
        "Do the images show what they were asked to?",
        [
            "Dice compares the mask an image was drawn from with what a segmenter finds in it; the accuracies "
            "compare its prompt with what an attribute network sees. Every group counts equally, in real images too. "
            "Shuffled: the same images against other images' masks and prompts, so what chance gives.",
            "A band's Dice counts images, its accuracies give every full group that both kinds of images hold equal mass. "
            "Intervals take images of one subject together: synthetic images that share a subject's mask are no "
            "independent evidence. A synthetic accuracy above the real one means that images show the attribute more "
            "plainly than people do.",
            f"In this set, {per_person(found.made.index)}.",
        ],
        tables=[*tables, full],
        figures=[
            (title, figures.save(figure, pictures / name)[0]) for title, name, figure in drawn
        ],
        warnings=[*([left] if missing else []), *scores.faults(*seen)],
        sources=_sources(found),
        answers=_adherence_answers(shown, groups),
    )


def contraction_section(found: Measured, seen: Sides) -> Section:
    """Does the heart contract as its masks say? Bland-Altman of the LV's area change."""
    real, synthetic = (contraction.pairs(side) for side in seen)
    table = contraction.agreement(real, synthetic)
    compared: list[Any] = list(table.itertuples())
    caption = "LV area change in per cent of the ED area: segmented image minus mask (Bland-Altman) [95 % interval]"
    shown = pd.DataFrame(
        [
            {
                "images": row.images,
                "hearts": row.hearts,
                "n (subjects)": f"{row.n:,} ({row.subjects:,})",
                "mask": number(row.mask, form=".1f"),
                "segmented": number(row.segmented, form=".1f"),
                **{
                    name: number(
                        *(getattr(row, f"{column}{end}") for end in ("", "_low", "_high")),
                        form=".1f",
                    )
                    for column, name in (
                        ("bias", "bias"),
                        ("lower", "lower limit"),
                        ("upper", "upper limit"),
                    )
                },
            }
            for row in compared
        ]
    )
    shown.attrs = {"caption": caption, "warnings": table.attrs["warnings"]}
    write_tables(table, found.folder, "area_change", caption, display=shown)
    drawn = display.bland_altman(
        {"real": real, "synthetic": synthetic}, table, unit="% of the area"
    )
    rows = table.set_index(["images", "hearts"])
    answers = []
    if not np.isnan(rows.bias["synthetic", "all"]):
        answers.append(
            "Left ventricles contract "
            + "; ".join(
                _contraction(rows, hearts)
                for hearts in ("healthy", "diseased")
                if rows.n["synthetic", hearts]
            )
            + "."
        )
    return Section(
        "Do the hearts contract as they were asked to?",
        [
            "Fractional area change: the share of the left ventricle's cavity area at ED that is gone at ES. It follows the "
            "ejection fraction, which a single slice does not tell. Bias: segmented image minus mask. 95 % of images lie "
            "between the limits of agreement (bias ∓ 1.96 sd) if differences are normal. Real images show what the segmenter "
            "itself adds.",
        ],
        tables=[shown],
        figures=[
            (
                "Bland-Altman: area change in the segmented image against that of the mask; solid: bias, dashed: limits of "
                "agreement, shaded: 95 % intervals",
                figures.save(drawn, found.folder / "figures" / "fig_area_change")[0],
            )
        ],
        sources=_sources(found),
        answers=answers,
    )


def diversity_section(found: Measured, *, seed: int) -> Section:
    """How different are images that share mask and prompt, a subject, or a group? With Fig. 3 and
    4."""
    folder, pictures = found.made.folder / "sweep", found.folder / "figures"
    sweep = Store.open(folder) if (folder / "store.json").exists() else None
    spread = diversity.measured(
        found.cohort, found.made, sweep, partial(layers, found.networks), seed=seed
    )
    table = diversity.diversity(spread)
    kinds: list[Any] = list(table.itertuples())
    caption = "Differences between images, by what they share: distance in the domain backbone and sd of a pixel [95 % interval]"
    shown = pd.DataFrame(
        [
            {
                "images": row.images,
                "share": row.kind,
                "bundles": row.bundles,
                "pairs": row.pairs,
                "distance": number(row.distance, row.distance_low, row.distance_high, form=".2f"),
                "pixel sd": number(row.pixel_sd, row.pixel_sd_low, row.pixel_sd_high, form=".1f"),
            }
            for row in kinds
        ]
    )
    shown.attrs = {"caption": caption, "warnings": table.attrs["warnings"]}
    write_tables(table, found.folder, "diversity", caption, display=shown)
    drawn = [
        (
            "Differences between images: mean and 95 % interval; a dot is a bundle of images",
            figures.save(display.diversity(table, spread), pictures / "fig_diversity")[0],
        )
    ]
    warnings = (
        []
        if sweep is not None
        else [
            "There is no sweep folder beside the set, so no Fig. 3 and 4: generate.py leaves it there, keep it with the set."
        ]
    )
    if sweep is not None:
        drawn += sweep_pictures(sweep, pictures)
    means = table.set_index(["images", "kind"]).distance
    other = means["synthetic", diversity.PERSONS], means["real", diversity.PERSONS]
    answers = []
    if not any(np.isnan(other)):
        answers.append(
            f"Synthetic images of different subjects of a group differ {100 * other[0] / other[1]:.0f} % as much as real ones "
            f"do (distance {other[0]:.2f} against {other[1]:.2f} in the domain backbone)."
        )
    return Section(
        "How different are the images?",
        [
            "Distance: squared differences of the attribute network's layers, each scaled to unit length over channels, mean "
            "over positions, summed over layers: LPIPS (Zhang et al. 2018) on the domain backbone, without learned weights, so "
            "it compares rows of this table only. Pixel sd: grey values (0 to 255). Images are compared within bundles: all "
            "seeds of one mask and prompt; two images of a subject from other slices or frames; two subjects of a group. "
            f"At most {diversity.MOST} bundles of a kind are measured; real ones are of the train split.",
            "Seeds that make no difference (a distance near 0) mean that more images add nothing; synthetic subjects that "
            "differ less than real ones mean that the generator knows fewer hearts than the cohort has.",
        ],
        tables=[shown],
        figures=drawn,
        warnings=warnings,
        sources=_sources(found),
        answers=answers,
    )


def sweep_pictures(made: Store, pictures: Path) -> list[tuple[str, Path]]:
    """Fig. 3 (BMI varied in the prompt), Fig. 4 (seeds varied) and what the seeds change, from
    generate.py's sweep."""
    written = []
    for figure, name, title in (
        (3, "fig3_prompt_sweep", "Fig. 3: BMI changed in the prompt; same mask, same seed (ED)"),
        (4, "fig4_seeds", "Fig. 4: one mask and prompt, different seeds (ED)"),
    ):
        rows = [
            part
            for _, part in made.index[made.index.figure == figure].groupby("source_row", sort=False)
        ]
        if rows:
            grid = [
                [figures.coloured(made.masks[part.index[0], 0]), *made.images[part.index, 0]]
                for part in rows
            ]
            heads = ["mask", *(rows[0].bmi_band if figure == 3 else [])]
            if figure == 4:  # a few in a line, for phones
                grid = [
                    [line[0] if not k else None, *line[k + 1 : k + 1 + ACROSS]]
                    for line in grid
                    for k in range(0, len(line) - 1, ACROSS)
                ]
            sides = (
                [f"{part.sex.iloc[0]}, {part.age_band.iloc[0]}" for part in rows]
                if figure == 3
                else []
            )
            title += f". {rows[0].prompt.iloc[0]}" if figure == 4 else ""
            written.append(
                (title, figures.save(figures.image_grid(grid, sides, heads), pictures / name)[0])
            )
        if rows and figure == 4 and len(rows[0]) > 1:
            drawn = display.seed_spread(made.images[rows[0].index], made.masks[rows[0].index[0]])
            title = "What the seed changes: mean and sd of the pixels of Fig. 4"
            written.append((title, figures.save(drawn, pictures / "fig_seed_spread")[0]))
    return written


def sides(found: Measured) -> Sides:
    """Held-out real images and the set's."""
    tables = found.cohort.index.iloc[found.held].reset_index(drop=True), found.made.index
    looks = zip(tables, (found.real, found.synthetic), (None, found.others), strict=True)
    real, synthetic = (
        scores.Seen(table, look.areas, look.predicted, look.flat, others, look.shuffled)
        for table, look, others in looks
    )
    return real, synthetic


def _sources(found: Measured) -> dict[str, Any]:
    held = found.cohort.index.iloc[found.held]
    return {
        "synthetic set": f"{found.made.folder}, fingerprint {found.made.fingerprint}, n = {len(found.made.index):,}",
        "real": f"val and test of cohort {found.cohort.fingerprint}, n = {len(held):,} ({held.subject.nunique():,} subjects)",
        "judges": ", ".join(
            f"{name} ({card['steps']} steps)" for name, card in found.networks.card.items()
        ),
    }


def _adherence_answers(shown: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    whole = groups[groups.axis == "all"].set_index("metric")
    rows: list[Any] = list(whole.itertuples())
    cells = {
        row.Index: f"{number(row.synthetic, row.synthetic_low, row.synthetic_high, form='.2f')} (real {row.real:.2f})"
        for row in rows
        if row.synthetic == row.synthetic
    }
    answers = []
    if "dice" in cells:
        answers.append(
            f"Synthetic images show their mask with a Dice of {cells.pop('dice')}, {shown.shuffled[0]:.2f} with another's "
            f"mask; n = {int(whole.synthetic_n['dice']):,}."
        )
    if cells:
        listed = ", ".join(f"{metric_name(str(metric))} {cell}" for metric, cell in cells.items())
        answers.append(f"Share of synthetic images in which what was asked for is seen: {listed}.")
    return answers


def _contraction(rows: pd.DataFrame, hearts: str) -> str:
    here: Any = rows.loc[("synthetic", hearts)]
    return (
        f"by {here.segmented:.0f} % of their area in {hearts} synthetic images (n = {int(here.n):,}), their masks by "
        f"{here['mask']:.0f} %"
    )
