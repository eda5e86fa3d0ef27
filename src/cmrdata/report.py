"""Tables as CSV, Markdown and LaTeX, and the study as one self-contained HTML page for phones and printers."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment

from cmrdata.runs import write_atomic

KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
LATEX = str.maketrans({
    **{c: f"\\{c}" for c in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$",
})  # fmt: skip


class Section(NamedTuple):
    """A part of the report; a table's attrs may hold caption (str), warnings and refused (lists of sentences)."""

    heading: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[pd.DataFrame] = ()  # display frames
    figures: Sequence[tuple[str, str | Path]] = ()  # title, which is also the alternative text; PNG or SVG file
    warnings: Sequence[str] = ()


def write_tables(
    frame: pd.DataFrame, folder: str | Path, name: str, caption: str, *, display: pd.DataFrame | None = None
) -> list[Path]:
    """<name>.csv of `frame` for machines, <name>.md and <name>.tex (booktabs) of `display` for readers; their paths."""
    shown = frame if display is None else display
    contents = {"csv": frame.to_csv(index=False), "md": markdown(shown, caption),
                "tex": latex(shown, caption, label=f"tab:{name}")}  # fmt: skip
    paths = [Path(folder) / f"{name}.{suffix}" for suffix in contents]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content)
    return paths


def markdown(frame: pd.DataFrame, caption: str) -> str:
    """A pipe table below its caption, with its warnings."""
    rows = [[str(column) for column in frame.columns], ["---"] * frame.shape[1], *_cells(frame)]
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([f"**{caption}**", "", *lines, *(f"\n> Note: {note}" for note in notes(frame))]) + "\n"


def latex(frame: pd.DataFrame, caption: str, *, label: str) -> str:
    """A booktabs table environment; \\usepackage{booktabs} is all it needs."""
    lines = [" & ".join(cell.replace("\n", " ").translate(LATEX) for cell in row) + r" \\"
             for row in [[str(column) for column in frame.columns], *_cells(frame)]]  # fmt: skip
    return "\n".join([r"\begin{table}", r"\centering",
                      rf"\caption{{{caption.translate(LATEX)}}}", rf"\label{{{label}}}",
                      rf"\begin{{tabular}}{{l{'r' * (frame.shape[1] - 1)}}}", r"\toprule", lines[0], r"\midrule",
                      *lines[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"  # fmt: skip


def notes(frame: pd.DataFrame) -> list[str]:
    """What a reader must know about this table: warnings, and axes that could not be compared."""
    return [*frame.attrs.get("warnings", ()), *(f"Left out: {reason}" for reason in frame.attrs.get("refused", ()))]


def report_html(sections: Sequence[tuple[Any, ...]], *, title: str, facts: Mapping[str, Any]) -> str:
    """One HTML page without scripts or external references; `facts` are provenance rows (commands, n, date).

    Sections are Section or its fields in order. Everything is escaped. Raises FileNotFoundError naming a figure that
    is not there, ValueError for another file type.
    """
    shown = [{"section": section,
              "warnings": section.warnings,
              "tables": [{"caption": table.attrs.get("caption", ""), "columns": [str(c) for c in table.columns],
                          "rows": _cells(table), "notes": notes(table)} for table in section.tables],
              "figures": [(name, data_uri(Path(path))) for name, path in section.figures]}
             for section in (Section(*given) for given in sections)]  # fmt: skip
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE).render(
        title=title, facts={str(key): _lines(value) for key, value in facts.items()}, sections=shown)  # fmt: skip


def data_uri(path: Path) -> str:
    """The image file itself as a data: URI."""
    if path.suffix not in KINDS:
        raise ValueError(f"{path}: a report shows {' or '.join(KINDS)} files; save the figure as one of them")
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: this figure of the report is not there; draw it with cmrdata.figures.save first"
        )
    return f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _lines(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _cells(frame: pd.DataFrame) -> list[list[str]]:
    """Every cell as text: floats with four significant digits, what is missing as n/a."""
    return [[_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]


def _text(value: Any) -> str:
    if isinstance(value, float) and not pd.isna(value):
        return f"{value:.4g}"
    return "n/a" if value is None or value is pd.NA or value != value else str(value)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{{ title }}</title>
<style>
:root { --ink: #1d1d1f; --dim: #5c5c63; --page: #fff; --line: #d8d8dc; --head: #f4f4f6;
        --note: #fff4d6; --edge: #b07400 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --dim: #a5a5ad; --page: #17181a; --line: #3a3b40; --head: #232428;
          --note: #3a2f12; --edge: #e0a63a }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2 } h2 { font-size: 1.25rem; margin-top: 2.5rem }
nav a { color: inherit; margin-right: 1rem }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { background: var(--head) } th:first-child, td:first-child { text-align: left }
.facts td { white-space: normal; text-align: left; vertical-align: top }
.facts td + td { font-family: ui-monospace, monospace; white-space: pre-wrap }
.note { margin: 1rem 0; padding: .6rem .9rem; background: var(--note); border-left: .3rem solid var(--edge) }
figure { margin: 1.5rem 0 } figcaption { color: var(--dim); font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: .3rem }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt } nav { display: none }
  .scroll { overflow: visible } th, td { padding: .2rem .35rem; white-space: normal }
  figure, table, .note { break-inside: avoid } h2 { break-after: avoid }
}
</style>
</head>
<body>
<h1>{{ title }}</h1>
<nav aria-label="Sections">
{% for part in sections %}
<a href="#part-{{ loop.index }}">{{ part.section.heading }}</a>
{% endfor %}
</nav>
{% for part in sections %}
<section>
<h2 id="part-{{ loop.index }}">{{ part.section.heading }}</h2>
{% for warning in part.warnings %}
<p class="note" role="note"><strong>Note:</strong> {{ warning }}</p>
{% endfor %}
{% for paragraph in part.section.paragraphs %}
<p>{{ paragraph }}</p>
{% endfor %}
{% for table in part.tables %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.caption or part.section.heading }}">
<table>
{% if table.caption %}<caption>{{ table.caption }}</caption>{% endif %}

<thead><tr>{% for name in table.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for note in table.notes %}
<p class="note" role="note"><strong>Note:</strong> {{ note }}</p>
{% endfor %}
{% endfor %}
{% for name, source in part.figures %}
<figure><img src="{{ source }}" alt="{{ name }}"><figcaption>{{ name }}</figcaption></figure>
{% endfor %}
</section>
{% endfor %}
<section>
<h2>Where these numbers come from</h2>
<div class="scroll"><table class="facts"><tbody>
{% for key, values in facts.items() %}
<tr><td>{{ key }}</td><td>{{ values | join("\n") }}</td></tr>
{% endfor %}
</tbody></table></div>
</section>
</body>
</html>
"""
