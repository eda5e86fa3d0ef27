"""What the page answers: from the values of its controls to what it shows. Everything that counts or
draws is in masks.py, studio.py and views.py."""

from __future__ import annotations

import math
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from cmrgen.app import masks, views
from cmrgen.app.masks import Mask
from cmrgen.app.studio import Cancelled, Heart, Image, Studio, Variation, Wish, varied
from cmrstudy import plain_errors

ATTRIBUTES = ("sex", "age", "bmi", "diagnosis")  # in the order of their controls
PATIENCE = 1.0  # s between two looks at whether the judges are there
# "plan column 'age' is 300.0 in row 0: ..." of the checks that a plan goes through
_PLAN = re.compile(r"plan column '(\w+)'|(?<=\S) in row 0(?=: )")


class Chosen(NamedTuple):
    """The heart at hand: what sliders deform, and where it comes from."""

    mask: Mask  # before the sliders
    row: int | None = None  # of the cohort's store; None for a mask of nobody's
    group: str = ""
    number: int = 1


class Made(NamedTuple):
    """An image that was drawn, as the judges need it."""

    title: str
    image: Image
    mask: Mask
    wish: Wish
    row: int | None


class Preparation:
    """Judges and search, made ready in the background while the page is already in use."""

    def __init__(self, studio: Studio, scratch: Path) -> None:
        self.studio, self.scratch, self.fault = studio, scratch, ""
        self.done = threading.Event()

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="judges").start()

    def _run(self) -> None:
        try:
            self.studio.train_critics(self.scratch)
        except Exception as error:
            self.fault = explained(error)
        finally:
            self.done.set()

    @property
    def state(self) -> str:
        """What is missing, in words; nothing once all is there."""
        if self.fault:
            return f"No judges: {self.fault}"
        if self.done.is_set():
            return ""
        if self.studio.critics is None:
            return "The judges are getting ready, once for this session."
        return "The search among the training images is getting ready, once for this session."


