"""How different are images that could be alike? Seeds of one mask and prompt, frames of one person,
different persons.

Distances are in the domain backbone's layers (LPIPS-like, see judges.perceptual_layers) and in grey
values; real images are the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.plan_columns import PLAN_COLUMNS
from cmrdata.store import Store
from cmrgen.evaluation.adherence.scores import Scores
from cmrstudy import intervals
from cmrstudy.intervals import MIN_COUNT

# all that decides an image, but its seed
ALL_BUT_SEED = tuple(c.name for c in PLAN_COLUMNS if c.decides and c.name != "seed")
SEEDS, PERSON, PERSONS = (
    "one mask and prompt, other seeds",
    "one subject, other slices or frames",
    "other subjects of a group",
)
MAX_BUNDLES = 200  # of a kind that are measured
MAX_IMAGES = 8  # of a bundle
TOGETHER = 64  # images in memory at once
Layers = Callable[[np.ndarray], Any]  # (n, 2, P, P) uint8 -> (n, D) tensor, as perceptual_layers
Bundles = list[tuple[str, np.ndarray]]  # subject, or group, and positions of its images


def seed_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Images that share everything but their seed."""
    rng = np.random.default_rng([seed, 0])
    keys = [column for column in ALL_BUT_SEED if column in index]
    bundles = []
    for _, images in index.groupby(keys, sort=False, dropna=False):
        images = images.drop_duplicates("seed")
        if len(images) > 1:
            chosen = np.sort(rng.permutation(len(images))[:MAX_IMAGES])
            rows = index.index.get_indexer(images.index[chosen])
            bundles.append((str(images.subject.iloc[0]), rows))
    return _at_most(bundles, rng)


def subject_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Two images of one subject from different slices or frames: other source rows of a set, other
    rows of a cohort."""
    rng = np.random.default_rng([seed, 1])
    bundles = []
    for subject, images in index.groupby("subject", sort=False):
        images = images.drop_duplicates("source_row") if "source_row" in images else images
        if len(images) > 1:
            pair = images.index[rng.permutation(len(images))[:2]]
            bundles.append((str(subject), index.index.get_indexer(pair)))
    return _at_most(bundles, rng)


def group_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Two images of different subjects of one group; every subject is in one pair at most, so pairs
    are independent."""
    rng = np.random.default_rng([seed, 2])
    order = index.iloc[rng.permutation(len(index))].drop_duplicates("subject")
    bundles = []
    for group, images in order.groupby("group"):
        rows = index.index.get_indexer(images.index)
        bundles += [(str(group), rows[k : k + 2]) for k in range(0, len(rows) - 1, 2)]
    return _at_most(bundles, rng)


def _at_most(bundles: Bundles, rng: np.random.Generator) -> Bundles:
    """At most MAX_BUNDLES of them, in order."""
    return [bundles[k] for k in np.sort(rng.permutation(len(bundles))[:MAX_BUNDLES])]


def spread(images: np.ndarray, bundles: Bundles, layers: Layers) -> pd.DataFrame:
    """How far the images of each bundle lie apart.

    Args:
        images: (n, 2, P, P) uint8.
        bundles: of them.
        layers: of the network in which distances are measured.

    Returns:
        A row per bundle: subject, images, pairs, distance (mean over its pairs), variance (of grey
        values over its images, mean over pixels and both phases).
    """
    rows = []
    for chunk in _chunks(bundles):
        pixels = images[np.concatenate([bundle for _, bundle in chunk])]
        vectors, begin = layers(pixels), 0
        for name, bundle in chunk:
            end = begin + len(bundle)
            distances = [
                float(((vectors[i] - vectors[j]) ** 2).sum())
                for i, j in combinations(range(begin, end), 2)
            ]
            variance = pixels[begin:end].astype(np.float32).var(0, ddof=1).mean()
            rows.append((name, len(bundle), len(distances), np.mean(distances), variance))
            begin = end
    columns = ["subject", "images", "pairs", "distance", "variance"]
    return pd.DataFrame(rows, columns=columns).astype({"distance": float, "variance": float})


