"""What the report says of the images' content: whether they show their masks and prompts, how the
heart contracts, and how different images are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.counting import number_of
from cmrdata.store import Store
from cmrgen.evaluation.adherence import contraction, display, diversity, scores
from cmrgen.evaluation.adherence.figures import (
    adherence_bars,
    band_figure,
    bland_altman,
    confusion_figure,
    diversity_figure,
    seed_spread,
)
from cmrgen.evaluation.adherence.scores import JudgedImages
from cmrgen.evaluation.judges import Evaluation, perceptual_layers
from cmrgen.plan.repeats import per_person
from cmrstudy import figures
from cmrstudy.report import Section, number, write_table

HEADING = "Do the images show what they were asked to?"
COMPARED = (
    "Dice compares the mask an image was drawn from with what a segmenter finds in the image; the "
    "accuracies compare its prompt with what an attribute network sees. Every group counts "
    "equally, in real images too. Shuffled: the same images compared with other images' masks and "
    "prompts, which is what chance gives.",
    "The Dice of a band counts images; its accuracies give every full group that both kinds of "
    "images have equal weight. Intervals take images of one subject together: synthetic images "
    "that share a subject's mask are no independent evidence. A synthetic accuracy above the real "
    "one means that synthetic images show the attribute more plainly than people do.",
)
CONTRACTION = (
    "Fractional area change: the share of the left ventricle's cavity area at ED that is gone at "
    "ES. It follows the ejection fraction, which a single slice cannot give. Bias: segmented "
    "image minus mask. 95 % of images lie between the limits of agreement (bias ∓ 1.96 sd) if "
    "differences are normally distributed. Slope: points of area change seen per point that the "
    "mask asks for; below 1 hearts contract more alike than their masks. Real images show what "
    "the segmenter itself adds."
)
DISTANCE = (
    "Distance: squared differences of the attribute network's layers, each scaled to unit length "
    "over channels, mean over positions, summed over layers. This is LPIPS (Zhang et al. 2018) on "
    "the domain backbone without learned weights, so it can be compared between rows of this "
    "table only. Pixel sd: standard deviation of grey values (0 to 255). Images are compared "
    "within bundles: all seeds of one mask and prompt; two images of a subject from other slices "
    f"or frames; two subjects of a group. At most {diversity.MAX_BUNDLES} bundles of a kind are "
    "measured; real ones are of the training split.",
    "Seeds that make no difference (a distance near 0) mean that more images add nothing. "
    "Synthetic subjects that differ less than real ones mean that the generator knows fewer "
    "hearts than the cohort has.",
)
ACROSS = 3  # images in a line of Fig. 4
Sides = tuple[JudgedImages, JudgedImages]  # held-out real images, and the set's


def adherence_sections(
    evaluation: Evaluation, *, missing: Sequence[str], seed: int
) -> list[Section]:
    """What the images show, how hearts contract in them, how different they are.

    Args:
        evaluation: the set and its cohort.
        missing: groups without an image, which the plan had to leave out.
        seed: of the images that are compared with each other.
    """
    count = len(evaluation.synthetic_set.index)
    if count < 2:
        warning = (
            f"{evaluation.synthetic_set.folder} holds {number_of(count, 'images')}; adherence, "
            "contraction and diversity need 2."
        )
        return [Section(HEADING, warnings=[warning])]
    sides = judged_sides(evaluation)
    return [
        adherence_section(evaluation, sides, missing=missing),
        contraction_section(evaluation, sides),
        diversity_section(evaluation, seed=seed),
    ]


def judged_sides(evaluation: Evaluation) -> Sides:
    """Held-out real images and the set's, with what the judges see in them."""
    real, synthetic = evaluation.real, evaluation.synthetic
    held_out = evaluation.cohort.index.iloc[evaluation.held_out].reset_index(drop=True)
    return (
        JudgedImages(held_out, real.areas, real.predicted, real.flat),
        JudgedImages(
            evaluation.synthetic_set.index,
            synthetic.areas,
            synthetic.predicted,
            synthetic.flat,
            evaluation.other_rows,
            synthetic.shuffled,
        ),
    )


