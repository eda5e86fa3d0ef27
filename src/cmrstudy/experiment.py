"""One run of an experiment: its config, its folder, and what every experiment does with them.

An experiment is a function of an Experiment, named in its YAML file as `work`. It returns the facts
that the finished run keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from cmrstudy import dashboards, lineage, processes, runs

if TYPE_CHECKING:
    import pandas as pd

    from cmrstudy.attempts import Attempt


class Experiment:
    """A claimed run at work.

    Args:
        cfg: the composed config.
        folder: the run's own.
        build: makes the object that a node of the config names as its `_target_`, as
            hydra.utils.instantiate does.
    """

    def __init__(self, cfg: DictConfig, folder: Path, *, build: Callable[..., Any]) -> None:
        self.cfg, self.folder, self.build = cfg, folder, build

    @property
    def leads(self) -> bool:
        """Whether this is the run's first process, which writes and prints."""
        return not processes.follows(self.cfg.trainer)

    @property
    def rehearses(self) -> bool:
        """Whether this is a dry run of some batches, which keeps nothing."""
        return bool(self.cfg.trainer.fast_dev_run)

    def renew(self) -> None:
        """Compares the cohort's store with its source, and makes it anew where that has changed."""
        from cmrdata.prepare import prepare

        prepare(self.build(self.cfg.cohort), self.cfg.data_root, refresh=True)

    def uses(self, key: str, **known: Any) -> None:
        """Records an input of the run, once for all its processes; see runs.uses."""
        if self.leads:
            runs.uses(self.folder, key, **known)

    def attempt(self) -> Attempt:
        """What ends this attempt: trainer.max_time from now on, and signals."""
        from cmrstudy.attempts import Attempt

        limit = self.cfg.trainer.max_time
        if OmegaConf.is_config(limit):
            limit = OmegaConf.to_container(limit)
        return Attempt(self.folder, max_time=limit)

    def loggers(self, folder: Path | None = None) -> list[Any]:
        """One logger per name of the config. What they write lies in `folder`, or else in the
        run's, so that the two trainings of a base stay apart."""
        place = {"save_dir": str(folder or self.folder)}
        return [
            self.build(of, **(place if "save_dir" in of else {}))
            for of in dashboards.configured(self.cfg.get("logger"), run=self.folder)
        ]

    def board_results(self) -> None:
        """Shows every table and figure of a results folder on the dashboards."""
        with self._boards() as loggers:
            if loggers:
                dashboards.evaluation_boards(loggers, self.folder)

    def board(self, name: str, table: pd.DataFrame) -> None:
        """Shows a table of the finished run, and its place in the lineage, on the dashboards."""
        with self._boards() as loggers:
            if loggers:
                dashboards.log_table(loggers, name, table)
                lineage.tell(self.folder, runs.facts(self.folder))

    @contextmanager
    def _boards(self) -> Iterator[list[Any]]:
        """The loggers of a run that trains nothing, told its config; theirs ends with the block."""
        if not (loggers := self.loggers()):
            yield []
            return
        with dashboards.one_run():
            dashboards.describe(loggers, OmegaConf.to_container(self.cfg, resolve=True))  # type: ignore[arg-type]
            yield loggers

    def fit(
        self,
        module: Any,
        data: Any,
        limits: Attempt,
        *,
        folder: Path | None = None,
        most: int = -1,
        start_from: Callable[[Any, Path], str] | None = None,
        callbacks: Sequence[Any] = (),
        monitor: str | None = None,
        divide: bool = False,
        **trainer: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Train a module as the config says; see cmrstudy.training.fit.

        Args:
            module: a LightningModule.
            data: its LightningDataModule.
            limits: of `attempt`.
            folder: of the checkpoints, if not the run's.
            most: optimiser steps, at most; -1: no limit but the trainer's.
            start_from: puts the weights of a path into the module and returns their fingerprint.
            callbacks: beside those of the config.
            monitor: the metric whose maximum is best; None: no best.ckpt.
            divide: data.batch_size is that of all processes together.
            trainer: further arguments of lightning.Trainer.

        Returns:
            The trainer and the last metrics.
        """
        from cmrstudy import training

        cfg, folder = self.cfg, folder or self.folder
        options = self.build(cfg.trainer, _target_="builtins.dict", _convert_="all") | trainer
        if most > 0:
            limit = options.get("max_steps") or -1
            options["max_steps"] = min(most, limit) if limit > 0 else most
        weights = Path(cfg.weights) if cfg.weights else None
        own = training.accepted(self.build(cfg.get("callbacks"), _convert_="all"))
        fitted, metrics = training.fit(
            module,
            folder=folder,
            data=data,
            trainer=options,
            attempt=limits,
            seed=cfg.seed,
            loggers=[] if self.rehearses else self.loggers(folder),
            callbacks=[*callbacks, *own],
            settings=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
            minutes=cfg.checkpoint.minutes,
            steps=cfg.checkpoint.steps,
            monitor=monitor,
            divide=divide,
            ckpt_path=Path(cfg.ckpt_path) if cfg.ckpt_path else None,
            weights=(lambda: start_from(module, weights)) if weights and start_from else None,
        )
        if fitted.global_step < most and fitted.is_global_zero and not self.rehearses:
            print(
                f"{folder}: {fitted.global_step:,} of {most:,} steps, as trainer.max_epochs and "
                "trainer.max_steps say"
            )
        return fitted, metrics
