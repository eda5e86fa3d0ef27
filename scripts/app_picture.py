"""Make docs/images/app.png anew: the interactive page after a drawing, as Chromium shows it.

    python scripts/app_picture.py generator=runs/demo/controlnet/0 [data_root=data]

It takes what `python -m cmrgen.app` takes, and needs the extra app, playwright and Chromium. Judges
that evaluate.py has left beside the cohort's store are used, so give it after `make demo`.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "app.png"
SIZE = {"width": 1360, "height": 1040}
GROUP = "male · 70+ · normal · heart failure"
PATIENCE = 300_000  # ms
COLOURS = 128  # of the palette: a third of the bytes


def main() -> None:
    command = [sys.executable, "-m", "cmrgen.app", *sys.argv[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            told = ""
            while "ready after" not in told:
                if not (line := server.stdout.readline()):
                    sys.exit(f"error: the page did not open: {told}")
                told += line
            address = re.search(r"http://127\.0\.0\.1:\d+", told)
            assert address
            picture = Image.open(io.BytesIO(shown(address[0]))).convert("RGB")
            picture.quantize(COLOURS).save(PICTURE, optimize=True)
            print(PICTURE)
        finally:
            server.terminate()
            server.communicate()  # what it says when it closes


def shown(address: str) -> bytes:
    """The page as a PNG, after its heart of GROUP was drawn and judged."""
    browsers = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
    path = next(filter(None, browsers), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE)
        page.goto(address)
        page.wait_for_selector("#painter canvas", timeout=PATIENCE)
        page.click("#group input")
        page.get_by_role("option", name=GROUP, exact=True).click()
        page.get_by_text("age in 70s, normal BMI, with heart failure").first.wait_for(
            timeout=PATIENCE
        )
        page.click("#draw")
        page.wait_for_selector("#shown .result article", timeout=PATIENCE)
        page.get_by_text("Similarity to the nearest").first.wait_for(timeout=PATIENCE)
        image: bytes = page.screenshot()
        browser.close()
        return image


if __name__ == "__main__":
    main()
