"""The documentation is a site without a warning: no dead link, no page that nobody finds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support import ROOT


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {
        path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")
    }
    assert pages == {
        path.relative_to(tmp_path).with_suffix("") for path in tmp_path.rglob("*.html")
    } - {path.relative_to(tmp_path).with_suffix("") for path in [tmp_path / "404.html"]}
    reference = (tmp_path / "reference.html").read_text()
    assert 'id="cmrdata.protocol.Cohort"' in reference
    for page in tmp_path.rglob("*.html"):
        assert "fonts.googleapis" not in page.read_text(), "a page asks a foreign server"