def adherence_section(evaluation: Evaluation, sides: Sides, *, missing: Sequence[str]) -> Section:
    """Do the images show their masks and prompts?

    Args:
        evaluation: the set and its cohort.
        sides: of `judged_sides`.
        missing: groups that the plan had to leave out.
    """
    adherence, detail = scores.adherence_table(*sides), scores.adherence_detail(*sides)
    groups, counts = scores.by_group(*sides), scores.confusion_counts(*sides)
    tables = []
    for shown, name, data in (
        (display.adherence_cells(adherence, groups), "adherence", adherence.table),
        (display.detail_cells(detail), "adherence_detail", detail),
        (display.band_cells(groups), "adherence_groups", groups),
        (display.confusion_cells(counts), "confusion_attributes", counts),
    ):
        write_table(shown, evaluation.folder, name, data=data)
        tables.append(shown)
    bars, bands = adherence_bars(adherence.table, groups), band_figure(groups)
    seen = "Attributes that are seen, by those that were asked for: share of the row (images)"
    drawings = [
        ("Adherence beside its references", "fig_adherence", bars),
        ("Adherence per band; line: 95 % interval", "fig_adherence_bands", bands),
        (seen, "fig_attributes", confusion_figure(counts)),
    ]
    left_out = (
        f"{number_of(len(missing), 'groups', 'have')} no training subject and no synthetic image: "
        f"{', '.join(missing)}."
    )
    return Section(
        HEADING,
        [*COMPARED, f"In this set, {per_person(evaluation.synthetic_set.index)}."],
        tables=[*tables, display.group_cells(groups)],
        figures=[
            (title, figures.save(figure, evaluation.figures / name)[0])
            for title, name, figure in drawings
        ],
        warnings=[*([left_out] if missing else []), *scores.faults(*sides)],
        sources=_sources(evaluation),
        answers=_adherence_answers(adherence.table, groups),
    )


def contraction_section(evaluation: Evaluation, sides: Sides) -> Section:
    """Does the heart contract as its masks say? Bland-Altman of the LV's area change."""
    real, synthetic = (contraction.area_changes(side) for side in sides)
    agreement = contraction.agreement(real, synthetic)
    shown = display.agreement_cells(agreement)
    write_table(shown, evaluation.folder, "area_change", data=agreement.table)
    figure = bland_altman(
        {"real": real, "synthetic": synthetic}, agreement.table, unit="% of the area"
    )
    return Section(
        "Do the hearts contract as they were asked to?",
        [CONTRACTION],
        tables=[shown],
        figures=[
            (
                "Bland-Altman: area change in the segmented image against that of the mask; solid: "
                "bias, dashed: limits of agreement, shaded: 95 % intervals",
                figures.save(figure, evaluation.figures / "fig_area_change")[0],
            )
        ],
        sources=_sources(evaluation),
        answers=_contraction_answers(agreement.table),
    )


def diversity_section(evaluation: Evaluation, *, seed: int) -> Section:
    """How different are images that share mask and prompt, a subject, or a group? With Fig. 3 and
    4."""
    folder = evaluation.synthetic_set.folder / "sweep"
    sweep = Store.open(folder) if (folder / "store.json").exists() else None
    layers = partial(perceptual_layers, evaluation.networks)
    spreads = diversity.spread_by_kind(
        evaluation.cohort, evaluation.synthetic_set, sweep, layers, seed=seed
    )
    differences = diversity.diversity_table(spreads)
    shown = display.diversity_cells(differences)
    write_table(shown, evaluation.folder, "diversity", data=differences.table)
    figure = diversity_figure(differences.table, spreads)
    pictures = [
        (
            "Differences between images: mean and 95 % interval; each dot is a bundle of images",
            figures.save(figure, evaluation.figures / "fig_diversity")[0],
        )
    ]
    without_sweep = (
        "There is no sweep folder in the set's folder, so there are no Fig. 3 and 4; generate.py "
        "writes it there, and it belongs to the set."
    )
    return Section(
        "How different are the images?",
        DISTANCE,
        tables=[shown],
        figures=pictures + (sweep_pictures(sweep, evaluation.figures) if sweep else []),
        warnings=[] if sweep else [without_sweep],
        sources=_sources(evaluation),
        answers=_diversity_answers(differences.table),
    )