def spread_by_kind(
    cohort: Store, synthetic_set: Store, sweep: Store | None, layers: Layers, *, seed: int
) -> dict[tuple[str, str], pd.DataFrame]:
    """`spread` of every (images, kind): synthetic images of the set and its sweep, and real images
    of the train split, from whose subjects the set is made.

    Args:
        cohort: the real images.
        synthetic_set: the set.
        sweep: the few images beside it that differ in their seeds alone, where it has them.
        layers: of the network in which distances are measured.
        seed: of the bundles that are measured.

    Returns:
        A table per kind; one without a bundle has no row.
    """
    index, train = synthetic_set.index, cohort.index[cohort.index.split == "train"]
    places = train.index.to_numpy()

    def real(bundles: Bundles) -> Bundles:
        return [(name, places[rows]) for name, rows in bundles]

    seeds = spread(synthetic_set.images, seed_bundles(index, seed=seed), layers)
    if sweep is not None and (bundles := seed_bundles(sweep.index, seed=seed)):
        more = spread(sweep.images, bundles, layers)
        seeds = more if seeds.empty else pd.concat([seeds, more], ignore_index=True)
    return {
        ("synthetic", SEEDS): seeds,
        ("synthetic", PERSON): spread(
            synthetic_set.images, subject_bundles(index, seed=seed), layers
        ),
        ("synthetic", PERSONS): spread(
            synthetic_set.images, group_bundles(index, seed=seed), layers
        ),
        ("real", PERSON): spread(cohort.images, real(subject_bundles(train, seed=seed)), layers),
        ("real", PERSONS): spread(cohort.images, real(group_bundles(train, seed=seed)), layers),
    }


def diversity_table(spreads: dict[tuple[str, str], pd.DataFrame]) -> Scores:
    """Mean distance and pixel sd between images of `spread_by_kind`: columns images, kind, bundles,
    pairs, distance, pixel_sd with _low and _high, and few.

    pixel_sd: grey values (0..255), root of the variance averaged over pixels and bundles, so that
    bundles of two and of six images compare. 95 % intervals (t) over bundles, NaN for one; few:
    under 20 bundles.
    """
    table = pd.DataFrame(
        [
            {"images": name, "kind": kind, **_diversity_row(bundles)}
            for (name, kind), bundles in spreads.items()
        ]
    )
    warnings = []
    absent, few = table[table.bundles == 0], table[(table.bundles > 0) & table.few]
    if len(absent):
        listed = _listed(f"{row.images}, {row.kind}" for row in absent.itertuples())
        warnings.append(f"Nothing to compare: {listed}.")
    if len(few):
        listed = _listed(f"{row.images}, {row.kind} ({row.bundles})" for row in few.itertuples())
        warnings.append(
            f"Fewer than {MIN_COUNT} independent bundles of images, one has no interval: {listed}."
        )
    return Scores(table, warnings)


def _listed(names: Iterable[str]) -> str:
    return "; ".join(names)


def _diversity_row(bundles: pd.DataFrame) -> dict[str, Any]:
    each = np.arange(len(bundles))
    distance, variance = (
        intervals.mean(bundles[column].to_numpy(float), each) for column in ("distance", "variance")
    )
    ends = [np.sqrt(max(end, 0.0)) if end == end else np.nan for end in variance[:3]]
    return {
        "bundles": len(bundles),
        "pairs": int(bundles.pairs.sum()),
        "distance": distance.value,
        "distance_low": max(distance.low, 0.0) if distance.low == distance.low else np.nan,
        "distance_high": distance.high,
        "pixel_sd": ends[0],
        "pixel_sd_low": ends[1],
        "pixel_sd_high": ends[2],
        "few": len(bundles) < MIN_COUNT,
    }


def _chunks(bundles: Bundles) -> list[Bundles]:
    chunks: list[Bundles] = [[]]
    for bundle in bundles:
        if sum(len(rows) for _, rows in chunks[-1]) + len(bundle[1]) > TOGETHER and chunks[-1]:
            chunks.append([])
        chunks[-1].append(bundle)
    return [chunk for chunk in chunks if chunk]
