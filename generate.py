"""Render a synthetic set: `python generate.py generator=runs/controlnet/0 plan=balanced
plan.count=4000`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cmrstudy import by_base, commands, overrides, runs
from cmrstudy.announce import intention
from cmrstudy.inputs import kind_at, seed_at
from cmrstudy.processes import Launched

USAGE = """python generate.py generator=<folder of a ControlNet run> [key=value ...]

Draw a synthetic set: plan which subject, mask, prompt and seed each image gets, then render it."""
FIGURES = "the images of Fig. 3 and 4"


@hydra.main(version_base="1.3", config_path="conf", config_name="generate")
def main(cfg: DictConfig) -> None:
    commands.prepared(cfg)
    launched = Launched(cfg.trainer, shard=cfg.shard, draws=cfg.images)
    with ExitStack() as hold:
        if (folder := launched.claim(lambda: claim(cfg, hold))) is None:
            return
        if launched.first:
            print(intention(cfg), flush=True)
        with runs.attempt(folder):
            draw(cfg, folder, launched)


def claim(cfg: DictConfig, hold: ExitStack) -> Path | None:
    """The set's folder, None if it is done; held against other processes, but for those that draw
    other shards of it."""
    if cfg.shard == "0/1":
        hold.enter_context(runs.held(Path(cfg.run_dir)))
    elif cfg.overwrite:
        raise ValueError(
            f"shard={cfg.shard} with overwrite=true would remove other shards; give overwrite=true images=false once, "
            "then draw the shards"
        )
    if cfg.refresh:
        from hydra.utils import instantiate

        from cmrdata.prepare import prepare

        prepare(instantiate(cfg.cohort), cfg.data_root, refresh=True)
    return runs.claim(overrides.asked(cfg))


def draw(cfg: DictConfig, folder: Path, launched: Launched) -> None:
    """Plan the set and draw it, in its claimed folder."""
    from hydra.utils import instantiate

    from cmrdata import scale
    from cmrdata.prepare import prepare
    from cmrgen.plan import repeats, rows
    from cmrgen.plan.faults import make_plan
    from cmrgen.render.drawing import render_sweep
    from cmrgen.render.generator import check_cohort, facts_of, load_generator
    from cmrgen.render.shards import finished_all, merge, render_shards

    sampler, trained = instantiate(cfg.sampler), facts_of(cfg.generator)
    check_settings(cfg)
    cohort = prepare(instantiate(cfg.cohort), cfg.data_root)
    check_cohort(trained, cohort, named=f"generator={cfg.generator}")  # before gigabytes of weights
    generator = load_generator(
        cfg.generator, base_weights=cfg.base.weights, precision=cfg.precision
    )
    if (side := cohort.meta["pixels"]) > generator.base.pixels:
        scale.tell(scale.for_a_base(side, generator.base.pixels, own=side))
    if cfg.compile:
        generator.compile()
    if launched.first:
        runs.uses(folder, "cohort", fingerprint=cohort.fingerprint, at=cohort.folder)
        mark, kind = generator.facts["fingerprint"], kind_at(cfg.generator)
        runs.uses(
            folder,
            "generator",
            fingerprint=mark,
            at=cfg.generator,
            kind=kind,
            seed=seed_at(cfg.generator),
        )
    recipe = instantiate(cfg.plan, _partial_=True)
    plan = make_plan(recipe, cohort, fields=generator.facts["fields"])
    counts = rows.summary(plan.rows, cohort.index)
    if launched.first:
        print(repeats.plan_text(counts, plan, dict(cfg.plan)), flush=True)
    if not cfg.images:
        runs.write_atomic(folder / "plan.csv", plan.rows.to_csv(index=False))
        print(f"{folder / 'plan.csv'}: images=true resume=true draws it")
        return
    shard = launched.shard
    made = render_shards(
        plan,
        folder=folder,
        shard=shard,
        cohort=cohort,
        generator=generator,
        batch_size=cfg.batch_size,
        device=launched.device,
        sampler=sampler,
    )
    if not launched.first:
        return
    if launched.processes > 1:
        launched.wait(lambda: finished_all(folder, launched.processes))
        made = merge(folder, launched.processes)
    if made is None:
        print(f"{folder}: shard {shard} is finished; the last one joins them")
        return
    facts = {
        "images": len(made.index),
        "generator": cfg.generator,
        "fingerprint": made.fingerprint,
        "missing_groups": list(plan.missing),
        "thin_groups": list(plan.thin),
        "groups": counts.to_dict("records"),
    }
    runs.finish(folder, **facts, left=FIGURES)  # whoever uses the set needs nothing of what follows
    try:
        render_sweep(
            cohort,
            generator,
            folder / "sweep",
            sampler=sampler,
            batch_size=cfg.batch_size,
            device=launched.device,
        )
    except BaseException:
        print(
            f"{folder}: {len(made.index)} images, finished, but for {FIGURES}: the same command draws only them"
        )
        raise
    runs.finish(folder, **facts)
    print(f"{folder}: {len(made.index)} images")


def check_settings(cfg: DictConfig) -> None:
    """Raise ValueError where the generator is of another cohort, before this one is prepared for
    nothing."""
    trained = by_base.recorded(cfg.generator).get("cohort")
    if trained and trained != cfg.cohort.name:
        raise ValueError(
            f"generator={cfg.generator} was trained on cohort {trained}, and this command's is {cfg.cohort.name}; "
            "give the cohort settings it was trained with"
        )


if __name__ == "__main__":
    commands.begin("generate", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
