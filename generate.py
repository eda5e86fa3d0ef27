"""Draw a synthetic set: `python generate.py generator=runs/controlnet/0 plan=balanced
plan.count=4000`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cmrstudy import commands, overrides, runs
from cmrstudy.announce import intention
from cmrstudy.experiment import Experiment
from cmrstudy.processes import Launched

USAGE = """python generate.py generator=<folder of a ControlNet run> [key=value ...]

Draw a synthetic set: plan which subject, mask, prompt and seed each image gets, then render it."""


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
def main(cfg: DictConfig) -> None:
    """Plans and draws one set, or this process's shard of it."""
    commands.prepared(cfg)
    launched = Launched(cfg.trainer, shard=cfg.shard, draws=cfg.images)
    with ExitStack() as hold:
        if (folder := launched.claim(lambda: claim(cfg, hold))) is None:
            return
        if launched.first:
            print(intention(cfg), flush=True)
        with runs.attempt(folder):
            from hydra.utils import instantiate

            from cmrgen.tasks import draw_set

            draw_set(Experiment(cfg, folder, build=instantiate), launched)


def claim(cfg: DictConfig, hold: ExitStack) -> Path | None:
    """The set's folder, None if it is done; held against other processes, but for those that draw
    other shards of it."""
    if cfg.shard == "0/1":
        hold.enter_context(runs.held(Path(cfg.run_dir)))
    elif cfg.overwrite:
        raise ValueError(
            f"shard={cfg.shard} with overwrite=true would remove other shards; give overwrite=true "
            "images=false once, then draw the shards"
        )
    from hydra.utils import instantiate

    if cfg.refresh:
        Experiment(cfg, Path(cfg.run_dir), build=instantiate).renew()
    return runs.claim(overrides.request(cfg))


if __name__ == "__main__":
    commands.start_command("generate", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
