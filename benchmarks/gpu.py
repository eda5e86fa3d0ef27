"""What a GPU does with this program: one command for the day a card is at hand.

    python benchmarks/gpu.py --out gpu.md                      # on a GPU; SD 2.1's architecture, random weights
    python benchmarks/gpu.py --acdc ../shared/data/acdc        # with real hearts, last
    python benchmarks/gpu.py --tiny                            # the rehearsal, on a CPU, with the small base
    python benchmarks/gpu.py --parts training compiled         # some parts
    python benchmarks/gpu_parts.py drawing                     # one part, to the terminal

No network and no weights are needed; docs/results/gpu.md says what each part measures. Parts run
in the order of their worth, each in a process of its own with its own limit of seconds. A part's
lines are in the file as soon as it ends. One that fails or takes too long leaves the lines that it
had written, and what it said last; the next part runs all the same.

This file has the limits and the record, and imports nothing heavy; gpu_parts.py has the work.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("gpu_parts.py")
TOTAL = 660  # seconds of all parts together
LEAST = 10  # seconds under which a part is not begun
SAID = 1200  # characters of a failed part's last words


class Part(NamedTuple):
    """A part's heading in the record, and its limit."""

    title: str
    seconds: int


# in the order of their worth
PARTS = {
    "exactness": Part("It runs: grey levels against the CPU's", 35),
    "commands": Part("It runs: the commands, and a training resumed", 80),
    "training": Part("Training: diffusers' recipe and ours", 120),
    "presets": Part("Training: memory of the presets", 60),
    "compiled": Part("Training: torch.compile", 75),
    "drawing": Part("Drawing: the stock pipeline and ours", 90),
    "too_small": Part("Drawing: memory that is too small", 30),
    "classifier": Part("Classifier: an epoch at 224 px", 55),
    "table1": Part("Table 1 at 4,000 images", 55),
    "hearts": Part("Real hearts: ACDC at 128 px", 300),
}


class Outcome(NamedTuple):
    """What a part left behind: its lines, its seconds, how it ended, and its last words if ill."""

    text: str
    seconds: float
    state: str = ""
    said: str = ""

    def without(self, places: Sequence[str]) -> Outcome:
        """The same with places of this machine left out of its words."""
        text, said = self.text, self.said
        for place in places:
            text, said = text.replace(place, "..."), said.replace(place, "...")
        return self._replace(text=text, said=said)

    def section(self, title: str) -> str:
        """Its section of the record."""
        took = f"{self.seconds:.0f} s{', ' if self.state else ''}{self.state}"
        said = f"\n```text\n{self.said}\n```\n" if self.said else ""
        return f"\n## {title} ({took})\n\n{self.text}\n{said}"


def environment() -> dict[str, str]:
    """This process's, with our sources found where nothing is installed."""
    paths = [str(HOUSE / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def ended(command: Sequence[str], *, limit: float) -> Outcome:
    """Run a command for at most `limit` seconds; then it and all that it started are ended."""
    begun, state = time.monotonic(), ""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, env=environment(), start_new_session=True
        )
        try:
            code = process.wait(timeout=max(0.0, limit))
            state = f"failed with exit status {code}" if code else ""
        except subprocess.TimeoutExpired:
            state = f"not at its end within {limit:.0f} s"
        finally:  # an interruption, too, leaves nothing on the card
            _end(process)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace").strip())
    took = time.monotonic() - begun
    return Outcome(texts[0], took, state, texts[1][-SAID:] if state else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def record(
    out: Path,
    head: str,
    *,
    parts: Sequence[str],
    options: Sequence[str],
    hidden: Sequence[str] = (),
    slack: float = 1.0,
    total: float = TOTAL,
) -> list[str]:
    """Run the parts and write the record anew after each.

    Args:
        out: the file.
        head: what stands above the parts.
        parts: names of PARTS, in order.
        options: handed on to each part.
        hidden: places of this machine, which the record does not name.
        slack: times the limits, for a slow machine.
        total: seconds of all parts; what no longer fits is named and not begun.

    Returns:
        The parts that failed, ran out of time or were not begun.
    """
    begun, pages, ill = time.monotonic(), [head], list[str]()
    _write(out, pages)
    for name in parts:
        title, seconds = PARTS[name]
        limit = min(seconds * slack, total - (time.monotonic() - begun))
        if limit < LEAST:
            outcome = Outcome("", 0.0, f"not begun: the {total:.0f} s of all parts were over")
        else:
            outcome = ended([sys.executable, str(WORKER), name, *options], limit=limit)
            outcome = outcome.without(hidden)
        if outcome.state:
            ill.append(name)
        pages.append(outcome.section(title))
        _write(out, pages)
        print(f"{name}: {outcome.seconds:.0f} s {outcome.state}".rstrip(), flush=True)
    return ill


def _write(out: Path, pages: Sequence[str]) -> None:
    beside = out.with_name(f".{out.name}.unfinished")
    beside.write_text("".join(pages))
    os.replace(beside, out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    parser.add_argument("--tiny", action="store_true", help="the small base, few steps, any device")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="by default all")
    parser.add_argument("--acdc", type=Path, help="ACDC's folder, or a data_root with its store")
    parser.add_argument("--work", type=Path, help="where runs on real hearts stay; else removed")
    parser.add_argument("--slack", type=float, default=1.0, help="times the limits of seconds")
    parser.add_argument("--total", type=float, default=TOTAL, help="seconds of all parts together")
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    if asked.acdc and not asked.acdc.is_dir():
        sys.exit(f"error: --acdc {asked.acdc}: no folder there")
    parts = asked.parts or [name for name in PARTS if name != "hearts" or asked.acdc]
    if "hearts" in parts and not asked.acdc:
        sys.exit("error: the part hearts needs ACDC: --acdc FOLDER")
    machine = ended([sys.executable, str(WORKER), "machine"], limit=120 * asked.slack)
    if machine.state:
        sys.exit(f"error: torch does not start here: {machine.state}. {machine.said}")
    if "no GPU" in machine.text and not asked.tiny:
        sys.exit("error: torch finds no GPU here; --tiny rehearses on the CPU")
    words = [f"--parts {' '.join(asked.parts)}"] if asked.parts else []
    command = " ".join(["python benchmarks/gpu.py", *["--tiny"] * asked.tiny, *words])
    told = "A rehearsal: nothing here is a measurement.\n" if asked.tiny else ""
    head = f"# On a GPU\n\n`{command}`, {date.today()}, {machine.text}.\n{told}"
    # where the hearts lie is nobody's business: the record has no path
    options = ["--tiny"] * asked.tiny
    hidden = [str(HOUSE)]
    for name in ("acdc", "work"):
        if (path := getattr(asked, name)) is not None:
            options += [f"--{name}", str(path.resolve())]
            hidden.append(str(path.resolve()))
    begun = time.monotonic()
    ill = record(
        asked.out,
        head,
        parts=parts,
        options=options,
        hidden=sorted(hidden, key=len, reverse=True),  # the longest first, one may hold another
        slack=asked.slack,
        total=asked.total * asked.slack,
    )
    print(f"{time.monotonic() - begun:.0f} s in all; {asked.out} has what came out", flush=True)
    if ill:
        sys.exit(f"not whole: {', '.join(ill)}; {asked.out} says why")


if __name__ == "__main__":
    main()
