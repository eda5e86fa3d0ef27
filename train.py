"""Inspect a cohort; train a base, a ControlNet or a classifier; export. `python train.py` alone lists the experiments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cmrstudy import dashboards, runs

SCORE = "best_val_balanced_accuracy"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """Runs one job; a classifier's score goes back to the sweeper that tunes it."""
    with ExitStack() as hold:
        if (folder := together(cfg, lambda: claim(cfg, hold))) is None:
            return runs.facts(Path(cfg.run_dir)).get(SCORE)
        return work(cfg, folder)


def work(cfg: DictConfig, folder: Path) -> float | None:
    """The job itself, in its claimed folder."""
    tasks = {"base": train_base, "controlnet": train_controlnet, "classifier": train_classifier}
    trains = cfg.task in tasks
    tasks |= {"inspect": inspect_cohort, "export": export_generator, "share": share_set, "explain": explain_classifier}
    with runs.attempt(folder), dashboards.one_run():
        if trains:
            import lightning as L

            quiet()
            L.seed_everything(cfg.seed, workers=True, verbose=False)
        try:
            facts = tasks[cfg.task](cfg, folder)
        finally:
            if trains:
                part()
    if not follows(cfg):
        runs.finish(folder, **facts)
        print(f"{folder}: finished")
    return facts.get(SCORE)


