"""Calls that would lose or change something without a word, were one argument otherwise: it is the
same in every place, for the reason beside it."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from support import ROOT

# (function, keyword): what it is wherever it is given
ALWAYS = {
    ("concat", "ignore_index"): True,  # rows of two tables may have one number, and .loc takes both
    ("dataclass", "frozen"): True,  # what two places hold does not change under one of them
    ("dumps", "indent"): 1,  # a record is read by people, and small
    ("dumps", "sort_keys"): True,  # the same content is the same bytes
    ("load", "weights_only"): True,  # reading runs no code
    ("log", "sync_dist"): True,  # a metric of several processes is that of all of them
    ("mkdir", "exist_ok"): True,  # two processes may make it at once
    ("mkdir", "parents"): True,
    ("print", "flush"): True,  # a job's log has the line when it is killed
    ("read_csv", "keep_default_na"): False,  # "NA" and "None" are texts
    ("reset_index", "drop"): True,  # no column that nobody named
    ("rmtree", "ignore_errors"): True,  # what is gone already is gone
    ("save_hyperparameters", "logger"): False,  # a dashboard has the config, without places
    ("std", "ddof"): 1,  # of a sample
    ("subplots", "squeeze"): False,  # axes of one row are a row
    ("to_csv", "index"): False,
    ("to_parquet", "index"): False,
    ("unlink", "missing_ok"): True,  # another process may have been faster
    ("var", "ddof"): 1,
    ("zip", "strict"): True,  # what has no partner is a mistake
}
# a file of many short rows, and one of another program
OTHER_INDENT = {"ejection.py": 0, "withdraw.py": 0, "diffusers_folder.py": 2}
# files where a pair may lack its partner: panels that stay empty, layers and the next ones
SHORTEST = {"figures.py", "networks.py", "two_sample.py", "paths.py", "cohort.py"}


def calls(path: Path) -> Iterator[tuple[str, str, object]]:
    """(function, keyword, value) of each constant that a call is given by name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            name = "dumps" if name == "dump" else name
            for keyword in node.keywords:
                if keyword.arg and isinstance(keyword.value, ast.Constant):
                    yield name, keyword.arg, keyword.value.value


def test_an_argument_that_would_lose_something_is_the_same_everywhere():
    places: Counter[tuple[str, str]] = Counter()
    other = []
    for path in sorted([*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.py")]):
        for name, keyword, value in calls(path):
            if (name, keyword) in ALWAYS and not (name == "zip" and path.name in SHORTEST):
                places[name, keyword] += 1
                other_indent = keyword == "indent" and value == OTHER_INDENT.get(path.name)
                if value is not ALWAYS[name, keyword] and not other_indent:
                    other.append(f"{path.name}: {name}({keyword}={value})")
    assert not other
    assert min(places[call] for call in ALWAYS) > 2  # what nobody calls needs no rule
