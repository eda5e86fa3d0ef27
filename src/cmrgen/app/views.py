"""What the page shows of an image and of what was seen in it: HTML from arrays and numbers,
pictures inside it, so that no file is written."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from scipy import ndimage

from cmrdata.axes import title_of
from cmrdata.batch import LABELS, PHASES
from cmrgen.app.masks import Mask, Measures
from cmrgen.app.studio import Attribute, Image, Judgement, Nearness, words_of
from cmrstudy.figures import STRUCTURES

OUTLINE = 512  # px, side of the drawn outlines of a mask
FILLED, LINED = 38, 255  # opacity of a structure and of its outline, of 255


class Drawn(NamedTuple):
    """An image with its title and the mask it was drawn from."""

    title: str
    prompt: str
    image: Image
    mask: Mask


def result(drawn: Sequence[Drawn]) -> str:
    """The images: one of them large, several side by side, each with outlines that a tick shows."""
    cards = "".join(_card(of, alone=len(drawn) == 1) for of in drawn)
    legend = "".join(
        f'<span><i style="background:rgb{STRUCTURES[label]}"></i>{name}</span>'
        for name, label in LABELS.items()
    )
    return (
        f'<div class="result{"" if len(drawn) == 1 else " several"}"><div '
        'class="bar"><label><input type="checkbox" class="toggle" checked> outlines of the '
        f'mask</label><span class="legend">{legend}</span></div>{cards}</div>'
    )


def details(judgement: Judgement, nearness: Nearness | None, *, waiting: str = "") -> str:
    """What the judges see in one image, and how near it lies to the training images."""
    rows = "".join(
        f"<tr><th>{phase}</th>{''.join(_dice(value) for value in judgement.dice[p])}</tr>"
        for p, phase in enumerate(PHASES)
    )
    heads = "".join(f"<th>{name}</th>" for name in LABELS)
    real = ", ".join(
        f"{name} {_number(value)}"
        for name, value in zip(LABELS, judgement.dice_real.mean(0), strict=True)
    )
    people = max((of.n for of in judgement.attributes), default=0)
    return f"""<div class="seen">
