"""The Inception of the published FID."""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torchvision.models import Inception3

from cmrgen.evaluation.fidelity.inception import published_pools


def test_published_inception_pools() -> None:
    """Average pools do not count the padding; the last block's pool is a maximum of the block's
    input."""
    network = Inception3(num_classes=10, aux_logits=False, init_weights=False).eval()
    published_pools(network)
    given: dict[str, torch.Tensor] = {}
    for name in ("Mixed_5b", "Mixed_7c"):
        block = getattr(network, name)
        block.branch_pool.conv.register_forward_pre_hook(
            lambda _, x, name=name: given.update({name: x[0]})
        )
        x = torch.randn(1, {"Mixed_5b": 192, "Mixed_7c": 2048}[name], 5, 5)
        block(x)
        pooled = (
            F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            if name == "Mixed_5b"
            else F.max_pool2d(x, 3, 1, 1)
        )
        assert torch.allclose(given[name], pooled, atol=1e-5)
