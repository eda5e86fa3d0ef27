"""How the losses of a batch's images become the one that is minimised.

A loss is a module that is made with the `groups` of the arm. Its buffers are kept in the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmrcls.mitigation.groups import Group, check_domains, required

MEAN = {"_target_": "cmrcls.mitigation.losses.Mean"}


class Mean(nn.Module):
    """The mean over the images (empirical risk minimisation)."""

    def __init__(self, groups: Sequence[Group] = ()) -> None:
        super().__init__()

    def forward(self, losses: Tensor, group: Tensor) -> Tensor:
        """(B,) losses -> a scalar."""
        return losses.mean()


class Weighted(nn.Module):
    """Every group has equal weight; since the weights' mean over the draws is 1, lr keeps its
    meaning."""

    check = staticmethod(check_domains)
    weight: Tensor  # (groups,)

    def __init__(self, groups: Sequence[Group]) -> None:
        super().__init__()
        weight = [group["weight"] for group in required(groups, by="Weighted")]
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, losses: Tensor, group: Tensor) -> Tensor:
        """(B,) losses and each image's place among the groups, (B,) int64 -> a scalar."""
        return (self.weight[group] * losses).mean()


class GroupDRO(nn.Module):
    """The loss follows the worst group (Sagawa et al. 2020, algorithm 1); see `robust_mean`.

    Args:
        groups: of the training rows; at first all weigh alike.
        eta: step of the weights, above 0.
    """

    check = staticmethod(check_domains)
    weight: Tensor  # (groups,)

    def __init__(self, groups: Sequence[Group], *, eta: float = 0.01) -> None:
        super().__init__()
        if not eta > 0:
            raise ValueError(f"mitigation.loss.eta={eta}: it takes a number above 0")
        self.eta = eta
        weight = [1 / len(groups) for _ in required(groups, by="GroupDRO")]
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, losses: Tensor, group: Tensor) -> Tensor:
        """(B,) losses and each image's place among the groups, (B,) int64 -> a scalar."""
        loss, weight = robust_mean(losses, group, weight=self.weight, eta=self.eta)
        # a loss that is not finite ends the training, and must not spoil what is kept
        self.weight.copy_(torch.where(loss.isfinite(), weight, self.weight))
        return loss


def sample_losses(logits: Tensor, label: Tensor, *, reduction: str = "mean") -> Tensor:
    """Cross-entropy of one disease, or the mean over several of the binary one.

    Args:
        logits: (B, 2) of one disease, (B, D) of several.
        label: (B,) of one, (B, D) of several.
        reduction: "mean", or "none" for a loss per sample.

    Returns:
        A scalar, or (B,).
    """
    if label.ndim == 1:
        return F.cross_entropy(logits, label, reduction=reduction)
    each = F.binary_cross_entropy_with_logits(
        logits, label.to(logits.dtype), reduction="none"
    ).mean(1)
    return each if reduction == "none" else each.mean()


def over_processes(x: Tensor) -> Tensor:
    """Sum over the processes that train together; x itself where there is one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    x = x.clone()
    torch.distributed.all_reduce(x)
    return x


def robust_mean(
    losses: Tensor,
    group: Tensor,
    *,
    weight: Tensor,
    eta: float,
    total: Callable[[Tensor], Tensor] = over_processes,
) -> tuple[Tensor, Tensor]:
    """GroupDRO (Sagawa et al. 2020, algorithm 1): sum_g q_g L_g after q_g <- q_g exp(eta L_g) /
    sum.

    L_g is a group's mean loss. Nothing is learnt of a group that is not in the batch: its q changes
    by the normalisation only.

    Args:
        losses: (B,) of the samples.
        group: (B,) each sample's group.
        weight: (G,) q.
        eta: step of q.
        total: sums over the processes, whose gradients are averaged.

    Returns:
        The loss, and the new q (G,).
    """
    sums = torch.zeros_like(weight).index_add(0, group, losses.to(weight.dtype))
    counts = total(torch.bincount(group, minlength=len(weight)).to(weight.dtype)).clamp(min=1)
    weight = weight * torch.exp(eta * total(sums.detach()) / counts)
    weight = weight / weight.sum()
    processes = total(torch.ones_like(counts[:1]))
    return processes.squeeze() * (weight * sums / counts).sum(), weight
