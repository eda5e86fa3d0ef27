"""Inspect a cohort; train a base, a ControlNet or a classifier; export. `python train.py` alone
lists the experiments."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrstudy import commands, dashboards, overrides, paths, processes, runs
from cmrstudy.announce import intention
from cmrstudy.inputs import file_hash, kind_at, origin_at, weights_hash
from cmrstudy.processes import quiet

SCORE = "best_val_balanced_accuracy"
USAGE = """python train.py experiment=<name> [key=value ...]

Inspect a cohort; train a base, a ControlNet or a classifier; export, share, explain."""
TRAINED = ("base", "controlnet", "classifier")


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Runs one job; a classifier's score goes back to the sweeper that tunes it."""
    commands.prepared(cfg)
    if cfg.task == "classifier":
        settle(cfg)
    if cfg.task in TRAINED and cfg.trainer.fast_dev_run:
        return rehearse(cfg)
    with ExitStack() as hold:
        if (folder := processes.together(cfg.trainer, lambda: claim(cfg, hold))) is None:
            return runs.facts(Path(cfg.run_dir)).get(SCORE)
        return work(cfg, folder)


def work(cfg: DictConfig, folder: Path) -> float | None:
    """The job itself, in its claimed folder."""
    tasks = {"base": train_base, "controlnet": train_controlnet, "classifier": train_classifier}
    trains = cfg.task in tasks
    tasks |= {
        "inspect": inspect_cohort,
        "export": export_generator,
        "share": share_set,
        "explain": explain_classifier,
    }
    tasks["withdraw"] = withdraw_participants
    if trains and not follows(cfg):
        print(intention(cfg), flush=True)
    with runs.attempt(folder), dashboards.one_run():
        if trains:
            import lightning as L

            quiet()
            L.seed_everything(cfg.seed, workers=True, verbose=False)
        try:
            facts = tasks[cfg.task](cfg, folder)
        finally:
            if trains:
                processes.part()
    if not follows(cfg):
        runs.finish(folder, **facts)
        print(f"{folder}: finished")
    return facts.get(SCORE)


def rehearse(cfg: DictConfig) -> None:
    """A dry run: some batches of everything, in a folder that is gone afterwards."""
    import lightning as L

    tasks = {"base": train_base, "controlnet": train_controlnet, "classifier": train_classifier}
    with tempfile.TemporaryDirectory(prefix="dry-run-") as place:
        quiet()
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        try:
            tasks[cfg.task](cfg, Path(place))
        except runs.AttemptEnded as ended:
            raise runs.AttemptEnded("the dry run was ended; nothing is kept") from ended.__cause__
        finally:
            processes.part()
        for report in sorted(Path(place).glob("*-profile.txt")):
            print(report.read_text())
    if not follows(cfg):
        batches = int(cfg.trainer.fast_dev_run)
        print(
            f"dry run (trainer.fast_dev_run): {batches} {'batch' if batches == 1 else 'batches'} of everything ran; "
            f"nothing is kept, and {cfg.run_dir} is as it was"
        )


def settle(cfg: DictConfig) -> None:
    """A preset's width gives way to a network that has its own, said aloud; one that was asked for
    is refused later."""
    from cmrcls.choices import WIDTH, own_width

    model = cfg.model
    if OmegaConf.is_interpolation(model, "width") and (
        why := own_width(model.backbone, model.weights, width=model.width)
    ):
        model.width = WIDTH
        if not follows(cfg):
            print(why)


def claim(cfg: DictConfig, hold: ExitStack) -> Path | None:
    """The run's folder, None if it is done. The first process of a run claims and holds it; the
    others find it claimed."""
    folder = Path(cfg.run_dir)
    if follows(cfg):
        return None if (folder / "finished.json").exists() else folder
    hold.enter_context(runs.held(folder))
    if cfg.refresh and "cohort" not in cfg.unused:
        renew(cfg)
    return runs.claim(overrides.asked(cfg))


