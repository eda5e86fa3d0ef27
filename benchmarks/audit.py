"""How often the audit raises a false alarm on harmless sets, and how many planted copies it finds,
at five set sizes.

python benchmarks/audit.py [repeats] [harmless|few|planted|membership]

Harmless sets are real phantom images of people who are not in the training split, drawn as a plan
draws masks: groups alike, several images of a source subject. Held-out people come from the same
pool, one central image each, at the cohort's own mix of groups. Every image is searched once among
2,160 training images (240 people), by sight and by features (grey values of 8 x 8 fields); sets and
held-out people are then drawn anew in every repeat, nobody in both. Copies are training images
moved, mirrored and noised. The membership attack is tried on made-up losses. What was used before,
a Wilson interval of the share beyond tau with tau taken as known, is shown beside.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrdata import progress
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.subjects import with_groups
from cmrgen.evaluation.privacy.alarms import ALARM
from cmrgen.evaluation.privacy.membership import loss_attack
from cmrgen.evaluation.privacy.nearest import by_features, by_sight
from cmrgen.evaluation.privacy.scores import (
    Side,
    excesses,
    set_tests,
    single_copies,
    with_alarms,
)

SIZES = (36, 108, 216, 720, 2000)
HELD_OUT, SHARE = 400, 0.1  # people, and the share of them that is diseased
PLANTED = (5, 0.05)  # copies in a set: so many, or this share
PARTS = ("harmless", "few", "planted", "membership")
SCARCE = 3  # source subjects of each diseased group where sources are few


class Pool(NamedTuple):
    """Images by one measure, searched among the training images."""

    similarity: np.ndarray
    excess: np.ndarray


class Searched(NamedTuple):
    index: pd.DataFrame  # of unseen people's images: subject, group, central, diseased
    unseen: dict[str, Pool]
    copies: dict[str, Pool]
    training: dict[str, Pool]  # training images among other people
    diseased: np.ndarray  # whether of these


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repeats", nargs="?", type=int, default=600)
    parser.add_argument("asked", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS))
    return parser.parse_args()


def main() -> None:
    torch.set_num_threads(1)
    options = arguments()
    repeats, asked = options.repeats, options.asked or PARTS
    begun = time.perf_counter()
    if "membership" in asked:
        print(f"\nmembership, {repeats} attacks a row")
        print(
            pd.DataFrame([attacks(size, repeats=repeats) for size in SIZES])
            .round(3)
            .to_string(index=False),
            flush=True,
        )
    scenes = {
        "harmless": [(False, 0.0)],
        "few": [(True, 0.0)],
        "planted": [(False, share) for share in PLANTED],
    }
    chosen = [scene for name in asked for scene in scenes.get(name, [])]
    if not chosen:
        return
    searched = searches()
    print(
        f"{len(searched.index):,} unseen images searched in {time.perf_counter() - begun:.0f} s",
        flush=True,
    )
    for few, planted in chosen:
        rows = []
        for size in SIZES:
            copies = round(planted if planted >= 1 else planted * size)
            rows.append(
                {
                    "images": size,
                    "planted": copies,
                    **rates(searched, size, few=few, copies=copies, repeats=repeats),
                }
            )
        kind = "few sources" if few else "many sources"
        print(
            f"\n{kind}, {f'{planted:g} planted' if planted else 'harmless'}, {repeats} sets a row"
        )
        print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)
    print(f"{time.perf_counter() - begun:.0f} s")


def searches(*, training: int = 240, unseen: int = 2160, copies: int = 400) -> Searched:
    """All images of the simulation, drawn and searched."""
    train, train_index = _people(
        Phantom(subjects=training, controls_per_case=None, hf_share=SHARE, seed=3)
    )
    fresh, index = _people(
        Phantom(subjects=unseen, design="uniform", controls_per_case=None, hf_share=0.5, seed=4)
    )
    people = pd.factorize(train_index.subject)[0]
    rng = np.random.default_rng(0)
    copied = np.stack([copy(train[row], rng) for row in rng.choice(len(train), copies)])
    pools: list[dict[str, Pool]] = [{}, {}, {}]
    for measure, search, kinds in (
        ("sight", by_sight(train, people), (fresh, copied, train)),
        ("features", by_features(embed(train), people), tuple(map(embed, (fresh, copied, train)))),
    ):
        near = [search(kind, np.full(len(kind), -1)) for kind in kinds[:2]]
        alike = search(kinds[2], people)
        near.append(alike._replace(own=np.full(len(people), np.nan)))
        for pool, found, excess in zip(
            pools, near, excesses(search, kinds[2], people, near), strict=True
        ):
            pool[measure] = Pool(found.similarity, excess)
    return Searched(index, *pools, train_index.diseased.to_numpy())


def embed(images: np.ndarray) -> np.ndarray:
    """(n, 2, P, P) -> (n, 128): mean grey values of 8 x 8 fields."""
    side = images.shape[-1] // 8
    return images.reshape(len(images), 2, 8, side, 8, side).mean((3, 5)).reshape(len(images), -1)


def copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A near copy of (2, P, P): moved by up to 3 pixels, perhaps mirrored, with noise of 0 to 10
    grey values."""
    side, (y, x) = np.arange(image.shape[-1]), rng.integers(-3, 4, 2)
    moved = image[:, (side - y).clip(0, side[-1])][:, :, (side - x).clip(0, side[-1])]
    for axis in (-2, -1):
        moved = np.flip(moved, axis) if rng.random() < 0.25 else moved
    noisy = moved + rng.normal(0, rng.uniform(0, 10), image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def rates(
    searched: Searched, size: int, *, few: bool, copies: int, repeats: int
) -> dict[str, float]:
    """Shares of sets with an alarm, per test; of planted copies that were called; of images called
    for no reason."""
    rng, rows = np.random.default_rng([size, few, copies]), []
    for _ in progress.each(range(repeats), f"{size} images", total=repeats, unit="sets"):
        rows.append(
            _alarms(
                searched, *_drawn(searched.index, size, few=few, rng=rng), copies=copies, rng=rng
            )
        )
    return pd.DataFrame(rows).mean().to_dict()


def attacks(size: int, *, repeats: int) -> dict[str, float]:
    """False alarms of the membership attack: losses that differ between 36 groups, and not with
    membership."""
    rng = np.random.default_rng(size)
    p, low = [], []
    for _ in range(repeats):
        groups = np.arange(size) % 36
        level = rng.normal(size=36)
        losses = [level[groups] + rng.standard_gamma(3, size) for _ in range(2)]
        found = loss_attack(*losses, seed=0, draws=200, groups=(groups, groups))
        p.append(found.p <= ALARM)
        low.append(found.auc_low > 0.5)
    return {"a side": size, "alarm": float(np.mean(p)), "interval above .5": float(np.mean(low))}


def _people(cohort: Phantom) -> tuple[np.ndarray, pd.DataFrame]:
    """All nine images of everybody, and who they are."""
    people = with_groups(cohort.subjects()[0].assign(split="train"))
    stacks = cohort.stacks(people)
    index = stacks.index.merge(
        people[["subject", "group", "diagnosis"]], on="subject", validate="many_to_one"
    )
    codes = {name: pd.factorize(index[name])[0] for name in ("group", "subject")}
    return stacks.images, index.assign(diseased=index.diagnosis == "hf", **codes)


def _drawn(
    index: pd.DataFrame, size: int, *, few: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a harmless set and of held-out people."""
    people = index[index.central.to_numpy(bool)].sample(
        frac=1, random_state=int(rng.integers(2**31))
    )
    weight = np.where(people.diseased, SHARE, 1 - SHARE)
    held = people.sample(HELD_OUT, weights=weight, random_state=int(rng.integers(2**31)))
    others = people.drop(held.index)
    if few:
        others = others[~others.diseased | (others.groupby("group").cumcount() < SCARCE)]
    rows = index.index[index.subject.isin(others.subject)].to_numpy()
    parts = pd.Series(rows).groupby(index.group.to_numpy()[rows]).apply(np.array)
    counts = np.full(len(parts), size // len(parts)) + (np.arange(len(parts)) < size % len(parts))
    chosen = [
        rng.choice(part, count, replace=count > len(part))
        for part, count in zip(parts, counts, strict=True)
    ]
    return np.concatenate(chosen), held.index.to_numpy()


def _alarms(
    searched: Searched, made: np.ndarray, held: np.ndarray, *, copies: int, rng: np.random.Generator
) -> dict[str, float]:
    """Which tests of one set raise an alarm."""
    tests, result = [], {}
    columns = [searched.index[name].to_numpy() for name in ("group", "subject", "slice")]
    # as in a set
    weight = (
        np.where(searched.diseased, 1 / searched.diseased.sum(), 1 / (~searched.diseased).sum()) / 2
    )
    sources = rng.choice(len(weight), len(made), p=weight)
    planted = rng.choice(len(made), copies, replace=False)
    which = rng.choice(len(next(iter(searched.copies.values())).excess), copies, replace=False)
    for measure, pool in searched.unseen.items():
        similarity, excess = pool.similarity[made].copy(), pool.excess[made].copy()
        similarity[planted], excess[planted] = (
            column[which] for column in searched.copies[measure]
        )
        sides = [
            Side(columns[0][rows], columns[1][rows], near, near, far, columns[2][rows] == 0)
            for rows, near, far in (
                (made, similarity, excess),
                (held, pool.similarity[held], pool.excess[held]),
            )
        ]
        called = single_copies(
            excess, np.concatenate([pool.excess[held], searched.training[measure].excess[sources]])
        )
        tests += [
            {"measure": measure, **row}
            for row in set_tests(sides[0], sides[1], called=called, seed=0)
        ]
        tau = np.quantile(pool.similarity[held], 0.95, method="higher")
        beyond = stats.binomtest(int((similarity > tau).sum()), len(made)).proportion_ci(
            method="wilson"
        )
        result[f"{measure}: before"] = float(beyond.low > 0.05)
        assert called.copies is not None
        if copies:
            result[f"{measure}: found"] = float(called.copies[planted].mean())
            result[f"{measure}: wrongly"] = float(
                called.copies.sum() - called.copies[planted].sum()
            )
    table = with_alarms(pd.DataFrame(tests)).set_index(["measure", "test"])
    for measure in searched.unseen:
        for test in ("nearest", "C_T", "copies"):
            row = table.loc[(measure, test)]
            result[f"{measure}: {test}"] = float(row.alarm)
            result |= (
                {f"{measure}: {test}, p <= .05": float(row.p <= ALARM)} if test != "copies" else {}
            )
    result["any alarm"] = float(table.alarm.any())
    return dict(sorted(result.items()))


if __name__ == "__main__":
    main()
