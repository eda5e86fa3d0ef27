"""Tables as CSV, Markdown and LaTeX, and the study as one self-contained HTML page for phones and
printers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from cmrdata.disk import write_atomic

LONG_TABLE = 15  # rows: a longer table is folded until it is asked for, or printed
PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}
LATEX_ESCAPES = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
    }
)


class Shown(NamedTuple):
    """A table as readers see it: cells, what it shows, and what they must know of it."""

    frame: pd.DataFrame
    caption: str = ""
    notes: Sequence[str] = ()  # sentences


class Section(NamedTuple):
    """A part of the report."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Shown] = ()
    # title, which is also the alternative text; PNG or SVG file
    figures: Sequence[tuple[str, str | Path]] = ()
    warnings: Sequence[str] = ()
    # command, fingerprints, n, date: small, below the heading
    sources: Mapping[str, Any] | Sequence[str] = ()
    # sentences for the box at the top of the page, which links to this section
    answers: Sequence[str] = ()


def write_table(
    table: Shown, folder: str | Path, name: str, *, data: pd.DataFrame | None = None
) -> list[Path]:
    """Write a table for machines and for readers.

    Args:
        table: what readers see, as <name>.md and <name>.tex (booktabs).
        folder: made where it is missing.
        name: of the files, without suffix.
        data: what machines read, as <name>.csv; None: the frame of `table`.

    Returns:
        Paths of the three files.
    """
    contents = {
        "csv": (table.frame if data is None else data).to_csv(index=False),
        "md": markdown(table),
        "tex": latex(table.frame, table.caption, label=f"tab:{name}"),
    }
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in contents]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths


def markdown(table: Shown) -> str:
    """A pipe table below its caption, with its notes."""
    frame = table.frame
    rows = [[str(column) for column in frame.columns], ["---"] * frame.shape[1], *_cells(frame)]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
        for row in rows
    ]
    return (
        "\n".join(
            [f"**{table.caption}**", "", *lines, *(f"\n> Note: {note}" for note in table.notes)]
        )
        + "\n"
    )


def latex(frame: pd.DataFrame, caption: str, *, label: str) -> str:
    """A booktabs table environment; \\usepackage{booktabs} is all it needs.

    Args:
        frame: the cells; the first column is left-aligned, the others right-aligned.
        caption: above the table.
        label: to refer to it.
    """
    lines = [
        " & ".join(cell.replace("\n", " ").translate(LATEX_ESCAPES) for cell in row) + r" \\"
        for row in [[str(column) for column in frame.columns], *_cells(frame)]
    ]
    return (
        "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{caption.translate(LATEX_ESCAPES)}}}",
                rf"\label{{{label}}}",
                rf"\begin{{tabular}}{{l{'r' * (frame.shape[1] - 1)}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )
        + "\n"
    )


def report_html(
    sections: Sequence[Section],
    *,
    title: str,
    facts: Mapping[str, Any],
    summary: Sequence[str] = (),
) -> str:
    """One HTML page without scripts or external references; everything in it is escaped.

    Tables of more than LONG_TABLE rows are folded; they open when asked, and in print.

    Args:
        sections: in reading order.
        title: of the page.
        facts: rows of the last table, where the numbers come from: commands, n, date.
        summary: sentences that stand first, above the sections' own answers.

    Raises:
        FileNotFoundError: a figure is not there.
        ValueError: a figure is of another file type.
    """
    parts: list[dict[str, Any]] = [
        {
            "section": section,
            "anchor": f"part-{number}",
            "sources": sourced(section.sources),
            "tables": [_table(table) for table in section.tables],
            "figures": [(name, data_uri(Path(path))) for name, path in section.figures],
        }
        for number, section in enumerate(sections, start=1)
    ]
    page: str = (
        Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        .from_string(_shipped("page.html"))
        .render(
            title=title,
            facts={str(key): _lines(value) for key, value in facts.items()},
            sections=parts,
            summary=summary,
            answered=any(section.answers for section in sections),
            style=Markup(_shipped("page.css")),
        )
    )
    return page


def _shipped(name: str) -> str:
    """A file that comes with this package."""
    return files("cmrstudy").joinpath(name).read_text("utf-8")


def number(
    value: float, low: float = float("nan"), high: float = float("nan"), *, form: str = ".3f"
) -> str:
    """ "0.820 [0.808, 0.832]"; without an interval the value, without a value n/a.

    Args:
        value: NaN for none.
        low: end of its interval; NaN for none.
        high: the other end.
        form: of all three.
    """
    if pd.isna(value):
        return "n/a"
    return f"{value:{form}}" if pd.isna(low) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def data_uri(path: Path) -> str:
    """The image file itself as a data: URI."""
    if path.suffix not in PICTURES:
        raise ValueError(
            f"{path}: a report shows {' or '.join(PICTURES)} files; save the figure as one of them"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: this figure of the report is not there; draw it with cmrstudy.figures.save "
            "first"
        )
    return f"data:{PICTURES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _table(table: Shown) -> dict[str, Any]:
    """What the page shows of a table; `text`: for each column, whether it holds words."""
    frame, caption, notes = table
    rows = _cells(frame)
    text = [
        not any(re.match(r"[-+−]?\d", cell) for cell in column) and set(column) != {"n/a"}
        for column in zip(*rows, strict=True)
    ]
    return {
        "caption": caption,
        "columns": [str(c) for c in frame.columns],
        "rows": rows,
        "text": text or [False] * frame.shape[1],
        "notes": list(notes),
        "long": len(frame) > LONG_TABLE,
    }


def sourced(sources: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """A section's sources as lines, "key: value" for a mapping; lists of values are joined by
    commas."""
    if isinstance(sources, Mapping):
        return [f"{key}: {', '.join(_lines(value))}" for key, value in sources.items()]
    return [str(line) for line in sources]


def _lines(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    """Every cell as text: floats with four significant digits, what is missing as n/a."""
    return [[_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    if isinstance(value, float | np.floating) and not pd.isna(value):
        return f"{value:.4g}"
    return "n/a" if value is None or value is pd.NA or value != value else str(value)