def renew(cfg: DictConfig) -> None:
    """Compares the cohort's store with its source, and makes it anew where that has changed."""
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare

    prepare(instantiate(cfg.cohort), cfg.data_root, refresh=True)


def follows(cfg: DictConfig) -> bool:
    """Is this one of a run's further processes?"""
    return processes.follows(cfg.trainer)


def inspect_cohort(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Tables of who is in the cohort and who is not, what of its tables was understood, and Fig. 1;
    nothing is prepared."""
    from hydra.utils import instantiate
    from rich.console import Console

    from cmrdata.prepare import expected
    from cmrstudy import figures, inspection

    cohort, console = instantiate(cfg.cohort), Console()
    columns = cohort.columns()
    runs.write_atomic(folder / "columns.csv", columns.to_csv(index=False))
    inspection.show(console, inspection.column_table(columns), notes=inspection.not_found(columns))
    try:
        subjects, rejected = inspection.inspect(cohort, Path(cfg.data_root), volumes=cfg.volumes)
    except ValueError:  # refused for its table, maybe: what was left out tells why
        inspection.show(console, notes=cohort.notes())
        raise
    runs.write_atomic(folder / "subjects.csv", subjects.to_csv(index=False))
    runs.write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
    notes = [
        *cohort.notes(),
        *inspection.sizes(cohort, subjects),
        *inspection.changes(cohort, Path(cfg.data_root)),
    ]
    if len(rejected) > cohort.max_rejected * (len(subjects) + len(rejected)):
        notes.append(
            f"more than {cohort.max_rejected:.0%} of the subjects are rejected: preparing would stop here "
            "(cohort.max_rejected)"
        )
    inspection.show(console, *inspection.summary(subjects, rejected), notes=notes)
    if subjects.empty:
        raise ValueError(
            f"cohort {cohort.name}: no usable subject; {folder / 'rejected.csv'} has the reasons, by subject. "
            f"{expected(cohort, rejected)}".rstrip()
        )
    figures.save(figures.demographics(subjects), folder / "fig1_demographics")
    return {"subjects": len(subjects), "rejected": len(rejected)}


def withdraw_participants(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Takes withdrawn participants out of everything below data_root and the runs; nothing printed
    names them."""
    import pandas as pd
    from hydra.utils import instantiate
    from rich.console import Console

    from cmrdata.prepare import keep_place
    from cmrdata.pseudonyms import salt_mark
    from cmrdata.withdraw import Trace, purge
    from cmrstudy.inspection import shown

    cohort, data = instantiate(cfg.cohort), Path(cfg.data_root)
    names = cohort.withdrawn()
    traces = pd.DataFrame(
        purge(names, mark=salt_mark(data), data=data, runs=Path(cfg.preset.runs)),
        columns=list(Trace._fields),
    )
    keep_place(cohort, data)
    runs.write_atomic(folder / "withdrawn.csv", traces.to_csv(index=False))
    console = Console()
    if len(traces):
        console.print(shown(f"{len(names)} withdrawn participants", traces))
    else:
        console.print(
            f"none of the {len(names)} withdrawn participants is in any store, plan or run: nothing to remove"
        )
    return {"listed": len(names), "places": len(traces)}


def train_base(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Autoencoder, then U-Net on its latents; writes folder/base."""
    import torch
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare
    from cmrgen.base.small import save_base
    from cmrgen.training import small_base
    from cmrgen.training.latents import Latents

    if cfg.ckpt_path or cfg.weights:
        raise ValueError(
            "experiment=base trains two networks, one after the other: it takes no ckpt_path and no weights"
        )
    cohort, data = instantiate(cfg.cohort), cfg.data
    with attempt(cfg, folder) as limits:
        store = prepare(cohort, cfg.data_root)
        uses(cfg, folder, "cohort", fingerprint=store.fingerprint, at=store.folder)
        tell_draws(cfg, folder, store.index[store.index.split.isin(list(data.splits))])
        first = instantiate(cfg.model.autoencoder, augment=data.copies > 1)
        images = small_base.Images(
            store,
            splits=list(data.splits),
            steps=first.hparams.steps,
            batch_size=data.autoencoder_batch_size,
            seed=cfg.seed,
            max_repeats=data.max_repeats,
            workers=data.workers,
        )
        begun, stage = fit(
            cfg, folder / "autoencoder", first, images, limits, most=first.hparams.steps
        )
        torch.manual_seed(cfg.seed)
        sample = torch.from_numpy(store.images[:: max(1, len(store.images) // 512)].copy())
        second = instantiate(cfg.model.unet, latent=cohort.pixels // 4)
        frozen = small_base.assemble(
            first.vae,
            second.average,
            small_base.text_tower(cfg.seed),
            pixels=cohort.pixels,
            images=sample,
            channels=cfg.channels,
        )
        second.setup_base(frozen)
        latents = Latents(
            cohort=cohort,
            root=cfg.data_root,
            base=frozen,
            batch_size=data.batch_size,
            splits=data.splits,
            fields=data.fields,
            copies=data.copies,
            max_repeats=data.max_repeats,
            seed=cfg.seed,
            workers=data.workers,
            val_images=data.val_images,
        )
        ended, second_stage = fit(
            cfg, folder / "unet", second, latents, limits, most=second.hparams.steps
        )
    if follows(cfg):
        return {}
    save_base(frozen, folder / "base", text_config=small_base.TEXT)
    facts = {
        "command": paths.shareable(sys.argv),
        "seed": cfg.seed,
        "cohort": store.folder.name,
        "cohort_fingerprint": store.fingerprint,
        "pixels": store.meta["pixels"],
        "fov_mm": store.meta["settings"].get("fov_mm"),
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


def train_controlnet(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The ControlNet; writes folder/controlnet, which generate.py loads."""
    from hydra.utils import instantiate

    from cmrdata import scale
    from cmrdata.prepare import prepare
    from cmrgen.base.load import check_base
    from cmrgen.render.generator import save_generator
    from cmrgen.training.controlnet import start_from
    from cmrgen.training.preview import PreviewGrid

    with attempt(cfg, folder) as limits:
        check_base(**cfg.base.load)
        store = prepare(instantiate(cfg.cohort), cfg.data_root)  # before gigabytes of weights
        uses(cfg, folder, "cohort", fingerprint=store.fingerprint, at=store.folder)
        module = instantiate(cfg.model)
        if not follows(cfg):
            scale.tell(
                scale.for_a_base(
                    store.meta["pixels"], module.base.pixels, own=cfg.base.frame.pixels
                )
            )
        data = instantiate(cfg.data, _partial_=True)(base=module.base)
        uses(cfg, folder, "base.weights", fingerprint=module.base.fingerprint, at=cfg.base.weights)
        tell_draws(cfg, folder, data.training)
        preview = PreviewGrid(
            folder / "previews",
            sampler=instantiate(cfg.sampler),
            allow_real_images=bool(OmegaConf.select(cfg, "logger.allow_real_images")),
        )
        _, metrics = fit(
            cfg, folder, module, data, limits, callbacks=[preview], start_from=start_from
        )
    if follows(cfg):
        return {}
    facts = {
        **metrics,
        "cohort": store.folder.name,
        "cohort_fingerprint": store.fingerprint,
        "pixels": store.meta["pixels"],
        "fov_mm": store.meta["settings"].get("fov_mm"),
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


def export_generator(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A trained ControlNet for stock diffusers, with its card, in folder/model."""
    from hydra.utils import instantiate

    from cmrgen.publish.diffusers_folder import export
    from cmrgen.render.generator import load_generator

    sampler = instantiate(cfg.sampler)
    generator = load_generator(cfg.generator, base_weights=cfg.base.weights)
    uses(cfg, folder, "generator", fingerprint=generator.facts["fingerprint"], at=cfg.generator)
    made = export(
        generator,
        folder / "model",
        command=generator.facts.get("command", ""),
        metrics=runs.facts(Path(cfg.generator)),
        parts=cfg.parts,
        sampler=sampler,
    )
    return {"model": str(made), "generator": generator.facts["fingerprint"]}


def share_set(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A synthetic set in formats that others read, with its card."""
    from cmrdata.store import Store
    from cmrgen.publish.images import share

    made = Store.open(cfg.synthetic_set)
    uses(cfg, folder, "synthetic_set", fingerprint=made.fingerprint, at=cfg.synthetic_set)
    written = share(made, folder, formats=list(cfg.formats), audit=cfg.audit)
    return {
        "set": made.fingerprint,
        "images": len(made.index),
        "folders": [str(path) for path in written],
    }


def train_classifier(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One arm and seed; the best epoch's predictions go to folder/predictions.csv."""
    import torch
    from hydra.utils import instantiate

    from cmrcls import mitigation
    from cmrcls.arms import predictions
    from cmrcls.classifier import start_from
    from cmrcls.network import check_network
    from cmrcls.run_summary import classifier_boards

    rival, dry, asked = cfg.mitigation, bool(cfg.trainer.fast_dev_run), cfg.model
    mitigation.check_after(rival.after, attribute=rival.attribute, constraint=rival.constraint)
    check_network(asked.backbone, weights=asked.weights, width=asked.width, pixels=asked.pixels)
    data = instantiate(cfg.data)
    best = folder / "checkpoints" / "best.ckpt"
    with attempt(cfg, folder) as limits:
        data.setup()
        mitigation.check_groups(
            rival.name, choices=rival, index=data.index, cohort=data.cohort.name
        )
        if not follows(cfg):
            tell_size(cfg, data.store.meta["pixels"])
        # no download for what is replaced
        begins = {"weights": None} if cfg.weights or cfg.ckpt_path else {}
        module = instantiate(cfg.model, groups=data.groups, **begins)
        uses(cfg, folder, "cohort", fingerprint=data.store.fingerprint, at=data.store.folder)
        uses_weights(cfg, folder, module.network.origin)
        if data.synthetic_fingerprint:
            at = cfg.synthetic_set
            known = {"kind": kind_at(at), "origin": origin_at(at)}
            uses(
                cfg, folder, "synthetic_set", fingerprint=data.synthetic_fingerprint, at=at, **known
            )
        # the batch is divided among processes, as Draws divides the draws; each validates and
        # predicts on everything
        fitted, metrics = fit(
            cfg,
            folder,
            module,
            data,
            limits,
            monitor="val_balanced_accuracy",
            divide=True,
            start_from=start_from,
            use_distributed_sampler=False,
        )
        if dry:
            outputs = fitted.predict(module, datamodule=data)
            return {"predictions": len(predictions(data.index, outputs, labels=data.labels))}
        if fitted.strategy.reduce_boolean_decision(not best.exists(), all=False):
            if fitted.is_global_zero:
                print(
                    f"{folder}: no validation chose an epoch, so the last weights are kept as best.ckpt and predict"
                )
            fitted.save_checkpoint(best, weights_only=True)
        kept = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(kept["state_dict"])
        if rival.after == "last_layer":
            mitigation.refit_last_layer(module, fitted, data, seed=cfg.seed)
            if fitted.is_global_zero:  # repeating it changes nothing
                fitted.strategy.checkpoint_io.save_checkpoint(
                    {**kept, "state_dict": module.state_dict()}, best
                )
        outputs = fitted.predict(module, datamodule=data)
    if fitted.is_global_zero:
        table = predictions(data.index, outputs, labels=data.labels)
        if rival.after == "thresholds":
            table = mitigation.group_thresholds(
                table, attribute=rival.attribute, constraint=rival.constraint, seed=cfg.seed
            )
        runs.write_atomic(folder / "predictions.csv", table.to_csv(index=False))
        classifier_boards(fitted.loggers, table, step=fitted.global_step)
    return {
        **metrics,
        "fingerprint": file_hash(best),
        "started_from": module.network.origin.started_from,
        "normalisation": {
            name: [round(float(v), 6) for v in kept["state_dict"][name]] for name in ("mean", "std")
        },
        "split_fingerprint": data.split_fingerprint,
        "names": data.store.meta.get("names"),
        "training_images": int((data.index.split == "train").sum()),
        "steps": fitted.global_step,
        "best_epoch": min(kept["epoch"], fitted.current_epoch - 1),
    }


def tell_size(cfg: DictConfig, pixels: int) -> None:
    """What a classifier's network enlarges, and a set that was named and can't say yet how large
    its pictures are."""
    from cmrdata import scale

    scale.tell(scale.for_a_classifier(pixels, cfg.model.pixels))
    if not Path(cfg.synthetic_set).exists() and "synthetic_set" in overrides.parts(cfg):
        scale.tell(
            f"synthetic_set={cfg.synthetic_set} is not there yet, so this run's pictures have {pixels} px; if the set will "
            "have others, give its base= or cohort.pixels="
        )


def uses_weights(cfg: DictConfig, folder: Path, origin: Any) -> None:
    """Records what a classifier's network starts from: published weights by name or as a file, or
    none."""
    kind, _, mark = origin.started_from.partition(" ")
    if kind != "file":
        uses(cfg, folder, "model.weights", fingerprint=origin.started_from, at=None)
        return
    uses(cfg, folder, "model.weights", fingerprint=mark, at=cfg.model.weights)
    if not follows(cfg):
        head = (
            f"but for {', '.join(origin.fresh)}, which start anew"
            if origin.fresh
            else "its last layer, too"
        )
        print(f"{folder}: starts from the weights of {Path(cfg.model.weights).name}, {head}")


def explain_classifier(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Where a finished classifier looks; the pictures show real images and stay in the run's
    folder."""
    import numpy as np
    import torch
    from hydra.utils import instantiate

    from cmrcls.explain import by_subgroup, explain, pictured
    from cmrstudy import figures

    run = Path(cfg.classifier)
    made, config = runs.record(run), OmegaConf.create(runs.config(run))
    if made is None or made.state != "finished":
        raise FileNotFoundError(
            f"classifier={run}: no finished classifier there; train it, or give another folder"
        )
    uses(cfg, folder, "classifier", fingerprint=made.facts["fingerprint"], at=run)
    if cfg.cohort._target_ == config.cohort._target_:  # where it lies now, if it has moved
        moved = {
            key: cfg.cohort[key] for key in ("root", "table", "exclude") if cfg.cohort.get(key)
        }
        config.data.cohort.update(moved)
    data = instantiate(config.data, root=cfg.data_root)
    data.setup()
    if data.store.fingerprint != made.inputs["cohort"]["fingerprint"]:
        raise ValueError(
            f"{run}: its cohort {config.cohort.name} has changed since; train the classifier again"
        )
    module = instantiate(config.model, groups=data.groups, weights=None, compile=False)
    best = torch.load(run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    explained = explain(
        module.to("cuda" if torch.cuda.is_available() else "cpu"), data, cells=cfg.cells
    )
    subject = data.index.subject[explained.images.row].to_numpy()
    tables = {
        "explain": by_subgroup(explained.images),
        "explain_images": explained.images.assign(subject=subject),
    }
    for name, table in tables.items():
        runs.write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    for disease in module.labels:
        figures.save(
            pictured(explained, data, disease, count=cfg.count), folder / f"explain_{disease}"
        )
    if cfg.keep:
        np.savez(folder / "maps.npz", maps=explained.maps)
    print(f"{folder}: the figures show real images; they stay there")
    heart = tables["explain"].query("axis == 'overall' and place == 'heart'").set_index("disease")
    shares = {
        "heart_share": heart.share.round(4).to_dict(),
        "heart_area": heart.area.round(4).to_dict(),
    }
    return {
        "classifier": str(run),
        "layer": explained.layer,
        "cells": explained.maps.shape[-1],
        **shares,
    }


def uses(cfg: DictConfig, folder: Path, key: str, **known: Any) -> None:
    """Records an input of the run, once for all its processes."""
    if not follows(cfg):
        runs.uses(folder, key, **known)


def tell_draws(cfg: DictConfig, folder: Path, table: Any) -> None:
    """How often an image of each group is drawn, before hours go by; whole in draws.csv. Told by a
    run's first process."""
    from cmrgen.plan.repeats import draws_by_group, draws_text

    if table.empty or follows(cfg):
        return
    groups = draws_by_group(table, max_repeats=cfg.data.max_repeats)
    runs.write_atomic(folder / "draws.csv", groups.to_csv(index=False))
    print(draws_text(table, max_repeats=cfg.data.max_repeats), flush=True)


def attempt(cfg: DictConfig, folder: Path) -> Any:
    """What ends this attempt: trainer.max_time from now on, and signals."""
    from cmrstudy.attempts import Attempt

    max_time = cfg.trainer.max_time
    return Attempt(
        folder,
        max_time=OmegaConf.to_container(max_time) if OmegaConf.is_config(max_time) else max_time,
    )


def fit(
    cfg: DictConfig,
    folder: Path,
    module: Any,
    data: Any,
    limits: Any,
    *,
    most: int = -1,
    start_from: Callable[[Any, Path], str] | None = None,
    callbacks: Sequence[Any] = (),
    monitor: str | None = None,
    divide: bool = False,
    **trainer: Any,
) -> tuple[Any, dict[str, Any]]:
    """cmrstudy.training.fit with what the config says. `most`: steps at most. `start_from`: takes
    the module and weights."""
    from hydra.utils import instantiate

    from cmrstudy import training

    options = instantiate(cfg.trainer, _target_="builtins.dict", _convert_="all") | trainer
    if most > 0:
        asked = options.get("max_steps") or -1
        options["max_steps"] = min(most, asked) if asked > 0 else most
    weights = Path(cfg.weights) if cfg.weights else None
    fitted, metrics = training.fit(
        module,
        folder=folder,
        data=data,
        trainer=options,
        attempt=limits,
        seed=cfg.seed,
        loggers=[] if cfg.trainer.fast_dev_run else loggers(cfg, folder),
        callbacks=[
            *callbacks,
            *training.accepted(instantiate(cfg.get("callbacks"), _convert_="all")),
        ],
        settings=OmegaConf.to_container(cfg, resolve=True),  # type: ignore[arg-type]
        minutes=cfg.checkpoint.minutes,
        steps=cfg.checkpoint.steps,
        monitor=monitor,
        divide=divide,
        ckpt_path=Path(cfg.ckpt_path) if cfg.ckpt_path else None,
        weights=(lambda: start_from(module, weights)) if weights and start_from else None,
    )
    if fitted.global_step < most and fitted.is_global_zero and not cfg.trainer.fast_dev_run:
        print(
            f"{folder}: {fitted.global_step:,} of {most:,} steps, as trainer.max_epochs and trainer.max_steps say"
        )
    return fitted, metrics


def loggers(cfg: DictConfig, folder: Path) -> list[Any]:
    """One per name. What they write lies in `folder`, so that the two trainings of a base stay
    apart."""
    from hydra.utils import instantiate

    return [
        instantiate(of, **({"save_dir": str(folder)} if "save_dir" in of else {}))
        for of in dashboards.asked(cfg.get("logger"))
    ]


if __name__ == "__main__":
    commands.begin("train", conf=Path(__file__).parent / "conf", about=USAGE)
    main()
