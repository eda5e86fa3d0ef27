"""What the report says of how far synthetic images are from real ones, with the same tables for
every backbone, and of whether the two can be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrdata.axes import title_of
from cmrdata.store import Store
from cmrgen.evaluation.fidelity import display, subgroups
from cmrgen.evaluation.fidelity.backbones import Featuring, extractor, kept_features
from cmrgen.evaluation.fidelity.distances import METRICS
from cmrgen.evaluation.fidelity.equal_samples import ACROSS
from cmrgen.evaluation.fidelity.figures import fid_heatmap, two_sample_figure
from cmrgen.evaluation.fidelity.two_sample import (
    NETWORK,
    STEPS,
    matched_images,
    set_and_floor_tests,
)
from cmrgen.evaluation.judges import Evaluation, domain_backbone
from cmrstudy import figures, paper
from cmrstudy.intervals import MIN_COUNT
from cmrstudy.report import Section, Shown, write_table

HEADING = "How far are synthetic from real images?"
DISTANCES = (
    "Domain features are those of the cohort's own attribute network. Distances can be compared "
    "within a table, never between backbones. Real - Real within a group is the floor: two halves "
    "of the real images that share no subject. Every cell has as many images on either side, since "
    "a Fréchet distance falls with their number; a group that has too few is n/a instead of being "
    "filled up. KID has no such bias and can be negative; its interval leaves out one subject at a "
    "time."
)


class BackboneFeatures(NamedTuple):
    """The features of the compared images by one backbone."""

    title: str
    suffix: str  # of its tables' names
    real: np.ndarray
    synthetic: np.ndarray
    source: str


class BackboneResults(NamedTuple):
    """What the section shows of one backbone."""

    table1: Shown
    overview: Shown
    by_group: Shown
    groups_compared: bool  # whether a full group has enough images on both sides
    figures: list[tuple[str, Path]]
    answers: list[str]

    @property
    def shown(self) -> list[Shown]:
        """Its tables in the report."""
        tables = [self.table1, self.overview]
        return [*tables, self.by_group] if self.groups_compared else tables


def fidelity_section(
    evaluation: Evaluation, *, backbones: Mapping[str, str | None], n: int, seed: int
) -> Section:
    """How far are synthetic from real images? Table 1 and further measures in the features of every
    backbone.

    Args:
        evaluation: the set and its cohort.
        backbones: name in `backbones.BACKBONES` -> local weights file, or None to leave it out;
            domain, the cohort's own attribute network, is always there.
        n: images a side, at most.
        seed: of the draws.
    """
    cohort, synthetic_set = evaluation.cohort, evaluation.synthetic_set
    rows = subgroups.used_rows(cohort.index, synthetic_set.index, n=n, seed=seed)
    features = _features(evaluation, rows, backbones)
    results = [_measured(evaluation, of, rows, n=n, seed=seed) for of in features]
    tables = [table for result in results for table in result.shown]
    if cohort.meta["settings"]["cohort"] == "ukbb":
        tables.append(printed_table1())
    people = subgroups.compared_subgroups(cohort.index, synthetic_set.index)
    shown_people = Shown(
        people,
        "Who Table 1 compares: real images and subjects of each subgroup's pool, synthetic images",
    )
    write_table(shown_people, evaluation.folder, "table1_subgroups")
    no_groups = [
        f"None of {len(result.by_group.frame)} full groups has {MIN_COUNT} images on both sides, "
        "so there is no table of them."
        for result in results
        if not result.groups_compared
    ]
    meanings = [metric.meaning for metric in METRICS.values() if metric.meaning]
    return Section(
        HEADING,
        [
            DISTANCES,
            " ".join([*meanings, "Compare each with its value in brackets."]),
            _pools_sentence(people),
        ],
        tables=[tables[0], shown_people, *tables[1:]],
        figures=[figure for result in results for figure in result.figures],
        warnings=no_groups[:1],
        sources=_sources(evaluation, features, rows),
        answers=[answer for result in results for answer in result.answers],
    )


def _sources(
    evaluation: Evaluation, features: list[BackboneFeatures], rows: subgroups.Rows
) -> dict[str, str]:
    cohort, synthetic_set = evaluation.cohort, evaluation.synthetic_set
    drawn = cohort.index.iloc[rows[0]]
    return {
        **{f"{of.title} features": of.source for of in features},
        "real": f"cohort {cohort.fingerprint}, the {len(drawn):,} images "
        f"({drawn.subject.nunique():,} subjects) that are drawn",
        "synthetic": f"{synthetic_set.folder}, fingerprint {synthetic_set.fingerprint}, "
        f"n = {len(synthetic_set.index):,}, {len(rows[1]):,} of them drawn",
    }


def _measured(
    evaluation: Evaluation,
    features: BackboneFeatures,
    rows: subgroups.Rows,
    *,
    n: int,
    seed: int,
) -> BackboneResults:
    """Measure, write and draw everything in the features of one backbone."""
    folder, title, suffix = evaluation.folder, features.title, features.suffix
    given = (
        features.real,
        evaluation.cohort.index,
        features.synthetic,
        evaluation.synthetic_set.index,
    )
    table1 = subgroups.table1(*given, n=n, seed=seed, rows=rows)
    whole = subgroups.fidelity_table(*given, n=n, seed=seed, rows=rows)
    by_group = subgroups.fidelity_table(*given, n=n, seed=seed, groups=True, rows=rows)
    shown_table1 = display.table1_cells(table1, title=title)
    overview, groups = (display.overview_cells(of, title=title) for of in (whole, by_group))
    write_table(shown_table1, folder, f"table1{suffix}", data=table1.table)
    write_table(overview, folder, f"fidelity{suffix}", data=whole.table)
    write_table(groups, folder, f"fidelity_groups{suffix}", data=by_group.table)
    pictures = []
    if table1.table.fid.notna().any():
        path = evaluation.figures / f"fig_fid{suffix}"
        picture = figures.save(fid_heatmap(table1.table), path)[0]
        pictures.append((f"Table 1 as heat maps, {title} features", picture))
    across = by_group.table[by_group.table.kind == ACROSS]
    return BackboneResults(
        shown_table1,
        overview,
        groups,
        bool(across.value.notna().any()),
        pictures,
        _fidelity_answers(whole.table, title),
    )


def printed_table1() -> Shown:
    """The paper's Table 1, for the cohort it was made of; ages by decade, and Inception
    features."""
    return Shown(
        display.table1_wide(paper.table1()),
        "Table 1 as the paper prints it: Inception features, 500 images on either side, Stable "
        "Diffusion 2.1",
    )


def _pools_sentence(people: pd.DataFrame) -> str:
    """Which real images the axes are compared with, in a sentence or two."""
    pools = "; ".join(
        f"{pool}: "
        f"{', '.join('all together' if axis == 'all' else title_of(axis) for axis in axes.unique())}"
        for pool, axes in people.groupby("pool").axis
    )
    return (
        "Real images are those of held-out people (validation and test) where each half of both "
        f"groups of an axis has {subgroups.ENOUGH}; otherwise that axis alone is compared with "
        f"training and held-out people together. Here {pools}."
    )


def _features(
    evaluation: Evaluation, rows: subgroups.Rows, backbones: Mapping[str, str | None]
) -> list[BackboneFeatures]:
    """Of the cohort's and of the set's `rows`, by the domain backbone and by those whose weights
    are given."""
    features = [
        BackboneFeatures(
            "domain",
            "",
            _domain_features(evaluation, rows[0]),
            evaluation.synthetic.features[rows[1]],
            "attribute network of the judges",
        )
    ]
    for name, weights in backbones.items():
        if weights is not None:
            by = extractor(name, weights, device=evaluation.device)
            real, synthetic = (
                _kept(evaluation, store, store_rows, by)
                for store, store_rows in zip(
                    (evaluation.cohort, evaluation.synthetic_set), rows, strict=True
                )
            )
            source = f"{Path(weights).name}, sha256 {by.sha256[:16]}"
            features.append(BackboneFeatures(by.of.title, f"_{name}", real, synthetic, source))
    return features


def _domain_features(evaluation: Evaluation, rows: np.ndarray) -> np.ndarray:
    """Domain features of the cohort's `rows`; only those that were not judged yet go through the
    network."""
    held_out, judged = evaluation.held_out, evaluation.real.features
    known = np.isin(rows, held_out)
    features = np.empty((len(rows), judged.shape[1]), judged.dtype)
    features[known] = judged[np.searchsorted(held_out, rows[known])]
    if not known.all():
        by = domain_backbone(evaluation.networks)
        features[~known] = _kept(evaluation, evaluation.cohort, rows[~known], by)
    return features


def _kept(evaluation: Evaluation, store: Store, rows: np.ndarray, by: Featuring) -> np.ndarray:
    """Features of rows of a store, computed once."""
    return kept_features(store, rows, by, places=evaluation.places(store, "features"))


def _fidelity_answers(table: pd.DataFrame, title: str) -> list[str]:
    """One sentence for the top of the page, if there is a number."""
    whole = table[(table.axis == "all") & (table.metric == "fid")].set_index("kind")
    across, floor = whole.loc[ACROSS], whole.drop(ACROSS).iloc[0]
    if np.isnan(across["value"]):
        return []
    return [
        f"Fréchet distance of synthetic to real images: {across['value']:.2f}; of real to real "
        f"images: {floor['value']:.2f} ({title} features, {across['n']} images a side)."
    ]


def two_sample_section(evaluation: Evaluation, *, seed: int, steps: int = STEPS) -> Section:
    """Can the set's images be told from held-out real ones?

    Args:
        evaluation: the set and its cohort.
        seed: of everything drawn here.
        steps: of the network's training, STEPS at most.
    """
    matched = matched_images(evaluation, seed=seed)
    synthetic, floor = set_and_floor_tests(evaluation, matched, steps=min(steps, STEPS), seed=seed)
    shown = display.two_sample_cells(synthetic, floor)
    write_table(shown, evaluation.folder, "two_sample", data=synthetic)
    caption = "The same tests of the real images that the masks belong to"
    write_table(Shown(floor, caption), evaluation.folder, "two_sample_real")
    pictures = []
    if synthetic.auc.notna().any():
        figure = two_sample_figure(synthetic, floor)
        path = figures.save(figure, evaluation.figures / "fig_two_sample")[0]
        pictures = [("Two-sample tests of synthetic images, and of real ones as the floor", path)]
    return Section(
        "Can synthetic images be told from real ones?",
        [
            matched.sentence,
            "A network is trained on half of the subjects and scores the images of the others, and "
            "the other way round; an image and those drawn from the same subject's mask are always "
            "in one half. An AUC below 0.5 tells the two kinds apart as well as one above: real "
            "images then have more of what is measured. The floor are the real training images "
            "whose masks the set was drawn from, in place of the synthetic ones: they differ from "
            "held-out images by who and which slices are shown, not by how. Intervals resample "
            "subjects; the network's takes the trained networks as given.",
            "Whatever tells the source of an image is a shortcut for a classifier that is trained "
            "on both. `harmonise=true` trains an arm with the set's grey levels and sharpness "
            "matched to real training images.",
        ],
        tables=[shown],
        figures=pictures,
        warnings=_shortcuts(synthetic, floor),
        sources=[
            f"{evaluation.synthetic_set.folder}, fingerprint {evaluation.synthetic_set.fingerprint}",
            f"cohort {evaluation.cohort.fingerprint}",
        ],
        answers=_two_sample_answers(synthetic, floor),
    )


def _shortcuts(synthetic: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    """One sentence of the trivial tests that tell images apart beyond what the floor does."""
    worse = [
        f"{a.test} ({a.auc:.2f})"
        for a, b in zip(synthetic.itertuples(), floor.itertuples(), strict=True)
        if a.test != NETWORK
        and (a.low > 0.5 or a.high < 0.5)
        and (a.low > b.high or a.high < b.low)
    ]
    if not worse:
        return []
    return [
        "A single number tells synthetic from real images better than it tells real images from "
        f"each other: {', '.join(worse)}."
    ]


def _two_sample_answers(synthetic: pd.DataFrame, floor: pd.DataFrame) -> list[str]:
    row, own = (side.set_index("test").loc[NETWORK] for side in (synthetic, floor))
    if np.isnan(row.auc):
        return []
    return [
        f"A small network tells synthetic from held-out real images with an AUC of {row.auc:.2f} "
        f"[{row.low:.2f}, {row.high:.2f}], real training images from them with {own.auc:.2f} "
        "(0.5: not at all)."
    ]
