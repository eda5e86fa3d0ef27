"""The small base that is trained from scratch: its losses by hand, its rates, its latents of mean 0
and sd 1, and the card beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler

from cmrgen.base.frozen import as_rgb
from cmrgen.base.phases import PAPER
from cmrgen.training import small_base
from cmrgen.training.small_base import AutoencoderModule, StoreImages, UnetModule
from cmrstudy.continuing import batch_seed

IMAGES = torch.randint(
    0, 256, (3, 2, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)


def alone(
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    step: int = 0,
    rank: int = 0,
    accumulated: int = 1,
) -> dict[str, Any]:
    """Put a module at a step of a training without a trainer; what it then logs."""
    logged: dict[str, Any] = {}
    kind = type(module)
    trainer = SimpleNamespace(accumulate_grad_batches=accumulated)
    for name, value in (("trainer", trainer), ("global_step", step), ("global_rank", rank)):
        monkeypatch.setattr(kind, name, value)
    monkeypatch.setattr(kind, "log", lambda _, name, value, **__: logged.update({name: value}))
    monkeypatch.setattr(kind, "log_dict", lambda _, values, **__: logged.update(values))
    return logged


def test_the_autoencoders_loss_by_hand(monkeypatch):
    torch.manual_seed(1)
    module = AutoencoderModule(channels=(8, 8, 16), kl=0.3, order=PAPER, seed=4)
    logged = alone(module, monkeypatch, step=7, rank=2)
    loss = module.training_step(IMAGES, 5)
    rgb = as_rgb(IMAGES, 16, channels=PAPER)
    posterior = module.vae.encode(rgb).latent_dist
    seed = batch_seed(4, step=7, batch=5, rank=2)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(seed))
    mean, variance = posterior.mean, posterior.logvar.exp()
    error = module.vae.decode(mean + variance.sqrt() * noise).sample - rgb
    # of a Gaussian from the standard one, per latent value
    divergence = 0.5 * (mean**2 + variance - 1 - variance.log()).mean()
    wanted = error.abs().mean() + 2 * (error**2).mean() + 0.3 * divergence
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert logged["train_loss"] is loss
    assert logged["psnr"].item() == pytest.approx(
        10 * np.log10(4 / (error**2).mean().item()), abs=1e-3
    )


def test_the_autoencoder_is_validated_by_its_mean_latent(monkeypatch):
    torch.manual_seed(1)
    module = AutoencoderModule(channels=(8, 8, 16))
    logged = alone(module, monkeypatch)
    module.validation_step(IMAGES, 0)
    rgb = as_rgb(IMAGES, 16, channels="even")
    error = module.vae.decode(module.vae.encode(rgb).latent_dist.mean).sample - rgb
    assert logged["val_psnr"].item() == pytest.approx(
        10 * np.log10(4 / (error**2).mean().item()), abs=1e-3
    )


def test_training_images_are_moved_where_that_is_asked_for(monkeypatch):
    seen = []

    def jitter(images: Any, masks: Any, rng: np.random.Generator) -> Any:
        seen.append(rng.integers(1 << 30))
        return torch.zeros_like(images), masks

    monkeypatch.setattr(small_base, "jitter", jitter)
    torch.manual_seed(1)
    losses = []
    for augment in (False, True, True):
        module = AutoencoderModule(channels=(8, 8, 16), augment=augment)
        module.load_state_dict(losses[0][1] if losses else module.state_dict())
        alone(module, monkeypatch, step=3)
        losses.append((module.training_step(IMAGES, 0).item(), module.state_dict()))
    assert losses[0][0] != losses[1][0] == losses[2][0]
    assert len(seen) == 2 and seen[0] == seen[1]  # the step decides the moves


def test_an_error_of_a_tenth_of_the_range_is_twenty_decibels():
    assert small_base._psnr(torch.full((2, 3), 0.2)).item() == pytest.approx(20, abs=1e-4)
    assert small_base._psnr(torch.full((2, 3), 2.0)).item() == pytest.approx(0, abs=1e-4)


def test_the_rate_rises_for_a_twentieth_of_the_steps_and_falls_to_nothing():
    module = AutoencoderModule(channels=(8, 8, 16), lr=0.01, steps=400)
    how = module.configure_optimizers()
    optimizer, schedule = how["optimizer"], how["lr_scheduler"]["scheduler"]
    assert how["lr_scheduler"]["interval"] == "step"
    assert optimizer.defaults["weight_decay"] == 0.01
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert trained == {id(weight) for weight in module.vae.parameters()}
    rates = [schedule.get_last_lr()[0]]
    for _ in range(400):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    assert rates[0] == pytest.approx(0.01 / 25) and max(rates) == pytest.approx(0.01, rel=0.01)
    assert np.argmax(rates) == 20 and rates[400] < 1e-7 < rates[398]
    assert schedule.total_steps == 401  # the last of 400 steps still has a rate


def test_the_unets_draws_differ_by_step_batch_process_and_seed(monkeypatch):
    module = UnetModule(channels=(16, 16, 32), latent=8, seed=2, prompt_dropout=0.25)
    given = []

    def loss(unet: Any, batch: Any, draws: torch.Generator, *, dropout: float) -> torch.Tensor:
        given.append((unet is module.unet, draws.initial_seed(), dropout))
        return torch.tensor(1.5)

    monkeypatch.setattr(module, "_loss", loss)
    for step, batch, rank, accumulated in ((0, 0, 0, 1), (3, 5, 0, 4), (3, 4, 1, 4)):
        logged = alone(module, monkeypatch, step=step, rank=rank, accumulated=accumulated)
        assert module.training_step({}, batch) == logged["train_loss"] == 1.5
    # fixed noise in validation: curves compare across runs; the average is what is used in the end
    module.validation_step({"moments": torch.zeros(2)}, 6)
    assert given == [
        (True, 2_000_006, 0.25),
        (True, 2_000_006 + 3 + 32_452_843, 0.25),
        (True, 2_000_006 + 3 + 15_485_863, 0.25),
        (False, 6, 0.0),
    ]
    assert logged["val_loss"] == 1.5


def test_the_unet_attends_to_words_below_its_finest_level():
    module = UnetModule(channels=(16, 32, 48), latent=8, layers=2)
    config = module.unet.config
    assert config.attention_head_dim == [1, 2, 3] and config.sample_size == 8
    assert config.cross_attention_dim == small_base.TEXT["width"] == 32
    assert config.down_block_types == ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2)
    assert config.up_block_types == (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D")
    assert (config.in_channels, config.out_channels, config.layers_per_block) == (4, 4, 2)
    assert config.norm_num_groups == 16
    assert module.unet.state_dict().keys() == module.average.state_dict().keys()
    assert not any(weight.requires_grad for weight in module.average.parameters())
    assert all(weight.requires_grad for weight in module.unet.parameters())
    trained = module.configure_optimizers()["optimizer"].param_groups[0]["params"]
    assert {id(weight) for weight in trained} == {id(w) for w in module.unet.parameters()}


def test_the_average_follows_each_step(monkeypatch):
    import lightning as L

    module = UnetModule(channels=(16, 16, 32), latent=8, ema=0.5)
    before = [weight.clone() for weight in module.average.parameters()]
    with torch.no_grad():
        for weight in module.unet.parameters():
            weight.add_(1)
    monkeypatch.setattr(L.LightningModule, "optimizer_step", lambda *_: None)
    monkeypatch.setattr(type(module), "global_step", 8)
    module.optimizer_step()
    share = 1 - min(0.5, (1 + 9) / (10 + 9))  # of the new weights
    for old, weight in zip(before, module.average.parameters(), strict=True):
        assert torch.allclose(weight, old + share, atol=1e-6)


def test_the_schedule_ends_in_pure_noise_and_is_the_published_one():
    assert small_base.SCHEDULE["prediction_type"] == "v_prediction"
    alphas = DDPMScheduler.from_config(small_base.SCHEDULE).alphas_cumprod
    assert len(alphas) == 1000 and alphas[-1] < 1e-6
    # Stable Diffusion's, rescaled (Lin et al. 2024, algorithm 1)
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = (1 - beta).cumprod(0).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    assert torch.allclose(alphas.double(), root**2, atol=1e-5)


def test_an_assembled_base_has_latents_of_mean_0_and_sd_1():
    torch.manual_seed(2)
    vae = AutoencoderModule(channels=(8, 8, 16)).vae
    unet = UnetModule(channels=(16, 16, 32), latent=4).unet
    base = small_base.assemble(
        vae, unet, small_base.text_tower(3), pixels=16, images=IMAGES, channels=PAPER
    )
    means = (base.moments(IMAGES).chunk(2, 1)[0] - base.shift) * base.scale
    assert torch.allclose(means.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
    assert torch.allclose(means.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert (base.factor, base.pixels, base.channels) == (4, 16, PAPER)
    assert base.latent_shape == (4, 4, 4) and base.embed([""]).shape == (1, 20, 32)
    again = small_base.assemble(
        vae, unet, small_base.text_tower(3), pixels=16, images=IMAGES[:1], channels=PAPER
    )
    other = small_base.assemble(
        vae, unet, small_base.text_tower(4), pixels=16, images=IMAGES[:1], channels=PAPER
    )
    # what is encoded with it is cached by it
    assert base.fingerprint == again.fingerprint != other.fingerprint
    assert len(base.fingerprint) == 16


def test_a_base_that_was_saved_stays_in_single_precision_and_makes_its_parents(tiny_base, tmp_path):
    from cmrgen.base.load import load_base
    from cmrgen.base.small import save_base

    base = load_base(weights=str(tiny_base))
    folder = tmp_path / "deep" / "down" / "base"
    save_base(base, folder, text_config=small_base.TEXT)
    for network in (base.vae, base.unet, base.text):
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *(f"{part}/config.json" for part in ("unet", "vae")),
        *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")),
        "text/model.safetensors",
        "scheduler/scheduler_config.json",
        "base.json",
    }
    assert load_base(weights=str(folder)).fingerprint == base.fingerprint


def test_a_card_has_a_line_for_every_fact(tmp_path: Path):
    small_base.write_card(tmp_path, title="A base", facts={"seed": 3, "psnr": 31.5})
    assert (tmp_path / "README.md").read_text() == (
        "# A base\n\n| fact | value |\n|---|---|\n| seed | 3 |\n| psnr | 31.5 |\n"
    )


def test_an_epoch_of_the_autoencoder_is_its_steps_for_every_process(monkeypatch):
    index = pd.DataFrame(
        {
            "subject": [f"SYN{k:04d}" for k in range(12)],
            "split": ["train"] * 8 + ["extra"] * 2 + ["val"] * 2,
            "group": "F/hf",
        }
    )
    store: Any = SimpleNamespace(
        index=index, images=np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones(2, "u1")
    )
    data = StoreImages(store, splits=("train", "extra"), steps=5, batch_size=2, seed=1)
    data.trainer = SimpleNamespace(accumulate_grad_batches=3, world_size=2)
    batches = list(data.train_dataloader())
    assert len(batches) == 5 * 3 * 2 and {len(batch) for batch in batches} == {2}
    shown = {int(value) for batch in batches for value in batch[:, 0, 0, 0]}
    assert shown <= set(range(10)) and len(shown) > 6
    [validated] = data.val_dataloader()
    assert validated[:, 0, 0, 0].tolist() == [10, 11]
    assert data.train_dataloader().drop_last and not data.val_dataloader().drop_last
