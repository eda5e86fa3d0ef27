"""`cmr train ...` is `python train.py ...` from whatever folder, in a checkout and from a wheel."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from cmrstudy.program import PROGRAM

USAGE = """cmr <command> [key=value ...]

  cmr train experiment=<name>   inspect a cohort; train a base, a ControlNet or a classifier; export
  cmr generate                  draw a synthetic set with a trained ControlNet
  cmr evaluate                  tables, figures and one report of what is finished
{app}
data/, runs/ and results/ lie in the folder where a command is given (docs/paths.md); a conf/ of your own there is
found. `cmr train`, and any command with --help, tells more."""
APP = "  cmr app generator=<folder>    a page to draw images by hand\n"
COMMANDS = ("train", "generate", "evaluate")


def main() -> None:
    """Hands over to the command's own file, in the same process: Ctrl-C, exit status and processes
    started by Lightning are the command's."""
    has_app = find_spec("cmrgen.app") is not None
    name, *given = sys.argv[1:] or [""]
    if name in COMMANDS:
        _become([str(PROGRAM / f"{name}.py"), *given])
    if name == "app" and has_app:
        _become(["-m", "cmrgen.app", *given])
    usage = USAGE.format(app=APP if has_app else "")
    if name in ("-h", "--help"):
        print(usage)
    else:
        wrong = f"error: cmr has no command {name!r}\n\n" if name else ""
        sys.exit(wrong + usage)


def _become(words: Sequence[str]) -> None:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
