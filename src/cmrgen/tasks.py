"""The generator's experiments: train a base or a ControlNet, draw a set, export, share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import DictConfig, OmegaConf

from cmrdata import scale
from cmrdata.counting import number_of
from cmrdata.disk import write_atomic
from cmrdata.prepare import prepare
from cmrdata.protocol import Cohort
from cmrdata.store import Store
from cmrgen.base.frozen import Base
from cmrgen.base.load import check_base
from cmrgen.base.small import save_base
from cmrgen.plan.checking import make_plan
from cmrgen.plan.repeats import draws_by_group, draws_text, plan_text
from cmrgen.plan.rows import summary
from cmrgen.publish.diffusers_folder import export
from cmrgen.publish.images import publish_set
from cmrgen.render.drawing import render_sweep
from cmrgen.render.generator import (
    Generator,
    check_cohort,
    facts_of,
    load_generator,
    save_generator,
)
from cmrgen.render.shards import finished_all, merge, render_shards
from cmrgen.training import small_base
from cmrgen.training.controlnet import start_from
from cmrgen.training.latents import Latents
from cmrgen.training.preview import PreviewGrid
from cmrstudy import by_base, paths, runs
from cmrstudy.announce import COMPILES
from cmrstudy.checks import learn_axes
from cmrstudy.experiment import Experiment
from cmrstudy.inputs import kind_at, seed_at, weights_hash
from cmrstudy.processes import Launched

FIGURES = "the images of Fig. 3 and 4"


def train_base(run: Experiment) -> dict[str, Any]:
    """Train an autoencoder, then a U-Net on its latents; write folder/base."""
    cfg, folder = run.cfg, run.folder
    if cfg.ckpt_path or cfg.weights:
        raise ValueError(
            "experiment=base trains two networks, one after the other: it takes no ckpt_path and "
            "no weights"
        )
    cohort, data = run.build(cfg.cohort), cfg.data
    with run.attempt() as limits:
        store = prepare(cohort, cfg.data_root)
        run.uses("cohort", fingerprint=store.fingerprint, at=store.folder)
        tell_draws(run, store.index[store.index.split.isin(list(data.splits))])
        first = run.build(cfg.model.autoencoder, augment=data.copies > 1)
        steps = first.hparams.steps
        images = images_to_encode(cfg, store, steps=steps)
        begun, stage = run.fit(first, images, limits, folder=folder / "autoencoder", most=steps)
        second, frozen = unet_of(run, cohort, store, first)
        latents = latents_to_learn(cfg, cohort, frozen)
        steps = second.hparams.steps
        ended, second_stage = run.fit(second, latents, limits, folder=folder / "unet", most=steps)
    if not run.leads:
        return {}
    save_base(frozen, folder / "base", text_config=small_base.TEXT)
    facts = {
        "command": paths.shareable(sys.argv),
        "seed": cfg.seed,
        **facts_of_cohort(store),
        "training images": int(store.index.split.isin(data.splits).sum()),
        "channels": cfg.channels,
        **stage,
        **second_stage,
        "autoencoder_steps": begun.global_step,
        "unet_steps": ended.global_step,
        "base_fingerprint": weights_hash(folder / "base"),
    }
    small_base.write_card(
        folder / "base", title=f"Latent diffusion base trained on {cohort.name}", facts=facts
    )
    return facts


def unet_of(run: Experiment, cohort: Cohort, store: Store, autoencoder: Any) -> tuple[Any, Base]:
    """The untrained U-Net of a base whose autoencoder is trained, and the base that it is part
    of."""
    cfg = run.cfg
    torch.manual_seed(cfg.seed)
    sample = torch.from_numpy(store.images[:: max(1, len(store.images) // 512)].copy())
    unet = run.build(cfg.model.unet, latent=cohort.pixels // 4)
    frozen = small_base.assemble(
        autoencoder.vae,
        unet.average,
        small_base.text_tower(cfg.seed),
        pixels=cohort.pixels,
        images=sample,
        channels=cfg.channels,
    )
    unet.setup_base(frozen)
    return unet, frozen


def images_to_encode(cfg: DictConfig, store: Store, *, steps: int) -> small_base.StoreImages:
    """What the autoencoder of a base learns from."""
    data = cfg.data
    return small_base.StoreImages(
        store,
        splits=list(data.splits),
        steps=steps,
        batch_size=data.autoencoder_batch_size,
        seed=cfg.seed,
        max_repeats=data.max_repeats,
        workers=data.workers,
    )


def latents_to_learn(cfg: DictConfig, cohort: Cohort, base: Base) -> Latents:
    """What the U-Net of a base learns from: the images as its autoencoder sees them."""
    data = cfg.data
    return Latents(
        cohort=cohort,
        root=cfg.data_root,
        base=base,
        batch_size=data.batch_size,
        splits=data.splits,
        fields=data.fields,
        copies=data.copies,
        max_repeats=data.max_repeats,
        seed=cfg.seed,
        workers=data.workers,
        val_images=data.val_images,
    )


def train_controlnet(run: Experiment) -> dict[str, Any]:
    """Train the ControlNet branch; write folder/controlnet, which generate.py loads."""
    cfg, folder = run.cfg, run.folder
    with run.attempt() as limits:
        check_base(**cfg.base.load)
        store = prepare(run.build(cfg.cohort), cfg.data_root)  # before gigabytes of weights
        run.uses("cohort", fingerprint=store.fingerprint, at=store.folder)
        module = run.build(cfg.model)
        if run.leads:
            scale.tell(
                scale.for_a_base(
                    store.meta["pixels"], module.base.pixels, own=cfg.base.frame.pixels
                )
            )
        data = run.build(cfg.data, _partial_=True)(base=module.base)
        run.uses("base.weights", fingerprint=module.base.fingerprint, at=cfg.base.weights)
        tell_draws(run, data.training)
        preview = PreviewGrid(
            folder / "previews",
            sampler=run.build(cfg.sampler),
            allow_real_images=bool(OmegaConf.select(cfg, "logger.allow_real_images")),
        )
        _, metrics = run.fit(module, data, limits, callbacks=[preview], start_from=start_from)
    if not run.leads:
        return {}
    facts = {
        **metrics,
        **facts_of_cohort(store),
        "drawing": OmegaConf.to_container(cfg.base.drawing, resolve=True),
        "base": OmegaConf.to_container(cfg.model.base, resolve=True),
        "base_fingerprint": module.base.fingerprint,
        "command": paths.shareable(sys.argv),
        "fields": [field for field in cfg.data.fields if data.table[field].notna().any()],
        "groups": data.table.iloc[data.train_rows].groupby("group").subject.nunique().to_dict(),
        "training_images": len(data.train_rows),
        "max_repeats": cfg.data.max_repeats,
    }
    return {**facts, "fingerprint": save_generator(module.best, folder / "controlnet", facts)}


def facts_of_cohort(store: Store) -> dict[str, Any]:
    """What a generator must know of the cohort that it was trained on."""
    return {
        "cohort": store.folder.name,
        "cohort_fingerprint": store.fingerprint,
        "pixels": store.meta["pixels"],
        "fov_mm": store.meta["settings"].get("fov_mm"),
    }


def tell_draws(run: Experiment, table: pd.DataFrame) -> None:
    """Print how often an image of each group is drawn, before hours go by; draws.csv has it whole.

    Args:
        run: told by its first process; cfg.data.max_repeats is the limit.
        table: the index rows that are trained on.
    """
    if table.empty or not run.leads:
        return
    most = run.cfg.data.max_repeats
    groups = draws_by_group(table, max_repeats=most)
    write_atomic(run.folder / "draws.csv", groups.to_csv(index=False))
    print(draws_text(table, max_repeats=most), flush=True)


def export_generator(run: Experiment) -> dict[str, Any]:
    """Write a trained ControlNet for stock diffusers, with its card, to folder/model."""
    cfg = run.cfg
    sampler = run.build(cfg.sampler)
    generator = load_generator(cfg.generator, base_weights=cfg.base.weights)
    run.uses("generator", fingerprint=generator.facts["fingerprint"], at=cfg.generator)
    written = export(
        generator,
        run.folder / "model",
        command=generator.facts.get("command", ""),
        metrics=runs.facts(Path(cfg.generator)),
        parts=cfg.parts,
        sampler=sampler,
    )
    return {"model": str(written), "generator": generator.facts["fingerprint"]}


def share_set(run: Experiment) -> dict[str, Any]:
    """Write a synthetic set in formats that others read, with its card."""
    cfg = run.cfg
    learn_axes(cfg)  # whose bands leave with the set
    synthetic = Store.open(cfg.synthetic_set)
    run.uses("synthetic_set", fingerprint=synthetic.fingerprint, at=cfg.synthetic_set)
    written = publish_set(synthetic, run.folder, formats=list(cfg.formats), audit=cfg.audit)
    return {
        "set": synthetic.fingerprint,
        "images": len(synthetic.index),
        "folders": [str(path) for path in written],
    }


def draw_set(run: Experiment, launched: Launched) -> None:
    """Plan a synthetic set and draw it, in its claimed folder.

    Args:
        run: of generate.py.
        launched: this process among those that draw the set.
    """
    cfg, folder = run.cfg, run.folder
    sampler = run.build(cfg.sampler)
    cohort, generator = drawn_from(run, launched)
    recipe = run.build(cfg.plan, _partial_=True)
    plan = make_plan(recipe, cohort, fields=generator.facts["fields"])
    counts = summary(plan.rows, cohort.index)
    if launched.first:
        print(plan_text(counts, plan, dict(cfg.plan)), flush=True)
    if not cfg.images:
        write_atomic(folder / "plan.csv", plan.rows.to_csv(index=False))
        print(f"{folder / 'plan.csv'}: images=true resume=true draws it")
        return
    how: dict[str, Any] = {
        "batch_size": cfg.batch_size,
        "device": launched.device,
        "sampler": sampler,
    }
    synthetic = render_shards(
        plan, folder=folder, shard=launched.shard, cohort=cohort, generator=generator, **how
    )
    if not launched.first:
        return
    if launched.processes > 1:
        launched.wait(lambda: finished_all(folder, launched.processes))
        synthetic = merge(folder, launched.processes)
    if synthetic is None:
        print(f"{folder}: shard {launched.shard} is finished; the last one joins them")
        return
    facts = {
        "images": len(synthetic.index),
        "generator": cfg.generator,
        "fingerprint": synthetic.fingerprint,
        "missing_groups": list(plan.missing),
        "thin_groups": list(plan.thin),
        "groups": counts.to_dict("records"),
    }
    finish_set(run, facts, draw_figures=partial(render_sweep, cohort, generator, **how))
    run.board("groups", counts[["group", "images"]])
    print(f"{folder}: {number_of(len(synthetic.index), 'images')}")


def drawn_from(run: Experiment, launched: Launched) -> tuple[Store, Generator]:
    """The cohort and the generator that a set is drawn from, checked and recorded."""
    cfg = run.cfg
    trained = facts_of(cfg.generator)
    check_generator(cfg)
    cohort = prepare(run.build(cfg.cohort), cfg.data_root)
    check_cohort(trained, cohort, named=f"generator={cfg.generator}")  # before gigabytes of weights
    generator = load_generator(
        cfg.generator, base_weights=cfg.base.weights, precision=cfg.precision
    )
    if (side := cohort.meta["pixels"]) > generator.base.pixels:
        scale.tell(scale.for_a_base(side, generator.base.pixels, own=side))
    if cfg.compile:
        generator.compile()
    if launched.first:
        if cfg.compile:
            print(COMPILES, flush=True)
        record_inputs(run, cohort, generator)
    return cohort, generator


def finish_set(
    run: Experiment, facts: dict[str, Any], *, draw_figures: Callable[[Path], object]
) -> None:
    """Finish a set's folder, then draw the images of the figures, which no user of the set needs.

    Args:
        run: of generate.py.
        facts: of the finished set, for its record.
        draw_figures: draws them in the folder given.
    """
    folder = run.folder
    runs.finish(folder, **facts, left=FIGURES)
    try:
        draw_figures(folder / "sweep")
    except BaseException:
        print(
            f"{folder}: {number_of(facts['images'], 'images')}, finished, but for {FIGURES}: "
            "the same command draws only them"
        )
        raise
    runs.finish(folder, **facts)


def record_inputs(run: Experiment, cohort: Store, generator: Generator) -> None:
    """Record the cohort and the generator that a set is drawn from."""
    at = run.cfg.generator
    runs.uses(run.folder, "cohort", fingerprint=cohort.fingerprint, at=cohort.folder)
    mark, kind, seed = generator.facts["fingerprint"], kind_at(at), seed_at(at)
    runs.uses(run.folder, "generator", fingerprint=mark, at=at, kind=kind, seed=seed)


def check_generator(cfg: DictConfig) -> None:
    """Raise ValueError where the generator is of another cohort, before this one is prepared for
    nothing."""
    trained = by_base.recorded(cfg.generator).get("cohort")
    if trained and trained != cfg.cohort.name:
        raise ValueError(
            f"generator={cfg.generator} was trained on cohort {trained}, and this command's is "
            f"{cfg.cohort.name}; give the cohort settings it was trained with"
        )
