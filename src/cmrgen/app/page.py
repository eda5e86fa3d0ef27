"""The page: controls at the left, the heart they give at the right. What they do is in answers.py."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from cmrgen.app import masks
from cmrgen.app.answers import (
    ATTRIBUTES,
    Answers,
    Chosen,
    Preparation,
    percents,
    safely,
    streamed,
    undeformed,
    values_of,
)
from cmrgen.app.masks import Mask
from cmrgen.app.studio import COMPARISONS, Studio, spoken, words_of
from cmrgen.render.sampler import GUIDES

HERE = Path(__file__).parent
PLAIN_HEART = "nobody: a plain heart"
NOTHING = "nothing"
WAITING = 8  # people in the queue; the next one is sent away
PRIVATE: dict[str, Any] = {"api_visibility": "private"}  # for this page's own calls alone
QUIET: dict[str, Any] = {**PRIVATE, "show_progress": "hidden"}
EMPTY = """<div class="empty"><p><b>Choose or paint a heart, say whose it is, and press Draw.</b><br>
The image appears here, at end-diastole and end-systole, and beating; below it what independent networks see in it.</p></div>"""


class _Heart(NamedTuple):
    """Step 1: the mask."""

    group: gr.Dropdown
    following: gr.Button
    caption: gr.HTML
    painter: gr.HTML
    numbers: gr.HTML
    sliders: list[gr.Slider]
    undo: gr.Button


class _Person(NamedTuple):
    """Step 2: the attributes that a prompt can name, in the order of ATTRIBUTES."""

    controls: list[Any]
    prompt: gr.HTML


class _Drawing(NamedTuple):
    """Step 3: how an image is drawn, and where it is shown."""

    draw: gr.Button
    stop: gr.Button
    dice: gr.Button
    versus: gr.Dropdown
    settings: list[Any]  # seed, steps, guidance, guides
    told: gr.HTML
    shown: gr.HTML
    judged: gr.HTML


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
    answers = Answers(studio, preparation, private=private)
    begin = answers.first()
    with gr.Blocks(title="Draw a heart", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(_heading(studio, run, local=local), elem_id="head")
        with gr.Row(equal_height=False):
            with gr.Column(scale=5, min_width=400):
                with gr.Column(elem_classes="step"):
                    heart = _heart(answers, begin)
                with gr.Column(elem_classes="step"):
                    person = _person(studio, begin)
            with gr.Column(scale=7, min_width=400, elem_classes="beside"):
                drawing = _drawing(studio)
        _wire(blocks, answers, begin, heart, person, drawing)
    built: gr.Blocks = blocks.queue(max_size=WAITING, default_concurrency_limit=4)
    return built


def _heart(answers: Answers, begin: Chosen) -> _Heart:
    """Choose a mask, then deform or paint it."""
    studio, private = answers.studio, answers.private
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
    caption = gr.HTML(answers.caption(begin), elem_id="caption")
    painter = gr.HTML(
        masks.encoded(begin.mask),
        html_template=(HERE / "painter.html").read_text(),
        js_on_load=(HERE / "painter.js").read_text(),
        apply_default_css=False,
        pixels=studio.pixels,
        elem_id="painter",
    )
    numbers = gr.HTML(answers.numbers(begin.mask), elem_id="numbers")
    sliders = _sliders(begin.mask)
    undo = gr.Button("back to the mask as it was", size="sm", elem_id="undo")
    return _Heart(group, following, caption, painter, numbers, sliders, undo)


def _sliders(mask: Mask) -> list[Any]:
    """Ejection fraction, wall and size of a mask that is not deformed."""
    values = zip(
        (
            ("ef", "Ejection fraction of the slice, %", masks.EF_RANGE),
            ("wall", "Wall thickness, % of the mask's own", masks.WALL_RANGE),
            ("size", "Size, % of the mask's own", masks.SIZE_RANGE),
        ),
        undeformed(mask),
        strict=True,
    )
    return [
        gr.Slider(
            *percents(limits),
            value=value,
            step=1,
            label=label,
            elem_id=name,
            buttons=[],
        )
        for (name, label, limits), value in values
    ]


def _person(studio: Studio, begin: Chosen) -> _Person:
    """The attributes a prompt can name, each a control; what this generator never reads is
    hidden."""
    gr.HTML(_step(2, "The person", "empty: the prompt doesn't say"))
    usual: dict[str, Any] = {**dict.fromkeys(ATTRIBUTES), "diagnosis": studio.diagnoses[0]}
    if begin.row is not None:
        usual = values_of(studio.heart(begin.group, begin.number))
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
    return _Person([sex, age, bmi, diagnosis], gr.HTML(elem_id="prompt"))


def _drawing(studio: Studio) -> _Drawing:
    """Draw, and see the image and what independent networks see in it."""
    with gr.Column(elem_classes="step"):
        gr.HTML(_step(3, "The image", "the same seed gives the same image"))
        with gr.Row(elem_classes="tight"):
            draw = gr.Button("Draw", variant="primary", elem_id="draw", scale=3, min_width=120)
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
        sampling = _sampling(studio)
    told = gr.HTML(elem_id="told")
    shown = gr.HTML(EMPTY, elem_id="shown", min_height=330)
    judged = gr.HTML(elem_id="seen")
    return _Drawing(draw, stop, dice, versus, [seed, *sampling], told, shown, judged)


def _sampling(studio: Studio) -> list[Any]:
    """Steps, guidance, and what it pushes towards."""
    usual = studio.sampler
    with gr.Accordion("How it is sampled", open=False, elem_id="sampler"), gr.Row():
        return [
            gr.Number(usual.steps, label="Steps", precision=0, elem_id="steps"),
            gr.Number(usual.guidance, label="Guidance", elem_id="guidance"),
            gr.Radio(
                [("the prompt", GUIDES[0]), ("mask and prompt", GUIDES[1])],
                value=usual.guides,
                label="Guidance pushes towards",
                elem_id="guides",
            ),
        ]


def _wire(
    blocks: gr.Blocks,
    answers: Answers,
    begin: Chosen,
    heart: _Heart,
    person: _Person,
    drawing: _Drawing,
) -> None:
    """Which control calls which answer, and where it is shown."""
    chosen = gr.State(begin)
    _wire_heart(answers, chosen, heart, person, drawing.told)
    wishes = [*person.controls, *drawing.settings]
    # one listener for all: of several, an older answer could come last
    gr.on(
        [blocks.load, *(of.change for of in person.controls)],
        safely(answers.say, [person.prompt, drawing.told]),
        wishes,
        [person.prompt, drawing.told],
        trigger_mode="always_last",
        **QUIET,
    )
    drawing.dice.click(lambda: str(time.time_ns() % 1_000_000), None, drawing.settings[0], **QUIET)
    images = gr.State([])
    drawn = drawing.draw.click(
        streamed(answers.draw),
        [chosen, heart.painter, drawing.versus, *wishes],
        [drawing.shown, drawing.told, drawing.judged, images],
        concurrency_id="drawing",
        concurrency_limit=1,
        show_progress_on=[drawing.shown],
        **PRIVATE,
    )
    judging = drawn.then(answers.judge, [images], [drawing.judged], concurrency_limit=4, **QUIET)
    drawing.draw.click(None, cancels=[judging], **PRIVATE)
    drawing.stop.click(answers.halt, None, [drawing.told], cancels=[drawn], queue=False, **PRIVATE)
    blocks.unload(answers.leave)


def _wire_heart(
    answers: Answers, chosen: gr.State, heart: _Heart, person: _Person, told: gr.HTML
) -> None:
    """Choosing, deforming and painting."""
    shown = [chosen, heart.painter, *heart.sliders, heart.numbers, heart.caption]
    fresh = [*shown, *person.controls, told]
    heart.group.input(
        safely(lambda name: answers.choose(name, 1), fresh), [heart.group], fresh, **QUIET
    )
    heart.following.click(
        safely(lambda name, now: answers.choose(name, now.number + 1), fresh),
        [heart.group, chosen],
        fresh,
        **QUIET,
    )
    heart.undo.click(safely(answers.back, [*shown, told]), [chosen], [*shown, told], **QUIET)
    deformed = [heart.painter, heart.numbers, told]
    gr.on(
        [slider.input for slider in heart.sliders],
        safely(answers.deform, deformed),
        [chosen, *heart.sliders],
        deformed,
        trigger_mode="always_last",
        **QUIET,
    )
    painted = [chosen, *heart.sliders, heart.numbers, told]
    heart.painter.paint(
        safely(answers.paint, painted),
        [chosen, heart.painter],
        painted,
        trigger_mode="always_last",
        **QUIET,
    )


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
