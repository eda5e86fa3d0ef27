"""Run an experiment: inspect a cohort; train a base, a ControlNet or a classifier; export, share,
explain. `python train.py` alone lists the experiments."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cmrstudy import commands, dashboards, lineage, overrides, processes, runs
from cmrstudy.announce import intention
from cmrstudy.experiment import Experiment
from cmrstudy.plain_errors import AttemptEnded

USAGE = """python train.py experiment=<name> [key=value ...]

Inspect a cohort; train a base, a ControlNet or a classifier; export, share, explain."""


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Runs one job; a classifier's score goes back to the sweeper that tunes it."""
    from hydra.utils import instantiate

    commands.prepared(cfg)
    if cfg.settle:
        instantiate(cfg.settle, _partial_=True)(cfg)
    if cfg.trains and cfg.trainer.fast_dev_run:
        return rehearse(cfg)
    with ExitStack() as hold:
        if (folder := processes.together(cfg.trainer, lambda: claim(cfg, hold))) is None:
            return runs.facts(Path(cfg.run_dir)).get(cfg.score)
        return work(cfg, folder)


def claim(cfg: DictConfig, hold: ExitStack) -> Path | None:
    """The run's folder, None if it is done. The first process of a run claims and holds it; the
    others find it claimed."""
    from hydra.utils import instantiate

    folder = Path(cfg.run_dir)
    if processes.follows(cfg.trainer):
        return None if (folder / "finished.json").exists() else folder
    hold.enter_context(runs.held(folder))
    if cfg.refresh and "cohort" not in cfg.unused:
        Experiment(cfg, Path(cfg.run_dir), build=instantiate).renew()
    return runs.claim(overrides.request(cfg))


def work(cfg: DictConfig, folder: Path) -> float | None:
    """Does the experiment's work in its claimed folder, and finishes the run."""
    leads = not processes.follows(cfg.trainer)
    if leads:
        print(intention(cfg), flush=True)
    with runs.attempt(folder), dashboards.one_run():
        facts = done(cfg, folder)
        if leads:
            lineage.tell(folder, facts)
    if leads:
        runs.finish(folder, **facts)
        print(f"{folder}: finished")
    return facts.get(cfg.score)


def done(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """What the experiment's function gives, which conf/experiment/<name>.yaml names as `work`."""
    from hydra.utils import instantiate

    function = instantiate(cfg.work, _partial_=True)
    experiment = Experiment(cfg, folder, build=instantiate)
    if not cfg.trains:
        return function(experiment)
    with processes.seeded(cfg.seed):
        return function(experiment)


def rehearse(cfg: DictConfig) -> None:
    """A dry run: some batches of everything, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dry-run-") as place:
        try:
            done(cfg, Path(place))
        except AttemptEnded as ended:
            raise AttemptEnded("the dry run was ended; nothing is kept") from ended.__cause__
        for report in sorted(Path(place).glob("*-profile.txt")):
            print(report.read_text())
    if not processes.follows(cfg.trainer):
        batches = int(cfg.trainer.fast_dev_run)
        print(
            f"dry run (trainer.fast_dev_run): {batches} {'batch' if batches == 1 else 'batches'} "
            f"of everything ran; nothing is kept, and {cfg.run_dir} is as it was"
        )


if __name__ == "__main__":
    commands.start_command("train", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
