"""A generator at hand: one image of a mask and a wish, and what the judges and the audit's search
see in it.

The page's only way to the rest of cmrgen: what it needs of planning, drawing and judging is
imported here and nowhere else in this folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from cmrdata.axes import AXES, DIAGNOSES
from cmrdata.batch import LABELS
from cmrdata.selection import Selection
from cmrdata.store import Store
from cmrgen.app.masks import Mask, check_heart, deformed
from cmrgen.evaluation.adherence.contraction import area_change
from cmrgen.evaluation.judges import Judgement as SetJudgement
from cmrgen.evaluation.judges import Judges, judge, trained_judges
from cmrgen.evaluation.privacy.nearest import Search, by_sight
from cmrgen.plan.checking import check
from cmrgen.plan.rows import Plan, planned, usable
from cmrgen.plan.sweeps import varied_values
from cmrgen.prompts import DISEASE
from cmrgen.render.drawing import as_stored, draw_rows
from cmrgen.render.generator import Generator, check_cohort, facts_of, load_generator
from cmrgen.render.sampler import Sampler
from cmrstudy import runs

Image = npt.NDArray[np.uint8]  # (2, P, P) ED, ES
JUDGE_STEPS = (250, 400)  # of segmenter and attribute network, where no evaluation has trained any
COMPARED = 200  # held-out people behind tau and behind the judges' own accuracy
BEYOND = 0.05  # share of unseen people beyond tau: the audit's (Dar et al. 2023)
MOST_STEPS = 200  # of the sampler: a page is no place for a day's work
WORDS = {"F": "female", "M": "male", "0": "healthy", "1": "diseased"}
# what a comparison varies, and what each image then has
COMPARISONS: dict[str, tuple[Any, ...]] = {
    **varied_values(),
    "ejection fraction": (0.2, 0.35, 0.5, 0.65),
    "wall thickness": (0.7, 1.0, 1.3, 1.6),
    "size": (0.85, 1.0, 1.15),
    "seed": (0, 1, 2, 3),  # added to the one given
    "guidance": (1.0, 2.0, 4.0, 8.0),
}


class Cancelled(Exception):
    """Whoever asked for an image does not want it any more."""


@dataclass(frozen=True)
class Wish:
    """What an image shall show beside its mask, and how it is drawn; None: the prompt doesn't
    say."""

    sex: str | None = None
    age: float | None = None  # years
    bmi: float | None = None  # kg/m2
    diagnosis: str = "healthy"
    seed: int = 0
    steps: int = 8
    guidance: float = 2.0
    guides: str = "prompt"


class Heart(NamedTuple):
    """A training subject's mask, and what is known of the subject."""

    row: int  # of the cohort's store
    number: int  # among those of `group`, from 1
    of: int
    group: str
    attributes: dict[str, Any]  # sex, age, bmi, diagnosis; None where unknown


class Variation(NamedTuple):
    """One of several images that differ in one thing."""

    title: str
    wish: Wish
    mask: Mask


class Attribute(NamedTuple):
    """What the prompt asks for on one axis, and what the judge sees there."""

    axis: str
    asked: str | None
    seen: str | None
    right: float  # share of held-out real images in which the judge is right
    n: int


class Judgement(NamedTuple):
    """What the judges see in one image."""

    dice: npt.NDArray[np.float64]  # (2, 3) of LV, MYO, RV at ED and ES; NaN where neither shows it
    dice_real: npt.NDArray[np.float64]  # the mean of held-out real images
    ef_asked: float  # 0..1, of the slice
    ef_seen: float
    attributes: list[Attribute]


class Nearness(NamedTuple):
    """How near an image lies to the training images."""

    similarity: float  # -1..1, to the nearest one
    tau: float  # beyond it lie 5 % of held-out people
    people: int  # held out, behind tau
    own: bool  # the nearest is one of the person whose mask this is


@dataclass
class Critics:
    """Judges and search, with what they say of held-out real images to compare with."""

    networks: Judges
    real: SetJudgement
    table: pd.DataFrame  # rows of those images
    search: Search | None = None
    people: pd.Index | None = None
    tau: float = float("nan")


