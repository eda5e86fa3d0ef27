"""Draws what offline runs of W&B hold, as its workspace would: curves and subgroups by arm, and the
lineage. No server is asked.

    python scripts/wandb_pictures.py <folder with runs/ and results/> --out docs/images

docs/wandb.md shows such pictures.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

SCORE = "test_balanced_accuracy"
SHOWN = ("", "_sex_F", "_sex_M", "_bmi_normal", "_bmi_overweight", "_bmi_obese")


class Offline(NamedTuple):
    """One W&B run: of several files, where it was continued."""

    name: str
    job: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    artifacts: list[tuple[str, str, bool, str]]  # type, name, whether it was used, digest
    attempts: int


def records(file: Path) -> list[Any]:
    """The protobuf records of a .wandb file: a LevelDB log after seven bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, part, whole = file.read_bytes(), 7, b"", []
    if content[:4] != b":W&B":
        raise ValueError(f"{file}: no file of an offline run")
    while at + 7 <= len(content):
        if (room := 32768 - at % 32768) < 7:  # no record starts in the last bytes of a block
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            whole.append(Record.FromString(part))
            part = b""
    return whole


def offline_runs(folder: Path) -> list[Offline]:
    """The runs below a folder; files with one id are one run, in the order of their beginnings."""
    files = defaultdict(list)
    for file in sorted(folder.rglob("offline-run-*/*.wandb")):
        if not file.parent.is_symlink():
            files[file.stem].append(file)
    if not files:
        raise FileNotFoundError(f"{folder}: no offline run of W&B below it")
    return [_read(of) for of in files.values()]


def _read(files: list[Path]) -> Offline:
    of = [record for file in files for record in records(file)]
    run = next(record.run for record in of if record.HasField("run"))
    updates = [item for record in of for item in record.config.update]
    updates += [i for r in of if r.HasField("run") for i in r.run.config.update]
    history = [
        {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in of
        if record.HasField("history")
    ]
    sent = [record.artifact for record in of if record.HasField("artifact")]
    sent += [
        record.request.log_artifact.artifact
        for record in of
        if record.HasField("request") and record.request.HasField("log_artifact")
    ]
    return Offline(
        run.display_name,
        run.job_type,
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in updates},
        history,
        [(a.type, a.name, a.use_after_commit, a.digest) for a in sent if a.type != "run_table"],
        len(files),
    )


def workspace(runs: list[Offline]) -> Any:
    """Validation over steps, and the test score of subgroups; mean and standard deviation over the
    seeds of an arm."""
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    from cmrstudy.figures import COLOURS, STYLE

    trained = [run for run in runs if run.job == "classifier"]
    arms = sorted({run.config["arm"] for run in trained}, key=lambda arm: (arm == "only", len(arm)))
    step, metric = "trainer/global_step", "val_balanced_accuracy"
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = drawn.subplots(1, 2)
        for k, arm in enumerate(arms):
            of = [run for run in trained if run.config["arm"] == arm]
            lines = [{h[step]: h[metric] for h in run.history if metric in h} for run in of]
            steps = sorted(set.intersection(*map(set, lines)))
            values = np.array([[line[at] for at in steps] for line in lines])
            mean, sd = values.mean(0), values.std(0, ddof=1) if len(of) > 1 else 0
            left.plot(steps, mean, "o-", color=COLOURS[k], label=f"arm {arm}, {len(of)} seeds")
            left.fill_between(steps, mean - sd, mean + sd, color=COLOURS[k], alpha=0.2, lw=0)
            last = [{key: v for h in run.history for key, v in h.items()} for run in of]
            scores = np.array([[run.get(SCORE + name, np.nan) for name in SHOWN] for run in last])
            right.barh(
                np.arange(len(SHOWN)) + 0.38 * k,
                scores.mean(0),
                0.36,
                xerr=scores.std(0, ddof=1) if len(of) > 1 else None,
                color=COLOURS[k],
            )
        left.set(xlabel=step, ylabel=metric)
        left.legend(frameon=False)
        right.set_yticks(range(len(SHOWN)), [name.lstrip("_") or "overall" for name in SHOWN])
        right.invert_yaxis()
        right.set(xlim=(0, 1), xlabel=SCORE)
    return drawn


def lineage(runs: list[Offline]) -> Any:
    """Artifacts in the order of the study, an arrow from what was used to what was made."""
    import matplotlib
    from matplotlib.figure import Figure

    from cmrstudy.figures import COLOURS, GREY, STYLE

    order = ["generator", "synthetic-set", "classifier", "evaluation", "table", "figure"]
    made = {a[1]: a for run in runs for a in run.artifacts if not a[2]}
    made |= {a[1]: a for run in runs for a in run.artifacts if a[1] not in made}
    columns = [[name for name, a in sorted(made.items()) if a[0] == kind] for kind in order]
    columns = [*columns[:4], columns[4] + columns[5]]
    titles = ["generator", "set", "classifiers", "evaluation", "versions"]
    tall = max(map(len, columns))
    wide = [
        max((len(name) for name in [*column, title]), default=0)
        for column, title in zip(columns, titles, strict=True)
    ]
    left = [sum(wide[:x]) + 6 * x for x in range(len(columns))]  # in letters
    place = {
        name: (x, (len(column) - 1) / 2 - y)
        for x, column in enumerate(columns)
        for y, name in enumerate(column)
    }
    arrows = {
        (start, end)
        for run in runs
        for start in (a[1] for a in run.artifacts if a[2])
        for end in (a[1] for a in run.artifacts if not a[2])
        if place[end][0] - place[start][0] == 1  # what is farther away follows
    }
    arrows |= {
        (of[1], end[1])
        for run in runs
        for of in run.artifacts
        for end in run.artifacts
        if of[0] == "evaluation" and end[0] in order[4:] and not end[2]
    }
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(0.075 * sum(wide) + 2.5, 0.6 + 0.5 * tall), layout="constrained")
        panel = drawn.subplots()
        panel.set_axis_off()
        for start, end in sorted(arrows):
            (x, y), (to_x, to_y) = place[start], place[end]
            where = (left[to_x] - 1, to_y), (left[x] + wide[x] + 0.5, y)
            panel.annotate("", *where, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.8})
        for name, (x, y) in place.items():
            kind, *_, digest = made[name]
            colour = COLOURS[min(order.index(kind), 4) % len(COLOURS)]
            panel.barh(y, wide[x] + 0.5, 0.7, left[x] - 0.5, fc="white", ec=colour)
            text = f"{name}\n{digest[:8]}"
            panel.text(left[x], y, text, fontsize=7, va="center", family="monospace")
        for x, title in enumerate(titles):
            panel.text(left[x], tall / 2 + 0.2, title, fontsize=9, weight="bold")
        panel.set(xlim=(-1, left[-1] + wide[-1] + 1), ylim=(-tall / 2 - 0.1, tall / 2 + 0.5))
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    asked = parser.parse_args()
    try:
        runs = offline_runs(asked.folder)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(1, f"error: {error}\n")
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, drawn in (("wandb_workspace", workspace(runs)), ("wandb_lineage", lineage(runs))):
        path = asked.out / f"{name}.png"
        drawn.savefig(path, dpi=110, metadata={"Software": None})
        print(path)
    for run in runs:
        again = f", continued {run.attempts - 1} times" if run.attempts > 1 else ""
        print(f"  {run.name} ({run.job}): {len(run.history)} rows{again}")


if __name__ == "__main__":
    main()
