"""The experiment that takes withdrawn participants out of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from cmrdata.disk import write_atomic
from cmrdata.prepare import keep_place
from cmrdata.pseudonyms import salt_mark
from cmrdata.withdraw import Trace, purge
from cmrstudy.experiment import Experiment
from cmrstudy.inspection import terminal_table


def withdraw_participants(run: Experiment) -> dict[str, Any]:
    """Take withdrawn participants out of everything below data_root and the runs; nothing printed
    names them."""
    cfg, console = run.cfg, Console()
    cohort, data = run.build(cfg.cohort), Path(cfg.data_root)
    names = cohort.withdrawn()
    traces = pd.DataFrame(
        purge(names, mark=salt_mark(data), data=data, runs=Path(cfg.preset.runs)),
        columns=list(Trace._fields),
    )
    keep_place(cohort, data)
    write_atomic(run.folder / "withdrawn.csv", traces.to_csv(index=False))
    if len(traces):
        console.print(terminal_table(f"{len(names)} withdrawn participants", traces))
    else:
        console.print(
            f"none of the {len(names)} withdrawn participants is in any store, plan or run: "
            "nothing to remove"
        )
    return {"listed": len(names), "places": len(traces)}
