"""A two-layer network that draws everything a real one does, and what ends its training at a chosen
place."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cmrstudy.attempts import Attempt
from cmrstudy.continuing import EpochDraws, Place
from cmrstudy.processes import quiet
from cmrstudy.training import fit

COUNT, BATCH = 22, 4  # an epoch of six batches, the last one half full


class Draws(EpochDraws):
    def drawn(self) -> torch.Tensor:
        return torch.randperm(
            self.count, generator=torch.Generator().manual_seed(self.seed + self.epoch)
        )


class Rows(Dataset):
    def __init__(self) -> None:
        self.x = torch.randn(COUNT, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, at: int) -> torch.Tensor:
        return self.x[at]


class Data(L.LightningDataModule):
    begin = Place()

    def __init__(self, workers: int = 0, batch_size: int = BATCH) -> None:
        super().__init__()
        self.workers, self.batch_size = workers, batch_size

    def train_dataloader(self) -> DataLoader:
        sampler = Draws(COUNT, seed=3, begin=self.begin, batch_size=self.batch_size)
        return DataLoader(
            Rows(), sampler=sampler, batch_size=self.batch_size, num_workers=self.workers
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Rows(), batch_size=8)


class Stub(L.LightningModule):
    """Dropout (global generator), batch norm, a warm-up by steps and a plateau by epochs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1)
        )
        self.seen: list[list[float]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.seen.append(batch[:, 0].tolist())
        loss = (self.network(batch)[:, 0] - batch.sum(1)).square().mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        loss = (self.network(batch)[:, 0] - batch.sum(1)).square().mean()
        self.log("val_loss", loss)
        # better in every second epoch
        self.log("val_score", (-loss).exp() * (1 + self.current_epoch % 2))

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.network(batch)

    def predict_dataloader(self) -> DataLoader:
        return DataLoader(Rows(), batch_size=8)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.05)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, factor=0.5, threshold=1.0
        )
        plain = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        validates = self.trainer.limit_val_batches != 0
        configs = [{"scheduler": plain, "interval": "step"}]
        watching = {"scheduler": plateau, "monitor": "val_loss", "strict": False}
        return [optimizer], [*configs, *([watching] if validates else [])]


class Killed(Exception):
    """What no code of ours catches."""


class Kill(L.Callback):
    """Raises at the n-th call of a hook."""

    def __init__(self, hook: str, at: int) -> None:
        self.left = at
        setattr(self, hook, self._call)

    def _call(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


class Signal(L.Callback):
    """Sends this process a signal at the n-th call of a hook."""

    def __init__(self, number: int, hook: str, at: int) -> None:
        self.number, self.left = number, at
        setattr(self, hook, self._call)

    def _call(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == -1:
            os.kill(os.getpid(), self.number)


OPTIONS = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 4,
    "enable_progress_bar": False,
    "max_steps": -1,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "gradient_clip_val": 1.0,
}


def run(
    folder: Path,
    *callbacks: L.Callback,
    workers: int = 0,
    attempt: Attempt | None = None,
    **options: Any,
) -> tuple[L.Trainer, Stub, dict[str, Any]]:
    """One attempt at training the stub in `folder`; options of fit by name, all others the
    trainer's."""
    quiet()
    names = ("minutes", "steps", "monitor", "ckpt_path", "weights", "loggers", "divide")
    own = {name: options.pop(name) for name in names if name in options}
    module = Stub()
    logger = CSVLogger(folder, name="", version="log")
    with attempt or Attempt(folder) as limits:
        trainer, metrics = fit(
            module,
            folder=folder,
            data=Data(workers),
            trainer={**OPTIONS, **options},
            attempt=limits,
            callbacks=callbacks,
            **{"loggers": [logger], "monitor": "val_score", "minutes": None, **own},
        )
    return trainer, module, metrics


def state(folder: Path) -> dict[str, Any]:
    """What a run left: last.ckpt whole, the weights of best.ckpt, and the rows of its metrics."""
    last, best = (
        torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        for name in ("last", "best")
    )
    metrics = (folder / "log" / "metrics.csv").read_text()
    for callback in last["callbacks"].values():  # where the folder is, and what is only shown
        for key in (
            "dirpath",
            "best_model_path",
            "best_k_models",
            "kth_best_model_path",
            "last_model_path",
            "current_score",
        ):
            callback.pop(key, None)
    for key in [key for key in last["loops"]["fit_loop"] if "val_loop" in key]:
        del last["loops"]["fit_loop"][key]  # counts the tries of a validation
    return {
        "last": last,
        "best": {key: best[key] for key in ("epoch", "global_step", "state_dict")},
        "csv": metrics,
    }


def differs(a: Any, b: Any, at: str = "") -> list[str]:
    """Where two nested states differ in any bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            line for key in {**a, **b} for line in differs(a.get(key), b.get(key), f"{at}.{key}")
        ]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            line
            for k, (x, y) in enumerate(zip(a, b, strict=True))
            for line in differs(x, y, f"{at}.{k}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return (
            []
            if torch.equal(a, b)
            else [f"{at}: {a.flatten()[:3].tolist()} {b.flatten()[:3].tolist()}"]
        )
    same = a == b or (a != a and b != b)
    return [] if same else [f"{at}: {a!r} {b!r}"]


# forms of a training whose loops Lightning restarts otherwise
PLAIN: dict[str, Any] = {}
HALF = {"val_check_interval": 0.5}
ACCUMULATE = {"accumulate_grad_batches": 2, "val_check_interval": 3}
STEPS = {"max_epochs": -1, "max_steps": 20}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Any]:
    """A function from options to what an uninterrupted training leaves, and its metrics."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def made(options: tuple) -> tuple[dict[str, Any], dict[str, Any]]:
        place = folder / str(abs(hash(options)))
        _, _, metrics = run(place, **dict(options))
        return state(place), metrics

    return lambda options: made(tuple(options.items()))


def check_equal(folder: Path, whole: Any, options: dict[str, Any], metrics: dict[str, Any]) -> None:
    """A continued training left what an uninterrupted one leaves."""
    wanted, told = whole(options)
    assert differs(wanted, state(folder)) == [] and metrics == told
