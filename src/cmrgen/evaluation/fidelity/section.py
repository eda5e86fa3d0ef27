"""The report on how far synthetic images are from real ones: the same tables for every backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cmrdata.axes import title_of
from cmrdata.store import Store
from cmrgen.evaluation.fidelity import subgroups
from cmrgen.evaluation.fidelity.backbones import Featuring, extractor, features
from cmrgen.evaluation.fidelity.equal_samples import ACROSS
from cmrgen.evaluation.judges import domain
from cmrgen.evaluation.measured import Measured
from cmrstudy import figures, paper
from cmrstudy.report import Section, write_tables

SUMMARY = (
    "{name} features: synthetic against real images of the same group, in brackets real against real; n = {n} images a "
    "side, mean over draws; precision and recall with k = 3, density and coverage with k = 5 neighbours"
)


class Features(NamedTuple):
    """What a backbone sees."""

    title: str
    suffix: str  # of its tables' names
    real: np.ndarray
    synthetic: np.ndarray
    source: str


def fidelity_section(
    found: Measured, *, backbones: Mapping[str, str | None], n: int, seed: int
) -> Section:
    """How far are synthetic from real images? Table 1 and further measures in the features of every
    backbone.

    `backbones`: name in cmrgen.evaluation.fidelity.backbones.BACKBONES -> local weights file, or None to
    leave it out; domain, the cohort's own attribute network, is always there. `n`: images a side,
    at most.
    """
    both = found.cohort.index, found.made.index
    rows = subgroups.used_rows(*both, n=n, seed=seed)
    real = found.cohort.index.iloc[rows[0]]
    tables, drawn, sources, answers = [], [], {}, []
    warnings: list[str] = []
    for seen in _features(found, rows, backbones):
        given = (seen.real, both[0], seen.synthetic, both[1])
        table = subgroups.table1(*given, n=n, seed=seed, rows=rows)
        tables.append(_table1(table, found.folder, seen))
        long = subgroups.fidelity(*given, n=n, seed=seed, rows=rows)
        tables.append(_summary(long, found.folder, f"fidelity{seen.suffix}", seen.title))
        groups = subgroups.fidelity(*given, n=n, seed=seed, groups=True, rows=rows)
        shown = _summary(groups, found.folder, f"fidelity_groups{seen.suffix}", seen.title)
        if groups[groups.kind == ACROSS].value.notna().any():
            tables.append(shown)
        elif not warnings:
            warnings.append(
                f"None of {len(shown)} full groups has {subgroups.FEW} images on both sides: no table of them."
            )
        if table.fid.notna().any():
            figure = figures.save(
                figures.fid_heatmap(table), found.folder / "figures" / f"fig_fid{seen.suffix}"
            )
            drawn.append((f"Table 1 as heat maps, {seen.title} features", figure[0]))
        sources[f"{seen.title} features"] = seen.source
        answers += _answer(long, seen.title)
    if found.cohort.meta["settings"]["cohort"] == "ukbb":
        tables.append(_printed())
    people = _subgroups(*both, found.folder)
    tables.insert(1, people)
    sources["real"] = (
        f"cohort {found.cohort.fingerprint}, the {len(real):,} images ({real.subject.nunique():,} subjects) that are drawn"
    )
    sources["synthetic"] = (
        f"{found.made.folder}, fingerprint {found.made.fingerprint}, n = {len(found.made.index):,}, "
        f"{len(rows[1]):,} of them drawn"
    )
    return Section(
        "How far are synthetic from real images?",
        [
            "Domain features are those of the cohort's own attribute network; distances compare within a table, never "
            "between backbones. Real - Real within a group is the floor: two halves without a common subject. Every "
            "cell has as many images a side, for a Fréchet distance falls with n; a group that has too few is n/a "
            "instead of being filled up. KID has no such bias and can be negative; its interval leaves out one subject "
            "at a time.",
            "Precision: share of synthetic images among real ones. Recall: share of real images among synthetic ones. "
            "Density and coverage: the same with less weight on outliers. Compare each with its value in brackets.",
            _pools(people),
        ],
        tables=tables,
        figures=drawn,
        warnings=warnings,
        sources=sources,
        answers=answers,
    )


def _printed() -> pd.DataFrame:
    """The paper's Table 1, for the cohort it was made of; ages by decade, and Inception
    features."""
    wide = subgroups.table1_wide(paper.table1())
    wide.attrs["caption"] = (
        "Table 1 as the paper prints it: Inception features, 500 images a side, Stable Diffusion 2.1"
    )
    return wide


def _subgroups(real: pd.DataFrame, synthetic: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Who is compared in Table 1, written and returned."""
    table = subgroups.subgroups(real, synthetic)
    table.attrs["caption"] = (
        "Who Table 1 compares: real images and subjects of each subgroup's pool, synthetic images"
    )
    write_tables(table, folder, "table1_subgroups", table.attrs["caption"])
    return table


