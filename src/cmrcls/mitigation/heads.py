"""Who has a last layer of their own: all share one, or each domain trains its own.

Heads are a module that is made with the `groups` of the arm. `domains` is how many last layers of
outputs the network gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cmrcls.mitigation.groups import Group, check_domains, required

ONE_HEAD = {"_target_": "cmrcls.mitigation.heads.OneHead"}


class OneHead(nn.Module):
    """All share one last layer."""

    domains = 1

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        super().__init__()

    def forward(self, logits: Tensor, group: Tensor | None = None) -> Tensor:
        """(B, outputs) logits as they are."""
        return logits


class HeadPerDomain(nn.Module):
    """Each domain trains a linear head of its own (Wang et al. 2020).

    A prediction takes the mean of all heads' logits, their inference without a known domain
    (argmax_y sum_d s(y, d, x)).
    """

    check = staticmethod(check_domains)
    domain: Tensor  # (groups,) int64, the head of each group

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        names = sorted({group["domain"] for group in required(groups, by="HeadPerDomain")})
        self.domains = len(names)
        domain = torch.tensor([names.index(group["domain"]) for group in groups])
        self.register_buffer("domain", domain, persistent=False)

    def forward(self, logits: Tensor, group: Tensor | None = None) -> Tensor:
        """(B, domains * outputs) logits -> (B, outputs): of each row's own head where its `group`,
        (B,) int64, is given, as in training; else the mean over the heads."""
        logits = logits.unflatten(1, (self.domains, -1))
        if group is None:
            return logits.mean(1)
        return logits[torch.arange(len(logits), device=logits.device), self.domain[group]]
