"""benchmarks/gpu.py keeps what it has: lines of a part that fails or takes too long, the parts after
it, and no process on the card. With made-up parts."""

from __future__ import annotations

import importlib.util
import os
import re
import time
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

WORKER = """import subprocess, sys, time
part = sys.argv[1]
print(f"| {part} | {sys.argv[2:]} |", flush=True)
if part == "drawing":
    sys.exit("the folder HOME is no place")
if part == "training":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open("HOME/child", "w").write(str(child.pid))
    print("| half a table |", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script with other parts behind it."""
    path = ROOT / "benchmarks" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_benchmark", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.replace("HOME", str(tmp_path)))
    monkeypatch.setattr(module, "WORKER", worker)
    monkeypatch.setattr(module, "LEAST", 0)
    return module


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    # one that has ended and waits to be asked for
    return "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()


def test_a_part_that_takes_too_long_leaves_its_lines_and_nothing_that_runs(gpu, tmp_path):
    out = tmp_path / "gpu.md"
    ill = gpu.record(
        out, "# head\n", parts=["training", "table1"], options=["--tiny"], slack=2 / 120
    )
    text = out.read_text()
    assert ill == ["training"]
    assert "not at its end within 2 s" in text and "| half a table |" in text
    assert "| table1 | ['--tiny'] |" in text  # the next ran
    child = int((tmp_path / "child").read_text())
    for _ in range(50):
        if not alive(child):
            break
        time.sleep(0.1)
    assert not alive(child)


def test_a_part_that_fails_says_why_without_a_place_of_this_machine(gpu, tmp_path):
    out = tmp_path / "gpu.md"
    parts = ["drawing", "classifier"]
    ill = gpu.record(out, "# head\n", parts=parts, options=[], hidden=[str(tmp_path)])
    text = out.read_text()
    assert ill == ["drawing"] and text.startswith("# head\n")
    assert "failed with exit status 1" in text and "the folder ... is no place" in text
    assert str(tmp_path) not in text and "| classifier | [] |" in text


def test_what_no_longer_fits_is_named_and_not_begun(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LEAST", 10)
    out = tmp_path / "gpu.md"
    assert gpu.record(out, "", parts=["table1"], options=[], total=5) == ["table1"]
    assert "not begun: the 5 s of all parts were over" in out.read_text()
    assert "| table1 |" not in out.read_text()


def test_every_part_is_worked_and_the_limits_fit_ten_minutes(gpu):
    worked = (ROOT / "benchmarks" / "gpu_parts.py").read_text()
    names = re.findall(r'^    "(\w+)": (\w+),$', worked.partition("PARTS: dict")[2], re.MULTILINE)
    assert [name for name, _ in names] == ["machine", *gpu.PARTS]
    assert all(f"\ndef {function}(at: Setting)" in worked for _, function in names)
    assert sum(part.seconds for name, part in gpu.PARTS.items() if name != "hearts") <= 600
    assert gpu.PARTS["hearts"].seconds <= 300 and list(gpu.PARTS)[-1] == "hearts"


def test_the_page_names_every_part_and_its_limit(gpu):
    page = (ROOT / "docs" / "results" / "gpu.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.MULTILINE)
    assert rows == [(name, str(part.seconds)) for name, part in gpu.PARTS.items()]