def sweep_pictures(sweep: Store, folder: Path) -> list[tuple[str, Path]]:
    """Fig. 3 (BMI varied in the prompt), Fig. 4 (seeds varied) and what the seeds change.

    Args:
        sweep: the images of generate.py's sweep; a row of figure 3 or 4 shares its source row.
        folder: where the pictures are written.

    Returns:
        Title and file of each.
    """
    index, pictures = sweep.index, []
    prompts = [rows for _, rows in index[index.figure == 3].groupby("source_row", sort=False)]
    if prompts:
        figure = figures.image_grid(
            [_mask_and_images(sweep, rows) for rows in prompts],
            [f"{rows.sex.iloc[0]}, {rows.age_band.iloc[0]}" for rows in prompts],
            ["mask", *prompts[0].bmi_band],
        )
        title = "Fig. 3: BMI changed in the prompt; same mask, same seed (ED)"
        pictures.append((title, figures.save(figure, folder / "fig3_prompt_sweep")[0]))
    seeds = [rows for _, rows in index[index.figure == 4].groupby("source_row", sort=False)]
    if seeds:
        grid = [
            [line[0] if not k else None, *line[k + 1 : k + 1 + ACROSS]]  # a few in a line
            for line in (_mask_and_images(sweep, rows) for rows in seeds)
            for k in range(0, len(line) - 1, ACROSS)
        ]
        title = f"Fig. 4: one mask and prompt, different seeds (ED). {seeds[0].prompt.iloc[0]}"
        figure = figures.image_grid(grid, [], ["mask"])
        pictures.append((title, figures.save(figure, folder / "fig4_seeds")[0]))
    if seeds and len(seeds[0]) > 1:
        rows = seeds[0].index
        figure = seed_spread(sweep.images[rows], sweep.masks[rows[0]])
        title = "What the seed changes: mean and sd of the pixels of Fig. 4"
        pictures.append((title, figures.save(figure, folder / "fig_seed_spread")[0]))
    return pictures


def _mask_and_images(sweep: Store, rows: pd.DataFrame) -> list[np.ndarray]:
    """The mask at ED in colour, and the images drawn from it."""
    return [figures.coloured(sweep.masks[rows.index[0], 0]), *sweep.images[rows.index, 0]]


def _sources(evaluation: Evaluation) -> dict[str, Any]:
    synthetic_set, cohort = evaluation.synthetic_set, evaluation.cohort
    held_out = cohort.index.iloc[evaluation.held_out]
    return {
        "synthetic set": f"{synthetic_set.folder}, fingerprint {synthetic_set.fingerprint}, "
        f"n = {len(synthetic_set.index):,}",
        "real": f"validation and test of cohort {cohort.fingerprint}, n = {len(held_out):,} "
        f"({held_out.subject.nunique():,} subjects)",
        "judges": ", ".join(
            f"{name} ({card['steps']} steps)" for name, card in evaluation.networks.card.items()
        ),
    }


def _adherence_answers(adherence: pd.DataFrame, groups: pd.DataFrame) -> list[str]:
    whole = groups[groups.axis == "all"].set_index("metric")
    rows: list[Any] = list(whole.itertuples())
    cells = {
        row.Index: number(row.synthetic, row.synthetic_low, row.synthetic_high, form=".2f")
        + f" (real {row.real:.2f})"
        for row in rows
        if row.synthetic == row.synthetic
    }
    answers = []
    if "dice" in cells:
        answers.append(
            f"Synthetic images show their mask with a Dice of {cells.pop('dice')}, "
            f"{adherence.shuffled[0]:.2f} with another's mask; "
            f"n = {int(whole.synthetic_n['dice']):,}."
        )
    if cells:
        listed = ", ".join(
            f"{display.metric_name(str(metric))} {cell}" for metric, cell in cells.items()
        )
        answers.append(f"Share of synthetic images in which what was asked for is seen: {listed}.")
    return answers


def _contraction_answers(agreement: pd.DataFrame) -> list[str]:
    rows = agreement.set_index(["images", "hearts"]).loc["synthetic"]
    if np.isnan(rows.bias["all"]):
        return []
    clauses = [
        f"by {row.segmented:.0f} % of their area in {hearts} synthetic images (n = "
        f"{int(row.n):,}), their masks by {row['mask']:.0f} %"
        for hearts, row in rows.drop("all").iterrows()
        if row.n
    ]
    slopes = {
        images: 10 * agreement.set_index(["images", "hearts"]).slope[images, "all"]
        for images in ("synthetic", "real")
    }
    follow = (
        f" Where a mask asks for 10 points more, the image shows {slopes['synthetic']:.1f} more "
        f"(real images {slopes['real']:.1f})."
    )
    return [
        "Left ventricles contract "
        f"{'; '.join(clauses)}.{'' if np.isnan(sum(slopes.values())) else follow}"
    ]


def _diversity_answers(differences: pd.DataFrame) -> list[str]:
    means = differences.set_index(["images", "kind"]).distance
    synthetic, real = (means[images, diversity.PERSONS] for images in ("synthetic", "real"))
    if np.isnan(synthetic) or np.isnan(real):
        return []
    return [
        "Synthetic images of different subjects of a group differ "
        f"{100 * synthetic / real:.0f} % as much as real ones do (distance {synthetic:.2f} against "
        f"{real:.2f} in the domain backbone)."
    ]
