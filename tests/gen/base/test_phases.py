"""Two phases as the three channels of a base."""

from __future__ import annotations

import pytest
import torch

from cmrgen.base.phases import CHANNELS, check_channels, three_channels, two_phases


def test_two_phases_are_what_three_channels_were_made_of():
    pair = torch.rand(3, 2, 8, 8)
    for channels in CHANNELS:
        torch.testing.assert_close(two_phases(three_channels(pair, channels), channels), pair)
    with pytest.raises(ValueError, match=r"base.channels='rgb': it takes even or paper"):
        check_channels("rgb", setting="base.channels")


def test_even_channels_treat_both_phases_alike_and_the_papers_do_not():
    noise = torch.randn(20_000, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    spread = {channels: two_phases(noise, channels).std((0, 2, 3)) for channels in CHANNELS}
    assert spread["even"][0] / spread["even"][1] == pytest.approx(1, abs=0.03)
    assert spread["paper"][0] / spread["paper"][1] == pytest.approx(2**-0.5, abs=0.03)
    pair = torch.rand(2, 2, 4, 4)
    swapped = three_channels(pair.flip(1), "even")
    torch.testing.assert_close(swapped, three_channels(pair, "even")[:, [1, 0, 2]])


def test_a_base_remembers_its_channels(tmp_path):
    from cmrgen.base.load import load_base
    from cmrgen.base.small import save_base
    from cmrgen.training import small_base

    networks = (
        small_base.AutoencoderModule(channels=(8, 8)).vae,
        small_base.UnetModule(channels=(16, 16), latent=8).unet,
    )
    images = torch.randint(0, 256, (4, 2, 16, 16), dtype=torch.uint8)
    marks = set()
    for channels in CHANNELS:
        made = small_base.assemble(
            *networks, small_base.text_tower(0), pixels=16, images=images, channels=channels
        )
        save_base(made, tmp_path / channels, text_config=small_base.TEXT)
        found = load_base(weights=str(tmp_path / channels))
        assert found.channels == channels
        marks.add(found.fingerprint)
    assert len(marks) == 2
