"""Render a synthetic set: `python generate.py generator=runs/controlnet/0 plan=balanced plan.count=4000`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrstudy import runs


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
def main(cfg: DictConfig) -> None:
    launched = Launched(cfg)
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    del config["trainer"]  # how to run, not what
    if (folder := launched.claim(config)) is None:
        return
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare
    from cmrgen import rows
    from cmrgen.render import load_generator, render_sweep
    from cmrgen.shards import merge, render_shards

    generator = load_generator(cfg.generator, precision=cfg.precision)
    if cfg.compile:
        generator.compile()
    cohort = prepare(instantiate(cfg.cohort), cfg.data_root)
    if cohort.fingerprint != (trained := generator.facts["cohort_fingerprint"]):
        raise ValueError(
            f"generator={cfg.generator} was trained on {generator.facts['cohort']} ({trained}), but this run's cohort "
            f"is {cohort.folder.name} ({cohort.fingerprint}); give the cohort settings it was trained with"
        )
    plan = instantiate(cfg.plan, _partial_=True)(index=cohort.index, fields=generator.facts["fields"])
    rows.check(plan, cohort.subjects, cohort.index)
    counts = rows.summary(plan, cohort.index)
    missing = plan.attrs.get("missing") or []
    if launched.first:
        tell(counts, missing, len(plan))
    if not cfg.images:
        runs.write_atomic(folder / "plan.csv", plan.to_csv(index=False))
        print(f"{counts.to_string(index=False)}\n{folder / 'plan.csv'}: images=true resume=true draws it")
        return
    how = {
        "sampler": cfg.sampler.name,
        "steps": cfg.sampler.steps,
        "interval": list(cfg.sampler.interval),
        "guides": cfg.sampler.guides,
        "reuse": cfg.sampler.reuse,
    }
    shard = launched.shard
    made = render_shards(
        plan,
        folder=folder,
        shard=shard,
        cohort=cohort,
        generator=generator,
        batch_size=cfg.batch_size,
        device=launched.device,
        **how,
    )
    if not launched.first:
        return
    if launched.processes > 1:
        launched.await_shards(folder)
        made = merge(folder, launched.processes)
    if made is None:
        print(f"{folder}: shard {shard} is finished; the last one joins them")
        return
    render_sweep(cohort, generator, folder / "sweep", guidance=cfg.sampler.guidance, **how)
    runs.finish(
        folder,
        images=len(made.index),
        generator=cfg.generator,
        fingerprint=made.fingerprint,
        missing_groups=missing,
        groups=counts.to_dict("records"),
    )
    print(f"{folder}: {len(made.index)} images")


def tell(counts: Any, missing: list[str], images: int) -> None:
    """What the plan asks for, before any image is drawn."""
    print(
        f"plan: {images} images over {len(counts)} groups, {counts.images.min()}-{counts.images.max()} each, from "
        f"{counts.masks.min()}-{counts.masks.max()} masks of {counts.subjects.min()}-{counts.subjects.max()} training "
        "subjects a group"
    )
    if missing:
        print(f"left out, no training subject in {len(missing)} groups: {', '.join(missing)}")
    if counts.borrowed.any():
        lent = counts[counts.borrowed > 0]
        print(f"{lent.borrowed.sum()} images in {len(lent)} groups have masks of other groups (column borrowed)")


class Launched:
    """This process among those that Lightning starts for trainer.devices and num_nodes; each draws one shard."""

    def __init__(self, cfg: DictConfig) -> None:
        self.processes, self.first, self.device, self.shard, self._fabric = 1, True, None, cfg.shard, None
        if (cfg.trainer.devices, cfg.trainer.num_nodes) == (1, 1) or not cfg.images:
            return
        if cfg.shard != "0/1":
            raise ValueError(f"shard={cfg.shard} with trainer.devices={cfg.trainer.devices}: give one of the two")
        import logging

        from lightning import Fabric

        logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
        self._fabric = Fabric(**cfg.trainer)
        self._fabric.launch()
        self.processes, self.first = self._fabric.world_size, self._fabric.is_global_zero
        self.device, self.shard = self._fabric.device, f"{self._fabric.global_rank}/{self.processes}"

    def claim(self, config: dict[str, Any]) -> Path | None:
        """runs.claim by the first process; a refusal, told by it, ends them all."""
        if self._fabric is None:
            return runs.claim(config)
        try:
            return runs.agreed(self._fabric, lambda: runs.claim(config))
        except Exception:
            if self.first:
                raise
            sys.exit(1)

    def await_shards(self, folder: Path) -> None:
        """Until all shards are finished. They are as slow as their devices, so no collective's time limit holds here."""
        from cmrgen.shards import finished_all

        while not finished_all(folder, self.processes):
            time.sleep(1)


if __name__ == "__main__":
    main()
