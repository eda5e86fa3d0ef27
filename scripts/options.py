"""Writes docs/options.md, every setting with its default and its comment, from conf/.

python scripts/options.py            writes it; a test says when that is due
python scripts/options.py --check    exit status 1 where it differs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HOUSE = Path(__file__).parents[1]
CONF, PAGE = HOUSE / "conf", HOUSE / "docs" / "options.md"
COMMANDS = ("train", "generate", "evaluate")
SETTING = re.compile(
    r"^(?P<indent> *)(?P<key>[\w.-]+):(?: +(?P<value>[^#]*?))? *(?:# (?P<comment>.*))?$"
)
INTRODUCTION = """# Every setting

Made from `conf/` by `scripts/options.py`; change the comments there. A setting is given as `key=value`, a choice as `group=option`, a new key
as `+key=value`, several values as `-m key=a,b`. The first table of a command has its own settings; then come the groups, with the settings of each
option. `...` stands for a value that is computed from other settings; `--cfg job --resolve` shows it.
"""


def first_comment(lines: Sequence[str]) -> str:
    return next(
        (line.lstrip("# ") for line in lines if line.startswith("#") and "@package" not in line), ""
    )


def settings(lines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """(dotted key, default, comment) of every leaf; a comment behind a key with leaves of its own
    goes with the first."""
    parents: list[tuple[int, str]] = []
    inherited = ""
    for k, line in enumerate(lines):
        match = SETTING.match(line)
        if not match or match["key"] == "defaults":
            continue
        indent, key = len(match["indent"]), match["key"]
        parents = [(depth, name) for depth, name in parents if depth < indent]
        dotted = ".".join([*(name for _, name in parents), key])
        following = next((later for later in lines[k + 1 :] if later.strip()), "")
        comment = match["comment"] or ""
        if not match["value"] and len(following) - len(following.lstrip()) > indent:
            if not following.lstrip().startswith("- "):
                parents.append((indent, key))
                inherited = comment
                continue
            match_value = "[...]"
        else:
            match_value = match["value"] or "null"
        if key in ("_target_", "_convert_", "_partial_") or key.startswith("_"):
            continue
        yield dotted, "..." if "${" in match_value else match_value, comment or inherited
        inherited = ""


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = [
        f"| `{key}` | `{default}` | {comment.replace('|', chr(92) + '|')} |"
        for key, default, comment in rows
    ]
    return "\n".join(["| setting | default | |", "|---|---|---|", *lines])


def page() -> str:
    parts = [INTRODUCTION]
    for command in COMMANDS:
        lines = (CONF / f"{command}.yaml").read_text().splitlines()
        own = [
            row
            for row in settings(lines)
            if not row[0].startswith(("hydra", "name", "run_dir", "task", "unused"))
        ]
        parts.append(f"## {command}.py\n\n{first_comment(lines)}\n\n{table(own)}")
    for folder in sorted(
        path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "local")
    ):
        parts.append(f"## {folder.name}=\n")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem.startswith("_"):
                continue
            lines = path.read_text().splitlines()
            prefix = "" if any("@package _global_" in line for line in lines) else f"{folder.name}."
            rows = [
                (f"{prefix}{key}", default, comment) for key, default, comment in settings(lines)
            ]
            told = first_comment(lines)
            parts.append(
                "\n\n".join(
                    [
                        f"### {folder.name}={path.stem}",
                        *([told] if told else []),
                        *([table(rows)] if rows else []),
                    ]
                )
            )
    launchers = sorted((CONF / "hydra" / "launcher").glob("*.yaml"))
    parts.append(
        "## hydra/launcher=, hydra/sweeper=\n\n"
        + "\n".join(
            f"- `hydra/{path.parent.name}={path.stem}`: {first_comment(path.read_text().splitlines())}"
            for path in [*launchers, *sorted((CONF / "hydra" / "sweeper").glob("*.yaml"))]
        )
        + "\n\n[sweeps.md](sweeps.md) tells how they are used."
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main() -> None:
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/options.md is not what conf/ says: python scripts/options.py")
        return
    PAGE.write_text(page())
    print(PAGE)


if __name__ == "__main__":
    main()
