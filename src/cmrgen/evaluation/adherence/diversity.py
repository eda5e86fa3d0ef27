"""How different are images that could be alike? Seeds of one mask and prompt, frames of one person,
different persons.

Distances are in the domain backbone's layers (LPIPS-like, see judges.layers) and in grey values;
real images are the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cmrdata.plan_columns import PLAN_COLUMNS
from cmrdata.store import Store
from cmrgen.evaluation.fidelity.subgroups import FEW
from cmrstudy import intervals

# all that decides an image, but its seed
SAME = tuple(column.name for column in PLAN_COLUMNS if column.decides and column.name != "seed")
SEEDS, PERSON, PERSONS = (
    "one mask and prompt, other seeds",
    "one subject, other slices or frames",
    "other subjects of a group",
)
MOST = 200  # bundles of a kind that are measured
SEEN = 8  # images of a bundle at most
TOGETHER = 64  # images in memory at once
Layers = Callable[[np.ndarray], Any]  # (n, 2, P, P) uint8 -> (n, D) tensor, as judges.layers
Bundles = list[tuple[str, np.ndarray]]  # subject, or group, and positions of its images


def seed_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Images that share everything but their seed."""
    keys = [column for column in SAME if column in index]
    return _drawn(index, index.groupby(keys, sort=False, dropna=False), seed=seed)


def subject_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Two images of one subject from different slices or frames: other source rows of a set, other
    rows of a cohort."""
    rng, found = np.random.default_rng([seed, 1]), []
    for subject, part in index.groupby("subject", sort=False):
        part = part.drop_duplicates("source_row") if "source_row" in part else part
        if len(part) > 1:
            found.append(
                (str(subject), index.index.get_indexer(part.index[rng.permutation(len(part))[:2]]))
            )
    return [found[k] for k in np.sort(rng.permutation(len(found))[:MOST])]


def group_bundles(index: pd.DataFrame, *, seed: int) -> Bundles:
    """Two images of different subjects of one group; every subject is in one pair at most, so pairs
    are independent."""
    rng = np.random.default_rng([seed, 2])
    order = index.iloc[rng.permutation(len(index))].drop_duplicates("subject")
    found = []
    for group, part in order.groupby("group", sort=True):
        rows = index.index.get_indexer(part.index)
        found += [(str(group), rows[k : k + 2]) for k in range(0, len(rows) - 1, 2)]
    return [found[k] for k in np.sort(rng.permutation(len(found))[:MOST])]


def spread(images: np.ndarray, bundles: Bundles, layers: Layers) -> pd.DataFrame:
    """A row per bundle: subject, images, pairs, distance (mean over its pairs), variance (of grey
    values over its images, mean over pixels and both phases)."""
    rows = []
    for chunk in _chunks(bundles):
        pixels = images[np.concatenate([bundle for _, bundle in chunk])]
        vectors, begin = layers(pixels), 0
        for name, bundle in chunk:
            end = begin + len(bundle)
            apart = [
                float(((vectors[i] - vectors[j]) ** 2).sum())
                for i, j in combinations(range(begin, end), 2)
            ]
            rows.append(
                {
                    "subject": name,
                    "images": len(bundle),
                    "pairs": len(apart),
                    "distance": np.mean(apart),
                    "variance": pixels[begin:end].astype(np.float32).var(0, ddof=1).mean(),
                }
            )
            begin = end
    return pd.DataFrame(
        rows, columns=["subject", "images", "pairs", "distance", "variance"]
    ).astype({"distance": float, "variance": float})


def measured(
    cohort: Store, made: Store, sweep: Store | None, layers: Layers, *, seed: int
) -> dict[tuple[str, str], pd.DataFrame]:
    """`spread` of every (images, kind): synthetic images of the set and its sweep, and real images
    of the train split, from whose subjects the set is made. A kind without a bundle has no row."""
    train = cohort.index[cohort.index.split == "train"]
    place = train.index.to_numpy()
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for name, kind, store, bundles in (
        ("synthetic", SEEDS, made, seed_bundles(made.index, seed=seed)),
        ("synthetic", SEEDS, sweep, [] if sweep is None else seed_bundles(sweep.index, seed=seed)),
        ("synthetic", PERSON, made, subject_bundles(made.index, seed=seed)),
        ("synthetic", PERSONS, made, group_bundles(made.index, seed=seed)),
        (
            "real",
            PERSON,
            cohort,
            [(who, place[rows]) for who, rows in subject_bundles(train, seed=seed)],
        ),
        (
            "real",
            PERSONS,
            cohort,
            [(who, place[rows]) for who, rows in group_bundles(train, seed=seed)],
        ),
    ):
        part = (
            spread(store.images, bundles, layers)
            if store is not None and bundles
            else spread(np.empty(0), [], layers)
        )
        before = found.get((name, kind))
        found[name, kind] = (
            part if before is None or before.empty else pd.concat([before, part], ignore_index=True)
        )
    return found


def diversity(found: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    """Mean distance and pixel sd between images of `measured`: columns images, kind, bundles,
    pairs, distance, pixel_sd with _low and _high, and few.

    pixel_sd: grey values (0..255), root of the variance averaged over pixels and bundles, so that
        bundles of two and of six
    images compare. 95 % intervals (t) over bundles, NaN for one; few: under 20 bundles. attrs:
    warnings.
    """
    table = pd.DataFrame(
        [{"images": name, "kind": kind, **_row(part)} for (name, kind), part in found.items()]
    )
    table.attrs["warnings"] = []
    if len(absent := table[table.bundles == 0]):
        listed = "; ".join(f"{row.images}, {row.kind}" for row in absent.itertuples())
        table.attrs["warnings"].append(f"Nothing to compare: {listed}.")
    if len(alone := table[(table.bundles > 0) & table.few]):
        listed = "; ".join(
            f"{row.images}, {row.kind} ({row.bundles})" for row in alone.itertuples()
        )
        table.attrs["warnings"].append(
            f"Fewer than {FEW} independent bundles of images, one has no interval: {listed}."
        )
    return table


def _row(part: pd.DataFrame) -> dict[str, Any]:
    who = np.arange(len(part))
    distance, variance = (
        intervals.mean(part[column].to_numpy(float), who) for column in ("distance", "variance")
    )
    ends = [np.sqrt(max(end, 0.0)) if end == end else np.nan for end in variance[:3]]
    return {
        "bundles": len(part),
        "pairs": int(part.pairs.sum()),
        "distance": distance.value,
        "distance_low": max(distance.low, 0.0) if distance.low == distance.low else np.nan,
        "distance_high": distance.high,
        "pixel_sd": ends[0],
        "pixel_sd_low": ends[1],
        "pixel_sd_high": ends[2],
        "few": len(part) < FEW,
    }


def _drawn(index: pd.DataFrame, groups: Any, *, seed: int) -> Bundles:
    rng = np.random.default_rng([seed, 0])
    found = []
    for _, part in groups:
        part = part.drop_duplicates("seed")
        if len(part) > 1:
            rows = index.index.get_indexer(part.index[np.sort(rng.permutation(len(part))[:SEEN])])
            found.append((str(part.subject.iloc[0]), rows))
    return [found[k] for k in np.sort(rng.permutation(len(found))[:MOST])]


def _chunks(bundles: Bundles) -> list[Bundles]:
    chunks: list[Bundles] = [[]]
    for bundle in bundles:
        if sum(len(rows) for _, rows in chunks[-1]) + len(bundle[1]) > TOGETHER and chunks[-1]:
            chunks.append([])
        chunks[-1].append(bundle)
    return [chunk for chunk in chunks if chunk]