def _pools(people: pd.DataFrame) -> str:
    """Which real images the axes are compared with, in a sentence or two."""
    told = "; ".join(
        f"{pool}: {', '.join('all together' if axis == 'all' else title_of(axis) for axis in part.unique())}"
        for pool, part in people.groupby("pool", sort=True).axis
    )
    return (
        "Real images are those of held-out people (validation and test) where either half of both groups of an axis has "
        f"{subgroups.ENOUGH}; else that axis alone is compared with train and held-out people together. Here {told}."
    )


# features of rows of a store, computed once
Kept = Callable[[Store, np.ndarray, Featuring], np.ndarray]


def _domain(found: Measured, rows: np.ndarray, kept: Kept) -> np.ndarray:
    """Domain features of the cohort's `rows`; only those that were not judged yet go through the
    network."""
    known = np.isin(rows, found.held)
    features = np.empty((len(rows), found.real.features.shape[1]), found.real.features.dtype)
    features[known] = found.real.features[np.searchsorted(found.held, rows[known])]
    if not known.all():
        features[~known] = kept(found.cohort, rows[~known], domain(found.networks))
    return features


def _features(
    found: Measured, rows: subgroups.Rows, backbones: Mapping[str, str | None]
) -> list[Features]:
    """Of the cohort's and of the set's `rows`, by the domain backbone and by those whose weights
    are given."""

    def kept(store: Store, which: np.ndarray, by: Featuring) -> np.ndarray:
        return features(store, which, by, places=found.places(store, "features"))

    synthetic = found.synthetic.features[rows[1]]
    seen = [
        Features(
            "domain",
            "",
            _domain(found, rows[0], kept),
            synthetic,
            "attribute network of the judges",
        )
    ]
    for name, weights in backbones.items():
        if weights is not None:
            by = extractor(name, weights, device=found.device)
            both = (
                kept(store, which, by)
                for store, which in zip((found.cohort, found.made), rows, strict=True)
            )
            source = f"{Path(weights).name}, sha256 {by.sha256[:16]}"
            seen.append(Features(by.of.title, f"_{name}", next(both), next(both), source))
    return seen


def _table1(table: pd.DataFrame, folder: Path, seen: Features) -> pd.DataFrame:
    wide = subgroups.table1_wide(table)
    wide.attrs["caption"] = (
        f"Table 1: Fréchet distance between subgroups, {seen.title} features, n = {table.attrs['n']} images a side, "
        "mean (sd) over draws"
    )
    write_tables(table, folder, f"table1{seen.suffix}", wide.attrs["caption"], display=wide)
    return wide


def _summary(table: pd.DataFrame, folder: Path, name: str, title: str) -> pd.DataFrame:
    """The long table as CSV, and as it is read. Its notes on small groups stand below Table 1
    already."""
    shown = subgroups.overview(table)
    shown.attrs.update(
        caption=SUMMARY.format(name=title[0].upper() + title[1:], n=table.attrs["n"]), refused=[]
    )
    if "groups" not in name:
        shown.attrs["warnings"] = []
    write_tables(table, folder, name, shown.attrs["caption"], display=shown)
    return shown


def _answer(long: pd.DataFrame, title: str) -> list[str]:
    """One sentence for the top of the page, if there is a number."""
    whole = long[(long.axis == "all") & (long.metric == "fid")].set_index("kind")
    across, floor = whole.loc[ACROSS], whole.drop(ACROSS).iloc[0]
    if np.isnan(across["value"]):
        return []
    return [
        f"Fréchet distance of synthetic to real images: {across['value']:.2f}; of real to real images: {floor['value']:.2f} "
        f"({title} features, {across['n']} images a side)."
    ]
