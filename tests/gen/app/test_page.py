"""The page itself: what it offers to whom, and a visit in headless Chromium."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cmrdata.store import Store
from support import ROOT

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
SOON = 5.0  # s until the command says what it does
PATIENCE = 60_000  # ms
needs_gradio = pytest.mark.skipif(find_spec("gradio") is None, reason="needs the extra app")
needs_browser = pytest.mark.skipif(
    BROWSER is None or find_spec("playwright") is None, reason="needs Chromium and playwright"
)


@needs_gradio
@pytest.mark.parametrize(
    ("phantom", "local", "offered"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_masks_of_real_people_are_offered_on_this_machine_alone(
    run: Path, cohort: Store, tmp_path: Path, monkeypatch, phantom, local, offered
):
    from cmrgen.app import page
    from cmrgen.app.answers import Chosen, Preparation
    from cmrgen.app.studio import Studio, open_studio

    studio = open_studio(run, data_root=cohort.folder.parent, device="cpu")
    monkeypatch.setattr(Studio, "phantom", phantom)
    blocks = page.make_page(studio, Preparation(studio, tmp_path), run="runs/x/0", local=local)
    config = blocks.get_config_file()
    parts = {of["props"].get("elem_id"): of["props"] for of in config["components"]}
    groups = {value for _, value in parts["group"]["choices"]}
    assert groups == ({"", *studio.groups()} if offered else {""})
    sent = re.sub(r"\s", "", str(config))
    own = {page.masks.encoded(studio.mask(row)) for row in studio.rows.index}
    assert any(mask in sent for mask in own) is offered
    assert not any(name in sent for name in cohort.index.subject.unique())
    # nothing but the page itself calls what the page calls
    assert {of["api_visibility"] for of in config["dependencies"]} == {"private"}

    known = studio.heart(studio.groups()[0], 1).attributes if offered else None
    assert (parts["age"].get("value") or "") == (
        str(int(known["age"])) if known else ""
    )  # nothing, not 0
    choose = next(of.fn for of in blocks.fns.values() if of.name == "<lambda>" and of.inputs[1:])
    said = choose(studio.groups()[0], Chosen(page.masks.usual_heart(studio.pixels, mm=None)))
    assert ("on this machine alone" in said[-1]) is not offered


class Visit:
    """A page in a browser, and what its console says."""

    def __init__(self, page: Any) -> None:
        self.page, self.faults = page, list[str]()
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if not re.match(r"http://127\.0\.0\.1:|data:|blob:", request.url):
            self.faults.append(f"asks {request.url}")

    def says(self, place: str, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(place)).to_contain_text(text, timeout=PATIENCE)

    def paints(self, label: int, canvas: int, *, at: tuple[float, float], to: tuple[float, float]):
        """A stroke; places are shares of the picture, from above left."""
        self.page.click(f"#painter [data-label='{label}']")
        box = self.page.locator("#painter canvas").nth(canvas).bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (at, to)]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        self.page.mouse.move(*places[1], steps=8)
        self.page.mouse.up()

    def number(self, place: str, value: str) -> None:
        field = self.page.locator(f"{place} input, {place} textarea").first
        field.fill(value)
        field.press("Tab")


@pytest.fixture(scope="module")
def served(
    run: Path, cohort: Store, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The command's address, and the folder where it keeps what it writes."""
    scratch = tmp_path_factory.mktemp("scratch")
    source = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    began = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "cmrgen.app", f"generator={run}", f"data_root={cohort.folder.parent}"),
            *("port=17860", "device=cpu"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": source, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    try:
        # a busy machine may take as long to start Python alone
        assert select.select([process.stdout], [], [], 4 * SOON)[0]
        first = process.stdout.readline() + process.stdout.readline()
        print(f"said what it does after {time.monotonic() - began:.1f} s")
        address = re.search(r"http://127\.0\.0\.1:\d+", first)
        assert address and cohort.folder.name in first
        while "ready after" not in (line := process.stdout.readline()):
            assert line, f"it ended with {process.wait()}"
        yield address[0], scratch
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
    assert list(scratch.iterdir()) == []  # nothing stays behind


@pytest.fixture
def visit(served: tuple[str, Path]) -> Iterator[Visit]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        there = Visit(browser.new_page(viewport={"width": 1280, "height": 1200}))
        there.page.goto(served[0])
        there.page.wait_for_selector("#painter canvas", timeout=PATIENCE)
        there.says("#prompt", "The generator reads")
        yield there
        browser.close()


PIXELS = """place => { const c = document.querySelectorAll('#painter canvas')[place];
  return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].join() }"""
SOURCE = "() => document.querySelector('#shown .tile img').src"


def picture(page: Any) -> str:
    return page.evaluate(SOURCE)


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_paint_choose_draw_and_the_image_appears(visit: Visit, served, cohort: Store):
    before = {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")}
    page = visit.page
    visit.page.locator("#ef input[type=number]").fill("30")
    visit.page.locator("#ef input[type=number]").press("Enter")
    visit.says("#numbers", "slice 30 %")
    ed, es = (page.evaluate(PIXELS, place) for place in (0, 1))
    visit.paints(3, 0, at=(0.1, 0.9), to=(0.3, 0.9))
    page.wait_for_function(f"old => ({PIXELS})(0) !== old", arg=ed)
    painted = page.evaluate(PIXELS, 0)
    assert page.evaluate(PIXELS, 1) == es  # a stroke stays on its canvas
    page.locator("#sex").get_by_text("female", exact=True).click()
    visit.number("#age", "66")
    visit.number("#bmi", "33")
    page.locator("#diagnosis").get_by_text("heart failure").click()
    visit.says("#prompt", "Female, age in 60s, obese BMI, with heart failure")
    page.click("#draw")
    page.wait_for_selector("#shown .result article", timeout=PATIENCE)
    assert (
        page.locator("#shown .tile img").count() == 6
    )  # ED, ES, each with outlines; two that beat
    loaded = "all => all.every(i => i.complete && i.naturalWidth > 0)"
    assert page.locator("#shown .tile img").evaluate_all(loaded)
    visit.says("#seen", "Dice")
    visit.says("#seen", "Similarity to the nearest training image")
    assert page.evaluate(PIXELS, 0) == painted  # what was painted is still there
    seed, first = page.locator("#seed input, #seed textarea").first, picture(page)
    for number, same in (("1", False), ("0", True)):  # the same seed gives the same image
        last = picture(page)
        seed.fill(number)
        page.click("#draw")
        page.wait_for_function(f"old => ({SOURCE})() !== old", arg=last, timeout=PATIENCE)
        assert (picture(page) == first) is same
    page.click("#vary input")
    page.get_by_role("option", name="ejection fraction").click()
    page.click("#draw")
    page.wait_for_selector("#shown .several article:nth-of-type(4)", timeout=PATIENCE)
    visit.says("#seen .many", "EF 65 %")
    assert visit.faults == []
    assert {path: path.stat().st_mtime_ns for path in cohort.folder.rglob("*")} == before


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_bad_input_gives_a_message_and_stop_stops(visit: Visit):
    page = visit.page
    for place, bad, told, good in (
        ("#age", "300", "age is 300.0: it takes numbers from 0 to 120", "60"),
        ("#bmi", "3", "bmi is 3.0: it takes numbers from 12 to 70", ""),
    ):
        visit.number(place, bad)
        visit.says("#told", told)
        visit.number(place, good)
    page.locator("#seed input, #seed textarea").first.fill("seven")
    page.click("#draw")
    visit.says("#told", "seed is 'seven'; give a whole number")
    page.locator("#seed input, #seed textarea").first.fill("7")
    page.click("#painter [data-do=clear]")
    page.click("#draw")
    visit.says("#told", "ED: no LV cavity and no myocardium labelled. Paint an LV")
    page.click("#undo")
    visit.says("#numbers", "wall")
    page.click("#sampler button")
    visit.number("#steps", "200")
    page.click("#draw")
    page.get_by_text(re.compile("step [0-9]+ of 200")).first.wait_for(timeout=PATIENCE)
    page.click("#stop")
    visit.says("#told", "Stopped.")
    visit.number("#steps", "3")
    began = time.monotonic()
    page.click("#draw")
    page.wait_for_selector("#shown .result article", timeout=PATIENCE)
    assert time.monotonic() - began < 30  # the stopped one does not go on
    assert visit.faults == []


@needs_gradio
@needs_browser
@pytest.mark.slow
def test_nobody_gets_a_file_or_calls_a_function(served: tuple[str, Path], cohort: Store, run: Path):
    address, scratch = served
    for place in (cohort.folder / "images.u8", run / "config.yaml", Path("/etc/passwd")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/gradio_api/file={place}")
        assert refused.value.code in (403, 404)
    for host, status in (("evil.example", 400), ("evil.example:17860", 400), ("localhost", 200)):
        asked = urllib.request.Request(address, headers={"Host": host})
        try:
            answer = urllib.request.urlopen(asked).status
        except urllib.error.HTTPError as error:
            answer = error.code
        assert answer == status, host  # a name that someone lets point at this machine
    info = urllib.request.urlopen(f"{address}/gradio_api/info").read().decode()
    assert '"named_endpoints":{}' in info.replace(" ", "")


@needs_gradio
def test_a_password_stands_before_everything(run: Path, cohort: Store, tmp_path: Path, monkeypatch):
    from cmrgen.app import __main__ as command
    from cmrgen.app.studio import Studio

    monkeypatch.setattr(Studio, "train_critics", lambda self, scratch: None)
    settings = command.Settings(str(run), device="cpu")
    port = command.free_port("127.0.0.1", 17900)
    blocks = command._launch(
        settings, run, cohort.folder.parent, tmp_path, port=port, password="a long password"
    )
    address = f"http://127.0.0.1:{port}"

    def status(place: str, *, cookie: str = "", **form: str) -> tuple[int, str]:
        data = urllib.parse.urlencode(form).encode() if form else None
        asked = urllib.request.Request(address + place, data, headers={"Cookie": cookie})
        try:
            answer = urllib.request.urlopen(asked)
        except urllib.error.HTTPError as error:
            return error.code, ""
        cookies = [of.split(";")[0] for of in answer.headers.get_all("Set-Cookie") or ()]
        return answer.status, "; ".join(cookies)

    try:
        assert status("/config")[0] == 401
        assert status("/login", username="anyone", password="a wrong password")[0] == 400
        assert status("/config", cookie="access-token=guessed")[0] == 401
        entered, cookie = status("/login", username="anyone", password="a long password")
        assert entered == 200 and status("/config", cookie=cookie)[0] == 200
    finally:
        blocks.close(verbose=False)
