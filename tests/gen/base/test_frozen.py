"""The frozen base: images in, latents and embeddings out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cmrgen.base.frozen import Base, as_control, as_rgb
from cmrgen.base.phases import PAPER
from cmrgen.base.portions import PROMPTS
from cmrgen.diffusion import stratified_timesteps


def test_equal_prompts_embed_equally_and_different_ones_do_not(base):
    words = [
        "Male, age in 70s, obese BMI",
        "",
        "Female, age in 70s, obese BMI",
        "Male, age in 70s, obese BMI",
    ]
    embedded = base.embed(words)
    assert embedded.shape[0] == 4 and torch.equal(embedded[0], embedded[3])
    torch.testing.assert_close(base.embed(words[:1])[0], embedded[0], atol=1e-5, rtol=1e-5)
    assert min((embedded[a] - embedded[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))) > 1e-2


class Vae(nn.Module):
    """Encodes an image as the means of its four quarters, and decodes them by repetition."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.encoded: list[Tensor] = []

    def encode(self, rgb: Tensor) -> Any:
        self.encoded.append(rgb)
        means = nn.functional.avg_pool2d(rgb, 2)
        parameters = torch.cat([means, means - 1], 1).half()
        return SimpleNamespace(latent_dist=SimpleNamespace(parameters=parameters))

    def decode(self, z: Tensor) -> Any:
        assert not torch.is_autocast_enabled("cpu")
        return SimpleNamespace(sample=nn.functional.interpolate(z, scale_factor=2.0))


def fake(**given: Any) -> Base:
    """A base whose networks are as simple as can be; 8 px, three channels of latents of half the
    side."""
    usual: dict[str, Any] = {
        "parts": {"vae": Vae, "unet": lambda: nn.Linear(1, 1), "text": lambda: nn.Linear(2, 1)},
        "schedule": {"num_train_timesteps": 10, "prediction_type": "epsilon"},
        "shift": torch.tensor([0.5, 0.0, 0.0]).view(3, 1, 1),
        "scale": torch.tensor([2.0, 1.0, 1.0]).view(3, 1, 1),
        **{"pixels": 8, "factor": 2, "tokens": 77, "fingerprint": "ba5e", "channels": PAPER},
    }
    return Base(**usual | given)


def test_a_network_is_loaded_when_it_is_used_frozen_and_can_be_let_go() -> None:
    loads = []

    def load() -> nn.Module:
        loads.append(1)
        return nn.Linear(1, 1).train()

    base = fake(parts={"unet": load, "vae": Vae})
    assert not loads
    unet = base.unet
    assert base.unet is unet and len(loads) == 1
    assert not unet.training and not any(p.requires_grad for p in unet.parameters())
    base.to("cpu", unet=torch.bfloat16)
    assert base.unet is unet and unet.weight.dtype == torch.bfloat16
    base.release("unet", "text")  # the second was never loaded
    assert base.unet is not unet and len(loads) == 2
    assert base.unet.weight.dtype == torch.bfloat16  # it stays as chosen
    assert next(base.vae.parameters()).dtype == torch.float32


def test_a_network_goes_where_the_base_is_when_it_is_next_used() -> None:
    base = fake()
    unet, vae = base.unet, base.vae
    base.to("meta")
    assert base.shift.device.type == base.scale.device.type == base.alphas.device.type == "meta"
    assert unet.weight.device.type == "cpu"  # memory is taken when it is needed
    assert base.unet.weight.device.type == "meta" and vae.weight.device.type == "cpu"


def test_images_and_latents_have_the_scales_that_are_written_down() -> None:
    base, draws = fake(), torch.Generator().manual_seed(0)
    assert base.latent_shape == (3, 4, 4) and len(base.alphas) == 10
    images = torch.randint(0, 256, (3, 2, 8, 8), generator=draws, dtype=torch.uint8)
    moments = base.moments(images)
    rgb = torch.cat([base.vae.encoded[k] for k in range(len(base.vae.encoded))])
    assert moments.shape == (3, 6, 4, 4) and moments.dtype == torch.float32
    expected = images[:, [0, 1, 0]] / 127.5 - 1  # ED, ES, ED in [-1, 1]
    assert torch.allclose(rgb, expected, atol=1e-6)
    z = torch.rand((2, 3, 4, 4), generator=draws)
    decoded = nn.functional.interpolate(z / base.scale + base.shift, scale_factor=2.0)
    both = torch.stack([(decoded[:, 0] + decoded[:, 2]) / 2, decoded[:, 1]], 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(base.images(z), (both + 1) * 127.5, atol=1e-4)
    # what the decoder overshoots stays; the encoder is shown no more than there is
    assert base.images(z + 9).max() > 255
    assert as_rgb(images, 20, channels=PAPER).abs().max() <= 1


def test_masks_become_thirds_and_keep_their_labels_at_another_size() -> None:
    masks = torch.randint(0, 4, (2, 2, 8, 8), generator=torch.Generator().manual_seed(1))
    control = as_control(masks, 8)
    assert torch.equal(control, masks[:, [0, 1, 0]].float() / 3)
    large = as_control(masks, 16)
    assert large.shape == (2, 3, 16, 16) and torch.equal(large[..., ::2, 1::2], control)


def test_known_prompts_need_no_tower_and_many_go_through_in_portions() -> None:
    base = fake()
    base.contexts = {"a": torch.zeros(77, 2), "b": torch.ones(77, 2)}
    assert torch.equal(base.embed(["b", "a", "b"])[:, 0, 0], torch.tensor([1.0, 0, 1]))
    asked: list[list[str]] = []

    def embedded(prompts: list[str]) -> Tensor:
        asked.append(list(prompts))
        return torch.full((len(prompts), 77, 2), float(len(asked)))

    base._embedded = embedded  # type: ignore[method-assign]
    words = ["a", *(f"p{k}" for k in range(2 * PROMPTS))]
    assert base.embed(words).shape == (2 * PROMPTS + 1, 77, 2)
    assert [len(of) for of in asked] == [PROMPTS, PROMPTS, 1] and sum(asked, []) == words


def test_the_loss_of_a_batch_is_that_of_its_draws() -> None:
    base = fake()
    moments = torch.randn((5, 6, 4, 4), generator=torch.Generator().manual_seed(2))
    batch: Any = {"moments": moments, "context": torch.ones(5, 77, 2)}
    seen = {}

    def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        seen.update(x=x, t=t, context=context)
        return torch.zeros_like(x)

    how: dict[str, Any] = {"empty": torch.zeros(1, 77, 2), "dropout": 0.4, "gamma": None}
    loss = base.loss(predict, batch, torch.Generator().manual_seed(7), **how)
    draws = torch.Generator().manual_seed(7)
    spread, noise = torch.randn((2, 5, 3, 4, 4), generator=draws)
    t = stratified_timesteps(5, steps=10, generator=draws)
    drop = torch.rand(5, 1, 1, generator=draws) < 0.4
    assert torch.equal(seen["t"], t) and 0 < drop.sum() < 5
    assert torch.equal(seen["context"][:, 0, 0] == 0, drop[:, 0, 0])
    alpha = base.alphas[t].view(-1, 1, 1, 1)
    clean = base.sample_latent(moments, spread)
    assert torch.allclose(seen["x"], alpha.sqrt() * clean + (1 - alpha).sqrt() * noise, atol=1e-5)
    assert loss.item() == pytest.approx(noise.square().mean().item(), rel=1e-5)
