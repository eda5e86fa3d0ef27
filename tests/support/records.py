"""What a part of the program says and writes, kept beside its test as JSON: a change that nobody meant
is noticed, and of one that was meant the record's difference in git shows what it does.

A test file that keeps a record calls `check` in its test, and `write` when it is run by itself.
"""

from __future__ import annotations

import json
import re
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


def check(file: Path, name: str, now: Any, *, within: float = 2e-5) -> None:
    """The record `name` of a file holds the same words, and numbers but for their last digit."""
    same(json.loads(json.dumps(now)), json.loads(file.read_text())[name], name, within=within)


def same(now: Any, then: Any, at: str, *, within: float) -> None:
    """`now` is `then`, and its numbers nearly so."""
    if isinstance(then, dict):
        assert list(now) == list(then), at
        for key in then:
            same(now[key], then[key], f"{at}/{key}", within=within)
    elif isinstance(then, list):
        assert len(now) == len(then), at
        for k, (one, other) in enumerate(zip(now, then, strict=True)):
            same(one, other, f"{at}[{k}]", within=within)
    elif isinstance(then, str):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", then), at
        # the last digit that is written may differ by one
        for one, other in zip(NUMBER.findall(now), NUMBER.findall(then), strict=True):
            last = 0 if "e" in other else 1.01 * 10.0 ** -len(other.partition(".")[2])
            wanted = pytest.approx(float(other), rel=1e-4, abs=max(within, last))
            assert float(one) == wanted, f"{at}: {now}"
    elif isinstance(then, float):
        assert now == pytest.approx(then, rel=1e-4, abs=within, nan_ok=True), at
    else:
        assert now == then, at


def table(frame: pd.DataFrame, *, digits: int = 5) -> list[str]:
    """A table of measured numbers as the lines of a CSV file."""
    lines: list[str] = frame.to_csv(index=False, float_format=f"%.{digits}f").splitlines()
    return lines


def columns(frame: pd.DataFrame) -> dict[str, str]:
    """A table of what was drawn or decided, by its columns: the first values and a mark of them
    all."""
    said = {}
    for column in map(str, frame):
        values = [str(value) for value in frame[column]]
        mark = sha256("\n".join(values).encode()).hexdigest()[:8]
        said[column] = f"{mark}: {' '.join(values[:3])}"
    return said


def without_place(node: Any, folder: Path) -> Any:
    """A record with `<folder>` wherever a text names the folder it was made in."""
    if isinstance(node, dict):
        return {key: without_place(value, folder) for key, value in node.items()}
    if isinstance(node, list):
        return [without_place(value, folder) for value in node]
    return node.replace(str(folder), "<folder>") if isinstance(node, str) else node


def write(file: Path, records: dict[str, Any]) -> None:
    """Write a file of records anew."""
    file.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    sys.stdout.write(f"{file}: {file.stat().st_size / 1000:.0f} kB\n")


def averages(frame: pd.DataFrame) -> dict[str, str]:
    """A table of measured numbers by its columns: how many, their mean and their mean by place; of
    words, how often each occurs."""
    place = np.arange(1, len(frame) + 1) / max(1, len(frame))
    said = {}
    for column in frame:
        values = frame[column]
        if pd.api.types.is_numeric_dtype(values) and values.dtype != bool:
            known, means = values.notna(), (values.mean(), (values * place).mean())
            said[str(column)] = f"{known.sum()} {means[0]:.5f} {means[1]:.5f}"
        else:
            counts = values.astype(str).value_counts().sort_index()
            said[str(column)] = ", ".join(f"{word}: {n}" for word, n in counts.head(12).items())
    return said


def figure(drawn: Figure) -> dict[str, Any]:
    """What a figure says and shows: its words, and per panel its limits and what lies where."""
    words = [text.get_text() for text in drawn.findobj(Text)]
    return {
        "words": list(dict.fromkeys(word for word in words if word)),
        "panels": [_panel(axes) for axes in drawn.axes],
    }


def _panel(axes: Axes) -> str:
    lines = [line.get_xydata() for line in axes.lines]
    marks = [part.get_offsets() for part in axes.collections]
    segments = [
        points
        for part in axes.collections
        if isinstance(part, LineCollection)
        for points in part.get_segments()
    ]
    boxes = [box.get_bbox().get_points() for box in axes.patches if isinstance(box, Rectangle)]
    images = [image.get_array() for image in axes.images]
    said = [f"x {axes.get_xlim()[0]:.4f} {axes.get_xlim()[1]:.4f}"]
    said += [f"y {axes.get_ylim()[0]:.4f} {axes.get_ylim()[1]:.4f}"]
    parts = {
        "lines": lines,
        "marks": marks,
        "segments": segments,
        "boxes": boxes,
        "images": images,
        "texts": [np.array(text.get_position(), float) for text in axes.texts],
    }
    for name, arrays in parts.items():
        if arrays:
            flat = np.concatenate([np.asarray(a, float).reshape(-1) for a in arrays])
            place = np.arange(1, len(flat) + 1) / max(1, len(flat))
            said.append(
                f"{len(arrays)} {name} {np.nanmean(flat):.4f} {np.nanmean(flat * place):.4f}"
            )
    return "; ".join(said)