<section><h3>Does it show the mask?</h3>
<table class="dice"><tr><th></th>{heads}</tr>{rows}</table>
<p class="small">Dice of the mask and of what a segmenter sees, 1 at best. In the cohort's images of people held out: {real}.</p>
<p>{_ejection(judgement)}</p></section>
<section><h3>Does it show the person?</h3>
<table class="attributes">{"".join(map(_attribute, judgement.attributes))}</table>
<p class="small">What a network sees that learned from the cohort's own images. In brackets: how often it is right in the images of
{people:,} people held out; where that is seldom, its word here is worth as little.</p></section>
<section><h3>Is it a copy?</h3>{_nearness(nearness, waiting)}</section></div>"""


def comparison(
    titles: Sequence[str], seen: Sequence[tuple[Judgement, Nearness | None]], *, waiting: str = ""
) -> str:
    """A row for each of several images: what `details` tells of one."""
    axes = [of.axis for of in seen[0][0].attributes]
    heads = ["", "Dice", "ejection: mask", "seen", *(title_of(axis) for axis in axes), "similarity"]
    rows = []
    for title, (judgement, nearness) in zip(titles, seen, strict=True):
        cells = [
            f"<th>{escape(title)}</th>",
            f"<td>{_number(_mean(judgement.dice))}</td>",
            f"<td>{_percent(judgement.ef_asked)}</td><td>{_percent(judgement.ef_seen)}</td>",
            *(f"<td>{_verdict(of.axis, of.asked, of.seen)}</td>" for of in judgement.attributes),
            f"<td>{_similarity(nearness)}</td>",
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    tau = next((nearness for _, nearness in seen if nearness), None)
    told = (
        f"Similarity is to the nearest training image; 95 % of {tau.people:,} people held out lie "
        f"below τ = {tau.tau:.3f}."
        if tau
        else waiting
    )
    return (
        '<div class="seen"><section class="wide"><h3>What the judges see</h3><div '
        'class="scroll"><table class="many">'
        f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(rows)}</table></div>"
        '<p class="small">Dice is the mean of LV, MYO and RV at ED and ES. '
        f"{escape(told)}</p></section></div>"
    )


def numbers(of: Measures) -> str:
    """A line about a mask."""
    parts = [f"ejection fraction of the slice <b>{_percent(of.ef)}</b>"]
    for name, values, unit in (
        ("LV", of.cavity, "cm²"),
        ("wall", of.wall, "mm"),
        ("RV", of.rv, "cm²"),
    ):
        if values is not None:
            parts.append(f"{name} <b>{values[0]:.1f} → {values[1]:.1f}</b> {unit}")
    return f'<p class="numbers">{" · ".join(parts)}</p>'


def message(text: str, *, kind: str = "fault") -> str:
    """A paragraph that stays until the next action; nothing for no text."""
    return f'<p class="message {kind}" role="alert">{escape(text)}</p>' if text else ""


def picture(pixels: npt.NDArray[np.uint8]) -> str:
    """A grey (P, P) or RGBA (P, P, 4) picture as a PNG inside its address."""
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def outlined(labels: Mask) -> npt.NDArray[np.uint8]:
    """(P, P) labels -> (S, S, 4) RGBA, each structure's outline with a breath of colour inside."""
    factor = max(1, math.ceil(OUTLINE / len(labels)))
    shares = [
        ndimage.zoom(
            (labels == label).astype(np.float32), factor, order=1, grid_mode=True, mode="nearest"
        )
        for label in range(1 + max(LABELS.values()))
    ]
    fine = np.argmax(shares, 0)
    rgba = np.zeros((*fine.shape, 4), np.uint8)
    for label, colour in STRUCTURES.items():
        inside = fine == label
        border = inside & ~ndimage.binary_erosion(inside, iterations=len(fine) // 130)
        rgba[inside] = (*colour, FILLED)
        rgba[border] = (*colour, LINED)
    return rgba


def _card(of: Drawn, *, alone: bool) -> str:
    frames = [picture(channel) for channel in of.image]
    outlines = [picture(outlined(labels)) for labels in of.mask]
    tiles = "".join(
        f'<figure><div class="tile"><img src="{frames[p]}" alt="{phase} of {escape(of.title)}">'
        f'<img class="outline" src="{outlines[p]}" '
        f'alt=""></div><figcaption>{name}</figcaption></figure>'
        for p, (phase, name) in enumerate(
            zip(PHASES, ("ED, end-diastole", "ES, end-systole") if alone else PHASES, strict=True)
        )
    )
    beating = (
        f'<figure><div class="tile beating"><img src="{frames[0]}" alt="beating heart"><img '
        f'class="second" src="{frames[1]}" '
        f'alt=""></div><figcaption>{"beating, two frames" if alone else "beating"}'
        "</figcaption></figure>"
    )
    told = f'<p class="prompt">“{escape(of.prompt)}”</p>' if alone else ""
    return (
        f"<article><h3>{escape(of.title)}</h3>{told}<div "
        f'class="tiles">{tiles}{beating}</div></article>'
    )


def _dice(value: float) -> str:
    if math.isnan(value):
        return "<td>none asked, none seen</td>"
    kind = "good" if value >= 0.8 else "fair" if value >= 0.6 else "poor"
    return (
        f'<td class="{kind}"><span style="width:{100 * value:.0f}%"></span><b>{value:.2f}</b></td>'
    )


def _ejection(of: Judgement) -> str:
    if math.isnan(of.ef_seen):
        return "The segmenter sees no LV at ED, so no ejection."
    return (
        f"Ejection fraction of the slice: <b>{_percent(of.ef_asked)}</b> in the mask, "
        f"<b>{_percent(of.ef_seen)}</b> in the image."
    )


def _attribute(of: Attribute) -> str:
    right = f"({100 * of.right:.0f} %)" if of.n and not math.isnan(of.right) else ""
    asked = ""
    if of.asked != of.seen:
        words = "not said" if of.asked is None else f"asked: {words_of(of.axis, of.asked)}"
        asked = f' <span class="small">{escape(words)}</span>'
    return (
        f"<tr><th>{title_of(of.axis)}</th><td>{_verdict(of.axis, of.asked, of.seen)}{asked}</td>"
        f'<td class="small">{right}</td></tr>'
    )


def _verdict(axis: str, asked: str | None, seen: str | None) -> str:
    if seen is None:
        return "sees nothing"
    kind, sign = ("", "") if asked is None else ("yes", "✓ ") if asked == seen else ("no", "✗ ")
    return f'<span class="{kind}">{sign}{escape(words_of(axis, seen))}</span>'


def _similarity(of: Nearness | None) -> str:
    if of is None:
        return "…"
    beyond = of.similarity > of.tau
    return (
        "<span "
        f'class="{"no" if beyond else "yes"}">{of.similarity:.3f}{" > τ" if beyond else ""}</span>'
    )


def _nearness(of: Nearness | None, waiting: str) -> str:
    if of is None:
        return f'<p class="small">{escape(waiting)}</p>'
    low = min(of.similarity, of.tau) - 0.1
    places = [100 * (value - low) / (1 - low) for value in (of.similarity, of.tau)]
    beyond = of.similarity > of.tau
    words = (
        "It lies <b>nearer to a training image than 95 % of unseen people do</b>: a candidate "
        "copy, though one unseen person in 20 lies there, too. Look at other seeds, and audit a "
        "set before you share it."
        if beyond
        else "It lies no nearer to a training image than unseen people do."
    )
    own = " The nearest is one of the person whose mask this is." if of.own else ""
    return f"""<div class="gauge {"beyond" if beyond else ""}"><span style="width:{places[0]:.1f}%"></span>
<i style="left:{places[1]:.1f}%">τ</i></div>
<p>Similarity to the nearest training image <b>{of.similarity:.3f}</b>, τ = {of.tau:.3f}. {words}{own}</p>
<p class="small">τ: 95 % of {of.people:,} people whom the generator has never seen lie below it. One image below τ proves
nothing about a set.</p>"""


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _number(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"


def _percent(share: float | None) -> str:
    return "none" if share is None or math.isnan(share) else f"{100 * share:.0f} %"
