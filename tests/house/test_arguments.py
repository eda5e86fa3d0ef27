"""An argument that repeats its default says nothing, and hides that somebody has turned it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import ROOT

# function or method -> keyword -> its default
DEFAULTS: dict[str, dict[str, bool]] = {
    "concat": {"ignore_index": False},
    "dataclass": {"frozen": False, "order": False},
    "dumps": {"sort_keys": False},
    "field": {"compare": True, "repr": True},
    "groupby": {"dropna": True, "sort": True},
    "itertuples": {"index": True},
    "legend": {"frameon": True},
    "log": {"prog_bar": False, "sync_dist": False},
    "log_dict": {"prog_bar": False, "sync_dist": False},
    "mkdir": {"exist_ok": False, "parents": False},
    "multinomial": {"replacement": False},
    "print": {"flush": False},
    "read_csv": {"keep_default_na": True},
    "reset_index": {"drop": False},
    "rmtree": {"ignore_errors": False},
    "safe_dump": {"sort_keys": True},
    "save_hyperparameters": {"logger": True},
    "sort_values": {"ascending": True},
    "sorted": {"reverse": False},
    "subplots": {"squeeze": True},
    "to_csv": {"index": True},
    "to_parquet": {"index": True},
    "to_string": {"index": True},
    "unique": {"return_counts": False, "return_index": False, "return_inverse": False},
    "unlink": {"missing_ok": False},
    **dict.fromkeys(("mean", "norm", "nansum", "sum"), {"keepdim": False, "keepdims": False}),
}


def repeated(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each argument that is what it would be without."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        usual = DEFAULTS.get(name, {})
        for given in node.keywords:
            value = getattr(given.value, "value", None)
            if given.arg in usual and value is usual[given.arg]:
                yield node.lineno, f"{name}({given.arg}={value})"


def test_no_argument_repeats_its_default() -> None:
    paths = [*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in paths
        for line, text in repeated(Path(path).read_text())
    ]
    assert len(paths) > 200 and not found


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("print(1, flush=False)", True),
        ("print(1, flush=True)", False),
        ("table.to_csv(path, index=True)", True),
        ("x = rows.mean(keepdims=keep)", False),
        ("other(flush=False)", False),
    ],
)
def test_a_repeated_default_is_seen(source: str, wrong: bool) -> None:
    assert bool([*repeated(source)]) is wrong
