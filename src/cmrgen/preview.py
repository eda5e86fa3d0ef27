"""Pictures while a ControlNet trains: mask | real | synthetic beside the run after every validation."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
import torch

from cmrgen.data import Latents
from cmrgen.portions import BESIDE_TRAINING
from cmrgen.render import Generator, resized
from cmrgen.sampler import Sampler
from cmrstudy.dashboards import log_figure
from cmrstudy.figures import coloured, image_grid, save


class PreviewGrid(L.Callback):
    """Renders `count` validation rows (evenly spread) with the network so far; ED above, ES below.

    The grid with masks and real images stays in `folder`; loggers get the synthetic images only, unless
    `allow_real_images`.
    """

    def __init__(self, folder: Path, *, sampler: Sampler, count: int = 6, allow_real_images: bool = False) -> None:
        self.folder, self.sampler, self.count = folder, sampler, count
        self.allow_real_images = allow_real_images

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(data, Latents):
            return
        rows = data.val_rows[np.linspace(0, len(data.val_rows) - 1, min(self.count, len(data.val_rows))).astype(int)]
        masks, real = data.store.masks[data.rows[rows]], data.store.images[data.rows[rows]]
        generator = Generator(base=module.base, controlnet=module.best, facts={}, budget=BESIDE_TRAINING)
        synthetic = generator.images(
            torch.from_numpy(masks),
            prompts=data.table.prompt.iloc[rows].tolist(),
            seeds=range(len(rows)),
            guidance=[self.sampler.guidance] * len(rows),
            sampler=self.sampler,
        )
        module.base.release("vae")
        shown = resized(synthetic, masks.shape[-1]).cpu().numpy()
        cells = [[coloured(m) for m in masks[:, p]] + list(real[:, p]) + list(shown[:, p]) for p in (0, 1)]
        n = len(rows)
        grid = [[*row[k * n : (k + 1) * n]] for k in range(3) for row in cells]
        titles = [f"{what} {phase}" for what in ("mask", "real", "synthetic") for phase in ("ED", "ES")]
        drawn = image_grid(grid, titles)
        within = trainer.state.fn == "fit" and not trainer.is_last_batch  # one of several validations of an epoch
        save(drawn, self.folder / f"epoch-{trainer.current_epoch:03d}{f'-step-{trainer.global_step:06d}' * within}")
        made = np.concatenate([np.concatenate(list(shown[:, p]), 1) for p in (0, 1)])
        log_figure(trainer.loggers, "synthetic", made, shows="synthetic", step=trainer.global_step)
        if self.allow_real_images:
            log_figure(
                trainer.loggers, "preview", drawn, shows="real", step=trainer.global_step, allow_real_images=True
            )
