"""A base folder of our own."""

from __future__ import annotations

import pytest
import torch

from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base
from cmrgen.base.small import save_base
from cmrgen.training import small_base


def test_a_base_survives_its_folder(tmp_path):
    torch.manual_seed(3)
    vae = small_base.AutoencoderModule(channels=(8, 8, 16)).vae
    unet = small_base.UnetModule(channels=(16, 16, 32), latent=8).unet
    images = torch.randint(0, 256, (4, 2, 32, 32), dtype=torch.uint8)
    made = small_base.assemble(vae, unet, small_base.text_tower(0), pixels=32, images=images)

    def outputs(base: Base) -> dict[str, torch.Tensor]:
        words = base.embed(["Male, age in 70s", "", "Male, age in 70s"])
        x = torch.randn((3, *base.latent_shape), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            v = base.unet(x, torch.tensor(500), encoder_hidden_states=words).sample
        return {
            "words": words,
            "v": v,
            "moments": base.moments(images[:3]),
            "images": base.images(x).float() / 255,
        }

    before = outputs(made)  # in single precision; saving rounds to half
    save_base(made, tmp_path, text_config=small_base.TEXT)
    found = load_base(weights=str(tmp_path))
    for name, value in outputs(found).items():
        torch.testing.assert_close(
            value, before[name], atol=2e-2, rtol=2e-2, msg=lambda m, name=name: f"{name}: {m}"
        )
    torch.testing.assert_close(found.shift, made.shift)
    torch.testing.assert_close(found.scale, made.scale)
    assert found.latent_shape == made.latent_shape == (4, 8, 8) and found.factor == 4
    assert found.prediction == "v_prediction" and torch.equal(found.alphas, made.alphas)
    latents = (found.moments(images).chunk(2, 1)[0] - found.shift) * found.scale
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.02, rtol=0)
    frozen = [p for network in (found.vae, found.unet, found.text) for p in network.parameters()]
    assert not any(p.requires_grad for p in frozen)


def test_a_missing_base_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"base.weights=.*nowhere: no base.json.*experiment=base"
    ):
        load_base(weights=str(tmp_path / "nowhere"))
