"""The page: controls at the left, the heart they give at the right. Everything that counts or draws
is in masks.py, studio.py and views.py; here values go from the browser to these and back."""

from __future__ import annotations

import math
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from cmrgen.app import masks, views
from cmrgen.app.masks import Mask
from cmrgen.app.studio import (
    COMPARISONS,
    Cancelled,
    Heart,
    Image,
    Studio,
    Wish,
    spoken,
    varied,
    words_of,
)
from cmrgen.render.sampler import GUIDES
from cmrstudy import plain_errors

HERE = Path(__file__).parent
PLAIN_HEART = "nobody: a plain heart"
NOTHING = "nothing"
WAITING = 8  # people in the queue; the next one is sent away
PATIENCE = 1.0  # s between two looks at whether the judges are there
# "plan column 'age' is 300.0 in row 0: ..." of the checks that a plan goes through
_PLAN = re.compile(r"plan column '(\w+)'|(?<=\S) in row 0(?=: )")
EMPTY = """<div class="empty"><p><b>Choose or paint a heart, say whose it is, and press Draw.</b><br>
The image appears here, at end-diastole and end-systole, and beating; below it what independent networks see in it.</p></div>"""


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
            self.fault = _told(error)
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


def make_page(studio: Studio, preparation: Preparation, *, run: str, local: bool) -> gr.Blocks:
    """The page of a generator, not yet launched.

    Args:
        studio: the generator and its cohort.
        preparation: of the judges; begun by the caller.
        run: the generator's folder, for the heading.
        local: whether the page is for this machine alone. If not, masks of a real cohort are not
            offered, nor how near an image lies to their images.
    """
    private = studio.phantom or local
    stops: dict[str, threading.Event] = {}
    begin = _first(studio, private=private)
    with gr.Blocks(title="Draw a heart", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(_heading(studio, run, local=local), elem_id="head")
        chosen, made = gr.State(begin), gr.State([])
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=400):
                with gr.Column(elem_classes="step"):
                    gr.HTML(_step(1, "The heart", "choose one, then deform or paint it"))
                    with gr.Row(elem_classes="tight"):
                        group = gr.Dropdown(
                            _offered(studio, private=private),
                            value=begin.group,
                            label="Mask of a training subject" if private else "Mask",
                            scale=4,
                            elem_id="group",
                        )
                        following = gr.Button("next", scale=1, min_width=90, elem_id="next")
                    caption = gr.HTML(_caption(studio, begin), elem_id="caption")
                    painter = gr.HTML(
                        masks.encoded(begin.mask),
                        html_template=(HERE / "painter.html").read_text(),
                        js_on_load=(HERE / "painter.js").read_text(),
                        apply_default_css=False,
                        pixels=studio.pixels,
                        elem_id="painter",
                    )
                    numbers = gr.HTML(_numbers(studio, begin.mask), elem_id="numbers")
                    sliders = _sliders(begin.mask)
                    undo = gr.Button("back to the mask as it was", size="sm", elem_id="undo")
                with gr.Column(elem_classes="step"):
                    gr.HTML(_step(2, "The person", "empty: the prompt doesn't say"))
                    person = _person(studio, begin)
                    prompt = gr.HTML(elem_id="prompt")
            with gr.Column(scale=7, min_width=400, elem_classes="beside"):
                with gr.Column(elem_classes="step"):
                    gr.HTML(_step(3, "The image", "the same seed gives the same image"))
                    with gr.Row(elem_classes="tight"):
                        draw = gr.Button(
                            "Draw", variant="primary", elem_id="draw", scale=3, min_width=120
                        )
                        stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                        seed = gr.Textbox("0", label="Seed", elem_id="seed", scale=2, min_width=90)
                        dice = gr.Button("new seed", scale=1, min_width=90, elem_id="reseed")
                        versus = gr.Dropdown(
                            _comparable(studio),
                            value="",
                            label="Side by side, vary",
                            elem_id="vary",
                            scale=3,
                            min_width=150,
                        )
                    with gr.Accordion("How it is sampled", open=False, elem_id="sampler"), gr.Row():
                        steps = gr.Number(
                            studio.sampler.steps, label="Steps", precision=0, elem_id="steps"
                        )
                        guidance = gr.Number(
                            studio.sampler.guidance, label="Guidance", elem_id="guidance"
                        )
                        guides = gr.Radio(
                            [("the prompt", GUIDES[0]), ("mask and prompt", GUIDES[1])],
                            value=studio.sampler.guides,
                            label="Guidance pushes towards",
                            elem_id="guides",
                        )
                told = gr.HTML(elem_id="told")
                shown = gr.HTML(EMPTY, elem_id="shown", min_height=330)
                seen = gr.HTML(elem_id="seen")

        wishes = [*person.values(), seed, steps, guidance, guides]

        def choose(name: str, number: int) -> tuple[Any, ...]:
            if name and not private:
                raise ValueError("masks of real people are offered on this machine alone")
            if not name:
                return (
                    _fresh(Chosen(masks.usual_heart(studio.pixels, mm=studio.mm)))
                    + (gr.skip(),) * 4
                )
            heart = studio.heart(name, number)
            new = Chosen(studio.mask(heart.row), heart.row, heart.group, heart.number)
            return _fresh(new) + tuple(_values(heart)[key] for key in person)

        def back(now: Chosen) -> tuple[Any, ...]:
            return choose(now.group, now.number)[: -len(person)]

        def _fresh(new: Chosen) -> tuple[Any, ...]:
            facts = _numbers(studio, new.mask), _caption(studio, new)
            return new, masks.encoded(new.mask), *_reset(new.mask), *facts

        def deform(now: Chosen, ef_: float, wall_: float, size_: float) -> tuple[Any, ...]:
            asked = None if round(ef_) == _ef(now.mask) else ef_ / 100
            mask = masks.deformed(now.mask, ef=asked, wall=wall_ / 100, size=size_ / 100)
            return masks.encoded(mask), _numbers(studio, mask)

        def paint(now: Chosen, text: str) -> tuple[Any, ...]:
            mask = masks.decoded(text, pixels=studio.pixels)
            return now._replace(mask=mask), *_reset(mask), _numbers(studio, mask)

        def say(*values: Any) -> str:
            sentence = studio.prompt(_wish(*values))
            return f'<p class="numbers">The generator reads: <b>“{sentence}”</b></p>'

        def draw_images(
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
            stopped = stops[str(request.session_hash)] = threading.Event()
            wish = _wish(sex, age, bmi, diagnosis, seed, steps, guidance, guides)
            mask = masks.decoded(text, pixels=studio.pixels)
            row = now.row if private else None
            wanted = varied(what, wish, mask, diagnoses=studio.diagnoses)
            images: list[Made] = []
            cards: list[views.Drawn] = []
            for k, of in enumerate(wanted):

                def step(number: int, k: int = k, of: Any = of) -> None:
                    if stopped.is_set():
                        raise Cancelled
                    share = (k + min(1, (number - 1) / of.wish.steps)) / len(wanted)
                    count = f"image {k + 1} of {len(wanted)}, " if len(wanted) > 1 else ""
                    progress(
                        share, desc=f"{count}step {min(number, of.wish.steps)} of {of.wish.steps}"
                    )

                image = studio.image(of.mask, of.wish, source=row, step=step)
                images.append(Made(of.title, image, of.mask, of.wish, row))
                cards.append(views.Drawn(of.title, studio.prompt(of.wish), image, of.mask))
                yield views.result(cards), "", "", list(images)

        def judge(images: list[Made]) -> Iterator[Any]:
            if not images:
                yield ""
                return
            while True:
                last = preparation.done.is_set()
                seen_ = [
                    (judgement, studio.nearness(of.image, of.row) if private else None)
                    for of in images
                    if (judgement := studio.judged(of.image, of.mask, of.wish))
                ]
                waiting = (
                    preparation.state
                    if private
                    else "How near it lies to real images is told on this machine alone."
                )
                if not seen_:
                    yield views.message(waiting, kind="note")
                elif len(seen_) == 1:
                    yield views.details(*seen_[0], waiting=waiting)
                else:
                    yield views.comparison([of.title for of in images], seen_, waiting=waiting)
                if last:
                    return
                while not preparation.done.wait(PATIENCE) and bool(seen_) == (
                    studio.critics is not None
                ):
                    pass

        def halt(request: gr.Request) -> str:
            _stop(stops, request)
            return views.message("Stopped.", kind="note")

        def leave(request: gr.Request) -> None:
            _stop(stops, request)

        plain: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        heart = [chosen, painter, *sliders, numbers, caption]
        fresh = [*heart, *person.values(), told]
        group.input(_safely(lambda name: choose(name, 1), fresh), [group], fresh, **plain)
        following.click(
            _safely(lambda name, now: choose(name, now.number + 1), fresh),
            [group, chosen],
            fresh,
            **plain,
        )
        undo.click(_safely(back, [*heart, told]), [chosen], [*heart, told], **plain)
        deforming = [painter, numbers, told]
        gr.on(
            [slider.input for slider in sliders],
            _safely(deform, deforming),
            [chosen, *sliders],
            deforming,
            trigger_mode="always_last",
            **plain,
        )
        painting = [chosen, *sliders, numbers, told]
        painter.paint(
            _safely(paint, painting),
            [chosen, painter],
            painting,
            trigger_mode="always_last",
            **plain,
        )
        dice.click(lambda: str(time.time_ns() % 1_000_000), None, seed, **plain)
        saying = _safely(say, [prompt, told])
        # one listener for all: of several, an older answer could come last
        gr.on(
            [blocks.load, *(of.change for of in person.values())],
            saying,
            wishes,
            [prompt, told],
            trigger_mode="always_last",
            **plain,
        )
        drawing = draw.click(
            _streamed(draw_images),
            [chosen, painter, versus, *wishes],
            [shown, told, seen, made],
            api_visibility="private",
            concurrency_id="drawing",
            concurrency_limit=1,
            show_progress_on=[shown],
        )
        judging = drawing.then(judge, [made], [seen], concurrency_limit=4, **plain)
        draw.click(None, cancels=[judging], api_visibility="private")
        stop.click(halt, None, [told], cancels=[drawing], queue=False, api_visibility="private")
        blocks.unload(leave)
    built: gr.Blocks = blocks.queue(max_size=WAITING, default_concurrency_limit=4)
    return built


def _first(studio: Studio, *, private: bool) -> Chosen:
    """The heart that the page begins with."""
    if not private:
        return Chosen(masks.usual_heart(studio.pixels, mm=studio.mm))
    heart = studio.heart(studio.groups()[0], 1)
    return Chosen(studio.mask(heart.row), heart.row, heart.group, heart.number)


def _step(number: int, title: str, hint: str) -> str:
    return f"<h2><b>{number}</b> {title} <small>{hint}</small></h2>"


def _offered(studio: Studio, *, private: bool) -> list[tuple[str, str]]:
    """What a dropdown offers as masks: (words, group), the plain heart as group ""."""
    groups = studio.groups() if private else []
    return [*((spoken(name), name) for name in groups), (PLAIN_HEART, "")]


def _comparable(studio: Studio) -> list[tuple[str, str]]:
    """What can be varied: attributes that the prompt names, and whatever changes mask or
    drawing."""
    unread = {"sex", "age", "bmi", "diagnosis"} - set(studio.fields)
    names = [name for name in COMPARISONS if name not in unread]
    return [(NOTHING, ""), *(("BMI" if name == "bmi" else name, name) for name in names)]


def _sliders(mask: Mask) -> list[Any]:
    """Ejection fraction, wall and size of a mask that is not deformed."""
    values = zip(
        (
            ("ef", "Ejection fraction of the slice, %", masks.EF_RANGE),
            ("wall", "Wall thickness, % of the mask's own", masks.WALL_RANGE),
            ("size", "Size, % of the mask's own", masks.SIZE_RANGE),
        ),
        _reset(mask),
        strict=True,
    )
    return [
        gr.Slider(
            *_percents(limits),
            value=value,
            step=1,
            label=label,
            elem_id=name,
            buttons=[],
        )
        for (name, label, limits), value in values
    ]


def _person(studio: Studio, begin: Chosen) -> dict[str, Any]:
    """The attributes a prompt can name, each a control; what this generator never reads is
    hidden."""
    usual: dict[str, Any] = {
        "sex": None,
        "age": None,
        "bmi": None,
        "diagnosis": studio.diagnoses[0],
    }
    if begin.row is not None:
        usual = _values(studio.heart(begin.group, begin.number))
    fields = set(studio.fields)
    sexes = [(words_of("sex", code), code) for code in ("F", "M")]
    with gr.Row():
        sex = gr.Radio(
            [*sexes, ("not said", "")],
            value=usual["sex"] or "",
            label="Sex",
            visible="sex" in fields,
            elem_id="sex",
        )
        diagnosis = gr.Radio(
            [(words_of("diagnosis", code), code) for code in studio.diagnoses],
            value=usual["diagnosis"],
            label="Diagnosis",
            elem_id="diagnosis",
        )
    with gr.Row():
        # not gr.Number, which makes 0 of what is unknown
        age = gr.Textbox(usual["age"], label="Age, years", visible="age" in fields, elem_id="age")
        bmi = gr.Textbox(usual["bmi"], label="BMI, kg/m²", visible="bmi" in fields, elem_id="bmi")
    return {"sex": sex, "age": age, "bmi": bmi, "diagnosis": diagnosis}


def _values(heart: Heart) -> dict[str, Any]:
    """A subject's attributes as the controls take them, rounded down: bands and decades stay."""
    age, bmi = heart.attributes["age"], heart.attributes["bmi"]
    return {
        **heart.attributes,
        "sex": heart.attributes["sex"] or "",
        "age": "" if age is None else f"{math.floor(age)}",
        "bmi": "" if bmi is None else f"{math.floor(10 * bmi) / 10:g}",
    }


def _wish(
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


def _heading(studio: Studio, run: str, *, local: bool) -> str:
    cohort = "a phantom: computed hearts, nobody's" if studio.phantom else "a cohort of real people"
    place = "this machine only" if local else "open to the network, behind a password"
    privacy = (
        ""
        if studio.phantom
        else (
            " Their masks and images stay on this machine, and this page writes nothing to its "
            "disk."
        )
    )
    return (
        f'<h1>Draw a heart <span class="place{"" if local else " open"}">{place}</span></h1>'
        "<p>A mask and a few words in, a cine MRI slice at end-diastole and end-systole out. "
        f"Generator <b>{escape(run)}</b>, trained on {cohort}, {studio.pixels} px.{privacy} For "
        "research, not for diagnosis.</p>"
    )


def _caption(studio: Studio, now: Chosen) -> str:
    if now.row is None:
        return '<p class="numbers">A plain heart to begin with: nobody\'s mask.</p>'
    count = studio.heart(now.group, now.number).of
    whose = "a computed subject" if studio.phantom else "a real training subject"
    return (
        f'<p class="numbers">Heart {now.number} of {count} in this group: the mask of {whose}.</p>'
    )


def _numbers(studio: Studio, mask: Mask) -> str:
    return views.numbers(masks.measures(mask, mm=studio.mm))


def _reset(mask: Mask) -> tuple[Any, Any, Any]:
    """The sliders of a mask that is not deformed."""
    return _ef(mask), 100, 100


def _ef(mask: Mask) -> int:
    """Per cent of a mask's own ejection fraction, as the slider can show it."""
    low, high = _percents(masks.EF_RANGE)
    return min(high, max(low, round(100 * (masks.measures(mask, mm=None).ef or 0))))


def _percents(shares: tuple[float, float]) -> tuple[int, int]:
    return round(100 * shares[0]), round(100 * shares[1])


def _stop(stops: dict[str, threading.Event], request: gr.Request) -> None:
    if event := stops.pop(str(request.session_hash), None):
        event.set()


def _told(error: Exception) -> str:
    """What a visitor reads of an error; what nobody foresaw goes to the terminal in full."""
    if text := plain_errors.paragraph(error):
        return _PLAN.sub(r"\1", text)
    traceback.print_exception(error)
    return (
        f"this should not happen ({type(error).__name__}); the terminal where the page was "
        "started tells more"
    )


def _safely(function: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    """The function, whose last output is a message: empty, or why the others stay as they are."""

    @wraps(function)
    def told(*values: Any) -> tuple[Any, ...]:
        try:
            result = function(*values)
        except Exception as error:
            return *[gr.skip()] * (len(outputs) - 1), views.message(_told(error))
        return *(result if isinstance(result, tuple) else (result,)), ""

    return told


def _streamed(function: Callable[..., Iterator[tuple[Any, ...]]]) -> Callable[..., Any]:
    """A drawing whose outputs are images, a message, judgements and what was made: an error leaves
    the images that are there."""

    @wraps(function)
    def told(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from function(*values)
        except Cancelled:
            yield gr.skip(), views.message("Stopped.", kind="note"), gr.skip(), gr.skip()
        except Exception as error:
            yield gr.skip(), views.message(_told(error)), gr.skip(), gr.skip()

    return told
