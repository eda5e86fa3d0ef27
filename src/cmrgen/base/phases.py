"""ED and ES as the three channels of an RGB picture, as a latent diffusion base wants it, and back.

The paper stacks ED, ES, ED. ED then weighs twice in whatever is learnt from three channels, and is
read back as the mean of two: its detail differs from ES's, and that alone tells synthetic images
from real ones. With "even" the third channel is the mean of both, so neither phase weighs more, and
nothing changes if they change places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cmrdata.batch import ed_es_ed

PAPER, EVEN = "paper", "even"
CHANNELS = (EVEN, PAPER)


def check_channels(channels: str, *, setting: str = "channels") -> str:
    """`channels` if it is one of CHANNELS. Raises ValueError naming the setting and what it
    takes."""
    if channels not in CHANNELS:
        raise ValueError(f"{setting}={channels!r}: it takes {' or '.join(CHANNELS)}")
    return channels


def three_channels(images: Tensor, channels: str) -> Tensor:
    """(..., 2, P, P) ED and ES -> (..., 3, P, P) float32: ED, ES and their mean, or as in the paper
    ED, ES, ED."""
    if channels == PAPER:
        return ed_es_ed(images).float()
    return torch.cat([pair := images.float(), pair.mean(-3, keepdim=True)], -3)


def two_phases(rgb: Tensor, channels: str) -> Tensor:
    """(..., 3, P, P) -> (..., 2, P, P) ED and ES: the least squares estimate of the pair from its
    three channels."""
    pair, third = rgb[..., :2, :, :], rgb[..., 2:, :, :]
    if channels == PAPER:
        return torch.cat([(pair[..., :1, :, :] + third) / 2, pair[..., 1:, :, :]], -3)
    return pair + (third - pair.mean(-3, keepdim=True)) / 3
