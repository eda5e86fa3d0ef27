"""Which subject, mask, prompt and seed each synthetic image gets: a table, written before any
image.

Its columns are those of cmrgen.plan.rows. The same index and settings give the same table.
cmrgen.plan.sweeps and cmrgen.plan.from_table hold the other plans.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Unpack

import numpy as np
import pandas as pd

from cmrdata.axes import AXES, DIAGNOSES, added
from cmrdata.counting import number_of
from cmrgen.plan.groups import (
    attributes_of,
    attributes_within,
    decades,
    known_levels,
    nearest_group,
    possible_groups,
    typical,
)
from cmrgen.plan.rows import Drawing, Plan, planned, usable

MISSING, THIN = ("error", "skip", "borrow"), ("less", "borrow", "move")
# A fifth of a group's share of the paper's 4,000 images, as the released code clips its weights in
# generation (5 people)
PER_PERSON = 24
PER_MASK = 1


def balanced(
    index: pd.DataFrame,
    *,
    count: int,
    seed: int = 0,
    missing: str = "skip",
    per_person: int | None = PER_PERSON,
    per_mask: int | None = PER_MASK,
    thin: str = "less",
    **drawing: Unpack[Drawing],
) -> Plan:
    """Every group equally often; mask and prompt of the same training subject (paper 2.2).

    Any prefix holds each group equally often within one image, as far as its people may give so
    many, and a longer plan begins with the shorter one. Within a group subjects take turns, then
    their slices and frames. Subjects that lack an attribute others have belong to no group and are
    left out.

    Args:
        index: the cohort store's.
        count: images.
        seed: of the order, the images' noise and the moves.
        missing: what to do with groups no training subject belongs to: "skip" (they are named in
            the plan's `missing`), "error", or "borrow": they are drawn from the masks of the
            nearest group that has some, which column `borrowed` names, with the attributes and
            prompt of their own.
        per_person: most images of one subject, in all groups together; None for no limit.
        per_mask: of `planned`: images of a mask as it is, before further ones move it.
        thin: what to do with a group whose subjects have given that many (they are named in
            the plan's `thin`): "less": it gets no more images; "borrow": the next ones have masks
            of the nearest group of that diagnosis whose subjects may still give some, while there
            is one; "move": its subjects give more, each with a moved mask.
        drawing: how each image is drawn.

    Raises:
        ValueError: for unknown values, groups that `missing` forbids, and when all subjects
            together may not give so many images.
    """
    _check_count(count, per_person)
    for key, value, choices in (("missing", missing, MISSING), ("thin", thin, THIN)):
        if value not in choices:
            raise ValueError(f"plan.{key}={value} is unknown; choose one of {', '.join(choices)}")
    train, possible = usable(index), possible_groups(index)
    train = train[train.group.isin(possible)]
    if train.empty:
        raise ValueError(
            "no training subject has all attributes that others have; there is no group to plan "
            "from"
        )
    lenders = _lenders(set(train.group), possible, missing=missing)
    rng = np.random.default_rng([seed, 1])
    turns = {group: _turns(train.subject[train.group == of], rng) for group, of in lenders.items()}
    taken = _round_robin(
        train, turns, lenders, count=count, per_person=per_person, thin=thin, rng=rng
    )
    rows = planned(
        index,
        taken.sources,
        asked=attributes_within(index.loc[taken.sources], taken.groups),
        seed=seed,
        per_mask=per_mask,
        move=taken.beyond,
        **drawing,
    )
    return Plan(rows, missing=sorted(possible - set(lenders)), thin=sorted(taken.thin))


def _lenders(present: set[str], possible: set[str], *, missing: str) -> dict[str, str]:
    """Whose masks a group's images are drawn from: its own, or where nobody belongs to it and
    `missing` is "borrow", the nearest group's."""
    absent = sorted(possible - present)
    if absent and missing == "error":
        raise ValueError(
            f"no training subject belongs to {number_of(len(absent), 'groups')}: "
            f"{', '.join(absent)}. Set plan.missing=skip to leave them out or plan.missing=borrow "
            "to use the nearest groups' masks, or use a cohort that has them"
        )
    lenders = {group: group for group in sorted(present)}
    if missing == "borrow":
        lenders |= {group: nearest_group(group, sorted(present)) for group in absent}
    return lenders


def own_distribution(
    index: pd.DataFrame,
    *,
    count: int,
    seed: int = 0,
    per_person: int | None = PER_PERSON,
    per_mask: int | None = PER_MASK,
    **drawing: Unpack[Drawing],
) -> Plan:
    """The cohort's own distribution: training images drawn at random, each with its own prompt and
    mask.

    `per_person`, `per_mask`: as in `balanced`; who has given enough is replaced by anyone who has
    not.
    """
    _check_count(count, per_person)
    train = usable(index)
    sources = np.random.default_rng([seed, 1]).choice(train.index.to_numpy(), count)
    kept = _limited(sources.tolist(), [train] * count, per_person=per_person, seed=seed)
    return Plan(planned(index, kept, seed=seed, per_mask=per_mask, **drawing))


def random_prompt(
    index: pd.DataFrame,
    *,
    count: int,
    seed: int = 0,
    per_person: int | None = PER_PERSON,
    per_mask: int | None = PER_MASK,
    **drawing: Unpack[Drawing],
) -> Plan:
    """Attributes drawn independently and uniformly, each with the mask of any training subject of
    that diagnosis.

    Sex, the decade of age (50s to 90s, as far as the cohort's ages go), BMI band and diagnosis,
    each where the cohort knows it: the paper's alternative to prompts and masks of the same
    subject, which it found worse. `per_person`, `per_mask`: as in `balanced`; who has given enough
    is replaced by anyone of that diagnosis who has not.
    """
    _check_count(count, per_person)
    train, levels = usable(index), known_levels(index)
    share = np.random.default_rng([seed, 1]).random((count, 5))

    def drawn(column: int, values: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = values[(share[:, column] * len(values)).astype(int)]
        return chosen

    ages = drawn(1, decades(train.age) + 5) if train.age.notna().any() else None
    diagnoses = drawn(3, np.array(sorted(train.diagnosis.unique()), dtype=object))
    pools = dict(iter(train.groupby("diagnosis")))
    sources = [
        int(pools[name].index[int(at * len(pools[name]))])
        for name, at in zip(diagnoses, share[:, 4], strict=True)
    ]
    sources = _limited(
        sources, [pools[name] for name in diagnoses], per_person=per_person, seed=seed
    )
    further = [column for column in added() if column in index]
    asked = index.loc[sources, ["sex", "age", "bmi", *further]]
    if "sex" in levels:
        asked["sex"] = drawn(0, np.array(levels["sex"], dtype=object))
    if ages is not None:
        asked["age"] = ages
    if "bmi_band" in levels:
        asked["bmi"] = drawn(
            2, np.array([typical("bmi_band")[band] for band in levels["bmi_band"]])
        )
    for k, column in enumerate(column for column in further if column in levels):
        bands = np.array(levels[column], dtype=object)
        picks = bands[np.random.default_rng([seed, 6, k]).integers(0, len(bands), count)]
        number = AXES[column].measure
        asked[number or column] = (
            pd.Series(picks).map(typical(column)).to_numpy() if number else picks
        )
    rows = planned(index, sources, asked=asked, seed=seed, per_mask=per_mask, **drawing)
    return Plan(rows)


def _label(group: str) -> int:
    return DIAGNOSES[attributes_of(group)["diagnosis"]]


class _Taken(NamedTuple):
    """Image by image the mask's store row, the group and whether its subject gives more than the
    limit; thin groups."""

    sources: list[int]
    groups: list[str]
    beyond: list[bool]
    thin: set[str]


def _round_robin(
    train: pd.DataFrame,
    turns: Mapping[str, Iterator[int]],
    lenders: Mapping[str, str],
    *,
    count: int,
    per_person: int | None,
    thin: str,
    rng: np.random.Generator,
) -> _Taken:
    """The groups in turn, in random order each round, as far as their lenders' people may give; the
    rest as `thin` says."""
    names, present = sorted(turns), sorted(set(train.group))
    order = (names[k] for _ in itertools.count() for k in rng.permutation(len(names)))
    given, taken = _Given(train, per_person), _Taken([], [], [], set())
    while len(taken.sources) < count:
        group = next(order)
        queue, over = turns[group], False
        if not given.free(lenders[group]):
            taken.thin.add(group)
            others = [
                other for other in present if given.free(other) and _label(other) == _label(group)
            ]
            over = thin == "move"
            if thin == "borrow" and others:
                queue = turns[nearest_group(group, others)]
            elif not over and any(map(given.free, lenders.values())):
                continue
            elif not over:
                raise ValueError(_too_many(count, per_person, train))
        taken.sources.append(given.next(queue, over=over))
        taken.groups.append(group)
        taken.beyond.append(over)
    return taken


class _Given:
    """How many images each subject has given, and which groups have someone who may give more."""

    def __init__(self, train: pd.DataFrame, limit: int | None) -> None:
        self.limit = np.inf if limit is None else limit
        self.subject = train.subject.to_dict()
        self.images: dict[str, int] = dict.fromkeys(train.subject, 0)
        self._free = {group: set(rows.subject) for group, rows in train.groupby("group")}
        self._group = dict(zip(train.subject, train.group, strict=True))

    def free(self, group: str) -> bool:
        return bool(self._free[group])

    def next(self, queue: Iterator[int], *, over: bool) -> int:
        """The next row of an endless `queue` whose subject may give an image; of any subject if
        `over`."""
        row = next(row for row in queue if over or self.images[self.subject[row]] < self.limit)
        subject = self.subject[row]
        self.images[subject] += 1
        if self.images[subject] >= self.limit:
            self._free[self._group[subject]].discard(subject)
        return row


def _limited(
    sources: Sequence[int], pools: Sequence[pd.DataFrame], *, per_person: int | None, seed: int
) -> list[int]:
    """Row by row the source, or one drawn from the row's pool where its subject has given
    `per_person` images already."""
    if per_person is None:
        return list(sources)
    rng, images, kept = np.random.default_rng([seed, 4]), Counter[str](), []
    subject = {
        row: name
        for pool in {id(pool): pool for pool in pools}.values()
        for row, name in pool.subject.items()
    }
    for source, pool in zip(sources, pools, strict=True):
        if images[subject[source]] >= per_person:
            free = pool.index[pool.subject.map(images).fillna(0).to_numpy() < per_person]
            if free.empty:
                raise ValueError(_too_many(len(sources), per_person, pool))
            source = int(free[rng.integers(len(free))])
        images[subject[source]] += 1
        kept.append(source)
    return kept


def _too_many(count: int, per_person: int | None, pool: pd.DataFrame) -> str:
    people = pool.subject.nunique()
    of = f" of diagnosis {pool.diagnosis.iloc[0]}" if pool.diagnosis.nunique() == 1 else ""
    return (
        f"plan.count={count}: the {people} training subjects{of} may give "
        f"{people * (per_person or 0)} images at plan.per_person={per_person}; ask for fewer "
        "images, raise plan.per_person, or lift it with plan.per_person=null"
    )


def _check_count(count: int, per_person: int | None) -> None:
    for key, value in (("count", count), ("per_person", 1 if per_person is None else per_person)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            null = ", or null for no limit" if key == "per_person" else ""
            raise ValueError(f"plan.{key}={value}: give a whole number of at least 1{null}")


def _turns(subjects: pd.Series, rng: np.random.Generator) -> Iterator[int]:
    """A group's store rows without end, so ordered that every subject comes once before any comes
    again."""
    shuffled = subjects.iloc[rng.permutation(len(subjects))]
    turn = shuffled.groupby(shuffled, sort=False).cumcount().to_numpy()
    return itertools.cycle(shuffled.index[np.argsort(turn, kind="stable")].tolist())