@dataclass
class Studio:
    """A generator, the cohort that taught it, and the critics once they are there."""

    generator: Generator
    cohort: Store
    sampler: Sampler
    critics: Critics | None = None
    _usable: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def pixels(self) -> int:
        return int(self.cohort.meta["pixels"])

    @property
    def mm(self) -> float | None:
        """Side of a pixel; None where the cohort does not say."""
        fov = self.cohort.meta["settings"].get("fov_mm")
        return fov / self.pixels if fov else None

    @property
    def phantom(self) -> bool:
        """Whether nobody's data are in the cohort."""
        return set(self.cohort.index.source) == {"phantom"}

    @property
    def fields(self) -> list[str]:
        """The attributes that this generator's prompts name."""
        return list(self.generator.facts["fields"])

    @property
    def diagnoses(self) -> list[str]:
        """The cohort's, healthy first."""
        there = set(self.rows.diagnosis)
        return [code for code in DIAGNOSES if code in there]

    @property
    def rows(self) -> pd.DataFrame:
        """The store rows whose masks are offered: central ones of training subjects, one each."""
        if self._usable is None:
            rows = usable(self.cohort.index)
            rows = rows[rows.central] if rows.central.any() else rows
            self._usable = rows.drop_duplicates("subject").sort_values("group", kind="stable")
        return self._usable

    def groups(self) -> list[str]:
        """Groups that have a mask to offer."""
        return list(self.rows.group.unique())

    def heart(self, group: str, number: int) -> Heart:
        """A mask of a group's subjects; numbers begin at 1 and go round."""
        rows = self.rows[self.rows.group == group]
        if rows.empty:
            raise ValueError(f"no training subject belongs to group {group!r}; choose another one")
        k = (int(number) - 1) % len(rows)
        of = rows.iloc[k]
        attributes = {
            name: None if pd.isna(of[name]) else of[name]
            for name in ("sex", "age", "bmi", "diagnosis")
        }
        return Heart(int(rows.index[k]), k + 1, len(rows), group, attributes)

    def mask(self, row: int) -> Mask:
        """(2, P, P) labels of a store row that `heart` offers."""
        if row not in self.rows.index:
            raise ValueError("this mask is not offered; choose a heart again")
        return np.array(self.cohort.masks[row])

    def plan_row(self, wish: Wish, source: int | None = None) -> pd.DataFrame:
        """The plan's row of one image, checked as generate.py checks a plan.

        Args:
            wish: what it shall show.
            source: store row of its mask; None for a mask of nobody's.

        Raises ValueError naming what can't be drawn.
        """
        if not 1 <= wish.steps <= MOST_STEPS:
            raise ValueError(f"steps is {wish.steps}; give 1 to {MOST_STEPS}")
        if not 0 <= wish.seed < 2**63:
            raise ValueError(f"seed is {wish.seed}; give a whole number from 0 to 2^63 - 1")
        asked = {name: getattr(wish, name) for name in ("sex", "age", "bmi", "diagnosis")}
        table = pd.DataFrame([asked]).astype({"age": float, "bmi": float, "sex": object})
        plan = planned(
            self.cohort.index,
            [int(self.rows.index[0]) if source is None else source],
            asked=table,
            seed=0,
            fields=self.fields,
            guidance=wish.guidance,
        )
        plan = plan.assign(seed=wish.seed, steps=wish.steps)
        check(Plan(plan), self.cohort.subjects, self.cohort.index)
        return plan

    def prompt(self, wish: Wish) -> str:
        """The sentence that the generator reads."""
        return str(self.plan_row(wish).prompt.iloc[0])

    def image(
        self,
        mask: Mask,
        wish: Wish,
        *,
        source: int | None = None,
        step: Callable[[int], None] = lambda number: None,
    ) -> Image:
        """(2, P, P) uint8 picture of a mask, the one that generate.py draws of such a row of a
        plan.

        Args:
            mask: (2, P, P) labels.
            wish: what it shall show.
            source: the store row of the mask; its subject's own mask is taken as it is, and any
                other one is checked to be a heart.
            step: called at each of the sampler's steps with its number, from 1; what it raises ends
                the drawing.

        Raises ValueError for what can't be drawn, FloatingPointError where nothing comes of it.
        """
        if mask.shape != (2, self.pixels, self.pixels):
            raise ValueError(
                f"the mask has shape {mask.shape}; it takes (2, {self.pixels}, {self.pixels})"
            )
        if source is None or not np.array_equal(mask, self.mask(source)):
            check_heart(mask)
        plan = self.plan_row(wish, source)
        sampler = replace(self.sampler, steps=wish.steps, guides=wish.guides)
        with counted(self.generator.base.unet, step):
            images = draw_rows(plan, mask[None], generator=self.generator, sampler=sampler)
        picture: Image = as_stored(images, self.pixels)[0]
        if picture.max() == picture.min():
            raise FloatingPointError(
                "this image is not finite, or of one grey value; try another seed or less guidance"
            )
        return picture

    def judged(self, image: Image, mask: Mask, wish: Wish) -> Judgement | None:
        """What the judges see in an image; None while there are none."""
        if (critics := self.critics) is None:
            return None
        seen = judge(critics.networks, image[None], mask[None])
        wanted = self.plan_row(wish).iloc[0]
        attributes = []
        for axis, values in seen.predicted.items():
            real = critics.table[axis if axis in AXES else "label"]
            known = real.notna().to_numpy()
            right = critics.real.predicted[axis][known] == real[known].to_numpy()
            asked = wanted[axis] if axis in AXES else wanted.label
            attributes.append(
                Attribute(
                    axis,
                    None if pd.isna(asked) else str(asked),
                    None if values[0] is None else str(values[0]),
                    float(right.mean()) if len(right) else float("nan"),
                    int(known.sum()),
                )
            )
        cavity = list(LABELS).index("LV")
        asked, found = (
            float(area_change(area[..., cavity])[0]) / 100
            for area in (seen.areas.mask, seen.areas.segmented)
        )
        with np.errstate(invalid="ignore"):
            usual = np.nanmean(critics.real.areas.dice, 0)
        return Judgement(seen.areas.dice[0], usual, asked, found, attributes)

    def nearness(self, image: Image, source: int | None) -> Nearness | None:
        """How near an image lies to the training images; None while nobody can tell.

        Args:
            image: (2, P, P) uint8.
            source: the store row of its mask, whose person counts as its own.
        """
        critics = self.critics
        if critics is None or critics.search is None or critics.people is None:
            return None
        own = -1
        if source is not None:
            own = int(critics.people.get_indexer([self.cohort.index.subject[source]])[0])
        near = critics.search(image[None], np.array([own]))
        return Nearness(
            float(near.similarity[0]),
            critics.tau,
            len(critics.table),
            bool(near.own[0] > near.other[0]),
        )

    def train_critics(self, scratch: Path) -> None:
        """Judges and search, each there as soon as it can be used; minutes for a large cohort.

        Args:
            scratch: a temporary folder. Judges that an evaluation has left beside the store are
                used; what has to be trained or computed anew is written here alone.
        """
        held = self._held_out()
        networks = self._judges(scratch)
        pictures, masks = (
            Selection(array, held) for array in (self.cohort.images, self.cohort.masks)
        )
        real = judge(networks, pictures, masks)
        self.critics = Critics(networks, real, self.cohort.index.iloc[held])
        train = np.flatnonzero(self.cohort.index.split.isin(("train", "extra")))
        codes, people = pd.factorize(self.cohort.index.subject.iloc[train])
        search = by_sight(
            Selection(self.cohort.images, train), codes, device=networks.device, scratch=scratch
        )
        near = search(pictures, np.full(len(held), -1))
        tau = float(np.quantile(near.similarity, 1 - BEYOND, method="higher"))
        self.critics = replace(self.critics, search=search, people=pd.Index(people), tau=tau)

    def _held_out(self) -> npt.NDArray[np.int64]:
        """A row per person of validation and test, the central one, at most COMPARED of them."""
        index = self.cohort.index.reset_index(drop=True)
        rows = index[index.split.isin(("val", "test"))]
        rows = rows.sort_values("central", ascending=False, kind="stable")
        rows = rows.drop_duplicates("subject").sort_index()
        if rows.empty:
            raise ValueError(
                f"{self.cohort.folder.name} has nobody held out, so nothing tells what a judge is "
                "worth"
            )
        places = np.random.default_rng(0).permutation(len(rows))[:COMPARED]
        return np.sort(rows.index.to_numpy()[places])

    def _judges(self, scratch: Path) -> Judges:
        """Those of the last evaluation of this cohort, else of JUDGE_STEPS, trained in
        `scratch`."""
        kept, copy = self.cohort.folder / "judges", scratch / "judges"
        steps = JUDGE_STEPS
        if kept.is_dir():
            shutil.copytree(kept, copy, dirs_exist_ok=True)
            steps = _steps_of(copy) or steps
        return trained_judges(self.cohort, copy, steps=steps, device=self.generator.base.device)


