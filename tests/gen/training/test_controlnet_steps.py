"""The ControlNet's training: what a step moves, a checkpoint holds and a resumed one repeats."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from cmrgen.diffusion import denoise
from cmrgen.training.controlnet import ControlNetModule, Memory
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


def test_the_rate_rises_in_the_warm_up_and_then_stays(tiny_base):
    module = module_on(tiny_base, lr=0.5, weight_decay=0.25, warmup=4)
    made = module.configure_optimizers()
    optimizer, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step" and not optimizer.defaults["fused"]
    assert optimizer.defaults["weight_decay"] == 0.25
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_gradients_are_clipped_whoever_does_it(tiny_base, monkeypatch):
    """Of a fused optimiser Lightning clips none."""
    module = module_on(tiny_base)
    asked = []
    monkeypatch.setattr(
        L.LightningModule, "configure_gradient_clipping", lambda *given: asked.append(given[1:])
    )
    weight = next(module.controlnet.parameters())
    for fused, limit, norm in ((True, 0.5, 0.5), (True, None, 8.0), (False, 0.5, 8.0)):
        for parameter in module.controlnet.parameters():
            parameter.grad = None
        weight.grad = torch.full_like(weight, 8 / weight.numel() ** 0.5)
        optimizer = SimpleNamespace(defaults={"fused": fused})
        module.configure_gradient_clipping(optimizer, limit, "norm")
        assert weight.grad.norm().item() == pytest.approx(norm, rel=1e-4)
    assert asked == [(optimizer, 0.5, "norm")]


def test_what_takes_less_memory_is_said_with_its_price():
    frugal = Memory(frozen="bfloat16", checkpointing=True)
    assert frugal.lighter.startswith("memory.optimizer=adamw8bit has a quarter of AdamW's state")
    assert frugal.lighter.endswith("; trainer=gpu8 has all of these")
    usual = Memory().lighter
    assert usual.startswith("memory.frozen=bfloat16 halves the frozen U-Net; memory.checkpointing=")
    object.__setattr__(frugal, "optimizer", "adamw8bit")  # whose package is not here
    assert frugal.lighter == ""


def test_a_network_is_arranged_as_it_is_asked_for():
    asked = []
    network = SimpleNamespace(
        to=lambda memory_format: asked.append(memory_format),
        enable_gradient_checkpointing=lambda: asked.append("checkpointing"),
        compile=lambda: asked.append("compile"),
    )
    for options, done in (
        ({}, []),
        ({"channels_last": True}, [torch.channels_last]),
        ({"checkpointing": True}, ["checkpointing"]),
        ({"compile": True}, ["compile"]),
    ):
        asked.clear()
        Memory(**{"channels_last": False, **options}).arrange(network)
        assert asked == done
