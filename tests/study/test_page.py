"""The report opened in headless Chromium, on a phone, a desk and paper; driven over DevTools' pipe,
so nothing else is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmrdata.subjects import with_groups
from cmrstudy import figures, report
from support.fake_cohort import FakeCohort

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
PHONE, DESK = (390, 844), (1280, 900)  # CSS px
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium, google-chrome or chrome on the PATH"
)
MOVED = """import fcntl, os, sys  # Chromium listens at file descriptor 3 and answers at 4
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3), os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])"""
PROBE = """(() => {
  const root = document.documentElement, boxes = [...document.querySelectorAll('.scroll')];
  const outside = e => { const r = e.getBoundingClientRect(); return r.right > root.clientWidth + 1 || r.left < -1 };
  return JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth,
    images: [...document.images].map(i => [i.complete, i.naturalWidth, i.clientWidth]),
    outside: [...document.querySelectorAll('p, h1, h2, li, dd, summary, figure, figcaption, .scroll')].filter(outside).length,
    boxes: boxes.map(b => [b.scrollWidth > b.clientWidth, getComputedStyle(b).overflowX]),
    smallest: Math.min(...[...document.querySelectorAll('p, td, li, th')].map(e => parseFloat(getComputedStyle(e).fontSize))),
    targets: [...document.querySelectorAll('nav a')].every(a => document.querySelector(a.getAttribute('href'))),
    folded: [...document.querySelectorAll('details .scroll')].map(e => e.checkVisibility({contentVisibilityAuto: true}) && e.clientHeight),
    background: getComputedStyle(document.body).backgroundColor,
  }) })()"""


class Chromium:
    """A headless browser behind a pipe of null-ended JSON messages (--remote-debugging-pipe);
    `said` holds its events."""

    def __init__(self, profile: Path) -> None:
        theirs, self.out = os.pipe()
        self.inn, answers = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-extensions",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                MOVED,
                str(theirs),
                str(answers),
                str(BROWSER),
                *flags,
                "about:blank",
            ],
            pass_fds=(theirs, answers),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(answers)
        self.said: list[dict[str, Any]] = []
        self.rest, self.last, self.session = b"", 0, ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        self.last += 1
        session = {"sessionId": self.session} if self.session else {}
        os.write(
            self.out,
            json.dumps({"id": self.last, "method": method, "params": params, **session}).encode()
            + b"\0",
        )
        while (message := self._next()).get("id") != self.last:
            self.said.append(message)
        assert "error" not in message, (method, message)
        return message["result"]

    def _next(self, patience: float = 60.0) -> dict[str, Any]:
        until = time.monotonic() + patience
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.inn], [], [], max(0.0, until - time.monotonic()))
            if not ready or not (part := os.read(self.inn, 1 << 20)):
                raise TimeoutError(f"Chromium says nothing for {patience:.0f} s or has ended")
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(
        self,
        page: Path,
        size: tuple[int, int],
        *,
        phone: bool = False,
        media: str = "",
        scheme: str = "light",
    ) -> None:
        self(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=1,
            mobile=phone,
        )
        self(
            "Emulation.setEmulatedMedia",
            media=media,
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.said.clear()
        self("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.said):
            self.said.append(self._next())

    def run(self, expression: str) -> Any:
        found = self(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """The whole page as PNG, for eyes."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[Any]:
        """Errors and warnings of console and log, exceptions."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [event["params"] for event in self.said if event.get("method") in kinds]

    def requests(self) -> list[str]:
        """What the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.said
            if event.get("method") == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        try:
            self.session = ""
            self("Browser.close")
            self.process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.inn)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    opened = Chromium(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that could overflow: wide and long tables, long words, pictures of
    both kinds."""
    folder = tmp_path_factory.mktemp("report")
    subjects = with_groups(FakeCohort(count=72).subjects()[0])
    png, svg = figures.save(figures.demographics(subjects), folder / "demographics")
    wide = pd.DataFrame(
        np.random.default_rng(0).random((4, 20)), columns=[f"a column {k}" for k in range(20)]
    )
    wide.insert(0, "subgroup", ["Female, age in 60s, overweight, with heart failure"] * 4)
    long = pd.DataFrame(
        {"group": [f"F/60-70/obese/{k}" for k in range(60)], "value": np.arange(60) / 7}
    )
    tables = [
        report.Shown(
            wide,
            "A wide table whose caption is longer than a phone's screen " * 2,
            ["Only 12 images."],
        ),
        report.Shown(long, "A long table"),
    ]
    sections = [
        report.Section(
            "Is the classifier fairer?",
            ["A paragraph. " * 30],
            tables,
            [("Bars", png), ("Bars again", svg)],
            ["Underpowered."],
            {"command": "python evaluate.py", "fingerprint": "0123456789abcdef" * 8, "n": 2160},
            ["The gap is 0.05 [0.01, 0.09], n = 2,000."],
        ),
        report.Section("A heading_with_one_unbroken_word_" + "x" * 60, warnings=["y" * 120]),
    ]
    facts = {
        "command": ["python evaluate.py " + "override=value " * 20, "z" * 200],
        "date": "2024-01-02",
    }
    path = folder / "report.html"
    path.write_text(
        report.report_html(
            sections, title="Debiasing cardiac MRI: demo", facts=facts, summary=["In one sentence."]
        )
    )
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_the_page_fits_and_is_whole(
    browser: Chromium, page: Path, size: tuple[int, int], scheme: str
) -> None:
    browser.open(page, size, phone=size == PHONE, scheme=scheme)
    seen = json.loads(browser.run(PROBE))
    assert browser.complaints() == []
    assert seen["overflow"] <= 0 and seen["outside"] == 0
    assert len(seen["images"]) == 2 and all(
        done and natural > 0 and 100 < shown <= size[0] for done, natural, shown in seen["images"]
    )
    assert [wide for wide, _ in seen["boxes"]][0] and {how for _, how in seen["boxes"]} == {"auto"}
    assert seen["targets"] and seen["smallest"] >= 12 and seen["folded"] == [False]
    assert seen["background"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 24, 26)"}[scheme]


def test_the_page_asks_for_nothing_from_outside(browser: Chromium, page: Path) -> None:
    browser.open(page, DESK)
    asked = browser.requests()
    assert page.as_uri() in asked and all(
        url == page.as_uri() or url.startswith("data:") for url in asked
    )
    browser.run(
        "document.body.append(Object.assign(new Image(), {src: 'http://example.org/a.png'}))"
    )
    browser.run("new Promise(done => setTimeout(done, 50))")
    # what is smuggled in is not fetched either
    assert "Content Security Policy" in str(browser.complaints())


def test_print_shows_folded_tables_and_hides_the_contents(browser: Chromium, page: Path) -> None:
    browser.open(page, (720, 1000), media="print", scheme="dark")
    seen = json.loads(browser.run(PROBE))
    assert (
        seen["folded"][0] > 500
        and seen["overflow"] <= 0
        and seen["background"] == "rgb(255, 255, 255)"
    )
    for name in ("nav", "summary"):  # a caption says what the summary says
        assert browser.run(f"getComputedStyle(document.querySelector('{name}')).display") == "none"
    printed = base64.b64decode(browser("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF") and browser.complaints() == []