class Answers:
    """One method for each thing a visitor does; what it returns goes to the page's outputs, in the
    order in which the page lists them.

    Args:
        studio: the generator and its cohort.
        preparation: of the judges; begun by the caller.
        private: whether masks of the cohort's people may be offered, and how near an image lies to
            their images be told.
    """

    def __init__(self, studio: Studio, preparation: Preparation, *, private: bool) -> None:
        self.studio, self.preparation, self.private = studio, preparation, private
        self.stops: dict[str, threading.Event] = {}  # of the drawings under way, by visit

    def first(self) -> Chosen:
        """The heart that the page begins with."""
        return self._heart(self.studio.groups()[0], 1) if self.private else self._plain()

    def choose(self, group: str, number: int) -> tuple[Any, ...]:
        """Another heart, and its subject's attributes. Raises ValueError for a mask that this page
        may not offer."""
        if not group:
            return *self._shown(self._plain()), *[gr.skip() for _ in ATTRIBUTES]
        if not self.private:
            raise ValueError("masks of real people are offered on this machine alone")
        attributes = values_of(self.studio.heart(group, number))
        heart = self._shown(self._heart(group, number))
        return *heart, *(attributes[name] for name in ATTRIBUTES)

    def back(self, now: Chosen) -> tuple[Any, ...]:
        """The heart as it was before it was deformed or painted."""
        return self._shown(self._heart(now.group, now.number) if now.group else self._plain())

    def deform(self, now: Chosen, ef: float, wall: float, size: float) -> tuple[Any, ...]:
        """The mask as the sliders, in per cent, ask for it."""
        wanted = None if round(ef) == percent_ef(now.mask) else ef / 100
        mask = masks.deformed(now.mask, ef=wanted, wall=wall / 100, size=size / 100)
        return masks.encoded(mask), self.numbers(mask)

    def paint(self, now: Chosen, text: str) -> tuple[Any, ...]:
        """The painted mask becomes the one that the sliders deform."""
        mask = masks.decoded(text, pixels=self.studio.pixels)
        return now._replace(mask=mask), *undeformed(mask), self.numbers(mask)

    def say(self, *values: Any) -> str:
        """The prompt, as the generator reads it."""
        sentence = self.studio.prompt(wish_of(*values))
        return f'<p class="numbers">The generator reads: <b>“{sentence}”</b></p>'

    def draw(
        self,
        now: Chosen,
        text: str,
        what: str,
        sex: str,
        age: str,
        bmi: str,
        diagnosis: str,
        seed: str,
        steps: float,
        guidance: float,
        guides: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (so Gradio hands one in)
    ) -> Iterator[tuple[Any, ...]]:
        """Draw the images asked for, one after the other, and show each as soon as it is there."""
        stopped = self.stops[str(request.session_hash)] = threading.Event()
        wish = wish_of(sex, age, bmi, diagnosis, seed, steps, guidance, guides)
        mask = masks.decoded(text, pixels=self.studio.pixels)
        row = now.row if self.private else None
        wanted = varied(what, wish, mask, diagnoses=self.studio.diagnoses)
        images: list[Made] = []
        cards: list[views.Drawn] = []
        for k, of in enumerate(wanted):
            step = _reported(progress, k, wanted, stopped)
            image = self.studio.image(of.mask, of.wish, source=row, step=step)
            images.append(Made(of.title, image, of.mask, of.wish, row))
            cards.append(views.Drawn(of.title, self.studio.prompt(of.wish), image, of.mask))
            yield views.result(cards), "", "", list(images)

    def judge(self, images: list[Made]) -> Iterator[str]:
        """What independent networks see in the images: at once as far as they are ready, and again
        whenever another one is."""
        while images:
            last = self.preparation.done.is_set()
            judged = [
                (judgement, self.studio.nearness(of.image, of.row) if self.private else None)
                for of in images
                if (judgement := self.studio.judged(of.image, of.mask, of.wish))
            ]
            yield self._judgements(images, judged)
            if last:
                return
            while not self.preparation.done.wait(PATIENCE) and bool(judged) == (
                self.studio.critics is not None
            ):
                pass
        yield ""

    def halt(self, request: gr.Request) -> str:
        """Stop the visitor's drawing."""
        self.leave(request)
        return views.message("Stopped.", kind="note")

    def leave(self, request: gr.Request) -> None:
        """The visitor has gone: nothing is drawn for nobody."""
        if event := self.stops.pop(str(request.session_hash), None):
            event.set()

    def numbers(self, mask: Mask) -> str:
        """A mask's measures, in words."""
        return views.numbers(masks.measures(mask, mm=self.studio.mm))

    def caption(self, now: Chosen) -> str:
        """Where a heart comes from."""
        if now.row is None:
            return '<p class="numbers">A plain heart to begin with: nobody\'s mask.</p>'
        count = self.studio.heart(now.group, now.number).of
        whose = "a computed subject" if self.studio.phantom else "a real training subject"
        return (
            f'<p class="numbers">Heart {now.number} of {count} in this group: the mask of '
            f"{whose}.</p>"
        )

    def _plain(self) -> Chosen:
        return Chosen(masks.usual_heart(self.studio.pixels, mm=self.studio.mm))

    def _heart(self, group: str, number: int) -> Chosen:
        heart = self.studio.heart(group, number)
        return Chosen(self.studio.mask(heart.row), heart.row, heart.group, heart.number)

    def _shown(self, new: Chosen) -> tuple[Any, ...]:
        """A heart at hand, its mask, the sliders, its measures, where it comes from."""
        facts = self.numbers(new.mask), self.caption(new)
        return new, masks.encoded(new.mask), *undeformed(new.mask), *facts

    def _judgements(self, images: list[Made], judged: list[tuple[Any, Any]]) -> str:
        waiting = (
            self.preparation.state
            if self.private
            else "How near it lies to real images is told on this machine alone."
        )
        if not judged:
            return views.message(waiting, kind="note")
        if len(judged) == 1:
            return views.details(*judged[0], waiting=waiting)
        return views.comparison([of.title for of in images], judged, waiting=waiting)


