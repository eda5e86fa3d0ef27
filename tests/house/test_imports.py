"""The picture of imports in docs/architecture.md, kept true: floors, no circle, one address for
each name."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support import ROOT

SRC = ROOT / "src"
FILES = {
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SRC.glob("cmr*/**/*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
PACKAGES = ("cmrdata", "cmrstudy", "cmrgen", "cmrcls")
# part of a package -> parts of ours that it may import beside itself
FLOORS = {
    "cmrdata": (),
    "cmrstudy": ("cmrdata",),
    "cmrcls.fairness": ("cmrdata", "cmrstudy"),
    "cmrcls": ("cmrdata", "cmrstudy"),
    "cmrgen.base": ("cmrdata", "cmrstudy", "cmrgen.diffusion"),
    "cmrgen.plan": ("cmrdata", "cmrstudy", "cmrgen.prompts"),
    "cmrgen": ("cmrdata", "cmrstudy"),
}
ABOVE = ("cmrgen.evaluation", "cmrgen.app", "cmrgen.tasks")  # parts that no other of cmrgen imports


def imports(name: str, *, running: bool = False) -> Iterator[tuple[str, str | None]]:
    """(module, name) of what a module imports of ours; `running`: at its import alone."""
    hidden = {
        id(node)
        for block in ast.walk(TREES[name])
        if (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test))
        or (running and isinstance(block, ast.FunctionDef))
        for node in ast.walk(block)
    }
    for node in ast.walk(TREES[name]):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom) and node.module in FILES:
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                yield (below, None) if below in FILES else (node.module, alias.name)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down(name):
    floor = next((part for part in FLOORS if within(name, part)), None)
    if floor is None:
        pytest.skip("a command")
    allowed = (floor, *FLOORS[floor])
    above = [part for part in ABOVE if not within(name, part)] if "cmrgen" in name else []
    if name == "cmrgen.app" or within(name, "cmrgen.app"):
        above.remove("cmrgen.evaluation")
    for module, _ in imports(name):
        assert any(within(module, part) for part in allowed), f"{name} imports {module}"
        assert not any(within(module, part) for part in above), f"{name} imports {module}"


def test_no_module_is_imported_in_a_circle():
    graph = {name: {module for module, _ in imports(name, running=True)} for name in FILES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(FILES)


def defined(name: str) -> set[str]:
    """Names that a module makes itself."""
    names = set()
    for node in TREES[name].body:
        nodes = [node, *getattr(node, "body", [])] if isinstance(node, ast.If | ast.Try) else [node]
        for each in nodes:
            if isinstance(each, ast.FunctionDef | ast.ClassDef):
                names.add(each.name)
            elif isinstance(each, ast.Assign | ast.AnnAssign):
                names |= {part.id for part in ast.walk(each) if isinstance(part, ast.Name)}
    return names


@pytest.mark.parametrize("name", FILES)
def test_a_name_is_imported_from_where_it_is_defined(name):
    for module, imported in imports(name):
        assert imported is None or imported in defined(module), f"{name}: {module}.{imported}"


def public_functions(package: str) -> list[tuple[str, str]]:
    return [
        (node.name, name)
        for name in FILES
        if within(name, package)
        for node in TREES[name].body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_public_functions_of_a_package_share_a_name(package):
    count = Counter(name for name, _ in public_functions(package))
    twice = sorted((name, at) for name, at in public_functions(package) if count[name] > 1)
    assert not twice


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_named_as_a_module_elsewhere(package):
    modules = {at: at.rsplit(".", 1)[-1] for at in FILES if within(at, package)}
    others = {at: {leaf for place, leaf in modules.items() if place != at} for at in modules}
    assert not [(name, at) for name, at in public_functions(package) if name in others[at]]


def test_the_commands_are_short():
    commands = [Path(ROOT / f"{name}.py") for name in ("train", "generate", "evaluate")]
    assert sum(len(path.read_text().splitlines()) for path in commands) <= 330
