"""The Inception network of the published FID, whose pools differ from torchvision's
inception_v3."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import Inception3


def inception_network(state: dict[str, Tensor]) -> nn.Module:
    """(n, 3, 299, 299) in [-1, 1] -> (n, 2048) pool features.

    1008 classes mean the network of the published FID (pytorch-fid's file), 1000 torchvision's
    inception_v3.
    """
    state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
    network = Inception3(num_classes=len(state["fc.bias"]), aux_logits=False, init_weights=False)
    network.load_state_dict(state)
    if len(state["fc.bias"]) == 1008:
        published_pools(network)
    network.fc = nn.Identity()
    return network


def published_pools(network: Inception3) -> None:
    """FID's Inception: average pools do not count the padding, and the last block's pool is a
    maximum."""

    def uncounted(_: nn.Module, pooled: tuple[Tensor]) -> tuple[Tensor]:
        return (pooled[0] / F.avg_pool2d(torch.ones_like(pooled[0][:1, :1]), 3, 1, 1),)

    for name in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"):
        getattr(network, f"Mixed_{name}").branch_pool.register_forward_pre_hook(uncounted)
    held: dict[str, Tensor] = {}
    last, pool = network.get_submodule("Mixed_7c"), network.get_submodule("Mixed_7c.branch_pool")
    last.register_forward_pre_hook(lambda _, x: held.update(x=x[0]))
    pool.register_forward_pre_hook(lambda _, pooled: (F.max_pool2d(held.pop("x"), 3, 1, 1),))
