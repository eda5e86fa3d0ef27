"""The classifier's experiment: train one arm of real and synthetic images with one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from cmrcls import mitigation
from cmrcls.arms import predictions
from cmrcls.classifier import start_from
from cmrcls.network import check_network
from cmrcls.run_summary import classifier_boards
from cmrdata import scale
from cmrdata.disk import write_atomic
from cmrstudy import overrides
from cmrstudy.experiment import Experiment
from cmrstudy.inputs import file_hash, kind_at, origin_at


def train_classifier(run: Experiment) -> dict[str, Any]:
    """Train one arm with one seed; the best epoch's predictions go to folder/predictions.csv."""
    cfg, folder = run.cfg, run.folder
    rival, asked = cfg.mitigation, cfg.model
    mitigation.check_after(rival.after, attribute=rival.attribute, constraint=rival.constraint)
    check_network(asked.backbone, weights=asked.weights, width=asked.width, pixels=asked.pixels)
    data = run.build(cfg.data)
    best = folder / "checkpoints" / "best.ckpt"
    with run.attempt() as limits:
        data.setup()
        mitigation.check_groups(
            rival.name, choices=rival, index=data.index, cohort=data.cohort.name
        )
        if run.leads:
            tell_size(run, data.store.meta["pixels"])
        # no download for what is replaced
        begins = {"weights": None} if cfg.weights or cfg.ckpt_path else {}
        module = run.build(cfg.model, groups=data.groups, **begins)
        run.uses("cohort", fingerprint=data.store.fingerprint, at=data.store.folder)
        uses_weights(run, module.network.origin)
        if data.synthetic_fingerprint:
            at = cfg.synthetic_set
            known = {"kind": kind_at(at), "origin": origin_at(at)}
            run.uses("synthetic_set", fingerprint=data.synthetic_fingerprint, at=at, **known)
        # the batch is divided among processes, as Draws divides the draws; each validates and
        # predicts on everything
        fitted, metrics = run.fit(
            module,
            data,
            limits,
            monitor="val_balanced_accuracy",
            divide=True,
            start_from=start_from,
            use_distributed_sampler=False,
        )
        if run.rehearses:
            outputs = fitted.predict(module, datamodule=data)
            return {"predictions": len(predictions(data.index, outputs, labels=data.labels))}
        if fitted.strategy.reduce_boolean_decision(not best.exists(), all=False):
            if fitted.is_global_zero:
                print(
                    f"{folder}: no validation chose an epoch, so the last weights are kept as "
                    "best.ckpt and predict"
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
        write_atomic(folder / "predictions.csv", table.to_csv(index=False))
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


def uses_weights(run: Experiment, origin: Any) -> None:
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
