"""The frozen base: images in, latents and embeddings out."""

from __future__ import annotations

import pytest
import torch

from cmrgen.base.frozen import Base
from cmrgen.base.load import load_base


@pytest.fixture(scope="module")
def base(tiny_base) -> Base:
    return load_base(weights=str(tiny_base))


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
