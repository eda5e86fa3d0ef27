"""Render a synthetic set: `python generate.py generator=runs/controlnet/0 plan=balanced plan.count=4000`."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrdata import runs


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
@runs.plainly
def main(cfg: DictConfig) -> None:
    if (folder := runs.claim(OmegaConf.to_container(cfg, resolve=True))) is None:  # type: ignore[arg-type]
        return
    from hydra.utils import instantiate

    from cmrdata.store import prepare
    from cmrgen import plan as plans
    from cmrgen.render import load_generator, render_sweep
    from cmrgen.shards import render_shards

    generator = load_generator(cfg.generator)
    cohort = prepare(instantiate(cfg.cohort), cfg.data_root)
    if cohort.fingerprint != (trained := generator.facts["cohort_fingerprint"]):
        raise ValueError(
            f"generator={cfg.generator} was trained on {generator.facts['cohort']} ({trained}), but this run's cohort "
            f"is {cohort.folder.name} ({cohort.fingerprint}); give the cohort settings it was trained with"
        )
    plan = instantiate(cfg.plan, _partial_=True)(index=cohort.index, fields=generator.facts["fields"])
    plans.check(plan, cohort.subjects, cohort.index)
    counts = plans.summary(plan, cohort.index)
    print(
        f"plan: {len(plan)} images over {len(counts)} groups, {counts.images.min()}-{counts.images.max()} each, from "
        f"{counts.masks.min()}-{counts.masks.max()} masks of {counts.subjects.min()}-{counts.subjects.max()} training "
        "subjects a group"
    )
    if missing := plan.attrs.get("missing"):
        print(f"left out, no training subject in {len(missing)} groups: {', '.join(missing)}")
    if counts.borrowed.any():
        lent = counts[counts.borrowed > 0]
        print(f"{lent.borrowed.sum()} images in {len(lent)} groups have masks of other groups (column borrowed)")
    if not cfg.images:
        runs.write_atomic(folder / "plan.csv", plan.to_csv(index=False))
        print(f"{counts.to_string(index=False)}\n{folder / 'plan.csv'}: images=true resume=true draws it")
        return
    how = {"sampler": cfg.sampler.name, "steps": cfg.sampler.steps}
    made = render_shards(
        plan,
        folder=folder,
        shard=cfg.shard,
        cohort=cohort,
        generator=generator,
        batch_size=cfg.batch_size,
        interval=list(cfg.sampler.interval),
        reuse=cfg.sampler.reuse,
        **how,
    )
    if made is None:
        print(f"{folder}: shard {cfg.shard} is finished; the last one joins them")
        return
    render_sweep(cohort, generator, folder / "sweep", guidance=cfg.sampler.guidance, **how)
    runs.finish(
        folder,
        images=len(made.index),
        generator=cfg.generator,
        fingerprint=made.fingerprint,
        missing_groups=missing or [],
        groups=counts.to_dict("records"),
    )
    print(f"{folder}: {len(made.index)} images")


if __name__ == "__main__":
    main()
