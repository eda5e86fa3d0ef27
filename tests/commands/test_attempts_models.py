"""Our three trainings continue exactly within an epoch; every optimiser step counts, and each batch
draws its own noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from cmrcls.arms import Arms
from cmrcls.classifier import Classifier
from cmrcls.mitigation.losses import GroupDRO
from cmrdata.cohorts.phantom.cohort import Phantom
from cmrdata.prepare import prepare
from cmrdata.store import Store
from cmrgen.base.load import load_base
from cmrgen.training import small_base
from cmrgen.training.controlnet import ControlNetModule
from cmrgen.training.latents import EvenDraws, Latents
from cmrstudy.attempts import Attempt
from cmrstudy.continuing import Place
from cmrstudy.processes import quiet
from cmrstudy.training import fit
from support.fake_cohort import FakeCohort
from support.stub_training import OPTIONS, Kill, Killed, differs

COHORT = Phantom(subjects=40, hf_scale=20, pixels=32, controls_per_case=0.5)
Made = Callable[[], tuple[L.LightningModule, L.LightningDataModule, dict[str, Any]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def store(root) -> Store:
    return prepare(COHORT, str(root))


@pytest.fixture
def trainings(tiny_base, root, store) -> dict[str, Made]:
    """Module, data and options of fit by name; epochs of six batches."""

    def controlnet() -> tuple[Any, ...]:
        torch.manual_seed(0)
        module = ControlNetModule(
            base={"weights": str(tiny_base)}, lr=1e-3, ema=0.9, gamma=5.0, seed=3
        )
        latents = Latents(
            cohort=COHORT,
            root=str(root),
            base=module.base,
            batch_size=2,
            images_per_epoch=12,
            val_images=4,
            seed=3,
        )
        return module, latents, {"max_epochs": 2}

    def autoencoder() -> tuple[Any, ...]:
        torch.manual_seed(0)
        module = small_base.AutoencoderModule(channels=(8, 8, 16), steps=6, augment=True, seed=3)
        return (
            module,
            small_base.StoreImages(store, splits=["train"], steps=6, batch_size=2, seed=3),
            {"max_steps": 6},
        )

    def unet() -> tuple[Any, ...]:
        torch.manual_seed(0)
        module = small_base.UnetModule(channels=(16, 16, 32), latent=8, steps=9, seed=3)
        module.setup_base(base := load_base(weights=str(tiny_base)))
        latents = Latents(
            cohort=COHORT,
            root=str(root),
            base=base,
            batch_size=2,
            images_per_epoch=12,
            val_images=4,
        )
        return module, latents, {"max_steps": 9}

    def classifier(workers: int = 0) -> tuple[Any, ...]:
        torch.manual_seed(0)
        arms = Arms(
            cohort=FakeCohort(),
            root=root,
            batch_size=8,
            images_per_epoch=44,
            seed=3,
            workers=workers,
        )
        arms.setup()
        model = {
            "width": 8,
            "pixels": 16,
            "lr": 1e-3,
            "plateau_patience": 1,
            "seed": 3,
        }
        return Classifier(loss=GroupDRO(arms.groups), **model), arms, {"max_epochs": 3}

    return {
        "controlnet": controlnet,
        "autoencoder": autoencoder,
        "unet": unet,
        "classifier": classifier,
        "workers": lambda: classifier(2),
    }


def train(
    folder: Path, made: Made, *callbacks: L.Callback, **options: Any
) -> tuple[L.Trainer, Any, dict[str, Any]]:
    quiet()
    module, data, own = made()
    monitor = "val_balanced_accuracy" if isinstance(module, Classifier) else None
    with Attempt(folder) as limits:
        trainer, metrics = fit(
            module,
            folder=folder,
            data=data,
            trainer={**OPTIONS, "max_epochs": -1, **own, **options},
            attempt=limits,
            seed=3,
            callbacks=callbacks,
            monitor=monitor,
            minutes=None,
            steps=1,
        )
    return trainer, module, metrics


SLOW = {"marks": pytest.mark.slow}


@pytest.mark.parametrize(
    ("name", "hook", "at", "options"),
    [
        pytest.param("controlnet", "on_train_batch_end", 8, {}, **SLOW),
        ("controlnet", "on_train_batch_end", 3, {"accumulate_grad_batches": 2}),
        pytest.param("controlnet", "on_validation_batch_start", 1, {}, **SLOW),
        pytest.param("autoencoder", "on_train_batch_end", 3, {}, **SLOW),
        ("autoencoder", "on_train_batch_end", 7, {"accumulate_grad_batches": 2}),
        pytest.param("unet", "on_train_batch_end", 7, {}, **SLOW),
        pytest.param("unet", "on_train_batch_end", 8, {"accumulate_grad_batches": 2}, **SLOW),
        ("classifier", "on_train_batch_end", 14, {}),  # within the last epoch, whose loss is told
        pytest.param("workers", "on_train_batch_start", 6, {}, **SLOW),
        pytest.param(
            "classifier", "on_validation_batch_start", 4, {"val_check_interval": 0.5}, **SLOW
        ),
        pytest.param("workers", "on_train_batch_end", 9, {"accumulate_grad_batches": 2}, **SLOW),
    ],
)
def test_killed_within_an_epoch_a_training_ends_in_the_same_bits(
    tmp_path, trainings, name, hook, at, options
):
    made = trainings[name]
    whole, module, metrics = train(tmp_path / "whole", made, **options)
    with pytest.raises(Killed):
        train(tmp_path / "parts", made, Kill(hook, at), **options)
    trainer, again, resumed = train(tmp_path / "parts", made, **options)
    assert trainer.global_step == whole.global_step and resumed == metrics
    assert differs(module.state_dict(), again.state_dict()) == []
    states = [t.optimizers[0].state_dict() for t in (whole, trainer)]
    assert differs(*states) == []


@pytest.mark.parametrize(
    ("name", "steps", "accumulate"),
    [
        ("autoencoder", 6, 3),
        pytest.param("unet", 9, 2, **SLOW),
        pytest.param("autoencoder", 6, 1, **SLOW),
        pytest.param("unet", 9, 1, **SLOW),
    ],
)
def test_a_base_trains_for_its_steps_however_many_batches_make_one(
    tmp_path, trainings, name, steps, accumulate
):
    trainer, _, metrics = train(tmp_path, trainings[name], accumulate_grad_batches=accumulate)
    assert trainer.global_step == steps and "stopped" not in metrics
    if name == "autoencoder":  # validated once, at its end
        assert (
            trainer.fit_loop.total_batch_idx + 1 == steps * accumulate and metrics["val_psnr"] > 0
        )
        assert trainer.fit_loop.epoch_progress.current.processed == 1


def noise_of(
    monkeypatch, module: Any, batches: int, *, ranks: int, accumulate: int
) -> list[torch.Tensor]:
    """What the batches of one optimiser step draw for their noise, in every process."""
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(
        module,
        "_trainer",
        type("T", (), {"accumulate_grad_batches": accumulate, "global_step": 5})(),
    )
    monkeypatch.setattr(type(module), "log", lambda *_, **__: None)
    monkeypatch.setattr(
        module,
        "_loss",
        lambda *given, **_: drawn.append(torch.randn(4, generator=given[-1])),
        raising=False,
    )
    for rank in range(ranks):
        monkeypatch.setattr(type(module), "global_rank", rank)
        monkeypatch.setattr(type(module), "global_step", 5)
        for batch_idx in range(batches):
            module.training_step({}, 5 * accumulate + batch_idx)
    return drawn


@pytest.mark.parametrize("name", ["controlnet", "unet"])
def test_batches_and_processes_of_one_step_draw_noise_of_their_own(monkeypatch, trainings, name):
    module = trainings[name]()[0]
    drawn = noise_of(monkeypatch, module, 3, ranks=2, accumulate=3)
    assert len(drawn) == 6 == len({tuple(noise.tolist()) for noise in drawn})


def test_batches_and_processes_of_one_step_sample_and_move_latents_of_their_own(
    monkeypatch, trainings, store
):
    """The same images in every batch: the autoencoder's loss tells what was drawn."""
    module, losses = trainings["autoencoder"]()[0], []
    monkeypatch.setattr(type(module), "log_dict", lambda *_, **__: None)
    images = torch.from_numpy(store.images[:2].copy())
    for rank in (0, 1):
        monkeypatch.setattr(type(module), "global_rank", rank)
        losses += [
            float(module.training_step(images, batch_idx).detach()) for batch_idx in (0, 1, 2)
        ]
    assert len(set(losses)) == 6
    monkeypatch.setattr(type(module), "global_rank", 0)
    assert float(module.training_step(images, 0).detach()) == losses[0]


def test_even_draws_are_torchs_own_and_go_on_anywhere(store):
    table = store.index[store.index.split == "train"]
    sampler = EvenDraws(table, draws=50, seed=2)
    sampler.set_epoch(4)
    theirs = WeightedRandomSampler(
        sampler.weights, 50, generator=torch.Generator().manual_seed(200006 + 4)
    )
    assert (whole := list(sampler)) == list(theirs)
    part = EvenDraws(table, draws=50, seed=2, begin=Place(4, 3), batch_size=8)
    assert list(part) == whole[24:] and len(part) == 50
    part.set_epoch(5)
    sampler.set_epoch(5)
    assert list(part) == list(sampler)
