"""The classifier's experiment: train one arm of real and synthetic images with one seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import OmegaConf
from torch import Tensor

from cmrcls.arms import Arms, prediction_table
from cmrcls.classifier import Classifier, start_from
from cmrcls.mitigation.groups import check_mitigation
from cmrcls.mitigation.parts import build_part, part_class
from cmrcls.network import Origin, check_network
from cmrcls.run_summary import classifier_boards
from cmrdata import scale
from cmrdata.disk import write_atomic
from cmrstudy import overrides
from cmrstudy.experiment import Experiment
from cmrstudy.inputs import file_hash, kind_at, origin_at


def train_classifier(run: Experiment) -> dict[str, Any]:
    """Train one arm with one seed; the best epoch's predictions go to folder/predictions.csv."""
    cfg, folder = run.cfg, run.folder
    # plain settings, which the checkpoint keeps
    parts: dict[str, Any] = {
        key: OmegaConf.to_container(cfg.mitigation[key], resolve=True) for key in ("loss", "heads")
    }
    for part in parts.values():
        part_class(part)  # one that is not there is told before any data are prepared
    model = cfg.model
    check_network(model.backbone, weights=model.weights, width=model.width, pixels=model.pixels)
    data = run.build(cfg.data)
    after = run.build(cfg.mitigation.after)  # behind the cohort, whose file may add axes
    best = folder / "checkpoints" / "best.ckpt"
    with run.attempt() as limits:
        data.setup()
        modules = [build_part(part, groups=data.groups) for part in parts.values()]
        check_mitigation(
            cfg.mitigation.name,
            (data.sampling, *modules, after),
            index=data.index,
            cohort=data.cohort.name,
        )
        module = new_classifier(run, data, **parts)
        # the batch is divided among processes, as Draws divides the draws; each validates and
        # predicts on everything
        trainer, metrics = run.fit(
            module,
            data,
            limits,
            monitor="val_balanced_accuracy",
            divide=True,
            start_from=start_from,
            use_distributed_sampler=False,
        )
        if run.rehearses:
            outputs = trainer.predict(module, datamodule=data)
            return {"predictions": len(prediction_table(data.index, outputs, labels=data.labels))}
        kept, table = best_predictions(trainer, module, data, after, best=best, seed=cfg.seed)
    if trainer.is_global_zero:
        write_atomic(folder / "predictions.csv", table.to_csv(index=False))
        classifier_boards(trainer.loggers, table, step=trainer.global_step)
    return {
        **metrics,
        "fingerprint": file_hash(best),
        **arm_facts(data, module),
        "steps": trainer.global_step,
        "best_epoch": min(kept["epoch"], trainer.current_epoch - 1),
    }


def best_predictions(
    trainer: Any, module: Classifier, data: Arms, after: Any, *, best: Path, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The best epoch's checkpoint, and its predictions after what the mitigation does then; what
    that changes in the weights is kept in the checkpoint's file."""
    kept = best_epoch(trainer, best)
    module.load_state_dict(kept["state_dict"])
    table: pd.DataFrame = after.predict(module, trainer, data, seed=seed)
    if trainer.is_global_zero and differs(module, kept["state_dict"]):
        # repeating it changes nothing
        trainer.strategy.checkpoint_io.save_checkpoint(
            {**kept, "state_dict": module.state_dict()}, best
        )
    return kept, table


def arm_facts(data: Arms, module: Classifier) -> dict[str, Any]:
    """What a finished run tells of its arm and of where its network began."""
    training = data.index[data.index.split == "train"]
    return {
        "started_from": module.network.origin.started_from,
        "normalisation": {
            name: [round(float(v), 6) for v in getattr(module, name)] for name in ("mean", "std")
        },
        "split_fingerprint": data.split_fingerprint,
        "names": data.store.meta.get("names"),
        "training_images": len(training),
        "synthetic_images": int((~training.real).sum()),
    }


def new_classifier(run: Experiment, data: Arms, **parts: Any) -> Classifier:
    """The untrained classifier of a run, whose inputs are recorded.

    Args:
        run: the run.
        data: its arm, set up.
        parts: settings of the mitigation's loss and heads.
    """
    cfg = run.cfg
    if run.leads:
        tell_size(run, data.store.meta["pixels"])
    # no download for what is replaced
    begins = {"weights": None} if cfg.weights or cfg.ckpt_path else {}
    module: Classifier = run.build(cfg.model, _partial_=True)(groups=data.groups, **parts, **begins)
    run.uses("cohort", fingerprint=data.store.fingerprint, at=data.store.folder)
    uses_weights(run, module.network.origin)
    if data.synthetic_fingerprint:
        at = cfg.synthetic_set
        known = {"kind": kind_at(at), "origin": origin_at(at)}
        run.uses("synthetic_set", fingerprint=data.synthetic_fingerprint, at=at, **known)
    return module


def best_epoch(trainer: Any, best: Path) -> dict[str, Any]:
    """The checkpoint that validation has chosen; of the last weights, where it has chosen none."""
    if trainer.strategy.reduce_boolean_decision(not best.exists(), all=False):
        if trainer.is_global_zero:
            print(
                f"{best.parents[1]}: no validation chose an epoch, so the last weights are kept as "
                "best.ckpt and predict"
            )
        trainer.save_checkpoint(best, weights_only=True)
    checkpoint: dict[str, Any] = torch.load(best, map_location="cpu", weights_only=True)
    return checkpoint


def differs(module: Classifier, state: Mapping[str, Tensor]) -> bool:
    """Whether a module's weights are others than those of `state`, on the CPU."""
    return any(
        not torch.equal(value.cpu(), state[name]) for name, value in module.state_dict().items()
    )


def tell_size(run: Experiment, pixels: int) -> None:
    """Print what a classifier's network enlarges, and that a set which is not there yet can't say
    how large its pictures are."""
    cfg = run.cfg
    scale.tell(scale.for_a_classifier(pixels, cfg.model.pixels))
    if not Path(cfg.synthetic_set).exists() and "synthetic_set" in overrides.parts(cfg):
        scale.tell(
            f"synthetic_set={cfg.synthetic_set} is not there yet, so this run's pictures have "
            f"{pixels} px; if the set will have others, give its base= or cohort.pixels="
        )


def uses_weights(run: Experiment, origin: Origin) -> None:
    """Record what a classifier's network starts from: published weights by name or as a file, or
    none."""
    kind, _, mark = origin.started_from.partition(" ")
    if kind != "file":
        run.uses("model.weights", fingerprint=origin.started_from, at=None)
        return
    run.uses("model.weights", fingerprint=mark, at=run.cfg.model.weights)
    if run.leads:
        head = (
            f"but for {', '.join(origin.fresh)}, which start anew"
            if origin.fresh
            else "its last layer, too"
        )
        name = Path(run.cfg.model.weights).name
        print(f"{run.folder}: starts from the weights of {name}, {head}")