def _reported(
    progress: gr.Progress, k: int, wanted: Sequence[Variation], stopped: threading.Event
) -> Callable[[int], None]:
    """What image `k` calls at each step: the page's bar moves, or the drawing stops."""
    steps = wanted[k].wish.steps
    count = f"image {k + 1} of {len(wanted)}, " if len(wanted) > 1 else ""

    def step(number: int) -> None:
        if stopped.is_set():
            raise Cancelled
        share = (k + min(1, (number - 1) / steps)) / len(wanted)
        progress(share, desc=f"{count}step {min(number, steps)} of {steps}")

    return step


def values_of(heart: Heart) -> dict[str, Any]:
    """A subject's attributes as the controls take them, rounded down: bands and decades stay."""
    age, bmi = heart.attributes["age"], heart.attributes["bmi"]
    return {
        **heart.attributes,
        "sex": heart.attributes["sex"] or "",
        "age": "" if age is None else f"{math.floor(age)}",
        "bmi": "" if bmi is None else f"{math.floor(10 * bmi) / 10:g}",
    }


def wish_of(
    sex: str | None,
    age: str | None,
    bmi: str | None,
    diagnosis: str,
    seed: str,
    steps: float | None,
    guidance: float | None,
    guides: str,
) -> Wish:
    """What the controls ask for. Raises ValueError for text where a number is needed."""
    text = str(seed).strip()
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"seed is {text!r}; give a whole number from 0 to 2^63 - 1")
    for name, value in (("steps", steps), ("guidance", guidance)):
        if value is None:
            raise ValueError(f"{name} is empty; give a number")
    assert steps is not None and guidance is not None
    years, index = (_known(name, value) for name, value in (("age", age), ("bmi", bmi)))
    return Wish(
        sex or None, years, index, diagnosis, int(text), int(steps), float(guidance), guides
    )


def _known(name: str, text: str | None) -> float | None:
    """The number in a text field; None where it is empty. Raises ValueError for other text."""
    if not (text := (text or "").strip()):
        return None
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"{name} is {text!r}; give a number, or nothing") from None


def undeformed(mask: Mask) -> tuple[Any, Any, Any]:
    """The sliders of a mask that is not deformed."""
    return percent_ef(mask), 100, 100


def percent_ef(mask: Mask) -> int:
    """Per cent of a mask's own ejection fraction, as the slider can show it."""
    low, high = percents(masks.EF_RANGE)
    return min(high, max(low, round(100 * (masks.measures(mask, mm=None).ef or 0))))


def percents(shares: tuple[float, float]) -> tuple[int, int]:
    return round(100 * shares[0]), round(100 * shares[1])


def explained(error: Exception) -> str:
    """What a visitor reads of an error; what nobody foresaw goes to the terminal in full."""
    if text := plain_errors.paragraph(error):
        return _PLAN.sub(r"\1", text)
    traceback.print_exception(error)
    return (
        f"this should not happen ({type(error).__name__}); the terminal where the page was "
        "started tells more"
    )


def safely(function: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """The function, whose last output is a message: empty, or why the others stay as they are."""

    @wraps(function)
    def answer(*values: Any) -> tuple[Any, ...]:
        try:
            result = function(*values)
        except Exception as error:
            return *[gr.skip()] * (len(outputs) - 1), views.message(explained(error))
        return *(result if isinstance(result, tuple) else (result,)), ""

    return answer


def streamed(function: Callable[..., Iterator[tuple[Any, ...]]]) -> Callable[..., Any]:
    """A drawing whose outputs are images, a message, judgements and what was made: an error leaves
    the images that are there."""

    @wraps(function)
    def answer(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from function(*values)
        except Cancelled:
            yield gr.skip(), views.message("Stopped.", kind="note"), gr.skip(), gr.skip()
        except Exception as error:
            yield gr.skip(), views.message(explained(error)), gr.skip(), gr.skip()

    return answer
