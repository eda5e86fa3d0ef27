"""The ControlNet's training: what a step moves, a checkpoint holds and a resumed one repeats."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cmrgen.diffusion import denoise
from cmrgen.training.controlnet import ControlNetModule
from support.tiny_controlnet import awake, changed, module_on, tensors, trainer


@pytest.fixture
def batch(latents):
    data = latents()
    return data.dataset.__getitems__(data.train_rows[:4].tolist())


def test_an_untrained_controlnet_changes_nothing(tiny_base, batch):
    module = module_on(tiny_base)
    x, t = torch.randn((4, *module.base.latent_shape)), torch.tensor([1, 300, 700, 999])
    with torch.no_grad():
        steered = denoise(
            module.base.unet,
            module.controlnet,
            x,
            t,
            context=batch["context"],
            control=batch["control"],
        )
        alone = module.base.unet(x, t, encoder_hidden_states=batch["context"]).sample
        awake(module.controlnet)
        trained = denoise(
            module.base.unet,
            module.controlnet,
            x,
            t,
            context=batch["context"],
            control=batch["control"],
        )
    torch.testing.assert_close(steered, alone, atol=1e-6, rtol=0)
    assert (trained - alone).abs().max() > 1e-3


def test_a_step_moves_the_controlnet_and_never_the_base(tiny_base, latents, tmp_path):
    module = module_on(tiny_base, ema=0.9)
    networks = {name: getattr(module.base, name) for name in ("vae", "unet", "text")}
    before = {name: tensors(network) for name, network in networks.items()}
    control, average = tensors(module.controlnet), tensors(module.average)
    fitter = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitter.fit(module, datamodule=latents(ready=False))
    assert fitter.global_step == 1
    for name, network in networks.items():
        assert changed(before[name], tensors(network)) == [], name
        assert all(not p.requires_grad and p.grad is None for p in network.parameters())
    after = tensors(module.controlnet)
    assert changed(control, after)
    decay = min(0.9, 2 / 11)
    for name, value in tensors(module.average).items():
        torch.testing.assert_close(
            value, decay * average[name] + (1 - decay) * after[name], atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_holds_the_controlnet_only_and_loads_without_hydra(
    tiny_base, latents, tmp_path, ema
):
    module = module_on(tiny_base, ema=ema, gamma=5.0)
    fitter = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    fitter.fit(module, datamodule=latents(ready=False))
    path = tmp_path / "a.ckpt"
    fitter.save_checkpoint(path)
    keys = torch.load(path, weights_only=True)["state_dict"]
    kinds = {key.split(".")[0] for key in keys}
    assert kinds == ({"controlnet", "average"} if ema else {"controlnet"})
    found = ControlNetModule.load_from_checkpoint(path, weights_only=True)
    assert found.hparams == module.hparams and found.base.fingerprint == module.base.fingerprint
    assert changed(tensors(found.best), tensors(module.best)) == []
    if ema:  # what was loaded is ready to use
        assert (
            trainer(tmp_path).validate(found, datamodule=latents(ready=False), verbose=False)[0][
                "val_loss"
            ]
            > 0
        )


def test_validation_repeats_to_the_last_digit(tiny_base, latents, tmp_path):
    module = module_on(tiny_base, ema=0.9)
    awake(module.average)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        losses.append(
            trainer(tmp_path).validate(
                module, datamodule=latents(ready=False, seed=seed), verbose=False
            )[0]["val_loss"]
        )
    assert losses[0] == losses[1] > 0


def test_dropped_prompts_leave_no_trace(tiny_base, batch):
    module = module_on(tiny_base)
    module.on_fit_start()
    other = {**batch, "context": module.base.embed(["Female, obese BMI"] * 4)}

    def loss(batch, dropout):
        return module._loss(batch, torch.Generator().manual_seed(1), dropout=dropout).item()

    assert loss(batch, 1.0) == loss(other, 1.0)
    assert loss(batch, 0.0) != loss(other, 0.0)
    empty = {**batch, "context": module.empty.expand_as(batch["context"])}
    assert loss(batch, 1.0) == pytest.approx(loss(empty, 0.0), rel=1e-6)


class Kill(L.Callback):
    """Ends the process, as it were, within the second epoch."""

    def on_train_batch_end(self, runner: L.Trainer, *_: object) -> None:
        if runner.current_epoch == 1:
            raise ConnectionAbortedError


def test_a_resumed_training_equals_an_uninterrupted_one(tiny_base, latents, tmp_path):
    def fit(folder: Path, *callbacks: L.Callback, init: int = 0) -> ControlNetModule:
        module = module_on(tiny_base, init=init, ema=0.9, gamma=5.0)
        keep = ModelCheckpoint(
            folder, filename="best", save_last=True, enable_version_counter=False
        )
        last = folder / "last.ckpt"
        trainer(folder, keep, *callbacks, max_epochs=2, accumulate_grad_batches=2).fit(
            module,
            datamodule=latents(ready=False, images_per_epoch=12, val_images=4),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
        return module

    whole = fit(tmp_path / "whole")
    with pytest.raises(ConnectionAbortedError):
        fit(tmp_path / "parts", Kill())
    resumed = fit(tmp_path / "parts", init=5)
    assert changed(tensors(resumed.controlnet), tensors(whole.controlnet)) == []
    assert changed(tensors(resumed.average), tensors(whole.average)) == []