def claim(cfg: DictConfig, hold: ExitStack) -> Path | None:
    """The run's folder, None if it is done. The first process of a run claims and holds it; the others find it claimed."""
    folder = Path(cfg.run_dir)
    if follows(cfg):
        return None if (cfg.resume or runs.restarted()) and (folder / "finished.json").exists() else folder
    hold.enter_context(runs.held(folder))
    return runs.claim(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


def follows(cfg: DictConfig) -> bool:
    """Is this one of a run's further processes, started by Lightning, torchrun or SLURM?"""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return not alone(cfg) and any(int(os.environ.get(name, 0)) for name in ranks)


def alone(cfg: DictConfig) -> bool:
    """Is the run one process?"""
    return cfg.trainer.devices == 1 and cfg.trainer.num_nodes == 1


def together(cfg: DictConfig, claimed: Callable[[], Path | None]) -> Path | None:
    """What `claimed` gives or raises. SLURM's tasks all run from the start: they get or raise what the first one did."""
    if alone(cfg) or os.environ.get("SLURM_NTASKS", "1") == "1":
        return claimed()
    from lightning import Fabric

    quiet()
    trainer = cfg.trainer
    fabric = Fabric(
        accelerator=trainer.accelerator, devices=trainer.devices, num_nodes=trainer.num_nodes, strategy="ddp"
    )
    fabric.launch()
    try:
        return runs.agreed(fabric, claimed)
    except Exception:
        part()
        raise


def part() -> None:
    """Leaves the other processes, so that the next job of a sweep can have its own."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def inspect_cohort(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Tables of who is in the cohort and who is not, and Fig. 1; nothing is prepared."""
    from hydra.utils import instantiate
    from rich.console import Console

    from cmrdata.prepare import expected
    from cmrstudy import figures, inspection

    cohort = instantiate(cfg.cohort)
    subjects, rejected = inspection.inspect(cohort, Path(cfg.data_root), volumes=cfg.volumes)
    runs.write_atomic(folder / "subjects.csv", subjects.to_csv(index=False))
    runs.write_atomic(folder / "rejected.csv", rejected.to_csv(index=False))
    console = Console()
    for table in inspection.summary(subjects, rejected):
        console.print(table)
    notes = getattr(cohort, "notes", list)()
    if len(rejected) > cohort.max_rejected * (len(subjects) + len(rejected)):
        notes.append(f"more than {cohort.max_rejected:.0%} of the subjects are rejected: preparing would stop here "
                     "(cohort.max_rejected)")  # fmt: skip
    for note in notes:
        console.print(f"- {note}", highlight=False)
    if subjects.empty:
        raise ValueError(f"cohort {cohort.name}: no usable subject, see the reasons above and in {folder}/rejected.csv. "
                         f"{expected(cohort, rejected)}")  # fmt: skip
    figures.save(figures.demographics(subjects), folder / "fig1_demographics")
    return {"subjects": len(subjects), "rejected": len(rejected)}


def train_base(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Autoencoder, then U-Net on its latents; writes folder/base."""
    import torch
    from hydra.utils import instantiate

    from cmrdata.prepare import prepare
    from cmrgen import base, pretrain
    from cmrgen.data import Latents

    cohort = instantiate(cfg.cohort)
    store, data = prepare(cohort, cfg.data_root), cfg.data

    def images(split: list[str], draws: int | None) -> Any:
        return pretrain.image_loader(
            store,
            splits=split,
            batch_size=data.autoencoder_batch_size,
            draws=draws,
            augment=data.copies > 1 and draws is not None,
            seed=cfg.seed,
        )

    first = instantiate(cfg.model.autoencoder)
    draws = first.hparams.steps * data.autoencoder_batch_size
    _, stage = fit(
        cfg,
        folder / "autoencoder",
        first,
        images(list(data.splits), draws),
        images(["val"], None),
        max_epochs=1,
        max_steps=first.hparams.steps,
    )
    torch.manual_seed(cfg.seed)
    sample = torch.from_numpy(store.images[:: max(1, len(store.images) // 512)])
    second = instantiate(cfg.model.unet, latent=cohort.pixels // 4)
    frozen = pretrain.assemble(
        first.vae, second.average, pretrain.text_tower(cfg.seed), pixels=cohort.pixels, images=sample
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
        seed=cfg.seed,
    )
    _, second_stage = fit(cfg, folder / "unet", second, datamodule=latents, max_steps=second.hparams.steps)
    if follows(cfg):
        return {}
    base.save_base(frozen, folder / "base", text_config=pretrain.TEXT)
    facts = {
        "command": " ".join(sys.argv),
        "seed": cfg.seed,
        "cohort": store.folder.name,
        "cohort_fingerprint": store.fingerprint,
        "training images": int(store.index.split.isin(data.splits).sum()),
        **stage,
        **second_stage,
        "base_fingerprint": base.weights_hash(folder / "base"),
    }
    pretrain.write_card(folder / "base", title=f"Latent diffusion base trained on {cohort.name}", facts=facts)
    return facts


def train_controlnet(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The ControlNet; writes folder/controlnet, which generate.py loads."""
    from hydra.utils import instantiate

    from cmrgen.preview import PreviewGrid
    from cmrgen.render import save_generator

    module = instantiate(cfg.model)
    data = instantiate(cfg.data, _partial_=True)(base=module.base)
    preview = PreviewGrid(
        folder / "previews",
        sampler=OmegaConf.to_container(cfg.sampler, resolve=True),
        allow_real_images=bool(OmegaConf.select(cfg, "logger.allow_real_images")),
    )
    _, metrics = fit(cfg, folder, module, datamodule=data, callbacks=[preview])
    if follows(cfg):
        return {}
    facts = {
        **metrics,
        "cohort": data.store.folder.name,
        "cohort_fingerprint": data.store.fingerprint,
        "base": OmegaConf.to_container(cfg.model.base, resolve=True),
        "base_fingerprint": module.base.fingerprint,
        "command": " ".join(sys.argv),
        "fields": [field for field in cfg.data.fields if data.table[field].notna().any()],
        "groups": data.table.iloc[data.train_rows].groupby("group").subject.nunique().to_dict(),
        "training_images": len(data.train_rows),
    }
    return {**facts, "fingerprint": save_generator(module.best, folder / "controlnet", facts)}


def export_generator(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A trained ControlNet for stock diffusers, with its card, in folder/model."""
    from cmrgen.export import export
    from cmrgen.render import load_generator

    generator = load_generator(cfg.generator)
    made = export(
        generator,
        folder / "model",
        command=generator.facts.get("command", ""),
        metrics=runs.facts(Path(cfg.generator)),
        parts=cfg.parts,
        sampler=cfg.sampler.name,
        steps=cfg.sampler.steps,
        guidance=cfg.sampler.guidance,
    )
    return {"model": str(made), "generator": generator.facts["fingerprint"]}


def share_set(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """A synthetic set in formats that others read, with its card."""
    from cmrdata.store import Store
    from cmrgen.share import share

    made = Store.open(cfg.synthetic_set)
    written = share(made, folder, formats=list(cfg.formats), audit=cfg.audit)
    return {"set": made.fingerprint, "images": len(made.index), "folders": [str(path) for path in written]}


def train_classifier(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """One arm and seed; the best epoch's predictions go to folder/predictions.csv."""
    import torch
    from hydra.utils import instantiate

    from cmrcls import mitigation
    from cmrcls.boards import classifier_boards
    from cmrcls.data import predictions

    rival = cfg.mitigation
    mitigation.check_after(rival.after, attribute=rival.attribute, constraint=rival.constraint)
    data = instantiate(cfg.data)
    data.setup()
    module = instantiate(cfg.model, groups=data.groups)
    best = folder / "checkpoints" / "best.ckpt"
    # the batch is divided among processes, as Draws divides the draws; each validates and predicts on everything
    fitted, metrics = fit(
        cfg,
        folder,
        module,
        datamodule=data,
        monitor="val_balanced_accuracy",
        divide=True,
        use_distributed_sampler=False,
    )
    kept = torch.load(best, map_location="cpu", weights_only=True)
    module.load_state_dict(kept["state_dict"])
    if rival.after == "last_layer":
        mitigation.refit_last_layer(module, fitted, data, seed=cfg.seed)
        if fitted.is_global_zero:
            torch.save({**kept, "state_dict": module.state_dict()}, best)  # repeating it changes nothing
    outputs = fitted.predict(module, datamodule=data)
    arm = {
        "arm": str(cfg.synthetic),
        "mitigation": rival.name,
        "fold": cfg.fold,
        "seed": cfg.seed,
    }
    score = fitted.checkpoint_callback.best_model_score  # -inf where validation holds one class only
    if fitted.is_global_zero:
        table = predictions(data.index, outputs, labels=data.labels).assign(**arm)
        if rival.after == "thresholds":
            table = mitigation.group_thresholds(
                table, attribute=rival.attribute, constraint=rival.constraint, seed=cfg.seed
            )
        runs.write_atomic(folder / "predictions.csv", table.to_csv(index=False))
        classifier_boards(fitted.loggers, table, step=fitted.global_step)
    return {
        **metrics,
        **arm,
        "cohort_fingerprint": data.store.fingerprint,
        "synthetic_fingerprint": data.synthetic_fingerprint,
        "split_fingerprint": data.split_fingerprint,
        "training_images": int((data.index.split == "train").sum()),
        "steps": fitted.global_step,
        "best_epoch": kept["epoch"],
        SCORE: round(float(score), 5) if score.isfinite() else float("nan"),
    }


def explain_classifier(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Where a finished classifier looks; the pictures show real images and stay in the run's folder."""
    import numpy as np
    import torch
    from hydra.utils import instantiate

    from cmrcls.explain import by_subgroup, explain, pictured
    from cmrstudy import figures

    run = Path(cfg.classifier)
    made, config = runs.facts(run), OmegaConf.create(runs.config(run))
    data = instantiate(config.data, root=cfg.data_root)
    data.setup()
    if data.store.fingerprint != made["cohort_fingerprint"]:
        raise ValueError(f"{run}: its cohort {config.cohort.name} has changed since; train the classifier again")
    module = instantiate(config.model, groups=data.groups, weights=None, compile=False)
    best = torch.load(run / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(best["state_dict"])
    explained = explain(module.to("cuda" if torch.cuda.is_available() else "cpu"), data, cells=cfg.cells)
    subject = data.index.subject[explained.images.row].to_numpy()
    tables = {"explain": by_subgroup(explained.images), "explain_images": explained.images.assign(subject=subject)}
    for name, table in tables.items():
        runs.write_atomic(folder / f"{name}.csv", table.to_csv(index=False))
    for disease in module.labels:
        figures.save(pictured(explained, data, disease, count=cfg.count), folder / f"explain_{disease}")
    if cfg.keep:
        np.savez(folder / "maps.npz", maps=explained.maps)
    print(f"{folder}: the figures show real images; they stay there")
    heart = tables["explain"].query("axis == 'overall' and place == 'heart'").set_index("disease")
    shares = {"heart_share": heart.share.round(4).to_dict(), "heart_area": heart.area.round(4).to_dict()}
    return {"classifier": str(run), "layer": explained.layer, "cells": explained.maps.shape[-1], **shares}


def fit(
    cfg: DictConfig,
    folder: Path,
    module: Any,
    *loaders: Any,
    datamodule: Any = None,
    callbacks: Sequence[Any] = (),
    monitor: str | None = None,
    divide: bool = False,
    **trainer: Any,
) -> tuple[Any, dict[str, Any]]:
    """Lightning's fit with the run's loggers, a resumable last.ckpt, and the final metrics as plain numbers.

    `divide`: datamodule.batch_size is that of all processes together. A stop before the last epoch is told and is
    among the metrics as `stopped`. Callbacks of cfg.trainer (an EarlyStopping) are kept.
    """
    import torch
    from hydra.utils import instantiate
    from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint

    place: Any = {"dirpath": folder / "checkpoints", "enable_version_counter": False}
    keep = [ModelCheckpoint(filename="best", monitor=monitor, mode="max", **place)] if monitor else []
    keep.append(ModelCheckpoint(filename="last", **place))  # save_last=True would skip epochs that are not the best
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    tell = LambdaCallback(on_fit_start=lambda fitter, _: dashboards.describe(fitter.loggers, settings))
    last = folder / "checkpoints" / "last.ckpt"
    given = instantiate(cfg.trainer.get("callbacks")) or []
    made = loggers(cfg.get("logger"))
    if last.exists() and not follows(cfg):
        step = torch.load(last, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        for logger in made:
            dashboards.continue_csv(logger, step=step)
    options = {
        "logger": made,
        "callbacks": [*keep, tell, *callbacks, *given],
        "default_root_dir": folder,
    }
    fitter = instantiate(cfg.trainer, **options, **trainer)
    if divide:
        datamodule.batch_size = share(datamodule.batch_size, processes=fitter.num_devices * fitter.num_nodes)
    if fitter.global_rank:
        torch.manual_seed(
            cfg.seed + 1_000_003 * fitter.global_rank
        )  # augmentation of its own; weights come from the first
    fitter.fit(module, *loaders, datamodule=datamodule, ckpt_path=last if last.exists() else None, weights_only=True)
    metrics: dict[str, Any] = {name: round(float(value), 5) for name, value in fitter.callback_metrics.items()}
    if reason := stopped(fitter):
        if fitter.is_global_zero:
            print(f"{folder}: {reason}")
        metrics["stopped"] = reason
    return fitter, metrics


def loggers(configs: DictConfig | None) -> Any:
    """One per name."""
    from hydra.utils import instantiate

    return [instantiate(of) for of in dashboards.asked(configs)]


def share(batch_size: int, *, processes: int) -> int:
    """Images that each process takes of a batch, so that a step is the same whatever the number of processes."""
    if batch_size % processes:
        raise ValueError(
            f"data.batch_size={batch_size} can't be divided among {processes} processes; give a multiple of "
            f"{processes}, or another trainer.devices"
        )
    return batch_size // processes


def stopped(fitter: Any) -> str | None:
    """Why training ended before its last epoch, in a sentence; None if it did not."""
    epochs, steps = fitter.max_epochs, fitter.max_steps
    if fitter.current_epoch >= (epochs or 0) or 0 < steps <= fitter.global_step:  # max_epochs=-1: no last epoch
        return None
    reasons = [getattr(callback, "stopping_reason_message", None) for callback in fitter.callbacks]
    reason = next(filter(None, reasons), "a callback or trainer.max_time asked for it")
    return f"stopped early, after {fitter.current_epoch} of {epochs} epochs: {reason}"


def quiet() -> None:
    """Keeps tips, device lists and foreign deprecations from burying our own lines."""
    import logging
    import warnings

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for message in (
        ".*LeafSpec.*",
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*module.s. in eval mode.*",
        ".*logs directory .* exists.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def experiments() -> str:
    """Name and first comment of each file in conf/experiment."""
    files = sorted((Path(__file__).parent / "conf" / "experiment").glob("*.yaml"))
    lines = [f"  experiment={f.stem:12s} {f.read_text().splitlines()[1].lstrip('# ')}" for f in files]
    return "python train.py experiment=<name> [key=value ...]\n\n" + "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(experiments())
    main()
