"""Figures are saved twice and alike; tables and the page escape what they show and need nothing
from outside."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from cmrdata.subjects import with_groups
from cmrstudy import figures, report
from support import ROOT
from support.fake_cohort import FakeCohort

ARMS = ("real", "real + 360", "synthetic only")
NASTY = "<script>alert('&')</script>"


def subjects(unknown: tuple[str, ...] = ()) -> pd.DataFrame:
    return with_groups(FakeCohort(count=120, unknown=unknown).subjects()[0])


def table2() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "subgroup": group,
            "axis": "sex",
            "n": 100 + k,
            "positives": 9 - k,
            "prevalence": 0.1,
            "arm": arm,
            "balanced_accuracy": rng.uniform(0.6, 0.8) if group != "Age < 60" else np.nan,
            "sd": 0.03,
            "seeds": 2,
        }
        for k, group in enumerate(("Overall", "Female", "Male", "Age < 60"))
        for arm in ARMS
    ]
    return pd.DataFrame(rows)


def grid() -> Figure:
    image = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8], mask[8:12] = 1, 3
    return figures.image_grid(
        [[figures.coloured(mask), image], [None, figures.overlay(image, mask)]],
        ["a", "b"],
        ["c", "d"],
    )


DRAWN = {
    "demographics": lambda: figures.demographics(subjects()),
    "demographics_unknown": lambda: figures.demographics(subjects(unknown=("sex", "age", "bmi"))),
    "grid": grid,
}


@pytest.mark.parametrize("name", DRAWN)
def test_figures_are_saved_in_both_formats_and_alike(name: str, tmp_path: Path) -> None:
    png, svg = figures.save(DRAWN[name](), tmp_path / "figures" / "fig.1")
    assert png.name == "fig.1.png" and png.read_bytes().startswith(b"\x89PNG")
    assert svg.name == "fig.1.svg" and b"<svg" in svg.read_bytes()
    assert sorted(p.name for p in svg.parent.iterdir()) == ["fig.1.png", "fig.1.svg"]
    if name == "demographics":
        again = figures.save(DRAWN[name](), tmp_path / "again")
        assert [p.read_bytes() for p in again] == [png.read_bytes(), svg.read_bytes()]


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))


def test_demographics_counts_the_diseased_and_omits_unknown_axes() -> None:
    shown = words(figures.demographics(subjects()))
    assert (
        "diseased (n = 60)" in shown and "whole cohort (n = 120)" in shown and "30  (50 %)" in shown
    )
    partly = words(figures.demographics(subjects(unknown=("sex", "bmi"))))
    assert "Age (years)" in partly and "Female" not in partly and "Obese" not in partly


def test_overlay_colours_the_structures() -> None:
    mask = np.array([[0, 1], [2, 3]], np.uint8)
    assert figures.coloured(mask)[0, 0].tolist() == [0, 0, 0]
    assert figures.coloured(mask)[0, 1].tolist() == list(figures.STRUCTURES[1])
    image = np.full((2, 2), 100, np.uint8)
    assert figures.overlay(image, mask)[0, 0].tolist() == [100] * 3
    assert len({tuple(colour) for colour in figures.overlay(image, mask).reshape(-1, 3)}) == 4


def test_a_table_is_written_for_machines_and_for_readers(tmp_path: Path) -> None:
    frame = pd.DataFrame({"metric_a": ["a & b", "c|d"], "value": [0.123456, np.nan]})
    table = report.Shown(frame, "50 % of 2 < 3", ["Only 12 images."])
    paths = report.write_table(table, tmp_path / "results", "table1")
    assert [p.name for p in paths] == ["table1.csv", "table1.md", "table1.tex"]
    assert pd.read_csv(paths[0]).value[0] == 0.123456
    text = paths[1].read_text()
    assert text.startswith("**50 % of 2 < 3**") and "> Note: Only 12 images." in text
    assert "| c\\|d | n/a |" in text
    tex = paths[2].read_text()
    assert (
        r"metric\_a & value \\" in tex
        and r"a \& b & 0.1235 \\" in tex
        and r"50 \% of 2 \textless{} 3" in tex
    )
    assert tex.index(r"\toprule") < tex.index(r"\midrule") < tex.index(r"\bottomrule")
    cells = report.Shown(pd.DataFrame({"x": ["1 (2)"]}), "c")
    csv, md, _ = report.write_table(cells, tmp_path, "t", data=frame)
    assert "| 1 (2) |" in md.read_text() and "metric_a" in csv.read_text()


def test_the_page_is_part_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    src = ROOT / "src"
    shipped = {
        path.relative_to(src).as_posix()
        for package, patterns in settings["package-data"].items()
        for pattern in patterns
        for path in (src / package.replace(".", "/")).glob(pattern)
    }
    others = {
        path.relative_to(ROOT / "src").as_posix()
        for path in src.glob("cmr*/**/*.*")
        if path.suffix not in (".py", ".pyc") and ".egg-info" not in str(path)
    }
    assert {"cmrstudy/page.html", "cmrstudy/page.css"} <= others <= shipped


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(tmp_path: Path) -> str:
    png, svg = figures.save(DRAWN["grid"](), tmp_path / "grid")
    table = report.Shown(
        pd.DataFrame({NASTY: [NASTY, "b"], "value": [1.5, np.nan]}),
        f"Table 1 {NASTY}",
        ["Only 12 images a side.", "Left out: sex: unknown."],
    )
    sections = [
        report.Section(
            "Fidelity",
            [f"Paragraph {NASTY}"],
            [table],
            [("Adherence bars", png), (f'"{NASTY}', svg)],
            sources={"fingerprint": NASTY, "n": ["2,160", 12]},
            answers=[f"An answer {NASTY}"],
        ),
        report.Section("Fairness"),
        report.Section("Notes", warnings=["Underpowered."]),
    ]
    facts = {"command": ["python a.py", NASTY], "n": 12}
    return report.report_html(
        sections, title=f"Study {NASTY}", facts=facts, summary=[f"In one sentence {NASTY}"]
    )


def test_the_page_stands_alone(page: str) -> None:
    parsed = Page(page)
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 2 and all(
        image["src"].startswith("data:image/") and image["alt"] for image in images
    )
    assert base64.b64decode(images[0]["src"].split(",")[1]).startswith(b"\x89PNG")
    outside = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", outside)
    assert not {tag for tag, _ in parsed.tags} & {"script", "iframe", "object", "base"}
    assert all(
        attributes["href"].startswith(("#", "data:"))
        for tag, attributes in parsed.tags
        if "href" in attributes
    )
    assert "default-src 'none'" in page  # and a browser would refuse anything else
    assert (
        "prefers-color-scheme: dark" in page
        and "@media print" in page
        and 'name="viewport"' in page
    )


def test_the_page_escapes_and_marks_warnings(page: str) -> None:
    parsed = Page(page)
    assert "<script" not in page and parsed.text.count(NASTY) >= 11
    assert page.count('class="note"') == 2  # two notes of one table share a box
    for words_ in (
        "Only 12 images a side.",
        "Left out: sex: unknown.",
        "Underpowered.",
        "python a.py",
        "n/a",
        "Fairness",
    ):
        assert words_ in parsed.text


def test_answers_stand_first_and_lead_to_their_section(page: str) -> None:
    body = page[page.index("<body>") :]
    box = body[body.index("In short") : body.index("<nav")]
    assert f"In one sentence {NASTY}" in Page(box).text and f"An answer {NASTY}" in Page(box).text
    assert Page(box).text.index("In one") < Page(box).text.index("An answer")
    # which answers nothing
    assert '<a href="#part-1">Fidelity</a>' in box and "Fairness" not in box
    bare = report.report_html([report.Section("a")], title="t", facts={})
    assert "In short" not in bare and 'class="sources"' not in bare


def test_sources_stand_below_their_heading(page: str) -> None:
    part = page[page.index('<h2 id="part-1"') : page.index('<h2 id="part-2"')]
    assert "<li>n: 2,160, 12</li>" in part and part.index("fingerprint") < part.index("Paragraph")
    other = report.report_html([report.Section("a", sources=["one line"])], title="t", facts={})
    assert "<li>one line</li>" in other


def test_long_tables_are_folded_and_words_stand_left() -> None:
    tables = [
        report.Shown(
            pd.DataFrame(
                {
                    "group": ["a"] * n,
                    "value": np.arange(n) / 7,
                    "why": ["-"] * n,
                    "none": [None] * n,
                }
            )
        )
        for n in (report.LONG_TABLE, report.LONG_TABLE + 1)
    ]
    page = report.report_html([report.Section("a", tables=tables)], title="t", facts={})
    assert page.count("<details>") == 1 and f"({report.LONG_TABLE + 1} rows)" in page
    assert page.index("<table>") < page.index("<details>")
    assert (
        page.count('<th scope="col" class="text">why</th>') == 2
        and page.count('<th scope="col">value</th>') == 2
    )
    assert (
        '<th scope="row">a</th>' in page
        and "<td>0.1429</td>" in page
        and '<td class="text">-</td>' in page
    )
    assert "<td>n/a</td>" in page


def test_numbers_of_any_float_type_have_four_digits() -> None:
    frame = pd.DataFrame(
        {"x": np.array([0.123456], np.float32), "y": [np.float64(2.000049)], "z": [7]}
    )
    assert "| 0.1235 | 2 | 7 |" in report.markdown(report.Shown(frame, "c"))


def test_the_page_names_a_missing_figure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent.png"):
        report.report_html(
            [report.Section("a", figures=[("b", tmp_path / "absent.png")])], title="t", facts={}
        )
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        report.data_uri(tmp_path / "a.gif")


def test_reporting_needs_no_torch_and_no_pyplot() -> None:
    code = "import sys, cmrstudy.figures, cmrstudy.report; print({'torch', 'matplotlib.pyplot'} & set(sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )
