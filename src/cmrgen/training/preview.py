"""Pictures while a ControlNet trains: mask | real | synthetic beside the run after every
validation."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch

from cmrgen.base.portions import BESIDE_TRAINING
from cmrgen.render.drawing import as_stored
from cmrgen.render.generator import Generator
from cmrgen.render.sampler import Sampler
from cmrgen.training.latents import Latents
from cmrstudy.dashboards import log_figure
from cmrstudy.figures import coloured, image_grid, save


class PreviewGrid(L.Callback):
    """Renders validation images of all kinds with the network so far; ED above, ES below.

    Where a single image fills a batch it costs minutes: then nothing is drawn before a checkpoint
    is there, from which the training would go on, or it has ended.

    The grid with masks and real images stays in `folder`; loggers get the synthetic images only,
    unless `allow_real_images`.
    """

    def __init__(self, folder: Path, *, sampler: Sampler, allow_real_images: bool = False) -> None:
        self.folder, self.sampler = folder, sampler
        self.postponed = False
        self.allow_real_images = allow_real_images

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """What is drawn before the first step, so that a wrong mask or cohort is seen at once."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        fresh = trainer.global_step == 0 and not trainer.fast_dev_run and trainer.is_global_zero
        if not fresh or not isinstance(data, Latents) or module.base.pixels**2 >= BESIDE_TRAINING:
            return
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        path = self.draw(trainer, module, named="start")
        for part, training in modes:
            part.training = training
        print(f"{path}: masks, real images, and what is drawn before the first step", flush=True)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        data = trainer.datamodule
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(data, Latents):
            return
        large = module.base.pixels**2 >= BESIDE_TRAINING
        self.postponed = large and trainer.state.fn == "fit" and not _kept(trainer)
        if not self.postponed:
            self.draw(trainer, module)

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.postponed:
            self.postponed = False
            module.eval()
            self.draw(trainer, module)

    def draw(
        self, trainer: L.Trainer, module: L.LightningModule, *, named: str | None = None
    ) -> Path:
        """Draws the grid into the folder and gives the loggers what they may have; the picture's
        path. `named`: its name, by default after the epoch."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        rows = data.pictured.index.to_numpy()
        masks, real = data.store.masks[rows], data.store.images[rows]
        generator = Generator(
            base=module.base, controlnet=module.best, facts={}, budget=BESIDE_TRAINING
        )
        synthetic = generator.images(
            torch.from_numpy(masks),
            prompts=data.pictured.prompt.tolist(),
            seeds=range(len(rows)),
            guidance=[self.sampler.guidance] * len(rows),
            sampler=self.sampler,
        )
        module.base.release("vae")
        pictures = as_stored(synthetic, masks.shape[-1])
        cells = [
            [coloured(m) for m in masks[:, p]] + list(real[:, p]) + list(pictures[:, p])
            for p in (0, 1)
        ]
        n = len(rows)
        grid = [[*row[k * n : (k + 1) * n]] for k in range(3) for row in cells]
        titles = [
            f"{what} {phase}" for what in ("mask", "real", "synthetic") for phase in ("ED", "ES")
        ]
        figure = image_grid(grid, titles)
        # one of several validations of an epoch
        within = trainer.state.fn == "fit" and not trainer.is_last_batch
        epoch = f"epoch-{trainer.current_epoch:03d}{f'-step-{trainer.global_step:06d}' * within}"
        (path, *_) = save(figure, self.folder / (named or epoch))
        strip = np.concatenate([np.concatenate(list(pictures[:, p]), 1) for p in (0, 1)])
        log_figure(trainer.loggers, "synthetic", strip, shows="synthetic", step=trainer.global_step)
        if self.allow_real_images:
            log_figure(
                trainer.loggers,
                "preview",
                figure,
                shows="real",
                step=trainer.global_step,
                allow_real_images=True,
            )
        return path


def _kept(trainer: L.Trainer) -> bool:
    """Whether a checkpoint of this training is on the disk."""
    places = (getattr(callback, "path", None) for callback in trainer.checkpoint_callbacks)
    return any(place is not None and Path(place).exists() for place in places)
