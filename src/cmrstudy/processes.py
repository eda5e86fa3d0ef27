"""One run in several processes: who leads, who follows, and one outcome for all of them.

Lightning, torchrun or SLURM start the same command once for each process. The first claims the run
folder and writes; the others find it claimed, and get or raise what the first one did.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmrstudy import plain_errors

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def alone(trainer: Any) -> bool:
    """Whether the run is one process, by its `trainer` settings devices and num_nodes."""
    return bool(trainer.devices == 1 and trainer.num_nodes == 1)


def follows(trainer: Any) -> bool:
    """Whether this is one of a run's further processes."""
    return not alone(trainer) and any(int(os.environ.get(name, 0)) for name in RANKS)


def together(trainer: Any, claimed: Callable[[], Path | None]) -> Path | None:
    """What `claimed` gives or raises. SLURM's tasks all run from the start: they get or raise what
    the first one did."""
    several = os.environ.get("SLURM_NTASKS", "1") != "1"
    if alone(trainer) and several:
        # an interactive allocation's: Lightning would wait for its other tasks
        os.environ.pop("SLURM_NTASKS")
    if alone(trainer) or not several:
        return claimed()
    from lightning import Fabric

    quiet()
    fabric = Fabric(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy="ddp",
    )
    fabric.launch()
    try:
        return agreed(fabric, claimed)
    except Exception:
        part()
        raise


def agreed(fabric: Any, claimed: Callable[[], Path | None]) -> Path | None:
    """What `claimed` gives or raises in the first of a Fabric's processes, in all of them, so that
    none is left waiting.

    An error that is none of plain_errors.PLAIN the first raises as it is, the others as
    RuntimeError.
    """
    outcome: Path | Exception | None = None
    own: Exception | None = None
    if fabric.is_global_zero:
        try:
            outcome = claimed()
        except plain_errors.PLAIN as error:
            outcome = error
        except Exception as error:
            own, outcome = (
                error,
                RuntimeError(f"the first process failed: {type(error).__name__}, told by itself"),
            )
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, Exception):
        raise own or outcome
    return outcome


def part() -> None:
    """Leaves the other processes, so that the next job of a sweep can have its own."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Lightning quiet and seeded for the training within; its processes part at the end."""
    import lightning as L

    quiet()
    L.seed_everything(seed, workers=True, verbose=False)
    try:
        yield
    finally:
        part()


class Launched:
    """This process among those that Lightning starts for a set; each draws one shard of it."""

    def __init__(self, trainer: Any, *, shard: str, draws: bool) -> None:
        self.processes, self.first, self.device, self.shard, self._fabric = (
            1,
            True,
            None,
            shard,
            None,
        )
        if alone(trainer) or not draws:
            return
        if shard != "0/1":
            raise ValueError(
                f"shard={shard} with trainer.devices={trainer.devices}: give one of the two"
            )
        from lightning import Fabric

        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
        self._fabric = Fabric(**trainer)
        self._fabric.launch()
        self.processes, self.first = self._fabric.world_size, self._fabric.is_global_zero
        self.device, self.shard = (
            self._fabric.device,
            f"{self._fabric.global_rank}/{self.processes}",
        )

    def claim(self, claimed: Callable[[], Path | None]) -> Path | None:
        """What `claimed` gives in the first process; a refusal, told by it, ends them all."""
        if self._fabric is None:
            return claimed()
        try:
            return agreed(self._fabric, claimed)
        except Exception:
            if self.first:
                raise
            sys.exit(1)

    def wait(self, finished: Callable[[], bool]) -> None:
        """Until all shards are `finished`. They are as slow as their devices, so no collective's
        time limit holds here."""
        while not finished():
            time.sleep(1)


def quiet() -> None:
    """Keeps tips, device lists and foreign deprecations from burying our own lines."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for message in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*module.s. in eval mode.*",
        ".*logs directory .* exists.*",
        ".*exists and is not empty.*",
        ".*could not find the monitored key.*",  # no validation yet
        ".*your dataloader is not resumable.*",  # its sampler is: cmrstudy/continuing.py
    ):
        warnings.filterwarnings("ignore", message=message)
