"""Where a base comes from: one file reads each kind, and no module imports whoever imports it."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from support import ROOT

SRC = ROOT / "src"


def named(path: Path) -> str:
    return ".".join(path.relative_to(SRC).with_suffix("").parts)


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & modules


def test_imports_make_no_circle():
    files = {named(path): path for path in SRC.glob("cmr*/**/*.py")}
    imports = {name: imported(path, set(files)) for name, path in files.items()}
    order = list(TopologicalSorter(imports).static_order())  # CycleError names a circle
    base = "cmrgen.base."
    assert order.index(f"{base}frozen") < order.index(f"{base}stable_diffusion")
    readers = {f"{base}{name}" for name in ("frozen", "small", "stable_diffusion", "weights")}
    assert imports[f"{base}load"] == readers
