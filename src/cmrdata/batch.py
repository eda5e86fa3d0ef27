"""Every batch key with its shape, dtype and range: the only place shapes are defined.

B images of P x P pixels; rows are y, columns are x. An image holds two cardiac phases as channels,
or the C > 2 frames of a heartbeat in the order of time, ED first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

PHASES = ("ED", "ES")  # channel order of every mask on disk, and of every image that is no cine
BACKGROUND, LV, MYO, RV = range(4)  # canonical mask labels (ukbb_cardiac order)
LABELS = {"LV": LV, "MYO": MYO, "RV": RV}

Array = TypeVar("Array", "np.ndarray", "torch.Tensor")


class SliceBatch(TypedDict):
    """What a store row holds."""

    image: torch.Tensor  # (B, 2, P, P) uint8, channels ED, ES
    mask: torch.Tensor  # (B, 2, P, P) uint8, labels 0..3, channels ED, ES
    row: torch.Tensor  # (B,) int64, the store's row


class LatentBatch(TypedDict):
    """What the generator trains on; image and mask are already encoded."""

    moments: torch.Tensor  # (B, 2C, P/f, P/f) float32, mean then log-variance of the VAE's latent
    control: torch.Tensor  # (B, 3, P, P) float32 in [0, 1], the mask as label / 3 in [ED, ES, ED]
    context: torch.Tensor  # (B, tokens, width) float32, the prompt's embedding


class LabelledBatch(TypedDict):
    """What the classifier trains on and predicts."""

    image: torch.Tensor  # (B, C, P, P) uint8, channels ED, ES, or C > 2 frames of a heartbeat
    label: torch.Tensor  # (B,) int64, 1 = diseased; (B, diseases) where several are told
    row: torch.Tensor  # (B,) int64, row of the arm's index table
    # (B,) int64, position among the sorted group names of the arm's training rows; -1 = not one
    group: torch.Tensor


def ed_es_ed(x: Array) -> Array:
    """(..., 2, P, P) -> (..., 3, P, P): the paper's stack as an RGB image, channels ED, ES, ED
    (paper 2.1).

    Raises ValueError for a heartbeat's frames.
    """
    if x.shape[-3] != len(PHASES):
        raise ValueError(
            f"images have {x.shape[-3]} channels, not ED and ES alone; prepare the cohort with "
            "cohort.cine=null"
        )
    return x[..., [0, 1, 0], :, :]


def as_fetched(batch: Any) -> Any:
    """A loader's collate_fn where the dataset's `__getitems__` has already made the batch."""
    return batch