def open_studio(
    run: Path, *, data_root: Path, base_weights: str | None = None, device: str = "auto"
) -> Studio:
    """The generator of a finished ControlNet run, and the store of the cohort that taught it.

    Args:
        run: the run's folder.
        data_root: where the cohort's store lies.
        base_weights: where the generator's base lies now, if it has moved since.
        device: auto, cpu, cuda or cuda:<number>.

    Raises FileNotFoundError and ValueError, naming what is missing and the remedy.
    """
    precision = facts_of(run).get("drawing", {}).get("precision", "32-true")
    generator = load_generator(run, base_weights=base_weights, precision=precision)
    cohort = Store.open(data_root / generator.facts["cohort"])
    check_cohort(generator.facts, cohort, named=f"generator={run}")
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    try:
        generator.to(where)
    except RuntimeError as error:
        raise ValueError(
            f"device={device}: {str(error).splitlines()[0]}; device=cpu always works"
        ) from None
    settings = runs.config(run).get("sampler") or {}
    usual = {key: value for key, value in settings.items() if not key.startswith("_")}
    return Studio(generator, cohort, Sampler(**usual))


@contextmanager
def counted(network: torch.nn.Module, step: Callable[[int], None]) -> Iterator[None]:
    """Inside this block `step` is called with 1, 2, ... whenever the network first sees a new
    time."""
    times: list[float] = []

    def before(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        now = float(inputs[1].max())
        if not times or times[-1] != now:
            times.append(now)
            step(len(times))

    handle = network.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def varied(
    what: str | None, wish: Wish, mask: Mask, *, diagnoses: Sequence[str]
) -> list[Variation]:
    """The images of a comparison: one thing differs, everything else, the seed too, is the same.

    Args:
        what: a key of COMPARISONS; None for one image.
        wish: of the image at hand.
        mask: of the image at hand; a comparison of hearts deforms it.
        diagnoses: those that occur in the cohort.

    Raises ValueError for another `what`, and where the mask can't be deformed so far.
    """
    if not what:
        return [Variation("Synthetic", wish, mask)]
    if what not in COMPARISONS:
        raise ValueError(
            f"nothing is known of {what!r} to compare; choose {', '.join(COMPARISONS)}"
        )
    images = []
    for value in COMPARISONS[what]:
        if what == "diagnosis" and value not in diagnoses:
            continue
        if what == "ejection fraction":
            images.append(Variation(f"EF {100 * value:.0f} %", wish, deformed(mask, ef=value)))
        elif what == "wall thickness":
            images.append(Variation(f"wall {100 * value:.0f} %", wish, deformed(mask, wall=value)))
        elif what == "size":
            images.append(Variation(f"size {100 * value:.0f} %", wish, deformed(mask, size=value)))
        else:
            value = wish.seed + value if what == "seed" else value
            changed = replace(wish, **{what: value})
            title = words_of(what, value) if isinstance(value, str) else f"{what} {value:g}"
            title = f"seed {value}" if what == "seed" else title.replace("bmi", "BMI")
            images.append(Variation(title, changed, mask))
    return images


def words_of(axis: str, value: str) -> str:
    """A value of an axis as people say it: "female", "60-70 years", "heart failure"."""
    if axis == "age_band":
        return f"{value} years"
    return WORDS.get(value) or DISEASE.get(value, value)


def spoken(group: str) -> str:
    """A group's name as people say it: "female · 60-70 · obese · heart failure"."""
    return " · ".join(words_of("", word) for word in group.split("/")) or "nothing known"


def _steps_of(folder: Path) -> tuple[int, int] | None:
    """The steps of training of the judges kept in a folder, the newest; None where one is
    missing."""
    steps = []
    for name in ("segmenter", "attributes"):
        cards = sorted(folder.glob(f"{name}-*.json"), key=lambda card: card.stat().st_mtime)
        if not cards:
            return None
        steps.append(int(json.loads(cards[-1].read_text())["steps"]))
    return steps[0], steps[1]
